//! The tunnel devices: their names, their attributes and what they cost.

use std::fmt;
use std::net::IpAddr;

use calico_model::{Family, InterfaceAddr, InterfaceName, Mac, Name, NodeName};
use regex_lite::Regex;
use sha1::{Digest, Sha1};

/// The VXLAN device for IPv4.
pub const VXLAN: &str = "vxlan.calico";
/// The VXLAN device for IPv6.
pub const VXLAN_V6: &str = "vxlan-v6.calico";
/// The IP-in-IP device: the kernel's own fallback device, which is adopted.
pub const IPIP: &str = "tunl0";

fn device_name(name: &'static str) -> InterfaceName {
    name.parse().expect("the names of our devices are short and plain")
}

/// Returns the name of the VXLAN device of a family.
#[must_use]
pub fn vxlan_device(family: Family) -> InterfaceName {
    device_name(match family {
        Family::V4 => VXLAN,
        Family::V6 => VXLAN_V6,
    })
}

/// Returns the name of the IP-in-IP device.
#[must_use]
pub fn ipip_device() -> InterfaceName {
    device_name(IPIP)
}

/// Returns the MAC address of a node's VXLAN device: `66`, then the first five bytes of the SHA-1 of the node's name
/// (with `-v6` after it for IPv6). Every node can work out every other's.
///
/// # Examples
/// ```
/// use calico_model::Family;
/// let node1 = "node1".parse()?;
/// assert_eq!(calico_route::vxlan_mac(&node1, Family::V4).to_string(), "66:f9:37:c3:7e:94");
/// # Ok::<(), calico_model::ParseError>(())
/// ```
#[must_use]
pub fn vxlan_mac(node: &NodeName, family: Family) -> Mac {
    let suffix = match family {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let digest = Sha1::digest(format!("{node}{suffix}").as_bytes());
    let mut octets = [0x66; 6];
    octets[1..].copy_from_slice(&digest[..5]);
    Mac(octets)
}

/// How packets between nodes are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// IP-in-IP (RFC 2003).
    Ipip,
    /// VXLAN (RFC 7348) over this family.
    Vxlan(Family),
}

impl Tunnel {
    /// Returns the family of the packets that carry the others.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Tunnel::Ipip => Family::V4,
            Tunnel::Vxlan(family) => family,
        }
    }

    /// Returns the name of its device.
    #[must_use]
    pub fn device(self) -> InterfaceName {
        match self {
            Tunnel::Ipip => ipip_device(),
            Tunnel::Vxlan(family) => vxlan_device(family),
        }
    }

    /// Returns the field of the `FelixConfiguration` that has its device's MTU.
    #[must_use]
    pub fn mtu_setting(self) -> &'static str {
        match self {
            Tunnel::Ipip => "ipipMTU",
            Tunnel::Vxlan(Family::V4) => "vxlanMTU",
            Tunnel::Vxlan(Family::V6) => "vxlanMTUV6",
        }
    }

    /// Returns how many bytes the wrapping adds to a packet.
    #[must_use]
    pub fn overhead(self) -> u32 {
        match self {
            Tunnel::Ipip => 20,
            Tunnel::Vxlan(Family::V4) => 50,
            Tunnel::Vxlan(Family::V6) => 70,
        }
    }
}

/// How large the packets of a device may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mtu {
    /// This many bytes.
    Bytes(u32),
    /// As large as the device with the node's address can carry them wrapped.
    Detected,
}

impl Mtu {
    /// Reads a setting, in which 0 and unset mean detection.
    #[must_use]
    pub fn from_setting(setting: Option<u16>) -> Self {
        match setting {
            None | Some(0) => Mtu::Detected,
            Some(bytes) => Mtu::Bytes(bytes.into()),
        }
    }
}

/// Who computes the checksums of what a device sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checksums {
    /// Whoever does now. The kernel leaves it to the hardware where that can.
    #[default]
    AsIs,
    /// The kernel, because the hardware does it wrong for wrapped packets.
    Kernel,
}

