//! Writing what became of targets: one transaction for a batch.

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::posted::GroupSums;
use super::super::record::Sums;
use super::super::{Batch, FileRow, Record, integer, millis};
use super::outbox;
use crate::target::{AlbumName, Reason};

/// Writes `batch` inside the transaction that `db` is in.
pub(super) fn write(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let new = db
        .prepare_cached(
            "INSERT INTO writers (id, batch) VALUES (?, ?) \
             ON CONFLICT (id) DO UPDATE SET batch = excluded.batch WHERE batch <> excluded.batch",
        )?
        .execute((batch.writer, batch.id))?;
    if new == 0 {
        return Ok(());
    }
    let (records, now) = (batch.records.as_slice(), millis(batch.now));
    let albums = write_files(db, records, now)?;
    write_rechecks(db, records)?;
    write_urls(db, records, now)?;
    write_listed(db, records)?;
    let new = write_outcomes(db, records)?;
    write_counts(db, &new, now)?;
    write_groups(db, &new)?;
    outbox::write_files(db, &albums, &new, now)
}

/// Returns the albums that were made for them, each with the job that did.
fn write_files(
    db: &Connection,
    records: &[Record],
    now: i64,
) -> rusqlite::Result<Vec<(String, Uuid)>> {
    let mut album = db.prepare_cached(
        "INSERT INTO albums (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
    )?;
    let mut share = db.prepare_cached("UPDATE files SET shared = 1 WHERE id = ? AND shared = 0")?;
    let mut made = Vec::new();
    let mut last_album = None;
    for record in records {
        let Some(row) = &record.new_file else {
            continue;
        };
        let album_name = row.album.as_ref().filter(|_| row.is_new());
        if let Some(name) = album_name.filter(|_| row.album != last_album) {
            if album.execute((name.as_str(), now))? > 0 {
                made.push((name.to_string(), record.job));
            }
            last_album.clone_from(&row.album);
        }
        write_file(db, row, now)?;
    }
    for record in records.iter().filter(|record| record.is_second()) {
        share.execute([record.file])?;
    }
    Ok(made)
}

/// Writes what is known of a file, in place of what was.
pub(super) fn write_file(db: &Connection, row: &FileRow, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO files (id, stage, path, album, format, media_type, bytes, sha256, width, height, \
         active, name_from, metadata, stored, mtime_ns, criteria, header_name, line, grp, last_modified, \
         orientation, undecoded) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, format = excluded.format, \
         media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, \
         width = excluded.width, height = excluded.height, active = excluded.active, \
         metadata = COALESCE(excluded.metadata, metadata), stored = excluded.stored, mtime_ns = excluded.mtime_ns, \
         criteria = excluded.criteria, header_name = excluded.header_name, line = excluded.line, \
         grp = excluded.grp, last_modified = excluded.last_modified, \
         orientation = excluded.orientation, undecoded = excluded.undecoded",
    )?
    .execute(params![
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
        row.mtime_ns,
        row.criteria,
        row.header_name,
        row.line.map(integer),
        row.group,
        row.last_modified.map(millis),
        row.orientation,
        row.undecoded,
    ])
    .map(drop)
}

/// Writes the facts from repeated inspections of kept files, except for files whose bytes have changed since.
fn write_rechecks(db: &Connection, records: &[Record]) -> rusqlite::Result<()> {
    let mut file = db.prepare_cached(
        "UPDATE files SET format = ?, media_type = ?, width = ?, height = ?, active = ?, criteria = ?, \
         orientation = ?, undecoded = ? WHERE id = ? AND sha256 = ?",
    )?;
    for recheck in records.iter().filter_map(|record| record.recheck.as_ref()) {
        file.execute(params![
            recheck.format,
            recheck.media_type,
            recheck.dimensions.map(|(width, _)| width),
            recheck.dimensions.map(|(_, height)| height),
            recheck.active,
            recheck.criteria,
            recheck.orientation,
            recheck.undecoded,
            recheck.file,
            recheck.sha256.0,
        ])?;
    }
    Ok(())
}

