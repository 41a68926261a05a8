//! BMP: header variants, palette, and pixel data inside the file.
//!
//! Layout after Microsoft's `BITMAPFILEHEADER` and the `BITMAPINFOHEADER` family, and OS/2's 12 byte
//! core header. Rows are padded to four bytes; the padding of the last row is not demanded.

use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

/// Length of the file header.
const FILE_HEADER: u64 = 14;

/// Whether `head` begins like a BMP: the letters alone begin many a text too.
pub(crate) fn matches(head: &[u8]) -> bool {
    head.len() >= 18 && head.starts_with(b"BM") && matches!(le32(&head[14..]), 12 | 16..=124)
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let data = u64::from(window.le32(10)?);
    let bitmap = Bitmap::read(window, FILE_HEADER)?;
    let dimensions = limits.admit(bitmap.width, bitmap.height)?;
    let after_headers = FILE_HEADER + bitmap.header + bitmap.palette_bytes(0);
    window.require(FILE_HEADER, bitmap.header)?;
    // Some writers leave the offset zero; decoders then read on behind the palette.
    let data = if data < FILE_HEADER + bitmap.header {
        after_headers
    } else {
        data
    };
    bitmap.require_pixels(window, data)?;
    Ok(Picture::still(dimensions))
}

/// What a bitmap header says; `ico` reads it too.
#[derive(Debug)]
pub(super) struct Bitmap {
    pub(super) header: u64,
    pub(super) width: u32,
    pub(super) height: u32,
    bits: u16,
    compression: u32,
    image_size: u32,
    colors: u32,
    core: bool,
}

const RGB: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BITFIELDS: u32 = 3;
const ALPHABITFIELDS: u32 = 6;

impl Bitmap {
    pub(super) fn read(window: &mut Window<'_>, at: u64) -> Result<Self, Rejection> {
        let header = window.le32(at)?;
        let bitmap = if header == 12 {
            Self {
                header: 12,
                width: window.le16(at + 4)?.into(),
                height: window.le16(at + 6)?.into(),
                bits: window.le16(at + 10)?,
                compression: RGB,
                image_size: 0,
                colors: 0,
                core: true,
            }
        } else {
            let width = window.le32(at + 4)?.cast_signed();
            let height = window.le32(at + 8)?.cast_signed();
            // OS/2 2.x headers may stop after any field; what is missing is zero.
            let field = |window: &mut Window<'_>, offset: u32| {
                if header >= offset + 4 {
                    window.le32(at + u64::from(offset))
                } else {
                    Ok(0)
                }
            };
            Self {
                header: header.into(),
                width: u32::try_from(width).map_err(|_| corrupt(format!("has width {width}")))?,
                // A negative height means rows from top to bottom.
                height: height.unsigned_abs(),
                bits: window.le16(at + 14)?,
                compression: field(window, 16)?,
                image_size: field(window, 20)?,
                colors: field(window, 32)?,
                core: false,
            }
        };
        if !matches!(bitmap.bits, 0 | 1 | 2 | 4 | 8 | 16 | 24 | 32 | 64) {
            return Err(corrupt(format!("has {} bits per pixel", bitmap.bits)));
        }
        Ok(bitmap)
    }

    /// Bytes between the header and the pixels, as far as `spare` colours exist beyond the stated ones.
    pub(super) fn palette_bytes(&self, spare: u64) -> u64 {
        let entry = if self.core { 3 } else { 4 };
        let colors = match (self.bits, self.colors) {
            (1..=8, 0) => 1 << self.bits,
            (1..=8, n) => u64::from(n.min(1 << self.bits)),
            _ => 0,
        };
        let masks = match (self.header, self.compression) {
            (40, BITFIELDS) => 12,
            (40, ALPHABITFIELDS) => 16,
            _ => 0,
        };
        (colors + spare) * entry + masks
    }

    /// Bytes of the pixels of `height` rows, without the padding of the last one.
    pub(super) fn pixel_bytes(&self, height: u32) -> u64 {
        let row_bits = u64::from(self.width) * u64::from(self.bits);
        let stride = row_bits.div_ceil(32) * 4;
        let above = stride.saturating_mul(height.saturating_sub(1).into());
        above.saturating_add(row_bits.div_ceil(8))
    }

    fn require_pixels(&self, window: &mut Window<'_>, data: u64) -> Result<(), Rejection> {
        let os2_huffman_or_rle24 = self.header != 40 && self.header < 108 && !self.core;
        match self.compression {
            RGB | BITFIELDS | ALPHABITFIELDS
                if self.bits != 0 && !(self.compression == BITFIELDS && self.bits == 1) =>
            {
                window.require(data, self.pixel_bytes(self.height))
            }
            RLE8 if self.bits == 8 => self.walk_runs(window, data),
            RLE4 if self.bits == 4 => self.walk_runs(window, data),
            // JPEG or PNG data inside, or OS/2's own compressions: the stated size is all there is to check.
            4 | 5 => window.require(data, self.image_size.max(1).into()),
            BITFIELDS if os2_huffman_or_rle24 => {
                window.require(data, self.image_size.max(1).into())
            }
            other => Err(corrupt(format!(
                "has compression {other} with {} bits per pixel",
                self.bits
            ))),
        }
    }

    /// Follows the run-length codes to their end mark, or to the last row.
    fn walk_runs(&self, window: &mut Window<'_>, data: u64) -> Result<(), Rejection> {
        let (mut at, mut x, mut y) = (data, 0_u64, 0_u64);
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        loop {
            // Decoders stop when every row is full, and many files lack the end mark.
            if y >= height || (y + 1 == height && x >= width) {
                return Ok(());
            }
            let [count, value] = window.array(at)?;
            at += 2;
            match (count, value) {
                (0, 0) => (x, y) = (0, y + 1),
                (0, 1) => return Ok(()),
                (0, 2) => {
                    let [dx, dy] = window.array(at)?;
                    at += 2;
                    x += u64::from(dx);
                    y += u64::from(dy);
                }
                (0, n) => {
                    let bytes = match self.compression {
                        RLE4 => u64::from(n).div_ceil(2),
                        _ => u64::from(n),
                    };
                    window.require(at, bytes)?;
                    at += bytes.next_multiple_of(2);
                    x += u64::from(n);
                }
                (n, _) => x += u64::from(n),
            }
        }
    }
}
