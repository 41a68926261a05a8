//! Jobs that clients post: what they asked for, until it is done.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use url::Url;
use uuid::Uuid;

use super::{JobRow, Record};
use crate::target::{OnError, State};

/// A job that a client posts. It is queued until somebody begins it.
#[derive(Debug, Clone)]
pub struct Post {
    /// The job.
    pub id: Uuid,
    /// What makes a repeat harmless.
    pub idempotency: Option<Idempotency>,
    /// Where its URLs come from, without credentials.
    pub source: String,
    /// The kind of file it brings.
    pub kind: String,
    /// Its album; empty: the root folder.
    pub album: String,
    /// What was asked for but its targets: a JSON object.
    pub request: String,
    /// How many targets it has; `None`: its list tells.
    pub total: Option<u64>,
    /// When it came.
    pub posted: DateTime<Utc>,
    /// URL that is called when the job ends.
    pub callback: Option<String>,
    /// Its groups, in order.
    pub groups: Vec<NewGroup>,
    /// Its targets in the order in which they are begun: JSON arrays of [`PART_TARGETS`], the last maybe of fewer.
    pub parts: Vec<String>,
}

/// Who is told of the end of a posted job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Callback)]
pub struct CallbackRow {
    /// Its URL. What is behind the host may be a secret, and is shown as `***`.
    #[serde(serialize_with = "hidden")]
    pub url: String,
    /// How often it was called.
    pub attempts: u32,
    /// When it had the news; `None`: not yet, or never.
    #[schema(required = true)]
    pub delivered: Option<DateTime<Utc>>,
    /// When it is called next, since it could not be told yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn hidden<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let Ok(url) = url.parse::<Url>() else {
        return serializer.serialize_str("***");
    };
    let origin = url.origin().ascii_serialization();
    let is_bare = url.path() == "/" && url.query().is_none();
    serializer.serialize_str(&match is_bare {
        true => format!("{origin}/"),
        false => format!("{origin}/***"),
    })
}

/// How many targets a part has.
pub const PART_TARGETS: u64 = 500;

/// A client that posts twice what has the same key gets one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Names the client and its key.
    pub key: [u8; 16],
    /// Names what was posted.
    pub digest: [u8; 16],
}

/// What became of a [`Post`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It is queued.
    Queued,
    /// It came before, and is this job.
    Earlier(Uuid),
    /// Its key came before, with something else: this job.
    Other(Uuid),
}

/// A group of a job that is posted.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// What its client calls it.
    pub id: String,
    /// What a failure means for the rest of it.
    pub on_error: OnError,
    /// What its client says of it: a JSON object.
    pub metadata: Option<String>,
    /// How many targets it has.
    pub targets: u64,
}

/// A group of a posted job.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Group)]
pub struct GroupRow {
    /// Order within the job, from 0.
    pub number: u32,
    /// What its client calls it.
    pub id: String,
    /// How far it is: `queued`, `ongoing`, `completed`, or `failed` or `cancelled`, which it may be
    /// before all of it is done.
    pub state: State,
    /// What a failure means for the rest of it.
    pub on_error: OnError,
    /// How many targets it has.
    pub targets: u64,
    /// How many of them have their outcome.
    pub done: u64,
    /// How many of those were wanted and could not be had.
    pub failures: u64,
    /// The first of them: `seq`, `url`, `outcome`, `reason`, `detail`.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw")]
    pub error: Option<String>,
    /// What its client says of it.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw")]
    pub metadata: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde passes references")]
fn raw<S: Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let json = json.as_deref().map(serde_json::from_str::<&RawValue>);
    json.and_then(Result::ok).serialize(serializer)
}

/// How many groups a job has, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
pub struct GroupCounts {
    /// All.
    pub total: u64,
    /// Those of which nothing is done.
    pub queued: u64,
    /// Those that are under way.
    pub ongoing: u64,
    /// Those that are done without a failure.
    pub completed: u64,
    /// Those with a failure.
    pub failed: u64,
    /// Those that were cancelled before any failure.
    pub cancelled: u64,
}

/// What it takes to run a posted job.
#[derive(Debug, Clone)]
pub struct PostedJob {
    /// The job so far.
    pub job: JobRow,
    /// What was asked for but its targets: a JSON object.
    pub request: String,
    /// The number behind that of the outcome which was recorded last.
    pub nth: u64,
    /// The place behind the last of those that have an outcome.
    pub next_seq: u64,
}

/// The state of a group, in SQL, by its counters, and by the reason of its first failure as [`GroupSums`] writes it: a
/// quote within a text would have a backslash before it.
pub(super) const GROUP_STATE: &str = "CASE WHEN failures > 0 AND error LIKE '%\"reason\":\"cancelled\"%' THEN 'cancelled' \
                                      WHEN failures > 0 THEN 'failed' WHEN done >= targets THEN 'completed' \
                                      WHEN done > 0 THEN 'ongoing' ELSE 'queued' END";

/// What records add to a group's figures.
#[derive(Debug, Default)]
pub(super) struct GroupSums {
    pub(super) done: u64,
    pub(super) failures: u64,
    /// The first failure, as a JSON object.
    pub(super) error: Option<String>,
}

impl GroupSums {
    /// By job and number of the group.
    pub(super) fn of(records: &[&Record]) -> BTreeMap<(Uuid, u32), Self> {
        let mut groups: BTreeMap<(Uuid, u32), Self> = BTreeMap::new();
        for record in records {
            let Some(number) = record.group_number else {
                continue;
            };
            let sums = groups.entry((record.job, number)).or_default();
            sums.done += 1;
            if record.outcome.is_failure(record.reason) {
                sums.failures += 1;
                sums.error.get_or_insert_with(|| {
                    let error = serde_json::json!({
                        "seq": record.seq,
                        "url": record.url,
                        "outcome": record.outcome,
                        "reason": record.reason,
                        "detail": record.detail,
                    });
                    error.to_string()
                });
            }
        }
        groups
    }
}
