//! The HTTP API of `gannet daemon`, the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::daemon::until;
use support::http::{ask, connect, parse};
use support::postgres::Postgres;
use support::site::Gate;
use support::{Answer, Daemon, Sandbox, Site, sha256};

/// Settings for a daemon with one schedule `a` over `a.txt` into album `a`, which is due on demand, and an API.
fn settings(sandbox: &Sandbox, api: &str) {
    settings_with(sandbox, api, "");
}

/// The same with more at the end.
fn settings_with(sandbox: &Sandbox, api: &str, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n[job]\nkind = \"any\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\n\
         [api]\nlisten = \"127.0.0.1:0\"\n{api}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\nalbum = \"a\"\n{rest}\n"
    );
    sandbox.write("gannet.toml", text);
}

const READER: &str = "reader-0123456789abcdef";
const WRITER: &str = "writer-0123456789abcdef";
const ADMIN: &str = "admin-0123456789abcdef";

/// `[api.tokens]` with one of each scope, one of them by its digest.
fn tokens() -> String {
    format!(
        "tokens.reader = {{ token = \"{READER}\", scopes = [\"read\"] }}\n\
         tokens.writer = {{ sha256 = \"{}\", scopes = [\"write\"] }}\n\
         tokens.admin = {{ token = \"{ADMIN}\", scopes = [\"admin\", \"read\"] }}",
        sha256(WRITER.as_bytes())
    )
}

mod access {
    use super::*;

    fn with_token(
        daemon: &Daemon<'_>,
        method: &str,
        path: &str,
        token: &str,
    ) -> support::http::Got {
        let bearer = format!("Bearer {token}");
        ask(daemon.api(), method, path, &[("Authorization", &bearer)])
    }

