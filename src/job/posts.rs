//! Runs the jobs that clients post, beside each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::progress::Snapshot;
use super::report::Head;
use super::request::{Given, GivenGroup, Limits, Request, Rules, Wrong};
use super::{Engine, Item, Observer, Posted, Stop, Summary, Terms};
use crate::catalog::{
    self, Catalog, CatalogError, Idempotency, JobEnd, JobRow, OutcomeFilter, OutcomeRow,
    PART_TARGETS,
};
use crate::fetch::Client;
use crate::source::Listed;
use crate::target::{Reason, State, describe};

/// Makes terms for a job with limits of its own.
type WithLimits = dyn Fn(&Limits) -> anyhow::Result<Arc<Terms>> + Send + Sync;

/// By what posted jobs run, and how many of them.
#[derive(Clone)]
pub struct PostSettings {
    /// What they may ask for.
    pub rules: Rules,
    /// Makes terms for a job with limits of its own.
    pub with_limits: Arc<WithLimits>,
    /// Jobs that run at a time.
    pub running: usize,
    /// Jobs that may wait besides.
    pub waiting: usize,
}

impl fmt::Debug for PostSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostSettings")
            .field("running", &self.running)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// The jobs that clients post. Clones are the same.
#[derive(Debug, Clone)]
pub struct Posts(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    settings: RwLock<Arc<PostSettings>>,
    /// Locked for look-ups only.
    queue: Mutex<Queue>,
    /// Jobs to record. As many as may wait.
    arriving: mpsc::UnboundedSender<Arriving>,
    /// Told when the queue or the settings are others.
    changed: Notify,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first: their ids sort by time.
    waiting: BTreeMap<Uuid, Waiting>,
    running: BTreeSet<Uuid>,
    /// How many are being recorded.
    arriving: usize,
}

/// A job that waits.
#[derive(Debug, Default)]
struct Waiting {
    cancel: CancellationToken,
    /// Since when it may begin; `None`: at once.
    not_before: Option<Instant>,
}

/// How long a job rests whose end could not be recorded, before it goes on: the disk was full, say.
const REST: Duration = Duration::from_secs(5);

/// A job that is to be recorded.
struct Arriving {
    post: catalog::Post,
    reply: oneshot::Sender<Result<catalog::Posted, CatalogError>>,
}

/// Why a job is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A field cannot be used.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// Too many jobs wait.
    #[error("{0} jobs wait already, which is as many as `api.queued_jobs` lets; try again later")]
    Full(usize),
    /// The key came before, with something else.
    #[error(
        "the `Idempotency-Key` was used before, for job {0}, which is another one; use a new key for a new job"
    )]
    KeyReused(Uuid),
    /// It is to be tried again, and is not over.
    #[error("job {0} is not over yet; cancel it, or wait for its end")]
    NotOver(Uuid),
    /// It is to be tried again, and there is nothing to try.
    #[error(
        "there is nothing to try again: no target of the job failed that another attempt could help"
    )]
    NothingFailed,
    /// Nothing is taken any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// How many posted jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// That wait.
    pub queued: usize,
    /// That run.
    pub running: usize,
}

