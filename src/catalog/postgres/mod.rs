//! The catalog in PostgreSQL: one connection that writes, a few that read.

mod change;
mod history;
mod outbox;
mod posted;
mod record;
mod rows;
mod tables;
mod upkeep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx_core::connection::{ConnectOptions as _, Connection as _};
use sqlx_core::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::raw_sql::raw_sql;
use sqlx_core::sql_str::{AssertSqlSafe, SqlSafeStr as _};
use sqlx_postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{Mutex, MutexGuard, watch};
use url::Url;
use uuid::Uuid;

use super::{
    AlbumRow, Among, Backlog, Batch, CallbackRow, Catalog, CatalogError, Changes, DeadLetter,
    EventRow, GroupCounts, GroupRow, ImageFilter, ImageRow, JobEnd, JobRow, Known, KnownFile,
    Limits, LookUp, NewJob, OutcomeFilter, OutcomeRow, Post, Posted, PostedJob, ReceiverRow,
    Rename, Row, ScheduleRow, SourceId, Status, Table, TargetKey, UrlName, UrlRow, Wants, attempt,
};
use crate::target::{Reason, Sha256, State};

/// What a query says.
type Result<T, E = sqlx_core::Error> = std::result::Result<T, E>;

/// Connections that read. More than a job and somebody who looks at it need none.
const READERS: u32 = 4;

/// How long a call waits at most for a connection, before it fails for a passing reason.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a new connection waits at most for the lock that the lost one may still hold.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The first half of the advisory lock that a process holds as long as it writes; the other is the schema.
const LOCK: i32 = 0x676e_7401;

/// The catalog in a PostgreSQL database.
pub(super) struct Postgres {
    options: PgConnectOptions,
    /// The database, without credentials.
    shown: String,
    /// How long an attempt waits for a connection, and for the lock.
    connect_wait: Duration,
    lock_wait: Duration,
    /// Who this process is to the others that take the database.
    owner: Uuid,
    readers: PgPool,
    /// Holds the lock, so that whoever writes is the only one. Taken out while it is used: what is not put back is
    /// closed, and PostgreSQL rolls back what it began. Reconnecting comes with taking the lock again.
    writer: Mutex<Option<PgConnection>>,
    /// Counts commits, and wakes those who wait for events.
    news: watch::Sender<u64>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold the password.
        f.debug_tuple("Postgres").field(&self.shown).finish()
    }
}

/// A transaction on the connection that writes. Dropped without [`end`](Self::end), nothing of it stays.
struct Writing<'a> {
    action: &'static str,
    slot: MutexGuard<'a, Option<PgConnection>>,
    news: &'a watch::Sender<u64>,
    db: PgConnection,
}

impl Writing<'_> {
    /// Makes what was done durable; when something of it failed, undoes it.
    async fn end<T>(mut self, result: Result<T>) -> Result<T, CatalogError> {
        let last = match &result {
            Ok(_) => "COMMIT",
            Err(sqlx_core::Error::Io(_)) => return result.map_err(failed(self.action)),
            Err(_) => "ROLLBACK",
        };
        let ended = in_time(raw_sql(last).execute(&mut self.db)).await;
        if ended.is_ok() {
            *self.slot = Some(self.db);
            self.news.send_modify(|commits| *commits += 1);
        }
        let result = match (result, ended) {
            (Ok(_), Err(error)) => Err(error),
            (result, _) => result,
        };
        result.map_err(failed(self.action))
    }
}

/// Each takes the schema one version further.
const STEPS: [(&str, &str); 10] = [
    (
        "catalog",
        include_str!("../../../migrations/postgres/0001_catalog.sql"),
    ),
    (
        "schedules",
        include_str!("../../../migrations/postgres/0002_schedules.sql"),
    ),
    (
        "posted",
        include_str!("../../../migrations/postgres/0003_posted.sql"),
    ),
    (
        "outbox",
        include_str!("../../../migrations/postgres/0004_outbox.sql"),
    ),
    (
        "albums",
        include_str!("../../../migrations/postgres/0005_albums.sql"),
    ),
    (
        "records",
        include_str!("../../../migrations/postgres/0006_records.sql"),
    ),
    (
        "names",
        include_str!("../../../migrations/postgres/0007_names.sql"),
    ),
    (
        "pictures",
        include_str!("../../../migrations/postgres/0008_pictures.sql"),
    ),
    (
        "dead_letters",
        include_str!("../../../migrations/postgres/0009_dead_letters.sql"),
    ),
    (
        "callbacks",
        include_str!("../../../migrations/postgres/0010_callbacks.sql"),
    ),
];