    #[test]
    fn each_route_takes_its_scope() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(asked.path.clone()));
        sandbox.write("a.txt", site.url("/1"));
        settings(&sandbox, &tokens());
        let daemon = Daemon::start(&sandbox);
        let status = |method, path, token| with_token(&daemon, method, path, token).status;
        let all = [READER, WRITER, ADMIN];
        for (method, path, expected) in [
            ("GET", "/api/v1/status", [200, 403, 200]),
            ("GET", "/api/v1/schedules", [200, 403, 200]),
            ("GET", "/api/v1/schedules/a", [200, 403, 200]),
            ("POST", "/api/v1/schedules/a/pause", [403, 403, 200]),
            ("POST", "/api/v1/schedules/a/resume", [403, 403, 200]),
            ("POST", "/api/v1/schedules/a/run", [403, 200, 403]),
        ] {
            let got = all.map(|token| status(method, path, token));
            assert_eq!(got, expected, "{method} {path}");
            let got = ask(daemon.api(), method, path, &[]);
            assert_eq!(
                got.header("www-authenticate"),
                Some("Bearer realm=\"gannet\"")
            );
            got.problem(401);
        }
        let got = with_token(&daemon, "GET", "/api/v1/status", "nobody-0123456789abcdef");
        let challenge = got.header("www-authenticate").unwrap();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        got.problem(401);
        let got = with_token(&daemon, "GET", "/api/v1/status", WRITER);
        let challenge = got.header("www-authenticate").unwrap();
        assert!(challenge.contains("scope=\"read\""), "{challenge}");
        let detail = got.problem(403);
        assert!(detail.contains("`writer` has: write"), "{detail}");
        // The socket is as open as ever.
        daemon.ask("pause", "a").expect(0);
        let run = daemon.stop();
        for secret in all {
            assert!(!run.stderr.contains(secret), "{run}");
        }
    }

    #[test]
    fn other_tokens_hold_from_a_reload_on() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &tokens());
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let get = |token: &str| {
            let bearer = format!("Bearer {token}");
            ask(api, "GET", "/api/v1/status", &[("Authorization", &bearer)]).status
        };
        assert_eq!((get(READER), get(ADMIN)), (200, 200));
        let other = "tokens.other = { token = \"other-0123456789abcdef\", scopes = [\"read\"] }";
        settings(&sandbox, other);
        daemon.reload();
        assert_eq!((get(READER), get("other-0123456789abcdef")), (401, 200));
        // What cannot be used changes nothing.
        settings(
            &sandbox,
            "tokens.other = { token = \"short\", scopes = [\"read\"] }",
        );
        daemon.reload();
        assert_eq!(get("other-0123456789abcdef"), 200);
    }

    #[test]
    fn a_token_may_stand_in_a_file_of_its_own() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "tokens.reader.scopes = [\"read\"]");
        let file = sandbox.write("token", format!("{READER}\n"));
        let file = file.to_str().unwrap();
        let daemon = Daemon::start_with(
            &sandbox,
            &[("GANNET_API__TOKENS__READER__TOKEN_FILE", file)],
        );
        // `gannet status` has other settings, so the state file tells.
        let api = until("there is a state file", || {
            let state = std::fs::read(sandbox.path("out/.gannet/status.json"));
            let state: Value = serde_json::from_slice(&state.map_err(|e| e.to_string())?).unwrap();
            Ok(state["api"].as_str().unwrap().parse().unwrap())
        });
        let get = |token: &str| {
            let bearer = format!("bearer {token}");
            ask(api, "GET", "/api/v1/status", &[("Authorization", &bearer)]).status
        };
        assert_eq!((get(READER), get(WRITER)), (200, 401));
        let _ = daemon.stop();
    }

    #[test]
    fn another_address_takes_a_restart() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        sandbox.write("gannet.toml", text.replace("127.0.0.1:0", "[::1]:0"));
        daemon.reload();
        daemon.get("/api/v1/status").expect(200);
        let refused = "`api.listen` differs, which takes a restart";
        daemon.stop().says(&[refused]);
    }

    #[test]
    fn without_tokens_only_this_machine_and_no_page_of_another_site_is_heard() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let with = |headers: &[(&str, &str)]| ask(api, "GET", "/api/v1/status", headers);
        with(&[("Host", "localhost")]).expect(200);
        let detail = with(&[("Host", "attacker.example")]).problem(403);
        assert!(detail.contains("attacker.example"), "{detail}");
        with(&[("Origin", "https://attacker.example")]).problem(403);
        with(&[("Origin", &format!("http://{api}"))]).expect(200);
    }

    #[test]
    fn an_address_for_others_demands_tokens() {
        let sandbox = Sandbox::new();
        sandbox.write("open.toml", "[api]\nlisten = \"0.0.0.0:0\"\n");
        let words = ["api.listen", "takes tokens"];
        sandbox
            .run(["check", "-c", "open.toml"])
            .expect(1)
            .says(&words);
        let text = format!("[api]\nlisten = \"0.0.0.0:0\"\n{}\n", tokens());
        sandbox.write("open.toml", text);
        let run = sandbox.run(["check", "-c", "open.toml"]).expect(0);
        assert!(run.out().contains("[api.tokens.reader]"), "{run}");
        for secret in [READER, WRITER, ADMIN] {
            assert!(!run.out().contains(secret), "{run}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        let sandbox = Sandbox::new();
        for address in ["localhost:8080", "127.0.0.1"] {
            let set = format!("api.listen={address}");
            let run = sandbox.run(["check", "--set", &set]).expect(1);
            run.says(&["api.listen", "expected one such as \"127.0.0.1:8080\""]);
        }
    }

    #[test]
    fn an_address_that_is_taken_ends_the_start() {
        let sandbox = Sandbox::new();
        let site = Site::start(|_| Answer::ok(""));
        settings(&sandbox, "");
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        let address = site.address.to_string();
        sandbox.write("gannet.toml", text.replace("127.0.0.1:0", &address));
        let words = [&*address, "`api.listen`"];
        sandbox.run(["daemon"]).expect(1).says(&words);
    }
}

mod frame {
    use super::*;

    #[test]
    fn a_daemon_that_listens_needs_no_schedule() {
        let sandbox = Sandbox::new();
        let text = "[storage]\nroot = \"out\"\n[api]\nlisten = \"127.0.0.1:0\"\n";
        sandbox.write("gannet.toml", text);
        let daemon = Daemon::start(&sandbox);
        let page = daemon.get("/api/v1/schedules").expect(200).json();
        assert_eq!(page, serde_json::json!({ "items": [], "next": null }));
        let _ = daemon.stop();
        sandbox.run(["daemon", "--once"]).expect(2);
    }

    #[test]
    fn what_cannot_be_answered_is_a_problem_document() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let got = daemon.get("/api/v1/nothing");
        assert_eq!(got.header("cache-control"), Some("no-store"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        let detail = got.problem(404);
        assert!(detail.contains("/api/v1/nothing"), "{detail}");
        daemon.get("/api/v1/schedules/b").problem(404);
        let got = ask(api, "POST", "/api/v1/schedules", &[]);
        assert_eq!(got.header("allow"), Some("GET,HEAD"));
        got.problem(405);
        let detail = daemon.get("/api/v1/schedules?page=2").problem(400);
        assert!(detail.contains("unknown parameter `page`"), "{detail}");
        let length = [("Content-Length", "10000000")];
        let got = ask(api, "POST", "/api/v1/schedules/a/run", &length);
        got.problem(413);
        // A name that is no text.
        daemon.get("/api/v1/schedules/%FF").problem(400);
        let long = format!("/api/v1/schedules/{}", "x".repeat(64 * 1024));
        assert!([414, 431].contains(&daemon.get(&long).status));
    }

    #[test]
    fn schedules_are_seen_and_told_what_to_do() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(asked.path.clone()));
        sandbox.write("a.txt", site.url("/1"));
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let post = |what: &str| {
            let path = format!("/api/v1/schedules/a/{what}");
            ask(daemon.api(), "POST", &path, &[])
        };
        let page = daemon.get("/api/v1/schedules").expect(200).json();
        assert_eq!(page["items"][0]["name"], "a");
        assert_eq!(post("pause").expect(200).json()["paused"], true);
        assert_eq!(post("resume").expect(200).json()["paused"], false);
        post("run").expect(200);
        daemon.ended_after("a", &serde_json::Value::Null);
        let one = daemon.get("/api/v1/schedules/a").expect(200).json();
        assert_eq!(one["last"]["counts"]["stored"], 1);
        assert_eq!(site.total(), 1);
    }

    #[test]
    fn a_download_outlasts_the_end_and_others_are_let_go() {
        let sandbox = Sandbox::new();
        let large = vec![7; 32 << 20];
        let site = Site::start({
            let large = large.clone();
            move |_| Answer::ok(large.clone())
        });
        let daemon = with_files(&sandbox, &format!("url,name\n{},n.bin\n", site.url("/1")));
        let api = daemon.api();
        let mut download = connect(api);
        let request = format!("GET /files/a/n.bin HTTP/1.1\r\nHost: {api}\r\n\r\n");
        download.write_all(request.as_bytes()).unwrap();
        // It has begun, and more is left than buffers on the way hold.
        let mut bytes = vec![0; 100];
        download.read_exact(&mut bytes).unwrap();
        let mut idle = connect(api);
        daemon.terminate();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        download.read_to_end(&mut bytes).unwrap();
        assert_eq!(sha256(&parse(&bytes).expect(200).body), sha256(&large));
        daemon.end().expect(0);
    }

    #[test]
    fn who_comes_beyond_the_limit_waits() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "max_connections = 1");
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let mut first = connect(api);
        // Answered, so it is the one that was let in.
        let request = format!("GET /api/v1/schedules HTTP/1.1\r\nHost: {api}\r\n\r\n");
        first.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut second = connect(api);
        second.set_nonblocking(true).unwrap();
        let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        second.write_all(request.as_bytes()).unwrap();
        // By the socket, which has limits of its own: the daemon has had the time to answer.
        daemon.status();
        let waits = second.read(&mut answer).unwrap_err();
        assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        second.set_nonblocking(false).unwrap();
        let mut bytes = Vec::new();
        second.read_to_end(&mut bytes).unwrap();
        let _ = parse(&bytes).expect(200);
    }
}

