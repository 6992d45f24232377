//! The addresses of whatever selectors select.

use std::net::IpAddr;

use calico_model::resource::EndpointPort;
use calico_model::{Cidr, Family, Selector, Snapshot};

use crate::labels::SystemLabels;

/// Something that selectors in rules select: a workload, a host endpoint or a network set.
#[derive(Debug)]
pub(crate) struct Member<'s> {
    labels: SystemLabels<'s>,
    nets: Vec<Cidr>,
    ports: &'s [EndpointPort],
}

/// Everything that selectors in rules select.
#[derive(Debug)]
pub(crate) struct Members<'s>(Vec<Member<'s>>);

impl<'s> Members<'s> {
    pub(crate) fn of(snapshot: &'s Snapshot) -> Self {
        let workloads = snapshot.workloads.values().map(|endpoint| Member {
            labels: SystemLabels::of_workload(snapshot, endpoint),
            nets: endpoint.spec.ip_networks.clone(),
            ports: &endpoint.spec.ports,
        });
        let hosts = snapshot.hosts.values().map(|endpoint| Member {
            labels: SystemLabels::of_host(snapshot, endpoint),
            nets: endpoint.spec.expected_ips.iter().copied().map(Cidr::host).collect(),
            ports: &endpoint.spec.ports,
        });
        let sets = snapshot.network_sets.values().map(|set| Member {
            labels: SystemLabels::of_set(&set.metadata),
            nets: set.spec.nets.clone(),
            ports: &[],
        });
        let global_sets = snapshot.global_network_sets.values().map(|set| Member {
            labels: SystemLabels::of_set(&set.metadata),
            nets: set.spec.nets.clone(),
            ports: &[],
        });
        Self(workloads.chain(hosts).chain(sets).chain(global_sets).collect())
    }

    /// Walks the networks of a family that belong to what a selector selects.
    pub(crate) fn networks(&self, selector: &Selector, family: Family) -> impl Iterator<Item = Cidr> {
        self.selected(selector)
            .flat_map(|member| member.nets.iter().copied())
            .filter(move |net| net.family() == family)
    }

    /// Walks the ports of a name, with their addresses, of what a selector selects; of everything without one.
    pub(crate) fn sockets(
        &self,
        selector: Option<&Selector>,
        name: &str,
        family: Family,
    ) -> impl Iterator<Item = (IpAddr, &'s EndpointPort)> {
        let selector = selector.cloned().unwrap_or_default();
        self.0.iter().filter(move |member| selector.matches(&member.labels)).flat_map(move |member| {
            let named =
                member.ports.iter().filter(move |port| port.name == name && port.protocol.has_ports());
            let addrs = move || member.nets.iter().filter(move |net| net.family() == family && net.is_host());
            named.flat_map(move |port| addrs().map(move |net| (net.addr(), port)))
        })
    }

    fn selected<'m>(&'m self, selector: &Selector) -> impl Iterator<Item = &'m Member<'s>> {
        self.0.iter().filter(move |member| selector.matches(&member.labels))
    }
}
