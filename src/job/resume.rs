//! Finds out how far an interrupted job came, so that it is taken up there.

use chrono::{DateTime, TimeDelta, Utc};

use super::item::Item;
use super::report::Head;
use super::{Engine, JobError, Settings, Spec};
use crate::catalog::{Catalog, JobRow, Known, OutcomeFilter};

/// Outcomes that are read at a time.
const PAGE: u32 = 500;

/// Where an interrupted job goes on.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// When it was taken up again.
    pub(super) resumed: Option<DateTime<Utc>>,
    /// The number of the next one: above that of every target that is in the history.
    pub(super) seq: u64,
}

impl Engine {
    /// The job that `spec` goes on with, as it is once it does; `None` where it begins anew.
    pub(super) async fn interrupted(
        &self,
        spec: &Spec,
        head: &Head,
    ) -> Result<Option<JobRow>, JobError> {
        let is_whole = spec.source.identity().is_some() && spec.shard.is_none() && !spec.refresh;
        if !is_whole || spec.terms.job.resume_within.is_zero() {
            return Ok(None);
        }
        let album = head.album.as_ref().map_or("", |album| album.as_str());
        let job = self
            .catalog
            .interrupted_job(&head.source, &spec.kind, album);
        let Some(job) = job.await?.filter(|job| is_recent(job, &spec.terms.job)) else {
            return Ok(None);
        };
        self.catalog.resume_job(job.id, Utc::now()).await?;
        Ok(self.catalog.job(job.id).await?)
    }
}

fn is_recent(job: &JobRow, settings: &Settings) -> bool {
    let last = job.recorded.or(job.resumed).unwrap_or(job.started);
    let within = TimeDelta::from_std(settings.resume_within).unwrap_or(TimeDelta::MAX);
    Utc::now() - last <= within
}

/// When a job had a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Had {
    /// In this process: the line is a repeat.
    Now,
    /// Before it was interrupted.
    Before,
    /// Then too, and it failed.
    InVain,
}

impl Earlier {
    /// What to make of a target that this very job has had before.
    pub(super) fn judge(&self, known: &Known) -> Had {
        if self.resumed.is_none_or(|resumed| known.seen >= resumed) {
            Had::Now
        } else if known.outcome.is_failure(known.reason) {
            Had::InVain
        } else {
            Had::Before
        }
    }

    /// Reads what the history has of `job` and tells `items` of it, a page at a time.
    pub(super) async fn read(
        catalog: &dyn Catalog,
        job: &JobRow,
        mut items: impl FnMut(Vec<Item>) -> anyhow::Result<()>,
    ) -> Result<Self, JobError> {
        let mut earlier = Self {
            resumed: job.resumed,
            seq: 0,
        };
        let mut after = None;
        loop {
            let page = catalog.outcomes(job.id, OutcomeFilter::All, after, PAGE);
            let page = page.await?;
            let Some(last) = page.last() else {
                return Ok(earlier);
            };
            after = Some(last.seq);
            earlier.seq = last.seq + 1;
            items(page.into_iter().map(Item::from).collect()).map_err(JobError::Observer)?;
        }
    }
}
