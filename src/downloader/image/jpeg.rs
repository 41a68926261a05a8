//! JPEG (ITU-T T.81): the marker segments up to the first scan, and an end of image behind it.
//!
//! Entropy-coded data is read only where there is no end marker, to see whether all of it came: see [`walk`]. The
//! marker is looked for from the end of the file backwards.
//! Within coded data every 0xff is followed by a stuffed zero or a restart marker, so that a cut picture has none;
//! the end marker of an embedded thumbnail stands before the first scan and is not looked at. What
//! follows the end of image (padding, further pictures of an MPO, a motion photo's film) is left alone.

mod walk;

use image::{DynamicImage, GrayImage, RgbImage};

pub(super) use walk::{Walked, walk};

use super::memory::Memory;
use super::{Limits, Picture};
use crate::downloader::window::{Window, corrupt};
use crate::downloader::{Body, Rejection};

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const TEM: u8 = 0x01;

/// Most bytes between two segments: more than one segment with a wrong length leaves behind.
const MAX_RUBBISH: u64 = 128 * 1024;

pub(super) fn inspect(
    window: &mut Window<'_>,
    limits: &Limits,
    memory: &Memory,
) -> Result<Picture, Rejection> {
    let start = Start::read(window, limits)?;
    match window.rfind(start.data, &[0xff, EOI])? {
        Some(end) if end > start.data => Ok(Picture::still(start.dimensions)),
        Some(_) => Err(corrupt("holds no picture data")),
        // Some encoders leave the marker out.
        None if !window.is_prefix() && walk(window, memory)? == Walked::Whole => {
            Ok(Picture::still(start.dimensions))
        }
        None => Err(corrupt("is truncated: there is no end-of-image marker")),
    }
}

/// The decoder that makes right pixels of a JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// zune-jpeg, by way of `image`: fast.
    First,
    /// jpeg-decoder, for what the first makes wrong pixels of.
    Second,
    /// None does; the text names the variant.
    Nothing(&'static str),
}

/// Chooses the decoder by the frame header and the number of components in the first scan.
///
/// zune-jpeg 0.5.15 makes wrong pixels, without an error, of sequential pictures whose components come in several scans,
/// and of those whose first component is not the one with the most samples. It refuses factors of three.
fn codec(marker: u8, precision: u8, sampling: &[(u8, u8)], in_first_scan: u8) -> Codec {
    match marker {
        0xc0..=0xc2 => {}
        0xc3 => return Codec::Nothing("is coded without loss, which is not decoded"),
        0xc9..=0xcb => return Codec::Nothing("is coded arithmetically, which is not decoded"),
        _ => return Codec::Nothing("is coded hierarchically, which is not decoded"),
    }
    if precision != 8 {
        return Codec::Nothing("has more than 8 bits a sample, which is not decoded");
    }
    let first = sampling.first().copied().unwrap_or((1, 1));
    let is_simple = |(h, v): &(u8, u8)| {
        *h <= first.0 && *v <= first.1 && matches!(h, 1 | 2 | 4) && matches!(v, 1 | 2 | 4)
    };
    let is_interleaved = marker == 0xc2 || usize::from(in_first_scan) == sampling.len();
    match sampling.len() {
        _ if is_interleaved && sampling.iter().all(is_simple) => Codec::First,
        1 | 3 => Codec::Second,
        _ => Codec::Nothing("has four channels in a rare arrangement, which is not decoded"),
    }
}

/// The pixels as the second decoder makes them.
pub(super) fn second(body: &Body) -> Result<DynamicImage, Rejection> {
    let undecodable = |error| corrupt(format!("does not decode: {error}"));
    let mut decoder = jpeg_decoder::Decoder::new(body.reader());
    let bytes = decoder.decode().map_err(undecodable)?;
    let picture = decoder.info().and_then(|info| {
        let (width, height) = (info.width.into(), info.height.into());
        match info.pixel_format {
            jpeg_decoder::PixelFormat::L8 => {
                GrayImage::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8)
            }
            jpeg_decoder::PixelFormat::RGB24 => {
                RgbImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8)
            }
            jpeg_decoder::PixelFormat::L16 | jpeg_decoder::PixelFormat::CMYK32 => None,
        }
    });
    picture.ok_or_else(|| corrupt("does not decode: its decoder gave up"))
}

