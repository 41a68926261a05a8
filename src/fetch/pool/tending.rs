//! What keeps a pool in order: lists of proxies, read again from time to time, and probes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::super::client::{Client, WeakClient};
use super::super::error::SetupError;
use super::list;
use super::settings::{ProxyUrl, Settings};
use super::{Member, Pool, lock};
use crate::target::{SafeUrl, Sha256, Sha256Hasher, describe};

/// Proxies that are probed at a time.
const PROBES: usize = 16;

/// Proxies whose word it takes, where there is no direct way, if they are not at least half of the pool.
const FEWEST_VOTES: usize = 3;

/// When file and lists are read again of which one could not be had; the time doubles with each further time.
const RETRY: Duration = Duration::from_secs(30);

/// Most bytes of what a probe asks for.
const MAX_PROBE: u64 = 1024 * 1024;

/// Most bytes of a list: some 100,000 proxies.
const MAX_LIST: u64 = 4 * 1024 * 1024;

/// What `gannet proxies check` found out about one proxy.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// The proxy, without credentials.
    pub proxy: String,
    /// How it is.
    pub health: Health,
    /// How long the check took, in milliseconds, where it passed.
    pub latency_ms: Option<u64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// How a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It brought what `probe_url` brings directly, or what most others bring.
    Works,
    /// It accepts connections, and speaks SOCKS where it is to; nothing was asked of it.
    Reachable,
    /// Neither.
    Fails,
}

/// What remote lists said when they last said something.
#[derive(Debug, Default)]
struct Lists {
    last: HashMap<Url, Vec<ProxyUrl>>,
    /// Those that somebody was told about.
    missing: HashSet<Url>,
}

/// Most proxies that are read of a list: one more than are used, so that somebody is told.
fn most_of(settings: &Settings) -> usize {
    settings.max.get().saturating_add(1)
}

