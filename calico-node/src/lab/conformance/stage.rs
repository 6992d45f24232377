//! Where packets are sent: hosts, workloads and an outside as namespaces, wired as Calico wires them, with the rules of
//! each host in its kernel.
//!
//! Hosts and router are a [`Lab`] without programs; workloads are plugged in and rules put in force in this process, by the
//! code that the CNI program and the agent use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calico_model::name::pod_interface_name;
use calico_model::{Mac, NodeName};
use calico_policy::iptables::{self, Iptables, Leftover};
use calico_policy::nft::{self, Nft};
use calico_policy::{Delta, Ruleset};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::super::probe::Verdict;
use super::super::wait::{Interrupt, Stopwatch};
use super::super::{Lab, LabOptions, Programs, Topology, command, netns};
use super::Filter;
use super::ask::UPLINK;
use super::cases::Service;
use super::error::ConformanceError;
use super::prober::{Prober, Shot};
use super::scene::{End, Placement, Seat, host_addr, host_name};
use crate::workload::{Attachment, Forwarding, Netns, inside, plug};

const GATEWAY: &str = "172.16.6.254";

/// Hosts and ends, up and wired. Gone when dropped.
pub(super) struct Stage {
    prober: Prober,
    places: BTreeMap<End, usize>,
    hosts: Vec<HostKernel>,
    _lab: Lab,
}

/// The kernel of one host.
struct HostKernel {
    node: NodeName,
    netns: String,
    filter: Rules,
    in_force: Option<Ruleset>,
    conntrack: OwnedFd,
}

/// The way to a host's rules.
enum Rules {
    Nftables(Nft),
    Iptables(Iptables),
}

impl Stage {
    /// Makes the namespaces, plugs every end in, and closes every workload: no rules, no way.
    pub(super) fn up(
        filter: Filter,
        ends: &BTreeSet<End>,
        services: &BTreeSet<Service>,
        placement: &Placement,
        interrupt: &Interrupt,
    ) -> Result<Self, ConformanceError> {
        let pods: Vec<(&End, &str, usize)> = ends
            .iter()
            .filter_map(|end| match &end.seat {
                Seat::Pod { name, host } => Some((end, name.as_str(), *host)),
                Seat::Host(_) | Seat::Outside => None,
            })
            .collect();
        let lab = wire(&pods, placement, interrupt)?;
        let outside: Vec<&End> = ends.iter().filter(|end| end.seat == Seat::Outside).collect();
        route(&lab, &pods, &outside)?;
        plug_all(&lab, &pods)?;
        let netns_of = |end: &End| match &end.seat {
            Seat::Pod { .. } => {
                let index = pods.iter().position(|(pod, ..)| *pod == end).unwrap_or(0);
                lab.state().workloads[index].netns.clone()
            }
            Seat::Host(host) => lab.state().hosts[*host].netns.clone(),
            Seat::Outside => lab.state().router.clone(),
        };
        let mut seats = Vec::new();
        for end in ends {
            let name = netns_of(end);
            let attempt = format!("open the network namespace {name}");
            seats.push((File::open(netns::path(&name)).map_err(ConformanceError::io(attempt))?, end.addr));
        }
        let prober = Prober::seat(seats, services).map_err(ConformanceError::io("listen for probes"))?;
        let places = ends.iter().cloned().enumerate().map(|(index, end)| (end, index)).collect();
        let hosts = (0..placement.hosts.count()).map(|host| HostKernel::open(&lab, host, filter));
        let hosts = hosts.collect::<Result<_, _>>()?;
        Ok(Self { prober, places, hosts, _lab: lab })
    }

    /// Reports whether all these ends are there.
    pub(super) fn seats(&self, ends: &BTreeSet<End>) -> bool {
        ends.iter().all(|end| self.places.contains_key(end))
    }

    /// Puts rules in force on every host, forgets all flows, and returns how long the former took.
    pub(super) fn enforce(&mut self, rules: Vec<(NodeName, Ruleset)>) -> Result<Duration, ConformanceError> {
        let clock = Stopwatch::start();
        for (node, rules) in rules {
            let host = self.hosts.iter_mut().find(|host| host.node == node);
            if let Some(host) = host {
                host.enforce(rules)?;
            }
        }
        let took = clock.elapsed();
        self.hosts.iter().try_for_each(HostKernel::forget_flows)?;
        Ok(took)
    }

    /// Takes all rules away, which opens every way.
    pub(super) fn remove_rules(&mut self) -> Result<(), ConformanceError> {
        for host in &mut self.hosts {
            host.remove_rules()?;
        }
        Ok(())
    }

    /// Opens the namespaces of the hosts.
    pub(super) fn host_namespaces(&self) -> Result<Vec<File>, ConformanceError> {
        let open = |host: &HostKernel| File::open(netns::path(&host.netns));
        let opened = self.hosts.iter().map(open).collect::<io::Result<_>>();
        opened.map_err(ConformanceError::io("open a host's namespace"))
    }

