//! The second run and all later ones: nothing is brought twice, what changed or was lost is brought again.
//! `crash.rs` has the runs that do not reach their end.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use gannet::fault;
use support::pictures::png;
use support::site::Gate;
use support::{Answer, Asked, Run, Sandbox, Site, catalog, sha256};

const DATE: &str = "Tue, 01 Oct 2024 10:00:00 GMT";

fn number(asked: &Asked) -> u32 {
    asked.path[1..].parse().unwrap_or(0)
}

fn paths(n: u32) -> Vec<String> {
    (0..n).map(|n| format!("/{n}")).collect()
}

/// Inode and time of every visible file.
fn identities(sandbox: &Sandbox) -> BTreeMap<String, (u64, i64, i64)> {
    let names = sandbox.names().into_iter().map(|name| {
        let stat = std::fs::metadata(sandbox.store().join(&name)).unwrap();
        (name, (stat.ino(), stat.mtime(), stat.mtime_nsec()))
    });
    names.collect()
}

/// What is visible is recorded with its sha256; with `complete`, what is recorded is visible too.
#[track_caller]
fn assert_in_order(sandbox: &Sandbox, complete: bool) {
    let recorded = catalog::files(&sandbox.store());
    let visible = sandbox.files();
    for (name, bytes) in &visible {
        let record = recorded
            .get(name)
            .unwrap_or_else(|| panic!("{name} is visible and not recorded"));
        assert_eq!(record.sha256, sha256(bytes), "{name}");
        assert_eq!(record.bytes, bytes.len() as i64, "{name}");
    }
    if complete {
        for name in recorded.keys() {
            assert!(visible.contains_key(name), "{name} is recorded and missing");
        }
        assert_eq!(sandbox.staged(), Vec::<std::path::PathBuf>::new());
    }
}

// ---- Unchanged

/// Two runs of twenty targets on a site that answers with these headers; the second gets `answer`.
fn second_run(headers: &'static [(&str, &str)], args: &[&str]) -> (Sandbox, Site, u64) {
    let sandbox = Sandbox::new();
    let site = Site::start(move |asked| {
        let answer = Answer::ok(png(number(asked)));
        let answer = headers
            .iter()
            .fold(answer, |answer, (name, value)| answer.header(name, value));
        answer.unless_known(asked)
    });
    let list = site.list(paths(20));
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("stored"), 20);
    assert_in_order(&sandbox, true);
    let before = identities(&sandbox);
    site.forget();
    let report = sandbox.fetch_list(&list, 0, args);
    assert_eq!(report.count("unchanged"), 20, "{}", report.whole);
    assert_eq!(report.items().len(), 20);
    assert_eq!(identities(&sandbox), before, "something was written again");
    assert_in_order(&sandbox, true);
    for item in report.items() {
        assert!(
            item["path"].is_string() && item["sha256"].is_string(),
            "{item}"
        );
    }
    let bodies = site.body_bytes();
    (sandbox, site, bodies)
}

#[test]
fn an_etag_costs_one_conditional_request_and_no_body() {
    let (_, site, bodies) = second_run(&[("ETag", "\"v1\"")], &[]);
    assert_eq!((site.total(), bodies), (20, 0));
    for asked in site.asked() {
        assert_eq!(asked.header("if-none-match"), Some("\"v1\""));
    }
}

#[test]
fn a_weak_etag_will_do() {
    let (_, site, bodies) = second_run(&[("ETag", "W/\"v1\"")], &[]);
    assert_eq!((site.total(), bodies), (20, 0));
}

#[test]
fn a_date_alone_costs_one_conditional_request_and_no_body() {
    let (_, site, bodies) = second_run(&[("Last-Modified", DATE)], &[]);
    assert_eq!((site.total(), bodies), (20, 0));
    for asked in site.asked() {
        assert_eq!(asked.header("if-modified-since"), Some(DATE));
    }
}

#[test]
fn the_same_bytes_without_any_validator_are_unchanged_and_not_written_again() {
    let (_, site, bodies) = second_run(&[], &[]);
    assert_eq!(site.total(), 20);
    assert!(bodies > 0);
}

#[test]
fn a_fresh_record_costs_no_request() {
    let headers = &[("Cache-Control", "max-age=3600"), ("ETag", "\"v1\"")];
    assert_eq!(second_run(headers, &[]).1.total(), 0);
}

#[test]
fn expires_counts_as_freshness() {
    let headers = &[("Expires", "Tue, 01 Oct 2097 12:00:00 GMT")];
    assert_eq!(second_run(headers, &[]).1.total(), 0);
    // The age counts from `Date` (RFC 9111, section 4.2.3): this answer was stale when it came.
    let headers = &[("Date", DATE), ("Cache-Control", "max-age=3600")];
    assert_eq!(second_run(headers, &[]).1.total(), 20);
}

#[test]
fn what_may_not_be_reused_is_asked_again() {
    for headers in [
        &[("Cache-Control", "max-age=0"), ("ETag", "\"v1\"")][..],
        &[
            ("Cache-Control", "no-cache, max-age=3600"),
            ("ETag", "\"v1\""),
        ],
        &[
            ("Cache-Control", "max-age=10"),
            ("Age", "11"),
            ("ETag", "\"v1\""),
        ],
    ] {
        let (_, site, bodies) = second_run(headers, &[]);
        assert_eq!((site.total(), bodies), (20, 0), "{headers:?}");
    }
}

#[test]
fn refresh_after_costs_no_request_until_then() {
    let args = ["--set", "fetch.refresh_after=1h"];
    assert_eq!(second_run(&[], &args).1.total(), 0);
}

#[test]
fn refresh_asks_about_fresh_records_too() {
    let headers = &[("Cache-Control", "max-age=3600"), ("ETag", "\"v1\"")];
    let (_, site, bodies) = second_run(headers, &["--refresh"]);
    assert_eq!((site.total(), bodies), (20, 0));
    let args = ["--refresh", "--set", "fetch.refresh_after=1h"];
    assert_eq!(second_run(&[], &args).1.total(), 20);
}

