use super::*;

fn paths() -> Paths {
    Paths::from_vars(|_| None)
}

fn from_vars(vars: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    DatastoreConfig::from_vars(var, &paths())
}

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    DatastoreConfig::from_file(Path::new("/etc/c.cfg"), text.as_bytes(), &paths())
}

fn etcd(loaded: &Loaded) -> &EtcdConfig {
    match &loaded.datastore {
        DatastoreConfig::Etcd(etcd) => etcd,
        DatastoreConfig::Sqlite { path } => panic!("sqlite at {}", path.display()),
    }
}

#[test]
fn nothing_written_means_the_embedded_datastore() {
    let embedded = DatastoreConfig::Sqlite { path: "/var/lib/calico/calico.db".into() };
    assert_eq!(from_vars(&[]).unwrap().datastore, embedded);
    assert_eq!(from_vars(&[("DATASTORE_TYPE", ""), ("ETCD_ENDPOINTS", " ")]).unwrap().datastore, embedded);
    let elsewhere =
        from_vars(&[("DATASTORE_TYPE", "sqlite"), ("CALICO_DATASTORE_PATH", "/tmp/x.db")]).unwrap();
    assert_eq!(elsewhere.datastore, DatastoreConfig::Sqlite { path: "/tmp/x.db".into() });
}

#[test]
fn etcd_is_meant_by_its_type_or_by_its_endpoints() {
    let by_endpoints = from_vars(&[("ETCD_ENDPOINTS", "http://a:2379, https://b:2379/,")]).unwrap();
    assert_eq!(etcd(&by_endpoints).endpoints, ["http://a:2379", "https://b:2379"]);
    let prefixed = from_vars(&[
        ("CALICO_DATASTORE_TYPE", "etcdv3"),
        ("CALICO_ETCD_ENDPOINTS", "http://a:1"),
        ("ETCD_ENDPOINTS", "http://b:1"),
    ]);
    assert_eq!(etcd(&prefixed.unwrap()).endpoints, ["http://a:1"]);
    let old = from_vars(&[("DATASTORE_TYPE", "etcdv2"), ("ETCD_AUTHORITY", "10.0.0.1:4001")]).unwrap();
    assert_eq!(etcd(&old).endpoints, ["http://10.0.0.1:4001"]);
    assert!(old.warnings[0].contains("DATASTORE_TYPE is etcdv2"), "{:?}", old.warnings);
    let missing = from_vars(&[("DATASTORE_TYPE", "etcdv3")]).unwrap_err().to_string();
    assert!(missing.starts_with("ETCD_ENDPOINTS is not set, but the datastore is etcd"), "{missing}");
}

#[test]
fn what_belongs_together_is_demanded_together() {
    let base = ("ETCD_ENDPOINTS", "https://a:2379");
    for (given, missing) in [
        ("ETCD_USERNAME", "ETCD_PASSWORD"),
        ("ETCD_PASSWORD", "ETCD_USERNAME"),
        ("ETCD_CERT_FILE", "ETCD_KEY_FILE"),
        ("ETCD_KEY_FILE", "ETCD_CERT_FILE"),
    ] {
        let error = from_vars(&[base, (given, "x")]).unwrap_err().to_string();
        assert_eq!(error, format!("{missing} is not set, but {given} is"));
    }
    let whole =
        from_vars(&[base, ("ETCD_CERT_FILE", "/c"), ("ETCD_KEY_FILE", "/k"), ("ETCD_CA_CERT_FILE", "/a")])
            .unwrap();
    assert_eq!(etcd(&whole).certificate, Some((Pem::File("/c".into()), Pem::File("/k".into()))));
    assert_eq!(etcd(&whole).ca, Some(Pem::File("/a".into())));
}

#[test]
fn secrets_are_not_printed() {
    let loaded =
        from_vars(&[("ETCD_ENDPOINTS", "https://a:1"), ("ETCD_USERNAME", "u"), ("ETCD_PASSWORD", "hunter2")])
            .unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let error = from_vars(&[("ETCD_ENDPOINTS", "https://u:hunter2@a:1")]).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("***@a:1"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named() {
    for (vars, expected) in [
        (("DATASTORE_TYPE", "kubernetes"), "DATASTORE_TYPE=kubernetes is not supported"),
        (("DATASTORE_TYPE", "mysql"), "DATASTORE_TYPE is \"mysql\", but must be sqlite or etcdv3"),
        (("ETCD_ENDPOINTS", "a:2379"), "ETCD_ENDPOINTS is \"a:2379\", but must be a comma-separated list"),
        (("ETCD_ENDPOINTS", "https://"), "ETCD_ENDPOINTS is \"https://\""),
    ] {
        let error = from_vars(&[vars]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_v3_file_is_read_and_the_environment_is_not() {
    let text = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: etcdv3\n  \
                etcdEndpoints: https://a:2379\n  etcdKey: KEY\n  etcdCert: CERT\n  etcdCACert: |\n    CA\n";
    let loaded = from_file(text).unwrap();
    assert_eq!(
        etcd(&loaded).certificate,
        Some((Pem::Inline(Secret::new("CERT")), Pem::Inline(Secret::new("KEY"))))
    );
    let json =
        r#"{"apiVersion":"projectcalico.org/v3","kind":"CalicoAPIConfig","spec":{"datastorePath":"/x.db"}}"#;
    assert_eq!(from_file(json).unwrap().datastore, DatastoreConfig::Sqlite { path: "/x.db".into() });
    let kube = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {kubeconfig: /k}\n";
    assert!(
        from_file(kube).unwrap_err().to_string().contains("spec.kubeconfig in /etc/c.cfg is not supported")
    );
}

#[test]
fn a_v1_file_means_etcd_and_warns() {
    let loaded = from_file("apiVersion: v1\nkind: calicoApiConfig\nmetadata:\nspec:\n").unwrap();
    assert_eq!(etcd(&loaded).endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(loaded.warnings.len(), 1);
    let text = "apiVersion: v1\nkind: calicoApiConfig\nspec:\n  etcdScheme: https\n  etcdAuthority: a:4001\n";
    assert_eq!(etcd(&from_file(text).unwrap()).endpoints, ["https://a:4001"]);
}

#[test]
fn a_file_that_is_not_one_says_why() {
    for (text, expected) in [
        ("", "it is empty"),
        (
            "apiVersion: v1\nkind: calicoApiConfig\n---\napiVersion: v1\nkind: calicoApiConfig\n",
            "it has 2 documents",
        ),
        ("apiVersion: v3\nkind: Foo\n", "apiVersion and kind are v3 and Foo"),
        ("apiVersion: v1\nkind: calicoApiConfig\nspec: {etcdEndpoint: x}\n", "not known: spec.etcdEndpoint"),
        ("apiVersion: v1\nkind: calicoApiConfig\nspec: {etcdCert: x}\n", "not known: spec.etcdCert"),
        ("a: [\n", "document 1 (line 1"),
        ("- x\n", "must be an object"),
    ] {
        let error = from_file(text).unwrap_err().to_string();
        assert!(error.contains("/etc/c.cfg") && error.contains(expected), "{text:?}: {error}");
    }
    let missing =
        DatastoreConfig::load(Some(Path::new("/nonexistent/x.cfg")), |_| None, &paths()).unwrap_err();
    assert_eq!(missing.to_string(), "the configuration file /nonexistent/x.cfg cannot be read");
}
