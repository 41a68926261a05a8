//! Jobs and their outcomes: newest first, page by page, never by offset.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::history::{INTERRUPTED, last_id, select_jobs, select_newest};
use super::super::{
    JobEnd, JobRow, NewJob, OutcomeFilter, OutcomeRow, ScheduleRow, SourceId, integer, millis,
};
use super::rows::{self, one, text};
use super::{Result, outbox};
use crate::clock::latest_believable;
use crate::target::{Reason, State};

/// Outcomes that are deleted in one transaction.
const CHUNK: i64 = 10_000;

pub(super) async fn begin(db: &mut PgConnection, job: &NewJob) -> Result<()> {
    // A posted job that an earlier process began is resumed. One that is under way was begun by a call whose answer was lost.
    let earlier = query_as::<_, (String, bool)>(
        "SELECT state, interrupted OR recorded IS NOT NULL FROM jobs WHERE id = $1",
    )
    .bind(job.id)
    .fetch_optional(&mut *db)
    .await?;
    let begun = query(
        "INSERT INTO jobs (id, source, kind, album, source_id, continues, schedule, state, started) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET state = excluded.state, interrupted = FALSE, \
         source = excluded.source, started = \
         CASE WHEN jobs.state = 'queued' AND jobs.recorded IS NULL THEN excluded.started ELSE jobs.started END \
         WHERE jobs.posted IS NOT NULL",
    )
    .bind(job.id)
    .bind(text(&job.source))
    .bind(&job.kind)
    .bind(&job.album)
    .bind(job.source_id.as_ref().map(|source| &source.0[..]))
    .bind(job.continues)
    .bind(&job.schedule)
    .bind(State::Ongoing.as_str())
    .bind(millis(job.started))
    .execute(&mut *db)
    .await?;
    match earlier {
        _ if begun.rows_affected() == 0 => Ok(()),
        Some((state, _)) if state == State::Ongoing.as_str() => Ok(()),
        earlier => {
            let is_resumed = job.continues.is_some() || earlier.is_some_and(|(_, begun)| begun);
            outbox::write_jobs(db, &[job.id], is_resumed, millis(job.started)).await
        }
    }
}

pub(super) async fn schedules(db: &PgPool) -> Result<Vec<ScheduleRow>> {
    let found = query("SELECT * FROM schedules ORDER BY name").fetch_all(db);
    found.await?.iter().map(rows::schedule).collect()
}

