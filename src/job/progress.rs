//! How far a job is, on stderr: a bar on a terminal, now and then a plain line elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{
    HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use super::item::Counts;
use super::summary::span;

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Shortest span over which a rate is measured.
const MEASURE_OVER: Duration = Duration::from_millis(500);
/// Columns from which there is room for a bar beside the text.
const WIDE: usize = 110;
/// Seconds in which a measured rate loses about two thirds of its weight.
const MEMORY: f64 = 5.0;

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// A bar on a terminal; elsewhere a line every five seconds, so a short job prints none.
    Auto,
    /// As `auto`, and elsewhere a first and a last line too.
    Always,
    /// Nothing.
    Never,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// Targets by outcome.
    pub counts: Counts,
    /// How many targets there will be; `None` until the list is read to its end.
    pub total: Option<u64>,
    /// Files that were asked for, where they are counted, and those of them that are there.
    pub goal: Option<Goal>,
    /// Bytes received.
    pub bytes: u64,
    /// Targets that are requested.
    pub in_flight: usize,
    /// Targets that have been read from the list and are not requested: they wait for their host, for steps, or to be
    /// recorded.
    pub waiting: usize,
    /// Time since the job began.
    pub elapsed: Duration,
}

impl Snapshot {
    /// How far the job is, and where it ends, if that is known: files where they are counted, otherwise targets.
    fn reached(&self) -> (u64, Option<u64>) {
        match self.goal {
            Some(goal) => (goal.stored, Some(goal.count)),
            None => (self.counts.targets, self.total),
        }
    }
}

/// How many files a job is to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Those that are there, with those of an interrupted job that it goes on with.
    pub stored: u64,
    /// All of them.
    pub count: u64,
}

/// Shows [`Snapshot`]s. Dropping it takes the bar away.
pub struct Progress(Mode);

enum Mode {
    Bar {
        multi: MultiProgress,
        bar: ProgressBar,
        /// Columns of the terminal.
        columns: fn() -> usize,
        /// Held only while a message is made.
        pace: Mutex<Pace>,
    },
    /// Held only while one line is written.
    Lines(Mutex<Lines>),
    Silent,
}

struct Lines {
    out: Box<dyn Write + Send>,
    pace: Pace,
    /// When the next line is due.
    due: Duration,
    /// Whether there is a last line.
    last: bool,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Mode::Bar { .. } => "Progress(bar)",
            Mode::Lines(_) => "Progress(lines)",
            Mode::Silent => "Progress(silent)",
        })
    }
}

impl Progress {
    /// Progress on stderr.
    pub fn new(when: When) -> Self {
        let smart = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match when {
            When::Never => Self(Mode::Silent),
            When::Auto | When::Always if smart && io::stderr().is_terminal() => {
                Self::bar(ProgressDrawTarget::stderr_with_hz(10), columns)
            }
            When::Auto => Self::lines(Box::new(io::stderr()), LINE_EVERY, false),
            When::Always => Self::lines(Box::new(io::stderr()), Duration::ZERO, true),
        }
    }

    fn bar(target: ProgressDrawTarget, columns: fn() -> usize) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        let bar = multi.add(ProgressBar::no_length());
        bar.set_style(style("{spinner} {msg}"));
        Self(Mode::Bar {
            multi,
            bar,
            columns,
            pace: Mutex::default(),
        })
    }

    fn lines(out: Box<dyn Write + Send>, due: Duration, last: bool) -> Self {
        Self(Mode::Lines(Mutex::new(Lines {
            out,
            pace: Pace::default(),
            due,
            last,
        })))
    }

    /// What draws on the terminal, so that log lines can be written through its
    /// [`suspend`](MultiProgress::suspend); `None` when there is no bar.
    pub fn multi(&self) -> Option<&MultiProgress> {
        match &self.0 {
            Mode::Bar { multi, .. } => Some(multi),
            Mode::Lines(_) | Mode::Silent => None,
        }
    }

    /// Shows `now`. May be called as often as one likes: drawing is limited to ten times a second,
    /// lines to one in five seconds.
    pub fn tick(&self, now: Snapshot) {
        match &self.0 {
            Mode::Bar {
                bar, pace, columns, ..
            } => {
                let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.measure(&now);
                let (done, total) = now.reached();
                let columns = columns();
                let (template, taken) = match total {
                    None => ("{spinner} {msg}", 2),
                    Some(_) if columns < WIDE => ("{percent:>3}% {msg}", 5),
                    Some(_) => ("{bar:24} {percent:>3}% {msg}", 30),
                };
                bar.set_style(style(template));
                if let Some(total) = total
                    && bar.length() != Some(total)
                {
                    bar.set_length(total);
                }
                bar.set_position(done);
                // A line that ends in the last column may be wrapped.
                bar.set_message(pace.fitting(&now, columns.saturating_sub(taken + 1)));
                bar.tick();
            }
            Mode::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if now.elapsed >= lines.due {
                    lines.due = now.elapsed + LINE_EVERY;
                    lines.print(&now);
                }
            }
            Mode::Silent => {}
        }
    }

    /// Takes the bar away, or writes the last line.
    pub fn finish(&self, now: Snapshot) {
        match &self.0 {
            Mode::Bar { bar, .. } => bar.finish_and_clear(),
            Mode::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.last {
                    lines.print(&now);
                }
            }
            Mode::Silent => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Mode::Bar { bar, .. } = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn print(&mut self, now: &Snapshot) {
        self.pace.measure(now);
        // A closed stderr is no reason to stop a job.
        let _ = writeln!(self.out, "progress: {}", self.pace.text(now));
    }
}

