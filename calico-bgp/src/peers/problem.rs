//! What cannot be done as resources ask.

use std::net::IpAddr;

use calico_model::AsNumber;
use calico_model::name::Name;

/// Something that cannot be done as asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A password is not known.
    #[error(
        "the session with {peer} is left out: the Secret {name} has no usable entry {key}; a password has 1 to 80 octets"
    )]
    NoPassword {
        /// The peer's name.
        peer: String,
        /// The Secret's.
        name: String,
        /// The entry's.
        key: String,
    },
    /// A filter is not there, or was never valid.
    #[error(
        "nothing is told to or taken from peers with the filter {0}: there is no valid BGPFilter of this name"
    )]
    NoFilter(Name),
    /// Two BGPPeers ask for sessions that cannot both be.
    #[error(
        "the BGPPeer {left_out} is left out on this node for {peer}: the BGPPeer {kept} asks for another session with it, \
         and there is one for each address, whatever its port"
    )]
    Twice {
        /// The peer's address, or the network that peers come from.
        peer: String,
        /// The resource whose session it is.
        kept: Name,
        /// The other one.
        left_out: Name,
    },
    /// A BGPPeer without a password takes the place of a session that has one.
    #[error(
        "the session with {peer} has no password: the BGPPeer {resource} asks for it and names none, in the place of one that \
         has; add the password to it"
    )]
    Unsigned {
        /// The peer's address.
        peer: String,
        /// The resource.
        resource: Name,
    },
    /// A BGPPeer names a node of the mesh with an AS number or a port that the node has not.
    #[error(
        "the BGPPeer {resource} is left out on this node: {peer} is a node with another AS number or port than it names; the \
         session of the node-to-node mesh with it stays"
    )]
    StaysInMesh {
        /// The resource.
        resource: Name,
        /// The address that it names.
        peer: IpAddr,
    },
    /// A BGPPeer names this node with an AS number or a port that the node has not.
    #[error(
        "this node does not peer back with the nodes of the BGPPeer {resource}, which names its address with another AS \
         number or port: the node has the AS number {as_number} and the port {port}"
    )]
    Unanswered {
        /// The resource.
        resource: Name,
        /// The node's AS number.
        as_number: AsNumber,
        /// The port that it listens on.
        port: u16,
    },
    /// Sessions with workloads would be from an IPv6 address that means something only together with an interface.
    #[error(
        "sessions with workloads are left out: {0} is of one link only; set localWorkloadPeeringIPV6 of the \
         BGPConfiguration to one of fd00::/8"
    )]
    LinkLocalForWorkloads(IpAddr),
    /// A node's own IPv6 address is one of that kind.
    #[error(
        "sessions over IPv6 are left out: the node's own address {0} is of one link only; set spec.bgp.ipv6Address of the \
         Node to one that other hosts reach"
    )]
    LinkLocalNode(IpAddr),
}
