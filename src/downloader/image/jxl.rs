//! JPEG XL: boxes of the container (ISO/IEC 18181-2), and the size from the codestream's header (18181-1).
//!
//! A bare codestream has no mark at its end, so that only a very short one is seen to be cut.

use super::isobmff::atom;
use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

pub(crate) const CONTAINER: &[u8] = b"\0\0\0\x0cJXL \r\n\x87\n";
const CODESTREAM: [u8; 2] = [0xff, 0x0a];

pub(crate) fn matches(head: &[u8]) -> bool {
    head.starts_with(CONTAINER) || (head.starts_with(&CODESTREAM) && head.len() >= 12)
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    if window.array(0)? == CODESTREAM {
        return codestream(window, 0, limits);
    }
    let len = window.len();
    let (mut at, mut picture) = (0, None);
    while at < len {
        let atom = atom(window, at, len)?;
        let stream = match &atom.kind {
            b"jxlc" => Some(atom.from),
            // A part has a number of four bytes before it.
            b"jxlp" => Some(atom.from + 4),
            _ => None,
        };
        if let (Some(stream), None) = (stream, &picture) {
            picture = Some(codestream(window, stream, limits)?);
        }
        at = atom.to;
    }
    picture.ok_or_else(|| corrupt("holds no codestream"))
}

/// The orientation that the codestream states, 1 to 8 as in EXIF.
pub(super) fn orientation(window: &mut Window<'_>) -> Result<Option<u8>, Rejection> {
    let len = window.len();
    let (mut at, mut stream) = (0, None);
    if window.array(0)? == CODESTREAM {
        stream = Some(0);
    }
    while stream.is_none() && at < len {
        let atom = atom(window, at, len)?;
        stream = match &atom.kind {
            b"jxlc" => Some(atom.from),
            b"jxlp" => Some(atom.from + 4),
            _ => None,
        };
        at = atom.to;
    }
    let Some(stream) = stream else {
        return Ok(None);
    };
    let mut bits = Bits::read(window, stream)?;
    bits.size();
    // `ImageMetadata`: `all_default`, `extra_fields`, and the orientation less one.
    let stated = bits.take(1) == 0 && bits.take(1) == 1;
    Ok(Some(if stated { 1 + bits.take(3) as u8 } else { 1 }))
}

fn codestream(window: &mut Window<'_>, at: u64, limits: &Limits) -> Result<Picture, Rejection> {
    if window.array(at)? != CODESTREAM {
        return Err(corrupt("has a damaged codestream"));
    }
    let (width, height) = Bits::read(window, at)?.size();
    let dimensions = limits.admit(width, height)?;
    // The size, the metadata and at least some picture data.
    window.require(at, 10)?;
    Ok(Picture::still(dimensions))
}

/// Bits from the lowest of each byte on.
#[derive(Debug)]
struct Bits {
    word: u128,
    used: u32,
}

impl Bits {
    /// The bits behind the signature of the codestream at `at`.
    fn read(window: &mut Window<'_>, at: u64) -> Result<Self, Rejection> {
        let mut head = [0; 16];
        let found = window.up_to(at + 2, 16)?;
        head[..found.len()].copy_from_slice(found);
        Ok(Self {
            word: u128::from_le_bytes(head),
            used: 0,
        })
    }

    fn take(&mut self, n: u32) -> u32 {
        let value = (self.word >> self.used) & ((1 << n) - 1);
        self.used += n;
        value as u32
    }

    /// One side: a selector of two bits says how many follow.
    fn side(&mut self) -> u32 {
        let n = [9, 13, 18, 30][self.take(2) as usize];
        1 + self.take(n)
    }

    /// `SizeHeader`.
    fn size(&mut self) -> (u32, u32) {
        let small = self.take(1) == 1;
        let height = if small {
            8 * (1 + self.take(5))
        } else {
            self.side()
        };
        let ratio = self.take(3);
        let (over, under) = match ratio {
            0 => {
                let width = if small {
                    8 * (1 + self.take(5))
                } else {
                    self.side()
                };
                return (width, height);
            }
            1 => (1, 1),
            2 => (12, 10),
            3 => (4, 3),
            4 => (3, 2),
            5 => (16, 9),
            6 => (5, 4),
            _ => (2, 1),
        };
        // At most 2^30 times 16: fits into 64 bits, and twice the height into 32.
        ((u64::from(height) * over / under) as u32, height)
    }
}
