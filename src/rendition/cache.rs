//! A folder of files that can be made again, of bounded size.
//!
//! The files are in folders `1`, `2`, …, each of which holds an eighth of the limit. When the newest is full there is a
//! newer one, and the oldest goes with all that is in it. What is asked for in one of the older half moves to the newest, so
//! that what goes is what nobody asked for the longest. So there is no list of files, in memory or elsewhere. All of it
//! blocks.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Folders at a time.
const FOLDERS: u64 = 8;

/// Where files are until they are whole.
const UNFINISHED: &str = "unfinished";

/// What the smallest file takes on disk.
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    max_bytes: u64,
    /// `None` until somebody asks. Locked while a file moves.
    newest: Mutex<Option<Newest>>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    number: u64,
    bytes: u64,
}

impl Cache {
    /// Deletes what was not finished.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        let unfinished = folder.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(unfinished)?,
        }
        Ok(Self {
            folder: folder.to_owned(),
            max_bytes,
            newest: Mutex::new(None),
        })
    }

    /// The file of that name, and its length.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        let newest = self.newest()?.map_or(1, |newest| newest.number);
        for back in 0..FOLDERS.min(newest) {
            let path = self.folder(newest - back).join(name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let bytes = file.metadata()?.len();
            if back >= FOLDERS / 2 {
                match self.place(&path, name, bytes) {
                    // Somebody else moved it, or it just went.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    placed => placed?,
                }
            }
            return Ok(Some((file, bytes)));
        }
        Ok(None)
    }

    /// Keeps `bytes` under `name`. No other name is ever seen with less than all of them.
    pub(super) fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<(File, u64)> {
        let unfinished = self.folder.join(UNFINISHED);
        fs::create_dir_all(&unfinished)?;
        let path = unfinished.join(Uuid::new_v4().simple().to_string());
        let written = (|| {
            let mut options = File::options();
            let mut file = options
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            file.write_all(bytes)?;
            // Or a power cut might leave the name and not the bytes.
            file.sync_data()?;
            file.rewind()?;
            let bytes = bytes.len() as u64;
            self.place(&path, name, bytes)?;
            Ok((file, bytes))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Moves a file to the newest folder.
    fn place(&self, path: &Path, name: &str, bytes: u64) -> io::Result<()> {
        let bytes = bytes.next_multiple_of(BLOCK);
        let mut newest = self.newest()?;
        let now = newest.get_or_insert(Newest {
            number: 1,
            bytes: 0,
        });
        if now.bytes > 0 && now.bytes + bytes > self.max_bytes / FOLDERS {
            now.number += 1;
            now.bytes = 0;
        }
        let folder = self.folder(now.number);
        fs::create_dir_all(&folder)?;
        fs::rename(path, folder.join(name))?;
        let is_first = now.bytes == 0;
        now.bytes += bytes;
        let gone = now.number.checked_sub(FOLDERS).filter(|_| is_first);
        drop(newest);
        if let Some(gone) = gone {
            remove(&self.folder(gone))?;
        }
        Ok(())
    }

    fn folder(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// Looks around the first time.
    fn newest(&self) -> io::Result<MutexGuard<'_, Option<Newest>>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.is_none() {
            *newest = Some(self.look()?);
        }
        Ok(newest)
    }

    /// What an earlier process left. What is beyond the limit goes: it may have been another one.
    fn look(&self) -> io::Result<Newest> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let number = numbers.last().copied().unwrap_or(1);
        let mut newest = Newest { number, bytes: 0 };
        let mut total = 0;
        for old in numbers.into_iter().rev() {
            let folder = self.folder(old);
            let mut bytes = 0;
            for entry in fs::read_dir(&folder)? {
                bytes += entry?.metadata()?.len().next_multiple_of(BLOCK);
            }
            total += bytes;
            if old == number {
                newest.bytes = bytes;
            } else if total > self.max_bytes || old + FOLDERS <= number {
                remove(&folder)?;
            }
        }
        Ok(newest)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cache: &Cache) -> Vec<u32> {
        let is_there = |n: &u32| cache.find(&n.to_string()).unwrap().is_some();
        (0..100).filter(is_there).collect()
    }

    fn bytes_in(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_in(&entry.path()),
            false => entry.metadata().unwrap().len().next_multiple_of(BLOCK),
        });
        bytes.sum()
    }

    #[test]
    fn what_nobody_asked_for_the_longest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let max_bytes = 16 * BLOCK;
        let cache = Cache::open(folder.path(), max_bytes).unwrap();
        for n in 0..100_u32 {
            cache.keep(&n.to_string(), &n.to_le_bytes()).unwrap();
            // This one is asked for all the time.
            cache.find("7").unwrap();
            assert!(bytes_in(folder.path()) <= max_bytes);
        }
        let there = names(&cache);
        assert_eq!(there[0], 7);
        assert!(there.len() > 12, "{there:?}");
        let first = 101 - u32::try_from(there.len()).unwrap();
        assert_eq!(there[1..], (first..100).collect::<Vec<_>>());
        // The next process finds the same, and goes on with it.
        let cache = Cache::open(folder.path(), max_bytes).unwrap();
        assert_eq!(names(&cache), there);
        cache.keep("100", b"x").unwrap();
        assert!(bytes_in(folder.path()) <= max_bytes);
        // One that may keep less deletes the rest.
        let cache = Cache::open(folder.path(), max_bytes / 2).unwrap();
        assert!(!names(&cache).is_empty());
        assert!(bytes_in(folder.path()) <= max_bytes / 2);
    }

    #[test]
    fn what_was_not_finished_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 20).unwrap();
        cache.keep("a", b"abc").unwrap();
        fs::write(folder.path().join(UNFINISHED).join("b"), "ab").unwrap();
        let cache = Cache::open(folder.path(), 1 << 20).unwrap();
        assert!(!folder.path().join(UNFINISHED).join("b").exists());
        let (mut file, bytes) = cache.find("a").unwrap().unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!((text.as_str(), bytes), ("abc", 3));
    }

    #[test]
    fn a_folder_that_was_emptied_is_filled_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 20).unwrap();
        cache.keep("a", b"abc").unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(cache.find("a").unwrap().is_none());
        cache.keep("a", b"abc").unwrap();
        assert!(cache.find("a").unwrap().is_some());
    }
}
