//! Answers by which an origin asks robots not to use a file: `X-Robots-Tag`, and 402 where it asks robots to pay.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use http::header::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::agent::token;

/// The price in a 402 answer (Cloudflare's pay per crawl).
const PRICE: HeaderName = HeaderName::from_static("crawler-price");

/// Longest price that messages quote, in bytes.
const MAX_PRICE: usize = 64;

/// Error statuses whose `X-Robots-Tag` is about the file. With any other error it is about the error page.
const KEPT_BACK: [u16; 3] = [401, 403, 451];

/// A directive of `X-Robots-Tag` that `fetch.robots_tags` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RobotsTag {
    /// No machine learning.
    NoAi,
    /// No machine learning with the pictures of the page.
    NoImageAi,
    /// No indexing. `none`, and an `unavailable_after` in the past, mean the same.
    NoIndex,
    /// No indexing of the pictures of the page.
    NoImageIndex,
}

/// The price that an origin asks of robots, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price(Box<str>);

/// How an origin asked robots not to use a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `X-Robots-Tag` with this directive, as the origin wrote it.
    Tag(String),
    /// 402 (Payment Required), with the price if the answer names one.
    Payment(Option<Box<Price>>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(directive) => write!(
                f,
                "`X-Robots-Tag: {directive}` asks robots not to use this file; `fetch.robots_tags` lists the directives that are respected"
            ),
            Self::Payment(price) => write!(
                f,
                "the origin answered 402 (Payment Required): it wants robots to pay{}",
                in_brackets(price.as_deref())
            ),
        }
    }
}

fn in_brackets(price: Option<&Price>) -> String {
    price.map_or_else(String::new, |Price(price)| format!(" (`{PRICE}: {price}`)"))
}

/// Returns the advice for an answer with status 402.
pub(super) fn payment(headers: &HeaderMap) -> String {
    let price = in_brackets(price(headers).as_deref());
    format!("the origin wants robots to pay{price}")
}

/// Returns the price in an answer.
fn price(headers: &HeaderMap) -> Option<Box<Price>> {
    let price = headers.get(PRICE)?.to_str().ok()?.trim();
    (!price.is_empty() && price.len() <= MAX_PRICE).then(|| Box::new(Price(price.into())))
}

/// Returns how an answer asks the product `agent` not to use it: by one of the directives in `respected`, or by
/// status 402. `is_file` is set if the answer brings the file or confirms the copy at hand.
pub(super) fn refusal(
    status: u16,
    is_file: bool,
    headers: &HeaderMap,
    agent: &str,
    respected: &[RobotsTag],
    now: SystemTime,
) -> Option<Refusal> {
    if status == 402 {
        return Some(Refusal::Payment(price(headers)));
    }
    if !is_file && !KEPT_BACK.contains(&status) {
        return None;
    }
    let lines = headers.get_all(HeaderName::from_static("x-robots-tag"));
    let lines = lines.iter().filter_map(|line| line.to_str().ok());
    let mut found = lines.filter_map(|line| forbidding(line, agent, respected, now.into()));
    found.next().map(Refusal::Tag)
}

/// Returns the first directive of an `X-Robots-Tag` line that is in `respected` and applies to `agent`.
///
/// A name before a colon limits the directives after it to that robot, unless the name is itself a directive with a
/// value.
fn forbidding(
    line: &str,
    agent: &str,
    respected: &[RobotsTag],
    now: DateTime<Utc>,
) -> Option<String> {
    const WITH_VALUE: [&str; 4] = [
        "max-snippet",
        "max-image-preview",
        "max-video-preview",
        "unavailable_after",
    ];
    let mut applies = true;
    let mut parts = line.split(',').map(str::trim).peekable();
    while let Some(mut part) = parts.next() {
        let mut value = None;
        while let Some((name, rest)) = part.split_once(':') {
            let (name, rest) = (name.trim(), rest.trim());
            if WITH_VALUE
                .iter()
                .any(|with| name.eq_ignore_ascii_case(with))
            {
                (part, value) = (name, Some(rest.to_owned()));
                break;
            }
            // Robot names are tokens. A name with white space in it is part of a date.
            if name.is_empty() || name.contains(char::is_whitespace) {
                break;
            }
            applies = name == "*" || token(name).eq_ignore_ascii_case(agent);
            part = rest;
        }
        if let Some(value) = &mut value
            && part.eq_ignore_ascii_case("unavailable_after")
            && is_weekday(value)
            && let Some(date) = parts.next()
        {
            // The date in `Fri, 25 Jun 2027 15:00:00 GMT` contains a comma.
            value.push_str(", ");
            value.push_str(date);
        }
        let meaning = meaning(part, value.as_deref(), now);
        if applies && meaning.is_some_and(|tag| respected.contains(&tag)) {
            return Some(match value {
                Some(value) => format!("{part}: {value}"),
                None => part.to_owned(),
            });
        }
    }
    None
}

