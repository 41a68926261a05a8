//! Decides what to fetch next, with one lane per politeness group, fair and polite.
//!
//! [`Frontier`] holds the items that wait to be fetched, for all jobs of the process. Workers take them with
//! [`Frontier::next`] and report the result with [`Frontier::done`]. A lane is the queue of a host, or of a group of
//! hosts, with its limits. Concurrency, request rate and requested rests apply to the whole group. Each host has a
//! breaker of its own, which gives the host up if connections keep failing. Jobs may have limits of their own, but
//! share the counts.
//!
//! Lanes with something to do take turns, and within a lane the jobs do, so neither a long list nor a
//! slow host holds up the rest. A lane whose limits are reached costs nothing until they free up.
//!
//! This room knows nothing of URLs, bodies or outcomes: it queues any `T`. Bounds on how much waits are
//! the business of who pushes.

mod lane;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use lane::{Lane, Turn};

/// Lanes that are remembered whether they may be forgotten or not.
const REMEMBERED: usize = 10_000;

/// Lanes that are looked at for each new one beyond that. With two, lanes go faster than they come.
const LOOKED_AT: usize = 2;

/// The place of an item: its lane and host.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Name of the politeness group: a host, or a group of hosts.
    pub lane: &'a str,
    /// The host that connection faults count for.
    pub host: &'a str,
}

/// The limits of a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests at a time; at least 1.
    pub concurrency: usize,
    /// Shortest time between the starts of two requests; zero: none.
    pub interval: Duration,
    /// Longest `Crawl-delay` that may replace a shorter `interval`. Zero ignores `Crawl-delay`.
    pub crawl_delay_max: Duration,
    /// Rounds of connection faults in a row after which a host is given up.
    pub down_after: u32,
    /// For how long.
    pub down_for: Duration,
}

/// How a request ended, as far as its host is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The host answered.
    Good,
    /// The host throttled the request. Its lane rests for this long, with fewer requests at a time afterwards.
    Throttled(Duration),
    /// No connection came about, for this reason; the host is left alone for so long.
    Unreachable(Duration, &'static str),
    /// The host asked for a longer rest than jobs wait. Its lane is given up for that time.
    Closed(Duration),
    /// No request was made, so the next one need not keep an interval.
    NotAsked,
    /// Nothing can be said: the request was given up on this side.
    Unknown,
}

/// What waits to be fetched, host by host. Shared by all workers and jobs of the process.
pub struct Frontier<T> {
    /// Locked for queue operations only.
    inner: Mutex<Inner<T>>,
    /// Told once for each thing that became ready.
    ready: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    lanes: HashMap<Arc<str>, Lane<T>>,
    /// The same lanes, those first that were longest not looked at.
    to_forget: VecDeque<Arc<str>>,
    /// Lanes that may start something, in the order of their turns. A lane stands here at most once.
    turns: VecDeque<Arc<str>>,
    /// When to look again at lanes that wait for a time.
    alarms: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    closed: bool,
}

/// Something that may be fetched now. It occupies its lane until [`Frontier::done`] is told.
#[derive(Debug)]
pub struct Permit<T> {
    /// What waited.
    pub item: T,
    started: Started,
}

/// A place in a lane, which a request occupies.
#[derive(Debug, Clone)]
pub struct Started {
    lane: Arc<str>,
    host: Arc<str>,
    /// When the place was handed out. The lane assigns faults to rounds by it.
    at: Instant,
    /// Start of the previous request, to be restored if this one is not made.
    before: Option<Instant>,
}

impl Started {
    /// Returns the name of the lane.
    pub fn lane(&self) -> &str {
        &self.lane
    }
}

impl<T> Permit<T> {
    /// Separates the item from its place in the lane.
    pub fn split(self) -> (T, Started) {
        (self.item, self.started)
    }
}

/// What a frontier holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Lanes that may be asked.
    pub open: usize,
    /// Lanes that are left alone for a while.
    pub waiting: usize,
    /// Lanes of hosts that are given up.
    pub down: usize,
    /// What waits in them.
    pub queued: usize,
    /// What is under way.
    pub in_flight: usize,
}

/// The host is given up: what was queued, or was to be, comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct HostDown<T>(pub T, pub Down);

/// Why a host is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Rounds of connection faults, as [`Limits::down_after`] says. This is the reason of the last one.
    Faults(&'static str),
    /// It asked to be left alone for so long.
    Closed(Duration),
}

