//! What the etcd store costs beside `etcd-client` driven directly, on a server of its own.
//!
//! `cargo bench -p calico-model --features etcd,strategies --bench etcd` prints one line per figure, the median of
//! several runs. It starts a real server, as the tests do, on free ports and in a temporary directory.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::error::Error;
use std::time::{Duration, Instant};

use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::datastore::{Key, Precondition, Prefix, Write};
use calico_model::{Datastore, EtcdConfig, EtcdStore};
use etcd_client::{Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp};

type Outcome<T> = Result<T, Box<dyn Error>>;

const FOLDER: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/";

#[tokio::main]
async fn main() -> Outcome<()> {
    let cluster = LocalCluster::start(1, &[]).await?;
    let store = EtcdStore::new(EtcdConfig::new(cluster.urls()))?;
    let client = etcd_client::Client::connect(cluster.urls(), None).await?;
    // An answer of 100,000 keys is larger than the client takes by itself.
    let client = client.kv_client().max_decoding_message_size(usize::MAX);
    commit(&store, client.clone()).await?;
    list(&store, client).await
}

fn key(name: &str) -> Outcome<Key> {
    Ok(format!("{FOLDER}{name}").parse()?)
}

/// Compare-and-swaps one key through the store and another one without it, in turns.
async fn commit(store: &EtcdStore, mut client: KvClient) -> Outcome<()> {
    const ROUNDS: usize = 20;
    const COMMITS: u32 = 50;
    let value = vec![b'v'; 400];
    let (ours_key, their_key) = (key("ours")?, key("theirs")?);
    let (mut precondition, mut revision) = (Precondition::Absent, 0);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..COMMITS {
            let write = Write::put(ours_key.clone(), value.clone(), precondition);
            precondition = Precondition::At(store.commit(vec![write]).await?);
        }
        ours.push(start.elapsed());
        let start = Instant::now();
        for _ in 0..COMMITS {
            let unchanged = Compare::mod_revision(their_key.as_str(), CompareOp::Equal, revision);
            let put = TxnOp::put(their_key.as_str(), value.clone(), None);
            let answer = client.txn(Txn::new().when([unchanged]).and_then([put])).await?;
            assert!(answer.succeeded());
            revision = answer.header().ok_or("an answer has a header")?.revision();
        }
        theirs.push(start.elapsed());
    }
    let (ratio, rate) = (ratio(&ours, &theirs), |times| f64::from(COMMITS) / median(times).as_secs_f64());
    println!("commits: {:.0}/s, etcd-client {:.0}/s, ratio {ratio:.2}", rate(ours), rate(theirs));
    Ok(())
}

/// Lists 100,000 keys of 400 bytes in the store's pages, and in one answer without it.
async fn list(store: &EtcdStore, mut client: KvClient) -> Outcome<()> {
    const KEYS: usize = 100_000;
    for start in (0..KEYS).step_by(100) {
        let some = (start..start + 100)
            .map(|n| Ok(Write::put(key(&format!("list/{n:06}"))?, vec![b'v'; 400], Precondition::Any)))
            .collect::<Outcome<_>>()?;
        store.commit(some).await?;
    }
    let folder = Prefix::new(&format!("{FOLDER}list"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let start = Instant::now();
        let listing = store.list(&folder).await?;
        ours.push(start.elapsed());
        assert_eq!(listing.entries.len(), KEYS);
        drop(listing);
        let start = Instant::now();
        let mut answer = client.get(folder.as_str(), Some(GetOptions::new().with_prefix())).await?;
        let kvs: Vec<_> =
            answer.take_kvs().into_iter().map(|kv| (kv.mod_revision(), kv.into_key_value())).collect();
        theirs.push(start.elapsed());
        assert_eq!(kvs.len(), KEYS);
    }
    let ratio = ratio(&ours, &theirs);
    println!("list of {KEYS} keys: {:?}, etcd-client {:?}, ratio {ratio:.2}", median(ours), median(theirs));
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median of the ratios of what was measured in turns: others on the machine slow both down.
fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    let mut ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
