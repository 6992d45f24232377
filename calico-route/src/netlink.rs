//! A real kernel, over route netlink (feature `netlink`).
//!
//! [`Netlink`] has one socket for requests. It reads and writes the namespace it was connected in, whatever thread calls
//! it later, and never changes a thread's namespace. All of it needs a tokio runtime (current-thread or multi-thread)
//! with IO enabled. A runtime's thread is held up for as long as the kernel takes for one batch, and by [`Netlink::read`] for as
//! long as eight small files of each workload's interface take.
//!
//! Routes, neighbours and forwarding entries are written in batches of 256, or of 64 KiB, each answered once and before the
//! next is sent; links one by one, because what follows needs their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use calico_model::{Family, InterfaceName, Mac};
use netlink_sys::protocols::NETLINK_ROUTE;

mod codec;
mod conntrack;
mod feature;
mod namespace;
mod read;
mod route;
mod socket;
mod sysctl;
mod watch;
mod write;

pub use crate::error::{ConnectError, ReadError, Refusal, WriteError};
pub use conntrack::{Connection, ConntrackError, Tuple};
pub use watch::{Event, Subject, Watch};

use crate::actual::{Actual, Ipv6, Link, LinkKind};
use crate::change::Change;
use crate::desired::Desired;
use crate::device::{Checksums, VxlanParams, vxlan_device};
use crate::diff::diff;
use crate::ownership::{Ownership, PROTOCOL};
use crate::sysctl::Sysctl;
use codec::Batch;
use namespace::NetworkNamespace;
use socket::{NetlinkSocket, RECEIVE_BUFFER};
use write::{Indexes, NoDevice};

/// Messages per send: more of them gain little and hold up the runtime longer.
const BATCH: usize = 256;
/// Bytes after which a send is full: what is larger than a socket's send buffer, often 208 KiB, the kernel refuses as a whole.
const BATCH_BYTES: usize = 64 << 10;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;

/// A connection to the kernel of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    namespace: NetworkNamespace,
    socket: NetlinkSocket,
    indexes: DeviceIndexes,
    protocol: u8,
}

/// A pair of interfaces that are each other's wire, to be made in two namespaces.
#[derive(Debug, Clone, Copy)]
pub struct VethPair<'p> {
    /// The end in this namespace.
    pub host: &'p InterfaceName,
    /// Its MAC address.
    pub host_mac: Mac,
    /// The other end.
    pub peer: &'p InterfaceName,
    /// Its MAC address.
    pub peer_mac: Mac,
    /// The namespace of the other end.
    pub peer_namespace: BorrowedFd<'p>,
    /// The MTU of both ends in bytes; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// The number of transmit and of receive queues of both ends; `None` is one.
    pub queues: Option<u32>,
}

/// What became of one change.
#[derive(Debug)]
pub struct Outcome<'c> {
    /// The change.
    pub change: &'c Change,
    /// Whether it was made.
    pub result: Result<(), WriteError>,
}

#[derive(Debug, Default)]
struct DeviceIndexes(BTreeMap<InterfaceName, u32>);

impl Indexes for DeviceIndexes {
    fn index(&self, device: &InterfaceName) -> Option<u32> {
        self.0.get(device).copied()
    }
}

impl Netlink {
    /// Connects to the kernel in the calling thread's network namespace.
    ///
    /// # Errors
    /// When no netlink socket can be opened.
    pub fn connect() -> Result<Self, ConnectError> {
        NetworkNamespace::of_this_thread().map_err(ConnectError::Namespace).and_then(Self::connect_to)
    }

    /// Connects to the kernel in the network namespace that a file descriptor (of `/run/netns/NAME`, or of a process's
    /// `ns/net`) stands for.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no netlink socket can be opened there.
    pub fn connect_in(namespace: BorrowedFd<'_>) -> Result<Self, ConnectError> {
        NetworkNamespace::from_fd(namespace).map_err(ConnectError::Namespace).and_then(Self::connect_to)
    }

    fn connect_to(namespace: NetworkNamespace) -> Result<Self, ConnectError> {
        let socket = NetlinkSocket::open(NETLINK_ROUTE, &namespace, &[], RECEIVE_BUFFER)?;
        Ok(Self { namespace, socket, indexes: DeviceIndexes::default(), protocol: PROTOCOL })
    }

