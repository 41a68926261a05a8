//! The command line's contract: exit codes, settings and their errors, what goes to stdout, and the flags
//! of `gannet fetch` that decide what a run does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod origin;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use support::pictures::png;
use support::site::Gate;
use support::{Answer, Asked, Sandbox, Site, sandbox, sha256};

/// A picture for every number, 404 for `/missing…`, a web page for `/page…`.
fn pictures(asked: &Asked) -> Answer {
    let number = |text: &str| text.parse().unwrap_or(0);
    match asked.path.rsplit_once('/') {
        Some(("", name)) if name.starts_with("missing") => Answer::status(404),
        Some(("", name)) if name.starts_with("page") => Answer::ok("<!doctype html><p>no picture"),
        Some(("/same", _)) => Answer::ok(png(1_000_000)),
        Some((_, name)) => Answer::ok(png(number(name))),
        None => Answer::status(404),
    }
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("/{n}"))
}

const COMMANDS: [&str; 9] = [
    "fetch",
    "demo",
    "jobs",
    "albums",
    "rename",
    "check",
    "completions",
    "man",
    "help",
];

// ---- Exit codes

#[test]
fn a_run_in_which_every_target_is_fine_ends_with_0() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let report = sandbox.fetch_list(site.list(numbers(0..3)), 0, &[]);
    assert_eq!(report.count("stored"), 3);
    assert_eq!(report.whole["state"], "completed");
}

#[test]
fn a_run_that_cannot_begin_ends_with_1() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "http://127.0.0.1:9/a\n");
    sandbox
        .fetch(&["absent.txt"])
        .expect(1)
        .says(&["absent.txt"]);
    sandbox
        .fetch(&["list.txt", "--set", "fetch.retries=many"])
        .expect(1)
        .says(&["fetch.retries"]);
    sandbox
        .fetch(&["list.txt", "--config", "absent.toml"])
        .expect(1)
        .says(&["absent.toml"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    for args in [
        &["fetch"][..],
        &["fetch", "list.txt", "--no-such-flag"],
        &["fetch", "list.txt", "--count", "many"],
        &["fetch", "list.txt", "--count", "-1"],
        &["fetch", "list.txt", "--shard", "0/3"],
        &["fetch", "list.txt", "--shard", "4/3"],
        &["fetch", "list.txt", "--shard", "1"],
        &["fetch", "list.txt", "--list-format", "yaml"],
        &["fetch", "list.txt", "--set", "no-equals-sign"],
        &["fetch", "list.txt", "--header", "no colon"],
        &["fetch", "list.txt", "--exit-unchanged", "256"],
        &["fetch", "list.txt", "-v", "-q"],
        &["nothing"],
        &["jobs", "--failed"],
        &["completions", "tcl"],
    ] {
        let run = sandbox.run(args).expect(2);
        assert!(run.stdout.is_empty(), "{args:?}: {run}");
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(sandbox.everything(), [sandbox.path("list.txt")]);
}

#[test]
fn a_flag_with_an_impossible_value_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    for (flag, value, key) in [
        ("--max-failures", "few", "max_failures"),
        ("--max-failures", "101%", "max_failures"),
        ("--max-failures", "-1", "max_failures"),
        ("--deadline", "soon", "deadline"),
        ("--album", "../up", "album"),
        ("--album", "/etc", "album"),
        ("--album", ".hidden", "album"),
        ("--kind", "music", "kind"),
        ("--concurrency", "0", "concurrency"),
        ("--per-host", "0", "per_host"),
        ("--rate", "-1", "rate"),
        ("--rate", "NaN", "rate"),
        ("--allow-net", "10.0.0.0/99", "allow_networks"),
        ("--proxy", "ftp://localhost", "proxy"),
        ("--ca-file", "absent.pem", "absent.pem"),
    ] {
        let run = sandbox.run(["fetch", "-o", "out", "list.txt", &format!("{flag}={value}")]);
        assert!(
            matches!(run.code(), 1 | 2) && !run.stderr.contains("panicked"),
            "{flag} {value}: {run}"
        );
        assert!(
            run.stderr.contains(key) || run.stderr.contains(flag),
            "{flag} {value}: {run}"
        );
    }
}

/// `s3://bucket` is also a relative path, so accepting it would create and fill a folder `s3:`.
#[test]
fn a_url_where_a_path_is_wanted_is_refused_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    for args in [
        &["fetch", "list.txt", "-o", "s3://bucket/x"][..],
        &["fetch", "list.txt", "--output=S3://bucket/x"],
        &["fetch", "list.txt", "-o", "sftp:ann@example.org:/x"],
        &["fetch", "list.txt", "-o", "file:///data/x"],
        &["fetch", "list.txt", "--dry-run", "-o", "gs://bucket"],
        &["fetch", "list.txt", "--report", "s3://bucket/report.json"],
        &[
            "fetch",
            "list.txt",
            "--ca-file",
            "https://example.org/ca.pem",
        ],
        &[
            "fetch",
            "list.txt",
            "--config",
            "https://example.org/gannet.toml",
        ],
        &["retry", "last", "-o", "az://container"],
        &["verify", "-o", "s3://bucket"],
        &["jobs", "-o", "s3://bucket"],
        &["albums", "-o", "s3://bucket"],
        &["status", "-o", "s3://bucket"],
        &["events", "-o", "s3://bucket"],
        &["schedule", "list", "-o", "s3://bucket"],
        &["catalog", "status", "-o", "s3://bucket"],
        &["catalog", "migrate", "-o", "s3://bucket"],
        &["catalog", "copy", "sqlite:s3://bucket/a.db", "sqlite:b.db"],
        &["demo", "-o", "s3://bucket"],
    ] {
        sandbox.run(args).expect(2).says(&["is a URL"]);
    }
    for (set, command) in [
        ("storage.root=s3://bucket/x", "fetch"),
        ("storage.root=s3://bucket/x", "daemon"),
        ("storage.root=s3://bucket/x", "check"),
        ("log.dir=ftp://example.org/x", "fetch"),
        ("fetch.ca_files=s3://bucket/ca.pem", "fetch"),
        ("catalog.url=sqlite:s3://bucket/x.db", "fetch"),
        ("api.list_folders=s3://bucket", "daemon"),
    ] {
        let (key, value) = set.split_once('=').unwrap();
        let list: &[&str] = match command {
            "fetch" => &["list.txt"],
            _ => &[],
        };
        let args = [&[command, "--set", set], list].concat();
        let value = value.trim_start_matches("sqlite:");
        sandbox.run(args).expect(2).says(&[key, value, "is a URL"]);
        if !set.starts_with("api.") {
            let variable = format!("GANNET_{}", key.replace('.', "__").to_uppercase());
            let set = set.split_once('=').unwrap().1;
            let args = [&[command], list].concat();
            let run = sandbox.run_with(&[(&variable, set)], &args).expect(2);
            run.says(&[&variable, value, "is a URL"]);
        }
    }
    sandbox.write("bad.toml", "[storage]\nroot = 's3://bucket/x'\n");
    let run = sandbox.run(["check", "-c", "bad.toml"]).expect(2);
    run.says(&["bad.toml", "storage.root", "is a URL"]);
    let variable = ("GANNET_FETCH__PROXY_FILE", "s3://bucket/proxy");
    sandbox
        .run_with(&[variable], &["check"])
        .expect(2)
        .says(&[variable.0, variable.1, "is a URL"]);
    sandbox
        .run(["check", "--set", "storage.root=a:b"])
        .expect(0);
    let written = ["bad.toml", "list.txt"].map(|name| sandbox.path(name));
    assert_eq!(sandbox.everything(), written);
}

