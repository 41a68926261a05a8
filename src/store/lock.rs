//! One process a store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::StoreError;

/// Holds a store for this process; dropping it, or the end of the process, lets go.
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
        let path = root.join(".gannet").join(".lock");
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
                    root: root.to_owned(),
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
