//! Changes albums and images as clients want.
//!
//! An image moves like one that is removed and one that comes: out of its album into the stage, to its new place in the
//! catalog, out of the stage. What is in the stage and recorded is published at the next start, so that a crash leaves it
//! at the one place or the other.
//!
//! An album is renamed in the catalog first, together with a note that its folder is still to follow. [`finish_renames`] goes
//! by that note, after a crash too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;

use super::JobError;
use super::errand::{AlbumWish, Condition, ImageState, ImageWish, Refusal, invalid, patched};
use super::keeper::Keeper;
use super::removal::recorded;
use crate::catalog::{AlbumRow, Catalog, Change, Changes, Event, ImageRow, Rename};
use crate::downloader::extensions;
use crate::fault::{self, Point};
use crate::naming::{self, FileName, NameFrom, StorePath, sanitise};
use crate::store::{Folder, StageId, Store, StoreError, Withdrawn};
use crate::target::{AlbumName, Format, describe};

/// Albums that are looked through at a time.
const PAGE: u32 = 500;

/// An image, and what it is to be like.
pub(super) struct Alteration {
    pub(super) id: Uuid,
    pub(super) wish: ImageWish,
    pub(super) naming: Arc<naming::Settings>,
    pub(super) only_if: Option<Condition<ImageState>>,
}

/// Where an image goes.
pub(super) struct Move {
    pub(super) path: StorePath,
    pub(super) album: Option<AlbumName>,
    pub(super) name_from: NameFrom,
    /// Set if that was a client.
    pub(super) by_client: bool,
}

impl Keeper {
    pub(super) async fn alter_image(&self, alteration: Alteration) -> Result<ImageState, Refusal> {
        let Alteration {
            id,
            wish,
            naming,
            only_if,
        } = alteration;
        let row = self.image_for(id, only_if).await?;
        self.alter_known_image(row, wish, &naming).await?;
        self.image_state(id).await
    }

    async fn image_state(&self, id: Uuid) -> Result<ImageState, Refusal> {
        let mut found = self.catalog.files(vec![id]).await?;
        let row = found.pop().ok_or(Refusal::NoImage)?;
        let urls = self.catalog.urls_of(vec![id]).await?;
        let urls = urls.into_iter().map(|row| row.url).collect();
        Ok(ImageState { row, urls })
    }

    /// An image that is to be changed, if it is in the state that its client knows.
    async fn image_for(
        &self,
        id: Uuid,
        only_if: Option<Condition<ImageState>>,
    ) -> Result<ImageRow, Refusal> {
        let Some(only_if) = only_if else {
            let mut found = self.catalog.files(vec![id]).await?;
            return found.pop().ok_or(Refusal::NoImage);
        };
        let state = self.image_state(id).await?;
        match only_if(&state) {
            true => Ok(state.row),
            false => Err(Refusal::Outdated(format!("`{}`", state.row.file.path))),
        }
    }

    /// An album that is to be changed, if it is in the state that its client knows.
    async fn album_for(
        &self,
        name: &AlbumName,
        only_if: Option<Condition<AlbumRow>>,
    ) -> Result<AlbumRow, Refusal> {
        let row = self.catalog.album(name.as_str()).await?;
        let row = row.ok_or_else(|| Refusal::NoAlbum(name.to_string()))?;
        match only_if.is_none_or(|only_if| only_if(&row)) {
            true => Ok(row),
            false => Err(Refusal::Outdated(format!("album `{name}`"))),
        }
    }

    async fn alter_known_image(
        &self,
        row: ImageRow,
        wish: ImageWish,
        naming: &naming::Settings,
    ) -> Result<(), Refusal> {
        let id = row.file.id;
        let mut changes = Vec::new();
        let (mut updated, mut described) = (Vec::new(), None);
        if let Some(patch) = wish.metadata {
            let metadata = patched(row.metadata.as_deref(), patch)?;
            updated = changed_members(row.metadata.as_deref(), metadata.as_deref());
            changes.push(Change::DescribeFile {
                id,
                metadata: metadata.clone(),
            });
            described = metadata;
        }
        if let Some(Some(album)) = &wish.album
            && !self.catalog.has_album(album.as_str()).await?
        {
            return Err(invalid("album", format!("there is no album `{album}`")));
        }
        let to = self.new_place(&row, wish.name, wish.album, naming).await?;
        let events: Vec<Event> = match updated.is_empty() {
            true => Vec::new(),
            false => vec![event_of_update(
                &row,
                to.as_ref(),
                &updated,
                described.as_deref(),
            )],
        };
        match to {
            Some(to) => self.move_image(&row, to, changes, events).await,
            None if changes.is_empty() => Ok(()),
            None => Ok(self.change(changes, events).await?),
        }
    }

