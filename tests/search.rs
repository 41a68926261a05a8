//! Image searches as sources, by the real binary against a fake of each provider.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::daemon::until;
use support::http::send;
use support::sandbox::walk;
use support::site::Asked;
use support::{Answer, Daemon, Run, Sandbox, Site, pictures};

/// The parameters of a request.
fn parameters(asked: &Asked) -> HashMap<String, String> {
    let (_, query) = asked.path.split_once('?').unwrap_or_default();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.into_owned().collect()
}

/// Different pictures at `/img/N.png`.
fn picture(asked: &Asked) -> Option<Answer> {
    let name = asked.path.strip_prefix("/img/")?.split('?').next()?;
    let number = name.strip_suffix(".png")?.parse().ok()?;
    Some(Answer::ok(pictures::png(number)))
}

/// The settings that lead to the fake of a provider, without waits between requests.
fn at(provider: &str, url: &str) -> Vec<String> {
    [("url", url), ("per_minute", "0"), ("per_day", "0")]
        .map(|(key, value)| format!("--set=search.{provider}.{key}={value}"))
        .to_vec()
}

/// An address where nobody ever answers.
const NOBODY: &str = "http://127.0.0.77:1/";

/// `gannet fetch` of a search, with a report.
fn fetch(sandbox: &Sandbox, search: &str, settings: &[Vec<String>], more: &[&str]) -> Run {
    let settings = settings.concat();
    let mut args = vec![search, "--report", "report.jsonl"];
    args.extend(settings.iter().map(String::as_str));
    args.extend(more);
    sandbox.fetch(&args)
}

