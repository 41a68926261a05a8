//! Google: with `key` and `engine` the Custom Search JSON API, else its results pages.
//! <https://developers.google.com/custom-search/v1/reference/rest/v1/cse/list>

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::html::{Piece, pieces};
use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, json,
    judge,
};

/// The one that the API and the results pages have alike.
const SAFE: Filter = Filter::one("safe", &[("on", "safe", "active"), ("off", "safe", "off")]);

const FILTERS: &[Filter] = &[
    Filter::one(
        "size",
        &[
            ("small", "imgSize", "small"),
            ("medium", "imgSize", "medium"),
            ("large", "imgSize", "large"),
        ],
    ),
    Filter::one(
        "type",
        &[
            ("photo", "imgType", "photo"),
            ("illustration", "imgType", "clipart"),
            ("lineart", "imgType", "lineart"),
            ("animated", "imgType", "animated"),
            ("face", "imgType", "face"),
        ],
    ),
    Filter::list(
        "licence",
        &[
            ("pd", "rights", "cc_publicdomain"),
            ("cc-by", "rights", "cc_attribute"),
            ("cc-by-sa", "rights", "cc_sharealike"),
            ("cc-by-nc", "rights", "cc_noncommercial"),
            ("cc-by-nd", "rights", "cc_nonderived"),
        ],
    ),
    Filter::one(
        "age",
        &[
            ("day", "dateRestrict", "d1"),
            ("week", "dateRestrict", "w1"),
            ("month", "dateRestrict", "m1"),
            ("year", "dateRestrict", "y1"),
        ],
    ),
    SAFE,
];

/// Those of its results pages.
const PAGE_FILTERS: &[Filter] = &[
    Filter::one(
        "age",
        &[
            ("day", "tbs", "qdr:d"),
            ("week", "tbs", "qdr:w"),
            ("month", "tbs", "qdr:m"),
            ("year", "tbs", "qdr:y"),
        ],
    ),
    SAFE,
];

/// Results that the API gives for one query, and for one request.
const LAST_RESULT: u64 = 100;
const LARGEST_PAGE: u32 = 10;

/// Results on one of its pages, and pages that are asked for.
const ON_A_PAGE: u64 = 10;
const LAST_PAGE: u64 = 50;

pub(super) fn new(settings: &Provider) -> Made {
    let engine = settings.engine.trim().to_owned();
    match (settings.key().cloned(), engine.is_empty()) {
        (Some(key), false) => Ok(Arc::new(Api {
            url: settings.url("google")?,
            key,
            engine,
            page_size: settings.page_size(LARGEST_PAGE),
        })),
        (None, true) => Ok(Arc::new(Pages {
            url: settings.pages_url.clone().ok_or(
                "`google` needs `search.google.key` and `search.google.engine`, or `search.google.pages_url`",
            )?,
        })),
        (Some(_), true) => Err("`google` has a key and needs `search.google.engine` beside it".to_owned()),
        (None, false) => Err("`google` has an engine and needs `search.google.key` beside it".to_owned()),
    }
}

#[derive(Debug)]
struct Api {
    url: Url,
    key: SecretString,
    engine: String,
    page_size: u64,
}

impl SearchProvider for Api {
    fn name(&self) -> &'static str {
        "google"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let mut parameters = query.parameters(FILTERS, "|");
        parameters.extend([
            ("q", query.text.clone()),
            ("cx", self.engine.clone()),
            ("searchType", "image".to_owned()),
            ("num", self.page_size.to_string()),
            ("start", Cursor::at(cursor, 1).to_string()),
        ]);
        Ok(PageRequest::new(&self.url, parameters).secret_parameter("key", &self.key))
    }

    /// What is wrong with the key may be a 400, and 403 may be a quota.
    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        let text = answer.text();
        let is_key = text.contains("API key not valid") || text.contains("API_KEY_INVALID");
        let is_quota = [
            "dailyLimitExceeded",
            "rateLimitExceeded",
            "RESOURCE_EXHAUSTED",
        ]
        .iter()
        .any(|word| text.contains(word));
        match judge::judge(answer) {
            Err(SearchError::Refused { detail }) if is_key => Err(SearchError::Key { detail }),
            Err(SearchError::Key { detail }) if is_quota => Err(SearchError::Quota {
                detail,
                retry_after: answer.retry_after(),
            }),
            judged => judged,
        }
    }

    fn parse(
        &self,
        _: &Query,
        cursor: Option<&Cursor>,
        answer: &Answer,
    ) -> Result<Page, SearchError> {
        let start = Cursor::at(cursor, 1);
        // Whether the last ten of a hundred may be asked for is told in two ways.
        if start > 1 && start.saturating_add(self.page_size) > LAST_RESULT && answer.status == 400 {
            return Ok(Page::default());
        }
        self.judge(answer)?;
        let document = json::document(answer)?;
        let items = match document.get("items") {
            Some(Value::Array(items)) => items.as_slice(),
            // As it says that there are none.
            None if document.get("searchInformation").is_some()
                || document.get("queries").is_some() =>
            {
                &[]
            }
            _ => json::items(&document, "items")?,
        };
        let next = json::number(&document, "/queries/nextPage/0/startIndex");
        let next = next.filter(|next| *next > start && *next <= LAST_RESULT);
        Ok(Page::of(items.iter().map(|item| {
            Some(Found {
                page: json::string(item, "/image/contextLink"),
                thumbnail: json::string(item, "/image/thumbnailLink"),
                title: json::string(item, "/title"),
                width: json::number(item, "/image/width"),
                height: json::number(item, "/image/height"),
                bytes: json::number(item, "/image/byteSize"),
                media_type: json::string(item, "/mime"),
                ..Found::new(json::text(item, "/link")?)?
            })
        }))
        .followed_by(next.map(Cursor::At)))
    }
}

