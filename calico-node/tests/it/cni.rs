//! The CNI plugins as a runtime calls them: real programs, real namespaces, a datastore of the test's own.

mod reasons;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_model::datastore::client::Client;
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::resource::{IpPool, Kind, Object, Profile, WorkloadEndpoint};
use calico_model::{Snapshot, Update};
use calico_node::stamp::stamp;
use calico_node::workload::inside;
use calico_policy::compile;
use calico_policy::nft::{Nft, Transaction};
use serde_json::{Value, json};

use crate::namespace::Namespace;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A node that an agent has set up: its namespace, its folders, its datastore.
struct Node {
    netns: Namespace,
    folder: PathBuf,
}

struct Answer {
    success: bool,
    json: Value,
    log: String,
}

impl Node {
    async fn new() -> Self {
        let netns = Namespace::new("node");
        let folder = std::env::temp_dir().join(netns.path().file_name().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let node = Self { netns, folder };
        std::fs::write(node.folder.join("nodename"), "node-1\n").unwrap();
        std::fs::write(node.folder.join("mtu"), "1410\n").unwrap();
        std::fs::create_dir(node.folder.join("plugins")).unwrap();
        node.plugin("calico-ipam", &programs().join("calico-ipam"));
        let client = node.client();
        client.ensure_initialized("v0", "0123456789abcdef0123456789abcdef").await.unwrap();
        let node_resource = calico_model::resource::Node::default();
        client.of().create(Object::new("node-1".parse().unwrap(), node_resource)).await.unwrap();
        node.pool("default-ipv4-ippool", "192.168.0.0/24").await;
        node.pool("default-ipv6-ippool", "fd80:24::/120").await;
        node.put_in_force(Snapshot::default()).await;
        node
    }

    /// Puts the rules of `snapshot` in force, as an agent does.
    async fn put_in_force(&self, snapshot: Snapshot) {
        let rules = compile(&snapshot, &"node-1".parse().unwrap());
        let sync = move || async move { Nft::new().sync(&rules).map(drop) };
        inside(&self.netns.open(), sync).await.unwrap().unwrap();
    }

    /// Reads all resources, as an agent does.
    async fn snapshot(&self) -> Snapshot {
        let listing = self.client().store().list(&Kind::all_prefix()).await.unwrap();
        let mut snapshot = Snapshot::default();
        listing.entries.iter().filter_map(Update::from_entry).for_each(|update| snapshot.apply(update));
        snapshot
    }

    fn client(&self) -> Client {
        Client::new(Arc::new(SqliteStore::open(self.folder.join("calico.db")).unwrap()), stamp)
    }

    async fn pool(&self, name: &str, cidr: &str) {
        let pool = Object::new(name.parse().unwrap(), IpPool::new(cidr.parse().unwrap()));
        self.client().of().create(pool).await.unwrap();
    }

    async fn endpoints(&self) -> Vec<Object<WorkloadEndpoint>> {
        self.client().of().list(None).await.unwrap().items
    }

    /// Counts the addresses that are assigned.
    async fn held(&self) -> usize {
        let store = self.client().store().clone();
        let handles = store.list(&calico_model::resource::block::handles_prefix()).await.unwrap();
        handles.entries.len()
    }

    /// Makes `program` an IPAM plugin.
    fn plugin(&self, name: &str, program: &Path) {
        std::os::unix::fs::symlink(program, self.folder.join("plugins").join(name)).unwrap();
    }

    /// Calls `calico` as a runtime does.
    fn call(&self, command: &str, container: &Container<'_>, config: &Value) -> Answer {
        self.run("calico", command, container, config.to_string().as_bytes())
    }

    fn run(&self, program: &str, command: &str, container: &Container<'_>, input: &[u8]) -> Answer {
        let output = self.spawn(program, command, container, input).wait_with_output().unwrap();
        let json = match output.stdout.trim_ascii() {
            b"" => Value::Null,
            text => serde_json::from_slice(text).unwrap(),
        };
        Answer { success: output.status.success(), json, log: String::from_utf8(output.stderr).unwrap() }
    }

    /// Calls `calico`, and kills it before it is done, or just after.
    fn kill(&self, command: &str, container: &Container<'_>, config: &Value, after: Duration) {
        let mut child = self.spawn("calico", command, container, config.to_string().as_bytes());
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn spawn(&self, program: &str, command: &str, container: &Container<'_>, input: &[u8]) -> Child {
        let mut process = self.netns.command(programs().join(program));
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container.id)
            .env("CNI_IFNAME", container.interface)
            .env("CNI_PATH", self.folder.join("plugins"))
            .env("CNI_ARGS", container.args)
            .env("CALICO_LIB_DIR", &self.folder)
            .env("CALICO_RUN_DIR", &self.folder);
        if let Some(netns) = &container.netns {
            process.env("CNI_NETNS", netns);
        }
        let pipes = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child
    }
}

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_calico")).parent().unwrap()
}

