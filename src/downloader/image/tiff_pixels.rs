//! Pixels of the first page of a TIFF: strips and tiles, chunky or planar, of the photometric interpretations and
//! sample formats of TIFF 6.0 and its supplements.
//!
//! Crates decompress. What is done here is to unpack samples, and to convert them to grey or RGB.

use std::borrow::Cow;
use std::io::Read as _;

use fax::decoder::{Group4Decoder, pels};
use fax::maps::{black, white};
use fax::{BitReader as _, ByteReader, Color as FaxColor};
use image::{DynamicImage, ImageBuffer};
use weezl::BitOrder;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::color;
use super::metadata::{self, Part};
use super::tiff::Page;
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

/// Strips or tiles of one page.
const MAX_PIECES: u64 = 4 * 1024 * 1024;

/// A tile is at most this much larger than the picture.
const MAX_TILE: u64 = 4096;

/// What the directory says of the pixels.
#[derive(Debug)]
pub(super) struct Layout {
    width: usize,
    height: usize,
    bits: u32,
    /// 1: unsigned, 2: signed, 3: floating point.
    sample_format: u64,
    samples: usize,
    photometric: u64,
    compression: u64,
    predictor: u64,
    /// Whether each sample has strips or tiles of its own.
    planar: bool,
    little: bool,
    reversed_bits: bool,
    t4_options: u64,
    /// Columns and rows of a strip or tile.
    piece: (usize, usize),
    offsets: Vec<u64>,
    counts: Vec<u64>,
    /// 1: premultiplied, 2: not.
    alpha: Option<u64>,
    /// Pixels that share one pair of chroma samples.
    subsampling: (usize, usize),
    colors: Vec<u64>,
    tables: Vec<u8>,
}

/// A variant that is not decoded.
fn unsupported(what: impl AsRef<str>) -> Rejection {
    corrupt(format!(
        "does not decode: {} is not supported",
        what.as_ref()
    ))
}

