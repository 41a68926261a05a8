//! The catalog in SQLite: one file, one writer, one reader beside it.

mod change;
mod history;
mod outbox;
mod posted;
mod record;
mod rows;
mod tables;
mod upkeep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use rusqlite_migration::{M, MigrationDefinitionError, Migrations, SchemaVersion};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    AlbumRow, Among, Backlog, Batch, CallbackRow, Catalog, CatalogError, Changes, DeadLetter,
    EventRow, GroupCounts, GroupRow, ImageFilter, ImageRow, JobEnd, JobRow, Known, KnownFile,
    Limits, LookUp, NewJob, OutcomeFilter, OutcomeRow, Post, Posted, PostedJob, ReceiverRow,
    Rename, Row, ScheduleRow, SourceId, Status, Table, TargetKey, UrlName, UrlRow, Wants, attempt,
};
use crate::fault::{self, Point};
use crate::target::{Reason, Sha256, State};

/// Each takes the schema one version further.
const STEPS: [&str; 10] = [
    include_str!("../../../migrations/sqlite/0001_catalog.sql"),
    include_str!("../../../migrations/sqlite/0002_schedules.sql"),
    include_str!("../../../migrations/sqlite/0003_posted.sql"),
    include_str!("../../../migrations/sqlite/0004_outbox.sql"),
    include_str!("../../../migrations/sqlite/0005_albums.sql"),
    include_str!("../../../migrations/sqlite/0006_records.sql"),
    include_str!("../../../migrations/sqlite/0007_names.sql"),
    include_str!("../../../migrations/sqlite/0008_pictures.sql"),
    include_str!("../../../migrations/sqlite/0009_dead_letters.sql"),
    include_str!("../../../migrations/sqlite/0010_callbacks.sql"),
];

static MIGRATIONS: LazyLock<Migrations<'static>> =
    LazyLock::new(|| Migrations::new(STEPS.map(M::up).into()));

/// How long a statement waits at most for another process that writes, before it fails for a passing reason.
const BUSY: Duration = Duration::from_secs(5);

/// Statements that a connection keeps compiled.
const STATEMENTS: usize = 32;

/// The catalog in a database file. Every method does its work on a blocking thread.
#[derive(Debug)]
pub(super) struct Sqlite(Arc<Connections>);

/// In WAL mode a reader sees the last commit and never waits for the writer. `None` once closed.
#[derive(Debug)]
struct Connections {
    writer: Mutex<Option<Connection>>,
    reader: Mutex<Option<Connection>>,
    /// Counts commits, and wakes those who wait for events.
    news: watch::Sender<u64>,
}

impl Sqlite {
    /// The version of the schema that this gannet works with.
    pub(super) const LATEST: i64 = STEPS.len() as i64;

    /// Makes the database where it is missing, and brings its tables up to date.
    pub(super) async fn open(path: PathBuf, patience: Duration) -> Result<Self, CatalogError> {
        let busy = attempt(patience, BUSY);
        blocking(move || {
            let mut writer = connect(&path, busy).map_err(refused(&path))?;
            MIGRATIONS
                .to_latest(&mut writer)
                .map_err(|error| outdated(&path, error))?;
            let reader = connect(&path, busy).map_err(refused(&path))?;
            Ok(Self::of(writer, reader))
        })
        .await
    }

    /// Makes a database with the tables of an earlier version.
    #[cfg(test)]
    pub(super) fn of_version(path: &Path, version: usize) -> Connection {
        let mut db = Connection::open(path).unwrap();
        MIGRATIONS.to_version(&mut db, version).unwrap();
        db
    }

    /// Opens a database that is there, to read it as it is. Returns the version of its schema too.
    pub(super) async fn open_to_read(path: PathBuf) -> Result<(Self, i64), CatalogError> {
        Self::open_as_it_is(path, true).await
    }

    /// The same, but that dead letters may be dropped.
    pub(super) async fn open_beside(path: PathBuf) -> Result<(Self, i64), CatalogError> {
        Self::open_as_it_is(path, false).await
    }

