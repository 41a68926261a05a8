//! `check = "decode"`: every pixel, in bounded memory.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::{ImageError, LimitErrorKind};
use image::{AnimationDecoder, ImageDecoder, ImageReader};

use super::{ImageFormat, Settings, rgb};
use crate::downloader::window::{Window, corrupt};
use crate::downloader::{Body, Rejection};
use crate::target::Reason;

/// Memory for a decoder's tables, beyond the pixels.
const SPARE: u64 = 64 * 1024 * 1024;

/// Goes through every pixel of `body`, whose structure has been checked.
///
/// Formats and variants that the decoder does not know pass: the structure is all that can be held against them.
pub(super) fn decode(
    body: &Body,
    format: ImageFormat,
    settings: &Settings,
) -> Result<(), Rejection> {
    let format = match format {
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Tiff => image::ImageFormat::Tiff,
        ImageFormat::Ico => image::ImageFormat::Ico,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Webp => image::ImageFormat::WebP,
        ImageFormat::Rgb => return rgb::decode(&mut Window::new(body)),
        ImageFormat::Svg
        | ImageFormat::Avif
        | ImageFormat::Heic
        | ImageFormat::Jxl
        | ImageFormat::Jp2
        | ImageFormat::Psd
        | ImageFormat::Cur => return Ok(()),
    };
    // A decoder that panics has met something it does not know, in planar TIFF for one: that says no more
    // against the picture than a variant that it does not support.
    match panic::catch_unwind(AssertUnwindSafe(|| pixels(body, format, settings))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => judge(error),
        Err(_) => Ok(()),
    }
}

fn pixels(body: &Body, format: image::ImageFormat, settings: &Settings) -> Result<(), ImageError> {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(settings.max_side.get());
    limits.max_image_height = Some(settings.max_side.get());
    // Eight bytes are a pixel of four channels of 16 bits.
    limits.max_alloc = Some(
        settings
            .max_pixels
            .get()
            .saturating_mul(8)
            .saturating_add(SPARE),
    );
    match format {
        image::ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(body.reader())?;
            decoder.set_limits(limits)?;
            frames(decoder)
        }
        image::ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(body.reader())?;
            if decoder.has_animation() {
                decoder.set_limits(limits)?;
                return frames(decoder);
            }
            still(body, format, limits)
        }
        _ => still(body, format, limits),
    }
}

/// Decodes frame after frame, of which one is held at a time.
fn frames<'a>(decoder: impl AnimationDecoder<'a>) -> Result<(), ImageError> {
    decoder.into_frames().try_for_each(|frame| frame.map(drop))
}

fn still(body: &Body, format: image::ImageFormat, limits: image::Limits) -> Result<(), ImageError> {
    let mut reader = ImageReader::with_format(body.reader(), format);
    reader.limits(limits);
    reader.decode().map(drop)
}

fn judge(error: ImageError) -> Result<(), Rejection> {
    match error {
        ImageError::Unsupported(_) => Ok(()),
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            Ok(())
        }
        ImageError::Limits(_) => Err(Rejection::new(
            Reason::TooManyPixels,
            "needs more memory to decode than `image.max_pixels` allows",
        )),
        ImageError::IoError(error)
            if error.kind() != io::ErrorKind::UnexpectedEof && error.raw_os_error().is_some() =>
        {
            Err(crate::downloader::window::unreadable(&error))
        }
        error => Err(corrupt(format!("does not decode: {error}"))),
    }
}
