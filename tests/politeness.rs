//! Politeness, as an origin sees it: how many requests at a time, how far apart, whose turn it is, and what
//! a host that is down or wants rest costs everybody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod origin;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::{Gannet, closed_port};
use origin::{Origin, Recorded, Reply};

/// URLs of `count` files of `host`, an address of this machine.
fn files(origin: &Origin, host: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| origin.url_as(host, &format!("/{n}")).into())
        .collect()
}

fn host_of(asked: &Recorded) -> String {
    let host = asked.header("host").unwrap();
    host.split(':').next().unwrap().to_owned()
}

/// Time between each request and the one before.
fn gaps(asked: &[Recorded]) -> Vec<Duration> {
    asked
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect()
}

fn slow() -> Reply {
    Reply::ok("a").after(Duration::from_millis(20))
}

#[test]
fn a_host_is_asked_no_more_at_a_time_than_allowed() {
    for (setting, expected) in [
        ("--per-host=1", 1),
        ("--per-host=3", 3),
        ("-q", 8),
        ("-j5", 5),
    ] {
        let origin = Origin::builder().otherwise(slow()).start();
        let run = Gannet::any()
            .arg(setting)
            .fetch(files(&origin, "127.0.0.1", 60))
            .settled();
        assert_eq!(run.count("stored"), 60);
        // Reached, and not passed.
        assert_eq!(origin.peak_requests(), expected, "{setting}");
        assert!(
            origin.peak_connections() <= expected + 1,
            "{setting}: {}",
            origin.peak_connections()
        );
    }
}

#[test]
fn all_hosts_together_are_asked_no_more_at_a_time_than_allowed() {
    let origin = Origin::builder().on_any_address().otherwise(slow()).start();
    let urls: Vec<_> = (1..=10)
        .flat_map(|n| files(&origin, &format!("127.0.0.{n}"), 10))
        .collect();
    let run = Gannet::any().arg("--concurrency=6").fetch(&urls).settled();
    assert_eq!(run.count("stored"), 100);
    assert_eq!(origin.peak_requests(), 6);
}

#[test]
fn the_limits_of_a_host_can_be_its_own() {
    let strict = Origin::builder().otherwise(slow()).start();
    let origin = Origin::builder().on_any_address().otherwise(slow()).start();
    let gannet = Gannet::any().arg("--per-host=6").config(
        "[hosts.\"127.0.0.1\"]\nconcurrency = 2\nretries = 0\n\
         [hosts.\"127.0.0.1\".headers]\nX-Own = \"mine\"\n",
    );
    let urls = [
        files(&strict, "127.0.0.1", 40),
        files(&origin, "127.0.0.2", 40),
    ]
    .concat();
    let run = gannet.fetch(&urls).settled();
    assert_eq!(run.count("stored"), 80);
    assert_eq!((strict.peak_requests(), origin.peak_requests()), (2, 6));
    assert!(
        strict
            .log()
            .iter()
            .all(|asked| asked.header("x-own") == Some("mine"))
    );
    assert!(
        origin
            .log()
            .iter()
            .all(|asked| asked.header("x-own").is_none())
    );

    let down = Origin::builder()
        .on_any_address()
        .otherwise(Reply::status(500))
        .start();
    let urls = ["127.0.0.1", "127.0.0.2"].map(|host| down.url_as(host, "/"));
    let run = gannet.set("fetch.retries=2").fetch(&urls).settled();
    let attempts = urls
        .each_ref()
        .map(|url| run.item(url)["attempts"].as_u64().unwrap());
    assert_eq!(attempts, [1, 3]);
}

#[test]
fn the_rate_of_a_host_is_kept() {
    let origin = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok("a"))
        .start();
    let urls = [
        files(&origin, "127.0.0.1", 8),
        files(&origin, "127.0.0.2", 8),
    ]
    .concat();
    let run = Gannet::any().arg("--rate=10").fetch(&urls).settled();
    assert_eq!(run.count("stored"), 16);
    for host in ["127.0.0.1", "127.0.0.2"] {
        let asked: Vec<_> = origin
            .log()
            .into_iter()
            .filter(|asked| host_of(asked) == host)
            .collect();
        // The way to the origin takes its time, so single gaps vary; seven of them make 700 ms.
        let all: Duration = gaps(&asked).iter().sum();
        assert!(all >= Duration::from_millis(600), "{host}: {all:?}");
    }
    // Both hosts at once: half the time of one after the other.
    assert!(run.elapsed < Duration::from_secs(30));
}

