//! `gannet daemon`, the real binary: schedules, systemd, signals, reloads, restarts.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use rusqlite::Connection;
use serde_json::Value;
use support::checker::{When, violations};
use support::daemon::{Manager, until};
use support::site::Gate;
use support::{Answer, Daemon, Run, Sandbox, Site, catalog};

/// Nothing is due on its own.
const YEARLY: &str = "cron = \"@yearly\"";

const EACH_SECOND: &str = "cron = \"* * * * * *\"";

/// Settings for a store `out`, anything that arrives, loopback, and no waits.
fn settings(sandbox: &Sandbox, rest: &str) {
    settings_with(sandbox, "", rest);
}

/// The same with lines in `[fetch]`.
fn settings_with(sandbox: &Sandbox, fetch: &str, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n[job]\nkind = \"any\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\nbackoff = \"5ms\"\n\
         backoff_max = \"20ms\"\n{fetch}\n{rest}\n"
    );
    sandbox.write("gannet.toml", text);
}

/// A `[[schedule]]` over `NAME.txt`.
fn schedule(name: &str, rest: &str) -> String {
    format!("[[schedule]]\nname = \"{name}\"\nsource = \"{name}.txt\"\n{rest}\n")
}

/// An origin that answers each path with bytes of its own.
fn plain() -> Site {
    Site::start(|asked| Answer::ok(asked.path.clone()))
}

/// An origin that answers only once the gate is open.
fn gated() -> (Site, Arc<Gate>) {
    gated_for("")
}

/// The same for paths that begin so; others are answered at once.
fn gated_for(prefix: &'static str) -> (Site, Arc<Gate>) {
    let gate = Gate::new();
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if asked.path.starts_with(prefix) {
                gate.pass();
            }
            Answer::ok(asked.path.clone())
        }
    });
    (site, gate)
}

fn paths(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{n}")).collect()
}

/// The history, oldest first.
fn jobs(sandbox: &Sandbox) -> Vec<Value> {
    let mut jobs: Vec<Value> = match sandbox.run(["jobs", "--json", "-o", "out"]).json() {
        Value::Array(jobs) => jobs,
        other => panic!("{other}"),
    };
    jobs.reverse();
    jobs
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_default().parse().unwrap()
}

/// A line of cron for the one second of the hour that is `seconds` away.
fn in_seconds(seconds: i64) -> String {
    let at = Utc::now() + TimeDelta::seconds(seconds);
    format!("cron = \"{} {} * * * *\"", at.second(), at.minute())
}

/// The paths that were asked for.
fn asked(site: &Site) -> Vec<String> {
    site.asked().into_iter().map(|asked| asked.path).collect()
}

#[track_caller]
fn assert_distinct(paths: &[String]) {
    let distinct: BTreeSet<&String> = paths.iter().collect();
    assert_eq!(distinct.len(), paths.len(), "asked twice: {paths:?}");
}

mod schedules {
    use super::*;

    #[test]
    fn one_each_second_runs_again_and_again_and_never_twice_at_once() {
        let sandbox = Sandbox::new();
        let gate = Gate::new();
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let site = Site::start({
            let (gate, now, peak) = (gate.clone(), now.clone(), peak.clone());
            move |_| {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.pass();
                now.fetch_sub(1, Ordering::SeqCst);
                Answer::ok("bytes")
            }
        });
        sandbox.write("each.txt", site.url("/a"));
        settings(&sandbox, &schedule("each", EACH_SECOND));
        let daemon = Daemon::start(&sandbox);
        site.wait_for(1);
        daemon.until("each", "skips times", |each| {
            each["skipped"].as_u64() >= Some(2)
        });
        assert_eq!(site.total(), 1);
        gate.open();
        site.wait_for(4);
        daemon.ask("pause", "each").expect(0);
        daemon.until("each", "rests", |each| each["running"].is_null());
        let run = daemon.stop();
        assert!(
            run.stderr
                .contains("`each` is due and still running: skipped"),
            "{run}"
        );
        assert_eq!(peak.load(Ordering::SeqCst), 1);
        let jobs = jobs(&sandbox);
        assert!(jobs.len() >= 4, "{jobs:#?}");
        for job in &jobs {
            assert_eq!(job["schedule"], "each");
            assert_eq!(job["counts"]["targets"], 1, "{job}");
        }
        for pair in jobs.windows(2) {
            assert!(
                time(&pair[0]["finished"]) <= time(&pair[1]["started"]),
                "{pair:#?}"
            );
        }
    }

    /// A time that comes while a job is under way, by `overlap`: the schedule once the job is over.
    fn overlapping(overlap: &str, is_over: impl Fn(&Value, &[Value]) -> bool) -> Vec<Value> {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        sandbox.write("a.txt", site.url("/a"));
        let overlap = format!("overlap = \"{overlap}\"");
        settings(&sandbox, &schedule("a", &format!("{YEARLY}\n{overlap}")));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        let soon = in_seconds(2);
        settings(&sandbox, &schedule("a", &format!("{soon}\n{overlap}")));
        daemon.reload();
        let due = time(&daemon.schedule("a")["next"]);
        daemon.until("a", "lets its time pass", |a| time(&a["next"]) > due);
        let next = |a: &Value| time(&a["next"]) > due && a["running"].is_object();
        daemon.until("a", "still runs", next);
        gate.open();
        until("the runs come to their end", || {
            let (a, jobs) = (daemon.schedule("a"), jobs(&sandbox));
            match a["running"].is_null() && is_over(&a, &jobs) {
                true => Ok(jobs),
                false => Err(format!("{a}\n{jobs:#?}")),
            }
        })
    }

    #[test]
    fn a_time_during_a_run_is_skipped_and_counted() {
        let jobs = overlapping("skip", |a, _| a["skipped"] == 1);
        assert_eq!(jobs.len(), 1, "{jobs:#?}");
    }

