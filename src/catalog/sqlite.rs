//! The catalog in SQLite: one file, one writer, many readers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row as _, SqlitePool};
use uuid::Uuid;

use super::record::{self, Record};
use super::{CatalogError, Known, KnownFile, Settings, TargetKey, from_millis, millis};
use crate::naming::NameFrom;
use crate::target::{Sha256, State};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Columns of a [`KnownFile`], in the order in which [`known_file`] reads them.
const FILE_COLUMNS: &str = "f.id, f.path, f.format, f.media_type, f.bytes, f.sha256, f.width, f.height, \
                            f.active, f.name_from";

/// The catalog. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(super) pool: SqlitePool,
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
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Every commit survives a power cut; batches make that affordable.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30))
            .foreign_keys(false)
            .pragma("cache_size", "-4000")
            .pragma("temp_store", "memory");
        let pool = SqlitePoolOptions::new()
            .max_connections(3)
            .connect_with(options)
            .await
            .map_err(|source| CatalogError::Open {
                path: path.clone(),
                source,
            })?;
        MIGRATIONS
            .run(&pool)
            .await
            .map_err(|source| CatalogError::Migrate { path, source })?;
        Ok(Self { pool })
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
        keys: &[TargetKey],
    ) -> Result<HashMap<TargetKey, Known>, CatalogError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {FILE_COLUMNS}, u.key, u.etag, u.last_modified, u.fresh_until, u.checked, u.job \
             FROM json_each(?) k CROSS JOIN urls u ON u.key = unhex(k.value) \
             LEFT JOIN files f ON f.id = u.file"
        )))
        .bind(hex_array(keys.iter().map(|key| key.0.as_slice())))
        .fetch_all(&self.pool)
        .await
        .map_err(CatalogError::query("look up URLs"))?;
        rows.iter()
            .map(known)
            .collect::<Result<_, _>>()
            .map_err(CatalogError::query("read URLs"))
    }

    /// Which of `paths` a recorded file has.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn taken(&self, paths: &[&str]) -> Result<HashSet<String>, CatalogError> {
        let rows = sqlx::query_scalar(
            "SELECT f.path FROM json_each(?) p CROSS JOIN files f ON f.path = p.value",
        )
        .bind(serde_json::Value::from(paths.to_vec()).to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(CatalogError::query("look up names"))?;
        Ok(rows.into_iter().collect())
    }

    /// Makes [`with_content`](Self::with_content) fast. Once made, the index costs every later job a little,
    /// so only jobs that drop duplicates ask for it.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn index_contents(&self) -> Result<(), CatalogError> {
        sqlx::query("CREATE INDEX IF NOT EXISTS files_by_content ON files (album, sha256)")
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(CatalogError::query("index contents"))
    }

    /// The files of `album` that have these contents, by content.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn with_content(
        &self,
        album: &str,
        contents: &[Sha256],
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {FILE_COLUMNS} FROM json_each(?) s \
             CROSS JOIN files f ON f.album = ? AND f.sha256 = unhex(s.value)"
        )))
        .bind(hex_array(contents.iter().map(|sha256| sha256.0.as_slice())))
        .bind(album)
        .fetch_all(&self.pool)
        .await
        .map_err(CatalogError::query("look up contents"))?;
        rows.iter()
            .filter_map(|row| known_file(row).transpose())
            .map(|file| file.map(|file| (file.sha256, file)))
            .collect::<Result<_, _>>()
            .map_err(CatalogError::query("read files"))
    }

    /// Records what became of targets, all of them or none. Once it returns, they are durable.
    ///
    /// # Errors
    ///
    /// When the database fails; then nothing of `batch` is recorded.
    pub async fn record(&self, batch: &[Record], now: DateTime<Utc>) -> Result<(), CatalogError> {
        let mut transaction = self
            .pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(CatalogError::query("begin a transaction"))?;
        record::write(&mut transaction, batch, now).await?;
        transaction
            .commit()
            .await
            .map_err(CatalogError::query("commit a transaction"))
    }

    /// Where the files are to be published whose current bytes are staged as `stages`; stages that no
    /// file names are left out.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn staged(&self, stages: &[Uuid]) -> Result<HashMap<Uuid, String>, CatalogError> {
        let rows: Vec<(Uuid, String)> = sqlx::query_as(
            "WITH s AS (SELECT unhex(value) AS stage FROM json_each(?)) \
             SELECT f.stage, f.path FROM s CROSS JOIN files f ON f.id = s.stage AND f.stage = f.id \
             UNION ALL \
             SELECT f.stage, f.path FROM s CROSS JOIN files f ON f.stage = s.stage AND f.stage <> f.id",
        )
        .bind(hex_array(stages.iter().map(|stage| stage.as_bytes().as_slice())))
        .fetch_all(&self.pool)
        .await
        .map_err(CatalogError::query("look up staged files"))?;
        Ok(rows.into_iter().collect())
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
        sqlx::query(
            "INSERT INTO jobs (id, source, kind, album, state, started) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(source)
        .bind(kind)
        .bind(album)
        .bind(State::Ongoing.as_str())
        .bind(millis(started))
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(CatalogError::query("record a job"))
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
        sqlx::query("UPDATE jobs SET state = ?, finished = ?, repeats = ?, error = ? WHERE id = ?")
            .bind(state.as_str())
            .bind(millis(finished))
            .bind(record::integer(repeats))
            .bind(error)
            .bind(id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(CatalogError::query("record a job's end"))
    }

    /// Writes down that jobs which an earlier process left unfinished are over. Only the process that
    /// holds the store may ask for it. Returns how many there were.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<u64, CatalogError> {
        sqlx::query("UPDATE jobs SET state = ?, finished = ?, error = ? WHERE state IN (?, ?)")
            .bind(State::Failed.as_str())
            .bind(millis(now))
            .bind("interrupted: the process ended before the job did")
            .bind(State::Queued.as_str())
            .bind(State::Ongoing.as_str())
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(CatalogError::query("close interrupted jobs"))
    }

    /// Closes the database once running queries have ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Credentials have no place in an error.
