//! What goes, and what stays: URLs that leave their list, albums beyond their limits, old history, bytes that are kept
//! once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gannet::fault;
use support::checker::{When, violations};
use support::pictures::png;
use support::{Answer, Asked, Report, Run, Sandbox, Site, catalog};

const PRUNE: &str = "job.on_remove=prune";
const AT_ONCE: [&str; 4] = ["--set", PRUNE, "--set", "job.prune_after=0s"];

/// The numbers in a path make its picture.
fn number(asked: &Asked) -> u32 {
    let digits: String = asked.path.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Nothing that is known need be asked for again.
fn site() -> Site {
    Site::start(|asked| Answer::ok(png(number(asked))).header("Cache-Control", "max-age=3600"))
}

fn paths(n: u32) -> Vec<String> {
    (0..n).map(|n| format!("/{n}")).collect()
}

/// A list that puts each path into an album.
fn albums(site: &Site, rows: &[(&str, &str)]) -> String {
    let rows = rows
        .iter()
        .map(|(path, album)| format!("{},{album}\n", site.url(path)));
    "url,album\n".to_owned() + &rows.collect::<String>()
}

/// One in which every event is kept, so that each deletion can be looked up.
fn listened() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.fetch_list("", 0, &[]);
    catalog::want_events(&sandbox.store());
    sandbox
}

fn removed(report: &Report) -> u64 {
    report.whole["removed"].as_u64().unwrap()
}

#[track_caller]
fn in_order(sandbox: &Sandbox) {
    let wrong = violations(sandbox, When::Restarted);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reason and path of every deletion that waits to be told.
fn deletions(sandbox: &Sandbox) -> Vec<(String, String)> {
    let (_copy, db) = catalog::open(&sandbox.store());
    let mut query = db
        .prepare(
            "SELECT json_extract(payload, '$.reason'), json_extract(payload, '$.path') FROM events \
             WHERE event = 'file.deleted' ORDER BY id",
        )
        .unwrap();
    let events = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    events.unwrap().collect::<Result<_, _>>().unwrap()
}

fn inode(sandbox: &Sandbox, path: &str) -> u64 {
    std::fs::metadata(sandbox.store().join(path)).unwrap().ino()
}

/// As [`Sandbox::fetch`], with a fault.
fn fetch_with_fault(sandbox: &Sandbox, args: &[&str], fault: &str) -> Run {
    let mut command = sandbox.command(sandbox.fetch_args(args));
    command.env(fault::VARIABLE, fault);
    support::sandbox::start(command, None).end()
}

// ---- Gone from the list

#[test]
fn a_list_that_shrinks_to_a_tenth_prunes_nothing_and_says_so() {
    let (sandbox, site) = (listened(), site());
    let first = sandbox.fetch_list(site.list(paths(20)), 0, &AT_ONCE);
    assert_eq!((first.count("stored"), removed(&first)), (20, 0));
    assert!(first.whole["warnings"].is_null());
    for _ in 0..2 {
        let shrunk = sandbox.fetch_list(site.list(paths(2)), 0, &AT_ONCE);
        assert_eq!((removed(&shrunk), sandbox.files().len()), (0, 20));
        let warning = shrunk.whole["warnings"][0].as_str().unwrap();
        assert!(warning.contains("18 of the 20"), "{warning}");
        shrunk.run.says(&["18 of the 20", "job.prune_limit=100"]);
    }
    // An empty list is one that has lost everything.
    let empty = sandbox.fetch_list("", 0, &AT_ONCE);
    assert_eq!((removed(&empty), sandbox.files().len()), (0, 20));

    let mut meant = AT_ONCE.to_vec();
    meant.extend(["--set", "job.prune_limit=100"]);
    let shrunk = sandbox.fetch_list(site.list(paths(2)), 0, &meant);
    assert_eq!((removed(&shrunk), sandbox.files().len()), (18, 2));
    in_order(&sandbox);
}

#[test]
fn what_leaves_a_list_goes_after_the_grace_and_comes_back_with_it() {
    let (sandbox, site) = (listened(), site());
    let mut rows: Vec<(String, &str)> = paths(20).into_iter().map(|path| (path, "")).collect();
    rows[0].1 = "old";
    rows[1].1 = "old";
    let list = |rows: &[(String, &str)]| {
        let rows: Vec<(&str, &str)> = rows.iter().map(|(path, album)| (&**path, *album)).collect();
        albums(&site, &rows)
    };
    let prune = ["--set", PRUNE];
    let fetch = |rows: &[(String, &str)]| sandbox.fetch_list(list(rows), 0, &prune);
    fetch(&rows);
    assert_eq!(removed(&fetch(&rows[2..])), 0);
    catalog::change(
        &sandbox.store(),
        "UPDATE listed SET gone_since = gone_since - 6 * 86400000; UPDATE urls SET seen = seen - 6 * 86400000",
    );
    assert_eq!(removed(&fetch(&rows[2..])), 0);
    catalog::change(
        &sandbox.store(),
        "UPDATE listed SET gone_since = gone_since - 2 * 86400000; UPDATE urls SET seen = seen - 2 * 86400000",
    );
    let pruned = fetch(&rows[2..]);
    assert_eq!((removed(&pruned), sandbox.files().len()), (2, 18));
    assert!(pruned.run.stderr.contains("2 removed"));
    assert!(!sandbox.store().join("old").exists());
    let told = deletions(&sandbox);
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .all(|(reason, path)| reason == "pruned" && path.starts_with("old/"))
    );
    in_order(&sandbox);

    let back = fetch(&rows);
    assert_eq!((back.count("stored"), back.count("unchanged")), (2, 18));
    assert_eq!((removed(&fetch(&rows)), sandbox.files().len()), (0, 20));
}

