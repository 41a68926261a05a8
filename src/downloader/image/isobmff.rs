//! AVIF and HEIC: brands, boxes that cover the file, and the size from the primary item's `ispe`, or a track header
//! (ISO/IEC 14496-12 and 23008-12).

use super::metadata::Part;
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
    // A gain map, a thumbnail or a tile may be larger than the picture itself.
    let mut known = false;
    while at < len {
        let atom = match atom(window, at, len) {
            Ok(atom) => atom,
            // Rubbish behind whole pictures, such as padding.
            Err(_) if data && size.is_some() && !is_known(window, at)? => break,
            Err(error) => return Err(error),
        };
        match &atom.kind {
            b"meta" => {
                let primary = Primary::read(window, atom.from + 4, atom.to)?;
                match primary.and_then(|primary| primary.size) {
                    Some(stated) if !known => (size, known) = (Some(stated), true),
                    _ if !known => largest(window, atom.from + 4, atom.to, 0, &mut size)?,
                    _ => {}
                }
                // The data that follows may be long. The size is judged before it arrives.
                if let Some((width, height)) = size {
                    limits.admit_frame(width, height)?;
                }
                data |= holds_data(window, atom.from + 4, atom.to)?;
            }
            b"moov" if !known => largest(window, atom.from, atom.to, 0, &mut size)?,
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

/// The properties of the primary item (ISO/IEC 23008-12, 6.5).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Primary {
    /// `ispe`.
    size: Option<(u32, u32)>,
    /// `irot` and `imir`, as EXIF would state them; `None` without either.
    pub(super) orientation: Option<u8>,
    /// The content of `colr`.
    pub(super) color: Option<Part>,
}

/// The primary item of the file; `None` if it names none.
pub(super) fn primary(window: &mut Window<'_>) -> Result<Option<Primary>, Rejection> {
    let (mut at, len) = (0, window.len());
    while at < len {
        let atom = atom(window, at, len)?;
        if &atom.kind == b"meta" {
            return Primary::read(window, atom.from + 4, atom.to);
        }
        at = atom.to;
    }
    Ok(None)
}

impl Primary {
    /// Reads it from the boxes of `meta` between `at` and `end`.
    fn read(window: &mut Window<'_>, at: u64, end: u64) -> Result<Option<Self>, Rejection> {
        let Some(pitm) = child(window, at, end, b"pitm")? else {
            return Ok(None);
        };
        let wide = window.u8(pitm.from)? > 0;
        let item = if wide {
            window.be32(pitm.from + 4)?
        } else {
            window.be16(pitm.from + 4)?.into()
        };
        let Some(iprp) = child(window, at, end, b"iprp")? else {
            return Ok(None);
        };
        let Some(ipco) = child(window, iprp.from, iprp.to, b"ipco")? else {
            return Ok(None);
        };
        let Some(ipma) = child(window, iprp.from, iprp.to, b"ipma")? else {
            return Ok(None);
        };
        let mut properties = Vec::new();
        let mut at = ipco.from;
        while at + 8 <= ipco.to {
            let property = atom(window, at, ipco.to)?;
            at = property.to;
            properties.push(property);
        }
        let mut primary = Self::default();
        for index in associated(window, &ipma, item)? {
            if let Some(property) = index.checked_sub(1).and_then(|n| properties.get(n)) {
                primary.take(window, property)?;
            }
        }
        Ok(Some(primary))
    }

    fn take(&mut self, window: &mut Window<'_>, property: &Atom) -> Result<(), Rejection> {
        let turned = |before: Option<u8>, by: u8| Some(then(before.unwrap_or(1), by));
        match &property.kind {
            b"ispe" if property.to - property.from >= 12 => {
                self.size = Some((
                    window.be32(property.from + 4)?,
                    window.be32(property.from + 8)?,
                ));
            }
            // Quarter turns anticlockwise.
            b"irot" => {
                let by = [1, 8, 3, 6][usize::from(window.u8(property.from)? & 3)];
                self.orientation = turned(self.orientation, by);
            }
            // Top and bottom change places, or left and right do.
            b"imir" => {
                let by = [4, 2][usize::from(window.u8(property.from)? & 1)];
                self.orientation = turned(self.orientation, by);
            }
            b"colr" => {
                self.color = Some(Part {
                    at: property.from,
                    len: property.to - property.from,
                });
            }
            _ => {}
        }
        Ok(())
    }
}

/// The orientation that is `first` and then `second`, each as in EXIF.
fn then(first: u8, second: u8) -> u8 {
    // How each moves a point to the right and downwards.
    const MOVES: [[i8; 4]; 8] = [
        [1, 0, 0, 1],
        [-1, 0, 0, 1],
        [-1, 0, 0, -1],
        [1, 0, 0, -1],
        [0, 1, 1, 0],
        [0, -1, 1, 0],
        [0, -1, -1, 0],
        [0, 1, -1, 0],
    ];
    let [a, b, c, d] = MOVES[usize::from(first - 1)];
    let [e, f, g, h] = MOVES[usize::from(second - 1)];
    let both = [e * a + f * c, e * b + f * d, g * a + h * c, g * b + h * d];
    (1..)
        .zip(MOVES)
        .find(|(_, moves)| *moves == both)
        .map_or(1, |(n, _)| n)
}

/// The first box of that kind between `at` and `end`.
fn child(
    window: &mut Window<'_>,
    mut at: u64,
    end: u64,
    kind: &[u8; 4],
) -> Result<Option<Atom>, Rejection> {
    while at + 8 <= end {
        let atom = atom(window, at, end)?;
        if &atom.kind == kind {
            return Ok(Some(atom));
        }
        at = atom.to;
    }
    Ok(None)
}

/// The properties that `ipma` gives to `item`, by their place in `ipco`, from 1 on.
fn associated(window: &mut Window<'_>, ipma: &Atom, item: u32) -> Result<Vec<usize>, Rejection> {
    let [version, _, _, flags] = window.array(ipma.from)?;
    let count = window.be32(ipma.from + 4)?;
    let mut at = ipma.from + 8;
    for _ in 0..count {
        if at >= ipma.to {
            break;
        }
        let id = if version == 0 {
            window.be16(at)?.into()
        } else {
            window.be32(at)?
        };
        at += if version == 0 { 2 } else { 4 };
        let indices = u64::from(window.u8(at)?);
        at += 1;
        let width = if flags & 1 == 1 { 2 } else { 1 };
        if id != item {
            at += indices * width;
            continue;
        }
        return (0..indices)
            .map(|n| {
                Ok(match width {
                    2 => usize::from(window.be16(at + 2 * n)? & 0x7fff),
                    _ => usize::from(window.u8(at + n)? & 0x7f),
                })
            })
            .collect();
    }
    Ok(Vec::new())
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
