//! The machinery that all jobs of a process share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::coming::Coming;
use super::descriptors;
use super::errand::{self, Files};
use super::keeper::{self, Keeper};
use super::steps::{self, Stepper};
use super::worker::{self, Shared};
use super::{JobError, Setup, Terms};
use crate::catalog::{self, Catalog, CatalogError};
use crate::downloader::Memory;
use crate::fault::{self, Point};
use crate::fetch::Robots;
use crate::frontier::{self, Frontier};
use crate::store::{Store, StoreError, StoreLock};

/// Runs jobs. Holds the locks of the store and the catalog; [`shut_down`](Self::shut_down) ends its tasks.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) files: Files,
    tasks: Mutex<JoinSet<()>>,
    /// How to ask jobs under way for their end.
    pub(super) running: Mutex<HashMap<Uuid, CancellationToken>>,
    _locks: [Option<StoreLock>; 2],
}

/// What an engine has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// What waits to be fetched, and is.
    pub frontier: frontier::Census,
    /// Targets that wait for their steps.
    pub steps: usize,
    /// Targets that wait to be kept.
    pub keeper: usize,
    /// Jobs under way.
    pub jobs: usize,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What an earlier process left cannot be put in order.
    #[error("cannot put in order what an earlier run left")]
    Recovery(#[source] JobError),
}

impl Engine {
    /// Takes the store, puts in order what an earlier process left, and starts the workers. Raises the soft limit
    /// of open files to the hard one, for the whole process.
    ///
    /// # Errors
    ///
    /// When another process holds the store or the catalog ([`StoreError::Locked`]), or one of the parts cannot be used.
    pub async fn start(config: Setup<'_>) -> Result<Self, EngineError> {
        let store = Store::open(config.storage).await?;
        let lock = StoreLock::take(store.root())?;
        let catalog_lock = catalog::path(config.catalog, store.root())?
            .map(|path| StoreLock::take_catalog(&path))
            .transpose()?;
        let catalog = catalog::open(config.catalog, store.root()).await?;
        let (published, deleted) = keeper::recover(&store, &*catalog)
            .await
            .map_err(EngineError::Recovery)?;
        let interrupted = catalog.abandon_jobs(chrono::Utc::now()).await?;
        if published + deleted > 0 || interrupted > 0 {
            tracing::info!(
                "an earlier run ended early: published {published} files that it had recorded, deleted \
                 {deleted} that it had not, closed {interrupted} jobs"
            );
        }
        let (to_keeper, finished) = mpsc::channel(keeper::QUEUE);
        let (to_steps, arrived) = mpsc::channel(steps::QUEUE);
        let memory = Memory::new(config.fetch.body_memory.as_u64());
        let stepper = Stepper::new(store.clone(), memory.clone(), to_keeper.clone());
        let shared = Arc::new(Shared {
            memory,
            robots: Robots::default(),
            frontier: Frontier::new(),
            keeper: to_keeper,
            steps: to_steps,
            coming: Coming::default(),
            workers: AtomicUsize::new(0),
        });
        let (errands, to_do) = mpsc::channel(errand::QUEUE);
        let files = Files {
            errands,
            store: store.clone(),
            memory: shared.memory.clone(),
            renaming: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        let keeper = Keeper {
            coming: shared.coming.clone(),
            store: store.clone(),
            catalog: catalog.clone(),
            // The clock has an end, and nobody waits longer.
            commit_interval: config
                .storage
                .commit_interval
                .min(Duration::from_secs(3600)),
            commit_files: config.storage.commit_files.get(),
            mtime: config.storage.mtime,
            writer: Uuid::new_v4(),
            renaming: files.renaming.clone(),
            has_changed: AtomicBool::new(false),
        };
        tasks.spawn(keeper.run(finished, to_do));
        tasks.spawn(stepper.run(arrived));
        let engine = Self {
            shared,
            store,
            catalog,
            files,
            tasks: Mutex::new(tasks),
            running: Mutex::default(),
            _locks: [Some(lock), catalog_lock],
        };
        engine.set_concurrency(config.fetch.concurrency.get());
        Ok(engine)
    }

    /// Waits until something that all jobs need is gone: no job comes to its end here any more, and only another process
    /// helps. Cancel safe.
    pub async fn broken(&self) {
        self.shared.keeper.closed().await;
    }

    /// Has so many requests in flight at most, from now on: `fetch.concurrency`.
    pub fn set_concurrency(&self, concurrency: usize) {
        let wanted = descriptors::workers(concurrency);
        let before = self.shared.workers.swap(wanted, Ordering::SeqCst);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for number in before..wanted {
            tasks.spawn(worker::work(self.shared.clone(), number));
        }
    }

    /// What is known of URLs and files.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Changes albums and files, besides jobs.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Where the files are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks a job for its end: what is not done is skipped. Returns whether it is under way.
    pub fn cancel(&self, job: Uuid) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = running.get(&job);
        asked.into_iter().for_each(CancellationToken::cancel);
        asked.is_some()
    }

    /// What there is to do at the moment.
    pub fn census(&self) -> Census {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.shared;
        Census {
            frontier: shared.frontier.census(),
            steps: shared.steps.max_capacity() - shared.steps.capacity(),
            keeper: shared.keeper.max_capacity() - shared.keeper.capacity(),
            jobs: running.len(),
        }
    }

    /// Has a job that runs by `terms` go by the limits of `others` from now on.
    pub fn relimit(&self, job: Uuid, terms: &Terms, others: &Terms) {
        terms.adopt_limits(others);
        let limits = |lane: &str| terms.limits(lane);
        self.shared.frontier.relimit(number(job), limits);
    }

    /// Ends the workers, keeps what has arrived, and closes the catalog.
    pub async fn shut_down(self) {
        let Self {
            shared,
            tasks,
            catalog,
            ..
        } = self;
        let mut tasks = tasks.into_inner().unwrap_or_else(PoisonError::into_inner);
        shared.frontier.close();
        // The last sender to the keeper goes with the last worker.
        drop(shared);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a task of the engine panicked: {error}");
            }
        }
        fault::reach(Point::JobClosing);
        catalog.close().await;
    }
}

/// What a job is called among the lanes.
pub(super) fn number(job: Uuid) -> u64 {
    job.as_u128() as u64
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
