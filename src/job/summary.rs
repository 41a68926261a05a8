//! What a job came to, as text for a person.
//!
//! [`Failures`] groups what was not fetched while the job runs, in bounded memory; [`Text`] prints the
//! figures and the largest groups, each with an example and what to try.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::item::{Item, State, Summary};
use super::report::{advice, host_of};
use crate::naming::NameFrom;
use crate::target::{Outcome, Reason, printable};

/// Most groups that are told apart. Further hosts are counted together, one group a reason.
const MAX_GROUPS: usize = 1_000;
/// Most groups that are printed.
const MAX_PRINTED: usize = 10;

/// Targets that were rejected, failed or skipped, by reason and host.
#[derive(Debug, Default)]
pub struct Failures {
    groups: HashMap<Key, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    reason: Reason,
    /// For [`Reason::Status`], since each status calls for something else.
    status: Option<u16>,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Host(String),
    /// Hosts beyond [`MAX_GROUPS`].
    Others,
    /// A line that is no URL, or a reason that has nothing to do with the host.
    Nowhere,
}

#[derive(Debug)]
struct Group {
    count: u64,
    skipped: bool,
    url: String,
    line: Option<u64>,
    detail: Option<String>,
}

impl Failures {
    /// Counts `item` if it has a reason.
    pub fn note(&mut self, item: &Item) {
        let Some(reason) = item.reason else { return };
        let place = match reason {
            Reason::Cancelled | Reason::Deadline | Reason::GroupStopped | Reason::StoreFull => None,
            _ => host_of(&item.url),
        };
        let mut key = Key {
            reason,
            status: item.status.filter(|_| reason == Reason::Status),
            place: place.map_or(Place::Nowhere, Place::Host),
        };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            // Reasons and statuses are few, so the groups of other hosts are too.
            key.place = Place::Others;
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            count: 0,
            skipped: item.outcome == Outcome::Skipped,
            url: printable(&item.url),
            line: item.line,
            detail: item.detail.as_deref().map(printable),
        });
        group.count += 1;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.groups.values().map(|group| group.count).sum()
    }

    /// The largest groups first; skipped targets behind all others, since they follow from those.
    fn sorted(&self) -> Vec<(&Key, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(a, x), (b, y)| {
            (x.skipped, y.count)
                .cmp(&(y.skipped, x.count))
                .then_with(|| a.cmp(b))
        });
        groups
    }
}

/// Number of files that a job named, and how many of these names are random.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names {
    /// Files that got a name.
    pub given: u64,
    /// Files that got a random name.
    pub random: u64,
}

impl Names {
    /// Counts `item` if this job named it.
    pub fn note(&mut self, item: &Item) {
        if item.outcome == Outcome::Stored {
            self.given += 1;
            self.random += u64::from(item.name_from == Some(NameFrom::Random));
        }
    }

    /// Returns advice on other names if most names are random, unless `order`, the order of name sources, asks for
    /// random ones.
    fn advice(self, order: &[NameFrom]) -> Option<&'static str> {
        if self.random * 2 <= self.given {
            return None;
        }
        match order
            .iter()
            .find(|from| matches!(from, NameFrom::Url | NameFrom::Random))
        {
            Some(NameFrom::Url) => {
                Some("these URLs give no names; a column `name` in the list does")
            }
            _ if order.first() == Some(&NameFrom::Random) => None,
            _ => Some(
                "`--name-by url` names files after their URLs, and a column `name` in the list names them itself; \
                 `gannet rename ALBUM --name-by url` renames what is there",
            ),
        }
    }
}

