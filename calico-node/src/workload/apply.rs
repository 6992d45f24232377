//! Doing what the plan says, and undoing it.

use std::io;
use std::path::PathBuf;

use calico_model::{Cidr, InterfaceName};

use super::WorkloadError;
use super::kernel::{IfThere, Kernel, Link, Origin, Pair, Target};
use super::netns::{Netns, inside};
use super::plan::{Attachment, Lenience, Step, plan};

/// Plugs a workload in.
///
/// # Errors
/// When the kernel refuses a step. What was done until then has been undone, as far as the kernel let it: the pair is
/// removed, and with it go its addresses and routes.
pub async fn plug(attachment: &Attachment, netns: &Netns) -> Result<(), WorkloadError> {
    let kernel = Kernel::connect()?;
    let plan = plan(attachment);
    let done = async {
        run(&kernel, &plan.create, Some(netns)).await?;
        let steps = plan.inside;
        inside(netns, move || async move { run(&Kernel::connect()?, &steps, None).await }).await??;
        run(&kernel, &plan.attach, None).await
    };
    let done = done.await;
    // A pair that could not be created is not there to be removed, and an interface that was there before has been
    // removed by the plan itself.
    if done.is_err()
        && let Err(left) = remove(&kernel, &attachment.host_interface).await
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
    inside(netns, move || async move { remove(&Kernel::connect()?, &interface).await }).await?
}

/// Removes the node's end of a workload that has no namespace any more.
///
/// # Errors
/// When the kernel refuses.
pub async fn unplug_host(interface: &InterfaceName) -> Result<Unplugged, WorkloadError> {
    remove(&Kernel::connect()?, interface).await
}

/// Reports whether the node has an interface of this name.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn host_interface_exists(interface: &InterfaceName) -> Result<bool, WorkloadError> {
    exists(interface).await
}

/// Reports whether both ends of the workload's pair are there.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn is_plugged(attachment: &Attachment, netns: &Netns) -> Result<bool, WorkloadError> {
    if !exists(&attachment.host_interface).await? {
        return Ok(false);
    }
    let interface = attachment.interface.clone();
    inside(netns, move || async move { exists(&interface).await }).await?
}

async fn exists(interface: &InterfaceName) -> Result<bool, WorkloadError> {
    let found = Kernel::connect()?.link(interface).await;
    found
        .map(|link| link.is_some())
        .map_err(|source| WorkloadError::Read { what: interface.to_string(), source })
}

async fn remove(kernel: &Kernel, interface: &InterfaceName) -> Result<Unplugged, WorkloadError> {
    let step = Step::RemoveLink { interface: interface.clone() };
    let refused = |source| WorkloadError::step(&step, source);
    let Some(link) = kernel.link(interface).await.map_err(refused)? else {
        return Ok(Unplugged::WasAbsent);
    };
    match kernel.delete_link(link.index).await {
        Ok(()) => Ok(Unplugged::Removed),
        // The other end, or the whole namespace, went away in between.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {
            Ok(Unplugged::WasAbsent)
        }
        Err(error) => Err(refused(error)),
    }
}

async fn run(kernel: &Kernel, steps: &[Step], peer_netns: Option<&Netns>) -> Result<(), WorkloadError> {
    for step in steps {
        tracing::debug!(%step, "plugging");
        take(kernel, step, peer_netns).await?;
    }
    Ok(())
}

async fn take(kernel: &Kernel, step: &Step, peer_netns: Option<&Netns>) -> Result<(), WorkloadError> {
    let done = match step {
        Step::RemoveLink { interface } => return remove(kernel, interface).await.map(drop),
        Step::AddWorkloadRoute { interface, dst } => {
            return add_workload_route(kernel, step, interface, *dst).await;
        }
        Step::CreatePair { host, host_mac, peer, peer_mac, mtu, queues } => match peer_netns {
            None => Err(io::Error::other("the pair spans two namespaces")),
            Some(netns) => {
                let pair = Pair {
                    host,
                    host_mac: *host_mac,
                    peer,
                    peer_mac: *peer_mac,
                    peer_netns: netns.as_raw_fd(),
                    mtu: *mtu,
                    queues: *queues,
                };
                kernel.create_pair(&pair).await
            }
        },
        Step::Set { setting, value, lenience } => write_setting(setting, *value, *lenience),
        Step::AddAddress { interface, addr } => match find(kernel, interface).await {
            Ok(link) => kernel.add_address(link.index, *addr).await,
            Err(error) => Err(error),
        },
        Step::SetUp { interface } => match find(kernel, interface).await {
            Ok(link) => kernel.set_up(link.index).await,
            Err(error) => Err(error),
        },
        Step::AddNeighbour { interface, addr, mac } => match find(kernel, interface).await {
            Ok(link) => kernel.add_neighbour(link.index, *addr, *mac).await,
            Err(error) => Err(error),
        },
        Step::AddLinkRoute { interface, dst } => add_inner_route(kernel, interface, *dst, Target::Link).await,
        Step::AddDefaultRoute { interface, via } => {
            let everything = Cidr::holding(*via, 0).expect("zero is a length of either family");
            add_inner_route(kernel, interface, everything, Target::Gateway(*via)).await
        }
    };
    done.map_err(|source| WorkloadError::step(step, source))
}

async fn add_inner_route(
    kernel: &Kernel,
    interface: &InterfaceName,
    dst: Cidr,
    target: Target,
) -> io::Result<()> {
    let link = find(kernel, interface).await?;
    kernel.add_route(link.index, dst, target, Origin::Workload, IfThere::Fail).await
}

async fn find(kernel: &Kernel, interface: &InterfaceName) -> io::Result<Link> {
    let link = kernel.link(interface).await?;
    link.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{interface} does not exist")))
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
    kernel: &Kernel,
    step: &Step,
    interface: &InterfaceName,
    dst: Cidr,
) -> Result<(), WorkloadError> {
    let refused = |source| WorkloadError::step(step, source);
    let index = find(kernel, interface).await.map_err(refused)?.index;
    let add = |if_there| kernel.add_route(index, dst, Target::Link, Origin::Node, if_there);
    match add(IfThere::Fail).await {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refused(error)),
    }
    let there = kernel.route_to(dst.addr()).await.map_err(refused)?.filter(|route| route.dst == Some(dst));
    let over = there.and_then(|route| route.interface);
    if over == Some(index) {
        return Ok(());
    }
    let other = match over {
        Some(over) => kernel.link_name(over).await.map_err(refused)?,
        None => None,
    };
    match other {
        Some(other) if is_workload(&other, interface) => {
            Err(WorkloadError::AddressInUse { step: Box::new(step.clone()), other })
        }
        // Left over from when the address was another node's; the agent would replace it too, only later.
        _ => add(IfThere::Replace).await.map_err(refused),
    }
}

/// Reports whether `other` is named as the interfaces of workloads are, of which `one` is an example: a prefix and 11
/// characters.
fn is_workload(other: &InterfaceName, one: &InterfaceName) -> bool {
    let prefix = one.as_str().get(..one.as_str().len().saturating_sub(11)).unwrap_or_default();
    !prefix.is_empty() && other.as_str().starts_with(prefix)
}
