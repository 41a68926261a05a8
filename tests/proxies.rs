//! A pool of proxies from outside: files are right and none is lost, whatever some of the proxies do.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod origin;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gannet::fetch::{Client, Hosts};
use origin::dns::NameServer;
use origin::{Origin, Reply};
use support::daemon::until;
use support::http::send;
use support::pictures::png_of;
use support::proxies::RealProxy;
use support::{Answer, Daemon, Run, Sandbox, Site, sha256};

/// An address that is loopback's usual one for whoever asks a proxy, and where nobody listens otherwise.
const BEHIND: &str = "127.0.0.77";

/// An address on the public Internet that leads to loopback through a proxy.
const OUTSIDE: &str = "8.8.8.8";

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
        Self::on("127.0.0.1:0", does)
    }

    fn on(address: &str, does: impl Fn(usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
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
    let (method, url) = (words.next()?, words.next()?);
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
    if let (true, Does::Says(status)) = (method == "CONNECT", does) {
        client.write_all(&answer(status, "text/plain", b"")).ok()?;
        return None;
    }
    let (authority, path) = url.strip_prefix("http://")?.split_once('/')?;
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
    let mut address: SocketAddr = authority.parse().ok()?;
    if [BEHIND, OUTSIDE].contains(&address.ip().to_string().as_str()) {
        address.set_ip([127, 0, 0, 1].into());
    }
    let mut origin = connect(address).ok()?;
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

/// Where nobody listens, each time another one.
fn dead() -> String {
    static PORT: AtomicUsize = AtomicUsize::new(1);
    format!("http://{BEHIND}:{}", PORT.fetch_add(1, Ordering::SeqCst))
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
    assert!(asked.iter().all(|asked| *asked > 0), "{asked:?}");
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
fn is_harmless(does: Does) {
    let asked = is_harmless_with(does, &[], 15, |_| String::new());
    assert!(asked > 0, "{does:?}");
}

/// The same with more settings. It is asked `most` times at most; answers how often.
fn is_harmless_with(
    does: Does,
    args: &[&str],
    most: usize,
    settings: impl Fn(&Pictures) -> String,
) -> usize {
    let pictures = Pictures::new(40);
    // So many that one of them may be late, and be taken for slow, on a busy machine.
    let good = [(); 5].map(|()| Fake::that(Does::Forward));
    let bad = Fake::that(does);
    let sandbox = Sandbox::new();
    let settings = format!(
        "{}\npatience = \"300ms\"\n{}",
        urls(&[&good[0], &bad, &good[1], &good[2], &good[3], &good[4]]),
        settings(&pictures)
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, args).expect(0);
    pictures.are_whole(&sandbox, &run);
    assert!(
        bad.asked() <= most,
        "{does:?} was asked {} times\n{run}",
        bad.asked()
    );
    bad.asked()
}

#[test]
fn a_proxy_that_alters_files_costs_none() {
    for does in [Does::Flip, Does::Halve, Does::Login, Does::Portal] {
        is_harmless(does);
    }
}

#[test]
fn who_brings_what_another_proxy_led_to_is_not_to_blame() {
    let pictures = Pictures::new(40);
    let (good, bad) = (Fake::that(Does::Forward), Fake::that(Does::Portal));
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &urls(&[&bad, &good]), &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    let blamed = format!("the proxy `{}", good.url());
    assert!(bad.asked() > 0 && !run.stderr.contains(&blamed), "{run}");
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
        is_harmless(does);
    }
}

#[test]
fn what_no_check_of_bytes_can_see_a_probe_does() {
    for does in [Does::Flip, Does::Login, Does::Halve] {
        // Any bytes are a file.
        is_harmless_with(does, &["--kind=any"], 1, |pictures| {
            format!("probe_url = {:?}", pictures.site.url("/probe"))
        });
    }
}

#[test]
fn proxies_that_failed_a_probe_do_not_elect_each_other_afterwards() {
    let pictures = Pictures::new(40);
    let good = [(); 3].map(|()| Fake::that(Does::Wait(Duration::from_millis(30))));
    let bad = [Fake::that(Does::Login), Fake::that(Does::Login)];
    let sandbox = Sandbox::new();
    let settings = format!(
        "{}\nprobe_url = \"http://{BEHIND}:{}/probe\"\nrefresh = \"20ms\"",
        urls(&[&bad[0], &good[0], &bad[1], &good[1], &good[2]]),
        pictures.site.address.port()
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, &["--kind=any"]).expect(0);
    pictures.are_whole(&sandbox, &run);
    assert!(bad[0].asked() > 1, "it was probed again\n{run}");
}

#[test]
fn a_digest_in_the_list_finds_what_was_altered() {
    let pictures = Pictures::new(30);
    let (good, bad) = (Fake::that(Does::Forward), Fake::that(Does::Login));
    let list: String = std::iter::once("url,sha256\n".to_owned())
        .chain(
            pictures
                .digests
                .iter()
                .map(|(path, digest)| format!("{},{digest}\n", pictures.site.url(path))),
        )
        .collect();
    let sandbox = Sandbox::new();
    let run = fetch(
        &sandbox,
        &list,
        &urls(&[&bad, &good]),
        &["--kind=any", "--list-format=csv"],
    )
    .expect(0);
    pictures.are_whole(&sandbox, &run);
    assert!(bad.asked() > 0);
}

#[test]
fn figures_tell_what_proxies_did_and_name_none() {
    let pictures = Pictures::new(12);
    let (good, bad) = (Fake::that(Does::Forward), Fake::that(Does::Login));
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", pictures.list());
    sandbox.write("gannet.toml", format!(
        "[storage]\nroot = \"out\"\n[fetch]\nprivate_networks = true\n[api]\nlisten = \"127.0.0.1:0\"\n[proxies]\n{}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n",
        urls(&[&good, &bad])
    ));
    let daemon = Daemon::start(&sandbox);
    assert_eq!(daemon.run("a")["counts"]["stored"], 12);
    let got = daemon.get("/metrics").expect(200);
    let text = std::str::from_utf8(&got.body).unwrap();
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse::<usize>().unwrap())
    };
    let answered = figure("gannet_proxy_requests_total{result=\"answered\"}");
    assert_eq!(answered, good.asked() + bad.asked());
    assert_eq!(
        figure("gannet_proxy_requests_total{result=\"altered\"}"),
        bad.asked()
    );
    for proxy in [&good, &bad] {
        assert!(!text.contains(&proxy.address.port().to_string()), "{text}");
    }
}

