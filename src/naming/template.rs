//! The layout of folders and files below the store's root.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::path::{BEGINS_WITH_DASH, FileName, StorePath, check_component, join, split_extension};
use super::sanitise::{clean, is_edge, is_removed};
use crate::target::{AlbumName, Sha256};

/// Describes paths in the store, such as `{album}/{date}/{name}`.
///
/// A field without a value is empty, and an empty component is dropped, such as `{album}/` in the root folder. Text
/// after `{name}` in the last component goes before the extension: `{name}-{host}` makes `photo-example.org.jpg`.
/// `{sha256}` can stand in for `{name}`, since no two contents share it.
/// Only `{album}` may expand to several folders; separators in other values become `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    folders: Vec<Vec<Part>>,
    /// The last component up to `{name}`, or all of it.
    before: Vec<Part>,
    after: Vec<Part>,
    has_name: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Album,
    Name,
    Host,
    Date,
    Time,
    Format,
    Group,
    /// Padded with zeros to this many digits.
    Line(usize),
    /// This many hexadecimal digits from the start.
    Sha256(usize),
    /// A member of the metadata.
    Meta(String),
}

/// Most digits of a line number, and the largest width in `{line:N}`.
const LINE_DIGITS: usize = 20;

/// Number of hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

impl Field {
    /// Parses the text between the braces.
    fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if let Some(name) = text.strip_prefix("meta.").filter(|name| !name.is_empty()) {
            return Ok(Self::Meta(name.to_owned()));
        }
        let (word, digits) = match text.split_once(':') {
            Some((word, digits)) => (word, Some(digits)),
            None => (text, None),
        };
        let up_to = |most: usize| {
            let plain = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let number = plain.and_then(|digits| digits.parse().ok());
            let number = number.filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| InvalidTemplate::Digits {
                field: text.to_owned(),
                most,
            })
        };
        Ok(match (word, digits) {
            ("album", None) => Self::Album,
            ("name", None) => Self::Name,
            ("host", None) => Self::Host,
            ("date", None) => Self::Date,
            ("time", None) => Self::Time,
            ("format", None) => Self::Format,
            ("group", None) => Self::Group,
            ("line", None) => Self::Line(1),
            ("line", Some(_)) => Self::Line(up_to(LINE_DIGITS)?),
            ("sha256", None) => Self::Sha256(SHA256_DIGITS),
            ("sha256", Some(_)) => Self::Sha256(up_to(SHA256_DIGITS)?),
            _ => return Err(InvalidTemplate::UnknownField(text.to_owned())),
        })
    }

    /// Appends the value to `text`, if there is one.
    fn write(&self, text: &mut String, name: Option<&FileName>, facts: &Facts<'_>) {
        // Writing to a string cannot fail.
        match self {
            Self::Album => text.push_str(facts.album.map_or("", AlbumName::as_str)),
            Self::Name => text.push_str(name.map_or("", FileName::as_str)),
            Self::Host => push_value(text, facts.host),
            Self::Format => text.push_str(facts.format),
            Self::Date => drop(write!(text, "{}", facts.when.format("%Y-%m-%d"))),
            Self::Time => drop(write!(text, "{}", facts.when.format("%H%M%S"))),
            Self::Group => push_value(text, facts.group.unwrap_or_default()),
            Self::Line(width) => {
                if let Some(line) = facts.line {
                    let _ = write!(text, "{line:0width$}");
                }
            }
            Self::Sha256(digits) => text.push_str(&facts.sha256.to_string()[..*digits]),
            Self::Meta(name) => match facts.metadata.and_then(|metadata| metadata.get(name)) {
                Some(Value::String(value)) => push_value(text, value),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => drop(write!(text, "{value}")),
                // A value without plain text counts as missing.
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {}
            },
        }
    }
}

/// Appends a value, with separators replaced, so that it makes no folders.
fn push_value(text: &mut String, value: &str) {
    text.extend(value.chars().map(|c| match c {
        '/' | '\\' => '_',
        c => c,
    }));
}

/// The values for the fields of a [`Template`], besides the name.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The album; `None` for the root folder.
    pub album: Option<&'a AlbumName>,
    /// The host of the URL. Empty for a file without a URL.
    pub host: &'a str,
    /// gannet's word for the format, such as `jpeg`.
    pub format: &'a str,
    /// Digest of the bytes.
    pub sha256: &'a Sha256,
    /// Line in the list, counted from 1. `None` without a list.
    pub line: Option<u64>,
    /// The group in the list.
    pub group: Option<&'a str>,
    /// The list's other columns.
    pub metadata: Option<&'a Map<String, Value>>,
    /// When the file was stored.
    pub when: DateTime<Utc>,
}

