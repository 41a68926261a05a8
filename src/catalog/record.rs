//! Writing what became of targets: one transaction for a batch.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{CatalogError, TargetKey, millis};
use crate::naming::NameFrom;
use crate::target::{AlbumName, Counts, Outcome, Reason, Sha256};

/// Rows of one `INSERT`. All full ones have one text, which SQLite parses once a connection; the text of a
/// shorter one is not kept, since a hundred of them would fill the connection's memory.
const ROWS: usize = 64;

/// What became of one target.
#[derive(Debug, Clone)]
pub struct Record {
    /// `None` for a line that is no URL: nothing is remembered of it but the outcome.
    pub key: Option<TargetKey>,
    /// The job.
    pub job: Uuid,
    /// Order within the job; no two records of a job share it.
    pub seq: u64,
    /// The URL without credentials, or the line.
    pub url: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was rejected, failed or skipped.
    pub reason: Option<Reason>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// Requests begun.
    pub attempts: u32,
    /// Milliseconds that it took.
    pub elapsed_ms: Option<u64>,
    /// Where redirects led, when elsewhere.
    pub final_url: Option<String>,
    /// Line in the list.
    pub line: Option<u64>,
    /// The group that the list puts it in.
    pub group: Option<String>,
    /// The file that the URL stands for: brought or confirmed in this job.
    pub file: Option<Uuid>,
    /// When the origin brought or confirmed it; `None` when it was not asked or did not.
    pub checked: Option<DateTime<Utc>>,
    /// Validators and freshness of that answer.
    pub etag: Option<String>,
    /// See [`etag`](Self::etag).
    pub last_modified: Option<String>,
    /// See [`etag`](Self::etag).
    pub fresh_until: Option<DateTime<Utc>>,
    /// Bytes that are kept because of it.
    pub bytes: u64,
    /// The file's record, when its bytes are new.
    pub new_file: Option<FileRow>,
}

/// A file to record, or to record anew after its bytes changed.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// The file; an id that is known already means that its bytes are replaced.
    pub id: Uuid,
    /// The staged file that holds the bytes.
    pub stage: Uuid,
    /// Where it is published, relative to the store's root.
    pub path: String,
    /// The album that it belongs to.
    pub album: Option<AlbumName>,
    /// gannet's word for the format.
    pub format: &'static str,
    /// Media type of the bytes.
    pub media_type: &'static str,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// Width and height in pixels.
    pub dimensions: Option<(u32, u32)>,
    /// Whether it may run code in a browser.
    pub active: bool,
    /// What gave it its name.
    pub name_from: NameFrom,
    /// The list's other columns, as a JSON object.
    pub metadata: Option<String>,
}

/// Writes `batch` inside the transaction that `db` is in.
pub(super) async fn write(
    db: &mut SqliteConnection,
    batch: &[Record],
    now: DateTime<Utc>,
) -> Result<(), CatalogError> {
    let now = millis(now);
    let files: Vec<&Record> = batch
        .iter()
        .filter(|record| record.new_file.is_some())
        .collect();
    for rows in files.chunks(ROWS) {
        write_files(db, rows, now).await?;
    }
    let urls: Vec<(&Record, TargetKey)> = batch
        .iter()
        .filter_map(|r| r.key.map(|key| (r, key)))
        .collect();
    for rows in urls.chunks(ROWS) {
        write_urls(db, rows).await?;
    }
    // An unchanged target adds to the counters and leaves no row, so that history does not swell.
    let told: Vec<&Record> = batch
        .iter()
        .filter(|r| r.outcome != Outcome::Unchanged)
        .collect();
    for rows in told.chunks(ROWS) {
        write_outcomes(db, rows).await?;
    }
    write_counts(db, batch).await
}

async fn write_files(
    db: &mut SqliteConnection,
    rows: &[&Record],
    now: i64,
) -> Result<(), CatalogError> {
    let albums: std::collections::BTreeSet<&AlbumName> = rows
        .iter()
        .filter_map(|r| r.new_file.as_ref()?.album.as_ref())
        .collect();
    for album in albums {
        sqlx::query("INSERT INTO albums (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(album.as_str())
            .bind(now)
            .execute(&mut *db)
            .await
            .map_err(CatalogError::query("record an album"))?;
    }
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO files (id, stage, path, album, format, media_type, bytes, sha256, width, height, \
         active, name_from, source_url, metadata, stored) ",
    );
    let count = rows.len();
    let rows = rows
        .iter()
        .filter_map(|record| Some((record, record.new_file.as_ref()?)));
    sql.push_values(rows, |mut row, (record, file)| {
        row.push_bind(file.id)
            .push_bind(file.stage)
            .push_bind(&file.path)
            .push_bind(file.album.as_ref().map_or("", AlbumName::as_str))
            .push_bind(file.format)
            .push_bind(file.media_type)
            .push_bind(integer(file.bytes))
            .push_bind(&file.sha256.0[..])
            .push_bind(file.dimensions.map(|(width, _)| width))
            .push_bind(file.dimensions.map(|(_, height)| height))
            .push_bind(file.active)
            .push_bind(file.name_from.as_str())
            .push_bind(&record.url)
            .push_bind(&file.metadata)
            .push_bind(now);
    });
    sql.push(
        " ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, format = excluded.format, \
         media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, \
         width = excluded.width, height = excluded.height, active = excluded.active, \
         source_url = excluded.source_url, metadata = excluded.metadata, stored = excluded.stored",
    );
    execute(db, sql, count == ROWS, "record files").await
}

