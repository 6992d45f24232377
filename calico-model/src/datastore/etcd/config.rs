//! What a program is told about an etcd cluster, and what follows from it for one connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::super::StoreError;

/// A certificate or key in PEM form.
#[derive(Clone)]
#[non_exhaustive]
pub enum Pem {
    /// In this file, which is read anew for every connection, so that certificates can be renewed in place.
    File(PathBuf),
    /// These bytes.
    Inline(Vec<u8>),
}

impl Pem {
    fn read(&self, what: &str, store: &str) -> Result<Vec<u8>, StoreError> {
        match self {
            Pem::Inline(bytes) => Ok(bytes.clone()),
            Pem::File(path) => std::fs::read(path).map_err(|error| StoreError::Unusable {
                store: store.to_owned(),
                problem: format!(
                    "{what} {} cannot be read ({error}): check the path and its mode",
                    path.display()
                ),
            }),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Inline(_) => f.write_str("Inline(***)"),
        }
    }
}

/// How to reach an etcd cluster.
///
/// ```
/// use calico_model::datastore::etcd::{EtcdConfig, EtcdStore, Pem};
///
/// let config = EtcdConfig::new(["https://10.0.0.1:2379", "https://10.0.0.2:2379"])
///     .with_ca(Pem::File("/etc/calico/ca.pem".into()))
///     .with_user("calico", "secret");
/// assert!(!format!("{config:?}").contains("secret"));
/// # let _ = EtcdStore::new(config);
/// ```
#[derive(Clone)]
pub struct EtcdConfig {
    endpoints: Vec<String>,
    user: Option<(String, String)>,
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    pub(super) deadline: Duration,
}

impl EtcdConfig {
    /// Begins with the URLs of the servers, as `http://127.0.0.1:2379`.
    ///
    /// A URL without a scheme is `https` when certificates are given, and else `http`.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            ca: None,
            identity: None,
            deadline: Duration::from_secs(5),
        }
    }

    /// Logs in with a name and a password.
    #[must_use]
    pub fn with_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Trusts servers whose certificate this authority has signed.
    #[must_use]
    pub fn with_ca(mut self, ca: Pem) -> Self {
        self.ca = Some(ca);
        self
    }

    /// Presents a client certificate.
    #[must_use]
    pub fn with_client_certificate(mut self, certificate: Pem, key: Pem) -> Self {
        self.identity = Some((certificate, key));
        self
    }

    /// Waits this long for the answer to one request, instead of five seconds.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the servers' URLs in full, each checked.
    pub(super) fn urls(&self) -> Result<Vec<String>, StoreError> {
        let unusable = |store: &str, problem: &str| {
            Err(StoreError::Unusable { store: format!("etcd {store}"), problem: problem.to_owned() })
        };
        let mut urls = Vec::new();
        for endpoint in &self.endpoints {
            let endpoint = endpoint.trim().trim_end_matches('/');
            let default = if self.ca.is_some() || self.identity.is_some() { "https" } else { "http" };
            let (scheme, authority) = endpoint.split_once("://").unwrap_or((default, endpoint));
            if authority.contains('@') {
                // The part before the `@` is likely to be a password and must not be repeated.
                return unusable(
                    "endpoint",
                    "a URL must not hold a user: configure user and password instead",
                );
            }
            let url = format!("{scheme}://{authority}");
            match scheme {
                "http" => {}
                "https" if self.ca.is_some() => {}
                "https" => return unusable(&url, "https needs the certificate of the authority to trust"),
                _ => return unusable(&url, "its scheme is neither http nor https"),
            }
            if authority.is_empty() || authority.contains(['/', '?', '#', ' ']) {
                return unusable(&url, "an endpoint is a host and a port, as http://127.0.0.1:2379");
            }
            urls.push(url);
        }
        if urls.is_empty() {
            return unusable("without endpoints", "no endpoint is configured: name at least one");
        }
        Ok(urls)
    }

    /// Makes the options for a connection to one server, reading the certificates.
    pub(super) fn options(&self, url: &str, store: &str) -> Result<ConnectOptions, StoreError> {
        // Servers hang up on clients that ping more often than every five seconds.
        const PING: Duration = Duration::from_secs(6);
        const PONG: Duration = Duration::from_secs(3);
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING, PONG)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(self.deadline)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        if url.starts_with("https://") {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &self.ca {
                tls =
                    tls.ca_certificate(Certificate::from_pem(ca.read("the authority's certificate", store)?));
            }
            if let Some((certificate, key)) = &self.identity {
                let certificate = certificate.read("the client certificate", store)?;
                tls = tls.identity(Identity::from_pem(certificate, key.read("the client key", store)?));
            }
            options = options.with_tls(tls);
        }
        Ok(options)
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> =
            self.endpoints.iter().map(|url| url.rsplit('@').next().unwrap_or(url)).collect();
        f.debug_struct("EtcdConfig")
            .field("endpoints", &endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("password", &self.user.as_ref().map(|_| "***"))
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("deadline", &self.deadline)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::EtcdStore;
    use super::*;

    fn refusal(config: EtcdConfig) -> String {
        EtcdStore::new(config).unwrap_err().to_string()
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let config = EtcdConfig::new(["http://u:hidden1@h:1"])
            .with_user("calico", "hidden2")
            .with_client_certificate(Pem::Inline(b"hidden3".to_vec()), Pem::Inline(b"hidden4".to_vec()));
        let text = format!("{config:?}");
        assert!(text.contains("calico") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_user_within_a_url_is_refused_without_repeating_it() {
        let text = refusal(EtcdConfig::new(["http://root:hidden@10.0.0.1:2379"]));
        assert!(text.contains("must not hold a user") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        assert!(refusal(EtcdConfig::new(Vec::<String>::new())).contains("no endpoint"));
        assert!(refusal(EtcdConfig::new(["ftp://10.0.0.1:21"])).contains("neither http nor https"));
        assert!(refusal(EtcdConfig::new(["https://10.0.0.1:2379"])).contains("authority to trust"));
        assert!(refusal(EtcdConfig::new(["http://10.0.0.1:2379/v2/keys"])).contains("a host and a port"));
        assert!(refusal(EtcdConfig::new([""])).contains("a host and a port"));
    }

    #[test]
    fn a_certificate_file_that_is_missing_is_named() {
        let config = EtcdConfig::new(["10.0.0.1:2379"]).with_ca(Pem::File("/nonexistent/ca.pem".into()));
        let text = refusal(config);
        assert!(text.contains("/nonexistent/ca.pem") && text.contains("check the path"), "{text}");
    }

    #[test]
    fn a_scheme_follows_from_the_certificates() {
        let plain = EtcdConfig::new(["  10.0.0.1:2379/ "]);
        assert_eq!(plain.urls().unwrap(), ["http://10.0.0.1:2379"]);
        let secure = EtcdConfig::new(["[fd00::1]:2379"]).with_ca(Pem::Inline(Vec::new()));
        assert_eq!(secure.urls().unwrap(), ["https://[fd00::1]:2379"]);
    }
}
