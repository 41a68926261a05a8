//! Why there is no list, or no more of it.

use std::error::Error;
use std::io;

use crate::source::ListFormat;
use crate::target::SafeUrl;

/// Why a source yields no list, or not all of it. Sources are named as they print: without credentials.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text that names a source names none.
    #[error("`{text}` names no list: {why}")]
    NoSource {
        /// The text, credentials masked.
        text: String,
        /// What is wrong with it, and what to write.
        why: String,
    },
    /// The file does not open.
    #[error("cannot open the list `{name}`")]
    Open {
        /// The source.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The list began to be read and then could not be.
    #[error("cannot read the list `{name}` to its end")]
    Read {
        /// The source.
        name: String,
        /// What the system, the network or the decoder says.
        source: io::Error,
    },
    /// The origin does not hand the list out.
    #[error("cannot fetch the list `{url}`")]
    Fetch {
        /// The list's URL.
        url: SafeUrl,
        /// What the client says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is something else than a list.
    #[error("`{name}` is {what}, not a list of URLs; {advice}")]
    NotAList {
        /// The source.
        name: String,
        /// What it is, with its article.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The list breaks its own format, so that nothing beyond can be trusted.
    #[error("`{name}` is broken at line {line}: {detail}")]
    Broken {
        /// The source.
        name: String,
        /// The format that it is read as.
        format: ListFormat,
        /// Where, counted from 1.
        line: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A sitemap index that cannot be followed, or not so far.
    #[error("cannot follow the sitemap index `{name}`: {detail}")]
    SitemapIndex {
        /// The source.
        name: String,
        /// Why.
        detail: String,
    },
    /// A remote list that was there before, and is not any more, or not whole.
    #[error("the list cannot be had; its last good copy, of {since}, stays, and nothing is pruned")]
    Lost {
        /// When the copy came, by RFC 3339.
        since: String,
        /// What is wrong with the list.
        source: Box<SourceError>,
    },
    /// No provider of a search found anything, and all because they failed.
    #[error("nothing came of the search `{name}`: {detail}")]
    Search {
        /// The source.
        name: String,
        /// What each provider says, with its name.
        detail: String,
    },
    /// The thread that read the list is gone without a word: a defect of gannet.
    #[error("reading the list `{name}` stopped unexpectedly; please report this as a defect")]
    Stopped {
        /// The source.
        name: String,
    },
}

impl SourceError {
    /// Says that a copy stays that came at `since`, where there is one.
    pub(super) fn beside_copy(self, since: Option<String>) -> Self {
        match since {
            Some(since) => Self::Lost {
                since,
                source: Box::new(self),
            },
            None => self,
        }
    }
}

/// Why a parser goes no further; the list's name is added where it is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// Nobody reads the entries any more.
    #[error("nobody reads the list any more")]
    Closed,
    /// The bytes do not come.
    #[error(transparent)]
    Read(io::Error),
    /// See [`SourceError::NotAList`].
    #[error("it is {what}; {advice}")]
    NotAList { what: String, advice: String },
    /// See [`SourceError::Broken`].
    #[error("line {line}: {detail}")]
    Broken { line: u64, detail: String },
}

impl Stop {
    pub(super) fn not_a_list(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::NotAList {
            what: what.into(),
            advice: advice.into(),
        }
    }

    pub(super) fn broken(line: u64, detail: impl Into<String>) -> Self {
        Self::Broken {
            line,
            detail: detail.into(),
        }
    }

    /// The error that a person sees; `None` when nobody is there to see one.
    pub(super) fn into_error(self, name: &str, format: ListFormat) -> Option<SourceError> {
        let name = name.to_owned();
        Some(match self {
            Self::Closed => return None,
            Self::Read(source) => SourceError::Read { name, source },
            Self::NotAList { what, advice } => SourceError::NotAList { name, what, advice },
            Self::Broken { line, detail } => SourceError::Broken {
                name,
                format,
                line,
                detail,
            },
        })
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}