impl Layout {
    /// Reads it, and refuses the variants that are not decoded.
    pub(super) fn read(window: &mut Window<'_>) -> Result<Self, Rejection> {
        let page = Page::first(window)?;
        let mut number =
            |tag, default| Ok::<_, Rejection>(page.number(window, tag)?.unwrap_or(default));
        let side = |n: u64| usize::try_from(n).map_err(|_| corrupt("is too large"));
        let (width, height) = (side(number(256, 0)?)?, side(number(257, 0)?)?);
        let samples = side(number(277, 1)?)?;
        let photometric = number(262, 1)?;
        let tiled = number(322, 0)? > 0;
        let piece = if tiled {
            (number(322, 0)?, number(323, 0)?)
        } else {
            (width as u64, number(278, u64::MAX)?.min(height as u64))
        };
        let most = (width.max(height) as u64).saturating_add(MAX_TILE);
        if piece.0 == 0 || piece.1 == 0 || piece.0.max(piece.1) > most {
            return Err(corrupt("has strips or tiles of an impossible size"));
        }
        let (compression, predictor) = (number(259, 1)?, number(317, 1)?);
        let (planar, reversed_bits) = (number(284, 1)? == 2, number(266, 1)? == 2);
        let t4_options = number(292, 0)?;
        let mut numbers =
            |tag, most| Ok::<_, Rejection>(page.numbers(window, tag, most)?.unwrap_or_default());
        let bits = numbers(258, 64)?;
        let formats = numbers(339, 64)?;
        let extra = numbers(338, 64)?;
        let subsampling = numbers(530, 2)?;
        let colors = numbers(320, 3 << 16)?;
        let mut either = |one, other| {
            let found = numbers(one, MAX_PIECES)?;
            if found.is_empty() {
                numbers(other, MAX_PIECES)
            } else {
                Ok(found)
            }
        };
        let (offsets, counts) = (either(324, 273)?, either(325, 279)?);
        let counts = if counts.is_empty() && offsets.len() == 1 {
            vec![window.len().saturating_sub(offsets[0])]
        } else {
            counts
        };
        let bits = bits.into_iter().take(samples).collect::<Vec<_>>();
        if bits.iter().any(|n| *n != bits[0]) {
            return Err(unsupported(format!("a picture of {bits:?} bits a sample")));
        }
        let color_samples = match photometric {
            0 | 1 | 3 | 4 => 1,
            2 | 6 | 8 | 9 => 3,
            5 => 4,
            other => return Err(unsupported(format!("photometric interpretation {other}"))),
        };
        if samples < color_samples || samples > 64 {
            return Err(corrupt(format!("has {samples} samples for a pixel")));
        }
        // Writers leave the tag out where it is plain that the fourth is alpha.
        let alpha = match extra.first() {
            Some(kind @ (1 | 2)) => Some(*kind),
            None if photometric == 2 && samples == 4 => Some(2),
            _ => None,
        };
        let jpeg = compression == 7;
        let subsampling = match (photometric, subsampling.as_slice()) {
            (6, _) if jpeg => (1, 1),
            (6, [x @ (1 | 2 | 4), y @ (1 | 2 | 4)]) => (*x as usize, *y as usize),
            (6, []) => (2, 2),
            (6, other) => return Err(unsupported(format!("chroma subsampling {other:?}"))),
            _ => (1, 1),
        };
        let layout = Self {
            width,
            height,
            bits: bits
                .first()
                .map_or(1, |n| u32::try_from(*n).unwrap_or(u32::MAX)),
            sample_format: formats.first().copied().unwrap_or(1),
            samples,
            photometric,
            compression,
            predictor,
            planar: planar && samples > 1,
            little: page.is_little(),
            reversed_bits,
            t4_options,
            piece: (side(piece.0)?, side(piece.1)?),
            offsets,
            counts,
            alpha: alpha.filter(|_| samples > color_samples),
            subsampling,
            colors,
            tables: page.bytes(window, 347, 64 * 1024)?.unwrap_or_default(),
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), Rejection> {
        let (bits, format) = (self.bits, self.sample_format);
        let known = match format {
            1 | 4 => bits <= 16 || bits == 32,
            2 => matches!(bits, 8 | 16 | 32),
            3 => matches!(bits, 16 | 32 | 64),
            _ => false,
        };
        if bits == 0 || !known {
            return Err(unsupported(format!(
                "sample format {format} of {bits} bits"
            )));
        }
        let fits = match self.photometric {
            3 => bits <= 8 && self.colors.len() >= 3 << bits,
            6 => bits == 8 && (self.subsampling == (1, 1) || (!self.planar && self.samples == 3)),
            8 | 9 => matches!(bits, 8 | 16),
            4 => bits == 1,
            _ => true,
        };
        if !fits {
            return Err(unsupported(format!(
                "photometric interpretation {} of {bits} bits",
                self.photometric
            )));
        }
        if matches!(self.compression, 2..=4) && (bits != 1 || self.samples != 1) {
            return Err(corrupt(
                "has fax compression of a picture that is not bilevel",
            ));
        }
        let predicted = match self.predictor {
            1 => true,
            2 => matches!(bits, 8 | 16 | 32),
            3 => format == 3,
            _ => false,
        };
        if !predicted && matches!(self.compression, 5 | 8 | 32946 | 34925 | 50000) {
            return Err(unsupported(format!(
                "predictor {} of {bits} bits",
                self.predictor
            )));
        }
        match self.compression {
            1 | 2 | 4 | 5 | 7 | 8 | 32946 | 32773 | 34925 | 50000 => Ok(()),
            3 if self.t4_options & 1 == 0 => Ok(()),
            3 => Err(unsupported("two-dimensional Group 3 compression")),
            6 => Err(unsupported("old-style JPEG compression")),
            other => Err(unsupported(format!("compression {other}"))),
        }
    }

    /// Bytes that decoding takes.
    pub(super) fn memory(&self) -> u64 {
        let wide = if self.bits > 8 { 2 } else { 1 };
        let pixels = (self.width as u64).saturating_mul(self.height as u64);
        let piece = (self.piece.0 as u64).saturating_mul(self.piece.1 as u64);
        // The samples, the pixels, and of one piece what is read, unpacked and decoded.
        let samples = self.samples as u64 * wide;
        let packed = self.counts.iter().copied().max().unwrap_or(0);
        pixels
            .saturating_mul(samples + 4 * wide + 4)
            .saturating_add(
                piece.saturating_mul(self.samples as u64 * u64::from(self.bits.div_ceil(8)) * 3),
            )
            .saturating_add(packed.saturating_mul(2))
    }

    /// Whether the pixels are in the colour space that the file states.
    pub(super) const fn keeps_color(&self) -> bool {
        !matches!(self.photometric, 5 | 8 | 9)
    }

    /// Samples of a pixel in one strip or tile.
    const fn chunky(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// The picture, upright or not. `profile` is its colour profile, by which CMYK becomes sRGB.
    pub(super) fn decode(
        &self,
        window: &mut Window<'_>,
        profile: Option<&[u8]>,
    ) -> Result<DynamicImage, Rejection> {
        let mut samples = vec![0_u16; self.width * self.height * self.samples];
        let across = self.width.div_ceil(self.piece.0);
        let down = self.height.div_ceil(self.piece.1);
        let planes = if self.planar { self.samples } else { 1 };
        if self.offsets.len() < across * down * planes || self.counts.len() < self.offsets.len() {
            return Err(corrupt("has too few strips or tiles"));
        }
        for plane in 0..planes {
            for index in 0..across * down {
                let n = plane * across * down + index;
                let (left, top) = (index % across * self.piece.0, index / across * self.piece.1);
                if self.counts[n] > 0 {
                    let rows = self.rows_at(top);
                    let bytes = self.unpacked(window, n, rows)?;
                    self.place(&bytes, &mut samples, plane, left, top)?;
                }
            }
        }
        self.convert(&samples, profile)
    }

    /// Rows of the pieces at `top`: tiles are always whole, the last strip is not.
    fn rows_at(&self, top: usize) -> usize {
        if self.piece.0 == self.width {
            self.piece.1.min(self.height - top)
        } else {
            self.piece.1
        }
    }

    /// Bytes of a row of a piece.
    fn row_bytes(&self) -> usize {
        let (x, y) = self.subsampling;
        if (x, y) != (1, 1) {
            // One row of units, which is several rows of pixels.
            return self.piece.0.div_ceil(x) * (x * y + 2);
        }
        (self.piece.0 * self.chunky() * self.bits as usize).div_ceil(8)
    }

    fn unpacked(
        &self,
        window: &mut Window<'_>,
        n: usize,
        rows: usize,
    ) -> Result<Vec<u8>, Rejection> {
        let part = Part {
            at: self.offsets[n],
            len: self.counts[n].min(window.len().saturating_sub(self.offsets[n])),
        };
        let packed = metadata::bytes(window, part, usize::MAX)?;
        let packed = if self.reversed_bits && self.compression != 7 {
            packed.iter().map(|byte| byte.reverse_bits()).collect()
        } else {
            packed
        };
        let wanted = self.row_bytes() * rows.div_ceil(self.subsampling.1);
        let mut bytes = match self.compression {
            1 => packed,
            2..=4 => self.fax(packed, rows),
            5 => lzw(&packed, wanted),
            7 => return self.jpeg(&packed),
            32773 => pack_bits(&packed, wanted),
            8 | 32946 => inflated(flate2::read::ZlibDecoder::new(&*packed), wanted),
            50000 => match zstd::Decoder::new(&*packed) {
                Ok(decoder) => inflated(decoder, wanted),
                Err(_) => Vec::new(),
            },
            _ => inflated(lzma_rust2::XzReader::new(&*packed, true), wanted),
        };
        if bytes.len() < wanted {
            // Tiles at the lower edge may end with the picture.
            if bytes.is_empty() {
                return Err(corrupt(format!(
                    "does not decode: strip or tile {n} is damaged"
                )));
            }
            bytes.resize(wanted, 0);
        }
        bytes.truncate(wanted);
        if matches!(self.compression, 5 | 8 | 32946 | 34925 | 50000) {
            for row in bytes.chunks_exact_mut(self.row_bytes()) {
                self.undo_predictor(row);
            }
        }
        Ok(bytes)
    }

    fn fax(&self, packed: Vec<u8>, rows: usize) -> Vec<u8> {
        let Ok(width) = u16::try_from(self.piece.0) else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        let mut push = |line: &[u16]| {
            let (mut byte, mut used) = (0_u8, 0);
            for pel in pels(line, width) {
                byte = byte << 1 | u8::from(matches!(pel, FaxColor::Black));
                used += 1;
                if used == 8 {
                    bytes.push(byte);
                    (byte, used) = (0, 0);
                }
            }
            if used > 0 {
                bytes.push(byte << (8 - used));
            }
        };
        // Codes are looked up by more bits than the last one has.
        let input = packed
            .into_iter()
            .chain([0; 4])
            .map(Ok::<u8, std::convert::Infallible>);
        if self.compression == 4 {
            let Ok(mut decoder) = Group4Decoder::new(input, width);
            for _ in 0..rows {
                match decoder.advance() {
                    Ok(fax::decoder::DecodeStatus::Incomplete) => push(decoder.transition()),
                    _ => break,
                }
            }
            return bytes;
        }
        let Ok(mut reader) = ByteReader::new(input);
        for _ in 0..rows {
            if self.compression == 3 {
                // The mark between lines: eleven zeros or more, and a one.
                while reader.peek(9) == Some(0) {
                    while reader.peek(1) == Some(0) && reader.consume(1).is_ok() {}
                    let Ok(()) = reader.consume(1);
                }
            }
            let (mut at, mut is_black, mut line) = (0_u16, false, Vec::new());
            while at < width {
                let mut run = 0_u16;
                loop {
                    let code = if is_black {
                        black::decode(&mut reader)
                    } else {
                        white::decode(&mut reader)
                    };
                    let Some(code) = code else {
                        return bytes;
                    };
                    run = run.saturating_add(code);
                    if code < 64 {
                        break;
                    }
                }
                at = at.saturating_add(run);
                line.push(at.min(width));
                is_black = !is_black;
            }
            push(&line);
            if self.compression == 2 {
                let padding = reader.bits_to_byte_boundary();
                let Ok(()) = reader.consume(padding);
            }
        }
        bytes
    }

    /// Samples as they are coded, one byte each; the picture's interpretation says what they mean.
    fn jpeg(&self, packed: &[u8]) -> Result<Vec<u8>, Rejection> {
        // Tables in common stand before the data, without their end mark and the data's start mark.
        let data: Cow<'_, [u8]> = match self.tables.len() {
            4.. => [
                &self.tables[..self.tables.len() - 2],
                packed.get(2..).unwrap_or_default(),
            ]
            .concat()
            .into(),
            _ => packed.into(),
        };
        let undecodable = |error| corrupt(format!("does not decode: {error:?}"));
        let most = self.piece.0.max(self.piece.1);
        let options = DecoderOptions::default()
            .set_max_width(most)
            .set_max_height(most);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&*data), options);
        decoder.decode_headers().map_err(undecodable)?;
        if let Some(coded) = decoder.input_colorspace() {
            decoder.set_options(options.jpeg_set_out_colorspace(coded));
        }
        let (width, _) = decoder.dimensions().unwrap_or_default();
        let pixels = decoder.decode().map_err(undecodable)?;
        let row = width * self.chunky();
        if row == 0 || pixels.len() % row != 0 || width > self.piece.0 || self.bits != 8 {
            return Err(corrupt("holds a JPEG that does not fit it"));
        }
        let mut bytes = vec![0; self.row_bytes() * self.piece.1];
        for (to, from) in bytes
            .chunks_exact_mut(self.row_bytes())
            .zip(pixels.chunks_exact(row))
        {
            to[..row].copy_from_slice(from);
        }
        Ok(bytes)
    }

    fn undo_predictor(&self, row: &mut [u8]) {
        let step = self.chunky();
        match (self.predictor, self.bits) {
            (2, 8) => (step..row.len()).for_each(|n| row[n] = row[n].wrapping_add(row[n - step])),
            (2, 16) => {
                for n in (2 * step..row.len().saturating_sub(1)).step_by(2) {
                    let sum = self.u16(row, n).wrapping_add(self.u16(row, n - 2 * step));
                    let pair = if self.little {
                        sum.to_le_bytes()
                    } else {
                        sum.to_be_bytes()
                    };
                    row[n..n + 2].copy_from_slice(&pair);
                }
            }
            (2, 32) => {
                for n in (4 * step..row.len().saturating_sub(3)).step_by(4) {
                    let sum = self.u32(row, n).wrapping_add(self.u32(row, n - 4 * step));
                    let four = if self.little {
                        sum.to_le_bytes()
                    } else {
                        sum.to_be_bytes()
                    };
                    row[n..n + 4].copy_from_slice(&four);
                }
            }
            // The highest bytes of all samples come first (Adobe, TIFF technical note 3).
            (3, bits) => {
                (step..row.len()).for_each(|n| row[n] = row[n].wrapping_add(row[n - step]));
                let width = bits as usize / 8;
                let count = row.len() / width;
                let mixed = row.to_vec();
                for (n, sample) in row.chunks_exact_mut(width).enumerate() {
                    for (byte, to) in sample.iter_mut().enumerate() {
                        let place = if self.little { width - 1 - byte } else { byte };
                        *to = mixed[place * count + n];
                    }
                }
            }
            _ => {}
        }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let pair = [bytes[at], bytes[at + 1]];
        if self.little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.little {
            u32::from_le_bytes(four)
        } else {
            u32::from_be_bytes(four)
        }
    }

    fn f64(&self, bytes: &[u8], at: usize) -> f64 {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        if self.little {
            f64::from_le_bytes(eight)
        } else {
            f64::from_be_bytes(eight)
        }
    }

    /// Puts the samples of a piece where they belong: those of at most 8 bits as they are, others scaled to 16 bits.
    fn place(
        &self,
        bytes: &[u8],
        samples: &mut [u16],
        plane: usize,
        left: usize,
        top: usize,
    ) -> Result<(), Rejection> {
        let columns = self.piece.0.min(self.width - left);
        let rows = self.piece.1.min(self.height - top);
        let chunky = self.chunky();
        if self.subsampling != (1, 1) {
            return self.place_units(bytes, samples, (left, top), (columns, rows));
        }
        let row_bytes = self.row_bytes();
        for y in 0..rows {
            let Some(row) = bytes.get(y * row_bytes..(y + 1) * row_bytes) else {
                break;
            };
            let start = ((top + y) * self.width + left) * self.samples + plane;
            for x in 0..columns {
                for n in 0..chunky {
                    samples[start + x * self.samples + n] = self.sample(row, x * chunky + n);
                }
            }
        }
        Ok(())
    }

    /// YCbCr of which several pixels share their chroma (TIFF 6.0, section 21).
    fn place_units(
        &self,
        bytes: &[u8],
        samples: &mut [u16],
        (left, top): (usize, usize),
        (columns, rows): (usize, usize),
    ) -> Result<(), Rejection> {
        let (unit_w, unit_h) = self.subsampling;
        let (unit, across) = (unit_w * unit_h + 2, self.piece.0.div_ceil(unit_w));
        for y in 0..rows {
            for x in 0..columns {
                let at = (y / unit_h * across + x / unit_w) * unit;
                let Some(unit_bytes) = bytes.get(at..at + unit) else {
                    return Ok(());
                };
                let to = ((top + y) * self.width + left + x) * self.samples;
                let luma = unit_bytes[y % unit_h * unit_w + x % unit_w];
                samples[to] = luma.into();
                samples[to + 1] = unit_bytes[unit - 2].into();
                samples[to + 2] = unit_bytes[unit - 1].into();
            }
        }
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 16 bits"
    )]
    fn sample(&self, row: &[u8], n: usize) -> u16 {
        let unit = |value: f64| (value.clamp(0.0, 1.0) * 65535.0).round() as u16;
        // Signed numbers begin below zero; those of CIELab are read by `lab`.
        let signed = self.sample_format == 2 && self.photometric != 8;
        match (self.sample_format, self.bits) {
            (3, 16) => unit(half(self.u16(row, 2 * n))),
            (3, 32) => unit(f32::from_bits(self.u32(row, 4 * n)).into()),
            (3, _) => unit(self.f64(row, 8 * n)),
            (_, 8) if signed => u16::from(row[n] ^ 0x80),
            (_, 8) => row[n].into(),
            (_, 16) if signed => self.u16(row, 2 * n) ^ 0x8000,
            (_, 16) => self.u16(row, 2 * n),
            (_, 32) if signed => (self.u32(row, 4 * n) >> 16) as u16 ^ 0x8000,
            (_, 32) => (self.u32(row, 4 * n) >> 16) as u16,
            (_, bits) => {
                let first = n * bits as usize;
                let mut value = 0_u32;
                for at in first..first + bits as usize {
                    let bit = row.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
                    value = value << 1 | u32::from(bit);
                }
                if bits <= 8 {
                    value as u16
                } else {
                    (value * 65535 / ((1 << bits) - 1)) as u16
                }
            }
        }
    }

    /// Grey or colours of all samples, as an image of 8 bits, or of 16.
    fn convert(&self, samples: &[u16], profile: Option<&[u8]>) -> Result<DynamicImage, Rejection> {
        let most = if self.bits > 8 {
            65535
        } else {
            (1_u32 << self.bits) - 1
        };
        let deep = self.bits > 8 || (self.photometric == 3 && self.colors.iter().any(|n| *n > 255));
        // To 16 bits: full scale is 65535 from here on.
        let scaled = |value: u16| (u32::from(value) * 65535 / most) as u16;
        let has_color = !matches!(self.photometric, 0 | 1 | 4);
        let inks = match (self.photometric, profile) {
            (5, Some(profile)) => {
                let cmyk: Vec<u8> = samples
                    .chunks_exact(self.samples)
                    .flat_map(|pixel| [0, 1, 2, 3].map(|n| (scaled(pixel[n]) >> 8) as u8))
                    .collect();
                color::cmyk_to_srgb(profile, &cmyk)
            }
            _ => None,
        };
        let color_samples = match self.photometric {
            0 | 1 | 3 | 4 => 1,
            5 => 4,
            _ => 3,
        };
        let channels = if has_color { 3 } else { 1 } + usize::from(self.alpha.is_some());
        let mut out = Vec::with_capacity(samples.len() / self.samples * channels);
        for (n, pixel) in samples.chunks_exact(self.samples).enumerate() {
            let mut color = match (self.photometric, &inks) {
                (0, _) => [65535 - scaled(pixel[0]); 3],
                (3, _) => self.palette(pixel[0]),
                (5, Some(rgb)) => [0, 1, 2].map(|channel| u16::from(rgb[3 * n + channel]) * 257),
                (5, None) => {
                    let black = 65535 - u32::from(scaled(pixel[3]));
                    [0, 1, 2]
                        .map(|n| ((65535 - u32::from(scaled(pixel[n]))) * black / 65535) as u16)
                }
                (6, _) => ycbcr(pixel),
                (8 | 9, _) => self.lab(pixel),
                (2, _) => [0, 1, 2].map(|n| scaled(pixel[n])),
                _ => [scaled(pixel[0]); 3],
            };
            let alpha = self.alpha.map(|_| scaled(pixel[color_samples]));
            if let (Some(1), Some(alpha)) = (self.alpha, alpha) {
                color = color.map(|value| match alpha {
                    0 => 0,
                    alpha => (u32::from(value) * 65535 / u32::from(alpha)).min(65535) as u16,
                });
            }
            out.extend_from_slice(&color[..if has_color { 3 } else { 1 }]);
            out.extend(alpha);
        }
        let size = (self.width as u32, self.height as u32);
        image_of(size, channels, deep, out).ok_or_else(|| corrupt("is too large"))
    }

    fn palette(&self, index: u16) -> [u16; 3] {
        let count = 1_usize << self.bits;
        // Some writers fill only 8 of the 16 bits.
        let factor = if self.colors.iter().any(|n| *n > 255) {
            1
        } else {
            257
        };
        [0, 1, 2].map(|n| {
            let value = self.colors.get(n * count + usize::from(index)).copied();
            u16::try_from(value.unwrap_or(0) * factor).unwrap_or(u16::MAX)
        })
    }

    /// CIELab of D50, in two's complement or with its zero in the middle, to sRGB.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::many_single_char_names,
        reason = "the letters of CIE; clamped to 16 bits"
    )]
    fn lab(&self, pixel: &[u16]) -> [u16; 3] {
        let middle = if self.bits == 8 { 128.0 } else { 32768.0 };
        let (full, one) = if self.bits == 8 {
            (255.0, 1.0)
        } else {
            (65535.0, 256.0)
        };
        let lightness = f64::from(pixel[0]) / full * 100.0;
        let [a, b] = [pixel[1], pixel[2]].map(|value| {
            let value = f64::from(value);
            let signed = match self.photometric {
                8 if value >= middle => value - 2.0 * middle,
                8 => value,
                _ => value - middle,
            };
            signed / one
        });
        let y = (lightness + 16.0) / 116.0;
        let light = |f: f64| {
            if f > 6.0 / 29.0 {
                f.powi(3)
            } else {
                3.0 * (6.0_f64 / 29.0).powi(2) * (f - 4.0 / 29.0)
            }
        };
        let (x, y, z) = (
            0.9642 * light(y + a / 500.0),
            light(y),
            0.8249 * light(y - b / 200.0),
        );
        let linear = [
            3.134_19 * x - 1.617_18 * y - 0.490_78 * z,
            -0.978_76 * x + 1.916_14 * y + 0.033_45 * z,
            0.071_95 * x - 0.228_99 * y + 1.405_43 * z,
        ];
        linear.map(|light: f64| {
            let light = light.clamp(0.0, 1.0);
            let value = if light <= 0.003_130_8 {
                12.92 * light
            } else {
                1.055 * light.powf(1.0 / 2.4) - 0.055
            };
            (value * 65535.0).round() as u16
        })
    }
}

