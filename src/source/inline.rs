//! URLs that stand in a command line or a job.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::source::list::entries_on_thread;
use crate::source::{Entry, List, Source, SourceError, address};
use crate::target::Target;

/// URLs that are there already. Each is one entry, without a line number.
#[derive(Clone)]
pub struct InlineSource(Arc<[String]>);

impl InlineSource {
    /// The source of `urls`, as written.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Self {
        Self(urls.into_iter().collect())
    }
}

impl fmt::Debug for InlineSource {
    // URLs may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineSource({} URLs)", self.0.len())
    }
}

impl fmt::Display for InlineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [url] => f.write_str(&address::shown(url)),
            urls => write!(f, "{} URLs", urls.len()),
        }
    }
}

#[async_trait]
impl Source for InlineSource {
    fn identity(&self) -> Option<String> {
        None
    }

    async fn open(&self) -> Result<List, SourceError> {
        let urls = Arc::clone(&self.0);
        let entries = (0..urls.len()).map(move |at| {
            let text = &urls[at];
            Ok(match address::parse(text.as_bytes()) {
                Ok(url) => Entry::Target(Target::new(url)),
                Err(refusal) => Entry::Invalid(refusal.at(None, text)),
            })
        });
        entries_on_thread(self.to_string(), entries).await
    }
}
