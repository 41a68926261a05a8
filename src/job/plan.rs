//! Reads a job's list and decides what is to be asked for.

use std::collections::{HashSet, VecDeque};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::PoisonError;

use chrono::Utc;
use tokio::sync::Semaphore;
use url::Url;

use super::attempts::Attempts;
use super::coming::OneComing;
use super::doubt::Doubts;
use super::freshness::{Lookup, decide, resting};
use super::item::Would;
use super::keeper::{Brought, Finished};
use super::order::{Order, Released, Turn};
use super::posted::Posted;
use super::worker::{Shared, Ticket, stop_detail};
use super::{Job, JobError};
use crate::catalog::{Catalog, Known, TargetKey};
use crate::fetch::Hosts;
use crate::source::{CHUNK_ENTRIES, Entry, Invalid, List, Notice};
use crate::store::Store;
use crate::target::{Outcome, Place, Reason, Sha256, Target};

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

    /// Returns `true` if a URL belongs to this share. All URLs of a politeness group belong to the same share.
    pub(super) fn has(self, hosts: &Hosts, url: &Url) -> bool {
        let digest = Sha256::of(hosts.politeness_group(url).as_bytes()).0;
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
    /// Notices about how the list was read.
    pub(super) notices: Vec<Notice>,
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
    /// Whose turn it is in a posted job.
    pub(super) order: Order,
    /// What a posted job had before this process.
    pub(super) before: Before,
    /// The keeper may wait for what the plan brings; `None` while it waits itself.
    pub(super) coming: Option<OneComing>,
}

/// What a posted job had before this process.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Targets that have their outcome.
    pub(super) targets: u64,
    /// The order behind the last of them, for targets of a list.
    pub(super) next_seq: u64,
    /// Lines of its list that are no URLs, and were told of.
    pub(super) lines: HashSet<u64>,
}

impl Before {
    pub(super) fn of(posted: Posted) -> Self {
        Self {
            targets: posted.row.counts.targets,
            next_seq: posted.next_seq,
            lines: posted.lines,
        }
    }
}

/// What a plan goes on with.
enum Step {
    /// More of the list.
    Chunk(Vec<Entry>),
    /// There is no more of it.
    ListEnded,
    /// There are so many places.
    Places(usize),
    /// Something need not wait any more.
    Released,
    /// Nothing is to be begun any more.
    Halted,
    /// The job has what it wants, or all that there is.
    Over,
}

impl Planner {
    /// Reads `list` to its end, or until the job is stopped or has what it wants.
    pub(super) async fn run(mut self, mut list: List) -> Planned {
        let mut planned = Planned {
            targets: self.before.targets,
            ..Planned::default()
        };
        let mut pending = VecDeque::new();
        let mut ended = false;
        loop {
            let step = self.step(&mut list, pending.len(), ended).await;
            planned.notices.extend(list.notices());
            let result = match step {
                Ok(Step::Chunk(chunk)) => {
                    pending.extend(chunk.into_iter().filter(|entry| self.is_wanted(entry)));
                    Ok(())
                }
                Ok(Step::ListEnded) => {
                    ended = true;
                    Ok(())
                }
                Ok(Step::Places(count)) => {
                    let entries = pending.drain(..count).collect();
                    self.plan(entries, &mut planned).await
                }
                Ok(Step::Released) => {
                    let released = self.order.released();
                    self.send(released, &mut planned).await
                }
                Ok(Step::Over) => {
                    planned.is_whole = true;
                    break;
                }
                Ok(Step::Halted) => {
                    // Of a list that is at hand every target gets its outcome; any other is not read on.
                    if let Some(reason) = self.job.stop_reason()
                        && self.job.posted.is_some()
                    {
                        pending.extend(self.order.drain());
                        self.abandon(pending, list, reason, &mut planned).await;
                    }
                    break;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                planned.error = Some(error);
                break;
            }
        }
        planned
    }

    /// Waits for something to do, with `pending` entries to plan.
    async fn step(
        &mut self,
        list: &mut List,
        pending: usize,
        ended: bool,
    ) -> Result<Step, JobError> {
        let (job, order) = (&*self.job, &mut self.order);
        if job.halt.is_cancelled() {
            return Ok(Step::Halted);
        }
        if pending > 0 {
            if let Some(places) = places_at_once(job, pending) {
                return Ok(Step::Places(places));
            }
        } else if !ended {
            return tokio::select! {
                biased;
                () = job.halt.cancelled() => Ok(Step::Halted),
                () = job.enough.cancelled() => Ok(Step::Over),
                () = order.hear() => Ok(Step::Released),
                chunk = list.next_chunk() => Ok(chunk?.map_or(Step::ListEnded, Step::Chunk)),
            };
        } else if !order.is_waiting() {
            return Ok(Step::Over);
        }
        // Until others have come through nothing more can come from here, so nobody need wait for it.
        self.coming = None;
        let step = tokio::select! {
            biased;
            () = job.halt.cancelled() => Step::Halted,
            () = job.enough.cancelled() => Step::Over,
            () = order.hear() => Step::Released,
            is_free = wait_for_place(job), if pending > 0 => match is_free {
                true => Step::Places(1),
                false => Step::Over,
            },
        };
        self.coming = Some(self.shared.coming.one());
        Ok(step)
    }

    /// Whether an entry belongs to the job, and has no outcome yet.
    fn is_wanted(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Target(target) => {
                let hosts = self.job.terms.client.hosts();
                self.shard.is_none_or(|shard| shard.has(hosts, &target.url))
            }
            Entry::Invalid(invalid) => {
                let is_told = |line| self.before.lines.contains(&line);
                self.shard.is_none_or(|shard| shard.has_invalid())
                    && !invalid.line.is_some_and(is_told)
            }
        }
    }

