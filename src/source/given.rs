//! Targets that are known already.

use std::fmt;
use std::io;

use async_trait::async_trait;

use crate::source::list::entries_on_thread;
use crate::source::{Entry, List, Source, SourceError};

/// Entries, and why there are no more of them.
type Entries = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

/// Targets that somebody hands over: those of an earlier job, say. They are asked for one by one on a thread of their
/// own, which may wait.
pub struct GivenSource {
    name: String,
    begin: Box<dyn Fn() -> Entries + Send + Sync>,
}

impl GivenSource {
    /// The source of what `begin` yields each time that it is opened. Its `name` is shown, so it holds no credentials.
    pub fn new(name: String, begin: impl Fn() -> Entries + Send + Sync + 'static) -> Self {
        Self {
            name,
            begin: Box::new(begin),
        }
    }
}

impl fmt::Debug for GivenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenSource({})", self.name)
    }
}

impl fmt::Display for GivenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Source for GivenSource {
    fn identity(&self) -> Option<String> {
        None
    }

    async fn open(&self) -> Result<List, SourceError> {
        entries_on_thread(self.to_string(), (self.begin)()).await
    }
}
