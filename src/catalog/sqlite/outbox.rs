//! The outbox: events, and how far each receiver is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use super::super::events::OfJob;
use super::super::history::select_jobs;
use super::super::{
    Backlog, DeadLetter, Event, EventRow, ReceiverRow, Record, Wants, integer, millis, unsigned,
};
use super::rows;
use crate::clock::latest_believable;

/// Which events somebody wants.
pub(super) fn wants(db: &Connection) -> rusqlite::Result<Wants> {
    let texts = db
        .prepare_cached("SELECT events FROM receivers")?
        .query_map((), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(Wants::union(texts))
}

/// Puts an event into the outbox, if somebody wants it.
pub(super) fn write_event(db: &Connection, event: &Event, now: i64) -> rusqlite::Result<()> {
    if !wants(db)?.has(&event.event) {
        return Ok(());
    }
    insert(db, event, now)
}

fn insert(db: &Connection, event: &Event, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO events (job, event, payload, created) VALUES (?, ?, ?, ?)")?
        .execute((event.job, &event.event, &event.payload, now))
        .map(drop)
}

/// Tells how a job is, if somebody wants to know.
pub(super) fn write_job(
    db: &Connection,
    job: Uuid,
    is_resumed: bool,
    now: i64,
) -> rusqlite::Result<()> {
    if !wants(db)?.has_any("job.") {
        return Ok(());
    }
    let job = db
        .prepare_cached(&format!("{} WHERE id = ?", select_jobs()))?
        .query_row([job], rows::job)
        .optional()?;
    match job {
        Some(job) => write_event(db, &Event::of_job(&job, is_resumed), now),
        None => Ok(()),
    }
}

/// Tells of the files that records brought, and of the albums that were made for them.
pub(super) fn write_files(
    db: &Connection,
    albums: &[(String, Uuid)],
    records: &[&Record],
    now: i64,
) -> rusqlite::Result<()> {
    let wants = wants(db)?;
    for (album, job) in albums.iter().filter(|_| wants.has("album.created")) {
        insert(
            db,
            &Event::of_album("album.created", album, Some(*job)),
            now,
        )?;
    }
    if !wants.has_any("file.") {
        return Ok(());
    }
    let mut jobs: BTreeMap<Uuid, OfJob> = BTreeMap::new();
    let mut job = db.prepare_cached("SELECT source, schedule FROM jobs WHERE id = ?")?;
    for record in records {
        let Some(file) = &record.new_file else {
            continue;
        };
        let of_job = match jobs.entry(record.job) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let found = job.query_row([record.job], |row| {
                    let (source, schedule) = (row.get(0)?, row.get(1)?);
                    Ok(OfJob { source, schedule })
                });
                place.insert(found.optional()?.unwrap_or_default())
            }
        };
        let event = Event::of_file(record, file, of_job);
        if wants.has(&event.event) {
            insert(db, &event, now)?;
        }
    }
    Ok(())
}

pub(super) fn events_after(
    db: &Connection,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<EventRow>> {
    db.prepare_cached(
        "SELECT id, job, event, payload, created FROM events WHERE id > ? ORDER BY id LIMIT ?",
    )?
    .query_map((after, limit), rows::event)?
    .collect()
}

pub(super) fn receivers(db: &Connection) -> rusqlite::Result<Vec<ReceiverRow>> {
    db.prepare_cached("SELECT name, events, position, seen FROM receivers ORDER BY name")?
        .query_map((), rows::receiver)?
        .collect()
}

pub(super) fn save_receiver(
    db: &Connection,
    name: &str,
    events: &str,
    now: DateTime<Utc>,
) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO receivers (name, events, position, seen) \
         VALUES (?, ?, (SELECT coalesce(max(id), 0) FROM events), ?) \
         ON CONFLICT (name) DO UPDATE SET events = excluded.events, seen = excluded.seen",
    )?
    .execute((name, events, millis(now)))?;
    db.prepare_cached("SELECT coalesce(max(id), 0) FROM events")?
        .query_row((), |row| row.get(0))
}

pub(super) fn delete_receivers(db: &Connection, names: &[String]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM receivers WHERE name = ?")?;
    for name in names {
        delete.execute([name])?;
    }
    delete_delivered(db)
}

