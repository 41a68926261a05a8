//! Jobs that clients post to `gannet daemon`, the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::checker::{When, violations};
use support::daemon::until;
use support::http::{Got, ask, connect, send};
use support::pictures;
use support::postgres::Postgres;
use support::receivers::{Came, nobody};
use support::site::Gate;
use support::{Answer, Daemon, Hook, Sandbox, Says, Site};

/// Settings for a daemon with an API that may reach this machine.
fn settings(sandbox: &Sandbox, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n\
         [fetch]\nproxy = \"direct\"\nretries = 0\nper_host = 64\n\
         [api]\nlisten = \"127.0.0.1:0\"\nprivate_networks = true\n{rest}\n"
    );
    sandbox.write("gannet.toml", text);
}

/// Different pictures: `/N.png` has some pixels a side, more for greater N up to 63.
fn picture(path: &str) -> Answer {
    let number = path.trim_matches(|c: char| !c.is_ascii_digit()).parse();
    match number {
        Ok(number) => Answer::ok(pictures::png_of(number, number % 64 + 8)),
        Err(_) => Answer::status(404),
    }
}

fn gallery() -> Site {
    Site::start(|asked| picture(&asked.path))
}

/// One that answers once its gate is open.
fn gated_gallery() -> (Arc<Gate>, Site) {
    let gate = Gate::new();
    let site = {
        let gate = gate.clone();
        Site::start(move |asked| {
            gate.pass();
            picture(&asked.path)
        })
    };
    (gate, site)
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[track_caller]
fn post(daemon: &Daemon<'_>, job: &Value) -> Got {
    post_as(daemon, job, &[])
}

#[track_caller]
fn post_as(daemon: &Daemon<'_>, job: &Value, headers: &[(&str, &str)]) -> Got {
    let headers = [&[JSON], headers].concat();
    let body = job.to_string();
    let to = daemon.api();
    send(to, "POST", "/api/v1/jobs", &headers, Some(body.as_bytes()))
}

/// Posts a job that is taken, and returns its address.
#[track_caller]
fn queue(daemon: &Daemon<'_>, job: &Value) -> String {
    let got = post(daemon, job).expect(202);
    let location = got.header("location").unwrap().to_owned();
    assert_eq!(got.json()["href"], location.as_str());
    location
}

#[track_caller]
fn ended(daemon: &Daemon<'_>, job: &str) -> Value {
    until(&format!("{job} ends"), || {
        let job = daemon.get(job).expect(200).json();
        match job["finished"].is_string() {
            true => Ok(job),
            false => Err(job.to_string()),
        }
    })
}

/// Posts a job and waits for its end.
#[track_caller]
fn run(daemon: &Daemon<'_>, job: &Value) -> Value {
    ended(daemon, &queue(daemon, job))
}

/// All items of a job, each once.
#[track_caller]
fn items(daemon: &Daemon<'_>, job: &str) -> Vec<Value> {
    let accept = [("Accept", "application/x-ndjson")];
    let got = ask(daemon.api(), "GET", &format!("{job}/items"), &accept).expect(200);
    let lines = got.body.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let items: Vec<Value> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let seqs: BTreeSet<u64> = items
        .iter()
        .map(|item| item["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs.len(), items.len(), "a target has two outcomes");
    items
}

fn href(job: &Value) -> String {
    format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())
}

/// The sum of all outcomes.
fn done(job: &Value) -> u64 {
    let counts = job["counts"].as_object().unwrap();
    let outcomes = counts.iter().filter(|(name, _)| *name != "targets");
    outcomes.map(|(_, count)| count.as_u64().unwrap()).sum()
}

/// The store and the catalog agree, and nothing is left over.
#[track_caller]
fn assert_in_order(sandbox: &Sandbox) {
    let violations = violations(sandbox, When::Restarted);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

mod groups {
    use super::*;

    #[test]
    fn run_beside_each_other_and_those_that_stop_in_order() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let site = gallery();
        let daemon = Daemon::start(&sandbox);
        let job = run(
            &daemon,
            &json!({
                "album": "audit",
                "groups": [
                    {"id": "shop-1", "on_error": "stop", "metadata": {"visited": "2026-11-20"},
                     "urls": [site.url("/1.png"), site.url("/none"), site.url("/2.png"), "no url"]},
                    {"id": "shop-2", "on_error": "stop",
                     "urls": [site.url("/3.png"), {"url": site.url("/4.png"), "name": "front.png", "metadata": {"shelf": 7}}]},
                    {"id": "shop-3", "on_error": "continue",
                     "urls": [site.url("/none/x"), site.url("/5.png"), site.url("/1.png")]},
                ],
            }),
        );
        assert_eq!(
            (&job["state"], &job["total"]),
            (&json!("incomplete"), &json!(9))
        );
        assert_eq!((done(&job), &job["counts"]["targets"]), (9, &json!(9)));
        assert_eq!(job["reasons"], json!({"group-stopped": 2, "status": 2}));
        let counts = json!({"total": 3, "queued": 0, "ongoing": 0, "completed": 1, "failed": 2, "cancelled": 0});
        assert_eq!(job["groups"], counts);
        let failed = job["failed_groups"].as_array().unwrap();
        assert_eq!(failed.len(), 2, "{job}");
        assert_eq!(failed[0]["id"], "shop-1");
        assert_eq!(failed[0]["metadata"], json!({"visited": "2026-11-20"}));
        assert_eq!(failed[0]["error"]["url"], site.url("/none"));
        assert_eq!(failed[0]["error"]["reason"], "status");
        let asked: Vec<String> = site.asked().into_iter().map(|asked| asked.path).collect();
        assert!(!asked.contains(&"/2.png".to_owned()), "{asked:?}");
        let items = items(&daemon, &href(&job));
        assert_eq!(items.len(), 9);
        let of = |url: &str, group: &str| {
            let mut found = items
                .iter()
                .filter(|item| item["url"] == url && item["group"] == group);
            found
                .next()
                .cloned()
                .unwrap_or_else(|| panic!("{url}: {items:?}"))
        };
        let front = of(&site.url("/4.png"), "shop-2");
        assert_eq!(front["path"], "audit/front.png");
        assert_eq!(
            front["steps"]["measure"],
            json!({"width": 12, "height": 12, "perimeter": 48})
        );
        // Another group has the same URL: it is there, and asked for once.
        let shared = [
            of(&site.url("/1.png"), "shop-1"),
            of(&site.url("/1.png"), "shop-3"),
        ];
        let mut outcomes = shared
            .each_ref()
            .map(|item| item["outcome"].as_str().unwrap());
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["stored", "unchanged"]);
        assert_eq!(shared[0]["path"], shared[1]["path"]);
        assert_eq!(asked.iter().filter(|path| *path == "/1.png").count(), 1);
        assert_eq!(of("no url", "shop-1")["reason"], "group-stopped");
        let page = daemon.get(&format!("{}/groups?state=completed", href(&job)));
        let page = page.expect(200).json();
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        assert_eq!(page["items"][0]["id"], "shop-2");
        let image = daemon.get("/api/v1/albums/audit/images/front.png").json();
        assert_eq!(image["metadata"], json!({"shelf": 7}));
        daemon.stop();
    }

    #[test]
    fn a_group_in_order_asks_for_one_after_the_other() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let (gate, site) = gated_gallery();
        let daemon = Daemon::start(&sandbox);
        let group = |id: &str, first: u32| {
            let urls: Vec<String> = (first..first + 3)
                .map(|n| site.url(&format!("/{n}.png")))
                .collect();
            json!({"id": id, "on_error": "stop", "urls": urls})
        };
        let groups: Vec<Value> = (0..5).map(|n| group(&n.to_string(), n * 10)).collect();
        let job = queue(&daemon, &json!({ "groups": groups }));
        // The first of each group, and nothing else, however long it takes.
        site.wait_for(5);
        let asked: BTreeSet<String> = site.asked().into_iter().map(|asked| asked.path).collect();
        let first = (0..5).map(|n| format!("/{}.png", n * 10)).collect();
        assert_eq!(asked, first);
        gate.open();
        let job = ended(&daemon, &job);
        assert_eq!(job["state"], "completed", "{job}");
        let order: Vec<u32> = site
            .asked()
            .iter()
            .map(|asked| {
                asked
                    .path
                    .trim_matches(|c: char| !c.is_ascii_digit())
                    .parse()
                    .unwrap()
            })
            .collect();
        for group in 0..5 {
            let of_group = order.iter().filter(|n| **n / 10 == group);
            let of_group: Vec<u32> = of_group.copied().collect();
            assert!(of_group.is_sorted() && of_group.len() == 3, "{order:?}");
        }
        daemon.stop();
    }
}

