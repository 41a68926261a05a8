//! One host's queue, limits and breaker. Pure state: every method is given the time.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Down, Health, HostDown, Limits};

/// Answers in a row, for each allowed request at a time, after which a throttled lane is allowed one more.
const GOOD_ROUNDS: usize = 8;

/// How long a throttled host is asked less once nothing waits for it.
const THROTTLED_FOR: Duration = Duration::from_secs(3600);

/// When a lane may start something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    At(Instant),
    /// Not before something is pushed or done.
    Never,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    /// Those of the job that had the last turn.
    limits: Limits,
    /// Requests at a time that are allowed at most, after the host said that it is asked too much.
    cap: Option<usize>,
    /// Good answers since `cap` last changed.
    good: usize,
    /// When the host last said that it is asked too much.
    throttled: Option<Instant>,
    in_flight: usize,
    /// When the last request started, for the rate.
    last_start: Option<Instant>,
    /// Until when the host is left alone.
    held_until: Option<Instant>,
    /// Rounds of connection faults in a row. Faults of requests that began before the last counted fault
    /// belong to its round, so that one blip does not count once for each request in flight.
    faults: u32,
    last_fault: Option<Instant>,
    /// Until when the host is given up, and why.
    down: Option<(Instant, Down)>,
    /// What waits, by job; the jobs take turns.
    queue: VecDeque<Queued<T>>,
    delayed: BinaryHeap<Delayed<T>>,
    /// Whether the lane stands in the frontier's turns.
    pub(super) in_turns: bool,
    /// The earliest alarm that is set for the lane.
    pub(super) alarm: Option<Instant>,
}

/// What waits of a job.
#[derive(Debug)]
struct Queued<T> {
    job: u64,
    limits: Limits,
    items: VecDeque<T>,
}

/// Something that waits for a time. The earliest is the greatest, as a heap wants it.
#[derive(Debug)]
struct Delayed<T> {
    at: Instant,
    job: u64,
    limits: Limits,
    item: T,
}

impl<T> PartialEq for Delayed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Delayed<T> {}