// ---- Changed, lost, mended

/// A site of one picture whose version a test sets; version 1,000 and above are statuses less 1,000.
fn versions() -> (Site, Arc<AtomicU32>) {
    let version = Arc::new(AtomicU32::new(1));
    let site = Site::start({
        let version = version.clone();
        move |asked| match version.load(Ordering::SeqCst) {
            status @ 1000.. => Answer::status((status - 1000) as u16),
            version => Answer::ok(png(version))
                .header("ETag", format!("\"{version}\""))
                .unless_known(asked),
        }
    });
    (site, version)
}

#[test]
fn changed_bytes_take_the_old_ones_place() {
    let ((site, version), sandbox) = (versions(), Sandbox::new());
    let list = site.list(["/a"]);
    let first = sandbox.fetch_list(&list, 0, &[]);
    version.store(2, Ordering::SeqCst);
    let second = sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(second.count("changed"), 1);
    assert_eq!(second.only()["path"], first.only()["path"]);
    assert_eq!(sandbox.files().into_values().collect::<Vec<_>>(), [png(2)]);
    assert_in_order(&sandbox, true);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
}

#[test]
fn a_failure_keeps_what_is_there_and_a_later_run_mends_it() {
    let ((site, version), sandbox) = (versions(), Sandbox::new());
    let list = site.list(["/a"]);
    for status in [1404, 1500, 1200] {
        version.store(status, Ordering::SeqCst);
        sandbox.fetch_list(&list, 3, &["--set", "fetch.retries=1"]);
        assert!(sandbox.files().is_empty());
    }
    version.store(1, Ordering::SeqCst);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("stored"), 1);
    for status in [1404, 1503, 1200] {
        version.store(status, Ordering::SeqCst);
        sandbox.fetch_list(&list, 3, &["--set", "fetch.retries=0"]);
        assert_eq!(
            sandbox.files().into_values().collect::<Vec<_>>(),
            [png(1)],
            "{status}"
        );
        assert_in_order(&sandbox, true);
    }
    version.store(1, Ordering::SeqCst);
    site.forget();
    let report = sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(report.count("unchanged"), 1);
    assert_eq!(
        site.body_bytes(),
        0,
        "the ETag was forgotten over a failure"
    );
}

#[test]
fn a_lost_or_damaged_file_is_brought_again_to_its_place() {
    let (sandbox, site) = (
        Sandbox::new(),
        Site::start(|asked| {
            Answer::ok(png(number(asked)))
                .header("ETag", "\"1\"")
                .header("Cache-Control", "max-age=3600")
                .unless_known(asked)
        }),
    );
    let list = site.list(paths(6));
    sandbox.fetch_list(&list, 0, &["--album", "a/b"]);
    let whole = sandbox.files();
    let names: Vec<&String> = whole.keys().collect();
    let at = |n: usize| sandbox.store().join(names[n]);
    std::fs::remove_file(at(0)).unwrap();
    std::fs::write(at(1), &whole[names[1]][..10]).unwrap();
    std::fs::write(at(2), "").unwrap();
    std::fs::write(at(3), [&whole[names[3]][..], b"x"].concat()).unwrap();
    site.forget();
    let report = sandbox.fetch_list(&list, 0, &["--album", "a/b"]);
    assert_eq!(site.total(), 4);
    assert_eq!(report.count("unchanged"), 2);
    assert_eq!(sandbox.files(), whole);
    assert_in_order(&sandbox, true);

    std::fs::remove_dir_all(sandbox.store().join("a")).unwrap();
    sandbox.fetch_list(&list, 0, &["--album", "a/b"]);
    assert_eq!(sandbox.files(), whole);
}

#[test]
fn a_known_file_of_another_name_or_album_is_a_target_of_its_own() {
    let ((site, _), sandbox) = (versions(), Sandbox::new());
    let list = site.list(["/a"]);
    sandbox.fetch_list(&list, 0, &[]);
    sandbox.fetch_list(&list, 0, &["--album", "x"]);
    assert_eq!(sandbox.files().len(), 2);
    assert_eq!(
        sandbox
            .fetch_list(&list, 0, &["--album", "x"])
            .count("unchanged"),
        1
    );
}

#[test]
fn a_lost_catalog_costs_the_bytes_again_and_no_file() {
    let ((site, _), sandbox) = (versions(), Sandbox::new());
    let list = format!("{}\n  out=a.png\n", site.url("/a"));
    sandbox.fetch_list(&list, 0, &[]);
    std::fs::remove_dir_all(sandbox.store().join(".gannet")).unwrap();
    sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(sandbox.files()["a.png"], png(1));
}

#[test]
fn a_damaged_catalog_ends_with_1_and_is_named() {
    let ((site, _), sandbox) = (versions(), Sandbox::new());
    let list = site.list(["/a"]);
    sandbox.fetch_list(&list, 0, &[]);
    let before = sandbox.files();
    let db = sandbox.store().join(".gannet/catalog.db");
    for name in ["catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(sandbox.store().join(".gannet").join(name));
    }
    std::fs::write(&db, vec![b'x'; 8192]).unwrap();
    sandbox.fetch(&["list.txt"]).expect(1).says(&["catalog.db"]);
    assert_eq!(sandbox.files(), before);
}

#[test]
fn a_store_may_be_moved() {
    let ((site, _), sandbox) = (versions(), Sandbox::new());
    sandbox.write("list.txt", site.list(["/a"]));
    sandbox.fetch(&["list.txt"]).expect(0);
    std::fs::rename(sandbox.store(), sandbox.path("moved")).unwrap();
    let run = sandbox
        .run([
            "fetch",
            "list.txt",
            "-o",
            "moved",
            "--allow-private",
            "--json",
        ])
        .expect(0);
    assert_eq!(run.count("unchanged"), 1);
}