#[test]
fn retries_and_redirects_keep_the_rate_too() {
    let origin = Origin::builder()
        .sequence(
            "/late",
            [Reply::status(503), Reply::status(503), Reply::ok("a")],
        )
        .route("/a", Reply::redirect(302, "/b"))
        .route("/b", Reply::redirect(302, "/c"))
        .route("/c", Reply::ok("c"))
        .start();
    let run = Gannet::any()
        .arg("--rate=5")
        .fetch([origin.url("/late"), origin.url("/a")])
        .settled();
    assert_eq!(run.count("stored"), 2);
    let log = origin.log();
    assert_eq!(log.len(), 6);
    let all: Duration = gaps(&log).iter().sum();
    assert!(
        all >= Duration::from_millis(900),
        "{all:?}: {:?}",
        gaps(&log)
    );
}

#[test]
fn a_rate_of_next_to_nothing_is_a_long_wait() {
    let origin = Origin::with("/file", Reply::ok("a"));
    let url = origin.url("/file");
    let run = Gannet::any().arg("--rate=1e-30").fetch([&url]).settled();
    assert_eq!(run.verdict(&url), "stored");
}

#[test]
fn retry_after_holds_back_the_whole_lane_and_no_other() {
    for header in ["seconds", "date"] {
        let busy = Reply::status(429);
        let busy = if header == "seconds" {
            busy.header("Retry-After", "1")
        } else {
            busy.header("Date", "Fri, 20 Nov 2020 12:00:00 GMT")
                .header("Retry-After", "Fri, 20 Nov 2020 12:00:01 GMT")
        };
        let origin = Origin::builder()
            .on_any_address()
            .sequence("/busy", [busy, Reply::ok("a")])
            .otherwise(Reply::ok("b"))
            .start();
        let mut urls = vec![origin.url_as("127.0.0.1", "/busy").to_string()];
        urls.extend(files(&origin, "127.0.0.1", 10));
        urls.extend(files(&origin, "127.0.0.2", 10));
        let run = Gannet::any().arg("--per-host=1").fetch(&urls).settled();
        assert_eq!(run.count("stored"), 21);
        assert_eq!(run.item(&urls[0])["attempts"], 2);
        let (held, other): (Vec<_>, Vec<_>) = origin
            .log()
            .into_iter()
            .partition(|asked| host_of(asked) == "127.0.0.1");
        assert_eq!(held[0].path, "/busy");
        // From the origin's clock to gannet's and back: a hair less than it asked for is the limit of measuring.
        let pause = held[1].at - held[0].at;
        assert!(pause >= Duration::from_millis(990), "{header}: {pause:?}");
        let last = other.last().unwrap().at;
        assert!(last < held[1].at, "the other host had to wait");
    }
}

#[test]
fn a_503_with_retry_after_holds_back_the_lane_too() {
    let origin = Origin::builder()
        .sequence(
            "/busy",
            [
                Reply::status(503).header("Retry-After", "1"),
                Reply::ok("a"),
            ],
        )
        .otherwise(Reply::ok("b"))
        .start();
    let urls = [
        vec![origin.url("/busy").to_string()],
        files(&origin, "127.0.0.1", 3),
    ]
    .concat();
    let run = Gannet::any().arg("--per-host=1").fetch(&urls).settled();
    assert_eq!(run.count("stored"), 4);
    assert!(gaps(&origin.log())[0] >= Duration::from_millis(990));
}

#[test]
fn a_retry_after_that_makes_no_sense_is_none() {
    for value in ["-5", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT", "1.5.2"] {
        let origin = Origin::builder()
            .sequence(
                "/busy",
                [
                    Reply::status(429).header("Retry-After", value),
                    Reply::ok("a"),
                ],
            )
            .start();
        let url = origin.url("/busy");
        let run = Gannet::any().fetch([&url]).settled();
        assert_eq!(
            (run.verdict(&url).as_str(), &run.item(&url)["attempts"]),
            ("stored", &2.into()),
            "{value}"
        );
    }
}

