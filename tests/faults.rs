//! A hostile origin: every fault ends in the outcome and the reason that the contracts give it, costs the
//! attempts that it should, and leaves nothing behind.

mod common;
mod origin;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Gannet, Run, closed_port, encoded, noise, pictures};
use origin::{Origin, Parting, Reply};

/// What a target of the table comes to.
#[derive(Clone, Copy)]
enum Expected {
    /// After so many attempts.
    Stored(u32),
    /// In words, such as `failed/status`, after so many attempts.
    Bad(&'static str, u32),
    /// One of these, where the contracts leave a choice.
    Either(&'static [&'static str]),
}

use Expected::{Bad, Either, Stored};

/// What becomes of a target only by an answer, so that its status is there.
const TOLD: &[&str] = &[
    "stored",
    "failed/status",
    "failed/redirects",
    "failed/unsupported-scheme",
    "rejected/too-large",
    "rejected/empty",
];

/// Replies by name, and what each has to come to. All are asked in one run.
#[derive(Default)]
struct Table(Vec<(String, Vec<Reply>, Expected)>);

impl Table {
    fn case(&mut self, name: &str, reply: Reply, expected: Expected) {
        self.sequence(name, [reply], expected);
    }

    fn raw(&mut self, name: &str, bytes: impl Into<Vec<u8>>, expected: Expected) {
        self.case(name, Reply::raw(bytes), expected);
    }

    fn sequence(
        &mut self,
        name: &str,
        replies: impl IntoIterator<Item = Reply>,
        expected: Expected,
    ) {
        let path = format!("/{name}");
        assert!(self.0.iter().all(|(other, ..)| *other != path), "{name}");
        self.0.push((path, replies.into_iter().collect(), expected));
    }

