//! How often a provider may be asked: once at a time, so often a minute, so often a day.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A lane for each provider, for as long as the process is there.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<&'static str, Arc<tokio::sync::Mutex<Lane>>>>);

impl Lanes {
    /// The lane of `provider`. Whoever holds its lock is the one who may ask.
    pub(super) fn of(&self, provider: &'static str) -> Arc<tokio::sync::Mutex<Lane>> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(provider).or_default().clone()
    }
}

/// What a provider allows; 0: any number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Requests a minute, evenly spaced.
    pub(super) per_minute: u32,
    /// Requests within any 24 hours.
    pub(super) per_day: u32,
}

/// Why a provider is not asked, and how long to stay away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotNow {
    pub(super) why: &'static str,
    pub(super) wait: Duration,
}

/// When a provider was asked.
#[derive(Debug, Default)]
pub(super) struct Lane {
    last: Option<Instant>,
    /// The requests of the last 24 hours, at most as many as a day has.
    day: VecDeque<Instant>,
    /// It wants to be left alone until then.
    away: Option<Instant>,
}

impl Lane {
    /// Waits until it may be asked, and counts the request.
    ///
    /// # Errors
    ///
    /// Where the wait is longer than `longest`; a used-up day is not waited for, however short.
    pub(super) async fn turn(&mut self, limits: Limits, longest: Duration) -> Result<(), NotNow> {
        let now = Instant::now();
        if limits.per_day > 0 {
            while self.day.front().is_some_and(|at| *at + DAY <= now) {
                self.day.pop_front();
            }
            // The settings may allow fewer than they did.
            let beyond = self.day.len().checked_sub(limits.per_day as usize);
            if let Some(first) = beyond.and_then(|beyond| self.day.get(beyond)) {
                return Err(NotNow {
                    why: "`per_day` is used up",
                    wait: *first + DAY - now,
                });
            }
        }
        if let Some(away) = self.away.filter(|away| *away > now) {
            if away - now > longest {
                return Err(NotNow {
                    why: "it said so before",
                    wait: away - now,
                });
            }
            tokio::time::sleep_until(away).await;
        }
        if let (Some(last), 1..) = (self.last, limits.per_minute) {
            tokio::time::sleep_until(last + Duration::from_secs(60) / limits.per_minute).await;
        }
        let now = Instant::now();
        self.last = Some(now);
        if limits.per_day > 0 {
            self.day.push_back(now);
        }
        Ok(())
    }

    /// Leaves it alone for so long.
    pub(super) fn leave(&mut self, wait: Duration) {
        self.away = Instant::now().checked_add(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(600);

    fn limits(per_minute: u32, per_day: u32) -> Limits {
        Limits {
            per_minute,
            per_day,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_minute_are_evenly_spaced() {
        let mut lane = Lane::default();
        let begun = Instant::now();
        for _ in 0..5 {
            lane.turn(limits(20, 0), LONGEST).await.unwrap();
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(12));
        // Without a limit nothing is waited for.
        for _ in 0..1000 {
            lane.turn(limits(0, 0), LONGEST).await.unwrap();
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn no_24_hours_have_more_than_a_days_requests() {
        let mut lane = Lane::default();
        for _ in 0..3 {
            lane.turn(limits(60, 3), LONGEST).await.unwrap();
        }
        let wait = lane.turn(limits(60, 3), LONGEST).await.unwrap_err().wait;
        assert_eq!(wait, DAY - Duration::from_secs(2));
        // Fewer a day by other settings: the second of three has to be gone too.
        let wait = lane.turn(limits(60, 2), LONGEST).await.unwrap_err().wait;
        assert_eq!(wait, DAY - Duration::from_secs(1));
        tokio::time::advance(DAY - Duration::from_secs(2)).await;
        lane.turn(limits(60, 3), LONGEST).await.unwrap();
        lane.turn(limits(60, 3), LONGEST).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_wants_to_be_left_alone_is() {
        let mut lane = Lane::default();
        lane.turn(limits(0, 0), LONGEST).await.unwrap();
        lane.leave(Duration::from_secs(500));
        let begun = Instant::now();
        lane.turn(limits(0, 0), LONGEST).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(500));
        lane.leave(Duration::from_secs(601));
        let wait = lane.turn(limits(0, 0), LONGEST).await.unwrap_err().wait;
        assert_eq!(wait, Duration::from_secs(601));
    }
}
