//! Decodes the bytes of a source to UTF-8 for its parser.

use std::fmt;
use std::io::{self, Cursor, Read};

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_8};

use crate::source::encoding;
use crate::source::sink::SharedSink;

/// Bytes that come, from wherever. Lives on one thread.
pub(super) type Input = Box<dyn Read>;

/// Bytes decoded at a time. Also the longest line of UTF-8 that is judged as a whole.
const BUFFER_BYTES: usize = 64 * 1024;

/// Advice for messages about a wrong encoding.
const ADVICE: &str = "if that is wrong, name the encoding with `--list-encoding`, or `list_encoding` of the schedule or job";

/// Reads until `enough` says so, the input ends, or `most` bytes are there.
///
/// Yields those bytes, and an input that begins with them again. Never reads on when what is there
/// is enough, so that a slow writer's first line suffices.
pub(super) fn peek(
    mut input: Input,
    most: usize,
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<(Vec<u8>, Input)> {
    let mut head = vec![0; most];
    let mut filled = 0;
    while filled < most && !enough(&head[..filled]) {
        match input.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(filled);
    Ok((head.clone(), Box::new(Cursor::new(head).chain(input))))
}

/// Decodes `input` to UTF-8 and drops a byte order mark. The first place that does not match `encoding` is reported
/// in `sink`.
///
/// With UTF-8, lines that are not valid, or only the invalid bytes in them, are read as `fallback`.
pub(super) fn to_utf8(
    input: Input,
    encoding: &'static Encoding,
    fallback: &'static Encoding,
    sink: &SharedSink,
) -> Input {
    if encoding == UTF_8 {
        Box::new(Utf8Lines::new(input, fallback, sink.clone()))
    } else {
        Box::new(Transcoder::new(input, encoding, sink.clone()))
    }
}

/// Decodes an encoding other than UTF-8. Malformed sequences become U+FFFD.
struct Transcoder {
    inner: Input,
    decoder: Decoder,
    raw: Box<[u8]>,
    raw_start: usize,
    raw_end: usize,
    ended: bool,
    flushed: bool,
    text: Vec<u8>,
    text_start: usize,
    /// The line being decoded, or `None` once a malformed sequence has been reported.
    line: Option<u64>,
    sink: SharedSink,
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder")
            .field("encoding", &self.decoder.encoding().name())
            .finish_non_exhaustive()
    }
}

impl Transcoder {
    fn new(inner: Input, encoding: &'static Encoding, sink: SharedSink) -> Self {
        Self {
            inner,
            decoder: encoding.new_decoder_with_bom_removal(),
            raw: vec![0; BUFFER_BYTES].into_boxed_slice(),
            raw_start: 0,
            raw_end: 0,
            ended: false,
            flushed: false,
            text: Vec::new(),
            text_start: 0,
            line: Some(1),
            sink,
        }
    }

    /// Decodes what is there into `text`, reading once if there is nothing.
    fn refill(&mut self) -> io::Result<()> {
        if self.raw_start == self.raw_end && !self.ended {
            let n = self.inner.read(&mut self.raw)?;
            (self.raw_start, self.raw_end) = (0, n);
            self.ended = n == 0;
        }
        self.text.resize(2 * BUFFER_BYTES, 0);
        let (result, read, written, is_damaged) = self.decoder.decode_to_utf8(
            &self.raw[self.raw_start..self.raw_end],
            &mut self.text,
            self.ended,
        );
        self.raw_start += read;
        self.text.truncate(written);
        self.text_start = 0;
        self.flushed = self.ended && result == CoderResult::InputEmpty;
        if let Some(line) = self.line {
            self.line = self.note(line, is_damaged);
        }
        Ok(())
    }

    /// Reports a replacement in `text`, which begins in `line`, and returns `None`. Returns the line after `text` if
    /// there is none.
    fn note(&self, line: u64, is_damaged: bool) -> Option<u64> {
        let replaced = is_damaged.then(|| memchr::memmem::find(&self.text, b"\xef\xbf\xbd"));
        let before = &self.text[..replaced.flatten().unwrap_or(self.text.len())];
        let line = line + memchr::memchr_iter(b'\n', before).count() as u64;
        if !is_damaged {
            return Some(line);
        }
        let name = self.decoder.encoding().name();
        self.sink.borrow_mut().warn(format!(
            "line {line} holds bytes that are not {name}, and U+FFFD stands for them; {ADVICE}"
        ));
        None
    }
}

impl Read for Transcoder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.text_start == self.text.len() {
            // A decoder must not be called again after it has seen the end.
            if self.flushed {
                return Ok(0);
            }
            self.refill()?;
        }
        let rest = &self.text[self.text_start..];
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.text_start += n;
        Ok(n)
    }
}