/// Its results pages: the one for old telephones, the one for browsers without JavaScript, and what stands in scripts.
#[derive(Debug)]
struct Pages {
    url: Url,
}

impl SearchProvider for Pages {
    fn name(&self) -> &'static str {
        "google"
    }

    fn filters(&self) -> &[Filter] {
        PAGE_FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        let mut parameters = query.parameters(PAGE_FILTERS, ",");
        let fixed = [
            ("tbm", "isch"),
            ("sca_esv", "1"),
            ("ie", "utf8"),
            ("oe", "utf8"),
        ];
        parameters.push(("q", query.text.clone()));
        parameters.extend(fixed.map(|(name, value)| (name, value.to_owned())));
        let start = Cursor::at(cursor, 0);
        if start > 0 {
            parameters.push(("start", start.to_string()));
        }
        Ok(PageRequest::new(&self.url, parameters))
    }

    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        judge::judge_page(answer)
    }

    fn parse(
        &self,
        _: &Query,
        cursor: Option<&Cursor>,
        answer: &Answer,
    ) -> Result<Page, SearchError> {
        self.judge(answer)?;
        let document = answer.text();
        let Read {
            links,
            thumbnails,
            scripts,
            is_search,
        } = self.read(&document);
        // The best of what there is: both others have less to say.
        let items = [links, scripts, thumbnails]
            .into_iter()
            .find(|items| !items.is_empty())
            .unwrap_or_default();
        let start = Cursor::at(cursor, 0);
        if items.is_empty() && !is_search {
            return Err(match judge::challenge(answer) {
                Some(detail) => SearchError::Blocked { detail },
                None if start > 0 => return Ok(Page::default()),
                None => SearchError::Changed {
                    detail: "its page has neither results nor a field to search with".to_owned(),
                },
            });
        }
        let next = start.saturating_add(ON_A_PAGE);
        let next = (next < LAST_PAGE * ON_A_PAGE).then_some(Cursor::At(next));
        Ok(Page::of(items).followed_by(next))
    }
}

/// What stands in a page.
#[derive(Debug, Default)]
struct Read {
    links: Vec<Option<Found>>,
    thumbnails: Vec<Option<Found>>,
    scripts: Vec<Option<Found>>,
    /// Whether there is a field to search with, and JavaScript is not asked for.
    is_search: bool,
}

impl Pages {
    fn read(&self, document: &str) -> Read {
        let mut read = Read::default();
        let mut page = None;
        let mut is_script = false;
        for piece in pieces(document) {
            match piece {
                Piece::Tag(tag) => {
                    is_script = tag.name == "script";
                    let href = tag.attribute("href").unwrap_or_default();
                    match tag.name.as_str() {
                        "a" if href.contains("imgres?") => read.links.push(self.link(href)),
                        "a" => page = self.parameters(href).remove("q"),
                        "img" => {
                            let src = tag.attribute("src").unwrap_or_default();
                            if src.contains("images?q=tbn:") {
                                read.thumbnails.push(Found::new(src).map(|found| Found {
                                    page: page.clone(),
                                    title: tag.attribute("alt").map(str::to_owned),
                                    ..found
                                }));
                            }
                        }
                        "input" => read.is_search |= tag.attribute("name") == Some("q"),
                        _ => {}
                    }
                }
                Piece::End(name) => {
                    if name == "a" {
                        page = None;
                    }
                    is_script = false;
                }
                Piece::Text(text) if is_script => scripted(&text, &mut read.scripts),
                Piece::Text(_) => {}
            }
        }
        read.is_search &= !document.contains("enablejs");
        read
    }

    fn parameters(&self, href: &str) -> HashMap<String, String> {
        let url = self.url.join(href).ok();
        let query = url.as_ref().and_then(Url::query).unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    /// What a link to the page of one image says of it.
    fn link(&self, href: &str) -> Option<Found> {
        let mut parameters = self.parameters(href);
        let number = |text: Option<&String>| text.and_then(|text| text.parse().ok());
        let (width, height) = (number(parameters.get("w")), number(parameters.get("h")));
        let thumbnail = parameters.get("tbnid").map(|id| {
            let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
            format!("https://encrypted-tbn0.gstatic.com/images?q=tbn:{id}")
        });
        Some(Found {
            page: parameters.remove("imgrefurl"),
            thumbnail,
            width,
            height,
            ..Found::new(parameters.get("imgurl")?)?
        })
    }
}

/// Addresses of images that stand in a script between quotation marks, perhaps with escapes of JavaScript.
fn scripted(script: &str, found: &mut Vec<Option<Found>>) {
    for text in script.split('"').filter(|text| text.starts_with("http")) {
        let address = unescaped(text);
        let Some(result) = Found::new(&address) else {
            continue;
        };
        let path = result.url.path().to_ascii_lowercase();
        let is_image = [".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"]
            .iter()
            .any(|ending| path.ends_with(ending));
        let host = result.url.host_str().unwrap_or_default();
        let is_own = ["google.com", "gstatic.com"]
            .iter()
            .any(|own| host == *own || host.ends_with(&format!(".{own}")));
        if is_image && !is_own {
            found.push(Some(result));
        }
    }
}

/// `\u003d`, `\x3d` and `\/` as what they stand for.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        let digits = match escape.as_bytes().first() {
            Some(b'u') => 4,
            Some(b'x') => 2,
            _ => 0,
        };
        let code = escape.get(1..=digits).filter(|_| digits > 0);
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => {
                plain.push(c);
                rest = &escape[digits + 1..];
            }
            None => rest = escape,
        }
    }
    plain.push_str(rest);
    plain
}
