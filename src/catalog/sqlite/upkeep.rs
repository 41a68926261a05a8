//! What sources list, what albums may hold, and what goes.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use uuid::Uuid;

use super::super::history::last_id;
use super::super::{
    AlbumRow, Event, ImageRow, KnownFile, Limits, LookUp, SourceId, TargetKey, UrlName, UrlRow,
    integer, millis, unsigned,
};
use super::outbox::write_event;
use super::rows;
use crate::clock::latest_believable;

pub(super) fn listed_count(db: &Connection, source: SourceId) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT count(*) FROM listed WHERE source = ? AND gone_since IS NULL")?
        .query_row([source.0], |row| row.get(0).map(unsigned))
}

pub(super) fn gone(db: &Connection, source: SourceId, job: Uuid) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "SELECT count(*) FROM listed WHERE source = ? AND gone_since IS NULL AND job <> ?",
    )?
    .query_row((source.0, job), |row| row.get(0).map(unsigned))
}

pub(super) fn mark_gone(
    db: &Connection,
    source: SourceId,
    job: Uuid,
    now: DateTime<Utc>,
) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "UPDATE listed SET gone_since = ?1 WHERE source = ?2 AND job <> ?3 \
         AND (gone_since IS NULL OR gone_since > ?4)",
    )?
    .execute((millis(now), source.0, job, millis(latest_believable(now))))
    .map(|count| count as u64)
}

/// Only what deletes files has to find their URLs, and the sources that list those, so no other job pays for these
/// indexes.
pub(super) fn index_urls(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE INDEX IF NOT EXISTS urls_by_file ON urls (file); \
         CREATE INDEX IF NOT EXISTS listed_by_key ON listed (key)",
    )
}

/// Selects files whose URLs have been gone since before `before`. A URL that was seen after it was gone is skipped,
/// unless the job that saw it last is also the last that found it in this source: then it was seen before it was
/// gone.
pub(super) fn prunable(
    db: &Connection,
    source: SourceId,
    before: DateTime<Utc>,
    after: Option<TargetKey>,
    limit: u32,
) -> rusqlite::Result<Vec<(TargetKey, KnownFile)>> {
    db.prepare_cached(&format!(
        "SELECT {}, l.key FROM listed l JOIN urls u ON u.key = l.key JOIN files f ON f.id = u.file \
         WHERE l.source = ?1 AND l.key > ?3 AND l.gone_since < ?2 \
         AND (u.seen <= l.gone_since OR u.job = l.job) \
         AND NOT EXISTS (SELECT 1 FROM urls o LEFT JOIN listed m ON m.source = ?1 AND m.key = o.key \
         WHERE o.file = f.id AND (m.gone_since IS NULL OR m.gone_since >= ?2 \
         OR o.seen > m.gone_since AND o.job <> m.job \
         OR EXISTS (SELECT 1 FROM listed e WHERE e.key = o.key AND e.source <> ?1 AND e.gone_since IS NULL))) \
         ORDER BY l.key LIMIT ?4",
        rows::FILE
    ))?
    .query_map(
        params![
            source.0,
            millis(before),
            after.map_or_else(Vec::new, |key| key.0.to_vec()),
            limit
        ],
        |row| Ok((TargetKey(row.get(rows::FILE_COLUMNS)?), rows::file(row)?)),
    )?
    .collect()
}

pub(super) fn unlist(
    db: &Connection,
    source: SourceId,
    keys: &[TargetKey],
) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM listed WHERE source = ? AND key = ?")?;
    for key in keys {
        delete.execute((source.0, key.0))?;
    }
    Ok(())
}

