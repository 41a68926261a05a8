//! Lists of every form and every kind of damage, end to end.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::io::Write as _;

use support::pictures::png;
use support::{Answer, Asked, Report, Run, Sandbox, Site, sha256};

/// A picture that depends on the last number of the path; 404 where there is none.
fn pictures(asked: &Asked) -> Answer {
    let path = asked.path.split('?').next().unwrap();
    match path.rsplit('/').next().unwrap_or_default().parse() {
        Ok(n) => Answer::ok(png(n)),
        Err(_) => Answer::ok(png(path.len() as u32 + 5000)),
    }
}

fn site() -> Site {
    Site::start(pictures)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    bzip2.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

/// Reads a list from `tests/fixtures` and fills in the address of `site`.
fn fixture(name: &str, site: &Site) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let port = site.address.port().to_string();
    let at: Vec<_> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, part)| part == b"PORT")
        .collect();
    let mut list = Vec::new();
    let mut done = 0;
    for (at, _) in at {
        list.extend_from_slice(&bytes[done..at]);
        list.extend_from_slice(port.as_bytes());
        done = at + 4;
    }
    list.extend_from_slice(&bytes[done..]);
    list
}

/// Returns the warnings in a run's summary, and checks that the log has each of them once.
#[track_caller]
fn warnings(run: &Run) -> Vec<String> {
    let summary = run.json();
    let warnings = summary["warnings"].as_array().into_iter().flatten();
    let warnings: Vec<String> = warnings
        .map(|warning| warning.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(run.stderr.matches("WARN").count(), warnings.len(), "{run}");
    for warning in &warnings {
        assert!(run.stderr.contains(warning.as_str()), "{run}");
    }
    warnings
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let mut bytes = if big {
        vec![0xfe, 0xff]
    } else {
        vec![0xff, 0xfe]
    };
    for unit in text.encode_utf16() {
        bytes.extend(if big {
            unit.to_be_bytes()
        } else {
            unit.to_le_bytes()
        });
    }
    bytes
}

/// The numbers whose pictures are in the store, each file checked byte for byte.
fn stored(sandbox: &Sandbox) -> Vec<u32> {
    let mut numbers: Vec<u32> = sandbox
        .files()
        .values()
        .map(|bytes| (0..100).find(|n| png(*n) == *bytes).unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The same three targets in each form.
fn forms(site: &Site) -> Vec<(&'static str, String)> {
    let [a, b, c] = [1, 2, 3].map(|n| site.url(&format!("/{n}")));
    vec![
        ("list.txt", format!("{a}\n{b}\n{c}\n")),
        (
            "list.csv",
            format!("name,url\none,{a}\ntwo,\"{b}\"\n,{c}\n"),
        ),
        (
            "list.tsv",
            format!("url\tname\n{a}\tone\n{b}\ttwo\n{c}\t\n"),
        ),
        (
            "list.jsonl",
            format!(
                "\"{a}\"\n{{\"url\":\"{b}\",\"name\":\"two\"}}\n\n{{\"url\":\"{c}\",\"extra\":{{\"deep\":[1]}}}}\n"
            ),
        ),
        (
            "sitemap.xml",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\
                 <url><loc>{a}</loc><lastmod>2024-01-01</lastmod></url><url><loc> {b} </loc></url>\
                 <url><loc><![CDATA[{c}]]></loc></url></urlset>"
            ),
        ),
        (
            "feed.xml",
            format!(
                "<?xml version=\"1.0\"?><rss version=\"2.0\"><channel><title>t</title><link>http://a.example/</link>\
                 <item><title>x</title><enclosure url=\"{a}\" type=\"image/png\" length=\"1\"/></item>\
                 <item><enclosure url=\"{b}\" type=\"image/png\"/></item><item><enclosure url=\"{c}\"/></item></channel></rss>"
            ),
        ),
        (
            "atom.xml",
            format!(
                "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title>t</title><link href=\"http://a.example/\"/>\
                 <entry><link rel=\"enclosure\" href=\"{a}\"/><link rel=\"alternate\" href=\"http://a.example/p\"/></entry>\
                 <entry><link href=\"{b}\" rel=\"enclosure\" type=\"image/png\"/></entry>\
                 <entry><link rel='enclosure' href='{c}'/></entry></feed>"
            ),
        ),
    ]
}

#[test]
fn every_form_is_read_from_a_file_by_its_ending() {
    let site = site();
    for (name, text) in forms(&site) {
        let sandbox = Sandbox::new();
        sandbox.write(name, text);
        sandbox.fetch_report(0, &[name]);
        assert_eq!(stored(&sandbox), [1, 2, 3], "{name}");
    }
}

#[test]
fn every_form_is_known_by_its_first_bytes() {
    let site = site();
    for (name, text) in forms(&site) {
        let sandbox = Sandbox::new();
        sandbox.write("list", &text);
        sandbox.fetch_report(0, &["list"]);
        assert_eq!(
            stored(&sandbox),
            [1, 2, 3],
            "{name} from a file without ending"
        );

        let sandbox = Sandbox::new();
        let run = sandbox.run_fed(text, &sandbox.fetch_args(&["-"])).expect(0);
        assert_eq!(run.count("stored"), 3, "{name} from stdin");
    }
}

#[test]
fn every_form_is_read_compressed() {
    let site = site();
    for (name, text) in forms(&site) {
        for (ending, bytes) in [
            ("gz", gzip(text.as_bytes())),
            ("zst", zstd(text.as_bytes())),
            ("xz", xz(text.as_bytes())),
            ("bz2", bzip2(text.as_bytes())),
            ("xz.gz", gzip(&xz(text.as_bytes()))),
        ] {
            let sandbox = Sandbox::new();
            let name = format!("{name}.{ending}");
            sandbox.write(&name, &bytes);
            sandbox.fetch_report(0, &[&name]);
            assert_eq!(stored(&sandbox), [1, 2, 3], "{name}");

            let sandbox = Sandbox::new();
            let run = sandbox
                .run_fed(bytes, &sandbox.fetch_args(&["-"]))
                .expect(0);
            assert_eq!(run.count("stored"), 3, "{name} from stdin");
        }
    }
}

#[test]
fn zeros_behind_a_packed_list_are_padding() {
    let files = site();
    let text = files.list(["/1", "/2", "/3"]);
    for (ending, mut bytes) in [
        ("gz", gzip(text.as_bytes())),
        ("zst", zstd(text.as_bytes())),
        ("xz", xz(text.as_bytes())),
        ("bz2", bzip2(text.as_bytes())),
    ] {
        bytes.extend([0; 512]);
        let sandbox = Sandbox::new();
        let name = format!("list.txt.{ending}");
        sandbox.write(&name, &bytes);
        let lists = Site::start(move |_| Answer::ok(bytes.clone()));
        for source in [name.clone(), lists.url(&format!("/{name}"))] {
            let run = sandbox.fetch(&[&source, "--refresh"]).expect(0);
            assert_eq!(run.count("targets"), 3, "{source}");
            assert_eq!(warnings(&run), [""; 0], "{source}");
        }
    }
}

#[test]
fn every_form_is_read_over_http() {
    let files = site();
    for (name, text) in forms(&files) {
        for (compressed, body) in [
            (false, text.clone().into_bytes()),
            (true, gzip(text.as_bytes())),
        ] {
            let lists = Site::start(move |_| Answer::ok(body.clone()));
            let sandbox = Sandbox::new();
            let ending = if compressed { ".gz" } else { "" };
            let url = lists.url(&format!("/lists/{name}{ending}?v=1"));
            sandbox.fetch_report(0, &[&url]);
            assert_eq!(stored(&sandbox), [1, 2, 3], "{url}");
            assert_eq!(lists.total(), 1);
        }
    }
}

#[test]
fn the_user_may_say_the_form() {
    let (sandbox, site) = (Sandbox::new(), site());
    // A text list whose first line could be the header of a table.
    sandbox.write("list.csv", site.list(["/1", "/2"]));
    let report = sandbox.fetch_report(0, &["list.csv", "--list-format", "text"]);
    assert_eq!(report.count("stored"), 2);
}

#[test]
fn an_ending_counts_more_than_the_type() {
    let (sandbox, files) = (Sandbox::new(), site());
    let body = files.list(["/1", "/2"]);
    let lists = Site::start(move |asked| {
        let media_type = match asked.path.as_str() {
            "/json/l.txt" => "application/json",
            _ => "application/rss+xml",
        };
        Answer::ok(body.clone()).header("Content-Type", media_type)
    });
    for path in ["/json/l.txt", "/rss/l.txt"] {
        sandbox.fetch_report(0, &[&lists.url(path)]);
        assert_eq!(stored(&sandbox), [1, 2], "{path}");
    }
}

#[test]
fn a_quote_that_nobody_closes_costs_no_row() {
    let (sandbox, site) = (Sandbox::new(), site());
    let [a, b, c] = [1, 2, 3].map(|n| site.url(&format!("/{n}")));
    sandbox.write(
        "list.tsv",
        format!("url\tnote\n{a}\t\"hello\n{b}\t\"two\nlines\"\n{c}\tx\n"),
    );
    let report = sandbox.fetch_report(0, &["list.tsv"]);
    assert_eq!(stored(&sandbox), [1, 2, 3]);
    assert_eq!(report.of(&c)["line"], 5);
}

#[test]
fn a_feed_with_a_dtd_and_relative_enclosures_is_read() {
    let (sandbox, files) = (Sandbox::new(), site());
    let other = files.url("/there/");
    let feeds = Site::start(move |asked| match asked.path.as_str() {
        "/feeds/rss" => Answer::ok(format!(
            "<!DOCTYPE rss [<!ENTITY nbsp \"&#160;\"><!ENTITY lol \"&nbsp;&nbsp;&nbsp;&nbsp;\">]><rss><channel>\n\
             <title>a&nbsp;b</title><item><enclosure url='../1'/></item>\n\
             <item><enclosure url='2' xml:base='{other}'/></item><item><enclosure url='/&lol;'/></item></channel></rss>"
        )),
        _ => pictures(asked),
    });
    let report = sandbox.fetch_report(3, &[&feeds.url("/feeds/rss")]);
    assert_eq!(stored(&sandbox), [1, 2]);
    assert_eq!(report.of(&feeds.url("/1"))["outcome"], "stored");
    assert_eq!(report.of(&files.url("/there/2"))["outcome"], "stored");
    assert_eq!(report.of("/&lol;")["reason"], "invalid-url");
}

#[test]
fn an_album_is_one_folder_however_its_name_is_composed() {
    let (sandbox, site) = (Sandbox::new(), site());
    let [a, b] = [1, 2].map(|n| site.url(&format!("/{n}")));
    sandbox.write(
        "list.csv",
        format!("url,album\n{a},caf\u{e9}\n{b},cafe\u{301}\n"),
    );
    sandbox.fetch_report(0, &["list.csv"]);
    let url = site.url("/3");
    sandbox.fetch(&["-u", &url, "-a", "cafe\u{301}"]).expect(0);
    let names = sandbox.names();
    assert_eq!(names.len(), 3);
    assert!(
        names.iter().all(|name| name.starts_with("caf\u{e9}/")),
        "{names:?}"
    );
}

#[test]
fn encodings_and_line_ends_make_no_difference() {
    let site = site();
    let [a, b, c] = [1, 2, 3].map(|n| site.url(&format!("/{n}")));
    let plain = format!("# caf\u{e9}\n{a}\n\n{b}\n  \n{c}");
    let crlf = plain.replace('\n', "\r\n");
    for (what, bytes) in [
        ("no last newline", plain.clone().into_bytes()),
        ("last newline", (plain.clone() + "\n").into_bytes()),
        ("CRLF", crlf.clone().into_bytes()),
        ("CR", plain.replace('\n', "\r").into_bytes()),
        (
            "byte order mark",
            [b"\xef\xbb\xbf", plain.as_bytes()].concat(),
        ),
        ("UTF-16 LE", utf16(&plain, false)),
        ("UTF-16 BE", utf16(&plain, true)),
        ("UTF-16 LE with CRLF", utf16(&crlf, false)),
        ("UTF-16 in gzip", gzip(&utf16(&crlf, true))),
        (
            "Latin-1 in a comment",
            [b"# caf\xe9\n", plain.as_bytes()].concat(),
        ),
        (
            "marks inside",
            format!("\u{feff}{a}\n\u{feff}{b}\n\u{feff}{c}").into_bytes(),
        ),
        (
            "spaces around",
            format!("  {a}  \n\t{b}\t\n {c} # comment").into_bytes(),
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fetch_list(bytes, 0, &[]);
        assert_eq!(stored(&sandbox), [1, 2, 3], "{what}");
    }
    // Tables and JSON too.
    for (what, bytes) in [
        (
            "CSV in UTF-16",
            utf16(&format!("name,url\r\n\u{e9},{a}\r\n"), false),
        ),
        (
            "CSV with a mark",
            format!("\u{feff}url,name\n{a},\u{e9}\n").into_bytes(),
        ),
        (
            "JSON in UTF-16",
            utf16(&format!("{{\"url\":\"{a}\"}}\n"), true),
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fetch_list(bytes, 0, &[]);
        assert_eq!(stored(&sandbox), [1], "{what}");
    }
}

#[test]
fn a_table_in_windows_1252_keeps_its_names_and_says_so_once() {
    let site = site();
    let list = fixture("list-windows-1252.csv", &site);
    let sandbox = Sandbox::new();
    sandbox.write("list.csv", &list);
    let report = sandbox.fetch_report(0, &["list.csv"]);
    assert_eq!(sandbox.names(), ["K\u{e4}se.png", "Z\u{fc}rich.png"]);
    let warnings = warnings(&report.run);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for says in ["`list.csv`", "line 2", "windows-1252", "`--list-encoding`"] {
        assert!(warnings[0].contains(says), "{warnings:?}");
    }
    assert_eq!(report.whole["warnings"][0], warnings[0].as_str());

    let run = sandbox.fetch(&["list.csv", "--dry-run"]).expect(0);
    assert_eq!(self::warnings(&run).len(), 1);

    // A named encoding causes no warning.
    for args in [
        ["--list-encoding", "latin1"],
        ["--set", "source.encoding=windows-1252"],
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("list.csv", &list);
        let run = sandbox
            .fetch(&[&["list.csv"], &args[..]].concat())
            .expect(0);
        assert!(self::warnings(&run).is_empty());
        assert_eq!(sandbox.names(), ["K\u{e4}se.png", "Z\u{fc}rich.png"]);
    }
    let run = sandbox
        .fetch(&["list.csv", "--list-encoding", "cp1251"])
        .expect(0);
    assert!(self::warnings(&run).is_empty());
}

#[test]
fn lists_of_every_form_are_read_in_the_encoding_that_is_named() {
    let site = site();
    let url = site.url("/1");
    let name = "\u{41a}\u{43e}\u{442}";
    let (koi8, ..) = encoding_rs::KOI8_R.encode(name);
    let with = |before: &str, after: &str| [before.as_bytes(), &koi8, after.as_bytes()].concat();
    for (file, list) in [
        ("list.csv", with(&format!("url;name\n{url};"), "\n")),
        ("list.tsv", with("name\turl\n", &format!("\t{url}\n"))),
        (
            "list.jsonl",
            with(&format!("{{\"url\":\"{url}\",\"name\":\""), "\"}\n"),
        ),
        (
            "list.json",
            with(&format!("[\n{{\"url\":\"{url}\",\"name\":\""), "\"}]"),
        ),
        ("list.txt", with(&format!("{url}\n  out="), "\n")),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(file, &list);
        sandbox
            .fetch(&[file, "--list-encoding", "koi8-r"])
            .expect(0);
        assert_eq!(sandbox.names(), [format!("{name}.png")], "{file}");

        // The answer may name the encoding as well, and the copy of the list keeps it.
        let lists = Site::start(move |asked| {
            Answer::ok(list.clone())
                .header("Content-Type", "text/plain; charset=\"KOI8-R\"")
                .header("ETag", "\"1\"")
                .unless_known(asked)
        });
        let sandbox = Sandbox::new();
        for outcome in ["stored", "unchanged"] {
            let run = sandbox.fetch(&[&lists.url(&format!("/{file}"))]).expect(0);
            assert!(warnings(&run).is_empty());
            assert_eq!(run.count("stored") + run.count("unchanged"), 1, "{outcome}");
        }
        assert_eq!(sandbox.names(), [format!("{name}.png")], "{file}");
    }
}

#[test]
fn an_encoding_that_is_wrong_is_made_known() {
    let site = site();
    let url = site.url("/1");
    let table = [format!("url,name\n{url},Z").as_bytes(), b"\xfcrich\n"].concat();
    let lists = Site::start(move |asked| {
        let charset = asked.path.trim_start_matches('/').to_owned();
        let media_type = format!("text/csv; charset={charset}");
        Answer::ok(table.clone()).header("Content-Type", media_type)
    });
    for (charset, name, count) in [
        ("iso-8859-1", "Z\u{fc}rich.png", 0),
        ("utf-8", "Z\u{fc}rich.png", 1),
        ("unheard-of", "Z\u{fc}rich.png", 1),
        ("utf-16", "Z\u{fc}rich.png", 1),
        ("iso-8859-7", "Z\u{3cc}rich.png", 0),
        ("shift_jis", "Z\u{fffd}rich.png", 1),
    ] {
        let sandbox = Sandbox::new();
        let run = sandbox
            .fetch(&[&lists.url(&format!("/{charset}"))])
            .expect(0);
        assert_eq!(warnings(&run).len(), count, "{charset}");
        assert_eq!(sandbox.names(), [name], "{charset}");
    }
    let sandbox = Sandbox::new();
    sandbox
        .fetch(&["list.csv", "--list-encoding", "excel"])
        .expect(2)
        .says(&["--list-encoding", "`excel` is no encoding", "windows-1252"]);
    sandbox
        .fetch(&["list.csv", "--set", "source.encoding=excel"])
        .expect(1)
        .says(&["source.encoding", "`excel` is no encoding"]);
}

#[test]
fn urls_are_asked_as_the_url_standard_writes_them() {
    let (sandbox, site) = (Sandbox::new(), site());
    let base = site.url("");
    let lines = [
        ("/a b/1", "/a%20b/1"),
        ("/a%20b/2", "/a%20b/2"),
        ("/%C3%A9/3", "/%C3%A9/3"),
        ("/\u{e9}/4", "/%C3%A9/4"),
        ("/x/../5", "/5"),
        ("/6?q=a b&c=%41", "/6?q=a%20b&c=%41"),
        ("/7#fragment", "/7"),
        ("/%2e%2e/8", "/8"),
        ("/a%2Fb/9", "/a%2Fb/9"),
        ("/\\back\\10", "//back/10"),
    ];
    // JSON, because a URL in a text list ends at white space.
    let list: String = lines
        .iter()
        .map(|(raw, _)| serde_json::to_string(&format!("{base}{raw}")).unwrap() + "\n")
        .collect();
    sandbox.fetch_list(list, 0, &["--list-format", "jsonl"]);
    let mut asked: Vec<String> = site.asked().into_iter().map(|asked| asked.path).collect();
    asked.sort();
    let mut wanted: Vec<String> = lines.iter().map(|(_, sent)| (*sent).to_owned()).collect();
    wanted.sort();
    assert_eq!(asked, wanted);
}

#[test]
fn international_hosts_are_asked_by_their_ascii_names() {
    let (sandbox, site) = (Sandbox::new(), site());
    let dns = origin::dns::NameServer::start(|name, _| {
        (name == "xn--bcher-kva.example").then(|| vec!["127.0.0.1".parse().unwrap()])
    });
    let list = format!(
        "{}\n{}\n",
        site.url_as("b\u{fc}cher.example", "/1"),
        site.url_as("xn--bcher-kva.example", "/2")
    );
    let servers = format!("fetch.name_servers=[\"{}\"]", dns.address);
    sandbox.fetch_list(list, 0, &["--set", &servers]);
    assert_eq!(stored(&sandbox), [1, 2]);
    let host = site.asked()[0].header("host").unwrap().to_owned();
    assert!(host.starts_with("xn--bcher-kva.example:"), "{host}");
}

mod origin;

#[test]
fn aria2_options_name_place_and_check() {
    let (sandbox, site) = (Sandbox::new(), site());
    let good = sha256(&png(2));
    let list = format!(
        "{}\n  out=first.png\n  dir=one/two\n{}\n\tchecksum=sha-256={good}\n\tout=second.png\n\
         {}\n checksum=sha-256={good}\n split=4\n  header=X: y\n{}\n  out=../../fourth\n",
        site.url("/1"),
        site.url("/2"),
        site.url("/3"),
        site.url("/4"),
    );
    let report = sandbox.fetch_list(list, 3, &[]);
    assert_eq!(report.of(&site.url("/1"))["path"], "one/two/first.png");
    assert_eq!(report.of(&site.url("/2"))["path"], "second.png");
    assert_eq!(report.of(&site.url("/3"))["outcome"], "rejected");
    assert_eq!(report.of(&site.url("/3"))["reason"], "checksum");
    assert_eq!(report.of(&site.url("/4"))["path"], "fourth.png");
    assert_eq!(report.items().len(), 4);
    assert_eq!(
        sandbox.names(),
        ["fourth.png", "one/two/first.png", "second.png"]
    );
}

#[test]
fn columns_name_place_check_and_stay_with_the_item() {
    let (sandbox, site) = (Sandbox::new(), site());
    let list = format!(
        "id,URL,Name,album,sha256,group\n\
         7,{},a.png,Trees/Oaks,{},g1\n\
         8,{},b.png,,{},g1\n\
         9,\"{}\",\"c, d.png\",Trees,,\n",
        site.url("/1"),
        sha256(&png(1)),
        site.url("/2"),
        sha256(&png(1)),
        site.url("/3?x=1,2"),
    );
    sandbox.write("list.csv", list);
    let report = sandbox.fetch_report(3, &["list.csv", "--album", "rest"]);
    let first = report.of(&site.url("/1"));
    assert_eq!(first["path"], "Trees/Oaks/a.png");
    assert_eq!(first["metadata"]["id"], "7");
    assert_eq!(first["group"], "g1");
    assert_eq!(first["name_from"], "list");
    assert_eq!(report.of(&site.url("/2"))["reason"], "checksum");
    assert_eq!(report.of(&site.url("/3?x=1,2"))["path"], "Trees/c, d.png");
    assert_eq!(sandbox.names(), ["Trees/Oaks/a.png", "Trees/c, d.png"]);
}

#[test]
fn repeated_lines_are_asked_for_once() {
    let (sandbox, site) = (Sandbox::new(), site());
    let mut list = String::new();
    for _ in 0..3 {
        list += &site.list(["/1", "/2", "/1#other", "/x/../2"]);
    }
    let report = sandbox.fetch_list(list, 0, &[]);
    assert_eq!(report.count("targets"), 2);
    assert_eq!(report.whole["repeats"], 10);
    assert_eq!(site.total(), 2);
}

#[test]
fn lines_that_are_no_url_are_items_with_their_line() {
    let (sandbox, site) = (Sandbox::new(), site());
    let lines = [
        site.url("/1"),
        "hello".to_owned(),
        "http://".to_owned(),
        "# comment".to_owned(),
        "http://[::1".to_owned(),
        String::new(),
        "http://exa mple.org/".to_owned(),
        "http://a.example:99999/".to_owned(),
        "/relative/path.png".to_owned(),
        "//no-scheme.example/a.png".to_owned(),
        "ftp://a.example/b.png".to_owned(),
        "file:///etc/passwd".to_owned(),
        "data:image/png;base64,AAAA".to_owned(),
        "javascript:alert(1)".to_owned(),
        site.url("/2"),
    ];
    let report = sandbox.fetch_list(lines.join("\n"), 3, &[]);
    assert_eq!(stored(&sandbox), [1, 2]);
    let expected = [
        (2, "invalid-url"),
        (3, "invalid-url"),
        (5, "invalid-url"),
        (7, "invalid-url"),
        (8, "invalid-url"),
        (9, "invalid-url"),
        (10, "invalid-url"),
        (11, "unsupported-scheme"),
        (12, "unsupported-scheme"),
        (13, "unsupported-scheme"),
        (14, "unsupported-scheme"),
    ];
    let found: Vec<(u64, String)> = report
        .by_line()
        .iter()
        .filter(|item| item["outcome"] != "stored")
        .map(|item| {
            assert_eq!(item["outcome"], "failed", "{item}");
            assert!(item["detail"].is_string(), "{item}");
            let reason = item["reason"].as_str().unwrap().to_owned();
            (item["line"].as_u64().unwrap(), reason)
        })
        .collect();
    let expected = expected.map(|(line, reason)| (line, reason.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn rows_and_objects_without_a_url_are_items_with_their_line() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write(
        "list.csv",
        format!(
            "url,sha256\n{},\n,\nnone,\n{},zz\n",
            site.url("/1"),
            site.url("/2")
        ),
    );
    let report = sandbox.fetch_report(3, &["list.csv"]);
    assert_eq!(report.count("stored"), 1);
    assert_invalid(&report, &[3, 4, 5]);

    let sandbox = Sandbox::new();
    sandbox.write(
        "list.jsonl",
        format!(
            "{{\"url\":\"{}\"}}\n{{\"name\":\"x\"}}\n[1]\n5\nnull\n{{\"url\":5}}\n{{broken\n\"\"\n\"{}\"\n",
            site.url("/1"),
            site.url("/2")
        ),
    );
    let report = sandbox.fetch_report(3, &["list.jsonl"]);
    assert_eq!(report.count("stored"), 2);
    assert_invalid(&report, &[2, 3, 4, 5, 6, 7, 8]);
}

#[track_caller]
fn assert_invalid(report: &Report, lines: &[u64]) {
    let found: Vec<u64> = report
        .by_line()
        .iter()
        .filter(|item| item["reason"] == "invalid-url")
        .map(|item| item["line"].as_u64().unwrap())
        .collect();
    assert_eq!(found, lines, "{:#?}", report.items());
}

#[test]
fn a_line_of_10_megabytes_and_nul_bytes_are_items_like_others() {
    let (sandbox, site) = (Sandbox::new(), site());
    let mut list = site.url("/1").into_bytes();
    list.push(b'\n');
    list.extend(std::iter::repeat_n(b'x', 10_000_000));
    list.push(b'\n');
    list.extend_from_slice(site.url("/").as_bytes());
    list.extend(std::iter::repeat_n(b'y', 10_000_000));
    list.push(b'\n');
    list.extend_from_slice(site.url("/2").as_bytes());
    list.extend_from_slice(b"\nnul\0here\n\0\0\0\n");
    list.extend_from_slice(site.url("/3").as_bytes());
    let report = sandbox.fetch_list(list, 3, &[]);
    assert_eq!(stored(&sandbox), [1, 2, 3]);
    let failed: Vec<u64> = report
        .by_line()
        .iter()
        .filter(|item| item["outcome"] == "failed")
        .map(|item| item["line"].as_u64().unwrap())
        .collect();
    assert_eq!(failed, [2, 3, 5, 6]);
    // A report of four failures is no copy of the list.
    assert!(sandbox.read("report.json").len() < 100_000);
}

#[test]
fn a_hundred_thousand_lines_of_nonsense_are_a_hundred_thousand_items() {
    let sandbox = Sandbox::new();
    let list: String = (0..100_000).map(|n| format!("nonsense {n}\n")).collect();
    let report = sandbox.fetch_list(list, 3, &[]);
    assert_eq!(report.count("failed"), 100_000);
    assert_eq!(report.items().len(), 100_000);
    assert_eq!(report.whole["reasons"]["invalid-url"], 100_000);
    assert_eq!(report.by_line()[99_999]["line"], 100_000);
}

#[test]
fn a_web_page_in_place_of_a_list_ends_with_1_and_removes_nothing() {
    let (sandbox, files) = (Sandbox::new(), site());
    sandbox.fetch_list(files.list(["/1", "/2"]), 0, &[]);
    let before = sandbox.files();
    let page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form>\
                <a href=\"http://a.example/x.png\">x</a></form></body></html>";
    // The RDF of a Creative Commons licence.
    let licensed = "<html>\n<head><title>Sign in</title>\n<!--\n<rdf:RDF xmlns=\"http://web.resource.org/cc/\">\n\
                    <Work rdf:about=\"\"/>\n</rdf:RDF>\n-->\n</head><body/></html>\n";
    let lists = Site::start(move |asked| {
        let page = match asked.path.starts_with("/licensed") {
            true => Answer::ok(licensed),
            false => Answer::ok(page),
        };
        match asked.path.as_str() {
            "/as-text.txt" => page.header("Content-Type", "text/plain"),
            "/as-csv.csv" => page.header("Content-Type", "text/csv"),
            _ => page.header("Content-Type", "text/html; charset=utf-8"),
        }
    });
    sandbox.write("page.txt", page);
    sandbox.write("page.html", page);
    sandbox.write("page.csv", page);
    sandbox.write("page.jsonl", page);
    let mut sources: Vec<String> = [
        "/list.txt",
        "/as-text.txt",
        "/as-csv.csv",
        "/login",
        "/licensed",
        "/licensed.xml",
    ]
    .map(|path| lists.url(path))
    .to_vec();
    sources.extend(["page.txt", "page.html", "page.csv", "page.jsonl"].map(str::to_owned));
    for source in &sources {
        let run = sandbox.fetch(&[source]).expect(1).says(&["HTML"]);
        assert!(run.stderr.contains(source.as_str()), "{source}: {run}");
        assert_eq!(sandbox.files(), before, "{source}");
    }
    // The store is as usable as before.
    sandbox.fetch_list(files.list(["/1", "/2"]), 0, &[]);
}

#[test]
fn lists_that_are_something_else_end_with_1() {
    let sandbox = Sandbox::new();
    let mut pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n".to_vec();
    pdf.extend(std::iter::repeat_n(0x80, 500));
    // Archives that store their lists uncompressed.
    let urls = b"http://127.0.0.1:9/1\nhttp://127.0.0.1:9/2\n";
    let zip = [b"PK\x03\x04\x14\0\0\0\0\0list.txt", &urls[..]].concat();
    let urls = &urls[..];
    let mut tar = vec![0; 1024];
    tar[..8].copy_from_slice(b"list.txt");
    tar[257..262].copy_from_slice(b"ustar");
    tar[512..512 + urls.len()].copy_from_slice(urls);
    for (name, bytes) in [
        ("picture.txt", png(1)),
        ("paper.txt", pdf),
        (
            "random",
            (0..4000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
        (
            "other.xml",
            b"<?xml version=\"1.0\"?><catalog><book/></catalog>".to_vec(),
        ),
        ("cut.txt.gz", gzip(b"http://a.example/1\n")[..12].to_vec()),
        ("cut.txt.xz", xz(b"http://a.example/1\n")[..40].to_vec()),
        ("cut.txt.bz2", bzip2(b"http://a.example/1\n")[..40].to_vec()),
        ("list.zip", zip.clone()),
        ("list.txt", zip),
        ("list.tar", tar.clone()),
        ("list.tar.xz", xz(&tar)),
        ("list.7z", [b"7z\xbc\xaf\x27\x1c\0\x04", urls].concat()),
        ("utf-32.txt", b"\xff\xfe\0\0h\0\0\0t\0\0\0".to_vec()),
        ("no-columns.csv", b"a,b,c\n1,2,3\n".to_vec()),
    ] {
        sandbox.write(name, bytes);
        let run = sandbox.fetch(&[name]).expect(1).says(&[name]);
        assert!(!run.stderr.contains("attempt"), "{run}");
    }
}

#[test]
fn a_list_that_cannot_be_read_ends_with_1_and_says_why() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    sandbox
        .fetch(&["absent.txt"])
        .expect(1)
        .says(&["absent.txt"]);
    sandbox
        .fetch(&["folder"])
        .expect(1)
        .says(&["folder", "directory"]);
    sandbox.fetch(&[""]).expect(1);
    sandbox
        .fetch(&["ftp://a.example/list"])
        .expect(1)
        .says(&["ftp"]);
    sandbox
        .fetch(&["search:nobody?q=x"])
        .expect(1)
        .says(&["search"]);
    let lists = Site::start(|asked| match asked.path.as_str() {
        "/gone" => Answer::status(410),
        _ => Answer::status(503),
    });
    sandbox
        .fetch(&[&lists.url("/gone")])
        .expect(1)
        .says(&["410"]);
    sandbox
        .fetch(&[&lists.url("/busy")])
        .expect(1)
        .says(&["503"]);
    assert_eq!(lists.total(), 1 + 4, "503 is tried again, 410 is not");
    drop(lists);
}

#[test]
fn one_unreadable_list_of_several_ends_with_1_and_keeps_the_rest() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", site.list(["/1"]));
    sandbox
        .fetch(&["list.txt", "absent.txt"])
        .expect(1)
        .says(&["absent.txt"]);
}

#[test]
fn a_list_that_breaks_off_ends_with_1_and_keeps_what_it_named() {
    let (sandbox, site) = (Sandbox::new(), site());
    let mut text = site.list(["/1"]);
    // Enough that the first part is read before the damage shows.
    for n in 0..20_000 {
        text += &format!("# {:08x}\n", n * 2_654_435_761_u64 % 0xffff_ffff);
    }
    text += &site.list(["/2"]);
    let whole = gzip(text.as_bytes());
    sandbox.write("list.txt.gz", &whole[..whole.len() - 40]);
    let run = sandbox
        .fetch(&["list.txt.gz"])
        .expect(1)
        .says(&["list.txt.gz"]);
    assert_eq!(run.json()["state"], "failed");
    assert_eq!(stored(&sandbox).first(), Some(&1));
}

#[test]
fn a_feed_with_faults_names_its_files_and_says_so_once() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("feed.xml", fixture("feed-bare-ampersand.xml", &site));
    let run = sandbox.fetch(&["feed.xml"]).expect(0);
    assert_eq!(run.count("stored"), 2);
    let asked: Vec<String> = site.asked().into_iter().map(|asked| asked.path).collect();
    assert!(asked.contains(&"/a.png?x=1&y=2".to_owned()), "{asked:?}");
    let warnings = warnings(&run);
    assert_eq!(warnings.len(), 1);
    for says in ["`feed.xml`", "line 2", "`&`"] {
        assert!(warnings[0].contains(says), "{warnings:?}");
    }
}

#[test]
fn what_a_sitemap_says_relatively_goes_by_its_url() {
    let site = Site::start(|asked| match asked.path.as_str() {
        "/maps/sitemap.xml" => Answer::ok(
            std::fs::read(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/sitemap-relative.xml"
            ))
            .unwrap(),
        ),
        _ => pictures(asked),
    });
    let sandbox = Sandbox::new();
    let report = sandbox.fetch_report(0, &[&site.url("/maps/sitemap.xml")]);
    for path in ["/c.png", "/maps/d.png?x=1&y=2"] {
        assert_eq!(report.of(&site.url(path))["outcome"], "stored");
    }
    sandbox.write("sitemap.xml", fixture("sitemap-relative.xml", &site));
    let report = sandbox.fetch_report(3, &["sitemap.xml"]);
    assert_eq!(report.whole["reasons"]["invalid-url"], 2);
    for item in report.items() {
        let detail = item["detail"].as_str().unwrap();
        assert!(detail.contains("relative"), "{detail}");
    }
}

#[test]
fn text_lists_may_have_captions_quotes_and_commas() {
    let (sandbox, site) = (Sandbox::new(), site());
    let report = sandbox.fetch_list(fixture("list-captions.txt", &site), 0, &[]);
    let metadata = |path: &str| report.of(&site.url(path))["metadata"].clone();
    assert_eq!(metadata("/a.png")["caption"], "a harbour at dawn");
    assert!(metadata("/b.png").is_null());

    let [a, b, c] = [1, 2, 3].map(|n| site.url(&format!("/{n}")));
    for list in [
        format!("[\n  \"{a}\",\n  \"{b}\",\n  \"{c}\"\n]\n"),
        format!("[\n  {{\"url\": \"{a}\"}},\n  {{\n    \"url\": \"{b}\"\n  }},\n  \"{c}\",\n]\n"),
        format!("\"{a}\",\n\"{b}\",\n\"{c}\"\n"),
        format!("{{\"url\":\"{a}\"}},\n{{\"url\":\"{b}\"}},\n\"{c}\",\n"),
        format!("<{a}>\n'{b}' two\n{c}, three\n"),
        format!("{a}\t{b}\n{b}\tzwei\n{c}\u{a0}drei\n"),
    ] {
        let sandbox = Sandbox::new();
        let report = sandbox.fetch_list(&list, 0, &[]);
        assert_eq!(report.items().len(), 3, "{list}");
        assert_eq!(stored(&sandbox), [1, 2, 3], "{list}");
    }
}

#[test]
fn a_blank_may_stand_before_a_quoted_cell() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.csv", fixture("list-blank-before-quote.csv", &site));
    let report = sandbox.fetch_report(0, &["list.csv"]);
    assert_eq!(report.only()["url"], site.url("/a.png"));
    assert_eq!(report.only()["metadata"]["ID"], "1");
}

#[test]
fn an_empty_list_is_a_job_of_no_targets() {
    for (name, bytes) in [
        ("list.txt", &b""[..]),
        ("list.txt", b"\n\n# nothing\r\n"),
        ("list.txt", b"\xef\xbb\xbf"),
        ("list.csv", b"url,name\n"),
        ("list.csv", b""),
        ("list.jsonl", b""),
        (
            "sitemap.xml",
            b"<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\"/>",
        ),
        ("feed.xml", b"<rss version=\"2.0\"><channel/></rss>"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(name, bytes);
        let report = sandbox.fetch_report(0, &[name]);
        assert_eq!(report.count("targets"), 0, "{name} {bytes:?}");
        assert_eq!(report.whole["state"], "completed");
        assert!(report.items().is_empty());
    }
    let sandbox = Sandbox::new();
    sandbox.write("list.txt.gz", gzip(b""));
    assert_eq!(
        sandbox.fetch_report(0, &["list.txt.gz"]).count("targets"),
        0
    );
    let run = sandbox.run_fed("", &sandbox.fetch_args(&["-"])).expect(0);
    assert_eq!(run.count("targets"), 0);
}

#[test]
fn a_sitemap_index_leads_to_its_sitemaps() {
    let (sandbox, files) = (Sandbox::new(), site());
    let urls = files.list(["/1", "/2"]);
    let lists = Site::start(move |asked| {
        let host = asked.header("host").unwrap();
        Answer::ok(match asked.path.as_str() {
            "/index.xml" => format!(
                "<sitemapindex xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\
                 <sitemap><loc>http://{host}/a.xml</loc></sitemap></sitemapindex>"
            ),
            _ => {
                let urls: String = urls
                    .lines()
                    .map(|url| format!("<url><loc>{url}</loc></url>"))
                    .collect();
                format!(
                    "<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">{urls}</urlset>"
                )
            }
        })
    });
    // The contract speaks of sitemaps only; an index must at least not pass for an empty list.
    let run = sandbox.fetch(&[&lists.url("/index.xml")]);
    match run.code() {
        0 => assert_eq!(stored(&sandbox), [1, 2]),
        _ => drop(run.expect(1).says(&["index"])),
    }
}

#[test]
fn an_index_that_names_itself_or_a_sitemap_often_is_read_once() {
    let lists = Site::start(|asked| {
        let map = |loc: &str| format!("<sitemap><loc>{loc}</loc></sitemap>");
        let index = |maps: String| Answer::ok(format!("<sitemapindex>{maps}</sitemapindex>"));
        match asked.path.as_str() {
            "/index.xml" => {
                let again = [
                    "index.xml",
                    "/./index.xml#top",
                    "%69ndex.xml?",
                    "other.xml",
                    "moved.xml",
                ];
                let maps = again.iter().map(|loc| map(loc)).collect::<String>();
                index(maps + &map("/map.xml").repeat(50))
            }
            "/other.xml" => index(map("index.xml") + &map("map.xml")),
            "/moved.xml" => Answer::status(302).header("Location", "/index.xml"),
            "/map.xml" => Answer::ok("<urlset><url><loc>1</loc></url></urlset>"),
            _ => pictures(asked),
        }
    });
    let sandbox = Sandbox::new();
    let run = sandbox.fetch(&[&lists.url("/index.xml")]).expect(0);
    assert_eq!(run.count("stored"), 1);
    let mut asked: Vec<String> = lists.asked().into_iter().map(|asked| asked.path).collect();
    asked.sort();
    // The target of a redirect is known only after it was followed.
    let wanted = [
        "/1",
        "/index.xml",
        "/index.xml",
        "/map.xml",
        "/moved.xml",
        "/other.xml",
    ];
    assert_eq!(asked, wanted);
}

#[test]
fn a_sitemap_that_is_gone_does_not_take_the_others_with_it() {
    let (sandbox, site) = (Sandbox::new(), site());
    let lists = Site::start({
        let picture = site.url("/1");
        move |asked| {
            let host = asked.header("host").unwrap();
            match asked.path.as_str() {
                "/index.xml" => Answer::ok(format!(
                    "<sitemapindex><sitemap><loc>http://{host}/gone.xml</loc></sitemap>\
                     <sitemap><loc>http://{host}/there.xml</loc></sitemap></sitemapindex>"
                )),
                "/there.xml" => {
                    Answer::ok(format!("<urlset><url><loc>{picture}</loc></url></urlset>"))
                }
                _ => Answer::status(404),
            }
        }
    });
    sandbox
        .fetch(&[&lists.url("/index.xml")])
        .expect(1)
        .says(&[&lists.url("/gone.xml"), "404"]);
    assert_eq!(stored(&sandbox), [1]);
}

#[test]
fn an_answer_that_is_no_list_is_an_error_and_no_target() {
    for answer in ["{\"error\": \"no such list\"}", "Not found\n"] {
        let (sandbox, lists) = (Sandbox::new(), Site::start(move |_| Answer::ok(answer)));
        let run = sandbox.fetch(&[&lists.url("/list")]).expect(1);
        assert_eq!(run.count("targets"), 0, "{run}");
        run.says(&[&lists.url("/list"), "without a URL"]);
    }
}

#[test]
fn a_table_of_one_column_is_known_by_its_header() {
    let (sandbox, site) = (Sandbox::new(), site());
    let list = format!("url\n{}\n", site.url("/1"));
    let run = sandbox.run_fed(list, &sandbox.fetch_args(&["-"])).expect(0);
    assert_eq!(run.count("targets"), 1);
}

#[test]
fn a_column_that_cannot_be_used_is_named() {
    let (sandbox, site) = (Sandbox::new(), site());
    let url = site.url("/1");
    for (row, column) in [
        (format!("{url},zz,"), "column `sha256`"),
        (format!("{url},,../up"), "column `album`"),
    ] {
        let list = format!("url,sha256,album\n{row}\n");
        let report = sandbox.fetch_list(list, 3, &[]);
        let detail = report.only()["detail"].as_str().unwrap();
        assert!(detail.contains(column), "{detail}");
    }
}

#[test]
fn entities_of_a_list_are_neither_expanded_without_end_nor_fetched() {
    let sandbox = Sandbox::new();
    let mut bomb = String::from("<?xml version=\"1.0\"?><!DOCTYPE urlset [<!ENTITY a0 \"x\">");
    for n in 1..30 {
        bomb += &format!("<!ENTITY a{n} \"&a{0};&a{0};&a{0};\">", n - 1);
    }
    bomb += "<!ENTITY f SYSTEM \"file:///etc/hostname\">]><urlset><url><loc>http://127.0.0.1:9/&a29;</loc></url>\
             <url><loc>http://127.0.0.1:9/&f;</loc></url></urlset>";
    sandbox.write("sitemap.xml", bomb);
    let run = sandbox.fetch(&["sitemap.xml", "--set", "fetch.retries=0"]);
    assert!(matches!(run.code(), 1 | 3), "{run}");
}

#[test]
fn a_checksum_that_a_list_adds_later_holds_for_known_files_too() {
    let (sandbox, site) = (
        Sandbox::new(),
        Site::start(|asked| {
            pictures(asked)
                .header("ETag", "\"1\"")
                .header("Cache-Control", "max-age=1000")
                .unless_known(asked)
        }),
    );
    let url = site.url("/1");
    sandbox.fetch_list(format!("{url}\n"), 0, &[]);
    let before = sandbox.files();
    let good = format!("{url}\n  checksum=sha-256={}\n", sha256(&png(1)));
    assert_eq!(sandbox.fetch_list(good, 0, &[]).count("unchanged"), 1);
    let wrong = format!("{url}\n  checksum=sha-256={}\n", sha256(&png(2)));
    let report = sandbox.fetch_list(wrong, 3, &[]);
    assert_eq!(report.only()["reason"], "checksum");
    assert_eq!(sandbox.files(), before);
}
