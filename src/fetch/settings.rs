//! `[fetch]` and `[hosts]` as types: a value that parses is usable.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytesize::ByteSize;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{self, Deserializer, Error as _};
use url::Url;

use super::bandwidth::MaxRate;
use super::hosts::{Hosts, Shared};
use super::proxy::Proxy;
use super::refusal::RobotsTag;
use crate::local_path::{self, LocalPath};
use crate::target::SafeUrl;

/// `[fetch]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Requests in flight, over all hosts.
    pub concurrency: NonZeroUsize,
    /// Requests in flight to one host.
    pub per_host: NonZeroUsize,
    /// Requests a second to one host, finite and not negative; 0: no limit.
    #[serde(deserialize_with = "rate")]
    pub rate: f64,
    /// Limit of bytes per second for all bodies from all hosts together, by time of day.
    pub max_rate: MaxRate,
    /// Limit for name resolution, TCP and TLS together; not zero.
    #[serde(deserialize_with = "positive")]
    pub connect_timeout: Duration,
    /// Longest silence: until the first byte of the answer, and between two pieces of the body; not zero.
    #[serde(deserialize_with = "positive")]
    pub idle_timeout: Duration,
    /// Limit for one attempt, from connecting to the last byte; not zero.
    #[serde(deserialize_with = "positive")]
    pub total_timeout: Duration,
    /// Slowest acceptable body in bytes a second; 0: any.
    pub min_speed: ByteSize,
    /// The time over which `min_speed` is averaged; not zero.
    #[serde(deserialize_with = "positive")]
    pub min_speed_window: Duration,
    /// Largest body that is kept, in bytes after content decoding.
    pub max_bytes: ByteSize,
    /// Largest set of response headers: the sum of their names and values.
    pub max_header_bytes: ByteSize,
    /// Most redirects of one target.
    pub redirects: u32,
    /// Further attempts after a failure that another attempt may cure.
    pub retries: u32,
    /// Ceiling of the first wait before another attempt.
    #[serde(deserialize_with = "duration")]
    pub backoff: Duration,
    /// Ceiling of any such wait.
    #[serde(deserialize_with = "duration")]
    pub backoff_max: Duration,
    /// How long a URL that failed is left alone by later jobs.
    pub failure_backoff: FailureBackoff,
    /// Ceiling of any such time.
    #[serde(deserialize_with = "duration")]
    pub failure_backoff_max: Duration,
    /// Longest `Retry-After` that is waited for.
    #[serde(deserialize_with = "duration")]
    pub retry_after_max: Duration,
    /// Connection faults in a row after which a host is given up; 0: never.
    pub host_down_after: u32,
    /// How long a host is given up.
    #[serde(deserialize_with = "duration")]
    pub host_down_for: Duration,
    /// Whether addresses that are not on the public Internet are allowed.
    pub private_networks: bool,
    /// Networks that are allowed although they are not public.
    #[serde(deserialize_with = "networks")]
    pub allow_networks: Vec<IpNet>,
    /// PEM files with certificate authorities that are trusted besides the system's.
    pub ca_files: Vec<LocalPath>,
    /// Which proxy requests go through.
    pub proxy: ProxySetting,
    /// Name servers; empty: the system's.
    #[serde(deserialize_with = "name_servers")]
    pub name_servers: Vec<SocketAddr>,
    /// How long a known URL is not asked again.
    #[serde(deserialize_with = "duration")]
    pub refresh_after: Duration,
    /// Whether to respect robots.txt, `X-Robots-Tag` and 402.
    pub robots: bool,
    /// Product token by which robots.txt and `X-Robots-Tag` address gannet. `None` takes it from the user agent.
    #[serde(deserialize_with = "super::agent::deserialize")]
    pub robots_agent: Option<String>,
    /// Directives of `X-Robots-Tag` to respect.
    pub robots_tags: Vec<RobotsTag>,
    /// Longest `Crawl-delay` to respect. Zero ignores `Crawl-delay`.
    #[serde(deserialize_with = "duration")]
    pub crawl_delay_max: Duration,
    /// The `User-Agent` header.
    #[serde(deserialize_with = "header_value")]
    pub user_agent: HeaderValue,
    /// Bytes of bodies that may wait in memory.
    pub body_memory: ByteSize,
    /// Cookie file in Netscape's format. The chain of each target and list starts with its cookies.
    #[serde(deserialize_with = "local_path::optional")]
    pub cookies_file: Option<LocalPath>,
    /// User names and passwords by host, in the format of `.netrc`. `~/` is the home directory.
    #[serde(deserialize_with = "local_path::optional")]
    pub netrc_file: Option<LocalPath>,
    /// Headers for every request.
    pub headers: Headers,
}

