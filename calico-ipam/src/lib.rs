//! calico-ipam
