//! Cookies (RFC 6265): those set within a chain of redirects, and those from a file in Netscape's format.
//!
//! Where RFC 6265 and its successor (draft-ietf-httpbis-rfc6265bis) differ, this follows the successor, as browsers
//! do.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use url::{Host, Url};

use super::error::{Cause, SetupError};
use super::hosts::{host_name, without_dot};

/// Largest total length of name and value in bytes, rfc6265bis section 5.6.
const MAX_COOKIE: usize = 4096;

/// Most cookies that a chain of redirects may set. Beyond that the oldest are dropped.
const MAX_SET: usize = 64;

/// Cookies, in the order in which they were set.
#[derive(Clone, Default)]
pub struct Jar {
    cookies: Vec<Cookie>,
    changes: u32,
}

#[derive(Clone, PartialEq)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    /// A host name in lower case, or an address as [`Url::host_str`] prints it.
    domain: String,
    /// If set, the cookie is not sent to subdomains.
    is_host_only: bool,
    path: String,
    is_secure: bool,
    /// `None` for a cookie that lasts as long as the chain.
    expires: Option<SystemTime>,
    /// Set by an answer, not read from the file.
    is_set: bool,
}

/// Why a cookie was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has no name, is too long, or contains control characters.
    Malformed,
    /// Its domain does not cover the host.
    OtherDomain,
    /// Its domain is a public suffix, such as `co.uk`.
    PublicSuffix,
    /// It is `Secure`, or would replace a cookie that was set over https, but the answer came over http.
    Insecure,
    /// Its name begins with `__Host-` or `__Secure-`, but its attributes do not meet the requirements of that prefix.
    Prefix,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is malformed",
            Self::OtherDomain => "is for another domain",
            Self::PublicSuffix => "is for a public suffix",
            Self::Insecure => "is `Secure`, and this is http",
            Self::Prefix => "lacks what its prefix `__Host-` or `__Secure-` promises",
        })
    }
}

impl Jar {
    /// Returns the number of changes to the cookies sent. Setting a cookie again to the same value does not count.
    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Applies one `Set-Cookie` line of an answer from `url`.
    pub(super) fn set(&mut self, url: &Url, line: &[u8], now: SystemTime) -> Result<(), Refused> {
        let cookie = Cookie::parse(url, line, now)?;
        let is_https = url.scheme() == "https";
        // An answer over plain http must not shadow a cookie set over https, rfc6265bis section 5.7.
        let shadows = |other: &Cookie| {
            other.is_secure
                && other.name == cookie.name
                && (domain_matches(&other.domain, &cookie.domain)
                    || domain_matches(&cookie.domain, &other.domain))
                && path_matches(&cookie.path, &other.path)
        };
        if !is_https && self.cookies.iter().any(shadows) {
            return Err(Refused::Insecure);
        }
        let is_expired = cookie.is_expired(now);
        let known = self.cookies.iter().position(|other| other.is_same(&cookie));
        match known {
            Some(at) if is_expired => {
                self.cookies.remove(at);
                self.changes += 1;
            }
            Some(at) => {
                let known = &self.cookies[at];
                if known.value != cookie.value || known.is_secure != cookie.is_secure {
                    self.changes += 1;
                }
                self.cookies[at] = cookie;
            }
            None if is_expired => {}
            None => {
                if self.cookies.iter().filter(|other| other.is_set).count() == MAX_SET
                    && let Some(oldest) = self.cookies.iter().position(|other| other.is_set)
                {
                    self.cookies.remove(oldest);
                }
                self.cookies.push(cookie);
                self.changes += 1;
            }
        }
        Ok(())
    }