impl Pool {
    /// The proxies that the file names.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn read_file(&self) -> Result<Vec<ProxyUrl>, SetupError> {
        let Some(path) = &self.settings.file else {
            return Ok(Vec::new());
        };
        let text = std::fs::read_to_string(path).map_err(|source| SetupError::ReadProxies {
            path: path.to_path_buf(),
            source,
        })?;
        let listed = list::parse(&text, most_of(&self.settings));
        if let Some(complaint) = listed.complaint() {
            let text = format!("`{}` of `proxies.file`: {complaint}", path.display());
            self.tell("file", text);
        }
        Ok(listed.proxies)
    }

    /// Begins to read lists and to probe, where the settings ask for it and it has not begun.
    pub(in super::super) fn tend(&self, client: impl FnOnce() -> WeakClient) {
        let settings = &self.settings;
        if settings.lists.is_empty() && settings.file.is_none() && settings.probe_url.is_none() {
            return;
        }
        let mut tending = lock(&self.tending);
        if tending.as_ref().is_none_or(AbortHandle::is_finished) {
            *tending = Some(tokio::spawn(tend(client())).abort_handle());
        }
    }

    /// Reads all lists, probes all proxies, or connects to them where there is no probe, and tells of each.
    pub(in super::super) async fn check(&self, client: &Client) -> Vec<Checked> {
        self.refresh(client, &mut Lists::default()).await;
        let members = self.members();
        let (mut found, health) = match &self.settings.probe_url {
            Some(url) => (
                self.probe(client, url, &members, &mut None, |_, _| {})
                    .await,
                Health::Works,
            ),
            None => {
                let connect = |member: &Arc<Member>| {
                    let member = member.clone();
                    async move {
                        let result = self.reach(client, &member).await;
                        (member, result)
                    }
                };
                let found = stream::iter(members.iter())
                    .map(connect)
                    .buffer_unordered(PROBES);
                (found.collect::<Vec<_>>().await, Health::Reachable)
            }
        };
        // In the order of the settings, whichever answered first.
        let place: HashMap<_, _> = members
            .iter()
            .enumerate()
            .map(|(at, member)| (&member.url, at))
            .collect();
        found.sort_by_key(|(member, _)| place.get(&member.url).copied());
        let checked = found.into_iter().map(|(member, result)| Checked {
            proxy: member.url.to_string(),
            health: if result.is_ok() {
                health
            } else {
                Health::Fails
            },
            latency_ms: result
                .as_ref()
                .ok()
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            problem: result.err(),
        });
        checked.collect()
    }

    /// Reads file and lists again. Answers whether each of them could be had.
    async fn refresh(&self, client: &Client, lists: &mut Lists) -> bool {
        let settings = &self.settings;
        let mut named = settings.urls.clone();
        let mut listed = Vec::new();
        // A file that is gone for a moment empties no pool.
        let (mut is_whole, mut is_new) = (true, true);
        match self.read_file() {
            Ok(more) => named.extend(more),
            Err(error) => {
                let text = format!("{}; the proxies that it named stay", describe(&error));
                self.tell("file", text);
                is_new = false;
                let members = self.members();
                let before = members.iter().filter(|member| member.is_trusted);
                named.extend(before.map(|member| member.url.clone()));
            }
        }
        for url in &settings.lists {
            match self.read_list(client, url).await {
                Ok(proxies) => {
                    lists.missing.remove(url);
                    lists.last.insert(url.clone(), proxies);
                }
                Err(problem) => {
                    is_new = false;
                    if lists.missing.insert(url.clone()) {
                        tracing::warn!(
                            "cannot get the list of proxies `{}`: {problem}; what it named stays",
                            SafeUrl::new(url)
                        );
                    }
                }
            }
            match lists.last.get(url) {
                Some(last) => listed.extend(last.iter().cloned()),
                None => is_whole = false,
            }
        }
        if !is_whole {
            listed.extend(self.listed());
        }
        self.replace(named, listed);
        is_new
    }

    async fn read_list(&self, client: &Client, url: &Url) -> Result<Vec<ProxyUrl>, String> {
        let read = async {
            let mut response = client
                .direct()
                .get(url, "text/plain, */*;q=0.1", MAX_LIST)
                .await?;
            let mut text = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                text.extend_from_slice(&chunk);
            }
            Ok::<_, super::super::error::FetchError>(text)
        };
        let text = read.await.map_err(|error| describe(&error))?;
        let listed = list::parse(&String::from_utf8_lossy(&text), most_of(&self.settings));
        if listed.proxies.is_empty() {
            return Err("it names no proxy".to_owned());
        }
        if let Some(complaint) = listed.complaint() {
            let text = format!("the list of proxies `{}`: {complaint}", SafeUrl::new(url));
            self.tell(url.as_str(), text);
        }
        Ok(listed.proxies)
    }

    /// Has `members` bring the bytes of `url`, and tells `judged` of each as soon as it is known whether they are right.
    ///
    /// Where there is no direct way to know, what most of them bring is right from then on; for those that come after, which
    /// are the ones that failed before, it is what stands in `elected`.
    async fn probe(
        &self,
        client: &Client,
        url: &Url,
        members: &[Arc<Member>],
        elected: &mut Option<Expected>,
        judged: impl Fn(&Arc<Member>, &Result<Duration, String>),
    ) -> Vec<(Arc<Member>, Result<Duration, String>)> {
        let limit = self.settings.patience * 3;
        let direct = client.direct();
        let mut expected = elected.unwrap_or(Expected::Unknown);
        if let (Ok((first, _)), Ok((second, _))) = (
            bring(&direct, url, limit).await,
            bring(&direct, url, limit).await,
        ) {
            expected = if first == second {
                Expected::Bytes(first)
            } else {
                Expected::Anything
            };
        }
        let mut found = Vec::new();
        let mut brought = Vec::new();
        let probes = stream::iter(members.iter().cloned()).map(|member| async move {
            let result = bring(&client.through(&member), url, limit).await;
            (member, result)
        });
        let mut probes = std::pin::pin!(probes.buffer_unordered(PROBES));
        let mut tell = |member: Arc<Member>, result: Result<Duration, String>| {
            judged(&member, &result);
            found.push((member, result));
        };
        while let Some((member, result)) = probes.next().await {
            match (result, expected) {
                (Err(problem), _) => tell(member, Err(problem)),
                (Ok((digest, time)), Expected::Unknown) => brought.push((member, digest, time)),
                (Ok((digest, time)), expected) => tell(member, expected.hold(digest, time)),
            }
        }
        if elected.is_none() {
            if let Expected::Unknown = expected {
                expected = majority(brought.iter().map(|(_, digest, _)| *digest), members.len());
            }
            *elected = Some(expected);
        }
        if let Expected::Anything = expected {
            let text = format!(
                "`{}` of `proxies.probe_url` does not bring the same bytes each time, so that proxies that alter them cannot be told",
                SafeUrl::new(url)
            );
            self.tell("probe", text);
        }
        for (member, digest, time) in brought {
            tell(member, expected.hold(digest, time));
        }
        found
    }

    /// Takes the result of a probe.
    pub(super) fn probed(&self, member: &Arc<Member>, result: &Result<Duration, String>) {
        let passed = result.is_ok();
        let before = member.is_probed.swap(passed, Ordering::Relaxed);
        match result {
            Ok(time) => {
                self.took(member, *time, 0);
                self.news.send_modify(|_| {});
            }
            Err(problem) => {
                member.standing().has_problem(problem.clone());
                if before {
                    tracing::warn!(proxy = %member.url, "the proxy `{}` does not pass the probe any more: {problem}", member.url);
                } else {
                    tracing::debug!(proxy = %member.url, "the proxy `{}` does not pass the probe: {problem}", member.url);
                }
            }
        }
    }

    /// Whether a proxy is there and, for SOCKS, speaks it.
    async fn reach(&self, client: &Client, member: &Member) -> Result<Duration, String> {
        let begun = Instant::now();
        let url = &member.url;
        let host = url.as_url().host_str().unwrap_or_default();
        let mut stream = client
            .wire
            .connect(host, url.port(), member.is_trusted)
            .await
            .map_err(|error| describe(&error))?;
        // SOCKS 4 has no greeting before the request.
        if url.as_url().scheme().starts_with("socks5") {
            // RFC 1928, section 3: the methods on offer, none and user name with password.
            let greeting = async {
                stream.write_all(&[5, 2, 0, 2]).await?;
                let mut answer = [0; 2];
                stream.read_exact(&mut answer).await?;
                Ok::<_, std::io::Error>(answer)
            };
            match timeout(self.settings.patience, greeting).await {
                Ok(Ok([5, 0 | 2])) => {}
                Ok(Ok(_)) => {
                    return Err("it takes neither no user name nor one with a password".to_owned());
                }
                Ok(Err(error)) => return Err(format!("it does not speak SOCKS 5: {error}")),
                Err(_) => return Err("it does not speak SOCKS 5: it says nothing".to_owned()),
            }
        }
        Ok(begun.elapsed())
    }
}