    /// Has routes that are added here bear another protocol number than [`PROTOCOL`]: for a namespace that is not the
    /// node's.
    #[must_use]
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// Finds a link by name, without its addresses. After [`Netlink::read`] or this, changes of the link can be applied.
    ///
    /// # Errors
    /// When the kernel does not answer. Retryable.
    pub async fn link(&mut self, device: &InterfaceName) -> Result<Option<Link>, ReadError> {
        let link = read::read_link(&mut self.socket, device).await?;
        match &link {
            Some(link) => self.indexes.0.insert(device.clone(), link.index),
            None => self.indexes.0.remove(device),
        };
        Ok(link)
    }

    /// Makes a veth pair.
    ///
    /// # Errors
    /// When the kernel refuses; then there is neither end.
    pub async fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), WriteError> {
        let change = || format!("link add {} type veth peer name {}", pair.host, pair.peer);
        let mut batch = Batch::default();
        write::encode_veth(pair, self.socket.next_sequence(), &mut batch);
        match self.socket.transact(&mut batch).await {
            Ok(refusals) => refusals
                .into_iter()
                .next()
                .map_or(Ok(()), |(_, refusal)| Err(WriteError::Refused { change: change(), refusal })),
            Err(source) => Err(WriteError::Unanswered { change: change(), source }),
        }
    }

    /// Reads what the kernel holds: ours, and of the rest what our routes depend on.
    ///
    /// # Errors
    /// When the kernel does not answer, or changes faster than it can be read. Retryable.
    pub async fn read(&mut self, ownership: &Ownership) -> Result<Actual, ReadError> {
        let mut actual = read::read(&mut self.socket, ownership).await?;
        self.indexes.0 = actual.host.links.iter().map(|(name, link)| (name.clone(), link.index)).collect();
        let workloads: Vec<_> =
            actual.host.links.keys().filter(|device| ownership.is_workload(device)).cloned().collect();
        let sysctls = self.namespace.run(|| sysctl::read(&workloads)).map_err(ReadError::Sysctl)?;
        actual.sysctls = sysctls.map_err(ReadError::Sysctl)?;
        if ownership.checksums() == Checksums::Kernel {
            let tunnels = actual.host.links.keys().filter(|device| ownership.is_tunnel(device));
            let asked = self.namespace.run(|| feature::offloading(tunnels));
            let what = "features of devices";
            actual.host.offloading = asked.map_err(|source| ReadError::Socket { what, source })?;
        }
        if !actual.sysctls.contains_key(&Sysctl::forwarding(Family::V6)) {
            actual.host.ipv6 = Ipv6::Absent;
        }
        Ok(actual)
    }

    /// Reads the kernel settings that are looked after, and nothing else: that some of them change no event tells.
    ///
    /// # Errors
    /// When they cannot be read. Retryable.
    pub fn settings(&self, ownership: &Ownership) -> Result<BTreeMap<Sysctl, String>, ReadError> {
        self.namespace.run(|| sysctl::read_all(ownership)).flatten().map_err(ReadError::Sysctl)
    }

    /// Applies changes in their order. Each has its own outcome; none stops the others.
    pub async fn apply<'c>(&mut self, changes: &'c [Change]) -> Vec<Outcome<'c>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let alike = |change: &&Change| Kind::of(change) == Kind::of(first);
            let most = match Kind::of(first) {
                Kind::Entry => BATCH,
                Kind::Link | Kind::Feature => 1,
                Kind::Sysctl => rest.len(),
            };
            let len = rest.iter().take(most).take_while(alike).count();
            let (now, later) = rest.split_at(len);
            let results = match Kind::of(first) {
                Kind::Entry => self.write(now).await,
                Kind::Link => vec![self.write_link(first).await],
                Kind::Feature => vec![self.write_feature(first)],
                Kind::Sysctl => self.write_sysctls(now),
            };
            outcomes.extend(now.iter().zip(results).map(|(change, result)| Outcome { change, result }));
            rest = later;
        }
        outcomes
    }

    /// Removes everything of ours: routes, tunnel devices, neighbours. Kernel settings stay.
    ///
    /// # Errors
    /// When the kernel cannot be read. What could not be removed is returned.
    pub async fn cleanup(&mut self, ownership: &Ownership) -> Result<Vec<(Change, WriteError)>, ReadError> {
        let actual = self.read(ownership).await?;
        let changes = diff(&Desired::nothing(ownership.clone()), &actual);
        let outcomes = self.apply(&changes).await;
        let failed = |outcome: Outcome<'_>| Some((outcome.change.clone(), outcome.result.err()?));
        Ok(outcomes.into_iter().filter_map(failed).collect())
    }

    /// Deletes every tracked connection that one of these addresses has a part in, in either direction and behind any
    /// address translation; returns how many. See [`crate::departed`] for when.
    ///
    /// # Errors
    /// When connection tracking cannot be talked to. Retryable.
    pub async fn forget_connections(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<usize, ConntrackError> {
        if addresses.is_empty() {
            return Ok(0);
        }
        conntrack::forget(&self.namespace, addresses).await
    }

    /// Lists the tracked connections that are wanted. One that comes or ends meanwhile may be listed or not.
    ///
    /// # Errors
    /// When connection tracking cannot be talked to. Retryable.
    pub async fn connections(
        &self,
        wanted: impl FnMut(&Connection) -> bool,
    ) -> Result<Vec<Connection>, ConntrackError> {
        conntrack::list(&self.namespace, wanted).await
    }

    /// Makes the bits of `mask` in tracked connections' marks those of `bits`, and leaves the other bits; returns of how
    /// many. One that has ended meanwhile is not among them.
    ///
    /// # Errors
    /// When connection tracking cannot be talked to. Retryable.
    pub async fn mark_connections(
        &self,
        connections: &[Connection],
        mask: u32,
        bits: u32,
    ) -> Result<usize, ConntrackError> {
        if connections.is_empty() {
            return Ok(0);
        }
        conntrack::mark(&self.namespace, connections, mask, bits).await
    }

    /// Subscribes to what changes in the kernel. Subscribe first and read after, so that nothing is missed.
    ///
    /// # Errors
    /// When no further socket can be opened.
    pub async fn watch(&mut self, ownership: &Ownership) -> Result<Watch, WatchError> {
        self.watch_with(ownership, RECEIVE_BUFFER).await
    }

    /// Subscribes like [`Netlink::watch`], with room for `receive_buffer` bytes of what nobody has read yet instead of
    /// 16 MiB. What does not fit is told as [`Event::Overrun`].
    ///
    /// # Errors
    /// When no further socket can be opened.
    pub async fn watch_with(
        &mut self,
        ownership: &Ownership,
        receive_buffer: usize,
    ) -> Result<Watch, WatchError> {
        let socket = NetlinkSocket::open(NETLINK_ROUTE, &self.namespace, &watch::GROUPS, receive_buffer)?;
        Ok(Watch::start(socket, &mut self.socket, ownership).await?)
    }

    async fn write(&mut self, changes: &[Change]) -> Vec<Result<(), WriteError>> {
        let mut results = Vec::with_capacity(changes.len());
        while let Some(rest) = changes.get(results.len()..).filter(|rest| !rest.is_empty()) {
            results.extend(self.send(rest).await);
        }
        results
    }

    /// Writes the first of some changes, as many as one send has room for.
    async fn send(&mut self, changes: &[Change]) -> Vec<Result<(), WriteError>> {
        let mut batch = Batch::default();
        let mut results: Vec<Result<(), WriteError>> = Vec::with_capacity(changes.len());
        let mut first = None;
        for change in changes {
            if batch.bytes().len() >= BATCH_BYTES {
                break;
            }
            let sequence = self.socket.next_sequence();
            first.get_or_insert(sequence);
            let encoded = write::encode(change, sequence, &self.indexes, self.protocol, &mut batch);
            results.push(encoded.map_err(|NoDevice(device)| WriteError::NoDevice { device }));
        }
        match self.socket.transact(&mut batch).await {
            Ok(refusals) => {
                for (sequence, refusal) in refusals {
                    let at = sequence.wrapping_sub(first.unwrap_or(sequence)) as usize;
                    if let (Some(result), Some(change)) = (results.get_mut(at), changes.get(at)) {
                        *result = judge(change, refusal);
                    }
                }
            }
            Err(error) => {
                for (result, change) in results.iter_mut().zip(changes).filter(|(result, _)| result.is_ok()) {
                    let source = std::io::Error::new(error.kind(), error.to_string());
                    *result = Err(WriteError::Unanswered { change: change.to_string(), source });
                }
            }
        }
        results
    }

    async fn write_link(&mut self, change: &Change) -> Result<(), WriteError> {
        let mut result = self.write(std::slice::from_ref(change)).await.pop().unwrap_or(Ok(()));
        if let (Err(error), Change::AddVxlan { device, params, pools, .. }) = (&result, change)
            && error.is_already_there()
            && let Ok(links) = read::read_links(&mut self.socket).await
            && !links.contains_key(device)
        {
            let VxlanParams { vni, port, .. } = *params;
            let has_both = |link: &Link| matches!(&link.kind, LinkKind::Vxlan(its) if (its.vni, its.port) == (vni, port));
            // Those of the two families may share them.
            let other = Family::ALL.map(vxlan_device);
            let by = links.into_iter().find(|(name, link)| !other.contains(name) && has_both(link));
            let (by, pools) = (by.map(|(name, _)| name), pools.clone());
            result = Err(WriteError::VxlanTaken { by, vni, port, pools });
        }
        if let (Ok(()), Change::AddVxlan { device, .. } | Change::AddIpip { device, .. }) = (&result, change)
        {
            // Not found is not an error here: what needs the device says so.
            let _ = self.link(device).await;
        }
        if let (Ok(()), Change::RemoveLink { device }) = (&result, change) {
            self.indexes.0.remove(device);
        }
        result
    }

    fn write_feature(&self, change: &Change) -> Result<(), WriteError> {
        let Change::StopChecksumOffload { device } = change else { return Ok(()) };
        let done = self.namespace.run(|| feature::stop_offload(device)).flatten();
        done.map_err(|source| match source.raw_os_error() {
            Some(errno) => {
                WriteError::Refused { change: change.to_string(), refusal: Refusal::new(errno, None) }
            }
            None => WriteError::Unanswered { change: change.to_string(), source },
        })
    }

    fn write_sysctls(&self, changes: &[Change]) -> Vec<Result<(), WriteError>> {
        match self.namespace.run(|| changes.iter().map(sysctl::write).collect()) {
            Ok(results) => results,
            Err(error) => {
                let lost = |change: &Change| {
                    let source = std::io::Error::new(error.kind(), error.to_string());
                    Err(WriteError::Unanswered { change: change.to_string(), source })
                };
                changes.iter().map(lost).collect()
            }
        }
    }
}