/// A daemon that has run its schedule over these paths of `site`, and more lines of a list.
fn with_files<'a>(sandbox: &'a Sandbox, list: &str) -> Daemon<'a> {
    sandbox.write("a.csv", list);
    settings(sandbox, "");
    let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
    sandbox.write("gannet.toml", text.replace("a.txt", "a.csv"));
    let daemon = Daemon::start(sandbox);
    daemon.run("a");
    daemon
}

fn plain() -> Site {
    Site::start(|asked| Answer::ok(format!("bytes of {}", asked.path)))
}

/// All items of a list, page by page.
#[track_caller]
fn pages(daemon: &Daemon<'_>, list: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    let api = daemon.api();
    loop {
        let separator = if list.contains('?') { '&' } else { '?' };
        let target = format!("{list}{separator}limit={limit}{cursor}");
        let page = ask(api, "GET", &target, &[]).expect(200).json();
        let some = page["items"].as_array().unwrap();
        assert!(some.len() <= limit);
        items.extend(some.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

mod jobs {
    use super::*;

    #[test]
    fn jobs_and_their_items_are_listed_and_filtered() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| match asked.path.as_str() {
            "/bad" => Answer::status(404),
            path => Answer::ok(path),
        });
        sandbox.write("a.txt", site.list(["/1", "/bad", "/2"]));
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let failed = daemon.run("a")["job"].clone();
        sandbox.write("a.txt", site.list(["/3"]));
        let fine = daemon.run("a")["job"].clone();
        let ids = |list: &str, limit| -> Vec<Value> {
            let jobs = pages(&daemon, list, limit);
            jobs.iter().map(|job| job["id"].clone()).collect()
        };
        assert_eq!(ids("/api/v1/jobs", 1), [fine.clone(), failed.clone()]);
        assert_eq!(
            ids("/api/v1/jobs?state=incomplete", 9),
            [failed.as_str().unwrap()]
        );
        assert_eq!(ids("/api/v1/jobs?state=failed", 9), [] as [Value; 0]);
        assert_eq!(ids("/api/v1/jobs?state=queued", 9), [] as [Value; 0]);

        let job = format!("/api/v1/jobs/{}", failed.as_str().unwrap());
        let one = daemon.get(&job).expect(200).json();
        assert_eq!(
            (&one["schedule"], &one["state"]),
            (&"a".into(), &"incomplete".into())
        );
        assert_eq!(one["counts"]["targets"], 3);
        let items = pages(&daemon, &format!("{job}/items"), 2);
        let lines: Vec<_> = items.iter().map(|item| &item["line"]).collect();
        assert_eq!(lines, [1, 2, 3]);
        let failures = pages(&daemon, &format!("{job}/items?outcome=failed"), 9);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0]["url"], site.url("/bad"));
        assert_eq!(failures[0]["reason"], "status");
    }

    #[test]
    fn all_items_come_as_a_stream_of_lines() {
        let sandbox = Sandbox::new();
        let site = plain();
        let paths: Vec<String> = (0..2100).map(|n| format!("/{n}")).collect();
        sandbox.write("a.txt", site.list(&paths));
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let job = daemon.run("a")["job"].clone();
        let items = format!("/api/v1/jobs/{}/items", job.as_str().unwrap());
        let get = |target: &str| {
            let accept = [("Accept", "application/json;q=0.5, application/x-ndjson")];
            ask(daemon.api(), "GET", target, &accept)
        };
        let got = get(&items).expect(200);
        assert_eq!(got.header("content-type"), Some("application/x-ndjson"));
        let text = String::from_utf8(got.body).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2100);
        assert_eq!(lines, pages(&daemon, &items, 1000));
        assert!(get(&format!("{items}?outcome=failed")).body.is_empty());
        get(&format!("{items}?limit=1")).problem(400);
    }

    #[test]
    fn what_is_no_job_page_or_word_is_told() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.list(["/1", "/2"]));
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        daemon.run("a");
        daemon.run("a");
        for none in ["x", "01234567-89ab-7def-8123-456789abcdef"] {
            let detail = daemon.get(&format!("/api/v1/jobs/{none}")).problem(404);
            assert!(detail.contains(none), "{detail}");
            daemon
                .get(&format!("/api/v1/jobs/{none}/items"))
                .problem(404);
        }
        let page = daemon.get("/api/v1/jobs?limit=1").expect(200).json();
        let cursor = page["next"].as_str().unwrap();
        for (query, words) in [
            ("state=done", ["state", "`completed`"]),
            ("limit=0", ["limit", "1 to 1000"]),
            ("limit=1001", ["limit", "1 to 1000"]),
            ("limit=x", ["limit", "invalid digit"]),
            ("limit=1&limit=2", ["duplicate", "limit"]),
            ("cursor=x", ["cursor", "`next`"]),
            ("cursor=%FF", ["cursor", "`next`"]),
            ("sate=failed", ["unknown parameter", "`sate`"]),
        ] {
            let detail = daemon.get(&format!("/api/v1/jobs?{query}")).problem(400);
            for word in words {
                assert!(detail.contains(word), "{query}: {detail}");
            }
        }
        // Of another list.
        let detail = daemon
            .get(&format!("/api/v1/albums?cursor={cursor}"))
            .problem(400);
        assert!(detail.contains("cursor"), "{detail}");
    }
}