impl Drop for Node {
    fn drop(&mut self) {
        // What cannot be removed is a few files in the temporary folder.
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a runtime says of a container.
struct Container<'a> {
    id: &'a str,
    netns: Option<PathBuf>,
    interface: &'a str,
    args: &'a str,
}

impl<'a> Container<'a> {
    fn of(id: &'a str, netns: &Namespace) -> Self {
        Self { id, netns: Some(netns.path()), interface: "eth0", args: "" }
    }
}

impl Answer {
    fn ok(self) -> Value {
        assert!(self.success, "{:#}\n{}", self.json, self.log);
        self.json
    }

    /// Returns the message of a failure and its details.
    fn failure(self) -> String {
        assert!(!self.success, "succeeded: {:#}", self.json);
        let text = |key: &str| self.json[key].as_str().unwrap_or_default();
        let details = text("details");
        if details.is_empty() { text("msg").to_owned() } else { format!("{} ({details})", text("msg")) }
    }
}

fn config(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": "calico",
        "ipam": { "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true" },
        "args": { "cni": { "labels": { "role": "database" } } },
        "policy_setup_timeout_seconds": 0
    })
}

fn v4_only() -> Value {
    let mut config = config("1.0.0");
    config["ipam"]["assign_ipv6"] = "false".into();
    config
}

fn with_previous(config: &Value, result: &Value) -> Value {
    let mut config = config.clone();
    config["prevResult"] = result.clone();
    config
}

const ID: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_container_lives_from_add_to_del_in_every_version() {
    let node = Node::new().await;
    for version in VERSIONS {
        let workload = Namespace::new("wl");
        let (container, config) = (Container::of(ID, &workload), config(version));
        let result = node.call("ADD", &container, &config).ok();
        assert_eq!(result["cniVersion"], version);
        let address = match version {
            "0.1.0" | "0.2.0" => result["ip4"]["ip"].as_str().unwrap(),
            _ => result["ips"][0]["address"].as_str().unwrap(),
        };
        let addr = address.strip_suffix("/32").unwrap();
        let shown = workload.ip("-4 addr show eth0");
        assert_eq!(shown[0]["addr_info"][0]["local"], addr);
        assert_eq!(node.netns.ip("route show")[0]["dst"], addr);

        let endpoints = node.endpoints().await;
        assert_eq!(endpoints[0].id().to_string(), format!("default/node--1-cni-{ID}-eth0"));
        assert_eq!(endpoints[0].metadata.labels.get("role"), Some("database"));
        assert_eq!(endpoints[0].spec.addrs(calico_model::Family::V4).next().unwrap().to_string(), addr);

        assert_eq!(node.call("ADD", &container, &config).ok(), result, "{version}: a second ADD");
        let check = node.call("CHECK", &container, &with_previous(&config, &result));
        if version < "0.4.0" {
            assert_eq!(check.json["code"], 1);
            assert!(check.failure().contains("does not have CHECK"));
        } else {
            assert_eq!(check.ok(), Value::Null);
        }
        assert_eq!(node.call("DEL", &container, &with_previous(&config, &result)).ok(), Value::Null);
        assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0), "{version}");
        assert_eq!(node.netns.interfaces(), ["lo"]);
        assert_eq!(node.call("DEL", &container, &config).ok(), Value::Null, "{version}: a second DEL");
    }
}

