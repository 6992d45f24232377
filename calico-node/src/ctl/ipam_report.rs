//! The report of `calicoctl ipam check`, which `calicoctl ipam release --from-report` reads: in the form of Calico.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_ipam::{Check, Finding, Held, Liveness};
use calico_model::SequenceNumber;
use calico_model::resource::{ClusterInformation, Object};
use serde::{Deserialize, Serialize};

/// What a check found, and in which cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The version of the program that wrote it.
    pub version: String,
    /// The cluster.
    #[serde(rename = "clusterGUID")]
    pub cluster_guid: String,
    /// Whether agents and plugins left the datastore alone meanwhile.
    pub datastore_locked: bool,
    /// The revision of the cluster's information at that time.
    pub cluster_information_revision: String,
    /// What the cluster is made of.
    pub cluster_type: String,
    /// The held addresses; an address in two blocks has two entries.
    pub allocations: BTreeMap<IpAddr, Vec<Allocated>>,
    /// The handles that hold nothing.
    #[serde(default)]
    pub leaked_handles: Vec<LeakedHandle>,
    /// What is wrong, in sentences.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One held address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocated {
    /// The address.
    pub ip: IpAddr,
    /// The handle that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// When it was assigned, in its block's count of changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<SequenceNumber>,
    /// The notes `pod`, `namespace`, `node`, `type` and `creationTimestamp`, as far as there are any.
    #[serde(flatten)]
    pub notes: BTreeMap<String, serde_json::Value>,
    /// Whether the address is to stay: it is used, or there is no telling. What is not in use is leaked.
    pub in_use: bool,
    /// Whether it lives on another node than its block's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub borrowed: bool,
    /// Who uses it.
    #[serde(default)]
    pub owners: Option<Vec<String>>,
}

/// A handle that holds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakedHandle {
    /// The handle.
    #[serde(rename = "ID")]
    pub id: String,
}

impl Report {
    /// Makes the report of a check.
    #[must_use]
    pub fn new(found: &Check, cluster: Option<&Object<ClusterInformation>>, version: &str) -> Self {
        let mut report = Self { version: version.to_owned(), ..Self::default() };
        if let Some(cluster) = cluster {
            report.cluster_guid = cluster.spec.cluster_guid.clone();
            report.cluster_type = cluster.spec.cluster_type.clone();
            report.datastore_locked = cluster.spec.datastore_ready == Some(false);
            report.cluster_information_revision =
                cluster.metadata.resource_version.clone().unwrap_or_default();
        }
        for held in &found.held {
            report.allocations.entry(held.addr).or_default().push(allocated(found, held));
        }
        for finding in &found.findings {
            report.problems.push(finding.to_string());
            if let Finding::SkewedHandle { handle, .. } = finding
                && !found.held.iter().any(|held| held.handle.as_ref() == Some(handle))
            {
                report.leaked_handles.push(LeakedHandle { id: handle.clone() });
            }
        }
        report.leaked_handles.dedup();
        report.problems.extend(found.problems.iter().cloned());
        report
    }

    fn leaks(&self) -> BTreeSet<(IpAddr, Option<&str>, Option<SequenceNumber>)> {
        let gone = self.allocations.values().flatten().filter(|allocated| !allocated.in_use);
        gone.map(|gone| (gone.ip, gone.handle.as_deref(), gone.sequence_number)).collect()
    }
}

fn allocated(found: &Check, held: &Held) -> Allocated {
    let note = |from: &str, to: &str| Some((to.to_owned(), held.attributes.get(from)?.as_str().into()));
    let notes = [("pod", "pod"), ("namespace", "namespace"), ("node", "node"), ("type", "type")];
    let notes = notes.into_iter().chain([("timestamp", "creationTimestamp")]);
    let users = found.users.get(&held.addr).into_iter().flatten();
    Allocated {
        ip: held.addr,
        handle: held.handle.clone(),
        sequence_number: held.sequence,
        notes: notes.filter_map(|(from, to)| note(from, to)).collect(),
        in_use: held.liveness != Liveness::Gone,
        borrowed: held.borrowed,
        owners: Some(users.map(ToString::to_string).collect()),
    }
}

/// What of the reports' leaks is to be mended: the addresses that all reports and the check of just now call leaked, in the
/// same assignment, and the handles that all of them call leaked; and how many of the addresses that all reports call
/// leaked are not so any more.
#[must_use]
pub fn still_leaked(reports: &[Report], now: &Check) -> (Vec<Finding>, usize) {
    let Some((first, others)) = reports.split_first() else { return (Vec::new(), 0) };
    let mut leaks = first.leaks();
    let mut handles: BTreeSet<&str> = first.leaked_handles.iter().map(|handle| handle.id.as_str()).collect();
    for other in others {
        leaks = &leaks & &other.leaks();
        let theirs: BTreeSet<&str> = other.leaked_handles.iter().map(|handle| handle.id.as_str()).collect();
        handles = &handles & &theirs;
    }
    let (mut plan, mut addresses) = (Vec::new(), 0);
    for finding in &now.findings {
        if let Finding::LeakedAddress { addr, handle, sequence } = finding
            && leaks.contains(&(*addr, handle.as_deref(), *sequence))
        {
            plan.push(finding.clone());
            addresses += 1;
        }
        if let Finding::SkewedHandle { handle, .. } = finding
            && handles.contains(handle.as_str())
        {
            plan.push(finding.clone());
        }
    }
    (plan, leaks.len() - addresses)
}
