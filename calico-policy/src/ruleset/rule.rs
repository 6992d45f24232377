//! One rule: what a packet must be, and what is done with it.

use calico_model::{Cidr, Family, InterfaceName, Protocol};

use super::{ChainName, SetName};
use crate::packet::NewSource;

/// A rule. Every match must hold for the action to be taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What the packet must be.
    pub matches: Vec<Match>,
    /// What is done with it.
    pub action: Action,
}

/// What is done with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The stage is over; the packet goes on to the next.
    Accept,
    /// The packet is gone.
    Drop,
    /// The packet is gone, and its sender is told by ICMP that it reached no port.
    Reject,
    /// The rest of the chain is skipped.
    Return,
    /// The chain is run; if it returns, the next rule is asked.
    Jump(ChainName),
    /// The chain is run in place of the rest of this one.
    Goto(ChainName),
    /// The chain of the packet's interface is run in place of the rest of this one; the next rule is asked when the map
    /// does not hold the interface.
    Dispatch(Bound, SetName),
    /// The chain of the packet's protocol and of one of its ports is run; if it returns, or the map does not hold them, the next
    /// rule is asked.
    DispatchPort(End, SetName),
    /// A line is written to the kernel's log; the next rule is asked.
    Log {
        /// How the line begins: printable, without quotes.
        prefix: Box<str>,
    },
    /// The packet is kept from connection tracking; the next rule is asked.
    Notrack,
    /// The packet is marked as accepted by host policy that came before its later stages; the next rule is asked.
    MarkAccepted,
    /// A mark that somebody else left is taken off; the next rule is asked.
    ClearMark,
    /// The source becomes another.
    SourceNat(NewSource),
}

/// Whether a match holds for what it names, or for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// It is.
    Is,
    /// It is not.
    IsNot,
}

/// One of a packet's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Whether the interface that a packet came in by is meant, or the one that it leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// The one it came in by.
    In,
    /// The one it leaves by.
    Out,
}

/// Which interfaces are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interface {
    /// Those whose name begins so.
    Prefix(InterfaceName),
    /// The one of this name.
    Named(InterfaceName),
    /// Those in the set.
    InSet(SetName),
}

/// Ports that a match names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSet {
    /// From the first to the last, both included.
    Range(u16, u16),
    /// Those in the set.
    InSet(SetName),
}

/// One thing that a packet must be.
///
/// A match that needs something that a packet does not have (a port, an ICMP type, an address of the other family) does not
/// hold, whatever its [`Op`]; rules put a match of the family or protocol before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The address family.
    Family(Family),
    /// The IP protocol.
    Protocol(Op, Protocol),
    /// An end's address is in the network.
    Network(End, Op, Cidr),
    /// An end's address is in the set.
    InSet(End, Family, Op, SetName),
    /// An end's address, with the protocol and that end's port, is in the set.
    SocketInSet(End, Family, Op, SetName),
    /// An end's address, with the protocol and the destination port, is in the set of flows.
    FlowInSet(End, Family, SetName),
    /// An end's port.
    Port(End, Op, PortSet),
    /// The ICMP or ICMPv6 type, from the first to the last.
    IcmpType(Family, Op, u8, u8),
    /// The ICMP or ICMPv6 code.
    IcmpCode(Family, Op, u8),
    /// An interface.
    Interface(Bound, Op, Interface),
    /// The interface it came in by, with its source address, is in the set.
    SourceAllowed(Family, SetName),
    /// It belongs to a tracked flow that was let through, or is an error about one.
    Established,
    /// It belongs to a tracked flow from which the permission was taken back.
    Withdrawn(Op),
    /// It belongs to a tracked flow, whatever became of that, or is an error about one, or connection tracking finds it invalid.
    TrackedOrInvalid,
    /// It is marked as accepted by earlier host policy.
    Accepted,
    /// It goes to an address of the node itself.
    Local,
    /// It comes from an address of the node itself.
    FromLocal,
    /// It belongs to a tracked flow whose destination is translated.
    Translated,
    /// It goes to an anycast address of the node itself (RFC 4291 section 2.6).
    Anycast,
}

impl Op {
    /// Reports whether a match holds of which the named thing does.
    pub(crate) fn says(self, holds: bool) -> bool {
        match self {
            Op::Is => holds,
            Op::IsNot => !holds,
        }
    }
}

impl Rule {
    /// Makes a rule for every packet.
    pub(crate) fn always(action: Action) -> Self {
        Self { matches: Vec::new(), action }
    }

    /// Makes a rule.
    pub(crate) fn when(matches: impl Into<Vec<Match>>, action: Action) -> Self {
        Self { matches: matches.into(), action }
    }
}