/// Returns the tag that a directive stands for at `now`, or `None` if it stands for none.
fn meaning(directive: &str, value: Option<&str>, now: DateTime<Utc>) -> Option<RobotsTag> {
    match (directive.to_ascii_lowercase().as_str(), value) {
        ("noai", None) => Some(RobotsTag::NoAi),
        ("noimageai", None) => Some(RobotsTag::NoImageAi),
        ("noindex" | "none", None) => Some(RobotsTag::NoIndex),
        ("noimageindex", None) => Some(RobotsTag::NoImageIndex),
        ("unavailable_after", Some(date)) => {
            (parse_date(date)? <= now).then_some(RobotsTag::NoIndex)
        }
        _ => None,
    }
}

/// Returns `true` for `Fri` and `Friday`.
fn is_weekday(text: &str) -> bool {
    without_weekday(text).is_some_and(str::is_empty)
}

/// Strips the day of the week from the start of a date, with its comma. Returns `None` if there is none.
fn without_weekday(text: &str) -> Option<&str> {
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    let (day, rest) = text.split_at(end.unwrap_or(text.len()));
    let day = day.to_ascii_lowercase();
    let is_day = day.len() >= 3 && DAYS.iter().any(|whole| whole.starts_with(&day));
    is_day.then(|| rest.trim_start_matches([',', ' ']))
}

