//! Renames the files of albums as the current settings would name them.
//!
//! [`RenamePlan::new`] works out where each file of an album goes, and changes nothing. [`Files::rename`] moves the
//! files a batch at a time, through the keeper, as a client moves a single image.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use url::Url;
use uuid::Uuid;

use super::JobError;
use super::alter::{Move, format_of};
use super::errand::{Files, Refusal};
use super::keeper::Keeper;
use crate::catalog::{Catalog, ImageFilter, ImageRow, UrlRow};
use crate::naming::{self, Facts, NameFrom, Placed, StorePath, Wants};
use crate::store::Store;
use crate::target::{AlbumName, Sha256, describe};

/// Files looked up at a time; about 20 MB. A dry run makes no index, so that each of these look-ups may read all URLs of
/// the catalog.
const PAGE: u32 = 20_000;

/// Paths checked at a time.
const CHUNK: usize = 500;

/// Files moved in one transaction. A larger cycle of files that swap places is not split.
const BATCH: usize = 200;

/// A file with its new name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renaming {
    /// The file.
    pub file: Uuid,
    /// Its current path, relative to the store's root.
    pub from: StorePath,
    /// Its new path.
    pub to: StorePath,
    /// The source of its new name.
    pub name_from: NameFrom,
}

/// The renames for an album.
#[derive(Debug, Default)]
pub struct RenamePlan {
    /// Number of files in the album.
    pub files: u64,
    /// The files to rename. No batch needs a path that only a later batch frees.
    pub batches: Vec<Vec<Renaming>>,
    /// Files that stay because their new paths cannot be checked, each with the reason.
    pub blocked: Vec<(Renaming, String)>,
}

/// A file of the album.
#[derive(Debug)]
struct Present {
    id: Uuid,
    path: StorePath,
    /// The path by the current settings. `None` if the file keeps its path.
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    path: StorePath,
    name_from: NameFrom,
    /// 64 hexadecimal digits that depend only on the URL.
    digits: String,
}

impl RenamePlan {
    /// Plans the renames in `album` (empty for the root folder) by the settings in `naming`. Uses memory for each
    /// file of the album, since two files may want each other's names.
    ///
    /// A file without a URL keeps its name. If several files want one name, a file that has it keeps it; otherwise
    /// the oldest gets it.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn new(
        catalog: &dyn Catalog,
        store: &Store,
        naming: &naming::Settings,
        album: &str,
    ) -> Result<Self, JobError> {
        let files = read(catalog, naming, album).await?;
        let taken = Taken { catalog, store };
        let places = assign(&files, &taken).await?;
        let count = files.len() as u64;
        let (mut moves, mut blocked) = (Vec::new(), Vec::new());
        for (file, place) in files.into_iter().zip(places) {
            let Some(wanted) = file.wanted else { continue };
            let renaming = |to| Renaming {
                file: file.id,
                from: file.path,
                to,
                name_from: wanted.name_from,
            };
            match place {
                Assigned::Stay => {}
                Assigned::Move(to) => moves.push(renaming(to)),
                Assigned::Blocked(why) => blocked.push((renaming(wanted.path), why)),
            }
        }
        Ok(Self {
            files: count,
            batches: in_order(moves),
            blocked,
        })
    }
}

/// Reads the files of an album, oldest first.
async fn read(
    catalog: &dyn Catalog,
    naming: &naming::Settings,
    album: &str,
) -> Result<Vec<Present>, JobError> {
    let mut files = Vec::new();
    let mut after = None;
    loop {
        let all = ImageFilter::default();
        let page = catalog.images(album, all, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.file.path.clone());
        let ids = page.iter().map(|row| row.file.id).collect();
        let mut urls: HashMap<Uuid, Vec<UrlRow>> = HashMap::new();
        for row in catalog.urls_of(ids).await? {
            urls.entry(row.file).or_default().push(row);
        }
        for row in &page {
            let Ok(path) = StorePath::new(&row.file.path) else {
                continue;
            };
            let urls = urls.remove(&row.file.id).unwrap_or_default();
            files.push(Present {
                id: row.file.id,
                wanted: wanted(row, &path, &urls, naming),
                path,
            });
        }
    }
    files.sort_by_key(|file| file.id);
    Ok(files)
}

/// Returns the path by the file's first URL, or `None` if any of its URLs leaves it where it is.
fn wanted(
    row: &ImageRow,
    path: &StorePath,
    urls: &[UrlRow],
    naming: &naming::Settings,
) -> Option<Wanted> {
    let album = AlbumName::recorded(&row.album).ok();
    let metadata = row.metadata.as_deref();
    let metadata = metadata.and_then(|text| serde_json::from_str(text).ok());
    let format = format_of(row);
    let mut first = None;
    for by in urls {
        let Ok(url) = Url::parse(&by.url) else {
            continue;
        };
        let wants = Wants {
            url: &url,
            listed: by.name.as_deref(),
            header: row.header_name.as_deref(),
            format: &format,
        };
        let facts = Facts {
            album: album.as_ref(),
            host: url.host_str().unwrap_or_default(),
            format: &row.file.format,
            sha256: &row.file.sha256,
            line: row.line,
            group: row.group.as_deref(),
            metadata: metadata.as_ref(),
            when: row.stored,
        };
        let placed = Placed {
            path,
            name_from: row.file.name_from,
            by_client: row.by_client,
        };
        let (to, name_from) = naming.place_again(&wants, &facts, &placed);
        if to == *path {
            return None;
        }
        first.get_or_insert_with(|| Wanted {
            path: to,
            name_from,
            digits: Sha256::of(url.as_str().as_bytes()).to_string(),
        });
    }
    first
}

