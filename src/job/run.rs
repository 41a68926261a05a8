//! One job, from its list to its summary.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::engine::number;
use super::item::{Counts, Item, State, Summary};
use super::order::Order;
use super::plan::{Before, Planned, Planner};
use super::posted::{Posted, Tracked};
use super::progress::{Goal, Snapshot};
use super::report::Head;
use super::upkeep::{Prune, Touched, Upkeep};
use super::{
    Dedupe, Ending, Engine, Job, JobError, LAST_TRY, MaxFailures, OnRemove, Spec, Stop, until,
};
use crate::catalog::{Among, CatalogError, JobEnd, NewJob, SourceId};
use crate::downloader::Context;
use crate::fault::{self, Point};
use crate::metrics::METRICS;
use crate::source::{Notice, NoticeKind};
use crate::target::{Reason, describe, printable};

/// Batches of items that wait for the observer. Small: it only has to bridge a write to a report.
const ANNOUNCEMENTS: usize = 4;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

/// Hears of a job while it runs.
pub trait Observer: Send {
    /// The job begins.
    ///
    /// # Errors
    ///
    /// An error here or below ends the job: what cannot be reported must not be done silently.
    fn begin(&mut self, head: &Head) -> anyhow::Result<()>;

    /// Targets have their outcome; whatever is stored is visible.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    fn items(&mut self, items: &[Item]) -> anyhow::Result<()>;

    /// Told a few times a second.
    fn tick(&mut self, snapshot: &Snapshot);

    /// The job has ended.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    fn end(&mut self, summary: &Summary) -> anyhow::Result<()>;
}

/// Failures of a job that are logged as warnings.
const WARNINGS: u32 = 10;

/// A job's figures while it runs: the one place from which every figure is derived.
#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    reasons: super::Reasons,
    bytes: u64,
    /// Targets that count against `max_failures`.
    failures: u64,
}

impl Tally {
    /// Those of a posted job so far.
    fn of(posted: &Posted) -> Self {
        Self {
            counts: posted.row.counts,
            reasons: posted.reasons.clone(),
            bytes: posted.row.bytes,
            failures: posted.row.failures,
        }
    }

