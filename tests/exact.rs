//! `--count N` ends with exactly N files of distinct contents, and never shows one more, whatever the concurrency, the
//! state of the list, and the instant at which the process is killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod origin;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gannet::fault;
use serde_json::json;
use support::pictures::png;
use support::{Answer, Asked, Run, Sandbox, Site, sha256};

/// All that there are in the list that most tests have, and all that the search finds.
const TARGETS: u32 = 1000;

/// Of a hundred targets ten are dead, five have another one's bytes, and three are no pictures.
fn answer(asked: &Asked) -> Answer {
    if let Some(page) = asked.path.strip_prefix("/search?") {
        return results(asked.header("host").unwrap(), page);
    }
    let number: u32 = asked.path.trim_start_matches('/').parse().unwrap();
    match number % 100 {
        3 | 13 | 23 | 33 | 43 | 53 | 63 | 73 | 83 | 93 => Answer::status(404),
        7 | 27 | 47 | 67 | 87 => Answer::ok(png(number - number % 100)),
        9 | 49 | 89 => Answer::ok("<!doctype html><p>Sold out"),
        _ => Answer::ok(png(number)),
    }
}

/// A page of what an instance of SearXNG at `host` finds: a hundred targets.
fn results(host: &str, parameters: &str) -> Answer {
    let page = parameters
        .split('&')
        .find_map(|pair| pair.strip_prefix("pageno="));
    let first = 100 * (page.unwrap().parse::<u32>().unwrap() - 1);
    let (_, port) = host.rsplit_once(':').unwrap();
    let results: Vec<_> = (first..(first + 100).min(TARGETS))
        .map(|n| json!({"img_src": format!("http://127.0.0.{}:{port}/{n}", 1 + n % 50), "title": format!("Number {n}")}))
        .collect();
    Answer::ok(json!({"query": "all", "results": results}).to_string())
}

/// An origin under fifty addresses.
fn site() -> Site {
    Site::on("0.0.0.0:0", answer)
}

fn list(site: &Site, targets: u32) -> String {
    let url = |n: u32| site.url_as(&format!("127.0.0.{}", 1 + n % 50), &format!("/{n}"));
    (0..targets).map(|n| url(n) + "\n").collect()
}

/// How many files anybody can see.
fn visible(store: &Path) -> usize {
    let Ok(folder) = std::fs::read_dir(store) else {
        return 0;
    };
    let names = folder.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != ".gannet").count()
}

/// Looks at the store all the while `run` goes on. Returns the most files that it saw.
fn most_seen<T>(store: &Path, run: impl FnOnce() -> T) -> (usize, T) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::SeqCst) {
                most = most.max(visible(store));
                std::thread::yield_now();
            }
            most.max(visible(store))
        });
        let ran = run();
        is_over.store(true, Ordering::SeqCst);
        (looking.join().unwrap(), ran)
    })
}

fn assert_exactly(sandbox: &Sandbox, count: usize) {
    let files = sandbox.files();
    assert_eq!(files.len(), count);
    let distinct: BTreeSet<_> = files.values().map(|bytes| sha256(bytes)).collect();
    assert_eq!(distinct.len(), count);
}

const LIST: &[&str] = &["list.txt"];

fn args<'a>(sandbox: &Sandbox, source: &[&'a str], count: &'a str) -> Vec<&'a str> {
    let mut args = sandbox.fetch_args(source);
    args.extend(["--count", count, "-j", "256"]);
    // Small batches, so that there are many.
    args.extend(["--per-host", "16", "--set", "storage.commit_files=32"]);
    args
}

#[test]
fn no_more_files_than_asked_for_are_ever_seen() {
    let site = site();
    for count in [0, 1, 50, 700] {
        let sandbox = Sandbox::new();
        sandbox.write("list.txt", list(&site, TARGETS));
        let args = args(
            &sandbox,
            LIST,
            Box::leak(count.to_string().into_boxed_str()),
        );
        let (most, run) = most_seen(&sandbox.store(), || sandbox.run(args));
        let run = run.expect(0);
        assert_eq!(run.count("stored"), count as u64, "{run}");
        assert_eq!(most, count, "{run}");
        assert_exactly(&sandbox, count);
    }
}

#[test]
fn a_dry_run_ends_where_the_files_would_be_enough() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, TARGETS));
    sandbox.fetch(&["list.txt", "--count", "7"]).expect(0);
    let run = sandbox.fetch(&["list.txt", "--count", "5", "--dry-run"]);
    let run = run.expect(0);
    // Seven are there, and one of the eight that were tried is dead.
    assert_eq!(run.json()["counts"]["targets"], 13, "{run}");
}

