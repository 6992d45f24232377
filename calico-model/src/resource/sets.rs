//! Networks with labels.

use crate::net::Cidr;
use crate::wire::wire_struct;

wire_struct! {
    /// A `NetworkSet`: networks that selectors in its namespace match by the set's labels.
    pub struct NetworkSet {
        /// The networks.
        nets: Vec<Cidr> = "nets" empty,
    }
}

wire_struct! {
    /// A `GlobalNetworkSet`: networks that selectors match by the set's labels.
    pub struct GlobalNetworkSet {
        /// The networks.
        nets: Vec<Cidr> = "nets" empty,
    }
}
