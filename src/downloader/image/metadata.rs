//! Metadata beside the pixels: the orientation, and the colour space. One reader for every format.
//!
//! Damaged metadata counts as missing; it never rejects a picture.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::color::Color;
use super::{ImageFormat, isobmff, jpeg, jxl, png, tiff};
use crate::downloader::Rejection;
use crate::downloader::window::{MAX_LOOK, Window};

/// Longest colour profile that is read. The largest in use, for printers, have about 3 MiB.
const MAX_PROFILE: usize = 8 * 1024 * 1024;

/// Segments, chunks or blocks that are visited before the search is given up.
const MAX_PARTS: usize = 1024 * 1024;

/// The EXIF tag `Orientation`; TIFF has it under the same number.
const ORIENTATION: u16 = 274;

const EXIF: &[u8] = b"Exif\0\0";

/// Returns the orientation, 1 to 8 as in EXIF: how the stored pixels have to be turned to stand upright.
///
/// `None` if the picture does not state one.
pub(super) fn orientation(window: &mut Window<'_>, format: ImageFormat) -> Option<u8> {
    let found = match format {
        ImageFormat::Jpeg => jpeg_orientation(window),
        ImageFormat::Png => {
            let chunk = png_chunk(window, 8, &[b"eXIf"]);
            chunk.and_then(|chunk| chunk.map_or(Ok(None), |part| exif(window, part)))
        }
        ImageFormat::Webp => {
            let chunk = webp_chunk(window, b"EXIF");
            chunk.and_then(|chunk| chunk.map_or(Ok(None), |part| exif(window, part)))
        }
        ImageFormat::Tiff => tiff::Page::first(window)
            .and_then(|page| page.number(window, ORIENTATION))
            .map(|value| value.and_then(|value| u8::try_from(value).ok())),
        ImageFormat::Avif | ImageFormat::Heic => {
            isobmff::primary(window).map(|primary| primary.and_then(|primary| primary.orientation))
        }
        ImageFormat::Jxl => jxl::orientation(window),
        _ => Ok(None),
    };
    found.ok().flatten().filter(|value| (1..=8).contains(value))
}

/// Width and height as the picture is shown, of those that are stored.
pub(super) const fn shown((width, height): (u32, u32), orientation: Option<u8>) -> (u32, u32) {
    match orientation {
        Some(5..=8) => (height, width),
        _ => (width, height),
    }
}

/// Returns the colour space that the picture states; `None` means sRGB.
pub(super) fn color(window: &mut Window<'_>, format: ImageFormat) -> Option<Color> {
    let found = match format {
        ImageFormat::Jpeg => jpeg_profile(window),
        ImageFormat::Png => png_color(window),
        ImageFormat::Webp => webp_chunk(window, b"ICCP").and_then(|part| {
            part.map(|part| bytes(window, part, MAX_PROFILE))
                .transpose()
        }),
        ImageFormat::Tiff => {
            tiff::Page::first(window).and_then(|page| page.bytes(window, 34675, MAX_PROFILE))
        }
        ImageFormat::Gif => gif_profile(window),
        ImageFormat::Bmp => bmp_profile(window),
        ImageFormat::Avif | ImageFormat::Heic => return heif_color(window).ok().flatten(),
        _ => return None,
    };
    found
        .ok()
        .flatten()
        .map(Color::Icc)
        .or_else(|| match format {
            ImageFormat::Png => png_numbers(window).ok().flatten(),
            _ => None,
        })
}

/// A run of bytes inside the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) len: u64,
}

/// The first `most` bytes of `part`, or all of them.
pub(super) fn bytes(
    window: &mut Window<'_>,
    part: Part,
    most: usize,
) -> Result<Vec<u8>, Rejection> {
    window.require(part.at, part.len)?;
    let mut left = usize::try_from(part.len).map_or(most, |len| len.min(most));
    let (mut found, mut at) = (Vec::with_capacity(left), part.at);
    while left > 0 {
        let piece = window.bytes(at, left.min(MAX_LOOK))?;
        found.extend_from_slice(piece);
        at += piece.len() as u64;
        left -= piece.len();
    }
    Ok(found)
}

/// The orientation in an EXIF block. Many writers put JPEG's `Exif\0\0` before it in PNG and WebP too.
pub(super) fn exif(window: &mut Window<'_>, part: Part) -> Result<Option<u8>, Rejection> {
    let block = bytes(window, part, MAX_LOOK)?;
    let block = block.strip_prefix(EXIF).unwrap_or(&block);
    Ok(exif_orientation(block))
}

