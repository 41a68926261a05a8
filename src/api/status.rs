//! What the daemon is about, as the API and the state file tell it.

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::target::{Counts, State};

/// What the daemon is about: the state file, and what `gannet status` shows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of this form.
    pub version: u32,
    /// The process; `None` once it has ended.
    #[schema(required = true)]
    pub pid: Option<u32>,
    /// When the process started.
    pub started: DateTime<Utc>,
    /// Where the API listens, besides the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub api: Option<SocketAddr>,
    /// When this was so. Older than half a minute: the process is not alive.
    pub updated: DateTime<Utc>,
    /// The schedules, by name.
    pub schedules: Vec<ScheduleStatus>,
    /// The receivers of events, by name.
    #[serde(default)]
    pub receivers: Vec<ReceiverStatus>,
}

/// How it is with a receiver of events.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Receiver)]
pub struct ReceiverStatus {
    /// Its name.
    pub name: String,
    /// Events that wait for it.
    pub waiting: u64,
    /// Events that were given up and are kept; `gannet notify list` shows them.
    pub dead_letters: u64,
    /// When it first failed to take an event, if it still does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// Its last answer, or why there was none, if it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How it is with a schedule.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Schedule, examples(json!({
    "name": "shop", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "paused": false, "next": "2026-11-22T02:00:00Z",
    "skipped": 0, "missed": 0,
})))]
pub struct ScheduleStatus {
    /// Its name.
    pub name: String,
    /// Its cron line.
    pub cron: String,
    /// The time zone of that.
    pub timezone: String,
    /// Whether its times pass without a run.
    pub paused: bool,
    /// The next time it is due, before jitter; `None`: paused, or never.
    #[schema(required = true)]
    pub next: Option<DateTime<Utc>>,
    /// The job under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningJob>,
    /// The last job that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRun>,
    /// Times without a run since the daemon started, since the run before was not over.
    pub skipped: u64,
    /// Times that passed while nobody looked, and were not made up for.
    pub missed: u64,
}

/// A job under way.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunningJob {
    /// The job; `None` until it has begun.
    #[schema(required = true)]
    pub job: Option<Uuid>,
    /// Since when.
    pub started: DateTime<Utc>,
    /// What became of its targets so far.
    pub counts: Counts,
    /// Bytes stored so far.
    pub bytes: u64,
    /// Targets in all, once its list is read.
    #[schema(required = true)]
    pub total: Option<u64>,
}

/// How a job ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LastRun {
    /// The job; `None` where it could not begin.
    #[schema(required = true)]
    pub job: Option<Uuid>,
    /// How it ended.
    pub state: State,
    /// Whether it is left to another one, since its process ended before it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// What became of its targets.
    pub counts: Counts,
    /// Whether more targets failed than `max_failures` tolerates, or fewer files came than were asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_max_failures: bool,
    /// Why it failed, where it could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl LastRun {
    /// Whether it could not run, or not to its end, for another reason than the end of its process.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed && !self.interrupted
    }

    /// Whether it ran to its end, and not all of its targets failed.
    pub fn is_success(&self) -> bool {
        match self.state {
            State::Completed => true,
            State::Incomplete => {
                let Counts {
                    stored,
                    changed,
                    unchanged,
                    duplicate,
                    ..
                } = self.counts;
                stored + changed + unchanged + duplicate > 0
            }
            State::Queued | State::Ongoing | State::Failed | State::Cancelled => false,
        }
    }
}

impl Status {
    /// Whether the last job of any schedule failed, or had more failures than tolerated.
    pub fn has_failed(&self) -> bool {
        let mut last = self.schedules.iter().filter_map(|s| s.last.as_ref());
        last.any(|last| last.has_failed() || last.over_max_failures)
    }
}
