//! Image searches as sources, by the real binary against a fake of each provider.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::HashMap;

use serde_json::{Value, json};
use support::site::Asked;
use support::{Answer, Run, Sandbox, Site, pictures};

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
