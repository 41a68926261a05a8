//! Queue, limits and breakers of one politeness group. Pure state: every method takes the current time.
//!
//! Limits, rate, throttling and requested rests apply to the whole group. Connection faults count for a single host,
//! so that one dead host does not take its group down.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Down, Health, HostDown, Limits, Started};

/// Answers in a row, for each allowed request at a time, after which a throttled lane is allowed one more.
const GOOD_ROUNDS: usize = 8;

/// How long a throttled host is asked less once nothing waits for it.
const THROTTLED_FOR: Duration = Duration::from_secs(3600);

/// Number of hosts in a lane at which idle ones are forgotten.
const REMEMBERED_HOSTS: usize = 1024;

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
    /// Those that may count: each is shorter than those before it, and holds longer.
    crawl_delays: Vec<CrawlDelay>,
    /// End of the rest that a host asked for.
    held_until: Option<Instant>,
    /// End and length of a rest that is longer than jobs wait.
    closed: Option<(Instant, Duration)>,
    /// Hosts with requests in flight or with faults. A lane without a group has at most one.
    hosts: HashMap<Arc<str>, Host>,
    /// What waits, by job; the jobs take turns.
    queue: VecDeque<Queued<T>>,
    /// Delayed items by job and host. No entry is empty.
    delayed: Vec<DelayedOf<T>>,
    /// Set if the lane serves several hosts. `hosts` does not list all of them.
    pub(super) is_group: bool,
    /// Whether the lane stands in the frontier's turns.
    pub(super) in_turns: bool,
    /// The earliest alarm that is set for the lane.
    pub(super) alarm: Option<Instant>,
}

/// A `Crawl-delay` from robots.txt.
#[derive(Debug, Clone, Copy)]
struct CrawlDelay {
    delay: Duration,
    /// Requests started before this time did not keep the delay.
    since: Instant,
    /// When the rules expire.
    until: Instant,
}

/// Circuit breaker of one host.
#[derive(Debug, Default)]
struct Host {
    in_flight: usize,
    /// Rounds of connection faults in a row. Faults of requests that began before the last counted fault belong to
    /// its round, so that a brief outage does not count once per request in flight.
    faults: u32,
    last_fault: Option<Instant>,
    /// End of the wait after a fault.
    held_until: Option<Instant>,
    /// End of the time for which the host is given up, and the reason of the last fault.
    down: Option<(Instant, &'static str)>,
}

impl Host {
    fn is_down(&self, now: Instant) -> bool {
        self.down.is_some_and(|(until, _)| now < until)
    }

