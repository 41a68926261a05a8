//! Finds the interrupted job that another one goes on with.
//!
//! That is a job of its own, over the whole list. Of what the interrupted one had, it takes as fresh what came or was
//! confirmed then, so that nobody is asked for it twice: whatever changed since, in the list, the store or other jobs,
//! is seen as ever.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Engine, JobError, Spec};
use crate::catalog::SourceId;

/// An interrupted job, and those that it went on with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earlier {
    /// The job.
    pub(super) job: Uuid,
    /// When the first of them began.
    pub(super) since: DateTime<Utc>,
    /// Files that they stored.
    pub(super) stored: u64,
}

impl Engine {
    /// What `spec` goes on with.
    pub(super) async fn interrupted(
        &self,
        spec: &Spec,
        source: Option<SourceId>,
    ) -> Result<Option<Earlier>, JobError> {
        let within = spec.terms.job.resume_within;
        let Some(source) = source.filter(|_| spec.shard.is_none() && !spec.refresh) else {
            return Ok(None);
        };
        let Some(newest) = self.catalog.interrupted_job(source, Utc::now()).await? else {
            return Ok(None);
        };
        if !newest.is_within(within) {
            return Ok(None);
        }
        let mut earlier = Earlier {
            job: newest.id,
            since: newest.started,
            stored: newest.counts.stored,
        };
        let mut before = newest.continues;
        while let Some(id) = before {
            // What the history has forgotten is long ago.
            let Some(job) = self.catalog.job(id).await? else {
                break;
            };
            earlier.since = job.started;
            earlier.stored += job.counts.stored;
            before = job.continues;
        }
        Ok(Some(earlier))
    }
}
