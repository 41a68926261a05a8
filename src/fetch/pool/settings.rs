//! `[proxies]` as types.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use url::Url;

use super::super::settings::{duration, parse_proxy, positive};
use crate::local_path::{self, LocalPath};
use crate::target::SafeUrl;

/// `[proxies]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The proxies.
    pub urls: Vec<ProxyUrl>,
    /// A file that names more, a line each.
    #[serde(deserialize_with = "local_path::optional")]
    pub file: Option<LocalPath>,
    /// Remote lists that name more. They may hold credentials.
    #[serde(deserialize_with = "urls")]
    pub lists: Vec<Url>,
    /// How often file and lists are read again; not zero.
    #[serde(deserialize_with = "positive")]
    pub refresh: Duration,
    /// Most proxies.
    pub max: NonZeroUsize,
    /// Which proxy comes next.
    pub rotation: Rotation,
    /// What each proxy has to bring before it is used.
    #[serde(deserialize_with = "url")]
    pub probe_url: Option<Url>,
    /// How often it has to; not zero.
    #[serde(deserialize_with = "positive")]
    pub probe_every: Duration,
    /// Longest silence of a proxy while another one could be asked; not zero.
    #[serde(deserialize_with = "positive")]
    pub patience: Duration,
    /// Failures in a row after which a proxy is set aside.
    pub set_aside_after: NonZeroU32,
    /// For how long, the first time.
    #[serde(deserialize_with = "duration")]
    pub set_aside_for: Duration,
    /// Whether requests go out directly while no proxy works.
    pub fall_back_to_direct: bool,
}

impl Settings {
    /// Whether there is to be a pool.
    pub fn is_configured(&self) -> bool {
        !self.urls.is_empty() || self.file.is_some() || !self.lists.is_empty()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists: Vec<_> = self.lists.iter().map(SafeUrl::new).collect();
        f.debug_struct("Settings")
            .field("urls", &self.urls)
            .field("file", &self.file)
            .field("lists", &lists)
            .field("rotation", &self.rotation)
            .finish_non_exhaustive()
    }
}

/// In which order proxies are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// One after the other.
    RoundRobin,
    /// The one with the smallest share of failures, and of those the one with the fewest requests under way.
    LeastFailures,
    /// Each host of a target has its own, and another one only while that is set aside.
    Sticky,
}

/// The URL of a proxy. Prints as its scheme, host and port: never with credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// `None`: `text` is no URL of a proxy of a known kind.
    pub fn parse(text: &str) -> Option<Self> {
        parse_proxy(text).ok().map(Self::new)
    }

    fn new(mut url: Url) -> Self {
        // Nothing but the authority matters to a proxy, and two that differ elsewhere are one.
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        Self(url)
    }

    pub(in super::super) fn as_url(&self) -> &Url {
        &self.0
    }

    /// The port, which may be that of the scheme.
    pub(super) fn port(&self) -> u16 {
        let usual = if self.0.scheme().starts_with("socks") {
            1080
        } else {
            80
        };
        self.0.port_or_known_default().unwrap_or(usual)
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.0.scheme())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for ProxyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_proxy(&String::deserialize(deserializer)?)
            .map(Self::new)
            .map_err(D::Error::custom)
    }
}

fn http_url<E: serde::de::Error>(text: &str) -> Result<Url, E> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| {
            E::custom("expected an http(s) URL such as \"https://example.org/list.txt\"")
        })
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" => Ok(None),
        text => http_url(text).map(Some),
    }
}

fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| http_url(text)).collect()
}

#[cfg(test)]
pub(super) fn defaults(changes: &str) -> Settings {
    let mut file: toml::Table = include_str!("../../../config/default.toml")
        .parse()
        .unwrap();
    let Some(toml::Value::Table(mut table)) = file.remove("proxies") else {
        panic!("no [proxies]");
    };
    table.extend(changes.parse::<toml::Table>().unwrap());
    table.try_into().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_prints_without_its_credentials_and_without_what_does_not_matter() {
        for (text, shown) in [
            (
                "http://ann:hush@p.example:3128/x?y#z",
                "http://p.example:3128",
            ),
            (
                "socks5h://hush@[2001:db8::1]:1080",
                "socks5h://[2001:db8::1]:1080",
            ),
            ("https://p.example", "https://p.example"),
            ("ann:hush@p.example:3128", "http://p.example:3128"),
        ] {
            let url = ProxyUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hush"));
        }
        for text in [
            "",
            "p.example",
            "ftp://p.example",
            "socks5://",
            "http://",
            // Hosts that the connector does not take, which would go without a proxy then.
            "http://a{b:3128",
            "http://a\"b:3128",
            "socks5://%31.0.0.1:1080",
            "socks5h://a^b",
        ] {
            assert!(ProxyUrl::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn there_is_a_pool_only_where_something_names_proxies() {
        assert!(!defaults("").is_configured());
        for change in [
            "urls = [\"http://p.example:1\"]",
            "file = \"proxies.txt\"",
            "lists = [\"https://p.example/list\"]",
        ] {
            assert!(defaults(change).is_configured(), "{change}");
        }
    }

    #[test]
    fn settings_print_no_secrets() {
        let settings = defaults(
            "urls = [\"http://ann:hush@p.example:1\"]\nlists = [\"https://ann:hush@p.example/list\"]",
        );
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
