//! `calicoctl` as its users run it: the real program on a temporary datastore.

mod explain;
mod ipam;
mod migrate;
mod plan;
mod selector;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder with a datastore of its own, removed in the end.
struct Cluster {
    folder: PathBuf,
}

/// How a run ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Cluster {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("calicoctl-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calicoctl"));
        command.args(args).env_clear();
        command.env("CALICO_DATASTORE_PATH", self.folder.join("calico.db"));
        command.env("CALICO_RUN_DIR", &self.folder);
        command.env("CALICO_LIB_DIR", &self.folder);
        // A file of the machine that the tests run on must not count.
        let empty = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n  datastorePath: ";
        let config =
            self.file("calicoctl.cfg", &format!("{empty}{}\n", self.folder.join("calico.db").display()));
        if !args.contains(&"-c") && !["selector", "node", "schema", "convert"].contains(&args[0]) {
            command.args(["-c", &config]);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        ran(child.wait_with_output().unwrap())
    }

    /// Runs and expects success with nothing on standard error.
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}: {}", ran.out);
        ran.out
    }

    fn apply(&self, manifest: &str) -> Ran {
        self.run_with_input(&["apply", "-f", "-"], manifest)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn a_file_that_tells_a_stale_revision_deletes_nothing_and_closes_nothing() {
    let cluster = Cluster::new("stale-delete");
    cluster.apply(&pool("p", "192.168.0.0/16"));
    let stale = cluster.file("stale.json", &cluster.ok(&["get", "ippool", "p", "-o", "json"]));
    cluster.ok(&["label", "ippool", "p", "a=b"]);
    let refused = cluster.run(&["delete", "-f", &stale]);
    assert!(refused.code == 1 && refused.err.contains("update conflict: IPPool(p)"), "{}", refused.err);
    let now = cluster.json(&["get", "ippool", "p", "-o", "json"]);
    assert!(!now["spec"].get("disabled").and_then(Value::as_bool).unwrap_or(false));
    let newest = cluster.file("newest.json", &now.to_string());
    assert_eq!(cluster.ok(&["delete", "-f", &newest]), "Successfully deleted 1 'IPPool' resource(s)\n");

    cluster.apply(&policy("x", "{order: 1}"));
    let stale = cluster.file("stale.json", &cluster.ok(&["get", "policy", "x", "-o", "json"]));
    cluster.apply(&policy("x", "{order: 2}"));
    let refused = cluster.run(&["delete", "-f", &stale]);
    assert!(refused.code == 1 && refused.err.contains("update conflict"), "{}", refused.err);
    cluster.ok(&["get", "policy", "x"]);
}

#[test]
fn a_resource_is_created_shown_changed_and_deleted() {
    let cluster = Cluster::new("cycle");
    let file = cluster.file("pool.yaml", &pool("default-ipv4-ippool", "192.168.0.0/16"));
    assert_eq!(cluster.ok(&["create", "-f", &file]), "Successfully created 1 'IPPool' resource(s)\n");
    let again = cluster.run(&["create", "-f", &file]);
    assert_eq!(
        (again.code, again.err.as_str()),
        (1, "resource already exists: IPPool(default-ipv4-ippool)\n")
    );
    cluster.ok(&["create", "--skip-exists", "-f", &file]);
    assert_eq!(
        cluster.ok(&["get", "ippool"]),
        "NAME                  CIDR             SELECTOR\ndefault-ipv4-ippool   192.168.0.0/16   all()\n\n"
    );
    let before = cluster.json(&["get", "pool", "default-ipv4-ippool", "-o", "json"]);
    let changed = pool("default-ipv4-ippool", "192.168.0.0/16").replace("/16}", "/16, natOutgoing: true}");
    assert_eq!(cluster.apply(&changed).out, "Successfully applied 1 'IPPool' resource(s)\n");
    let after = cluster.json(&["get", "pool", "default-ipv4-ippool", "-o", "json"]);
    assert_eq!(after["spec"]["natOutgoing"], true);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_ne!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let stale = cluster.run_with_input(&["replace", "-f", "-"], &before.to_string());
    assert_eq!(stale.code, 1);
    assert!(stale.err.starts_with("update conflict: IPPool(default-ipv4-ippool)"), "{}", stale.err);
    cluster.ok(&[
        "patch",
        "ippool",
        "default-ipv4-ippool",
        "-p",
        r#"{"spec": {"disabled": true, "natOutgoing": null}}"#,
    ]);
    let patched = cluster.json(&["get", "ippool", "default-ipv4-ippool", "-o", "json"]);
    assert_eq!(
        (&patched["spec"]["disabled"], patched["spec"].get("natOutgoing")),
        (&Value::Bool(true), None)
    );
    assert_eq!(
        cluster.ok(&["delete", "ippool", "default-ipv4-ippool"]),
        "Successfully deleted 1 'IPPool' resource(s)\n"
    );
    let gone = cluster.run(&["get", "ippool", "default-ipv4-ippool"]);
    assert_eq!((gone.code, gone.err.as_str()), (1, "resource does not exist: IPPool(default-ipv4-ippool)\n"));
    cluster.ok(&["delete", "-s", "ippool", "default-ipv4-ippool"]);
}

#[test]
fn what_is_got_can_be_applied_again() {
    let cluster = Cluster::new("again");
    let manifest = pool("p", "10.0.0.0/16") + &policy("q", "{selector: \"role == 'db'\", order: 100}");
    assert_eq!(cluster.apply(&manifest).out, "Successfully applied 2 resource(s)\n");
    for kind in ["ippools", "policies", "tiers"] {
        let yaml = cluster.ok(&["get", kind, "-o", "yaml"]);
        let applied = cluster.apply(&yaml);
        assert_eq!((applied.code, applied.err.as_str()), (0, ""), "{kind}");
    }
    let yaml = cluster.ok(&["get", "policy", "q", "-o", "yaml", "--export"]);
    assert!(yaml.contains("order: 100\n") && yaml.contains("selector: role == 'db'\n"), "{yaml}");
    assert!(!yaml.contains("uid") && !yaml.contains("resourceVersion"), "{yaml}");
}

#[test]
fn every_document_is_attempted_and_the_failures_are_counted() {
    let cluster = Cluster::new("partial");
    let manifest = pool("first", "10.0.0.0/16")
        + &pool("second", "10.0.128.0/17")
        + "---\napiVersion: projectcalico.org/v3\nkind: Banana\nmetadata: {name: b}\n"
        + "---\na: [\n"
        + &pool("third", "10.1.0.0/16");
    let ran = cluster.apply(&manifest);
    assert_eq!((ran.code, ran.out.as_str()), (1, "Partial success: applied 2 out of 5 'IPPool' resources\n"));
    let errors: Vec<&str> = ran.err.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(errors[0], "standard input: document 3 (line 12): kind \"Banana\" is not known");
    assert!(errors[1].starts_with("standard input: document 4 (line 16, column"), "{errors:?}");
    assert_eq!(
        errors[2],
        "IPPool \"second\" is invalid: spec.cidr = \"10.0.128.0/17\": must not overlap IPPool \"first\", which is 10.0.0.0/16"
    );
}

#[test]
fn mistakes_are_named_with_the_field_and_the_remedy() {
    let cluster = Cluster::new("mistakes");
    let unknown = cluster.apply(&policy("p", "{selectr: all(), ingress: [{action: Allow, sorce: {}}]}"));
    assert_eq!(
        unknown.err,
        "NetworkPolicy \"p\" has fields that NetworkPolicy does not know: spec.ingress[0].sorce, spec.selectr\n"
    );
    let selector = cluster.apply(&policy("p", "{selector: \"role == \"}"));
    assert_eq!(selector.code, 1);
    assert!(selector.err.contains("spec.selector") && selector.err.contains("column 9"), "{}", selector.err);
    let snippet = "\n    role == \n            ^\n";
    assert!(selector.err.ends_with(snippet), "{}", selector.err);
    let tier = cluster.apply(&policy("p", "{tier: nowhere}"));
    assert!(tier.err.contains("spec.tier = \"nowhere\": must be a tier that exists"), "{}", tier.err);
    let scoped = cluster.run(&["get", "ippool", "-n", "prod"]);
    assert_eq!(scoped.err, "IPPool belongs to the whole cluster: leave out the namespace\n");
    let elsewhere = policy("p", "{}").replace("name: p", "name: p, namespace: dev");
    let elsewhere = cluster.run_with_input(&["apply", "-n", "prod", "-f", "-"], &elsewhere);
    assert!(
        elsewhere.err.contains("its namespace is dev, and the command line says prod"),
        "{}",
        elsewhere.err
    );
    let usage = cluster.run(&["get", "banana"]);
    assert_eq!(usage.code, 2);
    let format = cluster.run(&["get", "ippool", "-o", "xml"]);
    assert_eq!(format.code, 2);
    assert_eq!(cluster.run(&["apply", "-f", "/nonexistent.yaml"]).code, 1);
    let empty = cluster.apply("# nothing\n");
    assert_eq!((empty.code, empty.err.as_str()), (1, "standard input has no resources\n"));
}

#[test]
fn what_only_agents_write_is_refused() {
    let cluster = Cluster::new("refused");
    for (kind, name) in [("ClusterInformation", "default"), ("Profile", "projectcalico-default-allow")] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        );
        assert_eq!(cluster.apply(&text).code, 1, "{kind}");
    }
    assert_eq!(cluster.apply(&policy("knp.default.x", "{}")).code, 1);
    assert_eq!(cluster.run(&["delete", "tier", "default"]).code, 1);
    assert_eq!(cluster.ok(&["get", "profiles", "-o", "name"]), "profile/projectcalico-default-allow\n");
}