    /// Runs `gannet` over all of them, and tells of all that came out wrong.
    #[track_caller]
    fn hold(self, gannet: &Gannet) -> (Origin, Run) {
        let origin = self
            .0
            .iter()
            .fold(Origin::builder(), |origin, (path, replies, _)| {
                origin.sequence(path, replies.clone())
            })
            .route("/there", Reply::ok("the end of a redirect"))
            .start();
        let run = gannet
            .fetch(self.0.iter().map(|(path, ..)| origin.url(path)))
            .settled();
        let mut wrong = Vec::new();
        for (path, _, expected) in &self.0 {
            let item = run.item(origin.url(path));
            let (verdict, attempts) = (common::verdict(item), item["attempts"].as_u64());
            // An attempt on a kept connection that the origin is just closing never reaches it.
            let in_time =
                |n: u32| attempts == Some(n.into()) || origin.hits(path) as u64 == u64::from(n);
            let is_right = match expected {
                Stored(n) => verdict == "stored" && in_time(*n),
                Bad(bad, n) => verdict == *bad && in_time(*n),
                Either(all) => all.contains(&verdict.as_str()),
            };
            if item["status"].is_null() && TOLD.contains(&verdict.as_str()) {
                wrong.push(format!("{path}: {verdict} without a status"));
            }
            if !is_right {
                let expected = match expected {
                    Stored(n) => format!("stored, attempts {n}"),
                    Bad(bad, n) => format!("{bad}, attempts {n}"),
                    Either(all) => all.join(" or "),
                };
                wrong.push(format!(
                    "{path}: expected {expected}, got {verdict}, attempts {attempts:?}: {}",
                    item["detail"]
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        (origin, run)
    }
}

/// One retry, so that attempts tell what is retried; no breaker, since all share a host.
fn faulty() -> Gannet {
    Gannet::any()
        .set("fetch.retries=1")
        .set("fetch.host_down_after=0")
        .set("fetch.per_host=16")
}

fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{}\r\n", lines.replace('\n', "\r\n")).into_bytes()
}

fn with_body(lines: &str, body: &[u8]) -> Vec<u8> {
    [&head(lines), body].concat()
}

#[test]
fn every_status_has_its_outcome() {
    let mut table = Table::default();
    for status in [
        400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418,
        421, 422, 423, 424, 426, 428, 431, 451, 499,
    ] {
        let reply = Reply::status(status).body("<html>no</html>");
        // 407 is about a proxy that is not there.
        let expected = if status == 407 {
            Either(&["failed/status", "failed/proxy"])
        } else {
            Bad("failed/status", 1)
        };
        table.case(&status.to_string(), reply, expected);
    }
    for status in [408, 425, 500, 501, 502, 503, 504, 505, 507, 508, 520, 599] {
        let reply = Reply::status(status).body("<html>later</html>");
        table.case(&status.to_string(), reply, Bad("failed/status", 2));
    }
    // No error, and no body either.
    for status in [201, 202, 204, 205, 226] {
        let expected = Either(&["failed/status", "rejected/empty"]);
        table.case(&status.to_string(), Reply::status(status), expected);
    }
    table.case("203", Reply::status(203).body("by a proxy"), Stored(1));
    table.case(
        "206 that was not asked for",
        Reply::status(206)
            .body("part")
            .header("Content-Range", "bytes 0-3/9"),
        Bad("failed/bad-response", 1),
    );
    table.case(
        "300",
        Reply::status(300).body("choose"),
        Bad("failed/status", 1),
    );
    table.case(
        "304 on first ask",
        Reply::status(304),
        Bad("failed/bad-response", 1),
    );
    table.case(
        "305",
        Reply::redirect(305, "/there"),
        Bad("failed/status", 1),
    );
    table.case("306", Reply::status(306), Bad("failed/status", 1));
    table.case(
        "600",
        Reply::status(600),
        Either(&["failed/status", "failed/bad-response"]),
    );
    table.case(
        "999",
        Reply::status(999),
        Either(&["failed/status", "failed/bad-response"]),
    );
    let names: Vec<String> = table
        .0
        .iter_mut()
        .map(|(path, ..)| {
            *path = path.replace(' ', "-");
            path.clone()
        })
        .collect();
    let (origin, run) = table.hold(&faulty());
    for path in names {
        let item = run.item(origin.url(&path));
        let asked = origin.hits(&path) as u64;
        assert_eq!(item["attempts"].as_u64(), Some(asked), "{path}");
        assert!(!item["status"].is_null(), "{path}");
        if let (Some("status"), Ok(status)) = (item["reason"].as_str(), path[1..].parse::<u64>()) {
            assert_eq!(item["status"].as_u64(), Some(status), "{path}");
            assert!(item["detail"].as_str().unwrap().contains(&path[1..]));
        }
    }
}

#[test]
fn redirects_lead_on_or_say_why_not() {
    let mut table = Table::default();
    for status in [301, 302, 303, 307, 308] {
        table.case(
            &format!("to-there-{status}"),
            Reply::redirect(status, "/there").body("moved"),
            Stored(1),
        );
        table.case(
            &format!("no-location-{status}"),
            Reply::status(status),
            Bad("failed/redirects", 1),
        );
    }
    let redirect = |to: &str| Reply::redirect(302, to);
    table.case("itself", redirect("/itself"), Bad("failed/redirects", 1));
    table.case("empty", redirect(""), Bad("failed/redirects", 1));
    table.case("loop", redirect("/pool"), Bad("failed/redirects", 1));
    table.case("pool", redirect("/loop"), Bad("failed/redirects", 1));
    table.case("query", redirect("?again"), Bad("failed/status", 1));
    table.case("relative", redirect("there"), Stored(1));
    table.case("dots", redirect("/a/../b/../there#part"), Stored(1));
    table.case("spaces", redirect("  /there  "), Stored(1));
    for (name, to) in [
        ("file", "file:///etc/passwd"),
        ("ftp", "ftp://127.0.0.1/a"),
        ("data", "data:text/plain,a"),
        ("script", "javascript:alert(1)"),
        ("gopher", "gopher://127.0.0.1:70/"),
        ("unix", "unix:/run/docker.sock"),
    ] {
        table.case(name, redirect(to), Bad("failed/unsupported-scheme", 1));
    }
    for (name, to) in [
        ("no-host", "http://"),
        ("bad-port", "http://127.0.0.1:99999/"),
        ("bad-host", "http://[::1/"),
    ] {
        let expected = Either(&["failed/redirects", "failed/invalid-url"]);
        table.case(name, redirect(to), expected);
    }
    table.case(
        "refused",
        redirect(&format!("http://127.0.0.1:{}/", closed_port())),
        Bad("failed/connect", 2),
    );
    // Ten are followed, the eleventh is one too many.
    for n in 0..12 {
        let next = if n == 11 {
            "/there".to_owned()
        } else {
            format!("/chain-{}", n + 1)
        };
        let expected = if n >= 2 {
            Stored(1)
        } else {
            Bad("failed/redirects", 1)
        };
        table.case(&format!("chain-{n}"), redirect(&next), expected);
    }
    let (origin, run) = table.hold(&faulty());
    assert_eq!(
        run.item(origin.url("/to-there-301"))["final_url"],
        origin.url("/there").as_str()
    );
    assert_eq!(run.file(origin.url("/chain-2")), b"the end of a redirect");
}

#[test]
fn what_is_not_http_is_a_bad_response() {
    let bad = Bad("failed/bad-response", 1);
    let mut table = Table::default();
    table.raw("noise", noise(2_000), bad);
    table.raw("ssh", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", bad);
    table.raw("ftp", "220 ProFTPD Server ready\r\n", bad);
    table.raw("smtp", "220 mail.example ESMTP\r\n500 unknown\r\n", bad);
    table.raw("http-0.9", "<html><body>an old page</body></html>", bad);
    table.raw(
        "icy",
        "ICY 200 OK\r\nContent-Type: audio/mpeg\r\n\r\nabc",
        bad,
    );
    table.raw(
        "http-3.7",
        "HTTP/3.7 200 OK\r\nContent-Length: 1\r\n\r\na",
        bad,
    );
    table.raw("tls-alert", b"\x15\x03\x03\x00\x02\x02\x28".to_vec(), bad);
    table.raw("http-2-settings", b"\0\0\0\x04\0\0\0\0\0".to_vec(), bad);
    table.raw("no-status", "HTTP/1.1 \r\nContent-Length: 1\r\n\r\na", bad);
    table.raw(
        "word-for-status",
        "HTTP/1.1 abc OK\r\nContent-Length: 1\r\n\r\na",
        bad,
    );
    table.raw(
        "short-status",
        "HTTP/1.1 20 OK\r\nContent-Length: 1\r\n\r\na",
        bad,
    );
    table.raw(
        "long-status",
        "HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\na",
        bad,
    );
    table.raw("nuls", vec![0; 4_000], bad);
    table.raw(
        "one-byte",
        "H",
        Either(&["failed/bad-response", "failed/reset", "failed/truncated"]),
    );
    table.raw(
        "head-cut",
        "HTTP/1.1 200 OK\r\nContent-Le",
        Either(&["failed/reset", "failed/truncated", "failed/bad-response"]),
    );
    table.raw(
        "switching",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        Either(&["failed/bad-response", "failed/status"]),
    );
    table.hold(&faulty());
}

#[test]
fn headers_that_are_wrong_are_passed_over_or_a_bad_response() {
    let bad = Bad("failed/bad-response", 1);
    let mut table = Table::default();
    // A line that is no header costs that line, as in browsers.
    table.raw(
        "no-colon",
        with_body("Content-Length: 1\nnocolonhere\n", b"a"),
        Stored(1),
    );
    table.raw(
        "no-name",
        with_body(": value\nContent-Length: 1\n", b"a"),
        Stored(1),
    );
    table.raw(
        "space-in-name",
        with_body("Bad Name: x\nContent-Length: 1\n", b"a"),
        Stored(1),
    );
    table.raw(
        "space-before-colon",
        with_body("Content-Length : 1\n", b"a"),
        Stored(1),
    );
    table.raw(
        "nul-in-value",
        with_body("X-A: a\0b\nContent-Length: 1\n", b"a"),
        bad,
    );
    table.raw(
        "one-of-100k",
        with_body(
            &format!("X-A: {}\nContent-Length: 1\n", "a".repeat(100_000)),
            b"a",
        ),
        bad,
    );
    table.raw(
        "many-of-1k",
        with_body(
            &format!(
                "{}Content-Length: 1\n",
                format!("X-A: {}\n", "a".repeat(1_000)).repeat(90)
            ),
            b"a",
        ),
        bad,
    );
    table.raw(
        "a-million",
        with_body(&"X-A: a\n".repeat(1_000_000), b"a"),
        bad,
    );
    table.raw(
        "200",
        with_body(
            &format!(
                "{}Content-Length: 1\n",
                (0..200).map(|n| format!("X-{n}: a\n")).collect::<String>()
            ),
            b"a",
        ),
        Either(&["stored", "failed/bad-response"]),
    );
    table.raw(
        "90",
        with_body(
            &format!(
                "{}Content-Length: 1\n",
                (0..90).map(|n| format!("X-{n}: a\n")).collect::<String>()
            ),
            b"a",
        ),
        Stored(1),
    );
    table.raw(
        "folded",
        with_body("X-A: a\n b\nContent-Length: 1\n", b"a"),
        Either(&["stored", "failed/bad-response"]),
    );
    table.raw(
        "latin-1",
        [&b"HTTP/1.1 200 Gr\xfc\xdfe\r\nX-A: \xfc\r\nContent-Length: 1\r\n\r\na"[..]].concat(),
        Stored(1),
    );
    table.raw(
        "bare-newlines",
        "HTTP/1.1 200 OK\nContent-Length: 1\n\na",
        Stored(1),
    );
    table.raw(
        "no-reason",
        "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na",
        Stored(1),
    );
    table.raw("hints-first", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", Stored(1));
    table.raw(
        "hints-only",
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200_000),
        Either(&["failed/reset", "failed/bad-response", "failed/truncated"]),
    );
    // Lengths.
    table.raw("length-minus", with_body("Content-Length: -1\n", b"a"), bad);
    table.raw("length-plus", with_body("Content-Length: +1\n", b"a"), bad);
    table.raw("length-hex", with_body("Content-Length: 0x1\n", b"a"), bad);
    table.raw("length-word", with_body("Content-Length: one\n", b"a"), bad);
    table.raw("length-none", with_body("Content-Length:\n", b"a"), bad);
    table.raw(
        "length-beyond",
        with_body("Content-Length: 99999999999999999999999\n", b"a"),
        bad,
    );
    table.raw(
        "lengths-differ",
        with_body("Content-Length: 1\nContent-Length: 2\n", b"ab"),
        bad,
    );
    table.raw(
        "lengths-differ-in-one",
        with_body("Content-Length: 1, 2\n", b"ab"),
        bad,
    );
    // RFC 9110, section 8.6: refused, or taken as one.
    table.raw(
        "lengths-agree",
        with_body("Content-Length: 1\nContent-Length: 1\n", b"a"),
        Either(&["stored", "failed/bad-response"]),
    );
    // RFC 9112, section 6.3: the coding goes before the length, or the answer is refused.
    table.raw(
        "length-and-chunked",
        with_body(
            "Content-Length: 3\nTransfer-Encoding: chunked\n",
            b"1\r\na\r\n0\r\n\r\n",
        ),
        Either(&["stored", "failed/bad-response"]),
    );
    table.raw(
        "transfer-unknown",
        with_body("Transfer-Encoding: cow\n", b"moo"),
        Either(&["stored", "failed/bad-response"]),
    );
    let (origin, run) = table.hold(&faulty());
    if run.verdict(origin.url("/length-and-chunked")) == "stored" {
        assert_eq!(run.file(origin.url("/length-and-chunked")), b"a");
    }
}

#[test]
fn connections_that_break_say_so() {
    let body = noise(100_000);
    let cut = Bad("failed/truncated", 2);
    let mut table = Table::default();
    table.case(
        "closed",
        Reply::close(),
        Either(&["failed/reset", "failed/truncated"]),
    );
    table.case("reset", Reply::reset(), Bad("failed/reset", 2));
    table.case(
        "reset-within",
        Reply::ok(body.clone()).reset_after(5_000),
        Bad("failed/reset", 2),
    );
    table.case(
        "length-too-long",
        Reply::ok(body.clone()).claim_length(200_000),
        cut,
    );
    table.case(
        "length-far-too-long",
        Reply::ok("a").claim_length(1_000_000),
        cut,
    );
    table.case("length-without-body", Reply::ok("").claim_length(10), cut);
    table.case(
        "chunked-cut",
        Reply::ok(body.clone()).chunked().cut_after(50_000),
        cut,
    );
    table.raw(
        "chunk-cut",
        with_body("Transfer-Encoding: chunked\n", b"64\r\nabc"),
        cut,
    );
    table.raw(
        "chunk-size-cut",
        with_body("Transfer-Encoding: chunked\n", b"3\r\nabc\r\n6"),
        cut,
    );
    table.raw(
        "no-last-chunk",
        with_body("Transfer-Encoding: chunked\n", b"3\r\nabc\r\n"),
        cut,
    );
    table.raw(
        "half-a-last-chunk",
        with_body("Transfer-Encoding: chunked\n", b"3\r\nabc\r\n0\r\n"),
        cut,
    );
    for (name, chunks) in [
        ("word", &b"zebra\r\nabc\r\n0\r\n\r\n"[..]),
        ("none", b"\r\nabc\r\n0\r\n\r\n"),
        ("minus", b"-3\r\nabc\r\n0\r\n\r\n"),
        ("hex", b"0x3\r\nabc\r\n0\r\n\r\n"),
        ("beyond", b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("no-end", b"3\r\nabcdef\r\n0\r\n\r\n"),
    ] {
        let bytes = with_body("Transfer-Encoding: chunked\n", chunks);
        table.raw(
            &format!("chunk-size-{name}"),
            bytes,
            Bad("failed/bad-response", 1),
        );
    }
    table.raw(
        "chunk-as-large-as-it-gets",
        with_body("Transfer-Encoding: chunked\n", b"7fffffffffffffff\r\nabc"),
        Either(&["failed/truncated", "rejected/too-large"]),
    );
    table.raw(
        "extensions",
        with_body(
            "Transfer-Encoding: chunked\n",
            b"3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n",
        ),
        Stored(1),
    );
    table.raw(
        "trailers",
        with_body(
            "Transfer-Encoding: chunked\n",
            b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
        Stored(1),
    );
    table.raw("http-1.0", "HTTP/1.0 200 OK\r\n\r\nabc", Stored(1));
    table.raw(
        "until-close",
        with_body("Connection: close\n", b"abc"),
        Stored(1),
    );
    table.case("whole", Reply::ok(body.clone()), Stored(1));
    table.case("chunked", Reply::ok(body.clone()).chunked(), Stored(1));
    // More than was promised: what was promised is the body, the rest is nobody's.
    table.case(
        "length-too-short",
        Reply::ok(body.clone()).claim_length(5_000),
        Stored(1),
    );
    table.raw(
        "extra",
        with_body(
            "Content-Length: 3\n",
            b"abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        Stored(1),
    );
    table.case("empty", Reply::ok(""), Bad("rejected/empty", 1));
    table.case(
        "empty-chunked",
        Reply::ok("").chunked(),
        Bad("rejected/empty", 1),
    );
    table.case(
        "empty-until-close",
        Reply::ok("").until_close(),
        Bad("rejected/empty", 1),
    );
    let (origin, run) = table.hold(&faulty());
    assert_eq!(run.file(origin.url("/length-too-short")), body[..5_000]);
    for path in [
        "/extra",
        "/extensions",
        "/trailers",
        "/http-1.0",
        "/until-close",
    ] {
        assert_eq!(run.file(origin.url(path)), b"abc", "{path}");
    }
    for path in ["/whole", "/chunked"] {
        assert!(run.file(origin.url(path)) == body, "{path}");
    }
}

#[test]
fn a_kept_connection_that_dies_costs_no_attempt() {
    const PARTINGS: [Parting; 3] = [
        Parting::Close,
        Parting::Reset,
        Parting::Words(
            "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    let origins = PARTINGS.map(|parting| Origin::builder().parts_after(4, parting));
    let idle = Origin::builder().closes_idle_after(Duration::from_millis(2));
    for (number, origin) in origins.into_iter().chain([idle]).enumerate() {
        let origin = origin.otherwise(Reply::ok("a")).start();
        let urls: Vec<_> = (0..200).map(|n| origin.url(&format!("/{n}"))).collect();
        let run = Gannet::any()
            .set("fetch.retries=0")
            .set("fetch.host_down_after=1")
            .fetch(&urls)
            .settled();
        assert_eq!(run.count("stored"), 200, "{number}");
        assert!(
            run.items().iter().all(|item| item["attempts"] == 1),
            "{number}"
        );
    }
}

#[test]
fn an_origin_that_ends_every_connection_is_given_its_attempts_and_no_more() {
    for parting in [Parting::Close, Parting::Reset] {
        let origin = Origin::builder().parts_after(0, parting).start();
        let urls: Vec<_> = (0..10).map(|n| origin.url(&format!("/{n}"))).collect();
        let run = faulty().fetch(&urls).settled();
        for url in &urls {
            assert_eq!(run.verdict(url), "failed/reset");
            assert_eq!(run.item(url)["attempts"], 2);
        }
        // If a connection ends before the request is on it, that is unknown, and the request is sent once more.
        assert!((20..=40).contains(&origin.total()), "{}", origin.total());
    }
}

#[test]
fn a_body_cut_anywhere_is_never_kept() {
    let body = noise(100_000);
    let mut table = Table::default();
    for power in 0..17 {
        let at = 1 << power;
        let reply = Reply::ok(body.clone()).cut_after(at);
        table.case(
            &format!("at-{at}"),
            reply.clone(),
            Bad("failed/truncated", 2),
        );
        table.case(
            &format!("chunked-at-{at}"),
            reply.clone().chunked(),
            Bad("failed/truncated", 2),
        );
        table.sequence(
            &format!("once-at-{at}"),
            [reply, Reply::ok(body.clone())],
            Stored(2),
        );
    }
    let (_, run) = table.hold(&faulty());
    assert_eq!(run.count("stored"), 17);
    let digest = common::sha256(&body);
    assert!(
        run.items()
            .iter()
            .all(|item| item["outcome"] != "stored" || item["sha256"] == digest.as_str())
    );
}

#[test]
fn content_codings_are_taken_off_as_far_as_they_are_known() {
    let body = [b"a text that repeats itself ".repeat(500), noise(20_000)].concat();
    let coded = |coding: &str, bytes: Vec<u8>| Reply::ok(bytes).header("Content-Encoding", coding);
    let mut table = Table::default();
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let whole = encoded(coding, &body);
        let cut = whole[..whole.len() / 2].to_vec();
        let name = |what: &str| format!("{coding}-{what}");
        table.case(&name("good"), coded(coding, whole.clone()), Stored(1));
        table.case(
            &name("chunked"),
            coded(coding, whole.clone()).chunked(),
            Stored(1),
        );
        table.case(
            &name("in-capitals"),
            coded(&coding.to_uppercase(), whole.clone()),
            Stored(1),
        );
        // All bytes of the answer are there, and yet not all of the body.
        table.case(
            &name("short"),
            coded(coding, cut.clone()),
            Either(&["failed/truncated", "failed/bad-response"]),
        );
        table.case(
            &name("cut"),
            coded(coding, whole.clone()).cut_after(cut.len()),
            Bad("failed/truncated", 2),
        );
        table.case(
            &name("wrong"),
            coded(coding, body.clone()),
            // gzip and zstd have magic bytes, and the body lacks them.
            match coding {
                "gzip" | "zstd" => Stored(1),
                _ => Bad("failed/bad-response", 1),
            },
        );
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle..middle + 64].fill(0x55);
        table.case(
            &name("damaged"),
            coded(coding, flipped),
            Either(&["failed/bad-response", "failed/truncated", "stored"]),
        );
        table.case(
            &name("of-nothing"),
            coded(coding, Vec::new()),
            Bad("rejected/empty", 1),
        );
    }
    let twice = encoded("br", &encoded("gzip", &body));
    table.case("twice", coded("gzip, br", twice), Stored(1));
    table.case("identity", coded("identity", body.clone()), Stored(1));
    table.case("x-gzip", coded("x-gzip", encoded("gzip", &body)), Stored(1));
    table.case("unknown", coded("aes128gcm", body.clone()), Stored(1));
    table.case("nonsense", coded("!?", body.clone()), Stored(1));
    let ignored = ["utf-8", "none", "binary", "8bit", "aws-chunked", "", ","];
    for (n, name) in ignored.into_iter().enumerate() {
        table.case(
            &format!("ignored-{n}"),
            coded(name, body.clone()),
            Stored(1),
        );
    }
    for (name, lines, bytes) in [
        ("s3", &["gzip, aws-chunked"][..], encoded("gzip", &body)),
        ("lines", &["UTF-8", "GZip"], encoded("gzip", &body)),
        (
            "lines-twice",
            &["gzip", "br"],
            encoded("br", &encoded("gzip", &body)),
        ),
        ("raw-deflate", &["deflate"], encoded("raw deflate", &body)),
        ("gzip-as-deflate", &["deflate"], encoded("gzip", &body)),
        ("zlib-as-gzip", &["gzip"], encoded("deflate", &body)),
    ] {
        let reply = lines.iter().fold(Reply::ok(bytes), |reply, line| {
            reply.header("Content-Encoding", line)
        });
        table.case(name, reply, Stored(1));
    }
    // Bytes after the end are ignored, even if there are more than are read.
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for (name, behind) in [
            ("zeros", vec![0; 1]),
            ("many-zeros", vec![0; 100_000]),
            ("line", b"\r\n".to_vec()),
            ("noise", noise(500)),
        ] {
            let bytes = [encoded(coding, &body), behind].concat();
            let reply = coded(coding, bytes);
            table.case(&format!("{coding}-and-{name}"), reply.clone(), Stored(1));
            table.case(
                &format!("{coding}-and-{name}-chunked"),
                reply.chunked(),
                Stored(1),
            );
        }
    }
    for coding in ["gzip", "zstd"] {
        let (first, second) = body.split_at(7_000);
        let members = [encoded(coding, first), encoded(coding, second)].concat();
        let cut = members.len() - 9;
        table.case(
            &format!("{coding}-members"),
            coded(coding, members.clone()),
            Stored(1),
        );
        let padded = [&members[..], &[0; 512]].concat();
        table.case(
            &format!("{coding}-members-and-zeros"),
            coded(coding, padded),
            Stored(1),
        );
        table.case(
            &format!("{coding}-members-short"),
            coded(coding, members[..cut].to_vec()),
            Bad("failed/truncated", 2),
        );
    }
    table.case(
        "ten-times",
        coded(&["gzip"; 10].join(","), body.clone()),
        Bad("failed/bad-response", 1),
    );
    let (_, run) = table.hold(&faulty());
    let digest = common::sha256(&body);
    for item in run.items() {
        let is_damaged = item["url"].as_str().unwrap().contains("damaged");
        if item["outcome"] == "stored" && !is_damaged {
            assert_eq!(item["sha256"], digest.as_str(), "{item:#}");
        }
        // Formats with a checksum cannot be damaged unnoticed.
        let has_checksum = item["url"].as_str().unwrap().contains("gzip-damaged");
        assert!(!has_checksum || item["outcome"] == "failed", "{item:#}");
    }
}

#[test]
fn pictures_survive_whatever_is_said_of_their_coding() {
    let mut origin = Origin::builder();
    let mut paths = Vec::new();
    for (format, bytes) in pictures::all() {
        for coding in [
            "gzip", "deflate", "br", "zstd", "gzip, br", "utf-8", "binary", "compress",
        ] {
            let path = format!("/{}.{format}", coding.replace(", ", "-"));
            let reply = Reply::ok(bytes.clone()).header("Content-Encoding", coding);
            origin = origin.route(&path, reply);
            paths.push((path, bytes.clone()));
        }
        for (name, coding, sent) in [
            ("raw-deflate", "deflate", encoded("raw deflate", &bytes)),
            ("once-gzip", "gzip, gzip", encoded("gzip", &bytes)),
        ] {
            let path = format!("/{name}.{format}");
            let reply = Reply::ok(sent).header("Content-Encoding", coding);
            origin = origin.route(&path, reply);
            paths.push((path, bytes.clone()));
        }
    }
    let origin = origin.start();
    let run = Gannet::new()
        .set("image.check=decode")
        .fetch(paths.iter().map(|(path, _)| origin.url(path)))
        .settled();
    for (path, bytes) in paths {
        assert_eq!(run.verdict(origin.url(&path)), "stored", "{path}");
        assert_eq!(run.file(origin.url(&path)), bytes, "{path}");
    }
}

#[test]
fn lists_and_robots_rules_are_read_whatever_is_said_of_their_coding() {
    let rules = b"User-agent: *\nDisallow: /private\n";
    for (coding, bytes) in [
        ("utf-8", rules.to_vec()),
        ("gzip, aws-chunked", encoded("gzip", rules)),
        ("deflate", encoded("raw deflate", rules)),
        ("gzip", [encoded("gzip", rules), vec![0; 100]].concat()),
    ] {
        let coded = |bytes| Reply::ok(bytes).header("Content-Encoding", coding);
        let pictures = Origin::builder()
            .route("/robots.txt", coded(bytes))
            .otherwise(Reply::ok("a"))
            .start();
        let urls = ["/private", "/public"].map(|path| pictures.url(path));
        let list = format!("{}\n{}\n", urls[0], urls[1]).into_bytes();
        let list = match coding {
            "utf-8" => list,
            "deflate" => encoded("raw deflate", &list),
            _ => [encoded("gzip", &list), vec![0; 100]].concat(),
        };
        let lists = Origin::with("/list.txt", coded(list));
        let run = Gannet::any()
            .set("fetch.robots=true")
            .fetch_source(lists.url("/list.txt").as_str())
            .settled();
        assert_eq!(run.verdict(&urls[0]), "skipped/robots", "{coding}");
        assert_eq!(run.verdict(&urls[1]), "stored", "{coding}");
    }
}

#[test]
fn bodies_beyond_the_limit_are_rejected_as_soon_as_that_is_known() {
    const LIMIT: usize = 1 << 20;
    let mut table = Table::default();
    let large = Bad("rejected/too-large", 1);
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let bomb = encoded(coding, &vec![0; 32 << 20]);
        assert!(bomb.len() < LIMIT / 8);
        table.case(
            coding,
            Reply::ok(bomb).header("Content-Encoding", coding),
            large,
        );
    }
    let inner = encoded("gzip", &encoded("gzip", &vec![0; 32 << 20]));
    table.case(
        "twice",
        Reply::ok(inner).header("Content-Encoding", "gzip, gzip"),
        large,
    );
    table.case("endless", Reply::ok(noise(60_000)).endless(), large);
    table.case("one-more", Reply::ok(vec![b'a'; LIMIT + 1]), large);
    table.case(
        "one-more-unsaid",
        Reply::ok(vec![b'a'; LIMIT + 1]).until_close(),
        large,
    );
    table.case("exactly", Reply::ok(vec![b'a'; LIMIT]), Stored(1));
    table.case(
        "exactly-unsaid",
        Reply::ok(vec![b'a'; LIMIT]).chunked(),
        Stored(1),
    );
    table.case(
        "9-exabytes",
        Reply::ok("a").claim_length(u64::MAX / 2),
        large,
    );
    table.hold(&faulty().set("fetch.max_bytes=1MiB"));
}

#[test]
fn a_length_beyond_the_limit_is_rejected_without_reading_on() {
    let origin = Origin::with("/file", Reply::ok(noise(1 << 20)).repeated(1 << 10));
    let run = faulty()
        .set("fetch.max_bytes=1MiB")
        .fetch([origin.url("/file")])
        .settled();
    assert_eq!(run.verdict(origin.url("/file")), "rejected/too-large");
    // What the buffers of the two ends of a connection take in, at most.
    assert!(origin.sent() < 32 << 20, "{}", origin.sent());
    assert_eq!(origin.hits("/file"), 1);
}

#[test]
fn an_endless_page_sent_as_a_picture_is_hung_up_on() {
    let page = format!("<!DOCTYPE html><html><body>{}", "blah ".repeat(20_000));
    let origin = Origin::builder()
        .route(
            "/endless.jpg",
            Reply::ok(page.clone())
                .header("Content-Type", "image/jpeg")
                .endless(),
        )
        .route(
            "/1-GiB.jpg",
            Reply::ok(page)
                .header("Content-Type", "image/jpeg")
                .repeated(10_000),
        )
        .start();
    let urls = ["/endless.jpg", "/1-GiB.jpg"].map(|path| origin.url(path));
    let run = Gannet::new().fetch(&urls).settled();
    for url in &urls {
        assert_eq!(run.verdict(url), "rejected/wrong-kind");
        assert_eq!(run.item(url)["attempts"], 1);
    }
    assert!(origin.sent() < 64 << 20, "{}", origin.sent());
}

#[test]
fn what_is_no_whole_picture_is_rejected() {
    let picture = |bytes: &[u8]| Reply::ok(bytes).header("Content-Type", "image/png");
    let mut table = Table::default();
    let kind = Bad("rejected/wrong-kind", 1);
    for (name, bytes) in [
        (
            "html",
            &b"<!doctype html><html><head></head><body>Sign in</body></html>"[..],
        ),
        ("html-after-space", b"\n\n   <HTML><body>x"),
        ("html-comment", b"<!-- x --><html></html>"),
        (
            "xhtml",
            b"<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/xhtml\"><body/></html>",
        ),
        ("text", b"404: there is no such picture"),
        ("json", b"{\"error\": \"no such picture\"}"),
        ("script", b"function a() { return 1 }"),
        ("pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n"),
        (
            "zip",
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0",
        ),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"),
        ("mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free"),
        (
            "riff-not-webp",
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0",
        ),
        ("one-byte", b"\x89"),
        ("a-space", b" "),
        ("nuls", &[0; 10_000]),
    ] {
        table.case(name, picture(bytes), kind);
    }
    table.case(
        "noise",
        picture(&[&b"?"[..], &noise(10_000)].concat()),
        kind,
    );
    table.case("empty", picture(b""), Bad("rejected/empty", 1));
    let corrupt = Bad("rejected/corrupt", 1);
    for (format, bytes) in pictures::all() {
        for (name, length) in [
            ("half", bytes.len() / 2),
            ("three-quarters", bytes.len() * 3 / 4),
            ("all-but-one", bytes.len() - 1),
        ] {
            // The last byte of these is the trailer, or of a pointer that says that there is no more:
            // every decoder does without.
            let expected = match (format, name) {
                ("gif" | "tiff", "all-but-one") => Either(&["stored", "rejected/corrupt"]),
                // All pixels are there; half of the end marker is not.
                ("jpeg", "all-but-one") => Stored(1),
                _ => corrupt,
            };
            table.case(
                &format!("{format}-{name}"),
                picture(&bytes[..length]),
                expected,
            );
        }
        table.case(&format!("{format}-whole"), picture(&bytes), Stored(1));
    }
    for (name, svg) in [
        (
            "dtd",
            "<!DOCTYPE svg [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><svg xmlns=\"http://www.w3.org/2000/svg\"><text>&b;</text></svg>",
        ),
        (
            "external",
            "<!DOCTYPE svg [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><svg xmlns=\"http://www.w3.org/2000/svg\"><text>&a;</text></svg>",
        ),
        (
            "not-well-formed",
            "<svg xmlns=\"http://www.w3.org/2000/svg\"><g></svg>",
        ),
    ] {
        table.case(&format!("svg-{name}"), picture(svg.as_bytes()), corrupt);
    }
    let deep = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\">{}",
        "<g>".repeat(200_000)
    );
    table.case("svg-deep", picture(deep.as_bytes()), corrupt);
    let pixels = Bad("rejected/too-many-pixels", 1);
    for (width, height) in [
        (65_000, 65_000),
        (1 << 30, 1 << 30),
        (1_000_000, 1),
        (1, 100_000),
    ] {
        let bomb = pictures::png_that_claims(width, height);
        table.case(&format!("png-{width}-{height}"), picture(&bomb), pixels);
    }
    table.case(
        "png-0-0",
        picture(&pictures::png_that_claims(0, 0)),
        corrupt,
    );
    let (origin, run) = table.hold(&faulty().set("job.kind=image"));
    for (format, bytes) in pictures::all() {
        let url = origin.url(&format!("/{format}-whole"));
        let item = run.item(&url);
        assert_eq!(
            (&item["format"], run.file(&url) == bytes),
            (&format.into(), true),
            "{item:#}"
        );
        if format != "svg" {
            assert_eq!(
                (&item["width"], &item["height"]),
                (&16.into(), &12.into()),
                "{item:#}"
            );
        }
    }
}

#[test]
fn what_headers_and_names_say_of_a_picture_does_not_count() {
    let origin = [
        ("/a.jpg", "text/html", pictures::png()),
        ("/b.html", "application/json", pictures::png()),
        ("/c.png", "image/png", pictures::jpeg()),
        ("/d.gif", "image/svg+xml", pictures::jpeg()),
        ("/e", "application/octet-stream", pictures::svg()),
        ("/f", "nonsense", pictures::png()),
        ("/g", "", pictures::png()),
        ("/h.png", "image/png", b"<html>no</html>".to_vec()),
    ]
    .into_iter()
    .fold(Origin::builder(), |origin, (path, media_type, bytes)| {
        origin.route(path, Reply::ok(bytes).header("Content-Type", media_type))
    })
    .start();
    let paths = [
        "/a.jpg", "/b.html", "/c.png", "/d.gif", "/e", "/f", "/g", "/h.png",
    ];
    let run = Gannet::new()
        .set("naming.order=[\"url\"]")
        .fetch(paths.map(|path| origin.url(path)))
        .settled();
    for (path, format, media_type, ending) in [
        ("/a.jpg", "png", "image/png", ".png"),
        ("/b.html", "png", "image/png", ".png"),
        ("/c.png", "jpeg", "image/jpeg", ".jpg"),
        ("/d.gif", "jpeg", "image/jpeg", ".jpg"),
        ("/e", "svg", "image/svg+xml", ".svg"),
        ("/f", "png", "image/png", ".png"),
        ("/g", "png", "image/png", ".png"),
    ] {
        let item = run.item(origin.url(path));
        assert_eq!(common::verdict(item), "stored");
        assert_eq!(item["format"], format);
        assert_eq!(item["media_type"], media_type);
        assert!(item["path"].as_str().unwrap().ends_with(ending), "{item:#}");
    }
    assert_eq!(run.verdict(origin.url("/h.png")), "rejected/wrong-kind");
}

#[test]
fn silence_runs_into_the_idle_limit() {
    let body = noise(10_000);
    let mut table = Table::default();
    let silent = Bad("failed/timeout", 1);
    table.case("silent", Reply::silent(), silent);
    table.case("after-0", Reply::ok(body.clone()).hang_after(0), silent);
    table.case("within", Reply::ok(body.clone()).hang_after(5_000), silent);
    table.case(
        "chunked",
        Reply::ok(body).chunked().hang_after(5_000),
        silent,
    );
    let gannet = faulty().set("fetch.retries=0").set("fetch.idle_timeout=1s");
    table.hold(&gannet);
}

#[test]
fn a_slow_drip_is_too_slow() {
    let body = noise(10_000);
    let drip = Duration::from_millis(20);
    let mut table = Table::default();
    let slow = Bad("failed/too-slow", 1);
    table.case("slow", Reply::ok(body.clone()).drip(1, drip), slow);
    table.case("chunked", Reply::ok(body).chunked().drip(1, drip), slow);
    let gannet = faulty().set("fetch.retries=0").set("fetch.min_speed=1000");
    table.hold(&gannet.set("fetch.min_speed_window=700ms"));
}

#[test]
fn an_attempt_ends_at_the_limit_for_the_whole() {
    let mut table = Table::default();
    let body = noise(10_000);
    let drip = Duration::from_millis(20);
    table.case(
        "slow",
        Reply::ok(body.clone()).drip(10, drip),
        Bad("failed/timeout", 2),
    );
    table.case(
        "endless",
        Reply::ok(body).endless().drip(1_000, drip),
        Bad("failed/timeout", 2),
    );
    table.case(
        "late",
        Reply::ok("a").after(Duration::from_secs(60)),
        Bad("failed/timeout", 2),
    );
    let (_, run) = table.hold(
        &faulty()
            .set("fetch.total_timeout=500ms")
            .set("fetch.min_speed=0"),
    );
    // Two attempts each, at a time.
    assert!(run.elapsed >= Duration::from_secs(1));
}

#[test]
fn headers_that_drip_in_run_into_a_limit() {
    // Never silent for long, and never done.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let origin = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-A: a\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let run = faulty()
        .set("fetch.retries=0")
        .set("fetch.idle_timeout=500ms")
        .fetch([&url])
        .settled();
    assert_eq!(run.verdict(&url), "failed/timeout");
    origin.join().unwrap();
}

#[test]
fn a_refused_connection_is_tried_again_and_then_failed() {
    let url = format!("http://127.0.0.1:{}/file", closed_port());
    let run = faulty().set("fetch.retries=2").fetch([&url]).settled();
    assert_eq!(
        (run.verdict(&url).as_str(), &run.item(&url)["attempts"]),
        ("failed/connect", &3.into())
    );
}

#[test]
fn a_fault_that_passes_costs_attempts_only() {
    let good = || Reply::ok("at last");
    let mut table = Table::default();
    table.sequence(
        "503-twice",
        [Reply::status(503), Reply::status(503), good()],
        Stored(3),
    );
    table.sequence(
        "one-of-each",
        [
            Reply::status(500),
            Reply::reset(),
            Reply::status(408),
            good(),
        ],
        Stored(4),
    );
    table.sequence("closed", [Reply::close(), good()], Stored(2));
    table.sequence(
        "cut",
        [Reply::ok("at last, and more").cut_after(3), good()],
        Stored(2),
    );
    table.sequence(
        "too-often",
        (0..4).map(|_| Reply::status(502)).chain([good()]),
        Bad("failed/status", 4),
    );
    table.sequence(
        "behind-a-redirect",
        [Reply::redirect(302, "/503-later")],
        Stored(2),
    );
    table.sequence(
        "503-later",
        [Reply::status(503), good()],
        Either(&["stored"]),
    );
    let (origin, run) = table.hold(&faulty().set("fetch.retries=3").set("fetch.per_host=1"));
    // The reset of "one-of-each" costs no attempt on a connection that was used before.
    for path in ["/503-twice", "/too-often"] {
        assert_eq!(
            origin.hits(path) as u64,
            run.item(origin.url(path))["attempts"].as_u64().unwrap()
        );
    }
    let detail = run.item(origin.url("/too-often"))["detail"]
        .as_str()
        .unwrap();
    assert!(
        detail.contains("502") && detail.contains("4 attempts"),
        "{detail}"
    );
}

#[test]
fn a_wall_of_cookies_does_not_hinder_continuing() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let wall = |n: u8| {
        let wall = Reply::status(302).header("Location", "/file");
        wall.header("Set-Cookie", &format!("k={n}"))
    };
    let cut = whole.clone().cut_after(60_000);
    let origin = Origin::builder()
        .sequence("/file", [wall(1), cut, wall(2), whole])
        .start();
    let run = Gannet::any().fetch([origin.url("/file")]).settled();
    assert_eq!(run.verdict(origin.url("/file")), "stored");
    assert_eq!(run.file(origin.url("/file")), body);
    let asked = origin.asked("/file");
    let sent = |name| -> Vec<_> { asked.iter().map(|asked| asked.header(name)).collect() };
    assert_eq!(
        sent("cookie"),
        [None, Some("k=1"), Some("k=1"), Some("k=2")]
    );
    assert_eq!(sent("range")[..2], [None, None]);
    assert!(sent("range")[3].is_some(), "{asked:?}");
}

#[test]
fn a_body_cut_off_is_continued_where_it_was() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let dated = Reply::ok(body.clone())
        .last_modified("Fri, 20 Nov 2020 12:00:00 GMT")
        .header("Date", "Fri, 20 Nov 2020 13:00:00 GMT")
        .ranges();
    let bare = Reply::ok(body.clone()).ranges();
    let weak = Reply::ok(body.clone()).etag("W/\"v1\"").ranges();
    let zip = Reply::ok(encoded("gzip", &body))
        .header("Content-Encoding", "gzip")
        .etag("\"v1\"")
        .ranges();
    let mut table = Table::default();
    for power in [0, 4, 9, 12, 14, 16] {
        let at = 1 << power;
        table.sequence(
            &format!("at-{at}"),
            [whole.clone().cut_after(at), whole.clone()],
            Stored(2),
        );
    }
    table.sequence(
        "again-and-again",
        [
            whole.clone().cut_after(30_000),
            whole.clone().cut_after(30_000),
            whole.clone().cut_after(30_000),
            whole.clone(),
        ],
        Stored(4),
    );
    table.sequence(
        "by-reset",
        [whole.clone().reset_after(50_000), whole.clone()],
        Stored(2),
    );
    table.sequence(
        "by-date",
        [dated.clone().cut_after(50_000), dated],
        Stored(2),
    );
    table.sequence("bare", [bare.clone().cut_after(50_000), bare], Stored(2));
    table.sequence("weak", [weak.clone().cut_after(50_000), weak], Stored(2));
    table.sequence(
        "encoded",
        [zip.clone().cut_after(50_000), zip.clone()],
        Stored(2),
    );
    table.sequence(
        "encoded-first",
        [
            zip.cut_after(50_000),
            whole.clone().cut_after(50_000),
            whole.clone(),
        ],
        Stored(3),
    );
    table.sequence(
        "changed",
        [
            whole.clone().cut_after(50_000),
            Reply::ok("new").etag("\"v2\"").ranges(),
        ],
        Stored(2),
    );
    table.sequence(
        "no-ranges",
        [
            whole.clone().cut_after(50_000),
            Reply::ok(body.clone()).etag("\"v1\""),
        ],
        Stored(2),
    );
    let part = |range: &str, bytes: &[u8]| {
        Reply::status(206)
            .body(bytes)
            .header("Content-Range", range)
            .etag("\"v1\"")
    };
    for (name, wrong) in [
        ("from-0", part("bytes 0-49999/100000", &body[..50_000])),
        ("too-far", part("bytes 60000-99999/100000", &body[60_000..])),
        ("no-range", Reply::status(206).body(&body[50_000..])),
        ("bad-range", part("bytes nonsense", &body[50_000..])),
        (
            "416",
            Reply::status(416).header("Content-Range", "bytes */100000"),
        ),
        ("gone-304", Reply::status(304)),
    ] {
        let expected = if name == "gone-304" {
            Either(&["stored", "failed/bad-response"])
        } else {
            Stored(3)
        };
        table.sequence(
            &format!("wrong-{name}"),
            [whole.clone().cut_after(50_000), wrong, whole.clone()],
            expected,
        );
    }
    // The origin says that it is another file now, in the answer to the range itself.
    table.sequence(
        "another-in-part",
        [
            whole.clone().cut_after(50_000),
            Reply::status(206)
                .body(vec![b'x'; 50_000])
                .header("Content-Range", "bytes 50000-99999/100000")
                .etag("\"v2\""),
            whole.clone(),
        ],
        Stored(3),
    );
    table.sequence(
        "another-length",
        [
            whole.clone().cut_after(50_000),
            part("bytes 50000-59999/60000", &body[50_000..60_000]),
            whole,
        ],
        Stored(3),
    );
    let (origin, run) = table.hold(&faulty().set("fetch.retries=3"));
    let digest = common::sha256(&body);
    let mut wrong = BTreeMap::new();
    for item in run
        .items()
        .iter()
        .filter(|item| item["outcome"] == "stored")
    {
        let url = item["url"].as_str().unwrap();
        if !url.ends_with("/changed") && item["sha256"] != digest.as_str() {
            wrong.insert(url, item["bytes"].to_string());
        }
    }
    assert!(wrong.is_empty(), "not the origin's bytes: {wrong:?}");
    assert_eq!(run.file(origin.url("/changed")), b"new");
    let second = |path: &str| origin.asked(path).swap_remove(1);
    for (path, range, condition) in [
        ("/at-4096", "bytes=4096-", "\"v1\""),
        ("/by-date", "bytes=50000-", "Fri, 20 Nov 2020 12:00:00 GMT"),
    ] {
        assert_eq!(second(path).header("range"), Some(range), "{path}");
        assert_eq!(second(path).header("if-range"), Some(condition), "{path}");
    }
    // Nothing tells whether what follows belongs to what came before.
    for path in ["/bare", "/weak", "/encoded"] {
        assert_eq!(second(path).header("range"), None, "{path}");
    }
    // An encoded body cannot be continued, so the next request asks for none.
    let asked = origin.asked("/encoded-first");
    let without = Some("identity");
    assert_eq!(asked[1].header("accept-encoding"), without);
    assert_eq!(asked[2].header("range"), Some("bytes=50000-"));
    let third = origin.asked("/wrong-416").swap_remove(2);
    assert_eq!(third.header("range"), None);
    // Each byte was asked for once.
    let ranges: Vec<_> = origin
        .asked("/again-and-again")
        .iter()
        .map(|asked| asked.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=30000-".to_owned()),
            Some("bytes=60000-".to_owned()),
            Some("bytes=90000-".to_owned())
        ]
    );
}

#[test]
fn a_body_that_gets_further_each_time_arrives_however_many_attempts_that_takes() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let cut = whole.clone().cut_after(20_000);
    let capped = whole.clone().capped(20_000);
    let mut table = Table::default();
    // Each case runs with one retry.
    table.case("cut-each-time", cut.clone(), Stored(5));
    table.case(
        "capped-and-cut",
        capped.clone().cut_after(15_000),
        Stored(7),
    );
    table.sequence("capped", [cut.clone(), capped.clone()], Stored(5));
    table.sequence(
        "capped-without-length",
        [cut.clone(), capped.clone().hide_length()],
        Stored(5),
    );
    let unknown = whole.clone().chunked().cut_after(20_000);
    table.sequence(
        "chunked-then-capped",
        [unknown.clone(), capped.clone()],
        Stored(5),
    );
    // Only the next range shows that the body is whole.
    table.sequence(
        "never-a-length",
        [unknown.clone(), capped.clone().hide_length()],
        Stored(6),
    );
    table.sequence(
        "never-a-length-and-a-bare-416",
        std::iter::once(unknown)
            .chain((0..4).map(|_| capped.clone().hide_length()))
            .chain([Reply::status(416)]),
        Stored(6),
    );
    table.sequence(
        "all-but-its-end",
        [whole.clone().chunked().cut_after(100_000), whole.clone()],
        Stored(2),
    );
    table.sequence(
        "refused-in-between",
        [
            cut.clone(),
            capped.clone(),
            Reply::status(503),
            capped.clone(),
            Reply::reset(),
            capped.clone(),
        ],
        Stored(7),
    );
    // Attempts without progress count.
    let truncated = |attempts| Bad("failed/truncated", attempts);
    table.case(
        "always-from-the-start",
        Reply::ok(body.clone()).etag("\"v1\"").cut_after(20_000),
        truncated(2),
    );
    table.case(
        "no-ranges",
        Reply::ok(body.clone())
            .etag("\"v1\"")
            .header("Accept-Ranges", "none")
            .cut_after(20_000),
        truncated(2),
    );
    table.case("a-byte-each-time", whole.clone().cut_after(1), truncated(2));
    table.sequence(
        "a-byte-of-each-range",
        [cut.clone(), whole.clone().capped(1)],
        truncated(2),
    );
    table.sequence(
        "another-version-each-time",
        (0..9).map(|n| {
            Reply::ok(body.clone())
                .etag(&format!("\"v{n}\""))
                .ranges()
                .cut_after(20_000)
        }),
        truncated(2),
    );
    let (origin, run) = table.hold(&faulty());
    let digest = common::sha256(&body);
    for item in run
        .items()
        .iter()
        .filter(|item| item["outcome"] == "stored")
    {
        assert_eq!(item["sha256"], digest.as_str(), "{item:#}");
    }
    let ranges: Vec<_> = origin
        .asked("/capped")
        .iter()
        .filter_map(|asked| asked.header("range").map(str::to_owned))
        .collect();
    assert_eq!(origin.asked("/no-ranges")[1].header("range"), None);
    let refused = origin.asked("/refused-in-between");
    assert_eq!(
        refused.last().unwrap().header("range"),
        Some("bytes=80000-")
    );
    assert_eq!(
        ranges,
        [
            "bytes=20000-",
            "bytes=40000-",
            "bytes=60000-",
            "bytes=80000-"
        ]
    );
}