    /// Returns `true` if no request is in flight, and the host is neither given up nor held.
    fn is_forgettable(&self, now: Instant) -> bool {
        let waits = [self.held_until, self.down.map(|(until, _)| until)];
        self.in_flight == 0 && waits.into_iter().flatten().all(|until| until <= now)
    }
}

/// What waits of a job.
#[derive(Debug)]
struct Queued<T> {
    job: u64,
    limits: Limits,
    /// Items by host. Hosts take turns, and every entry has at least one item.
    hosts: VecDeque<(Arc<str>, VecDeque<T>)>,
}

impl<T> Queued<T> {
    fn len(&self) -> usize {
        self.hosts.iter().map(|(_, items)| items.len()).sum()
    }
}

/// Delayed items of one job for one host. They are apart from others so that a held host, or a job with stricter limits,
/// blocks no other.
#[derive(Debug)]
struct DelayedOf<T> {
    job: u64,
    host: Arc<str>,
    limits: Limits,
    items: BinaryHeap<Delayed<T>>,
}

/// Something that waits for a time. The earliest is the greatest, as a heap wants it.
#[derive(Debug)]
struct Delayed<T> {
    at: Instant,
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
            crawl_delays: Vec::new(),
            held_until: None,
            closed: None,
            hosts: HashMap::new(),
            queue: VecDeque::new(),
            delayed: Vec::new(),
            is_group: false,
            in_turns: false,
            alarm: None,
        }
    }

    /// `limits` are those of the job, which is asked for them when it has nothing here.
    pub(super) fn push(
        &mut self,
        host: &Arc<str>,
        job: u64,
        limits: impl FnOnce() -> Limits,
        item: T,
        now: Instant,
    ) -> Result<(), HostDown<T>> {
        if let Some(down) = self.down(host, now) {
            return Err(HostDown(item, down));
        }
        let at = self.queue.iter().position(|queued| queued.job == job);
        let at = at.unwrap_or_else(|| {
            self.queue.push_back(Queued {
                job,
                limits: limits(),
                hosts: VecDeque::new(),
            });
            self.queue.len() - 1
        });
        let queued = &mut self.queue[at];
        match queued.hosts.iter_mut().find(|(name, _)| name == host) {
            Some((_, items)) => items.push_back(item),
            None => {
                let items = VecDeque::from([item]);
                queued.hosts.push_back((host.clone(), items));
            }
        }
        Ok(())
    }

    /// Gives what waits of a job other limits.
    pub(super) fn relimit(&mut self, job: u64, limits: Limits) {
        let queued = self.queue.iter_mut().filter(|queued| queued.job == job);
        queued.for_each(|queued| queued.limits = limits);
        let delayed = self.delayed.iter_mut().filter(|of| of.job == job);
        delayed.for_each(|of| of.limits = limits);
    }

    /// Returns the earliest start of a request to any host of the lane under these limits, or `None` if a request has
    /// to end first. Requests in flight, throttling and the last start count across all jobs.
    fn start(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let cap = self.cap.unwrap_or(usize::MAX);
        let allowed = limits.concurrency.max(1).min(cap);
        let waits = [self.next_at(limits, now), self.held_until];
        (self.in_flight < allowed).then(|| waits.into_iter().flatten().fold(now, Instant::max))
    }

    /// Returns the earliest start of a request to `host`, if the lane allows one at `lane_start`.
    fn start_at(&self, host: &str, limits: &Limits, lane_start: Instant) -> Option<Instant> {
        let Some(host) = self.hosts.get(host) else {
            return Some(lane_start);
        };
        // After the time for which the host was given up, a single request probes it.
        if host.faults >= limits.down_after && host.in_flight > 0 {
            return None;
        }
        let held = host.held_until;
        Some(held.map_or(lane_start, |held| held.max(lane_start)))
    }

    /// Returns the host of a job's queue that may start first, by position, and when.
    fn first_of(&self, queued: &Queued<T>, now: Instant) -> Option<(usize, Instant)> {
        let lane_start = self.start(&queued.limits, now)?;
        let mut first: Option<(usize, Instant)> = None;
        for (at, (host, _)) in queued.hosts.iter().enumerate() {
            let Some(start) = self.start_at(host, &queued.limits, lane_start) else {
                continue;
            };
            if first.is_none_or(|(_, earliest)| start < earliest) {
                first = Some((at, start));
            }
            // No other host can start earlier.
            if start == lane_start {
                break;
            }
        }
        first
    }

    fn next_at(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let crawl_delay = self.crawl_delay(now);
        let crawl_delay = crawl_delay.map_or(Duration::ZERO, |crawl| crawl.delay);
        let interval = limits.interval.max(crawl_delay.min(limits.crawl_delay_max));
        let last_start = self.last_start.filter(|_| !interval.is_zero());
        last_start.map(|start| start + interval)
    }

    /// Returns the longest `Crawl-delay` that holds.
    fn crawl_delay(&self, now: Instant) -> Option<&CrawlDelay> {
        self.crawl_delays.iter().find(|crawl| now < crawl.until)
    }

    /// Applies a `Crawl-delay` that holds until `until`. The longest of several counts, each until its own end. Returns
    /// `true` if a request
    /// that started at `started` keeps it.
    pub(super) fn keep_apart(
        &mut self,
        limits: &Limits,
        delay: Duration,
        until: Instant,
        started: Instant,
        now: Instant,
    ) -> bool {
        let known = self.crawl_delay(now).filter(|known| known.delay >= delay);
        let since = known.map_or(now, |known| known.since);
        let delays = &mut self.crawl_delays;
        let covers = |known: &CrawlDelay| known.delay >= delay && known.until >= until;
        if !delays.iter().any(covers) {
            let counts = |known: &CrawlDelay| {
                now < known.until && (known.delay > delay || known.until > until)
            };
            delays.retain(counts);
            let at = delays.partition_point(|known| known.delay > delay);
            let new = CrawlDelay {
                delay,
                since,
                until,
            };
            delays.insert(at, new);
        }
        since < started || delay.min(limits.crawl_delay_max) <= limits.interval
    }

    pub(super) fn push_delayed(
        &mut self,
        host: &Arc<str>,
        job: u64,
        limits: Limits,
        item: T,
        at: Instant,
        now: Instant,
    ) -> Result<(), HostDown<T>> {
        if let Some(down) = self.down(host, now) {
            return Err(HostDown(item, down));
        }
        let delayed = Delayed { at, item };
        let mut known = self.delayed.iter_mut();
        match known.find(|of| of.job == job && of.host == *host) {
            Some(of) => {
                of.limits = limits;
                of.items.push(delayed);
            }
            None => self.delayed.push(DelayedOf {
                job,
                host: host.clone(),
                limits,
                items: BinaryHeap::from([delayed]),
            }),
        }
        Ok(())
    }

    /// Forgets connection faults. Requests in flight count no faults either: they began before.
    pub(super) fn forget_faults(&mut self, now: Instant) {
        self.hosts.retain(|_, host| host.in_flight > 0);
        for host in self.hosts.values_mut() {
            *host = Host {
                in_flight: host.in_flight,
                last_fault: Some(now),
                ..Host::default()
            };
        }
    }

    /// Returns why a host is given up, or `None` if it is not.
    fn down(&self, host: &str, now: Instant) -> Option<Down> {
        if let Some((until, wait)) = self.closed
            && now < until
        {
            return Some(Down::Closed(wait));
        }
        let host = self.hosts.get(host)?;
        let (until, why) = host.down?;
        (now < until).then_some(Down::Faults(why))
    }

    /// Returns `true` if the lane may be forgotten. It must be idle, and hosts must have no rest left, nor, for a
    /// while after throttling, a lower limit of requests at a time.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let throttled_until = self
            .throttled
            .filter(|_| self.cap.is_some())
            .map(|throttled| throttled + THROTTLED_FOR);
        self.queue.is_empty()
            && self.delayed.is_empty()
            && self.in_flight == 0
            && !self.in_turns
            && self.hosts.values().all(|host| host.is_forgettable(now))
            && [
                self.next_at(&self.limits, now),
                self.held_until,
                self.closed.map(|(until, _)| until),
                throttled_until,
            ]
            .into_iter()
            .flatten()
            .all(|until| until <= now)
    }

    /// Returns `true` if the lane is given up.
    pub(super) fn is_down(&self, now: Instant) -> bool {
        let is_closed = self.closed.is_some_and(|(until, _)| until > now);
        is_closed || self.only_host().is_some_and(|host| host.is_down(now))
    }

    /// Returns `true` if no request may start for a while.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        let is_held = |until: Option<Instant>| until.is_some_and(|until| until > now);
        let host = self.only_host();
        is_held(self.held_until) || host.is_some_and(|host| is_held(host.held_until))
    }

    /// Returns the host of a lane that serves no group, if anything is known about it.
    fn only_host(&self) -> Option<&Host> {
        let mut hosts = self.hosts.values();
        hosts.next().filter(|_| !self.is_group)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        let delayed = self.delayed.iter().map(|of| of.items.len());
        self.queue.iter().map(Queued::len).chain(delayed).sum()
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        let queued = self.queue.iter();
        let queued = queued.filter_map(|queued| Some(self.first_of(queued, now)?.1));
        let delayed = self.first_delayed(now).map(|(_, start)| start);
        match queued.chain(delayed).min() {
            Some(start) if start <= now => Turn::Now,
            Some(start) => Turn::At(start),
            None => Turn::Never,
        }
    }

    /// Returns the index of the delayed items that may start first, and their start. Of several, the one due earliest.
    fn first_delayed(&self, now: Instant) -> Option<(usize, Instant)> {
        let starts = self.delayed.iter().enumerate().filter_map(|(index, of)| {
            let at = of.items.peek()?.at;
            let lane_start = self.start(&of.limits, now)?;
            let start = self.start_at(&of.host, &of.limits, lane_start)?;
            Some((start.max(at), at, index))
        });
        let (start, _, index) = starts.min()?;
        Some((index, start))
    }

    /// Takes an item that may start now, with its host and the start of the previous request.
    pub(super) fn take(&mut self, now: Instant) -> Option<(T, Arc<str>, Option<Instant>)> {
        let (limits, host, item) = match self.first_delayed(now) {
            Some((index, start)) if start <= now => {
                let of = &mut self.delayed[index];
                let (limits, host) = (of.limits, of.host.clone());
                let item = of.items.pop()?.item;
                if of.items.is_empty() {
                    self.delayed.swap_remove(index);
                }
                (limits, host, item)
            }
            _ => self.take_queued(now)?,
        };
        if self.hosts.len() >= REMEMBERED_HOSTS && !self.hosts.contains_key(&host) {
            self.hosts.retain(|_, host| !host.is_forgettable(now));
        }
        self.hosts.entry(host.clone()).or_default().in_flight += 1;
        self.limits = limits;
        self.in_flight += 1;
        Some((item, host, self.last_start.replace(now)))
    }

    /// Takes the first item that may start. Jobs with lower limits and held hosts keep their turns.
    fn take_queued(&mut self, now: Instant) -> Option<(Limits, Arc<str>, T)> {
        let ready = |queued: &Queued<T>| {
            let (host, start) = self.first_of(queued, now)?;
            (start <= now).then_some(host)
        };
        let mut queue = self.queue.iter().enumerate();
        let (at, host) = queue.find_map(|(at, queued)| Some((at, ready(queued)?)))?;
        let mut queued = self.queue.remove(at)?;
        let (host, mut items) = queued.hosts.remove(host)?;
        let item = items.pop_front()?;
        if !items.is_empty() {
            queued.hosts.push_back((host.clone(), items));
        }
        let limits = queued.limits;
        if !queued.hosts.is_empty() {
            self.queue.push_back(queued);
        }
        Some((limits, host, item))
    }

    pub(super) fn done(
        &mut self,
        started: &Started,
        health: Health,
        now: Instant,
    ) -> Vec<HostDown<T>> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let host = self.hosts.entry(started.host.clone()).or_default();
        host.in_flight = host.in_flight.saturating_sub(1);
        let hold = |held: Option<Instant>, wait| {
            Some(held.map_or(now + wait, |until: Instant| until.max(now + wait)))
        };
        let mut given_up = Vec::new();
        match health {
            Health::Good => {
                host.faults = 0;
                host.down = None;
                self.closed = None;
                self.note_good();
            }
            Health::Throttled(wait) => {
                host.faults = 0;
                self.good = 0;
                self.throttled = Some(now);
                // Requests that began before the host was last left alone say nothing new.
                if self.held_until.is_none_or(|until| until <= started.at) {
                    let allowed = self.limits.concurrency.min(self.cap.unwrap_or(usize::MAX));
                    self.cap = Some((allowed / 2).max(1));
                }
                self.held_until = hold(self.held_until, wait);
            }
            Health::Unreachable(wait, why) => {
                if host.last_fault.is_none_or(|last| started.at > last) {
                    host.faults = host.faults.saturating_add(1);
                    host.last_fault = Some(now);
                    host.held_until = hold(host.held_until, wait);
                }
                if host.faults >= self.limits.down_after {
                    host.down = Some((now + self.limits.down_for, why));
                    given_up = self.give_up(|host| *host == started.host, Down::Faults(why));
                }
            }
            Health::Closed(wait) => {
                self.closed = Some((now + wait, wait));
                given_up = self.give_up(|_| true, Down::Closed(wait));
            }
            Health::NotAsked => {
                if self.last_start == Some(started.at) {
                    self.last_start = started.before;
                }
            }
            Health::Unknown => {}
        }
        if let Some(host) = self.hosts.get(&started.host)
            && host.faults == 0
            && host.is_forgettable(now)
        {
            self.hosts.remove(&started.host);
        }
        given_up
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
                items.extend(queued.hosts.drain(..).flat_map(|(_, items)| items));
            }
            queued.job != job
        });
        items.extend(self.take_delayed(|of| of.job == job));
        items
    }

    /// Removes the items of the hosts for which `is_meant` returns `true`.
    fn give_up(&mut self, is_meant: impl Fn(&Arc<str>) -> bool, down: Down) -> Vec<HostDown<T>> {
        let mut items = Vec::new();
        self.queue.retain_mut(|queued| {
            queued.hosts.retain_mut(|(host, waiting)| {
                let is_meant = is_meant(host);
                if is_meant {
                    items.extend(waiting.drain(..));
                }
                !is_meant
            });
            !queued.hosts.is_empty()
        });
        items.extend(self.take_delayed(|of| is_meant(&of.host)));
        items.into_iter().map(|item| HostDown(item, down)).collect()
    }

    fn take_delayed(&mut self, is_meant: impl Fn(&DelayedOf<T>) -> bool) -> Vec<T> {
        let meant = self.delayed.extract_if(.., |of| is_meant(of));
        let items = meant.flat_map(|of| of.items);
        items.map(|delayed| delayed.item).collect()
    }
}
