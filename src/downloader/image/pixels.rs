//! The pixels of a picture, for those who make something of them.

use std::io::Read as _;
use std::panic::{self, AssertUnwindSafe};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::child::{self, Ask, NoPixels};
use super::decode::TABLES;
use super::memory::{Held, Memory};
use super::{
    Color, ImageFormat, Limits, Settings, isobmff, jp2, jpeg, jxl, metadata, svg, tiff, tiff_pixels,
};
use crate::downloader::window::{Window, corrupt, unreadable};
use crate::downloader::{Body, Rejection};
use crate::target::Reason;

/// Decodes pictures, within the limits of `[image]`: that of memory is for all that it decodes at a time.
#[derive(Debug)]
pub(crate) struct Decoder {
    limits: Limits,
    memory: Memory,
}

/// A picture as it is stored; of several, the first.
#[derive(Debug)]
pub(crate) struct Pixels<'a> {
    pub(crate) image: DynamicImage,
    /// How it has to be turned to stand upright.
    pub(crate) orientation: Orientation,
    /// The colour space of `image`; `None` means sRGB.
    pub(crate) color: Option<Color>,
    _held: Held<'a>,
}

/// Longest text of a vector image that is drawn, in bytes.
const MAX_TEXT: u64 = 64 * 1024 * 1024;

/// Memory for drawing a vector image, in bytes. Most take a tenth of it.
const DRAWING: u64 = 256 * 1024 * 1024;

