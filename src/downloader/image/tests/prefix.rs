//! Beginnings of pictures. Those of good pictures are never rejected; those of damaged ones are rejected soon after
//! the damage.

use super::*;

/// Inspects the beginning of a body of `length` bytes, in memory.
fn prefix(bytes: &[u8], length: Option<u64>, name: &str) -> Result<(), Rejection> {
    let format = ImageFormat::named(name).unwrap().format();
    let memory = Body::Memory(bytes.to_vec().into());
    HEADER.inspect_prefix(&memory, format, length)
}

fn in_a_file(bytes: &[u8]) -> Body {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Body::File(Arc::new(file), bytes.len() as u64)
}

fn length(bytes: &[u8]) -> Option<u64> {
    Some(bytes.len() as u64)
}

/// All undamaged files of these tests.
fn whole() -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<_> = samples()
        .into_iter()
        .map(|(name, file, _)| (name, file))
        .collect();
    files.extend([
        ("gif", animated_gif()),
        ("tiff", two_pages()),
        ("webp", animated_webp()),
        ("png", png_of(::png::ColorType::Indexed, ::png::BitDepth::Eight, 3)),
        ("ico", icon_of(&encode(::image::ImageFormat::Png), 1)),
        ("svg", "<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY n 'http://x/'>]><!-- > & < --><?x > ?><svg a='>' xmlns='&n;'><![CDATA[ > & ]]>&lt;ß > ü<g\n>&#x41;</g></svg>\n".into()),
    ]);
    // Bytes after the picture make no difference.
    let padded = files
        .clone()
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "svg" | "jxl"));
    let padded: Vec<_> = padded
        .map(|(name, file)| (name, [&file[..], b"\0\0trailing"].concat()))
        .collect();
    files.extend(padded);
    files
}

#[test]
fn no_beginning_of_a_whole_picture_is_rejected() {
    for (name, file) in whole() {
        assert_eq!(reason(&HEADER, &file), Ok(name));
        let format = ImageFormat::named(name).unwrap().format();
        for n in 0..=file.len() {
            for length in [None, length(&file)] {
                let found = prefix(&file[..n], length, name);
                assert_eq!(
                    found,
                    Ok(()),
                    "{name}: {n} of {} bytes, {length:?}",
                    file.len()
                );
            }
            if n % 16 == 0 {
                let found = DECODE.inspect_prefix(&in_a_file(&file[..n]), format, None);
                assert_eq!(found, Ok(()), "{name}: {n} bytes of a file");
            }
        }
    }
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(&[&kind[..], data].concat());
    [
        &(data.len() as u32).to_be_bytes(),
        &kind[..],
        data,
        &sum.to_be_bytes(),
    ]
    .concat()
}