#[test]
fn what_another_url_or_list_stands_for_stays() {
    let (sandbox, site) = (listened(), site());
    // `/a5` and `/b5` are one picture.
    let mut once = AT_ONCE.to_vec();
    once.extend(["--set", "job.dedupe=album", "--set", "job.prune_limit=60"]);
    let both = sandbox.fetch_list(site.list(["/a5", "/b5", "/6"]), 0, &once);
    assert_eq!(both.count("duplicate"), 1);
    let one = sandbox.fetch_list(site.list(["/b5", "/6"]), 0, &once);
    assert_eq!((removed(&one), sandbox.files().len()), (0, 2));
    let none = sandbox.fetch_list(site.list(["/6"]), 0, &once);
    assert_eq!((removed(&none), sandbox.files().len()), (1, 1));

    // Two lists have `/7`, and both have to lose it. The second had it before the first lost it.
    let fetch = |name: &str, paths: &[&str]| {
        sandbox.write(name, site.list(paths));
        let mut args = once.clone();
        args.push(name);
        removed(&sandbox.fetch_report(0, &args))
    };
    fetch("other.txt", &["/7", "/8"]);
    fetch("one.txt", &["/7", "/9"]);
    assert_eq!(fetch("one.txt", &["/9"]), 0);
    assert_eq!(fetch("other.txt", &["/8"]), 1);
    in_order(&sandbox);
}

#[test]
fn a_list_that_was_not_read_to_its_end_prunes_nothing() {
    let (sandbox, site) = (listened(), site());
    let mut args = AT_ONCE.to_vec();
    args.extend(["--set", "job.prune_limit=100"]);
    sandbox.fetch_list(site.list(paths(10)), 0, &args);
    let stays = |report: u64, what: &str| {
        assert_eq!((report, sandbox.files().len()), (0, 10), "{what}");
    };
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>";
    sandbox.write("list.txt", page);
    sandbox.fetch(&[&["list.txt"], &*args].concat()).expect(1);
    stays(0, "a page");
    std::fs::remove_file(sandbox.path("list.txt")).unwrap();
    sandbox.fetch(&[&["list.txt"], &*args].concat()).expect(1);
    stays(0, "no file");
    let part = [&args[..], &["--count", "0"]].concat();
    stays(removed(&sandbox.fetch_list("", 0, &part)), "a number");
    let part = [&args[..], &["--shard", "1/2"]].concat();
    stays(removed(&sandbox.fetch_list("", 0, &part)), "a share");
    // What is not read again has nothing to do with what was read before.
    let url = site.url("/1");
    let only = [&["-u", &url], &args[..]].concat();
    stays(removed(&sandbox.fetch_report(0, &only)), "a URL");
    let piped = sandbox.fetch_args(&[&["-"], &args[..]].concat());
    for list in [site.list(["/1", "/2"]), site.list(["/1"])] {
        let run = sandbox.run_fed(list, &piped).expect(0);
        stays(run.json()["removed"].as_u64().unwrap(), "a pipe");
    }
    // Jobs that keep do not look.
    stays(
        removed(&sandbox.fetch_list(site.list(paths(1)), 0, &[])),
        "keep",
    );
    let pruned = sandbox.fetch_list(site.list(paths(1)), 0, &args);
    assert_eq!((removed(&pruned), sandbox.files().len()), (9, 1));
}

