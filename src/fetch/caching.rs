//! What headers say of time and sameness: validators, freshness, `Retry-After` (RFC 9110, RFC 9111).

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_RANGE, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use url::Url;

use crate::target::SafeUrl;

/// What an origin gave to tell later whether a body is still the same. Kept exactly as it was sent, since
/// some origins compare dates as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, with its quotes and, if weak, its `W/`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

impl Validators {
    /// What `headers` give.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            etag: text(headers, &ETAG),
            last_modified: text(headers, &LAST_MODIFIED),
        }
    }

    /// Returns the time in `Last-Modified`, which may have any of the three forms of RFC 9110 (section 5.6.7) or the
    /// form of mail dates (RFC 5322). `None` if it is not a date.
    pub fn modified(&self) -> Option<DateTime<Utc>> {
        let text = self.last_modified.as_deref()?.trim();
        match httpdate::parse_http_date(text) {
            Ok(time) => Some(time.into()),
            Err(_) => Some(DateTime::parse_from_rfc2822(text).ok()?.to_utc()),
        }
    }

    /// Whether there is nothing to ask with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Adds the preconditions of a conditional request, RFC 9110 section 13.1.
    ///
    /// A text that cannot stand in a header is left out: it costs a body, not the request.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, text) in [
            (IF_NONE_MATCH, &self.etag),
            (IF_MODIFIED_SINCE, &self.last_modified),
        ] {
            if let Some(value) = text.as_ref().and_then(|t| HeaderValue::try_from(t).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// Validators with the URL that sent them. They mean nothing to any other URL (RFC 9110, section 8.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValidators {
    /// The URL that answered, in the form of [`recorded_url`].
    pub url: String,
    /// The validators in its answer.
    pub validators: Validators,
}

impl StoredValidators {
    /// Returns the validators for a request to `url`, or `None` if another URL sent them.
    pub fn for_request(&self, url: &Url) -> Option<&Validators> {
        (recorded_url(url) == self.url).then_some(&self.validators)
    }
}

/// Formats the URL of an answer as records keep it: without the fragment, which no origin sees, and with credentials
/// masked.
pub fn recorded_url(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    SafeUrl::new(&url).to_string()
}

/// Returns how long a redirect with `status` keeps its chain fresh. `explicit` is the freshness that the answer
/// states (RFC 9111, section 4.2). `None` means no limit.
///
/// Without explicit freshness, a permanent redirect holds until further notice, and a temporary one only for the
/// current request (RFC 9110, section 15.4).
pub(super) fn redirect_freshness(status: u16, explicit: Option<Duration>) -> Option<Duration> {
    let is_permanent = matches!(status, 301 | 308);
    explicit.or((!is_permanent).then_some(Duration::ZERO))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Where to continue a body that was cut off, and what tells that it is still the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    offset: u64,
    /// `None` restarts the body.
    validator: Option<HeaderValue>,
    /// Length of the whole body, if the origin said it.
    length: Option<u64>,
    /// Set if `offset` is the end of an answered range and the origin did not state the length of the body. The body
    /// may end there, too.
    ends_range: bool,
}

impl Resume {
    /// Bytes that are there already.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the length of the whole body, if the origin stated it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Restarts the body and asks for no content encoding. A body that is cut off behind a decoder cannot be
    /// continued, but an unencoded one can.
    pub(super) fn unencoded() -> Self {
        Self {
            offset: 0,
            validator: None,
            length: None,
            ends_range: false,
        }
    }

    /// A way to continue after `offset` bytes of the body that came with `headers`, and that has `length`
    /// bytes in all.
    ///
    /// `None` when the origin gave nothing that tells the body's bytes apart from those of another version:
    /// a strong `ETag`, or a `Last-Modified` that lies so far before `Date` that the body cannot have
    /// changed twice within that second (RFC 9110, section 8.8.2.2). A weak `ETag` rules out the date too,
    /// since it says that bytes may differ.
    pub(super) fn new(headers: &HeaderMap, offset: u64, length: Option<u64>) -> Option<Self> {
        let validator = match headers.get(ETAG) {
            Some(etag) if etag.as_bytes().starts_with(b"\"") => etag,
            Some(_) => return None,
            None => {
                let modified = headers.get(LAST_MODIFIED)?;
                let age = date(headers, &DATE)?
                    .duration_since(date(headers, &LAST_MODIFIED)?)
                    .ok()?;
                if age < Duration::from_secs(1) {
                    return None;
                }
                modified
            }
        };
        let refuses = headers
            .get_all(http::header::ACCEPT_RANGES)
            .iter()
            .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"none"));
        (offset > 0 && !refuses).then(|| Self {
            offset,
            validator: Some(validator.clone()),
            length,
            ends_range: false,
        })
    }

    /// Records whether `offset` is the end of an answered range, although the body may go on after it.
    pub(super) fn at_end_of_range(self, ends_range: bool) -> Self {
        Self { ends_range, ..self }
    }

    /// Whether `range`, which came with `headers`, is the rest of this body.
    ///
    /// An origin that keeps to `If-Range` sends no part of another version. Some do not keep to it, and two
    /// halves of two versions must never become one file.
    pub(super) fn fits(&self, headers: &HeaderMap, range: &ContentRange) -> bool {
        let is_same = |known: u64| range.length.is_none_or(|length| length == known);
        range.first == self.offset && self.length.is_none_or(is_same) && self.is_same(headers)
    }

    /// Returns `true` if a 416 with `headers` means that the body ends at `offset`, and so is complete.
    ///
    /// `Content-Range: bytes */LENGTH` states the length (RFC 9110, section 15.5.17). Without it, the status is proof
    /// only from an origin that has already answered a range of this body.
    pub(super) fn is_whole(&self, headers: &HeaderMap) -> bool {
        let ends_here = match headers.get(CONTENT_RANGE) {
            Some(value) => unsatisfied_length(value) == Some(self.offset),
            None => self.ends_range,
        };
        ends_here && self.length.is_none_or(|length| length == self.offset) && self.is_same(headers)
    }

    /// Returns `true` unless `headers` show another version of the body.
    fn is_same(&self, headers: &HeaderMap) -> bool {
        let Some(validator) = &self.validator else {
            return false;
        };
        let name = if validator.as_bytes().starts_with(b"\"") {
            ETAG
        } else {
            LAST_MODIFIED
        };
        headers.get(name).is_none_or(|it| it == validator)
    }

    /// Adds `Range` and `If-Range`, RFC 9110 sections 14.2 and 13.1.5.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let Some(validator) = &self.validator else {
            return;
        };
        let range = HeaderValue::try_from(format!("bytes={}-", self.offset))
            .expect("digits can stand in a header");
        headers.insert(RANGE, range);
        headers.insert(IF_RANGE, validator.clone());
    }
}

