//! The machine's own interfaces, made known in the Node: BGPFilters match by them, and BFD watches who is behind them.

use std::net::IpAddr;
use std::time::Duration;

use calico_model::datastore::Backoff;
use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{Node, NodeInterface, ObjectId};
use calico_model::{Name, NodeName, Snapshot};
use calico_route::Ownership;
use calico_route::actual::Host;
use tokio::sync::watch;

use super::dataplane::with_causes;
use super::is_locked;

/// Returns the interfaces that have addresses and are the machine's own: not loopback, nor a workload's, nor any that Calico,
/// or Kubernetes' service proxy, made. Pure.
pub(super) fn of(host: &Host, ownership: &Ownership) -> Vec<NodeInterface> {
    let is_ours =
        |name: &str| name.starts_with("cali") || name.ends_with(".calico") || name.ends_with(".cali");
    let is_own = |name: &str| !is_ours(name) && name != "tunl0" && !name.starts_with("kube-ipvs");
    let links = host.links.iter().filter(|(name, _)| is_own(name.as_str()) && !ownership.is_workload(name));
    let described = links.map(|(name, link)| NodeInterface {
        name: name.to_string(),
        addresses: link.addresses.keys().copied().filter(|address| leads_somewhere(address.addr())).collect(),
    });
    described.filter(|interface| !interface.addresses.is_empty()).collect()
}

fn leads_somewhere(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    }
}

/// What a Node is to tell, and the revision at which it was found not to: one that is written back afterwards has another, and is
/// told again.
type Wanted = Option<(Vec<NodeInterface>, Option<String>)>;

/// The agent's end of the task that keeps the Node up to date.
pub(super) struct Interfaces(watch::Sender<Wanted>);

impl Interfaces {
    pub(super) fn spawn(node: NodeName, client: Client, seed: u64) -> Self {
        let wanted = watch::Sender::new(None);
        // It ends when the sender is dropped with the agent.
        tokio::spawn(keep(wanted.subscribe(), node, client, seed));
        Self(wanted)
    }

    /// Has the Node tell of these interfaces, unless it does, or the datastore is locked.
    pub(super) fn want(&self, interfaces: Vec<NodeInterface>, snapshot: &Snapshot, node: &NodeName) {
        let id = ObjectId::from(Name::from(node.clone()));
        let Some(known) = snapshot.nodes.get(&id).filter(|_| snapshot.in_sync) else { return };
        let revision = || known.metadata.resource_version.clone();
        let is_to_tell = known.spec.interfaces != interfaces && !is_locked(snapshot);
        let wanted = is_to_tell.then(|| (interfaces, revision()));
        self.0.send_if_modified(|held| std::mem::replace(held, wanted.clone()) != wanted);
    }
}

async fn keep(mut wanted: watch::Receiver<Wanted>, node: NodeName, client: Client, seed: u64) {
    let id = ObjectId::from(Name::from(node));
    while wanted.changed().await.is_ok() {
        let mut backoff = Backoff::new(seed, Duration::from_millis(500), Duration::from_secs(60));
        loop {
            let newest = wanted.borrow_and_update().clone();
            let Some((interfaces, _)) = newest else { break };
            match tell(&client, &id, interfaces).await {
                // A node that is deleted has nothing to tell.
                Ok(()) | Err(ClientError::NotFound { .. }) => break,
                Err(error) => {
                    tracing::debug!(error = %with_causes(&error), "the Node does not tell of its interfaces yet");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }
}

async fn tell(client: &Client, id: &ObjectId, interfaces: Vec<NodeInterface>) -> Result<(), ClientError> {
    let write = |_: &mut _, node: &mut Node| node.interfaces = interfaces.clone();
    client.of::<Node>().modify(id, write).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use calico_model::resource::FelixConfiguration;
    use calico_route::fake::FakeKernel;

    use super::*;

    #[test]
    fn while_the_datastore_is_locked_the_node_is_not_to_tell_of_interfaces() {
        use calico_model::resource::{ClusterInformation, Object};
        let node: NodeName = "n1".parse().unwrap();
        let interfaces = Interfaces(watch::Sender::new(None));
        let mut snapshot = Snapshot::default();
        snapshot.apply(calico_model::Update::InSync);
        snapshot.insert(Object::new("n1".parse().unwrap(), Node::new()));
        let found = vec![NodeInterface { name: "eth0".to_owned(), addresses: Vec::new() }];
        for locked in [false, true, false] {
            let cluster = ClusterInformation {
                cluster_guid: String::new(),
                cluster_type: String::new(),
                calico_version: String::new(),
                datastore_ready: Some(!locked),
                variant: String::new(),
            };
            snapshot.insert(Object::new(ClusterInformation::NAME.parse().unwrap(), cluster));
            interfaces.want(found.clone(), &snapshot, &node);
            assert_eq!(interfaces.0.borrow().is_none(), locked);
        }
    }

    #[test]
    fn a_node_that_is_written_back_is_to_tell_of_interfaces_again() {
        use calico_model::resource::Object;
        let node: NodeName = "n1".parse().unwrap();
        let interfaces = Interfaces(watch::Sender::new(None));
        let mut asked = interfaces.0.subscribe();
        let mut snapshot = Snapshot::default();
        snapshot.apply(calico_model::Update::InSync);
        let found = vec![NodeInterface { name: "eth0".to_owned(), addresses: Vec::new() }];
        for (revision, is_asked) in [("1", true), ("1", false), ("3", true)] {
            let mut object = Object::new("n1".parse().unwrap(), Node::new());
            object.metadata.resource_version = Some(revision.to_owned());
            snapshot.insert(object);
            interfaces.want(found.clone(), &snapshot, &node);
            assert_eq!(asked.has_changed().unwrap(), is_asked, "{revision}");
            asked.borrow_and_update();
        }
    }

    #[test]
    fn a_workloads_interface_is_not_the_machines_own_whatever_its_prefix() {
        let mut kernel = FakeKernel::default();
        for (name, address) in
            [("eth0", "172.16.6.1/24"), ("tap0", "172.16.7.1/32"), ("vxlan.calico", "10.0.0.1/32")]
        {
            kernel.add_link(&name.parse().unwrap(), &[address.parse().unwrap()]);
        }
        let settings =
            FelixConfiguration { interface_prefix: Some("tap".to_owned()), ..FelixConfiguration::new() };
        let ownership = Ownership::of(&settings);
        let names = |ownership: &Ownership| {
            let interfaces = of(&kernel.read(ownership).host, ownership);
            interfaces.into_iter().map(|interface| interface.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&ownership), ["eth0"]);
        assert_eq!(names(&Ownership::default()), ["eth0", "tap0"]);
    }
}