    /// Opens the namespace that an end sits in.
    pub(super) fn namespace(&self, end: &End) -> Result<File, ConformanceError> {
        let place = self.places.get(end).copied().unwrap_or(0);
        self.prober.namespace(place).map_err(ConformanceError::io("open a workload's namespace"))
    }

    /// Compares each kernel with what was written to it.
    pub(super) fn audit(&mut self, case: &str) -> Result<(), ConformanceError> {
        for host in &mut self.hosts {
            let missing = host.missing()?;
            if !missing.is_empty() {
                let (case, host) = (case.to_owned(), host.node.to_string());
                return Err(ConformanceError::Drift { case, host, missing });
            }
        }
        Ok(())
    }

    /// Sends probes, each from an end to an end, all at once.
    pub(super) fn probe(
        &mut self,
        probes: &[(End, End, Service)],
        patience: Duration,
    ) -> Result<Vec<Verdict>, ConformanceError> {
        let shots: Vec<Shot> = probes
            .iter()
            .map(|(from, to, service)| Shot {
                from: self.places.get(from).copied().unwrap_or(0),
                to: to.addr,
                service: *service,
            })
            .collect();
        self.prober.pass(&shots, patience).map_err(ConformanceError::io("send probes"))
    }
}

impl HostKernel {
    fn open(lab: &Lab, host: usize, filter: Filter) -> Result<Self, ConformanceError> {
        let state = &lab.state().hosts[host];
        let attempt = format!("talk to connection tracking of {}", state.name);
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)
        };
        let conntrack = netns::within(&state.netns, open)?.map_err(ConformanceError::io(attempt.clone()))?;
        let node =
            state.name.parse().map_err(|_| ConformanceError::io(attempt)(io::ErrorKind::InvalidInput))?;
        let filter = match filter {
            Filter::Nftables => Rules::Nftables(Nft::new()),
            Filter::Iptables(variant) => Rules::Iptables(Iptables::new(variant)),
        };
        Ok(Self { node, netns: state.netns.clone(), filter, in_force: None, conntrack })
    }

    /// Puts rules in force as the agent does: from what was put in force before, and from the kernel the first time.
    fn enforce(&mut self, rules: Ruleset) -> Result<(), ConformanceError> {
        let before = self.in_force.take();
        let (netns, wanted) = (&self.netns, &rules);
        match &mut self.filter {
            Rules::Nftables(nft) => {
                let done = match before {
                    Some(before) => nft.apply(&nft::plan(wanted, &nft::Actual::holding(&before))),
                    // The socket stays in the namespace of the thread that opens it.
                    None => netns::within(netns, move || nft.sync(wanted).map(drop))?,
                };
                done.map_err(|source| self.refused(source))?;
            }
            Rules::Iptables(iptables) => {
                let options = iptables::Options::default();
                let written = netns::within(netns, move || match before {
                    Some(before) => iptables.change(&Delta::between(&before, wanted), wanted, &options),
                    None => iptables.sync(wanted, &options),
                })?;
                let written = written.map_err(|source| self.broken(source))?;
                if !written.refused.is_empty() {
                    let each =
                        written.refused.iter().map(|refused| format!("{}: {}", refused.what, refused.why));
                    let refused = each.collect::<Vec<_>>().join("; ");
                    return Err(ConformanceError::Refused { host: self.node.to_string(), refused });
                }
            }
        }
        self.in_force = Some(rules);
        Ok(())
    }

    fn remove_rules(&mut self) -> Result<(), ConformanceError> {
        self.in_force = None;
        match &mut self.filter {
            Rules::Nftables(nft) => {
                nft.apply(&nft::Transaction::removal()).map_err(|source| self.refused(source))
            }
            Rules::Iptables(iptables) => {
                let removed = netns::within(&self.netns, move || iptables.remove(Leftover::RulesAndSets))?;
                removed.map(drop).map_err(|source| self.broken(source))
            }
        }
    }

    /// Returns what the kernel lacks of what was written to it, as text: nothing when it holds all, and nothing else.
    fn missing(&mut self) -> Result<String, ConformanceError> {
        let Some(rules) = &self.in_force else { return Ok(String::new()) };
        match &mut self.filter {
            Rules::Nftables(nft) => {
                let actual = nft.read().map_err(|source| self.refused(source))?;
                Ok(nft::plan(rules, &actual).to_string())
            }
            Rules::Iptables(iptables) => {
                let program = iptables::lower(rules, &iptables::Options::default());
                let missing = netns::within(&self.netns, move || iptables.missing(&program))?;
                Ok(missing.map_err(|source| self.broken(source))?.to_string())
            }
        }
    }

    fn refused(&self, source: nft::ApplyError) -> ConformanceError {
        ConformanceError::Rules { host: self.node.to_string(), source }
    }

    fn broken(&self, source: iptables::ApplyError) -> ConformanceError {
        ConformanceError::Iptables { host: self.node.to_string(), source }
    }

    /// Flushes connection tracking: a request to delete that names no connection (`nfnetlink_conntrack.h`).
    fn forget_flows(&self) -> Result<(), ConformanceError> {
        const DELETE: u16 = 1 << 8 | 2;
        const REQUEST_WITH_ANSWER: u16 = 1 | 4;
        let mut request = [0; 20];
        request[..4].copy_from_slice(&20_u32.to_ne_bytes());
        request[4..6].copy_from_slice(&DELETE.to_ne_bytes());
        request[6..8].copy_from_slice(&REQUEST_WITH_ANSWER.to_ne_bytes());
        let attempt = format!("forget the connections of {}", self.node);
        let ask = || -> io::Result<i32> {
            let fd = self.conntrack.as_raw_fd();
            sendto(fd, &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
            let mut answer = [0; 256];
            recv(fd, &mut answer, MsgFlags::empty())?;
            Ok(i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]))
        };
        match ask().map_err(ConformanceError::io(attempt.clone()))? {
            0 => Ok(()),
            errno => Err(ConformanceError::io(attempt)(io::Error::from_raw_os_error(-errno))),
        }
    }
}

