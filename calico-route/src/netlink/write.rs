//! One change to one message.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use calico_model::{Family, InterfaceAddr, InterfaceName, Mac};

use super::VethPair;
use super::codec::{
    AF_BRIDGE, AF_UNSPEC, Batch, IFA_ADDRESS, IFA_F_NODAD, IFA_LABEL, IFA_LOCAL, IFA_PROTO, IFF_UP,
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_NET_NS_FD, IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IFLA_VXLAN_ID, IFLA_VXLAN_LEARNING,
    IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_PORT, NDA_DST, NDA_LLADDR, NLM_F_CREATE,
    NLM_F_EXCL, NLM_F_REPLACE, NTF_SELF, NUD_PERMANENT, RT_SCOPE_LINK, RT_SCOPE_NOWHERE, RT_SCOPE_UNIVERSE,
    RTA_DST, RTA_ENCAP, RTA_ENCAP_TYPE, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PRIORITY,
    RTA_TABLE, RTA_VIA, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWNEIGH, RTM_NEWROUTE, RTN_BLACKHOLE, RTN_UNICAST, RTNH_F_ONLINK, VETH_INFO_PEER, af, attributes,
};
use crate::actual::FdbEntry;
use crate::change::Change;
use crate::device::VxlanParams;
use crate::ownership::{Mark, PROTOCOL};
use crate::route::{Form, Gateway, RouteKey};

const ROUTE_HEADER: usize = 12;
/// The number of `lo` in every namespace.
const LOOPBACK: u32 = 1;

/// The kernel's numbers for devices.
pub(super) trait Indexes {
    /// Returns the number of a device that is known to exist.
    fn index(&self, device: &InterfaceName) -> Option<u32>;
}

/// A device that a change needs and that does not exist.
#[derive(Debug)]
pub(super) struct NoDevice(pub(super) InterfaceName);

type Encoded = Result<(), NoDevice>;

/// Appends the message of a change to a batch. A kernel setting and a device's feature have none: they are
/// written otherwise.
pub(super) fn encode(
    change: &Change,
    sequence: u32,
    indexes: &impl Indexes,
    protocol: u8,
    batch: &mut Batch,
) -> Encoded {
    let mut writer = Writer { sequence, indexes, protocol, batch };
    match change {
        Change::RemoveLink { device } => writer.remove_link(device),
        Change::AddVxlan { device, params, mac, mtu, .. } => writer.add_vxlan(device, params, *mac, *mtu),
        Change::AddIpip { device, .. } => writer.add_ipip(device),
        Change::SetLink { device, mtu, mac } => writer.set_link(device, *mtu, *mac),
        Change::ReleaseLink { device } => writer.release_link(device),
        Change::AddAddress { device, address, mark } => {
            writer.address(RTM_NEWADDR, device, address, mark.as_ref())
        }
        Change::RemoveAddress { device, address } => writer.address(RTM_DELADDR, device, address, None),
        Change::SetNeighbour { device, address, mac } => writer.set_neighbour(device, *address, *mac),
        Change::RemoveNeighbour { device, address } => writer.remove_neighbour(device, *address),
        Change::SetFdb(FdbEntry { device, mac, destination }) => {
            writer.fdb(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, device, *mac, Some(*destination))
        }
        Change::ClearFdb { device, mac } => writer.fdb(RTM_DELNEIGH, 0, device, *mac, None),
        Change::RemoveFdb(FdbEntry { device, mac, destination }) => {
            writer.fdb(RTM_DELNEIGH, 0, device, *mac, Some(*destination))
        }
        Change::AddRoute { key, form } => writer.add_route(NLM_F_CREATE | NLM_F_EXCL, key, form),
        Change::ReplaceRoute { key, form } => writer.add_route(NLM_F_CREATE | NLM_F_REPLACE, key, form),
        Change::RemoveRoute { key, route } => writer.remove_route(key, route.protocol, &route.form),
        Change::SetSysctl { .. } | Change::StopChecksumOffload { .. } => Ok(()),
    }
}

