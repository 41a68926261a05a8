//! The outbox: events, and how far each receiver is.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::events::OfJob;
use super::super::history::select_jobs;
use super::super::{
    Backlog, DeadLetter, Event, EventRow, ReceiverRow, Record, Wants, integer, millis, unsigned,
};
use super::Result;
use super::rows::{self, text};
use crate::clock::latest_believable;

/// Which events somebody wants.
async fn wants(db: &mut PgConnection) -> Result<Wants> {
    let texts: Vec<String> = query_scalar("SELECT events FROM receivers")
        .fetch_all(db)
        .await?;
    Ok(Wants::union(texts))
}

/// Puts events into the outbox, in their order: those that somebody wants.
pub(super) async fn write_events(db: &mut PgConnection, events: &[&Event], now: i64) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let wants = wants(db).await?;
    let events: Vec<&Event> = events
        .iter()
        .copied()
        .filter(|event| wants.has(&event.event))
        .collect();
    insert(db, &events, now).await
}

async fn insert(db: &mut PgConnection, events: &[&Event], now: i64) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let jobs: Vec<Option<Uuid>> = events.iter().map(|event| event.job).collect();
    let names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    let payloads: Vec<_> = events.iter().map(|event| text(&event.payload)).collect();
    query(
        "INSERT INTO events (job, event, payload, created) \
         SELECT job, event, payload, $4 FROM UNNEST($1::uuid[], $2::text[], $3::text[]) \
         WITH ORDINALITY AS new (job, event, payload, place) ORDER BY place",
    )
    .bind(jobs)
    .bind(names)
    .bind(payloads)
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}

/// Tells how jobs are, if somebody wants to know.
pub(super) async fn write_jobs(
    db: &mut PgConnection,
    jobs: &[Uuid],
    is_resumed: bool,
    now: i64,
) -> Result<()> {
    if jobs.is_empty() || !wants(db).await?.has_any("job.") {
        return Ok(());
    }
    let jobs = query(AssertSqlSafe(format!(
        "{} WHERE id = ANY($1) ORDER BY id",
        select_jobs()
    )))
    .bind(jobs)
    .fetch_all(&mut *db)
    .await?;
    let events = jobs
        .iter()
        .map(|row| Ok(Event::of_job(&rows::job(row)?, is_resumed)));
    let events = events.collect::<Result<Vec<_>>>()?;
    write_events(db, &events.iter().collect::<Vec<_>>(), now).await
}

/// Tells of the files that records brought, and of the albums that were made for them.
pub(super) async fn write_files(
    db: &mut PgConnection,
    albums: &[(String, Uuid)],
    records: &[&Record],
    now: i64,
) -> Result<()> {
    let wants = wants(db).await?;
    let mut events: Vec<Event> = albums
        .iter()
        .map(|(album, job)| Event::of_album("album.created", album, Some(*job)))
        .collect();
    if wants.has_any("file.") {
        let jobs = of_jobs(db, records).await?;
        let unknown = OfJob::default();
        events.extend(records.iter().filter_map(|record| {
            let job = jobs.get(&record.job).unwrap_or(&unknown);
            Some(Event::of_file(record, record.new_file.as_ref()?, job))
        }));
    }
    let events: Vec<&Event> = events
        .iter()
        .filter(|event| wants.has(&event.event))
        .collect();
    insert(db, &events, now).await
}