pub(super) async fn save_schedule(db: &mut PgConnection, schedule: &ScheduleRow) -> Result<()> {
    query(
        "INSERT INTO schedules (name, cron, paused, last_due, job) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, paused = excluded.paused, last_due = excluded.last_due, \
         job = excluded.job",
    )
    .bind(&schedule.name)
    .bind(&schedule.cron)
    .bind(schedule.paused)
    .bind(schedule.last_due.map(millis))
    .bind(schedule.job)
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn end(db: &mut PgConnection, end: &JobEnd) -> Result<()> {
    let open = query("SELECT id FROM jobs WHERE id = $1 AND finished IS NULL").bind(end.id);
    let is_news = open.fetch_optional(&mut *db).await?.is_some();
    query(
        "UPDATE jobs SET state = $1, interrupted = $2, finished = $3, repeats = $4, error = $5, \
         callback_next = CASE WHEN finished IS NULL AND callback IS NOT NULL THEN $3 ELSE callback_next END WHERE id = $6",
    )
    .bind(end.state.as_str())
    .bind(end.interrupted)
    .bind(millis(end.finished))
    .bind(integer(end.repeats))
    .bind(end.error.as_deref().map(text))
    .bind(end.id)
    .execute(&mut *db)
    .await?;
    match is_news {
        true => outbox::write_jobs(db, &[end.id], false, millis(end.finished)).await,
        false => Ok(()),
    }
}

pub(super) async fn abandon(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64> {
    // Those who wrote are gone too.
    query("DELETE FROM writers").execute(&mut *db).await?;
    query(
        "UPDATE jobs SET state = $1, interrupted = TRUE WHERE state = $2 AND request IS NOT NULL",
    )
    .bind(State::Queued.as_str())
    .bind(State::Ongoing.as_str())
    .execute(&mut *db)
    .await?;
    let abandoned: Vec<Uuid> = query_scalar(
        "UPDATE jobs SET state = $1, finished = $2, error = $3, interrupted = TRUE WHERE state IN ($4, $5) \
         AND request IS NULL RETURNING id",
    )
    .bind(State::Failed.as_str())
    .bind(millis(now))
    .bind(INTERRUPTED)
    .bind(State::Queued.as_str())
    .bind(State::Ongoing.as_str())
    .fetch_all(&mut *db)
    .await?;
    outbox::write_jobs(db, &abandoned, false, millis(now)).await?;
    Ok(abandoned.len() as u64)
}

pub(super) async fn interrupted(
    db: &PgPool,
    source: SourceId,
    now: DateTime<Utc>,
) -> Result<Option<JobRow>> {
    let newest = query(AssertSqlSafe(select_newest()))
        .bind(&source.0[..])
        .bind(last_id(now))
        .fetch_optional(db);
    let newest = newest.await?.as_ref().map(rows::job).transpose()?;
    Ok(newest.filter(|job| job.interrupted && job.finished.is_some()))
}

pub(super) async fn jobs(
    db: &PgPool,
    state: Option<State>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<JobRow>> {
    let page = format!(
        "{} WHERE id < $1 AND ($2::text IS NULL OR state = $2) ORDER BY id DESC LIMIT $3",
        select_jobs()
    );
    let page = query(AssertSqlSafe(page))
        // Version 7 ids sort by time.
        .bind(before.unwrap_or(Uuid::max()))
        .bind(state.map(State::as_str))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    page.iter().map(rows::job).collect()
}

pub(super) async fn job(db: &PgPool, id: Uuid) -> Result<Option<JobRow>> {
    let job = format!("{} WHERE id = $1", select_jobs());
    let job = query(AssertSqlSafe(job)).bind(id).fetch_optional(db);
    job.await?.as_ref().map(rows::job).transpose()
}

pub(super) async fn outcomes(
    db: &PgPool,
    job: Uuid,
    filter: OutcomeFilter,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<OutcomeRow>> {
    let only = filter.condition();
    let page = query(AssertSqlSafe(format!(
        "SELECT {}, {} FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.job = $1 AND o.seq > $2 {only} ORDER BY o.seq LIMIT $3",
        rows::FILE,
        rows::OUTCOME
    )))
    .bind(job)
    .bind(after.map_or(-1, integer))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    page.iter().map(rows::outcome).collect()
}

pub(super) async fn outcomes_since(
    db: &PgPool,
    job: Uuid,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<(u64, OutcomeRow)>> {
    let page = query(AssertSqlSafe(format!(
        "SELECT {}, {}, o.nth FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.job = $1 AND o.nth > $2 AND o.nth IS NOT NULL ORDER BY o.nth LIMIT $3",
        rows::FILE,
        rows::OUTCOME
    )))
    .bind(job)
    .bind(after.map_or(-1, integer))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    page.iter()
        .map(|row| Ok((rows::count(row, "nth")?, rows::outcome(row)?)))
        .collect()
}

pub(super) async fn outcomes_of(
    db: &PgPool,
    urls: &[String],
    limit: u32,
) -> Result<Vec<(Uuid, OutcomeRow)>> {
    let page = query(AssertSqlSafe(format!(
        "SELECT {}, {}, o.job FROM outcomes o LEFT JOIN files f ON f.id = o.file \
         WHERE o.url = ANY($1) ORDER BY o.job DESC, o.seq LIMIT $2",
        rows::FILE,
        rows::OUTCOME
    )))
    .bind(urls)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    page.iter()
        .map(|row| Ok((row.try_get("job")?, rows::outcome(row)?)))
        .collect()
}

pub(super) async fn reasons(db: &PgPool, job: Uuid) -> Result<BTreeMap<Reason, u64>> {
    let counted = query(
        "SELECT reason, count(*) AS times FROM outcomes WHERE job = $1 AND reason IS NOT NULL GROUP BY reason",
    )
    .bind(job)
    .fetch_all(db)
    .await?;
    counted
        .iter()
        .map(|row| Ok((rows::word(row, "reason")?, rows::count(row, "times")?)))
        .collect()
}

/// Sets the end of jobs that ended in the future to `now`.
pub(super) async fn redate(db: &mut PgConnection, now: DateTime<Utc>) -> Result<()> {
    query("UPDATE jobs SET started = LEAST(started, $1), finished = $1 WHERE finished > $2")
        .bind(millis(now))
        .bind(millis(latest_believable(now)))
        .execute(db)
        .await
        .map(drop)
}

/// Deletes some of what belongs to the oldest job that ended before `time`. Returns how many jobs are deleted for
/// good; `None` when there was nothing to do.
pub(super) async fn delete_some(db: &mut PgConnection, time: DateTime<Utc>) -> Result<Option<u64>> {
    let oldest = query("SELECT id FROM jobs WHERE finished < $1 ORDER BY id LIMIT 1")
        .bind(millis(time))
        .fetch_optional(&mut *db)
        .await?;
    let Some(id) = oldest.as_ref().map(one::<Uuid>).transpose()? else {
        return Ok(None);
    };
    let outcomes = query(
        "DELETE FROM outcomes WHERE job = $1 AND seq IN \
         (SELECT seq FROM outcomes WHERE job = $1 ORDER BY seq LIMIT $2)",
    )
    .bind(id)
    .bind(CHUNK)
    .execute(&mut *db)
    .await?;
    if outcomes.rows_affected() == CHUNK as u64 {
        return Ok(Some(0));
    }
    for rest in [
        "DELETE FROM parts WHERE job = $1",
        "DELETE FROM groups WHERE job = $1",
        "DELETE FROM jobs WHERE id = $1",
    ] {
        query(rest).bind(id).execute(&mut *db).await?;
    }
    Ok(Some(1))
}
