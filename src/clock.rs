//! Decides whether a recorded time can be believed.
//!
//! A clock that runs ahead leaves times in the future behind: in the catalog, in files, in their metadata. Once the
//! clock is right again, they would hold for years. Every decision that rests on a recorded time asks here first, and
//! treats a time that is not believable as unknown.

use chrono::{DateTime, TimeDelta, Utc};

/// How far ahead of the clock a recorded time may be. Covers the small steps by which clocks are adjusted.
pub const TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// Returns the latest time that may have been recorded by `now`.
pub fn latest_believable(now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_add_signed(TOLERANCE)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Returns `false` for a time that lies in the future by more than [`TOLERANCE`].
pub fn is_believable(recorded: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    recorded <= latest_believable(now)
}

/// Returns the time since `recorded`: zero within the tolerance, and `None` if it is not believable.
pub fn age(recorded: DateTime<Utc>, now: DateTime<Utc>) -> Option<std::time::Duration> {
    is_believable(recorded, now).then(|| (now - recorded).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_not_in_the_future_is_believed() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for (ahead, expected) in [
            (-86_400, Some(86_400)),
            (-1, Some(1)),
            (0, Some(0)),
            (60, Some(0)),
            (61, None),
            (10 * 365 * 86_400, None),
        ] {
            let recorded = now + TimeDelta::seconds(ahead);
            assert_eq!(
                age(recorded, now),
                expected.map(Duration::from_secs),
                "{ahead} s ahead"
            );
            assert_eq!(is_believable(recorded, now), expected.is_some());
        }
        assert!(is_believable(now, DateTime::<Utc>::MAX_UTC));
        assert!(!is_believable(DateTime::<Utc>::MAX_UTC, now));
    }
}
