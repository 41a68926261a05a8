//! GIF (GIF89a specification, CompuServe 1990): every block is inside the file, and there is an image.
//!
//! Many real GIFs lack the trailer, or have padding in its place, and every decoder shows them; so a
//! file that ends between two blocks, behind a whole image, is accepted. One that ends within a block is cut.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

const EXTENSION: u8 = 0x21;
const IMAGE: u8 = 0x2c;
const TRAILER: u8 = 0x3b;

/// Largest initial size of LZW codes, in bits. Codes grow by one bit at least, and have 12 at most.
const MAX_CODE_SIZE: u8 = 11;

pub(crate) fn matches(head: &[u8]) -> bool {
    head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a")
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let (dimensions, _) = walk(window, limits)?;
    Ok(Picture::still(dimensions))
}

/// Follows the blocks. Returns the size of the picture, and how many images make it up.
pub(super) fn walk(
    window: &mut Window<'_>,
    limits: &Limits,
) -> Result<((u32, u32), u64), Rejection> {
    let screen = (window.le16(6)?, window.le16(8)?);
    let mut dimensions = if screen.0 == 0 || screen.1 == 0 {
        // Decoders take the first image's size for a screen without one.
        None
    } else {
        Some(limits.admit(screen.0.into(), screen.1.into())?)
    };
    let flags = window.u8(10)?;
    window.u8(12)?;
    let mut at = 13 + color_table(flags);
    let mut images = 0;
    loop {
        match window.up_to(at, 1)?.first() {
            Some(&EXTENSION) => at = skip_blocks(window, at + 2)?,
            Some(&IMAGE) => {
                let [_, _, _, _, w0, w1, h0, h1, flags] = window.array(at + 1)?;
                let (width, height) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
                if dimensions.is_none() {
                    dimensions = Some(limits.admit(width.into(), height.into())?);
                }
                limits.admit_frame(width.into(), height.into())?;
                let data = at + 10 + color_table(flags);
                let code_size = window.u8(data)?;
                if code_size > MAX_CODE_SIZE {
                    return Err(corrupt(format!("has an LZW code size of {code_size}")));
                }
                at = skip_blocks(window, data + 1)?;
                images += 1;
            }
            Some(&TRAILER) | None => break,
            // Padding and rubbish behind a whole image hide nothing.
            Some(_) if images > 0 => break,
            Some(other) => return Err(corrupt(format!("has an unknown block 0x{other:02x}"))),
        }
    }
    match dimensions {
        Some(dimensions) if images > 0 => Ok((dimensions, images)),
        _ => Err(corrupt("holds no image")),
    }
}

/// Bytes of the colour table that `flags` announce.
fn color_table(flags: u8) -> u64 {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    }
}

/// The offset behind the blocks that begin at `at`.
fn skip_blocks(window: &mut Window<'_>, mut at: u64) -> Result<u64, Rejection> {
    loop {
        match window.u8(at)? {
            0 => return Ok(at + 1),
            n => at += 1 + u64::from(n),
        }
    }
}