/// The summary that `fetch` prints; its `Display` ends with a line break.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// The figures.
    pub summary: &'a Summary,
    /// What was not fetched.
    pub failures: &'a Failures,
    /// Number of files named, and how many names are random.
    pub names: Names,
    /// Order of the sources of names.
    pub order: &'a [NameFrom],
    /// The folder that holds the files.
    pub files: &'a Path,
    /// The reports that were written.
    pub reports: &'a [PathBuf],
    /// Whether to use colours, which only a terminal shows.
    pub color: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.summary;
        self.figures(f)?;
        if let Some(error) = &summary.error {
            writeln!(f, "{}", self.paint(RED, &printable(error)))?;
        }
        for warning in &summary.warnings {
            writeln!(f, "{}", self.paint(YELLOW, &printable(warning)))?;
        }
        if summary.counts.targets > 0 || summary.repeats > 0 || summary.removed > 0 {
            writeln!(f)?;
        }
        for outcome in Outcome::ALL {
            let count = summary.counts.get(outcome);
            let color = match outcome {
                Outcome::Rejected | Outcome::Failed => RED,
                Outcome::Skipped => YELLOW,
                _ => PLAIN,
            };
            if count > 0 {
                let line = format!("{:>12}  {outcome}", HumanCount(count).to_string());
                writeln!(f, "{}", self.paint(color, &line))?;
            }
        }
        if summary.repeats > 0 {
            let repeats = HumanCount(summary.repeats).to_string();
            writeln!(f, "{repeats:>12}  repeats, dropped")?;
        }
        if summary.removed > 0 {
            let removed = HumanCount(summary.removed).to_string();
            writeln!(f, "{removed:>12}  removed")?;
        }
        writeln!(f, "\nfiles    {}", self.files.display())?;
        for (n, report) in self.reports.iter().enumerate() {
            let title = if n == 0 { "reports" } else { "" };
            writeln!(f, "{title:<7}  {}", report.display())?;
        }
        if let Some(advice) = self.names.advice(self.order) {
            let Names { given, random } = self.names;
            writeln!(
                f,
                "names    {} of {} are random\n         try: {advice}",
                HumanCount(random),
                HumanCount(given)
            )?;
        }
        Groups {
            failures: self.failures,
            elsewhere: match self.reports {
                [] => "`--report FILE` lists every one",
                _ => "the reports list every one",
            },
            color: self.color,
        }
        .fmt(f)
    }
}

/// The largest groups of what was not fetched, each with an example and what to try. Nothing, if there are none.
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    /// What was not fetched.
    pub failures: &'a Failures,
    /// Where the rest is found, as a sentence without its end.
    pub elsewhere: &'a str,
    /// Whether to use colours.
    pub color: bool,
}

const PLAIN: &str = "";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

impl Text<'_> {
    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.summary;
        let color = match summary.state {
            State::Completed => GREEN,
            State::Failed => RED,
            State::Incomplete | State::Cancelled | State::Queued | State::Ongoing => YELLOW,
        };
        // A clock that was set back makes a negative span.
        let elapsed = (summary.finished - summary.started)
            .to_std()
            .unwrap_or_default();
        let targets = summary.counts.targets;
        write!(
            f,
            "{}: {} {} in {}",
            self.paint(color, summary.state.as_str()),
            HumanCount(targets),
            if targets == 1 { "target" } else { "targets" },
            span(elapsed)
        )?;
        if targets > 0 && !elapsed.is_zero() {
            write!(
                f,
                ", {:.1} a second",
                targets as f64 / elapsed.as_secs_f64()
            )?;
        }
        writeln!(f, ", {} stored", HumanBytes(summary.bytes))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        paint(self.color, code, text)
    }
}

