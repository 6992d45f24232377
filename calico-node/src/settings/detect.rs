//! Finding a node's address among those of its interfaces.

use std::net::{IpAddr, UdpSocket};
use std::str::FromStr;

use calico_model::{Cidr, Family, InterfaceAddr, ParseError};
use regex_lite::Regex;

/// An address that an interface of this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddr {
    /// The interface.
    pub interface: String,
    /// The address with the length of its subnet's prefix.
    pub addr: InterfaceAddr,
}

/// Interfaces that are never a node's own, as regular expressions.
pub const SKIPPED_BY_DEFAULT: &[&str] = &[
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^podman.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo",
    "^br-.*",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^vxlan\\.calico.*",
    "^vxlan-v6\\.calico.*",
    "^wireguard\\.cali.*",
    "^wg-v6\\.cali.*",
    "^nodelocaldns.*",
];

/// How an address is chosen.
#[derive(Debug, Clone)]
pub enum Detection {
    /// The first usable address, interfaces walked from the last to the first.
    FirstFound,
    /// The source address of packets to this one: `can-reach=ADDRESS`.
    CanReach(IpAddr),
    /// The first address of an interface that one of these matches: `interface=REGEX,...`.
    Interface(Vec<Regex>),
    /// The first address of an interface that none of these matches: `skip-interface=REGEX,...`.
    SkipInterface(Vec<Regex>),
    /// The first address inside one of these: `cidr=NET,...`.
    Cidr(Vec<Cidr>),
}

impl PartialEq for Detection {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl FromStr for Detection {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault = || {
            ParseError::new(
                text,
                "first-found, can-reach=ADDRESS, interface=REGEX,..., skip-interface=REGEX,... or cidr=NETWORK,...",
            )
        };
        let (method, argument) = text.split_once('=').unwrap_or((text, ""));
        let regexes =
            || argument.split(',').map(Regex::new).collect::<Result<Vec<_>, _>>().map_err(|_| fault());
        match method {
            "first-found" if argument.is_empty() => Ok(Self::FirstFound),
            "can-reach" => argument.parse().map(Self::CanReach).map_err(|_| fault()),
            "interface" if !argument.is_empty() => regexes().map(Self::Interface),
            "skip-interface" if !argument.is_empty() => regexes().map(Self::SkipInterface),
            "cidr" => {
                let nets: Result<_, ParseError> = argument.split(',').map(str::parse).collect();
                nets.map(Self::Cidr).map_err(|_| fault())
            }
            _ => Err(fault()),
        }
    }
}

impl Detection {
    /// Chooses an address of a family among those of this machine, which are in the kernel's order.
    #[must_use]
    pub fn choose(&self, family: Family, addrs: &[HostAddr]) -> Option<InterfaceAddr> {
        let skipped = compiled(SKIPPED_BY_DEFAULT);
        let usable = |host: &&HostAddr| Family::of(host.addr.addr()) == family && is_global(host.addr.addr());
        let mut backwards = addrs.iter().rev().filter(usable);
        let matched = |regexes: &[Regex], name: &str| regexes.iter().any(|regex| regex.is_match(name));
        let found = match self {
            Self::FirstFound => backwards.find(|host| !matched(&skipped, &host.interface)),
            Self::Interface(wanted) => backwards.find(|host| matched(wanted, &host.interface)),
            Self::SkipInterface(unwanted) => backwards
                .find(|host| !matched(&skipped, &host.interface) && !matched(unwanted, &host.interface)),
            Self::Cidr(nets) => backwards.find(|host| nets.iter().any(|net| net.contains(host.addr.addr()))),
            Self::CanReach(target) => {
                let source = source_towards(*target)?;
                backwards.find(|host| host.addr.addr() == source)
            }
        };
        found.map(|host| host.addr)
    }
}

fn compiled(patterns: &[&str]) -> Vec<Regex> {
    patterns.iter().map(|pattern| Regex::new(pattern).expect("a constant pattern")).collect()
}

fn is_global(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified())
        }
    }
}

/// Asks the kernel which source address it would use: a connected UDP socket sends nothing.
fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((target, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Reads the addresses of this machine's interfaces (of the calling thread's network namespace), in the kernel's order.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn host_addrs() -> std::io::Result<Vec<HostAddr>> {
    let mut addrs = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let ip = interface.address.as_ref().and_then(ip_of);
        let mask = interface.netmask.as_ref().and_then(ip_of);
        if let (Some(ip), Some(mask)) = (ip, mask) {
            let prefix_len = match mask {
                IpAddr::V4(mask) => u32::from(mask).count_ones(),
                IpAddr::V6(mask) => u128::from(mask).count_ones(),
            };
            if let Some(addr) = u8::try_from(prefix_len).ok().and_then(|len| InterfaceAddr::new(ip, len)) {
                addrs.push(HostAddr { interface: interface.interface_name, addr });
            }
        }
    }
    Ok(addrs)
}

fn ip_of(storage: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs() -> Vec<HostAddr> {
        [
            ("lo", "127.0.0.1/8"),
            ("eth0", "172.16.6.47/24"),
            ("eth0", "fd00::1/64"),
            ("eth1", "10.0.0.1/8"),
            ("docker0", "172.17.0.1/16"),
        ]
        .map(|(interface, addr)| HostAddr { interface: interface.to_owned(), addr: addr.parse().unwrap() })
        .to_vec()
    }

    fn chosen(method: &str, family: Family) -> Option<String> {
        method.parse::<Detection>().unwrap().choose(family, &addrs()).map(|addr| addr.to_string())
    }

    #[test]
    fn each_method_chooses_its_address() {
        assert_eq!(chosen("first-found", Family::V4).as_deref(), Some("10.0.0.1/8"));
        assert_eq!(chosen("first-found", Family::V6).as_deref(), Some("fd00::1/64"));
        assert_eq!(chosen("interface=eth0,wlan.*", Family::V4).as_deref(), Some("172.16.6.47/24"));
        assert_eq!(chosen("skip-interface=eth1", Family::V4).as_deref(), Some("172.16.6.47/24"));
        assert_eq!(chosen("cidr=172.16.0.0/12", Family::V4).as_deref(), Some("172.17.0.1/16"));
        assert_eq!(chosen("interface=wlan0", Family::V4), None);
    }

    #[test]
    fn methods_that_do_not_exist_are_refused() {
        for text in ["", "guess", "interface=", "cidr=x", "can-reach=host", "interface=("] {
            assert!(text.parse::<Detection>().is_err(), "{text}");
        }
    }
}
