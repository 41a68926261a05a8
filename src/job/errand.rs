//! What clients want done with albums and files, besides jobs.
//!
//! [`Files`] hands errands to the keeper, which does them between batches. So nothing is renamed, moved or taken away
//! while a batch is on its way into an album, and what an errand has looked up stays so until it is done.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::{RwLock, mpsc, oneshot};
use uuid::Uuid;

use super::JobError;
use super::alter::Alteration;
use super::keeper::{Batch, Brought, Keeper};
use super::removal::{Left, Removed, recorded, remove};
use super::upload::Upload;
use crate::catalog::{AlbumRow, CatalogError, Change, Changes, Event, ImageRow, KnownFile};
use crate::downloader::{Downloader, Intake, Memory};
use crate::naming;
use crate::store::{FileStat, Store, StoreError};
use crate::target::AlbumName;

/// Errands that wait. Beyond them, whoever comes waits for a place.
pub(super) const QUEUE: usize = 64;

/// Files of an album that are deleted at a time: between two times, others come to commit.
const PART: u32 = 500;

/// Longest metadata of an album or a file, as JSON.
pub const METADATA_BYTES: usize = 16 * 1024;

/// Something that the keeper is to do.
pub(super) enum Errand {
    /// Keep a file. Several are kept together.
    Keep(Box<Upload>, oneshot::Sender<Result<Uuid, Refusal>>),
    /// Anything else.
    Do(Work),
}

type Work = Box<dyn for<'a> FnOnce(&'a Keeper) -> BoxFuture<'a, ()> + Send>;

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep(..) => "Keep",
            Self::Do(_) => "Do",
        })
    }
}

/// Why something is not done that a client wants.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such album.
    #[error("there is no album `{0}`")]
    NoAlbum(String),
    /// The image is no more.
    #[error("the image is no more")]
    NoImage,
    /// Something else has that name.
    #[error("{0}")]
    Taken(String),
    /// It cannot be done with what is there.
    #[error("{0}")]
    Conflict(String),
    /// It is not in the state that the client knows.
    #[error("{0} has changed: ask for it again, and send the `ETag` that it has by now")]
    Outdated(String),
    /// A wish that can never be.
    #[error("{detail}")]
    Invalid {
        /// What of the wish it is.
        field: &'static str,
        /// Why.
        detail: String,
    },
    /// Nothing is done any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// The store or the catalog failed.
    #[error(transparent)]
    Failed(#[from] JobError),
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// A wish that no client can have.
pub(super) fn invalid(field: &'static str, detail: impl Into<String>) -> Refusal {
    let detail = detail.into();
    Refusal::Invalid { field, detail }
}

/// Decides by the state of something whether a change to it is still wanted. The keeper asks between batches, so that nothing
/// comes between the answer and the change.
pub type Condition<T> = Box<dyn FnOnce(&T) -> bool + Send>;

/// An image with the URLs that stand for it.
#[derive(Debug, Clone)]
pub struct ImageState {
    /// What is known of it.
    pub row: ImageRow,
    /// Its URLs.
    pub urls: Vec<String>,
}

/// What an album is to be like. `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AlbumWish {
    /// Its name.
    pub name: Option<AlbumName>,
    /// What changes of its metadata: a merge patch (RFC 7396).
    pub metadata: Option<Map<String, Value>>,
}

/// What an image is to be like. `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct ImageWish {
    /// Its name. The extension is set right where it does not agree with the bytes.
    pub name: Option<String>,
    /// Its album; `Some(None)`: the root folder.
    pub album: Option<Option<AlbumName>>,
    /// What changes of its metadata: a merge patch (RFC 7396).
    pub metadata: Option<Map<String, Value>>,
}

/// Changes albums and files for clients. Cheap to clone. A call that is dropped is done all the same, or not at all.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) errands: mpsc::Sender<Errand>,
    pub(super) store: Store,
    pub(super) memory: Memory,
    /// Held for writing while a folder gets another name.
    pub(super) renaming: Arc<RwLock<()>>,
}

impl Files {
    /// Begins to take in a file that a client sends, of at most `max_bytes`.
    pub fn intake(
        &self,
        downloader: Arc<dyn Downloader>,
        max_bytes: u64,
        expected: Option<u64>,
        media_type: Option<String>,
        name: Option<String>,
    ) -> Intake {
        let (store, memory) = (self.store.clone(), self.memory.clone());
        Intake::new(
            downloader, store, memory, max_bytes, expected, media_type, name,
        )
    }

    /// Waits until no folder is about to get another name: what is recorded is there again.
    pub async fn settled(&self) {
        drop(self.renaming.read().await);
    }

