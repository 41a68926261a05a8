//! Which format a list has, and whether it is a list at all.

use url::Url;

use crate::source::ListFormat;
use crate::source::address::has_prefix;
use crate::source::error::Stop;
use crate::source::row::Column;

/// Bytes that are looked at, at most.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Bytes in which the share of binary ones is counted.
const BINARY_BYTES: usize = 4096;

/// What is known of a list besides its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// What the user says.
    pub(super) format: Option<ListFormat>,
    /// A file name or the last segment of a URL.
    pub(super) name: Option<String>,
    /// `Content-Type`, parameters and all.
    pub(super) media_type: Option<String>,
    /// Where it came from in the end: what it names may be relative to that.
    pub(super) base: Option<Url>,
}

impl Hints {
    /// What the name's ending, or else the media type, claims.
    ///
    /// `.txt` says text, which the first bytes tell apart; `.xml` and endings such as `.php` say nothing, like
    /// `text/plain`.
    fn claimed(&self) -> Option<ListFormat> {
        let ending = self.name.as_deref().and_then(ending);
        if ending.as_deref() == Some("txt") {
            return None;
        }
        ending
            .as_deref()
            .and_then(by_ending)
            .or_else(|| self.media_type.as_deref().and_then(by_media_type))
    }
}

/// The ending of a name in lower case, without that of its compression.
fn ending(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let name = [".gz", ".gzip", ".zst", ".zstd"]
        .iter()
        .find_map(|packed| name.strip_suffix(packed))
        .unwrap_or(&name);
    Some(name.rsplit_once('.')?.1.to_owned())
}

fn by_ending(ending: &str) -> Option<ListFormat> {
    match ending {
        "csv" => Some(ListFormat::Csv),
        "tsv" | "tab" => Some(ListFormat::Tsv),
        "jsonl" | "ndjson" | "json" => Some(ListFormat::Jsonl),
        "rss" | "atom" => Some(ListFormat::Feed),
        _ => None,
    }
}

fn by_media_type(media_type: &str) -> Option<ListFormat> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "text/csv" | "application/csv" => Some(ListFormat::Csv),
        "text/tab-separated-values" => Some(ListFormat::Tsv),
        "application/jsonl"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/json-lines"
        | "application/x-jsonlines"
        | "application/json" => Some(ListFormat::Jsonl),
        "application/rss+xml" | "application/atom+xml" => Some(ListFormat::Feed),
        _ => None,
    }
}

/// Whether `head` shows enough to decide: a whole line with something in it, or a root element.
pub(super) fn is_enough(head: &[u8]) -> bool {
    let text = trimmed(head);
    match text.first() {
        None => false,
        Some(b'<') => !matches!(markup(text), Markup::Unclear),
        Some(b'[') => true,
        Some(_) => memchr::memchr2(b'\n', b'\r', text).is_some(),
    }
}

/// Decides by what the user says, what name and type claim, and the first bytes, in this order.
pub(super) fn decide(head: &[u8], hints: &Hints) -> Result<ListFormat, Stop> {
    let text = trimmed(head);
    let claimed = hints.claimed();
    if text.is_empty() {
        return Ok(hints.format.or(claimed).unwrap_or(ListFormat::Text));
    }
    if let Some(format) = judge_markup(text, hints.format)? {
        return Ok(format);
    }
    refuse_binary(text)?;
    match hints.format.or(claimed) {
        Some(format @ (ListFormat::Sitemap | ListFormat::Feed)) => Err(Stop::not_a_list(
            "not XML",
            format!("a {format} begins with `<`; leave the format out to have it found"),
        )),
        Some(format) => Ok(format),
        None => Ok(by_first_line(text)),
    }
}

fn trimmed(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start()
}

/// What a text that begins with `<` is.
#[derive(Debug, PartialEq, Eq)]
enum Markup {
    /// Neither HTML nor XML: perhaps a URL in angle brackets.
    None,
    Html,
    List(ListFormat),
    /// XML with another root.
    Other(String),
    /// The root element is not there yet.
    Unclear,
}