/// Brings tables up to date, as far as `version`.
fn migrator(version: usize) -> Migrator {
    let steps = (1..)
        .zip(STEPS)
        .take(version)
        .map(|(version, (name, sql))| {
            let (sql, kind) = (sql.into_sql_str(), MigrationType::Simple);
            Migration::new(version, name.into(), kind, sql, false)
        });
    Migrator::with_migrations(steps.collect())
}

impl Postgres {
    /// The version of the schema that this gannet works with.
    pub(super) const LATEST: i64 = STEPS.len() as i64;

    /// Takes the database for this process and brings its tables up to date.
    pub(super) async fn open(url: &Url, patience: Duration) -> Result<Self, CatalogError> {
        let catalog = Self::of(url, patience, false)?;
        let mut db = catalog.connect(false).await?;
        let migrated = migrator(STEPS.len()).run_direct(None, &mut db, false).await;
        migrated.map_err(|error| catalog.outdated(error))?;
        let owned = own(&mut db, catalog.owner).await;
        owned.map_err(|error| catalog.refused(error))?;
        catalog.writer.lock().await.replace(db);
        Ok(catalog)
    }

    /// A connection to an empty database, after it has been given the tables of an earlier version.
    #[cfg(test)]
    pub(super) async fn of_version(url: &str, version: usize) -> PgConnection {
        let mut db = PgConnection::connect(url).await.unwrap();
        let migrated = migrator(version).run_direct(None, &mut db, false).await;
        migrated.unwrap();
        db
    }

    /// Opens a database that is there, to read it as it is. Returns the version of its schema too.
    pub(super) async fn open_to_read(
        url: &Url,
        read_only: bool,
    ) -> Result<(Self, i64), CatalogError> {
        let catalog = Self::of(url, CONNECT, read_only)?;
        // Not from the pool, which only says that it waited.
        let look = async {
            let mut db = PgConnection::connect_with(&catalog.options).await?;
            let is_there = query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
            if !is_there.fetch_one(&mut db).await? {
                return Ok(None);
            }
            query_scalar("SELECT max(version) FROM _sqlx_migrations")
                .fetch_one(&mut db)
                .await
        };
        let newest: Option<i64> = within(CONNECT, look)
            .await
            .map_err(|error| catalog.refused(error))?;
        match newest {
            None => Err(CatalogError::Missing(catalog.shown)),
            Some(version) if version > Self::LATEST => {
                let ahead = MigrateError::VersionMissing(version);
                Err(catalog.outdated(ahead))
            }
            Some(version) => Ok((catalog, version)),
        }
    }

    fn of(url: &Url, patience: Duration, read_only: bool) -> Result<Self, CatalogError> {
        let mut options: PgConnectOptions =
            url.as_str()
                .parse()
                .map_err(|error: sqlx_core::Error| CatalogError::Open {
                    catalog: super::masked(url.as_str()),
                    source: error.into(),
                })?;
        let shown = format!(
            "postgres://{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username())
        );
        options = options
            .application_name(&format!("gannet, process {}", std::process::id()))
            .disable_statement_logging();
        if read_only {
            options = options.options([("default_transaction_read_only", "on")]);
        }
        let (connect_wait, lock_wait) = (attempt(patience, CONNECT), attempt(patience, LOCK_WAIT));
        let readers = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(connect_wait)
            // What it would log is no news: a call that waits for a connection says so itself, and a connection that is
            // gone is made again.
            .acquire_slow_threshold(Duration::MAX)
            .test_before_acquire(false)
            .before_acquire(|db, _| Box::pin(async { Ok(db.ping().await.is_ok()) }))
            .connect_lazy_with(options.clone());
        Ok(Self {
            options,
            shown,
            connect_wait,
            lock_wait,
            owner: Uuid::new_v4(),
            readers,
            writer: Mutex::new(None),
            news: watch::Sender::default(),
        })
    }

