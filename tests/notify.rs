//! Events on their way to webhooks, brokers and mailboxes: `gannet fetch` and `gannet daemon`, the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;
#[path = "origin/tls.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "another test accepts connections by it"
)]
mod tls;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ring::hmac;
use serde_json::Value;
use support::pictures::png;
use support::receivers::{Broker, Came, Postbox, USER, nobody, once};
use support::{Answer, Daemon, Hook, Run, Sandbox, Says, Site, catalog};

/// A picture for each path, by the digits in it.
fn site() -> Site {
    Site::start(|asked| {
        let digits: String = asked.path.chars().filter(char::is_ascii_digit).collect();
        match digits.parse() {
            Ok(number) => Answer::ok(png(number)),
            Err(_) => Answer::status(404),
        }
    })
}

/// Settings with these `[[notify]]`, and a schedule `a` over `a.txt` into album `a`, which is due on demand.
fn settings(sandbox: &Sandbox, notify: &str) {
    settings_with(sandbox, "", notify);
}

fn settings_with(sandbox: &Sandbox, rest: &str, notify: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\n\
         [api]\nlisten = \"127.0.0.1:0\"\n{rest}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\nalbum = \"a\"\nmax_failures = \"100%\"\n\
         {notify}\n"
    );
    sandbox.write("gannet.toml", text);
}

fn webhook(address: SocketAddr, more: &str) -> String {
    format!("[[notify]]\ntype = \"webhook\"\nurl = \"http://{address}/hook\"\n{more}\n")
}

/// The schedule, one time.
fn once_over(sandbox: &Sandbox) -> Run {
    sandbox.run(["daemon", "--once"])
}

/// How many events wait.
fn waiting(sandbox: &Sandbox) -> i64 {
    let (_copy, db) = catalog::open(&sandbox.store());
    db.query_row("SELECT count(*) FROM events", [], |row| row.get(0))
        .unwrap()
}

