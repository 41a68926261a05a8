//! What providers ask and read, without a network.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use serde::de::DeserializeOwned;

use super::*;

/// A section of the built-in settings, with these values over them.
pub(super) fn section<T: DeserializeOwned>(name: &str, sets: &[(&str, &str)]) -> T {
    let defaults = include_str!("../../../config/default.toml");
    let mut file: toml::Table = defaults.parse().unwrap();
    for (key, value) in sets {
        let mut path = key.split('.').peekable();
        let mut table = &mut file;
        while let Some(part) = path.next() {
            if path.peek().is_some() {
                table = table[part].as_table_mut().unwrap();
            } else {
                let number = value.parse().map(toml::Value::Integer);
                let value = number.unwrap_or_else(|_| toml::Value::String((*value).to_owned()));
                table.insert(part.to_owned(), value);
            }
        }
    }
    file[name].clone().try_into().unwrap()
}

/// The built-in settings with every provider usable, and these values over them.
fn settings(sets: &[(&str, &str)]) -> Settings {
    let base = [
        ("search.brave.key", "BRAVE-KEY"),
        ("search.searxng.url", "https://searx.example.test/"),
    ];
    section("search", &[&base, sets].concat())
}

fn make(name: &str, sets: &[(&str, &str)]) -> Arc<dyn SearchProvider> {
    provider(name, &settings(sets)).unwrap()
}

/// Every provider, Google in both ways.
fn all() -> Vec<Arc<dyn SearchProvider>> {
    let mut all: Vec<_> = PROVIDERS.iter().map(|name| make(name, &[])).collect();
    all.push(make("google", GOOGLE));
    all
}

const GOOGLE: &[(&str, &str)] = &[
    ("search.google.key", "GOOGLE-KEY"),
    ("search.google.engine", "cx-1"),
];

fn query(text: &str) -> Query {
    let spec = SearchSpec::parse(&format!("search:openverse?{text}")).unwrap();
    spec.queries()[0].clone()
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/search/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let headers = headers.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).unwrap();
        (HeaderName::from_static(name), value)
    });
    Answer {
        status,
        headers: headers.collect::<HeaderMap>(),
        url: "https://api.example.test/".parse().unwrap(),
        body: body.into().into(),
    }
}

fn read(provider: &dyn SearchProvider, body: impl Into<Vec<u8>>) -> Result<Page, SearchError> {
    read_page(
        provider,
        &query("q=red panda"),
        None,
        &answer(200, &[], body),
    )
}

fn parameters(request: &PageRequest) -> BTreeMap<String, String> {
    request.url().query_pairs().into_owned().collect()
}

