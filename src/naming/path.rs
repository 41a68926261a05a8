//! Names and paths that are safe by construction.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::sanitise::{clean, is_device, is_removed, is_reserved, truncate};

/// Longest component of a path in bytes, on every common file system.
pub(super) const MAX_BYTES: usize = 255;

/// A base name that every common file system accepts.
///
/// Never empty, hidden, like an option of a command (`-rf`), a device name of Windows, or longer than 255 bytes.
/// Contains no separator, control, format or reserved character. It is in Unicode Normalization Form C and has no dot
/// or space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Takes `name` as it is; [`sanitise`](super::sanitise()) makes one from any text.
    ///
    /// # Errors
    ///
    /// When `name` does not keep the promises of the type.
    pub fn new(name: &str) -> Result<Self, InvalidPath> {
        let bad = |why| Err(InvalidPath::new(name, why));
        if let Err(why) = check_component(name) {
            return bad(why);
        }
        if name.starts_with('-') {
            return bad(BEGINS_WITH_DASH);
        }
        if name.contains(is_removed) {
            return bad("it holds an invisible character");
        }
        if is_device(name) {
            return bad("Windows keeps it for a device");
        }
        if clean(name) != name {
            return bad("it is not in normal form (NFC) or begins or ends with a space");
        }
        Ok(Self(name.into()))
    }

    /// For names that [`super::sanitise`] made.
    pub(super) fn trusted(name: &str) -> Self {
        debug_assert!(Self::new(name).is_ok(), "{name:?}");
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The extension as written, without its dot.
    pub fn extension(&self) -> Option<&str> {
        split_extension(&self.0).1
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A path below the store's root: relative, with `/` between its components, never leading elsewhere.
///
/// No component is empty, hidden (so none is `..` or `.gannet`), longer than 255 bytes, ends with a dot or space, or
/// holds a separator, control or reserved character. gannet makes none that begins with a dash; such paths from
/// earlier versions stay valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// Takes `path` as it is.
    ///
    /// # Errors
    ///
    /// When `path` does not keep the promises of the type.
    pub fn new(path: &str) -> Result<Self, InvalidPath> {
        for component in path.split('/') {
            check_component(component).map_err(|why| InvalidPath::new(path, why))?;
        }
        Ok(Self(path.into()))
    }

    /// The path as text, with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.split().1
    }

    /// The folder that holds the file; `None` for the root.
    pub fn folder(&self) -> Option<&str> {
        self.split().0
    }

    /// The path below `root` on this machine.
    pub fn below(&self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        path.extend(self.0.split('/'));
        path
    }

    /// The same path with `-` and `hex` before the extension. A name that gets too long loses the end
    /// of its stem, never of its suffix or extension.
    ///
    /// `hex` is expected to be hexadecimal digits; other characters are left out.
    #[must_use]
    pub fn with_suffix(&self, hex: &str) -> Self {
        let suffix: String = std::iter::once('-')
            .chain(hex.chars().filter(char::is_ascii_hexdigit).take(64))
            .collect();
        let (folder, name) = self.split();
        let name = insert(name, &suffix);
        match folder {
            Some(folder) => Self(format!("{folder}/{name}").into()),
            None => Self(name.into()),
        }
    }

    /// The same path with the time to the millisecond before the extension, in place of an earlier one, so
    /// that the files of a series sort as they came; and with `extension`.
    #[must_use]
    pub(super) fn dated(&self, when: DateTime<Utc>, extension: Option<&str>) -> Self {
        self.with_date(&when.format(DATE).to_string(), extension)
    }

    /// Replaces or adds a date, in the form of [`date_of`], and sets `extension`.
    #[must_use]
    pub(super) fn with_date(&self, date: &str, extension: Option<&str>) -> Self {
        let (folder, name) = self.split();
        let stem = undated(split_extension(name).0);
        let name = match extension {
            Some(extension) => format!("{stem}.{extension}"),
            None => stem.to_owned(),
        };
        let name = insert(&name, date);
        match folder {
            Some(folder) => Self(format!("{folder}/{name}").into()),
            None => Self(name.into()),
        }
    }

    /// Returns `true` if this is `first` with the digits that [`with_suffix`](Self::with_suffix) adds if `first` is
    /// taken.
    pub fn is_suffixed(&self, first: &Self) -> bool {
        let stem = split_extension(self.file_name()).0;
        let digits = stem.rsplit_once('-').map(|(_, digits)| digits);
        digits.is_some_and(|digits| {
            matches!(digits.len(), 8 | 32)
                && digits.bytes().all(|b| b.is_ascii_hexdigit())
                && first.with_suffix(digits) == *self
        })
    }

    /// For paths whose components are known to be safe.
    pub(super) fn trusted(path: &str) -> Self {
        debug_assert!(Self::new(path).is_ok(), "{path:?}");
        Self(path.into())
    }

    fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((folder, name)) => (Some(folder), name),
            None => (None, &self.0),
        }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for StorePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        Self::new(&path).map_err(serde::de::Error::custom)
    }
}

