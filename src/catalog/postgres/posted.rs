//! Posted jobs, their groups and targets.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::history::select_jobs;
use super::super::posted::GROUP_STATE;
use super::super::{
    CallbackRow, GroupCounts, GroupRow, JobRow, PART_TARGETS, Post, Posted, PostedJob, integer,
    millis, unsigned,
};
use super::Result;
use super::history;
use super::rows::{self, digest, text};
use crate::target::State;

pub(super) async fn due(db: &PgPool, now: DateTime<Utc>, limit: u32) -> Result<Vec<JobRow>> {
    let due = query(AssertSqlSafe(format!(
        "{} WHERE callback_next <= $1 ORDER BY callback_next LIMIT $2",
        select_jobs()
    )))
    .bind(millis(now))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    due.iter().map(rows::job).collect()
}

pub(super) async fn save_callback(
    db: &mut PgConnection,
    job: Uuid,
    callback: &CallbackRow,
) -> Result<()> {
    query(
        "UPDATE jobs SET callback_attempts = $1, callback_next = $2, callback_told = $3, callback_error = $4 WHERE id = $5",
    )
    .bind(i64::from(callback.attempts))
    .bind(callback.next.map(millis))
    .bind(callback.delivered.map(millis))
    .bind(callback.error.as_deref().map(text))
    .bind(job)
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn post(db: &mut PgConnection, post: &Post) -> Result<Posted> {
    if let Some(idempotency) = post.idempotency {
        let earlier = query("SELECT id, digest FROM jobs WHERE idempotency = $1")
            .bind(&idempotency.key[..])
            .fetch_optional(&mut *db)
            .await?;
        if let Some(earlier) = earlier {
            let id: Uuid = earlier.try_get("id")?;
            return Ok(match digest::<16>(&earlier, "digest")? {
                // Once more, since its answer was lost.
                _ if id == post.id => Posted::Queued,
                digest if digest == idempotency.digest => Posted::Earlier(id),
                _ => Posted::Other(id),
            });
        }
    }
    let inserted = query(
        "INSERT INTO jobs (id, source, kind, album, state, started, posted, request, total, idempotency, digest, callback) \
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING",
    )
    .bind(post.id)
    .bind(text(&post.source))
    .bind(text(&post.kind))
    .bind(text(&post.album))
    .bind(State::Queued.as_str())
    .bind(millis(post.posted))
    .bind(text(&post.request))
    .bind(post.total.map(integer))
    .bind(post.idempotency.as_ref().map(|idempotency| &idempotency.key[..]))
    .bind(post.idempotency.as_ref().map(|idempotency| &idempotency.digest[..]))
    .bind(post.callback.as_deref().map(text))
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Posted::Queued);
    }
    let groups = &post.groups;
    query(
        "INSERT INTO groups (job, number, id, on_error, metadata, targets) \
         SELECT $1, number - 1, id, on_error, metadata, targets \
         FROM UNNEST($2::text[], $3::text[], $4::text[], $5::bigint[]) \
         WITH ORDINALITY AS new (id, on_error, metadata, targets, number)",
    )
    .bind(post.id)
    .bind(
        groups
            .iter()
            .map(|group| text(&group.id))
            .collect::<Vec<_>>(),
    )
    .bind(
        groups
            .iter()
            .map(|group| group.on_error.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        groups
            .iter()
            .map(|group| group.metadata.as_deref().map(text))
            .collect::<Vec<_>>(),
    )
    .bind(
        groups
            .iter()
            .map(|group| integer(group.targets))
            .collect::<Vec<_>>(),
    )
    .execute(&mut *db)
    .await?;
    query(
        "INSERT INTO parts (job, number, targets) SELECT $1, number - 1, targets \
         FROM UNNEST($2::text[]) WITH ORDINALITY AS new (targets, number)",
    )
    .bind(post.id)
    .bind(post.parts.iter().map(|part| text(part)).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(Posted::Queued)
}

pub(super) async fn unfinished(db: &PgPool) -> Result<Vec<Uuid>> {
    query_scalar("SELECT id FROM jobs WHERE state IN ($1, $2) AND request IS NOT NULL ORDER BY id")
        .bind(State::Queued.as_str())
        .bind(State::Ongoing.as_str())
        .fetch_all(db)
        .await
}

pub(super) async fn job(db: &PgPool, id: Uuid) -> Result<Option<PostedJob>> {
    let Some(job) = history::job(db, id).await? else {
        return Ok(None);
    };
    let row = query(
        "SELECT request, (SELECT coalesce(max(nth) + 1, 0) FROM outcomes WHERE job = $1 AND nth IS NOT NULL) AS nth, \
         (SELECT coalesce(max(seq) + 1, 0) FROM outcomes WHERE job = $1) AS next_seq FROM jobs WHERE id = $1",
    )
    .bind(id)
    .fetch_one(db)
    .await?;
    let request: Option<String> = row.try_get("request")?;
    let (nth, next_seq) = (rows::count(&row, "nth")?, rows::count(&row, "next_seq")?);
    Ok(request.map(|request| PostedJob {
        job,
        request,
        nth,
        next_seq,
    }))
}

pub(super) async fn part(
    db: &PgPool,
    job: Uuid,
    number: u64,
) -> Result<Option<(String, HashSet<u64>)>> {
    let targets = query_scalar("SELECT targets FROM parts WHERE job = $1 AND number = $2")
        .bind(job)
        .bind(integer(number))
        .fetch_optional(db);
    let Some(targets) = targets.await? else {
        return Ok(None);
    };
    let from = number * PART_TARGETS;
    let done: Vec<i64> =
        query_scalar("SELECT seq FROM outcomes WHERE job = $1 AND seq >= $2 AND seq < $3")
            .bind(job)
            .bind(integer(from))
            .bind(integer(from + PART_TARGETS))
            .fetch_all(db)
            .await?;
    Ok(Some((targets, done.into_iter().map(unsigned).collect())))
}

pub(super) async fn groups(
    db: &PgPool,
    job: Uuid,
    state: Option<State>,
    after: Option<u32>,
    limit: u32,
) -> Result<Vec<GroupRow>> {
    let page = query(AssertSqlSafe(format!(
        "SELECT *, {GROUP_STATE} AS state FROM groups WHERE job = $1 AND number > $2 AND \
         ($3::text IS NULL OR {GROUP_STATE} = $3) ORDER BY number LIMIT $4"
    )))
    .bind(job)
    .bind(after.map_or(-1, i64::from))
    .bind(state.map(State::as_str))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    page.iter().map(rows::group).collect()
}

pub(super) async fn group_counts(db: &PgPool, job: Uuid) -> Result<GroupCounts> {
    let row = query(AssertSqlSafe(format!(
        "SELECT count(*), count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'ongoing'), \
         count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed'), \
         count(*) FILTER (WHERE state = 'cancelled') \
         FROM (SELECT {GROUP_STATE} AS state FROM groups WHERE job = $1) AS of_job"
    )))
    .bind(job)
    .fetch_one(db)
    .await?;
    let count = |column: usize| row.try_get(column).map(unsigned);
    Ok(GroupCounts {
        total: count(0)?,
        queued: count(1)?,
        ongoing: count(2)?,
        completed: count(3)?,
        failed: count(4)?,
        cancelled: count(5)?,
    })
}
