//! AVIF and HEIC: brands, boxes that cover the file, and the size from `ispe` or a track header
//! (ISO/IEC 14496-12 and 23008-12).

use super::{ImageFormat, Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

/// The format that the brands of a `ftyp` box name; `None` when it is no picture of these.
pub(crate) fn brand(head: &[u8]) -> Option<ImageFormat> {
    if head.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let brands = head.get(8..length.min(head.len()))?;
    let mut major_first = brands.chunks_exact(4).enumerate().filter(|&(n, _)| n != 1);
    let formats = |brand: &[u8]| match brand {
        b"avif" | b"avis" => Some(ImageFormat::Avif),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => {
            Some(ImageFormat::Heic)
        }
        _ => None,
    };
    let (_, major) = major_first.next()?;
    if let Some(format) = formats(major) {
        return Some(format);
    }
    // Films name picture brands among their compatible ones too, for their cover.
    if !matches!(
        major,
        b"mif1" | b"msf1" | b"mif2" | b"miaf" | b"MiHB" | b"MiHE" | b"MiAB"
    ) {
        return None;
    }
    major_first.find_map(|(_, brand)| formats(brand))
}

/// A box: its type, and where its content is.
#[derive(Debug)]
pub(super) struct Atom {
    pub(super) kind: [u8; 4],
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The box at `at`, which has to end by `end`.
pub(super) fn atom(window: &mut Window<'_>, at: u64, end: u64) -> Result<Atom, Rejection> {
    let [l0, l1, l2, l3, kind @ ..] = window.array::<8>(at)?;
    let (from, length) = match u32::from_be_bytes([l0, l1, l2, l3]) {
        0 => (at + 8, end - at),
        1 => (at + 16, window.be64(at + 8)?),
        n => (at + 8, n.into()),
    };
    match at.checked_add(length) {
        Some(to) if to >= from && to <= end => Ok(Atom { kind, from, to }),
        Some(to) if to > end && end == window.len() => Err(corrupt(format!(
            "ends after {end} bytes where its structure needs {to}"
        ))),
        _ => Err(corrupt(format!("has a damaged box at byte {at}"))),
    }
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let len = window.len();
    let (mut at, mut size, mut data) = (0, None, false);
    while at < len {
        let atom = match atom(window, at, len) {
            Ok(atom) => atom,
            // Rubbish behind whole pictures, such as padding.
            Err(_) if data && size.is_some() && !is_known(window, at)? => break,
            Err(error) => return Err(error),
        };
        match &atom.kind {
            b"meta" => {
                largest(window, atom.from + 4, atom.to, 0, &mut size)?;
                // The data that follows may be long. The size is judged before it arrives.
                if let Some((width, height)) = size {
                    limits.admit_frame(width, height)?;
                }
                data |= holds_data(window, atom.from + 4, atom.to)?;
            }
            b"moov" => largest(window, atom.from, atom.to, 0, &mut size)?,
            b"mdat" => data |= atom.to > atom.from,
            _ => {}
        }
        at = atom.to;
    }
    match size {
        Some((width, height)) if data => Ok(Picture::still(limits.admit(width, height)?)),
        Some(_) => Err(corrupt("holds no picture data")),
        None => Err(corrupt("does not state its size")),
    }
}

/// Whether the box at `at` is one that a picture file has at its top level.
fn is_known(window: &mut Window<'_>, at: u64) -> Result<bool, Rejection> {
    Ok(matches!(
        window.up_to(at + 4, 4)?,
        b"meta" | b"mdat" | b"moov" | b"free" | b"skip" | b"uuid"
    ))
}

/// Whether the `meta` box keeps picture data itself, in an `idat` box.
fn holds_data(window: &mut Window<'_>, mut at: u64, end: u64) -> Result<bool, Rejection> {
    while at + 8 <= end {
        let atom = atom(window, at, end)?;
        if &atom.kind == b"idat" {
            return Ok(true);
        }
        at = atom.to;
    }
    Ok(false)
}

/// Puts the largest size found between `at` and `end` into `size`. Thumbnails and tiles are smaller.
fn largest(
    window: &mut Window<'_>,
    mut at: u64,
    end: u64,
    depth: u8,
    size: &mut Option<(u32, u32)>,
) -> Result<(), Rejection> {
    while at + 8 <= end {
        let atom = atom(window, at, end)?;
        let found = match &atom.kind {
            b"iprp" | b"ipco" | b"trak" if depth < 3 => {
                largest(window, atom.from, atom.to, depth + 1, size)?;
                None
            }
            b"ispe" if atom.to - atom.from >= 12 => {
                Some((window.be32(atom.from + 4)?, window.be32(atom.from + 8)?))
            }
            // The last two fields are the size, as numbers of 16.16 bits.
            b"tkhd" if atom.to - atom.from >= 84 => Some((
                window.be32(atom.to - 8)? >> 16,
                window.be32(atom.to - 4)? >> 16,
            )),
            _ => None,
        };
        if let Some((width, height)) = found {
            let area = |(w, h): (u32, u32)| u64::from(w) * u64::from(h);
            if size.is_none_or(|known| area((width, height)) > area(known)) {
                *size = Some((width, height));
            }
        }
        at = atom.to;
    }
    Ok(())
}
