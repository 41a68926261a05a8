//! Makes batches of what came: stage, sync, name, record, publish, announce.
//!
//! Two tasks work hand in hand. `gather` stages bodies as they come and closes a batch when it is full,
//! has waited long enough, or nothing else is on its way. `commit` makes one batch after the other durable,
//! recorded and visible, while `gather` fills the next.
//!
//! The order is what makes a crash harmless: a file becomes visible only after it is durable and recorded,
//! and one that is recorded but not yet visible is published at the next start ([`recover`]).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tokio::sync::{RwLock, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::alter::finish_renames;
use super::coming::Coming;
use super::errand::Errand;
use super::freshness::{acceptance, is_accepted, is_judgement, note_facts, size_limits};
use super::item::Item;
use super::order::Done;
use super::posted::Tracked;
use super::removal::{Removed, remove};
use super::{Job, JobError, LAST_TRY, OnChange, until};
use crate::catalog::{
    Acceptance, Among, Batch as Records, Catalog, FileRow, KnownFile, Record, TargetKey, Wanted,
};
use crate::downloader::{Arrived, Download, Facts, Meta};
use crate::fault::{self, Point};
use crate::metrics::METRICS;
use crate::naming::{self, NameFrom, StorePath, Wants, content_disposition};
use crate::step;
use crate::store::{Mtime, Original, StageId, Store, StoreError};
use crate::target::{AlbumName, Outcome, Place as PostedPlace, Reason, Sha256, Target, describe};

/// Bodies that wait for `gather`. It takes all that are there at once, so a few times the number of
/// workers that can finish meanwhile is enough.
pub(super) const QUEUE: usize = 128;

/// Bytes of a batch beyond which it is not filled further: what a crash may cost, and what one sync writes.
const BATCH_BYTES: u64 = 64 * 1024 * 1024;

/// A target that has its outcome, but for what keeping its bytes makes of it.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) job: Arc<Job>,
    pub(super) seq: u64,
    /// `None`, like `target`, for a line that is no URL.
    pub(super) key: Option<TargetKey>,
    pub(super) target: Option<Target>,
    /// Where it stands in a posted job.
    pub(super) place: Option<PostedPlace>,
    pub(super) item: Item,
    /// What the origin said about the file, when it was asked and had one.
    pub(super) meta: Option<Meta>,
    pub(super) brought: Brought,
    /// The file that the URL brought before, where new bytes came.
    pub(super) replaces: Option<KnownFile>,
    /// What the steps of the job found out.
    pub(super) steps: Option<Map<String, Value>>,
    /// See [`Known::gone_until`](crate::catalog::Known::gone_until).
    pub(super) gone_until: Option<DateTime<Utc>>,
}

/// The file that a target stands for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most targets of a list that was read before are known, and would each allocate"
)]
pub(super) enum Brought {
    Nothing,
    /// One that was there before.
    Known(KnownFile),
    /// One that has just arrived.
    New(Box<Download>),
}

/// A file that is staged.
#[derive(Debug)]
pub(super) struct Staged {
    stage: StageId,
    /// When it was written, as in [`FileStat`](crate::store::FileStat); for small bodies only once they are.
    mtime_ns: i64,
    sha256: Sha256,
    bytes: u64,
    facts: Facts,
    /// The name in `Content-Disposition`.
    header_name: Option<String>,
}

impl Staged {
    /// The file as the catalog will have it.
    fn as_known(&self, place: &Place, criteria: &str) -> KnownFile {
        KnownFile {
            id: place.id,
            stage: self.stage.0,
            path: place.path.as_str().to_owned(),
            format: self.facts.format.name.to_owned(),
            media_type: self.facts.format.media_type.to_owned(),
            bytes: self.bytes,
            sha256: self.sha256,
            dimensions: self.facts.dimensions,
            active: self.facts.active,
            orientation: self.facts.orientation,
            undecoded: self.facts.undecoded.clone(),
            name_from: place.name_from,
            mtime_ns: Some(self.mtime_ns),
            shared: false,
            criteria: Some(criteria.to_owned()),
            is_present: true,
            is_rechecked: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<(Finished, Option<Staged>)>,
    bytes: u64,
}

/// What the keeper works with.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) coming: Coming,
    pub(super) store: Store,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) commit_interval: Duration,
    pub(super) commit_files: usize,
    pub(super) mtime: Mtime,
    /// Who it is to the catalog.
    pub(super) writer: Uuid,
    /// Held for writing while a folder gets another name.
    pub(super) renaming: Arc<RwLock<()>>,
    /// Whether clients have changed anything since this process began, so that what was looked up may not be so any more.
    pub(super) has_changed: AtomicBool,
}

impl Keeper {
    /// Works until every sender of `finished` is gone.
    pub(super) async fn run(
        self,
        finished: mpsc::Receiver<Finished>,
        errands: mpsc::Receiver<Errand>,
    ) {
        // One batch may wait while another is committed; then `gather` waits, and so do the workers.
        let (batches, to_commit) = mpsc::channel(1);
        let committed = self.commit_all(to_commit, errands);
        tokio::join!(self.gather(finished, batches), committed);
    }

