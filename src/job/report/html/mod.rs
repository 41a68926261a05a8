//! `.html`: a contact sheet, one file without script or anything from elsewhere.

mod markup;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Seek, Write};
use std::path::Path;

use chrono::SecondsFormat;
use indicatif::{HumanBytes, HumanCount};

use self::markup::{chips, code_spans, html, link, source};
use super::{Head, Report, Slot, advice};
use crate::job::item::{Item, State, Summary};
use crate::target::{Outcome, Reason};

/// Most files shown; a browser has trouble with many more.
const MAX_SHOWN: u64 = 5_000;
/// Most targets that are listed for one reason.
const MAX_LISTED: usize = 200;
/// Most bytes of HTML that are kept for those lists, all reasons together: URLs may be long.
const MAX_KEPT: usize = 2 << 20;
/// Longest list that is open from the start.
const MAX_OPEN: usize = 20;
/// Room for state and counts in the page's head.
const ROOM: usize = 2_048;

const STYLE: &str = include_str!("sheet.css");

/// Pictures from beside the page and the style within it, nothing else: neither script nor forms nor
/// anything from elsewhere, whatever a name smuggles in.
const POLICY: &str = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";

/// Formats that browsers show in an `img`, where an SVG runs no script.
const SHOWN: [&str; 9] = [
    "avif", "bmp", "cur", "gif", "ico", "jpeg", "png", "svg", "webp",
];

/// A contact sheet: state and counts, a grid of the files, and what was not fetched, by reason.
///
/// State and counts stand at the top of the page and are filled in at the end; in an output that
/// cannot seek they stand at the bottom.
#[derive(Debug)]
pub struct Html<W> {
    out: W,
    /// From the page's folder to the store's root, percent-encoded, with a `/` at its end.
    root: String,
    slot: Option<Slot>,
    /// Files that are or could be shown.
    files: u64,
    groups: BTreeMap<Reason, Group>,
    /// Bytes that the groups keep.
    kept: usize,
}

/// Targets that share a reason.
#[derive(Debug, Default)]
struct Group {
    count: u64,
    statuses: BTreeMap<u16, u64>,
    skipped: u64,
    /// The first [`MAX_LISTED`], as HTML.
    lines: Vec<String>,
}

impl<W: Write + Seek> Html<W> {
    /// Writes to `out`, which is best buffered. `root` leads from the page's folder to the folder to
    /// which the items' paths are relative.
    pub fn new(out: W, root: &Path) -> Self {
        Self {
            out,
            root: markup::folder(root),
            slot: None,
            files: 0,
            groups: BTreeMap::new(),
            kept: 0,
        }
    }

    fn file(&mut self, item: &Item, path: &str) -> io::Result<()> {
        if self.files == 0 {
            self.out.write_all(b"<ul class=\"sheet\">\n")?;
        }
        self.files += 1;
        if self.files > MAX_SHOWN {
            return Ok(());
        }
        let href = markup::file(&self.root, path);
        let name = path.rsplit('/').next().unwrap_or(path);
        let name = html(name);
        let format = item.format.as_deref().unwrap_or("file");
        let shown = SHOWN.contains(&format);
        let format = html(&format.to_uppercase());
        let mut card = String::new();
        if shown {
            let _ = write!(
                card,
                r#"<li><a class="view" href="{href}"><img loading="lazy" decoding="async" src="{href}" alt="{name}"></a>"#
            );
        } else {
            let _ = write!(
                card,
                r#"<li><a class="view plain" href="{href}" aria-label="open {name}">{format}</a>"#
            );
        }
        let _ = write!(
            card,
            r#"<div class="text"><p class="name"><bdi>{name}</bdi></p><p>{format}"#
        );
        if let (Some(width), Some(height)) = (item.width, item.height) {
            let _ = write!(card, " · {width} × {height}");
        }
        if let Some(bytes) = item.bytes {
            let _ = write!(card, " · {}", HumanBytes(bytes));
        }
        if let Some(modified) = item.last_modified {
            let _ = write!(card, " · modified {}", modified.format("%Y-%m-%d"));
        }
        if item.undecoded {
            card.push_str(" · not decoded");
        }
        if item.outcome != Outcome::Stored {
            let _ = write!(card, " · {}", item.outcome);
        }
        let _ = write!(
            card,
            "</p><p class=\"source\">{}</p></div></li>",
            source(&item.url)
        );
        writeln!(self.out, "{card}")
    }