#[test]
fn posted_jobs_with_limits_and_reloads_share_one_pool() {
    let pictures = Pictures::new(12);
    let proxy = Fake::that(Does::Forward);
    let named = format!("{}\n", proxy.address);
    let lists = Site::start(move |_| Answer::ok(named.clone()));
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", pictures.list());
    sandbox.write("gannet.toml", format!(
        "[storage]\nroot = \"out\"\n[fetch]\nprivate_networks = true\n[api]\nlisten = \"127.0.0.1:0\"\nprivate_networks = true\n\
         [proxies]\nlists = [{:?}]\n[[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n",
        lists.url("/proxies.txt")
    ));
    let daemon = Daemon::start(&sandbox);
    assert_eq!(daemon.run("a")["counts"]["stored"], 12);
    let post = || {
        let job = serde_json::json!({
            "urls": [pictures.site.url("/0.png")], "limits": {"per_host": 1}
        });
        let headers = [("Content-Type", "application/json")];
        let body = job.to_string();
        let to = daemon.api();
        let got = send(to, "POST", "/api/v1/jobs", &headers, Some(body.as_bytes())).expect(202);
        let job = got.header("location").unwrap().to_owned();
        until("the job ends", || {
            let job = daemon.get(&job).expect(200).json();
            match job["finished"].is_string() {
                true => Ok(()),
                false => Err(job.to_string()),
            }
        });
    };
    post();
    post();
    daemon.reload();
    post();
    assert!(proxy.asked() > 12);
    assert_eq!(proxy.asked(), pictures.site.total());
    assert_eq!(lists.total(), 1);
}

/// Twenty proxies, half of them no good in one way or another.
struct Twenty {
    fakes: Vec<Fake>,
    real: Vec<(RealProxy, &'static str, &'static str)>,
}

impl Twenty {
    const BAD: [Does; 7] = [
        Does::Flip,
        Does::Login,
        Does::Halve,
        Does::Silence,
        Does::Wait(Duration::from_secs(2)),
        Does::HangUp,
        Does::Says(502),
    ];

    fn new() -> Self {
        let tinyproxy = RealProxy::tinyproxy().map(|proxy| (proxy, "http", ""));
        let microsocks =
            RealProxy::microsocks("ann", "hush").map(|proxy| (proxy, "socks5", "ann:hush@"));
        let real: Vec<_> = tinyproxy.into_iter().chain(microsocks).collect();
        let good = (real.len()..10).map(|_| Fake::that(Does::Forward));
        let fakes = Self::BAD.map(Fake::that).into_iter().chain(good).collect();
        Self { fakes, real }
    }

    fn settings(&self) -> String {
        let real = self
            .real
            .iter()
            .map(|(proxy, scheme, credentials)| proxy.url(scheme, credentials));
        let all = self
            .fakes
            .iter()
            .map(Fake::url)
            .chain(real)
            .chain([dead(), dead(), dead()]);
        let all: Vec<_> = all.map(|url| format!("{url:?}")).collect();
        assert_eq!(all.len(), 20);
        format!("urls = [{}]\npatience = \"1s\"", all.join(", "))
    }

    /// How often those were asked that are no good.
    fn bad_asked(&self) -> Vec<usize> {
        self.fakes[..Self::BAD.len()]
            .iter()
            .map(Fake::asked)
            .collect()
    }
}

#[test]
fn a_pool_whose_half_is_no_good_loses_nothing() {
    let pictures = Pictures::new(400);
    let proxies = Twenty::new();
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &proxies.settings(), &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
}

#[test]
fn a_probe_keeps_bad_proxies_from_being_used_at_all() {
    let pictures = Pictures::new(400);
    let proxies = Twenty::new();
    let settings = format!(
        "{}\nprobe_url = {:?}",
        proxies.settings(),
        pictures.site.url("/probe")
    );
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    // The slow one may have passed, and its time found it out then.
    let asked = proxies.bad_asked();
    assert!(asked.iter().sum::<usize>() < 20, "{asked:?}");
}