#[test]
fn an_index_with_a_part_that_cannot_be_read_prunes_nothing() {
    let is_down = Arc::new(AtomicU32::new(0));
    let site = Site::start({
        let is_down = is_down.clone();
        move |asked| {
            let host = asked.header("host").unwrap();
            let urls = |paths: &[&str], outer: &str, inner: &str| {
                let locs = paths
                    .iter()
                    .map(|path| format!("<{inner}><loc>http://{host}{path}</loc></{inner}>"));
                let xmlns = "xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\"";
                let locs = locs.collect::<String>();
                Answer::ok(format!("<{outer} {xmlns}>{locs}</{outer}>"))
            };
            match asked.path.as_str() {
                "/index.xml" => urls(&["/a.xml", "/b.xml"], "sitemapindex", "sitemap"),
                "/a.xml" => urls(&["/1", "/2"], "urlset", "url"),
                "/b.xml" if is_down.load(Ordering::SeqCst) == 1 => Answer::status(404),
                "/b.xml" => urls(&["/3"], "urlset", "url"),
                _ => Answer::ok(png(number(asked))),
            }
        }
    });
    let sandbox = listened();
    let index = site.url("/index.xml");
    let mut args = AT_ONCE.to_vec();
    args.extend(["--set", "job.prune_limit=100", &index]);
    assert_eq!(sandbox.fetch_report(0, &args).count("stored"), 3);
    is_down.store(1, Ordering::SeqCst);
    let report = sandbox.fetch_report(1, &args);
    assert_eq!((removed(&report), sandbox.files().len()), (0, 3));
}

// ---- What is not gannet's

