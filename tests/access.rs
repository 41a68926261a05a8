//! Who may ask `gannet daemon` over HTTP, by which connections, from which pages, how often; and what is noted of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::daemon::until;
use support::http::{Got, ask, connect, parse};
use support::{Daemon, Sandbox};

const TOKEN: &str = "reader-0123456789abcdef";
const OTHER: &str = "other-0123456789abcdef";

fn settings(sandbox: &Sandbox, api: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\n[api]\nlisten = \"127.0.0.1:0\"\n{api}\n[[schedule]]\nname = \"a\"\n\
         cron = \"@yearly\"\nsource = \"a.txt\"\n"
    );
    sandbox.write("gannet.toml", text);
}

/// `[api]` keys with two tokens.
fn tokens() -> String {
    format!(
        "tokens.reader = {{ token = \"{TOKEN}\", scopes = [\"read\"] }}\n\
         tokens.other = {{ token = \"{OTHER}\", scopes = [\"read\", \"admin\"] }}"
    )
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

mod tls {
    use super::*;

    /// Writes `cert.pem` and `key.pem`, and returns the first.
    fn certify(sandbox: &Sandbox) -> String {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).unwrap();
        sandbox.write("cert.pem", own.cert.pem());
        sandbox.write("key.pem", own.signing_key.serialize_pem());
        own.cert.pem()
    }

    /// A request by somebody who trusts that certificate alone.
    fn ask_by_tls(to: SocketAddr, trusted: &str, head: &str) -> Result<Got, std::io::Error> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(to));
        stream.write_all(head.as_bytes())?;
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(parse(&bytes))
    }

    fn head(to: SocketAddr, more: &str) -> String {
        format!("GET /api/v1/status HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{more}\r\n")
    }

    const TLS: &str = "tls = { cert = \"cert.pem\", key = \"key.pem\" }";

    #[test]
    fn connections_are_by_tls_and_by_nothing_else() {
        let sandbox = Sandbox::new();
        let trusted = certify(&sandbox);
        settings(&sandbox, TLS);
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let got = ask_by_tls(api, &trusted, &head(api, "")).unwrap();
        assert!(got.header("x-request-id").is_some(), "{got}");
        got.expect(200);
        // A page of the API's own is one that came by TLS.
        let own = format!("Origin: https://{api}\r\n");
        ask_by_tls(api, &trusted, &head(api, &own))
            .unwrap()
            .expect(200);
        let plain = format!("Origin: http://{api}\r\n");
        ask_by_tls(api, &trusted, &head(api, &plain))
            .unwrap()
            .problem(403);
        let mut stream = connect(api);
        stream.write_all(head(api, "").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
        // The socket has no need of it.
        assert!(daemon.status()["schedules"].is_array());
        let _ = daemon.stop();
    }

    #[test]
    fn a_certificate_is_changed_while_it_runs_and_a_bad_one_is_not_taken() {
        let sandbox = Sandbox::new();
        let first = certify(&sandbox);
        settings(&sandbox, TLS);
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let is_trusted = |trusted: &str| ask_by_tls(api, trusted, &head(api, "")).is_ok();
        assert!(is_trusted(&first));
        let second = certify(&sandbox);
        assert!(
            is_trusted(&first) && !is_trusted(&second),
            "before the reload"
        );
        daemon.reload();
        assert!(is_trusted(&second) && !is_trusted(&first), "after it");
        // The key of another certificate.
        let key = std::fs::read(sandbox.path("key.pem")).unwrap();
        certify(&sandbox);
        sandbox.write("key.pem", key);
        daemon.reload();
        assert!(is_trusted(&second));
        sandbox.write("cert.pem", "no certificate");
        daemon.reload();
        assert!(is_trusted(&second));
        let run = daemon.stop();
        assert!(
            run.stderr.contains("are no pair of certificate and key"),
            "{run}"
        );
        assert!(
            run.stderr.contains("has no certificate in PEM form"),
            "{run}"
        );
    }

    #[test]
    fn what_cannot_be_used_is_said_before_anything_starts() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "tls = { cert = \"cert.pem\", key = \"\" }");
        let run = sandbox.run(["check"]).expect(1);
        assert!(run.stderr.contains("both `cert` and `key`"), "{run}");
        settings(&sandbox, TLS);
        let run = sandbox.run(["check"]).expect(1);
        assert!(
            run.stderr.contains("cert.pem") && run.stderr.contains("api.tls.cert"),
            "{run}"
        );
    }

    #[test]
    fn who_begins_no_handshake_does_not_hold_up_the_end() {
        let sandbox = Sandbox::new();
        certify(&sandbox);
        settings(&sandbox, TLS);
        let daemon = Daemon::start(&sandbox);
        let silent: Vec<TcpStream> = (0..5).map(|_| connect(daemon.api())).collect();
        let _ = daemon.stop();
        drop(silent);
    }
}

