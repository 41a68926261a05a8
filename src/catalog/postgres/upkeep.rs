//! What is known of URLs and files, what sources list, what albums may hold, and what goes.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::history::last_id;
use super::super::{
    AlbumRow, Event, ImageRow, Known, KnownFile, Limits, LookUp, SourceId, TargetKey, UrlName,
    UrlRow, integer, millis, unsigned,
};
use super::Result;
use super::outbox::write_events;
use super::rows::{self, text};
use crate::clock::latest_believable;
use crate::target::Sha256;

pub(super) async fn known(db: &PgPool, keys: &[TargetKey]) -> Result<HashMap<TargetKey, Known>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT u.key, {}, u.etag, u.last_modified, u.fresh_until, u.checked, u.tried, u.status, u.failures, \
         u.outcome, u.reason, u.job, u.answered, u.failed_under, u.gone_until \
         FROM urls u LEFT JOIN files f ON f.id = u.file WHERE u.key = ANY($1)",
        rows::FILE
    )))
    .bind(bytes(keys))
    .fetch_all(db)
    .await?;
    found.iter().map(rows::known).collect()
}

pub(super) async fn taken(db: &PgPool, paths: &[String]) -> Result<HashSet<String>> {
    let taken: Vec<String> = query_scalar("SELECT path FROM files WHERE path = ANY($1)")
        .bind(paths)
        .fetch_all(db)
        .await?;
    Ok(taken.into_iter().collect())
}

pub(super) async fn staged(db: &PgPool, stages: &[Uuid]) -> Result<HashMap<Uuid, String>> {
    let found = query(
        "SELECT stage, path FROM files WHERE id = ANY($1) AND stage = id \
         UNION ALL SELECT stage, path FROM files WHERE stage = ANY($1) AND stage <> id",
    )
    .bind(stages)
    .fetch_all(db)
    .await?;
    found
        .iter()
        .map(|row| Ok((row.try_get("stage")?, row.try_get("path")?)))
        .collect()
}

pub(super) async fn with_content(
    db: &PgPool,
    album: Option<String>,
    contents: &[Sha256],
) -> Result<HashMap<Sha256, KnownFile>> {
    let contents: Vec<&[u8]> = contents.iter().map(|content| &content.0[..]).collect();
    let found = query(AssertSqlSafe(format!(
        "SELECT DISTINCT ON (f.sha256) {} FROM files f \
         WHERE f.sha256 = ANY($1) AND ($2::text IS NULL OR f.album = $2)",
        rows::FILE
    )))
    .bind(contents)
    .bind(album)
    .fetch_all(db)
    .await?;
    let file = |row| rows::file(row).map(|file| (file.sha256, file));
    found.iter().map(file).collect()
}

pub(super) async fn listed_count(db: &PgPool, source: SourceId) -> Result<u64> {
    query_scalar("SELECT count(*) FROM listed WHERE source = $1 AND gone_since IS NULL")
        .bind(&source.0[..])
        .fetch_one(db)
        .await
        .map(unsigned)
}

pub(super) async fn gone(db: &PgPool, source: SourceId, job: Uuid) -> Result<u64> {
    query_scalar(
        "SELECT count(*) FROM listed WHERE source = $1 AND gone_since IS NULL AND job <> $2",
    )
    .bind(&source.0[..])
    .bind(job)
    .fetch_one(db)
    .await
    .map(unsigned)
}

pub(super) async fn mark_gone(
    db: &mut PgConnection,
    source: SourceId,
    job: Uuid,
    now: DateTime<Utc>,
) -> Result<u64> {
    let marked = query(
        "UPDATE listed SET gone_since = $1 WHERE source = $2 AND job <> $3 \
         AND (gone_since IS NULL OR gone_since > $4)",
    )
    .bind(millis(now))
    .bind(&source.0[..])
    .bind(job)
    .bind(millis(latest_believable(now)))
    .execute(db)
    .await?;
    Ok(marked.rows_affected())
}