mod albums {
    use super::*;

    #[test]
    fn albums_of_many_levels_and_the_root_folder_have_images() {
        let sandbox = Sandbox::new();
        let site = plain();
        let list = format!(
            "url,name,album,shop\n{0}/1,Größe 1.jpg,shops/2026,7\n{0}/2,b&c %.jpg,shops/2026,8\n{0}/3,c.jpg,shops,9\n",
            site.url("")
        );
        let daemon = with_files(&sandbox, &list);
        let albums = pages(&daemon, "/api/v1/albums", 1);
        let names: Vec<_> = albums.iter().map(|album| &album["name"]).collect();
        assert_eq!(names, ["shops", "shops/2026"]);
        assert_eq!(albums[1]["files"], 2);
        assert_eq!(albums[1]["href"], "/api/v1/albums/shops%2F2026");
        let href = albums[1]["href"].as_str().unwrap();
        assert_eq!(daemon.get(href).expect(200).json(), albums[1]);

        let images = pages(&daemon, &format!("{href}/images"), 1);
        let names: Vec<_> = images.iter().map(|image| &image["name"]).collect();
        assert_eq!(names, ["Größe 1.jpg", "b&c %.jpg"]);
        let image = &images[0];
        assert_eq!(image["path"], "shops/2026/Größe 1.jpg");
        assert_eq!(image["album"], "shops/2026");
        assert_eq!(image["sha256"], sha256(b"bytes of /1"));
        assert_eq!(image["bytes"], 11);
        assert_eq!(image["urls"][0], site.url("/1"));
        assert_eq!(image["metadata"]["shop"], "7");
        assert_eq!(image["name_from"], "list");
        // Composed or apart, it is the same name.
        for name in ["Gr%C3%B6%C3%9Fe%201.jpg", "Gro%CC%88%C3%9Fe%201.jpg"] {
            let one = daemon.get(&format!("{href}/images/{name}")).expect(200);
            assert_eq!(one.json(), *image);
        }
        for image in &images {
            let got = daemon.get(image["href"].as_str().unwrap()).expect(200);
            assert_eq!(sha256(&got.body), image["sha256"]);
        }
        // An image is in its album only, and a folder is none.
        daemon
            .get("/api/v1/albums/shops/images/2026%2Fb%26c%20%25.jpg")
            .problem(404);
        daemon.get("/api/v1/albums/shop").problem(404);
        daemon.get("/api/v1/albums/shop/images").problem(404);
        daemon.get("/api/v1/albums/%2E%2E%2Fetc").problem(404);
        daemon
            .get("/api/v1/albums/shops/images/none.jpg")
            .problem(404);
        daemon
            .get("/api/v1/albums/shops/images?limit=1&page=2")
            .problem(400);
    }