// ---- Redirects

/// `/latest` redirects to `/v1.png`, and to `/v2.png` once the flag is set. Redirects and pictures have different
/// headers, and the pictures answer conditional requests with 304.
fn moving(
    status: u16,
    redirect: &'static [(&str, &str)],
    picture: &'static [(&str, &str)],
) -> (Site, Arc<AtomicBool>) {
    let moved = Arc::new(AtomicBool::new(false));
    let with = |answer: Answer, headers: &[(&str, &str)]| {
        let headers = headers.iter();
        headers.fold(answer, |answer, (name, value)| answer.header(name, value))
    };
    let site = Site::start({
        let moved = moved.clone();
        move |asked| match asked.path.as_str() {
            "/latest" => {
                let version = 1 + u32::from(moved.load(Ordering::SeqCst));
                let answer = Answer::status(status).header("Location", format!("/v{version}.png"));
                with(answer, redirect)
            }
            path => {
                let version = if path == "/v1.png" { 1 } else { 2 };
                with(Answer::ok(png(version)), picture).unless_known(asked)
            }
        }
    });
    (site, moved)
}

fn conditions(site: &Site) -> Vec<String> {
    let asked = site.asked().into_iter();
    let conditional = asked.filter(|asked| {
        asked.header("if-none-match").is_some() || asked.header("if-modified-since").is_some()
    });
    conditional.map(|asked| asked.path).collect()
}

#[test]
fn a_record_is_as_fresh_as_the_least_fresh_hop_of_its_chain() {
    const YEAR: (&str, &str) = ("Cache-Control", "max-age=31536000");
    let stale: [(u16, &[(&str, &str)]); 10] = [
        (302, &[]),
        (303, &[]),
        (307, &[]),
        (302, &[("Cache-Control", "no-store")]),
        (307, &[("Cache-Control", "no-cache, max-age=60")]),
        (302, &[("Cache-Control", "max-age=60"), ("Age", "61")]),
        (301, &[("Cache-Control", "no-store")]),
        (308, &[("Cache-Control", "max-age=0")]),
        (301, &[("Expires", "0")]),
        (308, &[("Cache-Control", "no-cache")]),
    ];
    let fresh: [(u16, &[(&str, &str)]); 5] = [
        (301, &[]),
        (308, &[("Cache-Control", "max-age=60")]),
        (302, &[YEAR]),
        (303, &[("Expires", "Tue, 01 Oct 2097 12:00:00 GMT")]),
        (307, &[("Cache-Control", "max-age=60")]),
    ];
    for (cases, requests) in [(&stale[..], 2), (&fresh[..], 0)] {
        for &(status, redirect) in cases {
            let (site, moved) = moving(status, redirect, &[YEAR]);
            let (sandbox, list) = (Sandbox::new(), site.list(["/latest"]));
            assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("stored"), 1);
            moved.store(true, Ordering::SeqCst);
            site.forget();
            let report = sandbox.fetch_list(&list, 0, &[]);
            let expected = if requests > 0 { "changed" } else { "unchanged" };
            assert_eq!(report.count(expected), 1, "{status} {redirect:?}");
            assert_eq!(site.total(), requests, "{status} {redirect:?}");
        }
    }
}

#[test]
fn validators_go_to_the_url_that_gave_them_and_to_no_other() {
    let validators: [&[(&str, &str)]; 3] = [
        &[("ETag", "\"same\"")],
        &[("Last-Modified", DATE)],
        &[("ETag", "W/\"same\""), ("Last-Modified", DATE)],
    ];
    for headers in validators {
        let (site, moved) = moving(302, &[], headers);
        let (sandbox, list) = (Sandbox::new(), site.list(["/latest#part"]));
        sandbox.fetch_list(&list, 0, &[]);
        site.forget();
        let report = sandbox.fetch_list(&list, 0, &[]);
        assert_eq!(report.count("unchanged"), 1, "{headers:?}");
        assert_eq!(conditions(&site), ["/v1.png"]);
        assert_eq!(site.body_bytes(), 0, "{headers:?}");

        // The same validators from another URL mean another file.
        moved.store(true, Ordering::SeqCst);
        site.forget();
        let report = sandbox.fetch_list(&list, 0, &[]);
        assert_eq!(report.count("changed"), 1, "{headers:?}");
        assert_eq!(conditions(&site), [""; 0]);
        site.forget();
        assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
        assert_eq!(conditions(&site), ["/v2.png"]);
        assert_in_order(&sandbox, true);
    }
}

#[test]
fn a_listed_url_that_begins_or_ends_to_redirect_is_asked_plainly() {
    let moved = Arc::new(AtomicBool::new(false));
    let site = Site::start({
        let moved = moved.clone();
        move |asked| match (asked.path.as_str(), moved.load(Ordering::SeqCst)) {
            ("/latest", true) => Answer::status(302).header("Location", "/v2.png"),
            (path, _) => Answer::ok(png(if path == "/latest" { 1 } else { 2 }))
                .header("ETag", "\"same\"")
                .unless_known(asked),
        }
    });
    let (sandbox, list) = (Sandbox::new(), site.list(["/latest"]));
    sandbox.fetch_list(&list, 0, &[]);
    for is_moved in [true, false] {
        moved.store(is_moved, Ordering::SeqCst);
        assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("changed"), 1);
    }
    site.forget();
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
    assert_eq!(conditions(&site), ["/latest"]);
}