    /// Where an image goes; `None`: it stays.
    async fn new_place(
        &self,
        row: &ImageRow,
        name: Option<String>,
        album: Option<Option<AlbumName>>,
        naming: &naming::Settings,
    ) -> Result<Option<Move>, Refusal> {
        let file = &row.file;
        let old = StorePath::new(&file.path).map_err(|error| invalid("name", error.to_string()))?;
        let below = old.as_str().strip_prefix(&*row.album);
        let below = match row.album.is_empty() {
            true => Some(old.as_str()),
            false => below.and_then(|rest| rest.strip_prefix('/')),
        };
        let new_name = match name {
            Some(name) => new_name(&name, below.unwrap_or(old.as_str()), row)?,
            None => None,
        };
        let name_from = match &new_name {
            Some(_) => NameFrom::List,
            None => file.name_from,
        };
        let name = new_name.as_ref().map_or(old.file_name(), FileName::as_str);
        let own = AlbumName::recorded(&row.album).ok();
        let to = album.unwrap_or_else(|| own.clone());
        let path = if to == own {
            in_folder(old.folder(), name)
        } else if let Some(below) = below {
            let inner = below.rsplit_once('/').map(|(folder, _)| folder);
            let folder = match (&to, inner) {
                (Some(album), Some(inner)) => Some(format!("{album}/{inner}")),
                (Some(album), None) => Some(album.to_string()),
                (None, inner) => inner.map(str::to_owned),
            };
            in_folder(folder.as_deref(), name)
        } else {
            // The template has put it elsewhere.
            let urls = self.catalog.urls_of(vec![file.id]).await?;
            let url = urls
                .first()
                .and_then(|row| row.url.parse::<url::Url>().ok());
            let host = url.as_ref().and_then(|url| url.host_str());
            // An earlier version may have kept a leading dash.
            let name = sanitise(name, &format_of(row));
            let name = name.ok_or_else(|| invalid("name", "`name` is empty"))?;
            let metadata = row.metadata.as_deref();
            let metadata = metadata.and_then(|text| serde_json::from_str(text).ok());
            let facts = naming::Facts {
                album: to.as_ref(),
                host: host.unwrap_or_default(),
                format: &file.format,
                sha256: &file.sha256,
                line: row.line,
                group: row.group.as_deref(),
                metadata: metadata.as_ref(),
                when: row.stored,
            };
            naming.place(&name, &facts).to_string()
        };
        let path = StorePath::new(&path).map_err(|error| invalid("name", error.to_string()))?;
        if path == old && to == own {
            return Ok(None);
        }
        Ok(Some(Move {
            path,
            album: to,
            name_from,
            by_client: new_name.is_some(),
        }))
    }

    async fn move_image(
        &self,
        row: &ImageRow,
        to: Move,
        changes: Vec<Change>,
        events: Vec<Event>,
    ) -> Result<(), Refusal> {
        let moves = vec![(row.clone(), to)];
        let mut moved = self.move_images(moves, changes, events).await?;
        moved.pop().unwrap_or(Ok(()))
    }

