//! Names of files: where they come from, what is made of hostile ones, and that nothing is ever written
//! outside the store or over what was there.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use support::pictures::{every_format, jpeg, png};
use support::site::Gate;
use support::{Answer, Asked, Run, Sandbox, Site, sha256};

/// `Content-Disposition` as bytes, and the name that the file gets; `None`: a random one.
const HEADERS: &[(&[u8], Option<&str>)] = &[
    (b"attachment; filename=\"cat.png\"", Some("cat.png")),
    (b"attachment; filename=cat.png", Some("cat.png")),
    (b"ATTACHMENT;FILENAME = \"cat.png\"", Some("cat.png")),
    (b"inline; filename=\"cat.png\"; size=12", Some("cat.png")),
    (
        b"attachment; filename=\"a \\\"b\\\" c.png\"",
        Some("a _b_ c.png"),
    ),
    (
        b"attachment; filename=\"old.png\"; filename*=UTF-8''caf%C3%A9.png",
        Some("caf\u{e9}.png"),
    ),
    (
        b"attachment; filename*=UTF-8'en'%e2%82%ac%20rates.png; filename=x.png",
        Some("\u{20ac} rates.png"),
    ),
    (
        b"attachment; filename*=iso-8859-1''caf%E9.png",
        Some("caf\u{e9}.png"),
    ),
    (
        b"attachment; filename*=UTF-8''%; filename=\"plain.png\"",
        Some("plain.png"),
    ),
    (
        b"attachment; filename=\"caf\xc3\xa9.png\"",
        Some("caf\u{e9}.png"),
    ),
    (
        b"attachment; filename=\"caf\xe9.png\"",
        Some("caf\u{e9}.png"),
    ),
    (
        b"attachment; filename=\"cafe\xcc\x81.png\"",
        Some("caf\u{e9}.png"),
    ),
    (
        b"attachment; filename=\"../../etc/passwd\"",
        Some("passwd.png"),
    ),
    (
        b"attachment; filename=\"C:\\\\Temp\\\\cat.png\"",
        Some("cat.png"),
    ),
    (b"attachment; filename=\"/etc/cat.png\"", Some("cat.png")),
    (
        b"attachment; filename*=UTF-8''..%2F..%2Fcat.png",
        Some("cat.png"),
    ),
    (b"attachment; filename=\"cat.jpg\"", Some("cat.png")),
    (b"attachment; filename=\"cat\"", Some("cat.png")),
    (b"attachment; filename=\"cat.v2\"", Some("cat.v2.png")),
    (b"attachment", None),
    (b"attachment; filename=\"\"", None),
    (b"attachment; filename=\"..\"", None),
    (b"attachment; filename=\"../\"", None),
    (b"", None),
];

#[test]
fn the_header_names_the_file() {
    for (header, name) in HEADERS {
        let header = header.to_vec();
        let shown = String::from_utf8_lossy(&header).into_owned();
        let sandbox = Sandbox::new();
        let site = Site::start(move |_| Answer::ok(png(1)).header("Content-Disposition", &header));
        let report = sandbox.fetch_list(site.list(["/from-url.png"]), 0, &[]);
        let path = report.only()["path"].as_str().unwrap();
        match name {
            Some(name) => {
                assert_eq!(path, *name, "{shown}");
                assert_eq!(report.only()["name_from"], "header", "{shown}");
            }
            None => {
                assert_eq!(report.only()["name_from"], "random", "{shown}: {path}");
                assert!(path.ends_with(".png") && path.len() > 8, "{shown}: {path}");
            }
        }
        assert_eq!(sandbox.names(), [path], "{shown}");
    }
}

fn named(asked: &Asked) -> Answer {
    let n = asked.path.rsplit('/').next().unwrap_or_default().bytes();
    let n = n.fold(7_u32, |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b)));
    Answer::ok(png(n)).header("Content-Disposition", "attachment; filename=\"header.png\"")
}

#[test]
fn the_order_of_places_is_a_setting() {
    let site = Site::start(named);
    let list = format!("{}\n  out=listed.png\n", site.url("/in-url.png?x=1"));
    for (order, name) in [
        (None, "listed.png"),
        (Some("[\"list\", \"header\"]"), "listed.png"),
        (Some("[\"header\", \"list\"]"), "header.png"),
        (Some("[\"url\", \"header\"]"), "in-url.png"),
    ] {
        let sandbox = Sandbox::new();
        let set = format!("naming.order={}", order.unwrap_or_default());
        let args = ["--set", &set];
        sandbox.fetch_list(&list, 0, if order.is_some() { &args } else { &[] });
        assert_eq!(sandbox.names(), [name], "{order:?}");
    }
    let sandbox = Sandbox::new();
    let report = sandbox.fetch_list(&list, 0, &["--set", "naming.order=[\"random\"]"]);
    assert_eq!(report.only()["name_from"], "random");
}

#[test]
fn two_random_names_differ() {
    let (sandbox, site) = (Sandbox::new(), Site::start(|_| Answer::ok(png(1))));
    let paths: Vec<String> = (0..100).map(|n| format!("/{n}")).collect();
    sandbox.fetch_list(site.list(paths), 0, &[]);
    assert_eq!(sandbox.files().len(), 100);
}

