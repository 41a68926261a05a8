//! `[hosts]`: settings by host name, and groups of hosts that share limits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use url::Url;

use super::settings::HostSettings;

/// `[hosts]`: settings by host name.
///
/// An exact name wins, then the longest `*.suffix` that the host is a subdomain of.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    settings: HashMap<String, HostSettings>,
    /// Key of the group that a name or pattern belongs to. `None` keeps it out of all groups, also those of shorter
    /// suffixes.
    groups: HashMap<String, Option<String>>,
}

/// `[hosts."NAME"] shared`: which hosts share the limits of pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// All hosts that the name matches, on every port. For a pattern, that is all subdomains.
    All,
    /// None, even if a shorter pattern is shared.
    None,
    /// The hosts that the name matches, and those that these names and patterns match.
    With(Vec<String>),
}

/// A problem with a group: the name in `[hosts]`, the key below it, and a description.
pub(crate) type GroupProblem = (String, &'static str, String);

impl Hosts {
    fn new(settings: HashMap<String, HostSettings>) -> Self {
        let mut groups = HashMap::new();
        for (name, host) in &settings {
            let members: &[String] = match &host.shared {
                None => continue,
                Some(Shared::None) => {
                    groups.insert(name.clone(), None);
                    continue;
                }
                Some(Shared::All) => &[],
                Some(Shared::With(members)) => members,
            };
            for member in std::iter::once(name).chain(members) {
                groups.insert(member.clone(), Some(name.clone()));
            }
        }
        Self { settings, groups }
    }

    /// Returns the settings for `host`, in the form of [`Url::host_str`].
    pub fn get(&self, host: &str) -> Option<&HostSettings> {
        self.key(host).map(|key| &self.settings[key])
    }

    /// Iterates over names and patterns with their settings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostSettings)> {
        self.settings
            .iter()
            .map(|(name, host)| (name.as_str(), host))
    }

    /// Like [`iter`](Self::iter), but mutable. `shared` must not be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut HostSettings)> {
        self.settings
            .iter_mut()
            .map(|(name, host)| (name.as_str(), host))
    }

    /// Returns the name or pattern that applies to `host`.
    pub fn key(&self, host: &str) -> Option<&str> {
        Some(entry(&self.settings, host)?.0)
    }

    /// Returns the name in `[hosts]` of the group that `host` belongs to on any port, or `None` if it is in no group.
    pub fn group(&self, host: &str) -> Option<&str> {
        entry(&self.groups, host)?.1.as_deref()
    }

    /// Returns the key of the limits of pace for `url`: the name of its group, or its own [`authority`].
    pub fn politeness_group<'a>(&'a self, url: &'a Url) -> Cow<'a, str> {
        match self.group(host_name(url).unwrap_or_default()) {
            Some(group) => group.into(),
            None => authority(url),
        }
    }

    /// Returns `true` if an entry of its own sets `robots = true` for a host of `group`.
    pub(crate) fn any_respects_robots(&self, group: &str) -> bool {
        let mut own = self.settings.iter();
        own.any(|(name, host)| host.robots == Some(true) && self.group_of_key(name) == Some(group))
    }

    /// Returns the group of an entry in `[hosts]`. A pattern is in the same group as its subdomains.
    fn group_of_key(&self, name: &str) -> Option<&str> {
        match self.groups.get(name) {
            Some(group) => group.as_deref(),
            None => self.group(name.strip_prefix("*.").map_or(name, |_| &name[1..])),
        }
    }

    /// Returns the first problem with the groups.
    pub(crate) fn group_problem(&self) -> Option<GroupProblem> {
        let mut owners: HashMap<&str, &str> = HashMap::new();
        let mut names: Vec<&str> = self.settings.keys().map(String::as_str).collect();
        names.sort_unstable();
        let group = |name: &str| match &self.settings[name].shared {
            Some(Shared::With(members)) => members.as_slice(),
            _ => &[],
        };
        for &name in &names {
            for member in group(name) {
                let other = owners.insert(member, name).filter(|other| *other != name);
                // A member must not have a `shared` of its own: that starts another group, or opts out of all groups.
                let own = self.settings.get(member).filter(|_| member != name);
                let own = own
                    .and_then(|own| own.shared.as_ref())
                    .map(|_| member.as_str());
                if let Some(other) = other.or(own) {
                    let problem = format!(
                        "names `{member}`, which `hosts.\"{other}\".shared` says something else of"
                    );
                    return Some((name.to_owned(), "shared", problem));
                }
            }
        }
        for &name in &names {
            let host = &self.settings[name];
            let Some(group) = self.group_of_key(name).filter(|group| *group != name) else {
                continue;
            };
            let pace = [
                ("concurrency", host.concurrency.is_some()),
                ("rate", host.rate.is_some()),
                ("max_rate", host.max_rate.is_some()),
                ("crawl_delay_max", host.crawl_delay_max.is_some()),
            ];
            if let Some((key, _)) = pace.into_iter().find(|(_, is_set)| *is_set) {
                let problem = format!(
                    "`{key}` has no effect here, since `{name}` counts as one with `hosts.\"{group}\"`; set it there, or `shared = false` here"
                );
                return Some((name.to_owned(), key, problem));
            }
        }
        None
    }
}