/// Parses a date in the form of RFC 822, RFC 850, asctime or ISO 8601. The default time zone is UTC, the default time
/// midnight.
fn parse_date(text: &str) -> Option<DateTime<Utc>> {
    /// Forms of ISO 8601, without the time zone.
    const LOCAL: [&str; 4] = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y%m%dT%H%M%S",
        "%Y%m%dT%H%M",
    ];
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date.into());
    }
    let text = without_weekday(text).unwrap_or(text).trim();
    // RFC 850 writes `25-Jun-10`.
    let spaced = match text.split_once(' ') {
        Some((day, time)) => format!("{} {time}", day.replace('-', " ")),
        None => text.replace('-', " "),
    };
    // chrono knows the zones of RFC 822. Other names are taken as UTC (RFC 2822, section 4.3).
    let local = spaced.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    for text in [
        &spaced,
        &format!("{local} +0000"),
        &format!("{local} 00:00 +0000"),
    ] {
        if let Ok(date) = DateTime::parse_from_rfc2822(text) {
            return Some(date.to_utc());
        }
    }
    let mut text = text.to_ascii_uppercase().replacen(' ', "T", 1);
    text.retain(|c| c != ' ');
    if let Some(utc) = text.strip_suffix('Z').or(text.strip_suffix("UTC")) {
        text = format!("{utc}+0000");
    }
    LOCAL
        .iter()
        .find_map(|format| {
            let zoned = DateTime::parse_from_str(&text, &format!("{format}%#z"));
            let zoned = zoned.map(|date| date.to_utc());
            let local = || NaiveDateTime::parse_from_str(&text, format);
            zoned.or_else(|_| local().map(|date| date.and_utc())).ok()
        })
        .or_else(|| {
            let mut forms = ["%Y-%m-%d", "%Y%m%d"].iter();
            let day = forms.find_map(|form| NaiveDate::parse_from_str(&text, form).ok())?;
            Some(day.and_hms_opt(0, 0, 0)?.and_utc())
        })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const AI: [RobotsTag; 2] = [RobotsTag::NoAi, RobotsTag::NoImageAi];
    const INDEX: [RobotsTag; 2] = [RobotsTag::NoIndex, RobotsTag::NoImageIndex];

    /// 2026-11-30T00:00:00Z.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_996_800)
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-robots-tag", line.parse().unwrap());
        }
        headers
    }

    fn directive(lines: &[&str], respected: &[RobotsTag]) -> Option<String> {
        match refusal(200, true, &headers(lines), "PictureBot", respected, now()) {
            Some(Refusal::Tag(directive)) => Some(directive),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directive_counts_for_everyone_and_for_this_robot_only() {
        for (lines, expected) in [
            (&["noai"][..], "noai"),
            (&["noindex, NoImageAI"], "NoImageAI"),
            (&["*: noai"], "noai"),
            (&["picturebot: noindex, noai"], "noai"),
            (&["PictureBot/2.1 : noai"], "noai"),
            (&["PictureBot:noai"], "noai"),
            (&["max-snippet: 3, noai"], "noai"),
            (&["max-image-preview:none,noai"], "noai"),
            (&["other: noindex, PictureBot: noai"], "noai"),
            (&["nofollow", "otherbot: noai", "noimageai"], "noimageai"),
            (
                &["unavailable_after: Fri, 25 Jun 2099 15:00:00 GMT, noai"],
                "noai",
            ),
            (
                &["unavailable_after: 25 Jun 2099 15:00:00 PST, noai"],
                "noai",
            ),
            (
                &["PictureBot: unavailable_after: 25 Jun 2099 15:00:00 GMT, noai"],
                "noai",
            ),
        ] {
            assert_eq!(
                directive(lines, &AI).as_deref(),
                Some(expected),
                "{lines:?}"
            );
        }
        for line in [
            "",
            "all",
            "noindex",
            "none",
            "other: noai",
            "noaiming",
            "other: noindex, noai",
            "noai: 3",
            "max-image-preview: noai",
            "unavailable_after: 25 Jun 2010 15:00:00 GMT",
        ] {
            assert_eq!(directive(&[line], &AI), None, "{line}");
        }
        assert_eq!(directive(&["noai"], &[]), None);
    }

    #[test]
    fn what_means_noindex_is_respected_as_noindex() {
        for line in [
            "noindex",
            "None",
            "noimageindex",
            "unavailable_after: 25 Jun 2010 15:00:00 PST",
            "unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT",
            "unavailable_after: Friday, 25-Jun-10 15:00:00 GMT",
            "unavailable_after: 2010-06-25T15:00:00+02:00",
            "unavailable_after: 2026-11-30",
            "unavailable_after: 25-Aug-2007 15:00:00 EST",
            "PictureBot: unavailable_after: 2010-06-25",
        ] {
            assert!(directive(&[line], &INDEX).is_some(), "{line}");
        }
        for line in [
            "noai",
            "max-image-preview: none",
            "unavailable_after: 2026-12-01",
            "unavailable_after: soon",
            "unavailable_after",
            "otherbot: none",
        ] {
            assert_eq!(directive(&[line], &INDEX), None, "{line}");
        }
    }

    #[test]
    fn a_date_is_read_in_every_form() {
        // 2010-06-25T15:00:00Z, and midnight of that day.
        let (afternoon, midnight) = (1_277_478_000, 1_277_424_000);
        for (text, expected) in [
            ("Fri, 25 Jun 2010 15:00:00 GMT", Some(afternoon)),
            ("Friday, 25 Jun 2010 15:00:00 GMT", Some(afternoon)),
            ("25 Jun 2010 15:00:00 GMT", Some(afternoon)),
            ("25 Jun 2010 15:00 UT", Some(afternoon)),
            ("25 Jun 2010 15:00:00 UTC", Some(afternoon)),
            ("25 Jun 2010 15:00:00 WET", Some(afternoon)),
            ("25 Jun 2010 08:00:00 PDT", Some(afternoon)),
            ("25 Jun 10 10:00:00 EST", Some(afternoon)),
            ("25 Jun 2010 17:00:00 +0200", Some(afternoon)),
            ("25 Jun 2010 15:00:00", Some(afternoon)),
            ("25 Jun 2010", Some(midnight)),
            ("Friday, 25-Jun-10 15:00:00 GMT", Some(afternoon)),
            ("25-Jun-2010 10:00:00 EST", Some(afternoon)),
            ("Fri, 25-Jun-2010 15:00:00 GMT", Some(afternoon)),
            ("25-Jun-2010", Some(midnight)),
            ("Fri Jun 25 15:00:00 2010", Some(afternoon)),
            ("2010-06-25T15:00:00Z", Some(afternoon)),
            ("2010-06-25t15:00:00.000z", Some(afternoon)),
            ("2010-06-25T17:00:00+02:00", Some(afternoon)),
            ("2010-06-25T17:00:00+0200", Some(afternoon)),
            ("2010-06-25T17:00+02", Some(afternoon)),
            ("2010-06-25T15:00", Some(afternoon)),
            ("2010-06-25 15:00:00", Some(afternoon)),
            ("2010-06-25 15:00:00 UTC", Some(afternoon)),
            ("2010-06-25 17:00:00 +0200", Some(afternoon)),
            ("20100625T150000Z", Some(afternoon)),
            ("2010-06-25", Some(midnight)),
            ("20100625", Some(midnight)),
            ("soon", None),
            ("", None),
            ("2010", None),
            ("25", None),
            ("Fri", None),
            ("2010-06-31", None),
            ("\u{e9}\u{e9}\u{e9}", None),
        ] {
            let date = parse_date(text).map(|date| date.timestamp());
            assert_eq!(date, expected, "{text}");
        }
    }

    #[test]
    fn the_status_says_whether_a_tag_is_about_the_file() {
        let tagged = headers(&["noai"]);
        for (status, is_file, refused) in [
            (200, true, true),
            (206, true, true),
            (304, true, true),
            (403, false, true),
            (451, false, true),
            (404, false, false),
            (410, false, false),
            (429, false, false),
            (503, false, false),
        ] {
            let refusal = refusal(status, is_file, &tagged, "PictureBot", &AI, now());
            assert_eq!(refusal.is_some(), refused, "{status}");
        }
    }

    #[test]
    fn a_402_is_a_refusal_with_its_price() {
        let mut headers = HeaderMap::new();
        let asked = |headers: &HeaderMap| refusal(402, false, headers, "PictureBot", &[], now());
        assert_eq!(asked(&headers), Some(Refusal::Payment(None)));
        headers.insert(PRICE, "USD 0.01".parse().unwrap());
        let refusal = asked(&headers).unwrap();
        assert_eq!(
            refusal.to_string(),
            "the origin answered 402 (Payment Required): it wants robots to pay (`crawler-price: USD 0.01`)"
        );
    }
}
