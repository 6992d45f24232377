//! What is told of where the machine's own routes lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_model::Cidr;

use crate::ways::Ways;

/// Where the machine's own routes lead, as others are told. What comes is told at once, and that the way to a destination is lost
/// only when it stays so: a route that is back in the next moment is nobody's concern.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) ways: Option<Arc<Ways>>,
    /// Since when the way to destinations is lost of which nothing was told yet.
    lost: BTreeMap<Cidr, Instant>,
}

impl Told {
    /// Takes in where the routes lead now. Returns when to look again at what is not told yet.
    pub(super) fn take(&mut self, read: Ways, patience: Duration, now: Instant) -> Option<Instant> {
        let mut next = read;
        let mut lost = BTreeMap::new();
        if let Some(told) = &self.ways {
            lost.extend(next.lost(told).map(|to| (to, self.lost.get(&to).copied().unwrap_or(now))));
            lost.retain(|_, since| now < *since + patience);
            next.hold(told, lost.keys());
        }
        self.lost = lost;
        if self.ways.as_deref() != Some(&next) {
            self.ways = Some(Arc::new(next));
        }
        self.lost.values().min().map(|since| *since + patience)
    }
}