    async fn gather(&self, mut finished: mpsc::Receiver<Finished>, batches: mpsc::Sender<Batch>) {
        let mut batch = Batch::default();
        let mut arrived = Vec::with_capacity(QUEUE);
        let mut close_at = None;
        loop {
            // A full batch has gone by now, so that there is room for one at least.
            let room = QUEUE.min(self.commit_files - batch.entries.len());
            let count = tokio::select! {
                biased;
                count = finished.recv_many(&mut arrived, room) => Some(count),
                () = until(close_at) => None,
            };
            if count == Some(0) {
                break;
            }
            if !arrived.is_empty() {
                close_at.get_or_insert_with(|| Instant::now() + self.commit_interval);
                // What workers are about to bring comes along: each hand-over to a blocking thread costs
                // as much as a file.
                tokio::task::yield_now().await;
                while arrived.len() < room
                    && let Ok(next) = finished.try_recv()
                {
                    arrived.push(next);
                }
                self.stage(&mut arrived, &mut batch).await;
            }
            let is_full = batch.entries.len() >= self.commit_files || batch.bytes >= BATCH_BYTES;
            let nothing_follows = finished.is_empty() && self.coming.is_none();
            let is_late = close_at.is_some_and(|at| at <= Instant::now());
            if !batch.entries.is_empty() && (is_full || nothing_follows || is_late) {
                close_at = None;
                let _ = batches.send(std::mem::take(&mut batch)).await;
            }
        }
        if !batch.entries.is_empty() {
            let _ = batches.send(batch).await;
        }
    }

    /// Puts bodies where no reader sees them.
    async fn stage(&self, arrived: &mut Vec<Finished>, batch: &mut Batch) {
        let first = batch.entries.len();
        let mut bodies: Vec<(StageId, Bytes)> = Vec::new();
        let mut owners = Vec::new();
        let mut permits = Vec::new();
        for mut finished in arrived.drain(..) {
            let staged = match std::mem::replace(&mut finished.brought, Brought::Nothing) {
                Brought::New(download) => {
                    let download = *download;
                    if let Some(same) = finished
                        .replaces
                        .as_ref()
                        .filter(|file| file.is_present && file.sha256 == download.sha256)
                    {
                        finished.item.outcome = Outcome::Unchanged;
                        let mut same = same.clone();
                        let downloader = &*finished.job.downloader;
                        if is_accepted(downloader, &same, None, u64::MAX) != Some(true) {
                            note_facts(&mut same, &download.facts, downloader.criteria());
                        }
                        finished.brought = Brought::Known(same);
                        None
                    } else {
                        let bytes = download.arrived.len();
                        let (stage, mtime_ns) = match download.arrived {
                            Arrived::Memory(body, permit) => {
                                let stage = StageId::new();
                                bodies.push((stage, body));
                                permits.push(permit);
                                owners.push(batch.entries.len());
                                (stage, 0)
                            }
                            Arrived::Staged(spooled) => {
                                let mtime_ns = spooled.mtime_ns();
                                (spooled.keep(), mtime_ns)
                            }
                        };
                        batch.bytes += bytes;
                        Some(Staged {
                            stage,
                            mtime_ns,
                            sha256: download.sha256,
                            bytes,
                            facts: download.facts,
                            header_name: download
                                .content_disposition
                                .as_deref()
                                .and_then(content_disposition),
                        })
                    }
                }
                brought => {
                    finished.brought = brought;
                    None
                }
            };
            batch.entries.push((finished, staged));
        }
        if !bodies.is_empty() {
            self.stage_bodies(bodies, owners, batch).await;
            drop(permits);
        }
        if self.mtime == Mtime::LastModified {
            self.set_mtimes(&mut batch.entries[first..]).await;
        }
    }

    async fn stage_bodies(
        &self,
        bodies: Vec<(StageId, Bytes)>,
        owners: Vec<usize>,
        batch: &mut Batch,
    ) {
        let results = self.store.stage(bodies).await;
        for (index, result) in owners.into_iter().zip(results) {
            let (finished, staged) = &mut batch.entries[index];
            match result {
                Ok(mtime_ns) => staged
                    .as_mut()
                    .into_iter()
                    .for_each(|s| s.mtime_ns = mtime_ns),
                Err(error) => {
                    *staged = None;
                    finished.refuse(error.reason(), describe(&error));
                    finished.job.stop(error.reason(), Some(error.into()));
                }
            }
        }
    }

    /// Sets the modification times of staged files to those that their origins state. A file keeps its own time if
    /// that fails.
    async fn set_mtimes(&self, entries: &mut [(Finished, Option<Staged>)]) {
        let now = Utc::now();
        let (mut owners, mut times) = (Vec::new(), Vec::new());
        for (finished, staged) in entries {
            // Some origins send the start of 1970 for an unknown time.
            let told = finished.item.last_modified;
            let told = told.filter(|told| *told <= now && *told > DateTime::UNIX_EPOCH);
            let told = told.and_then(|told| told.timestamp_nanos_opt());
            if let (Some(staged), Some(told)) = (staged, told) {
                times.push((staged.stage, told));
                owners.push(staged);
            }
        }
        if times.is_empty() {
            return;
        }
        let set = self.store.set_mtimes(times).await;
        for (staged, set) in owners.into_iter().zip(set) {
            match set {
                Ok(mtime_ns) => staged.mtime_ns = mtime_ns,
                Err(error) => tracing::debug!("{}", describe(&error)),
            }
        }
    }