    #[test]
    fn a_time_during_a_run_is_run_afterwards_where_the_schedule_queues() {
        let jobs = overlapping("queue", |a, jobs| a["skipped"] == 0 && jobs.len() == 2);
        assert!(
            time(&jobs[0]["finished"]) <= time(&jobs[1]["started"]),
            "{jobs:#?}"
        );
    }

    #[test]
    fn what_was_missed_is_made_up_for_once_or_told() {
        let sandbox = Sandbox::new();
        let site = plain();
        // Half an hour from the next time, so that nothing is due meanwhile.
        let half = Utc::now() - TimeDelta::minutes(30);
        let cron = format!("cron = \"{} * * * *\"", half.minute());
        for name in ["up", "none", "start"] {
            sandbox.write(&format!("{name}.txt"), site.url(&format!("/{name}")));
        }
        let both = [
            schedule("up", &format!("{cron}\ncatch_up = true")),
            schedule("none", &cron),
            schedule("start", &format!("{YEARLY}\nrun_at_start = true")),
        ];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start(&sandbox);
        daemon.ended_after("start", &Value::Null);
        assert_eq!(asked(&site), ["/start"]);
        daemon.stop();
        let before = (Utc::now() - TimeDelta::hours(3)).timestamp_millis();
        catalog::change(
            &sandbox.store(),
            &format!("UPDATE schedules SET last_due = {before} WHERE name <> 'start'"),
        );
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.ended_after("up", &Value::Null)["state"], "completed");
        daemon.until("start", "runs again", |_| site.total() == 3);
        let none = daemon.schedule("none");
        assert_eq!(
            (&none["missed"], &none["last"]),
            (&3.into(), &Value::Null),
            "{none}"
        );
        assert_eq!(daemon.schedule("up")["missed"], 2);
        let run = daemon.stop();
        assert!(run.stderr.contains("`none`: 3 times passed"), "{run}");
        assert!(run.stderr.contains("`up` makes up for"), "{run}");
        let mut asked = asked(&site);
        asked.sort();
        assert_eq!(asked, ["/start", "/start", "/up"]);
        // What was made up for is done with.
        let daemon = Daemon::start(&sandbox);
        until("the run at the start", || match site.total() {
            4 => Ok(()),
            other => Err(other.to_string()),
        });
        daemon.stop();
        assert_eq!(site.total(), 4);
    }
}

mod systemd {
    use super::*;

    #[test]
    fn it_is_ready_once_it_can_be_asked_and_tells_how_far_jobs_are() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated_for("/held");
        sandbox.write("shop.txt", site.list(["/1", "/2", "/held"]));
        settings(&sandbox, &schedule("shop", YEARLY));
        let daemon = Daemon::start(&sandbox);
        sandbox.run(["status"]).expect(0);
        daemon.ask("run", "shop").expect(0);
        daemon.manager.wait_for("STATUS=running: shop 2/3");
        gate.open();
        daemon.manager.wait_for("STATUS=next: shop at ");
        daemon.signal("TERM");
        assert_eq!(daemon.manager.wait_for("STOPPING"), "STOPPING=1\n");
        let run = daemon.end().expect(0);
        let foreign = run.stderr.lines().find(|line| !line.contains(" gannet::"));
        assert_eq!(foreign, None, "{run}");
    }

    /// `gannet daemon` that systemd watches.
    fn watched(sandbox: &Sandbox, limit: Duration, pid: &str) -> std::process::Command {
        let daemon = sandbox.command(["daemon"]);
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", &format!("WATCHDOG_PID={pid} exec \"$0\" daemon")])
            .arg(daemon.get_program())
            .current_dir(sandbox.path(""))
            .env_clear()
            .env("WATCHDOG_USEC", limit.as_micros().to_string());
        command
    }

    #[test]
    fn the_watchdog_is_fed_whatever_jobs_and_the_catalog_do() {
        const LIMIT: Duration = Duration::from_secs(2);
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        sandbox.write("a.txt", site.url("/a"));
        sandbox.write("b.txt", site.url("/b"));
        let both = [schedule("a", YEARLY), schedule("b", YEARLY)];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start_as(&sandbox, watched(&sandbox, LIMIT, "$$"));
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        let db = Connection::open(sandbox.store().join(".gannet/catalog.db")).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch("BEGIN EXCLUSIVE").unwrap();
        daemon.ask("run", "b").expect(0);
        daemon.manager.all();
        daemon.manager.wait_for("WATCHDOG=1");
        for _ in 0..4 {
            let before = Instant::now();
            daemon.manager.wait_for("WATCHDOG=1");
            assert!(before.elapsed() <= LIMIT / 2, "{:?}", before.elapsed());
        }
        db.execute_batch("COMMIT").unwrap();
        gate.open();
        daemon.ended_after("b", &Value::Null);
        daemon.stop();
    }

    #[test]
    fn the_watchdog_is_fed_until_the_end() {
        const LIMIT: Duration = Duration::from_secs(2);
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        sandbox.write("a.txt", site.url("/a"));
        settings(&sandbox, &schedule("a", YEARLY));
        let daemon = Daemon::start_as(&sandbox, watched(&sandbox, LIMIT, "$$"));
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        daemon.terminate();
        for _ in 0..2 {
            let before = Instant::now();
            daemon.manager.wait_for("WATCHDOG=1");
            assert!(before.elapsed() <= LIMIT / 2, "{:?}", before.elapsed());
        }
        gate.open();
        daemon.end().expect(0);
    }

    #[test]
    fn a_service_manager_may_have_an_abstract_socket() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &schedule("a", YEARLY));
        let manager = Manager::with_abstract_name(&sandbox);
        let command = watched(&sandbox, Duration::from_secs(2), "$$");
        // Returns after `READY=1`.
        let daemon = Daemon::start_under(&sandbox, command, manager);
        daemon.manager.wait_for("WATCHDOG=1");
        daemon.signal("HUP");
        daemon.manager.wait_for("RELOADING=1");
        daemon.manager.wait_for("READY=1");
        // Waits for `STOPPING=1`.
        daemon.terminate();
        daemon.end().expect(0);
    }

    #[test]
    fn the_watchdog_of_another_process_is_left_alone() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &schedule("a", YEARLY));
        sandbox.write("a.txt", "");
        let limit = Duration::from_millis(100);
        let daemon = Daemon::start_as(&sandbox, watched(&sandbox, limit, "1"));
        daemon.run("a");
        let all = daemon.manager.all();
        assert!(
            all.iter().all(|message| !message.contains("WATCHDOG")),
            "{all:?}"
        );
        daemon.stop();
    }

    #[test]
    fn a_reload_begins_with_its_time_and_ends_with_ready() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &schedule("a", YEARLY));
        let daemon = Daemon::start(&sandbox);
        daemon.manager.all();
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1000
        };
        let before = now();
        daemon.signal("HUP");
        let message = daemon.manager.wait_for("RELOADING=1");
        let begun = message
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let begun: i64 = begun.unwrap_or_default().parse().unwrap();
        assert!((before..=now()).contains(&begun), "{message}");
        daemon.manager.wait_for("READY=1");
        // A bad file too.
        sandbox.write("gannet.toml", "[[[");
        daemon.reload();
        daemon.stop();
    }
}