/// Damaged files, each with the offset at which a sequential reader can detect the damage.
fn damaged() -> Vec<(&'static str, &'static str, Vec<u8>, usize)> {
    use ::image::ImageFormat as F;
    let mut files = Vec::new();
    let mut add = |name, what, file: &[u8], at| files.push((name, what, file.to_vec(), at));

    let png = encode(F::Png);
    let text = chunk(b"tEXt", &[b'x'; 1224]);
    let mut long = [&png[..33], &text].concat();
    assert_eq!(long.len(), 1269);
    long.extend([0; 8]);
    add("png", "chunk at 1269", &long, 1277);
    let idat = memchr::memmem::find(&png, b"IDAT").unwrap();
    let end = idat + 8 + u32::from_be_bytes(png[idat - 4..idat].try_into().unwrap()) as usize;
    let mut sum = png.clone();
    sum[idat + 20] ^= 1;
    add("png", "checksum", &sum, end);
    let mut depth = png.clone();
    depth[24] = 3;
    add("png", "bit depth", &depth, 33);

    let jpeg = encode(F::Jpeg);
    add(
        "jpeg",
        "segment length",
        &[&jpeg[..2], b"\xff\xe1\0\x01"].concat(),
        6,
    );
    add(
        "jpeg",
        "no frame",
        b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0\x3f\0",
        12,
    );
    add(
        "jpeg",
        "end before data",
        b"\xff\xd8\xff\xfe\0\x04ab\xff\xd9",
        10,
    );

    let rubbish = [&b"\xff\xd8"[..], &[b'x'; 140_000]].concat();
    add("jpeg", "rubbish", &rubbish, 2 + 128 * 1024 + 4096);

    let gif = animated_gif();
    add(
        "gif",
        "unknown block",
        &[&gif[..13 + 256 * 3], b"\x21\xfe\x03abc\0\x99"].concat(),
        790,
    );
    let image = memchr::memchr(b',', &gif[13 + 256 * 3..]).unwrap() + 13 + 256 * 3;
    let flags = gif[image + 9];
    let table = if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    };
    let mut codes = gif.clone();
    codes[image + 10 + table] = 0x63;
    add("gif", "code size", &codes, image + 11 + table);

    let webp = lossy_webp();
    let mut stream = webp.clone();
    stream[23] ^= 0xff;
    add("webp", "bitstream", &stream, 30);
    let mut frame = webp;
    frame[20] |= 1;
    add("webp", "not a key frame", &frame, 30);
    let mut frames = animated_webp();
    let second = last(&frames, b"ANMF");
    frames[second..second + 4].fill(0);
    add("webp", "second frame", &frames, second + 8);

    let mut bmp = encode(F::Bmp);
    bmp[28] = 7;
    add("bmp", "bits per pixel", &bmp, 54);

    // The directory comes before the data.
    let directory = |entries: &[[u16; 4]]| {
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        file.extend((entries.len() as u16).to_le_bytes());
        for [tag, kind, count, value] in entries {
            file.extend(
                [*tag, *kind, *count, 0, *value, 0]
                    .iter()
                    .flat_map(|n| n.to_le_bytes()),
            );
        }
        file.extend([0; 4]);
        file
    };
    let tiff = directory(&[[256, 3, 1, 23], [257, 3, 1, 17]]);
    add("tiff", "no strips", &tiff, tiff.len());
    let tiff = directory(&[[256, 3, 1, 0], [257, 3, 1, 17], [273, 3, 1, 9]]);
    add("tiff", "no width", &tiff, tiff.len());

    let mut icon = icon_of(&icon_bitmap(), 1);
    icon[22] = 200;
    add("ico", "neither bitmap nor PNG", &icon, 22 + 40);

    let mut plain = sgi(false);
    plain[10..12].fill(0);
    add("rgb", "no channels", &plain, 12);

    let mut photo = psd();
    let compression = photo.len() - 23 * 17 * 3 - 2;
    photo[compression + 1] = 9;
    add("psd", "compression", &photo, compression + 2);

    for (name, brand) in [("avif", b"avif"), ("heic", b"heic")] {
        let mut file = heif(brand);
        let meta = last(&file, b"meta");
        file[meta - 4..meta].copy_from_slice(&4_u32.to_be_bytes());
        add(name, "box length", &file, meta + 12);
    }
    let mut file = jxl(true);
    let stream = last(&file, b"jxlc") + 4;
    file[stream] = 0;
    add("jxl", "codestream", &file, stream + 2);
    let mut file = jp2();
    let tile = last(&file, &[0xff, 0x90]);
    file[tile] = 0;
    add("jp2", "tile-part", &file, tile + 4);

    add("svg", "end tag", b"<svg xmlns='x'><g></svg>", 24);
    add("svg", "entity", b"<svg xmlns='x'>&nbsp;<g>", 24);
    add("svg", "UTF-8", b"<svg xmlns='x'>\xe9<g>", 19);
    add("svg", "UTF-8 in text", b"<svg xmlns='x'>\xe9 ", 17);
    add("svg", "NUL bytes", b"<svg xmlns='x'>\0\0", 16);
    files
}

