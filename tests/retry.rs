//! `gannet retry`: requests what failed in a job again, and nothing else. Also further requests that are not retries:
//! for cookies and credentials that an origin asks for.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::pictures::png;
use support::{Run, Sandbox, Site, sha256, site::Answer, site::Asked};

/// A site where everything but `/good` fails until it is mended, each with the status that its path begins with.
struct Broken {
    site: Site,
    mended: Arc<AtomicBool>,
}

impl Broken {
    fn start() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let site = Site::start(move |asked| match asked.path.get(1..4) {
            Some(status @ ("404" | "410" | "500")) if !is_mended.load(Ordering::SeqCst) => {
                Answer::status(status.parse().unwrap())
            }
            Some("htm") if !is_mended.load(Ordering::SeqCst) => Answer::ok("<!doctype html><p>no"),
            _ => Answer::ok(png(u32::try_from(asked.path.len()).unwrap())),
        });
        Self { site, mended }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
        self.site.forget();
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.site.asked().into_iter().map(|a| a.path).collect();
        paths.sort();
        paths
    }
}

/// `gannet retry`, impatient, with the summary as JSON.
fn retry(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut all = sandbox.fetch_args(args);
    all[0] = "retry";
    sandbox.run(all)
}

fn jobs(sandbox: &Sandbox) -> Vec<Value> {
    let run = sandbox.run(["jobs", "-o", "out", "--json"]).expect(0);
    run.json().as_array().unwrap().clone()
}

#[test]
fn what_failed_is_asked_for_whatever_is_known_of_it_and_gets_what_its_list_wants() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let wanted = sha256(&png(4));
    let list = format!(
        "url,name,album,sha256,group\n{},,,,\n{},gone,shop,,a\n{},,,{wanted},\n{},,,,\nno url,,,,\n",
        origin.site.url("/good"),
        origin.site.url("/410-gone"),
        origin.site.url("/404"),
        origin.site.url("/htm"),
    );
    let args = ["-k", "image", "--set", "fetch.failure_backoff=1h"];
    let report = sandbox.fetch_list(list, 3, &args);
    assert_eq!(report.count("stored"), 1);
    origin.mend();
    let mut args = vec!["last", "--report", "again.json"];
    args.extend(["--set", "fetch.failure_backoff=1h"]);
    let run = retry(&sandbox, &args).expect(0);
    assert_eq!((run.count("targets"), run.count("stored")), (3, 3));
    assert_eq!(origin.paths(), ["/404", "/410-gone", "/htm"]);
    let first = jobs(&sandbox)[1]["id"].as_str().unwrap().to_owned();
    let again = sandbox.json("again.json");
    assert_eq!(again["source"], format!("retry of {first}"));
    let items = again["items"].as_array().unwrap();
    let gone = items.iter().find(|item| item["line"] == 3).unwrap();
    assert_eq!(gone["path"], "shop/gone.png");
    assert_eq!(gone["group"], "a");
    let run = retry(&sandbox, &["last"]).expect(0);
    assert_eq!(run.json()["targets"], 0, "{run}");
    assert_eq!(jobs(&sandbox).len(), 2, "no job for nothing");
}

#[test]
fn the_files_of_a_retry_are_the_same_as_if_the_first_run_had_brought_them() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let list = origin.site.list(["/404", "/good"]);
    sandbox.fetch_list(&list, 3, &["-a", "birds"]);
    origin.mend();
    retry(&sandbox, &["last"]).expect(0);
    let before = sandbox.names();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|name| name.starts_with("birds/")));
    let report = sandbox.fetch_list(&list, 0, &["-a", "birds"]);
    assert_eq!(report.count("unchanged"), 2, "{}", report.whole);
    assert_eq!(sandbox.names(), before);
}

