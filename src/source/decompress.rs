//! Decompression of lists: gzip, zstd, xz and bzip2.

use std::io::{self, BufRead, Read};

use crate::fetch::{begins_gzip, begins_zstd};
use crate::source::decode::{Input, peek};
use crate::source::sink::SharedSink;

/// Largest number of nested compressions. No list needs more.
const MAX_LAYERS: usize = 3;

/// Buffer size of a decoder, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Memory limits of a decoder. A header may ask for 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Memory of an xz decoder, in KiB.
    xz_kib: u32,
    /// Window of a zstd decoder, as a power of two.
    zstd_window_log: u32,
}

impl Memory {
    /// Limits of the outermost xz or zstd layer. `xz -9` needs 65 MiB, `zstd --long` a window of 128 MiB.
    const OUTER: Self = Self {
        xz_kib: 160 * 1024,
        zstd_window_log: 27,
    };

    /// Limits of the layers inside it, small enough that nesting adds little. Sufficient for `xz -6` and `zstd -19`.
    const INNER: Self = Self {
        xz_kib: 16 * 1024,
        zstd_window_log: 23,
    };
}

/// A compressed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz file format, version 1.2.1.
    Xz,
    Bzip2,
}

/// Length of the longest signature, that of bzip2.
const SIGNATURE_BYTES: usize = 10;

impl Compression {
    /// Returns the compression of an input that begins with `head`.
    fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            _ if begins_gzip(head) => Self::Gzip,
            _ if begins_zstd(head) => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // `BZh` and a digit may begin a text, so the magic of the first block, or of the end of the stream, is
            // required too.
            [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
                if rest.starts_with(b"\x31\x41\x59\x26\x53\x59")
                    || rest.starts_with(b"\x17\x72\x45\x38\x50\x90") =>
            {
                Self::Bzip2
            }
            _ => return None,
        })
    }

    /// Returns `true` if another member begins with `head`, even if it is cut off within its signature. `head` is
    /// shorter than [`SIGNATURE_BYTES`] only at the end of the input.
    fn goes_on(self, head: &[u8]) -> bool {
        let is_cut = match self {
            Self::Gzip => head == [0x1f],
            Self::Zstd => [0x28, 0xb5, 0x2f].starts_with(head),
            Self::Xz => [0xfd, b'7', b'z', b'X', b'Z'].starts_with(head),
            Self::Bzip2 => {
                b"BZh".starts_with(head)
                    || (head.len() < SIGNATURE_BYTES && head.starts_with(b"BZh"))
            }
        };
        is_cut || Self::of(head) == Some(self)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// Returns a decoder for the member that `source` begins with.
    fn decoder(self, source: Source, memory: Memory) -> io::Result<Decoder> {
        Ok(match self {
            Self::Gzip => Decoder::Gzip(flate2::bufread::GzDecoder::new(source)),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                let mut decoder = decoder.single_frame();
                decoder.window_log_max(memory.zstd_window_log)?;
                Decoder::Zstd(decoder)
            }
            Self::Xz => {
                let decoder = lzma_rust2::XzReader::new_mem_limit(source, false, memory.xz_kib);
                Decoder::Xz(Box::new(decoder))
            }
            Self::Bzip2 => Decoder::Bzip2(bzip2::bufread::BzDecoder::new(source)),
        })
    }
}

/// Returns `true` if more bytes cannot change the answer, so that the first line of a slow writer is not delayed.
fn is_enough(head: &[u8]) -> bool {
    match head.first() {
        None => false,
        Some(0x1f | 0x28 | 0x50..=0x5f | 0xfd | b'B') => {
            Compression::of(head).is_some() || head.contains(&b'\n')
        }
        Some(_) => true,
    }
}

/// Decompresses gzip, zstd, xz and bzip2, as detected from the first bytes. Several concatenated members are read as
/// one.
///
/// A member that is cut off or damaged yields an error, never a plain end of input. Zeros between and after members
/// are padding. Other trailing bytes are ignored with a warning in `sink`, as gzip(1) does.
pub(super) fn decompress(mut input: Input, sink: &SharedSink) -> io::Result<Input> {
    let mut memory = Memory::OUTER;
    for _ in 0..MAX_LAYERS {
        let (head, rest) = peek(input, SIGNATURE_BYTES, is_enough)?;
        let Some(compression) = Compression::of(&head) else {
            return Ok(rest);
        };
        input = Box::new(Members {
            compression,
            memory,
            state: State::Between(Source::new(rest)),
            sink: sink.clone(),
        });
        if matches!(compression, Compression::Xz | Compression::Zstd) {
            memory = Memory::INNER;
        }
    }
    Ok(input)
}

/// Decodes concatenated members of one compression.
struct Members {
    compression: Compression,
    memory: Memory,
    state: State,
    sink: SharedSink,
}

