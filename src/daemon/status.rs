//! What the daemon is about.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::private;
use crate::target::{Counts, State};

/// Version of the state file's form.
const VERSION: u32 = 1;

/// The socket of the daemon that works with the store at `root`.
pub fn socket(root: &Path) -> PathBuf {
    private(root, "daemon.sock")
}

/// The state file of the daemon that works with the store at `root`.
pub fn state_file(root: &Path) -> PathBuf {
    private(root, "status.json")
}

/// What the daemon is about: the state file, and what `gannet status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form.
    pub version: u32,
    /// The process; `None` once it has ended.
    pub pid: Option<u32>,
    /// When the process started.
    pub started: DateTime<Utc>,
    /// When this was so. Older than half a minute: the process is not alive.
    pub updated: DateTime<Utc>,
    /// The schedules, by name.
    pub schedules: Vec<ScheduleStatus>,
}

/// How it is with a schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningJob {
    /// The job; `None` until it has begun.
    pub job: Option<Uuid>,
    /// Since when.
    pub started: DateTime<Utc>,
    /// What became of its targets so far.
    pub counts: Counts,
    /// Bytes stored so far.
    pub bytes: u64,
    /// Targets in all, once its list is read.
    pub total: Option<u64>,
}

/// How a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastRun {
    /// The job; `None` where it could not begin.
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
    /// Why it failed, where it could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Status {
    /// Whether the last job of any schedule failed, and not for being interrupted.
    pub fn has_failed(&self) -> bool {
        let mut last = self.schedules.iter().filter_map(|s| s.last.as_ref());
        last.any(|last| last.state == State::Failed && !last.interrupted)
    }
}

/// Where the daemon's state can be seen: by who has it, and in the state file.
#[derive(Debug, Clone)]
pub(super) struct Board {
    root: Arc<Path>,
    started: DateTime<Utc>,
    schedules: Arc<Mutex<Vec<ScheduleStatus>>>,
    /// Held while the file is written.
    file: Arc<Mutex<()>>,
}

impl Board {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            started: Utc::now(),
            schedules: Arc::default(),
            file: Arc::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn show(&self, schedules: Vec<ScheduleStatus>) {
        *self
            .schedules
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = schedules;
    }

    pub(super) fn status(&self) -> Status {
        let schedules = self
            .schedules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Status {
            version: VERSION,
            pid: Some(std::process::id()),
            started: self.started,
            updated: Utc::now(),
            schedules: schedules.clone(),
        }
    }

    /// Writes the state file, beside the daemon's loop.
    pub(super) fn write(&self) {
        let board = self.clone();
        tokio::task::spawn_blocking(move || board.write_now(true));
    }

    /// Leaves the state to whoever looks once the daemon is gone.
    pub(super) fn end(&self) {
        self.write_now(false);
    }

    fn write_now(&self, is_alive: bool) {
        let _writing = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = self.status();
        if !is_alive {
            status.pid = None;
        }
        let (path, new) = (
            state_file(&self.root),
            private(&self.root, "status.json.new"),
        );
        let written = serde_json::to_vec_pretty(&status)
            .map_err(std::io::Error::from)
            .and_then(|json| std::fs::write(&new, json))
            .and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            tracing::warn!("cannot write `{}`: {error}", path.display());
        }
    }
}
