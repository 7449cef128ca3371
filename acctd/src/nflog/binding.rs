//! Whether each group is still bound to its socket, and bound again where it is not. The kernel may
//! let go of a group without a word: somebody with a copy of the socket has unbound it, or the network
//! namespace was made anew under its name.
//!
//! Nothing numbers what is logged while nobody is bound, so all that can be said of it is when: a gap.

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
/// How long to wait for the kernel's answers. Before they are read, so is all that waits in the sockets:
/// what comes later is taken note of later.
const PATIENCE: Duration = Duration::from_millis(100);

/// The bindings of all groups, and what was missed while one was gone.
#[derive(Debug)]
pub struct Bindings {
    namespace: NetworkNamespace,
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
    asked: Option<Asked>,
    /// How long to wait before the next try, should this one come to nothing.
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Bound {
        bound_at: Instant,
        /// When it was last known to be so.
        seen_at: UnixNanos,
    },
    Gone {
        since: UnixNanos,
        next_try: Instant,
    },
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    at: UnixNanos,
    answer: oneshot::Receiver<Answer>,
}

/// A gap, which has no end while the group is gone.
#[derive(Debug)]
struct OpenGap {
    group: NflogGroup,
    start: UnixNanos,
    end: Option<UnixNanos>,
}

/// Whether a group is still bound to its socket.
#[derive(Debug)]
pub enum Answer {
    /// It was when the kernel was asked.
    Bound,
    /// The kernel has said otherwise, or the socket does not even ask.
    Lost(io::Error),
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
    /// Let go of the old socket, after reading what it still holds.
    Release,
    /// Go on with this one.
    Adopt(NflogSocket),
}

impl Bindings {
    /// Begins with all groups bound.
    #[must_use]
    pub fn new(config: &Config, namespace: NetworkNamespace, now: UnixNanos) -> Self {
        let groups = config.groups.iter().map(|&config| Binding {
            config,
            state: State::Bound {
                bound_at: Instant::now(),
                seen_at: now,
            },
            asked: None,
            pause: FIRST_PAUSE,
        });
        Self {
            namespace,
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

    /// What is open has been open since then at the latest: times of the old clock would lie ahead.
    pub fn clock_set_back(&mut self, now: UnixNanos) {
        for binding in &mut self.groups {
            match &mut binding.state {
                State::Bound { seen_at: since, .. } | State::Gone { since, .. } => {
                    *since = now.min(*since);
                }
            }
        }
        for gap in self.gaps.iter_mut().filter(|gap| gap.end.is_none()) {
            gap.start = gap.start.min(now);
        }
    }

    /// The numbers of a reader's packets have begun anew: its group was not bound in between, and is bound
    /// again, to the same socket.
    pub fn note_renumbered(&mut self, reader: usize, between: Period) {
        let group = self.groups[reader].config.group;
        warn!(
            "group {group}: the kernel numbers its packets anew: somebody has unbound the group and bound it again; what it has logged within {:.1} s may not be counted",
            between.start.until(between.end).as_secs_f64()
        );
        self.note_gap(group, between.start, between.end);
    }

    /// Each group's socket has been asked, and answers here.
    pub fn asked(
        &mut self,
        at: UnixNanos,
        answers: impl IntoIterator<Item = oneshot::Receiver<Answer>>,
    ) {
        for (binding, answer) in self.groups.iter_mut().zip(answers) {
            binding.asked = Some(Asked { at, answer });
        }
    }

    /// Takes note of the answers. Returns what the readers are to do whose group is gone.
    pub async fn hear(&mut self, now: UnixNanos) -> Vec<(usize, Change)> {
        let patience = tokio::time::Instant::now() + PATIENCE;
        let mut changes = Vec::new();
        for at in 0..self.groups.len() {
            let binding = &mut self.groups[at];
            let Some(asked) = &mut binding.asked else {
                continue;
            };
            let Ok(answer) = timeout_at(patience, &mut asked.answer).await else {
                continue;
            };
            match (answer, &mut binding.state) {
                (Ok(Answer::Bound), State::Bound { seen_at, .. }) => {
                    *seen_at = asked.at.max(*seen_at);
                }
                (Ok(Answer::Lost(error)), _) => {
                    changes.extend(self.let_go(at, now, &cause(&error)));
                }
                _ => {}
            }
            self.groups[at].asked = None;
        }
        changes
    }

    /// Follows the network namespace and binds what is to be bound again. Fails if the namespace is
    /// another one and may not be entered.
    pub fn look(&mut self, now: UnixNanos) -> Result<Changes> {
        let mut changes = Vec::new();
        let followed = self.namespace.follow();
        let has_moved = !matches!(followed, Ok(false));
        if has_moved {
            for at in 0..self.groups.len() {
                let cause = "its network namespace was deleted and made again";
                changes.extend(self.let_go(at, now, cause));
            }
        }
        followed?;
        for at in 0..self.groups.len() {
            changes.extend(self.try_again(at));
        }
        Ok(Changes { changes, has_moved })
    }

    /// Does something in the network namespace of the groups.
    pub fn in_namespace<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.run(work)
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
        let State::Bound { bound_at, seen_at } = binding.state else {
            return None;
        };
        let group = binding.config.group;
        warn!("group {group} is not bound any more: {cause}");
        // What it was asked, the next socket does not answer.
        binding.asked = None;
        // The manager's copy would keep the group bound to what is no good.
        systemd::forget(&socket_name(group));
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
                binding.state = State::Gone { since, next_try };
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
            seen_at: now,
        };
        for gap in &mut self.gaps {
            if gap.group == config.group && gap.end.is_none() {
                gap.end = Some(now);
            }
        }
        Some((at, Change::Adopt(socket)))
    }