enum State {
    /// Before the next member, or at the end.
    Between(Source),
    Member(Decoder),
    Ended,
}

impl Members {
    /// Returns the state for the bytes that `source` continues with.
    fn next(&self, mut source: Source) -> io::Result<State> {
        source.skip_zeros()?;
        let head = source.peek(SIGNATURE_BYTES)?;
        if head.is_empty() {
            return Ok(State::Ended);
        }
        if !self.compression.goes_on(head) {
            self.sink.borrow_mut().warn(format!(
                "the bytes after its {} data are ignored",
                self.compression.name()
            ));
            return Ok(State::Ended);
        }
        let decoder = self.compression.decoder(source, self.memory)?;
        Ok(State::Member(decoder))
    }

    /// Adds the name of the compression to an error.
    fn failed(&self, error: io::Error) -> io::Error {
        let what = match error.kind() {
            io::ErrorKind::Interrupted => return error,
            io::ErrorKind::UnexpectedEof => "cut off",
            io::ErrorKind::OutOfMemory => "made for more memory than a list may take",
            _ => "damaged",
        };
        let name = self.compression.name();
        io::Error::new(
            error.kind(),
            format!("its {name} compression is {what}: {error}"),
        )
    }
}

impl Read for Members {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let State::Member(decoder) = &mut self.state {
                match decoder.read(out) {
                    Ok(0) => {}
                    Ok(n) => return Ok(n),
                    Err(error) => return Err(self.failed(error)),
                }
            }
            let source = match std::mem::replace(&mut self.state, State::Ended) {
                State::Between(source) => source,
                State::Member(decoder) => decoder.into_source(),
                State::Ended => return Ok(0),
            };
            self.state = self.next(source)?;
        }
    }
}

/// A decoder of one member. At its end, the source is positioned at the byte after the member.
enum Decoder {
    Gzip(flate2::bufread::GzDecoder<Source>),
    Zstd(zstd::stream::read::Decoder<'static, Source>),
    Xz(Box<lzma_rust2::XzReader<Source>>),
    Bzip2(bzip2::bufread::BzDecoder<Source>),
}

impl Decoder {
    fn into_source(self) -> Source {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
            Self::Xz(decoder) => decoder.read(out),
            Self::Bzip2(decoder) => decoder.read(out),
        }
    }
}

