//! Writing what became of targets: one transaction and a handful of statements for a batch.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_postgres::PgConnection;
use uuid::Uuid;

use super::super::posted::GroupSums;
use super::super::record::Sums;
use super::super::{Batch, FileRow, Recheck, Record, integer, millis, unsigned};
use super::Result;
use super::outbox;
use super::rows::text;
use crate::target::{AlbumName, Counts, Reason};

/// Writes `batch` inside the transaction that `db` is in.
pub(super) async fn write(db: &mut PgConnection, batch: &Batch) -> Result<()> {
    let new = query(
        "INSERT INTO writers (id, batch) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET batch = excluded.batch WHERE writers.batch <> excluded.batch",
    )
    .bind(batch.writer)
    .bind(batch.id)
    .execute(&mut *db)
    .await?;
    if new.rows_affected() == 0 {
        return Ok(());
    }
    let (records, now) = (batch.records.as_slice(), millis(batch.now));
    let albums = write_albums(db, records, now).await?;
    let files = records.iter().filter_map(|record| record.new_file.as_ref());
    for files in rounds(files, |file| file.id) {
        write_files(db, &files, now).await?;
    }
    share_files(db, records).await?;
    let rechecks = records.iter().filter_map(|record| record.recheck.as_ref());
    write_rechecks(db, &rechecks.collect::<Vec<_>>()).await?;
    let with_key = records.iter().filter(|record| record.key.is_some());
    for records in rounds(with_key, |record| record.key) {
        write_urls(db, &records, now).await?;
    }
    let with_list = records.iter().filter(|record| record.listed.is_some());
    for records in rounds(with_list, |record| (record.listed, record.key)) {
        write_listed(db, &records).await?;
    }
    let new = write_outcomes(db, records).await?;
    write_counts(db, &new, now).await?;
    write_groups(db, &new).await?;
    outbox::write_files(db, &albums, &new, now).await
}

/// Divides rows so that no statement has a key twice, which PostgreSQL refuses to update. Nearly always that is one
/// round.
fn rounds<'a, T, K: Hash + Eq>(
    rows: impl Iterator<Item = &'a T>,
    key: impl Fn(&T) -> K,
) -> Vec<Vec<&'a T>> {
    let mut times: HashMap<K, usize> = HashMap::new();
    let mut rounds: Vec<Vec<&T>> = Vec::new();
    for row in rows {
        let time = times.entry(key(row)).or_default();
        match rounds.get_mut(*time) {
            Some(round) => round.push(row),
            None => rounds.push(vec![row]),
        }
        *time += 1;
    }
    rounds
}

/// One column of many rows.
fn column<'a, R, T>(rows: &[&'a R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().copied().map(value).collect()
}

/// Returns those that were made, each with the job that did.
async fn write_albums(
    db: &mut PgConnection,
    records: &[Record],
    now: i64,
) -> Result<Vec<(String, Uuid)>> {
    let albums: HashMap<&str, Uuid> = records
        .iter()
        .filter_map(|record| {
            let file = record.new_file.as_ref().filter(|file| file.is_new())?;
            Some((file.album.as_ref()?.as_str(), record.job))
        })
        .collect();
    if albums.is_empty() {
        return Ok(Vec::new());
    }
    let made: Vec<String> = query_scalar(
        "INSERT INTO albums (name, created) SELECT name, $2 FROM UNNEST($1::text[]) AS new (name) \
         ON CONFLICT DO NOTHING RETURNING name",
    )
    .bind(albums.keys().copied().collect::<Vec<_>>())
    .bind(now)
    .fetch_all(db)
    .await?;
    let with_job = |name: String| Some((albums.get(name.as_str()).copied()?, name));
    let made = made.into_iter().filter_map(with_job);
    Ok(made.map(|(job, name)| (name, job)).collect())
}

