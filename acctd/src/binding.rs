//! Whether each group is still bound to its socket, and bound again where it is not. The kernel may
//! let go of a group without a word: somebody with a copy of the socket has unbound it, or the network
//! namespace was made anew under its name.
//!
//! Nothing numbers what is logged while nobody is bound, so all that can be said of it is when: a gap.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use log::{info, warn};

use crate::config::{Config, GroupConfig};
use crate::handover::socket_name;
use crate::interval::{Period, UnixNanos};
use crate::network_namespace::Home;
use crate::nflog_socket::{NflogGroup, NflogSocket};
use crate::nflog_table;
use crate::preflight;
use crate::rows::{Gap, GapCause};
use crate::service_manager;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The bindings of all groups, and what was missed while one was gone.
#[derive(Debug)]
pub struct Bindings {
    home: Home,
    flush_timeout: Duration,
    /// In the order of the readers.
    groups: Vec<Binding>,
    /// In the order in which they began.
    gaps: VecDeque<OpenGap>,
}

#[derive(Debug)]
struct Binding {
    config: GroupConfig,
    state: State,
    /// How long to wait before the next try, should this one come to nothing.
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Bound {
        /// The kernel's name for the socket, where it can be known.
        port_id: Option<u32>,
        bound_at: Instant,
        /// When it was last known to be so.
        seen_at: UnixNanos,
    },
    Gone {
        since: UnixNanos,
        next_try: Instant,
    },
}

/// A gap, which has no end while the group is gone.
#[derive(Debug)]
struct OpenGap {
    group: NflogGroup,
    start: UnixNanos,
    end: Option<UnixNanos>,
}

/// What a look has found.
#[derive(Debug)]
pub struct Changes {
    /// The readers concerned, by number, each with what it is to do, in this order.
    pub changes: Vec<(usize, Change)>,
    /// The groups are in another network namespace now.
    pub has_moved: bool,
}

/// What a reader is to do.
#[derive(Debug)]
pub enum Change {
    /// Read what the old socket still holds, and let go of it.
    Release,
    /// Go on with this one.
    Adopt(NflogSocket),
}

impl Bindings {
    /// Begins with all groups bound, to sockets with these port ids.
    #[must_use]
    pub fn new(config: &Config, home: Home, port_ids: &[Option<u32>], now: UnixNanos) -> Self {
        let groups = config.groups.iter().zip(port_ids);
        let groups = groups.map(|(&config, &port_id)| Binding {
            config,
            state: State::Bound {
                port_id,
                bound_at: Instant::now(),
                seen_at: now,
            },
            pause: FIRST_PAUSE,
        });
        Self {
            home,
            flush_timeout: config.flush_timeout,
            groups: groups.collect(),
            gaps: VecDeque::new(),
        }
    }

    /// Before it was bound, the group was not, though it should have been.
    pub fn note_gap(&mut self, group: NflogGroup, start: UnixNanos, end: UnixNanos) {
        self.gaps.push_back(OpenGap {
            group,
            start,
            end: Some(end),
        });
    }

    /// What has changed. Fails if the network namespace is another one and may not be entered.
    pub fn look(&mut self, now: UnixNanos) -> Result<Changes> {
        let mut changes = Vec::new();
        let has_moved = self.home.is_another();
        if has_moved {
            for at in 0..self.groups.len() {
                let cause = "its network namespace was deleted and made again";
                changes.extend(self.let_go(at, now, cause));
            }
            self.home.enter_anew()?;
        }
        // Unreadable for all but root: then a loss shows only where the socket says so.
        let instances = self.home.run(nflog_table::read);
        for at in 0..self.groups.len() {
            let group = self.groups[at].config.group;
            if let (
                State::Bound {
                    port_id, seen_at, ..
                },
                Ok(Ok(instances)),
            ) = (&mut self.groups[at].state, &instances)
            {
                let owner = instances
                    .iter()
                    .find(|instance| instance.group == group)
                    .map(|instance| instance.port_id);
                if port_id.is_none() || owner == *port_id {
                    *seen_at = now;
                } else {
                    changes.extend(self.let_go(at, now, "somebody has unbound it"));
                }
            }
            changes.extend(self.try_again(at));
        }
        Ok(Changes { changes, has_moved })
    }

