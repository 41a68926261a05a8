//! Pieces of HTML from text that may be hostile.

use std::fmt::Write as _;
use std::path::{Component, Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use quick_xml::escape::escape;

use crate::job::report::{clean, host_of};

/// Most characters of a URL or detail.
const MAX_CHARS: usize = 500;
/// Longest URL that is linked to: what common servers accept. A cut one would lead elsewhere.
const MAX_LINK: usize = 8_000;
/// Bytes that stand for themselves in a path segment (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The way to a folder, percent-encoded, with a `/` at its end. What follows it cannot be read as a
/// scheme or a host.
pub(super) fn folder(path: &Path) -> String {
    let mut way = String::from(if path.is_absolute() { "/" } else { "./" });
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => way.push_str("../"),
            Component::Normal(name) => {
                let _ = write!(way, "{}/", percent_encode(name.as_encoded_bytes(), SEGMENT));
            }
        }
    }
    way
}

/// The way to a file below `folder`. Each segment is encoded by itself, so none becomes a query or a
/// way up.
pub(super) fn file(folder: &str, path: &str) -> String {
    let mut way = folder.to_owned();
    let segments = path.split('/').filter(|s| !matches!(*s, "" | "." | ".."));
    for (n, segment) in segments.enumerate() {
        let slash = if n == 0 { "" } else { "/" };
        let _ = write!(
            way,
            "{slash}{}",
            percent_encode(segment.as_bytes(), SEGMENT)
        );
    }
    way
}

/// A list of short texts, each with the class that colours it.
pub(super) fn chips(chips: &[(&str, String)]) -> String {
    let mut list = String::from("<ul class=\"chips\" aria-label=\"outcome\">");
    for (class, text) in chips {
        let _ = write!(list, "<li class=\"{class}\">{text}</li>");
    }
    list.push_str("</ul>");
    list
}

/// `text`, which may be hostile, as it can stand between tags and in quoted attributes.
pub(super) fn html(text: &str) -> String {
    escape(clean(text, MAX_CHARS)).into_owned()
}

/// Text between backticks, of which `text` has an even number, as code.
pub(super) fn code_spans(text: &str) -> String {
    let mut spans = String::new();
    for (n, part) in text.split('`').enumerate() {
        let _ = if n % 2 == 0 {
            write!(spans, "{part}")
        } else {
            write!(spans, "<code>{part}</code>")
        };
    }
    spans
}

/// A link to `url` that shows all of it.
pub(super) fn link(url: &str) -> String {
    anchor(url, &html(url))
}

/// A link to `url` that shows its host.
pub(super) fn source(url: &str) -> String {
    match host_of(url) {
        Some(host) => format!("from {}", anchor(url, &html(&host))),
        None => html(url),
    }
}

/// Only http and https are linked to: `javascript:` and its like would run.
fn anchor(url: &str, text: &str) -> String {
    let safe = url.starts_with("http://") || url.starts_with("https://");
    if !safe || url.len() > MAX_LINK {
        return format!("<bdi>{text}</bdi>");
    }
    let href = escape(clean(url, MAX_LINK)).into_owned();
    format!(r#"<a href="{href}" rel="noopener noreferrer nofollow"><bdi>{text}</bdi></a>"#)
}