async fn write_urls(
    db: &mut SqliteConnection,
    rows: &[(&Record, TargetKey)],
) -> Result<(), CatalogError> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO urls (key, url, file, etag, last_modified, fresh_until, checked, failures, outcome, \
         reason, job) ",
    );
    sql.push_values(rows, |mut row, (record, key)| {
        let bad = matches!(record.outcome, Outcome::Rejected | Outcome::Failed);
        row.push_bind(key.0.to_vec())
            .push_bind(&record.url)
            .push_bind(record.file)
            .push_bind(&record.etag)
            .push_bind(&record.last_modified)
            .push_bind(record.fresh_until.map(millis))
            .push_bind(record.checked.map(millis))
            .push_bind(i64::from(bad))
            .push_bind(record.outcome.as_str())
            .push_bind(record.reason.map(Reason::as_str))
            .push_bind(record.job);
    });
    // An answer replaces what earlier answers said; without one that stays.
    sql.push(
        " ON CONFLICT (key) DO UPDATE SET \
         file = COALESCE(excluded.file, file), \
         etag = CASE WHEN excluded.checked IS NULL THEN etag ELSE excluded.etag END, \
         last_modified = CASE WHEN excluded.checked IS NULL THEN last_modified ELSE excluded.last_modified END, \
         fresh_until = CASE WHEN excluded.checked IS NULL THEN fresh_until ELSE excluded.fresh_until END, \
         checked = COALESCE(excluded.checked, checked), \
         failures = CASE WHEN excluded.outcome = 'skipped' THEN failures \
                         WHEN excluded.failures > 0 THEN failures + 1 ELSE 0 END, \
         outcome = excluded.outcome, reason = excluded.reason, job = excluded.job",
    );
    execute(db, sql, rows.len() == ROWS, "record URLs").await
}

async fn write_outcomes(db: &mut SqliteConnection, rows: &[&Record]) -> Result<(), CatalogError> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO outcomes (job, seq, url, outcome, reason, detail, status, attempts, elapsed_ms, \
         final_url, file, line, grp) ",
    );
    sql.push_values(rows, |mut row, record| {
        row.push_bind(record.job)
            .push_bind(integer(record.seq))
            .push_bind(&record.url)
            .push_bind(record.outcome.as_str())
            .push_bind(record.reason.map(Reason::as_str))
            .push_bind(&record.detail)
            .push_bind(record.status)
            .push_bind(record.attempts)
            .push_bind(record.elapsed_ms.map(integer))
            .push_bind(&record.final_url)
            .push_bind(record.file)
            .push_bind(record.line.map(integer))
            .push_bind(&record.group);
    });
    // Recording is idempotent: the same record twice is one.
    sql.push(" ON CONFLICT DO NOTHING");
    execute(db, sql, rows.len() == ROWS, "record outcomes").await
}

async fn write_counts(db: &mut SqliteConnection, batch: &[Record]) -> Result<(), CatalogError> {
    let mut jobs: BTreeMap<Uuid, (Counts, u64)> = BTreeMap::new();
    for record in batch {
        let (counts, bytes) = jobs.entry(record.job).or_default();
        counts.add(record.outcome);
        *bytes += record.bytes;
    }
    for (job, (counts, bytes)) in jobs {
        let mut sql = QueryBuilder::<Sqlite>::new("UPDATE jobs SET targets = targets + ");
        sql.push_bind(integer(counts.targets));
        for outcome in Outcome::ALL {
            sql.push(format_args!(", {outcome} = {outcome} + "))
                .push_bind(integer(counts.get(outcome)));
        }
        sql.push(", bytes = bytes + ").push_bind(integer(bytes));
        sql.push(" WHERE id = ").push_bind(job);
        execute(db, sql, true, "record a job's counters").await?;
    }
    Ok(())
}

async fn execute(
    db: &mut SqliteConnection,
    mut sql: QueryBuilder<Sqlite>,
    keep: bool,
    action: &'static str,
) -> Result<(), CatalogError> {
    sql.build()
        .persistent(keep)
        .execute(db)
        .await
        .map(drop)
        .map_err(CatalogError::query(action))
}

/// SQLite's integers are signed; no counter of ours comes near the limit.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
