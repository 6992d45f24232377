//! Members that are not in the stream: those who join are told the tables, piece by piece as the fastest of them takes
//! them, and those who were too slow for the stream are told how what they missed stands now.
//!
//! Those who set out together walk together, and share each piece. What changes behind them is owed to them, as
//! destinations and not as messages: memory follows the number of destinations, not how often they change. When they have
//! been told everything, the stream's end is where they go on. Who falls too far behind the fastest walks anew, so that a
//! walk holds no more than that distance and a piece. Who is owed far more destinations than there are, because they come
//! and go and it takes nothing, is given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use calico_model::Family;

use super::member::{Member, Place};
use super::owed::{Owed, stand};
use super::{Ending, Group, Grouped, ask_of};
use crate::family::FamilySet;
use crate::rib::PeerId;
use crate::speaker::draft::Draft;
use crate::speaker::export::GroupKey;
use crate::speaker::run::{Audience, Queue, Runs};
use crate::speaker::world::World;
use crate::wire::{self, Nlri, Prefix, Refresh, update};

/// Names a walk of a group.
pub(super) type WalkId = u64;

/// The families that some members are told whole, and how they learn that they were.
pub(crate) type Plan = Vec<(FamilySet, Ending)>;

/// Adds to a plan what else is asked for. What is to be told whole anyway is not told twice, however often it is asked for.
pub(super) fn ask(plan: &mut Plan, (families, ending): (FamilySet, Ending)) {
    match plan.iter_mut().find(|(_, planned)| *planned == ending) {
        Some((planned, _)) => families.iter().for_each(|family| planned.insert(family)),
        None => plan.push((families, ending)),
    }
}

/// How much a walk tells at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// How many destinations at most: some 100 KiB of messages when many share their attributes.
    pub(super) destinations: usize,
    /// About how many octets, for those that share nothing.
    pub(super) octets: usize,
}

impl Piece {
    pub(super) const USUAL: Self = Self { destinations: 16 * 1024, octets: 512 * 1024 };
}

/// Whoever is farther behind the fastest than so many octets walks anew.
pub(super) const WALK_LIMIT: usize = 1 << 20;

/// How many destinations the members of a walk may be owed, besides twice as many as there are.
pub(super) const LEEWAY: usize = 100_000;

#[derive(Debug)]
enum Step {
    Say(Vec<u8>),
    /// The rows of a table.
    Table(Family),
    Owed,
}

/// What the members of a walk know when they set out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing: what changes ahead of them is none of their business yet.
    Nothing,
    /// They have been told something.
    Something,
}

/// How far the tables were told.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(super) v4: Option<Prefix<Ipv4Addr>>,
    pub(super) v6: Option<Prefix<Ipv6Addr>>,
}

/// Members that are told the same, although at their own pace.
#[derive(Debug)]
pub(super) struct Walk {
    plan: Plan,
    steps: VecDeque<Step>,
    before: Before,
    reached: Reached,
    pub(super) owed: Owed,
    pub(super) queue: Queue,
    pub(super) members: BTreeSet<PeerId>,
    /// Whether a member may have taken everything that is there.
    pub(super) is_awaited: bool,
}

impl Walk {
    pub(super) fn new(plan: Plan, owed: Owed, before: Before) -> Self {
        let mut steps = VecDeque::new();
        for (families, ending) in &plan {
            for family in families.iter() {
                let table = Step::Table(family);
                steps.extend(match ending {
                    Ending::EndOfRib => [table, Step::Owed, Step::Say(update::end_of_rib(family))],
                    Ending::RefreshMarks => {
                        let say = |mark| Step::Say(wire::refresh(mark));
                        [say(Refresh::Begin(family)), table, say(Refresh::End(family))]
                    }
                });
            }
        }
        let (reached, queue, members) = (Reached::default(), Queue::default(), BTreeSet::new());
        Self { plan, steps, before, reached, owed, queue, members, is_awaited: true }
    }

    fn is_over(&self) -> bool {
        self.steps.is_empty() && self.owed.is_empty()
    }

    /// Takes down which destinations have changed.
    pub(super) fn owe<A: Grouped>(&mut self, changed: &[Nlri<A>]) {
        let to_come =
            self.steps.iter().any(|step| matches!(step, Step::Table(family) if *family == A::FAMILY));
        let reached = (*A::reached(&mut self.reached)).filter(|_| to_come && self.before == Before::Nothing);
        let skips_all = to_come && self.before == Before::Nothing && reached.is_none();
        if !skips_all {
            let is_behind = |nlri: &&Nlri<A>| reached.is_none_or(|reached| nlri.prefix <= reached);
            A::owed(&mut self.owed).extend(changed.iter().filter(is_behind));
        }
    }