    /// Connects and takes the lock. `again`: it may still be held by our connection that was lost, or have been taken by
    /// another process in between, which has seen to what it took for ours to leave.
    async fn connect(&self, again: bool) -> Result<PgConnection, CatalogError> {
        let connect = async {
            let mut db = PgConnection::connect_with(&self.options).await?;
            // Otherwise it says of what is there already that it is not made again.
            let warnings = raw_sql("SET client_min_messages = warning");
            warnings.execute(&mut db).await?;
            let taken = if again {
                is_owner(&mut db, self.owner).await? && {
                    wait_for_lock(&mut db, self.lock_wait).await?;
                    is_owner(&mut db, self.owner).await?
                }
            } else {
                try_lock(&mut db).await?
            };
            Ok((db, taken))
        };
        let connected = within(self.connect_wait + self.lock_wait, connect).await;
        match connected.map_err(|error| self.refused(error))? {
            (db, true) => Ok(db),
            (_, false) => Err(CatalogError::Locked {
                catalog: self.shown.clone(),
            }),
        }
    }

    async fn begin(&self, action: &'static str) -> Result<Writing<'_>, CatalogError> {
        let mut slot = self.writer.lock().await;
        if self.readers.is_closed() {
            return Err(CatalogError::Closed);
        }
        let mut db = match slot.take() {
            Some(db) => db,
            None => self.connect(true).await?,
        };
        let begun = in_time(raw_sql("BEGIN").execute(&mut db)).await;
        begun.map_err(failed(action))?;
        Ok(Writing {
            action,
            slot,
            news: &self.news,
            db,
        })
    }

    fn refused(&self, error: sqlx_core::Error) -> CatalogError {
        CatalogError::Open {
            catalog: self.shown.clone(),
            source: error.into(),
        }
    }

    fn outdated(&self, error: MigrateError) -> CatalogError {
        match error {
            MigrateError::Execute(error) => self.refused(error),
            error => CatalogError::Migrate {
                catalog: self.shown.clone(),
                source: Box::new(error),
            },
        }
    }
}

/// Takes the lock for as long as the connection lives.
async fn wait_for_lock(db: &mut PgConnection, wait: Duration) -> Result<()> {
    let wait = format!("SET lock_timeout = {}", wait.as_millis());
    raw_sql(AssertSqlSafe(wait)).execute(&mut *db).await?;
    query("SELECT pg_advisory_lock($1, hashtext(coalesce(current_schema(), '')))")
        .bind(LOCK)
        .execute(&mut *db)
        .await?;
    raw_sql("RESET lock_timeout").execute(db).await.map(drop)
}

/// The same, if nobody has it. Returns whether it was free.
async fn try_lock(db: &mut PgConnection) -> Result<bool> {
    query_scalar("SELECT pg_try_advisory_lock($1, hashtext(coalesce(current_schema(), '')))")
        .bind(LOCK)
        .fetch_one(db)
        .await
}

/// Writes down that `owner` has taken the lock.
async fn own(db: &mut PgConnection, owner: Uuid) -> Result<()> {
    query("WITH earlier AS (DELETE FROM owner) INSERT INTO owner (id) VALUES ($1)")
        .bind(owner)
        .execute(db)
        .await
        .map(drop)
}

/// Whether `owner` was the last one that took it.
async fn is_owner(db: &mut PgConnection, owner: Uuid) -> Result<bool> {
    query_scalar("SELECT EXISTS (SELECT FROM owner WHERE id = $1)")
        .bind(owner)
        .fetch_one(db)
        .await
}

/// Whatever one call asks for is answered long before, unless the network swallows the answer.
async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    within(Duration::from_secs(300), work).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|late| Err(std::io::Error::from(late).into()))
}

