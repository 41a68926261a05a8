//! One process a store, and a catalog.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Holds a store, or a catalog that may be elsewhere, for this process; dropping it, or the end of the process,
/// lets go.
///
/// The lock is advisory (`flock`), so it never outlives its process, however that ends.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock of the store at `root`, whose `.gannet` folder exists.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] with what the holder wrote about itself, or the system's refusal.
    pub fn take(root: &Path) -> Result<Self, StoreError> {
        Self::take_file("store", root, root.join(".gannet").join(".lock"))
    }

    /// Takes the lock of the catalog at `path`: a file beside it, with `.lock` behind its name.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    pub fn take_catalog(path: &Path) -> Result<Self, StoreError> {
        // Two names of one file are one catalog. The first to come finds none yet.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        Self::take_file("catalog", &path, lock.into())
    }

    fn take_file(what: &'static str, held: &Path, path: PathBuf) -> Result<Self, StoreError> {
        let io = |action| {
            let path = path.clone();
            move |source| StoreError::Io {
                action,
                path,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let told = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if told {
                    holder.trim()
                } else {
                    "a process that did not say who it is"
                };
                return Err(StoreError::Locked {
                    what,
                    path: held.to_owned(),
                    holder: holder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        let since = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {} since {since}", std::process::id()))
            .map_err(io("write"))?;
        Ok(Self { _file: file })
    }
}
