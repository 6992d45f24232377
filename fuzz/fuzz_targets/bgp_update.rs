//! UPDATE in every dialect: any octets are read, survived or refused; what was taken can be held and told on, and is then
//! the same.
#![no_main]

use std::net::Ipv4Addr;

use calico_bgp::family::PerFamily;
use calico_bgp::rib::intern::Interner;
use calico_bgp::session::Peering;
use calico_bgp::wire::update::{MpReach, MpUnreach, announce};
use calico_bgp::wire::{AsWidth, Attributes, Dialect, MAX_EXTENDED_MESSAGE, Nlri, PathIds, Remedy, Update, frame};
use libfuzzer_sys::fuzz_target;

fn dialect(bits: u8) -> Dialect {
    let pick = |bit: u8| bits & bit != 0;
    let ids = if pick(1) { PathIds::Present } else { PathIds::Absent };
    Dialect {
        as_width: if pick(2) { AsWidth::Two } else { AsWidth::Four },
        path_ids_in: PerFamily { v4: ids, v6: ids },
        max_len_in: MAX_EXTENDED_MESSAGE,
        ..Dialect::plain(if pick(4) { Peering::External } else { Peering::Internal })
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((bits, body)) = input.split_first() else { return };
    let update = match Update::decode(body, &dialect(*bits)) {
        Ok(update) => update,
        Err(fault) => {
            let Remedy::Reset(notification) = fault.remedy else { panic!("{fault}: survived, and yet an error") };
            return assert_eq!(notification.code, 3, "{notification}");
        }
    };
    let v4: Vec<Nlri<Ipv4Addr>> = update.withdrawn.iter().chain(update.announced.iter()).collect();
    assert!(v4.iter().all(|nlri| nlri.prefix.len() <= 32));
    match update.mp_withdrawn {
        Some(MpUnreach::V4(list)) => assert!(list.iter().all(|nlri| nlri.prefix.len() <= 32)),
        Some(MpUnreach::V6(list)) => assert!(list.iter().all(|nlri| nlri.prefix.len() <= 128)),
        None => {}
    }
    match update.mp_announced {
        Some(MpReach::V4(list, _)) => assert!(list.iter().all(|nlri| nlri.prefix.len() <= 32)),
        Some(MpReach::V6(list, _)) => assert!(list.iter().all(|nlri| nlri.prefix.len() <= 128)),
        None => {}
    }
    if let Some(attributes) = update.attributes {
        let held = Interner::default().intern(&attributes).expect("what comes in can be held");
        assert_eq!(held.attributes(), attributes);
        tell_on(&attributes);
    }
});

fn tell_on(attributes: &Attributes) {
    let inside = Dialect { max_len_out: MAX_EXTENDED_MESSAGE, ..Dialect::plain(Peering::Internal) };
    let prefix = "10.0.0.0/8".parse().ok().and_then(calico_bgp::wire::Prefix::<Ipv4Addr>::of).expect("a prefix");
    let mut messages = Vec::new();
    let nlri = [Nlri { prefix, path_id: 0 }];
    if announce(attributes, &nlri, &inside, |message, _| messages.push(message)).is_err() {
        return;
    }
    for message in messages {
        let frame = frame(&message, MAX_EXTENDED_MESSAGE).expect("ours").expect("whole");
        let update = Update::decode(frame.body, &inside).expect("ours");
        assert!(update.faults.is_empty(), "{:?}", update.faults);
        assert_eq!(update.attributes.as_ref(), Some(attributes));
    }
}
