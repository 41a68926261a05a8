//! Reports and the history: the contract's keys, figures that add up, well-formed whatever comes, and no
//! secret anywhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::pictures::png;
use support::{Answer, Asked, Sandbox, Site, sandbox, sha256};

const OUTCOMES: [&str; 7] = [
    "stored",
    "changed",
    "unchanged",
    "duplicate",
    "rejected",
    "failed",
    "skipped",
];

fn answers(asked: &Asked) -> Answer {
    match asked.path.as_str() {
        "/404" => Answer::status(404),
        "/page" => {
            Answer::ok("<!doctype html><title>no</title>").header("Content-Type", "image/png")
        }
        "/cut" => {
            let whole = png(9);
            Answer::ok(&whole[..whole.len() - 8])
        }
        "/moved" => Answer::status(302).header("Location", "/1"),
        "/flaky-off" => Answer::status(500),
        "/active" => Answer::ok(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><script>alert(1)</script></svg>",
        ),
        path => Answer::ok(png(path[1..].parse().unwrap_or(77))).header(
            "Content-Disposition",
            "attachment; filename=\"from-header.png\"",
        ),
    }
}

const REPORTS: [&str; 4] = ["r.json", "r.jsonl", "r.xml", "r.html"];

fn with_reports<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let mut all = args.to_vec();
    for report in REPORTS {
        all.extend(["--report", report]);
    }
    all
}

fn text(sandbox: &Sandbox, name: &str) -> String {
    String::from_utf8(sandbox.read(name)).unwrap()
}

fn mixed(sandbox: &Sandbox, site: &Site) -> support::Run {
    let list = format!(
        "{}no url\nftp://a.example/x\n{}\n  out=named.png\n",
        site.list(["/1", "/404", "/page", "/cut", "/moved", "/active"]),
        site.url("/2"),
    );
    sandbox.write("list.txt", list);
    sandbox
        .fetch(&with_reports(&["list.txt", "--album", "mix"]))
        .expect(3)
}

