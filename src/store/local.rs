//! The store as a folder of the local file system.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use uuid::Uuid;

use super::{Settings, Spool, StageId, StoreError};
use crate::fault::{self, Point};
use crate::naming::StorePath;
use crate::target::{Sha256, Sha256Hasher};

/// Up to this many files are synced one by one; for more, one pass over the file system is cheaper.
const SYNC_SINGLY: usize = 16;

/// Album folders that are remembered as present.
const FOLDERS_REMEMBERED: usize = 4096;

/// A folder that holds albums. Cheap to clone; every method does its work on a blocking thread.
#[derive(Debug, Clone)]
pub struct Store(Arc<Local>);

#[derive(Debug)]
pub(super) struct Local {
    root: PathBuf,
    /// The root and the stage, held open so that every step names a file relative to them: shorter
    /// look-ups, and no step lands elsewhere when somebody moves the folder.
    root_dir: File,
    stage_dir: File,
    sync: bool,
    /// Folders that this process made or saw. Locked for a look-up only.
    folders: Mutex<HashSet<String>>,
}

impl Store {
    /// Opens the store, and makes its folders where they are missing.
    ///
    /// # Errors
    ///
    /// When the root cannot be made, read or written.
    pub async fn open(settings: &Settings) -> Result<Self, StoreError> {
        let (root, sync) = (settings.root.clone(), settings.sync);
        blocking(move || Local::make(root.into(), sync))
            .await
            .map(|local| Self(Arc::new(local)))
    }

