//! Redirects (RFC 9110, section 15.4), one hop at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, LOCATION, SET_COOKIE};
use percent_encoding::{AsciiSet, percent_encode};
use tokio::time::Instant;
use url::Url;

use super::caching::redirect_freshness;
use super::cookies::{Jar, Refused};
use super::digest::Session;
use super::error::{Cause, FetchError, RedirectProblem};

/// Longest cookie name that messages quote, in characters.
const MAX_NAME: usize = 40;

/// Leaves all ASCII as it is; bytes beyond are always encoded.
const ASCII_ONLY: &AsciiSet = &AsciiSet::EMPTY;

/// Whether a status sends the client elsewhere by `Location`. 300 leaves the choice to a person, and 305 and
/// 306 are no longer used.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Where an answer from `url` with `status` and `headers` leads to.
pub(super) fn location(url: &Url, status: u16, headers: &HeaderMap) -> Result<Url, FetchError> {
    let bad = |problem| FetchError::Redirects {
        url: url.into(),
        status,
        problem,
    };
    let value = headers
        .get(LOCATION)
        .ok_or_else(|| bad(RedirectProblem::NoLocation))?;
    // Many origins send UTF-8 unencoded, which is what these bytes become in a URL anyway.
    let reference = percent_encode(value.as_bytes(), ASCII_ONLY).to_string();
    let mut next = url
        .join(reference.trim())
        .map_err(|_| bad(RedirectProblem::BadLocation))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(FetchError::UnsupportedScheme {
            url: (&next).into(),
        });
    }
    // A fragment is inherited, RFC 9110 section 10.2.2; it only matters for names.
    if next.fragment().is_none() {
        next.set_fragment(url.fragment());
    }
    Ok(next)
}

/// The requests of one attempt at a target so far: redirects, the cookies that they set, and the challenges of
/// origins. It lasts no longer than the attempt.
#[derive(Debug)]
pub struct Trail {
    limit: u32,
    /// URLs that redirected, each with the number of changes to the cookies before its request.
    seen: Vec<(Url, u32)>,
    /// When the first of these redirects becomes stale. `None` if none sets a limit.
    fresh_until: Option<Instant>,
    /// Created by the first `Set-Cookie`.
    jar: Option<Box<Jar>>,
    /// Name of the last refused cookie, and the reason.
    refused: Option<(String, Refused)>,
    /// Answer to the challenge from the current URL.
    reply: Option<Reply>,
    /// Number of challenges from the current URL.
    challenges: u8,
}

/// How the next request answers a 401.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Basic,
    Digest(Arc<Session>),
}

/// The next step after an answer.
#[derive(Debug)]
pub enum Next {
    /// Nothing: this is the answer for the target.
    Nothing,
    /// Request another URL.
    Redirect(Url),
    /// Repeat the request with the credentials that it asks for.
    Again,
}

