//! What the upkeep of files asks for: albums and their limits, and the URLs that files came from.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{KnownFile, TargetKey, millis};
use crate::target::Sha256;

/// An album with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlbumRow {
    /// Empty for the root folder, which JSON has as `null`.
    #[serde(serialize_with = "null_where_empty")]
    pub name: String,
    /// How many files it holds.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the newest of them came.
    pub newest: Option<DateTime<Utc>>,
    /// What clients said of it: a JSON object.
    #[serde(serialize_with = "as_json", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// A file with all that is known of it but its URLs.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// The file.
    pub file: KnownFile,
    /// Its album; empty: the root folder.
    pub album: String,
    /// When its bytes came.
    pub stored: DateTime<Utc>,
    /// What its list says of it besides: a JSON object.
    pub metadata: Option<String>,
    /// The name in `Content-Disposition`, unchanged. `None` also if it was not recorded.
    pub header_name: Option<String>,
    /// Its line in the list. `None` also if it was not recorded.
    pub line: Option<u64>,
    /// Its group in the list. `None` also if it was not recorded.
    pub group: Option<String>,
    /// The origin's time of the last modification. `None` also if it was not recorded.
    pub last_modified: Option<DateTime<Utc>>,
    /// Set if a client has named it.
    pub by_client: bool,
}

/// By what files are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// The URL of a target, as it is recorded.
    Url(String),
    /// The digest of their bytes.
    Sha256(Sha256),
    /// Their path below the store's root.
    Path(String),
}

/// What an album may hold. The newest files stay; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// How long ago the bytes of a file may have come.
    pub max_age: Option<Duration>,
    /// How many files.
    pub max_files: Option<u64>,
    /// How many bytes in all.
    pub max_bytes: Option<u64>,
}

/// A URL that stands for a file, with what it takes to fetch it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlRow {
    /// The file.
    pub file: Uuid,
    /// Under which it is known. It cannot be derived from the rest: the URL may have had credentials.
    pub key: TargetKey,
    /// The URL without credentials.
    pub url: String,
    /// The album that it was meant for; empty: the root folder.
    pub album: String,
    /// The name that its list wants.
    pub name: Option<String>,
}

/// Identifies the record of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlName {
    /// Key of the record.
    pub key: TargetKey,
    /// The URL without credentials.
    pub url: String,
    /// The album that its list asks for. Empty means the root folder.
    pub album: String,
    /// The file name that its list asks for.
    pub name: Option<String>,
}

fn null_where_empty<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(name)
        .filter(|name| !name.is_empty())
        .serialize(serializer)
}

fn as_json<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let value = text
        .as_deref()
        .map(serde_json::from_str::<serde_json::Value>);
    value.and_then(Result::ok).serialize(serializer)
}

impl Limits {
    /// The time, in milliseconds, before which bytes are too old.
    pub(super) fn oldest(&self, now: DateTime<Utc>) -> i64 {
        let age = self.max_age.map(|age| i64::try_from(age.as_millis()));
        age.and_then(Result::ok)
            .map_or(i64::MIN, |age| millis(now).saturating_sub(age))
    }
}