#[test]
fn the_json_report_has_the_keys_of_the_contract_and_adds_up() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    let run = mixed(&sandbox, &site);
    let report = sandbox.json("r.json");
    for key in [
        "version", "job", "source", "album", "state", "started", "finished", "counts", "bytes",
        "reasons", "items",
    ] {
        assert!(!report[key].is_null(), "no {key}: {report}");
    }
    assert_eq!(report["source"], "list.txt");
    assert_eq!(report["album"], "mix");
    assert_eq!(report["state"], "incomplete");
    for key in ["started", "finished"] {
        chrono::DateTime::parse_from_rfc3339(report[key].as_str().unwrap()).unwrap();
    }
    let items = report["items"].as_array().unwrap();
    let known: BTreeSet<&str> =
        "url outcome path format media_type bytes width height sha256 reason detail status \
         attempts elapsed_ms final_url name_from line active orientation undecoded group steps metadata"
            .split_whitespace()
            .collect();
    for item in items {
        for key in item.as_object().unwrap().keys() {
            assert!(
                known.contains(key.as_str()),
                "{key} is not in the contract: {item}"
            );
        }
    }
    // Every figure comes from the same counters.
    assert_eq!(sandbox::count(&report, "targets"), items.len() as u64);
    for outcome in OUTCOMES {
        let found = items
            .iter()
            .filter(|item| item["outcome"] == outcome)
            .count() as u64;
        assert_eq!(sandbox::count(&report, outcome), found, "{outcome}");
    }
    for (reason, count) in report["reasons"].as_object().unwrap() {
        let found = items
            .iter()
            .filter(|item| item["reason"] == **reason)
            .count();
        assert_eq!(count.as_u64(), Some(found as u64), "{reason}");
    }
    let with_reason = items
        .iter()
        .filter(|item| !item["reason"].is_null())
        .count() as u64;
    let reasons = report["reasons"].as_object().unwrap().values();
    assert_eq!(
        reasons.map(|count| count.as_u64().unwrap()).sum::<u64>(),
        with_reason
    );
    let bytes: u64 = items
        .iter()
        .filter(|item| item["outcome"] == "stored")
        .map(|item| item["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(report["bytes"], bytes);
    // The summary on stdout is the same report without its items.
    let mut summary = report.clone();
    summary.as_object_mut().unwrap().remove("items");
    assert_eq!(run.json(), summary);
}

#[test]
fn an_item_says_what_became_of_its_target() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    mixed(&sandbox, &site);
    let report = sandbox.json("r.json");
    let of = |line: u64| {
        let items = report["items"].as_array().unwrap();
        items
            .iter()
            .find(|item| item["line"] == line)
            .unwrap()
            .clone()
    };
    let stored = of(1);
    assert_eq!(stored["url"], site.url("/1"));
    assert_eq!(stored["outcome"], "stored");
    assert_eq!(stored["format"], "png");
    assert_eq!(stored["media_type"], "image/png");
    assert_eq!(
        (&stored["width"], &stored["height"]),
        (&3.into(), &3.into())
    );
    assert_eq!(stored["bytes"], png(1).len());
    assert_eq!(stored["sha256"], sha256(&png(1)));
    assert_eq!(stored["attempts"], 1);
    assert_eq!(stored["name_from"], "header");
    assert!(stored["elapsed_ms"].is_u64());
    assert!(
        stored["path"]
            .as_str()
            .unwrap()
            .starts_with("mix/from-header")
    );
    let path = sandbox.store().join(stored["path"].as_str().unwrap());
    assert_eq!(std::fs::read(path).unwrap(), png(1));

    assert_eq!(
        (&of(2)["reason"], &of(2)["status"]),
        (&"status".into(), &404.into())
    );
    assert_eq!(of(2)["outcome"], "failed");
    assert_eq!(
        (&of(3)["reason"], &of(3)["outcome"]),
        (&"wrong-kind".into(), &"rejected".into())
    );
    assert_eq!(
        (&of(4)["reason"], &of(4)["outcome"]),
        (&"corrupt".into(), &"rejected".into())
    );
    assert_eq!(of(5)["final_url"], site.url("/1"));
    assert_eq!(
        (&of(6)["format"], &of(6)["active"]),
        (&"svg".into(), &true.into())
    );
    assert_eq!(of(7)["reason"], "invalid-url");
    assert_eq!(of(8)["reason"], "unsupported-scheme");
    assert_eq!(
        (&of(9)["path"], &of(9)["name_from"]),
        (&"mix/named.png".into(), &"list".into())
    );
    for line in [2, 3, 4, 7, 8] {
        assert!(of(line)["detail"].is_string(), "{}", of(line));
        assert!(of(line)["path"].is_null(), "{}", of(line));
    }
}

#[test]
fn the_jsonl_report_is_the_items_and_then_the_summary() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    mixed(&sandbox, &site);
    let lines: Vec<Value> = text(&sandbox, "r.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut report = sandbox.json("r.json");
    let items = report.as_object_mut().unwrap().remove("items").unwrap();
    assert_eq!(lines[..lines.len() - 1], items.as_array().unwrap()[..]);
    assert_eq!(lines.last(), Some(&report));
}

#[test]
fn the_junit_report_has_a_case_for_each_target() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    mixed(&sandbox, &site);
    let xml = text(&sandbox, "r.xml");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let all = |name: &str| {
        document
            .descendants()
            .filter(|node| node.has_tag_name(name))
            .count()
    };
    assert_eq!(all("testcase"), 9);
    assert_eq!(all("failure") + all("error"), 5);
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite"))
        .unwrap();
    assert_eq!(suite.attribute("tests"), Some("9"));
    let number = |name: &str| {
        suite
            .attribute(name)
            .map_or(0, |n| n.parse::<usize>().unwrap())
    };
    assert_eq!(number("failures"), all("failure"));
    assert_eq!(number("errors"), all("error"));
}