#[test]
fn a_part_needs_no_retry_and_no_pause() {
    let body = noise(2_000_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let origin = Origin::builder()
        .sequence(
            "/file",
            [whole.clone().cut_after(10_000), whole.capped(10_000)],
        )
        .start();
    let url = origin.url("/file");
    // A pause after each of the two hundred requests would exceed the time limit of a run.
    let run = faulty()
        .set("fetch.backoff=5s")
        .set("fetch.backoff_max=5s")
        .fetch([&url])
        .settled();
    assert!(run.file(&url) == body);
    assert_eq!(run.item(&url)["attempts"], 200);
}

#[test]
fn an_answer_that_belongs_nowhere_is_not_put_behind_what_is_there() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let part = |status, range: &str, bytes: &[u8]| {
        Reply::status(status)
            .body(bytes)
            .header("Content-Range", range)
            .etag("\"v1\"")
    };
    let mut table = Table::default();
    for (name, wrong) in [
        (
            "multipart",
            part(206, "bytes 20000-99999/100000", &body[20_000..])
                .header("Content-Type", "Multipart/ByteRanges; boundary=x"),
        ),
        (
            "200-with-a-range",
            part(200, "bytes 20000-99999/100000", &body[20_000..]),
        ),
        (
            "more-than-its-range",
            part(206, "bytes 20000-29999/100000", &body[20_000..]),
        ),
        (
            "more-than-its-range-in-chunks",
            part(206, "bytes 20000-29999/100000", &body[20_000..]).chunked(),
        ),
        (
            "416-of-another-length",
            Reply::status(416).header("Content-Range", "bytes */20001"),
        ),
        (
            "416-of-another-version",
            Reply::status(416)
                .header("Content-Range", "bytes */20000")
                .etag("\"v2\""),
        ),
        (
            "416-against-the-length",
            Reply::status(416).header("Content-Range", "bytes */20000"),
        ),
    ] {
        table.sequence(
            name,
            [whole.clone().cut_after(20_000), wrong, whole.clone()],
            Stored(3),
        );
    }
    let (_, run) = table.hold(&faulty().set("fetch.retries=3"));
    let digest = common::sha256(&body);
    assert!(
        run.items()
            .iter()
            .all(|item| item["sha256"] == digest.as_str())
    );
}

