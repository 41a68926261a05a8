//! Keeps files that clients send.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::Utc;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::errand::{Refusal, patched};
use super::keeper::Keeper;
use crate::catalog::{Change, Event, FileRow};
use crate::downloader::{Arrived, Received};
use crate::fault::{self, Point};
use crate::naming::{self, NameFrom, StorePath, random_name, sanitise};
use crate::store::{Folder, StageId};
use crate::target::{AlbumName, Sha256, describe};

/// A file that a client sent, and what it wants of it.
#[derive(Debug)]
pub struct Upload {
    /// The file, checked.
    pub received: Received,
    /// Its album; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// The name that the client gives it, and how.
    pub name: Option<(String, NameFrom)>,
    /// What the client says of it.
    pub metadata: Option<Map<String, Value>>,
    /// How it is laid out in folders.
    pub naming: Arc<naming::Settings>,
}

type Answer = oneshot::Sender<Result<Uuid, Refusal>>;

/// One that is staged.
struct Staged {
    answer: Answer,
    /// Where it is to be, at first choice.
    path: StorePath,
    row: FileRow,
}

impl Keeper {
    /// Keeps files, and tells each client what became of his.
    pub(super) async fn keep_uploads(&self, uploads: Vec<(Upload, Answer)>) {
        let staged = self.stage_uploads(uploads).await;
        let Err((error, staged)) = self.record_uploads(staged).await else {
            return;
        };
        // A catalog that failed may have recorded them all the same: then the next start publishes them.
        let stages: Vec<Uuid> = staged.iter().map(|upload| upload.row.stage).collect();
        match self.catalog.staged(stages.clone()).await {
            Ok(recorded) if recorded.is_empty() => {
                self.store
                    .discard(stages.into_iter().map(StageId).collect())
                    .await;
            }
            _ => {}
        }
        let error = Arc::new(error);
        for upload in staged {
            let error = super::JobError::Batch(error.clone());
            let _ = upload.answer.send(Err(error.into()));
        }
    }

    /// Puts what is in memory into the stage, and refuses what has no album.
    async fn stage_uploads(&self, uploads: Vec<(Upload, Answer)>) -> Vec<Staged> {
        let mut staged = Vec::with_capacity(uploads.len());
        for (upload, answer) in uploads {
            match self.stage_upload(upload).await {
                Ok((path, row)) => staged.push(Staged { answer, path, row }),
                Err(refusal) => drop(answer.send(Err(refusal))),
            }
        }
        staged
    }

    async fn stage_upload(&self, upload: Upload) -> Result<(StorePath, FileRow), Refusal> {
        if let Some(album) = &upload.album
            && !self.catalog.has_album(album.as_str()).await?
        {
            return Err(Refusal::NoAlbum(album.to_string()));
        }
        let said = upload.metadata;
        let metadata = match &said {
            Some(metadata) => patched(None, metadata.clone())?,
            None => None,
        };
        let Received {
            arrived,
            sha256,
            facts,
        } = upload.received;
        let bytes = arrived.len();
        let (stage, mtime_ns) = match arrived {
            Arrived::Memory(body, _permit) => {
                let stage = StageId::new();
                let mut staged = self.store.stage(vec![(stage, body)]).await;
                (stage, staged.remove(0)?)
            }
            Arrived::Staged(spooled) => {
                let mtime_ns = spooled.mtime_ns();
                (spooled.keep(), mtime_ns)
            }
        };
        let format = &facts.format;
        let wanted = upload.name.as_ref();
        let wanted = wanted.and_then(|(name, from)| Some((sanitise(name, format)?, *from)));
        let (name, name_from) = wanted.unwrap_or_else(|| (random_name(format), NameFrom::Random));
        let album = upload.album;
        let layout = naming::Facts {
            album: album.as_ref(),
            host: "",
            format: format.name,
            sha256: &sha256,
            line: None,
            group: None,
            metadata: said.as_ref(),
            when: Utc::now(),
        };
        let path = upload.naming.place(&name, &layout);
        let row = FileRow {
            id: stage.0,
            stage: stage.0,
            path: path.to_string(),
            album,
            format: format.name,
            media_type: format.media_type,
            bytes,
            sha256,
            dimensions: facts.dimensions,
            active: facts.active,
            orientation: facts.orientation,
            undecoded: facts.undecoded,
            name_from,
            metadata,
            mtime_ns: Some(mtime_ns),
            // An upload has no URL, so no job asks for its criteria.
            criteria: None,
            header_name: None,
            line: None,
            group: None,
            last_modified: None,
        };
        Ok((path, row))
    }

