//! Conditions of requests, and ranges of bytes (RFC 9110, sections 13 and 14).

use std::convert::Infallible;
use std::time::SystemTime;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use chrono::Utc;

use crate::clock;
use crate::job::Condition;

/// What tells one state of some bytes from another.
#[derive(Debug)]
pub(super) struct Validators {
    /// Strong, with its quotes.
    pub(super) etag: String,
    /// To the second, as HTTP has times. `None`: nobody knows, and conditions on it are ignored (sections 13.1.3, 13.1.4).
    pub(super) last_modified: Option<SystemTime>,
}

/// The conditions under which something is to be changed. The writer evaluates them together with the change.
#[derive(Debug, Clone)]
pub(super) struct Conditions(HeaderMap);

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut conditions = HeaderMap::new();
        for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
            for value in parts.headers.get_all(&name) {
                conditions.append(name.clone(), value.clone());
            }
        }
        Ok(Self(conditions))
    }
}

impl Conditions {
    /// A condition on the state of a resource, whose entity tag `etag` makes; `None`: there is none.
    pub(super) fn on<T: ?Sized>(
        self,
        etag: impl FnOnce(&T) -> Option<String> + Send + 'static,
    ) -> Option<Condition<T>> {
        if self.0.is_empty() {
            return None;
        }
        Some(Box::new(move |state| {
            let Some(etag) = etag(state) else {
                return false;
            };
            let last_modified = None;
            let validators = Validators {
                etag,
                last_modified,
            };
            validators.judge(&self.0) == Verdict::Answer
        }))
    }
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
            && self.last_modified.is_some_and(|date| date > since)
        {
            return Verdict::Failed;
        }
        let is_known = if headers.contains_key(header::IF_NONE_MATCH) {
            self.is_among(headers, header::IF_NONE_MATCH, true)
        } else {
            // A date in the future comes from a clock that was ahead.
            date(headers, header::IF_MODIFIED_SINCE)
                .filter(|date| clock::is_believable((*date).into(), Utc::now()))
                .is_some_and(|date| self.last_modified.is_some_and(|own| own <= date))
        };
        match is_known {
            true => Verdict::NotModified,
            false => Verdict::Answer,
        }
    }

    /// Whether one of the tags in a header is ours, or any will do.
    fn is_among(&self, headers: &HeaderMap, name: HeaderName, also_weak: bool) -> bool {
        let values = headers.get_all(name);
        let mut values = values.iter().filter_map(|value| value.to_str().ok());
        values.any(|value| {
            value.trim() == "*"
                || tags(value).any(|tag| {
                    let weak = tag.strip_prefix("W/").filter(|_| also_weak);
                    weak.unwrap_or(tag) == self.etag
                })
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
                    || httpdate::parse_http_date(text)
                        .is_ok_and(|date| Some(date) == self.last_modified)
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

/// Iterates over the entity tags of a list (section 8.8.3), and stops at the first malformed one. A tag may contain commas.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let open = match rest.starts_with("W/") {
            true => 2,
            false => 0,
        };
        let opaque = rest.get(open..)?.strip_prefix('"')?;
        let (tag, behind) = rest.split_at(open + opaque.find('"')? + 2);
        rest = behind;
        Some(tag)
    })
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
            last_modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)),
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
            (&[("if-match", "\"b\", \"a\"")], Answer),
            (&[("if-match", ", \"b\",W/\"a\" ,\"a\"")], Answer),
            (&[("if-match", "\"b\""), ("if-match", "\"a\"")], Answer),
            (&[("if-match", "a")], Failed),
            (&[("if-match", "")], Failed),
            // A tag may hold what looks like a list.
            (&[("if-match", "\"b,*,c\"")], Failed),
            (&[("if-none-match", "\"b,*,c\"")], Answer),
            (&[("if-match", "\"b, \"a\"")], Failed),
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
    fn a_change_is_made_to_the_state_that_its_client_knows() {
        for (pairs, is_made) in [
            (&[][..], None),
            // There is no date to hold against these.
            (&[("if-unmodified-since", DATE)], None),
            (&[("if-modified-since", DATE)], None),
            (&[("if-match", "\"a\"")], Some(true)),
            (&[("if-match", "*")], Some(true)),
            (&[("if-match", "W/\"a\"")], Some(false)),
            (&[("if-match", "\"b\"")], Some(false)),
            (&[("if-none-match", "*")], Some(false)),
            (&[("if-none-match", "W/\"a\"")], Some(false)),
            (&[("if-none-match", "\"b\"")], Some(true)),
        ] {
            let mut parts = axum::http::Request::new(()).into_parts().0;
            parts.headers = headers(pairs);
            let conditions = Conditions::from_request_parts(&mut parts, &());
            let conditions = futures_util::FutureExt::now_or_never(conditions);
            let Some(Ok(conditions)) = conditions else {
                panic!("{pairs:?}");
            };
            let condition = conditions.on(|tag: &str| Some(tag.to_owned()));
            assert_eq!(condition.map(|it| it("\"a\"")), is_made, "{pairs:?}");
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