/// How to send user name and password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Basic (RFC 7617) with the first request, Digest (RFC 7616) if the origin asks for it.
    #[default]
    Auto,
    /// Basic only.
    Basic,
    /// Digest only, so that no password is sent in clear.
    Digest,
}

/// `[hosts."NAME"]`: what differs for one host. `None` leaves what `[fetch]` says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSettings {
    /// Requests in flight to this host, in place of `fetch.per_host`, whose name it takes as well.
    #[serde(alias = "per_host")]
    pub concurrency: Option<NonZeroUsize>,
    /// Requests a second to this host.
    #[serde(deserialize_with = "optional_rate")]
    pub rate: Option<f64>,
    /// Limit of bytes per second for bodies from this host, by time of day.
    pub max_rate: Option<MaxRate>,
    /// Which hosts share the limits of pace.
    pub shared: Option<Shared>,
    /// Further attempts.
    pub retries: Option<u32>,
    /// Whether robots.txt is respected.
    pub robots: Option<bool>,
    /// Product token for this host's robots.txt.
    #[serde(deserialize_with = "super::agent::deserialize")]
    pub robots_agent: Option<String>,
    /// Directives of `X-Robots-Tag` to respect.
    pub robots_tags: Option<Vec<RobotsTag>>,
    /// Longest `Crawl-delay` to respect.
    #[serde(deserialize_with = "some_duration")]
    pub crawl_delay_max: Option<Duration>,
    /// Longest silence.
    #[serde(deserialize_with = "some_positive")]
    pub idle_timeout: Option<Duration>,
    /// Limit for one attempt.
    #[serde(deserialize_with = "some_positive")]
    pub total_timeout: Option<Duration>,
    /// Slowest acceptable body in bytes a second; 0: any.
    pub min_speed: Option<ByteSize>,
    /// The time over which `min_speed` is averaged.
    #[serde(deserialize_with = "some_positive")]
    pub min_speed_window: Option<Duration>,
    /// Largest body that is kept.
    pub max_bytes: Option<ByteSize>,
    /// Most redirects of a target of this host.
    pub redirects: Option<u32>,
    /// How long a known URL of this host is not asked again.
    #[serde(deserialize_with = "some_duration")]
    pub refresh_after: Option<Duration>,
    /// The `User-Agent` header.
    #[serde(deserialize_with = "some_header_value")]
    pub user_agent: Option<HeaderValue>,
    /// User name for Basic or Digest authentication.
    pub user: Option<String>,
    /// How to send user name and password.
    pub auth: Option<Auth>,
    /// Password for Basic or Digest authentication.
    pub password: Option<SecretString>,
    /// Bearer token (RFC 6750); goes before user and password.
    pub token: Option<SecretString>,
    /// File that holds the password.
    pub password_file: Option<LocalPath>,
    /// File that holds the token.
    pub token_file: Option<LocalPath>,
    /// Headers for requests to this host only.
    pub headers: Headers,
}

/// What holds for one host: `[fetch]`, as far as `[hosts]` does not say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Effective<'a> {
    fetch: &'a Settings,
    host: Option<&'a HostSettings>,
}

/// How long a URL that failed is left alone by later jobs; the time doubles with each further failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureBackoff {
    /// Failures in a row that cost nothing.
    pub free: u32,
    /// What the next one costs; zero: none ever costs anything.
    pub first: Duration,
}