#[test]
fn a_confirmed_record_is_fresh_by_its_whole_chain_again() {
    let (site, _) = moving(
        302,
        &[("Cache-Control", "no-store")],
        &[("Cache-Control", "max-age=31536000"), ("ETag", "\"1\"")],
    );
    let (sandbox, list) = (Sandbox::new(), site.list(["/latest"]));
    sandbox.fetch_list(&list, 0, &[]);
    for _ in 0..2 {
        site.forget();
        assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
        assert_eq!((site.total(), site.body_bytes()), (2, 0));
    }
    // The operator's setting takes precedence over what origins say.
    site.forget();
    let args = ["--set", "fetch.refresh_after=1h"];
    assert_eq!(sandbox.fetch_list(&list, 0, &args).count("unchanged"), 1);
    assert_eq!(site.total(), 0);
}

#[test]
fn credentials_of_a_redirect_do_not_get_into_the_catalog() {
    let site = Site::start(|asked| match asked.path.as_str() {
        "/latest" => {
            let host = asked.header("host").unwrap();
            let to = format!("http://ann:open-sesame@{host}/v1.png");
            Answer::status(302).header("Location", to)
        }
        _ => Answer::ok(png(1))
            .header("ETag", "\"1\"")
            .unless_known(asked),
    });
    let (sandbox, list) = (Sandbox::new(), site.list(["/latest"]));
    for outcome in ["stored", "unchanged"] {
        site.forget();
        assert_eq!(sandbox.fetch_list(&list, 0, &[]).count(outcome), 1);
    }
    assert_eq!(conditions(&site), ["/v1.png"]);
    for name in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(sandbox.store().join(".gannet").join(name)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains("open-sesame"));
    }
}

// ---- Another job's files

const ANY: [&str; 2] = ["--kind", "any"];

/// A site with one file that is fresh for an hour.
fn one(body: impl Into<Vec<u8>>) -> Site {
    let body = body.into();
    Site::start(move |_| Answer::ok(body.clone()).header("Cache-Control", "max-age=3600"))
}

#[test]
fn a_record_serves_only_jobs_that_accept_its_file() {
    let page = "<!DOCTYPE html><title>Not found</title>";
    let cut = &png(1)[..png(1).len() - 20];
    let sniffed = ["--set", "image.check=sniff"];
    /// The body, the arguments of the first and second job, and the reason for which the second one rejects the body.
    type Case<'a> = (&'a [u8], &'a [&'a str], &'a [&'a str], &'a str);
    let cases: [Case<'_>; 9] = [
        (page.as_bytes(), &ANY, &[], "wrong-kind"),
        (page.as_bytes(), &ANY, &["--kind", "document"], "wrong-kind"),
        (cut, &ANY, &[], "corrupt"),
        (cut, &sniffed, &[], "corrupt"),
        (
            &png(1),
            &[],
            &["--set", "image.formats=[\"jpeg\"]"],
            "wrong-kind",
        ),
        (
            &png(1),
            &[],
            &["--set", "image.max_pixels=1"],
            "too-many-pixels",
        ),
        (&png(1), &[], &["--set", "image.min_bytes=1MiB"], "corrupt"),
        (&png(1), &[], &["--set", "image.max_bytes=9"], "too-large"),
        (&png(1), &ANY, &["--set", "fetch.max_bytes=9"], "too-large"),
    ];
    for (body, first, second, reason) in cases {
        let (sandbox, site) = (Sandbox::new(), one(body));
        let list = site.list(["/a"]);
        assert_eq!(sandbox.fetch_list(&list, 0, first).count("stored"), 1);
        let files = sandbox.files();
        let mut dry = second.to_vec();
        dry.push("--dry-run");
        let would = sandbox.fetch_list(&list, 0, &dry);
        assert_eq!(would.only()["would"], "fetch", "{second:?}");
        let report = sandbox.fetch_list(&list, 3, second);
        assert_eq!(report.only()["reason"], reason, "{second:?}");
        // For the first job, nothing has changed.
        site.forget();
        let mut patient = first.to_vec();
        patient.extend(["--set", "fetch.failure_backoff=1h"]);
        let report = sandbox.fetch_list(&list, 0, &patient);
        assert_eq!(report.count("unchanged"), 1, "{first:?} {second:?}");
        assert_eq!(site.total(), 0);
        assert_eq!(sandbox.files(), files);
    }
}

#[test]
fn a_file_that_another_job_accepts_too_is_looked_at_once_and_not_asked_for() {
    let (sandbox, site) = (Sandbox::new(), one(png(1)));
    let list = site.list(["/a"]);
    assert!(sandbox.fetch_list(&list, 0, &ANY).only()["width"].is_null());
    site.forget();
    for args in [
        &["--dry-run"][..],
        &[],
        &["--set", "image.check=decode"],
        &["--set", "image.check=header"],
        &ANY,
    ] {
        let report = sandbox.fetch_list(&list, 0, args);
        assert_eq!(report.count("unchanged"), 1, "{args:?}");
        if !args.contains(&"--dry-run") {
            assert!(report.only()["width"].is_u64(), "{args:?}");
        }
    }
    assert_eq!(site.total(), 0);
    let (_copy, db) = catalog::open(&sandbox.store());
    let row = db.query_row("SELECT width IS NOT NULL, criteria FROM files", (), |row| {
        Ok((row.get::<_, bool>(0)?, row.get::<_, String>(1)?))
    });
    let (is_measured, criteria) = row.unwrap();
    assert!(
        is_measured && criteria.starts_with("image/decode/"),
        "{criteria}"
    );
}

#[test]
fn a_raised_limit_of_the_host_that_redirects_lead_to_ends_the_rest_of_a_rejection() {
    let there = Site::on("127.0.0.2:0", |_| Answer::ok(png(1)));
    let to = there.url("/1.png");
    let here = Site::start(move |_| Answer::status(302).header("Location", &to));
    let (sandbox, list) = (Sandbox::new(), here.list(["/a"]));
    let limit = |bytes: u32| format!("hosts.\"127.0.0.2\".max_bytes={bytes}");
    let fetch = |bytes, exit| {
        let limit = limit(bytes);
        let set = ["--set", "fetch.failure_backoff=1h", "--set", &limit];
        sandbox.fetch_list(&list, exit, &set)
    };
    assert_eq!(fetch(9, 3).only()["reason"], "too-large");
    assert_eq!(fetch(9, 3).count("skipped"), 1);
    assert_eq!(fetch(9_999, 0).count("stored"), 1);
}