    /// Writes the next piece.
    fn go_on(&mut self, key: &GroupKey, world: &World<'_>, piece: Piece) {
        let mut runs = Runs::default();
        let mut left = piece;
        while left.destinations > 0 && left.octets > 0 && !self.is_over() {
            let is_done = match self.steps.front() {
                Some(Step::Say(message)) => {
                    runs.push(Audience::All, message);
                    true
                }
                Some(Step::Table(Family::V4)) => self.tell_rows::<Ipv4Addr>(key, world, &mut left, &mut runs),
                Some(Step::Table(Family::V6)) => self.tell_rows::<Ipv6Addr>(key, world, &mut left, &mut runs),
                Some(Step::Owed) | None => {
                    self.tell_owed::<Ipv4Addr>(key, world, &mut left, &mut runs)
                        && self.tell_owed::<Ipv6Addr>(key, world, &mut left, &mut runs)
                }
            };
            if is_done {
                self.steps.pop_front();
            }
        }
        self.queue.extend(runs.finish());
    }

    /// Tells the next rows of a table; reports whether they were the last.
    fn tell_rows<A: Grouped>(
        &mut self,
        key: &GroupKey,
        world: &World<'_>,
        left: &mut Piece,
        runs: &mut Runs,
    ) -> bool {
        let mut draft = Draft::<A>::new();
        let reached = A::reached(&mut self.reached);
        let mut rows = A::table(world.rib).iter_after(*reached);
        let is_done = loop {
            if left.destinations == 0 || draft.octets() >= left.octets {
                break false;
            }
            let Some((prefix, paths)) = rows.next() else { break true };
            for told in key.told(prefix, paths, world) {
                draft.announce(told, key.nlri(prefix, told.0, world.names));
            }
            *reached = Some(prefix);
            left.destinations -= 1;
        };
        if is_done {
            *reached = None;
        }
        left.octets = left.octets.saturating_sub(draft.octets());
        draft.write(key, world, runs);
        is_done
    }

    /// Tells how the next destinations stand that are owed; reports whether they were the last of their family.
    fn tell_owed<A: Grouped>(
        &mut self,
        key: &GroupKey,
        world: &World<'_>,
        left: &mut Piece,
        runs: &mut Runs,
    ) -> bool {
        let owed = A::owed(&mut self.owed);
        let draft = stand(key, owed, world, left);
        left.octets = left.octets.saturating_sub(draft.octets());
        draft.write(key, world, runs);
        owed.is_empty()
    }
}

impl Group {
    /// Begins a walk.
    pub(super) fn set_out(&mut self, walk: Walk, members: impl IntoIterator<Item = PeerId>) {
        let id = self.next_walk;
        self.next_walk += 1;
        let walk = self.walks.entry(id).or_insert(walk);
        for member in members {
            walk.members.insert(member);
            self.members.insert(member, Member::at(Place::Walk(id, 0)));
        }
    }

    /// Takes a member out of where it is; returns what it is still to be told.
    pub(super) fn take_away(&mut self, member: PeerId) -> Option<(Plan, Owed)> {
        let state = self.members.remove(&member)?;
        let mut owed = Owed::default();
        owed.add_told(self.unread(&state), &self.key);
        let Place::Walk(id, _) = state.place else { return Some((Plan::new(), owed)) };
        let walk = self.walks.get_mut(&id)?;
        walk.members.remove(&member);
        owed.add(&walk.owed);
        let plan = walk.plan.clone();
        if walk.members.is_empty() {
            self.walks.remove(&id);
        }
        Some((plan, owed))
    }

