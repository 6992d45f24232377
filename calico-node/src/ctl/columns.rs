//! The columns in which each kind of resource is shown.

use calico_model::resource::{Document, Kind};
use serde_json::Value;

/// How much is shown of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// The few columns of `-o ps`.
    Normal,
    /// The columns of `-o wide`.
    Wide,
}

/// A column: its heading, and how its cell is read from a resource.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading.
    pub heading: &'static str,
    cell: Cell,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    /// The text at a path below the resource, which is a JSON pointer without its first slash; the second text when there is
    /// none.
    At(&'static str, &'static str),
    /// The texts of the list at a path, with commas.
    List(&'static str),
    /// As `List`, cut at 80 characters.
    CutList(&'static str),
    /// The first three of what the items of the list at a path hold under a key, as kubectl shows them.
    Few(&'static str, &'static str),
    /// All of them.
    Every(&'static str, &'static str),
    /// How many items the list at a path has.
    Count(&'static str),
    /// The keys and values of the object at a path.
    Map(&'static str),
    /// The node's AS number, or the cluster's in parentheses.
    NodeAs,
    /// The nodes that a BGP peer is for.
    PeerScope,
    /// A BGP peer's address, or the selector of the nodes that are peered with.
    PeerAddress,
    /// The family of a slice's addresses.
    AddressType,
    /// The workload of an endpoint, under the name that its orchestrator has for it.
    Workload,
    /// The pairs of a workload endpoint's address translation.
    Nats,
}

/// What of the cluster is needed to show a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The AS number of nodes that have none of their own.
    pub cluster_as: String,
}

impl Column {
    /// Returns the text of the cell for a resource.
    #[must_use]
    pub fn cell(&self, document: &Document, context: &Context) -> String {
        let root = document.value();
        match self.cell {
            Cell::At(path, unset) => at(root, path).map_or_else(|| unset.to_owned(), text),
            Cell::List(path) => list(root, path),
            Cell::CutList(path) => cut(&list(root, path)),
            Cell::Few(path, key) => few(&held(root, path, key)),
            Cell::Every(path, key) => held(root, path, key).join(","),
            Cell::Count(path) => items(root, path).len().to_string(),
            Cell::Map(path) => map(root, path),
            Cell::NodeAs => {
                at(root, "spec/bgp/asNumber").map_or_else(|| format!("({})", context.cluster_as), text)
            }
            Cell::PeerScope => {
                let scope = at(root, "spec/node").or_else(|| at(root, "spec/nodeSelector"));
                scope.map_or_else(|| "(global)".to_owned(), text)
            }
            Cell::PeerAddress => {
                let peer = at(root, "spec/peerIP").or_else(|| at(root, "spec/peerSelector"));
                peer.or_else(|| at(root, "spec/localWorkloadSelector")).map_or_else(|| "-".to_owned(), text)
            }
            Cell::AddressType => address_type(root),
            Cell::Workload => workload(root),
            Cell::Nats => nats(root),
        }
    }
}

/// Returns the columns of a kind, without the namespace.
#[must_use]
pub fn columns(kind: Kind, width: Width) -> Vec<Column> {
    let (normal, wide) = of_kind(kind);
    let chosen = match width {
        Width::Wide if !wide.is_empty() => wide,
        Width::Normal | Width::Wide => normal,
    };
    chosen.iter().map(|(heading, cell)| Column { heading, cell: *cell }).collect()
}

/// Returns the columns of a kind that have these headings, in any case and with or without the namespace's.
///
/// # Errors
/// The headings there are, when one of them is not.
pub fn custom(kind: Kind, headings: &[String]) -> Result<Vec<Column>, Vec<&'static str>> {
    let mut known = vec![Column { heading: "NAMESPACE", cell: Cell::At("metadata/namespace", "") }, NAME];
    for column in columns(kind, Width::Normal).into_iter().chain(columns(kind, Width::Wide)) {
        if known.iter().all(|other| other.heading != column.heading) {
            known.push(column);
        }
    }
    let find =
        |heading: &String| known.iter().find(|column| column.heading.eq_ignore_ascii_case(heading)).copied();
    headings
        .iter()
        .map(find)
        .collect::<Option<_>>()
        .ok_or_else(|| known.iter().map(|column| column.heading).collect())
}

/// The column that resources in namespaces have first when namespaces were asked for.
pub const NAMESPACE: Column = Column { heading: "NAMESPACE", cell: Cell::At("metadata/namespace", "") };

const NAME: Column = Column { heading: "NAME", cell: Cell::At("metadata/name", "") };

type Table = &'static [(&'static str, Cell)];

