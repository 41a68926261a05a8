//! Watches a job for somebody at a terminal: reports, progress, and what the summary needs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::exit;
use crate::config::Config;
use crate::job::progress::{Progress, Snapshot};
use crate::job::report::{Head, ReportError, Reports};
use crate::job::summary::{Failures, Names, Text};
use crate::job::{Item, Observer, Summary};

/// An observer that writes reports and shows progress.
#[derive(Debug)]
pub(super) struct Watch {
    reports: Reports,
    progress: Progress,
    failures: Failures,
    names: Names,
    last: Option<Snapshot>,
    /// What went wrong while nobody could be told.
    broken: Option<ReportError>,
}

impl Watch {
    pub(super) fn new(reports: Reports, progress: Progress) -> Self {
        Self {
            reports,
            progress,
            failures: Failures::default(),
            names: Names::default(),
            last: None,
            broken: None,
        }
    }

    /// Prints the summary to stdout.
    pub(super) fn print(
        &self,
        summary: &Summary,
        config: &Config,
        reports: &[impl AsRef<Path>],
    ) -> std::io::Result<()> {
        let color = std::io::IsTerminal::is_terminal(&std::io::stdout())
            && std::env::var_os("NO_COLOR").is_none();
        let reports: Vec<PathBuf> = reports
            .iter()
            .map(|path| path.as_ref().to_owned())
            .collect();
        let text = Text {
            summary,
            failures: &self.failures,
            names: self.names,
            order: &config.naming.order,
            files: &config.storage.root,
            reports: &reports,
            color,
        };
        write!(std::io::stdout().lock(), "{text}")
    }
}

impl Observer for Watch {
    fn begin(&mut self, head: &Head) -> anyhow::Result<()> {
        Ok(self.reports.begin(head)?)
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error.into());
        }
        for item in items {
            self.failures.note(item);
            self.names.note(item);
            self.reports.item(item)?;
        }
        Ok(())
    }

    fn tick(&mut self, snapshot: &Snapshot) {
        // Whoever reads a report meanwhile sees how far the job is.
        if let Err(error) = self.reports.flush() {
            self.broken.get_or_insert(error);
        }
        self.progress.tick(*snapshot);
        self.last = Some(*snapshot);
    }

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        if let Some(last) = self.last {
            self.progress.finish(last);
        }
        self.reports.end(summary)?;
        self.broken.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Stops a job at SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.
#[derive(Debug)]
pub(super) struct Signals {
    /// Cancelled by the first signal.
    pub(super) stop: CancellationToken,
    caught: watch::Receiver<Option<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // `nohup` says that the end of the terminal is not to matter.
        let mut hangup = match is_hangup_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let stop = CancellationToken::new();
        let (tell, caught) = watch::channel(None);
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                loop {
                    let code = tokio::select! {
                        _ = interrupt.recv() => exit::INTERRUPT,
                        _ = terminate.recv() => exit::TERMINATE,
                        Some(_) = async { hangup.as_mut()?.recv().await } => exit::HANGUP,
                    };
                    if stop.is_cancelled() {
                        // What is recorded stays; what is half done is cleared up at the next start.
                        std::process::exit(i32::from(code));
                    }
                    tracing::warn!("stopping; what has arrived is kept (once more: at once)");
                    let _ = tell.send(Some(code));
                    stop.cancel();
                }
            }
        });
        Ok(Self { stop, caught, task })
    }

    /// The exit code of the signal that came.
    pub(super) fn exit_code(&self) -> Option<u8> {
        *self.caught.borrow()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether this process was started with SIGHUP ignored. Listening would undo that.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}
