//! Which addresses may be dialled: those of the public internet, and those that the installation allows. Pure.
//!
//! It is asked about each address that is about to be dialled, not about the name in the URL: a name may resolve to another
//! address a moment later. Ranges: IANA's special-purpose registries (RFC 6890 and its updates), and the networks that carry
//! IPv4 addresses within IPv6 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks that are not dialled, and what they are.
const REFUSED: [(&str, &str); 30] = [
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.31.196.0/24", "reserved"),
    ("192.52.193.0/24", "reserved"),
    ("192.88.99.0/24", "a relay for 6to4"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("::/96", "unspecified, loopback, or carries an IPv4 address"),
    ("64:ff9b:1::/48", "carries an IPv4 address (NAT64)"),
    ("100::/64", "discarded"),
    ("100:0:0:1::/64", "discarded"),
    ("2001::/23", "reserved for protocols"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "carries an IPv4 address (6to4)"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "for segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/9", "link-local or site-local"),
    ("ff00::/8", "multicast"),
];

/// Cheap enough to ask for every connection.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Vec<IpNet>,
    refused: Vec<(IpNet, &'static str)>,
}

/// An address that is not dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is not dialled: it is {what}; where that is meant, allow it by --webhook-allow (CORNJACKET_WEBHOOK_ALLOW)"
)]
pub struct Refused {
    pub address: IpAddr,
    pub what: &'static str,
}

impl Guard {
    /// `allowed`: networks that are dialled whatever they are.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        let parse = |(net, what): (&str, &'static str)| (net.parse().expect("a constant; every one is tested"), what);
        Self { allowed, refused: REFUSED.map(parse).to_vec() }
    }

    /// # Errors
    /// The address is none of the public internet's, and not allowed.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = plain(address);
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match self.refused.iter().find(|(net, _)| net.contains(&address)) {
            Some((_, what)) => Err(Refused { address, what }),
            None => Ok(()),
        }
    }
}

/// An IPv4 address is judged as such, however it is written: also one that NAT64 (RFC 6052) translates, which is how networks
/// without IPv4 reach the rest of the internet.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let within = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => v6.to_ipv4_mapped(),
    };
    within.map_or(address, IpAddr::V4)
}

/// The loopback networks, for who runs the platform and the receiver on one machine.
pub fn loopback() -> Vec<IpNet> {
    let v4 = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
    let v6 = IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128);
    vec![v4, v6]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, address: &str) -> Result<(), &'static str> {
        guard.check(address.parse().unwrap()).map_err(|refused| refused.what)
    }

    #[test]
    fn addresses_of_the_public_internet_are_dialled_and_no_others() {
        let guard = Guard::new(Vec::new());
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.1",
            "100.128.0.0",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(check(&guard, public), Ok(()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(check(&guard, special).is_err(), "{special}");
        }
    }

    #[test]
    fn what_the_installation_allows_is_dialled() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap()]);
        assert_eq!(check(&guard, "10.1.2.3"), Ok(()));
        assert_eq!(check(&guard, "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(check(&guard, "10.2.2.3"), Err("private"));
        let guard = Guard::new(loopback());
        assert_eq!((check(&guard, "127.0.0.1"), check(&guard, "::1")), (Ok(()), Ok(())));
        assert!(check(&guard, "::2").is_err());
    }
}
