//! The rates of prefixes, for `acctd top` and the page: the readers are asked for a copy of their open intervals, as for a
//! checkpoint. Nothing is copied while nobody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::heaviest::{Copied, Heaviest, Query, heaviest};
use crate::count::reader::Request;
use crate::model::group::GroupConfig;

/// The least time between two copies, however many ask.
const PAUSE: Duration = Duration::from_secs(1);
/// An older copy says nothing of the present.
const TOO_OLD: Duration = Duration::from_secs(10);

/// The readers, and their last two copies.
#[derive(Debug)]
pub(crate) struct LiveRates {
    readers: Vec<(GroupConfig, mpsc::WeakUnboundedSender<Request>)>,
    copies: Mutex<Copies>,
}

#[derive(Debug, Default)]
struct Copies {
    before: Option<Copy>,
    now: Option<Copy>,
}

#[derive(Debug)]
struct Copy {
    at: Instant,
    groups: Vec<Copied>,
}

impl LiveRates {
    pub(crate) fn new(readers: Vec<(GroupConfig, mpsc::WeakUnboundedSender<Request>)>) -> Self {
        Self {
            readers,
            copies: Mutex::default(),
        }
    }

    /// The first one who asks waits for a second.
    pub(crate) async fn answer(self: &Arc<Self>, query: &Query) -> Heaviest {
        let mut copies = self.copies.lock().await;
        copies.forget();
        if copies.now.is_none() {
            copies.now = Some(self.copy().await);
            tokio::spawn(Arc::clone(self).forget_when_nobody_asks());
        }
        let age = copies.now.as_ref().map(|copy| copy.at.elapsed());
        match age {
            Some(age) if age < PAUSE && copies.before.is_none() => {
                tokio::time::sleep(PAUSE.saturating_sub(age)).await;
                copies.renew(self.copy().await);
            }
            Some(age) if age < PAUSE => {}
            _ => copies.renew(self.copy().await),
        }
        let (before, now) = match (&copies.before, &copies.now) {
            (Some(before), Some(now)) => (before, now),
            (None, Some(now)) | (Some(now), None) => (now, now),
            (None, None) => return heaviest(&[], &[], 1.0, query),
        };
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        heaviest(&before.groups, &now.groups, seconds, query)
    }

    async fn copy(&self) -> Copy {
        let mut answers = Vec::new();
        for (group, reader) in &self.readers {
            let (reply, answer) = oneshot::channel();
            if let Some(reader) = reader.upgrade() {
                let _gone = reader.send(Request::Copy(reply));
            }
            answers.push((*group, answer));
        }
        let at = Instant::now();
        let mut groups = Vec::new();
        for (group, answer) in answers {
            groups.push((group, answer.await.unwrap_or_default()));
        }
        Copy { at, groups }
    }

    async fn forget_when_nobody_asks(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TOO_OLD).await;
            let mut copies = self.copies.lock().await;
            copies.forget();
            if copies.now.is_none() {
                return;
            }
        }
    }
}

impl Copies {
    fn renew(&mut self, copy: Copy) {
        self.before = self.now.replace(copy);
    }

    fn forget(&mut self) {
        if self
            .now
            .as_ref()
            .is_some_and(|copy| copy.at.elapsed() >= TOO_OLD)
        {
            *self = Self::default();
        }
    }
}
