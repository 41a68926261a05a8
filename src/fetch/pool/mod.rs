//! A pool of proxies: which one a request goes through, and how each of them fares.
//!
//! - [`Settings`] is `[proxies]`.
//! - [`Pool::ride`] chooses a proxy for one request, whose [`Ride`] counts as long as it is under way.
//! - [`Via`] is how others speak of a proxy: it takes their verdict on what came through.
//! - `standing` holds the rules by which a proxy is set aside and comes back, `tending` reads lists and probes.
//!
//! A failure alone is nobody's fault: a proxy is blamed for what it says of itself, and for what another proxy then did better.

mod list;
mod settings;
mod standing;
mod tending;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error::SetupError;
use super::guard::Guard;
use super::proxy::Proxy;
use crate::metrics::METRICS;
use standing::{Fault, Fitness, Rules, Standing};

pub use settings::{ProxyUrl, Rotation, Settings};
pub use tending::{Checked, Health};

/// Clients that are kept at a time. A proxy is fixed in its client; an idle one costs few KiB, since they share their TLS.
const MAX_CLIENTS: usize = 1024;

/// How long a median is good for: requests ask for it more often than it moves.
const MEDIAN_FOR: Duration = Duration::from_millis(100);

/// Bytes whose time is compared between proxies.
const STRETCH: u64 = 64 * 1024;

/// How many times slower than the pool's median an answer or a body may come while another proxy could be asked.
const SLOWEST: f64 = 20.0;

/// Silence of which nothing is concluded, however quick the pool is.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// The proxies of one process, or of those of its jobs that connect in the same way.
pub(super) struct Pool {
    settings: Settings,
    guard: Arc<Guard>,
    /// Replaced as a whole when lists are read again.
    members: RwLock<Arc<Vec<Arc<Member>>>>,
    turn: AtomicUsize,
    clients: AtomicUsize,
    /// Of the times of all proxies, and until when it is taken for that.
    median: Mutex<Option<(Instant, Option<f64>)>>,
    /// Moves when there may be something to ride on that was not there before.
    news: watch::Sender<Tended>,
    tending: Mutex<Option<AbortHandle>>,
    /// What was last told, by what it is about.
    told: Mutex<HashMap<String, String>>,
}

/// How far lists and probes are.
#[derive(Debug, Clone, Copy, Default)]
struct Tended {
    lists: bool,
    probes: bool,
}

/// One proxy.
pub(super) struct Member {
    url: ProxyUrl,
    proxy: Proxy,
    /// Set if the operator named this proxy, in the settings or a file: it may have any address. Proxies that only
    /// remote lists name have to pass the guard.
    is_trusted: bool,
    /// Held for short sections only. Shared with the pool that follows after a reload.
    standing: Arc<Mutex<Standing>>,
    http: Mutex<Option<(reqwest::Client, Instant)>>,
    /// Requests under way.
    riders: AtomicUsize,
    /// Whether it passed its probe, where there is one.
    is_probed: std::sync::atomic::AtomicBool,
}

/// Why there is nothing to ride on.
#[derive(Debug, Clone)]
pub(super) struct NoRide {
    /// Proxies in the pool.
    pub(super) count: usize,
    /// Those that are set aside, or did not pass the probe.
    pub(super) aside: usize,
    /// When the first of them comes back.
    pub(super) back_in: Option<Duration>,
    /// What is wrong with one of them.
    pub(super) problem: Option<String>,
}