/// The items of the report, by the rank of what was found.
fn items(sandbox: &Sandbox) -> Vec<Value> {
    let text = String::from_utf8(sandbox.read("report.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["url"].is_string())
        .collect()
}

/// Openverse with `total` results a query, and as many a page as are asked for.
fn openverse(total: u64) -> Site {
    Site::start(move |asked| {
        if let Some(picture) = picture(asked) {
            return picture;
        }
        let parameters = parameters(asked);
        let number = |name: &str| parameters[name].parse::<u64>().unwrap();
        let (page, size) = (number("page"), number("page_size"));
        let results = ((page - 1) * size..(page * size).min(total)).map(|n| {
            json!({
                "id": format!("00000000-0000-4000-8000-{n:012}"),
                "title": format!("Panda {n}"),
                "foreign_landing_url": format!("https://photos.example.test/{n}"),
                "url": format!("http://{}/img/{n}.png", asked.header("host").unwrap()),
                "creator": "Ann", "license": "by-sa", "license_version": "2.0",
                "license_url": "https://licences.example.test/by-sa/2.0/",
                "filetype": null, "mature": false, "width": 1024, "height": 768,
                "thumbnail": format!("https://api.example.test/{n}/thumb/"),
            })
        });
        let results: Vec<_> = results.collect();
        Answer::ok(
            json!({"result_count": total, "page_count": total.div_ceil(size), "page_size": size,
                   "page": page, "results": results})
            .to_string(),
        )
    })
}

#[test]
fn a_search_is_read_page_by_page_to_its_end() {
    let (sandbox, site) = (Sandbox::new(), openverse(45));
    let settings = [at("openverse", &site.url("/v1/images/"))];
    let run = fetch(&sandbox, "search:openverse?q=red panda", &settings, &[]).expect(0);
    assert_eq!(run.count("stored"), 45);
    let pages: Vec<_> = (site.asked().iter())
        .filter(|asked| asked.path.starts_with("/v1/images/"))
        .map(parameters)
        .collect();
    assert_eq!(pages.len(), 3);
    for (at, page) in pages.iter().enumerate() {
        assert_eq!(page["q"], "red panda");
        assert_eq!(page["page"], (at + 1).to_string());
        assert_eq!(page["page_size"], "20");
    }
    let items = items(&sandbox);
    assert_eq!(items.len(), 45);
    let found = items
        .iter()
        .find(|item| item["metadata"]["rank"] == 8)
        .unwrap();
    assert_eq!(
        found["metadata"],
        json!({
            "title": "Panda 7", "page": "https://photos.example.test/7",
            "thumbnail": "https://api.example.test/7/thumb/",
            "licence": "CC BY-SA 2.0", "licence_url": "https://licences.example.test/by-sa/2.0/",
            "creator": "Ann", "found_width": 1024, "found_height": 768,
            "provider": "openverse", "query": "red panda", "rank": 8,
        })
    );
}

/// What is asked of a provider, rather than of its images.
fn searches(site: &Site) -> Vec<Asked> {
    let asked = site.asked().into_iter();
    asked
        .filter(|asked| !asked.path.starts_with("/img/"))
        .collect()
}

/// The address of an image on the site that is asked.
fn image(asked: &Asked, number: u64) -> String {
    format!("http://{}/img/{number}.png", asked.header("host").unwrap())
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;")
}

/// A fake of every provider at once, told apart by path: three pages of four results, then an empty one where the
/// provider has such.
fn everybody() -> Site {
    Site::start(|asked| {
        if let Some(picture) = picture(asked) {
            return picture;
        }
        let parameters = parameters(asked);
        let number = |name: &str| parameters.get(name).and_then(|n| n.parse::<u64>().ok());
        let four = |base: u64, page: u64| -> Vec<String> {
            let numbers = (page * 4..page * 4 + 4).filter(|_| page < 3);
            numbers.map(|n| image(asked, base + n)).collect()
        };
        let path = asked.path.split('?').next().unwrap();
        let body = match path {
            "/openverse" => {
                let page = number("page").unwrap() - 1;
                let results = four(100, page).into_iter();
                let mut results: Vec<_> = results.map(|url| json!({"url": url})).collect();
                // A broken one costs nobody else.
                results.insert(1, json!({"title": 7}));
                json!({"result_count": 12, "page_count": 3, "results": results}).to_string()
            }
            "/wikimedia" => {
                let page = number("gsroffset").unwrap() / 4;
                let urls = four(200, page).into_iter().enumerate();
                let pages = urls.map(|(at, url)| {
                    let url = format!("{url}?utm_source=commons");
                    json!({"index": page * 4 + at as u64 + 1, "imageinfo": [{"url": url}]})
                });
                let pages: Vec<_> = pages.rev().collect();
                let mut body = json!({"batchcomplete": true, "query": {"pages": pages}});
                if page < 2 {
                    body["continue"] =
                        json!({"gsroffset": (page + 1) * 4, "continue": "gsroffset||"});
                }
                body.to_string()
            }
            "/customsearch" => {
                let page = (number("start").unwrap() - 1) / 4;
                let items = four(300, page).into_iter().map(|url| json!({"link": url}));
                let items: Vec<_> = items.collect();
                let mut body = json!({"searchInformation": {"totalResults": "12"}, "items": items,
                                      "queries": {"nextPage": [{"startIndex": (page + 1) * 4 + 1}]}});
                if page == 3 {
                    body.as_object_mut().unwrap().remove("items");
                }
                body.to_string()
            }
            "/wml" => {
                let page = number("start").unwrap_or(0) / 10;
                let links = four(400, page)
                    .into_iter()
                    .map(|url| format!("<a href=\"/imgres?imgurl={url}&amp;w=8&amp;h=8\">x</a>"));
                format!("<form><input name=q></form>{}", links.collect::<String>())
            }
            "/bing" => {
                let page = (number("first").unwrap() - 1) / 4;
                // Beyond the last page it begins to repeat itself.
                let items = four(500, page.min(2)).into_iter().map(|url| {
                    let about = html(&json!({"murl": url}).to_string());
                    format!("<li><a class=\"iusc\" m=\"{about}\">x</a></li>")
                });
                let items = items.collect::<String>();
                let next = html(&format!("/bing?q=x&first={}", (page + 1) * 4 + 1));
                format!("<div class=\"dgControl\" data-nextUrl=\"{next}\">{items}</div>")
            }
            "/brave" => {
                let results = four(600, 0).into_iter();
                let results = results.map(|url| json!({"properties": {"url": url}}));
                json!({"results": results.collect::<Vec<_>>()}).to_string()
            }
            "/searxng/search" => {
                let results = four(700, number("pageno").unwrap() - 1).into_iter();
                let results =
                    results.map(|url| json!({"img_src": url.trim_start_matches("http:")}));
                json!({"results": results.collect::<Vec<_>>()}).to_string()
            }
            _ => return Answer::status(404),
        };
        Answer::ok(body)
    })
}

#[test]
fn every_provider_is_read_to_its_end() {
    for (provider, path, more, requests, stored) in [
        ("openverse", "/openverse", &[][..], 3, 12),
        (
            "wikimedia",
            "/wikimedia",
            &["--set", "search.wikimedia.page_size=4"],
            3,
            12,
        ),
        (
            "google",
            "/customsearch",
            &[
                "--set",
                "search.google.key=k",
                "--set",
                "search.google.engine=cx",
            ],
            4,
            12,
        ),
        ("bing", "/bing", &[], 4, 12),
        ("brave", "/brave", &["--set", "search.brave.key=k"], 1, 4),
    ] {
        let (sandbox, site) = (Sandbox::new(), everybody());
        let settings = [at(provider, &site.url(path))];
        let search = format!("search:{provider}?q=red panda");
        let run = fetch(&sandbox, &search, &settings, more).expect(0);
        assert_eq!(run.count("stored"), stored, "{provider}\n{run}");
        let asked = searches(&site);
        assert_eq!(asked.len(), requests, "{provider}: {asked:#?}");
        for item in items(&sandbox) {
            assert_eq!(item["metadata"]["provider"], provider);
            assert!(!item["url"].as_str().unwrap().contains("utm_"), "{item}");
        }
    }
    let (sandbox, site) = (Sandbox::new(), everybody());
    let mut settings = at("google", "");
    settings.push(format!(
        "--set=search.google.pages_url={}",
        site.url("/wml")
    ));
    let run = fetch(&sandbox, "search:google?q=a", &[settings], &[]).expect(0);
    assert_eq!((run.count("stored"), searches(&site).len()), (12, 4));
}

#[test]
fn an_own_instance_may_be_in_a_private_network_and_what_it_finds_may_not() {
    let (sandbox, site) = (Sandbox::new(), everybody());
    let settings = at("searxng", &site.url("/searxng/"));
    // Without `--allow-private`, unlike everywhere else here.
    let fetch = |more: &[&str]| {
        let mut args = vec![
            "fetch",
            "search:searxng?q=a",
            "-o",
            "out",
            "--proxy",
            "direct",
            "--json",
        ];
        args.extend(settings.iter().map(String::as_str));
        args.extend(more);
        sandbox.run(args)
    };
    fetch(&[])
        .expect(1)
        .says(&["`searxng` is out of reach (`127.0.0.1` is denied"]);
    assert_eq!(site.total(), 0);
    let run = fetch(&["--set", "search.private_networks=true"]).expect(3);
    assert_eq!(searches(&site).len(), 4);
    assert_eq!(run.json()["reasons"]["denied-address"], 12, "{run}");
    assert_eq!(site.total(), 4);
}

#[test]
fn filters_and_queries_are_on_the_wire() {
    let (sandbox, site) = (Sandbox::new(), everybody());
    let settings = [
        at("openverse", &site.url("/openverse")),
        at("bing", &site.url("/bing")),
    ];
    let search = "search:openverse,bing?q=red+panda&q=ailurus&size=large&type=photo&safe=on";
    fetch(&sandbox, search, &settings, &[]).expect(0);
    let mut queries = BTreeSet::new();
    for asked in searches(&site) {
        let sent = parameters(&asked);
        match asked.path.starts_with("/openverse") {
            true => {
                assert_eq!(
                    (&*sent["size"], &*sent["category"]),
                    ("large", "photograph")
                );
                assert_eq!(sent["mature"], "false");
                queries.insert(sent["q"].clone());
            }
            false => {
                assert_eq!(sent["adlt"], "strict");
                assert_eq!(
                    sent["qft"],
                    "+filterui:imagesize-large+filterui:photo-photo"
                );
            }
        }
        assert_eq!(asked.header("user-agent"), Some("gannet/0.1"));
    }
    assert_eq!(queries, ["ailurus", "red panda"].map(str::to_owned).into());
    let providers: BTreeSet<_> = items(&sandbox)
        .iter()
        .map(|item| item["metadata"]["provider"].to_string())
        .collect();
    assert_eq!(providers.len(), 2);
}

#[test]
fn what_cannot_be_searched_for_is_refused_before_anything_runs() {
    let sandbox = Sandbox::new();
    for (search, says) in [
        (
            "search:flickr?q=a",
            "there is no provider `flickr`, only `openverse`",
        ),
        ("search:openverse", "write `search:openverse?q=red panda`"),
        (
            "search:openverse?q=a&colour=red",
            "`openverse` has no filter `colour`; it has `size`",
        ),
        (
            "search:openverse?q=a&size=huge",
            "it has `small`, `medium`, `large`",
        ),
        (
            "search:openverse,brave?q=a",
            "`brave` needs a key: set `search.brave.key`",
        ),
        ("search:searxng?q=a", "set `search.searxng.url`"),
    ] {
        sandbox.fetch(&[search]).expect(1).says(&[says]);
        sandbox
            .fetch(&[search, "--dry-run"])
            .expect(1)
            .says(&[says]);
    }
    for (provider, set) in [
        ("wikimedia", "key=S3CRET"),
        ("bing", "engine=cx"),
        ("openverse", "pages_url=http://127.0.0.77:1/"),
        ("searxng", "page_size=7"),
    ] {
        let name = set.split('=').next().unwrap();
        let set = format!("--set=search.{provider}.{set}");
        let run = sandbox.fetch(&[&format!("search:{provider}?q=a"), &set]);
        let run = run.expect(1).says(&[&format!(
            "`{provider}` has no `{name}`: remove `search.{provider}.{name}`"
        )]);
        assert!(!run.stderr.contains("S3CRET"), "{run}");
    }
    sandbox
        .fetch(&["search:openverse?q=a", "--list-format", "csv"])
        .expect(1)
        .says(&["has no format `csv`"]);
    assert!(!sandbox.store().exists());
    // The sections themselves.
    for (set, says) in [
        ("search.flickr.key=a", "`search.flickr`: unknown key"),
        (
            "search.openverse.kye=a",
            "did you mean `search.openverse.key`?",
        ),
        (
            "search.openverse.url=openverse.org",
            "such as \"https://search.example.org/\"",
        ),
        (
            "search.searxng.url=http://ann:S3CRET@example.org",
            "`[hosts]` takes user and password",
        ),
        (
            "search.openverse.page_size=0",
            "`search.openverse.page_size`",
        ),
        ("search.brave.per_minute=-1", "`search.brave.per_minute`"),
    ] {
        let run = sandbox.run(["check", "--set", set]).expect(1).says(&[says]);
        assert!(!run.stderr.contains("S3CRET"), "{run}");
    }
}

#[test]
fn check_says_what_is_wrong_with_the_search_of_a_schedule() {
    let sandbox = Sandbox::new();
    let schedule = |source: &str| {
        let text =
            format!("[[schedule]]\nname = \"s\"\ncron = \"@daily\"\nsource = \"{source}\"\n");
        sandbox.write("gannet.toml", text);
        sandbox.run(["check"])
    };
    schedule("search:openverse?q=red panda").expect(0);
    schedule("search:brave?q=a")
        .expect(1)
        .says(&["`s`", "`brave` needs a key"]);
    schedule("search:bing?q=a&licence=cc0")
        .expect(1)
        .says(&["`bing` has no `licence=cc0`"]);
}

#[test]
fn a_dry_run_tells_what_would_be_fetched() {
    let (sandbox, site) = (Sandbox::new(), openverse(45));
    let settings = [at("openverse", &site.url("/"))];
    let run = fetch(&sandbox, "search:openverse?q=a", &settings, &["--dry-run"]).expect(0);
    assert_eq!(run.json()["would"]["fetch"], 45);
    assert_eq!(site.total(), 3);
    assert!(!sandbox.store().exists());
    // As far as it is wanted, and perhaps a page ahead.
    site.forget();
    let dry = ["--dry-run", "-n", "5"];
    let run = fetch(&sandbox, "search:openverse?q=a", &settings, &dry).expect(0);
    assert_eq!(run.json()["would"]["fetch"], 5);
    assert!(site.total() <= 2, "{run}");
}

/// Openverse whose first answers are these, and then results.
fn troubled(troubles: Vec<Answer>) -> Site {
    let troubles = Mutex::new(troubles.into_iter());
    Site::start(move |asked| {
        if let Some(picture) = picture(asked) {
            return picture;
        }
        let trouble = troubles.lock().unwrap().next();
        trouble.unwrap_or_else(|| {
            let results: Vec<_> = (0..5).map(|n| json!({"url": image(asked, n)})).collect();
            Answer::ok(json!({"result_count": 5, "results": results}).to_string())
        })
    })
}

#[test]
fn troubles_that_pass_cost_no_result() {
    let wait = || Answer::status(429).header("Retry-After", "1");
    let outage = || Answer::status(503);
    let site = troubled(vec![outage(), wait(), outage()]);
    let sandbox = Sandbox::new();
    let begun = Instant::now();
    let settings = [at("openverse", &site.url("/"))];
    let run = fetch(&sandbox, "search:openverse?q=a", &settings, &[]).expect(0);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((run.count("stored"), searches(&site).len()), (5, 4));
}

#[test]
fn troubles_that_stay_are_told_apart_in_words() {
    let json = |status, text: &str| {
        let body = json!({ "detail": text }).to_string();
        Answer::status(status).with_body(body)
    };
    for (answer, requests, says) in [
        (
            json(429, "slow down"),
            1,
            &[
                "`openverse` allows no more requests (429: slow down)",
                "does not say when",
            ][..],
        ),
        (
            json(429, "x").header("Retry-After", "86400"),
            1,
            &["come back in 1day, at 20"],
        ),
        (
            json(401, "Invalid token."),
            1,
            &[
                "does not accept the key (401: Invalid token.)",
                "`search.openverse.key`",
            ],
        ),
        (
            json(400, "No such category"),
            1,
            &["asked for `a`, refuses the search (400: No such category)"],
        ),
        (json(500, "oops"), 4, &["is out of reach (500: oops)"]),
        (
            Answer::ok("<html>Hello</html>"),
            1,
            &["answers in a form that is not known (its answer is no JSON"],
        ),
        (
            Answer::ok("{\"results\": [1, 2]}"),
            1,
            &["none of 2 results could be read"],
        ),
        (
            Answer::ok(vec![b' '; 8 * 1024 * 1024 + 1]),
            1,
            &["is out of reach (its answer has more than 8388608 bytes)"],
        ),
        (
            Answer::status(302).header("Location", "http://localhost/x"),
            1,
            &["redirects are not followed"],
        ),
    ] {
        let site = troubled(vec![answer; 10]);
        let sandbox = Sandbox::new();
        let settings = [at("openverse", &site.url("/"))];
        let run = fetch(&sandbox, "search:openverse?q=a", &settings, &[]);
        let run = run
            .expect(1)
            .says(&["nothing came of the search `search:openverse?q=a`"])
            .says(says);
        assert_eq!(site.total(), requests, "{run}");
    }
    // Pages that are made for people.
    for (path, page, says) in [
        (
            "/bing",
            "<html><body><div id=b_captcha>Prove it</div></body></html>",
            "its page speaks of `captcha`",
        ),
        (
            "/bing",
            "<html><body>Welcome</body></html>",
            "answers in a form that is not known",
        ),
    ] {
        let site = Site::start(move |_| Answer::ok(page));
        let settings = [at("bing", &site.url(path))];
        let run = fetch(&Sandbox::new(), "search:bing?q=a", &settings, &[]);
        run.expect(1).says(&["`bing`", says]);
    }
    // And a machine that is not there.
    let settings = [at("bing", NOBODY)];
    let run = fetch(&Sandbox::new(), "search:bing?q=a", &settings, &[]);
    run.expect(1)
        .says(&["`bing` is out of reach (cannot connect to `127.0.0.77`"]);
}

#[test]
fn one_that_fails_beside_one_that_works_costs_nothing_but_its_own() {
    let (sandbox, site) = (Sandbox::new(), everybody());
    let dead = Site::start(|_| Answer::status(401));
    let settings = [
        at("openverse", &dead.url("/")),
        at("bing", &site.url("/bing")),
    ];
    let run = fetch(&sandbox, "search:openverse,bing?q=a", &settings, &[]).expect(0);
    assert_eq!(run.count("stored"), 12);
    run.says(&["`openverse` does not accept the key"]);
    assert_eq!(dead.total(), 1);
}

#[test]
fn nothing_found_is_no_fault() {
    let (sandbox, site) = (Sandbox::new(), openverse(0));
    let settings = [at("openverse", &site.url("/"))];
    let run = fetch(&sandbox, "search:openverse?q=a", &settings, &[]).expect(0);
    assert_eq!(run.count("targets"), 0);
}

#[test]
fn requests_are_as_far_apart_as_the_settings_say() {
    let stamps = std::sync::Arc::new(Mutex::new(Vec::new()));
    let site = {
        let stamps = stamps.clone();
        Site::start(move |asked| {
            if let Some(picture) = picture(asked) {
                return picture;
            }
            stamps.lock().unwrap().push(Instant::now());
            let page = parameters(asked)["page"].parse::<u64>().unwrap();
            let results = json!([{"url": image(asked, page)}]);
            Answer::ok(json!({"page_count": 5, "results": results}).to_string())
        })
    };
    let mut settings = at("openverse", &site.url("/"));
    settings[1] = "--set=search.openverse.per_minute=120".to_owned();
    fetch(&Sandbox::new(), "search:openverse?q=a", &[settings], &[]).expect(0);
    let stamps = stamps.lock().unwrap();
    assert_eq!(stamps.len(), 5);
    // Half a second each; any of them may have been late.
    assert!(stamps[4] - stamps[0] > Duration::from_secs(1), "{stamps:?}");
}

#[test]
fn keys_are_sent_and_shown_nowhere() {
    let (sandbox, site) = (Sandbox::new(), everybody());
    let settings = [
        at("openverse", &site.url("/openverse")),
        at("google", &site.url("/customsearch")),
        at("brave", &site.url("/brave")),
    ]
    .concat();
    let config = "[search.google]\nengine = \"cx\"\nkey = \"S3CRET+google/\"\n[search.brave]\nkey = \"S3CRET-brave\"\n";
    sandbox.write("gannet.toml", config);
    let search = "search:openverse,google,brave?q=a";
    let mut args = sandbox.fetch_args(&[
        search,
        "-vv",
        "--set",
        "log.level=trace",
        "--report",
        "r.json",
        "--report",
        "r.html",
    ]);
    args.extend(settings.iter().map(String::as_str));
    let variables = [("GANNET_SEARCH__OPENVERSE__KEY", "S3CRET-openverse")];
    let run = sandbox.run_with(&variables, &args).expect(0);
    assert_eq!(run.count("stored"), 12 + 12 + 4);
    for asked in searches(&site) {
        match asked.path.split('?').next().unwrap() {
            "/openverse" => assert_eq!(
                asked.header("authorization"),
                Some("Bearer S3CRET-openverse")
            ),
            "/customsearch" => assert_eq!(parameters(&asked)["key"], "S3CRET+google/"),
            _ => assert_eq!(asked.header("x-subscription-token"), Some("S3CRET-brave")),
        }
    }
    let images = site
        .asked()
        .into_iter()
        .filter(|asked| asked.path.starts_with("/img/"));
    assert!(
        images
            .into_iter()
            .all(|asked| !format!("{asked:?}").contains("S3CRET"))
    );
    // Neither when all goes wrong.
    let mut failing = sandbox.fetch_args(&[
        search,
        "-vv",
        "--set",
        "log.level=trace",
        "--set",
        "fetch.retries=1",
    ]);
    let dead = [("openverse", "u"), ("google", "v"), ("brave", "w")]
        .map(|(name, path)| format!("--set=search.{name}.url={NOBODY}{path}"));
    failing.extend(dead.iter().map(String::as_str));
    let failed = sandbox.run_with(&variables, &failing).expect(1);
    let check = sandbox.run_with(&variables, &["check"]).expect(0);
    assert!(check.out().contains("key = \"***\""), "{check}");
    for run in [&run, &failed, &check] {
        assert!(!run.to_string().contains("S3CRET"), "{run}");
    }
    for path in walk(&sandbox.path("")) {
        if path.ends_with("gannet.toml") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let holds = bytes.windows(6).any(|window| window == b"S3CRET");
        assert!(!holds, "{}", path.display());
    }
}

#[test]
fn no_message_names_the_key_in_a_request_that_is_not_answered() {
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let mut own = at("google", &format!("{address}/api"));
    own.extend([
        "--set=search.google.key=S3CRET+google/".to_owned(),
        "--set=search.google.engine=cx".to_owned(),
        "--set=fetch.retries=1".to_owned(),
        "--set=fetch.idle_timeout=200ms".to_owned(),
        "--set=log.level=trace".to_owned(),
    ]);
    let proxy = format!("--proxy={address}");
    for (proxies, says) in [
        (vec![], "did not answer within 200ms"),
        (
            vec![proxy.clone(), proxy.replace("//", "//ann:x@")],
            "another proxy is asked",
        ),
    ] {
        let sandbox = Sandbox::new();
        let mut args = sandbox.fetch_args(&["search:google?q=a", "-vv", "--report", "r.json"]);
        if !proxies.is_empty() {
            args.retain(|arg| !matches!(*arg, "--proxy" | "direct"));
        }
        args.extend(own.iter().chain(&proxies).map(String::as_str));
        let run = sandbox.run(&args).expect(1).says(&[says]);
        assert!(!run.to_string().contains("S3CRET"), "{run}");
        for path in walk(&sandbox.path("")) {
            let bytes = fs::read(&path).unwrap();
            let holds = bytes.windows(6).any(|window| window == b"S3CRET");
            assert!(!holds, "{}", path.display());
        }
    }
}

/// Settings of a daemon that knows this Openverse.
fn daemon_settings(sandbox: &Sandbox, site: &Site, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n[fetch]\nproxy = \"direct\"\nprivate_networks = true\n\
         [api]\nlisten = \"127.0.0.1:0\"\nprivate_networks = true\n\
         [search.openverse]\nurl = \"{}\"\nper_minute = 0\nper_day = 0\n{rest}\n",
        site.url("/v1/images/")
    );
    sandbox.write("gannet.toml", text);
}

#[test]
fn a_posted_search_brings_what_it_finds_and_all_that_is_known_of_it() {
    let (sandbox, site) = (Sandbox::new(), openverse(25));
    daemon_settings(&sandbox, &site, "");
    let daemon = Daemon::start(&sandbox);
    let post = |job: Value| {
        let headers = [("Content-Type", "application/json")];
        let body = job.to_string();
        send(
            daemon.api(),
            "POST",
            "/api/v1/jobs",
            &headers,
            Some(body.as_bytes()),
        )
    };
    for (source, says) in [
        ("search:flickr?q=a", "there is no provider `flickr`"),
        ("search:brave?q=a", "`brave` needs a key"),
        (
            "search:openverse?q=a&size=huge",
            "it has `small`, `medium`, `large`",
        ),
    ] {
        let got = post(json!({ "source": source }));
        assert!((400..500).contains(&got.status), "{got}");
        let text = got.json().to_string();
        assert!(text.contains(says) && text.contains("source[0]"), "{text}");
    }
    let got =
        post(json!({"source": "search:openverse?q=red+panda", "album": "pandas"})).expect(202);
    let location = got.header("location").unwrap().to_owned();
    let job = until("the job ends", || {
        let job = daemon.get(&location).expect(200).json();
        match job["finished"].is_string() {
            true => Ok(job),
            false => Err(job.to_string()),
        }
    });
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["counts"]["stored"], 25, "{job}");
    let images = daemon
        .get("/api/v1/albums/pandas/images?meta.title=Panda%207")
        .expect(200)
        .json();
    let text = images.to_string();
    for part in [
        "\"creator\":\"Ann\"",
        "\"licence\":\"CC BY-SA 2.0\"",
        "\"query\":\"red panda\"",
        "\"rank\":8",
    ] {
        assert!(text.contains(part), "{text}");
    }
    daemon.stop().expect(0);
}

#[test]
fn a_schedule_searches_for_what_is_new() {
    let (sandbox, site) = (Sandbox::new(), openverse(25));
    let schedule = "[[schedule]]\nname = \"pandas\"\ncron = \"@yearly\"\nsource = \"search:openverse?q=red panda\"\n";
    daemon_settings(&sandbox, &site, schedule);
    let run = || sandbox.run(["daemon", "--once", "pandas"]).expect(0);
    run();
    assert_eq!(sandbox.names().len(), 25);
    run();
    assert_eq!(sandbox.names().len(), 25);
    assert_eq!(searches(&site).len(), 4);
}
