//! The catalog in SQLite: one file, one writer, one reader beside it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior};
use rusqlite_migration::{M, MigrationDefinitionError, Migrations, SchemaVersion};
use uuid::Uuid;

use super::record::{self, Record};
use super::{CatalogError, Known, KnownFile, Settings, TargetKey, from_millis, millis};
use crate::naming::NameFrom;
use crate::target::{Sha256, State};

static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::new(vec![M::up(include_str!(
        "../../migrations/0001_catalog.sql"
    ))])
});

/// Columns of a [`KnownFile`], in the order in which [`known_file`] reads them.
const FILE_COLUMNS: &str = "f.id, f.path, f.format, f.media_type, f.bytes, f.sha256, f.width, f.height, \
                            f.active, f.name_from";

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);

/// Statements that a connection keeps compiled.
const STATEMENTS: usize = 32;

/// The catalog. Cheap to clone; every method does its work on a blocking thread.
#[derive(Debug, Clone)]
pub struct Catalog(Arc<Connections>);

/// In WAL mode a reader sees the last commit and never waits for the writer.
#[derive(Debug)]
struct Connections {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl Catalog {
    /// Opens the catalog of the store at `root`, makes it where it is missing, and brings its tables up
    /// to date.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or was written by a newer version.
    pub async fn open(settings: &Settings, root: &Path) -> Result<Self, CatalogError> {
        let path = Self::path(settings, root)?;
        blocking(move || {
            let refused = |source| CatalogError::Open {
                path: path.clone(),
                source,
            };
            let mut writer = connect(&path).map_err(refused)?;
            MIGRATIONS
                .to_latest(&mut writer)
                .map_err(|source| CatalogError::Migrate {
                    path: path.clone(),
                    source,
                })?;
            let reader = connect(&path).map_err(refused)?;
            Ok(Self(Arc::new(Connections {
                writer: Mutex::new(writer),
                reader: Mutex::new(reader),
            })))
        })
        .await
    }

    /// Opens a catalog that is there, to read it as it is: nothing is made, migrated or written.
    ///
    /// # Errors
    ///
    /// When there is none, it cannot be opened, or was written by a newer version.
    pub async fn open_to_read(settings: &Settings, root: &Path) -> Result<Self, CatalogError> {
        let path = Self::path(settings, root)?;
        blocking(move || {
            // Not even a reader can do without the log's index beside the file, so this is not read-only.
            let open = || {
                let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                db.busy_timeout(BUSY)?;
                db.pragma_update(None, "query_only", true)?;
                Ok(Mutex::new(db))
            };
            let connections = open().and_then(|writer| {
                Ok(Connections {
                    writer,
                    reader: open()?,
                })
            });
            let connections = connections.map_err(|source| CatalogError::Open {
                path: path.clone(),
                source,
            })?;
            let version = {
                let db = connections.reader.lock();
                MIGRATIONS.current_version(&db.unwrap_or_else(PoisonError::into_inner))
            };
            let source = match version {
                Ok(SchemaVersion::Outside(_)) => rusqlite_migration::Error::MigrationDefinition(
                    MigrationDefinitionError::DatabaseTooFarAhead,
                ),
                Ok(_) => return Ok(Self(Arc::new(connections))),
                Err(source) => source,
            };
            Err(CatalogError::Migrate { path, source })
        })
        .await
    }

    /// Where the database file of the store at `root` is.
    ///
    /// # Errors
    ///
    /// When the setting names something else than a file.
    pub fn path(settings: &Settings, root: &Path) -> Result<PathBuf, CatalogError> {
        match settings.url.strip_prefix("sqlite:") {
            None if settings.url.is_empty() => Ok(root.join(".gannet").join("catalog.db")),
            Some(path) if !path.trim_start_matches("//").is_empty() => {
                Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
            }
            _ => Err(CatalogError::UnsupportedUrl(masked(&settings.url))),
        }
    }

