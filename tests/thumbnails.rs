//! Smaller pictures of files over HTTP, from the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::GenericImageView as _;
use support::http::{Got, ask, connect};
use support::pictures::{every_format, jpeg, png_of, svg};
use support::{Answer, Daemon, Sandbox, Site, sha256};

/// A daemon with the files of a list in album `a`, each called after its path.
struct Shop<'a> {
    daemon: Daemon<'a>,
    _site: Site,
}

impl<'a> Shop<'a> {
    fn open(sandbox: &'a Sandbox, files: Vec<(&'static str, Vec<u8>)>, rest: &str) -> Self {
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let site = Site::start({
            let files = files.clone();
            move |asked| {
                let name = asked.path.trim_start_matches('/');
                let found = files.iter().find(|(known, _)| *known == name);
                Answer::ok(found.unwrap().1.clone())
            }
        });
        let line = |name: &&str| format!("{},{name}\n", site.url(&format!("/{name}")));
        let lines: String = names.iter().map(line).collect();
        sandbox.write("a.csv", format!("url,name\n{lines}"));
        settings(sandbox, rest);
        let daemon = Daemon::start(sandbox);
        daemon.run("a");
        Self {
            daemon,
            _site: site,
        }
    }

    fn get(&self, target: &str) -> Got {
        self.daemon.get(&format!("/files/a/{target}"))
    }
}

fn settings(sandbox: &Sandbox, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n[job]\nkind = \"any\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\n\
         [api]\nlisten = \"127.0.0.1:0\"\n{rest}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.csv\"\nalbum = \"a\"\n"
    );
    sandbox.write("gannet.toml", text);
}

/// Every file below a folder, with its length.
fn files_below(folder: &Path) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push((
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().len(),
            )),
        }
    }
    files
}

fn size(bytes: &[u8]) -> (u32, u32) {
    image::load_from_memory(bytes).unwrap().dimensions()
}

#[test]
fn each_format_comes_smaller_or_with_words_why_not() {
    let sandbox = Sandbox::new();
    let mut files = every_format(1);
    files.push(("txt", b"no picture".to_vec()));
    files.push(("big.png", png_of(1, 300)));
    files.push(("cut.jpeg", jpeg(1)[..300].to_vec()));
    let shop = Shop::open(&sandbox, files, "");
    let images = shop.daemon.get("/api/v1/albums/a/images").expect(200);
    let images = images.json()["items"].as_array().unwrap().clone();
    assert_eq!(images.len(), 12);
    for image in images {
        let href = image["href"].as_str().unwrap();
        let format = image["format"].as_str().unwrap();
        let got = shop.daemon.get(&format!("{href}?w=2&h=2&fit=fill"));
        match format {
            "rgb" | "txt" => {
                let detail = got.problem(422);
                assert!(detail.contains("cannot be resized"), "{detail}");
            }
            "jpeg" if image["bytes"] == 300 => {
                let detail = got.problem(422);
                assert!(detail.contains("the JPEG image"), "{detail}");
            }
            _ => {
                let got = got.expect(200);
                let expected = match format {
                    "jpeg" | "webp" => format!("image/{format}"),
                    _ => "image/png".to_owned(),
                };
                assert_eq!(got.header("content-type"), Some(&*expected), "{href}");
                assert_eq!(size(&got.body), (2, 2), "{href}");
            }
        }
    }
    for (query, width, height, kind) in [
        ("w=100", 100, 100, "png"),
        ("h=30", 30, 30, "png"),
        ("w=100&h=20", 20, 20, "png"),
        ("w=100&h=20&fit=cover", 100, 20, "png"),
        ("w=100&h=20&fit=fill&format=webp", 100, 20, "webp"),
        ("w=1000", 300, 300, "png"),
        ("w=1000&enlarge", 1000, 1000, "png"),
        ("w=1000&enlarge=false", 300, 300, "png"),
        ("w=50&format=jpeg&quality=30", 50, 50, "jpeg"),
    ] {
        let got = shop.get(&format!("big.png?{query}")).expect(200);
        assert_eq!(size(&got.body), (width, height), "{query}");
        let expected = format!("image/{kind}");
        assert_eq!(got.header("content-type"), Some(&*expected), "{query}");
    }
    let _ = shop.daemon.stop();
}

