//! One change to a kernel: a value that can be printed, counted, tested and applied.

use std::fmt;
use std::net::IpAddr;

use calico_model::{InterfaceAddr, InterfaceName, Mac, Name};

use crate::actual::FdbEntry;
use crate::device::VxlanParams;
use crate::ownership::{Mark, PROTOCOL};
use crate::route::{Form, Installed, RouteKey};
use crate::sysctl::Sysctl;

/// One change to a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Removes one of our devices, with everything on it.
    RemoveLink {
        /// The device.
        device: InterfaceName,
    },
    /// Makes a VXLAN device.
    AddVxlan {
        /// Its name.
        device: InterfaceName,
        /// What cannot be changed later.
        params: VxlanParams,
        /// Its MAC address.
        mac: Mac,
        /// Its MTU in bytes.
        mtu: u32,
        /// The pools that need it.
        pools: Vec<Name>,
    },
    /// Has the kernel make its IP-in-IP device.
    AddIpip {
        /// Its name.
        device: InterfaceName,
        /// The pools that need it.
        pools: Vec<Name>,
    },
    /// Changes attributes of a device and switches it on.
    SetLink {
        /// The device.
        device: InterfaceName,
        /// The MTU in bytes, when it is to change.
        mtu: Option<u32>,
        /// The MAC address, when it is to change.
        mac: Option<Mac>,
    },
    /// Takes a device out of the bridge, bond or VRF that it was put into.
    ReleaseLink {
        /// The device.
        device: InterfaceName,
    },
    /// Has the kernel compute the checksums of what a device sends, instead of the hardware.
    StopChecksumOffload {
        /// The device.
        device: InterfaceName,
    },
    /// Gives a device an address.
    AddAddress {
        /// The device.
        device: InterfaceName,
        /// The address.
        address: InterfaceAddr,
        /// What it is recognised by.
        mark: Option<Mark>,
    },
    /// Takes an address from a device.
    RemoveAddress {
        /// The device.
        device: InterfaceName,
        /// The address.
        address: InterfaceAddr,
    },
    /// Writes a kernel setting.
    SetSysctl {
        /// The setting.
        sysctl: Sysctl,
        /// Its new value.
        value: String,
    },
    /// Writes a permanent neighbour, over whatever is there.
    SetNeighbour {
        /// The device.
        device: InterfaceName,
        /// The neighbour's address.
        address: IpAddr,
        /// Its MAC address.
        mac: Mac,
    },
    /// Removes a permanent neighbour.
    RemoveNeighbour {
        /// The device.
        device: InterfaceName,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// Writes a forwarding entry, over another one of its MAC address.
    SetFdb(FdbEntry),
    /// Removes whatever a VXLAN device holds of a MAC address.
    ClearFdb {
        /// The device.
        device: InterfaceName,
        /// The MAC address.
        mac: Mac,
    },
    /// Removes a forwarding entry.
    RemoveFdb(FdbEntry),
    /// Adds a route where there is none of its key.
    AddRoute {
        /// The key.
        key: RouteKey,
        /// Where it leads.
        form: Form,
    },
    /// Changes where a route leads, in one step.
    ReplaceRoute {
        /// The key.
        key: RouteKey,
        /// Where it leads from now on.
        form: Form,
    },
    /// Removes a route.
    RemoveRoute {
        /// The key.
        key: RouteKey,
        /// The route; the kernel may hold others of the key.
        route: Installed,
    },
}

