//! Reads a job's list and decides what is to be asked for.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::PoisonError;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

use super::coming::OneComing;
use super::item::Would;
use super::keeper::{Brought, Finished};
use super::removal::recorded;
use super::worker::{Shared, Ticket, lane_of};
use super::{Job, JobError};
use crate::catalog::{Catalog, Known, KnownFile, TargetKey};
use crate::fetch::Effective;
use crate::source::{Entry, Invalid, List};
use crate::store::Store;
use crate::target::{Outcome, Reason, Sha256, Target};

/// One of N shares of a list, cut by host: `2/4` is the second of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    of: u64,
}

impl Shard {
    /// Whether lines that are no URLs belong to this share: the first one has them.
    pub(super) fn has_invalid(self) -> bool {
        self.index == 0
    }

    /// Whether a URL belongs to this share. All URLs of a lane belong to one.
    pub(super) fn has(self, url: &Url) -> bool {
        let digest = Sha256::of(lane_of(url).as_bytes()).0;
        let number = digest[..8]
            .iter()
            .fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        number % self.of == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
        match parsed {
            Some((index, of)) if index >= 1 && index <= of => Ok(Self {
                index: index - 1,
                of,
            }),
            _ => Err(format!(
                "`{text}` is no share; write `I/N` with I from 1 to N, such as `2/4`"
            )),
        }
    }
}

/// How the reading of a list ended.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// Entries that were handed on; each of them gets an outcome.
    pub(super) targets: u64,
    /// Entries that repeat an earlier one of this job.
    pub(super) repeats: u64,
    /// Whether the list was read to its end, or as far as the job wanted.
    pub(super) is_whole: bool,
    /// Why not all of the list was read.
    pub(super) error: Option<JobError>,
}

/// Where plans look things up.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) store: Store,
    pub(super) job: Arc<Job>,
    pub(super) shard: Option<Shard>,
    /// The keeper may wait for what the plan brings; `None` while it waits itself.
    pub(super) coming: Option<OneComing>,
}

