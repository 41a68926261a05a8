//! Photoshop PSD and PSB (Adobe Photoshop file formats specification): header, sections, merged picture.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

pub(crate) fn matches(head: &[u8]) -> bool {
    matches!(head, [b'8', b'B', b'P', b'S', 0, 1 | 2, ..])
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let large = window.be16(4)? == 2;
    let channels = u64::from(window.be16(12)?);
    let (height, width) = (window.be32(14)?, window.be32(18)?);
    let depth = u64::from(window.be16(22)?);
    if channels == 0 || channels > 56 || !matches!(depth, 1 | 8 | 16 | 32) {
        return Err(corrupt("has a damaged header"));
    }
    let dimensions = limits.admit(width, height)?;
    // Colour mode data, resources, layers: each with its length before it.
    let mut at = 26;
    for section in 0..3 {
        let (length, field) = if large && section == 2 {
            (window.be64(at)?, 8)
        } else {
            (window.be32(at)?.into(), 4)
        };
        window.require(at + field, length)?;
        at += field + length;
    }
    let rows = channels * u64::from(height);
    match window.be16(at)? {
        0 => window.require(
            at + 2,
            rows.saturating_mul((u64::from(width) * depth).div_ceil(8)),
        )?,
        1 => {
            // Bytes of each coded row stand before them all.
            let field = if large { 4 } else { 2 };
            window.require(at + 2, rows * field)?;
            let mut bytes = 0;
            for row in 0..rows {
                let place = at + 2 + row * field;
                bytes += if large {
                    window.be32(place)?.into()
                } else {
                    u64::from(window.be16(place)?)
                };
            }
            window.require(at + 2 + rows * field, bytes)?;
        }
        2 | 3 => window.require(at + 2, 1)?,
        other => return Err(corrupt(format!("has compression {other}"))),
    }
    Ok(Picture::still(dimensions))
}
