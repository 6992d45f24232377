//! Sentences about namespaces and service accounts, said about the workloads in them.
//!
//! A workload inherits its namespace's and its service account's labels under a prefix, so a selector of namespaces
//! becomes one of workloads by prefixing its labels. Trees are rewritten, never text: a value that reads `all()` is a
//! value.

use super::{Expr, SelectorError, parse};

/// What a namespace's labels are prefixed with where workloads inherit them.
pub const NAMESPACE_PREFIX: &str = "pcns.";

/// What a service account's labels are prefixed with where workloads inherit them.
pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";

const NAMESPACE: &str = "projectcalico.org/namespace";
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

pub(super) fn for_namespaces(expr: &Expr) -> Expr {
    let in_namespace = Expr::Has(NAMESPACE.into());
    let mut key = |key: &str| format!("{NAMESPACE_PREFIX}{key}").into();
    Rewrite { key: &mut key, global: Expr::not(in_namespace.clone()), all: in_namespace }.apply(expr)
}

pub(super) fn for_service_accounts(expr: &Expr) -> Expr {
    let mut key = |key: &str| format!("{SERVICE_ACCOUNT_PREFIX}{key}").into();
    Rewrite { key: &mut key, global: Expr::Global, all: Expr::Has(SERVICE_ACCOUNT.into()) }.apply(expr)
}

pub(super) fn prefix_keys(expr: &Expr, prefix: &str) -> Result<Expr, SelectorError> {
    let mut fault = None;
    let mut key = |key: &str| match parse::check_key(&format!("{prefix}{key}")) {
        Ok(prefixed) => prefixed,
        Err(error) => {
            fault.get_or_insert(error);
            key.into()
        }
    };
    let prefixed = Rewrite { key: &mut key, global: Expr::Global, all: Expr::All }.apply(expr);
    match fault {
        Some(error) => Err(error),
        None => Ok(prefixed),
    }
}

/// What becomes of each label and of the two functions.
struct Rewrite<'a> {
    key: &'a mut dyn FnMut(&str) -> Box<str>,
    all: Expr,
    global: Expr,
}

impl Rewrite<'_> {
    fn apply(&mut self, expr: &Expr) -> Expr {
        match expr {
            Expr::All => self.all.clone(),
            Expr::Global => self.global.clone(),
            Expr::Has(key) => Expr::Has((self.key)(key)),
            Expr::Equals { key, value } => Expr::Equals { key: (self.key)(key), value: value.clone() },
            Expr::NotEquals { key, value } => Expr::NotEquals { key: (self.key)(key), value: value.clone() },
            Expr::In { key, values } => Expr::In { key: (self.key)(key), values: values.clone() },
            Expr::NotIn { key, values } => Expr::NotIn { key: (self.key)(key), values: values.clone() },
            Expr::Contains { key, part } => Expr::Contains { key: (self.key)(key), part: part.clone() },
            Expr::StartsWith { key, prefix } => {
                Expr::StartsWith { key: (self.key)(key), prefix: prefix.clone() }
            }
            Expr::EndsWith { key, suffix } => Expr::EndsWith { key: (self.key)(key), suffix: suffix.clone() },
            Expr::Not(inner) => Expr::not(self.apply(inner)),
            Expr::And(terms) => Expr::And(terms.iter().map(|term| self.apply(term)).collect()),
            Expr::Or(terms) => Expr::Or(terms.iter().map(|term| self.apply(term)).collect()),
        }
    }
}