#[test]
fn a_rejection_does_not_rest_a_job_that_accepts_something_else() {
    let page = "<!DOCTYPE html><title>Not found</title>";
    let (sandbox, site) = (Sandbox::new(), one(page));
    let list = site.list(["/a"]);
    let patient = ["--set", "fetch.failure_backoff=1h"];
    sandbox.fetch_list(&list, 3, &patient);
    site.forget();
    let report = sandbox.fetch_list(&list, 3, &patient);
    assert_eq!((report.count("skipped"), site.total()), (1, 0));
    let mut any = patient.to_vec();
    any.extend(ANY);
    assert_eq!(sandbox.fetch_list(&list, 0, &any).count("stored"), 1);

    // The list first promises other bytes, and is then corrected.
    let promising = |body: &[u8]| format!("url,sha256\n{},{}\n", site.url("/b"), sha256(body));
    let report = sandbox.fetch_list(promising(b"other"), 3, &any);
    assert_eq!(report.only()["reason"], "checksum");
    let report = sandbox.fetch_list(promising(b"other"), 3, &any);
    assert_eq!(report.only()["outcome"], "skipped");
    let report = sandbox.fetch_list(promising(page.as_bytes()), 0, &any);
    assert_eq!(report.count("stored"), 1);
}

// ---- Clocks

/// Sets all times in the catalog of a store ten years ahead.
fn set_ahead(sandbox: &Sandbox) {
    const YEARS: i64 = 10 * 365 * 24 * 3600 * 1000;
    for (table, columns) in [
        ("urls", &["fresh_until", "checked", "tried", "seen"][..]),
        ("files", &["stored"][..]),
        ("listed", &["gone_since"][..]),
        ("jobs", &["started", "finished", "recorded"][..]),
        ("events", &["created"][..]),
    ] {
        for column in columns {
            let set = format!("UPDATE {table} SET {column} = {column} + {YEARS}");
            catalog::change(&sandbox.store(), &set);
        }
    }
}

#[test]
fn a_record_of_a_clock_that_was_ahead_is_asked_about() {
    for args in [&[][..], &["--set", "fetch.refresh_after=1h"]] {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| {
            Answer::ok(png(1))
                .header("Cache-Control", "max-age=3600")
                .header("ETag", "\"1\"")
                .unless_known(asked)
        });
        let list = site.list(["/a"]);
        sandbox.fetch_list(&list, 0, args);
        set_ahead(&sandbox);
        for requests in [1, 0] {
            site.forget();
            let report = sandbox.fetch_list(&list, 0, args);
            assert_eq!(report.count("unchanged"), 1);
            assert_eq!((site.total(), site.body_bytes()), (requests, 0), "{args:?}");
        }
    }
}

#[test]
fn a_failure_of_a_clock_that_was_ahead_rests_nothing() {
    for status in [404, 410] {
        let (sandbox, site) = (Sandbox::new(), Site::start(move |_| Answer::status(status)));
        let list = site.list(["/a"]);
        let patient = ["--set", "fetch.failure_backoff=1h"];
        sandbox.fetch_list(&list, 3, &patient);
        set_ahead(&sandbox);
        site.forget();
        assert_eq!(sandbox.fetch_list(&list, 3, &patient).count("failed"), 1);
        assert_eq!(sandbox.fetch_list(&list, 3, &patient).count("skipped"), 1);
        assert_eq!(site.total(), 1, "{status}");
    }
}

#[test]
fn what_a_clock_that_was_ahead_kept_goes_in_its_time() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| Answer::ok(png(number(asked))));
    let prune = [
        "--set",
        "job.on_remove=prune",
        "--set",
        "job.prune_limit=100",
    ];
    let mut at_once = prune.to_vec();
    at_once.extend(["--set", "job.prune_after=0s"]);
    // One URL went while the clock was ahead, another one goes now.
    sandbox.fetch_list(site.list(paths(3)), 0, &prune);
    sandbox.fetch_list(site.list(paths(2)), 0, &prune);
    set_ahead(&sandbox);
    sandbox.fetch_list(site.list(paths(1)), 0, &prune);
    assert_eq!(sandbox.files().len(), 3, "the grace counts from now on");
    sandbox.fetch_list(site.list(paths(1)), 0, &at_once);
    assert_eq!(sandbox.files().len(), 1);

    // An album keeps its newest files. A file from the future is not the newest for ever.
    set_ahead(&sandbox);
    let trim = ["--set", "retention.max_files=1"];
    sandbox.fetch_list(site.list(["/0"]), 0, &trim);
    sandbox.fetch_list(site.list(["/7"]), 0, &trim);
    let left: Vec<_> = sandbox.files().into_values().collect();
    assert_eq!(left, [png(7)]);
    set_ahead(&sandbox);
    sandbox.fetch_list(site.list(["/7"]), 0, &["--set", "retention.max_age=1h"]);
    assert_eq!(sandbox.files().len(), 1);
    let (_copy, db) = catalog::open(&sandbox.store());
    let ahead = "SELECT (SELECT count(*) FROM files WHERE stored > unixepoch('now', '+1 day') * 1000) \
                 + (SELECT count(*) FROM jobs WHERE finished > unixepoch('now', '+1 day') * 1000)";
    let ahead: i64 = db.query_row(ahead, (), |row| row.get(0)).unwrap();
    assert_eq!(ahead, 0);
}

// ---- Stopped

