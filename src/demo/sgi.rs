//! Writes SGI pictures (`.rgb`), which the `image` package does not.

use image::RgbImage;

/// `picture` in the SGI image file format, version 1.00: a header of 512 bytes, then the red, the
/// green and the blue plane without compression, each from the bottom row to the top. Numbers are
/// big-endian.
pub(super) fn encode(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let mut bytes = Vec::with_capacity(512 + picture.as_raw().len());
    bytes.extend(474_u16.to_be_bytes()); // magic number
    bytes.extend([0, 1]); // not compressed; one byte a channel
    bytes.extend(3_u16.to_be_bytes()); // three dimensions: width, height, channels
    for side in [width, height] {
        // The demo's pictures are far smaller than the 65,535 pixels that fit.
        bytes.extend(u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
    }
    bytes.extend(3_u16.to_be_bytes());
    bytes.extend(0_u32.to_be_bytes()); // smallest and largest value of a channel
    bytes.extend(255_u32.to_be_bytes());
    bytes.resize(24, 0);
    bytes.extend(b"gannet demo"); // name, padded with zeros to 80 bytes
    bytes.resize(512, 0);
    for channel in 0..3 {
        for row in (0..height).rev() {
            bytes.extend((0..width).map(|column| picture.get_pixel(column, row).0[channel]));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn planes_follow_the_header_from_the_bottom_row_up() {
        let mut picture = RgbImage::from_pixel(3, 2, Rgb([1, 2, 3]));
        picture.put_pixel(0, 1, Rgb([9, 8, 7]));
        let bytes = encode(&picture);
        assert_eq!(bytes.len(), 512 + 18);
        assert_eq!(&bytes[..12], [1, 0xda, 0, 1, 0, 3, 0, 3, 0, 2, 0, 3]);
        assert_eq!(&bytes[512..518], [9, 1, 1, 1, 1, 1]);
        assert_eq!(&bytes[524..530], [7, 3, 3, 3, 3, 3]);
    }
}