#[test]
fn the_beginning_of_a_damaged_picture_is_rejected_soon_behind_the_damage() {
    for (name, what, file, at) in damaged() {
        // More bytes do not hide the damage.
        let endless = [&file[..], &[b' '; 20_000]].concat();
        let format = ImageFormat::named(name).unwrap().format();
        let rejected = HEADER.inspect(&Body::Memory(endless.clone().into()), format);
        assert_eq!(
            rejected.unwrap_err().reason,
            Reason::Corrupt,
            "{name}: {what}"
        );
        let first = (0..endless.len()).find(|n| prefix(&endless[..*n], None, name).is_err());
        let first = first.unwrap_or_else(|| panic!("{name}: {what}"));
        // Readers take a header as a whole, and look for the encoding of an SVG in its first KiB.
        let at = if name == "svg" { 1024 } else { at };
        assert!(
            first <= at + 16,
            "{name}: {what}: at {at}, found at {first}"
        );
        // Once detected, damage is detected in every longer prefix.
        for n in [first, first + 1, first + 100, first + 9_000] {
            // An SVG on disk is checked only at the end.
            let body = match name {
                "svg" => Body::Memory(endless[..n].to_vec().into()),
                _ => in_a_file(&endless[..n]),
            };
            let found = HEADER.inspect_prefix(&body, format, length(&endless));
            let rejection = found.unwrap_err();
            assert_eq!(rejection.reason, Reason::Corrupt);
            assert!(rejection.detail.starts_with("the "), "{rejection}");
        }
    }
}

#[test]
fn a_size_beyond_the_limits_shows_in_the_head() {
    let mut png = encode(::image::ImageFormat::Png);
    png[16..20].copy_from_slice(&0x4e21_u32.to_be_bytes());
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    let mut gif = animated_gif();
    gif[6..10].fill(0xff);
    let mut bmp = encode(::image::ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&200_000_u32.to_le_bytes());
    let mut avif = heif(b"avif");
    let size = last(&avif, b"ispe") + 8;
    avif[size..size + 4].copy_from_slice(&200_000_u32.to_be_bytes());
    let avif_size = last(&avif, b"mdat") - 4;
    let mut psd = psd();
    psd[14..18].copy_from_slice(&200_000_u32.to_be_bytes());
    for (name, file, n) in [
        ("png", png, 33),
        ("gif", gif, 13),
        ("bmp", bmp, 54),
        ("avif", avif, avif_size),
        ("psd", psd, 26),
    ] {
        let rejection = prefix(&file[..n], None, name).unwrap_err();
        assert_eq!(rejection.reason, Reason::TooManyPixels, "{name}");
    }
}

#[test]
fn a_structure_that_needs_more_than_the_announced_length_is_rejected() {
    for (name, file, head) in [
        ("bmp", encode(::image::ImageFormat::Bmp), 60),
        ("webp", lossy_webp(), 40),
        ("rgb", sgi(false), 520),
        ("psd", psd(), 60),
        (
            "png",
            [
                &encode(::image::ImageFormat::Png)[..],
                &chunk(b"tEXt", &[0; 99]),
            ]
            .concat(),
            60,
        ),
        ("ico", icon_of(&icon_bitmap(), 1), 70),
        ("avif", heif(b"avif"), heif(b"avif").len() - 20),
    ] {
        let (whole, head) = (length(&file), &file[..head]);
        assert_eq!(prefix(head, whole, name), Ok(()), "{name}");
        assert_eq!(prefix(head, None, name), Ok(()), "{name}");
        if name != "png" {
            let short = whole.map(|n| n - 10);
            let rejection = prefix(head, short, name).unwrap_err();
            assert_eq!(rejection.reason, Reason::Corrupt, "{name}");
        }
    }
}

#[test]
fn sniffing_alone_rejects_no_beginning() {
    let image = Image::new(&settings(ALL, "sniff"));
    for (name, _, file, _) in damaged() {
        let format = ImageFormat::named(name).unwrap().format();
        let body = Body::Memory(file.into());
        assert_eq!(image.inspect_prefix(&body, format, None), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A rejected beginning means that the whole is rejected, whatever follows.
    #[test]
    fn what_is_rejected_by_its_beginning_is_rejected_as_a_whole(
        sample in 0..52_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        other_end in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
        knows_length in any::<bool>(),
    ) {
        let mut files = whole();
        let sample = sample % files.len();
        let (name, mut file) = files.swap_remove(sample);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let n = cut.index(file.len());
        if let Some(end) = other_end {
            file.truncate(n);
            file.extend(end);
        }
        let length = length(&file).filter(|_| knows_length);
        if let Err(rejection) = prefix(&file[..n], length, name) {
            let format = ImageFormat::named(name).unwrap().format();
            let whole = HEADER.inspect(&Body::Memory(file.into()), format);
            prop_assert!(whole.is_err(), "{}: {} by {} bytes", name, rejection, n);
        }
    }
}