/// Names that lead elsewhere, hide, or cannot be created.
const HOSTILE: &[&str] = &[
    "../up.png",
    "../../up.png",
    "..\\up.png",
    "..\\..\\up.png",
    "/tmp/gannet-absolute.png",
    "C:\\gannet.png",
    "c:gannet.png",
    "\\\\server\\share\\gannet.png",
    "....//up.png",
    "..%2fup.png",
    "%2e%2e%2fup.png",
    "..\u{2215}up.png",
    "..\u{ff0f}up.png",
    "a/../../../up.png",
    ".hidden.png",
    ".gannet",
    ".gannet/catalog.db",
    ".gannet/stage/x",
    "..",
    ".",
    "",
    " ",
    "...",
    "~root",
    "con.png",
    "NUL",
    "aux.txt.png",
    "COM1",
    "a\u{0}b.png",
    "a\u{7}b\u{1b}[31m.png",
    "a\u{202e}gnp.exe",
    "a\u{200b}b.png",
    "tab\there.png",
    "a:b*c?d\"e<f>g|h.png",
    "trailing. . .",
    "x.png\u{0}.sh",
    "name.sh",
    "cafe\u{301}.png",
];

/// Every visible file is a safe name below the store, and nothing is elsewhere.
#[track_caller]
fn assert_contained(sandbox: &Sandbox, allowed: &[&str], what: &str) {
    for path in sandbox.everything() {
        let path = path.strip_prefix(sandbox.path("")).unwrap();
        let inside = path.starts_with("out");
        let listed = allowed
            .iter()
            .any(|name| path == std::path::Path::new(name));
        assert!(inside || listed, "{what}: {} is outside", path.display());
    }
    assert!(!std::path::Path::new("/tmp/gannet-absolute.png").exists());
    for name in sandbox.names() {
        for part in name.split('/') {
            let why = format!("{what}: {name:?}");
            assert!(!part.is_empty() && !part.starts_with('.'), "{why}");
            assert!(!part.ends_with(['.', ' ']), "{why}");
            assert!(part.len() <= 255, "{why}");
            let is_reserved = |c: char| c.is_control() || "\\:*?\"<>|".contains(c);
            assert!(!part.contains(is_reserved), "{why}");
        }
        let last = name.rsplit('/').next().unwrap();
        let is_invisible = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}'..='\u{200f}');
        assert!(!last.contains(is_invisible), "{what}: {name:?}");
        let stem = last.split('.').next().unwrap().to_ascii_uppercase();
        assert!(
            !["CON", "NUL", "AUX", "PRN", "COM1"].contains(&&*stem),
            "{what}: {name:?}"
        );
        assert!(last.ends_with(".png"), "{what}: {name:?} is a PNG");
    }
}

const OWN: &[&str] = &["list.txt", "list.csv", "list.jsonl", "report.json"];

#[test]
fn no_name_of_a_list_leaves_the_store() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let mut list = String::new();
    for (n, name) in HOSTILE.iter().enumerate() {
        let row = serde_json::json!({ "url": site.url(&format!("/{n}")), "name": name });
        list += &format!("{row}\n");
    }
    sandbox.write("list.jsonl", &list);
    let report = sandbox.fetch_report(0, &["list.jsonl"]);
    assert_eq!(report.count("stored") as usize, HOSTILE.len());
    assert_eq!(sandbox.files().len(), HOSTILE.len());
    assert_contained(&sandbox, OWN, "list");

    let sandbox = Sandbox::new();
    let mut list = String::new();
    for (n, name) in HOSTILE.iter().enumerate() {
        list += &format!("{}\n  out={name}\n", site.url(&format!("/{n}")));
    }
    let report = sandbox.fetch_list(list, 0, &[]);
    assert_eq!(report.count("stored") as usize, HOSTILE.len());
    assert_contained(&sandbox, OWN, "out=");
}

#[test]
fn no_header_leaves_the_store() {
    for form in 0..3 {
        let site = Site::start(move |asked| {
            let n: usize = asked.path[1..].parse().unwrap();
            let name = HOSTILE[n];
            let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            // What cannot stand in a header at all would only break the answer.
            let raw = name.replace(|c: char| c.is_control() && c != '\t', "");
            let header = match form {
                0 => format!("attachment; filename=\"{raw}\""),
                1 => format!("attachment; filename={raw}"),
                _ => format!("attachment; filename*=UTF-8''{encoded}"),
            };
            named(asked);
            Answer::ok(png(n as u32)).header("Content-Disposition", header)
        });
        let sandbox = Sandbox::new();
        let paths: Vec<String> = (0..HOSTILE.len()).map(|n| format!("/{n}")).collect();
        let report = sandbox.fetch_list(site.list(paths), 0, &[]);
        assert_eq!(report.count("stored") as usize, HOSTILE.len());
        assert_contained(&sandbox, OWN, "header");
    }
}

#[test]
fn no_url_leaves_the_store() {
    let (sandbox, site) = (
        Sandbox::new(),
        Site::start(|asked: &Asked| Answer::ok(png(asked.path.len() as u32))),
    );
    let mut list = String::new();
    for name in HOSTILE {
        let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        list += &format!("{}\n", site.url(&format!("/a/{encoded}")));
    }
    let args = [
        "--set",
        "naming.order=[\"url\"]",
        "--set",
        "naming.template={album}/{host}/{date}/{name}",
        "--max-failures",
        "100%",
    ];
    sandbox.fetch_list(list, 0, &args);
    assert!(sandbox.files().len() > HOSTILE.len() / 2);
    assert_contained(&sandbox, OWN, "url");
}

