//! The network configuration on standard input: what an administrator wrote, turned into what a plugin needs.
//!
//! The keys are those of Calico's own plugins; keys that are not known are let be, as every plugin must. Of ours beside
//! Calico's: `datastore_path`, and the labels of an endpoint, for runtimes that have no other way to say them. They are
//! taken from `labels` (an object), from `args.cni.labels` (an object, or the list of `{"key", "value"}` of the CNI
//! conventions) and from Mesos' `args."org.apache.mesos".network_info.labels.labels`; what comes later here has the last
//! word.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use calico_ipam::PoolRef;
use calico_model::{InterfaceAddr, Labels, NodeName};
use serde_json::{Map, Value};

use section::{Section, must_be};

use super::{AddResult, Args, CniError, SpecVersion};
use crate::workload::Forwarding;

mod section;

/// How long an ADD waits for the agent to put the endpoint's policy in force, unless the configuration says otherwise.
const POLICY_SETUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the profile of an endpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyType {
    /// `policy.type` is unset: the network has a profile of its own, made by the first ADD and never changed after. It
    /// lets the network's endpoints send whatever they like and talk to one another; a pod's lets everything in.
    Network,
    /// `policy.type` is `k8s`: pods have the profiles of their namespace and service account.
    Kubernetes,
}

/// The network configuration, checked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The version of the specification.
    pub version: SpecVersion,
    /// The network's name.
    pub network: String,
    /// The IPAM part.
    pub ipam: IpamConfig,
    /// The MTU; `None` takes what the agent left in its file.
    pub mtu: Option<u32>,
    /// Whether a missing MTU file is an error.
    pub require_mtu_file: bool,
    /// The number of queues of both ends of the pair.
    pub queues: Option<u32>,
    /// The node's name; `None` takes what the agent left in its file.
    pub node: Option<NodeName>,
    /// The file in which the agent leaves the node's name; `None` is the usual one.
    pub nodename_file: Option<PathBuf>,
    /// Whether a missing nodename file is let be.
    pub nodename_file_optional: bool,
    /// Where the profile comes from.
    pub policy: PolicyType,
    /// The endpoint's labels.
    pub labels: Labels,
    /// Whether the workload may forward.
    pub forwarding: Forwarding,
    /// How long to wait for the endpoint's policy; zero does not wait.
    pub policy_setup_timeout: Duration,
    /// The folder in which the agent marks endpoints; `None` is the usual one.
    pub endpoint_status_dir: Option<PathBuf>,
    /// The least severe level that is logged; `None` is `info`.
    pub log_level: Option<String>,
    /// The file to log to, beside standard error.
    pub log_file: Option<PathBuf>,
    /// The result of the ADD, which the runtime hands to CHECK and DEL.
    pub previous: Option<AddResult>,
    /// The attachments that GC leaves alone: container and interface.
    pub valid_attachments: Option<Vec<(String, String)>>,
    datastore: Vec<(&'static str, String)>,
}

/// The `ipam` part of a network configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpamConfig {
    /// The IPAM plugin.
    pub plugin: String,
    /// Whether an IPv4 address is assigned.
    pub assign_ipv4: bool,
    /// Whether an IPv6 address is assigned.
    pub assign_ipv6: bool,
    /// The IPv4 pools to use; all when empty.
    pub ipv4_pools: Vec<PoolRef>,
    /// The IPv6 pools to use; all when empty.
    pub ipv6_pools: Vec<PoolRef>,
    /// The very addresses to assign.
    pub requested: Vec<IpAddr>,
}