#[tokio::test]
async fn the_result_names_both_interfaces_as_the_kernel_has_them() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let result = node.call("ADD", &Container::of(ID, &workload), &config("1.1.0")).ok();
    let eth0 = &workload.ip("link show eth0")[0];
    assert_eq!(
        result["interfaces"],
        json!([
            { "name": "cali0123456789a", "mac": "ee:ee:ee:ee:ee:ee" },
            { "name": "eth0", "mac": eth0["address"], "mtu": 1410, "sandbox": workload.path() },
        ])
    );
    assert_eq!(eth0["mtu"], 1410);
    let host = &node.netns.ip("link show cali0123456789a")[0];
    assert_eq!((&host["address"], &host["mtu"]), (&"ee:ee:ee:ee:ee:ee".into(), &1410.into()));
    assert_eq!(node.netns.setting("ipv4/conf/cali0123456789a/proxy_arp"), "1");
    let spec = &node.endpoints().await[0].spec;
    assert_eq!(spec.mac.map(|mac| mac.to_string()).as_deref(), eth0["address"].as_str());
    assert_eq!(spec.interface_name.as_ref().map(|name| name.as_str()), Some("cali0123456789a"));
}

#[tokio::test]
async fn the_network_gets_a_profile_once_and_what_the_user_makes_of_it_stays() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    node.call("ADD", &Container::of("c1", &first), &v4_only()).ok();
    let id = Object::new("net".parse().unwrap(), Profile::allow_all()).id();
    let client = node.client();
    let made = client.of::<Profile>().get(&id).await.unwrap();
    let selector = made.spec.ingress[0].source.selector.as_ref().map(ToString::to_string);
    assert_eq!(selector.as_deref(), Some("has(net)"));
    client.of::<Profile>().modify(&id, |_, profile| profile.ingress.clear()).await.unwrap();
    node.call("ADD", &Container::of("c2", &second), &v4_only()).ok();
    assert!(client.of::<Profile>().get(&id).await.unwrap().spec.ingress.is_empty());
}

#[tokio::test]
async fn a_pod_has_its_namespaces_profile_and_its_new_sandbox_takes_over() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    let mut config = v4_only();
    config["policy"] = json!({ "type": "k8s" });
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0";
    let [old, new] =
        [("c1", &first), ("c2", &second)].map(|(id, netns)| Container { args, ..Container::of(id, netns) });
    node.call("ADD", &old, &config).ok();
    let result = node.call("ADD", &new, &config).ok();
    let endpoints = node.endpoints().await;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].id().to_string(), "prod/node--1-k8s-web--0-eth0");
    assert_eq!(endpoints[0].spec.container_id, "c2");
    assert_eq!(endpoints[0].spec.profiles, ["kns.prod".parse().unwrap()]);

    node.call("DEL", &old, &config).ok();
    assert_eq!(node.endpoints().await.len(), 1, "the endpoint is the new sandbox's");
    assert_eq!(node.held().await, 1);
    node.call("CHECK", &new, &with_previous(&config, &result)).ok();
}

#[tokio::test]
async fn when_the_pools_are_exhausted_nothing_is_left_behind() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    let mut tiny = IpPool::new("10.9.9.9/32".parse().unwrap());
    tiny.block_size = 32;
    node.client().of().create(Object::new("tiny".parse().unwrap(), tiny)).await.unwrap();
    let mut config = v4_only();
    config["ipam"]["ipv4_pools"] = json!(["10.9.9.9/32"]);
    node.call("ADD", &Container::of("c1", &first), &config).ok();
    let (before, container) = (node.netns.interfaces(), Container::of("c2", &second));
    let message = node.call("ADD", &container, &config).failure();
    assert!(message.contains("no address could be assigned on node-1"), "{message}");
    assert!(message.contains("pool tiny"), "{message}");
    assert_eq!((node.endpoints().await.len(), node.held().await), (1, 1));
    assert_eq!((node.netns.interfaces(), second.interfaces()), (before, vec!["lo".to_owned()]));
}

