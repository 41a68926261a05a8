//! Every format: whole files pass, cut ones do not, and no bytes at all bring a check down.

use std::io::{Cursor, Write as _};
use std::sync::{Arc, LazyLock};

use ::image::{DynamicImage, RgbImage, RgbaImage};
use proptest::prelude::*;

use super::*;

mod prefix;

const ALL: &str = r#"["bmp","gif","jpg","svg","svgz","tif","ico","sgi","png","webp","avif","heic","jxl","jp2","psd","cur"]"#;

fn settings(formats: &str, check: &str) -> Settings {
    toml::from_str(&format!(
        "formats = {formats}\ncheck = \"{check}\"\nundecoded = \"keep\"\nmax_pixels = 1000000\nmax_side = 20000\nmin_bytes = 0\nmax_bytes = \"1MiB\"\ndecode_memory = \"64MiB\""
    ))
    .unwrap()
}

/// What becomes of `bytes`, which have to fare the same in memory and in a file.
fn judge(image: &Image, bytes: &[u8]) -> Result<Facts, Rejection> {
    let complete = Hints {
        complete: true,
        ..Hints::default()
    };
    let format = match image.sniff(bytes, &complete) {
        Verdict::Accept(format) => format,
        Verdict::Reject(rejection) => return Err(rejection),
        Verdict::More => panic!("a complete head has to be judged"),
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let memory = image.inspect(&Body::Memory(bytes.to_vec().into()), format);
    let stored = image.inspect(&Body::File(Arc::new(file), bytes.len() as u64), format);
    match (&memory, &stored) {
        (Err(one), Err(other)) => assert_eq!(one.reason, other.reason),
        (one, other) => assert_eq!(one, other),
    }
    memory
}

fn reason(image: &Image, bytes: &[u8]) -> Result<&'static str, Reason> {
    judge(image, bytes)
        .map(|facts| facts.format.name)
        .map_err(|rejection| rejection.reason)
}

static HEADER: LazyLock<Image> = LazyLock::new(|| Image::new(&settings(ALL, "header")));
static DECODE: LazyLock<Image> = LazyLock::new(|| Image::new(&settings(ALL, "decode")));

