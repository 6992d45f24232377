//! Who computes the checksums of what a device sends, over ethtool's netlink family.
//!
//! ```text
//! generic message: genlmsghdr (command, version, 0, 0), attributes
//! a set of bits:   BITS [ BIT [ NAME "tx-checksum-..." ] ... ]; in an answer those that are set, in a request those that are
//!                  to change, to 1 where the bit has VALUE too
//! ```

use std::collections::BTreeSet;

use calico_model::InterfaceName;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::codec::{Batch, Message, attributes, text, u16_at};
use super::namespace::NetworkNamespace;
use super::socket::{DumpError, NetlinkSocket};
use crate::error::{ConnectError, ReadError};

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// What `ethtool -K DEVICE tx off` switches off, as far as IP is concerned.
const CHECKSUMS: [&str; 3] = ["tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6"];

/// No such request.
const EOPNOTSUPP: i32 = 95;
/// Room in bytes for the answers: about devices one at a time.
const ROOM: usize = 64 << 10;

/// Returns those of the devices that leave checksums to the hardware; `None` where the kernel cannot be asked: before 5.6 it
/// does not speak of devices at all, before 5.7 not of their features.
pub(super) async fn offloading(
    namespace: &NetworkNamespace,
    devices: Vec<&InterfaceName>,
) -> Result<Option<BTreeSet<InterfaceName>>, ReadError> {
    let mut offloading = BTreeSet::new();
    if devices.is_empty() {
        return Ok(Some(offloading));
    }
    let lost = |source| ReadError::Socket { what: "features of devices", source };
    let mut features = match Features::connect(namespace).await {
        Ok(features) => features,
        Err(DumpError::Socket(source)) => return Err(lost(source)),
        Err(DumpError::Refused(_) | DumpError::Interrupted) => return Ok(None),
    };
    for device in devices {
        match features.offloads(device).await {
            Ok(true) => drop(offloading.insert(device.clone())),
            Err(DumpError::Refused(refusal)) if refusal.errno() == EOPNOTSUPP => return Ok(None),
            // A device that is gone by now has no features.
            Ok(false) | Err(DumpError::Refused(_) | DumpError::Interrupted) => {}
            Err(DumpError::Socket(source)) => return Err(lost(source)),
        }
    }
    Ok(Some(offloading))
}

/// Has the kernel compute the checksums of what a device sends.
pub(super) async fn stop_offload(
    namespace: &NetworkNamespace,
    device: &InterfaceName,
) -> Result<(), DumpError> {
    Features::connect(namespace).await?.stop_offload(device).await
}

/// A socket for what is about the features of devices.
struct Features {
    socket: NetlinkSocket,
    family: u16,
}

impl Features {
    async fn connect(namespace: &NetworkNamespace) -> Result<Self, DumpError> {
        let opened = NetlinkSocket::open(NETLINK_GENERIC, namespace, &[], ROOM);
        let mut socket = opened.map_err(|error| match error {
            ConnectError::Socket(source) | ConnectError::Namespace(source) => source,
        })?;
        let mut family = 0;
        let name = |batch: &mut Batch| batch.text(CTRL_ATTR_FAMILY_NAME, "ethtool");
        let each = |message: &Message<'_>| {
            let mut ids = attributes_of(message).filter(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
            family = ids.next().and_then(|(_, id)| u16_at(id, 0)).unwrap_or(family);
        };
        socket.get(GENL_ID_CTRL, &header(CTRL_CMD_GETFAMILY), name, each).await?;
        Ok(Self { socket, family })
    }

    async fn offloads(&mut self, device: &InterfaceName) -> Result<bool, DumpError> {
        let mut found = false;
        let each = |message: &Message<'_>| found |= any_offloaded(message);
        self.socket.get(self.family, &header(ETHTOOL_MSG_FEATURES_GET), named(device), each).await?;
        Ok(found)
    }

    async fn stop_offload(&mut self, device: &InterfaceName) -> Result<(), DumpError> {
        let wanted = |batch: &mut Batch| {
            named(device)(batch);
            let wanted = batch.nest(ETHTOOL_A_FEATURES_WANTED);
            let bits = batch.nest(ETHTOOL_A_BITSET_BITS);
            for name in CHECKSUMS {
                let bit = batch.nest(ETHTOOL_A_BITSET_BITS_BIT);
                batch.text(ETHTOOL_A_BITSET_BIT_NAME, name);
                batch.end_nest(bit);
            }
            batch.end_nest(bits);
            batch.end_nest(wanted);
        };
        self.socket.get(self.family, &header(ETHTOOL_MSG_FEATURES_SET), wanted, |_| {}).await
    }
}

/// `struct genlmsghdr`.
fn header(command: u8) -> [u8; 4] {
    [command, 1, 0, 0]
}

fn named(device: &InterfaceName) -> impl Fn(&mut Batch) {
    move |batch| {
        let header = batch.nest(ETHTOOL_A_FEATURES_HEADER);
        batch.text(ETHTOOL_A_HEADER_DEV_NAME, device.as_str());
        batch.end_nest(header);
    }
}

/// Reads from the features of a device whether one of [`CHECKSUMS`] is active.
fn any_offloaded(message: &Message<'_>) -> bool {
    let active = attributes_of(message).filter(|(kind, _)| *kind == ETHTOOL_A_FEATURES_ACTIVE);
    let bits = active.flat_map(|(_, active)| inside(active, ETHTOOL_A_BITSET_BITS));
    let each = bits.flat_map(|bits| inside(bits, ETHTOOL_A_BITSET_BITS_BIT));
    let mut names = each.flat_map(|bit| inside(bit, ETHTOOL_A_BITSET_BIT_NAME)).filter_map(text);
    names.any(|name| CHECKSUMS.contains(&name))
}

fn attributes_of<'b>(message: &Message<'b>) -> impl Iterator<Item = (u16, &'b [u8])> {
    attributes(message.body.get(4..).unwrap_or_default())
}

fn inside(bytes: &[u8], wanted: u16) -> impl Iterator<Item = &[u8]> {
    attributes(bytes).filter(move |(kind, _)| *kind == wanted).map(|(_, value)| value)
}