    /// Commits batches, and does errands in between.
    async fn commit_all(
        &self,
        mut batches: mpsc::Receiver<Batch>,
        mut errands: mpsc::Receiver<Errand>,
    ) {
        loop {
            let mut batch = tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => batch,
                    None => break,
                },
                Some(errand) = errands.recv() => {
                    self.run_errand(errand, &mut errands).await;
                    continue;
                }
            };
            if let Err(error) = self.look_again(&mut batch).await {
                let stages = refuse_all(batch.entries.iter_mut(), error.into());
                self.store.discard(stages).await;
            }
            // What a catalog that failed has ended does not wait for it again.
            let (lost, mut entries): (Vec<_>, Vec<_>) = batch
                .entries
                .into_iter()
                .partition(|(finished, _)| finished.job.has_lost_catalog());
            self.refuse_lost(lost).await;
            if entries.is_empty() {
                continue;
            }
            let begun = Instant::now();
            let replaced = self.commit_what_fits(&mut entries).await;
            METRICS.commit(begun.elapsed());
            self.remove_replaced(replaced).await;
            announce(entries).await;
            fault::reach(Point::JobAnnounced);
        }
    }

    /// Ends targets of jobs that the catalog has ended.
    async fn refuse_lost(&self, mut lost: Vec<(Finished, Option<Staged>)>) {
        let mut stages = Vec::new();
        for (finished, staged) in &mut lost {
            let job = finished.job.clone();
            if let (Some(error), Some(staged)) = (job.error.get(), staged.take()) {
                finished.refuse(error.reason(), describe(error));
                stages.push(staged.stage);
            }
        }
        self.store.discard(stages).await;
        announce(lost).await;
    }

    /// Commits a batch, or as much of it as there is room for, and gives what is not kept its outcome. Returns files
    /// that other files took the places of.
    async fn commit_what_fits(&self, entries: &mut [(Finished, Option<Staged>)]) -> Vec<Replaced> {
        let mut repeated = Vec::new();
        let replaced = loop {
            let error = match self.commit(entries, &mut repeated).await {
                Ok(replaced) => break replaced,
                Err(error) => error,
            };
            METRICS.commit_error(error.reason());
            let with_bytes: Vec<usize> = (0..entries.len())
                .filter(|index| entries[*index].1.is_some())
                .collect();
            // A catalog that failed may have recorded the batch all the same; then the next start publishes it.
            let is_lost = match &error {
                JobError::Catalog(_) => !self.may_be_recorded(entries).await,
                _ => true,
            };
            // On a full disk, what half of the files give back may be what the other half needs for its records.
            let is_full = is_lost && error.reason() == Reason::StoreFull;
            let kept = if is_full { with_bytes.len() / 2 } else { 0 };
            match with_bytes.len() {
                0 => tracing::error!("a batch could not be recorded: {}", describe(&error)),
                all => tracing::error!(
                    "{} of {all} files of a batch could not be kept: {}",
                    all - kept,
                    describe(&error)
                ),
            }
            let given_up = with_bytes
                .get(kept)
                .copied()
                .filter(|_| kept > 0)
                .unwrap_or(0);
            let stages = refuse_all(entries[given_up..].iter_mut(), error);
            if is_lost {
                self.store.discard(stages).await;
            }
            if kept == 0 {
                break Vec::new();
            }
        };
        refuse_repeats(entries, &repeated);
        replaced
    }

    /// Takes away those of these files for which no URL stands any more.
    async fn remove_replaced(&self, replaced: Vec<Replaced>) {
        if replaced.is_empty() {
            return;
        }
        let (mut files, mut jobs) = (Vec::new(), HashMap::new());
        for Replaced { file, job } in replaced {
            jobs.insert(file.id, job);
            files.push(file);
        }
        match self.remove_unused(files).await {
            Ok(removed) => {
                for (id, why) in removed.left {
                    let Some(job) = jobs.get(&id) else { continue };
                    let mut stay = job.stay.lock().unwrap_or_else(PoisonError::into_inner);
                    stay.add(id, why);
                }
            }
            Err(error) => {
                let (reason, error) = (error.reason(), Arc::new(error));
                for job in jobs.values() {
                    job.stop(reason, Some(JobError::Batch(error.clone())));
                }
            }
        }
    }

    async fn remove_unused(&self, mut files: Vec<KnownFile>) -> Result<Removed, JobError> {
        let ids = files.iter().map(|file| file.id).collect();
        let unused = self.catalog.unused(ids).await?;
        files.retain(|file| unused.contains(&file.id));
        remove(&self.store, &*self.catalog, files, "replaced", Utc::now()).await
    }

    /// Whether the catalog has, or may have, the staged files of a batch.
    async fn may_be_recorded(&self, entries: &[(Finished, Option<Staged>)]) -> bool {
        let stages = entries.iter().filter_map(|(_, staged)| staged.as_ref());
        let stages = stages.map(|staged| staged.stage.0).collect();
        let recorded = tokio::time::timeout(LAST_TRY, self.catalog.staged(stages)).await;
        !matches!(recorded, Ok(Ok(recorded)) if recorded.is_empty())
    }

    /// Makes a batch durable, recorded and visible. Adds to `repeated` which entries stand for the file of
    /// which earlier entry. Returns files that other files took the places of.
    async fn commit(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
        repeated: &mut Vec<(usize, usize)>,
    ) -> Result<Vec<Replaced>, JobError> {
        let stages: Vec<StageId> = entries
            .iter()
            .filter_map(|(_, staged)| Some(staged.as_ref()?.stage))
            .collect();
        self.store.sync(&stages).await?;
        repeated.extend(self.drop_duplicates(entries).await?);
        self.link_duplicates(entries).await?;
        let now = Utc::now();
        let places = self.name(entries, now).await?;
        // A first one may have found no place.
        refuse_repeats(entries, repeated);
        for (index, first) in repeated.iter() {
            if let (_, Some(staged)) = &entries[*first]
                && let Some(place) = &places[*first]
            {
                let file = staged.as_known(place, entries[*first].0.job.downloader.criteria());
                entries[*index].0.brought = Brought::Known(file);
            }
        }
        for ((finished, staged), place) in entries.iter_mut().zip(&places) {
            finished.tell_steps(staged.as_ref().filter(|_| place.is_some()));
        }
        let records: Vec<Record> = entries
            .iter()
            .zip(&places)
            .map(|((finished, staged), place)| finished.record(staged.as_ref(), place.as_ref()))
            .collect();
        let batch = Records {
            id: Uuid::now_v7(),
            writer: self.writer,
            now,
            records,
        };
        let files: Vec<Option<Uuid>> = batch.records.iter().map(|record| record.file).collect();
        self.catalog.record(Arc::new(batch)).await?;
        let mut to_publish = Vec::with_capacity(stages.len());
        let mut owners = Vec::with_capacity(stages.len());
        for (index, ((_, staged), place)) in entries.iter().zip(places).enumerate() {
            if let (Some(staged), Some(place)) = (staged, place) {
                to_publish.push((staged.stage, place.path));
                owners.push(index);
            }
        }
        let published = self.store.publish(to_publish).await;
        for (index, result) in owners.into_iter().zip(published) {
            if let Err(error) = result {
                // It is recorded and stays staged, so the next start tries again.
                let finished = &mut entries[index].0;
                finished.refuse(error.reason(), describe(&error));
                if !error.is_of_one_path() {
                    finished.job.stop(error.reason(), Some(error.into()));
                }
            }
        }
        let replaced = entries.iter_mut().zip(files);
        let replaced = replaced.filter_map(|((finished, _), file)| finished.replaced_by(file?));
        Ok(replaced.collect())
    }

    /// Turns new files into duplicates whose bytes another URL brought into the same album, in jobs that
    /// want it so. Returns which entries repeat which earlier entry of the batch: those have no record
    /// yet that they could stand for.
    async fn drop_duplicates(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
    ) -> Result<Vec<(usize, usize)>, JobError> {
        let mut wanted: HashMap<String, Vec<Sha256>> = HashMap::new();
        for (finished, staged) in entries.iter() {
            if let Some(staged) = staged.as_ref().filter(|_| finished.job.dedupe.is_some()) {
                wanted
                    .entry(finished.album_key())
                    .or_default()
                    .push(staged.sha256);
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut there: HashMap<(String, Sha256), KnownFile> = HashMap::new();
        for (album, contents) in wanted {
            let same = self.catalog.with_content(Some(album.clone()), contents);
            let files = same.await?;
            // Nothing is a duplicate of a file that somebody removed.
            let files: Vec<(Sha256, KnownFile)> = files.into_iter().collect();
            let paths = files.iter().map(|(_, file)| file.path.clone()).collect();
            let stats = self.store.stats(paths).await?;
            there.extend(
                files
                    .into_iter()
                    .zip(stats)
                    .filter(|((_, file), stat)| stat.is_some_and(|stat| stat.bytes == file.bytes))
                    .map(|(file, _)| file)
                    .map(|(sha256, file)| ((album.clone(), sha256), file)),
            );
        }
        let mut first_in_batch: HashMap<(String, Sha256), usize> = HashMap::new();
        let mut dropped = Vec::new();
        let mut repeated = Vec::new();
        for (index, (finished, slot)) in entries.iter_mut().enumerate() {
            let Some(staged) = slot.as_ref().filter(|_| finished.job.dedupe.is_some()) else {
                continue;
            };
            let content = (finished.album_key(), staged.sha256);
            if let Some(file) = there.get(&content) {
                finished.brought = Brought::Known(file.clone());
            } else if let Some(first) = first_in_batch.get(&content) {
                repeated.push((index, *first));
            } else {
                first_in_batch.insert(content, index);
                continue;
            }
            finished.item.outcome = Outcome::Duplicate;
            dropped.push(staged.stage);
            *slot = None;
        }
        self.store.discard(dropped).await;
        Ok(repeated)
    }

    /// Makes new files whose bytes another album has links to those, in jobs that want it so. Where that cannot be,
    /// the bytes that came are kept.
    async fn link_duplicates(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
    ) -> Result<(), JobError> {
        let open: Vec<(usize, StageId, Sha256)> = entries
            .iter()
            .enumerate()
            .filter(|(_, (finished, _))| finished.job.dedupe == Some(Among::Store))
            .filter_map(|(index, (_, staged))| {
                let staged = staged.as_ref()?;
                Some((index, staged.stage, staged.sha256))
            })
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let contents = open.iter().map(|(_, _, sha256)| *sha256).collect();
        let there = self.catalog.with_content(None, contents).await?;
        let there: Vec<(StorePath, u64, Sha256)> = there
            .into_values()
            .filter_map(|file| Some((StorePath::new(&file.path).ok()?, file.bytes, file.sha256)))
            .collect();
        // What somebody changed since has other bytes than its record says.
        let held = self.store.hold(there.clone()).await?;
        let held = there.into_iter().zip(held).filter(|(_, held)| *held);
        let mut originals: HashMap<Sha256, Original> = held
            .map(|((path, _, sha256), _)| (sha256, Original::Published(path)))
            .collect();
        let (mut owners, mut links) = (Vec::new(), Vec::new());
        for (index, stage, sha256) in open {
            match originals.entry(sha256) {
                Entry::Occupied(original) => {
                    owners.push((index, stage));
                    links.push((original.get().clone(), StageId::new()));
                }
                Entry::Vacant(first) => {
                    first.insert(Original::Staged(stage));
                    // It may have been a link to one that there was no room for.
                    entries[index].0.item.outcome = Outcome::Stored;
                }
            }
        }
        if links.is_empty() {
            return Ok(());
        }
        let linked = self.store.link(links.clone()).await?;
        let mut replaced = Vec::with_capacity(owners.len());
        for (((index, stage), (_, link)), linked) in owners.into_iter().zip(links).zip(linked) {
            match (linked, &mut entries[index]) {
                (Ok(mtime_ns), (finished, Some(staged))) => {
                    finished.item.outcome = Outcome::Duplicate;
                    (staged.stage, staged.mtime_ns) = (link, mtime_ns);
                    replaced.push(stage);
                }
                (Err(error), _) => tracing::debug!("kept once more: {}", describe(&error)),
                (Ok(_), (_, None)) => {}
            }
        }
        self.store.discard(replaced).await;
        Ok(())
    }

    /// Finds a free path for every new file; a known file keeps its own.
    async fn name(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
        now: DateTime<Utc>,
    ) -> Result<Vec<Option<Place>>, JobError> {
        let mut places: Vec<Option<Place>> = Vec::with_capacity(entries.len());
        for (finished, staged) in entries.iter() {
            places.push(match (staged, &finished.target) {
                (Some(staged), Some(target)) => Some(
                    Place::of_known(finished)
                        .unwrap_or_else(|| Self::first_choice(finished, staged, target, now)),
                ),
                _ => None,
            });
        }
        // All folders first: then a file finds its name taken by a folder that another one needs.
        let in_folders: Vec<usize> = (0..places.len())
            .filter(|index| {
                let place = places[*index].as_ref();
                place.is_some_and(|place| place.path.folder().is_some())
            })
            .collect();
        if !in_folders.is_empty() {
            let made = self.store.make_folders(paths(&places, &in_folders)).await;
            for (index, made) in in_folders.into_iter().zip(made) {
                if let Err(error) = made {
                    self.give_up(entries, &mut places, index, error).await?;
                }
            }
        }
        self.settle_conflicts(entries, &mut places).await?;
        for ((finished, staged), place) in entries.iter_mut().zip(&places) {
            if let (Some(staged), Some(place)) = (staged, place) {
                if finished.item.outcome == Outcome::Stored
                    && finished
                        .replaces
                        .as_ref()
                        .is_some_and(|file| file.is_present)
                {
                    finished.item.outcome = Outcome::Changed;
                }
                let criteria = finished.job.downloader.criteria();
                let file = staged.as_known(place, criteria);
                finished.item.describe(&file);
            }
        }
        Ok(places)
    }

    /// Gives other paths to new files whose first choice is taken: by a record, by a file that somebody
    /// else put there, or by an earlier file of the batch.
    async fn settle_conflicts(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
        places: &mut [Option<Place>],
    ) -> Result<(), JobError> {
        let mut open: Vec<usize> = places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.as_ref().is_some_and(|place| place.may_conflict))
            .map(|(index, _)| index)
            .collect();
        let first_choices: HashMap<usize, StorePath> = open
            .iter()
            .filter_map(|index| Some((*index, places[*index].as_ref()?.path.clone())))
            .collect();
        let mut chosen: HashSet<StorePath> = HashSet::new();
        for attempt in 0.. {
            if open.is_empty() {
                break;
            }
            let mut exist = HashSet::new();
            let on_disk = self.store.exist(paths(places, &open)).await;
            for (index, exists) in open.iter().zip(on_disk) {
                match exists {
                    Ok(true) => drop(exist.insert(*index)),
                    Ok(false) => {}
                    Err(error) => self.give_up(entries, places, *index, error).await?,
                }
            }
            open.retain(|index| places[*index].is_some());
            let candidates = paths(places, &open);
            let texts = candidates.iter().map(ToString::to_string).collect();
            let recorded = self.catalog.taken(texts).await?;
            let unrecorded = open.iter().zip(&candidates).filter(|(index, path)| {
                exist.contains(*index) && !recorded.contains(path.as_str())
            });
            let unrecorded = unrecorded.map(|(index, _)| *index).collect();
            let ours = self.without_record(entries, places, unrecorded).await?;
            let mut conflicts = Vec::new();
            for (index, path) in open.into_iter().zip(candidates) {
                if exist.contains(&index) && !ours.contains(&index)
                    || recorded.contains(path.as_str())
                    || !chosen.insert(path)
                {
                    conflicts.push(index);
                }
            }
            for index in &conflicts {
                let target = entries[*index].0.target.as_ref();
                let first = first_choices.get(index);
                if let (Some(place), Some(target), Some(first)) =
                    (&mut places[*index], target, first)
                {
                    place.path = match attempt {
                        0 => first.with_suffix(&url_digest(target)[..8]),
                        1 => first.with_suffix(&url_digest(target)[..32]),
                        _ => first.with_suffix(&Uuid::new_v4().simple().to_string()),
                    };
                }
            }
            open = conflicts;
        }
        Ok(())
    }

    /// Leaves a file out of the batch that can have no place, for a reason that no other file need fear.
    async fn give_up(
        &self,
        entries: &mut [(Finished, Option<Staged>)],
        places: &mut [Option<Place>],
        index: usize,
        error: StoreError,
    ) -> Result<(), JobError> {
        if !error.is_of_one_path() {
            return Err(error.into());
        }
        let (finished, staged) = &mut entries[index];
        finished.refuse(error.reason(), describe(&error));
        places[index] = None;
        let stages = staged.take().map(|staged| staged.stage);
        self.store.discard(stages.into_iter().collect()).await;
        Ok(())
    }

    /// Which of these entries find their very bytes in their places. Such a file lost its record, with the catalog
    /// or with the tail of its log: it gets one again rather than a double beside it.
    async fn without_record(
        &self,
        entries: &[(Finished, Option<Staged>)],
        places: &[Option<Place>],
        indices: Vec<usize>,
    ) -> Result<HashSet<usize>, JobError> {
        let files: Vec<(StorePath, u64, Sha256)> = indices
            .iter()
            .filter_map(|index| {
                let (place, staged) = (places[*index].as_ref()?, entries[*index].1.as_ref()?);
                Some((place.path.clone(), staged.bytes, staged.sha256))
            })
            .collect();
        if files.is_empty() {
            return Ok(HashSet::new());
        }
        let held = self.store.hold(files).await?;
        let held = indices.into_iter().zip(held).filter(|(_, held)| *held);
        Ok(held.map(|(index, _)| index).collect())
    }

    fn first_choice(
        finished: &Finished,
        staged: &Staged,
        target: &Target,
        now: DateTime<Utc>,
    ) -> Place {
        let wants = Wants {
            url: &target.url,
            listed: target.name.as_deref(),
            header: staged.header_name.as_deref(),
            format: &staged.facts.format,
        };
        let naming = &finished.job.terms.naming;
        let (name, name_from) = naming.choose(&wants);
        let item = &finished.item;
        let facts = naming::Facts {
            album: finished.album(),
            host: target.url.host_str().unwrap_or_default(),
            format: staged.facts.format.name,
            sha256: &staged.sha256,
            line: item.line,
            group: item.group.as_deref(),
            metadata: item.metadata.as_deref(),
            when: now,
        };
        let path = naming.place(&name, &facts);
        let earlier = finished
            .replaces
            .as_ref()
            .filter(|_| finished.job.on_change == OnChange::Keep)
            .and_then(|file| StorePath::new(&file.path).ok());
        let is_unique = naming.is_unique(name_from) && earlier.is_none();
        let path = match earlier {
            Some(earlier) => naming.next_of_series(&earlier, path, now),
            None => path,
        };
        Place {
            path,
            name_from,
            id: staged.stage.0,
            may_conflict: !is_unique,
        }
    }
}

