//! What a report says of one target, and of a whole job.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::catalog::KnownFile;
use crate::metrics::Told;
use crate::naming::NameFrom;
use crate::source::Invalid;
use crate::target::{AlbumName, Outcome, Reason, Sha256};

pub use crate::target::{Counts, State};

/// One target's line in a report. Fields that do not apply are left out.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// The URL as [`SafeUrl`](crate::target::SafeUrl) prints it; for a line that is no URL, the line's
    /// first 200 characters.
    pub url: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Where the file is, relative to the store's root, with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// gannet's word for the format, such as `jpeg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Media type of the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Length of the file in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Width in pixels, as shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels, as shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Digest of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Why it was rejected, failed or skipped; `None` where a dry run skipped what it would ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Status of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Requests begun for it, retries included and redirects not.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Milliseconds from the first request to the last byte, waiting between attempts included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Where redirects led, when elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_url: Option<String>,
    /// The origin's time of the last modification (`Last-Modified`, RFC 9110, section 8.8.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// What gave the file its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_from: Option<NameFrom>,
    /// Line in the list, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Whether the file may run code in a browser; left out when not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub active: bool,
    /// How the picture was turned: its EXIF orientation, 2 to 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orientation: Option<u8>,
    /// Whether the picture was to be decoded and nothing decodes its variant; left out when not. `detail` names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undecoded: bool,
    /// The group that the list puts it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// What the steps of the job found out, by their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Box<Map<String, Value>>>,
    /// What would be done about it; only in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would: Option<Would>,
    /// The list's other columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

impl Item {
    /// Bytes that it brought and that are kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        match self.outcome {
            Outcome::Stored | Outcome::Changed => self.bytes.unwrap_or(0),
            _ => 0,
        }
    }

    /// What the figures of the process are told of it.
    pub(super) fn told(&self) -> Told<'_> {
        Told {
            url: &self.url,
            outcome: self.outcome,
            reason: self.reason,
            kept: self.kept_bytes(),
            attempts: self.attempts,
            elapsed_ms: self.elapsed_ms,
        }
    }

    /// A line that says no more than what became of `url`.
    pub fn new(url: String, outcome: Outcome) -> Self {
        Self {
            url,
            outcome,
            path: None,
            format: None,
            media_type: None,
            bytes: None,
            width: None,
            height: None,
            sha256: None,
            reason: None,
            detail: None,
            status: None,
            attempts: 0,
            elapsed_ms: None,
            final_url: None,
            last_modified: None,
            name_from: None,
            line: None,
            active: false,
            orientation: None,
            undecoded: false,
            group: None,
            steps: None,
            would: None,
            metadata: None,
        }
    }
}

impl Item {
    /// Says which file the target stands for.
    pub(super) fn describe(&mut self, file: &KnownFile) {
        self.path = Some(file.path.clone());
        self.name_from = Some(file.name_from);
        self.format = Some(file.format.clone());
        self.media_type = Some(file.media_type.clone());
        self.bytes = Some(file.bytes);
        self.sha256 = Some(file.sha256);
        self.width = file.dimensions.map(|(width, _)| width);
        self.height = file.dimensions.map(|(_, height)| height);
        self.active = file.active;
        self.orientation = file.orientation;
        self.undecoded = file.undecoded.is_some();
        if self.detail.is_none() {
            self.detail.clone_from(&file.undecoded);
        }
    }
}

impl From<Invalid> for Item {
    fn from(invalid: Invalid) -> Self {
        let mut item = Self::new(invalid.text, Outcome::Failed);
        item.reason = Some(invalid.reason);
        item.detail = Some(invalid.detail);
        item.line = invalid.line;
        item.group = invalid.group;
        item
    }
}

/// What a job does about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Would {
    /// Fetch it: it is not known, or what is known of it is not there.
    Fetch,
    /// Ask the origin whether it changed.
    Ask,
    /// Nothing: its record is fresh.
    Fresh,
    /// Nothing: it failed before, and its time has not come again.
    Wait,
}

impl Would {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Ask => "ask",
            Self::Fresh => "fresh",
            Self::Wait => "wait",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a job came to: a report without its items.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Version of the report's form.
    pub version: u32,
    /// The job's id.
    pub job: Uuid,
    /// Where the URLs came from, without credentials.
    pub source: String,
    /// The job's album; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// The interrupted job that it goes on with: what that had is fresh to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Uuid>,
    /// How it ended.
    pub state: State,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// Targets by outcome.
    pub counts: Counts,
    /// Lines that repeat an earlier target and were dropped; they are no targets.
    pub repeats: u64,
    /// Files that were removed: pruned, or beyond what their album may hold. Not counted is what new bytes replaced, be it
    /// in its place or by a file with a name of its own.
    pub removed: u64,
    /// Bytes of the bodies that were stored or changed.
    pub bytes: u64,
    /// Rejected, failed and skipped targets by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// What somebody should look at although the job came to its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why the job could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What its end means to who started it.
    #[serde(skip)]
    pub ending: Ending,
}

/// What a job's end means to who started it: the exit code in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Every target is fine, or no more failed than tolerated.
    #[default]
    Fine,
    /// It ran, but more targets failed than tolerated, or fewer were stored than asked for.
    Failures,
    /// It could not run, or not to its end: the list, the store, the catalog or a report failed.
    Broken,
    /// It was stopped from outside; what it had is kept.
    Stopped,
    /// It was interrupted, and the next process goes on with it.
    Left,
}
