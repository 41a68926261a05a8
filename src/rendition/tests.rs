use std::io::{Cursor, Read as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{GenericImageView as _, ImageEncoder as _, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

use super::*;
use crate::config::DEFAULT;

pub(crate) fn pictures(table: &str) -> picture::Settings {
    let defaults: toml::Table = DEFAULT.parse().unwrap();
    let mut section = defaults["image"].as_table().unwrap().clone();
    section.extend(table.parse::<toml::Table>().unwrap());
    section.try_into().unwrap()
}

pub(crate) fn renditions_with(folder: &Path, image: &str) -> Renditions {
    let max_bytes = bytesize::ByteSize::mib(16);
    Renditions::new(folder, &Settings { max_bytes }, &pictures(image), 2).unwrap()
}

fn renditions() -> (TempDir, Renditions) {
    let folder = tempfile::tempdir().unwrap();
    let renditions = renditions_with(folder.path(), "");
    (folder, renditions)
}

/// Red on the left, blue on the right.
pub(crate) fn halves(width: u32, height: u32) -> DynamicImage {
    let color = |x| match x < width / 2 {
        true => Rgb([255, 0, 0]),
        false => Rgb([0, 0, 255]),
    };
    RgbImage::from_fn(width, height, |x, _| color(x)).into()
}

pub(crate) fn encoded(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A JPEG that has to be turned: the value of the EXIF tag `Orientation`.
fn turned(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.set_exif_metadata(exif).unwrap();
    image.write_with_encoder(encoder).unwrap();
    bytes
}

fn wanted(bytes: &[u8], format: &str, params: Params) -> Wanted {
    Wanted::new(Sha256::of(bytes), format, params).unwrap()
}

async fn make(renditions: &Renditions, bytes: &[u8], format: &str, params: Params) -> Vec<u8> {
    let body = Body::Memory(bytes.to_vec().into());
    let made = renditions.make(body, wanted(bytes, format, params)).await;
    let mut made = made.unwrap();
    let mut bytes = Vec::new();
    made.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, made.bytes);
    bytes
}

#[tokio::test]
async fn every_format_that_decodes_becomes_smaller_in_each_that_is_written() {
    use image::ImageFormat as Codec;
    let (_folder, renditions) = renditions();
    let rgb = halves(40, 20);
    let rgba = DynamicImage::from(rgb.to_rgba8());
    let deep = DynamicImage::from(rgb.to_rgb16());
    let grey = DynamicImage::from(rgb.to_luma8());
    let originals = [
        ("png", encoded(&rgb, Codec::Png)),
        ("png", encoded(&deep, Codec::Png)),
        ("png", encoded(&rgba, Codec::Png)),
        (
            "png",
            encoded(&DynamicImage::from(rgb.to_luma_alpha8()), Codec::Png),
        ),
        ("jpeg", encoded(&rgb, Codec::Jpeg)),
        ("jpeg", encoded(&grey, Codec::Jpeg)),
        ("gif", encoded(&rgba, Codec::Gif)),
        ("bmp", encoded(&rgb, Codec::Bmp)),
        ("tiff", encoded(&deep, Codec::Tiff)),
        (
            "tiff",
            encoded(&DynamicImage::from(rgb.to_rgb32f()), Codec::Tiff),
        ),
        ("ico", encoded(&rgba, Codec::Ico)),
        ("webp", encoded(&rgba, Codec::WebP)),
    ];
    for (format, bytes) in originals {
        for output in Output::ALL.iter().copied().map(Some).chain([None]) {
            let params = Params {
                format: output,
                ..Params::within(10, 10)
            };
            let made = make(&renditions, &bytes, format, params).await;
            let expected = match output.map_or(format, Output::as_str) {
                "jpeg" => Codec::Jpeg,
                "webp" => Codec::WebP,
                _ => Codec::Png,
            };
            assert_eq!(image::guess_format(&made).unwrap(), expected);
            let made = image::load_from_memory(&made).unwrap();
            assert_eq!(made.dimensions(), (10, 5), "{format} {output:?}");
        }
    }
}

#[tokio::test]
async fn pictures_of_more_than_a_few_megabytes_decode_too() {
    use image::ImageFormat as Codec;
    let (_folder, renditions) = renditions();
    let large = DynamicImage::from(halves(1400, 1000).into_rgba8());
    for (format, codec) in [
        ("png", Codec::Png),
        ("gif", Codec::Gif),
        ("bmp", Codec::Bmp),
        ("tiff", Codec::Tiff),
        ("webp", Codec::WebP),
    ] {
        let bytes = encoded(&large, codec);
        let made = make(&renditions, &bytes, format, Params::within(70, 70)).await;
        let made = image::load_from_memory(&made).unwrap();
        assert_eq!(made.dimensions(), (70, 50), "{format}");
    }
}

#[tokio::test]
async fn what_stands_out_is_cut_off_on_both_sides() {
    let (_folder, renditions) = renditions();
    let bytes = encoded(&halves(400, 100), image::ImageFormat::Png);
    let params = Params {
        fit: Fit::Cover,
        ..Params::within(50, 50)
    };
    let made = make(&renditions, &bytes, "png", params).await;
    let made = image::load_from_memory(&made).unwrap();
    assert_eq!(made.dimensions(), (50, 50));
    // The border between the halves is in the middle.
    assert_eq!(made.get_pixel(2, 25), Rgba([255, 0, 0, 255]));
    assert_eq!(made.get_pixel(47, 25), Rgba([0, 0, 255, 255]));
}

#[tokio::test]
async fn a_picture_that_lies_on_its_side_is_put_upright() {
    let (_folder, renditions) = renditions();
    for (orientation, size, red, blue) in [
        (1, (40, 20), (5, 10), (35, 10)),
        (2, (40, 20), (35, 10), (5, 10)),
        (3, (40, 20), (35, 10), (5, 10)),
        (6, (20, 40), (10, 5), (10, 35)),
        (8, (20, 40), (10, 35), (10, 5)),
    ] {
        let bytes = turned(&halves(80, 40), orientation);
        let made = make(&renditions, &bytes, "jpeg", Params::within(40, 40)).await;
        assert!(!made.windows(4).any(|four| four == b"Exif"));
        let made = image::load_from_memory(&made).unwrap();
        assert_eq!(made.dimensions(), size, "{orientation}");
        let (red, blue) = (made.get_pixel(red.0, red.1), made.get_pixel(blue.0, blue.1));
        assert!(red[0] > 200 && red[2] < 50, "{orientation}: {red:?}");
        assert!(blue[2] > 200 && blue[0] < 50, "{orientation}: {blue:?}");
        // Upright, 20 is the width that was asked for.
        let narrow = Params {
            height: None,
            ..Params::within(20, 1)
        };
        let made = make(&renditions, &bytes, "jpeg", narrow).await;
        assert_eq!(image::load_from_memory(&made).unwrap().width(), 20);
    }
}

/// `image` with `profile` embedded.
fn with_profile(image: &DynamicImage, format: &str, profile: Vec<u8>) -> Vec<u8> {
    fn write(image: &DynamicImage, mut encoder: impl image::ImageEncoder, profile: Vec<u8>) {
        encoder.set_icc_profile(profile).unwrap();
        image.write_with_encoder(encoder).unwrap();
    }
    let mut bytes = Cursor::new(Vec::new());
    match format {
        "jpeg" => {
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
            write(image, encoder, profile);
        }
        "png" => write(
            image,
            image::codecs::png::PngEncoder::new(&mut bytes),
            profile,
        ),
        "webp" => {
            let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut bytes);
            write(image, encoder, profile);
        }
        _ => write(
            image,
            image::codecs::tiff::TiffEncoder::new(&mut bytes),
            profile,
        ),
    }
    bytes.into_inner()
}

#[tokio::test]
async fn colors_come_out_in_srgb_whatever_profile_the_original_has() {
    let (_folder, renditions) = renditions();
    let [red, green, blue] = picture::profiles::SRGB;
    let mut long = picture::profiles::rgb(4, [blue, green, red], 2.2);
    // More than one segment of a JPEG.
    long.resize(150_000, 0);
    let length = (long.len() as u32).to_be_bytes();
    long[..4].copy_from_slice(&length);
    let (flat, deep) = (halves(80, 40), halves(80, 40).to_rgb16().into());
    for (format, image, profile) in [
        (
            "jpeg",
            &flat,
            picture::profiles::rgb(2, [blue, green, red], 2.2),
        ),
        ("jpeg", &flat, long.clone()),
        ("png", &flat, long.clone()),
        ("png", &deep, long.clone()),
        ("webp", &flat, long.clone()),
        ("tiff", &flat, long.clone()),
        ("tiff", &deep, long),
    ] {
        let bytes = with_profile(image, format, profile);
        let made = make(&renditions, &bytes, format, Params::within(40, 40)).await;
        let mut decoder = image::ImageReader::new(Cursor::new(&made))
            .with_guessed_format()
            .unwrap()
            .into_decoder()
            .unwrap();
        assert_eq!(
            image::ImageDecoder::icc_profile(&mut decoder).unwrap(),
            None
        );
        let made = image::load_from_memory(&made).unwrap();
        let (left, right) = (made.get_pixel(5, 10), made.get_pixel(35, 10));
        assert!(left[2] > 250 && left[0] < 6, "{format}: {left:?}");
        assert!(right[0] > 250 && right[2] < 6, "{format}: {right:?}");
    }
    let bytes = include_bytes!("../../tests/fixtures/jpeg-icc-red-blue-swapped.jpg");
    let made = make(&renditions, bytes, "jpeg", Params::within(64, 64)).await;
    let made = image::load_from_memory(&made).unwrap();
    let middle = made.get_pixel(made.width() / 2, made.height() / 2);
    assert!(middle[2] > 150 && middle[0] < 100, "{middle:?}");
}

#[tokio::test]
async fn a_profile_that_cannot_be_converted_goes_with_the_pixels() {
    let (_folder, renditions) = renditions();
    let odd = picture::profiles::odd();
    let bytes = with_profile(&halves(80, 40), "png", odd.clone());
    for output in Output::ALL {
        let params = Params {
            format: Some(*output),
            ..Params::within(40, 40)
        };
        let made = make(&renditions, &bytes, "png", params).await;
        let mut decoder = image::ImageReader::new(Cursor::new(&made))
            .with_guessed_format()
            .unwrap()
            .into_decoder()
            .unwrap();
        let profile = image::ImageDecoder::icc_profile(&mut decoder).unwrap();
        assert_eq!(profile.as_ref(), Some(&odd), "{output:?}");
    }
}

#[tokio::test]
async fn an_orientation_behind_a_superfluous_prefix_counts_too() {
    let (_folder, renditions) = renditions();
    let bytes = include_bytes!("../../tests/fixtures/webp-orientation-6-prefixed.webp");
    let made = make(&renditions, bytes, "webp", Params::within(48, 48)).await;
    assert_eq!(
        image::load_from_memory(&made).unwrap().dimensions(),
        (32, 48)
    );
}

#[tokio::test]
async fn what_is_transparent_is_white_in_a_jpeg() {
    let (_folder, renditions) = renditions();
    let clear = RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 0]));
    let bytes = encoded(&clear.into(), image::ImageFormat::Png);
    let params = Params {
        format: Some(Output::Jpeg),
        ..Params::within(8, 8)
    };
    let made = make(&renditions, &bytes, "png", params).await;
    let pixel = image::load_from_memory(&made).unwrap().get_pixel(4, 4);
    assert_eq!(pixel, Rgba([255, 255, 255, 255]));
}

