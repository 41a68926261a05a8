//! A daemon with a schedule each second, for ten minutes: no run is lost, none overlaps, nothing grows.
//!
//! Only with `GANNET_LONG_TESTS` set. `GANNET_SOAK_SECONDS` is another length, of at least two minutes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use support::checker::{When, violations};
use support::{Answer, Daemon, Sandbox, Site};

/// After which nothing grows any more.
const WARM: Duration = Duration::from_secs(60);

/// Looks at the process of which the least counts: while no job is under way.
const LOOKS: usize = 15;

/// What the process occupies: bytes of memory, and open files.
#[derive(Debug, Clone, Copy)]
struct Look {
    memory: u64,
    files: usize,
}

fn look(process: u32) -> Look {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.unwrap().trim().trim_end_matches(" kB");
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    Look {
        memory: memory.parse::<u64>().unwrap() * 1024,
        files: files.count(),
    }
}

fn least(looks: &[Look]) -> Look {
    Look {
        memory: looks.iter().map(|look| look.memory).min().unwrap(),
        files: looks.iter().map(|look| look.files).min().unwrap(),
    }
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_default().parse().unwrap()
}

#[test]
fn a_schedule_each_second_loses_nothing_and_grows_by_nothing() {
    if std::env::var_os("GANNET_LONG_TESTS").is_none() {
        eprintln!("skipped: GANNET_LONG_TESTS is not set");
        return;
    }
    let length = std::env::var("GANNET_SOAK_SECONDS").map_or(600, |length| length.parse().unwrap());
    let length = Duration::from_secs(length);
    assert!(length >= 2 * WARM);
    let sandbox = Sandbox::new();
    // A window of twenty files that moves on by one with each reading; each third has other bytes each time.
    let read = AtomicU64::new(0);
    let site = Site::start(move |asked| {
        let host = asked.header("host").unwrap_or_default();
        if asked.path != "/list" {
            let changes = asked.path.ends_with(['0', '3', '6', '9']);
            let version = if changes {
                read.load(Ordering::SeqCst)
            } else {
                0
            };
            return Answer::ok(format!("{} {version}", asked.path));
        }
        let first = read.fetch_add(1, Ordering::SeqCst);
        let lines = (first..first + 20).map(|n| format!("http://{host}/{n}\n"));
        Answer::ok(lines.collect::<String>()).header("Content-Type", "text/plain")
    });
    let text = format!(
        "[storage]\nroot = \"out\"\n[job]\nkind = \"any\"\n[fetch]\nprivate_networks = true\nproxy = \"direct\"\n\
         [[schedule]]\nname = \"each\"\ncron = \"* * * * * *\"\nsource = \"{}\"\nretention.max_files = 200\n",
        site.url("/list")
    );
    sandbox.write("gannet.toml", text);
    let daemon = Daemon::start(&sandbox);
    let begun = Instant::now();
    let (mut warm, mut looks) = (None, Vec::new());
    while begun.elapsed() < length {
        std::thread::park_timeout(Duration::from_millis(500));
        looks.push(look(daemon.id()));
        site.forget();
        daemon.manager.all();
        if warm.is_none() && begun.elapsed() > WARM {
            warm = Some(least(&looks[looks.len() - LOOKS..]));
        }
    }
    let (warm, last) = (warm.unwrap(), least(&looks[looks.len() - LOOKS..]));
    let each = daemon.schedule("each");
    let (skipped, missed) = (
        each["skipped"].as_i64().unwrap(),
        each["missed"].as_i64().unwrap(),
    );
    daemon.stop();
    let jobs = sandbox.run(["jobs", "--json", "--limit", "0"]).json();
    let mut jobs = jobs.as_array().unwrap().clone();
    jobs.reverse();
    let (first, end) = (
        time(&jobs[0]["started"]),
        time(&jobs[jobs.len() - 1]["started"]),
    );
    let seconds = end.timestamp() - first.timestamp() + 1;
    eprintln!(
        "{} jobs in {seconds} s, {skipped} skipped, {missed} missed; {} MiB then {} MiB; {} files open then {}",
        jobs.len(),
        warm.memory >> 20,
        last.memory >> 20,
        warm.files,
        last.files
    );
    for pair in jobs.windows(2) {
        assert!(
            time(&pair[0]["finished"]) <= time(&pair[1]["started"]),
            "{pair:#?}"
        );
    }
    for job in &jobs[..jobs.len() - 1] {
        assert_eq!(
            (&job["schedule"], &job["state"]),
            (&"each".into(), &"completed".into()),
            "{job}"
        );
        assert_eq!(job["counts"]["targets"], 20, "{job}");
    }
    // Both ends lie within a second.
    let told = jobs.len() as i64 + skipped + missed;
    assert!(
        (told - seconds).abs() <= 2,
        "{told} of {seconds} seconds are told of"
    );
    assert!(seconds + 5 >= length.as_secs() as i64, "{seconds}");
    assert!(last.memory * 10 <= warm.memory * 11, "{warm:?} {last:?}");
    assert!(last.files <= warm.files, "{warm:?} {last:?}");
    assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
}
