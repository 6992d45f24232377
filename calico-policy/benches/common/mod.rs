//! What the benchmarks of this crate share: a large cluster.

use calico_model::resource::{Metadata, NetworkPolicy, Object, Policy, PolicyType, Rule, WorkloadEndpoint};
use calico_model::{Labels, NodeName};

/// How large a cluster is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) endpoints: usize,
    pub(crate) local: usize,
    pub(crate) policies: usize,
    /// The rules of each policy, each with a selector of its own.
    pub(crate) rules: usize,
}

/// The selectors that match a third of all endpoints; the others match a few each.
const BROAD: usize = 20;
/// How many endpoints share the label that narrow selectors ask for.
const SHARE: usize = 10;
const GROUPS: usize = 200;

pub(crate) fn node() -> NodeName {
    "node-0".parse().expect("a constant name")
}

/// The megabytes that the process has resident now.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
}

impl Size {
    /// An endpoint of the cluster: the first ones are the node's own. `version` changes its label and address.
    pub(crate) fn endpoint(&self, i: usize, version: usize) -> Object<WorkloadEndpoint> {
        let local = i < self.local;
        let node = if local { node() } else { format!("node-{}", i / 200).parse().expect("a name") };
        let mut endpoint = WorkloadEndpoint::on(node);
        endpoint.orchestrator = "k8s".to_owned();
        endpoint.endpoint = "eth0".to_owned();
        endpoint.pod = format!("pod-{i}");
        endpoint.interface_name = Some(format!("cali{i:011x}").parse().expect("an interface"));
        let n = i + (version << 20);
        let addr = format!("{}.{}.{}.{}", 10 + (n >> 24), n >> 16 & 255, n >> 8 & 255, n & 255);
        endpoint.ip_networks = vec![addr.parse().expect("an address")];
        endpoint.profiles = vec![format!("kns.ns-{}", i % 100).parse().expect("a name")];
        let apps = self.endpoints / SHARE;
        let labels: Labels = [
            ("app".to_owned(), format!("app-{}", (i + version) % apps)),
            ("group".to_owned(), format!("group-{}", i % GROUPS)),
            ("zone".to_owned(), format!("zone-{}", i % 3)),
            ("version".to_owned(), "v1".to_owned()),
            ("pod-template-hash".to_owned(), format!("{:08x}", i % 20_000)),
        ]
        .into_iter()
        .collect();
        let mut metadata = Metadata::named(format!("node-k8s-pod--{i}-eth0").parse().expect("a name"));
        metadata.namespace = Some("default".parse().expect("a namespace"));
        metadata.labels = labels;
        Object { metadata, spec: endpoint }
    }

    /// A policy, in force for the endpoints of one group.
    pub(crate) fn policy(&self, i: usize, port: u16) -> Object<NetworkPolicy> {
        let selector = format!("group == 'group-{}'", i % GROUPS).parse().expect("a selector");
        let mut policy = Policy::selecting(selector, vec![PolicyType::Ingress]);
        for r in 0..self.rules {
            let s = i * self.rules + r;
            let text = match s.checked_sub(BROAD) {
                None => format!("zone == 'zone-{}' && version != 'v{s}'", s % 3),
                Some(s) => format!("app == 'app-{}' && version == 'v1'", s % (self.endpoints / SHARE)),
            };
            let mut rule = Rule::allow();
            rule.protocol = Some("TCP".parse().expect("a protocol"));
            rule.source.selector = Some(text.parse().expect("a selector"));
            rule.destination.ports = vec![format!("{}", port + r as u16).parse().expect("a port")];
            policy.ingress.push(rule);
        }
        let mut metadata = Metadata::named(format!("policy-{i}").parse().expect("a name"));
        metadata.namespace = Some("default".parse().expect("a namespace"));
        Object { metadata, spec: NetworkPolicy(policy) }
    }
}
