//! Passwords, which resources only refer to.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::resource::bgp::{self, SecretKey};
use calico_model::snapshot::Snapshot;

use super::configuration::Configuration;
use crate::speaker::Password;

/// The passwords that are known, by the name of a Secret and the key of an entry in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<(String, String), Password>);

impl FromIterator<((String, String), Password)> for Secrets {
    fn from_iter<I: IntoIterator<Item = ((String, String), Password)>>(secrets: I) -> Self {
        Self(secrets.into_iter().collect())
    }
}

/// A password that a resource refers to and that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) name: String,
    pub(super) key: String,
}

impl Secrets {
    /// Returns the password of a session; `None` for a session without one.
    pub(super) fn of(&self, password: Option<&bgp::Password>) -> Result<Option<Password>, Missing> {
        let Some(SecretKey { name, key, optional, .. }) = password.and_then(|p| p.secret_key_ref.as_ref())
        else {
            return Ok(None);
        };
        match self.0.get(&(name.clone(), key.clone())) {
            Some(password) => Ok(Some(password.clone())),
            None if *optional == Some(true) => Ok(None),
            None => Err(Missing { name: name.clone(), key: key.clone() }),
        }
    }
}

/// Returns the Secrets and keys that the resources refer to.
#[must_use]
pub fn wanted_secrets(snapshot: &Snapshot) -> BTreeSet<(String, String)> {
    let any_node = "any".parse().expect("a node may be called any");
    let cluster = Configuration::of(snapshot, &any_node).cluster();
    let mesh = cluster.and_then(|cluster| cluster.node_mesh_password.as_ref());
    let peers = snapshot.bgp_peers.values().filter_map(|peer| peer.spec.password.as_ref());
    let keys = mesh.into_iter().chain(peers).filter_map(|password| password.secret_key_ref.as_ref());
    keys.map(|key| (key.name.clone(), key.key.clone())).collect()
}
