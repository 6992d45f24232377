//! Whether the node's rules are in force for an interface: no workload is let onto the network before.
//!
//! The agent puts an endpoint's policy in force as soon as it reads the endpoint, interface or no interface, and then
//! leaves a file named after the interface, which tells the endpoint's revision: a mark of an earlier endpoint with the same
//! interface counts for nothing. When that takes too long the workload is plugged in all the same, as Calico
//! does; but only when the agent's rules are there, which drop everything from and to interfaces of workloads that it
//! does not know yet. After a reboot, before the agent has run, there are none.

use std::path::Path;
use std::time::Duration;

use calico_model::{InterfaceName, Revision};
use calico_policy::iptables::{Iptables, Variant};
use calico_policy::nft::Nft;

use super::CniError;
use super::plugin::Plugin;

/// How often the agent's mark is looked for.
const POLL: Duration = Duration::from_millis(2);

/// Removes what the agent has left for an earlier endpoint with the same interface.
pub(super) fn forget(plugin: &Plugin<'_>, interface: &InterfaceName) {
    // Mostly there is none, and a mark that stays only means that nobody waits.
    let _absent = std::fs::remove_file(plugin.mark(interface));
}

/// Waits until the agent says that the policy of the endpoint, as written at `revision` or later, is in force.
///
/// # Errors
/// When it does not in time, and nothing would drop the workload's traffic meanwhile.
pub(super) async fn wait(
    plugin: &Plugin<'_>,
    interface: &InterfaceName,
    revision: Option<Revision>,
) -> Result<(), CniError> {
    let mark = plugin.mark(interface);
    let patience = plugin.config.policy_setup_timeout;
    let marked = async {
        while marked_at(&mark).is_none_or(|marked| Some(marked) < revision) {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(patience, marked).await.is_ok() {
        return Ok(());
    }
    if !rules_in_force()? {
        return Err(CniError::Unpoliced { interface: interface.clone() });
    }
    if !patience.is_zero() {
        tracing::warn!(
            %interface,
            seconds = patience.as_secs(),
            "calico-node did not put the endpoint's policy in force in time; its traffic is dropped until it does"
        );
    }
    Ok(())
}

/// Reports whether the agent's rules are there, which drop what they do not know.
///
/// # Errors
/// When that cannot be seen.
pub(super) fn rules_in_force() -> Result<bool, CniError> {
    let in_nftables =
        Nft::new().read().map(|held| held.table.is_some_and(|table| table.sound && !table.chains.is_empty()));
    // A variant that is not installed holds no rules of the agent's, and a kernel may have iptables alone.
    let holds = |variant| Iptables::new(variant).read().is_ok_and(|held| held.guards());
    match in_nftables {
        Ok(true) => Ok(true),
        _ if Variant::ALL.into_iter().any(holds) => Ok(true),
        Ok(false) => Ok(false),
        Err(error) => Err(CniError::Rules(Box::new(error))),
    }
}

/// The revision of the endpoint that the agent looked at.
fn marked_at(mark: &Path) -> Option<Revision> {
    std::fs::read_to_string(mark).ok()?.parse().ok().map(Revision)
}
