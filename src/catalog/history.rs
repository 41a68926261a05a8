//! Reading what became of jobs and their targets: newest first, page by page, never by offset.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};
use uuid::Uuid;

use super::{Catalog, CatalogError, from_millis, outcome, reason};
use crate::target::{Counts, Outcome, Reason, State};

/// A job as the catalog has it.
#[derive(Debug, Clone, Serialize)]
pub struct JobRow {
    /// The job.
    pub id: Uuid,
    /// Where its URLs came from, without credentials.
    pub source: String,
    /// The kind of file it brought.
    pub kind: String,
    /// Its album; empty: the root folder.
    pub album: String,
    /// How far it is.
    pub state: State,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// Targets by outcome.
    pub counts: Counts,
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
}

/// Which outcomes of a job are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutcomeFilter {
    /// All that the catalog keeps: every one but `unchanged`.
    #[default]
    All,
    /// Rejected and failed targets, and those skipped because their host or their time ran out.
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
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM jobs");
        if let Some(before) = before {
            // Version 7 ids sort by time.
            sql.push(" WHERE id < ").push_bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        let rows = sql
            .build()
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::query("list jobs"))?;
        rows.iter().map(job).collect()
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(CatalogError::query("look up a job"))?;
        row.as_ref().map(job).transpose()
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
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT o.*, f.path FROM outcomes o LEFT JOIN files f ON f.id = o.file WHERE o.job = ",
        );
        sql.push_bind(job);
        if let Some(after) = after {
            sql.push(" AND o.seq > ")
                .push_bind(super::record::integer(after));
        }
        if filter == OutcomeFilter::Failed {
            sql.push(
                " AND (o.outcome IN ('rejected', 'failed') \
                 OR o.outcome = 'skipped' AND o.reason IN ('host-down', 'deadline', 'store-full', 'cancelled'))",
            );
        }
        sql.push(" ORDER BY o.seq LIMIT ").push_bind(limit);
        let rows = sql
            .build()
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::query("list outcomes"))?;
        rows.iter().map(outcome_row).collect()
    }
}

fn job(row: &SqliteRow) -> Result<JobRow, CatalogError> {
    let failed = || CatalogError::query("read a job");
    let count = |column| row.try_get(column).map(unsigned).map_err(failed());
    let state: &str = row.try_get("state").map_err(failed())?;
    Ok(JobRow {
        id: row.try_get("id").map_err(failed())?,
        source: row.try_get("source").map_err(failed())?,
        kind: row.try_get("kind").map_err(failed())?,
        album: row.try_get("album").map_err(failed())?,
        state: state
            .parse()
            .map_err(CatalogError::unreadable("state", state))?,
        started: from_millis(row.try_get("started").map_err(failed())?),
        finished: row
            .try_get::<Option<i64>, _>("finished")
            .map_err(failed())?
            .map(from_millis),
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
        repeats: count("repeats")?,
        bytes: count("bytes")?,
        error: row.try_get("error").map_err(failed())?,
    })
}

fn outcome_row(row: &SqliteRow) -> Result<OutcomeRow, CatalogError> {
    let failed = || CatalogError::query("read an outcome");
    Ok(OutcomeRow {
        seq: row.try_get("seq").map(unsigned).map_err(failed())?,
        url: row.try_get("url").map_err(failed())?,
        outcome: outcome(row.try_get("outcome").map_err(failed())?)?,
        reason: reason(row.try_get("reason").map_err(failed())?)?,
        detail: row.try_get("detail").map_err(failed())?,
        status: row.try_get("status").map_err(failed())?,
        attempts: row.try_get("attempts").map_err(failed())?,
        elapsed_ms: row
            .try_get::<Option<i64>, _>("elapsed_ms")
            .map_err(failed())?
            .map(unsigned),
        final_url: row.try_get("final_url").map_err(failed())?,
        path: row.try_get("path").map_err(failed())?,
        line: row
            .try_get::<Option<i64>, _>("line")
            .map_err(failed())?
            .map(unsigned),
        group: row.try_get("grp").map_err(failed())?,
    })
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