/// The format of an XML list; `None` when it is no markup at all.
fn judge_markup(text: &[u8], wanted: Option<ListFormat>) -> Result<Option<ListFormat>, Stop> {
    match markup(text) {
        Markup::None => Ok(None),
        Markup::List(format) => match wanted {
            Some(wanted) if wanted != format => Err(Stop::not_a_list(
                format!("a {format}, while it is to be read as {wanted}"),
                format!("read it as {format}, or leave the format out"),
            )),
            _ => Ok(Some(format)),
        },
        Markup::Html => Err(Stop::not_a_list(
            "an HTML page",
            "open it in a browser: it may be a login or an error page",
        )),
        Markup::Other(root) if root == "svg" => {
            Err(Stop::not_a_list("an SVG picture", "fetch it with `--url`"))
        }
        Markup::Other(root) => Err(Stop::not_a_list(
            format!("an XML document with the root `{root}`"),
            "sitemaps, RSS and Atom are understood",
        )),
        Markup::Unclear => Err(Stop::not_a_list(
            "markup without a root element in its first 64 KiB",
            "sitemaps, RSS and Atom are understood",
        )),
    }
}

fn markup(text: &[u8]) -> Markup {
    let mut rest = text;
    let mut xml = false;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first() != Some(&b'<') {
            return match rest {
                [] => Markup::Unclear,
                _ if xml => Markup::Other("?".to_owned()),
                _ => Markup::None,
            };
        }
        let end: &[u8] = match rest {
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'?', ..] => b"?>",
            [b'<', b'!', ..] => {
                if rest.len() >= 14 && rest[2..14].eq_ignore_ascii_case(b"doctype html") {
                    return Markup::Html;
                }
                xml = true;
                match after_doctype(rest) {
                    Some(after) => rest = after,
                    None => return Markup::Unclear,
                }
                continue;
            }
            _ => break,
        };
        xml = true;
        match memchr::memmem::find(rest, end) {
            Some(at) => rest = &rest[at + end.len()..],
            None => return Markup::Unclear,
        }
    }
    let name_end = rest[1..]
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b":_-.".contains(byte)));
    let Some(name_end) = name_end else {
        return Markup::Unclear;
    };
    let name = String::from_utf8_lossy(&rest[1..=name_end]);
    let after = &rest[1 + name_end..];
    // `<https://…>` reads as a name that ends in a colon.
    if name.is_empty() || (name.ends_with(':') && after.starts_with(b"/")) {
        return if xml {
            Markup::Other("?".to_owned())
        } else {
            Markup::None
        };
    }
    root(&name, xml)
}

/// What follows a document type declaration, whose internal subset (XML 1.0, section 2.8) may hold `>`; `None` where
/// it does not end.
fn after_doctype(text: &[u8]) -> Option<&[u8]> {
    let mut rest = &text[2..];
    let mut is_subset = false;
    loop {
        let at = rest.iter().position(|byte| b"\"'<>[]".contains(byte))?;
        let found = &rest[at..];
        let end: &[u8] = match found {
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'?', ..] => b"?>",
            [b'"', ..] => b"\"",
            [b'\'', ..] => b"'",
            [b'>', after @ ..] if !is_subset => return Some(after),
            [byte, after @ ..] => {
                is_subset = (is_subset || *byte == b'[') && *byte != b']';
                rest = after;
                continue;
            }
            [] => return None,
        };
        let inner = &found[1..];
        rest = &inner[memchr::memmem::find(inner, end)? + end.len()..];
    }
}

fn root(name: &str, xml: bool) -> Markup {
    const HTML: [&str; 24] = [
        "html", "head", "body", "title", "meta", "link", "script", "style", "base", "div", "p",
        "a", "img", "span", "table", "h1", "h2", "h3", "br", "form", "center", "font", "iframe",
        "noscript",
    ];
    let local = name.rsplit(':').next().unwrap_or(name);
    match local {
        "urlset" | "sitemapindex" => Markup::List(ListFormat::Sitemap),
        "rss" | "feed" | "RDF" => Markup::List(ListFormat::Feed),
        _ if HTML.iter().any(|html| html.eq_ignore_ascii_case(local)) => Markup::Html,
        _ if xml || local == "svg" => Markup::Other(local.chars().take(40).collect()),
        _ => Markup::None,
    }
}