#[test]
fn a_folder_is_read_in_name_order_and_deleted_backwards() {
    let cluster = Cluster::new("folder");
    let folder = cluster.folder.join("manifests");
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(folder.join("1.yaml"), policy("p", "{tier: security}")).unwrap();
    let tier = r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"security"},"spec":{"order":5}}"#;
    fs::write(folder.join("2.json"), tier).unwrap();
    fs::write(folder.join("notes.txt"), "not a manifest").unwrap();
    fs::write(folder.join("deep/3.yml"), pool("p", "10.0.0.0/16")).unwrap();
    let path = folder.to_str().unwrap();
    assert_eq!(cluster.ok(&["validate", "-f", path]), "Successfully validated 2 resource(s)\n");
    assert_eq!(cluster.ok(&["apply", "-R", "-f", path]), "Successfully applied 3 resource(s)\n");
    assert_eq!(
        cluster.ok(&["get", "np", "-A", "-o", "wide"]),
        "NAMESPACE   NAME   TIER       ORDER   SELECTOR\ndefault     p      security   -       all()\n\n"
    );
    assert_eq!(cluster.ok(&["delete", "-R", "-f", path]), "Successfully deleted 3 resource(s)\n");
}

#[test]
fn labels_are_set_changed_and_removed() {
    let cluster = Cluster::new("labels");
    cluster.apply(&pool("p", "10.0.0.0/16"));
    assert_eq!(cluster.ok(&["label", "pool", "p", "a=b"]), "Successfully set label a on IPPool p\n");
    assert_eq!(cluster.run(&["label", "pool", "p", "a=c"]).code, 1);
    cluster.ok(&["label", "pool", "p", "a=c", "--overwrite"]);
    assert_eq!(cluster.json(&["get", "pool", "p", "-o", "json"])["metadata"]["labels"]["a"], "c");
    cluster.ok(&["label", "pool", "p", "a", "--remove"]);
    assert_eq!(cluster.run(&["label", "pool", "p", "a", "--remove"]).code, 1);
}