async fn of_jobs(db: &mut PgConnection, records: &[&Record]) -> Result<HashMap<Uuid, OfJob>> {
    let mut ids: Vec<Uuid> = records.iter().map(|record| record.job).collect();
    ids.sort_unstable();
    ids.dedup();
    let found = query("SELECT id, source, schedule FROM jobs WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(db)
        .await?;
    let job = |row: &sqlx_postgres::PgRow| {
        let (source, schedule) = (row.try_get("source")?, row.try_get("schedule")?);
        Ok((row.try_get("id")?, OfJob { source, schedule }))
    };
    found.iter().map(job).collect()
}

pub(super) async fn events_after(db: &PgPool, after: i64, limit: u32) -> Result<Vec<EventRow>> {
    let found = query(
        "SELECT id, job, event, payload, created FROM events WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    found.iter().map(rows::event).collect()
}

pub(super) async fn receivers(db: &PgPool) -> Result<Vec<ReceiverRow>> {
    let found = query("SELECT * FROM receivers ORDER BY name").fetch_all(db);
    found.await?.iter().map(rows::receiver).collect()
}

pub(super) async fn save_receiver(
    db: &mut PgConnection,
    name: &str,
    events: &Wants,
    now: DateTime<Utc>,
) -> Result<i64> {
    query(
        "INSERT INTO receivers (name, events, position, seen) \
         VALUES ($1, $2, (SELECT coalesce(max(id), 0) FROM events), $3) \
         ON CONFLICT (name) DO UPDATE SET events = excluded.events, seen = excluded.seen",
    )
    .bind(name)
    .bind(events.to_string())
    .bind(millis(now))
    .execute(&mut *db)
    .await?;
    query_scalar("SELECT coalesce(max(id), 0) FROM events")
        .fetch_one(db)
        .await
}

pub(super) async fn delete_receivers(db: &mut PgConnection, names: &[String]) -> Result<()> {
    query("DELETE FROM receivers WHERE name = ANY($1)")
        .bind(names)
        .execute(&mut *db)
        .await?;
    delete_delivered(db).await
}

/// Takes out of the outbox what all receivers have.
async fn delete_delivered(db: &mut PgConnection) -> Result<()> {
    query(
        "DELETE FROM events WHERE id <= (SELECT coalesce(min(position), 9223372036854775807) FROM receivers)",
    )
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn acknowledge(
    db: &mut PgConnection,
    receiver: &str,
    position: i64,
) -> Result<()> {
    query("UPDATE receivers SET position = greatest(position, $1) WHERE name = $2")
        .bind(position)
        .bind(receiver)
        .execute(&mut *db)
        .await?;
    delete_delivered(db).await
}

/// Returns `true` if there are events from the future. There are nearly always none, which saves a write.
pub(super) async fn is_ahead(db: &PgPool, now: DateTime<Utc>) -> Result<bool> {
    query_scalar("SELECT EXISTS (SELECT 1 FROM events WHERE created > $1)")
        .bind(millis(latest_believable(now)))
        .fetch_one(db)
        .await
}

/// Sets the time of events from the future to `now`.
pub(super) async fn redate(db: &mut PgConnection, now: DateTime<Utc>) -> Result<()> {
    query("UPDATE events SET created = $1 WHERE created > $2")
        .bind(millis(now))
        .bind(millis(latest_believable(now)))
        .execute(db)
        .await
        .map(drop)
}

/// The last event that is too many, or older than `before`.
pub(super) async fn excess(db: &PgPool, keep: u64, before: DateTime<Utc>) -> Result<Option<i64>> {
    // Later events were written later.
    query_scalar(
        "SELECT max(id) FROM events WHERE id <= (SELECT max(id) FROM events) - $1 \
         OR id < coalesce((SELECT id FROM events WHERE created >= $2 ORDER BY id LIMIT 1), 9223372036854775807)",
    )
    .bind(integer(keep))
    .bind(millis(before))
    .fetch_one(db)
    .await
}

/// Drops events up to `last`. Returns how many of them a receiver of the settings has not had.
pub(super) async fn trim(db: &mut PgConnection, last: i64) -> Result<u64> {
    let missed = query_scalar(
        "SELECT count(*) FROM events WHERE id <= $1 \
         AND id > (SELECT min(position) FROM receivers WHERE name <> '')",
    )
    .bind(last)
    .fetch_one(&mut *db)
    .await
    .map(unsigned)?;
    query("DELETE FROM events WHERE id <= $1")
        .bind(last)
        .execute(db)
        .await?;
    Ok(missed)
}

pub(super) async fn bury(db: &mut PgConnection, letter: &DeadLetter, keep: u32) -> Result<()> {
    let EventRow { id, created, event } = &letter.row;
    query(
        "INSERT INTO dead_letters (receiver, id, job, event, payload, created, died, answer) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(&letter.receiver)
    .bind(id)
    .bind(event.job)
    .bind(&event.event)
    .bind(text(&event.payload))
    .bind(millis(*created))
    .bind(millis(letter.died))
    .bind(text(&letter.answer))
    .execute(&mut *db)
    .await?;
    query(
        "DELETE FROM dead_letters WHERE receiver = $1 AND id <= \
         (SELECT id FROM dead_letters WHERE receiver = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
    )
    .bind(&letter.receiver)
    .bind(i64::from(keep))
    .execute(&mut *db)
    .await?;
    acknowledge(db, &letter.receiver, *id).await
}

pub(super) async fn dead_letters(db: &PgPool) -> Result<Vec<DeadLetter>> {
    let found = query("SELECT * FROM dead_letters ORDER BY receiver, id").fetch_all(db);
    found.await?.iter().map(rows::dead_letter).collect()
}

pub(super) async fn drop_dead_letters(db: &PgPool, letters: &[(String, i64)]) -> Result<u64> {
    let (receivers, ids): (Vec<&str>, Vec<i64>) = letters
        .iter()
        .map(|(name, id)| (name.as_str(), *id))
        .unzip();
    let dropped = query(
        "DELETE FROM dead_letters WHERE (receiver, id) IN (SELECT * FROM UNNEST($1::text[], $2::bigint[]))",
    )
    .bind(receivers)
    .bind(ids)
    .execute(db)
    .await?;
    Ok(dropped.rows_affected())
}

pub(super) async fn backlog(db: &PgPool) -> Result<Vec<Backlog>> {
    let found = query(
        "SELECT name, (SELECT count(*) FROM events WHERE id > r.position) AS waiting, \
         (SELECT count(*) FROM dead_letters WHERE receiver = r.name) AS dead \
         FROM receivers r WHERE name <> '' ORDER BY name",
    )
    .fetch_all(db)
    .await?;
    let backlog = found.iter().map(|row| {
        Ok(Backlog {
            receiver: row.try_get("name")?,
            waiting: row.try_get("waiting").map(unsigned)?,
            dead: row.try_get("dead").map(unsigned)?,
        })
    });
    backlog.collect()
}