    /// Moves images in one transaction, together with `changes`, of which `more` tells. Images may swap places. Returns a
    /// result for each image. If none can be moved, nothing is changed.
    pub(super) async fn move_images(
        &self,
        moves: Vec<(ImageRow, Move)>,
        mut changes: Vec<Change>,
        more: Vec<Event>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let mut olds = Vec::with_capacity(moves.len());
        for (row, _) in &moves {
            let old = StorePath::new(&row.file.path);
            olds.push(old.map_err(|error| invalid("name", error.to_string()))?);
        }
        let results = self.withdraw_all(&moves, &olds).await?;
        fault::reach(Point::ImageWithdrawn);
        let is_moved = |index: &usize| results[*index].is_ok();
        let moved: Vec<usize> = (0..moves.len()).filter(is_moved).collect();
        let places: Vec<StorePath> = moves.iter().map(|(_, to)| to.path.clone()).collect();
        if moved.is_empty() {
            self.store.remove_empty_folders(places).await;
            return Ok(results);
        }
        // Two files must not share a path, not even within a transaction. The catalog records a detour; no file is
        // ever there.
        let left: HashSet<&StorePath> = moved.iter().map(|index| &olds[*index]).collect();
        let detours = moved.iter().filter(|index| {
            let to = &moves[**index].1.path;
            *to != olds[**index] && left.contains(to)
        });
        let detour = |index: &usize| {
            let (row, to) = &moves[*index];
            to.change(row, format!(".gannet/{}", row.file.id))
        };
        changes.extend(detours.map(detour));
        let last = |index: &usize| {
            let (row, to) = &moves[*index];
            to.change(row, to.path.to_string())
        };
        changes.extend(moved.iter().map(last));
        let event = |index: &usize| event_of_move(&moves[*index].0, &moves[*index].1);
        let events = moved.iter().map(event).chain(more).collect();
        let changed = self.change(changes, events).await;
        fault::reach(Point::ImageMoved);
        let stage = |index: &usize| StageId(moves[*index].0.file.stage);
        let elsewhere = moved
            .iter()
            .filter(|index| places[**index] != olds[**index]);
        let publish: Vec<(StageId, StorePath)> = match &changed {
            Ok(()) => elsewhere
                .map(|index| (stage(index), places[*index].clone()))
                .collect(),
            // Whether it was recorded, only the catalog knows. While it does not say, the next start finds out.
            Err(_) => {
                let stages = elsewhere.clone().map(|index| stage(index).0).collect();
                let Ok(recorded) = self.catalog.staged(stages).await else {
                    return Err(changed.err().map_or(Refusal::Stopping, Refusal::from));
                };
                let place = |index: &usize| {
                    let path = recorded.get(&stage(index).0);
                    let path = path.and_then(|path| StorePath::new(path).ok());
                    path.unwrap_or_else(|| olds[*index].clone())
                };
                elsewhere
                    .map(|index| (stage(index), place(index)))
                    .collect()
            }
        };
        for published in self.store.publish(publish).await {
            if let Err(error) = published {
                tracing::error!("{}; the next start tries again", describe(&error));
            }
        }
        olds.extend(places);
        self.store.remove_empty_folders(olds).await;
        changed?;
        Ok(results)
    }