/// Writes what is known of files, in place of what was.
pub(super) async fn write_files(db: &mut PgConnection, files: &[&FileRow], now: i64) -> Result<()> {
    query(
        "INSERT INTO files (id, stage, path, album, format, media_type, bytes, sha256, width, height, \
         active, name_from, metadata, mtime_ns, criteria, header_name, line, grp, last_modified, \
         orientation, undecoded, stored) \
         SELECT *, $22 FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], \
         $7::bigint[], $8::bytea[], $9::bigint[], $10::bigint[], $11::boolean[], $12::text[], $13::text[], \
         $14::bigint[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::bigint[], \
         $20::bigint[], $21::text[]) \
         ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, format = excluded.format, \
         media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, \
         width = excluded.width, height = excluded.height, active = excluded.active, \
         metadata = COALESCE(excluded.metadata, files.metadata), stored = excluded.stored, mtime_ns = excluded.mtime_ns, \
         criteria = excluded.criteria, header_name = excluded.header_name, line = excluded.line, \
         grp = excluded.grp, last_modified = excluded.last_modified, \
         orientation = excluded.orientation, undecoded = excluded.undecoded",
    )
    .bind(column(files, |row| row.id))
    .bind(column(files, |row| row.stage))
    .bind(column(files, |row| row.path.as_str()))
    .bind(column(files, |row| {
        row.album.as_ref().map_or("", AlbumName::as_str)
    }))
    .bind(column(files, |row| row.format))
    .bind(column(files, |row| row.media_type))
    .bind(column(files, |row| integer(row.bytes)))
    .bind(column(files, |row| &row.sha256.0[..]))
    .bind(column(files, |row| row.dimensions.map(|(w, _)| i64::from(w))))
    .bind(column(files, |row| row.dimensions.map(|(_, h)| i64::from(h))))
    .bind(column(files, |row| row.active))
    .bind(column(files, |row| row.name_from.as_str()))
    .bind(column(files, |row| row.metadata.as_deref().map(text)))
    .bind(column(files, |row| row.mtime_ns))
    .bind(column(files, |row| row.criteria.as_deref()))
    .bind(column(files, |row| row.header_name.as_deref().map(text)))
    .bind(column(files, |row| row.line.map(integer)))
    .bind(column(files, |row| row.group.as_deref().map(text)))
    .bind(column(files, |row| row.last_modified.map(millis)))
    .bind(column(files, |row| row.orientation.map(i64::from)))
    .bind(column(files, |row| row.undecoded.as_deref().map(text)))
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}

/// Writes the facts from repeated inspections of kept files, except for files whose bytes have changed since.
async fn write_rechecks(db: &mut PgConnection, rechecks: &[&Recheck]) -> Result<()> {
    if rechecks.is_empty() {
        return Ok(());
    }
    query(
        "UPDATE files SET format = new.format, media_type = new.media_type, width = new.width, \
         height = new.height, active = new.active, criteria = new.criteria, \
         orientation = new.orientation, undecoded = new.undecoded \
         FROM UNNEST($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[], \
         $8::text[], $9::bigint[], $10::text[]) \
         AS new (id, sha256, format, media_type, width, height, active, criteria, orientation, undecoded) \
         WHERE files.id = new.id AND files.sha256 = new.sha256",
    )
    .bind(column(rechecks, |r| r.file))
    .bind(column(rechecks, |r| &r.sha256.0[..]))
    .bind(column(rechecks, |r| text(&r.format)))
    .bind(column(rechecks, |r| text(&r.media_type)))
    .bind(column(rechecks, |r| r.dimensions.map(|(w, _)| i64::from(w))))
    .bind(column(rechecks, |r| r.dimensions.map(|(_, h)| i64::from(h))))
    .bind(column(rechecks, |r| r.active))
    .bind(column(rechecks, |r| r.criteria.as_deref().map(text)))
    .bind(column(rechecks, |r| r.orientation.map(i64::from)))
    .bind(column(rechecks, |r| r.undecoded.as_deref().map(text)))
    .execute(db)
    .await
    .map(drop)
}

async fn share_files(db: &mut PgConnection, records: &[Record]) -> Result<()> {
    let seconds = records.iter().filter(|record| record.is_second());
    let shared: Vec<Uuid> = seconds.filter_map(|record| record.file).collect();
    if shared.is_empty() {
        return Ok(());
    }
    query("UPDATE files SET shared = TRUE WHERE id = ANY($1) AND NOT shared")
        .bind(shared)
        .execute(db)
        .await
        .map(drop)
}

