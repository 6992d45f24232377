//! Names of v1 as names of today.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use crate::net::Cidr;

/// Makes a v1 name a DNS subdomain: lower case, `/` as `.`, everything else that is not allowed as `-`, runs of dots as
/// one, and nothing but letters and digits at the ends. A name that had to change gets `-` and the first eight hex digits
/// of the SHA-1 of the original, so that no two become one.
#[must_use]
pub fn normalized(name: &str) -> String {
    let plain = cleaned(name);
    if plain == name { plain } else { format!("{plain}-{}", hash_suffix(name)) }
}

/// A node keeps its name even if it had to change: its machine looks for it by its lower-cased host name.
pub(super) fn of_node(name: &str) -> String {
    cleaned(name)
}

/// `k8s_ns.X` becomes `kns.X`.
pub(super) fn of_profile(name: &str) -> String {
    match name.strip_prefix("k8s_ns.") {
        Some(namespace) => format!("kns.{namespace}"),
        None => normalized(name),
    }
}

/// `10.1.0.0/16` becomes `10-1-0-0-16`.
pub(super) fn of_network(cidr: &Cidr) -> String {
    trimmed(&cidr.to_string().replace(['.', ':', '/'], "-"))
}

/// `10.0.0.1` becomes `10-0-0-1`, and an IPv6 address all of its eight groups.
pub(super) fn of_address(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:04x}")).join("-"),
    }
}

/// The label of a workload's namespace has another name now.
pub(super) fn label_key(key: &str) -> &str {
    if key == OLD_NAMESPACE { NAMESPACE } else { key }
}

/// Renames the label of the namespace, as text, which is what Calico's own upgrade does.
pub(super) fn selector(text: &str) -> String {
    text.replace(OLD_NAMESPACE, NAMESPACE)
}

const OLD_NAMESPACE: &str = "calico/k8s_ns";
const NAMESPACE: &str = "projectcalico.org/namespace";

fn cleaned(name: &str) -> String {
    let mut made = String::with_capacity(name.len());
    for c in name.to_lowercase().replace('/', ".").chars() {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
        if c != '.' || !made.ends_with('.') {
            made.push(c);
        }
    }
    trimmed(&made)
}

fn trimmed(name: &str) -> String {
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn hash_suffix(name: &str) -> String {
    Sha1::digest(name.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
