//! Writes into the catalog what is to outlive the daemon, without holding it up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::catalog::{Catalog, JobEnd, ScheduleRow};

/// What waits to be written; of a schedule, the newest only.
#[derive(Debug, Default)]
struct Waiting {
    rows: BTreeMap<String, ScheduleRow>,
    ends: Vec<JobEnd>,
    closed: bool,
}

/// A task that writes.
#[derive(Debug)]
pub(super) struct Notes {
    waiting: Arc<Mutex<Waiting>>,
    news: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Notes {
    pub(super) fn new(catalog: Arc<dyn Catalog>) -> Self {
        let (waiting, news) = (Arc::<Mutex<Waiting>>::default(), Arc::new(Notify::new()));
        let task = tokio::spawn(write_all(catalog, waiting.clone(), news.clone()));
        Self {
            waiting,
            news,
            task,
        }
    }

    /// Remembers a schedule.
    pub(super) fn write(&self, row: ScheduleRow) {
        self.lock().rows.insert(row.name.clone(), row);
        self.news.notify_one();
    }

    /// Writes down how a job ended that could not do so itself.
    pub(super) fn end(&self, end: JobEnd) {
        self.lock().ends.push(end);
        self.news.notify_one();
    }

    /// Writes what waits.
    pub(super) async fn close(self) {
        self.lock().closed = true;
        self.news.notify_one();
        let _ = self.task.await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write_all(catalog: Arc<dyn Catalog>, waiting: Arc<Mutex<Waiting>>, news: Arc<Notify>) {
    loop {
        let (rows, ends, closed) = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = std::mem::take(&mut waiting.rows);
            (rows, std::mem::take(&mut waiting.ends), waiting.closed)
        };
        if rows.is_empty() && ends.is_empty() {
            if closed {
                return;
            }
            news.notified().await;
            continue;
        }
        for row in rows.into_values() {
            if let Err(error) = catalog.save_schedule(&row).await {
                let name = &row.name;
                tracing::error!(
                    "cannot remember the state of schedule `{name}`: {}",
                    crate::target::describe(&error)
                );
            }
        }
        for end in ends {
            if let Err(error) = catalog.end_job(&end).await {
                tracing::error!(
                    "cannot record the end of job {}: {}",
                    end.id,
                    crate::target::describe(&error)
                );
            }
        }
    }
}