    /// Returns the `Cookie` header for a request to `url`: the `given` one from the settings, then this jar's
    /// cookies, which replace given ones of the same name.
    pub(super) fn header(
        &self,
        url: &Url,
        given: Option<&HeaderValue>,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let host = host_name(url)?;
        let is_https = url.scheme() == "https";
        let mut cookies: Vec<&Cookie> = self
            .cookies
            .iter()
            .filter(|cookie| cookie.goes_to(host, url.path(), is_https, now))
            .collect();
        if cookies.is_empty() {
            return None;
        }
        // The sort is stable, so older cookies come first among equal path lengths.
        cookies.sort_by_key(|cookie| Reverse(cookie.path.len()));
        let given = given.map_or(&[][..], HeaderValue::as_bytes);
        let given = given.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let mut text: Vec<u8> = Vec::new();
        for pair in given.filter(|pair| !pair.is_empty()) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
            if cookies.iter().all(|cookie| cookie.name != name) {
                text.extend_from_slice(pair);
                text.extend_from_slice(b"; ");
            }
        }
        for cookie in cookies {
            text.extend_from_slice(&cookie.name);
            text.push(b'=');
            text.extend_from_slice(&cookie.value);
            text.extend_from_slice(b"; ");
        }
        text.truncate(text.len() - 2);
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Reads a file in Netscape's format, as browser extensions and `curl --cookie-jar` write it. Expired cookies are
    /// left out, and so are lines that cannot be parsed. If no line can be, that is an error.
    pub(super) fn read(path: &Path, now: SystemTime) -> Result<Self, SetupError> {
        let bytes = std::fs::read(path).map_err(|source| SetupError::ReadCookies {
            path: path.to_owned(),
            source,
        })?;
        let mut jar = Self::default();
        let mut expired = 0;
        let (mut lines, mut bad) = (0, 0);
        let mut first_bad = None;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let cookie = Cookie::of_line(line);
            lines += u32::from(!matches!(cookie, Ok(None)));
            match cookie {
                Ok(Some(cookie)) if cookie.is_expired(now) => expired += 1,
                Ok(Some(cookie)) => {
                    jar.cookies.retain(|other| !other.is_same(&cookie));
                    jar.cookies.push(cookie);
                }
                Ok(None) => {}
                Err(why) => {
                    bad += 1;
                    first_bad.get_or_insert((number + 1, why));
                }
            }
        }
        if let Some((line, why)) = first_bad {
            if jar.is_empty() && expired == 0 {
                return Err(SetupError::BadCookies {
                    path: path.to_owned(),
                    line,
                    source: Cause(why.into_owned()),
                });
            }
            let path = path.display();
            tracing::warn!(
                "{bad} of {lines} lines in `{path}` are left out: they are no cookies in Netscape's format; the first is line {line}: {why}"
            );
        }
        if expired > 0 {
            tracing::warn!(
                "{expired} of {} cookies in `{}` have expired",
                expired + jar.cookies.len(),
                path.display()
            );
        }
        Ok(jar)
    }
}

/// Prints neither names nor values.
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jar")
            .field("cookies", &self.cookies.len())
            .field("changes", &self.changes)
            .finish()
    }
}