    /// Whether each group is bound, as far as is known.
    pub fn are_bound(&self) -> impl Iterator<Item = bool> {
        let states = self.groups.iter().map(|binding| &binding.state);
        states.map(|state| matches!(state, State::Bound { .. }))
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

/// What an error of a group's socket means.
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

    /// What a try does that succeeds, as far as is known here.
    fn bind(bindings: &mut Bindings, bound_at: Instant) {
        bindings.groups[0].next_pause();
        bindings.groups[0].state = State::Bound {
            bound_at,
            seen_at: UnixNanos(0),
        };
    }

    #[test]
    fn what_fails_as_soon_as_it_is_bound_waits_ever_longer_and_at_most_half_a_minute() {
        let mut bindings = bindings();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(bindings.let_go(0, UnixNanos(0), "a test").is_some());
            pauses.push(bindings.until_next_try().unwrap().as_millis().div_ceil(250));
            bind(&mut bindings, Instant::now());
        }
        assert_eq!(pauses, [0, 2, 8, 32, 120, 120]);
        let long_ago = Instant::now().checked_sub(LONGEST_PAUSE).unwrap();
        bind(&mut bindings, long_ago);
        assert!(bindings.let_go(0, UnixNanos(0), "a test").is_some());
        assert_eq!(bindings.until_next_try(), Some(Duration::ZERO));
        // What is gone cannot go again.
        assert!(bindings.let_go(0, UnixNanos(0), "a test").is_none());
    }

    #[tokio::test]
    async fn a_gap_begins_with_the_last_question_that_was_answered_with_yes() {
        let mut bindings = bindings();
        let mut gaps = Vec::new();
        for (asked_at, answer) in [
            (1_000, Some(Answer::Bound)),
            // No room in the socket.
            (2_000, None),
            (3_000, Some(Answer::Lost(io::ErrorKind::Other.into()))),
        ] {
            let (reply, answer_comes) = oneshot::channel();
            bindings.asked(UnixNanos(asked_at), [answer_comes]);
            if let Some(answer) = answer {
                reply.send(answer).unwrap();
            }
            bindings.hear(UnixNanos(asked_at + 10)).await;
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
    async fn the_answer_of_a_socket_that_was_let_go_of_is_not_the_next_ones() {
        let mut bindings = bindings();
        let (reply, answer) = oneshot::channel();
        bindings.asked(UnixNanos(1_000), [answer]);
        bindings.let_go(0, UnixNanos(2_000), "a test");
        bind(&mut bindings, Instant::now());
        // It may not even arrive.
        let _gone = reply.send(Answer::Lost(io::ErrorKind::Other.into()));
        assert!(bindings.hear(UnixNanos(4_000)).await.is_empty());
        assert!(matches!(bindings.groups[0].state, State::Bound { .. }));
    }
}