/// The normal and the wide columns of a kind; no wide ones means the normal ones.
#[expect(clippy::wildcard_enum_match_arm, reason = "a kind that has nothing to show is shown by its name")]
fn of_kind(kind: Kind) -> (Table, Table) {
    use Cell::{
        AddressType, At, Count, CutList, Every, Few, List, Map, Nats, NodeAs, PeerAddress, PeerScope,
        Workload,
    };
    const NAME: (&str, Cell) = ("NAME", At("metadata/name", ""));
    match kind {
        Kind::IpPool => (
            &[NAME, ("CIDR", At("spec/cidr", "")), ("SELECTOR", At("spec/nodeSelector", "all()"))],
            &[
                NAME,
                ("CIDR", At("spec/cidr", "")),
                ("NAT", At("spec/natOutgoing", "false")),
                ("IPIPMODE", At("spec/ipipMode", "Never")),
                ("VXLANMODE", At("spec/vxlanMode", "Never")),
                ("DISABLED", At("spec/disabled", "false")),
                ("DISABLEBGPEXPORT", At("spec/disableBGPExport", "false")),
                ("SELECTOR", At("spec/nodeSelector", "all()")),
                ("ASSIGNMENTMODE", At("spec/assignmentMode", "Automatic")),
            ],
        ),
        Kind::Node => (
            &[NAME],
            &[
                NAME,
                ("ASN", NodeAs),
                ("IPV4", At("spec/bgp/ipv4Address", "")),
                ("IPV6", At("spec/bgp/ipv6Address", "")),
            ],
        ),
        Kind::BgpPeer => {
            (&[NAME, ("PEERIP", PeerAddress), ("NODE", PeerScope), ("ASN", At("spec/asNumber", "-"))], &[])
        }
        Kind::BgpConfiguration => (
            &[
                NAME,
                ("LOGSEVERITY", At("spec/logSeverityScreen", "-")),
                ("MESHENABLED", At("spec/nodeToNodeMeshEnabled", "-")),
                ("ASNUMBER", At("spec/asNumber", "-")),
            ],
            &[],
        ),
        Kind::BgpFilter => (
            &[
                NAME,
                ("NUMEXPORTV4", Count("spec/exportV4")),
                ("NUMIMPORTV4", Count("spec/importV4")),
                ("NUMEXPORTV6", Count("spec/exportV6")),
                ("NUMIMPORTV6", Count("spec/importV6")),
            ],
            &[],
        ),
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy => (
            &[NAME, ("TIER", At("spec/tier", "default"))],
            &[
                NAME,
                ("TIER", At("spec/tier", "default")),
                ("ORDER", At("spec/order", "-")),
                ("SELECTOR", At("spec/selector", "all()")),
            ],
        ),
        Kind::StagedKubernetesNetworkPolicy => {
            (&[NAME], &[NAME, ("PODSELECTOR", At("spec/podSelector", ""))])
        }
        Kind::WorkloadEndpoint => (
            &[
                ("WORKLOAD", Workload),
                ("NODE", At("spec/node", "")),
                ("NETWORKS", List("spec/ipNetworks")),
                ("INTERFACE", At("spec/interfaceName", "")),
            ],
            &[
                NAME,
                ("WORKLOAD", Workload),
                ("NODE", At("spec/node", "")),
                ("NETWORKS", List("spec/ipNetworks")),
                ("INTERFACE", At("spec/interfaceName", "")),
                ("PROFILES", List("spec/profiles")),
                ("NATS", Nats),
            ],
        ),
        Kind::HostEndpoint => (
            &[NAME, ("NODE", At("spec/node", ""))],
            &[
                NAME,
                ("NODE", At("spec/node", "")),
                ("INTERFACE", At("spec/interfaceName", "")),
                ("IPS", List("spec/expectedIPs")),
                ("PROFILES", List("spec/profiles")),
            ],
        ),
        Kind::Profile => (&[NAME], &[NAME, ("LABELS", Map("spec/labelsToApply"))]),
        Kind::Tier => (&[NAME, ("ORDER", At("spec/order", "-"))], &[]),
        Kind::NetworkSet | Kind::GlobalNetworkSet => (&[NAME], &[NAME, ("NETS", CutList("spec/nets"))]),
        Kind::IpReservation => (&[NAME], &[NAME, ("CIDRS", CutList("spec/reservedCIDRs"))]),
        Kind::ClusterInformation => (
            &[
                NAME,
                ("CLUSTERGUID", At("spec/clusterGUID", "")),
                ("CLUSTERTYPE", At("spec/clusterType", "")),
                ("CALICOVERSION", At("spec/calicoVersion", "")),
                ("DATASTOREREADY", At("spec/datastoreReady", "false")),
            ],
            &[],
        ),
        Kind::IpamConfiguration => (
            &[
                NAME,
                ("STRICTAFFINITY", At("spec/strictAffinity", "false")),
                ("AUTOALLOCATEBLOCKS", At("spec/autoAllocateBlocks", "true")),
            ],
            &[
                NAME,
                ("STRICTAFFINITY", At("spec/strictAffinity", "false")),
                ("AUTOALLOCATEBLOCKS", At("spec/autoAllocateBlocks", "true")),
                ("MAXBLOCKSPERHOST", At("spec/maxBlocksPerHost", "0")),
            ],
        ),
        Kind::CalicoNodeStatus => (
            &[NAME, ("NODE", At("spec/node", ""))],
            &[NAME, ("NODE", At("spec/node", "")), ("CLASSES", List("spec/classes"))],
        ),
        Kind::KubernetesService => (
            &[NAME, ("TYPE", At("spec/type", "ClusterIP")), ("CLUSTERIP", At("spec/clusterIP", "None"))],
            &[],
        ),
        Kind::KubernetesEndpointSlice => (
            &[
                NAME,
                ("SERVICE", At("metadata/labels/kubernetes.io~1service-name", "<unset>")),
                ("ADDRESSTYPE", AddressType),
                ("PORTS", Few("spec/ports", "port")),
                ("ENDPOINTS", Few("spec/endpoints", "addresses")),
            ],
            &[
                NAME,
                ("SERVICE", At("metadata/labels/kubernetes.io~1service-name", "<unset>")),
                ("ADDRESSTYPE", AddressType),
                ("PORTS", Every("spec/ports", "port")),
                ("ENDPOINTS", Every("spec/endpoints", "addresses")),
            ],
        ),
        Kind::BlockAffinity => (
            &[
                NAME,
                ("CIDR", At("spec/cidr", "")),
                ("NODE", At("spec/node", "")),
                ("STATE", At("spec/state", "confirmed")),
            ],
            &[],
        ),
        _ => (&[NAME], &[]),
    }
}

