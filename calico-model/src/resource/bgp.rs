//! Whom to tell of routes, and how.

mod configuration;
mod peer;
mod peer_address;

pub use configuration::{
    BgpConfiguration, BindMode, BmpStation, NamedCommunity, PrefixAdvertisement, ServiceNetwork,
};
pub use peer::{BgpPeer, FailureDetection, NextHopMode, RestartMode, ReversePeering, SourceAddress};
pub use peer_address::PeerAddress;

use crate::wire::wire_struct;

wire_struct! {
    /// A password that is kept elsewhere.
    pub struct Password {
        /// Where.
        secret_key_ref: Option<SecretKey> = "secretKeyRef" optional,
    }
}

wire_struct! {
    /// One entry of a Kubernetes Secret in the namespace of the agents.
    pub struct SecretKey {
        /// The Secret's name.
        name: String = "name" empty,
        /// The entry's key.
        key: String = "key" required,
        /// Whether the session goes on without a password when there is no such entry.
        optional: Option<bool> = "optional" optional,
    }
}