    fn add(&mut self, item: &Item) {
        self.counts.add(item.outcome);
        if let Some(reason) = item.reason {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.bytes += item.kept_bytes();
        self.failures += u64::from(item.outcome.is_failure(item.reason));
    }
}

impl Engine {
    /// Runs one job. It ends early when `stop` is cancelled, keeping what it has.
    ///
    /// # Errors
    ///
    /// When it could not begin: an unknown kind, an unreadable list, a catalog that fails, an observer that
    /// cannot begin. What goes wrong later is in the summary.
    pub async fn run(
        &self,
        mut spec: Spec,
        observer: &mut dyn Observer,
        stop: impl Into<Stop>,
    ) -> Result<Summary, JobError> {
        let stop = stop.into();
        let terms = spec.terms.clone();
        let downloader = terms.registry.find(&spec.kind)?;
        let id = spec.id;
        let source_id = spec.source_id();
        let earlier = self.interrupted(&spec, source_id).await?;
        let head = Head {
            job: id,
            source: spec.source.to_string(),
            album: spec.album.clone(),
            continues: earlier.map(|earlier| earlier.job),
            started: Utc::now(),
        };
        let dedupe = match spec.dedupe {
            Dedupe::Auto if spec.count.is_some() || spec.source.is_search() => Some(Among::Album),
            Dedupe::Auto => None,
            Dedupe::Off => None,
            Dedupe::Album => Some(Among::Album),
            Dedupe::Store => Some(Among::Store),
        };
        if dedupe.is_some() {
            self.catalog.index_contents(Among::Album).await?;
        }
        if dedupe == Some(Among::Store) {
            self.catalog.index_contents(Among::Store).await?;
        }
        let prune = self.prunes(&spec, source_id).await?;
        let begun = NewJob {
            id,
            source: head.source.clone(),
            kind: spec.kind.clone(),
            album: spec
                .album
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            source_id,
            continues: head.continues,
            schedule: spec.schedule.clone(),
            started: head.started,
        };
        self.catalog.begin_job(&begun).await?;
        fault::reach(Point::JobBegun);
        let (announce, announced) = mpsc::channel(ANNOUNCEMENTS);
        let asked = Asked::of(self, id);
        let cx = Context {
            client: terms.client.clone(),
            store: self.store.clone(),
            memory: self.shared.memory.clone(),
        };
        let token = CancellationToken::new();
        let posted = spec.posted.take();
        let (tracked, done) = posted.as_ref().map(Tracked::new).unzip();
        let so_far = posted.as_ref().map(|posted| &posted.row);
        let carried =
            earlier.map_or(0, |earlier| earlier.stored) + so_far.map_or(0, |job| job.counts.stored);
        let fresh_since = so_far
            .map(|job| job.started)
            .or(earlier.map(|earlier| earlier.since));
        let wanted = spec.count.map(|count| count.saturating_sub(carried));
        let job = Arc::new(Job {
            id,
            number: number(id),
            album: spec.album.clone(),
            cx,
            downloader,
            refresh: spec.refresh,
            fresh_since,
            distrusted: std::mem::take(&mut spec.distrusted),
            dedupe,
            on_change: spec.on_change,
            listed: prune.map(|prune| prune.source),
            stay: Mutex::default(),
            touched: terms.retention.limits().map(|_| Touched::new()),
            window: Semaphore::new(terms.job.window.get() as usize),
            wanted: wanted.map(|count| {
                Semaphore::new(
                    usize::try_from(count)
                        .unwrap_or(Semaphore::MAX_PERMITS)
                        .min(Semaphore::MAX_PERMITS),
                )
            }),
            under_way: Mutex::new(HashSet::new()),
            in_flight: AtomicUsize::new(0),
            steps: spec.steps.clone(),
            posted: tracked,
            announce,
            asked: asked.token.clone(),
            halt: stop.leave.child_token(),
            stop: token,
            left: AtomicU64::new(0),
            left_one: Notify::new(),
            terms,
            enough: CancellationToken::new(),
            lost: CancellationToken::new(),
            stopped_by: OnceLock::new(),
            error: OnceLock::new(),
        });
        if let Some(earlier) = earlier {
            tracing::info!(job.id = %id, "job {id} goes on with job {}, which was interrupted", earlier.job);
        }
        let schedule = spec.schedule.as_deref();
        let of = schedule.map_or_else(String::new, |name| format!(" of schedule `{name}`"));
        tracing::info!(job.id = %id, schedule, "job {id}{of} begins: {} from {}", spec.kind, head.source);
        let mut running = Running {
            engine: self,
            job: job.clone(),
            observer,
            tally: posted.as_ref().map(Tally::of).unwrap_or_default(),
            warned: 0,
            began: Instant::now(),
            count: spec.count,
            carried: earlier.map_or(0, |earlier| earlier.stored),
            wanted,
            total: so_far.and_then(|job| job.total),
            planned: None,
            prune,
            stop,
        };
        let error = match running.observer.begin(&head) {
            Ok(()) => {
                let order = Order::new(done, posted.as_ref().map_or(&[], |posted| &posted.stopped));
                let before = posted.map(Before::of).unwrap_or_default();
                let run = running.see_through(&spec, order, before, announced);
                run.await.err()
            }
            Err(error) => Some(JobError::Observer(error)),
        };
        if error.is_some() {
            // Whatever of the job is still on its way stops here; there is nobody left to count it.
            job.stop(Reason::StoreError, None);
            drop(self.shared.frontier.drain(job.number));
        }
        running.end(head, spec.max_failures, error).await
    }

    /// What to know at the end of a job that is to prune; `None` for one that does not.
    async fn prunes(
        &self,
        spec: &Spec,
        source: Option<SourceId>,
    ) -> Result<Option<Prune>, JobError> {
        if spec.on_remove == OnRemove::Keep {
            return Ok(None);
        }
        let is_part = spec.count.is_some() || spec.shard.is_some() || spec.source.is_search();
        let Some(source) = source.filter(|_| !is_part) else {
            tracing::info!(
                "nothing is pruned: a part of a list, a search, standard input and URLs of the command line do not \
                 show what has gone"
            );
            return Ok(None);
        };
        let listed = self.catalog.listed_count(source).await?;
        Ok(Some(Prune { source, listed }))
    }

