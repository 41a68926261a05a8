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

use crate::target::Format;
use crate::target::{AlbumName, UnknownWord};

pub use content_disposition::content_disposition;
pub use path::{FileName, InvalidPath, StorePath};
pub use random::random_name;
pub use sanitise::sanitise;
use template::Field;
pub use template::{InvalidTemplate, Template};

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
        [Self::List, Self::Header, Self::Url, Self::Random]
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
    /// The value of `Content-Disposition`, as it came over the wire.
    pub header: Option<&'a [u8]>,
    /// What the bytes showed; the extension will agree with it.
    pub format: &'a Format,
}

impl Settings {
    /// The first usable name, and where it came from.
    pub fn choose(&self, wants: &Wants<'_>) -> (FileName, NameFrom) {
        for &from in &self.order {
            let name = match from {
                NameFrom::List => wants
                    .listed
                    .and_then(|listed| sanitise(listed, wants.format)),
                NameFrom::Header => wants
                    .header
                    .and_then(content_disposition)
                    .and_then(|name| sanitise(&name, wants.format)),
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
    /// were the first: there it goes where the template tells the time.
    pub fn next_of_series(
        &self,
        latest: &StorePath,
        fresh: StorePath,
        when: DateTime<Utc>,
    ) -> StorePath {
        let extension = path::split_extension(fresh.file_name()).1;
        if self.template.has(Field::Time) {
            fresh
        } else if self.template.has(Field::Date) {
            fresh.dated(when, extension)
        } else {
            latest.dated(when, extension)
        }
    }

    /// Where in the store a file called `name` goes. `format` is gannet's word for it, such as `jpeg`;
    /// `album` is `None` for the root folder.
    pub fn place(
        &self,
        name: &FileName,
        album: Option<&AlbumName>,
        host: &str,
        format: &str,
        when: DateTime<Utc>,
    ) -> StorePath {
        self.template.render(name, album, host, format, when)
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