    /// Lets members that join set out.
    pub(super) fn admit(&mut self) {
        let mut new = BTreeMap::<(FamilySet, Ending), Vec<PeerId>>::new();
        let mut again = BTreeMap::<Plan, Vec<PeerId>>::new();
        for (id, asked) in std::mem::take(&mut self.joining) {
            // However often it asks, it is told to the end first, and once more then.
            if self.is_being_told(id, asked.0) {
                ask_of(&mut self.again, id, asked);
                continue;
            }
            match self.take_away(id) {
                None => new.entry(asked).or_default().push(id),
                Some((mut plan, owed)) => {
                    ask(&mut plan, asked);
                    if owed.is_empty() {
                        again.entry(plan).or_default().push(id);
                    } else {
                        self.set_out(Walk::new(plan, owed, Before::Something), [id]);
                    }
                }
            }
        }
        for (asked, members) in new {
            self.set_out(Walk::new(vec![asked], Owed::default(), Before::Nothing), members);
        }
        for (plan, members) in again {
            self.set_out(Walk::new(plan, Owed::default(), Before::Something), members);
        }
    }

    /// Reports whether a member is in a walk that tells one of these families whole.
    fn is_being_told(&self, member: PeerId, families: FamilySet) -> bool {
        let Some(Place::Walk(id, _)) = self.members.get(&member).map(|state| state.place) else {
            return false;
        };
        let tells = |planned: &FamilySet| families.iter().any(|family| planned.contains(family));
        self.walks.get(&id).is_some_and(|walk| walk.plan.iter().any(|(planned, _)| tells(planned)))
    }

    /// Writes the next piece where somebody waits for it, and lets those go on with the stream who have been told
    /// everything.
    pub(super) fn walk_on(&mut self, world: &World<'_>) {
        let awaited: Vec<WalkId> =
            self.walks.iter().filter(|(_, walk)| walk.is_awaited).map(|(id, _)| *id).collect();
        for id in awaited {
            let Some(walk) = self.walks.get_mut(&id) else { continue };
            let at = |member: &PeerId| {
                self.members.get(member).map_or(0, |state| match state.place {
                    Place::Stream(at) | Place::Walk(_, at) => at,
                })
            };
            let end = walk.queue.end();
            let (arrived, behind): (Vec<PeerId>, Vec<PeerId>) =
                walk.members.iter().partition(|member| at(member) == end);
            if arrived.is_empty() {
                walk.is_awaited = false;
            } else if walk.is_over() {
                walk.members = behind.into_iter().collect();
                walk.is_awaited = false;
                let stream = Place::Stream(self.stream.end());
                for member in arrived {
                    self.members.insert(member, Member::at(stream));
                    if let Some(asked) = self.again.remove(&member) {
                        ask_of(&mut self.joining, member, asked);
                    }
                }
            } else {
                walk.go_on(&self.key, world, self.piece);
                walk.is_awaited = walk.queue.end() == end;
            }
            self.trim_walk(id);
        }
    }

    /// Drops what everybody in a walk has; those who are too far behind the fastest walk anew.
    fn trim_walk(&mut self, id: WalkId) {
        while let Some(walk) = self.walks.get_mut(&id) {
            let place = |member: &PeerId| match self.members.get(member)?.place {
                Place::Walk(_, at) => Some(at),
                Place::Stream(_) => None,
            };
            let places = || walk.members.iter().filter_map(place);
            let (Some(reached), Some(fastest)) = (places().min(), places().max()) else {
                self.walks.remove(&id);
                return;
            };
            walk.queue.drop_before(reached);
            if walk.queue.octets_between(reached, fastest) <= self.walk_limit {
                return;
            }
            let last: Vec<PeerId> =
                walk.members.iter().copied().filter(|member| place(member) == Some(reached)).collect();
            let Some((first, others)) = last.split_first() else { return };
            walk.members.retain(|member| !others.contains(member));
            if let Some((plan, owed)) = self.take_away(*first) {
                self.set_out(Walk::new(plan, owed, Before::Something), last);
            }
        }
    }

    /// Drops what everybody in the stream has, and leaves the slowest behind when it is too long.
    pub(super) fn trim(&mut self) {
        loop {
            let position = |member: &Member| match member.place {
                Place::Stream(at) => Some(at),
                Place::Walk(..) => None,
            };
            let reached = self.members.values().filter_map(position).min().unwrap_or(self.stream.end());
            self.stream.drop_before(reached);
            if self.stream.octets() <= self.stream_limit {
                return;
            }
            let is_last = |(_, member): &(&PeerId, &Member)| position(member) == Some(reached);
            let last: Vec<PeerId> = self.members.iter().filter(is_last).map(|(id, _)| *id).collect();
            let mut owed = Owed::default();
            owed.add_told(self.stream.from(reached), &self.key);
            self.set_out(Walk::new(Plan::new(), owed, Before::Something), last);
        }
    }
}