#[test]
fn a_stopped_run_leaves_whole_reports_and_the_next_run_goes_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (sandbox, gate) = (Sandbox::new(), Gate::new());
        let site = Site::start({
            let gate = gate.clone();
            move |asked| {
                if number(asked) >= 30 {
                    gate.pass();
                }
                Answer::ok(png(number(asked)))
            }
        });
        sandbox.write("list.txt", site.list(paths(500)));
        let reports = ["r.json", "r.jsonl", "r.xml", "r.html"];
        let mut args = vec!["list.txt"];
        for report in reports {
            args.extend(["--report", report]);
        }
        let run = sandbox.start(sandbox.fetch_args(&args));
        // All thirty that are answered, and the eight that wait.
        site.wait_for(38);
        run.signal(signal);
        let run = run.end_within(Duration::from_secs(20)).expect(code);
        gate.open();
        let report = sandbox.json("r.json");
        assert_eq!(report["state"], "cancelled");
        assert_eq!(report["counts"], run.json()["counts"]);
        assert_eq!(report["counts"]["stored"], 30, "what had arrived is kept");
        let items = report["items"].as_array().unwrap();
        assert_eq!(
            Some(items.len() as u64),
            report["counts"]["targets"].as_u64()
        );
        for item in items {
            assert!(
                item["outcome"] == "stored"
                    || item["outcome"] == "skipped" && item["reason"] == "cancelled",
                "{item}"
            );
        }
        let lines = String::from_utf8(sandbox.read("r.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), items.len() + 1);
        assert_eq!(lines.last().unwrap()["state"], "cancelled");
        let xml = String::from_utf8(sandbox.read("r.xml")).unwrap();
        roxmltree::Document::parse(&xml).unwrap();
        assert!(
            sandbox
                .read("r.html")
                .trim_ascii_end()
                .ends_with(b"</html>")
        );
        assert_in_order(&sandbox, true);
        assert_eq!(catalog::job_states(&sandbox.store()), ["cancelled"]);

        let again = sandbox.fetch(&["list.txt"]).expect(0);
        assert_eq!(again.count("unchanged"), 30);
        assert_eq!(again.count("stored"), 470);
        assert_in_order(&sandbox, true);
    }
}

#[test]
fn a_catalog_that_takes_no_end_of_a_job_ends_it_with_1_and_whole_reports() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| Answer::ok(png(number(asked))));
    sandbox.fetch_list(site.list(paths(1)), 0, &[]);
    catalog::change(
        &sandbox.store(),
        "CREATE TRIGGER full BEFORE UPDATE OF finished ON jobs \
         BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
    );
    let report = sandbox.fetch_list(site.list(paths(3)), 1, &["--max-failures", "3"]);
    assert_eq!((report.count("stored"), report.count("unchanged")), (2, 1));
    assert_eq!(report.whole["state"], "failed");
    let said = report.whole["error"].as_str().unwrap();
    assert!(said.contains("disk is full"), "{said}");
    report.run.says(&["disk is full"]);
}

#[test]
fn an_error_that_comes_after_a_signal_is_told_all_the_same() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            Answer::ok(png(number(asked)))
        }
    });
    sandbox.fetch_list("", 0, &[]);
    catalog::change(
        &sandbox.store(),
        "CREATE TRIGGER full BEFORE INSERT ON outcomes \
         BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
    );
    sandbox.write("list.txt", site.list(paths(3)));
    let run = sandbox.start(sandbox.fetch_args(&["list.txt", "--report", "r.json"]));
    site.wait_for(3);
    run.signal("TERM");
    let run = run.end_within(Duration::from_secs(20)).expect(1);
    gate.open();
    run.says(&["disk is full"]);
    let report = sandbox.json("r.json");
    assert_eq!(report["state"], "failed");
    assert_eq!(report["counts"]["targets"], 3);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            Answer::ok(png(1))
        }
    });
    sandbox.write("list.txt", site.list(paths(20)));
    let run = sandbox.start(sandbox.fetch_args(&["list.txt"]));
    site.wait_for(8);
    run.signal("TERM");
    run.signal("TERM");
    run.end_within(Duration::from_secs(20)).expect(143);
    gate.open();
}

#[test]
fn a_signal_while_the_list_is_awaited_ends_the_run() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            Answer::ok("")
        }
    });
    let url = site.url("/list.txt");
    let run = sandbox.start(sandbox.fetch_args(&[&url]));
    site.wait_for(1);
    run.signal("TERM");
    run.end_within(Duration::from_secs(20)).expect(143);
    gate.open();
}

#[test]
fn what_a_crash_left_staged_is_cleared_and_nothing_else() {
    let ((site, _), sandbox) = (versions(), Sandbox::new());
    let list = site.list(["/a"]);
    sandbox.fetch_list(&list, 0, &[]);
    sandbox.write(
        "out/.gannet/stage/0192a000000070008000000000000001",
        "half a file",
    );
    sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(sandbox.staged(), Vec::<std::path::PathBuf>::new());
    assert_eq!(sandbox.files().len(), 1);
}

#[test]
fn a_folder_where_a_file_belongs_costs_that_file_alone() {
    let sandbox = Sandbox::new();
    let site =
        Site::start(|asked| Answer::ok(png(number(asked))).header("Cache-Control", "max-age=3600"));
    let list = site.list(paths(5));
    sandbox.fetch_list(&list, 0, &[]);
    let whole = sandbox.files();
    let name = whole.keys().next().unwrap();
    let in_the_way = sandbox.store().join(name);
    std::fs::remove_file(&in_the_way).unwrap();
    std::fs::create_dir(&in_the_way).unwrap();
    let report = sandbox.fetch_list(&list, 3, &[]);
    assert_eq!((report.count("unchanged"), report.count("failed")), (4, 1));
    assert_eq!(sandbox.staged().len(), 1);

    // It is told at every start, which otherwise is one like any other.
    sandbox
        .fetch(&["-u", &site.url("/9")])
        .expect(0)
        .says(&[name, "move away"]);
    assert_eq!(sandbox.staged().len(), 1);
    std::fs::remove_dir(&in_the_way).unwrap();
    site.forget();
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 5);
    assert_eq!(site.total(), 0, "the bytes were kept");
    assert_eq!(sandbox.files()[name], whole[name]);
    assert_in_order(&sandbox, true);
}

