//! Posted jobs, their groups and targets.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::super::history::select_jobs;
use super::super::posted::GROUP_STATE;
use super::super::{
    CallbackRow, GroupCounts, GroupRow, JobRow, PART_TARGETS, Post, Posted, PostedJob, integer,
    millis, unsigned,
};
use super::{history, rows};
use crate::target::State;

pub(super) fn post(db: &Connection, post: &Post) -> rusqlite::Result<Posted> {
    if let Some(idempotency) = post.idempotency {
        let earlier = db
            .prepare_cached("SELECT id, digest FROM jobs WHERE idempotency = ?")?
            .query_row([idempotency.key], |row| {
                Ok((row.get::<_, Uuid>(0)?, row.get::<_, [u8; 16]>(1)?))
            })
            .optional()?;
        match earlier {
            // Once more, since its answer was lost.
            Some((id, _)) if id == post.id => return Ok(Posted::Queued),
            Some((id, digest)) if digest == idempotency.digest => return Ok(Posted::Earlier(id)),
            Some((id, _)) => return Ok(Posted::Other(id)),
            None => {}
        }
    }
    let inserted = db
        .prepare_cached(
            "INSERT INTO jobs (id, source, kind, album, state, started, posted, request, total, idempotency, digest, callback) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            post.id,
            post.source,
            post.kind,
            post.album,
            State::Queued.as_str(),
            millis(post.posted),
            post.request,
            post.total.map(integer),
            post.idempotency.map(|idempotency| idempotency.key),
            post.idempotency.map(|idempotency| idempotency.digest),
            post.callback,
        ])?;
    if inserted == 0 {
        return Ok(Posted::Queued);
    }
    let mut group = db.prepare_cached(
        "INSERT INTO groups (job, number, id, on_error, metadata, targets) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for (number, new) in post.groups.iter().enumerate() {
        group.execute(params![
            post.id,
            number as i64,
            new.id,
            new.on_error.as_str(),
            new.metadata,
            integer(new.targets),
        ])?;
    }
    let mut part =
        db.prepare_cached("INSERT INTO parts (job, number, targets) VALUES (?, ?, ?)")?;
    for (number, targets) in post.parts.iter().enumerate() {
        part.execute((post.id, number as i64, targets))?;
    }
    Ok(Posted::Queued)
}

pub(super) fn due(
    db: &Connection,
    now: DateTime<Utc>,
    limit: u32,
) -> rusqlite::Result<Vec<JobRow>> {
    db.prepare_cached(&format!(
        "{} WHERE callback_next <= ? ORDER BY callback_next LIMIT ?",
        select_jobs()
    ))?
    .query_map((millis(now), limit), rows::job)?
    .collect()
}

pub(super) fn save_callback(
    db: &Connection,
    job: Uuid,
    callback: &CallbackRow,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE jobs SET callback_attempts = ?, callback_next = ?, callback_told = ?, callback_error = ? WHERE id = ?",
    )?
    .execute((
        callback.attempts,
        callback.next.map(millis),
        callback.delivered.map(millis),
        &callback.error,
        job,
    ))
    .map(drop)
}

pub(super) fn unfinished(db: &Connection) -> rusqlite::Result<Vec<Uuid>> {
    db.prepare_cached(
        "SELECT id FROM jobs WHERE state IN (?, ?) AND request IS NOT NULL ORDER BY id",
    )?
    .query_map((State::Queued.as_str(), State::Ongoing.as_str()), |row| {
        row.get(0)
    })?
    .collect()
}

pub(super) fn job(db: &Connection, id: Uuid) -> rusqlite::Result<Option<PostedJob>> {
    let Some(job) = history::job(db, id)? else {
        return Ok(None);
    };
    let (request, nth, next_seq): (Option<String>, i64, i64) = db
        .prepare_cached(
            "SELECT request, (SELECT coalesce(max(nth) + 1, 0) FROM outcomes WHERE job = ?1 AND nth IS NOT NULL), \
             (SELECT coalesce(max(seq) + 1, 0) FROM outcomes WHERE job = ?1) FROM jobs WHERE id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(request.map(|request| PostedJob {
        job,
        request,
        nth: unsigned(nth),
        next_seq: unsigned(next_seq),
    }))
}

pub(super) fn part(
    db: &Connection,
    job: Uuid,
    number: u64,
) -> rusqlite::Result<Option<(String, HashSet<u64>)>> {
    let targets: Option<String> = db
        .prepare_cached("SELECT targets FROM parts WHERE job = ? AND number = ?")?
        .query_row((job, integer(number)), |row| row.get(0))
        .optional()?;
    let Some(targets) = targets else {
        return Ok(None);
    };
    let from = number * PART_TARGETS;
    let done = db
        .prepare_cached("SELECT seq FROM outcomes WHERE job = ? AND seq >= ? AND seq < ?")?
        .query_map((job, integer(from), integer(from + PART_TARGETS)), |row| {
            row.get(0).map(unsigned)
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some((targets, done)))
}

pub(super) fn groups(
    db: &Connection,
    job: Uuid,
    state: Option<State>,
    after: Option<u32>,
    limit: u32,
) -> rusqlite::Result<Vec<GroupRow>> {
    db.prepare_cached(&format!(
        "SELECT *, {GROUP_STATE} AS state FROM groups WHERE job = ?1 AND number > ?2 AND \
         (?3 IS NULL OR {GROUP_STATE} = ?3) ORDER BY number LIMIT ?4"
    ))?
    .query_map(
        (
            job,
            after.map_or(-1, i64::from),
            state.map(State::as_str),
            limit,
        ),
        rows::group,
    )?
    .collect()
}

pub(super) fn group_counts(db: &Connection, job: Uuid) -> rusqlite::Result<GroupCounts> {
    db.prepare_cached(&format!(
        "SELECT count(*), count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'ongoing'), \
         count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed'), \
         count(*) FILTER (WHERE state = 'cancelled') \
         FROM (SELECT {GROUP_STATE} AS state FROM groups WHERE job = ?)"
    ))?
    .query_row([job], |row| {
        let count = |column| row.get(column).map(unsigned);
        Ok(GroupCounts {
            total: count(0)?,
            queued: count(1)?,
            ongoing: count(2)?,
            completed: count(3)?,
            failed: count(4)?,
            cancelled: count(5)?,
        })
    })
}
