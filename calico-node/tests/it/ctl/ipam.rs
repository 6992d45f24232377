//! `calicoctl ipam`: tables, checks, releases, settings and splits, beside addresses that the library assigns.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use calico_ipam::{AutoAssign, Ipam};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::resource::block::block_key;
use calico_model::{Cidr, Datastore};
use serde_json::{Value, json};

use super::{Cluster, pool};

/// The same datastore as the programs', seen from inside.
struct Inside {
    store: Arc<dyn Datastore>,
    ipam: Ipam,
}

impl Inside {
    fn of(cluster: &Cluster) -> Self {
        let store: Arc<dyn Datastore> =
            Arc::new(SqliteStore::open(cluster.folder.join("calico.db")).unwrap());
        Self { ipam: Ipam::new(Arc::clone(&store)), store }
    }

    async fn pod(&self, node: &str, name: &str) -> IpAddr {
        let mut request = AutoAssign::new(node.parse().unwrap(), format!("k8s-pod-network.{name}"));
        request.count.v4 = 1;
        request.attributes.insert("pod".into(), name.into());
        request.attributes.insert("namespace".into(), "default".into());
        self.ipam.auto_assign(request, now()).await.unwrap().v4[0].addr
    }
}

#[expect(clippy::disallowed_methods, reason = "the programs that run beside it have the world's time")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn node(name: &str) -> String {
    format!("---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn endpoint(pod: &str, addr: IpAddr) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: n1-k8s-{pod}-eth0}}\nspec: \
         {{node: n1, orchestrator: k8s, pod: {pod}, endpoint: eth0, ipNetworks: [{addr}/32]}}\n"
    )
}

fn cluster(test: &str) -> Cluster {
    let cluster = Cluster::new(test);
    let applied = cluster.apply(&(pool("p", "192.168.0.0/24") + &node("n1")));
    assert_eq!((applied.code, applied.err.as_str()), (0, ""));
    cluster
}

#[tokio::test]
async fn the_use_of_pools_and_blocks_is_shown() {
    let cluster = cluster("ipam-show");
    let inside = Inside::of(&cluster);
    let addr = inside.pod("n1", "a").await;
    let block: Cidr = Cidr::holding(addr, 26).unwrap();
    let pools = cluster.ok(&["ipam", "show"]);
    assert!(pools.contains("| IP Pool  | 192.168.0.0/24 | 256"), "{pools}");
    assert!(pools.contains("| 1 (0%)") && pools.contains("| 255 (100%)"), "{pools}");
    let blocks = cluster.ok(&["ipam", "show", "--show-blocks"]);
    assert!(blocks.contains(&format!("| Block ▁  | {block}")), "{blocks}");
    assert!(blocks.lines().all(|line| line.chars().count() <= 80), "{blocks}");
    let json = cluster.json(&["ipam", "show", "-o", "json"]);
    assert_eq!(json["pools"][0]["blocks"][0]["affinity"], "host:n1");
    let shown = cluster.ok(&["ipam", "show", "--ip", &addr.to_string()]);
    let expected = format!(
        "IP {addr} is in use\nBlock: {block}\nHandle ID: k8s-pod-network.a\nAttributes:\n  namespace: default\n  \
         node: n1\n  pod: a\n"
    );
    assert_eq!(shown, expected);
    let json = cluster.json(&["ipam", "show", "--ip", &addr.to_string(), "-o", "json"]);
    assert_eq!((&json["inUse"], &json["assignment"]["handle"]), (&json!(true), &json!("k8s-pod-network.a")));
    assert_eq!(cluster.ok(&["ipam", "show", "--ip", "10.9.9.9"]), "10.9.9.9 is not assigned\n");
    assert_eq!(
        cluster.run(&["ipam", "show", "--show-blocks", "--show-borrowed"]).code,
        2,
        "one thing at a time"
    );
}