/// Makes hosts, a router and a namespace for each pod.
fn wire(
    pods: &[(&End, &str, usize)],
    placement: &Placement,
    interrupt: &Interrupt,
) -> Result<Lab, ConformanceError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("cf{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut yaml = format!(
        "name: {name}\nsubnets: [{{name: hosts, cidr: 172.16.6.0/24, gateway: {GATEWAY}}}]\nhosts:\n"
    );
    // Writing to a String cannot fail.
    for host in 0..placement.hosts.count() {
        let _ = writeln!(yaml, "- {{name: {}, address: {}}}", host_name(host), host_addr(host));
    }
    yaml.push_str("workloads:\n");
    for (index, (_, _, host)) in pods.iter().enumerate() {
        let _ = writeln!(yaml, "- {{name: p{index}, host: {}}}", host_name(*host));
    }
    let topology: Topology = yaml.parse().map_err(super::super::LabError::from)?;
    let options = LabOptions::default().programs(Programs::None).interrupt(interrupt.clone());
    Ok(Lab::up(&topology, options)?)
}

/// Lets hosts forward, and says to each where the others' workloads are.
fn route(lab: &Lab, pods: &[(&End, &str, usize)], outside: &[&End]) -> Result<(), ConformanceError> {
    let state = lab.state();
    let mut of_router = String::new();
    for end in outside {
        let _ = writeln!(of_router, "addr add {}/32 dev lo", end.addr);
    }
    for (end, _, host) in pods {
        let _ = writeln!(of_router, "route add {}/32 via {}", end.addr, host_addr(*host));
    }
    command::ip_batch(Some(&state.router), &of_router)?;
    for (index, host) in state.hosts.iter().enumerate() {
        netns::within(&host.netns, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .map_err(ConformanceError::io(format!("let {} forward", host.name)))?;
        let mut lines = String::new();
        for (end, _, home) in pods.iter().filter(|(_, _, home)| *home != index) {
            let _ = writeln!(lines, "route add {}/32 via {} dev {UPLINK}", end.addr, host_addr(*home));
        }
        command::ip_batch(Some(&host.netns), &lines)?;
    }
    Ok(())
}

fn plug_all(lab: &Lab, pods: &[(&End, &str, usize)]) -> Result<(), ConformanceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ConformanceError::io("start a runtime"))?;
    for ((end, name, host), workload) in pods.iter().zip(&lab.state().workloads) {
        let plugged = |source| ConformanceError::Plug { workload: (*name).to_owned(), source };
        let attachment = attachment(end, name)
            .map_err(|reason| ConformanceError::Case { case: (*name).to_owned(), reason })?;
        let path = netns::path(&workload.netns);
        let host = Netns::open(&netns::path(&lab.state().hosts[*host].netns)).map_err(plugged)?;
        let done = inside(&host, move || async move { plug(&attachment, &Netns::open(&path)?).await });
        runtime.block_on(done).and_then(|done| done).map_err(plugged)?;
    }
    Ok(())
}

fn attachment(end: &End, pod: &str) -> Result<Attachment, String> {
    let (namespace, name) = pod.split_once('/').ok_or_else(|| format!("{pod} is no namespace/name"))?;
    let [a, b, c, d] = end.addr.octets();
    Ok(Attachment {
        host_interface: pod_interface_name(namespace, name),
        interface: "eth0".parse().map_err(|error| format!("{error}"))?,
        mac: Mac([2, 0, a, b, c, d]),
        addresses: vec![end.ip()],
        mtu: None,
        queues: None,
        forwarding: Forwarding::Off,
    })
}

/// Lets this process hold as many sockets at once as the system permits: a pass has one for each probe.
pub(super) fn allow_many_sockets() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    // With fewer sockets, a pass that needs more says so itself.
    let _ = raised;
}