    /// Moves images from their old places into the stage. An image stays if its new place is not free, or if it
    /// differs from its record. Returns a result for each image.
    async fn withdraw_all(
        &self,
        moves: &[(ImageRow, Move)],
        olds: &[StorePath],
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let taken = |path: &StorePath| Refusal::Taken(format!("`{path}` is there already"));
        let pairs = || moves.iter().zip(olds);
        let left: HashSet<&StorePath> = pairs()
            .filter(|((_, to), old)| to.path != **old)
            .map(|(_, old)| old)
            .collect();
        let mut results = Vec::with_capacity(moves.len());
        for ((_, to), old) in pairs() {
            results.push(match to.path == *old || left.contains(&to.path) {
                true => Ok(()),
                false => match self.is_free(&to.path).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(taken(&to.path)),
                    Err(Refusal::Failed(error)) => return Err(error.into()),
                    Err(refusal) => Err(refusal),
                },
            });
        }
        let leaves =
            |index: &usize| results[*index].is_ok() && moves[*index].1.path != olds[*index];
        let leaving: Vec<usize> = (0..moves.len()).filter(leaves).collect();
        let batch = |indices: &[usize]| -> Vec<(StageId, StorePath)> {
            let stage = |index: &usize| StageId(moves[*index].0.file.stage);
            let pair = |index| (stage(index), olds[*index].clone());
            indices.iter().map(pair).collect()
        };
        let files = leaving.iter().zip(batch(&leaving));
        let files =
            files.map(|(index, (stage, path))| (stage, path, recorded(&moves[*index].0.file)));
        match self.store.withdraw(files.collect()).await {
            Ok(withdrawn) => {
                for (index, withdrawn) in leaving.iter().zip(withdrawn) {
                    let stage = StageId(moves[*index].0.file.stage);
                    results[*index] = self.withdrawn(stage, &olds[*index], withdrawn).await;
                }
            }
            Err(error) => {
                // A recorded file has to be visible.
                self.store.publish(batch(&leaving)).await;
                return Err(error.into());
            }
        }
        // An image that waits for the place of one that stays has to stay too.
        let waiting: HashMap<&StorePath, usize> = leaving
            .iter()
            .map(|index| (&moves[*index].1.path, *index))
            .collect();
        let mut stay: Vec<usize> = (0..moves.len())
            .filter(|index| results[*index].is_err())
            .collect();
        let mut back = Vec::new();
        while let Some(index) = stay.pop() {
            if let Some(next) = waiting.get(&olds[index])
                && results[*next].is_ok()
            {
                results[*next] = Err(taken(&moves[*next].1.path));
                back.push(*next);
                stay.push(*next);
            }
        }
        if !back.is_empty() {
            self.store.publish(batch(&back)).await;
        }
        Ok(results)
    }

    /// Turns the result of withdrawing an image into an answer to the client.
    async fn withdrawn(
        &self,
        stage: StageId,
        path: &StorePath,
        withdrawn: Result<Withdrawn, StoreError>,
    ) -> Result<(), Refusal> {
        let why = match withdrawn {
            Ok(Withdrawn::Taken) => return Ok(()),
            // It may have waited in the stage to be published.
            Ok(Withdrawn::Missing) if self.store.is_staged(stage).await? => return Ok(()),
            Ok(Withdrawn::Missing) => {
                "it is recorded, and is not there; `gannet verify --repair` fetches it again"
            }
            Ok(Withdrawn::Altered) => "somebody has altered it since it was stored",
            Ok(Withdrawn::NoFile) => "what is there now is no file",
            Err(error) => {
                // It is recorded, so it has to be visible.
                self.store.publish(vec![(stage, path.clone())]).await;
                return Err(match error.is_of_one_path() {
                    true => Refusal::Conflict(describe(&error)),
                    false => error.into(),
                });
            }
        };
        Err(Refusal::Conflict(format!(
            "`{path}` cannot be moved: {why}"
        )))
    }

    pub(super) async fn delete_image(
        &self,
        id: Uuid,
        only_if: Option<Condition<ImageState>>,
    ) -> Result<(), Refusal> {
        let row = self.image_for(id, only_if).await?;
        match self.take_away(vec![row.file]).await?.left.pop() {
            Some((_, why)) => Err(Refusal::Conflict(why)),
            None => Ok(()),
        }
    }

    pub(super) async fn add_album(
        &self,
        name: AlbumName,
        metadata: Option<Map<String, Value>>,
    ) -> Result<(), Refusal> {
        let metadata = match metadata {
            Some(metadata) => patched(None, metadata)?,
            None => None,
        };
        if self.catalog.has_album(name.as_str()).await? {
            return Err(Refusal::Taken(format!("album `{name}` is there already")));
        }
        if self.store.folder(&folder(&name)?).await? == Folder::Other {
            return Err(Refusal::Taken(format!(
                "`{name}` is there, and is no folder"
            )));
        }
        let event = of_album("album.created", &name, None);
        let add = Change::AddAlbum { name, metadata };
        Ok(self.change(vec![add], vec![event]).await?)
    }

    pub(super) async fn alter_album(
        &self,
        name: AlbumName,
        wish: AlbumWish,
        only_if: Option<Condition<AlbumRow>>,
    ) -> Result<AlbumRow, Refusal> {
        let row = self.album_for(&name, only_if).await?;
        let now = wish.name.clone().unwrap_or_else(|| name.clone());
        self.alter_known_album(row, name, wish).await?;
        self.album_for(&now, None).await
    }

    async fn alter_known_album(
        &self,
        row: AlbumRow,
        name: AlbumName,
        wish: AlbumWish,
    ) -> Result<(), Refusal> {
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        if let Some(patch) = wish.metadata {
            let metadata = patched(row.metadata.as_deref(), patch)?;
            let updated = changed_members(row.metadata.as_deref(), metadata.as_deref());
            if !updated.is_empty() {
                events.push(event_of_album_update(&name, &updated, metadata.as_deref()));
            }
            let name = name.clone();
            changes.push(Change::DescribeAlbum { name, metadata });
        }
        match wish.name.filter(|to| *to != name) {
            Some(to) => self.rename_album(name, to, changes, events).await,
            None if changes.is_empty() => Ok(()),
            None => Ok(self.change(changes, events).await?),
        }
    }

    async fn rename_album(
        &self,
        from: AlbumName,
        to: AlbumName,
        mut changes: Vec<Change>,
        events: Vec<Event>,
    ) -> Result<(), Refusal> {
        self.may_be_called(&from, &to).await?;
        let rename = Rename {
            id: Uuid::now_v7(),
            folder: match self.store.folder(&folder(&from)?).await? {
                Folder::There(id) => Some(id),
                Folder::Missing => None,
                Folder::Other => {
                    let why = format!("`{from}` is no folder, or a symbolic link leads there");
                    return Err(Refusal::Conflict(why));
                }
            },
            from,
            to,
        };
        changes.push(Change::BeginRename(rename.clone()));
        // Whoever finds a file missing meanwhile looks again after it.
        let _renaming = self.renaming.write().await;
        let begun = self.change(changes, events).await;
        fault::reach(Point::RenameBegun);
        if let Err(error) = begun {
            // It may have been recorded all the same.
            let pending = self.catalog.renames().await.unwrap_or_default();
            if !pending.contains(&rename) {
                return Err(error.into());
            }
        }
        match finish_rename(&self.store, &*self.catalog, self.writer, rename).await? {
            None => Ok(()),
            Some(error) if error.is_of_one_path() => Err(Refusal::Taken(describe(&error))),
            Some(error) => Err(error.into()),
        }
    }

    /// Whether nothing has that name, and nothing below the album would get one that is none.
    async fn may_be_called(&self, from: &AlbumName, to: &AlbumName) -> Result<(), Refusal> {
        let (inner, outer) = (format!("{from}/"), format!("{to}/"));
        if outer.starts_with(&inner) {
            let detail = format!("album `{from}` cannot become one below itself");
            return Err(invalid("name", detail));
        }
        let taken = |what: String| Refusal::Taken(format!("{what} is there already"));
        if self.catalog.has_album(to.as_str()).await? {
            return Err(taken(format!("album `{to}`")));
        }
        if let Some(album) = self.catalog.albums(Some(outer.clone()), 1).await?.pop()
            && album.name.starts_with(&outer)
        {
            return Err(taken(format!("album `{}`", album.name)));
        }
        let next = self
            .catalog
            .files_after(Some(outer.clone()), 1)
            .await?
            .pop();
        let is_file = !self.catalog.taken(vec![to.to_string()]).await?.is_empty();
        if next.is_some_and(|file| file.path.starts_with(&outer))
            || is_file
            || self.store.folder(&folder(to)?).await? != Folder::Missing
        {
            return Err(taken(format!("`{to}`")));
        }
        let mut after = inner.clone();
        loop {
            let page = self.catalog.albums(Some(after), PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            let mut below = page
                .iter()
                .take_while(|album| album.name.starts_with(&inner));
            let too_long = below.find(|album| {
                let renamed = format!("{to}/{}", &album.name[inner.len()..]);
                AlbumName::recorded(&renamed).is_err()
            });
            if let Some(album) = too_long {
                let detail = format!(
                    "the name of album `{}` below it would get too long",
                    album.name
                );
                return Err(invalid("name", detail));
            }
            match page.into_iter().next_back() {
                Some(last) if !is_last && last.name.starts_with(&inner) => after = last.name,
                _ => return Ok(()),
            }
        }
    }

    /// Deletes up to `limit` files of an album behind `after`. Returns the last path, unless there are no more, and what
    /// cannot be deleted.
    pub(super) async fn delete_part(
        &self,
        album: AlbumName,
        after: Option<String>,
        limit: u32,
        only_if: Option<Condition<AlbumRow>>,
    ) -> Result<(Option<String>, Vec<(Uuid, String)>), Refusal> {
        if only_if.is_some() {
            self.album_for(&album, only_if).await?;
        }
        let all = crate::catalog::ImageFilter::default();
        let page = self
            .catalog
            .images(album.as_str(), all, after, limit)
            .await?;
        let last = page.last().map(|row| row.file.path.clone());
        let files = page.into_iter().map(|row| row.file).collect();
        let removed = self.take_away(files).await?;
        fault::reach(Point::AlbumPartDeleted);
        Ok((last, removed.left))
    }

    pub(super) async fn drop_album(
        &self,
        name: AlbumName,
        only_if: Option<Condition<AlbumRow>>,
    ) -> Result<(), Refusal> {
        let row = self.album_for(&name, only_if).await?;
        if row.files > 0 {
            return Err(Refusal::Conflict(format!(
                "album `{name}` has {} files; `?files=true` deletes them too",
                row.files
            )));
        }
        let event = of_album("album.deleted", &name, None);
        let inside = StorePath::new(&format!("{name}/x"));
        let dropped = Change::DropAlbum { name };
        self.change(vec![dropped], vec![event]).await?;
        self.store
            .remove_empty_folders(inside.into_iter().collect())
            .await;
        Ok(())
    }
}

