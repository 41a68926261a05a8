//! How providers are asked, and what comes of several: with a network that the tests make up, on a clock that they move.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::tests::section;
use super::*;
use crate::source::{Entry, Notice, NoticeKind};

type Reply = Result<(u16, Option<&'static str>, Value), AskFailure>;

type Replies = dyn Fn(&str, &HashMap<String, String>, usize) -> Option<Reply> + Send + Sync;

/// Answers as a test says, and remembers when it was asked what.
struct Fake {
    asked: Mutex<Vec<(Instant, Url)>>,
    reply: Box<Replies>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    /// `reply` gets the host, the parameters, and how many requests came before; for `None` no answer ever comes.
    fn new(
        reply: impl Fn(&str, &HashMap<String, String>, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            reply: Box::new(reply),
        })
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// When it was asked, in seconds after the first time.
    fn seconds(&self) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        let first = asked[0].0;
        asked
            .iter()
            .map(|(at, _)| (*at - first).as_secs())
            .collect()
    }
}

#[async_trait]
impl Ask for Fake {
    async fn ask(&self, request: &PageRequest) -> Result<Answer, AskFailure> {
        let url = request.url().clone();
        let parameters = url.query_pairs().into_owned().collect();
        let before = {
            let mut asked = self.asked.lock().unwrap();
            asked.push((Instant::now(), url.clone()));
            asked.len() - 1
        };
        let host = url.host_str().unwrap().to_owned();
        let Some(reply) = (self.reply)(&host, &parameters, before) else {
            return std::future::pending().await;
        };
        let (status, retry_after, body) = reply?;
        let mut headers = HeaderMap::new();
        if let Some(retry_after) = retry_after {
            headers.insert("retry-after", HeaderValue::from_static(retry_after));
        }
        Ok(Answer {
            status,
            headers,
            url,
            body: body.to_string().into(),
        })
    }
}

/// A search by the built-in settings without limits of rate, and these over them.
fn search(fake: &Arc<Fake>, sets: &[(&str, &str)]) -> Arc<Search> {
    let free = [
        ("search.openverse.per_minute", "0"),
        ("search.openverse.per_day", "0"),
        ("search.wikimedia.per_minute", "0"),
        ("search.searxng.per_minute", "0"),
        ("search.searxng.url", "https://searxng.example.test/"),
    ];
    let all = [&free, sets].concat();
    let (settings, fetch) = (section("search", &all), section("fetch", &all));
    Arc::new(Search::new(&settings, &fetch, fake.clone()))
}

fn source(search: &Arc<Search>, text: &str) -> SearchSource {
    SearchSource::new(SearchSpec::parse(text).unwrap(), search).unwrap()
}

/// A page as Openverse has it, of images with these numbers.
fn openverse(numbers: std::ops::Range<u64>, total: u64) -> Reply {
    let results: Vec<_> = numbers
        .map(|n| json!({"url": format!("https://openverse-images.example.test/{n}")}))
        .collect();
    Ok((
        200,
        None,
        json!({"result_count": total, "results": results}),
    ))
}

/// A page as SearXNG has it.
fn searxng(numbers: std::ops::Range<u64>) -> Reply {
    let results: Vec<_> = numbers
        .map(|n| json!({"img_src": format!("https://searxng-images.example.test/{n}")}))
        .collect();
    Ok((200, None, json!({"results": results})))
}

fn status(status: u16, retry_after: Option<&'static str>) -> Reply {
    Ok((status, retry_after, json!({"detail": "because"})))
}

fn number(parameters: &HashMap<String, String>, name: &str) -> u64 {
    parameters[name].parse().unwrap()
}

/// Reads a list to its end. Returns provider, query and path of each result, and the notices.
async fn read(mut list: List) -> (Vec<String>, Vec<Notice>) {
    let mut found = Vec::new();
    while let Some(entries) = list.next_chunk().await.unwrap() {
        found.extend(entries.iter().map(shown));
    }
    (found, list.notices())
}

