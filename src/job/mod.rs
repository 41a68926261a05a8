//! The engine that runs a job down the way of a URL.
//!
//! [`Engine`] is the process's machinery: workers that take from the frontier, the keeper that stages,
//! records and publishes, and what they share. [`Engine::run`] sends one [`Spec`] down the way:
//!
//! - `plan` reads the list, drops repeats, asks the catalog, and pushes targets to the frontier; `freshness` decides which
//!   of them to request;
//! - `worker` takes them out, has the downloader fetch them, and decides on retries and redirects;
//! - `steps` does what the job wants done with each file, and `order` holds back what has to wait in a posted job;
//! - `keeper` makes batches of what came: stage, sync, name, record, publish;
//! - `resume` finds the interrupted job that another one goes on with;
//! - `run` counts what the keeper announces and tells the [`Observer`];
//! - `errand` has the keeper do what clients want besides, between batches: `upload` keeps files, `alter` changes albums and
//!   images;
//! - `diagnosis` explains what is known of a URL or a file;
//! - `upkeep` finds what is no longer wanted, once the job is done, and `removal` takes it away.
//!
//! Every hop is bounded: a job has at most `job.window` targets between plan and announcement.

mod alter;
mod attempts;
mod coming;
mod descriptors;
mod diagnosis;
mod doubt;
mod engine;
mod errand;
mod failed;
mod freshness;
pub mod item;
mod keeper;
mod order;
mod plan;
mod posted;
mod posts;
pub mod progress;
mod rehearse;
mod removal;
mod rename;
mod repair;
pub mod report;
mod request;
mod resume;
mod run;
mod steps;
pub mod summary;
mod terms;
mod upkeep;
mod upload;
mod verify;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::{self, Among, CatalogError, SourceId, TargetKey};
use crate::downloader::{Context, Downloader};
use crate::source::{self, Source};
use crate::step::Steps;
use crate::store::{self, StoreError};
use crate::target::{AlbumName, Reason};
use crate::{fetch, naming};

pub use crate::step::MAX_STEPS;
pub use diagnosis::{
    Diagnosis, FileReport, MAX_OUTCOMES, PastOutcome, Profile, Subject, UrlReport, diagnose,
};
pub use engine::{Census, Engine, EngineError};
pub use errand::{AlbumWish, Condition, Files, ImageState, ImageWish, METADATA_BYTES, Refusal};
pub use failed::Failed;
pub use freshness::Outlook;
pub use item::{Ending, Item, Summary, Would};
pub use plan::Shard;
pub use posted::Posted;
use posted::Tracked;
pub use posts::{Depth, PostError, PostSettings, Posts};
pub use rehearse::{Plan, Rehearsed, rehearse};
use removal::Left;
pub use rename::{RenamePlan, Renaming};
pub use repair::Repaired;
pub use request::{Given, GivenGroup, Limits, Request, Rules, Wrong};
pub use run::Observer;
pub use terms::Terms;
pub use upkeep::Retention;
use upkeep::Touched;
pub use upload::Upload;
pub use verify::{Finding, Problem, Verified, Verifier};

/// `[job]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Kind of file that lists bring.
    pub kind: String,
    /// Album of targets whose list names none; empty: the root folder.
    #[serde(deserialize_with = "album_or_root")]
    pub album: Option<AlbumName>,
    /// Rejected and failed targets that are tolerated.
    pub max_failures: MaxFailures,
    /// Limit for a whole job; zero: none.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Among which files the same bytes are kept once.
    pub dedupe: Dedupe,
    /// What becomes of a file when its URL brings other bytes.
    pub on_change: OnChange,
    /// What becomes of a file when its URL leaves the list.
    pub on_remove: OnRemove,
    /// How long a URL has to be gone before its file is removed.
    #[serde(with = "humantime_serde")]
    pub prune_after: Duration,
    /// The share of a list that may be gone at once; beyond it nothing is removed.
    pub prune_limit: Percent,
    /// How long ago an interrupted job may have recorded its last outcome, so that another goes on with it; zero: none
    /// does.
    #[serde(with = "humantime_serde")]
    pub resume_within: Duration,
    /// Most targets between plan and announcement.
    pub window: std::num::NonZeroU32,
}