/// A text that cannot name a file in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot name a file: {why}", path.escape_debug())]
pub struct InvalidPath {
    path: String,
    why: &'static str,
}

impl InvalidPath {
    fn new(path: &str, why: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            why,
        }
    }
}

/// The reason for refusing a new name that commands would take for an option.
pub(super) const BEGINS_WITH_DASH: &str = "it begins with a dash";

/// The rules for one component of a path, or why it breaks them.
pub(super) fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("a component is empty");
    }
    if component.len() > MAX_BYTES {
        return Err("a component is longer than 255 bytes");
    }
    if component.starts_with('.') {
        return Err("a component begins with a dot");
    }
    if component.ends_with(['.', ' ']) {
        return Err("a component ends with a dot or space");
    }
    if component.contains(|c: char| c.is_control() || is_reserved(c)) {
        return Err("it holds a control character or one of \\ : * ? \" < > |");
    }
    Ok(())
}

/// Splits a name before the dot of its extension. A text of over 16 bytes, or with other characters than
/// ASCII letters, digits, `_` and `-`, is no extension.
pub(super) fn split_extension(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((stem, extension))
            if !stem.is_empty()
                && (1..=16).contains(&extension.len())
                && extension
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') =>
        {
            (stem, Some(extension))
        }
        _ => (name, None),
    }
}

/// Joins a clean stem and an extension into a name, cutting the stem where both are too long together.
pub(super) fn join(stem: &str, extension: Option<&str>) -> FileName {
    let tail = extension.map_or(0, |e| e.len() + 1);
    let mut stem = truncate(stem, MAX_BYTES - tail);
    let marked;
    if is_device(stem) {
        marked = format!("_{stem}");
        stem = truncate(&marked, MAX_BYTES - tail);
    }
    match extension {
        Some(extension) => FileName::trusted(&format!("{stem}.{extension}")),
        None => FileName::trusted(stem),
    }
}

/// Returns the time that [`StorePath::dated`] put into a name, with the `_` before it.
pub(super) fn date_of(name: &str) -> Option<&str> {
    let stem = split_extension(name).0;
    let date = &stem[undated(stem).len()..];
    (!date.is_empty()).then_some(date)
}

/// How a dated name tells its time: such as `_20261121-093015-042`, in UTC. `_` sorts behind the `.` of the first name,
/// which has no time.
const DATE: &str = "_%Y%m%d-%H%M%S-%3f";

/// The stem of a name without the time that dating put there.
pub(super) fn undated(stem: &str) -> &str {
    let at = stem.len().checked_sub("_YYYYMMDD-HHMMSS-mmm".len());
    let Some((name, date)) = at.and_then(|at| stem.split_at_checked(at)) else {
        return stem;
    };
    let is_date = date.bytes().enumerate().all(|(index, byte)| match index {
        0 => byte == b'_',
        9 | 16 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if is_date && !name.is_empty() {
        name
    } else {
        stem
    }
}

/// Puts `suffix`, at most 100 bytes, between the stem and the extension of a safe component.
pub(super) fn insert(name: &str, suffix: &str) -> String {
    let (stem, extension) = split_extension(name);
    let tail = suffix.len() + extension.map_or(0, |e| e.len() + 1);
    let stem = truncate(stem, MAX_BYTES.saturating_sub(tail));
    match extension {
        Some(extension) => format!("{stem}{suffix}.{extension}"),
        None => format!("{stem}{suffix}"),
    }
}