fn shown(entry: &Entry) -> String {
    let Entry::Target(target) = entry else {
        panic!("{entry:?}")
    };
    let metadata = target.metadata.as_ref().unwrap();
    let text = |name: &str| metadata[name].as_str().unwrap();
    format!(
        "{} {} {}",
        text("provider"),
        text("query"),
        target.url.path()
    )
}

fn texts(told: &[Notice]) -> Vec<&str> {
    told.iter().map(|told| told.text.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn results_of_providers_and_queries_take_turns() {
    let fake = Fake::new(|host, parameters, _| {
        let base = if parameters["q"] == "a" { 0 } else { 100 };
        Some(
            match (host.starts_with("searxng"), parameters["q"].as_str()) {
                (true, _) if number(parameters, "pageno") > 1 => searxng(0..0),
                (true, _) => searxng(base..base + 3),
                (false, _) => openverse(base..base + 2, 2),
            },
        )
    });
    let source = source(&search(&fake, &[]), "search:openverse,searxng?q=a&q=b");
    let (found, told) = read(source.open().await.unwrap()).await;
    assert_eq!(
        found,
        [
            "openverse a /0",
            "searxng a /0",
            "openverse b /100",
            "searxng b /100",
            "openverse a /1",
            "searxng a /1",
            "openverse b /101",
            "searxng b /101",
            "searxng a /2",
            "searxng b /102",
        ]
    );
    let mut told = texts(&told);
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "`openverse` has no more results for `a` than 2",
            "`openverse` has no more results for `b` than 2",
            "`searxng` has no more results for `a` than 3",
            "`searxng` has no more results for `b` than 3",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_holds_nobody_up() {
    let fake = Fake::new(|host, parameters, _| {
        let page = number(
            parameters,
            if host.starts_with("searxng") {
                "pageno"
            } else {
                "page"
            },
        );
        (!host.starts_with("searxng")).then(|| openverse((page - 1) * 20..page * 20, 200))
    });
    let source = source(&search(&fake, &[]), "search:searxng,openverse?q=a");
    let begun = Instant::now();
    let mut list = source.open().await.unwrap();
    let mut found = 0;
    while found < 200 {
        found += list.next_chunk().await.unwrap().unwrap().len();
    }
    assert!(begun.elapsed() <= 2 * mix::GRACE, "{:?}", begun.elapsed());
    // The other may still answer, so this is not the end.
    let waited = tokio::time::timeout(Duration::from_secs(5), list.next_chunk()).await;
    assert!(waited.is_err());
    assert_eq!(
        texts(&list.notices()),
        ["`openverse` has no more results for `a` than 200"]
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_does_not_stop_the_others() {
    for (reply, told) in [
        (
            status(401, None),
            "`openverse` does not accept the key (401: because); `search.openverse.key` has to be one that it gave you",
        ),
        (
            status(429, None),
            "`openverse` allows no more requests (429: because); it does not say when to come back",
        ),
        (
            status(400, None),
            "`openverse`, asked for `a`, refuses the search (400: because)",
        ),
        (
            Ok((200, None, json!({"results": [1]}))),
            "`openverse` answers in a form that is not known (none of 1 results could be read); please report this as a defect",
        ),
        (
            Err(AskFailure {
                text: "no such host".to_owned(),
                is_retriable: false,
            }),
            "`openverse` is out of reach (no such host)",
        ),
    ] {
        let fake = Fake::new(move |host, parameters, _| {
            Some(match host.starts_with("searxng") {
                true if number(parameters, "pageno") < 3 => {
                    let page = number(parameters, "pageno");
                    searxng((page - 1) * 30..page * 30)
                }
                true => searxng(0..0),
                false => reply.clone(),
            })
        });
        let source = source(&search(&fake, &[]), "search:openverse,searxng?q=a");
        let (found, all) = read(source.open().await.unwrap()).await;
        assert_eq!(found.len(), 60);
        let faults: Vec<_> = all
            .iter()
            .filter(|told| told.kind == NoticeKind::Incomplete)
            .collect();
        assert_eq!(faults.len(), 1, "{all:?}");
        assert_eq!(faults[0].text, told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_quoted_is_not_told() {
    let key = "S3CRET/and+more";
    let google = [
        ("search.google.key", key),
        ("search.google.engine", "cx"),
        ("fetch.retries", "0"),
    ];
    let others = [("search.openverse.key", key), ("search.brave.key", key)];
    let sets = [&google[..], &others].concat();
    for provider in ["google", "openverse", "brave"] {
        for code in [400, 401, 429, 500] {
            let fake = Fake::new(move |_, _, _| {
                let said = format!(
                    "no S3CRET/and+more, nor key=S3CRET%2Fand%2Bmore, {}S3CRET/and+more",
                    "x".repeat(140)
                );
                Some(Ok((code, None, json!({"error": {"message": said}}))))
            });
            let source = source(&search(&fake, &sets), &format!("search:{provider}?q=a"));
            let told = source.open().await.unwrap_err().to_string();
            assert!(told.contains("no ***, nor key=***, xxx"), "{told}");
            assert!(!told.contains("S3CRET"), "{told}");
        }
    }
    // One that is hardly any is left, or it would be found everywhere.
    let fake = Fake::new(|_, _, _| Some(status(401, None)));
    let source = source(
        &search(&fake, &[("search.brave.key", "e")]),
        "search:brave?q=a",
    );
    let told = source.open().await.unwrap_err().to_string();
    assert!(told.contains("(401: because)"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_query_costs_no_other_and_a_wrong_key_all() {
    for (code, requests, found_of_b) in [(400, 2, 5), (401, 1, 0)] {
        let fake = Fake::new(move |_, parameters, _| {
            Some(match parameters["q"].as_str() {
                "a" => status(code, None),
                _ => openverse(0..5, 5),
            })
        });
        let source = source(&search(&fake, &[]), "search:openverse?q=a&q=b");
        let found = match source.open().await {
            Ok(list) => read(list).await.0.len(),
            Err(_) => 0,
        };
        assert_eq!((fake.count(), found), (requests, found_of_b));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_at_all_is_an_error_only_where_all_failed() {
    let fake = Fake::new(|host, _, _| {
        Some(match host.starts_with("searxng") {
            true => status(500, None),
            false => status(401, None),
        })
    });
    let source_of = |fake, text| source(&search(fake, &[("fetch.retries", "0")]), text);
    let source = source_of(&fake, "search:openverse,searxng?q=a");
    let told = source.open().await.unwrap_err().to_string();
    assert!(
        told.starts_with("nothing came of the search `search:openverse,searxng?q=a`: `"),
        "{told}"
    );
    assert!(
        told.contains("`searxng` is out of reach (500: because)"),
        "{told}"
    );
    assert!(
        told.contains("`openverse` does not accept the key"),
        "{told}"
    );

    let fake = Fake::new(|host, _, _| {
        Some(match host.starts_with("searxng") {
            true => status(500, None),
            false => openverse(0..0, 0),
        })
    });
    let source = source_of(&fake, "search:openverse,searxng?q=a");
    let (found, told) = read(source.open().await.unwrap()).await;
    assert!(found.is_empty());
    assert!(
        texts(&told).contains(&"`openverse` has no results for `a`"),
        "{told:?}"
    );
    assert_eq!(
        told.iter()
            .filter(|told| told.kind == NoticeKind::Incomplete)
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_again_as_often_as_any_target() {
    for (failures, retries, found) in [(2, "3", 5), (3, "3", 5), (4, "3", 0), (1, "0", 0)] {
        let fake = Fake::new(move |_, _, before| {
            Some(match before < failures {
                true if before % 2 == 0 => status(503, None),
                true => Err(AskFailure {
                    text: "reset".to_owned(),
                    is_retriable: true,
                }),
                false => openverse(0..5, 5),
            })
        });
        let search = search(&fake, &[("fetch.retries", retries)]);
        let got = match source(&search, "search:openverse?q=a").open().await {
            Ok(list) => read(list).await.0.len(),
            Err(_) => 0,
        };
        assert_eq!(got, found, "{failures} failures, {retries} retries");
        let tries: usize = retries.parse().unwrap();
        assert_eq!(fake.count(), (failures + 1).min(tries + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_retry_after_is_waited_for_and_a_long_one_told() {
    let fake = Fake::new(|_, _, before| {
        Some(match before {
            0 => status(429, Some("120")),
            _ => openverse(0..5, 5),
        })
    });
    let source_of = |fake: &Arc<Fake>| source(&search(fake, &[]), "search:openverse?q=a");
    let (found, _) = read(source_of(&fake).open().await.unwrap()).await;
    assert_eq!((found.len(), fake.seconds()), (5, vec![0, 120]));

    let fake = Fake::new(|_, _, _| Some(status(429, Some("7200"))));
    let source = source_of(&fake);
    let told = source.open().await.unwrap_err().to_string();
    assert!(
        told.contains("`openverse` allows no more requests (429: because); come back in 2h, at 20"),
        "{told}"
    );
    // The next job does not even ask before then.
    let told = source.open().await.unwrap_err().to_string();
    assert!(
        told.contains("`openverse` allows no more requests (it said so before); come back in"),
        "{told}"
    );
    assert_eq!(fake.count(), 1);
    tokio::time::advance(Duration::from_secs(7200)).await;
    source.open().await.unwrap_err();
    assert_eq!(fake.count(), 2);

    // One that always names a moment is not asked for ever.
    let fake = Fake::new(|_, _, _| Some(status(429, Some("1"))));
    let all = search(&fake, &[("fetch.backoff", "0s")]);
    let openverse = |all: &Arc<Search>| self::source(all, "search:openverse?q=a");
    openverse(&all).open().await.unwrap_err();
    assert_eq!(fake.seconds(), [0, 1, 2, 3]);
    // A time in the past does not mean an immediate retry either.
    for passed in ["0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        for code in [429, 503] {
            let fake = Fake::new(move |_, _, _| Some(status(code, Some(passed))));
            let all = search(
                &fake,
                &[("fetch.backoff", "50s"), ("fetch.backoff_max", "50s")],
            );
            let begun = Instant::now();
            openverse(&all).open().await.unwrap_err();
            assert_eq!(fake.count(), 4);
            assert!(
                begun.elapsed() > Duration::from_millis(100),
                "{code} {passed}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_left_alone_for_as_long_as_it_says() {
    let fake = Fake::new(|_, _, before| {
        Some(match before {
            0 => status(503, Some("120")),
            _ => openverse(0..5, 5),
        })
    });
    let all = search(&fake, &[]);
    let (one, two) = (
        source(&all, "search:openverse?q=a"),
        source(&all, "search:openverse?q=b"),
    );
    let (one, two) = tokio::join!(one.open(), two.open());
    let (one, two) = tokio::join!(read(one.unwrap()), read(two.unwrap()));
    assert_eq!((one.0.len(), two.0.len()), (5, 5));
    assert_eq!(fake.seconds(), [0, 120, 120]);

    let fake = Fake::new(|_, _, _| Some(status(503, Some("7200"))));
    let source = source(&search(&fake, &[]), "search:openverse?q=a");
    let told = source.open().await.unwrap_err().to_string();
    assert!(
        told.contains("`openverse` is out of reach (503: because); come back in 2h, at 20"),
        "{told}"
    );
    assert_eq!(fake.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_attempts_of_another() {
    let fake = Fake::new(|_, parameters, _| {
        Some(match parameters["q"].as_str() {
            "a" => status(500, None),
            _ => openverse(0..5, 5),
        })
    });
    let all = search(
        &fake,
        &[("fetch.backoff", "1h"), ("fetch.backoff_max", "1h")],
    );
    let (one, two) = (
        source(&all, "search:openverse?q=a"),
        source(&all, "search:openverse?q=b"),
    );
    let (one, two) = tokio::join!(one.open(), two.open());
    one.unwrap_err();
    two.unwrap();
    let asked = fake.asked.lock().unwrap();
    let queries: Vec<_> = asked.iter().map(|(_, url)| url.query().unwrap()).collect();
    assert_eq!(queries.len(), 5, "{queries:?}");
    assert!(queries[1].contains("q=b"), "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn limits_hold_over_jobs_and_new_settings() {
    let fake = Fake::new(|_, parameters, _| {
        let page = number(parameters, "page");
        Some(openverse((page - 1) * 20..page * 20, 60))
    });
    let sets = [
        ("search.openverse.per_minute", "20"),
        ("search.openverse.per_day", "7"),
    ];
    let first = search(&fake, &sets);
    let again = search(&fake, &sets);
    let second = Arc::new(first.with_settings(&again.settings, &again.fetch, again.ask.clone()));
    let (one, two) = (
        source(&first, "search:openverse?q=a"),
        source(&second, "search:openverse?q=b"),
    );
    let (one, two) = tokio::join!(one.open(), two.open());
    let (one, two) = tokio::join!(read(one.unwrap()), read(two.unwrap()));
    assert_eq!((one.0.len(), two.0.len()), (60, 60));
    assert_eq!(fake.seconds(), [0, 3, 6, 9, 12, 15]);
    // One is left for today.
    let third = source(&second, "search:openverse?q=c");
    let (found, told) = read(third.open().await.unwrap()).await;
    assert_eq!(found.len(), 20);
    assert!(
        told[0].kind == NoticeKind::Incomplete
            && told[0]
                .text
                .contains("(`per_day` is used up); come back in 23h 59m"),
        "{told:?}"
    );
    assert_eq!(fake.count(), 7);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_that_nobody_wants() {
    let fake = Fake::new(|_, parameters, _| {
        let page = number(parameters, "page");
        Some(openverse((page - 1) * 20..page * 20, 100_000))
    });
    let source = source(&search(&fake, &[]), "search:openverse?q=a");
    let mut list = source.open().await.unwrap();
    let hour = Duration::from_secs(3600);
    // What fits into a chunk, and no more until that is taken.
    tokio::time::sleep(hour).await;
    let asked = fake.count();
    assert!(asked <= 3, "{asked}");
    for _ in 0..10 {
        list.next_chunk().await.unwrap().unwrap();
    }
    tokio::time::sleep(hour).await;
    let asked = fake.count();
    assert!(asked <= 3 * 12, "{asked}");
    drop(list);
    tokio::time::sleep(hour).await;
    assert_eq!(fake.count(), asked);
    drop(source);
    assert_eq!(Arc::strong_count(&fake), 1, "a task is left");
}

#[tokio::test(start_paused = true)]
async fn many_queries_are_asked_as_their_results_are_wanted() {
    let fake = Fake::new(|_, parameters, _| {
        let base = number(parameters, "q") * 1000;
        Some(openverse(base..base + 20, 40))
    });
    let queries: Vec<_> = (0..40).map(|query| format!("q={query}")).collect();
    let text = format!("search:openverse?{}", queries.join("&"));
    let source = source(&search(&fake, &[]), &text);
    let mut list = source.open().await.unwrap();
    let hour = Duration::from_secs(3600);
    for taken in 1..=5 {
        tokio::time::sleep(hour).await;
        // Beside what was taken, one that waits to be.
        assert_eq!(fake.count(), taken);
        let entries = list.next_chunk().await.unwrap().unwrap();
        let found: Vec<_> = entries.iter().map(shown).collect();
        let query = taken - 1;
        assert_eq!(found, [format!("openverse {query} /{}", query * 1000)]);
    }
    drop(list);
    // None is lost over that.
    let (found, _) = read(source.open().await.unwrap()).await;
    assert_eq!(found.len(), 40 * 20);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_provider_and_says_so() {
    for others in ["", ",searxng"] {
        let fake = Fake::new(|host, parameters, _| {
            Some(match host.starts_with("searxng") {
                true if number(parameters, "pageno") == 1 => searxng(0..30),
                true => searxng(0..0),
                false => panic!("as a test wants it"),
            })
        });
        let source = source(
            &search(&fake, &[]),
            &format!("search:openverse{others}?q=a&q=b"),
        );
        let hour = Duration::from_secs(3600);
        let opened = tokio::time::timeout(hour, source.open()).await.unwrap();
        let told = match opened {
            Ok(list) => {
                let (found, told) = tokio::time::timeout(hour, read(list)).await.unwrap();
                assert_eq!(found.len(), 30);
                let faults = told
                    .iter()
                    .filter(|told| told.kind == NoticeKind::Incomplete);
                faults.map(|told| told.text.clone()).collect::<String>()
            }
            Err(error) => error.to_string(),
        };
        assert!(
            told.contains("`openverse` answers in a form that is not known (asking it failed: "),
            "{told}"
        );
        let asked = fake.asked.lock().unwrap();
        let asked = asked
            .iter()
            .filter(|(_, url)| url.host_str().unwrap().contains("openverse"));
        assert_eq!(asked.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_is_left_out_and_a_page_of_nothing_else_is_the_end() {
    let fake = Fake::new(|host, parameters, _| {
        Some(match host.starts_with("searxng") {
            // Always the same page.
            true => Ok((
                200,
                None,
                json!({"results": [{"img_src": "https://openverse-images.example.test/1"},
                                   {"img_src": "https://searxng-images.example.test/9"}]}),
            )),
            false => openverse(0..3, number(parameters, "page")),
        })
    });
    let source = source(&search(&fake, &[]), "search:openverse,searxng?q=a");
    let (mut found, told) = read(source.open().await.unwrap()).await;
    found.sort_unstable();
    // Whoever came first has it.
    let paths: Vec<_> = found
        .iter()
        .map(|found| found.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(paths.len(), 4, "{found:?}");
    assert!(
        texts(&told).contains(&"`searxng` only repeats itself after 2 results for `a`"),
        "{told:?}"
    );
    assert!(told.iter().all(|told| told.kind == NoticeKind::Exhausted));
}

#[test]
fn a_source_is_its_search_and_shows_no_key() {
    let fake = Fake::new(|_, _, _| None);
    let sets = [
        ("search.openverse.key", "SECRET"),
        ("search.brave.key", "SECRET"),
    ];
    let search = search(&fake, &sets);
    let source = source(&search, "search:Openverse,brave?q=red+panda&safe=on");
    assert_eq!(
        source.to_string(),
        "search:openverse,brave?q=red panda&safe=on"
    );
    assert_eq!(source.identity(), Some(source.to_string()));
    assert!(source.is_search());
    assert!(!format!("{source:?}").contains("SECRET"));
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_is() {
    let fake = Fake::new(|_, _, _| None);
    let search = search(&fake, &[("search.openverse.key", "a\nb")]);
    let wrong = |text: &str| {
        let made = SearchSource::new(SearchSpec::parse(text).unwrap(), &search);
        made.unwrap_err().to_string()
    };
    for (text, says) in [
        (
            "search:brave?q=a",
            "`search:brave?q=a` names no list: `brave` needs a key",
        ),
        (
            "search:wikimedia?q=a&safe=on",
            "`wikimedia` has no filter `safe`; it has `size`, `type`, `licence`",
        ),
        (
            "search:wikimedia,openverse?q=a",
            "`openverse` does not accept the key (it cannot stand in a header)",
        ),
    ] {
        let told = wrong(text);
        assert!(told.contains(says), "{told}");
    }
    assert_eq!(fake.count(), 0);
}