// ---- Interrupted

/// A pass with batches of eight that is killed once so many of them are recorded; `None` in a build that cannot.
fn killed_after(sandbox: &Sandbox, batches: u32, args: &[&str]) -> Option<Run> {
    if !fault::COMPILED_IN {
        eprintln!("skipped: this build has no fault points");
        return None;
    }
    let mut all = sandbox.fetch_args(&[
        "list.txt",
        "--set",
        "storage.commit_files=8",
        "--set",
        "storage.commit_interval=1m",
        // One after the other, or a batch may get many more.
        "-j",
        "1",
    ]);
    all.extend(args);
    let mut command = sandbox.command(all);
    command.env(fault::VARIABLE, format!("catalog.committed:{batches}=kill"));
    let run = support::sandbox::start(command, None).end();
    assert_eq!(run.code(), 137, "{run}");
    Some(run)
}

/// What each job of the history is, oldest first: id and state.
fn jobs(sandbox: &Sandbox) -> Vec<(String, String)> {
    let (_copy, db) = catalog::open(&sandbox.store());
    let mut query = db
        .prepare("SELECT lower(hex(id)), state FROM jobs ORDER BY id")
        .unwrap();
    let jobs = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    jobs.unwrap().map(Result::unwrap).collect()
}

/// A figure of the newest job.
fn counted(sandbox: &Sandbox, outcome: &str) -> u64 {
    let (_copy, db) = catalog::open(&sandbox.store());
    let sql = format!("SELECT {outcome} FROM jobs ORDER BY id DESC LIMIT 1");
    let count: i64 = db.query_row(&sql, [], |row| row.get(0)).unwrap();
    count.unsigned_abs()
}

#[test]
fn what_an_interrupted_job_had_is_not_asked_for_again() {
    let (sandbox, mended) = (Sandbox::new(), Arc::new(AtomicU32::new(0)));
    let site = Site::start({
        let mended = mended.clone();
        move |asked| match number(asked) {
            0 if mended.load(Ordering::SeqCst) == 0 => Answer::status(404),
            2 => Answer::ok(b"no picture".to_vec()),
            n => Answer::ok(png(n)),
        }
    });
    let list = format!("no url\n{}{}", site.list(paths(30)), site.list(["/1"]));
    sandbox.write("list.txt", &list);
    let Some(_) = killed_after(&sandbox, 2, &[]) else {
        return;
    };
    let stored = counted(&sandbox, "stored");
    mended.store(1, Ordering::SeqCst);
    // Whoever has some of it meanwhile changes nothing.
    sandbox
        .fetch(&["-u", &site.url("/3"), "--refresh"])
        .expect(0);
    site.forget();
    let report = sandbox.fetch_report(3, &["list.txt"]);
    // What failed is tried again.
    assert_eq!(site.total() as u64, 30 - stored);
    let counts = ["targets", "stored", "unchanged", "rejected", "failed"]
        .map(|outcome| report.count(outcome));
    assert_eq!(counts, [31, 29 - stored, stored, 1, 1]);
    assert_eq!(
        (report.items().len(), &report.whole["repeats"]),
        (31, &1.into())
    );
    let (interrupted, _) = &jobs(&sandbox)[0];
    let continues = report.whole["continues"].as_str().unwrap();
    assert_eq!(&continues.replace('-', ""), interrupted);
    assert_in_order(&sandbox, true);
    // The next one asks for all of it.
    site.forget();
    let report = sandbox.fetch_report(3, &["list.txt"]);
    assert_eq!((site.total(), report.count("unchanged")), (30, 29));
    assert_eq!(report.whole["continues"], serde_json::Value::Null);
}

#[test]
fn what_was_lost_since_an_interruption_is_brought_again() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| Answer::ok(png(number(asked))));
    let list = site.list(paths(20));
    sandbox.write("list.txt", &list);
    let Some(_) = killed_after(&sandbox, 2, &[]) else {
        return;
    };
    let stored = counted(&sandbox, "stored");
    let lost = sandbox.names().remove(0);
    std::fs::remove_file(sandbox.store().join(&lost)).unwrap();
    // A run that cannot read the list in between is no reason to begin anew.
    std::fs::remove_file(sandbox.path("list.txt")).unwrap();
    sandbox.fetch(&["list.txt"]).expect(1);
    sandbox.write("list.txt", &list);
    site.forget();
    let report = sandbox.fetch_report(0, &["list.txt"]);
    assert_eq!(site.total() as u64, 20 - stored + 1);
    assert_eq!(report.count("unchanged"), stored - 1);
    assert_eq!(sandbox.files().len(), 20);
}

#[test]
fn an_interrupted_job_is_left_alone_where_it_is_old_or_all_is_to_be_asked() {
    for args in [
        &["--refresh"][..],
        &["--shard", "1/1"],
        &["--set", "job.resume_within=0s"],
        &["--set", "job.kind=any"],
        &["-a", "elsewhere"],
        &[],
    ] {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(png(number(asked))));
        sandbox.write("list.txt", site.list(paths(12)));
        let Some(_) = killed_after(&sandbox, 1, &[]) else {
            return;
        };
        if args.is_empty() {
            catalog::change(&sandbox.store(), "UPDATE jobs SET recorded = 1");
        }
        site.forget();
        let report = sandbox.fetch_report(0, &[&["list.txt"], args].concat());
        assert_eq!((site.total(), report.items().len()), (12, 12), "{args:?}");
        assert_eq!(
            report.whole["continues"],
            serde_json::Value::Null,
            "{args:?}"
        );
        let states: Vec<String> = jobs(&sandbox).into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, ["failed", "completed"], "{args:?}");
    }
}