impl Pool {
    /// The pool that `settings` ask for; `None`: they ask for none. What is known of a proxy of `before` stays known.
    pub(super) fn new(
        settings: &Settings,
        guard: Arc<Guard>,
        before: Option<&Self>,
    ) -> Result<Option<Arc<Self>>, SetupError> {
        if !settings.is_configured() {
            return Ok(None);
        }
        let pool = Self {
            settings: settings.clone(),
            guard,
            members: RwLock::default(),
            turn: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            median: Mutex::default(),
            news: watch::Sender::default(),
            tending: Mutex::default(),
            told: Mutex::default(),
        };
        let mut named = settings.urls.clone();
        named.extend(pool.read_file()?);
        let mut listed = Vec::new();
        if let Some(before) = before {
            let members = before.members();
            if !settings.lists.is_empty() {
                // Those that lists name no longer are dropped when they are read.
                listed = before.listed();
            }
            *write(&pool.members) = Arc::new(
                members
                    .iter()
                    .map(|member| Arc::new(member.renewed(member.is_trusted)))
                    .collect(),
            );
        }
        pool.replace(named, listed);
        Ok(Some(Arc::new(pool)))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Proxies in it.
    pub(super) fn len(&self) -> usize {
        self.members().len()
    }

    fn members(&self) -> Arc<Vec<Arc<Member>>> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the members that only remote lists named.
    fn listed(&self) -> Vec<ProxyUrl> {
        let members = self.members();
        let listed = members.iter().filter(|member| !member.is_trusted);
        listed.map(|member| member.url.clone()).collect()
    }

    /// Replaces the members by the proxies in `named`, which the operator chose, and those in `listed` whose
    /// addresses are not denied. Drops repeats, and what exceeds `proxies.max`.
    fn replace(&self, named: Vec<ProxyUrl>, listed: Vec<ProxyUrl>) {
        let before = self.members();
        let known: HashMap<_, _> = before.iter().map(|member| (&member.url, member)).collect();
        let mut seen = HashSet::new();
        let mut denied = Vec::new();
        let mut members = Vec::new();
        let named = named.into_iter().map(|url| (url, true));
        let listed = listed.into_iter().map(|url| (url, false));
        for (url, is_trusted) in named.chain(listed) {
            if !seen.insert(url.clone()) {
                continue;
            }
            let Some(proxy) = Proxy::of_url(url.as_url()) else {
                continue;
            };
            let address = proxy.address().filter(|_| !is_trusted);
            if let Err(why) = address.map_or(Ok(()), |address| self.guard.judge(address)) {
                denied.push(format!("`{url}`: {why}"));
                continue;
            }
            if members.len() == self.settings.max.get() {
                let most = self.settings.max;
                self.tell(
                    "max",
                    format!("only the first {most} proxies are used; `proxies.max` sets the limit"),
                );
                break;
            }
            members.push(match known.get(&url) {
                Some(member) if member.is_trusted == is_trusted => (*member).clone(),
                // The new client resolves the proxy's name by other rules.
                Some(member) => {
                    self.drop_client(member);
                    Arc::new(member.renewed(is_trusted))
                }
                None => Arc::new(Member::new(url, proxy, is_trusted)),
            });
        }
        if let Some(first) = denied.first() {
            let count = denied.len();
            self.tell(
                "denied",
                format!(
                    "{count} of the proxies in `proxies.lists` are denied and not used; {first}"
                ),
            );
        }
        for gone in before.iter().filter(|member| !seen.contains(&member.url)) {
            self.drop_client(gone);
        }
        *write(&self.members) = Arc::new(members);
    }

    /// Warns of something, unless that is what was last said about it: file and lists are read again and again.
    fn tell(&self, about: &str, text: String) {
        let mut told = lock(&self.told);
        if told.get(about) != Some(&text) {
            tracing::warn!("{text}");
            told.insert(about.to_owned(), text);
        }
    }

    /// A proxy for a request to `host`, that is none of those in `not`, and if there is a choice none of `avoid`. Waits for the
    /// first lists and probes.
    pub(super) async fn ride(
        self: &Arc<Self>,
        host: &str,
        not: &[Via],
        avoid: &[Via],
    ) -> Result<Ride, NoRide> {
        let mut news = self.news.subscribe();
        loop {
            let tended = *news.borrow_and_update();
            let chosen = self.choose(host, not, avoid, Instant::now());
            let is_settled = self.is_tended(tended);
            match chosen {
                Ok(member) => return Ok(Ride::new(self.clone(), member)),
                Err(none)
                    if is_settled
                        || none.aside < none.count && self.settings.probe_url.is_none() =>
                {
                    return Err(none);
                }
                Err(none) => {
                    if news.changed().await.is_err() {
                        return Err(none);
                    }
                }
            }
        }
    }

    /// That proxy, however it fares.
    pub(super) fn ride_on(self: &Arc<Self>, member: &Arc<Member>) -> Ride {
        Ride::new(self.clone(), member.clone())
    }

    fn is_tended(&self, tended: Tended) -> bool {
        (tended.lists || self.settings.lists.is_empty())
            && (tended.probes || self.settings.probe_url.is_none())
    }

    /// Whether a request that none of `not` served could still go through another proxy.
    pub(super) fn has_other(&self, not: &[Via]) -> bool {
        let now = Instant::now();
        self.members()
            .iter()
            .any(|member| !is_in(not, member) && self.fitness(member, now).is_some())
    }

    /// Whether any proxy that can be used has brought good files.
    pub(super) fn has_proven(&self) -> bool {
        let now = Instant::now();
        let members = self.members();
        let mut fit = members.iter().map(|member| self.fitness(member, now));
        fit.any(|fitness| fitness == Some(Fitness::Proven))
    }

    /// How far a proxy may be used; `None`: not at all.
    fn fitness(&self, member: &Member, now: Instant) -> Option<Fitness> {
        if self.settings.probe_url.is_some() && !member.is_probed.load(Ordering::Relaxed) {
            return None;
        }
        match member.standing().fitness(now) {
            Fitness::Aside(_) => None,
            fitness => Some(fitness),
        }
    }

    fn choose(
        &self,
        host: &str,
        not: &[Via],
        avoid: &[Via],
        now: Instant,
    ) -> Result<Arc<Member>, NoRide> {
        let members = self.members();
        // Those that are free to be used, those that are being tried, and those that had better not be.
        let mut tiers: [Vec<&Arc<Member>>; 3] = Default::default();
        for member in members.iter().filter(|member| !is_in(not, member)) {
            let Some(fitness) = self.fitness(member, now) else {
                continue;
            };
            let is_busy = member.riders.load(Ordering::Relaxed) > 0;
            let tier = match fitness {
                _ if is_in(avoid, member) => 2,
                Fitness::Untried if self.settings.rotation == Rotation::Sticky => 0,
                Fitness::Untried | Fitness::OnTrial if is_busy => 1,
                _ => 0,
            };
            tiers[tier].push(member);
        }
        let Some(tier) = tiers.iter().find(|tier| !tier.is_empty()) else {
            return Err(self.unfit(&members, now));
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || tier[turn % tier.len()];
        let chosen = match self.settings.rotation {
            Rotation::RoundRobin => in_turn(),
            Rotation::LeastFailures => {
                let rank = |member: &Member| {
                    // In steps, so that a single failure long ago does not send everything elsewhere.
                    let failures = (member.standing().failure_rate() * 20.0).round() as u32;
                    (failures, member.riders.load(Ordering::Relaxed))
                };
                let turned = tier.iter().cycle().skip(turn % tier.len()).take(tier.len());
                turned
                    .min_by_key(|member| rank(member))
                    .copied()
                    .unwrap_or_else(in_turn)
            }
            // The highest random weight: when one is gone, only its hosts move.
            Rotation::Sticky => {
                let weight = |member: &Member| {
                    let mut hasher = DefaultHasher::new();
                    (host, &member.url).hash(&mut hasher);
                    hasher.finish()
                };
                tier.iter()
                    .max_by_key(|member| weight(member))
                    .copied()
                    .unwrap_or_else(in_turn)
            }
        };
        Ok(chosen.clone())
    }

    /// How many cannot be used, and why.
    pub(super) fn no_ride(&self) -> NoRide {
        self.unfit(&self.members(), Instant::now())
    }

    fn unfit(&self, members: &[Arc<Member>], now: Instant) -> NoRide {
        let unfit: Vec<_> = members
            .iter()
            .filter(|member| self.fitness(member, now).is_none())
            .collect();
        let back = unfit
            .iter()
            .filter_map(|member| match member.standing().fitness(now) {
                Fitness::Aside(until) => Some(until - now),
                _ => None,
            });
        let mut problems = unfit.iter().filter_map(|member| {
            let standing = member.standing();
            Some(format!("`{}`: {}", member.url, standing.problem()?))
        });
        NoRide {
            count: members.len(),
            aside: unfit.len(),
            back_in: back.min(),
            problem: problems.next_back(),
        }
    }

    /// The longest silence of a proxy while another one could be asked: less than the setting where the pool is quick.
    pub(super) fn patience(&self) -> Duration {
        let most = self.settings.patience;
        let median = self.median();
        median.map_or(most, |seconds| {
            let time = Duration::try_from_secs_f64(SLOWEST * seconds).unwrap_or(most);
            time.max(SHORTEST_PATIENCE).min(most)
        })
    }

    /// The slowest body that is waited for while another proxy could be asked, in bytes a second; 0: any.
    pub(super) fn least_speed(&self) -> u64 {
        let median = self.median();
        median.map_or(0, |seconds| {
            (STRETCH as f64 / (SLOWEST * seconds.max(0.05))) as u64
        })
    }

    fn median(&self) -> Option<f64> {
        let now = Instant::now();
        let mut known = lock(&self.median);
        if let Some((until, median)) = *known
            && now < until
        {
            return median;
        }
        let members = self.members();
        let times = members
            .iter()
            .filter_map(|member| member.standing().seconds());
        let median = standing::median(times.collect());
        *known = Some((now + MEDIAN_FOR, median));
        median
    }

    fn rules(&self) -> Rules {
        Rules {
            after: self.settings.set_aside_after.get(),
            first: self.settings.set_aside_for,
        }
    }

    /// Counts a failure of `member`, and sets it aside where that is one too many.
    fn failed(&self, member: &Member, fault: Fault, problem: String) {
        METRICS.proxy_failed(match fault {
            Fault::Own => "proxy",
            Fault::Worse => "worse",
            Fault::Altered => "altered",
        });
        let now = Instant::now();
        let is_too_much = member.standing().failed(fault, problem, self.rules(), now);
        if is_too_much {
            self.set_aside(member, fault != Fault::Own, None, now);
        }
    }

    /// Sets `member` aside. What is known by comparison alone may set aside half of the pool at most: beyond, it is not the proxies.
    fn set_aside(
        &self,
        member: &Member,
        by_comparison: bool,
        problem: Option<String>,
        now: Instant,
    ) {
        if by_comparison {
            let members = self.members();
            let compared = members
                .iter()
                .filter(|other| other.standing().is_aside_by_comparison(now))
                .count();
            if (compared + 1) * 2 > members.len() {
                return;
            }
        }
        let mut standing = member.standing();
        let Some(time) = standing.set_aside(by_comparison, problem, self.rules(), now) else {
            return;
        };
        let why = standing.problem().unwrap_or_default().to_owned();
        drop(standing);
        METRICS.proxy_set_aside();
        tracing::warn!(proxy = %member.url, "the proxy `{}` is set aside for {}: {why}", member.url, humantime::format_duration(time));
        // Connections that nobody uses go with it.
        if member.riders.load(Ordering::Relaxed) == 0 {
            self.drop_client(member);
        }
    }

    /// `member` brought what is good, and what it could have altered if `is_plain`.
    fn accepted(&self, member: &Member, is_plain: bool) {
        let was_on_trial = member.standing().accepted(is_plain, Instant::now());
        if was_on_trial {
            tracing::info!(proxy = %member.url, "the proxy `{}` works again", member.url);
        }
    }

    /// Takes the time of one answer of `bytes`, and sets `member` aside where it is much slower than the others.
    fn took(&self, member: &Member, time: Duration, bytes: u64) {
        let stretches = bytes.div_ceil(STRETCH).max(1);
        let now = Instant::now();
        let average = {
            let mut standing = member.standing();
            // What was under way when it was set aside tells nothing new.
            if let Fitness::Aside(_) = standing.fitness(now) {
                return;
            }
            standing.took(time.as_secs_f64() / stretches as f64)
        };
        // Where each host has its own proxy, a slow host makes a slow proxy.
        if !standing::may_be_outlier(average) || self.settings.rotation == Rotation::Sticky {
            return;
        }
        if let Some(median) = self
            .median()
            .filter(|median| standing::is_outlier(average, *median))
        {
            let problem = format!("it takes {average:.1} s for what others do in {median:.2} s");
            self.set_aside(member, true, Some(problem), now);
        }
    }

    /// The client of `member`, made by `build` where it has none.
    fn client<E>(
        &self,
        member: &Member,
        build: impl FnOnce() -> Result<reqwest::Client, E>,
    ) -> Result<reqwest::Client, E> {
        let now = Instant::now();
        let mut http = lock(&member.http);
        if let Some((client, used)) = &mut *http {
            *used = now;
            return Ok(client.clone());
        }
        let client = build()?;
        *http = Some((client.clone(), now));
        drop(http);
        if self.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            let members = self.members();
            let idle = members
                .iter()
                .filter(|other| other.riders.load(Ordering::Relaxed) == 0);
            let used = |member: &Member| lock(&member.http).as_ref().map(|(_, used)| *used);
            let oldest = idle
                .filter_map(|other| Some((used(other)?, other)))
                .min_by_key(|(used, _)| *used);
            if let Some((_, oldest)) = oldest {
                self.drop_client(oldest);
            }
        }
        Ok(client)
    }

    fn drop_client(&self, member: &Member) {
        if lock(&member.http).take().is_some() {
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(tending) = lock(&self.tending).take() {
            tending.abort();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Member {
    fn new(url: ProxyUrl, proxy: Proxy, is_trusted: bool) -> Self {
        Self {
            url,
            proxy,
            is_trusted,
            standing: Arc::default(),
            http: Mutex::default(),
            riders: AtomicUsize::new(0),
            is_probed: false.into(),
        }
    }

    /// Returns the same proxy with a new client, for another pool or for a change of `is_trusted`.
    fn renewed(&self, is_trusted: bool) -> Self {
        Self {
            standing: self.standing.clone(),
            is_probed: self.is_probed.load(Ordering::Relaxed).into(),
            ..Self::new(self.url.clone(), self.proxy.clone(), is_trusted)
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }
}

/// A panic elsewhere leaves these whole: they are changed by single assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn is_in(vias: &[Via], member: &Arc<Member>) -> bool {
    vias.iter().any(|via| Arc::ptr_eq(&via.member, member))
}

/// A request on its way through a proxy, from its choice to the end of its answer. Dropping it without a verdict says nothing.
pub(super) struct Ride {
    via: Via,
    begun: Instant,
}

impl Ride {
    fn new(pool: Arc<Pool>, member: Arc<Member>) -> Self {
        member.riders.fetch_add(1, Ordering::Relaxed);
        Self {
            via: Via {
                pool,
                member,
                is_plain: false,
            },
            begun: Instant::now(),
        }
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.via.member.proxy
    }

    pub(super) fn url(&self) -> &ProxyUrl {
        &self.via.member.url
    }

    /// Returns `true` if the operator named this proxy, so that it may have any address.
    pub(super) fn is_trusted(&self) -> bool {
        self.via.member.is_trusted
    }

    pub(super) fn client<E>(
        &self,
        build: impl FnOnce() -> Result<reqwest::Client, E>,
    ) -> Result<reqwest::Client, E> {
        self.via.pool.client(&self.via.member, build)
    }

    /// Who carries it; `is_plain`: the proxy sees what passes, and may change it.
    pub(super) fn via(&self, is_plain: bool) -> Via {
        Via {
            is_plain,
            ..self.via.clone()
        }
    }

    /// Records the end of an answer after `bytes`. `held_up` is the delay on this side, which does not count against
    /// the proxy.
    pub(super) fn arrived(self, bytes: u64, held_up: Duration) {
        let took = self.begun.elapsed().saturating_sub(held_up);
        self.via.pool.took(&self.via.member, took, bytes);
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.via.member.riders.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Ride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.via, f)
    }
}

/// The proxy of a pool that an answer came through.
#[derive(Clone)]
pub struct Via {
    pool: Arc<Pool>,
    member: Arc<Member>,
    is_plain: bool,
}

impl Via {
    /// Whether the proxy saw what passed, and could have changed it: it was no TLS.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether good files came through this proxy in the same way, plain or not, and none since that it altered.
    pub fn is_proven(&self) -> bool {
        let standing = self.member.standing();
        standing.is_proven(self.is_plain, Instant::now())
    }

    /// What came through is a good file.
    pub fn accept(&self) {
        self.pool.accepted(&self.member, self.is_plain);
    }

    /// What came through was no good, for `problem`, and another proxy brought what is.
    pub fn blame(&self, problem: &str) {
        let fault = if self.is_plain {
            Fault::Altered
        } else {
            Fault::Worse
        };
        self.pool.failed(&self.member, fault, problem.to_owned());
    }

    /// Whether there is a proxy besides `others`, which are of the same pool as this one.
    pub fn has_other_than(&self, others: &[Self]) -> bool {
        self.pool.has_other(others)
    }

    /// An answer came.
    pub(super) fn answered(&self) {
        METRICS.proxy_answered();
        self.member.standing().answered();
    }

    /// The proxy itself does not work.
    pub(super) fn failed(&self, problem: String) {
        self.pool.failed(&self.member, Fault::Own, problem);
    }

    /// Another proxy did what this one did not.
    pub fn did_worse(&self, problem: String) {
        self.pool.failed(&self.member, Fault::Worse, problem);
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.member.url, f)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.url, f)
    }
}

#[cfg(test)]
mod tests;
