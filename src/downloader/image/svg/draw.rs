//! SVG as pixels, by `resvg`. For a process that has no other task: see `child`.
//!
//! Nothing outside the document is read, other than the fonts of the system: images only from `data:` URLs.

use std::sync::Arc;

use image::{DynamicImage, RgbaImage};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{ImageHrefResolver, Options, Tree, fontdb};

use crate::downloader::image::child::NoPixels;

/// Draws the document `text` with these width and height. `taken` is the share of its own width and height that is
/// shown, from its middle. Where nothing is drawn, the result is transparent.
pub(in crate::downloader::image) fn draw(
    text: &[u8],
    (width, height): (u32, u32),
    taken: (f64, f64),
) -> Result<DynamicImage, NoPixels> {
    let unknown = |detail: String| NoPixels::Unknown(detail);
    let text = str::from_utf8(text).map_err(|error| unknown(error.to_string()))?;
    let mut options = Options {
        image_href_resolver: ImageHrefResolver {
            resolve_data: ImageHrefResolver::default_data_resolver(),
            resolve_string: Box::new(|_, _| None),
        },
        ..Options::default()
    };
    // It takes longer than most drawings do.
    if text.contains("text") {
        options.fontdb = Arc::new(fonts());
    }
    let tree = Tree::from_str(text, &options).map_err(|error| unknown(error.to_string()))?;
    let mut pixmap =
        Pixmap::new(width, height).ok_or_else(|| unknown("it is too large".to_owned()))?;
    resvg::render(
        &tree,
        transform(tree.size(), (width, height), taken),
        &mut pixmap.as_mut(),
    );
    let mut samples = pixmap.take();
    for pixel in samples.as_chunks_mut().0 {
        unmultiply(pixel);
    }
    let image = RgbaImage::from_raw(width, height, samples).expect("four bytes a pixel");
    Ok(image.into())
}

#[expect(clippy::cast_possible_truncation, reason = "sides of a picture")]
fn transform(size: resvg::usvg::Size, (width, height): (u32, u32), taken: (f64, f64)) -> Transform {
    let (own_width, own_height) = (f64::from(size.width()), f64::from(size.height()));
    let scale_x = f64::from(width) / (own_width * taken.0);
    let scale_y = f64::from(height) / (own_height * taken.1);
    let left = own_width * (1.0 - taken.0) / 2.0 * scale_x;
    let top = own_height * (1.0 - taken.1) / 2.0 * scale_y;
    Transform::from_row(
        scale_x as f32,
        0.0,
        0.0,
        scale_y as f32,
        -left as f32,
        -top as f32,
    )
}

/// `tiny-skia` has colours multiplied by their opacity.
fn unmultiply([red, green, blue, alpha]: &mut [u8; 4]) {
    let full = u32::from(*alpha);
    if !matches!(full, 0 | 255) {
        for color in [red, green, blue] {
            let plain = (u32::from(*color) * 255 + full / 2) / full;
            *color = u8::try_from(plain).unwrap_or(u8::MAX);
        }
    }
}

/// The fonts of the system. Each generic family is one that is there.
fn fonts() -> fontdb::Database {
    let mut fonts = fontdb::Database::new();
    fonts.load_system_fonts();
    let is_there = |fonts: &fontdb::Database, family| {
        let families = &[family];
        let query = fontdb::Query {
            families,
            ..fontdb::Query::default()
        };
        fonts.query(&query).is_some()
    };
    let named = |fonts: &fontdb::Database, words: &[&str]| {
        let names = || {
            fonts
                .faces()
                .filter_map(|face| Some(&face.families.first()?.0))
        };
        let fits = |name: &&String| words.iter().any(|word| name.contains(word));
        names().find(fits).or_else(|| names().next()).cloned()
    };
    if !is_there(&fonts, fontdb::Family::Serif)
        && let Some(name) = named(&fonts, &["Serif", "Roman"])
    {
        fonts.set_serif_family(name);
    }
    if !is_there(&fonts, fontdb::Family::SansSerif)
        && let Some(name) = named(&fonts, &["Sans"])
    {
        fonts.set_sans_serif_family(name);
    }
    if !is_there(&fonts, fontdb::Family::Monospace)
        && let Some(name) = named(&fonts, &["Mono"])
    {
        fonts.set_monospace_family(name);
    }
    fonts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(svg: &str, size: (u32, u32), taken: (f64, f64)) -> RgbaImage {
        draw(svg.as_bytes(), size, taken).unwrap().into_rgba8()
    }

    #[test]
    fn a_drawing_is_as_large_as_it_is_wanted_and_transparent_elsewhere() {
        let svg = "<svg xmlns='http://www.w3.org/2000/svg' width='4' height='2'>\
            <rect width='2' height='2' fill='#f80'/><rect x='3' width='1' height='2' fill='#00f' opacity='.5'/></svg>";
        let image = drawn(svg, (400, 100), (1.0, 1.0));
        assert_eq!(image.get_pixel(199, 50).0, [255, 136, 0, 255]);
        assert_eq!(image.get_pixel(201, 50).0[3], 0);
        let [red, green, blue, alpha] = image.get_pixel(350, 50).0;
        assert_eq!((red, green, blue), (0, 0, 255));
        assert!((126..=129).contains(&alpha));
        // The middle half of its width.
        let image = drawn(svg, (100, 100), (0.5, 1.0));
        assert_eq!(image.get_pixel(49, 50).0[3], 255);
        assert_eq!(image.get_pixel(51, 50).0[3], 0);
        assert_eq!(image.get_pixel(99, 50).0[3], 0);
    }

    #[test]
    fn images_come_from_the_document_alone() {
        let red = {
            let mut png = std::io::Cursor::new(Vec::new());
            let image = image::RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 0]));
            image.write_to(&mut png, image::ImageFormat::Png).unwrap();
            png.into_inner()
        };
        let file = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
        std::fs::write(file.path(), &red).unwrap();
        let around = |href: &str| {
            format!(
                "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='1' height='1'>\
                 <image width='1' height='1' xlink:href='{href}'/></svg>"
            )
        };
        use base64::Engine as _;
        let data = base64::prelude::BASE64_STANDARD.encode(&red);
        let shown = drawn(
            &around(&format!("data:image/png;base64,{data}")),
            (1, 1),
            (1.0, 1.0),
        );
        assert_eq!(shown.get_pixel(0, 0).0, [255, 0, 0, 255]);
        let path = file.path().display();
        for href in [
            format!("{path}"),
            format!("file://{path}"),
            "/etc/passwd".to_owned(),
        ] {
            let shown = drawn(&around(&href), (1, 1), (1.0, 1.0));
            assert_eq!(shown.get_pixel(0, 0).0[3], 0, "{href}");
        }
    }
}
