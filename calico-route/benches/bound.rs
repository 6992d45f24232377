//! What one route costs the kernel at least, whoever writes it: plain messages, made beforehand, over a plain socket.
//!
//! `cargo bench -p calico-route --features netlink --bench bound` as root. The rows differ in how many routes go into one
//! request; the last of each request asks for the answer. The second part has routes that name a next-hop object, which
//! spares the kernel the gateway. However good a batch is, it cannot win more over one request and one answer for each
//! route than the kernel's own part leaves: that bound is the last column.
//!
//! The last rows have two threads, each with a socket and half of the routes, and IPv6, of which the kernel takes routes
//! without its lock of all links and routes since 6.16. There the wall time tells: run it as `chrt --rr 50` where others
//! are busy.
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use nix::sys::time::TimeVal;

#[path = "../tests/it/namespace.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod namespace;
use namespace::TestNamespace;

const ROUTES: u32 = 100_000;
const BATCHES: [usize; 5] = [1, 16, 256, 1024, 4096];
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL_CREATE: u16 = 0x600;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_NH_ID: u16 = 30;
const HEADER: usize = 16;

/// How a route says where it leads.
#[derive(Clone, Copy)]
enum Way {
    Gateway,
    Object,
    /// By a gateway, IPv6.
    Six,
}

fn main() {
    println!("CPU for each of {ROUTES} routes, in us, by routes in a request; wall time beside it");
    for (way, words) in [(Way::Gateway, "with a gateway"), (Way::Object, "with a next-hop object")] {
        println!("{words:<24} {:>8} {:>8} {:>8} {:>8} {:>10}", "kernel", "ours", "all", "wall", "at best");
        let mut alone = None;
        for batch in BATCHES {
            let took = install(way, batch, 1);
            let first = *alone.get_or_insert(took.kernel + took.ours);
            println!(
                "{batch:>24} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.2}x",
                took.kernel,
                took.ours,
                took.kernel + took.ours,
                took.wall,
                first / took.kernel
            );
        }
    }
    println!("{:<24} {:>8} {:>8} {:>8} {:>8}", "256 in a request", "kernel", "ours", "all", "wall");
    for (way, threads, words) in [
        (Way::Gateway, 1, "IPv4, one thread"),
        (Way::Gateway, 2, "IPv4, two threads"),
        (Way::Six, 1, "IPv6, one thread"),
        (Way::Six, 2, "IPv6, two threads"),
    ] {
        let Took { kernel, ours, wall } = install(way, 256, threads);
        println!("{words:>24} {kernel:>8.2} {ours:>8.2} {:>8.2} {wall:>8.2}", kernel + ours);
    }
}

/// Microseconds for each route.
struct Took {
    kernel: f64,
    ours: f64,
    wall: f64,
}

fn install(way: Way, batch: usize, threads: usize) -> Took {
    let machine = TestNamespace::new();
    machine.ip("link add eth0 type veth peer name far0");
    machine.ip("address add 172.16.6.1/24 dev eth0");
    machine.ip("address add fd00::1/64 dev eth0 nodad");
    machine.ip("link set far0 up");
    machine.ip("link set eth0 up");
    (0..4).for_each(|at| {
        drop(machine.ip(&format!("nexthop add id {} via 172.16.6.{} dev eth0", at + 1, at + 2)))
    });
    let device = machine.run("cat /sys/class/net/eth0/ifindex").trim().parse().unwrap();
    let connect = || {
        let mut socket = machine.inside(|| Socket::new(NETLINK_ROUTE).unwrap());
        socket.bind_auto().unwrap();
        setsockopt(&socket, SndBufForce, &(4 << 20)).unwrap();
        socket
    };
    let messages: Vec<Vec<u8>> = (0..ROUTES).map(|number| message(number, way, device)).collect();
    let mut requests: Vec<(u32, Vec<u8>)> = Vec::new();
    for (at, chunk) in messages.chunks(batch).enumerate() {
        let mut bytes = chunk.concat();
        let last = bytes.len() - chunk.last().unwrap().len();
        bytes[last + 6..last + 8]
            .copy_from_slice(&(NLM_F_REQUEST | NLM_F_EXCL_CREATE | NLM_F_ACK).to_ne_bytes());
        requests.push(((at * batch + chunk.len() - 1) as u32, bytes));
    }
    let sockets: Vec<Socket> = (0..threads).map(|_| connect()).collect();
    let shares = requests.chunks(requests.len().div_ceil(threads));
    let (start, before) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for (socket, share) in sockets.iter().zip(shares) {
            scope.spawn(move || send(socket, share));
        }
    });
    let (wall, after) = (start.elapsed(), cpu());
    let family = if matches!(way, Way::Six) { "-6" } else { "-4" };
    let laid = machine.ip(&format!("{family} route show proto 80"));
    assert_eq!(laid.lines().count(), ROUTES as usize);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(ROUTES);
    Took { kernel: each(after.1 - before.1), ours: each(after.0 - before.0), wall: each(wall) }
}

/// Sends requests, each with the number of its last message, and waits for the answer of each.
fn send(socket: &Socket, requests: &[(u32, Vec<u8>)]) {
    let mut buffer = vec![0; 1 << 16];
    for (last, bytes) in requests {
        socket.send_to(bytes, &SocketAddr::new(0, 0), 0).unwrap();
        let len = socket.recv(&mut &mut buffer[..], 0).unwrap();
        // The first answer is that of the last message, unless the kernel refused one.
        let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap());
        assert!(len >= HEADER + 4 && buffer[4..6] == NLMSG_ERROR.to_ne_bytes());
        assert_eq!((word(8), word(HEADER)), (*last, 0), "the sequence number, and no error");
    }
}

/// The time in this process's own code, and in the kernel for it.
fn cpu() -> (Duration, Duration) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let duration =
        |time: TimeVal| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs());
    (duration(usage.user_time()), duration(usage.system_time()))
}

fn message(number: u32, way: Way, device: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let (family, len) = if matches!(way, Way::Six) { (10, 122) } else { (2, 26) };
    // struct rtmsg: table main, protocol 80, scope universe, unicast.
    bytes.extend([family, len, 0, 0, 254, 80, 0, 1, 0, 0, 0, 0]);
    let mut attribute = |kind: u16, value: &[u8]| {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    };
    attribute(RTA_PRIORITY, &1024u32.to_ne_bytes());
    match way {
        Way::Gateway => {
            attribute(RTA_DST, &((10 << 24) + (number << 6)).to_be_bytes());
            attribute(RTA_GATEWAY, &[172, 16, 6, 2 + (number % 4) as u8]);
            attribute(RTA_OIF, &device.to_ne_bytes());
        }
        Way::Object => {
            attribute(RTA_DST, &((10 << 24) + (number << 6)).to_be_bytes());
            attribute(RTA_NH_ID, &(1 + number % 4).to_ne_bytes());
        }
        Way::Six => {
            let at = |net: u128, number: u32| (net + u128::from(number)).to_be_bytes();
            attribute(RTA_DST, &at(0xfd01 << 112, number << 6));
            attribute(RTA_GATEWAY, &at(0xfd00 << 112, 2 + number % 4));
            attribute(RTA_OIF, &device.to_ne_bytes());
        }
    }
    let len = (bytes.len() as u32).to_ne_bytes();
    bytes[..4].copy_from_slice(&len);
    bytes[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_EXCL_CREATE).to_ne_bytes());
    bytes[8..12].copy_from_slice(&number.to_ne_bytes());
    bytes
}
