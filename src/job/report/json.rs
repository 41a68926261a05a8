//! `.json`: one document for the whole job.

use std::collections::BTreeMap;
use std::io::{self, Write};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Head, Report, VERSION};
use crate::job::item::{Counts, Item, State, Summary};
use crate::target::Reason;

/// One JSON document: the job's head, `items` with one item a line, then what the job came to.
///
/// The figures stand behind the items, since they are not known before.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    items: u64,
}

/// The document's fields before `items`.
#[derive(Serialize)]
struct Front<'a> {
    version: u32,
    #[serde(flatten)]
    head: &'a Head,
}

/// The document's fields behind `items`.
#[derive(Serialize)]
struct Back<'a> {
    state: State,
    finished: DateTime<Utc>,
    counts: Counts,
    repeats: u64,
    removed: u64,
    bytes: u64,
    reasons: &'a BTreeMap<Reason, u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`, which is best buffered.
    pub fn new(out: W) -> Self {
        Self { out, items: 0 }
    }
}

impl<W: Write + std::fmt::Debug + Send> Report for Json<W> {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let front = serde_json::to_string(&Front {
            version: VERSION,
            head,
        })?;
        // The object stays open for the items.
        let open = front.strip_suffix('}').unwrap_or(&front);
        write!(self.out, "{open},\"items\":[")
    }

    fn item(&mut self, item: &Item) -> io::Result<()> {
        self.out
            .write_all(if self.items == 0 { b"\n" } else { b",\n" })?;
        self.items += 1;
        Ok(serde_json::to_writer(&mut self.out, item)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        let back = serde_json::to_string(&Back {
            state: summary.state,
            finished: summary.finished,
            counts: summary.counts,
            repeats: summary.repeats,
            removed: summary.removed,
            bytes: summary.bytes,
            reasons: &summary.reasons,
            warnings: &summary.warnings,
            error: summary.error.as_deref(),
        })?;
        let rest = back.strip_prefix('{').unwrap_or(&back);
        writeln!(self.out, "\n],{rest}")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failed, head, run, stored, summary};
    use super::*;
    use crate::target::Outcome;

    fn document(items: &[Item], summary: &Summary) -> serde_json::Value {
        let mut out = Vec::new();
        run(&mut Json::new(&mut out), items, summary);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_document_has_the_contracts_fields() {
        let items = [
            stored("https://a.test/1.jpg", "cats/1.jpg"),
            failed(
                "https://a.test/2",
                Outcome::Failed,
                Reason::Status,
                "answered 404",
            ),
        ];
        let document = document(&items, &summary(&items));
        assert_eq!(
            document,
            serde_json::json!({
                "version": 1,
                "job": "00000000-0000-0000-0000-000000000000",
                "source": "cats.txt",
                "album": "cats",
                "started": "2026-11-21T10:00:00Z",
                "items": [
                    {
                        "url": "https://a.test/1.jpg", "outcome": "stored", "path": "cats/1.jpg",
                        "format": "jpeg", "media_type": "image/jpeg", "bytes": 2048, "width": 480,
                        "height": 320, "elapsed_ms": 1500, "line": 1,
                    },
                    {
                        "url": "https://a.test/2", "outcome": "failed", "reason": "status",
                        "detail": "answered 404", "line": 2,
                    },
                ],
                "state": "completed",
                "finished": "2026-11-21T10:01:30Z",
                "counts": {
                    "targets": 2, "stored": 1, "changed": 0, "unchanged": 0, "duplicate": 0,
                    "rejected": 0, "failed": 1, "skipped": 0,
                },
                "repeats": 0,
                "removed": 0,
                "bytes": 2048,
                "reasons": { "status": 1 },
            })
        );
    }

    #[test]
    fn a_job_without_items_and_with_an_error_is_a_document_too() {
        let mut summary = summary(&[]);
        summary.state = State::Failed;
        summary.error = Some("the list is an HTML page".to_owned());
        let document = document(&[], &summary);
        assert_eq!(document["items"], serde_json::json!([]));
        assert_eq!(document["state"], "failed");
        assert_eq!(document["error"], "the list is an HTML page");
    }

    #[test]
    fn items_are_readable_before_the_end() {
        let mut out = Vec::new();
        let mut report = Json::new(&mut out);
        report.begin(&head()).unwrap();
        report
            .item(&stored("https://a.test/1.jpg", "1.jpg"))
            .unwrap();
        report.flush().unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().last().unwrap();
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line}"
        );
    }
}
