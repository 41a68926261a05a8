//! Memory is bounded: neither a long list nor a large file makes the process grow. So are open files.
//!
//! With `GANNET_LONG_TESTS` set, the lists have a million URLs and the files 2 GiB; otherwise as much as an
//! unoptimised build gets through in a while.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod origin;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use origin::{Origin, Reply};

/// 64 MiB; and as much again where nothing is optimised: 30 MiB of code, and futures several times as large.
const LIMIT: u64 = if cfg!(debug_assertions) {
    128 << 20
} else {
    64 << 20
};

fn is_long() -> bool {
    std::env::var_os("GANNET_LONG_TESTS").is_some()
}

/// Runs gannet and returns its summary and the most memory that it ever occupied, in bytes.
fn run(dir: &std::path::Path, args: &[&str]) -> (serde_json::Value, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gannet"))
        .args([
            "fetch",
            "list.txt",
            "-o",
            "out",
            "--json",
            "-q",
            "--progress=never",
        ])
        .args([
            "--kind=any",
            "--allow-private",
            "--proxy=direct",
            "--deadline=20m",
        ])
        .arg("--set=storage.sync=false")
        .args(args)
        .current_dir(dir)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let done = AtomicBool::new(false);
    let (output, peak) = std::thread::scope(|scope| {
        // The high-water mark only grows, so the last look before the end is the one that counts.
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::SeqCst) {
                peak = peak.max(high_water(&status).unwrap_or(0));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            peak
        });
        let mut stdout = child.stdout.take().unwrap();
        let output = std::io::read_to_string(&mut stdout).unwrap();
        done.store(true, Ordering::SeqCst);
        (output, watch.join().unwrap())
    });
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{output}");
    assert!(peak > 0);
    (serde_json::from_str(&output).unwrap(), peak)
}

/// `VmHWM` of /proc/PID/status, see proc_pid_status(5).
fn high_water(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn list(dir: &std::path::Path, urls: impl Iterator<Item = String>) {
    let file = std::fs::File::create(dir.join("list.txt")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    for url in urls {
        writeln!(file, "{url}").unwrap();
    }
    file.flush().unwrap();
}

#[test]
fn a_long_list_needs_no_more_memory_than_a_short_one() {
    let count: u64 = if is_long() { 1_000_000 } else { 15_000 };
    let origin = Origin::builder()
        .forgetful()
        .otherwise(Reply::ok("a small body"))
        .start();
    let dir = tempfile::tempdir().unwrap();
    list(
        dir.path(),
        (0..count).map(|n| origin.url(&format!("/{n}")).into()),
    );
    let args = [
        "--per-host=64",
        "--report=report.json",
        "--report=report.xml",
        "--report=report.html",
    ];
    let (summary, peak) = run(dir.path(), &args);
    assert_eq!(summary["counts"]["targets"], count);
    assert_eq!(summary["counts"]["stored"], count);
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
    let report = std::fs::metadata(dir.path().join("report.json")).unwrap();
    assert!(report.len() > count * 100);
}

#[test]
fn lines_that_are_no_targets_need_no_memory_either() {
    let count: u64 = if is_long() { 10_000_000 } else { 300_000 };
    let origin = Origin::with("/", Reply::ok("a"));
    let dir = tempfile::tempdir().unwrap();
    let url = origin.url("/").to_string();
    list(
        dir.path(),
        (0..count).map(|n| match n % 3 {
            0 => format!("# {n}"),
            1 => String::new(),
            _ => url.clone(),
        }),
    );
    let (summary, peak) = run(dir.path(), &[]);
    assert_eq!(summary["counts"]["targets"], 1);
    assert_eq!(summary["repeats"], count / 3 - 1);
    assert_eq!(origin.hits("/"), 1);
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
}

#[test]
fn a_line_without_end_needs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::with("/", Reply::ok("a"));
    let long = "a".repeat(100 << 20);
    list(dir.path(), [long, origin.url("/").into()].into_iter());
    let (summary, peak) = run(dir.path(), &["--max-failures=1"]);
    assert_eq!(summary["counts"]["targets"], 2);
    assert_eq!(summary["counts"]["stored"], 1);
    assert_eq!(summary["reasons"]["invalid-url"], 1);
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
}

#[test]
fn large_files_need_no_memory() {
    let mebibytes: u64 = if is_long() { 2048 } else { 256 };
    let piece = common::noise(1 << 20);
    let origin = Origin::builder()
        .route("/large", Reply::ok(piece.clone()).repeated(mebibytes))
        // Eight at a time, of no announced length.
        .otherwise(Reply::ok(vec![7; 8 << 20]).chunked())
        .start();
    let dir = tempfile::tempdir().unwrap();
    let others = (0..8).map(|n| format!("/{n}"));
    let paths = std::iter::once("/large".to_owned()).chain(others);
    list(dir.path(), paths.map(|path| origin.url(&path).into()));
    let (summary, peak) = run(dir.path(), &[]);
    assert_eq!(summary["counts"]["stored"], 9);
    assert_eq!(summary["bytes"], (mebibytes + 64) << 20);
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
}

/// The soft and the hard limit of open files, and the requests at a time that there are with them.
fn few_files_open(soft: u32, hard: u32) -> (usize, String) {
    let origin = Origin::builder()
        .otherwise(Reply::ok("a small body").after(Duration::from_millis(100)))
        .start();
    let dir = tempfile::tempdir().unwrap();
    list(
        dir.path(),
        (0..100).map(|n| origin.url(&format!("/{n}")).into()),
    );
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!(
            "ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""
        ))
        .arg(env!("CARGO_BIN_EXE_gannet"))
        .args([
            "fetch",
            "list.txt",
            "-o",
            "out",
            "--kind=any",
            "--per-host=32",
        ])
        .args([
            "--concurrency=32",
            "--allow-private",
            "--proxy=direct",
            "-q",
        ])
        .current_dir(dir.path())
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    (origin.peak_requests(), told)
}

#[test]
fn no_more_is_asked_for_at_a_time_than_files_may_be_open() {
    let (at_a_time, told) = few_files_open(96, 96);
    assert!(at_a_time <= 8, "{at_a_time}");
    assert!(told.contains("`fetch.concurrency = 32`"), "{told}");
}

#[test]
fn a_low_soft_limit_of_open_files_is_raised() {
    let (at_a_time, told) = few_files_open(32, 512);
    assert!(at_a_time > 8 && told.is_empty(), "{at_a_time} {told}");
}
