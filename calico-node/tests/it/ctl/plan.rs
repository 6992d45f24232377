//! `calicoctl plan`: what would change, and that nothing is written.

use serde_json::{Value, json};

use super::explain::{database, object, put, shop, sql};
use super::{Cluster, ran};
use crate::namespace::Namespace;

fn web_to_8080() -> Value {
    json!({"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [8080]}})
}

fn everything(cluster: &Cluster) -> String {
    ["networkpolicy", "workloadendpoint", "node", "clusterinformation"]
        .map(|kind| cluster.ok(&["get", kind, "-A", "-o", "yaml"]))
        .concat()
}

#[test]
fn a_plan_tells_pairs_kernels_and_connections_and_writes_nothing() {
    let cluster = shop("plan");
    let before = everything(&cluster);
    let other_port = cluster.file("other.yaml", &database(&[web_to_8080()]).to_string());
    let current = cluster.json(&["get", "networkpolicy", "database", "-n", "shop", "-o", "json"]);
    let current = cluster.file("current.json", &current.to_string());
    assert_eq!(cluster.run(&["plan", "-f", &current]).code, 0, "with the revision that it has");
    let dump = cluster.file(
        "dump",
        "tcp 6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=40000 dport=3306 src=10.0.0.2 dst=10.0.0.1 sport=3306 dport=40000 [ASSURED] mark=0 use=1\n\
         tcp 6 431999 ESTABLISHED src=10.0.0.2 dst=10.0.0.1 sport=40000 dport=80 src=10.0.0.1 dst=10.0.0.2 sport=80 dport=40000 [ASSURED] mark=0 use=1\n\
         udp 17 29 src=8.8.8.8 dst=9.9.9.9 sport=1 dport=2 src=9.9.9.9 dst=8.8.8.8 sport=2 dport=1 mark=0 use=1\n",
    );
    let ask = ["plan", "-f", &other_port, "--node", "n2", "--connections", &dump];
    let planned = cluster.run(&ask);
    assert_eq!((planned.code, planned.err.as_str()), (2, ""), "{}", planned.out);
    let words = planned.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "NetworkPolicy shop/database: changed",
        "Of workloads and nodes, 1 pair would be denied something, and 1 pair allowed something.",
        "denied: tcp 3306 from shop/n1-k8s-web-eth0 to shop/n2-k8s-db-eth0",
        "allowed: tcp 8080 from shop/n1-k8s-web-eth0",
        "e.g. TCP port 3306 from 10.0.0.1 to 10.0.0.2: ingress of WorkloadEndpoint",
        "policies in tier default apply, and none of their rules matches",
        "Of 2, 1 would be stopped.",
        "TCP 40000 > 3306 from 10.0.0.1 to 10.0.0.2",
        "n2, nftables: 1 chain written anew, ",
    ] {
        assert!(words.contains(expected), "{expected}:\n{}", planned.out);
    }
    assert!(!words.contains("n1,"), "only what was asked for: {}", planned.out);
    assert!(planned.out.lines().all(|line| line.chars().count() <= 80), "{}", planned.out);
    let verbose = cluster.run(&["plan", "-f", &other_port, "--verbose"]);
    assert!(
        verbose.out.contains("th dport 8080") && verbose.out.contains("add rule inet calico"),
        "{}",
        verbose.out
    );
    assert!(!verbose.out.contains("Live connections"), "no agent runs here");

    let said = cluster.run(&[&ask[..], &["-o", "json"]].concat());
    let said: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said["changes"], true);
    assert_eq!(said["resources"], json!([{"resource": "NetworkPolicy(shop/database)", "fate": "changed"}]));
    assert_eq!((&said["verdicts"]["pairsDenied"], &said["verdicts"]["pairsAllowed"]), (&json!(1), &json!(1)));
    assert_eq!(said["verdicts"]["changes"][0]["traffic"], json!(["tcp 3306"]));
    assert_eq!(said["connections"]["denied"].as_array().unwrap().len(), 1);
    assert_eq!(said["kernel"][0]["node"], "n2");
    assert_eq!(everything(&cluster), before, "nothing is written");

    // What was told is what happens.
    put(&cluster, &[database(&[web_to_8080()])]);
    let done = cluster.run(&["plan", "-f", &other_port]);
    assert_eq!((done.code, done.out.lines().next()), (0, Some("Nothing would change.")), "{}", done.err);
}

