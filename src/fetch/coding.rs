//! Content codings (RFC 9110, section 8.4): which ones a response names, and how to decode them.
//!
//! `Content-Encoding` is often wrong. Some origins name a charset or a transfer coding; some name a coding although a
//! proxy has already decoded the body. Unknown names are ignored. A body labelled gzip or zstd that lacks the magic
//! bytes is kept as it is. Brotli and raw deflate have no magic bytes, so a body with one of these labels is kept as
//! it is if it begins like a picture or a document. The format checks decide whether the result is acceptable.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::zstd::DParameter;
use bytes::{Buf as _, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderMap};
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};

use super::error::Cause;

/// Largest number of nested codings. No honest origin needs more.
const MAX_CODINGS: usize = 3;

/// Largest zstd window in HTTP as a power of two, RFC 9659. Bounds a decoder's memory to 8 MiB.
pub(super) const ZSTD_WINDOW_LOG: u32 = 23;

/// Length of the prefix of a body that is used to detect its format, in bytes.
const PREFIX: usize = 64;

/// Magic bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Magic bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Most bytes after the encoded data that are read and ignored, so that the connection can be reused. If there are
/// more, the connection is closed.
const MAX_TRAILING: usize = 64 * 1024;

/// A supported coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// `gzip`, RFC 1952.
    Gzip,
    /// `deflate`: zlib (RFC 1950), or raw deflate (RFC 1951), which some origins send instead.
    Deflate,
    /// `br`, RFC 7932.
    Brotli,
    /// `zstd`, RFC 8878.
    Zstd,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        const NAMES: [(&str, Coding); 5] = [
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br", Coding::Brotli),
            ("zstd", Coding::Zstd),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, coding)| *coding)
    }
}

/// Returns `true` if `headers` name a supported coding.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING) && !codings(headers).is_ok_and(|list| list.is_empty())
}

/// Returns the codings that `headers` name, in the order in which they were applied.
///
/// # Errors
///
/// When there are more than [`MAX_CODINGS`].
pub(super) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Cause> {
    let mut list = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Some origins send quotes or parameters, which are not allowed here.
        let names = value.split(',').map(|name| {
            let name = name.split(';').next().unwrap_or_default();
            name.trim_matches(|c: char| c.is_ascii_whitespace() || c == '"')
        });
        list.extend(names.filter_map(Coding::of));
    }
    if list.len() > MAX_CODINGS {
        return Err(Cause(format!("more than {MAX_CODINGS} content encodings")));
    }
    Ok(list)
}

type Source = Pin<Box<dyn AsyncBufRead + Send + Sync>>;

/// A decoded body.
pub(super) type Reader = Pin<Box<dyn AsyncRead + Send + Sync>>;

/// Decodes `encoded`, to which `codings` were applied in that order. `codings` must not be empty.
pub(super) fn decode(
    encoded: impl AsyncBufRead + Send + Sync + 'static,
    codings: &[Coding],
) -> Reader {
    let mut source: Source = Box::pin(encoded);
    // Codings are listed in the order applied, so the last one comes off first.
    for coding in codings.iter().skip(1).rev() {
        source = Box::pin(BufReader::new(Decoded::new(*coding, source)));
    }
    Box::pin(Decoded::new(codings[0], source))
}

/// The format of encoded data, detected by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Zlib,
    Deflate,
    Brotli,
    Zstd,
}

impl Format {
    /// Returns the format of a body that begins with `prefix` and is labelled `coding`. `None` if it is not encoded.
    fn of(coding: Coding, prefix: &[u8]) -> Option<Self> {
        if prefix.is_empty() || is_file(prefix) {
            return None;
        }
        // A body that is cut off within the magic bytes is left to the decoder, which reports that.
        let may_begin = |magic: &[u8]| magic.starts_with(prefix);
        match coding {
            // Some origins confuse the two names.
            Coding::Gzip | Coding::Deflate if Self::Gzip.begins(prefix) => Some(Self::Gzip),
            Coding::Gzip | Coding::Deflate if Self::Zlib.begins(prefix) => Some(Self::Zlib),
            Coding::Gzip => may_begin(&GZIP_MAGIC).then_some(Self::Gzip),
            Coding::Deflate => Some(Self::Deflate),
            Coding::Brotli => Some(Self::Brotli),
            Coding::Zstd if Self::Zstd.begins(prefix) => Some(Self::Zstd),
            Coding::Zstd => may_begin(&ZSTD_MAGIC).then_some(Self::Zstd),
        }
    }

