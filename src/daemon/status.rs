//! Where others see what the daemon is about.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::private;
use crate::api::{ReceiverStatus, ScheduleStatus, Status};
use crate::metrics::METRICS;

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

fn receivers() -> Vec<ReceiverStatus> {
    let figures = METRICS.receivers().into_iter();
    let status = figures.map(|(name, figures)| ReceiverStatus {
        name,
        waiting: figures.waiting,
        dead_letters: figures.dead,
        failing_since: figures.failing_since,
        problem: figures.problem,
    });
    status.collect()
}

/// Where the daemon's state can be seen: by who has it, and in the state file.
#[derive(Debug, Clone)]
pub(super) struct Board {
    root: Arc<Path>,
    started: DateTime<Utc>,
    api: Option<SocketAddr>,
    schedules: Arc<Mutex<Vec<ScheduleStatus>>>,
    /// Held while the file is written.
    file: Arc<Mutex<()>>,
}

impl Board {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            started: Utc::now(),
            api: None,
            schedules: Arc::default(),
            file: Arc::default(),
        }
    }

    /// Notes where the API listens, before others get to see it.
    pub(super) fn listens(&mut self, api: Option<SocketAddr>) {
        self.api = api;
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
            api: self.api,
            updated: Utc::now(),
            schedules: schedules.clone(),
            receivers: receivers(),
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
            (status.pid, status.api) = (None, None);
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