#[test]
fn a_run_with_too_many_failures_ends_with_3() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let report = sandbox.fetch_list(site.list(["/1", "/missing", "/page"]), 3, &[]);
    assert_eq!(report.whole["state"], "incomplete");
    assert_eq!(report.of(&site.url("/missing"))["reason"], "status");
    assert_eq!(report.of(&site.url("/missing"))["status"], 404);
    assert_eq!(report.of(&site.url("/page"))["reason"], "wrong-kind");
    assert_eq!(report.of(&site.url("/page"))["outcome"], "rejected");
}

#[test]
fn max_failures_is_a_number_or_a_share() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let mut paths: Vec<String> = numbers(0..8).collect();
    paths.extend(["/missing".to_owned(), "/page".to_owned()]);
    let list = site.list(paths);
    for (tolerated, code) in [
        ("0", 3),
        ("1", 3),
        ("2", 0),
        ("19%", 3),
        ("19.9%", 3),
        ("20%", 0),
        ("100%", 0),
        ("0%", 3),
    ] {
        sandbox.fetch_list(&list, code, &["--max-failures", tolerated]);
    }
}

#[test]
fn a_second_run_on_a_held_store_ends_with_4_and_says_who_holds_it() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let first = sandbox.start(sandbox.fetch_args(&["list.txt", "--report", "report.json"]));
    site.wait_for(1);
    let second = sandbox
        .fetch(&["list.txt", "--report", "report.json"])
        .expect(4)
        .says(&[&format!("process {}", first.id()), "since"]);
    assert!(second.stdout.is_empty(), "{second}");
    gate.open();
    first.end().expect(0);
    // The second run did not write over the first one's report.
    assert_eq!(sandbox.json("report.json")["counts"]["stored"], 1);
    assert_eq!(site.total(), 1);
}

#[test]
fn a_held_store_is_held_by_whatever_way_it_is_named() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let first = sandbox.start(sandbox.fetch_args(&["list.txt"]));
    site.wait_for(1);
    std::os::unix::fs::symlink("out", sandbox.path("link")).unwrap();
    for name in ["./out", "link", sandbox.store().to_str().unwrap()] {
        sandbox
            .run(["fetch", "-o", name, "--allow-private", "list.txt"])
            .expect(4);
    }
    gate.open();
    first.end().expect(0);
    // Whoever held it has let go.
    sandbox.fetch(&["list.txt"]).expect(0);
}

#[test]
fn a_catalog_that_another_store_works_with_ends_with_4_and_is_named() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let catalog = ["--set", "catalog.url=sqlite:shared.db"];
    let args = [&["list.txt"], &catalog[..]].concat();
    let first = sandbox.start(sandbox.fetch_args(&args));
    site.wait_for(1);
    std::os::unix::fs::symlink("shared.db", sandbox.path("link.db")).unwrap();
    for url in ["sqlite:shared.db", "sqlite:./link.db"] {
        let setting = format!("catalog.url={url}");
        sandbox
            .run(["fetch", "-o", "other", "list.txt", "--set", &setting])
            .expect(4)
            .says(&["catalog", "shared.db", &format!("process {}", first.id())]);
    }
    gate.open();
    first.end().expect(0);
    sandbox.fetch(&args).expect(0);
}

#[test]
fn of_many_runs_that_start_at_once_on_a_new_store_one_goes_on() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let runs: Vec<_> = (0..6)
        .map(|_| sandbox.start(sandbox.fetch_args(&["list.txt"])))
        .collect();
    site.wait_for(1);
    // The one that asked waits for the gate, which opens only once the others had their answer or asked too.
    let (tell, told) = std::sync::mpsc::channel();
    for run in runs {
        let tell = tell.clone();
        std::thread::spawn(move || tell.send(run.end().code()));
    }
    let mut codes: Vec<i32> = (0..5).map(|_| told.recv().unwrap()).collect();
    gate.open();
    codes.push(told.recv().unwrap());
    assert_eq!(codes, [4, 4, 4, 4, 4, 0]);
    assert_eq!(site.total(), 1);
}

