//! Checks whether each group is still bound to its socket, and binds it again if it is not. The kernel does not
//! report that a group was unbound: by a process with a copy of the socket, or because the network namespace was
//! deleted and created again under its name.
//!
//! While a group is not bound, nobody numbers what is logged. So only the time is known: a gap.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use log::{info, warn};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::config::Config;
use crate::model::closed_interval::{Gap, GapCause};
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::{Period, UnixNanos};
use crate::nflog::network_namespace::NetworkNamespace;
use crate::nflog::open;
use crate::nflog::socket::NflogSocket;
use crate::restart::handover::socket_name;
use crate::restart::systemd;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long to wait for the kernel's answers. A reader finds an answer only after it has read the packets before
/// it. A later answer is used in the next check.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// The bindings of all groups, and the gaps in which a group was not bound.
pub(crate) struct Bindings {
    namespace: NetworkNamespace,
    flush_timeout: Duration,
    /// In the order of the readers.
    groups: Vec<Binding>,
    /// In the order of their starts.
    gaps: VecDeque<GroupGap>,
}

struct Binding {
    config: GroupConfig,
    state: State,
    pending: Option<PendingCheck>,
    /// How long to wait for the next try if this one fails.
    pause: Duration,
}

enum State {
    Bound {
        bound_at: Instant,
        /// The latest time at which the kernel has confirmed it.
        confirmed_at: UnixNanos,
    },
    Unbound {
        since: UnixNanos,
        next_try: Instant,
    },
}

/// A check whose answer has not arrived.
struct PendingCheck {
    at: UnixNanos,
    answer: oneshot::Receiver<Answer>,
}

/// A gap. While the group is not bound, it has no end.
struct GroupGap {
    group: NflogGroup,
    start: UnixNanos,
    end: Option<UnixNanos>,
}

/// Whether a group is still bound to its socket.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The group was bound when the kernel was asked.
    Bound,
    /// The group is not bound to the socket, or the request failed.
    Lost(io::Error),
}

/// The result of [`Bindings::repair`].
pub(crate) struct Changes {
    /// The readers that have to change their socket, by number, in this order.
    pub(crate) changes: Vec<(usize, Change)>,
    /// The groups are in another network namespace now.
    pub(crate) has_moved: bool,
}

/// How a reader changes its socket.
pub(crate) enum Change {
    /// Read what the socket still holds, then close it.
    Release,
    /// Read from this socket.
    Adopt(NflogSocket),
}

impl Bindings {
    /// All groups are bound at this time.
    pub(crate) fn new(config: &Config, namespace: NetworkNamespace, now: UnixNanos) -> Self {
        let groups = config.groups.iter().map(|&config| Binding {
            config,
            state: State::Bound {
                bound_at: Instant::now(),
                confirmed_at: now,
            },
            pending: None,
            pause: FIRST_PAUSE,
        });
        Self {
            namespace,
            flush_timeout: config.flush_timeout,
            groups: groups.collect(),
            gaps: VecDeque::new(),
        }
    }

    /// Records that the group was not bound for this time.
    pub(crate) fn add_gap(&mut self, group: NflogGroup, start: UnixNanos, end: UnixNanos) {
        self.gaps.push_back(GroupGap {
            group,
            start,
            end: Some(end),
        });
    }

    /// Limits the starts of open gaps to `now`: times of the old clock would be in the future.
    pub(crate) fn clock_set_back(&mut self, now: UnixNanos) {
        for binding in &mut self.groups {
            match &mut binding.state {
                State::Bound {
                    confirmed_at: since,
                    ..
                }
                | State::Unbound { since, .. } => {
                    *since = now.min(*since);
                }
            }
        }
        for gap in self.gaps.iter_mut().filter(|gap| gap.end.is_none()) {
            gap.start = gap.start.min(now);
        }
    }

    /// The kernel has restarted the numbers of a reader's packets: the group was unbound, and bound again to the same socket.
    pub(crate) fn add_renumbering(&mut self, reader: usize, between: Period) {
        let group = self.groups[reader].config.group;
        warn!(
            "group {group}: the kernel has restarted its packet numbers: somebody has unbound the group and bound it again; what it has logged within {:.1} s may not be counted",
            between.start.until(between.end).as_secs_f64()
        );
        self.add_gap(group, between.start, between.end);
    }