mod posting {
    use super::*;

    #[test]
    fn is_answered_at_once_and_once_for_a_key() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let (gate, site) = gated_gallery();
        let daemon = Daemon::start(&sandbox);
        let wanted = json!({"urls": [site.url("/1.png")], "downloader": "image"});
        let key = ("Idempotency-Key", "first");
        let first = post_as(&daemon, &wanted, &[key]).expect(202).json();
        let again = post_as(&daemon, &wanted, &[key]).expect(202).json();
        assert_eq!(first["id"], again["id"]);
        let other = json!({"urls": [site.url("/2.png")]});
        let detail = post_as(&daemon, &other, &[key]).problem(422);
        assert!(detail.contains("Idempotency-Key"), "{detail}");
        let second = post(&daemon, &wanted).expect(202).json();
        assert_ne!(first["id"], second["id"]);
        gate.open();
        let job = ended(&daemon, first["href"].as_str().unwrap());
        assert_eq!(job["state"], "completed");
        ended(&daemon, second["href"].as_str().unwrap());
        // Also when it is over.
        let again = post_as(&daemon, &wanted, &[key]).expect(202).json();
        assert_eq!(
            (&again["id"], &again["state"]),
            (&first["id"], &json!("completed"))
        );
        let jobs = daemon.get("/api/v1/jobs").json();
        assert_eq!(jobs["items"].as_array().unwrap().len(), 2);
        daemon.stop();
    }

    #[test]
    fn says_which_field_is_wrong() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "max_body = \"10kB\"");
        let daemon = Daemon::start(&sandbox);
        let url = "http://127.0.0.1:9/a.png";
        for (job, words) in [
            (json!({}), &["`groups`", "`urls`", "`source`"][..]),
            (
                json!({"urls": [url], "source": "http://127.0.0.1/l"}),
                &["only one of"],
            ),
            (json!({"urls": [url], "speed": 3}), &["speed"]),
            (json!({"urls": [7]}), &["urls[0]"]),
            (
                json!({"urls": [{"url": url, "nam": "x"}]}),
                &["urls[0]", "nam"],
            ),
            (
                json!({"urls": [{"url": url, "album": "../x"}]}),
                &["urls[0]"],
            ),
            (
                json!({"urls": [url], "kind": "video"}),
                &["`kind`", "video"],
            ),
            (json!({"urls": [url], "album": "a/../b"}), &["`album`"]),
            (
                json!({"urls": [url], "steps": ["blur"]}),
                &["`steps[0]`", "blur"],
            ),
            (
                json!({"urls": [url], "steps": ["measure", {"step": "delay", "ms": "x"}]}),
                &["`steps[1]"],
            ),
            (
                json!({"urls": [url], "limits": {"deadline": "soon"}}),
                &["limits.deadline"],
            ),
            (
                json!({"urls": [url], "limits": {"rate": 0}}),
                &["limits.rate"],
            ),
            (
                json!({"groups": [{"id": "", "urls": [url]}]}),
                &["`groups[0].id`"],
            ),
            (
                json!({"groups": [{"id": "a", "urls": [url]}, {"id": "a", "urls": [url]}]}),
                &["`groups[1].id`", "two groups"],
            ),
            (
                json!({"groups": [{"id": "a", "urls": [url], "metadata": [1]}]}),
                &["`groups[0].metadata`", "object"],
            ),
            (
                json!({"groups": [{"id": "a", "urls": [url], "on_error": "pause"}]}),
                &["groups[0].on_error", "pause"],
            ),
            (
                json!({"urls": [url], "on_error": "stop"}),
                &["`on_error`", "groups"],
            ),
            (
                json!({"source": "/etc/passwd"}),
                &["`source[0]`", "api.list_folders"],
            ),
            (json!({"source": "-"}), &["`source[0]`"]),
            (
                json!({"source": "http://u:p@127.0.0.1/l"}),
                &["`source[0]`", "[hosts]"],
            ),
        ] {
            let detail = post(&daemon, &job).problem(422);
            for word in words {
                assert!(detail.contains(word), "{job}: {detail}");
            }
        }
        let to = daemon.api();
        let raw = |headers: &[(&str, &str)], body: &str| {
            send(to, "POST", "/api/v1/jobs", headers, Some(body.as_bytes()))
        };
        raw(&[JSON], "{\"urls\":").problem(400);
        let detail = raw(&[JSON], "[null, null]").problem(422);
        assert!(detail.contains("JSON object"), "{detail}");
        let wrong = post(&daemon, &json!({"urls": [url], "kind": "video"})).json();
        assert_eq!(wrong["errors"][0]["field"], "kind");
        let wrong = post(&daemon, &json!({"urls": [{"url": url, "nam": "x"}]})).json();
        assert!(
            wrong["errors"][0]["field"]
                .as_str()
                .unwrap()
                .starts_with("urls[0]"),
            "{wrong}"
        );
        raw(&[JSON], "{} {}").problem(400);
        raw(&[("Content-Type", "text/plain")], "{}").problem(415);
        raw(&[], "{}").problem(415);
        let detail = raw(&[JSON], &" ".repeat(10_001)).problem(413);
        assert!(
            detail.contains("several jobs") && detail.contains("source"),
            "{detail}"
        );
        let many: Vec<&str> = vec![url; 1000];
        let body = json!({ "urls": many }).to_string();
        let chunked = [JSON, ("Transfer-Encoding", "chunked")];
        let mut stream = connect(to);
        let mut request =
            format!("POST /api/v1/jobs HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
        for (name, value) in chunked {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        support::http::parse(&answer).problem(413);
        post_as(&daemon, &json!({"urls": [url]}), &[("Idempotency-Key", "")]).problem(400);
        assert_eq!(daemon.get("/api/v1/jobs").json()["items"], json!([]));
        daemon.stop();
    }

    #[test]
    fn reaches_no_private_network_unless_the_api_may() {
        let sandbox = Sandbox::new();
        let site = gallery();
        let schedule = "[[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n";
        sandbox.write("a.txt", site.url("/1.png"));
        let text = |api: &str| {
            format!(
                "[storage]\nroot = \"out\"\n[fetch]\nproxy = \"direct\"\nprivate_networks = true\n\
                 [api]\nlisten = \"127.0.0.1:0\"\n{api}\n{schedule}"
            )
        };
        sandbox.write("gannet.toml", text(""));
        let daemon = Daemon::start(&sandbox);
        assert_eq!(daemon.run("a")["counts"]["stored"], 1);
        let wanted = json!({"urls": [site.url("/2.png")]});
        let job = run(&daemon, &wanted);
        assert_eq!(job["reasons"], json!({"denied-address": 1}), "{job}");
        let job = run(&daemon, &json!({"source": site.url("/list.txt")}));
        assert_eq!(job["state"], "failed");
        assert!(job["error"].as_str().unwrap().contains("denied"), "{job}");
        assert_eq!(site.total(), 1);
        sandbox.write("gannet.toml", text("allow_networks = [\"127.0.0.0/8\"]"));
        daemon.reload();
        let mut again = wanted.clone();
        again["refresh"] = json!(true);
        assert_eq!(run(&daemon, &again)["state"], "completed");
        daemon.stop();
    }

    #[test]
    fn is_refused_for_a_while_when_too_many_jobs_wait() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "jobs = 1\nqueued_jobs = 2");
        let (gate, site) = gated_gallery();
        let daemon = Daemon::start(&sandbox);
        let wanted = |n: u32| json!({"urls": [site.url(&format!("/{n}.png"))]});
        let running = queue(&daemon, &wanted(1));
        site.wait_for(1);
        let waiting = [2, 3].map(|n| queue(&daemon, &wanted(n)));
        let got = post(&daemon, &wanted(4));
        assert!(got.header("retry-after").is_some());
        let detail = got.problem(429);
        assert!(detail.contains("api.queued_jobs"), "{detail}");
        let states = |state: &str| {
            let jobs = daemon.get(&format!("/api/v1/jobs?state={state}")).json();
            jobs["items"].as_array().unwrap().len()
        };
        assert_eq!((states("ongoing"), states("queued")), (1, 2));
        gate.open();
        for job in [&running, &waiting[0], &waiting[1]] {
            assert_eq!(ended(&daemon, job)["state"], "completed");
        }
        assert_eq!(run(&daemon, &wanted(4))["state"], "completed");
        daemon.stop();
    }

    #[test]
    fn of_many_urls_is_taken_and_can_be_cancelled() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let (gate, site) = gated_gallery();
        let daemon = Daemon::start(&sandbox);
        let groups: Vec<Value> = (0..2_000)
            .map(|group| {
                let url = |n| site.url(&format!("/a/rather/long/path/of/shop/{group}/{n}.png"));
                let urls: Vec<String> = (0..10).map(url).collect();
                json!({"id": format!("shop-{group}"), "on_error": "stop", "urls": urls})
            })
            .collect();
        let job = queue(&daemon, &json!({ "groups": groups }));
        site.wait_for(1);
        let shown = daemon.get(&job).expect(200).json();
        assert_eq!(
            (&shown["state"], &shown["total"]),
            (&json!("ongoing"), &json!(20_000))
        );
        let got = ask(daemon.api(), "POST", &format!("{job}/cancel"), &[]);
        got.expect(202);
        let over = ended(&daemon, &job);
        assert_eq!(over["state"], "cancelled");
        assert_eq!(
            (done(&over), &over["counts"]["targets"]),
            (20_000, &json!(20_000))
        );
        assert_eq!(over["reasons"], json!({"cancelled": 20_000}));
        assert_eq!(over["groups"]["cancelled"], 2_000, "{over}");
        ask(daemon.api(), "POST", &format!("{job}/cancel"), &[]).problem(409);
        gate.open();
        daemon.stop();
    }

    #[test]
    fn a_list_and_a_number_of_files() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "list_folders = [\"lists\"]");
        let site = Site::start(|asked| match asked.path.as_str() {
            "/list.txt" => {
                let address = asked.header("host").unwrap();
                let lines = (0..20).map(|n| format!("http://{address}/{}.png\n", n / 2));
                Answer::ok(lines.collect::<String>())
            }
            path => picture(path),
        });
        sandbox.write("lists/a.txt", site.list(["/1.png", "/50.png"]));
        sandbox.write("secret.txt", "not for clients");
        let in_koi8 = [
            b"url,name\n",
            site.url("/60.png").as_bytes(),
            b",\xeb\xcf\xd4",
        ]
        .concat();
        sandbox.write("lists/koi8.csv", in_koi8);
        let daemon = Daemon::start(&sandbox);
        let job = run(
            &daemon,
            &json!({"source": site.url("/list.txt"), "count": 4, "album": "few"}),
        );
        assert_eq!(
            (&job["state"], &job["counts"]["stored"]),
            (&json!("completed"), &json!(4))
        );
        let path = |name: &str| sandbox.path(name).display().to_string();
        let job = run(
            &daemon,
            &json!({"source": [path("lists/a.txt")], "album": "few"}),
        );
        assert_eq!(
            (&job["state"], &job["counts"]["targets"]),
            (&json!("completed"), &json!(2))
        );
        let source = path("lists/koi8.csv");
        let job = run(
            &daemon,
            &json!({"source": source, "list_encoding": "koi8-r", "album": "few"}),
        );
        assert_eq!(job["counts"]["stored"], json!(1));
        assert!(sandbox.path("out/few/\u{41a}\u{43e}\u{442}.png").exists());
        let detail = post(
            &daemon,
            &json!({"source": source, "list_encoding": "excel"}),
        )
        .problem(422);
        assert!(detail.contains("`excel` is no encoding"), "{detail}");
        for outside in ["secret.txt", "lists/../secret.txt"] {
            let detail = post(&daemon, &json!({"source": path(outside)})).problem(422);
            assert!(detail.contains("api.list_folders"), "{detail}");
        }
        daemon.stop();
    }
}

