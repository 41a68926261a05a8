//! A list in a file, or on standard input.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::source::address::has_prefix;
use crate::source::decode::Input;
use crate::source::detect::Hints;
use crate::source::list::parse_on_thread;
use crate::source::sink::SharedSink;
use crate::source::{List, ListEncoding, ListFormat, Source, SourceError};
use crate::target::nearest;

/// Silence after which the newest entry is handed out too, though option lines might follow it.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// How often a silent input is left to see whether anybody still waits for it.
const WAKE: Duration = Duration::from_millis(250);

/// A list in a local file, or on standard input.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// `None`: standard input.
    path: Option<PathBuf>,
    format: Option<ListFormat>,
    encoding: Option<ListEncoding>,
}

impl FileSource {
    /// The list in the file at `path`; `None` as format means: find out.
    pub fn new(path: impl Into<PathBuf>, format: Option<ListFormat>) -> Self {
        Self {
            path: Some(path.into()),
            format,
            encoding: None,
        }
    }

    /// The list on standard input.
    pub fn stdin(format: Option<ListFormat>) -> Self {
        Self {
            path: None,
            format,
            encoding: None,
        }
    }

    /// Sets the encoding of the list, which overrides what the list itself states. `None` detects it.
    pub fn in_encoding(mut self, encoding: Option<ListEncoding>) -> Self {
        self.encoding = encoding;
        self
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display()),
            None => f.write_str("-"),
        }
    }
}

#[async_trait]
impl Source for FileSource {
    /// Pipes and devices bring something else each time.
    fn identity(&self) -> Option<String> {
        let path = self.path.as_ref().filter(|path| path.is_file())?;
        Some(path.canonicalize().ok()?.display().to_string())
    }

    async fn open(&self) -> Result<List, SourceError> {
        let hints = Hints {
            format: self.format,
            encoding: self.encoding,
            name: self
                .path
                .as_deref()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned()),
            ..Hints::default()
        };
        let name = match &self.path {
            Some(_) => self.to_string(),
            None => "standard input".to_owned(),
        };
        let path = self.path.clone();
        parse_on_thread(name.clone(), hints, None, move |sink| {
            match open(path.as_deref(), sink) {
                Ok(input) => Ok(Box::new(input) as Input),
                Err(source) => Err(SourceError::Open {
                    name,
                    source: explained(path.as_deref(), source),
                }),
            }
        })
        .await
    }

    async fn check(&self) -> Result<(), SourceError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let found = match tokio::fs::metadata(path).await {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        found.map_err(|source| SourceError::Open {
            name: self.to_string(),
            source: explained(Some(path), source),
        })
    }
}

/// Says what may have been meant instead of a list that does not open.
fn explained(path: Option<&Path>, error: io::Error) -> io::Error {
    let Some(path) = path else { return error };
    let advice = match error.kind() {
        io::ErrorKind::NotFound => missing(path),
        io::ErrorKind::IsADirectory => {
            format!(
                "name the lists in it, such as `{}`",
                path.join("*.txt").display()
            )
        }
        io::ErrorKind::PermissionDenied => {
            "whoever runs gannet has to be allowed to read it".to_owned()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

/// Advice for a path with no file.
fn missing(path: &Path) -> String {
    let text = path.to_string_lossy();
    let begins_as = |beginning: &str| text.starts_with(beginning);
    if begins_as("\u{2013}") || begins_as("\u{2014}") {
        return "it begins with a typographic dash; flags begin with `-`".to_owned();
    }
    if begins_as("~") {
        return "`~` stands for the home folder only where a shell reads it; write the whole path"
            .to_owned();
    }
    if has_prefix(&text, "http:") || has_prefix(&text, "https:") {
        return "a URL begins with `http://` or `https://`".to_owned();
    }
    if text.contains('\\') {
        return "folders are separated by `/`".to_owned();
    }
    if text.contains(['*', '?', '[']) {
        return "no file matches the pattern, or it stands in quotes and no shell has read it"
            .to_owned();
    }
    if let Some(near) = neighbour(path) {
        return format!("did you mean `{}`?", near.display());
    }
    let parts: Vec<&str> = text
        .split([' ', ','])
        .filter(|part| !part.is_empty())
        .collect();
    if parts.len() > 1 && parts.iter().all(|part| Path::new(part).is_file()) {
        return format!("to read several lists, write `{}`", parts.join(" "));
    }
    if is_web_address(&text) {
        return format!("if it is on the web, write `https://{text}`");
    }
    "a list is a file here, `-` for standard input, a URL with `https://`, or a search such as \
     `search:openverse?q=cats`"
        .to_owned()
}

/// The file in the same folder with the most similar name.
fn neighbour(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let folder = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    // A folder of a million files is not worth a guess.
    let names: Vec<String> = folder
        .read_dir()
        .ok()?
        .take(10_000)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let is_file = entry.file_type().ok()?.is_file();
            is_file.then(|| entry.file_name().into_string().ok())?
        })
        .collect();
    let near = nearest(name, names.iter().map(String::as_str))?;
    Some(path.with_file_name(near))
}

/// Whether a path begins as a host does: `example.org/list.txt`, `www.example.org`.
fn is_web_address(text: &str) -> bool {
    let host = text.split(['/', ':', '?']).next().unwrap_or_default();
    let mut labels = host.split('.');
    let top = labels.next_back().unwrap_or_default();
    let is_host = host.contains('.')
        && labels.all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
        && top.len() >= 2
        && top.bytes().all(|b| b.is_ascii_alphabetic());
    is_host && (host.len() < text.len() || has_prefix(text, "www."))
}

fn open(path: Option<&Path>, sink: SharedSink) -> io::Result<FileInput> {
    let file = match path {
        Some(path) => File::open(path)?,
        // A handle of its own: the one of the standard library keeps bytes that `poll` would not see.
        None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(FileInput {
        may_pause: !metadata.is_file(),
        file,
        sink,
    })
}

/// Reads a file. Where it is a pipe, a terminal or a socket, entries go out before it is waited for.
#[derive(Debug)]
pub(super) struct FileInput {
    file: File,
    may_pause: bool,
    sink: SharedSink,
}

impl Read for FileInput {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.may_pause {
            self.wait()?;
        } else {
            // A list that only has comments would else be read on for nobody.
            self.sink.borrow().check_open().map_err(io::Error::other)?;
        }
        self.file.read(out)
    }
}

impl FileInput {
    /// Reads a file that never has to be waited for.
    pub(super) fn regular(file: File, sink: SharedSink) -> Self {
        Self {
            file,
            may_pause: false,
            sink,
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut sink = self.sink.borrow_mut();
        sink.offer().map_err(io::Error::other)?;
        if is_readable(&self.file, PAUSE)? {
            return Ok(());
        }
        sink.flush().map_err(io::Error::other)?;
        while !is_readable(&self.file, WAKE)? {
            sink.check_open().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Whether a read would not wait, after at most `patience`.
fn is_readable(file: &File, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: patience.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
