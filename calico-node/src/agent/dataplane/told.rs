//! What is said of a pass: what was changed and what was refused, in few lines, and what waits once it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use calico_model::InterfaceName;
use calico_route::change::Change;
use calico_route::netlink::WriteError;
use calico_route::{Ownership, Waiting, Waits};

use super::with_causes;

/// How long an interface of a workload may be missing before that is told: a CNI plugin writes the endpoint first.
const MISSING: Duration = Duration::from_secs(3);

/// What a pass changed.
#[derive(Debug, Default)]
pub(super) struct Changed<'c> {
    only: Option<&'c Change>,
    counts: BTreeMap<&'static str, usize>,
}

impl<'c> Changed<'c> {
    pub(super) fn note(&mut self, change: &'c Change) {
        tracing::debug!(%change, "programmed");
        self.only = self.counts.is_empty().then_some(change);
        *self.counts.entry(change.subject()).or_default() += 1;
    }

    /// Logs one line, if there was anything.
    pub(super) fn tell(&self) {
        match self.only {
            Some(change) => tracing::info!(%change, "programmed"),
            None if self.counts.is_empty() => {}
            None => tracing::info!(changes = self.text(), "programmed"),
        }
    }

    fn text(&self) -> String {
        let counts = self.counts.iter().map(|(subject, count)| format!("{subject}: {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}

/// What was refused in a pass. Changes of one kind that were refused with the same words are one line.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<(&'static str, String), (String, usize)>);

impl Refused {
    pub(super) fn note(&mut self, change: &Change, error: &WriteError) {
        let text = with_causes(error);
        let alike = if let WriteError::Refused { refusal, .. } = error {
            refusal.to_string()
        } else if let WriteError::Unanswered { source, .. } = error {
            source.to_string()
        } else {
            text.clone()
        };
        self.0.entry((change.subject(), alike)).or_insert((text, 0)).1 += 1;
    }

    pub(super) fn lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|((subject, alike), (text, count))| match count {
            1 => text,
            // The same text for each names what they have in common.
            _ if text == alike => text,
            _ => format!("{text}; so it is with {} other {subject}", count - 1),
        })
    }
}

/// Since when interfaces of workloads are missing.
#[derive(Debug, Default)]
pub(super) struct Missing(BTreeMap<InterfaceName, Instant>);

impl Missing {
    /// Returns what of the waits is to be told now, and when there will be more to tell.
    pub(super) fn told(
        &mut self,
        waits: &Waits,
        ownership: &Ownership,
        now: Instant,
    ) -> (BTreeSet<String>, Option<Instant>) {
        let missing = |waiting: &Waiting| {
            let (Waiting::DeviceAbsent(device) | Waiting::DeviceDown(device)) = waiting else { return None };
            ownership.is_workload(device).then(|| device.clone())
        };
        let earlier = std::mem::take(&mut self.0);
        let (mut told, mut next) = (BTreeSet::new(), None::<Instant>);
        for waiting in waits.iter() {
            let Some(device) = missing(waiting) else {
                told.insert(waiting.to_string());
                continue;
            };
            let since = earlier.get(&device).copied().unwrap_or(now);
            self.0.insert(device, since);
            match since + MISSING {
                due if due <= now => drop(told.insert(waiting.to_string())),
                due => next = Some(next.map_or(due, |next| next.min(due))),
            }
        }
        (told, next)
    }
}

#[cfg(test)]
mod tests {
    use calico_route::netlink::Netlink;
    use calico_route::route::{Form, RouteKey};

    use super::*;

    /// Over a device that the kernel has and that is off.
    async fn over_a_device_that_is_off() {
        let mut netlink = Netlink::connect().unwrap();
        netlink.read(&Ownership::default()).await.unwrap();
        let route = |number: u32| {
            let to = calico_model::Cidr::host(std::net::Ipv4Addr::from(0xc000_0200 + number).into());
            Change::AddRoute { key: RouteKey::main(to, 1024), form: Form::Device("lo".parse().unwrap()) }
        };
        let mut changes: Vec<Change> = (0..300).map(route).collect();
        let device = "lo".parse().unwrap();
        changes.push(Change::RemoveNeighbour { device, address: "192.0.2.1".parse().unwrap() });
        let mut refused = Refused::default();
        for outcome in netlink.apply(&changes).await {
            refused.note(outcome.change, &outcome.result.unwrap_err());
        }
        let lines: Vec<String> = refused.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[1].starts_with("the kernel refuses `route add 192.0.2.0/32 metric 1024 dev lo"),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("; so it is with 299 other routes"), "{lines:?}");
    }

    #[test]
    fn what_is_refused_alike_is_one_line() {
        super::super::tests::alone(over_a_device_that_is_off);
    }

    #[test]
    fn what_was_changed_is_one_line() {
        let device: InterfaceName = "eth0".parse().unwrap();
        let changes = [
            Change::ReleaseLink { device: device.clone() },
            Change::StopChecksumOffload { device: device.clone() },
            Change::RemoveNeighbour { device, address: "192.0.2.1".parse().unwrap() },
        ];
        let mut changed = Changed::default();
        changed.note(&changes[0]);
        assert_eq!(changed.only, Some(&changes[0]));
        changes[1..].iter().for_each(|change| changed.note(change));
        assert_eq!((changed.only, changed.text().as_str()), (None, "devices: 2, neighbours: 1"));
    }
}
