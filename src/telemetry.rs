//! Logs: to stderr and, by setting, to daily files.
//!
//! [`init`] is called once, by `main`, before anything is worth a log line. stderr gets lines for people or JSON;
//! a progress bar steps aside while a line is written. Under systemd, the journal's own time and priorities
//! are used. Files keep the configured level, whatever `-q` says.

mod level;
mod stderr;

use std::io;
use std::path::{Path, PathBuf};

use indicatif::MultiProgress;
use serde::Deserialize;
use tracing::Subscriber;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::local_path::LocalPath;
use stderr::Stderr;

pub(crate) use stderr::error_prefix;

pub use level::{InvalidLevel, Level};

/// `[log]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A level, or a filter such as `info,gannet::fetch=debug`.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
    /// Folder for daily files besides stderr; empty: none.
    pub dir: LocalPath,
    /// How many daily files are kept; 0: all.
    pub keep: usize,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made, or no file in it.
    #[error("cannot write log files to `{}`; see `log.dir`", dir.display())]
    Folder {
        /// `log.dir`.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process already has its logs.
    #[error("logs are already set up in this process")]
    Again,
}

/// Keeps the log files being written. Dropping it writes what still waits.
#[must_use = "log files end where the guard is dropped"]
pub struct Guard {
    _file: Option<WorkerGuard>,
    set_level: Box<dyn Fn(&Level) + Send + Sync>,
}

impl Guard {
    /// Logs at another level from now on.
    pub fn set_level(&self, level: &Level) {
        (self.set_level)(level);
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// Sets up the logs of this process. `verbosity` counts `-v`, less `-q`. `progress` is what draws on stderr.
///
/// # Errors
///
/// When the folder for log files cannot be used, or the process already has its logs.
pub fn init(
    settings: &Settings,
    verbosity: i8,
    progress: Option<MultiProgress>,
) -> Result<Guard, Error> {
    let stderr = Stderr::new(progress);
    let look = Look {
        has_colours: stderr.has_colours(),
        has_time: !stderr.is_journal(),
    };
    let (subscriber, guard) = build(settings, verbosity, stderr, look)?;
    subscriber.try_init().map_err(|_| Error::Again)?;
    Ok(guard)
}

/// What depends on where a line goes.
#[derive(Debug, Clone, Copy)]
struct Look {
    has_colours: bool,
    has_time: bool,
}

fn build<W>(
    settings: &Settings,
    verbosity: i8,
    stderr: W,
    look: Look,
) -> Result<(impl Subscriber + Send + Sync + 'static, Guard), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, level) = reload::Layer::new(settings.level.filter(verbosity));
    let to_stderr = lines(settings.format, stderr, look).with_filter(filter);
    let (to_file, file, guard) = if settings.dir.as_os_str().is_empty() {
        (None, None, None)
    } else {
        let file = daily_files(&settings.dir, settings.keep)?;
        let (file, guard) = tracing_appender::non_blocking(file);
        let look = Look {
            has_colours: false,
            has_time: true,
        };
        let (filter, level) = reload::Layer::new(settings.level.filter(verbosity.max(0)));
        let layer = lines(settings.format, file, look).with_filter(filter);
        (Some(layer), Some(level), Some(guard))
    };
    let subscriber = Registry::default().with(to_stderr).with(to_file);
    let guard = Guard {
        _file: guard,
        // A handle fails only when the logs are gone.
        set_level: Box::new(move |new| {
            let _ = level.reload(new.filter(verbosity));
            if let Some(file) = &file {
                let _ = file.reload(new.filter(verbosity.max(0)));
            }
        }),
    };
    Ok((subscriber, guard))
}

fn lines<S, W>(format: Format, writer: W, look: Look) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(look.has_colours)
        // A line that cannot be written must not end in a panic over stderr that is gone.
        .log_internal_errors(false);
    match format {
        Format::Json => layer.json().flatten_event(true).boxed(),
        Format::Text if look.has_time => layer.boxed(),
        Format::Text => layer.without_time().boxed(),
    }
}

/// `gannet.YYYY-MM-DD.log` in `dir`, which is made where it is missing. Days are those of UTC.
fn daily_files(dir: &Path, keep: usize) -> Result<RollingFileAppender, Error> {
    let mut files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("gannet")
        .filename_suffix("log");
    if keep > 0 {
        files = files.max_log_files(keep);
    }
    let failed = |source| Error::Folder {
        dir: dir.to_owned(),
        source,
    };
    // The appender makes it too, but it complains on stderr that it is missing. Its own errors repeat their causes.
    std::fs::create_dir_all(dir).map_err(failed)?;
    files
        .build(dir)
        .map_err(|error| failed(io::Error::other(error.to_string())))
}

/// Writes a whole line, since a line in pieces mixes with those of other processes.
fn write_line(mut to: impl io::Write, line: &[u8]) -> io::Result<usize> {
    to.write_all(line)?;
    Ok(line.len())
}

#[cfg(test)]
mod tests;
