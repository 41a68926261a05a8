//! The HTTP API of `gannet daemon`, the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::io::{Read as _, Write as _};

use support::http::{ask, connect, parse};
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
        let detail = daemon.get("/api/v1/nothing").problem(404);
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
    fn what_was_asked_before_the_end_is_answered_and_then_nobody_is() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "");
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let (mut idle, mut half) = (connect(api), connect(api));
        write!(half, "GET /api/v1/status HTTP/1.1\r\nHost: {api}\r\n").unwrap();
        let _ = daemon.stop();
        // Both are let go: neither holds up the end.
        let mut rest = Vec::new();
        let _ = idle.read_to_end(&mut rest);
        assert!(rest.is_empty());
        let _ = half.read_to_end(&mut rest);
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
