//! Members whose settings change, and who go on in another group without a new session.

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
    by: GroupKey,
    plan: Plan,
    owed: Owed,
}

impl Group {
    /// Takes a member out whose session goes on in another group; returns what it has not been told, or `None` when it
    /// was told nothing yet.
    pub(crate) fn hand_over(&mut self, member: PeerId) -> Option<Left> {
        let asked = self.joining.remove(&member);
        let (mut plan, owed) = self.take_away(member)?;
        if let Some(asked) = asked {
            ask(&mut plan, asked);
        }
        Some(Left { by: self.key.clone(), plan, owed })
    }

    /// Takes in a member of another group: it is told of every path that the other group told in another way, or not at
    /// all, or alone.
    pub(crate) fn take_over(&mut self, member: PeerId, left: Left, world: &World<'_>) {
        let Left { by, plan, mut owed } = left;
        self.owe_differences::<Ipv4Addr>(&by, &mut owed, world);
        self.owe_differences::<Ipv6Addr>(&by, &mut owed, world);
        self.set_out(Walk::new(plan, owed, Before::Something), [member]);
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
