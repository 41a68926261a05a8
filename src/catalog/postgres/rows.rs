//! Reading rows of the database as what they mean, and writing text that it can hold.

use std::borrow::Cow;
use std::str::FromStr;

use sqlx_core::decode::Decode;
use sqlx_core::row::Row as _;
use sqlx_core::types::Type;
use sqlx_postgres::{PgRow, Postgres};
use uuid::Uuid;

use super::super::{
    Acceptance, AlbumRow, CallbackRow, DeadLetter, Event, EventRow, GroupRow, ImageRow, JobRow,
    Known, KnownFile, OutcomeRow, ReceiverRow, ScheduleRow, TargetKey, UrlName, UrlRow, Wants,
    from_millis, json, unsigned,
};
use super::Result;
use crate::naming::NameFrom;
use crate::target::{Counts, Sha256};

/// `text` as PostgreSQL can hold it: without zero bytes, which lists and servers may send all the same.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

/// Columns of a [`KnownFile`], named as [`file`] reads them.
pub(super) const FILE: &str = "f.id AS file_id, f.path, f.format, f.media_type, f.bytes, f.sha256, f.width, \
                               f.height, f.active, f.name_from, f.mtime_ns, f.shared, f.stage, f.criteria, \
                               f.orientation, f.undecoded";

/// Columns that make an [`ImageRow`] of it, named as [`image`] reads them.
pub(super) const IMAGE: &str = "f.album AS file_album, f.stored AS file_stored, f.metadata, f.header_name, f.line, \
                                f.grp, f.last_modified, f.by_client";

/// Columns that make an [`OutcomeRow`] of it, in any order.
pub(super) const OUTCOME: &str = "o.seq, o.url, o.outcome, o.reason, o.detail, o.status, o.attempts, o.elapsed_ms, \
                                  o.final_url, o.line, o.grp, o.name, o.album, o.sha256 AS promised, o.steps, \
                                  o.metadata AS other_columns";

/// The first column.
pub(super) fn one<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow) -> Result<T> {
    row.try_get(0)
}

/// Reads the columns of [`FILE`].
pub(super) fn file(row: &PgRow) -> Result<KnownFile> {
    let width = small(row, "width")?;
    Ok(KnownFile {
        id: row.try_get("file_id")?,
        stage: row.try_get("stage")?,
        path: row.try_get("path")?,
        format: row.try_get("format")?,
        media_type: row.try_get("media_type")?,
        bytes: count(row, "bytes")?,
        sha256: Sha256(digest(row, "sha256")?),
        dimensions: width.zip(small(row, "height")?),
        active: row.try_get("active")?,
        name_from: row
            .try_get::<&str, _>("name_from")?
            .parse()
            .unwrap_or(NameFrom::Random),
        mtime_ns: row.try_get("mtime_ns")?,
        shared: row.try_get("shared")?,
        criteria: row.try_get("criteria")?,
        orientation: small(row, "orientation")?,
        undecoded: row.try_get("undecoded")?,
        is_present: true,
        is_rechecked: false,
    })
}

/// Reads the columns of [`FILE`] and [`IMAGE`].
pub(super) fn image(row: &PgRow) -> Result<ImageRow> {
    Ok(ImageRow {
        file: file(row)?,
        album: row.try_get("file_album")?,
        stored: row.try_get("file_stored").map(from_millis)?,
        metadata: row.try_get("metadata")?,
        header_name: row.try_get("header_name")?,
        line: row.try_get::<Option<i64>, _>("line")?.map(unsigned),
        group: row.try_get("grp")?,
        last_modified: time(row, "last_modified")?,
        by_client: row.try_get("by_client")?,
    })
}

/// Reads the columns of [`FILE`] out of an outer join.
fn outer_file(row: &PgRow) -> Result<Option<KnownFile>> {
    let id: Option<Uuid> = row.try_get("file_id")?;
    id.map(|_| file(row)).transpose()
}

