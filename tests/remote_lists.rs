//! Lists on the web that are read again and again: their validators, their last good copies, and their faults.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod origin;
mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use gannet::fault;
use gannet::source::{Reader, Shelf, parse_source};
use origin::{Origin, Reply};
use support::pictures::png;
use support::sandbox::walk;
use support::site::Gate;
use support::{Answer, Asked, Run, Sandbox, Site};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An origin of pictures `/1`, `/2`, … that never change.
fn pictures() -> Site {
    Site::start(|asked| match asked.path[1..].parse() {
        Ok(n) => Answer::ok(png(n))
            .header("ETag", format!("\"{n}\""))
            .unless_known(asked),
        Err(_) => Answer::status(404),
    })
}

/// An origin of one list of so many pictures, which counts them in its `ETag`.
fn growing(pictures: &Site) -> (Site, Arc<AtomicU32>) {
    let length = Arc::new(AtomicU32::new(2));
    let (base, now) = (pictures.url(""), length.clone());
    let site = Site::start(move |asked| {
        let length = now.load(Ordering::SeqCst);
        let list: String = (1..=length).map(|n| format!("{base}/{n}\n")).collect();
        Answer::ok(list)
            .header("ETag", format!("\"{length}\""))
            .unless_known(asked)
    });
    (site, length)
}

/// What is in the folder of copies.
fn shelf(sandbox: &Sandbox) -> Vec<PathBuf> {
    walk(&sandbox.store().join(".gannet/lists"))
}

/// The one copy there is.
#[track_caller]
fn copy(sandbox: &Sandbox) -> PathBuf {
    match &shelf(sandbox)[..] {
        [path] if path.extension().unwrap() == "list" => path.clone(),
        others => panic!("not one copy: {others:?}"),
    }
}

/// The conditions of the requests that came, by `If-None-Match`.
fn conditions(site: &Site) -> Vec<Option<String>> {
    let asked = site.asked();
    let condition = |asked: &Asked| asked.header("if-none-match").map(str::to_owned);
    asked.iter().map(condition).collect()
}

fn quiet(run: Run) -> Run {
    assert!(!run.stderr.contains("WARN"), "{run}");
    run
}

#[test]
fn an_unchanged_list_costs_one_request_and_no_body() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    let url = lists.url("/list.txt");
    quiet(sandbox.fetch(&[&url]).expect(0));
    for extra in [&["-vv"][..], &["--refresh"]] {
        lists.forget();
        let run = quiet(sandbox.fetch(&[&[&*url], extra].concat()).expect(0));
        assert_eq!(conditions(&lists), [Some("\"2\"".to_owned())]);
        assert_eq!(lists.body_bytes(), 0);
        assert_eq!(run.count("unchanged"), 2);
        assert_eq!(
            run.stderr.contains("has not changed since"),
            extra == ["-vv"]
        );
    }
    copy(&sandbox);
}

#[test]
fn a_date_serves_as_well_as_an_etag() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = pictures.list(["/1"]);
    let date = "Fri, 20 Nov 2026 12:00:00 GMT";
    let lists = Site::start(move |asked| {
        Answer::ok(list.clone())
            .header("Last-Modified", date)
            .header("Cache-Control", "max-age=1000")
            .unless_known(asked)
    });
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    lists.forget();
    let run = sandbox.fetch(&[&url]).expect(0);
    assert_eq!(run.count("unchanged"), 1);
    let asked = lists.asked();
    let dates = asked.iter().map(|asked| asked.header("if-modified-since"));
    assert_eq!(dates.collect::<Vec<_>>(), [Some(date)]);
    assert_eq!(lists.body_bytes(), 0);
}

#[test]
fn a_changed_list_takes_the_place_of_its_copy() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, length) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    length.store(3, Ordering::SeqCst);
    let run = sandbox.fetch(&[&url]).expect(0);
    assert_eq!((run.count("stored"), run.count("unchanged")), (1, 2));
    let run = sandbox.fetch(&[&url]).expect(0);
    assert_eq!(run.count("unchanged"), 3);
    let asked = [None, Some("\"2\""), Some("\"3\"")];
    assert_eq!(
        conditions(&lists),
        asked.map(|etag| etag.map(str::to_owned))
    );
    let text = String::from_utf8(fs::read(copy(&sandbox)).unwrap()).unwrap();
    assert!(
        text.starts_with(&pictures.list(["/1", "/2", "/3"])),
        "{text}"
    );
}