#[test]
fn what_the_first_answer_says_holds_for_a_continued_body() {
    let body = noise(100_000);
    let first = Reply::ok(body.clone())
        .etag("\"v1\"")
        .header(
            "Content-Disposition",
            "attachment; filename=\"from-header.bin\"",
        )
        .cut_after(20_000);
    // An answer to `If-Range` need not repeat known headers.
    let rest = Reply::status(206)
        .body(&body[20_000..])
        .header("Content-Range", "bytes 20000-99999/100000");
    let origin = Origin::builder().sequence("/file", [first, rest]).start();
    let url = origin.url("/file");
    let run = faulty().fetch([&url]).settled();
    let item = run.item(&url);
    assert!(run.file(&url) == body);
    assert_eq!(item["name_from"], "header", "{item:#}");
    assert!(
        item["path"].as_str().unwrap().ends_with("from-header.bin"),
        "{item:#}"
    );
}

#[test]
fn parts_with_another_digest_than_the_list_promises_are_asked_for_as_a_whole() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let (cut, other) = (
        whole.clone().cut_after(50_000),
        Reply::ok(noise(100_001)[1..].to_vec())
            .etag("\"v1\"")
            .ranges(),
    );
    let origin = Origin::builder()
        .sequence("/good", [cut.clone(), other.clone(), whole])
        .sequence("/bad", [cut, other.clone()])
        .route("/once", other)
        .start();
    let gannet = faulty();
    let digest = common::sha256(&body);
    let lines = ["/good", "/bad", "/once"].map(|path| format!("{},{digest}\n", origin.url(path)));
    std::fs::write(
        gannet.path("list.csv"),
        format!("url,sha256\n{}", lines.concat()),
    )
    .unwrap();
    let run = gannet.fetch_source("list.csv").settled();
    for (path, verdict, attempts) in [
        ("/good", "stored", 3),
        ("/bad", "rejected/checksum", 3),
        ("/once", "rejected/checksum", 1),
    ] {
        let url = origin.url(path);
        assert_eq!(run.verdict(&url), verdict);
        assert_eq!(run.item(&url)["attempts"], attempts, "{path}");
    }
}

