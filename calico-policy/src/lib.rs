//! calico-policy
