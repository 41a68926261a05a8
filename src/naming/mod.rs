//! Names for files: what a list, a header or a URL suggests, made safe, and the folder layout.
//!
//! [`Settings::choose`] tries the places a name may come from and answers with a [`FileName`];
//! [`Settings::place`] puts that into the layout that the [`Template`] describes and answers with a
//! [`StorePath`]. Both types are safe by construction: nobody can make one that leaves the store,
//! hides a file or cannot be created on common file systems. [`content_disposition`], [`sanitise`]
//! and [`random_name`] are the pieces.
//!
//! This room does no I/O. It does not know which names are taken: who keeps the record of that asks for
//! [`StorePath::with_suffix`] when two URLs want one name.

mod content_disposition;
mod encoded_word;
mod path;
mod random;
mod sanitise;
mod template;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::target::{Format, UnknownWord};

pub use content_disposition::content_disposition;
pub use path::{FileName, InvalidPath, StorePath};
pub use random::random_name;
pub use sanitise::sanitise;
use template::Field;
pub use template::{Facts, InvalidTemplate, Template};

/// What gave a file its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NameFrom {
    /// The list asked for it.
    List,
    /// The origin's `Content-Disposition`.
    Header,
    /// The last path segment of the URL.
    Url,
    /// Nothing usable was there.
    Random,
}

impl NameFrom {
    /// All sources of names.
    pub const ALL: [Self; 4] = [Self::List, Self::Header, Self::Url, Self::Random];

    /// The word for it in settings, reports and the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Header => "header",
            Self::Url => "url",
            Self::Random => "random",
        }
    }
}

impl std::str::FromStr for NameFrom {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|from| from.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

/// `[naming]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where a name comes from, first that gives a usable one. A random name is always the last resort.
    pub order: Vec<NameFrom>,
    /// Path of a file below the store's root.
    pub template: Template,
}

/// What is known when a file needs a name.
#[derive(Debug, Clone, Copy)]
pub struct Wants<'a> {
    /// Where the file comes from.
    pub url: &'a Url,
    /// The name that the list asks for, as written there.
    pub listed: Option<&'a str>,
    /// The name in `Content-Disposition`, as [`content_disposition`] reads it.
    pub header: Option<&'a str>,
    /// What the bytes showed; the extension will agree with it.
    pub format: &'a Format,
}

/// The place of a kept file.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Its path.
    pub path: &'a StorePath,
    /// The source of its name.
    pub name_from: NameFrom,
    /// Set if a client has named it.
    pub by_client: bool,
}

impl Settings {
    /// The first usable name, and where it came from.
    pub fn choose(&self, wants: &Wants<'_>) -> (FileName, NameFrom) {
        for &from in &self.order {
            let name = match from {
                NameFrom::List => wants
                    .listed
                    .and_then(|listed| sanitise(listed, wants.format)),
                NameFrom::Header => wants.header.and_then(|name| sanitise(name, wants.format)),
                NameFrom::Url => {
                    last_segment(wants.url).and_then(|name| sanitise(&name, wants.format))
                }
                NameFrom::Random => break,
            };
            if let Some(name) = name {
                return (name, from);
            }
        }
        (random_name(wants.format), NameFrom::Random)
    }

    /// Where the next file of a series goes, whose latest is at `latest`. `fresh` is where it would go if it
    /// were the first: there it goes where the template tells the time, or goes by content alone.
    pub fn next_of_series(
        &self,
        latest: &StorePath,
        fresh: StorePath,
        when: DateTime<Utc>,
    ) -> StorePath {
        let extension = path::split_extension(fresh.file_name()).1;
        if self.template.has(&Field::Time) || !self.template.has_name() {
            fresh
        } else if self.template.has(&Field::Date) {
            fresh.dated(when, extension)
        } else {
            latest.dated(when, extension)
        }
    }

    /// Returns the path of a kept file by the current settings, and the source of its name.
    ///
    /// A name from a client is kept. If the source of another one is unknown, such as an unrecorded header, the current
    /// name stands in for it. A name is replaced by a random one only if `order` begins with `random` and the name is not
    /// random already. A file of a series keeps its time.
    pub fn place_again(
        &self,
        wants: &Wants<'_>,
        facts: &Facts<'_>,
        placed: &Placed<'_>,
    ) -> (StorePath, NameFrom) {
        let Placed {
            path,
            name_from,
            by_client,
        } = *placed;
        if by_client && !self.template.has_name() {
            return (path.clone(), name_from);
        }
        let (stem, extension) = path::split_extension(path.file_name());
        let stem = self.template.inner_stem(path::undated(stem), facts);
        let own = match extension {
            Some(extension) => format!("{stem}.{extension}"),
            None => stem.to_owned(),
        };
        let or_own = |known, from| match known {
            None if name_from == from => Some(own.as_str()),
            known => known,
        };
        let wants = Wants {
            listed: or_own(wants.listed, NameFrom::List),
            header: or_own(wants.header, NameFrom::Header),
            ..*wants
        };
        let wants_random = self.order.first() == Some(&NameFrom::Random);
        let chosen = self.choose(&wants);
        let is_random = chosen.1 == NameFrom::Random;
        let stays = by_client || is_random && (name_from == NameFrom::Random || !wants_random);
        let kept = Some(&own).filter(|_| stays);
        let (name, from) = match kept.and_then(|own| sanitise(own, wants.format)) {
            Some(own) => (own, name_from),
            None => chosen,
        };
        let to = self.place(&name, facts);
        let to = match path::date_of(path.file_name()) {
            Some(date) if !self.template.has(&Field::Time) && self.template.has_name() => {
                let extension = path::split_extension(to.file_name()).1;
                to.with_date(date, extension)
            }
            _ => to,
        };
        (to, from)
    }

    /// Returns `true` if no other file has the path of one whose name came from `from`.
    pub fn is_unique(&self, from: NameFrom) -> bool {
        from == NameFrom::Random && self.template.has_name()
    }

    /// Returns the path in the store of a file called `name`.
    pub fn place(&self, name: &FileName, facts: &Facts<'_>) -> StorePath {
        self.template.render(name, facts)
    }
}

/// The last segment of a URL's path, decoded; `None` when it is empty or no text.
fn last_segment(url: &Url) -> Option<String> {
    let segment = url.path_segments()?.next_back()?;
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

#[cfg(test)]
mod tests;
