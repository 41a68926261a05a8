//! `gannet verify`: every record is held against its file, and what is damaged comes again.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::pictures::png;
use support::site::{Answer, Gate};
use support::{Run, Sandbox, Site, sha256};

fn number(path: &str) -> u32 {
    let digits: String = path.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Nothing that is known need be asked for again.
fn site() -> Site {
    Site::start(|asked| {
        Answer::ok(png(number(&asked.path)))
            .header("Cache-Control", "max-age=3600")
            .header("ETag", "\"1\"")
            .unless_known(asked)
    })
}

/// A store with `n` files, which are named by their numbers.
fn store(site: &Site, n: u32) -> Sandbox {
    let sandbox = Sandbox::new();
    let rows = (1..=n).map(|n| format!("{},{n}\n", site.url(&format!("/{n}"))));
    let list = "url,name\n".to_owned() + &rows.collect::<String>();
    sandbox.fetch_list(list, 0, &["-a", "birds"]);
    sandbox
}

fn file(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.store().join("birds").join(name)
}

/// Other bytes of the same length, at the same time: nothing but the digest shows it.
fn rot(sandbox: &Sandbox, name: &str) {
    let path = file(sandbox, name);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(written).unwrap();
}

/// One file missing, one cut short, one rotten, one that nobody knows.
fn damage(sandbox: &Sandbox) {
    std::fs::remove_file(file(sandbox, "1.png")).unwrap();
    std::fs::write(file(sandbox, "2.png"), "cut").unwrap();
    rot(sandbox, "3.png");
    sandbox.write("out/birds/eggs/stranger.txt", "hello");
    sandbox.write("out/.hidden", "not visible");
}

fn verify(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut all = vec!["verify", "-o", "out", "--json"];
    all.extend(args);
    sandbox.run(all)
}

fn repair(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut all = sandbox.fetch_args(args);
    all[0] = "verify";
    all.push("--repair");
    sandbox.run(all)
}

fn lines(run: &Run) -> Vec<Value> {
    let lines = run.out().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The findings: problems by path.
fn findings(run: &Run) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = lines(run).into_iter();
    lines
        .filter(|line| line["problem"].is_string())
        .map(|line| (text(&line["path"]), text(&line["problem"])))
        .collect()
}

fn summary(run: &Run) -> Value {
    lines(run).pop().unwrap()
}

/// Every file with its inode, times and bytes.
fn everything(sandbox: &Sandbox) -> Vec<(PathBuf, u64, i64, Vec<u8>)> {
    let paths = sandbox.everything().into_iter();
    paths
        .map(|path| {
            let stat = std::fs::metadata(&path).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            (path, stat.ino(), stat.mtime_nsec(), bytes)
        })
        .collect()
}

#[test]
fn a_store_in_order_has_nothing_to_tell() {
    let site = site();
    // More than a page of records.
    let sandbox = store(&site, 300);
    let run = verify(&sandbox, &[]).expect(0);
    let summary = summary(&run);
    assert_eq!(lines(&run).len(), 1, "{run}");
    assert_eq!(summary["files"], 300);
    let run = sandbox.run(["verify", "-o", "out"]).expect(0);
    assert!(run.out().ends_with(": all as recorded\n"), "{run}");
}

#[test]
fn what_is_not_as_recorded_is_told_and_nothing_is_touched() {
    let site = site();
    let sandbox = store(&site, 5);
    damage(&sandbox);
    let before = everything(&sandbox);
    let run = verify(&sandbox, &[]).expect(3);
    assert_eq!(everything(&sandbox), before);
    let expected = [
        ("birds/1.png", "missing"),
        ("birds/2.png", "length"),
        ("birds/3.png", "content"),
        ("birds/eggs/stranger.txt", "unrecorded"),
    ];
    let expected = expected.map(|(path, problem)| (path.to_owned(), problem.to_owned()));
    assert_eq!(findings(&run), BTreeMap::from(expected));
    let summary = summary(&run);
    assert_eq!(
        (&summary["files"], &summary["missing"], &summary["length"]),
        (&5.into(), &1.into(), &1.into())
    );
    let run = sandbox.run(["verify", "-o", "out"]).expect(3);
    assert!(run.out().starts_with("missing     birds/1.png\n"), "{run}");
}

#[test]
fn a_repair_brings_missing_and_damaged_files_back_into_their_places() {
    let site = site();
    let sandbox = store(&site, 5);
    let whole = sandbox.files();
    damage(&sandbox);
    site.forget();
    let run = repair(&sandbox, &[]).expect(3);
    assert_eq!(summary(&run)["repaired"], 3, "{run}");
    let mut asked: Vec<_> = site.asked().into_iter().map(|asked| asked.path).collect();
    asked.sort();
    assert_eq!(asked, ["/1", "/2", "/3"]);
    std::fs::remove_file(file(&sandbox, "eggs/stranger.txt")).unwrap();
    let mut files = sandbox.files();
    files.remove(".hidden");
    assert_eq!(files, whole);
    verify(&sandbox, &[]).expect(0);
    rot(&sandbox, "4.png");
    repair(&sandbox, &[]).expect(0);
    assert_eq!(
        sha256(&std::fs::read(file(&sandbox, "4.png")).unwrap()),
        sha256(&png(4))
    );
}

#[test]
fn a_repair_does_not_take_the_damaged_file_for_a_duplicate_of_itself() {
    let site = site();
    let sandbox = store(&site, 2);
    rot(&sandbox, "1.png");
    repair(&sandbox, &["--set", "job.dedupe=store"]).expect(0);
    verify(&sandbox, &[]).expect(0);
}

#[test]
fn what_cannot_be_repaired_is_told_with_the_reason() {
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = is_gone.clone();
    let site = Site::start(move |asked| {
        if gone.load(Ordering::SeqCst) && asked.path == "/1" {
            return Answer::status(404);
        }
        Answer::ok(png(number(&asked.path)))
    });
    let sandbox = Sandbox::new();
    let secret = site.url("/2").replace("//", "//ann:secret@");
    let list = format!("url,name\n{},1\n{secret},2\n", site.url("/1"));
    sandbox.fetch_list(list, 0, &["-a", "birds"]);
    is_gone.store(true, Ordering::SeqCst);
    rot(&sandbox, "1.png");
    rot(&sandbox, "2.png");
    site.forget();
    let run = repair(&sandbox, &[]).expect(3);
    assert_eq!(site.total(), 1, "masked credentials are no credentials");
    let why: Vec<_> = lines(&run)
        .into_iter()
        .filter(|line| line["repaired"] == false)
        .map(|line| line["detail"].as_str().unwrap().to_owned())
        .collect();
    assert!(why[0].starts_with("status: "), "{why:?}");
    assert!(why[1].contains("credentials"), "{why:?}");
    assert_eq!(summary(&run)["repaired"], 0);
}

#[test]
fn it_works_beside_a_fetch_and_a_repair_does_not() {
    let gate = Gate::new();
    let closed = gate.clone();
    let site = Site::start(move |asked| {
        if asked.path == "/9" {
            closed.pass();
        }
        Answer::ok(png(number(&asked.path)))
    });
    let sandbox = store(&site, 3);
    site.forget();
    let url = site.url("/9");
    let fetch = sandbox.start(sandbox.fetch_args(&["-u", &url]));
    site.wait_for(1);
    verify(&sandbox, &[]).expect(0);
    rot(&sandbox, "2.png");
    verify(&sandbox, &[]).expect(3);
    repair(&sandbox, &[]).expect(4);
    gate.open();
    fetch.end().expect(0);
}

#[test]
fn what_a_crash_left_unpublished_is_missing_until_the_next_run() {
    let site = site();
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", site.list(["/1"]));
    let mut command = sandbox.command(sandbox.fetch_args(&["list.txt"]));
    command.env(gannet::fault::VARIABLE, "store.publish.before:1=kill");
    support::sandbox::start(command, None).end().expect(137);
    let run = verify(&sandbox, &[]).expect(3);
    let detail = lines(&run)[0]["detail"].clone();
    assert!(detail.as_str().unwrap().contains("stage"), "{run}");
    site.forget();
    repair(&sandbox, &[]).expect(0);
    assert_eq!(site.total(), 0, "it only had to be published");
}

#[test]
fn a_store_that_is_not_there_is_an_error_and_not_made() {
    let sandbox = Sandbox::new();
    verify(&sandbox, &[]).expect(1).says(&["no catalog"]);
    repair(&sandbox, &[]).expect(1).says(&["no catalog"]);
    assert_eq!(sandbox.everything(), Vec::<PathBuf>::new());
}