impl Decoder {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            limits: Limits::new(settings),
            memory: Memory::new(settings.decode_memory.as_u64()),
        }
    }

    /// Whether it knows the format.
    pub(crate) const fn knows(format: ImageFormat) -> bool {
        codec(format).is_some() || Self::draws(format) || is_foreign(format)
    }

    /// Whether the format is a vector format, which is drawn in any size.
    pub(crate) const fn draws(format: ImageFormat) -> bool {
        matches!(format, ImageFormat::Svg | ImageFormat::Svgz)
    }

    /// Draws `body`. `plan` says, for its width and height, how large the drawing is, and which share of width and height
    /// it shows from the middle.
    ///
    /// Blocks the thread until there is memory, and until it is drawn.
    ///
    /// # Errors
    ///
    /// When it is damaged, or takes too much memory or time.
    pub(crate) fn draw(
        &self,
        body: &Body,
        format: ImageFormat,
        plan: impl FnOnce((u32, u32)) -> ((u32, u32), (f64, f64)),
    ) -> Result<DynamicImage, Rejection> {
        draw(body, format, &self.limits, &self.memory, plan)
            .map_err(NoDrawing::into_rejection)
            .map_err(|rejection| super::name_format(rejection, format))
    }

    /// Decodes `body`. `more` says how much memory is needed besides, for a picture of that width and height; it is
    /// held together with the pixels.
    ///
    /// Blocks the thread until there is memory.
    ///
    /// # Errors
    ///
    /// When it is too large, or does not decode.
    pub(crate) fn decode(
        &self,
        body: &Body,
        format: ImageFormat,
        more: impl FnOnce((u32, u32)) -> u64,
    ) -> Result<Pixels<'_>, Rejection> {
        let decode = AssertUnwindSafe(|| self.try_decode(body, format, more));
        panic::catch_unwind(decode)
            .unwrap_or_else(|_| Err(corrupt("does not decode: its decoder gave up")))
            .map_err(|rejection| super::name_format(rejection, format))
    }

    fn try_decode_aside(
        &self,
        body: &Body,
        format: ImageFormat,
        more: impl FnOnce((u32, u32)) -> u64,
    ) -> Result<Pixels<'_>, Rejection> {
        let window = &mut Window::new(body);
        let picture = match format {
            ImageFormat::Jxl => jxl::inspect(window, &self.limits),
            ImageFormat::Jp2 => jp2::inspect(window, &self.limits),
            _ => isobmff::inspect(window, &self.limits),
        }?;
        let (width, height) = picture.dimensions.unwrap_or_default();
        let more = more((width, height));
        let decoded = aside(body, format, (width, height), false, &self.memory, more);
        let (image, held) = decoded.map_err(NoDrawing::into_rejection)?;
        Ok(Pixels {
            image,
            orientation: match format {
                // Its decoder has turned it.
                ImageFormat::Jxl => None,
                _ => metadata::orientation(window, format).and_then(Orientation::from_exif),
            }
            .unwrap_or(Orientation::NoTransforms),
            color: metadata::color(window, format),
            _held: held,
        })
    }

    fn try_decode(
        &self,
        body: &Body,
        format: ImageFormat,
        more: impl FnOnce((u32, u32)) -> u64,
    ) -> Result<Pixels<'_>, Rejection> {
        if is_foreign(format) {
            return self.try_decode_aside(body, format, more);
        }
        if format == ImageFormat::Tiff {
            return self.tiff(body, more);
        }
        let codec = codec(format).ok_or_else(|| corrupt("is of a format that is not decoded"))?;
        let undecodable = |error| corrupt(format!("does not decode: {error}"));
        let mut limits = image::Limits::no_limits();
        let open = |limits| {
            let mut reader = ImageReader::with_format(body.reader(), codec);
            reader.limits(limits);
            reader.into_decoder().map_err(undecodable)
        };
        let mut is_second = false;
        let (dimensions, bytes) = if format == ImageFormat::Jpeg {
            // Its decoder begins with all of the file.
            let start = jpeg::Start::read(&mut Window::new(body), &self.limits)?;
            match start.codec() {
                jpeg::Codec::First => {}
                jpeg::Codec::Second => is_second = true,
                jpeg::Codec::Nothing(why) => return Err(Rejection::new(Reason::Undecoded, why)),
            }
            let (width, height) = start.dimensions();
            let pixels = u64::from(width) * u64::from(height);
            ((width, height), body.len() + pixels * start.decoded_bytes())
        } else {
            limits.max_alloc = Some(TABLES);
            let decoder = open(limits.clone())?;
            let (width, height) = decoder.dimensions();
            let pixels = u64::from(width) * u64::from(height);
            let copies = match format {
                // What it is made of: see `decode`.
                ImageFormat::Webp => pixels.saturating_mul(20),
                // A frame, and the canvas that it is put on; transparent pixels are multiplied in a copy.
                _ => decoder.total_bytes().saturating_mul(2),
            };
            ((width, height), copies)
        };
        let (width, height) = self.limits.admit(dimensions.0, dimensions.1)?;
        let bytes = bytes
            .saturating_add(more((width, height)))
            .saturating_add(TABLES);
        let held = self.memory.hold(bytes)?;
        limits.max_alloc = Some(bytes);
        let window = &mut Window::new(body);
        let image = match is_second {
            true => jpeg::second(body)?,
            false => DynamicImage::from_decoder(open(limits)?).map_err(undecodable)?,
        };
        Ok(Pixels {
            image,
            orientation: orientation(window, format),
            color: metadata::color(window, format),
            _held: held,
        })
    }

    /// By our own reader of strips and tiles: that of `image` knows few of the variants.
    fn tiff(
        &self,
        body: &Body,
        more: impl FnOnce((u32, u32)) -> u64,
    ) -> Result<Pixels<'_>, Rejection> {
        let window = &mut Window::new(body);
        let (width, height) = tiff::Page::first(window)?.size(window)?;
        let size = self.limits.admit(width, height)?;
        let layout = tiff_pixels::Layout::read(window)?;
        let bytes = layout
            .memory()
            .saturating_add(more(size))
            .saturating_add(TABLES);
        let held = self.memory.hold(bytes)?;
        let color = metadata::color(window, ImageFormat::Tiff);
        let profile = match &color {
            Some(Color::Icc(profile)) => Some(profile.as_slice()),
            _ => None,
        };
        Ok(Pixels {
            image: layout.decode(window, profile)?,
            orientation: orientation(window, ImageFormat::Tiff),
            // That of inks or of CIELab is not that of the pixels.
            color: color.filter(|_| layout.keeps_color()),
            _held: held,
        })
    }
}

/// Whether a decoder in a process of its own knows the format.
pub(super) const fn is_foreign(format: ImageFormat) -> bool {
    matches!(
        format,
        ImageFormat::Jxl | ImageFormat::Jp2 | ImageFormat::Avif
    )
}

