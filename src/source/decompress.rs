//! Decompression of lists: gzip, zstd, xz and bzip2.

use std::io::{self, BufReader, Read};

use crate::source::decode::{Input, peek};

/// Largest number of nested compressions. No list needs more.
const MAX_LAYERS: usize = 3;

/// Buffer size of a decoder, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Memory limit for an xz stream, in KiB. `xz -9` needs 65 MiB; a header may ask for 4 GiB.
const XZ_MEMORY_KIB: u32 = 160 * 1024;

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

/// Returns the compression of an input that begins with `head`.
fn compression(head: &[u8]) -> Option<Compression> {
    Some(match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        // `BZh` and a digit may begin a text, so the magic of the first block, or of the end of the stream, is
        // required too.
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
            if rest.starts_with(b"\x31\x41\x59\x26\x53\x59")
                || rest.starts_with(b"\x17\x72\x45\x38\x50\x90") =>
        {
            Compression::Bzip2
        }
        _ => return None,
    })
}

/// Returns `true` if more bytes cannot change the answer, so that the first line of a slow writer is not delayed.
fn is_enough(head: &[u8]) -> bool {
    match head.first() {
        None => false,
        Some(0x1f | 0x28 | 0x50..=0x5f | 0xfd | b'B') => {
            compression(head).is_some() || head.contains(&b'\n')
        }
        Some(_) => true,
    }
}

/// Decompresses gzip, zstd, xz and bzip2, as detected from the first bytes. Several concatenated streams are read as
/// one.
///
/// A stream that is cut off or damaged yields an error, never a plain end of input.
pub(super) fn decompress(mut input: Input) -> io::Result<Input> {
    for _ in 0..MAX_LAYERS {
        let (head, rest) = peek(input, SIGNATURE_BYTES, is_enough)?;
        let Some(compression) = compression(&head) else {
            return Ok(rest);
        };
        let rest = BufReader::with_capacity(BUFFER_BYTES, rest);
        input = match compression {
            Compression::Gzip => {
                let decoder = flate2::bufread::MultiGzDecoder::new(rest);
                Box::new(Decompressed("gzip", decoder))
            }
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(rest)?;
                Box::new(Decompressed("zstd", decoder))
            }
            Compression::Xz => {
                let decoder = lzma_rust2::XzReader::new_mem_limit(rest, true, XZ_MEMORY_KIB);
                Box::new(Decompressed("xz", decoder))
            }
            Compression::Bzip2 => {
                let decoder = bzip2::bufread::MultiBzDecoder::new(rest);
                Box::new(Decompressed("bzip2", decoder))
            }
        };
    }
    Ok(input)
}

/// A decoder that names its format in errors.
struct Decompressed<R>(&'static str, R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1.read(out).map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::Interrupted => return error,
                io::ErrorKind::UnexpectedEof => "cut off",
                io::ErrorKind::OutOfMemory => "made for more memory than a list may take",
                _ => "damaged",
            };
            io::Error::new(
                error.kind(),
                format!("its {} compression is {what}: {error}", self.0),
            )
        })
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
    use std::io::{Cursor, Write as _};

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
        assert_eq!(all(decompress(input(plain.clone()))).unwrap(), plain);
        assert_eq!(all(decompress(input(Vec::new()))).unwrap(), b"");
        for pack in ALL {
            let packed = pack(&plain);
            assert_eq!(all(decompress(input(packed.clone()))).unwrap(), plain);
            assert_eq!(all(decompress(input(pack(b"")))).unwrap(), b"");
            let streams = [packed.clone(), pack(b""), pack(b"end")].concat();
            let whole = [&plain[..], b"end"].concat();
            assert_eq!(all(decompress(input(streams))).unwrap(), whole);
            for again in ALL {
                let twice = again(&packed);
                assert_eq!(all(decompress(input(twice))).unwrap(), plain);
            }
        }
    }

    #[test]
    fn compressed_bytes_that_are_cut_off_are_an_error_at_every_length() {
        let plain = b"some text".repeat(9);
        for pack in ALL {
            let whole = pack(&plain);
            for length in SIGNATURE_BYTES..whole.len() {
                let error = all(decompress(input(whole[..length].to_vec()))).unwrap_err();
                assert!(error.to_string().contains("cut off"), "{length}: {error}");
            }
            // The second stream is part of the list as well.
            let cut = [&whole[..], &whole[..whole.len() - 1]].concat();
            let error = all(decompress(input(cut))).unwrap_err();
            assert!(error.to_string().contains("cut off"), "{error}");
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
            let error = all(decompress(input(packed)));
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
        let error = all(decompress(input(packed))).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn text_that_begins_like_a_signature_is_text() {
        for text in ["B", "BZh", "BZh9 was here\n", "P*x\n", "(\n", "\u{fd}7z\n"] {
            let bytes = text.as_bytes().to_vec();
            assert_eq!(all(decompress(input(bytes))).unwrap(), text.as_bytes());
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