#[test]
fn a_list_without_validators_is_not_copied() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = pictures.list(["/1"]);
    let lists = Site::start(move |_| Answer::ok(list.clone()));
    for _ in 0..2 {
        sandbox.fetch(&[&lists.url("/list.txt")]).expect(0);
        assert!(shelf(&sandbox).is_empty());
    }
}

#[test]
fn local_lists_are_not_copied() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = pictures.list(["/1"]);
    sandbox.write("list.txt", &list);
    sandbox
        .fetch(&["list.txt", "--set", "source.max_bytes=1"])
        .expect(0);
    sandbox
        .run_fed(
            list,
            &sandbox.fetch_args(&["-", "--set", "source.max_bytes=1"]),
        )
        .expect(0);
    assert!(shelf(&sandbox).is_empty());
}

#[test]
fn a_list_that_is_busy_is_tried_again() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = Reply::ok(pictures.list(["/1"])).etag("\"1\"");
    let busy = Reply::status(503).header("Retry-After", "0");
    let lists = Origin::builder()
        .sequence(
            "/list.txt",
            [busy.clone(), Reply::close(), list.clone(), busy, list],
        )
        .start();
    let url = lists.url("/list.txt").to_string();
    sandbox.fetch(&[&url]).expect(0);
    let run = sandbox.fetch(&[&url]).expect(0);
    assert_eq!(run.count("unchanged"), 1);
    // The second run asked by its copy each time.
    assert_eq!((lists.total(), lists.conditional("/list.txt")), (5, 2));
}

#[test]
fn a_list_that_fails_for_good_fails_the_job_and_keeps_all() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = Reply::ok(pictures.list(["/1", "/2"])).etag("\"1\"");
    let page = Reply::ok("<!doctype html><title>Log in</title>").etag("\"2\"");
    let text = Reply::ok("No pictures today\n").etag("\"3\"");
    let part = Reply::ok(pictures.list(["/1", "/3"]))
        .etag("\"4\"")
        .cut_after(30);
    let lists = Origin::builder()
        .sequence(
            "/list.txt",
            [list.clone(), Reply::status(404), page, text, part, list],
        )
        .start();
    let url = lists.url("/list.txt").to_string();
    let args = [
        &*url,
        "--set",
        "job.on_remove=prune",
        "--set",
        "job.prune_after=0s",
    ];
    sandbox.fetch(&args).expect(0);
    let (files, copy_before) = (sandbox.files(), fs::read(copy(&sandbox)).unwrap());
    for why in ["404", "HTML", "without a URL", "to its end"] {
        let run = sandbox
            .fetch(&args)
            .expect(1)
            .says(&[why, "last good copy, of 20", &url]);
        assert!(run.stderr.contains("nothing is pruned"), "{run}");
        assert_eq!(sandbox.files(), files, "{why}");
        assert_eq!(fs::read(copy(&sandbox)).unwrap(), copy_before, "{why}");
    }
    let run = sandbox.fetch(&args).expect(0);
    assert_eq!(run.count("unchanged"), 2);
    let asked = lists.asked("/list.txt");
    let known = asked[1..].iter().map(|asked| asked.header("if-none-match"));
    assert!(
        known.into_iter().all(|etag| etag == Some("\"1\"")),
        "{asked:?}"
    );
}

#[test]
fn a_run_that_was_killed_within_the_list_leaves_the_old_copy() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let [old, new] = [pictures.list(["/1"]), pictures.list(["/2", "/3"])];
    let (first, next) = (Reply::ok(old).etag("\"1\""), Reply::ok(&*new).etag("\"2\""));
    let hangs = next.clone().hang_after(new.len() - 5);
    let lists = Origin::builder()
        .sequence("/list.txt", [first, hangs, next])
        .start();
    let url = lists.url("/list.txt").to_string();
    sandbox.fetch(&[&url]).expect(0);
    let before = fs::read(copy(&sandbox)).unwrap();

    let running = sandbox.start(sandbox.fetch_args(&[&url]));
    // What the first lines name is fetched while the rest is waited for.
    pictures.wait_for(2);
    running.kill();
    let left = shelf(&sandbox);
    let is_copy = |path: &&PathBuf| path.extension().unwrap() == "list";
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(
        fs::read(left.iter().find(is_copy).unwrap()).unwrap(),
        before
    );

    sandbox.fetch(&[&url]).expect(0);
    assert_eq!(sandbox.files().len(), 3);
    assert!(
        fs::read(copy(&sandbox))
            .unwrap()
            .starts_with(new.as_bytes())
    );
    let asked = lists.asked("/list.txt");
    assert_eq!(asked[2].header("if-none-match"), Some("\"1\""));
}

