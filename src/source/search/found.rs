//! What is found.

use serde_json::{Map, Value};
use url::Url;

use super::{Cursor, Query};
use crate::source::address;
use crate::target::Target;

/// Longest text that is kept of a result, in characters.
const MAX_TEXT: usize = 1000;

/// Longest address that is kept beside that of the image, in bytes.
const MAX_ADDRESS: usize = 4096;

/// A page of results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the provider's order.
    pub results: Vec<Found>,
    /// Items that could not be read.
    pub broken: usize,
    /// Where the next page is; `None`: this is the last one.
    pub next: Option<Cursor>,
}

impl Page {
    /// The page of these items; `None` stands for one that could not be read.
    pub fn of(items: impl IntoIterator<Item = Option<Found>>) -> Self {
        let mut page = Self::default();
        for item in items {
            match item {
                Some(found) => page.results.push(found),
                None => page.broken += 1,
            }
        }
        page
    }

    /// Where the next page is, unless this one has no results.
    pub fn followed_by(mut self, next: Option<Cursor>) -> Self {
        self.next = next.filter(|_| !self.results.is_empty());
        self
    }
}

/// One result. Beside the address of the image nothing is sure to be there, nor to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The image.
    pub url: Url,
    /// The page that shows it.
    pub page: Option<String>,
    /// A smaller picture of it.
    pub thumbnail: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Pixels, as the provider has it.
    pub width: Option<u64>,
    /// Pixels, as the provider has it.
    pub height: Option<u64>,
    /// Size of the file in bytes, as the provider has it.
    pub bytes: Option<u64>,
    /// Media type, as the provider has it.
    pub media_type: Option<String>,
    /// Its licence, as the provider calls it.
    pub licence: Option<String>,
    /// Where the licence can be read.
    pub licence_url: Option<String>,
    /// Who made it.
    pub creator: Option<String>,
}

impl Found {
    /// A result of which nothing else is known. `None`: `url` is no `http` or `https` URL. One that lacks its scheme
    /// (`//host/path`) gets `https`.
    pub fn new(url: &str) -> Option<Self> {
        let url = url.trim();
        let url = match url.strip_prefix("//") {
            Some(rest) => address::parse(format!("https://{rest}").as_bytes()),
            None => address::parse(url.as_bytes()),
        };
        Some(Self {
            url: url.ok()?,
            page: None,
            thumbnail: None,
            title: None,
            width: None,
            height: None,
            bytes: None,
            media_type: None,
            licence: None,
            licence_url: None,
            creator: None,
        })
    }

    /// The target of it: the `rank`th result, from 1 on, of `query` with `provider`.
    pub(super) fn into_target(self, provider: &str, query: &Query, rank: u64) -> Target {
        let mut metadata = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        };
        let text = |text: Option<String>| text.as_deref().and_then(tidy).map(Value::from);
        let address = |text: Option<String>| {
            text.filter(|text| text.len() <= MAX_ADDRESS && address::looks_like_url(text))
                .map(Value::from)
        };
        put("title", text(self.title));
        put("page", address(self.page));
        put("thumbnail", address(self.thumbnail));
        put("licence", text(self.licence));
        put("licence_url", address(self.licence_url));
        put("creator", text(self.creator));
        put("found_width", self.width.map(Value::from));
        put("found_height", self.height.map(Value::from));
        put("found_bytes", self.bytes.map(Value::from));
        put("found_media_type", text(self.media_type));
        put("provider", Some(provider.into()));
        put("query", Some(query.text.clone().into()));
        put("rank", Some(rank.into()));
        Target {
            metadata: Some(Box::new(metadata)),
            ..Target::new(self.url)
        }
    }
}

/// `text` with single spaces, without control characters, and not too long; `None` where nothing is left.
pub(super) fn tidy(text: &str) -> Option<String> {
    let mut tidied = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !tidied.is_empty() {
            tidied.push(' ');
        }
        tidied.push_str(word);
        if tidied.len() > 4 * MAX_TEXT {
            break;
        }
    }
    if let Some((at, _)) = tidied.char_indices().nth(MAX_TEXT) {
        tidied.truncate(at);
    }
    (!tidied.is_empty()).then_some(tidied)
}

/// The media type of what has this extension.
pub(super) fn media_type(extension: &str) -> String {
    match extension.to_ascii_lowercase().as_str() {
        "jpg" => "image/jpeg".to_owned(),
        "svg" => "image/svg+xml".to_owned(),
        other => format!("image/{other}"),
    }
}