/// Reads UTF-8. A line that is not valid UTF-8 is read in a fallback encoding, in which every byte is a character.
///
/// Each line is decided on its own. Files are sometimes joined from several encodings, and one broken name is no
/// reason to misread all others, in other lines or in its own. ASCII is handed out at once; the rest of its line waits
/// until the line is complete.
struct Utf8Lines {
    inner: Input,
    fallback: &'static Encoding,
    raw: Box<[u8]>,
    /// `raw[start..ready]` is ready to be handed out, `raw[ready..end]` is not judged yet.
    start: usize,
    ready: usize,
    end: usize,
    ended: bool,
    /// A decoded line of the fallback encoding, to be handed out from `text_start` on.
    text: String,
    text_start: usize,
    is_begun: bool,
    /// The line at `ready`, or `None` once a line has been reported that is not UTF-8.
    line: Option<u64>,
    sink: SharedSink,
}

impl Utf8Lines {
    fn new(inner: Input, fallback: &'static Encoding, sink: SharedSink) -> Self {
        Self {
            inner,
            fallback,
            raw: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            ready: 0,
            end: 0,
            ended: false,
            text: String::new(),
            text_start: 0,
            is_begun: false,
            line: Some(1),
            sink,
        }
    }

    /// Decides how to read the waiting bytes. Reads once if that takes more bytes.
    fn judge(&mut self) -> io::Result<()> {
        if !self.is_begun && (self.end - self.ready >= 3 || self.ended) {
            self.is_begun = true;
            if self.raw[self.ready..self.end].starts_with(b"\xef\xbb\xbf") {
                self.ready += 3;
                self.start = self.ready;
            }
        }
        let is_whole = self.ended || self.end - self.start == self.raw.len();
        match next_step(&self.raw[self.ready..self.end], is_whole, self.ended) {
            _ if !self.is_begun => self.fill()?,
            Step::Take(n) => self.advance(n),
            Step::Decode(n) => {
                let line = &self.raw[self.ready..self.ready + n];
                self.text = encoding::mixed(line, self.fallback).into_owned();
                self.text_start = 0;
                if let Some(line) = self.line.take() {
                    self.sink.borrow_mut().warn(format!(
                        "line {line} is not UTF-8; what is not is read as {}; {ADVICE}",
                        self.fallback.name()
                    ));
                }
                self.advance(n);
                self.start = self.ready;
            }
            Step::Read => self.fill()?,
        }
        Ok(())
    }

    fn advance(&mut self, n: usize) {
        let taken = &self.raw[self.ready..self.ready + n];
        if let Some(line) = &mut self.line {
            *line += memchr::memchr_iter(b'\n', taken).count() as u64;
        }
        self.ready += n;
    }

    fn fill(&mut self) -> io::Result<()> {
        self.raw.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.ready -= self.start;
        self.start = 0;
        let n = self.inner.read(&mut self.raw[self.end..])?;
        self.end += n;
        self.ended = n == 0;
        Ok(())
    }
}

/// The next step for the waiting bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Hand out this many bytes as they are.
    Take(usize),
    /// Decode this many bytes, which are a line or part of a line that is not UTF-8.
    Decode(usize),
    /// Read more.
    Read,
}

