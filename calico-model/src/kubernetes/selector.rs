//! Kubernetes label selectors as Calico's.

use std::collections::BTreeMap;

use crate::selector::{Selector, SelectorError};
use crate::wire::{Rules, wire_enum, wire_struct};

wire_struct! {
    /// A Kubernetes label selector: all of its terms must hold.
    pub(super) struct LabelSelector {
        /// Labels and the values they must have.
        match_labels: BTreeMap<String, String> = "matchLabels" empty,
        /// Further terms.
        match_expressions: Vec<Requirement> = "matchExpressions" empty,
    }
}

wire_struct! {
    /// A term of a label selector.
    pub(super) struct Requirement {
        /// The label.
        key: String = "key" required,
        /// What is asked of it.
        operator: Operator = "operator" required,
        /// The values it is compared with.
        values: Vec<String> = "values" empty,
    }
    check = check;
}

wire_enum! {
    /// What a term asks of a label.
    pub(super) enum Operator {
        /// The label has one of the values.
        In = "In",
        /// The label is absent or has none of the values.
        NotIn = "NotIn",
        /// The label is present.
        Exists = "Exists",
        /// The label is absent.
        DoesNotExist = "DoesNotExist",
    }
}

fn check(term: &mut Requirement, mut rules: Rules<'_, '_, '_>) {
    let compares = matches!(term.operator, Operator::In | Operator::NotIn);
    let rule = match (compares, term.values.is_empty()) {
        (true, true) => "are required",
        (false, false) => "must be absent",
        (true, false) | (false, true) => return,
    };
    rules.broken("values", &["operator"], format!("{rule} when operator is {}", term.operator));
}

impl LabelSelector {
    /// Returns all terms joined, keys sorted; `all()` when there is none.
    pub(super) fn terms(&self) -> Result<Selector, SelectorError> {
        let mut joined = Selector::all();
        for (key, value) in &self.match_labels {
            joined = joined.and(&Selector::equals(key, value)?);
        }
        let mut expressions: Vec<&Requirement> = self.match_expressions.iter().collect();
        expressions.sort_by(|a, b| a.key.cmp(&b.key));
        for term in expressions {
            joined = joined.and(&match term.operator {
                Operator::In => Selector::in_set(&term.key, &term.values)?,
                Operator::NotIn => Selector::not_in_set(&term.key, &term.values)?,
                Operator::Exists => Selector::has(&term.key)?,
                Operator::DoesNotExist => Selector::not_has(&term.key)?,
            });
        }
        Ok(joined)
    }

    /// Returns the selector of pods: the terms, and that the workload is a pod at all.
    pub(super) fn pods(&self) -> Result<Selector, SelectorError> {
        Ok(Selector::equals(super::ORCHESTRATOR_LABEL, "k8s")?.and(&self.terms()?))
    }
}
