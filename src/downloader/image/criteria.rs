//! The checks that a picture has passed, in the notation kept with its file.

use std::fmt;

use super::{Check, Settings, Undecoded};

/// The settings that a picture was checked by. As text: `image/header/268435456/65535/1`, which is the kind,
/// `image.check`, `image.max_pixels`, `image.max_side` and `image.min_bytes`. Behind `decode` follow
/// `image.undecoded` and `image.decode_memory`: `image/decode/268435456/65535/1/keep/2147483648`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Criteria {
    check: Check,
    max_pixels: u64,
    max_side: u32,
    min_bytes: u64,
    /// Of `decode` only.
    decoding: Option<Decoding>,
}

/// What only decoding depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decoding {
    undecoded: Undecoded,
    /// Part of the criteria so that a picture that was rejected is fetched again when there is more.
    memory: u64,
}

impl Criteria {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            check: settings.check,
            max_pixels: settings.max_pixels.get(),
            max_side: settings.max_side.get(),
            min_bytes: settings.min_bytes.as_u64(),
            decoding: (settings.check == Check::Decode).then_some(Decoding {
                undecoded: settings.undecoded,
                memory: settings.decode_memory.as_u64(),
            }),
        }
    }

    /// Returns the least that a picture of known size has passed. Only the header check measures a picture.
    pub(super) fn measured((width, height): (u32, u32)) -> Self {
        Self {
            check: Check::Header,
            max_pixels: u64::from(width) * u64::from(height),
            max_side: width.max(height),
            min_bytes: 0,
            decoding: None,
        }
    }

    /// Returns `None` for the criteria of another kind.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("image/")?.split('/');
        let mut criteria = Self {
            check: Check::ALL
                .into_iter()
                .find(|check| parts.clone().next() == Some(check.as_str()))?,
            max_pixels: parts.nth(1)?.parse().ok()?,
            max_side: parts.next()?.parse().ok()?,
            min_bytes: parts.next()?.parse().ok()?,
            decoding: None,
        };
        if criteria.check == Check::Decode {
            match parts.next() {
                Some(word) => {
                    criteria.decoding = Some(Decoding {
                        undecoded: Undecoded::ALL
                            .into_iter()
                            .find(|undecoded| word == undecoded.as_str())?,
                        memory: parts.next()?.parse().ok()?,
                    });
                }
                // Recorded by a version that did not tell which pictures were not decoded.
                None => criteria.check = Check::Header,
            }
        }
        parts.next().is_none().then_some(criteria)
    }

    /// Returns `true` if a picture that passed these also passes the checks of `wanted`. Length and format are
    /// judged by the record.
    pub(super) fn suffices(&self, wanted: &Self) -> bool {
        let undecoded = |criteria: &Self| criteria.decoding.map(|decoding| decoding.undecoded);
        // That check reads only the first bytes, and does not measure.
        wanted.check == Check::Sniff
            || self.check >= wanted.check
                && undecoded(self) >= undecoded(wanted)
                && self.max_pixels <= wanted.max_pixels
                && self.max_side <= wanted.max_side
    }
}

impl fmt::Display for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            max_pixels,
            max_side,
            min_bytes,
            decoding,
        } = self;
        write!(
            f,
            "image/{}/{max_pixels}/{max_side}/{min_bytes}",
            check.as_str()
        )?;
        if let Some(Decoding { undecoded, memory }) = decoding {
            write!(f, "/{}/{memory}", undecoded.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Decoding = Decoding {
        undecoded: Undecoded::Keep,
        memory: 1 << 30,
    };

    fn criteria(check: Check, max_pixels: u64, max_side: u32) -> Criteria {
        Criteria {
            check,
            max_pixels,
            max_side,
            min_bytes: 1,
            decoding: (check == Check::Decode).then_some(KEPT),
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
            "image/header/1/1/1/keep/1",
            "image/decode/1/1/1/keep",
            "image/decode/1/1/1/sometimes/1",
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
            let wanted = criteria(check, max_pixels, max_side);
            assert_eq!(passed.suffices(&wanted), suffices, "{passed} for {wanted}");
        }
    }

    #[test]
    fn a_picture_that_was_not_decoded_is_judged_again_when_the_setting_changes() {
        let of = |text: &str| Criteria::parse(text).unwrap();
        let [old, keep, more, reject] = [
            "image/decode/9/9/1",
            "image/decode/9/9/1/keep/5",
            "image/decode/9/9/1/keep/6",
            "image/decode/9/9/1/reject/5",
        ]
        .map(of);
        for (passed, wanted, suffices) in [
            (old, keep, false),
            (old, of("image/header/9/9/1"), true),
            (keep, more, true),
            (keep, reject, false),
            (reject, keep, true),
            (reject, reject, true),
        ] {
            assert_eq!(passed.suffices(&wanted), suffices, "{passed} for {wanted}");
        }
    }
}