    #[test]
    fn a_catalog_in_postgres_shows_the_same() {
        let Some(server) = Postgres::shared() else {
            return;
        };
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.txt", site.list(["/1", "/2", "/3"]));
        let catalog = format!("[catalog]\nurl = \"{}\"", server.database());
        settings_with(&sandbox, "", &catalog);
        let daemon = Daemon::start(&sandbox);
        let job = daemon.run("a")["job"].clone();
        assert_eq!(pages(&daemon, "/api/v1/albums", 1).len(), 1);
        let images = pages(&daemon, "/api/v1/albums/a/images", 2);
        assert_eq!(images.len(), 3);
        for image in &images {
            let got = daemon.get(image["href"].as_str().unwrap()).expect(200);
            assert_eq!(sha256(&got.body), image["sha256"]);
            assert_eq!(image["urls"].as_array().unwrap().len(), 1);
        }
        let jobs = pages(&daemon, "/api/v1/jobs?state=completed", 1);
        assert_eq!(jobs[0]["id"], job);
        let items = format!("/api/v1/jobs/{}/items", job.as_str().unwrap());
        assert_eq!(pages(&daemon, &items, 2).len(), 3);
        daemon.get("/api/v1/albums/b").problem(404);
        daemon.get("/files/a/%00").problem(404);
        daemon.get("/readyz").expect(200);
        let _ = daemon.stop();
    }