mod signals {
    use super::*;

    /// Two requests of six are under way.
    fn under_way<'a>(sandbox: &'a Sandbox, site: &Site, daemon: &str) -> Daemon<'a> {
        sandbox.write("a.txt", site.list(paths(6)));
        let rest = format!("[daemon]\n{daemon}\n{}", schedule("a", YEARLY));
        settings_with(sandbox, "concurrency = 2", &rest);
        let daemon = Daemon::start(sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(2);
        daemon
    }

    #[test]
    fn sigterm_keeps_what_is_being_fetched_and_the_next_start_goes_on() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        let daemon = under_way(&sandbox, &site, "");
        daemon.terminate();
        gate.open();
        daemon.end().expect(0);
        assert_eq!(site.total(), 2);
        assert_eq!(sandbox.files().len(), 2);
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
        let left = jobs(&sandbox);
        assert_eq!(
            (left.len(), &left[0]["interrupted"]),
            (1, &true.into()),
            "{left:#?}"
        );
        assert_eq!(left[0]["counts"]["stored"], 2);
        let daemon = Daemon::start(&sandbox);
        let last = daemon.ended_after("a", &left[0]["id"]);
        assert_eq!(last["state"], "completed");
        assert_eq!(last["counts"]["stored"], 4);
        daemon.stop();
        let both = jobs(&sandbox);
        assert_eq!(both[1]["continues"], left[0]["id"]);
        assert_eq!(site.total(), 6);
        assert_distinct(&asked(&site));
        assert_eq!(sandbox.files().len(), 6);
    }

    #[test]
    fn what_was_interrupted_too_long_ago_is_left_to_the_next_time() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        let daemon = under_way(&sandbox, &site, "");
        daemon.terminate();
        gate.open();
        daemon.end().expect(0);
        sandbox.write("b.txt", "");
        let late = format!("{YEARLY}\njob.resume_within = \"1ms\"");
        let start = format!("{YEARLY}\nrun_at_start = true");
        settings(
            &sandbox,
            &[schedule("a", &late), schedule("b", &start)].concat(),
        );
        let daemon = Daemon::start(&sandbox);
        daemon.ended_after("b", &Value::Null);
        let a = daemon.schedule("a");
        assert!(
            a["running"].is_null() && a["last"]["interrupted"] == true,
            "{a}"
        );
        daemon.stop();
        assert_eq!(site.total(), 2);
    }

    #[test]
    fn sigterm_does_not_wait_for_a_silent_origin() {
        let sandbox = Sandbox::new();
        let (site, _gate) = gated();
        let daemon = under_way(&sandbox, &site, "stop_timeout = \"200ms\"");
        daemon.terminate();
        let begun = Instant::now();
        let run = daemon.end().expect(0);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert!(run.stderr.contains("is left to the next start"), "{run}");
        assert_eq!(site.total(), 2);
        assert_eq!(jobs(&sandbox)[0]["interrupted"], true);
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
    }

    #[test]
    fn a_second_sigterm_ends_it_at_once() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        let daemon = under_way(&sandbox, &site, "stop_timeout = \"10m\"");
        daemon.terminate();
        daemon.signal("TERM");
        daemon.end().expect(143);
        gate.open();
        assert_eq!(violations(&sandbox, When::Crashed), [""; 0]);
    }

    /// Holds the catalog as another program might.
    fn hold(sandbox: &Sandbox) -> Connection {
        let db = Connection::open(sandbox.store().join(".gannet/catalog.db")).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch("BEGIN EXCLUSIVE").unwrap();
        db
    }

    #[test]
    fn a_second_sigterm_ends_it_also_while_it_waits_for_the_catalog() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(&sandbox, &schedule("a", YEARLY));
        let daemon = Daemon::start(&sandbox);
        let _held = hold(&sandbox);
        daemon.ask("pause", "a").expect(0);
        daemon.terminate();
        daemon.signal("TERM");
        daemon.end().expect(143);
    }

    #[test]
    fn sigterm_ends_it_also_while_it_starts() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(&sandbox, &schedule("a", YEARLY));
        Daemon::start(&sandbox).stop();
        let _held = hold(&sandbox);
        let daemon = sandbox.start(["daemon"]);
        until("it listens to signals", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()));
            let status = status.unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            match caught & (1 << 14) {
                0 => Err(status),
                _ => Ok(()),
            }
        });
        daemon.signal("TERM");
        daemon.end_within(Duration::from_secs(20)).expect(0);
    }

    #[test]
    fn sigkill_loses_nothing_and_the_next_start_goes_on() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated_for("/held");
        let mut list = paths(4);
        list.extend((0..4).map(|n| format!("/held{n}")));
        sandbox.write("a.txt", site.list(&list));
        settings(&sandbox, &schedule("a", YEARLY));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        daemon.until("a", "has four files", |a| {
            a["running"]["counts"]["stored"] == 4
        });
        site.wait_for(8);
        daemon.kill();
        assert_eq!(violations(&sandbox, When::Crashed), [""; 0]);
        let gone = sandbox.run(["status", "--json"]).expect(1).json();
        assert_eq!(gone["pid"], Value::Null);
        site.forget();
        gate.open();
        let daemon = Daemon::start(&sandbox);
        let last = daemon.ended_after("a", &jobs(&sandbox)[0]["id"]);
        assert_eq!(
            (&last["state"], &last["counts"]["stored"]),
            (&"completed".into(), &4.into())
        );
        daemon.stop();
        let asked = asked(&site);
        assert!(
            asked.len() == 4 && asked.iter().all(|path| path.starts_with("/held")),
            "{asked:?}"
        );
        let jobs = jobs(&sandbox);
        assert_eq!(jobs[1]["continues"], jobs[0]["id"]);
        assert_eq!(jobs[0]["interrupted"], true);
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
        assert_eq!(sandbox.files().len(), 8);
    }
}

