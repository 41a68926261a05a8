//! Making the changes that clients ask for.

use rusqlite::types::Type;
use rusqlite::{Connection, params_from_iter};
use uuid::Uuid;

use super::super::change::Dialect;
use super::super::tables::Value;
use super::super::{Change, Changes, ImageFilter, ImageRow, Rename, millis};
use super::outbox::write_event;
use super::{record, rows};
use crate::naming::NameFrom;
use crate::target::AlbumName;

/// Makes `changes` inside the transaction that `db` is in.
pub(super) fn write(db: &Connection, changes: &Changes) -> rusqlite::Result<()> {
    let new = db
        .prepare_cached(
            "INSERT INTO writers (id, batch) VALUES (?, ?) \
             ON CONFLICT (id) DO UPDATE SET batch = excluded.batch WHERE batch <> excluded.batch",
        )?
        .execute((changes.writer, changes.id))?;
    if new == 0 {
        return Ok(());
    }
    let now = millis(changes.now);
    for change in &changes.changes {
        make(db, change, now)?;
    }
    for event in &changes.events {
        write_event(db, event, now)?;
    }
    Ok(())
}

fn make(db: &Connection, change: &Change, now: i64) -> rusqlite::Result<()> {
    match change {
        Change::AddFile(row) => {
            record::write_file(db, row, now)?;
            if row.name_from != NameFrom::Random {
                db.prepare_cached("UPDATE files SET by_client = TRUE WHERE id = ?")?
                    .execute([row.id])?;
            }
        }
        Change::MoveFile {
            id,
            path,
            album,
            name_from,
            by_client,
        } => {
            let album = album.as_ref().map_or("", AlbumName::as_str);
            db.prepare_cached(
                "UPDATE files SET path = ?, album = ?, name_from = ?, by_client = by_client OR ? WHERE id = ?",
            )?
            .execute((path, album, name_from.as_str(), by_client, id))?;
        }
        Change::DescribeFile { id, metadata } => {
            db.prepare_cached("UPDATE files SET metadata = ? WHERE id = ?")?
                .execute((metadata, id))?;
        }
        Change::AddAlbum { name, metadata } => {
            db.prepare_cached("INSERT INTO albums (name, created, metadata) VALUES (?, ?, ?)")?
                .execute((name.as_str(), now, metadata))?;
        }
        Change::DescribeAlbum { name, metadata } => {
            db.prepare_cached("UPDATE albums SET metadata = ? WHERE name = ?")?
                .execute((metadata, name.as_str()))?;
        }
        Change::BeginRename(rename) => {
            rename_all(db, &rename.from, &rename.to)?;
            db.prepare_cached("INSERT INTO renames (id, old, new, folder) VALUES (?, ?, ?, ?)")?
                .execute((
                    rename.id,
                    rename.from.as_str(),
                    rename.to.as_str(),
                    &rename.folder,
                ))?;
        }
        Change::EndRename { rename, undo } => {
            let begun = db
                .prepare_cached("DELETE FROM renames WHERE id = ?")?
                .execute([rename.id])?;
            if *undo && begun > 0 {
                rename_all(db, &rename.to, &rename.from)?;
            }
        }
        Change::DropAlbum { name } => {
            db.prepare_cached("DELETE FROM albums WHERE name = ?")?
                .execute([name.as_str()])?;
        }
    }
    Ok(())
}

/// Calls an album, what is below it, and all that lies in its folder otherwise. `0` comes behind `/`, so that from `a/` up to
/// `a0` is what begins with `a/`.
fn rename_all(db: &Connection, from: &AlbumName, to: &AlbumName) -> rusqlite::Result<()> {
    for statement in [
        "UPDATE albums SET name = ?2 || substr(name, length(?1) + 1) \
         WHERE name = ?1 OR (name > ?1 || '/' AND name < ?1 || '0')",
        "UPDATE files SET album = ?2 || substr(album, length(?1) + 1) \
         WHERE album = ?1 OR (album > ?1 || '/' AND album < ?1 || '0')",
        "UPDATE files SET path = ?2 || substr(path, length(?1) + 1) \
         WHERE path > ?1 || '/' AND path < ?1 || '0'",
    ] {
        db.prepare_cached(statement)?
            .execute((from.as_str(), to.as_str()))?;
    }
    Ok(())
}

pub(super) fn renames(db: &Connection) -> rusqlite::Result<Vec<Rename>> {
    let name = |text: String| {
        AlbumName::recorded(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
        })
    };
    db.prepare_cached("SELECT id, old, new, folder FROM renames ORDER BY id")?
        .query_map((), |row| {
            Ok(Rename {
                id: row.get(0)?,
                from: name(row.get(1)?)?,
                to: name(row.get(2)?)?,
                folder: row.get(3)?,
            })
        })?
        .collect()
}

pub(super) fn has_album(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    let mut album = db.prepare_cached("SELECT 1 FROM albums WHERE name = ?")?;
    Ok(name.is_empty() || album.exists([name])?)
}

pub(super) fn files(db: &Connection, ids: &[Uuid]) -> rusqlite::Result<Vec<ImageRow>> {
    let mut file = db.prepare_cached(&format!(
        "SELECT {}, {} FROM files f WHERE f.id = ?",
        rows::FILE,
        rows::IMAGE
    ))?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        for row in file.query_map([id], rows::image)? {
            found.push(row?);
        }
    }
    Ok(found)
}

/// Members as text: flags as words.
const DIALECT: Dialect = Dialect {
    mark: '?',
    position: "instr",
    member: "CASE json_type(f.metadata, {}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' \
             ELSE CAST(json_extract(f.metadata, {}) AS TEXT) END",
    member_name: |name| format!("$.\"{name}\""),
};

pub(super) fn images(
    db: &Connection,
    album: &str,
    filter: &ImageFilter,
    after: Option<String>,
    limit: u32,
) -> rusqlite::Result<Vec<ImageRow>> {
    let (conditions, values) = filter.conditions(&DIALECT, 4);
    let parameters = [
        Value::Text(album.to_owned()),
        // No path is empty.
        Value::Text(after.unwrap_or_default()),
        Value::Number(i64::from(limit)),
    ];
    db.prepare(&format!(
        "SELECT {}, {} FROM files f WHERE f.album = ?1 AND f.path > ?2{conditions} ORDER BY f.path LIMIT ?3",
        rows::FILE,
        rows::IMAGE
    ))?
    .query_map(
        params_from_iter(parameters.into_iter().chain(values)),
        rows::image,
    )?
    .collect()
}
