//! What is accepted as which kind, by its bytes and by settings.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use support::pictures::{every_format, png, png_of};
use support::{Answer, Asked, Report, Sandbox, Site};

/// Serves one body with this type and name.
fn of(body: Vec<u8>, media_type: &'static str) -> Site {
    Site::start(move |_| Answer::ok(body.clone()).header("Content-Type", media_type))
}

#[track_caller]
fn fetch(body: Vec<u8>, code: i32, args: &[&str]) -> Report {
    let site = of(body, "application/octet-stream");
    Sandbox::new().fetch_list(site.list(["/file"]), code, args)
}

#[test]
fn every_format_of_the_default_set_is_known_by_its_bytes_alone() {
    let words = [
        ("bmp", "bmp"),
        ("gif", "gif"),
        ("jpg", "jpeg"),
        ("svg", "svg"),
        ("tif", "tiff"),
        ("ico", "ico"),
        ("rgb", "rgb"),
        ("png", "png"),
        ("webp", "webp"),
    ];
    for (extension, body) in every_format(1) {
        let word = words.iter().find(|(e, _)| *e == extension).unwrap().1;
        for media_type in [
            "image/jpeg",
            "text/html",
            "application/octet-stream",
            "nonsense",
        ] {
            let (site, sandbox) = (of(body.clone(), media_type), Sandbox::new());
            let report = sandbox.fetch_list(site.list(["/wrong.gif"]), 0, &[]);
            assert_eq!(report.only()["format"], word, "{extension} as {media_type}");
            assert!(report.only()["width"].as_u64().unwrap() > 0, "{extension}");
        }
        for check in ["sniff", "header", "decode"] {
            let set = format!("image.check={check}");
            let report = fetch(body.clone(), 0, &["--set", &set]);
            assert_eq!(report.count("stored"), 1, "{extension} by {check}");
        }
    }
}

#[test]
fn formats_that_are_not_asked_for_are_rejected_and_named() {
    for (extension, body) in every_format(2) {
        let others = if extension == "png" {
            "[\"gif\"]"
        } else {
            "[\"png\"]"
        };
        let set = format!("image.formats={others}");
        let report = fetch(body, 3, &["--set", &set]);
        assert_eq!(report.only()["outcome"], "rejected", "{extension}");
        assert_eq!(report.only()["reason"], "wrong-kind", "{extension}");
        assert!(report.only()["detail"].as_str().unwrap().len() > 5);
    }
}

/// An ISO base media file with this brand: AVIF or HEIC as far as the first bytes go.
fn branded(brand: &[u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 24];
    bytes.extend_from_slice(b"ftyp");
    bytes.extend_from_slice(brand);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(b"mif1");
    bytes.extend_from_slice(brand);
    bytes.extend_from_slice(&[0, 0, 0, 8]);
    bytes.extend_from_slice(b"mdat");
    bytes
}

#[test]
fn formats_beyond_the_default_set_come_only_when_asked_for() {
    let mut psd = b"8BPS\0\x01\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0\x02\0\x08\0\x03".to_vec();
    psd.extend_from_slice(&[0; 12]);
    psd.extend_from_slice(&[0; 2 + 12]);
    let jxl = [&[0xff, 0x0a][..], &[0x10; 40]].concat();
    for (format, body) in [
        ("avif", branded(b"avif")),
        ("heic", branded(b"heic")),
        ("psd", psd),
        ("jxl", jxl),
    ] {
        let report = fetch(body.clone(), 3, &[]);
        assert_eq!(report.only()["outcome"], "rejected", "{format}");
        assert_eq!(report.only()["reason"], "wrong-kind", "{format}");
        let set = format!("image.formats=[\"{format}\"]");
        let report = fetch(body, 0, &["--set", &set, "--set", "image.check=sniff"]);
        assert_eq!(report.only()["format"], format);
    }
}

#[test]
fn a_truncated_picture_is_corrupt_by_the_default_check() {
    for (extension, body) in every_format(3) {
        // All of these lose bytes that their structure names.
        let cut = body[..body.len() * 2 / 3].to_vec();
        let report = fetch(cut, 3, &[]);
        assert_eq!(report.only()["outcome"], "rejected", "{extension}");
        assert_eq!(
            report.only()["reason"],
            "corrupt",
            "{extension}: {}",
            report.only()
        );
    }
}

#[test]
fn only_decoding_finds_damage_within() {
    let mut body = png_of(1, 64);
    // In the middle of the compressed pixels; the chunk's checksum is put right again.
    let at = body.windows(4).position(|w| w == b"IDAT").unwrap();
    let length = u32::from_be_bytes(body[at - 4..at].try_into().unwrap()) as usize;
    for byte in &mut body[at + 4 + length / 2..at + 4 + length / 2 + 20] {
        *byte ^= 0xff;
    }
    let crc = crc32fast::hash(&body[at..at + 4 + length]);
    body[at + 4 + length..at + 8 + length].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(fetch(body.clone(), 0, &[]).count("stored"), 1);
    let report = fetch(body, 3, &["--set", "image.check=decode"]);
    assert_eq!(report.only()["reason"], "corrupt");
}

