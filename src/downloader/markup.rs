//! Tells SVG, HTML and other XML apart by their first tag.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// What a text that begins with `<` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Markup {
    Svg,
    Html,
    Xml,
    /// The head ends before the first tag does.
    Undecided,
    /// No markup at all.
    None,
}

/// Elements that a page without `<html>` may begin with.
const HTML_TAGS: &[&str] = &[
    "html", "head", "title", "meta", "link", "body", "script", "style", "div", "p", "a", "b", "br",
    "h1", "h2", "table", "iframe", "font", "center", "span", "form", "noscript", "base", "img",
    "pre", "frameset",
];

/// Judges `head`.
pub(crate) fn judge(head: &[u8]) -> Markup {
    // A picture's first byte settles it, so that pictures are not looked at twice.
    match head.first() {
        Some(b'<' | b'\t' | b'\n' | b'\r' | 0x0c | b' ' | 0xef | 0xfe | 0xff | 0) => {}
        _ => return Markup::None,
    }
    if head[0] == 0 && head.get(1) != Some(&b'<') || head.starts_with(b"\xff\xd8") {
        return Markup::None;
    }
    let encoding = encoding(head);
    let text: Cow<'_, [u8]> = if encoding == UTF_16LE || encoding == UTF_16BE {
        // Half a character at the end is not yet damage.
        let (text, _) = encoding.decode_with_bom_removal(&head[..head.len() & !1]);
        Cow::Owned(text.into_owned().into_bytes())
    } else {
        Cow::Borrowed(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head))
    };
    first_tag(&text)
}

/// Skips what may stand before the first tag: blanks, declarations, comments, the document type.
fn first_tag(mut rest: &[u8]) -> Markup {
    let mut xml = false;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Markup::Undecided;
        }
        let Some(tag) = rest.strip_prefix(b"<") else {
            return Markup::None;
        };
        let behind = if let Some(comment) = tag.strip_prefix(b"!--") {
            find(comment, b"-->")
        } else if let Some(instruction) = tag.strip_prefix(b"?") {
            xml |= starts(instruction, "xml");
            find(instruction, b"?>")
        } else if tag.starts_with(b"!") {
            if starts(tag, "!doctype html")
                && !(xml && tag_name(tag, 9).eq_ignore_ascii_case(b"svg"))
            {
                return Markup::Html;
            }
            if "!doctype html".len() > tag.len()
                && starts(b"!doctype html", &String::from_utf8_lossy(tag))
            {
                return Markup::Undecided;
            }
            end_of_doctype(tag)
        } else {
            return named(tag, xml);
        };
        match behind {
            Some(behind) => rest = behind,
            None => return Markup::Undecided,
        }
    }
}

/// Judges by the name of the first tag, which begins `tag`.
fn named(tag: &[u8], xml: bool) -> Markup {
    let name = tag_name(tag, 0);
    if name.is_empty() {
        return if tag.is_empty() {
            Markup::Undecided
        } else {
            Markup::None
        };
    }
    if name.len() == tag.len() {
        return if name.len() > 100 {
            Markup::None
        } else {
            Markup::Undecided
        };
    }
    let local = name.rsplit(|b| *b == b':').next().unwrap_or(name);
    if local == b"svg" {
        return Markup::Svg;
    }
    let html = HTML_TAGS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    match (html, xml) {
        (true, false) => Markup::Html,
        (true, true) if name.eq_ignore_ascii_case(b"html") => Markup::Html,
        _ => Markup::Xml,
    }
}