fn album_or_root<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AlbumName>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.is_empty() {
        Ok(None)
    } else {
        AlbumName::new(&name)
            .map(Some)
            .map_err(serde::de::Error::custom)
    }
}

/// Among which files the same bytes are kept once, whichever URL brings them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedupe {
    /// Only in jobs that ask for a number of files.
    Auto,
    /// Every URL gets its file.
    Off,
    /// Once an album.
    Album,
    /// Once; what another album has is linked.
    Store,
}

/// What becomes of a file when its URL brings other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The new bytes take its place.
    Replace,
    /// It stays, and the new bytes get a name with the time in it: a series.
    Keep,
}

/// What becomes of a file when its URL leaves the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// It stays.
    Keep,
    /// It goes, after a grace, unless another URL or source stands for it.
    Prune,
}

/// A share in percent, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Percent(u8);

impl TryFrom<u64> for Percent {
    type Error = String;

    fn try_from(percent: u64) -> Result<Self, String> {
        u8::try_from(percent)
            .ok()
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| "expected a share in percent, from 0 to 100".to_owned())
    }
}

/// How many rejected and failed targets are tolerated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailures {
    /// None; where files are counted, any number: each is made up for by another target.
    Auto,
    /// So many.
    Count(u64),
    /// So many of a hundred targets.
    Percent(f64),
}

impl MaxFailures {
    /// Whether `failures` of `targets` are more than that, in a job that may have a number of files to store.
    pub fn is_exceeded(self, failures: u64, targets: u64, is_counted: bool) -> bool {
        match self {
            Self::Auto => failures > 0 && !is_counted,
            Self::Count(most) => failures > most,
            // Exact for all counts that occur: f64 holds integers up to 2^53.
            Self::Percent(most) => failures as f64 * 100.0 > most * targets as f64,
        }
    }
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is neither a number of targets, a share such as `5%`, nor `auto`");
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.strip_suffix('%') {
            Some(share) => match share.trim().parse::<f64>() {
                Ok(share) if (0.0..=100.0).contains(&share) => Ok(Self::Percent(share)),
                _ => Err(wrong()),
            },
            None => text.trim().parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl Serialize for MaxFailures {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => count.serialize(serializer),
            Self::Percent(share) => serializer.collect_str(&format_args!("{share}%")),
        }
    }
}

impl<'de> Deserialize<'de> for MaxFailures {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Count(u64),
            Text(String),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::Count(count)) => Ok(Self::Count(count)),
            Ok(Either::Text(text)) => text.parse().map_err(serde::de::Error::custom),
            Err(_) => Err(serde::de::Error::custom(
                "expected a number of targets, a share such as `5%`, or `auto`",
            )),
        }
    }
}

/// The settings that the engine needs, each of the room that it steers.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// `[storage]`
    pub storage: &'a store::Settings,
    /// `[catalog]`
    pub catalog: &'a catalog::Settings,
    /// `[source]`
    pub source: &'a source::Settings,
    /// `[search]`
    pub search: &'a source::search::Settings,
    /// `[job]`
    pub job: &'a Settings,
    /// `[fetch]`
    pub fetch: &'a fetch::Settings,
    /// `[hosts]`
    pub hosts: &'a fetch::Hosts,
    /// `[proxies]`
    pub proxies: &'a fetch::ProxySettings,
    /// `[naming]`
    pub naming: &'a naming::Settings,
    /// `[retention]`
    pub retention: &'a Retention,
}