#[test]
fn a_retry_after_of_nothing_leaves_the_back_off_as_it_is() {
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (status, value) in [(429, "0"), (429, past), (503, "0"), (503, past)] {
        let origin = Origin::builder()
            .otherwise(Reply::status(status).header("Retry-After", value))
            .start();
        let impatient = || {
            Gannet::any()
                .set("fetch.retries=1000")
                .set("fetch.backoff=10s")
                .set("fetch.backoff_max=10s")
                .set("job.deadline=1s")
        };
        // Without a back-off these are asked for hundreds of times.
        let run = impatient().fetch(files(&origin, "127.0.0.1", 100));
        assert_eq!(
            run.count("failed") + run.count("skipped"),
            100,
            "{status} {value}"
        );
        assert!(origin.total() <= 40, "{status} {value}: {}", origin.total());
        // Lists and robots.txt too.
        let before = origin.total();
        impatient().fetch_source(origin.url("/list.txt").as_str());
        let run = impatient()
            .set("fetch.robots=true")
            .fetch(files(&origin, "127.0.0.1", 1));
        assert_eq!(run.count("stored"), 0);
        assert!(
            origin.total() - before <= 20,
            "{status} {value}: {}",
            origin.total()
        );
    }
}

#[test]
fn a_host_that_wants_a_longer_rest_than_anybody_waits_is_given_up() {
    for value in [
        "86400",
        "99999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let origin = Origin::builder()
            .on_any_address()
            .sequence("/busy", [Reply::status(429).header("Retry-After", value)])
            .otherwise(Reply::ok("b"))
            .start();
        let mut urls = vec![origin.url_as("127.0.0.1", "/busy").to_string()];
        urls.extend(files(&origin, "127.0.0.1", 20));
        urls.extend(files(&origin, "127.0.0.2", 20));
        let run = Gannet::any().arg("--per-host=1").fetch(&urls).settled();
        assert_eq!(run.verdict(&urls[0]), "failed/status", "{value}");
        for url in &urls[1..21] {
            assert_eq!(run.verdict(url), "skipped/host-down", "{value}");
        }
        for url in &urls[..21] {
            let detail = run.item(url)["detail"].as_str().unwrap();
            assert!(detail.contains("`fetch.retry_after_max`"), "{detail}");
            assert!(!detail.contains("host_down_after"), "{detail}");
        }
        assert_eq!(run.count("stored"), 20);
        assert_eq!(origin.total(), 21);
    }
}

#[test]
fn a_slow_host_does_not_hold_up_the_rest() {
    let slow = Origin::builder().otherwise(Reply::silent()).start();
    let fast = Origin::builder().otherwise(Reply::ok("a")).start();
    // The slow one comes first, and has more than there are requests at a time.
    let urls = [
        files(&slow, "127.0.0.1", 100),
        files(&fast, "127.0.0.1", 300),
    ]
    .concat();
    let begun = Instant::now();
    let run = Gannet::any()
        .arg("--concurrency=16")
        .set("fetch.idle_timeout=2s")
        .set("fetch.retries=0")
        .arg("--deadline=5s")
        .fetch(&urls);
    let last = fast.log().last().unwrap().at;
    assert_eq!(fast.total(), 300);
    // Done before the first request of the slow host has run into its limit, or at least long before its last.
    assert!(last - begun < Duration::from_secs(5), "{:?}", last - begun);
    assert_eq!(run.count("stored"), 300);
    assert_eq!(run.count("targets"), 400);
}

#[test]
fn a_dead_host_costs_seconds_and_nobody_else_anything() {
    let origin = Origin::builder().otherwise(Reply::ok("a")).start();
    let port = closed_port();
    let dead = (0..10_000).map(|n| format!("http://127.0.0.2:{port}/{n}"));
    let alive = files(&origin, "127.0.0.1", 100);
    let urls: Vec<_> = dead.chain(alive.iter().cloned()).collect();
    let run = Gannet::any().fetch(&urls).settled();
    assert_eq!((run.count("targets"), run.count("stored")), (10_100, 100));
    assert!(run.elapsed < Duration::from_secs(60), "{:?}", run.elapsed);
    // Those that were tried failed, all others were not tried.
    let tried = run.count("failed");
    assert!((1..=64).contains(&tried), "{tried}");
    assert_eq!(run.count("skipped"), 10_000 - tried);
    let reasons = &run.report()["reasons"];
    assert_eq!(reasons["host-down"], 10_000 - tried, "{reasons}");
    assert_eq!(reasons["connect"], tried, "{reasons}");
    for url in &alive {
        assert_eq!(run.verdict(url), "stored");
    }
}

