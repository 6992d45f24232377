//! Doing what the plan says, and undoing it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use calico_model::{Cidr, InterfaceName};
use calico_route::netlink::{Netlink, VethPair, WriteError};
use calico_route::route::{Form, Gateway, Installed, RouteKey};
use calico_route::{Change, Ownership};

use super::WorkloadError;
use super::netns::{Netns, inside};
use super::plan::{Attachment, Lenience, Step, plan};

/// The metric of the agent's routes to workloads, unless a FelixConfiguration says otherwise; then the agent makes the
/// route anew.
const ROUTE_PRIORITY: u32 = 1024;
/// The kernel's number for routes that a boot script made: those in a workload are not the node's.
const BOOT: u8 = 3;

/// Plugs a workload in.
///
/// # Errors
/// When the kernel refuses a step. What was done until then has been undone, as far as the kernel let it: the pair is
/// removed, and with it go its addresses and routes.
pub async fn plug(attachment: &Attachment, netns: &Netns) -> Result<(), WorkloadError> {
    let mut kernel = Netlink::connect()?;
    let plan = plan(attachment);
    let done = async {
        run(&mut kernel, &plan.create, Some(netns)).await?;
        let steps = plan.inside;
        let within =
            move || async move { run(&mut Netlink::connect()?.with_protocol(BOOT), &steps, None).await };
        inside(netns, within).await??;
        run(&mut kernel, &plan.attach, None).await
    };
    let done = done.await;
    // A pair that could not be created is not there to be removed, and an interface that was there before has been
    // removed by the plan itself.
    if done.is_err()
        && let Err(left) = remove(&mut kernel, &attachment.host_interface).await
    {
        tracing::warn!(interface = %attachment.host_interface, error = %left, "could not remove the interface again");
    }
    done
}

/// What unplugging found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplugged {
    /// The interface was there and is gone.
    Removed,
    /// There was no such interface.
    WasAbsent,
}

/// Unplugs a workload by removing its interface in its own namespace; the node's end goes with it.
///
/// # Errors
/// When the kernel refuses.
pub async fn unplug(interface: &InterfaceName, netns: &Netns) -> Result<Unplugged, WorkloadError> {
    let interface = interface.clone();
    inside(netns, move || async move { remove(&mut Netlink::connect()?, &interface).await }).await?
}

/// Removes the node's end of a workload that has no namespace any more.
///
/// # Errors
/// When the kernel refuses.
pub async fn unplug_host(interface: &InterfaceName) -> Result<Unplugged, WorkloadError> {
    remove(&mut Netlink::connect()?, interface).await
}

/// Reports whether the node has an interface of this name.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn host_interface_exists(interface: &InterfaceName) -> Result<bool, WorkloadError> {
    let found = Netlink::connect()?.link(interface).await;
    found
        .map(|link| link.is_some())
        .map_err(|source| WorkloadError::Read { what: interface.to_string(), source })
}

async fn remove(kernel: &mut Netlink, interface: &InterfaceName) -> Result<Unplugged, WorkloadError> {
    let step = Step::RemoveLink { interface: interface.clone() };
    match change(kernel, &step, Change::RemoveLink { device: interface.clone() }).await? {
        Ok(()) => Ok(Unplugged::Removed),
        // The other end, or the whole namespace, went away in between.
        Err(error) if error.is_device_gone() => Ok(Unplugged::WasAbsent),
        Err(error) => Err(WorkloadError::step(&step, error)),
    }
}

async fn run(kernel: &mut Netlink, steps: &[Step], peer_netns: Option<&Netns>) -> Result<(), WorkloadError> {
    for step in steps {
        tracing::debug!(%step, "plugging");
        take(kernel, step, peer_netns).await?;
    }
    Ok(())
}