    #[test]
    fn the_root_folder_is_an_album() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.csv", format!("url,name\n{},r.jpg\n", site.url("/1")));
        settings(&sandbox, "");
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        let text = text.replace("a.txt", "a.csv").replace("album = \"a\"", "");
        sandbox.write("gannet.toml", text);
        let daemon = Daemon::start(&sandbox);
        daemon.run("a");
        let albums = pages(&daemon, "/api/v1/albums", 9);
        assert_eq!(albums.len(), 1);
        assert_eq!(albums[0]["name"], ":root");
        for name in [albums[0]["href"].as_str().unwrap(), "/api/v1/albums/."] {
            let images = pages(&daemon, &format!("{name}/images"), 9);
            assert_eq!(images[0]["name"], "r.jpg");
            assert_eq!(images[0]["href"], "/files/r.jpg");
            daemon.get(&format!("{name}/images/r.jpg")).expect(200);
        }
        for path in ["/files/r.jpg", "/files/:root/r.jpg", "/files/./r.jpg"] {
            assert_eq!(daemon.get(path).expect(200).body, b"bytes of /1");
        }
    }

    #[test]
    fn pages_have_every_file_once_while_more_come() {
        let sandbox = Sandbox::new();
        let gate = Gate::new();
        let site = Site::start({
            let gate = gate.clone();
            move |asked| {
                if asked.path.starts_with("/late") {
                    gate.pass();
                }
                Answer::ok(asked.path.clone())
            }
        });
        let url = |name: String| format!("{},{name}.jpg\n", site.url(&format!("/{name}")));
        let early: String = (0..1000).map(|n| url(format!("n{n:04}"))).collect();
        let daemon = with_files(&sandbox, &format!("url,name\n{early}"));
        // Before, among and behind those that are there.
        let late: String = (0..300)
            .map(|n| {
                url(format!("late{n:04}"))
                    .replace(",late", if n % 2 == 0 { ",a" } else { ",n0500-" })
            })
            .collect();
        sandbox.write("a.csv", format!("url,name\n{late}"));
        daemon.ask("run", "a").expect(0);
        site.wait_for(1001);
        let images = "/api/v1/albums/a/images";
        let page = daemon
            .get(&format!("{images}?limit=600"))
            .expect(200)
            .json();
        gate.open();
        daemon.until("a", "has more", |a| a["last"]["counts"]["stored"] == 300);
        let next = page["next"].as_str().unwrap();
        let mut all = page["items"].as_array().unwrap().clone();
        let mut cursor = Some(next.to_owned());
        while let Some(next) = cursor {
            let page = daemon.get(&format!("{images}?limit=70&cursor={next}"));
            let page = page.expect(200).json();
            all.extend(page["items"].as_array().unwrap().clone());
            cursor = page["next"].as_str().map(str::to_owned);
        }
        let names: Vec<_> = all
            .iter()
            .map(|image| image["name"].as_str().unwrap())
            .collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        let early = names.iter().filter(|name| name.len() == "n0000.jpg".len());
        assert_eq!(early.filter(|name| name.starts_with('n')).count(), 1000);
        assert_eq!(pages(&daemon, images, 1000).len(), 1300);
    }

    #[test]
    fn a_template_of_another_order_leaves_names_that_work() {
        let sandbox = Sandbox::new();
        let site = plain();
        sandbox.write("a.csv", format!("url,name\n{},t.jpg\n", site.url("/1")));
        settings_with(
            &sandbox,
            "",
            "naming.template = \"{format}/{album}/{name}\"",
        );
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        sandbox.write("gannet.toml", text.replace("a.txt", "a.csv"));
        let daemon = Daemon::start(&sandbox);
        daemon.run("a");
        let images = pages(&daemon, "/api/v1/albums/a/images", 9);
        let name = images[0]["name"].as_str().unwrap();
        assert!(name.ends_with("/a/t.jpg"), "{name}");
        let name = name.replace('/', "%2F");
        daemon
            .get(&format!("/api/v1/albums/a/images/{name}"))
            .expect(200);
        daemon.get(&format!("/files/a/{name}")).expect(200);
        daemon.get(images[0]["href"].as_str().unwrap()).expect(200);
    }
}

mod files {
    use super::*;

    const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"><script>1</script></svg>";

    /// One file `a/NAME` of these bytes.
    fn one<'a>(
        sandbox: &'a Sandbox,
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> (Daemon<'a>, Site) {
        let site = Site::start(move |_| Answer::ok(bytes.as_ref()));
        let daemon = with_files(sandbox, &format!("url,name\n{},{name}\n", site.url("/1")));
        (daemon, site)
    }