/// An image of one to four channels, of 16 bits or of their upper 8.
fn image_of(
    (width, height): (u32, u32),
    channels: usize,
    deep: bool,
    samples: Vec<u16>,
) -> Option<DynamicImage> {
    if deep {
        return Some(match channels {
            1 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma16)?,
            2 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA16)?,
            3 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb16)?,
            _ => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba16)?,
        });
    }
    let bytes = samples
        .into_iter()
        .map(|value| (u32::from(value) / 257) as u8)
        .collect();
    Some(match channels {
        1 => ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8)?,
        2 => ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageLumaA8)?,
        3 => ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8)?,
        _ => ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageRgba8)?,
    })
}

/// ITU-R BT.601 in full range, as JPEG has it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 8 bits"
)]
fn ycbcr(pixel: &[u16]) -> [u16; 3] {
    let [y, cb, cr] = [pixel[0], pixel[1], pixel[2]].map(f64::from);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|value| value.round().clamp(0.0, 255.0) as u16 * 257)
}

/// A floating-point number of 16 bits (IEEE 754).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => 0.0,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -value } else { value }
}

/// As much of `reader` as is wanted and comes.
fn inflated(reader: impl std::io::Read, wanted: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(wanted);
    let _ = reader.take(wanted as u64).read_to_end(&mut bytes);
    bytes
}