async fn write_urls(db: &mut PgConnection, records: &[&Record], now: i64) -> Result<()> {
    // An answer replaces what earlier answers said; without one that stays. A file that was deleted since the URL was
    // looked up is none.
    query(
        "INSERT INTO urls AS u (key, url, album, name, file, etag, last_modified, fresh_until, checked, tried, \
         status, failures, outcome, reason, job, answered, failed_under, gone_until, seen) \
         SELECT new.key, new.url, new.album, new.name, f.id, new.etag, new.last_modified, new.fresh_until, \
         new.checked, new.tried, new.status, new.failures, new.outcome, new.reason, new.job, new.answered, new.failed_under, \
         new.gone_until, $19 \
         FROM UNNEST($1::bytea[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], \
         $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], \
         $14::text[], $15::uuid[], $16::text[], $17::bytea[], $18::bigint[]) \
         AS new (key, url, album, name, file, etag, last_modified, fresh_until, checked, tried, status, failures, \
         outcome, reason, job, answered, failed_under, gone_until) LEFT JOIN files f ON f.id = new.file \
         ON CONFLICT (key) DO UPDATE SET \
         file = COALESCE(excluded.file, u.file), \
         etag = CASE WHEN excluded.checked IS NULL THEN u.etag ELSE excluded.etag END, \
         last_modified = CASE WHEN excluded.checked IS NULL THEN u.last_modified ELSE excluded.last_modified END, \
         fresh_until = CASE WHEN excluded.checked IS NULL THEN u.fresh_until ELSE excluded.fresh_until END, \
         answered = CASE WHEN excluded.checked IS NULL THEN u.answered ELSE excluded.answered END, \
         checked = COALESCE(excluded.checked, u.checked), \
         tried = COALESCE(excluded.tried, u.tried), \
         seen = excluded.seen, \
         status = COALESCE(excluded.status, u.status), \
         failures = CASE WHEN excluded.outcome = 'skipped' THEN u.failures \
                         WHEN excluded.failures = 0 THEN 0 \
                         WHEN u.failed_under <> excluded.failed_under \
                         OR u.failed_under IS NOT NULL AND excluded.failed_under IS NULL THEN 1 \
                         ELSE u.failures + 1 END, \
         failed_under = CASE WHEN excluded.outcome = 'skipped' THEN u.failed_under ELSE excluded.failed_under END, \
         gone_until = CASE WHEN excluded.outcome = 'skipped' THEN u.gone_until ELSE excluded.gone_until END, \
         outcome = excluded.outcome, reason = excluded.reason, job = excluded.job",
    )
    .bind(column(records, |r| r.key.as_ref().map(|key| &key.0[..])))
    .bind(column(records, |r| text(&r.url)))
    .bind(column(records, Record::album))
    .bind(column(records, |r| r.name().map(text)))
    .bind(column(records, |r| r.file))
    .bind(column(records, |r| r.etag.as_deref().map(text)))
    .bind(column(records, |r| r.last_modified.as_deref().map(text)))
    .bind(column(records, |r| r.fresh_until.map(millis)))
    .bind(column(records, |r| r.checked.map(millis)))
    .bind(column(records, |r| r.was_tried().then_some(now)))
    .bind(column(records, |r| r.status.map(i64::from)))
    .bind(column(records, |r| i64::from(r.is_bad())))
    .bind(column(records, |r| r.outcome.as_str()))
    .bind(column(records, |r| r.reason.map(Reason::as_str)))
    .bind(column(records, |r| r.job))
    .bind(column(records, |r| r.answered().map(text)))
    .bind(column(records, |r| {
        r.failed_under.as_ref().map(|acceptance| &acceptance.0[..])
    }))
    .bind(column(records, |r| r.gone_until.map(millis)))
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}

async fn write_listed(db: &mut PgConnection, records: &[&Record]) -> Result<()> {
    query(
        "INSERT INTO listed (source, key, job) \
         SELECT * FROM UNNEST($1::bytea[], $2::bytea[], $3::uuid[]) AS new (source, key, job) \
         WHERE key IS NOT NULL \
         ON CONFLICT (source, key) DO UPDATE SET job = excluded.job, gone_since = NULL",
    )
    .bind(column(records, |r| {
        r.listed.as_ref().map(|source| &source.0[..])
    }))
    .bind(column(records, |r| r.key.as_ref().map(|key| &key.0[..])))
    .bind(column(records, |r| r.job))
    .execute(db)
    .await
    .map(drop)
}