#[test]
fn reports_of_an_empty_list_are_whole_and_the_junit_one_is_not_empty() {
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", "# nothing\n");
    sandbox.fetch(&with_reports(&["list.txt"])).expect(0);
    assert_eq!(sandbox.json("r.json")["items"], serde_json::json!([]));
    assert_eq!(text(&sandbox, "r.jsonl").lines().count(), 1);
    let xml = text(&sandbox, "r.xml");
    let document = roxmltree::Document::parse(&xml).unwrap();
    // Build servers take a report without cases for a broken one.
    assert!(
        document
            .descendants()
            .any(|node| node.has_tag_name("testcase")),
        "{xml}"
    );
    assert!(text(&sandbox, "r.html").contains("</html>"));
}

#[test]
fn a_job_that_could_not_read_its_list_says_so_in_every_report() {
    let sandbox = Sandbox::new();
    sandbox.fetch(&with_reports(&["absent.txt"])).expect(1);
    let report = sandbox.json("r.json");
    assert_eq!(report["state"], "failed");
    assert!(
        report["error"].as_str().unwrap().contains("absent.txt"),
        "{report}"
    );
    for name in &REPORTS[1..] {
        assert!(text(&sandbox, name).contains("absent.txt"), "{name}");
    }
    let xml = text(&sandbox, "r.xml");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let is_bad =
        |node: roxmltree::Node<'_, '_>| node.has_tag_name("error") || node.has_tag_name("failure");
    assert!(document.descendants().any(is_bad), "{xml}");
}

const HOSTILE: &str =
    "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;]]>\u{1b}[31m\u{0}\u{202e}";

#[test]
fn hostile_text_breaks_no_report() {
    let sandbox = Sandbox::new();
    let site = Site::start(|asked: &Asked| match asked.path.as_str() {
        "/ok" => Answer::ok(png(1)).header(
            "Content-Disposition",
            "attachment; filename=\"<script>alert(1)<&>'.png\"",
        ),
        _ => Answer::status(404),
    });
    let mut list = String::new();
    for row in [
        serde_json::json!({ "url": site.url("/ok") }),
        serde_json::json!({ "url": site.url("/ok?named"), "name": HOSTILE, "group": "<i>&\"'" }),
        serde_json::json!({ "url": site.url(&format!("/x?{HOSTILE}")), HOSTILE: HOSTILE }),
        serde_json::json!({ "url": HOSTILE }),
        serde_json::json!({ "url": format!("javascript:alert(1)//{HOSTILE}") }),
        serde_json::json!({ "url": format!("http://{HOSTILE}/") }),
        serde_json::json!({ "url": "http://<script>.example/" }),
    ] {
        list += &format!("{row}\n");
    }
    sandbox.write("<i>&list.jsonl", list);
    let run = sandbox.fetch(&with_reports(&["<i>&list.jsonl"])).expect(3);
    assert_eq!(run.count("targets"), 7);
    let html = text(&sandbox, "r.html");
    for hostile in [
        "<script>alert",
        "<img src=x",
        "<i>",
        "href=\"javascript",
        "href='javascript",
        "\u{1b}",
        "\u{0}",
    ] {
        assert!(!html.contains(hostile), "the page holds {hostile:?}");
    }
    // Not one tag in it but its own, and none that runs something.
    assert_eq!(html.matches("<script").count(), 0);
    assert!(!html.contains("onerror=") || !html.contains("<img src=x"));
    let xml = text(&sandbox, "r.xml");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    assert_eq!(cases.count(), 7);
    assert_eq!(sandbox.json("r.json")["items"].as_array().unwrap().len(), 7);
    assert_eq!(text(&sandbox, "r.jsonl").lines().count(), 8);
    // Nor does it reach a terminal as it is.
    let run = sandbox.run([
        "fetch",
        "-o",
        "out",
        "--allow-private",
        "<i>&list.jsonl",
        "-vv",
    ]);
    for (what, out) in [("stdout", run.out()), ("stderr", &run.stderr)] {
        assert!(!out.contains("\u{1b}[31m"), "{what}: {run}");
        assert!(!out.contains('\u{202e}'), "{what}: {run}");
    }
}