/// The style of `template`, which is one of those above.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Rates that follow what happens, without jumping.
#[derive(Debug, Default)]
struct Pace {
    at: Duration,
    targets: u64,
    bytes: u64,
    /// Targets and bytes a second; `None` before the first measurement.
    rates: Option<(f64, f64)>,
}

impl Pace {
    fn measure(&mut self, now: &Snapshot) {
        let passed = now.elapsed.saturating_sub(self.at);
        if passed < MEASURE_OVER {
            return;
        }
        let seconds = passed.as_secs_f64();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let measured = (
            rate(now.counts.targets, self.targets),
            rate(now.bytes, self.bytes),
        );
        let weight = 1.0 - (-seconds / MEMORY).exp();
        let follow = |old: f64, new: f64| old + weight * (new - old);
        self.rates = Some(self.rates.map_or(measured, |(targets, bytes)| {
            (follow(targets, measured.0), follow(bytes, measured.1))
        }));
        (self.at, self.targets, self.bytes) = (now.elapsed, now.counts.targets, now.bytes);
    }

    fn text(&self, now: &Snapshot) -> String {
        self.fitting(now, usize::MAX)
    }

    /// The text in at most `columns` columns: without its less important parts, if it is longer.
    fn fitting(&self, now: &Snapshot, columns: usize) -> String {
        let mut parts = self.parts(now);
        loop {
            let text = parts
                .iter()
                .map(|(_, text)| text.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            let least = parts.iter().map(|(weight, _)| *weight).min();
            match least {
                Some(least) if text.len() > columns && parts.len() > 1 => {
                    parts.retain(|(weight, _)| *weight > least);
                }
                // All of it is ASCII.
                _ => return text.chars().take(columns).collect(),
            }
        }
    }

    /// The parts of the text, each with its weight.
    fn parts(&self, now: &Snapshot) -> Vec<(u8, String)> {
        let (done, total) = now.reached();
        let what = if now.goal.is_some() { " stored" } else { "" };
        let reached = match total {
            Some(total) => format!("{} of {}{what}", HumanCount(done), HumanCount(total)),
            None => format!("{} so far", HumanCount(done)),
        };
        let mut parts = vec![(u8::MAX, reached)];
        if let Some((targets, bytes)) = self.rates {
            parts.push((2, format!("{targets:.1} files/s")));
            parts.push((1, format!("{}/s", HumanBytes(bytes as u64))));
        } else {
            parts.push((1, HumanBytes(now.bytes).to_string()));
        }
        let bad = now.counts.rejected + now.counts.failed;
        if bad > 0 {
            parts.push((5, format!("{} rejected or failed", HumanCount(bad))));
        }
        parts.push((4, format!("{} in flight", now.in_flight)));
        parts.push((3, format!("{} waiting", now.waiting)));
        // Where files are counted, not each target brings one: those of this process, for `stored` may be of an earlier one.
        let counted = match now.goal {
            Some(_) => now.counts.stored,
            None => now.counts.targets,
        };
        if let (Some(total), Some((rate, _))) = (total, self.rates)
            && rate > 0.0
            && total > done
            && counted > 0
        {
            let targets = (total - done) as f64 * now.counts.targets as f64 / counted as f64;
            // Beyond a hundred days the number says nothing.
            let seconds = (targets / rate).min(8_640_000.0);
            let left = span(Duration::from_secs_f64(seconds));
            parts.push((6, format!("{left} left")));
        }
        parts
    }
}

/// Columns of the terminal on stderr; 80 if it does not say.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let columns = size.map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns > 0).unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Outcome;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn at(seconds: f64, stored: u64, total: Option<u64>) -> Snapshot {
        let mut counts = Counts::default();
        for _ in 0..stored {
            counts.add(Outcome::Stored);
        }
        Snapshot {
            counts,
            total,
            goal: None,
            bytes: stored * 1_000_000,
            in_flight: 2,
            waiting: 1,
            elapsed: Duration::from_secs_f64(seconds),
        }
    }

    #[test]
    fn lines_come_every_five_seconds_and_a_short_job_prints_none() {
        let sink = Sink::default();
        let progress = Progress::lines(Box::new(sink.clone()), LINE_EVERY, false);
        for tenths in 0..50 {
            progress.tick(at(f64::from(tenths) / 10.0, 1, None));
        }
        assert_eq!(sink.text(), "");
        for tenths in 50..=120 {
            progress.tick(at(f64::from(tenths) / 10.0, 10, Some(100)));
        }
        progress.finish(at(12.0, 10, None));
        assert_eq!(
            sink.text(),
            "progress: 10 of 100, 2.0 files/s, 1.91 MiB/s, 2 in flight, 1 waiting, 45.0 s left\n\
             progress: 10 of 100, 0.7 files/s, 718.51 KiB/s, 2 in flight, 1 waiting, 2m 2s left\n"
        );
    }

    #[test]
    fn always_means_a_first_and_a_last_line_too() {
        let sink = Sink::default();
        let progress = Progress::lines(Box::new(sink.clone()), Duration::ZERO, true);
        progress.tick(at(0.0, 0, None));
        let mut last = at(0.1, 2, Some(3));
        last.counts.add(Outcome::Failed);
        progress.finish(last);
        assert_eq!(
            sink.text(),
            "progress: 0 so far, 0 B, 2 in flight, 1 waiting\n\
             progress: 3 of 3, 1.91 MiB, 1 rejected or failed, 2 in flight, 1 waiting\n"
        );
    }

    #[test]
    fn where_files_are_counted_progress_is_by_files() {
        let sink = Sink::default();
        let progress = Progress::lines(Box::new(sink.clone()), Duration::ZERO, true);
        progress.tick(at(0.0, 0, None));
        let mut last = at(2.0, 20, Some(500));
        for _ in 0..20 {
            last.counts.add(Outcome::Failed);
        }
        last.goal = Some(Goal {
            stored: 25,
            count: 100,
        });
        progress.finish(last);
        let last = sink.text();
        let last = last.lines().last().unwrap();
        assert_eq!(
            last,
            "progress: 25 of 100 stored, 20.0 files/s, 9.54 MiB/s, 20 rejected or failed, 2 in flight, 1 waiting, 7.5 s left"
        );
    }

    #[test]
    fn a_bar_gets_a_length_once_the_list_is_read() {
        let progress = Progress::bar(ProgressDrawTarget::hidden(), || 200);
        let Mode::Bar { bar, .. } = &progress.0 else {
            panic!("it is a bar");
        };
        progress.tick(at(1.0, 5, None));
        assert_eq!((bar.position(), bar.length()), (5, None));
        progress.tick(at(2.0, 7, Some(10)));
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
        assert_eq!(
            bar.message(),
            "7 of 10, 4.5 files/s, 4.25 MiB/s, 2 in flight, 1 waiting, 0.7 s left"
        );
        progress.finish(at(3.0, 10, Some(10)));
        assert!(bar.is_finished());
        assert!(progress.multi().is_some());
    }

    #[test]
    fn the_text_fits_the_terminal_and_keeps_what_matters_most() {
        let mut pace = Pace::default();
        let mut now = at(100.0, 123_456, Some(1_000_000));
        for _ in 0..4321 {
            now.counts.add(Outcome::Failed);
        }
        (now.in_flight, now.waiting) = (64, 936);
        pace.measure(&now);
        for columns in 0..200 {
            assert!(pace.fitting(&now, columns).len() <= columns, "{columns}");
        }
        let cases = [
            (
                120,
                "127,777 of 1,000,000, 1277.8 files/s, 1.15 GiB/s, 4,321 rejected or failed, 64 in flight, 936 waiting, 11m 22s left",
            ),
            (
                74,
                "127,777 of 1,000,000, 4,321 rejected or failed, 64 in flight, 11m 22s left",
            ),
            (34, "127,777 of 1,000,000, 11m 22s left"),
            (20, "127,777 of 1,000,000"),
            (7, "127,777"),
        ];
        for (columns, text) in cases {
            assert_eq!(pace.fitting(&now, columns), text);
        }
    }
}