/// What stands before the coded data.
#[derive(Debug)]
pub(super) struct Start {
    dimensions: (u32, u32),
    components: u8,
    /// Whether coefficients have to be kept until the last scan: it is progressive, or its first scan has not
    /// all components.
    keeps_coefficients: bool,
    codec: Codec,
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

    /// The decoder for its pixels.
    pub(super) const fn codec(&self) -> Codec {
        self.codec
    }

    /// Bytes that decoding takes for each pixel: the pixels, and two bytes for each coefficient that is kept.
    pub(super) fn decoded_bytes(&self) -> u64 {
        if self.codec == Codec::Second {
            // Coefficients, samples and pixels, of three channels.
            return 16;
        }
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
                let [_, _, precision, h0, h1, w0, w1, components] = window.array(at)?;
                if components == 0 || length < 8 + 3 * u64::from(components) {
                    return Err(corrupt("has a frame header that is too short"));
                }
                let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
                let dimensions = limits.admit(width.into(), height.into())?;
                let parts = window.bytes(at + 8, 3 * usize::from(components))?;
                let sampling: Vec<(u8, u8)> = parts
                    .chunks_exact(3)
                    .map(|part| (part[1] >> 4, part[1] & 15))
                    .collect();
                frame = Some((dimensions, marker, precision, sampling));
            }
            SOS => {
                let (dimensions, marker, precision, sampling) =
                    frame.ok_or_else(|| corrupt("has picture data without a frame header"))?;
                let in_first_scan = window.u8(at + 2)?;
                let components = sampling.len() as u8;
                return Ok(Start {
                    dimensions,
                    components,
                    keeps_coefficients: marker & 3 == 2 || in_first_scan < components,
                    codec: codec(marker, precision, &sampling, in_first_scan),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_goes_to_a_decoder_that_is_right_about_it() {
        use Codec::{First, Nothing, Second};
        type Case = (u8, u8, &'static [(u8, u8)], u8, bool, Codec);
        let any = Nothing("");
        let cases: [Case; 14] = [
            (0xc0, 8, &[(1, 1)], 1, true, First),
            (0xc0, 8, &[(2, 2)], 1, true, First),
            (0xc0, 8, &[(2, 2), (1, 1), (1, 1)], 3, true, First),
            (0xc1, 8, &[(2, 1), (1, 1), (1, 1)], 3, true, First),
            (0xc2, 8, &[(2, 2), (1, 1), (1, 1)], 1, true, First),
            (0xc0, 8, &[(1, 1), (1, 1), (1, 1), (1, 1)], 4, true, First),
            (0xc0, 8, &[(2, 2), (1, 1), (1, 1)], 1, true, Second),
            (0xc2, 8, &[(1, 1), (1, 1), (2, 1)], 3, true, Second),
            (0xc0, 8, &[(3, 1), (1, 1), (1, 1)], 3, true, Second),
            (0xc0, 8, &[(1, 1), (2, 2), (2, 2), (1, 1)], 4, false, any),
            (0xc1, 12, &[(1, 1)], 1, false, any),
            (0xc3, 8, &[(1, 1)], 1, false, any),
            (0xc9, 8, &[(1, 1)], 1, false, any),
            (0xc5, 8, &[(1, 1)], 1, false, any),
        ];
        for (marker, precision, sampling, scan, is_decoded, expected) in cases {
            let found = codec(marker, precision, sampling, scan);
            match is_decoded {
                true => assert_eq!(found, expected, "{marker:x} {sampling:?} {scan}"),
                false => assert!(matches!(found, Nothing(_)), "{marker:x} {sampling:?}"),
            }
        }
    }
}
