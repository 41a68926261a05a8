//! Stages a body that is too large for memory while it arrives.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::local::Local;
use super::{StageId, StoreError};

/// Bytes that are gathered before a write: large enough that a write costs little beside its bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// A staged file that is being written. Dropping it deletes the file.
#[derive(Debug)]
pub struct Spool {
    file: Spooled,
    pending: BytesMut,
}

impl Spool {
    pub(super) async fn create(local: Arc<Local>) -> Result<Self, StoreError> {
        let id = StageId::new();
        let file = super::local::blocking(move || {
            let file = local.create_staged(id)?;
            let path = local.staged_path(id);
            Ok(Spooled {
                id,
                file: Arc::new(file),
                len: 0,
                path,
                local,
                keep: false,
            })
        })
        .await?;
        Ok(Self {
            file,
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
            self.write_pending().await
        } else {
            Ok(())
        }
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> u64 {
        self.file.len + self.pending.len() as u64
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what is pending and gives out the complete file.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub async fn finish(mut self) -> Result<Spooled, StoreError> {
        self.write_pending().await?;
        Ok(self.file)
    }

    async fn write_pending(&mut self) -> Result<(), StoreError> {
        let bytes = self.pending.split().freeze();
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, local, offset) = (
            self.file.file.clone(),
            self.file.local.clone(),
            self.file.len,
        );
        self.file.len += bytes.len() as u64;
        let path = self.file.path.clone();
        super::local::blocking(move || {
            file.write_all_at(&bytes, offset)
                .map_err(|error| local.error("write", path, error))
        })
        .await
    }
}

/// A complete staged file. Dropping it deletes the file, unless it was kept.
#[derive(Debug)]
pub struct Spooled {
    id: StageId,
    file: Arc<File>,
    len: u64,
    path: PathBuf,
    local: Arc<Local>,
    keep: bool,
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

    /// Leaves the file in the stage and gives out its id.
    pub fn keep(mut self) -> StageId {
        self.keep = true;
        self.id
    }

    /// Goes on writing behind the bytes that are there, as a resumed body does.
    pub fn reopen(self) -> Spool {
        Spool {
            file: self,
            pending: BytesMut::new(),
        }
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if !self.keep {
            // A file that cannot be deleted here is deleted at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