/// `Content-Range: bytes FIRST-LAST/LENGTH`, RFC 9110 section 14.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// `None`: unknown to the origin.
    pub(super) length: Option<u64>,
}

impl ContentRange {
    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
        let (range, length) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: digits(first)?,
            last: digits(last)?,
            length: if length == "*" {
                None
            } else {
                Some(digits(length)?)
            },
        };
        let is_sound = unit.eq_ignore_ascii_case("bytes")
            && range.first <= range.last
            && range.length.is_none_or(|length| range.last < length);
        is_sound.then_some(range)
    }
}

/// Returns the length in `Content-Range: bytes */LENGTH`, RFC 9110 section 14.4.
fn unsatisfied_length(value: &HeaderValue) -> Option<u64> {
    let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    let length = rest.trim().strip_prefix("*/")?;
    unit.eq_ignore_ascii_case("bytes").then(|| digits(length))?
}

/// A number in digits alone: `parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More than fits is as good as the most that fits, RFC 9111 section 1.2.2.
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Longest wait and longest freshness: a year. Larger numbers only overflow clocks and dates.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// How long from `now` on the origin lets its answer pass as fresh, for a private cache (RFC 9111,
/// sections 4.2 and 5.2). Zero when it wants to be asked each time; `None` when it does not say.
pub(super) fn freshness(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let mut max_age = None;
    for directive in headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        // `no-cache="Set-Cookie"` speaks of one header only.
        if name.eq_ignore_ascii_case("no-store")
            || (name.eq_ignore_ascii_case("no-cache") && value.is_empty())
        {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            // The smallest of several, and nothing for one that cannot be read: stale is the safe side.
            let seconds = digits(value.trim().trim_matches('"')).unwrap_or(0);
            max_age = Some(max_age.map_or(seconds, |other: u64| other.min(seconds)));
        }
    }
    let sent = date(headers, &DATE).unwrap_or(now);
    let lifetime = match max_age {
        Some(seconds) => Duration::from_secs(seconds),
        // An `Expires` that is no date, such as `0` or `-1`, is in the past.
        None if headers.contains_key(EXPIRES) => date(headers, &EXPIRES)
            .and_then(|expires| expires.duration_since(sent).ok())
            .unwrap_or_default(),
        None => return None,
    };
    let stated_age = headers
        .get(AGE)
        .and_then(|v| digits(v.to_str().ok()?.trim()))
        .unwrap_or(0);
    let apparent_age = now.duration_since(sent).unwrap_or_default();
    Some(
        lifetime
            .min(LONGEST)
            .saturating_sub(apparent_age.max(Duration::from_secs(stated_age))),
    )
}