#[tokio::test]
async fn a_family_that_falls_short_gives_the_other_ones_address_back() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let mut config = config("1.0.0");
    config["ipam"]["ipv6_pools"] = json!(["nowhere"]);
    let message = node.call("ADD", &Container::of("c1", &workload), &config).failure();
    assert!(message.contains("there is no pool nowhere"), "{message}");
    assert_eq!(node.held().await, 0);
}

#[tokio::test]
async fn when_the_kernel_refuses_the_endpoint_and_the_address_are_given_back() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    workload.ip("link add other type veth peer name other2");
    workload.ip("link set other up");
    workload.ip("route add default dev other");
    let message = node.call("ADD", &Container::of("c1", &workload), &v4_only()).failure();
    assert!(message.contains("could not route everything else via 169.254.1.1 on eth0"), "{message}");
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
    assert_eq!(node.netns.interfaces(), ["lo"]);
}

#[tokio::test]
async fn the_very_address_that_is_asked_for_is_given_or_the_add_fails() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    let [one, two] = [("c1", &first), ("c2", &second)]
        .map(|(id, netns)| Container { args: "IP=192.168.0.77", ..Container::of(id, netns) });
    let result = node.call("ADD", &one, &v4_only()).ok();
    assert_eq!(result["ips"][0]["address"], "192.168.0.77/32");
    let message = node.call("ADD", &two, &v4_only()).failure();
    assert!(message.contains("address 192.168.0.77 is in use"), "{message}");
    assert_eq!(node.held().await, 1);
}

#[tokio::test]
async fn a_second_add_mends_what_a_killed_one_did_not_come_to() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let (container, config) = (Container::of(ID, &workload), config("1.0.0"));
    let result = node.call("ADD", &container, &config).ok();
    let check = || node.call("CHECK", &container, &with_previous(&config, &result));
    for step in ["addr flush dev eth0", "route del default", "link set eth0 down"] {
        workload.ip(step);
        check().failure();
        assert_eq!(node.call("ADD", &container, &config).ok(), result, "{step}");
        check().ok();
    }
    let index = workload.ip("link show eth0")[0]["ifindex"].clone();
    node.call("ADD", &container, &config).ok();
    assert_eq!(workload.ip("link show eth0")[0]["ifindex"], index, "what is whole stays");
}

#[tokio::test]
async fn a_configuration_that_is_not_valid_stops_no_add_unless_it_may_name_another_prefix() {
    use calico_model::datastore::{Precondition, Write};
    use calico_model::resource::ResourceKey;
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let default = "default".parse::<calico_model::Name>().unwrap();
    let key = ResourceKey { kind: Kind::FelixConfiguration, id: default.into() };
    let store = async |spec: Value| {
        let felix = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": { "name": "default" }, "spec": spec,
        });
        let bytes = felix.to_string().into_bytes();
        let write = Write::put(key.datastore_key(), bytes, Precondition::Any);
        node.client().store().commit(vec![write]).await.unwrap();
    };
    let container = Container::of(ID, &workload);
    store(json!({ "vxlanMTU": "large", "interfacePrefix": "veth-" })).await;
    let message = node.call("ADD", &container, &v4_only()).failure();
    assert!(message.contains("FelixConfiguration(default) names an interfacePrefix"), "{message}");
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
    store(json!({ "vxlanMTU": "large" })).await;
    let answer = node.call("ADD", &container, &v4_only());
    assert!(answer.log.contains("not valid: only what of it is sound counts"), "{}", answer.log);
    assert_eq!(answer.ok()["interfaces"][0]["name"], "cali0123456789a");
}