    #[test]
    fn a_file_comes_whole_or_in_parts() {
        let sandbox = Sandbox::new();
        let (daemon, _site) = one(&sandbox, "n.txt", "0123456789");
        let api = daemon.api();
        let get = |headers: &[(&str, &str)]| ask(api, "GET", "/files/a/n.txt", headers);
        let whole = get(&[]).expect(200);
        assert_eq!(whole.body, b"0123456789");
        let etag = format!("\"{}\"", sha256(b"0123456789"));
        let date = whole.header("last-modified").unwrap().to_owned();
        for (name, value) in [
            ("etag", &*etag),
            ("content-length", "10"),
            ("accept-ranges", "bytes"),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ] {
            assert_eq!(whole.header(name), Some(value), "{whole}");
        }
        assert_eq!(whole.header("content-disposition"), None);

        let part = get(&[("Range", "bytes=2-4")]).expect(206);
        assert_eq!(part.body, b"234");
        assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
        assert_eq!(part.header("content-length"), Some("3"));
        assert_eq!(part.header("etag"), Some(&*etag));
        assert_eq!(get(&[("Range", "bytes=-1")]).expect(206).body, b"9");
        assert_eq!(get(&[("Range", "bytes=8-")]).expect(206).body, b"89");
        // Several are answered whole.
        assert_eq!(
            get(&[("Range", "bytes=0-1,4-5")]).expect(200).body,
            whole.body
        );
        let beyond = get(&[("Range", "bytes=10-")]);
        assert_eq!(beyond.header("content-range"), Some("bytes */10"));
        beyond.problem(416);
        let of = |known: &str| get(&[("Range", "bytes=2-4"), ("If-Range", known)]).status;
        assert_eq!((of(&etag), of(&date), of("\"other\"")), (206, 206, 200));

        for (name, value, status) in [
            ("If-None-Match", &*etag, 304),
            ("If-None-Match", "\"other\"", 200),
            ("If-Modified-Since", &*date, 304),
            ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", 200),
            ("If-Match", "\"other\"", 412),
        ] {
            let got = get(&[(name, value)]).expect(status);
            if status == 304 {
                assert!(got.body.is_empty());
                assert_eq!(got.header("etag"), Some(&*etag));
            }
        }
        let head = ask(api, "HEAD", "/files/a/n.txt", &[("Range", "bytes=2-4")]).expect(200);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), Some("10"));
        assert_eq!(head.header("etag"), Some(&*etag));
        ask(api, "DELETE", "/files/a/n.txt", &[]).problem(405);
        daemon.get("/files/a/n.txt?width=1").problem(400);
    }

    #[test]
    fn an_svg_runs_nothing() {
        let sandbox = Sandbox::new();
        let (daemon, _site) = one(&sandbox, "s.svg", SVG);
        let got = daemon.get("/files/a/s.svg").expect(200);
        assert_eq!(got.header("content-type"), Some("image/svg+xml"));
        let policy = got.header("content-security-policy");
        assert_eq!(policy, Some("default-src 'none'; sandbox"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    }

    #[test]
    fn a_browser_is_told_to_unpack_an_svgz() {
        let sandbox = Sandbox::new();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, SVG.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let (daemon, _site) = one(&sandbox, "s.svgz", packed.clone());
        let got = daemon.get("/files/a/s.svgz").expect(200);
        assert_eq!(got.header("content-type"), Some("image/svg+xml"));
        assert_eq!(got.header("content-encoding"), Some("gzip"));
        assert_eq!(got.body, packed);
        // What is saved under this name stays packed.
        let got = daemon.get("/files/a/s.svgz?download").expect(200);
        assert_eq!(got.header("content-encoding"), None);
        assert_eq!(got.body, packed);
    }

    #[test]
    fn a_download_has_its_name() {
        let sandbox = Sandbox::new();
        let (daemon, _site) = one(&sandbox, "Größe 1.txt", "text");
        let path = "/files/a/Gr%C3%B6%C3%9Fe%201.txt";
        let got = daemon.get(&format!("{path}?download")).expect(200);
        assert_eq!(
            got.header("content-disposition"),
            Some("attachment; filename=\"Gr__e 1.txt\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.txt")
        );
        // With the slash encoded too.
        daemon.get(&path.replace("/a/", "/a%2F")).expect(200);
        daemon.get("/files/a/%FF").problem(400);
    }

    #[test]
    fn only_what_is_recorded_and_as_it_was_recorded_is_sent() {
        let sandbox = Sandbox::new();
        let (daemon, _site) = one(&sandbox, "n.txt", "0123456789");
        let secret = sandbox.write("secret.txt", "0123456789");
        let store = sandbox.store();
        // Neither what somebody put there, nor what leads out of the store, nor gannet's own.
        std::fs::write(store.join("a/mine.txt"), "mine").unwrap();
        std::os::unix::fs::symlink(&secret, store.join("a/link.txt")).unwrap();
        for path in [
            "a/mine.txt",
            "a/link.txt",
            "a",
            "a/",
            ".gannet/catalog.db",
            "../secret.txt",
            "..%2Fsecret.txt",
            "a/%2E%2E/%2E%2E/secret.txt",
            "a%00",
            "%2Fetc%2Fpasswd",
        ] {
            daemon.get(&format!("/files/{path}")).problem(404);
        }
        // A link in the place of the file, and of its folder.
        let file = store.join("a/n.txt");
        std::fs::remove_file(&file).unwrap();
        let detail = daemon.get("/files/a/n.txt").problem(404);
        assert!(detail.contains("gannet verify --repair"), "{detail}");
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        daemon.get("/files/a/n.txt").problem(404);
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(store.join("a"), store.join("b")).unwrap();
        sandbox.write("elsewhere/n.txt", "0123456789");
        std::os::unix::fs::symlink(sandbox.path("elsewhere"), store.join("a")).unwrap();
        daemon.get("/files/a/n.txt").problem(404);
        // Other bytes of the same length.
        std::fs::remove_file(store.join("a")).unwrap();
        std::fs::rename(store.join("b"), store.join("a")).unwrap();
        std::fs::write(&file, "9876543210").unwrap();
        daemon.get("/files/a/n.txt").problem(404);
        std::fs::write(&file, "0123456789").unwrap();
        daemon.get("/files/a/n.txt").expect(200);
    }

    #[test]
    fn a_large_file_takes_little_memory() {
        let sandbox = Sandbox::new();
        let site = Site::start(|_| Answer::ok(vec![7; 96 << 20]));
        let daemon = with_files(&sandbox, &format!("url,name\n{},n.bin\n", site.url("/1")));
        let peak = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmHWM:"));
            let kib = line.unwrap().split_whitespace().nth(1).unwrap();
            kib.parse::<u64>().unwrap()
        };
        daemon.get("/files/a/n.bin?download").expect(200);
        let before = peak();
        for _ in 0..2 {
            assert_eq!(
                daemon.get("/files/a/n.bin").expect(200).body.len(),
                96 << 20
            );
        }
        // The kernel adds up what its threads have counted by now, which may come out smaller.
        let grown = peak().saturating_sub(before);
        assert!(
            before < 128 << 10 && grown < 8 << 10,
            "{before} KiB and {grown} KiB more"
        );
    }

    #[test]
    fn a_changed_file_has_another_tag() {
        let sandbox = Sandbox::new();
        let count = Arc::new(AtomicUsize::new(0));
        let site = Site::start({
            let count = count.clone();
            move |_| Answer::ok(format!("{}", count.fetch_add(1, Ordering::SeqCst)))
        });
        let daemon = with_files(&sandbox, &format!("url,name\n{},n.txt\n", site.url("/1")));
        let first = daemon.get("/files/a/n.txt").expect(200);
        daemon.run("a");
        let known = [("If-None-Match", first.header("etag").unwrap())];
        let second = ask(daemon.api(), "GET", "/files/a/n.txt", &known).expect(200);
        assert_eq!((&*first.body, &*second.body), (&b"0"[..], &b"1"[..]));
    }
}

