//! Whatever a provider of searches may answer: its number, a status, a page number, and the bytes of the body.
//!
//! `cargo +nightly fuzz run search_page fuzz/corpus/search_page tests/fixtures/search`

#![no_main]

use std::sync::{Arc, LazyLock};

use gannet::config::Config;
use gannet::source::search::{
    Answer, Cursor, PROVIDERS, Query, SearchProvider, SearchSpec, provider, read_page,
};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

/// Every provider, Google in both ways.
static ALL: LazyLock<Vec<Arc<dyn SearchProvider>>> = LazyLock::new(|| {
    let make = |names: &[&str], more: &[(&str, &str)]| -> Vec<Arc<dyn SearchProvider>> {
        let base = [
            ("search.brave.key", "k"),
            ("search.searxng.url", "https://searxng.example.test/"),
        ];
        let sets = base.iter().chain(more);
        let sets: Vec<_> = sets
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let nothing = std::path::Path::new("/dev/null");
        let loaded = Config::load(Some(nothing), std::iter::empty(), &sets).expect("usable");
        let search = loaded.config.search;
        let made = names
            .iter()
            .map(|name| provider(name, &search).expect("usable"));
        made.collect()
    };
    let api = [("search.google.key", "k"), ("search.google.engine", "e")];
    [make(PROVIDERS, &[]), make(&["google"], &api)].concat()
});

static QUERY: LazyLock<Query> = LazyLock::new(|| {
    let spec = SearchSpec::parse("search:openverse?q=red panda").expect("a search");
    spec.queries()[0].clone()
});

fuzz_target!(|data: &[u8]| {
    // Files of pages begin with no such numbers: they are read by all.
    let (providers, status, cursor, body) = match data {
        [which, status, page, body @ ..] if usize::from(*which) < ALL.len() => {
            let which = usize::from(*which);
            let status =
                [200, 200, 302, 400, 401, 403, 404, 422, 429, 500][usize::from(*status) % 10];
            let cursor = (*page > 0).then(|| Cursor::At(u64::from(*page)));
            (&ALL[which..=which], status, cursor, body)
        }
        body => (&ALL[..], 200, None, body),
    };
    let answer = Answer {
        status,
        headers: HeaderMap::new(),
        url: "https://api.example.test/".parse().expect("a URL"),
        body: body.to_vec().into(),
    };
    for provider in providers {
        let Ok(page) = read_page(&**provider, &QUERY, cursor.as_ref(), &answer) else {
            continue;
        };
        assert!(
            !page.results.is_empty() || page.next.is_none(),
            "a page of nothing goes on"
        );
        if let Some(next) = &page.next {
            let _ = provider.request(&QUERY, Some(next));
        }
    }
});
