//! How a process that remembers nothing knows its own.
//!
//! Ours are, in the main table: every route with [`PROTOCOL`]; every route over a workload's interface or one of our
//! VXLAN devices, whoever wrote it (the kernel's own excepted); and what BIRD left on `tunl0`. Ours are also the VXLAN
//! devices themselves with all their addresses, neighbours and forwarding entries, the permanent neighbours of
//! workloads' interfaces, those of their addresses that bear [`PROTOCOL`], and the address of `tunl0` that carries our
//! [label](IPIP_LABEL). Everything else is foreign:
//! it is looked at to learn where the host's own routes lead, and never changed.

use calico_model::InterfaceName;
use calico_model::resource::FelixConfiguration;

use crate::device::{Checksums, IPIP, VXLAN, VXLAN_V6};

/// The kernel's protocol number of every route we write, workloads' included: it is what Calico's tunnel routes have,
/// and one number for all makes `ip route show proto 80` the whole answer to "what is Calico's".
pub const PROTOCOL: u8 = 80;

/// The label of our address on `tunl0`, a device that others may use too.
pub const IPIP_LABEL: &str = "tunl0:cali";

/// What an address is known by to whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A label, which begins with the device's name: only of IPv4, and at most 15 bytes.
    Label(String),
    /// [`PROTOCOL`], as routes have it. Kernels before 5.18 give addresses without it: there an address of ours that is
    /// no longer wanted stays for as long as its interface.
    Protocol,
}

/// Routes the kernel makes of itself.
const KERNEL: u8 = 2;
/// BIRD's routes, which older Calico nodes left behind.
const BIRD: u8 = 12;

/// How our own objects are told from others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    workload_prefixes: Vec<String>,
    checksums: Checksums,
}

impl Ownership {
    /// Makes the ownership that a node's configuration says: which interfaces are workloads', and whether checksums are
    /// ours to look after.
    #[must_use]
    pub fn of(settings: &FelixConfiguration) -> Self {
        Self {
            workload_prefixes: settings.interface_prefixes().into_iter().map(str::to_owned).collect(),
            checksums: Checksums::from_setting(settings.feature_detect_override.as_deref()),
        }
    }

    /// Returns who is to compute the checksums of what our VXLAN devices send.
    #[must_use]
    pub fn checksums(&self) -> Checksums {
        self.checksums
    }

    /// Reports whether an interface is a workload's.
    #[must_use]
    pub fn is_workload(&self, device: &InterfaceName) -> bool {
        !self.is_tunnel(device)
            && self.workload_prefixes.iter().any(|p| device.as_str().starts_with(p.as_str()))
    }

    /// Reports whether an interface is one of our VXLAN devices.
    #[must_use]
    pub fn is_tunnel(&self, device: &InterfaceName) -> bool {
        [VXLAN, VXLAN_V6].contains(&device.as_str())
    }

    /// Reports whether everything on a device is ours.
    #[must_use]
    pub fn owns_device(&self, device: &InterfaceName) -> bool {
        self.is_workload(device) || self.is_tunnel(device)
    }

    /// Reports whether a route of the main table is ours, by its protocol and the device it leads over.
    #[must_use]
    pub fn owns_route(&self, protocol: u8, device: Option<&InterfaceName>) -> bool {
        let by_device = device.is_some_and(|device| {
            (self.owns_device(device) && protocol != KERNEL) || (device.as_str() == IPIP && protocol == BIRD)
        });
        protocol == PROTOCOL || by_device
    }
}

impl Default for Ownership {
    fn default() -> Self {
        Self::of(&FelixConfiguration::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_ours_by_protocol_or_by_device() {
        let ours = Ownership::default();
        let device = |name: &str| name.parse::<InterfaceName>().unwrap();
        for (protocol, name, expected) in [
            (80, "eth0", true),
            (3, "eth0", false),
            (12, "eth0", false),
            (3, "cali123", true),
            (2, "cali123", false),
            (4, "vxlan.calico", true),
            (12, "tunl0", true),
            (3, "tunl0", false),
        ] {
            assert_eq!(ours.owns_route(protocol, Some(&device(name))), expected, "{protocol} {name}");
        }
        assert!(ours.owns_route(80, None));
        assert!(!ours.owns_route(3, None));
    }

    #[test]
    fn the_prefixes_are_those_of_the_configuration() {
        let mut settings = FelixConfiguration::new();
        settings.interface_prefix = Some("tap,eni".to_owned());
        let ours = Ownership::of(&settings);
        assert!(ours.is_workload(&"tap0".parse().unwrap()));
        assert!(!ours.is_workload(&"cali0".parse().unwrap()));
    }
}
