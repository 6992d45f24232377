//! What the host ends of workloads' interfaces are called.
//!
//! | workload | name |
//! |---|---|
//! | Kubernetes pod | the prefix, and the SHA-1 of `namespace.pod` in hex |
//! | plain CNI container | the prefix, and the container's ID |
//! | libnetwork endpoint | the prefix, and the endpoint's ID |
//!
//! The prefix is usually `cali`, and the name ends after 15 characters, which is as long as the kernel takes. IDs of
//! runtimes are hex digits. Of one that does not begin with so many of them, which somebody made up, the SHA-1 is taken
//! instead: the first letters of such IDs are often the same.

use sha1::Digest;

use super::InterfaceName;
use crate::net::ParseError;

/// What the names of workloads' interfaces begin with, unless it is configured otherwise.
pub const INTERFACE_PREFIX: &str = "cali";

/// The longest name that the kernel takes.
const LONGEST: usize = 15;

/// The longest prefix: four digits still tell workloads of one host apart.
const LONGEST_PREFIX: usize = 11;

/// A workload, as its interface is named after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedAfter<'a> {
    /// A Kubernetes pod.
    Pod {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A container that a CNI plugin is called for without a pod, by its ID.
    Container(&'a str),
    /// An endpoint of Docker's libnetwork, by its ID.
    LibnetworkEndpoint(&'a str),
}

/// Returns the name of the host end of a workload's interface.
///
/// # Examples
/// ```
/// use calico_model::name::{INTERFACE_PREFIX, NamedAfter, interface_name};
/// let container = NamedAfter::Container("0123456789abcdef");
/// assert_eq!(interface_name(INTERFACE_PREFIX, container)?.as_str(), "cali0123456789a");
/// # Ok::<(), calico_model::ParseError>(())
/// ```
///
/// # Errors
/// When the prefix is longer than 11 characters or cannot begin an interface's name.
pub fn interface_name(prefix: &str, workload: NamedAfter<'_>) -> Result<InterfaceName, ParseError> {
    if prefix.len() > LONGEST_PREFIX || prefix.parse::<InterfaceName>().is_err() {
        return Err(ParseError::new(
            prefix,
            "the prefix of interface names: 1 to 11 letters, digits, '_', '.' or '-'",
        ));
    }
    let count = LONGEST - prefix.len();
    let is_hex = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = match workload {
        NamedAfter::Pod { namespace, name } => sha1_hex(&format!("{namespace}.{name}")),
        NamedAfter::Container(id) | NamedAfter::LibnetworkEndpoint(id) => {
            id.get(..count).filter(is_hex).map_or_else(|| sha1_hex(id), str::to_owned)
        }
    };
    format!("{prefix}{}", &digits[..count]).parse()
}

/// Returns the name of a Kubernetes pod's host interface: `cali` and 11 hex digits of the SHA-1 of `namespace.pod`.
#[must_use]
pub fn pod_interface_name(namespace: &str, pod: &str) -> InterfaceName {
    let pod = NamedAfter::Pod { namespace, name: pod };
    interface_name(INTERFACE_PREFIX, pod).expect("the prefix is a constant")
}

fn sha1_hex(text: &str) -> String {
    sha1::Sha1::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_named_after_their_workloads() {
        const ID: &str = "24d5cb2f4f8e9a7b6c5d4e3f2a1b0c9d";
        for (prefix, workload, expected) in [
            // printf default.nginx | sha1sum
            ("cali", NamedAfter::Pod { namespace: "default", name: "nginx" }, "calic440f455693"),
            ("tap", NamedAfter::Pod { namespace: "default", name: "nginx" }, "tapc440f455693b"),
            ("cali", NamedAfter::Container(ID), "cali24d5cb2f4f8"),
            ("cali", NamedAfter::LibnetworkEndpoint(ID), "cali24d5cb2f4f8"),
            ("veth-of", NamedAfter::Container(ID), "veth-of24d5cb2f"),
            // printf demo-frontend1 | sha1sum
            ("cali", NamedAfter::Container("demo-frontend1"), "cali@"),
        ] {
            let name = interface_name(prefix, workload).unwrap();
            if let Some(begin) = expected.strip_suffix('@') {
                assert!(name.as_str().starts_with(begin) && name.as_str().len() == LONGEST, "{name}");
                assert_ne!(name, interface_name(prefix, NamedAfter::Container("demo-frontend2")).unwrap());
            } else {
                assert_eq!(name.as_str(), expected);
            }
        }
        assert_eq!(pod_interface_name("default", "nginx").as_str(), "calic440f455693");
        for prefix in ["", "abcdefghijkl", "a/b"] {
            assert!(interface_name(prefix, NamedAfter::Container(ID)).is_err(), "{prefix}");
        }
    }
}
