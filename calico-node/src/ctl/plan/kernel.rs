//! What a node's agent would tell its kernel: nftables, or iptables and ipset, as the node's configuration asks.

use calico_model::{NodeName, Snapshot};
use calico_policy::iptables::{self, Choice, Program, SetOperation, Variant};
use calico_policy::{Ruleset, compile, nft};
use serde_json::{Value, json};

use super::Verbosity;

/// What one node's agent would write.
#[derive(Debug)]
pub struct KernelPlan {
    /// The node.
    pub node: NodeName,
    /// The changes; two, when rules go from one packet filter to another.
    pub changes: Vec<Changes>,
    /// The variant of iptables that is asked for, where the agent chose for itself until now and nobody knows here which: if it is not
    /// this one, all rules go over to it.
    pub unless_already: Option<Variant>,
}

/// The changes of one packet filter.
#[derive(Debug)]
pub enum Changes {
    /// Of nftables.
    Nftables(nft::Transaction),
    /// Of iptables and ipset, in one of the variants.
    Iptables(iptables::Transaction),
}

/// Plans what a node's agent would write. `own` is the variant of iptables that the agent has, or begins with, where
/// `iptablesBackend: Auto` leaves that to it and it is known.
#[must_use]
pub fn kernel(before: &Snapshot, after: &Snapshot, node: &NodeName, own: Option<Variant>) -> KernelPlan {
    let (was, is) = (Rules::of(before, node), Rules::of(after, node));
    let mut unless_already = None;
    let changes = match (&was, &is) {
        (Rules::Nftables(was), Rules::Nftables(is)) => {
            vec![Changes::Nftables(nft::plan(is, &nft::Actual::holding(was)))]
        }
        (Rules::Iptables(of, was), Rules::Iptables(to, is)) if of.stays(*to, own) => {
            unless_already = to.0.filter(|_| of.0.or(own).is_none());
            vec![Changes::Iptables(iptables::plan(is, &iptables::Actual::holding(was)))]
        }
        // What is new is in force before what was goes.
        (was, is) => vec![is.put(), was.remove()],
    };
    let changes = changes.into_iter().filter(|changes| !changes.is_empty()).collect();
    KernelPlan { node: node.clone(), changes, unless_already }
}

impl KernelPlan {
    /// Reports whether the kernel would be told nothing, for all that is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.unless_already.is_none()
    }

    /// Says what is not known, if something is.
    #[must_use]
    pub fn proviso(&self) -> Option<String> {
        self.unless_already.map(|variant| {
            format!("unless its agent uses iptables-{variant} already, all rules go over to that")
        })
    }
}

/// The variant of iptables that is asked for; `None` leaves it to the agent, which keeps the one that it has, or begins with the one that
/// others use.
#[derive(Debug, Clone, Copy)]
struct Asked(Option<Variant>);

impl Asked {
    fn stays(self, to: Self, own: Option<Variant>) -> bool {
        match (self.0.or(own), to.0) {
            (Some(of), Some(to)) => of == to,
            (_, None) | (None, Some(_)) => true,
        }
    }
}

/// What a node's kernel should hold, in the packet filter that is configured.
enum Rules {
    Nftables(Ruleset),
    Iptables(Asked, Program),
}

impl Rules {
    fn of(snapshot: &Snapshot, node: &NodeName) -> Self {
        let felix = snapshot.felix_configuration(node);
        let ruleset = compile(snapshot, node);
        let program =
            |asked| Self::Iptables(asked, iptables::lower(&ruleset, &iptables::Options::of(&felix)));
        match Choice::of(&felix) {
            Choice::Nftables => Self::Nftables(ruleset),
            Choice::Iptables(variant) => program(Asked(Some(variant))),
            Choice::IptablesAsOthers => program(Asked(None)),
        }
    }

    fn put(&self) -> Changes {
        match self {
            Self::Nftables(rules) => Changes::Nftables(nft::plan(rules, &nft::Actual::default())),
            Self::Iptables(_, rules) => {
                Changes::Iptables(iptables::plan(rules, &iptables::Actual::default()))
            }
        }
    }

    fn remove(&self) -> Changes {
        match self {
            Self::Nftables(_) => Changes::Nftables(nft::Transaction::removal()),
            Self::Iptables(_, rules) => {
                let held = iptables::Actual::holding(rules);
                Changes::Iptables(iptables::plan(&Program::default(), &held))
            }
        }
    }
}

impl Changes {
    fn is_empty(&self) -> bool {
        match self {
            Changes::Nftables(transaction) => transaction.is_empty(),
            Changes::Iptables(transaction) => transaction.is_empty(),
        }
    }

