//! JPEG XL, JPEG 2000 and AVIF as pixels, for a process that has no other task: see `child`.
//!
//! Colours are sRGB, or as the container of an AVIF says; the orientation of a JPEG XL is applied, that of an AVIF is not.

use std::io;

use hayro_jpeg2000::error::{DecodeError, FormatError, MarkerError};
use hayro_jpeg2000::{ColorSpace, DecodeSettings, DecoderContext};
use image::{DynamicImage, ImageBuffer, RgbaImage};
use jxl_oxide::{AllocTracker, EnumColourEncoding, JxlImage, RenderingIntent};
use re_rav1d::dav1d::pixel::{MatrixCoefficients, YUVRange};
use re_rav1d::dav1d::{Decoder, PixelLayout, PlanarImageComponent as Component, Settings};

use super::child::NoPixels;

fn damaged(error: impl ToString) -> NoPixels {
    NoPixels::Damaged(error.to_string())
}

fn unknown(error: impl ToString) -> NoPixels {
    NoPixels::Unknown(error.to_string())
}

/// Puts samples together: one to four channels, the last of two or four being opacity.
fn image_of(
    (width, height): (u32, u32),
    channels: u32,
    samples: Vec<u8>,
) -> Result<DynamicImage, NoPixels> {
    let image = match channels {
        1 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma8),
        2 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA8),
        3 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb8),
        4 => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba8),
        _ => None,
    };
    image.ok_or_else(|| unknown(format!("it has {channels} channels")))
}

/// The first frame of a JPEG XL, after every frame has been decoded where `all` are wanted.
pub(super) fn jxl(bytes: &[u8], memory: u64, all: bool) -> Result<DynamicImage, NoPixels> {
    let tracker = AllocTracker::with_limit(usize::try_from(memory).unwrap_or(usize::MAX));
    let mut image = JxlImage::builder()
        .alloc_tracker(tracker)
        .read(bytes)
        .map_err(damaged)?;
    if !image.is_loading_done() {
        return Err(damaged("it is truncated"));
    }
    if image.pixel_format().has_black() {
        return Err(unknown("it is in CMYK"));
    }
    image.request_color_encoding(match image.pixel_format().is_grayscale() {
        true => EnumColourEncoding::gray_srgb(RenderingIntent::Relative),
        false => EnumColourEncoding::srgb(RenderingIntent::Relative),
    });
    let frames = image.num_loaded_keyframes();
    for frame in 1..frames {
        if all {
            image.render_frame(frame).map_err(damaged)?;
        }
    }
    let render = image.render_frame(0).map_err(damaged)?;
    let mut stream = render.stream();
    let (size, channels) = ((stream.width(), stream.height()), stream.channels());
    let count = size.0 as usize * size.1 as usize * channels as usize;
    let mut samples = vec![u8::default(); count];
    stream.write_to_buffer(&mut samples);
    image_of(size, channels, samples)
}

/// A JPEG 2000.
pub(super) fn jp2(bytes: &[u8]) -> Result<DynamicImage, NoPixels> {
    let why = |error: DecodeError| match error {
        DecodeError::Format(FormatError::Unsupported)
        | DecodeError::Marker(MarkerError::Unsupported)
        | DecodeError::Color(_) => unknown(error),
        other => damaged(other),
    };
    let image = hayro_jpeg2000::Image::new(bytes, &DecodeSettings::default()).map_err(why)?;
    let size = (image.width(), image.height());
    let opacity = u32::from(image.has_alpha());
    let channels = match image.color_space() {
        ColorSpace::Gray => 1,
        ColorSpace::RGB => 3,
        ColorSpace::Icc { num_channels, .. } if matches!(num_channels, 1 | 3) => {
            u32::from(*num_channels)
        }
        _ => return Err(unknown("its colours are neither RGB nor grey")),
    };
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(why)?;
    image_of(size, channels + opacity, decoded.data_u8())
}

