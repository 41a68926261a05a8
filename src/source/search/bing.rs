//! Bing: its results pages, as its own page asks for more of them. There is no interface for programs.

use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::html::{Piece, Tag, pieces};
use super::registry::{Made, Provider};
use super::{
    Answer, Cursor, Filter, Found, Page, PageRequest, Query, SearchError, SearchProvider, json,
    judge,
};

const FILTERS: &[Filter] = &[
    Filter::one(
        "size",
        &[
            ("small", "qft", "+filterui:imagesize-small"),
            ("medium", "qft", "+filterui:imagesize-medium"),
            ("large", "qft", "+filterui:imagesize-large"),
        ],
    ),
    Filter::one(
        "type",
        &[
            ("photo", "qft", "+filterui:photo-photo"),
            ("illustration", "qft", "+filterui:photo-clipart"),
            ("lineart", "qft", "+filterui:photo-linedrawing"),
            ("animated", "qft", "+filterui:photo-animatedgif"),
            ("face", "qft", "+filterui:face-face"),
        ],
    ),
    Filter::one(
        "licence",
        &[
            ("cc", "qft", "+filterui:licenseType-Any"),
            ("pd", "qft", "+filterui:license-L1"),
            ("commercial", "qft", "+filterui:license-L2_L3_L4"),
            ("modification", "qft", "+filterui:license-L2_L3_L5_L6"),
        ],
    ),
    Filter::one(
        "age",
        &[
            ("day", "qft", "+filterui:age-lt1440"),
            ("week", "qft", "+filterui:age-lt10080"),
            ("month", "qft", "+filterui:age-lt43200"),
            ("year", "qft", "+filterui:age-lt525600"),
        ],
    ),
    Filter::one(
        "safe",
        &[
            ("on", "adlt", "strict"),
            ("moderate", "adlt", "moderate"),
            ("off", "adlt", "off"),
        ],
    ),
];

const LARGEST_PAGE: u32 = 35;

#[derive(Debug)]
struct Bing {
    url: Url,
    page_size: u64,
}

pub(super) fn new(settings: &Provider) -> Made {
    settings.only("bing", &["page_size"])?;
    Ok(Arc::new(Bing {
        url: settings.url("bing")?,
        page_size: settings.page_size(LARGEST_PAGE),
    }))
}

impl SearchProvider for Bing {
    fn name(&self) -> &'static str {
        "bing"
    }

    fn filters(&self) -> &[Filter] {
        FILTERS
    }

    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError> {
        // Also those of an address that it gave: they may have got lost.
        let mut parameters = query.parameters(FILTERS, "");
        Ok(match cursor {
            Some(Cursor::Next(next)) => PageRequest::new(next, parameters),
            _ => {
                parameters.extend([
                    ("q", query.text.clone()),
                    ("async", "1".to_owned()),
                    ("mmasync", "1".to_owned()),
                    ("first", "1".to_owned()),
                    ("count", self.page_size.to_string()),
                ]);
                PageRequest::new(&self.url, parameters)
            }
        })
    }

    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        judge::judge_page(answer)
    }

    fn parse(&self, _: &Query, _: Option<&Cursor>, answer: &Answer) -> Result<Page, SearchError> {
        self.judge(answer)?;
        let document = answer.text();
        let (mut items, mut next) = (Vec::new(), None);
        // A frame for results may hold none; anything else is something else.
        let mut has_frame = document.trim().is_empty();
        for piece in pieces(&document) {
            let Piece::Tag(tag) = piece else { continue };
            if tag.is_of_class("dg_b") || tag.is_of_class("dgControl") {
                has_frame = true;
            }
            if let Some(more) = tag.attribute("data-nexturl") {
                next = next.or_else(|| self.next(more));
            }
            // What stands between them without this class are advertisements.
            if tag.name == "a" && tag.is_of_class("iusc") {
                items.push(found(&tag));
            }
        }
        if items.is_empty() && !has_frame {
            return Err(match judge::challenge(answer) {
                Some(detail) => SearchError::Blocked { detail },
                None => SearchError::Changed {
                    detail: "its page has no place for results".to_owned(),
                },
            });
        }
        Ok(Page::of(items).followed_by(next.map(Cursor::Next)))
    }
}

impl Bing {
    /// The next page, where it is on the same site.
    fn next(&self, address: &str) -> Option<Url> {
        let next = self.url.join(address).ok()?;
        (!address.is_empty() && next.origin() == self.url.origin()).then_some(next)
    }
}

/// What an anchor says of its image: most of it as JSON in `m`, the size in the query of `href`.
fn found(tag: &Tag) -> Option<Found> {
    let about: Value = serde_json::from_str(tag.attribute("m")?).ok()?;
    let href = tag.attribute("href").unwrap_or_default();
    let (_, query) = href.split_once('?').unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    };
    Some(Found {
        page: json::string(&about, "/purl"),
        thumbnail: json::string(&about, "/turl"),
        title: json::string(&about, "/t"),
        width: parameter("expw").and_then(|width| width.parse().ok()),
        height: parameter("exph").and_then(|height| height.parse().ok()),
        ..Found::new(json::text(&about, "/murl")?)?
    })
}