#[tokio::test]
async fn what_many_ask_for_at_once_is_made_once() {
    let (folder, renditions) = renditions();
    let bytes = encoded(&halves(400, 300), image::ImageFormat::Png);
    let one = wanted(&bytes, "png", Params::within(100, 100));
    // Counts how often somebody begins to decode.
    let begun = Arc::new(AtomicUsize::new(0));
    let asks = (0..50).map(|_| {
        let (renditions, bytes, begun) = (renditions.clone(), bytes.clone(), begun.clone());
        tokio::spawn(async move {
            let made = renditions
                .make(Body::Memory(bytes.into()), one)
                .await
                .unwrap();
            begun.fetch_add(1, Ordering::SeqCst);
            made.bytes
        })
    });
    let mut lengths = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        lengths.push(ask.await.unwrap());
    }
    lengths.dedup();
    assert_eq!((lengths.len(), begun.load(Ordering::SeqCst)), (1, 50));
    assert_eq!(renditions.0.rendered.load(Ordering::SeqCst), 1);
    // The next process has it still.
    let renditions = renditions_with(folder.path(), "");
    make(&renditions, &bytes, "png", Params::within(100, 100)).await;
    assert_eq!(renditions.0.rendered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_waits_no_longer_leaves_the_others_their_turn() {
    let (_folder, renditions) = renditions();
    let bytes = encoded(&halves(40, 30), image::ImageFormat::Png);
    let one = wanted(&bytes, "png", Params::within(10, 10));
    // All workers are busy.
    let (free, busy) = std::sync::mpsc::channel::<()>();
    let busy = Arc::new(std::sync::Mutex::new(busy));
    let (began, mut begun) = tokio::sync::mpsc::channel(2);
    let mut work = Vec::new();
    for _ in 0..2 {
        let (workers, busy, began) = (renditions.workers().clone(), busy.clone(), began.clone());
        work.push(tokio::spawn(async move {
            let wait = move || {
                began.blocking_send(()).unwrap();
                busy.lock().unwrap().recv().is_err()
            };
            workers.run(wait).await
        }));
        begun.recv().await.unwrap();
    }
    let body = Body::Memory(bytes.clone().into());
    let first = Box::pin(renditions.make(body.clone(), one));
    let second = Box::pin(renditions.make(body, one));
    let limit = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(limit, first).await.is_err());
    drop(free);
    second.await.unwrap();
    for work in work {
        assert!(work.await.unwrap().unwrap());
    }
    assert_eq!(renditions.0.rendered.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_be_resized_is_told() {
    let sha256 = Sha256::of(b"");
    for (format, expected) in [
        ("heic", "a HEIC image cannot be resized"),
        ("rgb", "an SGI image cannot be resized"),
        ("pdf", "a `pdf` file cannot be resized"),
    ] {
        let error = Wanted::new(sha256, format, Params::within(1, 1)).unwrap_err();
        assert!(error.is_of_original());
        assert_eq!(error.to_string(), expected);
    }
    let bytes = encoded(&halves(400, 300), image::ImageFormat::Png);
    let folder = tempfile::tempdir().unwrap();
    for (image, length, expected) in [
        ("", 300, "the PNG image does not decode"),
        ("max_pixels = 100", 1000, "`image.max_pixels` (100)"),
        (
            "decode_memory = 1000",
            1000,
            "more than `image.decode_memory` (1000 B) allows",
        ),
    ] {
        let renditions = renditions_with(folder.path(), image);
        let cut = &bytes[..bytes.len().min(length)];
        let wanted = wanted(cut, "png", Params::within(100, 100));
        let body = Body::Memory(cut.to_vec().into());
        let error = renditions.make(body, wanted).await.unwrap_err();
        assert!(error.is_of_original());
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_original_stays_that_would_come_out_as_it_is() {
    let (_folder, renditions) = renditions();
    let bytes = encoded(&halves(40, 40), image::ImageFormat::Jpeg);
    let replace = async |bytes: &[u8], params| {
        let body = Body::Memory(bytes.to_vec().into());
        renditions
            .replace(body, wanted(bytes, "jpeg", params))
            .await
            .unwrap()
    };
    let small = Params::within(100, 100);
    assert!(replace(&bytes, small).await.is_none());
    let made = replace(&bytes, Params::within(20, 100)).await.unwrap();
    assert_eq!(made.dimensions, (20, 20));
    let png = Params {
        format: Some(Output::Png),
        ..small
    };
    assert_eq!(replace(&bytes, png).await.unwrap().format.name, "png");
    let turned = turned(&halves(40, 40), 6);
    assert_eq!(replace(&turned, small).await.unwrap().dimensions, (40, 40));
}

proptest::proptest! {
    #[test]
    fn damaged_pictures_come_out_or_are_told(
        format in 0..7_usize,
        at in proptest::collection::vec((0.0..1.0_f64, 0..=255_u8), 1..8),
        cut in 0.5..1.0_f64,
    ) {
        use image::ImageFormat as Codec;
        let (format, codec) = [
            ("png", Codec::Png),
            ("jpeg", Codec::Jpeg),
            ("gif", Codec::Gif),
            ("bmp", Codec::Bmp),
            ("tiff", Codec::Tiff),
            ("ico", Codec::Ico),
            ("webp", Codec::WebP),
        ][format];
        let picture = match codec {
            Codec::Jpeg => halves(24, 16),
            _ => halves(24, 16).into_rgba8().into(),
        };
        let mut bytes = encoded(&picture, codec);
        if cut < 0.75 {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        for (place, byte) in at {
            let place = (bytes.len() as f64 * place) as usize;
            bytes[place] = byte;
        }
        let decoder = Decoder::new(&pictures("decode_memory = \"64MiB\""));
        let wanted = wanted(&bytes, format, Params::within(8, 8));
        let body = Body::Memory(bytes.into());
        // Whatever comes, it comes.
        if let Ok((made, _)) = render::render(&decoder, &body, wanted.original, &wanted.params) {
            assert!(made.image.width() <= 8 && made.image.height() <= 8);
            render::encode(made, &wanted.params).unwrap();
        }
    }
}
