//! Politeness, as an origin sees it: how many requests at a time, how far apart, whose turn it is, and what
//! a host that is down or wants rest costs everybody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod origin;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::{Gannet, closed_port, noise};
use origin::dns::NameServer;
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
fn retry_after_holds_back_the_lane_with_any_status_that_another_attempt_may_cure() {
    let holds_back = |status| {
        let origin = Origin::builder()
            .sequence(
                "/busy",
                [
                    Reply::status(status).header("Retry-After", "2"),
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
        assert_eq!(run.count("stored"), 4, "{status}");
        let pause = gaps(&origin.log())[0];
        assert!(pause >= Duration::from_millis(1990), "{status}: {pause:?}");
    };
    std::thread::scope(|scope| {
        for status in [408, 425, 500, 502, 503, 504] {
            scope.spawn(move || holds_back(status));
        }
    });
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
        // Without a back-off, there would be hundreds of requests.
        let run = impatient().fetch(files(&origin, "127.0.0.1", 100));
        assert_eq!(
            run.count("failed") + run.count("skipped"),
            100,
            "{status} {value}"
        );
        assert!(origin.total() <= 40, "{status} {value}: {}", origin.total());
        // The same holds for lists and robots.txt.
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

/// Returns a robots.txt reply.
fn robots(rules: &str) -> Reply {
    Reply::ok(rules).header("Content-Type", "text/plain")
}

#[test]
fn robots_txt_is_compared_in_one_form_and_its_delay_is_kept() {
    let rules = include_str!("fixtures/robots-encoded-paths.txt");
    let origin = Origin::builder()
        .route("/robots.txt", robots(rules))
        .otherwise(Reply::ok("a"))
        .start();
    let forbidden = [
        "/~kim/x",
        "/%7ekim/y",
        "/caf%C3%A9",
        "/café/z",
        "/bin/x",
        "/%62in/y",
    ];
    let allowed = ["/kim", "/cafe", "/a"];
    let urls: Vec<_> = forbidden
        .iter()
        .chain(&allowed)
        .map(|path| format!("http://{}{path}", origin.address))
        .collect();
    let run = Gannet::any()
        .set("fetch.robots=true")
        .fetch(&urls)
        .settled();
    let verdicts: Vec<_> = run
        .items()
        .iter()
        .map(|item| {
            (
                item["line"].as_u64().unwrap() as usize,
                common::verdict(item),
            )
        })
        .collect();
    for (line, verdict) in verdicts {
        let expected = if line <= forbidden.len() {
            "skipped/robots"
        } else {
            "stored"
        };
        assert_eq!(verdict, expected, "line {line}");
    }
    let log = origin.log();
    let paths: HashSet<_> = log.iter().map(|asked| asked.path.as_str()).collect();
    assert_eq!(paths, HashSet::from(["/robots.txt", "/kim", "/cafe", "/a"]));
    assert_eq!(log.len(), 4);
    // One request per second, including robots.txt. The time to the origin varies, so only the sum is checked.
    let all: Duration = gaps(&log).iter().sum();
    assert!(all >= Duration::from_millis(2600), "{:?}", gaps(&log));
    for item in run.items() {
        let attempts = u64::from(item["outcome"] == "stored");
        assert!(item["attempts"].as_u64().unwrap_or(0) >= attempts);
        assert!(item["attempts"].as_u64().unwrap_or(0) <= 1, "{item}");
    }
}

#[test]
fn a_crawl_delay_counts_no_longer_than_its_cap_and_not_without_robots() {
    for settings in [
        &["fetch.robots=true", "fetch.crawl_delay_max=0s"][..],
        &["fetch.robots=true", "fetch.crawl_delay_max=10ms"],
        &["fetch.robots=false"],
    ] {
        let origin = Origin::builder()
            .route("/robots.txt", robots("User-agent: *\nCrawl-delay: 3600\n"))
            .otherwise(Reply::ok("a"))
            .start();
        let gannet = settings
            .iter()
            .fold(Gannet::any(), |gannet, setting| gannet.set(setting));
        let run = gannet.fetch(files(&origin, "127.0.0.1", 20)).settled();
        assert_eq!(run.count("stored"), 20, "{settings:?}");
    }
}

#[test]
fn forbidden_files_cost_no_time_between_the_others() {
    let origin = Origin::builder()
        .route(
            "/robots.txt",
            robots("User-agent: *\nDisallow: /no\nCrawl-delay: 1\n"),
        )
        .otherwise(Reply::ok("a"))
        .start();
    let forbidden = (0..500).map(|n| origin.url(&format!("/no/{n}")).to_string());
    let urls: Vec<_> = forbidden.chain(files(&origin, "127.0.0.1", 2)).collect();
    let run = Gannet::any()
        .set("fetch.robots=true")
        .fetch(&urls)
        .settled();
    assert_eq!((run.count("skipped"), run.count("stored")), (500, 2));
    assert_eq!(origin.total(), 3);
}

#[test]
fn robots_are_addressed_by_their_product() {
    let rules = "User-agent: *\nDisallow: /\n\nUser-agent: picturebot\nDisallow: /private\n";
    let origin = Origin::builder()
        .route("/robots.txt", robots(rules))
        .route(
            "/tagged",
            Reply::ok("a").header("X-Robots-Tag", "PictureBot: noai"),
        )
        .route(
            "/other",
            Reply::ok("a").header("X-Robots-Tag", "otherbot: noai"),
        )
        .otherwise(Reply::ok("a"))
        .start();
    let urls = ["/public", "/private", "/tagged", "/other"].map(|path| origin.url(path));
    let as_picture_bot = ["stored", "skipped/robots", "skipped/robots", "stored"];
    let as_nobody = ["skipped/robots"; 4];
    for (setting, expected) in [
        ("--set=fetch.user_agent=PictureBot/2.1", as_picture_bot),
        (
            "--set=fetch.user_agent=\"Mozilla/5.0 (compatible; PictureBot/2.1; +https://example.org/bot)\"",
            as_picture_bot,
        ),
        ("--header=User-Agent: PictureBot/3", as_picture_bot),
        ("--set=fetch.robots_agent=PictureBot", as_picture_bot),
        (
            "--set=hosts.\"127.0.0.1\".robots_agent=PictureBot",
            as_picture_bot,
        ),
        ("--set=fetch.robots_agent=Picture", as_nobody),
        ("-q", as_nobody),
    ] {
        let run = Gannet::any()
            .arg(setting)
            .set("fetch.robots=true")
            .fetch(&urls)
            .settled();
        let verdicts = urls.each_ref().map(|url| run.verdict(url));
        assert_eq!(verdicts, expected, "{setting}");
    }
}

#[test]
fn a_refusal_of_robots_is_no_unknown_status() {
    let origin = Origin::builder()
        .route(
            "/paid",
            Reply::status(402).header("crawler-price", "USD 0.01"),
        )
        .route(
            "/forbidden",
            Reply::status(403).header("X-Robots-Tag", "noai"),
        )
        .route("/gone", Reply::status(404).header("X-Robots-Tag", "noai"))
        .route("/none", Reply::ok("a").header("X-Robots-Tag", "none"))
        .route(
            "/expired",
            Reply::ok("a").header(
                "X-Robots-Tag",
                "unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT",
            ),
        )
        .start();
    let urls = ["/paid", "/forbidden", "/gone", "/none", "/expired"].map(|path| origin.url(path));
    for (settings, expected) in [
        (
            &["fetch.robots=true"][..],
            [
                "skipped/robots",
                "skipped/robots",
                "failed/status",
                "stored",
                "stored",
            ],
        ),
        (
            &["fetch.robots=true", "fetch.robots_tags=noindex"],
            [
                "skipped/robots",
                "failed/status",
                "failed/status",
                "skipped/robots",
                "skipped/robots",
            ],
        ),
        (
            &["fetch.robots=false"],
            [
                "failed/status",
                "failed/status",
                "failed/status",
                "stored",
                "stored",
            ],
        ),
    ] {
        let gannet = settings
            .iter()
            .fold(Gannet::any(), |gannet, setting| gannet.set(setting));
        let run = gannet.fetch(&urls).settled();
        let verdicts = urls.each_ref().map(|url| run.verdict(url));
        assert_eq!(verdicts, expected, "{settings:?}");
        let paid = run.item(&urls[0]);
        let detail = paid["detail"].as_str().unwrap();
        assert!(
            detail.contains("402") && detail.contains("USD 0.01"),
            "{detail}"
        );
        assert_eq!(
            (&paid["status"], &paid["attempts"]),
            (&402.into(), &1.into())
        );
        let forbidden = run.item(&urls[1])["detail"].as_str().unwrap();
        let is_told = forbidden.contains("X-Robots-Tag: noai");
        assert_eq!(is_told, expected[1] == "skipped/robots", "{forbidden}");
    }
}

#[test]
fn an_origin_that_asks_for_no_use_later_is_heard_in_a_304() {
    for (settings, expected) in [
        (&["fetch.robots=true"][..], "skipped/robots"),
        (
            &["fetch.robots=true", "fetch.robots_tags=noindex"],
            "unchanged",
        ),
        (&["fetch.robots=false"], "unchanged"),
    ] {
        let origin = Origin::builder()
            .route("/robots.txt", Reply::status(404))
            .sequence(
                "/a",
                [
                    Reply::ok("a").header("ETag", "\"1\""),
                    Reply::status(304)
                        .header("ETag", "\"1\"")
                        .header("X-Robots-Tag", "noai"),
                ],
            )
            .start();
        let gannet = settings
            .iter()
            .fold(Gannet::any(), |gannet, setting| gannet.set(setting));
        let url = origin.url("/a");
        assert_eq!(gannet.fetch([&url]).settled().verdict(&url), "stored");
        let run = gannet.fetch([&url]).settled();
        assert_eq!(run.verdict(&url), expected, "{settings:?}");
        let asked = origin.asked("/a");
        assert_eq!(asked[1].header("if-none-match"), Some("\"1\""));
    }
}

#[test]
fn a_robots_txt_to_be_paid_for_is_a_refusal() {
    let origin = Origin::builder()
        .route(
            "/robots.txt",
            Reply::status(402).header("crawler-price", "USD 0.01"),
        )
        .otherwise(Reply::ok("a"))
        .start();
    let urls = files(&origin, "127.0.0.1", 3);
    let run = Gannet::any()
        .set("fetch.robots=true")
        .fetch(&urls)
        .settled();
    for url in &urls {
        assert_eq!(run.verdict(url), "skipped/robots");
        let detail = run.item(url)["detail"].as_str().unwrap();
        for part in ["/robots.txt` answered 402", "USD 0.01"] {
            assert!(detail.contains(part), "{detail}");
        }
    }
    assert_eq!(origin.total(), 1);
}

#[test]
fn hosts_of_a_group_have_one_limit() {
    let names = NameServer::start(|_, _| Some(vec![[127, 0, 0, 1].into()]));
    for (config, expected) in [
        ("", 16),
        ("[hosts.\"*.example.org\"]\nshared = true\n", 8),
        (
            "[hosts.\"a.example.org\"]\nshared = [\"b.example.org\"]\nconcurrency = 3\n",
            3,
        ),
        (
            "[hosts.\"*.example.org\"]\nshared = true\n[hosts.\"b.example.org\"]\nshared = false\n",
            16,
        ),
    ] {
        let origin = Origin::builder()
            .otherwise(Reply::ok("a").after(Duration::from_millis(50)))
            .start();
        let urls: Vec<_> = (0..60)
            .flat_map(|n| ["a", "b"].map(|name| (name, n)))
            .map(|(name, n)| origin.url_as(&format!("{name}.example.org"), &format!("/{n}")))
            .collect();
        let run = Gannet::any()
            .config(config)
            .set(format!("fetch.name_servers=[\"{}\"]", names.address))
            .fetch(&urls)
            .settled();
        assert_eq!(run.count("stored"), 120, "{config}");
        assert_eq!(origin.peak_requests(), expected, "{config}");
    }
}

#[test]
fn a_host_is_the_same_with_a_dot_at_its_end() {
    let names = NameServer::start(|_, _| Some(vec![[127, 0, 0, 1].into()]));
    for (config, expected) in [
        ("[fetch]\nper_host = 2\n", 2),
        ("[hosts.\"*.example.org\"]\nconcurrency = 3\n", 3),
        ("[hosts.\"a.example.org.\"]\nconcurrency = 3\n", 3),
    ] {
        let origin = Origin::builder()
            .otherwise(Reply::ok("a").after(Duration::from_millis(50)))
            .start();
        let urls: Vec<_> = (0..20)
            .flat_map(|n| ["a.example.org", "a.example.org."].map(|name| (name, n)))
            .map(|(name, n)| origin.url_as(name, &format!("/{n}")))
            .collect();
        let run = Gannet::any()
            .config(config)
            .set(format!("fetch.name_servers=[\"{}\"]", names.address))
            .fetch(&urls)
            .settled();
        assert_eq!(run.count("stored"), 40, "{config}");
        assert_eq!(origin.peak_requests(), expected, "{config}");
    }
}

#[test]
fn a_group_rests_as_one_and_loses_its_dead_hosts_only() {
    let port = closed_port();
    let origin = Origin::builder()
        .on_any_address()
        .sequence(
            "/busy",
            [
                Reply::status(429).header("Retry-After", "1"),
                Reply::ok("a"),
            ],
        )
        .otherwise(Reply::ok("b"))
        .start();
    let gannet = Gannet::any().config(
        "[hosts.\"127.0.0.1\"]\nshared = [\"127.0.0.2\", \"127.0.0.3\"]\nconcurrency = 1\n",
    );
    let busy = origin.url_as("127.0.0.1", "/busy");
    let others = files(&origin, "127.0.0.2", 5);
    let dead: Vec<_> = (0..50)
        .map(|n| format!("http://127.0.0.3:{port}/{n}"))
        .collect();
    let urls = [vec![busy.to_string()], others, dead.clone()].concat();
    let run = gannet.fetch(&urls).settled();
    assert_eq!(run.count("stored"), 6);
    let log = origin.log();
    assert_eq!(log[0].path, "/busy");
    assert!(
        gaps(&log)[0] >= Duration::from_millis(990),
        "{:?}",
        gaps(&log)
    );
    for url in &dead {
        let verdict = run.verdict(url);
        assert!(
            ["failed/connect", "skipped/host-down"].contains(&verdict.as_str()),
            "{verdict}"
        );
    }
    let failed = run.report()["reasons"]["connect"].as_u64().unwrap();
    assert!(failed < 50, "{failed}");
}

#[test]
fn a_group_is_in_one_share_of_a_list() {
    let origin = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok("a"))
        .start();
    let urls: Vec<_> = (1..=30)
        .map(|n| origin.url_as(&format!("127.0.0.{n}"), "/a"))
        .collect();
    let members: Vec<_> = (2..=30).map(|n| format!("\"127.0.0.{n}\"")).collect();
    let config = format!("[hosts.\"127.0.0.1\"]\nshared = [{}]\n", members.join(", "));
    let mut shares: Vec<_> = (1..=3)
        .map(|share| {
            let gannet = Gannet::any().config(&config);
            let run = gannet
                .arg(format!("--shard={share}/3"))
                .fetch(&urls)
                .settled();
            run.count("stored")
        })
        .collect();
    shares.sort_unstable();
    assert_eq!(shares, [0, 0, 30]);
}

#[test]
fn bodies_take_the_time_that_the_bandwidth_gives_them() {
    let body = noise(100_000);
    let origin = Origin::builder()
        .on_any_address()
        .route("/plain", Reply::ok(body.clone()))
        .otherwise(Reply::ok(body[..1000].to_vec()))
        .start();
    let slow = |setting: &str, urls: &[String]| {
        // Time spent waiting for bandwidth must not count as slowness of the origin.
        let run = Gannet::any()
            .arg(setting)
            .set("fetch.min_speed=1MiB")
            .set("fetch.min_speed_window=100ms")
            .set("fetch.idle_timeout=10s")
            .set("fetch.total_timeout=10s")
            .fetch(urls)
            .settled();
        assert_eq!(run.count("stored"), urls.len() as u64, "{setting}");
        assert!(
            run.items().iter().all(|item| item["attempts"] == 1),
            "{setting}"
        );
        run.elapsed
    };
    let plain = origin.url("/plain").to_string();
    // One large body, then many small ones, at 50 kB per second.
    let limit = Duration::from_millis(1800);
    assert!(slow("--limit-rate=50KB", std::slice::from_ref(&plain)) >= limit);
    let by_day = "--set=fetch.max_rate=\"00:00 50KB, 12:00 50KB\"";
    assert!(slow(by_day, std::slice::from_ref(&plain)) >= limit);
    assert!(slow("--set=hosts.\"127.0.0.1\".max_rate=50KB", &[plain]) >= limit);
    let small = [
        files(&origin, "127.0.0.1", 50),
        files(&origin, "127.0.0.2", 50),
    ]
    .concat();
    assert!(slow("--limit-rate=50KB", &small) >= limit);
}
