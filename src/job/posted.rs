//! Posted jobs: what is known of one when it begins or goes on, and the source of its targets.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Reasons;
use super::order::Done;
use crate::catalog::{Catalog, CatalogError, JobRow, OutcomeFilter, PART_TARGETS, PostedJob};
use crate::source::{Entry, GivenSource, Listed};
use crate::target::{OnError, Place, State};

/// Rows that are read at a time.
const PAGE: u32 = 1000;

/// A job that a client posted, and what has become of it so far.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The job.
    pub(super) row: JobRow,
    /// Why targets of it were rejected, failed or skipped.
    pub(super) reasons: Reasons,
    /// The number of its next outcome.
    pub(super) nth: u64,
    /// The order behind the last target that has its outcome.
    pub(super) next_seq: u64,
    /// Lines of its list that are no URLs, and were told of.
    pub(super) lines: HashSet<u64>,
    /// Groups that a failure stopped.
    pub(super) stopped: Vec<u32>,
}

impl Posted {
    /// What the catalog has of `job`.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn look_up(catalog: &dyn Catalog, job: PostedJob) -> Result<Self, CatalogError> {
        let PostedJob {
            job: row,
            nth,
            next_seq,
            ..
        } = job;
        let mut posted = Self {
            reasons: catalog.reasons(row.id).await?,
            row,
            nth,
            next_seq,
            lines: HashSet::new(),
            stopped: Vec::new(),
        };
        let job = posted.row.id;
        let mut after = None;
        loop {
            let failed = Some(State::Failed);
            let groups = catalog.groups(job, failed, after, PAGE).await?;
            let Some(last) = groups.last() else { break };
            after = Some(last.number);
            let stopped = groups
                .iter()
                .filter(|group| group.on_error == OnError::Stop);
            posted.stopped.extend(stopped.map(|group| group.number));
        }
        let mut after = None;
        // Targets that were posted are known by their order.
        while posted.row.total.is_none() {
            let failed = OutcomeFilter::Failed;
            let rows = catalog.outcomes(job, failed, after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.seq);
            let lines = rows.iter().filter(|row| row.name.is_none());
            posted.lines.extend(lines.filter_map(|row| row.line));
        }
        Ok(posted)
    }

    /// The source of the targets of `job` that have no outcome yet. Its list is to be opened within a runtime.
    pub fn source(catalog: Arc<dyn Catalog>, job: &JobRow) -> GivenSource {
        let id = job.id;
        GivenSource::new(job.source.clone(), move || {
            let (catalog, runtime) = (catalog.clone(), Handle::current());
            let mut groups: Option<Vec<Group>> = None;
            let mut number = 0;
            let parts = std::iter::from_fn(move || {
                let read = async {
                    if groups.is_none() {
                        groups = Some(all_groups(&*catalog, id).await?);
                    }
                    catalog.part(id, number).await
                };
                let (targets, done) = match runtime.block_on(read) {
                    Ok(Some(part)) => part,
                    Ok(None) => return None,
                    Err(error) => return Some(vec![Err(io::Error::other(error))]),
                };
                let first = number * PART_TARGETS;
                number += 1;
                let targets: Vec<Listed> = match serde_json::from_str(&targets) {
                    Ok(targets) => targets,
                    Err(error) => return Some(vec![Err(error.into())]),
                };
                let groups = groups.as_deref().unwrap_or_default();
                let entries = (first..)
                    .zip(targets)
                    .filter(|(seq, _)| !done.contains(seq))
                    .map(|(seq, listed)| Ok(entry(seq, listed, groups)));
                Some(entries.collect())
            });
            Box::new(parts.flatten())
        })
    }
}

/// What a group's targets need to know of it.
type Group = (Arc<str>, OnError);

async fn all_groups(catalog: &dyn Catalog, job: uuid::Uuid) -> Result<Vec<Group>, CatalogError> {
    let mut all: Vec<Group> = Vec::new();
    loop {
        let after = u32::try_from(all.len()).ok().and_then(|n| n.checked_sub(1));
        let page = catalog.groups(job, None, after, PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(
            page.into_iter()
                .map(|group| (group.id.into(), group.on_error)),
        );
    }
}

fn entry(seq: u64, listed: Listed, groups: &[Group]) -> Entry {
    let group = listed.group.and_then(|number| groups.get(number as usize));
    let place = Place {
        seq,
        group: listed.group,
        on_error: group.map_or(OnError::Continue, |(_, on_error)| *on_error),
    };
    listed.entry(place, group.map(|(id, _)| id.clone()))
}

/// What a posted job keeps track of while it runs.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The number of the next outcome, in the order in which they are recorded.
    nth: AtomicU64,
    /// To the plan, which knows who waits for what.
    done: mpsc::UnboundedSender<Done>,
}

impl Tracked {
    pub(super) fn new(posted: &Posted) -> (Self, mpsc::UnboundedReceiver<Done>) {
        let (done, heard) = mpsc::unbounded_channel();
        let nth = AtomicU64::new(posted.nth);
        (Self { nth, done }, heard)
    }

    /// The number of an outcome that is recorded next.
    pub(super) fn next(&self) -> u64 {
        self.nth.fetch_add(1, Ordering::Relaxed)
    }

    /// Says that a target has its outcome.
    pub(super) fn note(&self, done: Done) {
        // A plan that is over holds nothing back.
        let _ = self.done.send(done);
    }
}
