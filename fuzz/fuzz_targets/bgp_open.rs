//! OPEN: any octets are read or refused with a NOTIFICATION of code 2, and what was read comes back as it was.
#![no_main]

use calico_bgp::family::FamilySet;
use calico_bgp::wire::{MAX_MESSAGE, Open, Remedy, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    match Open::decode(octets) {
        Err(fault) => match fault.remedy {
            Remedy::Reset(notification) => assert_eq!(notification.code, 2, "{notification}"),
            other => panic!("an OPEN cannot be {other:?}"),
        },
        Ok(mut open) => {
            // Families that we do not know are not kept.
            open.capabilities.families = open.capabilities.families.filter(|held| *held != FamilySet::NONE);
            let message = open.encode();
            let frame = frame(&message, MAX_MESSAGE).expect("ours").expect("whole");
            assert_eq!(Open::decode(frame.body).expect("ours"), open);
        }
    }
});