mod going_on {
    use super::*;

    /// Jobs of groups of four, over a site that answers as long as `is_open`.
    fn jobs(site: &Site, jobs: u32) -> Vec<Value> {
        (0..jobs)
            .map(|job| {
                let groups: Vec<Value> = (0..3)
                    .map(|group| {
                        let url = |n| site.url(&format!("/{}.png", job * 100 + group * 10 + n));
                        let urls: Vec<String> = (0..4).map(url).collect();
                        json!({"id": format!("g{group}"), "on_error": "stop", "urls": urls})
                    })
                    .collect();
                json!({"album": format!("job-{job}"), "groups": groups, "steps": ["phash"]})
            })
            .collect()
    }

    /// Every target of a job has one outcome, and it is as it should be.
    #[track_caller]
    fn assert_whole(daemon: &Daemon<'_>, job: &Value) {
        assert_eq!(job["state"], "completed", "{job}");
        assert_eq!(job["counts"]["targets"], 12, "{job}");
        assert_eq!(done(job), 12);
        let items = items(daemon, &href(job));
        assert_eq!(items.len(), 12);
        for item in items {
            assert!(item["steps"]["phash"].is_object(), "{item}");
            assert!(["stored", "unchanged"].contains(&item["outcome"].as_str().unwrap()));
        }
        assert_eq!(job["groups"]["completed"], 3);
    }

