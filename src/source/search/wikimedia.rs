//! Wikimedia Commons, through the search of its MediaWiki. <https://www.mediawiki.org/wiki/API:Search>

use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, html,
    json, judge,
};

/// Words of its own search language, which stand in the query. <https://www.mediawiki.org/wiki/Help:CirrusSearch>
const FILTERS: &[Filter] = &[
    Filter::one(
        "size",
        &[
            ("small", "gsrsearch", "fileres:<500"),
            ("medium", "gsrsearch", "fileres:500,1000"),
            ("large", "gsrsearch", "fileres:>1000"),
        ],
    ),
    Filter::one(
        "type",
        &[
            ("photo", "gsrsearch", "filemime:image/jpeg"),
            ("illustration", "gsrsearch", "filetype:drawing"),
            ("animated", "gsrsearch", "filemime:image/gif"),
        ],
    ),
    Filter::one(
        "licence",
        &[
            ("cc0", "gsrsearch", "haslicense:unrestricted"),
            ("pd", "gsrsearch", "haslicense:unrestricted"),
            ("cc-by", "gsrsearch", "haslicense:attribution"),
            (
                "cc-by-sa",
                "gsrsearch",
                "haslicense:attribution-same-license",
            ),
        ],
    ),
];

const LARGEST_PAGE: u32 = 500;

/// Its search does not go further.
const LAST_OFFSET: u64 = 10_000;

#[derive(Debug)]
struct Wikimedia {
    url: Url,
    page_size: u64,
}

pub(super) fn new(settings: &Provider) -> Made {
    settings.only("wikimedia", &["page_size"])?;
    Ok(Arc::new(Wikimedia {
        url: settings.url("wikimedia")?,
        page_size: settings.page_size(LARGEST_PAGE),
    }))
}

impl SearchProvider for Wikimedia {
    fn name(&self) -> &'static str {
        "wikimedia"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let mut search = query.text.clone();
        for (_, words) in query.parameters(FILTERS, " ") {
            search = format!("{search} {words}");
        }
        if !search.contains(" filetype:") {
            search.push_str(" filetype:bitmap");
        }
        let limit = self.page_size.to_string();
        let offset = Cursor::at(cursor, 0).to_string();
        let parameters = [
            ("action", "query"),
            ("format", "json"),
            ("formatversion", "2"),
            ("maxlag", "5"),
            ("generator", "search"),
            ("gsrnamespace", "6"),
            ("gsrsearch", &search),
            ("gsrlimit", &limit),
            ("gsroffset", &offset),
            ("prop", "imageinfo"),
            ("iiprop", "url|size|mime|extmetadata"),
            ("iiurlwidth", "330"),
        ];
        Ok(PageRequest::new(&self.url, parameters))
    }

    /// It takes no key: who is refused is a stranger.
    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        if matches!(answer.status, 401 | 403) {
            let detail = format!(
                "{}; it wants to know whom it can write to: put an address into `fetch.user_agent`",
                judge::said(answer)
            );
            return Err(SearchError::Blocked { detail });
        }
        judge::judge(answer)
    }

    fn parse(&self, _: &Query, _: Option<&Cursor>, answer: &Answer) -> Result<Page, SearchError> {
        self.judge(answer)?;
        let document = json::document(answer)?;
        if let Some(code) = json::text(&document, "/error/code") {
            return Err(error(code, &document, answer));
        }
        let mut pages: Vec<&Value> = match document.pointer("/query/pages") {
            Some(Value::Array(pages)) => pages.iter().collect(),
            // As in version 1 of the format.
            Some(Value::Object(pages)) => pages.values().collect(),
            // Nothing matches.
            None if document.get("batchcomplete").is_some() => return Ok(Page::default()),
            _ => {
                return Err(SearchError::Changed {
                    detail: "its answer has no `query.pages`".to_owned(),
                });
            }
        };
        // They come in any order.
        pages.sort_by_key(|page| json::number(page, "/index").unwrap_or(u64::MAX));
        let next = json::number(&document, "/continue/gsroffset")
            .filter(|next| next.saturating_add(self.page_size) <= LAST_OFFSET);
        Ok(Page::of(pages.into_iter().map(found)).followed_by(next.map(Cursor::At)))
    }
}

fn found(page: &Value) -> Option<Found> {
    let info = page.pointer("/imageinfo/0")?;
    let meta = |name: &str| json::text(info, &format!("/extmetadata/{name}/value"));
    let title = meta("ObjectName").map(html::plain);
    let file = json::text(page, "/title").map(|title| title.trim_start_matches("File:"));
    let url = without_campaign(json::text(info, "/url")?);
    Some(Found {
        page: json::string(info, "/descriptionurl"),
        thumbnail: json::text(info, "/thumburl").map(without_campaign),
        title: title.or_else(|| file.map(str::to_owned)),
        width: json::number(info, "/width"),
        height: json::number(info, "/height"),
        bytes: json::number(info, "/size"),
        media_type: json::string(info, "/mime"),
        licence: meta("LicenseShortName")
            .or(meta("UsageTerms"))
            .map(html::plain),
        licence_url: meta("LicenseUrl").map(str::to_owned),
        creator: meta("Artist").map(html::plain),
        ..Found::new(&url)?
    })
}

/// `url` without parameters that only count visitors: they would make another URL of the same image.
fn without_campaign(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return url.to_owned();
    };
    let kept: Vec<(String, String)> = parsed
        .query_pairs()
        .filter(|(name, _)| !name.starts_with("utm_"))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    match kept.as_slice() {
        [] => parsed.set_query(None),
        kept => drop(parsed.query_pairs_mut().clear().extend_pairs(kept)),
    }
    parsed.into()
}

/// Errors come with status 200. <https://www.mediawiki.org/wiki/API:Errors_and_warnings>
fn error(code: &str, document: &Value, answer: &Answer) -> SearchError {
    let info = json::text(document, "/error/info").and_then(judge::quoted);
    let detail = format!("{code}: {}", info.unwrap_or_default());
    match code {
        "maxlag" | "readonly" | "internal_api_error" | "cirrussearch-backend-error" => {
            SearchError::Outage {
                detail,
                retry_after: answer.retry_after(),
                is_retriable: true,
            }
        }
        "ratelimited" => SearchError::Quota {
            detail,
            retry_after: answer.retry_after(),
        },
        _ => SearchError::Refused { detail },
    }
}
