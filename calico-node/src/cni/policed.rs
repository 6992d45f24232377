//! Whether the node's rules are in force for an interface: no workload is let onto the network before.
//!
//! The agent puts an endpoint's policy in force as soon as it reads the endpoint, interface or no interface, and then
//! leaves a file named after the interface. When that takes too long the workload is plugged in all the same, as Calico
//! does; but only when the agent's table is there, whose rules drop everything from and to interfaces of workloads that it
//! does not know yet. After a reboot, before the agent has run, there is no such table.

use std::time::Duration;

use calico_model::InterfaceName;
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

/// Waits until the agent says that the endpoint's policy is in force.
///
/// # Errors
/// When it does not in time, and nothing would drop the workload's traffic meanwhile.
pub(super) async fn wait(plugin: &Plugin<'_>, interface: &InterfaceName) -> Result<(), CniError> {
    let mark = plugin.mark(interface);
    let patience = plugin.config.policy_setup_timeout;
    let marked = async {
        while !mark.exists() {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(patience, marked).await.is_ok() {
        return Ok(());
    }
    let actual = Nft::new().read().map_err(|error| CniError::Rules(Box::new(error)))?;
    if !actual.table.is_some_and(|table| table.sound && !table.chains.is_empty()) {
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
