//! The form of netlink messages (RFC 3549): headers, attributes and the kernel's numbers for them.
//!
//! Only what route programming needs is here, written and read in place: a route is some sixty bytes, and there may be a
//! hundred thousand of them.

use std::net::IpAddr;

use calico_model::{Cidr, Family, Mac};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;

pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_DELRULE: u16 = 33;
pub(super) const RTM_NEWNETCONF: u16 = 80;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;

pub(super) const NLM_F_REQUEST: u16 = 0x001;
pub(super) const NLM_F_ACK: u16 = 0x004;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x010;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// In an answer: the request is not repeated in full, only its header.
pub(super) const NLM_F_CAPPED: u16 = 0x100;
/// In an answer: attributes follow, one of which may be the kernel's explanation.
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

pub(super) const IFF_UP: u32 = 1;
pub(super) const IFF_LOOPBACK: u32 = 8;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_EXT_MASK: u16 = 29;
pub(super) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(super) const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(super) const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const VETH_INFO_PEER: u16 = 1;
pub(super) const IFLA_VXLAN_ID: u16 = 1;
pub(super) const IFLA_VXLAN_GROUP: u16 = 2;
pub(super) const IFLA_VXLAN_LINK: u16 = 3;
pub(super) const IFLA_VXLAN_LOCAL: u16 = 4;
pub(super) const IFLA_VXLAN_TTL: u16 = 5;
pub(super) const IFLA_VXLAN_TOS: u16 = 6;
pub(super) const IFLA_VXLAN_LEARNING: u16 = 7;
pub(super) const IFLA_VXLAN_LIMIT: u16 = 9;
pub(super) const IFLA_VXLAN_PORT_RANGE: u16 = 10;
pub(super) const IFLA_VXLAN_PROXY: u16 = 11;
pub(super) const IFLA_VXLAN_RSC: u16 = 12;
pub(super) const IFLA_VXLAN_L2MISS: u16 = 13;
pub(super) const IFLA_VXLAN_L3MISS: u16 = 14;
pub(super) const IFLA_VXLAN_PORT: u16 = 15;
pub(super) const IFLA_VXLAN_GROUP6: u16 = 16;
pub(super) const IFLA_VXLAN_LOCAL6: u16 = 17;
pub(super) const IFLA_VXLAN_UDP_CSUM: u16 = 18;
pub(super) const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
pub(super) const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
pub(super) const IFLA_VXLAN_REMCSUM_TX: u16 = 21;
pub(super) const IFLA_VXLAN_REMCSUM_RX: u16 = 22;
pub(super) const IFLA_VXLAN_GBP: u16 = 23;
pub(super) const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
pub(super) const IFLA_VXLAN_LABEL: u16 = 26;
pub(super) const IFLA_VXLAN_GPE: u16 = 27;
pub(super) const IFLA_VXLAN_TTL_INHERIT: u16 = 28;
pub(super) const IFLA_VXLAN_DF: u16 = 29;

pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFA_LABEL: u16 = 3;
pub(super) const IFA_PROTO: u16 = 11;
pub(super) const IFA_F_NODAD: u8 = 0x02;

pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTN_BLACKHOLE: u8 = 6;
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(super) const RT_SCOPE_LINK: u8 = 253;
pub(super) const RT_SCOPE_NOWHERE: u8 = 255;
pub(super) const RTM_F_CLONED: u32 = 0x200;
pub(super) const RTNH_F_ONLINK: u8 = 4;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_PREFSRC: u16 = 7;
pub(super) const RTA_METRICS: u16 = 8;
pub(super) const RTA_MULTIPATH: u16 = 9;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_VIA: u16 = 18;
pub(super) const RTA_ENCAP_TYPE: u16 = 21;
pub(super) const RTA_ENCAP: u16 = 22;
pub(super) const RTA_NH_ID: u16 = 30;

pub(super) const NETCONFA_IFINDEX: u16 = 1;
/// In place of a device's number: the settings that are for all devices.
pub(super) const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;