/// Returns a PNG with a comment of `bytes` before its pixels.
fn long_png(bytes: usize, fill: u8) -> Vec<u8> {
    let mut png = pictures::png();
    let comment = pictures::chunk(b"teXt", &vec![fill; bytes]);
    png.splice(33..33, comment);
    png
}

#[test]
fn parts_that_make_no_good_file_are_asked_for_as_a_whole() {
    let good = long_png(50_000, b'a');
    let mut bad = good.clone();
    let end = bad.len() - 20;
    bad[end] ^= 1;
    let picture = |bytes: &[u8]| Reply::ok(bytes).etag("\"v1\"").ranges();
    let (cut, rest) = (picture(&good).cut_after(30_000), picture(&bad));
    let corrupt = |attempts| Bad("rejected/corrupt", attempts);
    let mut table = Table::default();
    table.sequence(
        "whole-then-good",
        [cut.clone(), rest.clone(), picture(&good)],
        Stored(3),
    );
    table.sequence(
        "whole-then-bad",
        [cut.clone(), rest.clone(), picture(&bad)],
        corrupt(3),
    );
    table.case("in-one-piece", picture(&bad), corrupt(1));
    // A request for the whole file is not continued.
    table.sequence(
        "whole-then-cut",
        [cut.clone(), rest.clone(), cut.clone(), picture(&good)],
        Stored(4),
    );
    table.sequence(
        "never-whole",
        [cut.clone(), rest.clone(), cut.clone(), cut.clone()],
        Bad("failed/truncated", 4),
    );
    let (origin, _) = table.hold(&faulty().set("job.kind=image"));
    for path in [
        "/whole-then-good",
        "/whole-then-bad",
        "/whole-then-cut",
        "/never-whole",
    ] {
        for (n, asked) in origin.asked(path).iter().enumerate() {
            assert_eq!(
                asked.header("range").is_some(),
                n == 1,
                "{path}, request {n}"
            );
        }
    }
}

