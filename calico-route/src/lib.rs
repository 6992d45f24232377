//! calico-route
