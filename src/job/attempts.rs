//! Counts the failed attempts for a target, and decides what resets the count.

use std::time::Duration;

/// Progress in bytes that is always enough.
const ENOUGH_BYTES: u64 = 1024;

/// Progress of this fraction of the file is enough as well: one part in `ENOUGH_SHARE`. Together with
/// [`ENOUGH_BYTES`] it bounds the attempts for an origin that sends one byte at a time.
const ENOUGH_SHARE: u64 = 100;

/// Most resets of the count for one target. In parts of 20 kB they bring 200 MB; an origin that sends less of a larger
/// file costs too many requests.
const MAX_RESETS: u32 = 10_000;

/// Where a request ended that did not bring the whole file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Left {
    /// Offset from which the next attempt continues.
    pub(super) bytes: u64,
    /// Length of the whole file, if the origin stated it.
    pub(super) of: Option<u64>,
    /// Set if the origin sent all that it announced, and announced less than the rest of the file. That is not a
    /// failure.
    pub(super) is_part: bool,
}

/// The attempts for one target that count against `fetch.retries`.
///
/// An attempt resets the count if it gets further than all before it by 1 KiB or by a hundredth of the file, at an
/// average of at least `fetch.min_speed` since the last reset. A partial answer with such progress does not count at
/// all. After [`MAX_RESETS`] resets every attempt counts.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    /// Offset of the body at the last reset.
    mark: u64,
    /// Time that requests took since the last reset.
    took: Duration,
    /// Resets so far.
    resets: u32,
}

impl Attempts {
    /// Returns the number of failed attempts in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// Adds the duration of a request, whatever its result.
    pub(super) fn spend(&mut self, took: Duration) {
        self.took += took;
    }

    /// Records the end of an attempt without the whole file. `min_speed` is in bytes per second; 0 means no minimum.
    pub(super) fn end(&mut self, left: Left, min_speed: u64) {
        let is_progress = is_progress(self.mark, left, self.took, min_speed);
        if is_progress && self.resets < MAX_RESETS {
            self.resets += 1;
            (self.mark, self.took) = (left.bytes, Duration::ZERO);
            self.failed = u32::from(!left.is_part);
        } else {
            self.failed += 1;
        }
    }
}

/// Returns `true` if the body has grown enough since it was at `mark` bytes.
fn is_progress(mark: u64, left: Left, took: Duration, min_speed: u64) -> bool {
    let gain = left.bytes.saturating_sub(mark);
    let share = left.of.unwrap_or(left.bytes).div_ceil(ENOUGH_SHARE);
    gain >= share.clamp(1, ENOUGH_BYTES) && gain as f64 >= min_speed as f64 * took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cut(bytes: u64, of: u64) -> Left {
        Left {
            bytes,
            of: Some(of),
            is_part: false,
        }
    }

    const fn part(bytes: u64, of: u64) -> Left {
        Left {
            is_part: true,
            ..cut(bytes, of)
        }
    }

    const fn unknown(bytes: u64) -> Left {
        Left {
            bytes,
            of: None,
            is_part: false,
        }
    }

    const NOTHING: Left = unknown(0);

    fn failed(ends: &[Left]) -> Vec<u32> {
        let mut attempts = Attempts::default();
        let failed = ends.iter().map(|left| {
            attempts.end(*left, 64);
            attempts.failed()
        });
        failed.collect()
    }

    #[test]
    fn progress_starts_the_count_anew() {
        const GB: u64 = 1 << 30;
        for (ends, expected) in [
            (&[NOTHING, NOTHING, NOTHING][..], &[1, 2, 3][..]),
            (&[cut(20_000, 100_000), cut(40_000, 100_000)], &[1, 1]),
            (
                &[NOTHING, NOTHING, cut(20_000, 100_000), NOTHING],
                &[1, 2, 1, 2],
            ),
            (&[part(20_000, 100_000), part(40_000, 100_000)], &[0, 0]),
            (&[cut(20_000, 100_000), part(40_000, 100_000)], &[1, 0]),
            // A hundredth of a small file; for unknown lengths, a hundredth of the bytes so far.
            (&[cut(10, 100), cut(20, 100), cut(21, 100)], &[1, 1, 1]),
            (&[unknown(100), unknown(200), unknown(202)], &[1, 1, 2]),
            // In a large file, one byte at a time is no progress, whether the answers are partial or cut off.
            (
                &[cut(1, GB), cut(2, GB), cut(3, GB), cut(4, GB)],
                &[1, 2, 3, 4],
            ),
            (&[part(1, GB), part(2, GB), part(3, GB)], &[1, 2, 3]),
            // Small steps add up.
            (&[cut(512, GB), cut(1_024, GB), cut(1_500, GB)], &[1, 1, 2]),
            // A body that starts over has to pass its previous offset.
            (
                &[
                    cut(50_000, 100_000),
                    cut(20_000, 100_000),
                    cut(50_000, 100_000),
                    cut(60_000, 100_000),
                ],
                &[1, 2, 3, 1],
            ),
            // Bytes kept from before are no progress if the host does not answer.
            (&[cut(50_000, 100_000), cut(50_000, 100_000)], &[1, 2]),
        ] {
            assert_eq!(failed(ends), expected, "{ends:?}");
        }
    }

    #[test]
    fn progress_has_a_least_speed_over_all_attempts() {
        for (gain, seconds, min_speed, is_enough) in [
            (20_000, 30, 64, true),
            (20_000, 30, 0, true),
            (4_096, 3_600, 64, false),
            (4_096, 3_600, 0, true),
            (1 << 20, 3_600, 64, true),
        ] {
            let (left, took) = (cut(1_000 + gain, 1 << 30), Duration::from_secs(seconds));
            assert_eq!(
                is_progress(1_000, left, took, min_speed),
                is_enough,
                "{left:?}"
            );
        }
    }

    #[test]
    fn requests_without_end_are_bounded_by_the_length() {
        // The least progress that is enough, each time.
        for length in [1_u64, 50, 10_000, 1 << 20] {
            let (mut attempts, mut bytes, mut made) = (Attempts::default(), 0, 0_u64);
            while bytes < length {
                bytes += length.div_ceil(ENOUGH_SHARE).clamp(1, ENOUGH_BYTES);
                attempts.end(part(bytes, length), 64);
                assert_eq!(attempts.failed(), 0);
                made += 1;
            }
            assert!(
                made <= ENOUGH_SHARE + length / ENOUGH_BYTES,
                "{length}: {made}"
            );
        }
    }

    #[test]
    fn progress_resets_the_count_a_limited_number_of_times() {
        const PART: u64 = 20_000;
        let mut attempts = Attempts::default();
        let mut end = |made: u32| {
            attempts.end(part(u64::from(made) * PART, 4 << 30), 64);
            attempts.failed()
        };
        for made in 1..=MAX_RESETS {
            assert_eq!(end(made), 0, "{made}");
        }
        for failed in 1..=5 {
            assert_eq!(end(MAX_RESETS + failed), failed);
        }
    }
}
