//! `.jsonl`: one item a line, the summary last.

use std::io::{self, Write};

use super::{Head, Report};
use crate::job::item::{Item, Summary};

/// JSON Lines: each item as it comes, then the [`Summary`]. The summary is the line that has `version`;
/// a file without it belongs to a job that has not ended.
#[derive(Debug)]
pub struct Jsonl<W> {
    out: W,
}

impl<W: Write> Jsonl<W> {
    /// Writes to `out`, which is best buffered.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + std::fmt::Debug + Send> Report for Jsonl<W> {
    fn begin(&mut self, _: &Head) -> io::Result<()> {
        Ok(())
    }

    fn item(&mut self, item: &Item) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, item)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, summary)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run, stored, summary};
    use super::*;

    #[test]
    fn items_come_first_and_the_summary_last() {
        let items = [
            stored("https://a.test/1.jpg", "1.jpg"),
            stored("https://a.test/2.jpg", "2.jpg"),
        ];
        let mut out = Vec::new();
        run(&mut Jsonl::new(&mut out), &items, &summary(&items));
        let lines: Vec<serde_json::Value> = out
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["url"], "https://a.test/1.jpg");
        assert_eq!(lines[1]["url"], "https://a.test/2.jpg");
        assert!(lines[..2].iter().all(|line| line.get("version").is_none()));
        assert_eq!(lines[2]["version"], 1);
        assert_eq!(lines[2]["counts"]["stored"], 2);
        assert!(lines[2].get("items").is_none());
    }
}