    fn survives(sandbox: &Sandbox, how: impl Fn(Daemon<'_>)) {
        let gate = Gate::new();
        let held = Arc::new(AtomicBool::new(true));
        let site = {
            let (gate, held) = (gate.clone(), held.clone());
            let seen = std::sync::atomic::AtomicUsize::new(0);
            Site::start(move |asked| {
                // Some come through before the end.
                if seen.fetch_add(1, Ordering::SeqCst) >= 200 && held.load(Ordering::SeqCst) {
                    gate.pass();
                }
                picture(&asked.path)
            })
        };
        let daemon = Daemon::start(sandbox);
        let posted: Vec<String> = jobs(&site, 50)
            .iter()
            .map(|job| queue(&daemon, job))
            .collect();
        site.wait_for(200);
        how(daemon);
        held.store(false, Ordering::SeqCst);
        gate.open();
        let daemon = Daemon::start(sandbox);
        let mut unchanged = 0;
        for job in &posted {
            let job = ended(&daemon, job);
            assert_whole(&daemon, &job);
            unchanged += job["counts"]["unchanged"].as_u64().unwrap();
        }
        // Only what was recorded as a file and not yet as an outcome could be.
        assert_eq!(unchanged, 0);
        let listed = daemon.get("/api/v1/jobs?limit=1000").json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 50);
        daemon.stop();
    }