/// The paths of the places at `indices`.
fn paths(places: &[Option<Place>], indices: &[usize]) -> Vec<StorePath> {
    let places = indices.iter().filter_map(|index| places[*index].as_ref());
    places.map(|place| place.path.clone()).collect()
}

/// A file that its URL no longer stands for.
#[derive(Debug)]
struct Replaced {
    file: KnownFile,
    /// The job that brought another one.
    job: Arc<Job>,
}

/// Where a file is to be, and under which id it is recorded.
#[derive(Debug)]
struct Place {
    path: StorePath,
    name_from: NameFrom,
    id: Uuid,
    /// Whether somebody else may have that name.
    may_conflict: bool,
}

impl Place {
    /// Where the file is whose bytes are replaced. Where contents are kept once, or were when it came, other URLs
    /// may stand for that file too, so changed bytes become a file of their own; and so they do in a series.
    fn of_known(finished: &Finished) -> Option<Self> {
        let is_replaced =
            finished.job.dedupe.is_none() && finished.job.on_change == OnChange::Replace;
        // A missing file is brought back under its own name: nobody can stand for what is not there.
        let file = finished
            .replaces
            .as_ref()
            .filter(|file| is_replaced && !file.shared || !file.is_present)?;
        Some(Self {
            path: StorePath::new(&file.path).ok()?,
            name_from: file.name_from,
            id: file.id,
            may_conflict: false,
        })
    }
}

