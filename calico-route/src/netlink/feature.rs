//! Who computes the checksums of what a device sends: a request of ethtool's that every kernel answers. (Its netlink family
//! speaks of a device's features only since 5.7.)

#![allow(unsafe_code, reason = "nothing safe wraps this ioctl")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use calico_model::InterfaceName;
use nix::libc::{Ioctl, c_char, ifreq, ioctl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: Ioctl = 0x8946;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ENODEV: i32 = 19;

/// Returns those of the devices that leave checksums to the hardware. One that is gone by now is not among them.
pub(super) fn offloading<'d>(devices: impl Iterator<Item = &'d InterfaceName>) -> BTreeSet<InterfaceName> {
    devices.filter(|device| may_offload(&ask(device, ETHTOOL_GTXCSUM, 0))).cloned().collect()
}

/// Reads the answer about one device. Where there is none, a device is taken for one that does: it is then told not to, and if
/// that is refused as well, the refusal names it while everything else goes on.
fn may_offload(answer: &io::Result<u32>) -> bool {
    match answer {
        Ok(value) => *value != 0,
        Err(error) => error.raw_os_error() != Some(ENODEV),
    }
}

/// Has the kernel compute the checksums of what a device sends, as `ethtool -K DEVICE tx off` does.
pub(super) fn stop_offload(device: &InterfaceName) -> io::Result<()> {
    ask(device, ETHTOOL_STXCSUM, 0).map(drop)
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Asks about a device of this thread's namespace; returns what the kernel made of `data`.
fn ask(device: &InterfaceName, command: u32, data: u32) -> io::Result<u32> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data };
    // SAFETY: of integers and pointers alone; zeros are a name of no length and a null pointer.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    let name = device.as_str().bytes();
    request.ifr_name.iter_mut().zip(name).for_each(|(to, byte)| *to = c_char::from_ne_bytes([byte]));
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: for this request the kernel reads an `ifreq`, whose name ends with a zero because one of an interface has at
    // most 15 bytes, and for these commands it reads and writes one `ethtool_value` where `ifru_data` points to. Both
    // live until the call returns.
    let done = unsafe { ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_asked_is_told_and_one_that_is_gone_is_not() {
        let refused = |errno| Err(io::Error::from_raw_os_error(errno));
        let (not_permitted, not_supported) = (1, 95);
        assert!(may_offload(&Ok(1)));
        assert!(!may_offload(&Ok(0)));
        assert!(!may_offload(&refused(ENODEV)));
        assert!(may_offload(&refused(not_permitted)));
        assert!(may_offload(&refused(not_supported)));
        assert!(may_offload(&Err(io::Error::other("no socket"))));
    }
}