#[test]
fn a_run_that_was_killed_before_the_copy_has_its_name_leaves_the_old_one() {
    if !fault::COMPILED_IN {
        return eprintln!("skipped: this build has no fault points");
    }
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, length) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    length.store(3, Ordering::SeqCst);
    let args = sandbox.fetch_args(&[&url]);
    for (fault, code) in [("kill", 137), ("eio", 0), ("enospc", 0)] {
        let fault = format!("source.list.written:1={fault}");
        let run = sandbox
            .run_with(&[(fault::VARIABLE, &fault)], &args)
            .expect(code);
        if code == 0 {
            // The job has its list; only the copy is the old one.
            run.says(&["no copy of the list", &url]);
            copy(&sandbox);
        }
    }
    sandbox.fetch(&[&url]).expect(0);
    let asked = ["\"2\""; 4].map(|etag| Some(etag.to_owned()));
    assert_eq!(conditions(&lists)[1..], asked);
    lists.forget();
    sandbox.fetch(&[&url]).expect(0);
    assert_eq!(conditions(&lists), [Some("\"3\"".to_owned())]);
}

#[test]
fn a_damaged_copy_is_noticed_and_not_used() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    let whole = fs::read(copy(&sandbox)).unwrap();
    let mut altered = whole.clone();
    // Another picture, in a list of the same length.
    let at = altered.iter().position(|byte| *byte == b'\n').unwrap() - 1;
    altered[at] = b'9';
    let etag = || Some("\"2\"".to_owned());
    for (bytes, asked) in [
        (&altered[..], vec![etag(), None]),
        (&whole[1..], vec![None]),
        (&whole[..whole.len() - 1], vec![None]),
        (&whole[..20], vec![None]),
        (b"", vec![None]),
        (b"\n{}\n", vec![None]),
    ] {
        fs::write(copy(&sandbox), bytes).unwrap();
        lists.forget();
        let run = sandbox
            .fetch(&[&url])
            .expect(0)
            .says(&["copy of the list", &url]);
        assert_eq!(run.count("unchanged"), 2, "{run}");
        assert_eq!(conditions(&lists), asked);
        lists.forget();
        quiet(sandbox.fetch(&[&url]).expect(0));
        assert_eq!(conditions(&lists), [etag()], "it has a good copy again");
    }
}

#[test]
fn an_etag_of_another_place_is_not_believed() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    // Each list has a count of its own, as some origins do it.
    let [old, new] = [["/1"], ["/2"]].map(|of| Reply::ok(pictures.list(of)).etag("\"1\""));
    let lists = Origin::builder()
        .sequence(
            "/latest",
            ["/old?sign=1", "/old?sign=2", "/new"].map(|to| Reply::redirect(302, to)),
        )
        .route("/old?sign=1", old.clone())
        .route("/old?sign=2", old)
        .route("/new", new)
        .start();
    let url = lists.url("/latest").to_string();
    for stored in [1, 0, 1, 0] {
        let run = sandbox.fetch(&[&url]).expect(0);
        assert_eq!(run.count("stored"), stored);
    }
    assert_eq!(sandbox.files().len(), 2);
    // The validators are not sent to any other URL, even if only its query differs.
    assert_eq!(
        (lists.hits("/old?sign=2"), lists.conditional("/old?sign=2")),
        (1, 0)
    );
    assert_eq!((lists.hits("/new"), lists.conditional("/new")), (2, 1));
    assert_eq!(lists.conditional("/latest"), 0);
}

