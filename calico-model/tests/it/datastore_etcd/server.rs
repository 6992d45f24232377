//! What only tests do to etcd servers.

use calico_model::datastore::etcd::local::LocalCluster;
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) fn signal(cluster: &LocalCluster, member: usize, signal: Signal) {
    let pid = cluster.pid(member).expect("the member exists");
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the member runs");
}

/// Demands users from now on: `root`, and one who may read and write a folder.
pub(super) async fn enable_auth(cluster: &LocalCluster, user: &str, password: &str, folder: &str) {
    let mut client = Client::connect(cluster.urls(), None).await.expect("a member answers");
    let end = format!("{}0", folder.trim_end_matches('/'));
    let permission = Permission::new(PermissionType::Readwrite, folder).with_range_end(end);
    let set_up = async {
        client.role_add("root").await?;
        client.user_add("root", "root", None).await?;
        client.user_grant_role("root", "root").await?;
        client.role_add("reader").await?;
        client.role_grant_permission("reader", permission).await?;
        client.user_add(user, password, None).await?;
        client.user_grant_role(user, "reader").await?;
        client.auth_enable().await
    };
    let outcome: Result<_, etcd_client::Error> = set_up.await;
    outcome.expect("a new server takes users");
}

/// Adds a user to a cluster that demands users.
pub(super) async fn add_user(cluster: &LocalCluster, name: &str) {
    let root = ConnectOptions::new().with_user("root", "root");
    let mut client = Client::connect(cluster.urls(), Some(root)).await.expect("a member answers");
    client.user_add(name, "word", None).await.expect("root may add users");
}