impl FailureBackoff {
    /// Who starts a job again right after it failed has mended something, and waits for nothing.
    const AUTO: Self = Self {
        free: 5,
        first: Duration::from_secs(300),
    };
}

impl<'de> Deserialize<'de> for FailureBackoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "auto" {
            return Ok(Self::AUTO);
        }
        let first = humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is neither \"auto\" nor a time such as \"10m\""
            ))
        })?;
        Ok(Self { free: 0, first })
    }
}

/// Getters that look at the host first.
macro_rules! effective {
    ($($(#[$doc:meta])* $name:ident: $kind:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> $kind {
            self.host.and_then(|host| host.$name).unwrap_or(self.fetch.$name)
        }
    )*};
}

impl<'a> Effective<'a> {
    effective! {
        /// See [`Settings::rate`].
        rate: f64,
        /// See [`Settings::retries`].
        retries: u32,
        /// See [`Settings::robots`].
        robots: bool,
        /// See [`Settings::crawl_delay_max`].
        crawl_delay_max: Duration,
        /// See [`Settings::idle_timeout`].
        idle_timeout: Duration,
        /// See [`Settings::total_timeout`].
        total_timeout: Duration,
        /// See [`Settings::min_speed`].
        min_speed: ByteSize,
        /// See [`Settings::min_speed_window`].
        min_speed_window: Duration,
        /// See [`Settings::max_bytes`].
        max_bytes: ByteSize,
        /// See [`Settings::redirects`].
        redirects: u32,
        /// See [`Settings::refresh_after`].
        refresh_after: Duration,
    }

    /// See [`failure_backoff`](super::failure_backoff).
    pub fn failure_backoff(&self, failures: u32) -> Duration {
        super::failure_backoff(self.fetch, failures)
    }

    /// See [`Settings::per_host`].
    pub fn concurrency(&self) -> NonZeroUsize {
        let own = self.host.and_then(|host| host.concurrency);
        own.unwrap_or(self.fetch.per_host)
    }

    /// See [`Settings::robots_agent`].
    pub fn robots_agent(&self) -> Option<&'a str> {
        let own = self.host.and_then(|host| host.robots_agent.as_deref());
        own.or(self.fetch.robots_agent.as_deref())
    }

    /// See [`Settings::robots_tags`].
    pub fn robots_tags(&self) -> &'a [RobotsTag] {
        let own = self.host.and_then(|host| host.robots_tags.as_deref());
        own.unwrap_or(&self.fetch.robots_tags)
    }

    /// See [`Settings::user_agent`].
    pub fn user_agent(&self) -> &'a HeaderValue {
        let own = self.host.and_then(|host| host.user_agent.as_ref());
        own.unwrap_or(&self.fetch.user_agent)
    }
}

impl Settings {
    /// What holds for `host`, as [`Url::host_str`] prints it.
    pub fn of_host<'a>(&'a self, hosts: &'a Hosts, host: &str) -> Effective<'a> {
        Effective {
            fetch: self,
            host: hosts.get(host),
        }
    }

    /// Whether connections of the one may serve the other: whatever [`Wire`](super::wire::Wire) is made by is the same, but
    /// for what the files hold that these name.
    pub(super) fn connects_like(&self, other: &Self) -> bool {
        self.concurrency == other.concurrency
            && self.connect_timeout == other.connect_timeout
            && self.max_header_bytes == other.max_header_bytes
            && self.private_networks == other.private_networks
            && self.allow_networks == other.allow_networks
            && self.ca_files == other.ca_files
            && self.proxy == other.proxy
            && self.name_servers == other.name_servers
            && self.user_agent == other.user_agent
    }

    /// What holds for the host of `url`.
    pub fn of<'a>(&'a self, hosts: &'a Hosts, url: &Url) -> Effective<'a> {
        self.of_host(hosts, url.host_str().unwrap_or_default())
    }
}

/// Headers as settings give them, checked, with their values marked as sensitive where a name tells so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub HeaderMap);

