//! SearXNG: an instance of the operator's, which asks others. <https://docs.searxng.org/dev/search_api.html>

use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::found::media_type;
use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, json,
    judge,
};

const FILTERS: &[Filter] = &[
    Filter::one(
        "safe",
        &[
            ("on", "safesearch", "2"),
            ("moderate", "safesearch", "1"),
            ("off", "safesearch", "0"),
        ],
    ),
    Filter::one(
        "age",
        &[
            ("day", "time_range", "day"),
            ("month", "time_range", "month"),
            ("year", "time_range", "year"),
        ],
    ),
];

#[derive(Debug)]
struct Searxng {
    url: Url,
}

pub(super) fn new(settings: &Provider) -> Made {
    settings.only("searxng", &[])?;
    let mut url = settings.url("searxng")?;
    // What is given may be the page on which people search.
    let path = url.path().trim_end_matches('/');
    if !path.ends_with("/search") {
        url.set_path(&format!("{path}/search"));
    }
    Ok(Arc::new(Searxng { url }))
}

impl SearchProvider for Searxng {
    fn name(&self) -> &'static str {
        "searxng"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let mut parameters = query.parameters(FILTERS, ",");
        parameters.extend([
            ("q", query.text.clone()),
            ("format", "json".to_owned()),
            ("categories", "images".to_owned()),
            ("pageno", Cursor::at(cursor, 1).to_string()),
        ]);
        Ok(PageRequest::new(&self.url, parameters))
    }

    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        if answer.status == 403 {
            return Err(SearchError::Blocked {
                detail: "403; has its `search.formats` the format `json`, and does its limiter know this machine?"
                    .to_owned(),
            });
        }
        judge::judge(answer)
    }

    fn parse(
        &self,
        _: &Query,
        cursor: Option<&Cursor>,
        answer: &Answer,
    ) -> Result<Page, SearchError> {
        self.judge(answer)?;
        let document = json::document(answer)?;
        let results = json::items(&document, "results")?;
        if results.is_empty()
            && let Some(engines) = unresponsive(&document)
        {
            return Err(SearchError::Outage {
                detail: format!("its engines do not answer: {engines}"),
                retry_after: None,
                is_retriable: true,
            });
        }
        let next = Cursor::At(Cursor::at(cursor, 1).saturating_add(1));
        Ok(Page::of(results.iter().map(found)).followed_by(Some(next)))
    }
}

fn found(item: &Value) -> Option<Found> {
    let resolution = json::text(item, "/resolution").unwrap_or_default();
    let mut pixels = resolution
        .split(['x', 'X', '×'])
        .map(|n| n.trim().parse().ok());
    Some(Found {
        page: json::string(item, "/url"),
        thumbnail: json::text(item, "/thumbnail_src").map(|src| match src.strip_prefix("//") {
            Some(rest) => format!("https://{rest}"),
            None => src.to_owned(),
        }),
        title: json::string(item, "/title"),
        width: pixels.next().flatten(),
        height: pixels.next().flatten(),
        media_type: json::text(item, "/img_format").map(media_type),
        creator: json::string(item, "/author"),
        ..Found::new(json::text(item, "/img_src")?)?
    })
}

/// The engines that did not answer, and why, as it tells in pairs.
fn unresponsive(document: &Value) -> Option<String> {
    let engines = document.get("unresponsive_engines")?.as_array()?;
    let engines = engines.iter().map(|engine| {
        let word = |at| engine.get(at).and_then(Value::as_str).unwrap_or("?");
        format!("{} ({})", word(0), word(1))
    });
    judge::quoted(&engines.collect::<Vec<_>>().join(", "))
}
