//! What gannet remembers: URLs, files, albums, jobs and their outcomes.
//!
//! [`Catalog`] reads and writes it: in SQLite beside the files, or in PostgreSQL, as [`Settings`] say. Reads go by
//! chunks of keys, long results by pages that begin behind a key, writes by batches: one transaction for hundreds of
//! [`Record`]s, after which all of them are durable. [`Known`] is what an earlier run learnt of a URL; [`JobRow`] and
//! [`OutcomeRow`] are the history.
//!
//! This room knows nothing of how bytes are fetched or kept: it stores what it is told, in one go.

mod change;
mod copy;
mod error;
mod events;
mod history;
mod patient;
mod posted;
mod postgres;
mod record;
mod sqlite;
mod tables;
mod upkeep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeZone as _, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::fetch::{LONGEST, Validators, recorded_url};
use crate::local_path::LocalPath;
use crate::naming::NameFrom;
use crate::target::{AlbumName, Outcome, Reason, Sha256, Sha256Hasher, State};

use patient::{Patience, Patient};

pub use change::{Change, Changes, ImageFilter, Rename};
pub use copy::copy;
pub use error::{CatalogError, DatabaseError};
pub use events::{Backlog, DeadLetter, EVENTS, Event, EventRow, ReceiverRow, Wants};
pub use history::{JobEnd, JobRow, NewJob, OutcomeFilter, OutcomeRow, ScheduleRow, recent_jobs};
pub use posted::{
    CallbackRow, GroupCounts, GroupRow, Idempotency, NewGroup, PART_TARGETS, Post, Posted,
    PostedJob,
};
pub use record::{Batch, FileRow, Recheck, Record, Wanted};
pub use tables::{Column, Kind, Row, Status, TABLES, Table, TableStatus, Value};
pub use upkeep::{AlbumRow, ImageRow, Limits, LookUp, UrlName, UrlRow};

/// `[catalog]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Empty: SQLite in the store; `sqlite:PATH`: elsewhere; `postgres://…`: PostgreSQL.
    pub url: String,
    /// How long to wait for a catalog that is away or held by others, before what needs it fails.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
}

impl Settings {
    /// What is wrong with `url`, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        match Address::of(self, Path::new("")) {
            Ok(Address::Postgres(url)) if url.query_pairs().any(|(key, _)| key == "password") => {
                Some(
                    "holds a password behind `?`; expected `USER:PASSWORD@HOST`, or PGPASSWORD"
                        .to_owned(),
                )
            }
            Ok(_) => None,
            Err(CatalogError::NotALocalPath(error)) => Some(error.to_string()),
            Err(_) => Some(format!(
                "`{}` names no catalog; expected `sqlite:PATH`, `postgres://HOST/DATABASE`, or nothing",
                masked(&self.url)
            )),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &masked(&self.url))
            .field("patience", &self.patience)
            .finish()
    }
}

/// Names what a job wants of a URL: the URL, the album it goes into, and the name that the list asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey([u8; 16]);

impl TargetKey {
    /// The key of a URL with its credentials; the digest does not show them.
    pub fn of(url: &Url, album: Option<&AlbumName>, name: Option<&str>) -> Self {
        Self(half_digest(&[
            url.as_str(),
            album.map_or("", AlbumName::as_str),
            name.unwrap_or(""),
        ]))
    }
}

/// Names a source, so that the URLs which it lists can be told from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId([u8; 16]);

impl SourceId {
    /// The id of what reads `source`, without credentials, into `album`.
    pub fn of(source: &str, kind: &str, album: Option<&AlbumName>) -> Self {
        Self(half_digest(&[
            source,
            kind,
            album.map_or("", AlbumName::as_str),
        ]))
    }
}

/// Identifies the criteria by which a job accepts a URL: the kind with its settings, what the list promises, and the
/// steps for the file. A rejection matters to another job only if both have the same criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptance([u8; 16]);

impl Acceptance {
    /// Digests `parts`. No part may hold a zero byte.
    pub fn of(parts: &[&str]) -> Self {
        Self(half_digest(parts))
    }
}