/// Reads the columns of [`FILE`] out of an outer join, and those of the URL beside them.
pub(super) fn known(row: &PgRow) -> Result<(TargetKey, Known)> {
    let known = Known {
        file: outer_file(row)?,
        etag: row.try_get("etag")?,
        last_modified: row.try_get("last_modified")?,
        fresh_until: time(row, "fresh_until")?,
        checked: time(row, "checked")?,
        tried: time(row, "tried")?,
        status: small(row, "status")?,
        failures: small(row, "failures")?.unwrap_or_default(),
        outcome: word(row, "outcome")?,
        reason: optional_word(row, "reason")?,
        job: row.try_get("job")?,
        answered: row.try_get("answered")?,
        failed_under: row
            .try_get::<Option<&[u8]>, _>("failed_under")?
            .map(|_| digest(row, "failed_under").map(Acceptance))
            .transpose()?,
        gone_until: time(row, "gone_until")?,
    };
    Ok((TargetKey(digest(row, "key")?), known))
}

pub(super) fn job(row: &PgRow) -> Result<JobRow> {
    let count = |column| count(row, column);
    Ok(JobRow {
        id: row.try_get("id")?,
        source: row.try_get("source")?,
        kind: row.try_get("kind")?,
        album: Some(row.try_get("album")?).filter(|album: &String| !album.is_empty()),
        schedule: row.try_get("schedule")?,
        state: word(row, "state")?,
        posted: time(row, "posted")?,
        total: row.try_get::<Option<i64>, _>("total")?.map(unsigned),
        started: row.try_get("started").map(from_millis)?,
        finished: time(row, "finished")?,
        continues: row.try_get("continues")?,
        recorded: time(row, "recorded")?,
        interrupted: row.try_get("interrupted")?,
        counts: Counts {
            targets: count("targets")?,
            stored: count("stored")?,
            changed: count("changed")?,
            unchanged: count("unchanged")?,
            duplicate: count("duplicate")?,
            rejected: count("rejected")?,
            failed: count("failed")?,
            skipped: count("skipped")?,
        },
        failures: count("failures")?,
        repeats: count("repeats")?,
        bytes: count("bytes")?,
        error: row.try_get("error")?,
        callback: match row.try_get("callback")? {
            Some(url) => Some(CallbackRow {
                url,
                attempts: small(row, "callback_attempts")?.unwrap_or_default(),
                delivered: time(row, "callback_told")?,
                next: time(row, "callback_next")?,
                error: row.try_get("callback_error")?,
            }),
            None => None,
        },
    })
}

pub(super) fn schedule(row: &PgRow) -> Result<ScheduleRow> {
    Ok(ScheduleRow {
        name: row.try_get("name")?,
        cron: row.try_get("cron")?,
        paused: row.try_get("paused")?,
        last_due: time(row, "last_due")?,
        job: row.try_get("job")?,
    })
}

pub(super) fn outcome(row: &PgRow) -> Result<OutcomeRow> {
    let optional = |column| {
        row.try_get::<Option<i64>, _>(column)
            .map(|n| n.map(unsigned))
    };
    let sha256: Option<&[u8]> = row.try_get("promised")?;
    Ok(OutcomeRow {
        seq: count(row, "seq")?,
        url: row.try_get("url")?,
        outcome: word(row, "outcome")?,
        reason: optional_word(row, "reason")?,
        detail: row.try_get("detail")?,
        status: small(row, "status")?,
        attempts: small(row, "attempts")?.unwrap_or_default(),
        elapsed_ms: optional("elapsed_ms")?,
        final_url: row.try_get("final_url")?,
        file: outer_file(row)?,
        line: optional("line")?,
        group: row.try_get("grp")?,
        name: row.try_get("name")?,
        album: row.try_get("album")?,
        sha256: sha256
            .map(|_| digest(row, "promised").map(Sha256))
            .transpose()?,
        metadata: row
            .try_get::<Option<String>, _>("other_columns")?
            .and_then(json),
        steps: row.try_get::<Option<String>, _>("steps")?.and_then(json),
    })
}