#[test]
fn signals_end_a_run_with_128_and_their_number() {
    for (signal, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
        let (sandbox, gate) = (Sandbox::new(), Gate::new());
        let site = Site::start({
            let gate = gate.clone();
            move |asked| {
                gate.pass();
                pictures(asked)
            }
        });
        sandbox.write("list.txt", site.list(numbers(0..50)));
        let run = sandbox.start(sandbox.fetch_args(&["list.txt"]));
        site.wait_for(8);
        run.signal(signal);
        let run = run.end_within(Duration::from_secs(20)).expect(code);
        assert_eq!(run.json()["state"], "cancelled");
        assert_eq!(
            run.count("skipped") + run.count("failed"),
            run.count("targets")
        );
        gate.open();
    }
}

#[test]
fn a_terminal_that_hangs_up_stops_a_run_and_what_came_is_recorded() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let screen = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(numbers(0..50)));
    let mut child = sandbox
        .command(sandbox.fetch_args(&["list.txt"]))
        .stdin(Stdio::null())
        .stdout(screen.try_clone().unwrap())
        .stderr(screen)
        .spawn()
        .unwrap();
    site.wait_for(8);
    drop(terminal);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(129));
    let last = sandbox
        .run(["jobs", "-o", "out", "last", "--json"])
        .expect(0);
    let job: serde_json::Value = last.out().lines().last().unwrap().parse().unwrap();
    assert_eq!(job["state"], "cancelled");
    gate.open();
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            pictures(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_gannet"))
        .args(sandbox.fetch_args(&["list.txt"]))
        .current_dir(sandbox.path(""));
    let run = sandbox::start(command, None);
    site.wait_for(1);
    run.signal("HUP");
    gate.open();
    assert_eq!(run.end().expect(0).count("stored"), 1);
}

#[test]
fn exit_unchanged_tells_a_run_that_brought_nothing() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let list = site.list(["/1", "/2"]);
    sandbox.fetch_list(&list, 0, &["--exit-unchanged", "99"]);
    sandbox.fetch_list(&list, 99, &["--exit-unchanged", "99"]);
    // One new file is news; a failure is no "unchanged".
    sandbox.fetch_list(site.list(["/1", "/3"]), 0, &["--exit-unchanged", "99"]);
    sandbox.fetch_list(
        site.list(["/1", "/missing"]),
        3,
        &["--exit-unchanged", "99"],
    );
    sandbox.fetch_list("", 99, &["--exit-unchanged", "99"]);
}

// ---- Settings

#[test]
fn an_unknown_key_is_named_with_its_file_and_a_better_one() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "[fetch]\nretrys = 5\n");
    sandbox
        .run(["check", "-c", "my.toml"])
        .expect(1)
        .says(&["my.toml", "fetch.retrys", "retries"]);
    sandbox
        .run(["check", "--set", "fetch.retrys=5"])
        .expect(1)
        .says(&["--set", "fetch.retrys", "retries"]);
    sandbox
        .run_with(&[("GANNET_FETCH__RETRYS", "5")], &["check"])
        .expect(1)
        .says(&["GANNET_FETCH__RETRYS", "fetch.retrys"]);
    sandbox
        .run(["check", "--set", "fetsh.retries=5"])
        .expect(1)
        .says(&["fetsh", "fetch"]);
}

#[test]
fn a_wrong_type_or_an_impossible_value_is_named_with_its_place() {
    let sandbox = Sandbox::new();
    for (section, key, value) in [
        ("fetch", "retries", "\"many\""),
        ("fetch", "retries", "-1"),
        ("fetch", "retries", "1.5"),
        ("fetch", "concurrency", "0"),
        ("fetch", "per_host", "0"),
        ("fetch", "rate", "-1"),
        ("fetch", "connect_timeout", "\"soon\""),
        ("fetch", "connect_timeout", "30"),
        ("fetch", "max_bytes", "\"lots\""),
        ("fetch", "max_bytes", "-5"),
        ("fetch", "private_networks", "\"perhaps\""),
        ("fetch", "allow_networks", "[\"10.0.0.0/64\"]"),
        ("fetch", "proxy", "\"gopher://p\""),
        ("image", "check", "\"hard\""),
        ("image", "formats", "[\"pcx\"]"),
        ("image", "formats", "\"png\""),
        ("naming", "order", "[\"header\", \"dice\"]"),
        ("naming", "template", "\"{album}\""),
        ("naming", "template", "\"../{name}\""),
        ("naming", "template", "\"{nome}\""),
        ("log", "level", "\"loud\""),
        ("log", "format", "\"xml\""),
        ("job", "max_failures", "\"some\""),
        ("job", "dedupe", "\"perhaps\""),
        ("job", "window", "0"),
        ("storage", "sync", "\"x\""),
        ("storage", "commit_files", "0"),
        ("storage", "root", "\"\""),
        ("fetch", "name_servers", "[\"dns.example\"]"),
        ("fetch", "ca_files", "[\"absent.pem\"]"),
        ("fetch", "max_rate", "\"08:00 fast\""),
        ("fetch", "robots_agent", "\"Picture Bot\""),
        ("fetch", "robots_tags", "[\"noia\"]"),
        ("fetch", "crawl_delay_max", "\"soon\""),
        ("job", "kind", "\"music\""),
    ] {
        let dotted = format!("{section}.{key}");
        sandbox.write("my.toml", format!("[{section}]\n{key} = {value}\n"));
        sandbox
            .run(["check", "--config", "my.toml"])
            .expect(1)
            .says(&["my.toml", &dotted]);
        sandbox
            .run(["check", "--set", &format!("{dotted}={value}")])
            .expect(1)
            .says(&["--set", &dotted]);
        let variable = format!("GANNET_{}__{}", section.to_uppercase(), key.to_uppercase());
        sandbox
            .run_with(&[(&variable, value)], &["check"])
            .expect(1)
            .says(&[&variable, &dotted]);
    }
}