pub(super) const NUD_PERMANENT: u16 = 0x80;
pub(super) const NTF_SELF: u8 = 0x02;
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
/// These four a VXLAN forwarding entry has only where it is not what the device has.
pub(super) const NDA_PORT: u16 = 6;
pub(super) const NDA_VNI: u16 = 7;
pub(super) const NDA_IFINDEX: u16 = 8;
pub(super) const NDA_NH_ID: u16 = 13;

/// An attribute whose value is attributes again.
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// Requests, written one behind the other into one buffer.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    /// The sequence numbers of the first and the last message.
    sequences: Option<(u32, u32)>,
}

/// A place whose length is filled in when it ends.
#[must_use]
pub(super) struct Open(usize);

impl Batch {
    pub(super) fn sequences(&self) -> Option<(u32, u32)> {
        self.sequences
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a message with the family's own header; it lasts until [`Batch::end`].
    pub(super) fn begin(&mut self, kind: u16, flags: u16, sequence: u32, header: &[u8]) -> Open {
        self.last = self.bytes.len();
        self.sequences = Some((self.sequences.map_or(sequence, |(first, _)| first), sequence));
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        Open(self.last)
    }

    pub(super) fn end(&mut self, open: Open) {
        let len = u32::try_from(self.bytes.len() - open.0).unwrap_or(u32::MAX);
        self.bytes[open.0..open.0 + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    /// Has the kernel answer the last message even when it succeeds.
    pub(super) fn ask_for_answer(&mut self) {
        if self.sequences.is_some() {
            let flags = &mut self.bytes[self.last + 6..self.last + 8];
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub(super) fn address(&mut self, kind: u16, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.attribute(kind, &addr.octets()),
            IpAddr::V6(addr) => self.attribute(kind, &addr.octets()),
        }
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    /// Appends a header that stands before attributes.
    pub(super) fn header(&mut self, header: &[u8]) {
        self.bytes.extend_from_slice(header);
    }

    pub(super) fn nest(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Open(at)
    }

    /// Begins one hop of a multipath route, which has a header of its own (`struct rtnexthop`).
    pub(super) fn hop(&mut self, flags: u8, device: u32) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0, flags, 0]);
        self.bytes.extend_from_slice(&device.to_ne_bytes());
        Open(at)
    }

    pub(super) fn end_nest(&mut self, open: Open) {
        let len = u16::try_from(self.bytes.len() - open.0).unwrap_or(u16::MAX);
        self.bytes[open.0..open.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message as it was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'b> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    pub(super) body: &'b [u8],
}

/// Walks the messages of a datagram; what is cut off at its end is not a message.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            body,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Walks attributes, each with its kind; what is cut off at the end is none.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..len)?;
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

pub(super) fn mac(value: &[u8]) -> Option<Mac> {
    value.try_into().ok().map(Mac)
}

pub(super) fn af(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(super) fn family(af: u8) -> Option<Family> {
    match af {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// Returns the network of a message: a default route carries no address.
pub(super) fn prefix(family: Family, addr: Option<IpAddr>, len: u8) -> Option<Cidr> {
    let unspecified = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    Cidr::holding(addr.unwrap_or(unspecified), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut batch = Batch::default();
        let open = batch.begin(RTM_NEWROUTE, NLM_F_CREATE, 7, &[AF_INET; 12]);
        batch.address(RTA_DST, "10.0.0.1".parse().unwrap());
        let nest = batch.nest(RTA_MULTIPATH);
        batch.attribute(RTA_GATEWAY, &[1, 2, 3]);
        batch.end_nest(nest);
        batch.end(open);
        batch.ask_for_answer();
        let all: Vec<_> = messages(batch.bytes()).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (RTM_NEWROUTE, 7));
        assert_eq!(all[0].flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK);
        let attrs: Vec<_> = attributes(&all[0].body[12..]).collect();
        assert_eq!(attrs[0], (RTA_DST, &[10, 0, 0, 1][..]));
        assert_eq!(attrs[1].0, RTA_MULTIPATH);
        assert_eq!(attributes(attrs[1].1).next(), Some((RTA_GATEWAY, &[1, 2, 3][..])));
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        assert_eq!(messages(&[200, 0, 0, 0, 1, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