#[test]
fn no_album_leaves_the_store() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let mut rows = String::new();
    let mut options = String::new();
    for (n, album) in HOSTILE.iter().enumerate() {
        let row = serde_json::json!({ "url": site.url(&format!("/{n}")), "album": album });
        rows += &format!("{row}\n");
        options += &format!("{}\n  dir={album}\n", site.url(&format!("/dir/{n}")));
    }
    sandbox.write("list.jsonl", rows);
    sandbox.fetch_report(3, &["list.jsonl"]);
    assert_contained(&sandbox, OWN, "album");
    sandbox.fetch_list(options, 0, &[]);
    assert_contained(&sandbox, OWN, "dir=");
    for album in [
        "..",
        "../x",
        "/tmp/x",
        "a/../../x",
        ".gannet",
        "a/.gannet",
        "a\\..\\..\\x",
    ] {
        let url = site.url("/1");
        let run = sandbox.fetch(&["-u", &url, "--album", album]);
        assert_eq!(run.code(), 2, "{album}: {run}");
        assert_contained(&sandbox, OWN, album);
    }
}

#[test]
fn no_template_leaves_the_store() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let url = site.url("/1");
    for template in [
        "../{name}",
        "/{name}",
        "/tmp/{name}",
        "a/../../{name}",
        "./{name}",
        ".gannet/{name}",
        ".{name}",
        "a//{name}/",
        "a\\..\\{name}",
        "{name}/..",
        "{album}/",
        "",
    ] {
        let set = format!("naming.template={template}");
        let run = sandbox.fetch(&["-u", &url, "--set", &set]);
        assert!(matches!(run.code(), 0 | 1), "{template}: {run}");
        if run.code() == 1 {
            assert!(run.stderr.contains("naming.template"), "{template}: {run}");
        }
        assert_contained(&sandbox, OWN, template);
    }
}

#[test]
fn links_in_the_store_do_not_lead_out_of_it() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    std::fs::create_dir_all(sandbox.path("elsewhere")).unwrap();
    std::fs::create_dir_all(sandbox.store()).unwrap();
    sandbox.write("precious", "mine");
    std::os::unix::fs::symlink("../precious", sandbox.path("out/header.png")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", sandbox.path("out/dangling.png")).unwrap();
    let list = format!(
        "{}\n{}\n  out=dangling.png\n",
        site.url("/1"),
        site.url("/2")
    );
    sandbox.fetch_list(list, 0, &[]);
    std::os::unix::fs::symlink("../elsewhere", sandbox.path("out/album")).unwrap();
    let list = format!(
        "{}\n  dir=album\n{}\n  dir=other\n",
        site.url("/3"),
        site.url("/4")
    );
    let report = sandbox.fetch_list(list, 3, &[]);
    assert_eq!(report.of(&site.url("/3"))["reason"], "store-error");
    assert_eq!(report.of(&site.url("/4"))["outcome"], "stored");
    assert_eq!(sandbox.read("precious"), b"mine");
    let link = |name: &str| std::fs::read_link(sandbox.path("out").join(name)).unwrap();
    assert_eq!(link("header.png"), std::path::Path::new("../precious"));
    assert_eq!(link("dangling.png"), std::path::Path::new("/nonexistent"));
    assert!(support::sandbox::walk(&sandbox.path("elsewhere")).is_empty());
}

#[test]
fn two_urls_that_want_one_name_both_get_a_file_whoever_comes_first() {
    let site = Site::start(named);
    let names = |paths: &[&str]| {
        let sandbox = Sandbox::new();
        let report = sandbox.fetch_list(site.list(paths), 0, &["--concurrency", "1"]);
        assert_eq!(sandbox.files().len(), paths.len());
        let names = report.items().iter().map(|item| {
            let text = |key: &str| item[key].as_str().unwrap().to_owned();
            (text("url"), text("path"))
        });
        names.collect::<BTreeMap<_, _>>()
    };
    let found = names(&["/a", "/b", "/c"]);
    let plain = found.values().filter(|name| *name == "header.png").count();
    assert_eq!(plain, 1, "{found:?}");
    for name in found.values().filter(|name| *name != "header.png") {
        let digits = name
            .strip_prefix("header-")
            .and_then(|rest| rest.strip_suffix(".png"))
            .unwrap_or_else(|| panic!("{name}"));
        assert!(
            digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
            "{name}"
        );
    }
    // A URL's digits depend on the URL alone.
    let reversed = names(&["/c", "/b", "/a"]);
    for (url, name) in &found {
        let other = &reversed[url];
        assert!(name == other || name == "header.png" || other == "header.png");
    }
}

#[test]
fn a_hundred_urls_that_want_one_name_get_a_hundred_files() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let paths: Vec<String> = (0..100).map(|n| format!("/{n}")).collect();
    sandbox.fetch_list(site.list(&paths), 0, &[]);
    assert_eq!(sandbox.files().len(), 100);
    // Also in letters that some file systems take for the same.
    let sandbox = Sandbox::new();
    let list = format!(
        "{}\n  out=Same.png\n{}\n  out=same.png\n{}\n  out=SAME.PNG\n",
        site.url("/1"),
        site.url("/2"),
        site.url("/3")
    );
    sandbox.fetch_list(list, 0, &[]);
    assert_eq!(sandbox.files().len(), 3);
}