/// Bytes for decoding a pixel in another process: four channels of four bytes, several times over.
const PER_PIXEL: u64 = 64;

/// Decodes `body`, a picture of `dimensions`, in another process. `more` bytes are held besides.
pub(super) fn aside<'a>(
    body: &Body,
    format: ImageFormat,
    dimensions: (u32, u32),
    all: bool,
    memory: &'a Memory,
    more: u64,
) -> Result<(DynamicImage, Held<'a>), NoDrawing> {
    let pixels = u64::from(dimensions.0) * u64::from(dimensions.1);
    // It has the file too.
    let limit = pixels
        .saturating_mul(PER_PIXEL)
        .saturating_add(body.len().saturating_mul(2))
        .saturating_add(4 * TABLES);
    let here = pixels.saturating_mul(16).saturating_add(body.len());
    let held = memory.hold(limit.saturating_add(here).saturating_add(more))?;
    let ask = Ask {
        format,
        size: dimensions,
        taken: (1.0, 1.0),
        all,
        memory: limit,
    };
    let mut bytes = Vec::new();
    let read = body.reader().read_to_end(&mut bytes);
    read.map_err(|error| unreadable(&error))?;
    let image = child::pixels(&ask, &bytes).map_err(NoDrawing::NoPixels)?;
    Ok((image, held))
}

/// Why a vector image is not drawn.
#[derive(Debug)]
pub(super) enum NoDrawing {
    Rejected(Rejection),
    NoPixels(NoPixels),
}

impl NoDrawing {
    fn into_rejection(self) -> Rejection {
        corrupt(match self {
            Self::Rejected(rejection) => return rejection,
            Self::NoPixels(NoPixels::Damaged(detail)) => format!("does not decode: {detail}"),
            Self::NoPixels(NoPixels::Unknown(detail)) => format!("cannot be decoded: {detail}"),
        })
    }
}

impl From<Rejection> for NoDrawing {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Draws a vector image: see [`Decoder::draw`].
pub(super) fn draw(
    body: &Body,
    format: ImageFormat,
    limits: &Limits,
    memory: &Memory,
    plan: impl FnOnce((u32, u32)) -> ((u32, u32), (f64, f64)),
) -> Result<DynamicImage, NoDrawing> {
    let packed = format == ImageFormat::Svgz;
    // Files of other kinds than `image` have not been looked at.
    let window = &mut Window::new(body);
    let picture = match packed {
        true => svg::inspect_packed(window, MAX_TEXT)?,
        false => svg::inspect(window)?,
    };
    // As browsers have it for one that states no size (CSS 2, section 10.3.2).
    let (size, taken) = plan(picture.dimensions.unwrap_or((300, 150)));
    limits.admit(size.0, size.1)?;
    let pixels = u64::from(size.0) * u64::from(size.1) * 4;
    let memory_limit = DRAWING.min(memory.budget());
    let _held = memory.hold(memory_limit.max(pixels * 2))?;
    let ask = Ask {
        format: ImageFormat::Svg,
        size,
        taken,
        all: false,
        memory: memory_limit.max(pixels * 2),
    };
    let text = svg::text(body, packed, MAX_TEXT)?;
    child::pixels(&ask, text.as_bytes()).map_err(NoDrawing::NoPixels)
}

/// How the pixels have to be turned to stand upright.
fn orientation(window: &mut Window<'_>, format: ImageFormat) -> Orientation {
    metadata::orientation(window, format)
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

const fn codec(format: ImageFormat) -> Option<image::ImageFormat> {
    Some(match format {
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Tiff => image::ImageFormat::Tiff,
        ImageFormat::Ico => image::ImageFormat::Ico,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Webp => image::ImageFormat::WebP,
        ImageFormat::Svg
        | ImageFormat::Svgz
        | ImageFormat::Rgb
        | ImageFormat::Avif
        | ImageFormat::Heic
        | ImageFormat::Jxl
        | ImageFormat::Jp2
        | ImageFormat::Psd
        | ImageFormat::Cur => return None,
    })
}