pub(super) fn group(row: &PgRow) -> Result<GroupRow> {
    Ok(GroupRow {
        number: small(row, "number")?.unwrap_or_default(),
        id: row.try_get("id")?,
        state: word(row, "state")?,
        on_error: word(row, "on_error")?,
        targets: count(row, "targets")?,
        done: count(row, "done")?,
        failures: count(row, "failures")?,
        error: row.try_get("error")?,
        metadata: row.try_get("metadata")?,
    })
}

pub(super) fn album(row: &PgRow) -> Result<AlbumRow> {
    Ok(AlbumRow {
        name: row.try_get("name")?,
        files: count(row, "files")?,
        bytes: count(row, "bytes")?,
        newest: time(row, "newest")?,
        metadata: row.try_get("metadata")?,
    })
}

pub(super) fn url(row: &PgRow) -> Result<UrlRow> {
    Ok(UrlRow {
        file: row.try_get("file")?,
        key: key(row)?,
        url: row.try_get("url")?,
        album: row.try_get("album")?,
        name: row.try_get("name")?,
    })
}

pub(super) fn url_name(row: &PgRow) -> Result<UrlName> {
    Ok(UrlName {
        key: key(row)?,
        url: row.try_get("url")?,
        album: row.try_get("album")?,
        name: row.try_get("name")?,
    })
}

pub(super) fn event(row: &PgRow) -> Result<EventRow> {
    Ok(EventRow {
        id: row.try_get("id")?,
        created: row.try_get("created").map(from_millis)?,
        event: Event {
            job: row.try_get("job")?,
            event: row.try_get("event")?,
            payload: row.try_get("payload")?,
        },
    })
}

pub(super) fn dead_letter(row: &PgRow) -> Result<DeadLetter> {
    Ok(DeadLetter {
        receiver: row.try_get("receiver")?,
        row: event(row)?,
        died: row.try_get("died").map(from_millis)?,
        answer: row.try_get("answer")?,
    })
}

pub(super) fn receiver(row: &PgRow) -> Result<ReceiverRow> {
    Ok(ReceiverRow {
        name: row.try_get("name")?,
        events: Wants::union([row.try_get("events")?]),
        position: row.try_get("position")?,
        seen: row.try_get("seen").map(from_millis)?,
    })
}

pub(super) fn key(row: &PgRow) -> Result<TargetKey> {
    digest(row, "key").map(TargetKey)
}

pub(super) fn digest<const N: usize>(row: &PgRow, column: &str) -> Result<[u8; N]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| unreadable(column, "too long or too short"))
}

pub(super) fn count(row: &PgRow, column: &str) -> Result<u64> {
    row.try_get(column).map(unsigned)
}

/// A number for which PostgreSQL has no type of its own.
fn small<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<Option<T>> {
    let Some(number) = row.try_get::<Option<i64>, _>(column)? else {
        return Ok(None);
    };
    let fits = T::try_from(number);
    fits.map(Some)
        .map_err(|_| unreadable(column, &number.to_string()))
}

fn time(row: &PgRow, column: &str) -> Result<Option<chrono::DateTime<chrono::Utc>>> {
    let time: Option<i64> = row.try_get(column)?;
    Ok(time.map(from_millis))
}

/// Reads one of our words; one that no gannet writes is an error that names it.
pub(super) fn word<T: FromStr>(row: &PgRow, column: &str) -> Result<T> {
    optional_word(row, column)?.ok_or_else(|| unreadable(column, ""))
}

fn optional_word<T: FromStr>(row: &PgRow, column: &str) -> Result<Option<T>> {
    let Some(text) = row.try_get::<Option<&str>, _>(column)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| unreadable(column, text))
}

fn unreadable(column: &str, what: &str) -> sqlx_core::Error {
    let unknown = format!("the catalog holds an unreadable {column}: `{what}`");
    sqlx_core::Error::Decode(unknown.into())
}