    #[test]
    fn after_a_kill() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "jobs = 20");
        survives(&sandbox, |daemon| {
            daemon.kill();
        });
        assert_in_order(&sandbox);
    }

    #[test]
    fn after_a_kill_in_postgresql() {
        let Some(server) = Postgres::shared() else {
            return;
        };
        let sandbox = Sandbox::new();
        settings(
            &sandbox,
            &format!("jobs = 20\n[catalog]\nurl = \"{}\"", server.database()),
        );
        survives(&sandbox, |daemon| {
            daemon.kill();
        });
    }

    #[test]
    fn after_a_stop() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "jobs = 20\n[daemon]\nstop_timeout = \"0s\"");
        survives(&sandbox, |daemon| {
            daemon.stop();
        });
        assert_in_order(&sandbox);
    }
}

mod ends {
    use super::*;

    #[test]
    fn a_retry_places_files_by_all_that_their_list_says() {
        let sandbox = Sandbox::new();
        let template = "[naming]\ntemplate = \"{meta.cat}/{group}/{line:3}-{name}\"";
        settings(&sandbox, template);
        let is_well = Arc::new(AtomicBool::new(false));
        let site = {
            let is_well = is_well.clone();
            Site::start(move |asked| match asked.path.as_str() {
                "/list.csv" => {
                    let host = asked.header("host").unwrap();
                    Answer::ok(format!("url,name,group,cat\nhttp://{host}/1.png,n,g,c\n"))
                }
                _ if !is_well.load(Ordering::SeqCst) => Answer::status(403),
                path => picture(path),
            })
        };
        let daemon = Daemon::start(&sandbox);
        let mut job = run(&daemon, &json!({"source": site.url("/list.csv")}));
        // Twice, so that a retry of a retry has it all too.
        for is_mended in [false, true] {
            assert_eq!(job["state"], "incomplete");
            is_well.store(is_mended, Ordering::SeqCst);
            let got = ask(daemon.api(), "POST", &format!("{}/retry", href(&job)), &[]);
            job = ended(&daemon, got.expect(202).header("location").unwrap());
        }
        assert_eq!(job["state"], "completed");
        assert_eq!(sandbox.names(), ["c/g/002-n.png"]);
        daemon.stop();
    }