mod reload {
    use super::*;

    #[test]
    fn schedules_come_go_and_change_and_jobs_go_on() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated_for("/old");
        for name in ["old", "kept", "new"] {
            sandbox.write(&format!("{name}.txt"), site.url(&format!("/{name}")));
        }
        settings(
            &sandbox,
            &[schedule("old", YEARLY), schedule("kept", YEARLY)].concat(),
        );
        let daemon = Daemon::start(&sandbox);
        daemon.run("kept");
        daemon.ask("pause", "kept").expect(0);
        daemon.ask("run", "old").expect(0);
        site.wait_for(2);
        settings(
            &sandbox,
            &[
                schedule("kept", "cron = \"@hourly\""),
                schedule("new", EACH_SECOND),
            ]
            .concat(),
        );
        daemon.reload();
        daemon.ended_after("new", &Value::Null);
        let kept = daemon.schedule("kept");
        assert_eq!(
            (&kept["cron"], &kept["paused"]),
            (&"@hourly".into(), &true.into()),
            "{kept}"
        );
        assert_eq!(kept["last"]["state"], "completed");
        // It is there for as long as its job is, and not to be begun again.
        assert!(daemon.schedule("old")["running"].is_object());
        daemon
            .ask("run", "old")
            .expect(1)
            .says(&["no schedule `old`", "kept, new"]);
        gate.open();
        daemon.until("old", "is gone", Value::is_null);
        daemon.ask("resume", "kept").expect(0);
        assert_ne!(daemon.schedule("kept")["next"], Value::Null);
        daemon.stop();
        let jobs = jobs(&sandbox);
        let old: Vec<_> = jobs.iter().filter(|job| job["schedule"] == "old").collect();
        assert_eq!(
            (old.len(), &old[0]["state"]),
            (1, &"completed".into()),
            "{jobs:#?}"
        );
        assert!(
            sandbox
                .names()
                .iter()
                .any(|name| sandbox.files()[name] == b"/old")
        );
    }

    #[test]
    fn a_pause_is_remembered_while_the_settings_lack_its_schedule() {
        let sandbox = Sandbox::new();
        let both = [schedule("a", YEARLY), schedule("b", YEARLY)].concat();
        settings(&sandbox, &both);
        let daemon = Daemon::start(&sandbox);
        daemon.ask("pause", "a").expect(0);
        settings(&sandbox, &schedule("b", YEARLY));
        daemon.reload();
        assert!(daemon.schedule("a").is_null());
        settings(&sandbox, &both);
        daemon.reload();
        assert_eq!(daemon.schedule("a")["paused"], true);
        daemon.stop();
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.schedule("a")["paused"], true);
        daemon.stop();
    }

    #[test]
    fn limits_and_the_level_of_the_log_change_under_a_running_job() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.list(paths(40)));
        let log = |level: &str| format!("[log]\nlevel = \"{level}\"\n{}", schedule("a", YEARLY));
        settings_with(&sandbox, "rate = 1", &log("warn"));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        let begun = Instant::now();
        site.wait_for(2);
        assert!(begun.elapsed() > Duration::from_millis(500) && site.total() < 8);
        let job = daemon.schedule("a")["running"]["job"].clone();
        settings_with(&sandbox, "", &log("debug"));
        daemon.reload();
        let last = daemon.ended_after("a", &Value::Null);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(
            (&last["job"], &last["counts"]["stored"]),
            (&job, &40.into())
        );
        assert_eq!(site.total(), 40);
        daemon.run("a");
        let run = daemon.stop();
        let begins = run.stderr.matches(" begins: ").count();
        assert_eq!(begins, 1, "the second job only: {run}");
    }

    #[test]
    fn a_host_is_asked_more_at_a_time_from_the_reload_on() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        sandbox.write("a.txt", site.list(paths(6)));
        settings_with(&sandbox, "per_host = 1", &schedule("a", YEARLY));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        settings_with(&sandbox, "per_host = 4", &schedule("a", YEARLY));
        assert_eq!(site.total(), 1);
        daemon.reload();
        site.wait_for(4);
        assert_eq!(site.total(), 4);
        // For one schedule alone, too.
        settings_with(
            &sandbox,
            "per_host = 1",
            &schedule("a", &format!("{YEARLY}\nfetch.per_host = 6")),
        );
        daemon.reload();
        site.wait_for(6);
        gate.open();
        assert_eq!(daemon.ended_after("a", &Value::Null)["counts"]["stored"], 6);
        daemon.stop();
    }

    #[test]
    fn bodies_under_way_come_faster_from_the_reload_on() {
        let sandbox = Sandbox::new();
        let site = Site::start(|_| Answer::ok("x".repeat(100_000)));
        sandbox.write("a.txt", site.list(paths(2)));
        // More than a day.
        settings_with(&sandbox, "max_rate = 1", &schedule("a", YEARLY));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(2);
        settings_with(&sandbox, "max_rate = \"off\"", &schedule("a", YEARLY));
        daemon.reload();
        assert_eq!(daemon.ended_after("a", &Value::Null)["counts"]["stored"], 2);
        daemon.stop();
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_and_the_old_ones_stay() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.url("/a"));
        let good = schedule("a", YEARLY);
        settings(&sandbox, &good);
        let daemon = Daemon::start(&sandbox);
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        for broken in [
            format!("{text}\n[[["),
            text.replace("@yearly", "61 * * * *"),
            text.replace("root = \"out\"", "root = \"elsewhere\""),
            text.replace("retries = 0", "retires = 0"),
            text.replace("kind = \"any\"", "kind = \"anything\""),
            text.replace(&good, ""),
        ] {
            assert_ne!(broken, text);
            sandbox.write("gannet.toml", broken);
            daemon.reload();
            // Whoever asks reads the settings too.
            sandbox.write("gannet.toml", &text);
            assert_eq!(daemon.schedule("a")["cron"], "@yearly");
        }
        std::fs::remove_file(sandbox.path("gannet.toml")).unwrap();
        daemon.reload();
        sandbox.write("gannet.toml", &text);
        assert_eq!(daemon.run("a")["state"], "completed");
        let run = daemon.stop().says(&[
            "line 19",
            "schedule.0.cron",
            "`[storage]` differs",
            "fetch.retires",
            "anything",
            "nothing to run",
        ]);
        assert_eq!(run.stderr.matches("the old ones stay").count(), 7, "{run}");
        assert!(!sandbox.path("elsewhere").exists());
    }
}

