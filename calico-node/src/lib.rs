//! calico-node