#[test]
fn a_list_that_is_too_long_names_the_setting() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = pictures.list(["/1", "/2"]);
    let limit = format!("source.max_bytes={}", list.len() - 1);
    let lists = Origin::builder()
        .route("/announced", Reply::ok(&*list).etag("\"1\""))
        .route("/not", Reply::ok(&*list).etag("\"1\"").chunked())
        .start();
    for path in ["/announced", "/not"] {
        let url = lists.url(path).to_string();
        sandbox.fetch(&[&url, "--set", &limit]).expect(1).says(&[
            "longer than",
            "source.max_bytes",
            &url,
        ]);
        assert!(shelf(&sandbox).is_empty());
    }
    // The decompressed length counts.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(list.repeat(100).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let most = format!("source.max_bytes={}", packed.len() + list.len());
    let packed = Origin::with("/list.txt.gz", Reply::ok(packed).etag("\"1\""));
    let url = packed.url("/list.txt.gz").to_string();
    sandbox.fetch(&[&url, "--set", &most]).expect(1).says(&[
        "longer than",
        "source.max_bytes",
        &url,
    ]);
    assert!(shelf(&sandbox).is_empty());
    let limit = format!("source.max_bytes={}", list.len());
    let url = lists.url("/not").to_string();
    sandbox.fetch(&[&url, "--set", &limit]).expect(0);
    sandbox
        .fetch(&[&url, "--set", "source.max_bytes=0"])
        .expect(1)
        .says(&["source.max_bytes", "leaves no room"]);
}

#[test]
fn a_packed_list_is_copied_as_it_came_and_a_packed_transport_is_not() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let list = pictures.list(["/1", "/2"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(list.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let reply = Reply::ok(&*packed).etag("\"1\"");
    let lists = Origin::builder()
        .route("/list.txt.gz", reply.clone())
        .route("/list.txt", reply.header("Content-Encoding", "gzip"))
        .start();
    for (path, copied) in [
        ("/list.txt.gz", &packed[..]),
        ("/list.txt", list.as_bytes()),
    ] {
        let url = lists.url(path).to_string();
        sandbox.fetch(&[&url]).expect(0);
        assert!(fs::read(copy(&sandbox)).unwrap().starts_with(copied));
        let run = sandbox.fetch(&[&url]).expect(0);
        assert_eq!(run.count("unchanged"), 2);
        assert_eq!((lists.hits(path), lists.conditional(path)), (2, 1));
        fs::remove_file(copy(&sandbox)).unwrap();
    }
}

#[test]
fn type_and_place_of_a_list_are_known_of_its_copy_too() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let table = format!("name,url\na,{}\n", pictures.url("/1"));
    let feed = "<rss><channel><item><enclosure url='../7'/></item></channel></rss>";
    let lists = Origin::builder()
        .route(
            "/table",
            Reply::ok(table)
                .header("Content-Type", "text/csv; charset=utf-8")
                .etag("\"1\""),
        )
        .route("/feed", Reply::redirect(302, "/x/y/feed"))
        .route("/x/y/feed", Reply::ok(feed).etag("\"1\""))
        .route("/x/7", Reply::ok(png(7)).etag("\"7\""))
        .start();
    for path in ["/table", "/feed"] {
        let url = lists.url(path).to_string();
        assert_eq!(
            sandbox.fetch(&[&url]).expect(0).count("stored"),
            1,
            "{path}"
        );
        assert_eq!(
            sandbox.fetch(&[&url]).expect(0).count("unchanged"),
            1,
            "{path}"
        );
    }
    assert_eq!(
        (lists.conditional("/table"), lists.conditional("/x/y/feed")),
        (1, 1)
    );
}

#[test]
fn every_sitemap_of_an_index_has_a_copy_of_its_own() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let second = Arc::new(AtomicU32::new(2));
    let lists = Site::start({
        let (base, second) = (pictures.url(""), second.clone());
        move |asked| {
            let host = asked.header("host").unwrap();
            let of = |n: u32| format!("<urlset><url><loc>{base}/{n}</loc></url></urlset>");
            let n = second.load(Ordering::SeqCst);
            let (body, etag) = match asked.path.as_str() {
                "/index.xml" => (
                    format!(
                        "<sitemapindex><sitemap><loc>http://{host}/a.xml</loc></sitemap>\
                         <sitemap><loc>http://{host}/b.xml</loc></sitemap></sitemapindex>"
                    ),
                    0,
                ),
                "/a.xml" => (of(1), 1),
                _ if n == 0 => return Answer::status(404),
                _ => (of(n), n),
            };
            Answer::ok(body)
                .header("ETag", format!("\"{etag}\""))
                .unless_known(asked)
        }
    });
    let url = lists.url("/index.xml");
    sandbox.fetch(&[&url]).expect(0);
    assert_eq!(shelf(&sandbox).len(), 3);
    lists.forget();
    assert_eq!(sandbox.fetch(&[&url]).expect(0).count("unchanged"), 2);
    assert_eq!((lists.total(), lists.body_bytes()), (3, 0));

    second.store(3, Ordering::SeqCst);
    let run = sandbox.fetch(&[&url]).expect(0);
    assert_eq!((run.count("stored"), run.count("unchanged")), (1, 1));
    assert_eq!(shelf(&sandbox).len(), 3);

    second.store(0, Ordering::SeqCst);
    let run = sandbox.fetch(&[&url]).expect(1);
    run.says(&["last good copy", "/b.xml", "404"]);
    second.store(3, Ordering::SeqCst);
    lists.forget();
    assert_eq!(sandbox.fetch(&[&url]).expect(0).count("unchanged"), 2);
    assert_eq!(lists.body_bytes(), 0);
}

