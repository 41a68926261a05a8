//! Looks names up at name servers: both address families at once, each name once, and cached for as long as the TTL
//! allows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_net::proto::rr::{Name, RecordType};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::servers::{Answer, MAX_TTL, Servers};

/// Most cached names, at about 300 bytes each.
const MAX_NAMES: usize = 8192;

/// How long addresses of one family wait for those of the other, RFC 8305 section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How much longer the other family is waited for in the background, so that the next look-up has it.
const LATE: Duration = Duration::from_secs(2);

/// How long the addresses of one family are used alone at least, when there are none of the other or no server answered
/// for it.
const WITHOUT: Duration = Duration::from_secs(10);

/// The result of a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// At least one address, IPv4 first.
    Addresses(Vec<IpAddr>),
    NoData,
    NoName,
    /// No server answered; the text has the reasons.
    Failed(String),
}

/// Look-ups at one set of servers, and their cache.
#[derive(Debug)]
pub(super) struct Lookups {
    servers: Arc<Servers>,
    /// Held for short sections only.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<Box<str>, watch::Receiver<Progress>>,
    /// Look-ups in flight. Dropping the set aborts them.
    tasks: JoinSet<()>,
}

impl Lookups {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers: Arc::new(servers),
            state: Mutex::default(),
        }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Returns the addresses of `name`; `text` is the same name as a cache key. Once there is an address for which
    /// `is_enough` returns `true`, the other family gets only a short time. `None` waits for both families.
    pub(super) async fn resolve(
        &self,
        text: &str,
        name: Name,
        is_enough: Option<&(dyn Fn(IpAddr) -> bool + Sync)>,
    ) -> Outcome {
        let is_enough = is_enough.filter(|_| !waits_for_both());
        let mut progress = self.begin(text, name);
        loop {
            let ready_at = progress.borrow_and_update().ready_at(is_enough);
            let changed = progress.changed();
            let has_ended = match ready_at {
                Some(at) if at <= Instant::now() => break,
                Some(at) => tokio::select! {
                    changed = changed => changed.is_err(),
                    () = sleep_until(at) => false,
                },
                None => changed.await.is_err(),
            };
            if has_ended {
                break;
            }
        }
        let outcome = progress.borrow().outcome();
        if matches!(outcome, Outcome::Addresses(_)) {
            Late::note(progress);
        }
        outcome
    }

    /// Returns the look-up of a name: a cached one, one in flight, or a new one.
    fn begin(&self, text: &str, name: Name) -> watch::Receiver<Progress> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.names.get(text)
            && holds(known, now)
        {
            return known.clone();
        }
        if state.names.len() >= MAX_NAMES {
            state.names.retain(|_, known| holds(known, now));
            if state.names.len() >= MAX_NAMES {
                state.names.clear();
            }
        }
        while state.tasks.try_join_next().is_some() {}
        let (sender, receiver) = watch::channel(Progress::default());
        state
            .tasks
            .spawn(look_up(self.servers.clone(), name, sender));
        state.names.insert(text.into(), receiver.clone());
        receiver
    }
}

tokio::task_local! {
    static SCOPE: Scope;
}

#[derive(Debug)]
struct Scope {
    waits_for_both: bool,
    late: RefCell<Option<Late>>,
}

/// A look-up of which one family is used while the other is still awaited.
#[derive(Debug, Clone)]
pub(in crate::fetch) struct Late(watch::Receiver<Progress>);

impl Late {
    fn note(progress: watch::Receiver<Progress>) {
        let is_complete = progress.borrow().is_complete();
        let late = (!is_complete).then_some(Self(progress));
        // Without a scope, nobody waits for it.
        let _ = SCOPE.try_with(|scope| *scope.late.borrow_mut() = late);
    }

    /// Waits until both families are settled. Returns `true` if the one that was missing has addresses.
    pub(in crate::fetch) async fn more(&self) -> bool {
        let mut progress = self.0.clone();
        let has_v4 = progress.borrow().v4.is_some();
        let has_v6 = progress.borrow().v6.is_some();
        if progress.wait_for(Progress::is_complete).await.is_err() {
            return false;
        }
        let progress = progress.borrow();
        let is_found = |noted: &Option<Noted>| noted.as_ref().is_some_and(Noted::is_found);
        !has_v4 && is_found(&progress.v4) || !has_v6 && is_found(&progress.v6)
    }
}

/// Runs `future`. Within it, [`late`] returns the latest look-up that was used before it was complete. There is none if
/// its look-ups wait for both families, `waits_for_both`.
pub(in crate::fetch) async fn noting_late<F: Future>(waits_for_both: bool, future: F) -> F::Output {
    let scope = Scope {
        waits_for_both,
        late: RefCell::default(),
    };
    SCOPE.scope(scope, future).await
}

/// See [`noting_late`].
pub(in crate::fetch) fn late() -> Option<Late> {
    let late = SCOPE.try_with(|scope| scope.late.borrow().clone());
    late.ok().flatten()
}