mod control {
    use super::*;

    #[test]
    fn a_pause_survives_a_restart_and_a_sigkill() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(&sandbox, &schedule("a", EACH_SECOND));
        let daemon = Daemon::start(&sandbox);
        daemon.ask("pause", "a").expect(0);
        // One that was under way ends.
        daemon.until("a", "rests", |a| a["running"].is_null());
        let last = daemon.schedule("a")["last"].clone();
        daemon.stop();
        let daemon = Daemon::start(&sandbox);
        let a = daemon.schedule("a");
        assert_eq!(
            (&a["paused"], &a["next"]),
            (&true.into(), &Value::Null),
            "{a}"
        );
        daemon.ask("resume", "a").expect(0);
        daemon.ended_after("a", &last["job"]);
        daemon.ask("pause", "a").expect(0);
        until("the pause is recorded", || {
            let (_copy, db) = catalog::open(&sandbox.store());
            let paused = db.query_row("SELECT paused FROM schedules", [], |row| row.get(0));
            match paused {
                Ok(true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        daemon.kill();
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.schedule("a")["paused"], true);
        // Asked for, it runs all the same.
        assert_eq!(daemon.run("a")["state"], "completed");
        assert_eq!(daemon.schedule("a")["paused"], true);
        daemon.stop();
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let sandbox = Sandbox::new();
        let (site, gate) = gated();
        sandbox.write("a.txt", site.url("/a"));
        sandbox.write("b.txt", "");
        let queued = format!("{YEARLY}\noverlap = \"queue\"\nsource = [\"a.txt\"]");
        let queued = format!("[[schedule]]\nname = \"q\"\n{queued}\n");
        let all = [schedule("a", YEARLY), schedule("b", YEARLY), queued];
        settings(&sandbox, &all.concat());
        for args in [
            ["schedule", "list"].as_slice(),
            &["schedule", "run", "a"],
            &["status"],
        ] {
            let run = sandbox.run(args).expect(1);
            run.says(&["no daemon works with the store `/", "gannet daemon"]);
        }
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        daemon
            .ask("run", "a")
            .expect(1)
            .says(&["`a` is running", "queue"]);
        for what in ["run", "pause", "resume"] {
            let run = daemon.ask(what, "c/../a").expect(1);
            run.says(&["no schedule `c/../a`", "a, b, q"]);
        }
        // Another daemon finds the store taken, and leaves the socket alone.
        sandbox.run(["daemon"]).expect(4).says(&["`out`"]);
        // One that queues takes another.
        daemon.ask("run", "q").expect(0);
        site.wait_for(2);
        daemon.ask("run", "q").expect(0);
        gate.open();
        until("both ran", || match jobs(&sandbox).len() {
            3 => Ok(()),
            other => Err(other.to_string()),
        });
        daemon.stop();
    }

    #[test]
    fn status_tells_of_every_schedule_and_its_code_of_the_worst() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| match asked.path.as_str() {
            "/bad" => Answer::status(404),
            path => Answer::ok(path),
        });
        sandbox.write("good.txt", site.list(["/1", "/2"]));
        sandbox.write("bad.txt", site.url("/bad"));
        let both = [schedule("good", YEARLY), schedule("bad", YEARLY)];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start(&sandbox);
        let good = daemon.run("good");
        let status = sandbox.run(["status", "--json"]).expect(0).json();
        assert_eq!(
            (&status["version"], &status["pid"]),
            (&1.into(), &daemon.id().into())
        );
        assert!(time(&status["started"]) <= time(&status["updated"]));
        let named = daemon.schedule("good");
        assert_eq!(named["timezone"], "UTC");
        assert_eq!(time(&named["next"]).second(), 0);
        assert_eq!(
            (&named["skipped"], &named["missed"]),
            (&0.into(), &0.into())
        );
        assert_eq!(good["counts"]["stored"], 2);
        assert!(time(&good["started"]) <= time(&good["finished"]));
        daemon.run("bad");
        let run = sandbox.run(["status"]).expect(3);
        assert!(
            run.out().contains("last incomplete at") && run.out().contains("last completed at"),
            "{run}"
        );
        let list = sandbox.run(["schedule", "list", "--json"]).expect(0).json();
        assert_eq!(list, daemon.status()["schedules"]);
        // The state file, for those who cannot run programs.
        let path = "out/.gannet/status.json";
        until("the state file tells of both", || {
            let file = sandbox.json(path);
            match file["schedules"][0]["last"]["state"] == "incomplete" {
                true => Ok(()),
                false => Err(file.to_string()),
            }
        });
        let run = daemon.kill();
        assert!(run.stderr.contains("schedule `bad` is incomplete"), "{run}");
        let left = sandbox.run(["status", "--json"]).expect(1).json();
        assert_eq!(left["pid"], Value::Null);
        assert_eq!(left["schedules"], list);
        let run = sandbox.run(["status"]).expect(1);
        assert!(
            run.out().contains("not running") && run.out().contains("last incomplete"),
            "{run}"
        );
    }

