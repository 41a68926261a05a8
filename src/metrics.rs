//! Figures of this process for Prometheus: what other rooms count as it happens.
//!
//! What a scrape can look up by itself (lanes, queues, schedules) is asked for then, by `api`. This room knows no other but
//! the words. No label is made of what a list or a client says: hosts go by their class, requests by their route.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};
use url::{Host, Url};

use crate::target::{Outcome, Reason, State};

/// Those of this process.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    targets: IntCounterVec,
    bytes: IntCounter,
    attempts: IntCounter,
    first_byte: Histogram,
    target_seconds: Histogram,
    commits: Histogram,
    commit_errors: IntCounterVec,
    jobs: IntCounterVec,
    api_requests: IntCounterVec,
    api_seconds: HistogramVec,
    proxy_requests: IntCounterVec,
    proxies_set_aside: IntCounter,
    events_dropped: IntCounter,
    receivers: Mutex<BTreeMap<String, ReceiverFigures>>,
    /// When a job of each schedule last completed.
    succeeded: Mutex<BTreeMap<String, DateTime<Utc>>>,
}

/// How it is with a receiver of events.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReceiverFigures {
    /// Events that wait for it.
    pub(crate) waiting: u64,
    /// Its dead letters.
    pub(crate) dead: u64,
    /// Events given up since the process started.
    pub(crate) given_up: u64,
    /// When it first failed to take an event, if it still does.
    pub(crate) failing_since: Option<DateTime<Utc>>,
    /// Its last answer, or why there was none.
    pub(crate) problem: Option<String>,
}

/// Seconds of what goes over the network.
const NETWORK: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];

/// Seconds of what stays on this machine.
const LOCAL: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// What became of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    /// Its URL, as far as it is one.
    pub(crate) url: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    /// Bytes that were kept.
    pub(crate) kept: u64,
    pub(crate) attempts: u32,
    pub(crate) elapsed_ms: Option<u64>,
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels);
            registered(&registry, vec.expect("names are plain"))
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(
                &registry,
                Histogram::with_opts(opts).expect("names are plain"),
            )
        };
        let plain = |name: &str, help: &str| {
            registered(
                &registry,
                IntCounter::new(name, help).expect("names are plain"),
            )
        };
        let of_routes = HistogramOpts::new(
            "gannet_api_request_duration_seconds",
            "From a request's head to the head of its answer.",
        );
        let api_seconds = HistogramVec::new(of_routes.buckets(LOCAL.to_vec()), &["route"]);
        let metrics = Self {
            targets: counter(
                "gannet_targets_total",
                "Targets by what became of them, and by the class of their host.",
                &["outcome", "reason", "scheme", "network"],
            ),
            bytes: plain(
                "gannet_kept_bytes_total",
                "Bytes of files that were stored or changed.",
            ),
            attempts: plain(
                "gannet_attempts_total",
                "Requests for targets, repeated ones included.",
            ),
            first_byte: histogram(
                "gannet_first_byte_seconds",
                "From a request to the head of its answer.",
                &NETWORK,
            ),
            target_seconds: histogram(
                "gannet_target_duration_seconds",
                "From the first request for a target to its last byte, waits between attempts included.",
                &NETWORK,
            ),
            commits: histogram(
                "gannet_commit_duration_seconds",
                "To make a batch durable, recorded and visible.",
                &LOCAL,
            ),
            commit_errors: counter(
                "gannet_commit_errors_total",
                "Batches that store or catalog could not keep as a whole.",
                &["reason"],
            ),
            jobs: counter(
                "gannet_jobs_total",
                "Jobs that ended, by their state.",
                &["state"],
            ),
            api_requests: counter(
                "gannet_api_requests_total",
                "Requests to the API.",
                &["route", "method", "status"],
            ),
            api_seconds: registered(&registry, api_seconds.expect("names are plain")),
            proxy_requests: counter(
                "gannet_proxy_requests_total",
                "Requests through proxies of the pool: answered, failed by the proxy, done better by another, altered.",
                &["result"],
            ),
            proxies_set_aside: plain(
                "gannet_proxies_set_aside_total",
                "Times that a proxy of the pool was set aside.",
            ),
            events_dropped: plain(
                "gannet_events_dropped_total",
                "Events beyond `events.keep` or `events.max_age` that a receiver has not had.",
            ),
            receivers: Mutex::default(),
            succeeded: Mutex::default(),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Makes each labelled counter exist before it first counts: `increase()` does not see a counter begin at 1.
    fn begin_at_zero(&self) {
        let fine = [
            Outcome::Stored,
            Outcome::Changed,
            Outcome::Unchanged,
            Outcome::Duplicate,
        ];
        let others = Outcome::ALL.into_iter().filter(|o| !fine.contains(o));
        let reasons = |outcome: Outcome| Reason::ALL.iter().map(move |r| (outcome, r.as_str()));
        let pairs: Vec<(Outcome, &str)> = fine
            .into_iter()
            .map(|outcome| (outcome, ""))
            .chain(others.flat_map(reasons))
            .collect();
        for (outcome, reason) in pairs {
            for scheme in ["http", "https"] {
                for network in ["public", "private"] {
                    let labels = [outcome.as_str(), reason, scheme, network];
                    self.targets.with_label_values(&labels);
                }
            }
        }
        for reason in Reason::ALL {
            self.commit_errors.with_label_values(&[reason.as_str()]);
        }
        let is_end = |state: &State| !matches!(state, State::Queued | State::Ongoing);
        for state in State::ALL.into_iter().filter(is_end) {
            self.jobs.with_label_values(&[state.as_str()]);
        }
        for result in ["answered", "proxy", "worse", "altered"] {
            self.proxy_requests.with_label_values(&[result]);
        }
    }

    /// Changes the figures of a receiver.
    pub(crate) fn receiver(&self, name: &str, change: impl FnOnce(&mut ReceiverFigures)) {
        let receivers = self.receivers.lock();
        let mut receivers = receivers.unwrap_or_else(PoisonError::into_inner);
        change(receivers.entry(name.to_owned()).or_default());
    }

    /// Drops the figures of all other receivers.
    pub(crate) fn keep_receivers<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let names: Vec<&str> = names.collect();
        let receivers = self.receivers.lock();
        let mut receivers = receivers.unwrap_or_else(PoisonError::into_inner);
        receivers.retain(|name, _| names.contains(&name.as_str()));
    }

    /// Returns the figures of all receivers, by name.
    pub(crate) fn receivers(&self) -> BTreeMap<String, ReceiverFigures> {
        let receivers = self.receivers.lock();
        receivers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events were dropped that a receiver has not had.
    pub(crate) fn events_dropped(&self, count: u64) {
        self.events_dropped.inc_by(count);
    }

    /// A target has its outcome.
    pub(crate) fn target(&self, told: Told<'_>) {
        let (scheme, network) = class(told.url);
        let reason = told.reason.map_or("", Reason::as_str);
        let labels = [told.outcome.as_str(), reason, scheme, network];
        self.targets.with_label_values(&labels).inc();
        self.bytes.inc_by(told.kept);
        self.attempts.inc_by(u64::from(told.attempts));
        if let Some(elapsed) = told.elapsed_ms {
            self.target_seconds
                .observe(Duration::from_millis(elapsed).as_secs_f64());
        }
    }

    /// The head of an answer came.
    pub(crate) fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// A batch is kept.
    pub(crate) fn commit(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// A batch could not be kept as a whole.
    pub(crate) fn commit_error(&self, reason: Reason) {
        self.commit_errors
            .with_label_values(&[reason.as_str()])
            .inc();
    }

    /// A job ended.
    pub(crate) fn job(&self, state: State) {
        self.jobs.with_label_values(&[state.as_str()]).inc();
    }

    /// A job of a schedule succeeded, and ended at `finished`.
    pub(crate) fn schedule_succeeded(&self, name: &str, finished: DateTime<Utc>) {
        let mut succeeded = self
            .succeeded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let at = succeeded.entry(name.to_owned()).or_insert(finished);
        *at = finished.max(*at);
    }

    /// When a job of a schedule last succeeded, as far as this process knows.
    pub(crate) fn succeeded(&self, name: &str) -> Option<DateTime<Utc>> {
        let succeeded = self
            .succeeded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        succeeded.get(name).copied()
    }

    /// The API answered a request.
    pub(crate) fn api_request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.api_requests
            .with_label_values(&[route, method, class])
            .inc();
        self.api_seconds
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }

    /// A proxy of the pool brought an answer.
    pub(crate) fn proxy_answered(&self) {
        self.proxy_requests.with_label_values(&["answered"]).inc();
    }

    /// A proxy of the pool failed: "proxy", "worse" than another, or "altered".
    pub(crate) fn proxy_failed(&self, how: &str) {
        self.proxy_requests.with_label_values(&[how]).inc();
    }

    /// A proxy of the pool is set aside.
    pub(crate) fn proxy_set_aside(&self) {
        self.proxies_set_aside.inc();
    }

    /// All that was counted.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .expect("each name is registered once");
    collector
}