/// Reads lists and probes for as long as there is a client that wants it.
async fn tend(client: WeakClient) {
    let mut lists = Lists::default();
    let mut elected = None;
    let mut failures = 0;
    let mut refresh_at = Instant::now();
    let mut probe_at = refresh_at;
    loop {
        let Some(client) = client.upgrade() else {
            return;
        };
        let Some(pool) = client.pool().cloned() else {
            return;
        };
        let settings = &pool.settings;
        if Instant::now() >= refresh_at {
            let is_new = pool.refresh(&client, &mut lists).await;
            failures = if is_new { 0 } else { failures + 1 };
            refresh_at = Instant::now() + pause(failures, settings.refresh);
        }
        pool.news.send_modify(|tended| tended.lists = true);
        if let Some(url) = &settings.probe_url {
            let is_round = Instant::now() >= probe_at;
            let members = pool.members();
            let new = members
                .iter()
                .filter(|member| is_round || !member.is_probed.load(Ordering::Relaxed));
            let due: Vec<_> = new.cloned().collect();
            if is_round && elected.take().is_none() {
                tracing::info!(
                    proxies = members.len(),
                    "all proxies of the pool are probed before they are used"
                );
            }
            pool.probe(&client, url, &due, &mut elected, |member, result| {
                pool.probed(member, result)
            })
            .await;
            if is_round {
                probe_at = Instant::now() + settings.probe_every;
            }
        }
        pool.news.send_modify(|tended| tended.probes = true);
        let next = match settings.probe_url {
            Some(_) => refresh_at.min(probe_at),
            None => refresh_at,
        };
        drop((client, pool));
        sleep_until(next).await;
    }
}

