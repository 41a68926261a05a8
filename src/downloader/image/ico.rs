//! ICO and CUR: directory entries inside the file, and the picture that each one points to.

use super::bmp::Bitmap;
use super::{Limits, Picture, png};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

const DIRECTORY: usize = 6;
const ENTRY: usize = 16;

/// Whether `head` begins like an icon (`kind` 1) or a cursor (`kind` 2): the first entry has to make sense,
/// since four bytes that are nearly zero begin many other files.
pub(crate) fn matches(head: &[u8], kind: u8) -> bool {
    if head.len() < DIRECTORY + ENTRY || !head.starts_with(&[0, 0, kind, 0]) {
        return false;
    }
    let count = u16::from_le_bytes([head[4], head[5]]);
    let size = u32::from_le_bytes([head[14], head[15], head[16], head[17]]);
    let offset = u32::from_le_bytes([head[18], head[19], head[20], head[21]]);
    count > 0 && size > 0 && offset as usize >= DIRECTORY + ENTRY * usize::from(count)
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let count = window.le16(4)?;
    let mut largest: Option<(u32, u32)> = None;
    for n in 0..u64::from(count) {
        let at = DIRECTORY as u64 + ENTRY as u64 * n;
        let size = u64::from(window.le32(at + 8)?);
        let offset = u64::from(window.le32(at + 12)?);
        let dimensions = entry(window, limits, offset, size)?;
        let area = |(w, h): (u32, u32)| u64::from(w) * u64::from(h);
        if largest.is_none_or(|known| area(dimensions) > area(known)) {
            largest = Some(dimensions);
        }
    }
    largest
        .map(Picture::still)
        .ok_or_else(|| corrupt("holds no picture"))
}

/// Where the entries are that are PNGs, and how wide they are.
pub(super) fn pngs(window: &mut Window<'_>) -> Result<Vec<(u64, u32)>, Rejection> {
    let mut found = Vec::new();
    for n in 0..u64::from(window.le16(4)?) {
        let offset = u64::from(window.le32(DIRECTORY as u64 + ENTRY as u64 * n + 12)?);
        if window.up_to(offset, 8)? == png::SIGNATURE {
            found.push((offset, window.be32(offset + 16)?));
        }
    }
    Ok(found)
}

fn entry(
    window: &mut Window<'_>,
    limits: &Limits,
    offset: u64,
    size: u64,
) -> Result<(u32, u32), Rejection> {
    if window.up_to(offset, 8)? == png::SIGNATURE {
        window.require(offset, size)?;
        return limits.admit(window.be32(offset + 16)?, window.be32(offset + 20)?);
    }
    let bitmap = Bitmap::read(window, offset)?;
    if !(12..=124).contains(&bitmap.header) {
        return Err(corrupt("an entry is neither a bitmap nor a PNG"));
    }
    // The height counts the colours and the mask below them.
    let height = bitmap.height / 2;
    let dimensions = limits.admit(bitmap.width, height)?;
    // The stated size is wrong in many an icon, and the mask may be missing where there is an alpha
    // channel: the colours have to be there, and of the mask what the size promises.
    let above = bitmap.header + bitmap.palette_bytes(0);
    let colors = above.saturating_add(bitmap.pixel_bytes(height));
    let mask = u64::from(bitmap.width).div_ceil(32) * 4 * u64::from(height);
    window.require(offset, size.clamp(colors, colors.saturating_add(mask)))?;
    Ok(dimensions)
}
