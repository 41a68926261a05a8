//! How one receiver gets its events: in order, again and again until it has them, whatever becomes of the others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::settings::Receiver;
use super::told::Told;
use crate::catalog::{Catalog, DeadLetter};
use crate::metrics::METRICS;
use crate::target::describe;

/// Events that are read at a time.
const PAGE: u32 = 100;

/// Between the first two attempts. Doubled from then on, and a part of it left to chance.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Between two attempts at most, unless the receiver asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest wait that a receiver may ask for.
const MOST_ASKED: Duration = Duration::from_secs(600);

/// How often an event is refused for good before it is given up.
const REFUSALS: u32 = 5;

/// How often a process that ends tries in vain.
const LAST_TRIES: u32 = 2;

/// How long nothing is looked at that nobody told of.
const IDLE: Duration = Duration::from_secs(10);

/// Why an event did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// In words.
    pub(super) text: String,
    /// Whether it is this event that is not wanted, rather than the receiver away.
    pub(super) is_refused: bool,
    /// Whether a refusal may be over once somebody has deployed or configured the receiver.
    pub(super) may_pass: bool,
    /// When to come back, if it said so.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// It cannot be reached, or cannot take anything at the moment.
    pub(super) fn away(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_refused: false,
            may_pass: false,
            retry_after: None,
        }
    }

    /// It does not take this event, but may once it is deployed: its path is not there yet, or it does not know who asks.
    pub(super) fn not_yet(text: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::refused(text)
        }
    }

    /// It does not want this event.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self {
            is_refused: true,
            ..Self::away(text)
        }
    }
}

/// Brings events to a receiver.
///
/// # Contract
/// - Events are brought in their order, and one counts only once the receiver has said that it has it.
/// - A call ends within a few times the receiver's timeout. It may bring fewer events than it was given.
/// - A dropped call leaves nothing but events that arrived and do not count.
#[async_trait]
pub(super) trait Deliver: Send + Sync {
    /// Gets ready, where there is something that stays between two deliveries.
    async fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Returns how many of the first events have arrived, and what kept the next one from it.
    async fn deliver(&mut self, events: &[Told]) -> (usize, Option<Failure>);

    /// Says that there is no more to come.
    async fn close(&mut self) {}
}

/// What one receiver is about.
pub(super) struct Delivery {
    pub(super) receiver: Receiver,
    pub(super) way: Box<dyn Deliver>,
    pub(super) catalog: Arc<dyn Catalog>,
    /// The last event that it has.
    pub(super) position: i64,
    /// How long a refusal that may pass is retried.
    pub(super) refused_for: Duration,
    /// Dead letters that are kept.
    pub(super) dead_letters: u32,
    /// Cancelled when only what is there by now is to be delivered.
    pub(super) stop: CancellationToken,
}