#[test]
fn a_list_of_which_enough_was_read_is_not_copied() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let mut list = pictures.list(["/1"]);
    list += &format!("# {}\n", "x".repeat(70)).repeat(100_000);
    list += &pictures.list(["/2"]);
    let lists = Origin::with("/list.txt", Reply::ok(list).etag("\"1\""));
    let url = lists.url("/list.txt").to_string();
    sandbox.fetch(&[&url, "--count", "1"]).expect(0);
    assert!(shelf(&sandbox).is_empty(), "{:?}", shelf(&sandbox));
}

/// Answers the next request for a list with `body`, and says when all of it is on its way.
fn serve_once(body: String) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list.txt", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
        while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let _ = tell.send(());
    });
    (url, told)
}

#[test]
fn an_origin_does_not_wait_for_the_job_to_go_on_with_its_list() {
    let sandbox = Sandbox::new();
    let gate = Gate::new();
    let pictures = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            Answer::ok(png(asked.path[1..].parse().unwrap()))
        }
    });
    // More repeats than wait for a job that waits for its first picture, and more bytes than the system holds.
    let mut list = pictures.list(["/1", "/2"]);
    list += &pictures.list(["/1"]).repeat(5000);
    list += &format!("# {}\n", "x".repeat(1000)).repeat(40_000);
    list += &pictures.list(["/3"]);
    let (url, whole_is_sent) = serve_once(list.clone());
    let running = sandbox.start(sandbox.fetch_args(&[&url, "--set", "job.window=1"]));
    whole_is_sent.recv_timeout(Duration::from_secs(60)).unwrap();
    gate.open();
    let run = running.end().expect(0);
    assert_eq!(run.count("stored"), 3);
    assert!(
        fs::read(copy(&sandbox))
            .unwrap()
            .starts_with(list.as_bytes())
    );
}

#[tokio::test]
async fn two_jobs_may_read_one_list_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| format!("https://a.example/{name}\n"));
    let lists = Origin::builder()
        .sequence(
            "/list.txt",
            [Reply::ok(one).etag("\"1\""), Reply::ok(two).etag("\"2\"")],
        )
        .start();
    let reader = Reader {
        fetch: Arc::new(origin::client("")),
        shelf: Some(Shelf::new(folder.path().join("lists"))),
        max_bytes: 1000,
        search: None,
    };
    let spec = parse_source(lists.url("/list.txt").as_str(), None).unwrap();
    let source = spec.into_source(&reader).unwrap();
    let (mut first, mut second) = (source.open().await.unwrap(), source.open().await.unwrap());
    for _ in 0..2 {
        second.next_chunk().await.unwrap();
        first.next_chunk().await.unwrap();
    }
    // Whichever ended last, its validators stand for its own bytes.
    let mut third = source.open().await.unwrap();
    let asked = lists.asked("/list.txt");
    assert_eq!(asked[2].header("if-none-match"), Some("\"1\""));
    // The origin has the second list by now.
    let chunk = third.next_chunk().await.unwrap().unwrap();
    assert!(format!("{chunk:?}").contains("/two"), "{chunk:?}");
    assert!(third.next_chunk().await.unwrap().is_none());
    let mut fourth = source.open().await.unwrap();
    let chunk = fourth.next_chunk().await.unwrap().unwrap();
    assert!(format!("{chunk:?}").contains("/two"), "{chunk:?}");
    assert_eq!((lists.total(), lists.conditional("/list.txt")), (4, 2));
    assert_eq!(walk(folder.path()).len(), 1);
}