    /// Keeps a file under a name that nothing else has. Returns its id.
    ///
    /// # Errors
    ///
    /// When its album is gone, or it cannot be kept.
    pub async fn keep(&self, upload: Upload) -> Result<Uuid, Refusal> {
        let (answer, kept) = oneshot::channel();
        let errand = Errand::Keep(Box::new(upload), answer);
        let sent = self.errands.send(errand).await;
        sent.map_err(|_| Refusal::Stopping)?;
        kept.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Makes an album.
    ///
    /// # Errors
    ///
    /// When it is there, or cannot be.
    pub async fn add_album(
        &self,
        name: AlbumName,
        metadata: Option<Map<String, Value>>,
    ) -> Result<(), Refusal> {
        self.ask(move |keeper| Box::pin(keeper.add_album(name, metadata)))
            .await
    }

    /// Changes an album. Those below it, and whatever lies in its folder, go with it. Returns it as it is then.
    ///
    /// # Errors
    ///
    /// When it is not there, is in another state than `only_if` wants, or the name is taken.
    pub async fn alter_album(
        &self,
        name: AlbumName,
        wish: AlbumWish,
        only_if: Option<Condition<AlbumRow>>,
    ) -> Result<AlbumRow, Refusal> {
        self.ask(move |keeper| Box::pin(keeper.alter_album(name, wish, only_if)))
            .await
    }

    /// Deletes an album that is empty, or `with_files`: with its files, some at a time. What lies in its folder and is not
    /// recorded stays, and so do albums below it.
    ///
    /// # Errors
    ///
    /// When it is not there, is in another state than `only_if` wants before anything is deleted, or has files that are to
    /// stay or cannot be removed.
    pub async fn delete_album(
        &self,
        name: AlbumName,
        with_files: bool,
        mut only_if: Option<Condition<AlbumRow>>,
    ) -> Result<(), Refusal> {
        if with_files {
            self.delete_files(&name, only_if.take()).await?;
        }
        self.ask(move |keeper| Box::pin(keeper.drop_album(name, only_if)))
            .await
    }

    async fn delete_files(
        &self,
        name: &AlbumName,
        mut only_if: Option<Condition<AlbumRow>>,
    ) -> Result<(), Refusal> {
        let mut after = None;
        let mut left = Left::default();
        loop {
            let (album, only_if) = (name.clone(), only_if.take());
            let part =
                self.ask(move |keeper| Box::pin(keeper.delete_part(album, after, PART, only_if)));
            let (last, stay) = part.await?;
            for (id, why) in stay {
                left.add(id, why);
            }
            after = last;
            if after.is_none() {
                break;
            }
        }
        left.told()
            .map_or(Ok(()), |why| Err(Refusal::Conflict(why)))
    }

    /// Changes an image. Returns it as it is then.
    ///
    /// # Errors
    ///
    /// When it is gone, is in another state than `only_if` wants, or the name is taken or none.
    pub async fn alter_image(
        &self,
        id: Uuid,
        wish: ImageWish,
        naming: Arc<naming::Settings>,
        only_if: Option<Condition<ImageState>>,
    ) -> Result<ImageState, Refusal> {
        let alteration = Alteration {
            id,
            wish,
            naming,
            only_if,
        };
        self.ask(move |keeper| Box::pin(keeper.alter_image(alteration)))
            .await
    }

    /// Deletes an image.
    ///
    /// # Errors
    ///
    /// When it is gone, is in another state than `only_if` wants, or cannot be removed.
    pub async fn delete_image(
        &self,
        id: Uuid,
        only_if: Option<Condition<ImageState>>,
    ) -> Result<(), Refusal> {
        self.ask(move |keeper| Box::pin(keeper.delete_image(id, only_if)))
            .await
    }

    /// Takes files away that are no longer wanted, unless their bytes have changed since they were looked up.
    pub(super) async fn remove(
        &self,
        files: Vec<KnownFile>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Removed, JobError> {
        if files.is_empty() {
            return Ok(Removed::default());
        }
        let reason = reason.to_owned();
        let removed = self.ask(move |keeper| {
            Box::pin(async move {
                let files = keeper.as_they_are(files).await?;
                keeper.has_changed.store(true, Ordering::Relaxed);
                let (store, catalog) = (&keeper.store, &*keeper.catalog);
                Ok(remove(store, catalog, files, &reason, now).await?)
            })
        });
        removed.await.map_err(|refusal| match refusal {
            Refusal::Failed(error) => error,
            _ => JobError::Task("keeper"),
        })
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        errand: impl for<'a> FnOnce(&'a Keeper) -> BoxFuture<'a, Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let errand = Errand::Do(Box::new(move |keeper| {
            let done = errand(keeper);
            Box::pin(async move {
                // Whoever asked may be gone.
                let _ = answer.send(done.await);
            })
        }));
        let sent = self.errands.send(errand).await;
        sent.map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }
}