    /// `lost`: it was the catalog that ended the job. The next start closes a job whose end could not be recorded.
    async fn record_end(
        &self,
        job: &Job,
        summary: &Summary,
        lost: bool,
    ) -> Result<(), CatalogError> {
        // A posted job that was cancelled is over: nothing goes on with it.
        let is_interrupted =
            summary.ending == Ending::Stopped && job.posted.is_none() && !job.asked.is_cancelled();
        let end = JobEnd {
            id: summary.job,
            state: summary.state,
            interrupted: is_interrupted,
            repeats: summary.repeats,
            error: summary.error.clone(),
            finished: summary.finished,
        };
        let recorded = self.catalog.end_job(&end);
        if !lost {
            return recorded.await;
        }
        let recorded = tokio::time::timeout(LAST_TRY, recorded).await;
        recorded.unwrap_or_else(|_| {
            tracing::error!(
                job.id = %end.id,
                "the end of job {} is not recorded, since the catalog is still away", end.id
            );
            Ok(())
        })
    }
}

/// How a job under way is asked for its end, until it is dropped.
struct Asked<'a> {
    engine: &'a Engine,
    job: Uuid,
    token: CancellationToken,
}

impl<'a> Asked<'a> {
    fn of(engine: &'a Engine, job: Uuid) -> Self {
        let token = CancellationToken::new();
        let mut running = engine
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.insert(job, token.clone());
        Self { engine, job, token }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let running = &self.engine.running;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.job);
    }
}

struct Running<'a> {
    engine: &'a Engine,
    job: Arc<Job>,
    observer: &'a mut dyn Observer,
    tally: Tally,
    /// Failures that were logged as warnings; one more than [`WARNINGS`] once that is said.
    warned: u32,
    began: Instant,
    /// Files that are to be stored.
    count: Option<u64>,
    /// Those of them that an interrupted job stored.
    carried: u64,
    /// Those that this process is to store.
    wanted: Option<u64>,
    /// How many targets there are, as far as it is known before the list is read.
    total: Option<u64>,
    /// How reading the list ended, once it did.
    planned: Option<Planned>,
    prune: Option<Prune>,
    stop: Stop,
}

/// What was taken away at the end of a job.
#[derive(Debug, Default)]
struct Upkept {
    removed: u64,
    warnings: Vec<String>,
    error: Option<JobError>,
}

/// Takes away what is no longer wanted.
struct KeepUp<'a> {
    engine: &'a Engine,
    job: &'a Job,
    /// Asks the whole process to stop.
    stop: &'a CancellationToken,
    /// What to prune, where the list was read to its end and no error came up.
    prune: Option<Prune>,
}

impl KeepUp<'_> {
    async fn go(&self) -> Upkept {
        let mut upkeep = Upkeep {
            files: self.engine.files(),
            catalog: &*self.engine.catalog,
            stay: &self.job.stay,
            stop: self.stop,
            now: Utc::now(),
            removed: 0,
            warnings: Vec::new(),
        };
        let error = self.take_away(&mut upkeep).await.err();
        Upkept {
            removed: upkeep.removed,
            warnings: upkeep.warnings,
            error,
        }
    }

    async fn take_away(&self, upkeep: &mut Upkeep<'_>) -> Result<(), JobError> {
        let (job, terms) = (self.job, &self.job.terms);
        if let Some(prune) = self.prune {
            upkeep.prune(prune, job.id, &terms.job).await?;
        }
        if let (Some(touched), Some(limits)) = (&job.touched, terms.retention.limits()) {
            upkeep.trim(touched, limits).await?;
        }
        upkeep.forget(terms.retention.jobs).await
    }
}

