//! Networks, addresses, names and numbers: each that is read is written so that it reads back as the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use calico_model::datastore::{Key, Prefix};
use calico_model::name::{workload_endpoint_name, workload_endpoint_segments};
use calico_model::resource::block::Owner;
use calico_model::resource::felix::GoDuration;
use calico_model::resource::{Kind, PortMatch};
use calico_model::{
    AsNumber, Cidr, Community, InterfaceAddr, InterfaceName, Mac, Name, Namespace, NodeName, Protocol,
    RouterId, timestamp,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    reads_back::<AsNumber>(text);
    reads_back::<Community>(text);
    reads_back::<GoDuration>(text);
    reads_back::<InterfaceAddr>(text);
    reads_back::<InterfaceName>(text);
    reads_back::<Key>(text);
    reads_back::<Kind>(text);
    reads_back::<Mac>(text);
    reads_back::<Name>(text);
    reads_back::<Namespace>(text);
    reads_back::<NodeName>(text);
    reads_back::<Owner>(text);
    reads_back::<PortMatch>(text);
    reads_back::<Protocol>(text);
    reads_back::<RouterId>(text);
    if let Some(cidr) = reads_back::<Cidr>(text) {
        network(&cidr);
    }
    if let Ok(cidr) = Cidr::from_key_form(text) {
        network(&cidr);
    }
    if let Ok(folder) = Prefix::new(text) {
        assert_eq!(Prefix::new(folder.as_str()), Ok(folder));
    }
    if let Some(time) = timestamp::parse(text) {
        assert_eq!(timestamp::parse(&timestamp::format(time)), Some(time));
    }
    let segments: Vec<&str> = text.split('\n').collect();
    if let Ok(name) = workload_endpoint_name(&segments) {
        assert_eq!(workload_endpoint_segments(name.as_str()), segments);
    }
    let _ = workload_endpoint_segments(text);
});

fn reads_back<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Debug + Display> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            let again =
                written.parse::<T>().unwrap_or_else(|error| panic!("{written:?} is not read back: {error}"));
            assert_eq!(again, value, "{written:?}");
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn network(cidr: &Cidr) {
    assert_eq!(Cidr::from_key_form(&cidr.key_form()).as_ref(), Ok(cidr));
    for addr in [cidr.addr(), cidr.last()] {
        let index = cidr.index_of(addr).expect("the ends are inside");
        assert_eq!(cidr.nth(index), Some(addr));
        assert!(cidr.contains(addr) && cidr.covers(&Cidr::host(addr)));
    }
    for prefix_len in 0..=u8::MAX {
        let Some(count) = cidr.subnet_count(prefix_len) else { continue };
        let last = cidr.subnet(prefix_len, count - 1).expect("the last one is there");
        assert!(cidr.covers(&last) && last.last() == cidr.last());
        assert_eq!(cidr.subnet(prefix_len, count), None);
    }
    let outside: IpAddr =
        if cidr.addr().is_ipv4() { "::".parse() } else { "0.0.0.0".parse() }.expect("an address");
    assert!(!cidr.contains(outside) && cidr.index_of(outside).is_none());
}