    /// Opens a store that is there, to look at it: nothing is made.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub async fn open_to_read(settings: &Settings) -> Result<Self, StoreError> {
        let (root, sync) = (settings.root.clone(), settings.sync);
        blocking(move || Local::open(root.into(), sync))
            .await
            .map(|local| Self(Arc::new(local)))
    }

    /// The folder that holds the albums.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Writes `bodies` where no reader sees them. The answers, in the order of the bodies, are the times of
    /// modification, as in [`FileStat`].
    pub async fn stage(&self, bodies: Vec<(StageId, Bytes)>) -> Vec<Result<i64, StoreError>> {
        let local = self.0.clone();
        let count = bodies.len();
        let staged = blocking(move || {
            Ok(bodies
                .iter()
                .map(|(id, body)| local.stage(*id, body))
                .collect())
        });
        staged.await.unwrap_or_else(|_| all_failed(count))
    }

    /// Sets the modification times of staged files, in nanoseconds since 1970. Returns the times that the files then
    /// have, in the order of the batch, because not every file system keeps nanoseconds.
    pub async fn set_mtimes(&self, batch: Vec<(StageId, i64)>) -> Vec<Result<i64, StoreError>> {
        let local = self.0.clone();
        let count = batch.len();
        let set = blocking(move || {
            Ok(batch
                .iter()
                .map(|(id, time)| local.set_mtime(*id, *time))
                .collect())
        });
        set.await.unwrap_or_else(|_| all_failed(count))
    }

    /// Begins a staged file for a body that is too large for memory.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub async fn spool(&self) -> Result<Spool, StoreError> {
        Spool::create(self.0.clone()).await
    }

    /// Returns once every staged file of `batch` would survive a power cut; at once when
    /// `storage.sync` is off.
    ///
    /// # Errors
    ///
    /// When the system cannot promise it.
    pub async fn sync(&self, batch: &[StageId]) -> Result<(), StoreError> {
        if !self.0.sync || batch.is_empty() {
            return Ok(());
        }
        let (local, batch) = (self.0.clone(), batch.to_vec());
        blocking(move || {
            local.pass(Point::SyncBefore, "sync")?;
            local.sync(&batch)?;
            local.pass(Point::SyncDone, "sync")
        })
        .await
    }

    /// Which of `paths` have something there already, be it a folder. The answers are in the order of the paths.
    pub async fn exist(&self, paths: Vec<StorePath>) -> Vec<Result<bool, StoreError>> {
        let local = self.0.clone();
        let count = paths.len();
        let exist = blocking(move || Ok(paths.iter().map(|path| local.exists(path)).collect()));
        exist.await.unwrap_or_else(|_| all_failed(count))
    }

    /// Which of these paths hold a file of exactly these bytes already.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone. What cannot be read is something else.
    pub async fn hold(
        &self,
        files: Vec<(StorePath, u64, Sha256)>,
    ) -> Result<Vec<bool>, StoreError> {
        let local = self.0.clone();
        let holds = move |(path, bytes, sha256): &(StorePath, u64, Sha256)| {
            matches!(local.compare(path.as_str(), *bytes, *sha256), Found::Whole)
        };
        blocking(move || Ok(files.iter().map(holds).collect())).await
    }

    /// Holds the file at `path` against what its record says of it.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone.
    pub async fn compare(
        &self,
        path: String,
        bytes: u64,
        sha256: Sha256,
    ) -> Result<Found, StoreError> {
        let local = self.0.clone();
        blocking(move || Ok(local.compare(&path, bytes, sha256))).await
    }

    /// Opens a recorded file to read it: where it is published or, between its record and that, in the stage. What a
    /// symbolic link leads to is none, nor is what has other bytes than recorded.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn open_recorded(
        &self,
        path: String,
        stage: StageId,
        recorded: Recorded,
        sha256: Sha256,
    ) -> Result<Opened, StoreError> {
        let local = self.0.clone();
        blocking(move || {
            local
                .open_recorded(&path, stage, recorded, sha256)
                .map_err(|error| local.error("read", local.root.join(&path), error))
        })
        .await
    }

    /// Writes a little and deletes it again.
    ///
    /// # Errors
    ///
    /// When nothing can be written.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let local = self.0.clone();
        blocking(move || {
            let path = local.root.join(".gannet").join("probe");
            let written = fs::write(&path, "probe");
            written.map_err(|error| local.error("write", path.clone(), error))?;
            match fs::remove_file(&path) {
                // Somebody else tried at the same time.
                Err(error) if !is_missing(&error) => Err(local.error("delete", path, error)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Whether a staged file is there.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone.
    pub async fn is_staged(&self, id: StageId) -> Result<bool, StoreError> {
        let local = self.0.clone();
        blocking(move || Ok(local.staged_path(id).exists())).await
    }

    /// Makes the folders in which `paths` are to appear, so that `publish` has nothing left that may fail for want
    /// of them. The answers are in the order of the paths.
    pub async fn make_folders(&self, paths: Vec<StorePath>) -> Vec<Result<(), StoreError>> {
        let local = self.0.clone();
        let count = paths.len();
        let made = blocking(move || Ok(paths.iter().map(|path| local.make_folder(path)).collect()));
        made.await.unwrap_or_else(|_| all_failed(count))
    }

    /// Gives staged files their names, in place of what had them. Idempotent: a file that is not staged
    /// any more was published before. The answers are in the order of the batch; one that cannot have its
    /// name stays staged.
    pub async fn publish(&self, batch: Vec<(StageId, StorePath)>) -> Vec<Result<(), StoreError>> {
        let local = self.0.clone();
        let count = batch.len();
        let published = blocking(move || {
            Ok(batch
                .iter()
                .map(|(id, path)| local.publish(*id, path))
                .collect())
        });
        published.await.unwrap_or_else(|_| all_failed(count))
    }

    /// Deletes staged files. One that cannot be deleted is left for the next start.
    pub async fn discard(&self, batch: Vec<StageId>) {
        let local = self.0.clone();
        let discarded = blocking(move || {
            for id in batch {
                let _ = fault::pass(Point::DiscardBefore)
                    .and_then(|()| fs::remove_file(local.staged_path(id)));
                fault::reach(Point::DiscardOne);
            }
            Ok(())
        });
        let _ = discarded.await;
    }

    /// What an earlier process left in the stage.
    ///
    /// # Errors
    ///
    /// When the stage cannot be read.
    pub async fn staged(&self) -> Result<Vec<StageId>, StoreError> {
        let local = self.0.clone();
        blocking(move || local.staged()).await
    }

    /// Takes published files out of their albums and back into the stage, as if they had never been
    /// published. Durable when it returns. Idempotent: a file that is not there any more is fine. What is not as it was
    /// recorded is not ours to take, nor is what a symbolic link leads to. The answers are in the order of the batch.
    ///
    /// # Errors
    ///
    /// When the system cannot promise that it is durable.
    pub async fn withdraw(
        &self,
        batch: Vec<(StageId, StorePath, Recorded)>,
    ) -> Result<Vec<Result<Withdrawn, StoreError>>, StoreError> {
        let local = self.0.clone();
        blocking(move || {
            let withdrawn = batch
                .iter()
                .map(|(id, path, recorded)| local.withdraw(*id, path, *recorded));
            let withdrawn = withdrawn.collect();
            if local.sync {
                local.sync_stage()?;
            }
            Ok(withdrawn)
        })
        .await
    }

    /// Removes the folders that held these paths, and those that held them in turn, as far as they are empty.
    pub async fn remove_empty_folders(&self, paths: Vec<StorePath>) {
        let local = self.0.clone();
        let removed = blocking(move || {
            let folders: BTreeSet<&str> = paths.iter().filter_map(StorePath::folder).collect();
            folders
                .into_iter()
                .for_each(|folder| local.remove_empty(folder));
            Ok(())
        });
        let _ = removed.await;
    }

    /// What is at the place of a folder below the root.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub async fn folder(&self, path: &StorePath) -> Result<Folder, StoreError> {
        let (local, path) = (self.0.clone(), path.clone());
        blocking(move || {
            let folder = local.folder(path.as_str());
            folder.map_err(|error| local.error("look up", path.below(&local.root), error))
        })
        .await
    }

    /// Gives a folder, with all that is in it, another name, and makes the folders on the way there. Durable when it
    /// returns. Nothing is replaced.
    ///
    /// # Errors
    ///
    /// When something is there, or the system refuses; then the folder has its old name, unless the error is that it
    /// cannot be made durable.
    pub async fn rename_folder(&self, from: &StorePath, to: &StorePath) -> Result<(), StoreError> {
        let (local, from, to) = (self.0.clone(), from.clone(), to.clone());
        blocking(move || local.rename_folder(&from, &to)).await
    }

    /// Stages files under further ids, without a copy of their bytes: by hard links. Durable when it returns. The
    /// answers, in the order of the batch, are the times of modification, as in [`FileStat`]; where a file cannot be
    /// linked nothing is staged.
    ///
    /// # Errors
    ///
    /// When the system cannot promise that the links are durable.
    pub async fn link(
        &self,
        batch: Vec<(Original, StageId)>,
    ) -> Result<Vec<Result<i64, StoreError>>, StoreError> {
        let local = self.0.clone();
        blocking(move || {
            let linked = batch.iter().map(|(original, id)| local.link(original, *id));
            let linked = linked.collect();
            if local.sync {
                local.sync_stage()?;
            }
            Ok(linked)
        })
        .await
    }

    /// What the system says of published files; `None` where there is no regular file.
    ///
    /// # Errors
    ///
    /// When the worker thread is gone.
    pub async fn stats(&self, paths: Vec<String>) -> Result<Vec<Option<FileStat>>, StoreError> {
        let local = self.0.clone();
        blocking(move || Ok(paths.iter().map(|path| local.stat(path)).collect())).await
    }
}

/// How a file compares with what its record says of it.
#[derive(Debug)]
pub enum Found {
    /// It has the length and the digest.
    Whole,
    /// There is nothing, or no regular file.
    Missing,
    /// It has another length.
    Length(u64),
    /// It has another digest.
    Content(Sha256),
    /// It cannot be read.
    Unreadable(io::Error),
}

/// What is there of a file that is recorded.
#[derive(Debug)]
pub enum Opened {
    /// It, as it was recorded.
    Whole(File),
    /// Nothing, or no regular file.
    Missing,
    /// Other bytes.
    Altered,
}

/// What became of a file that was to be taken out of its album.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is in the stage.
    Taken,
    /// It was not there any more.
    Missing,
    /// What is there has another length or time than recorded, and stays.
    Altered,
    /// What is there is no regular file, and stays.
    NoFile,
}

/// What is at the place of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// Nothing.
    Missing,
    /// A folder. The text tells it from all others of this machine, under whichever name.
    There(String),
    /// Something else, or a symbolic link on the way.
    Other,
}

