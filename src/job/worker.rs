//! Takes targets from the frontier and sees each through to an outcome, or back for another attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use super::Job;
use super::attempts::{Attempts, Left};
use super::coming::{Coming, OneComing};
use super::doubt::{Doubts, Next};
use super::item::Item;
use super::keeper::{Brought, Finished};
use crate::catalog::{Known, TargetKey};
use crate::downloader::{
    Answer, Ask, Download, DownloadError, Failure, Memory, Meta, Partial, Rejection,
};
use crate::fetch::{self, CookieJar, FetchError, Permission, Robots, Trail, Validators};
use crate::frontier::{Address, Down, Frontier, Health, HostDown, Started};
use crate::target::{Outcome, Reason, SafeUrl, Target, describe};

/// A target on its way from plan to keeper.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) job: Arc<Job>,
    /// Order within the job.
    pub(super) seq: u64,
    pub(super) target: Target,
    pub(super) key: TargetKey,
    pub(super) known: Option<Known>,
    /// Where redirects led.
    pub(super) moved_to: Option<Url>,
    /// The requests of this attempt. `None` before it begins.
    pub(super) trail: Option<Trail>,
    /// Cookies that answers to earlier attempts have set.
    pub(super) cookies: Option<Box<CookieJar>>,
    /// Number of requests for the target, including those for the rest of a body and for a second proxy. Redirects do
    /// not count.
    pub(super) attempts: u32,
    /// The attempts that count against `fetch.retries`.
    pub(super) tries: Attempts,
    pub(super) begun: Option<Instant>,
    pub(super) status: Option<u16>,
    /// See [`Known::gone_until`].
    pub(super) gone_until: Option<DateTime<Utc>>,
    /// What an earlier attempt brought, and the URL that it came from: where redirects led, maybe.
    pub(super) partial: Option<(Url, Partial)>,
    /// Results that are not believed yet.
    pub(super) doubts: Doubts,
    /// The keeper may wait for it.
    pub(super) _coming: OneComing,
}

impl Ticket {
    fn url(&self) -> &Url {
        self.moved_to.as_ref().unwrap_or(&self.target.url)
    }

    /// What the report says of the target, as far as it is known here.
    fn item(&mut self, outcome: Outcome) -> Item {
        let mut item = Item::new(SafeUrl::new(&self.target.url).to_string(), outcome);
        item.status = self.status;
        item.attempts = self.attempts;
        item.elapsed_ms = self
            .begun
            .map(|begun| u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        item.final_url = self
            .moved_to
            .as_ref()
            .map(|url| SafeUrl::new(url).to_string());
        item.line = self.target.line;
        item.group = self.target.group.clone();
        item.metadata = self.target.metadata.take();
        item
    }

    /// Ends the ticket without a file.
    pub(super) fn fail(
        mut self: Box<Self>,
        outcome: Outcome,
        reason: Reason,
        detail: impl Into<String>,
    ) -> Finished {
        let mut item = self.item(outcome);
        item.reason = Some(reason);
        item.detail = Some(detail.into());
        self.finish(item, None, Brought::Nothing)
    }

    /// Ends the ticket with what is known already.
    pub(super) fn confirm(mut self: Box<Self>, meta: Option<Meta>) -> Finished {
        let mut item = self.item(Outcome::Unchanged);
        let (file, last_modified) = match self.known.take() {
            Some(known) => (known.file, known.last_modified),
            None => (None, None),
        };
        let validators = Validators {
            etag: None,
            last_modified,
        };
        let validators = meta.as_ref().map_or(&validators, |meta| &meta.validators);
        item.last_modified = validators.modified();
        self.finish(item, meta, file.map_or(Brought::Nothing, Brought::Known))
    }

    fn finish(self: Box<Self>, item: Item, meta: Option<Meta>, brought: Brought) -> Finished {
        Finished {
            seq: self.seq,
            key: Some(self.key),
            place: self.target.place,
            target: Some(self.target),
            job: self.job,
            item,
            meta,
            brought,
            replaces: None,
            steps: None,
            gone_until: self.gone_until,
        }
    }
}

pub(super) fn stop_detail(reason: Reason) -> &'static str {
    match reason {
        Reason::Deadline => "the job's deadline passed before it was asked for",
        Reason::StoreFull => "the store ran full before it was asked for",
        Reason::StoreError => "the store or the catalog failed before it was asked for",
        _ => "the job was stopped before it was asked for",
    }
}

