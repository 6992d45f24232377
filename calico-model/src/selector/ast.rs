//! The expression tree and its canonical text.

use std::collections::BTreeSet;
use std::fmt;

/// The tree of a [`Selector`](super::Selector).
///
/// Only reading it is offered: trees are made by parsing and by the constructors of `Selector`, which keep these
/// promises. `Not` never holds `Not`; `And` and `Or` hold at least two; sets are sorted and hold no value twice; every
/// key is a label and every value can be written in quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Expr {
    /// `all()`: always true.
    All,
    /// `global()`: always true; as a namespace selector, "in no namespace".
    Global,
    /// `has(key)`: the label is present, whatever its value.
    Has(Box<str>),
    /// `key == "value"`.
    Equals {
        /// The label looked at.
        key: Box<str>,
        /// The value it must have.
        value: Box<str>,
    },
    /// `key != "value"`: true also when the label is absent.
    NotEquals {
        /// The label looked at.
        key: Box<str>,
        /// The value it must not have.
        value: Box<str>,
    },
    /// `key in {"a", "b"}`.
    In {
        /// The label looked at.
        key: Box<str>,
        /// The values it may have, sorted.
        values: Box<[Box<str>]>,
    },
    /// `key not in {"a", "b"}`: true also when the label is absent.
    NotIn {
        /// The label looked at.
        key: Box<str>,
        /// The values it must not have, sorted.
        values: Box<[Box<str>]>,
    },
    /// `key contains "part"`.
    Contains {
        /// The label looked at.
        key: Box<str>,
        /// What must occur in its value.
        part: Box<str>,
    },
    /// `key starts with "prefix"`.
    StartsWith {
        /// The label looked at.
        key: Box<str>,
        /// What its value must begin with.
        prefix: Box<str>,
    },
    /// `key ends with "suffix"`.
    EndsWith {
        /// The label looked at.
        key: Box<str>,
        /// What its value must end with.
        suffix: Box<str>,
    },
    /// `!expr`.
    Not(Box<Expr>),
    /// `(a && b && …)`.
    And(Box<[Expr]>),
    /// `(a || b || …)`.
    Or(Box<[Expr]>),
}

impl Expr {
    /// Negates; two negations cancel.
    pub(crate) fn not(expr: Expr) -> Expr {
        if let Expr::Not(inner) = expr { *inner } else { Expr::Not(Box::new(expr)) }
    }

    /// Reports whether `test` holds for this node or one below it.
    pub(crate) fn any(&self, test: &impl Fn(&Expr) -> bool) -> bool {
        let below = match self {
            Expr::Not(inner) => inner.any(test),
            Expr::And(terms) | Expr::Or(terms) => terms.iter().any(|term| term.any(test)),
            Expr::All
            | Expr::Global
            | Expr::Has(_)
            | Expr::Equals { .. }
            | Expr::NotEquals { .. }
            | Expr::In { .. }
            | Expr::NotIn { .. }
            | Expr::Contains { .. }
            | Expr::StartsWith { .. }
            | Expr::EndsWith { .. } => false,
        };
        below || test(self)
    }

    /// Gathers the keys of the labels that this node and those below it look at.
    pub(crate) fn gather_keys<'e>(&'e self, keys: &mut BTreeSet<&'e str>) {
        match self {
            Expr::All | Expr::Global => {}
            Expr::Has(key)
            | Expr::Equals { key, .. }
            | Expr::NotEquals { key, .. }
            | Expr::In { key, .. }
            | Expr::NotIn { key, .. }
            | Expr::Contains { key, .. }
            | Expr::StartsWith { key, .. }
            | Expr::EndsWith { key, .. } => {
                keys.insert(key);
            }
            Expr::Not(inner) => inner.gather_keys(keys),
            Expr::And(terms) | Expr::Or(terms) => terms.iter().for_each(|term| term.gather_keys(keys)),
        }
    }

    /// Makes the values of a set: sorted, each once.
    pub(crate) fn set(mut values: Vec<Box<str>>) -> Box<[Box<str>]> {
        values.sort_unstable();
        values.dedup();
        values.into_boxed_slice()
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::All => f.write_str("all()"),
            Expr::Global => f.write_str("global()"),
            Expr::Has(key) => write!(f, "has({key})"),
            Expr::Equals { key, value } => write!(f, "{key} == {}", Quoted(value)),
            Expr::NotEquals { key, value } => write!(f, "{key} != {}", Quoted(value)),
            Expr::In { key, values } => write!(f, "{key} in {}", Set(values)),
            Expr::NotIn { key, values } => write!(f, "{key} not in {}", Set(values)),
            Expr::Contains { key, part } => write!(f, "{key} contains {}", Quoted(part)),
            Expr::StartsWith { key, prefix } => write!(f, "{key} starts with {}", Quoted(prefix)),
            Expr::EndsWith { key, suffix } => write!(f, "{key} ends with {}", Quoted(suffix)),
            Expr::Not(inner) => write!(f, "!{inner}"),
            Expr::And(terms) => joined(f, terms, " && "),
            Expr::Or(terms) => joined(f, terms, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, terms: &[Expr], operator: &str) -> fmt::Result {
    f.write_str("(")?;
    for (i, term) in terms.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        write!(f, "{term}")?;
    }
    f.write_str(")")
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a [Box<str>]);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", Quoted(value))?;
        }
        f.write_str("}")
    }
}