/// Finds paths in use, other than those of the album's own files.
struct Taken<'a> {
    catalog: &'a dyn Catalog,
    store: &'a Store,
}

impl Taken<'_> {
    /// Returns those of `paths` that are not free, with the reason if a path cannot be checked.
    async fn of(
        &self,
        paths: Vec<StorePath>,
    ) -> Result<HashMap<StorePath, Option<String>>, JobError> {
        let mut taken = HashMap::new();
        for paths in paths.chunks(CHUNK) {
            let texts = paths.iter().map(ToString::to_string).collect();
            let recorded = self.catalog.taken(texts).await?;
            let exist = self.store.exist(paths.to_vec()).await;
            for (path, exists) in paths.iter().zip(exist) {
                let why = match exists {
                    _ if recorded.contains(path.as_str()) => None,
                    Ok(true) => None,
                    Ok(false) => continue,
                    Err(error) => Some(describe(&error)),
                };
                taken.insert(path.clone(), why);
            }
        }
        Ok(taken)
    }
}

/// Where a file goes.
#[derive(Debug, Clone)]
enum Assigned {
    Stay,
    Move(StorePath),
    /// The new path cannot be checked; the text has the reason. The folder is at fault, so no other name is tried.
    Blocked(String),
}

/// Assigns a path to each file.
async fn assign(files: &[Present], taken: &Taken<'_>) -> Result<Vec<Assigned>, JobError> {
    let own: HashSet<&StorePath> = files.iter().map(|file| &file.path).collect();
    let stays = |file: &&Present| file.wanted.is_none();
    let mut claimed: HashSet<StorePath> = files
        .iter()
        .filter(stays)
        .map(|file| file.path.clone())
        .collect();
    let mut places = vec![Assigned::Stay; files.len()];
    let mut open: Vec<(usize, &Wanted)> = files
        .iter()
        .enumerate()
        .filter_map(|(index, file)| Some((index, file.wanted.as_ref()?)))
        .collect();
    for attempt in 0.. {
        if open.is_empty() {
            break;
        }
        if attempt > 0 {
            // A file keeps its suffixed name if another file has the name that it wants.
            open.retain(|(index, wanted)| {
                let path = &files[*index].path;
                let stays = path.is_suffixed(&wanted.path) && claimed.insert(path.clone());
                !stays
            });
        }
        let choices: Vec<StorePath> = open
            .iter()
            .map(|(_, wanted)| candidate(wanted, attempt))
            .collect();
        let others = choices.iter().filter(|path| !own.contains(path));
        let taken = taken.of(others.cloned().collect()).await?;
        // Blocked files first: no other file can have the path of one that stays.
        for ((index, _), path) in open.iter().zip(&choices) {
            if let Some(Some(why)) = taken.get(path) {
                claimed.insert(files[*index].path.clone());
                places[*index] = Assigned::Blocked(why.clone());
            }
        }
        let mut conflicts = Vec::new();
        for ((index, wanted), path) in open.into_iter().zip(choices) {
            match taken.get(&path) {
                Some(Some(_)) => {}
                Some(None) => conflicts.push((index, wanted)),
                None if !claimed.insert(path.clone()) => conflicts.push((index, wanted)),
                None if path != files[index].path => places[index] = Assigned::Move(path),
                None => {}
            }
        }
        open = conflicts;
    }
    Ok(places)
}

/// Returns the path to try at an attempt, by the same rule as for new files.
fn candidate(wanted: &Wanted, attempt: u32) -> StorePath {
    match attempt {
        0 => wanted.path.clone(),
        1 => wanted.path.with_suffix(&wanted.digits[..8]),
        2 => wanted.path.with_suffix(&wanted.digits[..32]),
        _ => wanted
            .path
            .with_suffix(&Uuid::new_v4().simple().to_string()),
    }
}