impl Cookie {
    /// Parses one `Set-Cookie`, rfc6265bis sections 5.6 and 5.7.
    fn parse(url: &Url, line: &[u8], now: SystemTime) -> Result<Self, Refused> {
        let host = host_name(url).ok_or(Refused::Malformed)?;
        if line
            .iter()
            .any(|&byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(Refused::Malformed);
        }
        let mut parts = line.split(|byte| *byte == b';');
        let pair = parts.next().unwrap_or_default();
        let (name, value) = split_pair(pair).ok_or(Refused::Malformed)?;
        if name.is_empty() || name.len() + value.len() > MAX_COOKIE {
            return Err(Refused::Malformed);
        }
        let (mut expires, mut max_age) = (None, None);
        let (mut domain, mut path, mut is_secure) = (None, None, false);
        // The last of repeated attributes wins.
        for part in parts {
            let (key, value) = split_pair(part).unwrap_or((part.trim_ascii(), b""));
            match key.to_ascii_lowercase().as_slice() {
                b"expires" => expires = date(value).or(expires),
                b"max-age" => max_age = seconds(value).or(max_age),
                b"domain" => domain = Some(value),
                b"path" => path = Some(value),
                b"secure" => is_secure = true,
                _ => {}
            }
        }
        if is_secure && url.scheme() != "https" {
            return Err(Refused::Insecure);
        }
        let domain = domain
            .map(|domain| domain.strip_prefix(b".").unwrap_or(domain))
            .filter(|domain| !domain.is_empty());
        let has_domain = domain.is_some();
        let (domain, is_host_only) = match domain {
            None => (host.to_owned(), true),
            Some(domain) => {
                let domain = canonical(domain).ok_or(Refused::OtherDomain)?;
                if domain == host {
                    let is_host_only = is_public_suffix(&domain);
                    (domain, is_host_only)
                } else if is_public_suffix(&domain) {
                    return Err(Refused::PublicSuffix);
                } else if domain_matches(host, &domain) {
                    (domain, false)
                } else {
                    return Err(Refused::OtherDomain);
                }
            }
        };
        let given_path = path
            .filter(|path| path.starts_with(b"/"))
            .and_then(|path| std::str::from_utf8(path).ok());
        let has_prefix = |prefix: &[u8]| {
            let begin = name.get(..prefix.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        };
        let keeps_promise = !(has_prefix(b"__Secure-") && !is_secure
            || has_prefix(b"__Host-") && (!is_secure || has_domain || given_path != Some("/")));
        if !keeps_promise {
            return Err(Refused::Prefix);
        }
        Ok(Self {
            name: name.to_vec(),
            value: value.to_vec(),
            domain,
            is_host_only,
            path: given_path.map_or_else(|| default_path(url), str::to_owned),
            is_secure,
            expires: match max_age {
                Some(age) => Some(now.checked_add(age).unwrap_or(now)),
                None => expires,
            },
            is_set: true,
        })
    }

    /// Parses one line of a file in Netscape's format. `None` for a line without a cookie. The error quotes nothing
    /// from the line.
    fn of_line(line: &[u8]) -> Result<Option<Self>, Cow<'static, str>> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = match line.strip_prefix(b"#HttpOnly_") {
            Some(rest) => rest,
            None if line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#") => {
                return Ok(None);
            }
            None => line,
        };
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let [domain, subdomains, path, secure, expires, name, value @ ..] = fields.as_slice()
        else {
            let count = fields.len();
            return Err(format!(
                "expected 7 fields that tabs divide (domain, subdomains, path, secure, expires, name, value), found {count}"
            )
            .into());
        };
        // Some writers leave out the tab before an empty value.
        let value = match value {
            [] => &[][..],
            [value] => value,
            _ => return Err("expected 7 fields that tabs divide, found more".into()),
        };
        let flag = |field: &[u8], name: &str| match field.to_ascii_uppercase().as_slice() {
            b"TRUE" => Ok(true),
            b"FALSE" => Ok(false),
            _ => Err(format!("its field `{name}` is neither TRUE nor FALSE")),
        };
        let (subdomains, is_secure) = (flag(subdomains, "subdomains")?, flag(secure, "secure")?);
        let domain = canonical(domain.strip_prefix(b".").unwrap_or(domain))
            .ok_or("its domain is no host name")?;
        let path = std::str::from_utf8(path)
            .ok()
            .filter(|path| path.starts_with('/'))
            .ok_or("its path does not begin with `/`")?;
        // Some programs write fractions of seconds, or -1 for the end of the session.
        let expires = std::str::from_utf8(expires)
            .ok()
            .and_then(|text| text.trim().parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite())
            .ok_or(
                "its expiry is no number of seconds since 1970; 0 means the end of the session",
            )?;
        if name.is_empty() || [*name, value].concat().iter().any(u8::is_ascii_control) {
            return Err("its name is empty, or name or value hold control characters".into());
        }
        if name.contains(&b';') || name.contains(&b'=') || value.contains(&b';') {
            return Err("its name or value holds a character that divides cookies".into());
        }
        let is_host_only = !subdomains || is_public_suffix(&domain) || is_address(&domain);
        Ok(Some(Self {
            name: name.to_vec(),
            value: value.to_vec(),
            domain,
            is_host_only,
            path: path.to_owned(),
            is_secure,
            expires: (expires > 0.0)
                .then(|| Duration::try_from_secs_f64(expires).ok())
                .flatten()
                .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
            is_set: false,
        }))
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Returns `true` if either cookie replaces the other.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.is_host_only == other.is_host_only
            && self.path == other.path
    }

    fn goes_to(&self, host: &str, path: &str, is_https: bool, now: SystemTime) -> bool {
        let is_host = match self.is_host_only {
            true => host == self.domain,
            false => domain_matches(host, &self.domain),
        };
        is_host
            && path_matches(path, &self.path)
            && (is_https || !self.is_secure)
            && !self.is_expired(now)
    }
}