#[test]
fn tls_goes_through_tunnels_and_no_proxy_can_alter_it() {
    let (Some(http), Some(socks)) = (RealProxy::tinyproxy(), RealProxy::microsocks("ann", "hush"))
    else {
        return;
    };
    let bytes: Vec<_> = (0..60).map(|n| png_of(n, 40)).collect();
    let routes = bytes.iter().enumerate();
    let origin = routes.fold(Origin::builder().tls(), |origin, (n, bytes)| {
        origin.route(&format!("/{n}.png"), Reply::ok(bytes.clone()))
    });
    let origin = origin.start();
    let sandbox = Sandbox::new();
    sandbox.write("ca.pem", origin.ca_pem.as_ref().unwrap());
    let list: String = (0..60)
        .map(|n| format!("{}\n", origin.url(&format!("/{n}.png"))))
        .collect();
    // What fails to tunnel is left for one that does.
    let grumpy = Fake::that(Does::HangUp);
    let asks = Fake::that(Does::Says(407));
    let urls = [
        http.url("http", ""),
        socks.url("socks5", "ann:hush@"),
        socks.url("socks5h", "ann:hush@"),
        socks.url("socks5", "ann:wrong@"),
        grumpy.url(),
        dead(),
        asks.url(),
    ];
    let run = fetch(
        &sandbox,
        &list,
        &format!("urls = {urls:?}\nset_aside_after = 1"),
        &["--ca-file=ca.pem"],
    )
    .expect(0);
    // Whose fault it is the connector says in its words only. Those that want another password are told apart by that.
    for proxy in [&socks.url("socks5", ""), &urls[5], &urls[6]] {
        let is_told = |line: &&str| line.contains(&format!("`{proxy}` is set aside for"));
        assert_eq!(
            run.stderr.lines().filter(is_told).count(),
            1,
            "{proxy} {run}"
        );
    }
    let mut stored: Vec<_> = sandbox.files().into_values().collect();
    stored.sort();
    let mut wanted = bytes;
    wanted.sort();
    assert!(stored == wanted, "{run}");
    assert!(!run.stderr.contains("hush"), "{run}");
    let run = sandbox.run(["proxies", "check", "--json"]).expect(0);
    let health: Vec<_> = run
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["health"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(health[..3], ["reachable"; 3]);
    assert_eq!(health[5], "fails");
}

#[tokio::test]
async fn documents_over_tls_prove_a_proxy_for_tls() {
    let Some(http) = RealProxy::tinyproxy() else {
        return;
    };
    let origin = Origin::builder()
        .tls()
        .route("/", Reply::ok(b"a".to_vec()))
        .start();
    let folder = tempfile::TempDir::new().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, origin.ca_pem.as_ref().unwrap()).unwrap();
    let fetch = origin::settings(&format!("ca_files = [{authority:?}]\nproxy = \"\""));
    let text = include_str!("../config/default.toml");
    let mut table: toml::Table = text.parse().unwrap();
    let urls = toml::Value::from(vec![http.url("http", "")]);
    let pool = table["proxies"].as_table_mut().unwrap();
    pool.insert("urls".to_owned(), urls);
    let pool = table.remove("proxies").unwrap().try_into().unwrap();
    let client = Client::with_proxies(&fetch, &Hosts::default(), &pool).unwrap();
    let mut got = client.get(&origin.url("/"), "*/*", 100).await.unwrap();
    let via = got.via().unwrap().clone();
    assert!(!via.is_proven(), "it may be cut off yet");
    while got.chunk().await.unwrap().is_some() {}
    assert!(via.is_proven());
}

#[test]
fn where_no_proxy_works_the_report_says_so_and_nothing_goes_out_directly() {
    let pictures = Pictures::new(20);
    let sandbox = Sandbox::new();
    let urls = format!("urls = [{:?}, {:?}]", dead(), dead());
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &urls,
        &["--set=fetch.retries=0"],
    )
    .expect(3);
    for item in sandbox.json("report.json")["items"].as_array().unwrap() {
        let detail = item["detail"].as_str().unwrap();
        // The host is not given up for it.
        assert_eq!(item["reason"], "proxy", "{item}");
        assert!(
            detail.contains(": of 2, ") && detail.contains("gannet proxies check"),
            "{detail}"
        );
    }
    assert!(run.stderr.contains("is set aside"), "{run}");
    assert_eq!(pictures.site.total(), 0);
    let direct = "fall_back_to_direct = true";
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &format!("{urls}\n{direct}"),
        &[],
    )
    .expect(0);
    pictures.are_whole(&sandbox, &run);
    // Those that hold their tongue do not work either.
    let silent = Fake::that(Does::Silence);
    let settings = format!("{}\n{direct}\npatience = \"100ms\"", self::urls(&[&silent]));
    let sandbox = Sandbox::new();
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &settings,
        &["--set=fetch.idle_timeout=200ms"],
    )
    .expect(0);
    pictures.are_whole(&sandbox, &run);
}

