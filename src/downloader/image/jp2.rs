//! JPEG 2000 (ITU-T T.800): boxes of the container, and tile-parts of the codestream inside the file.

use super::isobmff::atom;
use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

pub(crate) const CONTAINER: &[u8] = b"\0\0\0\x0cjP  \r\n\x87\n";
const CODESTREAM: &[u8] = &[0xff, 0x4f, 0xff, 0x51];
const SOT: u16 = 0xff90;
const EOC: u16 = 0xffd9;

pub(crate) fn matches(head: &[u8]) -> bool {
    head.starts_with(CONTAINER) || head.starts_with(CODESTREAM)
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let len = window.len();
    if window.up_to(0, 4)? == CODESTREAM {
        return codestream(window, 0, len, limits);
    }
    let (mut at, mut picture) = (0, None);
    while at < len {
        let atom = match atom(window, at, len) {
            Ok(atom) => atom,
            // Rubbish behind the picture.
            Err(_) if picture.is_some() => break,
            Err(error) => return Err(error),
        };
        if &atom.kind == b"jp2c" && picture.is_none() {
            picture = Some(codestream(window, atom.from, atom.to, limits)?);
        }
        at = atom.to;
    }
    picture.ok_or_else(|| corrupt("holds no codestream"))
}

/// Follows the markers of the main header (annex A), then from tile-part to tile-part.
fn codestream(
    window: &mut Window<'_>,
    from: u64,
    end: u64,
    limits: &Limits,
) -> Result<Picture, Rejection> {
    if window.up_to(from, 4)? != CODESTREAM {
        return Err(corrupt("has a damaged codestream"));
    }
    // Behind the marker: Lsiz, Rsiz, then the size of the grid and the picture's place on it.
    let siz = from + 4;
    let (x, y) = (window.be32(siz + 4)?, window.be32(siz + 8)?);
    let (x0, y0) = (window.be32(siz + 12)?, window.be32(siz + 16)?);
    let dimensions = limits.admit(x.saturating_sub(x0), y.saturating_sub(y0))?;
    let mut at = from + 2;
    let mut tiles = 0;
    loop {
        if at + 2 > end && tiles > 0 {
            return Err(corrupt(
                "is truncated: there is no end-of-codestream marker",
            ));
        }
        match window.be16(at)? {
            EOC if tiles > 0 => return Ok(Picture::still(dimensions)),
            SOT => {
                let length = u64::from(window.be32(at + 6)?);
                tiles += 1;
                if length == 0 {
                    // The last tile-part, up to the end marker.
                    return match window.rfind(at, &EOC.to_be_bytes())? {
                        Some(_) => Ok(Picture::still(dimensions)),
                        None => Err(corrupt(
                            "is truncated: there is no end-of-codestream marker",
                        )),
                    };
                }
                if length < 14 {
                    return Err(corrupt("has a damaged tile-part"));
                }
                window.require(at, length)?;
                at += length;
            }
            marker @ 0xff30.. if tiles == 0 => {
                let length = u64::from(window.be16(at + 2)?);
                if length < 2 {
                    return Err(corrupt(format!(
                        "has a segment 0x{marker:04x} of length {length}"
                    )));
                }
                at += 2 + length;
            }
            _ => return Err(corrupt(format!("has a damaged codestream at byte {at}"))),
        }
    }
}