/// Splits at the first `=` into name and value, both trimmed.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

/// Converts a host name or address to the form it has in URLs.
fn canonical(domain: &[u8]) -> Option<String> {
    let domain = std::str::from_utf8(domain).ok()?;
    let host = Host::parse(domain)
        .or_else(|_| Host::parse(&format!("[{domain}]")))
        .ok()?;
    Some(without_dot(&host.to_string()).to_owned())
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

/// Returns `true` if `domain` is a public suffix: anyone may register names below it, so its cookies would reach
/// strangers.
fn is_public_suffix(domain: &str) -> bool {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    !is_address(domain)
        && psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.as_bytes() == name.as_bytes())
}

/// Domain matching, RFC 6265, section 5.1.3.
fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain
        || host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.') && !is_address(host))
}

/// Path matching, RFC 6265, section 5.1.4.
fn path_matches(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie)
        .is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

/// Default path of a cookie without a `Path` attribute, RFC 6265, section 5.1.4.
fn default_path(url: &Url) -> String {
    match url.path().rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(end) => url.path()[..end].to_owned(),
    }
}

/// Parses `Max-Age`. Zero if the cookie is to be deleted, `None` if the value is not a number.
fn seconds(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if digits.len() < text.len() {
        return Some(Duration::ZERO);
    }
    // Browsers cap the lifetime of cookies at 400 days.
    const LONGEST: u64 = 400 * 24 * 3600;
    Some(Duration::from_secs(
        digits.parse().unwrap_or(LONGEST).min(LONGEST),
    ))
}

/// Parses `Expires` (RFC 6265, section 5.1.1): any text with a time, a day, a month and a year, in any order.
fn date(value: &[u8]) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let is_delimiter = |c: char| !(c.is_alphanumeric() || c == ':');
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        let digits = token.bytes().take_while(u8::is_ascii_digit).count();
        if time.is_none()
            && let Some(clock) = clock(token)
        {
            time = Some(clock);
        } else if day.is_none() && (1..=2).contains(&digits) {
            day = token[..digits].parse::<u32>().ok();
        } else if month.is_none()
            && let Some(at) = MONTHS.iter().position(|name| token.starts_with(name))
        {
            month = u32::try_from(at + 1).ok();
        } else if year.is_none() && (2..=4).contains(&digits) {
            year = token[..digits].parse::<i32>().ok();
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let (hour, minute, second) = time?;
    let date = chrono::NaiveDate::from_ymd_opt(year, month?, day?).filter(|_| year >= 1601)?;
    let time = date.and_hms_opt(hour, minute, second)?;
    Some(time.and_utc().into())
}