#[test]
fn pictures_of_the_contact_sheet_are_where_it_says() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    let list = format!(
        "{}\n  out=a b#c%d?.png\n  dir=caf\u{e9}/x\n",
        site.url("/1")
    );
    sandbox.write("list.txt", list);
    std::fs::create_dir(sandbox.path("reports")).unwrap();
    sandbox
        .fetch(&["list.txt", "--report", "reports/sheet.html"])
        .expect(0);
    let html = text(&sandbox, "reports/sheet.html");
    let names = sandbox.names();
    let wanted: String = names[0]
        .split('/')
        .map(|part| {
            percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        })
        .collect::<Vec<_>>()
        .join("/");
    let simple = |text: &str| {
        text.replace("%2E", ".")
            .replace("%5F", "_")
            .replace("%2D", "-")
            .to_lowercase()
    };
    assert!(
        simple(&html).contains(&format!("../out/{}", simple(&wanted))),
        "{wanted}: {html}"
    );
}

/// Everything that a run wrote or said, by name.
fn traces(sandbox: &Sandbox, runs: &[support::Run]) -> Vec<(String, Vec<u8>)> {
    let mut traces: Vec<(String, Vec<u8>)> = sandbox
        .everything()
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    for run in runs {
        traces.push(("stdout".to_owned(), run.stdout.clone()));
        traces.push(("stderr".to_owned(), run.stderr.clone().into_bytes()));
    }
    traces
}

#[test]
fn credentials_are_nowhere_in_the_clear() {
    const SECRETS: [&str; 4] = ["S3CRET", "T0KEN", "HE4DER", "PR0XY"];
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    let at = |user: &str, path: &str| format!("http://{user}@{}{path}", site.address);
    let list = [
        at("ann:S3CRET", "/1"),
        at("T0KEN", "/2"),
        at("ann:S3CRET", "/404"),
        at("ann:S3CRET", "/page"),
        at("ann:S3CRET", "/moved"),
        at("ann:S3CRET", "/flaky-off"),
        "http://ann:S3CRET@[::1".to_owned(),
        "http://ann:S3CRET@a.example:99999/".to_owned(),
        "ftp://ann:S3CRET@a.example/x".to_owned(),
        "http://ann:S3CRET@127.0.0.1:1/closed".to_owned(),
        "http://ann:S3CRET@no-such-host.invalid/".to_owned(),
        "http://ann:S3CRET@exa mple/".to_owned(),
        "//ann:S3CRET@a.example/relative".to_owned(),
        "ann:S3CRET@a.example/bare".to_owned(),
    ]
    .join("\n");
    // The list itself is the user's own; it comes by a pipe so that no file of the sandbox holds it.
    let first: Vec<&str> = with_reports(&["-", "-vv", "--header", "Authorization: HE4DER"]);
    let mut first = sandbox.fetch_args(&first);
    first.extend([
        "--set",
        "log.dir=logs",
        "--set",
        "log.level=trace",
        "--set",
        "fetch.retries=1",
    ]);
    let mut runs = vec![sandbox.run_fed(list.clone(), &first).expect(3)];
    assert_eq!(runs[0].count("targets"), 14, "{}", runs[0]);
    assert_eq!(runs[0].count("stored"), 3, "{}", runs[0]);
    // They were sent, of course.
    assert!(site.asked().iter().any(|asked| {
        asked
            .header("authorization")
            .is_some_and(|value| value.starts_with("Basic"))
    }));

    // As sources, as URLs, in proxies, and in what is wrong with them.
    let source = at("ann:S3CRET", "/404");
    let page = at("ann:S3CRET", "/page");
    for args in [
        &[source.as_str()][..],
        &[page.as_str()],
        &["http://ann:S3CRET@[::1"],
        &["ftp://ann:S3CRET@a.example/x"],
        &["-u", &source, "-vv"],
        &["-u", &source, "--proxy", "http://ann:PR0XY@127.0.0.1:1"],
        &["-u", &source, "--proxy", "gopher://ann:PR0XY@127.0.0.1:1"],
        &["-u", &source, "--dry-run"],
        &["-u", "http://ann:S3CRET@[::1", "--dry-run"],
    ] {
        runs.push(sandbox.fetch(&[args, &["--set", "fetch.retries=0"]].concat()));
    }
    for args in [&["jobs", "-o", "out"][..], &["jobs", "-o", "out", "--json"]] {
        runs.push(sandbox.run(args).expect(0));
    }
    let jobs: Value = runs.last().unwrap().json();
    for job in jobs.as_array().unwrap() {
        let id = job["id"].as_str().unwrap();
        for extra in [&[][..], &["--json"], &["--failed"]] {
            let args = [&["jobs", "-o", "out", id][..], extra].concat();
            runs.push(sandbox.run(args).expect(0));
        }
    }
    for (name, bytes) in traces(&sandbox, &runs) {
        for secret in SECRETS {
            let found = bytes
                .windows(secret.len())
                .position(|window| window == secret.as_bytes());
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(120)..(at + 40).min(bytes.len())];
                panic!(
                    "{name} holds {secret}: …{}…",
                    String::from_utf8_lossy(around)
                );
            }
        }
        // Nor encoded, as `Authorization: Basic` has them.
        let encoded = b"YW5uOlMzQ1JFV";
        assert!(
            !bytes.windows(encoded.len()).any(|window| window == encoded),
            "{name}"
        );
    }
}