pub(super) fn delete_files(
    db: &Connection,
    ids: &[Uuid],
    reason: &str,
    now: DateTime<Utc>,
) -> rusqlite::Result<u64> {
    index_urls(db)?;
    let mut file = db.prepare_cached(&format!(
        "SELECT {}, {} FROM files f WHERE f.id = ?",
        rows::FILE,
        rows::IMAGE
    ))?;
    let mut delete = db.prepare_cached("DELETE FROM files WHERE id = ?")?;
    let mut forget = db.prepare_cached(
        "UPDATE urls SET file = NULL, etag = NULL, last_modified = NULL, fresh_until = NULL, checked = NULL, \
         answered = NULL \
         WHERE file = ?",
    )?;
    let mut count = 0;
    for id in ids {
        let Some(file) = file.query_row([id], rows::image).optional()? else {
            continue;
        };
        delete.execute([id])?;
        forget.execute([id])?;
        write_event(db, &Event::of_deleted(&file, reason), millis(now))?;
        count += 1;
    }
    Ok(count)
}

/// Returns `true` if files of the album were stored in the future. Most of the time there are none, and nothing to write.
pub(super) fn is_ahead(db: &Connection, album: &str, now: DateTime<Utc>) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM files WHERE album = ? AND stored > ?")?
        .exists((album, millis(latest_believable(now))))
}

/// Dates files stored in the future back to the start of the last job that began by `now`, so that they are older than
/// what it stores, or to `now` if there is none.
pub(super) fn redate_files(
    db: &Connection,
    album: &str,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE files SET stored = coalesce((SELECT started FROM jobs WHERE id <= ?1 AND started <= ?2 \
         ORDER BY id DESC LIMIT 1), ?2) WHERE album = ?3 AND stored > ?4",
    )?
    .execute((
        last_id(now),
        millis(now),
        album,
        millis(latest_believable(now)),
    ))
    .map(drop)
}

pub(super) fn excess(
    db: &Connection,
    album: &str,
    limits: Limits,
    now: DateTime<Utc>,
    limit: u32,
) -> rusqlite::Result<Vec<KnownFile>> {
    db.prepare_cached(&format!(
        "SELECT {} FROM (SELECT *, row_number() OVER newest AS place, sum(bytes) OVER newest AS total \
         FROM files WHERE album = ?1 \
         WINDOW newest AS (ORDER BY stored DESC, id DESC ROWS UNBOUNDED PRECEDING)) f \
         WHERE f.stored < ?2 OR f.place > ?3 OR f.total > ?4 ORDER BY f.stored, f.id LIMIT ?5",
        rows::FILE
    ))?
    .query_map(
        (
            album,
            limits.oldest(now),
            limits.max_files.map_or(i64::MAX, integer),
            limits.max_bytes.map_or(i64::MAX, integer),
            limit,
        ),
        rows::file,
    )?
    .collect()
}

/// Counts what the albums `a` hold.
fn select_albums(names: &str) -> String {
    format!(
        "SELECT a.name, count(f.id), coalesce(sum(f.bytes), 0), max(f.stored), a.metadata \
         FROM (SELECT * FROM (SELECT '' AS name, NULL AS metadata UNION ALL SELECT name, metadata FROM albums) {names}) a \
         LEFT JOIN files f ON f.album = a.name GROUP BY a.name ORDER BY a.name"
    )
}

pub(super) fn albums(
    db: &Connection,
    after: Option<String>,
    limit: u32,
) -> rusqlite::Result<Vec<AlbumRow>> {
    let page = select_albums("WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT ?2");
    db.prepare_cached(&page)?
        .query_map((after, limit), rows::album)?
        .collect()
}

pub(super) fn album(db: &Connection, name: &str) -> rusqlite::Result<Option<AlbumRow>> {
    db.prepare_cached(&select_albums("WHERE name = ?"))?
        .query_row([name], rows::album)
        .optional()
}

pub(super) fn index_albums(db: &Connection) -> rusqlite::Result<()> {
    index_urls(db)?;
    db.execute_batch("CREATE INDEX IF NOT EXISTS files_by_album ON files (album, path)")
}

pub(super) fn image(db: &Connection, path: &str) -> rusqlite::Result<Option<ImageRow>> {
    db.prepare_cached(&format!(
        "SELECT {}, {} FROM files f WHERE f.path = ?",
        rows::FILE,
        rows::IMAGE
    ))?
    .query_row([path], rows::image)
    .optional()
}

