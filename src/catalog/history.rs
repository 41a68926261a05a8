//! What became of jobs and their targets.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{CallbackRow, Catalog, CatalogError, KnownFile, SourceId, millis};
use crate::clock;
use crate::target::{Counts, Outcome, Reason, Sha256, State};

/// A job that begins.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job.
    pub id: Uuid,
    /// Where its URLs come from, without credentials.
    pub source: String,
    /// The kind of file it brings.
    pub kind: String,
    /// Its album; empty: the root folder.
    pub album: String,
    /// Names source, kind and album, where the source is one that is read again.
    pub source_id: Option<SourceId>,
    /// The interrupted job that it goes on with.
    pub continues: Option<Uuid>,
    /// The schedule that began it.
    pub schedule: Option<String>,
    /// When it begins.
    pub started: DateTime<Utc>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// The job.
    pub id: Uuid,
    /// How.
    pub state: State,
    /// Whether it was cut short by the end of its process, so that another may go on with it.
    pub interrupted: bool,
    /// Lines that repeated an earlier target.
    pub repeats: u64,
    /// Why it could not run to its end.
    pub error: Option<String>,
    /// When.
    pub finished: DateTime<Utc>,
}

/// What the daemon remembers of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// The cron line that `last_due` is a time of.
    pub cron: String,
    /// Whether it is not to run.
    pub paused: bool,
    /// The last time of its cron line that was dealt with.
    pub last_due: Option<DateTime<Utc>>,
    /// Its last job.
    pub job: Option<Uuid>,
}

/// A job as the catalog has it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Job, examples(json!({
    "id": "019aa7c4-5b1e-7d83-a3c5-2f6f0c1f9b11", "source": "https://example.org/list.csv", "kind": "image",
    "album": "shops/2026", "schedule": "shop", "state": "completed", "started": "2026-11-21T09:30:00Z",
    "finished": "2026-11-21T09:30:41.512Z", "counts": {
        "targets": 3, "stored": 1, "changed": 0, "unchanged": 2, "duplicate": 0, "rejected": 0, "failed": 0, "skipped": 0,
    }, "failures": 0, "repeats": 0, "bytes": 48211,
})))]
pub struct JobRow {
    /// The job.
    pub id: Uuid,
    /// Where its URLs came from, without credentials.
    pub source: String,
    /// The kind of file it brought.
    pub kind: String,
    /// Its album; `None`: the root folder.
    #[schema(required = true)]
    pub album: Option<String>,
    /// The schedule that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How far it is.
    pub state: State,
    /// When a client posted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posted: Option<DateTime<Utc>>,
    /// How many targets were posted; `None` where a list has to be read to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// When it began; of one that is queued, when it was posted.
    pub started: DateTime<Utc>,
    /// When it ended.
    #[schema(required = true)]
    pub finished: Option<DateTime<Utc>>,
    /// The interrupted job that it goes on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Uuid>,
    /// When an outcome of it was last recorded.
    #[serde(skip)]
    pub recorded: Option<DateTime<Utc>>,
    /// Whether its process ended, or was asked to, before it did.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Targets by outcome.
    pub counts: Counts,
    /// Targets that were wanted and could not be had.
    pub failures: u64,
    /// Lines that repeated an earlier target.
    pub repeats: u64,
    /// Bytes that it kept.
    pub bytes: u64,
    /// Why it could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is told of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackRow>,
}

impl JobRow {
    /// Whether its last outcome is no longer ago than `limit`; never, where that is zero.
    pub fn is_within(&self, limit: Duration) -> bool {
        let idle = clock::age(self.recorded.unwrap_or(self.started), Utc::now());
        !limit.is_zero() && idle.is_some_and(|idle| idle <= limit)
    }
}

/// What became of one target of a job.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Item, examples(json!({
    "seq": 7, "url": "https://example.org/gone.jpg", "outcome": "failed", "reason": "status",
    "detail": "`https://example.org/gone.jpg` answered 404", "status": 404, "attempts": 1, "elapsed_ms": 83, "line": 7,
})))]
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
    /// The file that it stands for, unless that is gone.
    #[schema(value_type = FileFields)]
    #[serde(flatten, serialize_with = "file")]
    pub file: Option<KnownFile>,
    /// What the steps of its job found out, by their names.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Box<RawValue>>,
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
    /// Where it could not be had, the digest that the list promises: then there is no file with one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Where it could not be had, the other columns of the list.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