impl Headers {
    /// Adds one header; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// When the name or the value cannot stand in a request, or the connection sets that header itself.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        let invalid = |why| InvalidHeader {
            name: name.to_owned(),
            why,
        };
        let header = HeaderName::try_from(name).map_err(|_| invalid("is no header name"))?;
        if UNSETTABLE.contains(&header.as_str()) {
            return Err(invalid("is set by gannet itself"));
        }
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| invalid("has a value with control characters"))?;
        value.set_sensitive(is_secret(&header));
        self.0.insert(header, value);
        Ok(())
    }
}

/// Headers that frame a message or steer the exchange, so that setting them breaks it.
const UNSETTABLE: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "keep-alive",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header of this name is a credential, which must not follow a redirect to another origin.
pub(super) fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "cookie"
        || ["auth", "token", "secret", "key", "session"]
            .iter()
            .any(|word| name.contains(word))
}

/// A header that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header `{name}` {why}")]
pub struct InvalidHeader {
    name: String,
    why: &'static str,
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut headers = Self::default();
        for (name, value) in HashMap::<String, String>::deserialize(deserializer)? {
            headers.insert(&name, &value).map_err(D::Error::custom)?;
        }
        Ok(headers)
    }
}

/// `fetch.proxy`.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum ProxySetting {
    /// What `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// This one for every request. May hold credentials.
    Url(Url),
}

impl fmt::Debug for ProxySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Direct => f.write_str("Direct"),
            Self::Url(url) => f.debug_tuple("Url").field(&SafeUrl::new(url)).finish(),
        }
    }
}

impl<'de> Deserialize<'de> for ProxySetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(Self::Environment),
            "direct" => Ok(Self::Direct),
            text => match parse_proxy(text) {
                Ok(url) => Ok(Self::Url(url)),
                Err(problem) => Err(D::Error::custom(format!(
                    "{problem}; \"direct\" is none, and \"\" those of the environment"
                ))),
            },
        }
    }
}

/// Parses the URL of a proxy whose scheme is supported and which the connector accepts. Without a scheme it is an
/// HTTP proxy, as in curl; it then needs a port, since any word could be a host. `socks://` is SOCKS 4, as in curl.
pub(super) fn parse_proxy(text: &str) -> Result<Url, InvalidProxy> {
    let text = text.trim();
    let bad = |why| InvalidProxy::new(text, why);
    let mut url = match text.contains("://") {
        true => Url::parse(text).map_err(|_| bad("is no URL"))?,
        false => {
            let authority = text.strip_suffix('/').unwrap_or(text);
            let port = authority.rsplit_once(':').map(|(_, port)| port);
            if port.is_none_or(|port| port.contains(['@', ']'])) {
                return Err(bad("has no port"));
            }
            let is_port = |port: &str| {
                port.bytes().all(|digit| digit.is_ascii_digit())
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            };
            if !port.is_some_and(is_port) {
                return Err(bad("has a port that is no number from 1 to 65535"));
            }
            Url::parse(&format!("http://{authority}"))
                .ok()
                .filter(|_| !authority.contains(['/', '?', '#', '\\']))
                .ok_or_else(|| bad("is no HOST:PORT"))?
        }
    };
    if url.scheme() == "socks" && url.set_scheme("socks4").is_err() {
        return Err(bad("is no URL"));
    }
    if !matches!(
        url.scheme(),
        "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h"
    ) {
        return Err(bad("has a scheme of no proxy"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("has no host"));
    }
    match Proxy::of_url(&url) {
        Some(_) => Ok(url),
        None => Err(bad("has a host that cannot be connected to")),
    }
}

/// A text that names no proxy. Prints without credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{shown}` {why}; write HOST:PORT, or a URL such as \"http://proxy.example:3128\" \
     (http, https, socks4, socks4a, socks5 or socks5h)"
)]
pub(super) struct InvalidProxy {
    shown: String,
    why: &'static str,
}