#[tokio::test]
async fn check_says_what_differs() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let container = Container::of(ID, &workload);
    let result = node.call("ADD", &container, &v4_only()).ok();
    workload.ip("route del default");
    node.netns.ip("link set cali0123456789a down");
    let answer = node.call("CHECK", &container, &with_previous(&v4_only(), &result));
    assert_eq!(answer.json["code"], 103);
    let message = answer.failure();
    assert!(message.contains("cali0123456789a is down"), "{message}");
    assert!(message.contains("in the workload, there is no route to 0.0.0.0/0 via 169.254.1.1"), "{message}");
    let message = node.call("CHECK", &container, &v4_only()).failure();
    assert_eq!(message, "prevResult in the network configuration is missing, and CHECK compares with it");
}

#[tokio::test]
async fn a_del_needs_no_namespace_and_leaves_what_is_not_the_containers() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    node.call("ADD", &Container::of(ID, &workload), &v4_only()).ok();
    let other = Container { netns: None, ..Container::of("other", &workload) };
    node.call("DEL", &other, &v4_only()).ok();
    assert_eq!((node.endpoints().await.len(), node.held().await), (1, 1));
    let gone = Container { netns: Some("/var/run/netns/gone".into()), ..Container::of(ID, &workload) };
    node.call("DEL", &gone, &v4_only()).ok();
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
    assert_eq!(node.netns.interfaces(), ["lo"], "the node's end had lost its owner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_add_waits_for_the_agent_and_says_when_it_does_not_come() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    let mut config = v4_only();
    config["policy_setup_timeout_seconds"] = 1.into();
    let answer = node.call("ADD", &Container::of("aaaaaaaaaaa1", &first), &config);
    assert!(answer.log.contains("did not put the endpoint's policy in force"), "{}", answer.log);
    answer.ok();

    config["policy_setup_timeout_seconds"] = 60.into();
    let (store, folder) = (node.client(), node.folder.join("endpoint-status"));
    let agent = tokio::spawn(async move {
        let (mark, endpoints) = (folder.join("calibbbbbbbbbbb"), store.of::<WorkloadEndpoint>());
        let endpoint = loop {
            let found = endpoints.list(None).await.unwrap().items;
            let of_mark = |e: &Object<WorkloadEndpoint>| e.spec.container_id == "bbbbbbbbbbb1";
            if let Some(endpoint) = found.into_iter().find(of_mark) {
                break endpoint;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        std::fs::create_dir_all(&folder).unwrap();
        // A pass that was under way marks an earlier endpoint with the same interface.
        std::fs::write(&mark, "1").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::write(&mark, endpoint.metadata.resource_version.unwrap()).unwrap();
    });
    #[expect(clippy::disallowed_methods, reason = "the test measures how long a program waits")]
    let begin = Instant::now();
    let answer =
        tokio::task::block_in_place(|| node.call("ADD", &Container::of("bbbbbbbbbbb1", &second), &config));
    let waited = begin.elapsed();
    agent.await.unwrap();
    assert!(waited >= Duration::from_millis(200) && waited < Duration::from_secs(30), "{waited:?}");
    assert!(!answer.log.contains("did not put"), "{}", answer.log);
    answer.ok();
}

#[tokio::test]
async fn without_the_agents_rules_no_workload_is_let_in() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let remove = || async { Nft::new().apply(&Transaction::removal()) };
    inside(&node.netns.open(), remove).await.unwrap().unwrap();
    let answer = node.call("ADD", &Container::of(ID, &workload), &v4_only());
    assert_eq!(answer.json["code"], 11);
    assert_eq!(
        answer.failure(),
        "the rules of calico-node are not in force on this node, so the workload behind cali0123456789a would be open: start calico-node"
    );
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
    assert_eq!(workload.interfaces(), ["lo"]);
}

#[tokio::test]
async fn a_workload_talks_to_others_only_once_the_agent_knows_it() {
    let (node, first, second) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    node.call("ADD", &Container::of("c1", &first), &v4_only()).ok();
    let result = node.call("ADD", &Container::of("c2", &second), &v4_only()).ok();
    let addr = result["ips"][0]["address"].as_str().unwrap().strip_suffix("/32").unwrap();
    let reaches = |wait: &str| {
        let ping = first.command("ping").args(["-c1", wait, addr]).output().unwrap();
        ping.status.success()
    };
    assert!(!reaches("-W1"), "a packet passed before any policy");
    node.put_in_force(node.snapshot().await).await;
    assert!(reaches("-W5"), "the network's own profile lets its endpoints talk");
}

#[tokio::test]
async fn a_second_interface_of_a_container_is_refused_and_the_first_one_stays() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let container = Container::of(ID, &workload);
    node.call("ADD", &container, &v4_only()).ok();
    let second = Container { interface: "net1", ..Container::of(ID, &workload) };
    let answer = node.call("ADD", &second, &v4_only());
    assert_eq!(answer.json["code"], 104);
    let message = answer.failure();
    assert!(message.contains("Calico gives a container one interface"), "{message}");
    node.call("DEL", &second, &v4_only()).ok();
    assert_eq!(workload.interfaces(), ["eth0", "lo"]);
    assert_eq!((node.endpoints().await.len(), node.held().await), (1, 1));
}