    #[test]
    fn what_failed_can_be_tried_again() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let is_well = Arc::new(AtomicBool::new(false));
        let site = {
            let is_well = is_well.clone();
            Site::start(move |asked| match asked.path.as_str() {
                "/3.png" if !is_well.load(Ordering::SeqCst) => Answer::status(403),
                path => picture(path),
            })
        };
        let daemon = Daemon::start(&sandbox);
        let urls: Vec<String> = (1..=5).map(|n| site.url(&format!("/{n}.png"))).collect();
        let job = run(
            &daemon,
            &json!({"album": "a", "steps": ["phash"], "groups": [
                {"id": "shop", "on_error": "stop", "urls": urls, "metadata": {"n": 1}},
                {"id": "other", "urls": [site.url("/9.png")]},
            ]}),
        );
        assert_eq!(job["state"], "incomplete");
        is_well.store(true, Ordering::SeqCst);
        site.forget();
        let got = ask(daemon.api(), "POST", &format!("{}/retry", href(&job)), &[]).expect(202);
        let again = ended(&daemon, got.header("location").unwrap());
        assert_eq!(
            (&again["state"], &again["counts"]["targets"]),
            (&json!("completed"), &json!(3))
        );
        let asked: Vec<String> = site.asked().into_iter().map(|asked| asked.path).collect();
        assert_eq!(asked, ["/3.png", "/4.png", "/5.png"]);
        assert_eq!(
            again["source"],
            format!("retry of {}", job["id"].as_str().unwrap())
        );
        let items = items(&daemon, &href(&again));
        assert!(
            items
                .iter()
                .all(|item| item["group"] == "shop" && item["steps"]["phash"].is_object())
        );
        let detail = ask(
            daemon.api(),
            "POST",
            &format!("{}/retry", href(&again)),
            &[],
        )
        .problem(409);
        assert!(detail.contains("nothing to try again"), "{detail}");
        ask(daemon.api(), "POST", "/api/v1/jobs/none/retry", &[]).problem(404);
        daemon.stop();
    }

    #[test]
    fn a_schedules_job_can_be_cancelled_too() {
        let sandbox = Sandbox::new();
        let (gate, site) = gated_gallery();
        sandbox.write("a.txt", site.list((0..20).map(|n| format!("/{n}.png"))));
        let schedule = "[[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n[schedule.fetch]\nprivate_networks = true";
        settings(&sandbox, schedule);
        let daemon = Daemon::start(&sandbox);
        daemon.ask("run", "a").expect(0);
        site.wait_for(1);
        let running = daemon.until("a", "has a job", |schedule| {
            schedule["running"]["job"].is_string()
        });
        let job = format!(
            "/api/v1/jobs/{}",
            running["running"]["job"].as_str().unwrap()
        );
        ask(daemon.api(), "POST", &format!("{job}/cancel"), &[]).expect(202);
        let over = ended(&daemon, &job);
        assert_eq!(
            (&over["state"], &over["interrupted"]),
            (&json!("cancelled"), &Value::Null)
        );
        gate.open();
        daemon.stop();
    }

    #[test]
    fn a_step_that_fails_fails_its_target_and_keeps_no_file() {
        let sandbox = Sandbox::new();
        let steps = "[steps.commands.judge]\nprogram = \"/bin/sh\"\n\
                     args = [\"-c\", \"case $GANNET_URL in */2.png) echo too dark >&2; exit 1;; esac; echo '{\\\"score\\\": 7}'\"]";
        settings(&sandbox, steps);
        let site = gallery();
        let daemon = Daemon::start(&sandbox);
        let urls = [site.url("/1.png"), site.url("/2.png"), site.url("/3.png")];
        let steps =
            json!([{"step": "command", "name": "judge"}, {"step": "delay", "ms": 1}, "measure"]);
        let wanted = json!({"album": "a", "steps": steps, "groups": [{"id": "s", "on_error": "stop", "urls": urls}]});
        let job = run(&daemon, &wanted);
        assert_eq!(
            job["reasons"],
            json!({"step": 1, "group-stopped": 1}),
            "{job}"
        );
        let error = job["failed_groups"][0]["error"]["detail"].as_str().unwrap();
        assert!(
            error.contains("`command`") && error.contains("too dark"),
            "{error}"
        );
        let items = items(&daemon, &href(&job));
        assert_eq!(items[0]["steps"]["command"], json!({"score": 7}));
        assert_eq!(items[0]["steps"]["measure"]["perimeter"], 36);
        assert_eq!(items[1]["path"], Value::Null);
        let album = daemon.get("/api/v1/albums/a").json();
        assert_eq!(album["files"], 1);
        daemon.stop();
        assert_in_order(&sandbox);
    }

    #[test]
    fn a_picture_can_be_kept_smaller_than_it_came() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let site = gallery();
        let daemon = Daemon::start(&sandbox);
        let wanted = json!({"album": "a", "urls": [site.url("/60.png")], "steps": [
            {"step": "resize", "width": 50, "format": "jpeg", "original": "replaced"},
        ]});
        let job = run(&daemon, &wanted);
        let item = &items(&daemon, &href(&job))[0];
        assert_eq!(
            (&item["format"], &item["width"]),
            (&json!("jpeg"), &json!(50)),
            "{item}"
        );
        assert!(item["path"].as_str().unwrap().ends_with(".jpg"));
        let mut again = wanted.clone();
        again["refresh"] = json!(true);
        // What comes is made smaller in the same way, so it is what is there.
        assert_eq!(run(&daemon, &again)["counts"]["unchanged"], 1);
        daemon.stop();
        assert_in_order(&sandbox);
    }
}

