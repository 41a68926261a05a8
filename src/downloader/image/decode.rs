//! `check = "decode"`: every pixel of every frame and page, in bounded memory.
//!
//! PNG, GIF and TIFF go by rows, pieces of rows, strips and tiles, which are not kept. The other formats need
//! their pixels in memory at once; how many bytes that takes is known beforehand, and reserved.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read as _, Seek as _};
use std::panic::{self, AssertUnwindSafe};

use gif::{ColorOutput, DecodeOptions};
use image::codecs::webp::WebPDecoder;
use image::error::{ImageError, LimitErrorKind};
use image::{AnimationDecoder, ImageDecoder, ImageReader};
use tiff::decoder::{ChunkType, Decoder as TiffDecoder, Limits as TiffLimits};
use tiff::tags::{CompressionMethod, Tag};
use tiff::{TiffError, TiffFormatError};

use super::child::NoPixels;
use super::memory::Memory;
use super::pixels::{self, NoDrawing};
use super::tiff::MAX_DIRECTORIES;
use super::{ImageFormat, Limits, gif as gif_file, ico, jpeg, rgb};
use crate::downloader::window::{Window, corrupt, unreadable};
use crate::downloader::{Body, BodyReader, Rejection};
use crate::target::Reason;

/// Memory for a decoder that keeps no pixels, and for the tables of one that does.
pub(super) const TABLES: u64 = 4 * 1024 * 1024;

/// Pixels of all frames together, as a multiple of `image.max_pixels`: bounds the time for an animation.
const MAX_FRAMES: u64 = 64;

/// What looking at the pixels came to, where nothing speaks against them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Every pixel is there.
    Whole,
    /// Nothing decodes the format or this variant of it, which the text names: "is coded arithmetically, …".
    Undecoded(Cow<'static, str>),
}

/// Goes through every pixel of `body`, whose structure has been checked and states `dimensions`.
///
/// A rejection speaks of damage, or of limits. The structure is all that can be held against formats and variants
/// that no decoder knows: they are [`Decoded::Undecoded`].
pub(super) fn decode(
    body: &Body,
    format: ImageFormat,
    dimensions: (u32, u32),
    limits: &Limits,
    memory: &Memory,
) -> Result<Decoded, Rejection> {
    let decoding = Decoding {
        body,
        dimensions,
        limits,
        memory,
        spent: 0,
        skipped: None,
    };
    match panic::catch_unwind(AssertUnwindSafe(|| decoding.run(format))) {
        Ok(Ok(decoded)) => Ok(decoded),
        Ok(Err(Stop::Rejected(rejection))) => Err(rejection),
        Ok(Err(Stop::Unknown(why))) => Ok(Decoded::Undecoded(why)),
        // A decoder that panics has met something it does not know: that says no more against the picture than
        // a variant that it does not support.
        Err(_) => Ok(Decoded::Undecoded("makes its decoder give up".into())),
    }
}

/// Why decoding stops before the end.
enum Stop {
    Rejected(Rejection),
    /// No decoder knows the format or this variant of it, which the text names.
    Unknown(Cow<'static, str>),
}

/// The variant that a decoder's own words name.
fn unknown(error: impl fmt::Display) -> Stop {
    Stop::Unknown(format!("is of a variant that is not decoded: {error}").into())
}

struct Decoding<'a> {
    body: &'a Body,
    dimensions: (u32, u32),
    limits: &'a Limits,
    memory: &'a Memory,
    /// Pixels of the frames so far.
    spent: u64,
    /// Why the first page of those that were passed over was not decoded.
    skipped: Option<Cow<'static, str>>,
}