impl Delivery {
    /// Delivers until it is stopped and nothing is left, or the receiver is away then.
    pub(super) async fn run(mut self) {
        let mut news = self.catalog.news();
        let mut trouble = Trouble::default();
        loop {
            news.mark_unchanged();
            let failure = match self.step().await {
                Step::Idle if self.stop.is_cancelled() => break,
                Step::Idle => match self.way.prepare().await {
                    Ok(()) => {
                        trouble.is_over(&self.receiver);
                        self.wait(&mut news).await;
                        continue;
                    }
                    Err(failure) => failure,
                },
                Step::Done => {
                    trouble.is_over(&self.receiver);
                    continue;
                }
                Step::Failed(failure, reached) => {
                    if reached {
                        trouble.is_over(&self.receiver);
                    }
                    failure
                }
            };
            if trouble.is_final(&failure, self.refused_for) && self.pass_over(&failure).await {
                (trouble.refusals, trouble.refused_since) = (0, None);
                continue;
            }
            let wait = trouble.note(&self.receiver, &failure);
            if self.stop.is_cancelled() {
                trouble.last_tries += 1;
                if trouble.last_tries >= LAST_TRIES && (!failure.is_refused || failure.may_pass) {
                    break;
                }
                tokio::time::sleep(wait.min(FIRST_WAIT)).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
        self.way.close().await;
    }

    /// Waits until there may be something to deliver.
    async fn wait(&self, news: &mut watch::Receiver<u64>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // Without anybody to tell, only time does.
            Ok(()) = news.changed() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }

    /// Reads some events and delivers them.
    async fn step(&mut self) -> Step {
        let page = match self.catalog.events_after(self.position, PAGE).await {
            Ok(page) => page,
            Err(error) => return Step::Failed(Failure::away(describe(&error)), false),
        };
        let Some(last) = page.last() else {
            return Step::Idle;
        };
        let told: Vec<Told> = page.iter().map(Told::of).collect();
        let told: Vec<Told> = told
            .into_iter()
            .filter(|told| self.receiver.wants(told))
            .collect();
        let (done, failure) = match told.is_empty() {
            true => (0, None),
            false => self.way.deliver(&told).await,
        };
        let reached = told.get(done).map_or(last.id, |next| next.id - 1);
        if let Err(failure) = self.reach(reached).await {
            return Step::Failed(failure, false);
        }
        match failure {
            Some(failure) => Step::Failed(failure, done > 0),
            None => Step::Done,
        }
    }

    /// Notes that it has all events up to `position`.
    async fn reach(&mut self, position: i64) -> Result<(), Failure> {
        if position > self.position {
            let noted = self.catalog.acknowledge(&self.receiver.name, position);
            noted
                .await
                .map_err(|error| Failure::away(describe(&error)))?;
            self.position = position;
        }
        Ok(())
    }

    /// Gives up the next event, so that it does not hold up the others, and keeps it as a dead letter. Returns `false` if
    /// the catalog did not keep it, so that nothing is lost.
    async fn pass_over(&mut self, failure: &Failure) -> bool {
        let Ok(page) = self.catalog.events_after(self.position, PAGE).await else {
            return false;
        };
        let next = page
            .into_iter()
            .find(|row| self.receiver.wants(&Told::of(row)));
        let Some(next) = next else { return false };
        let (name, id, event) = (&self.receiver.name, next.id, next.event.event.clone());
        let letter = DeadLetter {
            receiver: name.clone(),
            row: next,
            died: Utc::now(),
            answer: failure.text.clone(),
        };
        if let Err(error) = self.catalog.bury(&letter, self.dead_letters).await {
            tracing::error!(
                "cannot keep event {id} for receiver `{name}`: {}",
                describe(&error)
            );
            return false;
        }
        self.position = id;
        METRICS.receiver(name, |figures| figures.given_up += 1);
        let how_often = match failure.may_pass {
            true => format!("for {}", humantime::format_duration(self.refused_for)),
            false => format!("{REFUSALS} times"),
        };
        tracing::error!(
            receiver = %name,
            "receiver `{name}` refused event {id} ({event}) {how_often}, it is passed over: {}; \
             `gannet notify resend {id} --receiver {name}` sends it again, `gannet notify drop` drops it",
            failure.text
        );
        true
    }
}

/// What a look at the outbox came to.
enum Step {
    /// There is nothing to deliver.
    Idle,
    /// Something was delivered, or need not be.
    Done,
    /// Something was not. Whether others were before it.
    Failed(Failure, bool),
}

/// Attempts that failed in a row.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    refusals: u32,
    refused_since: Option<Instant>,
    last_tries: u32,
}

impl Trouble {
    /// Says what is the matter, the first time; returns how long to wait.
    fn note(&mut self, receiver: &Receiver, failure: &Failure) -> Duration {
        let (name, text) = (&receiver.name, &failure.text);
        match self.failures {
            0 => tracing::warn!(
                receiver = %name,
                "receiver `{name}`, {}, takes no events, which wait for it: {text}",
                receiver.place()
            ),
            _ => {
                tracing::debug!(receiver = %name, "receiver `{name}` still takes no events: {text}")
            }
        }
        self.failures += 1;
        (self.refusals, self.refused_since) = match failure.is_refused {
            true => (
                self.refusals + 1,
                self.refused_since.or_else(|| Some(Instant::now())),
            ),
            false => (0, None),
        };
        METRICS.receiver(name, |figures| {
            figures.failing_since.get_or_insert_with(Utc::now);
            figures.problem = Some(text.clone());
        });
        wait(self.failures, failure.retry_after)
    }

    /// Whether an event that meets this failure again is to be given up.
    fn is_final(&self, failure: &Failure, refused_for: Duration) -> bool {
        match (failure.is_refused, failure.may_pass) {
            (false, _) => false,
            (true, false) => self.refusals + 1 >= REFUSALS,
            (true, true) => self
                .refused_since
                .is_some_and(|since| since.elapsed() >= refused_for),
        }
    }

    fn is_over(&mut self, receiver: &Receiver) {
        if self.failures > 0 {
            let name = &receiver.name;
            METRICS.receiver(name, |figures| {
                (figures.failing_since, figures.problem) = (None, None);
            });
            tracing::info!(receiver = %name, "receiver `{name}` takes events again");
        }
        *self = Self::default();
    }
}

/// Returns the wait after this many failures in a row: a random time that doubles with each failure, or the time that
/// the receiver asked for, if that is longer. Both are capped.
fn wait(failures: u32, retry_after: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let most = (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT);
    let asked = retry_after.unwrap_or_default().min(MOST_ASKED);
    rand::random_range(most / 2..=most).max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_may_pass_is_final_after_a_time_and_another_after_some_attempts() {
        let limit = Duration::from_secs(600);
        let mut trouble = Trouble {
            refusals: REFUSALS - 1,
            refused_since: Some(Instant::now()),
            ..Trouble::default()
        };
        let (gone, bad, away) = (
            Failure::not_yet("404"),
            Failure::refused("400"),
            Failure::away("503"),
        );
        assert!(trouble.is_final(&bad, limit) && !trouble.is_final(&gone, limit));
        tokio::time::advance(limit).await;
        assert!(trouble.is_final(&gone, limit) && !trouble.is_final(&away, limit));
        trouble.refusals = 0;
        assert!(!trouble.is_final(&bad, limit));
    }

    #[test]
    fn waits_grow_up_to_a_limit() {
        for (failures, most) in [
            (1, 500),
            (2, 1000),
            (4, 4000),
            (8, 60_000),
            (u32::MAX, 60_000),
        ] {
            let most = Duration::from_millis(most);
            // A shorter time that the receiver asks for has no effect.
            for asked in [None, Some(Duration::ZERO), Some(most / 2)] {
                let wait = wait(failures, asked);
                assert!(wait >= most / 2 && wait <= most, "{failures}: {wait:?}");
            }
        }
        for (asked, expected) in [(90, 90), (600, 600), (86_400, 600)] {
            let asked = Some(Duration::from_secs(asked));
            assert_eq!(wait(1, asked), Duration::from_secs(expected));
        }
    }
}