pub(super) fn index_look_ups(db: &Connection) -> rusqlite::Result<()> {
    index_urls(db)?;
    db.execute_batch(
        "CREATE INDEX IF NOT EXISTS urls_by_url ON urls (url); \
         CREATE INDEX IF NOT EXISTS files_by_sha256 ON files (sha256)",
    )
}

/// `+` keeps the order of paths from being what is searched by.
fn select_found(by: &LookUp) -> String {
    let condition = match by {
        LookUp::Url(_) => "f.id IN (SELECT u.file FROM urls u WHERE u.url = ?1)",
        LookUp::Sha256(_) => "f.sha256 = ?1",
        LookUp::Path(_) => "f.path = ?1",
    };
    format!(
        "SELECT {}, {} FROM files f WHERE {condition} AND +f.path > ?2 ORDER BY +f.path LIMIT ?3",
        rows::FILE,
        rows::IMAGE
    )
}

pub(super) fn look_up(
    db: &Connection,
    by: &LookUp,
    after: Option<String>,
    limit: u32,
) -> rusqlite::Result<Vec<ImageRow>> {
    let key: &dyn ToSql = match by {
        LookUp::Url(url) => url,
        LookUp::Sha256(sha256) => &sha256.0,
        LookUp::Path(path) => path,
    };
    // No path is empty.
    let after = after.unwrap_or_default();
    db.prepare_cached(&select_found(by))?
        .query_map(params![key, after, limit], rows::image)?
        .collect()
}

pub(super) fn files_after(
    db: &Connection,
    after: Option<String>,
    limit: u32,
) -> rusqlite::Result<Vec<KnownFile>> {
    // No path is empty.
    db.prepare_cached(&format!(
        "SELECT {} FROM files f WHERE f.path > ? ORDER BY f.path LIMIT ?",
        rows::FILE
    ))?
    .query_map((after.unwrap_or_default(), limit), rows::file)?
    .collect()
}

pub(super) fn urls_of(db: &Connection, files: &[Uuid]) -> rusqlite::Result<Vec<UrlRow>> {
    // One statement for all: without the index it reads all URLs.
    let places = vec!["?"; files.len()].join(", ");
    db.prepare(&format!(
        "SELECT file, key, url, album, name FROM urls WHERE file IN ({places}) ORDER BY file, key"
    ))?
    .query_map(rusqlite::params_from_iter(files), rows::url)?
    .collect()
}

pub(super) fn urls_named(db: &Connection, urls: &[String]) -> rusqlite::Result<Vec<UrlName>> {
    let places = vec!["?"; urls.len()].join(", ");
    db.prepare(&format!(
        "SELECT key, url, album, name FROM urls WHERE url IN ({places}) OR answered IN ({places}) \
         ORDER BY url, album, name"
    ))?
    .query_map(
        rusqlite::params_from_iter(urls.iter().chain(urls)),
        rows::url_name,
    )?
    .collect()
}

pub(super) fn unused(db: &Connection, files: &[Uuid]) -> rusqlite::Result<HashSet<Uuid>> {
    let mut url = db.prepare_cached("SELECT 1 FROM urls WHERE file = ?")?;
    let mut unused = HashSet::new();
    for file in files {
        if !url.exists([file])? {
            unused.insert(*file);
        }
    }
    Ok(unused)
}

#[cfg(test)]
mod tests {
    use super::super::MIGRATIONS;
    use super::*;
    use crate::target::Sha256;

    #[test]
    fn a_look_up_reads_no_whole_table() {
        let mut db = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut db).unwrap();
        index_look_ups(&db).unwrap();
        for by in [
            LookUp::Url(String::new()),
            LookUp::Sha256(Sha256::of(b"")),
            LookUp::Path(String::new()),
        ] {
            let plan = format!("EXPLAIN QUERY PLAN {}", select_found(&by));
            let mut plan = db.prepare(&plan).unwrap();
            let steps = plan.query_map([""; 3], |row| row.get::<_, String>(3));
            let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
            let scans = steps.iter().any(|step| step.contains("SCAN"));
            assert!(!scans, "{by:?}: {steps:?}");
        }
    }
}
