//! Which images of an album are asked for.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use url::form_urlencoded::{Serializer, parse};
use utoipa::IntoParams;

use super::Problem;
use super::extract::explain;
use super::page::Limit;
use crate::catalog::ImageFilter;
use crate::downloader;

/// Members of the metadata that a request may ask for.
const MOST_MEMBERS: usize = 8;

/// What stands before the name of such a member.
const MEMBER: &str = "meta.";

/// The parameters of a list of images. Besides these, `meta.NAME`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// As its bytes show, such as `jpeg`.
    format: Option<String>,
    /// So many bytes or more.
    min_bytes: Option<u64>,
    /// So many bytes or fewer.
    max_bytes: Option<u64>,
    /// So wide or wider, in pixels.
    min_width: Option<u64>,
    /// So wide or narrower, in pixels.
    max_width: Option<u64>,
    /// So high or higher, in pixels.
    min_height: Option<u64>,
    /// So high or lower, in pixels.
    max_height: Option<u64>,
    /// Its bytes came then or later.
    since: Option<DateTime<Utc>>,
    /// Its bytes came before.
    until: Option<DateTime<Utc>>,
    /// The host of a URL that stands for it.
    host: Option<String>,
}

/// Which images, and how many of them from where.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) filter: ImageFilter,
    pub(super) limit: Limit,
    pub(super) cursor: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Filtered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        filtered(parts.uri.query().unwrap_or_default())
    }
}

fn filtered(query: &str) -> Result<Filtered, Problem> {
    let wrong = |what: &str| Problem::bad_request(format!("the query cannot be used: {what}"));
    let mut members = Vec::new();
    let mut others = Serializer::new(String::from("/?"));
    for (name, text) in parse(query.as_bytes()) {
        match name.strip_prefix(MEMBER) {
            Some("") => return Err(wrong("meta.: expected the name of a member behind it")),
            Some(member) if member.contains(['"', '\\', '\0']) => {
                return Err(wrong("meta.NAME: no such name can be asked for"));
            }
            Some(member) => members.push((member.to_owned(), text.into_owned())),
            None => drop(others.append_pair(&name, &text)),
        }
    }
    if members.len() > MOST_MEMBERS {
        return Err(wrong("meta.NAME: at most 8 of them"));
    }
    let uri: Uri = others
        .finish()
        .parse()
        .map_err(|_| wrong("it is too long"))?;
    let wanted = Query::<Wanted>::try_from_uri(&uri);
    let Query(wanted) = wanted.map_err(|rejection| Problem::bad_request(explain(&rejection)))?;
    let host = wanted.host.map(|host| url::Host::parse(&host)).transpose();
    let host = host.map_err(|_| wrong("host: expected the name of a host, or its address"))?;
    Ok(Filtered {
        limit: wanted.limit.unwrap_or_default(),
        cursor: wanted.cursor,
        filter: ImageFilter {
            format: wanted.format.map(downloader::format_name),
            bytes: (wanted.min_bytes, wanted.max_bytes),
            width: (wanted.min_width, wanted.max_width),
            height: (wanted.min_height, wanted.max_height),
            since: wanted.since,
            until: wanted.until,
            host: host.map(|host| host.to_string()),
            metadata: members,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let query = "format=jpg&min_bytes=1&meta.a+b=%26&host=EXAMPLE.org&since=2026-11-21T09:30:41%2B01:00&limit=7&meta.c=";
        let found = filtered(query).unwrap();
        let expected = ImageFilter {
            format: Some("jpeg".to_owned()),
            bytes: (Some(1), None),
            since: Some("2026-11-21T08:30:41Z".parse().unwrap()),
            host: Some("example.org".to_owned()),
            metadata: vec![
                ("a b".to_owned(), "&".to_owned()),
                ("c".to_owned(), String::new()),
            ],
            ..ImageFilter::default()
        };
        assert_eq!(found.filter, expected);
        assert_eq!(found.limit.and_one(), 8);
        assert_eq!(filtered("").unwrap().filter, ImageFilter::default());
    }

    #[test]
    fn what_means_nothing_is_an_error() {
        let many = "meta.a=1&".repeat(9);
        for query in [
            "x=1",
            "meta=1",
            "meta.=1",
            "meta.%22=1",
            "min_bytes=-1",
            "min_bytes=a",
            "since=yesterday",
            "host=a/b",
            "limit=0",
            &many,
        ] {
            assert!(filtered(query).is_err(), "{query}");
        }
    }
}