/// What a link is made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Original {
    /// A file that is visible.
    Published(StorePath),
    /// One that waits to be.
    Staged(StageId),
}

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Length in bytes.
    pub bytes: u64,
    /// When its bytes were last written, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What the record of a file says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Length in bytes.
    pub bytes: u64,
    /// When its bytes were last written, as in [`FileStat`]; `None` when nobody looked.
    pub mtime_ns: Option<i64>,
}

impl Recorded {
    /// Whether a file has that length and, where it is known, that time.
    pub fn agrees_with(self, stat: FileStat) -> bool {
        self.bytes == stat.bytes && self.mtime_ns.is_none_or(|time| time == stat.mtime_ns)
    }
}

impl From<Stat> for FileStat {
    fn from(stat: Stat) -> Self {
        let seconds: i64 = stat.st_mtime;
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.root.display().fmt(f)
    }
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// The file that stands where `path` needs a folder.
fn file_above(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find(|path| path.exists())?;
    (!there.is_dir()).then(|| there.to_owned())
}

impl Local {
    fn make(root: PathBuf, sync: bool) -> Result<Self, StoreError> {
        let stage = root.join(".gannet").join("stage");
        fs::create_dir_all(&stage).map_err(|error| match file_above(&stage) {
            Some(file) => StoreError::NotAFolder {
                root: root.clone(),
                file,
            },
            None => refused("create the folder", &stage)(error),
        })?;
        Self::open(root, sync)
    }

