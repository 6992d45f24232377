//! What the user wrote, wherever they wrote it, before it means anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ConfigError, DatastoreConfig, EtcdConfig, Loaded, Pem, Secret};
use crate::paths::Paths;

/// The settings that count here: the field of a file, and the environment variable.
const SETTINGS: &[(&str, &str)] = &[
    ("datastoreType", "DATASTORE_TYPE"),
    ("datastorePath", "DATASTORE_PATH"),
    ("etcdEndpoints", "ETCD_ENDPOINTS"),
    ("etcdDiscoverySrv", "ETCD_DISCOVERY_SRV"),
    ("etcdScheme", "ETCD_SCHEME"),
    ("etcdAuthority", "ETCD_AUTHORITY"),
    ("etcdUsername", "ETCD_USERNAME"),
    ("etcdPassword", "ETCD_PASSWORD"),
    ("etcdKeyFile", "ETCD_KEY_FILE"),
    ("etcdCertFile", "ETCD_CERT_FILE"),
    ("etcdCACertFile", "ETCD_CA_CERT_FILE"),
];

/// Where the settings were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// In the environment.
    Environment,
    /// In a file of the v3 form.
    FileV3(PathBuf),
    /// In a file of the v1 form, in which no datastore type means etcd.
    FileV1(PathBuf),
}

/// The settings that were written, by the name of the file's field. None is empty.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) source: Source,
    pub(super) values: BTreeMap<String, String>,
}

impl Written {
    pub(super) fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let filled =
            |name: &str| var(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let values = SETTINGS.iter().filter_map(|(field, name)| {
            let value = filled(&format!("CALICO_{name}")).or_else(|| filled(name))?;
            Some(((*field).to_owned(), value))
        });
        Self { source: Source::Environment, values: values.collect() }
    }

    pub(super) fn resolve(self, paths: &Paths) -> Result<Loaded, ConfigError> {
        let mut warnings = Vec::new();
        let datastore = match self.get("datastoreType") {
            None if self.source.is_v1() => {
                warnings.push(etcd_v2_warning(&self.name("datastoreType"), "unset, which means etcdv2"));
                self.etcd()?
            }
            None if self.get("etcdEndpoints").is_some() => self.etcd()?,
            None if self.source != Source::Environment && self.get("kubeconfig").is_some() => {
                return Err(kubernetes(self.name("kubeconfig")));
            }
            None | Some("sqlite") => DatastoreConfig::Sqlite {
                path: self.get("datastorePath").map_or_else(|| paths.default_datastore(), PathBuf::from),
            },
            Some("etcdv3") => self.etcd()?,
            Some("etcdv2") => {
                warnings.push(etcd_v2_warning(&self.name("datastoreType"), "etcdv2"));
                self.etcd()?
            }
            Some("kubernetes") => {
                return Err(kubernetes(format!("{}=kubernetes", self.name("datastoreType"))));
            }
            Some(other) => {
                return Err(ConfigError::Value {
                    name: self.name("datastoreType"),
                    value: other.to_owned(),
                    expected: "sqlite or etcdv3".to_owned(),
                });
            }
        };
        Ok(Loaded { datastore, warnings })
    }

    fn etcd(&self) -> Result<DatastoreConfig, ConfigError> {
        if self.get("etcdDiscoverySrv").is_some() {
            let remedy = "list the servers as endpoints";
            return Err(ConfigError::Unsupported { name: self.name("etcdDiscoverySrv"), remedy });
        }
        let user = match (self.get("etcdUsername"), self.get("etcdPassword")) {
            (Some(user), Some(password)) => Some((user.to_owned(), Secret::new(password))),
            (None, None) => None,
            (Some(_), None) => return Err(self.missing("etcdPassword", "etcdUsername")),
            (None, Some(_)) => return Err(self.missing("etcdUsername", "etcdPassword")),
        };
        let certificate = match (self.pem("etcdCert", "etcdCertFile"), self.pem("etcdKey", "etcdKeyFile")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.missing("etcdKeyFile", "etcdCertFile")),
            (None, Some(_)) => return Err(self.missing("etcdCertFile", "etcdKeyFile")),
        };
        let ca = self.pem("etcdCACert", "etcdCACertFile");
        Ok(DatastoreConfig::Etcd(EtcdConfig { endpoints: self.endpoints()?, user, ca, certificate }))
    }

    fn endpoints(&self) -> Result<Vec<String>, ConfigError> {
        let Some(list) = self.get("etcdEndpoints") else {
            let authority = self.get("etcdAuthority");
            if authority.is_none() && !self.source.is_v1() {
                return Err(ConfigError::Missing {
                    name: self.name("etcdEndpoints"),
                    because: "the datastore is etcd: write its servers there, such as https://10.0.0.1:2379"
                        .to_owned(),
                });
            }
            let scheme = self.get("etcdScheme").unwrap_or("http");
            return self
                .endpoint(&format!("{scheme}://{}", authority.unwrap_or("127.0.0.1:2379")))
                .map(|one| vec![one]);
        };
        list.split(',').map(str::trim).filter(|one| !one.is_empty()).map(|one| self.endpoint(one)).collect()
    }

    fn endpoint(&self, text: &str) -> Result<String, ConfigError> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let authority = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let sound = authority.is_some_and(|authority| {
            !authority.is_empty()
                && !authority.contains(['/', '@', '?', '#', ' '])
                && !authority.starts_with(':')
        });
        if sound {
            return Ok(text.strip_suffix('/').unwrap_or(text).to_owned());
        }
        // A password in the address must not come back in the error.
        let value = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"));
        Err(ConfigError::Value {
            name: self.name("etcdEndpoints"),
            value,
            expected: "a comma-separated list of http://HOST:PORT or https://HOST:PORT".to_owned(),
        })
    }

    fn pem(&self, inline: &str, file: &str) -> Option<Pem> {
        let written = self.get(inline).map(|text| Pem::Inline(Secret::new(text)));
        written.or_else(|| self.get(file).map(|path| Pem::File(path.into())))
    }

    fn missing(&self, field: &str, given: &str) -> ConfigError {
        ConfigError::Missing { name: self.name(field), because: format!("{} is", self.name(given)) }
    }

    fn get(&self, field: &str) -> Option<&str> {
        self.values.get(field).map(String::as_str)
    }

    /// What the user calls a setting.
    fn name(&self, field: &str) -> String {
        match &self.source {
            Source::Environment => {
                let named = SETTINGS.iter().find(|(name, _)| *name == field);
                named.map_or(field, |(_, variable)| *variable).to_owned()
            }
            Source::FileV3(path) | Source::FileV1(path) => format!("spec.{field} in {}", path.display()),
        }
    }
}

impl Source {
    fn is_v1(&self) -> bool {
        matches!(self, Source::FileV1(_))
    }
}

fn etcd_v2_warning(name: &str, value: &str) -> String {
    format!(
        "{name} is {value}: the v3 API of etcd is used, and data that was written through the v2 API is not seen"
    )
}

fn kubernetes(name: String) -> ConfigError {
    ConfigError::Unsupported {
        name,
        remedy: "use the embedded datastore (sqlite) or an etcd cluster (etcdv3)",
    }
}