/// Gives folders the names that their albums have by now, where that was still to be done.
pub(super) async fn finish_renames(store: &Store, catalog: &dyn Catalog) -> Result<(), JobError> {
    for rename in catalog.renames().await? {
        let (from, to) = (rename.from.clone(), rename.to.clone());
        match finish_rename(store, catalog, Uuid::new_v4(), rename).await? {
            None => tracing::info!("an earlier run was renaming album `{from}`: it is `{to}` now"),
            Some(error) => tracing::warn!(
                "an earlier run was renaming album `{from}`, and it keeps its name: {}",
                describe(&error)
            ),
        }
    }
    Ok(())
}

/// Gives a folder its new name, unless it has it, and notes that it is done; where it cannot have it, all is called again
/// what it was. Returns why.
async fn finish_rename(
    store: &Store,
    catalog: &dyn Catalog,
    writer: Uuid,
    rename: Rename,
) -> Result<Option<StoreError>, JobError> {
    let mut refused = None;
    if let (Some(id), Ok(from), Ok(to)) = (
        &rename.folder,
        StorePath::new(rename.from.as_str()),
        StorePath::new(rename.to.as_str()),
    ) {
        let (there, here) = (store.folder(&to).await?, store.folder(&from).await?);
        let is_it = |folder: &Folder| matches!(folder, Folder::There(other) if other == id);
        // Somebody may have copied the store: then neither is the one that it was.
        let is_to_do =
            !is_it(&there) && (is_it(&here) || there == Folder::Missing && here != Folder::Missing);
        if is_to_do && let Err(error) = store.rename_folder(&from, &to).await {
            if is_it(&store.folder(&to).await?) {
                // It may be undone by a power cut; the next start looks again.
                return Err(error.into());
            }
            refused = Some(error);
        }
    }
    fault::reach(Point::FolderRenamed);
    let events = match refused {
        None => vec![of_album("album.renamed", &rename.to, Some(&rename.from))],
        Some(_) => Vec::new(),
    };
    let undo = refused.is_some();
    let changes = Changes {
        id: Uuid::now_v7(),
        writer,
        now: chrono::Utc::now(),
        changes: vec![Change::EndRename { rename, undo }],
        events,
    };
    catalog.change(Arc::new(changes)).await?;
    Ok(refused)
}

