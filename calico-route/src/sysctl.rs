//! Kernel settings of the node, of each workload's interface and of our VXLAN devices.

use std::fmt;

use calico_model::{Family, InterfaceName};

use crate::device::vxlan_device;

/// A kernel setting: a path below `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl {
    path: String,
    device: Option<InterfaceName>,
}

/// The settings of a workload's interface that are looked after: the folder's word, the family, the setting.
const OF_WORKLOADS: [(&str, Family, &str); 8] = [
    ("conf", Family::V4, "proxy_arp"),
    ("conf", Family::V4, "forwarding"),
    ("conf", Family::V4, "rp_filter"),
    ("neigh", Family::V4, "proxy_delay"),
    ("conf", Family::V6, "accept_ra"),
    ("conf", Family::V6, "disable_ipv6"),
    ("conf", Family::V6, "forwarding"),
    ("conf", Family::V6, "proxy_ndp"),
];

impl Sysctl {
    /// Returns the setting by which a node passes packets on.
    #[must_use]
    pub fn forwarding(family: Family) -> Self {
        let path = match family {
            Family::V4 => "net/ipv4/ip_forward",
            Family::V6 => "net/ipv6/conf/all/forwarding",
        };
        Self { path: path.to_owned(), device: None }
    }

    /// Returns a setting of an interface: `conf` or `neigh`, and its name there.
    #[must_use]
    pub fn of_device(device: &InterfaceName, folder: &str, family: Family, setting: &str) -> Self {
        let path = format!("net/ipv{}/{folder}/{device}/{setting}", family.version());
        Self { path, device: Some(device.clone()) }
    }

    /// Returns the setting by which an interface goes without IPv6.
    #[must_use]
    pub fn disable_ipv6(device: &InterfaceName) -> Self {
        Self::of_device(device, "conf", Family::V6, "disable_ipv6")
    }

    /// Reports whether an interface goes without IPv6 where this has a value.
    #[must_use]
    pub fn takes_ipv6_away(&self, value: &str) -> bool {
        value == "1" && self.device.as_ref().is_some_and(|device| *self == Self::disable_ipv6(device))
    }

    /// Walks the settings of our VXLAN devices that are looked after.
    pub fn all_of_tunnels() -> impl Iterator<Item = Sysctl> {
        std::iter::once(Self::disable_ipv6(&vxlan_device(Family::V6)))
    }

    /// Walks the settings of a workload's interface that are looked after.
    pub fn all_of_workload(device: &InterfaceName) -> impl Iterator<Item = Sysctl> {
        OF_WORKLOADS.iter().map(|(folder, family, setting)| Self::of_device(device, folder, *family, setting))
    }

    /// Walks the node's own settings that are looked after.
    pub fn all_of_node() -> impl Iterator<Item = Sysctl> {
        Family::ALL.into_iter().map(Self::forwarding)
    }

    /// Returns the path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the interface the setting is of; `None` is the node's own.
    #[must_use]
    pub fn device(&self) -> Option<&InterfaceName> {
        self.device.as_ref()
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}
