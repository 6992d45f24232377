//! BFD: any packet is read or passed over, and a session that hears nonsense goes on.
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::bfd::packet::Packet;
use calico_bgp::bfd::{BfdConfig, Output, Watcher};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(packet) = Packet::decode(input) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }
    let (us, them) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let mut now = Instant::now();
    let mut watcher = Watcher::new(1);
    watcher.watch(them, us, BfdConfig::default(), now);
    for step in input.chunks(26) {
        let [wait, unit, octets @ ..] = step else { break };
        now += Duration::from_millis(u64::from(*wait) * if unit & 1 == 0 { 1 } else { 40 });
        watcher.timeout(now);
        watcher.receive(them, 255, octets, now);
        let mut sent = 0;
        while let Some(output) = watcher.poll() {
            sent += usize::from(matches!(output, Output::Send { .. }));
        }
        assert!(sent <= 4, "each step is answered by a few packets at most, not {sent}");
    }
});
