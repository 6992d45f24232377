//! Comparing what was planned with what the kernel has.

use std::io;

use calico_model::{Cidr, Family, InterfaceName, Mac};

use super::WorkloadError;
use super::apply::setting_path;
use super::kernel::{Kernel, Link};
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
    let kernel = Kernel::connect()?;
    let mut found = compare(&kernel, &plan.create).await?;
    let steps = plan.inside;
    let within = inside(netns, move || async move { compare(&Kernel::connect()?, &steps).await }).await??;
    found.extend(within.into_iter().map(|difference| format!("in the workload, {difference}")));
    found.extend(compare(&kernel, &plan.attach).await?);
    found.dedup();
    Ok(found)
}

async fn compare(kernel: &Kernel, steps: &[Step]) -> Result<Vec<String>, WorkloadError> {
    let mut found = Vec::new();
    for step in steps {
        let read = |source| WorkloadError::Read { what: format!("whether it is true to {step}"), source };
        found.extend(look(kernel, step).await.map_err(read)?);
    }
    Ok(found)
}

async fn look(kernel: &Kernel, step: &Step) -> io::Result<Option<String>> {
    Ok(match step {
        Step::RemoveLink { .. } | Step::AddNeighbour { .. } => None,
        Step::CreatePair { host, host_mac, mtu, .. } => match kernel.link(host).await? {
            None => Some(missing(host)),
            Some(link) => pair_difference(host, *host_mac, *mtu, &link),
        },
        Step::Set { setting, value, lenience } => setting_difference(setting, *value, *lenience),
        Step::AddAddress { interface, addr } => match kernel.link(interface).await? {
            None => Some(missing(interface)),
            Some(link) => {
                let there = kernel.addresses(link.index).await?.contains(addr);
                (!there).then(|| format!("{interface} does not have the address {addr}"))
            }
        },
        Step::SetUp { interface } => match kernel.link(interface).await? {
            None => Some(missing(interface)),
            Some(link) => (!link.up).then(|| format!("{interface} is down")),
        },
        Step::AddLinkRoute { interface, dst } => route_difference(kernel, interface, *dst, None).await?,
        Step::AddDefaultRoute { interface, via } => {
            let everything = Cidr::holding(*via, 0).expect("zero is a length of either family");
            route_difference(kernel, interface, everything, Some(*via)).await?
        }
        Step::AddWorkloadRoute { interface, dst } => {
            let Some(link) = kernel.link(interface).await? else { return Ok(Some(missing(interface))) };
            let route = kernel.route_to(dst.addr()).await?.filter(|route| route.dst == Some(*dst));
            let over = route.and_then(|route| route.interface);
            (over != Some(link.index)).then(|| format!("{dst} is not routed to {interface}"))
        }
    })
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
    let (actual, wanted) = (link.mtu?, mtu?);
    (actual != wanted).then(|| format!("{host} has an MTU of {actual}, not {wanted}"))
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

async fn route_difference(
    kernel: &Kernel,
    interface: &InterfaceName,
    dst: Cidr,
    via: Option<std::net::IpAddr>,
) -> io::Result<Option<String>> {
    let Some(link) = kernel.link(interface).await? else { return Ok(Some(missing(interface))) };
    let routes = kernel.routes(Family::of(dst.addr())).await?;
    let there = routes
        .iter()
        .any(|route| route.dst == Some(dst) && route.interface == Some(link.index) && route.gateway == via);
    Ok((!there).then(|| match via {
        Some(via) => format!("there is no route to {dst} via {via} on {interface}"),
        None => format!("there is no route to {dst} on {interface}"),
    }))
}