#[test]
fn what_is_allowed_is_said() {
    let sandbox = Sandbox::new();
    for (set, allowed) in [
        ("image.check=hard", &["sniff", "header", "decode"][..]),
        ("image.formats=[\"pcx\"]", &["png", "jpeg", "avif"]),
        (
            "naming.order=[\"dice\"]",
            &["list", "header", "url", "random"],
        ),
        ("log.format=xml", &["text", "json"]),
        ("job.dedupe=perhaps", &["auto", "off", "album"]),
        (
            "naming.template={nome}",
            &["{album}", "{name}", "{host}", "{date}"],
        ),
        ("job.kind=music", &["image", "document", "any"]),
    ] {
        sandbox.run(["check", "--set", set]).expect(1).says(allowed);
    }
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "[fetch]\nretries = 3\nretries = = 4\n");
    sandbox
        .run(["check", "--config", "my.toml"])
        .expect(1)
        .says(&["my.toml", "3"]);
    sandbox.write("my.toml", b"[fetch]\nproxy = \"\xff\"\n");
    sandbox
        .run(["check", "--config", "my.toml"])
        .expect(1)
        .says(&["my.toml"]);
    sandbox.run(["check", "--config", "."]).expect(1);
}

#[test]
fn later_layers_win() {
    let sandbox = Sandbox::new();
    let effective = |run: support::Run| {
        let run = run.expect(0);
        let table: toml::Table = run.out().parse().unwrap();
        table["fetch"]["retries"].as_integer().unwrap()
    };
    let file = "[fetch]\nretries = 11\n";
    assert_eq!(effective(sandbox.run(["check"])), 3);
    sandbox.write("gannet.toml", file);
    assert_eq!(effective(sandbox.run(["check"])), 11);
    sandbox.write("other.toml", "[fetch]\nretries = 12\n");
    assert_eq!(effective(sandbox.run(["check", "-c", "other.toml"])), 12);
    let variable = [("GANNET_FETCH__RETRIES", "13")];
    assert_eq!(effective(sandbox.run_with(&variable, &["check"])), 13);
    let set = ["check", "--set", "fetch.retries=14"];
    assert_eq!(effective(sandbox.run_with(&variable, &set)), 14);
}

#[test]
fn what_differs_for_a_host_holds_for_it_and_no_other() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::on("0.0.0.0:0", {
        let gate = gate.clone();
        move |asked| {
            let host = asked.header("host").unwrap_or_default();
            if host.starts_with("127.0.0.4") {
                gate.pass();
            }
            match asked.path.as_str() {
                "/loop" => Answer::status(302).header("Location", "/1"),
                _ => pictures(asked),
            }
        }
    });
    let url = |host: &str, path: &str| site.url_as(host, path);
    let list = [
        url("127.0.0.1", "/1"),
        url("127.0.0.1", "/loop"),
        url("127.0.0.2", "/2"),
        url("127.0.0.3", "/3"),
        url("127.0.0.4", "/4"),
        url("127.0.0.5", "/loop"),
    ];
    sandbox.write(
        "gannet.toml",
        "[hosts.\"127.0.0.2\"]\nmax_bytes = 10\n\
         [hosts.\"127.0.0.3\"]\nuser_agent = \"puffin/2\"\nrefresh_after = \"1h\"\n\
         [hosts.\"127.0.0.4\"]\ntotal_timeout = \"200ms\"\nretries = 0\n\
         [hosts.\"127.0.0.5\"]\nredirects = 0\n",
    );
    let report = sandbox.fetch_list(list.join("\n"), 3, &[]);
    gate.open();
    let ended = |at: usize| &report.of(&list[at])["reason"];
    assert_eq!(report.count("stored"), 3, "{:#?}", report.items());
    assert_eq!(ended(2), "too-large");
    assert_eq!(ended(4), "timeout");
    assert_eq!(ended(5), "redirects");
    for asked in site.asked() {
        let agent = asked.header("user-agent").unwrap();
        assert_eq!(agent == "puffin/2", asked.path == "/3", "{asked:?}");
    }
    site.forget();
    sandbox.fetch_list([url("127.0.0.1", "/1"), list[3].clone()].join("\n"), 0, &[]);
    assert_eq!(site.total(), 1, "one of the two is fresh");
}

#[test]
fn what_cannot_differ_by_host_is_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    for (key, value) in [("proxy", "direct"), ("connect_timeout", "1s")] {
        sandbox
            .run([
                "check",
                "--set",
                &format!("hosts.\"a.example\".{key}={value}"),
            ])
            .expect(1)
            .says(&["cannot differ by host", &format!("`fetch.{key}`")]);
    }
    sandbox
        .run(["check", "--set", "hosts.\"a.example\".max_bytes=0"])
        .expect(1)
        .says(&["hosts.\"a.example\".max_bytes"]);
}

#[test]
fn check_prints_a_configuration_that_can_be_read_back() {
    let sandbox = Sandbox::new();
    let first = sandbox
        .run(["check", "--set", "hosts.\"a.example\".rate=2"])
        .expect(0);
    sandbox.write("again.toml", &first.stdout);
    let second = sandbox.run(["check", "-c", "again.toml"]).expect(0);
    let parse = |run: &support::Run| run.out().parse::<toml::Table>().unwrap();
    assert_eq!(parse(&first), parse(&second));
}

