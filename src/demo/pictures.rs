//! The bytes that the demo's origin serves, made at its start.

use std::io::{self, Cursor};

use bytes::Bytes;
use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::{Delay, DynamicImage, Frame, ImageError, ImageFormat, RgbImage};

use super::{paint, sgi};

/// Every picture, encoded.
#[derive(Debug)]
pub(super) struct Pictures {
    pub(super) mandelbrot_png: Bytes,
    pub(super) julia_jpg: Bytes,
    pub(super) dunes_jpeg: Bytes,
    pub(super) plasma_bmp: Bytes,
    pub(super) orbit_gif: Bytes,
    pub(super) terrain_tiff: Bytes,
    pub(super) drop_ico: Bytes,
    pub(super) ball_rgb: Bytes,
    pub(super) sea_webp: Bytes,
    pub(super) cells_png: Bytes,
    pub(super) tiles_png: Bytes,
    pub(super) nebula_jpg: Bytes,
    pub(super) rings_png: Bytes,
    pub(super) mountains_png: Bytes,
}

impl Pictures {
    /// Paints and encodes; takes the better part of a second.
    pub(super) fn new() -> io::Result<Self> {
        Self::encode().map_err(io::Error::other)
    }

    fn encode() -> Result<Self, ImageError> {
        Ok(Self {
            mandelbrot_png: encode(paint::mandelbrot(), ImageFormat::Png)?,
            julia_jpg: jpeg(&paint::julia())?,
            dunes_jpeg: jpeg(&paint::dunes())?,
            plasma_bmp: encode(paint::plasma(), ImageFormat::Bmp)?,
            orbit_gif: orbit()?,
            terrain_tiff: encode(paint::terrain(), ImageFormat::Tiff)?,
            drop_ico: encode(paint::drop(), ImageFormat::Ico)?,
            ball_rgb: sgi::encode(&paint::ball()).into(),
            sea_webp: encode(paint::sea(), ImageFormat::WebP)?,
            cells_png: encode(paint::cells(), ImageFormat::Png)?,
            tiles_png: encode(paint::tiles(), ImageFormat::Png)?,
            nebula_jpg: jpeg(&paint::nebula())?,
            rings_png: encode(paint::rings(), ImageFormat::Png)?,
            mountains_png: encode(paint::mountains(), ImageFormat::Png)?,
        })
    }
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Result<Bytes, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format)?;
    Ok(bytes.into_inner().into())
}

fn jpeg(picture: &RgbImage) -> Result<Bytes, ImageError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 88).encode_image(picture)?;
    Ok(bytes.into())
}

/// An animation without end.
fn orbit() -> Result<Bytes, ImageError> {
    const FRAMES: u8 = 16;
    let mut bytes = Vec::new();
    {
        let mut gif = GifEncoder::new_with_speed(&mut bytes, 30);
        gif.set_repeat(Repeat::Infinite)?;
        for n in 0..FRAMES {
            let picture = paint::orbit(f32::from(n) / f32::from(FRAMES));
            let picture = DynamicImage::from(picture).into_rgba8();
            gif.encode_frame(Frame::from_parts(
                picture,
                0,
                0,
                Delay::from_numer_denom_ms(100, 1),
            ))?;
        }
    }
    Ok(bytes.into())
}