impl Decoding<'_> {
    fn run(mut self, format: ImageFormat) -> Result<Decoded, Stop> {
        self.look(format)?;
        Ok(self.skipped.map_or(Decoded::Whole, Decoded::Undecoded))
    }

    /// The decoder of each format.
    fn look(&mut self, format: ImageFormat) -> Result<(), Stop> {
        match format {
            ImageFormat::Png => self.png(0, self.dimensions.0),
            ImageFormat::Ico | ImageFormat::Cur => self.icon(),
            ImageFormat::Gif => self.gif(),
            ImageFormat::Tiff => self.tiff(),
            ImageFormat::Webp => self.webp(),
            // Three channels of a byte, or four.
            ImageFormat::Bmp => self.whole(image::ImageFormat::Bmp, self.pixels() * 4),
            ImageFormat::Jpeg => match jpeg::walk(&mut Window::new(self.body), self.memory)? {
                jpeg::Walked::Whole => Ok(()),
                jpeg::Walked::Unknown(why) => Err(Stop::Unknown(why.into())),
            },
            ImageFormat::Rgb => Ok(rgb::decode(&mut Window::new(self.body))?),
            ImageFormat::Svg | ImageFormat::Svgz => self.drawing(format),
            ImageFormat::Avif | ImageFormat::Jxl | ImageFormat::Jp2 => self.aside(format),
            ImageFormat::Heic | ImageFormat::Psd => {
                Err(Stop::Unknown("is of a format that is not decoded".into()))
            }
        }
    }

    /// Every frame, in another process.
    fn aside(&self, format: ImageFormat) -> Result<(), Stop> {
        let decoded = pixels::aside(self.body, format, self.dimensions, true, self.memory, 0);
        match decoded {
            Ok(_) => Ok(()),
            Err(NoDrawing::Rejected(rejection)) => Err(rejection.into()),
            Err(NoDrawing::NoPixels(NoPixels::Damaged(detail))) => {
                Err(corrupt(format!("does not decode: {detail}")).into())
            }
            Err(NoDrawing::NoPixels(NoPixels::Unknown(detail))) => {
                Err(Stop::Unknown(format!("is not decoded: {detail}").into()))
            }
        }
    }

    /// In a small size, which takes all that a large one does but memory.
    fn drawing(&self, format: ImageFormat) -> Result<(), Stop> {
        let small = |_| ((64, 64), (1.0, 1.0));
        match pixels::draw(self.body, format, self.limits, self.memory, small) {
            Ok(_) => Ok(()),
            Err(NoDrawing::Rejected(rejection)) => Err(rejection.into()),
            // The text has been found to be sound.
            Err(NoDrawing::NoPixels(NoPixels::Unknown(why) | NoPixels::Damaged(why))) => {
                Err(Stop::Unknown(format!("cannot be drawn: {why}").into()))
            }
        }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.dimensions.0) * u64::from(self.dimensions.1)
    }

    /// Holds the limits against one more frame.
    fn frame(&mut self, width: u32, height: u32) -> Result<(), Rejection> {
        self.limits.admit_frame(width, height)?;
        self.spent += u64::from(width) * u64::from(height);
        if self.spent > self.limits.max_pixels().saturating_mul(MAX_FRAMES) {
            return Err(Rejection::new(
                Reason::TooManyPixels,
                format!(
                    "has frames of more than {MAX_FRAMES} times `image.max_pixels` ({}) together",
                    self.limits.max_pixels()
                ),
            ));
        }
        Ok(())
    }

    /// The PNG at `offset`: row by row, frame by frame.
    fn png(&mut self, offset: u64, width: u32) -> Result<(), Stop> {
        // A few rows, of at most eight bytes a pixel.
        let _held = self.memory.hold(TABLES + u64::from(width) * 8 * 4)?;
        let mut options = png::DecodeOptions::default();
        options.set_ignore_text_chunk(true);
        options.set_ignore_iccp_chunk(true);
        let reader = self.body.reader_at(offset);
        let mut reader = png::Decoder::new_with_options(reader, options).read_info()?;
        let info = reader.info();
        // A still picture before an animation is not counted by it.
        let mut more = info.animation_control().map_or(0, |animation| {
            animation
                .num_frames
                .saturating_sub(u32::from(info.frame_control.is_some()))
        });
        loop {
            let info = reader.info();
            let (width, height) = info
                .frame_control
                .map_or(info.size(), |frame| (frame.width, frame.height));
            self.frame(width, height)?;
            while reader.next_row()?.is_some() {}
            if more == 0 {
                return Ok(());
            }
            more -= 1;
            reader.next_frame_info()?;
        }
    }

    /// The entries that are PNGs. The others are not compressed: their pixels are in the file.
    fn icon(&mut self) -> Result<(), Stop> {
        for (offset, width) in ico::pngs(&mut Window::new(self.body))? {
            self.png(offset, width)?;
        }
        Ok(())
    }

    /// As many frames as the file has; whether a trailer follows them does not matter.
    fn gif(&mut self) -> Result<(), Stop> {
        let _held = self.memory.hold(TABLES)?;
        let (_, images) = gif_file::walk(&mut Window::new(self.body), self.limits)?;
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        // The blocks are sound, so that a fault outside coded data is of the decoder's.
        let mut decoder = options
            .read_info(self.body.reader())
            .map_err(unknown_block)?;
        let mut piece = vec![0; 64 * 1024];
        for _ in 0..images {
            let frame = decoder
                .next_frame_info()
                .map_err(unknown_block)?
                .ok_or_else(|| corrupt("holds fewer frames than its blocks show"))?;
            let (width, height) = (frame.width.into(), frame.height.into());
            self.frame(width, height)?;
            let mut left = width as usize * height as usize;
            while left > 0 {
                let n = left.min(piece.len());
                if !decoder.fill_buffer(&mut piece[..n])? {
                    return Err(corrupt("does not decode: a frame is truncated").into());
                }
                left -= n;
            }
        }
        Ok(())
    }

    /// Strip by strip or tile by tile, page by page.
    fn tiff(&mut self) -> Result<(), Stop> {
        // What the largest piece takes has to be known before any is decoded.
        let mut largest = 0;
        {
            let _held = self.memory.hold(TABLES)?;
            self.pages(|decoder, piece| {
                let bytes = decoder.image_chunk_buffer_layout(piece)?.len as u64;
                let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression)?;
                let is_jpeg = compression.is_some_and(|method| {
                    CompressionMethod::from_u16(method) == Some(CompressionMethod::ModernJPEG)
                });
                // JPEG is decoded as a whole first.
                largest = largest.max(if is_jpeg { bytes * 3 } else { bytes });
                Ok(())
            })?;
        }
        let _held = self.memory.hold(TABLES + largest)?;
        let mut buffer = Vec::new();
        self.pages(|decoder, piece| {
            buffer.resize(decoder.image_chunk_buffer_layout(piece)?.len, 0);
            Ok(decoder.read_chunk_bytes(piece, &mut buffer)?)
        })
    }

    /// Shows `visit` every strip and tile that is there.
    fn pages(
        &mut self,
        mut visit: impl FnMut(&mut TiffDecoder<BodyReader<'_>>, u32) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.spent = 0;
        let mut limits = TiffLimits::default();
        // What pieces take is held against the budget.
        limits.decoding_buffer_size = usize::MAX;
        limits.intermediate_buffer_size = usize::MAX;
        let mut decoder = TiffDecoder::new(self.body.reader())?.with_limits(limits);
        for _ in 0..MAX_DIRECTORIES {
            let (width, height) = decoder.dimensions()?;
            self.frame(width, height)?;
            match page(&mut decoder, &mut visit) {
                Ok(()) => {}
                Err(Stop::Unknown(why)) => {
                    self.skipped.get_or_insert(why);
                }
                rejected => return rejected,
            }
            if !decoder.more_images() {
                break;
            }
            decoder.next_image()?;
        }
        Ok(())
    }

    /// One frame at a time, on a canvas.
    fn webp(&mut self) -> Result<(), Stop> {
        let decoder = WebPDecoder::new(self.body.reader())?;
        if !decoder.has_animation() {
            // Three or four channels, the same again for what they are made of, and transforms.
            return self.whole(image::ImageFormat::WebP, self.pixels() * 12);
        }
        // The canvas, the frame and what it is made of, and two copies of the canvas.
        let _held = self.memory.hold(TABLES + self.pixels() * 20)?;
        let (width, height) = decoder.dimensions();
        decoder.into_frames().try_for_each(|frame| {
            frame?;
            Ok(self.frame(width, height)?)
        })
    }

    /// All pixels at once, which takes `bytes`.
    fn whole(&self, format: image::ImageFormat, bytes: u64) -> Result<(), Stop> {
        let bytes = TABLES + bytes;
        let _held = self.memory.hold(bytes)?;
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(bytes);
        let mut reader = ImageReader::with_format(self.body.reader(), format);
        reader.limits(limits);
        reader.decode()?;
        Ok(())
    }
}