/// A picture of 23×17 pixels, not so smooth that it becomes tiny.
fn encode(format: ::image::ImageFormat) -> Vec<u8> {
    let rgba = RgbaImage::from_fn(23, 17, |x, y| {
        ::image::Rgba([x as u8 * 11, y as u8 * 15, (x * y) as u8, 255])
    });
    let picture = match format {
        ::image::ImageFormat::Jpeg | ::image::ImageFormat::Bmp => {
            DynamicImage::ImageRgb8(RgbImage::from_fn(23, 17, |x, y| {
                ::image::Rgb([x as u8 * 11, y as u8 * 15, (x * y) as u8])
            }))
        }
        _ => DynamicImage::ImageRgba8(rgba),
    };
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn icon_of(bitmap: &[u8], kind: u8) -> Vec<u8> {
    let mut file = vec![0, 0, kind, 0, 1, 0, 23, 17, 0, 0, 1, 0, 32, 0];
    file.extend((bitmap.len() as u32).to_le_bytes());
    file.extend(22_u32.to_le_bytes());
    file.extend(bitmap);
    file
}

/// A bitmap of 32 bits as icons hold it: twice as high, a mask below.
fn icon_bitmap() -> Vec<u8> {
    let mut bitmap = Vec::new();
    for field in [40, 23, 34, 1 | 32 << 16, 0, 0, 0, 0, 0, 0_u32] {
        bitmap.extend(field.to_le_bytes());
    }
    bitmap.extend([7; 23 * 17 * 4 + 4 * 17]);
    bitmap
}

fn sgi(runs: bool) -> Vec<u8> {
    let mut file = vec![1, 0xda, runs.into(), 1, 0, 3, 0, 23, 0, 17, 0, 3];
    file.resize(512, 0);
    if !runs {
        file.extend([9; 23 * 17 * 3]);
        return file;
    }
    let rows = 17 * 3_u32;
    file.extend((0..rows).flat_map(|n| (512 + 8 * rows + 9 * n).to_be_bytes()));
    file.extend((0..rows).flat_map(|_| 9_u32.to_be_bytes()));
    // Twenty times one value, then three literal ones, and the end of the row.
    file.extend((0..rows).flat_map(|_| [20, 7, 0x83, 1, 2, 3, 0, 0, 0]));
    file
}

fn atom(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [
        &(content.len() as u32 + 8).to_be_bytes(),
        &kind[..],
        content,
    ]
    .concat()
}

fn heif(brand: &[u8; 4]) -> Vec<u8> {
    let size = [&[0; 4][..], &23_u32.to_be_bytes(), &17_u32.to_be_bytes()].concat();
    let properties = atom(b"iprp", &atom(b"ipco", &atom(b"ispe", &size)));
    [
        atom(
            b"ftyp",
            &[&brand[..], &[0; 4], b"mif1", &brand[..]].concat(),
        ),
        atom(b"meta", &[&[0; 4][..], &properties].concat()),
        atom(b"mdat", &[5; 40]),
    ]
    .concat()
}

fn jp2() -> Vec<u8> {
    let mut stream = vec![0xff, 0x4f, 0xff, 0x51, 0, 41, 0, 0];
    for field in [23, 17, 0, 0, 23, 17, 0, 0_u32] {
        stream.extend(field.to_be_bytes());
    }
    stream.extend([0, 1, 7, 1, 1]);
    stream.extend([0xff, 0x90, 0, 10, 0, 0, 0, 0, 0, 30, 0, 1, 0xff, 0x93]);
    stream.extend([4; 16]);
    stream.extend([0xff, 0xd9]);
    [
        jp2::CONTAINER.to_vec(),
        atom(b"ftyp", b"jp2 \0\0\0\0jp2 "),
        atom(b"jp2c", &stream),
    ]
    .concat()
}

fn jxl(container: bool) -> Vec<u8> {
    // Not small; height 17 in nine bits; no ratio; width 23 in nine bits.
    let size: u32 = 16 << 3 | 22 << 17;
    let stream = [&[0xff, 0x0a][..], &size.to_le_bytes(), &[3; 40]].concat();
    if !container {
        return stream;
    }
    [
        jxl::CONTAINER.to_vec(),
        atom(b"ftyp", b"jxl \0\0\0\0jxl "),
        atom(b"jxlc", &stream),
    ]
    .concat()
}

fn psd() -> Vec<u8> {
    let mut file = b"8BPS\0\x01\0\0\0\0\0\0\0\x03".to_vec();
    file.extend(17_u32.to_be_bytes());
    file.extend(23_u32.to_be_bytes());
    file.extend([0, 8, 0, 3]);
    file.extend([0; 12]);
    file.extend([0, 0]);
    file.extend([6; 23 * 17 * 3]);
    file
}

fn svg() -> Vec<u8> {
    "<?xml version=\"1.0\"?>\n<!-- p --><svg xmlns='http://www.w3.org/2000/svg' width='23' height='17px'><g><path d='M0 0'/>&#65;&amp;</g></svg>"
        .into()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn utf16_svg() -> Vec<u8> {
    let text = String::from_utf8(svg()).unwrap();
    [0xfeff]
        .into_iter()
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// A lossy WebP of one whole chunk; its pixels are noise.
fn lossy_webp() -> Vec<u8> {
    let frame = [&[0x10, 0, 0, 0x9d, 1, 0x2a, 23, 0, 17, 0][..], &[1; 30]].concat();
    let chunk = [&b"VP8 "[..], &(frame.len() as u32).to_le_bytes(), &frame].concat();
    [
        &b"RIFF"[..],
        &(chunk.len() as u32 + 4).to_le_bytes(),
        b"WEBP",
        &chunk,
    ]
    .concat()
}

/// Whole files of 23×17 pixels: the format, the file, and how many bytes at its end a decoder can do without.
fn samples() -> Vec<(&'static str, Vec<u8>, usize)> {
    use ::image::ImageFormat as F;
    vec![
        ("bmp", encode(F::Bmp), 3),
        // The trailer, and nothing else.
        ("gif", encode(F::Gif), 1),
        // The end marker, and nothing else.
        ("jpeg", encode(F::Jpeg), 2),
        ("png", encode(F::Png), 0),
        ("tiff", encode(F::Tiff), 4),
        ("webp", encode(F::WebP), 1),
        ("webp", lossy_webp(), 1),
        ("ico", encode(F::Ico), 0),
        ("ico", icon_of(&icon_bitmap(), 1), 0),
        ("cur", icon_of(&icon_bitmap(), 2), 0),
        ("rgb", sgi(false), 0),
        ("rgb", sgi(true), 0),
        ("svg", svg(), 0),
        ("svg", utf16_svg(), 0),
        ("svgz", gzip(&svg()), 0),
        ("svgz", gzip(&utf16_svg()), 0),
        ("avif", heif(b"avif"), 0),
        ("heic", heif(b"heic"), 0),
        ("jp2", jp2(), 0),
        ("jxl", jxl(true), 0),
        // A bare codestream has no end.
        ("jxl", jxl(false), 34),
        ("psd", psd(), 0),
    ]
}

#[test]
fn whole_pictures_pass_with_their_size() {
    for (name, file, _) in samples() {
        let facts = judge(&HEADER, &file).unwrap_or_else(|r| panic!("{name}: {r}"));
        assert_eq!(
            (facts.format.name, facts.dimensions),
            (name, Some((23, 17)))
        );
        assert!(!facts.active);
    }
}

#[test]
fn whole_pictures_decode() {
    for (name, file, _) in samples()
        .into_iter()
        .filter(|(_, file, _)| *file != lossy_webp())
    {
        assert_eq!(reason(&DECODE, &file), Ok(name));
    }
}

#[test]
fn cut_pictures_are_rejected_at_every_length() {
    for (name, file, spare) in samples() {
        for n in 1..file.len() - spare {
            assert!(
                reason(&HEADER, &file[..n]).is_err(),
                "{name} of {} bytes cut to {n}",
                file.len()
            );
        }
        // A few bytes of gzip do not show what it holds.
        if spare < file.len() / 2 && name != "svgz" {
            assert_eq!(
                reason(&HEADER, &file[..file.len() / 2]),
                Err(Reason::Corrupt),
                "{name}"
            );
        }
        let zeros = [&file[..file.len() * 2 / 3], &vec![0; file.len() / 3 + 1]].concat();
        if matches!(name, "jpeg" | "png" | "svg") {
            assert_eq!(
                reason(&HEADER, &zeros),
                Err(Reason::Corrupt),
                "{name} with zeros"
            );
        }
    }
}

#[test]
fn bytes_behind_a_whole_picture_are_left_alone() {
    for (name, file, _) in samples() {
        if matches!(name, "svg" | "jxl") {
            continue;
        }
        let padded = [&file[..], &[0; 100], b"trailing"].concat();
        assert_eq!(reason(&HEADER, &padded), Ok(name));
    }
}

#[test]
fn a_growing_head_comes_to_the_same_verdict() {
    for (name, file, _) in samples() {
        let first = (1..file.len())
            .map(|n| HEADER.sniff(&file[..n], &Hints::default()))
            .find(|verdict| *verdict != Verdict::More);
        match first {
            Some(Verdict::Accept(format)) => assert_eq!(format.name, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn an_html_page_is_hung_up_on_at_its_first_bytes() {
    for page in [
        "<!DOCTYPE html>",
        "\r\n <html lang=\"en\">",
        "<HTML><HEAD>",
        "<script>x",
        "\u{feff}<!doctype HTML ",
    ] {
        match HEADER.sniff(
            page.as_bytes(),
            &Hints {
                media_type: Some("image/jpeg"),
                ..Hints::default()
            },
        ) {
            Verdict::Reject(rejection) => {
                assert_eq!(rejection.reason, Reason::WrongKind);
                assert!(
                    rejection.detail.contains("an HTML page"),
                    "{}",
                    rejection.detail
                );
            }
            other => panic!("{page}: {other:?}"),
        }
    }
}

#[test]
fn other_kinds_are_named() {
    for (bytes, word) in [
        (&b"%PDF-1.7\n"[..], "a PDF"),
        (b"PK\x03\x04\x14\0\0\0\0\0", "a ZIP archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "gzip"),
        (b"{\"error\": \"not found\"}", "plain text"),
        (b"BMW is a car maker, and this is a text", "plain text"),
        (b"GIF is a format, and this is a text", "plain text"),
        (b"<?xml version='1.0'?><Error/>", "an XML document"),
        (b"\0\x01\x02\x03\x04\x05", "of no known format"),
        (b"\0\0\x01\0\0\0", "of no known format"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
    ] {
        let rejection = judge(&HEADER, bytes).unwrap_err();
        assert_eq!(rejection.reason, Reason::WrongKind);
        assert!(rejection.detail.contains(word), "{}", rejection.detail);
    }
    assert_eq!(reason(&HEADER, b""), Err(Reason::Empty));
}

#[test]
fn a_format_that_is_not_enabled_is_named_with_the_way_to_enable_it() {
    let image = Image::new(&settings(r#"["jpg"]"#, "header"));
    let rejection = judge(&image, &heif(b"avif")).unwrap_err();
    assert_eq!(rejection.reason, Reason::WrongKind);
    assert_eq!(
        rejection.detail,
        "the body is an AVIF image; add \"avif\" to `image.formats` to accept it"
    );
    assert_eq!(image.accept(), "image/jpeg,*/*;q=0.1");
}

#[test]
fn settings_take_the_known_names_and_list_them_for_others() {
    let some = settings(r#"["jpg", "tif", "sgi", "jpeg"]"#, "decode");
    assert_eq!(
        some.formats,
        [
            ImageFormat::Jpeg,
            ImageFormat::Tiff,
            ImageFormat::Rgb,
            ImageFormat::Jpeg
        ]
    );
    let parse = |formats: &str| {
        toml::from_str::<Settings>(&format!(
            "formats = {formats}\ncheck = \"header\"\nundecoded = \"keep\"\nmax_pixels = 1\nmax_side = 1\nmin_bytes = 0\nmax_bytes = 1\ndecode_memory = 1"
        ))
        .unwrap_err()
        .to_string()
    };
    let unknown = parse(r#"["jpeg", "tga"]"#);
    for format in ImageFormat::ALL {
        assert!(unknown.contains(&format!("`{format}`")), "{unknown}");
    }
    assert!(parse("[]").contains("at least one format"));
}

#[test]
fn limits_come_before_everything_else() {
    let mut png = encode(::image::ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 0x4e, 0x21, 0, 0, 0, 1]);
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(reason(&HEADER, &png), Err(Reason::TooManyPixels));
    let mut bmp = encode(::image::ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&2000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&2000_u32.to_le_bytes());
    assert_eq!(reason(&HEADER, &bmp), Err(Reason::TooManyPixels));
    bmp[18..22].fill(0);
    assert_eq!(reason(&HEADER, &bmp), Err(Reason::Corrupt));
    let large = [
        &encode(::image::ImageFormat::Jpeg)[..],
        &vec![0; 1024 * 1024],
    ]
    .concat();
    assert_eq!(reason(&HEADER, &large), Err(Reason::TooLarge));
    let mut least = settings(ALL, "header");
    least.min_bytes = bytesize::ByteSize(100_000);
    assert_eq!(
        reason(&Image::new(&least), &encode(::image::ImageFormat::Jpeg)),
        Err(Reason::Corrupt)
    );
}

#[test]
fn the_end_marker_of_a_thumbnail_does_not_stand_for_the_pictures_own() {
    let picture = encode(::image::ImageFormat::Jpeg);
    let thumbnail = [
        &[0xff, 0xe1, 0, 14][..],
        b"Exif\0\0",
        &[0xff, 0xd8, 0xff, 0xd9],
        &[0, 0],
    ]
    .concat();
    let whole = [&picture[..2], &thumbnail, &picture[2..]].concat();
    assert_eq!(reason(&HEADER, &whole), Ok("jpeg"));
    assert_eq!(
        reason(&HEADER, &whole[..whole.len() - 3]),
        Err(Reason::Corrupt)
    );
}

#[test]
fn a_damaged_png_chunk_is_found_by_its_checksum() {
    let mut png = encode(::image::ImageFormat::Png);
    let middle = png.len() / 2;
    png[middle] ^= 1;
    assert_eq!(reason(&HEADER, &png), Err(Reason::Corrupt));
}

/// A PNG of 8×8 pixels in as many `frames`.
fn png_of(color: ::png::ColorType, depth: ::png::BitDepth, frames: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, 8, 8);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ::png::ColorType::Indexed {
        encoder.set_palette(vec![7; 3 * 256]);
    }
    if frames > 1 {
        encoder.set_animated(frames, 0).unwrap();
    }
    let mut writer = encoder.write_header().unwrap();
    let row = (8_usize * color.samples() * (depth as usize)).div_ceil(8);
    for _ in 0..frames {
        let noise: Vec<u8> = (0..row * 8).map(|n| (n * n % 251) as u8).collect();
        writer.write_image_data(&noise).unwrap();
    }
    drop(writer);
    bytes
}

#[test]
fn an_icon_may_hold_any_png() {
    use ::png::{BitDepth as D, ColorType as C};
    for (color, depth) in [
        (C::Rgba, D::Eight),
        (C::Rgb, D::Eight),
        (C::Grayscale, D::Eight),
        (C::GrayscaleAlpha, D::Eight),
        (C::Grayscale, D::Sixteen),
        (C::Grayscale, D::One),
        (C::Indexed, D::Eight),
        (C::Indexed, D::One),
    ] {
        let file = png_of(color, depth, 1);
        assert_eq!(reason(&DECODE, &icon_of(&file, 1)), Ok("ico"), "{color:?}");
        let mut damaged = file;
        let data = memchr::memmem::find(&damaged, b"IDAT").unwrap();
        damaged[data + 12] ^= 0x55;
        let icon = icon_of(&damaged, 1);
        assert_eq!(reason(&DECODE, &icon), Err(Reason::Corrupt), "{color:?}");
        let cursor = icon_of(&damaged, 2);
        assert_eq!(reason(&DECODE, &cursor), Err(Reason::Corrupt), "{color:?}");
    }
}

/// A GIF of two frames.
fn animated_gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut bytes, 23, 17, &[9; 3 * 256]).unwrap();
    for _ in 0..2 {
        let pixels: Vec<u8> = (0..23 * 17).map(|n| (n * n % 251) as u8).collect();
        let frame = ::gif::Frame::from_indexed_pixels(23, 17, pixels, None);
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

#[test]
fn a_gif_may_end_without_its_trailer() {
    let whole = animated_gif();
    let bare = &whole[..whole.len() - 1];
    let padded = [bare, &[0; 5]].concat();
    for file in [&whole, bare, &padded] {
        assert_eq!(reason(&HEADER, file), Ok("gif"));
        assert_eq!(reason(&DECODE, file), Ok("gif"));
    }
}

/// A TIFF of two compressed pages.
fn two_pages() -> Vec<u8> {
    use ::tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype::Gray8};
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes)
        .unwrap()
        .with_compression(Compression::Deflate(DeflateLevel::Fast));
    let pixels: Vec<u8> = (0..64 * 64_u32).map(|n| (n * n % 251) as u8).collect();
    for _ in 0..2 {
        encoder.write_image::<Gray8>(64, 64, &pixels).unwrap();
    }
    bytes.into_inner()
}

/// An animated WebP of two frames, without loss.
fn animated_webp() -> Vec<u8> {
    let still = encode(::image::ImageFormat::WebP);
    let picture = &still[12..];
    let mut chunks = b"WEBPVP8X\x0a\0\0\0\x12\0\0\0\x16\0\0\x10\0\0".to_vec();
    chunks.extend(b"ANIM\x06\0\0\0\0\0\0\0\0\0");
    for _ in 0..2 {
        chunks.extend(b"ANMF");
        chunks.extend((16 + picture.len() as u32).to_le_bytes());
        chunks.extend(b"\0\0\0\0\0\0\x16\0\0\x10\0\0\x64\0\0\0");
        chunks.extend(picture);
    }
    [&b"RIFF"[..], &(chunks.len() as u32).to_le_bytes(), &chunks].concat()
}

/// Where `needle` stands last.
fn last(bytes: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::rfind(bytes, needle).unwrap()
}

#[test]
fn damage_is_found_in_every_frame_and_page() {
    let apng = png_of(::png::ColorType::Rgb, ::png::BitDepth::Eight, 3);
    // With a checksum that is right, and with one that is not.
    let mut damaged_apng = apng.clone();
    let data = last(&apng, b"fdAT");
    damaged_apng[data + 10..data + 20].fill(0x55);
    assert_eq!(reason(&HEADER, &damaged_apng), Err(Reason::Corrupt));
    let length = u32::from_be_bytes(apng[data - 4..data].try_into().unwrap()) as usize;
    let sum = crc32fast::hash(&damaged_apng[data..data + 4 + length]);
    damaged_apng[data + 4 + length..][..4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(reason(&HEADER, &damaged_apng), Ok("png"));

    let gif = animated_gif();
    let mut damaged_gif = gif.clone();
    let second = gif.len() - 200;
    damaged_gif[second..second + 40].fill(0xff);

    let tiff = two_pages();
    let mut damaged_tiff = tiff.clone();
    // The second page's data begins like the first one's.
    let second = last(&tiff, &tiff[8..24]);
    damaged_tiff[second + 20..second + 60].fill(0x55);

    let webp = animated_webp();
    let mut damaged_webp = webp.clone();
    let second = last(&webp, b"ANMF");
    damaged_webp[second + 50..second + 90].fill(0x55);
    let mut half_webp = webp.clone();
    half_webp[second..].fill(0);

    for (whole, damaged, name) in [
        (&apng, damaged_apng, "png"),
        (&gif, damaged_gif, "gif"),
        (&tiff, damaged_tiff, "tiff"),
        (&webp, damaged_webp, "webp"),
        (&webp, half_webp, "webp"),
    ] {
        assert_eq!(reason(&DECODE, whole), Ok(name));
        assert_eq!(reason(&DECODE, &damaged), Err(Reason::Corrupt), "{name}");
    }
}

#[test]
fn decoding_takes_no_more_memory_than_it_is_given() {
    let image = |decode_memory: &str| {
        Image::new(&Settings {
            decode_memory: decode_memory.parse().unwrap(),
            max_bytes: "16MiB".parse().unwrap(),
            ..settings(ALL, "decode")
        })
    };
    let (small, large_enough) = (image("6MiB"), image("64MiB"));
    let large = |format| {
        let mut bytes = Cursor::new(Vec::new());
        let picture = DynamicImage::ImageRgb8(RgbImage::new(900, 900));
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    use ::image::ImageFormat as F;
    // By rows, pieces and strips.
    for format in [F::Png, F::Gif, F::Tiff, F::Jpeg] {
        assert_eq!(judge(&small, &large(format)).err(), None, "{format:?}");
    }
    {
        let format = F::WebP;
        let file = large(format);
        assert!(judge(&large_enough, &file).is_ok(), "{format:?}");
        let rejection = judge(&small, &file).unwrap_err();
        assert_eq!(rejection.reason, Reason::DecodeMemory, "{format:?}");
        assert!(rejection.detail.contains("`image.decode_memory`"));
    }
}

#[test]
fn a_picture_that_nothing_decodes_is_kept_or_rejected_as_the_settings_say() {
    let picture = psd();
    let kept = judge(&DECODE, &picture).unwrap();
    let why = kept.undecoded.unwrap();
    assert_eq!(
        why,
        "the Photoshop image is of a format that is not decoded"
    );
    assert_eq!(judge(&HEADER, &picture).unwrap().undecoded, None);
    let strict = Image::new(&Settings {
        undecoded: Undecoded::Reject,
        ..settings(ALL, "decode")
    });
    let rejection = judge(&strict, &picture).unwrap_err();
    assert_eq!(rejection.reason, Reason::Undecoded);
    assert!(rejection.detail.contains("`image.undecoded`"));
    assert_eq!(
        reason(&strict, &encode(::image::ImageFormat::Png)),
        Ok("png")
    );
}

/// The pieces of a JPEG are counted where its end is in doubt, and never taken for damage where they are there.
#[test]
fn a_jpeg_is_truncated_by_its_blocks_and_not_by_its_end_marker() {
    let (half, whole) = (
        fixture("jpeg-half-then-eoi.jpg"),
        fixture("jpeg-whole-no-eoi.jpg"),
    );
    assert_eq!(reason(&DECODE, &half), Err(Reason::Corrupt));
    for image in [&*HEADER, &*DECODE] {
        assert_eq!(reason(image, &whole), Ok("jpeg"));
        for cut in [whole.len() - 3, whole.len() - 40, whole.len() / 2] {
            assert_eq!(reason(image, &whole[..cut]), Err(Reason::Corrupt), "{cut}");
        }
    }
}

#[test]
fn variants_that_a_decoder_does_not_know_are_not_damaged() {
    for name in [
        "jpeg-sequential-three-scans.jpg",
        "jpeg-chroma-larger-than-luma.jpg",
        "gif-unknown-extension.gif",
        "webp-exif-flag-no-chunk.webp",
    ] {
        assert_eq!(judge(&DECODE, &fixture(name)).err(), None, "{name}");
    }
}

#[test]
fn rare_arrangements_of_a_jpeg_have_right_pixels() {
    let decoder = Decoder::new(&settings(ALL, "decode"));
    for name in [
        "jpeg-sequential-three-scans.jpg",
        "jpeg-chroma-larger-than-luma.jpg",
    ] {
        let body = Body::Memory(fixture(name).into());
        let pixels = decoder.decode(&body, ImageFormat::Jpeg, |_| 0).unwrap();
        let picture = pixels.image.to_rgb8();
        // A red ellipse stands in the middle.
        let [red, green, blue] = picture
            .get_pixel(picture.width() / 2, picture.height() / 2)
            .0;
        assert!(
            red > 150 && green < 100 && blue < 100,
            "{name}: {red} {green} {blue}"
        );
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

#[test]
fn the_frames_of_a_picture_have_a_limit_together() {
    let tight = Image::new(&Settings {
        max_pixels: 64.try_into().unwrap(),
        ..settings(ALL, "decode")
    });
    let frames = |n| png_of(::png::ColorType::Grayscale, ::png::BitDepth::Eight, n);
    assert_eq!(reason(&tight, &frames(64)), Ok("png"));
    assert_eq!(reason(&tight, &frames(65)), Err(Reason::TooManyPixels));
}

#[test]
fn a_tiff_whose_directories_form_a_loop_ends() {
    let mut tiff = encode(::image::ImageFormat::Tiff);
    let first = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(u16::from_le_bytes(
        tiff[first..first + 2].try_into().unwrap(),
    ));
    let link = first + 2 + 12 * entries;
    tiff[link..link + 4].copy_from_slice(&(first as u32).to_le_bytes());
    assert_eq!(reason(&HEADER, &tiff), Ok("tiff"));
    assert_eq!(reason(&DECODE, &tiff), Ok("tiff"));
}

#[test]
fn an_svg_that_runs_code_is_active() {
    let around = |inner: &str| format!("<svg xmlns='x' xmlns:xlink='y'>{inner}</svg>");
    for active in [
        "<script/>",
        "<g onclick='x()'/>",
        "<a href=' java\tscript:x()'/>",
        "<a xlink:href='&#106;avascript:x()'/>",
        "<foreignObject/>",
        "<set attributeName='href' to='javascript:x()'/>",
        "<x:script xmlns:x='http://www.w3.org/2000/svg'/>",
        "<animate attributeName='href' values='#a; javascript:x()'/>",
    ] {
        assert!(
            judge(&HEADER, around(active).as_bytes()).unwrap().active,
            "{active}"
        );
    }
    for still in [
        "<a href='https://example.org/'/>",
        "<image href='data:image/png;base64,AAAA'/>",
        "<text>javascript:</text>",
        "<one/>",
        "<g one='1' only='2' onset='3' x:onclick='4'/>",
    ] {
        assert!(
            !judge(&HEADER, around(still).as_bytes()).unwrap().active,
            "{still}"
        );
    }
    for (subset, active) in [
        ("<!ATTLIST svg onload CDATA 'x()'>", true),
        ("<!ATTLIST g onclick CDATA #FIXED \"x()\">", true),
        ("<!ATTLIST g a (b|c) 'b' onend CDATA 'x()'>", true),
        ("<!ATTLIST a xlink:href CDATA 'javascript:x()'>", true),
        (
            "<!ENTITY j 'java'><!ATTLIST a href CDATA '&j;script:x()'>",
            true,
        ),
        ("<!ATTLIST g onclick CDATA #IMPLIED>", false),
        (
            "<!ATTLIST g only CDATA 'x'><!-- <!ATTLIST g onclick CDATA 'x'> -->",
            false,
        ),
        (
            "<!ATTLIST svg xmlns CDATA #FIXED 'http://www.w3.org/2000/svg'>",
            false,
        ),
    ] {
        let file = format!("<!DOCTYPE svg [{subset}]><svg><g/></svg>");
        let facts = judge(&HEADER, file.as_bytes()).unwrap();
        assert_eq!(facts.active, active, "{subset}");
        let facts = judge(&HEADER, &gzip(file.as_bytes())).unwrap();
        assert_eq!((facts.format.name, facts.active), ("svgz", active));
    }
    let by_entity = "<!DOCTYPE svg [<!ENTITY e '<script/>'>]><svg>&e;</svg>";
    assert!(judge(&HEADER, by_entity.as_bytes()).unwrap().active);
}

#[test]
fn an_svg_has_no_pixels_to_limit() {
    let tight = Image::new(&Settings {
        max_pixels: 100.try_into().unwrap(),
        max_side: 10.try_into().unwrap(),
        ..settings(ALL, "header")
    });
    for (attributes, size) in [
        ("width='20000mm' height='10mm'", Some((75_591, 38))),
        (
            "width='1000000' height='1000000'",
            Some((1_000_000, 1_000_000)),
        ),
        (
            "width='100%' height='100%' viewBox='0 0 300 200'",
            Some((300, 200)),
        ),
        ("width='1e30' height='1e30'", None),
        ("", None),
    ] {
        let file = format!("<svg {attributes}/>");
        let facts = judge(&tight, file.as_bytes()).unwrap();
        assert_eq!(facts.dimensions, size, "{attributes}");
    }
}

#[test]
fn what_gzip_holds_decides_whether_it_is_a_picture() {
    for other in ["<!doctype html><p>", "<html>", "<rss/>", "text", ""] {
        let packed = gzip(other.as_bytes());
        assert_eq!(reason(&HEADER, &packed), Err(Reason::WrongKind), "{other}");
    }
    let file = gzip(&svg());
    // A second member, and what is no member.
    assert_eq!(
        reason(&HEADER, &[&file[..], &gzip(b" ")].concat()),
        Ok("svgz")
    );
    assert_eq!(
        reason(&HEADER, &[&file[..], &gzip(b"<")].concat()),
        Err(Reason::Corrupt)
    );
    let mut flipped = file.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert_eq!(reason(&HEADER, &flipped), Err(Reason::Corrupt));
    // More text than `max_bytes`, of a thousandth of that.
    let bomb = format!("<svg>{}</svg>", " ".repeat(2 << 20));
    let rejection = judge(&HEADER, &gzip(bomb.as_bytes())).unwrap_err();
    assert_eq!(rejection.reason, Reason::TooLarge);
    assert!(rejection.detail.contains("`image.max_bytes`"));
    let no_svgz = Image::new(&settings(r#"["svg"]"#, "header"));
    let rejection = judge(&no_svgz, &file).unwrap_err();
    assert!(rejection.detail.contains("add \"svgz\""), "{rejection}");
}

#[test]
fn an_svg_has_to_be_well_formed() {
    let deep = format!("<svg>{}", "<g>".repeat(5000));
    for damaged in [
        "<svg><g></svg>",
        "<svg>",
        "<svg/><svg/>",
        "<svg/>text",
        "<svg>&nbsp;</svg>",
        "<svg>a & b</svg>",
        "<svg a=1/>",
        "<svg a='1' a='2'/>",
        "<svg a='<'/>",
        "<svg>\u{1}</svg>",
        "<svg><!-- </svg>",
        "<!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>",
        "<!DOCTYPE svg [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><svg>&b;</svg>",
        &deep,
    ] {
        assert_eq!(
            reason(&HEADER, damaged.as_bytes()),
            Err(Reason::Corrupt),
            "{damaged:.80}"
        );
    }
    let exported =
        "<!DOCTYPE svg [<!ENTITY ns 'http://www.w3.org/2000/svg'>]><svg xmlns='&ns;'>&ns;</svg>";
    assert_eq!(reason(&HEADER, exported.as_bytes()), Ok("svg"));
    let latin1 = b"<?xml version='1.0' encoding='iso-8859-1'?><svg><text>caf\xe9</text></svg>";
    assert_eq!(reason(&HEADER, latin1), Ok("svg"));
    let unlabelled = b"<svg><text>caf\xe9</text></svg>";
    assert_eq!(reason(&HEADER, unlabelled), Err(Reason::Corrupt));
}

#[test]
fn sniffing_alone_looks_at_nothing_else() {
    let image = Image::new(&settings(ALL, "sniff"));
    let file = encode(::image::ImageFormat::Jpeg);
    assert_eq!(judge(&image, &file[..20]).unwrap().dimensions, None);
    assert!(!image.is_heavy() && DECODE.is_heavy());
}

#[test]
fn what_stands_before_the_root_may_be_longer_than_the_head() {
    let x = "x".repeat(HEAD_BYTES);
    for (start, end) in [
        ("<!-- ", "-->"),
        ("<?x ", "?>"),
        ("<!DOCTYPE svg [<!-- ", "-->]>"),
    ] {
        let head = format!("{start}{x}");
        let svg = ImageFormat::Svg.format();
        let verdict = HEADER.sniff(head.as_bytes(), &Hints::default());
        assert_eq!(verdict, Verdict::Accept(svg), "{start}");
        for (root, expected) in [
            ("<svg/>", Ok(())),
            ("<html/>", Err(Reason::WrongKind)),
            ("<!doctype html><html></html>", Err(Reason::WrongKind)),
            ("<svg>", Err(Reason::Corrupt)),
        ] {
            if root.starts_with("<!") && start.starts_with("<!D") {
                continue;
            }
            let file = format!("{head}{end}{root}").into_bytes();
            let judged = HEADER.inspect(&Body::Memory(file.into()), svg);
            assert_eq!(
                judged.map(drop).map_err(|r| r.reason),
                expected,
                "{start} {root}"
            );
        }
    }
    // Without a look at the whole, the name has to settle it.
    let image = Image::new(&settings(ALL, "sniff"));
    let head = format!("<!-- {x}");
    let hints = Hints {
        name: Some("Map.SVG"),
        ..Hints::default()
    };
    assert!(matches!(
        image.sniff(head.as_bytes(), &hints),
        Verdict::Accept(_)
    ));
    assert!(matches!(
        image.sniff(head.as_bytes(), &Hints::default()),
        Verdict::Reject(_)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_brings_a_check_down(
        sample in 0..22_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_, mut file, _) = samples().swap_remove(sample);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = judge(&HEADER, &file);
        let _ = judge(&DECODE, &file);
        file.truncate(cut.index(file.len()));
        let _ = judge(&HEADER, &file);
    }

    #[test]
    fn no_bytes_bring_a_check_down(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = judge(&HEADER, &bytes);
        for format in ImageFormat::ALL {
            // Straight into every check, whatever the first bytes.
            let _ = DECODE.inspect(&Body::Memory(bytes.clone().into()), format.format());
        }
    }
}

/// An animation of `frames` frames that promises `promised`; with a still picture before it, or without.
fn animation(promised: u32, frames: u32, still: bool, skip: u32) -> Vec<u8> {
    fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
        file.extend((content.len() as u32).to_be_bytes());
        let from = file.len();
        file.extend(kind);
        file.extend(content);
        let sum = crc32fast::hash(&file[from..]);
        file.extend(sum.to_be_bytes());
    }
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&[0, 9, 0, 9]).unwrap();
    let packed = packed.finish().unwrap();
    let mut file = png::SIGNATURE.to_vec();
    chunk(&mut file, b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 2, 8, 0, 0, 0, 0]);
    chunk(
        &mut file,
        b"acTL",
        &[promised.to_be_bytes(), [0; 4]].concat(),
    );
    if still {
        chunk(&mut file, b"IDAT", &packed);
    }
    let mut sequence = 0_u32;
    let mut next = || {
        sequence += 1;
        (sequence - 1 + if sequence > 2 { skip } else { 0 }).to_be_bytes()
    };
    for n in 0..frames {
        let sides = [[0, 0, 0, 1, 0, 0, 0, 2], [0; 8]].concat();
        let control = [&next()[..], &sides, &[0, 1, 0, 10, 0, 0]].concat();
        chunk(&mut file, b"fcTL", &control);
        if n == 0 && !still {
            chunk(&mut file, b"IDAT", &packed);
        } else {
            let data = [&next()[..], &packed].concat();
            chunk(&mut file, b"fdAT", &data);
        }
    }
    chunk(&mut file, b"IEND", &[]);
    file
}

#[test]
fn an_animation_holds_the_frames_that_it_promises() {
    for still in [false, true] {
        for (promised, frames, skip, is_whole) in [
            (3, 3, 0, true),
            (3, 4, 0, true),
            (1, 1, 0, true),
            (4, 3, 0, false),
            (4, 1, 0, false),
            (3, 3, 1, false),
        ] {
            let file = animation(promised, frames, still, skip);
            for image in [&*HEADER, &*DECODE] {
                let found = reason(image, &file);
                let expected = if is_whole {
                    Ok("png")
                } else {
                    Err(Reason::Corrupt)
                };
                assert_eq!(found, expected, "{promised} {frames} {skip} {still}");
            }
        }
    }
    let short = include_bytes!("../../../tests/fixtures/apng-four-promised-one-there.png");
    let rejection = judge(&HEADER, short).unwrap_err();
    assert_eq!(rejection.reason, Reason::Corrupt);
    assert!(
        rejection.detail.contains("of the 4 frames"),
        "{}",
        rejection.detail
    );
}

/// Of the primary item, 23 by 17 pixels, `properties`; a gain map beside it is larger.
fn heif_turned(properties: &[Vec<u8>]) -> Vec<u8> {
    let size = |width: u32, height: u32| {
        let sides = [width, height].map(u32::to_be_bytes).concat();
        atom(b"ispe", &[&[0; 4][..], &sides].concat())
    };
    let all = [&[size(99, 98), size(23, 17)][..], properties]
        .concat()
        .concat();
    let indices: Vec<u8> = (2..).take(properties.len() + 1).collect();
    // Item 7 has the larger size, item 3 all that follows it.
    let mut associations = vec![
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        0,
        7,
        1,
        1,
        0,
        3,
        indices.len() as u8,
    ];
    associations.extend(indices);
    let properties = [atom(b"ipco", &all), atom(b"ipma", &associations)].concat();
    let meta = [
        atom(b"pitm", &[0, 0, 0, 0, 0, 3]),
        atom(b"iprp", &properties),
    ]
    .concat();
    [
        atom(b"ftyp", b"heic\0\0\0\0mif1heic"),
        atom(b"meta", &[&[0; 4][..], &meta].concat()),
        atom(b"mdat", &[5; 40]),
    ]
    .concat()
}

#[test]
fn a_turned_picture_has_the_size_at_which_it_is_shown() {
    let turn = |angle: u8| atom(b"irot", &[angle]);
    let mirror = |axis: u8| atom(b"imir", &[axis]);
    let fixture = |bytes: &[u8]| bytes.to_vec();
    let mut tiff = encode(::image::ImageFormat::Tiff);
    let directory = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    // In place of the width's neighbour that readers can do without.
    let count = usize::from(u16::from_le_bytes([tiff[directory], tiff[directory + 1]]));
    let resolution = (0..count)
        .map(|n| directory + 2 + 12 * n)
        .find(|at| tiff[*at..*at + 2] == 296_u16.to_le_bytes())
        .unwrap();
    tiff[resolution..resolution + 12].copy_from_slice(&[18, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0]);
    for (what, file, size, orientation) in [
        (
            "jpeg",
            fixture(include_bytes!(
                "../../../tests/fixtures/jpeg-orientation-8.jpg"
            )),
            (64, 96),
            Some(8),
        ),
        (
            "webp",
            fixture(include_bytes!(
                "../../../tests/fixtures/webp-orientation-6-prefixed.webp"
            )),
            (64, 96),
            Some(6),
        ),
        ("tiff", tiff, (17, 23), Some(6)),
        ("plain heic", heif_turned(&[]), (23, 17), None),
        (
            "90 degrees left",
            heif_turned(&[turn(1)]),
            (17, 23),
            Some(8),
        ),
        ("180 degrees", heif_turned(&[turn(2)]), (23, 17), Some(3)),
        (
            "90 degrees right",
            heif_turned(&[turn(3)]),
            (17, 23),
            Some(6),
        ),
        ("upside down", heif_turned(&[mirror(0)]), (23, 17), Some(4)),
        ("mirrored", heif_turned(&[mirror(1)]), (23, 17), Some(2)),
        (
            "both",
            heif_turned(&[turn(3), mirror(1)]),
            (17, 23),
            Some(5),
        ),
    ] {
        for image in [&*HEADER, &*DECODE] {
            let facts = judge(image, &file).unwrap_or_else(|r| panic!("{what}: {r}"));
            assert_eq!(
                (facts.dimensions, facts.orientation),
                (Some(size), orientation),
                "{what}"
            );
        }
    }
}