fn failed(action: &'static str) -> impl FnOnce(sqlx_core::Error) -> CatalogError {
    move |error| match error {
        sqlx_core::Error::PoolClosed => CatalogError::Closed,
        error => CatalogError::query(action)(error),
    }
}

#[async_trait]
impl Catalog for Postgres {
    async fn known(&self, keys: Vec<TargetKey>) -> Result<HashMap<TargetKey, Known>, CatalogError> {
        let done = in_time(upkeep::known(&self.readers, &keys)).await;
        done.map_err(failed("look up URLs"))
    }

    async fn taken(&self, paths: Vec<String>) -> Result<HashSet<String>, CatalogError> {
        let done = in_time(upkeep::taken(&self.readers, &paths)).await;
        done.map_err(failed("look up names"))
    }

    async fn staged(&self, stages: Vec<Uuid>) -> Result<HashMap<Uuid, String>, CatalogError> {
        let done = in_time(upkeep::staged(&self.readers, &stages)).await;
        done.map_err(failed("look up staged files"))
    }

    async fn index_contents(&self, _: Among) -> Result<(), CatalogError> {
        // The indexes are there from the start.
        Ok(())
    }

    async fn with_content(
        &self,
        album: Option<String>,
        contents: Vec<Sha256>,
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError> {
        let done = in_time(upkeep::with_content(&self.readers, album, &contents)).await;
        done.map_err(failed("look up contents"))
    }

    async fn record(&self, batch: Arc<Batch>) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a batch").await?;
        let done = in_time(record::write(&mut tx.db, &batch)).await;
        tx.end(done).await
    }

    async fn begin_job(&self, job: &NewJob) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a job").await?;
        let done = in_time(history::begin(&mut tx.db, job)).await;
        tx.end(done).await
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>, CatalogError> {
        let done = in_time(history::schedules(&self.readers)).await;
        done.map_err(failed("list schedules"))
    }