/// Returns the name that a client wants for an image, or `None` if the image has it. `shown` is its current name. An
/// unsafe name is refused rather than made safe, so that nobody looks for the image under another name; only its
/// extension is corrected.
fn new_name(wanted: &str, shown: &str, row: &ImageRow) -> Result<Option<FileName>, Refusal> {
    let wanted: String = wanted.nfc().collect();
    // It may go by its path.
    let folder = shown.rsplit_once('/').map(|(folder, _)| folder);
    let own = folder.and_then(|folder| wanted.strip_prefix(folder)?.strip_prefix('/'));
    let wanted = own.unwrap_or(&wanted);
    let old = shown.rsplit('/').next().unwrap_or_default();
    if wanted == old {
        return Ok(None);
    }
    let name = FileName::new(wanted).map_err(|error| invalid("name", error.to_string()))?;
    let name = sanitise(name.as_str(), &format_of(row));
    let name = name.ok_or_else(|| invalid("name", "`name` is empty"))?;
    Ok(Some(name).filter(|name| name.as_str() != old))
}

/// Returns the format of a file, as far as naming needs it.
pub(super) fn format_of(row: &ImageRow) -> Format {
    Format {
        name: "",
        media_type: "",
        extensions: extensions(&row.file.format),
    }
}

fn in_folder(folder: Option<&str>, name: &str) -> String {
    folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"))
}

