//! What the kernel of a host holds, and whether anybody wrote to it: "unchanged" is two claims, that the objects are
//! the same ones, and that nothing was written meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use serde_json::Value;

use super::error::LabError;
use super::wait::{Interrupt, wait_for};
use super::{Lab, command, netns};

/// The kernel objects of one host: what was asked, and the sorted answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelObjects(BTreeMap<&'static str, BTreeSet<String>>);

/// A record of what is written to the routes, links, addresses, permanent neighbours and rulesets of a host.
#[derive(Debug)]
pub struct KernelEvents {
    routes: OwnedFd,
    ruleset: OwnedFd,
}

/// The questions. Handles of rules and indices of links tell whether an object is the same one, or one that was made
/// anew; `-s` leaves counters out.
const QUESTIONS: [(&str, &[&str]); 9] = [
    ("IPv4 addresses", &["ip", "-4", "-o", "address", "show"]),
    ("IPv6 addresses", &["ip", "-6", "-o", "address", "show", "scope", "global"]),
    ("IPv4 routes", &["ip", "-4", "-d", "route", "show", "table", "all"]),
    ("IPv6 routes", &["ip", "-6", "-d", "route", "show", "table", "all"]),
    ("rules", &["ip", "rule", "show"]),
    ("links", &["ip", "-o", "link", "show"]),
    ("neighbours", &["ip", "neighbour", "show", "nud", "permanent"]),
    ("forwarding entries", &["bridge", "fdb", "show"]),
    ("ruleset", &["nft", "-a", "-s", "-j", "list", "ruleset"]),
];

impl Lab {
    /// Reads the kernel objects of a host.
    ///
    /// # Errors
    /// When there is no such host, or a program fails.
    pub fn kernel_objects(&self, host: &str) -> Result<KernelObjects, LabError> {
        let netns = &self.state.host(host)?.netns;
        let mut objects = BTreeMap::new();
        for (name, words) in QUESTIONS {
            let mut question = Command::new(words[0]);
            question.args(&words[1..]);
            let answer = command::run(Some(netns), &mut question, "", &Interrupt::default())?;
            let text = command::succeeded(&command::display(&question), answer)?;
            // The kernel itself makes and removes IPv6 routes for as long as it looks for duplicate addresses, and the groups
            // that a device listens to when IPv6 is switched on or off there.
            let by_kernel = |line: &&str| match name {
                "IPv6 routes" => line.contains("proto kernel"),
                "forwarding entries" => line.starts_with("33:33:"),
                _ => false,
            };
            let lines = match name {
                "ruleset" => ruleset(&text),
                _ => text.lines().filter(|line| !by_kernel(line)).map(str::to_owned).collect(),
            };
            objects.insert(name, lines);
        }
        Ok(KernelObjects(objects))
    }

    /// Starts to record what is written to the kernel of a host.
    ///
    /// # Errors
    /// When there is no such host, or the kernel cannot be listened to.
    pub fn kernel_events(&self, host: &str) -> Result<KernelEvents, LabError> {
        let netns = &self.state.host(host)?.netns;
        netns::within(netns, KernelEvents::open)?
            .map_err(LabError::io(format!("listen to the kernel of {netns}")))
    }
}

impl Lab {
    /// Waits until nothing was written to the kernel of a host for as long as `quiet`, and returns its objects then.
    ///
    /// # Errors
    /// When there is no such host, it cannot be read, or it is never quiet.
    pub fn quiet_kernel_objects(&self, host: &str, quiet: Duration) -> Result<KernelObjects, LabError> {
        let events = self.kernel_events(host)?;
        let silent = wait_for(self.options.patience, &self.options.interrupt, || {
            thread::sleep(quiet);
            Ok(events.drain()?.is_empty().then_some(()))
        })?;
        let command = format!("the writing to the kernel of {host}");
        silent.ok_or(LabError::TooSlow { command, seconds: self.options.patience.as_secs() })?;
        self.kernel_objects(host)
    }
}

impl KernelObjects {
    /// Returns what is in only one of the two: `-` before what `later` has no more, `+` before what it has anew.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let mut lines = Vec::new();
        for (name, before) in &self.0 {
            let after = later.0.get(name).unwrap_or(&nothing);
            lines.extend(before.difference(after).map(|line| format!("- {name}: {line}")));
            lines.extend(after.difference(before).map(|line| format!("+ {name}: {line}")));
        }
        lines
    }

    /// Returns the objects without what tells whether they were made anew: the numbers of links and the handles of rules.
    #[must_use]
    pub fn without_numbers(&self) -> Self {
        let plain = |(name, lines): (&&'static str, &BTreeSet<String>)| {
            let plain = |line: &String| match *name {
                "ruleset" => without_handles(line),
                "links" | "IPv4 addresses" | "IPv6 addresses" => {
                    line.split_once(':').map_or(line.clone(), |(_, rest)| rest.to_owned())
                }
                _ => line.clone(),
            };
            (*name, lines.iter().map(plain).collect())
        };
        Self(self.0.iter().map(plain).collect())
    }

    /// Returns how many objects there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}

