//! `/metrics` of the real binary: its form, and that its figures are those of reports.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::http::{Got, ask};
use support::{Answer, Daemon, Sandbox, Site};

const TOKEN: &str = "reader-0123456789abcdef";

fn settings(sandbox: &Sandbox, api: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n[job]\nkind = \"any\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\n\
         [api]\nlisten = \"127.0.0.1:0\"\n{api}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\nalbum = \"a\"\n"
    );
    sandbox.write("gannet.toml", text);
}

/// Samples by name and labels, as they are written. Asserts what the text format (0.0.4) asks for.
fn parse(got: &Got) -> BTreeMap<String, f64> {
    let kind = got.header("content-type").unwrap();
    assert!(
        kind.starts_with("text/plain") && kind.contains("version=0.0.4"),
        "{kind}"
    );
    let text = std::str::from_utf8(&got.body).unwrap();
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut helped, mut family, mut form) = ("", "", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').unwrap().0;
            assert!(families.insert(helped), "{helped} is there twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, form) = rest.split_once(' ').unwrap();
            assert_eq!(family, helped);
            assert!(["counter", "gauge", "histogram"].contains(&form), "{line}");
            assert_eq!(form == "counter", family.ends_with("_total"), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let rest = bare
            .strip_prefix(family)
            .unwrap_or_else(|| panic!("{line} below {family}"));
        let fits = match form {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
            _ => rest.is_empty(),
        };
        assert!(fits, "{line}");
        assert!(
            bare.bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()),
            "{line}"
        );
        let value: f64 = value.parse().unwrap();
        assert!(
            samples.insert(name.to_owned(), value).is_none(),
            "{line} is there twice"
        );
    }
    samples
}

/// The sum of the samples of a name that have each of these labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of_name = samples
        .iter()
        .filter(|(key, _)| key.split('{').next() == Some(name));
    let fitting = of_name.filter(|(key, _)| labels.iter().all(|label| key.contains(label)));
    fitting.map(|(_, value)| value).sum()
}

