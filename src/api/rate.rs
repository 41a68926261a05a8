//! How often who may ask.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use axum::http::{StatusCode, header};
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::{Problem, Settings};

/// Requests of one, as time passes.
type Limiter =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// A limit for each token, and one for all who need none.
#[derive(Debug, Default)]
pub(super) struct Rates {
    each: BTreeMap<String, Limiter>,
    all: Option<Limiter>,
}

impl Rates {
    /// By `api.rate` and `api.burst`, for the tokens that there are.
    pub(super) fn new(settings: &Settings) -> Self {
        let Some(rate) = NonZeroU32::new(settings.rate) else {
            return Self::default();
        };
        let quota = Quota::per_second(rate).allow_burst(settings.burst);
        let limiter = || Limiter::direct_with_clock(quota, MonotonicClock);
        let names = settings.tokens.names();
        Self {
            each: names.map(|name| (name.to_owned(), limiter())).collect(),
            all: Some(limiter()),
        }
    }

    /// Counts a request of the token `name`, or of one without. Refuses it when there were too many.
    pub(super) fn count(&self, name: Option<&str>) -> Result<(), Problem> {
        let limiter = match name {
            Some(name) => self.each.get(name),
            None => self.all.as_ref(),
        };
        let Some(limiter) = limiter else {
            return Ok(());
        };
        limiter.check().map_err(|early| {
            let wait = early.wait_time_from(MonotonicClock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let detail = "these are more requests than `api.rate` allows; `Retry-After` says when to come back";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
                .with(header::RETRY_AFTER, &seconds.max(1).to_string())
        })
    }
}