/// Selects files whose URLs have been gone since before `before`. A URL that was seen after it was gone is skipped,
/// unless the job that saw it last is also the last that found it in this source: then it was seen before it was
/// gone.
pub(super) async fn prunable(
    db: &PgPool,
    source: SourceId,
    before: DateTime<Utc>,
    after: Option<TargetKey>,
    limit: u32,
) -> Result<Vec<(TargetKey, KnownFile)>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT l.key, {} FROM listed l JOIN urls u ON u.key = l.key JOIN files f ON f.id = u.file \
         WHERE l.source = $1 AND l.key > $3 AND l.gone_since < $2 \
         AND (u.seen <= l.gone_since OR u.job = l.job) \
         AND NOT EXISTS (SELECT 1 FROM urls o LEFT JOIN listed m ON m.source = $1 AND m.key = o.key \
         WHERE o.file = f.id AND (m.gone_since IS NULL OR m.gone_since >= $2 \
         OR o.seen > m.gone_since AND o.job <> m.job \
         OR EXISTS (SELECT 1 FROM listed e WHERE e.key = o.key AND e.source <> $1 AND e.gone_since IS NULL))) \
         ORDER BY l.key LIMIT $4",
        rows::FILE
    )))
    .bind(&source.0[..])
    .bind(millis(before))
    .bind(after.map_or_else(Vec::new, |key| key.0.to_vec()))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    found
        .iter()
        .map(|row| Ok((rows::key(row)?, rows::file(row)?)))
        .collect()
}

pub(super) async fn unlist(
    db: &mut PgConnection,
    source: SourceId,
    keys: &[TargetKey],
) -> Result<()> {
    query("DELETE FROM listed WHERE source = $1 AND key = ANY($2)")
        .bind(&source.0[..])
        .bind(bytes(keys))
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn delete_files(
    db: &mut PgConnection,
    ids: &[Uuid],
    reason: &str,
    now: DateTime<Utc>,
) -> Result<u64> {
    let files = query(AssertSqlSafe(format!(
        "DELETE FROM files f WHERE f.id = ANY($1) RETURNING {}, {}",
        rows::FILE,
        rows::IMAGE
    )))
    .bind(ids)
    .fetch_all(&mut *db)
    .await?;
    query(
        "UPDATE urls SET file = NULL, etag = NULL, last_modified = NULL, fresh_until = NULL, checked = NULL, \
         answered = NULL \
         WHERE file = ANY($1)",
    )
    .bind(ids)
    .execute(&mut *db)
    .await?;
    let events: Vec<Event> = files
        .iter()
        .map(|row| Ok(Event::of_deleted(&rows::image(row)?, reason)))
        .collect::<Result<_>>()?;
    write_events(db, &events.iter().collect::<Vec<_>>(), millis(now)).await?;
    Ok(events.len() as u64)
}

/// Returns `true` if files of the album were stored in the future. Most of the time there are none, and nothing to write.
pub(super) async fn is_ahead(db: &PgPool, album: &str, now: DateTime<Utc>) -> Result<bool> {
    query_scalar("SELECT EXISTS (SELECT 1 FROM files WHERE album = $1 AND stored > $2)")
        .bind(album)
        .bind(millis(latest_believable(now)))
        .fetch_one(db)
        .await
}

/// Dates files stored in the future back to the start of the last job that began by `now`, so that they are older than
/// what it stores, or to `now` if there is none.
pub(super) async fn redate_files(
    db: &mut PgConnection,
    album: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    query(
        "UPDATE files SET stored = coalesce((SELECT started FROM jobs WHERE id <= $1 AND started <= $2 \
         ORDER BY id DESC LIMIT 1), $2) WHERE album = $3 AND stored > $4",
    )
    .bind(last_id(now))
    .bind(millis(now))
    .bind(album)
    .bind(millis(latest_believable(now)))
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn excess(
    db: &PgPool,
    album: &str,
    limits: Limits,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<KnownFile>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT {} FROM (SELECT *, row_number() OVER newest AS place, sum(bytes) OVER newest AS total \
         FROM files WHERE album = $1 \
         WINDOW newest AS (ORDER BY stored DESC, id DESC ROWS UNBOUNDED PRECEDING)) f \
         WHERE f.stored < $2 OR f.place > $3 OR f.total > $4 ORDER BY f.stored, f.id LIMIT $5",
        rows::FILE
    )))
    .bind(album)
    .bind(limits.oldest(now))
    .bind(limits.max_files.map_or(i64::MAX, integer))
    .bind(limits.max_bytes.map_or(i64::MAX, integer))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    found.iter().map(rows::file).collect()
}

