//! Addresses of peers as data: network groups, ranges, and whom they name. No socket: the types of `core::net` only.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A network group (P4): what one owner of addresses usually has. /24 of IPv4, /48 of IPv6; loopback addresses count singly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first six bytes.
    V6([u8; 6]),
    /// One address of this host.
    Loopback(IpAddr),
}

impl Group {
    /// The group of an address.
    pub fn of(ip: IpAddr) -> Group {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Group::Loopback(ip),
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Group::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Group::V6([a, b, c, d, e, f])
            }
        }
    }

    /// Bytes that name it, for hashing.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Group::V4(bytes) => [&[4], &bytes[..]].concat(),
            Group::V6(bytes) => [&[6], &bytes[..]].concat(),
            Group::Loopback(ip) => [&[0], &bytes_of(*ip)[..]].concat(),
        }
    }
}

/// An address as 16 bytes, IPv4 as an IPv4-mapped address: one form for each address.
pub fn bytes_of(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The address of 16 bytes.
pub fn ip_of(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// The two addresses by which everybody on a host is "this host": tunnels, proxies and other programs all come from there.
pub fn is_this_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// Whether strangers on the Internet could reach this address.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a == 0 || a >= 224;
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared || reserved)
        }
        IpAddr::V6(ip) => {
            // 2000::/3 is what is handed out for the Internet; 2001:db8::/32 is for documents.
            let [a, b, ..] = ip.segments();
            a & 0xe000 == 0x2000 && (a, b) != (0x2001, 0xdb8)
        }
    }
}

/// An address that can be dialled at all.
pub fn is_dialable(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: [u8; 16],
    /// Bits of `first` that count, 0 to 128; IPv4 counts as its mapped form.
    bits: u8,
    v4: bool,
}

impl Range {
    /// The addresses that share `bits` leading bits with `ip` (0 to 32 for IPv4, 0 to 128 for IPv6); `None` beyond.
    pub fn new(ip: IpAddr, bits: u8) -> Option<Range> {
        let v4 = ip.to_canonical().is_ipv4();
        let most = if v4 { 32 } else { 128 };
        let bits = (bits <= most).then_some(if v4 { bits + 96 } else { bits })?;
        let first = masked(bytes_of(ip), bits);
        Some(Range { first, bits, v4 })
    }

    /// What a ban of a stranger at this address covers: the one address; of IPv6 the /64 that every host has to itself.
    pub fn of_stranger(ip: IpAddr) -> Range {
        let v4 = ip.to_canonical().is_ipv4();
        let bits = if v4 { 128 } else { 64 };
        let first = masked(bytes_of(ip), bits);
        Range { first, bits, v4 }
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.to_canonical().is_ipv4() == self.v4 && masked(bytes_of(ip), self.bits) == self.first
    }

    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Option<Range> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let ip: IpAddr = address.parse().ok()?;
        let most = if ip.to_canonical().is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            "" if !text.contains('/') => most,
            bits => bits.parse().ok()?,
        };
        Range::new(ip, bits)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = if self.v4 { self.bits - 96 } else { self.bits };
        write!(f, "{}/{bits}", ip_of(self.first))
    }
}

fn masked(mut bytes: [u8; 16], bits: u8) -> [u8; 16] {
    for (at, byte) in bytes.iter_mut().enumerate() {
        let kept = usize::from(bits).saturating_sub(at * 8).min(8);
        *byte &= (0xff00u16 >> kept) as u8;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_what_shares_their_bits_and_read_as_they_show() {
        for (text, inside, outside) in [
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
            ("10.1.0.0/16", "10.1.255.9", "10.2.0.0"),
            ("0.0.0.0/0", "9.9.9.9", "2001:db9::1"),
            (
                "2001:db8:1:2::/64",
                "2001:db8:1:2:ffff::1",
                "2001:db8:1:3::",
            ),
            ("::/0", "2a00::1", "1.2.3.4"),
        ] {
            let range = Range::parse(text).unwrap();
            assert_eq!(range.to_string(), text);
            assert!(
                range.contains(ip(inside)) && !range.contains(ip(outside)),
                "{text}"
            );
        }
        assert_eq!(Range::parse("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        for bad in [
            "",
            "10.1.2.3/33",
            "10.1.2/24",
            "::1/129",
            "10.1.2.3/",
            "name",
        ] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
        let mapped = ip("::ffff:10.1.2.3");
        assert!(
            Range::of_stranger(mapped).contains(ip("10.1.2.3")),
            "one form"
        );
    }

    #[test]
    fn groups_are_what_one_owner_has() {
        let same = |a, b| Group::of(ip(a)) == Group::of(ip(b));
        assert!(same("10.1.2.3", "10.1.2.200") && !same("10.1.2.3", "10.1.3.3"));
        assert!(same("2001:db8:1::1", "2001:db8:1:ff::2") && !same("2001:db8:1::", "2001:db8:2::"));
        assert!(!same("127.0.0.1", "127.0.0.2"), "loopback counts singly");
        assert!(is_public(ip("8.8.8.8")) && is_public(ip("2a00:1450::1")));
        for near in [
            "10.0.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "fe80::1",
            "fd00::1",
            "::1",
            "0.0.0.0",
        ] {
            assert!(!is_public(ip(near)), "{near}");
        }
        assert_eq!(ip_of(bytes_of(ip("1.2.3.4"))), ip("1.2.3.4"));
    }
}
