//! Jobs and their outcomes: newest first, page by page, never by offset.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use super::super::history::{INTERRUPTED, last_id, select_jobs, select_newest};
use super::super::{
    JobEnd, JobRow, NewJob, OutcomeFilter, OutcomeRow, ScheduleRow, SourceId, integer, millis,
    unsigned,
};
use super::{outbox, rows};
use crate::clock::latest_believable;
use crate::target::{Reason, State};

/// Outcomes that are deleted in one transaction.
const CHUNK: u32 = 10_000;

pub(super) fn begin(db: &Connection, job: &NewJob) -> rusqlite::Result<()> {
    // A posted job that an earlier process began is resumed. One that is under way was begun by a call whose answer was lost.
    let earlier = db
        .prepare_cached("SELECT state, interrupted OR recorded IS NOT NULL FROM jobs WHERE id = ?")?
        .query_row([job.id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        })
        .optional()?;
    let begun = db.execute(
        "INSERT INTO jobs (id, source, kind, album, source_id, continues, schedule, state, started) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, interrupted = 0, \
         source = excluded.source, \
         started = CASE WHEN state = 'queued' AND recorded IS NULL THEN excluded.started ELSE started END \
         WHERE posted IS NOT NULL",
        (
            job.id,
            &job.source,
            &job.kind,
            &job.album,
            job.source_id.map(|source| source.0),
            job.continues,
            &job.schedule,
            State::Ongoing.as_str(),
            millis(job.started),
        ),
    )?;
    match earlier {
        _ if begun == 0 => Ok(()),
        Some((state, _)) if state == State::Ongoing.as_str() => Ok(()),
        earlier => {
            let is_resumed = job.continues.is_some() || earlier.is_some_and(|(_, begun)| begun);
            outbox::write_job(db, job.id, is_resumed, millis(job.started))
        }
    }
}

pub(super) fn schedules(db: &Connection) -> rusqlite::Result<Vec<ScheduleRow>> {
    db.prepare_cached("SELECT * FROM schedules ORDER BY name")?
        .query_map((), rows::schedule)?
        .collect()
}

pub(super) fn save_schedule(db: &Connection, schedule: &ScheduleRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO schedules (name, cron, paused, last_due, job) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute((
        &schedule.name,
        &schedule.cron,
        schedule.paused,
        schedule.last_due.map(millis),
        schedule.job,
    ))
    .map(drop)
}

pub(super) fn end(db: &Connection, end: &JobEnd) -> rusqlite::Result<()> {
    let is_news = db
        .prepare_cached("SELECT 1 FROM jobs WHERE id = ? AND finished IS NULL")?
        .exists([end.id])?;
    db.execute(
        "UPDATE jobs SET state = ?, interrupted = ?, finished = ?3, repeats = ?, error = ?, \
         callback_next = CASE WHEN finished IS NULL AND callback IS NOT NULL THEN ?3 ELSE callback_next END WHERE id = ?",
        (
            end.state.as_str(),
            end.interrupted,
            millis(end.finished),
            integer(end.repeats),
            &end.error,
            end.id,
        ),
    )?;
    match is_news {
        true => outbox::write_job(db, end.id, false, millis(end.finished)),
        false => Ok(()),
    }
}