impl fmt::Display for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.failures.sorted();
        if groups.is_empty() {
            return Ok(());
        }
        let total = HumanCount(self.failures.total());
        writeln!(
            f,
            "\n{}",
            paint(self.color, BOLD, &format!("{total} not fetched:"))
        )?;
        for (key, group) in groups.iter().take(MAX_PRINTED) {
            let mut title = format!("{} × {}", HumanCount(group.count), key.reason);
            if let Some(status) = key.status {
                title.push_str(&format!(" {status}"));
            }
            let host = match &key.place {
                Place::Host(host) => {
                    title.push_str(&format!(" at {host}"));
                    Some(host.as_str())
                }
                Place::Others => {
                    title.push_str(" at other hosts");
                    None
                }
                Place::Nowhere => None,
            };
            let color = if group.skipped { YELLOW } else { RED };
            writeln!(f, "\n  {}", paint(self.color, color, &title))?;
            let line = group
                .line
                .map(|n| format!(" (line {n})"))
                .unwrap_or_default();
            writeln!(f, "      {}{line}", group.url)?;
            if let Some(detail) = &group.detail {
                writeln!(f, "      {}", paint(self.color, DIM, detail))?;
            }
            writeln!(
                f,
                "      try: {}",
                advice::hint(key.reason, key.status, host)
            )?;
        }
        let rest = &groups[groups.len().min(MAX_PRINTED)..];
        if !rest.is_empty() {
            let count: u64 = rest.iter().map(|(_, group)| group.count).sum();
            writeln!(
                f,
                "\n  and {} more in {} groups; {}",
                HumanCount(count),
                HumanCount(rest.len() as u64),
                self.elsewhere
            )?;
        }
        Ok(())
    }
}

