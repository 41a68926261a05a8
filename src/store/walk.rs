//! Everything that is visible in a store, in chunks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::local::blocking;
use super::{Store, StoreError};

/// Files that are told of at a time.
const CHUNK: usize = 500;

/// What is visible: neither `.gannet/` nor other hidden names. Folder by folder, in no order; links are not followed.
#[derive(Debug)]
pub struct Walk(Option<State>);

/// One thing that a walk comes by.
#[derive(Debug)]
pub enum Seen {
    /// A file, or something else that is no folder, relative to the root.
    File(PathBuf),
    /// A folder that cannot be read.
    Unreadable(PathBuf, io::Error),
}

#[derive(Debug)]
struct State {
    root: PathBuf,
    /// Folders that are still to be read, relative to the root.
    folders: Vec<PathBuf>,
    /// The folder that is being read.
    reading: Option<(PathBuf, fs::ReadDir)>,
}

impl Walk {
    /// A walk through all of `store`.
    pub fn new(store: &Store) -> Self {
        Self(Some(State {
            root: store.root().to_owned(),
            folders: vec![PathBuf::new()],
            reading: None,
        }))
    }

    /// What comes next; nothing at the end.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone, or was left alone by a dropped call.
    pub async fn next(&mut self) -> Result<Vec<Seen>, StoreError> {
        let mut state = self.0.take().ok_or(StoreError::Worker)?;
        let (state, seen) = blocking(move || {
            let seen = state.read();
            Ok((state, seen))
        })
        .await?;
        self.0 = Some(state);
        Ok(seen)
    }

    /// Which of `paths` are still there.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone.
    pub async fn still_there(&self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, StoreError> {
        let root = self.0.as_ref().ok_or(StoreError::Worker)?.root.clone();
        let is_there = move |path: &PathBuf| fs::symlink_metadata(root.join(path)).is_ok();
        blocking(move || Ok(paths.into_iter().filter(is_there).collect())).await
    }
}

impl State {
    fn read(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while seen.len() < CHUNK {
            let Some((folder, entries)) = &mut self.reading else {
                let Some(folder) = self.folders.pop() else {
                    break;
                };
                match fs::read_dir(self.root.join(&folder)) {
                    Ok(entries) => self.reading = Some((folder, entries)),
                    Err(error) => seen.extend(unreadable(&folder, error)),
                }
                continue;
            };
            let entry = match entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    seen.extend(unreadable(folder, error));
                    self.reading = None;
                    continue;
                }
                None => {
                    self.reading = None;
                    continue;
                }
            };
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = folder.join(name);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.folders.push(path),
                Ok(_) => seen.push(Seen::File(path)),
                Err(error) => seen.extend(unreadable(&path, error)),
            }
        }
        seen
    }
}

/// What is gone meanwhile is nobody's concern.
fn unreadable(path: &Path, error: io::Error) -> Option<Seen> {
    (error.kind() != io::ErrorKind::NotFound).then(|| Seen::Unreadable(path.to_owned(), error))
}