#[test]
fn what_cannot_be_meant_is_told_by_its_name() {
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, vec![("n.png", png_of(1, 9))], "");
    for (query, name) in [
        ("w=0", "w"),
        ("w=4097", "w"),
        ("w=", "w"),
        ("w=%2B1", "w"),
        ("w=-1", "w"),
        ("w=1.5", "w"),
        ("w=1&w=2", "w"),
        ("h=99999999999999999999", "h"),
        ("w=1&h=x", "h"),
        ("w=1&fit=crop", "fit"),
        ("w=1&format=svg", "format"),
        ("w=1&quality=0", "quality"),
        ("w=1&quality=101", "quality"),
        ("w=1&enlarge=no", "enlarge"),
        ("format=png", "format"),
        ("quality=1&download", "quality"),
        ("width=1", "width"),
    ] {
        let detail = shop.get(&format!("n.png?{query}")).problem(400);
        assert!(detail.contains(&format!("`{name}`")), "{query}: {detail}");
    }
    shop.get("none.png?w=1").problem(404);
    let _ = shop.daemon.stop();
}

#[test]
fn a_smaller_picture_has_conditions_parts_and_a_name_of_its_own() {
    let sandbox = Sandbox::new();
    let bytes = png_of(1, 90);
    let shop = Shop::open(&sandbox, vec![("n.png", bytes.clone())], "");
    let api = shop.daemon.api();
    let target = "/files/a/n.png?w=30&format=jpeg&download";
    let with = |name: &str, value: &str| ask(api, "GET", target, &[(name, value)]);
    // Before anything was made: who knows it is not sent it.
    let etag = format!("\"{}-30x-contain-jpeg-80-v2\"", sha256(&bytes));
    let got = with("If-None-Match", &etag).expect(304);
    assert!(got.body.is_empty());
    assert!(files_below(&sandbox.path("out/.gannet/renditions")).is_empty());

    let head = ask(api, "HEAD", target, &[]).expect(200);
    let whole = ask(api, "GET", target, &[]).expect(200);
    assert!(head.body.is_empty());
    for got in [&head, &whole] {
        let length = whole.body.len().to_string();
        for (name, value) in [
            ("etag", &*etag),
            ("content-type", "image/jpeg"),
            ("content-length", &length),
            ("accept-ranges", "bytes"),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("content-disposition", "attachment; filename=\"n.jpg\""),
        ] {
            assert_eq!(got.header(name), Some(value), "{got}");
        }
    }
    let part = with("Range", "bytes=2-9").expect(206);
    assert_eq!(part.body, whole.body[2..10]);
    with("If-None-Match", &etag).expect(304);
    with("If-None-Match", &format!("\"{}\"", sha256(&bytes))).expect(200);
    with("If-Match", "\"other\"").problem(412);
    with("Range", "bytes=99999-").problem(416);
    // The file itself is as ever.
    assert_eq!(shop.get("n.png").expect(200).body, bytes);
    let _ = shop.daemon.stop();
}