impl OutcomeRow {
    /// The list's other columns, where it could not be had.
    pub fn other_columns(&self) -> Option<Box<Map<String, Value>>> {
        serde_json::from_str(self.metadata.as_ref()?.get()).ok()
    }
}

/// What an outcome says of its file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct FileFields {
    /// Below the store's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    /// EXIF orientation, where the picture has to be turned.
    #[serde(skip_serializing_if = "Option::is_none")]
    orientation: Option<u8>,
    /// Set if nothing decodes the picture.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecoded: bool,
}

#[expect(clippy::ref_option, reason = "serde passes references")]
fn file<S: serde::Serializer>(file: &Option<KnownFile>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = file.as_ref().map(|file| FileFields {
        path: Some(file.path.clone()),
        format: Some(file.format.clone()),
        media_type: Some(file.media_type.clone()),
        bytes: Some(file.bytes),
        width: file.dimensions.map(|(width, _)| width),
        height: file.dimensions.map(|(_, height)| height),
        sha256: Some(file.sha256),
        orientation: file.orientation,
        undecoded: file.undecoded.is_some(),
    });
    shown.serialize(serializer)
}

/// Which outcomes of a job are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutcomeFilter {
    /// All that the history has: every one but `unchanged`, unless the job asked for those too.
    #[default]
    All,
    /// Targets that were wanted and could not be had, see [`Outcome::is_failure`].
    Failed,
    /// One outcome.
    Only(Outcome),
}

impl OutcomeFilter {
    /// The condition, in SQL, for further rows of `outcomes o`.
    pub(super) fn condition(self) -> String {
        match self {
            Self::All => String::new(),
            Self::Failed => format!("AND {}", is_failure()),
            Self::Only(outcome) => format!("AND o.outcome = '{outcome}'"),
        }
    }
}

/// The condition, in SQL, for rows of `outcomes o` that are failures.
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
pub(super) fn select_jobs() -> String {
    format!(
        "SELECT jobs.*, rejected + failed + CASE skipped WHEN 0 THEN 0 ELSE (SELECT count(*) FROM outcomes o \
         WHERE o.job = jobs.id AND o.outcome = 'skipped' AND {}) END AS failures FROM jobs",
        is_failure()
    )
}

/// Selects the newest job of source `$1` that has done anything, with an id up to `$2`.
pub(super) fn select_newest() -> String {
    format!(
        "{} WHERE source_id = $1 AND id <= $2 AND (interrupted AND finished IS NOT NULL OR targets > 0) ORDER BY id DESC LIMIT 1",
        select_jobs()
    )
}

/// Returns the greatest id of a job that may have begun by `now`. Ids of version 7 begin with the time in
/// milliseconds.
pub(super) fn last_id(now: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(millis(clock::latest_believable(now))).unwrap_or_default();
    Uuid::from_u128(millis << 80 | ((1 << 80) - 1))
}

/// Returns up to `limit` jobs, those that began last first. Jobs whose ids lie in the future come behind all others: a
/// clock that was ahead made these ids, so that nobody knows when they began.
///
/// # Errors
///
/// If the catalog cannot be read.
pub async fn recent_jobs(
    catalog: &dyn Catalog,
    limit: u32,
    now: DateTime<Utc>,
) -> Result<Vec<JobRow>, CatalogError> {
    let behind = Uuid::from_u128(last_id(now).as_u128() + 1);
    let mut recent = catalog.jobs(None, Some(behind), limit).await?;
    let room = limit.saturating_sub(u32::try_from(recent.len()).unwrap_or(u32::MAX));
    if room > 0 {
        let newest = catalog.jobs(None, None, room).await?;
        recent.extend(newest.into_iter().filter(|job| job.id >= behind));
    }
    Ok(recent)
}

/// Why a job failed whose process ended before it did.
pub(super) const INTERRUPTED: &str = "interrupted: the process ended before the job did";