#[test]
fn a_broken_picture_is_hung_up_on_where_it_breaks() {
    let mut early = pictures::png()[..33].to_vec();
    early.extend(pictures::chunk(b"teXt", &[b'x'; 1_224]));
    assert_eq!(early.len(), 1_269);
    early.extend([0; 20_000]);
    // Larger than a body in memory may be.
    let mut late = long_png(3 << 20, b'x');
    late.truncate(33 + 12 + (3 << 20));
    late.extend(vec![0; 1 << 20]);
    let huge = [
        &pictures::png_that_claims(65_000, 65_000)[..33],
        &[0; 20_000],
    ]
    .concat();
    let jpeg = [&b"\xff\xd8\xff\xe0\0\x01"[..], &[0; 20_000]].concat();
    let corrupt = Bad("rejected/corrupt", 1);
    let mut table = Table::default();
    for (name, bytes, expected) in [
        ("early", &early, corrupt),
        ("late", &late, corrupt),
        ("huge", &huge, Bad("rejected/too-many-pixels", 1)),
        ("jpeg", &jpeg, corrupt),
    ] {
        let times = (256 << 20) / bytes.len() as u64;
        table.case(name, Reply::ok(bytes.clone()).repeated(times), expected);
        table.case(
            &format!("{name}-endless"),
            Reply::ok(bytes.clone()).endless(),
            expected,
        );
        // The rest is not requested.
        let cut = Reply::ok(bytes.clone()).etag("\"v1\"").ranges();
        let at = bytes.len() - 1_000;
        table.case(&format!("{name}-cut"), cut.clone().cut_after(at), expected);
        let bare = Reply::ok(bytes.clone()).cut_after(at);
        table.case(&format!("{name}-cut-without-validator"), bare, expected);
        table.case(
            &format!("{name}-cut-chunked"),
            cut.chunked().cut_after(at),
            expected,
        );
    }
    let mut short = early.clone();
    short.truncate(1_400);
    let short = Reply::ok(short).etag("\"v1\"").ranges().cut_after(1_300);
    table.case("short-cut", short, corrupt);
    // A good picture is continued.
    let good = Reply::ok(long_png(3 << 20, b'x')).etag("\"v1\"").ranges();
    table.sequence("good", [good.clone().cut_after(2 << 20), good], Stored(2));
    let (origin, _) = table.hold(&faulty().set("job.kind=image").set("fetch.per_host=4"));
    assert!(origin.sent() < 200 << 20, "{}", origin.sent());
}

