//! Holds back targets of posted jobs until it is their turn: behind the one before in a group that runs in order, and
//! behind another one with the same URL.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};

use tokio::sync::mpsc;

use crate::catalog::TargetKey;
use crate::source::Entry;
use crate::target::{OnError, Place};

/// A target of a posted job has its outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) place: Place,
    /// `None` for what is no URL.
    pub(super) key: Option<TargetKey>,
    /// Whether it was wanted and could not be had.
    pub(super) failed: bool,
}

/// Whose turn it is. Of the jobs that nobody posted, it is everybody's at once.
#[derive(Debug)]
pub(super) struct Order {
    /// What is done. It has at most as many as there are places in the job's window.
    done: Option<mpsc::UnboundedReceiver<Done>>,
    groups: HashMap<u32, Line>,
    keys: HashMap<TargetKey, VecDeque<Entry>>,
    waiting: usize,
    released: Vec<Released>,
}

/// A group that runs in order.
#[derive(Debug)]
enum Line {
    /// One of it is under way, and these are behind.
    Busy(VecDeque<Entry>),
    /// One of it failed.
    Stopped,
}

/// What need not wait any more.
#[derive(Debug)]
pub(super) enum Released {
    /// It is its turn.
    Go(Entry),
    /// Its turn will never come, since its group is stopped.
    Stopped(Entry),
}

/// Whether an entry may go.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(super) enum Turn {
    Now(Released),
    /// It is kept here until it may.
    Later,
}

impl Order {
    /// With `done`, where to hear of a posted job; `stopped` are the groups of it that failed in an earlier process.
    pub(super) fn new(done: Option<mpsc::UnboundedReceiver<Done>>, stopped: &[u32]) -> Self {
        Self {
            done,
            groups: stopped
                .iter()
                .map(|group| (*group, Line::Stopped))
                .collect(),
            keys: HashMap::new(),
            waiting: 0,
            released: Vec::new(),
        }
    }

    /// Whether some wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Asks for an entry whether it may go. One that may has to be [`done`](Self::hear) later.
    pub(super) fn enter(&mut self, entry: Entry) -> Turn {
        let Some(group) = in_order(place(&entry)) else {
            return Turn::Now(Released::Go(entry));
        };
        match self.groups.entry(group) {
            Slot::Vacant(free) => {
                free.insert(Line::Busy(VecDeque::new()));
                Turn::Now(Released::Go(entry))
            }
            Slot::Occupied(mut line) => match line.get_mut() {
                Line::Busy(behind) => {
                    behind.push_back(entry);
                    self.waiting += 1;
                    Turn::Later
                }
                Line::Stopped => Turn::Now(Released::Stopped(entry)),
            },
        }
    }

    /// Keeps an entry whose URL is under way until that is done.
    pub(super) fn wait_for(&mut self, key: TargetKey, entry: Entry) {
        self.keys.entry(key).or_default().push_back(entry);
        self.waiting += 1;
    }

    /// Waits for something to be done, and releases what waited for it. For ever where nobody posted the job. Cancel
    /// safe.
    pub(super) async fn hear(&mut self) {
        let done = match &mut self.done {
            Some(done) => done.recv().await,
            None => None,
        };
        let Some(done) = done else {
            return std::future::pending().await;
        };
        self.note(done);
        while let Some(Ok(done)) = self.done.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            self.note(done);
        }
    }

    fn note(&mut self, done: Done) {
        if let Some(key) = done.key
            && let Slot::Occupied(mut behind) = self.keys.entry(key)
        {
            let next = behind.get_mut().pop_front();
            if behind.get().is_empty() {
                behind.remove();
            }
            self.waiting -= usize::from(next.is_some());
            self.released.extend(next.map(Released::Go));
        }
        let Some(group) = in_order(Some(done.place)) else {
            return;
        };
        let Slot::Occupied(mut line) = self.groups.entry(group) else {
            return;
        };
        let Line::Busy(behind) = line.get_mut() else {
            return;
        };
        if done.failed {
            let behind = std::mem::take(behind);
            line.insert(Line::Stopped);
            self.waiting -= behind.len();
            self.released
                .extend(behind.into_iter().map(Released::Stopped));
        } else if let Some(next) = behind.pop_front() {
            self.waiting -= 1;
            self.released.push(Released::Go(next));
        } else {
            line.remove();
        }
    }

    /// What need not wait any more.
    pub(super) fn released(&mut self) -> Vec<Released> {
        std::mem::take(&mut self.released)
    }

    /// All that wait, also those that need not any more.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        let released = self.released.drain(..).map(|released| match released {
            Released::Go(entry) | Released::Stopped(entry) => entry,
        });
        let lines = self.groups.drain().filter_map(|(_, line)| match line {
            Line::Busy(behind) => Some(behind),
            Line::Stopped => None,
        });
        let keys = self.keys.drain().map(|(_, behind)| behind);
        self.waiting = 0;
        released.chain(lines.chain(keys).flatten()).collect()
    }
}