#[test]
fn a_file_that_is_not_gannets_is_never_written_over() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    sandbox.write("out/header.png", "mine");
    std::fs::create_dir_all(sandbox.path("out/folder.png")).unwrap();
    let list = format!("{}\n{}\n  out=folder.png\n", site.url("/1"), site.url("/2"));
    let report = sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(report.count("stored"), 2);
    assert_eq!(sandbox.read("out/header.png"), b"mine");
    assert!(sandbox.path("out/folder.png").is_dir());
    assert_eq!(sandbox.files().len(), 3);
    // Nor by a later run that brings its file again.
    let own = report.of(&site.url("/1"))["path"]
        .as_str()
        .unwrap()
        .to_owned();
    std::fs::remove_file(sandbox.path("out").join(&own)).unwrap();
    sandbox.fetch_list(&list, 0, &["--refresh"]);
    assert_eq!(sandbox.read("out/header.png"), b"mine");
    assert!(sandbox.path("out").join(&own).exists());
}

#[test]
fn files_and_folders_that_want_one_name_do_not_end_the_job() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let both = [
        format!(r#"{{"url":"{}","name":"x.png"}}"#, site.url("/1")),
        format!(
            r#"{{"url":"{}","name":"y.png","album":"x.png"}}"#,
            site.url("/2")
        ),
    ];
    // In one batch the folder comes first, and the file gets digits.
    let report = sandbox.fetch_list(both.join("\n"), 0, &["--list-format", "jsonl"]);
    assert_eq!(report.of(&site.url("/2"))["path"], "x.png/y.png");
    assert_ne!(report.of(&site.url("/1"))["path"], "x.png");
    // A file that is there stays, and only what wants a folder of that name fails.
    let sandbox = Sandbox::new();
    sandbox.fetch_list(&both[0], 0, &["--list-format", "jsonl"]);
    let list = format!(r#"{}{}{{"url":"{}"}}"#, both[1], '\n', site.url("/3"));
    let report = sandbox.fetch_list(list, 3, &["--list-format", "jsonl"]);
    assert_eq!(report.of(&site.url("/2"))["reason"], "store-error");
    assert_eq!(report.of(&site.url("/3"))["outcome"], "stored");
    assert_eq!(sandbox.files().len(), 2);
}

#[test]
fn the_extension_agrees_with_the_bytes() {
    for (extension, bytes) in every_format(3) {
        let site = Site::start({
            let bytes = bytes.clone();
            move |asked| {
                Answer::ok(bytes.clone())
                    .header("Content-Type", "image/x-lie")
                    .header(
                        "Content-Disposition",
                        format!("attachment; filename=\"{}\"", &asked.path[1..]),
                    )
            }
        });
        let sandbox = Sandbox::new();
        sandbox.fetch_list(
            site.list(
                [
                    &format!("/right.{extension}"),
                    "/bare",
                    "/wrong.pdf",
                    "/wrong.exe",
                    "/wrong.html",
                ]
                .map(|p| p.to_owned()),
            ),
            0,
            &[],
        );
        for name in sandbox.names() {
            assert!(
                name.ends_with(&format!(".{extension}")),
                "{extension}: {name}"
            );
        }
        assert!(sandbox.names().contains(&format!("right.{extension}")));
    }
    // Other spellings of the right extension stay as they are.
    let sandbox = Sandbox::new();
    let site = Site::start(|asked: &Asked| {
        Answer::ok(jpeg(1)).header(
            "Content-Disposition",
            format!("attachment; filename=\"{}\"", &asked.path[1..]),
        )
    });
    sandbox.fetch_list(site.list(["/a.jpg", "/b.jpeg"]), 0, &[]);
    assert_eq!(sandbox.names(), ["a.jpg", "b.jpeg"]);
}

#[test]
fn long_names_are_cut_between_characters() {
    let site = Site::start(|asked: &Asked| {
        let n: u32 = asked.path[1..].parse().unwrap();
        Answer::ok(png(n))
    });
    let names = [
        "x".repeat(5000),
        "\u{e9}".repeat(400),
        "\u{6c49}".repeat(200),
        "\u{1f600}".repeat(100),
        format!("{}.png", "y".repeat(300)),
        "same".repeat(100) + "1",
        "same".repeat(100) + "2",
    ];
    let mut list = String::new();
    for (n, name) in names.iter().enumerate() {
        let row = serde_json::json!({ "url": site.url(&format!("/{n}")), "name": name });
        list += &format!("{row}\n");
    }
    let sandbox = Sandbox::new();
    sandbox.write("list.jsonl", list);
    sandbox.fetch_report(0, &["list.jsonl"]);
    assert_eq!(sandbox.files().len(), names.len());
    for name in sandbox.names() {
        assert!(
            name.len() <= 255 && name.len() > 200 && name.ends_with(".png"),
            "{name}"
        );
        assert!(!name.contains('\u{fffd}'));
    }
}

#[test]
fn a_template_lays_out_folders() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let list = format!("{}\n  out=a.png\n", site.url("/1"));
    let args = [
        "--album",
        "Trees/Oaks",
        "--set",
        "naming.template={album}/{date}/{host}/{name}",
    ];
    let report = sandbox.fetch_list(list, 0, &args);
    let parts: Vec<&str> = report.only()["path"].as_str().unwrap().split('/').collect();
    let day = report.whole["started"].as_str().unwrap()[..10].to_owned();
    assert_eq!(parts[..2], ["Trees", "Oaks"]);
    // A run over midnight may name the next day.
    assert!(parts[2] == day || *parts[2] == report.whole["finished"].as_str().unwrap()[..10]);
    assert_eq!(parts[3..], ["127.0.0.1", "a.png"]);
    assert!(sandbox.path("out").join(parts.join("/")).exists());
}