fn tag_name(tag: &[u8], from: usize) -> &[u8] {
    let tag = tag.get(from..).unwrap_or_default();
    // Names do not begin with a digit or a mark (XML 1.0, section 2.3).
    if tag
        .first()
        .is_some_and(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    {
        return &[];
    }
    let end = tag.iter().position(|b| {
        !(b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.') || *b >= 0x80)
    });
    &tag[..end.unwrap_or(tag.len())]
}

fn starts(text: &[u8], prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn find<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    memchr::memmem::find(text, end).map(|at| &text[at + end.len()..])
}

/// What follows the `>` of a document type, its internal subset included.
fn end_of_doctype(text: &[u8]) -> Option<&[u8]> {
    let (mut quote, mut depth) = (None, 0_usize);
    let mut at = 0;
    while at < text.len() {
        match (quote, text[at]) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, b'<') if text[at..].starts_with(b"<!--") => {
                at += 4 + memchr::memmem::find(&text[at + 4..], b"-->")? + 2;
            }
            (None, b'"' | b'\'') => quote = Some(text[at]),
            (None, b'[' | b'<') => depth += 1,
            (None, b']') => depth = depth.saturating_sub(1),
            (None, b'>') if depth == 0 => return Some(&text[at + 1..]),
            (None, b'>') => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The encoding of the text that begins with `head`: by its byte order mark, by how its first `<` is
/// written, or as its XML declaration says (XML 1.0, appendix F).
pub(crate) fn encoding(head: &[u8]) -> &'static Encoding {
    if let Some((encoding, _)) = Encoding::for_bom(head) {
        return encoding;
    }
    match head {
        [b'<', 0, ..] => return UTF_16LE,
        [0, b'<', ..] => return UTF_16BE,
        _ => {}
    }
    let start = &head[..head.len().min(1024)];
    let declared = start
        .trim_ascii_start()
        .strip_prefix(b"<?xml")
        .and_then(|rest| rest.get(..memchr::memmem::find(rest, b"?>")?))
        .and_then(|declaration| {
            let at = memchr::memmem::find(declaration, b"encoding")?;
            let rest = declaration[at + 8..]
                .trim_ascii_start()
                .strip_prefix(b"=")?
                .trim_ascii_start();
            let quote = *rest.first().filter(|b| matches!(b, b'"' | b'\''))?;
            let label = &rest[1..];
            Encoding::for_label(&label[..memchr::memchr(quote, label)?])
        });
    match declared {
        // What could be read as ASCII so far is no UTF-16.
        Some(encoding) if encoding != UTF_16LE && encoding != UTF_16BE => encoding,
        _ => UTF_8,
    }
}

/// Whether `head` looks like text: no control characters besides blanks, and mostly valid UTF-8.
pub(crate) fn is_text(head: &[u8]) -> bool {
    let head = &head[..head.len().min(1024)];
    let control = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    if head.is_empty() || Encoding::for_bom(head).is_none() && head.iter().any(control) {
        return false;
    }
    match std::str::from_utf8(head) {
        Ok(_) => true,
        // The head may end within a character.
        Err(error) => error.error_len().is_none() || Encoding::for_bom(head).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, big: bool, bom: bool) -> Vec<u8> {
        let text = if bom {
            format!("\u{feff}{}", text.trim_start_matches('\u{feff}'))
        } else {
            text.to_owned()
        };
        text.encode_utf16()
            .flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    }

    #[test]
    fn the_first_tag_tells() {
        let long = format!("<!-- {} --><svg xmlns='x'>", "svg html > ".repeat(3000));
        for svg in [
            "<svg>",
            "<svg xmlns=",
            "\u{feff}<svg ",
            " \r\n\t<svg/>",
            "<?xml version='1.0'?>\n<!-- <html> -->\n<svg:svg xmlns:svg='x'>",
            "<!DOCTYPE svg PUBLIC '>' [<!ENTITY a '>'> <!-- ] > ' --> ]><svg>",
            &long,
        ] {
            assert_eq!(judge(svg.as_bytes()), Markup::Svg, "{svg}");
            for (big, bom) in [(true, true), (false, true), (true, false), (false, false)] {
                // Without a mark, the first character has to be a `<`.
                if bom || svg.starts_with('<') {
                    assert_eq!(
                        judge(&utf16(svg, big, bom)),
                        Markup::Svg,
                        "{svg} {big} {bom}"
                    );
                }
            }
        }
        for html in [
            "<!doctype html><svg>",
            "<!DOCTYPE HTML PUBLIC",
            "<html>",
            "<HTML lang",
            " <!-- x --><Body ",
            "<?xml version='1.0'?><!DOCTYPE html PUBLIC",
            "<?xml version='1.0'?><html xmlns",
            "<script>",
            "<div class=",
        ] {
            assert_eq!(judge(html.as_bytes()), Markup::Html, "{html}");
        }
        for xml in [
            "<?xml version='1.0'?><rss>",
            "<Error>",
            "<?xml version='1.0'?><a ",
        ] {
            assert_eq!(judge(xml.as_bytes()), Markup::Xml, "{xml}");
        }
        for other in ["", "text", "{}", "< b", "<3", "\u{0}\u{0}\u{1}"] {
            assert_eq!(judge(other.as_bytes()), Markup::None, "{other}");
        }
        for open in [
            "<",
            "<s",
            "<svg",
            "<!",
            "<!DOCTYPE",
            "<!DOCTYPE ht",
            "<!-- <svg> ",
            "<?xml ",
            "  ",
            "<!DOCTYPE svg [ <!ENTITY",
        ] {
            assert_eq!(judge(open.as_bytes()), Markup::Undecided, "{open}");
        }
    }

    #[test]
    fn an_encoding_is_found_by_mark_pattern_or_declaration() {
        assert_eq!(encoding(b"<svg/>"), UTF_8);
        assert_eq!(
            encoding(b"<?xml version='1.0' encoding = 'ISO-8859-1' ?>").name(),
            "windows-1252"
        );
        assert_eq!(
            encoding(b"<?xml version=\"1.0\" encoding=\"shift_jis\"?>").name(),
            "Shift_JIS"
        );
        assert_eq!(encoding(b"<?xml version='1.0' encoding='UTF-16'?>"), UTF_8);
        assert_eq!(encoding(b"<?xml version='1.0' encoding='no-such'?>"), UTF_8);
        assert_eq!(encoding(b"\xfe\xff\0<"), UTF_16BE);
    }
}