#[test]
fn nothing_goes_out_directly_before_all_proxies_were_asked() {
    let pictures = Pictures::new(1);
    let proxy = Fake::that(Does::Forward);
    let sandbox = Sandbox::new();
    let dead = (0..12).map(|n| format!("\"http://127.0.0.77:{}\"", n + 1));
    let mut urls: Vec<_> = dead.collect();
    // Beyond those that one attempt asks.
    urls.insert(1, format!("{:?}", proxy.url()));
    let settings = format!(
        "urls = [{}]\nset_aside_after = 1\nfall_back_to_direct = true",
        urls.join(", ")
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    assert_eq!(proxy.asked(), 1, "{run}");
}

#[test]
fn a_pool_is_not_waited_for_longer_than_an_attempt_or_a_host() {
    let pictures = Pictures::new(2);
    let silent = Fake::that(Does::Silence);
    let sandbox = Sandbox::new();
    // Its probe takes as long as `fetch.idle_timeout`.
    let settings = format!(
        "{}\npatience = \"20m\"\nprobe_url = {:?}\n[hosts.localhost]\ntotal_timeout = \"200ms\"",
        urls(&[&silent]),
        pictures.site.url("/probe")
    );
    let begun = std::time::Instant::now();
    let list = pictures.list().replace("127.0.0.1", "localhost");
    let run = fetch(&sandbox, &list, &settings, &["--set=fetch.retries=1"])
        .expect(3)
        .says(&["probed before they are used"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{run}");
    assert_eq!(run.count("failed"), 2, "{run}");
    let items = &sandbox.json("report.json")["items"];
    assert_eq!(items[0]["reason"], "proxy", "{items:#}");
    // Nor is one that comes back in an hour.
    let settings = "urls = [\"http://127.0.0.77:1\"]\nset_aside_after = 1\nset_aside_for = \"1h\"";
    let sandbox = Sandbox::new();
    let run = fetch(&sandbox, &pictures.list(), settings, &[]).expect(3);
    assert_eq!(run.count("failed"), 2, "{run}");
}

#[test]
fn name_servers_that_do_not_answer_are_no_proxys_fault() {
    let pictures = Pictures::new(5);
    let sandbox = Sandbox::new();
    let settings = "urls = [\"http://a.example:1\", \"http://b.example:1\"]\nset_aside_after = 1";
    let args = [
        "--set=fetch.name_servers=[\"127.0.0.77:1\"]",
        "--set=fetch.connect_timeout=200ms",
        "--set=fetch.retries=1",
    ];
    let run = fetch(&sandbox, &pictures.list(), settings, &args).expect(3);
    assert!(!run.stderr.contains("set aside for"), "{run}");
    let items = &sandbox.json("report.json")["items"];
    assert_eq!(items[0]["reason"], "proxy", "{items:#}");
}

#[test]
fn a_target_is_looked_up_once_for_all_proxies_of_an_attempt() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let names = format!(
        "--set=fetch.name_servers=[\"{}\"]",
        silent.local_addr().unwrap()
    );
    let sandbox = Sandbox::new();
    let dead = (0..8).map(|n| format!("\"http://127.0.0.77:{}\"", n + 1));
    let urls = format!("urls = [{}]", dead.collect::<Vec<_>>().join(", "));
    let begun = std::time::Instant::now();
    let args = [
        names.as_str(),
        "--set=fetch.connect_timeout=2s",
        "--set=fetch.retries=0",
    ];
    fetch(&sandbox, "http://a.example/\n", &urls, &args).expect(3);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_proxy_that_comes_back_is_used_again() {
    let pictures = Pictures::new(30);
    // Down for its first requests.
    let proxy = Fake::by(|number| {
        if number < 4 {
            Does::Says(407)
        } else {
            Does::Forward
        }
    });
    let sandbox = Sandbox::new();
    let settings = format!(
        "{}\nset_aside_after = 1\nset_aside_for = \"100ms\"",
        urls(&[&proxy])
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, &[])
        .expect(0)
        .says(&["is set aside", "works again"]);
    pictures.are_whole(&sandbox, &run);
}

#[test]
fn what_two_proxies_say_is_believed_and_blames_neither() {
    let pictures = Pictures::new(40);
    let proxies = [
        Fake::that(Does::Forward),
        Fake::that(Does::Forward),
        Fake::that(Does::Forward),
    ];
    let sandbox = Sandbox::new();
    let missing = pictures.site.list((0..40).map(|n| format!("/missing-{n}")));
    let settings = urls(&proxies.each_ref());
    let run = fetch(
        &sandbox,
        &(pictures.list() + &missing),
        &settings,
        &["--per-host=1"],
    )
    .expect(3);
    assert_eq!((run.count("stored"), run.count("failed")), (40, 40));
    assert!(!run.stderr.contains("set aside"), "{run}");
    let asked = pictures.site.asked();
    let asked = |path: &str| asked.iter().filter(|asked| asked.path == path).count();
    for n in 0..40 {
        assert_eq!(asked(&format!("/missing-{n}")), 2, "/missing-{n}");
        assert_eq!(asked(&format!("/{n}.png")), 1, "/{n}.png");
    }
}

#[test]
fn a_fault_of_the_origin_that_passes_is_no_proxys() {
    const SURE: usize = 12;
    let bytes: Vec<_> = (0..40).map(|n| png_of(n, 40)).collect();
    let answered = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    let site = Site::start(move |asked| {
        let number: usize = asked.path[1..].parse().unwrap();
        let mut answered = answered.lock().unwrap();
        let times = answered.entry(asked.path.clone()).or_default();
        *times += 1;
        // Two proxies say the same, and the next attempt finds it well again.
        match number < SURE || *times > 2 {
            true => Answer::ok(bytes[number].clone()).header("Content-Type", "image/png"),
            false => Answer::status(500),
        }
    });
    let proxies = [(); 4].map(|()| Fake::that(Does::Forward));
    let sandbox = Sandbox::new();
    // One after the other, so that all proxies have brought good files before.
    let run = fetch(
        &sandbox,
        &site.list((0..40).map(|n| format!("/{n}"))),
        &urls(&proxies.each_ref()),
        &["--set=fetch.concurrency=1"],
    )
    .expect(0);
    assert_eq!(run.count("stored"), 40, "{run}");
    assert!(!run.stderr.contains("set aside"), "{run}");
}

#[test]
fn a_second_opinion_costs_no_retry() {
    let pictures = Pictures::new(20);
    let good = [Fake::that(Does::Forward), Fake::that(Does::Forward)];
    let bad = [Fake::that(Does::Login), Fake::that(Does::Cut)];
    let sandbox = Sandbox::new();
    let settings = urls(&[&good[0], &bad[0], &good[1], &bad[1]]);
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &settings,
        &["--set=fetch.retries=0"],
    )
    .expect(0);
    pictures.are_whole(&sandbox, &run);
}

#[test]
fn lists_and_robots_go_through_the_pool_and_lists_of_proxies_do_not() {
    let pictures = Pictures::new(10);
    let list = pictures.list();
    let lists = Site::start(move |asked| match asked.path.as_str() {
        "/list.txt" => Answer::ok(list.clone()),
        _ => Answer::status(404),
    });
    let proxy = Fake::that(Does::Forward);
    let named = format!("# ours\n{}\n\nnonsense\n", proxy.address);
    let proxies = Site::start(move |_| Answer::ok(named.clone()));
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nprivate_networks = true\nrobots = true\n[proxies]\nlists = [{:?}]\n",
            proxies.url("/proxies.txt")
        ),
    );
    let run = sandbox.run([
        "fetch",
        &lists.url("/list.txt"),
        "-o",
        "out",
        "--json",
        "--report",
        "report.json",
    ]);
    let run = run.expect(0).says(&["line 4 is no proxy"]);
    pictures.are_whole(&sandbox, &run);
    // The list, robots.txt, and the pictures.
    assert_eq!(proxy.asked(), 12);
    assert_eq!(
        (lists.total(), pictures.site.total(), proxies.total()),
        (1, 11, 1)
    );
}

