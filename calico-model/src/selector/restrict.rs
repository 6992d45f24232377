//! What a selector demands of single labels: the raw material of indexes.

use std::collections::BTreeMap;

use super::Expr;

/// Necessary conditions for a selector to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restrictions<'a> {
    /// No labels can match, as with `a in {}` or `has(a) && !has(a)`.
    Impossible,
    /// Labels that match meet every restriction, by label. None at all means that nothing can be ruled out.
    Labels(BTreeMap<&'a str, Restriction<'a>>),
}

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restriction<'a> {
    /// The label must be present.
    Present,
    /// The label must be absent.
    Absent,
    /// The label must be present with one of these values: sorted, and at least one.
    OneOf(Vec<&'a str>),
}

impl Restriction<'_> {
    /// Reports whether a label, `None` when absent, meets this restriction.
    #[must_use]
    pub fn allows(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Restriction::Present, value) => value.is_some(),
            (Restriction::Absent, value) => value.is_none(),
            (Restriction::OneOf(values), Some(value)) => values.binary_search(&value).is_ok(),
            (Restriction::OneOf(_), None) => false,
        }
    }
}

pub(super) fn restrictions(expr: &Expr) -> Restrictions<'_> {
    derive(expr, Polarity::Asserted)
}

#[derive(Clone, Copy)]
enum Polarity {
    Asserted,
    Negated,
}

impl Polarity {
    fn flip(self) -> Self {
        match self {
            Polarity::Asserted => Polarity::Negated,
            Polarity::Negated => Polarity::Asserted,
        }
    }
}

/// Negation is pushed to the terms on the way down: `!(a || b)` demands what `!a && !b` does.
fn derive(expr: &Expr, polarity: Polarity) -> Restrictions<'_> {
    use Polarity::{Asserted, Negated};

    match (expr, polarity) {
        (Expr::All | Expr::Global, Asserted) => Restrictions::Labels(BTreeMap::new()),
        (Expr::All | Expr::Global, Negated) => Restrictions::Impossible,
        (Expr::Has(key), Negated) => single(key, Restriction::Absent),
        (Expr::Equals { key, value }, Asserted) | (Expr::NotEquals { key, value }, Negated) => {
            single(key, Restriction::OneOf(vec![value]))
        }
        (Expr::In { key, values }, Asserted) | (Expr::NotIn { key, values }, Negated) => {
            if values.is_empty() {
                return Restrictions::Impossible;
            }
            single(key, Restriction::OneOf(values.iter().map(AsRef::as_ref).collect()))
        }
        (
            Expr::Has(key)
            | Expr::Contains { key, .. }
            | Expr::StartsWith { key, .. }
            | Expr::EndsWith { key, .. },
            Asserted,
        ) => single(key, Restriction::Present),
        // The label may be absent or have nearly any value.
        (Expr::NotEquals { .. } | Expr::NotIn { .. }, Asserted)
        | (
            Expr::Equals { .. }
            | Expr::In { .. }
            | Expr::Contains { .. }
            | Expr::StartsWith { .. }
            | Expr::EndsWith { .. },
            Negated,
        ) => Restrictions::Labels(BTreeMap::new()),
        (Expr::Not(inner), _) => derive(inner, polarity.flip()),
        (Expr::And(terms), Asserted) | (Expr::Or(terms), Negated) => all_of(terms, polarity),
        (Expr::And(terms), Negated) | (Expr::Or(terms), Asserted) => any_of(terms, polarity),
    }
}

fn single<'a>(key: &'a str, restriction: Restriction<'a>) -> Restrictions<'a> {
    Restrictions::Labels(BTreeMap::from([(key, restriction)]))
}

fn all_of(terms: &[Expr], polarity: Polarity) -> Restrictions<'_> {
    let mut all = BTreeMap::new();
    for term in terms {
        let Restrictions::Labels(labels) = derive(term, polarity) else {
            return Restrictions::Impossible;
        };
        for (key, new) in labels {
            let Some(old) = all.remove(key) else {
                all.insert(key, new);
                continue;
            };
            let Some(met) = both(old, new) else {
                return Restrictions::Impossible;
            };
            all.insert(key, met);
        }
    }
    Restrictions::Labels(all)
}

/// What meets both restrictions, if anything can.
fn both<'a>(a: Restriction<'a>, b: Restriction<'a>) -> Option<Restriction<'a>> {
    use Restriction::{Absent, OneOf, Present};

    match (a, b) {
        (Present, Present) => Some(Present),
        (Absent, Absent) => Some(Absent),
        (Absent, Present | OneOf(_)) | (Present | OneOf(_), Absent) => None,
        (Present, OneOf(values)) | (OneOf(values), Present) => Some(OneOf(values)),
        (OneOf(mut values), OneOf(others)) => {
            values.retain(|value| others.binary_search(value).is_ok());
            if values.is_empty() { None } else { Some(OneOf(values)) }
        }
    }
}

/// Only what every possible branch restricts is restricted. Branches are gathered per label before values are merged,
/// so that a thousand alternatives cost one sort.
fn any_of(terms: &[Expr], polarity: Polarity) -> Restrictions<'_> {
    let mut possible = 0;
    let mut branches: BTreeMap<&str, Vec<Restriction<'_>>> = BTreeMap::new();
    for term in terms {
        if let Restrictions::Labels(labels) = derive(term, polarity) {
            possible += 1;
            for (key, restriction) in labels {
                branches.entry(key).or_default().push(restriction);
            }
        }
    }
    if possible == 0 {
        return Restrictions::Impossible;
    }
    let restricted = branches.into_iter().filter(|(_, all)| all.len() == possible);
    Restrictions::Labels(restricted.filter_map(|(key, all)| Some((key, either(all)?))).collect())
}

/// What meets one restriction or another, unless that is anything.
fn either(all: Vec<Restriction<'_>>) -> Option<Restriction<'_>> {
    let mut absent = false;
    let mut present = false;
    let mut values = Vec::new();
    for restriction in all {
        match restriction {
            Restriction::Absent => absent = true,
            Restriction::Present => present = true,
            Restriction::OneOf(more) => values.extend(more),
        }
    }
    match (absent, present || !values.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Restriction::Absent),
        (false, _) if present => Some(Restriction::Present),
        (false, _) => {
            values.sort_unstable();
            values.dedup();
            Some(Restriction::OneOf(values))
        }
    }
}
