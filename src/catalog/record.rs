//! What became of targets, to be recorded in batches.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Acceptance, SourceId, TargetKey};
use crate::naming::NameFrom;
use crate::target::{AlbumName, Counts, Outcome, Reason, Sha256};

/// Records that are written in one transaction.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Names the batch: what has the same id is not recorded twice in a row.
    pub id: Uuid,
    /// Who writes one batch after the other, such as a process.
    pub writer: Uuid,
    /// When it is recorded.
    pub now: DateTime<Utc>,
    /// What became of targets.
    pub records: Vec<Record>,
}

/// What became of one target.
#[derive(Debug, Clone)]
pub struct Record {
    /// `None` for a line that is no URL: nothing is remembered of it but the outcome.
    pub key: Option<TargetKey>,
    /// The job.
    pub job: Uuid,
    /// Order within the job; no two records of a job share it.
    pub seq: u64,
    /// The URL without credentials, or the line.
    pub url: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was rejected, failed or skipped.
    pub reason: Option<Reason>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// Requests begun.
    pub attempts: u32,
    /// Milliseconds that it took.
    pub elapsed_ms: Option<u64>,
    /// Where redirects led, when elsewhere.
    pub final_url: Option<String>,
    /// Line in the list.
    pub line: Option<u64>,
    /// The group that the list puts it in.
    pub group: Option<String>,
    /// What the list wants; `None` for a line that is no URL.
    pub wanted: Option<Wanted>,
    /// The source that lists it, when it is to be noticed that it no longer does.
    pub listed: Option<SourceId>,
    /// The group of a posted job that it belongs to, by its number.
    pub group_number: Option<u32>,
    /// In a posted job, which outcome it is in the order in which they are recorded. Such a job has a row for each.
    pub nth: Option<u64>,
    /// What the steps found out: a JSON object.
    pub steps: Option<String>,
    /// The file that the URL stands for: brought or confirmed in this job.
    pub file: Option<Uuid>,
    /// When the origin brought or confirmed it; `None` when it was not asked or did not.
    pub checked: Option<DateTime<Utc>>,
    /// Validators and freshness of that answer.
    pub etag: Option<String>,
    /// See [`etag`](Self::etag).
    pub last_modified: Option<String>,
    /// See [`etag`](Self::etag).
    pub fresh_until: Option<DateTime<Utc>>,
    /// Criteria of the job, if it rejected the target. `None` also if the target would have failed in any job.
    pub failed_under: Option<Acceptance>,
    /// See [`Known::gone_until`](super::Known::gone_until).
    pub gone_until: Option<DateTime<Utc>>,
    /// Bytes that are kept because of it.
    pub bytes: u64,
    /// The file's record, when its bytes are new.
    pub new_file: Option<FileRow>,
    /// Facts from another inspection of the file, if it was kept before.
    pub recheck: Option<Recheck>,
}

impl Record {
    /// Whether the target was asked for, rather than left alone.
    pub(super) fn was_tried(&self) -> bool {
        match self.outcome {
            Outcome::Skipped => false,
            // Its record was fresh, unless an answer confirmed it.
            Outcome::Unchanged => self.checked.is_some(),
            _ => true,
        }
    }

    /// Returns the URL that answered, if redirects led away from the target's.
    pub(super) fn answered(&self) -> Option<&str> {
        let answered = without_fragment(self.final_url.as_deref()?);
        (answered != without_fragment(&self.url)).then_some(answered)
    }

    /// Whether it counts as one more failure in a row.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Rejected | Outcome::Failed)
    }

    /// Whether it stands for a file that another URL brought. A link to the bytes of another file is one of its own.
    pub(super) fn is_second(&self) -> bool {
        self.outcome == Outcome::Duplicate && self.new_file.is_none()
    }

    /// Whether it leaves a row in the history. Unchanged targets are counted only, so that it does not swell.
    pub(super) fn has_row(&self) -> bool {
        self.nth.is_some() || self.outcome != Outcome::Unchanged
    }

    /// What the list wanted, where it could not be had.
    pub(super) fn missed(&self) -> Option<&Wanted> {
        self.wanted.as_ref().filter(|_| self.reason.is_some())
    }

    /// The album that it was meant for; empty: the root folder.
    pub(super) fn album(&self) -> &str {
        let album = self
            .wanted
            .as_ref()
            .and_then(|wanted| wanted.album.as_ref());
        album.map_or("", AlbumName::as_str)
    }

    /// The name that its list wants.
    pub(super) fn name(&self) -> Option<&str> {
        self.wanted.as_ref()?.name.as_deref()
    }
}

fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(url, _)| url)
}

/// What a list wants of a target besides its URL.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The name.
    pub name: Option<String>,
    /// The album; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// The digest that the bytes must have.
    pub sha256: Option<Sha256>,
    /// The list's other columns: a JSON object. `None` for a target that was had, whose file keeps them.
    pub metadata: Option<String>,
}

/// A file to record, or to record anew after its bytes changed.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// The file; an id that is known already means that its bytes are replaced.
    pub id: Uuid,
    /// The staged file that holds the bytes.
    pub stage: Uuid,
    /// Where it is published, relative to the store's root.
    pub path: String,
    /// The album that it belongs to.
    pub album: Option<AlbumName>,
    /// gannet's word for the format.
    pub format: &'static str,
    /// Media type of the bytes.
    pub media_type: &'static str,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// Width and height in pixels, as shown.
    pub dimensions: Option<(u32, u32)>,
    /// Whether it may run code in a browser.
    pub active: bool,
    /// See [`KnownFile::orientation`](super::KnownFile::orientation).
    pub orientation: Option<u8>,
    /// See [`KnownFile::undecoded`](super::KnownFile::undecoded).
    pub undecoded: Option<String>,
    /// What gave it its name.
    pub name_from: NameFrom,
    /// The list's other columns, as a JSON object.
    pub metadata: Option<String>,
    /// See [`KnownFile::mtime_ns`](super::KnownFile::mtime_ns).
    pub mtime_ns: Option<i64>,
    /// See [`KnownFile::criteria`](super::KnownFile::criteria).
    pub criteria: Option<String>,
    /// See [`ImageRow::header_name`](super::ImageRow::header_name).
    pub header_name: Option<String>,
    /// See [`ImageRow::line`](super::ImageRow::line).
    pub line: Option<u64>,
    /// See [`ImageRow::group`](super::ImageRow::group).
    pub group: Option<String>,
    /// See [`ImageRow::last_modified`](super::ImageRow::last_modified).
    pub last_modified: Option<DateTime<Utc>>,
}

/// Facts about a recorded file from an inspection by other criteria than those it was recorded with.
#[derive(Debug, Clone)]
pub struct Recheck {
    /// The file.
    pub file: Uuid,
    /// Digest of the inspected bytes.
    pub sha256: Sha256,
    /// gannet's word for the format.
    pub format: String,
    /// Media type of the bytes.
    pub media_type: String,
    /// Width and height in pixels, as shown.
    pub dimensions: Option<(u32, u32)>,
    /// Set if it may run code in a browser.
    pub active: bool,
    /// See [`KnownFile::orientation`](super::KnownFile::orientation).
    pub orientation: Option<u8>,
    /// See [`KnownFile::undecoded`](super::KnownFile::undecoded).
    pub undecoded: Option<String>,
    /// The checks that the bytes passed.
    pub criteria: Option<String>,
}

impl FileRow {
    /// Whether it is none whose bytes are replaced: that one may be in another album by now.
    pub(super) fn is_new(&self) -> bool {
        self.id == self.stage
    }
}

/// What records add to a job's figures.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) counts: Counts,
    pub(super) bytes: u64,
}

impl Sums {
    pub(super) fn of(records: &[&Record]) -> BTreeMap<Uuid, Self> {
        let mut jobs: BTreeMap<Uuid, Self> = BTreeMap::new();
        for record in records {
            let sums = jobs.entry(record.job).or_default();
            sums.counts.add(record.outcome);
            sums.bytes += record.bytes;
        }
        jobs
    }
}