#[test]
fn a_dry_run_uses_a_copy_and_changes_nothing() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, length) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    let path = copy(&sandbox);
    let other = path.with_file_name("0123456789abcdef0123456789abcdef.list");
    fs::write(&other, "old").unwrap();
    for path in [&path, &other] {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - 40 * DAY).unwrap();
    }
    let state = || {
        let files = shelf(&sandbox).into_iter();
        let of = |path: PathBuf| {
            (
                fs::metadata(&path).unwrap().modified().unwrap(),
                fs::read(&path).unwrap(),
                path,
            )
        };
        files.map(of).collect::<Vec<_>>()
    };
    let before = state();
    lists.forget();
    sandbox.fetch(&[&url, "--dry-run"]).expect(0);
    assert_eq!(conditions(&lists), [Some("\"2\"".to_owned())]);
    length.store(3, Ordering::SeqCst);
    let run = sandbox.fetch(&[&url, "--dry-run"]).expect(0);
    assert_eq!(run.json()["would"]["fetch"], 1);
    assert_eq!(state(), before);
}

#[test]
fn copies_that_were_of_no_use_for_a_month_go() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.fetch(&[&url]).expect(0);
    let used = copy(&sandbox);
    let key = "0123456789abcdef0123456789abcdef";
    let file = |name: String, days| {
        let path = used.with_file_name(name);
        let file = File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - days * DAY).unwrap();
        path
    };
    let recent = file(format!("{}.list", key.replace('0', "a")), 29);
    let foreign = file("notes.list".to_owned(), 100);
    let old = file(format!("{key}.list"), 31);
    let crashed = file(format!("{key}.{key}-0.part"), 0);
    let set = File::options().write(true).open(&used).unwrap();
    set.set_modified(SystemTime::now() - 20 * DAY).unwrap();
    sandbox.fetch(&[&url]).expect(0);
    assert!(recent.exists() && foreign.exists() && !old.exists() && !crashed.exists());
    let modified = fs::metadata(&used).unwrap().modified().unwrap();
    assert!(modified.elapsed().unwrap() < DAY, "its use counts");
}

#[test]
fn a_copy_holds_no_credentials_of_its_url_and_belongs_to_them() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    let of = |user: &str| format!("http://{user}:geheim@{}/list.txt", lists.address);
    sandbox.fetch(&[&of("ann")]).expect(0);
    let bytes = fs::read(copy(&sandbox)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.contains("ann:***@") && !text.contains("geheim"),
        "{text}"
    );
    sandbox.fetch(&[&of("bob")]).expect(0);
    sandbox.fetch(&[&of("ann")]).expect(0);
    assert_eq!(conditions(&lists), [None, None, Some("\"2\"".to_owned())]);
    assert_eq!(shelf(&sandbox).len(), 2);
}

#[test]
fn a_copy_that_cannot_be_written_costs_no_job() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    let url = lists.url("/list.txt");
    sandbox.write("out/.gannet/lists", "in the way");
    let run = sandbox
        .fetch(&[&url])
        .expect(0)
        .says(&["no copy of the list", &url]);
    assert_eq!(run.count("stored"), 2);
}

#[test]
fn copies_are_no_files_of_the_store() {
    let (sandbox, pictures) = (Sandbox::new(), pictures());
    let (lists, _) = growing(&pictures);
    sandbox.fetch(&[&lists.url("/list.txt")]).expect(0);
    copy(&sandbox);
    sandbox
        .run(["verify", "--set", "storage.root=out"])
        .expect(0);
}
