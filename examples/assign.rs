//! Addresses from one pool, for several nodes at once, over one SQLite file that any number of processes may share.

use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use calico_ipam::{AutoAssign, Ipam};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Datastore, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "a program reads the clock")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("calico-assign-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let store = Arc::new(SqliteStore::open(folder.join("calico.db"))?);
    let pool: Resource = Object::new("default".parse()?, IpPool::new("192.168.0.0/16".parse()?)).into();
    let value = Document::from(&pool).stored_form();
    store.commit(vec![Write::put(pool.key().datastore_key(), value, Precondition::Any)]).await?;

    let ipam = Ipam::new(store);
    let nodes = (1..=3).map(|n| (ipam.clone(), format!("node{n}"))).map(|(ipam, node)| {
        tokio::spawn(async move {
            let mut request =
                AutoAssign::new(node.parse().expect("a node name"), format!("workload-on-{node}"));
            request.count.v4 = 2;
            ipam.auto_assign(request, SystemTime::now()).await
        })
    });
    for assigned in nodes.collect::<Vec<_>>() {
        for allocation in assigned.await??.v4 {
            println!("{} from block {} of pool {}", allocation.addr, allocation.block, allocation.pool);
        }
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