#[test]
fn limits_of_pixels_sides_and_bytes_hold() {
    let body = png_of(1, 64);
    for (set, reason) in [
        ("image.max_pixels=4095", "too-many-pixels"),
        ("image.max_side=63", "too-many-pixels"),
        ("image.max_bytes=100", "too-large"),
        ("fetch.max_bytes=100", "too-large"),
    ] {
        let report = fetch(body.clone(), 3, &["--set", set]);
        assert_eq!(report.only()["outcome"], "rejected", "{set}");
        assert_eq!(report.only()["reason"], reason, "{set}: {}", report.only());
    }
    let report = fetch(body.clone(), 3, &["--set", "image.min_bytes=1MiB"]);
    assert_eq!(report.only()["outcome"], "rejected");
    for set in ["image.max_pixels=4096", "image.max_side=64"] {
        fetch(body.clone(), 0, &["--set", set]);
    }
}

#[test]
fn nothing_is_no_picture() {
    let report = fetch(Vec::new(), 3, &[]);
    assert_eq!(report.only()["reason"], "empty");
    assert_eq!(report.only()["outcome"], "rejected");
}

#[test]
fn web_pages_are_told_from_pictures_and_svg() {
    for page in [
        "<!DOCTYPE html><html></html>",
        "  \n<html><body><svg xmlns=\"http://www.w3.org/2000/svg\"/></body></html>",
        "\u{feff}<!-- c --><!doctype html>",
        "<p>not found",
        "{\"error\":\"not found\"}",
        "Not found",
        "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
    ] {
        let report = fetch(page.as_bytes().to_vec(), 3, &[]);
        assert_eq!(report.only()["outcome"], "rejected", "{page}");
        assert_eq!(
            report.only()["reason"],
            "wrong-kind",
            "{page}: {}",
            report.only()
        );
    }
}

