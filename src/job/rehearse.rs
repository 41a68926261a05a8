//! What a job would do, without doing it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::freshness::{Lookup, decide, resting};
use super::item::{Counts, Item, State, Summary, Would};
use super::report::{self, Head};
use super::{Ending, JobError, Observer, Reasons, Setup, Spec};
use crate::catalog::{self, Catalog, TargetKey};
use crate::source::{Entry, NoticeKind};
use crate::store::Store;
use crate::target::{Outcome, SafeUrl, Target};

/// What a rehearsal came to.
#[derive(Debug, Clone, Serialize)]
pub struct Rehearsed {
    /// The figures, as of a job: nothing is stored, and what would be asked for counts as `skipped`.
    #[serde(flatten)]
    pub summary: Summary,
    /// Targets by what would be done about them.
    pub would: Plan,
}

/// Targets by what a job would do about them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Plan {
    /// To be fetched.
    pub fetch: u64,
    /// To be asked about.
    pub ask: u64,
    /// Known and fresh.
    pub fresh: u64,
    /// Left alone for a while, since they keep failing.
    pub wait: u64,
}

/// Reads the list and tells `observer` of each target what would be done about it, see [`Would`].
///
/// The store is looked at and not touched; a line that repeats an earlier one is told of again. Where files are counted,
/// it ends with the target that would be the last of them if all went well.
///
/// # Errors
///
/// When the list, the catalog or the store cannot be read, or the observer fails. The observer hears of the end
/// all the same.
pub async fn rehearse(
    spec: &Spec,
    setup: Setup<'_>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Rehearsed> {
    let head = Head {
        job: Uuid::now_v7(),
        source: spec.source.to_string(),
        album: spec.album.clone(),
        continues: None,
        started: Utc::now(),
    };
    observer.begin(&head)?;
    let mut rehearsal = Rehearsal {
        spec,
        setup,
        observer,
        counts: Counts::default(),
        reasons: Reasons::new(),
        would: Plan::default(),
        warnings: Vec::new(),
    };
    let ended = rehearsal.read().await;
    let summary = Summary {
        version: report::VERSION,
        job: head.job,
        source: head.source,
        album: head.album,
        continues: None,
        state: match ended {
            Ok(()) => State::Completed,
            Err(_) => State::Failed,
        },
        started: head.started,
        finished: Utc::now(),
        counts: rehearsal.counts,
        repeats: 0,
        removed: 0,
        bytes: 0,
        reasons: rehearsal.reasons,
        warnings: rehearsal.warnings,
        error: ended.as_ref().err().map(|error| format!("{error:#}")),
        ending: Ending::Fine,
    };
    let would = rehearsal.would;
    observer.end(&summary)?;
    ended.map(|()| Rehearsed { summary, would })
}

struct Rehearsal<'a> {
    spec: &'a Spec,
    setup: Setup<'a>,
    observer: &'a mut dyn Observer,
    counts: Counts,
    reasons: Reasons,
    would: Plan,
    warnings: Vec<String>,
}

impl Rehearsal<'_> {
    async fn read(&mut self) -> anyhow::Result<()> {
        let root = &self.setup.storage.root;
        // Without a catalog nothing is known, and to open a store that is not there would make it.
        let there = match catalog::path(self.setup.catalog, root)?.is_none_or(|path| path.exists())
            && root.join(".gannet").join("stage").is_dir()
        {
            true => Some((
                catalog::open_to_read(self.setup.catalog, root).await?,
                Store::open(self.setup.storage).await?,
            )),
            false => None,
        };
        let mut list = self.spec.source.open().await?;
        while !self.has_enough() {
            let chunk = list.next_chunk().await;
            let notices = list.notices().into_iter();
            let warnings = notices.filter(|notice| notice.kind != NoticeKind::Exhausted);
            self.warnings.extend(warnings.map(|notice| notice.text));
            let Some(chunk) = chunk? else { break };
            let items = self.items(chunk, there.as_ref()).await?;
            for item in &items {
                self.counts.add(item.outcome);
                if let Some(reason) = item.reason {
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
            self.observer.items(&items)?;
        }
        if let Some((catalog, _)) = there {
            catalog.close().await;
        }
        Ok(())
    }

    /// Whether as many files would be stored as are asked for.
    fn has_enough(&self) -> bool {
        let count = self.spec.count;
        count.is_some_and(|count| self.would.fetch >= count)
    }

    /// What would become of a chunk, in its order.
    async fn items(
        &mut self,
        chunk: Vec<Entry>,
        there: Option<&(Arc<dyn Catalog>, Store)>,
    ) -> Result<Vec<Item>, JobError> {
        let spec = self.spec;
        let key = |target: &Target| {
            let album = target.album.as_ref().or(spec.album.as_ref());
            TargetKey::of(&target.url, album, target.name.as_deref())
        };
        let targets = chunk.iter().filter_map(|entry| match entry {
            Entry::Target(target) => Some((key(target), target)),
            Entry::Invalid(_) => None,
        });
        let known = match there {
            Some((catalog, store)) => {
                let (fetch, hosts) = (self.setup.fetch, self.setup.hosts);
                let lookup = Lookup {
                    catalog: &**catalog,
                    store,
                    distrusted: &spec.distrusted,
                    downloader: &spec.terms.registry.find(&spec.kind)?,
                    steps: &spec.steps,
                    fetch,
                    hosts,
                    halt: &CancellationToken::new(),
                };
                lookup.known(targets).await?
            }
            None => HashMap::new(),
        };
        let now = Utc::now();
        let mut items = Vec::with_capacity(chunk.len());
        for entry in chunk {
            if self.has_enough() {
                break;
            }
            match entry {
                Entry::Target(target)
                    if spec
                        .shard
                        .is_none_or(|s| s.has(self.setup.hosts, &target.url)) =>
                {
                    let settings = self.setup.fetch.of(self.setup.hosts, &target.url);
                    let known = known.get(&key(&target));
                    let would = decide(known, spec.refresh, None, &settings, now);
                    let mut item = self.item(&target, would);
                    if let Some(known) = known.filter(|_| would == Would::Wait) {
                        item.reason = known.reason;
                        item.detail = Some(resting(known, &settings, now));
                    }
                    items.push(item);
                }
                Entry::Invalid(invalid) if spec.shard.is_none_or(|s| s.has_invalid()) => {
                    items.push(invalid.into());
                }
                Entry::Target(_) | Entry::Invalid(_) => {}
            }
        }
        Ok(items)
    }

    fn item(&mut self, target: &Target, would: Would) -> Item {
        let (outcome, count) = match would {
            Would::Fetch => (Outcome::Skipped, &mut self.would.fetch),
            Would::Ask => (Outcome::Skipped, &mut self.would.ask),
            Would::Fresh => (Outcome::Unchanged, &mut self.would.fresh),
            Would::Wait => (Outcome::Skipped, &mut self.would.wait),
        };
        *count += 1;
        let mut item = Item::new(SafeUrl::new(&target.url).to_string(), outcome);
        item.would = Some(would);
        item.detail = match would {
            Would::Fetch => Some("a dry run: it would be fetched".to_owned()),
            Would::Ask => Some("a dry run: it would be asked whether it changed".to_owned()),
            Would::Fresh | Would::Wait => None,
        };
        item.line = target.line;
        item.group = target.group.clone();
        item
    }
}
