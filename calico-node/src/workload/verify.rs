//! Comparing what was planned with what the kernel has.

use calico_model::{Cidr, InterfaceName, Mac};
use calico_route::Ownership;
use calico_route::actual::{Actual, Link, LinkState};
use calico_route::netlink::Netlink;
use calico_route::route::{Form, RouteKey};

use super::WorkloadError;
use super::apply::{gateway, setting_path};
use super::netns::{Netns, inside};
use super::plan::{Attachment, Lenience, Step, plan};

/// Says, a sentence each, how the kernel differs from what [`plug`](super::plug) made of `attachment`; nothing when it
/// does not.
///
/// What a workload may change in itself is let be: its MAC address, its neighbours, its `ip_forward`.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn differences(attachment: &Attachment, netns: &Netns) -> Result<Vec<String>, WorkloadError> {
    let plan = plan(attachment);
    let mut found = compare(&plan.create).await?;
    let steps = plan.inside;
    let within = inside(netns, move || async move { compare(&steps).await }).await??;
    found.extend(within.into_iter().map(|difference| format!("in the workload, {difference}")));
    found.extend(compare(&plan.attach).await?);
    found.dedup();
    Ok(found)
}

async fn compare(steps: &[Step]) -> Result<Vec<String>, WorkloadError> {
    let read = Netlink::connect()?.read(&Ownership::default()).await;
    let what = "interfaces and routes".to_owned();
    let actual = read.map_err(|source| WorkloadError::Read { what, source })?;
    Ok(steps.iter().filter_map(|step| difference(&actual, step)).collect())
}

fn difference(actual: &Actual, step: &Step) -> Option<String> {
    let link = |interface: &InterfaceName| actual.host.links.get(interface).ok_or_else(|| missing(interface));
    let found = match step {
        Step::RemoveLink { .. } | Step::AddNeighbour { .. } => Ok(None),
        Step::CreatePair { host, host_mac, mtu, .. } => {
            link(host).map(|link| pair_difference(host, *host_mac, *mtu, link))
        }
        Step::Set { setting, value, lenience } => Ok(setting_difference(setting, *value, *lenience)),
        Step::AddAddress { interface, addr } => link(interface).map(|link| {
            let there = link.addresses.contains_key(addr);
            (!there).then(|| format!("{interface} does not have the address {addr}"))
        }),
        Step::SetUp { interface } => link(interface)
            .map(|link| (link.state == LinkState::Down).then(|| format!("{interface} is down"))),
        Step::AddLinkRoute { interface, dst } => link(interface).map(|_| {
            let there = routes_to(actual, *dst).any(|form| *form == Form::Device(interface.clone()));
            (!there).then(|| format!("there is no route to {dst} on {interface}"))
        }),
        Step::AddDefaultRoute { interface, via } => link(interface).map(|_| {
            let everything = Cidr::holding(*via, 0).expect("zero is a length of either family");
            let there = routes_to(actual, everything).any(|form| *form == gateway(interface, *via));
            (!there).then(|| format!("there is no route to {everything} via {via} on {interface}"))
        }),
        Step::AddWorkloadRoute { interface, dst } => link(interface).map(|_| {
            let best = routes_to(actual, *dst).next();
            (best != Some(&Form::Device(interface.clone())))
                .then(|| format!("{dst} is not routed to {interface}"))
        }),
    };
    found.unwrap_or_else(Some)
}

/// Walks where the routes to a destination lead, the one that is used first.
fn routes_to(actual: &Actual, dst: Cidr) -> impl Iterator<Item = &Form> {
    let mut routes: Vec<_> = actual
        .routes
        .range(RouteKey::all_to(dst))
        .chain(actual.host.foreign.range(RouteKey::all_to(dst)))
        .collect();
    routes.sort_by_key(|(key, _)| key.priority);
    routes.into_iter().flat_map(|(_, routes)| routes).map(|route| &route.form)
}

fn missing(interface: &InterfaceName) -> String {
    format!("there is no interface {interface}")
}

fn pair_difference(host: &InterfaceName, host_mac: Mac, mtu: Option<u32>, link: &Link) -> Option<String> {
    if let Some(mac) = link.mac
        && mac != host_mac
    {
        return Some(format!("{host} has the MAC address {mac}, not {host_mac}"));
    }
    mtu.filter(|wanted| link.mtu != *wanted)
        .map(|wanted| format!("{host} has an MTU of {}, not {wanted}", link.mtu))
}

fn setting_difference(setting: &str, value: u8, lenience: Lenience) -> Option<String> {
    // The workload's own: a runtime may have been asked to set it otherwise.
    if setting == "ipv4/ip_forward" || lenience == Lenience::Lenient {
        return None;
    }
    match std::fs::read_to_string(setting_path(setting)) {
        Ok(text) if text.trim() == value.to_string() => None,
        Ok(text) => Some(format!("/proc/sys/net/{setting} is {}, not {value}", text.trim())),
        // When the whole interface is missing, that is said already.
        Err(_) => None,
    }
}
