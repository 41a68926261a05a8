//! Reports: what became of every target, written to files while the job runs.
//!
//! [`Reports`] holds one [`Report`] for each path; the ending of the path chooses its form:
//!
//! - `.json`: one document, [`Json`]
//! - `.jsonl`: one item a line, the summary last, [`Jsonl`]
//! - `.xml`: JUnit, for build servers, [`Junit`]
//! - `.html`: a contact sheet for people, [`Html`]
//!
//! Every form streams: its memory does not depend on how many targets a job has. [`advice`] says what
//! to try about a reason; the text summary uses it too. This room knows nothing of how a job runs.

pub mod advice;
mod html;
mod json;
mod jsonl;
mod junit;
mod slot;
mod way;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;
use url::Url;
use uuid::Uuid;

use super::item::{Item, Summary};
use crate::target::AlbumName;

use slot::Slot;
use way::{is_same, is_within, way};

pub use html::Html;
pub use json::Json;
pub use jsonl::Jsonl;
pub use junit::Junit;

/// Version of the form of `.json` and `.jsonl` reports, see [`Summary::version`].
pub const VERSION: u32 = 1;

/// What is known of a job when it begins.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// The job's id.
    pub job: Uuid,
    /// Where the URLs come from, without credentials.
    pub source: String,
    /// The job's album; `None`: the root folder.
    pub album: Option<AlbumName>,
    /// The interrupted job that it goes on with: what that had is fresh to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Uuid>,
    /// When it began.
    pub started: DateTime<Utc>,
}

/// Writes down one job in one form.
///
/// # Contract
///
/// - Calls come as `begin`, any number of `item` and `flush`, `end`. `end` leaves a complete document,
///   however early it comes; without it, what was flushed is still there.
/// - Memory is bounded independently of the number of items.
/// - URLs, names and details are hostile input: whatever they hold, the form stays well-formed and
///   carries no script.
///
/// A new form is a file beside this one and a line in [`Reports::create`].
pub trait Report: fmt::Debug + Send {
    /// Writes what comes before the first item.
    ///
    /// # Errors
    ///
    /// Those of the output, here and in the other methods.
    fn begin(&mut self, head: &Head) -> io::Result<()>;

    /// Adds one target.
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    fn item(&mut self, item: &Item) -> io::Result<()>;

    /// Hands what is buffered to the operating system, so that a reader sees it.
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    fn flush(&mut self) -> io::Result<()>;

    /// Writes what comes after the last item, and flushes.
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    fn end(&mut self, summary: &Summary) -> io::Result<()>;
}

/// The endings that choose a form, as error messages list them.
const ENDINGS: &str = "`.json`, `.jsonl`, `.xml` (JUnit) or `.html` (contact sheet)";

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The path's ending stands for no form.
    #[error(
        "the ending of report `{}` stands for no form of report; end it in {ENDINGS}",
        path.display()
    )]
    UnknownEnding {
        /// The report.
        path: PathBuf,
    },
    /// The folder that should hold the report is not there.
    #[error(
        "report `{}` cannot be written: there is no folder `{}`; create it first",
        path.display(),
        folder.display()
    )]
    NoFolder {
        /// The report.
        path: PathBuf,
        /// Its parent folder.
        folder: PathBuf,
    },
    /// Two reports would overwrite each other.
    #[error("report `{}` is asked for twice; name another file", path.display())]
    Twice {
        /// The report.
        path: PathBuf,
    },
    /// The report would overwrite what is to be read.
    #[error(
        "report `{}` would overwrite the list that is to be read; name another file",
        path.display()
    )]
    IsSource {
        /// The report.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("report `{}` cannot be created", path.display())]
    Create {
        /// The report.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Writing failed on the way.
    #[error("report `{}` cannot be written", path.display())]
    Write {
        /// The report.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl ReportError {
    /// Whether the paths as such are at fault, whatever the file system holds.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownEnding { .. } | Self::Twice { .. } | Self::IsSource { .. }
        )
    }
}

/// All reports of one job.
///
/// A report that cannot be written any more is given up: its error is returned once, and the other
/// reports go on.
#[derive(Debug, Default)]
pub struct Reports(Vec<(PathBuf, Box<dyn Report>)>);