#[test]
fn check_does_not_print_secrets() {
    let sandbox = Sandbox::new();
    let file = "[fetch]\nproxy = \"http://ann:S3CRET@proxy.example:1\"\n\
        [fetch.headers]\nAuthorization = \"Bearer S3CRET\"\nCookie = \"id=S3CRET\"\n\
        [hosts.\"a.example\"]\nuser = \"ann\"\npassword = \"S3CRET\"\n\
        [hosts.\"b.example\"]\ntoken = \"S3CRET\"\n\
        [hosts.\"c.example\".headers]\nX-Api-Key = \"S3CRET\"\n";
    sandbox.write("my.toml", file);
    let run = sandbox.run(["check", "-c", "my.toml"]).expect(0);
    assert!(!run.out().contains("S3CRET"), "{run}");
    // A proxy may lack a scheme.
    let run = sandbox.run(["check", "--set=fetch.proxy=ann:S3CRET@proxy.example:1"]);
    assert!(!run.expect(0).out().contains("S3CRET"));
    // Nor where something is wrong with one of them.
    for wrong in [
        "fetch.proxy=gopher://ann:S3CRET@p",
        "fetch.proxy=http://ann:S3CRET@[p",
        "hosts.\"a.example\".password=[\"S3CRET\"]",
    ] {
        let run = sandbox.run(["check", "--set", wrong]).expect(1);
        assert!(!run.stderr.contains("S3CRET"), "{run}");
    }
}

// ---- Help

#[test]
fn every_command_has_help() {
    let sandbox = Sandbox::new();
    let all = sandbox.run(["--help"]).expect(0);
    assert!(all.stderr.is_empty(), "{all}");
    for command in COMMANDS {
        assert!(all.out().contains(command), "{all}");
        for run in [
            sandbox.run([command, "--help"]).expect(0),
            sandbox.run(["help", command]).expect(0),
            sandbox.run([command, "-h"]).expect(0),
        ] {
            assert!(run.out().contains("Usage"), "{run}");
            assert!(run.out().lines().all(|line| line.chars().count() <= 100));
        }
    }
    assert_eq!(sandbox.run(["help"]).expect(0).out(), all.out());
    sandbox
        .run(["help", "nothing"])
        .expect(2)
        .says(&["nothing"]);
    let version = sandbox.run(["--version"]).expect(0);
    assert!(version.out().contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_of_fetch_has_every_flag_of_the_contract() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(["fetch", "--help"]).expect(0);
    for flag in "-u --url -o --output -a --album -k --kind -n --count -j --concurrency --per-host --rate --limit-rate --list-format \
                 --shard --deadline --report --max-failures --refresh --allow-private --allow-net --ca-file --header \
                 --proxy --dry-run --progress --json --exit-unchanged -c --config --set -v -q --log-format"
        .split_whitespace()
    {
        assert!(help.out().contains(flag), "no {flag}: {help}");
    }
}

#[test]
fn wrong_usage_suggests_the_right_one() {
    let sandbox = Sandbox::new();
    for (args, right) in [
        (&["fetsh", "list.txt"][..], "fetch"),
        (&["fetch", "--outptu", "x"], "--output"),
        (&["fetch", "l", "--list-format", "jsnl"], "jsonl"),
        (&["fetch", "l", "--progress", "alway"], "always"),
        (&["fetch"], "SOURCE"),
        (&["chek"], "check"),
    ] {
        sandbox.run(args).expect(2).says(&[right]);
    }
}

#[test]
fn completions_and_the_manual_page_come_out() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = sandbox.run(["completions", shell]).expect(0);
        assert!(run.out().contains("gannet") && run.out().contains("max-failures"));
        assert!(run.stderr.is_empty(), "{run}");
    }
    let man = sandbox.run(["man"]).expect(0);
    assert!(
        man.out().starts_with(".ie") || man.out().contains(".TH"),
        "{man}"
    );
    assert!(man.out().contains("gannet"));
}

// ---- Outputs

#[test]
fn stdout_carries_results_only_and_logs_go_to_stderr() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1", "/missing"]));
    let run = sandbox
        .fetch(&["list.txt", "-vv", "--progress", "always"])
        .expect(3);
    assert_eq!(run.count("targets"), 2);
    assert_eq!(run.out().trim_end().lines().count(), 1, "{run}");
    assert!(run.stderr.contains("/missing"), "{run}");

    let quiet = sandbox
        .fetch(&["list.txt", "-qq", "--progress", "never"])
        .expect(3);
    assert_eq!(quiet.stderr, "", "{quiet}");
}

#[test]
fn a_json_log_is_json_line_by_line() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1", "/missing"]));
    let run = sandbox
        .fetch(&[
            "list.txt",
            "-v",
            "--log-format",
            "json",
            "--progress",
            "never",
        ])
        .expect(3);
    assert!(!run.stderr.is_empty());
    for line in run.stderr.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{line}");
    }
}

#[test]
fn log_files_are_written_where_a_setting_says() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1"]));
    sandbox
        .fetch(&["list.txt", "--set", "log.dir=logs"])
        .expect(0);
    let logs = support::sandbox::walk(&sandbox.path("logs"));
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert!(!std::fs::read(&logs[0]).unwrap().is_empty());
    sandbox.write("file", "");
    sandbox
        .fetch(&["list.txt", "--set", "log.dir=file"])
        .expect(1)
        .says(&["file"]);
    for dir in ["file/logs", "/proc"] {
        let set = format!("log.dir={dir}");
        let run = sandbox.fetch(&["list.txt", "--set", &set]).expect(1);
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
        assert_eq!(run.stderr.matches("os error").count(), 1, "{run}");
    }
}

#[test]
fn the_text_summary_says_where_files_and_failures_are() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1", "/2", "/missing"]));
    let run = sandbox
        .run([
            "fetch",
            "-o",
            "out",
            "--allow-private",
            "list.txt",
            "--progress",
            "never",
        ])
        .expect(3);
    for word in ["3", "2  stored", "1  failed", "404", "127.0.0.1", "out"] {
        assert!(run.out().contains(word), "no `{word}`: {run}");
    }
    assert!(!run.out().contains('\u{1b}'), "{run}");
}