/// Pictures, archives, documents: by their signatures, or by how little of them is text.
fn refuse_binary(text: &[u8]) -> Result<(), Stop> {
    const ADVICE: &str = "lists are text, CSV, TSV, JSON Lines, sitemaps or feeds, plain or packed with gzip or zstd";
    if text.starts_with(b"%PDF-") {
        return Err(Stop::not_a_list("a PDF document", ADVICE));
    }
    let text = &text[..text.len().min(BINARY_BYTES)];
    // Somebody who writes a URL means a list, whatever else stands there.
    if memchr::memmem::find(text, b"http://").is_some_and(|at| begins_line(text, at))
        || memchr::memmem::find(text, b"https://").is_some_and(|at| begins_line(text, at))
    {
        return Ok(());
    }
    let strange = text
        .iter()
        .filter(|byte| matches!(byte, 0..=8 | 0x0e..=0x1f | 0x7f))
        .count();
    let foreign: usize = text.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    if strange + foreign == 0 {
        return Ok(());
    }
    if let Some(kind) = infer::get(text)
        && kind.matcher_type() != infer::MatcherType::Text
    {
        return Err(Stop::not_a_list(
            format!("a file of type {}", kind.mime_type()),
            ADVICE,
        ));
    }
    if text.len() >= 16 && (strange + foreign) * 10 > text.len() * 3 {
        return Err(Stop::not_a_list("binary data", ADVICE));
    }
    Ok(())
}

fn begins_line(text: &[u8], at: usize) -> bool {
    at == 0 || matches!(text[at - 1], b'\n' | b'\r' | b' ' | b'\t' | b'"' | b'<')
}