    /// What is known of each of `keys`; URLs that are not known are left out. Best in chunks of some
    /// hundreds.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn known(
        &self,
        keys: Vec<TargetKey>,
    ) -> Result<HashMap<TargetKey, Known>, CatalogError> {
        self.read("look up URLs", move |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {FILE_COLUMNS}, u.etag, u.last_modified, u.fresh_until, u.checked, u.job \
                 FROM urls u LEFT JOIN files f ON f.id = u.file WHERE u.key = ?"
            ))?;
            let mut found = HashMap::new();
            for key in keys {
                if let Some(known) = statement.query_row([key.0], known).optional()? {
                    found.insert(key, known);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Which of `paths` a recorded file has.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn taken(&self, paths: Vec<String>) -> Result<HashSet<String>, CatalogError> {
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

    /// Makes [`with_content`](Self::with_content) fast. Once made, the index costs every later job a little,
    /// so only jobs that drop duplicates ask for it.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn index_contents(&self) -> Result<(), CatalogError> {
        self.write("index contents", |db| {
            db.execute_batch("CREATE INDEX IF NOT EXISTS files_by_content ON files (album, sha256)")
        })
        .await
    }

    /// The files of `album` that have these contents, by content.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn with_content(
        &self,
        album: String,
        contents: Vec<Sha256>,
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError> {
        self.read("look up contents", move |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {FILE_COLUMNS} FROM files f WHERE f.album = ? AND f.sha256 = ? LIMIT 1"
            ))?;
            let mut found = HashMap::new();
            for content in contents {
                let file = statement
                    .query_row((&album, content.0), known_file)
                    .optional()?;
                if let Some(file) = file.flatten() {
                    found.insert(content, file);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Records what became of targets, all of them or none. Once it returns, they are durable.
    ///
    /// # Errors
    ///
    /// When the database fails; then nothing of `batch` is recorded.
    pub async fn record(&self, batch: Vec<Record>, now: DateTime<Utc>) -> Result<(), CatalogError> {
        self.write("record a batch", move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            record::write(&transaction, &batch, millis(now))?;
            transaction.commit()
        })
        .await
    }

    /// Where the files belong whose current bytes are these staged ones; the others belong nowhere.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn staged(&self, stages: Vec<Uuid>) -> Result<HashMap<Uuid, String>, CatalogError> {
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

    /// Writes down that a job has begun.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn begin_job(
        &self,
        id: Uuid,
        source: &str,
        kind: &str,
        album: &str,
        started: DateTime<Utc>,
    ) -> Result<(), CatalogError> {
        let (source, kind, album) = (source.to_owned(), kind.to_owned(), album.to_owned());
        self.write("record a job", move |db| {
            db.execute(
                "INSERT INTO jobs (id, source, kind, album, state, started) VALUES (?, ?, ?, ?, ?, ?)",
                (id, source, kind, album, State::Ongoing.as_str(), millis(started)),
            )
            .map(drop)
        })
        .await
    }

    /// Writes down how a job ended.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn end_job(
        &self,
        id: Uuid,
        state: State,
        repeats: u64,
        error: Option<&str>,
        finished: DateTime<Utc>,
    ) -> Result<(), CatalogError> {
        let error = error.map(str::to_owned);
        self.write("record a job's end", move |db| {
            db.execute(
                "UPDATE jobs SET state = ?, finished = ?, repeats = ?, error = ? WHERE id = ?",
                (
                    state.as_str(),
                    millis(finished),
                    record::integer(repeats),
                    error,
                    id,
                ),
            )
            .map(drop)
        })
        .await
    }

    /// Writes down that jobs which an earlier process left unfinished are over. Only the process that
    /// holds the store may ask for it. Returns how many there were.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<usize, CatalogError> {
        self.write("close interrupted jobs", move |db| {
            db.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ? WHERE state IN (?, ?)",
                (
                    State::Failed.as_str(),
                    millis(now),
                    "interrupted: the process ended before the job did",
                    State::Queued.as_str(),
                    State::Ongoing.as_str(),
                ),
            )
        })
        .await
    }

    /// Closes the database. What other clones still do is finished first.
    pub async fn close(self) {
        // Closing tidies the log up, which takes a while.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let connections = self.0.clone();
        blocking(move || {
            let db = connections
                .reader
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // One look at the database for all statements, and one lock on it.
            let read = || work(&*db.unchecked_transaction()?);
            read().map_err(CatalogError::query(action))
        })
        .await
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let connections = self.0.clone();
        blocking(move || {
            let mut db = connections
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            work(&mut db).map_err(CatalogError::query(action))
        })
        .await
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
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

/// Runs `work` on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(CatalogError::Worker))
}

/// Credentials have no place in an error.
fn masked(url: &str) -> String {
    url::Url::parse(url).map_or_else(
        |_| url.split(':').next().unwrap_or_default().to_owned() + ":…",
        |url| crate::target::SafeUrl::new(&url).to_string(),
    )
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|time| time.map(from_millis))
    };
    Ok(Known {
        file: known_file(row)?,
        etag: row.get(10)?,
        last_modified: row.get(11)?,
        fresh_until: time(12)?,
        checked: time(13)?,
        job: row.get(14)?,
    })
}

/// Reads the columns of [`FILE_COLUMNS`]; `None` when an outer join found no file.
fn known_file(row: &Row<'_>) -> rusqlite::Result<Option<KnownFile>> {
    let Some(id) = row.get::<_, Option<Uuid>>(0)? else {
        return Ok(None);
    };
    let dimensions: (Option<u32>, Option<u32>) = (row.get(6)?, row.get(7)?);
    let name_from = row.get_ref(9)?.as_str()?;
    Ok(Some(KnownFile {
        id,
        path: row.get(1)?,
        format: row.get(2)?,
        media_type: row.get(3)?,
        bytes: row.get(4).map(record::unsigned)?,
        sha256: Sha256(row.get(5)?),
        dimensions: dimensions.0.zip(dimensions.1),
        active: row.get(8)?,
        name_from: name_from.parse().unwrap_or(NameFrom::Random),
        is_present: true,
    }))
}