// ---- History

#[test]
fn jobs_lists_what_was_run() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    sandbox.run(["jobs", "-o", "out"]).expect(1).says(&["out"]);
    sandbox.fetch_list(site.list(["/1", "/2"]), 0, &[]);
    sandbox.fetch_list(site.list(["/1", "/404"]), 3, &[]);
    let listed = sandbox.run(["jobs", "-o", "out"]).expect(0);
    assert_eq!(listed.out().matches("list.txt").count(), 2, "{listed}");
    assert!(listed.out().contains("completed") && listed.out().contains("incomplete"));
    let jobs = sandbox
        .run(["jobs", "-o", "out", "--json"])
        .expect(0)
        .json();
    assert_eq!(jobs[0]["counts"]["unchanged"], 1, "the newest is first");
    assert_eq!(jobs[0]["counts"]["failed"], 1);
    assert_eq!(jobs[1]["counts"]["stored"], 2);
    assert!(jobs[0]["album"].is_null(), "as in a report: {}", jobs[0]);
    let shown = sandbox.run(["jobs", "-o", "out", "last"]).expect(0);
    assert!(shown.out().contains("1 unchanged target is"), "{shown}");
    let only = sandbox
        .run(["jobs", "-o", "out", "--json", "--limit", "1"])
        .expect(0)
        .json();
    assert_eq!(only.as_array().unwrap().len(), 1);
    assert_eq!(only[0], jobs[0]);
}

/// An origin under all addresses of this machine that has `/1` only.
fn mostly_dead() -> Site {
    Site::on("0.0.0.0:0", |asked| match asked.path.as_str() {
        "/1" => Answer::ok(png(1)),
        _ => Answer::status(404),
    })
}

