//! `calicoctl explain` and `policy render`.

use serde_json::{Value, json};

use super::Cluster;

pub(super) fn object(kind: &str, name: &str, namespace: Option<&str>, labels: Value, spec: Value) -> Value {
    let mut metadata = json!({"name": name, "labels": labels});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn pod(node: &str, name: &str, number: u8) -> Value {
    let spec = json!({
        "node": node, "orchestrator": "k8s", "pod": name, "endpoint": "eth0",
        "interfaceName": format!("cali{number}"), "ipNetworks": [format!("10.0.0.{number}/32")],
        "profiles": ["projectcalico-default-allow"],
    });
    let endpoint = format!("{}-k8s-{name}-eth0", node.replace('-', "--"));
    object("WorkloadEndpoint", &endpoint, Some("shop"), json!({"app": name}), spec)
}

pub(super) fn database(rules: &[Value]) -> Value {
    let spec = json!({"selector": "app == 'db'", "types": ["Ingress"], "ingress": rules});
    object("NetworkPolicy", "database", Some("shop"), json!({}), spec)
}

pub(super) fn sql() -> Value {
    json!({"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [3306]}})
}

/// Two nodes, with the web on one and the database on the other.
pub(super) fn shop(test: &str) -> Cluster {
    let cluster = Cluster::new(test);
    let node = |name: &str, address: &str| {
        object("Node", name, None, json!({}), json!({"bgp": {"ipv4Address": address}}))
    };
    put(
        &cluster,
        &[
            node("n1", "172.16.0.1/24"),
            node("n2", "172.16.0.2/24"),
            pod("n1", "web", 1),
            pod("n2", "db", 2),
            database(&[sql()]),
        ],
    );
    cluster
}

pub(super) fn put(cluster: &Cluster, objects: &[Value]) {
    let manifest: Vec<String> = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    let applied = cluster.apply(&manifest.concat());
    assert_eq!((applied.code, applied.err.as_str()), (0, ""));
}

#[test]
fn a_denied_flow_names_the_rule_that_is_missing_and_passes_once_it_is_there() {
    let cluster = shop("explain");
    let ask = ["explain", "--from", "shop/web", "--to", "shop/db", "--port", "443"];
    let text = cluster.ok(&ask);
    // Lines are broken where the terminal ends.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "In all: denied",
        "policies in tier default apply",
        "NetworkPolicy shop/database is for app == \"db\"",
        "(app=db)",
        "in NetworkPolicy shop/database, put this at place 1",
        "- action: Allow",
    ] {
        assert!(words.contains(expected), "{expected}:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let said = cluster.json(&[&ask[..], &["-o", "json"]].concat());
    assert_eq!((&said["verdict"], said["changes"].as_array().unwrap().len()), (&json!("denied"), 1));
    let rule = &said["changes"][0]["rule"];
    assert_eq!(rule["destination"]["ports"], json!([443]));
    assert_eq!(rule["source"]["selector"], "app == \"web\"");

    put(&cluster, &[database(&[sql(), rule.clone()])]);
    let text = cluster.ok(&ask);
    assert!(text.contains("In all: allowed") && text.contains("allowed by rule 1"), "{text}");
}

#[test]
fn both_directions_are_explained_and_words_that_mean_nobody_are_refused() {
    let cluster = shop("explain-both");
    let both = cluster.json(&[
        "explain",
        "--from",
        "web",
        "--to",
        "10.0.0.2",
        "-n",
        "shop",
        "--port",
        "3306",
        "--direction",
        "both",
        "-o",
        "json",
    ]);
    let verdicts: Vec<&Value> = both.as_array().unwrap().iter().map(|one| &one["verdict"]).collect();
    assert_eq!(verdicts, [&json!("allowed"), &json!("allowed")]);
    assert_eq!(both[0]["hops"].as_array().unwrap().len(), 2, "a node for each end");
    let step = &both[0]["hops"][1]["steps"][0];
    assert_eq!((&step["tier"], &step["rule"]), (&json!("default"), &json!(0)));
    assert_eq!(step["choices"][1]["labels"]["app"], "web");
    let nobody = cluster.run(&["explain", "--from", "web", "--to", "shop/db", "--port", "80"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.starts_with("there is no workload and no node web"), "{}", nobody.err);
    let icmp = ["explain", "--from", "shop/web", "--to", "shop/db", "--protocol", "icmp"];
    assert!(cluster.ok(&icmp).contains("type 8"));
    assert_eq!(
        cluster.run(&[&icmp[..], &["--port", "1"]].concat()).err,
        "icmp has no ports: leave out --port\n"
    );
    let families = cluster.run(&["explain", "--from", "shop/web", "--to", "fd00::1", "--port", "80"]);
    assert!(families.err.contains("no addresses of the same family"), "{}", families.err);
}

#[test]
fn rules_are_rendered_as_json_and_for_iptables() {
    let cluster = shop("render-json");
    let rules = cluster.json(&["policy", "render", "--node", "n2", "-o", "json"]);
    let nameless = |why: &str| {
        let refused = cluster.run(&["policy", "render"]);
        let file = cluster.folder.join("nodename");
        let said =
            format!("say which node with --node: {}", why.replace("FILE", &file.display().to_string()));
        assert!(refused.code == 1 && refused.err.starts_with(&said), "{}", refused.err);
    };
    nameless("no agent has run on this host: it would have left FILE\n");
    let folder = cluster.folder.join("nodename");
    std::fs::create_dir(&folder).unwrap();
    nameless("FILE cannot be read: Is a directory");
    std::fs::remove_dir(&folder).unwrap();
    cluster.file("nodename", "not a name\n");
    nameless("FILE holds no node's name: ");
    cluster.file("nodename", "n2\n");
    assert_eq!(cluster.json(&["policy", "render", "-o", "json"]), rules, "of this host");
    let entries = rules["maps"]["cali-to-workload"].as_object().unwrap();
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["cali2"]);
    let chain = &rules["chains"][entries["cali2"].as_str().unwrap()]["rules"];
    assert!(chain.as_array().is_some_and(|rules| !rules.is_empty()), "{rules:#}");
    let render = ["policy", "render", "--node", "n2", "--backend", "iptables"];
    let text = cluster.ok(&render);
    assert!(
        text.contains("\ncreate cali-") && text.contains("\n-I FORWARD 1 ") && text.contains("-o cali2 "),
        "{text}"
    );
    let program = cluster.json(&[&render[..], &["-o", "json"]].concat());
    let filter = &program["tables"]["IPv4"]["filter"];
    assert!(
        filter["hooks"]["FORWARD"].as_str().is_some_and(|line| line.ends_with("-j cali-FORWARD")),
        "{filter:#}"
    );
    assert!(filter["chains"]["cali-FORWARD"].as_array().is_some_and(|rules| !rules.is_empty()), "{filter:#}");
}

#[test]
fn rules_are_rendered_for_a_packet_filter_as_if_it_were_the_one_that_is_configured() {
    let cluster = shop("render-deny");
    let render = |more: &[&str]| cluster.ok(&[&["policy", "render", "--node", "n2"], more].concat());
    let felix =
        |spec: Value| put(&cluster, &[object("FelixConfiguration", "default", None, json!({}), spec)]);
    felix(json!({"iptablesFilterDenyAction": "Reject"}));
    let (nft, iptables) = (render(&["--backend", "nft"]), render(&["--backend", "iptables"]));
    assert!(iptables.contains("-j REJECT") && !nft.contains("reject"), "{nft}\n{iptables}");
    assert_eq!(render(&[]), nft, "what the node uses");
    let rejecting = json!({"iptablesFilterDenyAction": "Reject", "nftablesMode": "Disabled"});
    felix(rejecting);
    assert_eq!((render(&[]), render(&["--backend", "nft"])), (iptables, nft));
    felix(json!({"nftablesFilterDenyAction": "Reject", "nftablesMode": "Disabled"}));
    let (nft, iptables) = (render(&["--backend", "nft"]), render(&[]));
    assert!(nft.contains("reject") && !iptables.contains("-j REJECT"), "{nft}\n{iptables}");
    let wrong = cluster.run(&["policy", "render", "--node", "n2", "--backend", "ebpf"]);
    assert!(wrong.code != 0 && wrong.err.contains("use nft or iptables"), "{}", wrong.err);
}

#[test]
fn a_rule_that_nobody_can_ask_is_told_with_the_rules_that_are_closed_by_it() {
    let cluster = shop("render-http");
    let http = json!({"action": "Allow", "protocol": "TCP", "http": {"methods": ["GET"]}});
    put(&cluster, &[database(&[http])]);
    let told = "NetworkPolicy shop/database allows HTTP requests, which needs an application-layer enforcer: the rule allows nothing";
    for backend in ["nft", "iptables"] {
        let render = ["policy", "render", "--node", "n2", "--backend", backend];
        assert!(cluster.ok(&render).starts_with(&format!("# {told}\n")), "{backend}");
        assert_eq!(
            cluster.json(&[&render[..], &["-o", "json"]].concat())["warnings"],
            json!([told]),
            "{backend}"
        );
    }
    let ask = ["explain", "--from", "shop/web", "--to", "shop/db", "--port", "80"];
    assert!(cluster.ok(&ask).contains("In all: denied"));
    let named = cluster.run(&["explain", "--from", "shop/web", "--to", "shop/db", "--port", "http"]);
    assert!(named.code != 0 && named.err.contains("use a number from 0 to 65535"), "{}", named.err);
}

/// The database's Service, and where it is served.
fn service(kind: &str) -> Value {
    let (version, name, rest) = match kind {
        "Service" => ("v1", "sql", json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7"}})),
        _ => (
            "discovery.k8s.io/v1",
            "sql-1",
            json!({
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.2"]}],
                "ports": [{"name": "sql", "port": 3306}],
            }),
        ),
    };
    let labels = json!({"kubernetes.io/service-name": "sql"});
    let metadata = json!({"name": name, "namespace": "shop", "labels": labels});
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

#[test]
fn a_rule_that_names_a_service_is_explained_by_the_slice_that_has_the_address_and_port() {
    let cluster = shop("explain-service");
    let to_sql = json!({"action": "Allow", "destination": {"services": {"name": "sql"}}});
    let spec = json!({"selector": "app == 'web'", "types": ["Egress"], "egress": [to_sql]});
    let policy = object("NetworkPolicy", "to-sql", Some("shop"), json!({}), spec);
    put(&cluster, &[policy, service("Service"), service("EndpointSlice")]);
    let ask = |port| ["explain", "--from", "shop/web", "--to", "shop/db", "--port", port];
    let text = cluster.ok(&ask("3306"));
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "allowed by rule 0 of NetworkPolicy shop/to-sql in tier default",
        "NetworkPolicy shop/to-sql is for app == \"web\"",
        "service shop/sql selects KubernetesEndpointSlice shop/sql-1",
        "In all: allowed",
    ] {
        assert!(words.contains(expected), "{expected}:\n{text}");
    }
    let said = cluster.json(&[&ask("3306")[..], &["-o", "json"]].concat());
    let choice = &said["hops"][0]["steps"][0]["choices"][1];
    assert_eq!((&choice["service"], &choice["selector"]), (&json!("shop/sql"), &Value::Null), "{said:#}");
    let text = cluster.ok(&ask("80"));
    assert!(text.contains("In all: denied") && !text.contains("service shop/sql"), "not its port:\n{text}");

    assert_eq!(
        cluster.ok(&["get", "services", "-n", "shop"]),
        "NAMESPACE   NAME   TYPE        CLUSTERIP\nshop        sql    ClusterIP   10.96.0.7\n\n"
    );
    assert_eq!(
        cluster.ok(&["get", "endpointslices", "-n", "shop"]),
        "NAMESPACE   NAME    SERVICE   ADDRESSTYPE   PORTS   ENDPOINTS\n\
         shop        sql-1   sql       IPv4          3306    10.0.0.2\n\n"
    );
}

#[test]
fn a_sender_that_is_told_that_it_is_denied_is_spoken_of() {
    let cluster = shop("explain-reject");
    let ask = ["explain", "--from", "shop/web", "--to", "shop/db", "--port", "443"];
    let as_json = [&ask[..], &["-o", "json"]].concat();
    assert_eq!(cluster.json(&as_json)["hops"][1]["senderIsTold"], false);
    let reject = json!({"nftablesFilterDenyAction": "Reject"});
    put(&cluster, &[object("FelixConfiguration", "default", None, json!({}), reject)]);
    let words = cluster.ok(&ask).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(": denied, and the sender is told so"), "{words}");
    assert_eq!(cluster.json(&as_json)["hops"][1]["senderIsTold"], true);
}
