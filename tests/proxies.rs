//! A pool of proxies from outside: files are right and none is lost, whatever some of the proxies do.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::pictures::png_of;
use support::{Answer, Run, Sandbox, Site, sha256};

/// What a fake HTTP proxy does with requests.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// What it is there for.
    Forward,
    /// Takes the request and says nothing.
    Silence,
    /// Forwards after this long.
    Wait(Duration),
    /// Forwards other bytes.
    Flip,
    /// Forwards half of the body, with the length of that half.
    Halve,
    /// Breaks off in the middle of the body.
    Cut,
    /// Answers with a page of its own.
    Login,
    /// Answers this status itself.
    Says(u16),
    /// Sends everything elsewhere, as hotels do.
    Portal,
    /// Hangs up.
    HangUp,
}

/// An HTTP proxy on loopback, for `http` URLs.
struct Fake {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    fn that(does: Does) -> Self {
        Self::by(move |_| does)
    }

    /// One that decides by the number of the request.
    fn by(does: impl Fn(usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let does = Arc::new(does);
        std::thread::spawn({
            let (asked, stop) = (asked.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (asked, does) = (asked.clone(), does.clone());
                    // Ends with its connection.
                    std::thread::spawn(move || {
                        while relay(&stream, || does(asked.fetch_add(1, Ordering::SeqCst)))
                            .is_some_and(|more| more)
                        {}
                    });
                }
            }
        });
        Self {
            address,
            asked,
            stop,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = connect(self.address);
    }
}

#[expect(clippy::disallowed_methods, reason = "a proxy of a test, on loopback")]
fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(address)
}