impl Reports {
    /// Says what is wrong with `paths`, and touches nothing. `root` is the store's; `sources` are the files that
    /// the job reads.
    ///
    /// # Errors
    ///
    /// When an ending is unknown, a parent folder is missing outside `root`, a path comes twice, or is a source.
    pub fn check(
        paths: &[impl AsRef<Path>],
        root: &Path,
        sources: &[PathBuf],
    ) -> Result<(), ReportError> {
        for (n, path) in paths.iter().map(AsRef::as_ref).enumerate() {
            if form(path).is_none() {
                return Err(ReportError::UnknownEnding {
                    path: path.to_owned(),
                });
            }
            let folder = folder_of(path);
            if !folder.is_dir() && !is_within(folder, root) {
                return Err(ReportError::NoFolder {
                    path: path.to_owned(),
                    folder: folder.to_owned(),
                });
            }
            if paths[..n]
                .iter()
                .any(|earlier| is_same(earlier.as_ref(), path))
            {
                return Err(ReportError::Twice {
                    path: path.to_owned(),
                });
            }
            if sources.iter().any(|source| is_same(source, path)) {
                return Err(ReportError::IsSource {
                    path: path.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Creates the file of each path, in place of what is there, and its folder where that lies in `root`, the
    /// folder to which the items' paths are relative. It need not exist yet.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), and then nothing is created or emptied; or when a file cannot be created.
    pub fn create(paths: &[impl AsRef<Path>], root: &Path) -> Result<Self, ReportError> {
        Self::check(paths, root, &[])?;
        let mut reports = Vec::with_capacity(paths.len());
        for path in paths.iter().map(AsRef::as_ref) {
            let Some(form) = form(path) else { continue };
            let folder = folder_of(path);
            let made = if folder.is_dir() {
                Ok(())
            } else {
                fs::create_dir_all(folder)
            };
            let file =
                made.and_then(|()| File::create(path))
                    .map_err(|source| ReportError::Create {
                        path: path.to_owned(),
                        source,
                    })?;
            let out = BufWriter::new(file);
            let report: Box<dyn Report> = match form {
                Form::Json => Box::new(Json::new(out)),
                Form::Jsonl => Box::new(Jsonl::new(out)),
                Form::Junit => Box::new(Junit::new(out)),
                Form::Html => Box::new(Html::new(out, &way(folder, root))),
            };
            reports.push((path.to_owned(), report));
        }
        Ok(Self(reports))
    }

    /// Adds a report of one's own; `path` is what error messages call it.
    pub fn add(&mut self, path: PathBuf, report: Box<dyn Report>) {
        self.0.push((path, report));
    }

    /// Whether there are none (left).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// See [`Report::begin`].
    ///
    /// # Errors
    ///
    /// The first report that cannot be written is named, here and in the other methods.
    pub fn begin(&mut self, head: &Head) -> Result<(), ReportError> {
        self.each(|report| report.begin(head))
    }

    /// See [`Report::item`].
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    pub fn item(&mut self, item: &Item) -> Result<(), ReportError> {
        self.each(|report| report.item(item))
    }

    /// See [`Report::flush`].
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    pub fn flush(&mut self) -> Result<(), ReportError> {
        self.each(|report| report.flush())
    }

    /// See [`Report::end`].
    #[expect(clippy::missing_errors_doc, reason = "see `begin`")]
    pub fn end(&mut self, summary: &Summary) -> Result<(), ReportError> {
        self.each(|report| report.end(summary))
    }

    fn each(
        &mut self,
        mut call: impl FnMut(&mut dyn Report) -> io::Result<()>,
    ) -> Result<(), ReportError> {
        let mut first = Ok(());
        self.0.retain_mut(|(path, report)| {
            let Err(source) = call(report.as_mut()) else {
                return true;
            };
            if first.is_ok() {
                let path = path.clone();
                first = Err(ReportError::Write { path, source });
            }
            false
        });
        first
    }
}

enum Form {
    Json,
    Jsonl,
    Junit,
    Html,
}

fn form(path: &Path) -> Option<Form> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "json" => Some(Form::Json),
        "jsonl" => Some(Form::Jsonl),
        "xml" => Some(Form::Junit),
        "html" => Some(Form::Html),
        _ => None,
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The host that a URL names; `None` for what is no URL.
pub(crate) fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// At most `max` characters of `text`, without those that XML 1.0 (section 2.2) forbids; `…` shows
/// that something was cut off.
fn clean(text: &str, max: usize) -> String {
    let allowed =
        |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
    let mut chars = text.chars().filter(allowed);
    let mut kept: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
pub(crate) mod tests;