#[test]
fn a_list_of_proxies_that_cannot_be_had_is_told_once_and_others_do() {
    let pictures = Pictures::new(10);
    let proxy = Fake::that(Does::Wait(Duration::from_millis(200)));
    let gone = Site::start(|_| Answer::status(404));
    let sandbox = Sandbox::new();
    sandbox.write("proxies.txt", format!("{}\nnonsense\n", proxy.address));
    let settings = format!(
        "file = \"proxies.txt\"\nrefresh = \"10ms\"\nlists = [{:?}]",
        gone.url("/proxies.txt")
    );
    let run = fetch(&sandbox, &pictures.list(), &settings, &[]).expect(0);
    pictures.are_whole(&sandbox, &run);
    let told = run.stderr.matches("cannot get the list of proxies").count();
    assert_eq!(told, 1, "{run}");
    assert!(gone.total() > 1, "it was asked for again\n{run}");
    let told = run.stderr.matches("line 2 is no proxy").count();
    assert_eq!(told, 1, "{run}");
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &settings.replace("file = \"proxies.txt\"", ""),
        &["--refresh"],
    )
    .expect(3);
    assert!(
        run.stderr.contains("cannot get the list of proxies"),
        "{run}"
    );
    assert_eq!(sandbox.json("report.json")["items"][0]["reason"], "proxy");
}

/// A SOCKS proxy (4, 4a and 5) on loopback that connects to loopback, whatever address is asked for.
struct Socks {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Socks {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        std::thread::spawn({
            let (asked, stop) = (asked.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    asked.fetch_add(1, Ordering::SeqCst);
                    // Ends with its connection.
                    std::thread::spawn(move || tunnel(&stream));
                }
            }
        });
        Self {
            address,
            asked,
            stop,
        }
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = connect(self.address);
    }
}

/// Serves one connection of a SOCKS client.
fn tunnel(mut client: &TcpStream) -> std::io::Result<()> {
    fn take<const N: usize>(mut client: &TcpStream) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        client.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    let text = || -> std::io::Result<()> {
        while take::<1>(client)? != [0] {}
        Ok(())
    };
    let port = match take::<1>(client)? {
        [4] => {
            let [_, high, low, a, b, c, d] = take::<7>(client)?;
            text()?;
            // An address of the form 0.0.0.1 means that a name follows.
            if [a, b, c] == [0; 3] && d != 0 {
                text()?;
            }
            client.write_all(&[0, 90, 0, 0, 0, 0, 0, 0])?;
            u16::from_be_bytes([high, low])
        }
        _ => {
            let [methods] = take::<1>(client)?;
            for _ in 0..methods {
                take::<1>(client)?;
            }
            client.write_all(&[5, 0])?;
            let [_, _, _, kind] = take::<4>(client)?;
            let length = match kind {
                1 => 4,
                4 => 16,
                _ => take::<1>(client)?[0],
            };
            for _ in 0..length {
                take::<1>(client)?;
            }
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            u16::from_be_bytes(take::<2>(client)?)
        }
    };
    let mut origin = connect(([127, 0, 0, 1], port).into())?;
    let (mut from, mut to) = (client.try_clone()?, origin.try_clone()?);
    let up = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut origin, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)?;
    let _ = up.join();
    Ok(())
}