fn masked(url: &str) -> String {
    url::Url::parse(url).map_or_else(
        |_| url.to_owned(),
        |url| crate::target::SafeUrl::new(&url).to_string(),
    )
}

fn hex_array<'a>(values: impl Iterator<Item = &'a [u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut json = String::from("[");
    for value in values {
        json.push_str(if json.len() > 1 { ",\"" } else { "\"" });
        for byte in value {
            json.push(char::from(DIGITS[usize::from(byte >> 4)]));
            json.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        json.push('"');
    }
    json.push(']');
    json
}

fn known(row: &SqliteRow) -> Result<(TargetKey, Known), sqlx::Error> {
    let key: &[u8] = row.try_get("key")?;
    let key = TargetKey(
        key.try_into()
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
    );
    let time = |column| {
        row.try_get::<Option<i64>, _>(column)
            .map(|time| time.map(from_millis))
    };
    let known = Known {
        job: row.try_get("job")?,
        file: known_file(row)?,
        etag: row.try_get("etag")?,
        last_modified: row.try_get("last_modified")?,
        fresh_until: time("fresh_until")?,
        checked: time("checked")?,
    };
    Ok((key, known))
}

/// Reads the columns of [`FILE_COLUMNS`]; `None` when an outer join found no file.
fn known_file(row: &SqliteRow) -> Result<Option<KnownFile>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<Uuid>, _>(0)? else {
        return Ok(None);
    };
    let sha256: &[u8] = row.try_get(5)?;
    let dimensions: (Option<u32>, Option<u32>) = (row.try_get(6)?, row.try_get(7)?);
    let name_from: &str = row.try_get(9)?;
    Ok(Some(KnownFile {
        id,
        path: row.try_get(1)?,
        format: row.try_get(2)?,
        media_type: row.try_get(3)?,
        bytes: u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0),
        sha256: Sha256(
            sha256
                .try_into()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        ),
        dimensions: dimensions.0.zip(dimensions.1),
        active: row.try_get(8)?,
        name_from: name_from.parse().unwrap_or(NameFrom::Random),
        is_present: true,
    }))
}
