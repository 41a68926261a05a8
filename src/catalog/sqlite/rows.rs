//! Reading rows of the database as what they mean.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::types::{FromSqlError, Type, ValueRef};
use rusqlite::{Row, RowIndex};

use super::super::{
    Acceptance, AlbumRow, CallbackRow, DeadLetter, Event, EventRow, GroupRow, ImageRow, JobRow,
    Known, KnownFile, OutcomeRow, ReceiverRow, ScheduleRow, TargetKey, UrlName, UrlRow, Wants,
    from_millis, json, unsigned,
};
use crate::naming::NameFrom;
use crate::target::{Counts, Sha256};

/// Columns of a [`KnownFile`], in the order in which [`file`] reads them.
pub(super) const FILE: &str = "f.id, f.path, f.format, f.media_type, f.bytes, f.sha256, f.width, f.height, \
                               f.active, f.name_from, f.mtime_ns, f.shared, f.stage, f.criteria, \
                               f.orientation, f.undecoded";

/// Columns that make an [`ImageRow`] of it, behind those.
pub(super) const IMAGE: &str =
    "f.album, f.stored, f.metadata, f.header_name, f.line, f.grp, f.last_modified, f.by_client";

/// Columns that make an [`OutcomeRow`] of it, in any order.
pub(super) const OUTCOME: &str = "o.seq, o.url, o.outcome, o.reason, o.detail, o.status, o.attempts, o.elapsed_ms, \
                                  o.final_url, o.line, o.grp, o.name, o.album, o.sha256 AS promised, o.steps, \
                                  o.metadata AS other_columns";

/// How many those of [`FILE`] are.
pub(super) const FILE_COLUMNS: usize = 16;

/// Reads the columns of [`FILE`].
pub(super) fn file(row: &Row<'_>) -> rusqlite::Result<KnownFile> {
    let dimensions: (Option<u32>, Option<u32>) = (row.get(6)?, row.get(7)?);
    let name_from = row.get_ref(9)?.as_str()?;
    Ok(KnownFile {
        id: row.get(0)?,
        stage: row.get(12)?,
        path: row.get(1)?,
        format: row.get(2)?,
        media_type: row.get(3)?,
        bytes: row.get(4).map(unsigned)?,
        sha256: Sha256(row.get(5)?),
        dimensions: dimensions.0.zip(dimensions.1),
        active: row.get(8)?,
        name_from: name_from.parse().unwrap_or(NameFrom::Random),
        mtime_ns: row.get(10)?,
        shared: row.get(11)?,
        criteria: row.get(13)?,
        orientation: row.get(14)?,
        undecoded: row.get(15)?,
        is_present: true,
        is_rechecked: false,
    })
}

/// Reads the columns of [`FILE`] and [`IMAGE`].
pub(super) fn image(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow {
        file: file(row)?,
        album: row.get(FILE_COLUMNS)?,
        stored: row.get(FILE_COLUMNS + 1).map(from_millis)?,
        metadata: row.get(FILE_COLUMNS + 2)?,
        header_name: row.get(FILE_COLUMNS + 3)?,
        line: row.get::<_, Option<i64>>(FILE_COLUMNS + 4)?.map(unsigned),
        group: row.get(FILE_COLUMNS + 5)?,
        last_modified: row
            .get::<_, Option<i64>>(FILE_COLUMNS + 6)?
            .map(from_millis),
        by_client: row.get(FILE_COLUMNS + 7)?,
    })
}

/// Reads the columns of [`FILE`] out of an outer join.
fn outer_file(row: &Row<'_>) -> rusqlite::Result<Option<KnownFile>> {
    let has_file = row.get_ref(0)? != ValueRef::Null;
    has_file.then(|| file(row)).transpose()
}

/// Reads the columns of [`FILE`] out of an outer join, and those of the URL behind them: by number, since each name is
/// looked for among all.
pub(super) fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|time| time.map(from_millis))
    };
    Ok(Known {
        file: outer_file(row)?,
        etag: row.get(FILE_COLUMNS)?,
        last_modified: row.get(FILE_COLUMNS + 1)?,
        fresh_until: time(FILE_COLUMNS + 2)?,
        checked: time(FILE_COLUMNS + 3)?,
        tried: time(FILE_COLUMNS + 4)?,
        status: row.get(FILE_COLUMNS + 5)?,
        failures: row.get(FILE_COLUMNS + 6)?,
        outcome: word(row, FILE_COLUMNS + 7)?,
        reason: optional_word(row, FILE_COLUMNS + 8)?,
        job: row.get(FILE_COLUMNS + 9)?,
        answered: row.get(FILE_COLUMNS + 10)?,
        failed_under: row
            .get::<_, Option<[u8; 16]>>(FILE_COLUMNS + 11)?
            .map(Acceptance),
        gone_until: time(FILE_COLUMNS + 12)?,
    })
}

pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let count = |column| row.get(column).map(unsigned);
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|time| time.map(from_millis))
    };
    Ok(JobRow {
        id: row.get("id")?,
        source: row.get("source")?,
        kind: row.get("kind")?,
        album: Some(row.get("album")?).filter(|album: &String| !album.is_empty()),
        schedule: row.get("schedule")?,
        state: word(row, "state")?,
        posted: time("posted")?,
        total: row.get::<_, Option<i64>>("total")?.map(unsigned),
        started: row.get("started").map(from_millis)?,
        finished: time("finished")?,
        continues: row.get("continues")?,
        recorded: time("recorded")?,
        interrupted: row.get("interrupted")?,
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
        error: row.get("error")?,
        callback: match row.get("callback")? {
            Some(url) => Some(CallbackRow {
                url,
                attempts: row.get("callback_attempts")?,
                delivered: time("callback_told")?,
                next: time("callback_next")?,
                error: row.get("callback_error")?,
            }),
            None => None,
        },
    })
}

pub(super) fn schedule(row: &Row<'_>) -> rusqlite::Result<ScheduleRow> {
    Ok(ScheduleRow {
        name: row.get("name")?,
        cron: row.get("cron")?,
        paused: row.get("paused")?,
        last_due: row.get::<_, Option<i64>>("last_due")?.map(from_millis),
        job: row.get("job")?,
    })
}

pub(super) fn outcome(row: &Row<'_>) -> rusqlite::Result<OutcomeRow> {
    Ok(OutcomeRow {
        seq: row.get("seq").map(unsigned)?,
        url: row.get("url")?,
        outcome: word(row, "outcome")?,
        reason: optional_word(row, "reason")?,
        detail: row.get("detail")?,
        status: row.get("status")?,
        attempts: row.get("attempts")?,
        elapsed_ms: row.get::<_, Option<i64>>("elapsed_ms")?.map(unsigned),
        final_url: row.get("final_url")?,
        file: outer_file(row)?,
        line: row.get::<_, Option<i64>>("line")?.map(unsigned),
        group: row.get("grp")?,
        name: row.get("name")?,
        album: row.get("album")?,
        sha256: row.get::<_, Option<[u8; 32]>>("promised")?.map(Sha256),
        metadata: row
            .get::<_, Option<String>>("other_columns")?
            .and_then(json),
        steps: row.get::<_, Option<String>>("steps")?.and_then(json),
    })
}

pub(super) fn group(row: &Row<'_>) -> rusqlite::Result<GroupRow> {
    let count = |column| row.get(column).map(unsigned);
    Ok(GroupRow {
        number: row.get("number")?,
        id: row.get("id")?,
        state: word(row, "state")?,
        on_error: word(row, "on_error")?,
        targets: count("targets")?,
        done: count("done")?,
        failures: count("failures")?,
        error: row.get("error")?,
        metadata: row.get("metadata")?,
    })
}

pub(super) fn album(row: &Row<'_>) -> rusqlite::Result<AlbumRow> {
    Ok(AlbumRow {
        name: row.get(0)?,
        files: row.get(1).map(unsigned)?,
        bytes: row.get(2).map(unsigned)?,
        newest: row.get::<_, Option<i64>>(3)?.map(from_millis),
        metadata: row.get(4)?,
    })
}

pub(super) fn url(row: &Row<'_>) -> rusqlite::Result<UrlRow> {
    Ok(UrlRow {
        file: row.get(0)?,
        key: TargetKey(row.get(1)?),
        url: row.get(2)?,
        album: row.get(3)?,
        name: row.get(4)?,
    })
}

pub(super) fn url_name(row: &Row<'_>) -> rusqlite::Result<UrlName> {
    Ok(UrlName {
        key: TargetKey(row.get("key")?),
        url: row.get("url")?,
        album: row.get("album")?,
        name: row.get("name")?,
    })
}

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: row.get(0)?,
        created: row.get(4).map(from_millis)?,
        event: Event {
            job: row.get(1)?,
            event: row.get(2)?,
            payload: row.get(3)?,
        },
    })
}

pub(super) fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        receiver: row.get(5)?,
        row: event(row)?,
        died: row.get(6).map(from_millis)?,
        answer: row.get(7)?,
    })
}

pub(super) fn receiver(row: &Row<'_>) -> rusqlite::Result<ReceiverRow> {
    Ok(ReceiverRow {
        name: row.get(0)?,
        events: Wants::union([row.get(1)?]),
        position: row.get(2)?,
        seen: row.get(3).map(from_millis)?,
    })
}

/// Reads one of our words; one that no gannet writes is an error that names it.
pub(super) fn word<T: FromStr>(
    row: &Row<'_>,
    column: impl RowIndex + Copy + Display,
) -> rusqlite::Result<T> {
    optional_word(row, column)?.ok_or_else(|| FromSqlError::InvalidType.into())
}

fn optional_word<T: FromStr>(
    row: &Row<'_>,
    column: impl RowIndex + Copy + Display,
) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let unknown = format!("the catalog holds an unreadable {column}: `{text}`");
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, unknown.into())
    })
}