#[test]
fn a_proxy_that_the_operator_names_may_have_any_address_and_opens_no_network() {
    let pictures = Pictures::new(1);
    let (http, socks) = (Fake::that(Does::Forward), Socks::start());
    let names = NameServer::start(|name, _| match name {
        "proxy.example" => Some(vec![[127, 0, 0, 1].into()]),
        "outside.example" => Some(vec![
            "2001:4860:4860::8888".parse().unwrap(),
            [8, 8, 8, 8].into(),
        ]),
        _ => None,
    });
    let (h, s) = (http.address, socks.address);
    let flag = |url: String| (vec![("--proxy", url)], vec![]);
    let set = |text: String| (vec![("--set", text)], vec![]);
    let variable = |name, value: String| (vec![], vec![(name, value)]);
    let cases = [
        flag(format!("{h}")),
        flag(format!("localhost:{}", h.port())),
        flag(format!("http://proxy.example:{}", h.port())),
        flag(format!("socks4://{s}")),
        flag(format!("socks4a://{s}")),
        flag(format!("socks5://{s}")),
        flag(format!("socks5h://{s}")),
        flag(format!("socks4://proxy.example:{}", s.port())),
        flag(format!("socks5://proxy.example:{}", s.port())),
        flag(format!("socks5h://localhost:{}", s.port())),
        (
            vec![
                ("--proxy", format!("{h}")),
                ("--proxy", format!("socks5://localhost:{}", s.port())),
            ],
            vec![],
        ),
        set(format!("proxies.urls=[\"proxy.example:{}\"]", h.port())),
        set(format!(
            "proxies.urls=[\"socks4://proxy.example:{}\"]",
            s.port()
        )),
        set("proxies.file=proxies.txt".to_owned()),
        variable("http_proxy", format!("{h}")),
        variable("ALL_PROXY", format!("socks5h://proxy.example:{}", s.port())),
        variable("all_proxy", format!("socks5://proxy.example:{}", s.port())),
        variable("all_proxy", format!("socks://proxy.example:{}", s.port())),
        flag(format!("socks://{s}")),
    ];
    let port = pictures.site.address.port();
    for (number, (flags, variables)) in cases.iter().enumerate() {
        let sandbox = Sandbox::new();
        sandbox.write("proxies.txt", format!("proxy.example:{}\n", h.port()));
        // The HTTP proxies of these tests resolve no names.
        let is_http = number < 3 || matches!(number, 10 | 11 | 13 | 14);
        let host = if is_http { OUTSIDE } else { "outside.example" };
        sandbox.write("list.txt", format!("http://{host}:{port}/0.png\n"));
        sandbox.write(
            "inside.txt",
            format!(
                "http://127.0.0.1:{port}/0.png\nhttp://localhost:{port}/0.png\nhttp://proxy.example:{port}/0.png\nhttp://{h}/\nhttp://{s}/\n"
            ),
        );
        let name_servers = format!("--set=fetch.name_servers={}", names.address);
        let run = |list: &str| {
            let mut args = vec![
                "fetch",
                list,
                "-o",
                "out",
                "--report",
                "report.json",
                "--set=fetch.retries=0",
                &name_servers,
            ];
            for (flag, value) in flags {
                args.extend([*flag, value.as_str()]);
            }
            let variables: Vec<_> = variables
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            sandbox.run_with(&variables, &args)
        };
        let asked = || http.asked() + socks.asked.load(Ordering::SeqCst);
        let before = asked();
        run("list.txt").expect(0);
        let after = asked();
        assert!(
            after > before,
            "{flags:?} {variables:?}: nothing went through the proxy"
        );
        let inside = run("inside.txt").expect(3);
        for item in sandbox.json("report.json")["items"].as_array().unwrap() {
            assert_eq!(
                item["reason"], "denied-address",
                "{flags:?} {variables:?}: {item:#} {inside}"
            );
        }
        assert_eq!(asked(), after, "{flags:?} {variables:?}");
    }
    let sandbox = Sandbox::new();
    let urls = format!("--set=proxies.urls=[\"{h}\", \"socks4://{s}\"]");
    sandbox.run(["proxies", "check", &urls]).expect(0).says(&[]);
}

#[test]
fn a_list_and_the_settings_may_name_the_same_private_proxy() {
    let pictures = Pictures::new(6);
    let [named, listed] =
        ["127.0.0.3:0", "127.0.0.2:0"].map(|address| Fake::on(address, |_| Does::Forward));
    let text = format!("{}\n{}\n", listed.url(), named.url());
    let lists = Site::start(move |_| Answer::ok(text.clone()));
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nallow_networks = [\"127.0.0.1\"]\n[proxies]\nlists = [{:?}]\n{}\n",
            lists.url("/"),
            urls(&[&named]),
        ),
    );
    sandbox.write("list.txt", pictures.list());
    let run = sandbox
        .run(["fetch", "list.txt", "-o", "out", "--report", "report.json"])
        .expect(0);
    pictures.are_whole(&sandbox, &run);
    let check = sandbox.run(["proxies", "check", "--json"]).expect(0);
    assert_eq!(check.json().as_array().unwrap().len(), 1, "{check}");
    assert_eq!((named.asked(), listed.asked()), (6, 0), "{run}");
}

