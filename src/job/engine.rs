//! The machinery that all jobs of a process share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::coming::Coming;
use super::descriptors;
use super::keeper::{self, Keeper};
use super::worker::{self, Shared};
use super::{JobError, Retention, Settings, Setup};
use crate::catalog::{self, Catalog, CatalogError};
use crate::downloader::{Context, Registry};
use crate::fault::{self, Point};
use crate::fetch::{Client, Hosts, Robots, SetupError};
use crate::frontier::{Frontier, Limits};
use crate::store::{Store, StoreError, StoreLock};

/// Runs jobs. Holds the locks of the store and the catalog; [`shut_down`](Self::shut_down) ends its tasks.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) registry: Registry,
    pub(super) settings: Settings,
    pub(super) retention: Retention,
    tasks: JoinSet<()>,
    _locks: [Option<StoreLock>; 2],
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
    /// The client cannot be set up.
    #[error(transparent)]
    Client(#[from] SetupError),
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
    pub async fn start(config: Setup<'_>, registry: Registry) -> Result<Self, EngineError> {
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
        let client = Arc::new(Client::new(config.fetch, config.hosts)?);
        let (to_keeper, finished) = mpsc::channel(keeper::QUEUE);
        let cx = Context::new(client, store.clone(), config.fetch.body_memory.as_u64());
        let shared = Arc::new(Shared {
            cx,
            robots: Robots::default(),
            frontier: Frontier::new(limits(&config)),
            keeper: to_keeper,
            coming: Coming::default(),
            fetch: config.fetch.clone(),
            hosts: config.hosts.clone(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..descriptors::workers(config.fetch.concurrency.get()) {
            tasks.spawn(worker::work(shared.clone()));
        }
        let keeper = Keeper {
            coming: shared.coming.clone(),
            store: store.clone(),
            catalog: catalog.clone(),
            naming: config.naming.clone(),
            // The clock has an end, and nobody waits longer.
            commit_interval: config
                .storage
                .commit_interval
                .min(Duration::from_secs(3600)),
            commit_files: config.storage.commit_files.get(),
            writer: uuid::Uuid::new_v4(),
        };
        tasks.spawn(keeper.run(finished));
        Ok(Self {
            shared,
            store,
            catalog,
            registry,
            settings: config.job.clone(),
            retention: config.retention.clone(),
            tasks,
            _locks: [Some(lock), catalog_lock],
        })
    }

    /// The client that reads remote lists, under the same guard and limits.
    pub fn client(&self) -> &Arc<Client> {
        &self.shared.cx.client
    }

    /// What is known of URLs and files.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Where the files are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ends the workers, keeps what has arrived, and closes the catalog.
    pub async fn shut_down(self) {
        let Self {
            shared,
            mut tasks,
            catalog,
            ..
        } = self;
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

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// The limits of a lane, whose name is a host with or without a port.
fn limits(config: &Setup<'_>) -> impl Fn(&str) -> Limits + Send + Sync + 'static {
    let (fetch, hosts): (_, Hosts) = (config.fetch.clone(), config.hosts.clone());
    move |lane| {
        let host = match lane.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
            _ => lane,
        };
        let settings = fetch.of_host(&hosts, host);
        Limits {
            concurrency: settings.concurrency().get(),
            interval: interval(settings.rate()),
            // No host lives to see so many rounds of faults.
            down_after: match fetch.host_down_after {
                0 => u32::MAX,
                rounds => rounds,
            },
            down_for: fetch.host_down_for,
        }
    }
}

/// Time between the starts of two requests at `rate` a second; 0 is no limit.
fn interval(rate: f64) -> Duration {
    /// Longer is as good as for ever, and too long overflows the clock.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    if rate > 0.0 {
        Duration::try_from_secs_f64(1.0 / rate).map_or(LONGEST, |time| time.min(LONGEST))
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_beyond_all_measure_is_a_long_wait_and_no_panic() {
        assert_eq!(interval(0.0), Duration::ZERO);
        assert_eq!(interval(0.5), Duration::from_secs(2));
        assert_eq!(interval(f64::MAX), Duration::ZERO);
        for rate in [1e-9, 1e-30, f64::MIN_POSITIVE] {
            assert_eq!(interval(rate), Duration::from_secs(366 * 24 * 3600));
        }
    }
}
