//! Conditions and ranges of a request for bytes (RFC 9110, sections 13 and 14).

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, header};
use chrono::Utc;

use crate::clock;

/// What tells one state of some bytes from another.
#[derive(Debug)]
pub(super) struct Validators {
    /// Strong, with its quotes.
    pub(super) etag: String,
    /// To the second, as HTTP has times.
    pub(super) last_modified: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answer,
    NotModified,
    Failed,
}

/// What of the bytes is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ranged {
    /// All, also where several ranges are asked for, or what makes no sense.
    Whole,
    /// The first and the last byte of a part.
    Part(u64, u64),
    /// A part that there is not.
    Beyond,
}

impl Validators {
    /// In the order of section 13.2.2.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Verdict {
        if headers.contains_key(header::IF_MATCH) {
            // A weak tag never matches strongly (section 13.1.1).
            if !self.is_among(headers, header::IF_MATCH, false) {
                return Verdict::Failed;
            }
        } else if let Some(since) = date(headers, header::IF_UNMODIFIED_SINCE)
            && self.last_modified > since
        {
            return Verdict::Failed;
        }
        let is_known = if headers.contains_key(header::IF_NONE_MATCH) {
            self.is_among(headers, header::IF_NONE_MATCH, true)
        } else {
            // A date in the future comes from a clock that was ahead.
            date(headers, header::IF_MODIFIED_SINCE)
                .filter(|date| clock::is_believable((*date).into(), Utc::now()))
                .is_some_and(|date| self.last_modified <= date)
        };
        match is_known {
            true => Verdict::NotModified,
            false => Verdict::Answer,
        }
    }

    /// Whether one of the tags in a header is ours. No tag of ours has a comma.
    fn is_among(&self, headers: &HeaderMap, name: HeaderName, also_weak: bool) -> bool {
        let values = headers.get_all(name);
        let mut tags = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim);
        tags.any(|tag| {
            let weak = tag.strip_prefix("W/").filter(|_| also_weak);
            tag == "*" || weak.unwrap_or(tag) == self.etag
        })
    }

    /// What part of `length` bytes a request asks for.
    pub(super) fn range(&self, headers: &HeaderMap, length: u64) -> Ranged {
        let Some(range) = headers.get(header::RANGE) else {
            return Ranged::Whole;
        };
        if let Some(condition) = headers.get(header::IF_RANGE) {
            // Of a date, the same one (section 13.1.5).
            let is_same = condition.to_str().is_ok_and(|text| {
                text == self.etag
                    || httpdate::parse_http_date(text).is_ok_and(|date| date == self.last_modified)
            });
            if !is_same {
                return Ranged::Whole;
            }
        }
        let range = range.to_str().ok();
        range
            .and_then(|text| parse(text, length))
            .unwrap_or(Ranged::Whole)
    }
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// `bytes=FIRST-LAST`, `bytes=FIRST-` and `bytes=-COUNT` (section 14.1.2); `None` for anything else.
fn parse(text: &str, length: u64) -> Option<Ranged> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let (first, last) = match (first, last) {
        (None, None) => return None,
        (None, Some(0)) => return Some(Ranged::Beyond),
        (None, Some(count)) => (length.saturating_sub(count), u64::MAX),
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), last) => (first, last.unwrap_or(u64::MAX)),
    };
    Some(match first < length {
        true => Ranged::Part(first, last.min(length - 1)),
        false => Ranged::Beyond,
    })
}

/// Digits, however many; `Some(None)` where there are none.
fn number(digits: &str) -> Option<Option<u64>> {
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    // Larger than any file is as large as any number.
    is_number.then(|| (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn validators() -> Validators {
        Validators {
            etag: "\"a\"".to_owned(),
            last_modified: SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777),
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        use Verdict::{Answer, Failed, NotModified};
        let (earlier, later) = (
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        );
        let table: &[(&[(&str, &str)], Verdict)] = &[
            (&[], Answer),
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "\"b\", W/\"a\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"b\"")], Answer),
            (&[("if-none-match", "a")], Answer),
            (&[("if-modified-since", DATE)], NotModified),
            (&[("if-modified-since", later)], NotModified),
            (&[("if-modified-since", earlier)], Answer),
            (&[("if-modified-since", "yesterday")], Answer),
            // The tag counts, the date does not.
            (
                &[("if-none-match", "\"b\""), ("if-modified-since", DATE)],
                Answer,
            ),
            (&[("if-match", "\"a\"")], Answer),
            (&[("if-match", "*")], Answer),
            (&[("if-match", "W/\"a\"")], Failed),
            (&[("if-match", "\"b\"")], Failed),
            (&[("if-unmodified-since", DATE)], Answer),
            (&[("if-unmodified-since", earlier)], Failed),
            (
                &[("if-match", "\"a\""), ("if-unmodified-since", earlier)],
                Answer,
            ),
        ];
        for (pairs, verdict) in table {
            assert_eq!(validators().judge(&headers(pairs)), *verdict, "{pairs:?}");
        }
    }

    #[test]
    fn a_range_is_a_part_of_the_bytes_or_ignored() {
        use Ranged::{Beyond, Part, Whole};
        for (text, expected) in [
            ("bytes=0-0", Part(0, 0)),
            ("bytes=2-5", Part(2, 5)),
            ("Bytes= 2-5", Part(2, 5)),
            ("bytes=9-99", Part(9, 9)),
            ("bytes=3-", Part(3, 9)),
            ("bytes=-3", Part(7, 9)),
            ("bytes=-99", Part(0, 9)),
            ("bytes=10-", Beyond),
            ("bytes=-0", Beyond),
            ("bytes=99999999999999999999999-", Beyond),
            ("bytes=5-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("items=0-1", Whole),
        ] {
            let asked = headers(&[("range", text)]);
            assert_eq!(validators().range(&asked, 10), expected, "{text}");
        }
        let asked = headers(&[("range", "bytes=0-")]);
        assert_eq!(validators().range(&asked, 0), Beyond);
    }

    #[test]
    fn a_range_is_of_the_bytes_that_were_meant() {
        for (condition, is_part) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            (DATE, true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
        ] {
            let asked = headers(&[("range", "bytes=1-"), ("if-range", condition)]);
            let expected = match is_part {
                true => Ranged::Part(1, 9),
                false => Ranged::Whole,
            };
            assert_eq!(validators().range(&asked, 10), expected, "{condition}");
        }
    }
}