#[test]
fn a_body_behind_a_redirect_is_continued_too() {
    let body = noise(100_000);
    let whole = Reply::ok(body.clone()).etag("\"v1\"").ranges();
    let origin = Origin::builder()
        .route("/file", Reply::redirect(302, "/on"))
        .route("/on", Reply::redirect(307, "/cdn"))
        .sequence("/cdn", [whole.clone().cut_after(60_000), whole])
        .start();
    let url = origin.url("/file");
    let run = faulty().fetch([&url]).settled();
    assert!(run.file(&url) == body);
    assert_eq!(run.item(&url)["attempts"], 2);
    for path in ["/file", "/on"] {
        for asked in origin.asked(path) {
            assert_eq!(asked.header("range"), None, "{path}");
        }
    }
    assert_eq!(
        origin.asked("/cdn")[1].header("range"),
        Some("bytes=60000-")
    );
}

#[test]
fn a_second_run_asks_with_a_condition_and_takes_no_body() {
    const DATE: &str = "Fri, 20 Nov 2020 12:00:00 GMT";
    let origin = Origin::builder()
        .route("/etag", Reply::ok("a").etag("\"v1\""))
        .route("/weak", Reply::ok("b").etag("W/\"v1\""))
        .route("/date", Reply::ok("c").last_modified(DATE))
        .route(
            "/fresh",
            Reply::ok("d").header("Cache-Control", "max-age=3600"),
        )
        .route("/bare", Reply::ok("e"))
        .sequence(
            "/new",
            [
                Reply::ok("f").etag("\"v1\""),
                Reply::ok("ff").etag("\"v2\""),
            ],
        )
        .sequence("/gone", [Reply::ok("g").etag("\"v1\""), Reply::status(404)])
        .sequence(
            "/same",
            [Reply::ok("h").etag("\"v1\""), Reply::ok("h").etag("\"v2\"")],
        )
        .start();
    let paths = [
        "/etag", "/weak", "/date", "/fresh", "/bare", "/new", "/gone", "/same",
    ];
    let urls = paths.map(|path| origin.url(path));
    let gannet = faulty();
    let first = gannet.fetch(&urls).settled();
    assert_eq!(first.count("stored"), 8);
    let second = gannet.fetch(&urls).settled();
    let verdicts: Vec<_> = urls.iter().map(|url| second.verdict(url)).collect();
    assert_eq!(
        verdicts,
        [
            "unchanged",
            "unchanged",
            "unchanged",
            "unchanged",
            "unchanged",
            "changed",
            "failed/status",
            "unchanged"
        ]
    );
    assert_eq!(
        paths.map(|path| origin.hits(path)),
        [2, 2, 2, 1, 2, 2, 2, 2]
    );
    assert_eq!(
        paths.map(|path| origin.conditional(path)),
        [1, 1, 1, 0, 0, 1, 1, 1]
    );
    assert_eq!(second.file(&urls[5]), b"ff");
    assert_eq!(
        second.item(&urls[5])["path"],
        first.item(&urls[5])["path"],
        "a known URL keeps its name"
    );
    // What an origin no longer has is still here.
    assert_eq!(first.file(&urls[6]), b"g");

    let gannet = gannet.arg("--refresh");
    assert_eq!(
        gannet.fetch([&urls[3]]).settled().verdict(&urls[3]),
        "unchanged"
    );
    assert_eq!(origin.hits("/fresh"), 2);
}

#[test]
fn a_certificate_has_to_be_trusted() {
    let origin = Origin::builder()
        .tls()
        .route("/file", Reply::ok("a"))
        .start();
    let url = origin.url("/file");
    let run = faulty().fetch([&url]).settled();
    assert_eq!(
        (run.verdict(&url).as_str(), &run.item(&url)["attempts"]),
        ("failed/tls", &1.into())
    );
    assert!(
        run.item(&url)["detail"]
            .as_str()
            .unwrap()
            .contains("ca_files")
    );
    assert_eq!(origin.total(), 0);

    let gannet = faulty();
    std::fs::write(gannet.path("ca.pem"), origin.ca_pem.as_ref().unwrap()).unwrap();
    let gannet = gannet.arg("--ca-file=ca.pem");
    assert_eq!(gannet.fetch([&url]).settled().verdict(&url), "stored");
    // The certificate is for another name.
    let other = origin.url_as("other.localhost", "/file");
    assert_eq!(
        gannet.fetch([&other]).settled().verdict(&other),
        "failed/tls"
    );
    // No TLS there at all.
    let plain = Origin::with("/file", Reply::ok("a"));
    let url = plain.url("/file").as_str().replace("http", "https");
    assert_eq!(gannet.fetch([&url]).settled().verdict(&url), "failed/tls");
}