impl InvalidProxy {
    fn new(text: &str, why: &'static str) -> Self {
        // The text may not parse, so the last `@` counts.
        let shown = match text.rsplit_once('@') {
            Some((before, host)) => match before.split_once("://") {
                Some((scheme, _)) => format!("{scheme}://***@{host}"),
                None => format!("***@{host}"),
            },
            None => text.to_owned(),
        };
        Self {
            shown: shown.escape_debug().to_string(),
            why,
        }
    }
}

fn check_rate<E: de::Error>(rate: f64) -> Result<f64, E> {
    if rate.is_finite() && rate >= 0.0 {
        Ok(rate)
    } else {
        Err(E::custom(
            "expected a number of requests a second that is 0 or more",
        ))
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    check_rate(f64::deserialize(deserializer)?)
}

fn optional_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::<f64>::deserialize(deserializer)?
        .map(check_rate)
        .transpose()
}

/// Longer is as good as for ever, and too long overflows the clock.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    humantime_serde::deserialize::<Duration, D>(deserializer).map(|duration| duration.min(LONGEST))
}

pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() {
        return Err(D::Error::custom(
            "expected a duration longer than zero, such as \"30s\"",
        ));
    }
    Ok(duration)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn some_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    positive(deserializer).map(Some)
}

fn some_header_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HeaderValue>, D::Error> {
    header_value(deserializer).map(Some)
}

fn header_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderValue, D::Error> {
    HeaderValue::try_from(String::deserialize(deserializer)?)
        .map_err(|_| D::Error::custom("expected text without control characters"))
}

fn name_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let server = |text: String| {
        let address = text.trim();
        let server = address
            .parse()
            .or_else(|_| address.parse().map(|ip: IpAddr| (ip, 53).into()));
        server.map_err(|_| {
            D::Error::custom(format!(
                "`{address}` is no name server; write an address, or address and port, such as \"192.0.2.1\" or \"[2001:db8::1]:5353\""
            ))
        })
    };
    let servers = Vec::<String>::deserialize(deserializer)?;
    servers.into_iter().map(server).collect()
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| parse_network(text).map_err(D::Error::custom))
        .collect()
}

/// Reads a network such as `10.20.0.0/16`, or a single address.
///
/// # Errors
///
/// When `text` is neither.
pub fn parse_network(text: &str) -> Result<IpNet, InvalidNetwork> {
    text.parse()
        .or_else(|_| {
            text.parse()
                .map(|address: std::net::IpAddr| IpNet::from(address))
        })
        .map_err(|_| InvalidNetwork(text.to_owned()))
}

