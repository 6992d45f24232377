//! Changes as a value.

use std::collections::BTreeMap;
use std::fmt;

use calico_model::Family;

use super::Insertion;
use super::program::{IpsetKind, Rule, TableName};
use super::words::{hook_word, program_word};
use crate::ruleset::{ChainName, Element, Hook, SetName};

/// Changes of iptables and ipset. Each table of each family takes its own whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What becomes of sets before the rules change: what new rules look at is there, and what they should find is in it.
    pub before: Vec<SetOperation>,
    /// The changes of each table.
    pub tables: BTreeMap<(Family, TableName), Vec<Operation>>,
    /// What becomes of sets when no rule looks for it any more.
    pub after: Vec<SetOperation>,
}

/// One change of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOperation {
    /// A set is made.
    Create(SetName, IpsetKind),
    /// Every element is removed.
    Flush(SetName),
    /// An element is added.
    Add(SetName, Element),
    /// An element is removed.
    Delete(SetName, Element),
    /// Two sets change places.
    Swap(SetName, SetName),
    /// A set is removed; no rule looks at it.
    Destroy(SetName),
}

/// One change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A chain is made.
    Make(ChainName),
    /// Every rule is removed from a chain.
    Empty(ChainName),
    /// A rule is added at the end of a chain.
    Append(ChainName, Rule),
    /// The rule at a place, counted from 1, is removed.
    Delete(ChainName, usize),
    /// A rule is put at a place, counted from 1.
    Insert(ChainName, usize, Rule),
    /// A rule of ours is taken out of one of the kernel's own chains, in the words of `iptables-save`.
    Unhook(Hook, String),
    /// A rule of ours is put into one of the kernel's own chains.
    Hook(Hook, Insertion, Rule),
    /// A chain is removed; it is empty and nothing leads to it.
    Remove(ChainName),
}

impl Transaction {
    /// Reports whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.tables.values().all(Vec::is_empty) && self.after.is_empty()
    }

    /// Returns how many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.before.len() + self.tables.values().map(Vec::len).sum::<usize>() + self.after.len()
    }
}

/// Returns the input of `iptables-restore` for changes of one table.
pub(super) fn restore_input<'o>(
    table: TableName,
    operations: impl IntoIterator<Item = &'o Operation>,
) -> String {
    let mut text = format!("*{}\n", table.as_str());
    for operation in operations {
        text.push_str(&operation.to_string());
        text.push('\n');
    }
    text.push_str("COMMIT\n");
    text
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Make(chain) | Operation::Empty(chain) => write!(f, ":{chain} - [0:0]"),
            Operation::Append(chain, rule) => write!(f, "-A {chain} {}", rule.line()),
            Operation::Delete(chain, place) => write!(f, "-D {chain} {place}"),
            Operation::Insert(chain, place, rule) => write!(f, "-I {chain} {place} {}", rule.line()),
            Operation::Unhook(hook, line) => write!(f, "-D {} {line}", hook_word(*hook)),
            Operation::Hook(hook, Insertion::First, rule) => {
                write!(f, "-I {} 1 {}", hook_word(*hook), rule.line())
            }
            Operation::Hook(hook, Insertion::Last, rule) => {
                write!(f, "-A {} {}", hook_word(*hook), rule.line())
            }
            Operation::Remove(chain) => write!(f, "-X {chain}"),
        }
    }
}

impl fmt::Display for Transaction {
    /// Prints the transaction as input of `ipset restore` and of the restore program of each family.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = |f: &mut fmt::Formatter<'_>, operations: &[SetOperation]| {
            if !operations.is_empty() {
                writeln!(f, "# ipset restore")?;
            }
            operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
        };
        sets(f, &self.before)?;
        for ((family, table), operations) in
            self.tables.iter().filter(|(_, operations)| !operations.is_empty())
        {
            write!(
                f,
                "# {}-restore --noflush\n{}",
                program_word(*family),
                restore_input(*table, operations)
            )?;
        }
        sets(f, &self.after)
    }
}
