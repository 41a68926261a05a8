//! A small valid picture of each format.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};

/// Formats in gannet's words, each with a picture of 16 times 12 pixels.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("bmp", encode(ImageFormat::Bmp)),
        ("gif", encode(ImageFormat::Gif)),
        ("ico", encode(ImageFormat::Ico)),
        ("jpeg", jpeg()),
        ("png", png()),
        ("rgb", rgb()),
        ("svg", svg()),
        ("tiff", encode(ImageFormat::Tiff)),
        ("webp", encode(ImageFormat::WebP)),
    ]
}

pub fn png() -> Vec<u8> {
    encode(ImageFormat::Png)
}

pub fn jpeg() -> Vec<u8> {
    encode(ImageFormat::Jpeg)
}

pub fn svg() -> Vec<u8> {
    b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"16\" height=\"12\">\
      <rect width=\"16\" height=\"12\" fill=\"red\"/></svg>"
        .to_vec()
}

fn encode(format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(16, 12, |x, y| {
        image::Rgb([x as u8 * 15, y as u8 * 20, (x * y) as u8])
    });
    let picture = match format {
        ImageFormat::Ico | ImageFormat::WebP => DynamicImage::from(picture).into_rgba8().into(),
        _ => DynamicImage::from(picture),
    };
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// SGI, uncompressed: a header of 512 bytes, then the planes.
fn rgb() -> Vec<u8> {
    let (width, height, planes) = (16_u16, 12_u16, 3_u16);
    let mut bytes = vec![0x01, 0xda, 0, 1];
    for number in [3, width, height, planes] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(255_u32.to_be_bytes());
    bytes.resize(512, 0);
    let pixels = usize::from(width) * usize::from(height) * usize::from(planes);
    bytes.extend((0..pixels).map(|n| n as u8));
    bytes
}

/// A PNG that says it is `width` times `height`, with next to no bytes.
pub fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [
        (b"IHDR", &header[..]),
        (b"IDAT", &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]),
        (b"IEND", &[]),
    ] {
        bytes.extend(chunk(kind, data));
    }
    bytes
}

/// A chunk of a PNG.
pub fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(kind);
    sum.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length, &kind[..], data, &sum.finalize().to_be_bytes()].concat()
}