/// The scheme of a URL, and whether its host means the public Internet by all that its name says.
fn class(url: &str) -> (&'static str, &'static str) {
    let Ok(url) = Url::parse(url) else {
        return ("none", "none");
    };
    let scheme = match url.scheme() {
        "https" => "https",
        "http" => "http",
        _ => "other",
    };
    let is_private = match url.host() {
        None => return (scheme, "none"),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            let top = name.rsplit('.').next().unwrap_or_default();
            !name.contains('.') || ["localhost", "local", "internal"].contains(&top)
        }
        Some(Host::Ipv4(ip)) => {
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()
        }
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.to_ipv4_mapped().is_some()
        }
    };
    (scheme, if is_private { "private" } else { "public" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_goes_by_its_class() {
        for (url, expected) in [
            ("https://example.org/a.jpg", ("https", "public")),
            ("http://8.8.8.8/a", ("http", "public")),
            ("http://[2001:4860:4860::8888]/", ("http", "public")),
            ("http://127.0.0.1:8080/a", ("http", "private")),
            ("http://10.1.2.3/", ("http", "private")),
            ("https://[::1]/", ("https", "private")),
            ("https://[fd00::1]/", ("https", "private")),
            ("https://nas/", ("https", "private")),
            ("https://nas.local./", ("https", "private")),
            ("ftp://example.org/", ("other", "public")),
            ("mailto:a@example.org", ("other", "none")),
            ("no url", ("none", "none")),
        ] {
            assert_eq!(class(url), expected, "{url}");
        }
    }

    #[test]
    fn the_last_success_of_a_schedule_never_goes_back() {
        let metrics = Metrics::new();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        metrics.schedule_succeeded("a", at(10));
        metrics.schedule_succeeded("a", at(5));
        assert_eq!(
            (metrics.succeeded("a"), metrics.succeeded("b")),
            (Some(at(10)), None)
        );
    }
}
