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
            "svg" | "rgb" | "txt" => {
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
    let etag = format!("\"{}-30x-contain-jpeg-80\"", sha256(&bytes));
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
        let newest = format!("-{side}x-contain-png.png");
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
