//! Making the changes that clients ask for.

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgRow};
use uuid::Uuid;

use super::super::change::Dialect;
use super::super::tables::Value;
use super::super::{Change, Changes, ImageFilter, ImageRow, Rename, millis};
use super::Result;
use super::outbox::write_events;
use super::record::write_files;
use super::rows::{self, text};
use crate::naming::NameFrom;
use crate::target::AlbumName;

/// Makes `changes` inside the transaction that `db` is in.
pub(super) async fn write(db: &mut PgConnection, changes: &Changes) -> Result<()> {
    let new = query(
        "INSERT INTO writers (id, batch) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET batch = excluded.batch WHERE writers.batch <> excluded.batch",
    )
    .bind(changes.writer)
    .bind(changes.id)
    .execute(&mut *db)
    .await?;
    if new.rows_affected() == 0 {
        return Ok(());
    }
    let now = millis(changes.now);
    for change in &changes.changes {
        make(db, change, now).await?;
    }
    write_events(db, &changes.events.iter().collect::<Vec<_>>(), now).await
}

async fn make(db: &mut PgConnection, change: &Change, now: i64) -> Result<()> {
    match change {
        Change::AddFile(row) => {
            write_files(db, &[&**row], now).await?;
            if row.name_from != NameFrom::Random {
                query("UPDATE files SET by_client = TRUE WHERE id = $1")
                    .bind(row.id)
                    .execute(db)
                    .await?;
            }
        }
        Change::MoveFile {
            id,
            path,
            album,
            name_from,
            by_client,
        } => {
            query(
                "UPDATE files SET path = $1, album = $2, name_from = $3, by_client = by_client OR $4 WHERE id = $5",
            )
            .bind(path)
            .bind(album.as_ref().map_or("", AlbumName::as_str))
            .bind(name_from.as_str())
            .bind(by_client)
            .bind(id)
            .execute(db)
            .await?;
        }
        Change::DescribeFile { id, metadata } => {
            query("UPDATE files SET metadata = $1 WHERE id = $2")
                .bind(metadata.as_deref().map(text))
                .bind(id)
                .execute(db)
                .await?;
        }
        Change::AddAlbum { name, metadata } => {
            query("INSERT INTO albums (name, created, metadata) VALUES ($1, $2, $3)")
                .bind(name.as_str())
                .bind(now)
                .bind(metadata.as_deref().map(text))
                .execute(db)
                .await?;
        }
        Change::DescribeAlbum { name, metadata } => {
            query("UPDATE albums SET metadata = $1 WHERE name = $2")
                .bind(metadata.as_deref().map(text))
                .bind(name.as_str())
                .execute(db)
                .await?;
        }
        Change::BeginRename(rename) => {
            rename_all(db, &rename.from, &rename.to).await?;
            query("INSERT INTO renames (id, old, new, folder) VALUES ($1, $2, $3, $4)")
                .bind(rename.id)
                .bind(rename.from.as_str())
                .bind(rename.to.as_str())
                .bind(&rename.folder)
                .execute(db)
                .await?;
        }
        Change::EndRename { rename, undo } => {
            let begun = query("DELETE FROM renames WHERE id = $1")
                .bind(rename.id)
                .execute(&mut *db)
                .await?;
            if *undo && begun.rows_affected() > 0 {
                rename_all(db, &rename.to, &rename.from).await?;
            }
        }
        Change::DropAlbum { name } => {
            query("DELETE FROM albums WHERE name = $1")
                .bind(name.as_str())
                .execute(db)
                .await?;
        }
    }
    Ok(())
}

/// Calls an album, what is below it, and all that lies in its folder otherwise. `0` comes behind `/`, so that from `a/` up to
/// `a0` is what begins with `a/`.
async fn rename_all(db: &mut PgConnection, from: &AlbumName, to: &AlbumName) -> Result<()> {
    for statement in [
        "UPDATE albums SET name = $2 || substr(name, length($1) + 1) \
         WHERE name = $1 OR (name > $1 || '/' AND name < $1 || '0')",
        "UPDATE files SET album = $2 || substr(album, length($1) + 1) \
         WHERE album = $1 OR (album > $1 || '/' AND album < $1 || '0')",
        "UPDATE files SET path = $2 || substr(path, length($1) + 1) \
         WHERE path > $1 || '/' AND path < $1 || '0'",
    ] {
        query(statement)
            .bind(from.as_str())
            .bind(to.as_str())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

pub(super) async fn renames(db: &PgPool) -> Result<Vec<Rename>> {
    let found = query("SELECT id, old, new, folder FROM renames ORDER BY id");
    let name = |row: &PgRow, column| {
        let text: String = row.try_get(column)?;
        AlbumName::recorded(&text).map_err(|error| sqlx_core::Error::Decode(error.into()))
    };
    let rename = |row: &PgRow| {
        Ok(Rename {
            id: row.try_get("id")?,
            from: name(row, "old")?,
            to: name(row, "new")?,
            folder: row.try_get("folder")?,
        })
    };
    found.fetch_all(db).await?.iter().map(rename).collect()
}

pub(super) async fn has_album(db: &PgPool, name: &str) -> Result<bool> {
    query_scalar("SELECT $1 = '' OR EXISTS (SELECT FROM albums WHERE name = $1)")
        .bind(text(name))
        .fetch_one(db)
        .await
}

pub(super) async fn files(db: &PgPool, ids: &[Uuid]) -> Result<Vec<ImageRow>> {
    let found = query(AssertSqlSafe(format!(
        "SELECT {}, {} FROM files f WHERE f.id = ANY($1)",
        rows::FILE,
        rows::IMAGE
    )))
    .bind(ids)
    .fetch_all(db)
    .await?;
    found.iter().map(rows::image).collect()
}

/// PostgreSQL cannot take out a text with a zero character.
const DIALECT: Dialect = Dialect {
    mark: '$',
    position: "strpos",
    member: "CASE WHEN strpos(f.metadata, '\\u0000') = 0 THEN f.metadata::json ->> {} END",
    member_name: str::to_owned,
};

pub(super) async fn images(
    db: &PgPool,
    album: &str,
    filter: &ImageFilter,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<ImageRow>> {
    let (conditions, values) = filter.conditions(&DIALECT, 4);
    let mut page = query(AssertSqlSafe(format!(
        "SELECT {}, {} FROM files f WHERE f.album = $1 AND f.path > $2{conditions} ORDER BY f.path LIMIT $3",
        rows::FILE,
        rows::IMAGE
    )))
    .bind(text(album))
    // No path is empty.
    .bind(after.unwrap_or_default())
    .bind(i64::from(limit));
    for value in &values {
        page = match value {
            Value::Number(number) => page.bind(*number),
            Value::Text(words) => page.bind(text(words)),
            Value::Null | Value::Bytes(_) => unreachable!("no condition has such a parameter"),
        };
    }
    let found = page.fetch_all(db).await?;
    found.iter().map(rows::image).collect()
}
