//! The configuration file, in both of its forms.

use std::collections::BTreeMap;
use std::path::Path;

use calico_model::manifest;
use serde_json::{Map, Value};

use super::ConfigError;
use super::written::{Source, Written};

/// The fields of both forms. Those of Kubernetes are known so that a file that has them is read as Calico reads it.
const BOTH: &[&str] = &[
    "datastoreType",
    "etcdEndpoints",
    "etcdUsername",
    "etcdPassword",
    "etcdKeyFile",
    "etcdCertFile",
    "etcdCACertFile",
    "kubeconfig",
    "k8sAPIEndpoint",
    "k8sKeyFile",
    "k8sCertFile",
    "k8sCAFile",
    "k8sAPIToken",
    "k8sInsecureSkipTLSVerify",
    "k8sDisableNodePoll",
];

/// The fields of the v3 form alone; `datastorePath` is the embedded datastore's file.
const ONLY_V3: &[&str] = &[
    "datastorePath",
    "etcdDiscoverySrv",
    "etcdKey",
    "etcdCert",
    "etcdCACert",
    "kubeconfigInline",
    "usePodCIDR",
    "k8sClientQPS",
    "k8sClientBurst",
    "k8sCurrentContext",
    "calicoAPIGroup",
];

/// The fields of the v1 form alone.
const ONLY_V1: &[&str] = &["etcdScheme", "etcdAuthority"];

/// Reads a file. A field that no configuration has is an error, since a misspelt one would silently mean its default.
pub(super) fn read(path: &Path, text: &[u8]) -> Result<Written, ConfigError> {
    let malformed = |problem: String| ConfigError::Malformed { path: path.to_owned(), problem };
    let mut documents = manifest::values(text);
    if documents.len() > 1 {
        return Err(malformed(format!("it has {} documents and must have one", documents.len())));
    }
    let value = match documents.pop() {
        None => return Err(malformed("it is empty".to_owned())),
        Some((_, Err(error))) => return Err(malformed(error.to_string())),
        Some((_, Ok(value))) => value,
    };
    let Value::Object(root) = value else {
        return Err(malformed("it must be an object with apiVersion, kind and spec".to_owned()));
    };
    let text_of = |key: &str| root.get(key).and_then(Value::as_str).unwrap_or("(none)");
    let (source, only) = match (text_of("apiVersion"), text_of("kind")) {
        ("projectcalico.org/v3", "CalicoAPIConfig") => (Source::FileV3(path.to_owned()), ONLY_V3),
        ("v1", "calicoApiConfig") => (Source::FileV1(path.to_owned()), ONLY_V1),
        (version, kind) => {
            let problem = format!(
                "apiVersion and kind are {version} and {kind}, but must be projectcalico.org/v3 and CalicoAPIConfig, or v1 and calicoApiConfig"
            );
            return Err(malformed(problem));
        }
    };
    let empty = Map::new();
    let spec = match root.get("spec") {
        Some(Value::Object(spec)) => spec,
        None | Some(Value::Null) => &empty,
        Some(_) => return Err(malformed("spec must be an object".to_owned())),
    };
    let known_root = ["apiVersion", "kind", "metadata", "spec"];
    let stray = root.keys().filter(|key| !known_root.contains(&key.as_str())).cloned();
    let known = |key: &str| BOTH.contains(&key) || only.contains(&key);
    let unknown: Vec<String> =
        stray.chain(spec.keys().filter(|key| !known(key)).map(|key| format!("spec.{key}"))).collect();
    if !unknown.is_empty() {
        return Err(malformed(format!("it has fields that are not known: {}", unknown.join(", "))));
    }
    let mut values = BTreeMap::new();
    for (key, value) in spec {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.trim().to_owned(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return Err(malformed(format!("spec.{key} must be text"))),
        };
        if !text.is_empty() {
            values.insert(key.clone(), text);
        }
    }
    Ok(Written { source, values })
}