impl Finished {
    /// Gives the target up before its bytes are kept.
    pub(super) fn give_up(&mut self, reason: Reason, detail: String) {
        self.brought = Brought::Nothing;
        self.refuse(reason, detail);
    }

    pub(super) fn album(&self) -> Option<&AlbumName> {
        self.target
            .as_ref()
            .and_then(|target| target.album.as_ref())
            .or(self.job.album.as_ref())
    }

    fn album_key(&self) -> String {
        self.album().map_or_else(String::new, ToString::to_string)
    }

    /// The store did not take the bytes, or could not give them their name.
    fn refuse(&mut self, reason: Reason, detail: String) {
        let item = &mut self.item;
        (item.outcome, item.reason, item.detail) = (Outcome::Failed, Some(reason), Some(detail));
        (item.path, item.sha256, item.name_from) = (None, None, None);
        // What the origin said is about bytes that are not kept: as a record's validators it would hide them.
        self.meta = None;
    }

    /// What the URL stood for until `file` came, unless it is the same or one of a series. While `file` cannot be seen, it
    /// stays.
    fn replaced_by(&mut self, file: Uuid) -> Option<Replaced> {
        let may_go = self.job.on_change == OnChange::Replace && self.item.reason.is_none();
        let earlier = self.replaces.take();
        let earlier = earlier.filter(|earlier| may_go && earlier.id != file)?;
        Some(Replaced {
            file: earlier,
            job: self.job.clone(),
        })
    }