pub(super) fn abandon(db: &Connection, now: DateTime<Utc>) -> rusqlite::Result<u64> {
    // Those who wrote are gone too.
    db.execute("DELETE FROM writers", ())?;
    db.execute(
        "UPDATE jobs SET state = ?, interrupted = 1 WHERE state = ? AND request IS NOT NULL",
        (State::Queued.as_str(), State::Ongoing.as_str()),
    )?;
    let abandoned = db
        .prepare(
            "UPDATE jobs SET state = ?, finished = ?, error = ?, interrupted = 1 \
             WHERE state IN (?, ?) AND request IS NULL RETURNING id",
        )?
        .query_map(
            (
                State::Failed.as_str(),
                millis(now),
                INTERRUPTED,
                State::Queued.as_str(),
                State::Ongoing.as_str(),
            ),
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<Vec<Uuid>>>()?;
    for job in &abandoned {
        outbox::write_job(db, *job, false, millis(now))?;
    }
    Ok(abandoned.len() as u64)
}

pub(super) fn interrupted(
    db: &Connection,
    source: SourceId,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<JobRow>> {
    let newest = db
        .prepare_cached(&select_newest())?
        .query_row((source.0, last_id(now)), rows::job)
        .optional()?;
    Ok(newest.filter(|job| job.interrupted && job.finished.is_some()))
}

pub(super) fn jobs(
    db: &Connection,
    state: Option<State>,
    before: Option<Uuid>,
    limit: u32,
) -> rusqlite::Result<Vec<JobRow>> {
    // Version 7 ids sort by time.
    let before = before.unwrap_or(Uuid::max());
    let page = format!(
        "{} WHERE id < ?1 AND (?2 IS NULL OR state = ?2) ORDER BY id DESC LIMIT ?3",
        select_jobs()
    );
    db.prepare_cached(&page)?
        .query_map((before, state.map(State::as_str), limit), rows::job)?
        .collect()
}

pub(super) fn job(db: &Connection, id: Uuid) -> rusqlite::Result<Option<JobRow>> {
    db.prepare_cached(&format!("{} WHERE id = ?", select_jobs()))?
        .query_row([id], rows::job)
        .optional()
}

pub(super) fn outcomes(
    db: &Connection,
    job: Uuid,
    filter: OutcomeFilter,
    after: Option<u64>,
    limit: u32,
) -> rusqlite::Result<Vec<OutcomeRow>> {
    let only = filter.condition();
    db.prepare_cached(&format!(
        "SELECT {}, {} FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.job = ? AND o.seq > ? {only} ORDER BY o.seq LIMIT ?",
        rows::FILE,
        rows::OUTCOME
    ))?
    .query_map((job, after.map_or(-1, integer), limit), rows::outcome)?
    .collect()
}

pub(super) fn outcomes_since(
    db: &Connection,
    job: Uuid,
    after: Option<u64>,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, OutcomeRow)>> {
    db.prepare_cached(&format!(
        "SELECT {}, {}, o.nth FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.job = ? AND o.nth > ? AND o.nth IS NOT NULL ORDER BY o.nth LIMIT ?",
        rows::FILE,
        rows::OUTCOME
    ))?
    .query_map((job, after.map_or(-1, integer), limit), |row| {
        Ok((row.get("nth").map(unsigned)?, rows::outcome(row)?))
    })?
    .collect()
}

pub(super) fn outcomes_of(
    db: &Connection,
    urls: &[String],
    limit: u32,
) -> rusqlite::Result<Vec<(Uuid, OutcomeRow)>> {
    let places = vec!["?"; urls.len()].join(", ");
    db.prepare(&format!(
        "SELECT {}, {}, o.job FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.url IN ({places}) ORDER BY o.job DESC, o.seq LIMIT {limit}",
        rows::FILE,
        rows::OUTCOME
    ))?
    .query_map(rusqlite::params_from_iter(urls), |row| {
        Ok((row.get("job")?, rows::outcome(row)?))
    })?
    .collect()
}

pub(super) fn reasons(db: &Connection, job: Uuid) -> rusqlite::Result<BTreeMap<Reason, u64>> {
    db.prepare_cached(
        "SELECT reason, count(*) FROM outcomes WHERE job = ? AND reason IS NOT NULL GROUP BY reason",
    )?
    .query_map([job], |row| {
        Ok((rows::word(row, "reason")?, row.get(1).map(unsigned)?))
    })?
    .collect()
}

/// Sets the end of jobs that ended in the future to `now`.
pub(super) fn redate(db: &Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE jobs SET started = min(started, ?1), finished = ?1 WHERE finished > ?2",
    )?
    .execute((millis(now), millis(latest_believable(now))))
    .map(drop)
}

/// Deletes some of what belongs to the oldest job that ended before `time`. Returns how many jobs are deleted for
/// good; `None` when there was nothing to do.
pub(super) fn delete_some(db: &Connection, time: DateTime<Utc>) -> rusqlite::Result<Option<u64>> {
    let oldest: Option<Uuid> = db
        .prepare_cached("SELECT id FROM jobs WHERE finished < ? ORDER BY id LIMIT 1")?
        .query_row([millis(time)], |row| row.get(0))
        .optional()?;
    let Some(id) = oldest else { return Ok(None) };
    let outcomes = db
        .prepare_cached(
            "DELETE FROM outcomes WHERE job = ?1 AND seq IN \
             (SELECT seq FROM outcomes WHERE job = ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute((id, CHUNK))?;
    if outcomes == CHUNK as usize {
        return Ok(Some(0));
    }
    for rest in [
        "DELETE FROM parts WHERE job = ?",
        "DELETE FROM groups WHERE job = ?",
        "DELETE FROM jobs WHERE id = ?",
    ] {
        db.prepare_cached(rest)?.execute([id])?;
    }
    Ok(Some(1))
}