#[test]
fn a_retry_places_files_by_all_that_their_list_says() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let list = format!(
        "url,name,group,cat,n\n{},n,g,c,-3\n",
        origin.site.url("/500")
    );
    let template = "naming.template={meta.cat}/{meta.n}/{group}/{line:3}-{name}";
    let args = ["--set", template, "--set", "fetch.retries=0"];
    sandbox.fetch_list(list, 3, &args);
    let id = jobs(&sandbox)[0]["id"].as_str().unwrap().to_owned();
    let shown = sandbox.run(["jobs", &id, "-o", "out", "--json"]).expect(0);
    let failed: Value = serde_json::from_str(shown.out().lines().next().unwrap()).unwrap();
    assert_eq!(failed["metadata"]["cat"], "c", "{shown}");
    // What fails once more keeps it for the next retry.
    retry(&sandbox, &["last", "--set", "fetch.retries=0"]).expect(3);
    origin.mend();
    retry(&sandbox, &["last", "--set", template]).expect(0);
    assert_eq!(sandbox.names(), ["c/_3/g/002-n.png"]);
}

#[test]
fn who_retries_lines_that_are_no_urls_is_told_why_nothing_happens() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    sandbox.fetch_list(format!("{}\nno url\n", origin.site.url("/good")), 3, &[]);
    for args in [
        &["retry", "last", "-o", "out"][..],
        &["retry", "last", "-o", "out", "--reason", "invalid-url"],
    ] {
        let run = sandbox.run(args).expect(0);
        let is_told = run.out().contains("`invalid-url`") && run.out().contains("its list");
        assert!(is_told, "{run}");
    }
}

#[test]
fn reasons_choose_what_is_tried_again() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    sandbox.fetch_list(origin.site.list(["/404", "/htm"]), 3, &[]);
    origin.mend();
    let run = retry(&sandbox, &["last", "--reason", "wrong-kind", "dns"]).expect(0);
    assert_eq!(run.count("targets"), 1);
    assert_eq!(origin.paths(), ["/htm"]);
    let run = sandbox.run(["retry", "last", "-o", "out", "--reason", "timeout"]);
    let run = run.expect(0);
    assert!(run.out().starts_with("nothing to retry"), "{run}");
    let run = sandbox.run(["retry", "last", "-o", "out", "--reason", "tiemout"]);
    run.expect(2).says(&["'timeout'"]);
}

#[test]
fn what_fails_again_is_counted_as_in_a_fetch_and_can_be_retried_again() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    sandbox.fetch_list(origin.site.list(["/404", "/404-b"]), 3, &[]);
    assert_eq!(retry(&sandbox, &["last"]).expect(3).count("failed"), 2);
    retry(&sandbox, &["last", "--max-failures", "2"]).expect(0);
    origin.mend();
    assert_eq!(retry(&sandbox, &["last"]).expect(0).count("stored"), 2);
}

#[test]
fn masked_credentials_are_not_sent_for_real_ones() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let url = origin.site.url("/404").replace("//", "//ann:secret@");
    sandbox.fetch_list(url, 3, &[]);
    origin.mend();
    let run = retry(&sandbox, &["last", "--report", "again.json"]).expect(3);
    assert_eq!(run.count("failed"), 1);
    assert_eq!(origin.site.total(), 0);
    let again = sandbox.json("again.json");
    let detail = again["items"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("[hosts]"), "{detail}");
}

#[test]
fn a_job_that_is_not_there_is_an_error() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let run = retry(&sandbox, &["last"]).expect(1);
    run.says(&["no catalog"]);
    sandbox.fetch_list(origin.site.list(["/good"]), 0, &[]);
    retry(&sandbox, &["ffff"]).expect(1).says(&["`ffff`"]);
    let run = retry(&sandbox, &["last"]).expect(0);
    assert_eq!(run.json()["targets"], 0);
}

// ---- Credentials and cookies that an attempt needs

/// Everything that a run writes: streams, report, and the store with the catalog.
fn everything(sandbox: &Sandbox, run: &Run) -> String {
    let files = support::sandbox::walk(&sandbox.store());
    let kept = files.iter().filter_map(|path| std::fs::read(path).ok());
    let kept: String = kept
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    let report = String::from_utf8(sandbox.read("report.json")).unwrap();
    format!("{}{}{report}{kept}", run.out(), run.stderr)
}

/// Returns `true` if a request carries this cookie.
fn has(asked: &Asked, cookie: &str) -> bool {
    let cookies = asked.header("cookie").unwrap_or_default();
    cookies.split("; ").any(|each| each == cookie)
}

fn to(place: &str) -> Answer {
    Answer::status(302).header("Location", place)
}