/// Why a text is no [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A field that does not exist.
    #[error(
        "unknown field `{{{0}}}`; expected one of {{album}}, {{name}}, {{host}}, {{date}}, {{time}}, {{format}}, \
         {{group}}, {{line}}, {{sha256}}, {{meta.COLUMN}}"
    )]
    UnknownField(String),
    /// A number of digits out of range for the field.
    #[error("`{{{field}}}`: expected a number of digits from 1 to {most}")]
    Digits {
        /// The field as written.
        field: String,
        /// The largest number of digits.
        most: usize,
    },
    /// A brace without its partner.
    #[error("a brace is not closed or not opened")]
    Brace,
    /// Files would overwrite each other.
    #[error("the last component must contain {{name}}, once, or else {{sha256}}")]
    NoName,
    /// The template could lead out of the store, or name what a file system does not take.
    #[error("component `{component}` is not safe: {why}")]
    Unsafe {
        /// The component as written.
        component: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        // The name of a column may hold a slash.
        let mut is_field = false;
        let is_separator = |c: char| {
            is_field = match c {
                '{' => true,
                '}' => false,
                _ => is_field,
            };
            c == '/' && !is_field
        };
        let mut folders = text
            .split(is_separator)
            .map(parse_component)
            .collect::<Result<Vec<_>, _>>()?;
        let mut before = folders.pop().unwrap_or_default();
        let name = before
            .iter()
            .position(|part| *part == Part::Field(Field::Name));
        let after = match name {
            Some(at) => {
                let after = before.split_off(at + 1);
                before.truncate(at);
                after
            }
            None => Vec::new(),
        };
        let digest = Part::Field(Field::Sha256(SHA256_DIGITS));
        if after.contains(&Part::Field(Field::Name)) || name.is_none() && !before.contains(&digest)
        {
            return Err(InvalidTemplate::NoName);
        }
        Ok(Self {
            folders,
            before,
            after,
            has_name: name.is_some(),
        })
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn parse_component(component: &str) -> Result<Vec<Part>, InvalidTemplate> {
    let mut parts = Vec::new();
    // The component with every field filled by a harmless letter: literal text has to be safe around it.
    let mut sample = String::new();
    let mut rest = component;
    while !rest.is_empty() {
        let (literal, tail) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !literal.is_empty() {
            sample.push_str(literal);
            parts.push(Part::Literal(literal.to_owned()));
        }
        if tail.is_empty() {
            break;
        }
        let (name, tail) = tail
            .strip_prefix('{')
            .and_then(|tail| tail.split_once('}'))
            .ok_or(InvalidTemplate::Brace)?;
        sample.push('x');
        parts.push(Part::Field(Field::parse(name)?));
        rest = tail;
    }
    let is_safe = check_component(&sample).and(match sample.as_str() {
        sample if sample.starts_with('-') => Err(BEGINS_WITH_DASH),
        sample if clean(sample) != sample => {
            Err("it holds an invisible character, or begins or ends with a space")
        }
        _ => Ok(()),
    });
    is_safe.map_err(|why| InvalidTemplate::Unsafe {
        component: component.to_owned(),
        why,
    })?;
    Ok(parts)
}

impl Template {
    /// Returns `true` if paths hold the name. Otherwise they differ by content alone.
    pub(super) fn has_name(&self) -> bool {
        self.has_name
    }

    /// Whether paths depend on `field`.
    pub(super) fn has(&self, field: &Field) -> bool {
        let names = [&self.before, &self.after];
        let mut parts = self.folders.iter().chain(names).flatten();
        parts.any(|part| matches!(part, Part::Field(one) if one == field))
    }

    pub(super) fn render(&self, name: &FileName, facts: &Facts<'_>) -> StorePath {
        let fill = |parts: &[Part]| fill(parts, Some(name), facts, true);
        let mut path = String::new();
        for folder in &self.folders {
            if let ([Part::Field(Field::Album)], Some(album)) = (&**folder, facts.album) {
                // As it stands, so that no two albums share a folder.
                path.push_str(album.as_str());
                path.push('/');
                continue;
            }
            for component in fill(folder).split('/').map(clean) {
                if !component.is_empty() {
                    path.push_str(join(&component, None).as_str());
                    path.push('/');
                }
            }
        }
        let around = self.around(facts);
        if around.0.is_empty() && around.1.is_empty() {
            path.push_str(name.as_str());
            return StorePath::trusted(&path);
        }
        let (stem, extension) = split_extension(name.as_str());
        let stem = if self.has_name { stem } else { "" };
        let last = clean(&format!("{}{stem}{}", around.0, around.1));
        path.push_str(join(&last, extension).as_str());
        StorePath::trusted(&path)
    }

    /// Recovers the stem of the name that [`render`](Self::render) was given from the stem of the result. Returns all
    /// of `stem` if another template made it.
    pub(super) fn inner_stem<'a>(&self, stem: &'a str, facts: &Facts<'_>) -> &'a str {
        let (before, after) = self.around(facts);
        // Cleaned together with a letter, as they are when rendered.
        let before = clean(&format!("{before}x"));
        let after = clean(&format!("x{after}"));
        let inner = before
            .strip_suffix('x')
            .and_then(|before| stem.strip_prefix(before))
            .and_then(|rest| rest.strip_suffix(after.strip_prefix('x')?));
        inner.filter(|inner| !inner.is_empty()).unwrap_or(stem)
    }

    /// Returns the text before and after the name in the last component.
    fn around(&self, facts: &Facts<'_>) -> (String, String) {
        // In a file name, the separators of an album have to be replaced.
        let fill = |parts: &[Part], begins| match fill(parts, None, facts, begins) {
            text if text.contains('/') => text.replace('/', "_"),
            text => text,
        };
        (fill(&self.before, true), fill(&self.after, false))
    }
}

/// The text of `parts`. Where it `begins` a component, a value's leading dash becomes `_`: [`clean`] would leave it out,
/// and `-3` and `3` would share a folder.
fn fill(parts: &[Part], name: Option<&FileName>, facts: &Facts<'_>, begins: bool) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Field(field) => {
                let at = text.len();
                field.write(&mut text, name, facts);
                let is_first = begins && text[..at].chars().all(|c| c == '-' || is_left_out(c));
                let dash = text.len() - text[at..].trim_start_matches(is_left_out).len();
                if is_first && text[dash..].starts_with('-') {
                    text.replace_range(dash..=dash, "_");
                }
            }
        }
    }
    text
}

/// Returns `true` for what [`clean`] leaves out at the start, besides dashes.
fn is_left_out(c: char) -> bool {
    is_edge(c) || is_removed(c)
}