#[test]
fn a_known_url_keeps_its_name_for_ever() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let version = std::sync::Arc::new(AtomicU32::new(0));
    let site = Site::start({
        let version = version.clone();
        move |_| {
            let version = version.load(Ordering::SeqCst);
            Answer::ok(png(version)).header(
                "Content-Disposition",
                format!("attachment; filename=\"v{version}.png\""),
            )
        }
    });
    let sandbox = Sandbox::new();
    let list = site.list(["/1"]);
    sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(sandbox.names(), ["v0.png"]);
    for next in 1..4 {
        version.store(next, Ordering::SeqCst);
        let order = if next == 3 {
            "naming.order=[\"random\"]"
        } else {
            "naming.order=[\"header\"]"
        };
        let report = sandbox.fetch_list(&list, 0, &["--set", order]);
        assert_eq!(report.count("changed"), 1);
        assert_eq!(report.only()["path"], "v0.png");
        let files = sandbox.files();
        assert_eq!(files.len(), 1);
        assert_eq!(files["v0.png"], png(next));
    }
}

#[test]
fn a_known_url_whose_format_changes_does_not_lie_about_it() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let second = std::sync::Arc::new(AtomicBool::new(false));
    let site = Site::start({
        let second = second.clone();
        move |_| {
            let body = if second.load(Ordering::SeqCst) {
                jpeg(1)
            } else {
                png(1)
            };
            Answer::ok(body).header("Content-Disposition", "attachment; filename=\"a.png\"")
        }
    });
    let sandbox = Sandbox::new();
    let list = site.list(["/1"]);
    sandbox.fetch_list(&list, 0, &[]);
    second.store(true, Ordering::SeqCst);
    let report = sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(report.count("changed"), 1);
    // "Keeps its name for ever" and "the extension agrees with the bytes" cannot both hold: the name stays,
    // and the record tells the format.
    assert_eq!(report.only()["format"], "jpeg");
    assert_eq!(sandbox.files().len(), 1);
}

/// `rm *` in a folder must not find an option there.
#[test]
fn a_leading_dash_is_not_kept() {
    let named = |asked: &Asked| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        let answer = Answer::ok(png(name.len() as u32));
        match asked.path.starts_with("/header") {
            true => answer.header(
                "Content-Disposition",
                format!("attachment; filename=\"{name}\""),
            ),
            false => answer,
        }
    };
    let site = Site::start(named);
    let hostile = ["-rf.png", "--output=x.png", "--a.png", "-.-b.png", "-"];
    let sandbox = Sandbox::new();
    let mut list = String::new();
    for (n, name) in hostile.iter().enumerate() {
        list += &format!(
            "{}\n  out={name}\n  dir=-d{n}/--e\n",
            site.url(&format!("/list{n}"))
        );
    }
    sandbox.fetch_list(&list, 0, &[]);
    for from in ["header", "url"] {
        let list = site.list(hostile.map(|name| format!("/{from}/{name}")));
        sandbox.fetch_list(&list, 0, &["--name-by", from, "--album", from]);
    }
    let csv = format!(
        "url,folder\n{},-rf\n{},--x\n",
        site.url("/1"),
        site.url("/2")
    );
    sandbox.write("list.csv", csv);
    let template = "naming.template={meta.folder}/{meta.folder}{name}";
    sandbox.fetch(&["list.csv", "--set", template]).expect(0);
    let names = sandbox.names();
    assert_eq!(names.len(), 3 * hostile.len() + 2, "{names:?}");
    for name in &names {
        assert!(!name.split('/').any(|part| part.starts_with('-')), "{name}");
    }
    for name in [
        "d0/e/rf.png",
        "d1/e/output=x.png",
        "header/rf.png",
        "url/rf.png",
        "url/b.png",
    ] {
        assert!(names.iter().any(|other| other == name), "{name}: {names:?}");
    }
    // The album of a flag is exactly that, or an error. Those of lists are mended, as names are.
    sandbox
        .fetch(&["list.txt", "--album=-rf"])
        .expect(2)
        .says(&["--album", "dash"]);
    sandbox.write(
        "album.csv",
        format!("url,album\n{},a/-rf\n", site.url("/3")),
    );
    let report = sandbox.fetch_report(0, &["album.csv"]);
    let path = report.only()["path"].as_str().unwrap().to_owned();
    assert!(path.starts_with("a/rf/"), "{path}");
    // Templates must not begin with a dash either.
    sandbox
        .fetch(&["list.txt", "--set", "naming.template=-{name}"])
        .expect(1)
        .says(&["naming.template", "dash"]);
}