async fn take(kernel: &mut Netlink, step: &Step, peer_netns: Option<&Netns>) -> Result<(), WorkloadError> {
    let wanted = match step {
        Step::RemoveLink { interface } => return remove(kernel, interface).await.map(drop),
        Step::AddWorkloadRoute { interface, dst } => {
            return add_workload_route(kernel, step, interface, *dst).await;
        }
        Step::CreatePair { host, host_mac, peer, peer_mac, mtu, queues } => {
            let netns = peer_netns.expect("only the plan of the node's end has a pair");
            let pair = VethPair {
                host,
                host_mac: *host_mac,
                peer,
                peer_mac: *peer_mac,
                peer_namespace: netns.as_fd(),
                mtu: *mtu,
                queues: *queues,
            };
            let made = kernel.add_veth(&pair).await;
            return made.map_err(|error| WorkloadError::step(step, error));
        }
        Step::Set { setting, value, lenience } => {
            let written = write_setting(setting, *value, *lenience);
            return written.map_err(|error| WorkloadError::step(step, error));
        }
        Step::AddAddress { interface, addr } => {
            Change::AddAddress { device: interface.clone(), address: *addr, mark: None }
        }
        Step::SetUp { interface } => Change::SetLink { device: interface.clone(), mtu: None, mac: None },
        Step::AddNeighbour { interface, addr, mac } => {
            Change::SetNeighbour { device: interface.clone(), address: *addr, mac: *mac }
        }
        Step::AddLinkRoute { interface, dst } => {
            Change::AddRoute { key: RouteKey::main(*dst, 0), form: Form::Device(interface.clone()) }
        }
        Step::AddDefaultRoute { interface, via } => {
            let everything = Cidr::holding(*via, 0).expect("zero is a length of either family");
            Change::AddRoute { key: RouteKey::main(everything, 0), form: gateway(interface, *via) }
        }
    };
    change(kernel, step, wanted).await?.map_err(|error| WorkloadError::step(step, error))
}

pub(super) fn gateway(interface: &InterfaceName, via: IpAddr) -> Form {
    Form::Gateways([Gateway { address: via, device: interface.clone(), onlink: false }].into())
}

/// Makes one change of an interface; the outer error is that the kernel cannot be asked.
async fn change(
    kernel: &mut Netlink,
    step: &Step,
    change: Change,
) -> Result<Result<(), WriteError>, WorkloadError> {
    if let Some(device) = change.device() {
        kernel.link(device).await.map_err(|error| WorkloadError::step(step, error))?;
    }
    let outcome = kernel.apply(std::slice::from_ref(&change)).await.pop();
    Ok(outcome.expect("each change has an outcome").result)
}

fn write_setting(setting: &str, value: u8, lenience: Lenience) -> io::Result<()> {
    let path = setting_path(setting);
    match std::fs::write(&path, value.to_string()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && lenience == Lenience::MayBeAbsent => Ok(()),
        Err(error) if lenience == Lenience::Lenient => {
            tracing::warn!(path = %path.display(), %error, "could not write a setting; going on without it");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Returns where a setting of this thread's network namespace is.
pub(super) fn setting_path(setting: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(setting)
}

async fn add_workload_route(
    kernel: &mut Netlink,
    step: &Step,
    interface: &InterfaceName,
    dst: Cidr,
) -> Result<(), WorkloadError> {
    let (key, form) = (RouteKey::main(dst, ROUTE_PRIORITY), Form::Device(interface.clone()));
    match change(kernel, step, Change::AddRoute { key, form: form.clone() }).await? {
        Err(error) if error.is_already_there() => {}
        done => return done.map_err(|error| WorkloadError::step(step, error)),
    }
    let actual =
        kernel.read(&Ownership::default()).await.map_err(|error| WorkloadError::step(step, error))?;
    let held = |routes: &BTreeMap<RouteKey, Vec<Installed>>| {
        routes.get(&key).and_then(|routes| routes.first()).cloned()
    };
    let (ours, others) = (held(&actual.routes), held(&actual.host.foreign));
    match ours.as_ref().or(others.as_ref()).map(|route| &route.form) {
        Some(there) if *there == form => return Ok(()),
        Some(Form::Device(other)) if is_workload(other, interface) => {
            return Err(WorkloadError::AddressInUse { step: Box::new(step.clone()), other: other.clone() });
        }
        _ => {}
    }
    // The kernel replaces the first of a key, and does not say whose that is.
    if let Some(Installed { protocol, form }) = others {
        let route = format!("{key} {form} protocol {protocol}");
        return Err(WorkloadError::RouteTaken { step: Box::new(step.clone()), route });
    }
    // Left over from when the address was another node's; the agent would replace it too, only later.
    let replaced = change(kernel, step, Change::ReplaceRoute { key, form }).await?;
    replaced.map_err(|error| WorkloadError::step(step, error))
}

/// Reports whether `other` is named as the interfaces of workloads are, of which `one` is an example: a prefix and 11
/// characters.
fn is_workload(other: &InterfaceName, one: &InterfaceName) -> bool {
    let prefix = one.as_str().get(..one.as_str().len().saturating_sub(11)).unwrap_or_default();
    !prefix.is_empty() && other.as_str().starts_with(prefix)
}
