//! IPAM as the programs use it: those who are in one another's way come back at different times.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use calico_ipam::Ipam;
use calico_model::Datastore;

/// Makes an IPAM that waits between attempts, each process for other times.
#[must_use]
pub fn ipam(store: Arc<dyn Datastore>) -> Ipam {
    // A hasher's keys are random, by the kernel.
    let seed = RandomState::new().hash_one(std::process::id());
    Ipam::new(store).with_pauses(seed, tokio::time::sleep)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use calico_ipam::AutoAssign;
    use calico_model::MemoryStore;
    use calico_model::datastore::Atomicity;
    use calico_model::datastore::client::Client;
    use calico_model::datastore::faulty::{Fault, FaultyStore};
    use calico_model::resource::{IpPool, Object};

    use super::*;
    use crate::lab::Stopwatch;

    #[tokio::test]
    async fn attempts_that_conflict_are_apart() {
        let store = FaultyStore::new(MemoryStore::new(), Atomicity::Atomic);
        let pool = Object::new("p".parse().unwrap(), IpPool::new("10.0.0.0/16".parse().unwrap()));
        Client::new(Arc::new(store.clone()), crate::stamp::stamp).of::<IpPool>().create(pool).await.unwrap();
        let mut conflicts = 8;
        store.before_commit(move |_| {
            let fails = conflicts > 0;
            conflicts -= u32::from(fails);
            if fails { Fault::Conflict } else { Fault::None }
        });
        let mut request = AutoAssign::new("n1".parse().unwrap(), "h");
        request.count.v4 = 1;
        let watch = Stopwatch::start();
        ipam(Arc::new(store)).auto_assign(request, SystemTime::UNIX_EPOCH).await.unwrap();
        // Half of 2, 4, 8, 16, 32, 64, 100 and 100 ms at least.
        assert!(watch.elapsed() >= Duration::from_millis(163), "{:?}", watch.elapsed());
    }
}