fn at<'v>(root: &'v Value, path: &str) -> Option<&'v Value> {
    let found = root.pointer(&format!("/{path}"))?;
    Some(found).filter(|value| !value.is_null() && value.as_str() != Some(""))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn items<'v>(root: &'v Value, path: &str) -> &'v [Value] {
    at(root, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn list(root: &Value, path: &str) -> String {
    items(root, path).iter().map(text).collect::<Vec<_>>().join(",")
}

/// What each item of a list holds under a key, whether that is one thing or a list.
fn held(root: &Value, path: &str, key: &str) -> Vec<String> {
    let of_item = |item: &Value| match item.get(key) {
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) if !value.is_null() => vec![text(value)],
        Some(_) | None => Vec::new(),
    };
    items(root, path).iter().flat_map(of_item).collect()
}

/// A slice holds addresses of one family.
fn address_type(root: &Value) -> String {
    match held(root, "spec/endpoints", "addresses").first() {
        Some(address) if address.contains(':') => "IPv6".to_owned(),
        Some(_) => "IPv4".to_owned(),
        None => "<unset>".to_owned(),
    }
}

fn few(texts: &[String]) -> String {
    const FEW: usize = 3;
    match texts.len() {
        0 => "<unset>".to_owned(),
        all if all > FEW => format!("{} + {} more...", texts[..FEW].join(","), all - FEW),
        _ => texts.join(","),
    }
}