fn exif_orientation(block: &[u8]) -> Option<u8> {
    let little = match block.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let pair = <[u8; 2]>::try_from(block.get(at..at.checked_add(2)?)?).ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    };
    let u32_at = |at: usize| {
        let four = <[u8; 4]>::try_from(block.get(at..at.checked_add(4)?)?).ok()?;
        Some(if little {
            u32::from_le_bytes(four)
        } else {
            u32::from_be_bytes(four)
        })
    };
    let directory = u32_at(4)? as usize;
    let count = usize::from(u16_at(directory)?);
    let entry = (0..count)
        .map(|n| directory + 2 + 12 * n)
        .find(|at| u16_at(*at) == Some(ORIENTATION))?;
    let value = match u16_at(entry + 2)? {
        1 => u16::from(*block.get(entry + 8)?),
        3 => u16_at(entry + 8)?,
        4 => u16::try_from(u32_at(entry + 8)?).ok()?,
        _ => return None,
    };
    u8::try_from(value).ok()
}

/// The application segments before the first scan, as their number and content.
fn jpeg_segments(window: &mut Window<'_>) -> Result<Vec<(u8, Part)>, Rejection> {
    let (mut at, mut found) = (2, Vec::new());
    for _ in 0..MAX_PARTS {
        let Ok((marker, behind)) = jpeg::next_marker(window, at) else {
            break;
        };
        at = behind;
        match marker {
            0xd8 | 0x01 | 0xd0..=0xd7 => continue,
            0xd9 | 0xda => break,
            _ => {}
        }
        let length = u64::from(window.be16(at)?);
        if length < 2 {
            break;
        }
        if matches!(marker, 0xe0..=0xef) {
            let part = Part {
                at: at + 2,
                len: length - 2,
            };
            found.push((marker - 0xe0, part));
        }
        at += length;
    }
    Ok(found)
}