/// One job to run.
#[derive(Debug)]
pub struct Spec {
    /// What it is called. Jobs that begin later have greater ids.
    pub id: Uuid,
    /// The settings that it runs by. What follows takes their place.
    pub terms: Arc<Terms>,
    /// Where its URLs come from.
    pub source: Arc<dyn Source>,
    /// The schedule that begins it.
    pub schedule: Option<String>,
    /// The kind of file that it brings.
    pub kind: String,
    /// The album of targets whose list names none; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// Store exactly so many files, with distinct contents unless told otherwise.
    pub count: Option<u64>,
    /// The share of the list's hosts that this job takes.
    pub shard: Option<Shard>,
    /// Ask the origin about every known URL, fresh or not.
    pub refresh: bool,
    /// Files that are taken for missing, whatever their length and time say: they are brought again into their places.
    pub distrusted: HashSet<Uuid>,
    /// Among which files the same bytes are kept once.
    pub dedupe: Dedupe,
    /// What becomes of a file when its URL brings other bytes.
    pub on_change: OnChange,
    /// What becomes of a file when its URL leaves the list.
    pub on_remove: OnRemove,
    /// Limit for the whole job.
    pub deadline: Option<Duration>,
    /// Failures that are tolerated.
    pub max_failures: MaxFailures,
    /// What is done with each file that it stands for.
    pub steps: Steps,
    /// What a client posted, and what has become of it so far.
    pub posted: Option<Posted>,
}

impl Spec {
    /// A job over `source` as the settings have it.
    pub fn new(source: Arc<dyn Source>, terms: &Arc<Terms>) -> Self {
        let job = &terms.job;
        Self {
            id: Uuid::now_v7(),
            source,
            schedule: None,
            kind: job.kind.clone(),
            album: job.album.clone(),
            count: None,
            shard: None,
            refresh: false,
            distrusted: HashSet::new(),
            dedupe: job.dedupe,
            on_change: job.on_change,
            on_remove: job.on_remove,
            deadline: Some(job.deadline).filter(|deadline| !deadline.is_zero()),
            max_failures: job.max_failures,
            steps: Steps::default(),
            posted: None,
            terms: terms.clone(),
        }
    }

    /// Names its source, kind and album from one job to the next; `None` where the source is none that comes again.
    pub fn source_id(&self) -> Option<SourceId> {
        // One that was posted goes on by itself.
        if self.posted.is_some() {
            return None;
        }
        let source = self.source.identity()?;
        Some(SourceId::of(&source, &self.kind, self.album.as_ref()))
    }
}

/// How a job is asked to end early. Clones ask for the same.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Ends the job: what is not done is skipped, and recorded so.
    pub cancel: CancellationToken,
    /// Leaves the rest of the job to the next process, which goes on with it: nothing more is begun.
    pub leave: CancellationToken,
    /// Leaves also what is being fetched.
    pub cut: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..Self::default()
        }
    }
}

/// Why a job could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Its list cannot be read.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A batch could not be kept that held files of several jobs.
    #[error(transparent)]
    Batch(Arc<JobError>),
    /// The settings name a kind that nobody registered.
    #[error(transparent)]
    UnknownKind(#[from] crate::downloader::UnknownKind),
    /// A report cannot be written.
    #[error(transparent)]
    Observer(anyhow::Error),
    /// The list, or the time, ran out before `--count` was reached.
    #[error("stored {stored} of the {count} files asked for: {why}")]
    TooFew {
        /// Files that were stored.
        stored: u64,
        /// Files that were asked for.
        count: u64,
        /// What came to its end before, in words.
        why: String,
    },
    /// Its deadline passed while its list was read, so nobody knows what else there was.
    #[error("the deadline passed before the list was read to its end")]
    Deadline,
    /// One of the engine's tasks ended early.
    #[error("internal error: the {0} task ended early")]
    Task(&'static str),
}

impl JobError {
    /// Whether the catalog has failed, for another reason than want of room: whoever waited for it need not wait again.
    fn is_of_catalog(&self) -> bool {
        match self {
            Self::Catalog(error) => error.reason() != Reason::StoreFull,
            Self::Batch(error) => error.is_of_catalog(),
            _ => false,
        }
    }

    /// The stable code of what it does to targets.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
            Self::Catalog(error) => error.reason(),
            Self::Batch(error) => error.reason(),
            _ => Reason::StoreError,
        }
    }
}

