//! Where URLs come from: [`Source`], and the lists that sources yield when they are read.
//!
//! | type | reads |
//! |---|---|
//! | [`FileSource`] | a path, or standard input as `-` |
//! | [`RemoteSource`] | the list behind an `http` or `https` URL, through a [`Reader`] that is handed in |
//! | [`InlineSource`] | URLs that stand in a command line or a job |
//! | [`GivenSource`] | targets that are known already, such as those of an earlier job |
//! | [`SearchSource`](search::SearchSource) | what image searches find |
//! | [`ChainSource`] | several sources, one after the other |
//!
//! A [`List`] is parsed on a thread of its own and arrives in chunks through a bounded channel, so that
//! ten million lines need no more memory than ten thousand. A line that is no URL becomes an
//! [`Invalid`] with its line number; a list that cannot be read, or that is something else than a
//! list, is a [`SourceError`].
//!
//! A [`Reader`] keeps the last good copy of each remote list on a [`Shelf`], to ask the origin only whether it changed.
//!
//! [`search`] has the providers of searches, and says how another is added.
//!
//! This room knows nothing of jobs, the catalog, or how connections are made.

mod address;
mod chain;
mod decode;
mod decompress;
mod detect;
mod encoding;
mod error;
mod file;
mod format;
mod given;
mod http;
mod inline;
mod lines;
mod list;
mod listed;
mod remote;
mod row;
pub mod search;
mod shelf;
mod sink;
mod spec;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::target::{Place as PostedPlace, Reason, Target, UnknownWord};

pub use address::recorded_target;
pub use chain::ChainSource;
pub use encoding::{ListEncoding, UnknownEncoding};
pub use error::SourceError;
pub use file::FileSource;
pub use given::GivenSource;
pub use inline::InlineSource;
pub use list::{List, Notice, NoticeKind};
pub use listed::Listed;
pub use remote::{Answer, Fetch, FetchFailure, Reader, RemoteBody, RemoteSource};
pub use shelf::Shelf;
pub use sink::CHUNK_ENTRIES;
pub use spec::{Place, SourceSpec, parse_source};

/// `[source]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Longest remote list, in bytes after content decoding and decompression.
    pub max_bytes: ByteSize,
    /// Encoding of lists, which overrides what they state themselves. `None` detects it.
    #[serde(deserialize_with = "encoding::or_none")]
    pub encoding: Option<ListEncoding>,
}

/// Yields a list of targets.
///
/// # Contract
///
/// - `open` returns once the format of the list is known, or with the error that explains why there
///   is no list. It may be called again, and reads the list anew then.
/// - `Display` names the source in messages and reports, and holds no credentials.
#[async_trait]
pub trait Source: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Begins to read the list. Cancel safe: a dropped call leaves nothing running.
    async fn open(&self) -> Result<List, SourceError>;

    /// Names the source from one job to the next, so that it can be told what it no longer lists. `None` where what
    /// it yields has nothing to do with what it yielded before, as on standard input.
    fn identity(&self) -> Option<String> {
        Some(self.to_string())
    }

    /// Whether it looks for targets rather than listing them: what it yields is no complete list of anything, and
    /// may hold the same contents under several URLs.
    fn is_search(&self) -> bool {
        false
    }

    /// Says early what is wrong, as far as it can be told without reading.
    async fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// One thing that a list says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A URL to fetch.
    Target(Target),
    /// A line that is no such thing.
    Invalid(Invalid),
}

/// A line, row, or element of a list that cannot become a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where it begins in its list, counted from 1; `None` for URLs that no list holds.
    pub line: Option<u64>,
    /// The first 200 characters of what stands there, credentials masked, control characters replaced.
    pub text: String,
    /// [`Reason::InvalidUrl`] or [`Reason::UnsupportedScheme`].
    pub reason: Reason,
    /// What is wrong, in words.
    pub detail: String,
    /// The group that it stands in.
    pub group: Option<Arc<str>>,
    /// Where it stands in a posted job.
    pub place: Option<PostedPlace>,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// One URL a line, comments with `#`, option lines as in aria2's input files.
    Text,
    /// Comma- or semicolon-separated values (RFC 4180) with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// JSON Lines: strings or objects. A single JSON array of them is understood too.
    Jsonl,
    /// A sitemap or sitemap index, as sitemaps.org describes them, with the image extension.
    Sitemap,
    /// RSS or Atom (RFC 4287): enclosures.
    Feed,
}

impl ListFormat {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Text,
        Self::Csv,
        Self::Tsv,
        Self::Jsonl,
        Self::Sitemap,
        Self::Feed,
    ];

    /// The word for it on the command line and in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Jsonl => "jsonl",
            Self::Sitemap => "sitemap",
            Self::Feed => "feed",
        }
    }
}

impl fmt::Display for ListFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ListFormat {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}