#[test]
fn a_list_that_ends_before_ends_with_3_and_all_that_there_is() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, 300));
    let run = sandbox.run(args(&sandbox, LIST, "1000")).expect(3);
    assert_exactly(&sandbox, 300 / 100 * 82);
    let said = "stored 246 of the 1000 files asked for: the list has no more";
    assert_eq!(run.json()["error"], said, "{run}");
}

/// Runs for each of `kills`, and once more to the end. Each of them starts the program and ends it.
fn through_kills(
    sandbox: &Sandbox,
    source: &[&str],
    count: usize,
    kills: impl IntoIterator<Item = impl FnOnce(Vec<&str>) -> Run>,
) {
    let text = count.to_string();
    let store = sandbox.store();
    for (number, kill) in kills.into_iter().enumerate() {
        let (most, run) = most_seen(&store, || kill(args(sandbox, source, &text)));
        assert!(most <= count, "{most} files after kill {number}: {run}");
        if run.code() == 0 {
            // The kill came too late, on a machine that is busy elsewhere.
            assert!(number > 0, "no kill hit");
            return assert_exactly(sandbox, count);
        }
        assert_eq!(run.code(), 137, "{run}");
    }
    let (most, run) = most_seen(&store, || sandbox.run(args(sandbox, source, &text)));
    let run = run.expect(0);
    assert_eq!(most, count, "{run}");
    assert_exactly(sandbox, count);
}

/// Starts the program and kills it when so many files can be seen.
fn kill_at(sandbox: &Sandbox, files: usize) -> impl FnOnce(Vec<&str>) -> Run {
    move |args| {
        let mut running = sandbox.start(args);
        while !running.has_ended() && visible(&sandbox.store()) < files {
            std::thread::yield_now();
        }
        running.kill()
    }
}

#[test]
fn a_kill_at_a_step_costs_no_file_and_brings_none_too_many() {
    if !fault::COMPILED_IN {
        eprintln!("skipped: this build has no fault points");
        return;
    }
    let faults = [
        "store.sync.done:2=kill",
        "catalog.committed:2=kill",
        "store.publish.one:40=kill",
        "catalog.committed:1=kill",
        "job.announced:3=kill",
        "store.publish.one:1=kill",
    ];
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, TARGETS));
    let kills = faults.map(|fault| {
        let sandbox = &sandbox;
        move |args: Vec<&str>| {
            let mut command = sandbox.command(args);
            command.env(fault::VARIABLE, fault);
            let run = support::sandbox::start(command, None).end();
            assert_eq!(run.code(), 137, "{fault}: {run}");
            run
        }
    });
    through_kills(&sandbox, LIST, 500, kills);
}

#[test]
fn a_kill_at_any_instant_costs_no_file_and_brings_none_too_many() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, TARGETS));
    let kills = (0..6).map(|number| kill_at(&sandbox, 40 + 70 * number));
    through_kills(&sandbox, LIST, 600, kills);
}

#[test]
fn a_search_brings_exactly_so_many_over_kills_too() {
    let (sandbox, site) = (Sandbox::new(), site());
    let url = format!("search.searxng.url={}", site.url_as("127.0.0.1", "/search"));
    let source = [
        "search:searxng?q=all",
        "--set",
        &url,
        "--set",
        "search.private_networks=true",
        "--set",
        "search.searxng.per_minute=0",
    ];
    let kills = [1, 300].map(|files| kill_at(&sandbox, files));
    through_kills(&sandbox, &source, 700, kills);
    let everything = Sandbox::new();
    let run = everything.run(args(&everything, &source, "900")).expect(3);
    assert_exactly(&everything, 820);
    let report = run.json();
    let said = report["error"].as_str().unwrap();
    assert!(
        said.starts_with(
            "stored 820 of the 900 files asked for: `searxng` has no more results for `all`"
        ),
        "{said}"
    );
}

#[test]
fn the_last_one_may_have_been_stored_when_the_kill_came() {
    if !fault::COMPILED_IN {
        eprintln!("skipped: this build has no fault points");
        return;
    }
    let site = site();
    // Both strike before the job hears of its file, and so before it can have ended.
    for fault in ["catalog.committed:1=kill", "store.publish.one:1=kill"] {
        let sandbox = Sandbox::new();
        sandbox.write("list.txt", list(&site, 100));
        let mut command = sandbox.command(args(&sandbox, LIST, "1"));
        command.env(fault::VARIABLE, fault);
        let run = support::sandbox::start(command, None).end();
        assert_eq!(run.code(), 137, "{fault}: {run}");
        let run = sandbox.run(args(&sandbox, LIST, "1")).expect(0);
        assert_eq!(run.count("stored"), 0, "{fault}: {run}");
        assert_exactly(&sandbox, 1);
    }
}
