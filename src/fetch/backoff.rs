//! How long to wait before another attempt.

use std::time::Duration;

use super::settings::{FailureBackoff, Settings};

/// A random wait before another attempt, `attempt` being the number of those that failed, from 1 on.
///
/// Up to `fetch.backoff` the first time, twice that the next time and so on, never more than
/// `fetch.backoff_max`. The whole span is drawn from, so that requests which failed together do not come
/// back together.
pub fn backoff(settings: &Settings, attempt: u32) -> Duration {
    rand::random_range(Duration::ZERO..=ceiling(settings.backoff, settings.backoff_max, attempt))
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
}