    /// All sockets were asked at this time. The answers arrive here, in the order of the readers.
    pub(crate) fn expect_answers(
        &mut self,
        at: UnixNanos,
        answers: impl IntoIterator<Item = oneshot::Receiver<Answer>>,
    ) {
        for (binding, answer) in self.groups.iter_mut().zip(answers) {
            binding.pending = Some(PendingCheck { at, answer });
        }
    }

    /// Collects the answers. Returns the changes for the readers whose group is not bound any more.
    pub(crate) async fn collect_answers(&mut self, now: UnixNanos) -> Vec<(usize, Change)> {
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        let mut changes = Vec::new();
        for at in 0..self.groups.len() {
            let binding = &mut self.groups[at];
            let Some(pending) = &mut binding.pending else {
                continue;
            };
            let Ok(answer) = timeout_at(deadline, &mut pending.answer).await else {
                continue;
            };
            match (answer, &mut binding.state) {
                (Ok(Answer::Bound), State::Bound { confirmed_at, .. }) => {
                    *confirmed_at = pending.at.max(*confirmed_at);
                }
                (Ok(Answer::Lost(error)), _) => {
                    changes.extend(self.mark_unbound(at, now, &cause(&error)));
                }
                _ => {}
            }
            self.groups[at].pending = None;
        }
        changes
    }

    /// Follows the network namespace, and binds the groups that are not bound. Fails if acctd is not permitted to
    /// enter the new namespace.
    pub(crate) fn repair(&mut self, now: UnixNanos) -> Result<Changes> {
        let mut changes = Vec::new();
        let followed = self.namespace.follow();
        let has_moved = !matches!(followed, Ok(false));
        if has_moved {
            for at in 0..self.groups.len() {
                let cause = "its network namespace was deleted and created again";
                changes.extend(self.mark_unbound(at, now, cause));
            }
        }
        followed?;
        for at in 0..self.groups.len() {
            changes.extend(self.bind_again(at));
        }
        Ok(Changes { changes, has_moved })
    }