    /// Returns `true` if `prefix` begins this format. Always `false` for formats without magic bytes.
    fn begins(self, prefix: &[u8]) -> bool {
        match (self, prefix) {
            (Self::Gzip, _) => begins_gzip(prefix),
            (Self::Zstd, _) => begins_zstd(prefix),
            // Method 8, a window of at most 32 KiB, and the check bits of both bytes.
            (Self::Zlib, &[method, flags, ..]) => {
                method & 0x0f == 8
                    && method >> 4 <= 7
                    && u16::from_be_bytes([method, flags]).is_multiple_of(31)
            }
            _ => false,
        }
    }

    /// Returns `true` if one gzip member or zstd frame may follow another.
    fn has_members(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstd)
    }
}

/// Returns `true` if `bytes` begin with a gzip member.
pub(crate) fn begins_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC)
}

/// Returns `true` if `bytes` begin with a zstd frame, also a skippable one.
pub(crate) fn begins_zstd(bytes: &[u8]) -> bool {
    bytes.starts_with(&ZSTD_MAGIC) || matches!(bytes, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Returns `true` if a body begins like a picture or a document rather than encoded data.
fn is_file(prefix: &[u8]) -> bool {
    // Markup, and document formats that `infer` does not count as images.
    const STARTS: [&[u8]; 8] = [
        b"<svg",
        b"<?xml",
        b"<!--",
        b"<!DOCTYPE svg",
        b"%PDF-",
        b"{\\rtf",
        b"PK\x03\x04",
        b"\xd0\xcf\x11\xe0",
    ];
    if prefix.starts_with(b"BM") {
        // Two magic bytes alone are too weak. Bytes 6 to 9 of a BMP are reserved, and zero.
        return prefix.get(6..10) == Some(&[0; 4]);
    }
    let text = prefix.strip_prefix(b"\xef\xbb\xbf").unwrap_or(prefix);
    let text = text.trim_ascii_start();
    infer::is_image(prefix)
        || STARTS.iter().any(|start| text.starts_with(start))
        // SGI: magic, storage, bytes per channel.
        || matches!(prefix, [0x01, 0xda, 0 | 1, 1 | 2, ..])
}

/// Decodes one coding.
struct Decoded {
    coding: Coding,
    state: State,
}

enum State {
    /// Before the first bytes.
    Start(Input),
    /// The data is not encoded.
    Verbatim(Input),
    /// Within a member, or within the data if the format has no members.
    Member(Format, Decoder),
    /// After a member.
    Next(Format, Input),
    /// After the last member. The number is how many more bytes may be ignored.
    Trailing(Input, usize),
    Ended,
}

impl Decoded {
    fn new(coding: Coding, source: Source) -> Self {
        let input = Input {
            held: BytesMut::new(),
            source,
        };
        Self {
            coding,
            state: State::Start(input),
        }
    }
}

impl AsyncRead for Decoded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.state = match &mut this.state {
                State::Start(input) => {
                    let prefix = ready!(input.poll_peek(cx, PREFIX))?;
                    match Format::of(this.coding, prefix) {
                        Some(format) => State::Member(format, decoder(format, input.take())),
                        None => State::Verbatim(input.take()),
                    }
                }
                State::Verbatim(input) => return Pin::new(input).poll_read(cx, out),
                State::Member(format, decoder) => {
                    let before = out.filled().len();
                    ready!(Pin::new(&mut *decoder).poll_read(cx, out))?;
                    if out.filled().len() > before || out.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    State::Next(*format, decoder.input().take())
                }
                State::Next(format, input) if format.has_members() => {
                    let format = *format;
                    // Anything else, such as zero padding, is ignored, as browsers do.
                    match format.begins(ready!(input.poll_peek(cx, ZSTD_MAGIC.len()))?) {
                        true => State::Member(format, decoder(format, input.take())),
                        false => State::Trailing(input.take(), MAX_TRAILING),
                    }
                }
                State::Next(_, input) => State::Trailing(input.take(), MAX_TRAILING),
                State::Trailing(input, left) => {
                    let length = ready!(Pin::new(&mut *input).poll_fill_buf(cx))?.len();
                    Pin::new(&mut *input).consume(length);
                    match left.checked_sub(length) {
                        Some(left) if length > 0 => State::Trailing(input.take(), left),
                        _ => State::Ended,
                    }
                }
                State::Ended => return Poll::Ready(Ok(())),
            };
        }
    }
}