#[test]
fn svg_must_be_well_formed_and_without_entities_that_grow_or_fetch() {
    let head = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"5\" height=\"5\">";
    for (body, code) in [
        (format!("{head}</svg>"), 0),
        (
            format!("<?xml version=\"1.0\"?>\n<!-- c -->\n{head}<g/></svg>\n"),
            0,
        ),
        (format!("{head}<g></svg>"), 3),
        (head.to_owned(), 3),
        // Exports of well-known programs declare their namespaces like this.
        (
            format!("<!DOCTYPE svg [<!ENTITY a \"b\">]>{head}<text>&a;</text></svg>"),
            0,
        ),
        (
            format!(
                "<!DOCTYPE svg [<!ENTITY a \"b\"><!ENTITY c \"&a;&a;\">]>{head}<text>&c;</text></svg>"
            ),
            3,
        ),
        (
            format!(
                "<!DOCTYPE svg [<!ENTITY a SYSTEM \"file:///etc/hostname\">]>{head}<text>&a;</text></svg>"
            ),
            3,
        ),
        (
            format!("<!DOCTYPE svg [<!ENTITY % a \"b\">%a;]>{head}</svg>"),
            3,
        ),
        (format!("{head}<text>&undeclared;</text></svg>"), 3),
        (
            format!(
                "<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd\">{head}</svg>"
            ),
            0,
        ),
    ] {
        let report = fetch(body.clone().into_bytes(), code, &[]);
        assert_eq!(report.items().len(), 1, "{body}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn svg_is_judged_by_what_it_holds_and_not_by_its_size() {
    let handler = include_bytes!("fixtures/svg-attlist-handler.svg").to_vec();
    assert_eq!(fetch(handler, 0, &[]).only()["active"], true);
    let plain = include_bytes!("fixtures/svg-plain-attributes.svg").to_vec();
    let report = fetch(plain, 0, &["--set", "image.max_pixels=100"]);
    let item = report.only();
    assert_ne!(item["active"], true);
    assert_eq!(
        (&item["width"], &item["height"]),
        (&75_591.into(), &38.into())
    );
    let comment = "x".repeat(70 * 1024);
    let late = format!("<!-- {comment} --><svg xmlns=\"http://www.w3.org/2000/svg\"/>");
    assert_eq!(fetch(late.into_bytes(), 0, &[]).only()["format"], "svg");
    let page = format!("<!-- {comment} --><html></html>").into_bytes();
    assert_eq!(fetch(page, 3, &[]).only()["reason"], "wrong-kind");
}

#[test]
fn an_svg_inside_gzip_is_kept_as_it_came() {
    let packed = gzip(b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"5\" height=\"4\"/>");
    let report = fetch(packed.clone(), 0, &[]);
    let item = report.only();
    assert_eq!(item["format"], "svgz");
    assert_eq!(item["bytes"], packed.len());
    assert_eq!((&item["width"], &item["height"]), (&5.into(), &4.into()));
    assert!(item["path"].as_str().unwrap().ends_with(".svgz"));
    let page = gzip(b"<!doctype html><html></html>");
    assert_eq!(fetch(page, 3, &[]).only()["reason"], "wrong-kind");
    let bomb = format!("<svg>{}</svg>", " ".repeat(4 << 20));
    let report = fetch(gzip(bomb.as_bytes()), 3, &["--set", "image.max_bytes=1MiB"]);
    assert_eq!(report.only()["reason"], "too-large");
}

#[test]
fn newer_formats_are_decoded_where_that_is_asked_for() {
    let set = [
        "--set",
        "image.formats=[\"avif\",\"jxl\",\"jp2\"]",
        "--set",
        "image.check=decode",
    ];
    for (whole, spared) in [
        (&include_bytes!("fixtures/halves.jxl")[..], 60),
        (include_bytes!("fixtures/halves.jp2"), 300),
        (include_bytes!("fixtures/halves.avif"), 290),
    ] {
        let report = fetch(whole.to_vec(), 0, &set);
        let item = report.only();
        assert_eq!((&item["width"], &item["height"]), (&48.into(), &32.into()));
        let cut = whole[..whole.len() * 2 / 3].to_vec();
        assert_eq!(fetch(cut, 3, &set).only()["reason"], "corrupt");
        let mut flipped = whole.to_vec();
        for byte in &mut flipped[spared..] {
            *byte ^= 0x5a;
        }
        let report = fetch(flipped, 3, &set);
        assert_eq!(report.only()["reason"], "corrupt", "{}", report.only());
    }
}

fn pdf() -> Vec<u8> {
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n\
      xref\n0 3\n0000000000 65535 f \n0000000009 00000 n \n0000000052 00000 n \n\
      trailer<</Size 3/Root 1 0 R>>\nstartxref\n101\n%%EOF\n"
        .to_vec()
}

#[test]
fn documents_are_a_kind_of_their_own() {
    let (sandbox, site) = (
        Sandbox::new(),
        Site::start(|asked: &Asked| match asked.path.as_str() {
            "/paper" => Answer::ok(pdf()),
            "/picture" => Answer::ok(png(1)),
            _ => Answer::ok("<!doctype html>"),
        }),
    );
    let list = site.list(["/paper", "/picture", "/page"]);
    let report = sandbox.fetch_list(list, 3, &["--kind", "document"]);
    let paper = report.of(&site.url("/paper"));
    assert_eq!(
        (&paper["outcome"], &paper["format"]),
        (&"stored".into(), &"pdf".into())
    );
    assert_eq!(paper["media_type"], "application/pdf");
    assert!(paper["path"].as_str().unwrap().ends_with(".pdf"));
    assert_eq!(report.of(&site.url("/picture"))["reason"], "wrong-kind");
    assert_eq!(report.of(&site.url("/page"))["reason"], "wrong-kind");
    // And no pictures.
    let report = Sandbox::new().fetch_list(site.list(["/paper"]), 3, &[]);
    assert_eq!(report.only()["reason"], "wrong-kind");
}

#[test]
fn any_takes_everything_that_is_whole() {
    let (sandbox, site) = (
        Sandbox::new(),
        Site::start(|asked: &Asked| match asked.path.as_str() {
            "/paper" => Answer::ok(pdf()),
            "/picture" => Answer::ok(png(1)),
            "/text" => Answer::ok("plain words").header("Content-Type", "text/plain"),
            "/bytes" => Answer::ok([0_u8, 1, 2, 3, 0xff, 0xfe]),
            _ => Answer::ok("<!doctype html><p>").header("Content-Type", "text/html"),
        }),
    );
    let list = site.list(["/paper", "/picture", "/text", "/bytes", "/page"]);
    let report = sandbox.fetch_list(list, 0, &["--kind", "any"]);
    assert_eq!(report.count("stored"), 5);
    for (path, ending) in [("/paper", ".pdf"), ("/picture", ".png")] {
        let path = report.of(&site.url(path))["path"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(path.ends_with(ending), "{path}");
    }
}

#[test]
fn a_kind_that_nobody_knows_ends_with_2_and_names_those_there_are() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    sandbox
        .fetch(&["list.txt", "--kind", "music"])
        .expect(2)
        .says(&["music", "image", "document", "any"]);
}