    /// Says what the steps found out. In a posted job, pictures are measured in any case.
    fn tell_steps(&mut self, staged: Option<&Staged>) {
        let mut steps = self.steps.take().unwrap_or_default();
        let dimensions = match (&self.brought, staged) {
            (_, Some(staged)) => staged.facts.dimensions,
            (Brought::Known(file), None) => file.dimensions,
            _ => None,
        };
        if let Some((width, height)) = dimensions.filter(|_| self.job.posted.is_some()) {
            let measured = step::measured(width, height);
            steps.entry("measure").or_insert(measured);
        }
        self.item.steps = Some(steps).filter(|steps| !steps.is_empty()).map(Box::new);
    }

    /// Returns the job's criteria if the target failed by them.
    fn failed_under(&self) -> Option<Acceptance> {
        let target = self.target.as_ref()?;
        self.item.reason.filter(|reason| is_judgement(*reason))?;
        let job = &self.job;
        let client = &job.terms.client;
        let limits = size_limits(client.settings(), client.hosts());
        Some(acceptance(&*job.downloader, &job.steps, target, &limits))
    }

    /// What it takes to fetch the target again.
    fn wanted(&self) -> Option<Wanted> {
        let target = self.target.as_ref()?;
        Some(Wanted {
            name: target.name.clone(),
            album: self.album().cloned(),
            sha256: target.sha256,
            metadata: self.metadata().filter(|_| self.item.reason.is_some()),
        })
    }