#[test]
fn jobs_shows_status_and_detail_and_groups_by_host_and_reason() {
    let (sandbox, site) = (Sandbox::new(), mostly_dead());
    let urls = [
        site.url_as("127.0.0.1", "/404"),
        site.url_as("127.0.0.1", "/404?2"),
        site.url_as("127.0.0.2", "/404"),
        site.url("/1"),
    ];
    sandbox.fetch_list(urls.join("\n"), 3, &[]);
    let run = sandbox.run(["jobs", "-o", "out", "last"]).expect(0);
    let said = run.out();
    assert!(said.contains("\n4 targets (1 stored, 3 failed), "), "{run}");
    let row = format!(
        "failed     status 404                {} (line 1)\n",
        urls[0]
    );
    assert!(said.contains(&row), "{run}");
    assert!(
        said.contains(&format!("           `{}` answered 404", urls[0])),
        "{run}"
    );
    let (_, groups) = said.split_once("\n3 not fetched:\n").unwrap();
    let groups: Vec<_> = groups.lines().filter(|line| line.contains(" × ")).collect();
    assert_eq!(
        groups,
        [
            "  2 × status 404 at 127.0.0.1",
            "  1 × status 404 at 127.0.0.2"
        ]
    );
}

#[test]
fn the_first_failures_are_logged_with_job_and_url_and_escaped_once() {
    let (sandbox, site) = (Sandbox::new(), mostly_dead());
    let mut list: Vec<_> = (0..15).map(|n| site.url(&format!("/404?{n}"))).collect();
    list.insert(0, r#"no "url" \ here"#.to_owned());
    sandbox.write("list.txt", list.join("\n"));
    let run = sandbox
        .fetch(&["list.txt", "--log-format", "json"])
        .expect(3);
    let lines = run.stderr.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let job = run.json()["job"].as_str().unwrap().to_owned();
    let message = |line: &Value| {
        line.pointer("/fields/message")
            .or(line.get("message"))
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let warnings: Vec<String> = lines
        .iter()
        .filter(|line| line["level"] == "WARN")
        .map(message)
        .collect();
    assert_eq!(warnings.len(), 11, "{run}");
    let (last, first) = warnings.split_last().unwrap();
    for warning in first {
        assert!(
            warning.starts_with(&format!("job {job}: failed `")),
            "{warning}"
        );
    }
    assert!(
        first
            .iter()
            .any(|warning| warning.contains(r#"failed `no "url" \ here`: invalid-url: "#)),
        "{warnings:?}"
    );
    assert!(last.contains("further failures are not logged"), "{last}");
    let end = lines
        .iter()
        .map(message)
        .find(|text| text.contains(": 16 targets (16 failed)"));
    assert!(end.is_some(), "{run}");
}

#[test]
fn looking_at_the_history_neither_makes_nor_migrates_a_catalog() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    sandbox.write("other.db", "");
    sandbox
        .run(["jobs", "--set", "catalog.url=sqlite:other.db"])
        .expect(1);
    assert_eq!(sandbox.read("other.db"), b"");
    sandbox.fetch_list(site.list(["/1", "/404"]), 3, &[]);
    let before = sandbox.read("out/.gannet/catalog.db");
    sandbox.run(["jobs", "-o", "out", "last"]).expect(0);
    assert_eq!(sandbox.read("out/.gannet/catalog.db"), before);
}

#[test]
fn one_job_is_found_by_its_id_its_beginning_and_as_the_last() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    mixed(&sandbox, &site);
    let id = sandbox.json("r.json")["job"].as_str().unwrap().to_owned();
    let upper = id.to_uppercase();
    let mut shown = BTreeSet::new();
    for name in [id.as_str(), &id[..13], "last", &upper] {
        let run = sandbox.run(["jobs", "-o", "out", name]).expect(0);
        for word in [id.as_str(), "404", "from-header", "no url"] {
            assert!(run.out().contains(word), "no `{word}`: {run}");
        }
        shown.insert(run.stdout);
    }
    assert_eq!(shown.len(), 1);
    sandbox
        .run(["jobs", "-o", "out", "ffffffff"])
        .expect(1)
        .says(&["ffffffff"]);
    let rows = sandbox
        .run(["jobs", "-o", "out", "last", "--json"])
        .expect(0);
    let mut rows: Vec<Value> = rows
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let report = sandbox.json("r.json");
    let job = rows.pop().unwrap();
    assert_eq!(
        (&job["id"], &job["counts"]),
        (&report["job"], &report["counts"])
    );
    assert_eq!(rows.len(), 9);
    for item in report["items"].as_array().unwrap() {
        let row = rows.iter().find(|row| row["line"] == item["line"]).unwrap();
        for key in ["url", "outcome", "reason", "path", "status"] {
            assert_eq!(row[key], item[key], "{key}: {row} {item}");
        }
    }
}

#[test]
fn a_limit_of_0_lists_all_jobs_and_unchanged_targets_stand_in_the_counts() {
    let (sandbox, site) = (Sandbox::new(), Site::start(answers));
    sandbox.fetch_list(site.list(["/1"]), 0, &[]);
    sandbox.fetch_list(site.list(["/1"]), 0, &[]);
    let all = sandbox.run(["jobs", "-o", "out", "--json", "--limit", "0"]);
    assert_eq!(all.json().as_array().unwrap().len(), 2);
    let last = sandbox.run(["jobs", "-o", "out", "last", "--json"]);
    assert_eq!(last.json()["counts"]["unchanged"], 1);
}

#[test]
fn failed_targets_can_be_fetched_again_by_a_pipe() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mended = std::sync::Arc::new(AtomicBool::new(false));
    let site = Site::start({
        let mended = mended.clone();
        move |asked| match asked.path.as_str() {
            "/3" | "/4" if !mended.load(Ordering::SeqCst) => Answer::status(403),
            _ => answers(asked),
        }
    });
    let sandbox = Sandbox::new();
    sandbox.fetch_list(site.list(["/1", "/2", "/3", "/4"]), 3, &[]);
    let failed = sandbox
        .run(["jobs", "-o", "out", "last", "--failed"])
        .expect(0);
    assert_eq!(failed.out(), site.list(["/3", "/4"]));
    mended.store(true, Ordering::SeqCst);
    let again = sandbox
        .run_fed(failed.stdout, &sandbox.fetch_args(&["-"]))
        .expect(0);
    assert_eq!(again.count("stored"), 2);
    let failed = sandbox
        .run(["jobs", "-o", "out", "last", "--failed"])
        .expect(0);
    assert_eq!(failed.out(), "");
}

#[test]
fn failed_targets_keep_what_the_list_wants_of_them_as_json_lines() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mended = std::sync::Arc::new(AtomicBool::new(false));
    let site = Site::start({
        let mended = mended.clone();
        move |asked| match mended.load(Ordering::SeqCst) {
            false => Answer::status(403),
            true => answers(asked),
        }
    });
    let sandbox = Sandbox::new();
    let digest = sha256(&png(3));
    let list = format!(
        "url,name,album,sha256,group\n{},sea.png,birds/sea,{digest},g\n{},,,{digest},\n",
        site.url("/3"),
        site.url("/4"),
    );
    sandbox.write("list.csv", list);
    sandbox.fetch(&["list.csv"]).expect(3);
    let failed = sandbox
        .run(["jobs", "-o", "out", "last", "--failed", "--json"])
        .expect(0);
    mended.store(true, Ordering::SeqCst);
    let again = sandbox
        .run_fed(failed.stdout, &sandbox.fetch_args(&["-"]))
        .expect(3);
    // The other one is not what the list promises.
    assert_eq!(again.json()["reasons"], serde_json::json!({"checksum": 1}));
    assert_eq!(sandbox.names(), ["birds/sea/sea.png"]);
}

#[test]
fn the_history_can_be_read_while_a_job_runs() {
    let (sandbox, gate) = (Sandbox::new(), support::site::Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            answers(asked)
        }
    });
    sandbox.write("list.txt", site.list(["/1"]));
    let run = sandbox.start(sandbox.fetch_args(&["list.txt"]));
    site.wait_for(1);
    let jobs = sandbox
        .run(["jobs", "-o", "out", "--json"])
        .expect(0)
        .json();
    assert_eq!(jobs[0]["state"], "ongoing");
    gate.open();
    run.end().expect(0);
}
