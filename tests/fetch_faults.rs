//! What becomes of a request when the origin, or the way to it, is faulty.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod origin;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gannet::fetch::{
    Client, FetchError, Hosts, Phase, ProxySettings, RedirectProblem, Request, Response, Resume,
    Validators,
};
use gannet::target::Reason;
use origin::tls::Identity;
use origin::{Origin, Parting, Reply, client, settings};
use url::Url;

const NO_LIMIT: u64 = u64::MAX;

fn request(url: &Url) -> Request<'_> {
    Request {
        url,
        origin: url,
        accept: "image/*",
        validators: None,
        resume: None,
        trail: None,
        avoid: &[],
        max_bytes: NO_LIMIT,
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut all = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    read(client.send(request(url)).await?).await
}

/// What one answer of an origin comes to, with settings changed by `changes`.
async fn outcome(reply: Reply, changes: &str) -> Result<Vec<u8>, FetchError> {
    let origin = Origin::with("/file", reply);
    fetch(&client(changes), &origin.url("/file")).await
}

async fn failure(reply: Reply, changes: &str) -> FetchError {
    outcome(reply, changes)
        .await
        .expect_err("the request should fail")
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    compress(bytes, "gzip")
}

/// `bytes` compressed by a coding of HTTP.
fn compress(bytes: &[u8], coding: &str) -> Vec<u8> {
    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use tokio::io::AsyncWriteExt as _;
    macro_rules! through {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            futures_util::future::FutureExt::now_or_never(async {
                encoder.write_all(bytes).await.unwrap();
                encoder.shutdown().await.unwrap();
            })
            .unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "br" => through!(BrotliEncoder),
        "zstd" => through!(ZstdEncoder),
        "deflate" => through!(ZlibEncoder),
        _ => through!(GzipEncoder),
    }
}