/// Runs with a stdout that nobody reads any more.
fn with_closed_stdout(sandbox: &Sandbox, args: &[&str]) -> support::Run {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(args);
    command
        .stdout(writer)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let output = command.output().unwrap();
    support::Run {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_panic() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(numbers(0..3)));
    sandbox.fetch(&["list.txt"]).expect(0);
    for args in [
        &["jobs", "-o", "out"][..],
        &["jobs", "-o", "out", "last"],
        &["jobs", "-o", "out", "--json"],
        &["man"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["check"],
        &["--help"],
        &["fetch", "--help"],
        &["--version"],
        &["fetch", "list.txt", "-o", "out", "--dry-run"],
        &["fetch", "list.txt", "-o", "out", "--allow-private"],
        &[
            "fetch",
            "list.txt",
            "-o",
            "out",
            "--allow-private",
            "--json",
        ],
    ] {
        let run = with_closed_stdout(&sandbox, args);
        assert!(!run.stderr.contains("panicked"), "{args:?}: {run}");
        assert_eq!(run.code(), 0, "{args:?}: {run}");
    }
}

#[test]
fn results_that_cannot_be_written_are_no_success() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        eprintln!("skipped: there is no /dev/full");
        return;
    };
    sandbox.write("list.txt", site.list(numbers(0..3)));
    for args in [
        &[
            "fetch",
            "list.txt",
            "-o",
            "out",
            "--allow-private",
            "--json",
        ][..],
        &["jobs", "-o", "out"],
        &["check"],
        &["man"],
        &["completions", "bash"],
    ] {
        let mut command = sandbox.command(args);
        command
            .stdout(full.try_clone().unwrap())
            .stderr(Stdio::piped());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    }
}

// ---- What a run does

/// Every file of the sandbox with its bytes and time.
fn snapshot(sandbox: &Sandbox) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let all = sandbox.everything().into_iter().map(|path| {
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        (path, (bytes, time))
    });
    all.collect()
}

#[test]
fn a_dry_run_touches_nothing() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1", "/2"]) + "no url\n");
    let before = snapshot(&sandbox);
    let args = [
        "fetch",
        "-o",
        "out",
        "--allow-private",
        "list.txt",
        "--dry-run",
    ];
    let run = sandbox.run(args).expect(0);
    assert_eq!(run.out().matches(&site.url("/")).count(), 2, "{run}");
    assert!(run.out().contains("line 3"), "{run}");
    assert_eq!(snapshot(&sandbox), before);
    assert!(!sandbox.store().exists());

    sandbox.fetch(&["list.txt"]).expect(3);
    site.forget();
    let before = snapshot(&sandbox);
    let run = sandbox.run(args).expect(0);
    assert!(!run.out().contains("fetch  "), "known URLs: {run}");
    assert_eq!(snapshot(&sandbox), before);
    assert_eq!(site.total(), 0);
}

#[test]
fn a_dry_run_tells_reports_and_scripts_what_would_be_done() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.fetch_list(site.list(["/1", "/2"]), 0, &[]);
    let name = &sandbox.names()[0];
    let lost = sandbox.read(sandbox.store().join(name)) == png(1);
    std::fs::remove_file(sandbox.store().join(name)).unwrap();
    site.forget();
    let (lost, kept) = if lost { ("/1", "/2") } else { ("/2", "/1") };
    let list = site.list(["/1", "/2", "/3"]) + "no url\n";
    let fresh = ["--dry-run", "--set", "fetch.refresh_after=1h"];
    let report = sandbox.fetch_list(&list, 0, &fresh);
    assert_eq!(
        report.run.json()["would"],
        serde_json::json!({"fetch": 2, "ask": 0, "fresh": 1, "wait": 0})
    );
    let would = |path: &str| report.of(&site.url(path))["would"].clone();
    assert_eq!(would(lost), "fetch", "its file is gone");
    assert_eq!(would(kept), "fresh");
    assert_eq!(would("/3"), "fetch");
    assert_eq!(report.of(&site.url(kept))["outcome"], "unchanged");
    assert_eq!(report.of("no url")["reason"], "invalid-url");
    assert_eq!(report.count("targets"), 4);
    assert_eq!(report.whole["counts"], report.run.json()["counts"]);
    let report = sandbox.fetch_list(&list, 0, &["--dry-run"]);
    assert_eq!(report.of(&site.url(kept))["would"], "ask");
    assert_eq!(site.total(), 0);
}

#[test]
fn a_dry_run_finds_what_would_stop_the_run() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "http://a.example/\n");
    sandbox.fetch(&["absent.txt", "--dry-run"]).expect(1);
    sandbox
        .fetch(&["list.txt", "--dry-run", "--kind", "music"])
        .expect(2)
        .says(&["music", "image"]);
}

#[test]
fn shards_are_a_partition_by_host() {
    let sandbox = Sandbox::new();
    let site = Site::on("0.0.0.0:0", pictures);
    let mut list = String::new();
    for host in 1..30 {
        for n in 0..3 {
            let path = format!("/{}", host * 10 + n);
            list += &(site.url_as(&format!("127.0.0.{host}"), &path) + "\n");
        }
    }
    list += "no url\n";
    sandbox.write("list.txt", &list);
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut invalid = 0;
    for shard in 1..=3 {
        let args = ["list.txt", "--shard", &format!("{shard}/3")];
        let report = sandbox.fetch_report(if shard == 1 { 3 } else { 0 }, &args);
        assert_eq!(report.count("targets"), report.items().len() as u64);
        for item in report.items() {
            if item["reason"] == "invalid-url" {
                invalid += 1;
                continue;
            }
            assert_eq!(item["outcome"], "stored", "{item}");
            let url = item["url"].as_str().unwrap();
            assert!(
                owners.insert(url.to_owned(), shard).is_none(),
                "{url} twice"
            );
        }
    }
    assert_eq!(owners.len(), 29 * 3);
    assert_eq!(invalid, 1);
    for (url, owner) in &owners {
        let host = |url: &str| url.split('/').nth(2).unwrap().to_owned();
        let same = owners.iter().filter(|(other, _)| host(other) == host(url));
        assert!(same.clone().count() == 3 && same.clone().all(|(_, other)| other == owner));
    }
    assert_eq!(sandbox.files().len(), 29 * 3);
}