impl Running<'_> {
    /// Runs the job until every target that was read has its outcome.
    async fn see_through(
        &mut self,
        spec: &Spec,
        order: Order,
        before: Before,
        mut announced: mpsc::Receiver<Vec<Item>>,
    ) -> Result<(), JobError> {
        // One beyond the clock's end is none.
        let deadline = spec
            .deadline
            .and_then(|limit| self.began.checked_add(limit));
        let nothing = Planned {
            targets: before.targets,
            ..Planned::default()
        };
        if self.wanted == Some(0) {
            self.planned = Some(nothing);
            return Ok(());
        }
        let list = tokio::select! {
            biased;
            // Each target of a posted job gets its outcome.
            () = self.stop.cancel.cancelled(), if self.job.posted.is_none() => {
                self.job.stop(Reason::Cancelled, None);
                self.planned = Some(nothing);
                return Ok(());
            }
            () = self.stop.leave.cancelled() => {
                self.planned = Some(nothing);
                return Ok(());
            }
            () = until(deadline) => {
                self.job.stop(Reason::Deadline, None);
                self.planned = Some(nothing);
                return Ok(());
            }
            list = spec.source.open() => list?,
        };
        let planner = Planner {
            shared: self.engine.shared.clone(),
            catalog: self.engine.catalog.clone(),
            store: self.engine.store.clone(),
            job: self.job.clone(),
            shard: spec.shard,
            order,
            before,
            coming: Some(self.engine.shared.coming.one()),
        };
        // Dropping the set, on whatever way out, ends the plan.
        let mut plan: JoinSet<Planned> = JoinSet::new();
        plan.spawn(planner.run(list));
        let mut ticks = tokio::time::interval(TICK);
        // What waits in the lanes of a stopped job is answered beside this loop: the keeper takes it only
        // as fast as this loop hears of it.
        let mut skipping: JoinSet<()> = JoinSet::new();
        let mut stopping = false;
        loop {
            if let Some(planned) = &self.planned
                && self.tally.counts.targets + self.job.left.load(Ordering::SeqCst)
                    >= planned.targets
            {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.stop.cancel.cancelled(), if self.job.stop_reason().is_none() => {
                    self.job.stop(Reason::Cancelled, None);
                }
                () = self.job.asked.cancelled(), if self.job.stop_reason().is_none() => {
                    self.job.stop(Reason::Cancelled, None);
                }
                () = self.stop.cut.cancelled(), if !self.job.stop.is_cancelled() => self.job.stop.cancel(),
                () = self.job.left_one.notified() => {}
                () = until(deadline), if self.job.stop_reason().is_none() => self.job.stop(Reason::Deadline, None),
                () = self.job.halt.cancelled(), if !stopping && self.planned.is_some() => {
                    stopping = true;
                    let waiting = self.engine.shared.frontier.drain(self.job.number);
                    let shared = self.engine.shared.clone();
                    skipping.spawn(async move { shared.skip_all(waiting).await });
                }
                Some(_) = skipping.join_next() => {}
                Some(planned) = plan.join_next(), if self.planned.is_none() => {
                    self.planned = Some(planned.map_err(|_| JobError::Task("plan"))?);
                }
                Some(items) = announced.recv() => self.note(&items),
                // Nobody would ever hear of what is on its way.
                () = self.engine.shared.keeper.closed() => return Err(JobError::Task("keeper")),
                () = self.job.lost.cancelled() => return Err(JobError::Task("worker")),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    /// Tells the log of a target that was not fetched: of the first failures as a warning.
    fn log(&mut self, item: &Item) {
        let Some(reason) = item.reason else { return };
        let what = format!(
            "{} `{}`: {reason}: {}",
            item.outcome,
            printable(&item.url),
            printable(item.detail.as_deref().unwrap_or_default()),
        );
        let job = self.job.id;
        if !item.outcome.is_failure(item.reason) || self.warned > WARNINGS {
            return tracing::debug!(job.id = %job, "{what}");
        }
        self.warned += 1;
        if self.warned <= WARNINGS {
            tracing::warn!(job.id = %job, "job {job}: {what}");
        } else {
            tracing::warn!(job.id = %job, "job {job}: further failures are not logged; `gannet jobs {job}` lists them");
            tracing::debug!(job.id = %job, "{what}");
        }
    }

    fn note(&mut self, items: &[Item]) {
        let stored_before = self.tally.counts.stored;
        for item in items {
            self.tally.add(item);
            METRICS.target(item.told());
            self.log(item);
        }
        self.job.window.add_permits(items.len());
        if let (Some(wanted), Some(count)) = (&self.job.wanted, self.count) {
            let stored = usize::try_from(self.tally.counts.stored - stored_before).unwrap_or(0);
            wanted.add_permits(items.len() - stored);
            if self.tally.counts.stored + self.carried >= count {
                wanted.close();
                self.job.enough.cancel();
            }
        }
        if let Err(error) = self.observer.items(items) {
            self.job
                .stop(Reason::Cancelled, Some(JobError::Observer(error)));
        }
    }

    fn tick(&mut self) {
        let total = self.planned.as_ref().map(|planned| planned.targets);
        let total = total.or(self.total);
        let window = self.job.terms.job.window.get() as usize;
        let taken = window.saturating_sub(self.job.window.available_permits());
        let in_flight = self.job.in_flight.load(Ordering::Relaxed);
        self.observer.tick(&Snapshot {
            counts: self.tally.counts,
            total,
            goal: self.count.map(|count| Goal {
                stored: self.tally.counts.stored + self.carried,
                count,
            }),
            bytes: self.tally.bytes,
            in_flight,
            waiting: taken.saturating_sub(in_flight),
            elapsed: self.began.elapsed(),
        });
    }

    /// Makes the summary and tells everyone.
    async fn end(
        mut self,
        head: Head,
        max_failures: MaxFailures,
        error: Option<JobError>,
    ) -> Result<Summary, JobError> {
        self.tick();
        let planned = self.planned.take().unwrap_or_default();
        let stopped = self.job.stop_reason();
        let is_late = stopped == Some(Reason::Deadline);
        // What was halted and not stopped goes on in the next process, unless it had come to its end.
        let is_left = self.job.halt.is_cancelled()
            && stopped.is_none()
            && (self.job.left.load(Ordering::SeqCst) > 0 || !planned.is_whole);
        let stored = self.tally.counts.stored;
        let stored = stored + self.carried;
        let too_few = self
            .count
            .filter(|count| (stopped.is_none() && !is_left || is_late) && stored < *count)
            .map(|count| JobError::TooFew {
                stored,
                count,
                why: why_too_few(&planned.notices, is_late),
            });
        let cut_short = (is_late && !planned.is_whole).then_some(JobError::Deadline);
        let error = error.or(planned.error);
        let broken = error.as_ref().or(self.job.error.get());
        let mut upkept = match broken {
            // What has just failed would keep whoever waits for the end waiting once more.
            Some(error) if error.is_of_catalog() => Upkept::default(),
            _ if self.stop.cancel.is_cancelled() || self.job.asked.is_cancelled() || is_left => {
                Upkept::default()
            }
            _ => {
                let whole = broken.is_none() && stopped.is_none() && planned.is_whole;
                let keeping = KeepUp {
                    engine: self.engine,
                    job: &self.job,
                    stop: &self.stop.cancel,
                    prune: self.prune.filter(|_| whole),
                };
                keeping.go().await
            }
        };
        let stay = &self.job.stay;
        let stay = stay.lock().unwrap_or_else(PoisonError::into_inner).told();
        if let Some(told) = stay {
            tracing::warn!(job.id = %head.job, "{told}");
            upkept.warnings.push(told);
        }
        // The reason for too few files is already in the job's error.
        let is_warning = |notice: &Notice| match notice.kind {
            NoticeKind::Exhausted => false,
            NoticeKind::Incomplete => too_few.is_none(),
            NoticeKind::Fault => true,
        };
        let warnings = planned.notices.into_iter().filter(is_warning);
        upkept.warnings.extend(warnings.map(|notice| notice.text));
        let error = broken.or(upkept.error.as_ref());
        let lost = error.is_some_and(JobError::is_of_catalog);
        let failure = too_few.as_ref().or(cut_short.as_ref());
        let (failures, targets) = (self.tally.failures, self.tally.counts.targets);
        let is_counted = self.count.is_some();
        let exceeded = max_failures.is_exceeded(failures, targets, is_counted);
        // Where files are counted, others took the place of what failed.
        let is_incomplete = failures > 0 && !is_counted;
        let ending = match (error, failure) {
            (Some(_), _) => Ending::Broken,
            _ if is_left => Ending::Left,
            _ if stopped == Some(Reason::Cancelled) => Ending::Stopped,
            (None, Some(_)) => Ending::Failures,
            (None, None) if exceeded => Ending::Failures,
            (None, None) => Ending::Fine,
        };
        let mut summary = Summary {
            version: super::report::VERSION,
            job: head.job,
            source: head.source,
            album: head.album,
            continues: head.continues,
            state: state_of(ending, is_incomplete),
            started: head.started,
            finished: Utc::now(),
            counts: self.tally.counts,
            repeats: planned.repeats,
            removed: upkept.removed,
            bytes: self.tally.bytes,
            reasons: self.tally.reasons,
            warnings: upkept.warnings,
            error: error.or(failure).map(|error| describe(error)),
            ending,
        };
        if !is_left && let Err(error) = self.engine.record_end(&self.job, &summary, lost).await {
            // The reports are closed all the same, and tell what came first.
            let told = describe(&error);
            if summary.ending == Ending::Broken {
                tracing::error!(job.id = %summary.job, "{told}");
            } else {
                summary.ending = Ending::Broken;
                summary.state = state_of(summary.ending, is_incomplete);
                summary.error = Some(told);
            }
        }
        fault::reach(Point::JobEnded);
        if let Err(error) = self.observer.end(&summary) {
            if let Some(earlier) = &summary.error {
                tracing::error!(job.id = %summary.job, "{earlier}");
            }
            return Err(JobError::Observer(error));
        }
        let state = summary.state;
        METRICS.job(state);
        tracing::info!(
            job.id = %summary.job, job.state = %state,
            "job {} {state}: {}{}",
            summary.job, summary.counts,
            match summary.removed {
                0 => String::new(),
                removed => format!(", {removed} removed"),
            },
        );
        Ok(summary)
    }
}

/// Why there are fewer files than were asked for.
fn why_too_few(notices: &[Notice], is_late: bool) -> String {
    if is_late {
        return "the deadline passed".to_owned();
    }
    let about_the_end = |notice: &&Notice| notice.kind != NoticeKind::Fault;
    let notices = notices.iter().filter(about_the_end);
    let texts: Vec<_> = notices.map(|notice| notice.text.as_str()).collect();
    if texts.is_empty() {
        return "the list has no more".to_owned();
    }
    texts.join("; ")
}

/// The state of a job that ended so. `is_incomplete`: targets failed, tolerated or not, and nothing made up for them.
fn state_of(ending: Ending, is_incomplete: bool) -> State {
    match ending {
        Ending::Fine if is_incomplete => State::Incomplete,
        Ending::Fine => State::Completed,
        Ending::Failures => State::Incomplete,
        Ending::Broken => State::Failed,
        Ending::Stopped => State::Cancelled,
        Ending::Left => State::Ongoing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_and_its_failures_make_its_state() {
        for (ending, is_incomplete, state) in [
            (Ending::Fine, false, State::Completed),
            // Within `max_failures`.
            (Ending::Fine, true, State::Incomplete),
            (Ending::Failures, true, State::Incomplete),
            // `--count` was not reached, without a failure.
            (Ending::Failures, false, State::Incomplete),
            (Ending::Broken, false, State::Failed),
            (Ending::Broken, true, State::Failed),
            (Ending::Stopped, true, State::Cancelled),
            (Ending::Left, true, State::Ongoing),
        ] {
            let made = state_of(ending, is_incomplete);
            assert_eq!(made, state, "{ending:?} {is_incomplete}");
        }
    }
}