    /// Sends entries on their way that have their places, as far as it is their turn.
    async fn plan(&mut self, entries: Vec<Entry>, planned: &mut Planned) -> Result<(), JobError> {
        let mut now = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Turn::Now(released) = self.order.enter(entry) {
                now.push(released);
            }
        }
        self.send(now, planned).await
    }

    /// Sends entries on their way whose turn it is, or ends them.
    async fn send(
        &mut self,
        released: Vec<Released>,
        planned: &mut Planned,
    ) -> Result<(), JobError> {
        let mut targets = Vec::with_capacity(released.len());
        for released in released {
            match released {
                Released::Go(Entry::Target(target)) => {
                    targets.push((self.key(&target), target));
                }
                Released::Go(Entry::Invalid(invalid)) => {
                    let seq = self.seq(invalid.place, planned);
                    self.shared.settle(self.invalid(invalid, seq)).await;
                }
                Released::Stopped(entry) => {
                    let detail = "an earlier failure stopped its group";
                    self.skip(entry, Reason::GroupStopped, detail, planned)
                        .await;
                }
            }
        }
        self.plan_targets(targets, planned).await
    }

    fn key(&self, target: &Target) -> TargetKey {
        let album = target.album.as_ref().or(self.job.album.as_ref());
        if let Some(touched) = &self.job.touched {
            touched.add(album);
        }
        TargetKey::of(&target.url, album, target.name.as_deref())
    }

    /// The order of the next target, which is counted with that.
    fn seq(&self, place: Option<Place>, planned: &mut Planned) -> u64 {
        let nth = planned.targets - self.before.targets;
        planned.targets += 1;
        place.map_or(self.before.next_seq + nth, |place| place.seq)
    }

    async fn plan_targets(
        &mut self,
        mut targets: Vec<(TargetKey, Target)>,
        planned: &mut Planned,
    ) -> Result<(), JobError> {
        let mut repeats = Vec::new();
        {
            // First what is under way, then the catalog: a target leaves the one only after it stands in
            // the other, so no repeat slips through between the two.
            let mut under_way = self
                .job
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_repeat = |(key, _): &mut (TargetKey, Target)| !under_way.insert(*key);
            repeats.extend(targets.extract_if(.., is_repeat));
        }
        for (key, target) in repeats {
            match target.place {
                // Each target that was posted gets its outcome.
                Some(_) => self.order.wait_for(key, Entry::Target(target)),
                None => self.drop_repeat(planned),
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        let job = self.job.clone();
        let client = &job.terms.client;
        let lookup = Lookup {
            catalog: &*self.catalog,
            store: &self.store,
            distrusted: &job.distrusted,
            downloader: &job.downloader,
            steps: &job.steps,
            fetch: client.settings(),
            hosts: client.hosts(),
            halt: &job.halt,
        };
        let wanted = targets.iter().map(|(key, target)| (*key, target));
        let mut known = lookup.known(wanted).await?;
        let now = Utc::now();
        for (key, target) in targets {
            let known = known.remove(&key);
            if target.place.is_none()
                && known.as_ref().is_some_and(|known| known.job == self.job.id)
            {
                self.drop_repeat(planned);
                self.forget(key);
                continue;
            }
            let fetch = self.job.terms.client.settings_of(&target.url);
            let would = decide(
                known.as_ref(),
                self.job.refresh,
                self.job.fresh_since,
                &fetch,
                now,
            );
            let rest = known.as_ref().filter(|_| would == Would::Wait);
            let rest = rest.map(|known| (known.reason, known.status, resting(known, &fetch, now)));
            let seq = self.seq(target.place, planned);
            let ticket = self.ticket(target, key, known, seq);
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
        Ok(())
    }

    fn ticket(
        &self,
        target: Target,
        key: TargetKey,
        known: Option<Known>,
        seq: u64,
    ) -> Box<Ticket> {
        Box::new(Ticket {
            job: self.job.clone(),
            seq,
            target,
            key,
            known,
            moved_to: None,
            trail: None,
            cookies: None,
            attempts: 0,
            begun: None,
            status: None,
            gone_until: None,
            partial: None,
            tries: Attempts::default(),
            doubts: Doubts::default(),
            _coming: self.shared.coming.one(),
        })
    }

    /// Gives the rest of a posted job its outcome.
    async fn abandon(
        &self,
        pending: VecDeque<Entry>,
        mut list: List,
        reason: Reason,
        planned: &mut Planned,
    ) {
        let mut rest = Vec::from(pending);
        loop {
            for entry in rest {
                self.skip(entry, reason, stop_detail(reason), planned).await;
            }
            let chunk = list.next_chunk().await;
            planned.notices.extend(list.notices());
            rest = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    planned.is_whole = true;
                    return;
                }
                Err(error) => {
                    planned.error = Some(error.into());
                    return;
                }
            };
            rest.retain(|entry| self.is_wanted(entry));
        }
    }

    async fn skip(&self, entry: Entry, reason: Reason, detail: &str, planned: &mut Planned) {
        let finished = match entry {
            Entry::Target(target) => {
                let (key, seq) = (self.key(&target), self.seq(target.place, planned));
                let ticket = self.ticket(target, key, None, seq);
                let mut finished = ticket.fail(Outcome::Skipped, reason, detail);
                // Another target may be under way with that URL, and is what is remembered of it.
                finished.key = None;
                finished
            }
            Entry::Invalid(invalid) => {
                let seq = self.seq(invalid.place, planned);
                let mut finished = self.invalid(invalid, seq);
                let item = &mut finished.item;
                (item.outcome, item.reason) = (Outcome::Skipped, Some(reason));
                item.detail = Some(detail.to_owned());
                finished
            }
        };
        self.shared.settle(finished).await;
    }

    /// Counts a line that repeats an earlier one, and gives its place back.
    fn drop_repeat(&self, planned: &mut Planned) {
        // What an earlier process had of the same list is no repeat within it.
        planned.repeats += u64::from(self.before.next_seq == 0);
        self.job.window.add_permits(1);
        if let Some(wanted) = &self.job.wanted {
            wanted.add_permits(1);
        }
    }

    fn forget(&self, key: TargetKey) {
        let under_way = &self.job.under_way;
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&key);
    }

    fn invalid(&self, invalid: Invalid, seq: u64) -> Finished {
        Finished {
            job: self.job.clone(),
            seq,
            key: None,
            target: None,
            place: invalid.place,
            item: invalid.into(),
            meta: None,
            brought: Brought::Nothing,
            replaces: None,
            steps: None,
            gone_until: None,
        }
    }
}

/// Takes places in the job's window and, where files are counted, of the files that are still wanted: as many as there
/// are, up to `most`. The run gives them back. `None` where there are none at the moment.
fn places_at_once(job: &Job, most: usize) -> Option<usize> {
    let semaphores = || std::iter::once(&job.window).chain(&job.wanted);
    // Nobody else takes any.
    let free = semaphores().map(Semaphore::available_permits).min();
    let count = free.unwrap_or(0).min(most).min(CHUNK_ENTRIES);
    if count == 0 || job.enough.is_cancelled() {
        return None;
    }
    for semaphore in semaphores() {
        let places = u32::try_from(count).unwrap_or(u32::MAX);
        semaphore.try_acquire_many(places).ok()?.forget();
    }
    Some(count)
}

/// Waits for one place. Returns whether the job still wants it. Cancel safe.
async fn wait_for_place(job: &Job) -> bool {
    let places = async {
        let window = job.window.acquire().await.ok()?;
        if let Some(wanted) = &job.wanted {
            wanted.acquire().await.ok()?.forget();
        }
        window.forget();
        Some(())
    };
    places.await.is_some()
}
