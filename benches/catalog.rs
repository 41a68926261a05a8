//! How fast catalogs are: `cargo bench --bench catalog [-- URLS [sqlite|postgres]]`.
//!
//! Batches against commits of single rows, then a million URLs that are known, looked up as a plan does, 500 at a time.
//! PostgreSQL is measured where it is installed, with its commits made durable like SQLite's.

#![expect(clippy::unwrap_used, reason = "a bench may fail")]

#[path = "../tests/support/postgres.rs"]
#[expect(dead_code, unreachable_pub, reason = "tests of the program share it")]
mod postgres;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use gannet::catalog::{self, Batch, Catalog, FileRow, NewJob, Record, Settings, TargetKey, Wanted};
use gannet::naming::NameFrom;
use gannet::target::{Outcome, Sha256};
use url::Url;
use uuid::Uuid;

/// Rows that are committed one by one.
const SINGLE: u64 = 500;

/// Rows of a batch.
const BATCH: u64 = 500;

/// Rows that are committed in batches, to be compared.
const BATCHED: u64 = 20_000;

/// URLs that are looked up at once.
const CHUNK: u64 = 500;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let urls = args.iter().find_map(|arg| arg.parse().ok());
    let urls = urls.unwrap_or(1_000_000);
    let only = |name: &str| args.iter().any(|arg| arg == name);
    if !only("postgres") {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".gannet")).unwrap();
        measure("sqlite", "", folder.path(), urls).await;
    }
    if !only("sqlite")
        && let Some(server) = postgres::Postgres::start_with("on")
    {
        measure("postgres", &server.database(), Path::new(""), urls).await;
    }
}

async fn measure(name: &str, url: &str, root: &Path, urls: u64) {
    let settings = Settings {
        url: url.to_owned(),
        patience: Duration::ZERO,
    };
    let catalog = catalog::open(&settings, root).await.unwrap();
    let job = Uuid::now_v7();
    let begun = NewJob {
        id: job,
        source: "list.txt".to_owned(),
        kind: "image".to_owned(),
        album: String::new(),
        source_id: None,
        continues: None,
        schedule: None,
        started: Utc::now(),
    };
    let begun = catalog.begin_job(&begun);
    begun.await.unwrap();
    let single = write(&*catalog, job, 0, SINGLE, 1).await;
    let batched = write(&*catalog, job, SINGLE, SINGLE + BATCHED, BATCH).await;
    println!(
        "{name}: {single:.0} rows/s in single commits, {batched:.0} rows/s in batches of {BATCH}: {:.0} times",
        batched / single
    );
    let filled = write(&*catalog, job, SINGLE + BATCHED, urls, BATCH).await;
    println!("{name}: {filled:.0} rows/s while it grows to {urls} URLs");

    // Has the kernel forget the peak so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let began = Instant::now();
    let mut found = 0;
    for from in (0..urls).step_by(CHUNK as usize) {
        let keys = (from..urls.min(from + CHUNK)).map(|n| key(&address(n)));
        found += catalog.known(keys.collect()).await.unwrap().len() as u64;
    }
    assert_eq!(found, urls);
    println!(
        "{name}: {urls} known URLs looked up in {:.1} s, peak memory {}",
        began.elapsed().as_secs_f64(),
        peak()
    );
    catalog.close().await;
}

/// Writes rows from number `from` to before `to`, so many at a time. Returns rows a second.
async fn write(catalog: &dyn Catalog, job: Uuid, from: u64, to: u64, at_a_time: u64) -> f64 {
    let began = Instant::now();
    for first in (from..to).step_by(at_a_time as usize) {
        let batch = Batch {
            id: Uuid::now_v7(),
            writer: job,
            now: Utc::now(),
            records: (first..to.min(first + at_a_time))
                .map(|n| record(job, n))
                .collect(),
        };
        catalog.record(Arc::new(batch)).await.unwrap();
    }
    to.saturating_sub(from) as f64 / began.elapsed().as_secs_f64()
}

fn address(n: u64) -> Url {
    let url = format!("https://images.example.org/{}/{n}.jpg", n % 1000);
    Url::parse(&url).unwrap()
}

fn key(url: &Url) -> TargetKey {
    TargetKey::of(url, None, None)
}

/// What a stored file leaves.
fn record(job: Uuid, n: u64) -> Record {
    let url = address(n);
    let id = Uuid::now_v7();
    Record {
        gone_until: None,
        key: Some(key(&url)),
        job,
        seq: n,
        url: url.to_string(),
        outcome: Outcome::Stored,
        reason: None,
        detail: None,
        status: Some(200),
        attempts: 1,
        elapsed_ms: Some(40),
        final_url: None,
        line: Some(n + 1),
        group: None,
        wanted: Some(Wanted::default()),
        listed: None,
        group_number: None,
        nth: None,
        steps: None,
        file: Some(id),
        checked: Some(Utc::now()),
        etag: Some(format!("\"{n:x}\"")),
        last_modified: Some("Tue, 01 Oct 2024 10:00:00 GMT".to_owned()),
        fresh_until: None,
        failed_under: None,
        bytes: 20_000,
        new_file: Some(FileRow {
            id,
            stage: id,
            path: format!("{n}.jpg"),
            album: None,
            format: "jpeg",
            media_type: "image/jpeg",
            bytes: 20_000,
            sha256: Sha256::of(&n.to_be_bytes()),
            dimensions: Some((640, 480)),
            active: false,
            orientation: None,
            undecoded: None,
            name_from: NameFrom::Url,
            metadata: None,
            mtime_ns: None,
            criteria: Some("image/header/268435456/65535/0".to_owned()),
            header_name: None,
            line: Some(n + 1),
            group: None,
            last_modified: None,
        }),
        recheck: None,
    }
}

/// The most memory that this process has held, in the kernel's words.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.map_or_else(String::new, |line| line[6..].trim().to_owned())
}
