//! Writing what became of targets: one transaction for a batch.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{TargetKey, millis};
use crate::naming::NameFrom;
use crate::target::{AlbumName, Counts, Outcome, Reason, Sha256};

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
    /// What the list wanted, where it could not be had.
    pub wanted: Option<Wanted>,
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

/// What a list wants of a target besides its URL.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The name.
    pub name: Option<String>,
    /// The album; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// The digest that the bytes must have.
    pub sha256: Option<Sha256>,
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
pub(super) fn write(db: &Connection, batch: &[Record], now: i64) -> rusqlite::Result<()> {
    write_files(db, batch, now)?;
    write_urls(db, batch)?;
    write_outcomes(db, batch)?;
    write_counts(db, batch)
}

fn write_files(db: &Connection, batch: &[Record], now: i64) -> rusqlite::Result<()> {
    let mut album = db.prepare_cached(
        "INSERT INTO albums (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
    )?;
    let mut file = db.prepare_cached(
        "INSERT INTO files (id, stage, path, album, format, media_type, bytes, sha256, width, height, \
         active, name_from, metadata, stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, format = excluded.format, \
         media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, \
         width = excluded.width, height = excluded.height, active = excluded.active, \
         metadata = excluded.metadata, stored = excluded.stored",
    )?;
    let mut last_album = None;
    for row in batch.iter().filter_map(|record| record.new_file.as_ref()) {
        if row.album.is_some() && row.album != last_album {
            album.execute((row.album.as_ref().map(AlbumName::as_str), now))?;
            last_album.clone_from(&row.album);
        }
        file.execute(params![
            row.id,
            row.stage,
            row.path,
            row.album.as_ref().map_or("", AlbumName::as_str),
            row.format,
            row.media_type,
            integer(row.bytes),
            row.sha256.0,
            row.dimensions.map(|(width, _)| width),
            row.dimensions.map(|(_, height)| height),
            row.active,
            row.name_from.as_str(),
            row.metadata,
            now,
        ])?;
    }
    Ok(())
}

fn write_urls(db: &Connection, batch: &[Record]) -> rusqlite::Result<()> {
    // An answer replaces what earlier answers said; without one that stays.
    let mut url = db.prepare_cached(
        "INSERT INTO urls (key, url, file, etag, last_modified, fresh_until, checked, failures, outcome, \
         reason, job) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (key) DO UPDATE SET \
         file = COALESCE(excluded.file, file), \
         etag = CASE WHEN excluded.checked IS NULL THEN etag ELSE excluded.etag END, \
         last_modified = CASE WHEN excluded.checked IS NULL THEN last_modified ELSE excluded.last_modified END, \
         fresh_until = CASE WHEN excluded.checked IS NULL THEN fresh_until ELSE excluded.fresh_until END, \
         checked = COALESCE(excluded.checked, checked), \
         failures = CASE WHEN excluded.outcome = 'skipped' THEN failures \
                         WHEN excluded.failures > 0 THEN failures + 1 ELSE 0 END, \
         outcome = excluded.outcome, reason = excluded.reason, job = excluded.job",
    )?;
    for record in batch {
        let Some(key) = record.key else { continue };
        let bad = matches!(record.outcome, Outcome::Rejected | Outcome::Failed);
        url.execute(params![
            key.0,
            record.url,
            record.file,
            record.etag,
            record.last_modified,
            record.fresh_until.map(millis),
            record.checked.map(millis),
            bad,
            record.outcome.as_str(),
            record.reason.map(Reason::as_str),
            record.job,
        ])?;
    }
    Ok(())
}

fn write_outcomes(db: &Connection, batch: &[Record]) -> rusqlite::Result<()> {
    // Recording is idempotent: the same record twice is one.
    let mut outcome = db.prepare_cached(
        "INSERT INTO outcomes (job, seq, url, outcome, reason, detail, status, attempts, elapsed_ms, \
         final_url, file, line, grp, name, album, sha256) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    // An unchanged target adds to the counters and leaves no row, so that history does not swell.
    for record in batch.iter().filter(|r| r.outcome != Outcome::Unchanged) {
        let wanted = record.wanted.as_ref();
        outcome.execute(params![
            record.job,
            integer(record.seq),
            record.url,
            record.outcome.as_str(),
            record.reason.map(Reason::as_str),
            record.detail,
            record.status,
            record.attempts,
            record.elapsed_ms.map(integer),
            record.final_url,
            record.file,
            record.line.map(integer),
            record.group,
            wanted.and_then(|wanted| wanted.name.as_ref()),
            wanted.and_then(|wanted| wanted.album.as_ref().map(AlbumName::as_str)),
            wanted.and_then(|wanted| wanted.sha256.map(|sha256| sha256.0)),
        ])?;
    }
    Ok(())
}

fn write_counts(db: &Connection, batch: &[Record]) -> rusqlite::Result<()> {
    let mut jobs: BTreeMap<Uuid, (Counts, u64)> = BTreeMap::new();
    for record in batch {
        let (counts, bytes) = jobs.entry(record.job).or_default();
        counts.add(record.outcome);
        *bytes += record.bytes;
    }
    let mut job = db.prepare_cached(
        "UPDATE jobs SET targets = targets + ?, stored = stored + ?, changed = changed + ?, \
         unchanged = unchanged + ?, duplicate = duplicate + ?, rejected = rejected + ?, \
         failed = failed + ?, skipped = skipped + ?, bytes = bytes + ? WHERE id = ?",
    )?;
    for (id, (counts, bytes)) in jobs {
        job.execute(params![
            integer(counts.targets),
            integer(counts.stored),
            integer(counts.changed),
            integer(counts.unchanged),
            integer(counts.duplicate),
            integer(counts.rejected),
            integer(counts.failed),
            integer(counts.skipped),
            integer(bytes),
            id,
        ])?;
    }
    Ok(())
}

/// SQLite's integers are signed; no counter of ours comes near the limit.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The way back; nothing negative was ever written.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
