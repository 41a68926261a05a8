//! The address ranges that are not on the public Internet.
//!
//! From IANA's special-purpose registries (RFC 6890, as updated by RFC 8190), the multicast registries, and
//! the address plan of IPv6 (RFC 4291). Ranges that the registries call globally reachable are left out.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A range of addresses, what it is for, and where that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// What the range is for, in words.
    pub purpose: &'static str,
    /// The range in CIDR notation.
    pub network: &'static str,
    /// The document that sets it aside.
    pub document: &'static str,
}

struct V4 {
    first: u32,
    bits: u32,
    range: Range,
}

struct V6 {
    first: u128,
    bits: u32,
    range: Range,
}

const fn v4(
    first: [u8; 4],
    bits: u32,
    network: &'static str,
    purpose: &'static str,
    document: &'static str,
) -> V4 {
    let range = Range {
        purpose,
        network,
        document,
    };
    V4 {
        first: u32::from_be_bytes(first),
        bits,
        range,
    }
}

const fn v6(
    first: u128,
    bits: u32,
    network: &'static str,
    purpose: &'static str,
    document: &'static str,
) -> V6 {
    V6 {
        first,
        bits,
        range: Range {
            purpose,
            network,
            document,
        },
    }
}

#[rustfmt::skip]
const IPV4: &[V4] = &[
    v4([127, 0, 0, 0], 8, "127.0.0.0/8", "loopback", "RFC 1122"),
    v4([10, 0, 0, 0], 8, "10.0.0.0/8", "private", "RFC 1918"),
    v4([172, 16, 0, 0], 12, "172.16.0.0/12", "private", "RFC 1918"),
    v4([192, 168, 0, 0], 16, "192.168.0.0/16", "private", "RFC 1918"),
    v4([169, 254, 0, 0], 16, "169.254.0.0/16", "link-local, cloud metadata", "RFC 3927"),
    v4([100, 64, 0, 0], 10, "100.64.0.0/10", "shared by carriers", "RFC 6598"),
    v4([0, 0, 0, 0], 8, "0.0.0.0/8", "this host on this network", "RFC 791"),
    v4([192, 0, 0, 0], 24, "192.0.0.0/24", "protocol assignments", "RFC 6890"),
    v4([192, 0, 2, 0], 24, "192.0.2.0/24", "documentation", "RFC 5737"),
    v4([192, 88, 99, 0], 24, "192.88.99.0/24", "6to4 relays", "RFC 7526"),
    v4([198, 18, 0, 0], 15, "198.18.0.0/15", "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "198.51.100.0/24", "documentation", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "203.0.113.0/24", "documentation", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "224.0.0.0/4", "multicast", "RFC 5771"),
    v4([255, 255, 255, 255], 32, "255.255.255.255/32", "broadcast", "RFC 919"),
    v4([240, 0, 0, 0], 4, "240.0.0.0/4", "reserved", "RFC 1112"),
    // A public address by the registries, but one that every virtual machine of Azure reaches its host by.
    v4([168, 63, 129, 16], 32, "168.63.129.16/32", "cloud platform", "Azure documentation"),
];

#[rustfmt::skip]
const IPV6: &[V6] = &[
    v6(1, 128, "::1/128", "loopback", "RFC 4291"),
    v6(0, 128, "::/128", "unspecified", "RFC 4291"),
    v6(0xfe80 << 112, 10, "fe80::/10", "link-local", "RFC 4291"),
    v6(0xfc00 << 112, 7, "fc00::/7", "unique-local", "RFC 4193"),
    v6(0xfec0 << 112, 10, "fec0::/10", "site-local", "RFC 3879"),
    v6(0xff00 << 112, 8, "ff00::/8", "multicast", "RFC 4291"),
    v6(0x0064_ff9b_0001 << 80, 48, "64:ff9b:1::/48", "local IPv4 translation", "RFC 8215"),
    v6(0x0100 << 112, 64, "100::/64", "discard only", "RFC 6666"),
    v6(0x0100_0000_0000_0001 << 64, 64, "100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    v6(0x2001_0002 << 96, 48, "2001:2::/48", "benchmarking", "RFC 5180"),
    v6(0x2001_0010 << 96, 28, "2001:10::/28", "ORCHID", "RFC 4843"),
    v6(0x2001_0db8 << 96, 32, "2001:db8::/32", "documentation", "RFC 3849"),
    v6(0x3fff << 112, 20, "3fff::/20", "documentation", "RFC 9637"),
    v6(0x5f00 << 112, 16, "5f00::/16", "segment routing", "RFC 9602"),
];

/// Ranges within 2001::/23 that the registry calls globally reachable.
#[rustfmt::skip]
const REACHABLE_ASSIGNMENTS: &[(u128, u32)] = &[
    (0x2001_0001_0000_0000_0000_0000_0000_0001, 128),
    (0x2001_0001_0000_0000_0000_0000_0000_0002, 128),
    (0x2001_0001_0000_0000_0000_0000_0000_0003, 128),
    (0x2001_0003 << 96, 32),
    (0x2001_0004_0112 << 80, 48),
    (0x2001_0020 << 96, 28),
    (0x2001_0030 << 96, 28),
];

const ASSIGNMENTS: Range = Range {
    purpose: "protocol assignments",
    network: "2001::/23",
    document: "RFC 2928",
};
const NOT_UNICAST: Range = Range {
    purpose: "not global unicast",
    network: "outside 2000::/3",
    document: "RFC 4291",
};

/// The special range that an IPv4 address lies in; `None`: it is on the public Internet.
pub(super) fn special_v4(address: Ipv4Addr) -> Option<Range> {
    let bits = address.to_bits();
    IPV4.iter()
        .find(|entry| (bits ^ entry.first) >> (32 - entry.bits) == 0)
        .map(|entry| entry.range)
}

/// The special range that an IPv6 address lies in by itself, whatever IPv4 address it may carry.
pub(super) fn special_v6(address: Ipv6Addr) -> Option<Range> {
    let bits = address.to_bits();
    let within = |first: u128, length: u32| (bits ^ first) >> (128 - length) == 0;
    if let Some(entry) = IPV6.iter().find(|entry| within(entry.first, entry.bits)) {
        return Some(entry.range);
    }
    if within(0x2001 << 112, 23)
        && !REACHABLE_ASSIGNMENTS
            .iter()
            .any(|&(first, bits)| within(first, bits))
    {
        return Some(ASSIGNMENTS);
    }
    (!within(0x2000 << 112, 3)).then_some(NOT_UNICAST)
}

/// The IPv4 addresses that packets to an IPv6 address may end at, by way of a translator or tunnel.
pub(super) struct Embedded {
    /// The addresses; one, except for Teredo.
    pub(super) addresses: [Option<Ipv4Addr>; 2],
    /// Whether the address is nothing but another way to write the IPv4 address.
    pub(super) is_alias: bool,
}

/// What IPv4 addresses `address` carries; `None`: none.
pub(super) fn embedded(address: Ipv6Addr) -> Option<Embedded> {
    let bits = address.to_bits();
    let at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let alias = |v4| {
        Some(Embedded {
            addresses: [Some(v4), None],
            is_alias: true,
        })
    };
    let tunnel = |v4| {
        Some(Embedded {
            addresses: [Some(v4), None],
            is_alias: false,
        })
    };
    match bits >> 32 {
        // IPv4-mapped, RFC 4291 section 2.5.5.2, and the NAT64 prefix, RFC 6052.
        0xffff | 0x0064_ff9b_0000_0000_0000_0000 => return alias(at(0)),
        // IPv4-compatible, RFC 4291 section 2.5.5.1; `::` and `::1` are none.
        0 if bits > 1 => return alias(at(0)),
        _ => {}
    }
    // 6to4, RFC 3056.
    if bits >> 112 == 0x2002 {
        return tunnel(at(80));
    }
    // Teredo, RFC 4380: the server, and the client with all bits turned over.
    if bits >> 96 == 0x2001_0000 {
        return Some(Embedded {
            addresses: [Some(at(64)), Some(Ipv4Addr::from_bits(!(bits as u32)))],
            is_alias: false,
        });
    }
    // ISATAP, RFC 5214 section 6.1, with the universal bit set or not.
    if matches!((bits >> 32) as u32, 0x0000_5efe | 0x0200_5efe) {
        return tunnel(at(0));
    }
    None
}