/// Where the folder of an album is.
fn folder(album: &AlbumName) -> Result<StorePath, Refusal> {
    StorePath::new(album.as_str()).map_err(|error| invalid("name", error.to_string()))
}

/// The event that tells of an album.
fn of_album(event: &str, album: &AlbumName, from: Option<&AlbumName>) -> Event {
    let mut payload = serde_json::json!({ "album": album.as_str() });
    if let Some(from) = from {
        payload["from"] = from.as_str().into();
    }
    Event {
        job: None,
        event: event.to_owned(),
        payload: payload.to_string(),
    }
}

/// Names the members that differ between two metadata objects, sorted.
fn changed_members(old: Option<&str>, new: Option<&str>) -> Vec<String> {
    let members = |text: Option<&str>| -> Map<String, Value> {
        let parsed = text.and_then(|text| serde_json::from_str(text).ok());
        parsed.unwrap_or_default()
    };
    let (old, new) = (members(old), members(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    changed.cloned().collect()
}

/// Metadata as part of an event: `null` if there is none.
fn told_metadata(metadata: Option<&str>) -> Value {
    metadata
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Tells which members of an image's metadata changed. `to` is its new place, if it has one.
fn event_of_update(
    row: &ImageRow,
    to: Option<&Move>,
    updated: &[String],
    metadata: Option<&str>,
) -> Event {
    let file = &row.file;
    let (path, album) = match to {
        Some(to) => (
            to.path.as_str(),
            to.album.as_ref().map_or("", AlbumName::as_str),
        ),
        None => (&*file.path, &*row.album),
    };
    let payload = serde_json::json!({
        "file": file.id,
        "path": path,
        "album": Some(album).filter(|album| !album.is_empty()),
        "format": file.format,
        "media_type": file.media_type,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "changed": updated,
        "metadata": told_metadata(metadata),
    });
    Event {
        job: None,
        event: "file.updated".to_owned(),
        payload: payload.to_string(),
    }
}

/// Tells which members of an album's metadata changed.
fn event_of_album_update(album: &AlbumName, updated: &[String], metadata: Option<&str>) -> Event {
    let payload = serde_json::json!({
        "album": album.as_str(),
        "changed": updated,
        "metadata": told_metadata(metadata),
    });
    Event {
        job: None,
        event: "album.updated".to_owned(),
        payload: payload.to_string(),
    }
}

impl Move {
    /// Returns the change that records the image at `path`.
    fn change(&self, row: &ImageRow, path: String) -> Change {
        Change::MoveFile {
            id: row.file.id,
            path,
            album: self.album.clone(),
            name_from: self.name_from,
            by_client: self.by_client,
        }
    }
}

/// The event that tells of an image which is elsewhere.
fn event_of_move(row: &ImageRow, to: &Move) -> Event {
    let file = &row.file;
    let payload = serde_json::json!({
        "file": file.id,
        "path": to.path.as_str(),
        "from": file.path,
        "album": to.album.as_ref().map(AlbumName::as_str),
        "format": file.format,
        "media_type": file.media_type,
        "bytes": file.bytes,
        "sha256": file.sha256,
    });
    Event {
        job: None,
        event: "file.changed".to_owned(),
        payload: payload.to_string(),
    }
}