/// Where an entry stands in a posted job.
pub(super) fn place(entry: &Entry) -> Option<Place> {
    match entry {
        Entry::Target(target) => target.place,
        Entry::Invalid(invalid) => invalid.place,
    }
}

/// The group, if it runs in order.
fn in_order(place: Option<Place>) -> Option<u32> {
    let place = place.filter(|place| place.on_error == OnError::Stop)?;
    place.group
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::target::Target;

    fn entry(seq: u64, group: u32, on_error: OnError) -> Entry {
        let url = Url::parse("https://example.org/").unwrap();
        let mut target = Target::new(url);
        target.place = Some(Place {
            seq,
            group: Some(group),
            on_error,
        });
        Entry::Target(target)
    }

    fn seq(entry: &Entry) -> u64 {
        place(entry).unwrap().seq
    }

    fn done(entry: &Entry, failed: bool) -> Done {
        Done {
            place: place(entry).unwrap(),
            key: None,
            failed,
        }
    }

    fn goes(order: &mut Order, entry: Entry) -> bool {
        matches!(order.enter(entry), Turn::Now(Released::Go(_)))
    }

    #[test]
    fn a_group_in_order_has_one_under_way_and_the_others_go_on() {
        let mut order = Order::new(None, &[]);
        let first = entry(0, 0, OnError::Stop);
        assert!(goes(&mut order, first.clone()));
        assert!(!goes(&mut order, entry(1, 0, OnError::Stop)));
        assert!(!goes(&mut order, entry(2, 0, OnError::Stop)));
        assert!(goes(&mut order, entry(3, 1, OnError::Stop)));
        assert!(goes(&mut order, entry(4, 2, OnError::Continue)));
        assert!(goes(&mut order, entry(5, 2, OnError::Continue)));
        order.note(done(&first, false));
        let released = order.released();
        let [Released::Go(second)] = &released[..] else {
            panic!("{released:?}");
        };
        assert_eq!(seq(second), 1);
        order.note(done(second, true));
        let released = order.released();
        assert!(
            matches!(&released[..], [Released::Stopped(third)] if seq(third) == 2),
            "{released:?}"
        );
        assert!(!order.is_waiting());
        assert!(matches!(
            order.enter(entry(6, 0, OnError::Stop)),
            Turn::Now(Released::Stopped(_))
        ));
    }

    #[test]
    fn a_group_that_failed_before_stays_stopped() {
        let mut order = Order::new(None, &[7]);
        assert!(!goes(&mut order, entry(0, 7, OnError::Stop)));
        assert!(!order.is_waiting());
    }

    #[test]
    fn what_waits_for_a_url_goes_one_after_the_other() {
        let mut order = Order::new(None, &[]);
        let url = Url::parse("https://example.org/").unwrap();
        let key = TargetKey::of(&url, None, None);
        order.wait_for(key, entry(1, 0, OnError::Continue));
        order.wait_for(key, entry(2, 0, OnError::Continue));
        for expected in [1, 2] {
            let mut done = done(&entry(expected - 1, 0, OnError::Continue), false);
            done.key = Some(key);
            order.note(done);
            let released = order.released();
            assert!(matches!(&released[..], [Released::Go(next)] if seq(next) == expected));
        }
        assert!(!order.is_waiting());
    }

    #[test]
    fn all_can_be_taken_out() {
        let mut order = Order::new(None, &[]);
        let first = entry(0, 0, OnError::Stop);
        assert!(goes(&mut order, first.clone()));
        for seq in 1..4 {
            assert!(!goes(&mut order, entry(seq, 0, OnError::Stop)));
        }
        order.note(done(&first, false));
        let mut seqs: Vec<u64> = order.drain().iter().map(seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, [1, 2, 3]);
        assert!(!order.is_waiting());
    }
}