/// The first half of a SHA-256 of `parts`, none of which holds a zero byte.
fn half_digest(parts: &[&str]) -> [u8; 16] {
    let mut hasher = Sha256Hasher::default();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update(&[0]);
        }
        hasher.update(part.as_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finish().0[..16]);
    half
}

/// What is known of a URL.
#[derive(Debug, Clone)]
pub struct Known {
    /// The last job that had it.
    pub job: Uuid,
    /// What it brought.
    pub file: Option<KnownFile>,
    /// `ETag` of the last answer that brought or confirmed the file.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
    /// The URL that gave that answer, in the form of [`recorded_url`], if it is not the target's own. The validators
    /// are sent only to this URL.
    pub answered: Option<String>,
    /// End of the freshness of that answer (RFC 9111, section 4.2), and of the redirects that led to it.
    pub fresh_until: Option<DateTime<Utc>>,
    /// When the origin gave that answer.
    pub checked: Option<DateTime<Utc>>,
    /// When it was last asked for, with whatever outcome.
    pub tried: Option<DateTime<Utc>>,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// How many times in a row it was rejected or failed.
    pub failures: u32,
    /// Criteria of the job that rejected it last. `None` if it would have failed in any job.
    pub failed_under: Option<Acceptance>,
    /// Until when it is gone, if it answered 410: [`DateTime::MAX_UTC`], or the end of the freshness of the redirects that
    /// led to that answer.
    pub gone_until: Option<DateTime<Utc>>,
    /// What became of it last.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<Reason>,
}

impl Known {
    /// Whether the origin need not be asked: its answer is fresh by its own word, or younger than
    /// `refresh_after`.
    pub fn is_fresh(&self, now: DateTime<Utc>, refresh_after: Duration) -> bool {
        let Some(checked) = self.checked.filter(|_| self.file.is_some()) else {
            return false;
        };
        let Some(age) = clock::age(checked, now) else {
            return false;
        };
        // No answer is recorded as fresh for longer than `LONGEST`. A longer lifetime means that the clock has
        // changed.
        let lifetime = |until: DateTime<Utc>| (until - clock::TOLERANCE - checked).to_std();
        let is_fresh = |until| now < until && lifetime(until).unwrap_or_default() <= LONGEST;
        self.fresh_until.is_some_and(is_fresh) || age < refresh_after
    }

    /// Returns the validators for a request to `hop`, the target's URL `listed` or a redirect from it. `None` if
    /// another URL sent them (RFC 9110, section 8.8), or if there are none.
    pub fn validators(&self, listed: &Url, hop: &Url) -> Option<Validators> {
        let gave_them = match &self.answered {
            None => hop == listed || recorded_url(hop) == recorded_url(listed),
            Some(answered) => recorded_url(hop) == *answered,
        };
        let validators = Validators {
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
        };
        Some(validators).filter(|validators| gave_them && !validators.is_empty())
    }

    /// Has the origin asked for the bytes, whatever it said about those that were there.
    pub fn forget_validators(&mut self) {
        self.etag = None;
        self.last_modified = None;
        self.answered = None;
        self.fresh_until = None;
        self.checked = None;
    }
}

/// A file as the catalog has it.
#[derive(Debug, Clone)]
pub struct KnownFile {
    /// Stays the same when the bytes change.
    pub id: Uuid,
    /// The staged file that its bytes came from, and go back to when it is taken away.
    pub stage: Uuid,
    /// Relative to the store's root.
    pub path: String,
    /// gannet's word for the format.
    pub format: String,
    /// Media type of the bytes.
    pub media_type: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// Width and height in pixels, as shown.
    pub dimensions: Option<(u32, u32)>,
    /// Whether it may run code in a browser.
    pub active: bool,
    /// How the picture has to be turned to stand upright: the EXIF orientation, 2 to 8. `None`: as it is, or unknown.
    pub orientation: Option<u8>,
    /// The variant that nothing decodes, in words, if `check = "decode"` could not look at the pixels.
    pub undecoded: Option<String>,
    /// What gave it its name.
    pub name_from: NameFrom,
    /// When the kept bytes were last modified, in nanoseconds since 1970; `None` when nobody looked.
    pub mtime_ns: Option<i64>,
    /// Whether more than one URL may stand for it.
    pub shared: bool,
    /// The checks that its bytes passed, in the notation of its kind. `None` if unknown.
    pub criteria: Option<String>,
    /// Whether it is where it should be. The catalog says yes; who looked says what he saw.
    pub is_present: bool,
    /// Set if its bytes were inspected again, so that these facts are newer than the catalog's.
    pub is_rechecked: bool,
}

