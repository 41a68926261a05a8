//! `--count N` ends with exactly N files of distinct contents, and never shows one more, whatever the concurrency, the
//! state of the list, and the instant at which the process is killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod origin;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gannet::fault;
use support::pictures::png;
use support::sandbox::Running;
use support::{Answer, Asked, Sandbox, Site, sha256};

/// Of a hundred targets ten are dead, five have another one's bytes, and three are no pictures.
fn answer(asked: &Asked) -> Answer {
    let number: u32 = asked.path.trim_start_matches('/').parse().unwrap();
    match number % 100 {
        3 | 13 | 23 | 33 | 43 | 53 | 63 | 73 | 83 | 93 => Answer::status(404),
        7 | 27 | 47 | 67 | 87 => Answer::ok(png(number - number % 100)),
        9 | 49 | 89 => Answer::ok("<!doctype html><p>Sold out"),
        _ => Answer::ok(png(number)),
    }
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

fn args<'a>(sandbox: &Sandbox, count: &'a str) -> Vec<&'a str> {
    let mut args = sandbox.fetch_args(&["list.txt", "--count", count, "-j", "256"]);
    // Small batches, so that there are many.
    args.extend(["--per-host", "16", "--set", "storage.commit_files=32"]);
    args
}

#[test]
fn no_more_files_than_asked_for_are_ever_seen() {
    let site = site();
    for count in [0, 1, 50, 700] {
        let sandbox = Sandbox::new();
        sandbox.write("list.txt", list(&site, 1000));
        let args = args(&sandbox, Box::leak(count.to_string().into_boxed_str()));
        let (most, run) = most_seen(&sandbox.store(), || sandbox.run(args));
        let run = run.expect(0);
        assert_eq!(run.count("stored"), count as u64, "{run}");
        assert_eq!(most, count, "{run}");
        assert_exactly(&sandbox, count);
    }
}

#[test]
fn a_list_that_ends_before_ends_with_3_and_all_that_there_is() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, 300));
    let run = sandbox.run(args(&sandbox, "1000")).expect(3);
    assert_exactly(&sandbox, 300 / 100 * 82);
    let said = "stored 246 of the 1000 files asked for: the list has no more";
    assert_eq!(run.json()["error"], said, "{run}");
}

/// Runs until nothing is left to do, each time with another of `faults`.
fn through_kills(count: usize, kills: impl IntoIterator<Item = impl FnOnce(&Sandbox, Vec<&str>)>) {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, 1000));
    let text = count.to_string();
    let store = sandbox.store();
    for (number, kill) in kills.into_iter().enumerate() {
        let (most, ()) = most_seen(&store, || kill(&sandbox, args(&sandbox, &text)));
        assert!(most <= count, "{most} files after kill {number}");
    }
    let (most, run) = most_seen(&store, || sandbox.run(args(&sandbox, &text)));
    let run = run.expect(0);
    assert_eq!(most, count, "{run}");
    assert_exactly(&sandbox, count);
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
    through_kills(
        500,
        faults.map(|fault| {
            move |sandbox: &Sandbox, args: Vec<&str>| {
                let mut command = sandbox.command(args);
                command.env(fault::VARIABLE, fault);
                let run = support::sandbox::start(command, None).end();
                assert_eq!(run.code(), 137, "{fault}: {run}");
            }
        }),
    );
}

#[test]
fn a_kill_at_any_instant_costs_no_file_and_brings_none_too_many() {
    let kills = (0..6).map(|number| {
        move |sandbox: &Sandbox, args: Vec<&str>| {
            let mut running: Running = sandbox.start(args);
            // Some way on, which is later each time.
            while !running.has_ended() && visible(&sandbox.store()) < 40 + 90 * number {
                std::thread::yield_now();
            }
            let run = running.kill();
            assert!(matches!(run.code(), 137 | 0), "{run}");
        }
    });
    through_kills(600, kills);
}

#[test]
fn the_last_one_may_have_been_stored_when_the_kill_came() {
    if !fault::COMPILED_IN {
        eprintln!("skipped: this build has no fault points");
        return;
    }
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", list(&site, 100));
    for fault in ["catalog.committed:1=kill", "job.announced:1=kill"] {
        let sandbox = Sandbox::new();
        sandbox.write("list.txt", list(&site, 100));
        let mut command = sandbox.command(args(&sandbox, "1"));
        command.env(fault::VARIABLE, fault);
        let run = support::sandbox::start(command, None).end();
        assert_eq!(run.code(), 137, "{fault}: {run}");
        let run = sandbox.run(args(&sandbox, "1")).expect(0);
        assert_eq!(run.count("stored"), 0, "{fault}: {run}");
        assert_exactly(&sandbox, 1);
    }
}
