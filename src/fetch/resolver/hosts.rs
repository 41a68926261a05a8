//! The hosts file: hosts(5).

use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses by name, as in `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hosts(HashMap<Box<str>, Vec<IpAddr>>);

impl Hosts {
    /// Lines that do not begin with an address are ignored, as in glibc.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut names: HashMap<Box<str>, Vec<IpAddr>> = HashMap::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split_once('#').map_or(line, |(line, _)| line);
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
                continue;
            };
            for name in words {
                let addresses = names.entry(name.to_ascii_lowercase().into()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(names)
    }

    /// Returns the addresses of `name`, which must be in lower case, from all lines and of both families. `None` if
    /// no line has the name. A family that is missing here is missing: name servers are not asked for it.
    pub(super) fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_of_all_of_its_lines() {
        let hosts = Hosts::parse(
            b"\xef\xbb\xbf127.0.0.1\tlocalhost  # loopback\n\
              #127.0.0.9 commented\n\
              \n\
              not-an-address a.test\n\
              127.1 short.test\n\
              fe80::1%lo scoped.test\n\
              10.0.0.1 Both.Test alias_1 -dash.test\r\n\
              ::1 both.test\n\
              10.0.0.2 both.test\n\
              10.0.0.1 both.test\n\
              10.0.0.3 dotted.test.\n\
              10.0.0.4 \xff\xfe after\n\
              \t10.0.0.5   indented.test",
        );
        for (name, expected) in [
            ("localhost", Some(vec!["127.0.0.1"])),
            ("commented", None),
            ("a.test", None),
            ("short.test", None),
            ("scoped.test", None),
            ("both.test", Some(vec!["10.0.0.1", "::1", "10.0.0.2"])),
            ("alias_1", Some(vec!["10.0.0.1"])),
            ("-dash.test", Some(vec!["10.0.0.1"])),
            ("dotted.test", None),
            ("dotted.test.", Some(vec!["10.0.0.3"])),
            ("after", Some(vec!["10.0.0.4"])),
            ("indented.test", Some(vec!["10.0.0.5"])),
            ("#", None),
        ] {
            let expected: Option<Vec<IpAddr>> =
                expected.map(|addresses| addresses.iter().map(|a| a.parse().unwrap()).collect());
            assert_eq!(hosts.get(name), expected.as_deref(), "{name}");
        }
    }
}