/// The keys that say which datastore, and the environment variables that stand in for them.
const DATASTORE_KEYS: [(&str, &str); 9] = [
    ("datastore_type", "DATASTORE_TYPE"),
    ("datastore_path", "CALICO_DATASTORE_PATH"),
    ("etcd_endpoints", "ETCD_ENDPOINTS"),
    ("etcd_discovery_srv", "ETCD_DISCOVERY_SRV"),
    ("etcd_username", "ETCD_USERNAME"),
    ("etcd_password", "ETCD_PASSWORD"),
    ("etcd_key_file", "ETCD_KEY_FILE"),
    ("etcd_cert_file", "ETCD_CERT_FILE"),
    ("etcd_ca_cert_file", "ETCD_CA_CERT_FILE"),
];

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is not JSON, is of an unknown version, or a key cannot be used; the key is named.
    pub fn parse(text: &[u8]) -> Result<Self, CniError> {
        let value: Value =
            serde_json::from_slice(text).map_err(|error| CniError::Decode { problem: error.to_string() })?;
        let Value::Object(object) = &value else {
            return Err(CniError::Decode { problem: "it is not an object".to_owned() });
        };
        let root = Section(object);
        let version = version(&value)?;
        let network = root.text("name")?.unwrap_or_default();
        check_network(&network)?;
        let policy = match root.section("policy")?.map(|policy| policy.text("type")).transpose()?.flatten() {
            None => PolicyType::Network,
            Some(kind) if kind == "k8s" => PolicyType::Kubernetes,
            Some(kind) => {
                return Err(CniError::Config {
                    key: "policy.type",
                    problem: format!("is {kind:?}, but must be \"k8s\" or absent"),
                });
            }
        };
        let settings = root.section("container_settings")?;
        let forward = settings.map(|section| section.flag("allow_ip_forwarding")).transpose()?.flatten();
        let timeout = root.number("policy_setup_timeout_seconds")?;
        let mut datastore = Vec::new();
        for (key, variable) in DATASTORE_KEYS {
            datastore.extend(root.hidden_text(key)?.map(|value| (variable, value)));
        }
        Ok(Self {
            version,
            network,
            ipam: IpamConfig::read(&root)?,
            mtu: root.number("mtu")?.filter(|mtu| *mtu > 0),
            require_mtu_file: root.flag("require_mtu_file")?.unwrap_or(false),
            queues: root.number("num_queues")?.filter(|queues| *queues > 0),
            node: root.parsed("nodename")?.or(root.parsed("hostname")?),
            nodename_file: root.text("nodename_file")?.map(PathBuf::from),
            nodename_file_optional: root.flag("nodename_file_optional")?.unwrap_or(false),
            policy,
            labels: labels(&root)?,
            forwarding: if forward == Some(true) { Forwarding::On } else { Forwarding::Off },
            policy_setup_timeout: timeout.map_or(POLICY_SETUP_TIMEOUT, |s| Duration::from_secs(s.into())),
            endpoint_status_dir: root.text("endpoint_status_dir")?.map(PathBuf::from),
            log_level: root.text("log_level")?,
            log_file: root.text("log_file_path")?.map(PathBuf::from),
            previous: object.get("prevResult").filter(|v| !v.is_null()).map(AddResult::parse).transpose()?,
            valid_attachments: valid_attachments(&root)?,
            datastore,
        })
    }

    /// Returns what the configuration says in the place of an environment variable that names the datastore.
    #[must_use]
    pub fn datastore_var(&self, name: &str) -> Option<String> {
        let means = |variable: &str| variable == name || name.strip_prefix("CALICO_") == Some(variable);
        self.datastore.iter().find(|(variable, _)| means(variable)).map(|(_, value)| value.clone())
    }
}

/// Reads the version that a configuration is of.
///
/// # Errors
/// When we do not speak it.
pub(super) fn version(config: &Value) -> Result<SpecVersion, CniError> {
    match config.get("cniVersion") {
        None | Some(Value::Null) => Ok(SpecVersion::UNSAID),
        Some(Value::String(text)) => text.parse(),
        Some(other) => Err(CniError::Version { asked: other.to_string() }),
    }
}

fn check_network(name: &str) -> Result<(), CniError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(inner) {
        return Ok(());
    }
    Err(CniError::Config {
        key: "name",
        problem: format!(
            "is {name:?}, but must be a letter or digit, then letters, digits, '_', '.' and '-'"
        ),
    })
}