#[test]
fn a_host_that_stays_down_ends_the_job_however_short_it_is_given_up() {
    let port = closed_port();
    let urls: Vec<_> = (0..20)
        .map(|n| format!("http://127.0.0.1:{port}/{n}"))
        .collect();
    let gannet = Gannet::any()
        .set("fetch.host_down_for=10ms")
        .set("fetch.host_down_after=2");
    let run = gannet.fetch(&urls).settled();
    assert_eq!(run.count("failed") + run.count("skipped"), 20);
    assert!(run.count("failed") > 0);
}

/// How many requests of one host come between the first and the last of every host, at least: 1 means that
/// all hosts run side by side from beginning to end, 0 that they run one after the other.
fn overlap(log: &[Recorded]) -> f64 {
    let mut first = HashMap::new();
    let mut last = HashMap::new();
    for (n, asked) in log.iter().enumerate() {
        first.entry(host_of(asked)).or_insert(n);
        last.insert(host_of(asked), n);
    }
    let latest_start = *first.values().max().unwrap();
    let earliest_end = *last.values().min().unwrap();
    earliest_end.saturating_sub(latest_start) as f64 / log.len() as f64
}

#[test]
fn a_list_sorted_by_host_runs_like_a_shuffled_one() {
    let hosts: Vec<_> = (1..=8).map(|n| format!("127.0.0.{n}")).collect();
    let run = |order: fn(usize, usize) -> (usize, usize)| {
        let origin = Origin::builder()
            .on_any_address()
            .otherwise(Reply::ok("a").after(Duration::from_millis(5)))
            .start();
        let urls: Vec<_> = (0..400)
            .map(|n| order(n, 400))
            .map(|(host, file)| origin.url_as(&hosts[host], &format!("/{file}")))
            .collect();
        let run = Gannet::any().arg("--per-host=2").fetch(&urls).settled();
        assert_eq!(run.count("stored"), 400);
        assert!(origin.peak_requests() <= 16);
        (overlap(&origin.log()), origin.peak_requests())
    };
    let sorted = run(|n, all| (n / (all / 8), n % (all / 8)));
    // 7 has no factor in common with 400: every line once, in an order that looks like none.
    let shuffled = run(|n, all| {
        let n = n * 147 % all;
        (n / (all / 8), n % (all / 8))
    });
    for (overlap, peak) in [sorted, shuffled] {
        assert!(overlap > 0.7, "sorted {sorted:?}, shuffled {shuffled:?}");
        assert!(peak >= 12, "sorted {sorted:?}, shuffled {shuffled:?}");
    }
}

#[test]
fn a_line_that_is_there_twice_is_fetched_once() {
    let origin = Origin::builder()
        .otherwise(Reply::ok("a").after(Duration::from_millis(2)))
        .start();
    let all = files(&origin, "127.0.0.1", 100);
    let port = origin.address.port();
    let mut urls = Vec::new();
    for url in &all {
        urls.extend([url.clone(), url.clone()]);
    }
    urls.extend(all.iter().cloned());
    // Other ways to write one of them.
    urls.push(format!("HTTP://127.0.0.1:{port}/0"));
    urls.push(format!("http://127.0.0.1:{port}/a/../0"));
    urls.push(format!("http://127.0.0.1:{port}/%30"));
    let run = Gannet::any().fetch(&urls).settled();
    let paths: HashSet<_> = origin.log().into_iter().map(|asked| asked.path).collect();
    let once = |n: usize| origin.hits(&format!("/{n}")) == 1;
    assert!((0..100).all(once));
    // Whether an escaped digit is another file is the origin's to say: it may be asked for.
    assert!(paths.len() <= 101, "{}", paths.len());
    assert_eq!(run.count("targets"), paths.len() as u64);
    let repeats = run.report()["repeats"].as_u64().unwrap();
    assert_eq!(run.count("targets") + repeats, urls.len() as u64);
}

#[test]
fn connections_are_used_again() {
    let origin = Origin::builder().otherwise(Reply::ok("a")).start();
    let run = Gannet::any()
        .arg("--per-host=4")
        .fetch(files(&origin, "127.0.0.1", 400))
        .settled();
    assert_eq!(run.count("stored"), 400);
    assert!(origin.connections() <= 8, "{}", origin.connections());
}
