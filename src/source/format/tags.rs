//! Finds tags in XML that need not be well-formed.
//!
//! An XML parser has to stop at the first fault (XML 1.0, section 1.2), but a feed with a fault often keeps it for
//! weeks. Here a fault extends to the next tag at most, and is counted. quick-xml parses the contents of tags.

use std::io::{self, Read as _};

use quick_xml::events::BytesStart;

use crate::source::decode::Input;
use crate::source::detect::after_doctype;

/// Longest tag, in bytes. A longer one is treated as text.
const MAX_TAG_BYTES: usize = 128 * 1024;

/// Buffer size, in bytes.
const BUFFER_BYTES: usize = 2 * MAX_TAG_BYTES;

/// Longest reference, in bytes. The longest name in HTML is `&CounterClockwiseContourIntegral;`.
pub(super) const MAX_REFERENCE_BYTES: usize = 40;

/// A part of a document.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text as written. Long text comes in several pieces.
    Text(&'a str),
    /// Contents of a CDATA section. Long ones come in several pieces.
    CData(&'a str),
    /// A start tag.
    Start(BytesStart<'a>),
    /// An empty-element tag.
    Empty(BytesStart<'a>),
    /// An end tag, by its name.
    End(&'a str),
}

/// The faults of a document: the first of them, and the number of all.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Option<(u64, String)>,
    count: u64,
}

impl Faults {
    /// Counts a fault in `line`.
    pub(super) fn add(&mut self, line: u64, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(|| (line, what()));
    }

    /// Adds the faults of `others`. The one in the earlier line becomes the first.
    pub(super) fn append(&mut self, others: Self) {
        self.count += others.count;
        self.first = match (self.first.take(), others.first) {
            (Some(one), Some(other)) if other.0 < one.0 => Some(other),
            (one, other) => one.or(other),
        };
    }

    /// Returns a sentence about all faults, or `None` if there are none.
    pub(super) fn summary(&self) -> Option<String> {
        let (line, what) = self.first.as_ref()?;
        let more = match self.count - 1 {
            0 => String::new(),
            1 => ", and one more fault".to_owned(),
            more => format!(", and {more} more faults"),
        };
        Some(format!(
            "it is not well-formed XML (line {line}: {what}{more}); everything else in it is read"
        ))
    }
}

/// Splits a document in UTF-8 into tags and text. Skips comments, declarations and processing instructions.
pub(super) struct Tags {
    input: Input,
    buffer: Box<[u8]>,
    /// `buffer[start..end]` has not been scanned yet.
    start: usize,
    end: usize,
    ended: bool,
    /// The line at `start`.
    line: u64,
    inside: Inside,
    /// Set while a document type declaration may follow.
    may_declare: bool,
    is_within_root: bool,
    /// The construct in which the document broke off.
    unfinished: Option<&'static str>,
    /// Faults so far.
    pub(super) faults: Faults,
}

/// The construct around `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Content,
    Comment,
    CData,
}

impl Tags {
    pub(super) fn new(input: Input) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            ended: false,
            line: 1,
            inside: Inside::Content,
            may_declare: true,
            is_within_root: false,
            unfinished: None,
            faults: Faults::default(),
        }
    }

    /// Returns the line of the next byte, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Tells whether the next piece is within a root element, where a document type declaration is text.
    pub(super) fn set_within_root(&mut self, is_within_root: bool) {
        if self.is_within_root != is_within_root {
            self.is_within_root = is_within_root;
            self.may_declare = !is_within_root;
        }
    }

    /// Returns the construct in which the document broke off, such as `a tag`.
    pub(super) fn unfinished(&self) -> Option<&'static str> {
        self.unfinished
    }

    /// Returns the next piece and the line in which it begins, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Piece<'_>)>> {
        let Some((line, begin, kind)) = self.advance()? else {
            return Ok(None);
        };
        let text = |from: usize, to: usize| {
            std::str::from_utf8(&self.buffer[begin + from..begin + to])
                .expect("the input is UTF-8, and a piece ends with a character")
        };
        let piece = match kind {
            Kind::Nothing => Piece::Text(""),
            Kind::Text(to) => Piece::Text(text(0, to)),
            Kind::CData(to) => Piece::CData(text(0, to)),
            Kind::End(from, to) => Piece::End(text(from, to)),
            Kind::Start(from, to, quote) => start(text(from, to), quote),
        };
        Ok(Some((line, piece)))
    }

    /// Moves past the next piece. Returns its line, its position in the buffer, and its kind.
    fn advance(&mut self) -> io::Result<Option<(u64, usize, Kind)>> {
        loop {
            let rest = &self.buffer[self.start..self.end];
            let found = match scan(rest, self.inside, self.may_declare, self.ended) {
                Scanned::Found(found) => found,
                Scanned::Unfinished(_) if !self.ended => {
                    self.fill()?;
                    continue;
                }
                Scanned::Unfinished(what) => {
                    let is_within = !rest.is_empty() || self.inside != Inside::Content;
                    self.unfinished = is_within.then_some(what);
                    self.start = self.end;
                    self.inside = Inside::Content;
                    return Ok(None);
                }
            };
            let (line, begin) = (self.line, self.start);
            let taken = &rest[..found.length];
            // A document has one declaration, so an endless one is scanned only once.
            self.may_declare &= !begins_doctype(rest);
            self.line += memchr::memchr_iter(b'\n', taken).count() as u64;
            self.start += found.length;
            self.inside = found.inside;
            if let Some(fault) = found.fault {
                self.faults.add(line, || fault.to_owned());
            }
            if found.kind != Kind::Nothing {
                return Ok(Some((line, begin, found.kind)));
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.input.read(&mut self.buffer[self.end..]) {
            Ok(n) => {
                self.end += n;
                self.ended = n == 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Builds a start tag from its content. `quote` is the closing quote missing at its end.
fn start(content: &str, quote: Option<char>) -> Piece<'_> {
    let (content, is_empty) = match content.trim_end().strip_suffix('/') {
        Some(content) => (content, true),
        None => (content, false),
    };
    let name_end = content.find(|c: char| c.is_whitespace() || c == '/');
    let name_end = name_end.unwrap_or(content.len());
    let tag = match quote {
        None => BytesStart::from_content(content, name_end),
        Some(quote) => BytesStart::from_content(format!("{content}{quote}"), name_end),
    };
    match is_empty {
        true => Piece::Empty(tag),
        false => Piece::Start(tag),
    }
}

/// The result of scanning some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scanned {
    Found(Found),
    /// More bytes are needed. At the end of input, the document breaks off in this construct.
    Unfinished(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    kind: Kind,
    /// Length of the whole construct, in bytes.
    length: usize,
    /// The construct around the bytes that follow.
    inside: Inside,
    fault: Option<&'static str>,
}

/// The kind of a piece, with the start and end of its text within the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of a comment, declaration or processing instruction.
    Nothing,
    Text(usize),
    CData(usize),
    /// A start tag, and the closing quote missing at its end.
    Start(usize, usize, Option<char>),
    End(usize, usize),
}

fn found(kind: Kind, length: usize) -> Scanned {
    Scanned::Found(Found {
        kind,
        length,
        inside: Inside::Content,
        fault: None,
    })
}

fn faulty(kind: Kind, length: usize, fault: &'static str) -> Scanned {
    Scanned::Found(Found {
        kind,
        length,
        inside: Inside::Content,
        fault: Some(fault),
    })
}

fn enter(inside: Inside, length: usize) -> Scanned {
    Scanned::Found(Found {
        kind: Kind::Nothing,
        length,
        inside,
        fault: None,
    })
}

/// Scans the construct at the start of `rest`. `ended` means that no bytes follow `rest`.
fn scan(rest: &[u8], inside: Inside, may_declare: bool, ended: bool) -> Scanned {
    match inside {
        Inside::Comment => up_to(rest, b"-->", inside, |_| Kind::Nothing, "a comment"),
        Inside::CData => up_to(rest, b"]]>", inside, Kind::CData, "a CDATA section"),
        Inside::Content if rest.first() == Some(&b'<') => markup(rest, may_declare, ended),
        Inside::Content => text(rest, ended),
    }
}

/// Scans up to `close`, or as much as is in the buffer.
fn up_to(
    rest: &[u8],
    close: &[u8],
    inside: Inside,
    kind: impl Fn(usize) -> Kind,
    name: &'static str,
) -> Scanned {
    if let Some(at) = memchr::memmem::find(rest, close) {
        return found(kind(at), at + close.len());
    }
    match whole_chars(&rest[..rest.len().saturating_sub(close.len() - 1)]) {
        0 => Scanned::Unfinished(name),
        length => Scanned::Found(Found {
            kind: kind(length),
            length,
            inside,
            fault: None,
        }),
    }
}

/// Returns the length of the prefix that consists of whole characters.
fn whole_chars(text: &[u8]) -> usize {
    let is_begin = |byte: &u8| *byte & 0xc0 != 0x80;
    match text.iter().rposition(is_begin) {
        Some(at) if std::str::from_utf8(&text[at..]).is_err() => at,
        _ => text.len(),
    }
}

/// Scans text up to the next tag. Does not split a reference.
fn text(rest: &[u8], ended: bool) -> Scanned {
    if let Some(at) = memchr::memchr(b'<', rest) {
        return found(Kind::Text(at), at);
    }
    let mut length = rest.len();
    if !ended {
        length = whole_chars(rest);
        let tail = length.saturating_sub(MAX_REFERENCE_BYTES);
        if let Some(at) = memchr::memrchr(b'&', &rest[tail..length]) {
            length = tail + at;
        }
    }
    match length {
        0 => Scanned::Unfinished("text"),
        length => found(Kind::Text(length), length),
    }
}

const DOCTYPE: &[u8] = b"<!doctype";

fn begins_doctype(rest: &[u8]) -> bool {
    let begin = rest.get(..DOCTYPE.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(DOCTYPE))
}

/// Scans a construct that begins with `<`.
fn markup(rest: &[u8], may_declare: bool, ended: bool) -> Scanned {
    let is_too_long = rest.len() > MAX_TAG_BYTES;
    let begins = |with: &[u8]| rest.starts_with(with);
    let may_begin = |with: &[u8]| {
        let begin = with.get(..rest.len());
        !ended && begin.is_some_and(|begin| rest.eq_ignore_ascii_case(begin))
    };
    if begins(b"<!--") {
        // `<!-->` is a whole comment in HTML.
        return enter(Inside::Comment, 2);
    }
    if begins(b"<![CDATA[") {
        return enter(Inside::CData, 9);
    }
    if may_declare && begins_doctype(rest) {
        return match after_doctype(rest) {
            Some(after) => found(Kind::Nothing, rest.len() - after.len()),
            None if is_too_long || ended => no_tag(),
            None => Scanned::Unfinished("a declaration"),
        };
    }
    let may_declare = may_declare && may_begin(DOCTYPE);
    if rest.len() == 1 || may_begin(b"<!--") || may_begin(b"<![CDATA[") || may_declare {
        return Scanned::Unfinished("a tag");
    }
    match (rest[1], rest.get(2)) {
        (b'/' | b'?', None) => Scanned::Unfinished("a tag"),
        (b'?', Some(byte)) if begins_name(*byte) => instruction(rest, is_too_long || ended),
        (b'/', Some(byte)) if begins_name(*byte) => end_tag(rest, is_too_long),
        (byte, _) if begins_name(byte) => start_tag(rest, is_too_long, ended),
        _ => no_tag(),
    }
}

fn no_tag() -> Scanned {
    faulty(Kind::Text(1), 1, "a `<` begins no tag")
}

/// Scans a processing instruction. It ends before the next `<`, at `?>` or else at the first `>`. Without either it is
/// text, such as a title about `<?php`.
fn instruction(rest: &[u8], is_whole: bool) -> Scanned {
    let next = memchr::memchr(b'<', &rest[1..]).map(|at| at + 1);
    let before = &rest[..next.unwrap_or(rest.len())];
    let end = memchr::memmem::find(before, b"?>").map(|at| at + 2);
    match end {
        Some(end) => found(Kind::Nothing, end),
        None if next.is_none() && !is_whole => Scanned::Unfinished("an instruction"),
        None => match memchr::memchr(b'>', before) {
            Some(at) => found(Kind::Nothing, at + 1),
            None => no_tag(),
        },
    }
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || !byte.is_ascii()
}

fn end_tag(rest: &[u8], is_too_long: bool) -> Scanned {
    let Some(end) = memchr::memchr2(b'<', b'>', &rest[2..]).map(|at| at + 2) else {
        return match is_too_long {
            true => faulty(Kind::Text(1), 1, "a tag does not end"),
            false => Scanned::Unfinished("a tag"),
        };
    };
    match rest[end] {
        b'>' => found(Kind::End(2, end), end + 1),
        _ => faulty(Kind::End(2, end), end, "a `>` is missing"),
    }
}

fn start_tag(rest: &[u8], is_too_long: bool, ended: bool) -> Scanned {
    // If more markup follows, the document does not merely break off within this tag.
    let is_more = || ended && memchr::memchr(b'<', &rest[1..]).is_some();
    match tag_end(rest) {
        TagEnd::Closed(end) => found(Kind::Start(1, end, None), end + 1),
        TagEnd::Unclosed(end) => faulty(Kind::Start(1, end, None), end, "a `>` is missing"),
        TagEnd::Unquoted(end, quote) => {
            let kind = Kind::Start(1, end, Some(quote));
            faulty(kind, end + 1, "a quote is not closed")
        }
        TagEnd::Open if is_too_long || is_more() => faulty(Kind::Text(1), 1, "a tag does not end"),
        TagEnd::Open => Scanned::Unfinished("a tag"),
    }
}

/// The end of a start tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagEnd {
    /// At the `>` in this position.
    Closed(usize),
    /// Before the `<` in this position; the `>` is missing.
    Unclosed(usize),
    /// At the `>` in this position; this quote is missing before it.
    Unquoted(usize, char),
    /// Not within these bytes.
    Open,
}

fn tag_end(tag: &[u8]) -> TagEnd {
    let mut at = 1;
    let mut is_value = false;
    while let Some(byte) = tag.get(at) {
        match byte {
            b'>' => return TagEnd::Closed(at),
            b'<' => return TagEnd::Unclosed(at),
            // Elsewhere a quote is part of a name or of an unquoted value.
            b'"' | b'\'' if is_value => match value_end(&tag[at + 1..], *byte) {
                ValueEnd::Quote(length) => at += 1 + length,
                ValueEnd::Missing(length) => {
                    return TagEnd::Unquoted(at + 1 + length, (*byte).into());
                }
                ValueEnd::Open => return TagEnd::Open,
            },
            _ => {}
        }
        is_value = tag[at] == b'=' || (is_value && tag[at].is_ascii_whitespace());
        at += 1;
    }
    TagEnd::Open
}

/// The end of a quoted value.
enum ValueEnd {
    /// At the quote in this position.
    Quote(usize),
    /// The quote is missing, and the tag ends at the `>` in this position.
    Missing(usize),
    Open,
}

/// Finds the end of a value. The quote counts as missing if a tag begins after a `>`. Markup within a value, which
/// XML does not allow either, begins with `<` before any `>`.
fn value_end(value: &[u8], quote: u8) -> ValueEnd {
    let (mut tags, mut first) = (0_usize, None);
    for at in memchr::memchr3_iter(quote, b'<', b'>', value) {
        match (value[at], first) {
            (b'<', Some(first)) => return ValueEnd::Missing(first),
            (b'<', None) => tags += 1,
            (b'>', None) if tags == 0 => first = Some(at),
            (b'>', _) => tags = tags.saturating_sub(1),
            _ => return ValueEnd::Quote(at),
        }
    }
    ValueEnd::Open
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Read};

    /// Yields at most `step` bytes at a time.
    struct Dribble(Cursor<Vec<u8>>, usize);

    impl Read for Dribble {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(out.len());
            self.0.read(&mut out[..n])
        }
    }

    /// Returns the pieces of a document, with adjacent text joined, the construct it breaks off in, and the number of
    /// faults.
    fn pieces(document: &str, step: usize) -> (Vec<String>, Option<&'static str>, u64) {
        let input = Dribble(Cursor::new(document.as_bytes().to_vec()), step);
        let mut tags = Tags::new(Box::new(input));
        let mut all: Vec<String> = Vec::new();
        let mut joins = "";
        while let Some((_, piece)) = tags.next().unwrap() {
            let (kind, text) = match piece {
                Piece::Text(text) => ("text", text.to_owned()),
                Piece::CData(text) => ("cdata", text.to_owned()),
                Piece::Start(tag) => ("", format!("<{}>", &*tag)),
                Piece::Empty(tag) => ("", format!("<{}/>", &*tag)),
                Piece::End(name) => ("", format!("</{name}>")),
            };
            match all.last_mut() {
                Some(last) if joins == kind && !kind.is_empty() => last.push_str(&text),
                _ => all.push(text),
            }
            joins = kind;
        }
        all.retain(|piece| !piece.is_empty());
        (all, tags.unfinished(), tags.faults.count)
    }

    #[test]
    fn tags_end_where_the_next_begin_at_the_latest() {
        for (document, wanted, faults) in [
            ("", &[][..], 0),
            ("a<b>c</b>d", &["a", "<b>", "c", "</b>", "d"], 0),
            ("<b x='>'/>", &["<b x='>'/>"], 0),
            ("<b x=\"'\" y='\"'>c", &["<b x=\"'\" y='\"'>", "c"], 0),
            ("<a:b c = 'd'></a:b >", &["<a:b c = 'd'>", "</a:b >"], 0),
            (
                "<?xml version='1.0'>\n<!-- <a> -- --><a>",
                &["\n", "<a>"],
                0,
            ),
            ("<?x a>b ?><!DOCTYPE a [<!ENTITY b '<c>'>]><a>", &["<a>"], 0),
            ("<!doctype a ><a>", &["<a>"], 0),
            ("<?x a><b>", &["<b>"], 0),
            ("<!--><b><!---><c><!----><d>", &["<b>", "<c>", "<d>"], 0),
            ("<?x <b>?>", &["<?x ", "<b>", "?>"], 1),
            ("a<? b</c>", &["a<? b", "</c>"], 1),
            ("a<?b</c>", &["a<?b", "</c>"], 1),
            ("a<?b c", &["a<?b c"], 1),
            ("a<?", &["a"], 0),
            (
                "<! don't <!ENTITY b><![x]></c>",
                &["<! don't <!ENTITY b><![x]>", "</c>"],
                3,
            ),
            (
                "<!DOCTYPE a \"b><a>c</a>",
                &["<!DOCTYPE a \"b>", "<a>", "c", "</a>"],
                1,
            ),
            ("<!DOCTYPE a><!DOCTYPE b><a>", &["<!DOCTYPE b>", "<a>"], 1),
            ("<a x=\"y <b>c</b>", &["<a x=\"y ", "<b>", "c", "</b>"], 1),
            ("<a><![CDATA[<b>&]]]></a>", &["<a>", "<b>&]", "</a>"], 0),
            ("1 < 2 <3 <- </ >x", &["1 < 2 <3 <- </ >x"], 4),
            ("<a <b>c</a", &["<a >", "<b>", "c"], 1),
            ("<a></a <b>", &["<a>", "</a >", "<b>"], 1),
            ("<a it's>b's</a>", &["<a it's>", "b's", "</a>"], 0),
            (
                "<a x=\"y/><b z=\"c\"/>",
                &["<a x=\"y\"/>", "<b z=\"c\"/>"],
                1,
            ),
            ("<a x='y>b</a>", &["<a x='y'>", "b", "</a>"], 1),
            ("<a x=\"<b>y</b>\" z='1'>", &["<a x=\"<b>y</b>\" z='1'>"], 0),
            ("<a x=\"y z=\"1\"/>b", &["<a x=\"y z=\"1\"/>", "b"], 0),
            ("<a x=http://b/c/>", &["<a x=http://b/c/>"], 0),
        ] {
            for step in [1, 2, 5, 1000] {
                let (pieces, _, counted) = pieces(document, step);
                assert_eq!(pieces, wanted, "{document} by {step}");
                assert_eq!(counted, faults, "{document} by {step}");
            }
        }
    }

    #[test]
    fn what_a_document_ends_in_is_known() {
        for (document, wanted) in [
            ("<a>b", None),
            ("<a></a>", None),
            ("<a", Some("a tag")),
            ("<a></a", Some("a tag")),
            ("<a x='", Some("a tag")),
            ("<", Some("a tag")),
            ("<a><!-- b", Some("a comment")),
            ("<a><!--", Some("a comment")),
            ("<a><![CDATA[ b", Some("a CDATA section")),
            ("<?", Some("a tag")),
            ("<!DOCTYPE a", None),
            ("<?a b", None),
        ] {
            for step in [1, 1000] {
                assert_eq!(pieces(document, step).1, wanted, "{document}");
            }
        }
    }

    #[test]
    fn an_endless_tag_is_text_and_the_next_is_read() {
        let long = "x".repeat(3 * BUFFER_BYTES);
        for document in [
            format!("<a y='{long}'/><b/>"),
            format!("<?a {long}?><b/>"),
            format!("<!-- {long} --><b/>"),
            format!("<!DOCTYPE a '{long}'><b/>"),
        ] {
            let (pieces, unfinished, _) = pieces(&document, 1 << 20);
            assert_eq!(pieces.last().map(String::as_str), Some("<b/>"));
            assert_eq!(unfinished, None);
        }
    }

    #[test]
    fn nothing_is_declared_within_a_root() {
        let document = "<!DOCTYPE a><a><!DOCTYPE b></a><!DOCTYPE c>";
        let mut tags = Tags::new(Box::new(Cursor::new(document)));
        let (mut text, mut depth) = (String::new(), 0);
        while let Some((_, piece)) = tags.next().unwrap() {
            match piece {
                Piece::Start(_) => depth += 1,
                Piece::End(_) => depth -= 1,
                Piece::Text(piece) => text.push_str(piece),
                other => panic!("{other:?}"),
            }
            tags.set_within_root(depth > 0);
        }
        assert_eq!((&*text, tags.faults.count), ("<!DOCTYPE b>", 1));
    }

    /// The scan decides at the next `<` at the latest, so its total work is linear.
    #[test]
    fn what_begins_no_tag_is_known_by_the_next_opening() {
        for (opening, enough) in [
            ("<!a", 3),
            ("<!", 3),
            ("<? ", 3),
            ("<?a", 4),
            ("<?a b", 6),
            ("</ ", 3),
            ("<a b", 5),
        ] {
            let document = opening.repeat((1 << 20) / opening.len());
            let bytes = document.as_bytes();
            for may_declare in [true, false] {
                let at_once = scan(&bytes[..enough], Inside::Content, may_declare, false);
                assert!(matches!(at_once, Scanned::Found(_)), "{opening}");
                let whole = scan(bytes, Inside::Content, may_declare, true);
                assert_eq!(at_once, whole, "{opening}");
            }
            assert!(pieces(&document, 1 << 20).2 >= 100_000, "{opening}");
        }
        // A declaration may take more, and is scanned once.
        let document = "<!DOCTYPE".repeat((1 << 20) / 9);
        let (text, _, faults) = pieces(&document, 1 << 20);
        assert_eq!((text.concat(), faults), (document, (1 << 20) / 9));
    }

    #[test]
    fn lines_are_those_in_which_pieces_begin() {
        let document = "<a>\n\n<b\n c='d'/>e\n<!--\n--></a>";
        let mut tags = Tags::new(Box::new(Cursor::new(document)));
        let mut lines = Vec::new();
        while let Some((line, _)) = tags.next().unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [1, 1, 3, 4, 6]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_depend_on_how_a_document_arrives(
            parts in proptest::collection::vec(proptest::sample::select(&[
                "<", ">", "</", "/>", "a", "é", " ", "=", "\"", "'", "&", "amp;", "<!--", "-->", "<![CDATA[", "]]>",
                "<?", "?>", "<!", "[", "]", "\n", "<a b=\"",
            ][..]), 0..40),
            step in 1_usize..9,
        ) {
            let document = parts.concat();
            prop_assert_eq!(pieces(&document, step), pieces(&document, 1 << 20));
        }
    }
}