impl Checksums {
    /// Reads `featureDetectOverride`, a list of `name=value`: `ChecksumOffloadBroken=true`. Nothing is detected.
    #[must_use]
    pub fn from_setting(overrides: Option<&str>) -> Self {
        let mut overrides = overrides.unwrap_or_default().split(',').filter_map(|each| each.split_once('='));
        let is_broken = |(name, value): (&str, &str)| {
            name.trim() == "ChecksumOffloadBroken" && value.trim().eq_ignore_ascii_case("true")
        };
        if overrides.any(is_broken) { Checksums::Kernel } else { Checksums::AsIs }
    }
}

/// Links by their names: a regular expression, of which some part of a name has to fit.
#[derive(Debug, Clone)]
pub struct LinkPattern(Regex);

impl LinkPattern {
    /// Reads an expression; `None` when it is none.
    #[must_use]
    pub fn parse(expression: &str) -> Option<Self> {
        Regex::new(expression).ok().map(Self)
    }

    /// Reports whether a link is meant.
    #[must_use]
    pub fn matches(&self, link: &InterfaceName) -> bool {
        self.0.is_match(link.as_str())
    }
}

impl PartialEq for LinkPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for LinkPattern {}

/// A VXLAN device that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The node's own address, from which wrapped packets are sent and which says what the parent device is.
    pub local: IpAddr,
    /// The device's MAC address.
    pub mac: Mac,
    /// How large its packets may be.
    pub mtu: Mtu,
    /// The device's own address, a single one.
    pub address: InterfaceAddr,
    /// The pools that need the device.
    pub pools: Vec<Name>,
}

/// The IP-in-IP device as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpipDevice {
    /// How large its packets may be.
    pub mtu: Mtu,
    /// The device's own address, a single one, once the node has one.
    pub address: Option<InterfaceAddr>,
    /// The pools that need the device.
    pub pools: Vec<Name>,
}

/// The attributes of a VXLAN device that cannot be changed: where one differs, the device is made anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VxlanParams {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The address wrapped packets are sent from.
    pub local: Option<IpAddr>,
    /// The device they are sent over.
    pub parent: Option<InterfaceName>,
    /// Whether the device learns MAC addresses from traffic. Ours never do: their peers are known.
    pub learning: bool,
    /// What else it was told, of what ours never are and what would change whom packets reach, or how: as `ip` names it.
    pub others: Vec<&'static str>,
}

impl fmt::Display for VxlanParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {} dstport {}", self.vni, self.port)?;
        if let Some(local) = self.local {
            write!(f, " local {local}")?;
        }
        if let Some(parent) = &self.parent {
            write!(f, " dev {parent}")?;
        }
        f.write_str(if self.learning { " learning" } else { " nolearning" })?;
        self.others.iter().try_for_each(|other| write!(f, " {other}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_of_a_tunnel_is_that_of_calico() {
        let node: NodeName = "node1".parse().unwrap();
        let digest = Sha1::digest(b"node1-v6");
        let Mac(octets) = vxlan_mac(&node, Family::V6);
        assert_eq!(octets[0], 0x66);
        assert_eq!(octets[1..], digest[..5]);
        assert_ne!(vxlan_mac(&node, Family::V4), vxlan_mac(&node, Family::V6));
    }

    #[test]
    fn a_setting_of_zero_detects() {
        assert_eq!(Mtu::from_setting(Some(0)), Mtu::Detected);
        assert_eq!(Mtu::from_setting(None), Mtu::Detected);
        assert_eq!(Mtu::from_setting(Some(1400)), Mtu::Bytes(1400));
    }

    #[test]
    fn only_what_is_said_to_be_broken_is() {
        for (setting, checksums) in [
            (None, Checksums::AsIs),
            (Some(""), Checksums::AsIs),
            (Some("ChecksumOffloadBroken=false"), Checksums::AsIs),
            (Some("SNATFullyRandom=true"), Checksums::AsIs),
            (Some("SNATFullyRandom=false, ChecksumOffloadBroken=true"), Checksums::Kernel),
        ] {
            assert_eq!(Checksums::from_setting(setting), checksums, "{setting:?}");
        }
    }
}
