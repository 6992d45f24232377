//! One pure call from what is known to everything that is wanted on this node, but for rules, which a compiler keeps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use calico_bgp::{Origination, PeerConfig, SpeakerConfig, peers};
use calico_model::{Cidr, LearnedRoutes, NodeName, Snapshot};

use crate::settings::Backend;

/// Everything that is wanted on a node beside rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Where it goes.
    pub routes: calico_route::Desired,
    /// Who else is told; `None` when BGP is off or the node has no address to speak from.
    pub bgp: Option<BgpDesired>,
}

/// What the BGP speaker is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct BgpDesired {
    /// Its own settings, which cannot be changed without ending every session.
    pub speaker: SpeakerConfig,
    /// Where it listens, which cannot either.
    pub listen: Vec<SocketAddr>,
    /// The sessions.
    pub peers: Vec<PeerConfig>,
    /// The prefixes that begin here.
    pub originated: BTreeMap<Cidr, Origination>,
}

/// Works out everything that is wanted on a node beside rules. Pure.
#[must_use]
pub fn desired(snapshot: &Snapshot, node: &NodeName, learned: &LearnedRoutes, backend: Backend) -> Desired {
    let bgp = match backend {
        Backend::None => None,
        Backend::Bgp => peers::speaker(snapshot, node).map(|speaker| BgpDesired {
            speaker,
            listen: peers::listen(snapshot, node),
            peers: peers::peers(snapshot, node),
            originated: peers::originated(snapshot, node),
        }),
    };
    Desired { routes: calico_route::compute(snapshot, node, learned), bgp }
}