#[test]
fn a_flag_says_where_names_come_from() {
    let site = Site::start(named);
    let list = format!("{}\n  out=listed.png\n", site.url("/in-url.png?x=1"));
    for (flags, name) in [
        (&["--name-by", "url"][..], "in-url.png"),
        (&["--name-by", "header"], "header.png"),
        (&["--name-by=list"], "listed.png"),
        (&["--name-by", "header,list"], "header.png"),
        (&["--name-by", "url", "--name-by", "list"], "in-url.png"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fetch_list(&list, 0, flags);
        assert_eq!(sandbox.names(), [name], "{flags:?}");
    }
    let sandbox = Sandbox::new();
    let report = sandbox.fetch_list(&list, 0, &["--name-by", "random"]);
    assert_eq!(report.only()["name_from"], "random");
    sandbox
        .fetch(&["list.txt", "--name-by", "chance"])
        .expect(2)
        .says(&["--name-by", "random"]);
}

#[test]
fn a_template_takes_what_the_list_says() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let csv = format!(
        "url,name,group,breed,path\n{},a.png,dogs,Beagle,../../up\n{},b.png,,,..\n",
        site.url("/1"),
        site.url("/2")
    );
    sandbox.write("list.csv", csv);
    let template = "naming.template={group}/{meta.breed}/{meta.path}/{line:4}-{name}";
    let report = sandbox.fetch_report(0, &["list.csv", "--set", template]);
    let paths: Vec<_> = report
        .by_line()
        .iter()
        .map(|item| item["path"].clone())
        .collect();
    assert_eq!(paths, ["dogs/Beagle/_.._up/0002-a.png", "0003-b.png"]);
    let sandbox = Sandbox::new();
    let list = format!("{}\n  out=a.png\n", site.url("/1"));
    let set = "naming.template={sha256:2}/{sha256:4}/{name}";
    let report = sandbox.fetch_list(&list, 0, &["--set", set]);
    let digest = report.only()["sha256"].as_str().unwrap().to_owned();
    let path = format!("{}/{}/a.png", &digest[..2], &digest[..4]);
    assert_eq!(report.only()["path"], path);
    assert_eq!(sha256(&sandbox.files()[&path]), digest);
    // Without a name too, and then two URLs of the same bytes want one path.
    let (sandbox, same) = (Sandbox::new(), Site::start(|_| Answer::ok(png(1))));
    let digest = sha256(&png(1));
    let set = "naming.template={sha256:2}/{sha256}";
    let list = same.list(["/1", "/2", "/3"]);
    let args = ["--set", set];
    let report = sandbox.fetch_list(&list, 0, &args);
    assert_eq!(report.count("stored"), 3);
    let names = sandbox.names();
    let first = format!("{}/{digest}", &digest[..2]);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.starts_with(&first) && name.ends_with(".png")),
        "{names:?}"
    );
    assert!(names.contains(&format!("{first}.png")), "{names:?}");
    let again = sandbox.fetch_list(&list, 0, &args);
    assert_eq!((again.count("stored"), sandbox.names()), (0, names));
    for (template, why) in [
        ("{sha256:65}/{name}", "1 to 64"),
        ("{album}/{sha256:8}", "or else {sha256}"),
        ("{sha265}/{name}", "{sha256}"),
        ("{meta.}/{name}", "{meta.COLUMN}"),
    ] {
        let set = format!("naming.template={template}");
        sandbox
            .fetch(&["list.txt", "--set", &set])
            .expect(1)
            .says(&["naming.template", why]);
    }
}

#[test]
fn who_gets_random_names_is_told_how_to_have_others() {
    let (sandbox, site) = (Sandbox::new(), Site::start(|_| Answer::ok(png(1))));
    sandbox.write("list.txt", site.list(["/a.png", "/b.png", "/c.png"]));
    let fetch = |folder: &str, more: &[&str]| {
        let args = [
            "fetch",
            "list.txt",
            "--allow-private",
            "--proxy",
            "direct",
            "-o",
            folder,
        ];
        sandbox
            .run(args.iter().chain(more))
            .expect(0)
            .out()
            .to_owned()
    };
    let said = fetch("1", &[]);
    assert!(
        said.contains("3 of 3 are random") && said.contains("--name-by url"),
        "{said}"
    );
    // No hint if the names are not random, if random ones were asked for, or if no file is new.
    for said in [
        fetch("2", &["--name-by", "url"]),
        fetch("3", &["--name-by", "random"]),
        fetch("1", &[]),
    ] {
        assert!(!said.contains("random"), "{said}");
    }
}

const YEAR_2000: &str = "Sat, 01 Jan 2000 00:00:00 GMT";

#[test]
fn last_modified_is_reported_and_by_a_setting_the_time_of_the_file() {
    let site = Site::start(|asked| {
        let answer = Answer::ok(match asked.path.as_str() {
            // Too large for memory, so it is staged while it arrives.
            "/spooled" => [png(2), vec![0; 20 << 20]].concat(),
            path => png(path.len() as u32),
        });
        let answer = match asked.path.as_str() {
            "/none" => return answer,
            "/future" => answer.header("Last-Modified", "Tue, 01 Jan 2222 00:00:00 GMT"),
            "/broken" => answer.header("Last-Modified", "yesterday"),
            // RFC 850's form, one of three.
            "/old" => answer.header("Last-Modified", "Saturday, 01-Jan-00 00:00:00 GMT"),
            // The form of mail dates, which some programs write.
            "/mail" => answer.header("Last-Modified", "Sat, 1 Jan 2000 01:00:00 +0100"),
            _ => answer.header("Last-Modified", YEAR_2000),
        };
        answer.unless_known(asked)
    });
    let paths = [
        "/dated.png",
        "/old",
        "/mail",
        "/spooled",
        "/none",
        "/future",
        "/broken",
    ];
    let list = site.list(paths);
    let stamp = 946_684_800;
    let sandbox = Sandbox::new();
    let mtimes = |sandbox: &Sandbox| -> BTreeMap<String, i64> {
        let mtime = |name: String| {
            let path = sandbox.store().join(&name);
            (name, std::fs::metadata(path).unwrap().mtime())
        };
        sandbox.names().into_iter().map(mtime).collect()
    };
    let before = std::time::SystemTime::now();
    let before = before
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let by_url = ["--name-by", "url", "--kind", "any"];
    let report = sandbox.fetch_list(&list, 0, &by_url);
    assert_eq!(
        report.of(&site.url("/dated.png"))["last_modified"],
        "2000-01-01T00:00:00Z"
    );
    assert_eq!(
        report.of(&site.url("/future"))["last_modified"],
        "2222-01-01T00:00:00Z"
    );
    assert!(
        report
            .of(&site.url("/broken"))
            .get("last_modified")
            .is_none()
    );
    assert!(report.of(&site.url("/none")).get("last_modified").is_none());
    assert!(mtimes(&sandbox).values().all(|time| *time >= before - 1));
    // A 304 repeats it.
    let again = sandbox.fetch_list(&list, 0, &by_url);
    assert_eq!(again.of(&site.url("/dated.png"))["outcome"], "unchanged");
    assert_eq!(
        again.of(&site.url("/dated.png"))["last_modified"],
        "2000-01-01T00:00:00Z"
    );

    let sandbox = Sandbox::new();
    let set = ["--set", "storage.mtime=last-modified"];
    sandbox.fetch_list(&list, 0, &[&by_url[..], &set].concat());
    let times = mtimes(&sandbox);
    for (name, time) in &times {
        let stem = name.split('.').next().unwrap();
        let is_told = ["dated", "old", "mail", "spooled"].contains(&stem);
        match is_told {
            true => assert_eq!(*time, stamp, "{name}"),
            false => assert!(*time >= before - 1, "{name}"),
        }
    }
    // The record has that time, so no file looks altered.
    sandbox.run(["verify", "-o", "out"]).expect(0);
    let again = sandbox.fetch_list(&list, 0, &[&by_url[..], &set].concat());
    assert_eq!(again.count("unchanged"), paths.len() as u64);
    assert_eq!(mtimes(&sandbox), times);
}