/// Decides the next step for `bytes`. In their first line, only ASCII has been handed out before. `is_whole` is set
/// if the input has `ended`, or if the buffer is full.
fn next_step(bytes: &[u8], is_whole: bool, ended: bool) -> Step {
    if bytes.is_empty() {
        return Step::Read;
    }
    let line_begin = |before: &[u8]| memchr::memrchr2(b'\n', b'\r', before).map_or(0, |at| at + 1);
    let valid = Encoding::utf8_valid_up_to(bytes);
    let cut =
        || std::str::from_utf8(&bytes[valid..]).is_err_and(|error| error.error_len().is_none());
    if valid == bytes.len() || (cut() && !is_whole) {
        let last_line = line_begin(&bytes[..valid]);
        let ascii = Encoding::ascii_valid_up_to(&bytes[last_line..]);
        return match last_line + ascii {
            _ if is_whole => Step::Take(valid),
            0 => Step::Read,
            n => Step::Take(n),
        };
    }
    let begin = line_begin(&bytes[..valid]);
    if begin > 0 {
        return Step::Take(begin);
    }
    match memchr::memchr2(b'\n', b'\r', &bytes[valid..]) {
        Some(at) => Step::Decode(valid + at + 1),
        None if !is_whole => Step::Read,
        // The next bytes may complete the character at the end.
        None if cut() && valid > 0 => Step::Take(valid),
        None if !ended => Step::Decode(bytes.len() - cut_off(bytes)),
        None => Step::Decode(bytes.len()),
    }
}

/// Returns the number of trailing bytes that are an incomplete character.
fn cut_off(bytes: &[u8]) -> usize {
    let is_cut = |length: &usize| {
        let tail = &bytes[bytes.len() - length..];
        std::str::from_utf8(tail)
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..bytes.len().min(4)).rev().find(is_cut).unwrap_or(0)
}

impl Read for Utf8Lines {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let (bytes, from) = if self.text_start < self.text.len() {
                (self.text.as_bytes(), &mut self.text_start)
            } else {
                (&self.raw[..self.ready], &mut self.start)
            };
            let n = (bytes.len() - *from).min(out.len());
            if n > 0 || out.is_empty() {
                out[..n].copy_from_slice(&bytes[*from..*from + n]);
                *from += n;
                return Ok(n);
            }
            if self.ended && self.ready == self.end {
                return Ok(0);
            }
            self.judge()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::encoding::FALLBACK;
    use crate::source::sink::Sink;
    use encoding_rs::{SHIFT_JIS, UTF_16BE, UTF_16LE};
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Yields at most `step` bytes at a time.
    struct Dribble(Cursor<Vec<u8>>, usize);