#[test]
fn cookies_hold_for_the_redirects_of_one_target_and_are_forgotten() {
    let origin = Site::start(|asked| {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        match path {
            // Sets a cookie and redirects to the same URL.
            "/same.png" if has(asked, "seen=s3cret") => Answer::ok(png(1)),
            "/same.png" => to("/same.png").header("Set-Cookie", "seen=s3cret; Path=/; HttpOnly"),
            // A chain of three hops. The first one sets two cookies, and the second one deletes one.
            "/hops.png" if has(asked, "b=2") && has(asked, "c=3") && !has(asked, "a=1") => {
                Answer::ok(png(2))
            }
            "/hops.png" if asked.header("cookie").is_none() => to("/set?hops.png")
                .header("Set-Cookie", "a=1; Path=/")
                .header("Set-Cookie", "b=2; Path=/; Max-Age=60"),
            "/set" if has(asked, "a=1") && has(asked, "b=2") => to(&format!("/{query}"))
                .header(
                    "Set-Cookie",
                    "a=; Path=/; Expires=Thu, 01-Jan-1970 00:00:00 GMT",
                )
                .header("Set-Cookie", "c=3; Path=/"),
            // Always the same cookie, which is a circle; then always a new one, which is too many redirects.
            "/circle.png" => to("/circle.png").header("Set-Cookie", "k=v"),
            "/count.png" => {
                let number = asked.header("cookie").map_or(0, str::len);
                to("/count.png").header("Set-Cookie", format!("k={}", "v".repeat(number + 1)))
            }
            "/suffix.png" => to("/suffix.png").header("Set-Cookie", "k=s3cret; Domain=example"),
            "/plain.png" => Answer::ok(png(3)),
            _ => Answer::status(404),
        }
    });
    let sandbox = Sandbox::new();
    let good = ["/same.png", "/hops.png", "/plain.png"];
    let report = sandbox.fetch_list(origin.list(good), 0, &["-vv", "-j", "1"]);
    assert_eq!(report.count("stored"), 3, "{}", report.run);
    for item in report.items() {
        assert_eq!(item["attempts"], 1, "{item:#}");
    }
    for path in good {
        let asked = origin.asked();
        let first = asked.iter().find(|asked| asked.path == path).unwrap();
        assert_eq!(first.header("cookie"), None, "{path}");
    }
    assert!(!everything(&sandbox, &report.run).contains("s3cret"));
    let bad = ["/circle.png", "/count.png", "/suffix.png"];
    let report = sandbox.fetch_list(origin.list(bad), 3, &[]);
    for (path, words) in bad
        .iter()
        .zip(["in a circle", "more than 10", "cookie `k` was refused"])
    {
        let item = report.of(&origin.url(path));
        assert_eq!(item["reason"], "redirects", "{item:#}");
        assert!(item["detail"].as_str().unwrap().contains(words), "{item:#}");
    }
    assert!(!everything(&sandbox, &report.run).contains("s3cret"));
}

#[test]
fn cookies_of_one_host_reach_no_other() {
    let other = Site::start(|asked| match asked.path.as_str() {
        "/back" => to(asked.header("x-back").unwrap_or("/")),
        _ => Answer::ok(png(1)),
    });
    let away = other.url_as("localhost", "/file.png");
    let origin = Site::start(move |_| to(&away).header("Set-Cookie", "k=v; Path=/"));
    let sandbox = Sandbox::new();
    sandbox.fetch_list(origin.list(["/a.png"]), 0, &[]);
    assert_eq!(other.asked()[0].header("cookie"), None);
}

#[test]
fn a_list_behind_a_wall_of_cookies_is_read() {
    let origin = Site::start(|asked| match asked.path.as_str() {
        "/list.txt" if has(asked, "seen=1") => Answer::ok("/a.png\n"),
        "/list.txt" => to("/wall").header("Set-Cookie", "seen=1"),
        "/wall" => to("/list.txt"),
        _ => Answer::ok(png(1)),
    });
    let (sandbox, list) = (Sandbox::new(), origin.url("/list.txt"));
    let run = sandbox.fetch(&[&list]);
    assert_eq!(origin.asked()[2].path, "/list.txt", "{run}");
    assert!(has(&origin.asked()[2], "seen=1"), "{run}");
}