/// What workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: Memory,
    pub(super) robots: Robots,
    pub(super) frontier: Frontier<Box<Ticket>>,
    pub(super) keeper: mpsc::Sender<Finished>,
    /// To those who run steps.
    pub(super) steps: mpsc::Sender<Finished>,
    pub(super) coming: Coming,
    /// How many workers there are to be.
    pub(super) workers: AtomicUsize,
}

impl Shared {
    /// Hands a target that has its outcome to the keeper, by way of the job's steps.
    pub(super) async fn settle(&self, finished: Finished) {
        let has_steps =
            !finished.job.steps.is_empty() && !matches!(finished.brought, Brought::Nothing);
        let next = if has_steps { &self.steps } else { &self.keeper };
        // Both outlive the workers; when they are gone, the run that waits for them says so.
        let _ = next.send(finished).await;
    }

    /// Answers tickets of a job that was halted, which nobody has taken.
    #[expect(clippy::vec_box, reason = "tickets are moved about by their boxes")]
    pub(super) async fn skip_all(&self, tickets: Vec<Box<Ticket>>) {
        for ticket in tickets {
            match ticket.job.stop_reason() {
                Some(reason) => {
                    let skipped = ticket.fail(Outcome::Skipped, reason, stop_detail(reason));
                    self.settle(skipped).await;
                }
                None => ticket.job.leave_one(),
            }
        }
    }

    pub(super) async fn settle_host_down(&self, HostDown(ticket, down): HostDown<Box<Ticket>>) {
        let host = ticket.url().host_str().unwrap_or_default();
        let detail = match down {
            Down::Faults(why) => format!(
                "`{host}` was given up after repeated faults, the last one `{why}`; `fetch.host_down_after` and `fetch.host_down_for` say when"
            ),
            Down::Closed(wait) => {
                let group = match ticket.job.terms.group_of(ticket.url()) {
                    Some(group) => format!(" with the group of `hosts.\"{group}\"`"),
                    None => String::new(),
                };
                format!("`{host}` is given up{group}: {}", wants_rest(wait))
            }
        };
        self.settle(ticket.fail(Outcome::Skipped, Reason::HostDown, detail))
            .await;
    }
}

/// Works until the frontier is closed, or there are to be fewer workers than its `number`.
pub(super) async fn work(shared: Arc<Shared>, number: usize) {
    while number < shared.workers.load(Ordering::SeqCst) {
        let Some(permit) = shared.frontier.next().await else {
            return;
        };
        let (ticket, started) = permit.split();
        let job = ticket.job.clone();
        job.in_flight.fetch_add(1, Ordering::Relaxed);
        let served = AssertUnwindSafe(serve(&shared, ticket, started)).catch_unwind();
        let served = served.await;
        job.in_flight.fetch_sub(1, Ordering::Relaxed);
        if served.is_err() {
            // The ticket is lost, so the job would wait for it for ever.
            job.lost.cancel();
        }
        // Lets the connection return to the pool before the next request looks for one there.
        tokio::task::yield_now().await;
    }
}

/// How one attempt ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Attempt {
    File(Box<Download>),
    NotModified(Meta),
    /// Another request is needed, after a redirect or with credentials. It has to pass through its lane, which may be
    /// the same.
    Continues,
    /// robots.txt disallows the URL, or itself answers 402.
    Disallowed {
        detail: String,
        /// Set if the rules were in the cache, so that no request was made.
        was_known: bool,
    },
    /// robots.txt asks for a longer interval between requests than this one kept.
    TooSoon,
    Failed(Failure),
}