#[tokio::test]
async fn an_interface_is_named_with_the_agents_prefix() {
    use calico_model::resource::FelixConfiguration;
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let mut felix = FelixConfiguration::new();
    felix.interface_prefix = Some("veth-".to_owned());
    node.client().of().create(Object::new("default".parse().unwrap(), felix)).await.unwrap();
    let container = Container::of(ID, &workload);
    let result = node.call("ADD", &container, &v4_only()).ok();
    assert_eq!(result["interfaces"][0]["name"], "veth-0123456789");
    node.call("CHECK", &container, &with_previous(&v4_only(), &result)).ok();
    node.call("DEL", &container, &v4_only()).ok();
    assert_eq!(node.netns.interfaces(), ["lo"]);
}

#[tokio::test]
async fn what_a_runtime_does_wrong_is_told_in_a_sentence() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let container = Container::of("c1", &workload);
    let run = |command: &str, container: &Container<'_>, input: &str| {
        let answer = node.run("calico", command, container, input.as_bytes());
        (answer.json["code"].as_u64().unwrap(), answer.failure())
    };
    let (code, message) = run("ADD", &container, "{\"cniVersion\": ");
    assert_eq!(code, 6);
    assert!(message.contains("not usable JSON"), "{message}");
    let (code, message) = run("ADD", &container, &config("7.0.0").to_string());
    assert_eq!(code, 1);
    assert!(message.contains("CNI version \"7.0.0\" is not supported"), "{message}");
    let nowhere =
        Container { netns: Some("/var/run/netns/nowhere".into()), ..Container::of("c1", &workload) };
    let (code, message) = run("ADD", &nowhere, &v4_only().to_string());
    assert_eq!((code, message.as_str()), (3, "the network namespace /var/run/netns/nowhere does not exist"));
    let own = Container { netns: Some(node.netns.path()), ..Container::of("c1", &workload) };
    let (_, message) = run("ADD", &own, &v4_only().to_string());
    assert!(message.contains("network namespace of the node itself"), "{message}");
    let (code, message) = run("PING", &container, "");
    assert_eq!(code, 4);
    assert!(message.contains("CNI_COMMAND is \"PING\""), "{message}");
    let mut missing = v4_only();
    missing["ipam"]["type"] = "no-such-ipam".into();
    let (_, message) = run("ADD", &container, &missing.to_string());
    assert!(message.contains("it is in none of the folders of CNI_PATH"), "{message}");
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
}

#[tokio::test]
async fn a_node_that_no_agent_has_set_up_is_refused_and_can_be_cleaned() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let file = node.folder.join("nodename");
    std::fs::remove_file(&file).unwrap();
    let container = Container::of("c1", &workload);
    let answer = node.call("ADD", &container, &v4_only());
    assert_eq!(answer.json["code"], 11);
    let expected =
        format!("this node is not set up: {} does not exist; is calico-node running on it?", file.display());
    assert_eq!(answer.failure(), expected);
    node.call("DEL", &container, &v4_only()).ok();
    let answer = node.call("STATUS", &container, &config("1.1.0"));
    assert_eq!(answer.json["code"], 50);
    let message = answer.failure();
    assert!(message.contains("is not set up"), "{message}");
}