/// A decoder of one member.
trait Decode: AsyncRead + Send + Sync + Unpin {
    /// The input, which is at the first byte after the member once the member has been read.
    fn input(&mut self) -> &mut Input;
}

type Decoder = Box<dyn Decode>;

macro_rules! decodes {
    ($($decoder:ident),*) => {
        $(impl Decode for $decoder<Input> {
            fn input(&mut self) -> &mut Input {
                self.get_mut()
            }
        })*
    };
}

decodes!(
    BrotliDecoder,
    DeflateDecoder,
    GzipDecoder,
    ZlibDecoder,
    ZstdDecoder
);

fn decoder(format: Format, input: Input) -> Decoder {
    match format {
        Format::Gzip => Box::new(GzipDecoder::new(input)),
        Format::Zlib => Box::new(ZlibDecoder::new(input)),
        Format::Deflate => Box::new(DeflateDecoder::new(input)),
        Format::Brotli => Box::new(BrotliDecoder::new(input)),
        Format::Zstd => {
            let window = DParameter::window_log_max(ZSTD_WINDOW_LOG);
            Box::new(ZstdDecoder::with_params(input, &[window]))
        }
    }
}

/// Encoded bytes, with the option to peek.
struct Input {
    /// Bytes that were peeked at and come before those of `source`.
    held: BytesMut,
    source: Source,
}

impl Input {
    /// Returns the next `count` bytes, or fewer at the end, without consuming them.
    fn poll_peek(&mut self, cx: &mut Context<'_>, count: usize) -> Poll<io::Result<&[u8]>> {
        while self.held.len() < count {
            let more = ready!(self.source.as_mut().poll_fill_buf(cx))?;
            if more.is_empty() {
                break;
            }
            let taken = more.len().min(count - self.held.len());
            self.held.extend_from_slice(&more[..taken]);
            self.source.as_mut().consume(taken);
        }
        let count = count.min(self.held.len());
        Poll::Ready(Ok(&self.held[..count]))
    }

    /// Moves the input out and leaves an empty one.
    fn take(&mut self) -> Self {
        let nothing = Self {
            held: BytesMut::new(),
            source: Box::pin(tokio::io::empty()),
        };
        std::mem::replace(self, nothing)
    }
}