    async fn open_as_it_is(path: PathBuf, query_only: bool) -> Result<(Self, i64), CatalogError> {
        blocking(move || {
            // Not even a reader can do without the log's index beside the file, so this is not read-only.
            let open = || {
                let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                db.busy_timeout(BUSY)?;
                db.pragma_update(None, "query_only", query_only)?;
                Ok(db)
            };
            let writer = open().map_err(refused(&path))?;
            let reader = open().map_err(refused(&path))?;
            match MIGRATIONS.current_version(&reader) {
                Ok(SchemaVersion::Outside(_)) => {
                    let ahead = MigrationDefinitionError::DatabaseTooFarAhead;
                    let ahead = rusqlite_migration::Error::MigrationDefinition(ahead);
                    Err(outdated(&path, ahead))
                }
                Ok(version) => {
                    let version = usize::from(&version) as i64;
                    Ok((Self::of(writer, reader), version))
                }
                Err(error) => Err(outdated(&path, error)),
            }
        })
        .await
    }

    fn of(writer: Connection, reader: Connection) -> Self {
        Self(Arc::new(Connections {
            writer: Mutex::new(Some(writer)),
            reader: Mutex::new(Some(reader)),
            news: watch::Sender::default(),
        }))
    }

    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let connections = self.0.clone();
        blocking(move || {
            let db = connections.reader.lock();
            let db = db.unwrap_or_else(PoisonError::into_inner);
            let db = db.as_ref().ok_or(CatalogError::Closed)?;
            // One look at the database for all statements, and one lock on it.
            let read = || work(&*db.unchecked_transaction()?);
            read().map_err(CatalogError::query(action))
        })
        .await
    }

    /// Does `work` in a transaction: all of it, or none.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let connections = self.0.clone();
        blocking(move || {
            let mut db = connections
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let db = db.as_mut().ok_or(CatalogError::Closed)?;
            let write = || {
                let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let result = work(&transaction)?;
                transaction.commit()?;
                Ok(result)
            };
            let written: rusqlite::Result<T> = write();
            if written.is_ok() {
                connections.news.send_modify(|commits| *commits += 1);
            }
            written.map_err(CatalogError::query(action))
        })
        .await
    }
}

fn connect(path: &Path, busy: Duration) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(busy)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.pragma_update(None, "journal_mode", "wal")?;
    // Every commit survives a power cut; batches make that affordable.
    db.pragma_update(None, "synchronous", "full")?;
    // In pages. The log is copied back seldom, so that a page that many batches change is written once.
    db.pragma_update(None, "wal_autocheckpoint", 4096)?;
    // In KiB, being negative.
    db.pragma_update(None, "cache_size", -4000)?;
    db.pragma_update(None, "temp_store", "memory")?;
    Ok(db)
}

fn refused(path: &Path) -> impl FnOnce(rusqlite::Error) -> CatalogError {
    move |error| CatalogError::Open {
        catalog: path.display().to_string(),
        source: error.into(),
    }
}

fn outdated(path: &Path, error: rusqlite_migration::Error) -> CatalogError {
    match error {
        // Another process brings them up to date.
        rusqlite_migration::Error::RusqliteError { err, .. } => refused(path)(err),
        error => CatalogError::Migrate {
            catalog: path.display().to_string(),
            source: Box::new(error),
        },
    }
}

/// Runs `work` on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(CatalogError::Worker))
}