#[test]
fn a_node_takes_with_it_what_was_only_for_it() {
    let cluster = Cluster::new("cascade");
    let named = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let endpoint = "{node: n1, orchestrator: k8s, pod: a, endpoint: eth0, ipNetworks: [10.0.0.1/32]}";
    let manifest = named("Node", "n1", "{}")
        + &named("Node", "n2", "{}")
        + &named("WorkloadEndpoint", "n1-k8s-a-eth0", endpoint)
        + &named("HostEndpoint", "h1", "{node: n1, interfaceName: eth0}")
        + &named("HostEndpoint", "h2", "{node: n2, interfaceName: eth0}")
        + &named("BGPPeer", "b1", "{node: n1, peerIP: 10.9.9.9, asNumber: 1}")
        + &named("FelixConfiguration", "node.n1", "{}");
    let applied = cluster.apply(&manifest);
    assert_eq!((applied.code, applied.err.as_str()), (0, ""));
    cluster.ok(&["delete", "node", "n1"]);
    for (kind, left) in [
        ("nodes", "node/n2\n"),
        ("weps", ""),
        ("heps", "hostendpoint/h2\n"),
        ("bgppeers", ""),
        ("felixconfig", ""),
    ] {
        assert_eq!(cluster.ok(&["get", kind, "-o", "name"]), left, "{kind}");
    }
}