/// Appends the message that makes a veth pair. The peer begins its life in its own namespace, and never appears in this.
pub(super) fn encode_veth(pair: &VethPair<'_>, sequence: u32, batch: &mut Batch) {
    let open = batch.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sequence, &link_header(0, 0));
    let end = |batch: &mut Batch, name: &InterfaceName, mac: Mac| {
        batch.text(IFLA_IFNAME, name.as_str());
        batch.attribute(IFLA_ADDRESS, &mac.0);
        if let Some(mtu) = pair.mtu {
            batch.number(IFLA_MTU, mtu);
        }
        if let Some(queues) = pair.queues {
            batch.number(IFLA_NUM_TX_QUEUES, queues);
            batch.number(IFLA_NUM_RX_QUEUES, queues);
        }
    };
    end(batch, pair.host, pair.host_mac);
    let info = batch.nest(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, "veth");
    let data = batch.nest(IFLA_INFO_DATA);
    let peer = batch.nest(VETH_INFO_PEER);
    batch.header(&link_header(0, 0));
    end(batch, pair.peer, pair.peer_mac);
    batch.attribute(IFLA_NET_NS_FD, &pair.peer_namespace.as_raw_fd().to_ne_bytes());
    batch.end_nest(peer);
    batch.end_nest(data);
    batch.end_nest(info);
    batch.end(open);
}

struct Writer<'w, I> {
    sequence: u32,
    indexes: &'w I,
    /// That of routes that are added.
    protocol: u8,
    batch: &'w mut Batch,
}