mod pages {
    use super::*;

    const GALLERY: &str = "https://gallery.example.org";

    fn preflight(daemon: &Daemon<'_>, origin: &str) -> Got {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "PATCH"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type",
            ),
        ];
        ask(daemon.api(), "OPTIONS", "/api/v1/albums/a", &headers)
    }

    #[test]
    fn only_sites_that_are_named_may_ask() {
        let sandbox = Sandbox::new();
        settings(
            &sandbox,
            &format!("cors_origins = [\"{GALLERY}\"]\n{}", tokens()),
        );
        let daemon = Daemon::start(&sandbox);
        // Before it has a token.
        let got = preflight(&daemon, GALLERY).expect(200);
        assert_eq!(got.header("access-control-allow-origin"), Some(GALLERY));
        assert!(
            got.header("access-control-allow-methods")
                .unwrap()
                .contains("PATCH")
        );
        assert_eq!(
            got.header("access-control-allow-headers"),
            Some("authorization,content-type")
        );
        assert_eq!(got.header("access-control-allow-credentials"), None);
        let other = preflight(&daemon, "https://other.example.org");
        assert_eq!(other.header("access-control-allow-origin"), None);
        let bearer = bearer(TOKEN);
        for (origin, allowed) in [
            (GALLERY, Some(GALLERY)),
            ("https://other.example.org", None),
            ("null", None),
        ] {
            let headers = [("Origin", origin), ("Authorization", bearer.as_str())];
            let got = ask(daemon.api(), "GET", "/api/v1/status", &headers).expect(200);
            assert_eq!(
                got.header("access-control-allow-origin"),
                allowed,
                "{origin}"
            );
            assert!(
                got.header("vary")
                    .unwrap()
                    .to_ascii_lowercase()
                    .contains("origin")
            );
        }
        // Also an error can be read.
        let got = ask(
            daemon.api(),
            "GET",
            "/api/v1/status",
            &[("Origin", GALLERY)],
        );
        assert_eq!(got.header("access-control-allow-origin"), Some(GALLERY));
        assert!(
            got.header("access-control-expose-headers")
                .unwrap()
                .contains("retry-after")
        );
        got.problem(401);
    }

    #[test]
    fn without_a_setting_no_page_is_told_anything() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &tokens());
        let daemon = Daemon::start(&sandbox);
        let got = preflight(&daemon, GALLERY);
        assert_eq!(got.header("access-control-allow-origin"), None);
        got.problem(405);
        // From a reload on.
        settings(&sandbox, &format!("cors_origins = [\"*\"]\n{}", tokens()));
        daemon.reload();
        let got = preflight(&daemon, GALLERY).expect(200);
        assert_eq!(got.header("access-control-allow-origin"), Some(GALLERY));
    }

    #[test]
    fn without_tokens_only_named_sites_may_ask() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "cors_origins = [\"http://localhost:3000\"]");
        let daemon = Daemon::start(&sandbox);
        let status = |method, headers: &[(&str, &str)]| {
            ask(daemon.api(), method, "/api/v1/schedules/a/pause", headers).status
        };
        assert_eq!(status("POST", &[("Origin", "http://localhost:3000")]), 200);
        for headers in [
            &[("Origin", "http://localhost:3001")][..],
            &[("Origin", "null")],
            &[
                ("Origin", "https://evil.example"),
                ("Content-Type", "text/plain"),
            ],
            &[
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Mode", "no-cors"),
            ],
            &[
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Mode", "navigate"),
            ],
            // A name that leads here since its owner wants it to.
            &[("Host", "rebound.example")],
            &[
                ("Host", "rebound.example"),
                ("Origin", "http://rebound.example"),
            ],
            &[("Host", "localhost"), ("Host", "rebound.example")],
        ] {
            assert_eq!(status("POST", headers), 403, "{headers:?}");
        }
        settings(&sandbox, "cors_origins = [\"*\"]");
        let run = sandbox.run(["check"]).expect(1);
        assert!(run.stderr.contains("api.cors_origins"), "{run}");
    }
}