#[test]
fn the_rules_of_a_node_are_printed() {
    let cluster = Cluster::new("render");
    let endpoint = "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: n1-k8s-a-eth0}\nspec: \
                    {node: n1, orchestrator: k8s, pod: a, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32]}\n";
    let node = "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n";
    let applied = cluster.apply(&format!("{node}{endpoint}{}", policy("p", "{selector: all()}")));
    assert_eq!((applied.code, applied.err.as_str()), (0, ""));
    let text = cluster.ok(&["policy", "render", "--node", "n1"]);
    assert!(text.contains("table ") && text.contains("cali1"), "{text}");
    assert_eq!(
        cluster.run(&["policy", "render", "--node", "nowhere"]).err,
        "resource does not exist: Node(nowhere)\n"
    );
}

#[test]
fn a_datastore_that_cannot_be_used_is_one_clear_sentence() {
    let cluster = Cluster::new("unusable");
    fs::write(
        cluster.folder.join("calico.db"),
        "this is no database, and long enough to look like a header of one",
    )
    .unwrap();
    let ran = cluster.run(&["get", "nodes"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (1, "", 1), "{}", ran.err);
    assert!(ran.err.contains("calico.db") && ran.err.contains("not an SQLite database"), "{}", ran.err);
    let kubernetes = cluster.file(
        "k.cfg",
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {datastoreType: kubernetes}\n",
    );
    let ran = cluster.run(&["get", "nodes", "-c", &kubernetes]);
    assert!(ran.err.contains("kubernetes is not supported"), "{}", ran.err);
    let ran = cluster.run(&["get", "nodes", "-c", "/nonexistent.cfg"]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn without_an_agent_node_status_says_so() {
    let ran = Cluster::new("status").run(&["node", "status"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("calico-node is not running on this host"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let cluster = Cluster::new("pipe");
    let many: String =
        (0..400).map(|i| pool(&format!("p{i}"), &format!("10.{}.{}.0/24", i / 200, i % 200))).collect();
    assert_eq!(cluster.apply(&many).out, "Successfully applied 400 'IPPool' resource(s)\n");
    let mut child = cluster
        .command(&["get", "ippools", "-o", "yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_watch_shows_what_there_is_and_then_each_change() {
    let cluster = Cluster::new("watch");
    cluster.apply(&pool("first", "10.1.0.0/16"));
    let mut child = cluster.command(&["get", "ippools", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "EVENT      NAME    CIDR          SELECTOR");
    assert_eq!(next(), "ADDED      first   10.1.0.0/16   all()");
    cluster.apply(&pool("second", "10.2.0.0/16"));
    assert_eq!(next(), "ADDED      second   10.2.0.0/16   all()");
    cluster.ok(&["patch", "ippool", "first", "-p", "spec: {nodeSelector: has(rack)}"]);
    assert_eq!(next(), "MODIFIED   first    10.1.0.0/16   has(rack)");
    cluster.ok(&["delete", "ippool", "second"]);
    // A pool is disabled before it goes.
    assert_eq!(next(), "MODIFIED   second   10.2.0.0/16   all()");
    assert_eq!(next(), "DELETED    second   10.2.0.0/16   all()");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_watch_tells_only_of_what_is_asked_for_and_speaks_json() {
    let cluster = Cluster::new("watch-json");
    let mut child = cluster
        .command(&["get", "ippool", "second", "-w", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.apply(&pool("first", "10.1.0.0/16"));
    cluster.apply(&pool("second", "10.2.0.0/16"));
    let events = serde_json::Deserializer::from_reader(child.stdout.take().unwrap()).into_iter::<Value>();
    let mut events = events.map(|event| event.unwrap());
    let came = events.next().unwrap();
    assert_eq!((&came["type"], &came["object"]["metadata"]["name"]), (&"ADDED".into(), &"second".into()));
    // A reader that goes away ends it with the next change.
    drop(events);
    cluster.ok(&["delete", "ippool", "second"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn schemas_are_shown_for_any_spelling_of_a_kind() {
    let cluster = Cluster::new("schema");
    let kinds = cluster.ok(&["schema"]);
    assert!(kinds.lines().any(|kind| kind == "BGPPeer") && kinds.lines().count() == 27, "{kinds}");
    let json: Value = serde_json::from_str(&cluster.ok(&["schema", "bp"])).unwrap();
    assert_eq!(json["title"], "BGPPeer");
    assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let yaml = cluster.ok(&["schema", "IPPools", "-o", "yaml"]);
    assert!(yaml.contains("title: IPPool\n"), "{yaml}");
    let refused = cluster.run(&["schema", "banana"]);
    assert!(refused.code != 0 && refused.err.contains("a kind of resource"), "{}", refused.err);
}

#[test]
fn older_resources_are_converted_and_what_is_wrong_is_told() {
    let cluster = Cluster::new("convert");
    let old = "apiVersion: v1\nkind: ipPool\nmetadata: {cidr: 10.1.0.0/16}\nspec: {ipip: {enabled: true}, nat-outgoing: true}\n";
    let file = cluster.file("pool.yaml", old);
    let yaml = cluster.ok(&["convert", "-f", &file]);
    assert!(yaml.starts_with("apiVersion: projectcalico.org/v3\nkind: IPPool\n"), "{yaml}");
    let json: Value = serde_json::from_str(&cluster.ok(&["convert", "-f", &file, "-o", "json"])).unwrap();
    assert_eq!(json["spec"]["ipipMode"], "Always");
    assert_eq!(json["metadata"]["name"], "10-1-0-0-16");
    let small = cluster.file("small.yaml", &old.replace("/16", "/30"));
    let refused = cluster.run(&["convert", "-f", &small]);
    assert!(refused.code == 1 && refused.err.contains("spec.cidr = \"10.1.0.0/30\""), "{}", refused.err);
    assert!(cluster.ok(&["convert", "-f", &small, "--ignore-validation"]).contains("cidr: 10.1.0.0/30"));
}

#[test]
fn todays_resources_are_shown_in_the_words_of_v1() {
    let cluster = Cluster::new("convert-back");
    let old = "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: 10.1.0.0/16\nspec:\n  disabled: false\n  ipip:\n    enabled: true\n    mode: cross-subnet\n  nat-outgoing: true\n";
    let pool = cluster.file("pool.yaml", old);
    let new = cluster.ok(&["convert", "-f", &pool]);
    let tier = "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: 1}\n";
    let file = cluster.file("new.yaml", &new);
    assert_eq!(cluster.ok(&["convert", "--to", "v1", "-f", &file]), old);
    assert_eq!(cluster.apply(old).err, "");
    let got = cluster.ok(&["get", "ippool", "10-1-0-0-16", "-o", "yaml"]);
    assert_eq!(cluster.run_with_input(&["convert", "--to", "v1", "-f", "-"], &got).out, old);
    let both = cluster.file("both.yaml", &format!("{new}{tier}"));
    let ran = cluster.run(&["convert", "--to", "v1", "-o", "json", "-f", &both]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("Tier(t) did not exist in v1"), "{}", ran.err);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["kind"], "ipPool");
}