impl Posts {
    /// Goes on with what an earlier process left, and runs what comes. The task ends when `stop` asks it to, once
    /// what runs is over.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn start(
        engine: Arc<Engine>,
        settings: PostSettings,
        stop: Stop,
    ) -> Result<(Self, JoinHandle<()>), CatalogError> {
        let unfinished = engine.catalog().posted_jobs().await?;
        if !unfinished.is_empty() {
            tracing::info!("{} posted jobs go on", unfinished.len());
        }
        let mut queue = Queue::default();
        let waiting = unfinished.into_iter().map(|id| (id, Waiting::default()));
        queue.waiting.extend(waiting);
        let (arriving, to_record) = mpsc::unbounded_channel();
        let posts = Self(Arc::new(Inner {
            engine,
            settings: RwLock::new(Arc::new(settings)),
            queue: Mutex::new(queue),
            arriving,
            changed: Notify::new(),
            stop,
        }));
        let task = tokio::spawn(run(posts.0.clone(), to_record));
        Ok((posts, task))
    }

    /// Has jobs that begin from now on run by other settings.
    pub fn set(&self, settings: PostSettings) {
        let current = &self.0.settings;
        *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.0.changed.notify_one();
    }

    /// Queues a job. Once it returns, the job is recorded. Returns also whether it came before.
    ///
    /// # Errors
    ///
    /// When it is not taken.
    pub async fn post(
        &self,
        request: Request,
        given: Given,
        idempotency: Option<Idempotency>,
    ) -> Result<(Uuid, bool), PostError> {
        let inner = &self.0;
        if inner.stop.leave.is_cancelled() {
            return Err(PostError::Stopping);
        }
        let settings = inner.settings();
        let post = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || {
                request.check(&given, &settings.rules)?;
                request.post(given, idempotency, &settings.rules)
            })
        };
        let post = post.await.map_err(|_| CatalogError::Worker)??;
        let id = post.id;
        {
            let mut queue = inner.queue();
            let waiting = queue.waiting.len() + queue.arriving;
            if waiting >= settings.waiting {
                return Err(PostError::Full(waiting));
            }
            queue.arriving += 1;
        }
        let (reply, answer) = oneshot::channel();
        // Whoever asked may go: what was begun to be recorded is recorded, and runs.
        let sent = inner.arriving.send(Arriving { post, reply });
        if sent.is_err() {
            return Err(PostError::Stopping);
        }
        match answer.await.map_err(|_| PostError::Stopping)?? {
            catalog::Posted::Queued => Ok((id, false)),
            catalog::Posted::Earlier(id) => Ok((id, true)),
            catalog::Posted::Other(id) => Err(PostError::KeyReused(id)),
        }
    }

    /// Queues once more what failed in a job that is over, and what its failures stopped. Returns the new job.
    ///
    /// # Errors
    ///
    /// When it is not taken: nothing failed, say.
    pub async fn retry(&self, job: JobRow) -> Result<Uuid, PostError> {
        let catalog = self.0.engine.catalog();
        if job.finished.is_none() {
            return Err(PostError::NotOver(job.id));
        }
        let (request, given) = once_more(&**catalog, job).await?;
        if given.urls.is_empty() && given.groups.is_empty() {
            return Err(PostError::NothingFailed);
        }
        Ok(self.post(request, given, None).await?.0)
    }

    /// Asks a job to end early, be it posted or not. Returns whether it is here.
    pub fn cancel(&self, job: Uuid) -> bool {
        if let Some(waiting) = self.0.queue().waiting.get(&job) {
            waiting.cancel.cancel();
            return true;
        }
        self.0.engine.cancel(job)
    }

    /// How many there are.
    pub fn depth(&self) -> Depth {
        let queue = self.0.queue();
        Depth {
            queued: queue.waiting.len(),
            running: queue.running.len(),
        }
    }

    /// Reaches what posted jobs may reach.
    pub fn client(&self) -> Arc<Client> {
        self.0.settings().rules.terms.client.clone()
    }

    /// Cancelled when nothing more is begun.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.leave.clone()
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Arc<PostSettings> {
        let settings = self.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next job to begin.
    fn next(&self) -> Option<(Uuid, CancellationToken)> {
        let most = self.settings().running;
        let mut queue = self.queue();
        if queue.running.len() >= most || self.stop.leave.is_cancelled() {
            return None;
        }
        let now = Instant::now();
        let may_begin = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= now);
        let mut waiting = queue.waiting.iter();
        let id = *waiting.find(|(_, waiting)| may_begin(waiting))?.0;
        let waiting = queue.waiting.remove(&id)?;
        queue.running.insert(id);
        Some((id, waiting.cancel))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posts")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Records what arrives, and begins what waits, until nothing more is to be begun; then waits for what runs.
async fn run(inner: Arc<Inner>, mut to_record: mpsc::UnboundedReceiver<Arriving>) {
    let mut jobs = JoinSet::new();
    let mut ids: HashMap<Id, Uuid> = HashMap::new();
    let mut recording = JoinSet::new();
    loop {
        while let Some((id, cancel)) = inner.next() {
            let task = jobs.spawn(run_one(inner.clone(), id, cancel));
            ids.insert(task.id(), id);
        }
        tokio::select! {
            biased;
            () = inner.stop.leave.cancelled() => break,
            Some(ended) = jobs.join_next_with_id() => inner.end(ended, &mut ids).await,
            Some(_) = recording.join_next() => {}
            Some(arriving) = to_record.recv() => {
                recording.spawn(record(inner.clone(), arriving));
            }
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(REST), if inner.has_resting() => {}
        }
    }
    drop(to_record);
    while recording.join_next().await.is_some() {}
    while let Some(ended) = jobs.join_next_with_id().await {
        inner.end(ended, &mut ids).await;
    }
}

async fn record(inner: Arc<Inner>, arriving: Arriving) {
    let id = arriving.post.id;
    let posted = inner
        .engine
        .catalog()
        .post_job(Arc::new(arriving.post))
        .await;
    {
        let mut queue = inner.queue();
        queue.arriving -= 1;
        if matches!(posted, Ok(catalog::Posted::Queued)) {
            queue.waiting.insert(id, Waiting::default());
        }
    }
    inner.changed.notify_one();
    let _ = arriving.reply.send(posted);
}

impl Inner {
    async fn end(&self, ended: Result<(Id, ()), JoinError>, ids: &mut HashMap<Id, Uuid>) {
        let (task, panicked) = match ended {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), true),
        };
        let Some(id) = ids.remove(&task) else { return };
        if panicked {
            self.fail(
                id,
                "internal error: the code that ran the job panicked; please report it",
            )
            .await;
        }
        let is_over = match self.engine.catalog().job(id).await {
            Ok(job) => job.is_none_or(|job| job.finished.is_some()),
            Err(error) => {
                tracing::error!(job.id = %id, "nobody knows how job {id} ended: {}", describe(&error));
                false
            }
        };
        let mut queue = self.queue();
        queue.running.remove(&id);
        if !is_over && !self.stop.leave.is_cancelled() {
            tracing::warn!(job.id = %id, "the end of job {id} is not recorded, so it goes on");
            let waiting = Waiting {
                not_before: Some(Instant::now() + REST),
                ..Waiting::default()
            };
            queue.waiting.insert(id, waiting);
        }
    }

    fn has_resting(&self) -> bool {
        let queue = self.queue();
        let mut waiting = queue.waiting.values();
        waiting.any(|waiting| waiting.not_before.is_some())
    }

    /// Records that a job failed which could not do so itself.
    async fn fail(&self, id: Uuid, why: &str) {
        tracing::error!(job.id = %id, "posted job {id} failed: {why}");
        let end = JobEnd {
            id,
            state: State::Failed,
            interrupted: false,
            repeats: 0,
            error: Some(why.to_owned()),
            finished: Utc::now(),
        };
        if let Err(error) = self.engine.catalog().end_job(&end).await {
            tracing::error!(job.id = %id, "the end of job {id} is not recorded: {}", describe(&error));
        }
    }

    async fn run_job(&self, id: Uuid, cancel: CancellationToken) -> anyhow::Result<()> {
        let catalog = self.engine.catalog();
        // It may be gone with the history.
        let Some(job) = catalog.posted_job(id).await? else {
            return Ok(());
        };
        let settings = self.settings();
        let request: Request = serde_json::from_str(&job.request)?;
        let terms = match request.limits.are_of_fetch() {
            true => (settings.with_limits)(&request.limits)?,
            false => settings.rules.terms.clone(),
        };
        let posted = Posted::look_up(&**catalog, job).await?;
        let spec = request.spec(posted, catalog, &settings.rules, &terms)?;
        let stop = Stop {
            cancel,
            ..self.stop.clone()
        };
        self.engine.run(spec, &mut Silent, stop).await?;
        Ok(())
    }
}