#[test]
fn the_kernels_share_is_that_of_the_packet_filter_that_is_configured() {
    let cluster = shop("plan-iptables");
    let felix = object("FelixConfiguration", "default", None, json!({}), json!({"nftablesMode": "Disabled"}));
    let policy = cluster.file("other.yaml", &database(&[web_to_8080()]).to_string());
    let kernel = |ask: &[&str]| {
        let planned = cluster.run(&[ask, &["--node", "n2", "--verbose", "-o", "json"]].concat());
        assert_eq!((planned.code, planned.err.as_str()), (2, ""));
        let said: Value = serde_json::from_str(&planned.out).unwrap();
        said["kernel"].as_array().unwrap().clone()
    };
    let filters = |kernel: &[Value]| kernel.iter().map(|of| of["filter"].clone()).collect::<Vec<_>>();
    assert_eq!(filters(&kernel(&["plan", "-f", &policy])), ["nftables"]);
    let to_iptables = kernel(&["plan", "-f", &cluster.file("felix.yaml", &felix.to_string())]);
    assert_eq!(filters(&to_iptables), ["iptables", "nftables"], "what is new is there before what was goes");
    assert!(to_iptables[0]["chainsMade"].as_u64() > Some(10), "{to_iptables:#?}");
    let text = to_iptables[1]["text"].to_string();
    assert!(text.contains("delete table inet calico") && !text.contains("add rule"), "{text}");

    put(&cluster, &[felix]);
    let changed = kernel(&["plan", "-f", &policy]);
    assert_eq!(filters(&changed), ["iptables"]);
    let lines: Vec<&str> = changed[0]["text"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(lines.iter().filter(|line| line.contains("--dport 8080")).count(), 2, "{lines:#?}");
    assert!(lines.len() < 14 && lines.contains(&"*filter"), "one chain of each family: {lines:#?}");
    let told = cluster.run(&["plan", "-f", &policy]);
    assert!(told.out.contains("n2, iptables: 2 chains written anew"), "{}", told.out);
    put(&cluster, &[database(&[web_to_8080()])]);
    assert_eq!(cluster.run(&["plan", "-f", &policy]).code, 0, "what was told is done");
}

#[test]
fn a_variant_of_iptables_that_the_node_chose_itself_is_the_one_that_it_is() {
    use calico_policy::iptables::{Variant, in_use};
    let cluster = shop("plan-auto");
    let felix = |backend: &str| {
        let spec = json!({"nftablesMode": "Disabled", "iptablesBackend": backend});
        object("FelixConfiguration", "default", None, json!({}), spec)
    };
    let of = |part: &str, backend: &str, node: &str| -> Vec<Value> {
        let file = cluster.file("felix.yaml", &felix(backend).to_string());
        let mut program = cluster.command(&["plan", "-f", &file, "--node", node, "-o", "json"]);
        // The programs of iptables are asked which of them others use.
        let planned = ran(program.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap());
        assert!((planned.code, planned.err.as_str()) == (2, "") || backend == "Auto", "{}", planned.err);
        let said: Value = serde_json::from_str(&planned.out).unwrap();
        said[part].as_array().unwrap().clone()
    };
    let plan = |backend: &str, node: &str| of("kernel", backend, node);
    cluster.file("nodename", "n2\n");
    let own = in_use().unwrap();
    let word = |variant| if variant == Variant::Legacy { "Legacy" } else { "NFT" };

    put(&cluster, &[felix("Auto")]);
    assert_eq!(plan(word(own), "n2"), [] as [Value; 0], "it is what it was");
    let other = plan(word(own.other()), "n2");
    assert_eq!(other.len(), 2, "all rules go over: {other:?}");
    assert_eq!(plan("Legacy", "n1"), [] as [Value; 0]);
    let unknown = of("provisos", "Legacy", "n1");
    let said = "unless its agent uses iptables-legacy already, all rules go over to that";
    assert_eq!(unknown, [json!({"node": "n1", "proviso": said})]);
    let file = cluster.file("felix.yaml", &felix("Legacy").to_string());
    let text = cluster.run(&["plan", "-f", &file, "--node", "n1"]).out;
    assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&format!("n1: {said}")), "{text}");

    put(&cluster, &[felix("Legacy")]);
    assert_eq!(plan("Auto", "n1"), [] as [Value; 0], "an agent keeps what it has");
    assert_eq!(plan("NFT", "n1").len(), 2);
}

