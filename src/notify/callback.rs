//! Callbacks: whoever posted a job is told of its end, by a POST of the event that webhooks get.
//!
//! What is to be told stands with the job in the catalog, from the transaction that ends it on, so that a callback outlasts
//! restarts. It is called again and again, with growing waits, until it answers that it has the news or a day is over.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use http::HeaderMap;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::delivery::Failure;
use super::settings::{Format, Webhook};
use super::told::Told;
use super::webhook::Posting;
use crate::catalog::{CallbackRow, Catalog, Event, EventRow, JobRow};
use crate::fetch::Client;
use crate::target::describe;

/// Callbacks that are called at a time.
const AT_ONCE: u32 = 16;

/// Between the first two attempts. Doubled from then on.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Between two attempts at most, unless the callback asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How long after the end of its job a callback is called.
const GIVEN_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing is looked at that nobody told of.
const IDLE: Duration = Duration::from_secs(1);

/// The client that reaches what posted jobs may reach at the moment.
type Reach = Box<dyn Fn() -> Arc<Client> + Send + Sync>;

/// The task that calls callbacks.
#[derive(Debug)]
pub struct Callbacks {
    task: JoinHandle<()>,
    secret: watch::Sender<Option<SecretString>>,
    stop: CancellationToken,
}

impl Callbacks {
    /// Calls the callbacks of jobs that have ended, those of earlier processes too. `secret` signs what they are sent.
    pub fn start(
        catalog: Arc<dyn Catalog>,
        reach: impl Fn() -> Arc<Client> + Send + Sync + 'static,
        secret: Option<SecretString>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (secret, current) = watch::channel(secret);
        let caller = Caller {
            catalog,
            reach: Box::new(reach),
            secret: current,
        };
        let task = tokio::spawn(caller.run(stop.clone()));
        Self { task, secret, stop }
    }

    /// Signs by another secret from now on.
    pub fn sign_with(&self, secret: Option<SecretString>) {
        self.secret.send_replace(secret);
    }

    /// Leaves what is still to be told to the next process.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("the task that calls callbacks panicked, please report it: {error}");
        }
    }
}

struct Caller {
    catalog: Arc<dyn Catalog>,
    reach: Reach,
    secret: watch::Receiver<Option<SecretString>>,
}

impl Caller {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.call_all() => {}
            // What was under way is called once more by the next process.
            () = stop.cancelled() => {}
        }
    }

    async fn call_all(&self) {
        let mut news = self.catalog.news();
        loop {
            news.mark_unchanged();
            let due = self.catalog.due_callbacks(Utc::now(), AT_ONCE).await;
            let due = due.unwrap_or_else(|error| {
                tracing::error!("cannot look up callbacks: {}", describe(&error));
                Vec::new()
            });
            join_all(due.iter().map(|job| self.tell(job))).await;
            if due.is_empty() {
                tokio::select! {
                    Ok(()) = news.changed() => {}
                    () = tokio::time::sleep(IDLE) => {}
                }
            }
        }
    }

    /// Calls the callback of a job once, and records what became of it.
    async fn tell(&self, job: &JobRow) {
        let Some(callback) = &job.callback else {
            return;
        };
        let outcome = self.post(&callback.url, job).await;
        let now = Utc::now();
        let next = after(callback, job.finished.unwrap_or(now), now, outcome);
        let (id, attempts) = (job.id, next.attempts);
        match &next.error {
            Some(error) if next.next.is_none() => tracing::error!(
                job.id = %id,
                "the callback of job {id} is given up after {attempts} attempts: {error}"
            ),
            Some(error) if attempts == 1 => tracing::warn!(
                job.id = %id,
                "the callback of job {id} does not take the news, it is called again: {error}"
            ),
            _ => {}
        }
        if let Err(error) = self.catalog.save_callback(id, next).await {
            tracing::error!(
                job.id = %id,
                "cannot record what became of the callback of job {id}: {}",
                describe(&error)
            );
            tokio::time::sleep(IDLE).await;
        }
    }

    async fn post(&self, url: &str, job: &JobRow) -> Result<(), Failure> {
        let url = url.parse().map_err(|_| Failure::refused("it is no URL"))?;
        let secret = self.secret.borrow().clone();
        let posting = Posting {
            client: (self.reach)(),
            to: Webhook {
                url,
                secret,
                format: Format::Json,
                headers: HeaderMap::new(),
            },
            timeout: TIMEOUT,
        };
        posting.post(&news_of(job)).await
    }
}

/// The event that tells of the end of a job. Each attempt has the same number, which the id of the job makes.
fn news_of(job: &JobRow) -> Told {
    let number = (job.id.as_u128() >> 80) as u64;
    let mut job = job.clone();
    let finished = job.finished.unwrap_or(job.started);
    // Whoever is told knows where.
    job.callback = None;
    Told::of(&EventRow {
        id: i64::try_from(number).unwrap_or_default(),
        created: finished,
        event: Event::of_job(&job, false),
    })
}

/// Returns the record of a callback after another call.
fn after(
    callback: &CallbackRow,
    finished: DateTime<Utc>,
    now: DateTime<Utc>,
    outcome: Result<(), Failure>,
) -> CallbackRow {
    let attempts = callback.attempts.saturating_add(1);
    let mut after = CallbackRow {
        attempts,
        next: None,
        ..callback.clone()
    };
    match outcome {
        Ok(()) => {
            after.delivered = Some(now);
            after.error = None;
        }
        Err(failure) => {
            let wait = FIRST_WAIT.saturating_mul(1 << (attempts - 1).min(20));
            let wait = wait.min(LONGEST_WAIT);
            let wait = failure.retry_after.map_or(wait, |asked| asked.max(wait));
            let next = TimeDelta::from_std(wait).ok();
            let next = next.and_then(|wait| now.checked_add_signed(wait));
            let last = finished + GIVEN_UP;
            after.next = next.filter(|next| *next <= last);
            after.error = Some(failure.text);
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_called_until_it_has_the_news_or_a_day_is_over() {
        let finished: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
        let mut callback = CallbackRow {
            url: "https://a.test/".to_owned(),
            attempts: 0,
            delivered: None,
            next: Some(finished),
            error: None,
        };
        let mut now = finished;
        let mut waits = Vec::new();
        while callback.next.is_some() {
            callback = after(&callback, finished, now, Err(Failure::away("away")));
            if let Some(next) = callback.next {
                waits.push((next - now).num_seconds());
                now = next;
            }
        }
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert!((finished + GIVEN_UP - now).num_minutes() < 10);
        assert_eq!(callback.error.as_deref(), Some("away"));
        let told = after(&callback, finished, now, Ok(()));
        assert_eq!(
            (told.delivered, told.next, told.error),
            (Some(now), None, None)
        );
        // A refusal may be one of a deployment, and is tried again.
        let mut busy = Failure::refused("it answered 404");
        busy.retry_after = Some(Duration::from_secs(3600));
        let later = after(&callback, finished, finished, Err(busy));
        assert_eq!((later.next.unwrap() - finished).num_minutes(), 60);
    }
}
