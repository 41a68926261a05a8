//! Several sources, one after the other.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::source::inline::InlineSource;
use crate::source::{List, Source, SourceError};

/// Reads several sources in their order; lines are counted in each of them anew.
#[derive(Debug, Clone)]
pub struct ChainSource(Vec<Arc<dyn Source>>);

impl ChainSource {
    /// The source of all that `sources` yield.
    pub fn new(sources: impl IntoIterator<Item = Arc<dyn Source>>) -> Self {
        Self(sources.into_iter().collect())
    }

    /// All of `sources` as one; a single one is that itself.
    pub fn of(sources: Vec<Arc<dyn Source>>) -> Arc<dyn Source> {
        match <[_; 1]>::try_from(sources) {
            Ok([source]) => source,
            Err(sources) => Arc::new(Self::new(sources)),
        }
    }
}

impl fmt::Display for ChainSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, source) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{source}")?;
        }
        Ok(())
    }
}

#[async_trait]
impl Source for ChainSource {
    fn identity(&self) -> Option<String> {
        let sources = self.0.iter().map(|source| source.identity());
        Some(sources.collect::<Option<Vec<_>>>()?.join("\n"))
    }

    fn is_search(&self) -> bool {
        self.0.iter().any(|source| source.is_search())
    }

    /// Opens the first source, after a check of all: a name that is misspelt shows before any work.
    async fn open(&self) -> Result<List, SourceError> {
        self.check().await?;
        match self.0.as_slice() {
            [] => InlineSource::new([]).open().await,
            [first, rest @ ..] => Ok(first.open().await?.then(rest.iter().cloned())),
        }
    }

    async fn check(&self) -> Result<(), SourceError> {
        for source in &self.0 {
            source.check().await?;
        }
        Ok(())
    }
}
