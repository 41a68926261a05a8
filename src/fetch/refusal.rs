//! Answers by which an origin asks robots not to use a file: `X-Robots-Tag`, and 402 where it asks robots to pay.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, Utc};
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
/// status 402.
pub(super) fn refusal(
    status: u16,
    has_body: bool,
    headers: &HeaderMap,
    agent: &str,
    respected: &[RobotsTag],
    now: SystemTime,
) -> Option<Refusal> {
    if status == 402 {
        return Some(Refusal::Payment(price(headers)));
    }
    if !has_body && !KEPT_BACK.contains(&status) {
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

fn is_weekday(text: &str) -> bool {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let start = text.get(..3).unwrap_or_default();
    DAYS.iter().any(|day| start.eq_ignore_ascii_case(day)) && !text.contains(char::is_whitespace)
}

/// Parses a date in the form of RFC 822, RFC 850 or ISO 8601.
fn parse_date(text: &str) -> Option<DateTime<Utc>> {
    let rfc822 = DateTime::parse_from_rfc2822(text).or_else(|_| DateTime::parse_from_rfc3339(text));
    if let Ok(date) = rfc822 {
        return Some(date.to_utc());
    }
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date.into());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc())
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
    fn the_status_says_whether_a_tag_is_about_the_file() {
        let tagged = headers(&["noai"]);
        for (status, has_body, refused) in [
            (200, true, true),
            (206, true, true),
            (403, false, true),
            (451, false, true),
            (404, false, false),
            (410, false, false),
            (429, false, false),
            (503, false, false),
        ] {
            let refusal = refusal(status, has_body, &tagged, "PictureBot", &AI, now());
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