#[test]
fn it_is_made_once_and_outlives_the_process() {
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, vec![("n.png", png_of(1, 200))], "");
    let folder = sandbox.path("out/.gannet/renditions");
    let api = shop.daemon.api();
    let ask_all = || {
        std::thread::scope(|scope| {
            let asks: Vec<_> = (0..50)
                .map(|_| scope.spawn(|| ask(api, "GET", "/files/a/n.png?w=64", &[]).expect(200)))
                .collect();
            let bodies = asks.into_iter().map(|ask| ask.join().unwrap().body);
            bodies.collect::<BTreeSet<_>>()
        })
    };
    let bodies = ask_all();
    assert_eq!(bodies.len(), 1);
    let made = files_below(&folder);
    assert_eq!(made.len(), 1);
    let run = shop.daemon.kill();
    assert!(!run.stderr.contains("ERROR"), "{run}");

    // What was not finished goes at the next start, and what was stays.
    let unfinished = folder.join("unfinished").join("half");
    std::fs::write(&unfinished, "half").unwrap();
    let modified = |folder: &Path| {
        let folders = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let times = files.map(|file| file.unwrap().metadata().unwrap().modified().unwrap());
        times.collect::<Vec<_>>()
    };
    let daemon = Daemon::start(&sandbox);
    assert!(!unfinished.exists());
    let before = modified(&folder);
    let again = daemon.get("/files/a/n.png?w=64").expect(200);
    assert_eq!(bodies.into_iter().collect::<Vec<_>>(), [again.body]);
    assert_eq!((files_below(&folder), modified(&folder)), (made, before));
    let _ = daemon.stop();
}