fn write_urls(db: &Connection, records: &[Record], now: i64) -> rusqlite::Result<()> {
    // An answer replaces what earlier answers said; without one that stays. A file that was deleted since the URL was
    // looked up is none.
    let mut url = db.prepare_cached(
        "INSERT INTO urls (key, url, album, name, file, etag, last_modified, fresh_until, checked, tried, seen, \
         status, failures, outcome, reason, job, answered, failed_under, gone_until) VALUES (?1, ?2, ?3, ?4, \
         CASE WHEN ?17 THEN ?5 ELSE (SELECT id FROM files WHERE id = ?5) END, \
         ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?18, ?19, ?20) \
         ON CONFLICT (key) DO UPDATE SET \
         file = COALESCE(excluded.file, file), \
         etag = CASE WHEN excluded.checked IS NULL THEN etag ELSE excluded.etag END, \
         last_modified = CASE WHEN excluded.checked IS NULL THEN last_modified ELSE excluded.last_modified END, \
         fresh_until = CASE WHEN excluded.checked IS NULL THEN fresh_until ELSE excluded.fresh_until END, \
         answered = CASE WHEN excluded.checked IS NULL THEN answered ELSE excluded.answered END, \
         checked = COALESCE(excluded.checked, checked), \
         tried = COALESCE(excluded.tried, tried), \
         seen = excluded.seen, \
         status = COALESCE(excluded.status, status), \
         failures = CASE WHEN excluded.outcome = 'skipped' THEN failures \
                         WHEN excluded.failures = 0 THEN 0 \
                         WHEN failed_under <> excluded.failed_under \
                         OR failed_under IS NOT NULL AND excluded.failed_under IS NULL THEN 1 \
                         ELSE failures + 1 END, \
         failed_under = CASE WHEN excluded.outcome = 'skipped' THEN failed_under ELSE excluded.failed_under END, \
         gone_until = CASE WHEN excluded.outcome = 'skipped' THEN gone_until ELSE excluded.gone_until END, \
         outcome = excluded.outcome, reason = excluded.reason, job = excluded.job",
    )?;
    for record in records {
        let Some(key) = record.key else { continue };
        url.execute(params![
            key.0,
            record.url,
            record.album(),
            record.name(),
            record.file,
            record.etag,
            record.last_modified,
            record.fresh_until.map(millis),
            record.checked.map(millis),
            record.was_tried().then_some(now),
            now,
            record.status,
            record.is_bad(),
            record.outcome.as_str(),
            record.reason.map(Reason::as_str),
            record.job,
            record.new_file.is_some(),
            record.answered(),
            record.failed_under.map(|acceptance| acceptance.0),
            record.gone_until.map(millis),
        ])?;
    }
    Ok(())
}

fn write_listed(db: &Connection, records: &[Record]) -> rusqlite::Result<()> {
    let mut listed = db.prepare_cached(
        "INSERT INTO listed (source, key, job) VALUES (?, ?, ?) \
         ON CONFLICT DO UPDATE SET job = excluded.job, gone_since = NULL",
    )?;
    for record in records {
        if let (Some(source), Some(key)) = (record.listed, record.key) {
            listed.execute((source.0, key.0, record.job))?;
        }
    }
    Ok(())
}

/// Returns the records that the history did not have yet.
fn write_outcomes<'a>(db: &Connection, records: &'a [Record]) -> rusqlite::Result<Vec<&'a Record>> {
    let mut outcome = db.prepare_cached(
        "INSERT INTO outcomes (job, seq, url, outcome, reason, detail, status, attempts, elapsed_ms, \
         final_url, file, line, grp, name, album, sha256, metadata, steps, nth) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    let mut new = Vec::with_capacity(records.len());
    for record in records {
        if !record.has_row() {
            new.push(record);
            continue;
        }
        let missed = record.missed();
        let count = outcome.execute(params![
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
            missed.and_then(|wanted| wanted.name.as_ref()),
            missed.and_then(|wanted| wanted.album.as_ref().map(AlbumName::as_str)),
            missed.and_then(|wanted| wanted.sha256.map(|sha256| sha256.0)),
            missed.and_then(|wanted| wanted.metadata.as_ref()),
            record.steps,
            record.nth.map(integer),
        ])?;
        if count > 0 {
            new.push(record);
        }
    }
    Ok(new)
}

fn write_groups(db: &Connection, records: &[&Record]) -> rusqlite::Result<()> {
    let mut group = db.prepare_cached(
        "UPDATE groups SET done = done + ?, failures = failures + ?, error = COALESCE(error, ?) \
         WHERE job = ? AND number = ?",
    )?;
    for ((job, number), sums) in GroupSums::of(records) {
        let (done, failures) = (integer(sums.done), integer(sums.failures));
        group.execute((done, failures, sums.error, job, number))?;
    }
    Ok(())
}

fn write_counts(db: &Connection, records: &[&Record], now: i64) -> rusqlite::Result<()> {
    let mut job = db.prepare_cached(
        "UPDATE jobs SET targets = targets + ?, stored = stored + ?, changed = changed + ?, \
         unchanged = unchanged + ?, duplicate = duplicate + ?, rejected = rejected + ?, \
         failed = failed + ?, skipped = skipped + ?, bytes = bytes + ?, recorded = ? WHERE id = ?",
    )?;
    for (id, Sums { counts, bytes }) in Sums::of(records) {
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
            now,
            id,
        ])?;
    }
    Ok(())
}
