//! `.xml`: JUnit, as Jenkins, GitLab and others read it. A target is a test case.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use chrono::SecondsFormat;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::{Head, Report, Slot, advice, clean, host_of};
use crate::job::item::{Item, State, Summary};
use crate::target::Outcome;

/// Room for the figures in an opening tag: up to five attributes with numbers of at most 20 digits.
const ROOM: usize = 160;

/// Most characters of a URL, a detail or a name.
const MAX_CHARS: usize = 8_000;

/// JUnit XML: one `testsuite` with a `testcase` for every target.
///
/// Rejected and failed targets have a `failure`, skipped ones `skipped`. An error of the job itself is
/// an `error` in a test case of its own. There is always a test case, since build servers take a file
/// without any for a fault. The document is valid by the schema of Jenkins' xUnit plugin (`junit-10.xsd`),
/// which wants the figures in the opening tags. They are filled in at the end; an output that cannot
/// seek gets the whole document at the end.
pub struct Junit<W> {
    out: Writer<Output<W>>,
    slots: Vec<Slot>,
    written: Written,
}

/// Where the document is written: to its output, or to a temporary file if the output cannot seek.
struct Output<W> {
    own: W,
    spool: Option<BufWriter<File>>,
}

impl<W: Write + Seek> Output<W> {
    /// Chooses between the two, before anything is written.
    fn open(&mut self) -> io::Result<()> {
        if self.own.stream_position().is_err() {
            self.spool = Some(BufWriter::new(tempfile::tempfile()?));
        }
        Ok(())
    }

    /// Copies the spooled cases to the output.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(mut spool) = self.spool.take() {
            spool.rewind()?;
            io::copy(spool.get_mut(), &mut self.own)?;
        }
        self.own.flush()
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.spool {
            Some(spool) => spool.write(bytes),
            None => self.own.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.spool {
            Some(spool) => spool.flush(),
            None => self.own.flush(),
        }
    }
}

impl<W: Seek> Seek for Output<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.spool {
            Some(spool) => spool.seek(to),
            None => self.own.seek(to),
        }
    }
}

/// Test cases that were written.
#[derive(Debug, Default)]
struct Written {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
}

impl<W> fmt::Debug for Junit<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Junit")
            .field("slots", &self.slots)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<W: Write + Seek> Junit<W> {
    /// Writes to `out`, which is best buffered.
    pub fn new(out: W) -> Self {
        let spool = None;
        Self {
            out: Writer::new(Output { own: out, spool }),
            slots: Vec::new(),
            written: Written::default(),
        }
    }

    /// An opening tag with room for the figures.
    fn open(&mut self, tag: &BytesStart<'_>) -> io::Result<()> {
        let out = self.out.get_mut();
        write!(out, "<{}", &**tag)?;
        self.slots.extend(Slot::reserve(out, "", ROOM)?);
        out.write_all(b">\n")
    }

    /// A test case; `inner` is the name, type, message and text of the element within.
    fn case(
        &mut self,
        class: &str,
        name: &str,
        seconds: Option<f64>,
        inner: Option<(&str, Option<&str>, &str, &str)>,
    ) -> io::Result<()> {
        self.written.tests += 1;
        let mut case = BytesStart::new("testcase");
        case.push_attribute(("classname", &*clean(class, MAX_CHARS)));
        case.push_attribute(("name", &*clean(name, MAX_CHARS)));
        if let Some(seconds) = seconds {
            case.push_attribute(("time", &*format!("{seconds:.3}")));
        }
        let Some((element, kind, message, text)) = inner else {
            self.out.write_event(Event::Empty(case))?;
            return self.newline();
        };
        match element {
            "failure" => self.written.failures += 1,
            "error" => self.written.errors += 1,
            _ => self.written.skipped += 1,
        }
        let mut child = BytesStart::new(element);
        if let Some(kind) = kind {
            child.push_attribute(("type", kind));
        }
        child.push_attribute(("message", &*clean(message, MAX_CHARS)));
        self.out.write_event(Event::Start(case))?;
        if text.is_empty() {
            self.out.write_event(Event::Empty(child))?;
        } else {
            self.out.write_event(Event::Start(child))?;
            let text = clean(text, MAX_CHARS);
            self.out.write_event(Event::Text(BytesText::new(&text)))?;
            self.out.write_event(Event::End(BytesEnd::new(element)))?;
        }
        self.out
            .write_event(Event::End(BytesEnd::new("testcase")))?;
        self.newline()
    }

    fn newline(&mut self) -> io::Result<()> {
        self.out.get_mut().write_all(b"\n")
    }
}