    /// The list's other columns, as a JSON object.
    fn metadata(&self) -> Option<String> {
        serde_json::to_string(self.item.metadata.as_ref()?).ok()
    }

    fn record(&self, staged: Option<&Staged>, place: Option<&Place>) -> Record {
        let known = match &self.brought {
            Brought::Known(file) => Some(file.id),
            _ => None,
        };
        let new_file = staged.zip(place).map(|(staged, place)| FileRow {
            id: place.id,
            stage: staged.stage.0,
            path: place.path.as_str().to_owned(),
            album: self.album().cloned(),
            format: staged.facts.format.name,
            media_type: staged.facts.format.media_type,
            bytes: staged.bytes,
            sha256: staged.sha256,
            dimensions: staged.facts.dimensions,
            active: staged.facts.active,
            orientation: staged.facts.orientation,
            undecoded: staged.facts.undecoded.clone(),
            name_from: place.name_from,
            metadata: self.metadata(),
            mtime_ns: Some(staged.mtime_ns),
            criteria: Some(self.job.downloader.criteria().to_owned()),
            header_name: staged.header_name.clone(),
            line: self.item.line,
            group: self.item.group.as_deref().map(str::to_owned),
            last_modified: self.item.last_modified,
        });
        let recheck = match &self.brought {
            Brought::Known(file) => file.recheck(),
            _ => None,
        };
        let item = &self.item;
        let meta = self.meta.as_ref();
        Record {
            key: self.key,
            job: self.job.id,
            seq: self.seq,
            url: item.url.clone(),
            outcome: item.outcome,
            reason: item.reason,
            detail: item.detail.clone(),
            status: item.status,
            attempts: item.attempts,
            elapsed_ms: item.elapsed_ms,
            final_url: item.final_url.clone(),
            line: item.line,
            group: item.group.as_deref().map(str::to_owned),
            wanted: self.wanted(),
            file: new_file.as_ref().map(|file| file.id).or(known),
            checked: meta.map(|_| Utc::now()),
            etag: meta.and_then(|meta| meta.validators.etag.clone()),
            last_modified: meta.and_then(|meta| meta.validators.last_modified.clone()),
            fresh_until: meta.and_then(fresh_until),
            failed_under: self.failed_under(),
            gone_until: self.gone_until,
            bytes: new_file
                .as_ref()
                .filter(|_| item.outcome != Outcome::Duplicate)
                .map_or(0, |file| file.bytes),
            new_file,
            recheck,
            listed: self.job.listed,
            group_number: self.place.and_then(|place| place.group),
            nth: self.job.posted.as_ref().map(Tracked::next),
            steps: item
                .steps
                .as_ref()
                .and_then(|steps| serde_json::to_string(steps).ok()),
        }
    }
}

