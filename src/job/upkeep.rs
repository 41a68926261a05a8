//! Finds what is no longer wanted, and has it taken away: files whose URLs left their list, files beyond what an album may
//! hold, and old history.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::errand::Files;
use super::removal::Left;
use super::{JobError, Settings};
use crate::catalog::{Catalog, KnownFile, Limits, SourceId, TargetKey};
use crate::target::AlbumName;

/// Files or albums that are dealt with at a time.
const BATCH: u32 = 500;

/// Albums of a job that are remembered by name.
const MOST_ALBUMS: usize = 10_000;

/// `[retention]`. Zero is no limit. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// How long ago the bytes of a file may have come.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Files of an album.
    pub max_files: u64,
    /// Bytes of an album.
    pub max_bytes: ByteSize,
    /// How long ago a job of the history may have ended.
    #[serde(with = "humantime_serde")]
    pub jobs: Duration,
}

impl Retention {
    /// What an album may hold; `None` when that is any number of files.
    pub(super) fn limits(&self) -> Option<Limits> {
        let limits = Limits {
            max_age: Some(self.max_age).filter(|age| !age.is_zero()),
            max_files: Some(self.max_files).filter(|files| *files > 0),
            max_bytes: Some(self.max_bytes.as_u64()).filter(|bytes| *bytes > 0),
        };
        Some(limits).filter(|limits| *limits != Limits::default())
    }
}

/// The albums that a job had targets for, by name, where the empty name is the root folder; all there are, once they
/// are too many to remember.
#[derive(Debug, Default)]
pub(super) struct Touched(Mutex<Option<BTreeSet<String>>>);

impl Touched {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(BTreeSet::new())))
    }

    pub(super) fn add(&self, album: Option<&AlbumName>) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let album = album.map_or("", AlbumName::as_str);
        if let Some(known) = names.as_mut().filter(|known| !known.contains(album)) {
            known.insert(album.to_owned());
            if known.len() > MOST_ALBUMS {
                *names = None;
            }
        }
    }

    fn take(&self) -> Option<BTreeSet<String>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.take()
    }
}

/// What a job that prunes has to know from its beginning to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prune {
    pub(super) source: SourceId,
    /// How many URLs the source listed before.
    pub(super) listed: u64,
}

/// Whoever takes things away, and what that came to.
#[derive(Debug)]
pub(super) struct Upkeep<'a> {
    pub(super) files: &'a Files,
    pub(super) catalog: &'a dyn Catalog,
    /// What could not be removed.
    pub(super) stay: &'a Mutex<Left>,
    /// When cancelled, the rest is left to the next job.
    pub(super) stop: &'a CancellationToken,
    pub(super) now: DateTime<Utc>,
    /// Files that were removed.
    pub(super) removed: u64,
    /// What somebody should look at.
    pub(super) warnings: Vec<String>,
}

impl Upkeep<'_> {
    /// Marks the URLs as gone that `job`, which read the whole list, did not have, and removes the files of those that
    /// have been gone for long enough. Where too much of the list has gone for that to be meant, all is kept.
    pub(super) async fn prune(
        &mut self,
        prune: Prune,
        job: Uuid,
        settings: &Settings,
    ) -> Result<(), JobError> {
        let Prune { source, listed } = prune;
        let gone = self.catalog.gone(source, job).await?;
        let listed = listed.max(gone);
        if gone * 100 > listed * u64::from(settings.prune_limit.0) {
            let refused = format!(
                "nothing is pruned: {gone} of the {listed} URLs that this list had are gone, and `job.prune_limit` is \
                 {} %; if that is meant, run once with `--set job.prune_limit=100`",
                settings.prune_limit.0
            );
            tracing::warn!(job.id = %job, "{refused}");
            self.warnings.push(refused);
            return Ok(());
        }
        // Needed even if none is gone: marks with a time in the future are set anew.
        self.catalog.mark_gone(source, job, self.now).await?;
        if gone > 0 {
            tracing::info!(
                job.id = %job,
                "{gone} URLs left the list; what they brought goes after {}",
                humantime::format_duration(settings.prune_after)
            );
        }
        let earlier = self.removed;
        let mut after = None;
        // The catalog knows times to the millisecond, and what has been gone for just so long may go.
        let before = self.before(settings.prune_after) + TimeDelta::milliseconds(1);
        while !self.stop.is_cancelled() {
            let page = self.catalog.prunable(source, before, after, BATCH).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let keys: Vec<(TargetKey, Uuid)> = page.iter().map(|(key, f)| (*key, f.id)).collect();
            let files = page.into_iter().map(|(_, file)| file).collect();
            let gone = self.remove(files, "pruned").await?;
            let keys = keys.into_iter().filter(|(_, file)| gone.contains(file));
            let keys = keys.map(|(key, _)| key).collect();
            self.catalog.unlist(source, keys).await?;
        }
        let pruned = self.removed - earlier;
        if pruned > 0 {
            tracing::info!(job.id = %job, "pruned {pruned} files whose URLs left the list");
        }
        Ok(())
    }

    /// Removes what is beyond the limits of the albums that a job touched, oldest first.
    pub(super) async fn trim(&mut self, touched: &Touched, limits: Limits) -> Result<(), JobError> {
        if let Some(albums) = touched.take() {
            for album in &albums {
                self.trim_album(album, limits).await?;
            }
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.catalog.albums(after, BATCH).await?;
            for album in &page {
                self.trim_album(&album.name, limits).await?;
            }
            after = page.into_iter().next_back().map(|album| album.name);
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn trim_album(&mut self, album: &str, limits: Limits) -> Result<(), JobError> {
        let earlier = self.removed;
        while !self.stop.is_cancelled() {
            let page = self.catalog.excess(album, limits, self.now, BATCH).await?;
            let count = page.len();
            let gone = self.remove(page, "retention").await?.len();
            // What cannot be taken away stands at the head of every page.
            if count == 0 || gone < count {
                break;
            }
        }
        let removed = self.removed - earlier;
        if removed > 0 {
            let name = if album.is_empty() { "." } else { album };
            tracing::info!("album `{name}` was beyond its limits: removed {removed} files");
        }
        Ok(())
    }

    /// Deletes the history that is older than `age`.
    pub(super) async fn forget(&self, age: Duration) -> Result<(), JobError> {
        if age.is_zero() {
            return Ok(());
        }
        let before = self.before(age);
        let jobs = self.catalog.delete_jobs_before(before, self.now).await?;
        if jobs > 0 {
            tracing::info!("deleted {jobs} jobs from the history");
        }
        Ok(())
    }

    /// Removes files. Returns which are gone.
    async fn remove(
        &mut self,
        files: Vec<KnownFile>,
        reason: &str,
    ) -> Result<HashSet<Uuid>, JobError> {
        let removed = self.files.remove(files, reason, self.now).await?;
        self.removed += removed.files;
        let mut stay = self.stay.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, why) in removed.left {
            stay.add(id, why);
        }
        Ok(removed.gone)
    }

    /// The time `age` ago; an age beyond all time is the beginning of it.
    fn before(&self, age: Duration) -> DateTime<Utc> {
        TimeDelta::from_std(age)
            .ok()
            .and_then(|age| self.now.checked_sub_signed(age))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}