impl<T> Frontier<T> {
    /// An empty frontier.
    pub fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                lanes: HashMap::new(),
                to_forget: VecDeque::new(),
                turns: VecDeque::new(),
                alarms: BinaryHeap::new(),
                closed: false,
            }),
            ready: Notify::new(),
        }
    }

    /// Queues `item` after other items of `job` for the host. `limits` is called if the job has no items there; it
    /// returns the limits of the job for the lane. Requests in flight count across all jobs: a job starts one only
    /// within its own limits.
    ///
    /// # Errors
    ///
    /// [`HostDown`] when the host is given up.
    pub fn push(
        &self,
        at: Address<'_>,
        job: u64,
        limits: impl Fn() -> Limits,
        item: T,
    ) -> Result<(), HostDown<T>> {
        let now = Instant::now();
        self.enqueue(at, &limits, |lane, host| {
            lane.push(host, job, &limits, item, now)
        })
    }

    /// Gives what waits of `job` other limits, by host.
    pub fn relimit(&self, job: u64, limits: impl Fn(&str) -> Limits) {
        let mut inner = self.lock();
        let now = Instant::now();
        let names: Vec<Arc<str>> = inner.lanes.keys().cloned().collect();
        for name in names {
            if let Some(lane) = inner.lanes.get_mut(&name) {
                lane.relimit(job, limits(&name));
            }
            inner.consider(&name, now);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Queues `item` ahead of what waits, not to be taken before `delay` has passed: for another attempt,
    /// or for the next hop of a redirect.
    ///
    /// # Errors
    ///
    /// [`HostDown`] when the host is given up.
    pub fn push_delayed(
        &self,
        at: Address<'_>,
        job: u64,
        limits: impl Fn() -> Limits,
        item: T,
        delay: Duration,
    ) -> Result<(), HostDown<T>> {
        let now = Instant::now();
        self.enqueue(at, &limits, |lane, host| {
            lane.push_delayed(host, job, limits(), item, now + delay, now)
        })
    }

    fn enqueue(
        &self,
        at: Address<'_>,
        limits: impl FnOnce() -> Limits,
        push: impl FnOnce(&mut Lane<T>, &Arc<str>) -> Result<(), HostDown<T>>,
    ) -> Result<(), HostDown<T>> {
        let mut inner = self.lock();
        let (name, lane) = match inner.lanes.get_key_value(at.lane) {
            Some((name, _)) => {
                let name = name.clone();
                let lane = inner
                    .lanes
                    .get_mut(at.lane)
                    .expect("it was found a line ago");
                (name, lane)
            }
            None => {
                inner.forget(Instant::now());
                let name: Arc<str> = at.lane.into();
                inner.to_forget.push_back(name.clone());
                let lane = inner
                    .lanes
                    .entry(name.clone())
                    .or_insert_with(|| Lane::new(limits()));
                (name, lane)
            }
        };
        lane.is_group |= at.host != at.lane;
        match at.host == at.lane {
            true => push(lane, &name)?,
            false => push(lane, &at.host.into())?,
        }
        if inner.consider(&name, Instant::now()) {
            drop(inner);
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for something that may be fetched now; `None` once the frontier is closed.
    ///
    /// Cancel safe: a dropped call took nothing.
    pub async fn next(&self) -> Option<Permit<T>> {
        loop {
            let alarm = {
                let mut inner = self.lock();
                if inner.closed {
                    // Every other waiter has to learn it too.
                    self.ready.notify_one();
                    return None;
                }
                let now = Instant::now();
                inner.ring(now);
                if let Some(permit) = inner.take(now) {
                    // Somebody else has to mind the turns, and the clock for lanes that wait for a time.
                    let more = !inner.turns.is_empty() || !inner.alarms.is_empty();
                    drop(inner);
                    if more {
                        self.ready.notify_one();
                    }
                    return Some(permit);
                }
                inner.alarms.peek().map(|Reverse((at, _))| *at)
            };
            match alarm {
                Some(at) => tokio::select! {
                    () = self.ready.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.ready.notified().await,
            }
        }
    }

    /// Frees a place in a lane. Returns what waited in the lane if this gave the host up.
    #[must_use = "what waited has to be answered"]
    pub fn done(&self, started: &Started, health: Health) -> Vec<HostDown<T>> {
        let mut inner = self.lock();
        let now = Instant::now();
        let Some(lane) = inner.lanes.get_mut(&started.lane) else {
            return Vec::new();
        };
        let refused = lane.done(started, health, now);
        if inner.consider(&started.lane, now) {
            drop(inner);
            self.ready.notify_one();
        }
        refused
    }

    /// Forgets the connection faults of all hosts, because their names may lead elsewhere now. Rests that hosts asked for
    /// remain.
    pub fn forget_faults(&self) {
        let mut inner = self.lock();
        let now = Instant::now();
        let names: Vec<Arc<str>> = inner.lanes.keys().cloned().collect();
        for name in names {
            if let Some(lane) = inner.lanes.get_mut(&name) {
                lane.forget_faults(now);
            }
            inner.consider(&name, now);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Applies a `Crawl-delay` to a lane until `until`. A job with these `limits` learnt it while it held `started`.
    /// The longest of several delays in a lane counts.
    ///
    /// Returns `true` if the request of `started` keeps the delay. Otherwise it has to be queued again.
    #[must_use = "a request that comes too early has to be queued again"]
    pub fn keep_apart(
        &self,
        started: &Started,
        limits: &Limits,
        delay: Duration,
        until: Instant,
    ) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        let lane = inner.lanes.get_mut(&started.lane);
        lane.is_none_or(|lane| lane.keep_apart(limits, delay, until, started.at, now))
    }

    /// What there is at the moment, counted lane by lane.
    pub fn census(&self) -> Census {
        let (inner, now) = (self.lock(), Instant::now());
        let mut census = Census::default();
        for lane in inner.lanes.values() {
            *match (lane.is_down(now), lane.is_held(now)) {
                (true, _) => &mut census.down,
                (_, true) => &mut census.waiting,
                _ => &mut census.open,
            } += 1;
            census.queued += lane.len();
            census.in_flight += lane.in_flight();
        }
        census
    }

    /// Takes out all that waits for `job`.
    #[must_use = "what waited has to be answered"]
    pub fn drain(&self, job: u64) -> Vec<T> {
        self.lock()
            .lanes
            .values_mut()
            .flat_map(|lane| lane.drain(job))
            .collect()
    }

    /// Ends every [`next`](Self::next), those to come as well.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Queue operations do not panic half way, so a poisoned lock guards sound data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Frontier<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Frontier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Frontier")
            .field("lanes", &inner.lanes.len())
            .finish_non_exhaustive()
    }
}

impl<T> Inner<T> {
    /// Makes room for a new lane.
    fn forget(&mut self, now: Instant) {
        for _ in 0..LOOKED_AT {
            if self.lanes.len() < REMEMBERED {
                return;
            }
            let Some(name) = self.to_forget.pop_front() else {
                return;
            };
            let lane = self.lanes.get(&name);
            if lane.is_some_and(|lane| lane.is_forgettable(now)) {
                self.lanes.remove(&name);
            } else {
                self.to_forget.push_back(name);
            }
        }
    }

    /// Gives a lane its turn, or sets its alarm. Returns whether a waiter has to look: for a turn that the lane
    /// did not have, or an alarm before all others.
    fn consider(&mut self, name: &Arc<str>, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(name) else {
            return false;
        };
        if lane.in_turns {
            return false;
        }
        match lane.turn(now) {
            Turn::Now => {
                lane.in_turns = true;
                self.turns.push_back(name.clone());
                true
            }
            Turn::At(at) => {
                if lane.alarm.is_none_or(|alarm| at < alarm) {
                    lane.alarm = Some(at);
                    let is_earliest = self
                        .alarms
                        .peek()
                        .is_none_or(|Reverse((first, _))| at < *first);
                    self.alarms.push(Reverse((at, name.clone())));
                    return is_earliest;
                }
                false
            }
            Turn::Never => false,
        }
    }

    /// Looks at the lanes whose time has come.
    fn ring(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.alarms.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, name))) = self.alarms.pop() else {
                break;
            };
            if let Some(lane) = self.lanes.get_mut(&name)
                && lane.alarm == Some(at)
            {
                lane.alarm = None;
            }
            self.consider(&name, now);
        }
    }

    fn take(&mut self, now: Instant) -> Option<Permit<T>> {
        while let Some(name) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&name) else {
                continue;
            };
            lane.in_turns = false;
            // Its turn may have come before a wait or a drain that took it away again.
            let taken = lane.take(now);
            self.consider(&name, now);
            if let Some((item, host, before)) = taken {
                let started = Started {
                    lane: name,
                    host,
                    at: now,
                    before,
                };
                return Some(Permit { item, started });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