    /// Returns the packet filter's name.
    #[must_use]
    pub fn filter(&self) -> &'static str {
        match self {
            Changes::Nftables(_) => "nftables",
            Changes::Iptables(_) => "iptables",
        }
    }

    /// Returns how many operations there are.
    fn len(&self) -> usize {
        match self {
            Changes::Nftables(transaction) => transaction.operations.len(),
            Changes::Iptables(transaction) => transaction.len(),
        }
    }

    /// Returns every operation in the words of nft, or of the restore programs of iptables and ipset.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Changes::Nftables(transaction) => {
                transaction.operations.iter().map(ToString::to_string).collect()
            }
            Changes::Iptables(transaction) => transaction.to_string().lines().map(str::to_owned).collect(),
        }
    }

    fn count(&self) -> Counts {
        let mut counts = Counts::default();
        match self {
            Changes::Nftables(transaction) => {
                transaction.operations.iter().for_each(|operation| counts.nftables(operation));
            }
            Changes::Iptables(transaction) => {
                let sets = transaction.before.iter().chain(&transaction.after);
                sets.for_each(|operation| counts.ipset(operation));
                transaction.tables.values().flatten().for_each(|operation| counts.iptables(operation));
                // A set that is written anew is made beside the one that it takes the place of.
                let [made, anew, removed] = &mut counts.sets;
                (*made, *removed) = (made.saturating_sub(*anew), removed.saturating_sub(*anew));
            }
        }
        // A chain that goes is emptied first.
        counts.chains[1] = counts.chains[1].saturating_sub(counts.chains[2]);
        counts
    }

    /// Says how many operations of each kind there are.
    #[must_use]
    pub fn counted(&self) -> String {
        let Counts { table, chains, rules, sets, elements } = self.count();
        let some = |number: usize, what: &str, done: &str| {
            let plural = if number == 1 { "" } else { "s" };
            (number > 0).then(|| format!("{number} {what}{plural} {done}"))
        };
        let parts = [
            table.then(|| "the table removed".to_owned()),
            some(chains[0], "chain", "made"),
            some(chains[1], "chain", "written anew"),
            some(chains[2], "chain", "removed"),
            some(rules[0], "rule", "written"),
            some(rules[1], "rule", "removed"),
            some(sets[0], "set", "made"),
            some(sets[1], "set", "written anew"),
            some(sets[2], "set", "removed"),
            some(elements[0], "element", "added"),
            some(elements[1], "element", "removed"),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Returns the changes as JSON.
    pub(super) fn to_json(&self, node: &NodeName, verbose: Verbosity) -> Value {
        let Counts { table: _, chains, rules, sets, elements } = self.count();
        let mut value = json!({
            "node": node.as_str(),
            "filter": self.filter(),
            "operations": self.len(),
            "chainsMade": chains[0], "chainsWrittenAnew": chains[1], "chainsRemoved": chains[2],
            "rulesWritten": rules[0], "rulesRemoved": rules[1],
            "setsMade": sets[0], "setsWrittenAnew": sets[1], "setsRemoved": sets[2],
            "elementsAdded": elements[0], "elementsRemoved": elements[1],
        });
        if verbose == Verbosity::EveryOperation {
            value["text"] = self.lines().into();
        }
        value
    }
}

/// How many operations of each kind: things made, written anew and removed, or added and removed.
#[derive(Debug, Default)]
struct Counts {
    table: bool,
    chains: [usize; 3],
    rules: [usize; 2],
    sets: [usize; 3],
    elements: [usize; 2],
}

impl Counts {
    fn nftables(&mut self, operation: &nft::Operation) {
        use nft::Operation;
        match operation {
            Operation::AddChain(..) => self.chains[0] += 1,
            Operation::FlushChain(_) => self.chains[1] += 1,
            Operation::DeleteChain(_) => self.chains[2] += 1,
            Operation::AddRule(..) => self.rules[0] += 1,
            Operation::AddSet(..) | Operation::AddMap(..) => self.sets[0] += 1,
            Operation::FlushSet(_) => self.sets[1] += 1,
            Operation::DeleteSet(_) | Operation::DeleteMap(_) => self.sets[2] += 1,
            Operation::AddElements(_, elements) => self.elements[0] += elements.len(),
            Operation::AddMapElements(_, map) => self.elements[0] += map.elements.len(),
            Operation::DeleteElements(_, gone) | Operation::DeleteMapElements(_, gone) => {
                self.elements[1] += gone.len();
            }
            Operation::DeleteTable => self.table = true,
            Operation::AddTable | Operation::Settle => {}
        }
    }

    fn iptables(&mut self, operation: &iptables::Operation) {
        use iptables::Operation;
        match operation {
            Operation::Make(_) => self.chains[0] += 1,
            Operation::Empty(_) => self.chains[1] += 1,
            Operation::Remove(_) => self.chains[2] += 1,
            Operation::Append(..) | Operation::Insert(..) | Operation::Hook(..) => self.rules[0] += 1,
            Operation::Delete(..) | Operation::Unhook(..) => self.rules[1] += 1,
        }
    }

    fn ipset(&mut self, operation: &SetOperation) {
        match operation {
            SetOperation::Create(..) => self.sets[0] += 1,
            // A set that is made is empty but for what a destruction in vain left, which nobody foresees.
            SetOperation::Flush(_) => {}
            SetOperation::Swap(..) => self.sets[1] += 1,
            SetOperation::Destroy(_) => self.sets[2] += 1,
            SetOperation::Add(..) => self.elements[0] += 1,
            SetOperation::Delete(..) => self.elements[1] += 1,
        }
    }
}