impl Trail {
    /// A trail of at most `limit` redirects.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            seen: Vec::new(),
            fresh_until: None,
            jar: None,
            refused: None,
            reply: None,
            challenges: 0,
        }
    }

    /// Begins with the cookies of an earlier attempt.
    pub fn with_cookies(mut self, jar: Option<Box<Jar>>) -> Self {
        self.jar = jar;
        self
    }

    /// Returns the cookies that the answers have set, for the next attempt.
    pub fn into_cookies(self) -> Option<Box<Jar>> {
        self.jar
    }

    /// Returns the cookies, or `None` before the first `Set-Cookie`.
    pub(super) fn jar(&self) -> Option<&Jar> {
        self.jar.as_deref()
    }

    /// Returns the number of changes to the cookies so far.
    pub(super) fn changes(&self) -> u32 {
        self.jar.as_ref().map_or(0, |jar| jar.changes())
    }

    /// Stores the cookies of an answer from `url`. The jar starts as a copy of `first`.
    pub(super) fn take_cookies(&mut self, url: &Url, headers: &HeaderMap, first: &Jar) {
        for line in headers.get_all(SET_COOKIE) {
            let jar = self.jar.get_or_insert_with(|| Box::new(first.clone()));
            if let Err(why) = jar.set(url, line.as_bytes(), SystemTime::now()) {
                let name = line.as_bytes().split(|byte| *byte == b'=').next();
                let name = String::from_utf8_lossy(name.unwrap_or_default());
                self.refused = Some((name.trim().chars().take(MAX_NAME).collect(), why));
            }
        }
    }

    pub(super) fn reply(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }

    pub(super) fn challenges(&self) -> u8 {
        self.challenges
    }

    /// Makes the next request answer a challenge.
    pub(super) fn answer(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.challenges += 1;
    }

    /// Records the freshness of a redirect that is followed. `explicit` is what the redirect states, see
    /// [`Response::freshness`](super::Response::freshness).
    pub(super) fn note_freshness(&mut self, status: u16, explicit: Option<Duration>) {
        if let Some(limit) = redirect_freshness(status, explicit) {
            let until = Instant::now() + limit;
            self.fresh_until = Some(self.fresh_until.map_or(until, |other| other.min(until)));
        }
    }

    /// Returns how long the answer at the end of the trail is fresh for a request to its beginning: as long as the
    /// least fresh hop (RFC 9111, section 4.2). `own` is the freshness that the answer states.
    pub fn freshness(&self, own: Option<Duration>) -> Option<Duration> {
        let own = own?;
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        Some(self.fresh_until.map_or(own, |until| own.min(left(until))))
    }

    /// Follows a redirect with `status` from `from` to `to`. `changes` is the number of changes to the cookies before
    /// the request to `from`.
    ///
    /// # Errors
    ///
    /// When there are too many redirects, or when `to` has redirected before and no cookie has changed since.
    pub(super) fn follow(
        &mut self,
        from: &Url,
        changes: u32,
        status: u16,
        to: &Url,
    ) -> Result<(), FetchError> {
        let bad = |problem| FetchError::Redirects {
            url: from.into(),
            status,
            problem,
        };
        if self.seen.len() as u64 >= u64::from(self.limit) {
            return Err(bad(RedirectProblem::TooMany { limit: self.limit }));
        }
        self.seen.push((from.clone(), changes));
        let now = self.changes();
        if self
            .seen
            .iter()
            .any(|(url, then)| url == to && *then == now)
        {
            return Err(bad(match &self.refused {
                Some((name, why)) => RedirectProblem::CookieRefused(Box::new(Cause(format!(
                    "`{name}` was refused: it {why}"
                )))),
                None => RedirectProblem::Loop,
            }));
        }
        (self.reply, self.challenges) = (None, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(base: &str, value: &[u8]) -> Result<String, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, http::HeaderValue::from_bytes(value).unwrap());
        location(&Url::parse(base).unwrap(), 302, &headers).map(String::from)
    }

    #[test]
    fn a_location_is_resolved_as_browsers_do() {
        let base = "https://a.example/dir/page?q#part";
        for (value, expected) in [
            (&b"/x"[..], "https://a.example/x#part"),
            (b"x", "https://a.example/dir/x#part"),
            (b"?y", "https://a.example/dir/page?y#part"),
            (b"//b.example/x", "https://b.example/x#part"),
            (b"http://b.example/x#other", "http://b.example/x#other"),
            (b" /x ", "https://a.example/x#part"),
            (b"/a b", "https://a.example/a%20b#part"),
            ("/caf\u{e9}".as_bytes(), "https://a.example/caf%C3%A9#part"),
            (b"/caf\xe9", "https://a.example/caf%E9#part"),
            (
                "https://b\u{fc}cher.example/".as_bytes(),
                "https://xn--bcher-kva.example/#part",
            ),
            (b"", "https://a.example/dir/page?q#part"),
        ] {
            assert_eq!(to(base, value).unwrap(), expected);
        }
    }

    #[test]
    fn a_location_that_leads_nowhere_is_an_error() {
        let base = "https://a.example/";
        assert!(matches!(
            to(base, b"http://"),
            Err(FetchError::Redirects { .. })
        ));
        for value in [
            "file:///etc/passwd",
            "ftp://b.example/",
            "data:,x",
            "javascript:1",
        ] {
            assert!(
                matches!(
                    to(base, value.as_bytes()),
                    Err(FetchError::UnsupportedScheme { .. })
                ),
                "{value}"
            );
        }
        let none = location(&Url::parse(base).unwrap(), 302, &HeaderMap::new());
        assert!(matches!(
            none,
            Err(FetchError::Redirects {
                problem: RedirectProblem::NoLocation,
                ..
            })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trail_is_as_fresh_as_its_least_fresh_hop() {
        const HOUR: Duration = Duration::from_secs(3600);
        const MINUTE: Duration = Duration::from_secs(60);
        type Hop = (u16, Option<Duration>);
        let cases: [(&[Hop], Option<Duration>, Option<Duration>); 8] = [
            (&[], Some(HOUR), Some(HOUR)),
            (&[(301, None)], Some(HOUR), Some(HOUR)),
            (&[(301, None), (308, None)], Some(HOUR), Some(HOUR)),
            (&[(302, None)], Some(HOUR), Some(Duration::ZERO)),
            (&[(302, Some(MINUTE))], Some(HOUR), Some(MINUTE)),
            (&[(302, Some(HOUR))], Some(MINUTE), Some(MINUTE)),
            (
                &[(307, Some(HOUR)), (301, Some(MINUTE))],
                Some(HOUR),
                Some(MINUTE),
            ),
            (&[(302, Some(HOUR))], None, None),
        ];
        for (hops, own, expected) in cases {
            let mut trail = Trail::new(9);
            for (status, explicit) in hops {
                trail.note_freshness(*status, *explicit);
            }
            assert_eq!(trail.freshness(own), expected, "{hops:?}");
        }
        // Waiting before the last hop uses up freshness.
        let mut trail = Trail::new(9);
        trail.note_freshness(302, Some(HOUR));
        tokio::time::advance(MINUTE).await;
        assert_eq!(trail.freshness(Some(HOUR)), Some(HOUR - MINUTE));
    }

    #[test]
    fn a_trail_ends_at_its_limit_and_at_a_circle() {
        let url = |n: u32| Url::parse(&format!("http://a.example/{n}")).unwrap();
        let mut trail = Trail::new(2);
        trail.follow(&url(0), 0, 302, &url(1)).unwrap();
        trail.follow(&url(1), 0, 302, &url(2)).unwrap();
        let third = trail.follow(&url(2), 0, 302, &url(3)).unwrap_err();
        assert!(matches!(
            third,
            FetchError::Redirects {
                problem: RedirectProblem::TooMany { limit: 2 },
                ..
            }
        ));

        let mut trail = Trail::new(9);
        trail.follow(&url(0), 0, 302, &url(1)).unwrap();
        let back = trail.follow(&url(1), 0, 302, &url(0)).unwrap_err();
        assert!(matches!(
            back,
            FetchError::Redirects {
                problem: RedirectProblem::Loop,
                ..
            }
        ));
        let itself = Trail::new(9).follow(&url(7), 0, 302, &url(7)).unwrap_err();
        assert!(matches!(
            itself,
            FetchError::Redirects {
                problem: RedirectProblem::Loop,
                ..
            }
        ));
        assert!(Trail::new(0).follow(&url(0), 0, 302, &url(1)).is_err());
    }

    #[test]
    fn a_url_is_asked_again_once_a_cookie_changed() {
        let url = Url::parse("http://a.example/").unwrap();
        let mut trail = Trail::new(9);
        let mut step = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(SET_COOKIE, http::HeaderValue::from_static(line));
            let before = trail.changes();
            trail.take_cookies(&url, &headers, &Jar::default());
            let followed = trail.follow(&url, before, 302, &url);
            followed.map_err(|error| error.to_string())
        };
        assert_eq!(step("k=1"), Ok(()));
        assert_eq!(step("k=2"), Ok(()));
        // Setting the same value again changes nothing.
        assert!(step("k=2").unwrap_err().contains("in a circle"));
        let refused = step("k=3; Domain=example").unwrap_err();
        assert!(
            refused.contains("cookie `k`") && refused.contains("public suffix"),
            "{refused}"
        );
    }
}