#[tokio::test]
async fn a_del_without_the_agents_file_leaves_no_endpoint_whose_address_is_free() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let (container, file) = (Container::of("c1", &workload), node.folder.join("nodename"));
    let mut named = v4_only();
    named["nodename"] = "node-1".into();
    node.call("ADD", &container, &named).ok();
    std::fs::remove_file(&file).unwrap();
    // Nobody says what the node was called.
    node.call("DEL", &container, &v4_only()).ok();
    assert_eq!((node.endpoints().await.len(), node.held().await), (1, 1));
    std::fs::create_dir(&file).unwrap();
    let message = node.call("DEL", &container, &v4_only()).failure();
    assert!(message.contains("nodename cannot be read"), "{message}");
    assert_eq!((node.endpoints().await.len(), node.held().await), (1, 1));
    std::fs::remove_dir(&file).unwrap();
    node.call("DEL", &container, &named).ok();
    assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0));
    std::fs::write(&file, "").unwrap();
    let message = node.call("ADD", &container, &v4_only()).failure();
    assert!(message.contains("is not set up"), "{message}");
}

#[tokio::test]
async fn a_datastore_that_is_not_ready_is_left_alone() {
    use calico_model::resource::ClusterInformation;
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let client = node.client();
    let information = client.of::<ClusterInformation>().list(None).await.unwrap().items.remove(0);
    let lock = client.of::<ClusterInformation>();
    lock.modify(&information.id(), |_, spec| spec.datastore_ready = Some(false)).await.unwrap();
    let answer = node.call("ADD", &Container::of("c1", &workload), &v4_only());
    assert_eq!(answer.json["code"], 11);
    let message = answer.failure();
    assert!(message.contains("the datastore is not ready: ClusterInformation says"), "{message}");
    assert_eq!(node.held().await, 0);
}

#[tokio::test]
async fn versions_and_status_are_answered() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let container = Container::of("c1", &workload);
    for program in ["calico", "calico-ipam"] {
        let answer = node.run(program, "VERSION", &container, br#"{"cniVersion": "0.4.0"}"#).ok();
        assert_eq!(answer, json!({ "cniVersion": "0.4.0", "supportedVersions": VERSIONS }));
    }
    assert_eq!(node.call("STATUS", &container, &config("1.1.0")).ok(), Value::Null);
    assert!(node.call("STATUS", &container, &config("1.0.0")).failure().contains("does not have STATUS"));
    let remove = || async { Nft::new().apply(&Transaction::removal()) };
    inside(&node.netns.open(), remove).await.unwrap().unwrap();
    let answer = node.call("STATUS", &container, &config("1.1.0"));
    assert_eq!(answer.json["code"], 50);
    assert_eq!(answer.failure(), "the rules of calico-node are not in force on this node: start calico-node");
}

#[tokio::test]
async fn what_a_runtime_has_forgotten_is_collected() {
    let (node, kept, lost) = (Node::new().await, Namespace::new("wl"), Namespace::new("wl"));
    let elsewhere = Namespace::new("wl");
    let config = config("1.1.0");
    let mut other_network = config.clone();
    other_network["name"] = "net.other".into();
    let result = node.call("ADD", &Container::of("kept", &kept), &config).ok();
    node.call("ADD", &Container::of("lost", &lost), &config).ok();
    node.call("ADD", &Container::of("elsewhere", &elsewhere), &other_network).ok();
    let mut collect = config.clone();
    collect["cni.dev/valid-attachments"] = json!([{ "containerID": "kept", "ifname": "eth0" }]);
    node.call("GC", &Container::of("none", &kept), &collect).ok();
    assert_eq!(lost.interfaces(), ["lo"]);
    let containers: Vec<String> =
        node.endpoints().await.into_iter().map(|endpoint| endpoint.spec.container_id).collect();
    assert_eq!(containers, ["elsewhere", "kept"]);
    assert_eq!(node.held().await, 2);
    node.call("CHECK", &Container::of("kept", &kept), &with_previous(&config, &result)).ok();
    let message = node.call("GC", &Container::of("none", &kept), &config).failure();
    assert!(
        message.contains("cni.dev/valid-attachments in the network configuration is missing"),
        "{message}"
    );
}