fn waits_for_both() -> bool {
    SCOPE
        .try_with(|scope| scope.waits_for_both)
        .unwrap_or(false)
}

/// Returns `true` while a look-up is in flight, and until its answers expire.
fn holds(known: &watch::Receiver<Progress>, now: Instant) -> bool {
    let is_under_way = known.has_changed().is_ok();
    known
        .borrow()
        .lives_until()
        .map_or(is_under_way, |end| now < end)
}

/// Asks for both families, and reports each answer as it comes.
async fn look_up(servers: Arc<Servers>, name: Name, progress: watch::Sender<Progress>) {
    let mut v4 = pin!(servers.ask(&name, RecordType::A));
    let mut v6 = pin!(servers.ask(&name, RecordType::AAAA));
    if servers.conf().no_aaaa {
        progress.send_modify(|progress| progress.note_v6(Answer::NoData(MAX_TTL)));
    }
    loop {
        let (has_v4, has_v6, ends_at) = {
            let progress = progress.borrow();
            (
                progress.v4.is_some(),
                progress.v6.is_some(),
                progress.ready_at(Some(&|_| true)),
            )
        };
        if has_v4 && has_v6 {
            return;
        }
        let late = async {
            match ends_at {
                Some(at) => sleep_until(at + LATE).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = &mut v4, if !has_v4 => {
                progress.send_modify(|progress| progress.note_v4(answer));
            }
            answer = &mut v6, if !has_v6 => {
                progress.send_modify(|progress| progress.note_v6(answer));
            }
            () = late => {
                progress.send_modify(Progress::give_up);
            }
        }
    }
}

/// The state of a look-up.
#[derive(Debug, Default)]
struct Progress {
    v4: Option<Noted>,
    v6: Option<Noted>,
}

#[derive(Debug, Clone)]
struct Noted {
    answer: Answer,
    at: Instant,
}

impl Noted {
    fn is_found(&self) -> bool {
        matches!(self.answer, Answer::Addresses(..))
    }
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.v4.is_some() && self.v6.is_some()
    }

    fn note_v4(&mut self, answer: Answer) {
        let at = Instant::now();
        self.v4 = Some(Noted { answer, at });
    }

    fn note_v6(&mut self, answer: Answer) {
        let at = Instant::now();
        self.v6 = Some(Noted { answer, at });
    }

    fn give_up(&mut self) {
        let late = || Noted {
            answer: Answer::Failed("no answer in time".to_owned()),
            at: Instant::now(),
        };
        self.v4.get_or_insert_with(late);
        self.v6.get_or_insert_with(late);
    }

    /// Returns when a caller may use the outcome, or `None` if it has to wait for another answer.
    fn ready_at(&self, is_enough: Option<&(dyn Fn(IpAddr) -> bool + Sync)>) -> Option<Instant> {
        let is_useful = |noted: &Noted| match (&noted.answer, is_enough) {
            (Answer::Addresses(addresses, _), Some(is_enough)) => {
                addresses.iter().any(|&address| is_enough(address))
            }
            _ => false,
        };
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => Some(v4.at.max(v6.at)),
            (Some(one), None) | (None, Some(one)) if is_useful(one) => {
                Some(one.at + RESOLUTION_DELAY)
            }
            // NXDOMAIN holds for both families. It counts only in answers for IPv4, because some servers send it for
            // IPv6 although there are IPv4 addresses.
            (Some(v4), None) if matches!(v4.answer, Answer::NoName(_)) => {
                Some(v4.at + RESOLUTION_DELAY)
            }
            _ => None,
        }
    }

    /// Combines the answers so far. A failure of one family does not discard the addresses of the other.
    fn outcome(&self) -> Outcome {
        let answers = || [&self.v4, &self.v6].into_iter().flatten();
        let addresses: Vec<_> = answers()
            .filter_map(|noted| match &noted.answer {
                Answer::Addresses(addresses, _) => Some(addresses.as_slice()),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        if !addresses.is_empty() {
            return Outcome::Addresses(addresses);
        }
        let [v4, v6] = [&self.v4, &self.v6].map(|noted| Some(&noted.as_ref()?.answer));
        match (v4, v6) {
            // Some servers deny a name when asked for IPv6 addresses, although it has IPv4 addresses.
            (Some(Answer::NoName(_)), Some(Answer::NoName(_) | Answer::Failed(_)) | None) => {
                Outcome::NoName
            }
            (Some(Answer::Failed(why)), _) | (_, Some(Answer::Failed(why))) => {
                Outcome::Failed(why.clone())
            }
            (Some(_), Some(_)) => Outcome::NoData,
            (None, _) | (_, None) => Outcome::Failed("the look-up was broken off".to_owned()),
        }
    }

    /// Returns when the first of both answers expires, or `None` while one is missing.
    fn lives_until(&self) -> Option<Instant> {
        let (v4, v6) = (self.v4.as_ref()?, self.v6.as_ref()?);
        let is_found = |noted: &Noted| matches!(noted.answer, Answer::Addresses(..));
        let end = |noted: &Noted, other: &Noted| {
            let (is_answer, ttl) = match &noted.answer {
                Answer::Addresses(_, ttl) => (true, *ttl),
                Answer::NoData(ttl) | Answer::NoName(ttl) => (false, *ttl),
                Answer::Failed(_) => (false, Duration::ZERO),
            };
            // Many servers omit the SOA record that has the negative TTL (RFC 2308, section 5).
            let least = match !is_answer && is_found(other) {
                true => WITHOUT,
                false => Duration::ZERO,
            };
            noted.at + ttl.max(least)
        };
        Some(end(v4, v6).min(end(v6, v4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn found(address: &str) -> Answer {
        Answer::Addresses(vec![address.parse().unwrap()], MINUTE)
    }

    fn failed() -> Answer {
        Answer::Failed("silence".to_owned())
    }

    fn addresses(texts: &[&str]) -> Outcome {
        Outcome::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn one_kind_does_not_spoil_the_other() {
        let (none, no_name) = (Answer::NoData(MINUTE), Answer::NoName(MINUTE));
        for (v4, v6, expected) in [
            (
                found("10.0.0.1"),
                found("::1"),
                addresses(&["10.0.0.1", "::1"]),
            ),
            (found("10.0.0.1"), none.clone(), addresses(&["10.0.0.1"])),
            (found("10.0.0.1"), no_name.clone(), addresses(&["10.0.0.1"])),
            (found("10.0.0.1"), failed(), addresses(&["10.0.0.1"])),
            (none.clone(), found("::1"), addresses(&["::1"])),
            (failed(), found("::1"), addresses(&["::1"])),
            (none.clone(), none.clone(), Outcome::NoData),
            (no_name.clone(), no_name.clone(), Outcome::NoName),
            (none.clone(), no_name.clone(), Outcome::NoData),
            (no_name.clone(), failed(), Outcome::NoName),
            // Some servers say so of IPv6 although there are IPv4 addresses.
            (
                failed(),
                no_name.clone(),
                Outcome::Failed("silence".to_owned()),
            ),
            (
                none.clone(),
                failed(),
                Outcome::Failed("silence".to_owned()),
            ),
            (failed(), failed(), Outcome::Failed("silence".to_owned())),
        ] {
            let mut progress = Progress::default();
            progress.note_v4(v4.clone());
            progress.note_v6(v6.clone());
            assert_eq!(progress.outcome(), expected, "{v4:?} {v6:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_waits_a_moment_for_the_rest() {
        let all: &(dyn Fn(IpAddr) -> bool + Sync) = &|_| true;
        let no_v4: &(dyn Fn(IpAddr) -> bool + Sync) = &|address| address.is_ipv6();
        let soon = Some(Instant::now() + RESOLUTION_DELAY);
        for (v4, v6, is_enough, expected) in [
            (None, None, Some(all), None),
            (Some(found("10.0.0.1")), None, Some(all), soon),
            (None, Some(found("::1")), Some(all), soon),
            // A denied address is not enough.
            (Some(found("10.0.0.1")), None, Some(no_v4), None),
            // A caller that needs all addresses waits for both families.
            (Some(found("10.0.0.1")), None, None, None),
            (Some(Answer::NoData(MINUTE)), None, Some(all), None),
            (Some(failed()), None, Some(all), None),
            (Some(Answer::NoName(MINUTE)), None, Some(all), soon),
            (None, Some(Answer::NoName(MINUTE)), Some(all), None),
            (Some(failed()), Some(failed()), None, Some(Instant::now())),
        ] {
            let mut progress = Progress::default();
            v4.iter()
                .for_each(|answer| progress.note_v4(answer.clone()));
            v6.iter()
                .for_each(|answer| progress.note_v6(answer.clone()));
            assert_eq!(progress.ready_at(is_enough), expected, "{v4:?} {v6:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_as_long_as_both_live() {
        let none = |seconds| Answer::NoData(Duration::from_secs(seconds));
        for (v4, v6, expected) in [
            (found("10.0.0.1"), found("::1"), MINUTE),
            (found("10.0.0.1"), none(20), Duration::from_secs(20)),
            // Where nobody says for how long.
            (found("10.0.0.1"), none(0), WITHOUT),
            (none(0), found("::1"), WITHOUT),
            (found("10.0.0.1"), Answer::NoName(Duration::ZERO), WITHOUT),
            (none(5), none(20), Duration::from_secs(5)),
            (found("10.0.0.1"), failed(), WITHOUT),
            // With `no-aaaa` nobody is asked.
            (found("10.0.0.1"), Answer::NoData(MAX_TTL), MINUTE),
            (failed(), failed(), Duration::ZERO),
            (
                Answer::NoName(Duration::ZERO),
                Answer::NoName(MINUTE),
                Duration::ZERO,
            ),
        ] {
            let mut progress = Progress::default();
            progress.note_v4(v4.clone());
            assert_eq!(progress.lives_until(), None);
            progress.note_v6(v6.clone());
            let end = Instant::now() + expected;
            assert_eq!(progress.lives_until(), Some(end), "{v4:?} {v6:?}");
        }
    }
}