    #[test]
    fn a_store_may_be_deeper_than_addresses_of_sockets_are_long() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(&sandbox, &schedule("a", YEARLY));
        let deep = format!("out/{}", "deep/".repeat(40));
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        sandbox.write(
            "gannet.toml",
            text.replace("root = \"out\"", &format!("root = \"{deep}\"")),
        );
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.run("a")["state"], "completed");
        daemon.stop();
        sandbox.run(["status"]).expect(1);
    }

    #[test]
    fn an_interrupted_job_is_no_failure() {
        let sandbox = Sandbox::new();
        let (site, _gate) = gated();
        sandbox.write("a.txt", site.url("/a"));
        let rest = format!("[daemon]\nstop_timeout = \"0s\"\n{}", schedule("a", YEARLY));
        settings(&sandbox, &rest);
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        daemon.stop();
        let left = sandbox.run(["status", "--json"]).expect(1).json();
        assert_eq!(left["schedules"][0]["last"]["interrupted"], true, "{left}");
        let daemon = Daemon::start(&sandbox);
        site.wait_for(2);
        let run = sandbox.run(["status"]).expect(0);
        assert!(run.out().contains("last interrupted at"), "{run}");
        daemon.stop();
    }

    #[test]
    fn jobs_that_panic_take_nobody_along() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.url("/a"));
        sandbox.write("b.txt", site.url("/b"));
        let both = [schedule("a", YEARLY), schedule("b", YEARLY)];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start_with(&sandbox, &[("GANNET_FAULT", "job.begun:1=panic")]);
        let broken = daemon.run("a");
        assert_eq!(broken["state"], "failed");
        assert!(
            broken["error"].as_str().unwrap().contains("panicked"),
            "{broken}"
        );
        assert_eq!(daemon.run("b")["state"], "completed");
        sandbox.run(["status"]).expect(3);
        until("the history tells of it", || {
            let jobs = jobs(&sandbox);
            match jobs[0]["state"] == "failed" && jobs[0]["id"] == broken["job"] {
                true => Ok(()),
                false => Err(format!("{jobs:#?}")),
            }
        });
        assert_eq!(daemon.run("a")["state"], "completed");
        sandbox.run(["status"]).expect(0);
        let run = daemon.stop_loudly();
        assert_eq!(run.code(), 0, "{run}");
        assert!(
            run.stderr.contains("schedule `a` failed: internal error"),
            "{run}"
        );
        assert_eq!(jobs(&sandbox)[0]["interrupted"], Value::Null);
    }

    #[test]
    fn it_ends_for_another_to_be_started_where_no_job_could_run_any_more() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.url("/a"));
        settings(&sandbox, &schedule("a", YEARLY));
        let daemon = Daemon::start_with(&sandbox, &[("GANNET_FAULT", "job.announced:1=panic")]);
        daemon.ask("run", "a").expect(0);
        let run = daemon.end();
        assert_eq!(run.code(), 1, "{run}");
        run.says(&["gannet: internal error: a task that all jobs need is gone"]);
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.run("a")["state"], "completed");
        daemon.stop();
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
    }

    #[test]
    fn a_list_that_cannot_be_had_fails_its_own_job_only() {
        let sandbox = Sandbox::new();
        let dead = Arc::new(AtomicUsize::new(0));
        let site = Site::start({
            let dead = dead.clone();
            move |asked| match asked.path.as_str() {
                "/list" if dead.load(Ordering::SeqCst) == 1 => Answer::status(500),
                "/list" => {
                    let host = asked.header("host").unwrap();
                    Answer::ok(format!("http://{host}/1\nhttp://{host}/2\n"))
                        .header("Content-Type", "text/plain")
                }
                path => Answer::ok(path),
            }
        });
        sandbox.write("b.txt", site.url("/b"));
        let remote = format!(
            "[[schedule]]\nname = \"remote\"\nsource = \"{}\"\n",
            site.url("/list")
        );
        let both = [
            remote + YEARLY + "\njob.on_remove = \"prune\"\njob.prune_after = \"0s\"\n",
            schedule("b", YEARLY),
        ];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.run("remote")["counts"]["stored"], 2);
        dead.store(1, Ordering::SeqCst);
        let broken = daemon.run("remote");
        assert_eq!(broken["state"], "failed");
        assert!(
            broken["error"].as_str().unwrap().contains("500"),
            "{broken}"
        );
        assert_eq!(daemon.run("b")["state"], "completed");
        let run = daemon.stop();
        let told = run.stderr.lines().filter(|line| line.contains("ERROR"));
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 1, "{run}");
        assert!(
            told[0].contains("schedule `remote` failed: ") && told[0].contains("500"),
            "{run}"
        );
        assert_eq!(sandbox.files().len(), 3);
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
    }

    #[test]
    fn a_setting_may_stand_in_a_file_that_a_variable_names() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(&sandbox, &schedule("a", YEARLY));
        let elsewhere = sandbox.path("elsewhere.db");
        let secret = sandbox.write("secret", format!("sqlite:{}\n", elsewhere.display()));
        let variable = [("GANNET_CATALOG__URL_FILE", secret.to_str().unwrap())];
        sandbox.run_with(&variable, &["daemon", "--once"]).expect(0);
        assert!(elsewhere.exists() && !sandbox.store().join(".gannet/catalog.db").exists());
        let missing = [("GANNET_CATALOG__URL_FILE", "gone")];
        let run = sandbox.run_with(&missing, &["daemon", "--once"]).expect(1);
        run.says(&["GANNET_CATALOG__URL_FILE", "`gone`"]);
    }
}

mod once {
    use super::*;