#[test]
fn a_file_of_cookies_goes_with_each_target_to_its_own_hosts() {
    let origin = Site::start(|_| Answer::ok(png(1)));
    const ODD: &str = "127.0.0.1 FALSE / FALSE 0 id s3cret\n";
    let sandbox = Sandbox::new();
    let file = "# Netscape HTTP Cookie File\r\n\r\n\
                #HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\tid\ts3cret\r\n\
                127.0.0.1\tFALSE\t/b\tFALSE\t4102444800\tb\t2\r\n\
                127.0.0.1\tFALSE\t/\tTRUE\t0\tsecure\tno\r\n\
                127.0.0.1\tFALSE\t/\tFALSE\t1\told\tno\r\n\
                .example.org\tTRUE\t/\tFALSE\t0\tother\tno\r\n";
    sandbox.write("cookies.txt", file);
    let report = sandbox.fetch_list(
        origin.list(["/a.png", "/b/c.png"]),
        0,
        &[
            "--cookies",
            "cookies.txt",
            "--header",
            "Cookie: own=1",
            "-vv",
        ],
    );
    let asked = origin.asked();
    let cookies = |path: &str| {
        let asked = asked.iter().find(|asked| asked.path == path).unwrap();
        asked.header("cookie").unwrap().to_owned()
    };
    assert_eq!(cookies("/a.png"), "own=1; id=s3cret");
    assert_eq!(cookies("/b/c.png"), "own=1; b=2; id=s3cret");
    assert!(!everything(&sandbox, &report.run).contains("s3cret"));

    // An odd line costs itself, a file of nothing else the run.
    let fetch = [
        "fetch",
        "list.txt",
        "--refresh",
        "--allow-private",
        "--cookies=cookies.txt",
    ];
    let check = ["check", "--set=fetch.cookies_file=cookies.txt"];
    sandbox.write("cookies.txt", format!("{file}{ODD}\t=s3cret\n{ODD}\n"));
    let run = sandbox.run(fetch).expect(0);
    let run = run.says(&["3 of 8 lines in `cookies.txt`", "line 8", "tabs"]);
    assert!(!run.stderr.contains("s3cret"), "{run}");
    assert_eq!(origin.total(), 4);
    assert!(has(origin.asked().last().unwrap(), "id=s3cret"));
    sandbox.run(check).expect(0);
    sandbox.write("cookies.txt", ODD);
    for args in [&fetch[..], &check] {
        let run = sandbox.run(args).expect(1);
        let run = run.says(&["cookies.txt", "line 1", "tabs"]);
        assert!(!run.stderr.contains("s3cret"), "{run}");
    }
    sandbox
        .run(["fetch", "list.txt", "--cookies=absent.txt"])
        .expect(1)
        .says(&["absent.txt", "fetch.cookies_file"]);
}

#[test]
fn a_netrc_file_has_the_credentials_of_its_hosts_and_of_no_other() {
    let other = Site::start(|_| Answer::ok(png(1)));
    let away = other.url_as("localhost", "/file.png");
    let origin = Site::start(move |asked| match asked.path.as_str() {
        "/away.png" => to(&away),
        _ => Answer::ok(png(1)),
    });
    let sandbox = Sandbox::new();
    let netrc = "machine 127.0.0.1 login ann password \"hu sh\"\ndefault login any password hush\n";
    sandbox.write(".netrc", netrc);
    sandbox.write("other", netrc.replace("ann", "bob"));
    for (args, expected) in [
        (&["--netrc"][..], Some("Basic YW5uOmh1IHNo")),
        (&["--netrc-file", "other"], Some("Basic Ym9iOmh1IHNo")),
        (
            &["--set", "fetch.netrc_file=~/.netrc"],
            Some("Basic YW5uOmh1IHNo"),
        ),
        (
            &["--netrc", "--set", "hosts.\"127.0.0.1\".token=t"],
            Some("Bearer t"),
        ),
        (&["--netrc", "--header", "Authorization: own"], Some("own")),
        (&[], None),
    ] {
        let mut args = args.to_vec();
        args.extend(["--refresh", "-vv"]);
        let report = sandbox.fetch_list(origin.list(["/away.png"]), 0, &args);
        let asked = origin.asked().pop().unwrap();
        assert_eq!(asked.header("authorization"), expected, "{args:?}");
        let asked = other.asked().pop().unwrap();
        assert_eq!(asked.header("authorization"), None, "{args:?}");
        let told = everything(&sandbox, &report.run);
        assert!(
            !told.contains("hu sh") && !told.contains("YW5u"),
            "{args:?}"
        );
    }
    sandbox.write(".netrc", "machine a.example\nlogin ann password");
    for (args, words) in [
        (
            &["fetch", "list.txt", "--netrc"][..],
            ["line 2", "lacks its value"],
        ),
        (
            &["fetch", "list.txt", "--netrc-file=absent"],
            ["absent", "fetch.netrc_file"],
        ),
        (
            &["check", "--set=fetch.netrc_file=absent"],
            ["absent", "fetch.netrc_file"],
        ),
    ] {
        sandbox.run(args).expect(1).says(&words);
    }
}

