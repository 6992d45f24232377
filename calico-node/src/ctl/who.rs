//! Whom a word of the command line means: an address, a workload or a node.

use std::net::IpAddr;

use calico_model::{Family, Namespace, Snapshot};

/// Words that cannot be turned into a way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhoError {
    /// Nobody is called so.
    #[error(
        "there is no workload and no node {word}: give a pod or endpoint as NAMESPACE/NAME, a node's name or an address"
    )]
    Nobody {
        /// The word.
        word: String,
    },
    /// More than one are called so.
    #[error("{word} may be each of {}: give its address", .endpoints.join(", "))]
    Several {
        /// The word.
        word: String,
        /// Those.
        endpoints: Vec<String>,
    },
    /// They have no address of one family.
    #[error("{from} and {to} have no addresses of the same family, so nothing goes from one to the other")]
    NoWay {
        /// The one.
        from: String,
        /// The other.
        to: String,
    },
}

/// Returns the addresses of two ends, both of the first family that both have.
///
/// An end is an address, a workload (by the name of its pod, workload, container or endpoint, with its namespace before it or
/// in `namespace`), or a node.
///
/// # Errors
/// When a word means nobody or several, or the two can have nothing to do with one another.
pub fn ends(
    snapshot: &Snapshot,
    (from, to): (&str, &str),
    namespace: &Namespace,
) -> Result<(IpAddr, IpAddr), WhoError> {
    let (sources, destinations) =
        (addresses(snapshot, from, namespace)?, addresses(snapshot, to, namespace)?);
    let pair = Family::ALL.into_iter().find_map(|family| {
        let of_family = |addrs: &[IpAddr]| addrs.iter().copied().find(|addr| Family::of(*addr) == family);
        of_family(&sources).zip(of_family(&destinations))
    });
    pair.ok_or_else(|| WhoError::NoWay { from: from.to_owned(), to: to.to_owned() })
}

fn addresses(snapshot: &Snapshot, word: &str, namespace: &Namespace) -> Result<Vec<IpAddr>, WhoError> {
    if let Ok(addr) = word.parse() {
        return Ok(vec![addr]);
    }
    let (namespace, name) = word.split_once('/').unwrap_or((namespace.as_str(), word));
    let mut found: Vec<_> = snapshot
        .workloads
        .values()
        .filter(|endpoint| endpoint.metadata.namespace.as_ref().is_some_and(|own| own.as_str() == namespace))
        .filter(|endpoint| {
            let spec = &endpoint.spec;
            let names = [&spec.pod, &spec.workload, &spec.container_id].map(String::as_str);
            // Of most workloads some of these names are empty.
            !name.is_empty() && names.contains(&name) || endpoint.metadata.name.as_str() == name
        })
        .collect();
    if found.len() > 1 {
        let endpoints = found.iter().map(|endpoint| endpoint.id().to_string()).collect();
        return Err(WhoError::Several { word: word.to_owned(), endpoints });
    }
    if let Some(endpoint) = found.pop() {
        return Ok(endpoint.spec.ip_networks.iter().map(|net| net.addr()).collect());
    }
    let node = snapshot.nodes.values().find(|node| node.metadata.name.as_str() == word);
    let node = node.ok_or_else(|| WhoError::Nobody { word: word.to_owned() })?;
    Ok(Family::ALL.into_iter().filter_map(|family| node.spec.addr(family)).map(|own| own.addr()).collect())
}

#[cfg(test)]
mod tests {
    use calico_model::resource::{Object, WorkloadEndpoint};

    use super::*;

    #[test]
    fn a_workload_is_found_by_each_of_the_names_that_are_shown_of_it() {
        let mut spec = WorkloadEndpoint::on("node1".parse().unwrap());
        spec.container_id = "plain".to_owned();
        spec.ip_networks = vec!["192.168.0.5/32".parse().unwrap()];
        let mut plain = Object::new("node1-cni-plain-eth0".parse().unwrap(), spec);
        plain.metadata.namespace = Some("default".parse().unwrap());
        let mut snapshot = Snapshot::default();
        snapshot.insert(plain);
        let namespace = "default".parse().unwrap();
        let found = |word: &str| addresses(&snapshot, word, &namespace).map(|found| found[0].to_string());
        for word in ["plain", "default/plain", "node1-cni-plain-eth0"] {
            assert_eq!(found(word).as_deref(), Ok("192.168.0.5"), "{word}");
        }
        for word in ["shop/plain", "default/", "nobody"] {
            assert!(found(word).is_err(), "{word}");
        }
    }
}