/// The time until file and lists are read again, after so many times in a row that one could not be had.
fn pause(failures: u32, refresh: Duration) -> Duration {
    match failures.checked_sub(1) {
        Some(before) => RETRY.saturating_mul(1 << before.min(16)).min(refresh),
        None => refresh,
    }
}

/// The digest of what `url` brings, and the time until its end.
async fn bring(client: &Client, url: &Url, limit: Duration) -> Result<(Sha256, Duration), String> {
    let begun = Instant::now();
    let read = async {
        let mut response = client.get(url, "*/*", MAX_PROBE).await?;
        let mut digest = Sha256Hasher::default();
        while let Some(chunk) = response.chunk().await? {
            digest.update(&chunk);
        }
        Ok::<_, super::super::error::FetchError>(digest.finish())
    };
    match timeout(limit, read).await {
        Ok(Ok(digest)) => Ok((digest, begun.elapsed())),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err(format!(
            "it did not bring `proxies.probe_url` within {}",
            humantime::format_duration(limit)
        )),
    }
}

/// What a probe has to bring.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Bytes(Sha256),
    /// It differs from time to time.
    Anything,
    /// There is no direct way to know.
    Unknown,
}

impl Expected {
    fn hold(self, digest: Sha256, time: Duration) -> Result<Duration, String> {
        match self {
            Self::Bytes(expected) if expected != digest => Err(
                "it alters what passes: it brought other bytes of `proxies.probe_url`".to_owned(),
            ),
            Self::Unknown => Err(
                "too few proxies bring `proxies.probe_url` to tell which of them alter it, and there is no direct way".to_owned(),
            ),
            _ => Ok(time),
        }
    }
}

/// What more than half of the answers of `members` proxies are, where there are enough of them. One alone is as good as any.
fn majority(digests: impl Iterator<Item = Sha256>, members: usize) -> Expected {
    let mut counts: HashMap<Sha256, usize> = HashMap::new();
    let mut all = 0;
    for digest in digests {
        *counts.entry(digest).or_default() += 1;
        all += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    match most {
        Some(_) if all < FEWEST_VOTES && all * 2 < members => Expected::Unknown,
        Some((digest, count)) if count * 2 > all => Expected::Bytes(digest),
        Some(_) => Expected::Anything,
        None => Expected::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_had_is_tried_again_soon() {
        let hour = Duration::from_secs(3600);
        let pauses = [0, 1, 2, 3, 99].map(|failures| pause(failures, hour).as_secs());
        assert_eq!(pauses, [3600, 30, 60, 120, 3600]);
        assert_eq!(pause(1, Duration::from_secs(5)).as_secs(), 5);
    }

    #[test]
    fn most_proxies_are_believed_and_no_two_that_differ() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Sha256::of(bytes));
        let majority = |digests: &[Sha256]| majority(digests.iter().copied(), digests.len());
        assert_eq!(majority(&[a, b, a, a]), Expected::Bytes(a));
        assert_eq!(majority(&[a]), Expected::Bytes(a));
        assert_eq!(majority(&[a, b]), Expected::Anything);
        assert_eq!(majority(&[a, b, c]), Expected::Anything);
        assert_eq!(majority(&[]), Expected::Unknown);
        assert!(Expected::Bytes(a).hold(b, Duration::ZERO).is_err());
        let few = |digests: &[Sha256]| super::majority(digests.iter().copied(), 9);
        assert_eq!(few(&[a, a, a]), Expected::Bytes(a));
        assert_eq!(few(&[a, a]), Expected::Unknown);
        assert!(Expected::Unknown.hold(a, Duration::ZERO).is_err());
        assert!(Expected::Anything.hold(b, Duration::ZERO).is_ok());
    }
}