    /// Runs `work` in the network namespace of the groups.
    pub(crate) fn in_namespace<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.run(work)
    }

    /// A reader cannot read from its new socket.
    pub(crate) fn adopt_failed(&mut self, reader: usize, error: &io::Error, now: UnixNanos) {
        // The reader has closed the socket; the next try opens another.
        let _released = self.mark_unbound(
            reader,
            now,
            &format!("the new socket cannot be read: {error}"),
        );
    }

    fn mark_unbound(&mut self, at: usize, now: UnixNanos, cause: &str) -> Option<(usize, Change)> {
        let binding = &mut self.groups[at];
        let State::Bound {
            bound_at,
            confirmed_at,
        } = binding.state
        else {
            return None;
        };
        let group = binding.config.group;
        warn!("group {group} is not bound any more: {cause}");
        // The next socket does not answer this check.
        binding.pending = None;
        // Otherwise the service manager's copy could keep the group bound to the old socket.
        systemd::remove_stored(&socket_name(group));
        let next_try = if bound_at.elapsed() < LONGEST_PAUSE && binding.pause > FIRST_PAUSE {
            // If the group fails again soon after it is bound, the pauses grow.
            Instant::now() + binding.next_pause()
        } else {
            binding.pause = FIRST_PAUSE;
            Instant::now()
        };
        binding.state = State::Unbound {
            since: confirmed_at,
            next_try,
        };
        self.gaps.push_back(GroupGap {
            group,
            start: confirmed_at.min(now),
            end: None,
        });
        Some((at, Change::Release))
    }

    fn bind_again(&mut self, at: usize) -> Option<(usize, Change)> {
        let binding = &mut self.groups[at];
        let State::Unbound { since, next_try } = binding.state else {
            return None;
        };
        if Instant::now() < next_try {
            return None;
        }
        let pause = binding.next_pause();
        let config = binding.config;
        let flush_timeout = self.flush_timeout;
        let opened = self
            .namespace
            .run(|| open::open_group(&config, flush_timeout))
            .context("cannot enter its network namespace")
            .flatten();
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                warn!(
                    "cannot bind group {} again: {error:#}; what it logs is not counted, next try in {pause:?}",
                    config.group
                );
                let next_try = Instant::now() + pause;
                binding.state = State::Unbound { since, next_try };
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
            bound_at: Instant::now(),
            confirmed_at: now,
        };
        for gap in &mut self.gaps {
            if gap.group == config.group && gap.end.is_none() {
                gap.end = Some(now);
            }
        }
        Some((at, Change::Adopt(socket)))
    }

    /// Whether each group is bound, as of the last check.
    pub(crate) fn are_bound(&self) -> impl Iterator<Item = bool> {
        let states = self.groups.iter().map(|binding| &binding.state);
        states.map(|state| matches!(state, State::Bound { .. }))
    }

    /// How long until the next try to bind a group.
    pub(crate) fn until_next_try(&self) -> Option<Duration> {
        let next_tries = self
            .groups
            .iter()
            .filter_map(|binding| match binding.state {
                State::Bound { .. } => None,
                State::Unbound { next_try, .. } => Some(next_try),
            });
        let next = next_tries.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// The parts of gaps that lie in the period.
    pub(crate) fn gaps_in(&self, period: Period) -> Vec<Gap> {
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

    /// Drops the gaps that end before this time.
    pub(crate) fn forget_before(&mut self, time: UnixNanos) {
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

/// Why a group is not bound, from the error of its socket.
fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENODEV) => "somebody has unbound it".into(),
        Some(libc::EPERM) => "another process has taken it".into(),
        _ => format!("its socket has failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::commands::Cli;

    fn bindings() -> Bindings {
        let args = ["acctd", "-ip4-src-group=5"];
        let cli = Cli::parse_args(args.iter().map(OsString::from)).unwrap();
        let config = Config::resolve(cli.flags).unwrap();
        Bindings::new(&config, NetworkNamespace::current(), UnixNanos(0))
    }

    /// The part of a successful try that needs no kernel.
    fn bind(bindings: &mut Bindings, bound_at: Instant) {
        bindings.groups[0].next_pause();
        bindings.groups[0].state = State::Bound {
            bound_at,
            confirmed_at: UnixNanos(0),
        };
    }

    #[test]
    fn if_a_group_fails_as_soon_as_it_is_bound_the_pauses_grow_to_half_a_minute() {
        let mut bindings = bindings();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(bindings.mark_unbound(0, UnixNanos(0), "a test").is_some());
            pauses.push(bindings.until_next_try().unwrap().as_millis().div_ceil(250));
            bind(&mut bindings, Instant::now());
        }
        assert_eq!(pauses, [0, 2, 8, 32, 120, 120]);
        let long_ago = Instant::now().checked_sub(LONGEST_PAUSE).unwrap();
        bind(&mut bindings, long_ago);
        assert!(bindings.mark_unbound(0, UnixNanos(0), "a test").is_some());
        assert_eq!(bindings.until_next_try(), Some(Duration::ZERO));
        assert!(
            bindings.mark_unbound(0, UnixNanos(0), "a test").is_none(),
            "it is unbound already"
        );
    }

    #[tokio::test]
    async fn a_gap_begins_with_the_last_check_that_found_the_group_bound() {
        let mut bindings = bindings();
        let mut gaps = Vec::new();
        for (asked_at, answer) in [
            (1_000, Some(Answer::Bound)),
            // No room in the socket.
            (2_000, None),
            (3_000, Some(Answer::Lost(io::ErrorKind::Other.into()))),
        ] {
            let (reply, answer_comes) = oneshot::channel();
            bindings.expect_answers(UnixNanos(asked_at), [answer_comes]);
            if let Some(answer) = answer {
                reply.send(answer).unwrap();
            }
            bindings.collect_answers(UnixNanos(asked_at + 10)).await;
            let (start, end) = (UnixNanos(0), UnixNanos(10_000));
            gaps = bindings.gaps_in(Period { start, end });
        }
        let period = Period {
            start: UnixNanos(1_000),
            end: UnixNanos(10_000),
        };
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].period, period);
    }

    #[tokio::test]
    async fn an_answer_about_the_old_socket_is_not_used_for_the_new_one() {
        let mut bindings = bindings();
        let (reply, answer) = oneshot::channel();
        bindings.expect_answers(UnixNanos(1_000), [answer]);
        bindings.mark_unbound(0, UnixNanos(2_000), "a test");
        bind(&mut bindings, Instant::now());
        // The receiver may be gone.
        let _gone = reply.send(Answer::Lost(io::ErrorKind::Other.into()));
        assert!(bindings.collect_answers(UnixNanos(4_000)).await.is_empty());
        assert!(matches!(bindings.groups[0].state, State::Bound { .. }));
    }
}
