//! Trying again: how often, and how long to wait in between.
//!
//! Those who were in one another's way must not come back together. Each operation waits between half of a bound and all
//! of it, and the bound doubles from 2 ms to 100 ms. After [`MAX_ATTEMPTS`] it gives up, which is some ten seconds later.
//! What is random follows from a seed, and what waits is handed in, so that this crate needs neither a clock nor a
//! runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calico_model::datastore::Backoff;

use crate::ipam::Ipam;
use crate::join::yield_now;

/// How often an operation is tried when others change the same data.
pub(crate) const MAX_ATTEMPTS: u32 = 100;

/// The first pause is at most this long: about two commits.
const FIRST: Duration = Duration::from_millis(2);

/// No pause is longer than this.
const LONGEST: Duration = Duration::from_millis(100);

type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How an [`Ipam`] waits between attempts.
#[derive(Clone)]
pub(crate) struct Pauses {
    sleep: Sleep,
    /// The seed of the next operation.
    seed: Arc<AtomicU64>,
}

impl Pauses {
    pub(crate) fn new<F>(seed: u64, sleep: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { sleep: Arc::new(move |time| Box::pin(sleep(time))), seed: Arc::new(AtomicU64::new(seed)) }
    }
}

/// The attempts of one operation.
pub(crate) struct Attempts {
    pauses: Option<(Sleep, Backoff)>,
}

impl Attempts {
    /// Waits before the next attempt; without pauses it only gives others a turn.
    pub(crate) async fn pause(&mut self) {
        match &mut self.pauses {
            Some((sleep, backoff)) => sleep(backoff.pause()).await,
            None => yield_now().await,
        }
    }
}

impl Ipam {
    /// Begins an operation that may have to be tried more than once.
    pub(crate) fn attempts(&self) -> Attempts {
        let pauses = self.pauses.as_ref().map(|pauses| {
            let seed = pauses.seed.fetch_add(1, Ordering::Relaxed);
            (pauses.sleep.clone(), Backoff::new(seed, FIRST, LONGEST))
        });
        Attempts { pauses }
    }
}
