//! Names: checked once when made, trusted everywhere after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::net::{ParseError, serde_as_text};

mod interface;

pub use interface::{INTERFACE_PREFIX, NamedAfter, interface_name, pod_interface_name};

/// Reports whether `text` is a DNS subdomain (RFC 1123): dot-separated labels of lower-case letters, digits and
/// inner dashes, at most 253 characters.
fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_word)
}

fn is_dns_word(word: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = word.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_word(text)
}

fn is_interface_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=15).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident: $check:ident, $expected:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, to be made one with an equal text; nothing else may be put there.
            #[allow(dead_code, reason = "not every kind of name is worth sharing")]
            pub(crate) fn text_mut(&mut self) -> &mut Arc<str> {
                &mut self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                if $check(text) { Ok(Self(text.into())) } else { Err(ParseError::new(text, $expected)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_as_text!($name);
    )*};
}

names! {
    /// The name of a resource: a DNS subdomain.
    Name: is_dns_subdomain, "a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters";
    /// The name of a node: a DNS subdomain, by default the lower-cased host name.
    NodeName: is_dns_subdomain, "a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters";
    /// The name of a namespace: a DNS label.
    Namespace: is_dns_label, "a namespace: lower-case letters, digits and '-', beginning and ending with a letter or digit, at most 63 characters";
    /// The name of a network interface as the kernel takes it, at most 15 characters.
    InterfaceName: is_interface_name, "an interface name: 1 to 15 letters, digits, '_', '.' or '-'";
}

impl Namespace {
    /// Returns the namespace `default`, which is meant when none is named.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self("default".into())
    }
}

/// Any node name is also a resource name: the Node itself carries it.
impl From<NodeName> for Name {
    fn from(node: NodeName) -> Self {
        Self(node.0)
    }
}

/// Any resource name is also a node name.
impl From<Name> for NodeName {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

/// The name of a [`WorkloadEndpoint`](crate::resource::WorkloadEndpoint) is made of what it belongs to: segments
/// joined by `-`, with every `-` inside a segment doubled.
///
/// # Examples
/// ```
/// use calico_model::name::workload_endpoint_name;
/// assert_eq!(workload_endpoint_name(&["node-1", "k8s", "pod-name", "eth0"])?.as_str(), "node--1-k8s-pod--name-eth0");
/// # Ok::<(), calico_model::ParseError>(())
/// ```
///
/// # Errors
/// When a segment is empty or begins or ends with `-`, or the whole is not a [`Name`].
pub fn workload_endpoint_name(segments: &[&str]) -> Result<Name, ParseError> {
    for segment in segments {
        if segment.is_empty() || segment.starts_with('-') || segment.ends_with('-') {
            return Err(ParseError::new(
                segment,
                "part of a workload endpoint's name: not empty, with no '-' at either end",
            ));
        }
    }
    segments.iter().map(|segment| segment.replace('-', "--")).collect::<Vec<_>>().join("-").parse()
}

/// Returns how the names of the endpoints begin that have these segments first: for listing them.
///
/// # Examples
/// ```
/// use calico_model::name::workload_endpoint_prefix;
/// assert_eq!(workload_endpoint_prefix(&["node-1", "k8s"]), "node--1-k8s-");
/// ```
#[must_use]
pub fn workload_endpoint_prefix(segments: &[&str]) -> String {
    segments.iter().map(|segment| segment.replace('-', "--") + "-").collect()
}

/// Splits the name of a workload endpoint into its segments; the inverse of [`workload_endpoint_name`].
#[must_use]
pub fn workload_endpoint_segments(name: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '-' {
            segments.last_mut().expect("there is always a segment").push(c);
        } else if chars.next_if_eq(&'-').is_some() {
            segments.last_mut().expect("there is always a segment").push('-');
        } else {
            segments.push(String::new());
        }
    }
    segments
}

/// Returns the name of the HostEndpoint that the Kubernetes controllers make for a node: `NODE-auto-hep`.
///
/// # Errors
/// When the node's name is so long that this is none.
pub fn auto_host_endpoint_name(node: &NodeName) -> Result<Name, ParseError> {
    format!("{node}-auto-hep").parse()
}

/// Returns the name of the configuration of one node, a FelixConfiguration or BGPConfiguration: `node.NODE`.
///
/// # Errors
/// When the node's name is so long that this is none.
pub fn node_configuration_name(node: &NodeName) -> Result<Name, ParseError> {
    format!("node.{node}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for good in ["a", "node-1", "default-ipv4-ippool", "a.b-c.d"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", "a/b", &"a".repeat(254)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn workload_endpoint_names_round_trip() {
        for segments in [&["node-1", "k8s", "pod-name", "eth0"][..], &["n", "cni", "a--b", "eth0"]] {
            let name = workload_endpoint_name(segments).unwrap();
            assert_eq!(workload_endpoint_segments(name.as_str()), segments);
        }
        for (segments, expected) in [
            (["node-1", "k8s", "pod-name", "eth0"], "node--1-k8s-pod--name-eth0"),
            (["n", "cni", "0123abcd", "eth0"], "n-cni-0123abcd-eth0"),
            (["n", "libnetwork", "libnetwork", "ab12"], "n-libnetwork-libnetwork-ab12"),
            (["n", "openstack", "vm-1", "tap0"], "n-openstack-vm--1-tap0"),
        ] {
            let name = workload_endpoint_name(&segments).unwrap();
            assert_eq!(name.as_str(), expected);
            for first in 0..segments.len() {
                assert!(name.as_str().starts_with(&workload_endpoint_prefix(&segments[..first])));
            }
            // A node whose name only begins alike is no match.
            assert!(!name.as_str().starts_with(&workload_endpoint_prefix(&["nod"])));
        }
        assert_eq!(workload_endpoint_prefix(&["node-1", "k8s"]), "node--1-k8s-");
        assert_eq!(workload_endpoint_prefix(&[]), "");
        assert!(workload_endpoint_name(&["n", "k8s-"]).is_err());
        assert!(workload_endpoint_name(&["-n", "k8s"]).is_err());
        assert!(workload_endpoint_name(&["", "k8s"]).is_err());
    }

    #[test]
    fn what_is_made_for_a_node_is_named_after_it() {
        let node: NodeName = "node-1".parse().unwrap();
        assert_eq!(auto_host_endpoint_name(&node).unwrap().as_str(), "node-1-auto-hep");
        assert_eq!(node_configuration_name(&node).unwrap().as_str(), "node.node-1");
        let long: NodeName = "n".repeat(250).parse().unwrap();
        assert!(auto_host_endpoint_name(&long).is_err());
    }
}