/// The paths that the report's warnings name, and what they say of them.
fn warnings(report: &Report) -> String {
    let warnings = report.whole["warnings"].as_array().into_iter().flatten();
    warnings.map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn nothing_is_removed_through_a_link_that_took_the_place_of_an_album() {
    let (sandbox, site) = (listened(), site());
    let rows = [("/1", "cats"), ("/2", "cats"), ("/3", "dogs")];
    let list = albums(&site, &rows);
    let args = [&AT_ONCE[..], &["--set", "job.prune_limit=100"]].concat();
    let first = sandbox.fetch_list(&list, 0, &args);
    std::fs::remove_dir_all(sandbox.store().join("cats")).unwrap();
    std::os::unix::fs::symlink("../home", sandbox.store().join("cats")).unwrap();
    let mut theirs = Vec::new();
    for item in first.items().iter().filter(|item| item["album"] == "cats") {
        let name = item["path"].as_str().unwrap();
        let name = name.replace("cats/", "home/");
        // Of the same length: only the path tells.
        let bytes = vec![7; item["bytes"].as_u64().unwrap() as usize];
        theirs.push((sandbox.write(&name, &bytes), bytes));
    }
    let forget = "UPDATE files SET mtime_ns = NULL";
    catalog::change(&sandbox.store(), forget);
    let few = ["--set", "retention.max_age=1ms"];
    for report in [
        sandbox.fetch_list(albums(&site, &rows[2..]), 0, &args),
        sandbox.fetch_list(albums(&site, &[("/404", "cats")]), 3, &few),
    ] {
        assert_eq!(removed(&report), 0, "{}", report.run);
        for (path, bytes) in &theirs {
            assert_eq!(std::fs::read(path).unwrap(), *bytes);
        }
        let told = warnings(&report);
        assert!(told.contains("is a symbolic link"), "{told}");
        report
            .run
            .says(&["is a symbolic link", "nor can 1 more file"]);
    }
    assert_eq!(catalog::files(&sandbox.store()).len(), 3);
}

#[test]
fn what_somebody_altered_or_put_there_stays_and_is_told_of_once() {
    let (sandbox, site) = (listened(), site());
    let report = sandbox.fetch_list(site.list(paths(10)), 0, &AT_ONCE);
    let path = |n: usize| {
        let item = report.of(&site.url(&format!("/{n}")));
        sandbox.store().join(item["path"].as_str().unwrap())
    };
    // Longer; of the same length; gone; a folder.
    std::fs::write(path(0), [png(0), vec![0]].concat()).unwrap();
    std::fs::write(path(1), png(1)).unwrap();
    std::fs::remove_file(path(2)).unwrap();
    std::fs::remove_file(path(3)).unwrap();
    std::fs::create_dir(path(3)).unwrap();
    for n in [0, 1, 3] {
        let name = path(n).file_name().unwrap().to_owned();
        let first = format!(
            "UPDATE files SET stored = 1 WHERE path = '{}'",
            name.display()
        );
        catalog::change(&sandbox.store(), &first);
    }
    let shrunk = site.list(&paths(10)[5..]);
    let args = [&AT_ONCE[..], &["--set", "job.prune_limit=50"]].concat();
    let limited = [&args[..], &["--set", "retention.max_files=5"]].concat();
    for (args, gone) in [(&args, 1), (&limited, 0)] {
        let report = sandbox.fetch_list(&shrunk, 0, args);
        assert_eq!(removed(&report), gone, "{}", report.run);
        let told = warnings(&report);
        for word in ["cannot be removed", "nor can 2 more files"] {
            assert_eq!(told.matches(word).count(), 1, "{told}");
            let log = &report.run.stderr;
            assert_eq!(log.matches(word).count(), 1, "{log}");
        }
    }
    assert!(path(0).exists() && path(1).exists() && path(3).is_dir());
    // The record of what was gone went with it.
    assert_eq!(catalog::files(&sandbox.store()).len(), 8);
    assert_eq!(deletions(&sandbox).len(), 2);
}

// ---- Beyond the limits

#[test]
fn an_album_keeps_its_newest_files() {
    let (sandbox, site) = (listened(), site());
    let early = [
        ("/1", "cats"),
        ("/2", "cats"),
        ("/3", "cats"),
        ("/4", "dogs"),
        ("/5", "dogs"),
    ];
    sandbox.fetch_list(albums(&site, &early), 0, &[]);
    let late = albums(&site, &[("/6", "cats"), ("/7", "cats")]);
    let few = ["--set", "retention.max_files=3"];
    let report = sandbox.fetch_list(&late, 0, &few);
    assert_eq!((report.count("stored"), removed(&report)), (2, 2));
    // An album that the job has nothing to do with is left alone.
    let in_album = |album: &str| {
        let names = sandbox.names().into_iter();
        names.filter(|name| name.starts_with(album)).count()
    };
    assert_eq!((in_album("cats/"), in_album("dogs/")), (3, 2));
    for item in report.items() {
        assert!(
            sandbox
                .store()
                .join(item["path"].as_str().unwrap())
                .exists()
        );
    }
    let told = deletions(&sandbox);
    assert!(told.len() == 2 && told.iter().all(|(reason, _)| reason == "retention"));

    let bytes = format!("retention.max_bytes={}", 2 * png(6).len());
    let report = sandbox.fetch_list(&late, 0, &["--set", &bytes]);
    assert_eq!((report.count("unchanged"), removed(&report)), (2, 1));
    assert_eq!(in_album("cats/"), 2);
    in_order(&sandbox);
}

#[test]
fn an_album_keeps_its_files_for_as_long_as_it_is_told() {
    let (sandbox, site) = (listened(), site());
    sandbox.fetch_list(site.list(paths(4)), 0, &[]);
    catalog::change(
        &sandbox.store(),
        "UPDATE files SET stored = stored - 31 * 86400000 WHERE id IN (SELECT id FROM files ORDER BY id LIMIT 3)",
    );
    let list = site.list(["/9"]);
    for none in ["retention.max_age=0", "retention.max_age=0s"] {
        assert_eq!(removed(&sandbox.fetch_list(&list, 0, &["--set", none])), 0);
    }
    let aged = ["--set", "retention.max_age=30d"];
    assert_eq!(removed(&sandbox.fetch_list(&list, 0, &aged)), 3);
    assert_eq!(sandbox.files().len(), 2);
    in_order(&sandbox);
}

#[test]
fn jobs_of_a_clock_that_was_ahead_are_listed_last() {
    let (sandbox, site) = (Sandbox::new(), site());
    let list = site.list(paths(1));
    for _ in 0..3 {
        sandbox.fetch_list(&list, 0, &[]);
    }
    let ids = |extra: &[&str]| -> Vec<String> {
        let args = [&["jobs", "-o", "out", "--json"], extra].concat();
        let jobs = sandbox.run(args).expect(0).json();
        let ids = jobs.as_array().unwrap().iter();
        ids.map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = ids(&[]);
    let text = sandbox.run(["jobs", "-o", "out"]).expect(0);
    assert!(!text.out().contains("future"), "{text}");
    // The first two began in the year 2248.
    let ahead = [
        "08000000-0000-7000-8000-000000000001",
        "08000000-0000-7000-8000-000000000002",
    ];
    for (id, ahead) in before.iter().rev().zip(ahead) {
        let (id, ahead) = (id.replace('-', ""), ahead.replace('-', ""));
        let change = format!(
            "UPDATE jobs SET id = X'{ahead}', started = started + 7000000000000 WHERE id = X'{id}'"
        );
        catalog::change(&sandbox.store(), &change);
    }
    assert_eq!(ids(&[]), [before[0].as_str(), ahead[1], ahead[0]]);
    assert_eq!(ids(&["--limit", "1"]), before[..1]);
    let text = sandbox.run(["jobs", "-o", "out"]).expect(0);
    let said = "2 jobs are dated in the future, by a clock that was ahead; they are listed last";
    assert!(text.out().contains(said), "{text}");
    let last = sandbox.run(["jobs", "-o", "out", "last"]).expect(0);
    assert!(last.out().contains(&before[0]), "{last}");
}

#[test]
fn old_history_goes() {
    let (sandbox, site) = (Sandbox::new(), site());
    let list = site.list(paths(2));
    let rows = |table: &str| -> i64 {
        let (_copy, db) = catalog::open(&sandbox.store());
        let count = format!("SELECT count(*) FROM {table}");
        db.query_row(&count, [], |row| row.get(0)).unwrap()
    };
    sandbox.fetch_list(&list, 0, &[]);
    sandbox.fetch_list(&list, 0, &["--set", "retention.max_files=1"]);
    assert_eq!((rows("jobs"), rows("outcomes")), (2, 2));
    assert_eq!(rows("events"), 0, "nobody wants any");
    catalog::change(
        &sandbox.store(),
        "UPDATE jobs SET finished = finished - 366 * 86400000",
    );
    sandbox.fetch_list(&list, 0, &["--set", "retention.jobs=0s"]);
    assert_eq!(rows("jobs"), 3);
    sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(rows("jobs"), 2);
    assert_eq!(rows("outcomes"), 1, "of the file that came again");
    in_order(&sandbox);
}

// ---- Bytes that are kept once

const STORE: [&str; 2] = ["--set", "job.dedupe=store"];

#[test]
fn the_same_bytes_in_two_albums_are_one_file_on_disk_and_two_in_all_else() {
    let version = Arc::new(AtomicU32::new(1));
    let site = Site::start({
        let version = version.clone();
        move |asked| match asked.path.as_str() {
            "/a" => Answer::ok(png(version.load(Ordering::SeqCst))),
            _ => Answer::ok(png(1)),
        }
    });
    let sandbox = listened();
    // In one batch, in a later one, and in an album that has it already.
    let two = albums(&site, &[("/a", "cats"), ("/b", "dogs")]);
    let report = sandbox.fetch_list(&two, 0, &STORE);
    assert_eq!((report.count("stored"), report.count("duplicate")), (1, 1));
    assert_eq!(report.whole["bytes"], png(1).len() as u64);
    let birds = albums(&site, &[("/c", "birds"), ("/d", "birds")]);
    let later = sandbox.fetch_list(&birds, 0, &STORE);
    assert_eq!((later.count("stored"), later.count("duplicate")), (0, 2));
    assert_eq!(sandbox.files().len(), 3);
    let path = |report: &Report, at: &str| {
        let path = report.of(&site.url(at))["path"].as_str().unwrap();
        path.to_owned()
    };
    let (cat, dog, bird) = (path(&report, "/a"), path(&report, "/b"), path(&later, "/c"));
    assert_eq!(inode(&sandbox, &cat), inode(&sandbox, &dog));
    assert_eq!(inode(&sandbox, &cat), inode(&sandbox, &bird));
    in_order(&sandbox);
    let again = sandbox.fetch_list(&two, 0, &STORE);
    assert_eq!(again.count("unchanged"), 2);

    // One changes, and goes: the others are as they were.
    version.store(2, Ordering::SeqCst);
    let changed = sandbox.fetch_list(&two, 0, &[]);
    assert_eq!(
        (changed.count("changed"), changed.count("unchanged")),
        (1, 1)
    );
    assert_eq!(
        (path(&changed, "/a"), path(&changed, "/b")),
        (cat.clone(), dog.clone())
    );
    let files = sandbox.files();
    assert!(files[&cat] == png(2) && files[&dog] == png(1) && files[&bird] == png(1));
    let only = albums(&site, &[("/e2", "dogs")]);
    let few = ["--set", "retention.max_files=1"];
    assert_eq!(removed(&sandbox.fetch_list(only, 0, &few)), 1);
    assert!(!sandbox.files().contains_key(&dog));
    assert_eq!(sandbox.files()[&bird], png(1));
    in_order(&sandbox);
}

#[test]
fn what_somebody_altered_is_not_linked() {
    let (sandbox, site) = (listened(), Site::start(|_| Answer::ok(png(1))));
    let first = sandbox.fetch_list(albums(&site, &[("/a", "cats")]), 0, &STORE);
    let path = first.only()["path"].as_str().unwrap();
    let mut altered = png(1);
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(sandbox.store().join(path), &altered).unwrap();
    let second = sandbox.fetch_list(albums(&site, &[("/b", "dogs")]), 0, &STORE);
    assert_eq!(second.count("stored"), 1);
    let other = second.only()["path"].as_str().unwrap();
    assert_eq!(sandbox.files()[other], png(1));
}

#[test]
fn where_nothing_can_be_linked_the_bytes_are_kept() {
    if !fault::COMPILED_IN {
        return;
    }
    let (sandbox, site) = (listened(), Site::start(|_| Answer::ok(png(1))));
    sandbox.write("list.csv", albums(&site, &[("/a", "cats"), ("/b", "dogs")]));
    let args = [&["list.csv"], &STORE[..]].concat();
    let run = fetch_with_fault(&sandbox, &args, "store.link.before:1+=eio").expect(0);
    assert_eq!((run.count("stored"), run.count("duplicate")), (2, 0));
    let inodes = sandbox
        .names()
        .into_iter()
        .map(|name| inode(&sandbox, &name));
    let inodes: std::collections::BTreeSet<u64> = inodes.collect();
    assert_eq!(inodes.len(), 2);
    in_order(&sandbox);
}

#[test]
fn a_file_that_two_urls_stand_for_is_not_replaced() {
    let version = Arc::new(AtomicU32::new(1));
    let site = Site::start({
        let version = version.clone();
        move |asked| match asked.path.as_str() {
            "/a" => Answer::ok(png(version.load(Ordering::SeqCst))),
            _ => Answer::ok(png(1)),
        }
    });
    let sandbox = listened();
    let list = site.list(["/a", "/b"]);
    let once = ["--set", "job.dedupe=album"];
    assert_eq!(sandbox.fetch_list(&list, 0, &once).count("duplicate"), 1);
    version.store(2, Ordering::SeqCst);
    for _ in 0..2 {
        let report = sandbox.fetch_list(&list, 0, &[]);
        let bytes = |path: &str| {
            let path = report.of(&site.url(path))["path"].as_str().unwrap();
            sandbox.files()[path].clone()
        };
        assert!(bytes("/a") == png(2) && bytes("/b") == png(1));
    }
    assert_eq!(sandbox.files().len(), 2);
    in_order(&sandbox);
}

/// An origin that has the same picture everywhere, but for `/still`: the one that the counter says.
fn changing() -> (Site, Arc<AtomicU32>) {
    let version = Arc::new(AtomicU32::new(1));
    let site = Site::start({
        let version = version.clone();
        move |asked| match asked.path.as_str() {
            "/still" => Answer::ok(png(0)),
            _ => Answer::ok(png(version.load(Ordering::SeqCst))),
        }
    });
    (site, version)
}

#[test]
fn a_file_for_which_no_url_stands_any_more_goes_when_its_bytes_are_replaced() {
    let (site, version) = changing();
    // How contents are kept at first and from then on, the list at first and from then on, how many files there are
    // after each change, and how many went in three of them.
    let albums = albums(&site, &[("/a", "cats"), ("/b", "cats"), ("/c", "dogs")]);
    let (two, one) = (site.list(["/a", "/b"]), site.list(["/a"]));
    for (before, after, list, next, files, replaced) in [
        ("album", "album", &two, &two, 1, 3),
        ("album", "album", &one, &one, 1, 3),
        ("album", "off", &two, &two, 2, 1),
        ("store", "store", &two, &two, 1, 3),
        ("store", "store", &albums, &albums, 2, 6),
        // The other URL still stands for it.
        ("album", "album", &two, &one, 2, 2),
    ] {
        let sandbox = listened();
        let case = format!("{before}, {after}, {list}, {next}");
        let set = |dedupe: &str| format!("job.dedupe={dedupe}");
        sandbox.fetch_list(list, 0, &["--set", &set(before)]);
        for _ in 0..3 {
            version.fetch_add(1, Ordering::SeqCst);
            let now = png(version.load(Ordering::SeqCst));
            let report = sandbox.fetch_list(next, 0, &["--set", &set(after)]);
            assert_eq!(removed(&report), 0, "{case}");
            let there = sandbox.files();
            assert_eq!(there.len(), files, "{case}");
            for item in report.items() {
                assert!(there[item["path"].as_str().unwrap()] == now, "{case}");
            }
            in_order(&sandbox);
        }
        let told = deletions(&sandbox);
        assert_eq!(told.len(), replaced, "{case}");
        assert!(told.iter().all(|(reason, _)| reason == "replaced"));
    }
}

#[test]
fn a_file_goes_when_its_url_brings_what_another_one_has() {
    let (site, version) = changing();
    let sandbox = listened();
    let list = site.list(["/a", "/still"]);
    let once = ["--set", "job.dedupe=album"];
    assert_eq!(sandbox.fetch_list(&list, 0, &once).count("stored"), 2);
    version.store(0, Ordering::SeqCst);
    assert_eq!(sandbox.fetch_list(&list, 0, &once).count("duplicate"), 1);
    assert_eq!(sandbox.files().into_values().collect::<Vec<_>>(), [png(0)]);
    in_order(&sandbox);
    // A series keeps what it had.
    version.store(5, Ordering::SeqCst);
    let series = [&once[..], &["--set", "job.on_change=keep"]].concat();
    for _ in 0..2 {
        version.fetch_add(1, Ordering::SeqCst);
        sandbox.fetch_list(&list, 0, &series);
    }
    assert_eq!(sandbox.files().len(), 3);
    in_order(&sandbox);
}

#[test]
fn a_replaced_file_that_somebody_altered_stays_and_is_told() {
    let (site, version) = changing();
    let sandbox = listened();
    let list = site.list(["/a", "/still"]);
    let once = ["--set", "job.dedupe=album"];
    let first = sandbox.fetch_list(&list, 0, &once);
    let path = first.of(&site.url("/a"))["path"].as_str().unwrap();
    std::fs::write(sandbox.store().join(path), png(9)).unwrap();
    version.store(0, Ordering::SeqCst);
    let report = sandbox.fetch_list(&list, 0, &once);
    assert_eq!(report.count("duplicate"), 1);
    assert_eq!(sandbox.files()[path], png(9));
    let told = warnings(&report);
    assert!(told.contains(path) && told.contains("altered"), "{told}");
}

// ---- A series

#[test]
fn fifty_polls_of_a_webcam_are_fifty_files_in_order() {
    let polls = Arc::new(AtomicU32::new(0));
    let site = Site::start({
        let polls = polls.clone();
        move |_| {
            Answer::ok(png(polls.fetch_add(1, Ordering::SeqCst)))
                .header("Content-Disposition", "inline; filename=gate.png")
        }
    });
    let sandbox = listened();
    sandbox.write("list.txt", site.list(["/cam"]));
    for _ in 0..50 {
        let series = [
            "list.txt",
            "--set",
            "job.on_change=keep",
            "--set",
            "storage.sync=false",
        ];
        sandbox.fetch(&series).expect(0);
    }
    let files: Vec<(String, Vec<u8>)> = sandbox.files().into_iter().collect();
    assert_eq!(files.len(), 50);
    for (n, (name, bytes)) in files.iter().enumerate() {
        assert_eq!(*bytes, png(n as u32), "{name} is not poll {n}");
    }
    in_order(&sandbox);
    // The newest of them stay.
    let few = [
        "list.txt",
        "--set",
        "job.on_change=keep",
        "--set",
        "retention.max_files=10",
    ];
    sandbox.fetch(&few).expect(0);
    let kept: Vec<Vec<u8>> = sandbox.files().into_values().collect();
    let newest: Vec<Vec<u8>> = (41..51).map(png).collect();
    assert_eq!(kept, newest);
}

// ---- Albums

#[test]
fn albums_are_listed_with_what_they_hold() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox
        .run(["albums", "-o", "out"])
        .expect(1)
        .says(&["no catalog"]);
    sandbox.fetch_list("", 0, &[]);
    assert_eq!(
        sandbox.run(["albums", "-o", "out"]).expect(0).out(),
        "no albums yet\n"
    );
    let list = albums(&site, &[("/1", ""), ("/2", "cats"), ("/3", "cats")]);
    sandbox.fetch_list(list, 0, &[]);
    let text = sandbox.run(["albums", "-o", "out"]).expect(0);
    let lines: Vec<Vec<&str>> = text
        .out()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!((lines[1][0], lines[1].last()), ("1", Some(&".")));
    assert_eq!((lines[2][0], lines[2].last()), ("2", Some(&"cats")));
    let json = sandbox
        .run(["albums", "-o", "out", "--json"])
        .expect(0)
        .json();
    assert!(json[0]["name"].is_null());
    assert_eq!(
        (&json[1]["name"], &json[1]["files"]),
        (&"cats".into(), &2.into())
    );
    assert_eq!(json[1]["bytes"], (png(2).len() + png(3).len()) as u64);
    assert!(json[1]["newest"].as_str().unwrap().starts_with("20"));
}

// ---- Killed meanwhile

#[test]
fn a_kill_while_files_are_removed_leaves_each_whole_or_gone() {
    if !fault::COMPILED_IN {
        return;
    }
    for point in [
        "store.withdraw.before:2",
        "store.withdraw.one:2",
        "job.files-withdrawn:1",
        "job.files-deleted:1",
        "store.discard.before:2",
        "store.discard.one:2",
    ] {
        let (sandbox, site) = (listened(), site());
        sandbox.write("list.txt", site.list(paths(10)));
        let args = [&["list.txt", "--set", "job.prune_limit=50"], &AT_ONCE[..]].concat();
        sandbox.fetch(&args).expect(0);
        let before: BTreeMap<String, Vec<u8>> = sandbox.files();
        sandbox.write("list.txt", site.list(paths(6)));
        fetch_with_fault(&sandbox, &args, &format!("{point}=kill")).expect(137);
        let wrong = violations(&sandbox, When::Crashed);
        assert!(wrong.is_empty(), "{point}:\n{}", wrong.join("\n"));
        sandbox.write("empty.txt", "");
        sandbox.fetch(&["empty.txt"]).expect(0);
        in_order(&sandbox);
        let files = sandbox.files();
        assert!(
            files.iter().all(|(name, bytes)| before[name] == *bytes),
            "{point}"
        );
        let were_deleted = point.contains("deleted") || point.contains("discard");
        assert_eq!(files.len(), if were_deleted { 6 } else { 10 }, "{point}");
        sandbox.fetch(&args).expect(0);
        assert_eq!(sandbox.files().len(), 6, "{point}");
        in_order(&sandbox);
    }
}

#[test]
fn a_kill_while_a_replaced_file_is_removed_leaves_everything_in_order() {
    if !fault::COMPILED_IN {
        return;
    }
    for point in [
        "catalog.committed:1",
        "store.publish.one:1",
        "store.withdraw.before:1",
        "store.withdraw.one:1",
        "job.files-withdrawn:1",
        "job.files-deleted:1",
        "store.discard.one:2",
    ] {
        let (site, version) = changing();
        let sandbox = listened();
        sandbox.write("list.txt", site.list(["/a", "/b"]));
        let args = [
            "list.txt",
            "--set",
            "job.dedupe=album",
            "--set",
            "storage.commit_interval=1s",
        ];
        sandbox.fetch(&args).expect(0);
        version.store(2, Ordering::SeqCst);
        fetch_with_fault(&sandbox, &args, &format!("{point}=kill")).expect(137);
        let wrong = violations(&sandbox, When::Crashed);
        assert!(wrong.is_empty(), "{point}:\n{}", wrong.join("\n"));
        sandbox.fetch(&args).expect(0);
        in_order(&sandbox);
        assert!(sandbox.files().into_values().any(|bytes| bytes == png(2)));
    }
}

#[test]
fn what_cannot_be_removed_stays_and_is_told() {
    if !fault::COMPILED_IN {
        return;
    }
    for (fault, code, left) in [
        ("store.withdraw.before:2=eio", 0, 7),
        ("store.withdraw.one:2=eio", 0, 7),
        ("store.withdraw.before:1+=eio", 0, 10),
        // They are gone from the album, and the next start deletes them.
        ("store.discard.before:1+=eio", 0, 6),
    ] {
        let (sandbox, site) = (listened(), site());
        let list = site.list(paths(10));
        let args = [&["list.txt", "--set", "job.prune_limit=50"], &AT_ONCE[..]].concat();
        sandbox.fetch_list(&list, 0, &args[1..]);
        sandbox.write("list.txt", site.list(paths(6)));
        let run = fetch_with_fault(&sandbox, &args, fault).expect(code);
        assert_eq!(sandbox.files().len(), left, "{fault}\n{run}");
        assert_eq!(run.json()["removed"], 10 - left, "{fault}");
        assert_eq!(
            run.stderr.contains("cannot be removed"),
            left > 6,
            "{fault}"
        );
        let wrong = violations(&sandbox, When::Crashed);
        assert!(wrong.is_empty(), "{fault}:\n{}", wrong.join("\n"));
        sandbox.fetch(&args).expect(0);
        assert_eq!(sandbox.files().len(), 6, "{fault}");
        in_order(&sandbox);
    }
}

#[test]
fn a_kill_while_bytes_are_linked_leaves_everything_in_order() {
    if !fault::COMPILED_IN {
        return;
    }
    for point in [
        "store.link.before:2",
        "store.discard.before:1",
        "catalog.committed:1",
        "store.publish.one:3",
    ] {
        let (sandbox, site) = (listened(), Site::start(|_| Answer::ok(png(1))));
        let rows = [("/a", "a"), ("/b", "b"), ("/c", "c"), ("/d", "d")];
        sandbox.write("list.csv", albums(&site, &rows));
        let args = [
            &["list.csv", "--set", "storage.commit_interval=1s"],
            &STORE[..],
        ]
        .concat();
        fetch_with_fault(&sandbox, &args, &format!("{point}=kill")).expect(137);
        let wrong = violations(&sandbox, When::Crashed);
        assert!(wrong.is_empty(), "{point}:\n{}", wrong.join("\n"));
        sandbox.fetch(&args).expect(0);
        assert_eq!(sandbox.files().len(), 4, "{point}");
        in_order(&sandbox);
    }
}
