//! From what a user writes to a source.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::source::search::{self, SearchSource, SearchSpec};
use crate::source::{
    FileSource, ListEncoding, ListFormat, Reader, RemoteSource, Source, SourceError, address,
};

/// A source as it was named, before anything is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Where the list is.
    pub place: Place,
    /// Its format; `None`: find out.
    pub format: Option<ListFormat>,
    /// Encoding of the list; `None` detects it. Ignored by sources without a list, such as a search.
    pub encoding: Option<ListEncoding>,
}

/// Where a list is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// Standard input.
    Stdin,
    /// A local file.
    Path(PathBuf),
    /// An `http` or `https` URL. May hold credentials.
    Url(Url),
    /// Image searches.
    Search(SearchSpec),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("Stdin"),
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Url(url) => f
                .debug_tuple("Url")
                .field(&crate::target::SafeUrl::new(url))
                .finish(),
            Self::Search(spec) => f.debug_tuple("Search").field(spec).finish(),
        }
    }
}

impl SourceSpec {
    /// Sets the encoding of the source's lists. `None` detects it.
    pub fn in_encoding(mut self, encoding: Option<ListEncoding>) -> Self {
        self.encoding = encoding;
        self
    }

    /// The source itself; `reader` is only kept where the list is remote.
    ///
    /// # Errors
    ///
    /// When a search cannot be made by these settings.
    pub fn into_source(self, reader: &Reader) -> Result<Arc<dyn Source>, SourceError> {
        Ok(match self.place {
            Place::Stdin => Arc::new(FileSource::stdin(self.format).in_encoding(self.encoding)),
            Place::Path(path) => {
                Arc::new(FileSource::new(path, self.format).in_encoding(self.encoding))
            }
            Place::Url(url) => Arc::new(
                RemoteSource::new(url, reader.clone(), self.format).in_encoding(self.encoding),
            ),
            Place::Search(spec) => match &reader.search {
                Some(search) => Arc::new(SearchSource::new(spec, search)?),
                None => {
                    return Err(SourceError::NoSource {
                        text: spec.to_string(),
                        why: "there are no searches here".to_owned(),
                    });
                }
            },
        })
    }
}

/// Reads the name of a source: a path, `-` for standard input, `http(s)://…`, `file://…`, or `search:PROVIDER?q=…`.
///
/// # Errors
///
/// When `text` is empty, a URL that is broken or of another scheme, or a search that looks for nothing.
pub fn parse_source(text: &str, format: Option<ListFormat>) -> Result<SourceSpec, SourceError> {
    let refuse = |why: &str| {
        Err(SourceError::NoSource {
            text: address::shown(text),
            why: why.to_owned(),
        })
    };
    let place = if text == "-" {
        Place::Stdin
    } else if text.trim().is_empty() {
        return refuse("it is empty; write a path, `-`, the URL of a list, or a search");
    } else if address::has_prefix(text, search::PREFIX) {
        if let Some(format) = format {
            return refuse(&format!("it is a search, which has no format `{format}`"));
        }
        match SearchSpec::parse(text) {
            Ok(spec) => Place::Search(spec),
            Err(why) => return refuse(&why),
        }
    } else if text.contains("://") {
        match (address::parse(text.as_bytes()), Url::parse(text)) {
            (Ok(url), _) => Place::Url(url),
            (Err(_), Ok(url)) if url.scheme() == "file" => match url.to_file_path() {
                Ok(path) => Place::Path(path),
                Err(()) => {
                    return refuse(
                        "it is a file of another machine; of this one, write a path, or `file:///` before it",
                    );
                }
            },
            (Err(refusal), _) => return refuse(&refusal.detail),
        }
    } else {
        Place::Path(text.into())
    };
    Ok(SourceSpec {
        place,
        format,
        encoding: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_by_path_dash_or_url() {
        let place = |text| parse_source(text, None).expect(text).place;
        assert_eq!(place("-"), Place::Stdin);
        assert_eq!(place("a b.txt"), Place::Path("a b.txt".into()));
        assert_eq!(place("./search:x"), Place::Path("./search:x".into()));
        assert_eq!(place("file:///a%20b.txt"), Place::Path("/a b.txt".into()));
        let url = Url::parse("https://example.org/list.csv").unwrap();
        assert_eq!(place("https://example.org/list.csv#top"), Place::Url(url));
    }

    #[test]
    fn what_names_no_source_says_why_and_shows_no_password() {
        for (text, why) in [
            ("", "empty"),
            ("search:flickr?q=cats", "no provider `flickr`"),
            ("search:openverse", "q=red panda"),
            ("ftp://ann:secret@example.org/", "`ftp`"),
            ("https://ann:secret@", "host"),
            ("file://elsewhere/a", "another machine"),
        ] {
            let error = parse_source(text, None).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        let spec = parse_source("https://ann:secret@example.org/", None).unwrap();
        assert!(!format!("{spec:?}").contains("secret"));
    }
}