    fn open(root: PathBuf, sync: bool) -> Result<Self, StoreError> {
        let stage = root.join(".gannet").join("stage");
        let open = |path: &Path| {
            rustix::fs::open(
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map(File::from)
            .map_err(|error| refused("open the folder", path)(error.into()))
        };
        Ok(Self {
            root_dir: open(&root)?,
            stage_dir: open(&stage)?,
            root,
            sync,
            folders: Mutex::default(),
        })
    }

    pub(super) fn error(
        &self,
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    ) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
                root: self.root.clone(),
                source,
            },
            _ => StoreError::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(super) fn pass(&self, point: Point, action: &'static str) -> Result<(), StoreError> {
        fault::pass(point).map_err(|error| self.error(action, self.root.clone(), error))
    }

    pub(super) fn staged_path(&self, id: StageId) -> PathBuf {
        self.root.join(".gannet").join("stage").join(id.file_name())
    }

    pub(super) fn create_staged(&self, id: StageId) -> Result<File, StoreError> {
        self.staged_file("create", id, OFlags::CREATE | OFlags::EXCL)
    }

    pub(super) fn open_staged(&self, id: StageId) -> Result<File, StoreError> {
        self.staged_file("open", id, OFlags::empty())
    }

    fn staged_file(
        &self,
        action: &'static str,
        id: StageId,
        flags: OFlags,
    ) -> Result<File, StoreError> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::openat(&self.stage_dir, id.file_name(), flags, mode)
            .map(File::from)
            .map_err(|error| self.error(action, self.staged_path(id), error.into()))
    }

    fn stage(&self, id: StageId, body: &[u8]) -> Result<i64, StoreError> {
        let mut file = self.create_staged(id)?;
        let mut write = || {
            fault::pass(Point::StageCreated)?;
            file.write_all(body)?;
            fault::pass(Point::StageWritten)?;
            mtime_ns(&file)
        };
        write().map_err(|error| {
            // Half a body is of no use, and on a full disk its room is.
            let _ = fs::remove_file(self.staged_path(id));
            self.error("write", self.staged_path(id), error)
        })
    }