/// Asserts that the events of each job are in order, and whole: it starts, its files come, it ends.
#[track_caller]
fn whole_jobs(events: &[Value], jobs: usize, files: usize) {
    let ids: Vec<i64> = events.iter().map(|e| e["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let names: BTreeSet<&str> = events
        .iter()
        .filter_map(|event| event["job"].as_str())
        .collect();
    assert_eq!(names.len(), jobs);
    let mut stored = 0;
    for job in names {
        let of_job: Vec<&str> = events
            .iter()
            .filter(|event| event["job"] == job)
            .map(|event| event["event"].as_str().unwrap())
            .collect();
        let begins = of_job.first().copied();
        assert!(
            matches!(begins, Some("job.started" | "job.resumed")),
            "{of_job:?}"
        );
        assert_eq!(of_job.last(), Some(&"job.completed"), "{of_job:?}");
        stored += of_job
            .iter()
            .filter(|event| **event == "file.stored")
            .count();
    }
    assert_eq!(stored, files);
}

// ---- Webhooks

#[test]
fn a_run_tells_what_it_did_before_it_ends() {
    let (sandbox, site, hook) = (Sandbox::new(), site(), Hook::start());
    sandbox.write("secret.txt", "open sesame\n");
    let more = "secret_file = \"secret.txt\"\nheaders.Authorization = \"Bearer xyz\"";
    settings(&sandbox, &webhook(hook.address, more));
    sandbox.write("a.txt", site.list(["/1", "/2", "/none"]));
    let run = once_over(&sandbox).expect(0);
    let posted = hook.came.all();
    let events: Vec<String> = posted.iter().map(|posted| posted.event()).collect();
    let expected = [
        "job.started",
        "album.created",
        "file.stored",
        "file.stored",
        "job.incomplete",
    ];
    assert_eq!(events, expected, "{run}");
    let job = run.json()["jobs"][0]["job"].clone();
    for posted in &posted {
        let event = posted.json();
        assert_eq!(posted.header("content-type"), "application/json");
        assert_eq!(posted.header("authorization"), "Bearer xyz");
        assert!(posted.header("user-agent").starts_with("gannet/"));
        assert_eq!(posted.header("x-gannet-delivery"), event["id"].to_string());
        assert_eq!(event["event"].as_str().unwrap(), posted.event());
        assert_eq!(event["job"], job);
        let signature = posted.header("x-gannet-signature");
        let (time, digest) = signature.split_once(",v1=").unwrap();
        let time = time.strip_prefix("t=").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"open sesame");
        let signed = hmac::sign(&key, format!("{time}.{}", posted.body).as_bytes());
        let hex: String = signed.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, hex);
    }
    let file = posted[2].json();
    let path = file["path"].as_str().unwrap();
    assert_eq!(file["href"], format!("/files/{path}"));
    assert_eq!(file["bytes"], sandbox.files()[path].len());
    assert_eq!(file["sha256"], support::sha256(&sandbox.files()[path]));
    for (key, value) in [
        ("album", "a"),
        ("schedule", "a"),
        ("source", "a.txt"),
        ("format", "png"),
        ("media_type", "image/png"),
    ] {
        assert_eq!(file[key], value, "{file}");
    }
    assert!(file["width"].is_u64() && file["height"].is_u64());
    assert!(
        file["url"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1")
    );
    let end = posted[4].json();
    assert_eq!(
        (&end["state"], &end["schedule"]),
        (&"incomplete".into(), &"a".into())
    );
    assert_eq!(end["counts"]["stored"], 2);
    assert_eq!(end["counts"]["failed"], 1);
    assert_eq!(waiting(&sandbox), 0);
    assert!(!run.stderr.contains("sesame") && !run.stderr.contains("xyz"));
}

#[test]
fn without_receivers_there_are_no_events() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.fetch_list(site.list(["/1"]), 0, &["-a", "x"]);
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn what_a_receiver_missed_waits_for_it() {
    let (sandbox, site, other) = (Sandbox::new(), site(), Hook::start());
    let address = nobody();
    let more = "name = \"away\"\nalbums = [\"a\"]";
    let both = webhook(address, more) + &webhook(other.address, "name = \"other\"");
    settings(&sandbox, &both);
    sandbox.write("a.txt", site.list(["/1", "/2"]));
    let run = once_over(&sandbox).expect(0);
    run.says(&["receiver `away`", "takes no events, which wait for it"]);
    // One that is away holds up nobody else.
    assert_eq!(other.events().len(), 5);
    assert_eq!(waiting(&sandbox), 5);
    sandbox.write("a.txt", site.list(["/1", "/2", "/3"]));
    let back = Hook::on(address, Came::new(), |_| Says::Status(200));
    once_over(&sandbox).expect(0);
    whole_jobs(&once(&back.came.all()), 2, 3);
    assert_eq!(other.events().len(), 8);
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn a_receiver_that_stumbles_gets_everything_in_order() {
    let (sandbox, site) = (Sandbox::new(), site());
    let count = Arc::new(AtomicUsize::new(0));
    let hook = Hook::with({
        let count = count.clone();
        move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 | 5 => Says::Status(500),
            2 => Says::Nothing,
            7 => Says::Status(429),
            _ => Says::Status(200),
        }
    });
    settings(&sandbox, &webhook(hook.address, "timeout = \"300ms\""));
    sandbox.write("a.txt", site.list(["/1", "/2", "/3"]));
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    daemon.run("a");
    hook.came.until("two jobs are over", |posted| {
        posted
            .iter()
            .filter(|posted| posted.event() == "job.completed")
            .count()
            == 2
    });
    let run = daemon.stop();
    whole_jobs(&once(&hook.came.all()), 2, 3);
    run.says(&["it answered 500", "takes events again"]);
}

#[test]
fn what_is_not_wanted_does_not_hold_up_the_rest() {
    let (sandbox, site) = (Sandbox::new(), site());
    let hook = Hook::with(|posted| match posted.event().as_str() {
        "album.created" => Says::Status(400),
        _ => Says::Status(200),
    });
    settings_with(
        &sandbox,
        "[events]\nstop_timeout = \"30s\"",
        &webhook(hook.address, ""),
    );
    sandbox.write("a.txt", site.list(["/1"]));
    let run = once_over(&sandbox).expect(0);
    run.says(&[
        "refused event",
        "(album.created) 5 times",
        "it answered 400",
    ]);
    assert_eq!(
        hook.events(),
        ["job.started", "file.stored", "job.completed"]
    );
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn each_gets_what_it_asks_for() {
    let (sandbox, site) = (Sandbox::new(), site());
    let hooks = [(); 5].map(|()| Hook::start());
    let filters = [
        "events = [\"job.*\"]",
        "events = [\"file.stored\", \"job.incomplete\"]",
        "schedules = [\"b\"]",
        "albums = [\"a\"]",
        "events = [\"job.completed\"]\nformat = \"slack\"",
    ];
    let notify: String = hooks
        .iter()
        .zip(filters)
        .enumerate()
        .map(|(n, (hook, filter))| webhook(hook.address, &format!("name = \"n{n}\"\n{filter}")))
        .collect();
    let b =
        "[[schedule]]\nname = \"b\"\ncron = \"@yearly\"\nsource = \"b.txt\"\nmax_failures = 0\n";
    settings(&sandbox, &(b.to_owned() + &notify));
    sandbox.write("a.txt", site.list(["/1"]));
    sandbox.write("b.txt", site.list(["/2", "/none"]));
    once_over(&sandbox).expect(3);
    let sorted = |hook: &Hook| {
        let mut events = hook.events();
        events.sort();
        events
    };
    let ends = [
        "job.completed",
        "job.incomplete",
        "job.started",
        "job.started",
    ];
    assert_eq!(sorted(&hooks[0]), ends);
    let of_files = ["file.stored", "file.stored", "job.incomplete"];
    assert_eq!(sorted(&hooks[1]), of_files);
    assert_eq!(
        sorted(&hooks[2]),
        ["file.stored", "job.incomplete", "job.started"]
    );
    let of_a = [
        "album.created",
        "file.stored",
        "job.completed",
        "job.started",
    ];
    assert_eq!(sorted(&hooks[3]), of_a);
    let said = hooks[4].came.all();
    let text = said[0].json()["text"].as_str().unwrap().to_owned();
    assert_eq!(text, "schedule `a` is completed (1 target, 1 stored)");
    assert_eq!(said.len(), 1);
}

#[test]
fn a_receiver_that_takes_nothing_slows_no_job() {
    let (sandbox, site) = (Sandbox::new(), site());
    // It listens, and never accepts.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = "timeout = \"1h\"";
    settings(&sandbox, &webhook(dead.local_addr().unwrap(), more));
    sandbox.write("a.txt", site.list((0..2000).map(|n| format!("/{n}"))));
    let daemon = Daemon::start(&sandbox);
    let last = daemon.run("a");
    assert_eq!(last["counts"]["stored"], 2000);
    drop(daemon);
    assert_eq!(waiting(&sandbox), 2003);
}

#[test]
fn a_killed_daemon_has_told_of_nothing_that_the_next_one_does_not() {
    let (sandbox, site) = (Sandbox::new(), site());
    let address = nobody();
    settings(&sandbox, &webhook(address, ""));
    sandbox.write("a.txt", site.list(["/1", "/2"]));
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    daemon.kill();
    let came = Came::new();
    let hook = Hook::on(address, came.clone(), |_| Says::Status(200));
    let daemon = Daemon::start(&sandbox);
    came.until("the job is over", |posted| {
        posted
            .iter()
            .any(|posted| posted.event() == "job.completed")
    });
    whole_jobs(&once(&came.all()), 1, 2);
    daemon.run("a");
    daemon.stop();
    whole_jobs(&once(&hook.came.all()), 2, 2);
}

#[test]
fn kills_at_any_time_lose_no_event() {
    let (sandbox, site) = (Sandbox::new(), site());
    let (count, slow) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(true)),
    );
    let hook = Hook::with({
        let (count, slow) = (count.clone(), slow.clone());
        move |_| {
            let is_third = count.fetch_add(1, Ordering::SeqCst) % 3 == 2;
            match is_third && slow.load(Ordering::SeqCst) {
                true => Says::Status(503),
                false => Says::Status(200),
            }
        }
    });
    settings(&sandbox, &webhook(hook.address, ""));
    let mut files = 0;
    for round in 1..=4_usize {
        files += 20;
        sandbox.write("a.txt", site.list((0..files).map(|n| format!("/{n}"))));
        let daemon = Daemon::start(&sandbox);
        let _ = daemon.ask("run", "a");
        // Somewhere between its begin and its end.
        let so_far = hook.came.all().len();
        hook.came.until("some more came", |posted| {
            posted.len() >= so_far + round * 2
        });
        daemon.kill();
    }
    slow.store(false, Ordering::SeqCst);
    let daemon = Daemon::start(&sandbox);
    daemon.until("a", "is idle", |schedule| schedule["running"].is_null());
    daemon.run("a");
    daemon.stop();
    let events = once(&hook.came.all());
    let ids: Vec<i64> = events.iter().map(|e| e["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted());
    // Each file that the catalog has was told of, each job that it has began and ended.
    let of = |name: &str| -> BTreeSet<String> {
        let of = events.iter().filter(|event| event["event"] == name);
        of.map(|event| {
            event["path"]
                .as_str()
                .unwrap_or_else(|| event["job"].as_str().unwrap())
                .to_owned()
        })
        .collect()
    };
    let recorded: BTreeSet<String> = catalog::files(&sandbox.store()).into_keys().collect();
    assert_eq!(of("file.stored"), recorded);
    let jobs = catalog::job_states(&sandbox.store()).len();
    let begun = of("job.started");
    assert_eq!(begun.union(&of("job.resumed")).count(), jobs);
    let (completed, failed) = (of("job.completed"), of("job.failed"));
    assert_eq!(completed.union(&failed).count(), jobs);
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn receivers_change_without_loss() {
    let (sandbox, site, other) = (Sandbox::new(), site(), Hook::start());
    settings(&sandbox, &webhook(nobody(), "name = \"one\""));
    sandbox.write("a.txt", site.list(["/1"]));
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    let late = Hook::start();
    settings(
        &sandbox,
        &(webhook(other.address, "name = \"one\"") + &webhook(late.address, "name = \"two\"")),
    );
    daemon.reload();
    other
        .came
        .until("the job is over", |posted| posted.len() == 4);
    daemon.run("a");
    for hook in [&other, &late] {
        hook.came.until("another job is over", |posted| {
            posted
                .last()
                .is_some_and(|posted| posted.event() == "job.completed")
        });
    }
    whole_jobs(&once(&other.came.all()), 2, 1);
    // Who comes later is not told what was.
    whole_jobs(&once(&late.came.all()), 1, 0);
    // What cannot be used changes nothing.
    let good = sandbox.read("gannet.toml");
    settings(&sandbox, "[[notify]]\ntype = \"webhook\"\n");
    daemon.reload();
    sandbox.write("gannet.toml", good);
    daemon.run("a");
    late.came
        .until("it is still told", |posted| posted.len() == 4);
    settings(&sandbox, "");
    daemon.reload();
    daemon.run("a");
    let run = daemon.stop();
    run.says(&["the settings have no receiver `one`, `two` any more"]);
    assert_eq!(late.came.all().len(), 4);
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn the_outbox_does_not_grow_without_end() {
    let (sandbox, site) = (Sandbox::new(), site());
    let rest = "[events]\nkeep = 4\nstop_timeout = \"100ms\"";
    settings_with(&sandbox, rest, &webhook(nobody(), ""));
    sandbox.write("a.txt", site.list((0..9).map(|n| format!("/{n}"))));
    let run = once_over(&sandbox).expect(0);
    run.says(&["dropped 8 events that a receiver has not had"]);
    assert_eq!(waiting(&sandbox), 4);
    let rest = "[events]\nmax_age = \"1ms\"\nstop_timeout = \"100ms\"";
    settings_with(&sandbox, rest, &webhook(nobody(), ""));
    once_over(&sandbox).expect(0);
    assert!(waiting(&sandbox) <= 1);
}

#[test]
fn a_receiver_that_is_not_deployed_yet_leaves_dead_letters_that_can_be_sent_again() {
    let (sandbox, site) = (Sandbox::new(), site());
    let is_deployed = Arc::new(AtomicBool::new(false));
    let hook = Hook::with({
        let is_deployed = is_deployed.clone();
        move |_| match is_deployed.load(Ordering::SeqCst) {
            true => Says::Status(204),
            false => Says::Status(404),
        }
    });
    let notify = webhook(hook.address, "events = [\"job.completed\"]");
    // As long as it may be over, the event waits.
    settings_with(&sandbox, "[events]\nstop_timeout = \"30s\"", &notify);
    sandbox.write("a.txt", site.list(["/1"]));
    once_over(&sandbox).expect(0);
    assert_eq!(waiting(&sandbox), 1);
    let rest = "[events]\nstop_timeout = \"30s\"\nrefused_for = \"1ms\"";
    settings_with(&sandbox, rest, &notify);
    once_over(&sandbox).expect(0).says(&[
        "refused event",
        "it answered 404",
        "gannet notify resend",
    ]);
    let listed = |expected: &str| {
        let run = sandbox.run(["notify", "list"]).expect(0);
        assert!(run.out().contains(expected), "{run}");
    };
    listed("job.completed for `webhook`");
    let run = sandbox.run(["notify", "resend", "--all"]).expect(3);
    assert!(run.out().contains("is kept: it answered 404"), "{run}");
    is_deployed.store(true, Ordering::SeqCst);
    sandbox.run(["notify", "resend", "--all"]).expect(0);
    listed("there are no dead letters");
    assert!(hook.events().iter().all(|event| event == "job.completed"));
    assert!(!hook.events().is_empty());
}

#[test]
fn a_webhook_is_reached_as_the_settings_allow() {
    let (sandbox, site, hook) = (Sandbox::new(), site(), Hook::start());
    let moved = Hook::with(|_| Says::Status(302));
    sandbox.write("a.txt", site.list(["/1"]));
    let notify = webhook(moved.address, "events = [\"job.completed\"]");
    settings_with(&sandbox, "[events]\nstop_timeout = \"30s\"", &notify);
    once_over(&sandbox)
        .expect(0)
        .says(&["redirects of webhooks are not followed", "passed over"]);
    let strict = "[storage]\nroot = \"strict\"\n[events]\nprivate_networks = false\n";
    let schedule = "[[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"empty.txt\"\n";
    sandbox.write("empty.txt", "");
    sandbox.write(
        "gannet.toml",
        format!("{strict}{schedule}{}", webhook(hook.address, "")),
    );
    once_over(&sandbox)
        .expect(0)
        .says(&["is denied", "loopback"]);
    assert!(hook.came.all().is_empty());
}

// ---- MQTT

fn mqtt(broker: &Broker, version: &str, more: &str) -> String {
    let ca = broker.path("ca.pem");
    let (scheme, ca) = match ca.exists() {
        true => ("mqtts", format!("ca_file = \"{}\"\n", ca.display())),
        false => ("mqtt", String::new()),
    };
    format!(
        "[[notify]]\ntype = \"mqtt\"\nurl = \"{scheme}://localhost:{}\"\nversion = \"{version}\"\n\
         user = \"{}\"\npassword_file = \"password.txt\"\n{ca}{more}\n",
        broker.port, USER.0
    )
}

#[test]
fn a_broker_gets_each_event_over_tls_with_either_version() {
    for version in ["3.1.1", "5"] {
        let (sandbox, site) = (Sandbox::new(), site());
        let identity = match version {
            "5" => tls::Identity::self_signed(),
            _ => tls::Identity::new(),
        };
        let pem = (
            identity.certificate_pem.as_str(),
            identity.key_pem.as_str(),
            identity.ca_pem.as_str(),
        );
        let Some(broker) = Broker::start(Some(pem)) else {
            return;
        };
        let subscriber = broker.subscribe("#");
        sandbox.write("password.txt", USER.1);
        let told = "name = \"told\"\nevents = [\"file.stored\", \"job.started\"]\n\
                    topic = \"{schedule}/{album}/{event}\"\npayload = \"{format}: {bytes} ({event})\"";
        let notify = mqtt(&broker, version, "") + &mqtt(&broker, version, told);
        settings(&sandbox, &notify);
        sandbox.write("a.txt", site.list(["/1", "/2"]));
        once_over(&sandbox).expect(0);
        let messages = subscriber
            .came
            .until("all came", |messages| messages.len() >= 8);
        whole_jobs(&subscriber.events(), 1, 2);
        let (own, told): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .partition(|message| message.topic.starts_with("gannet/"));
        let topics: Vec<&str> = own.iter().map(|message| &*message.topic).collect();
        let expected = [
            "gannet/job/started",
            "gannet/album/created",
            "gannet/file/stored",
            "gannet/file/stored",
            "gannet/job/completed",
        ];
        assert_eq!(topics, expected, "{version}");
        // A job begins without an album of its own only where there is none.
        assert_eq!(told[0].topic, "a/a/job.started");
        assert_eq!(told[0].payload, ": 0 (job.started)");
        assert_eq!(told[1].topic, "a/a/file.stored");
        let bytes = sandbox.files().values().next().unwrap().len();
        assert_eq!(told[1].payload, format!("png: {bytes} (file.stored)"));
        assert_eq!(waiting(&sandbox), 0);
    }
}

#[test]
fn a_broker_that_goes_and_comes_gets_everything_in_order() {
    for version in ["3.1.1", "5"] {
        let (sandbox, site) = (Sandbox::new(), site());
        let Some(mut broker) = Broker::start(None) else {
            return;
        };
        let subscriber = broker.subscribe("gannet/#");
        sandbox.write("password.txt", USER.1);
        settings(&sandbox, &mqtt(&broker, version, ""));
        let mut files = 0;
        let list = |files: usize| site.list((0..files).map(|n| format!("/{n}")));
        let daemon = Daemon::start(&sandbox);
        let is_online =
            |topic: &str, payload: &str| topic == "gannet/status" && payload == "online";
        subscriber.came.until("it is online", |messages| {
            messages.iter().any(|m| is_online(&m.topic, &m.payload))
        });
        for is_there in [true, false, true] {
            files += 150;
            sandbox.write("a.txt", list(files));
            if !is_there {
                broker.stop();
            }
            daemon.ask("run", "a").expect(0);
            if is_there {
                // In the middle of it.
                let so_far = subscriber.came.all().len();
                subscriber
                    .came
                    .until("some came", |messages| messages.len() > so_far + 20);
                broker.stop();
                broker.restart();
            }
            daemon.until("a", "is over", |schedule| schedule["running"].is_null());
            if !is_there {
                broker.restart();
            }
        }
        support::receivers::until("all came", || {
            let ends = subscriber.events();
            ends.iter()
                .filter(|event| event["event"] == "job.completed")
                .count()
                == 3
        });
        whole_jobs(&subscriber.events(), 3, 450);
        // The broker says that a daemon is gone that cannot say so itself; one that can does.
        daemon.kill();
        let said = |payload: &str| {
            let all = subscriber.came.all();
            let mut of_status = all
                .iter()
                .filter(|message| message.topic == "gannet/status");
            of_status
                .next_back()
                .is_some_and(|message| message.payload == payload)
        };
        support::receivers::until("it is offline", || said("offline"));
        let daemon = Daemon::start(&sandbox);
        support::receivers::until("it is online", || said("online"));
        daemon.stop();
        support::receivers::until("it is offline again", || said("offline"));
        assert_eq!(waiting(&sandbox), 0);
    }
}

#[test]
fn a_broker_that_refuses_is_named_and_its_events_wait() {
    for version in ["3.1.1", "5"] {
        let (sandbox, site) = (Sandbox::new(), site());
        let Some(broker) = Broker::start(None) else {
            return;
        };
        sandbox.write("password.txt", "wrong word");
        settings(&sandbox, &mqtt(&broker, version, ""));
        sandbox.write("a.txt", site.list(["/1"]));
        let run = once_over(&sandbox).expect(0);
        let run = run.says(&[
            "receiver `mqtt`, MQTT broker `localhost:",
            "the broker refuses",
        ]);
        assert!(!run.stderr.contains("wrong word"), "{run}");
        assert_eq!(waiting(&sandbox), 4);
    }
}

#[test]
fn an_event_that_is_too_large_for_a_broker_does_not_hold_up_the_rest() {
    let (sandbox, site) = (Sandbox::new(), site());
    let Some(mut broker) = Broker::start(None) else {
        return;
    };
    broker.stop();
    broker.set("max_packet_size 2000");
    broker.restart();
    let subscriber = broker.subscribe("gannet/#");
    sandbox.write("password.txt", USER.1);
    let more = "events = [\"file.*\", \"job.completed\"]";
    settings_with(
        &sandbox,
        "[events]\nstop_timeout = \"60s\"",
        &mqtt(&broker, "5", more),
    );
    let long = format!("/2?{}", "x".repeat(2500));
    sandbox.write("a.txt", site.list(["/1", &long, "/3"]));
    let run = once_over(&sandbox).expect(0);
    run.says(&["(file.stored) 5 times, it is passed over"]);
    subscriber.came.until("the job is over", |messages| {
        messages
            .iter()
            .any(|message| message.topic == "gannet/job/completed")
    });
    let names: Vec<Value> = subscriber
        .events()
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(names, ["file.stored", "file.stored", "job.completed"]);
    assert_eq!(waiting(&sandbox), 0);
}

// ---- Mail

fn mail(postbox: &Postbox, scheme: &str, more: &str) -> String {
    format!(
        "[[notify]]\ntype = \"mail\"\nurl = \"{scheme}://localhost:{}\"\n\
         from = \"gannet <gannet@example.org>\"\nto = [\"ops@example.org\", \"Ada <ada@example.org>\"]\n{more}\n",
        postbox.address.port()
    )
}

#[test]
fn the_end_of_a_job_is_mailed_with_what_failed() {
    let (sandbox, site) = (Sandbox::new(), site());
    let postbox = Postbox::start(None, false);
    settings(&sandbox, &mail(&postbox, "smtp", "tls = \"none\""));
    sandbox.write(
        "a.txt",
        site.list(["/1", "/none", "/nothing\\r\\nBcc:x@example.org"]),
    );
    // It is greylisted the first time.
    postbox.answers.lock().unwrap().push("451 come back later");
    let run = once_over(&sandbox).expect(0);
    let letters = postbox.came.all();
    assert_eq!(letters.len(), 1, "one a job: {run}");
    let letter = &letters[0];
    assert_eq!(letter.from, "gannet@example.org");
    assert_eq!(letter.to, ["ops@example.org", "ada@example.org"]);
    assert_eq!(
        letter.header("Subject"),
        "gannet: schedule `a` is incomplete"
    );
    assert!(letter.header("From").contains("gannet@example.org"));
    assert!(letter.header("To").contains("ada@example.org"));
    assert!(letter.header("Message-ID").contains("@gannet.invalid"));
    assert!(!letter.header("Date").is_empty() && letter.header("Bcc").is_empty());
    let job = run.json()["jobs"][0]["job"].as_str().unwrap().to_owned();
    let text = letter.text.replace("=\r\n", "");
    for word in [
        "3 targets, 1 stored, 2 failed",
        "What failed first",
        "/none",
        "status: ",
        &job,
        "gannet jobs",
    ] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    assert_eq!(waiting(&sandbox), 0);
}

#[test]
fn mail_goes_encrypted_and_by_name() {
    let identities = [tls::Identity::new(), tls::Identity::self_signed()];
    for (identity, at_once) in identities
        .iter()
        .flat_map(|identity| [false, true].map(|at_once| (identity, at_once)))
    {
        let (sandbox, site) = (Sandbox::new(), site());
        let postbox = Postbox::start(Some(identity.server()), at_once);
        let scheme = if at_once { "smtps" } else { "smtp" };
        sandbox.write("ca.pem", &identity.ca_pem);
        sandbox.write("password.txt", "open sesame");
        let known = "user = \"gannet\"\npassword_file = \"password.txt\"\n";
        let notify = mail(&postbox, scheme, &format!("{known}ca_file = \"ca.pem\""));
        settings(&sandbox, &notify);
        sandbox.write("a.txt", site.list(["/1"]));
        let run = once_over(&sandbox).expect(0);
        let letters = postbox.came.all();
        assert_eq!(letters.len(), 1, "{run}");
        assert!(letters[0].is_encrypted);
        // A zero byte before either.
        assert_eq!(
            letters[0].auth.as_deref(),
            Some("AGdhbm5ldABvcGVuIHNlc2FtZQ==")
        );
        assert!(!run.stderr.contains("sesame"), "{run}");
        // Without the authority nothing is sent.
        settings(&sandbox, &mail(&postbox, scheme, known));
        once_over(&sandbox)
            .expect(0)
            .says(&["takes no events", "ca_file"]);
        assert_eq!(postbox.came.all().len(), 1);
    }
    // Nor is it where encryption was asked for and is not offered.
    let (sandbox, site) = (Sandbox::new(), site());
    let postbox = Postbox::start(None, false);
    settings(&sandbox, &mail(&postbox, "smtp", ""));
    sandbox.write("a.txt", site.list(["/1"]));
    once_over(&sandbox).expect(0).says(&["no STARTTLS"]);
    assert!(postbox.came.all().is_empty());
}

// ---- Listening

/// Server-sent events of a daemon, from one connection.
struct Stream {
    lines: std::io::Lines<BufReader<std::net::TcpStream>>,
}

impl Stream {
    fn open(daemon: &Daemon<'_>, query: &str, last: Option<&str>) -> Self {
        let api = daemon.api();
        let mut stream = support::http::connect(api);
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: {api}\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        // Who has the first comment listens.
        let begun = lines.by_ref().map_while(Result::ok);
        let head: Vec<String> = begun.take_while(|line| line != ":").collect();
        assert!(head[0].contains("200"), "{head:?}");
        let is_stream =
            |line: &String| line.eq_ignore_ascii_case("content-type: text/event-stream");
        assert!(head.iter().any(is_stream), "{head:?}");
        Self { lines }
    }

    /// The next event: its id, name and data.
    fn next(&mut self) -> Option<(String, String, Value)> {
        let (mut id, mut event) = (String::new(), String::new());
        for line in self.lines.by_ref().map_while(Result::ok) {
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("event: ") {
                event = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some((id, event, serde_json::from_str(text).unwrap()));
            }
        }
        None
    }

    /// The names of events up to the end of a job, and the id of the last.
    fn job(&mut self) -> (Vec<String>, String) {
        let mut names = Vec::new();
        loop {
            let (id, event, data) = self.next().expect("the stream goes on");
            assert_eq!(data["event"], *event);
            assert_eq!(data["id"].to_string(), id);
            names.push(event);
            if names.last().is_some_and(|name| name == "job.completed") {
                return (names, id);
            }
        }
    }
}

#[test]
fn events_are_heard_as_they_happen_and_from_where_one_was() {
    let (sandbox, site) = (Sandbox::new(), site());
    settings(&sandbox, "");
    sandbox.write("a.txt", site.list(["/1"]));
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    assert_eq!(waiting(&sandbox), 0, "nobody listens");
    let mut all = Stream::open(&daemon, "", None);
    let mut ends = Stream::open(&daemon, "?events=job.completed,job.failed", None);
    let mut others = Stream::open(&daemon, "?schedule=b", None);
    sandbox.write("a.txt", site.list(["/1", "/2"]));
    let job = daemon.run("a")["job"].clone();
    let (names, last) = all.job();
    assert_eq!(names, ["job.started", "file.stored", "job.completed"]);
    assert_eq!(ends.job().0, ["job.completed"]);
    let mut of_job = Stream::open(
        &daemon,
        &format!("?job={}&after=0", job.as_str().unwrap()),
        None,
    );
    // What was before anybody listened was not kept.
    let (_, event, missed) = of_job.next().unwrap();
    assert!(event == "missed" || missed["job"] == job, "{missed}");
    drop((all, of_job));
    sandbox.write("a.txt", site.list(["/1", "/2", "/3"]));
    daemon.run("a");
    let mut again = Stream::open(&daemon, "", Some(&last));
    assert_eq!(
        again.job().0,
        ["job.started", "file.stored", "job.completed"]
    );
    let (_, last) = ends.job();
    // Also beyond a restart, and a kill.
    daemon.kill();
    let daemon = Daemon::start(&sandbox);
    daemon.run("a");
    let mut again = Stream::open(&daemon, "", Some(&last));
    assert_eq!(again.job().0, ["job.started", "job.completed"]);
    assert!(others.next().is_none());
    let wrong = daemon
        .get("/api/v1/events?events=job.finished")
        .problem(400);
    assert!(wrong.contains("`job.finished` means no event"), "{wrong}");
    // It ends with the daemon, and holds up nothing.
    daemon.stop();
    assert!(again.next().is_none());
}

#[test]
fn who_is_too_slow_is_told_that_he_missed_some() {
    let (sandbox, site) = (Sandbox::new(), site());
    settings_with(&sandbox, "[events]\nkeep = 3", "");
    sandbox.write("a.txt", site.list(["/1"]));
    let daemon = Daemon::start(&sandbox);
    let (_, last) = {
        let mut stream = Stream::open(&daemon, "", None);
        daemon.run("a");
        stream.job()
    };
    sandbox.write("a.txt", site.list((0..9).map(|n| format!("/{n}"))));
    daemon.run("a");
    support::receivers::until("the outbox is trimmed", || waiting(&sandbox) <= 3);
    let mut stream = Stream::open(&daemon, "", Some(&last));
    let (_, event, missed) = stream.next().unwrap();
    assert_eq!((&*event, &missed["at_most"]), ("missed", &7.into()));
    assert_eq!(
        stream.job().0,
        ["file.stored", "file.stored", "job.completed"]
    );
}

#[test]
fn the_command_prints_what_happens() {
    let (sandbox, site) = (Sandbox::new(), site());
    settings(&sandbox, "");
    sandbox.write("a.txt", site.list(["/1"]));
    sandbox.run(["events"]).expect(1).says(&["no daemon works"]);
    sandbox
        .run(["events", "job.finished"])
        .expect(2)
        .says(&["`job.finished` means no event"]);
    let daemon = Daemon::start(&sandbox);
    let listen = |name: &str, args: &[&str]| {
        let mut command = sandbox.command(args);
        let out = std::fs::File::create(sandbox.path(name)).unwrap();
        command.stdin(Stdio::null()).stdout(out).spawn().unwrap()
    };
    let mut listeners = [
        listen("words", &["events"]),
        listen("lines", &["events", "job.*", "--schedule", "a", "--json"]),
    ];
    let heard = |name: &str| String::from_utf8(sandbox.read(name)).unwrap();
    // Somebody hears a job once he listens.
    support::receivers::until("both hear a job", || {
        daemon.run("a");
        ["words", "lines"]
            .iter()
            .all(|name| heard(name).contains("job.completed"))
    });
    daemon.stop();
    for listener in &mut listeners {
        assert!(listener.wait().unwrap().success());
    }
    let words = heard("words");
    let end = words
        .lines()
        .rfind(|line| line.contains("job.completed"))
        .unwrap();
    assert!(
        end.contains("schedule `a` is completed (1 target, 1 "),
        "{words}"
    );
    let lines = heard("lines");
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(
            event["event"].as_str().unwrap().starts_with("job."),
            "{lines}"
        );
        assert_eq!(event["schedule"], "a");
    }
}

// ---- Settings

#[test]
fn a_test_event_tells_whether_a_receiver_is_reached() {
    let sandbox = Sandbox::new();
    let (good, bad) = (Hook::start(), Hook::with(|_| Says::Status(403)));
    let postbox = Postbox::start(None, false);
    let notify = webhook(good.address, "name = \"good\"\nevents = [\"job.failed\"]")
        + &webhook(bad.address, "name = \"bad\"")
        + &webhook(nobody(), "name = \"away\"")
        + &mail(&postbox, "smtp", "tls = \"none\"");
    settings(&sandbox, &notify);
    let run = sandbox.run(["notify", "test"]).expect(3);
    for word in [
        "`good`: webhook at",
        "took a test event",
        "`bad`: webhook at",
        "it answered 403",
        "`away`: webhook at",
        "Connection refused",
        "`mail`: mail server `localhost:",
    ] {
        assert!(run.out().contains(word), "no `{word}`: {run}");
    }
    assert_eq!(good.came.all()[0].json()["event"], "test");
    assert_eq!(postbox.came.all().len(), 1);
    sandbox.run(["notify", "test", "good"]).expect(0);
    sandbox
        .run(["notify", "test", "other"])
        .expect(2)
        .says(&["good, bad, away, mail"]);
    assert!(!sandbox.store().exists(), "it needs no store");
}

#[test]
fn what_is_wrong_with_a_receiver_is_said() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.txt", "");
    for (notify, words) in [
        (
            "type = \"fax\"",
            &["`notify.0.type`", "`mqtt`, `webhook`, `mail`"][..],
        ),
        ("type = \"webhook\"", &["`notify.0.type`: needs a `url`"]),
        (
            "type = \"webhook\"\nurl = \"ftp://x\"",
            &["`notify.0.url`", "https://"],
        ),
        (
            "type = \"webhook\"\nurl = \"https://x\"\ntopic = \"a\"",
            &["`notify.0.topic`", "is for type \"mqtt\""],
        ),
        (
            "type = \"webhook\"\nurl = \"https://x\"\nsecrte = \"a\"",
            &["`notify.0.secrte`", "did you mean `notify.0.secret`"],
        ),
        (
            "type = \"webhook\"\nurl = \"https://x\"\nevents = [\"job.finished\"]",
            &["`notify.0.events`", "`job.finished` means no event"],
        ),
        (
            "type = \"webhook\"\nurl = \"https://x\"\nsecret_file = \"none.txt\"",
            &["`notify.0.secret_file`", "cannot read `none.txt`"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtt://a:b@x\"",
            &["`notify.0.url`", "holds credentials"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtt://x\"\ntopic = \"a/#\"",
            &["`notify.0.topic`", "only subscriptions"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtt://x\"\ntopic = \"a/{path}\"",
            &["`notify.0.topic`", "`{path}` is no field of a topic"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtt://x\"\npayload = \"{\"",
            &["`notify.0.payload`", "brace"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtt://x\"\nversion = \"4\"",
            &["`notify.0.version`", "`3.1.1`"],
        ),
        (
            "type = \"mqtt\"\nurl = \"mqtts://x\"\nca_file = \"empty.txt\"",
            &["receiver `mqtt`", "`empty.txt` holds no PEM certificate"],
        ),
        (
            "type = \"mail\"\nurl = \"smtp://x\"\nfrom = \"a@example.org\"",
            &["needs `to`"],
        ),
        (
            "type = \"mail\"\nurl = \"smtp://x\"\nfrom = \"a\"\nto = [\"b@example.org\"]",
            &["`notify.0.from`", "`a` is no address"],
        ),
        (
            "type = \"mail\"\nurl = \"smtp://x\"\ntls = \"none\"\nuser = \"u\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]",
            &["`notify.0.tls`", "for all to read"],
        ),
        (
            "type = \"webhook\"\nurl = \"https://x\"\n[[notify]]\ntype = \"webhook\"\nurl = \"https://y\"",
            &["another receiver called `webhook`"],
        ),
    ] {
        sandbox.write("gannet.toml", format!("[[notify]]\n{notify}\n"));
        sandbox.run(["check"]).expect(1).says(words);
    }
    let secrets = "[[notify]]\ntype = \"webhook\"\nurl = \"https://hooks.example/T0/key\"\nsecret = \"s1\"\n\
                   headers.Authorization = \"Bearer s2\"\n\
                   [[notify]]\ntype = \"mqtt\"\nurl = \"mqtt://x\"\nuser = \"u\"\npassword = \"s3\"\n";
    sandbox.write("gannet.toml", secrets);
    let run = sandbox.run(["check"]).expect(0);
    assert!(run.out().contains("https://hooks.example/***"), "{run}");
    for secret in ["T0", "s1", "s2", "s3"] {
        assert!(!run.out().contains(secret), "{secret}: {run}");
    }
}