/// Takes out of the outbox what all receivers have.
fn delete_delivered(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached(
        "DELETE FROM events WHERE id <= (SELECT coalesce(min(position), 9223372036854775807) FROM receivers)",
    )?
    .execute(())
    .map(drop)
}

pub(super) fn acknowledge(db: &Connection, receiver: &str, position: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE receivers SET position = max(position, ?) WHERE name = ?")?
        .execute((position, receiver))?;
    delete_delivered(db)
}

/// Returns `true` if there are events from the future. There are nearly always none, which saves a write.
pub(super) fn is_ahead(db: &Connection, now: DateTime<Utc>) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM events WHERE created > ?")?
        .exists([millis(latest_believable(now))])
}

/// Sets the time of events from the future to `now`.
pub(super) fn redate(db: &Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE events SET created = ? WHERE created > ?")?
        .execute((millis(now), millis(latest_believable(now))))
        .map(drop)
}

/// The last event that is too many, or older than `before`.
pub(super) fn excess(
    db: &Connection,
    keep: u64,
    before: DateTime<Utc>,
) -> rusqlite::Result<Option<i64>> {
    // Later events were written later.
    db.prepare_cached(
        "SELECT max(id) FROM events WHERE id <= (SELECT max(id) FROM events) - ?1 \
         OR id < coalesce((SELECT id FROM events WHERE created >= ?2 ORDER BY id LIMIT 1), 9223372036854775807)",
    )?
    .query_row((integer(keep), millis(before)), |row| row.get(0))
}

/// Drops events up to `last`. Returns how many of them a receiver of the settings has not had.
pub(super) fn trim(db: &Connection, last: i64) -> rusqlite::Result<u64> {
    let missed = db
        .prepare_cached(
            "SELECT count(*) FROM events WHERE id <= ? \
             AND id > (SELECT min(position) FROM receivers WHERE name <> '')",
        )?
        .query_row([last], |row| row.get(0).map(unsigned))?;
    db.prepare_cached("DELETE FROM events WHERE id <= ?")?
        .execute([last])?;
    Ok(missed)
}

pub(super) fn bury(db: &Connection, letter: &DeadLetter, keep: u32) -> rusqlite::Result<()> {
    let EventRow { id, created, event } = &letter.row;
    db.prepare_cached(
        "INSERT INTO dead_letters (receiver, id, job, event, payload, created, died, answer) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?
    .execute((
        &letter.receiver,
        id,
        event.job,
        &event.event,
        &event.payload,
        millis(*created),
        millis(letter.died),
        &letter.answer,
    ))?;
    db.prepare_cached(
        "DELETE FROM dead_letters WHERE receiver = ?1 AND id <= \
         (SELECT id FROM dead_letters WHERE receiver = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((&letter.receiver, keep))?;
    acknowledge(db, &letter.receiver, *id)
}

pub(super) fn dead_letters(db: &Connection) -> rusqlite::Result<Vec<DeadLetter>> {
    db.prepare_cached(
        "SELECT id, job, event, payload, created, receiver, died, answer FROM dead_letters ORDER BY receiver, id",
    )?
    .query_map((), rows::dead_letter)?
    .collect()
}

pub(super) fn drop_dead_letters(
    db: &Connection,
    letters: &[(String, i64)],
) -> rusqlite::Result<u64> {
    let mut delete = db.prepare_cached("DELETE FROM dead_letters WHERE receiver = ? AND id = ?")?;
    let mut dropped = 0;
    for letter in letters {
        dropped += delete.execute((&letter.0, letter.1))? as u64;
    }
    Ok(dropped)
}

pub(super) fn backlog(db: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    db.prepare_cached(
        "SELECT name, (SELECT count(*) FROM events WHERE id > r.position), \
         (SELECT count(*) FROM dead_letters WHERE receiver = r.name) FROM receivers r WHERE name <> '' ORDER BY name",
    )?
    .query_map((), |row| {
        Ok(Backlog {
            receiver: row.get(0)?,
            waiting: row.get(1).map(unsigned)?,
            dead: row.get(2).map(unsigned)?,
        })
    })?
    .collect()
}