/// Counts what the albums hold whose `names` are asked for.
fn select_albums(names: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT a.name, count(f.id) AS files, coalesce(sum(f.bytes), 0)::bigint AS bytes, \
         max(f.stored) AS newest, a.metadata \
         FROM (SELECT * FROM (SELECT '' COLLATE \"C\" AS name, NULL AS metadata UNION ALL \
         SELECT name, metadata FROM albums) n {names}) a \
         LEFT JOIN files f ON f.album = a.name GROUP BY a.name, a.metadata ORDER BY a.name"
    ))
}

pub(super) async fn albums(
    db: &PgPool,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<AlbumRow>> {
    let page = "WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2";
    let found = query(select_albums(page))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    found.iter().map(rows::album).collect()
}

pub(super) async fn album(db: &PgPool, name: &str) -> Result<Option<AlbumRow>> {
    let found = query(select_albums("WHERE name = $1")).bind(text(name));
    let found = found.fetch_optional(db).await?;
    found.as_ref().map(rows::album).transpose()
}

pub(super) async fn index_albums(db: &mut PgConnection) -> Result<()> {
    query("CREATE INDEX IF NOT EXISTS files_by_album ON files (album, path)")
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn image(db: &PgPool, path: &str) -> Result<Option<ImageRow>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT {}, {} FROM files f WHERE f.path = $1",
        rows::FILE,
        rows::IMAGE
    )))
    .bind(text(path))
    .fetch_optional(db)
    .await?;
    found.as_ref().map(rows::image).transpose()
}

/// By a digest of the URL, since an entry of an index has little room.
pub(super) async fn index_look_ups(db: &mut PgConnection) -> Result<()> {
    query("CREATE INDEX IF NOT EXISTS urls_by_url ON urls (md5(url))")
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn look_up(
    db: &PgPool,
    by: &LookUp,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<ImageRow>> {
    let condition = match by {
        LookUp::Url(_) => {
            "f.id IN (SELECT u.file FROM urls u WHERE md5(u.url) = md5($1) AND u.url = $1)"
        }
        LookUp::Sha256(_) => "f.sha256 = $1",
        LookUp::Path(_) => "f.path = $1",
    };
    let page = query(AssertSqlSafe(format!(
        "SELECT {}, {} FROM files f WHERE {condition} AND f.path > $2 ORDER BY f.path LIMIT $3",
        rows::FILE,
        rows::IMAGE
    )));
    let page = match by {
        LookUp::Url(key) | LookUp::Path(key) => page.bind(text(key)),
        LookUp::Sha256(sha256) => page.bind(&sha256.0[..]),
    };
    // No path is empty.
    let page = page
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    page.iter().map(rows::image).collect()
}

pub(super) async fn files_after(
    db: &PgPool,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<KnownFile>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT {} FROM files f WHERE f.path > $1 ORDER BY f.path LIMIT $2",
        rows::FILE
    )))
    // No path is empty.
    .bind(after.unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    found.iter().map(rows::file).collect()
}

pub(super) async fn urls_of(db: &PgPool, files: &[Uuid]) -> Result<Vec<UrlRow>> {
    let found = query(
        "SELECT file, key, url, album, name FROM urls WHERE file = ANY($1) ORDER BY file, key",
    )
    .bind(files)
    .fetch_all(db)
    .await?;
    found.iter().map(rows::url).collect()
}

pub(super) async fn urls_named(db: &PgPool, urls: &[String]) -> Result<Vec<UrlName>> {
    let found = query(
        "SELECT key, url, album, name FROM urls WHERE url = ANY($1) OR answered = ANY($1) ORDER BY url, album, name",
    )
    .bind(urls)
    .fetch_all(db)
    .await?;
    found.iter().map(rows::url_name).collect()
}

pub(super) async fn unused(db: &PgPool, files: &[Uuid]) -> Result<HashSet<Uuid>> {
    let unused: Vec<Uuid> = query_scalar(
        "SELECT f.id FROM UNNEST($1::uuid[]) AS f (id) WHERE NOT EXISTS (SELECT 1 FROM urls u WHERE u.file = f.id)",
    )
    .bind(files)
    .fetch_all(db)
    .await?;
    Ok(unused.into_iter().collect())
}

fn bytes(keys: &[TargetKey]) -> Vec<&[u8]> {
    keys.iter().map(|key| &key.0[..]).collect()
}