    /// `gannet daemon --once ARGS`, and the JSON of its last line.
    #[track_caller]
    fn once(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
        let mut all = vec!["daemon", "--once"];
        all.extend(args);
        json(&sandbox.run(all).expect(code))
    }

    #[track_caller]
    fn json(run: &Run) -> Value {
        let last = run.out().lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {run}"))
    }

    fn ran(once: &Value) -> Vec<&str> {
        let jobs = once["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["schedule"].as_str().unwrap()).collect()
    }

    #[test]
    fn all_schedules_run_or_those_that_are_named() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| {
            Answer::ok("bytes")
                .header("ETag", "\"1\"")
                .unless_known(asked)
        });
        for name in ["a", "b", "c"] {
            sandbox.write(&format!("{name}.txt"), site.url(&format!("/{name}")));
        }
        let all = ["a", "b", "c"].map(|name| schedule(name, YEARLY));
        settings(&sandbox, &all.concat());
        let named = once(&sandbox, &["b", "--exit-unchanged", "99"], 0);
        assert_eq!(ran(&named), ["b"]);
        assert_eq!(named["state"], "completed");
        assert_eq!(named["counts"]["stored"], 1);
        assert_eq!(named["jobs"][0]["counts"], named["counts"]);
        assert_eq!(named["jobs"][0]["job"], jobs(&sandbox)[0]["id"]);
        assert_eq!(
            once(&sandbox, &["b", "--exit-unchanged", "99"], 99)["counts"]["unchanged"],
            1
        );
        assert_eq!(ran(&once(&sandbox, &["c", "a"], 0)), ["a", "c"]);
        let daemon = Daemon::start(&sandbox);
        daemon.ask("pause", "b").expect(0);
        // The store is the daemon's.
        let run = sandbox.run(["daemon", "--once"]).expect(4);
        assert!(run.stdout.is_empty(), "{run}");
        daemon.stop();
        assert_eq!(ran(&once(&sandbox, &[], 0)), ["a", "c"]);
        assert_eq!(ran(&once(&sandbox, &["a", "b"], 0)), ["a", "b"]);
        let jobs = jobs(&sandbox);
        assert!(
            jobs.iter().all(|job| job["schedule"].is_string()),
            "{jobs:#?}"
        );
    }

    #[test]
    fn the_worst_of_them_decides() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| match asked.path.as_str() {
            "/bad" => Answer::status(404),
            path => Answer::ok(path),
        });
        sandbox.write("good.txt", site.url("/good"));
        sandbox.write("bad.txt", site.url("/bad"));
        let all = ["good", "bad", "missing"].map(|name| schedule(name, YEARLY));
        settings(&sandbox, &all.concat());
        assert_eq!(once(&sandbox, &["good"], 0)["state"], "completed");
        let bad = once(&sandbox, &["good", "bad", "--exit-unchanged", "99"], 3);
        assert_eq!(
            (&bad["state"], &bad["counts"]["targets"]),
            (&"incomplete".into(), &2.into())
        );
        assert_eq!(bad["jobs"][0]["state"], "incomplete");
        assert_eq!(bad["jobs"][1]["state"], "completed");
        let worst = once(&sandbox, &[], 1);
        assert_eq!(worst["state"], "failed");
        let missing = &worst["jobs"][2];
        assert!(
            missing["error"].as_str().unwrap().contains("missing.txt"),
            "{worst}"
        );
        let jobs = jobs(&sandbox);
        let mut failed = jobs.iter().filter(|job| job["schedule"] == "missing");
        assert_eq!(failed.next().unwrap()["state"], "failed");
    }

    #[test]
    fn sigterm_ends_it_with_what_it_has() {
        let sandbox = Sandbox::new();
        let (site, _gate) = gated_for("/held");
        sandbox.write("a.txt", site.list(["/1", "/held"]));
        settings(&sandbox, &schedule("a", YEARLY));
        let running = sandbox.start(["daemon", "--once"]);
        site.wait_for(2);
        until("the first is stored", || match sandbox.files().len() {
            1 => Ok(()),
            other => Err(other.to_string()),
        });
        running.signal("TERM");
        let run = running.end().expect(143);
        let json = json(&run);
        assert_eq!(
            (&json["state"], &json["counts"]["stored"]),
            (&"cancelled".into(), &1.into())
        );
        assert_eq!(violations(&sandbox, When::Restarted), [""; 0]);
    }

    #[test]
    fn what_nobody_can_run_is_wrong_usage() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        settings(
            &sandbox,
            &[schedule("a", YEARLY), schedule("b", YEARLY)].concat(),
        );
        let run = sandbox.run(["daemon", "--once", "a", "c"]).expect(2);
        run.says(&["no schedule `c`", "a, b"]);
        assert!(!sandbox.store().exists());
        settings(&sandbox, "");
        for args in [
            ["daemon"].as_slice(),
            &["daemon", "--once"],
            &["daemon", "--once", "a"],
        ] {
            sandbox
                .run(args)
                .expect(2)
                .says(&["`gannet.toml` has no [[schedule]]"]);
        }
        sandbox.run(["daemon", "--exit-unchanged", "9"]).expect(2);
    }
}

mod overrides {
    use super::*;
    use support::pictures::png_of;

