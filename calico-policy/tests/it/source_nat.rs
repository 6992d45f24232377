//! What `natOutgoingAddress` and `natPortRange` make of the sources that leave all pools.

use calico_model::Snapshot;
use calico_model::resource::{FelixConfiguration, IpPool, Object};
use calico_policy::iptables::{Iptables, Options, Variant};
use calico_policy::nft::{Actual, Nft, plan};
use calico_policy::{Ruleset, compile};

use crate::golden;
use crate::netns::Namespace;

/// The address, the ports, and the rules that they make: of nft, and of iptables.
type Case = (Option<&'static str>, Option<&'static str>, &'static [&'static str], &'static [&'static str]);

const CASES: [Case; 5] = [
    (None, Some("0"), &["masquerade fully-random"], &["MASQUERADE --random-fully"]),
    (None, Some("any"), &["masquerade fully-random"], &["MASQUERADE --random-fully"]),
    (
        None,
        Some("1024:2047"),
        &[
            "meta l4proto tcp masquerade to :1024-2047 fully-random",
            "meta l4proto udp masquerade to :1024-2047 fully-random",
            "masquerade fully-random",
        ],
        &[
            "MASQUERADE --to-ports 1024-2047 --random-fully",
            "MASQUERADE --to-ports 1024-2047 --random-fully",
            "MASQUERADE --random-fully",
        ],
    ),
    (
        Some("203.0.113.7"),
        None,
        &["snat ip to 203.0.113.7 fully-random"],
        &["SNAT --to-source 203.0.113.7 --random-fully"],
    ),
    (
        Some("203.0.113.7"),
        Some("4000"),
        &[
            "meta l4proto tcp snat ip to 203.0.113.7:4000 fully-random",
            "meta l4proto udp snat ip to 203.0.113.7:4000 fully-random",
            "snat ip to 203.0.113.7 fully-random",
        ],
        &[
            "SNAT --to-source 203.0.113.7:4000 --random-fully",
            "SNAT --to-source 203.0.113.7:4000 --random-fully",
            "SNAT --to-source 203.0.113.7 --random-fully",
        ],
    ),
];

fn compiled(addr: Option<&str>, ports: Option<&str>) -> Ruleset {
    let mut world: Snapshot = golden::world("database");
    let spec = FelixConfiguration {
        nat_outgoing_address: addr.map(|addr| addr.parse().unwrap()),
        nat_port_range: ports.map(|ports| ports.parse().unwrap()),
        ..FelixConfiguration::new()
    };
    world.insert(Object::new("default".parse().unwrap(), spec));
    compile(&world, &"node-1".parse().unwrap())
}

#[test]
fn sources_get_the_address_and_ports_that_are_configured() {
    const BEFORE: &str = "meta nfproto ipv4 ip saddr @cali-masq-v4 ip daddr != @cali-pools-v4 ";
    for (addr, ports, nft, _) in CASES {
        let ruleset = compiled(addr, ports);
        let chain = ruleset.chains.iter().find(|(name, _)| name.as_str() == "cali-postrouting").unwrap().1;
        let rules: Vec<String> =
            chain.rules.iter().map(|rule| rule.to_string().trim_start_matches(BEFORE).to_owned()).collect();
        assert_eq!(rules, nft, "{addr:?} {ports:?}");
    }
}

/// A chain of this kind, be it empty, has every packet of the machine pass the kernel's address translation.
#[test]
fn where_no_pool_asks_for_it_nothing_is_translated() {
    let mut world: Snapshot = golden::world("database");
    let namespace = Namespace::new("snat-none");
    let mut translations = |nat_outgoing: bool| {
        let mut pools: Vec<Object<IpPool>> = world.pools.values().map(|pool| Object::clone(pool)).collect();
        pools.iter_mut().for_each(|pool| pool.spec.nat_outgoing = nat_outgoing);
        pools.into_iter().for_each(|pool| world.insert(pool));
        let ruleset = compile(&world, &"node-1".parse().unwrap());
        namespace.within(|| Nft::new().sync(&ruleset)).unwrap();
        namespace.exec("nft list table inet calico").matches("type nat").count()
    };
    assert_eq!([true, false, true].map(&mut translations), [1, 0, 1]);
}

#[test]
fn nftables_takes_them_as_the_text_says_them_and_leaves_them_alone() {
    let (ours, theirs) = (Namespace::new("snat"), Namespace::new("snat-text"));
    for (addr, ports, nft, _) in CASES {
        let ruleset = compiled(addr, ports);
        let whole = plan(&ruleset, &Actual::default());
        theirs.exec_with("nft -f -", &format!("table inet calico\ndelete table inet calico\n{whole}"));
        ours.within(|| Nft::new().sync(&ruleset)).unwrap();
        let again = ours.within(|| Nft::new().sync(&ruleset)).unwrap();
        assert!(again.is_empty(), "{again}");
        let list = |namespace: &Namespace| {
            namespace.exec("nft list chain inet calico cali-postrouting").lines().map(str::to_owned).collect()
        };
        let (held, said): (Vec<String>, Vec<String>) = (list(&ours), list(&theirs));
        assert_eq!(held, said);
        let translates = |line: &&String| line.contains("masquerade") || line.contains("snat");
        assert_eq!(held.iter().filter(translates).count(), nft.len(), "{held:?}");
    }
}

#[test]
fn iptables_takes_them_in_both_variants_and_a_restart_writes_nothing() {
    for variant in Variant::ALL {
        let namespace = Namespace::new("snat-ipt");
        for (addr, ports, _, expected) in CASES {
            let ruleset = compiled(addr, ports);
            let sync =
                || namespace.within(|| Iptables::new(variant).sync(&ruleset, &Options::default())).unwrap();
            assert_eq!(sync().refused, [], "{variant}");
            let again = sync();
            assert!(again.transaction.is_empty(), "{variant}: a restart writes\n{}", again.transaction);
            let saved = namespace.exec(&format!("iptables-{variant}-save -t nat"));
            let held: Vec<&str> = saved
                .lines()
                .filter_map(|line| line.split_once("-j "))
                .map(|(_, target)| target)
                .filter(|target| target.contains("--random-fully"))
                .collect();
            assert_eq!(held, expected, "{variant}");
        }
    }
}