impl KnownFile {
    /// Takes over the facts that another inspection of the same bytes found.
    pub fn take_facts(&mut self, looked: &Self) {
        self.format.clone_from(&looked.format);
        self.media_type.clone_from(&looked.media_type);
        self.dimensions = looked.dimensions;
        self.active = looked.active;
        self.orientation = looked.orientation;
        self.undecoded.clone_from(&looked.undecoded);
        self.criteria.clone_from(&looked.criteria);
        self.is_rechecked = true;
    }

    /// Returns what to record of another inspection, if there was one.
    pub fn recheck(&self) -> Option<Recheck> {
        self.is_rechecked.then(|| Recheck {
            file: self.id,
            sha256: self.sha256,
            format: self.format.clone(),
            media_type: self.media_type.clone(),
            dimensions: self.dimensions,
            active: self.active,
            orientation: self.orientation,
            undecoded: self.undecoded.clone(),
            criteria: self.criteria.clone(),
        })
    }
}

/// Among which files the same bytes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Those of one album.
    Album,
    /// All.
    Store,
}

/// Remembers what jobs did.
///
/// # Contract
/// - What a method wrote is durable once it returns; when it fails, nothing of it is written.
/// - Every method may be called again after an error, also one that was written although its answer was lost: once
///   more does no more. [`CatalogError::is_transient`] says whether that may help.
/// - Lists come in the order of a key, and a page begins behind the last key of the page before.
/// - A dropped call is written whole or not at all.
///
/// A new catalog is a folder beside these, an arm in [`open`] and in [`open_to_read`], and one in `suite.rs`, which holds
/// every catalog to this contract.
///
/// # Errors
///
/// Every method fails when the database does.
#[async_trait]
pub trait Catalog: fmt::Debug + Send + Sync {
    /// What is known of each of `keys`; URLs that are not known are left out. Best in chunks of some
    /// hundreds.
    async fn known(&self, keys: Vec<TargetKey>) -> Result<HashMap<TargetKey, Known>, CatalogError>;

    /// Which of `paths` a recorded file has.
    async fn taken(&self, paths: Vec<String>) -> Result<HashSet<String>, CatalogError>;

    /// Where the files belong whose current bytes are these staged ones; the others belong nowhere.
    async fn staged(&self, stages: Vec<Uuid>) -> Result<HashMap<Uuid, String>, CatalogError>;

    /// Makes [`with_content`](Self::with_content) fast. Once made, an index costs every later job a little, so only
    /// jobs that drop duplicates ask for it.
    async fn index_contents(&self, among: Among) -> Result<(), CatalogError>;

    /// A file for each of `contents` that is there: in `album`, where the empty name is the root folder, or anywhere.
    async fn with_content(
        &self,
        album: Option<String>,
        contents: Vec<Sha256>,
    ) -> Result<HashMap<Sha256, KnownFile>, CatalogError>;

    /// Records what became of targets, all of them or none. A batch that its writer has recorded last is not recorded
    /// again, and a target whose outcome is in the history is not counted again.
    async fn record(&self, batch: Arc<Batch>) -> Result<(), CatalogError>;

    /// Writes down that a job has begun, or that a posted one goes on.
    async fn begin_job(&self, job: &NewJob) -> Result<(), CatalogError>;

    /// Queues a job that a client posts, unless what has its key came before.
    async fn post_job(&self, post: Arc<Post>) -> Result<Posted, CatalogError>;

