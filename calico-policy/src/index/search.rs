//! What a selector matches: sets of what carries a label, joined as its expression says.

use calico_model::selector::{Expr, Restriction, Restrictions};
use calico_model::{LabelSource, Selector};

use super::{Ids, Index, ItemId, place};

impl<P> Index<P> {
    /// Returns what a selector matches, whose keys are looked at.
    pub(super) fn find_items(&self, selector: &Selector) -> Ids {
        let candidates = self.candidates(selector);
        self.matching_among(selector.expr(), &candidates)
            .unwrap_or_else(|| candidates.filter(|item| self.is_matched(item, selector)))
    }

    /// Returns everything that a selector may match, whose keys are looked at: the fewest that any of its restrictions leaves.
    pub(super) fn candidates(&self, selector: &Selector) -> Ids {
        let Restrictions::Labels(restrictions) = selector.restrictions() else { return Ids::default() };
        let positive = |restriction: &Restriction<'_>| *restriction != Restriction::Absent;
        let fewest = restrictions
            .iter()
            .filter(|(_, restriction)| positive(restriction))
            .min_by_key(|(key, restriction)| self.having(key, restriction).map(Ids::len).sum::<usize>());
        let Some((key, restriction)) = fewest else {
            return self.items.iter().map(|(id, _)| ItemId(place(id))).collect();
        };
        let mut having = self.having(key, restriction);
        let first = having.next().cloned().unwrap_or_default();
        having.fold(first, |all, more| all.union(more))
    }

    /// Walks what carries or inherits a label that meets a restriction.
    fn having<'i>(&'i self, key: &'i str, restriction: &'i Restriction<'i>) -> impl Iterator<Item = &'i Ids> {
        let known = self.keys.get(key);
        let (named, any): (&[&str], _) = match restriction {
            Restriction::OneOf(values) => (values, None),
            Restriction::Present | Restriction::Absent => (&[], known),
        };
        let of_value = move |value: &&str| known.and_then(|known| known.values.get(*value));
        let any = any.into_iter().flat_map(|known| known.values.values());
        let givers =
            known.into_iter().flat_map(|known| &known.givers).filter_map(|name| self.parents.get(name));
        let givers = givers.filter(move |parent| restriction.allows(parent.labels.get(key)));
        named.iter().filter_map(of_value).chain(any).chain(givers.map(|parent| &parent.children))
    }

    /// Returns which of these an expression matches, whose keys are looked at; `None` for one of a kind that is not known here.
    pub(super) fn matching_among(&self, expr: &Expr, among: &Ids) -> Option<Ids> {
        let one_of = |key, values: &[Box<str>]| {
            self.having_among(
                key,
                Some(values),
                |value| values.binary_search_by(|named| (**named).cmp(value)).is_ok(),
                among,
            )
        };
        let any = |key, is_meant: &dyn Fn(&str) -> bool| self.having_among(key, None, is_meant, among);
        Some(match expr {
            Expr::All | Expr::Global => among.clone(),
            Expr::Has(key) => any(key, &|_| true),
            Expr::Equals { key, value } => one_of(key, std::slice::from_ref(value)),
            Expr::NotEquals { key, value } => among.without(&one_of(key, std::slice::from_ref(value))),
            Expr::In { key, values } => one_of(key, values),
            Expr::NotIn { key, values } => among.without(&one_of(key, values)),
            Expr::Contains { key, part } => any(key, &|value| value.contains(&**part)),
            Expr::StartsWith { key, prefix } => any(key, &|value| value.starts_with(&**prefix)),
            Expr::EndsWith { key, suffix } => any(key, &|value| value.ends_with(&**suffix)),
            Expr::Not(inner) => among.without(&self.matching_among(inner, among)?),
            Expr::And(terms) => {
                terms.iter().try_fold(among.clone(), |left, term| self.matching_among(term, &left))?
            }
            Expr::Or(terms) => terms
                .iter()
                .try_fold(Ids::default(), |all, term| Some(all.union(&self.matching_among(term, among)?)))?,
            _ => return None,
        })
    }

    /// Returns which of these have a label of a key whose value is meant, their own or an inherited one: those values are among
    /// `named`, if there are any.
    fn having_among(
        &self,
        key: &str,
        named: Option<&[Box<str>]>,
        is_meant: impl Fn(&str) -> bool,
        among: &Ids,
    ) -> Ids {
        let Some(known) = self.keys.get(key) else { return Ids::default() };
        let ask = |ids: Ids| ids.filter(|item| self.labels(item).label(key).is_some_and(&is_meant));
        if among.len() < named.map_or(known.values.len(), <[_]>::len) {
            return ask(among.clone());
        }
        let mut having = Ids::default();
        let any = if named.is_none() { Some(&known.values) } else { None };
        let any =
            any.into_iter().flatten().filter(|(value, _)| is_meant(value)).map(|(_, carriers)| carriers);
        let named = named.into_iter().flatten().filter_map(|value| known.values.get(&**value));
        for carriers in named.chain(any) {
            having = having.union(&among.intersection(carriers));
        }
        for parent in known.givers.iter().filter_map(|name| self.parents.get(name)) {
            if parent.labels.get(key).is_some_and(&is_meant) {
                having = having.union(&ask(among.intersection(&parent.children)));
            }
        }
        having
    }
}
