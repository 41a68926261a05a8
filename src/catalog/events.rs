//! Events: what others may want to know, and who wants it.
//!
//! The catalog writes an event in the transaction that makes it true, and only where a [`ReceiverRow`] wants it: a
//! store for which nobody was ever registered has none. Whoever writes to the catalog need not decide: both catalogs have
//! one function to write events with, and it looks.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FileRow, ImageRow, JobRow, Record};
use crate::target::{AlbumName, Outcome, State};

/// What can happen.
pub const EVENTS: [&str; 14] = [
    "job.started",
    "job.resumed",
    "job.completed",
    "job.incomplete",
    "job.failed",
    "job.cancelled",
    "file.stored",
    "file.changed",
    "file.updated",
    "file.deleted",
    "album.created",
    "album.updated",
    "album.renamed",
    "album.deleted",
];

/// Something that others may want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The job that it belongs to.
    pub job: Option<Uuid>,
    /// What happened, such as `file.stored`.
    pub event: String,
    /// The rest, as a JSON object.
    pub payload: String,
}

/// An event of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Greater than that of every earlier event.
    pub id: i64,
    /// When it was written.
    pub created: DateTime<Utc>,
    /// What it tells.
    #[serde(flatten)]
    pub event: Event,
}

/// Somebody who wants events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverRow {
    /// Its name. The empty one stands for all who listen to the daemon.
    pub name: String,
    /// What it wants.
    pub events: Wants,
    /// The last event that it has, or need not have.
    pub position: i64,
    /// When the settings last had it.
    pub seen: DateTime<Utc>,
}

/// An event that a receiver refused until it was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The receiver.
    pub receiver: String,
    /// The event, with its id.
    #[serde(flatten)]
    pub row: EventRow,
    /// When it was given up.
    pub died: DateTime<Utc>,
    /// The last answer of the receiver.
    pub answer: String,
}

/// What waits for a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The receiver.
    pub receiver: String,
    /// Events of the outbox behind its position, also those that it does not want.
    pub waiting: u64,
    /// Its dead letters.
    pub dead: u64,
}

/// Which events are wanted: names, or patterns such as `job.*` and `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wants(Vec<String>);

impl Wants {
    /// Reads names and patterns, each of which has to mean an event.
    ///
    /// # Errors
    ///
    /// The first that means none.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut wants = Self::default();
        for pattern in patterns {
            if !EVENTS.iter().any(|event| matches(pattern, event)) {
                return Err(pattern.to_owned());
            }
            wants.0.push(pattern.to_owned());
        }
        Ok(wants)
    }

    /// All of them.
    pub fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// What any of these want.
    pub(super) fn union(texts: impl IntoIterator<Item = String>) -> Self {
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        Self(texts.into_iter().flat_map(words).collect())
    }

    /// Whether they have `event` among them.
    pub fn has(&self, event: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, event))
    }

    /// Whether there are any that begin with `prefix`.
    pub(super) fn has_any(&self, prefix: &str) -> bool {
        let mut events = EVENTS.iter().filter(|event| event.starts_with(prefix));
        events.any(|event| self.has(event))
    }
}

fn matches(pattern: &str, event: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => event.starts_with(start),
        None => pattern == event,
    }
}

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl FromStr for Wants {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::union([text.to_owned()]))
    }
}

/// What an event says of the job that it belongs to.
#[derive(Debug, Clone, Default)]
pub(super) struct OfJob {
    pub(super) source: String,
    pub(super) schedule: Option<String>,
}

impl Event {
    /// Tells how a job is. `is_resumed`: an earlier process began it, or the job that it continues.
    pub fn of_job(job: &JobRow, is_resumed: bool) -> Self {
        let event = match job.state {
            State::Queued | State::Ongoing if is_resumed => "job.resumed",
            State::Queued | State::Ongoing => "job.started",
            State::Completed => "job.completed",
            State::Incomplete => "job.incomplete",
            State::Failed => "job.failed",
            State::Cancelled => "job.cancelled",
        };
        let mut payload = serde_json::to_value(job).unwrap_or_default();
        if let Value::Object(fields) = &mut payload {
            fields.remove("id");
        }
        Self {
            job: Some(job.id),
            event: event.to_owned(),
            payload: payload.to_string(),
        }
    }

    /// Tells of the file that a target brought.
    pub(super) fn of_file(record: &Record, file: &FileRow, job: &OfJob) -> Self {
        let event = match record.outcome {
            Outcome::Changed => "file.changed",
            _ => "file.stored",
        };
        let (width, height) = file.dimensions.unzip();
        let payload = json!({
            "source": job.source,
            "schedule": job.schedule,
            "file": file.id,
            "path": file.path,
            "album": file.album.as_ref().map(AlbumName::as_str),
            "format": file.format,
            "media_type": file.media_type,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "width": width,
            "height": height,
            "url": record.url,
        });
        Self {
            job: Some(record.job),
            event: event.to_owned(),
            payload: payload.to_string(),
        }
    }

    /// Tells of a file's end.
    pub(super) fn of_deleted(image: &ImageRow, reason: &str) -> Self {
        let file = &image.file;
        let payload = json!({
            "file": file.id,
            "path": file.path,
            "album": Some(&image.album).filter(|album| !album.is_empty()),
            "format": file.format,
            "media_type": file.media_type,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "reason": reason,
        });
        Self {
            job: None,
            event: "file.deleted".to_owned(),
            payload: payload.to_string(),
        }
    }

    /// Tells what became of an album: `event` is `album.created`, or another that begins so.
    pub(super) fn of_album(event: &str, album: &str, job: Option<Uuid>) -> Self {
        Self {
            job,
            event: event.to_owned(),
            payload: json!({ "album": album }).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_begins_like_them() {
        let wants = Wants::new(["job.*", "file.stored"]).unwrap();
        assert!(wants.has("job.failed") && wants.has("file.stored"));
        assert!(!wants.has("file.changed") && !wants.has("album.created"));
        assert!(wants.has_any("file.") && !wants.has_any("album."));
        assert!(EVENTS.iter().all(|event| Wants::all().has(event)));
        assert_eq!(wants.to_string().parse(), Ok(wants));
        for wrong in ["job", "job.finished", "", "x*", "*.failed"] {
            assert_eq!(Wants::new([wrong]), Err(wrong.to_owned()));
        }
        assert!(!Wants::default().has("job.failed"));
    }
}