#[test]
fn count_ends_with_exactly_so_many_distinct_files() {
    let mut paths: Vec<String> = Vec::new();
    for n in 0..20 {
        paths.extend([
            format!("/{n}"),
            format!("/missing{n}"),
            format!("/same/{n}"),
            format!("/page{n}"),
        ]);
    }
    for count in [0, 1, 7, 21] {
        let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
        let args = ["--count", &count.to_string()];
        let report = sandbox.fetch_list(site.list(&paths), 0, &args);
        assert_eq!(report.count("stored"), count, "{}", report.whole);
        let files = sandbox.files();
        assert_eq!(files.len() as u64, count);
        let distinct: std::collections::BTreeSet<_> =
            files.values().map(|bytes| sha256(bytes)).collect();
        assert_eq!(distinct.len() as u64, count);
        assert_adds_up(&report.whole);
    }
}

fn assert_adds_up(report: &serde_json::Value) {
    let outcomes = [
        "stored",
        "changed",
        "unchanged",
        "duplicate",
        "rejected",
        "failed",
        "skipped",
    ];
    let sum: u64 = outcomes
        .iter()
        .map(|outcome| sandbox::count(report, outcome))
        .sum();
    assert_eq!(sum, sandbox::count(report, "targets"), "{report}");
}

#[test]
fn count_on_a_list_that_is_too_short_ends_with_3_and_says_so() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let list = site.list(["/1", "/2", "/same/1", "/same/2", "/missing"]);
    let report = sandbox.fetch_list(list, 3, &["--count", "7"]);
    assert_eq!(report.count("stored"), 3);
    assert_eq!(report.count("duplicate"), 1);
    let said = report.whole["error"].as_str().unwrap();
    assert!(said.contains('3') && said.contains('7'), "{said}");
}

#[test]
fn failures_count_against_a_count_only_where_they_are_told_to() {
    for (tolerated, code) in [("auto", 0), ("1", 0), ("0", 3)] {
        let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
        let list = site.list(["/missing", "/1", "/2", "/3"]);
        let args = ["--count", "2", "--max-failures", tolerated];
        let report = sandbox.fetch_list(list, code, &args);
        assert_eq!(report.count("stored"), 2);
        assert_eq!(report.count("failed"), 1);
    }
}

#[test]
fn count_that_the_deadline_leaves_open_ends_with_3_however_many_may_fail() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if asked.path != "/1" {
                gate.pass();
            }
            pictures(asked)
        }
    });
    let args = [
        "--count",
        "2",
        "--max-failures",
        "100%",
        "--deadline",
        "700ms",
    ];
    let report = sandbox.fetch_list(site.list(["/1", "/2"]), 3, &args);
    gate.open();
    assert_eq!(report.count("stored"), 1);
    let said = report.whole["error"].as_str().unwrap();
    assert!(
        said.contains("1 of the 2") && said.contains("deadline"),
        "{said}"
    );
}

#[test]
fn count_asks_for_little_more_than_it_needs() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.fetch_list(site.list(numbers(0..500)), 0, &["--count", "7"]);
    assert!(site.total() <= 7, "{} requests", site.total());
}

#[test]
fn a_deadline_ends_the_job_and_names_what_it_cost() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if asked.path != "/1" {
                gate.pass();
            }
            pictures(asked)
        }
    });
    let list = site.list(numbers(1..40));
    let report = sandbox.fetch_list(list, 3, &["--deadline", "700ms"]);
    gate.open();
    assert_eq!(report.count("stored"), 1);
    assert_eq!(report.count("targets"), 39);
    assert_eq!(report.whole["reasons"]["deadline"], 38, "{}", report.whole);
    assert_adds_up(&report.whole);
}

#[test]
fn a_deadline_that_cuts_the_list_short_is_no_success() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let first = site.list(["/1"]);
    let whole = first.clone() + &site.list(["/2"]);
    for (reply, stored) in [
        (origin::Reply::silent(), 0),
        (origin::Reply::ok(whole).hang_after(first.len()), 1),
    ] {
        let lists = origin::Origin::with("/list.txt", reply);
        let url = lists.url("/list.txt").to_string();
        let report = sandbox.fetch_report(3, &[&url, "--deadline", "700ms"]);
        assert_eq!(report.count("stored"), stored);
        assert_eq!(report.whole["state"], "incomplete");
        let said = report.whole["error"].as_str().unwrap();
        assert!(said.contains("deadline"), "{said}");
    }
}

#[test]
fn several_lists_and_urls_are_one_job() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("a.txt", site.list(["/1", "/2"]));
    sandbox.write("b.txt", site.list(["/2", "/3"]));
    let url = site.url("/4");
    let report = sandbox.fetch_report(0, &["a.txt", "b.txt", "-u", &url]);
    assert_eq!(report.count("stored"), 4);
}

#[test]
fn headers_are_sent() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let url = site.url("/1");
    sandbox
        .fetch(&[
            "-u",
            &url,
            "--header",
            "X-One: 1",
            "--header",
            "X-Two: a: b",
        ])
        .expect(0);
    let asked = site.asked();
    assert_eq!(asked[0].header("x-one"), Some("1"));
    assert_eq!(asked[0].header("x-two"), Some("a: b"));
}