/// How long `Retry-After` asks to wait (RFC 9110, section 10.2.3), in seconds or as a date.
///
/// A date is compared with the origin's own `Date`, so a wrong clock does not matter. Proxies may add lines; the
/// longest wait counts.
///
/// Zero, or a date in the past, does not mean an immediate retry: see [`backoff`](super::backoff).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let wait = |value: &HeaderValue| {
        let value = value.to_str().ok()?.trim();
        if let Some(seconds) = digits(value) {
            return Some(Duration::from_secs(seconds).min(LONGEST));
        }
        let until = httpdate::parse_http_date(value).ok()?;
        let wait = until.duration_since(date(headers, &DATE).unwrap_or(now));
        Some(wait.unwrap_or_default().min(LONGEST))
    };
    headers.get_all(RETRY_AFTER).iter().filter_map(wait).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    type Cases = &'static [(&'static [(&'static str, &'static str)], Option<u64>)];

    const NOON: &str = "Fri, 20 Nov 2026 12:00:00 GMT";
    const LATER: &str = "Fri, 20 Nov 2026 12:01:30 GMT";

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    #[test]
    fn freshness_is_what_the_origin_says_less_the_age() {
        let cases: Cases = &[
            (&[], None),
            (&[("cache-control", "public")], None),
            (&[("cache-control", "max-age=60")], Some(60)),
            (&[("cache-control", "public, Max-Age=60")], Some(60)),
            (&[("cache-control", "max-age=\"60\"")], Some(60)),
            (&[("cache-control", "max-age=60, max-age=30")], Some(30)),
            (&[("cache-control", "s-maxage=60")], None),
            (&[("cache-control", "max-age=-1")], Some(0)),
            (&[("cache-control", "max-age=60"), ("age", "20")], Some(40)),
            (&[("cache-control", "max-age=60"), ("age", "80")], Some(0)),
            (&[("cache-control", "max-age=60, no-cache")], Some(0)),
            (
                &[
                    ("cache-control", "max-age=60"),
                    ("cache-control", "no-store"),
                ],
                Some(0),
            ),
            (
                &[("cache-control", "max-age=60, no-cache=\"set-cookie\"")],
                Some(60),
            ),
            (
                &[("cache-control", "max-age=99999999999999999999999")],
                Some(366 * 24 * 3600),
            ),
            (&[("date", NOON), ("expires", LATER)], Some(90)),
            (&[("expires", LATER)], Some(90)),
            (&[("date", NOON), ("expires", "0")], Some(0)),
            (&[("date", LATER), ("expires", NOON)], Some(0)),
            (
                &[("cache-control", "max-age=10"), ("expires", LATER)],
                Some(10),
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(
                freshness(&headers(lines), noon()),
                expected.map(Duration::from_secs),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_redirect_limits_freshness_by_what_it_says_or_by_its_status() {
        for (status, explicit, limit) in [
            (301, None, None),
            (308, None, None),
            (302, None, Some(0)),
            (303, None, Some(0)),
            (307, None, Some(0)),
            (301, Some(0), Some(0)),
            (308, Some(60), Some(60)),
            (302, Some(60), Some(60)),
            (307, Some(0), Some(0)),
        ] {
            assert_eq!(
                redirect_freshness(status, explicit.map(Duration::from_secs)),
                limit.map(Duration::from_secs),
                "{status} {explicit:?}"
            );
        }
    }

    #[test]
    fn validators_are_for_the_url_that_gave_them() {
        let url = |text: &str| Url::parse(text).unwrap();
        let stored = StoredValidators {
            url: recorded_url(&url("https://ann:secret@a.example/v1?b#top")),
            validators: Validators::default(),
        };
        assert!(!stored.url.contains("secret"));
        for same in [
            "https://ann:secret@a.example/v1?b",
            "https://ann:secret@a.example:443/v1?b#other",
        ] {
            assert!(stored.for_request(&url(same)).is_some(), "{same}");
        }
        for other in [
            "https://ann:secret@a.example/v2?b",
            "https://ann:secret@a.example/v1",
            "https://ann:secret@a.example/v1?c",
            "http://ann:secret@a.example/v1?b",
            "https://ann:secret@a.example:8443/v1?b",
            "https://a.example/v1?b",
        ] {
            assert!(stored.for_request(&url(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let cases: Cases = &[
            (&[], None),
            (&[("retry-after", "120")], Some(120)),
            (&[("retry-after", " 0 ")], Some(0)),
            (&[("retry-after", "-5")], None),
            (&[("retry-after", "soon")], None),
            (
                &[("retry-after", "99999999999999999999999")],
                Some(366 * 24 * 3600),
            ),
            (&[("retry-after", LATER)], Some(90)),
            (&[("retry-after", LATER), ("date", LATER)], Some(0)),
            (&[("retry-after", NOON), ("date", LATER)], Some(0)),
            (&[("retry-after", "0"), ("retry-after", "7")], Some(7)),
            (&[("retry-after", "soon"), ("retry-after", "7")], Some(7)),
        ];
        for (lines, expected) in cases {
            assert_eq!(
                retry_after(&headers(lines), noon()),
                expected.map(Duration::from_secs),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_body_is_continued_only_by_a_validator_that_tells_bytes_apart() {
        let resume = |lines: &[_]| Resume::new(&headers(lines), 10, None).is_some();
        assert!(resume(&[("etag", "\"a\"")]));
        assert!(!resume(&[("etag", "W/\"a\"")]));
        assert!(!resume(&[
            ("etag", "W/\"a\""),
            ("last-modified", NOON),
            ("date", LATER)
        ]));
        assert!(resume(&[("last-modified", NOON), ("date", LATER)]));
        assert!(!resume(&[("last-modified", NOON), ("date", NOON)]));
        assert!(!resume(&[("last-modified", NOON)]));
        assert!(!resume(&[]));
        assert!(!resume(&[("etag", "\"a\""), ("accept-ranges", "none")]));
        assert!(Resume::new(&headers(&[("etag", "\"a\"")]), 0, None).is_none());
    }

    #[test]
    fn a_part_of_another_version_does_not_fit() {
        const ETAGS: &[(&str, &str)] = &[("etag", "\"a\"")];
        const DATES: &[(&str, &str)] = &[("last-modified", NOON), ("date", LATER)];
        let fits = |begun: &[_], length, part: &[_], range: &str| {
            let resume = Resume::new(&headers(begun), 10, length).unwrap();
            let range = ContentRange::parse(&range.parse().unwrap()).unwrap();
            resume.fits(&headers(part), &range)
        };
        assert!(fits(ETAGS, Some(20), ETAGS, "bytes 10-19/20"));
        assert!(fits(ETAGS, Some(20), &[], "bytes 10-19/*"));
        assert!(fits(ETAGS, None, ETAGS, "bytes 10-19/20"));
        assert!(fits(DATES, Some(20), DATES, "bytes 10-19/20"));
        assert!(!fits(ETAGS, Some(20), ETAGS, "bytes 9-19/20"));
        assert!(!fits(ETAGS, Some(20), ETAGS, "bytes 10-19/21"));
        let others: [&[_]; 2] = [&[("etag", "\"b\"")], &[("etag", "W/\"a\"")]];
        for other in others {
            assert!(!fits(ETAGS, Some(20), other, "bytes 10-19/20"));
        }
        let later = [("last-modified", LATER)];
        assert!(!fits(DATES, Some(20), &later, "bytes 10-19/20"));
    }

    #[test]
    fn a_416_makes_a_body_whole_only_where_it_ends_at_the_offset() {
        const ETAG: (&str, &str) = ("etag", "\"a\"");
        let is_whole = |length, ends_range, answer: &[_]| {
            let resume = Resume::new(&headers(&[ETAG]), 10, length).unwrap();
            resume
                .at_end_of_range(ends_range)
                .is_whole(&headers(answer))
        };
        let at = |range| ("content-range", range);
        assert!(is_whole(None, false, &[at("bytes */10")]));
        assert!(is_whole(None, false, &[at("bytes */10"), ETAG]));
        assert!(is_whole(Some(10), false, &[at("bytes */10")]));
        assert!(is_whole(None, true, &[]));
        for (length, ends_range, answer) in [
            // Many origins answer any range like this.
            (None, false, &[][..]),
            (None, false, &[at("bytes */20")]),
            (None, true, &[at("bytes */20")]),
            (None, true, &[at("bytes */*")]),
            (None, false, &[at("bytes */5")]),
            (Some(20), false, &[at("bytes */10")]),
            (Some(20), true, &[]),
            (None, false, &[at("bytes */10"), ("etag", "\"b\"")]),
            (None, false, &[at("items */10")]),
        ] {
            assert!(!is_whole(length, ends_range, answer), "{answer:?}");
        }
    }

    #[test]
    fn a_content_range_has_to_make_sense() {
        let parse = |text: &str| ContentRange::parse(&text.parse().unwrap());
        assert_eq!(
            parse("bytes 5-9/10"),
            Some(ContentRange {
                first: 5,
                last: 9,
                length: Some(10)
            })
        );
        assert_eq!(
            parse("bytes 5-9/*"),
            Some(ContentRange {
                first: 5,
                last: 9,
                length: None
            })
        );
        for text in [
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "items 5-9/10",
            "bytes +5-9/10",
            "",
            "bytes 5-/10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
