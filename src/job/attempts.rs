//! When a target that failed is asked for again: how many attempts failed in a row, and what starts the count anew.

use std::time::Duration;

/// Progress that always is enough, in bytes.
const ENOUGH_BYTES: u64 = 1024;

/// Progress of one part in so many of the file is enough as well. Together with [`ENOUGH_BYTES`] it bounds the attempts
/// for an origin that sends a byte at a time.
const ENOUGH_SHARE: u64 = 100;

/// What a request left behind that did not bring the whole file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Left {
    /// Bytes that the next attempt goes on from.
    pub(super) bytes: u64,
    /// Length of the whole file, where the origin said it.
    pub(super) of: Option<u64>,
    /// The origin sent all that it announced, and announced less than the rest of the file: that is no failure.
    pub(super) is_part: bool,
}

/// The attempts for one target that count against `fetch.retries`.
///
/// An attempt that brought the body further than any one before starts the count anew, if that is enough: 1 KiB, or a
/// hundredth of the file; and `fetch.min_speed` on average since the count last started. An answer with a part that
/// makes such progress does not count at all.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    /// How far the body had come when the count last started anew.
    mark: u64,
    /// Time that requests took since.
    took: Duration,
}

impl Attempts {
    /// Attempts that failed in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// A request took this long, whatever came of it.
    pub(super) fn spend(&mut self, took: Duration) {
        self.took += took;
    }

    /// An attempt ended without the whole file. `min_speed` is in bytes a second; 0: any.
    pub(super) fn end(&mut self, left: Left, min_speed: u64) {
        if is_progress(self.mark, left, self.took, min_speed) {
            (self.mark, self.took) = (left.bytes, Duration::ZERO);
            self.failed = u32::from(!left.is_part);
        } else {
            self.failed += 1;
        }
    }
}

/// Whether a body that had come to `mark` bytes has come far enough since.
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
            // A hundredth of a small file, and of what there is of one whose length nobody knows.
            (&[cut(10, 100), cut(20, 100), cut(21, 100)], &[1, 1, 1]),
            (&[unknown(100), unknown(200), unknown(202)], &[1, 1, 2]),
            // A byte at a time is no progress in a large file, be it answered or cut.
            (
                &[cut(1, GB), cut(2, GB), cut(3, GB), cut(4, GB)],
                &[1, 2, 3, 4],
            ),
            (&[part(1, GB), part(2, GB), part(3, GB)], &[1, 2, 3]),
            // Little by little comes to enough.
            (&[cut(512, GB), cut(1_024, GB), cut(1_500, GB)], &[1, 1, 2]),
            // A body that began again has to pass the place where it was before.
            (
                &[
                    cut(50_000, 100_000),
                    cut(20_000, 100_000),
                    cut(50_000, 100_000),
                    cut(60_000, 100_000),
                ],
                &[1, 2, 3, 1],
            ),
            // What is left of a body while the host does not answer is no progress either.
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
        // As little as is enough each time.
        for length in [1_u64, 50, 10_000, 1 << 20, 1 << 30] {
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
}
