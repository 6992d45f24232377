//! A stream of messages: headers, NOTIFICATION and ROUTE-REFRESH, in portions and at once.
#![no_main]

use calico_bgp::wire::{self, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, MessageType, Refresh, Remedy, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((pick, octets)) = input.split_first() else { return };
    let limit = if pick & 1 == 0 { MAX_MESSAGE } else { MAX_EXTENDED_MESSAGE };
    let mut rest = octets;
    loop {
        match frame(rest, limit) {
            Err(fault) => {
                let Remedy::Reset(notification) = fault.remedy else { panic!("a header cannot be survived") };
                assert_eq!(notification.code, 1);
                return;
            }
            Ok(None) => return,
            Ok(Some(found)) => {
                assert!(found.len <= limit && found.len == found.body.len() + 19);
                for end in 0..found.len {
                    assert!(frame(&rest[..end], limit).is_ok_and(|found| found.is_none()), "a part is no message");
                }
                read(found.kind, found.body);
                rest = &rest[found.len..];
            }
        }
    }
});

fn read(kind: MessageType, body: &[u8]) {
    match kind {
        MessageType::Notification => {
            let notification = wire::read_notification(body);
            let words = notification.to_string();
            assert!(!words.chars().any(char::is_control), "{words:?}");
            assert!(notification.unwrapped().to_string().len() < 2000);
            let message = wire::notification(&notification);
            let again = frame(&message, MAX_MESSAGE).expect("ours").expect("whole");
            assert!(body.starts_with(again.body));
        }
        MessageType::RouteRefresh => {
            if let Ok(refresh) = wire::read_refresh(body)
                && refresh != Refresh::Unknown
            {
                let message = wire::refresh(refresh);
                let again = frame(&message, MAX_MESSAGE).expect("ours").expect("whole");
                assert_eq!(wire::read_refresh(again.body), Ok(refresh));
            }
        }
        MessageType::Open | MessageType::Update | MessageType::Keepalive => {}
    }
}
