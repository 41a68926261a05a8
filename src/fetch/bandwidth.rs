//! Bandwidth limits: `fetch.max_rate` for the process, `[hosts."NAME"] max_rate` for a host or group.
//!
//! Bodies are charged for their bytes on the wire, before they hand them on and read more. TCP flow control then slows
//! the origin down. Bytes are charged in small pieces and hosts take turns, so a host with many connections gets no
//! more than one with a single connection. Each piece looks the rate up again, so that a reload or a new time of day
//! takes effect at once.
//!
//! governor, which limits API requests, is not used here. It counts in whole nanoseconds, keeps no order, and has one
//! fixed rate.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytesize::ByteSize;
use chrono::Timelike as _;
use serde::Deserialize;
use serde::de::{Deserializer, Error as DeError, Visitor};
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

use super::hosts::{Hosts, host_name, origin};
use super::settings::Settings;

/// Time that a limit may catch up on after a delay. Timers are a millisecond late, more on a busy machine.
const SLACK: Duration = Duration::from_millis(50);

/// Largest piece charged at once, in bytes.
const MAX_PIECE: u64 = 64 * 1024;

/// Pieces per second at rates too low for the largest piece.
const PIECES_A_SECOND: u64 = 20;

/// Number of queues at which idle ones are dropped.
const MAX_LINES: usize = 4096;

/// `max_rate`: bytes per second, by local time of day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaxRate {
    /// Start of each rate in minutes after midnight, sorted; `None` means no limit. The last rate also holds from
    /// midnight to the first start.
    spans: Vec<(u32, Option<NonZeroU64>)>,
}

impl MaxRate {
    /// Returns the rate at a time of day, in minutes after midnight. `None` means no limit.
    fn at(&self, minute: u32) -> Option<NonZeroU64> {
        let begun = self.spans.iter().rfind(|(from, _)| *from <= minute);
        begun.or(self.spans.last()).and_then(|(_, rate)| *rate)
    }

    /// Returns the current rate by this machine's clock and time zone.
    fn now(&self) -> Option<NonZeroU64> {
        match self.spans.as_slice() {
            [] => None,
            [(_, rate)] => *rate,
            _ => {
                let time = chrono::Local::now();
                self.at(time.hour() * 60 + time.minute())
            }
        }
    }

    fn is_unlimited(&self) -> bool {
        self.spans.iter().all(|(_, rate)| rate.is_none())
    }
}

/// A string that does not parse as a [`MaxRate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMaxRate {
    /// Neither a rate nor a time of day with a rate.
    #[error(
        "`{0}` is not a rate; write bytes a second such as \"512KiB\" or \"1.5M\", \"off\", or times of day with rates such as \"08:00 512KiB, 19:00 off\""
    )]
    Rate(String),
    /// A time that occurs twice in the table.
    #[error("`{0}` is there twice")]
    Twice(String),
}

impl FromStr for MaxRate {
    type Err = InvalidMaxRate;

    /// Parses `512KiB`, `off`, or `08:00 512KiB, 19:00 off`. A bare `K`, `M`, `G` or `T` is a power of 1024, as in curl
    /// and wget.
    fn from_str(text: &str) -> Result<Self, InvalidMaxRate> {
        let invalid = |part: &str| InvalidMaxRate::Rate(part.to_owned());
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        if let Some(rate) = parse_rate(text) {
            return Ok(Self {
                spans: vec![(0, rate)],
            });
        }
        let mut spans: Vec<(u32, Option<NonZeroU64>)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (time, rate) = part
                .split_once(char::is_whitespace)
                .ok_or_else(|| invalid(part))?;
            let minute = parse_time(time).ok_or_else(|| invalid(part))?;
            let rate = parse_rate(rate).ok_or_else(|| invalid(part))?;
            if spans.iter().any(|(other, _)| *other == minute) {
                return Err(InvalidMaxRate::Twice(time.to_owned()));
            }
            spans.push((minute, rate));
        }
        spans.sort_unstable_by_key(|(minute, _)| *minute);
        Ok(Self { spans })
    }
}

impl<'de> Deserialize<'de> for MaxRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = MaxRate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes a second such as \"512KiB\", or \"08:00 512KiB, 19:00 off\"")
            }
            fn visit_i64<E: DeError>(self, rate: i64) -> Result<MaxRate, E> {
                self.visit_str(&rate.to_string())
            }
            fn visit_u64<E: DeError>(self, rate: u64) -> Result<MaxRate, E> {
                self.visit_str(&rate.to_string())
            }
            fn visit_str<E: DeError>(self, text: &str) -> Result<MaxRate, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Parses bytes per second. `Some(None)` means no limit.