#[test]
fn a_number_of_files_is_kept_to_over_interruptions() {
    for count in [4, 8, 20, 30] {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(png(number(asked))));
        sandbox.write("list.txt", site.list(paths(30)));
        let n = count.to_string();
        let Some(_) = killed_after(&sandbox, 1, &["-n", &n]) else {
            return;
        };
        let mut stored = counted(&sandbox, "stored");
        if count == 30 {
            // Once more, in the job that goes on.
            killed_after(&sandbox, 1, &["-n", &n]);
            stored += counted(&sandbox, "stored");
        }
        let report = sandbox.fetch_report(0, &["list.txt", "-n", &n]);
        assert_eq!(report.count("stored") + stored, count);
        assert_eq!(sandbox.files().len() as u64, count);
        assert_in_order(&sandbox, true);
    }
}

#[test]
fn a_signal_is_an_interruption_too() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if number(asked) == 9 {
                gate.pass();
            }
            Answer::ok(png(number(asked)))
        }
    });
    sandbox.write("list.txt", site.list(paths(20)));
    let args = sandbox.fetch_args(&["list.txt", "-n", "12", "-j", "1"]);
    let run = sandbox.start(args);
    site.wait_for(10);
    run.signal("TERM");
    run.end().expect(143);
    gate.open();
    assert_eq!(sandbox.files().len(), 9);
    sandbox.fetch(&["list.txt", "-n", "12"]).expect(0);
    assert_eq!(sandbox.files().len(), 12);
}

// ---- What keeps failing, and what was altered

#[test]
fn a_url_that_keeps_failing_is_asked_less_and_less_often() {
    let sandbox = Sandbox::new();
    let site = Site::start(|_| Answer::status(404));
    let list = site.list(["/1"]);
    let patient = ["--set", "fetch.failure_backoff=1h"];
    for (asked, outcome) in [(1, "failed"), (1, "skipped"), (1, "skipped")] {
        let report = sandbox.fetch_list(&list, 3, &patient);
        assert_eq!((site.total(), report.count(outcome)), (asked, 1));
    }
    let report = sandbox.fetch_list(&list, 3, &patient);
    let item = report.only();
    assert_eq!(
        (&item["reason"], &item["status"]),
        (&"status".into(), &404.into())
    );
    let detail = item["detail"].as_str().unwrap();
    assert!(
        detail.contains("once") && detail.contains("--refresh"),
        "{detail}"
    );
    sandbox.fetch_list(&list, 3, &["--refresh", patient[0], patient[1]]);
    assert_eq!(site.total(), 2);
    // Who starts again right away has mended something: by default five failures cost nothing.
    let sandbox = Sandbox::new();
    for asked in [3, 4, 5, 6, 7, 8, 8] {
        sandbox.fetch_list(&list, 3, &[]);
        assert_eq!(site.total(), asked);
    }
}

#[test]
fn what_is_gone_for_good_is_not_asked_again() {
    let sandbox = Sandbox::new();
    let site = Site::start(|_| Answer::status(410));
    let list = site.list(["/1"]);
    sandbox.fetch_list(&list, 3, &[]);
    let report = sandbox.fetch_list(&list, 3, &[]);
    assert_eq!((site.total(), report.count("skipped")), (1, 1));
    assert!(report.only()["detail"].as_str().unwrap().contains("410"));
    let run = sandbox.fetch(&["list.txt", "--dry-run"]).expect(0);
    assert!(run.out().contains("wait"), "{run}");
    sandbox.fetch_list(&list, 3, &["--refresh"]);
    assert_eq!(site.total(), 2);
}

#[test]
fn what_a_redirect_leads_to_is_gone_as_long_as_the_redirect_holds() {
    let hour: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];
    let stale: &[(&str, &str)] = &[("Cache-Control", "no-cache")];
    for (status, headers, requests) in [
        (302, &[][..], 2),
        (307, stale, 2),
        (301, stale, 2),
        (301, &[], 0),
        (308, &[], 0),
        (302, hour, 0),
    ] {
        let moved = Arc::new(AtomicBool::new(false));
        let site = Site::start({
            let moved = moved.clone();
            move |asked| match asked.path.as_str() {
                "/latest" => {
                    let is_moved = moved.load(Ordering::SeqCst);
                    let to = if is_moved { "/new" } else { "/gone" };
                    let headers = headers.iter();
                    headers.fold(
                        Answer::status(status).header("Location", to),
                        |answer, (name, value)| answer.header(name, value),
                    )
                }
                "/gone" => Answer::status(410),
                _ => Answer::ok(png(1)),
            }
        });
        let (sandbox, list) = (Sandbox::new(), site.list(["/latest"]));
        sandbox.fetch_list(&list, 3, &[]);
        moved.store(true, Ordering::SeqCst);
        site.forget();
        let case = format!("{status} {headers:?}");
        let code = if requests > 0 { 0 } else { 3 };
        let report = sandbox.fetch_list(&list, code, &[]);
        assert_eq!(site.total(), requests, "{case}");
        let detail = report.only()["detail"].as_str().unwrap_or_default();
        assert_eq!(detail.contains("410"), requests == 0, "{case} {detail}");
    }
}

#[test]
fn a_file_that_was_written_to_is_brought_again_though_it_kept_its_length() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| {
        Answer::ok(png(number(asked)))
            .header("ETag", "\"1\"")
            .unless_known(asked)
    });
    let list = site.list(["/1"]);
    sandbox.fetch_list(&list, 0, &[]);
    let (name, bytes) = sandbox.files().pop_first().unwrap();
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    sandbox.write(&format!("out/{name}"), altered);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("stored"), 1);
    assert_eq!(sandbox.files()[&name], bytes);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
}