impl KernelEvents {
    fn open() -> io::Result<Self> {
        // rtnetlink(7): RTMGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR and _IPV6_ROUTE, and
        // RTNLGRP_IPV6_RULE, which is group 19.
        const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18;
        /// NFNLGRP_NFTABLES is group 7.
        const NFTABLES_GROUP: u32 = 1 << 6;
        Ok(Self {
            routes: listen(SockProtocol::NetlinkRoute, ROUTE_GROUPS)?,
            ruleset: listen(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?,
        })
    }

    /// Returns the names of the writes since the last call.
    ///
    /// # Errors
    /// When the kernel had more to tell than there was room for.
    pub fn drain(&self) -> Result<Vec<String>, LabError> {
        let mut writes = Vec::new();
        let drained = receive(&self.routes, |kind, body| writes.extend(route_write(kind, body)));
        let drained = drained.and_then(|()| {
            receive(&self.ruleset, |kind, _| writes.push(format!("nftables message {}", kind & 0xff)))
        });
        drained.map_err(LabError::io("read all that the kernel tells")).map(|()| writes)
    }
}

/// Takes the ruleset apart: one line for each object, its elements sorted, since a hash set has no order.
fn ruleset(json: &str) -> BTreeSet<String> {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let objects = value.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default();
    objects
        .into_iter()
        .map(|mut object| {
            sort_elements(&mut object);
            object.to_string()
        })
        .collect()
}

fn without_handles(object: &str) -> String {
    let mut object: Value = serde_json::from_str(object).unwrap_or_default();
    let kinds = object.as_object_mut().into_iter().flat_map(|object| object.values_mut());
    kinds.filter_map(Value::as_object_mut).for_each(|object| drop(object.remove("handle")));
    object.to_string()
}

fn sort_elements(object: &mut Value) {
    for kind in ["set", "map"] {
        if let Some(elements) =
            object.get_mut(kind).and_then(|set| set.get_mut("elem")).and_then(Value::as_array_mut)
        {
            elements.sort_by_cached_key(Value::to_string);
        }
    }
}

fn listen(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Hands over each message that waits: its type, and what follows its header (netlink(7): length, type, flags, sequence
/// number, port).
fn receive(socket: &OwnedFd, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
    const HEADER: usize = 16;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut rest = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => &buffer[..length],
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        while let Some((header, _)) = rest.split_at_checked(HEADER) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(message) = rest.get(HEADER..length) else { break };
            take(u16::from_ne_bytes([header[4], header[5]]), message);
            // Messages are aligned to four bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Names a message of rtnetlink; `None` for neighbours that come and go with the traffic, and for what the kernel itself does
/// about IPv6 for as long as it looks for duplicate addresses.
fn route_write(kind: u16, body: &[u8]) -> Option<String> {
    const NUD_PERMANENT: u16 = 0x80;
    const AF_INET6: u8 = 10;
    const SCOPE_LINK: u8 = 253;
    const PROTO_KERNEL: u8 = 2;
    const PROTO_RA: u8 = 9;
    // `struct ndmsg`: the state is at the eighth byte.
    let state = body.get(8..10).map_or(0, |state| u16::from_ne_bytes([state[0], state[1]]));
    let is_ipv6 = body.first() == Some(&AF_INET6);
    let name = match kind {
        // `struct ifaddrmsg`: the scope is the fourth byte.
        20 | 21 if is_ipv6 && body.get(3) == Some(&SCOPE_LINK) => return None,
        // `struct rtmsg`: who made it is the sixth byte.
        24 | 25 if is_ipv6 && matches!(body.get(5), Some(&(PROTO_KERNEL | PROTO_RA))) => return None,
        16 => "RTM_NEWLINK",
        17 => "RTM_DELLINK",
        20 => "RTM_NEWADDR",
        21 => "RTM_DELADDR",
        24 => "RTM_NEWROUTE",
        25 => "RTM_DELROUTE",
        28 if state & NUD_PERMANENT != 0 => "RTM_NEWNEIGH",
        29 if state & NUD_PERMANENT != 0 => "RTM_DELNEIGH",
        28 | 29 => return None,
        32 => "RTM_NEWRULE",
        33 => "RTM_DELRULE",
        other => return Some(format!("rtnetlink message {other}")),
    };
    Some(name.to_owned())
}
