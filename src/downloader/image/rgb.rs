//! SGI image files (version 1.0 of the format's specification by Paul Haeberli), plain and run-length encoded.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

const HEADER: u64 = 512;

/// Whether `head` begins like an SGI file: two bytes of magic alone are too few.
pub(crate) fn matches(head: &[u8]) -> bool {
    matches!(head, [0x01, 0xda, 0 | 1, 1 | 2, 0, 1..=3, ..] if head.len() >= 12)
}

/// What the header states.
#[derive(Debug)]
struct Header {
    runs: bool,
    sample: u64,
    width: u32,
    height: u32,
    channels: u64,
}

impl Header {
    fn read(window: &mut Window<'_>) -> Result<Self, Rejection> {
        let [_, _, storage, sample, _, dimension, x0, x1, y0, y1, z0, z1] = window.array(0)?;
        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
        Ok(Self {
            runs: storage == 1,
            sample: sample.into(),
            width: side(x0, x1),
            // Lower dimensions leave the other sides undefined.
            height: if dimension == 1 { 1 } else { side(y0, y1) },
            channels: if dimension < 3 {
                1
            } else {
                side(z0, z1).into()
            },
        })
    }

    fn rows(&self) -> u64 {
        u64::from(self.height) * self.channels
    }

    /// Offset and length of the coded row `n`.
    fn row(&self, window: &mut Window<'_>, n: u64) -> Result<(u64, u64), Rejection> {
        let start = window.be32(HEADER + 4 * n)?;
        let length = window.be32(HEADER + 4 * (self.rows() + n))?;
        Ok((start.into(), length.into()))
    }
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let header = Header::read(window)?;
    let dimensions = limits.admit(header.width, header.height)?;
    if header.channels == 0 {
        return Err(corrupt("has no channels"));
    }
    if header.runs {
        let rows = header.rows();
        window.require(HEADER, 8 * rows)?;
        for n in 0..rows {
            let (start, length) = header.row(window, n)?;
            window.require(start, length)?;
        }
    } else {
        window.require(
            HEADER,
            u64::from(header.width) * header.rows() * header.sample,
        )?;
    }
    Ok(Picture::still(dimensions))
}

/// Unpacks every row, without keeping it: each has to come to the width of the picture.
pub(super) fn decode(window: &mut Window<'_>) -> Result<(), Rejection> {
    let header = Header::read(window)?;
    if !header.runs {
        return Ok(());
    }
    for n in 0..header.rows() {
        let (start, length) = header.row(window, n)?;
        let (mut at, end, mut pixels) = (start, start + length, 0_u64);
        while at < end && pixels < u64::from(header.width) {
            // With samples of two bytes, the code is in the lower one.
            let code = window.u8(at + header.sample - 1)?;
            let count = u64::from(code & 0x7f);
            if count == 0 {
                break;
            }
            at += header.sample * if code & 0x80 == 0 { 2 } else { 1 + count };
            pixels += count;
        }
        if pixels != u64::from(header.width) || at > end {
            return Err(corrupt(format!(
                "has a row that does not decode, number {n}"
            )));
        }
    }
    Ok(())
}