#[test]
fn an_agent_has_the_variant_of_iptables_in_which_its_chains_are_whatever_others_use() {
    let (cluster, host) = (shop("plan-kept"), Namespace::new("kept"));
    let felix = |backend: &str| {
        let spec = json!({"nftablesMode": "Disabled", "iptablesBackend": backend});
        object("FelixConfiguration", "default", None, json!({}), spec)
    };
    put(&cluster, &[felix("Auto")]);
    cluster.file("nodename", "n2\n");
    let iptables = |line: &str| {
        let mut words = line.split_whitespace();
        let output = host.command(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let of = |part: &str, backend: &str| -> Vec<Value> {
        let file = cluster.file("felix.yaml", &felix(backend).to_string());
        let plain = cluster.command(&["plan", "-f", &file, "--node", "n2", "-o", "json"]);
        let set = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut inside = host.command(plain.get_program());
        let planned = ran(inside.args(plain.get_args()).envs(set).output().unwrap());
        let said: Value = serde_json::from_str(&planned.out).expect(&planned.err);
        said[part].as_array().unwrap().clone()
    };
    let plan = |backend: &str| of("kernel", backend);
    iptables("iptables-nft -A FORWARD -p tcp -j ACCEPT");
    assert_eq!(plan("NFT"), [] as [Value; 0], "an agent begins with what others use");
    iptables("iptables-legacy -N cali-FORWARD");
    assert_eq!(plan("Legacy"), [] as [Value; 0], "it has that");
    assert_eq!(plan("NFT").len(), 2, "all rules go over");
    iptables("iptables-nft -N cali-FORWARD");
    assert!(of("provisos", "NFT")[0]["proviso"].is_string(), "nobody knows which of them stays");
}

#[test]
fn deletion_is_planned_and_labels_and_standard_input_too() {
    let cluster = shop("plan-delete");
    let policy = database(&[sql()]).to_string();
    let deleted = cluster.run_with_input(&["plan", "--delete", "-f", "-"], &policy);
    assert_eq!(deleted.code, 2, "{}", deleted.err);
    for expected in ["NetworkPolicy shop/database: deleted", "allowed: ", "anywhere else"] {
        assert!(deleted.out.contains(expected), "{expected}:\n{}", deleted.out);
    }
    let note = object("GlobalNetworkSet", "nobody", None, json!({}), json!({"nets": ["192.0.2.0/24"]}));
    let note = cluster.file("set.yaml", &note.to_string());
    let told = cluster.run(&["plan", "-f", &note]);
    assert_eq!(told.code, 2, "a resource is made");
    assert!(told.out.contains("Everybody reaches whom they reached"), "{}", told.out);
    let several = cluster.file("policy.yaml", &policy);
    assert_eq!(cluster.run(&["plan", "-f", &several, "-f", &note]).code, 2);
    assert_eq!(cluster.run(&["plan", "-f", &several]).code, 0);
}

#[test]
fn what_cannot_be_planned_is_an_error_with_status_1() {
    let cluster = shop("plan-wrong");
    let wrong = object("NetworkPolicy", "x", Some("shop"), json!({}), json!({"selector": "a =="}));
    let refused = cluster.run_with_input(&["plan", "-f", "-"], &wrong.to_string());
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("spec.selector"), "{}", refused.err);
    let absent = object("NetworkPolicy", "absent", Some("shop"), json!({}), json!({}));
    assert_eq!(cluster.run_with_input(&["plan", "--delete", "-f", "-"], &absent.to_string()).code, 1);
    assert_eq!(cluster.run(&["plan", "--no-such-flag"]).code, 1, "2 would say that something changes");
    for level in ["-l", "--log-level"] {
        assert_eq!(cluster.run(&[level, "debug", "plan", "--no-such-flag"]).code, 1, "{level}");
        assert_eq!(cluster.run(&[level, "plan", "get", "--no-such-flag"]).code, 2, "{level}");
    }
    let help = cluster.ok(&["plan", "--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("2 when something would, and 1 after an error"), "{help}");
    let policy = cluster.file("policy.yaml", &database(&[sql()]).to_string());
    assert_eq!(cluster.run(&["plan", "-f", &policy, "--node", "nowhere"]).code, 1);
    let junk = cluster.file("junk", "what\n");
    let junk = cluster.run(&["plan", "-f", &policy, "--node", "n2", "--connections", &junk]);
    assert!(junk.code == 1 && junk.err.contains("line 1 is no connection"), "{}", junk.err);
}