/// Returns the value of one parameter of a header.
fn param<'a>(header: &'a str, name: &str) -> &'a str {
    let after = header
        .split_once(&format!(" {name}="))
        .map_or("", |(_, after)| after);
    match after.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap(),
        None => after.split(',').next().unwrap(),
    }
}

/// Checks that a request answers a challenge with this nonce, as ann with the password hush (RFC 7616, section
/// 3.4.1).
fn knows(asked: &Asked, nonce: &str) -> bool {
    let Some(header) = asked
        .header("authorization")
        .filter(|header| header.starts_with("Digest "))
    else {
        return false;
    };
    let get = |name| param(header, name);
    let hash = |text: String| sha256(text.as_bytes());
    let request = hash(format!("GET:{}", asked.path));
    let secret = hash("ann:camera:hush".to_owned());
    let expected = hash(format!(
        "{secret}:{nonce}:{}:{}:auth:{request}",
        get("nc"),
        get("cnonce")
    ));
    get("response") == expected && get("uri") == asked.path && get("nonce") == nonce
}

fn challenge(nonce: &str, more: &str) -> Answer {
    let digest = format!(
        "Digest realm=\"camera\", qop=\"auth\", algorithm=SHA-256, nonce=\"{nonce}\", opaque=\"o\"{more}"
    );
    Answer::status(401)
        .header("WWW-Authenticate", "Basic realm=\"camera\"")
        .header("WWW-Authenticate", digest)
}

const CAMERA: &str = "[hosts.\"127.0.0.1\"]\nuser = \"ann\"\npassword = \"hush\"\n";

#[test]
fn a_camera_that_asks_for_digest_gets_it_and_its_nonce_is_used_again() {
    // A nonce is valid for three requests.
    let uses = std::sync::atomic::AtomicUsize::new(0);
    let origin = Site::start(move |asked| {
        let used = uses.load(Ordering::SeqCst);
        let nonce = format!("n{}", used / 3);
        if knows(asked, &nonce) {
            let header = asked.header("authorization").unwrap();
            assert_eq!(param(header, "nc"), format!("{:08x}", used % 3 + 1));
            uses.fetch_add(1, Ordering::SeqCst);
            return match asked.path.as_str() {
                "/list.txt" => {
                    let host = asked.header("host").unwrap();
                    let paths = ["1.png?x=1&y=2", "2.png", "3.png", "4.png"];
                    let list = paths.map(|path| format!("http://{host}/{path}\n"));
                    Answer::ok(list.concat())
                }
                _ => Answer::ok(png(u32::try_from(used).unwrap())),
            };
        }
        challenge(&nonce, if used > 0 { ", stale=true" } else { "" })
    });
    let sandbox = Sandbox::new();
    sandbox.write("gannet.toml", CAMERA);
    let report = sandbox.fetch_report(0, &[&origin.url("/list.txt"), "-j", "1", "-vv"]);
    assert_eq!(report.count("stored"), 4, "{}", report.run);
    for item in report.items() {
        assert_eq!(
            (&item["attempts"], &item["final_url"]),
            (&1.into(), &Value::Null),
            "{item:#}"
        );
    }
    // The list's first request; each later nonce costs one more request.
    let refused = origin
        .asked()
        .iter()
        .filter(|asked| !asked.header("authorization").unwrap().starts_with("Digest"))
        .count();
    assert_eq!((refused, origin.total()), (1, 5 + 2), "{}", report.run);
    assert!(!everything(&sandbox, &report.run).contains("hush"));
}