#[tokio::test]
async fn another_ipam_plugin_is_called_and_its_address_becomes_a_host_address() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    // It answers with its input, which is then a result too.
    node.plugin("echo-ipam", "/bin/cat".as_ref());
    let mut config = v4_only();
    config["ipam"] = json!({ "type": "echo-ipam" });
    config["ips"] = json!([{ "address": "10.1.2.3/24", "gateway": "10.1.2.1" }]);
    let result = node.call("ADD", &Container::of("c1", &workload), &config).ok();
    assert_eq!(result["ips"], json!([{ "address": "10.1.2.3/32", "interface": 1 }]));
    node.call("DEL", &Container::of("c1", &workload), &config).ok();
    assert_eq!(node.netns.interfaces(), ["lo"]);
}

#[tokio::test]
async fn an_ipam_plugin_that_makes_no_sense_fails_the_add() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    for (name, program, expected) in [
        ("silent", "/bin/true", "the IPAM plugin silent gave no address, of no use to a workload"),
        ("failing", "/bin/false", "it ended with exit status: 1 and answered \"\""),
        ("chatty", "/bin/pwd", "it ended with exit status: 0 and answered"),
    ] {
        node.plugin(name, program.as_ref());
        let mut config = v4_only();
        config["ipam"] = json!({ "type": name });
        let message = node.call("ADD", &Container::of("c1", &workload), &config).failure();
        assert!(message.contains(expected), "{message}");
        assert_eq!((node.endpoints().await.len(), workload.interfaces()), (0, vec!["lo".to_owned()]));
    }
}

#[tokio::test]
async fn the_log_goes_where_the_configuration_says() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let mut config = v4_only();
    config["log_level"] = "debug".into();
    config["log_file_path"] = json!(node.folder.join("log/cni.log"));
    node.call("ADD", &Container::of("c1", &workload), &config).ok();
    let log = std::fs::read_to_string(node.folder.join("log/cni.log")).unwrap();
    assert!(log.contains("step=give eth0 the address 192.168.0."), "{log}");
}

#[tokio::test]
async fn an_address_that_nobody_hears_of_is_released() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let input = v4_only().to_string();
    let mut child = node.spawn("calico-ipam", "ADD", &Container::of("c1", &workload), input.as_bytes());
    drop(child.stdout.take());
    assert!(!child.wait().unwrap().success());
    assert_eq!(node.held().await, 0);
}

/// Kills `calico` in the middle of an ADD, after as many milliseconds as `after`.
#[tokio::test]
async fn whatever_stops_an_add_in_between_a_del_leaves_nothing_behind() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let container = Container::of(ID, &workload);
    for after in [5, 15, 30, 45, 60, 80, 100, 130] {
        node.kill("ADD", &container, &v4_only(), Duration::from_millis(after));
        node.call("DEL", &container, &v4_only()).ok();
        assert_eq!((node.endpoints().await.len(), node.held().await), (0, 0), "after {after} ms");
        assert_eq!(
            (node.netns.interfaces(), workload.interfaces()),
            (vec!["lo".to_owned()], vec!["lo".to_owned()])
        );
    }
    node.call("ADD", &container, &v4_only()).ok();
}

#[tokio::test]
async fn many_containers_at_once_all_get_an_address_of_their_own() {
    let node = Node::new().await;
    let workloads: Vec<(String, Namespace)> =
        (0..12).map(|n| (format!("{n:011x}f"), Namespace::new("wl"))).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let node = &node;
        let adds = workloads.iter().map(|(id, netns)| {
            scope.spawn(move || {
                let result = node.call("ADD", &Container::of(id, netns), &v4_only()).ok();
                result["ips"][0]["address"].as_str().unwrap().to_owned()
            })
        });
        let adds: Vec<_> = adds.collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), node.endpoints().await.len()), (12, 12));
}