#[tokio::test]
async fn what_was_released_a_moment_ago_is_not_free() {
    let cluster = cluster("ipam-cooling");
    let inside = Inside::of(&cluster);
    cluster.ok(&["ipam", "configure", "--ip-cooldown-seconds=1200"]);
    let addr = inside.pod("n1", "a").await.to_string();
    assert_eq!(
        cluster.ok(&["ipam", "release", "--ip", &addr]),
        format!("Successfully released IP address {addr}\n")
    );
    let table = cluster.ok(&["ipam", "show"]);
    assert!(table.ends_with("neither in use nor free yet: 1\n"), "{table}");
    let ips = &cluster.json(&["ipam", "show", "-o", "json"])["pools"][0]["ips"];
    assert_eq!((&ips["inUse"], &ips["cooling"], &ips["free"]), (&json!(0), &json!(1), &json!(255)));
    let again = cluster.run(&["ipam", "release", "--ip", &addr]);
    assert_eq!((again.code, again.err), (1, format!("IP address {addr} is not assigned\n")));
}

#[tokio::test]
async fn a_borrowed_address_is_shown_with_both_nodes() {
    let cluster = Cluster::new("ipam-borrowed");
    let tiny = pool("p", "192.168.0.0/30").replace("/30}", "/30, blockSize: 30}");
    assert_eq!(cluster.apply(&(tiny + &node("n1") + &node("n2"))).err, "");
    let inside = Inside::of(&cluster);
    inside.pod("n1", "a").await;
    let addr = inside.pod("n2", "b").await.to_string();
    let table = cluster.ok(&["ipam", "show", "--show-borrowed"]);
    assert!(table.contains(&format!("| {addr} | n2 ")) && table.contains("| default/b"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let json = cluster.json(&["ipam", "show", "--show-borrowed", "-o", "json"]);
    assert_eq!(json["borrowed"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["borrowed"][0]["blockOwner"], "n1");
}

#[tokio::test]
async fn a_check_tells_leaks_from_what_is_used_and_a_report_releases_only_what_still_leaks() {
    let cluster = cluster("ipam-check");
    let inside = Inside::of(&cluster);
    let [used, back, gone] =
        [inside.pod("n1", "a").await, inside.pod("n1", "b").await, inside.pod("n1", "c").await];
    assert_eq!(cluster.apply(&endpoint("a", used)).err, "");
    let text = cluster.ok(&["ipam", "check", "--show-problem-ips"]);
    let leaks = format!(
        "Found 2 IPs that are allocated and not in use (leaked).\n  {back} is held by \"k8s-pod-network.b\", whose user \
         is gone\n  {gone} is held by"
    );
    assert!(text.contains(&leaks) && text.ends_with("Check complete; found 2 problems.\n"), "{text}");
    let report = cluster.folder.join("report.json").to_str().unwrap().to_owned();
    cluster.ok(&["ipam", "check", "-o", &report]);
    let written: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let information = cluster.json(&["get", "clusterinformation", "default", "-o", "json"]);
    assert_eq!(written["clusterGUID"], information["spec"]["clusterGUID"]);
    assert_eq!((&written["datastoreLocked"], &written["version"]), (&json!(false), &json!("v0.1.0")));
    let entry = &written["allocations"][used.to_string()][0];
    assert_eq!((&entry["inUse"], &entry["pod"], &entry["node"]), (&json!(true), &json!("a"), &json!("n1")));
    assert_eq!(written["allocations"][gone.to_string()][0]["inUse"], false);
    // One of the two comes to life between the report and the release.
    assert_eq!(cluster.apply(&endpoint("b", back)).err, "");
    let open = cluster.run(&["ipam", "release", "--from-report", &report]);
    assert_eq!(open.code, 1);
    assert!(open.err.starts_with("the datastore is not locked"), "{}", open.err);
    assert_eq!(cluster.ok(&["datastore", "migrate", "lock"]), "Datastore locked.\n");
    assert_eq!(
        cluster.ok(&["ipam", "release", "--from-report", &report]),
        "Released 1 IPs and mended 0 handles.\nLeft 1 IPs alone: they are in use again, assigned anew or released \
         already.\n"
    );
    cluster.ok(&["datastore", "migrate", "unlock"]);
    assert!(cluster.ok(&["ipam", "check"]).ends_with("Check complete; found 0 problems.\n"));
    assert!(cluster.ok(&["ipam", "show", "--ip", &back.to_string()]).contains("is in use"));
    let forced = cluster.json(&["ipam", "release", "--from-report", &report, "--force", "-o", "json"]);
    assert_eq!(forced, json!({"released": [], "mendedHandles": 0, "left": 2}));
    let other = std::fs::read_to_string(&report).unwrap().replace("clusterGUID\": \"", "clusterGUID\": \"x");
    let other = cluster.file("other.json", &other);
    let refused = cluster.run(&["ipam", "release", "--from-report", &other, "--force"]);
    assert_eq!(
        (refused.code, refused.err),
        (1, format!("{other} is of another cluster: nothing was released\n"))
    );
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_read_takes_no_address_from_anybody() {
    let cluster = cluster("ipam-unreadable");
    let inside = Inside::of(&cluster);
    let addr = inside.pod("n1", "a").await;
    assert_eq!(cluster.apply(&endpoint("a", addr)).err, "");
    let key =
        "/calico/resources/v3/projectcalico.org/workloadendpoints/default/n1-k8s-a-eth0".parse().unwrap();
    let write = calico_model::datastore::Write::put(
        key,
        b"{broken".to_vec(),
        calico_model::datastore::Precondition::Any,
    );
    inside.store.commit(vec![write]).await.unwrap();
    let checked = cluster.run(&["ipam", "check"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.out.contains("Found 0 IPs that are allocated and not in use (leaked).\n"),
        "{}",
        checked.out
    );
    assert!(
        checked.err.starts_with(
            "WorkloadEndpoint(default/n1-k8s-a-eth0) cannot be read, so that no address counts as leaked: "
        ),
        "{}",
        checked.err
    );
}

#[tokio::test]
async fn a_block_that_cannot_be_read_is_named() {
    let cluster = cluster("ipam-damaged");
    let inside = Inside::of(&cluster);
    let addr = inside.pod("n1", "a").await;
    let block = Cidr::holding(addr, 26).unwrap();
    let write = calico_model::datastore::Write::put(
        block_key(&block),
        b"{}".to_vec(),
        calico_model::datastore::Precondition::Any,
    );
    inside.store.commit(vec![write]).await.unwrap();
    for verb in ["show", "check"] {
        let ran = cluster.run(&["ipam", verb]);
        assert_eq!(ran.code, 1, "{verb}");
        assert!(ran.err.contains(block_key(&block).as_str()), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_handle_is_released_as_a_whole() {
    let cluster = cluster("ipam-handle");
    let inside = Inside::of(&cluster);
    let addr = inside.pod("n1", "a").await;
    let json = cluster.json(&["ipam", "release", "--handle", "k8s-pod-network.a", "-o", "json"]);
    assert_eq!(json, json!({"released": [addr.to_string()]}));
    let again = cluster.run(&["ipam", "release", "--handle", "k8s-pod-network.a"]);
    assert_eq!((again.code, again.err.as_str()), (1, "handle \"k8s-pod-network.a\" holds no addresses\n"));
    assert_eq!(cluster.run(&["ipam", "release"]).code, 2);
}

#[test]
fn the_configuration_is_changed_within_its_rules() {
    let cluster = cluster("ipam-configure");
    let none = cluster.run(&["ipam", "configure"]);
    assert_eq!(none.code, 1);
    let alone = cluster.run(&["ipam", "configure", "--max-blocks-per-host=4"]);
    assert_eq!(
        (alone.code, alone.err.as_str()),
        (
            1,
            "the IPAM configuration is not sound: a limit of blocks per host needs strict affinity: turn \
             strictAffinity on\n"
        )
    );
    assert_eq!(
        cluster.ok(&["ipam", "configure", "--strictaffinity=true", "--max-blocks-per-host=4"]),
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n"
    );
    let json = cluster.json(&["ipam", "configure", "--kubevirt-ip-persistence=Disabled", "-o", "json"]);
    assert_eq!(json["kubeVirtVMAddressPersistence"], "Disabled");
    assert_eq!(cluster.json(&["ipam", "show", "--show-configuration", "-o", "json"]), json);
    let table = cluster.ok(&["ipam", "show", "--show-configuration"]);
    assert!(table.contains("| StrictAffinity               | true     |"), "{table}");
    assert_eq!(cluster.run(&["ipam", "configure", "--ip-cooldown-seconds=1201"]).code, 2);
}

#[test]
fn the_configuration_is_one_whether_a_resource_or_a_command_changes_it() {
    let cluster = Cluster::new("ipam-configuration");
    let resource = |spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n"
        )
    };
    let shown = || cluster.json(&["ipam", "show", "--show-configuration", "-o", "json"]);
    let spec = || cluster.json(&["get", "ipamconfig", "default", "-o", "json"])["spec"].clone();
    assert_eq!(cluster.apply(&resource("{strictAffinity: true, maxBlocksPerHost: 3}")).err, "");
    assert_eq!((&shown()["strictAffinity"], &shown()["maxBlocksPerHost"]), (&json!(true), &json!(3)));
    cluster.ok(&["ipam", "configure", "--max-blocks-per-host=9", "--ip-cooldown-seconds=5"]);
    let expected = json!({
        "strictAffinity": true, "maxBlocksPerHost": 9, "autoAllocateBlocks": true, "ipCooldownSeconds": 5,
    });
    assert_eq!(spec(), expected);
    cluster.ok(&["patch", "ipamconfig", "default", "-p", r#"{"spec": {"ipCooldownSeconds": 7}}"#]);
    assert_eq!(shown()["ipCooldownSeconds"], 7);
    cluster.ok(&["delete", "ipamconfig", "default"]);
    assert_eq!((&shown()["strictAffinity"], &shown()["maxBlocksPerHost"]), (&json!(false), &json!(0)));
}

#[tokio::test]
async fn a_pool_is_split_while_the_datastore_is_locked_and_its_addresses_stay() {
    let cluster = cluster("ipam-split");
    let inside = Inside::of(&cluster);
    let addr = inside.pod("n1", "a").await;
    let open = cluster.run(&["ipam", "split", "2", "--name", "p"]);
    assert_eq!(open.code, 1);
    assert!(open.err.starts_with("the datastore is not locked"), "{}", open.err);
    cluster.ok(&["datastore", "migrate", "lock"]);
    for (parts, problem) in [
        ("3", "a pool can be split into 2, 4, 8, ... parts, not into 3\n"),
        ("8", "pool p: 8 parts would be smaller than a block, of which it has 4\n"),
    ] {
        let refused = cluster.run(&["ipam", "split", parts, "--cidr", "192.168.0.0/24"]);
        assert_eq!((refused.code, refused.err.as_str()), (1, problem));
    }
    let unknown = cluster.run(&["ipam", "split", "2", "--name", "q"]);
    assert_eq!(unknown.err, "there is no pool q: the pools are p (192.168.0.0/24)\n");
    assert_eq!(
        cluster.ok(&["ipam", "split", "2", "--cidr", "192.168.0.0/24"]),
        "IP Pool p was successfully split into 2 smaller pools.\nCreated split-p-0 with CIDR 192.168.0.0/25.\nCreated \
         split-p-1 with CIDR 192.168.0.128/25.\n"
    );
    cluster.ok(&["datastore", "migrate", "unlock"]);
    assert_eq!(cluster.ok(&["get", "ippools", "-o", "name"]), "ippool/split-p-0\nippool/split-p-1\n");
    let uid = &cluster.json(&["get", "ippool", "split-p-0", "-o", "json"])["metadata"]["uid"];
    assert_eq!(uid.as_str().map(str::len), Some(36));
    assert!(cluster.ok(&["ipam", "show", "--ip", &addr.to_string()]).contains("is in use"));
    let pools = &cluster.json(&["ipam", "show", "-o", "json"])["pools"];
    let in_use: u64 = pools.as_array().unwrap().iter().filter_map(|pool| pool["ips"]["inUse"].as_u64()).sum();
    assert_eq!(in_use, 1);
}