/// Makes one attempt and decides what follows.
async fn serve(shared: &Shared, mut ticket: Box<Ticket>, started: Started) {
    let job = ticket.job.clone();
    let began = Instant::now();
    let mut ended = {
        let attempt = AssertUnwindSafe(attempt(shared, &mut ticket, &started)).catch_unwind();
        tokio::select! {
            biased;
            // Dropping an attempt drops its connection and what it staged.
            () = job.stop.cancelled() => None,
            // Taken before the lanes were drained.
            () = std::future::ready(()), if job.halt.is_cancelled() => None,
            ended = attempt => Some(ended),
        }
    };
    let held_up = match &ended {
        Some(Ok(Attempt::Failed(failure))) => failure.held_up,
        _ => Duration::ZERO,
    };
    ticket.tries.spend(began.elapsed().saturating_sub(held_up));
    let next = match &mut ended {
        Some(Ok(Attempt::Failed(failure))) => {
            let moved_to = ticket.moved_to.as_ref();
            let next = ticket.doubts.next(failure, moved_to);
            failure.partial.take_if(|_| ticket.doubts.wants_whole());
            let settings = job.terms.client.settings_of(&ticket.target.url);
            match next {
                Next::Count => {
                    let min_speed = settings.min_speed().as_u64();
                    ticket.tries.end(left(failure), min_speed);
                }
                Next::Whole => ticket.tries = Attempts::default(),
                Next::AnotherProxy => {}
            }
            next
        }
        _ => Next::Count,
    };
    let health = match &ended {
        // Nobody knows yet whether it was the host.
        Some(Ok(Attempt::Failed(_))) if next == Next::AnotherProxy => Health::Unknown,
        Some(Ok(Attempt::Failed(failure))) => health(&job, failure, ticket.tries.failed()),
        Some(Ok(Attempt::Disallowed {
            was_known: true, ..
        })) => Health::NotAsked,
        Some(Ok(Attempt::TooSoon)) => Health::Unknown,
        Some(Ok(_)) => Health::Good,
        None | Some(Err(_)) => Health::Unknown,
    };
    let given_up = shared.frontier.done(&started, health);
    match ended {
        None => shared.cut_short(ticket).await,
        Some(Err(_)) => {
            tracing::error!(
                "fetching `{}` panicked; please report it",
                SafeUrl::new(ticket.url())
            );
            let detail = "internal error: the code that fetches or checks this file panicked";
            shared
                .settle(ticket.fail(Outcome::Failed, Reason::BadResponse, detail))
                .await;
        }
        Some(Ok(Attempt::Failed(failure))) if next != Next::Count => {
            shared.ask_again(ticket, failure, next).await;
        }
        Some(Ok(attempt)) => shared.conclude(ticket, attempt, health).await,
    }
    for down in given_up {
        shared.settle_host_down(down).await;
    }
}

async fn attempt(shared: &Shared, ticket: &mut Ticket, started: &Started) -> Attempt {
    let before = (ticket.begun, ticket.attempts);
    let is_chained = ticket.trail.is_some();
    ticket.begun.get_or_insert_with(Instant::now);
    ticket.gone_until = None;
    let job = ticket.job.clone();
    let client = &job.terms.client;
    let mut trail = ticket.trail.take().unwrap_or_else(|| {
        ticket.attempts += 1;
        let redirects = client.settings_of(&ticket.target.url).redirects();
        Trail::new(redirects).with_cookies(ticket.cookies.take())
    });
    let robots = client.settings_of(ticket.url()).robots();
    if robots {
        let verdict = match shared.robots.judge(client, ticket.url()).await {
            Ok(verdict) => verdict,
            Err(error) => return Attempt::Failed(no_answer(error)),
        };
        let keeps_apart = verdict.crawl_delay.is_none_or(|(delay, until)| {
            let limits = job.terms.limits(started.lane());
            let frontier = &shared.frontier;
            frontier.keep_apart(started, &limits, delay, until)
        });
        let detail = match verdict.permission {
            Permission::Allowed => None,
            Permission::Forbidden => {
                let detail = "robots.txt asks not to fetch it; `fetch.robots = false` ignores that";
                Some(detail.to_owned())
            }
            Permission::Payment(error) => Some(describe(&error)),
        };
        if let Some(detail) = detail {
            return Attempt::Disallowed {
                detail,
                was_known: verdict.was_known,
            };
        }
        if !keeps_apart {
            // Nothing has been requested yet.
            (ticket.begun, ticket.attempts) = before;
            match is_chained {
                true => ticket.trail = Some(trail),
                false => ticket.cookies = trail.into_cookies(),
            }
            return Attempt::TooSoon;
        }
    }
    let url = ticket.moved_to.as_ref().unwrap_or(&ticket.target.url);
    let partial = ticket.partial.take_if(|(from, _)| from == url);
    let known = ticket.known.as_ref().filter(|known| known.file.is_some());
    let validators = known.and_then(|known| known.validators(&ticket.target.url, url));
    let ask = Ask {
        url: ticket.url(),
        origin: &ticket.target.url,
        trail: &mut trail,
        validators: validators.as_ref(),
        partial: partial.map(|(_, partial)| partial),
        name: ticket.target.name.as_deref(),
        robots,
        avoid: ticket.doubts.vias(),
    };
    let is_conditional = validators.is_some();
    match job.downloader.clone().download(&job.cx, ask).await {
        Ok(Answer::Continue { to, partial, via }) => {
            ticket.doubts.redirected(via);
            // The redirect may lead back to the same URL. Otherwise the ticket keeps the part it has, which may belong to
            // the URL that the redirect leads to.
            if let Some(partial) = partial {
                ticket.partial = Some((ticket.url().clone(), *partial));
            }
            if to.is_some() {
                ticket.moved_to = to;
            }
            ticket.trail = Some(trail);
            Attempt::Continues
        }
        // A record is only as fresh as the least fresh hop that led to it.
        Ok(Answer::File(mut download)) => {
            download.meta.fresh_for = trail.freshness(download.meta.fresh_for);
            checked(&ticket.target, download)
        }
        Ok(Answer::NotModified(mut meta)) if is_conditional => {
            meta.fresh_for = trail.freshness(meta.fresh_for);
            Attempt::NotModified(meta)
        }
        Ok(Answer::NotModified(meta)) => Attempt::Failed(unasked(ticket.url(), meta)),
        Err(failure) => {
            ticket.gone_until = gone_until(&failure.error, &trail, Utc::now());
            ticket.cookies = trail.into_cookies();
            Attempt::Failed(failure)
        }
    }
}