impl Planner {
    /// Reads `list` to its end, or until the job is stopped or has what it wants.
    pub(super) async fn run(mut self, mut list: List) -> Planned {
        let mut planned = Planned::default();
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.job.halt.cancelled() => break,
                () = self.job.enough.cancelled() => {
                    planned.is_whole = true;
                    break;
                }
                chunk = list.next_chunk() => chunk,
            };
            let result = match chunk {
                Ok(Some(chunk)) => self.plan(chunk, &mut planned).await,
                Ok(None) => {
                    planned.is_whole = true;
                    break;
                }
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(true) => {}
                Ok(false) => {
                    planned.is_whole = !self.job.halt.is_cancelled();
                    break;
                }
                Err(error) => {
                    planned.error = Some(error);
                    break;
                }
            }
        }
        planned
    }

    /// Sends a chunk on its way. Returns whether the job wants more.
    async fn plan(&mut self, chunk: Vec<Entry>, planned: &mut Planned) -> Result<bool, JobError> {
        let mut targets = Vec::with_capacity(chunk.len());
        for entry in chunk {
            match entry {
                Entry::Invalid(invalid) if self.shard.is_none_or(|shard| shard.has_invalid()) => {
                    if !self.place().await {
                        return Ok(false);
                    }
                    self.shared
                        .settle(self.invalid(invalid, planned.targets))
                        .await;
                    planned.targets += 1;
                }
                Entry::Target(target) if self.shard.is_none_or(|shard| shard.has(&target.url)) => {
                    let album = target.album.as_ref().or(self.job.album.as_ref());
                    let key = TargetKey::of(&target.url, album, target.name.as_deref());
                    if let Some(touched) = &self.job.touched {
                        touched.add(album);
                    }
                    targets.push((key, target));
                }
                Entry::Invalid(_) | Entry::Target(_) => {}
            }
        }
        self.plan_targets(targets, planned).await
    }

    async fn plan_targets(
        &mut self,
        mut targets: Vec<(TargetKey, Target)>,
        planned: &mut Planned,
    ) -> Result<bool, JobError> {
        {
            // First what is under way, then the catalog: a target leaves the one only after it stands in
            // the other, so no repeat slips through between the two.
            let mut under_way = self
                .job
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let before = targets.len();
            targets.retain(|(key, _)| under_way.insert(*key));
            planned.repeats += (before - targets.len()) as u64;
        }
        let wanted = targets.iter().map(|(key, target)| (*key, target));
        let distrusted = &self.job.distrusted;
        let mut known = look_up(&*self.catalog, &self.store, distrusted, wanted).await?;
        let mut targets = targets.into_iter();
        while let Some((key, target)) = targets.next() {
            let known = known.remove(&key);
            if known.as_ref().is_some_and(|known| known.job == self.job.id) {
                planned.repeats += 1;
                self.forget([key]);
                continue;
            }
            if !self.place().await {
                self.forget(std::iter::once(key).chain(targets.map(|(key, _)| key)));
                return Ok(false);
            }
            let fetch = self.job.terms.client.settings_of(&target.url);
            let would = decide(
                known.as_ref(),
                self.job.refresh,
                self.job.fresh_since,
                &fetch,
            );
            let rest = known.as_ref().filter(|_| would == Would::Wait);
            let rest = rest.map(|known| (known.reason, known.status, resting(known, &fetch)));
            let ticket = Box::new(Ticket {
                job: self.job.clone(),
                seq: planned.targets,
                target,
                key,
                known,
                moved_to: None,
                trail: None,
                attempts: 0,
                begun: None,
                status: None,
                partial: None,
                _coming: self.shared.coming.one(),
            });
            planned.targets += 1;
            if would == Would::Fresh {
                self.shared.settle(ticket.confirm(None)).await;
                continue;
            }
            if let Some((reason, status, detail)) = rest {
                let mut ticket = ticket;
                ticket.status = status;
                let reason = reason.unwrap_or(Reason::Status);
                let rested = ticket.fail(Outcome::Skipped, reason, detail);
                self.shared.settle(rested).await;
                continue;
            }
            if let Err(down) = self.shared.push(ticket) {
                self.shared.settle_host_down(down).await;
            }
        }
        Ok(true)
    }

    /// Waits for a place in the job's window and, where files are counted, for one more to be wanted.
    /// Returns whether the job goes on. The run gives both back.
    async fn place(&mut self) -> bool {
        let is_free = |places: &Semaphore| places.available_permits() > 0;
        if !is_free(&self.job.window) || !self.job.wanted.as_ref().is_none_or(is_free) {
            // Until others have come through nothing more can come from here, so nobody need wait for it.
            self.coming = None;
            let go_on = self.wait_for_place().await;
            self.coming = Some(self.shared.coming.one());
            return go_on;
        }
        self.wait_for_place().await
    }

    async fn wait_for_place(&self) -> bool {
        let places = async {
            let window = self.job.window.acquire().await.ok()?;
            if let Some(wanted) = &self.job.wanted {
                wanted.acquire().await.ok()?.forget();
            }
            window.forget();
            Some(())
        };
        tokio::select! {
            biased;
            () = self.job.halt.cancelled() => false,
            place = places => place.is_some(),
        }
    }

    fn forget(&self, keys: impl IntoIterator<Item = TargetKey>) {
        let mut under_way = self
            .job
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            under_way.remove(&key);
        }
    }

    fn invalid(&self, invalid: Invalid, seq: u64) -> Finished {
        Finished {
            job: self.job.clone(),
            seq,
            key: None,
            target: None,
            item: invalid.into(),
            meta: None,
            brought: Brought::Nothing,
            replaces: None,
        }
    }
}