    async fn save_schedule(&self, schedule: &ScheduleRow) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a schedule").await?;
        let done = in_time(history::save_schedule(&mut tx.db, schedule)).await;
        tx.end(done).await
    }

    async fn post_job(&self, post: Arc<Post>) -> Result<Posted, CatalogError> {
        let mut tx = self.begin("record a posted job").await?;
        let done = in_time(posted::post(&mut tx.db, &post)).await;
        tx.end(done).await
    }

    async fn posted_jobs(&self) -> Result<Vec<Uuid>, CatalogError> {
        let done = in_time(posted::unfinished(&self.readers)).await;
        done.map_err(failed("list posted jobs"))
    }

    async fn posted_job(&self, job: Uuid) -> Result<Option<PostedJob>, CatalogError> {
        let done = in_time(posted::job(&self.readers, job)).await;
        done.map_err(failed("look up a posted job"))
    }

    async fn part(
        &self,
        job: Uuid,
        number: u64,
    ) -> Result<Option<(String, HashSet<u64>)>, CatalogError> {
        let done = in_time(posted::part(&self.readers, job, number)).await;
        done.map_err(failed("read the targets of a job"))
    }

    async fn groups(
        &self,
        job: Uuid,
        state: Option<State>,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<GroupRow>, CatalogError> {
        let done = in_time(posted::groups(&self.readers, job, state, after, limit)).await;
        done.map_err(failed("list groups"))
    }

    async fn group_counts(&self, job: Uuid) -> Result<GroupCounts, CatalogError> {
        let done = in_time(posted::group_counts(&self.readers, job)).await;
        done.map_err(failed("count groups"))
    }

    async fn outcomes_since(
        &self,
        job: Uuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, OutcomeRow)>, CatalogError> {
        let done = in_time(history::outcomes_since(&self.readers, job, after, limit)).await;
        done.map_err(failed("list outcomes"))
    }

    async fn reasons(&self, job: Uuid) -> Result<BTreeMap<Reason, u64>, CatalogError> {
        let done = in_time(history::reasons(&self.readers, job)).await;
        done.map_err(failed("count reasons"))
    }

    async fn end_job(&self, end: &JobEnd) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a job's end").await?;
        let done = in_time(history::end(&mut tx.db, end)).await;
        tx.end(done).await
    }

    async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<u64, CatalogError> {
        let mut tx = self.begin("close interrupted jobs").await?;
        let done = in_time(history::abandon(&mut tx.db, now)).await;
        tx.end(done).await
    }

    async fn interrupted_job(
        &self,
        source: SourceId,
        now: DateTime<Utc>,
    ) -> Result<Option<JobRow>, CatalogError> {
        let done = in_time(history::interrupted(&self.readers, source, now)).await;
        done.map_err(failed("look up an interrupted job"))
    }

    async fn jobs(
        &self,
        state: Option<State>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        let done = in_time(history::jobs(&self.readers, state, before, limit)).await;
        done.map_err(failed("list jobs"))
    }

    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError> {
        let done = in_time(history::job(&self.readers, id)).await;
        done.map_err(failed("look up a job"))
    }

    async fn outcomes(
        &self,
        job: Uuid,
        filter: OutcomeFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutcomeRow>, CatalogError> {
        let done = in_time(history::outcomes(&self.readers, job, filter, after, limit)).await;
        done.map_err(failed("list outcomes"))
    }

    async fn delete_jobs_before(
        &self,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        let mut tx = self.begin("correct times").await?;
        let done = in_time(history::redate(&mut tx.db, now)).await;
        tx.end(done).await?;
        let mut deleted = 0;
        loop {
            // Between two transactions others come to write.
            let mut tx = self.begin("delete old jobs").await?;
            let done = in_time(history::delete_some(&mut tx.db, time)).await;
            match tx.end(done).await? {
                Some(jobs) => deleted += jobs,
                None => return Ok(deleted),
            }
        }
    }

    async fn listed_count(&self, source: SourceId) -> Result<u64, CatalogError> {
        let done = in_time(upkeep::listed_count(&self.readers, source)).await;
        done.map_err(failed("count a source's URLs"))
    }

    async fn gone(&self, source: SourceId, job: Uuid) -> Result<u64, CatalogError> {
        let done = in_time(upkeep::gone(&self.readers, source, job)).await;
        done.map_err(failed("count a source's URLs"))
    }

    async fn mark_gone(
        &self,
        source: SourceId,
        job: Uuid,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        let mut tx = self.begin("mark URLs as gone").await?;
        let done = in_time(upkeep::mark_gone(&mut tx.db, source, job, now)).await;
        tx.end(done).await
    }

    async fn prunable(
        &self,
        source: SourceId,
        before: DateTime<Utc>,
        after: Option<TargetKey>,
        limit: u32,
    ) -> Result<Vec<(TargetKey, KnownFile)>, CatalogError> {
        let done = in_time(upkeep::prunable(
            &self.readers,
            source,
            before,
            after,
            limit,
        ))
        .await;
        done.map_err(failed("list what is gone"))
    }

    async fn unlist(&self, source: SourceId, keys: Vec<TargetKey>) -> Result<(), CatalogError> {
        let mut tx = self.begin("forget a source's URLs").await?;
        let done = in_time(upkeep::unlist(&mut tx.db, source, &keys)).await;
        tx.end(done).await
    }

    async fn delete_files(
        &self,
        ids: Vec<Uuid>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError> {
        let mut tx = self.begin("delete files").await?;
        let done = in_time(upkeep::delete_files(&mut tx.db, &ids, reason, now)).await;
        tx.end(done).await
    }

    async fn excess(
        &self,
        album: &str,
        limits: Limits,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        let is_ahead = in_time(upkeep::is_ahead(&self.readers, album, now)).await;
        if is_ahead.map_err(failed("look at times"))? {
            let mut tx = self.begin("correct times").await?;
            let done = in_time(upkeep::redate_files(&mut tx.db, album, now)).await;
            tx.end(done).await?;
        }
        let done = in_time(upkeep::excess(&self.readers, album, limits, now, limit)).await;
        done.map_err(failed("list files beyond the limits"))
    }

    async fn albums(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<AlbumRow>, CatalogError> {
        let done = in_time(upkeep::albums(&self.readers, after, limit)).await;
        done.map_err(failed("list albums"))
    }

    async fn has_album(&self, name: &str) -> Result<bool, CatalogError> {
        let done = in_time(change::has_album(&self.readers, name)).await;
        done.map_err(failed("look up an album"))
    }

    async fn album(&self, name: &str) -> Result<Option<AlbumRow>, CatalogError> {
        let done = in_time(upkeep::album(&self.readers, name)).await;
        done.map_err(failed("look up an album"))
    }

    async fn index_albums(&self) -> Result<(), CatalogError> {
        let mut tx = self.begin("index albums").await?;
        let done = in_time(upkeep::index_albums(&mut tx.db)).await;
        tx.end(done).await
    }

    async fn change(&self, changes: Arc<Changes>) -> Result<(), CatalogError> {
        let mut tx = self.begin("record changes").await?;
        let done = in_time(change::write(&mut tx.db, &changes)).await;
        tx.end(done).await
    }

    async fn renames(&self) -> Result<Vec<Rename>, CatalogError> {
        let done = in_time(change::renames(&self.readers)).await;
        done.map_err(failed("look up renamed albums"))
    }

    async fn files(&self, files: Vec<Uuid>) -> Result<Vec<ImageRow>, CatalogError> {
        let done = in_time(change::files(&self.readers, &files)).await;
        done.map_err(failed("look up files"))
    }

    async fn images(
        &self,
        album: &str,
        filter: ImageFilter,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        let done = in_time(change::images(&self.readers, album, &filter, after, limit)).await;
        done.map_err(failed("list an album"))
    }

    async fn image(&self, path: &str) -> Result<Option<ImageRow>, CatalogError> {
        let done = in_time(upkeep::image(&self.readers, path)).await;
        done.map_err(failed("look up a file"))
    }

    async fn look_up(
        &self,
        by: LookUp,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError> {
        let done = in_time(upkeep::look_up(&self.readers, &by, after, limit)).await;
        done.map_err(failed("look up files"))
    }

    async fn index_look_ups(&self) -> Result<(), CatalogError> {
        let mut tx = self.begin("index files").await?;
        let done = in_time(upkeep::index_look_ups(&mut tx.db)).await;
        tx.end(done).await
    }

    async fn files_after(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError> {
        let done = in_time(upkeep::files_after(&self.readers, after, limit)).await;
        done.map_err(failed("list files"))
    }

    async fn urls_of(&self, files: Vec<Uuid>) -> Result<Vec<UrlRow>, CatalogError> {
        let done = in_time(upkeep::urls_of(&self.readers, &files)).await;
        done.map_err(failed("look up the URLs of files"))
    }

    async fn urls_named(&self, urls: Vec<String>) -> Result<Vec<UrlName>, CatalogError> {
        let done = in_time(upkeep::urls_named(&self.readers, &urls)).await;
        done.map_err(failed("look up URLs"))
    }

    async fn outcomes_of(
        &self,
        urls: Vec<String>,
        limit: u32,
    ) -> Result<Vec<(Uuid, OutcomeRow)>, CatalogError> {
        let done = in_time(history::outcomes_of(&self.readers, &urls, limit)).await;
        done.map_err(failed("look up the outcomes of URLs"))
    }

    async fn unused(&self, files: Vec<Uuid>) -> Result<HashSet<Uuid>, CatalogError> {
        let done = in_time(upkeep::unused(&self.readers, &files)).await;
        done.map_err(failed("look up files without URLs"))
    }

    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        let done = in_time(outbox::events_after(&self.readers, after, limit)).await;
        done.map_err(failed("list events"))
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    async fn due_callbacks(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        let done = in_time(posted::due(&self.readers, now, limit)).await;
        done.map_err(failed("look up callbacks"))
    }

    async fn save_callback(&self, job: Uuid, callback: CallbackRow) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a callback").await?;
        let done = in_time(posted::save_callback(&mut tx.db, job, &callback)).await;
        tx.end(done).await
    }

    async fn receivers(&self) -> Result<Vec<ReceiverRow>, CatalogError> {
        let done = in_time(outbox::receivers(&self.readers)).await;
        done.map_err(failed("list receivers"))
    }

    async fn save_receiver(
        &self,
        name: &str,
        events: &Wants,
        now: DateTime<Utc>,
    ) -> Result<i64, CatalogError> {
        let mut tx = self.begin("record a receiver").await?;
        let done = in_time(outbox::save_receiver(&mut tx.db, name, events, now)).await;
        tx.end(done).await
    }

    async fn delete_receivers(&self, names: Vec<String>) -> Result<(), CatalogError> {
        let mut tx = self.begin("forget receivers").await?;
        let done = in_time(outbox::delete_receivers(&mut tx.db, &names)).await;
        tx.end(done).await
    }

    async fn acknowledge(&self, receiver: &str, position: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin("record a delivery").await?;
        let done = in_time(outbox::acknowledge(&mut tx.db, receiver, position)).await;
        tx.end(done).await
    }

    async fn bury(&self, letter: &DeadLetter, keep: u32) -> Result<(), CatalogError> {
        let mut tx = self.begin("keep a dead letter").await?;
        let done = in_time(outbox::bury(&mut tx.db, letter, keep)).await;
        tx.end(done).await
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, CatalogError> {
        let done = in_time(outbox::dead_letters(&self.readers)).await;
        done.map_err(failed("list dead letters"))
    }

    async fn drop_dead_letters(&self, letters: Vec<(String, i64)>) -> Result<u64, CatalogError> {
        // Without the writer's lock: a command drops them beside a daemon, which only adds some.
        let done = in_time(outbox::drop_dead_letters(&self.readers, &letters)).await;
        done.map_err(failed("drop dead letters"))
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, CatalogError> {
        let done = in_time(outbox::backlog(&self.readers)).await;
        done.map_err(failed("measure the outbox"))
    }

    async fn trim_events(
        &self,
        keep: u64,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<(u64, i64)>, CatalogError> {
        let is_ahead = in_time(outbox::is_ahead(&self.readers, now)).await;
        if is_ahead.map_err(failed("measure the outbox"))? {
            let mut tx = self.begin("correct times").await?;
            let done = in_time(outbox::redate(&mut tx.db, now)).await;
            tx.end(done).await?;
        }
        let excess = in_time(outbox::excess(&self.readers, keep, before)).await;
        let Some(last) = excess.map_err(failed("measure the outbox"))? else {
            return Ok(None);
        };
        let mut tx = self.begin("trim the outbox").await?;
        let done = in_time(outbox::trim(&mut tx.db, last)).await;
        tx.end(done.map(|dropped| Some((dropped, last)))).await
    }

    async fn rows(
        &self,
        table: &'static Table,
        after: Option<Row>,
        limit: u32,
    ) -> Result<Vec<Row>, CatalogError> {
        let done = in_time(tables::rows(&self.readers, table, after.as_ref(), limit)).await;
        done.map_err(failed("read a table"))
    }

    async fn load(&self, table: &'static Table, rows: Vec<Row>) -> Result<(), CatalogError> {
        let mut tx = self.begin("fill a table").await?;
        let done = in_time(tables::load(&mut tx.db, table, &rows)).await;
        tx.end(done).await
    }

    async fn status(&self) -> Result<Status, CatalogError> {
        let done = in_time(tables::status(
            &self.readers,
            self.shown.clone(),
            Self::LATEST,
        ))
        .await;
        done.map_err(failed("measure tables"))
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(mut db) = self.writer.lock().await.take() {
            // The server ends a connection in its own time, which the next process need not wait for.
            let unlock = raw_sql("SELECT pg_advisory_unlock_all()");
            let _ = within(Duration::from_secs(1), unlock.execute(&mut db)).await;
            // What cannot be told any more, the end of the connection tells.
            let _ = db.close().await;
        }
    }
}
