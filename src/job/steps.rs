//! Runs the steps of a job on files that have arrived, beside each other, between the workers and the keeper.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::keeper::{Brought, Finished};
use super::removal::recorded;
use super::{Job, JobError};
use crate::catalog::KnownFile;
use crate::downloader::{self, Arrived, Body, Download, Facts, Memory};
use crate::step::{Replacement, StepError, Subject};
use crate::store::{Opened, StageId, Store, StoreError};
use crate::target::{Outcome, Reason, describe};

/// Files that wait to be taken over.
pub(super) const QUEUE: usize = 128;

/// Files that are held open at a time, because memory has no room for them or they were there before.
const OPEN: usize = 512;

/// What steps are run with.
#[derive(Debug)]
pub(super) struct Stepper {
    pub(super) store: Store,
    pub(super) memory: Memory,
    pub(super) keeper: mpsc::Sender<Finished>,
    open: Arc<Semaphore>,
}

impl Stepper {
    pub(super) fn new(store: Store, memory: Memory, keeper: mpsc::Sender<Finished>) -> Arc<Self> {
        let open = Arc::new(Semaphore::new(OPEN));
        Arc::new(Self {
            store,
            memory,
            keeper,
            open,
        })
    }

    /// Works until every sender of `arrived` is gone. Jobs bound how many files there are at a time, by their windows.
    pub(super) async fn run(self: Arc<Self>, mut arrived: mpsc::Receiver<Finished>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = running.join_next() => {}
                next = arrived.recv() => match next {
                    Some(finished) => drop(running.spawn(self.clone().see_through(finished))),
                    None => break,
                },
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn see_through(self: Arc<Self>, finished: Finished) {
        let job = finished.job.clone();
        let Ok(finished) = AssertUnwindSafe(self.work(finished)).catch_unwind().await else {
            // Its target has no outcome any more.
            job.lost.cancel();
            return;
        };
        if let Some(finished) = finished {
            let _ = self.keeper.send(finished).await;
        }
    }

    /// Returns what is to be kept; `None` for what is left to the next process.
    async fn work(&self, mut finished: Finished) -> Option<Finished> {
        let job = finished.job.clone();
        let done = tokio::select! {
            biased;
            // Dropping the steps ends them.
            () = job.stop.cancelled() => None,
            done = self.step(&mut finished, &job) => Some(done),
        };
        match (done, job.stop_reason()) {
            (Some(Ok(())), _) => {}
            (Some(Err(Failed::Step(error))), _) => {
                let detail = error.to_string();
                finished.steps = Some(error.results).filter(|results| !results.is_empty());
                finished.give_up(Reason::Step, detail);
            }
            (Some(Err(Failed::Altered(path))), _) => {
                let detail = format!(
                    "`{path}` is not there as it was recorded, so no step can be run on it"
                );
                finished.give_up(Reason::Step, detail);
            }
            (Some(Err(Failed::Store(error))), _) => {
                finished.give_up(error.reason(), describe(&error));
                if !error.is_of_one_path() {
                    job.stop(error.reason(), Some(JobError::Store(error)));
                }
            }
            (None, Some(reason)) => {
                finished.give_up(
                    reason,
                    "the job was stopped before its steps were done".to_owned(),
                );
                finished.item.outcome = Outcome::Skipped;
            }
            (None, None) => {
                job.leave_one();
                return None;
            }
        }
        Some(finished)
    }

    async fn step(&self, finished: &mut Finished, job: &Job) -> Result<(), Failed> {
        let is_in_memory = matches!(
            &finished.brought,
            Brought::New(download) if matches!(download.arrived, Arrived::Memory(..))
        );
        // It is never closed.
        let _open = match is_in_memory {
            true => None,
            false => self.open.acquire().await.ok(),
        };
        let Some(subject) = self.subject(finished).await? else {
            return Ok(());
        };
        let done = job.steps.run(subject).await.map_err(Failed::Step)?;
        finished.steps = Some(done.results);
        if let (Some(replacement), Brought::New(download)) = (done.replaced, &mut finished.brought)
        {
            self.replace(download, replacement).await?;
        }
        Ok(())
    }

    async fn subject(&self, finished: &Finished) -> Result<Option<Subject>, Failed> {
        let (body, facts, sha256, name) = match &finished.brought {
            Brought::Nothing => return Ok(None),
            Brought::New(download) => (
                download.arrived.body(),
                download.facts.clone(),
                download.sha256,
                finished
                    .target
                    .as_ref()
                    .and_then(|target| target.name.clone()),
            ),
            Brought::Known(file) => (
                self.open(file).await?,
                facts(file),
                file.sha256,
                file.path.rsplit('/').next().map(str::to_owned),
            ),
        };
        Ok(Some(Subject {
            body,
            facts,
            sha256,
            url: finished.item.url.clone(),
            album: finished.album().map(ToString::to_string),
            name,
            may_replace: matches!(finished.brought, Brought::New(_)),
        }))
    }

    /// A file that is there, to be read.
    async fn open(&self, file: &KnownFile) -> Result<Body, Failed> {
        let (path, stage) = (file.path.clone(), StageId(file.stage));
        let opened = self
            .store
            .open_recorded(path, stage, recorded(file), file.sha256);
        match opened.await? {
            Opened::Whole(open) => Ok(Body::File(Arc::new(open), file.bytes)),
            Opened::Missing | Opened::Altered => Err(Failed::Altered(file.path.clone())),
        }
    }

    async fn replace(&self, download: &mut Download, new: Replacement) -> Result<(), StoreError> {
        download.arrived = match self.memory.reserve(new.bytes.len() as u64) {
            Some(permit) => Arrived::Memory(new.bytes, permit),
            None => {
                let mut spool = self.store.spool().await?;
                spool.write(&new.bytes).await?;
                Arrived::Staged(spool.finish().await?)
            }
        };
        (download.facts, download.sha256) = (new.facts, new.sha256);
        Ok(())
    }
}

/// Why steps are not done.
#[derive(Debug)]
enum Failed {
    Step(StepError),
    Store(StoreError),
    /// The file that the target stands for is not as it was recorded.
    Altered(String),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the catalog knows of a file, as whoever inspected it saw it.
fn facts(file: &KnownFile) -> Facts {
    Facts {
        format: downloader::known_format(&file.format),
        dimensions: file.dimensions,
        active: file.active,
        orientation: file.orientation,
        undecoded: file.undecoded.clone(),
    }
}