/// What is known of `targets`, without the validators of what has to be brought anew.
pub(super) async fn look_up(
    catalog: &dyn Catalog,
    store: &Store,
    distrusted: &HashSet<Uuid>,
    targets: impl Iterator<Item = (TargetKey, &Target)>,
) -> Result<HashMap<TargetKey, Known>, JobError> {
    let targets: Vec<_> = targets.collect();
    let keys = targets.iter().map(|(key, _)| *key).collect();
    let mut known = catalog.known(keys).await?;
    forget_missing_files(store, distrusted, known.values_mut()).await?;
    for (key, target) in targets {
        if let (Some(known), Some(promised)) = (known.get_mut(&key), target.sha256)
            && known
                .file
                .as_ref()
                .is_some_and(|file| file.sha256 != promised)
        {
            // The list promises other bytes than those at hand: neither a fresh record nor a 304 will do.
            known.forget_validators();
        }
    }
    Ok(known)
}

/// A file that somebody removed or wrote to has to be brought again, whatever the origin says
/// about what was there.
async fn forget_missing_files(
    store: &Store,
    distrusted: &HashSet<Uuid>,
    known: impl Iterator<Item = &mut Known>,
) -> Result<(), JobError> {
    let mut known: Vec<&mut Known> = known.filter(|known| known.file.is_some()).collect();
    let paths = known
        .iter()
        .filter_map(|known| Some(known.file.as_ref()?.path.clone()))
        .collect();
    let stats = store.stats(paths).await?;
    for (known, stat) in known.iter_mut().zip(stats) {
        let is_as_kept = |file: &KnownFile| {
            !distrusted.contains(&file.id)
                && stat.is_some_and(|stat| recorded(file).agrees_with(stat))
        };
        if !known.file.as_ref().is_none_or(is_as_kept) {
            known.forget_validators();
            if let Some(file) = &mut known.file {
                file.is_present = false;
            }
        }
    }
    Ok(())
}

/// What to do about a target of which `known` is [looked up](look_up). What came or was confirmed at `fresh_since` or
/// later, and did not fail since, need not be asked for.
pub(super) fn decide(
    known: Option<&Known>,
    refresh: bool,
    fresh_since: Option<DateTime<Utc>>,
    fetch: &Effective<'_>,
) -> Would {
    let Some(known) = known else {
        return Would::Fetch;
    };
    let now = Utc::now();
    if !refresh && rests_until(known, fetch).is_some_and(|until| now < until) {
        return Would::Wait;
    }
    match (&known.file, known.checked) {
        (Some(_), Some(checked)) => {
            let is_recent =
                fresh_since.is_some_and(|since| checked >= since) && known.failures == 0;
            if !refresh && (is_recent || known.is_fresh(now, fetch.refresh_after())) {
                Would::Fresh
            } else {
                Would::Ask
            }
        }
        _ => Would::Fetch,
    }
}

/// Until when a URL that keeps failing is left alone: for ever where it answered 410 (RFC 9110, section 15.5.11).
fn rests_until(known: &Known, fetch: &Effective<'_>) -> Option<DateTime<Utc>> {
    let tried = known.tried.filter(|_| known.failures > 0)?;
    if known.status == Some(410) {
        return Some(DateTime::<Utc>::MAX_UTC);
    }
    let rest = TimeDelta::from_std(fetch.failure_backoff(known.failures)).ok()?;
    Some(
        tried
            .checked_add_signed(rest)
            .unwrap_or(DateTime::<Utc>::MAX_UTC),
    )
}

/// Why a URL is left alone, in words.
pub(super) fn resting(known: &Known, fetch: &Effective<'_>) -> String {
    let tried = known
        .tried
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Secs, true);
    match rests_until(known, fetch) {
        Some(until) if until < DateTime::<Utc>::MAX_UTC => {
            let times = match known.failures {
                1 => "once".to_owned(),
                times => format!("{times} times in a row"),
            };
            let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!(
                "not asked: it failed {times}, last at {tried}; `fetch.failure_backoff` leaves it alone until {until}, \
                 `--refresh` asks at once"
            )
        }
        _ => format!(
            "not asked: at {tried} it answered 410, gone for good; `--refresh` asks all the same"
        ),
    }
}