/// Serves one request; whether more may come.
fn relay(mut client: &TcpStream, does: impl FnOnce() -> Does) -> Option<bool> {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let mut words = lines[0].split(' ');
    let (_, url) = (words.next(), words.next()?);
    let (authority, path) = url.strip_prefix("http://")?.split_once('/')?;
    let answer = |status: u16, kind: &str, body: &[u8]| {
        let mut bytes = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    let does = does();
    match does {
        Does::HangUp => return None,
        Does::Silence => {
            // Until the other side has had enough.
            let _ = reader.read(&mut [0; 1]);
            return None;
        }
        Does::Wait(time) => std::thread::sleep(time),
        Does::Login => {
            client
                .write_all(&answer(
                    200,
                    "text/html",
                    b"<!doctype html><title>Log in</title>",
                ))
                .ok()?;
            return Some(true);
        }
        Does::Says(status) => {
            client
                .write_all(&answer(status, "text/plain", b"no"))
                .ok()?;
            return Some(true);
        }
        Does::Portal => {
            let to = format!("http://{authority}/portal");
            client
                .write_all(
                    format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                        .as_bytes(),
                )
                .ok()?;
            return Some(true);
        }
        _ => {}
    }
    let mut origin = connect(authority.parse().ok()?).ok()?;
    let mut head = format!("GET /{path} HTTP/1.1\r\n");
    lines[1..].iter().for_each(|line| head.push_str(line));
    origin.write_all((head + "\r\n").as_bytes()).ok()?;
    let mut origin = BufReader::new(origin);
    let (mut status, mut length) = (String::new(), 0);
    origin.read_line(&mut status).ok()?;
    loop {
        let mut line = String::new();
        origin.read_line(&mut line).ok()?;
        if let Some(value) = line.strip_prefix("Content-Length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    origin.read_exact(&mut body).ok()?;
    let status: u16 = status.split(' ').nth(1)?.parse().ok()?;
    match does {
        Does::Flip => body.iter_mut().step_by(37).for_each(|byte| *byte ^= 0x55),
        Does::Halve => body.truncate(length / 2),
        _ => {}
    }
    let mut bytes = answer(status, "image/png", &body);
    if does == Does::Cut {
        bytes.truncate(bytes.len() - length / 2);
        client.write_all(&bytes).ok()?;
        return None;
    }
    client.write_all(&bytes).ok()?;
    Some(true)
}

/// An origin with `count` pictures, no two alike, that tells what each of them is.
struct Pictures {
    site: Site,
    digests: BTreeMap<String, String>,
}

impl Pictures {
    fn new(count: u32) -> Self {
        let bytes: Vec<_> = (0..count).map(|n| png_of(n, 40)).collect();
        let digests = (0..count)
            .map(|n| (format!("/{n}.png"), sha256(&bytes[n as usize])))
            .collect();
        let site = Site::start(move |asked| {
            let number = asked
                .path
                .strip_prefix('/')
                .and_then(|path| path.strip_suffix(".png"));
            match number
                .and_then(|number| number.parse::<usize>().ok())
                .and_then(|n| bytes.get(n))
            {
                Some(bytes) => Answer::ok(bytes.clone()).header("Content-Type", "image/png"),
                None if asked.path == "/probe" => Answer::ok([7; 5000]),
                None => Answer::status(404),
            }
        });
        Self { site, digests }
    }

    fn list(&self) -> String {
        self.site.list(self.digests.keys())
    }

    /// Asserts that every picture is stored, with the origin's bytes.
    #[track_caller]
    fn are_whole(&self, sandbox: &Sandbox, run: &Run) {
        let report = sandbox.json("report.json");
        for item in report["items"].as_array().unwrap() {
            let url = item["url"].as_str().unwrap();
            let path = &url[self.site.url("").len()..];
            assert_eq!(
                item["sha256"],
                self.digests[path].as_str(),
                "{item:#}\n{run}"
            );
        }
        let mut stored: Vec<_> = sandbox
            .files()
            .into_values()
            .map(|bytes| sha256(&bytes))
            .collect();
        stored.sort();
        let mut wanted: Vec<_> = self.digests.values().cloned().collect();
        wanted.sort();
        assert!(
            stored == wanted,
            "{} files of {}\n{run}",
            stored.len(),
            wanted.len()
        );
    }
}

/// Runs a fetch of `list` with these settings, and no proxy but theirs.
fn fetch(sandbox: &Sandbox, list: &str, settings: &str, args: &[&str]) -> Run {
    sandbox.write("list.txt", list);
    sandbox.write("gannet.toml", format!(
        "[fetch]\nprivate_networks = true\nbackoff = \"5ms\"\nbackoff_max = \"20ms\"\n[storage]\nsync = false\n[proxies]\n{settings}\n"
    ));
    let _ = std::fs::remove_file(sandbox.path("report.json"));
    let common = [
        "fetch",
        "list.txt",
        "-o",
        "out",
        "--json",
        "--report",
        "report.json",
    ];
    sandbox.run(common.iter().chain(args))
}

fn urls(proxies: &[&Fake]) -> String {
    let urls: Vec<_> = proxies
        .iter()
        .map(|proxy| format!("{:?}", proxy.url()))
        .collect();
    format!("urls = [{}]", urls.join(", "))
}

/// Where nobody listens.
fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn requests_are_spread_over_the_pool_and_none_goes_out_directly() {
    let pictures = Pictures::new(60);
    let proxies = [
        Fake::that(Does::Forward),
        Fake::that(Does::Forward),
        Fake::that(Does::Forward),
    ];
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &urls(&proxies.each_ref()), &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    let asked = proxies.each_ref().map(Fake::asked);
    assert_eq!(asked.iter().sum::<usize>(), 60);
    assert!(asked.iter().all(|asked| *asked >= 15), "{asked:?}");
}

#[test]
fn repeated_flags_make_a_pool_in_place_of_the_settings() {
    let pictures = Pictures::new(20);
    let proxies = [Fake::that(Does::Forward), Fake::that(Does::Forward)];
    let unused = Fake::that(Does::Login);
    let sandbox = Sandbox::new();
    let flags: Vec<_> = proxies
        .iter()
        .map(|proxy| format!("--proxy={}", proxy.url()))
        .collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let run = fetch(&sandbox, &pictures.list(), &urls(&[&unused]), &flags).expect(0);
    pictures.are_whole(&sandbox, &run);
    assert!(proxies.iter().all(|proxy| proxy.asked() > 0));
    let one = Sandbox::new();
    let run = fetch(&one, &pictures.list(), &urls(&[&unused]), &flags[..1]).expect(0);
    pictures.are_whole(&one, &run);
    let none = Sandbox::new();
    let run = fetch(
        &none,
        &pictures.list(),
        &urls(&[&unused]),
        &["--proxy=direct"],
    )
    .expect(0);
    pictures.are_whole(&none, &run);
    assert_eq!(unused.asked(), 0);
    assert_eq!(proxies.iter().map(Fake::asked).sum::<usize>(), 40);
}

/// No proxy that does this costs a file, or brings a wrong one.
fn is_harmless(does: Does, settings: &str) {
    let pictures = Pictures::new(40);
    let good = [Fake::that(Does::Forward), Fake::that(Does::Forward)];
    let bad = Fake::that(does);
    let sandbox = Sandbox::new();
    let settings = format!(
        "{}\npatience = \"300ms\"\n{settings}",
        urls(&[&good[0], &bad, &good[1]])
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    assert!(
        bad.asked() > 0 && bad.asked() < 15,
        "{does:?} was asked {} times\n{run}",
        bad.asked()
    );
}

#[test]
fn a_proxy_that_alters_files_costs_none() {
    for does in [Does::Flip, Does::Halve, Does::Login, Does::Portal] {
        is_harmless(does, "");
    }
}

#[test]
fn a_proxy_that_fails_costs_no_file() {
    for does in [
        Does::HangUp,
        Does::Cut,
        Does::Silence,
        Does::Says(502),
        Does::Says(407),
        Does::Says(403),
        Does::Says(404),
    ] {
        is_harmless(does, "");
    }
}

/// Twenty proxies, half of them no good in one way or another.
fn twenty(good: usize) -> (Vec<Fake>, String) {
    const BAD: [Does; 7] = [
        Does::Flip,
        Does::Login,
        Does::Halve,
        Does::Silence,
        Does::Wait(Duration::from_secs(2)),
        Does::HangUp,
        Does::Says(502),
    ];
    let good = (0..good).map(|_| Fake::that(Does::Forward));
    let proxies: Vec<_> = good.chain(BAD.map(Fake::that)).collect();
    let dead = [dead(), dead(), dead()];
    let urls: Vec<_> = proxies
        .iter()
        .map(Fake::url)
        .chain(dead)
        .map(|url| format!("{url:?}"))
        .collect();
    (
        proxies,
        format!("urls = [{}]\npatience = \"1s\"", urls.join(", ")),
    )
}

#[test]
fn a_pool_whose_half_is_no_good_loses_nothing() {
    let pictures = Pictures::new(400);
    let (_proxies, settings) = twenty(10);
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
}

#[test]
fn a_probe_keeps_bad_proxies_from_being_used_at_all() {
    let pictures = Pictures::new(400);
    let (proxies, settings) = twenty(10);
    let settings = format!("{settings}\nprobe_url = {:?}", pictures.site.url("/probe"));
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    // The slow one may have passed, and its time found it out then.
    let asked: Vec<_> = proxies[10..].iter().map(Fake::asked).collect();
    assert!(asked.iter().sum::<usize>() < 20, "{asked:?}");
}