/// Returns until when the target is gone, if the answer is 410 and the redirects that led to it are still fresh at `now`.
fn gone_until(error: &DownloadError, trail: &Trail, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let DownloadError::Fetch(FetchError::Status { status: 410, .. }) = error else {
        return None;
    };
    let lasts = trail.freshness(Some(Duration::MAX))?;
    let until = TimeDelta::from_std(lasts).ok();
    let until = until.and_then(|lasts| now.checked_add_signed(lasts));
    (!lasts.is_zero()).then(|| until.unwrap_or(DateTime::<Utc>::MAX_UTC))
}

fn no_answer(error: FetchError) -> Failure {
    let status = error.status();
    Failure::new(error, status, None)
}

/// Returns where the attempt ended.
fn left(failure: &Failure) -> Left {
    let partial = failure.partial.as_ref();
    Left {
        bytes: partial.map_or(0, Partial::len),
        of: partial.and_then(Partial::whole_length),
        is_part: failure.is_part,
    }
}

/// Returns the failure for a 304 from a downloader to a request without validators.
fn unasked(url: &Url, meta: Meta) -> Failure {
    let error = FetchError::unasked_not_modified(url);
    Failure::new(error, Some(meta.status), meta.via)
}

/// Holds a file against what its list promises.
fn checked(target: &Target, download: Box<Download>) -> Attempt {
    match target.sha256 {
        Some(promised) if promised != download.sha256 => {
            let detail = format!(
                "its sha256 is {}, and the list promises {promised}",
                download.sha256
            );
            let rejection = Rejection::new(Reason::Checksum, detail);
            let Meta { status, via, .. } = download.meta;
            Attempt::Failed(Failure {
                is_stitched: download.is_stitched,
                ..Failure::new(rejection, Some(status), via)
            })
        }
        _ => Attempt::File(download),
    }
}

impl Shared {
    /// Queues a ticket for the host of its URL.
    pub(super) fn push(&self, ticket: Box<Ticket>) -> Result<(), HostDown<Box<Ticket>>> {
        let job = ticket.job.clone();
        let place = Place::of(&job, ticket.url());
        let at = place.address();
        let limits = || job.terms.limits(at.lane);
        self.forget_faults(&job);
        self.frontier.push(at, job.number, limits, ticket)
    }

    /// Forgets connection faults if names may lead elsewhere than at the last look.
    fn forget_faults(&self, job: &Job) {
        if job.terms.client.leads_elsewhere() {
            self.frontier.forget_faults();
        }
    }

