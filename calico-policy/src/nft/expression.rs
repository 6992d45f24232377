//! Rules as nf_tables expressions: load into a register, compare, look up, decide (`linux/netfilter/nf_tables.h`).

use std::net::IpAddr;

use calico_model::Family;

use super::element::{self, Bytes};
use super::wire::Messages;
use crate::packet::{NewSource, WITHDRAWN_MARK};
use crate::ruleset::{Action, Bound, ChainName, End, Interface, Match, Op, PortSet, Rule, SetName};
use crate::text::ACCEPTED;

/// Routes to the node's own addresses, as the kernel numbers kinds of route (`rtnetlink.h`).
const RTN_LOCAL: u32 = 2;
const RTN_ANYCAST: u32 = 4;
const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_REG32_00`, the first of sixteen registers of four bytes.
const FIRST: u32 = 8;

#[derive(Clone, Copy)]
#[repr(u32)]
enum Meta {
    Mark = 3,
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum ConnectionKey {
    State = 0,
    Status = 2,
    Mark = 3,
}

/// The bits of a connection's state (`nf_conntrack_common.h`).
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
/// The bit of a connection's status that says that its destination is translated: IPS_DST_NAT (`nf_conntrack_common.h`).
const DESTINATION_TRANSLATED: u32 = 1 << 5;

#[derive(Clone, Copy)]
#[repr(u32)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// A verdict with its code: `NF_DROP`, `NF_ACCEPT`, `NFT_RETURN`, ...
pub(super) enum Code<'c> {
    Drop,
    Accept,
    Return,
    Jump(&'c ChainName),
    Goto(&'c ChainName),
}

/// Writes a rule's expressions as list elements.
pub(super) fn rule(out: &mut Messages, rule: &Rule) {
    rule.matches.iter().for_each(|m| Loader { out, next: FIRST }.matches(m));
    let mut loader = Loader { out, next: FIRST };
    match &rule.action {
        Action::Accept => immediate(out, &Code::Accept),
        Action::Drop => immediate(out, &Code::Drop),
        // NFT_REJECT_ICMPX_UNREACH with NFT_REJECT_ICMPX_PORT_UNREACH: of either family.
        Action::Reject => expression(out, "reject", |out| {
            out.number(1, 2);
            out.attribute(2, &[1]);
        }),
        Action::Return => immediate(out, &Code::Return),
        Action::Jump(chain) => immediate(out, &Code::Jump(chain)),
        Action::Goto(chain) => immediate(out, &Code::Goto(chain)),
        Action::Dispatch(bound, map) => {
            loader.meta(interface(*bound), 16);
            dispatch(out, map);
        }
        Action::DispatchPort(end, map) => {
            loader.meta(Meta::Protocol, 1);
            loader.payload(Header::Transport, port_offset(*end), 2);
            dispatch(out, map);
        }
        Action::Log { prefix } => expression(out, "log", |out| out.text(2, prefix)),
        Action::Notrack => expression(out, "notrack", |_| {}),
        Action::MarkAccepted => loader.change_mark(!ACCEPTED, ACCEPTED),
        Action::ClearMark => loader.change_mark(!ACCEPTED, 0),
        Action::SourceNat(new) => loader.source_nat(*new),
    }
}

/// Looks up what was loaded, and does what the map says.
fn dispatch(out: &mut Messages, map: &SetName) {
    expression(out, "lookup", |out| {
        out.text(1, map.as_str());
        out.number(2, FIRST);
        out.number(3, VERDICT);
    });
}

/// Writes a verdict as data: of a rule, or of an element of a map.
pub(super) fn verdict(out: &mut Messages, kind: u16, code: &Code<'_>) {
    let (number, chain) = match code {
        Code::Drop => (0, None),
        Code::Accept => (1, None),
        Code::Jump(chain) => (-3, Some(chain)),
        Code::Goto(chain) => (-4, Some(chain)),
        Code::Return => (-5i32, None),
    };
    out.nest(kind, |out| {
        out.nest(DATA_VERDICT, |out| {
            out.attribute(VERDICT_CODE, &number.to_be_bytes());
            if let Some(chain) = chain {
                out.text(VERDICT_CHAIN, chain.as_str());
            }
        });
    });
}

fn immediate(out: &mut Messages, code: &Code<'_>) {
    expression(out, "immediate", |out| {
        out.number(1, VERDICT);
        verdict(out, 2, code);
    });
}

fn expression(out: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    out.nest(LIST_ELEM, |out| {
        out.text(EXPR_NAME, name);
        out.nest(EXPR_DATA, data);
    });
}

fn value(out: &mut Messages, kind: u16, bytes: &[u8]) {
    out.nest(kind, |out| out.attribute(DATA_VALUE, bytes));
}

fn interface(bound: Bound) -> Meta {
    match bound {
        Bound::In => Meta::InName,
        Bound::Out => Meta::OutName,
    }
}

/// Loads one value after the other into registers, then compares what it has loaded.
struct Loader<'m> {
    out: &'m mut Messages,
    next: u32,
}

impl Loader<'_> {
    fn matches(mut self, m: &Match) {
        match m {
            Match::Family(family) => {
                self.meta(Meta::Family, 1);
                // NFPROTO_IPV4, NFPROTO_IPV6
                self.compare(Op::Is, &[if *family == Family::V4 { 2 } else { 10 }]);
            }
            Match::Protocol(op, protocol) => {
                self.meta(Meta::Protocol, 1);
                self.compare(*op, &[protocol.number()]);
            }
            Match::Network(end, op, net) => {
                self.addr(*end, net.family());
                let bytes = octets(net.addr());
                if !net.is_host() {
                    let mask = (0..bytes.len()).map(|i| prefix_byte(net.prefix_len(), i));
                    self.bitwise(&mask.collect::<Vec<_>>(), &vec![0; bytes.len()]);
                }
                self.compare(*op, &bytes);
            }
            Match::InSet(end, family, op, set) => {
                self.addr(*end, *family);
                self.lookup(*op, set);
            }
            Match::SocketInSet(end, family, op, set) => {
                self.addr(*end, *family);
                self.meta(Meta::Protocol, 1);
                self.payload(Header::Transport, port_offset(*end), 2);
                self.lookup(*op, set);
            }
            Match::FlowInSet(end, family, set) => {
                self.addr(*end, *family);
                self.meta(Meta::Protocol, 1);
                self.payload(Header::Transport, port_offset(End::Destination), 2);
                self.lookup(Op::Is, set);
            }
            Match::Port(end, op, ports) => {
                self.payload(Header::Transport, port_offset(*end), 2);
                match ports {
                    PortSet::Range(first, last) => {
                        self.between(*op, &first.to_be_bytes(), &last.to_be_bytes());
                    }
                    PortSet::InSet(set) => self.lookup(*op, set),
                }
            }
            Match::IcmpType(_, op, first, last) => {
                self.payload(Header::Transport, 0, 1);
                self.between(*op, &[*first], &[*last]);
            }
            Match::IcmpCode(_, op, code) => {
                self.payload(Header::Transport, 1, 1);
                self.compare(*op, &[*code]);
            }
            Match::Interface(bound, op, wanted) => {
                self.meta(interface(*bound), 16);
                match wanted {
                    Interface::Prefix(prefix) => self.compare(*op, prefix.as_str().as_bytes()),
                    Interface::Named(name) => self.compare(*op, &element::interface(name)),
                    Interface::InSet(set) => self.lookup(*op, set),
                }
            }
            Match::SourceAllowed(family, set) => {
                self.meta(Meta::InName, 16);
                self.addr(End::Source, *family);
                self.lookup(Op::Is, set);
            }
            Match::Established => self.state(ESTABLISHED | RELATED),
            Match::Withdrawn(op) => {
                self.connection(ConnectionKey::Mark);
                self.bitwise(&WITHDRAWN_MARK.to_ne_bytes(), &[0; 4]);
                self.compare(*op, &WITHDRAWN_MARK.to_ne_bytes());
            }
            Match::TrackedOrInvalid => self.state(INVALID | ESTABLISHED | RELATED),
            Match::Accepted => {
                self.meta(Meta::Mark, 4);
                self.bitwise(&ACCEPTED.to_ne_bytes(), &[0; 4]);
                self.compare(Op::Is, &ACCEPTED.to_ne_bytes());
            }
            Match::Local => self.address_type(End::Destination, RTN_LOCAL),
            Match::Anycast => self.address_type(End::Destination, RTN_ANYCAST),
            Match::FromLocal => self.address_type(End::Source, RTN_LOCAL),
            Match::Translated => {
                self.connection(ConnectionKey::Status);
                self.bitwise(&DESTINATION_TRANSLATED.to_ne_bytes(), &[0; 4]);
                self.compare(Op::IsNot, &[0; 4]);
            }
        }
    }

    /// What kind of route an address has: NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_SADDR or NFTA_FIB_F_DADDR.
    fn address_type(&mut self, end: End, wanted: u32) {
        let flag = match end {
            End::Source => 1,
            End::Destination => 2,
        };
        let register = self.register(4);
        expression(self.out, "fib", |out| {
            out.number(1, register);
            out.number(2, 3);
            out.number(3, flag);
        });
        self.compare(Op::Is, &wanted.to_ne_bytes());
    }

    /// Reserves registers for a value and returns the first.
    fn register(&mut self, length: u32) -> u32 {
        let register = self.next;
        self.next += length.div_ceil(4);
        register
    }

    fn meta(&mut self, key: Meta, length: u32) {
        let register = self.register(length);
        expression(self.out, "meta", |out| {
            out.number(1, register);
            out.number(2, key as u32);
        });
    }

    fn payload(&mut self, header: Header, offset: u32, length: u32) {
        let register = self.register(length);
        expression(self.out, "payload", |out| {
            out.number(1, register);
            out.number(2, header as u32);
            out.number(3, offset);
            out.number(4, length);
        });
    }

    fn addr(&mut self, end: End, family: Family) {
        let (offset, length) = match (family, end) {
            (Family::V4, End::Source) => (12, 4),
            (Family::V4, End::Destination) => (16, 4),
            (Family::V6, End::Source) => (8, 16),
            (Family::V6, End::Destination) => (24, 16),
        };
        self.payload(Header::Network, offset, length);
    }

    fn compare(&mut self, op: Op, bytes: &[u8]) {
        expression(self.out, "cmp", |out| {
            out.number(1, FIRST);
            out.number(2, u32::from(op == Op::IsNot));
            value(out, 3, bytes);
        });
    }

    fn between(&mut self, op: Op, first: &[u8], last: &[u8]) {
        if first == last {
            return self.compare(op, first);
        }
        expression(self.out, "range", |out| {
            out.number(1, FIRST);
            out.number(2, u32::from(op == Op::IsNot));
            value(out, 3, first);
            value(out, 4, last);
        });
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        expression(self.out, "bitwise", |out| {
            out.number(1, FIRST);
            out.number(2, FIRST);
            out.number(3, mask.len() as u32);
            value(out, 4, mask);
            value(out, 5, xor);
        });
    }

    fn lookup(&mut self, op: Op, set: &SetName) {
        expression(self.out, "lookup", |out| {
            out.text(1, set.as_str());
            out.number(2, FIRST);
            if op == Op::IsNot {
                out.number(5, 1);
            }
        });
    }

    /// Compares the connection state, one bit for each, in host byte order.
    fn state(&mut self, bits: u32) {
        self.connection(ConnectionKey::State);
        self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
        self.compare(Op::IsNot, &[0; 4]);
    }

    /// Loads what connection tracking says.
    fn connection(&mut self, key: ConnectionKey) {
        expression(self.out, "ct", |out| {
            out.number(1, FIRST);
            out.number(2, key as u32);
        });
    }

    /// Translates the source: `masq` to the node's own address, `nat` to another.
    fn source_nat(&mut self, new: NewSource) {
        const MAP_IPS: u32 = 1;
        const PROTO_SPECIFIED: u32 = 2;
        const RANDOM_FULLY: u32 = 16;
        let addr = new.addr.map(|addr| self.constant(&addr.octets()));
        let ports = new.ports.map(|(first, last)| {
            // One port has no last.
            let last = (first != last).then_some(last);
            (self.constant(&first.to_be_bytes()), last.map(|last| self.constant(&last.to_be_bytes())))
        });
        let flags = RANDOM_FULLY | if ports.is_some() { PROTO_SPECIFIED } else { 0 };
        match addr {
            None => expression(self.out, "masq", |out| {
                out.number(1, flags);
                if let Some((first, last)) = ports {
                    out.number(2, first);
                    last.into_iter().for_each(|last| out.number(3, last));
                }
            }),
            Some(addr) => expression(self.out, "nat", |out| {
                // NFT_NAT_SNAT, of NFPROTO_IPV4
                out.number(1, 0);
                out.number(2, 2);
                out.number(3, addr);
                if let Some((first, last)) = ports {
                    out.number(5, first);
                    last.into_iter().for_each(|last| out.number(6, last));
                }
                out.number(7, flags | MAP_IPS);
            }),
        }
    }

    /// Puts a value into a register.
    fn constant(&mut self, bytes: &[u8]) -> u32 {
        let register = self.register(bytes.len() as u32);
        expression(self.out, "immediate", |out| {
            out.number(1, register);
            value(out, 2, bytes);
        });
        register
    }

    fn change_mark(&mut self, keep: u32, add: u32) {
        self.meta(Meta::Mark, 4);
        self.bitwise(&keep.to_ne_bytes(), &add.to_ne_bytes());
        expression(self.out, "meta", |out| {
            out.number(2, Meta::Mark as u32);
            out.number(3, FIRST);
        });
    }
}

fn port_offset(end: End) -> u32 {
    match end {
        End::Source => 0,
        End::Destination => 2,
    }
}

fn prefix_byte(prefix_len: u8, index: usize) -> u8 {
    let bits = usize::from(prefix_len).saturating_sub(index * 8).min(8);
    !(0xff_u16 >> bits) as u8
}

pub(super) fn octets(addr: IpAddr) -> Bytes {
    match addr {
        IpAddr::V4(addr) => Bytes::of(&addr.octets()),
        IpAddr::V6(addr) => Bytes::of(&addr.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_mask_byte_by_byte() {
        let mask = |len| (0..4).map(|i| prefix_byte(len, i)).collect::<Vec<_>>();
        assert_eq!(mask(0), [0, 0, 0, 0]);
        assert_eq!(mask(9), [255, 128, 0, 0]);
        assert_eq!(mask(30), [255, 255, 255, 252]);
        assert_eq!(mask(32), [255, 255, 255, 255]);
    }
}