    fn other(&mut self, item: &Item, reason: Reason) {
        let group = self.groups.entry(reason).or_default();
        group.count += 1;
        group.skipped += u64::from(item.outcome == Outcome::Skipped);
        if let Some(status) = item.status {
            *group.statuses.entry(status).or_default() += 1;
        }
        if group.lines.len() == MAX_LISTED || self.kept >= MAX_KEPT {
            return;
        }
        let mut line = format!("<li>{}", link(&item.url));
        if let Some(number) = item.line {
            let _ = write!(line, " <span class=\"detail\">(line {number})</span>");
        }
        if let Some(detail) = &item.detail {
            let _ = write!(
                line,
                "<br><span class=\"detail\"><bdi>{}</bdi></span>",
                html(detail)
            );
        }
        line.push_str("</li>\n");
        self.kept += line.len();
        group.lines.push(line);
    }

    fn write_groups(&mut self) -> io::Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let out = &mut self.out;
        out.write_all(b"<section aria-labelledby=\"rest\">\n<h2 id=\"rest\">Not fetched</h2>\n")?;
        let mut groups: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
        groups.sort_by_key(|(reason, group)| (std::cmp::Reverse(group.count), *reason));
        for (reason, group) in groups {
            let calm = if group.skipped == group.count {
                " calm"
            } else {
                ""
            };
            let open = if group.lines.len() > MAX_OPEN {
                ""
            } else {
                " open"
            };
            writeln!(
                out,
                r#"<details{open}><summary><code>{reason}</code> {} <span class="count{calm}">{}</span></summary>"#,
                advice::meaning(reason),
                HumanCount(group.count)
            )?;
            let most = group.statuses.iter().max_by_key(|(_, count)| **count);
            let hint = advice::hint(reason, most.map(|(status, _)| *status), None);
            writeln!(
                out,
                "<p>What to try: {}</p>\n<ul>",
                code_spans(&html(&hint))
            )?;
            for line in &group.lines {
                out.write_all(line.as_bytes())?;
            }
            let rest = group.count - group.lines.len() as u64;
            if rest > 0 {
                writeln!(out, "<li class=\"more\">and {} more</li>", HumanCount(rest))?;
            }
            out.write_all(b"</ul></details>\n")?;
        }
        out.write_all(b"</section>\n")
    }
}

impl<W: Write + Seek + std::fmt::Debug + Send> Report for Html<W> {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let source = html(&head.source);
        let started = head.started.to_rfc3339_opts(SecondsFormat::Secs, true);
        let readable = head.started.format("%-d %B %Y, %H:%M:%S UTC");
        write!(
            self.out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <title>{source} – gannet</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
             <p class=\"brand\">gannet contact sheet</p>\n<h1><bdi>{source}</bdi></h1>\n\
             <p class=\"about\">"
        )?;
        if let Some(album) = &head.album {
            write!(self.out, "album <bdi>{}</bdi> · ", html(album.as_str()))?;
        }
        writeln!(
            self.out,
            "<time datetime=\"{started}\">{readable}</time> · job {}</p>",
            head.job
        )?;
        let ongoing = chips(&[("mild", "ongoing when this was written".to_owned())]);
        self.slot = Slot::reserve(&mut self.out, &ongoing, ROOM)?;
        self.out.write_all(
            b"\n</header>\n<main>\n<section aria-labelledby=\"files\">\n<h2 id=\"files\">Files</h2>\n",
        )
    }

    fn item(&mut self, item: &Item) -> io::Result<()> {
        let kept = match item.outcome {
            Outcome::Stored | Outcome::Changed | Outcome::Unchanged | Outcome::Duplicate => true,
            Outcome::Rejected | Outcome::Failed | Outcome::Skipped => false,
        };
        if let (true, Some(path)) = (kept, &item.path) {
            self.file(item, path)?;
        }
        if let Some(reason) = item.reason {
            self.other(item, reason);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        if self.files == 0 {
            self.out.write_all(b"<p class=\"more\">No files.</p>\n")?;
        } else {
            self.out.write_all(b"</ul>\n")?;
        }
        if self.files > MAX_SHOWN {
            let rest = HumanCount(self.files - MAX_SHOWN);
            writeln!(self.out, "<p class=\"more\">and {rest} more</p>")?;
        }
        self.out.write_all(b"</section>\n")?;
        self.write_groups()?;
        if let Some(error) = &summary.error {
            let error = html(error);
            writeln!(
                self.out,
                "<p class=\"error\" role=\"alert\">The job failed: {error}</p>"
            )?;
        }
        self.out.write_all(b"</main>\n<footer>\n")?;
        let outcome = outcome(summary);
        match self.slot.take() {
            Some(slot) => slot.fill(&mut self.out, &outcome)?,
            None => writeln!(self.out, "{outcome}")?,
        }
        let finished = summary.finished.format("%-d %B %Y, %H:%M:%S UTC");
        writeln!(
            self.out,
            "<p>Finished {finished}. Written by gannet {}.</p>\n</footer>\n</body>\n</html>",
            env!("CARGO_PKG_VERSION")
        )?;
        self.out.flush()
    }
}