    /// What stopping the job makes of a ticket that was being fetched.
    async fn cut_short(&self, ticket: Box<Ticket>) {
        let Some(reason) = ticket.job.stop_reason().filter(|_| ticket.begun.is_some()) else {
            return self.skip_all(vec![ticket]).await;
        };
        let (outcome, detail) = match reason {
            Reason::Deadline => (
                Outcome::Failed,
                "the job's deadline passed while it was fetched",
            ),
            _ => (Outcome::Skipped, "the job was stopped while it was fetched"),
        };
        self.settle(ticket.fail(outcome, reason, detail)).await;
    }

    async fn conclude(&self, mut ticket: Box<Ticket>, attempt: Attempt, health: Health) {
        let failure = match attempt {
            Attempt::File(download) => {
                ticket.status = Some(download.meta.status);
                let moved_to = ticket.moved_to.as_ref();
                let via = download.meta.via.as_ref();
                ticket.doubts.resolve(via, moved_to);
                let mut item = ticket.item(Outcome::Stored);
                let meta = download.meta.clone();
                item.last_modified = meta.validators.modified();
                let replaces = ticket.known.take().and_then(|known| known.file);
                let mut finished = ticket.finish(item, Some(meta), Brought::New(download));
                finished.replaces = replaces;
                return self.settle(finished).await;
            }
            Attempt::NotModified(mut meta) => {
                // What a 304 leaves out stays as it was (RFC 9111, section 4.3.4).
                if let Some(known) = &ticket.known {
                    let validators = &mut meta.validators;
                    validators.etag = validators.etag.take().or_else(|| known.etag.clone());
                    let last_modified = validators.last_modified.take();
                    validators.last_modified =
                        last_modified.or_else(|| known.last_modified.clone());
                }
                ticket.status = Some(meta.status);
                // Any proxy can say 304 to what it sees.
                if meta.via.as_ref().is_some_and(|via| !via.is_plain()) {
                    let moved_to = ticket.moved_to.as_ref();
                    ticket.doubts.resolve(meta.via.as_ref(), moved_to);
                }
                return self.settle(ticket.confirm(Some(meta))).await;
            }
            Attempt::Continues | Attempt::TooSoon => {
                return self.requeue(ticket, Duration::ZERO, None).await;
            }
            Attempt::Disallowed { detail, .. } => {
                return self
                    .settle(ticket.fail(Outcome::Skipped, Reason::Robots, detail))
                    .await;
            }
            Attempt::Failed(failure) => failure,
        };
        ticket.status = failure.status;
        let (outcome, reason) = verdict(&failure.error);
        let back_in = match &failure.error {
            DownloadError::Fetch(error) => error.proxies_back_in().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        // Proxies that are gone for longer than any host is waited for are not waited for either.
        let retriable = back_in <= ticket.job.terms.client.settings().retry_after_max
            && matches!(&failure.error, DownloadError::Fetch(error) if error.is_retriable());
        let mut detail = describe(&failure.error);
        if ticket.attempts > 1 {
            let elapsed = ticket.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            detail = format!(
                "{detail} (after {} attempts in {:.1} s)",
                ticket.attempts,
                elapsed.as_secs_f64()
            );
        }
        let job = ticket.job.clone();
        let client = &job.terms.client;
        let failed = ticket.tries.failed();
        if retriable && failed <= client.settings_of(&ticket.target.url).retries() {
            tracing::debug!(url = %SafeUrl::new(ticket.url()), attempts = ticket.attempts, "another attempt follows: {detail}");
            let from = ticket.url().clone();
            ticket.partial = failure.partial.map(|partial| (from, partial));
            ticket.moved_to = None;
            ticket.trail = None;
            // The lane itself waits when the host is to be left alone.
            let delay = match health {
                Health::Throttled(_) | Health::Unreachable(..) => Duration::ZERO,
                // The origin announced that there is more.
                _ if failed == 0 => Duration::ZERO,
                _ => fetch::backoff(client.settings(), failed, None).max(back_in),
            };
            return self
                .requeue(ticket, delay, Some((outcome, reason, detail)))
                .await;
        }
        self.settle(ticket.fail(outcome, reason, detail)).await;
        if let DownloadError::Store(error) = failure.error {
            job.stop(reason, Some(error.into()));
        }
    }

    /// Queues a ticket again, because `failure` is not believed yet.
    async fn ask_again(&self, mut ticket: Box<Ticket>, failure: Failure, next: Next) {
        let (outcome, reason) = verdict(&failure.error);
        let detail = describe(&failure.error);
        let how = match next {
            Next::Whole => "asked for as a whole, since its parts may not belong together",
            _ => "another proxy is asked",
        };
        tracing::debug!(url = %SafeUrl::new(ticket.url()), "{how}: {detail}");
        let from = ticket.url().clone();
        // What a proxy could have altered is not gone on from.
        let is_safe = failure.via.as_ref().is_some_and(|via| !via.is_plain());
        ticket.partial = failure
            .partial
            .filter(|_| is_safe)
            .map(|partial| (from, partial));
        ticket.status = failure.status;
        ticket.moved_to = None;
        ticket.trail = None;
        ticket.cookies = None;
        self.requeue(ticket, Duration::ZERO, Some((outcome, reason, detail)))
            .await;
    }

    /// Queues a ticket again. When its host is given up it ends with `failed`, or as `host-down`.
    async fn requeue(
        &self,
        ticket: Box<Ticket>,
        delay: Duration,
        failed: Option<(Outcome, Reason, String)>,
    ) {
        let job = ticket.job.clone();
        let place = Place::of(&job, ticket.url());
        let at = place.address();
        let limits = || job.terms.limits(at.lane);
        self.forget_faults(&job);
        let queued = self
            .frontier
            .push_delayed(at, job.number, limits, ticket, delay);
        if let Err(HostDown(ticket, down)) = queued {
            match (failed, down) {
                (Some((outcome, reason, mut detail)), down) => {
                    detail.push_str("; the host is given up");
                    if let Down::Closed(wait) = down {
                        detail.push_str(": ");
                        detail.push_str(&wants_rest(wait));
                    }
                    self.settle(ticket.fail(outcome, reason, detail)).await;
                }
                (None, down) => self.settle_host_down(HostDown(ticket, down)).await,
            }
        }
        // A job that was halted in between has been drained already.
        if job.halt.is_cancelled() {
            self.skip_all(self.frontier.drain(job.number)).await;
        }
    }
}

/// What a target ends with that fails for good.
fn verdict(error: &DownloadError) -> (Outcome, Reason) {
    match error {
        DownloadError::Fetch(error) if error.reason() == Reason::TooLarge => {
            (Outcome::Rejected, Reason::TooLarge)
        }
        DownloadError::Fetch(error) => (Outcome::Failed, error.reason()),
        DownloadError::Rejected(rejection) => (Outcome::Rejected, rejection.reason),
        DownloadError::Store(error) => (Outcome::Failed, error.reason()),
        DownloadError::Robots(_) => (Outcome::Skipped, Reason::Robots),
    }
}

/// What a failure says about the host.
fn health(job: &Job, failure: &Failure, attempts: u32) -> Health {
    let DownloadError::Fetch(error) = &failure.error else {
        return Health::Good;
    };
    let fetch = job.terms.client.settings();
    let backoff = |retry_after| fetch::backoff(fetch, attempts, retry_after);
    match (failure.status, error.retry_after()) {
        (Some(_), Some(wait)) if error.is_retriable() => match wait > fetch.retry_after_max {
            true => Health::Closed(wait),
            false => Health::Throttled(backoff(Some(wait))),
        },
        (Some(429), None) => Health::Throttled(backoff(None)),
        _ if error.is_connect() => Health::Unreachable(backoff(None), error.reason().as_str()),
        (Some(_), _) => Health::Good,
        (None, _) => Health::Unknown,
    }
}

/// Why a host is not waited for that asked for a rest of `wait`.
fn wants_rest(wait: Duration) -> String {
    format!(
        "it asks to be left alone for {} (`Retry-After`), longer than `fetch.retry_after_max` lets wait",
        humantime::format_duration(Duration::from_secs(wait.as_secs()))
    )
}

/// The place of a ticket in the frontier.
struct Place {
    host: String,
    /// The lane, if the host belongs to a group.
    group: Option<String>,
}

impl Place {
    fn of(job: &Job, url: &Url) -> Self {
        Self {
            host: fetch::authority(url).into_owned(),
            group: job.terms.group_of(url),
        }
    }

    fn address(&self) -> Address<'_> {
        Address {
            lane: self.group.as_deref().unwrap_or(&self.host),
            host: &self.host,
        }
    }
}