fn lzw(packed: &[u8], wanted: usize) -> Vec<u8> {
    // Writers before TIFF 6.0 put the lowest bit first.
    let old = matches!(packed, [0, second, ..] if second & 1 == 1);
    let mut decoder = if old {
        weezl::decode::Decoder::new(BitOrder::Lsb, 8)
    } else {
        weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8)
    };
    let mut bytes = vec![0; wanted];
    let (mut from, mut to) = (0, 0);
    while to < wanted {
        let done = decoder.decode_bytes(&packed[from..], &mut bytes[to..]);
        (from, to) = (from + done.consumed_in, to + done.consumed_out);
        let ended = !matches!(done.status, Ok(weezl::LzwStatus::Ok));
        if ended || (done.consumed_in == 0 && done.consumed_out == 0) {
            break;
        }
    }
    bytes.truncate(to);
    bytes
}

fn pack_bits(packed: &[u8], wanted: usize) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::with_capacity(wanted), 0);
    while let (Some(head), true) = (packed.get(at), bytes.len() < wanted) {
        at += 1;
        match *head {
            128 => {}
            n @ 0..=127 => {
                let end = (at + usize::from(n) + 1).min(packed.len());
                bytes.extend_from_slice(&packed[at..end]);
                at = end;
            }
            n => {
                let Some(value) = packed.get(at) else {
                    break;
                };
                bytes.extend(std::iter::repeat_n(*value, 257 - usize::from(n)));
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fax::VecWriter;
    use fax::encoder::Encoder;

    use super::*;
    use crate::downloader::Body;

    /// A TIFF of 32 bits, its lowest bytes first, with these entries of whole numbers and these strips or tiles.
    fn tiff(entries: &[(u16, Vec<u32>)], pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut file = b"II*\0\0\0\0\0".to_vec();
        let (mut offsets, mut counts) = (Vec::new(), Vec::new());
        for piece in pieces {
            offsets.push(file.len() as u32);
            counts.push(piece.len() as u32);
            file.extend(piece);
        }
        let tiled = entries.iter().any(|(tag, _)| *tag == 322);
        let mut entries = entries.to_vec();
        entries.push((if tiled { 324 } else { 273 }, offsets));
        entries.push((if tiled { 325 } else { 279 }, counts));
        entries.sort();
        let mut directory = (entries.len() as u16).to_le_bytes().to_vec();
        for (tag, values) in &entries {
            directory.extend(tag.to_le_bytes());
            directory.extend([4, 0]);
            directory.extend((values.len() as u32).to_le_bytes());
            match values.as_slice() {
                [one] => directory.extend(one.to_le_bytes()),
                many => {
                    directory.extend((file.len() as u32).to_le_bytes());
                    file.extend(many.iter().flat_map(|value| value.to_le_bytes()));
                }
            }
        }
        directory.extend([0; 4]);
        let at = (file.len() as u32).to_le_bytes();
        file[4..8].copy_from_slice(&at);
        file.extend(directory);
        file
    }

    fn decode(file: Vec<u8>) -> Result<DynamicImage, Rejection> {
        let body = Body::Memory(file.into());
        let window = &mut Window::new(&body);
        Layout::read(window)?.decode(window, None)
    }

    /// The pixel of a picture of one, of `samples` samples.
    fn one(
        bits: u32,
        format: u32,
        photometric: u32,
        samples: u32,
        more: &[(u16, Vec<u32>)],
        bytes: &[u8],
    ) -> [u8; 4] {
        let mut entries = vec![
            (256, vec![1]),
            (257, vec![1]),
            (258, vec![bits; samples as usize]),
            (262, vec![photometric]),
            (277, vec![samples]),
            (339, vec![format; samples as usize]),
        ];
        entries.extend_from_slice(more);
        let image = decode(tiff(&entries, &[bytes.to_vec()])).unwrap();
        image.to_rgba8().get_pixel(0, 0).0
    }

    #[test]
    fn samples_of_every_kind_become_colors() {
        let grey = |value: u8| [value, value, value, 255];
        let half = 0x3800_u16.to_le_bytes();
        let float = 0.5_f32.to_le_bytes();
        let double = 0.5_f64.to_le_bytes();
        let alpha = |kind: u32| [(338, vec![kind])];
        let palette = [(
            320,
            [vec![0; 4], vec![0, 0, 0x8080, 0], vec![0xffff; 4]].concat(),
        )];
        for (bits, format, photometric, samples, more, bytes, expected) in [
            (1, 1, 1, 1, &[][..], &[0x80][..], grey(255)),
            (1, 1, 0, 1, &[], &[0x80], grey(0)),
            (2, 1, 1, 1, &[], &[0x40], grey(85)),
            (4, 1, 1, 1, &[], &[0x50], grey(85)),
            (4, 1, 0, 1, &[], &[0x50], grey(170)),
            (12, 1, 1, 1, &[], &[0x80, 0x00], grey(128)),
            (16, 1, 1, 1, &[], &[0, 0x40], grey(64)),
            (32, 1, 1, 1, &[], &[0, 0, 0, 0x40], grey(64)),
            (8, 2, 1, 1, &[], &[0], grey(128)),
            (16, 3, 1, 1, &[], &half, grey(128)),
            (32, 3, 1, 1, &[], &float, grey(128)),
            (64, 3, 1, 1, &[], &double, grey(128)),
            (8, 1, 2, 3, &[], &[1, 2, 3], [1, 2, 3, 255]),
            (4, 1, 2, 3, &[], &[0x12, 0x30], [17, 34, 51, 255]),
            (2, 1, 3, 1, &palette, &[0x80], [0, 128, 255, 255]),
            (8, 1, 5, 4, &[], &[0, 255, 0, 0], [255, 0, 255, 255]),
            (8, 1, 5, 4, &[], &[0, 0, 0, 127], grey(128)),
            (8, 1, 8, 3, &[], &[255, 0, 0], grey(255)),
            (8, 1, 8, 3, &[], &[138, 81, 70], [255, 0, 0, 255]),
            (8, 1, 9, 3, &[], &[138, 209, 198], [255, 0, 0, 255]),
            (8, 1, 2, 4, &alpha(2), &[100, 50, 0, 128], [100, 50, 0, 128]),
            (8, 1, 2, 4, &alpha(1), &[100, 50, 0, 128], [199, 99, 0, 128]),
            (8, 1, 2, 4, &alpha(0), &[100, 50, 0, 128], [100, 50, 0, 255]),
            (8, 1, 1, 2, &alpha(1), &[64, 128], [127, 127, 127, 128]),
        ] {
            let found = one(bits, format, photometric, samples, more, bytes);
            let near = found
                .iter()
                .zip(expected)
                .all(|(one, other)| one.abs_diff(other) <= 2);
            assert!(
                near,
                "{bits} {format} {photometric} {samples}: {found:?}, not {expected:?}"
            );
        }
    }

    /// A picture of 20 times 10 pixels whose colours are x, y and 200.
    fn gradient(x: usize, y: usize) -> [u8; 3] {
        [x as u8 * 10, y as u8 * 20, 200]
    }

    fn is_gradient(file: Vec<u8>, what: &str) {
        let image = decode(file)
            .unwrap_or_else(|error| panic!("{what}: {error}"))
            .to_rgb8();
        for (x, y, pixel) in image.enumerate_pixels() {
            let expected = gradient(x as usize, y as usize);
            let near = pixel
                .0
                .iter()
                .zip(expected)
                .all(|(one, other)| one.abs_diff(other) <= 2);
            assert!(near, "{what} at {x}, {y}: {pixel:?}");
        }
    }

    fn entries(more: &[(u16, Vec<u32>)]) -> Vec<(u16, Vec<u32>)> {
        let mut entries = vec![
            (256, vec![20]),
            (257, vec![10]),
            (258, vec![8; 3]),
            (262, vec![2]),
            (277, vec![3]),
        ];
        entries.extend_from_slice(more);
        entries
    }

    #[test]
    fn strips_and_tiles_come_together_however_they_are_kept() {
        let strip = |from: usize, to: usize| {
            let pixels = (from..to).flat_map(|y| (0..20).flat_map(move |x| gradient(x, y)));
            pixels.collect::<Vec<u8>>()
        };
        let strips = [strip(0, 4), strip(4, 8), strip(8, 10)];
        is_gradient(tiff(&entries(&[(278, vec![4])]), &strips), "strips");
        let plane = |n: usize, from: usize| {
            let rows = (from..(from + 4).min(10)).flat_map(|y| (0..20).map(move |x| (x, y)));
            rows.map(|(x, y)| gradient(x, y)[n]).collect::<Vec<u8>>()
        };
        let planes: Vec<_> = (0..3)
            .flat_map(|n| [0, 4, 8].map(|from| plane(n, from)))
            .collect();
        is_gradient(
            tiff(&entries(&[(278, vec![4]), (284, vec![2])]), &planes),
            "planar strips",
        );
        let tile = |n: Option<usize>, left: usize, top: usize| {
            let places = (top..top + 16).flat_map(|y| (left..left + 16).map(move |x| (x, y)));
            let pixels = places.map(|(x, y)| gradient(x.min(19), y.min(9)));
            pixels
                .flat_map(|pixel| n.map_or(pixel.to_vec(), |n| vec![pixel[n]]))
                .collect::<Vec<u8>>()
        };
        let size = [(322, vec![16]), (323, vec![16])];
        let tiles = [0, 16].map(|left| tile(None, left, 0));
        is_gradient(tiff(&entries(&size), &tiles), "tiles");
        let tiles: Vec<_> = (0..3)
            .flat_map(|n| [0, 16].map(|left| tile(Some(n), left, 0)))
            .collect();
        let planar = [&size[..], &[(284, vec![2])]].concat();
        is_gradient(tiff(&entries(&planar), &tiles), "planar tiles");
        // Differences from pixel to pixel, deflated.
        let mut predicted = strip(0, 10);
        for row in predicted.chunks_exact_mut(60) {
            (3..60)
                .rev()
                .for_each(|n| row[n] = row[n].wrapping_sub(row[n - 3]));
        }
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&predicted).unwrap();
        let packed = packed.finish().unwrap();
        is_gradient(
            tiff(&entries(&[(259, vec![8]), (317, vec![2])]), &[packed]),
            "deflate",
        );
        let packed = weezl::encode::Encoder::with_tiff_size_switch(BitOrder::Msb, 8)
            .encode(&predicted)
            .unwrap();
        is_gradient(
            tiff(&entries(&[(259, vec![5]), (317, vec![2])]), &[packed]),
            "lzw",
        );
        let packed = strip(0, 10)
            .chunks(100)
            .flat_map(|bytes| [&[bytes.len() as u8 - 1][..], bytes].concat())
            .collect();
        is_gradient(tiff(&entries(&[(259, vec![32773])]), &[packed]), "packbits");
    }

    #[test]
    fn jpeg_and_shared_chroma_become_rgb() {
        let file = include_bytes!("../../../tests/fixtures/tiff-jpeg-ycbcr.tif").to_vec();
        let image = decode(file).unwrap().to_rgb8();
        let distinct: std::collections::HashSet<_> =
            image.pixels().map(|pixel| pixel.0[0] / 32).collect();
        assert!(distinct.len() > 2);
        // Two units of two by two pixels: dark and bright red.
        let bytes = vec![10, 20, 30, 40, 128, 128, 76, 76, 76, 76, 85, 255];
        let file = tiff(
            &[
                (256, vec![4]),
                (257, vec![2]),
                (258, vec![8; 3]),
                (262, vec![6]),
                (277, vec![3]),
                (530, vec![2, 2]),
            ],
            &[bytes],
        );
        let image = decode(file).unwrap().to_rgb8();
        for (x, y, expected) in [(0, 0, 10), (1, 0, 20), (0, 1, 30), (1, 1, 40)] {
            assert_eq!(image.get_pixel(x, y).0, [expected; 3]);
        }
        let [red, green, blue] = image.get_pixel(3, 1).0;
        assert!(red > 250 && green < 5 && blue < 5, "{red} {green} {blue}");
    }

    #[test]
    fn fax_pages_come_out_black_on_white() {
        let black = |x: u32, y: u32| (3 + y..9).contains(&x);
        let row = |y: u32| {
            (0..20).map(move |x| {
                if black(x, y) {
                    FaxColor::Black
                } else {
                    FaxColor::White
                }
            })
        };
        let mut encoder = Encoder::new(VecWriter::new());
        (0..5).for_each(|y| encoder.encode_line(row(y), 20).unwrap());
        let group4 = encoder.finish().unwrap().finish();
        // Codes of T.4 for white 3 to 7, black 6 to 2, and white 11.
        let white = ["1000", "1011", "1100", "1110", "1111"];
        let ink = ["0010", "0011", "011", "10", "11"];
        let line = |y: usize| format!("{}{}01000", white[y], ink[y]);
        let bytes = |bits: String| {
            let bits = bits.into_bytes();
            let byte = |bits: &[u8]| {
                let value = bits.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0'));
                value << (8 - bits.len())
            };
            bits.chunks(8).map(byte).collect::<Vec<u8>>()
        };
        let marked = (0..5)
            .map(|y| format!("000000000001{}", line(y)))
            .collect::<String>();
        let plain = (0..5).flat_map(|y| bytes(line(y))).collect::<Vec<u8>>();
        let reverse = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| byte.reverse_bits())
                .collect::<Vec<u8>>()
        };
        for (compression, order, packed) in [
            (4, 1, group4.clone()),
            (4, 2, reverse(&group4)),
            (3, 1, bytes(marked.clone())),
            (3, 2, reverse(&bytes(marked))),
            (2, 1, plain),
        ] {
            let file = tiff(
                &[
                    (256, vec![20]),
                    (257, vec![5]),
                    (259, vec![compression]),
                    (262, vec![0]),
                    (266, vec![order]),
                ],
                &[packed],
            );
            let image = decode(file).unwrap().to_luma8();
            for (x, y, pixel) in image.enumerate_pixels() {
                let expected = if black(x, y) { 0 } else { 255 };
                assert_eq!(pixel.0, [expected], "{compression} {order} at {x}, {y}");
            }
        }
    }

    #[test]
    fn a_variant_that_is_not_decoded_is_named() {
        for (more, expected) in [
            ((259, vec![34676]), "compression 34676"),
            ((259, vec![6]), "old-style JPEG"),
            ((262, vec![32845]), "photometric interpretation 32845"),
            ((258, vec![5, 6, 5]), "[5, 6, 5] bits a sample"),
            ((339, vec![5]), "sample format 5 of 8 bits"),
        ] {
            let mut all = entries(&[]);
            all.retain(|(tag, _)| *tag != more.0);
            all.push(more);
            let rejection = decode(tiff(&all, &[vec![0; 600]])).unwrap_err();
            assert!(rejection.detail.contains(expected), "{}", rejection.detail);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_damage_brings_the_decoder_down(
            at in proptest::collection::vec((0.0..1.0_f64, 0..=255_u8), 1..8),
            compression in 0..8_usize,
        ) {
            let compression = [1, 2, 3, 4, 5, 7, 8, 32773][compression];
            let bilevel = matches!(compression, 2..=4);
            let mut all = entries(&[(259, vec![compression]), (278, vec![4])]);
            if bilevel {
                all.retain(|(tag, _)| !matches!(tag, 258 | 262 | 277));
            }
            let mut file = tiff(&all, &[vec![7; 240], vec![9; 240], vec![11; 120]]);
            for (place, byte) in at {
                let place = (file.len() as f64 * place) as usize;
                file[place] = byte;
            }
            let body = Body::Memory(file.into());
            let window = &mut Window::new(&body);
            if let Ok(layout) = Layout::read(window)
                && layout.memory() < 1 << 24
            {
                let _ = layout.decode(window, None);
            }
        }
    }
}