    /// The posted jobs that are queued or under way, oldest first.
    async fn posted_jobs(&self) -> Result<Vec<Uuid>, CatalogError>;

    /// A posted job; `None` where there is none, or it was not posted.
    async fn posted_job(&self, job: Uuid) -> Result<Option<PostedJob>, CatalogError>;

    /// Some targets of a posted job, and which of them have their outcome. `None` behind the last part.
    async fn part(
        &self,
        job: Uuid,
        number: u64,
    ) -> Result<Option<(String, HashSet<u64>)>, CatalogError>;

    /// Up to `limit` groups of a posted job in its order, behind `after`; only those in `state`, where one is given.
    async fn groups(
        &self,
        job: Uuid,
        state: Option<State>,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<GroupRow>, CatalogError>;

    /// How many groups a job has.
    async fn group_counts(&self, job: Uuid) -> Result<GroupCounts, CatalogError>;

    /// Up to `limit` outcomes of a posted job in the order in which they were recorded, behind `after`, each with its
    /// number in that order.
    async fn outcomes_since(
        &self,
        job: Uuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, OutcomeRow)>, CatalogError>;

    /// How often each reason came up in a job.
    async fn reasons(&self, job: Uuid) -> Result<BTreeMap<Reason, u64>, CatalogError>;

    /// Writes down how a job ended.
    async fn end_job(&self, end: &JobEnd) -> Result<(), CatalogError>;

    /// Writes down that jobs which an earlier process left unfinished are over: failed, and interrupted; but posted ones
    /// are queued again. Only the process that holds the store may
    /// ask for it. Returns how many are over.
    async fn abandon_jobs(&self, now: DateTime<Utc>) -> Result<u64, CatalogError>;

    /// Returns the interrupted job of this source, kind and album, unless a later job of theirs has done anything.
    /// Jobs that began after `now` are ignored.
    async fn interrupted_job(
        &self,
        source: SourceId,
        now: DateTime<Utc>,
    ) -> Result<Option<JobRow>, CatalogError>;

    /// Up to `limit` jobs, newest first, older than `before`; only those in `state`, where one is given.
    async fn jobs(
        &self,
        state: Option<State>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError>;

    /// One job.
    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, CatalogError>;

    /// Up to `limit` outcomes of a job in its order, behind `after`.
    async fn outcomes(
        &self,
        job: Uuid,
        filter: OutcomeFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutcomeRow>, CatalogError>;

    /// Deletes the jobs that ended before `time`, with their outcomes, a bounded number of rows at a time. Returns
    /// the number of jobs deleted. A job that ended in the future is recorded as ended `now`.
    async fn delete_jobs_before(
        &self,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError>;

    /// What is remembered of all schedules, by name.
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, CatalogError>;

    /// Remembers a schedule, in place of what was remembered of it.
    async fn save_schedule(&self, schedule: &ScheduleRow) -> Result<(), CatalogError>;

    /// How many URLs the source lists: those that are not marked as gone.
    async fn listed_count(&self, source: SourceId) -> Result<u64, CatalogError>;

    /// How many of those `job`, which read the whole list, did not have.
    async fn gone(&self, source: SourceId, job: Uuid) -> Result<u64, CatalogError>;

    /// Marks these URLs as gone since `now`, and also those that are marked as gone since a time in the future. A URL
    /// that a later job finds in the source again is unmarked. Returns the number of URLs marked.
    async fn mark_gone(
        &self,
        source: SourceId,
        job: Uuid,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError>;

    /// Up to `limit` URLs that are gone since before `before`, with their files, behind `after` in the order of keys.
    /// Left out are URLs that any job had since they went or that another source lists, and files for which another
    /// URL stands that is not gone so long.
    async fn prunable(
        &self,
        source: SourceId,
        before: DateTime<Utc>,
        after: Option<TargetKey>,
        limit: u32,
    ) -> Result<Vec<(TargetKey, KnownFile)>, CatalogError>;

    /// Forgets that the source ever listed `keys`.
    async fn unlist(&self, source: SourceId, keys: Vec<TargetKey>) -> Result<(), CatalogError>;

    /// Forgets files, and what their URLs said of them. Returns how many there were.
    async fn delete_files(
        &self,
        ids: Vec<Uuid>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, CatalogError>;

    /// Returns up to `limit` files of `album` that exceed `limits`, oldest first. A file stored in the future is
    /// recorded as stored `now`.
    async fn excess(
        &self,
        album: &str,
        limits: Limits,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError>;

    /// Up to `limit` albums, with the root folder, whose name is empty, in the order of names behind `after`.
    async fn albums(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<AlbumRow>, CatalogError>;

    /// Whether there is an album of that name. The root folder is.
    async fn has_album(&self, name: &str) -> Result<bool, CatalogError>;

    /// An album with what it holds, which takes the longer the more that is.
    async fn album(&self, name: &str) -> Result<Option<AlbumRow>, CatalogError>;

    /// Makes [`images`](Self::images) and [`urls_of`](Self::urls_of) fast. Once made, an index costs every later job a
    /// little, so only who shows albums asks for it.
    async fn index_albums(&self) -> Result<(), CatalogError>;

    /// Makes changes, all of them or none. What its writer has changed or recorded last is not changed again.
    async fn change(&self, changes: Arc<Changes>) -> Result<(), CatalogError>;

    /// Albums whose folders may have their old names still.
    async fn renames(&self) -> Result<Vec<Rename>, CatalogError>;

    /// Those of `files` that there are.
    async fn files(&self, files: Vec<Uuid>) -> Result<Vec<ImageRow>, CatalogError>;

    /// Up to `limit` files of an album, in the order of paths behind `after`, with all that is known of them.
    async fn images(
        &self,
        album: &str,
        filter: ImageFilter,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError>;

    /// The file at a path.
    async fn image(&self, path: &str) -> Result<Option<ImageRow>, CatalogError>;

    /// Up to `limit` files that a look-up finds, in the order of paths behind `after`.
    async fn look_up(
        &self,
        by: LookUp,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, CatalogError>;

    /// Makes [`look_up`](Self::look_up) fast. Once made, the indexes cost every later job a little, so they are made for
    /// the first look-up.
    async fn index_look_ups(&self) -> Result<(), CatalogError>;

    /// Up to `limit` files in the order of paths behind `after`.
    async fn files_after(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, CatalogError>;

    /// The URLs that stand for `files`, with what it takes to fetch them again.
    async fn urls_of(&self, files: Vec<Uuid>) -> Result<Vec<UrlRow>, CatalogError>;

    /// The records whose URL, or the URL that answered in its place, is one of `urls`, in the form of [`recorded_url`].
    /// Reads all records.
    async fn urls_named(&self, urls: Vec<String>) -> Result<Vec<UrlName>, CatalogError>;

    /// Up to `limit` outcomes of all jobs whose URL is one of `urls`, each with its job, those of the newest job first.
    /// Reads the whole history.
    async fn outcomes_of(
        &self,
        urls: Vec<String>,
        limit: u32,
    ) -> Result<Vec<(Uuid, OutcomeRow)>, CatalogError>;

    /// Which of `files` no URL stands for.
    async fn unused(&self, files: Vec<Uuid>) -> Result<HashSet<Uuid>, CatalogError>;

    /// Up to `limit` events of the outbox behind `after`, oldest first.
    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError>;

    /// Up to `limit` jobs that have ended, and whose callback is due by `now`, the longest due first.
    async fn due_callbacks(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<JobRow>, CatalogError>;

    /// Records what became of the callback of a job.
    async fn save_callback(&self, job: Uuid, callback: CallbackRow) -> Result<(), CatalogError>;

    /// Changes after each commit, so that no writer to the outbox can forget to wake those who deliver. A catalog that is
    /// only read never changes it.
    fn news(&self) -> watch::Receiver<u64>;

    /// Who wants events, by name.
    async fn receivers(&self) -> Result<Vec<ReceiverRow>, CatalogError>;

    /// Has events written for a receiver from now on, or changes which. One that is known goes on where it was. Returns
    /// the newest event that waits, or 0.
    async fn save_receiver(
        &self,
        name: &str,
        events: &Wants,
        now: DateTime<Utc>,
    ) -> Result<i64, CatalogError>;

    /// Forgets receivers, and the events that nobody else waits for.
    async fn delete_receivers(&self, names: Vec<String>) -> Result<(), CatalogError>;

    /// Notes that a receiver has all events up to `position`. What all have leaves the outbox.
    async fn acknowledge(&self, receiver: &str, position: i64) -> Result<(), CatalogError>;

    /// Gives up an event for a receiver: in one transaction, keeps it as a dead letter and notes that the receiver has all
    /// events up to it. Of more than `keep` dead letters of the receiver, the oldest are dropped.
    async fn bury(&self, letter: &DeadLetter, keep: u32) -> Result<(), CatalogError>;

    /// All dead letters, by receiver and id.
    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Drops dead letters, each named by receiver and id. Returns how many there were.
    async fn drop_dead_letters(&self, letters: Vec<(String, i64)>) -> Result<u64, CatalogError>;

    /// Events and dead letters that wait for each receiver of the settings, by name.
    async fn backlog(&self) -> Result<Vec<Backlog>, CatalogError>;

    /// Drops events older than `before`, and the oldest of more than `keep`. Returns the number dropped, and the
    /// position of the last. Events from the future are recorded as written `now`.
    async fn trim_events(
        &self,
        keep: u64,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<(u64, i64)>, CatalogError>;

    /// Up to `limit` rows of a table in the order of its key, behind that of the row `after`. Texts are in the order of
    /// their bytes.
    async fn rows(
        &self,
        table: &'static Table,
        after: Option<Row>,
        limit: u32,
    ) -> Result<Vec<Row>, CatalogError>;

    /// Puts rows into a table, but for those whose keys it has.
    async fn load(&self, table: &'static Table, rows: Vec<Row>) -> Result<(), CatalogError>;

    /// Says where it is and how large. May read all of it.
    async fn status(&self) -> Result<Status, CatalogError>;

    /// Closes the database. What others still do is finished first; what comes after fails.
    async fn close(&self);
}

/// Opens the catalog of the store at `root`, makes it where it is missing, and brings its tables up to date.
///
/// # Errors
///
/// When the setting names no catalog, it cannot be opened within the patience that the settings have, another process
/// works with it, or it was written by a newer version.
pub async fn open(settings: &Settings, root: &Path) -> Result<Arc<dyn Catalog>, CatalogError> {
    let patience = Patience::new(settings.patience);
    match Address::of(settings, root)? {
        Address::Sqlite(path) => {
            let open = || sqlite::Sqlite::open(path.clone(), settings.patience);
            Ok(Arc::new(Patient::new(
                patience.see_through(open).await?,
                patience,
            )))
        }
        Address::Postgres(url) => {
            let open = || postgres::Postgres::open(&url, settings.patience);
            Ok(Arc::new(Patient::new(
                patience.see_through(open).await?,
                patience,
            )))
        }
    }
}

/// Opens a catalog that is there, to read it as it is: nothing is made, migrated or written.
///
/// # Errors
///
/// When there is none, it cannot be opened, or was written by another version.
pub async fn open_to_read(
    settings: &Settings,
    root: &Path,
) -> Result<Arc<dyn Catalog>, CatalogError> {
    let (catalog, version, latest) = open_as_it_is(settings, root).await?;
    if version < latest {
        return Err(CatalogError::Outdated { version, latest });
    }
    Ok(catalog)
}

/// Opens a catalog that is there beside a daemon that may work with it. The only change it allows is
/// [`drop_dead_letters`](Catalog::drop_dead_letters).
///
/// # Errors
///
/// When there is none, it cannot be opened, or was written by another version.
pub async fn open_beside(
    settings: &Settings,
    root: &Path,
) -> Result<Arc<dyn Catalog>, CatalogError> {
    let (catalog, version, latest): (Arc<dyn Catalog>, _, _) = match Address::of(settings, root)? {
        Address::Sqlite(path) => {
            let (catalog, version) = sqlite::Sqlite::open_beside(path).await?;
            (Arc::new(catalog), version, sqlite::Sqlite::LATEST)
        }
        Address::Postgres(url) => {
            let (catalog, version) = postgres::Postgres::open_to_read(&url, false).await?;
            (Arc::new(catalog), version, postgres::Postgres::LATEST)
        }
    };
    if version < latest {
        return Err(CatalogError::Outdated { version, latest });
    }
    Ok(catalog)
}

/// Like [`open_to_read`], also what an older version has written: only its [status](Catalog::status) can be asked for.
///
/// # Errors
///
/// When there is none, it cannot be opened, or was written by a newer version.
pub async fn open_to_inspect(
    settings: &Settings,
    root: &Path,
) -> Result<Arc<dyn Catalog>, CatalogError> {
    Ok(open_as_it_is(settings, root).await?.0)
}

/// The catalog, the version of its schema, and the one that this gannet works with.
async fn open_as_it_is(
    settings: &Settings,
    root: &Path,
) -> Result<(Arc<dyn Catalog>, i64, i64), CatalogError> {
    match Address::of(settings, root)? {
        Address::Sqlite(path) => {
            let (catalog, version) = sqlite::Sqlite::open_to_read(path).await?;
            Ok((Arc::new(catalog), version, sqlite::Sqlite::LATEST))
        }
        Address::Postgres(url) => {
            let (catalog, version) = postgres::Postgres::open_to_read(&url, true).await?;
            Ok((Arc::new(catalog), version, postgres::Postgres::LATEST))
        }
    }
}

/// The database file of the store at `root`; `None` when its catalog is no file.
///
/// # Errors
///
/// When the setting names no catalog.
pub fn path(settings: &Settings, root: &Path) -> Result<Option<PathBuf>, CatalogError> {
    match Address::of(settings, root)? {
        Address::Sqlite(path) => Ok(Some(path)),
        Address::Postgres(_) => Ok(None),
    }
}

/// What a setting means.
#[derive(Clone)]
enum Address {
    Sqlite(PathBuf),
    Postgres(Url),
}

impl Address {
    fn of(settings: &Settings, root: &Path) -> Result<Self, CatalogError> {
        let url = settings.url.as_str();
        if url.is_empty() {
            return Ok(Self::Sqlite(root.join(".gannet").join("catalog.db")));
        }
        match (url.split_once(':'), Url::parse(url)) {
            (Some(("sqlite", path)), _) if !path.trim_start_matches("//").is_empty() => {
                let path = LocalPath::new(path.strip_prefix("//").unwrap_or(path))?;
                Ok(Self::Sqlite(path.into()))
            }
            (Some(("postgres" | "postgresql", _)), Ok(url)) => Ok(Self::Postgres(url)),
            _ => Err(CatalogError::UnsupportedUrl(masked(url))),
        }
    }
}

/// The shortest time that an attempt may take, however short patience is.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long an attempt may wait that would wait for `most`: no longer than patience lasts.
fn attempt(patience: Duration, most: Duration) -> Duration {
    patience.clamp(ATTEMPT, most)
}

/// Credentials have no place in an error.
fn masked(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| url.split(':').next().unwrap_or_default().to_owned() + ":…",
        |mut url| {
            url.set_query(None);
            crate::target::SafeUrl::new(&url).to_string()
        },
    )
}

/// A JSON text of ours, to be passed on as it is.
fn json(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}

/// Milliseconds since 1970, as the catalog keeps times.
fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

fn from_millis(millis: i64) -> DateTime<Utc> {
    Utc.timestamp_millis_opt(millis)
        .single()
        .unwrap_or_default()
}

/// The integers of databases are signed; no counter of ours comes near the limit.
fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The way back; nothing negative was ever written.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod suite;
#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
#[expect(dead_code, unreachable_pub, reason = "tests of the program share it")]
mod test_server;