fn found(url: &str) -> Found {
    Found::new(url).unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn openverse_is_read() {
    let page = read(&*make("openverse", &[]), fixture("openverse.json")).unwrap();
    let first = Found {
        page: some("https://photos.example.test/1"),
        thumbnail: some("https://api.example.test/v1/images/1/thumb/"),
        title: some("A  red\npanda"),
        width: Some(4000),
        height: Some(2999),
        bytes: Some(123_456),
        media_type: some("image/jpeg"),
        licence: some("CC BY-SA 4.0"),
        licence_url: some("https://licences.example.test/by-sa/4.0/"),
        creator: some("Ann Example"),
        ..found("https://images.example.test/1.jpg")
    };
    let second = Found {
        licence: some("CC0 1.0"),
        ..found("https://images.example.test/2.jpg")
    };
    assert_eq!(page.results, [first, second]);
    assert_eq!((page.broken, page.next), (2, Some(Cursor::At(2))));
}

#[test]
fn openverse_ends_where_it_says_so() {
    let openverse = make("openverse", &[]);
    let item = r#"{"url": "https://images.example.test/1.jpg"}"#;
    let next = |totals: &str, cursor: u64| {
        let body = format!(r#"{{{totals} "results": [{item}]}}"#);
        let cursor = Cursor::At(cursor);
        let page = read_page(
            &*openverse,
            &query("q=a"),
            Some(&cursor),
            &answer(200, &[], body),
        );
        page.unwrap().next
    };
    assert_eq!(next(r#""result_count": 41,"#, 2), Some(Cursor::At(3)));
    assert_eq!(next(r#""result_count": 40,"#, 2), None);
    assert_eq!(
        next(r#""page_count": 12, "result_count": 10000,"#, 12),
        None
    );
    assert_eq!(next("", 7), Some(Cursor::At(8)));
    // A page that is too far is the end, a first page that is not there is none.
    let missing = answer(404, &[], r#"{"detail": "Invalid page."}"#);
    let page = |cursor: Option<&Cursor>| read_page(&*openverse, &query("q=a"), cursor, &missing);
    assert_eq!(page(Some(&Cursor::At(13))), Ok(Page::default()));
    assert!(matches!(page(None), Err(SearchError::Refused { .. })));
}

#[test]
fn wikimedia_is_read_in_its_order_without_campaigns_and_html() {
    let page = read(&*make("wikimedia", &[]), fixture("wikimedia.json")).unwrap();
    let first = Found {
        page: some("https://commons.example.test/wiki/File:First.jpeg"),
        thumbnail: some("https://thumb.example.test/330px-First.jpeg"),
        title: some("First & best"),
        width: Some(1600),
        height: Some(1200),
        bytes: Some(372_133),
        media_type: some("image/jpeg"),
        licence: some("CC BY-SA 3.0"),
        licence_url: some("https://licences.example.test/by-sa/3.0"),
        creator: some("Ann  <A>"),
        ..found("https://upload.example.test/a/First.jpeg")
    };
    assert_eq!(page.results[0], first);
    assert_eq!(
        page.results[1].url.as_str(),
        "https://upload.example.test/b/Second.png?keep=1"
    );
    assert_eq!(page.results[1].title.as_deref(), Some("Second.png"));
    assert_eq!((page.results.len(), page.broken), (2, 1));
    assert_eq!(page.next, Some(Cursor::At(50)));
    // Version 1 of the format has the pages by their numbers.
    let other = r#"{"query": {"pages": {"9": {"index": 2, "imageinfo": [{"url": "https://a.example.test/2"}]},
        "8": {"index": 1, "imageinfo": [{"url": "https://a.example.test/1"}]}}}}"#;
    let page = read(&*make("wikimedia", &[]), other).unwrap();
    let urls: Vec<_> = page.results.iter().map(|found| found.url.path()).collect();
    assert_eq!(urls, ["/1", "/2"]);
    assert_eq!(
        read(&*make("wikimedia", &[]), r#"{"batchcomplete": true}"#),
        Ok(Page::default())
    );
}

#[test]
fn google_is_read_through_its_api() {
    let google = make("google", GOOGLE);
    let page = read(&*google, fixture("google_api.json")).unwrap();
    let first = Found {
        page: some("https://www.example.test/dogs"),
        thumbnail: some("https://thumbs.example.test/images?q=tbn:1"),
        title: some("Which are smarter?"),
        width: Some(1024),
        height: Some(681),
        bytes: Some(131_542),
        media_type: some("image/jpeg"),
        ..found("https://images.example.test/dogs.jpeg?w=618&crop=1")
    };
    assert_eq!((page.results, page.broken), (vec![first], 1));
    assert_eq!(page.next, Some(Cursor::At(11)));
    let none = r#"{"kind": "customsearch#search", "searchInformation": {"totalResults": "0"}}"#;
    assert_eq!(read(&*google, none), Ok(Page::default()));
    // It never gives more than 100, and says so in different ways.
    let over = answer(
        400,
        &[],
        r#"{"error": {"code": 400, "message": "Request contains an invalid argument."}}"#,
    );
    let page = read_page(&*google, &query("q=a"), Some(&Cursor::At(91)), &over);
    assert_eq!(page, Ok(Page::default()));
    let last = r#"{"queries": {"nextPage": [{"startIndex": 101}]}, "items": [{"link": "https://a.example.test/1"}]}"#;
    assert_eq!(read(&*google, last).unwrap().next, None);
}

#[test]
fn google_is_read_in_three_kinds_of_results_pages() {
    let google = make("google", &[]);
    let page = read(&*google, fixture("google_wml.html")).unwrap();
    let first = Found {
        page: some("https://pages.example.test/a"),
        thumbnail: some("https://encrypted-tbn0.gstatic.com/images?q=tbn:Ab_c-1%3A"),
        width: Some(640),
        height: Some(480),
        ..found("https://images.example.test/a%20b.jpg?x=1&y=2")
    };
    let second = Found {
        page: some("https://pages.example.test/c"),
        ..found("https://images.example.test/c.png")
    };
    assert_eq!((page.results, page.broken), (vec![first, second], 1));
    assert_eq!(page.next, Some(Cursor::At(10)));

    let page = read(&*google, fixture("google_noscript.html")).unwrap();
    let first = Found {
        page: some("https://pages.example.test/a?b=1"),
        title: some("A panda"),
        ..found("https://thumbs.example.test/images?q=tbn:ANd9Gc_1&s")
    };
    assert_eq!((page.results.len(), page.broken), (2, 0));
    assert_eq!(page.results[0], first);

    let page = read(&*google, fixture("google_scripts.html")).unwrap();
    let urls: Vec<_> = page
        .results
        .iter()
        .map(|found| found.url.as_str())
        .collect();
    assert_eq!(
        urls,
        [
            "https://images.example.test/one.jpg?w=10&h=20",
            "https://images.example.test/two.PNG"
        ]
    );
}

#[test]
fn google_without_results_is_told_from_a_page_that_is_something_else() {
    let google = make("google", &[]);
    let none = "<html><form><input name=q></form><p>Nothing.</p></html>";
    assert_eq!(read(&*google, none), Ok(Page::default()));
    let script = "<html><form><input name=q></form><noscript><meta content='/httpservice/retry/enablejs'></noscript>";
    assert!(matches!(
        read(&*google, script),
        Err(SearchError::Changed { .. })
    ));
    let page = read_page(
        &*google,
        &query("q=a"),
        Some(&Cursor::At(20)),
        &answer(200, &[], "<p>x"),
    );
    assert_eq!(page, Ok(Page::default()));
    let captcha = "<html><body>Our systems have detected unusual traffic</body></html>";
    assert!(matches!(
        read(&*google, captcha),
        Err(SearchError::Blocked { .. })
    ));
    let away = answer(
        302,
        &[("location", "https://sorry.example.test/sorry/index?x")],
        "",
    );
    let page = read_page(&*google, &query("q=a"), None, &away);
    let Err(SearchError::Blocked { detail }) = page else {
        panic!("{page:?}")
    };
    assert_eq!(detail, "its page speaks of `/sorry/`");
}

#[test]
fn bing_is_read() {
    let page = read(&*make("bing", &[]), fixture("bing.html")).unwrap();
    let first = Found {
        page: some("https://pages.example.test/1?a=1&amp;b=2"),
        thumbnail: some("https://thumbs.example.test/th?id=1&pid=15.1"),
        title: some("A &lt;b&gt; ü"),
        width: Some(3442),
        height: Some(2972),
        ..found("https://images.example.test/1?a=1&b=2")
    };
    assert_eq!(
        page.results,
        [first, found("https://images.example.test/3.webp")]
    );
    assert_eq!(page.broken, 2);
    let next =
        "https://www.bing.com/images/async?q=red+panda&first=4&count=35&mmasync=1&dgState=x*1_y*2";
    assert_eq!(page.next, Some(Cursor::Next(next.parse().unwrap())));
}

#[test]
fn bing_does_not_go_to_another_site_and_knows_what_is_no_page() {
    let bing = make("bing", &[]);
    let item = r#"<a class="iusc" m='{"murl":"https://images.example.test/1"}'>"#;
    for next in [
        "https://elsewhere.example.test/",
        "//elsewhere.example.test/x",
        "",
        "http://www.bing.com/images/async?first=2",
    ] {
        let page = read(
            &*bing,
            format!(r#"<div class="dgControl" data-nextUrl="{next}">{item}</div>"#),
        );
        assert_eq!(page.unwrap().next, None, "{next}");
    }
    assert_eq!(read(&*bing, " \n"), Ok(Page::default()));
    assert_eq!(
        read(&*bing, r#"<div class="dg_b"></div>"#),
        Ok(Page::default())
    );
    assert!(matches!(
        read(&*bing, "<html>Welcome</html>"),
        Err(SearchError::Changed { .. })
    ));
    let captcha = r#"<html><div id="b_captcha">Prove it</div></html>"#;
    assert!(matches!(
        read(&*bing, captcha),
        Err(SearchError::Blocked { .. })
    ));
    let broken = r#"<div class="dg_b"><a class="iusc" m="{"></a></div>"#;
    let Err(error) = read(&*bing, broken) else {
        panic!()
    };
    assert_eq!(
        error.to_string(),
        "answers in a form that is not known (none of 1 results could be read); please report this as a defect"
    );
}

#[test]
fn brave_is_read() {
    let page = read(&*make("brave", &[]), fixture("brave.json")).unwrap();
    let first = Found {
        page: some("https://pages.example.test/panda"),
        thumbnail: some("https://thumbs.example.test/1"),
        title: some("Red Panda"),
        width: Some(1920),
        height: Some(1080),
        ..found("https://images.example.test/panda.jpg")
    };
    assert_eq!(
        page.results,
        [first, found("https://images.example.test/2.jpg")]
    );
    assert_eq!((page.broken, page.next), (1, None));
}

#[test]
fn searxng_is_read() {
    let searxng = make("searxng", &[]);
    let page = read(&*searxng, fixture("searxng.json")).unwrap();
    let first = Found {
        page: some("https://pages.example.test/1"),
        thumbnail: some("https://thumbs.example.test/1"),
        title: some("Panda"),
        width: Some(1024),
        height: Some(768),
        media_type: some("image/jpeg"),
        ..found("https://images.example.test/1.jpg")
    };
    assert_eq!(page.results[0], first);
    assert_eq!(
        (page.results[1].width, page.results[1].height),
        (Some(3400), Some(3112))
    );
    assert_eq!((page.results.len(), page.broken), (2, 1));
    assert_eq!(page.next, Some(Cursor::At(2)));
    let none = r#"{"results": [], "unresponsive_engines": []}"#;
    assert_eq!(read(&*searxng, none), Ok(Page::default()));
    let silent =
        r#"{"results": [], "unresponsive_engines": [["one", "timeout"], ["two", "CAPTCHA"]]}"#;
    assert_eq!(
        read(&*searxng, silent),
        Err(SearchError::Outage {
            detail: "its engines do not answer: one (timeout), two (CAPTCHA)".to_owned(),
            retry_after: None,
            is_retriable: true,
        })
    );
}

#[test]
fn filters_are_what_each_provider_calls_them() {
    for (provider, sets, filters, expected) in [
        (
            "openverse",
            &[][..],
            "size=large&type=photo&licence=cc-by,cc0,commercial&safe=on",
            &[
                ("size", "large"),
                ("category", "photograph"),
                ("license", "by,cc0"),
                ("license_type", "commercial"),
                ("mature", "false"),
            ][..],
        ),
        (
            "wikimedia",
            &[],
            "size=large&type=photo&licence=cc-by",
            &[(
                "gsrsearch",
                "red panda haslicense:attribution fileres:>1000 filemime:image/jpeg filetype:bitmap",
            )],
        ),
        (
            "wikimedia",
            &[],
            "type=illustration",
            &[("gsrsearch", "red panda filetype:drawing")],
        ),
        (
            "google",
            GOOGLE,
            "size=large&type=lineart&license=pd,cc-by&safe=on&age=week",
            &[
                ("imgSize", "large"),
                ("imgType", "lineart"),
                ("rights", "cc_attribute|cc_publicdomain"),
                ("safe", "active"),
                ("dateRestrict", "w1"),
            ],
        ),
        (
            "google",
            &[],
            "safe=on&age=day",
            &[("safe", "active"), ("tbs", "qdr:d")],
        ),
        (
            "bing",
            &[],
            "size=large&type=photo&safe=off",
            &[
                ("qft", "+filterui:imagesize-large+filterui:photo-photo"),
                ("adlt", "off"),
            ],
        ),
        ("brave", &[], "safe=off", &[("safesearch", "off")]),
        (
            "searxng",
            &[],
            "safe=moderate&age=year",
            &[("safesearch", "1"), ("time_range", "year")],
        ),
    ] {
        let provider = make(provider, sets);
        let spec = SearchSpec::parse(&format!("search:openverse?q=red panda&{filters}")).unwrap();
        filter::check(&*provider, spec.filters()).unwrap();
        let sent = parameters(&provider.request(&spec.queries()[0], None).unwrap());
        for (name, value) in expected {
            assert_eq!(
                sent.get(*name).map(String::as_str),
                Some(*value),
                "{provider:?}"
            );
        }
    }
    // They are sent for later pages as well, also where the provider left them out of its address.
    let next = Cursor::Next(
        "https://www.bing.com/images/async?first=36&adlt=off"
            .parse()
            .unwrap(),
    );
    let request = make("bing", &[])
        .request(&query("q=a&safe=on&size=small"), Some(&next))
        .unwrap();
    assert_eq!(
        request.url().as_str(),
        "https://www.bing.com/images/async?first=36&adlt=strict&qft=%2Bfilterui%3Aimagesize-small"
    );
}

#[test]
fn the_documentation_has_the_filters_that_there_are() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/search.md"));
    let text = text.unwrap();
    let (_, section) = text.split_once("\n## Filters\n").unwrap();
    let mut rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let head = cells(rows.next().unwrap());
    let rows: Vec<_> = rows
        .skip(1)
        .take_while(|row| row.starts_with('|'))
        .map(cells)
        .collect();
    assert_eq!(rows.len(), all().len());
    for provider in all() {
        let is_pages = provider
            .filters()
            .iter()
            .any(|filter| filter.values[0].1 == "tbs");
        let name = match (provider.name(), is_pages) {
            ("google", true) => "`google` (pages)".to_owned(),
            ("google", false) => "`google` (API)".to_owned(),
            (name, _) => format!("`{name}`"),
        };
        let row = rows.iter().find(|row| row[0] == name).unwrap();
        let told = head
            .iter()
            .zip(row)
            .skip(1)
            .filter(|(_, cell)| !cell.is_empty());
        let told: BTreeMap<_, _> = told
            .map(|(name, cell)| (name.as_str(), cell.clone()))
            .collect();
        let has = provider.filters().iter().map(|filter| {
            let values: Vec<_> = filter
                .values
                .iter()
                .map(|(ours, ..)| format!("`{ours}`"))
                .collect();
            let several = if filter.is_list { ", several" } else { "" };
            (filter.name, format!("{}{several}", values.join(" ")))
        });
        assert_eq!(told, has.collect(), "{name}");
    }
}

#[test]
fn what_a_provider_does_not_have_names_what_it_has() {
    let wrong = |name: &str, filters: &str| {
        let spec = SearchSpec::parse(&format!("search:{name}?q=a&{filters}")).unwrap();
        filter::check(&*make(name, &[]), spec.filters()).unwrap_err()
    };
    assert_eq!(
        wrong("brave", "size=large"),
        "`brave` has no filter `size`; it has `safe`"
    );
    assert_eq!(
        wrong("openverse", "size=huge"),
        "`openverse` has no `size=huge`; it has `small`, `medium`, `large`"
    );
    assert_eq!(
        wrong("openverse", "size=small,large"),
        "`openverse` takes one `size`, not `large,small`"
    );
    assert_eq!(
        wrong("searxng", "colour=red"),
        "`searxng` has no filter `colour`; it has `safe`, `age`"
    );
}

#[test]
fn a_setting_that_is_missing_is_named() {
    let missing = |name: &str, sets: &[(&str, &str)]| provider(name, &settings(sets)).unwrap_err();
    for (name, sets, says) in [
        (
            "brave",
            &[("search.brave.key", "")][..],
            "`search.brave.key`, or `GANNET_SEARCH__BRAVE__KEY`",
        ),
        (
            "searxng",
            &[("search.searxng.url", "")],
            "`search.searxng.url`",
        ),
        (
            "google",
            &[("search.google.key", "k")],
            "`search.google.engine`",
        ),
        (
            "google",
            &[("search.google.engine", "k")],
            "`search.google.key`",
        ),
        (
            "openverse",
            &[("search.openverse.url", "")],
            "`search.openverse.url`",
        ),
        (
            "flickr",
            &[],
            "only `openverse`, `wikimedia`, `google`, `bing`, `brave`, `searxng`",
        ),
    ] {
        let told = missing(name, sets);
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn pages_are_asked_for_as_documented() {
    let asked = |name: &str, sets: &[(&str, &str)], cursor: Option<Cursor>| {
        make(name, sets)
            .request(&query("q=red panda"), cursor.as_ref())
            .unwrap()
    };
    for (request, expected) in [
        (
            asked("openverse", &[], None),
            "https://api.openverse.org/v1/images/?q=red+panda&page=1&page_size=20",
        ),
        (
            asked(
                "openverse",
                &[("search.openverse.page_size", "500")],
                Some(Cursor::At(3)),
            ),
            "https://api.openverse.org/v1/images/?q=red+panda&page=3&page_size=20",
        ),
        (
            asked(
                "openverse",
                &[
                    ("search.openverse.page_size", "500"),
                    ("search.openverse.key", "k"),
                ],
                None,
            ),
            "https://api.openverse.org/v1/images/?q=red+panda&page=1&page_size=500",
        ),
        (
            asked("wikimedia", &[], Some(Cursor::At(50))),
            "https://commons.wikimedia.org/w/api.php?action=query&format=json&formatversion=2&maxlag=5&generator=search&gsrnamespace=6&gsrsearch=red+panda+filetype%3Abitmap&gsrlimit=50&gsroffset=50&prop=imageinfo&iiprop=url%7Csize%7Cmime%7Cextmetadata&iiurlwidth=330",
        ),
        (
            asked("google", GOOGLE, Some(Cursor::At(11))),
            "https://www.googleapis.com/customsearch/v1?q=red+panda&cx=cx-1&searchType=image&num=10&start=11",
        ),
        (
            asked("google", &[], Some(Cursor::At(10))),
            "https://www.google.com/wml/search?q=red+panda&tbm=isch&sca_esv=1&ie=utf8&oe=utf8&start=10",
        ),
        (
            asked("bing", &[], None),
            "https://www.bing.com/images/async?q=red+panda&async=1&mmasync=1&first=1&count=35",
        ),
        (
            asked("brave", &[], None),
            "https://api.search.brave.com/res/v1/images/search?q=red+panda&count=200",
        ),
        (
            asked("searxng", &[], Some(Cursor::At(2))),
            "https://searx.example.test/search?q=red+panda&format=json&categories=images&pageno=2",
        ),
        (
            asked(
                "searxng",
                &[(
                    "search.searxng.url",
                    "https://a.example.test/searx/search?theme=x",
                )],
                None,
            ),
            "https://a.example.test/searx/search?theme=x&q=red+panda&format=json&categories=images&pageno=1",
        ),
    ] {
        assert_eq!(request.url().as_str(), expected);
    }
}

#[test]
fn keys_go_out_and_are_not_shown() {
    for (name, sets) in [
        ("openverse", &[("search.openverse.key", "SECRET\nx")][..]),
        ("openverse", &[("search.openverse.key", "SECRET")]),
        ("brave", &[("search.brave.key", "SECRET")]),
        (
            "google",
            &[
                ("search.google.key", "SECRET/+"),
                ("search.google.engine", "cx"),
            ],
        ),
    ] {
        let provider = make(name, sets);
        assert!(!format!("{provider:?}").contains("SECRET"));
        let request = match provider.request(&query("q=a"), None) {
            Ok(request) => request,
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    "does not accept the key (it cannot stand in a header)"
                );
                continue;
            }
        };
        assert!(!format!("{request:?}").contains("SECRET"), "{request:?}");
        let query = request.query();
        let is_sent = query
            .is_some_and(|query| query.contains("q=a&") && query.ends_with("&key=SECRET%2F%2B"))
            || request.headers().values().any(|value| {
                value.is_sensitive() && value.to_str().is_ok_and(|text| text.contains("SECRET"))
            });
        assert!(is_sent, "{name}");
        assert!(!request.url().as_str().contains("SECRET"));
    }
}

/// What an answer without results means, by the word for the kind of error.
fn kind(provider: &dyn SearchProvider, answer: &Answer) -> &'static str {
    match read_page(provider, &query("q=a"), None, answer) {
        Ok(page) if page == Page::default() => "end",
        Ok(_) => "page",
        Err(SearchError::Quota { .. }) => "quota",
        Err(SearchError::Blocked { .. }) => "blocked",
        Err(SearchError::Changed { .. }) => "changed",
        Err(SearchError::Key { .. }) => "key",
        Err(SearchError::Outage { .. }) => "outage",
        Err(SearchError::Refused { .. }) => "refused",
    }
}

#[test]
fn statuses_are_told_apart() {
    let (api, pages) = (make("google", GOOGLE), make("google", &[]));
    let [openverse, wikimedia, bing, brave, searxng] =
        ["openverse", "wikimedia", "bing", "brave", "searxng"].map(|name| make(name, &[]));
    let all = [
        &openverse, &wikimedia, &api, &pages, &bing, &brave, &searxng,
    ];
    for (status, body, expected) in [
        (500, "", ["outage"; 7]),
        (503, "<html>captcha</html>", ["outage"; 7]),
        (429, "", ["quota"; 7]),
        (
            429,
            "captcha",
            [
                "quota", "quota", "quota", "blocked", "blocked", "quota", "quota",
            ],
        ),
        (
            401,
            "",
            ["key", "blocked", "key", "blocked", "blocked", "key", "key"],
        ),
        (
            403,
            "",
            [
                "key", "blocked", "key", "blocked", "blocked", "key", "blocked",
            ],
        ),
        (
            302,
            "",
            [
                "outage", "outage", "outage", "blocked", "blocked", "outage", "outage",
            ],
        ),
        (400, "{}", ["refused"; 7]),
        (
            200,
            "",
            [
                "changed", "changed", "changed", "changed", "end", "changed", "changed",
            ],
        ),
        (200, "<p>Hello</p>", ["changed"; 7]),
        (200, "{}", ["changed"; 7]),
        (200, "[1]", ["changed"; 7]),
    ] {
        let kinds = all.map(|provider| kind(&**provider, &answer(status, &[], body)));
        assert_eq!(kinds, expected, "{status} {body}");
    }
    for (provider, status, body, expected) in [
        (
            &openverse,
            401,
            r#"{"detail": "page_size may not exceed 20 for anonymous requests"}"#,
            "refused",
        ),
        (&openverse, 401, r#"{"detail": "Invalid token."}"#, "key"),
        (
            &wikimedia,
            200,
            r#"{"error": {"code": "maxlag", "info": "Waiting for a server"}}"#,
            "outage",
        ),
        (
            &wikimedia,
            200,
            r#"{"error": {"code": "ratelimited", "info": "Too often"}}"#,
            "quota",
        ),
        (
            &wikimedia,
            200,
            r#"{"error": {"code": "badvalue", "info": "No"}}"#,
            "refused",
        ),
        (
            &api,
            403,
            r#"{"error": {"errors": [{"reason": "dailyLimitExceeded"}], "message": "Daily Limit"}}"#,
            "quota",
        ),
        (
            &api,
            429,
            r#"{"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}"#,
            "quota",
        ),
        (
            &api,
            400,
            r#"{"error": {"message": "API key not valid. Please pass a valid API key."}}"#,
            "key",
        ),
        (
            &brave,
            422,
            r#"{"error": {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "no"}}"#,
            "key",
        ),
        (
            &brave,
            422,
            r#"{"error": {"code": "VALIDATION", "detail": "no"}}"#,
            "refused",
        ),
    ] {
        assert_eq!(
            kind(&**provider, &answer(status, &[], body)),
            expected,
            "{body}"
        );
    }
}

#[test]
fn a_quota_says_when_to_come_back() {
    let wait = |name: &str, headers: &[(&'static str, &str)]| {
        let read = read_page(
            &*make(name, &[]),
            &query("q=a"),
            None,
            &answer(429, headers, ""),
        );
        match read {
            Err(SearchError::Quota { retry_after, .. }) => retry_after.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait("openverse", &[("retry-after", "90")]), Some(90));
    assert_eq!(wait("openverse", &[]), None);
    let windows = [
        ("x-ratelimit-remaining", "0, 0, 7"),
        ("x-ratelimit-reset", "1, 1209600, 99999999"),
    ];
    assert_eq!(wait("brave", &windows), Some(1_209_600));
    assert_eq!(wait("brave", &[("x-ratelimit-reset", "1")]), None);
    let told = SearchError::Quota {
        detail: "429: slow down".to_owned(),
        retry_after: Some(Duration::from_secs(5400)),
    };
    let told = told.told("openverse", &query("q=a"));
    assert!(
        told.starts_with(
            "`openverse` allows no more requests (429: slow down); come back in 1h 30m, at 2"
        ),
        "{told}"
    );
}

#[test]
fn errors_name_provider_and_remedy() {
    let told = |error: SearchError| error.told("brave", &query("q=red panda"));
    let detail = "401: no".to_owned();
    assert_eq!(
        told(SearchError::Key {
            detail: detail.clone()
        }),
        "`brave` does not accept the key (401: no); `search.brave.key` has to be one that it gave you"
    );
    assert_eq!(
        told(SearchError::Refused { detail }),
        "`brave`, asked for `red panda`, refuses the search (401: no)"
    );
}

#[test]
fn what_is_found_becomes_a_target_that_cannot_grow() {
    let result = Found {
        title: Some(format!(" a\u{0}\n\tb {}", "x".repeat(5000))),
        page: some("javascript:alert(1)"),
        thumbnail: Some(format!("https://a.example.test/{}", "x".repeat(5000))),
        ..found("https://images.example.test/1.jpg#frag")
    };
    let target = result.into_target("openverse", &query("q=red  panda"), 3);
    assert_eq!(target.url.as_str(), "https://images.example.test/1.jpg");
    assert_eq!(target.name, None);
    let metadata = serde_json::Value::Object(*target.metadata.unwrap());
    let title = metadata["title"].as_str().unwrap();
    assert!(
        title.starts_with("a b xxx") && title.chars().count() == 1000,
        "{title}"
    );
    assert_eq!(
        serde_json::json!({"title": title, "provider": "openverse", "query": "red panda", "rank": 3}),
        metadata
    );
}

const FIXTURES: [&str; 9] = [
    "openverse.json",
    "wikimedia.json",
    "google_api.json",
    "google_wml.html",
    "google_noscript.html",
    "google_scripts.html",
    "bing.html",
    "brave.json",
    "searxng.json",
];

fn read_by_all(status: u16, body: &[u8]) {
    let cursors = [None, Some(Cursor::At(u64::MAX)), Some(Cursor::At(2))];
    for provider in all() {
        for cursor in &cursors {
            let answer = answer(status, &[("retry-after", "7")], body);
            let _ = read_page(&*provider, &query("q=a"), cursor.as_ref(), &answer);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_parser_panic(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_by_all(status, &body);
        read_by_all(200, &body);
    }

    #[test]
    fn no_damage_to_a_page_makes_a_parser_panic(
        which in 0..FIXTURES.len(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..40usize), 1..20),
    ) {
        let mut body = fixture(FIXTURES[which]);
        for (at, byte, length) in damages {
            let at = at.index(body.len());
            let end = (at + length).min(body.len());
            match length % 3 {
                0 => body[at] = byte,
                1 => drop(body.drain(at..end)),
                _ => { let piece = body[at..end].to_vec(); body.splice(at..at, piece); }
            }
            if body.is_empty() {
                body.push(byte);
            }
        }
        read_by_all(200, &body);
    }
}