/// A watch could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// There was no socket for it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The links could not be listed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// How a change is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Together with others.
    Entry,
    /// Alone.
    Link,
    /// By another call.
    Feature,
    /// To a file.
    Sysctl,
}

impl Kind {
    fn of(change: &Change) -> Self {
        match change {
            Change::RemoveLink { .. }
            | Change::AddVxlan { .. }
            | Change::AddIpip { .. }
            | Change::SetLink { .. }
            | Change::ReleaseLink { .. }
            | Change::AddAddress { .. }
            | Change::RemoveAddress { .. } => Kind::Link,
            Change::StopChecksumOffload { .. } => Kind::Feature,
            Change::SetSysctl { .. } => Kind::Sysctl,
            Change::SetNeighbour { .. }
            | Change::RemoveNeighbour { .. }
            | Change::SetFdb(_)
            | Change::ClearFdb { .. }
            | Change::RemoveFdb(_)
            | Change::AddRoute { .. }
            | Change::ReplaceRoute { .. }
            | Change::RemoveRoute { .. } => Kind::Entry,
        }
    }
}

/// Reads a refusal in the light of what was asked.
fn judge(change: &Change, refusal: Refusal) -> Result<(), WriteError> {
    match (change, refusal.errno()) {
        // The module made the device as it was loaded.
        (Change::AddIpip { .. }, EEXIST) => Ok(()),
        (Change::AddIpip { pools, .. }, EOPNOTSUPP) => Err(WriteError::NoIpip { pools: pools.clone() }),
        (Change::AddVxlan { pools, .. }, EOPNOTSUPP) => Err(WriteError::NoVxlan { pools: pools.clone() }),
        _ => Err(WriteError::Refused { change: change.to_string(), refusal }),
    }
}