mod watching {
    use super::*;

    /// Reads events until `is_enough`.
    fn events(
        daemon: &Daemon<'_>,
        job: &str,
        last: Option<&str>,
        is_enough: impl Fn(&[BTreeMap<String, String>]) -> bool,
    ) -> Vec<BTreeMap<String, String>> {
        let to = daemon.api();
        let mut stream = connect(to);
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!("GET {job}/events HTTP/1.1\r\nHost: {to}\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = vec![BTreeMap::new()];
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            if let Some((name, value)) = line.split_once(": ") {
                if ["event", "id", "data"].contains(&name) {
                    let current: &mut BTreeMap<_, _> = events.last_mut().unwrap();
                    current.insert(name.to_owned(), value.to_owned());
                }
            } else if line.is_empty() && !events.last().unwrap().is_empty() {
                if is_enough(&events) {
                    return events;
                }
                events.push(BTreeMap::new());
            }
        }
        panic!("the stream ended: {events:?}");
    }

    fn ids(events: &[BTreeMap<String, String>]) -> Vec<u64> {
        let items = events.iter().filter(|event| event["event"] == "item");
        items.map(|event| event["id"].parse().unwrap()).collect()
    }

    #[test]
    fn a_job_tells_how_it_goes_on_and_goes_on_telling_where_it_was() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let gate = Gate::new();
        let site = {
            let gate = gate.clone();
            Site::start(move |asked| {
                if asked.path == "/4.png" {
                    gate.pass();
                }
                picture(&asked.path)
            })
        };
        let daemon = Daemon::start(&sandbox);
        let urls: Vec<String> = (1..=6).map(|n| site.url(&format!("/{n}.png"))).collect();
        let groups = json!([{"id": "g", "on_error": "stop", "urls": urls}]);
        let job = queue(&daemon, &json!({ "groups": groups }));
        // While it is under way.
        let first = events(&daemon, &job, None, |events| ids(events).len() == 3);
        assert_eq!(ids(&first), [0, 1, 2]);
        gate.open();
        let is_over =
            |events: &[BTreeMap<String, String>]| events.last().unwrap()["event"] == "end";
        let rest = events(&daemon, &job, Some("1"), is_over);
        assert_eq!(ids(&rest), [2, 3, 4, 5]);
        let end: Value = serde_json::from_str(&rest.last().unwrap()["data"]).unwrap();
        assert_eq!((&end["state"], done(&end)), (&json!("completed"), 6));
        let last = [("Last-Event-ID", "end")];
        ask(daemon.api(), "GET", &format!("{job}/events"), &last).expect(204);
        let last = [("Last-Event-ID", "x")];
        ask(daemon.api(), "GET", &format!("{job}/events"), &last).problem(400);
        daemon.stop();
    }

    #[test]
    fn ends_with_the_daemon() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "[daemon]\nstop_timeout = \"0s\"");
        let (gate, site) = gated_gallery();
        let daemon = Daemon::start(&sandbox);
        let job = queue(&daemon, &json!({"urls": [site.url("/1.png")]}));
        site.wait_for(1);
        let to = daemon.api();
        let mut stream = connect(to);
        let head = format!("GET {job}/events HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        let begins = lines.find(|line| line.as_ref().unwrap().starts_with("event: progress"));
        assert!(begins.is_some());
        daemon.stop();
        assert!(lines.all(|line| line.is_ok()));
        gate.open();
    }
}

#[test]
fn limits_of_a_job_leave_files_of_credentials_as_the_daemon_read_them() {
    let (sandbox, site) = (Sandbox::new(), gallery());
    settings(&sandbox, "");
    let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
    let text = text.replace("[fetch]", "[fetch]\nnetrc_file = \"netrc\"");
    sandbox.write("gannet.toml", text);
    let netrc = |password| format!("machine 127.0.0.1 login ann password {password}\n");
    sandbox.write("netrc", netrc("old"));
    let daemon = Daemon::start(&sandbox);
    let sent = |path: &str| {
        let job = json!({"urls": [site.url(path)], "limits": {"retries": 0}});
        let job = run(&daemon, &job);
        assert_eq!(job["state"], "completed", "{job:#}");
        let asked = site.asked().pop().unwrap();
        asked.header("authorization").map(str::to_owned)
    };
    // As somebody does who writes it in two steps.
    sandbox.write("netrc", "machine");
    assert_eq!(sent("/1.png").as_deref(), Some("Basic YW5uOm9sZA=="));
    sandbox.write("netrc", netrc("new"));
    daemon.reload();
    assert_eq!(sent("/2.png").as_deref(), Some("Basic YW5uOm5ldw=="));
    daemon.stop();
}