/// What the rooms along the way share about a running job.
#[derive(Debug)]
struct Job {
    id: Uuid,
    /// The same to the frontier.
    number: u64,
    album: Option<AlbumName>,
    terms: Arc<Terms>,
    /// What its downloads work with.
    cx: Context,
    downloader: Arc<dyn Downloader>,
    refresh: bool,
    /// Since when nothing need be asked for again: an interrupted job had it.
    fresh_since: Option<DateTime<Utc>>,
    distrusted: HashSet<Uuid>,
    /// Among which files the same bytes are kept once.
    dedupe: Option<Among>,
    on_change: OnChange,
    /// The source, in jobs at whose end is removed what it no longer lists.
    listed: Option<SourceId>,
    /// Files that were to be removed and stay. Locked to add one.
    stay: Mutex<Left>,
    /// The albums that it has targets for, where what they may hold is limited.
    touched: Option<Touched>,
    /// Places between plan and announcement.
    window: Semaphore,
    /// Files that may still be stored, in jobs that store a number of them.
    wanted: Option<Semaphore>,
    /// Keys between plan and announcement, in which repeats are found. Locked for a look-up only.
    under_way: Mutex<HashSet<TargetKey>>,
    /// Targets that are requested.
    in_flight: AtomicUsize,
    steps: Steps,
    /// In a posted job, what is kept of the order of its targets.
    posted: Option<Tracked>,
    /// Told of what was recorded, in batches. Bounded: a slow observer makes the keeper wait.
    announce: mpsc::Sender<Vec<Item>>,
    /// Cancelled when somebody asks for the end of this very job.
    asked: CancellationToken,
    /// Cancelled when nothing is fetched any further.
    stop: CancellationToken,
    /// Cancelled when nothing more is begun: with `stop`, or when the process is to end, before it.
    halt: CancellationToken,
    /// Targets that are left to the next process.
    left: AtomicU64,
    /// Told of each of them.
    left_one: Notify,
    /// Cancelled once as many files are stored as were wanted: the rest of the list is not read.
    enough: CancellationToken,
    /// Cancelled when a target can have no outcome any more, since the code that had it panicked.
    lost: CancellationToken,
    /// Why the job was stopped before its end.
    stopped_by: OnceLock<Reason>,
    /// The first error that stopped it, or came up while it was being stopped.
    error: OnceLock<JobError>,
}

impl Job {
    /// Stops the job. The first call decides why, and the first error is the one that is told.
    fn stop(&self, reason: Reason, error: Option<JobError>) {
        if let Some(error) = error {
            let _ = self.error.set(error);
        }
        let _ = self.stopped_by.set(reason);
        self.stop.cancel();
        self.halt.cancel();
    }

    /// Whether the catalog has ended it.
    fn has_lost_catalog(&self) -> bool {
        self.error.get().is_some_and(JobError::is_of_catalog)
    }

    /// Leaves a target to the next process.
    fn leave_one(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
        self.left_one.notify_one();
    }

    /// Why the job is being stopped; `None` while it is not, and where the rest is left to the next process.
    fn stop_reason(&self) -> Option<Reason> {
        self.stopped_by.get().copied()
    }
}

/// How long a catalog is waited for that has just failed.
const LAST_TRY: Duration = Duration::from_secs(1);

/// Counts of reasons, as a summary has them.
type Reasons = BTreeMap<Reason, u64>;

/// Waits for a point in time; for ever where there is none. Cancel safe.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
