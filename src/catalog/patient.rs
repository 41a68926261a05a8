//! Waits for a catalog that is away for a while: PostgreSQL is restarted, SQLite is held by another program.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    AlbumRow, Among, Backlog, Batch, CallbackRow, Catalog, CatalogError, Changes, DeadLetter,
    EventRow, GroupCounts, GroupRow, ImageFilter, ImageRow, JobEnd, JobRow, Known, KnownFile,
    Limits, LookUp, NewJob, OutcomeFilter, OutcomeRow, Post, Posted, PostedJob, ReceiverRow,
    Rename, Row, ScheduleRow, SourceId, Status, Table, TargetKey, UrlName, UrlRow, Wants,
};
use crate::target::{Reason, Sha256, State, describe};

/// Between the first two attempts. Doubled from then on.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two attempts at most: so long may a job stand still although the catalog is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Repeats what failed for a passing reason, for a while.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// Calls that wait. The first one says so, and the last one says that it is over.
    waiting: AtomicUsize,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Does `work` until it succeeds, fails for good, or patience ends.
    pub(super) async fn see_through<T, W>(
        &self,
        mut work: impl FnMut() -> W,
    ) -> Result<T, CatalogError>
    where
        W: Future<Output = Result<T, CatalogError>>,
    {
        let error = match work().await {
            Err(error) if error.is_transient() && !self.limit.is_zero() => error,
            result => return result,
        };
        let waiting = Waiting::begin(self, &error);
        let (began, mut pause, mut error) = (Instant::now(), PAUSE, error);
        loop {
            let left = self.limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(CatalogError::Away {
                    waited: Duration::from_secs(began.elapsed().as_secs()),
                    source: Box::new(error),
                });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            error = match work().await {
                Err(error) if error.is_transient() => error,
                Ok(done) => {
                    waiting.end();
                    return Ok(done);
                }
                Err(error) => return Err(error),
            };
        }
    }
}

/// Counts a call that waits, until it is dropped.
struct Waiting<'a>(&'a Patience);

