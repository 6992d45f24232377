//! Live flows, asked about again after the rules have changed.
//!
//! A flow that policy has ceased to allow keeps its conntrack entry and gets a mark there, on which the rules drop it in both
//! directions; see `docs/decisions/0005-flow-reevaluation.md`. One that is allowed again loses the mark. Nothing is done to
//! any other flow.

use std::time::{Duration, Instant};

use calico_policy::{Compiler, FlowJudge, Verdict, WITHDRAWN_MARK};
use calico_route::netlink::{ConntrackError, Netlink};

use crate::flows::{flow, own_addresses};

/// The table is walked at most this often, so that a policy a millisecond does not mean a walk a millisecond.
const PAUSE: Duration = Duration::from_millis(200);
/// Of the time, at most one part in so many goes into walking a large table.
const SHARE: u32 = 4;

/// A table that could not be walked is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// When the flows are to be asked about next.
#[derive(Debug)]
pub(super) struct Flows {
    wanted: bool,
    /// Until when there is a pause.
    resting: Option<Instant>,
}

/// How many flows a walk has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Those that are stopped from now on.
    pub(super) withdrawn: usize,
    /// Those that go on.
    pub(super) restored: usize,
}

/// The flows could not be asked about.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    /// What the host sends itself would be taken for what it forwards.
    #[error("cannot list the addresses of this host")]
    Addresses(#[source] std::io::Error),
    /// They cannot be listed or changed.
    #[error(transparent)]
    Connections(#[from] ConntrackError),
}

impl Default for Flows {
    /// A fresh agent does not know whether an earlier one came to asking.
    fn default() -> Self {
        Self { wanted: true, resting: None }
    }
}

impl Flows {
    /// Notes that the rules have changed.
    pub(super) fn rules_changed(&mut self) {
        self.wanted = true;
    }

    /// Returns when to walk; `now` when it is time already.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.resting.map_or(now, |until| until.max(now)))
    }

    /// Walks the connection table once, by rules that are in force.
    pub(super) async fn walk(
        &mut self,
        netlink: &Netlink,
        compiler: &mut Compiler,
    ) -> Result<Walked, WalkError> {
        let began = crate::clock::now();
        let walked = match compiler.flow_judge() {
            Some(judge) => match own_addresses() {
                Ok(addrs) => walk(netlink, &judge.with_addresses(addrs)).await.map_err(WalkError::from),
                Err(error) => Err(WalkError::Addresses(error)),
            },
            None => Ok(Walked::default()),
        };
        let ended = crate::clock::now();
        self.wanted = walked.is_err();
        let pause = if walked.is_ok() { PAUSE } else { RETRY };
        self.resting = Some(ended + pause.max((ended - began) * SHARE));
        walked
    }
}

async fn walk(netlink: &Netlink, judge: &FlowJudge<'_>) -> Result<Walked, ConntrackError> {
    let is_marked = |mark: u32| mark & WITHDRAWN_MARK != 0;
    let changed = netlink
        .connections(|connection| {
            let verdict = flow(connection).and_then(|flow| judge.verdict(&flow));
            verdict.is_some_and(|verdict| (verdict == Verdict::Deny) != is_marked(connection.mark))
        })
        .await?;
    let (restored, withdrawn): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|connection| is_marked(connection.mark));
    Ok(Walked {
        withdrawn: netlink.mark_connections(&withdrawn, WITHDRAWN_MARK, WITHDRAWN_MARK).await?,
        restored: netlink.mark_connections(&restored, WITHDRAWN_MARK, 0).await?,
    })
}