/// Shows `visit` the strips or tiles of the page that `decoder` is at, but for those that a sparse file leaves out.
fn page(
    decoder: &mut TiffDecoder<BodyReader<'_>>,
    visit: &mut impl FnMut(&mut TiffDecoder<BodyReader<'_>>, u32) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (pieces, counts) = match decoder.get_chunk_type() {
        ChunkType::Strip => (decoder.strip_count()?, Tag::StripByteCounts),
        ChunkType::Tile => (decoder.tile_count()?, Tag::TileByteCounts),
    };
    let counts = decoder
        .find_tag_unsigned_vec::<u64>(counts)?
        .unwrap_or_default();
    known_coding(decoder)?;
    (0..pieces)
        .filter(|piece| counts.get(*piece as usize) != Some(&0))
        .try_for_each(|piece| visit(decoder, piece))
}

/// Widest JPEG that the decoder of TIFF takes.
const MAX_JPEG_SIDE: u32 = 16_384;

/// Recognises codings of a page that the decoder takes for damage.
fn known_coding(decoder: &mut TiffDecoder<BodyReader<'_>>) -> Result<(), Stop> {
    let compression = decoder
        .find_tag_unsigned::<u16>(Tag::Compression)?
        .map(CompressionMethod::from_u16);
    if decoder.find_tag_unsigned::<u16>(Tag::FillOrder)? == Some(2) {
        return Err(Stop::Unknown(
            "has bits in reverse order (FillOrder 2), which is not decoded".into(),
        ));
    }
    match compression.flatten() {
        Some(CompressionMethod::ModernJPEG) => {
            let (width, height) = decoder.chunk_dimensions();
            if width.max(height) > MAX_JPEG_SIDE {
                return Err(Stop::Unknown(
                    format!("holds a JPEG of {width}×{height} pixels, which is not decoded").into(),
                ));
            }
        }
        Some(CompressionMethod::LZW) => {
            let offsets = decoder.find_tag_unsigned_vec::<u64>(Tag::StripOffsets)?;
            let Some(first) = offsets.and_then(|offsets| offsets.first().copied()) else {
                return Ok(());
            };
            let mut head = [0; 2];
            let reader = decoder.inner();
            let at = reader.stream_position()?;
            reader.seek(io::SeekFrom::Start(first))?;
            let read = reader.read_exact(&mut head);
            reader.seek(io::SeekFrom::Start(at))?;
            read?;
            // Codes from the lowest bit up begin with the clear code in these bits (libtiff, LZWPreDecode).
            if head[0] == 0 && head[1] & 1 == 1 {
                return Err(Stop::Unknown(
                    "is packed by the LZW of old writers, which is not decoded".into(),
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Rejected(match error.raw_os_error() {
            Some(_) => unreadable(&error),
            None => undecodable(&error),
        })
    }
}

impl From<png::DecodingError> for Stop {
    fn from(error: png::DecodingError) -> Self {
        match error {
            png::DecodingError::IoError(error) => error.into(),
            error => Self::Rejected(undecodable(&error)),
        }
    }
}

/// What a GIF decoder says of blocks that hold no coded data.
fn unknown_block(error: gif::DecodingError) -> Stop {
    match error {
        error @ gif::DecodingError::Format(_) => unknown(error),
        error => error.into(),
    }
}

impl From<gif::DecodingError> for Stop {
    fn from(error: gif::DecodingError) -> Self {
        match error {
            gif::DecodingError::Io(error) => error.into(),
            // Of the metadata, since no frame is kept.
            error @ (gif::DecodingError::MemoryLimit | gif::DecodingError::OutOfMemory) => {
                unknown(error)
            }
            error => Self::Rejected(undecodable(&error)),
        }
    }
}

impl From<TiffError> for Stop {
    fn from(error: TiffError) -> Self {
        match error {
            TiffError::IoError(error) => error.into(),
            // The decoder wants tags that old writers leave out and directories of thumbnails lack, and no
            // directory twice; and its tables have limits.
            // Only this speaks of coded data. The structure is known to be sound.
            TiffError::FormatError(error @ TiffFormatError::CompressedDataCorrupt(_)) => {
                Self::Rejected(undecodable(&error))
            }
            error @ (TiffError::FormatError(_)
            | TiffError::UnsupportedError(_)
            | TiffError::LimitsExceeded
            | TiffError::IntSizeError
            | TiffError::UsageError(_)) => unknown(error),
        }
    }
}

impl From<ImageError> for Stop {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(error) => unknown(error),
            ImageError::Limits(limit)
                if matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) =>
            {
                unknown(limit)
            }
            ImageError::Limits(_) => Self::Rejected(Rejection::new(
                Reason::DecodeMemory,
                "needs more memory to decode than its size lets expect",
            )),
            ImageError::IoError(error) => error.into(),
            error if is_unknown_webp(&error) => unknown(error),
            error => Self::Rejected(undecodable(&error)),
        }
    }
}

/// Whether the WebP decoder misses chunks whose absence says nothing of the pixels, or does not know a feature.
fn is_unknown_webp(error: &ImageError) -> bool {
    use image_webp::DecodingError as E;
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref())
        .is_some_and(|error| {
            matches!(
                error,
                E::ChunkMissing | E::UnsupportedFeature(_) | E::InvalidParameter(_)
            )
        })
}

fn undecodable(error: &dyn std::error::Error) -> Rejection {
    corrupt(format!("does not decode: {error}"))
}