    #[test]
    fn a_schedule_keeps_its_settings_to_itself() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| match asked.path.strip_suffix(".png") {
            Some(path) => Answer::ok(png_of(path[1..].parse().unwrap(), 8)),
            None => Answer::ok(asked.path.clone()),
        });
        let list = site.list(["/1.png", "/2.png", "/3.txt"]);
        for name in ["gifs", "own", "common", "series"] {
            sandbox.write(&format!("{name}.txt"), &list);
        }
        let own = "kind = \"image\"\nalbum = \"own\"\nmax_failures = 1\nreport = \"own.json\"\n\
                   fetch.user_agent = \"own\"\nnaming.template = \"{album}/{host}/{name}\"\n\
                   naming.order = [\"url\"]\n";
        let series = "album = \"series\"\nretention.max_files = 2\n";
        let gifs = "kind = \"image\"\nalbum = \"gifs\"\nimage.formats = [\"gif\"]\n";
        let all = [
            schedule("gifs", &format!("{YEARLY}\n{gifs}")),
            schedule("own", &format!("{YEARLY}\n{own}")),
            schedule("common", &format!("{YEARLY}\nalbum = \"common\"")),
            schedule("series", &format!("{YEARLY}\n{series}")),
        ];
        settings(&sandbox, &all.concat());
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.run("gifs")["counts"]["rejected"], 3);
        let own = daemon.run("own");
        assert_eq!(
            (&own["state"], &own["counts"]["rejected"]),
            (&"incomplete".into(), &1.into()),
            "{own}"
        );
        assert_eq!(daemon.run("common")["counts"]["stored"], 3);
        assert_eq!(daemon.run("series")["counts"]["stored"], 3);
        daemon.stop();
        let names = sandbox.names();
        let of = |album: &str| names.iter().filter(|name| name.starts_with(album)).count();
        assert_eq!(
            (of("own/127.0.0.1/"), of("common/"), of("series/")),
            (2, 3, 2),
            "{names:?}"
        );
        assert!(
            names.contains(&"own/127.0.0.1/1.png".to_owned()),
            "{names:?}"
        );
        assert_eq!(sandbox.json("own.json")["counts"]["stored"], 2);
        let agents = site.asked();
        let own = agents
            .iter()
            .filter(|asked| asked.header("user-agent") == Some("own"));
        assert_eq!((own.count(), agents.len()), (3, 12));
    }

    #[test]
    fn a_rate_of_one_schedule_does_not_hold_back_another() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("slow.txt", site.list(paths(60)));
        sandbox.write("fast.txt", site.list((0..60).map(|n| format!("/fast{n}"))));
        let both = [
            schedule("slow", &format!("{YEARLY}\nfetch.rate = 1")),
            schedule("fast", YEARLY),
        ];
        settings(&sandbox, &both.concat());
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "slow").expect(0);
        site.wait_for(1);
        assert_eq!(daemon.run("fast")["counts"]["stored"], 60);
        let slow = daemon.schedule("slow");
        assert!(
            slow["running"]["counts"]["targets"].as_u64() < Some(30),
            "{slow}"
        );
        daemon.stop();
    }

    #[test]
    fn what_is_wrong_in_a_schedule_is_named_with_file_schedule_and_key() {
        let sandbox = Sandbox::new();
        sandbox.write("a.txt", "");
        for (wrong, words) in [
            ("corn = 1", ["corn", "cron"].as_slice()),
            (
                "fetch.retires = 1",
                &["schedule `a`", "fetch.retires", "retries"],
            ),
            (
                "fetch.retries = \"many\"",
                &["schedule `a`", "fetch.retries"],
            ),
            (
                "fetch.concurrency = 3",
                &["fetch.concurrency", "whole process"],
            ),
            (
                "fetch.max_rate = \"1M\"",
                &["fetch.max_rate", "whole process"],
            ),
            (
                "hosts.\"*.example.org\".shared = true",
                &["hosts.\"*.example.org\".shared", "whole process"],
            ),
            ("fetch = 3", &["schedule.0.fetch"]),
            ("kind = 3", &["schedule `a`", "job.kind"]),
            ("kind = \"imege\"", &["schedule `a`", "imege"]),
            ("album = \"../up\"", &["schedule `a`", "job.album"]),
            ("jitter = \"soon\"", &["schedule.0.jitter"]),
            (
                "timezone = \"Europe/Berln\"",
                &["schedule.0.timezone", "Europe/Berlin"],
            ),
            ("overlap = \"wait\"", &["schedule.0.overlap", "queue"]),
            ("report = 3", &["schedule.0.report"]),
            ("report = \"report.txt\"", &["schedule `a`", "report.txt"]),
            (
                "naming.template = \"{nme}\"",
                &["schedule `a`", "naming.template"],
            ),
        ] {
            settings(&sandbox, &schedule("a", &format!("{YEARLY}\n{wrong}")));
            for args in [["check"].as_slice(), &["daemon"], &["daemon", "--once"]] {
                let run = sandbox.run(args);
                assert_eq!(run.code(), 1, "{wrong}: {run}");
                run.says(&["gannet.toml"]).says(words);
            }
        }
        for (schedules, words) in [
            (
                [schedule("a", YEARLY), schedule("a", YEARLY)].concat(),
                ["another schedule called `a`"],
            ),
            (schedule("a b", YEARLY), ["`a b` is no name"]),
            (schedule("a", "cron = \"* * *\""), ["schedule.0.cron"]),
            (schedule("a", ""), ["cron"]),
            (
                ["a", "b"]
                    .map(|name| schedule(name, &format!("{YEARLY}\nreport = \"r.json\"")))
                    .concat(),
                ["`a` and `b` would write the same report `r.json`"],
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"@daily\"\nsource = \"-\"\n".to_owned(),
                ["no standard input"],
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"@daily\"\nsource = []\n".to_owned(),
                ["schedule.0.source"],
            ),
        ] {
            settings(&sandbox, &schedules);
            sandbox.run(["check"]).expect(1).says(&words);
            sandbox.run(["daemon"]).expect(1).says(&words);
        }
        assert!(!sandbox.store().exists());
    }

    #[test]
    fn check_prints_the_next_five_times() {
        let sandbox = Sandbox::new();
        let line = "cron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"";
        settings(&sandbox, &schedule("a", line));
        let run = sandbox.run(["check"]).expect(0);
        let told = run
            .out()
            .split("# Schedule `a` (30 2 * * *, Europe/Berlin)")
            .nth(1);
        let times: Vec<&str> = told.unwrap().lines().skip(1).collect();
        assert_eq!(times.len(), 5, "{run}");
        let mut before = Utc::now().into();
        for time in times {
            let time = time.strip_prefix("#   ").unwrap();
            let time = DateTime::parse_from_rfc3339(time).unwrap();
            assert!(time > before, "{run}");
            before = time;
        }
    }
}