async fn run_one(inner: Arc<Inner>, id: Uuid, cancel: CancellationToken) {
    if let Err(error) = inner.run_job(id, cancel).await {
        inner.fail(id, &format!("{error:#}")).await;
    }
}

/// Who asks looks into the catalog.
struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: &Head) -> anyhow::Result<()> {
        Ok(())
    }

    fn items(&mut self, _: &[Item]) -> anyhow::Result<()> {
        Ok(())
    }

    fn tick(&mut self, _: &Snapshot) {}

    fn end(&mut self, _: &Summary) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Outcomes that are read at a time.
const PAGE: u32 = 1000;

/// What to ask for to try once more what failed in a job, and what its failures stopped.
async fn once_more(catalog: &dyn Catalog, job: JobRow) -> Result<(Request, Given), CatalogError> {
    let posted = catalog.posted_job(job.id).await?;
    let earlier = posted.and_then(|posted| serde_json::from_str(&posted.request).ok());
    let earlier: Request = earlier.unwrap_or_default();
    let request = Request {
        source: Vec::new(),
        list_format: None,
        list_encoding: None,
        count: None,
        kind: Some(job.kind.clone()),
        album: Some(job.album.clone().unwrap_or_default()),
        retries: Some(job.id),
        ..earlier
    };
    let mut failed: BTreeMap<u64, Listed> = BTreeMap::new();
    let mut after = None;
    loop {
        let all = OutcomeFilter::All;
        let rows = catalog.outcomes(job.id, all, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.seq);
        let is_wanted = |row: &OutcomeRow| match row.reason {
            Some(Reason::InvalidUrl | Reason::UnsupportedScheme) => false,
            reason => row.outcome.is_failure(reason) || reason == Some(Reason::GroupStopped),
        };
        let rows = rows.into_iter().filter(is_wanted);
        failed.extend(rows.map(|row| (row.seq, listed(row))));
    }
    if job.total.is_none() || failed.is_empty() {
        let urls = failed.into_values().collect();
        return Ok((
            request,
            Given {
                urls,
                groups: Vec::new(),
            },
        ));
    }
    let mut given = Given::default();
    let mut groups: BTreeMap<u32, Vec<Listed>> = BTreeMap::new();
    // As they were posted: the history does not have all of it.
    let mut number = 0;
    while let Some((targets, _)) = catalog.part(job.id, number).await? {
        let first = number * PART_TARGETS;
        number += 1;
        let targets: Vec<Listed> = serde_json::from_str(&targets).unwrap_or_default();
        for (_, listed) in (first..)
            .zip(targets)
            .filter(|(seq, _)| failed.contains_key(seq))
        {
            match listed.group {
                Some(group) => groups.entry(group).or_default().push(listed),
                None => given.urls.push(listed),
            }
        }
    }
    for (number, urls) in groups {
        let after = number.checked_sub(1);
        let group = catalog.groups(job.id, None, after, 1).await?;
        given
            .groups
            .extend(group.into_iter().map(|group| GivenGroup {
                id: group.id,
                on_error: group.on_error,
                metadata: group.metadata,
                urls: urls.clone(),
            }));
    }
    Ok((request, given))
}

/// A target as the history has it.
fn listed(row: OutcomeRow) -> Listed {
    Listed {
        metadata: row.other_columns(),
        line: row.line,
        list_group: row.group,
        name: row.name,
        album: row.album,
        sha256: row.sha256,
        ..Listed::new(&row.url)
    }
}