    impl Read for Dribble {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(out.len());
            self.0.read(&mut out[..n])
        }
    }

    /// Decodes `bytes` as `encoding`, and returns the text and the notices.
    fn decoded(bytes: &[u8], encoding: &'static Encoding, step: usize) -> (String, Vec<String>) {
        let (out, _messages) = tokio::sync::mpsc::channel(1);
        let sink = Rc::new(RefCell::new(Sink::new("list".to_owned(), out)));
        let input = Box::new(Dribble(Cursor::new(bytes.to_vec()), step));
        let mut text = String::new();
        to_utf8(input, encoding, FALLBACK, &sink)
            .read_to_string(&mut text)
            .unwrap();
        let warnings = sink.borrow_mut().take_notices();
        (
            text,
            warnings.into_iter().map(|notice| notice.text).collect(),
        )
    }

    #[test]
    fn lines_that_are_not_utf_8_are_read_as_windows_1252() {
        for (bytes, text, line) in [
            (&b""[..], "", None),
            (b"a\nb", "a\nb", None),
            (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", "a\n\u{feff}b", None),
            ("grün\nblau".as_bytes(), "grün\nblau", None),
            (b"gr\xfcn", "grün", Some(1)),
            (b"a\r\ngr\xfcn\r\nb", "a\r\ngrün\r\nb", Some(2)),
            (b"\x80 5\n", "€ 5\n", Some(1)),
            (b"\x81\n", "\u{81}\n", Some(1)),
            // Each line is decided on its own.
            (
                b"gr\xc3\xbcn\ngr\xfcn\ngr\xc3\xbcn",
                "grün\ngrün\ngrün",
                Some(2),
            ),
            (b"gr\xfcn\rgr\xc3\xbcn\r", "grün\rgrün\r", Some(1)),
            // A line has one encoding, although `É»` alone would be valid UTF-8.
            (b"\xabCAF\xc9\xbb\n", "«CAFÉ»\n", Some(1)),
            ("«MÜNCHEN» caf\u{e9}\n".as_bytes(), "«MÜNCHEN» café\n", None),
            // Invalid bytes in a line of UTF-8.
            (b"M\xc3\xbcnchen,caf\xe9\n", "München,café\n", Some(1)),
            (b"\xe6\xb8\xaf,\xe2\x80\x9c,\xfc", "港,“,ü", Some(1)),
            // « café » with no-break spaces. `é\u{a0}»` would be valid UTF-8.
            (b"\xab\xa0caf\xe9\xa0\xbb", "«\u{a0}café\u{a0}»", Some(1)),
            (b"x\xc3", "xÃ", Some(1)),
            (b"\xc3", "Ã", Some(1)),
            (b"x\xe2\x82", "xâ‚", Some(1)),
        ] {
            for step in [1, 2, 3, 100] {
                let (got, warnings) = decoded(bytes, UTF_8, step);
                assert_eq!(got, text, "{bytes:?} by {step}");
                assert_eq!(warnings.len(), usize::from(line.is_some()), "{bytes:?}");
                if let Some(line) = line {
                    let wanted = format!("line {line} is not UTF-8");
                    assert!(warnings[0].contains(&wanted), "{warnings:?}");
                    assert!(warnings[0].contains("`--list-encoding`"));
                }
            }
        }
    }

    #[test]
    fn a_line_without_end_is_read_in_bounded_memory() {
        let text = "größer ".repeat(100_000);
        assert_eq!(decoded(text.as_bytes(), UTF_8, 977), (text.clone(), vec![]));
        let (bytes, ..) = encoding_rs::WINDOWS_1252.encode(&text);
        assert_eq!(decoded(&bytes, UTF_8, 977).0, text);
    }

    #[test]
    fn one_foreign_byte_in_a_document_on_one_line_spoils_no_other_name() {
        let name = "\"https://a.example/München/港/€.jpg\",";
        let before = name.repeat(2500);
        let mut document = before.clone().into_bytes();
        document.extend_from_slice(b"\"caf\xe9\",");
        document.extend_from_slice(name.repeat(2500).as_bytes());
        assert!(document.len() > 200 * 1024);
        let wanted = format!("{before}\"café\",{before}");
        // Characters cross the boundaries of the buffer.
        for step in [997, 4096, 1 << 20] {
            let (text, warnings) = decoded(&document, UTF_8, step);
            assert!(text == wanted, "{step}");
            assert_eq!(warnings.len(), 1, "{warnings:?}");
        }
    }

    #[test]
    fn ascii_is_not_held_up() {
        for (bytes, is_whole, step) in [
            (&b"abc"[..], false, Step::Take(3)),
            (b"ab\xc3\xbc", false, Step::Take(2)),
            (b"\xc3\xbc", false, Step::Read),
            (b"\xc3\xbc", true, Step::Take(2)),
            (b"\xc3\xbc\nx", false, Step::Take(4)),
            (b"\xc3", false, Step::Read),
            (b"\xc3", true, Step::Decode(1)),
            (b"\xfc", false, Step::Read),
            (b"a\nb\xfc\nc", false, Step::Take(2)),
            (b"b\xfc\nc", false, Step::Decode(3)),
        ] {
            assert_eq!(next_step(bytes, is_whole, is_whole), step, "{bytes:?}");
        }
    }

    #[test]
    fn utf_16_is_decoded_in_either_order_and_in_pieces() {
        let text = "größer ".repeat(100_000);
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decoded(&little, UTF_16LE, 977), (text.clone(), vec![]));
        assert_eq!(decoded(&big, UTF_16BE, 977), (text.clone(), vec![]));
        let marked = [b"\xff\xfe", &little[..]].concat();
        assert_eq!(decoded(&marked, UTF_16LE, 977).0, text);
    }

    #[test]
    fn what_is_replaced_is_made_known() {
        let (text, warnings) = decoded(b"a\nb\nx\xff\n\xff", SHIFT_JIS, 2);
        assert_eq!(text, "a\nb\nx\u{fffd}\n\u{fffd}");
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("line 3") && warnings[0].contains("Shift_JIS"),
            "{warnings:?}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_without_replacements(bytes: Vec<u8>, step in 1_usize..9) {
            let (text, warnings) = decoded(&bytes, UTF_8, step);
            let is_utf8 = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(warnings.is_empty(), is_utf8);
            let is_given = memchr::memmem::find(&bytes, b"\xef\xbf\xbd").is_some();
            prop_assert!(is_given || !text.contains(char::REPLACEMENT_CHARACTER));
        }
    }
}
