//! Trees against labels.

use super::Expr;
use crate::Labels;

/// Something that has labels.
///
/// Implement it on whatever holds an endpoint, so that inherited labels are looked up where they are instead of being
/// merged into a map first. A slice is already such a chain: the first that has the label wins, as an endpoint's own
/// labels come before those of its profiles, and those in the order of its profiles.
pub trait LabelSource {
    /// Returns the value of `key`, when the label is present.
    fn label(&self, key: &str) -> Option<&str>;
}

impl LabelSource for Labels {
    #[inline]
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl<T: LabelSource + ?Sized> LabelSource for &T {
    #[inline]
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl<T: LabelSource> LabelSource for [T] {
    #[inline]
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|source| source.label(key))
    }
}

/// Up to this many values a set is searched in order: comparing lengths first beats halving.
const LINEAR: usize = 8;

pub(super) fn matches<L: LabelSource + ?Sized>(expr: &Expr, labels: &L) -> bool {
    match expr {
        Expr::All | Expr::Global => true,
        Expr::Has(key) => labels.label(key).is_some(),
        Expr::Equals { key, value } => labels.label(key).is_some_and(|v| v == &**value),
        Expr::NotEquals { key, value } => labels.label(key).is_none_or(|v| v != &**value),
        Expr::In { key, values } => labels.label(key).is_some_and(|v| holds(values, v)),
        Expr::NotIn { key, values } => labels.label(key).is_none_or(|v| !holds(values, v)),
        Expr::Contains { key, part } => labels.label(key).is_some_and(|v| v.contains(&**part)),
        Expr::StartsWith { key, prefix } => labels.label(key).is_some_and(|v| v.starts_with(&**prefix)),
        Expr::EndsWith { key, suffix } => labels.label(key).is_some_and(|v| v.ends_with(&**suffix)),
        Expr::Not(inner) => !matches(inner, labels),
        Expr::And(terms) => terms.iter().all(|term| matches(term, labels)),
        Expr::Or(terms) => terms.iter().any(|term| matches(term, labels)),
    }
}

fn holds(sorted: &[Box<str>], value: &str) -> bool {
    if sorted.len() <= LINEAR {
        sorted.iter().any(|v| &**v == value)
    } else {
        sorted.binary_search_by(|v| (**v).cmp(value)).is_ok()
    }
}