mod rate {
    use super::*;

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &format!("rate = 1\nburst = 3\n{}", tokens()));
        let daemon = Daemon::start(&sandbox);
        let api = daemon.api();
        let get = |token: &str| {
            let bearer = bearer(token);
            ask(api, "GET", "/api/v1/status", &[("Authorization", &bearer)])
        };
        // One more comes in each second that this takes.
        let refused = (0..100)
            .map(|_| get(TOKEN))
            .find(|got| got.status != 200)
            .unwrap();
        assert_eq!(refused.header("retry-after"), Some("1"), "{refused}");
        let detail = refused.problem(429);
        assert!(detail.contains("api.rate"), "{detail}");
        // Each for itself, and what takes no token is not counted.
        get(OTHER).expect(200);
        for _ in 0..10 {
            ask(api, "GET", "/healthz", &[]).expect(200);
        }
        until("the reader may ask again", || match get(TOKEN).status {
            200 => Ok(()),
            other => Err(other.to_string()),
        });
    }

    #[test]
    fn without_tokens_all_share_one_rate() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "rate = 1\nburst = 2");
        let daemon = Daemon::start(&sandbox);
        let refused = (0..100)
            .map(|_| daemon.get("/api/v1/status"))
            .find(|got| got.status != 200);
        refused.unwrap().problem(429);
        // The socket is for who may do anything.
        for _ in 0..10 {
            assert!(daemon.status()["schedules"].is_array());
        }
    }
}

mod log {
    use super::*;

    #[test]
    fn each_request_has_an_id_and_a_line() {
        let sandbox = Sandbox::new();
        settings(&sandbox, &tokens());
        let text = std::fs::read_to_string(sandbox.path("gannet.toml")).unwrap();
        sandbox.write("gannet.toml", text + "[log]\nformat = \"json\"\n");
        let daemon = Daemon::start(&sandbox);
        let bearer = bearer(TOKEN);
        let own = "check-17";
        let headers = [("Authorization", bearer.as_str()), ("X-Request-Id", own)];
        let got = ask(daemon.api(), "GET", "/api/v1/albums?limit=7", &headers).expect(200);
        assert_eq!(got.header("x-request-id"), Some(own));
        let target = format!("/api/v1/status?token={OTHER}");
        let refused = ask(daemon.api(), "GET", &target, &[]);
        let id = refused.header("x-request-id").unwrap().to_owned();
        refused.problem(401);
        daemon.get("/healthz").expect(200);
        let run = daemon.stop();
        let lines: Vec<serde_json::Value> = run
            .stderr
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["target"] == "gannet::access")
            .collect();
        let [first, second] = &lines[..] else {
            panic!("{run}")
        };
        let fields = |line: &serde_json::Value| match &line["fields"] {
            serde_json::Value::Object(fields) => fields.clone(),
            _ => line.as_object().unwrap().clone(),
        };
        let (first, second) = (fields(first), fields(second));
        assert_eq!(first["request.id"], own, "{run}");
        assert_eq!(first["method"], "GET");
        assert_eq!(first["path"], "/api/v1/albums");
        assert_eq!(first["status"], 200);
        assert_eq!(first["bytes"], got.body.len());
        assert_eq!(first["token"], "reader");
        assert!(first["elapsed_ms"].is_u64());
        assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(
            (&second["request.id"], &second["status"]),
            (&id.into(), &401.into())
        );
        assert_eq!(second["token"], "-");
        assert!(
            !run.stderr.contains(TOKEN) && !run.stderr.contains(OTHER),
            "{run}"
        );
    }

    #[test]
    fn the_lines_can_be_left_out() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "access_log = false");
        let daemon = Daemon::start(&sandbox);
        let got = daemon.get("/api/v1/albums").expect(200);
        let id = got.header("x-request-id").unwrap().to_owned();
        let run = daemon.stop();
        assert!(!run.stderr.contains(&id), "{run}");
    }
}

#[test]
fn a_token_may_be_a_credential_of_the_service() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "");
    // As `LoadCredential=` hands it over: a folder of its own with files that nobody else reads.
    let folder = sandbox.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("gallery"), format!("{TOKEN}\n")).unwrap();
    let path = folder.join("gallery");
    settings(
        &sandbox,
        &format!(
            "tokens.gallery = {{ token_file = \"{}\", scopes = [\"read\"] }}",
            path.display()
        ),
    );
    let daemon = Daemon::start(&sandbox);
    let api = daemon.api();
    let status = |token: &str| {
        let bearer = bearer(token);
        ask(api, "GET", "/api/v1/status", &[("Authorization", &bearer)]).status
    };
    assert_eq!((status(TOKEN), status(OTHER)), (200, 401));
    // Another one holds from a reload on; a file that is gone changes nothing.
    std::fs::write(&path, OTHER).unwrap();
    daemon.reload();
    assert_eq!((status(TOKEN), status(OTHER)), (401, 200));
    std::fs::remove_file(&path).unwrap();
    daemon.reload();
    assert_eq!(status(OTHER), 200);
    // Others who look at the daemon need not read it.
    assert!(daemon.status()["schedules"].is_array());
    let run = sandbox.run(["check"]).expect(1);
    assert!(
        run.stderr.contains("api.tokens.gallery.token_file"),
        "{run}"
    );
    let run = daemon.stop();
    assert!(run.stderr.contains("credentials/gallery"), "{run}");
}