#[test]
fn no_list_adds_a_proxy_at_a_denied_address() {
    let pictures = Pictures::new(5);
    let inside = TcpListener::bind("127.0.0.2:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let named = format!(
        "{}\nlocalhost:{}\n",
        inside.local_addr().unwrap(),
        inside.local_addr().unwrap().port()
    );
    let lists = Site::start(move |_| Answer::ok(named.clone()));
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nretries = 0\nallow_networks = [\"127.0.0.1\"]\n[proxies]\nlists = [{:?}]\n",
            lists.url("/")
        ),
    );
    sandbox.write("list.txt", pictures.list());
    let run = sandbox
        .run(["fetch", "list.txt", "-o", "out", "--report", "report.json"])
        .expect(3);
    assert!(run.stderr.contains("127.0.0.2"), "{run}");
    for item in sandbox.json("report.json")["items"].as_array().unwrap() {
        assert_eq!(item["reason"], "proxy", "{item}");
    }
    assert!(inside.accept().is_err(), "nobody connected");
    assert_eq!(pictures.site.total(), 0);
}

#[test]
fn providers_in_private_networks_open_them_to_no_list_and_no_proxy() {
    let inside = ["127.0.0.2:0", "127.0.0.3:0"].map(|address| {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let [moved, named] = inside.each_ref().map(|it| it.local_addr().unwrap());
    let lists = Site::start(move |asked| match asked.path.as_str() {
        "/moved" => Answer::status(302).header("Location", format!("http://{moved}/")),
        _ => Answer::ok(format!("{named}\n")),
    });
    let provider = Site::start(|_| Answer::ok("{\"results\": []}"));
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nretries = 0\nallow_networks = [\"127.0.0.1\"]\n[search]\nprivate_networks = true\n\
             [search.searxng]\nurl = {:?}\n[proxies]\nlists = [{:?}, {:?}]\n",
            provider.url("/search"),
            lists.url("/moved"),
            lists.url("/named"),
        ),
    );
    let run = sandbox.run(["fetch", "search:searxng?q=panda", "-o", "out"]);
    assert!(run.stderr.contains(&moved.ip().to_string()), "{run}");
    assert!(run.stderr.contains(&named.ip().to_string()), "{run}");
    for listener in &inside {
        assert!(listener.accept().is_err(), "nobody connected\n{run}");
    }
    assert_eq!(provider.total(), 0, "{run}");
}

#[test]
fn a_provider_in_a_private_network_is_asked_through_the_pool_of_all() {
    let proxy = Fake::that(Does::Forward);
    let provider = Site::start(|_| Answer::ok("{\"results\": []}"));
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nallow_networks = [\"127.0.0.1\"]\n[search]\nprivate_networks = true\n\
             [search.searxng]\nurl = {:?}\n[proxies]\n{}\n",
            provider.url("/search"),
            urls(&[&proxy]),
        ),
    );
    let run = sandbox.run(["fetch", "search:searxng?q=panda", "-o", "out"]);
    assert!(provider.total() > 0, "{run}");
    assert_eq!(proxy.asked(), provider.total(), "{run}");
}