/// Buffered compressed bytes with arbitrary look-ahead.
struct Source {
    inner: Input,
    /// `buffer[start..end]` has been read but not consumed.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Source {
    fn new(inner: Input) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Returns the next `count` bytes, or fewer at the end, without consuming them.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < count {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[..count.min(self.end)])
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let bytes = match self.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let is_over = zeros < bytes.len() || bytes.is_empty();
            self.consume(zeros);
            if is_over {
                return Ok(());
            }
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.inner.read(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(out.len());
        out[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// An input that fails beyond a limit.
pub(super) struct Capped {
    inner: Input,
    left: u64,
    error: Option<io::Error>,
}

impl Capped {
    /// Passes on at most `most` bytes of `inner`. If there are more, reading fails with `error`.
    pub(super) fn new(inner: Input, most: u64, error: io::Error) -> Self {
        Self {
            inner,
            left: most,
            error: Some(error),
        }
    }
}

impl Read for Capped {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(self
                    .error
                    .take()
                    .unwrap_or_else(|| io::ErrorKind::Other.into()));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sink::Sink;
    use std::cell::RefCell;
    use std::io::{Cursor, Write as _};
    use std::rc::Rc;

    /// Returns the decompressed bytes and the warnings.
    fn undone(bytes: Vec<u8>) -> (io::Result<Vec<u8>>, Vec<String>) {
        let (out, _messages) = tokio::sync::mpsc::channel(1);
        let sink = Rc::new(RefCell::new(Sink::new("list".to_owned(), out)));
        let plain = all(super::decompress(input(bytes), &sink));
        let notices = sink.borrow_mut().take_notices();
        (
            plain,
            notices.into_iter().map(|notice| notice.text).collect(),
        )
    }

    fn all(input: io::Result<Input>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        input?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn input(bytes: Vec<u8>) -> Input {
        Box::new(Cursor::new(bytes))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    type Pack = fn(&[u8]) -> Vec<u8>;

    const ALL: [Pack; 4] = [gzip, zstd, bzip2, xz];

    #[test]
    fn compressed_bytes_come_out_whole() {
        let plain = b"some text that is long enough to compress, compress".repeat(50);
        assert_eq!(undone(plain.clone()).0.unwrap(), plain);
        assert_eq!(undone(Vec::new()).0.unwrap(), b"");
        for pack in ALL {
            let packed = pack(&plain);
            assert_eq!(undone(packed.clone()).0.unwrap(), plain);
            assert_eq!(undone(pack(b"")).0.unwrap(), b"");
            let streams = [packed.clone(), pack(b""), pack(b"end")].concat();
            let whole = [&plain[..], b"end"].concat();
            assert_eq!(undone(streams).0.unwrap(), whole);
            for again in ALL {
                let twice = again(&packed);
                assert_eq!(undone(twice).0.unwrap(), plain);
            }
        }
    }

    #[test]
    fn compressed_bytes_that_are_cut_off_are_an_error_at_every_length() {
        let plain = b"some text".repeat(9);
        for pack in ALL {
            let whole = pack(&plain);
            for length in SIGNATURE_BYTES..whole.len() {
                let error = undone(whole[..length].to_vec()).0.unwrap_err();
                assert!(error.to_string().contains("cut off"), "{length}: {error}");
            }
            // A second stream is no less part of the list.
            for length in 1..whole.len() {
                let cut = [&whole[..], &whole[..length]].concat();
                let error = undone(cut).0.unwrap_err();
                assert!(error.to_string().contains("cut off"), "{length}: {error}");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let plain: Vec<u8> = (0..2000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        // zstd is left out: without a checksum, as here, it cannot detect the damage.
        for pack in [gzip as Pack, bzip2, xz] {
            let mut packed = pack(&plain);
            let middle = packed.len() / 2;
            packed[middle] ^= 0xff;
            let error = undone(packed).0;
            assert!(error.is_err_and(|error| error.to_string().contains("compression is")));
        }
    }

    #[test]
    fn an_xz_header_that_asks_for_gigabytes_is_an_error() {
        let mut packed = xz(b"text");
        // Block header at 12: size, flags, filter id, size of its properties, dictionary size.
        assert_eq!(packed[14..16], [0x21, 1]);
        packed[16] = 39;
        let crc = crc32fast::hash(&packed[12..20]).to_le_bytes();
        packed[20..24].copy_from_slice(&crc);
        let error = undone(packed).0.unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn layers_within_each_other_share_the_memory_of_one() {
        // A dictionary of 64 MiB, as with `xz -9`.
        let mut large = xz(b"text");
        large[16] = 28;
        let crc = crc32fast::hash(&large[12..20]).to_le_bytes();
        large[20..24].copy_from_slice(&crc);
        assert_eq!(undone(large.clone()).0.unwrap(), b"text");
        assert_eq!(undone(gzip(&large)).0.unwrap(), b"text");
        for outer in [xz as Pack, zstd] {
            let error = undone(outer(&large)).0.unwrap_err();
            assert!(error.to_string().contains("memory"), "{error}");
        }
    }

    #[test]
    fn zeros_between_and_behind_members_are_padding() {
        for pack in ALL {
            for zeros in [1, 4, 512, 2 * BUFFER_BYTES] {
                let zeros = vec![0; zeros];
                let padded = [&pack(b"one")[..], &zeros, &pack(b"two"), &zeros].concat();
                let (plain, notices) = undone(padded);
                assert_eq!(plain.unwrap(), b"onetwo");
                assert_eq!(notices, [""; 0]);
            }
        }
    }

    #[test]
    fn other_trailing_bytes_are_ignored_with_a_warning() {
        for pack in ALL {
            for behind in [
                &b"x"[..],
                b"https://a.example/\n",
                b"\0\0\x01",
                b"\xff\xd8\xff",
            ] {
                let (plain, notices) = undone([&pack(b"text")[..], behind].concat());
                assert_eq!(plain.unwrap(), b"text");
                assert_eq!(notices.len(), 1);
                assert!(notices[0].contains("are ignored"), "{notices:?}");
            }
        }
    }

    #[test]
    fn thousands_of_members_are_read() {
        for pack in ALL {
            let members = pack(b"a line\n").repeat(3000);
            assert_eq!(undone(members).0.unwrap(), b"a line\n".repeat(3000));
        }
    }

    #[test]
    fn text_that_begins_like_a_signature_is_text() {
        for text in ["B", "BZh", "BZh9 was here\n", "P*x\n", "(\n", "\u{fd}7z\n"] {
            let bytes = text.as_bytes().to_vec();
            assert_eq!(undone(bytes).0.unwrap(), text.as_bytes());
        }
        for enough in ["http", "\u{1f}\u{8b}", "BZ\n", "PK\n"] {
            assert!(is_enough(
                &enough.chars().map(|c| c as u8).collect::<Vec<_>>()
            ));
        }
        for short in ["", "B", "BZh9", "P*M", "(x"] {
            assert!(!is_enough(short.as_bytes()), "{short}");
        }
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        let capped = |most| {
            let error = io::Error::other("too long");
            Capped::new(input(b"12345".to_vec()), most, error)
        };
        assert_eq!(all(Ok(Box::new(capped(5)))).unwrap(), b"12345");
        assert!(all(Ok(Box::new(capped(4)))).is_err());
    }
}