#[test]
fn a_nonce_for_one_request_is_followed_by_the_one_that_the_answer_names() {
    let used = std::sync::atomic::AtomicUsize::new(0);
    let origin = Site::start(move |asked| {
        let nonce = |number: usize| format!("n{number}");
        let now = used.load(Ordering::SeqCst);
        if !knows(asked, &nonce(now)) {
            return challenge(&nonce(now), "");
        }
        used.store(now + 1, Ordering::SeqCst);
        let info = format!("nextnonce=\"{}\"", nonce(now + 1));
        Answer::ok(png(u32::try_from(now + 1).unwrap())).header("Authentication-Info", info)
    });
    let sandbox = Sandbox::new();
    sandbox.write("gannet.toml", CAMERA);
    let paths: Vec<_> = (0..10).map(|number| format!("/{number}.png")).collect();
    let report = sandbox.fetch_list(origin.list(&paths), 0, &["-j", "1"]);
    assert_eq!(
        (report.count("stored"), origin.total()),
        (10, 11),
        "{}",
        report.run
    );
}

#[test]
fn the_default_of_a_netrc_file_waits_to_be_asked_for() {
    let open = Site::start(|_| Answer::ok(png(1)));
    let basic = Site::start(|asked| match asked.header("authorization") {
        Some("Basic YW5uOmh1c2g=") => Answer::ok(png(2)),
        _ => Answer::status(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let sandbox = Sandbox::new();
    sandbox.write("netrc", "default login ann password hush\n");
    let list = [open.list(["/a.png"]), basic.list(["/a.png", "/b.png"])].concat();
    let report = sandbox.fetch_list(list, 0, &["--netrc-file=netrc", "-j", "1"]);
    assert_eq!(open.asked()[0].header("authorization"), None);
    // Asked for once.
    assert_eq!(basic.total(), 3, "{}", report.run);
    assert_eq!(report.of(&basic.url("/a.png"))["attempts"], 1);
}

#[test]
fn no_password_leaves_in_clear_where_that_is_ruled_out() {
    let origin = Site::start(|asked| match knows(asked, "n") {
        true => Answer::ok(png(1)),
        false => challenge("n", ""),
    });
    let sandbox = Sandbox::new();
    sandbox.write("gannet.toml", format!("{CAMERA}auth = \"digest\"\n"));
    sandbox.fetch_list(origin.list(["/a.png"]), 0, &[]);
    let asked = origin.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| {
        !asked
            .header("authorization")
            .is_some_and(|sent| sent.starts_with("Basic"))
    }));
    let check = sandbox.run(["check"]).expect(0);
    assert!(check.out().contains("auth = \"digest\""), "{check}");
}

#[test]
fn what_a_401_lacks_is_named() {
    let origin = Site::start(|asked| match asked.path.as_str() {
        "/wrong.png" => challenge("n", ""),
        "/ntlm.png" => Answer::status(401)
            .header("WWW-Authenticate", "Negotiate")
            .header("WWW-Authenticate", "NTLM"),
        "/int.png" => Answer::status(401).header(
            "WWW-Authenticate",
            "Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"",
        ),
        _ => Answer::status(401),
    });
    let sandbox = Sandbox::new();
    sandbox.write("gannet.toml", CAMERA.replace("hush", "wrong"));
    let paths = ["/wrong.png", "/ntlm.png", "/int.png", "/bare.png"];
    let report = sandbox.fetch_list(origin.list(paths), 3, &[]);
    let words = [
        "refused user name and password",
        "Negotiate or NTLM, which is not supported",
        "auth-int",
        "refused user name",
    ];
    for (path, words) in paths.iter().zip(words) {
        let item = report.of(&origin.url(path));
        assert_eq!(
            (&item["reason"], &item["status"], &item["attempts"]),
            (&"status".into(), &401.into(), &1.into()),
            "{item:#}"
        );
        assert!(item["detail"].as_str().unwrap().contains(words), "{item:#}");
    }
    // Only one challenge can be answered, by one more request.
    assert_eq!(origin.total(), 5);
}