#[tokio::test]
async fn a_body_arrives_as_it_is_however_it_is_framed() {
    let bytes = body(200_000);
    for reply in [
        Reply::ok(bytes.clone()),
        Reply::ok(bytes.clone()).chunked(),
        Reply::ok(bytes.clone()).until_close(),
        Reply::ok(bytes.clone())
            .chunked()
            .drip(7_000, Duration::from_millis(1)),
    ] {
        assert!(outcome(reply, "").await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let origin = Origin::with("/file", Reply::ok(body(17_000)));
    let client = client("");
    for _ in 0..20 {
        assert_eq!(
            fetch(&client, &origin.url("/file")).await.unwrap().len(),
            17_000
        );
    }
    assert_eq!((origin.hits("/file"), origin.connections()), (20, 1));
}

#[tokio::test]
async fn an_answer_whose_body_is_not_wanted_gives_its_connection_back() {
    let origin = Origin::builder()
        .route("/missing", Reply::status(404).body(body(1_000)))
        .route("/moved", Reply::redirect(302, "/missing").body(body(200)))
        .route("/file", Reply::ok("a").etag("\"v1\""))
        .start();
    let client = client("");
    let known = Validators {
        etag: Some("\"v1\"".to_owned()),
        last_modified: None,
    };
    for (path, status) in [("/missing", 404), ("/moved", 302), ("/file", 304)].repeat(5) {
        let url = origin.url(path);
        let asked = Request {
            validators: Some(&known),
            ..request(&url)
        };
        assert_eq!(client.send(asked).await.unwrap().status, status);
    }
    assert_eq!((origin.total(), origin.connections()), (15, 1));
}

#[tokio::test]
async fn limits_beyond_all_measure_do_no_harm() {
    let long = "\"1000000000 years\"";
    let changes = format!(
        "idle_timeout = {long}\ntotal_timeout = {long}\nconnect_timeout = {long}\nmin_speed_window = {long}"
    );
    assert_eq!(
        outcome(
            Reply::ok(body(100)).drip(50, Duration::from_millis(1)),
            &changes
        )
        .await
        .unwrap(),
        body(100)
    );
}

#[tokio::test]
async fn a_body_cut_off_is_truncated() {
    for reply in [
        Reply::ok(body(9_000)).cut_after(5_000),
        Reply::ok(body(5_000)).claim_length(9_000),
        Reply::ok(body(9_000)).chunked().cut_after(5_000),
        Reply::ok(body(9_000)).cut_after(0),
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        Reply::ok(gzip(&body(9_000)))
            .header("Content-Encoding", "gzip")
            .cut_after(300),
        // Nothing but the decoder can know.
        Reply::raw(
            [
                &b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n"[..],
                &gzip(&body(9_000))[..300],
            ]
            .concat(),
        ),
    ] {
        let error = failure(reply.clone(), "").await;
        assert_eq!(error.reason(), Reason::Truncated, "{reply:?}: {error:?}");
        assert!(error.is_retriable() && error.keeps_part() && !error.is_connect());
    }
    let error = failure(Reply::ok(body(9_000)).cut_after(5_000), "").await;
    assert!(
        matches!(
            error,
            FetchError::Truncated {
                got: 5_000,
                expected: Some(9_000),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_length_that_is_too_short_ends_the_body_there() {
    assert_eq!(
        outcome(Reply::ok(body(9_000)).claim_length(5_000), "")
            .await
            .unwrap(),
        body(5_000)
    );
}

#[tokio::test]
async fn a_lost_connection_is_a_reset() {
    for reply in [
        Reply::reset(),
        Reply::close(),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Le"),
        Reply::ok(body(9_000)).reset_after(5_000),
    ] {
        let error = failure(reply.clone(), "").await;
        assert_eq!(error.reason(), Reason::Reset, "{reply:?}: {error:?}");
        assert!(error.is_retriable() && !error.is_connect());
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_bad_response() {
    for raw in [
        &b"\x00\x01\x02\x03garbage\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc Never\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x07\0\0\0\0\0\0\0",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, gzip, gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-2/3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ] {
        let error = failure(Reply::raw(raw), "").await;
        assert_eq!(error.reason(), Reason::BadResponse, "{}: {error:?}", String::from_utf8_lossy(raw));
        assert!(!error.is_retriable());
    }
}

#[tokio::test]
async fn headers_beyond_their_limit_are_a_bad_response() {
    let long = "x".repeat(5_000);
    assert!(
        outcome(Reply::ok("a").header("X-Long", &long), "")
            .await
            .is_ok()
    );
    let error = failure(
        Reply::ok("a").header("X-Long", &long),
        "max_header_bytes = 4096",
    )
    .await;
    assert_eq!(
        (error.reason(), error.status()),
        (Reason::BadResponse, Some(200))
    );
    let many = |count| {
        (0..count).fold(Reply::ok("a"), |reply, n| {
            reply.header(&format!("X-{n}"), "1")
        })
    };
    assert!(outcome(many(1_000), "").await.is_ok());
    // More than hyper reads at all.
    let endless = Reply::raw(["HTTP/1.1 200 OK\r\nX-Long: ", &"x".repeat(2_000_000)].concat());
    for reply in [endless, many(2_000)] {
        let error = failure(reply, "").await;
        assert_eq!(error.reason(), Reason::BadResponse);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.contains("1024 headers") && cause.contains("400 KiB"),
            "{cause}"
        );
    }
}

#[tokio::test]
async fn a_zstd_window_beyond_what_is_allowed_is_said_to_be_too_large() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&body(100_000)).unwrap();
    let reply = Reply::ok(encoder.finish().unwrap()).header("Content-Encoding", "zstd");
    let error = failure(reply, "").await;
    assert_eq!(error.reason(), Reason::BadResponse);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("window") && cause.contains("8 MiB"),
        "{cause}"
    );
}

#[tokio::test]
async fn every_known_content_encoding_is_taken_off() {
    let bytes = body(100_000);
    for (header, coding) in [
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("deflate", "deflate"),
    ] {
        let reply = Reply::ok(compress(&bytes, coding)).header("Content-Encoding", header);
        let origin = Origin::with("/file", reply);
        let url = origin.url("/file");
        let client = client("");
        let response = client.send(request(&url)).await.unwrap();
        assert!(
            response.is_encoded()
                && response.content_length().is_none()
                && response.resume(5).is_none()
        );
        assert!(read(response).await.unwrap() == bytes, "{header}");
        assert_eq!(
            origin.asked("/file")[0].header("accept-encoding"),
            Some("gzip, br, zstd")
        );
    }
    let twice = Reply::ok(gzip(&compress(&bytes, "br"))).header("Content-Encoding", "br, gzip");
    assert!(outcome(twice, "").await.unwrap() == bytes);
    let identity = Reply::ok(bytes.clone()).header("Content-Encoding", "identity");
    assert!(outcome(identity, "").await.unwrap() == bytes);
    let empty = Reply::ok("").header("Content-Encoding", "gzip");
    assert!(outcome(empty, "").await.unwrap().is_empty());
    let members = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(
        outcome(Reply::ok(members).header("Content-Encoding", "gzip"), "")
            .await
            .unwrap(),
        b"one two"
    );
}

#[tokio::test]
async fn a_body_is_too_large_as_soon_as_that_is_known() {
    let too_large = |error: FetchError, limit| matches!(error, FetchError::TooLarge { limit: l, .. } if l == limit);
    let origin = Origin::builder()
        .route(
            "/length",
            Reply::ok(body(10)).claim_length(1 << 40).hang_after(0),
        )
        .route("/endless", Reply::ok(body(60_000)).endless())
        .route(
            "/bomb",
            Reply::ok(gzip(&vec![0; 5_000_000])).header("Content-Encoding", "gzip"),
        )
        .route("/exact", Reply::ok(body(100_000)))
        .start();
    let client = client("");
    fn limited(url: &Url) -> Request<'_> {
        Request {
            max_bytes: 100_000,
            ..request(url)
        }
    }
    let url = origin.url("/length");
    let error = client.send(limited(&url)).await.unwrap_err();
    assert!(error.to_string().contains("announces 1099511627776 bytes"));
    assert!(too_large(error, 100_000));
    for path in ["/endless", "/bomb"] {
        let url = origin.url(path);
        let response = client.send(limited(&url)).await.unwrap();
        let error = read(response).await.unwrap_err();
        assert!(!error.is_retriable() && error.reason() == Reason::TooLarge);
        assert!(error.to_string().contains("sent more than 100000 bytes"));
        assert!(too_large(error, 100_000), "{path}");
    }
    let url = origin.url("/exact");
    assert_eq!(
        read(client.send(limited(&url)).await.unwrap())
            .await
            .unwrap()
            .len(),
        100_000
    );
}

#[tokio::test]
async fn silence_runs_into_the_idle_limit() {
    let changes = "idle_timeout = \"150ms\"";
    let error = failure(Reply::silent(), changes).await;
    assert!(
        matches!(
            error,
            FetchError::Timeout {
                phase: Phase::Head,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_retriable() && !error.is_connect());
    for reply in [
        Reply::ok(body(9_000)).hang_after(5_000),
        Reply::ok(body(9_000)).chunked().hang_after(5_000),
        Reply::ok(body(9_000)).hang_after(0),
    ] {
        let error = failure(reply, changes).await;
        assert!(
            matches!(
                error,
                FetchError::Timeout {
                    phase: Phase::Body,
                    ..
                }
            ),
            "{error:?}"
        );
    }
    // Slow, but never silent for so long.
    let reply = Reply::ok(body(10)).drip(1, Duration::from_millis(40));
    assert_eq!(outcome(reply, changes).await.unwrap(), body(10));
}

#[tokio::test]
async fn an_attempt_ends_at_its_total_limit_however_busy_it_is() {
    let changes = "total_timeout = \"250ms\"";
    let drip = Reply::ok(body(9))
        .endless()
        .drip(1, Duration::from_millis(10));
    let error = failure(drip, changes).await;
    assert!(
        matches!(
            error,
            FetchError::Timeout {
                phase: Phase::Total,
                ..
            }
        ),
        "{error:?}"
    );
    let error = failure(Reply::silent(), changes).await;
    assert!(
        matches!(
            error,
            FetchError::Timeout {
                phase: Phase::Total,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_slow_drip_is_too_slow() {
    let changes = "min_speed = 1000\nmin_speed_window = \"300ms\"";
    let error = failure(
        Reply::ok(body(9))
            .endless()
            .drip(1, Duration::from_millis(20)),
        changes,
    )
    .await;
    assert_eq!(error.reason(), Reason::TooSlow);
    assert!(error.is_retriable());
    // 5,000 bytes a second for longer than the window.
    let reply = Reply::ok(body(4_000)).drip(100, Duration::from_millis(20));
    assert_eq!(outcome(reply, changes).await.unwrap().len(), 4_000);
    let none = "min_speed = 0\nmin_speed_window = \"1ms\"";
    let reply = Reply::ok(body(10)).drip(1, Duration::from_millis(10));
    assert_eq!(outcome(reply, none).await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_name_say_so() {
    let client = client("");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    let error = fetch(&client, &refused).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Connect, "{error:?}");
    assert!(error.is_connect() && error.is_retriable());
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(
        chain,
        "cannot connect to `127.0.0.1`: Connection refused (os error 111)"
    );
}

#[tokio::test]
async fn a_handshake_that_never_ends_runs_into_the_connect_limit() {
    // Accepts by its backlog, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
    let error = fetch(&client("connect_timeout = \"200ms\""), &url)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            FetchError::Timeout {
                phase: Phase::Connect,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_connect() && error.is_retriable());
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let origin = Origin::builder()
        .tls()
        .route("/file", Reply::ok("secret"))
        .start();
    let url = origin.url("/file");
    let error = fetch(&client(""), &url).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error:?}");
    assert!(error.is_connect() && !error.is_retriable());
    assert!(error.to_string().contains("fetch.ca_files"));

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(origin.ca_pem.as_ref().unwrap().as_bytes())
        .unwrap();
    let trusting = client(&format!("ca_files = [{:?}]", file.path()));
    assert_eq!(fetch(&trusting, &url).await.unwrap(), b"secret");
    assert_eq!(
        fetch(&trusting, &origin.url_as("localhost", "/file"))
            .await
            .unwrap(),
        b"secret"
    );

    // The name has to be the certificate's.
    let error = fetch(&trusting, &origin.url_as("other.localhost", "/file"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error:?}");
}

static TLS_1_2: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS_1_3: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[tokio::test]
async fn a_certificate_that_signs_itself_is_trusted_when_it_is_given() {
    let text = |error: FetchError| format!("{:#}", anyhow::Error::from(error));
    for name in ["self-signed-common-name", "version-1"] {
        for versions in [TLS_1_2, TLS_1_3] {
            let identity = Identity {
                versions,
                ..Identity::fixture(name)
            };
            let origin = Origin::builder()
                .tls_as(identity)
                .route("/file", Reply::ok("secret"))
                .start();
            let url = origin.url_as("localhost", "/file");
            let error = text(fetch(&client(""), &url).await.unwrap_err());
            assert!(error.contains("`fetch.ca_files` adds"), "{error}");

            let mut file = tempfile::NamedTempFile::new().unwrap();
            let pem = origin.ca_pem.as_ref().unwrap();
            file.write_all(pem.as_bytes()).unwrap();
            let trusting = client(&format!("ca_files = [{:?}]", file.path()));
            let body = fetch(&trusting, &url).await;
            assert_eq!(body.unwrap(), b"secret", "{name} {versions:?}");

            // Only the name differs.
            let error = fetch(&trusting, &origin.url("/file")).await.unwrap_err();
            assert_eq!(error.reason(), Reason::Tls);
            let error = text(error);
            assert!(error.contains("not valid for name"), "{error}");
            assert!(!error.contains("ca_files"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_expired_is_refused_although_it_is_given() {
    let origin = Origin::builder()
        .tls_as(Identity::fixture("self-signed-expired"))
        .route("/file", Reply::ok("secret"))
        .start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(origin.ca_pem.as_ref().unwrap().as_bytes())
        .unwrap();
    let trusting = client(&format!("ca_files = [{:?}]", file.path()));
    let error = fetch(&trusting, &origin.url_as("localhost", "/file")).await;
    let error = format!("{:#}", anyhow::Error::from(error.unwrap_err()));
    assert!(error.contains("expired"), "{error}");
    assert!(!error.contains("ca_files"), "{error}");
}

#[tokio::test]
async fn an_origin_that_wants_a_client_certificate_is_told() {
    let identity = Identity {
        versions: TLS_1_2,
        asks_for_certificate: true,
        ..Identity::new()
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(identity.ca_pem.as_bytes()).unwrap();
    let origin = Origin::builder().tls_as(identity).start();
    let client = client(&format!("ca_files = [{:?}]", file.path()));
    let error = fetch(&client, &origin.url("/file")).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.is_retriable(), error.to_string()),
        (
            Reason::Tls,
            false,
            "`127.0.0.1` asks for a client certificate, which is not supported".to_owned()
        )
    );
}

#[tokio::test]
async fn a_host_name_that_tls_does_not_take_is_no_fault_of_the_host() {
    for host in ["-a.test", "a-.test"] {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        let error = fetch(&client(""), &url).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(host) && text.contains("begins or ends with `-`"),
            "{text}"
        );
        assert_eq!(error.reason(), Reason::Tls, "{text}");
        assert!(!error.is_retriable() && !error.is_connect(), "{text}");
    }
}

#[tokio::test]
async fn files_that_settings_name_are_read_again_on_a_reload_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let identity = Identity::new();
    let netrc = |password| format!("machine 127.0.0.1 login ann password {password}");
    std::fs::write(path("ca"), Identity::new().ca_pem).unwrap();
    std::fs::write(path("netrc"), netrc("old")).unwrap();
    std::fs::write(path("cookies"), "127.0.0.1\tFALSE\t/\tFALSE\t0\tid\told\n").unwrap();
    let settings = settings(&format!(
        "ca_files = [{:?}]\nnetrc_file = {:?}\ncookies_file = {:?}",
        path("ca"),
        path("netrc"),
        path("cookies")
    ));
    let mut defaults: toml::Table = include_str!("../config/default.toml").parse().unwrap();
    let proxies: ProxySettings = defaults.remove("proxies").unwrap().try_into().unwrap();
    let hosts = Hosts::default();
    let first = Client::with_proxies(&settings, &hosts, &proxies).unwrap();
    std::fs::write(path("ca"), &identity.ca_pem).unwrap();
    std::fs::write(path("netrc"), netrc("new")).unwrap();
    std::fs::write(path("cookies"), "127.0.0.1\tFALSE\t/\tFALSE\t0\tid\tnew\n").unwrap();

    let plain = Origin::with("/file", Reply::ok("a"));
    let secure = Origin::builder()
        .tls_as(identity)
        .otherwise(Reply::ok("a"))
        .start();
    let second = first.with_settings(&settings, &hosts, &proxies).unwrap();
    let third = second.reloaded(&settings, &hosts, &proxies).unwrap();
    for (client, basic, cookie, is_trusted) in [
        (&second, "Basic YW5uOm9sZA==", "id=old", false),
        (&third, "Basic YW5uOm5ldw==", "id=new", true),
    ] {
        fetch(client, &plain.url("/file")).await.unwrap();
        let asked = plain.log().pop().unwrap();
        assert_eq!(asked.header("authorization"), Some(basic));
        assert_eq!(asked.header("cookie"), Some(cookie));
        let answer = fetch(client, &secure.url("/file")).await;
        assert_eq!(answer.is_ok(), is_trusted, "{answer:?}");
    }

    // What is damaged for a moment stops a reload, and nothing else.
    std::fs::write(path("ca"), "").unwrap();
    std::fs::write(path("netrc"), "machine").unwrap();
    let fourth = third.with_settings(&settings, &hosts, &proxies).unwrap();
    fetch(&fourth, &secure.url("/file")).await.unwrap();
    assert_eq!(secure.connections(), 2, "it is shared");
    third.reloaded(&settings, &hosts, &proxies).unwrap_err();
}

#[tokio::test]
async fn https_to_an_origin_without_tls_is_a_tls_fault() {
    let origin = Origin::with("/file", Reply::ok("plain"));
    let url = Url::parse(&origin.url("/file").as_str().replace("http", "https")).unwrap();
    let error = fetch(&client(""), &url).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error:?}");
}

#[tokio::test]
async fn an_authority_file_that_cannot_be_used_is_named() {
    let setup = |path: &std::path::Path| {
        let settings = settings(&format!("ca_files = [{path:?}]"));
        Client::new(&settings, &Hosts::default())
            .unwrap_err()
            .to_string()
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().display().to_string();
    assert_eq!(
        setup(file.path()),
        format!("`{name}` of `fetch.ca_files` holds no certificate in PEM form")
    );
    file.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert_eq!(
        setup(file.path()),
        format!("`{name}` of `fetch.ca_files` holds a certificate that cannot be used")
    );
    assert_eq!(
        setup("/nowhere/ca.pem".as_ref()),
        "cannot read `/nowhere/ca.pem` of `fetch.ca_files`"
    );
}

#[tokio::test]
async fn send_follows_no_redirect_and_says_where_it_leads() {
    let origin = Origin::with("/a", Reply::redirect(302, "/b"));
    let url = origin.url("/a");
    let response = client("").send(request(&url)).await.unwrap();
    assert_eq!(response.redirect().unwrap().unwrap(), origin.url("/b"));
    assert!(!response.has_body());
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn get_follows_redirects_up_to_the_limit() {
    let origin = (0..12)
        .fold(Origin::builder(), |origin, n| {
            origin.route(
                &format!("/{n}"),
                Reply::redirect(307, format!("/{}", n + 1)),
            )
        })
        .route("/12", Reply::ok("there"))
        .route("/loop", Reply::redirect(301, "/back"))
        .route("/back", Reply::redirect(308, "/loop"))
        .route("/nowhere", Reply::status(302))
        .route("/away", Reply::redirect(302, "file:///etc/passwd"))
        .route("/gone", Reply::status(410))
        .start();
    let client = client("");
    let get = async |path| {
        let response = client.get(&origin.url(path), "*/*", NO_LIMIT).await?;
        let url = response.url.clone();
        read(response).await.map(|bytes| (url, bytes))
    };
    assert_eq!(
        get("/2").await.unwrap(),
        (origin.url("/12"), b"there".to_vec())
    );
    let problem = |error| match error {
        FetchError::Redirects { problem, .. } => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        problem(get("/1").await.unwrap_err()),
        RedirectProblem::TooMany { limit: 10 }
    );
    assert_eq!(
        problem(get("/loop").await.unwrap_err()),
        RedirectProblem::Loop
    );
    assert_eq!(
        problem(get("/nowhere").await.unwrap_err()),
        RedirectProblem::NoLocation
    );
    assert_eq!(
        get("/away").await.unwrap_err().reason(),
        Reason::UnsupportedScheme
    );
    let error = get("/gone").await.unwrap_err();
    assert_eq!(
        (error.reason(), error.status(), error.is_retriable()),
        (Reason::Status, Some(410), false)
    );
}

#[tokio::test]
async fn a_status_carries_how_long_the_origin_asks_to_wait() {
    let origin = Origin::builder()
        .route("/seconds", Reply::status(429).header("Retry-After", "7"))
        .route(
            "/date",
            Reply::status(503)
                .header("Date", "Fri, 20 Nov 2026 12:00:00 GMT")
                .header("Retry-After", "Fri, 20 Nov 2026 12:02:00 GMT"),
        )
        .start();
    let client = client("");
    for (path, seconds) in [("/seconds", 7), ("/date", 120)] {
        let url = origin.url(path);
        let error = client.send(request(&url)).await.unwrap().status_error();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)));
        assert!(error.is_retriable());
    }
}

#[tokio::test]
async fn statuses_that_may_pass_are_retriable_and_others_are_not() {
    for (statuses, expected) in [
        (
            &[408, 425, 429, 500, 501, 502, 503, 504, 505, 599][..],
            true,
        ),
        (&[400, 401, 403, 404, 410, 451], false),
    ] {
        for &status in statuses {
            assert_eq!(
                gannet::fetch::is_retriable_status(status),
                expected,
                "{status}"
            );
        }
    }
}

#[tokio::test]
async fn an_unchanged_body_is_not_sent_again() {
    const DATE: &str = "Fri, 20 Nov 2026 12:00:00 GMT";
    let origin = Origin::builder()
        .route("/etag", Reply::ok("a").etag("W/\"v1\"").last_modified(DATE))
        .route("/date", Reply::ok("a").last_modified(DATE))
        .start();
    let client = client("");
    for path in ["/etag", "/date"] {
        let url = origin.url(path);
        let first = client.send(request(&url)).await.unwrap();
        let known = first.validators();
        assert_eq!(read(first).await.unwrap(), b"a");
        let mut second = client
            .send(Request {
                validators: Some(&known),
                ..request(&url)
            })
            .await
            .unwrap();
        assert_eq!((second.status, second.chunk().await.unwrap()), (304, None));
        let other = Validators {
            etag: Some("\"v2\"".to_owned()),
            last_modified: None,
        };
        let third = client
            .send(Request {
                validators: Some(&other),
                ..request(&url)
            })
            .await
            .unwrap();
        assert_eq!(third.status, 200);
        assert_eq!(origin.conditional(path), 2);
    }
}

/// Reads `response` until it fails; what arrived, how to go on, and why it failed.
async fn until_cut(mut response: Response) -> (Vec<u8>, Option<Resume>, FetchError) {
    let mut part = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => part.extend_from_slice(&chunk),
            Ok(None) => panic!("the body should be cut off"),
            Err(error) => return (part.clone(), response.resume(part.len() as u64), error),
        }
    }
}

#[tokio::test]
async fn a_body_cut_off_is_continued_where_it_was() {
    let whole = Reply::ok(body(9_000)).etag("\"v1\"").ranges();
    let origin = Origin::builder()
        .sequence("/file", [whole.clone().cut_after(5_000), whole])
        .start();
    let url = origin.url("/file");
    let client = client("");
    let (mut bytes, resume, _) = until_cut(client.send(request(&url)).await.unwrap()).await;
    let resume = resume.unwrap();
    let rest = client
        .send(Request {
            resume: Some(&resume),
            ..request(&url)
        })
        .await
        .unwrap();
    assert_eq!(
        (rest.status, rest.resumed_at(), rest.content_length()),
        (206, 5_000, Some(4_000))
    );
    bytes.extend(read(rest).await.unwrap());
    assert_eq!(bytes, body(9_000));
    let asked = &origin.asked("/file")[1];
    assert_eq!(asked.header("range"), Some("bytes=5000-"));
    assert_eq!(asked.header("if-range"), Some("\"v1\""));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_body_that_changed_meanwhile_begins_again() {
    let first = Reply::ok(body(9_000))
        .etag("\"v1\"")
        .ranges()
        .cut_after(5_000);
    let second = Reply::ok("other").etag("\"v2\"").ranges();
    let origin = Origin::builder().sequence("/file", [first, second]).start();
    let url = origin.url("/file");
    let client = client("");
    let (_, resume, _) = until_cut(client.send(request(&url)).await.unwrap()).await;
    let again = client
        .send(Request {
            resume: resume.as_ref(),
            ..request(&url)
        })
        .await
        .unwrap();
    assert_eq!((again.status, again.resumed_at()), (200, 0));
    assert_eq!(read(again).await.unwrap(), b"other");
}

#[tokio::test]
async fn an_origin_that_continues_wrongly_is_asked_for_the_whole() {
    let first = Reply::ok(body(9_000))
        .etag("\"v1\"")
        .ranges()
        .cut_after(5_000);
    for second in [
        Reply::status(206)
            .body(body(10))
            .header("Content-Range", "bytes 4000-4009/9000"),
        Reply::status(206).body(body(10)),
        Reply::status(206)
            .body(body(10))
            .header("Content-Type", "multipart/byteranges; boundary=x"),
        Reply::status(206)
            .body(gzip(b"x"))
            .header("Content-Range", "bytes 5000-8999/9000")
            .header("Content-Encoding", "gzip"),
        Reply::status(416).header("Content-Range", "bytes */9000"),
    ] {
        let origin = Origin::builder()
            .sequence("/file", [first.clone(), second])
            .start();
        let url = origin.url("/file");
        let client = client("");
        let (_, resume, _) = until_cut(client.send(request(&url)).await.unwrap()).await;
        let error = client
            .send(Request {
                resume: resume.as_ref(),
                ..request(&url)
            })
            .await
            .unwrap_err();
        assert!(
            matches!(error, FetchError::NotResumed { offset: 5_000, .. }),
            "{error:?}"
        );
        assert!(error.is_retriable() && !error.keeps_part());
    }
}

#[tokio::test]
async fn a_part_that_ends_early_is_truncated() {
    let first = Reply::ok(body(9_000))
        .etag("\"v1\"")
        .ranges()
        .cut_after(5_000);
    let second = Reply::status(206)
        .body(body(1_000))
        .header("Content-Range", "bytes 5000-5999/9000");
    let origin = Origin::builder().sequence("/file", [first, second]).start();
    let url = origin.url("/file");
    let client = client("");
    let (_, resume, _) = until_cut(client.send(request(&url)).await.unwrap()).await;
    let rest = client
        .send(Request {
            resume: resume.as_ref(),
            ..request(&url)
        })
        .await
        .unwrap();
    let (_, _, error) = until_cut(rest).await;
    assert!(
        matches!(
            error,
            FetchError::Truncated {
                got: 6_000,
                expected: Some(9_000),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_list_is_read_as_a_stream() {
    use tokio::io::AsyncReadExt as _;
    let origin = Origin::builder()
        .route(
            "/list",
            Reply::ok(gzip(&body(100_000)))
                .header("Content-Encoding", "gzip")
                .header("Content-Type", "Text/CSV; charset=x"),
        )
        .route("/cut", Reply::ok(body(9_000)).cut_after(5_000))
        .start();
    let client = client("");
    let response = client
        .get(&origin.url("/list"), "text/*", NO_LIMIT)
        .await
        .unwrap();
    assert_eq!(response.media_type(), Some("Text/CSV"));
    let mut all = Vec::new();
    response.into_reader().read_to_end(&mut all).await.unwrap();
    assert!(all == body(100_000));
    let response = client
        .get(&origin.url("/cut"), "text/*", NO_LIMIT)
        .await
        .unwrap();
    let error = response
        .into_reader()
        .read_to_end(&mut all)
        .await
        .unwrap_err();
    let error = error
        .into_inner()
        .unwrap()
        .downcast::<FetchError>()
        .unwrap();
    assert_eq!(error.reason(), Reason::Truncated);
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_while_idle_is_not_a_fault() {
    let origin = Origin::with("/file", Reply::ok("a").until_close());
    let client = client("");
    for _ in 0..5 {
        assert_eq!(
            fetch(&client, &origin.url("/file")).await.unwrap(),
            Bytes::from_static(b"a")
        );
    }
    assert_eq!(origin.connections(), 5);
}

const PARTINGS: [Parting; 4] = [
    Parting::Close,
    Parting::Reset,
    Parting::Words("HTTP/1.1 200 OK\r\nContent-Le"),
    Parting::Words(
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ),
];

#[tokio::test]
async fn a_reused_connection_that_ends_is_no_fault() {
    for parting in PARTINGS {
        for tls in [false, true] {
            let origin = Origin::builder()
                .route("/file", Reply::ok("a"))
                .parts_after(3, parting);
            let origin = if tls { origin.tls() } else { origin }.start();
            let (_folder, client) = client_of(&origin);
            for _ in 0..40 {
                let got = fetch(&client, &origin.url("/file")).await;
                assert_eq!(got.unwrap(), Bytes::from_static(b"a"), "{parting:?}");
            }
            // Every fourth request on a connection gets no answer, and is sent again on a connection of its own.
            assert_eq!(
                (origin.total(), origin.connections()),
                (50, 20),
                "{parting:?}"
            );
        }
    }
}

#[tokio::test]
async fn many_idle_connections_may_end_at_once() {
    let origin = Origin::builder()
        .route("/file", Reply::ok("a").after(Duration::from_millis(50)))
        .parts_after(1, Parting::Reset)
        .start();
    let (client, url) = (client(""), origin.url("/file"));
    for _ in 0..3 {
        let all = (0..8).map(|_| fetch(&client, &url));
        for got in futures_util::future::join_all(all).await {
            assert_eq!(got.unwrap(), Bytes::from_static(b"a"));
        }
    }
}

#[tokio::test]
async fn an_origin_that_never_answers_on_a_new_connection_is_at_fault() {
    for (parting, reason) in [
        (Parting::Close, Reason::Reset),
        (Parting::Reset, Reason::Reset),
        (
            Parting::Words("HTTP/1.1 200 OK\r\nContent-Le"),
            Reason::Reset,
        ),
    ] {
        let origin = Origin::builder().parts_after(0, parting).start();
        let error = fetch(&client(""), &origin.url("/")).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{parting:?}");
        assert!(error.is_retriable() && !error.is_connect());
        assert!(origin.total() <= 2, "{}", origin.total());
    }
    // Fails from a certain request on, and always from then.
    let origin = Origin::builder()
        .route("/good", Reply::ok("a"))
        .route("/bad", Reply::close())
        .start();
    let client = client("");
    fetch(&client, &origin.url("/good")).await.unwrap();
    let error = fetch(&client, &origin.url("/bad")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Reset);
    assert_eq!((origin.hits("/bad"), origin.connections()), (2, 2));
}

#[tokio::test]
async fn an_event_is_posted_again_when_its_reused_connection_is_lost() {
    for parting in PARTINGS {
        let origin = Origin::builder()
            .route("/hook", Reply::ok("thanks"))
            .parts_after(1, parting)
            .start();
        let (client, url) = (client(""), origin.url("/hook"));
        let post = || {
            let body = Bytes::from_static(b"{}");
            client.post(&url, Default::default(), body, Duration::from_secs(20))
        };
        for _ in 0..3 {
            assert_eq!(post().await.unwrap().status, 200, "{parting:?}");
        }
        assert!(origin.total() <= 6, "{parting:?}: {}", origin.total());
    }
}

/// Returns a client that trusts `origin`, with the folder of its authority.
fn client_of(origin: &Origin) -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let changes = match &origin.ca_pem {
        Some(pem) => {
            let path = folder.path().join("ca.pem");
            std::fs::write(&path, pem).unwrap();
            format!("ca_files = [{path:?}]")
        }
        None => String::new(),
    };
    (folder, client(&changes))
}

/// How an origin treats further requests on an HTTP/2 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// RST_STREAM with REFUSED_STREAM.
    Refused,
    /// RST_STREAM with INTERNAL_ERROR.
    Failed,
    /// The TCP connection ends.
    Cut,
    /// A body stops after its first byte.
    Silent,
}

/// An HTTP/2 origin that answers `answered` requests on each connection.
struct Http2 {
    url: Url,
    client: Client,
    asked: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
    _accepts: tokio_util::task::AbortOnDropHandle<()>,
}

impl Http2 {
    async fn start(answered: usize, beyond: Beyond) -> Self {
        let identity = Identity::new();
        let mut tls = Arc::unwrap_or_clone(identity.server());
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let accepts = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), count.clone());
                connections.spawn(async move {
                    let stream = acceptor.accept(stream).await.ok()?;
                    let mut connection = h2::server::handshake(stream).await.ok()?;
                    let mut here = 0;
                    let mut silent = Vec::new();
                    while let Some(request) = connection.accept().await {
                        let (_, mut respond) = request.ok()?;
                        count.fetch_add(1, Ordering::SeqCst);
                        here += 1;
                        match beyond {
                            _ if here <= answered => {
                                let response = http::Response::new(());
                                let mut body = respond.send_response(response, false).ok()?;
                                body.send_data(Bytes::from_static(b"a"), true).ok()?;
                            }
                            Beyond::Refused => respond.send_reset(h2::Reason::REFUSED_STREAM),
                            Beyond::Failed => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                            Beyond::Cut => return None,
                            Beyond::Silent => {
                                let response = http::Response::new(());
                                let mut body = respond.send_response(response, false).ok()?;
                                body.send_data(Bytes::from_static(b"a"), false).ok()?;
                                silent.push(body);
                            }
                        }
                    }
                    Some(())
                });
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, identity.ca_pem).unwrap();
        Self {
            url: format!("https://127.0.0.1:{port}/file").parse().unwrap(),
            client: client(&format!("ca_files = [{path:?}]")),
            asked,
            folder,
            _accepts: tokio_util::task::AbortOnDropHandle::new(accepts),
        }
    }
}

#[tokio::test]
async fn http2_requests_that_were_not_processed_are_sent_again() {
    for beyond in [Beyond::Refused, Beyond::Cut] {
        let origin = Http2::start(20, beyond).await;
        for round in 0..5 {
            let all = (0..16).map(|_| fetch(&origin.client, &origin.url));
            for got in futures_util::future::join_all(all).await {
                let got =
                    got.unwrap_or_else(|error| panic!("{beyond:?}, round {round}: {error:?}"));
                assert_eq!(got, Bytes::from_static(b"a"));
            }
        }
    }
}

#[tokio::test]
async fn an_origin_that_refuses_every_http2_request_is_at_fault() {
    for (beyond, most) in [(Beyond::Refused, 6), (Beyond::Cut, 2), (Beyond::Failed, 1)] {
        let origin = Http2::start(0, beyond).await;
        let error = fetch(&origin.client, &origin.url).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Reset, "{beyond:?}");
        assert_eq!(origin.asked.load(Ordering::SeqCst), most, "{beyond:?}");
    }
}

#[tokio::test]
async fn a_post_that_was_refused_is_sent_again() {
    let origin = Http2::start(1, Beyond::Refused).await;
    let post = || {
        let body = Bytes::from_static(b"{}");
        let limit = Duration::from_secs(20);
        origin
            .client
            .post(&origin.url, Default::default(), body, limit)
    };
    for _ in 0..3 {
        assert_eq!(post().await.unwrap().status, 200);
    }
    // An event whose connection was cut off may come twice.
    let origin = Http2::start(1, Beyond::Cut).await;
    let post = || {
        let body = Bytes::from_static(b"{}");
        let limit = Duration::from_secs(20);
        origin
            .client
            .post(&origin.url, Default::default(), body, limit)
    };
    assert_eq!(post().await.unwrap().status, 200);
    assert_eq!(post().await.unwrap().status, 200);
    assert_eq!(origin.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_body_that_waits_for_bandwidth_excuses_no_silence_of_another_host() {
    let busy = Origin::with("/file", Reply::ok("x".repeat(10_000_000)));
    let silent = Http2::start(0, Beyond::Silent).await;
    let ca_file = silent.folder.path().join("ca.pem");
    let changes = format!("ca_files = [{ca_file:?}]\nmax_rate = \"100KB\"\nidle_timeout = \"1s\"");
    let client = client(&changes);
    let url = busy.url("/file");
    // Takes more than a minute.
    let download = fetch(&client, &url);
    let mut download = std::pin::pin!(download);
    tokio::select! {
        biased;
        got = fetch(&client, &silent.url) => {
            let error = got.unwrap_err();
            assert!(
                matches!(error, FetchError::Timeout { phase: Phase::Body, .. }),
                "{error:?}"
            );
        }
        got = &mut download => panic!("the busy host was done first: {:?}", got.map(|body| body.len())),
    }
    assert_eq!(busy.hits("/file"), 1);
}