#[test]
fn an_authority_file_that_is_none_is_said_before_anything_starts() {
    let origin = Origin::with("/file", Reply::ok("a"));
    for (name, contents) in [
        ("missing.pem", None),
        ("empty.pem", Some("")),
        ("text.pem", Some("hello")),
    ] {
        let gannet = faulty();
        if let Some(contents) = contents {
            std::fs::write(gannet.path(name), contents).unwrap();
        }
        let run = gannet
            .arg(format!("--ca-file={name}"))
            .fetch([origin.url("/file")]);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains(name), "{}", run.stderr);
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_proxy_is_used_unless_it_is_not_wanted() {
    let proxy = Origin::builder().otherwise(Reply::ok("by proxy")).start();
    let direct = Origin::with("/file", Reply::ok("direct"));
    let at = format!("http://ann:s3cret@{}", proxy.address);
    let outside = "http://8.8.8.8/file";
    let base = || {
        Gannet::guarded()
            .set("job.kind=any")
            .arg("--allow-private")
            .set("fetch.retries=0")
    };
    let run = base()
        .arg(format!("--proxy={at}"))
        .fetch([outside])
        .settled();
    assert_eq!(run.file(outside), b"by proxy");
    let asked = proxy.asked(outside).swap_remove(0);
    assert_eq!(
        asked.header("proxy-authorization"),
        Some("Basic YW5uOnMzY3JldA==")
    );
    let told = format!("{}{}{}", run.report(), run.stdout, run.stderr);
    assert!(!told.contains("s3cret"), "{told}");

    let inside = direct.url("/file");
    let by_environment = || base().env("http_proxy", &at).env("HTTP_PROXY", &at);
    let run = by_environment().fetch([&inside]).settled();
    assert_eq!(run.file(&inside), b"by proxy");
    let run = by_environment()
        .arg("--proxy=direct")
        .fetch([&inside])
        .settled();
    assert_eq!(run.file(&inside), b"direct");
    let run = by_environment()
        .env("NO_PROXY", "127.0.0.1")
        .fetch([&inside])
        .settled();
    assert_eq!(run.file(&inside), b"direct");
}

#[test]
fn a_proxy_that_fails_is_told_from_an_origin_that_does() {
    let base = || {
        Gannet::guarded()
            .set("job.kind=any")
            .arg("--allow-private")
            .set("fetch.retries=0")
    };
    let grumpy = Origin::builder().otherwise(Reply::status(502)).start();
    let strict = Origin::builder().otherwise(Reply::status(407)).start();
    let closed = format!("127.0.0.1:{}", closed_port());
    for (proxy, url, expected) in [
        (
            closed.clone(),
            "http://8.8.8.8/",
            &["failed/proxy", "failed/connect"][..],
        ),
        (
            closed,
            "https://8.8.8.8/",
            &["failed/proxy", "failed/connect"],
        ),
        (
            grumpy.address.to_string(),
            "https://8.8.8.8/",
            &["failed/proxy"],
        ),
        (
            grumpy.address.to_string(),
            "http://8.8.8.8/",
            &["failed/status"],
        ),
        (
            strict.address.to_string(),
            "http://8.8.8.8/",
            &["failed/proxy"],
        ),
        (
            strict.address.to_string(),
            "https://8.8.8.8/",
            &["failed/proxy"],
        ),
    ] {
        let run = base()
            .arg(format!("--proxy=http://ann:s3cret@{proxy}"))
            .fetch([url])
            .settled();
        let verdict = run.verdict(url);
        assert!(
            expected.contains(&verdict.as_str()),
            "{proxy} {url}: {verdict}"
        );
        assert!(!format!("{}{}", run.report(), run.stderr).contains("s3cret"));
    }
}

#[test]
fn credentials_are_not_sent_on_by_a_redirect_and_not_told() {
    let other = Origin::with("/file", Reply::ok("a"));
    let origin = Origin::builder()
        .route("/away", Reply::redirect(302, other.url("/file")))
        .route("/on", Reply::redirect(302, "/file"))
        .route("/file", Reply::ok("a"))
        .start();
    let config = "[hosts.\"127.0.0.1\"]\ntoken = \"t0ken-s3cret\"\n[hosts.\"127.0.0.1\".headers]\nX-Own = \"own-s3cret\"\n";
    let gannet = Gannet::any()
        .config(config)
        .arg("--header=X-Api-Key: k3y-s3cret")
        .arg("--header=X-Plain: p");
    let (away, on) = (origin.url("/away"), origin.url("/on"));
    let run = gannet.fetch([&away, &on]).settled();
    assert_eq!(run.count("stored"), 2, "{:#}", run.report());
    for path in ["/away", "/on", "/file"] {
        let asked = origin.asked(path).swap_remove(0);
        assert_eq!(
            asked.header("authorization"),
            Some("Bearer t0ken-s3cret"),
            "{path}"
        );
        assert_eq!(asked.header("x-api-key"), Some("k3y-s3cret"), "{path}");
    }
    let asked = other.asked("/file").swap_remove(0);
    for name in ["authorization", "x-api-key", "x-own", "cookie", "referer"] {
        assert_eq!(asked.header(name), None, "{name}");
    }
    assert_eq!(asked.header("x-plain"), Some("p"));

    // In the URL itself.
    let mut url = origin.url("/away");
    url.set_username("ann").unwrap();
    url.set_password(Some("url-s3cret")).unwrap();
    let second = Gannet::any().arg("-vv").fetch([&url]).settled();
    assert_eq!(
        origin.asked("/away")[1].header("authorization"),
        Some("Basic YW5uOnVybC1zM2NyZXQ=")
    );
    assert_eq!(other.asked("/file")[1].header("authorization"), None);
    for run in [&run, &second] {
        let told = format!("{}{}{}", run.report(), run.stdout, run.stderr);
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn robots_are_respected_where_that_is_asked_for() {
    let noai = |value: &str| Reply::ok("a").header("X-Robots-Tag", value);
    let origin = Origin::builder()
        .route(
            "/robots.txt",
            Reply::ok("User-agent: *\nDisallow: /private/\n"),
        )
        .route("/private/file", Reply::ok("a"))
        .route("/to-private", Reply::redirect(302, "/private/file"))
        .route("/public", Reply::ok("a"))
        .route("/noai", noai("noai"))
        .route("/noimageai", noai("noindex, NoImageAI"))
        .route("/other-robot", noai("otherbot: noai"))
        .route("/noindex", noai("noindex"))
        .start();
    let paths = [
        "/private/file",
        "/to-private",
        "/public",
        "/noai",
        "/noimageai",
        "/other-robot",
        "/noindex",
    ];
    let urls = paths.map(|path| origin.url(path));
    let run = Gannet::any()
        .set("fetch.robots=true")
        .fetch(&urls)
        .settled();
    let verdicts = urls.each_ref().map(|url| run.verdict(url));
    assert_eq!(
        verdicts,
        [
            "skipped/robots",
            "skipped/robots",
            "stored",
            "skipped/robots",
            "skipped/robots",
            "stored",
            "stored"
        ]
    );
    assert_eq!(
        (origin.hits("/private/file"), origin.hits("/robots.txt")),
        (0, 1)
    );
    let run = Gannet::any().fetch(&urls).settled();
    assert_eq!(run.count("stored"), 7);
    assert_eq!(origin.hits("/robots.txt"), 1);
}

#[test]
fn robots_rules_that_do_not_come_forbid_all() {
    for (reply, expected) in [
        (Reply::status(404), "stored"),
        (Reply::status(503), "failed/status"),
        (Reply::status(429), "failed/status"),
        (Reply::reset(), "failed/reset"),
        (Reply::silent(), "failed/timeout"),
    ] {
        let origin = Origin::builder()
            .route("/robots.txt", reply)
            .otherwise(Reply::ok("a"))
            .start();
        let urls: Vec<_> = (0..20).map(|n| origin.url(&format!("/{n}"))).collect();
        let run = faulty()
            .set("fetch.robots=true")
            .set("fetch.idle_timeout=500ms")
            .fetch(&urls)
            .settled();
        for url in &urls {
            assert_eq!(run.verdict(url), expected);
            if expected != "stored" {
                assert_eq!(run.item(url)["attempts"], 2);
                let detail = run.item(url)["detail"].as_str().unwrap();
                assert!(detail.contains("robots.txt"), "{detail}");
                assert_eq!(origin.hits(url.path()), 0);
            }
        }
        // Those that wait for the same answer share it.
        let asked = origin.hits("/robots.txt");
        assert!(asked <= 20, "{asked} requests");
    }
}

#[test]
fn robots_rules_that_come_late_are_respected() {
    let origin = Origin::builder()
        .sequence(
            "/robots.txt",
            [
                Reply::status(500),
                Reply::ok("User-agent: *\nDisallow: /private"),
            ],
        )
        .otherwise(Reply::ok("a"))
        .start();
    let (public, private) = (origin.url("/public"), origin.url("/private"));
    let run = faulty()
        .set("fetch.robots=true")
        .fetch([&public, &private])
        .settled();
    assert_eq!(run.verdict(&public), "stored");
    assert_eq!(run.verdict(&private), "skipped/robots");
    assert_eq!(origin.hits("/robots.txt"), 2);
}

#[test]
fn a_host_without_robots_rules_because_it_is_down_is_told_as_down() {
    let tls = Origin::builder().tls().otherwise(Reply::ok("a")).start();
    let down = format!("http://127.0.0.1:{}/file", closed_port());
    let untrusted = tls.url("/file").to_string();
    let run = faulty()
        .set("fetch.robots=true")
        .fetch([&down, &untrusted])
        .settled();
    assert_eq!(run.verdict(&down), "failed/connect");
    assert_eq!(run.item(&down)["attempts"], 2);
    assert_eq!(run.verdict(&untrusted), "failed/tls");
}

#[test]
fn bad_lines_are_items_and_other_schemes_are_not_asked() {
    let origin = Origin::with("/file", Reply::ok("a"));
    let run = faulty()
        .fetch([
            origin.url("/file").as_str(),
            "no url at all",
            "http://",
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
        ])
        .settled();
    let verdicts: Vec<_> = run
        .items()
        .iter()
        .map(|item| (item["line"].as_u64().unwrap(), common::verdict(item)))
        .collect();
    let verdicts: BTreeMap<_, _> = verdicts.into_iter().collect();
    let expected = [
        "stored",
        "failed/invalid-url",
        "failed/invalid-url",
        "failed/unsupported-scheme",
        "failed/unsupported-scheme",
    ];
    for (line, expected) in (1..).zip(expected) {
        assert_eq!(verdicts[&line], expected, "line {line}");
    }
}