/// Text, unless the first line with something in it shows otherwise.
fn by_first_line(text: &[u8]) -> ListFormat {
    if text[0] == b'[' || text[0] == b'{' {
        return ListFormat::Jsonl;
    }
    let end = memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len());
    let line = String::from_utf8_lossy(&text[..end]);
    for (delimiter, format) in [
        ('\t', ListFormat::Tsv),
        (',', ListFormat::Csv),
        (';', ListFormat::Csv),
    ] {
        let mut cells = line
            .split(delimiter)
            .map(|cell| cell.trim().trim_matches('"'));
        let count = cells.clone().count();
        // One column of URLs is a text list that begins with a word: commas in URLs stay commas then.
        if count > 1
            && cells.clone().any(|cell| Column::of(cell).may_hold_url())
            && !cells.any(|cell| has_prefix(cell, "http"))
        {
            return format;
        }
    }
    if Column::of(line.trim().trim_matches('"')).may_hold_url() {
        return ListFormat::Csv;
    }
    if text[0] == b'"' && serde_json::from_str::<String>(line.trim()).is_ok() {
        return ListFormat::Jsonl;
    }
    ListFormat::Text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ListFormat::{Csv, Feed, Jsonl, Sitemap, Text, Tsv};

    fn found(head: &str) -> Result<ListFormat, String> {
        with(head, &Hints::default())
    }

    fn with(head: &str, hints: &Hints) -> Result<ListFormat, String> {
        decide(head.as_bytes(), hints).map_err(|stop| match stop {
            Stop::NotAList { what, .. } => what,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn first_bytes_show_the_format() {
        for (head, format) in [
            ("", Text),
            (" \n\t\n", Text),
            ("https://example.org/a,b\n", Text),
            ("# url,name\nhttps://example.org/", Text),
            ("url\nhttps://example.org/", Csv),
            ("\"Image URL\"\r\nhttps://example.org/", Csv),
            ("cat\nhttps://example.org/", Text),
            ("<https://example.org/>\n", Text),
            ("hello", Text),
            ("url,name\n", Csv),
            ("name;URL\n", Csv),
            ("\"name\",\"Image URL\"\r\n", Csv),
            ("caption\turl\n", Tsv),
            ("{\"url\":", Jsonl),
            ("\u{feff}\n[\"https://", Jsonl),
            ("\"https://example.org/\"\n", Jsonl),
            ("<urlset xmlns='x'>", Sitemap),
            (
                "<?xml version='1.0'?>\n<!-- made -->\n<?xml-stylesheet href='a'?><s:sitemapindex>",
                Sitemap,
            ),
            ("<?xml version='1.0'?><rss version='2.0'>", Feed),
            ("<feed>", Feed),
            ("<rdf:RDF>", Feed),
            ("<!DOCTYPE rss [<!ENTITY nbsp \"&#160;\">]><rss>", Feed),
            ("<!DOCTYPE rss SYSTEM \"a>b\"><rss>", Feed),
            (
                "<!DOCTYPE urlset PUBLIC '-//x' 'y' [ <!-- it's ]> --> <?a ]> ?> <!ENTITY a ']>'> %b; ] >\n<urlset>",
                Sitemap,
            ),
        ] {
            assert_eq!(found(head), Ok(format), "{head:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_called_what_it_is() {
        for (head, what) in [
            ("<!DOCTYPE html><html>", "HTML"),
            ("\n<!-- x --><HTML lang=de>", "HTML"),
            (
                "<?xml version='1.0'?><!DOCTYPE html PUBLIC 'x'><html>",
                "HTML",
            ),
            ("<div class=error>", "HTML"),
            ("<?xml version='1.0'?><note>", "`note`"),
            ("<svg xmlns='x'>", "SVG"),
            ("%PDF-1.7\n", "PDF"),
            ("\u{1}\0\0\0\0\u{2}\0\0\0\0\0\0\0\0\0\0\0\0", "binary"),
            ("GIF89a\u{1}\0\u{1}\0\0\0\0", "image/gif"),
        ] {
            assert!(
                found(head).is_err_and(|found| found.contains(what)),
                "{head:?}"
            );
        }
        assert!(
            decide(
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01",
                &Hints::default()
            )
            .is_err()
        );
    }

    #[test]
    fn the_user_then_the_ending_then_the_media_type_come_before_the_bytes() {
        let hints = |format, name: &str, media_type: &str| Hints {
            format,
            name: Some(name.to_owned()),
            media_type: Some(media_type.to_owned()),
            base: None,
        };
        let head = "https://example.org/\n";
        for (format, name, media_type, wanted) in [
            (Some(Text), "a.csv", "text/csv", Text),
            (None, "a.CSV.gz", "application/json", Csv),
            (None, "a.tsv.zst", "", Tsv),
            (None, "a.ndjson", "", Jsonl),
            (None, "list", "text/csv; header=present", Csv),
            (None, "list.php", "application/x-ndjson", Jsonl),
            (None, "a.txt", "text/csv", Text),
            (None, "a.txt", "text/plain", Text),
            (None, "a.TXT.gz", "application/json", Text),
            (None, "a.txt", "application/rss+xml", Text),
            (None, "a.xml", "text/csv", Csv),
            (None, "a.php", "text/csv", Csv),
        ] {
            assert_eq!(
                with(head, &hints(format, name, media_type)),
                Ok(wanted),
                "{name}"
            );
        }
        assert!(with("<html>", &hints(Some(Text), "a.csv", "text/csv")).is_err());
        assert!(with(head, &hints(Some(Sitemap), "", "")).is_err());
        assert!(with("<rss>", &hints(Some(Sitemap), "", "")).is_err());
        assert_eq!(with("<rss>", &hints(None, "a.csv", "")), Ok(Feed));
    }

    #[test]
    fn a_line_is_enough_and_less_is_not() {
        for enough in ["https://a/\n", "#\n", "[", "<rss ", "\n\nx\r"] {
            assert!(is_enough(enough.as_bytes()), "{enough:?}");
        }
        for short in [
            "",
            "\n\n",
            "https://a/",
            "<?xml version='1.0'?>",
            "<rs",
            "<!-- ",
            "<!DOCTYPE rss [<!ENTITY a '>'>",
        ] {
            assert!(!is_enough(short.as_bytes()), "{short:?}");
        }
    }
}