fn parse_rate(text: &str) -> Option<Option<NonZeroU64>> {
    let text = text.trim();
    let text = text.strip_suffix("/s").unwrap_or(text).trim_end();
    if text == "0" || text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let digits = digits.trim_end();
    // Rejects signs and exponents such as `1e9`.
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let unit: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" => bytesize::KIB,
        "m" => bytesize::MIB,
        "g" => bytesize::GIB,
        "t" => bytesize::TIB,
        unit => format!("1{unit}").parse::<ByteSize>().ok()?.as_u64(),
    };
    let number: f64 = digits.parse().ok()?;
    // Saturates; no link is that fast.
    let rate = (number * unit as f64) as u64;
    NonZeroU64::new(rate).map(Some)
}

/// Parses `08:00` or `8:00` as minutes after midnight.
fn parse_time(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let is_plain = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = (number(hour, 1..=2)?, number(minute, 2..=2)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// Bandwidth limits of the process, shared by all of its clients.
#[derive(Debug)]
pub(super) struct Bandwidth {
    rules: RwLock<Arc<Rules>>,
    /// Set if any limit applies at any time of day.
    is_limited: AtomicBool,
    total: Line,
    /// Queues by group, or by host for hosts without a group.
    groups: Mutex<HashMap<String, Arc<Line>>>,
}

#[derive(Debug)]
struct Rules {
    total: MaxRate,
    hosts: Hosts,
}

impl Bandwidth {
    pub(super) fn new(settings: &Settings, hosts: &Hosts) -> Self {
        let bandwidth = Self {
            rules: RwLock::new(Arc::new(Rules {
                total: MaxRate::default(),
                hosts: Hosts::default(),
            })),
            is_limited: AtomicBool::new(false),
            total: Line::default(),
            groups: Mutex::default(),
        };
        bandwidth.set(settings, hosts);
        bandwidth
    }

    /// Replaces the limits, also for bodies in flight.
    pub(super) fn set(&self, settings: &Settings, hosts: &Hosts) {
        let rules = Rules {
            total: settings.max_rate.clone(),
            hosts: hosts.clone(),
        };
        let own = rules
            .hosts
            .iter()
            .filter_map(|(_, host)| host.max_rate.as_ref());
        let is_limited = own.chain([&rules.total]).any(|rate| !rate.is_unlimited());
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.is_limited.store(is_limited, Ordering::Release);
    }

    /// Waits until `bytes` of a body from `url` are within the limits. Returns the time waited. Dropping the future
    /// gives up its place in the queue.
    pub(super) async fn take(&self, url: &Url, bytes: u64) -> Duration {
        if bytes == 0 || !self.is_limited.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let begun = Instant::now();
        let connection: Arc<str> = origin(url).into();
        let mut left = bytes;
        while left > 0 {
            let rules = self.rules();
            let who = Who {
                group: rules.group(url),
                connection: &connection,
            };
            let own = || self.rules().own_rate(url);
            let total = || self.rules().total.now();
            let Some(rate) = [own(), total()].into_iter().flatten().min() else {
                break;
            };
            let piece = left.min(piece(rate));
            if own().is_some() {
                self.line(who.group).take(who, piece, own).await;
            }
            self.total.take(who, piece, total).await;
            left -= piece;
        }
        begun.elapsed()
    }

    /// Returns `true` if a body waits for bandwidth that may share its connection with a body of `url`.
    pub(super) fn holds_up_connection(&self, url: &Url) -> bool {
        let connection = origin(url);
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = groups.values().map(|line| &**line).chain([&self.total]);
        lines.any(|line| line.lock().has(&connection))
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    fn line(&self, group: &str) -> Arc<Line> {
        let mut lines = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(group) {
            return line.clone();
        }
        if lines.len() >= MAX_LINES {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        lines.entry(group.to_owned()).or_default().clone()
    }
}

impl Rules {
    /// Returns the politeness group that the host of `url` belongs to, or the host itself without its port.
    fn group<'a>(&'a self, url: &'a Url) -> &'a str {
        let host = host_name(url).unwrap_or_default();
        self.hosts.group(host).unwrap_or(host)
    }

    /// Returns the rate of the politeness group that the host of `url` belongs to, or of the host itself.
    fn own_rate(&self, url: &Url) -> Option<NonZeroU64> {
        let host = self.hosts.get(self.group(url))?;
        host.max_rate.as_ref()?.now()
    }
}

/// The origin of bytes that wait.
#[derive(Debug, Clone, Copy)]
struct Who<'a> {
    group: &'a str,
    connection: &'a Arc<str>,
}

/// Returns the size of a piece at a rate: about 50 ms of it.
fn piece(rate: NonZeroU64) -> u64 {
    (rate.get() / PIECES_A_SECOND).clamp(1, MAX_PIECE)
}

/// The waiters for one limit.
#[derive(Debug, Default)]
struct Line {
    /// Held for queue operations only.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// End of the time that the bytes let through so far take at the current rate.
    paid_until: Option<Instant>,
    /// Waiters by group. Groups take turns, and every entry has at least one waiter.
    turns: VecDeque<(String, VecDeque<Arc<Waiter>>)>,
}

/// A body that waits in a line.
#[derive(Debug)]
struct Waiter {
    called: Notify,
    connection: Arc<str>,
}

/// A place in a line. Dropping it gives the place up.
struct Place<'a> {
    line: &'a Line,
    group: &'a str,
    waiter: Arc<Waiter>,
    is_served: bool,
}

impl Line {
    /// Waits until `bytes` may pass. Waiters of the same group go in order; groups take turns. Only the first in line
    /// looks at the clock and the rate, and it wakes the next one.
    async fn take(&self, who: Who<'_>, bytes: u64, rate: impl Fn() -> Option<NonZeroU64>) {
        let group = who.group;
        let mut place = Place {
            line: self,
            group,
            waiter: Arc::new(Waiter {
                called: Notify::new(),
                connection: who.connection.clone(),
            }),
            is_served: false,
        };
        self.lock().enter(group, place.waiter.clone());
        loop {
            let wait_until = {
                let mut queue = self.lock();
                if queue.is_first(&place.waiter) {
                    let paid_until = queue.pay(bytes, rate(), Instant::now());
                    if paid_until.is_none() {
                        place.is_served = true;
                        queue.leave(group, &place.waiter);
                        return;
                    }
                    paid_until
                } else {
                    None
                }
            };
            match wait_until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => place.waiter.called.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Queue operations do not panic half way, so a poisoned lock guards sound data.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn enter(&mut self, group: &str, waiter: Arc<Waiter>) {
        match self.turns.iter_mut().find(|(name, _)| name == group) {
            Some((_, waiting)) => waiting.push_back(waiter),
            None => self
                .turns
                .push_back((group.to_owned(), VecDeque::from([waiter]))),
        }
    }

    /// Returns `true` if bytes of `connection` wait.
    fn has(&self, connection: &str) -> bool {
        let mut waiters = self.turns.iter().flat_map(|(_, waiting)| waiting);
        waiters.any(|waiter| &*waiter.connection == connection)
    }

    fn first(&self) -> Option<&Arc<Waiter>> {
        self.turns.front()?.1.front()
    }

    fn is_first(&self, waiter: &Arc<Waiter>) -> bool {
        self.first().is_some_and(|first| Arc::ptr_eq(first, waiter))
    }

    /// Charges `bytes` at `rate` and returns `None`, or returns the time until which earlier bytes occupy the limit.
    fn pay(&mut self, bytes: u64, rate: Option<NonZeroU64>, now: Instant) -> Option<Instant> {
        let Some(rate) = rate else {
            self.paid_until = None;
            return None;
        };
        if let Some(until) = self.paid_until.filter(|until| *until > now) {
            return Some(until);
        }
        let oldest = now.checked_sub(SLACK).unwrap_or(now);
        let from = self.paid_until.map_or(now, |until| until.max(oldest));
        let time = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        self.paid_until = Some(from + time);
        None
    }

    /// Removes a waiter and wakes the new first one. If the waiter was first, its group has had its turn.
    fn leave(&mut self, group: &str, waiter: &Arc<Waiter>) {
        let was_first = self.is_first(waiter);
        if let Some(at) = self.turns.iter().position(|(name, _)| name == group)
            && let Some((name, mut waiting)) = self.turns.remove(at)
        {
            waiting.retain(|other| !Arc::ptr_eq(other, waiter));
            match (waiting.is_empty(), was_first) {
                (true, _) => {}
                (false, true) => self.turns.push_back((name, waiting)),
                (false, false) => self.turns.insert(at, (name, waiting)),
            }
        }
        if was_first && let Some(first) = self.first() {
            first.called.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_served {
            self.line.lock().leave(self.group, &self.waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Takes bytes for a host with one connection.
    async fn take(line: &Line, host: &str, bytes: u64, rate: impl Fn() -> Option<NonZeroU64>) {
        let who = Who {
            group: host,
            connection: &host.into(),
        };
        line.take(who, bytes, rate).await;
    }

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    #[test]
    fn a_rate_is_read_as_curl_and_as_gannet_write_it() {
        for (text, expected) in [
            ("off", None),
            ("OFF", None),
            ("0", None),
            ("", None),
            ("1", Some(1)),
            ("524288", Some(512 << 10)),
            ("512K", Some(512 << 10)),
            ("512k", Some(512 << 10)),
            ("2M", Some(2 << 20)),
            ("1.5m", Some(3 << 19)),
            ("1G", Some(1 << 30)),
            ("512KiB", Some(512 << 10)),
            ("512 KiB", Some(512 << 10)),
            ("10MB", Some(10_000_000)),
            ("64B", Some(64)),
            ("2MiB/s", Some(2 << 20)),
            (" 7 ", Some(7)),
            ("99999999999T", Some(u64::MAX)),
        ] {
            let table: MaxRate = text.parse().unwrap();
            assert_eq!(table.at(720), expected.and_then(rate), "{text}");
        }
        for text in [
            "fast",
            "-1",
            "+1",
            "0.5",
            "1e6",
            "inf",
            "nan",
            "K",
            "1X",
            "1 2",
            "08:00",
            "08:00 fast",
            "24:00 1K",
            "8:5 1K",
            "08:60 1K",
            "08:00 1K, 19:00",
            "1K, 19:00 off",
            "08:00 1K, 8:00 2K",
            "08:00 1K,",
            "08:00-19:00 1K",
        ] {
            assert!(text.parse::<MaxRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_of_day_holds_until_the_next_one_and_over_midnight() {
        for text in [
            "08:00 512KiB, 19:00 off, 23:30 64",
            "23:30 64,19:00 off, 8:00   512KiB",
        ] {
            let table: MaxRate = text.parse().unwrap();
            for (time, expected) in [
                ("00:00", Some(64)),
                ("07:59", Some(64)),
                ("08:00", Some(512 << 10)),
                ("18:59", Some(512 << 10)),
                ("19:00", None),
                ("23:29", None),
                ("23:30", Some(64)),
                ("23:59", Some(64)),
            ] {
                let minute = parse_time(time).unwrap();
                assert_eq!(table.at(minute), expected.and_then(rate), "{time}");
            }
            assert!(!table.is_unlimited());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time() {
        let line = Line::default();
        let begun = Instant::now();
        for n in 0..100 {
            take(&line, "a", 50, || rate(1000)).await;
            assert_eq!(begun.elapsed(), Duration::from_millis(50) * n);
        }
        // Unused bandwidth is not saved up beyond the slack.
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..100 {
            take(&line, "a", 50, || rate(1000)).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_millis(50 * 99) - SLACK);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_share_alike_however_many_connections_they_have() {
        let line = Arc::new(Line::default());
        let begun = Instant::now();
        let tasks = ["a", "a", "a", "a", "b"].map(|group| {
            let line = line.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    take(&line, group, 100, || rate(1000)).await;
                }
                begun.elapsed().as_millis()
            })
        });
        let mut ends = Vec::new();
        for task in tasks {
            ends.push(task.await.unwrap());
        }
        // `b` has every other turn, so its ten pieces end when twenty are through.
        assert!((1800..=2000).contains(&ends[4]), "{ends:?}");
        assert_eq!(ends.iter().max(), Some(&4900), "all the time was used");
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_counts_for_those_who_wait() {
        let line = Arc::new(Line::default());
        let rate_now = Arc::new(AtomicU64::new(10));
        let begun = Instant::now();
        let tasks = [(); 5].map(|()| {
            let (line, rate_now) = (line.clone(), rate_now.clone());
            tokio::spawn(async move {
                take(&line, "a", 10, || rate(rate_now.load(Ordering::SeqCst))).await;
            })
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        rate_now.store(0, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_holds_up_nobody() {
        let line = Arc::new(Line::default());
        let spawn = |group| {
            let line = line.clone();
            tokio::spawn(async move { take(&line, group, 1000, || rate(1000)).await })
        };
        spawn("a").await.unwrap();
        let begun = Instant::now();
        let (first, second, third) = (spawn("a"), spawn("a"), spawn("b"));
        tokio::task::yield_now().await;
        second.abort();
        first.abort();
        third.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert!(line.lock().turns.is_empty());
    }

    /// Returns `[fetch]` and `[hosts]` of a configuration file.
    fn configured(file: &str) -> (Settings, Hosts) {
        let config: toml::Table = file.parse().unwrap();
        let mut settings: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
        let mut fetch = settings.remove("fetch").unwrap();
        if let Some(of_file) = config.get("fetch") {
            let of_file = of_file.as_table().unwrap().clone();
            fetch.as_table_mut().unwrap().extend(of_file);
        }
        let hosts = config.get("hosts").cloned();
        let hosts = hosts.map(|hosts| hosts.try_into().unwrap());
        (fetch.try_into().unwrap(), hosts.unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_and_the_process_have_each_their_limit() {
        let file = "[fetch]\nmax_rate = 1000\n[hosts.\"slow.example\"]\nmax_rate = \"100\"\n\
             [hosts.\"*.cdn.example\"]\nshared = true\nmax_rate = 200";
        let (mut settings, hosts) = configured(file);
        let bandwidth = Arc::new(Bandwidth::new(&settings, &hosts));
        let take = |url: &str| {
            let (url, bandwidth) = (Url::parse(url).unwrap(), bandwidth.clone());
            tokio::spawn(async move { bandwidth.take(&url, 1000).await.as_millis() })
        };
        let tasks = [
            take("http://slow.example/"),
            take("http://a.cdn.example/"),
            take("http://b.cdn.example:8080/"),
        ];
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.unwrap());
        }
        // One piece less, because the first goes ahead of its time. The two hosts of the group share their limit.
        assert!((9900..=10_000).contains(&times[0]), "{times:?}");
        assert!(
            (9800..=10_000).contains(&times[1].max(times[2])),
            "{times:?}"
        );
        // With the others done, a host without a limit of its own has the process's whole rate.
        let other = take("http://other.example/").await.unwrap();
        assert!((900..=1000).contains(&other), "{other}");
        // Without limits, no body waits.
        settings.max_rate = MaxRate::default();
        bandwidth.set(&settings, &Hosts::default());
        assert_eq!(take("http://slow.example/").await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_a_host_holds_for_all_of_its_ports() {
        let (settings, hosts) = configured("[hosts.\"a.example\"]\nmax_rate = 100");
        let bandwidth = Bandwidth::new(&settings, &hosts);
        let begun = Instant::now();
        let urls = [
            "http://a.example/",
            "http://a.example:8080/",
            "https://a.example/",
        ]
        .map(|url| Url::parse(url).unwrap());
        futures_util::future::join_all(urls.iter().map(|url| bandwidth.take(url, 100))).await;
        let elapsed = begun.elapsed().as_millis();
        assert!((2900..=3000).contains(&elapsed), "{elapsed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_waits_holds_up_its_own_connection_only() {
        let file = "[fetch]\nmax_rate = 1000\n[hosts.\"*.example\"]\nshared = true\nmax_rate = 100";
        for file in [file, "[fetch]\nmax_rate = 100"] {
            let (settings, hosts) = configured(file);
            let bandwidth = Bandwidth::new(&settings, &hosts);
            let held_up = |url: &str| bandwidth.holds_up_connection(&Url::parse(url).unwrap());
            let url = Url::parse("https://a.example/x").unwrap();
            bandwidth.take(&url, 100).await;
            {
                let waits = bandwidth.take(&url, 1000);
                let mut waits = std::pin::pin!(waits);
                assert!(futures_util::poll!(waits.as_mut()).is_pending());
                assert!(held_up("https://a.example/y?z"));
                for other in [
                    "https://b.example/x",
                    "https://a.example:444/",
                    "http://a.example/",
                ] {
                    assert!(!held_up(other), "{other}");
                }
            }
            assert!(!held_up("https://a.example/y"));
        }
    }
}