/// Returns the records that the history did not have yet.
async fn write_outcomes<'a>(
    db: &mut PgConnection,
    records: &'a [Record],
) -> Result<Vec<&'a Record>> {
    let rows: Vec<&Record> = records.iter().filter(|r| r.has_row()).collect();
    if rows.is_empty() {
        return Ok(records.iter().collect());
    }
    let written = query(
        "INSERT INTO outcomes (job, seq, url, outcome, reason, detail, status, attempts, elapsed_ms, \
         final_url, file, line, grp, name, album, sha256, metadata, steps, nth) \
         SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], \
         $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::uuid[], $12::bigint[], $13::text[], \
         $14::text[], $15::text[], $16::bytea[], $17::text[], $18::text[], $19::bigint[]) ON CONFLICT DO NOTHING RETURNING job, seq",
    )
    .bind(column(&rows, |r| r.job))
    .bind(column(&rows, |r| integer(r.seq)))
    .bind(column(&rows, |r| text(&r.url)))
    .bind(column(&rows, |r| r.outcome.as_str()))
    .bind(column(&rows, |r| r.reason.map(Reason::as_str)))
    .bind(column(&rows, |r| r.detail.as_deref().map(text)))
    .bind(column(&rows, |r| r.status.map(i64::from)))
    .bind(column(&rows, |r| i64::from(r.attempts)))
    .bind(column(&rows, |r| r.elapsed_ms.map(integer)))
    .bind(column(&rows, |r| r.final_url.as_deref().map(text)))
    .bind(column(&rows, |r| r.file))
    .bind(column(&rows, |r| r.line.map(integer)))
    .bind(column(&rows, |r| r.group.as_deref().map(text)))
    .bind(column(&rows, |r| r.missed()?.name.as_deref().map(text)))
    .bind(column(&rows, |r| {
        r.missed()?.album.as_ref().map(AlbumName::as_str)
    }))
    .bind(column(&rows, |r| {
        r.missed()?.sha256.as_ref().map(|sha256| &sha256.0[..])
    }))
    .bind(column(&rows, |r| r.missed()?.metadata.as_deref().map(text)))
    .bind(column(&rows, |r| r.steps.as_deref().map(text)))
    .bind(column(&rows, |r| r.nth.map(integer)))
    .fetch_all(db)
    .await?;
    let mut written: HashSet<(Uuid, u64)> = written
        .iter()
        .map(|row| Ok((row.try_get("job")?, unsigned(row.try_get("seq")?))))
        .collect::<Result<_>>()?;
    let is_new = |r: &&Record| !r.has_row() || written.remove(&(r.job, r.seq));
    Ok(records.iter().filter(is_new).collect())
}

async fn write_groups(db: &mut PgConnection, records: &[&Record]) -> Result<()> {
    let sums = GroupSums::of(records);
    if sums.is_empty() {
        return Ok(());
    }
    query(
        "UPDATE groups SET done = groups.done + new.done, failures = groups.failures + new.failures, \
         error = COALESCE(groups.error, new.error) \
         FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) \
         AS new (job, number, done, failures, error) \
         WHERE groups.job = new.job AND groups.number = new.number",
    )
    .bind(sums.keys().map(|(job, _)| *job).collect::<Vec<_>>())
    .bind(sums.keys().map(|(_, number)| i64::from(*number)).collect::<Vec<_>>())
    .bind(sums.values().map(|sums| integer(sums.done)).collect::<Vec<_>>())
    .bind(sums.values().map(|sums| integer(sums.failures)).collect::<Vec<_>>())
    .bind(sums.values().map(|sums| sums.error.as_deref().map(text)).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(drop)
}

async fn write_counts(db: &mut PgConnection, records: &[&Record], now: i64) -> Result<()> {
    let sums = Sums::of(records);
    let sums: Vec<(&Uuid, &Sums)> = sums.iter().collect();
    let count = |count: fn(&Counts) -> u64| -> Vec<i64> {
        sums.iter()
            .map(|(_, sums)| integer(count(&sums.counts)))
            .collect()
    };
    query(
        "UPDATE jobs SET targets = jobs.targets + new.targets, stored = jobs.stored + new.stored, \
         changed = jobs.changed + new.changed, unchanged = jobs.unchanged + new.unchanged, \
         duplicate = jobs.duplicate + new.duplicate, rejected = jobs.rejected + new.rejected, \
         failed = jobs.failed + new.failed, skipped = jobs.skipped + new.skipped, \
         bytes = jobs.bytes + new.bytes, recorded = $11 \
         FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[]) \
         AS new (id, targets, stored, changed, unchanged, duplicate, rejected, failed, skipped, bytes) \
         WHERE jobs.id = new.id",
    )
    .bind(sums.iter().map(|(id, _)| **id).collect::<Vec<_>>())
    .bind(count(|counts| counts.targets))
    .bind(count(|counts| counts.stored))
    .bind(count(|counts| counts.changed))
    .bind(count(|counts| counts.unchanged))
    .bind(count(|counts| counts.duplicate))
    .bind(count(|counts| counts.rejected))
    .bind(count(|counts| counts.failed))
    .bind(count(|counts| counts.skipped))
    .bind(sums.iter().map(|(_, sums)| integer(sums.bytes)).collect::<Vec<_>>())
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}