    /// Makes files durable, recorded and visible. Gives back those of which nobody was told.
    async fn record_uploads(
        &self,
        mut uploads: Vec<Staged>,
    ) -> Result<(), (super::JobError, Vec<Staged>)> {
        if uploads.is_empty() {
            return Ok(());
        }
        let stages: Vec<StageId> = uploads.iter().map(|u| StageId(u.row.stage)).collect();
        if let Err(error) = self.store.sync(&stages).await {
            return Err((error.into(), uploads));
        }
        let mut chosen = HashSet::new();
        let mut index = 0;
        while let Some(upload) = uploads.get_mut(index) {
            let found = self
                .free_path(&upload.path, upload.row.sha256, &mut chosen)
                .await;
            match found {
                Ok(path) => {
                    upload.row.path = path.to_string();
                    upload.path = path;
                    index += 1;
                }
                Err(error) => {
                    let refused = uploads.remove(index);
                    self.store.discard(vec![StageId(refused.row.stage)]).await;
                    let _ = refused.answer.send(Err(error));
                }
            }
        }
        let changes = uploads
            .iter()
            .map(|upload| Change::AddFile(Box::new(upload.row.clone())))
            .collect();
        let events = uploads.iter().map(|upload| stored(&upload.row)).collect();
        if let Err(error) = self.change(changes, events).await {
            return Err((error.into(), uploads));
        }
        fault::reach(Point::UploadRecorded);
        let batch = uploads
            .iter()
            .map(|upload| (StageId(upload.row.stage), upload.path.clone()))
            .collect();
        let published = self.store.publish(batch).await;
        for (upload, published) in uploads.into_iter().zip(published) {
            if let Err(error) = published {
                // It is recorded, and readable where it is.
                tracing::error!("{}; the next start tries again", describe(&error));
            }
            let _ = upload.answer.send(Ok(upload.row.id));
        }
        Ok(())
    }

    /// The path, or one like it, at which nothing is.
    async fn free_path(
        &self,
        first: &StorePath,
        sha256: Sha256,
        chosen: &mut HashSet<StorePath>,
    ) -> Result<StorePath, Refusal> {
        let digest = sha256.to_string();
        let mut path = first.clone();
        for attempt in 0.. {
            if !chosen.contains(&path) && self.is_free(&path).await? {
                chosen.insert(path.clone());
                break;
            }
            path = match attempt {
                0 => first.with_suffix(&digest[..8]),
                1 => first.with_suffix(&digest[..32]),
                _ => first.with_suffix(&Uuid::new_v4().simple().to_string()),
            };
        }
        Ok(path)
    }

    /// Whether nothing is at a path, whose folder is there from then on.
    pub(super) async fn is_free(&self, path: &StorePath) -> Result<bool, Refusal> {
        if let Some(folder) = path.folder().and_then(|folder| StorePath::new(folder).ok())
            && self.store.folder(&folder).await? == Folder::Other
        {
            let detail = format!("`{folder}` is no folder, or a symbolic link leads there");
            return Err(Refusal::Conflict(detail));
        }
        let first = |results: Vec<_>| results.into_iter().next();
        if let Some(Err(error)) = first(self.store.make_folders(vec![path.clone()]).await) {
            return Err(refused_path(error));
        }
        if let Some(exists) = self.store.exist(vec![path.clone()]).await.pop()
            && exists.map_err(refused_path)?
        {
            return Ok(false);
        }
        Ok(self.catalog.taken(vec![path.to_string()]).await?.is_empty())
    }
}

/// What stands in the way of one path is nobody's failure.
fn refused_path(error: crate::store::StoreError) -> Refusal {
    match error.is_of_one_path() {
        true => Refusal::Conflict(describe(&error)),
        false => error.into(),
    }
}

/// The event that tells of a file that a client sent.
fn stored(row: &FileRow) -> Event {
    let (width, height) = row.dimensions.unzip();
    let payload = serde_json::json!({
        "file": row.id,
        "path": row.path,
        "album": row.album.as_ref().map(AlbumName::as_str),
        "format": row.format,
        "media_type": row.media_type,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "width": width,
        "height": height,
    });
    Event {
        job: None,
        event: "file.stored".to_owned(),
        payload: payload.to_string(),
    }
}