impl<'a> Waiting<'a> {
    fn begin(patience: &'a Patience, error: &CatalogError) -> Self {
        if patience.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            let limit = humantime::format_duration(patience.limit);
            tracing::warn!("{}; trying again for up to {limit}", describe(error));
        }
        Self(patience)
    }

    fn end(self) {
        if self.0.waiting.load(Ordering::Relaxed) == 1 {
            tracing::warn!("the catalog is back");
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A catalog that waits for another one.
#[derive(Debug)]
pub(super) struct Patient<C> {
    inner: C,
    patience: Patience,
}

impl<C> Patient<C> {
    pub(super) fn new(inner: C, patience: Patience) -> Self {
        Self { inner, patience }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<C: Catalog> Catalog for Patient<C> {
    async fn known(&self, keys: Vec<TargetKey>) -> Result<HashMap<TargetKey, Known>, CatalogError> {
        self.patience
            .see_through(|| self.inner.known(keys.clone()))
            .await
    }

    async fn taken(&self, paths: Vec<String>) -> Result<HashSet<String>, CatalogError> {
        self.patience
            .see_through(|| self.inner.taken(paths.clone()))
            .await
    }

    async fn staged(&self, stages: Vec<Uuid>) -> Result<HashMap<Uuid, String>, CatalogError> {
        self.patience
            .see_through(|| self.inner.staged(stages.clone()))
            .await
    }

    async fn index_contents(&self, among: Among) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.index_contents(among))
            .await
    }

    async fn with_content(
        &self,
        album: Option<String>,
        contents: Vec<Sha256>,
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError> {
        self.patience
            .see_through(|| self.inner.with_content(album.clone(), contents.clone()))
            .await
    }

    async fn record(&self, batch: Arc<Batch>) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.record(batch.clone()))
            .await
    }

    async fn begin_job(&self, job: &NewJob) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.begin_job(job))
            .await
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>, CatalogError> {
        self.patience.see_through(|| self.inner.schedules()).await
    }

    async fn save_schedule(&self, schedule: &ScheduleRow) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.save_schedule(schedule))
            .await
    }

    async fn post_job(&self, post: Arc<Post>) -> Result<Posted, CatalogError> {
        self.patience
            .see_through(|| self.inner.post_job(post.clone()))
            .await
    }

    async fn posted_jobs(&self) -> Result<Vec<Uuid>, CatalogError> {
        self.patience.see_through(|| self.inner.posted_jobs()).await
    }

    async fn posted_job(&self, job: Uuid) -> Result<Option<PostedJob>, CatalogError> {
        self.patience
            .see_through(|| self.inner.posted_job(job))
            .await
    }

    async fn part(
        &self,
        job: Uuid,
        number: u64,
    ) -> Result<Option<(String, HashSet<u64>)>, CatalogError> {
        self.patience
            .see_through(|| self.inner.part(job, number))
            .await
    }

    async fn groups(
        &self,
        job: Uuid,
        state: Option<State>,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<GroupRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.groups(job, state, after, limit))
            .await
    }

    async fn group_counts(&self, job: Uuid) -> Result<GroupCounts, CatalogError> {
        self.patience
            .see_through(|| self.inner.group_counts(job))
            .await
    }

    async fn outcomes_since(
        &self,
        job: Uuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, OutcomeRow)>, CatalogError> {
        self.patience
            .see_through(|| self.inner.outcomes_since(job, after, limit))
            .await
    }

    async fn reasons(&self, job: Uuid) -> Result<BTreeMap<Reason, u64>, CatalogError> {
        self.patience.see_through(|| self.inner.reasons(job)).await
    }

    async fn end_job(&self, end: &JobEnd) -> Result<(), CatalogError> {
        self.patience.see_through(|| self.inner.end_job(end)).await
    }

    async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.abandon_jobs(now))
            .await
    }

    async fn interrupted_job(
        &self,
        source: SourceId,
        now: DateTime<Utc>,
    ) -> Result<Option<JobRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.interrupted_job(source, now))
            .await
    }

    async fn jobs(
        &self,
        state: Option<State>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.jobs(state, before, limit))
            .await
    }

    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError> {
        self.patience.see_through(|| self.inner.job(id)).await
    }

    async fn outcomes(
        &self,
        job: Uuid,
        filter: OutcomeFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutcomeRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.outcomes(job, filter, after, limit))
            .await
    }

    async fn delete_jobs_before(
        &self,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.delete_jobs_before(time, now))
            .await
    }

    async fn listed_count(&self, source: SourceId) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.listed_count(source))
            .await
    }

    async fn gone(&self, source: SourceId, job: Uuid) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.gone(source, job))
            .await
    }

    async fn mark_gone(
        &self,
        source: SourceId,
        job: Uuid,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.mark_gone(source, job, now))
            .await
    }

    async fn prunable(
        &self,
        source: SourceId,
        before: DateTime<Utc>,
        after: Option<TargetKey>,
        limit: u32,
    ) -> Result<Vec<(TargetKey, KnownFile)>, CatalogError> {
        self.patience
            .see_through(|| self.inner.prunable(source, before, after, limit))
            .await
    }

    async fn unlist(&self, source: SourceId, keys: Vec<TargetKey>) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.unlist(source, keys.clone()))
            .await
    }

    async fn delete_files(
        &self,
        ids: Vec<Uuid>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.delete_files(ids.clone(), reason, now))
            .await
    }

    async fn excess(
        &self,
        album: &str,
        limits: Limits,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        self.patience
            .see_through(|| self.inner.excess(album, limits, now, limit))
            .await
    }

    async fn albums(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<AlbumRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.albums(after.clone(), limit))
            .await
    }

    async fn has_album(&self, name: &str) -> Result<bool, CatalogError> {
        self.patience
            .see_through(|| self.inner.has_album(name))
            .await
    }

    async fn album(&self, name: &str) -> Result<Option<AlbumRow>, CatalogError> {
        self.patience.see_through(|| self.inner.album(name)).await
    }

    async fn index_albums(&self) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.index_albums())
            .await
    }

    async fn change(&self, changes: Arc<Changes>) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.change(changes.clone()))
            .await
    }

    async fn renames(&self) -> Result<Vec<Rename>, CatalogError> {
        self.patience.see_through(|| self.inner.renames()).await
    }

    async fn files(&self, files: Vec<Uuid>) -> Result<Vec<ImageRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.files(files.clone()))
            .await
    }

    async fn images(
        &self,
        album: &str,
        filter: ImageFilter,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        self.patience
            .see_through(|| {
                self.inner
                    .images(album, filter.clone(), after.clone(), limit)
            })
            .await
    }

    async fn image(&self, path: &str) -> Result<Option<ImageRow>, CatalogError> {
        self.patience.see_through(|| self.inner.image(path)).await
    }

    async fn look_up(
        &self,
        by: LookUp,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.look_up(by.clone(), after.clone(), limit))
            .await
    }

    async fn index_look_ups(&self) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.index_look_ups())
            .await
    }

    async fn files_after(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        self.patience
            .see_through(|| self.inner.files_after(after.clone(), limit))
            .await
    }

    async fn urls_of(&self, files: Vec<Uuid>) -> Result<Vec<UrlRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.urls_of(files.clone()))
            .await
    }

    async fn urls_named(&self, urls: Vec<String>) -> Result<Vec<UrlName>, CatalogError> {
        self.patience
            .see_through(|| self.inner.urls_named(urls.clone()))
            .await
    }

    async fn outcomes_of(
        &self,
        urls: Vec<String>,
        limit: u32,
    ) -> Result<Vec<(Uuid, OutcomeRow)>, CatalogError> {
        self.patience
            .see_through(|| self.inner.outcomes_of(urls.clone(), limit))
            .await
    }

    async fn unused(&self, files: Vec<Uuid>) -> Result<HashSet<Uuid>, CatalogError> {
        self.patience
            .see_through(|| self.inner.unused(files.clone()))
            .await
    }

    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.events_after(after, limit))
            .await
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.inner.news()
    }

    async fn due_callbacks(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        self.patience
            .see_through(|| self.inner.due_callbacks(now, limit))
            .await
    }

    async fn save_callback(&self, job: Uuid, callback: CallbackRow) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.save_callback(job, callback.clone()))
            .await
    }

    async fn receivers(&self) -> Result<Vec<ReceiverRow>, CatalogError> {
        self.patience.see_through(|| self.inner.receivers()).await
    }

    async fn save_receiver(
        &self,
        name: &str,
        events: &Wants,
        now: DateTime<Utc>,
    ) -> Result<i64, CatalogError> {
        self.patience
            .see_through(|| self.inner.save_receiver(name, events, now))
            .await
    }

    async fn delete_receivers(&self, names: Vec<String>) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.delete_receivers(names.clone()))
            .await
    }

    async fn acknowledge(&self, receiver: &str, position: i64) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.acknowledge(receiver, position))
            .await
    }

    async fn bury(&self, letter: &DeadLetter, keep: u32) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.bury(letter, keep))
            .await
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, CatalogError> {
        self.patience
            .see_through(|| self.inner.dead_letters())
            .await
    }

    async fn drop_dead_letters(&self, letters: Vec<(String, i64)>) -> Result<u64, CatalogError> {
        self.patience
            .see_through(|| self.inner.drop_dead_letters(letters.clone()))
            .await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, CatalogError> {
        self.patience.see_through(|| self.inner.backlog()).await
    }

    async fn trim_events(
        &self,
        keep: u64,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<(u64, i64)>, CatalogError> {
        self.patience
            .see_through(|| self.inner.trim_events(keep, before, now))
            .await
    }

    async fn rows(
        &self,
        table: &'static Table,
        after: Option<Row>,
        limit: u32,
    ) -> Result<Vec<Row>, CatalogError> {
        self.patience
            .see_through(|| self.inner.rows(table, after.clone(), limit))
            .await
    }

    async fn load(&self, table: &'static Table, rows: Vec<Row>) -> Result<(), CatalogError> {
        self.patience
            .see_through(|| self.inner.load(table, rows.clone()))
            .await
    }

    async fn status(&self) -> Result<Status, CatalogError> {
        self.patience.see_through(|| self.inner.status()).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn busy() -> CatalogError {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        CatalogError::query("try")(rusqlite::Error::SqliteFailure(busy, None))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_the_way_for_a_while_is_waited_for() {
        let patience = Patience::new(Duration::from_secs(60));
        let (began, tries) = (Instant::now(), Cell::new(0));
        let work = || {
            tries.set(tries.get() + 1);
            let is_back = began.elapsed() >= Duration::from_secs(10);
            std::future::ready(if is_back {
                Ok(tries.get())
            } else {
                Err(busy())
            })
        };
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s, and then every 2 s.
        assert_eq!(patience.see_through(work).await.unwrap(), 10);
        assert!(began.elapsed() < Duration::from_secs(12));
        assert_eq!(patience.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_says_what_was_in_the_way() {
        let patience = Patience::new(Duration::from_secs(7));
        let began = Instant::now();
        let work = || std::future::ready(Err::<(), _>(busy()));
        let error = patience.see_through(work).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(7));
        let text = describe(&error);
        assert!(
            text.contains("waited 7s for the catalog") && text.contains("cannot try"),
            "{text}"
        );
        assert!(!error.is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_not_waited_for() {
        let patience = Patience::new(Duration::from_secs(60));
        let began = Instant::now();
        let work = || std::future::ready(Err::<(), _>(CatalogError::Closed));
        assert!(patience.see_through(work).await.is_err());
        let patience = Patience::new(Duration::ZERO);
        let work = || std::future::ready(Err::<(), _>(busy()));
        let error = patience.see_through(work).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
