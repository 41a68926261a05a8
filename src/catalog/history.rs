//! Reading what became of jobs and their targets: newest first, page by page, never by offset.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, Row};
use serde::Serialize;
use uuid::Uuid;

use super::record::{integer, unsigned};
use super::{Catalog, CatalogError, from_millis, word};
use crate::target::{Counts, Outcome, Reason, Sha256, State};

/// A job as the catalog has it.
#[derive(Debug, Clone, Serialize)]
pub struct JobRow {
    /// The job.
    pub id: Uuid,
    /// Where its URLs came from, without credentials.
    pub source: String,
    /// The kind of file it brought.
    pub kind: String,
    /// Its album; `None`: the root folder.
    pub album: Option<String>,
    /// How far it is.
    pub state: State,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// Targets by outcome.
    pub counts: Counts,
    /// Targets that were wanted and could not be had, see [`Outcome::is_failure`].
    pub failures: u64,
    /// Lines that repeated an earlier target.
    pub repeats: u64,
    /// Bytes that it kept.
    pub bytes: u64,
    /// Why it could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of one target of a job.
#[derive(Debug, Clone, Serialize)]
pub struct OutcomeRow {
    /// Order within the job.
    pub seq: u64,
    /// The URL without credentials, or the line that is none.
    pub url: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was rejected, failed or skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Status of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Requests begun.
    pub attempts: u32,
    /// Milliseconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Where redirects led, when elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_url: Option<String>,
    /// Where the file is, relative to the store's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Line in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The group that the list put it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where it could not be had, the name that the list wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it could not be had, the album that it was meant for, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// Where it could not be had, the digest that the list promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// Which outcomes of a job are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutcomeFilter {
    /// All that the catalog keeps: every one but `unchanged`.
    #[default]
    All,
    /// Targets that were wanted and could not be had, see [`Outcome::is_failure`].
    Failed,
}

impl Catalog {
    /// Up to `limit` jobs, newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn jobs(
        &self,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError> {
        // Version 7 ids sort by time.
        let before = before.unwrap_or(Uuid::max());
        self.read("list jobs", move |db| {
            db.prepare_cached(&format!(
                "{} WHERE id < ? ORDER BY id DESC LIMIT ?",
                select_jobs()
            ))?
            .query_map((before, limit), job)?
            .collect()
        })
        .await
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError> {
        self.read("look up a job", move |db| {
            db.prepare_cached(&format!("{} WHERE id = ?", select_jobs()))?
                .query_row([id], job)
                .optional()
        })
        .await
    }

    /// Up to `limit` outcomes of a job in its order, behind `after`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn outcomes(
        &self,
        job: Uuid,
        filter: OutcomeFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutcomeRow>, CatalogError> {
        let only = match filter {
            OutcomeFilter::All => String::new(),
            OutcomeFilter::Failed => format!("AND {}", is_failure()),
        };
        let after = after.map_or(-1, integer);
        self.read("list outcomes", move |db| {
            db.prepare_cached(&format!(
                "SELECT o.*, f.path FROM outcomes o LEFT JOIN files f ON f.id = o.file \
                 WHERE o.job = ? AND o.seq > ? {only} ORDER BY o.seq LIMIT ?"
            ))?
            .query_map((job, after, limit), outcome)?
            .collect()
        })
        .await
    }
}

/// The condition for rows of `outcomes o` that are failures.
fn is_failure() -> String {
    let skipped = Reason::ALL
        .iter()
        .filter(|reason| Outcome::Skipped.is_failure(Some(**reason)))
        .map(|reason| format!("'{reason}'"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "(o.outcome IN ('rejected', 'failed') OR o.outcome = 'skipped' AND o.reason IN ({skipped}))"
    )
}

/// Jobs and their failures. Only where targets were skipped do their outcomes have to be looked at.
fn select_jobs() -> String {
    format!(
        "SELECT *, rejected + failed + CASE skipped WHEN 0 THEN 0 ELSE (SELECT count(*) FROM outcomes o \
         WHERE o.job = jobs.id AND o.outcome = 'skipped' AND {}) END AS failures FROM jobs",
        is_failure()
    )
}

fn job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let count = |column| row.get(column).map(unsigned);
    Ok(JobRow {
        id: row.get("id")?,
        source: row.get("source")?,
        kind: row.get("kind")?,
        album: Some(row.get("album")?).filter(|album: &String| !album.is_empty()),
        state: word(row, "state")?,
        started: row.get("started").map(from_millis)?,
        finished: row.get::<_, Option<i64>>("finished")?.map(from_millis),
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
    })
}

fn outcome(row: &Row<'_>) -> rusqlite::Result<OutcomeRow> {
    let has_reason = row.get::<_, Option<String>>("reason")?.is_some();
    Ok(OutcomeRow {
        seq: row.get("seq").map(unsigned)?,
        url: row.get("url")?,
        outcome: word(row, "outcome")?,
        reason: has_reason.then(|| word(row, "reason")).transpose()?,
        detail: row.get("detail")?,
        status: row.get("status")?,
        attempts: row.get("attempts")?,
        elapsed_ms: row.get::<_, Option<i64>>("elapsed_ms")?.map(unsigned),
        final_url: row.get("final_url")?,
        path: row.get("path")?,
        line: row.get::<_, Option<i64>>("line")?.map(unsigned),
        group: row.get("grp")?,
        name: row.get("name")?,
        album: row.get("album")?,
        sha256: row.get::<_, Option<[u8; 32]>>("sha256")?.map(Sha256),
    })
}
