//! What gannet remembers: URLs, files, albums, jobs and their outcomes.
//!
//! [`Catalog`] reads and writes it. Reads go by chunks of keys, writes by batches: one transaction for
//! hundreds of [`Record`]s, after which all of them are durable. [`Known`] is what an earlier run learnt
//! of a URL; [`JobRow`] and [`OutcomeRow`] are the history.
//!
//! This room knows nothing of how bytes are fetched or kept: it stores what it is told, in one go.

mod history;
mod record;
mod sqlite;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeZone as _, Utc};
use rusqlite::Row;
use rusqlite::types::Type;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::naming::NameFrom;
use crate::target::{AlbumName, Reason, Sha256, Sha256Hasher};

pub use history::{JobRow, OutcomeFilter, OutcomeRow};
pub use record::{FileRow, Record, Wanted};
pub use sqlite::Catalog;

/// `[catalog]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Empty: SQLite in the store; `sqlite:PATH`: elsewhere.
    pub url: String,
}

/// Names what a job wants of a URL: the URL, the album it goes into, and the name that the list asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey([u8; 16]);

impl TargetKey {
    /// The key of a URL with its credentials; the digest does not show them.
    pub fn of(url: &Url, album: Option<&AlbumName>, name: Option<&str>) -> Self {
        let mut hasher = Sha256Hasher::default();
        hasher.update(url.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(album.map_or("", AlbumName::as_str).as_bytes());
        hasher.update(&[0]);
        hasher.update(name.unwrap_or("").as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finish().0[..16]);
        Self(key)
    }
}

/// What is known of a URL.
#[derive(Debug, Clone)]
pub struct Known {
    /// The last job that had it.
    pub job: Uuid,
    /// What it brought.
    pub file: Option<KnownFile>,
    /// `ETag` of the last answer that brought or confirmed the file.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
    /// Until when that answer is fresh (RFC 9111, section 4.2).
    pub fresh_until: Option<DateTime<Utc>>,
    /// When the origin gave that answer.
    pub checked: Option<DateTime<Utc>>,
}

impl Known {
    /// Whether the origin need not be asked: its answer is fresh by its own word, or younger than
    /// `refresh_after`.
    pub fn is_fresh(&self, now: DateTime<Utc>, refresh_after: Duration) -> bool {
        let Some(checked) = self.checked.filter(|_| self.file.is_some()) else {
            return false;
        };
        let age = (now - checked).to_std().unwrap_or_default();
        self.fresh_until.is_some_and(|until| now < until) || age < refresh_after
    }

    /// Has the origin asked for the bytes, whatever it said about those that were there.
    pub fn forget_validators(&mut self) {
        self.etag = None;
        self.last_modified = None;
        self.fresh_until = None;
        self.checked = None;
    }
}

/// A file as the catalog has it.
#[derive(Debug, Clone)]
pub struct KnownFile {
    /// Stays the same when the bytes change.
    pub id: Uuid,
    /// Relative to the store's root.
    pub path: String,
    /// gannet's word for the format.
    pub format: String,
    /// Media type of the bytes.
    pub media_type: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// Width and height in pixels.
    pub dimensions: Option<(u32, u32)>,
    /// Whether it may run code in a browser.
    pub active: bool,
    /// What gave it its name.
    pub name_from: NameFrom,
    /// Whether it is where it should be. The catalog says yes; who looked says what he saw.
    pub is_present: bool,
}

/// Why the catalog could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The setting names no catalog that this version has.
    #[error("`catalog.url` is `{0}`; leave it empty or write `sqlite:PATH`")]
    UnsupportedUrl(String),
    /// It cannot be opened.
    #[error("cannot open the catalog `{path}`")]
    Open {
        /// The database file.
        path: PathBuf,
        /// What the database said.
        source: rusqlite::Error,
    },
    /// Its tables cannot be brought up to date.
    #[error("cannot bring the catalog `{path}` up to date; a newer gannet may have written it")]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// What the migration said.
        source: rusqlite_migration::Error,
    },
    /// A query failed.
    #[error("the catalog cannot {action}")]
    Query {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the database said.
        source: rusqlite::Error,
    },
    /// The thread that asked it is gone.
    #[error("a worker thread of the catalog panicked; please report it")]
    Worker,
}

impl CatalogError {
    fn query(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Query { action, source }
    }

    /// The stable code that reports and the API carry.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Open { source, .. } | Self::Query { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                Reason::StoreFull
            }
            _ => Reason::StoreError,
        }
    }
}

/// Milliseconds since 1970, as the catalog keeps times.
fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

fn from_millis(millis: i64) -> DateTime<Utc> {
    Utc.timestamp_millis_opt(millis)
        .single()
        .unwrap_or_default()
}

/// Reads one of our words; one that no gannet writes is an error that names it.
fn word<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|_| {
        let unknown = format!("the catalog holds an unreadable {column}: `{text}`");
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, unknown.into())
    })
}

#[cfg(test)]
mod tests;
