//! The layout of folders and files below the store's root.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

use super::path::{FileName, StorePath, check_component, join, split_extension};
use super::sanitise::clean;
use crate::target::AlbumName;

/// Describes paths in the store, such as `{album}/{date}/{name}`.
///
/// A component that comes out empty is left out, as `{album}/` is for the root folder. What follows
/// `{name}` in the last component stands before the extension: `{name}-{host}` makes
/// `photo-example.org.jpg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    folders: Vec<Vec<Part>>,
    before: Vec<Part>,
    after: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Album,
    Name,
    Host,
    Date,
    Time,
    Format,
}

impl Field {
    const ALL: [(&'static str, Self); 6] = [
        ("album", Self::Album),
        ("name", Self::Name),
        ("host", Self::Host),
        ("date", Self::Date),
        ("time", Self::Time),
        ("format", Self::Format),
    ];
}

/// Why a text is no [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A field that does not exist.
    #[error(
        "unknown field `{{{0}}}`; expected one of {{album}}, {{name}}, {{host}}, {{date}}, {{time}}, {{format}}"
    )]
    UnknownField(String),
    /// A brace without its partner.
    #[error("a brace is not closed or not opened")]
    Brace,
    /// Files would overwrite each other.
    #[error("the last component must contain {{name}}, once")]
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
        let mut folders = text
            .split('/')
            .map(parse_component)
            .collect::<Result<Vec<_>, _>>()?;
        let mut before = folders.pop().unwrap_or_default();
        let is_name = |part: &Part| *part == Part::Field(Field::Name);
        if before.iter().filter(|part| is_name(part)).count() != 1 {
            return Err(InvalidTemplate::NoName);
        }
        let at = before
            .iter()
            .position(is_name)
            .ok_or(InvalidTemplate::NoName)?;
        let after = before.split_off(at + 1);
        before.truncate(at);
        Ok(Self {
            folders,
            before,
            after,
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
        let field = Field::ALL
            .into_iter()
            .find(|(word, _)| *word == name)
            .ok_or_else(|| InvalidTemplate::UnknownField(name.to_owned()))?;
        sample.push('x');
        parts.push(Part::Field(field.1));
        rest = tail;
    }
    let is_safe = check_component(&sample).and(if clean(&sample) == sample {
        Ok(())
    } else {
        Err("it holds an invisible character, or begins or ends with a space")
    });
    is_safe.map_err(|why| InvalidTemplate::Unsafe {
        component: component.to_owned(),
        why,
    })?;
    Ok(parts)
}

impl Template {
    /// Whether paths depend on `field`.
    pub(super) fn has(&self, field: Field) -> bool {
        let names = [&self.before, &self.after];
        let mut parts = self.folders.iter().chain(names).flatten();
        parts.any(|part| *part == Part::Field(field))
    }

    pub(super) fn render(
        &self,
        name: &FileName,
        album: Option<&AlbumName>,
        host: &str,
        format: &str,
        when: DateTime<Utc>,
    ) -> StorePath {
        let fill = |parts: &[Part]| {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Literal(literal) => text.push_str(literal),
                    Part::Field(Field::Album) => text.push_str(album.map_or("", AlbumName::as_str)),
                    Part::Field(Field::Name) => text.push_str(name.as_str()),
                    Part::Field(Field::Host) => text.push_str(host),
                    Part::Field(Field::Format) => text.push_str(format),
                    // Writing to a string cannot fail.
                    Part::Field(Field::Date) => drop(write!(text, "{}", when.format("%Y-%m-%d"))),
                    Part::Field(Field::Time) => drop(write!(text, "{}", when.format("%H%M%S"))),
                }
            }
            text
        };

        let mut path = String::new();
        for folder in &self.folders {
            if let ([Part::Field(Field::Album)], Some(album)) = (&**folder, album) {
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
        let around = (fill(&self.before), fill(&self.after));
        if around.0.is_empty() && around.1.is_empty() {
            path.push_str(name.as_str());
            return StorePath::trusted(&path);
        }
        // An album here is part of a file name: its separators become reserved characters.
        let around = (around.0.replace('/', "_"), around.1.replace('/', "_"));
        let (stem, extension) = split_extension(name.as_str());
        let last = clean(&format!("{}{stem}{}", around.0, around.1));
        path.push_str(join(&last, extension).as_str());
        StorePath::trusted(&path)
    }
}