#[test]
fn a_pool_does_not_hide_a_private_target() {
    let proxy = Fake::that(Does::Forward);
    let pictures = Pictures::new(1);
    let sandbox = Sandbox::new();
    sandbox.write(
        "gannet.toml",
        format!(
            "[fetch]\nallow_networks = [\"127.0.0.1\"]\n[proxies]\n{}\n",
            urls(&[&proxy])
        ),
    );
    let port = pictures.site.address.port();
    sandbox.write(
        "list.txt",
        format!("http://127.0.0.2:{port}/0.png\nhttp://a.localhost:{port}/0.png\n"),
    );
    sandbox
        .run(["fetch", "list.txt", "-o", "out", "--report", "report.json"])
        .expect(3);
    let report = sandbox.json("report.json");
    assert_eq!(report["items"][0]["reason"], "denied-address", "{report:#}");
    assert_eq!((proxy.asked(), pictures.site.total()), (0, 0));
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let refused = Fake::that(Does::Says(407));
    let sandbox = Sandbox::new();
    let pictures = Pictures::new(3);
    let with = refused.url().replace("http://", "http://ann:hush@");
    sandbox.write("proxies.txt", format!("{with}\nhush@nonsense\n"));
    let settings = format!(
        "urls = [{:?}]\nfile = \"proxies.txt\"",
        with.replace("ann", "bob")
    );
    let run = fetch(
        &sandbox,
        &pictures.list(),
        &settings,
        &["--set=fetch.retries=0", "-vv"],
    )
    .expect(3);
    let check = sandbox.run(["check"]).expect(0);
    let proxies = sandbox.run(["proxies", "check"]).expect(0);
    let report = String::from_utf8(sandbox.read("report.json")).unwrap();
    for text in [
        run.out(),
        &run.stderr,
        check.out(),
        &check.stderr,
        proxies.out(),
        &proxies.stderr,
        &report,
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
    assert!(refused.asked() >= 2);
}

#[test]
fn settings_that_cannot_be_meant_are_errors_that_name_the_key() {
    let sandbox = Sandbox::new();
    for (text, words) in [
        (
            "[proxies]\nurls = [\"ftp://ann:hush@p.example\"]",
            &["proxies.urls", "socks5h"][..],
        ),
        (
            "[proxies]\nurls = [\"p.example\"]",
            &["proxies.urls", "http://proxy.example:3128"],
        ),
        (
            "[proxies]\nlists = [\"proxies.txt\"]",
            &["proxies.lists", "http(s)"],
        ),
        (
            "[proxies]\nprobe_url = \"p.example\"",
            &["proxies.probe_url"],
        ),
        (
            "[proxies]\nrotation = \"random\"",
            &["proxies.rotation", "round-robin"],
        ),
        ("[proxies]\nmax = 0", &["proxies.max"]),
        (
            "[proxies]\nset_aside_after = 0",
            &["proxies.set_aside_after"],
        ),
        ("[proxies]\npatience = \"0s\"", &["proxies.patience"]),
        (
            "[proxies]\nfile = \"nowhere.txt\"",
            &["proxies.file", "nowhere.txt"],
        ),
        ("[proxies]\nurl = []", &["proxies", "urls"]),
        (
            "[fetch]\nproxy = \"http://p.example\"\n[proxies]\nurls = [\"http://q.example\"]",
            &["fetch.proxy", "[proxies]"],
        ),
    ] {
        sandbox.write("gannet.toml", text);
        let run = sandbox.run(["check"]).expect(1).says(words);
        assert!(!run.stderr.contains("hush"), "{run}");
    }
    sandbox.write(
        "gannet.toml",
        "[fetch]\nproxy = \"direct\"\n[proxies]\nurls = [\"http://q.example\"]",
    );
    sandbox.run(["check"]).expect(0);
}

#[test]
fn a_variable_that_names_no_proxy_ends_the_run_before_any_request() {
    let pictures = Pictures::new(1);
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", pictures.list());
    let args = ["fetch", "list.txt", "-o", "out", "--allow-private"];
    for (name, value, problem) in [
        ("http_proxy", "foo://x", "`foo://x` has a scheme"),
        (
            "ALL_PROXY",
            "socks6://127.0.0.1:1",
            "`socks6://127.0.0.1:1`",
        ),
        ("all_proxy", "http://", "`http://` is no URL"),
        ("https_proxy", "foo://ann:hush@x", "`foo://***@x`"),
    ] {
        let words = [name, problem, "http://proxy.example:3128"];
        let run = sandbox.run_with(&[(name, value)], &args);
        let run = run.expect(1).says(&words);
        assert!(!run.stderr.contains("hush"), "{run}");
        let check = sandbox.run_with(&[(name, value)], &["check"]);
        check.expect(1).says(&words);
        let mut direct = args.to_vec();
        direct.push("--proxy=direct");
        sandbox.run_with(&[(name, value)], &direct).expect(0);
    }
    for name in ["http_proxy", "ALL_PROXY"] {
        sandbox.run_with(&[(name, "")], &args).expect(0);
    }
}

#[test]
fn a_socks_proxy_that_wants_a_password_is_told_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("socks5://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut greeting = [0; 3];
        client.read_exact(&mut greeting).unwrap();
        // RFC 1928, section 3: no acceptable method.
        client.write_all(&[5, 0xff]).unwrap();
    });
    let sandbox = Sandbox::new();
    let run = sandbox.run([
        "fetch",
        "-u",
        "http://192.0.2.1/a.png",
        "-o",
        "out",
        "--report",
        "report.json",
        "--set=fetch.retries=0",
        "--allow-private",
        "--proxy",
        &proxy,
    ]);
    run.expect(3);
    server.join().unwrap();
    let item = &sandbox.json("report.json")["items"][0];
    assert_eq!(item["reason"], "proxy");
    let detail = item["detail"].as_str().unwrap();
    assert!(
        detail.contains("wants a user name and password"),
        "{detail}"
    );
}

#[test]
fn a_check_tells_of_each_proxy() {
    let pictures = Pictures::new(1);
    let (good, flips) = (Fake::that(Does::Forward), Fake::that(Does::Flip));
    let dead = dead();
    let sandbox = Sandbox::new();
    let write = |settings: String| {
        sandbox.write(
            "gannet.toml",
            format!("[fetch]\nprivate_networks = true\n[proxies]\n{settings}"),
        )
    };

    write(String::new());
    sandbox
        .run(["proxies", "check"])
        .expect(1)
        .says(&["proxies.urls"]);

    sandbox
        .run([
            "proxies",
            "check",
            "--set=fetch.proxy=direct",
            "--set=proxies.urls=[\"http://p.example\"]",
        ])
        .expect(1)
        .says(&["fetch.proxy", "direct"]);

    let urls = format!("urls = [{:?}, {:?}, {dead:?}]", good.url(), flips.url());
    write(urls.clone());
    let run = sandbox.run(["proxies", "check"]).expect(0);
    assert!(
        run.out()
            .contains("2 of 3 can be connected to; nothing was asked of them"),
        "{run}"
    );
    assert_eq!((good.asked(), flips.asked()), (0, 0));

    write(format!(
        "{urls}\nprobe_url = {:?}",
        pictures.site.url("/probe")
    ));
    let run = sandbox.run(["proxies", "check", "--json"]).expect(0);
    let checked = run.json();
    let states: Vec<_> = checked
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["health"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["works", "fails", "fails"]);
    assert!(
        checked[0]["latency_ms"].is_u64() && checked[0]["problem"].is_null(),
        "{run}"
    );
    assert!(
        checked[1]["problem"].as_str().unwrap().contains("alters"),
        "{run}"
    );
    assert_eq!(checked[2]["proxy"], dead.as_str());
    let run = sandbox.run(["proxies", "check"]).expect(0);
    assert!(run.out().contains("1 of 3 bring"), "{run}");

    write(format!("urls = [{dead:?}]"));
    sandbox.run(["proxies", "check"]).expect(3);
}
