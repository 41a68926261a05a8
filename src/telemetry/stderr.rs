//! stderr as a place for log lines: a terminal, the journal, or neither.

use std::env;
use std::io::{self, IsTerminal as _, Write};

use indicatif::MultiProgress;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::write_line;

/// Writes log lines to stderr, between which a progress bar may stand.
#[derive(Debug)]
pub(super) struct Stderr {
    progress: Option<MultiProgress>,
    is_journal: bool,
}

impl Stderr {
    pub(super) fn new(progress: Option<MultiProgress>) -> Self {
        Self {
            progress,
            is_journal: is_journal(),
        }
    }

    /// Whether the journal reads what is written, and adds the time itself.
    pub(super) fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// Whether to colour: on terminals, unless <https://no-color.org> is invoked.
    #[expect(
        clippy::unused_self,
        reason = "about this stderr, like the other answer"
    )]
    pub(super) fn has_colours(&self) -> bool {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        io::stderr().is_terminal()
            && !is_set("NO_COLOR")
            && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
    }
}

/// What a line about an error begins with that goes to stderr without a log: a priority, where the journal reads it.
pub(crate) fn error_prefix() -> &'static str {
    match is_journal() {
        true => priority(Level::ERROR),
        false => "",
    }
}

/// Whether stderr is the journal's socket: systemd.exec(5), `$JOURNAL_STREAM`, says which device and inode that has.
fn is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            stderr: self,
            priority: "",
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        let priority = if self.is_journal {
            priority(*meta.level())
        } else {
            ""
        };
        Line {
            stderr: self,
            priority,
        }
    }
}

/// The prefix from which the journal takes a line's priority: sd-daemon(3).
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// One log line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    stderr: &'a Stderr,
    priority: &'static str,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let write = || {
            if self.priority.is_empty() {
                return write_line(io::stderr(), line);
            }
            let marked = [self.priority.as_bytes(), line].concat();
            write_line(io::stderr(), &marked).map(|_| line.len())
        };
        match &self.stderr.progress {
            // A bar whose terminal has hung up cannot step aside: it would panic.
            Some(progress) if io::stderr().is_terminal() => progress.suspend(write),
            _ => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
