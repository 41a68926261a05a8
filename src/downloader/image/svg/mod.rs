//! SVG: well-formed XML (W3C XML 1.0) with an `svg` root, read once in bounded memory; SVGZ is the same inside gzip.
//!
//! Found on the way: the size, and whether the file is `active`, which means that a browser may run code
//! from it. Nothing is expanded or fetched: a document type may declare short plain entities, as exports of
//! Adobe Illustrator do, and nothing else that another parser could be led astray by.

mod draw;
mod dtd;
mod handlers;
mod packed;
mod size;
mod text;

use std::io::{BufRead, BufReader, Cursor, Read as _};
use std::str;

use encoding_rs::UTF_8;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use self::dtd::Entities;
use self::handlers::is_handler;
use self::packed::Unpacked;
use self::text::Utf8Reader;
use super::Picture;
use crate::downloader::window::{Window, corrupt, unreadable};
use crate::downloader::{Body, Rejection, markup};
use crate::target::Reason;

pub(super) use self::draw::draw;
pub(crate) use self::packed::unpack_head;

/// Bytes in which the encoding of a text shows.
const ENCODING: usize = 1024;

/// Deepest nesting of elements. Deeper ones exist to exhaust the stack of a renderer.
const MAX_DEPTH: usize = 1024;

pub(super) fn inspect(window: &mut Window<'_>) -> Result<Picture, Rejection> {
    let mut document = Document::default();
    let head = window.up_to(0, ENCODING)?;
    let encoding = markup::encoding(head);
    let plain = if encoding == UTF_8 {
        window.body().as_slice()
    } else {
        None
    };
    if window.is_prefix() {
        return check_prefix(plain.unwrap_or_default());
    }
    if let Some(bytes) = plain {
        let text = str::from_utf8(bytes)
            .map_err(|error| corrupt(format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        configure(reader.config_mut());
        while document.take(
            reader
                .read_event()
                .map_err(|e| damaged(&e, reader.error_position()))?,
        )? {}
    } else {
        document.read(Utf8Reader::new(window.body().reader(), encoding))?;
    }
    document.finish()
}

/// Checks an SVGZ. `max_bytes` bounds the text inside it.
pub(super) fn inspect_packed(
    window: &mut Window<'_>,
    max_bytes: u64,
) -> Result<Picture, Rejection> {
    if window.is_prefix() {
        return Ok(Picture {
            dimensions: None,
            active: false,
        });
    }
    let mut unpacked = Unpacked::new(window.body().reader(), max_bytes);
    let mut head = Vec::new();
    let read = unpacked.by_ref().take(ENCODING as u64);
    { read }
        .read_to_end(&mut head)
        .map_err(|error| unpacking(&error))?;
    let encoding = markup::encoding(&head);
    let whole = BufReader::new(Cursor::new(head).chain(unpacked));
    let mut document = Document::default();
    document.read(Utf8Reader::new(whole, encoding))?;
    document.finish()
}

/// The document as UTF-8, unpacked from gzip if `packed`, of at most `max_bytes`.
pub(super) fn text(body: &Body, packed: bool, max_bytes: u64) -> Result<String, Rejection> {
    let mut bytes = Vec::new();
    let read = match packed {
        true => Unpacked::new(body.reader(), max_bytes).read_to_end(&mut bytes),
        false if body.len() > max_bytes => {
            return Err(corrupt(format!("has more than {max_bytes} bytes")));
        }
        false => body.reader().read_to_end(&mut bytes),
    };
    read.map_err(|error| unpacking(&error))?;
    let encoding = markup::encoding(&bytes);
    let (text, _) = encoding.decode_with_bom_removal(&bytes);
    Ok(text.into_owned())
}

fn unpacking(error: &std::io::Error) -> Rejection {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Rejection>());
    inner.cloned().unwrap_or_else(|| unreadable(error))
}

/// Checks the beginning of a document for damage. Accepts anything that is not in memory as UTF-8.
fn check_prefix(bytes: &[u8]) -> Result<Picture, Rejection> {
    // Up to this byte, no text and no reference is cut off. The text after it is checked by its bytes alone.
    let end = memchr::memrchr(b'>', bytes).map_or(0, |at| at + 1);
    let text = str::from_utf8(&bytes[..end])
        .map_err(|error| corrupt(format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    configure(reader.config_mut());
    let mut document = Document::default();
    let is_in_markup = loop {
        match reader.read_event() {
            Ok(Event::Eof) => break false,
            Ok(event) => document.take(event)?,
            // Markup that is not closed yet.
            Err(quick_xml::Error::Syntax(_)) => break true,
            Err(error) => return Err(damaged(&error, reader.error_position())),
        };
    };
    let rest = &bytes[end..];
    let rest = match str::from_utf8(rest) {
        Ok(rest) => rest,
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            let at = end + error.valid_up_to();
            return Err(corrupt(format!("is not UTF-8 at byte {at}")));
        }
    };
    if !is_in_markup {
        let text = rest.split('<').next().unwrap_or_default();
        no_control_characters(text)?;
    }
    Ok(Picture {
        dimensions: None,
        active: false,
    })
}

fn configure(config: &mut quick_xml::reader::Config) {
    config.check_end_names = true;
    config.check_comments = false;
    config.allow_dangling_amp = false;
}

fn damaged(error: &quick_xml::Error, position: u64) -> Rejection {
    match error {
        quick_xml::Error::Io(error) => unpacking(error),
        error => corrupt(format!(
            "is not well-formed XML near byte {position}: {error}"
        )),
    }
}

/// What has been seen of a document.
#[derive(Debug, Default)]
struct Document {
    depth: usize,
    root: Option<Root>,
    doctype: bool,
    entities: Entities,
    active: bool,
}

#[derive(Debug)]
struct Root {
    dimensions: Option<(u32, u32)>,
}

impl Document {
    /// Takes all of `text`, of which one event at a time is in memory.
    fn read<R: BufRead>(&mut self, text: Utf8Reader<R>) -> Result<(), Rejection> {
        let mut reader = Reader::from_reader(text);
        configure(reader.config_mut());
        let mut buffer = Vec::new();
        loop {
            reader.get_mut().begin_event();
            let event = match reader.read_event_into(&mut buffer) {
                Ok(event) => event,
                Err(error) => return Err(damaged(&error, reader.error_position())),
            };
            if !self.take(event)? {
                return Ok(());
            }
            buffer.clear();
        }
    }

    /// Takes the next event; `false` at the end.
    fn take(&mut self, event: Event<'_>) -> Result<bool, Rejection> {
        match event {
            Event::Start(start) => {
                self.element(&start)?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(corrupt(format!("nests more than {MAX_DEPTH} elements")));
                }
            }
            Event::Empty(start) => self.element(&start)?,
            Event::End(_) => match self.depth.checked_sub(1) {
                Some(depth) => self.depth = depth,
                None => return Err(corrupt("closes an element that is not open")),
            },
            Event::Text(text) => {
                let text = text.into_inner();
                no_control_characters(&text)?;
                if self.depth == 0
                    && !text
                        .chars()
                        .all(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{feff}'))
                {
                    return Err(corrupt("has text outside its root element"));
                }
            }
            Event::CData(text) => {
                no_control_characters(&text)?;
                if self.depth == 0 {
                    return Err(corrupt("has text outside its root element"));
                }
            }
            Event::GeneralRef(reference) => {
                if self.depth == 0 {
                    return Err(corrupt("has text outside its root element"));
                }
                self.active |= self.entities.check(&reference.into_inner())?;
            }
            Event::DocType(text) => {
                if self.doctype || self.root.is_some() {
                    return Err(corrupt("has a misplaced document type"));
                }
                self.doctype = true;
                let (entities, defaults) = Entities::declared_in(&text)?;
                for default in defaults {
                    let value = entities.resolve(default.value)?;
                    self.active |= is_handler(default.name) || leads_to_code(&value);
                }
                self.entities = entities;
            }
            // A style sheet in XSLT can write script.
            Event::PI(instruction) if instruction.target() == "xml-stylesheet" => {
                self.active |= !instruction.content().contains("text/css");
            }
            Event::PI(_) | Event::Comment(_) | Event::Decl(_) => {}
            Event::Eof => return Ok(false),
        }
        Ok(true)
    }

    fn element(&mut self, start: &BytesStart<'_>) -> Result<(), Rejection> {
        let local = start.local_name();
        let name = local.as_ref();
        if self.depth == 0 {
            if self.root.is_some() {
                return Err(corrupt("has more than one root element"));
            }
            if name != "svg" {
                // Only behind a beginning so long that the first tag was not seen when the format was judged.
                return Err(Rejection::new(
                    Reason::WrongKind,
                    format!("has the root element `{name}`, not `svg`"),
                ));
            }
        }
        self.active |= runs_code(name);
        let mut stated = size::Stated::default();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| {
                corrupt(format!("has a damaged attribute in `{name}`: {error}"))
            })?;
            let key = attribute.key.as_ref();
            let value = self.entities.resolve(&attribute.value)?;
            no_control_characters(&value)?;
            self.active |= is_handler(key) || leads_to_code(&value);
            if self.depth == 0 {
                stated.note(key, &value);
            }
        }
        if self.depth == 0 {
            let dimensions = stated.size();
            self.root = Some(Root { dimensions });
        }
        Ok(())
    }

    fn finish(self) -> Result<Picture, Rejection> {
        if self.depth > 0 {
            return Err(corrupt("is truncated: its last element is not closed"));
        }
        let root = self.root.ok_or_else(|| corrupt("holds no element"))?;
        Ok(Picture {
            dimensions: root.dimensions,
            active: self.active,
        })
    }
}

