//! Copies of remote lists, so that an origin can answer that nothing changed.
//!
//! A copy is one file: the body as it came, a line end, and a line of JSON ([`Head`]) with what to ask by next
//! time. It is written to a temporary name, from where the list is read meanwhile, and renamed when that came to its
//! end, so a validator never stands for bytes that are not there whole. A copy that is not what its head says is not used.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::fault::{self, Point};
use crate::fetch::{StoredValidators, Validators, recorded_url};
use crate::source::remote::RemoteBody;
use crate::target::{SafeUrl, Sha256, Sha256Hasher};

/// How long ago a copy may have been of use.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often a process looks for copies that are older.
const SWEEP: Duration = Duration::from_secs(24 * 3600);

/// Largest head: several times `fetch.max_header_bytes`, which bounds most of what is in one.
const MAX_HEAD_BYTES: u64 = 256 * 1024;

/// Hexadecimal digits of a URL's digest that name its copy.
const KEY_DIGITS: usize = 32;

/// The folder with the copies of remote lists. One process at a time writes there; cheap to clone.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Tells the temporary files of this process from those of crashed ones; `None`: nothing is written.
    run: Option<String>,
    drafts: AtomicU64,
    /// When old files were last looked for.
    swept: Mutex<Option<Instant>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shelf").field(&self.0.folder).finish()
    }
}

impl Shelf {
    /// The copies in `folder`, which is made once there is one.
    pub fn new(folder: PathBuf) -> Self {
        Self::of(folder, Some(Uuid::new_v4().simple().to_string()))
    }

    /// The same, where the copies are used and nothing is changed.
    pub fn to_read(folder: PathBuf) -> Self {
        Self::of(folder, None)
    }

    fn of(folder: PathBuf, run: Option<String>) -> Self {
        Self(Arc::new(Inner {
            folder,
            run,
            drafts: AtomicU64::new(0),
            swept: Mutex::new(None),
        }))
    }

    /// The copy of the list at `url`, as far as its length tells that it is whole.
    pub(super) async fn find(&self, url: &Url) -> Option<LastCopy> {
        let (shelf, path) = (self.clone(), self.path(url));
        let found = spawn_blocking(move || {
            shelf.sweep();
            LastCopy::open(&path, shelf.0.run.is_some())
        });
        match found.await {
            Ok(Ok(copy)) => Some(copy),
            Ok(Err(error)) => {
                if error.kind() != io::ErrorKind::NotFound {
                    not_used(url, &error);
                }
                None
            }
            Err(_) => None,
        }
    }

    /// Begins a copy of the list at `url`, and opens it for reading; `None` where nothing is to be written, or cannot be.
    pub(super) async fn begin(&self, url: &Url, head: Head) -> Option<(Draft, File)> {
        let run = self.0.run.as_ref()?;
        let number = self.0.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.path(url);
        let temporary = path.with_extension(format!("{run}-{number}.part"));
        let (folder, temporary) = (self.0.folder.clone(), Temporary(temporary));
        let created = spawn_blocking(move || {
            fs::create_dir_all(folder)?;
            let mut options = OpenOptions::new();
            // Lists may hold credentials.
            options.read(true).write(true).create_new(true).mode(0o600);
            let file = options.open(&temporary.0)?;
            Ok((file.try_clone()?, file, temporary))
        });
        match created.await.unwrap_or_else(|error| Err(error.into())) {
            Ok((reading, file, temporary)) => {
                let draft = Draft {
                    file: file.into(),
                    hasher: Sha256Hasher::default(),
                    head,
                    temporary,
                    path,
                };
                Some((draft, reading))
            }
            Err(error) => {
                not_kept(&head, &error);
                None
            }
        }
    }

    fn path(&self, url: &Url) -> PathBuf {
        let digest = Sha256::of(url.as_str().as_bytes()).to_string();
        self.0
            .folder
            .join(&digest[..KEY_DIGITS])
            .with_extension("list")
    }

    /// Deletes copies that were of no use for long, and what crashed processes left, once a day.
    fn sweep(&self) {
        let Some(run) = &self.0.run else { return };
        let mut swept = self.0.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|at| at.elapsed() < SWEEP) {
            return;
        }
        *swept = Some(Instant::now());
        // What cannot be read or deleted is tried again, and harms nobody.
        for entry in fs::read_dir(&self.0.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_over = match name.to_str().and_then(ending) {
                Some(Ending::Temporary(of)) => of != run,
                Some(Ending::Copy) => is_unused(&entry),
                None => false,
            };
            if is_over {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What a file of the shelf is, by its name; `None`: it is not ours to delete.
fn ending(name: &str) -> Option<Ending<'_>> {
    let (key, ending) = name.split_once('.')?;
    if key.len() != KEY_DIGITS || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match ending.strip_suffix(".part") {
        Some(draft) => draft.split_once('-').map(|(run, _)| Ending::Temporary(run)),
        None => (ending == "list").then_some(Ending::Copy),
    }
}

enum Ending<'a> {
    Copy,
    /// Of this process.
    Temporary(&'a str),
}

/// Returns `true` if a copy has been unused for too long. A time of use in the future counts as now.
fn is_unused(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let Ok(modified) = modified else { return false };
    match clock::age(modified.into(), Utc::now()) {
        Some(age) => age > KEPT,
        None => {
            let touched = File::options().write(true).open(entry.path());
            // If this fails, the next sweep tries again.
            let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
            false
        }
    }
}

/// Says why a copy is left where it is, to be replaced.
pub(super) fn not_used(url: &Url, error: &io::Error) {
    let url = SafeUrl::new(url);
    tracing::warn!(
        "the copy of the list `{url}` is not used, and the list asked for whole: {error}"
    );
}

fn not_kept(head: &Head, error: &io::Error) {
    tracing::warn!("no copy of the list `{}` is kept: {error}", head.url);
}

/// What is known of a copy. URLs stand in it without credentials.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    url: String,
    /// The URL that answered, in the form of [`recorded_url`]. Missing in copies from earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// Length of the body.
    bytes: u64,
    /// Digest of the body.
    sha256: String,
    /// When the body was asked for.
    fetched: DateTime<Utc>,
}

impl Head {
    /// For the copy of a body that begins to come.
    pub(super) fn of(url: &Url, body: &RemoteBody) -> Self {
        Self {
            url: SafeUrl::new(url).to_string(),
            answered: Some(recorded_url(&body.final_url)),
            etag: body.validators.etag.clone(),
            last_modified: body.validators.last_modified.clone(),
            media_type: body.media_type.clone(),
            bytes: 0,
            sha256: String::new(),
            fetched: Utc::now(),
        }
    }

