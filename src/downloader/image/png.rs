//! PNG (third edition, W3C 2025): chunks from the signature to `IEND`, and the checksums of chunks that hold pictures.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{MAX_LOOK, Window, corrupt};

pub(crate) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes whose checksum is verified. A checksum over more costs more than a header check should.
const CHECKED_BYTES: u64 = 1024 * 1024;

/// Checks the chunks; of the checksums as many as a header check can afford, or `all`.
pub(super) fn inspect(
    window: &mut Window<'_>,
    limits: &Limits,
    all: bool,
) -> Result<Picture, Rejection> {
    let mut at = SIGNATURE.len() as u64;
    let mut budget = if all { u64::MAX } else { CHECKED_BYTES };
    let mut dimensions = None;
    let mut seen_data = false;
    let mut seen_palette = false;
    let mut color_type = 0;
    let mut animation = Animation::default();
    loop {
        let [l0, l1, l2, l3, kind @ ..] = window.array::<8>(at)?;
        let length = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
        if length > 0x7fff_ffff || !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(corrupt(format!("has a damaged chunk at byte {at}")));
        }
        if dimensions.is_none() && &kind != b"IHDR" {
            return Err(corrupt("does not begin with an `IHDR` chunk"));
        }
        window.require(at + 8, length + 4)?;
        // Frames of an animation are no less than the picture itself, although old decoders pass them over.
        let critical = kind[0].is_ascii_uppercase() || &kind == b"fdAT";
        if critical && length <= budget {
            budget -= length;
            verify(window, at + 4, length + 4)?;
        }
        match &kind {
            b"IHDR" => {
                if length != 13 || dimensions.is_some() {
                    return Err(corrupt("has a damaged `IHDR` chunk"));
                }
                let (width, height) = (window.be32(at + 8)?, window.be32(at + 12)?);
                let [depth, color, compression, filter, interlace] = window.array(at + 16)?;
                let known = match color {
                    0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
                    3 => matches!(depth, 1 | 2 | 4 | 8),
                    2 | 4 | 6 => matches!(depth, 8 | 16),
                    _ => false,
                };
                if !known || compression != 0 || filter != 0 || interlace > 1 {
                    return Err(corrupt("has a damaged `IHDR` chunk"));
                }
                color_type = color;
                dimensions = Some(limits.admit(width, height)?);
            }
            b"PLTE" => seen_palette = true,
            b"acTL" | b"fcTL" | b"fdAT" => animation.take(window, &kind, at, length, seen_data)?,
            b"IDAT" if color_type == 3 && !seen_palette => return Err(corrupt("has no palette")),
            b"IDAT" => seen_data |= length > 0,
            b"IEND" => break,
            _ => {}
        }
        at += 12 + length;
    }
    match dimensions {
        Some(dimensions) if seen_data => {
            animation.finish()?;
            Ok(Picture::still(dimensions))
        }
        _ => Err(corrupt("holds no picture data")),
    }
}

/// The frames of an animation (PNG third edition, 4.9 and 11.3.6), as far as chunks show them.
///
/// Without an `acTL` chunk before the picture data there is no animation, and its chunks mean nothing.
#[derive(Debug, Default)]
struct Animation {
    /// How many frames `acTL` promises.
    promised: Option<u32>,
    /// Frames that began.
    begun: u32,
    /// Frames that have data.
    filled: u32,
    /// The sequence number that comes next.
    sequence: u32,
}

impl Animation {
    /// Takes the chunk at `at` of one of the three kinds.
    fn take(
        &mut self,
        window: &mut Window<'_>,
        kind: &[u8; 4],
        at: u64,
        length: u64,
        seen_data: bool,
    ) -> Result<(), Rejection> {
        if kind == b"acTL" {
            if !seen_data && length >= 8 && self.promised.is_none() {
                self.promised = Some(window.be32(at + 8)?);
            }
            return Ok(());
        }
        if self.promised.is_none() {
            return Ok(());
        }
        let least = if kind == b"fcTL" { 26 } else { 4 };
        if length < least || window.be32(at + 8)? != self.sequence {
            return Err(corrupt(format!(
                "has a damaged animation: the chunk at byte {at} is not number {}",
                self.sequence
            )));
        }
        self.sequence += 1;
        if kind == b"fcTL" {
            self.begun += 1;
            // The data of a frame before `IDAT` is `IDAT` itself, which has to be there anyway.
            self.filled += u32::from(!seen_data);
        } else {
            self.filled = self.begun;
        }
        Ok(())
    }

    /// Frames beyond the promised ones do no harm: decoders stop before them.
    fn finish(&self) -> Result<(), Rejection> {
        let promised = self.promised.unwrap_or(0);
        if self.filled < promised {
            return Err(corrupt(format!(
                "holds {} of the {promised} frames that it promises",
                self.filled
            )));
        }
        Ok(())
    }
}

/// Holds the `n` bytes at `at`, a chunk's type and data, against the checksum behind them.
fn verify(window: &mut Window<'_>, at: u64, n: u64) -> Result<(), Rejection> {
    let mut sum = crc32fast::Hasher::new();
    let mut done = 0;
    while done < n {
        let piece = window.bytes(at + done, (n - done).min(MAX_LOOK as u64) as usize)?;
        sum.update(piece);
        done += piece.len() as u64;
    }
    if sum.finalize() != window.be32(at + n)? {
        return Err(corrupt(format!(
            "has a damaged chunk at byte {}: its checksum is wrong",
            at - 4
        )));
    }
    Ok(())
}
