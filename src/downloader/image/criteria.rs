//! The checks that a picture has passed, in the notation kept with its file.

use std::fmt;

use super::{Check, Limits, Settings};

/// The settings that a picture was checked by. As text: `image/header/268435456/65535/1`, which is the kind,
/// `image.check`, `image.max_pixels`, `image.max_side` and `image.min_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Criteria {
    check: Check,
    max_pixels: u64,
    max_side: u32,
    min_bytes: u64,
}

impl Criteria {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            check: settings.check,
            max_pixels: settings.max_pixels.get(),
            max_side: settings.max_side.get(),
            min_bytes: settings.min_bytes.as_u64(),
        }
    }

    /// Returns the least that a picture of known size has passed. Only the header check measures a picture.
    pub(super) fn measured((width, height): (u32, u32)) -> Self {
        Self {
            check: Check::Header,
            max_pixels: u64::from(width) * u64::from(height),
            max_side: width.max(height),
            min_bytes: 0,
        }
    }

    /// Returns `None` for the criteria of another kind.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("image/")?.split('/');
        let criteria = Self {
            check: Check::ALL
                .into_iter()
                .find(|check| parts.clone().next() == Some(check.as_str()))?,
            max_pixels: parts.nth(1)?.parse().ok()?,
            max_side: parts.next()?.parse().ok()?,
            min_bytes: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(criteria)
    }

    /// Returns `true` if a picture that passed these also passes `check` within `limits`. Length and format are
    /// judged by the record.
    pub(super) fn suffices(&self, check: Check, limits: &Limits) -> bool {
        // That check reads only the first bytes, and does not measure.
        check == Check::Sniff
            || self.check >= check
                && self.max_pixels <= limits.max_pixels()
                && self.max_side <= limits.max_side()
    }
}

impl fmt::Display for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            max_pixels,
            max_side,
            min_bytes,
        } = self;
        write!(
            f,
            "image/{}/{max_pixels}/{max_side}/{min_bytes}",
            check.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criteria(check: Check, max_pixels: u64, max_side: u32) -> Criteria {
        Criteria {
            check,
            max_pixels,
            max_side,
            min_bytes: 1,
        }
    }

    #[test]
    fn criteria_come_back_as_they_were_written() {
        for check in Check::ALL {
            let written = criteria(check, 1 << 40, 65535);
            assert_eq!(Criteria::parse(&written.to_string()), Some(written));
        }
        for other in [
            "",
            "any",
            "image",
            "document",
            "image/",
            "image/header",
            "image/header/1/1",
            "image/header/1/1/1/1",
            "image/closely/1/1/1",
            "image/header/-1/1/1",
            "images/header/1/1/1",
        ] {
            assert_eq!(Criteria::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_passed_stricter_checks_passes_looser_ones() {
        use Check::{Decode, Header, Sniff};
        let wanted = |check, pixels, side| (check, pixels, side);
        for (passed, (check, max_pixels, max_side), suffices) in [
            (criteria(Header, 100, 10), wanted(Header, 100, 10), true),
            (criteria(Header, 100, 10), wanted(Header, 200, 20), true),
            (criteria(Header, 100, 10), wanted(Sniff, 1, 1), true),
            (criteria(Decode, 100, 10), wanted(Header, 100, 10), true),
            (criteria(Header, 100, 10), wanted(Decode, 100, 10), false),
            (criteria(Sniff, 100, 10), wanted(Header, 100, 10), false),
            (criteria(Sniff, 1, 1), wanted(Sniff, 1, 1), true),
            (criteria(Header, 100, 10), wanted(Header, 99, 10), false),
            (criteria(Decode, 100, 10), wanted(Header, 100, 9), false),
            (Criteria::measured((5, 4)), wanted(Header, 20, 5), true),
            (Criteria::measured((5, 4)), wanted(Header, 19, 5), false),
            (Criteria::measured((5, 4)), wanted(Decode, 20, 5), false),
        ] {
            let limits = Limits::of_sizes(max_pixels, max_side);
            assert_eq!(
                passed.suffices(check, &limits),
                suffices,
                "{passed} for {check:?}"
            );
        }
    }
}
