//! The egress guard: which addresses this process may connect to.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::ranges::{self, Range};
use super::settings::Settings;

/// Judges addresses: only the public Internet, unless settings allow more.
///
/// An IPv6 address that carries an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is judged
/// by that one too, since a translator or tunnel on the way may deliver there.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow_all: bool,
    allow: Vec<IpNet>,
}

impl Guard {
    /// A guard by `fetch.private_networks` and `fetch.allow_networks`.
    pub fn new(settings: &Settings) -> Self {
        Self {
            allow_all: settings.private_networks,
            allow: settings.allow_networks.clone(),
        }
    }

    /// Whether a connection to `address` is allowed.
    ///
    /// # Errors
    ///
    /// [`Denied`] says what kind of address it is, and how to allow it.
    pub fn judge(&self, address: IpAddr) -> Result<(), Denied> {
        if self.allow_all || self.is_allowed(address) {
            return Ok(());
        }
        match address {
            IpAddr::V4(v4) => deny(address, ranges::special_v4(v4)),
            IpAddr::V6(v6) => self.judge_v6(v6),
        }
    }

    fn judge_v6(&self, v6: Ipv6Addr) -> Result<(), Denied> {
        let Some(embedded) = ranges::embedded(v6) else {
            return deny(v6.into(), ranges::special_v6(v6));
        };
        for v4 in embedded.addresses.into_iter().flatten() {
            if !self.is_allowed(v4.into()) {
                deny(v6.into(), ranges::special_v4(v4))?;
            }
        }
        // Teredo lies in 2001::/23, which is not reachable as such; its addresses are what counts.
        if embedded.is_alias || embedded.addresses[1].is_some() {
            return Ok(());
        }
        deny(v6.into(), ranges::special_v6(v6))
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }
}

fn deny(address: IpAddr, range: Option<Range>) -> Result<(), Denied> {
    match range {
        Some(range) => Err(Denied { address, range }),
        None => Ok(()),
    }
}

/// The guard denies an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{address}` is not on the public Internet ({purpose}, {network}, {document}); allow it by \
     `--allow-net {address}` or `fetch.allow_networks`, or all such addresses by `--allow-private`; \
     for posted jobs, by `api.allow_networks` or `api.private_networks`",
    purpose = range.purpose, network = range.network, document = range.document
)]
pub struct Denied {
    /// The address.
    pub address: IpAddr,
    /// The special range that it lies in, or the IPv4 address that it carries.
    pub range: Range,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn judge(address: &str) -> Result<(), Denied> {
        Guard::default().judge(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_pass_up_to_the_edges_of_every_range() {
        for address in [
            "1.0.0.0",
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.196.1",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2620:4f:8000::1",
            "2001:1::1",
            "2001:3::1",
            "2001:4:112::1",
            "2001:20::1",
            "2001:30::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "3ffe:ffff::1",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2606:4700::5efe:8.8.8.8",
            "2001:0:808:808::f7f7:f7f7",
        ] {
            assert_eq!(judge(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_address_that_only_looks_like_another_kind_is_named_for_what_it_is() {
        for (address, purpose) in [
            ("127.8.8.8", "loopback"),
            ("::1", "loopback"),
            ("::ffff:10.1.2.3", "private"),
            ("64:ff9b::169.254.169.254", "link-local, cloud metadata"),
            ("255.255.255.255", "broadcast"),
            ("255.255.255.254", "reserved"),
            ("fd00::1", "unique-local"),
            ("::ffff:0:8.8.8.8", "not global unicast"),
        ] {
            assert_eq!(
                judge(address).unwrap_err().range.purpose,
                purpose,
                "{address}"
            );
        }
    }

    #[test]
    fn an_allowed_network_covers_the_other_ways_to_write_it() {
        let guard = Guard {
            allow_all: false,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for address in [
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "64:ff9b::10.1.2.3",
            "2002:a01:203::1",
        ] {
            assert!(guard.judge(address.parse().unwrap()).is_ok(), "{address}");
        }
        for address in [
            "11.0.0.0",
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "fe80::5efe:10.1.2.3",
            "64:ff9b:1::10.1.2.3",
        ] {
            assert_eq!(
                guard.judge(address.parse().unwrap()).is_ok(),
                address == "11.0.0.0",
                "{address}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_wherever_it_is_embedded(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let expected = Guard::default().judge(v4.into()).is_ok();
            let bits = u128::from(bits);
            let public = 0x0808_0808_u128;
            for (form, v6) in [
                ("mapped", 0xffff << 32 | bits),
                ("compatible", bits),
                ("NAT64", 0x0064_ff9b << 96 | bits),
                ("6to4", 0x2002 << 112 | bits << 80 | 1),
                ("ISATAP", 0x2606_4700 << 96 | 0x5efe << 32 | bits),
                ("Teredo client", 0x2001_0000 << 96 | public << 64 | u128::from(!v4.to_bits())),
                ("Teredo server", 0x2001_0000 << 96 | bits << 64 | u128::from(!0x0808_0808_u32)),
            ] {
                let address = Ipv6Addr::from_bits(v6);
                prop_assert_eq!(Guard::default().judge(address.into()).is_ok(), expected, "{} {}", form, address);
            }
        }

        #[test]
        fn nothing_but_global_unicast_and_translations_passes(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if Guard::default().judge(address.into()).is_ok() {
                let is_translation = bits >> 32 == 0xffff || bits >> 32 == 0 || bits >> 32 == 0x0064_ff9b << 64;
                prop_assert!(bits >> 125 == 1 || is_translation);
            }
        }

        #[test]
        fn allowing_all_allows_all(bits: u128, v4: u32) {
            let guard = Guard { allow_all: true, allow: Vec::new() };
            prop_assert!(guard.judge(Ipv6Addr::from_bits(bits).into()).is_ok());
            prop_assert!(guard.judge(Ipv4Addr::from_bits(v4).into()).is_ok());
        }
    }
}
