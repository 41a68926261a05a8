//! Pictures of pictures. Blocks, and takes a processor.

use fast_image_resize::{ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageEncoder, ImageError, ImageResult, Rgb, RgbImage};

use super::params::{Output, Params, Plan, QUALITY};
use crate::downloader::image::{Converted, Decoder, ImageFormat, Pixels, to_srgb};
use crate::downloader::{Body, Rejection};
use crate::target::Reason;

/// Bytes for each pixel of a result: as it is resized, turned, made 8 bits deep, and encoded.
const WORKED: u64 = 24;

/// The picture that `params` ask for, upright, in sRGB and without metadata, and whether it is as large and as upright
/// as the original.
pub(super) fn render(
    decoder: &Decoder,
    body: &Body,
    format: ImageFormat,
    params: &Params,
) -> Result<(Converted, bool), Rejection> {
    if Decoder::draws(format) {
        let drawn = decoder.draw(body, format, |size| {
            let Plan { size: made, taken } = params.plan(size);
            let (width, height) = (f64::from(size.0), f64::from(size.1));
            (made, (taken.0 / width, taken.1 / height))
        });
        let drawn = Converted {
            image: drawn?,
            profile: None,
        };
        return Ok((drawn, false));
    }
    let pixels = decoder.decode(body, format, |size| memory(params, size))?;
    let stored = (pixels.image.width(), pixels.image.height());
    let turned = is_turned(pixels.orientation);
    let plan = params.plan(swapped(stored, turned));
    let is_same = pixels.orientation == Orientation::NoTransforms && plan.size == stored;
    Ok((finish(pixels, &plan, turned)?, is_same))
}

fn memory(params: &Params, (width, height): (u32, u32)) -> u64 {
    // Not yet known is whether it lies on its side.
    let sizes = [(width, height), (height, width)].map(|size| params.plan(size).size);
    let bytes = sizes.map(|(w, h)| {
        // It is resized in one direction first.
        let half_done = u64::from(w) * u64::from(width.max(height)) * 8;
        u64::from(w) * u64::from(h) * WORKED + half_done
    });
    bytes[0].max(bytes[1])
}

fn finish(pixels: Pixels<'_>, plan: &Plan, turned: bool) -> Result<Converted, Rejection> {
    let image = &pixels.image;
    let (width, height) = swapped(plan.size, turned);
    let (taken_w, taken_h) = match turned {
        true => (plan.taken.1, plan.taken.0),
        false => plan.taken,
    };
    let (w, h) = (f64::from(image.width()), f64::from(image.height()));
    let (taken_w, taken_h) = (taken_w.min(w), taken_h.min(h));
    let options =
        ResizeOptions::new().crop((w - taken_w) / 2.0, (h - taken_h) / 2.0, taken_w, taken_h);
    let mut small = DynamicImage::new(width, height, image.color());
    let resized = Resizer::new().resize(image, &mut small, &options);
    resized.map_err(|error| cannot(format!("cannot be resized: {error}")))?;
    let Converted {
        image: small,
        profile,
    } = to_srgb(small, pixels.color.as_ref());
    let mut small = match (small.color().has_color(), small.color().has_alpha()) {
        (true, true) => small.into_rgba8().into(),
        (true, false) => small.into_rgb8().into(),
        (false, true) => small.into_luma_alpha8().into(),
        (false, false) => small.into_luma8().into(),
    };
    DynamicImage::apply_orientation(&mut small, pixels.orientation);
    Ok(Converted {
        image: small,
        profile,
    })
}

/// The bytes of a file.
pub(super) fn encode(picture: Converted, params: &Params) -> Result<Vec<u8>, Rejection> {
    let format = params.format.unwrap_or(Output::Png);
    try_encode(picture, format, params.quality.unwrap_or(QUALITY))
        .map_err(|error| cannot(format!("cannot be written as {}: {error}", format.as_str())))
}

fn try_encode(picture: Converted, format: Output, quality: u8) -> ImageResult<Vec<u8>> {
    let Converted { image, profile } = picture;
    let mut bytes = Vec::new();
    match format {
        Output::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            let image = match image.color().has_alpha() {
                true => on_white(&image),
                false => image,
            };
            write(&image, encoder, profile)?;
        }
        Output::Png => write(&image, PngEncoder::new(&mut bytes), profile)?,
        Output::Webp => write(&image, WebPEncoder::new_lossless(&mut bytes), profile)?,
    }
    Ok(bytes)
}

fn write(
    image: &DynamicImage,
    mut encoder: impl ImageEncoder,
    profile: Option<Vec<u8>>,
) -> ImageResult<()> {
    if let Some(profile) = profile {
        encoder
            .set_icc_profile(profile)
            .map_err(ImageError::Unsupported)?;
    }
    image.write_with_encoder(encoder)
}

fn on_white(image: &DynamicImage) -> DynamicImage {
    let image = image.to_rgba8();
    let opaque = RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0;
        let alpha = u16::from(alpha);
        let mix = |channel: u8| {
            let mixed = (u16::from(channel) * alpha + 255 * (255 - alpha) + 127) / 255;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        Rgb([red, green, blue].map(mix))
    });
    opaque.into()
}

const fn is_turned(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

const fn swapped((width, height): (u32, u32), turned: bool) -> (u32, u32) {
    match turned {
        true => (height, width),
        false => (width, height),
    }
}

fn cannot(detail: String) -> Rejection {
    Rejection::new(Reason::Corrupt, format!("the picture {detail}"))
}