fn rename(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.run([&["rename", "-o", "out"], args].concat())
}

#[test]
fn rename_gives_the_names_that_the_settings_give_now() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let list = site.list(["/x/cat.png", "/y/cat.png", "/dog.png"]);
    sandbox.fetch_list(&list, 0, &["--album", "pets", "--name-by", "random"]);
    let before = sandbox.files();
    let args = ["pets", "--name-by", "url"];
    let said = rename(&sandbox, &[&args[..], &["--dry-run"]].concat()).expect(0);
    assert!(said.out().contains(" → pets/dog.png\n"), "{said}");
    assert!(
        said.out().ends_with("would rename 3 of 3 files\n"),
        "{said}"
    );
    assert_eq!(sandbox.files(), before);

    let said = rename(&sandbox, &args).expect(0);
    assert!(said.out().ends_with("renamed 3 of 3 files\n"), "{said}");
    let names = sandbox.names();
    assert!(
        names.contains(&"pets/cat.png".to_owned()) && names.contains(&"pets/dog.png".to_owned()),
        "{names:?}"
    );
    let other = names
        .iter()
        .find(|name| name.starts_with("pets/cat-"))
        .unwrap();
    assert_eq!(other.len(), "pets/cat-12345678.png".len());
    // A second run has nothing to do, and the catalog has the new names.
    let said = rename(&sandbox, &[&args[..], &["--json"]].concat()).expect(0);
    assert_eq!(
        said.json(),
        serde_json::json!({"files": 3, "renamed": 0, "left": 0})
    );
    sandbox.run(["verify", "-o", "out"]).expect(0);
    site.forget();
    let report = sandbox.fetch_list(&list, 0, &["--album", "pets"]);
    assert_eq!(report.count("unchanged"), 3);
    assert_eq!(report.of(&site.url("/dog.png"))["path"], "pets/dog.png");
    assert_eq!(report.of(&site.url("/dog.png"))["name_from"], "url");
    assert_eq!(sandbox.names(), names);

    // Into other folders, and back.
    let set = [
        "pets",
        "--name-by",
        "url",
        "--set",
        "naming.template={album}/{format}/{sha256:2}/{name}",
    ];
    let said = rename(&sandbox, &set).expect(0);
    assert!(said.out().ends_with("renamed 3 of 3 files\n"), "{said}");
    assert!(
        sandbox
            .names()
            .iter()
            .all(|name| name.starts_with("pets/png/")),
        "{said}"
    );
    rename(&sandbox, &args).expect(0);
    assert_eq!(sandbox.names().len(), 3);
    assert!(!sandbox.store().join("pets/png").exists());
    sandbox.run(["verify", "-o", "out"]).expect(0);
}

#[test]
fn rename_knows_what_the_header_and_the_list_said() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let csv = format!(
        "url,group,breed\n{},dogs,Beagle\n{},dogs,\n",
        site.url("/a.png"),
        site.url("/b.png")
    );
    sandbox.write("list.csv", csv);
    sandbox
        .fetch(&["list.csv", "--name-by", "random"])
        .expect(0);
    rename(&sandbox, &[".", "--name-by", "header"]).expect(0);
    let names = sandbox.names();
    assert!(names.contains(&"header.png".to_owned()), "{names:?}");
    assert!(
        names.iter().any(|name| name.starts_with("header-")),
        "{names:?}"
    );
    let template = "naming.template={group}/{meta.breed}/{line:3}/{name}";
    rename(&sandbox, &[".", "--name-by", "url", "--set", template]).expect(0);
    assert_eq!(sandbox.names(), ["dogs/003/b.png", "dogs/Beagle/002/a.png"]);
    sandbox.run(["verify", "-o", "out"]).expect(0);
}

