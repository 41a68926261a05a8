//! `/metrics`: figures for Prometheus. What other rooms count is in [`METRICS`]; the rest is looked up here.

use std::path::Path;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use serde::Deserialize;

use super::extract::{Nothing, Parameters};
use super::{Api, Problem, ScheduleStatus};
use crate::job::Census;
use crate::metrics::METRICS;
use crate::target;

/// Who may see the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// Who has a token to read.
    Token,
    /// Everybody who reaches the address.
    Open,
    /// Nobody.
    Off,
}

/// Figures for Prometheus
///
/// In its text format 0.0.4. Takes the scope `read`, unless `api.metrics` is "open".
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "service",
    responses((status = 200, description = "Counters, gauges and histograms.", content_type = "text/plain", body = String)))]
pub(super) async fn show(
    State(api): State<Api>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let mut families = METRICS.gather();
    families.extend(look(&api).map_err(|error| Problem::internal(&error))?);
    // Reading `/proc` waits for no disk.
    families.extend(process(&api).map_err(|error| Problem::internal(&error))?);
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder
        .encode(&families, &mut text)
        .map_err(|error| Problem::internal(&error))?;
    let kind = encoder.format_type().to_owned();
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Gauges and counters of one scrape.
struct Sheet(Registry);

impl Sheet {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let vec = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
        let vec = IntCounterVec::new(Opts::new(name, help), &["schedule"])?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }
}

fn look(api: &Api) -> prometheus::Result<Vec<MetricFamily>> {
    let sheet = Sheet(Registry::new());
    let census = (api.census.0)().unwrap_or_default();
    engine(&sheet, &census)?;
    let posted = api.posts.depth();
    let jobs = sheet.gauge(
        "gannet_jobs",
        "Jobs that are not over, by their state.",
        &["state"],
    )?;
    let queued = target::State::Queued.as_str();
    jobs.with_label_values(&[queued]).set(posted.queued as f64);
    let ongoing = target::State::Ongoing.as_str();
    jobs.with_label_values(&[ongoing]).set(census.jobs as f64);
    schedules(&sheet, &(api.desk.status)().schedules)?;
    receivers(&sheet)?;
    disk(&sheet, api.store.root())?;
    Ok(sheet.0.gather())
}

fn engine(sheet: &Sheet, census: &Census) -> prometheus::Result<()> {
    let lanes = sheet.gauge(
        "gannet_lanes",
        "Hosts that are known at the moment, by how it is with them.",
        &["state"],
    )?;
    let queues = sheet.gauge(
        "gannet_queue_targets",
        "Targets that wait, by for what.",
        &["queue"],
    )?;
    let flying = sheet.gauge(
        "gannet_requests_in_flight",
        "Requests for targets under way.",
        &[],
    )?;
    let frontier = &census.frontier;
    for (state, count) in [
        ("open", frontier.open),
        ("waiting", frontier.waiting),
        ("down", frontier.down),
    ] {
        lanes.with_label_values(&[state]).set(count as f64);
    }
    for (queue, count) in [
        ("frontier", frontier.queued),
        ("steps", census.steps),
        ("keeper", census.keeper),
    ] {
        queues.with_label_values(&[queue]).set(count as f64);
    }
    let none: &[&str] = &[];
    flying
        .with_label_values(none)
        .set(frontier.in_flight as f64);
    Ok(())
}