fn map(root: &Value, path: &str) -> String {
    let object = at(root, path).and_then(Value::as_object);
    let pairs = object.into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn cut(text: &str) -> String {
    const LIMIT: usize = 80;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    text.chars().take(LIMIT - 3).chain("...".chars()).collect()
}

fn workload(root: &Value) -> String {
    let path = match at(root, "spec/orchestrator").and_then(Value::as_str) {
        Some("k8s") => "spec/pod",
        Some("cni") => "spec/containerID",
        _ => "spec/workload",
    };
    at(root, path).map(text).unwrap_or_default()
}

fn nats(root: &Value) -> String {
    let pair = |nat: &Value| {
        let of = |key: &str| nat.get(key).map(text).unwrap_or_default();
        format!("{}->{}", of("externalIP"), of("internalIP"))
    };
    items(root, "spec/ipNATs").iter().map(pair).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(kind: &str, width: Width, spec: Value) -> Vec<String> {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": "n"}, "spec": spec});
        let document = Document::from_value(value).unwrap();
        let context = Context { cluster_as: "64512".to_owned() };
        columns(document.kind(), width).iter().map(|column| column.cell(&document, &context)).collect()
    }

    #[test]
    fn unset_fields_are_shown_as_what_they_mean() {
        assert_eq!(row("IPPool", Width::Normal, json!({"cidr": "10.0.0.0/8"})), ["n", "10.0.0.0/8", "all()"]);
        let wide = row("IPPool", Width::Wide, json!({"cidr": "10.0.0.0/8"}));
        assert_eq!(wide[3..5], ["Never", "Never"]);
        assert_eq!(row("Node", Width::Wide, json!({}))[1], "(64512)");
        assert_eq!(row("Node", Width::Wide, json!({"bgp": {"asNumber": 7}}))[1], "7");
        assert_eq!(
            row("BGPPeer", Width::Wide, json!({"peerIP": "1.2.3.4", "asNumber": 5})),
            ["n", "1.2.3.4", "(global)", "5"]
        );
        assert_eq!(row("BGPConfiguration", Width::Normal, json!({})), ["n", "-", "-", "-"]);
        assert_eq!(row("BGPFilter", Width::Normal, json!({"exportV4": [{}, {}]}))[1], "2");
        let endpoint =
            json!({"orchestrator": "k8s", "pod": "p", "workload": "w", "ipNetworks": ["10.0.0.1/32"]});
        assert_eq!(row("WorkloadEndpoint", Width::Normal, endpoint)[..3], ["p", "", "10.0.0.1/32"]);
    }

    #[test]
    fn an_endpoint_slice_is_shown_with_its_service_as_kubectl_shows_it() {
        let endpoint = |last: u8| json!({"addresses": [format!("10.0.0.{last}")]});
        let slice = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "KubernetesEndpointSlice",
            "metadata": {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
            "spec": {
                "ports": [{"port": 80}, {"name": "all"}, {"port": 443}],
                "endpoints": [endpoint(1), endpoint(2), endpoint(3), endpoint(4), endpoint(5)],
            },
        });
        let document = Document::from_value(slice).unwrap();
        let context = Context { cluster_as: "64512".to_owned() };
        let row = |width| -> Vec<String> {
            columns(document.kind(), width).iter().map(|column| column.cell(&document, &context)).collect()
        };
        assert_eq!(
            row(Width::Normal),
            ["s", "web", "IPv4", "80,443", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."]
        );
        assert!(row(Width::Wide)[4].ends_with("10.0.0.4,10.0.0.5"));
    }

    #[test]
    fn every_kind_has_columns_and_custom_ones_are_found_by_heading() {
        for kind in Kind::ALL {
            assert!(!columns(*kind, Width::Wide).is_empty(), "{kind}");
        }
        let found = custom(Kind::IpPool, &["cidr".to_owned(), "NAT".to_owned(), "NAME".to_owned()]).unwrap();
        assert_eq!(found.iter().map(|column| column.heading).collect::<Vec<_>>(), ["CIDR", "NAT", "NAME"]);
        assert!(custom(Kind::IpPool, &["BANANA".to_owned()]).unwrap_err().contains(&"CIDR"));
    }

    #[test]
    fn long_lists_are_cut() {
        let nets: Vec<String> = (0..40).map(|i| format!("10.0.{i}.0/24")).collect();
        let cell = row("NetworkSet", Width::Wide, json!({"nets": nets})).remove(1);
        assert_eq!((cell.len(), &cell[77..]), (80, "..."));
    }
}
