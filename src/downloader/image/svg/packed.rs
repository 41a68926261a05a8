//! SVGZ: an SVG inside gzip (RFC 1952).

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use crate::downloader::Rejection;
use crate::downloader::window::corrupt;
use crate::target::Reason;

/// Magic bytes of a gzip member, and deflate, the one method that there is.
const MAGIC: &[u8] = &[0x1f, 0x8b, 8];

/// Unpacks the text of `inner`, of at most `limit` bytes. Ignores what follows the last member, as browsers do.
#[derive(Debug)]
pub(super) struct Unpacked<R> {
    /// `None` at the end.
    member: Option<GzDecoder<R>>,
    left: u64,
    limit: u64,
}

impl<R: BufRead> Unpacked<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self {
            member: Some(GzDecoder::new(inner)),
            left: limit,
            limit,
        }
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(buffer) {
                Ok(0) if !buffer.is_empty() => {}
                Ok(n) => {
                    let Some(left) = self.left.checked_sub(n as u64) else {
                        return Err(io::Error::other(Rejection::new(
                            Reason::TooLarge,
                            format!(
                                "unpacks to more than `image.max_bytes` ({}) allows",
                                self.limit
                            ),
                        )));
                    };
                    self.left = left;
                    return Ok(n);
                }
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::other(corrupt("is truncated")));
                }
                Err(error) => {
                    return Err(io::Error::other(corrupt(format!(
                        "does not unpack: {error}"
                    ))));
                }
            }
            let mut inner = self.member.take().expect("it was there").into_inner();
            if inner.fill_buf()?.starts_with(MAGIC) {
                self.member = Some(GzDecoder::new(inner));
            }
        }
        Ok(0)
    }
}

/// The text that `head`, the beginning of a file, holds, up to `limit` bytes. `None`: it is not gzip.
pub(crate) fn unpack_head(head: &[u8], limit: usize) -> Option<Vec<u8>> {
    if head.is_empty() || !head.starts_with(&MAGIC[..MAGIC.len().min(head.len())]) {
        return None;
    }
    let (mut text, mut decoder) = (Vec::new(), GzDecoder::new(head));
    let mut piece = [0; 4096];
    while text.len() < limit {
        match decoder.read(&mut piece) {
            // What a cut head still lacks.
            Ok(0) | Err(_) => break,
            Ok(n) => text.extend_from_slice(&piece[..n]),
        }
    }
    Some(text)
}
