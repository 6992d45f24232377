//! Which workload endpoint a container's interface is.

use std::net::IpAddr;

use calico_model::name::{NamedAfter, interface_name, workload_endpoint_name};
use calico_model::resource::{Action, Metadata, Object, ObjectId, Profile, Rule, WorkloadEndpoint};
use calico_model::{Cidr, InterfaceName, Labels, Mac, Name, Namespace, NodeName, ParseError, Selector};
use sha1::{Digest, Sha1};

use super::config::PolicyType;
use super::{CniError, Config, Container, ContainerId};

/// The label that carries a pod's service account.
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// What a container's interface is called in the datastore and on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    node: NodeName,
    container: ContainerId,
    interface: InterfaceName,
    pod: Option<Pod>,
    name: Name,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: Namespace,
    name: String,
}

impl Identity {
    /// Identifies a container on a node. A container is a pod when the runtime names both a pod and its namespace.
    ///
    /// # Errors
    /// When a part cannot be a part of an endpoint's name.
    pub fn of(container: &Container, node: NodeName) -> Result<Self, CniError> {
        let pod = container.args.value("K8S_POD_NAME").zip(container.args.value("K8S_POD_NAMESPACE"));
        let pod = pod.map(|(name, namespace)| {
            let unusable = |source| CniError::Name { what: "the pod's namespace".to_owned(), source };
            Ok::<_, CniError>(Pod { namespace: namespace.parse().map_err(unusable)?, name: name.to_owned() })
        });
        let pod = pod.transpose()?;
        let workload = pod.as_ref().map_or(container.id.as_str(), |pod| pod.name.as_str());
        let orchestrator = if pod.is_some() { "k8s" } else { "cni" };
        let segments = [node.as_str(), orchestrator, workload, container.interface.as_str()];
        let name = workload_endpoint_name(&segments).map_err(|source| CniError::Name {
            what: format!("the name of the workload endpoint of {workload}"),
            source,
        })?;
        Ok(Self { node, container: container.id.clone(), interface: container.interface.clone(), pod, name })
    }

    /// Returns the endpoint's namespace and name.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId { namespace: Some(self.namespace()), name: self.name.clone() }
    }

    /// Returns the node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Returns the runtime's name of the container.
    #[must_use]
    pub fn container(&self) -> &ContainerId {
        &self.container
    }

    /// Returns the interface inside the container.
    #[must_use]
    pub fn interface(&self) -> &InterfaceName {
        &self.interface
    }

    /// Returns the namespace of the endpoint: the pod's, else `default`.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.pod.as_ref().map_or_else(Namespace::default_namespace, |pod| pod.namespace.clone())
    }

    /// Returns the pod's name, for a pod.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.pod.as_ref().map(|pod| pod.name.as_str())
    }

    /// Returns the name of the node's end.
    pub(super) fn host_interface(&self, prefix: &str) -> InterfaceName {
        let workload = match &self.pod {
            Some(pod) => NamedAfter::Pod { namespace: pod.namespace.as_str(), name: &pod.name },
            None => NamedAfter::Container(self.container.as_str()),
        };
        interface_name(prefix, workload)
            .expect("a configuration with another prefix is refused where it is read")
    }

    /// Returns the MAC address of the container's end. The same container always gets the same one.
    #[must_use]
    pub fn mac(&self) -> Mac {
        let digest = Sha1::digest(format!("{}/{}/{}", self.node, self.container, self.interface));
        let [first, b, c, d, e, f, ..] = <[u8; 20]>::from(digest);
        // A locally administered address of one station (IEEE 802, 8.2).
        Mac([(first & 0b1111_1100) | 0b10, b, c, d, e, f])
    }

    /// Returns the profiles of the endpoint, in order.
    ///
    /// # Errors
    /// When a name that a profile would have cannot be one.
    pub fn profiles(&self, config: &Config) -> Result<Vec<Name>, CniError> {
        let named = |text: String, what: &str| {
            text.parse::<Name>()
                .map_err(|source: ParseError| CniError::Name { what: what.to_owned(), source })
        };
        match &self.pod {
            Some(pod) if config.policy == PolicyType::Kubernetes => {
                let mut profiles = vec![named(format!("kns.{}", pod.namespace), "the namespace's profile")?];
                if let Some(account) = config.labels.get(SERVICE_ACCOUNT) {
                    let text = format!("ksa.{}.{account}", pod.namespace);
                    profiles.push(named(text, "the service account's profile")?);
                }
                Ok(profiles)
            }
            _ => Ok(vec![named(config.network.clone(), "the network's name, as the name of its profile,")?]),
        }
    }

    /// Returns the profile that the network gives its endpoints, when it is to be made: whatever they send is allowed, and
    /// what they are sent by one another. Pods of a network without policy are open to all.
    ///
    /// # Errors
    /// When the network's name cannot be a profile's.
    pub fn network_profile(&self, config: &Config) -> Result<Option<Object<Profile>>, CniError> {
        if config.policy != PolicyType::Network {
            return Ok(None);
        }
        let network = &config.network;
        let unusable = |source| CniError::Name {
            what: "the network's name, as the name of its profile,".to_owned(),
            source,
        };
        let name = network.parse().map_err(unusable)?;
        let mut ingress = Rule::allow();
        if self.pod.is_none() {
            let selector = format!("has({network})").parse::<Selector>();
            ingress.source.selector = Some(selector.map_err(|error| CniError::Config {
                key: "name",
                problem: format!("is {network:?}, which cannot be a label: {error}"),
            })?);
        }
        Ok(Some(Object::new(
            name,
            Profile {
                ingress: vec![ingress],
                egress: vec![Rule::new(Action::Allow)],
                labels_to_apply: Labels::from([(network.as_str(), "")]),
            },
        )))
    }

    /// Returns the endpoint as it is to be stored.
    ///
    /// # Errors
    /// When a name that one of its profiles would have cannot be one.
    pub fn endpoint(
        &self,
        config: &Config,
        addresses: &[IpAddr],
        host_interface: InterfaceName,
    ) -> Result<Object<WorkloadEndpoint>, CniError> {
        let orchestrator = if self.pod.is_some() { "k8s" } else { "cni" };
        let mut labels = config.labels.clone();
        labels.insert("projectcalico.org/namespace", self.namespace().as_str());
        labels.insert("projectcalico.org/orchestrator", orchestrator);
        let mut metadata = Metadata::named(self.name.clone());
        metadata.namespace = Some(self.namespace());
        metadata.labels = labels;
        let mut spec = WorkloadEndpoint::on(self.node.clone());
        spec.orchestrator = orchestrator.to_owned();
        spec.container_id = self.container.to_string();
        spec.pod = self.pod().unwrap_or_default().to_owned();
        spec.endpoint = self.interface.to_string();
        spec.service_account_name = config.labels.get(SERVICE_ACCOUNT).unwrap_or_default().to_owned();
        spec.ip_networks = addresses.iter().map(|addr| Cidr::host(*addr)).collect();
        spec.profiles = self.profiles(config)?;
        spec.interface_name = Some(host_interface);
        spec.mac = Some(self.mac());
        Ok(Object { metadata, spec })
    }
}