mod service {
    use super::*;

    #[test]
    fn health_takes_no_token_and_tells_when_the_store_cannot_be_written() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &tokens());
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        for path in ["/healthz", "/readyz"] {
            // By whatever name a monitor calls it.
            ask(api, "GET", path, &[("Host", "gannet.example")]).expect(200);
        }
        std::fs::create_dir(sandbox.store().join(".gannet/probe")).unwrap();
        let detail = until("it is not ready", || {
            let got = ask(api, "GET", "/readyz", &[]);
            match got.status {
                200 => Err("ready".to_owned()),
                _ => Ok(got.problem(503)),
            }
        });
        assert!(detail.contains("store"), "{detail}");
        ask(api, "GET", "/healthz", &[]).expect(200);
        std::fs::remove_dir(sandbox.store().join(".gannet/probe")).unwrap();
        until("it is ready again", || {
            match ask(api, "GET", "/readyz", &[]).status {
                200 => Ok(()),
                status => Err(status.to_string()),
            }
        });
    }

    #[test]
    fn a_catalog_that_is_held_by_another_makes_it_not_ready() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let path = sandbox.store().join(".gannet/catalog.db");
        let db = rusqlite::Connection::open(path).unwrap();
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let detail = daemon.get("/readyz").problem(503);
        assert!(detail.contains("catalog"), "{detail}");
        // Others read as ever.
        daemon.get("/api/v1/jobs").expect(200);
        db.execute_batch("ROLLBACK").unwrap();
    }
}
