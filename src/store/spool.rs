//! Stages a body that is too large for memory while it arrives.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::local::{Local, mtime_ns};
use super::{StageId, StoreError};
use crate::fault::Point;

/// Bytes that are gathered before a write: large enough that a write costs little beside its bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// A staged file that is being written. Dropping it deletes the file.
#[derive(Debug)]
pub struct Spool {
    staged: Staged,
    /// `None` while the spool rests.
    file: Option<Arc<File>>,
    len: u64,
    pending: BytesMut,
}

impl Spool {
    pub(super) async fn create(local: Arc<Local>) -> Result<Self, StoreError> {
        let id = StageId::new();
        let (staged, file) = super::local::blocking(move || {
            let file = local.create_staged(id)?;
            let keep = false;
            let staged = Staged { id, local, keep };
            staged.local.pass(Point::SpoolCreated, "create")?;
            Ok((staged, file))
        })
        .await?;
        Ok(Self {
            staged,
            file: Some(Arc::new(file)),
            len: 0,
            pending: BytesMut::new(),
        })
    }

    /// Takes the next bytes. Not cancel safe: drop the spool when a call was dropped.
    ///
    /// # Errors
    ///
    /// Those of writing, [`StoreError::Full`] among them.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_BYTES {
            self.write_pending().await.map(drop)
        } else {
            Ok(())
        }
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> u64 {
        self.len + self.pending.len() as u64
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes pending bytes, and returns the file for reading the body so far.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub async fn flush(&mut self) -> Result<Arc<File>, StoreError> {
        self.write_pending().await
    }

    /// Writes what is pending and closes the file, so that a body which waits for its rest holds neither
    /// memory nor a file descriptor. The next call opens it again.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub async fn rest(&mut self) -> Result<(), StoreError> {
        self.write_pending().await?;
        (self.file, self.pending) = (None, BytesMut::new());
        Ok(())
    }

    /// Writes what is pending and gives out the complete file.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub async fn finish(mut self) -> Result<Spooled, StoreError> {
        let file = self.write_pending().await?;
        let mtime_ns = mtime_ns(&file).map_err(|error| {
            let path = self.staged.local.staged_path(self.staged.id);
            self.staged.local.error("look up", path, error)
        })?;
        Ok(Spooled {
            staged: self.staged,
            file,
            len: self.len,
            mtime_ns,
        })
    }

    async fn write_pending(&mut self) -> Result<Arc<File>, StoreError> {
        let bytes = self.pending.split().freeze();
        let file = match &self.file {
            Some(file) if bytes.is_empty() => return Ok(file.clone()),
            file => file.clone(),
        };
        let (id, local, offset) = (self.staged.id, self.staged.local.clone(), self.len);
        self.len += bytes.len() as u64;
        let file = super::local::blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(local.open_staged(id)?),
            };
            file.write_all_at(&bytes, offset)
                .map_err(|error| local.error("write", local.staged_path(id), error))?;
            local.pass(Point::SpoolWritten, "write")?;
            Ok(file)
        })
        .await?;
        self.file = Some(file.clone());
        Ok(file)
    }
}

/// A complete staged file. Dropping it deletes the file, unless it was kept.
#[derive(Debug)]
pub struct Spooled {
    staged: Staged,
    file: Arc<File>,
    len: u64,
    mtime_ns: i64,
}

impl Spooled {
    /// The file, open for reading and writing.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When it was last written to, as in [`FileStat`](super::FileStat).
    pub fn mtime_ns(&self) -> i64 {
        self.mtime_ns
    }

    /// Leaves the file in the stage and gives out its id.
    pub fn keep(mut self) -> StageId {
        self.staged.keep = true;
        self.staged.id
    }
}

/// A file in the stage, deleted on drop unless it is kept.
#[derive(Debug)]
struct Staged {
    id: StageId,
    local: Arc<Local>,
    keep: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.keep {
            // A file that cannot be deleted here is deleted at the next start.
            let _ = std::fs::remove_file(self.local.staged_path(self.id));
        }
    }
}