    /// A group's socket has failed. Returns the reader, and what it is to do.
    pub fn fail(
        &mut self,
        group: NflogGroup,
        error: &io::Error,
        now: UnixNanos,
    ) -> Option<(usize, Change)> {
        let at = self
            .groups
            .iter()
            .position(|binding| binding.config.group == group)?;
        self.let_go(at, now, &format!("its socket has failed: {error}"))
    }

    /// A reader could not go on with a new socket.
    pub fn refuse(&mut self, reader: usize, error: &io::Error, now: UnixNanos) {
        // Nothing of the socket is left; the next try makes another.
        let _released = self.let_go(
            reader,
            now,
            &format!("the new socket cannot be read: {error}"),
        );
    }

    fn let_go(&mut self, at: usize, now: UnixNanos, cause: &str) -> Option<(usize, Change)> {
        let binding = &mut self.groups[at];
        let State::Bound {
            bound_at, seen_at, ..
        } = binding.state
        else {
            return None;
        };
        let group = binding.config.group;
        warn!("group {group} is not bound any more: {cause}; binding it again");
        service_manager::forget(&socket_name(group));
        let next_try = if bound_at.elapsed() < LONGEST_PAUSE && binding.pause > FIRST_PAUSE {
            // What fails as soon as it is bound is not bound again without end.
            Instant::now() + binding.next_pause()
        } else {
            binding.pause = FIRST_PAUSE;
            Instant::now()
        };
        binding.state = State::Gone {
            since: seen_at,
            next_try,
        };
        self.gaps.push_back(OpenGap {
            group,
            start: seen_at.min(now),
            end: None,
        });
        Some((at, Change::Release))
    }

    fn try_again(&mut self, at: usize) -> Option<(usize, Change)> {
        let binding = &mut self.groups[at];
        let State::Gone { since, next_try } = binding.state else {
            return None;
        };
        if Instant::now() < next_try {
            return None;
        }
        let pause = binding.next_pause();
        let config = binding.config;
        let flush_timeout = self.flush_timeout;
        let opened = self
            .home
            .run(|| preflight::open_group(&config, flush_timeout))
            .and_then(|opened| opened);
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                warn!(
                    "cannot bind group {} again: {error:#}; what it logs is not counted, next try in {pause:?}",
                    config.group
                );
                binding.state = State::Gone {
                    since,
                    next_try: Instant::now() + pause,
                };
                return None;
            }
        };
        let now = UnixNanos::now();
        info!(
            "Group {} is bound again; what it has logged within {:.1} s is not counted",
            config.group,
            since.until(now).as_secs_f64()
        );
        binding.state = State::Bound {
            port_id: socket.port_id().ok(),
            bound_at: Instant::now(),
            seen_at: now,
        };
        for gap in &mut self.gaps {
            if gap.group == config.group && gap.end.is_none() {
                gap.end = Some(now);
            }
        }
        Some((at, Change::Adopt(socket)))
    }

    /// How long until a group is to be tried again.
    #[must_use]
    pub fn until_next_try(&self) -> Option<Duration> {
        let next_tries = self
            .groups
            .iter()
            .filter_map(|binding| match binding.state {
                State::Bound { .. } => None,
                State::Gone { next_try, .. } => Some(next_try),
            });
        let next = next_tries.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// The gaps in a period, as far as they lie in it.
    #[must_use]
    pub fn gaps_in(&self, period: Period) -> Vec<Gap> {
        let gaps = self.gaps.iter().filter_map(|gap| {
            let start = gap.start.max(period.start);
            let end = gap.end.unwrap_or(period.end).min(period.end);
            (start < end).then(|| Gap {
                period: Period { start, end },
                groups: vec![gap.group],
                cause: GapCause::Unbound,
            })
        });
        gaps.collect()
    }

    /// Forgets the gaps that lie before a time.
    pub fn forget_before(&mut self, time: UnixNanos) {
        self.gaps.retain(|gap| gap.end.is_none_or(|end| end > time));
    }
}

impl Binding {
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Why acctd must end: it may not follow its network namespace.
#[must_use]
pub fn cannot_follow(name: &str, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "network namespace {name} was deleted and made again, and cannot be entered: {error}; what was counted is written, start acctd again in it (or grant CAP_SYS_ADMIN)"
    )
}
