//! Which format a list has, and whether it is a list at all.

use std::borrow::Cow;

use url::Url;

use crate::source::address::{begins_url, has_prefix};
use crate::source::error::Stop;
use crate::source::row::Column;
use crate::source::{ListEncoding, ListFormat};

/// Bytes that are looked at, at most.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Length of the prefix in which control characters are counted, in bytes.
const BINARY_BYTES: usize = 4096;

/// Length of the prefix of a binary file in which bytes that are not text are expected.
const SIGNATURE_BYTES: usize = 128;

/// What is known of a list besides its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// What the user says.
    pub(super) format: Option<ListFormat>,
    /// Encoding given by the user.
    pub(super) encoding: Option<ListEncoding>,
    /// Longest text after decompression. `None` means no limit.
    pub(super) max_bytes: Option<u64>,
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
    let name = [".gz", ".gzip", ".zst", ".zstd", ".xz", ".bz2", ".bzip2"]
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

/// Returns a media type in lower case, without its parameters.
fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn by_media_type(media_type: &str) -> Option<ListFormat> {
    match essence(media_type).as_str() {
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

/// Returns `true` if more bytes cannot change what [`decide`] says: `head` contains a root element, a part of a page, or
/// a whole line of a list.
pub(super) fn is_enough(head: &[u8]) -> bool {
    let text = trimmed(head);
    match seek_root(text, false) {
        Some(Sought::Root(_) | Sought::Plain) => true,
        // A text that is no markup, such as `<<html>`, is judged by its first line.
        Some(Sought::Page) => !matches!(markup(text), Markup::None | Markup::Unclear),
        None => false,
    }
}

/// Decides the format by the user's choice, then by name and media type, then by the first bytes. `head` is UTF-8.
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

/// Skips white space and byte order marks.
fn trimmed(head: &[u8]) -> &[u8] {
    let mut text = head.trim_ascii_start();
    while let Some(rest) = text.strip_prefix(b"\xef\xbb\xbf") {
        text = rest.trim_ascii_start();
    }
    text
}

/// What the beginning of a text shows.
#[derive(Debug, PartialEq, Eq)]
enum Sought {
    /// The root element of a list.
    Root(ListFormat),
    /// A line of a list in another format than XML.
    Plain,
    /// An element that only HTML pages have. Whatever follows belongs to the page.
    Page,
}

/// Looks for the root element of a list. Other text may come before its declaration or root, because scripts print
/// warnings there. Unless `text` `is_whole`, the search ends at the first construct that is incomplete.
fn seek_root(text: &[u8], is_whole: bool) -> Option<Sought> {
    match markup(text) {
        Markup::List(format) => return Some(Sought::Root(format)),
        Markup::Unclear if !is_whole => return None,
        _ => {}
    }
    let mut plain = plain_line(text, 0);
    let mut is_declared = false;
    let mut begin = 0;
    loop {
        let found = memchr::memchr(b'<', &text[begin..]).map(|at| begin + at);
        if plain.is_some_and(|at| at < begin) {
            plain = plain_line(text, begin);
        }
        let at = match (found, plain) {
            (Some(at), None) => at,
            (Some(at), Some(plain)) if at < plain => at,
            (_, plain) => {
                let line = &text[plain?..];
                let is_line = is_json(line) || memchr::memchr2(b'\n', b'\r', line).is_some();
                return (is_whole || is_line).then_some(Sought::Plain);
            }
        };
        let rest = &text[at..];
        begin = at + 1;
        if rest.starts_with(b"<!--") {
            begin = at + memchr::memmem::find(rest, b"-->")? + 2;
        } else if is_page(rest) {
            return Some(Sought::Page);
        } else if rest.starts_with(b"<?xml") && !is_declared {
            is_declared = true;
            match markup(rest) {
                Markup::List(format) => return Some(Sought::Root(format)),
                Markup::Unclear if !is_whole => return None,
                _ => {}
            }
        } else if at == 0 || b"\r\n>".contains(&text[at - 1]) {
            // An incomplete name may become that of a root.
            match named(rest) {
                Some((name, _)) => {
                    if let Some(format) = by_root(&name) {
                        return Some(Sought::Root(format));
                    }
                }
                None if !is_whole => return None,
                None => {}
            }
        }
    }
}

/// Returns `true` if `text` begins with an element of HTML pages that scripts do not print in warnings.
fn is_page(text: &[u8]) -> bool {
    const PARTS: [&str; 4] = ["html", "head", "body", "title"];
    let is_part = |name: &str| PARTS.iter().any(|part| part.eq_ignore_ascii_case(name));
    is_html_doctype(text) || named(text).is_some_and(|(name, _)| is_part(&name))
}

fn is_html_doctype(text: &[u8]) -> bool {
    const DOCTYPE: &[u8] = b"<!doctype html";
    let begin = text.get(..DOCTYPE.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(DOCTYPE))
}

/// Returns the offset of the first line, from `begin` on, that only a list in another format than XML has: a header, a
/// row with a URL, JSON.
fn plain_line(text: &[u8], mut begin: usize) -> Option<usize> {
    if begin == 0 && is_json(text) {
        return Some(0);
    }
    while begin < text.len() {
        let line = &text[begin..];
        let line = memchr::memchr2(b'\n', b'\r', line).map_or(line, |end| &line[..end]);
        // The rest of the line belongs to its first tag.
        let is_tag = |at: &usize| {
            let begin = &line[*at..line.len().min(*at + 32)];
            !begins_url(&String::from_utf8_lossy(begin))
        };
        let tag = memchr::memchr_iter(b'<', line).find(is_tag);
        let plain = tag.map_or(line, |tag| &line[..tag]);
        let has_url = plain
            .split(|byte| b"\t,;".contains(byte))
            .any(|cell| begins_url(&String::from_utf8_lossy(cell)));
        // Lines of a log begin with a time in brackets.
        let may_be_header = begin == 0 && !plain.is_empty() && plain[0] != b'[';
        let is_header = || by_first_line(plain) != ListFormat::Text || is_json_string(plain);
        if has_url || (may_be_header && is_header()) {
            return Some(begin);
        }
        begin += line.len() + 1;
    }
    None
}

/// Returns `true` if `text` begins with a JSON object, or an array of objects, strings or arrays.
fn is_json(text: &[u8]) -> bool {
    match text {
        [b'{', ..] => true,
        [b'[', inner @ ..] => matches!(inner.trim_ascii_start(), [b'{' | b'"' | b'[' | b']', ..]),
        _ => false,
    }
}

/// Returns `true` if a line is a JSON string, such as a URL with escaped slashes. Lines out of an array end with commas.
fn is_json_string(line: &[u8]) -> bool {
    let value = line.trim_ascii();
    let value = value.strip_suffix(b",").unwrap_or(value);
    value.starts_with(b"\"") && serde_json::from_slice::<String>(value).is_ok()
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
    let found = match seek_root(text, true) {
        Some(Sought::Root(format)) => Markup::List(format),
        _ => markup(text),
    };
    match found {
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
        Markup::Other(root) if root == "svg" => Err(Stop::not_a_list("an SVG picture", ITSELF)),
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
            // Values in a declaration contain no `>`. Some declarations lack the final `?`.
            [b'<', b'?', b'x', b'm', b'l', ..] => b">",
            [b'<', b'?', ..] => b"?>",
            [b'<', b'!', ..] => {
                if is_html_doctype(rest) {
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
    let Some((name, after)) = named(rest) else {
        return Markup::Unclear;
    };
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

/// Returns the name of the tag that `text` begins with, and the text after it. `None` if the name does not end.
fn named(text: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let name_end = text[1..]
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b":_-.".contains(byte)))?;
    let (name, after) = text[1..].split_at(name_end);
    Some((String::from_utf8_lossy(name), after))
}

/// What follows a document type declaration, whose internal subset (XML 1.0, section 2.8) may hold `>`; `None` where
/// it does not end.
pub(super) fn after_doctype(text: &[u8]) -> Option<&[u8]> {
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

/// Returns the format of a list with a root element of that name, in any case.
pub(super) fn by_root(name: &str) -> Option<ListFormat> {
    let local = name.rsplit(':').next().unwrap_or(name);
    match local.to_ascii_lowercase().as_str() {
        "urlset" | "sitemapindex" => Some(ListFormat::Sitemap),
        "rss" | "feed" | "rdf" | "channel" => Some(ListFormat::Feed),
        _ => None,
    }
}

fn root(name: &str, xml: bool) -> Markup {
    const HTML: [&str; 40] = [
        "html", "head", "body", "title", "meta", "link", "script", "style", "base", "div", "p",
        "a", "img", "span", "table", "h1", "h2", "h3", "h4", "br", "form", "center", "font",
        "iframe", "noscript", "b", "i", "em", "strong", "pre", "code", "ul", "ol", "li", "dl",
        "main", "section", "nav", "frameset", "hr",
    ];
    if let Some(format) = by_root(name) {
        return Markup::List(format);
    }
    let local = name.rsplit(':').next().unwrap_or(name);
    match local {
        _ if HTML.iter().any(|html| html.eq_ignore_ascii_case(local)) => Markup::Html,
        _ if xml || local.eq_ignore_ascii_case("svg") => {
            Markup::Other(local.chars().take(40).collect())
        }
        _ => Markup::None,
    }
}

/// Advice where a file stands in place of a list.
const ITSELF: &str = "to fetch files themselves, give their URLs with `-u` (`--url`), or in a list";

const ADVICE: &str = "lists are text, CSV, TSV, JSON Lines, sitemaps or feeds, plain or compressed with gzip, zstd, xz or bzip2";

/// Refuses pictures, archives and documents by their signatures. `head` is undecoded, and not in UTF-16.
///
/// A small archive may store its lists uncompressed, so URLs in it prove nothing.
pub(super) fn refuse_signature(head: &[u8]) -> Result<(), Stop> {
    if head.starts_with(b"%PDF-") {
        return Err(Stop::not_a_list("a PDF document", ITSELF));
    }
    // Signatures such as `BM` may begin a text. A real file of such a format soon has bytes that are not text.
    let start = &head[..head.len().min(SIGNATURE_BYTES)];
    if !start.iter().any(|byte| is_control((*byte).into())) {
        return Ok(());
    }
    match infer::get(head) {
        Some(kind) if kind.matcher_type() == infer::MatcherType::Image => Err(Stop::not_a_list(
            format!("a picture ({})", kind.mime_type()),
            ITSELF,
        )),
        Some(kind) if kind.matcher_type() != infer::MatcherType::Text => Err(Stop::not_a_list(
            format!("a file of type {}", kind.mime_type()),
            ADVICE,
        )),
        _ => Ok(()),
    }
}

/// Refuses binary data by its control characters. Its bytes may otherwise be characters of some encoding.
fn refuse_binary(text: &[u8]) -> Result<(), Stop> {
    let binary = || Err(Stop::not_a_list("binary data", ADVICE));
    let text = &text[..text.len().min(BINARY_BYTES)];
    let line = memchr::memchr2(b'\n', b'\r', text).map_or(text, |end| &text[..end]);
    if memchr::memmem::find(line, &[0; 16]).is_some() {
        return binary();
    }
    // Somebody who writes a URL means a list, whatever else stands there.
    if memchr::memmem::find(text, b"http://").is_some_and(|at| begins_line(text, at))
        || memchr::memmem::find(text, b"https://").is_some_and(|at| begins_line(text, at))
    {
        return Ok(());
    }
    let (mut chars, mut controls) = (0, 0);
    for c in String::from_utf8_lossy(text).chars() {
        chars += 1;
        controls += usize::from(is_control(c));
    }
    // In random bytes, one character in eight is a control character.
    if chars >= 16 && controls >= 3 && controls * 25 > chars {
        return binary();
    }
    Ok(())
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn begins_line(text: &[u8], at: usize) -> bool {
    at == 0 || b"\n\r \t\"'<,;".contains(&text[at - 1])
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
    // A text may quote some of its URLs, so a string alone does not show JSON Lines.
    ListFormat::Text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ListFormat::{Csv, Feed, Jsonl, Sitemap, Text, Tsv};
    use proptest::prelude::*;

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
            ("\"https://example.org/\"\n", Text),
            ("\"https:\\/\\/example.org\\/\",\r\n", Text),
            ("\"https://example.org/\", a caption\n", Text),
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
            ("<b>Warning</b>: no such file", "HTML"),
            ("<html><!--\n<rdf:RDF xmlns='x'>\n-->", "HTML"),
            (
                "<div>\n<!--\n<rdf:RDF xmlns='x'>\n--><title>Log in</title>",
                "HTML",
            ),
            ("<br>\n<HTML>\n<pre>\n<rss>", "HTML"),
            ("<body>\n<feed>", "HTML"),
            ("<p>\n<title>x</title>\n<channel>", "HTML"),
            (
                "<p><!doctype html PUBLIC 'x'><?xml version='1.0'?><rss>",
                "HTML",
            ),
            ("<html><script>'<?xml version=\"1.0\"?><rss>'", "HTML"),
            ("<p><!--\n<rss>", "HTML"),
            ("\u{1}\0\0\0\0\u{2}\0\0\0\0\0\0\0\0\0\0\0\0", "binary"),
            // An archive in the oldest format of tar.
            (
                "list.txt\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0http://a/\nhttp://b/\n",
                "binary",
            ),
        ] {
            assert!(
                found(head).is_err_and(|found| found.contains(what)),
                "{head:?}"
            );
        }
    }

    #[test]
    fn signatures_go_before_urls() {
        let urls = "http://a.example/1\nhttp://a.example/2\n";
        let zip = format!("PK\u{3}\u{4}\u{14}\0\0\0\0\0list.txt{urls}");
        let seven_zip = [b"7z\xbc\xaf\x27\x1c\0\x04", urls.as_bytes()].concat();
        for (head, what) in [
            (&b"%PDF-1.7\n"[..], "PDF"),
            (b"GIF89a\x01\0\x01\0\0\0\0", "image/gif"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01", "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg"),
            (zip.as_bytes(), "zip"),
            (&seven_zip, "7z"),
        ] {
            let refused = refuse_signature(head);
            assert!(
                matches!(&refused, Err(Stop::NotAList { what: found, .. }) if found.contains(what)),
                "{refused:?}"
            );
        }
        for text in [
            "BMW,url\n",
            "MZ\n",
            urls,
            "",
            "GIF89a of a cat\n",
            "a\0b\nhttp://a/",
        ] {
            assert!(refuse_signature(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_stands_before_a_root_is_passed_over() {
        for (head, format) in [
            ("\u{feff}\n\u{feff}<?xml version='1.0'?><rss>", Feed),
            (
                "Warning: x in y.php\n<?xml version='1.0'?>\n<urlset>",
                Sitemap,
            ),
            ("x<?xml version='1.0'><!-- > --><feed>", Feed),
            ("<br />\n<b>Warning</b>: x<br />\n<rss version='2.0'>", Feed),
            ("x\n<sitemapindex>", Sitemap),
            ("<URLSET>", Sitemap),
            ("<!-- <rss> --><br /><!-- -->\n<!-- a --><urlset>", Sitemap),
            (
                "Warning: x\n<?xml version='1.0'?><!DOCTYPE rss PUBLIC 'x'\n\"http://a/\"\n><rss>",
                Feed,
            ),
            ("<p><!--\nhttps://a/\n--><rss>", Feed),
            ("<!-- a -->Warning: x\n<?xml version='1.0'?><rss>", Feed),
            ("[01-Jan-2026 10:00:00 UTC] PHP Warning: x\n<rss>", Feed),
        ] {
            assert_eq!(found(head), Ok(format), "{head:?}");
        }
        // Text that mentions XML is not XML.
        assert_eq!(found("# <rss>\nhttps://a.example/"), Ok(Text));
        for (head, format) in [
            ("https://a.example/ <p>\n<rss>\n", Text),
            ("url,html\nhttps://a.example/,\"<p>\n<rss>\"", Csv),
            (
                "{\"url\": \"https://a.example/\", \"html\": \"<p><rss>\"}",
                Jsonl,
            ),
            ("[\n\"<?xml version='1.0'?><rss>\"]", Jsonl),
        ] {
            assert_eq!(found(head), Ok(format), "{head:?}");
        }
        assert!(found("<html><p>&lt;rss></p>").is_err());
    }

    #[test]
    fn the_user_then_the_ending_then_the_media_type_come_before_the_bytes() {
        let hints = |format, name: &str, media_type: &str| Hints {
            format,
            name: Some(name.to_owned()),
            media_type: Some(media_type.to_owned()),
            ..Hints::default()
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
    fn a_line_with_a_url_is_enough_and_less_is_not() {
        for enough in [
            "https://a/\n",
            "# a\n\n 'https://a/',\n",
            "<https://a/>\n",
            "1;https://a/\n",
            "url\n",
            "name\turl\r",
            "\"https:\\/\\/a\"\n",
            "[\n {",
            "[\"",
            "{",
            "<rss ",
            "Warning: x\n<rss ",
            "<html>",
            "<p>\n<!doctype html>",
        ] {
            assert!(is_enough(enough.as_bytes()), "{enough:?}");
        }
        for short in [
            "",
            "\n\n",
            "#\n",
            "[",
            "[01-Jan-2026]\n",
            "https://a/",
            "Warning: x\n",
            "<br />\n<b>Warning</b>: x\n",
            "<?xml version='1.0'?>",
            "<!DOCTYPE rss PUBLIC 'x'\n\"http://a/\"\n",
            "Warning: x\n<?xml version='1.0'?><!DOCTYPE rss PUBLIC 'x'\n\"http://a/\"\n",
            "<p><!--\nhttps://a/\n",
            "Warning: x\n<?xml version='1.0'?>",
            "<rs",
            "<!-- ",
            "<!DOCTYPE rss [<!ENTITY a '>'>",
            "<<html>",
        ] {
            assert!(!is_enough(short.as_bytes()), "{short:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_enough_decides_as_the_whole_does(
            parts in proptest::collection::vec(proptest::sample::select(&[
                "<", ">", "<br />", "<p>", "<!--", "-->", "<?xml version='1.0'?>", "<?xml", "<!DOCTYPE rss>", "<rss>",
                "<urlset>", "<html>", "<title>", "<!doctype html>", "Warning: x", "\n", "\r\n", " ", ",", ";", "#", "[",
                "]", "{", "\"", "'", "https://a.example/", "url", "name", "\u{feff}",
            ][..]), 0..30),
        ) {
            let whole = parts.concat();
            let cut = (0..whole.len()).find(|at| is_enough(&whole.as_bytes()[..*at]));
            if let Some(cut) = cut {
                let decided = |bytes: &[u8]| decide(bytes, &Hints::default()).map_err(|stop| stop.to_string());
                let whole = whole.as_bytes();
                prop_assert_eq!(decided(&whole[..cut]), decided(whole));
            }
        }
    }
}
