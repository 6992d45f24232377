use super::*;

const GOOD: &str = "
name: office
subnets:
  - {name: first, cidr: 10.1.0.0/24, gateway: 10.1.0.254}
  - {name: second, cidr: 10.2.0.0/24, gateway: 10.2.0.254}
hosts:
  - {name: node1, address: 10.1.0.1}
  - {name: node2, address: 10.2.0.2, as: 64513}
pools:
  - {cidr: 192.168.0.0/16, vxlanMode: CrossSubnet, blockSize: 28, natOutgoing: true}
workloads:
  - {name: web, host: node2, address: 192.168.3.7, labels: {app: web, tier: 1}, listen: [80, 53/udp]}
resources:
  - policies.yaml
  - {kind: Tier}
";

fn faults(yaml: &str) -> Vec<String> {
    match yaml.parse::<Topology>() {
        Err(TopologyError::Invalid(Faults(faults))) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn a_topology_is_read_whole() {
    let topology = Topology::parse(GOOD, Path::new("/etc/lab")).unwrap();
    assert_eq!(topology.name.as_str(), "office");
    assert_eq!(topology.hosts[1].address.to_string(), "10.2.0.2/24");
    assert_eq!(topology.hosts[1].gateway, Ipv4Addr::new(10, 2, 0, 254));
    assert_eq!(topology.hosts[1].as_number.map(|number| number.to_string()).as_deref(), Some("64513"));
    assert_eq!(topology.pool_of_agents().map(|pool| pool.block_size), Some(28));
    assert_eq!(topology.workloads[0].address, Some(Ipv4Addr::new(192, 168, 3, 7)));
    assert_eq!(topology.workloads[0].labels["tier"], "1");
    assert_eq!(topology.workloads[0].listen, [Port::Tcp(80), Port::Udp(53)]);
    assert_eq!(topology.manifests[0], Manifest::File("/etc/lab/policies.yaml".into()));
}

#[test]
fn names_derive_from_the_lab_unless_bare_ones_are_asked_for() {
    let topology: Topology = GOOD.parse().unwrap();
    let web = topology.workloads[0].name.clone();
    assert_eq!(topology.netns_of(&web), "office-web");
    assert_eq!(topology.named("other".parse().unwrap()).netns_of(&web), "other-web");
    let bare: Topology = GOOD.replace("name: office", "name: office\nbareNames: true").parse().unwrap();
    assert_eq!((bare.netns_of(&web), bare.router_netns()), ("web".to_owned(), "office-router".to_owned()));
}

#[test]
fn every_fault_is_told_at_once() {
    let yaml = GOOD
        .replace("name: office", "name: Office\ncolour: red")
        .replace("gateway: 10.1.0.254", "gateway: 10.9.0.254")
        .replace("address: 10.2.0.2", "address: 10.3.0.2")
        .replace("CrossSubnet", "Sometimes")
        .replace("80, 53/udp", "80, 70000");
    let expected = [
        r#"name = "Office": must be at most 15 lower-case letters, digits and inner dashes"#,
        "topology.colour",
        r#"subnets[0].gateway = "10.9.0.254": must be in 10.1.0.0/24"#,
        r#"hosts[1].address = "10.3.0.2": is in none of the subnets"#,
        r#"pools[0].vxlanMode = "Sometimes": must be Never, Always or CrossSubnet"#,
        "workloads[0].listen[1] = 70000: must be a port between 1 and 65535",
    ];
    let told = faults(&yaml);
    for fault in expected {
        assert!(told.iter().any(|line| line.contains(fault)), "{fault} is not in {told:#?}");
    }
}

#[test]
fn hosts_may_have_an_ipv6_address_where_their_subnet_and_a_pool_do() {
    let dual = GOOD
        .replace(
            "gateway: 10.1.0.254",
            "gateway: 10.1.0.254, cidr6: '2001:db8:1::/64', gateway6: '2001:db8:1::ff'",
        )
        .replace("address: 10.1.0.1", "address: 10.1.0.1, address6: '2001:db8:1::1'")
        .replace("pools:\n", "pools:\n  - {cidr: 'fd00::/48'}\n");
    let topology: Topology = dual.parse().unwrap();
    let (address, gateway) = topology.hosts[0].ipv6.unwrap();
    assert_eq!(
        (address.to_string(), gateway.to_string()),
        ("2001:db8:1::1/64".into(), "2001:db8:1::ff".into())
    );
    assert_eq!((topology.hosts[1].ipv6, topology.pools[0].block_size), (None, 122));
    let no_pool = faults(&dual.replace("  - {cidr: 'fd00::/48'}\n", ""));
    assert_eq!(no_pool, ["pools: must have one of IPv6 where hosts have an IPv6 address"]);
    for (right, wrong, expected) in [
        ("address6: '2001:db8:1::1'", "address6: '2001:db8:2::1'", "hosts[0].address6: must be in cidr6"),
        ("address6: '2001:db8:1::1'", "address6: '2001:db8:1::ff'", "hosts[0].address6: must be in cidr6"),
        ("gateway6: '2001:db8:1::ff'", "gateway6: '2001:db8:2::ff'", "subnets[0].gateway6: must be there"),
        (", gateway6: '2001:db8:1::ff'", "", "subnets[0].gateway6: must be there"),
        (
            "cidr: 'fd00::/48'",
            "cidr: 'fd00::/48', blockSize: 26",
            "pools[0].blockSize = 26: must be between 116 and 128",
        ),
    ] {
        let told = faults(&dual.replace(right, wrong));
        assert!(told.iter().any(|line| line.starts_with(expected)), "{expected} is not in {told:?}");
    }
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let told = faults(&GOOD.replace("name: web,", "name: node1,"));
    assert_eq!(told, ["hosts and workloads: the name node1 is there more than once"]);
    let told = faults(&GOOD.replace("cidr: 192.168.0.0/16", "cidr: 10.0.0.0/8"));
    assert_eq!(told.len(), 2, "the pool overlaps both subnets: {told:?}");
    let told = faults(&GOOD.replace("{cidr: 192", "{ipipMode: Always, cidr: 192"));
    assert_eq!(told, [r#"pools[0].ipipMode = "Always": must be Never where vxlanMode is not"#]);
    let told = faults(&GOOD.replace("host: node2", "host: node3"));
    assert_eq!(told, [r#"workloads[0].host = "node3": is none of the hosts"#]);
}

#[test]
fn pools_with_names_or_company_are_applied_rather_than_left_to_the_agents() {
    let named: Topology = GOOD.replace("{cidr: 192", "{name: mine, cidr: 192").parse().unwrap();
    assert!(named.pool_of_agents().is_none());
    assert!(named.pool_manifest().contains(r#""name":"mine""#));
    let unnamed: Topology = GOOD.parse().unwrap();
    assert_eq!(unnamed.pool_manifest(), "");
}

#[test]
fn no_text_makes_the_parser_panic() {
    for yaml in
        ["", "[]", "name", "hosts: 3", "{name: a, subnets: [3], hosts: [{}], pools: [[]]}", "a: &a [*a]"]
    {
        assert!(yaml.parse::<Topology>().is_err(), "{yaml}");
    }
}
