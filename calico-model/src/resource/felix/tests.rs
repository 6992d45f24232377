use super::*;
use crate::wire::{FromWire, Path, Report, ToWire};

#[test]
fn every_default_is_one_and_reads_back() {
    let defaults = FelixConfiguration::defaults();
    let mut report = Report::default();
    let read = FelixConfiguration::from_wire(&defaults.to_wire(), Path::root("spec"), &mut report);
    assert_eq!(report.faults, []);
    assert_eq!(read, Some(defaults.clone()));
    assert_eq!(defaults.vxlan_vni, Some(4096));
    assert_eq!(defaults.failsafe_inbound_host_ports.as_ref().map(Vec::len), Some(9));
    assert_eq!(defaults.iptables_mark_mask, Some(0xffff_0000));
}

#[test]
fn a_nodes_own_parameters_win_over_the_clusters() {
    let own = FelixConfiguration { vxlan_port: Some(1), ..FelixConfiguration::new() };
    let cluster = FelixConfiguration { vxlan_port: Some(2), vxlan_vni: Some(3), ..FelixConfiguration::new() };
    let both = own.or(&cluster).or(&FelixConfiguration::defaults());
    assert_eq!(
        (both.vxlan_port, both.vxlan_vni, both.prometheus_metrics_port),
        (Some(1), Some(3), Some(9091))
    );
}
