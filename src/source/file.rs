//! A list in a file, or on standard input.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::source::decode::Input;
use crate::source::detect::Hints;
use crate::source::list::parse_on_thread;
use crate::source::sink::SharedSink;
use crate::source::{List, ListEncoding, ListFormat, Source, SourceError};

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
                Err(source) => Err(SourceError::Open { name, source }),
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
            source,
        })
    }
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
