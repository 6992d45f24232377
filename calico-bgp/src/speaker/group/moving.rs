//! Members whose settings change, and who go on in another group without a new session.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::owed::Owed;
use super::walk::{Before, Plan, Walk, ask};
use super::{Group, Grouped};
use crate::rib::{Path, PeerId};
use crate::speaker::export::GroupKey;
use crate::speaker::world::World;
use crate::wire::Prefix;

/// What a member that moves has not been told.
#[derive(Debug)]
pub(crate) struct Left {
    plan: Plan,
    owed: Owed,
}

impl Group {
    /// Takes a member out whose session goes on in another group; returns what it has not been told, or `None` when it
    /// was told nothing yet.
    pub(crate) fn hand_over(&mut self, member: PeerId) -> Option<Left> {
        let asked = [self.joining.remove(&member), self.again.remove(&member)];
        let (mut plan, owed) = self.take_away(member)?;
        asked.into_iter().flatten().for_each(|asked| ask(&mut plan, asked));
        Some(Left { plan, owed })
    }

    /// Takes in members of another group: they are told of every path that the other group told in another way, or not at
    /// all, or alone. Those who have been told the same walk together.
    pub(crate) fn take_over(&mut self, by: &GroupKey, members: Vec<(PeerId, Left)>, world: &World<'_>) {
        let mut differences = Owed::default();
        self.owe_differences::<Ipv4Addr>(by, &mut differences, world);
        self.owe_differences::<Ipv6Addr>(by, &mut differences, world);
        let mut together = BTreeMap::<Plan, Vec<PeerId>>::new();
        for (member, Left { plan, mut owed }) in members {
            if owed.is_empty() {
                together.entry(plan).or_default().push(member);
            } else {
                owed.add(&differences);
                self.set_out(Walk::new(plan, owed, Before::Something), [member]);
            }
        }
        for (plan, members) in together {
            self.set_out(Walk::new(plan, differences.clone(), Before::Something), members);
        }
    }

    fn owe_differences<A: Grouped>(&self, old: &GroupKey, owed: &mut Owed, world: &World<'_>) {
        if self.key.families.contains(A::FAMILY) {
            let key = &self.key;
            let says = |key: &GroupKey, prefix: Prefix<A>, path: &Path| {
                let change = key.telling(prefix, path, world)?;
                key.fit(&path.attributes, A::FAMILY, (path.peer(), change), world)
            };
            let nlri = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
                let paths = if key.ids[A::FAMILY] { paths } else { &paths[..1] };
                let differs = |path: &&Path| says(old, prefix, path) != says(key, prefix, path);
                let nlri = |path: &Path| key.nlri(prefix, path, world.names);
                paths.iter().filter(differs).map(nlri).collect::<Vec<_>>()
            };
            A::owed(owed).extend(A::table(world.rib).iter().flat_map(nlri));
        }
    }
}