#[test]
fn nothing_is_made_for_those_who_have_gone() {
    let sandbox = Sandbox::new();
    let files = vec![("n.png", png_of(1, 1500))];
    let shop = Shop::open(&sandbox, files, "[steps]\nworkers = 1");
    let api = shop.daemon.api();
    let asked: Vec<_> = (1..=30)
        .map(|side| {
            let mut stream = connect(api);
            let target = format!("/files/a/n.png?w={side}");
            let request = format!("GET {target} HTTP/1.1\r\nHost: {api}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    drop(asked);
    // Who is still there has to wait for one or two at most.
    shop.get("n.png?w=64").expect(200);
    let made = files_below(&sandbox.path("out/.gannet/renditions"));
    assert!(made.len() < 10, "{}", made.len());
    let _ = shop.daemon.stop();
}

#[test]
fn other_bytes_of_a_file_are_another_picture() {
    let sandbox = Sandbox::new();
    let version = Arc::new(AtomicUsize::new(0));
    let site = Site::start({
        let version = version.clone();
        move |_| {
            let side = [40, 80][version.load(Ordering::SeqCst)];
            Answer::ok(png_of(1, side))
        }
    });
    sandbox.write("a.csv", format!("url,name\n{},n.png\n", site.url("/1")));
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    let first = daemon.get("/files/a/n.png?w=4096").expect(200);
    assert_eq!(size(&first.body), (40, 40));
    version.store(1, Ordering::SeqCst);
    daemon.run("a");
    let second = daemon.get("/files/a/n.png?w=4096").expect(200);
    assert_eq!(size(&second.body), (80, 80));
    assert_ne!(first.header("etag"), second.header("etag"));
    let _ = daemon.stop();
}

#[test]
fn newer_formats_come_smaller_in_their_colours() {
    macro_rules! fixtures {
        ($($name:literal),*) => {
            vec![$(($name, include_bytes!(concat!("fixtures/", $name)).to_vec())),*]
        };
    }
    // Of 48 by 32 pixels, red on the left and blue on the right.
    let files = fixtures![
        "halves.jxl",
        "alpha.jxl",
        "grey.jxl",
        "halves.jp2",
        "halves.j2k",
        "grey.jp2",
        "halves.avif",
        "alpha.avif",
        "ten.avif",
        "grey.avif"
    ];
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, files.clone(), "");
    for (name, _) in files {
        let got = shop.get(&format!("{name}?w=24")).expect(200);
        let image = image::load_from_memory(&got.body).unwrap().into_rgba8();
        assert_eq!(image.dimensions(), (24, 16), "{name}");
        let (left, right) = ([230, 40, 30], [20, 60, 220]);
        for (x, [red, green, blue]) in [(4, left), (19, right)] {
            let grey = (299 * red + 587 * green + 114 * blue) / 1000;
            let expected = match name.starts_with("grey") {
                true => [grey; 3],
                false => [red, green, blue],
            };
            let pixel = image.get_pixel(x, 8).0;
            for (found, expected) in pixel.into_iter().zip(expected) {
                let off = i32::from(found) - expected;
                assert!(off.abs() <= 12, "{name} at {x}: {pixel:?}");
            }
            let opacity = if name.starts_with("alpha") { 128 } else { 255 };
            assert!(pixel[3].abs_diff(opacity) <= 2, "{name}: {pixel:?}");
        }
    }
    let _ = shop.daemon.stop();
}

const XMLNS: &str = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'";

#[test]
fn an_svg_is_drawn_in_any_size() {
    let svg = format!(
        "<svg {XMLNS} width='4mm' height='2mm' viewBox='0 0 4 2'>\
         <rect width='2' height='2' fill='#f80'/><circle cx='3' cy='1' r='1' fill='#00f'/></svg>"
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(svg.as_bytes()).unwrap();
    let files = vec![
        ("s.svg", svg.into_bytes()),
        ("z.svgz", packed.finish().unwrap()),
    ];
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, files, "");
    for name in ["s.svg", "z.svgz"] {
        let got = shop.get(&format!("{name}?w=400")).expect(200);
        assert_eq!(got.header("content-type"), Some("image/png"));
        assert_eq!(got.header("content-encoding"), None);
        let image = image::load_from_memory(&got.body).unwrap().into_rgba8();
        // 15 by 8 pixels, as far as it says.
        assert_eq!(image.dimensions(), (400, 213));
        assert_eq!(image.get_pixel(100, 100).0, [255, 136, 0, 255]);
        assert_eq!(image.get_pixel(300, 100).0, [0, 0, 255, 255]);
        assert_eq!(image.get_pixel(395, 5).0[3], 0, "nothing is drawn there");
        // Sharp: within a pixel of the edge, there is all of one and nothing of the other.
        let edge: Vec<u8> = (196..204).map(|x| image.get_pixel(x, 20).0[3]).collect();
        assert_eq!((edge[0], edge[7]), (255, 0), "{edge:?}");
        let middle = shop.get(&format!("{name}?w=100&h=100&fit=cover&format=webp"));
        let middle = image::load_from_memory(&middle.expect(200).body)
            .unwrap()
            .into_rgba8();
        assert_eq!(middle.dimensions(), (100, 100));
        assert_eq!(middle.get_pixel(25, 50).0, [255, 136, 0, 255]);
        assert_eq!(middle.get_pixel(75, 50).0, [0, 0, 255, 255]);
        let white = shop.get(&format!("{name}?w=100&format=jpeg")).expect(200);
        let white = image::load_from_memory(&white.body).unwrap().into_rgb8();
        assert!(white.get_pixel(98, 1).0.iter().all(|sample| *sample > 240));
    }
    let _ = shop.daemon.stop();
}

/// Files of a few bytes that want hours, all memory, or what is none of their business.
fn hostile(origin: &str) -> Vec<(&'static str, String)> {
    let around = |inside: String| format!("<svg {XMLNS} width='9' height='9'>{inside}</svg>");
    let steps = |step: &dyn Fn(usize) -> String| (1..40).map(step).collect::<String>();
    let entities = steps(&|n| format!("<!ENTITY a{n} '&a{0};&a{0};'>", n - 1));
    let uses = steps(&|n| {
        format!(
            "<g id='u{n}'><use xlink:href='#u{0}'/><use xlink:href='#u{0}'/></g>",
            n - 1
        )
    });
    let masks = steps(&|n| {
        let rect = format!("<rect width='1' height='1' mask='url(#m{})'/>", n + 1);
        format!(
            "<mask id='m{n}' maskContentUnits='objectBoundingBox'>{}</mask>",
            rect.repeat(9)
        )
    });
    let patterns = steps(&|n| {
        format!(
            "<pattern id='p{n}' width='9' height='9' patternUnits='userSpaceOnUse'><rect width='9' height='9' fill='url(#p{})'/></pattern>",
            n % 3 + 1
        )
    });
    vec![
        ("laughs.svg", format!("<!DOCTYPE svg [<!ENTITY a0 'x'>{entities}]><svg {XMLNS}>&a39;</svg>")),
        ("uses.svg", around(format!("<defs><path id='u0'/>{uses}</defs><use xlink:href='#u39'/>"))),
        ("masks.svg", around(format!("{masks}<rect width='9' height='9' mask='url(#m1)'/>"))),
        ("loop.svg", around(format!("{patterns}<rect width='9' height='9' fill='url(#p1)'/>"))),
        ("nested.svg", around("<g opacity='.9'>".repeat(1000) + &"</g>".repeat(1000))),
        ("many.svg", around("<rect width='9' height='9'/>".repeat(1_000_000))),
        ("wide.svg", around("<filter id='f' x='-1e9' y='-1e9' width='2e9' height='2e9'><feGaussianBlur stdDeviation='1e6'/></filter><rect width='9' height='9' filter='url(#f)'/>".to_owned())),
        ("room.svg", around("<pattern id='p' width='1e6' height='1e6' patternUnits='userSpaceOnUse'><rect width='9' height='9'/></pattern><rect width='9' height='9' fill='url(#p)'/>".to_owned())),
        ("huge.svg", format!("<svg {XMLNS} viewBox='-1e30 -1e30 2e30 2e30'><rect width='1e30' height='1e30'/></svg>")),
        ("reach.svg", around(format!("<image width='9' height='9' xlink:href='file:///etc/passwd'/><image width='9' height='9' href='{origin}'/><use href='{origin}#a'/><style>@import url({origin});</style>"))),
    ]
}

#[test]
fn a_hostile_svg_takes_little_time_and_memory_and_nothing_else() {
    let asked = Arc::new(AtomicUsize::new(0));
    let outside = Site::start({
        let asked = asked.clone();
        move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            Answer::ok(png_of(1, 4))
        }
    });
    let files: Vec<_> = hostile(&outside.url("/x.png"))
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect();
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, files.clone(), "");
    for (name, _) in files {
        let got = shop.get(&format!("{name}?w=64&h=64"));
        match name {
            "laughs.svg" | "uses.svg" | "masks.svg" => {
                let detail = got.problem(422);
                assert!(detail.contains("the SVG image"), "{name}: {detail}");
            }
            "reach.svg" => {
                let image = image::load_from_memory(&got.expect(200).body)
                    .unwrap()
                    .into_rgba8();
                assert!(image.pixels().all(|pixel| pixel.0[3] == 0));
            }
            _ => assert!(matches!(got.status, 200 | 422), "{name}: {got}"),
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // And the daemon is well.
    shop.daemon.get("/readyz").expect(200);
    let _ = shop.daemon.stop();
}

#[test]
fn they_take_no_more_room_than_they_may() {
    let sandbox = Sandbox::new();
    let max_bytes = 64 * 1024;
    let rest = format!("[renditions]\nmax_bytes = {max_bytes}");
    let files = vec![("n.png", png_of(1, 64)), ("s.svg", svg(1))];
    let shop = Shop::open(&sandbox, files, &rest);
    let folder = sandbox.path("out/.gannet/renditions");
    for side in 1..=64 {
        shop.get(&format!("n.png?w={side}")).expect(200);
        let files = files_below(&folder);
        // Each takes a block of 4 KiB at least.
        let taken: u64 = files
            .iter()
            .map(|(_, bytes)| bytes.next_multiple_of(4096))
            .sum();
        assert!(taken <= max_bytes, "{taken}");
        let newest = format!("-{side}x-contain-png-v2.png");
        assert!(files.iter().any(|(name, _)| name.ends_with(&newest)));
    }
    let _ = shop.daemon.stop();
}

#[test]
fn no_room_at_all_is_refused() {
    let sandbox = Sandbox::new();
    let rest = "[renditions]\nmax_bytes = 0\n[steps]\ncommands.a.program = \"sh\"";
    settings(&sandbox, rest);
    let run = sandbox.run(["check"]).expect(1);
    run.says(&["steps.commands.a.program", "absolute path"]);
    settings(&sandbox, "[renditions]\nmax_bytes = 0");
    let run = sandbox.run(["check"]).expect(1);
    run.says(&["renditions.max_bytes", "leaves no room"]);
}