    /// Whether the origin can be asked about the list by it.
    fn is_of_use(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// The last good copy of a list.
#[derive(Debug)]
pub(super) struct LastCopy {
    head: Head,
    file: File,
    /// Whether its use is noted.
    is_ours: bool,
}

impl LastCopy {
    fn open(path: &Path, is_ours: bool) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let head = read_head(&mut file)?.ok_or_else(|| damaged("is cut off, or not a copy"))?;
        Ok(Self {
            head,
            file,
            is_ours,
        })
    }

    /// Returns the copy's validators with the URL that sent them, or `None` if that URL is unknown.
    pub(super) fn validators(&self) -> Option<StoredValidators> {
        Some(StoredValidators {
            url: self.head.answered.clone()?,
            validators: Validators {
                etag: self.head.etag.clone(),
                last_modified: self.head.last_modified.clone(),
            },
        })
    }

    pub(super) fn media_type(&self) -> Option<&str> {
        self.head.media_type.as_deref()
    }

    /// When it came.
    pub(super) fn since(&self) -> String {
        self.head.fetched.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// Returns the body, after the origin has confirmed that it is current.
    ///
    /// # Errors
    ///
    /// When the bytes differ from those that were stored.
    pub(super) async fn body(mut self) -> io::Result<io::Take<File>> {
        let checked = spawn_blocking(move || {
            let mut hasher = Sha256Hasher::default();
            self.file.rewind()?;
            let mut reader = BufReader::with_capacity(64 * 1024, &self.file).take(self.head.bytes);
            loop {
                let bytes = reader.fill_buf()?;
                if bytes.is_empty() {
                    break;
                }
                hasher.update(bytes);
                let count = bytes.len();
                reader.consume(count);
            }
            if hasher.finish().to_string() != self.head.sha256 {
                return Err(damaged("has other bytes than those that came"));
            }
            self.file.rewind()?;
            if self.is_ours {
                // Only whoever cleans up asks for it.
                let _ = self.file.set_modified(SystemTime::now());
            }
            Ok(self.file.take(self.head.bytes))
        });
        checked.await?
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it {what}"))
}

/// The head at the end of `file`; `None` where there is none, or the file has another length than it says.
fn read_head(file: &mut File) -> io::Result<Option<Head>> {
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_HEAD_BYTES)))?;
    file.take(MAX_HEAD_BYTES).read_to_end(&mut tail)?;
    let Some(lines) = tail.strip_suffix(b"\n") else {
        return Ok(None);
    };
    let Some(start) = memchr::memrchr(b'\n', lines) else {
        return Ok(None);
    };
    let line = &lines[start..];
    let head: Option<Head> = serde_json::from_slice(line).ok();
    let around = line.len() as u64 + 1;
    Ok(head.filter(|head| head.bytes.checked_add(around) == Some(length)))
}

/// A copy that is being written. Dropping it deletes what is there.
pub(super) struct Draft {
    file: tokio::fs::File,
    hasher: Sha256Hasher,
    head: Head,
    temporary: Temporary,
    path: PathBuf,
}

/// A file that is deleted on drop, if its name is still there.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // One that cannot be deleted goes when the next process sweeps.
        let _ = fs::remove_file(&self.0);
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draft").field(&self.head).finish()
    }
}

impl Draft {
    /// Takes the next bytes, which can be read when it returns.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        let written = async {
            self.file.write_all(bytes).await?;
            // Writes go on in the background, and their errors show here.
            self.file.flush().await
        };
        written.await.map_err(|error| {
            let folder = self.temporary.0.parent().unwrap_or(Path::new("."));
            let text = format!("cannot write its copy to `{}`: {error}", folder.display());
            io::Error::new(error.kind(), text)
        })?;
        self.head.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.head.bytes
    }

    /// Puts it in the place of the copy before, all bytes being there; deletes it where it is of no use.
    pub(super) async fn keep(self) {
        let Self {
            file,
            hasher,
            mut head,
            temporary,
            path,
        } = self;
        if !head.is_of_use() {
            return;
        }
        head.sha256 = hasher.finish().to_string();
        let told = head.clone();
        let file = file.into_std().await;
        let kept = spawn_blocking(move || put(file, &head, &temporary, &path)).await;
        if let Err(error) = kept.unwrap_or_else(|error| Err(error.into())) {
            not_kept(&told, &error);
        }
    }
}

fn put(mut file: File, head: &Head, temporary: &Temporary, path: &Path) -> io::Result<()> {
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, head)?;
    line.push(b'\n');
    if line.len() as u64 > MAX_HEAD_BYTES {
        return Err(io::Error::other("its headers are too long"));
    }
    file.write_all(&line)?;
    file.sync_data()?;
    fault::pass(Point::ListWritten)?;
    fs::rename(&temporary.0, path)
}