impl Change {
    /// Returns the device that the change is about, if there is one; of a route over several, the first.
    #[must_use]
    pub fn device(&self) -> Option<&InterfaceName> {
        match self {
            Change::RemoveLink { device }
            | Change::AddVxlan { device, .. }
            | Change::AddIpip { device, .. }
            | Change::SetLink { device, .. }
            | Change::ReleaseLink { device }
            | Change::StopChecksumOffload { device }
            | Change::AddAddress { device, .. }
            | Change::RemoveAddress { device, .. }
            | Change::SetNeighbour { device, .. }
            | Change::RemoveNeighbour { device, .. }
            | Change::ClearFdb { device, .. } => Some(device),
            Change::SetFdb(entry) | Change::RemoveFdb(entry) => Some(&entry.device),
            Change::SetSysctl { sysctl, .. } => sysctl.device(),
            Change::AddRoute { form, .. }
            | Change::ReplaceRoute { form, .. }
            | Change::RemoveRoute { route: Installed { form, .. }, .. } => form.devices().next(),
        }
    }

    /// Returns what the change is about, in the plural.
    #[must_use]
    pub fn subject(&self) -> &'static str {
        match self {
            Change::RemoveLink { .. }
            | Change::AddVxlan { .. }
            | Change::AddIpip { .. }
            | Change::SetLink { .. }
            | Change::ReleaseLink { .. }
            | Change::StopChecksumOffload { .. } => "devices",
            Change::AddAddress { .. } | Change::RemoveAddress { .. } => "addresses",
            Change::SetSysctl { .. } => "settings",
            Change::SetNeighbour { .. } | Change::RemoveNeighbour { .. } => "neighbours",
            Change::SetFdb(_) | Change::ClearFdb { .. } | Change::RemoveFdb(_) => "forwarding entries",
            Change::AddRoute { .. } | Change::ReplaceRoute { .. } | Change::RemoveRoute { .. } => "routes",
        }
    }

    /// Returns the key of the route that is written in the place of another. What stands beside that one goes first, and is
    /// not to be held back: the kernel refuses the write otherwise.
    #[must_use]
    pub fn replaced(&self) -> Option<RouteKey> {
        if let Change::ReplaceRoute { key, .. } = self { Some(*key) } else { None }
    }
}

/// As `ip`, `bridge` and `ethtool` would be called for it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::RemoveLink { device } => write!(f, "link del {device}"),
            Change::AddVxlan { device, params, mac, mtu, .. } => {
                write!(f, "link add {device} address {mac} mtu {mtu} type vxlan {params}")
            }
            Change::AddIpip { device, .. } => write!(f, "link add {device} type ipip"),
            Change::SetLink { device, mtu, mac } => {
                write!(f, "link set {device}")?;
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                f.write_str(" up")
            }
            Change::ReleaseLink { device } => write!(f, "link set {device} nomaster"),
            Change::StopChecksumOffload { device } => write!(f, "ethtool -K {device} tx off"),
            Change::AddAddress { device, address, mark } => {
                write!(f, "address add {address} dev {device}")?;
                match mark {
                    Some(Mark::Label(label)) => write!(f, " label {label}"),
                    Some(Mark::Protocol) => write!(f, " proto {PROTOCOL}"),
                    None => Ok(()),
                }
            }
            Change::RemoveAddress { device, address } => write!(f, "address del {address} dev {device}"),
            Change::SetSysctl { sysctl, value } => write!(f, "sysctl {sysctl} = {value}"),
            Change::SetNeighbour { device, address, mac } => {
                write!(f, "neigh replace {address} lladdr {mac} dev {device} nud permanent")
            }
            Change::RemoveNeighbour { device, address } => write!(f, "neigh del {address} dev {device}"),
            Change::SetFdb(entry) => {
                write!(f, "fdb replace {} dst {} dev {}", entry.mac, entry.destination, entry.device)
            }
            Change::ClearFdb { device, mac } => write!(f, "fdb del {mac} dev {device}"),
            Change::RemoveFdb(entry) => {
                write!(f, "fdb del {} dst {} dev {}", entry.mac, entry.destination, entry.device)
            }
            Change::AddRoute { key, form } => write!(f, "route add {key} {form}"),
            Change::ReplaceRoute { key, form } => write!(f, "route replace {key} {form}"),
            Change::RemoveRoute { key, route } => write!(f, "route del {key} {}", route.form),
        }
    }
}
