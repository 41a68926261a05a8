//! Openverse: openly licensed images of many collections. <https://api.openverse.org/>

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::found::media_type;
use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, json,
    judge,
};

const FILTERS: &[Filter] = &[
    Filter::one(
        "size",
        &[
            ("small", "size", "small"),
            ("medium", "size", "medium"),
            ("large", "size", "large"),
        ],
    ),
    Filter::one(
        "type",
        &[
            ("photo", "category", "photograph"),
            ("illustration", "category", "illustration"),
        ],
    ),
    Filter::list(
        "licence",
        &[
            ("cc0", "license", "cc0"),
            ("pd", "license", "pdm"),
            ("cc-by", "license", "by"),
            ("cc-by-sa", "license", "by-sa"),
            ("cc-by-nd", "license", "by-nd"),
            ("cc-by-nc", "license", "by-nc"),
            ("cc-by-nc-sa", "license", "by-nc-sa"),
            ("cc-by-nc-nd", "license", "by-nc-nd"),
            ("commercial", "license_type", "commercial"),
            ("modification", "license_type", "modification"),
        ],
    ),
    Filter::one(
        "safe",
        &[("on", "mature", "false"), ("off", "mature", "true")],
    ),
];

/// What it takes of who has no key.
const ANONYMOUS_PAGE: u32 = 20;
const LARGEST_PAGE: u32 = 500;

#[derive(Debug)]
struct Openverse {
    url: Url,
    key: Option<SecretString>,
    page_size: u64,
}

pub(super) fn new(settings: &Provider) -> Made {
    settings.only("openverse", &["key", "page_size"])?;
    let key = settings.key().cloned();
    let most = match key {
        Some(_) => LARGEST_PAGE,
        None => ANONYMOUS_PAGE,
    };
    Ok(Arc::new(Openverse {
        url: settings.url("openverse")?,
        page_size: settings.page_size(most),
        key,
    }))
}

impl SearchProvider for Openverse {
    fn name(&self) -> &'static str {
        "openverse"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let mut parameters = query.parameters(FILTERS, ",");
        parameters.extend([
            ("q", query.text.clone()),
            ("page", Cursor::at(cursor, 1).to_string()),
            ("page_size", self.page_size.to_string()),
        ]);
        let request = PageRequest::new(&self.url, parameters);
        match &self.key {
            Some(key) => request.bearer(key),
            None => Ok(request),
        }
    }

    /// A 401 that is about the size or number of a page is about no key.
    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        match judge::judge(answer) {
            Err(SearchError::Key { detail }) if detail.contains("page") => {
                Err(SearchError::Refused { detail })
            }
            judged => judged,
        }
    }

    fn parse(
        &self,
        _: &Query,
        cursor: Option<&Cursor>,
        answer: &Answer,
    ) -> Result<Page, SearchError> {
        let page = Cursor::at(cursor, 1);
        // How deep pages go is not told before.
        if page > 1 && answer.status == 404 {
            return Ok(Page::default());
        }
        self.judge(answer)?;
        let document = json::document(answer)?;
        let is_last = match (
            json::number(&document, "/page_count"),
            json::number(&document, "/result_count"),
        ) {
            (Some(pages), _) => page >= pages,
            (None, Some(results)) => page.saturating_mul(self.page_size) >= results,
            (None, None) => false,
        };
        let items = json::items(&document, "results")?.iter().map(|item| {
            let licence = json::text(item, "/license").map(|licence| {
                match (licence, json::text(item, "/license_version")) {
                    ("cc0", Some(version)) => format!("CC0 {version}"),
                    ("pdm", _) => "Public Domain Mark".to_owned(),
                    (by, version) => {
                        format!("CC {} {}", by.to_uppercase(), version.unwrap_or_default())
                    }
                }
            });
            Some(Found {
                page: json::string(item, "/foreign_landing_url"),
                thumbnail: json::string(item, "/thumbnail"),
                title: json::string(item, "/title"),
                width: json::number(item, "/width"),
                height: json::number(item, "/height"),
                bytes: json::number(item, "/filesize"),
                media_type: json::text(item, "/filetype").map(media_type),
                licence,
                licence_url: json::string(item, "/license_url"),
                creator: json::string(item, "/creator"),
                ..Found::new(json::text(item, "/url")?)?
            })
        });
        let next = (!is_last).then(|| Cursor::At(page.saturating_add(1)));
        Ok(Page::of(items).followed_by(next))
    }
}