/// Elements that hold code, or content of HTML that may.
fn runs_code(name: &str) -> bool {
    [
        "script",
        "foreignObject",
        "handler",
        "iframe",
        "embed",
        "object",
        "html",
        "body",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether an attribute's value is a URL that runs code, or a list of values, as animations have it, with such a URL.
fn leads_to_code(value: &str) -> bool {
    value.split(';').any(is_code_url)
}

/// Browsers skip blanks and control characters in a URL.
fn is_code_url(value: &str) -> bool {
    [
        "javascript:",
        "vbscript:",
        "data:text/html",
        "data:image/svg",
        "data:application/x",
    ]
    .iter()
    .any(|scheme| {
        let mut letters = value.bytes().filter(|b| *b > b' ');
        scheme
            .bytes()
            .all(|s| letters.next().is_some_and(|b| b.eq_ignore_ascii_case(&s)))
    })
}

/// XML 1.0 has no control characters beyond tab and line ends (section 2.2); NUL bytes are how damage and
/// padding look.
fn no_control_characters(text: &str) -> Result<(), Rejection> {
    let bad = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r');
    match text.as_bytes().iter().find(|b| bad(b)) {
        Some(byte) => Err(corrupt(format!("has a control character 0x{byte:02x}"))),
        None => Ok(()),
    }
}