#[async_trait]
impl Catalog for Sqlite {
    async fn known(&self, keys: Vec<TargetKey>) -> Result<HashMap<TargetKey, Known>, CatalogError> {
        self.read("look up URLs", move |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {}, u.etag, u.last_modified, u.fresh_until, u.checked, u.tried, u.status, u.failures, \
                 u.outcome, u.reason, u.job, u.answered, u.failed_under, u.gone_until \
                 FROM urls u LEFT JOIN files f ON f.id = u.file WHERE u.key = ?",
                rows::FILE
            ))?;
            let mut found = HashMap::new();
            for key in keys {
                if let Some(known) = statement.query_row([key.0], rows::known).optional()? {
                    found.insert(key, known);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn taken(&self, paths: Vec<String>) -> Result<HashSet<String>, CatalogError> {
        self.read("look up names", move |db| {
            let mut statement = db.prepare_cached("SELECT 1 FROM files WHERE path = ?")?;
            let mut taken = HashSet::new();
            for path in paths {
                if statement.exists([&path])? {
                    taken.insert(path);
                }
            }
            Ok(taken)
        })
        .await
    }

    async fn staged(&self, stages: Vec<Uuid>) -> Result<HashMap<Uuid, String>, CatalogError> {
        self.read("look up staged files", move |db| {
            let mut new =
                db.prepare_cached("SELECT path FROM files WHERE id = ?1 AND stage = ?1")?;
            let mut replaced =
                db.prepare_cached("SELECT path FROM files WHERE stage = ? AND stage <> id")?;
            let mut paths = HashMap::new();
            for stage in stages {
                let path = match new.query_row([stage], |row| row.get(0)).optional()? {
                    None => replaced.query_row([stage], |row| row.get(0)).optional()?,
                    path => path,
                };
                if let Some(path) = path {
                    paths.insert(stage, path);
                }
            }
            Ok(paths)
        })
        .await
    }

    async fn index_contents(&self, among: Among) -> Result<(), CatalogError> {
        self.write("index contents", move |db| {
            db.execute_batch(match among {
                Among::Album => {
                    "CREATE INDEX IF NOT EXISTS files_by_content ON files (album, sha256)"
                }
                Among::Store => "CREATE INDEX IF NOT EXISTS files_by_sha256 ON files (sha256)",
            })
        })
        .await
    }

    async fn with_content(
        &self,
        album: Option<String>,
        contents: Vec<Sha256>,
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError> {
        self.read("look up contents", move |db| {
            // The album is bound in either case, and `+` keeps the index of the other from being used.
            let condition = match album {
                Some(_) => "f.sha256 = ?1 AND f.album = ?2",
                None => "f.sha256 = ?1 AND ?2 IS NULL",
            };
            let mut statement = db.prepare_cached(&format!(
                "SELECT {} FROM files f WHERE {condition} LIMIT 1",
                rows::FILE
            ))?;
            let mut found = HashMap::new();
            for content in contents {
                let file = statement.query_row((content.0, &album), rows::file);
                if let Some(file) = file.optional()? {
                    found.insert(content, file);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn record(&self, batch: Arc<Batch>) -> Result<(), CatalogError> {
        let action = "record a batch";
        self.write(action, move |db| {
            record::write(db, &batch)?;
            fault::pass_sqlite(Point::CatalogBeforeCommit)
        })
        .await?;
        fault::pass_sqlite(Point::CatalogCommitted).map_err(CatalogError::query(action))
    }

    async fn begin_job(&self, job: &NewJob) -> Result<(), CatalogError> {
        let job = job.clone();
        self.write("record a job", move |db| history::begin(db, &job))
            .await
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>, CatalogError> {
        self.read("list schedules", history::schedules).await
    }

    async fn save_schedule(&self, schedule: &ScheduleRow) -> Result<(), CatalogError> {
        let schedule = schedule.clone();
        self.write("record a schedule", move |db| {
            history::save_schedule(db, &schedule)
        })
        .await
    }

    async fn post_job(&self, post: Arc<Post>) -> Result<Posted, CatalogError> {
        self.write("record a posted job", move |db| posted::post(db, &post))
            .await
    }

    async fn posted_jobs(&self) -> Result<Vec<Uuid>, CatalogError> {
        self.read("list posted jobs", posted::unfinished).await
    }

    async fn posted_job(&self, job: Uuid) -> Result<Option<PostedJob>, CatalogError> {
        self.read("look up a posted job", move |db| posted::job(db, job))
            .await
    }

    async fn part(
        &self,
        job: Uuid,
        number: u64,
    ) -> Result<Option<(String, HashSet<u64>)>, CatalogError> {
        self.read("read the targets of a job", move |db| {
            posted::part(db, job, number)
        })
        .await
    }

    async fn groups(
        &self,
        job: Uuid,
        state: Option<State>,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<GroupRow>, CatalogError> {
        self.read("list groups", move |db| {
            posted::groups(db, job, state, after, limit)
        })
        .await
    }

    async fn group_counts(&self, job: Uuid) -> Result<GroupCounts, CatalogError> {
        self.read("count groups", move |db| posted::group_counts(db, job))
            .await
    }

    async fn outcomes_since(
        &self,
        job: Uuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, OutcomeRow)>, CatalogError> {
        self.read("list outcomes", move |db| {
            history::outcomes_since(db, job, after, limit)
        })
        .await
    }

    async fn reasons(&self, job: Uuid) -> Result<BTreeMap<Reason, u64>, CatalogError> {
        self.read("count reasons", move |db| history::reasons(db, job))
            .await
    }

    async fn end_job(&self, end: &JobEnd) -> Result<(), CatalogError> {
        let end = end.clone();
        self.write("record a job's end", move |db| history::end(db, &end))
            .await
    }

    async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<u64, CatalogError> {
        self.write("close interrupted jobs", move |db| {
            history::abandon(db, now)
        })
        .await
    }

    async fn interrupted_job(
        &self,
        source: SourceId,
        now: DateTime<Utc>,
    ) -> Result<Option<JobRow>, CatalogError> {
        self.read("look up an interrupted job", move |db| {
            history::interrupted(db, source, now)
        })
        .await
    }

    async fn jobs(
        &self,
        state: Option<State>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        self.read("list jobs", move |db| {
            history::jobs(db, state, before, limit)
        })
        .await
    }

    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError> {
        self.read("look up a job", move |db| history::job(db, id))
            .await
    }

    async fn outcomes(
        &self,
        job: Uuid,
        filter: OutcomeFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutcomeRow>, CatalogError> {
        self.read("list outcomes", move |db| {
            history::outcomes(db, job, filter, after, limit)
        })
        .await
    }

    async fn delete_jobs_before(
        &self,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        self.write("correct times", move |db| history::redate(db, now))
            .await?;
        let mut deleted = 0;
        loop {
            // Between two transactions others come to write.
            let done = self.write("delete old jobs", move |db| history::delete_some(db, time));
            match done.await? {
                Some(jobs) => deleted += jobs,
                None => return Ok(deleted),
            }
        }
    }

    async fn listed_count(&self, source: SourceId) -> Result<u64, CatalogError> {
        self.read("count a source's URLs", move |db| {
            upkeep::listed_count(db, source)
        })
        .await
    }

    async fn gone(&self, source: SourceId, job: Uuid) -> Result<u64, CatalogError> {
        self.read("count a source's URLs", move |db| {
            upkeep::gone(db, source, job)
        })
        .await
    }

    async fn mark_gone(
        &self,
        source: SourceId,
        job: Uuid,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        self.write("mark URLs as gone", move |db| {
            upkeep::mark_gone(db, source, job, now)
        })
        .await
    }

    async fn prunable(
        &self,
        source: SourceId,
        before: DateTime<Utc>,
        after: Option<TargetKey>,
        limit: u32,
    ) -> Result<Vec<(TargetKey, KnownFile)>, CatalogError> {
        // It is about to delete files, and both need the index.
        self.write("index files", upkeep::index_urls).await?;
        self.read("list what is gone", move |db| {
            upkeep::prunable(db, source, before, after, limit)
        })
        .await
    }

    async fn unlist(&self, source: SourceId, keys: Vec<TargetKey>) -> Result<(), CatalogError> {
        self.write("forget a source's URLs", move |db| {
            upkeep::unlist(db, source, &keys)
        })
        .await
    }

    async fn delete_files(
        &self,
        ids: Vec<Uuid>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        let reason = reason.to_owned();
        self.write("delete files", move |db| {
            upkeep::delete_files(db, &ids, &reason, now)
        })
        .await
    }

    async fn excess(
        &self,
        album: &str,
        limits: Limits,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        let album = album.to_owned();
        let dated = album.clone();
        let is_ahead = self.read("look at times", move |db| upkeep::is_ahead(db, &dated, now));
        if is_ahead.await? {
            let dated = album.clone();
            let redate = move |db: &Connection| upkeep::redate_files(db, &dated, now);
            self.write("correct times", redate).await?;
        }
        self.read("list files beyond the limits", move |db| {
            upkeep::excess(db, &album, limits, now, limit)
        })
        .await
    }

    async fn albums(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<AlbumRow>, CatalogError> {
        self.read("list albums", move |db| upkeep::albums(db, after, limit))
            .await
    }

    async fn has_album(&self, name: &str) -> Result<bool, CatalogError> {
        let name = name.to_owned();
        self.read("look up an album", move |db| change::has_album(db, &name))
            .await
    }

    async fn album(&self, name: &str) -> Result<Option<AlbumRow>, CatalogError> {
        let name = name.to_owned();
        self.read("look up an album", move |db| upkeep::album(db, &name))
            .await
    }

    async fn index_albums(&self) -> Result<(), CatalogError> {
        self.write("index albums", upkeep::index_albums).await
    }

    async fn change(&self, changes: Arc<Changes>) -> Result<(), CatalogError> {
        let action = "record changes";
        self.write(action, move |db| {
            change::write(db, &changes)?;
            fault::pass_sqlite(Point::CatalogBeforeCommit)
        })
        .await?;
        fault::pass_sqlite(Point::CatalogCommitted).map_err(CatalogError::query(action))
    }

    async fn renames(&self) -> Result<Vec<Rename>, CatalogError> {
        self.read("look up renamed albums", change::renames).await
    }

    async fn files(&self, files: Vec<Uuid>) -> Result<Vec<ImageRow>, CatalogError> {
        self.read("look up files", move |db| change::files(db, &files))
            .await
    }

    async fn images(
        &self,
        album: &str,
        filter: ImageFilter,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        let album = album.to_owned();
        self.read("list an album", move |db| {
            change::images(db, &album, &filter, after, limit)
        })
        .await
    }

    async fn image(&self, path: &str) -> Result<Option<ImageRow>, CatalogError> {
        let path = path.to_owned();
        self.read("look up a file", move |db| upkeep::image(db, &path))
            .await
    }

    async fn look_up(
        &self,
        by: LookUp,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        self.read("look up files", move |db| {
            upkeep::look_up(db, &by, after, limit)
        })
        .await
    }

    async fn index_look_ups(&self) -> Result<(), CatalogError> {
        self.write("index files", upkeep::index_look_ups).await
    }

    async fn files_after(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        self.read("list files", move |db| {
            upkeep::files_after(db, after, limit)
        })
        .await
    }

    async fn urls_of(&self, files: Vec<Uuid>) -> Result<Vec<UrlRow>, CatalogError> {
        self.read("look up the URLs of files", move |db| {
            upkeep::urls_of(db, &files)
        })
        .await
    }

    async fn urls_named(&self, urls: Vec<String>) -> Result<Vec<UrlName>, CatalogError> {
        self.read("look up URLs", move |db| upkeep::urls_named(db, &urls))
            .await
    }

    async fn outcomes_of(
        &self,
        urls: Vec<String>,
        limit: u32,
    ) -> Result<Vec<(Uuid, OutcomeRow)>, CatalogError> {
        self.read("look up the outcomes of URLs", move |db| {
            history::outcomes_of(db, &urls, limit)
        })
        .await
    }

    async fn unused(&self, files: Vec<Uuid>) -> Result<HashSet<Uuid>, CatalogError> {
        // They are about to be deleted, and both need the index.
        self.write("index files", upkeep::index_urls).await?;
        self.read("look up files without URLs", move |db| {
            upkeep::unused(db, &files)
        })
        .await
    }

    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        self.read("list events", move |db| {
            outbox::events_after(db, after, limit)
        })
        .await
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    async fn due_callbacks(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        self.read("look up callbacks", move |db| posted::due(db, now, limit))
            .await
    }

    async fn save_callback(&self, job: Uuid, callback: CallbackRow) -> Result<(), CatalogError> {
        self.write("record a callback", move |db| {
            posted::save_callback(db, job, &callback)
        })
        .await
    }

    async fn receivers(&self) -> Result<Vec<ReceiverRow>, CatalogError> {
        self.read("list receivers", outbox::receivers).await
    }

    async fn save_receiver(
        &self,
        name: &str,
        events: &Wants,
        now: DateTime<Utc>,
    ) -> Result<i64, CatalogError> {
        let (name, events) = (name.to_owned(), events.to_string());
        self.write("record a receiver", move |db| {
            outbox::save_receiver(db, &name, &events, now)
        })
        .await
    }

    async fn delete_receivers(&self, names: Vec<String>) -> Result<(), CatalogError> {
        self.write("forget receivers", move |db| {
            outbox::delete_receivers(db, &names)
        })
        .await
    }

    async fn acknowledge(&self, receiver: &str, position: i64) -> Result<(), CatalogError> {
        let receiver = receiver.to_owned();
        self.write("record a delivery", move |db| {
            outbox::acknowledge(db, &receiver, position)
        })
        .await
    }

    async fn bury(&self, letter: &DeadLetter, keep: u32) -> Result<(), CatalogError> {
        let letter = letter.clone();
        self.write("keep a dead letter", move |db| {
            outbox::bury(db, &letter, keep)
        })
        .await
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, CatalogError> {
        self.read("list dead letters", outbox::dead_letters).await
    }

    async fn drop_dead_letters(&self, letters: Vec<(String, i64)>) -> Result<u64, CatalogError> {
        self.write("drop dead letters", move |db| {
            outbox::drop_dead_letters(db, &letters)
        })
        .await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, CatalogError> {
        self.read("measure the outbox", outbox::backlog).await
    }

    async fn trim_events(
        &self,
        keep: u64,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<(u64, i64)>, CatalogError> {
        let is_ahead = self.read("measure the outbox", move |db| outbox::is_ahead(db, now));
        if is_ahead.await? {
            self.write("correct times", move |db| outbox::redate(db, now))
                .await?;
        }
        let excess = self.read("measure the outbox", move |db| {
            outbox::excess(db, keep, before)
        });
        match excess.await? {
            None => Ok(None),
            Some(last) => self
                .write("trim the outbox", move |db| outbox::trim(db, last))
                .await
                .map(|dropped| Some((dropped, last))),
        }
    }

    async fn rows(
        &self,
        table: &'static Table,
        after: Option<Row>,
        limit: u32,
    ) -> Result<Vec<Row>, CatalogError> {
        self.read("read a table", move |db| {
            tables::rows(db, table, after.as_ref(), limit)
        })
        .await
    }

    async fn load(&self, table: &'static Table, rows: Vec<Row>) -> Result<(), CatalogError> {
        self.write("fill a table", move |db| tables::load(db, table, &rows))
            .await
    }

    async fn status(&self) -> Result<Status, CatalogError> {
        self.read("measure tables", |db| tables::status(db, Self::LATEST))
            .await
    }

    async fn close(&self) {
        let connections = self.0.clone();
        // Closing tidies the log up, which takes a while.
        let closed = blocking(move || {
            for db in [&connections.reader, &connections.writer] {
                db.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            Ok(())
        });
        let _ = closed.await;
    }
}
