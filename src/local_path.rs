//! Paths of the local file system, as given in settings and flags.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use url::Url;

use crate::target::SafeUrl;

/// A path on this machine, from a setting or flag. May be empty if the setting allows that for "none".
///
/// URLs are refused. `s3://bucket/x` is a valid relative path, so accepting it would create a folder `s3:` and fill
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LocalPath(PathBuf);

/// The error for a URL in place of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` {IS_A_URL}; write {instead}")]
pub struct NotALocalPath {
    /// The URL without credentials.
    shown: String,
    /// Suggested replacement.
    instead: String,
}

const IS_A_URL: &str = "is a URL, not a path";

/// Schemes that also count before a `:` without a `/` behind it, as tools for copying and backup write them
/// (`sftp:host:/dir`).
///
/// Sorted.
const SCHEMES: [&str; 37] = [
    "abfs", "abfss", "adl", "az", "azure", "b2", "cos", "dav", "davs", "dbfs", "file", "ftp",
    "ftps", "gcs", "gs", "hdfs", "http", "https", "ipfs", "nfs", "obs", "oss", "r2", "rclone",
    "rsync", "s3", "s3a", "s3n", "scp", "sftp", "smb", "ssh", "swift", "wasb", "wasbs", "webdav",
    "webdavs",
];

impl LocalPath {
    /// Takes `path` unchanged.
    ///
    /// # Errors
    ///
    /// When it is a URL: a scheme of two characters or more (a single letter is a Windows drive) before `:/`, or a
    /// well-known one before `:`. `./s3:x` is a path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, NotALocalPath> {
        let path = path.into();
        match path.to_str().filter(|text| is_url(text)) {
            Some(url) => Err(NotALocalPath::new(url)),
            None => Ok(Self(path)),
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.trim_start().split_once(':') else {
        return false;
    };
    // RFC 3986, section 3.1.
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_known = || {
        SCHEMES
            .binary_search(&&*scheme.to_ascii_lowercase())
            .is_ok()
    };
    is_scheme && (rest.starts_with('/') || is_known())
}

impl NotALocalPath {
    /// Whether `message` holds this error. Deserializers pass errors on as text.
    pub fn is_in(message: &str) -> bool {
        message.contains(IS_A_URL)
    }

    fn new(text: &str) -> Self {
        let url = Url::parse(text.trim());
        let path = url.as_ref().ok();
        let path = path.filter(|url| url.scheme() == "file");
        let instead = match path.and_then(|url| url.to_file_path().ok()) {
            Some(path) => format!("`{}`", path.display()),
            None => "a path of the local file system, where a bucket or a share can be mounted"
                .to_owned(),
        };
        let shown = match &url {
            Ok(url) if url.username().is_empty() && url.password().is_none() => text.to_owned(),
            Ok(url) => SafeUrl::new(url).to_string(),
            // A URL that does not parse may hold credentials anywhere.
            Err(_) => {
                let scheme = text.split(':').next().unwrap_or_default();
                format!("{}:…", scheme.trim())
            }
        };
        Self {
            shown: shown.escape_debug().to_string(),
            instead: instead.escape_debug().to_string(),
        }
    }
}

impl Deref for LocalPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for LocalPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl From<LocalPath> for PathBuf {
    fn from(path: LocalPath) -> Self {
        path.0
    }
}

impl TryFrom<PathBuf> for LocalPath {
    type Error = NotALocalPath;

    fn try_from(path: PathBuf) -> Result<Self, NotALocalPath> {
        Self::new(path)
    }
}

impl fmt::Display for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.display(), f)
    }
}

impl<'de> Deserialize<'de> for LocalPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(PathBuf::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Deserializes a setting in which an empty string means `None`.
///
/// # Errors
///
/// As [`LocalPath::new`].
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LocalPath>, D::Error> {
    let path = LocalPath::deserialize(deserializer)?;
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_no_path() {
        for url in [
            "s3://bucket/x",
            "S3://bucket/x",
            "s3a://bucket",
            "gs://bucket/x",
            "az://container/x",
            "abfss://container@account.dfs.core.windows.net/x",
            "https://example.org/x",
            "HTTP://example.org",
            "ftp://example.org/x",
            "sftp://ann@example.org/x",
            "sftp:ann@example.org:/x",
            "s3:bucket/x",
            "s3:/bucket/x",
            "dbfs:/x",
            "dbfs:x",
            "made-up:/x",
            "memory://x",
            "git+ssh://example.org/x",
            "made-up.scheme://x",
            " s3://bucket/x",
            "s3://",
            "file:///data/x",
            "file:/data/x",
            "file://localhost/data/x",
        ] {
            let error = LocalPath::new(url).expect_err(url).to_string();
            assert!(error.contains("is a URL"), "{error}");
        }
    }

    #[test]
    fn what_has_a_colon_may_be_a_path() {
        for path in [
            "",
            ".",
            "pictures",
            "a:b",
            "a:/b",
            "a:b/c",
            "photos:2026/x",
            "12:30",
            "C:\\pictures",
            "c:/pictures",
            "./s3:bucket",
            "./s3://bucket",
            "/data/s3://bucket",
            "a/b://c",
            "a b://c",
            "2026://x",
            "s3",
            "://x",
        ] {
            assert_eq!(LocalPath::new(path).expect(path).as_path(), Path::new(path));
        }
    }

    #[test]
    fn the_error_says_what_to_write_and_no_password() {
        let error = |text: &str| LocalPath::new(text).unwrap_err().to_string();
        assert_eq!(
            error("s3://bucket/x"),
            "`s3://bucket/x` is a URL, not a path; write a path of the local file system, where a bucket or a share can be \
             mounted"
        );
        assert!(error("file:///data/a%20b").ends_with("write `/data/a b`"));
        assert!(!error("sftp://ann:secret@example.org/x").contains("secret"));
        assert!(!error("sftp://ann:secret@example.org:port/x").contains("secret"));
    }

    #[test]
    fn the_schemes_can_be_searched() {
        assert!(SCHEMES.is_sorted());
    }
}
