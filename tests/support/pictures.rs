//! Small valid files of each format, no two alike.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

fn picture(n: u32, side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let v = n.wrapping_mul(2_654_435_761).wrapping_add(x * 31 + y * 17);
        let [r, g, b, _] = v.to_le_bytes();
        Rgb([r, g, b])
    })
}

fn encode(picture: RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

/// The `n`th PNG.
pub fn png(n: u32) -> Vec<u8> {
    encode(picture(n, 3), ImageFormat::Png)
}

/// A PNG of `side` by `side` pixels.
pub fn png_of(n: u32, side: u32) -> Vec<u8> {
    encode(picture(n, side), ImageFormat::Png)
}

pub fn jpeg(n: u32) -> Vec<u8> {
    // Neighbouring numbers differ enough to survive its losses.
    let solid = RgbImage::from_pixel(8, 8, Rgb([n as u8, (n >> 4) as u8 ^ 0x55, (n >> 8) as u8]));
    encode(solid, ImageFormat::Jpeg)
}

pub fn gif(n: u32) -> Vec<u8> {
    encode(picture(n, 3), ImageFormat::Gif)
}

pub fn bmp(n: u32) -> Vec<u8> {
    encode(picture(n, 3), ImageFormat::Bmp)
}

pub fn tiff(n: u32) -> Vec<u8> {
    encode(picture(n, 3), ImageFormat::Tiff)
}

pub fn webp(n: u32) -> Vec<u8> {
    encode(picture(n, 3), ImageFormat::WebP)
}

pub fn ico(n: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(DynamicImage::from(picture(n, 16)).into_rgba8())
        .write_to(&mut bytes, ImageFormat::Ico)
        .unwrap();
    bytes.into_inner()
}

pub fn svg(n: u32) -> Vec<u8> {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"20\"><rect width=\"{0}\" height=\"9\"/></svg>",
        n + 10
    )
    .into_bytes()
}

/// SGI, uncompressed, one byte a channel, 3 by 3, three channels.
pub fn rgb(n: u32) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..12].copy_from_slice(&[0x01, 0xda, 0, 1, 0, 3, 0, 3, 0, 3, 0, 3]);
    bytes[16..20].copy_from_slice(&255_u32.to_be_bytes());
    for channel in 0..3 {
        bytes.extend(picture(n, 3).pixels().map(|pixel| pixel.0[channel]));
    }
    bytes
}

/// Every format of the default set, with the extension that agrees with it.
pub fn every_format(n: u32) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("bmp", bmp(n)),
        ("gif", gif(n)),
        ("jpg", jpeg(n)),
        ("svg", svg(n)),
        ("tif", tiff(n)),
        ("ico", ico(n)),
        ("rgb", rgb(n)),
        ("png", png(n)),
        ("webp", webp(n)),
    ]
}
