//! What failed in an earlier job, to be asked for once more.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use url::Url;
use uuid::Uuid;

use crate::catalog::{Catalog, CatalogError, OutcomeFilter, OutcomeRow};
use crate::source::{Entry, GivenSource, Invalid};
use crate::target::{AlbumName, Reason, Target};

/// Outcomes that are read at a time.
const PAGE: u32 = 1000;

/// The targets of a job that could not be had. Lines that are no URLs are none of them: nothing but another list helps.
#[derive(Debug, Clone)]
pub struct Failed {
    catalog: Arc<dyn Catalog>,
    job: Uuid,
    reasons: Arc<[Reason]>,
}

impl Failed {
    /// Those of `job` that failed for one of `reasons`, or for any where there are none.
    pub fn new(catalog: Arc<dyn Catalog>, job: Uuid, reasons: Vec<Reason>) -> Self {
        Self {
            catalog,
            job,
            reasons: reasons.into(),
        }
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn is_empty(&self) -> Result<bool, CatalogError> {
        let mut after = None;
        while let Some((last, entries)) = self.page(after).await? {
            if !entries.is_empty() {
                return Ok(false);
            }
            after = Some(last);
        }
        Ok(true)
    }

    /// The source that yields them, with what the list said of them. Its list is to be opened within a runtime.
    pub fn into_source(self) -> GivenSource {
        let name = format!("retry of {}", self.job);
        GivenSource::new(name, move || {
            let (failed, runtime, mut after) = (self.clone(), Handle::current(), None);
            let pages = std::iter::from_fn(move || match runtime.block_on(failed.page(after)) {
                Ok(Some((last, entries))) => {
                    after = Some(last);
                    Some(entries.into_iter().map(Ok).collect())
                }
                Ok(None) => None,
                Err(error) => Some(vec![Err(io::Error::other(error))]),
            });
            Box::new(pages.flatten())
        })
    }

    /// The next of them, and where they end; `None` behind the last.
    async fn page(&self, after: Option<u64>) -> Result<Option<(u64, Vec<Entry>)>, CatalogError> {
        let filter = OutcomeFilter::Failed;
        let rows = self.catalog.outcomes(self.job, filter, after, PAGE).await?;
        let Some(last) = rows.last().map(|row| row.seq) else {
            return Ok(None);
        };
        let is_wanted = |row: &OutcomeRow| {
            self.reasons.is_empty()
                || row
                    .reason
                    .is_some_and(|reason| self.reasons.contains(&reason))
        };
        let entries = rows.into_iter().filter(is_wanted).filter_map(entry);
        Ok(Some((last, entries.collect())))
    }
}

/// The target of an outcome; `None` for a line that is none.
fn entry(row: OutcomeRow) -> Option<Entry> {
    if row.reason == Some(Reason::InvalidUrl) {
        return None;
    }
    let url = Url::parse(&row.url).ok()?;
    if has_masked_credentials(&url) {
        return Some(Entry::Invalid(Invalid {
            line: row.line,
            text: row.url,
            reason: Reason::InvalidUrl,
            detail: "the history does not keep its credentials; put them into `[hosts]`, or fetch its list again"
                .to_owned(),
            group: None,
            place: None,
        }));
    }
    let mut target = Target::new(url);
    target.metadata = row.other_columns();
    target.line = row.line;
    target.name = row.name;
    target.album = row
        .album
        .as_deref()
        .and_then(|album| AlbumName::recorded(album).ok());
    target.sha256 = row.sha256;
    target.group = row.group.map(Into::into);
    Some(Entry::Target(target))
}

/// Whether a URL had credentials before it was recorded, see [`SafeUrl`](crate::target::SafeUrl).
fn has_masked_credentials(url: &Url) -> bool {
    url.password() == Some("***") || url.username() == "***"
}
