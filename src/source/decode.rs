//! What stands between the bytes of a source and its parser: gzip, zstd, and foreign encodings.

use std::fmt;
use std::io::{self, BufReader, Cursor, Read};

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes that come, from wherever. Lives on one thread.
pub(super) type Input = Box<dyn Read>;

/// Compressions inside each other that are undone; more is no list that somebody meant to write.
const MAX_LAYERS: usize = 3;

/// Bytes that a decoder reads at a time.
const BUFFER_BYTES: usize = 64 * 1024;

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

/// Undoes gzip (RFC 1952, several members too) and zstd (RFC 8878), told by their first bytes.
pub(super) fn decompress(mut input: Input) -> io::Result<Input> {
    for _ in 0..MAX_LAYERS {
        let (head, rest) = peek(input, 4, |_| false)?;
        input = match head.as_slice() {
            [0x1f, 0x8b, ..] => {
                let decoder = flate2::bufread::MultiGzDecoder::new(buffered(rest));
                Box::new(Decompressed("gzip", decoder))
            }
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(buffered(rest))?;
                Box::new(Decompressed("zstd", decoder))
            }
            _ => return Ok(rest),
        };
    }
    Ok(input)
}

fn buffered(input: Input) -> BufReader<Input> {
    BufReader::with_capacity(BUFFER_BYTES, input)
}

/// A decoder whose errors say what it was reading.
struct Decompressed<R>(&'static str, R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1.read(out).map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::Interrupted => return error,
                io::ErrorKind::UnexpectedEof => "cut off",
                _ => "damaged",
            };
            io::Error::new(
                error.kind(),
                format!("its {} compression is {what}: {error}", self.0),
            )
        })
    }
}

/// The encoding of a text by its byte order mark, or by the zero bytes of UTF-16 in its first ones.
///
/// `None`: UTF-8, or bytes that are taken as they are.
pub(super) fn sniff_encoding(head: &[u8]) -> Option<&'static Encoding> {
    if let Some((encoding, _)) = Encoding::for_bom(head) {
        return (encoding != UTF_8).then_some(encoding);
    }
    // A list begins with ASCII, whatever follows: two characters of it show the order of their bytes.
    let ascii = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *head {
        [a, 0, b, 0, ..] if ascii(a) && ascii(b) => Some(UTF_16LE),
        [0, a, 0, b, ..] if ascii(a) && ascii(b) => Some(UTF_16BE),
        _ => None,
    }
}

/// The encoding that an XML declaration names (XML 1.0, section 4.3.3); UTF-8 where it names none.
///
/// `head` was transcoded already if it was UTF-16, so that such a name means nothing any more.
pub(super) fn xml_encoding(head: &[u8]) -> &'static Encoding {
    let declaration = memchr::memmem::find(head, b"?>").map_or(&[][..], |end| &head[..end]);
    let Some(at) = memchr::memmem::find(declaration, b"encoding") else {
        return UTF_8;
    };
    let name = declaration[at + "encoding".len()..]
        .split(|byte| matches!(byte, b'"' | b'\''))
        .nth(1)
        .unwrap_or_default();
    Encoding::for_label(name)
        .filter(|encoding| encoding.is_ascii_compatible())
        .unwrap_or(UTF_8)
}

/// Turns a text of some encoding into UTF-8, without a byte order mark; what makes no sense becomes U+FFFD.
pub(super) struct Transcoder {
    inner: Input,
    decoder: Decoder,
    raw: Box<[u8]>,
    raw_start: usize,
    raw_end: usize,
    ended: bool,
    flushed: bool,
    text: Vec<u8>,
    text_start: usize,
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder")
            .field("encoding", &self.decoder.encoding().name())
            .finish_non_exhaustive()
    }
}

impl Transcoder {
    pub(super) fn new(inner: Input, encoding: &'static Encoding) -> Self {
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
        let (result, read, written, _) = self.decoder.decode_to_utf8(
            &self.raw[self.raw_start..self.raw_end],
            &mut self.text,
            self.ended,
        );
        self.raw_start += read;
        self.text.truncate(written);
        self.text_start = 0;
        self.flushed = self.ended && result == encoding_rs::CoderResult::InputEmpty;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn all(input: io::Result<Input>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        input?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn input(bytes: Vec<u8>) -> Input {
        Box::new(Cursor::new(bytes))
    }

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_bytes_come_out_whole() {
        let plain = b"some text that is long enough to compress, compress".repeat(50);
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        assert_eq!(all(decompress(input(plain.clone()))).unwrap(), plain);
        assert_eq!(all(decompress(input(gzip(&plain)))).unwrap(), plain);
        assert_eq!(all(decompress(input(zstd.clone()))).unwrap(), plain);
        assert_eq!(all(decompress(input(gzip(&zstd)))).unwrap(), plain);
        let members = [gzip(&plain), gzip(b""), gzip(b"end")].concat();
        assert_eq!(
            all(decompress(input(members))).unwrap(),
            [&plain[..], b"end"].concat()
        );
        let frames = [zstd.clone(), zstd].concat();
        assert_eq!(all(decompress(input(frames))).unwrap(), plain.repeat(2));
    }

    #[test]
    fn compressed_bytes_that_are_cut_off_are_an_error_at_every_length() {
        let plain = b"some text".repeat(9);
        for whole in [gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
            for length in 4..whole.len() {
                let error = all(decompress(input(whole[..length].to_vec()))).unwrap_err();
                assert!(error.to_string().contains("cut off"), "{length}: {error}");
            }
        }
    }

    #[test]
    fn utf_16_is_told_by_its_mark_or_its_zeros() {
        let text = "https://example.org/grün🎉\n";
        for (bytes, marked) in
            [(false, false), (false, true), (true, false), (true, true)].map(|(big, mark)| {
                let text = if mark {
                    format!("\u{feff}{text}")
                } else {
                    text.to_owned()
                };
                let units = text.encode_utf16();
                let bytes: Vec<u8> = if big {
                    units.flat_map(u16::to_be_bytes).collect()
                } else {
                    units.flat_map(u16::to_le_bytes).collect()
                };
                (bytes, mark)
            })
        {
            let encoding = sniff_encoding(&bytes).unwrap_or_else(|| panic!("{marked}"));
            let decoded = Transcoder::new(input(bytes), encoding);
            assert_eq!(all(Ok(Box::new(decoded))).unwrap(), text.as_bytes());
        }
        assert_eq!(sniff_encoding(b"\xef\xbb\xbfhttps://"), None);
        assert_eq!(sniff_encoding(b"h"), None);
    }

    #[test]
    fn a_long_text_is_transcoded_in_pieces() {
        let text = "größer ".repeat(100_000);
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let decoded = Transcoder::new(input(bytes), UTF_16LE);
        assert_eq!(all(Ok(Box::new(decoded))).unwrap(), text.as_bytes());
    }
}
