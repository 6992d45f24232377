use calico_model::Update;
use calico_model::resource::Object;
use calico_model::resource::felix::{IptablesBackend, NftablesMode};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs a test in a network namespace of its own.
fn alone(test: fn()) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        test();
    };
    std::thread::spawn(run).join().expect("the thread says why");
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = std::process::Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_set_that_others_look_at_keeps_no_other_from_going_and_is_not_tried_in_each_pass() {
    alone(|| {
        for set in ["cali40a", "cali40b", "cali40c"] {
            run(&format!("ipset create {set} hash:net"));
        }
        run("iptables-nft -A FORWARD -m set --match-set cali40b src -j ACCEPT");
        let node: NodeName = "node1".parse().unwrap();
        let mut filter = Filter::new(Nft::new());
        let now = crate::clock::now();
        filter.apply(&mut Compiler::new(node.clone()), &node, true, now).unwrap();
        let left = filter.tidy(now);
        assert!(left.len() == 1 && left.first().unwrap().contains("cali40b"), "{left:?}");
        assert_eq!(run("ipset list -name").trim(), "cali40b");
        run("iptables-nft -F FORWARD");
        let late = now + REFRESH;
        assert_eq!(filter.tidy(late - Duration::from_secs(1)), left);
        assert_eq!(filter.tidy(late), BTreeSet::new());
        assert_eq!(run("ipset list -name"), "");
    });
}

#[test]
fn iptables_is_asked_as_often_as_configured_and_never_again_where_that_is_zero() {
    alone(|| {
        let node: NodeName = "node1".parse().unwrap();
        let mut filter = Filter::new(Nft::new());
        let mut compiler = Compiler::new(node.clone());
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Asked at, and when it is due from then on.
        for (interval, now, due) in [
            ("0s", 0, Some(5)),
            ("0s", 5, None),
            ("0s", 3600, None),
            ("90s", 3601, Some(3691)),
            ("100ms", 3602, Some(3603)),
            ("0s", 3603, None),
        ] {
            let felix = FelixConfiguration {
                nftables_mode: Some(NftablesMode::Disabled),
                iptables_backend: Some(IptablesBackend::Nft),
                iptables_refresh_interval: Some(interval.parse().unwrap()),
                ..FelixConfiguration::new()
            };
            let felix = Object::new("default".parse().unwrap(), felix);
            compiler.apply(Update::Put(Box::new(felix.into())));
            filter.apply(&mut compiler, &node, true, at(now)).unwrap();
            assert_eq!(filter.check_due(true), due.map(at), "{interval} at {now}");
        }
    });
}