impl IpamConfig {
    fn read(root: &Section<'_>) -> Result<Self, CniError> {
        let empty = Map::new();
        let ipam = root.section("ipam")?.unwrap_or(Section(&empty));
        let mut requested = Vec::new();
        let runtime = root.section("runtimeConfig")?;
        let conventional = root.section("args")?.map(|args| args.section("cni")).transpose()?.flatten();
        for section in [runtime, conventional].into_iter().flatten() {
            for text in section.texts("ips")? {
                requested.push(requested_address("ips", &text)?);
            }
        }
        Ok(Self {
            plugin: ipam.text("type")?.unwrap_or_default(),
            assign_ipv4: ipam.flag("assign_ipv4")?.unwrap_or(true),
            assign_ipv6: ipam.flag("assign_ipv6")?.unwrap_or(false),
            ipv4_pools: ipam.parsed_list("ipv4_pools")?,
            ipv6_pools: ipam.parsed_list("ipv6_pools")?,
            requested,
        })
    }

    /// Returns the very addresses that are asked for, by the configuration and by `IP=` in `CNI_ARGS`.
    ///
    /// # Errors
    /// When `IP=` is no address.
    pub fn requested_with(&self, args: &Args) -> Result<Vec<IpAddr>, CniError> {
        let mut requested = self.requested.clone();
        for text in args.value("IP").into_iter().flat_map(|value| value.split(',')) {
            let addr = text.parse::<InterfaceAddr>().map_err(|_| CniError::Environment {
                variable: "CNI_ARGS",
                problem: format!("has IP={text}, which is not an address"),
            })?;
            requested.push(addr.addr());
        }
        requested.sort_unstable();
        requested.dedup();
        Ok(requested)
    }
}

fn requested_address(key: &'static str, text: &str) -> Result<IpAddr, CniError> {
    let addr: Result<InterfaceAddr, _> = text.parse();
    addr.map(|addr| addr.addr()).map_err(|error| must_be(key, &text.into(), error.expected))
}

fn labels(root: &Section<'_>) -> Result<Labels, CniError> {
    let mut labels = Labels::new();
    let args = root.section("args")?;
    let conventional = args.map(|args| args.section("cni")).transpose()?.flatten();
    let mesos = args.map(|args| args.section("org.apache.mesos")).transpose()?.flatten();
    let mesos = mesos.map(|mesos| mesos.section("network_info")).transpose()?.flatten();
    let mesos = mesos.map(|info| info.section("labels")).transpose()?.flatten();
    for section in [Some(*root), conventional, mesos].into_iter().flatten() {
        match section.0.get("labels") {
            None | Some(Value::Null) => {}
            Some(Value::Object(object)) => {
                for (key, value) in object {
                    let text = value.as_str().ok_or_else(|| must_be("labels", value, "text"))?;
                    labels.insert(key.as_str(), text);
                }
            }
            Some(Value::Array(pairs)) => {
                for pair in pairs {
                    let part = |name: &str| pair.get(name).and_then(Value::as_str);
                    let (Some(key), Some(value)) = (part("key"), part("value")) else {
                        return Err(must_be("labels", pair, "an object of \"key\" and \"value\""));
                    };
                    labels.insert(key, value);
                }
            }
            Some(other) => return Err(must_be("labels", other, "an object or a list of key and value")),
        }
    }
    Ok(labels)
}