/// The primary item of an AVIF.
pub(super) fn avif(bytes: &[u8]) -> Result<DynamicImage, NoPixels> {
    let parsed =
        avif_parse::read_avif(&mut io::Cursor::new(bytes)).map_err(|error| match error {
            avif_parse::Error::InvalidData(_) | avif_parse::Error::UnexpectedEOF => damaged(error),
            other => unknown(other),
        })?;
    let color = Planes::decode(&parsed.primary_item)?;
    let opacity = parsed.alpha_item.as_deref().map(Planes::decode);
    let opacity = opacity.transpose()?;
    let size = (color.width, color.height);
    if opacity
        .as_ref()
        .is_some_and(|planes| (planes.width, planes.height) != size)
    {
        return Err(unknown("its opacity has another size"));
    }
    let image = RgbaImage::from_fn(size.0, size.1, |x, y| {
        let mut pixel = color.rgb(x, y);
        let opaque = opacity.as_ref().map_or(1.0, |planes| planes.luma(x, y));
        if parsed.premultiplied_alpha && opaque > 0.0 {
            pixel = pixel.map(|sample| sample / opaque);
        }
        let [red, green, blue] = pixel.map(to_byte);
        image::Rgba([red, green, blue, to_byte(opaque)])
    });
    let image = DynamicImage::from(image);
    Ok(match opacity {
        Some(_) => image,
        None => image.into_rgb8().into(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 255"
)]
fn to_byte(sample: f32) -> u8 {
    (sample.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// A frame of AV1, as samples of 16 bits.
struct Planes {
    width: u32,
    height: u32,
    /// Luma and, unless it is grey, two planes of chroma, each with its width.
    planes: Vec<(usize, Vec<u16>)>,
    /// Binary logarithm of luma samples for each of chroma, across and down.
    shift: (u32, u32),
    full: bool,
    depth: u32,
    matrix: MatrixCoefficients,
}

impl Planes {
    fn decode(stream: &[u8]) -> Result<Self, NoPixels> {
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        let mut decoder = Decoder::with_settings(&settings).map_err(unknown)?;
        match decoder.send_data(stream.to_vec(), None, None, None) {
            Ok(()) => {}
            Err(error) if error.is_again() => {}
            Err(error) => return Err(damaged(error)),
        }
        let picture = loop {
            match decoder.get_picture() {
                Ok(picture) => break picture,
                Err(error) if error.is_again() => match decoder.send_pending_data() {
                    Ok(()) => {
                        let picture = decoder.get_picture();
                        break picture.map_err(|_| damaged("its data holds no whole frame"))?;
                    }
                    Err(error) if error.is_again() => {}
                    Err(error) => return Err(damaged(error)),
                },
                Err(error) => return Err(damaged(error)),
            }
        };
        let (width, height) = (picture.width(), picture.height());
        let depth = picture.bits_per_component().map_or(8, |bits| bits.0);
        let shift = match picture.pixel_layout() {
            PixelLayout::I420 => (1, 1),
            PixelLayout::I422 => (1, 0),
            PixelLayout::I400 | PixelLayout::I444 => (0, 0),
        };
        let components: &[Component] = match picture.pixel_layout() {
            PixelLayout::I400 => &[Component::Y],
            _ => &[Component::Y, Component::U, Component::V],
        };
        let planes = components.iter().map(|component| {
            let bytes = picture.plane(*component);
            let (stride, _) = picture.plane_data_geometry(*component);
            let wide = depth > 8;
            let samples = match wide {
                true => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|pair| u16::from_ne_bytes(*pair))
                    .collect(),
                false => bytes.iter().copied().map(u16::from).collect(),
            };
            (stride as usize / if wide { 2 } else { 1 }, samples)
        });
        Ok(Self {
            width,
            height,
            planes: planes.collect(),
            shift,
            full: picture.color_range() == YUVRange::Full,
            depth: u32::try_from(depth).unwrap_or(8),
            matrix: picture.matrix_coefficients(),
        })
    }

    fn sample(&self, plane: usize, x: u32, y: u32) -> f32 {
        let (stride, samples) = &self.planes[plane];
        let at = y as usize * stride + x as usize;
        f32::from(samples.get(at).copied().unwrap_or_default())
    }

    /// Luma between 0 and 1.
    fn luma(&self, x: u32, y: u32) -> f32 {
        let sample = self.sample(0, x, y);
        // As of 8 bits.
        let unit = f32::from(1_u16 << (self.depth - 8));
        match self.full {
            true => sample / f32::from((1_u16 << self.depth) - 1),
            false => (sample / unit - 16.0) / 219.0,
        }
    }

    /// Chroma between -0.5 and 0.5.
    fn chroma(&self, plane: usize, x: u32, y: u32) -> f32 {
        let sample = self.sample(plane, x >> self.shift.0, y >> self.shift.1);
        let unit = f32::from(1_u16 << (self.depth - 8));
        match self.full {
            true => (sample - 128.0 * unit) / f32::from((1_u16 << self.depth) - 1),
            false => (sample / unit - 128.0) / 224.0,
        }
    }

    /// Red, green and blue by ITU-T H.273, section 8.3.
    fn rgb(&self, x: u32, y: u32) -> [f32; 3] {
        let luma = self.luma(x, y);
        if self.planes.len() < 3 {
            return [luma; 3];
        }
        let (red_share, blue_share) = match self.matrix {
            MatrixCoefficients::Identity => {
                let full = f32::from((1_u16 << self.depth) - 1);
                let other = |plane| match self.full {
                    true => self.sample(plane, x, y) / full,
                    false => {
                        let unit = f32::from(1_u16 << (self.depth - 8));
                        (self.sample(plane, x, y) / unit - 16.0) / 219.0
                    }
                };
                return [other(2), luma, other(1)];
            }
            MatrixCoefficients::BT709 => (0.2126, 0.0722),
            MatrixCoefficients::BT2020NonConstantLuminance
            | MatrixCoefficients::BT2020ConstantLuminance => (0.2627, 0.0593),
            MatrixCoefficients::ST240M => (0.212, 0.087),
            MatrixCoefficients::BT470M => (0.3, 0.11),
            _ => (0.299, 0.114),
        };
        let (blue, red) = (self.chroma(1, x, y), self.chroma(2, x, y));
        let red = luma + 2.0 * (1.0 - red_share) * red;
        let blue = luma + 2.0 * (1.0 - blue_share) * blue;
        let green = (luma - red_share * red - blue_share * blue) / (1.0 - red_share - blue_share);
        [red, green, blue]
    }
}
