//! calico-bgp
