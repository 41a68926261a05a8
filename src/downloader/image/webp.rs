//! WebP (RFC 9649): RIFF chunks inside the file, and the size from `VP8X`, `VP8 ` or `VP8L`.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

pub(crate) fn matches(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP")
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let stated = 8 + u64::from(window.le32(4)?);
    // Files without the last padding byte are common, and every decoder reads them.
    if stated > window.len() + 1 {
        return Err(corrupt(format!(
            "ends after {} bytes where its header promises {stated}",
            window.len()
        )));
    }
    let mut canvas = None;
    let mut image = None;
    let mut is_animated = false;
    let mut at = 12;
    while at + 8 <= stated {
        let [a, b, c, d, l0, l1, l2, l3] = window.array(at)?;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let data = at + 8;
        match &[a, b, c, d] {
            b"VP8X" if canvas.is_none() => {
                let [_, _, _, _, w0, w1, w2, h0, h1, h2] = window.array(data)?;
                canvas = Some(limits.admit(
                    1 + u32::from_le_bytes([w0, w1, w2, 0]),
                    1 + u32::from_le_bytes([h0, h1, h2, 0]),
                )?);
            }
            b"VP8 " | b"VP8L" => {
                let size = bitstream(window, &[a, b, c, d], data)?;
                image.get_or_insert(limits.admit(size.0, size.1)?);
            }
            // A frame of an animation: 16 bytes, then the chunks of one picture (section 2.7.1.1).
            b"ANMF" => {
                is_animated = true;
                let [w0, w1, w2, h0, h1, h2] = window.array(data + 6)?;
                image.get_or_insert(limits.admit(
                    1 + u32::from_le_bytes([w0, w1, w2, 0]),
                    1 + u32::from_le_bytes([h0, h1, h2, 0]),
                )?);
            }
            // Frames that were lost: no checksum and no count would tell.
            [0, 0, 0, 0] if is_animated => {
                return Err(corrupt(format!("has a damaged chunk at byte {at}")));
            }
            // Metadata behind the picture: a wrong length there does no harm to it.
            _ if image.is_some() && window.require(data, length).is_err() => break,
            _ => {}
        }
        window.require(data, length)?;
        at = data + length + (length & 1);
    }
    match image {
        Some(image) => Ok(Picture::still(canvas.unwrap_or(image))),
        None => Err(corrupt("holds no picture data")),
    }
}

/// The size that a key frame's header states.
fn bitstream(window: &mut Window<'_>, kind: &[u8; 4], at: u64) -> Result<(u32, u32), Rejection> {
    if kind == b"VP8L" {
        let [signature, bits @ ..] = window.array::<5>(at)?;
        let bits = u32::from_le_bytes(bits);
        if signature != 0x2f || bits >> 29 != 0 {
            return Err(corrupt("has a damaged lossless bitstream"));
        }
        return Ok(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1));
    }
    // RFC 6386, section 9.1.
    let [tag, _, _, start @ ..] = window.array::<10>(at)?;
    let [0x9d, 0x01, 0x2a, w0, w1, h0, h1] = start else {
        return Err(corrupt("has a damaged lossy bitstream"));
    };
    if tag & 1 != 0 {
        return Err(corrupt("does not begin with a key frame"));
    }
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Ok((side(w0, w1), side(h0, h1)))
}