#[test]
fn figures_are_those_of_reports_and_name_no_host() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/gone" => Answer::status(404),
        path => Answer::ok(path.to_owned()),
    });
    let urls: Vec<String> = ["/one", "/two", "/gone"].map(|path| site.url(path)).into();
    sandbox.write("a.txt", urls.join("\n"));
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    let before = parse(&daemon.get("/metrics").expect(200));
    assert_eq!(sum(&before, "gannet_targets_total", &[]), 0.0);
    assert_eq!(
        sum(
            &before,
            "gannet_schedule_last_success_timestamp_seconds",
            &[]
        ),
        0.0
    );
    let last = daemon.run("a");
    assert_eq!(last["state"], "incomplete");
    let got = daemon.get("/metrics").expect(200);
    let after = parse(&got);
    for outcome in [
        "stored",
        "changed",
        "unchanged",
        "duplicate",
        "rejected",
        "failed",
        "skipped",
    ] {
        let label = format!("outcome=\"{outcome}\"");
        let counted = sum(&after, "gannet_targets_total", &[&label]);
        assert_eq!(
            counted,
            last["counts"][outcome].as_f64().unwrap(),
            "{outcome}"
        );
    }
    let gone = &[
        "reason=\"status\"",
        "scheme=\"http\"",
        "network=\"private\"",
    ];
    assert_eq!(sum(&after, "gannet_targets_total", gone), 1.0);
    let job = &daemon.get("/api/v1/jobs").json()["items"][0];
    assert_eq!(
        sum(&after, "gannet_kept_bytes_total", &[]),
        job["bytes"].as_f64().unwrap()
    );
    assert_eq!(sum(&after, "gannet_attempts_total", &[]), 3.0);
    assert_eq!(
        sum(&after, "gannet_target_duration_seconds_count", &[]),
        3.0
    );
    assert_eq!(sum(&after, "gannet_first_byte_seconds_count", &[]), 3.0);
    assert!(sum(&after, "gannet_commit_duration_seconds_count", &[]) >= 1.0);
    assert_eq!(
        sum(&after, "gannet_jobs_total", &["state=\"incomplete\""]),
        1.0
    );
    assert_eq!(sum(&after, "gannet_jobs", &[]), 0.0);
    assert_eq!(sum(&after, "gannet_lanes", &[]), 1.0);
    assert_eq!(sum(&after, "gannet_queue_targets", &[]), 0.0);
    let of_a = |after: &_, name: &str| sum(after, name, &["schedule=\"a\""]);
    assert_eq!(of_a(&after, "gannet_schedule_last_failed"), 0.0);
    assert_eq!(of_a(&after, "gannet_schedule_last_over_max_failures"), 1.0);
    // It brought files.
    let at = of_a(&after, "gannet_schedule_last_success_timestamp_seconds");
    assert!(at > 0.0, "{at}");
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "gannet_build_info",
    ] {
        assert!(sum(&after, name, &[]) > 0.0, "{name}");
    }
    for (name, value) in &after {
        if let Some((bare, labels)) = name.split_once("_bucket{")
            && labels.contains("le=\"+Inf\"")
        {
            let labels = labels
                .replace(",le=\"+Inf\"", "")
                .replace("le=\"+Inf\"", "");
            let count = match labels.as_str() {
                "}" => format!("{bare}_count"),
                labels => format!("{bare}_count{{{labels}"),
            };
            assert_eq!(after[&count], *value, "{name}");
        }
    }
    let text = String::from_utf8(got.body).unwrap();
    assert!(
        !text.contains("127.0.0.1") && !text.contains("/gone"),
        "{text}"
    );
    // A success, and none of the figures is lost by it.
    sandbox.write("a.txt", site.url("/one"));
    let last = daemon.run("a");
    assert_eq!(last["state"], "completed");
    let after = parse(&daemon.get("/metrics").expect(200));
    let finished =
        chrono::DateTime::parse_from_rfc3339(last["finished"].as_str().unwrap()).unwrap();
    let success = sum(
        &after,
        "gannet_schedule_last_success_timestamp_seconds",
        &["schedule=\"a\""],
    );
    assert_eq!(success, finished.timestamp_millis() as f64 / 1e3);
    assert_eq!(of_a(&after, "gannet_schedule_last_failed"), 0.0);
    assert_eq!(of_a(&after, "gannet_schedule_last_over_max_failures"), 0.0);
    assert_eq!(sum(&after, "gannet_targets_total", &[]), 4.0);
}

#[test]
fn requests_go_by_their_route() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    for name in ["a", "b", "c"] {
        daemon.get(&format!("/api/v1/albums/{name}")).problem(404);
        daemon.get(&format!("/nothing/{name}")).problem(404);
    }
    ask(daemon.api(), "BREW", "/api/v1/albums", &[]).problem(405);
    let samples = parse(&daemon.get("/metrics").expect(200));
    let of = |route: &str, method: &str, status: &str| {
        let labels = [
            format!("route=\"{route}\""),
            format!("method=\"{method}\""),
            format!("status=\"{status}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        sum(&samples, "gannet_api_requests_total", &labels)
    };
    assert_eq!(of("/api/v1/albums/{album}", "GET", "4xx"), 3.0);
    assert_eq!(of("", "GET", "4xx"), 3.0);
    assert_eq!(of("/api/v1/albums", "other", "4xx"), 1.0);
    let route = "route=\"/api/v1/albums/{album}\"";
    assert_eq!(
        sum(
            &samples,
            "gannet_api_request_duration_seconds_count",
            &[route]
        ),
        3.0
    );
}

#[test]
fn figures_take_a_token_unless_they_are_open_or_off() {
    let sandbox = Sandbox::new();
    let tokens = format!("tokens.a = {{ token = \"{TOKEN}\", scopes = [\"read\"] }}");
    for (setting, without, with) in [("token", 401, 200), ("open", 200, 200), ("off", 404, 404)] {
        settings(&sandbox, &format!("metrics = \"{setting}\"\n{tokens}"));
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.get("/metrics").status, without, "{setting}");
        let bearer = format!("Bearer {TOKEN}");
        let got = ask(
            daemon.api(),
            "GET",
            "/metrics",
            &[("Authorization", &bearer)],
        );
        assert_eq!(got.status, with, "{setting}");
        let _ = daemon.stop();
    }
}