/// Looks `host` up in `map`, by exact name and then by the longest `*.suffix`.
fn entry<'a, V>(map: &'a HashMap<String, V>, host: &str) -> Option<(&'a str, &'a V)> {
    if map.is_empty() {
        return None;
    }
    let host = without_dot(host);
    if let Some((name, value)) = map.get_key_value(host) {
        return Some((name, value));
    }
    // From left to right, so that the longest suffix comes first.
    host.match_indices('.').find_map(|(dot, _)| {
        let (name, value) = map.get_key_value(format!("*{}", &host[dot..]).as_str())?;
        Some((name.as_str(), value))
    })
}

/// Returns the host of `url` in the form that settings, limits and sessions go by: without the dot that may end a
/// complete name.
pub fn host_name(url: &Url) -> Option<&str> {
    url.host_str().map(without_dot)
}

/// `example.org.` and `example.org` are one host.
pub(super) fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns the [`host_name`] of `url`, with the port if it is not the scheme's default.
pub fn authority(url: &Url) -> Cow<'_, str> {
    let host = host_name(url).unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}").into(),
        None => host.into(),
    }
}

/// Returns the scheme, host and port of `url`, by which sessions and connections are told apart.
pub(super) fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

impl FromIterator<(String, HostSettings)> for Hosts {
    /// Keeps names as they are. They must be lower-case ASCII, as in URLs.
    fn from_iter<I: IntoIterator<Item = (String, HostSettings)>>(hosts: I) -> Self {
        Self::new(hosts.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Hosts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of host names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hosts, A::Error> {
                let mut hosts = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let normal =
                        normal_name(&name).ok_or_else(|| A::Error::custom(no_name(&name)))?;
                    if hosts.insert(normal, map.next_value()?).is_some() {
                        return Err(A::Error::custom(format!("host `{name}` is given twice")));
                    }
                }
                Ok(Hosts::new(hosts))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Shared;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`true`, or a list of host names such as [\"a.example.org\", \"*.example.net\"]",
                )
            }
            fn visit_bool<E>(self, is_shared: bool) -> Result<Shared, E> {
                Ok(if is_shared { Shared::All } else { Shared::None })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Shared, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = names.next_element::<String>()? {
                    let normal = normal_name(&name);
                    members.push(normal.ok_or_else(|| A::Error::custom(no_name(&name)))?);
                }
                if members.is_empty() {
                    return Err(A::Error::custom(
                        "expected at least one host name in the list",
                    ));
                }
                Ok(Shared::With(members))
            }
        }
        deserializer.deserialize_any(Members)
    }
}

fn no_name(name: &str) -> String {
    if name == "*" {
        return "`*` is no host name; what `[fetch]` says holds for all hosts".to_owned();
    }
    if name.contains('*') {
        return format!(
            "`{name}` is no host name; a `*` stands only at the start and before a dot, as in `*.example.org`"
        );
    }
    format!(
        "`{name}` is no host name; write `example.org`, `*.example.org` or an address, without scheme, port and path"
    )
}