fn schedules(sheet: &Sheet, all: &[ScheduleStatus]) -> prometheus::Result<()> {
    let label = &["schedule"];
    let success = sheet.gauge(
        "gannet_schedule_last_success_timestamp_seconds",
        "When a job of the schedule last ran to its end and brought or confirmed a file; 0: never, as far as this process knows.",
        label,
    )?;
    let failed = sheet.gauge(
        "gannet_schedule_last_failed",
        "Whether the last job of the schedule could not run: 1 or 0.",
        label,
    )?;
    let exceeded = sheet.gauge(
        "gannet_schedule_last_over_max_failures",
        "Whether more targets of the last job failed than `max_failures` tolerates: 1 or 0.",
        label,
    )?;
    let took = sheet.gauge(
        "gannet_schedule_last_duration_seconds",
        "How long the last job of the schedule took.",
        label,
    )?;
    let running = sheet.gauge(
        "gannet_schedule_running",
        "Whether a job of it is under way: 1 or 0.",
        label,
    )?;
    let paused = sheet.gauge(
        "gannet_schedule_paused",
        "Whether its times pass without a run: 1 or 0.",
        label,
    )?;
    let next = sheet.gauge(
        "gannet_schedule_next_timestamp_seconds",
        "When it is due next.",
        label,
    )?;
    let missed = sheet.counter(
        "gannet_schedule_missed_total",
        "Times that passed while nobody looked, and were not made up for.",
    )?;
    let skipped = sheet.counter(
        "gannet_schedule_skipped_total",
        "Times without a run since the run before was not over.",
    )?;
    for schedule in all {
        let name = &[schedule.name.as_str()];
        // They exist before the first job ends.
        failed.with_label_values(name);
        took.with_label_values(name);
        if let Some(last) = &schedule.last {
            if last.is_success() {
                METRICS.schedule_succeeded(&schedule.name, last.finished);
            }
            failed
                .with_label_values(name)
                .set(f64::from(last.has_failed()));
            exceeded
                .with_label_values(name)
                .set(f64::from(last.over_max_failures));
            let elapsed = (last.finished - last.started).to_std().unwrap_or_default();
            took.with_label_values(name).set(elapsed.as_secs_f64());
        }
        let succeeded = METRICS.succeeded(&schedule.name);
        success.with_label_values(name).set(seconds(succeeded));
        if let Some(at) = schedule.next {
            next.with_label_values(name).set(at.timestamp() as f64);
        }
        running
            .with_label_values(name)
            .set(f64::from(schedule.running.is_some()));
        paused
            .with_label_values(name)
            .set(f64::from(schedule.paused));
        missed.with_label_values(name).inc_by(schedule.missed);
        skipped.with_label_values(name).inc_by(schedule.skipped);
    }
    Ok(())
}

/// Seconds since 1970; 0 for never.
fn seconds(time: Option<chrono::DateTime<chrono::Utc>>) -> f64 {
    time.map_or(0.0, |at| at.timestamp_millis() as f64 / 1e3)
}

fn receivers(sheet: &Sheet) -> prometheus::Result<()> {
    let label = &["receiver"];
    let waiting = sheet.gauge(
        "gannet_receiver_waiting_events",
        "Events that wait for the receiver.",
        label,
    )?;
    let failing = sheet.gauge(
        "gannet_receiver_failing_since_timestamp_seconds",
        "When the receiver first failed to take an event; 0: it takes them.",
        label,
    )?;
    let dead = sheet.gauge(
        "gannet_receiver_dead_letters",
        "Events that were given up for the receiver, and are kept.",
        label,
    )?;
    let given_up = IntCounterVec::new(
        Opts::new(
            "gannet_receiver_given_up_total",
            "Events that were given up for the receiver.",
        ),
        label,
    )?;
    sheet.0.register(Box::new(given_up.clone()))?;
    for (name, figures) in METRICS.receivers() {
        let name = &[name.as_str()];
        waiting.with_label_values(name).set(figures.waiting as f64);
        failing
            .with_label_values(name)
            .set(seconds(figures.failing_since));
        dead.with_label_values(name).set(figures.dead as f64);
        given_up.with_label_values(name).inc_by(figures.given_up);
    }
    Ok(())
}

/// Room on the file system of the store, as statvfs(3) has it.
fn disk(sheet: &Sheet, root: &Path) -> prometheus::Result<()> {
    let none: &[&str] = &[];
    let Ok(found) = rustix::fs::statvfs(root) else {
        return Ok(());
    };
    for (name, help, blocks) in [
        (
            "gannet_store_free_bytes",
            "Bytes that are free on the file system of the store.",
            found.f_bavail,
        ),
        (
            "gannet_store_size_bytes",
            "Size of the file system of the store.",
            found.f_blocks,
        ),
    ] {
        let bytes = blocks.saturating_mul(found.f_frsize);
        sheet
            .gauge(name, help, none)?
            .with_label_values(none)
            .set(bytes as f64);
    }
    Ok(())
}

/// What the system says of this process, under the names that all have for it.
fn process(api: &Api) -> prometheus::Result<Vec<MetricFamily>> {
    let sheet = Sheet(Registry::new());
    let none: &[&str] = &[];
    let set = |name: &str, help: &str, value: f64| {
        let gauge = sheet.gauge(name, help, none);
        gauge.map(|gauge| gauge.with_label_values(none).set(value))
    };
    if let Some(bytes) = resident(Path::new("/proc/self/status")) {
        set(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            bytes as f64,
        )?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        set(
            "process_open_fds",
            "Number of open file descriptors.",
            open.count() as f64,
        )?;
    }
    let started = (api.desk.status)().started.timestamp_millis() as f64 / 1e3;
    set(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        started,
    )?;
    let info = sheet.gauge(
        "gannet_build_info",
        "The program that runs; always 1.",
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    Ok(sheet.0.gather())
}

/// `VmRSS` of proc(5).
fn resident(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
