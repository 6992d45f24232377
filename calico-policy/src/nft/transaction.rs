//! Changes as a value.

use std::fmt;

use super::Digest;
use crate::ruleset::{Base, ChainName, Element, Elements, Rule, SetKind, SetName, VerdictMap};
use crate::text::{MapType, TABLE, verdict};

/// Changes to the table. The kernel takes them whole or not at all: all of them, or, where some have to be in force before
/// others are written, each [part](Self::parts).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The changes, in an order in which everything exists before it is referred to and is referred to no more before it goes.
    pub operations: Vec<Operation>,
}

/// One change to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The table with all that is in it is removed.
    DeleteTable,
    /// The table is made, unless it exists.
    AddTable,
    /// A set is made, with room for so many elements; without bound when that is `None`. One that exists gets the room.
    AddSet(SetName, SetKind, Option<u32>),
    /// A map from keys of a kind to chains is made.
    AddMap(SetName, SetKind),
    /// A chain is made.
    AddChain(ChainName, Option<Base>),
    /// Everything is removed from a set.
    FlushSet(SetName),
    /// Elements are removed from a set.
    DeleteElements(SetName, Elements),
    /// Elements are added to a set.
    AddElements(SetName, Elements),
    /// What comes before is in force from here on. A packet keeps to the rules that were in force when it came, and finds the
    /// elements that are there when it looks: an element may only lead it to a chain that had its rules by then, and a map
    /// may only go when no rule looks at it any more.
    Settle,
    /// Every rule is removed from a chain.
    FlushChain(ChainName),
    /// A rule is added at the end of a chain.
    AddRule(ChainName, Rule),
    /// Keys are removed from a map.
    DeleteMapElements(SetName, Elements),
    /// Keys are added to a map.
    AddMapElements(SetName, VerdictMap),
    /// A chain is removed; it is empty and nothing leads to it.
    DeleteChain(ChainName),
    /// A set is removed; nothing looks at it.
    DeleteSet(SetName),
    /// A map is removed; nothing looks at it.
    DeleteMap(SetName),
}

impl Transaction {
    /// Reports whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Walks what the kernel takes at once, one after the other.
    pub fn parts(&self) -> impl Iterator<Item = &[Operation]> {
        self.operations.split(|operation| *operation == Operation::Settle).filter(|part| !part.is_empty())
    }

    /// Makes the transaction that removes the table, whether it exists or not.
    #[must_use]
    pub fn removal() -> Self {
        Self { operations: vec![Operation::AddTable, Operation::DeleteTable] }
    }
}

impl fmt::Display for Transaction {
    /// Prints the transaction as input of the `nft` program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::DeleteTable => write!(f, "delete table {TABLE}"),
            Operation::AddTable => write!(f, "add table {TABLE}"),
            Operation::AddSet(name, kind, None) => write!(f, "add set {TABLE} {name} {{ {kind} }}"),
            Operation::AddSet(name, kind, Some(room)) => {
                write!(f, "add set {TABLE} {name} {{ {kind} size {room}; }}")
            }
            Operation::AddMap(name, kind) => write!(f, "add map {TABLE} {name} {{ {} }}", MapType(*kind)),
            Operation::AddChain(name, None) => write!(f, "add chain {TABLE} {name}"),
            Operation::AddChain(name, Some(base)) => write!(f, "add chain {TABLE} {name} {{ {base} }}"),
            Operation::Settle => f.write_str("# then"),
            Operation::FlushSet(name) => write!(f, "flush set {TABLE} {name}"),
            Operation::DeleteElements(name, elements) | Operation::DeleteMapElements(name, elements) => {
                write!(
                    f,
                    "delete element {TABLE} {name} {{ {} }}",
                    list(elements.iter().map(Element::to_string))
                )
            }
            Operation::AddElements(name, elements) => {
                write!(
                    f,
                    "add element {TABLE} {name} {{ {} }}",
                    list(elements.iter().map(Element::to_string))
                )
            }
            Operation::FlushChain(name) => write!(f, "flush chain {TABLE} {name}"),
            Operation::AddRule(chain, rule) => {
                write!(f, "add rule {TABLE} {chain} {rule} comment \"{}\"", Digest::of(rule))
            }
            Operation::AddMapElements(name, VerdictMap { kind, elements }) => {
                let verdict = verdict(*kind);
                let entries = elements.iter().map(|(key, chain)| format!("{key} : {verdict} {chain}"));
                write!(f, "add element {TABLE} {name} {{ {} }}", list(entries))
            }
            Operation::DeleteChain(name) => write!(f, "delete chain {TABLE} {name}"),
            Operation::DeleteSet(name) => write!(f, "delete set {TABLE} {name}"),
            Operation::DeleteMap(name) => write!(f, "delete map {TABLE} {name}"),
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
