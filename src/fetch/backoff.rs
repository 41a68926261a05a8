//! How long to wait before another attempt.

use std::time::Duration;

use super::settings::{FailureBackoff, Settings};

/// Returns a random wait before the next attempt, or the wait from `Retry-After` if that is longer. `attempt` is the
/// number of failed attempts, from 1 on.
///
/// The random wait is at most `fetch.backoff` after the first failure and doubles each time, up to `fetch.backoff_max`.
/// It is drawn from the whole range, so that requests that failed together do not come back together. `Retry-After: 0`,
/// or a date in the past, does not shorten it.
pub fn backoff(settings: &Settings, attempt: u32, retry_after: Option<Duration>) -> Duration {
    let most = ceiling(settings.backoff, settings.backoff_max, attempt);
    wait(most, retry_after)
}

fn wait(most: Duration, retry_after: Option<Duration>) -> Duration {
    rand::random_range(Duration::ZERO..=most).max(retry_after.unwrap_or_default())
}

/// How long a URL is left alone that failed in `failures` jobs in a row.
pub fn failure_backoff(settings: &Settings, failures: u32) -> Duration {
    let FailureBackoff { free, first } = settings.failure_backoff;
    match failures.saturating_sub(free) {
        0 => Duration::ZERO,
        times => ceiling(first, settings.failure_backoff_max, times),
    }
}

fn ceiling(first: Duration, max: Duration, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let at =
            |attempt| ceiling(Duration::from_secs(1), Duration::from_secs(120), attempt).as_secs();
        assert_eq!(
            [1, 2, 3, 7, 8, 100, u32::MAX].map(at),
            [1, 2, 4, 64, 120, 120, 120]
        );
        assert_eq!(ceiling(Duration::MAX, Duration::MAX, 9), Duration::MAX);
        assert_eq!(ceiling(Duration::ZERO, Duration::MAX, 9), Duration::ZERO);
    }

    #[test]
    fn an_origin_makes_a_wait_longer_and_never_shorter() {
        let secs = Duration::from_secs;
        assert_eq!(wait(secs(0), None), secs(0));
        assert_eq!(wait(secs(0), Some(secs(7))), secs(7));
        assert_eq!(wait(secs(5), Some(secs(7))), secs(7));
        // A draw from a thousand seconds is rarely below one.
        let waits = (0..20).map(|_| wait(secs(1000), Some(secs(0))));
        assert!(waits.max() > Some(secs(1)));
    }
}