impl AsyncBufRead for Input {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        match this.held.is_empty() {
            true => this.source.as_mut().poll_fill_buf(cx),
            false => Poll::Ready(Ok(&this.held)),
        }
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let this = self.get_mut();
        match this.held.is_empty() {
            true => this.source.as_mut().consume(count),
            false => this.held.advance(count),
        }
    }
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = bytes.len().min(out.remaining());
        out.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = http::HeaderValue::from_bytes(line).unwrap();
            headers.append(CONTENT_ENCODING, value);
        }
        headers
    }

    #[test]
    fn names_of_no_coding_are_ignored() {
        use Coding::{Brotli, Deflate, Gzip, Zstd};
        let cases: [(&[&[u8]], &[Coding]); 18] = [
            (&[], &[]),
            (&[b"gzip"], &[Gzip]),
            (&[b"X-GZip"], &[Gzip]),
            (&[b"deflate"], &[Deflate]),
            (&[b" br ,\tZSTD"], &[Brotli, Zstd]),
            (&[b"gzip", b"br"], &[Gzip, Brotli]),
            (&[b"identity"], &[]),
            (&[b""], &[]),
            (&[b" , ,"], &[]),
            (&[b"utf-8"], &[]),
            (&[b"none"], &[]),
            (&[b"binary", b"8bit"], &[]),
            (&[b"aws-chunked"], &[]),
            (&[b"gzip, aws-chunked"], &[Gzip]),
            (&[b"aws-chunked", b"gzip,identity"], &[Gzip]),
            (&[b"\"gzip\""], &[Gzip]),
            (&[b"gzip;q=1.0"], &[Gzip]),
            (&[b"\xff\xfe", b"br"], &[Brotli]),
        ];
        for (lines, expected) in cases {
            let headers = headers(lines);
            assert_eq!(codings(&headers).unwrap(), expected, "{lines:?}");
            assert_eq!(is_encoded(&headers), !expected.is_empty(), "{lines:?}");
        }
        // Ignored names do not count towards the limit.
        assert!(codings(&headers(&[b"gzip,gzip,gzip", b"utf-8, none, 8bit"])).is_ok());
        assert!(codings(&headers(&[b"gzip,gzip", b"gzip,gzip"])).is_err());
    }

    #[test]
    fn the_first_bytes_tell_how_a_body_is_encoded() {
        const AVIF: &[u8] = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf";
        const BMP: &[u8] = b"BM\x36\x10\0\0\0\0\0\0\x36\0\0\0";
        const ICO: &[u8] = b"\0\0\x01\0\x01\0\x10\x10";
        use Coding::{Brotli, Deflate, Gzip, Zstd};
        let files = [
            b"\xff\xd8\xff\xe0\0\x10JFIF\0",
            &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..],
            b"GIF89a\x01\0\x01\0",
            b"RIFF\x24\0\0\0WEBPVP8 ",
            b"II*\0\x08\0\0\0\x0a\0\0\x01",
            b"MM\0*\0\0\0\x08\0\x0a\x01\0",
            b"\x01\xda\x01\x01\0\x03",
            b"\xef\xbb\xbf\n<svg xmlns=",
            b"<?xml version='1.0'?>",
            b"%PDF-1.7\n",
            b"PK\x03\x04\x14\0",
            AVIF,
            BMP,
            ICO,
        ];
        for coding in [Gzip, Deflate, Brotli, Zstd] {
            for file in files {
                assert_eq!(Format::of(coding, file), None, "{coding:?} {file:?}");
            }
            assert_eq!(Format::of(coding, b""), None);
        }
        for coding in [Gzip, Zstd] {
            for prefix in [&b"a text"[..], b"a", b"\0\0\0\x20ftypisom", b"ID3\x04"] {
                assert_eq!(Format::of(coding, prefix), None, "{coding:?} {prefix:?}");
            }
        }
        for (coding, prefix, format) in [
            (Gzip, &b"\x1f\x8b\x08\0"[..], Format::Gzip),
            (Gzip, b"\x1f", Format::Gzip),
            (Gzip, b"\x78\x9c\x01", Format::Zlib),
            (Deflate, b"\x78\x01\x01", Format::Zlib),
            (Deflate, b"\x78\xda\x01", Format::Zlib),
            (Deflate, b"\x1f\x8b\x08\0", Format::Gzip),
            (Deflate, b"\x78\x9d\x01", Format::Deflate),
            (Deflate, b"\x4b\x4c\x4a\x06\0", Format::Deflate),
            (
                Deflate,
                b"BM\x4a\x06\0\x01\x02\x03\x04\x05",
                Format::Deflate,
            ),
            (Brotli, b"\x1b\x02\0\xf8", Format::Brotli),
            (Zstd, b"\x28\xb5\x2f\xfd", Format::Zstd),
            (Zstd, b"\x28\xb5", Format::Zstd),
            (Zstd, b"\x52\x2a\x4d\x18", Format::Zstd),
        ] {
            assert_eq!(
                Format::of(coding, prefix),
                Some(format),
                "{coding:?} {prefix:?}"
            );
        }
    }
}
