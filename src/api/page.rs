//! Long lists, page by page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;

/// Some of a list, in the order of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// What `cursor` has to be for the next page; `None`: this is the last one.
    #[schema(required = true)]
    next: Option<String>,
}

impl<T> Page<T> {
    /// All of a short list.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// The page of `rows`, of which one more than the limit was asked for: with it, there is another page, behind `key`
    /// of its last row.
    pub(super) fn of<R>(
        list: List,
        limit: Limit,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
    ) -> (Vec<R>, Page<T>) {
        let is_last = rows.len() <= limit.0 as usize;
        rows.truncate(limit.0 as usize);
        let last = rows.last().filter(|_| !is_last);
        let next = last.map(|row| list.cursor(&key(row)));
        let page = Self {
            items: Vec::with_capacity(rows.len()),
            next,
        };
        (rows, page)
    }

    pub(super) fn with(mut self, items: impl IntoIterator<Item = T>) -> Self {
        self.items.extend(items);
        self
    }
}

/// How many items a page has at most.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(try_from = "u32")]
#[schema(minimum = 1, maximum = 1000, default = 100)]
pub(super) struct Limit(u32);

impl Limit {
    /// How many rows to ask for, so as to see whether there is another page.
    pub(super) fn and_one(self) -> u32 {
        self.0 + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u32> for Limit {
    type Error = &'static str;

    fn try_from(limit: u32) -> Result<Self, Self::Error> {
        match limit {
            1..=1000 => Ok(Self(limit)),
            _ => Err("expected a number from 1 to 1000"),
        }
    }
}

/// A list that comes in pages. Its cursors are good for no other.
#[derive(Debug, Clone, Copy)]
pub(super) enum List {
    Jobs,
    Items,
    Groups,
    Albums,
    Images,
    Found,
}

impl List {
    fn mark(self) -> char {
        match self {
            Self::Jobs => 'j',
            Self::Items => 'i',
            Self::Groups => 'g',
            Self::Albums => 'a',
            Self::Images => 'f',
            Self::Found => 'l',
        }
    }

    /// What stands for a key. Clients take it as it is.
    fn cursor(self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{key}", self.mark()))
    }

    /// The key that a cursor stands for.
    pub(super) fn key<K: std::str::FromStr>(
        self,
        cursor: Option<&str>,
    ) -> Result<Option<K>, Problem> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let key = text.and_then(|text| text.strip_prefix(self.mark())?.parse().ok());
        key.map(Some).ok_or_else(|| {
            Problem::bad_request(
                "the query cannot be used: cursor: expected `next` of an earlier page of this list",
            )
        })
    }
}