impl<I: Indexes> Writer<'_, I> {
    fn index(&self, device: &InterfaceName) -> Result<u32, NoDevice> {
        self.indexes.index(device).ok_or_else(|| NoDevice(device.clone()))
    }

    fn remove_link(&mut self, device: &InterfaceName) -> Encoded {
        let header = link_header(self.index(device)?, 0);
        let open = self.batch.begin(RTM_DELLINK, 0, self.sequence, &header);
        self.batch.end(open);
        Ok(())
    }

    fn add_vxlan(&mut self, device: &InterfaceName, params: &VxlanParams, mac: Mac, mtu: u32) -> Encoded {
        let parent = params.parent.as_ref().map(|parent| self.index(parent)).transpose()?;
        let open = self.begin_new_link(device);
        self.batch.attribute(IFLA_ADDRESS, &mac.0);
        self.batch.number(IFLA_MTU, mtu);
        let info = self.batch.nest(IFLA_LINKINFO);
        self.batch.text(IFLA_INFO_KIND, "vxlan");
        let data = self.batch.nest(IFLA_INFO_DATA);
        self.batch.number(IFLA_VXLAN_ID, params.vni);
        if let Some(parent) = parent {
            self.batch.number(IFLA_VXLAN_LINK, parent);
        }
        match params.local {
            Some(local @ IpAddr::V4(_)) => self.batch.address(IFLA_VXLAN_LOCAL, local),
            Some(local @ IpAddr::V6(_)) => self.batch.address(IFLA_VXLAN_LOCAL6, local),
            None => {}
        }
        self.batch.attribute(IFLA_VXLAN_LEARNING, &[u8::from(params.learning)]);
        self.batch.attribute(IFLA_VXLAN_PORT, &params.port.to_be_bytes());
        self.batch.end_nest(data);
        self.batch.end_nest(info);
        self.batch.end(open);
        Ok(())
    }

    /// Asking for the device by name has the kernel load the module, which makes the device as it starts.
    fn add_ipip(&mut self, device: &InterfaceName) -> Encoded {
        let open = self.begin_new_link(device);
        let info = self.batch.nest(IFLA_LINKINFO);
        self.batch.text(IFLA_INFO_KIND, "ipip");
        self.batch.end_nest(info);
        self.batch.end(open);
        Ok(())
    }

    fn begin_new_link(&mut self, device: &InterfaceName) -> super::codec::Open {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let open = self.batch.begin(RTM_NEWLINK, flags, self.sequence, &link_header(0, 0));
        self.batch.text(IFLA_IFNAME, device.as_str());
        open
    }

    fn set_link(&mut self, device: &InterfaceName, mtu: Option<u32>, mac: Option<Mac>) -> Encoded {
        let header = link_header(self.index(device)?, IFF_UP);
        let open = self.batch.begin(RTM_NEWLINK, 0, self.sequence, &header);
        if let Some(mac) = mac {
            self.batch.attribute(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = mtu {
            self.batch.number(IFLA_MTU, mtu);
        }
        self.batch.end(open);
        Ok(())
    }

    fn release_link(&mut self, device: &InterfaceName) -> Encoded {
        let header = link_header(self.index(device)?, 0);
        let open = self.batch.begin(RTM_NEWLINK, 0, self.sequence, &header);
        self.batch.number(IFLA_MASTER, 0);
        self.batch.end(open);
        Ok(())
    }

    fn address(
        &mut self,
        kind: u16,
        device: &InterfaceName,
        address: &InterfaceAddr,
        mark: Option<&Mark>,
    ) -> Encoded {
        let family = Family::of(address.addr());
        // Nobody else on the far side of a tunnel could object to the address.
        let nodad = if family == Family::V6 && kind == RTM_NEWADDR { IFA_F_NODAD } else { 0 };
        let mut header = vec![af(family), address.prefix_len(), nodad, RT_SCOPE_UNIVERSE];
        header.extend_from_slice(&self.index(device)?.to_ne_bytes());
        let flags = if kind == RTM_NEWADDR { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        let open = self.batch.begin(kind, flags, self.sequence, &header);
        self.batch.address(IFA_LOCAL, address.addr());
        self.batch.address(IFA_ADDRESS, address.addr());
        match mark {
            Some(Mark::Label(label)) => self.batch.text(IFA_LABEL, label),
            Some(Mark::Protocol) => self.batch.attribute(IFA_PROTO, &[PROTOCOL]),
            None => {}
        }
        self.batch.end(open);
        Ok(())
    }

    fn set_neighbour(&mut self, device: &InterfaceName, address: IpAddr, mac: Mac) -> Encoded {
        let header = neighbour_header(af(Family::of(address)), self.index(device)?, NUD_PERMANENT, 0);
        let open = self.batch.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, self.sequence, &header);
        self.batch.address(NDA_DST, address);
        self.batch.attribute(NDA_LLADDR, &mac.0);
        self.batch.end(open);
        Ok(())
    }

    fn remove_neighbour(&mut self, device: &InterfaceName, address: IpAddr) -> Encoded {
        let header = neighbour_header(af(Family::of(address)), self.index(device)?, 0, 0);
        let open = self.batch.begin(RTM_DELNEIGH, 0, self.sequence, &header);
        self.batch.address(NDA_DST, address);
        self.batch.end(open);
        Ok(())
    }

    fn fdb(
        &mut self,
        kind: u16,
        flags: u16,
        device: &InterfaceName,
        mac: Mac,
        destination: Option<IpAddr>,
    ) -> Encoded {
        let header = neighbour_header(AF_BRIDGE, self.index(device)?, NUD_PERMANENT, NTF_SELF);
        let open = self.batch.begin(kind, flags, self.sequence, &header);
        self.batch.attribute(NDA_LLADDR, &mac.0);
        destination.iter().for_each(|destination| self.batch.address(NDA_DST, *destination));
        self.batch.end(open);
        Ok(())
    }

    fn add_route(&mut self, flags: u16, key: &RouteKey, form: &Form) -> Encoded {
        let (kind, scope) = match form {
            Form::Blackhole => (RTN_BLACKHOLE, RT_SCOPE_UNIVERSE),
            Form::Device(_) if key.prefix.family() == Family::V4 => (RTN_UNICAST, RT_SCOPE_LINK),
            Form::Device(_) | Form::Gateways(_) | Form::Other(_) => (RTN_UNICAST, RT_SCOPE_UNIVERSE),
        };
        let header = route_header(key, self.protocol, scope, kind, onlink(form));
        self.route(RTM_NEWROUTE, flags, &header, key, form)
    }

    /// The kernel removes the first route that fits; so that it is the one that is meant, all that is known is named.
    fn remove_route(&mut self, key: &RouteKey, protocol: u8, form: &Form) -> Encoded {
        let kind = match form {
            Form::Blackhole => RTN_BLACKHOLE,
            Form::Device(_) | Form::Gateways(_) => RTN_UNICAST,
            Form::Other(odd) => {
                self.say_back(RTM_DELROUTE, &odd.words);
                return Ok(());
            }
        };
        let header = route_header(key, protocol, RT_SCOPE_NOWHERE, kind, onlink(form));
        self.route(RTM_DELROUTE, 0, &header, key, form)
    }

    /// The kernel lists the hops of a next hop object beside its number, and does not take both.
    fn say_back(&mut self, kind: u16, words: &[u8]) {
        let (header, rest) = words.split_at_checked(ROUTE_HEADER).unwrap_or_default();
        let by_number = attributes(rest).any(|(kind, _)| kind == RTA_NH_ID);
        let of_hops = [RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_ENCAP, RTA_ENCAP_TYPE];
        let open = self.batch.begin(kind, 0, self.sequence, header);
        for (kind, value) in attributes(rest).filter(|(kind, _)| !by_number || !of_hops.contains(kind)) {
            self.batch.attribute(kind, value);
        }
        self.batch.end(open);
    }

    fn route(&mut self, kind: u16, flags: u16, header: &[u8], key: &RouteKey, form: &Form) -> Encoded {
        // Looked up first, because a message that has begun must end.
        let devices: Vec<u32> = form.devices().map(|device| self.index(device)).collect::<Result<_, _>>()?;
        let open = self.batch.begin(kind, flags, self.sequence, header);
        self.batch.address(RTA_DST, key.prefix.addr());
        self.batch.number(RTA_PRIORITY, key.priority);
        self.batch.number(RTA_TABLE, key.table);
        match form {
            // What drops packets is on this device for IPv6, and IPv6 tells two routes apart by nothing else.
            Form::Blackhole if kind == RTM_DELROUTE && key.prefix.family() == Family::V6 => {
                self.oif(&[LOOPBACK]);
            }
            Form::Blackhole | Form::Other(_) => {}
            Form::Device(_) => self.oif(&devices),
            Form::Gateways(gateways) if gateways.len() == 1 => {
                gateways.iter().for_each(|gateway| self.gateway(key, gateway.address));
                self.oif(&devices);
            }
            Form::Gateways(gateways) => {
                let nest = self.batch.nest(RTA_MULTIPATH);
                for (Gateway { address, onlink, .. }, device) in gateways.iter().zip(devices) {
                    let hop = self.batch.hop(if *onlink { RTNH_F_ONLINK } else { 0 }, device);
                    self.gateway(key, *address);
                    self.batch.end_nest(hop);
                }
                self.batch.end_nest(nest);
            }
        }
        self.batch.end(open);
        Ok(())
    }

    fn oif(&mut self, devices: &[u32]) {
        devices.iter().for_each(|device| self.batch.number(RTA_OIF, *device));
    }

    /// A gateway of the other family than the destination is written with its family (RFC 8950).
    fn gateway(&mut self, key: &RouteKey, gateway: IpAddr) {
        match gateway {
            IpAddr::V6(addr) if key.prefix.family() == Family::V4 => {
                let mut value = u16::from(af(Family::V6)).to_ne_bytes().to_vec();
                value.extend_from_slice(&addr.octets());
                self.batch.attribute(RTA_VIA, &value);
            }
            IpAddr::V4(_) | IpAddr::V6(_) => self.batch.address(RTA_GATEWAY, gateway),
        }
    }
}

fn onlink(form: &Form) -> u32 {
    match form {
        Form::Gateways(gateways) if gateways.len() == 1 && gateways.iter().all(|gateway| gateway.onlink) => {
            RTNH_F_ONLINK.into()
        }
        Form::Gateways(_) | Form::Device(_) | Form::Blackhole | Form::Other(_) => 0,
    }
}

/// `struct rtmsg`.
fn route_header(key: &RouteKey, protocol: u8, scope: u8, kind: u8, flags: u32) -> [u8; ROUTE_HEADER] {
    let table = u8::try_from(key.table).unwrap_or(0);
    let f = flags.to_ne_bytes();
    let family = af(key.prefix.family());
    [family, key.prefix.prefix_len(), 0, 0, table, protocol, scope, kind, f[0], f[1], f[2], f[3]]
}

/// `struct ifinfomsg`; `flags` are set and nothing else is changed.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = AF_UNSPEC;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `struct ndmsg`.
fn neighbour_header(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}