impl Keeper {
    /// Does an errand, and with a file to keep those that wait to be kept too.
    pub(super) async fn run_errand(&self, errand: Errand, others: &mut mpsc::Receiver<Errand>) {
        let mut next = Some(errand);
        while let Some(errand) = next.take() {
            match errand {
                Errand::Do(errand) => errand(self).await,
                Errand::Keep(upload, answer) => {
                    let mut uploads = vec![(*upload, answer)];
                    while uploads.len() < self.commit_files
                        && let Ok(other) = others.try_recv()
                    {
                        match other {
                            Errand::Keep(upload, answer) => uploads.push((*upload, answer)),
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.keep_uploads(uploads).await;
                }
            }
        }
    }

    /// Makes changes, and events for whoever wants to know.
    pub(super) async fn change(
        &self,
        changes: Vec<Change>,
        events: Vec<Event>,
    ) -> Result<(), CatalogError> {
        self.has_changed.store(true, Ordering::Relaxed);
        let changes = Changes {
            id: Uuid::now_v7(),
            writer: self.writer,
            now: Utc::now(),
            changes,
            events,
        };
        self.catalog.change(Arc::new(changes)).await
    }

    /// Takes a file away for a client, or says why it stays.
    pub(super) async fn take_away(&self, files: Vec<KnownFile>) -> Result<Removed, JobError> {
        self.has_changed.store(true, Ordering::Relaxed);
        remove(&self.store, &*self.catalog, files, "deleted", Utc::now()).await
    }

    /// These files as they are by now; those with other bytes, and those that are gone, are left out.
    async fn as_they_are(&self, files: Vec<KnownFile>) -> Result<Vec<KnownFile>, CatalogError> {
        if !self.has_changed.load(Ordering::Relaxed) {
            return Ok(files);
        }
        let rows = self.rows(files.iter().map(|file| file.id)).await?;
        let now = |file: KnownFile| {
            let row = rows.get(&file.id)?;
            Some(row.file.clone()).filter(|now| now.stage == file.stage)
        };
        Ok(files.into_iter().filter_map(now).collect())
    }

    pub(super) async fn rows(
        &self,
        ids: impl Iterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, ImageRow>, CatalogError> {
        let ids: Vec<Uuid> = ids.collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.catalog.files(ids).await?.into_iter();
        Ok(rows.map(|row| (row.file.id, row)).collect())
    }

    /// Looks up again what targets of a batch stand for and replace: clients may have moved or deleted it since.
    pub(super) async fn look_again(&self, batch: &mut Batch) -> Result<(), CatalogError> {
        if !self.has_changed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = |brought: &Brought| match brought {
            Brought::Known(file) => Some(file.id),
            _ => None,
        };
        let ids = batch.entries.iter().flat_map(|(finished, _)| {
            let replaced = finished.replaces.as_ref().map(|file| file.id);
            [known(&finished.brought), replaced].into_iter().flatten()
        });
        let rows = self.rows(ids).await?;
        let again = |file: &KnownFile| {
            let row = rows.get(&file.id)?;
            let mut now = KnownFile {
                is_present: file.is_present,
                ..row.file.clone()
            };
            if file.is_rechecked && now.sha256 == file.sha256 {
                now.take_facts(file);
            }
            Some(now)
        };
        let paths = rows.values().map(|row| row.file.path.clone()).collect();
        let stats = self.store.stats(paths).await.unwrap_or_default();
        let is_there = |(row, stat): &(&ImageRow, Option<FileStat>)| {
            stat.is_some_and(|stat| recorded(&row.file).agrees_with(stat))
        };
        let there = rows.values().zip(stats).filter(is_there);
        let there: HashSet<Uuid> = there.map(|(row, _)| row.file.id).collect();
        for (finished, _) in &mut batch.entries {
            finished.replaces = finished.replaces.as_ref().and_then(&again);
            if let Some(file) = &mut finished.replaces {
                // While its folder was renamed, it seemed to be missing.
                file.is_present |=
                    there.contains(&file.id) && !finished.job.distrusted.contains(&file.id);
            }
            if let Brought::Known(file) = &finished.brought {
                finished.brought = again(file).map_or(Brought::Nothing, Brought::Known);
            }
        }
        Ok(())
    }
}

/// What a merge patch makes of metadata (RFC 7396), as JSON; `None`: nothing is left.
pub(super) fn patched(
    metadata: Option<&str>,
    patch: Map<String, Value>,
) -> Result<Option<String>, Refusal> {
    let metadata = metadata.and_then(|text| serde_json::from_str(text).ok());
    let mut merged = metadata.unwrap_or(Value::Object(Map::new()));
    merge(&mut merged, Value::Object(patch));
    if merged.as_object().is_some_and(Map::is_empty) {
        return Ok(None);
    }
    let text = merged.to_string();
    if text.len() > METADATA_BYTES {
        let detail = format!(
            "`metadata` would have {} bytes, more than {METADATA_BYTES}",
            text.len()
        );
        return Err(invalid("metadata", detail));
    }
    Ok(Some(text))
}

/// The function `MergePatch` of section 2. A patch that was parsed is not too deep to recurse.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_the_rfc_has_it() {
        // Appendix A, as far as both are objects.
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} and {patch}");
        }
    }

    #[test]
    fn metadata_is_an_object_of_limited_size_or_nothing() {
        let object = |value: Value| value.as_object().unwrap().clone();
        assert_eq!(patched(None, object(json!({"a": null}))).unwrap(), None);
        let kept = patched(Some("no JSON"), object(json!({"a": 1}))).unwrap();
        assert_eq!(kept.as_deref(), Some("{\"a\":1}"));
        let large = json!({"a": "x".repeat(METADATA_BYTES)});
        assert!(patched(None, object(large)).is_err());
    }
}
