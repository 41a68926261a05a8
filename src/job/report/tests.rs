//! What the tests of every form share, and those of choosing one.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::job::item::{Counts, State};
use crate::target::{Outcome, Reason};

/// A job that began at a fixed time.
pub(crate) fn head() -> Head {
    Head {
        continues: None,
        job: Uuid::nil(),
        source: "cats.txt".to_owned(),
        album: AlbumName::new("cats").ok(),
        started: "2026-11-21T10:00:00Z".parse().unwrap(),
    }
}

/// What `items` come to after 90 seconds.
pub(crate) fn summary(items: &[Item]) -> Summary {
    let head = head();
    let mut counts = Counts::default();
    let mut reasons = BTreeMap::new();
    let mut bytes = 0;
    for item in items {
        counts.add(item.outcome);
        if let Some(reason) = item.reason {
            *reasons.entry(reason).or_default() += 1;
        }
        bytes += item.bytes.unwrap_or(0);
    }
    Summary {
        version: VERSION,
        job: head.job,
        source: head.source,
        album: head.album,
        continues: None,
        state: State::Completed,
        started: head.started,
        finished: "2026-11-21T10:01:30Z".parse().unwrap(),
        counts,
        repeats: 0,
        removed: 0,
        bytes,
        reasons,
        warnings: Vec::new(),
        error: None,
        ending: Default::default(),
    }
}

/// A stored picture.
pub(crate) fn stored(url: &str, path: &str) -> Item {
    Item {
        path: Some(path.to_owned()),
        format: Some("jpeg".to_owned()),
        media_type: Some("image/jpeg".to_owned()),
        bytes: Some(2048),
        width: Some(480),
        height: Some(320),
        elapsed_ms: Some(1500),
        line: Some(1),
        ..Item::new(url.to_owned(), Outcome::Stored)
    }
}

/// A target that came to nothing.
pub(crate) fn failed(url: &str, outcome: Outcome, reason: Reason, detail: &str) -> Item {
    Item {
        reason: Some(reason),
        detail: Some(detail.to_owned()),
        line: Some(2),
        ..Item::new(url.to_owned(), outcome)
    }
}

/// The whole report of `items`.
pub(crate) fn run(report: &mut dyn Report, items: &[Item], summary: &Summary) {
    report.begin(&head()).unwrap();
    for item in items {
        report.item(item).unwrap();
    }
    report.end(summary).unwrap();
}

/// An output that cannot seek.
#[derive(Debug, Default)]
pub(crate) struct Pipe(pub(crate) Vec<u8>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Pipe {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::NotSeekable.into())
    }
}

#[test]
fn the_ending_chooses_the_form_and_an_unknown_one_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let good = [
        path("a.json"),
        path("a.jsonl"),
        path("a.XML"),
        path("a.html"),
    ];
    let mut reports = Reports::create(&good, folder.path()).unwrap();
    reports.begin(&head()).unwrap();
    reports.end(&summary(&[])).unwrap();
    for (path, start) in good
        .iter()
        .zip(["{\"version\":1", "{\"version\":1", "<?xml", "<!doctype"])
    {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with(start), "{text}");
    }
    let bad = path("report.pdf");
    let error = Reports::create(&[path("b.json"), bad.clone()], folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the ending of report `{}` stands for no form of report; end it in `.json`, `.jsonl`, \
             `.xml` (JUnit) or `.html` (contact sheet)",
            bad.display()
        )
    );
    assert!(
        !path("b.json").exists(),
        "nothing is created after an error"
    );
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/such/report.json");
    let error = Reports::create(&[path], &folder.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no folder `"), "{error}");
    assert!(error.contains("no/such`"), "{error}");
}

#[test]
fn one_path_is_not_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.json"), folder.path().join("./a.json")];
    let error = Reports::create(&paths, folder.path()).unwrap_err();
    assert!(matches!(error, ReportError::Twice { .. }), "{error}");
}

#[test]
fn a_report_that_fails_is_given_up_and_the_others_go_on() {
    #[derive(Debug)]
    struct Full;
    impl Report for Full {
        fn begin(&mut self, _: &Head) -> io::Result<()> {
            Ok(())
        }
        fn item(&mut self, _: &Item) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn end(&mut self, _: &Summary) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut reports = Reports::default();
    reports.add("full.json".into(), Box::new(Full));
    reports.0.extend(
        Reports::create(std::slice::from_ref(&path), folder.path())
            .unwrap()
            .0,
    );
    let items = [
        stored("https://a.test/1", "1.jpg"),
        stored("https://a.test/2", "2.jpg"),
    ];
    reports.begin(&head()).unwrap();
    let error = reports.item(&items[0]).unwrap_err().to_string();
    assert_eq!(error, "report `full.json` cannot be written");
    reports.item(&items[1]).unwrap();
    reports.end(&summary(&items)).unwrap();
    let lines = std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(lines, 3);
}

#[test]
fn text_is_cleaned_and_cut_between_characters() {
    assert_eq!(clean("a\0b\u{1b}c\u{FFFF}d\n", 10), "abcd\n");
    assert_eq!(clean("äöü", 2), "äö…");
    assert_eq!(clean("äöü", 3), "äöü");
}
