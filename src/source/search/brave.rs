//! Brave Search, with a key of a paid plan. <https://api-dashboard.search.brave.com/>

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use secrecy::SecretString;
use url::Url;

use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, json,
    judge,
};

const FILTERS: &[Filter] = &[Filter::one(
    "safe",
    &[("on", "safesearch", "strict"), ("off", "safesearch", "off")],
)];

const LARGEST_PAGE: u32 = 200;

/// Longest query, in characters and in words.
const LONGEST: (usize, usize) = (400, 50);

#[derive(Debug)]
struct Brave {
    url: Url,
    key: SecretString,
    page_size: u64,
}

pub(super) fn new(settings: &Provider) -> Made {
    settings.only("brave", &["key", "page_size"])?;
    let key = settings.key().cloned().ok_or(
        "`brave` needs a key: set `search.brave.key`, or `GANNET_SEARCH__BRAVE__KEY` in the environment",
    )?;
    Ok(Arc::new(Brave {
        url: settings.url("brave")?,
        key,
        page_size: settings.page_size(LARGEST_PAGE),
    }))
}

impl SearchProvider for Brave {
    fn name(&self) -> &'static str {
        "brave"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    /// There is one page and no more.
    fn request(&self, query: &Query, _: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let (characters, words) = LONGEST;
        if query.text.chars().count() > characters || query.text.split(' ').count() > words {
            return Err(SearchError::Refused {
                detail: format!("it takes at most {characters} characters and {words} words"),
            });
        }
        let mut parameters = query.parameters(FILTERS, ",");
        parameters.extend([
            ("q", query.text.clone()),
            ("count", self.page_size.to_string()),
        ]);
        let header = HeaderName::from_static("x-subscription-token");
        PageRequest::new(&self.url, parameters).secret_header(header, "", &self.key)
    }

    /// A key that is none is a 422, and 429 says in headers of its own when to come back.
    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        match judge::judge(answer) {
            Err(SearchError::Refused { detail }) if answer.text().contains("TOKEN_INVALID") => {
                Err(SearchError::Key { detail })
            }
            Err(SearchError::Quota {
                detail,
                retry_after: None,
            }) => Err(SearchError::Quota {
                detail,
                retry_after: reset(answer),
            }),
            judged => judged,
        }
    }

    fn parse(&self, _: &Query, _: Option<&Cursor>, answer: &Answer) -> Result<Page, SearchError> {
        self.judge(answer)?;
        let document = json::document(answer)?;
        let items = json::items(&document, "results")?.iter().map(|item| {
            Some(Found {
                page: json::string(item, "/url"),
                thumbnail: json::string(item, "/thumbnail/src"),
                title: json::string(item, "/title"),
                width: json::number(item, "/properties/width"),
                height: json::number(item, "/properties/height"),
                ..Found::new(json::text(item, "/properties/url")?)?
            })
        });
        Ok(Page::of(items))
    }
}

/// The longest of the windows in which nothing is left: `X-RateLimit-Remaining: 0, 1999` beside
/// `X-RateLimit-Reset: 1, 1209600`, in seconds.
fn reset(answer: &Answer) -> Option<Duration> {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let numbers = answer.header(name)?.split(',');
        numbers.map(|number| number.trim().parse().ok()).collect()
    };
    let (remaining, reset) = (
        numbers("x-ratelimit-remaining")?,
        numbers("x-ratelimit-reset")?,
    );
    let used_up = remaining.iter().zip(reset).filter(|(left, _)| **left == 0);
    let longest = used_up.map(|(_, seconds)| seconds).max()?;
    // Longer than any plan has; more would overflow the clock.
    Some(Duration::from_secs(longest.min(366 * 24 * 3600)))
}