mod callbacks {
    use super::*;

    /// Waits until the callback of a job is as `is` wants it.
    #[track_caller]
    fn until_callback(daemon: &Daemon<'_>, job: &str, is: impl Fn(&Value) -> bool) -> Value {
        until("the callback is as it has to be", || {
            let job = daemon.get(job).expect(200).json();
            match is(&job["callback"]) {
                true => Ok(job["callback"].clone()),
                false => Err(job.to_string()),
            }
        })
    }

    #[test]
    fn who_posted_a_job_is_told_of_its_end_also_after_a_restart() {
        let (sandbox, site) = (Sandbox::new(), gallery());
        sandbox.write("secret", "s3cret\n");
        settings(&sandbox, "callback_secret_file = \"secret\"");
        let daemon = Daemon::start(&sandbox);
        let hook = Hook::start();
        let job = |urls: &[&str], to: String| {
            let urls: Vec<String> = urls.iter().map(|path| site.url(path)).collect();
            json!({ "urls": urls, "callback": to })
        };
        let done = queue(&daemon, &job(&["/1.png"], hook.url() + "?key=4711"));
        let told = until_callback(&daemon, &done, |told| told["delivered"].is_string());
        assert_eq!(told["url"], format!("http://{}/***", hook.address));
        assert_eq!((&told["attempts"], told.get("error")), (&json!(1), None));
        let posted = &hook.came.all()[0];
        let news = posted.json();
        assert_eq!(posted.event(), "job.completed");
        assert_eq!(news["event"], "job.completed");
        assert_eq!(news["counts"]["stored"], 1);
        assert!(done.ends_with(news["job"].as_str().unwrap()), "{news}");
        assert!(posted.header("x-gannet-signature").starts_with("t="));
        assert!(!posted.body.contains("4711"));

        // One that is away is called until it is there, by the next process too.
        let address = nobody();
        let to = format!("http://{address}/hook");
        let away = queue(&daemon, &job(&["/2.png"], to));
        ended(&daemon, &away);
        let told = until_callback(&daemon, &away, |told| told["attempts"] != 0);
        assert!(
            told["error"].is_string() && told["next"].is_string(),
            "{told}"
        );
        assert_eq!(told["delivered"], Value::Null);
        let _ = daemon.stop();
        let back = Hook::on(address, Came::new(), |_| Says::Status(200));
        let daemon = Daemon::start(&sandbox);
        until_callback(&daemon, &away, |told| told["delivered"].is_string());
        assert_eq!(back.events(), ["job.completed"]);
        // The other one had its news.
        assert_eq!(hook.came.all().len(), 1);
        let _ = daemon.stop();
        assert_in_order(&sandbox);
    }

    #[test]
    fn every_end_is_told_and_a_refusal_may_pass() {
        let (sandbox, (gate, site)) = (Sandbox::new(), gated_gallery());
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let first = AtomicBool::new(true);
        let hook = Hook::with(move |_| match first.swap(false, Ordering::SeqCst) {
            true => Says::Status(404),
            false => Says::Status(204),
        });
        let job = json!({ "urls": [site.url("/1.png")], "callback": hook.url() });
        let cancelled = queue(&daemon, &job);
        site.wait_for(1);
        ask(daemon.api(), "POST", &format!("{cancelled}/cancel"), &[]).expect(202);
        gate.open();
        let told = until_callback(&daemon, &cancelled, |told| told["delivered"].is_string());
        assert_eq!(told["attempts"], 2);
        assert_eq!(hook.events(), ["job.cancelled"]);
        let none = json!({ "source": site.url("/none.txt"), "callback": hook.url() });
        let failed = queue(&daemon, &none);
        until_callback(&daemon, &failed, |told| told["delivered"].is_string());
        assert_eq!(hook.events(), ["job.cancelled", "job.failed"]);
        let _ = daemon.stop();
    }

    #[test]
    fn a_callback_reaches_what_posted_jobs_reach() {
        let (sandbox, hook) = (Sandbox::new(), Hook::start());
        settings(&sandbox, "");
        let text = std::fs::read_to_string(sandbox.path("gannet.toml")).unwrap();
        sandbox.write("gannet.toml", text.replace("private_networks = true", ""));
        let daemon = Daemon::start(&sandbox);
        let job = json!({ "urls": [hook.url()], "callback": hook.url() });
        let job = queue(&daemon, &job);
        let told = until_callback(&daemon, &job, |told| told["error"].is_string());
        assert!(told["error"].as_str().unwrap().contains("denied"), "{told}");
        assert!(hook.came.all().is_empty());
        for wrong in ["", "hook", "ftp://a.test/", "https://u:p@a.test/"] {
            let job = json!({ "urls": ["https://a.test/"], "callback": wrong });
            let problem = post(&daemon, &job).expect(422).json();
            assert_eq!(problem["errors"][0]["field"], "callback", "{wrong}");
        }
        let _ = daemon.stop();
    }
}