/// State and counts.
fn outcome(summary: &Summary) -> String {
    let state = match summary.state {
        State::Completed => "good",
        State::Failed => "bad",
        State::Incomplete | State::Cancelled | State::Queued | State::Ongoing => "mild",
    };
    let mut all = vec![(state, format!("<b>{}</b>", summary.state.as_str()))];
    let targets = HumanCount(summary.counts.targets);
    all.push(("calm", format!("<b>{targets}</b> targets")));
    for outcome in Outcome::ALL {
        let count = summary.counts.get(outcome);
        let class = match outcome {
            Outcome::Stored | Outcome::Changed => "good",
            Outcome::Unchanged | Outcome::Duplicate => "calm",
            Outcome::Rejected | Outcome::Failed => "bad",
            Outcome::Skipped => "mild",
        };
        if count > 0 {
            all.push((class, format!("<b>{}</b> {outcome}", HumanCount(count))));
        }
    }
    if summary.repeats > 0 {
        let repeats = HumanCount(summary.repeats);
        all.push(("calm", format!("<b>{repeats}</b> repeats dropped")));
    }
    if summary.removed > 0 {
        let removed = HumanCount(summary.removed);
        all.push(("mild", format!("<b>{removed}</b> removed")));
    }
    all.push(("calm", format!("<b>{}</b>", HumanBytes(summary.bytes))));
    chips(&all)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Pipe, failed, run, stored, summary};
    use super::*;
    use std::io::Cursor;

    fn page(items: &[Item], summary: &Summary) -> String {
        let mut out = Cursor::new(Vec::new());
        run(
            &mut Html::new(&mut out, Path::new("../my pictures")),
            items,
            summary,
        );
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn pictures_are_shown_with_what_is_known_of_them() {
        let mut picture = stored("https://a.test/1.jpg", "cats/ä #1?.jpg");
        picture.last_modified = "2026-11-21T07:05:09Z".parse().ok();
        let items = [picture];
        let text = page(&items, &summary(&items));
        let way = "./../my%20pictures/cats/%C3%A4%20%231%3F.jpg";
        assert!(
            text.contains(&format!("src=\"{way}\" alt=\"ä #1?.jpg\"")),
            "{text}"
        );
        assert!(
            text.contains("JPEG · 480 × 320 · 2.00 KiB · modified 2026-11-21<"),
            "{text}"
        );
        assert!(
            text.contains("href=\"https://a.test/1.jpg\" rel="),
            "{text}"
        );
        let head = text.split("</header>").next().unwrap();
        assert!(
            head.contains("<b>completed</b>"),
            "the head is filled in: {head}"
        );
        assert!(head.contains("<b>1</b> stored"), "{head}");
        assert!(!head.contains("ongoing"), "{head}");
    }

    #[test]
    fn what_browsers_do_not_show_is_a_card() {
        let mut item = stored("https://a.test/1", "1.rgb");
        item.format = Some("rgb".to_owned());
        let text = page(&[item.clone()], &summary(&[item]));
        assert!(!text.contains("<img"), "{text}");
        assert!(text.contains(">RGB</a>"), "{text}");
    }

    #[test]
    fn hostile_urls_and_names_stay_text() {
        let nasty = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'";
        let mut picture = stored(
            &format!("javascript:alert(1)//{nasty}"),
            &format!("a/{nasty}"),
        );
        picture.format = Some(nasty.to_owned());
        let items = [
            picture,
            failed(
                &format!("https://a.test/{nasty}"),
                Outcome::Failed,
                Reason::Dns,
                nasty,
            ),
            failed(
                "data:text/html,x",
                Outcome::Failed,
                Reason::UnsupportedScheme,
                nasty,
            ),
        ];
        let mut summary = summary(&items);
        summary.error = Some(nasty.to_owned());
        let text = page(&items, &summary);
        assert!(!text.contains("<script"), "{text}");
        assert!(!text.contains("<img"), "{text}");
        assert!(!text.contains("href=\"javascript:"), "{text}");
        assert!(!text.contains("href=\"data:"), "{text}");
        assert!(text.contains("&lt;script&gt;"), "{text}");
    }

    #[test]
    fn a_path_cannot_become_a_scheme_or_a_host() {
        let items = [
            stored("https://a.test/", "javascript:alert(1)"),
            stored("https://a.test/", "//b.test/x"),
        ];
        let mut out = Cursor::new(Vec::new());
        run(
            &mut Html::new(&mut out, Path::new("")),
            &items,
            &summary(&items),
        );
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert!(
            text.contains("src=\"./javascript%3Aalert%281%29\""),
            "{text}"
        );
        assert!(!text.contains("src=\"//"), "{text}");
    }

    #[test]
    fn failures_stand_by_reason_with_what_to_try_and_a_bound() {
        let mut items: Vec<Item> = (0..250)
            .map(|n| {
                failed(
                    &format!("https://a.test/{n}"),
                    Outcome::Failed,
                    Reason::Status,
                    "answered 429",
                )
            })
            .collect();
        for item in &mut items {
            item.status = Some(429);
        }
        items.push(failed(
            "https://a.test/html",
            Outcome::Rejected,
            Reason::WrongKind,
            "it is HTML",
        ));
        let text = page(&items, &summary(&items));
        assert_eq!(text.matches("answered 429").count(), MAX_LISTED);
        assert!(text.contains("and 50 more"), "{text}");
        assert!(text.contains("<code>--rate 1</code>"), "{text}");
        let (status, kind) = (
            text.find("<code>status</code>"),
            text.find("<code>wrong-kind</code>"),
        );
        assert!(
            status.unwrap() < kind.unwrap(),
            "the largest group comes first"
        );
    }

    #[test]
    fn long_urls_do_not_fill_the_memory() {
        let mut report = Html::new(Cursor::new(Vec::new()), Path::new(""));
        for reason in Reason::ALL {
            for n in 0..300 {
                let url = format!("https://a.test/{n}?{}", "&".repeat(7_000));
                report
                    .item(&failed(&url, Outcome::Failed, *reason, "x"))
                    .unwrap();
            }
        }
        assert!(report.kept < MAX_KEPT + 100_000, "{}", report.kept);
        assert!(report.groups.values().all(|group| group.count == 300));
    }

    #[test]
    fn pictures_beyond_the_bound_are_counted() {
        let mut out = Cursor::new(Vec::new());
        let mut report = Html::new(&mut out, Path::new(""));
        let item = stored("https://a.test/1.jpg", "1.jpg");
        report.begin(&super::super::tests::head()).unwrap();
        for _ in 0..MAX_SHOWN + 1234 {
            report.item(&item).unwrap();
        }
        report.end(&summary(&[])).unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(text.matches("<img").count() as u64, MAX_SHOWN);
        assert!(text.contains("and 1,234 more"));
    }

    #[test]
    fn an_output_that_cannot_seek_has_the_counts_at_its_end() {
        let items = [stored("https://a.test/1.jpg", "1.jpg")];
        let mut out = Pipe::default();
        run(
            &mut Html::new(&mut out, Path::new("")),
            &items,
            &summary(&items),
        );
        let text = String::from_utf8(out.0).unwrap();
        let foot = text.split("<footer>").nth(1).unwrap();
        assert!(foot.contains("<b>1</b> stored"), "{foot}");
        assert!(text.ends_with("</html>\n"));
    }

    #[test]
    fn the_fullest_head_fits_into_its_room() {
        let mut summary = summary(&[]);
        for outcome in Outcome::ALL {
            for _ in 0..3 {
                summary.counts.add(outcome);
            }
        }
        summary.counts.stored = u64::MAX;
        summary.repeats = u64::MAX;
        summary.bytes = u64::MAX;
        assert!(super::outcome(&summary).len() + 7 * 26 < ROOM);
    }
}