/// Nothing stands for a file that could not be kept.
fn refuse_repeats(entries: &mut [(Finished, Option<Staged>)], repeated: &[(usize, usize)]) {
    for (index, first) in repeated {
        let first = &entries[*first].0.item;
        if first.outcome == Outcome::Failed {
            let (reason, detail) = (first.reason, first.detail.clone());
            let finished = &mut entries[*index].0;
            finished.brought = Brought::Nothing;
            finished.refuse(
                reason.unwrap_or(Reason::StoreError),
                detail.unwrap_or_default(),
            );
        }
    }
}

/// Tells each job what became of its targets.
async fn announce(entries: Vec<(Finished, Option<Staged>)>) {
    let mut jobs: Vec<(Arc<Job>, Vec<Item>)> = Vec::new();
    for (mut finished, _) in entries {
        if let Brought::Known(file) = std::mem::replace(&mut finished.brought, Brought::Nothing) {
            finished.item.describe(&file);
        }
        if let Some(key) = finished.key {
            finished
                .job
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
        }
        if let (Some(place), Some(posted)) = (finished.place, &finished.job.posted) {
            posted.note(Done {
                place,
                key: finished.key,
                failed: finished.item.outcome.is_failure(finished.item.reason),
            });
        }
        match jobs
            .iter_mut()
            .find(|(job, _)| Arc::ptr_eq(job, &finished.job))
        {
            Some((_, items)) => items.push(finished.item),
            None => jobs.push((finished.job, vec![finished.item])),
        }
    }
    for (job, items) in jobs {
        // A run that ended early has nobody left to tell.
        let _ = job.announce.send(items).await;
    }
}

/// Makes `error` the outcome of targets whose bytes cannot be kept, and stops their jobs. Returns what they had
/// staged.
fn refuse_all<'a>(
    entries: impl Iterator<Item = &'a mut (Finished, Option<Staged>)>,
    error: JobError,
) -> Vec<StageId> {
    let (reason, detail) = (error.reason(), describe(&error));
    let error = Arc::new(error);
    let mut stages = Vec::new();
    for (finished, staged) in entries {
        if let Some(staged) = staged.take() {
            finished.refuse(reason, detail.clone());
            stages.push(staged.stage);
        }
        let error = JobError::Batch(error.clone());
        finished.job.stop(reason, Some(error));
    }
    stages
}

/// Publishes what an earlier process recorded but did not publish, and deletes what else it left staged.
/// A file whose path is not free stays staged until it is. Returns how many were published and deleted.
pub(super) async fn recover(
    store: &Store,
    catalog: &dyn Catalog,
) -> Result<(usize, usize), JobError> {
    fault::reach(Point::RecoverBegun);
    finish_renames(store, catalog).await?;
    let (mut published, mut deleted) = (0, 0);
    for stages in store.staged().await?.chunks(500) {
        let ids: Vec<Uuid> = stages.iter().map(|stage| stage.0).collect();
        let recorded = catalog.staged(ids).await?;
        let mut to_publish = Vec::new();
        let mut to_discard = Vec::new();
        for stage in stages {
            match recorded
                .get(&stage.0)
                .and_then(|path| StorePath::new(path).ok())
            {
                Some(path) => to_publish.push((*stage, path)),
                None => to_discard.push(*stage),
            }
        }
        deleted += to_discard.len();
        store.discard(to_discard).await;
        let waiting: Vec<StageId> = to_publish.iter().map(|(stage, _)| *stage).collect();
        let mut done = Vec::new();
        for (stage, result) in waiting.into_iter().zip(store.publish(to_publish).await) {
            match result {
                Ok(()) => done.push(stage),
                Err(error) if error.is_of_one_path() => tracing::warn!(
                    "{}; its bytes wait in the stage: move away what is there, and the next start puts the \
                     file in its place",
                    describe(&error)
                ),
                Err(error) => return Err(error.into()),
            }
        }
        published += done.len();
        // Where the place holds a link to the same file, rename(2) leaves both names.
        store.discard(done).await;
    }
    fault::reach(Point::RecoverDone);
    Ok((published, deleted))
}

/// 64 hexadecimal digits that depend on the URL alone.
fn url_digest(target: &Target) -> String {
    Sha256::of(target.url.as_str().as_bytes()).to_string()
}

/// Now, plus how long an answer stays fresh.
fn fresh_until(meta: &Meta) -> Option<DateTime<Utc>> {
    let fresh_for = chrono::Duration::from_std(meta.fresh_for?).ok()?;
    Utc::now().checked_add_signed(fresh_for)
}