fn jpeg_orientation(window: &mut Window<'_>) -> Result<Option<u8>, Rejection> {
    for (number, part) in jpeg_segments(window)? {
        if number == 1
            && window.up_to(part.at, EXIF.len())? == EXIF
            && let Some(found) = exif(window, part)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A profile in one or more segments (ICC.1:2022, B.4): each has its number, from 1 on, and how many there are.
fn jpeg_profile(window: &mut Window<'_>) -> Result<Option<Vec<u8>>, Rejection> {
    const NAME: &[u8] = b"ICC_PROFILE\0";
    let mut parts = Vec::new();
    for (number, part) in jpeg_segments(window)? {
        let before = NAME.len() as u64 + 2;
        if number != 2 || part.len < before || window.up_to(part.at, NAME.len())? != NAME {
            continue;
        }
        let [number, count] = window.array(part.at + NAME.len() as u64)?;
        let content = Part {
            at: part.at + before,
            len: part.len - before,
        };
        parts.push((number, count, content));
    }
    parts.sort_by_key(|(number, _, _)| *number);
    parts.dedup_by_key(|(number, _, _)| *number);
    let complete = parts
        .iter()
        .zip(1..=u8::MAX)
        .all(|((number, count, _), expected)| {
            *number == expected && usize::from(*count) == parts.len()
        });
    if parts.is_empty() || !complete {
        return Ok(None);
    }
    let mut profile = Vec::new();
    for (_, _, part) in parts {
        profile.extend(bytes(window, part, MAX_PROFILE)?);
    }
    Ok(Some(profile))
}

/// The first chunk of one of `kinds` at or behind `at`.
fn png_chunk(
    window: &mut Window<'_>,
    mut at: u64,
    kinds: &[&[u8; 4]],
) -> Result<Option<Part>, Rejection> {
    for _ in 0..MAX_PARTS {
        let [l0, l1, l2, l3, kind @ ..] = window.array::<8>(at)?;
        let len = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
        if kinds.contains(&&kind) {
            return Ok(Some(Part { at: at + 8, len }));
        }
        if &kind == b"IEND" {
            break;
        }
        at += 12 + len;
    }
    Ok(None)
}

/// The chunk of that kind before the picture data.
fn png_before_data(window: &mut Window<'_>, kind: &[u8; 4]) -> Result<Option<Part>, Rejection> {
    let found = png_chunk(window, png::SIGNATURE.len() as u64, &[kind, b"IDAT"])?;
    match found {
        Some(part) if window.array::<4>(part.at - 4)? == *kind => Ok(Some(part)),
        _ => Ok(None),
    }
}

/// The profile of an `iCCP` chunk, where no `cICP` or `sRGB` chunk precedes it in rank (PNG 3rd edition, 4.3).
fn png_color(window: &mut Window<'_>) -> Result<Option<Vec<u8>>, Rejection> {
    for kind in [b"cICP", b"sRGB"] {
        if png_before_data(window, kind)?.is_some() {
            return Ok(None);
        }
    }
    let Some(part) = png_before_data(window, b"iCCP")? else {
        return Ok(None);
    };
    let chunk = bytes(window, part, MAX_PROFILE)?;
    let Some(end) = chunk.iter().take(80).position(|byte| *byte == 0) else {
        return Ok(None);
    };
    let Some(packed) = chunk.get(end + 2..).filter(|_| chunk[end + 1] == 0) else {
        return Ok(None);
    };
    let mut profile = Vec::new();
    let read = ZlibDecoder::new(packed)
        .take(MAX_PROFILE as u64)
        .read_to_end(&mut profile);
    Ok(read.is_ok().then_some(profile))
}

/// The colour space by numbers: `cICP`, or `gAMA` and `cHRM` where no other chunk outranks them.
fn png_numbers(window: &mut Window<'_>) -> Result<Option<Color>, Rejection> {
    if let Some(part) = png_before_data(window, b"cICP")?.filter(|part| part.len == 4) {
        let [primaries, transfer, matrix, _] = window.array(part.at)?;
        return Ok((matrix == 0).then_some(Color::Cicp {
            primaries,
            transfer,
        }));
    }
    if png_before_data(window, b"sRGB")?.is_some() {
        return Ok(None);
    }
    let gamma = match png_before_data(window, b"gAMA")?.filter(|part| part.len == 4) {
        Some(part) => f64::from(window.be32(part.at)?) / 100_000.0,
        None => return Ok(None),
    };
    let primaries = match png_before_data(window, b"cHRM")?.filter(|part| part.len == 32) {
        Some(part) => {
            let mut numbers = [0.0; 8];
            for (number, at) in numbers.iter_mut().zip((part.at..).step_by(4)) {
                *number = f64::from(window.be32(at)?) / 100_000.0;
            }
            Some(numbers)
        }
        None => None,
    };
    Ok(Some(Color::Gamma { gamma, primaries }))
}

fn webp_chunk(window: &mut Window<'_>, wanted: &[u8; 4]) -> Result<Option<Part>, Rejection> {
    let end = (8 + u64::from(window.le32(4)?)).min(window.len());
    let mut at = 12;
    for _ in 0..MAX_PARTS {
        if at + 8 > end {
            break;
        }
        let [a, b, c, d, l0, l1, l2, l3] = window.array(at)?;
        let len = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        if [a, b, c, d] == *wanted {
            return Ok(Some(Part { at: at + 8, len }));
        }
        at += 8 + len + (len & 1);
    }
    Ok(None)
}

/// The application extension `ICCRGBG1012`, as its blocks joined.
fn gif_profile(window: &mut Window<'_>) -> Result<Option<Vec<u8>>, Rejection> {
    let table = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3_u64 << ((flags & 7) + 1),
    };
    let mut at = 13 + table(window.u8(10)?);
    // Such an extension precedes the first image.
    while window.u8(at)? == 0x21 {
        let is_profile = window.up_to(at, 14)?.get(1..) == Some(b"\xff\x0bICCRGBG1012");
        let mut profile = Vec::new();
        at += if is_profile { 14 } else { 2 };
        loop {
            let len = window.u8(at)?;
            if len == 0 {
                break;
            }
            if is_profile && profile.len() < MAX_PROFILE {
                profile.extend_from_slice(window.bytes(at + 1, len.into())?);
            }
            at += 1 + u64::from(len);
        }
        at += 1;
        if is_profile {
            return Ok(Some(profile));
        }
    }
    Ok(None)
}

/// The embedded profile of a `BITMAPV5HEADER`.
fn bmp_profile(window: &mut Window<'_>) -> Result<Option<Vec<u8>>, Rejection> {
    const HEADER: u64 = 14;
    if window.le32(HEADER)? < 124 || &window.array::<4>(HEADER + 56)? != b"DEBM" {
        return Ok(None);
    }
    let part = Part {
        at: HEADER + u64::from(window.le32(HEADER + 112)?),
        len: window.le32(HEADER + 116)?.into(),
    };
    bytes(window, part, MAX_PROFILE).map(Some)
}

/// The `colr` property of the primary item: a profile, or code points.
fn heif_color(window: &mut Window<'_>) -> Result<Option<Color>, Rejection> {
    let Some(part) = isobmff::primary(window)?.and_then(|primary| primary.color) else {
        return Ok(None);
    };
    let content = Part {
        at: part.at + 4,
        len: part.len.saturating_sub(4),
    };
    match &window.array::<4>(part.at)? {
        b"prof" | b"rICC" => Ok(Some(Color::Icc(bytes(window, content, MAX_PROFILE)?))),
        b"nclx" => {
            let [_, primaries, _, transfer] = window.array(content.at)?;
            Ok(Some(Color::Cicp {
                primaries,
                transfer,
            }))
        }
        _ => Ok(None),
    }
}
