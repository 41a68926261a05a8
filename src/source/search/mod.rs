//! Image searches as sources: [`SearchProvider`], the providers that there are, and [`SearchSource`], which asks several of
//! them several questions and mixes what they find.
//!
//! | file | has |
//! |---|---|
//! | `registry` | the providers, a line each, and `[search]` with a section each |
//! | `spec` | what stands behind `search:`, read and written |
//! | `filter` | filters, and what providers call them |
//! | `request`, `found` | what is asked, and what is found |
//! | `judge` | what a status means, and whether a page is one |
//! | `html`, `json` | what parsers have in common |
//! | `lanes` | how often a provider may be asked, over all jobs of the process |
//! | `desk` | asks one provider: waits, repeats, gives up |
//! | `mix` | brings the results of all together |
//!
//! A new provider is a file beside these, its name in `registry`, a section of `config/default.toml`, and a row in
//! `docs/search.md`. This room reaches the network through [`Ask`] alone.

#[cfg(test)]
mod asked;
mod bing;
mod brave;
mod desk;
mod error;
mod filter;
mod found;
mod google;
pub(in crate::source) mod html;
mod json;
mod judge;
mod lanes;
mod mix;
mod openverse;
mod registry;
mod request;
mod searxng;
mod spec;
#[cfg(test)]
mod tests;
mod wikimedia;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::fetch;
use crate::source::{List, Source, SourceError};

pub use error::SearchError;
pub use filter::Filter;
pub use found::{Found, Page};
pub use judge::read_page;
pub use registry::{PROVIDERS, Provider, Settings, provider};
pub(in crate::source) use request::MAX_ANSWER;
pub use request::{Answer, Ask, AskFailure, Cursor, PageRequest};
pub(in crate::source) use spec::PREFIX;
pub use spec::{Query, SearchSpec};

use lanes::Lanes;

/// What one search engine takes and answers.
///
/// # Contract
///
/// - It touches neither network nor clock: what it is asked with the same arguments, it answers in the same way. Waits,
///   limits, repetitions and the mixing of results are the caller's.
/// - `parse` takes whatever bytes came, and does not panic. An item that cannot be read is counted in [`Page::broken`] and
///   costs no other. It begins with [`judge`](Self::judge), or says itself what the status means.
/// - Secrets are put into a [`PageRequest`] by the methods that are there for them, and nowhere else.
/// - Texts of errors go on from the provider's name: "allows no more requests".
pub trait SearchProvider: fmt::Debug + Send + Sync + 'static {
    /// What it is called in `search:NAME?…` and in `[search.NAME]`.
    fn name(&self) -> &'static str;

    /// The filters that it has.
    fn filters(&self) -> &[Filter];

    /// What to ask for the page at `cursor`, the first one for `None`. The filters of `query` are some of
    /// [`filters`](Self::filters).
    ///
    /// # Errors
    ///
    /// When the provider cannot be asked so: a query that is too long, a key that is none.
    fn request(&self, query: &Query, cursor: Option<&Cursor>) -> Result<PageRequest, SearchError>;

    /// What the status of an answer means where it is no page.
    ///
    /// # Errors
    ///
    /// By default as most services have it: 401 and 403 are about the key, 429 is a quota, 5xx an outage.
    fn judge(&self, answer: &Answer) -> Result<(), SearchError> {
        judge::judge(answer)
    }

    /// The results on a page, in the provider's order, and where the next one is.
    ///
    /// # Errors
    ///
    /// When it is no page. One without results is [`Page::default`], the end.
    fn parse(
        &self,
        query: &Query,
        cursor: Option<&Cursor>,
        answer: &Answer,
    ) -> Result<Page, SearchError>;
}

/// What searches need: the providers' settings, a way to ask them, and how often each was asked. Shared by the jobs of a
/// process.
#[derive(Debug, Clone)]
pub struct Search {
    settings: Settings,
    ask: Arc<dyn Ask>,
    /// `[fetch]`: how often is tried again, and how long is waited.
    fetch: fetch::Settings,
    lanes: Arc<Lanes>,
}

impl Search {
    /// Searches by these settings, that ask by `ask` and are as patient as `fetch` says.
    pub fn new(settings: &Settings, fetch: &fetch::Settings, ask: Arc<dyn Ask>) -> Self {
        Self {
            settings: settings.clone(),
            ask,
            fetch: fetch.clone(),
            lanes: Arc::default(),
        }
    }

    /// The same by other settings. What was asked before counts on.
    pub fn with_settings(
        &self,
        settings: &Settings,
        fetch: &fetch::Settings,
        ask: Arc<dyn Ask>,
    ) -> Self {
        Self {
            lanes: self.lanes.clone(),
            ..Self::new(settings, fetch, ask)
        }
    }
}

/// What the providers of a search find. Reading it costs requests, and so it is read only as far as somebody wants it.
#[derive(Debug)]
pub struct SearchSource {
    spec: SearchSpec,
    search: Arc<Search>,
    providers: Vec<Arc<dyn SearchProvider>>,
}

impl SearchSource {
    /// The source of what `spec` names.
    ///
    /// # Errors
    ///
    /// When a provider lacks a setting, a filter, or the value of one; or cannot be asked such a question.
    pub fn new(spec: SearchSpec, search: &Arc<Search>) -> Result<Self, SourceError> {
        let refuse = |why: String| SourceError::NoSource {
            text: spec.to_string(),
            why,
        };
        let mut providers = Vec::with_capacity(spec.providers().len());
        for name in spec.providers() {
            let provider = provider(name, &search.settings).map_err(&refuse)?;
            filter::check(&*provider, spec.filters()).map_err(&refuse)?;
            for query in spec.queries() {
                if let Err(error) = provider.request(query, None) {
                    return Err(refuse(error.told(name, query)));
                }
            }
            providers.push(provider);
        }
        Ok(Self {
            search: search.clone(),
            spec,
            providers,
        })
    }
}

impl fmt::Display for SearchSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

#[async_trait]
impl Source for SearchSource {
    fn is_search(&self) -> bool {
        true
    }

    /// Returns once the first result is there.
    async fn open(&self) -> Result<List, SourceError> {
        let desks = self.providers.iter().map(|provider| {
            let settings = self.search.settings.of(provider.name());
            desk::Desk::new(provider.clone(), settings, &self.search)
        });
        mix::open(self.to_string(), desks.collect(), self.spec.queries()).await
    }
}