#[test]
fn rename_says_what_stands_in_its_way() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if asked.path == "/wait" {
                gate.pass();
            }
            named(asked)
        }
    });
    rename(&sandbox, &["pets"])
        .expect(1)
        .says(&["there is no catalog"]);
    sandbox.fetch_list(
        site.list(["/a.png", "/b.png", "/c.png"]),
        0,
        &["--name-by", "random"],
    );
    rename(&sandbox, &[]).expect(2);
    rename(&sandbox, &["pets"])
        .expect(1)
        .says(&["there is no album `pets`", "gannet albums"]);
    rename(&sandbox, &[".", "../up"]).expect(1).says(&["../up"]);

    // A file that gannet did not make is not overwritten, and an altered one is not moved.
    sandbox.write("out/a.png", "mine");
    let report = sandbox.fetch_list(site.list(["/c.png"]), 0, &[]);
    let c = report.only()["path"].as_str().unwrap().to_owned();
    std::fs::write(sandbox.store().join(&c), "altered").unwrap();
    let said = rename(&sandbox, &[".", "--name-by", "url"]).expect(3);
    assert!(
        said.out().contains(&format!("{c} stays: ")) && said.out().contains("altered"),
        "{said}"
    );
    assert!(
        said.out()
            .ends_with("renamed 2 of 3 files; 1 could not be renamed\n"),
        "{said}"
    );
    let files = sandbox.files();
    assert_eq!(files["a.png"], b"mine");
    assert_eq!(files[&c], b"altered");
    assert!(files.contains_key("b.png") && files.keys().any(|name| name.starts_with("a-")));

    // Only one process at a time.
    sandbox.write("list.txt", site.list(["/wait"]));
    let running = sandbox.start(sandbox.fetch_args(&["list.txt"]));
    site.wait_for(5);
    rename(&sandbox, &["."])
        .expect(4)
        .says(&["another run holds"]);
    gate.open();
    running.end().expect(0);
}

#[test]
fn rename_leaves_a_file_whose_new_folder_cannot_be_looked_into() {
    let (sandbox, site) = (Sandbox::new(), Site::start(named));
    let csv = format!(
        "url,group\n{},dogs\n{},cats\n",
        site.url("/a.png"),
        site.url("/b.png")
    );
    sandbox.write("list.csv", csv);
    sandbox.fetch(&["list.csv", "--name-by", "url"]).expect(0);
    sandbox.write("out/dogs", "a file where a folder is wanted");
    let template = "naming.template={group}/{name}";
    let args = [".", "--name-by", "url", "--set", template];
    for (dry_run, verb) in [(&["--dry-run"][..], "would rename"), (&[], "renamed")] {
        let said = rename(&sandbox, &[&args[..], dry_run].concat()).expect(3);
        assert!(said.out().contains("a.png stays: cannot look up"), "{said}");
        let totals = format!("{verb} 1 of 2 files; 1 could not be renamed\n");
        assert!(said.out().ends_with(&totals), "{said}");
    }
    assert_eq!(sandbox.names(), ["a.png", "cats/b.png", "dogs"]);
}

/// A folder in which each file has the name that the other one is to get.
fn swapped() -> (Sandbox, Site, String) {
    let site = Site::start(|asked| {
        let name = match asked.path.as_str() {
            "/a.png" => "b.png",
            "/b.png" => "c.png",
            _ => "a.png",
        };
        let body = png(u32::from(asked.path.as_bytes()[1]));
        Answer::ok(body).header(
            "Content-Disposition",
            format!("attachment; filename={name}"),
        )
    });
    let list = site.list(["/a.png", "/b.png", "/c.png"]);
    let sandbox = Sandbox::new();
    sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(sandbox.files()["b.png"], png(u32::from(b'a')));
    (sandbox, site, list)
}

#[test]
fn files_that_want_each_others_names_change_places() {
    let (sandbox, _site, list) = swapped();
    rename(&sandbox, &[".", "--name-by", "url"]).expect(0);
    let right = |name: &str| png(u32::from(name.as_bytes()[0]));
    for (name, bytes) in sandbox.files() {
        assert!(bytes == right(&name), "{name}");
    }
    sandbox.run(["verify", "-o", "out"]).expect(0);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 3);
}

#[test]
fn a_crash_while_files_are_renamed_leaves_each_under_one_of_its_names() {
    for point in [
        "store.withdraw.one:1",
        "store.withdraw.one:2",
        "errand.move.withdrawn:1",
        "catalog.before-commit:1",
        "errand.move.recorded:1",
        "store.publish.one:1",
        "store.publish.one:3",
    ] {
        let (sandbox, _site, list) = swapped();
        let fault = format!("{point}=kill");
        let args = ["rename", "-o", "out", ".", "--name-by", "url"];
        let run = sandbox.run_with(&[("GANNET_FAULT", &fault)], &args);
        assert_ne!(run.code(), 0, "{point}: {run}");
        // The next start puts everything in its place.
        let report = sandbox.fetch_list(&list, 0, &[]);
        assert_eq!(report.count("unchanged"), 3, "{point}");
        assert!(sandbox.staged().is_empty(), "{point}");
        sandbox.run(["verify", "-o", "out"]).expect(0);
        rename(&sandbox, &[".", "--name-by", "url"]).expect(0);
        for (name, bytes) in sandbox.files() {
            assert!(
                bytes == png(u32::from(name.as_bytes()[0])),
                "{point}: {name}"
            );
        }
        sandbox.run(["verify", "-o", "out"]).expect(0);
    }
}