fn valid_attachments(root: &Section<'_>) -> Result<Option<Vec<(String, String)>>, CniError> {
    const KEY: &str = "cni.dev/valid-attachments";
    let Some(list) = root.0.get(KEY) else { return Ok(None) };
    let expected = "a list of objects with containerID and ifname";
    let list = list.as_array().ok_or_else(|| must_be(KEY, list, expected))?;
    let attachment = |value: &Value| {
        let part = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        part("containerID").zip(part("ifname")).ok_or_else(|| must_be(KEY, value, expected))
    };
    list.iter().map(attachment).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Config, String> {
        Config::parse(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_calicos_default() {
        let config = read(json!({ "name": "net", "type": "calico" })).unwrap();
        assert_eq!(config.version, SpecVersion::V0_2_0);
        assert!(config.ipam.assign_ipv4 && !config.ipam.assign_ipv6);
        assert_eq!((config.mtu, config.policy), (None, PolicyType::Network));
        assert_eq!(config.policy_setup_timeout, Duration::from_secs(5));
    }

    #[test]
    fn calicos_own_keys_are_understood() {
        let config = read(json!({
            "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "calico",
            "datastore_type": "etcdv3", "etcd_endpoints": "https://10.0.0.1:2379", "etcd_ca_cert_file": "/ca",
            "mtu": 1440, "nodename": "node1", "num_queues": 0,
            "ipam": { "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true",
                      "ipv4_pools": ["10.0.0.0/24", "second"] },
            "policy": { "type": "k8s" }, "container_settings": { "allow_ip_forwarding": true },
            "policy_setup_timeout_seconds": 0, "unknown": [1]
        }))
        .unwrap();
        assert_eq!(config.datastore_var("ETCD_ENDPOINTS").as_deref(), Some("https://10.0.0.1:2379"));
        assert_eq!(config.datastore_var("CALICO_DATASTORE_PATH"), None);
        assert_eq!(
            config.ipam.ipv4_pools.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/24", "second"]
        );
        assert!(config.ipam.assign_ipv6);
        assert_eq!((config.forwarding, config.queues), (Forwarding::On, None));
        assert!(config.policy_setup_timeout.is_zero());
    }

    #[test]
    fn labels_come_from_three_places_and_the_nearest_to_the_container_wins() {
        let config = read(json!({
            "name": "net", "labels": { "role": "none", "zone": "a" },
            "args": {
                "cni": { "labels": [{ "key": "role", "value": "database" }] },
                "org.apache.mesos": { "network_info": { "labels": { "labels": [{ "key": "app", "value": "x" }] } } }
            }
        }))
        .unwrap();
        assert_eq!(config.labels, Labels::from([("app", "x"), ("role", "database"), ("zone", "a")]));
    }

    #[test]
    fn requested_addresses_come_from_the_configuration_and_the_arguments() {
        let config = read(json!({ "name": "net", "args": { "cni": { "ips": ["10.0.0.2/24"] } } })).unwrap();
        let requested = |args: &str| {
            config.ipam.requested_with(&args.parse().unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(
            requested("IP=10.0.0.1").unwrap(),
            ["10.0.0.1", "10.0.0.2"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert!(requested("IP=nowhere").unwrap_err().contains("IP=nowhere"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (config, expected) in [
            (
                json!({ "name": "net", "cniVersion": "9.0.0" }),
                "CNI version \"9.0.0\" is not supported: use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
            (
                json!({}),
                "name in the network configuration is \"\", but must be a letter or digit, then letters, digits, '_', '.' and '-'",
            ),
            (
                json!({ "name": "net", "mtu": "big" }),
                "mtu in the network configuration is \"big\", but must be a number from 0 to 4294967295",
            ),
            (
                json!({ "name": "net", "policy": { "type": "k9s" } }),
                "policy.type in the network configuration is \"k9s\", but must be \"k8s\" or absent",
            ),
            (
                json!({ "name": "net", "ipam": { "assign_ipv4": "yes" } }),
                "assign_ipv4 in the network configuration is \"yes\", but must be true or false",
            ),
            (
                json!({ "name": "net", "labels": { "a": 1 } }),
                "labels in the network configuration is 1, but must be text",
            ),
            (
                json!({ "name": "net", "etcd_password": 123_456 }),
                "etcd_password in the network configuration must be text",
            ),
            (
                json!([]),
                "the network configuration on standard input is not usable JSON: it is not an object",
            ),
        ] {
            assert_eq!(read(config).unwrap_err(), expected);
        }
        let error = Config::parse(b"{\"name\"").unwrap_err();
        assert_eq!(error.code(), 6);
    }
}