/// Parses `hh:mm:ss`. Each part has one or two digits.
fn clock(token: &str) -> Option<(u32, u32, u32)> {
    let mut parts = token.splitn(3, ':').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        (1..=2)
            .contains(&digits)
            .then(|| part[..digits].parse::<u32>().ok())?
    });
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn sent(jar: &Jar, to: &str) -> String {
        let header = jar.header(&url(to), None, now());
        header.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_cookie_goes_where_its_attributes_say() {
        for (from, line, to, expected) in [
            // Host-only cookies and the default path.
            ("http://a.example/x/y", "k=v", "http://a.example/x/z", "k=v"),
            ("http://a.example/x/y", "k=v", "http://a.example/x", "k=v"),
            ("http://a.example/x/y", "k=v", "http://a.example/xz", ""),
            ("http://a.example/x/y", "k=v", "http://a.example/", ""),
            ("http://a.example/x", "k=v", "http://b.a.example/", ""),
            ("http://a.example/x", "k=v", "http://a.example:81/", "k=v"),
            ("http://a.example/x", "k=v", "https://a.example/", "k=v"),
            ("http://a.example/x", "k=v", "http://example/", ""),
            ("http://a.example/x", "k=v", "http://a.example./", "k=v"),
            ("http://a.example./x", "k=v", "http://a.example/", "k=v"),
            // Domains.
            (
                "http://w.a.example/",
                "k=v; Domain=a.example",
                "http://b.a.example/",
                "k=v",
            ),
            (
                "http://w.a.example/",
                "k=v; Domain=.A.Example",
                "http://a.example/",
                "k=v",
            ),
            (
                "http://w.a.example/",
                "k=v; domain=a.example",
                "http://ba.example/",
                "",
            ),
            (
                "http://w.a.example/",
                "k=v; Domain=b.example",
                "http://b.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Domain=w.a.example",
                "http://w.a.example/",
                "",
            ),
            (
                "http://w.a.example/",
                "k=v; Domain=",
                "http://w.a.example/",
                "k=v",
            ),
            (
                "http://w.a.example/",
                "k=v; Domain=",
                "http://x.w.a.example/",
                "",
            ),
            (
                "http://b\u{fc}cher.example/",
                "k=v; Domain=b\u{fc}cher.example",
                "http://a.xn--bcher-kva.example/",
                "k=v",
            ),
            // Public suffixes.
            (
                "http://a.co.uk/",
                "k=v; Domain=co.uk",
                "http://a.co.uk/",
                "",
            ),
            (
                "http://a.github.io/",
                "k=v; Domain=github.io",
                "http://b.github.io/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Domain=example",
                "http://a.example/",
                "",
            ),
            (
                "http://localhost/",
                "k=v; Domain=localhost",
                "http://localhost/",
                "k=v",
            ),
            (
                "http://localhost/",
                "k=v; Domain=localhost",
                "http://a.localhost/",
                "",
            ),
            // Addresses.
            (
                "http://127.0.0.1/",
                "k=v; Domain=127.0.0.1",
                "http://127.0.0.1:9/",
                "k=v",
            ),
            (
                "http://127.0.0.1/",
                "k=v; Domain=0.0.1",
                "http://127.0.0.1/",
                "",
            ),
            ("http://127.0.0.1/", "k=v", "http://127.0.0.2/", ""),
            ("http://[::1]/", "k=v", "http://[::1]/", "k=v"),
            ("http://[::1]/", "k=v; Domain=::1", "http://[::1]/", "k=v"),
            // Paths.
            (
                "http://a.example/x",
                "k=v; Path=/p",
                "http://a.example/p/q",
                "k=v",
            ),
            (
                "http://a.example/x",
                "k=v; Path=/p",
                "http://a.example/pq",
                "",
            ),
            (
                "http://a.example/x",
                "k=v; Path=/p/",
                "http://a.example/p/q",
                "k=v",
            ),
            (
                "http://a.example/x",
                "k=v; Path=p",
                "http://a.example/y",
                "k=v",
            ),
            // Secure.
            (
                "https://a.example/",
                "k=v; Secure",
                "https://a.example/",
                "k=v",
            ),
            ("https://a.example/", "k=v; Secure", "http://a.example/", ""),
            ("http://a.example/", "k=v; Secure", "https://a.example/", ""),
            (
                "http://a.example/",
                "k=v; HttpOnly",
                "http://a.example/",
                "k=v",
            ),
            // Prefixes.
            (
                "https://a.example/",
                "__Host-k=v; Secure; Path=/",
                "https://a.example/",
                "__Host-k=v",
            ),
            (
                "https://a.example/",
                "__Host-k=v; Secure; Path=/; Domain=a.example",
                "https://a.example/",
                "",
            ),
            (
                "https://a.example/",
                "__Host-k=v; Secure",
                "https://a.example/",
                "",
            ),
            (
                "https://a.example/",
                "__host-k=v; Path=/",
                "https://a.example/",
                "",
            ),
            (
                "https://a.example/",
                "__Secure-k=v; Secure",
                "https://a.example/",
                "__Secure-k=v",
            ),
            (
                "https://a.example/",
                "__SECURE-k=v",
                "https://a.example/",
                "",
            ),
            // Times.
            (
                "http://a.example/",
                "k=v; Max-Age=0",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Max-Age=-1",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "http://a.example/",
                "k=v",
            ),
            (
                "http://a.example/",
                "k=v; Max-Age=soon",
                "http://a.example/",
                "k=v",
            ),
            (
                "http://a.example/",
                "k=v; Max-Age=99999999999999999999",
                "http://a.example/",
                "k=v",
            ),
            (
                "http://a.example/",
                "k=v; Expires=Thu, 01-Jan-1970 00:00:01 GMT",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Expires=Thursday, 01-Jan-99 00:00:00 UTC",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Expires=Thu Jan  1 00:00:00 1970",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                "k=v; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
                "http://a.example/",
                "k=v",
            ),
            (
                "http://a.example/",
                "k=v; Expires=0",
                "http://a.example/",
                "k=v",
            ),
            // Syntax.
            (
                "http://a.example/",
                " k = v w ;Secure=0x",
                "http://a.example/",
                "",
            ),
            (
                "http://a.example/",
                " k = v w ;; x",
                "http://a.example/",
                "k=v w",
            ),
            (
                "http://a.example/",
                "k=\"v\"",
                "http://a.example/",
                "k=\"v\"",
            ),
            ("http://a.example/", "k=a=b", "http://a.example/", "k=a=b"),
            ("http://a.example/", "k=", "http://a.example/", "k="),
            ("http://a.example/", "k", "http://a.example/", ""),
            ("http://a.example/", "=v", "http://a.example/", ""),
            ("http://a.example/", "k=v\u{1}", "http://a.example/", ""),
        ] {
            let mut jar = Jar::default();
            let _ = jar.set(&url(from), line.as_bytes(), now());
            assert_eq!(sent(&jar, to), expected, "{line} from {from} to {to}");
        }
    }

    #[test]
    fn a_cookie_is_replaced_and_deleted_by_one_of_the_same_name_domain_and_path() {
        let (here, mut jar) = (url("http://a.example/x/y"), Jar::default());
        let mut changes = Vec::new();
        for line in [
            "k=1",
            "k=1",
            "k=2",
            "k=3; Path=/",
            "gone=1; Max-Age=0",
            "k=; Max-Age=0",
            "k=4; Path=/; Domain=a.example",
        ] {
            jar.set(&here, line.as_bytes(), now()).unwrap();
            changes.push(jar.changes());
        }
        assert_eq!(changes, [1, 1, 2, 3, 3, 4, 5]);
        assert_eq!(sent(&jar, "http://a.example/x/y"), "k=3; k=4");
        // Longer paths come first.
        jar.set(&here, b"l=5", now()).unwrap();
        assert_eq!(sent(&jar, "http://a.example/x/y"), "l=5; k=3; k=4");
    }

    #[test]
    fn plain_http_alters_nothing_that_https_set() {
        let mut jar = Jar::default();
        let (secure, plain) = (url("https://a.example/"), url("http://a.example/"));
        jar.set(&secure, b"k=1; Secure", now()).unwrap();
        assert_eq!(jar.set(&plain, b"k=2", now()), Err(Refused::Insecure));
        assert_eq!(
            jar.set(&plain, b"k=; Max-Age=0; Domain=a.example", now()),
            Err(Refused::Insecure)
        );
        assert_eq!(sent(&jar, "https://a.example/"), "k=1");
    }

    #[test]
    fn a_chain_fills_no_memory() {
        let (here, mut jar) = (url("http://a.example/"), Jar::default());
        for number in 0..1000 {
            let line = format!("k{number}=v");
            jar.set(&here, line.as_bytes(), now()).unwrap();
        }
        assert_eq!(jar.cookies.len(), MAX_SET);
        let long = format!("k={}", "v".repeat(MAX_COOKIE));
        assert_eq!(
            jar.set(&here, long.as_bytes(), now()),
            Err(Refused::Malformed)
        );
    }

    #[test]
    fn a_header_of_the_settings_stays_but_for_what_was_set_since() {
        let (here, mut jar) = (url("http://a.example/"), Jar::default());
        let given = HeaderValue::from_static("a=1; k=old;b=2");
        assert_eq!(jar.header(&here, Some(&given), now()), None);
        jar.set(&here, b"k=new", now()).unwrap();
        let header = jar.header(&here, Some(&given), now()).unwrap();
        assert_eq!(header, "a=1; b=2; k=new");
        assert!(header.is_sensitive());
    }

    fn read(text: &[u8]) -> Result<Jar, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Jar::read(file.path(), now()).map_err(|error| crate::target::describe(&error))
    }

    #[test]
    fn a_file_in_netscapes_format_is_read() {
        let jar = read(
            b"\xef\xbb\xbf# Netscape HTTP Cookie File\r\n\r\n\
              .a.example\tTRUE\t/\tFALSE\t0\tsession\tone\r\n\
              #HttpOnly_.a.example\tTRUE\t/\tFALSE\t1900000000\thidden\ttwo\n\
              # a.example\tFALSE\t/\tFALSE\t0\tcomment\tno\n\
              a.example\tFALSE\t/\tfalse\t1900000000.25\thost\tthree\n\
              a.example\tFALSE\t/\tTRUE\t0\tsecure\tfour\n\
              a.example\tFALSE\t/p\tFALSE\t-1\tpath\tfi ve\n\
              a.example\tFALSE\t/\tFALSE\t1000000000\told\tno\n\
              a.example\tFALSE\t/\tFALSE\t0\tempty\t\n\
              a.example\tFALSE\t/\tFALSE\t0\tbare\n\
              .co.uk\tTRUE\t/\tFALSE\t0\tsuffix\tno\n\
              localhost\tTRUE\t/\tFALSE\t0\tlocal\tsix\n\
              127.0.0.1\tFALSE\t/\tFALSE\t0\taddress\tseven",
        )
        .unwrap();
        for (to, expected) in [
            (
                "http://a.example/",
                "session=one; hidden=two; host=three; empty=; bare=",
            ),
            ("http://b.a.example/", "session=one; hidden=two"),
            (
                "http://a.example/p/q",
                "path=fi ve; session=one; hidden=two; host=three; empty=; bare=",
            ),
            (
                "https://a.example/",
                "session=one; hidden=two; host=three; secure=four; empty=; bare=",
            ),
            ("http://a.co.uk/", ""),
            ("http://localhost:8080/", "local=six"),
            ("http://127.0.0.1/", "address=seven"),
            ("http://other.example/", ""),
        ] {
            assert_eq!(sent(&jar, to), expected, "{to}");
        }
        assert_eq!(jar.changes(), 0);
    }

    #[test]
    fn a_bad_line_of_a_file_is_named_by_its_number_and_not_shown() {
        let good = "a.example\tFALSE\t/\tFALSE\t0\tk\tv\n";
        for (line, expected) in [
            ("a.example FALSE / FALSE 0 k hush", "found 1"),
            ("a.example\tFALSE\t/\tFALSE\t0", "found 5"),
            ("a.example\tFALSE\t/\tFALSE\t0\tk\thush\tx", "found more"),
            ("a.example\tmaybe\t/\tFALSE\t0\tk\thush", "`subdomains`"),
            ("a.example\tFALSE\t/\t1\t0\tk\thush", "`secure`"),
            ("a b\tFALSE\t/\tFALSE\t0\tk\thush", "no host name"),
            ("\tFALSE\t/\tFALSE\t0\tk\thush", "no host name"),
            ("a.example\tFALSE\tp\tFALSE\t0\tk\thush", "begin with `/`"),
            ("a.example\tFALSE\t/\tFALSE\tnever\tk\thush", "since 1970"),
            ("a.example\tFALSE\t/\tFALSE\t0\t\thush", "name is empty"),
            (
                "a.example\tFALSE\t/\tFALSE\t0\tk\thush;x",
                "divides cookies",
            ),
            ("[{\"name\": \"hush\"}]", "found 1"),
        ] {
            let others = read(format!("{good}{line}\n{good}").as_bytes()).unwrap();
            assert_eq!(others.cookies.len(), 1, "{line}");
            let error = read(format!("# nothing else\n{line}\n\n").as_bytes()).unwrap_err();
            assert!(
                error.contains("line 2") && error.contains(expected) && !error.contains("hush"),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn nothing_of_a_jar_is_printed() {
        let mut jar = Jar::default();
        jar.set(&url("http://a.example/"), b"hush=hush", now())
            .unwrap();
        assert!(!format!("{jar:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_a_jar(lines in prop::collection::vec("(?s).{0,80}", 0..5)) {
            let (here, mut jar) = (url("https://w.a.example/x"), Jar::default());
            for line in &lines {
                let _ = jar.set(&here, line.as_bytes(), now());
                let _ = Cookie::of_line(line.as_bytes());
                let _ = date(line.as_bytes());
            }
            jar.header(&here, None, now());
            prop_assert!(jar.header(&url("https://a.example/"), None, now()).is_none() || lines.iter().any(|line| line.to_ascii_lowercase().contains("domain")));
        }
    }
}