/// Converts `name` to the form of [`host_name`]: lower case, IDNA, addresses in canonical notation. Nothing but the `*.`
/// of a pattern holds a `*`.
fn normal_name(name: &str) -> Option<String> {
    let (star, host) = match name.strip_prefix("*.") {
        Some(host) => ("*.", host),
        None => ("", name),
    };
    let bracketed = host.parse::<std::net::Ipv6Addr>().is_ok();
    let host = if bracketed {
        url::Host::parse(&format!("[{host}]"))
    } else {
        url::Host::parse(host)
    };
    match host.ok()? {
        url::Host::Domain(domain) if domain.contains('*') || without_dot(&domain).is_empty() => {
            None
        }
        url::Host::Domain(domain) => Some(format!("{star}{}", without_dot(&domain))),
        address if star.is_empty() => Some(address.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_name_and_then_by_the_longest_suffix() {
        let hosts: Hosts = toml::from_str(
            "[\"Example.org\"]\nretries = 1\n[\"*.example.org\"]\nretries = 2\n[\"*.b.example.org\"]\nretries = 3\n\
             [\"*.org.\"]\nretries = 4\n[\"::1\"]\nretries = 5\n[\"b\u{fc}cher.example\"]\nretries = 6",
        )
        .unwrap();
        for (host, expected) in [
            ("example.org", Some(1)),
            ("a.example.org", Some(2)),
            ("a.a.example.org", Some(2)),
            ("b.example.org", Some(2)),
            ("a.b.example.org", Some(3)),
            ("other.org", Some(4)),
            ("notexample.org", Some(4)),
            ("org", None),
            ("example.com", None),
            ("[::1]", Some(5)),
            ("xn--bcher-kva.example", Some(6)),
            ("example.org.", Some(1)),
            ("a.b.example.org.", Some(3)),
            ("org.", None),
        ] {
            assert_eq!(
                hosts.get(host).and_then(|host| host.retries),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn a_host_that_is_none_is_an_error() {
        for name in ["https://a.example", "a.example/x", "*.127.0.0.1", "a b", ""] {
            assert!(
                toml::from_str::<Hosts>(&format!("[\"{name}\"]")).is_err(),
                "{name}"
            );
        }
        assert!(toml::from_str::<Hosts>("[\"a.example\"]\n[\"A.example\"]").is_err());
        assert!(toml::from_str::<Hosts>("[\"a.example\"]\n[\"a.example.\"]").is_err());
    }

    #[test]
    fn a_pattern_that_no_host_matches_is_an_error() {
        for (name, expected) in [
            ("*", "`[fetch]` says holds for all hosts"),
            ("a.*.b", "only at the start"),
            ("*b", "only at the start"),
            ("*.*.b", "only at the start"),
            ("*.", "no host name"),
            (".", "no host name"),
        ] {
            for text in [
                format!("[\"{name}\"]\nrate = 1"),
                format!("[\"a.example\"]\nshared = [\"{name}\"]"),
            ] {
                let error = toml::from_str::<Hosts>(&text).unwrap_err().to_string();
                assert!(error.contains(expected), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_plain_name_may_be_shared_by_its_ports() {
        let hosts: Hosts = toml::from_str("[\"a.example\"]\nshared = true").unwrap();
        for url in ["http://a.example/", "http://a.example.:8080/"] {
            let url = Url::parse(url).unwrap();
            assert_eq!(hosts.politeness_group(&url), "a.example");
        }
    }

    #[test]
    fn a_group_is_found_by_each_of_its_names() {
        let hosts: Hosts = toml::from_str(
            "[\"*.example.org\"]\nshared = true\n[\"own.example.org\"]\nretries = 1\n\
             [\"out.example.org\"]\nshared = false\n[\"*.out.example.org\"]\nshared = false\n\
             [\"*.deep.example.org\"]\nshared = true\n\
             [\"a.example\"]\nshared = [\"B.example\", \"*.c.example\", \"127.0.0.1\", \"::1\", \"b\u{fc}cher.example\"]\n\
             [\"lone.example\"]\nrate = 1",
        )
        .unwrap();
        assert_eq!(hosts.group_problem(), None);
        for (host, expected) in [
            ("a.example.org", Some("*.example.org")),
            ("b.a.example.org", Some("*.example.org")),
            ("own.example.org", Some("*.example.org")),
            ("example.org", None),
            ("out.example.org", None),
            ("a.out.example.org", None),
            ("a.deep.example.org", Some("*.deep.example.org")),
            ("deep.example.org", Some("*.example.org")),
            ("a.example", Some("a.example")),
            ("b.example", Some("a.example")),
            ("x.c.example", Some("a.example")),
            ("c.example", None),
            ("127.0.0.1", Some("a.example")),
            ("[::1]", Some("a.example")),
            ("xn--bcher-kva.example", Some("a.example")),
            ("lone.example", None),
        ] {
            assert_eq!(hosts.group(host), expected, "{host}");
        }
        for (url, expected) in [
            ("http://a.example.org:8080/x", "*.example.org"),
            ("https://b.example/x", "a.example"),
            ("https://lone.example/x", "lone.example"),
            ("http://lone.example:8080/x", "lone.example:8080"),
            ("http://lone.example.:8080/x", "lone.example:8080"),
            ("https://other.example./x", "other.example"),
            ("http://a.example.org.:8080/x", "*.example.org"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(hosts.politeness_group(&url), expected);
        }
    }

    #[test]
    fn groups_that_contradict_each_other_are_errors_of_a_key() {
        for (text, name, key) in [
            (
                "[a]\nshared = [\"x\"]\n[b]\nshared = [\"x\"]",
                "b",
                "shared",
            ),
            (
                "[a]\nshared = [\"b\"]\n[b]\nshared = [\"a\"]",
                "a",
                "shared",
            ),
            ("[a]\nshared = [\"b\"]\n[b]\nshared = false", "a", "shared"),
            ("[a]\nshared = [\"b\"]\n[b]\nrate = 1", "b", "rate"),
            (
                "[\"*.org\"]\nshared = true\n[\"a.org\"]\nper_host = 1",
                "a.org",
                "concurrency",
            ),
            (
                "[a]\nshared = [\"b\"]\n[b]\ncrawl_delay_max = \"1s\"",
                "b",
                "crawl_delay_max",
            ),
            (
                "[\"*.org\"]\nshared = true\n[\"*.a.org\"]\nrate = 1",
                "*.a.org",
                "rate",
            ),
        ] {
            let hosts: Hosts = toml::from_str(text).unwrap();
            let (at, at_key, problem) = hosts.group_problem().unwrap();
            assert_eq!((at.as_str(), at_key), (name, key), "{text}: {problem}");
        }
        for text in [
            "[a]\nshared = []",
            "[a]\nshared = \"b\"",
            "[a]\nshared = [\"b/c\"]",
            "[a]\nshared = 1",
        ] {
            assert!(toml::from_str::<Hosts>(text).is_err(), "{text}");
        }
    }
}