/// A text that is neither a network nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network; write one such as `10.20.0.0/16` or `fd00::/8`, or an address")]
pub struct InvalidNetwork(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(changes: &str) -> Result<Settings, String> {
        let mut file: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
        let mut table = match file.remove("fetch") {
            Some(toml::Value::Table(table)) => table,
            other => panic!("no [fetch]: {other:?}"),
        };
        table.extend(changes.parse::<toml::Table>().unwrap());
        table
            .try_into()
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn the_defaults_are_usable() {
        let settings = fetch("").unwrap();
        assert_eq!(settings.concurrency.get(), 64);
        assert_eq!(settings.max_bytes.as_u64(), 4 << 30);
        assert!(matches!(settings.proxy, ProxySetting::Environment));
    }

    #[test]
    fn connections_are_shared_only_by_those_who_would_make_the_same() {
        let base = fetch("").unwrap();
        for change in [
            "rate = 5",
            "per_host = 3",
            "retries = 9",
            "robots = true",
            "max_bytes = 1",
            "headers = { A = \"b\" }",
        ] {
            assert!(base.connects_like(&fetch(change).unwrap()), "{change}");
        }
        for change in [
            "private_networks = true",
            "allow_networks = [\"10.0.0.0/8\"]",
            "proxy = \"direct\"",
            "ca_files = [\"ca.pem\"]",
            "name_servers = [\"192.0.2.1:53\"]",
            "connect_timeout = \"9s\"",
            "concurrency = 9",
            "max_header_bytes = 9",
            "user_agent = \"x\"",
        ] {
            assert!(!base.connects_like(&fetch(change).unwrap()), "{change}");
        }
    }

    #[test]
    fn a_proxy_may_be_typed_as_for_curl() {
        for (text, expected) in [
            ("127.0.0.1:3128", "http://127.0.0.1:3128/"),
            ("localhost:3128", "http://localhost:3128/"),
            ("proxy.example:80", "http://proxy.example/"),
            ("[::1]:3128", "http://[::1]:3128/"),
            ("127.0.0.1:3128/", "http://127.0.0.1:3128/"),
            (
                "ann:hush@proxy.example:8080",
                "http://ann:hush@proxy.example:8080/",
            ),
            ("HTTP://proxy.example:3128", "http://proxy.example:3128/"),
            ("https://proxy.example", "https://proxy.example/"),
            ("socks4://10.0.0.1:1080", "socks4://10.0.0.1:1080"),
            ("socks4a://proxy.example", "socks4a://proxy.example"),
            ("socks://proxy.example:1080", "socks4://proxy.example:1080"),
            ("socks5h://ann:hush@[::1]:9", "socks5h://ann:hush@[::1]:9"),
        ] {
            let url = parse_proxy(text).map(String::from);
            assert_eq!(url.as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "proxy.example",
            "3128",
            ":3128",
            "proxy.example:0",
            "proxy.example:99999",
            "a b:3128",
            "proxy.example:3128/path",
            "direct?:1",
            "user@:3128",
            "::1",
        ] {
            assert!(parse_proxy(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_an_error() {
        for (change, expected) in [
            ("rate = -1", "0 or more"),
            ("rate = nan", "0 or more"),
            ("rate = inf", "0 or more"),
            ("concurrency = 0", "nonzero"),
            ("max_rate = \"fast\"", "08:00 512KiB, 19:00 off"),
            ("max_rate = -1", "bytes a second"),
            ("max_rate = 1.5", "bytes a second"),
            ("max_rate = \"8:00 1K, 08:00 off\"", "is there twice"),
            ("robots_agent = \"Picture Bot/2\"", "PictureBot"),
            ("robots_tags = [\"noia\"]", "noai"),
            ("idle_timeout = \"0s\"", "longer than zero"),
            ("idle_timeout = \"soon\"", "duration"),
            ("max_bytes = \"much\"", "much"),
            ("allow_networks = [\"10.0.0.0/40\"]", "10.20.0.0/16"),
            ("allow_networks = [\"example.org\"]", "10.20.0.0/16"),
            ("proxy = \"ftp://user:hush@proxy.example\"", "socks5"),
            ("proxy = \"proxy.example\"", "HOST:PORT"),
            ("proxy = \"user:hush@proxy.example:http\"", "HOST:PORT"),
            (
                "proxy = \"socks6://proxy.example:1080\"",
                "`socks6://proxy.example:1080` has a scheme",
            ),
            ("proxy = \"proxy.example\"", "`proxy.example` has no port"),
            (
                "proxy = \"user:hush@proxy.example\"",
                "`***@proxy.example` has no port",
            ),
            ("proxy = \"http://a{b:3128\"", "socks5"),
            ("proxy = \"socks5://%31:hush@%31.0.0.1:1\"", "socks5"),
            ("user_agent = \"a\\nb\"", "control characters"),
            ("[headers]\nHost = \"a\"", "set by gannet"),
            ("[headers]\n\"a b\" = \"c\"", "no header name"),
            ("timeout = \"3s\"", "unknown field"),
        ] {
            let error = fetch(change).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("hush"),
                "{change}: {error}"
            );
        }
    }

    #[test]
    fn settings_print_no_secrets() {
        let settings = fetch(
            "proxy = \"http://user:hush@proxy.example\"\n[headers]\nAuthorization = \"hush\"\nX-Api-Key = \"hush\"",
        );
        let hosts: Hosts =
            toml::from_str("[\"a.example\"]\nuser = \"u\"\npassword = \"hush\"\ntoken = \"hush\"")
                .unwrap();
        let text = format!("{:?} {hosts:?}", settings.unwrap());
        assert!(!text.contains("hush"), "{text}");
    }
}