fn paint(color: bool, code: &str, text: &str) -> String {
    if color && !code.is_empty() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A span of time as a person says it: `0.8 s`, `12.3 s`, `1m 5s`.
pub(super) fn span(span: Duration) -> String {
    if span < Duration::from_secs(60) {
        format!("{:.1} s", span.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{failed, stored, summary};
    use super::*;

    fn text(items: &[Item], summary: &Summary, reports: &[PathBuf], color: bool) -> String {
        let mut failures = Failures::default();
        for item in items {
            failures.note(item);
        }
        Text {
            summary,
            failures: &failures,
            names: Names::default(),
            order: &[],
            files: Path::new("/data/cats"),
            reports,
            color,
        }
        .to_string()
    }

    fn status(url: &str, status: u16, detail: &str) -> Item {
        Item {
            status: Some(status),
            ..failed(url, Outcome::Failed, Reason::Status, detail)
        }
    }

    #[test]
    fn a_good_job_is_a_few_lines() {
        let items = [stored("https://a.test/1.jpg", "1.jpg")];
        assert_eq!(
            text(&items, &summary(&items), &[], false),
            "completed: 1 target in 1m 30s, 0.0 a second, 2.00 KiB stored\n\
             \n\
             \x20          1  stored\n\
             \n\
             files    /data/cats\n"
        );
    }

    #[test]
    fn who_gets_random_names_is_told_how_to_have_others() {
        use NameFrom::{Header, List, Random, Url};
        let names = |random, given| Names { given, random };
        let default = [List, Header, Random];
        for (names, order, advice) in [
            (names(0, 0), &default[..], None),
            (names(1, 2), &default, None),
            (names(2, 3), &default, Some("--name-by url")),
            (names(1, 1), &[], Some("--name-by url")),
            (names(3, 3), &[List, Url], Some("column `name`")),
            // Random names were asked for.
            (names(3, 3), &[Random], None),
        ] {
            let said = names.advice(order);
            let is_it = match (said, advice) {
                (Some(said), Some(advice)) => said.contains(advice),
                (said, advice) => said == advice,
            };
            assert!(is_it, "{names:?} {order:?}: {said:?}");
        }
    }

    #[test]
    fn failures_are_grouped_by_reason_and_host_with_an_example_and_a_hint() {
        let items = [
            stored("https://a.test/1.jpg", "1.jpg"),
            status("https://a.test/2", 404, "answered 404 Not Found"),
            status("https://b.test/3", 429, "answered 429 Too Many Requests"),
            status("https://b.test/4", 429, "answered 429 Too Many Requests"),
            failed(
                "http://10.0.0.1/",
                Outcome::Failed,
                Reason::DeniedAddress,
                "10.0.0.1 is private",
            ),
            failed(
                "https://a.test/5",
                Outcome::Skipped,
                Reason::Cancelled,
                "stopped",
            ),
            failed(
                "https://b.test/6",
                Outcome::Skipped,
                Reason::Cancelled,
                "stopped",
            ),
            failed(
                "https://c.test/7",
                Outcome::Skipped,
                Reason::Cancelled,
                "stopped",
            ),
        ];
        let mut summary = summary(&items);
        summary.state = State::Cancelled;
        summary.repeats = 12;
        summary.removed = 3;
        let reports = ["a.json".into(), "a.html".into()];
        assert_eq!(
            text(&items, &summary, &reports, false),
            "cancelled: 8 targets in 1m 30s, 0.1 a second, 2.00 KiB stored\n\
             \n\
             \x20          1  stored\n\
             \x20          4  failed\n\
             \x20          3  skipped\n\
             \x20         12  repeats, dropped\n\
             \x20          3  removed\n\
             \n\
             files    /data/cats\n\
             reports  a.json\n\
             \x20        a.html\n\
             \n\
             7 not fetched:\n\
             \n\
             \x20 2 × status 429 at b.test\n\
             \x20     https://b.test/3 (line 2)\n\
             \x20     answered 429 Too Many Requests\n\
             \x20     try: ask more slowly: `--rate 1` for every host, or `hosts.\"b.test\".rate` for this one\n\
             \n\
             \x20 1 × denied-address at 10.0.0.1\n\
             \x20     http://10.0.0.1/ (line 2)\n\
             \x20     10.0.0.1 is private\n\
             \x20     try: if this network is yours, allow it with `--allow-private`, or a part of it with `--allow-net CIDR`\n\
             \n\
             \x20 1 × status 404 at a.test\n\
             \x20     https://a.test/2 (line 2)\n\
             \x20     answered 404 Not Found\n\
             \x20     try: the files are gone; correct or remove the URLs\n\
             \n\
             \x20 3 × cancelled\n\
             \x20     https://a.test/5 (line 2)\n\
             \x20     stopped\n\
             \x20     try: run it again: what is there is not fetched twice\n"
        );
    }

    #[test]
    fn many_groups_are_cut_and_memory_stays_bounded() {
        let mut failures = Failures::default();
        for n in 0..3_000 {
            let url = format!("https://h{n}.test/");
            failures.note(&failed(&url, Outcome::Failed, Reason::Dns, "no such host"));
        }
        assert_eq!(failures.groups.len(), MAX_GROUPS + 1);
        assert_eq!(failures.total(), 3_000);
        let text = Text {
            summary: &summary(&[]),
            failures: &failures,
            names: Names::default(),
            order: &[],
            files: Path::new("/data"),
            reports: &[],
            color: false,
        }
        .to_string();
        assert!(text.contains("\n  2,000 × dns at other hosts\n"), "{text}");
        assert!(
            text.ends_with("\n  and 991 more in 991 groups; `--report FILE` lists every one\n"),
            "{text}"
        );
    }

    #[test]
    fn an_error_of_the_job_is_told() {
        let mut summary = summary(&[]);
        summary.state = State::Failed;
        summary.error = Some("the list `x` is an HTML page".to_owned());
        assert_eq!(
            text(&[], &summary, &[], false),
            "failed: 0 targets in 1m 30s, 0 B stored\n\
             the list `x` is an HTML page\n\
             \n\
             files    /data/cats\n"
        );
    }

    #[test]
    fn a_hostile_line_cannot_steer_the_terminal() {
        let nasty = "\x1b]0;title\x07\x1b[2J\r\n\u{202e}gpj.exe";
        let items = [failed(nasty, Outcome::Failed, Reason::InvalidUrl, nasty)];
        let text = text(&items, &summary(&items), &[], false);
        let bad = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
        assert!(!text.contains(bad), "{text:?}");
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let items = [failed(
            "https://a.test/",
            Outcome::Failed,
            Reason::Dns,
            "no such host",
        )];
        let summary = summary(&items);
        assert!(!text(&items, &summary, &[], false).contains('\x1b'));
        let colored = text(&items, &summary, &[], true);
        assert!(
            colored.starts_with("\x1b[32mcompleted\x1b[0m: "),
            "{colored:?}"
        );
        assert!(
            colored.contains("\x1b[31m1 × dns at a.test\x1b[0m"),
            "{colored:?}"
        );
    }
}