    fn set_mtime(&self, id: StageId, mtime_ns: i64) -> Result<i64, StoreError> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: mtime_ns.div_euclid(1_000_000_000),
                tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
            },
        };
        let (name, flags) = (id.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        rustix::fs::utimensat(&self.stage_dir, &name, &times, flags)
            .and_then(|()| rustix::fs::statat(&self.stage_dir, &name, flags))
            .map(|stat| FileStat::from(stat).mtime_ns)
            .map_err(|error| self.error("set the time of", self.staged_path(id), error.into()))
    }

    fn sync(&self, batch: &[StageId]) -> Result<(), StoreError> {
        if batch.len() > SYNC_SINGLY && cfg!(target_os = "linux") {
            return self.sync_file_system();
        }
        for id in batch {
            let path = self.staged_path(*id);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|error| self.error("sync", path, error))?;
        }
        self.sync_stage()
    }

    fn sync_stage(&self) -> Result<(), StoreError> {
        self.stage_dir
            .sync_all()
            .map_err(|error| self.error("sync", self.root.join(".gannet").join("stage"), error))
    }

    #[cfg(target_os = "linux")]
    fn sync_file_system(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.root_dir)
            .map_err(|error| self.error("sync the file system of", self.root.clone(), error.into()))
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_file_system(&self) -> Result<(), StoreError> {
        unreachable!("asked for on Linux only")
    }

    fn make_folder(&self, path: &StorePath) -> Result<(), StoreError> {
        let Some(folder) = path.folder() else {
            return Ok(());
        };
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if !folders.contains(folder) {
            let full = self.root.join(folder);
            self.refuse_links(folder)
                .and_then(|()| fs::create_dir_all(&full))
                .map_err(|error| self.error("create the folder", full, error))?;
            self.pass(Point::FolderMade, "create the folder")?;
            if folders.len() < FOLDERS_REMEMBERED {
                folders.insert(folder.to_owned());
            }
        }
        Ok(())
    }

    /// A symbolic link on the way could lead out of the root, and who names albums is not who made the link.
    fn refuse_links(&self, folder: &str) -> io::Result<()> {
        let mut path = self.root.clone();
        for component in folder.split('/') {
            path.push(component);
            match fs::symlink_metadata(&path) {
                Ok(there) if there.is_symlink() => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        format!("`{}` is a symbolic link", path.display()),
                    ));
                }
                Ok(_) => {}
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Refuses a path that a symbolic link may lead out of the root, whoever made that link since the folder.
    fn keep_inside(&self, action: &'static str, path: &StorePath) -> Result<(), StoreError> {
        let links = path
            .folder()
            .map_or(Ok(()), |folder| self.refuse_links(folder));
        links.map_err(|error| self.error(action, self.root.join(path.as_str()), error))
    }

    fn exists(&self, path: &StorePath) -> Result<bool, StoreError> {
        match rustix::fs::statat(&self.root_dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(self.error("look up", self.root.join(path.as_str()), error.into())),
        }
    }

    fn publish(&self, id: StageId, path: &StorePath) -> Result<(), StoreError> {
        self.keep_inside("publish", path)?;
        let rename = || {
            rustix::fs::renameat(
                &self.stage_dir,
                id.file_name(),
                &self.root_dir,
                path.as_str(),
            )
        };
        self.pass(Point::PublishBefore, "publish")?;
        match rename() {
            Ok(()) => return self.pass(Point::PublishOne, "publish"),
            Err(rustix::io::Errno::NOENT) if !self.staged_path(id).exists() => return Ok(()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => {
                return Err(self.error("publish", self.root.join(path.as_str()), error.into()));
            }
        }
        // Somebody removed the folder since `make_folders`, or this is the start after a crash.
        self.folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.make_folder(path)?;
        rename().map_err(|error| self.error("publish", self.root.join(path.as_str()), error.into()))
    }

    fn staged(&self) -> Result<Vec<StageId>, StoreError> {
        let stage = self.root.join(".gannet").join("stage");
        let unreadable = |error| self.error("read the folder", stage.clone(), error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&stage).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // Anything else in there is not ours to delete.
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| Uuid::try_parse(name).ok())
                .map(StageId);
            if let Some(id) = id.filter(|id| name == *id.file_name()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn compare(&self, path: &str, bytes: u64, sha256: Sha256) -> Found {
        let stat = match rustix::fs::statat(&self.root_dir, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Found::Missing,
            Err(error) => return Found::Unreadable(error.into()),
        };
        if !is_regular(&stat) {
            return Found::Missing;
        }
        let length = FileStat::from(stat).bytes;
        if length != bytes {
            return Found::Length(length);
        }
        match self.digest(path) {
            Ok(digest) if digest == sha256 => Found::Whole,
            Ok(digest) => Found::Content(digest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
            Err(error) => Found::Unreadable(error),
        }
    }

    fn digest(&self, path: &str) -> io::Result<Sha256> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root_dir, path, flags, Mode::empty())?;
        digest_of(&File::from(file))
    }

    fn open_recorded(
        &self,
        path: &str,
        stage: StageId,
        recorded: Recorded,
        sha256: Sha256,
    ) -> io::Result<Opened> {
        let mut published = open_regular(&self.root_dir, path)?;
        if let Some((file, _)) = published.take_if(|(_, stat)| recorded.agrees_with(*stat)) {
            return Ok(Opened::Whole(file));
        }
        match open_regular(&self.stage_dir, &stage.file_name())? {
            Some((file, stat)) if stat.bytes == recorded.bytes => return Ok(Opened::Whole(file)),
            Some(_) => {}
            // It may have been published between the two looks.
            None => published = open_regular(&self.root_dir, path)?,
        }
        let Some((mut file, stat)) = published else {
            return Ok(Opened::Missing);
        };
        let is_same = recorded.agrees_with(stat)
            // Somebody may have copied the store without its times.
            || stat.bytes == recorded.bytes && digest_of(&file)? == sha256;
        file.rewind()?;
        Ok(match is_same {
            true => Opened::Whole(file),
            false => Opened::Altered,
        })
    }

    fn withdraw(
        &self,
        id: StageId,
        path: &StorePath,
        recorded: Recorded,
    ) -> Result<Withdrawn, StoreError> {
        self.pass(Point::WithdrawBefore, "take back")?;
        self.keep_inside("take back", path)?;
        let refused =
            |error: io::Error| self.error("take back", self.root.join(path.as_str()), error);
        match rustix::fs::statat(&self.root_dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !is_regular(&stat) => return Ok(Withdrawn::NoFile),
            Ok(stat) if !recorded.agrees_with(stat.into()) => return Ok(Withdrawn::Altered),
            Ok(_) => {}
            Err(error) if is_missing(&error.into()) => return Ok(Withdrawn::Missing),
            Err(error) => return Err(refused(error.into())),
        }
        let renamed = rustix::fs::renameat(
            &self.root_dir,
            path.as_str(),
            &self.stage_dir,
            id.file_name(),
        );
        match renamed {
            Ok(()) => {
                self.pass(Point::WithdrawOne, "take back")?;
                Ok(Withdrawn::Taken)
            }
            Err(rustix::io::Errno::NOENT) => Ok(Withdrawn::Missing),
            Err(error) => Err(refused(error.into())),
        }
    }

    fn remove_empty(&self, folder: &str) {
        // Whoever is about to publish there makes it again.
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = Some(folder);
        while let Some(folder) = rest {
            // One that is not empty stays, and with it all that hold it.
            if rustix::fs::unlinkat(&self.root_dir, folder, AtFlags::REMOVEDIR).is_err() {
                return;
            }
            folders.remove(folder);
            rest = folder.rsplit_once('/').map(|(outer, _)| outer);
        }
    }

    fn folder(&self, path: &str) -> io::Result<Folder> {
        if let Err(error) = self.refuse_links(path) {
            return match error.kind() {
                io::ErrorKind::NotADirectory => Ok(Folder::Other),
                _ => Err(error),
            };
        }
        match rustix::fs::statat(&self.root_dir, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(Folder::There(format!("{}:{}", stat.st_dev, stat.st_ino)))
            }
            Ok(_) | Err(Errno::NOTDIR) => Ok(Folder::Other),
            Err(Errno::NOENT) => Ok(Folder::Missing),
            Err(error) => Err(error.into()),
        }
    }

    fn rename_folder(&self, from: &StorePath, to: &StorePath) -> Result<(), StoreError> {
        self.keep_inside("rename", from)?;
        self.make_folder(to)?;
        let renamed = rename_to_nothing(&self.root_dir, from.as_str(), to.as_str());
        // Whoever is about to publish below either of them makes it again.
        self.folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        if let Err(error) = renamed {
            to.folder()
                .into_iter()
                .for_each(|outer| self.remove_empty(outer));
            return Err(self.error("rename to", to.below(&self.root), error.into()));
        }
        for path in [to, from] {
            self.sync_folder_of(path)?;
        }
        from.folder()
            .into_iter()
            .for_each(|outer| self.remove_empty(outer));
        Ok(())
    }

    fn sync_folder_of(&self, path: &StorePath) -> Result<(), StoreError> {
        if !self.sync {
            return Ok(());
        }
        let folder = match path.folder() {
            Some(folder) => self.root.join(folder),
            None => self.root.clone(),
        };
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.error("sync", folder, error))
    }

    fn link(&self, original: &Original, id: StageId) -> Result<i64, StoreError> {
        let (folder, name, path) = match original {
            Original::Published(path) => (&self.root_dir, path.to_string(), path.below(&self.root)),
            Original::Staged(id) => (&self.stage_dir, id.file_name(), self.staged_path(*id)),
        };
        self.pass(Point::LinkBefore, "link")?;
        rustix::fs::linkat(
            folder,
            name,
            &self.stage_dir,
            id.file_name(),
            AtFlags::empty(),
        )
        .and_then(|()| rustix::fs::statat(&self.stage_dir, id.file_name(), AtFlags::empty()))
        .map(|stat| FileStat::from(stat).mtime_ns)
        .map_err(|error| self.error("link", path, error.into()))
    }

    fn stat(&self, path: &str) -> Option<FileStat> {
        let stat = rustix::fs::statat(&self.root_dir, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        is_regular(&stat).then(|| stat.into())
    }
}