#[test]
fn a_header_that_cannot_be_sent_is_wrong_usage() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    for header in ["a b: c", "Host: x", "X-A: a\nX-B: b", ": x"] {
        sandbox
            .fetch(&["list.txt", "--header", "X-Good: 1", "--header", header])
            .expect(2)
            .says(&["--header"]);
    }
    assert_eq!(sandbox.everything(), [sandbox.path("list.txt")]);
}

// ---- Stores that cannot be used

#[test]
fn a_root_that_cannot_be_a_folder_ends_with_1_and_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    sandbox.write("file", "mine");
    for root in ["file", "file/below", "/proc/gannet-test", "/dev/null/out"] {
        sandbox
            .run(["fetch", "list.txt", "-o", root])
            .expect(1)
            .says(&[root]);
    }
    assert_eq!(sandbox.read("file"), b"mine");
}

#[test]
fn an_album_that_is_a_file_does_not_harm_that_file() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("out/album", "mine");
    let report = sandbox.fetch_list(site.list(["/1"]), 3, &["--album", "album"]);
    let item = report.of(&site.url("/1"));
    assert_eq!(item["reason"], "store-error");
    assert!(item["detail"].as_str().unwrap().contains("album"), "{item}");
    assert_eq!(sandbox.read("out/album"), b"mine");
}

#[test]
fn a_root_without_permission_ends_with_1_and_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "");
    let root = sandbox.path("locked");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(root.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere");
        return;
    }
    sandbox
        .run(["fetch", "list.txt", "-o", "locked"])
        .expect(1)
        .says(&["locked"]);
}

#[test]
fn a_report_on_a_full_disk_is_no_silent_success() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(numbers(0..3)));
    if std::fs::metadata("/dev/full").is_err() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    std::os::unix::fs::symlink("/dev/full", sandbox.path("report.json")).unwrap();
    sandbox
        .fetch(&["list.txt", "--report", "report.json"])
        .expect(1)
        .says(&["report.json"]);
}

#[test]
fn reports_that_cannot_be_written_are_found_before_anything_is_fetched() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1"]));
    for (report, code) in [("report.pdf", 2), ("absent/report.json", 1), ("report", 2)] {
        sandbox
            .fetch(&["list.txt", "--report", report])
            .expect(code)
            .says(&[report]);
    }
    assert_eq!(site.total(), 0);
}

#[test]
fn a_report_that_is_a_source_is_wrong_usage_and_touches_nothing() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    let list = site.list(["/1"]);
    let path = sandbox.write("list.jsonl", format!("{:?}\n", list.trim()));
    std::fs::hard_link(&path, sandbox.path("hard.jsonl")).unwrap();
    std::os::unix::fs::symlink(&path, sandbox.path("soft.jsonl")).unwrap();
    let before = snapshot(&sandbox);
    let url = site.url("/2");
    for report in ["list.jsonl", "./list.jsonl", "hard.jsonl", "soft.jsonl"] {
        for more in [&[][..], &["--dry-run"]] {
            let args = [&["-u", &url, "--report", report], more].concat();
            sandbox
                .fetch(&[&["list.jsonl"], &args[..]].concat())
                .expect(2)
                .says(&["--report", report]);
        }
    }
    let shell = format!(
        "exec '{}' fetch - --report list.jsonl < list.jsonl",
        env!("CARGO_BIN_EXE_gannet")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &shell]).current_dir(sandbox.path(""));
    sandbox::start(command, None).end().expect(2);
    assert_eq!(snapshot(&sandbox), before);
    assert_eq!(site.total(), 0);
}

#[test]
fn a_report_may_lie_in_a_store_that_is_not_there_yet() {
    let (sandbox, site) = (Sandbox::new(), Site::start(pictures));
    sandbox.write("list.txt", site.list(["/1"]));
    let reports = ["--report", "out/r.json", "--report", "out/reports/r.html"];
    let dry = [&["list.txt", "--dry-run"], &reports[..]].concat();
    sandbox.fetch(&dry).expect(0);
    sandbox
        .fetch(&[&["list.txt"], &reports[..]].concat())
        .expect(0);
    assert_eq!(sandbox.json("out/r.json")["counts"]["stored"], 1);
    assert!(sandbox.path("out/reports/r.html").exists());
}

#[test]
fn the_demo_ends_as_expected_without_network() {
    let sandbox = Sandbox::new();
    let run = sandbox
        .run(["demo", "-o", "demo", "--progress", "never"])
        .expect(0);
    assert!(run.out().contains("as expected"), "{run}");
    assert!(!run.out().contains("NOT"), "{run}");
    assert!(sandbox.path("demo/report.html").exists());
    // Again in the same folder, whatever the settings of the place.
    sandbox.write(
        "gannet.toml",
        "[image]\ncheck = \"sniff\"\nformats = [\"png\"]\n[naming]\ntemplate = \"x/{name}\"\n\
         [catalog]\nurl = \"sqlite:other.db\"\n[job]\nalbum = \"mine\"\n",
    );
    let run = sandbox
        .run(["demo", "-o", "demo", "--progress", "never"])
        .expect(0);
    assert!(run.out().contains("15  unchanged"), "{run}");
    assert!(!run.out().contains("NOT"), "{run}");
    assert!(!sandbox.path("other.db").exists());
    // The port of the first run may be taken: the same pictures then have other URLs.
    let list = String::from_utf8(sandbox.read("demo/list.txt")).unwrap();
    let (_, rest) = list.split_once("http://").unwrap();
    let _taken = std::net::TcpListener::bind(rest.split_once('/').unwrap().0).unwrap();
    let run = sandbox
        .run(["demo", "-o", "demo", "--progress", "never"])
        .expect(0);
    assert!(run.out().contains("15  stored"), "{run}");
}
