//! Keeps bytes under names, so that no crash leaves half of a file.
//!
//! [`Store`] is the folder that holds the albums. A body is *staged* (written under `.gannet/stage/`,
//! where no reader looks), *synced* together with its batch, and after the catalog has recorded it
//! *published*: renamed into its album. [`Spool`] stages a body that is too large for memory while it
//! arrives. [`StoreLock`] keeps a second process out.
//!
//! This room knows nothing of URLs, records or jobs. What is absent on purpose: file handles that stay
//! open, temporary files in albums, and writes to a published file.

mod local;
mod lock;
mod spool;
mod walk;

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use crate::local_path::LocalPath;
use crate::target::Reason;

pub use local::{FileStat, Folder, Found, Opened, Original, Recorded, Store, Withdrawn};
pub use lock::StoreLock;
pub use spool::{Spool, Spooled};
pub use walk::{Seen, Walk};

/// `[storage]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder that holds the albums and `.gannet/`.
    pub root: LocalPath,
    /// Whether a batch is made durable before it is recorded.
    pub sync: bool,
    /// Meaning of a file's modification time.
    pub mtime: Mtime,
    /// How long a staged file may wait for others.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// Most files in one batch.
    pub commit_files: NonZeroUsize,
}

/// Meaning of a file's modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mtime {
    /// When its bytes were stored.
    Now,
    /// The origin's `Last-Modified`. When its bytes were stored, if that is missing or in the future.
    LastModified,
}

impl Settings {
    /// The folder for copies of remote lists: private, and not this room's.
    pub fn lists(&self) -> PathBuf {
        self.root.join(".gannet").join("lists")
    }
}

/// Names a staged file, before and after the crash that may come in between. UUID version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub Uuid);

impl StageId {
    /// A new id; later ones sort after earlier ones.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The file name of a staged file: 32 hexadecimal digits.
    fn file_name(self) -> String {
        self.0.simple().to_string()
    }
}

impl Default for StageId {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room, or no quota, is left.
    #[error("the store `{root}` is full; make room or choose another `storage.root`")]
    Full {
        /// The store's root.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file stands where the root, or a folder above it, belongs.
    #[error(
        "the store `{}` cannot be a folder: `{}` is a file; choose another with `-o` or `storage.root`",
        root.display(),
        file.display()
    )]
    NotAFolder {
        /// The store's root.
        root: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// Another process works on this store, or with its catalog.
    #[error("another run holds the {what} `{path}`: {holder}")]
    Locked {
        /// What it holds: `store` or `catalog`.
        what: &'static str,
        /// The store's root, or the catalog's file.
        path: PathBuf,
        /// What that process wrote about itself.
        holder: String,
    },
    /// A thread that did the work ended early.
    #[error("the store's worker thread ended early")]
    Worker,
}

impl StoreError {
    /// The stable code that reports and the API carry. A full store fails every further write as well.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Full { .. } => Reason::StoreFull,
            Self::Io { .. } | Self::NotAFolder { .. } | Self::Locked { .. } | Self::Worker => {
                Reason::StoreError
            }
        }
    }

    /// Returns `true` if the error concerns only this path, and no other file: a folder where a file belongs, or the
    /// reverse, missing rights, or the length of the name.
    pub fn is_of_one_path(&self) -> bool {
        use io::ErrorKind::{
            AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, PermissionDenied,
        };
        let Self::Io { source, .. } = self else {
            return false;
        };
        matches!(
            source.kind(),
            AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | PermissionDenied
        )
    }
}

#[cfg(test)]
mod tests;