/// Splits the moves into batches, such that each batch needs only paths that are free or that it frees itself. A
/// cycle of files that swap places stays in one batch, whatever its size.
fn in_order(moves: Vec<Renaming>) -> Vec<Vec<Renaming>> {
    // Each path is the origin of one move and the target of one, so the moves form chains and cycles.
    let holders: HashMap<StorePath, usize> = moves
        .iter()
        .enumerate()
        .map(|(index, renaming)| (renaming.from.clone(), index))
        .collect();
    let next: Vec<Option<usize>> = moves
        .iter()
        .map(|renaming| holders.get(&renaming.to).copied())
        .collect();
    let mut moves: Vec<Option<Renaming>> = moves.into_iter().map(Some).collect();
    let mut batches: Vec<Vec<Renaming>> = Vec::new();
    let mut seen = vec![false; moves.len()];
    for start in 0..moves.len() {
        let mut chain = Vec::new();
        let mut at = Some(start);
        while let Some(index) = at.filter(|index| !seen[*index]) {
            seen[index] = true;
            chain.push(index);
            at = next[index];
        }
        let is_circle = at == Some(start) && !chain.is_empty();
        let together = if is_circle { chain.len() } else { 1 };
        // The last move of a chain comes first.
        chain.reverse();
        for part in chain.chunks(together.max(1)) {
            let has_room = |batch: &Vec<Renaming>| batch.len() + part.len() <= BATCH;
            if !batches.last().is_some_and(has_room) {
                batches.push(Vec::new());
            }
            if let Some(batch) = batches.last_mut() {
                batch.extend(part.iter().filter_map(|index| moves[*index].take()));
            }
        }
    }
    batches
}

impl Files {
    /// Moves files as a [`RenamePlan`] says, in one transaction. Returns for each file of the batch the reason why it
    /// stays, or `None` if it was moved.
    ///
    /// # Errors
    ///
    /// When the store or the catalog fails. Nothing is moved in that case.
    pub async fn rename(&self, batch: Vec<Renaming>) -> Result<Vec<Option<String>>, Refusal> {
        self.ask(move |keeper| Box::pin(keeper.rename(batch))).await
    }
}

impl Keeper {
    async fn rename(&self, batch: Vec<Renaming>) -> Result<Vec<Option<String>>, Refusal> {
        let rows = self
            .rows(batch.iter().map(|renaming| renaming.file))
            .await?;
        let mut stay: Vec<Option<String>> = Vec::with_capacity(batch.len());
        let (mut owners, mut moves) = (Vec::new(), Vec::new());
        for (index, renaming) in batch.into_iter().enumerate() {
            let row = rows.get(&renaming.file);
            let row = row.filter(|row| row.file.path == renaming.from.as_str());
            stay.push(
                row.is_none()
                    .then(|| "it was moved or deleted meanwhile".to_owned()),
            );
            let Some(row) = row else { continue };
            owners.push(index);
            moves.push((
                row.clone(),
                Move {
                    path: renaming.to,
                    album: AlbumName::recorded(&row.album).ok(),
                    name_from: renaming.name_from,
                    by_client: false,
                },
            ));
        }
        let moved = self.move_images(moves, Vec::new(), Vec::new()).await?;
        for (index, result) in owners.into_iter().zip(moved) {
            stay[index] = result.err().map(|refusal| refusal.to_string());
        }
        Ok(stay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> StorePath {
        StorePath::new(text).unwrap()
    }

    fn moves(pairs: &[(&str, &str)]) -> Vec<Renaming> {
        let renaming = |(from, to): &(&str, &str)| Renaming {
            file: Uuid::from_u128(1),
            from: path(from),
            to: path(to),
            name_from: NameFrom::Url,
        };
        pairs.iter().map(renaming).collect()
    }

    /// Applies the batches in order, and fails if a path is not free.
    fn play(pairs: &[(&str, &str)], batches: &[Vec<Renaming>]) {
        let mut there: HashMap<StorePath, StorePath> = pairs
            .iter()
            .map(|(from, _)| (path(from), path(from)))
            .collect();
        for batch in batches {
            let taken: Vec<_> = batch
                .iter()
                .map(|renaming| (renaming.to.clone(), there.remove(&renaming.from).unwrap()))
                .collect();
            for (to, file) in taken {
                assert!(there.insert(to.clone(), file).is_none(), "`{to}` is taken");
            }
        }
        for (from, to) in pairs {
            assert_eq!(there.get(&path(to)), Some(&path(from)), "{from} → {to}");
        }
    }

    #[test]
    fn nothing_is_moved_to_a_place_that_is_freed_later() {
        for pairs in [
            &[("a", "b")][..],
            &[("a", "b"), ("b", "c"), ("c", "d")],
            &[("c", "d"), ("b", "c"), ("a", "b")],
            &[("b", "c"), ("a", "b"), ("c", "d")],
            &[("a", "b"), ("b", "a")],
            &[("a", "b"), ("b", "c"), ("c", "a"), ("d", "e"), ("x", "d")],
        ] {
            play(pairs, &in_order(moves(pairs)));
        }
        assert!(in_order(Vec::new()).is_empty());
    }

    #[test]
    fn long_chains_are_divided_and_circles_are_not() {
        let names: Vec<String> = (0..1000).map(|n| format!("n{n}")).collect();
        let chain: Vec<(&str, &str)> = names
            .windows(2)
            .map(|pair| (pair[0].as_str(), pair[1].as_str()))
            .collect();
        let batches = in_order(moves(&chain));
        assert_eq!(batches.len(), 5);
        play(&chain, &batches);
        let mut circle = chain.clone();
        circle.push(("n999", "n0"));
        let batches = in_order(moves(&circle));
        assert_eq!(batches.len(), 1);
        play(&circle, &batches);
    }
}