#[cfg(test)]
mod tests {
    use calico_model::name::pod_interface_name;
    use serde_json::json;

    use super::*;

    fn identity(id: &str, args: &str) -> Result<Identity, CniError> {
        let container = Container {
            id: id.parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            args: args.parse().unwrap(),
        };
        Identity::of(&container, "node-1".parse().unwrap())
    }

    fn config(policy: &str) -> Config {
        let config = json!({
            "name": "net", "policy": { "type": policy },
            "labels": { "role": "database", SERVICE_ACCOUNT: "web" }
        });
        Config::parse(config.to_string().as_bytes()).unwrap()
    }

    const POD: &str = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx";

    #[test]
    fn a_container_is_named_after_itself() {
        let identity = identity("0123456789abcdef", "").unwrap();
        assert_eq!(identity.id().to_string(), "default/node--1-cni-0123456789abcdef-eth0");
        let interface = identity.host_interface("cali");
        assert_eq!(interface.as_str(), "cali0123456789a");
        assert_eq!(identity.host_interface("veth-of").as_str(), "veth-of01234567");
        let endpoint = identity.endpoint(&config(""), &["10.0.0.1".parse().unwrap()], interface).unwrap();
        assert_eq!(endpoint.spec.ip_networks, ["10.0.0.1/32".parse().unwrap()]);
        assert_eq!(endpoint.metadata.labels.get("role"), Some("database"));
        assert_eq!(endpoint.spec.profiles, ["net".parse().unwrap()]);
    }

    #[test]
    fn a_pod_is_named_after_its_namespace_and_name() {
        let identity = identity("0123456789abcdef", POD).unwrap();
        assert_eq!(identity.id().to_string(), "default/node--1-k8s-nginx-eth0");
        assert_eq!(identity.host_interface("cali"), pod_interface_name("default", "nginx"));
        let profiles = identity.profiles(&config("k8s")).unwrap();
        assert_eq!(profiles, ["kns.default".parse().unwrap(), "ksa.default.web".parse().unwrap()]);
        assert_eq!(identity.network_profile(&config("k8s")).unwrap(), None);
    }

    #[test]
    fn made_up_container_ids_that_begin_alike_get_different_interfaces() {
        let [one, two] =
            ["demo-frontend1", "demo-frontend2"].map(|id| identity(id, "").unwrap().host_interface("cali"));
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 15);
        assert_eq!(identity("c1", "").unwrap().host_interface("cali").as_str().len(), 15);
    }

    #[test]
    fn the_networks_profile_lets_its_own_endpoints_talk() {
        let profile = identity("c1", "").unwrap().network_profile(&config("")).unwrap().unwrap();
        let selector = profile.spec.ingress[0].source.selector.as_ref().map(ToString::to_string);
        assert_eq!(selector.as_deref(), Some("has(net)"));
        assert_eq!(profile.spec.labels_to_apply.get("net"), Some(""));
        let open = identity("c1", POD).unwrap().network_profile(&config("")).unwrap().unwrap();
        assert_eq!(open.spec.ingress, [Rule::allow()]);
    }

    #[test]
    fn a_mac_address_is_one_stations_own_and_stays() {
        let mac = || identity("c1", "").unwrap().mac();
        assert_eq!(mac().0[0] & 0b11, 0b10);
        assert_eq!(mac(), mac());
        assert_ne!(mac(), identity("c2", "").unwrap().mac());
    }

    #[test]
    fn a_name_that_cannot_be_stored_is_refused() {
        let error = identity("Upper", "").unwrap_err();
        assert_eq!(error.to_string(), "the name of the workload endpoint of Upper cannot be used");
        assert!(identity("c1", "K8S_POD_NAMESPACE=Bad;K8S_POD_NAME=x").is_err());
    }
}
