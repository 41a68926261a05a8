//! JPEG (ITU-T T.81): the marker segments up to the first scan, and an end of image behind it.
//!
//! Entropy-coded data is not read: the end marker is looked for from the end of the file backwards.
//! Within coded data every 0xff is followed by a stuffed zero or a restart marker, so that a cut picture has none;
//! the end marker of an embedded thumbnail stands before the first scan and is not looked at. What
//! follows the end of image (padding, further pictures of an MPO, a motion photo's film) is left alone.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const TEM: u8 = 0x01;

/// Most bytes between two segments: more than one segment with a wrong length leaves behind.
const MAX_RUBBISH: u64 = 128 * 1024;

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let start = Start::read(window, limits)?;
    match window.rfind(start.data, &[0xff, EOI])? {
        Some(end) if end > start.data => Ok(Picture::still(start.dimensions)),
        Some(_) => Err(corrupt("holds no picture data")),
        None => Err(corrupt("is truncated: there is no end-of-image marker")),
    }
}

/// What stands before the coded data.
#[derive(Debug)]
pub(super) struct Start {
    dimensions: (u32, u32),
    components: u8,
    /// Whether coefficients have to be kept until the last scan: it is progressive, or its first scan has not
    /// all components.
    keeps_coefficients: bool,
    /// Where the coded data of the first scan begins.
    data: u64,
}

impl Start {
    pub(super) fn read(window: &mut Window<'_>, limits: &Limits) -> Result<Self, Rejection> {
        read_start(window, limits)
    }

    /// Width and height in pixels, as they are stored.
    pub(super) const fn dimensions(&self) -> (u32, u32) {
        self.dimensions
    }

    /// Bytes that decoding takes for each pixel: the pixels, and two bytes for each coefficient that is kept.
    pub(super) fn decoded_bytes(&self) -> u64 {
        let channels = if self.components == 1 { 1 } else { 3 };
        let coefficients = if self.keeps_coefficients {
            2 * u64::from(self.components)
        } else {
            0
        };
        channels + coefficients
    }
}

fn read_start(window: &mut Window<'_>, limits: &Limits) -> Result<Start, Rejection> {
    let mut at = 2;
    let mut frame = None;
    loop {
        let (marker, behind) = next_marker(window, at)?;
        at = behind;
        match marker {
            SOI | TEM | 0xd0..=0xd7 => continue,
            EOI => return Err(corrupt("ends before any picture data")),
            _ => {}
        }
        let length = u64::from(window.be16(at)?);
        if length < 2 {
            return Err(corrupt(format!(
                "has a segment 0x{marker:02x} of length {length}"
            )));
        }
        window.require(at, length)?;
        match marker {
            // Frame headers (table B.1); 0xc4, 0xc8 and 0xcc are other things.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let [_, _, _, h0, h1, w0, w1, components] = window.array(at)?;
                if components == 0 || length < 8 + 3 * u64::from(components) {
                    return Err(corrupt("has a frame header that is too short"));
                }
                let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
                let dimensions = limits.admit(width.into(), height.into())?;
                frame = Some((dimensions, components, marker & 3 == 2));
            }
            SOS => {
                let (dimensions, components, progressive) =
                    frame.ok_or_else(|| corrupt("has picture data without a frame header"))?;
                return Ok(Start {
                    dimensions,
                    components,
                    keeps_coefficients: progressive || window.u8(at + 2)? < components,
                    data: at + length,
                });
            }
            _ => {}
        }
        at += length;
    }
}

/// The next marker at or behind `at`, and the offset behind it.
///
/// A marker may have any number of fill bytes before it (B.1.1.2). Up to [`MAX_RUBBISH`] between segments is skipped,
/// as decoders do.
pub(super) fn next_marker(window: &mut Window<'_>, mut at: u64) -> Result<(u8, u64), Rejection> {
    let start = at;
    loop {
        if at - start > MAX_RUBBISH {
            return Err(corrupt(format!("has no segment at byte {start}")));
        }
        let [first, second] = window.array(at)?;
        match (first, second) {
            (0xff, 0xff) => at += 1,
            (0xff, 0x00) => at += 2,
            (0xff, marker) => return Ok((marker, at + 2)),
            _ => {
                let ahead = window.up_to(at, 4096)?;
                at += memchr::memchr(0xff, ahead).unwrap_or(ahead.len()) as u64;
            }
        }
    }
}