/// Not every file system can promise that nothing is replaced. There, what is replaced is an empty folder at most.
#[cfg(target_os = "linux")]
fn rename_to_nothing(root: &File, from: &str, to: &str) -> rustix::io::Result<()> {
    use rustix::fs::RenameFlags;
    match rustix::fs::renameat_with(root, from, root, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(root, from, root, to),
        renamed => renamed,
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_to_nothing(root: &File, from: &str, to: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat(root, from, root, to)
}

/// Opens the regular file at `path` below `folder`, component by component, so that no symbolic link leads elsewhere.
fn open_regular(folder: &File, path: &str) -> io::Result<Option<(File, FileStat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut below: Option<File> = None;
    let mut components = path.split('/').peekable();
    while let Some(component) = components.next() {
        let kind = match components.peek() {
            Some(_) => OFlags::DIRECTORY,
            None => OFlags::empty(),
        };
        let at = below.as_ref().unwrap_or(folder);
        match rustix::fs::openat(at, component, flags | kind, Mode::empty()) {
            Ok(opened) => below = Some(opened.into()),
            // In this order: nothing, a file for a folder, a symbolic link, a socket.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let Some(file) = below else { return Ok(None) };
    let stat = rustix::fs::fstat(&file)?;
    Ok(is_regular(&stat).then(|| (file, stat.into())))
}

/// The digest of what is left to read of `file`.
fn digest_of(file: &File) -> io::Result<Sha256> {
    let mut hasher = Sha256Hasher::default();
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Whether there is nothing, or a file where a folder is looked for.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn all_failed<T>(count: usize) -> Vec<Result<T, StoreError>> {
    (0..count).map(|_| Err(StoreError::Worker)).collect()
}

/// When `file` was last written to, in nanoseconds since 1970.
pub(super) fn mtime_ns(file: &File) -> io::Result<i64> {
    Ok(FileStat::from(rustix::fs::fstat(file)?).mtime_ns)
}

/// Runs `work` on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(StoreError::Worker))
}