impl<T> PartialOrd for Delayed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Delayed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<T> Lane<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            cap: None,
            good: 0,
            throttled: None,
            in_flight: 0,
            last_start: None,
            held_until: None,
            faults: 0,
            last_fault: None,
            down: None,
            queue: VecDeque::new(),
            delayed: BinaryHeap::new(),
            in_turns: false,
            alarm: None,
        }
    }

    /// `limits` are those of the job, which is asked for them when it has nothing here.
    pub(super) fn push(
        &mut self,
        job: u64,
        limits: impl FnOnce() -> Limits,
        item: T,
        now: Instant,
    ) -> Result<(), HostDown<T>> {
        if let Some(down) = self.down(now) {
            return Err(HostDown(item, down));
        }
        match self.queue.iter_mut().find(|queued| queued.job == job) {
            Some(queued) => queued.items.push_back(item),
            None => self.queue.push_back(Queued {
                job,
                limits: limits(),
                items: VecDeque::from([item]),
            }),
        }
        Ok(())
    }

    /// Gives what waits of a job other limits.
    pub(super) fn relimit(&mut self, job: u64, limits: Limits) {
        let queued = self.queue.iter_mut().filter(|queued| queued.job == job);
        queued.for_each(|queued| queued.limits = limits);
    }

    /// Earliest start of a request by these limits; `None`: not before something is done. How many are in flight, what a
    /// throttled host is spared and when the last request started counts for all jobs.
    fn start(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        // After a time of being given up, one request shows whether the host is back.
        let allowed = if self.faults >= limits.down_after {
            1
        } else {
            limits
                .concurrency
                .max(1)
                .min(self.cap.unwrap_or(usize::MAX))
        };
        let next_at = self.next_at(limits);
        let waits = [next_at, self.held_until].into_iter().flatten();
        (self.in_flight < allowed).then(|| waits.fold(now, Instant::max))
    }

    fn next_at(&self, limits: &Limits) -> Option<Instant> {
        self.last_start
            .filter(|_| !limits.interval.is_zero())
            .map(|start| start + limits.interval)
    }

    pub(super) fn push_delayed(
        &mut self,
        job: u64,
        limits: Limits,
        item: T,
        at: Instant,
        now: Instant,
    ) -> Result<(), HostDown<T>> {
        if let Some(down) = self.down(now) {
            return Err(HostDown(item, down));
        }
        self.delayed.push(Delayed {
            at,
            job,
            limits,
            item,
        });
        Ok(())
    }

    /// Why the host is given up; `None`: it is not.
    fn down(&self, now: Instant) -> Option<Down> {
        self.down
            .and_then(|(until, down)| (now < until).then_some(down))
    }

    /// Whether the lane may be forgotten: nothing waits or is under way, and the host is owed nothing, neither
    /// a rest nor, for a while after it was throttled, fewer requests at a time.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let throttled_until = self
            .throttled
            .filter(|_| self.cap.is_some())
            .map(|throttled| throttled + THROTTLED_FOR);
        self.queue.is_empty()
            && self.delayed.is_empty()
            && self.in_flight == 0
            && !self.in_turns
            && [
                self.next_at(&self.limits),
                self.held_until,
                self.down.map(|(until, _)| until),
                throttled_until,
            ]
            .into_iter()
            .flatten()
            .all(|until| until <= now)
    }

    pub(super) fn is_down(&self, now: Instant) -> bool {
        self.down.is_some_and(|(until, _)| until > now)
    }

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        let queued = self.queue.iter().map(|queued| queued.items.len());
        queued.sum::<usize>() + self.delayed.len()
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        let queued = self.queue.iter();
        let queued = queued.filter_map(|queued| self.start(&queued.limits, now));
        let delayed = self.delayed.peek().and_then(|delayed| {
            let start = self.start(&delayed.limits, now)?;
            Some(start.max(delayed.at))
        });
        match queued.chain(delayed).min() {
            Some(start) if start <= now => Turn::Now,
            Some(start) => Turn::At(start),
            None => Turn::Never,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let is_on = |limits: &Limits| self.start(limits, now).is_some_and(|start| start <= now);
        let (limits, item) = match self.delayed.peek() {
            Some(delayed) if delayed.at <= now && is_on(&delayed.limits) => {
                let delayed = self.delayed.pop()?;
                (delayed.limits, delayed.item)
            }
            _ => {
                // The first that may start something; one with narrower limits keeps its turn.
                let mut queue = self.queue.iter();
                let at = queue.position(|queued| is_on(&queued.limits))?;
                let mut queued = self.queue.remove(at)?;
                let item = queued.items.pop_front()?;
                let limits = queued.limits;
                if !queued.items.is_empty() {
                    self.queue.push_back(queued);
                }
                (limits, item)
            }
        };
        self.limits = limits;
        self.in_flight += 1;
        self.last_start = Some(now);
        Some(item)
    }

    pub(super) fn done(
        &mut self,
        started: Instant,
        health: Health,
        now: Instant,
    ) -> Vec<HostDown<T>> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let hold = |held: Option<Instant>, wait| {
            Some(held.map_or(now + wait, |until: Instant| until.max(now + wait)))
        };
        match health {
            Health::Good => {
                self.faults = 0;
                self.down = None;
                self.note_good();
            }
            Health::Throttled(wait) => {
                self.faults = 0;
                self.good = 0;
                self.throttled = Some(now);
                // Requests that began before the host was last left alone say nothing new.
                if self.held_until.is_none_or(|until| until <= started) {
                    let allowed = self.limits.concurrency.min(self.cap.unwrap_or(usize::MAX));
                    self.cap = Some((allowed / 2).max(1));
                }
                self.held_until = hold(self.held_until, wait);
            }
            Health::Unreachable(wait) => {
                if self.last_fault.is_none_or(|last| started > last) {
                    self.faults = self.faults.saturating_add(1);
                    self.last_fault = Some(now);
                    self.held_until = hold(self.held_until, wait);
                }
                if self.faults >= self.limits.down_after {
                    return self.give_up(now + self.limits.down_for, Down::Faults);
                }
            }
            Health::Closed(wait) => {
                return self.give_up(now + wait, Down::Closed(wait));
            }
            Health::Unknown => {}
        }
        Vec::new()
    }

    fn note_good(&mut self) {
        if let Some(cap) = self.cap {
            self.good += 1;
            if self.good >= cap * GOOD_ROUNDS {
                self.cap = Some(cap + 1).filter(|cap| *cap < self.limits.concurrency);
                self.good = 0;
            }
        }
    }

    pub(super) fn drain(&mut self, job: u64) -> Vec<T> {
        let mut items = Vec::new();
        self.queue.retain_mut(|queued| {
            if queued.job == job {
                items.extend(queued.items.drain(..));
            }
            queued.job != job
        });
        if self.delayed.iter().any(|delayed| delayed.job == job) {
            let (mine, others) = std::mem::take(&mut self.delayed)
                .into_iter()
                .partition::<Vec<_>, _>(|delayed| delayed.job == job);
            self.delayed = others.into();
            items.extend(mine.into_iter().map(|delayed| delayed.item));
        }
        items
    }

    fn give_up(&mut self, until: Instant, down: Down) -> Vec<HostDown<T>> {
        self.down = Some((until, down));
        let queued = self.queue.drain(..).flat_map(|queued| queued.items);
        queued
            .chain(self.delayed.drain().map(|delayed| delayed.item))
            .map(|item| HostDown(item, down))
            .collect()
    }
}