impl<W: Write + Seek + Send> Report for Junit<W> {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.out.get_mut().open()?;
        self.out
            .write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        self.newline()?;
        let mut suites = BytesStart::new("testsuites");
        suites.push_attribute(("name", "gannet"));
        self.open(&suites)?;
        let mut suite = BytesStart::new("testsuite");
        suite.push_attribute(("name", &*clean(&head.source, MAX_CHARS)));
        suite.push_attribute(("id", &*head.job.to_string()));
        let started = head.started.to_rfc3339_opts(SecondsFormat::Secs, true);
        suite.push_attribute(("timestamp", &*started));
        self.open(&suite)
    }

    fn item(&mut self, item: &Item) -> io::Result<()> {
        let host = host_of(&item.url);
        let class = host.as_deref().unwrap_or("no host");
        let mut name = item.url.clone();
        if let Some(line) = item.line {
            // Writing to a string cannot fail.
            let _ = write!(name, " (line {line})");
        }
        let seconds = item.elapsed_ms.map(|ms| ms as f64 / 1000.0);
        let code = item.reason.map(|reason| reason.as_str());
        let detail = item
            .detail
            .as_deref()
            .or_else(|| item.reason.map(advice::meaning))
            .unwrap_or(item.outcome.as_str());
        let inner = match item.outcome {
            Outcome::Stored | Outcome::Changed | Outcome::Unchanged | Outcome::Duplicate => {
                return self.case(class, &name, seconds, None);
            }
            Outcome::Rejected | Outcome::Failed => "failure",
            Outcome::Skipped => "skipped",
        };
        if inner == "skipped" {
            let message = format!("{}: {detail}", code.unwrap_or("skipped"));
            return self.case(class, &name, seconds, Some((inner, None, &message, "")));
        }
        let mut text = format!("{} {}", item.outcome, item.url);
        if let Some(url) = &item.final_url {
            let _ = write!(text, "\nled to: {url}");
        }
        let _ = write!(text, "\nattempts: {}", item.attempts);
        if let Some(reason) = item.reason {
            let hint = advice::hint(reason, item.status, host.as_deref());
            let _ = write!(text, "\nwhat to try: {hint}");
        }
        let kind = code.unwrap_or(item.outcome.as_str());
        self.case(
            class,
            &name,
            seconds,
            Some((inner, Some(kind), detail, &text)),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.get_mut().flush()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        if let Some(error) = &summary.error {
            let inner = ("error", Some("job"), error.as_str(), "");
            self.case("gannet", &summary.source, None, Some(inner))?;
        } else if self.written.tests == 0 {
            let inner = (summary.state == State::Cancelled).then_some((
                "skipped",
                None,
                "the job was cancelled before its first target",
                "",
            ));
            self.case("gannet", &summary.source, None, inner)?;
        }
        self.out
            .write_event(Event::End(BytesEnd::new("testsuite")))?;
        self.newline()?;
        self.out
            .write_event(Event::End(BytesEnd::new("testsuites")))?;
        self.newline()?;
        let elapsed = (summary.finished - summary.started).num_milliseconds();
        let Written {
            tests,
            failures,
            errors,
            skipped,
        } = self.written;
        // A clock that was set back makes no negative time: the schema has none.
        let seconds = elapsed.max(0) as f64 / 1000.0;
        let suites = format!(
            r#" tests="{tests}" failures="{failures}" errors="{errors}" time="{seconds:.3}""#
        );
        // The schema has this figure of a suite only.
        let suite = format!(r#"{suites} skipped="{skipped}""#);
        for (slot, figures) in self.slots.drain(..).zip([suites, suite]) {
            slot.fill(self.out.get_mut(), &figures)?;
        }
        self.out.get_mut().finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Pipe, failed, run, stored, summary};
    use super::*;
    use crate::target::Reason;
    use std::io::Cursor;

    fn xml(items: &[Item], summary: &Summary) -> String {
        let mut out = Cursor::new(Vec::new());
        run(&mut Junit::new(&mut out), items, summary);
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn every_outcome_has_its_element_and_the_figures_are_in_the_opening_tags() {
        let items = [
            stored("https://a.test/1.jpg", "1.jpg"),
            failed(
                "https://a.test/2",
                Outcome::Failed,
                Reason::Status,
                "answered 404",
            ),
            failed(
                "https://b.test/3",
                Outcome::Rejected,
                Reason::WrongKind,
                "it is HTML",
            ),
            failed(
                "https://b.test/4",
                Outcome::Skipped,
                Reason::Cancelled,
                "stopped",
            ),
        ];
        let text = xml(&items, &summary(&items));
        let document = roxmltree::Document::parse(&text).unwrap();
        let suites = document.root_element();
        let suite = suites.first_element_child().unwrap();
        for element in [suites, suite] {
            for (name, value) in [
                ("tests", "4"),
                ("failures", "2"),
                ("errors", "0"),
                ("time", "90.000"),
            ] {
                assert_eq!(element.attribute(name), Some(value), "{text}");
            }
        }
        assert_eq!(suite.attribute("skipped"), Some("1"));
        assert_eq!(suite.attribute("timestamp"), Some("2026-11-21T10:00:00Z"));
        let cases: Vec<_> = suite.children().filter(|n| n.is_element()).collect();
        assert_eq!(cases[0].attribute("classname"), Some("a.test"));
        assert_eq!(
            cases[0].attribute("name"),
            Some("https://a.test/1.jpg (line 1)")
        );
        assert_eq!(cases[0].attribute("time"), Some("1.500"));
        assert!(cases[0].first_element_child().is_none());
        let failure = cases[1].first_element_child().unwrap();
        assert_eq!(failure.tag_name().name(), "failure");
        assert_eq!(failure.attribute("type"), Some("status"));
        assert_eq!(failure.attribute("message"), Some("answered 404"));
        let failure = cases[2].first_element_child().unwrap();
        assert_eq!(failure.attribute("type"), Some("wrong-kind"));
        let skipped = cases[3].first_element_child().unwrap();
        assert_eq!(skipped.tag_name().name(), "skipped");
        assert_eq!(skipped.attribute("message"), Some("cancelled: stopped"));
    }

    #[test]
    fn a_job_without_targets_still_has_a_test_case() {
        let text = xml(&[], &summary(&[]));
        let document = roxmltree::Document::parse(&text).unwrap();
        let case = document
            .descendants()
            .find(|n| n.has_tag_name("testcase"))
            .unwrap();
        assert_eq!(case.attribute("name"), Some("cats.txt"));
        assert!(case.first_element_child().is_none());
        assert_eq!(document.root_element().attribute("tests"), Some("1"));
    }

    #[test]
    fn an_error_of_the_job_is_an_error() {
        let mut summary = summary(&[]);
        summary.error = Some("the list is a <login> page".to_owned());
        let text = xml(&[], &summary);
        let document = roxmltree::Document::parse(&text).unwrap();
        let error = document
            .descendants()
            .find(|n| n.has_tag_name("error"))
            .unwrap();
        assert_eq!(
            error.attribute("message"),
            Some("the list is a <login> page")
        );
        assert_eq!(document.root_element().attribute("errors"), Some("1"));
    }

    #[test]
    fn hostile_text_stays_well_formed() {
        let nasty = "https://a.test/\0\u{1b}\u{FFFE}\"><script>&']]>\u{202e}😀";
        let items = [failed(nasty, Outcome::Failed, Reason::Reset, nasty)];
        let text = xml(&items, &summary(&items));
        let document = roxmltree::Document::parse(&text).unwrap();
        let failure = document
            .descendants()
            .find(|n| n.has_tag_name("failure"))
            .unwrap();
        assert_eq!(
            failure.attribute("message"),
            Some("https://a.test/\"><script>&']]>\u{202e}😀")
        );
    }

    #[test]
    fn an_output_that_cannot_seek_gets_the_same_document() {
        let items = [stored("https://a.test/1.jpg", "1.jpg")];
        let mut out = Pipe::default();
        run(&mut Junit::new(&mut out), &items, &summary(&items));
        let text = String::from_utf8(out.0).unwrap();
        assert_eq!(text, xml(&items, &summary(&items)));
        is_valid(&text);
    }

    /// The elements that an element may hold, the attributes that it has to have, and those that it may have, as
    /// `junit-10.xsd` of Jenkins' xUnit plugin says. `None`: no such element.
    fn rule(
        element: &str,
    ) -> Option<(
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    )> {
        Some(match element {
            "testsuites" => (
                &["testsuite"],
                &[],
                &["name", "time", "tests", "failures", "errors"],
            ),
            "testsuite" => (
                &[
                    "testsuite",
                    "properties",
                    "testcase",
                    "system-out",
                    "system-err",
                ],
                &["name", "tests", "failures", "errors"],
                &[
                    "group",
                    "time",
                    "skipped",
                    "timestamp",
                    "hostname",
                    "id",
                    "package",
                    "file",
                    "log",
                    "url",
                ],
            ),
            "testcase" => (
                &["skipped", "error", "failure", "system-out", "system-err"],
                &["name"],
                &["time", "classname", "group"],
            ),
            "failure" | "error" | "skipped" => (&[], &[], &["type", "message"]),
            _ => return None,
        })
    }

    /// Asserts that the schema allows a document.
    #[track_caller]
    fn is_valid(text: &str) {
        let document = roxmltree::Document::parse(text).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "testsuites");
        for element in document.descendants().filter(|n| n.is_element()) {
            let name = element.tag_name().name();
            let (children, required, optional) =
                rule(name).unwrap_or_else(|| panic!("`{name}`: {text}"));
            for child in element.children() {
                let is_known = children.contains(&child.tag_name().name());
                assert!(!child.is_element() || is_known, "in `{name}`: {child:?}");
                // Only what ends a test case may hold text.
                let is_blank = child.text().is_none_or(|text| text.trim().is_empty());
                assert!(
                    child.is_element() || is_blank || children.is_empty(),
                    "in `{name}`: {child:?}"
                );
            }
            for attribute in element.attributes() {
                let attribute = attribute.name();
                let is_known = required.contains(&attribute) || optional.contains(&attribute);
                assert!(is_known, "`{name}` has `{attribute}`: {text}");
            }
            for attribute in required {
                assert!(
                    element.has_attribute(*attribute),
                    "`{name}` lacks `{attribute}`: {text}"
                );
            }
            if let Some(time) = element.attribute("time") {
                let is_plain = time.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                assert!(is_plain && time.matches('.').count() <= 1, "{time}");
            }
        }
    }

    #[test]
    fn every_report_is_valid_by_the_schema_of_jenkins() {
        let nasty = "https://a.test/\0\u{1b}\"><b>&']]>";
        let mut items = vec![stored("https://a.test/1.jpg", "1.jpg")];
        for outcome in [Outcome::Changed, Outcome::Unchanged, Outcome::Duplicate] {
            items.push(Item::new("https://a.test/2.jpg".to_owned(), outcome));
        }
        for outcome in [Outcome::Failed, Outcome::Rejected, Outcome::Skipped] {
            items.push(failed(nasty, outcome, Reason::Status, nasty));
            items.push(Item::new(nasty.to_owned(), outcome));
        }
        let mut long = failed(nasty, Outcome::Failed, Reason::Reset, &nasty.repeat(2000));
        long.elapsed_ms = Some(u64::MAX);
        long.final_url = Some(nasty.to_owned());
        items.push(long);
        for items in [&items[..], &items[..1], &[]] {
            for state in [
                State::Completed,
                State::Incomplete,
                State::Failed,
                State::Cancelled,
            ] {
                for error in [None, Some("the list is a <login> page".to_owned())] {
                    let mut summary = summary(items);
                    summary.state = state;
                    summary.error = error;
                    is_valid(&xml(items, &summary));
                    // The clock was set back.
                    summary.finished = "2026-11-20T10:00:00Z".parse().unwrap();
                    is_valid(&xml(items, &summary));
                }
            }
        }
    }
}
