//! Selectors: parse once, match often, print canonically, identify stably.
//!
//! A selector is a sentence about labels, such as `role == "db" && !has(retired)`. [`Selector`] is its checked form:
//! text becomes a tree at the door and is never looked at again. What follows from the tree is
//!
//! - whether a set of labels matches ([`Selector::matches`], which allocates nothing);
//! - one canonical text ([`Display`](fmt::Display)) and, hashed from it, one stable [`id`](Selector::id) that names
//!   the IP set of the selector;
//! - what must be true of single labels for a match to be possible ([`Selector::restrictions`]), for indexes;
//! - the same sentence said about a workload's namespace or service account ([`Selector::for_namespaces`],
//!   [`Selector::for_service_accounts`]), by rewriting the tree.
//!
//! # The language
//!
//! ```text
//! expr  := and ("||" and)*
//! and   := unary ("&&" unary)*
//! unary := "!"* atom
//! atom  := "(" expr ")" | "has(" label ")" | "all()" | "global()" | label test
//! test  := "==" text | "!=" text | "contains" text | "starts with" text | "ends with" text
//!        | "in" set | "not in" set
//! set   := "{" [ text ("," text)* [","] ] "}"
//! ```
//!
//! A label is 1 to [`MAX_KEY`] of `A-Z a-z 0-9 _ . / -`. A text stands in double or single quotes and has no escapes,
//! so it holds anything but its own quote. Space and tab separate; nothing else does. Words are operators only right
//! after a label, so labels may be named `in` or `has`. Empty input is `all()`.
//!
//! A label that is absent fails every test but `!=` and `not in`, which it passes.
//!
//! ```
//! use calico_model::{Labels, Selector};
//!
//! let databases: Selector = "role in {'db', 'cache'} && !has(retired)".parse()?;
//! assert_eq!(databases.to_string(), r#"(role in {"cache", "db"} && !has(retired))"#);
//! assert!(databases.matches(&Labels::from([("role", "db")])));
//! assert!(!databases.matches(&Labels::from([("role", "db"), ("retired", "2024")])));
//! # Ok::<(), calico_model::SelectorError>(())
//! ```

mod ast;
mod error;
mod eval;
mod parse;
#[cfg(test)]
mod properties;
mod restrict;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha224};

pub use ast::Expr;
pub use error::SelectorError;
pub use eval::LabelSource;
pub use parse::{MAX_KEY, MAX_LENGTH, MAX_NESTING};
pub use restrict::{Restriction, Restrictions};
pub use rewrite::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX};

/// A checked selector.
///
/// Cloning is cheap: clones share one tree. Two selectors are equal when their canonical texts are; two that merely
/// mean the same are not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<Expr>);

impl Selector {
    /// Returns `all()`, which every set of labels matches.
    #[must_use]
    pub fn all() -> Self {
        static ALL: LazyLock<Selector> = LazyLock::new(|| Selector::from_expr(Expr::All));
        ALL.clone()
    }

    /// Returns `global()`, which matches like `all()` but, as a namespace selector, means "in no namespace".
    #[must_use]
    pub fn global() -> Self {
        Self::from_expr(Expr::Global)
    }

    /// Makes `key == "value"`.
    ///
    /// # Errors
    ///
    /// When `key` is no label, or `value` holds both kinds of quotes and so cannot be written.
    pub fn equals(key: &str, value: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(Expr::Equals { key: parse::check_key(key)?, value: parse::check_value(value)? }))
    }

    /// Makes `has(key)`.
    ///
    /// # Errors
    ///
    /// When `key` is no label.
    pub fn has(key: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(Expr::Has(parse::check_key(key)?)))
    }

    /// Makes `!has(key)`.
    ///
    /// # Errors
    ///
    /// When `key` is no label.
    pub fn not_has(key: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(Expr::not(Expr::Has(parse::check_key(key)?))))
    }

    /// Makes `key in {…}`. With no values it matches nothing.
    ///
    /// # Errors
    ///
    /// When `key` is no label, or a value holds both kinds of quotes and so cannot be written.
    pub fn in_set<S: AsRef<str>>(
        key: &str,
        values: impl IntoIterator<Item = S>,
    ) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(Expr::In { key: parse::check_key(key)?, values: check_values(values)? }))
    }

    /// Makes `key not in {…}`, which labels without `key` match too.
    ///
    /// # Errors
    ///
    /// When `key` is no label, or a value holds both kinds of quotes and so cannot be written.
    pub fn not_in_set<S: AsRef<str>>(
        key: &str,
        values: impl IntoIterator<Item = S>,
    ) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(Expr::NotIn { key: parse::check_key(key)?, values: check_values(values)? }))
    }

    /// Returns the selector that matches what both match.
    ///
    /// `all()` on either side vanishes and conjunctions join into one, so the order of bracketing leaves no trace.
    /// The result may be one level deeper, and as long as both together: texts at the very limits of [`MAX_NESTING`]
    /// and [`MAX_LENGTH`] are not read back.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if self.is_all() {
            return other.clone();
        }
        if other.is_all() {
            return self.clone();
        }
        let terms = [self, other].into_iter().flat_map(|side| {
            if let Expr::And(terms) = side.expr() { terms } else { std::slice::from_ref(side.expr()) }
        });
        Self::from_expr(Expr::And(terms.cloned().collect()))
    }

    /// Reports whether this is `all()`, which empty text also means.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(*self.0, Expr::All)
    }

    /// Reports whether this is `global()` and nothing else.
    #[must_use]
    pub fn is_global(&self) -> bool {
        matches!(*self.0, Expr::Global)
    }

    /// Reports whether `global()` occurs anywhere in it.
    #[must_use]
    pub fn uses_global(&self) -> bool {
        self.0.any(&|expr| matches!(expr, Expr::Global))
    }

    /// Returns the tree.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.0
    }

    /// Reports whether `labels` match. Allocates nothing.
    #[must_use]
    pub fn matches<L: LabelSource + ?Sized>(&self, labels: &L) -> bool {
        eval::matches(&self.0, labels)
    }

    /// Returns the stable id: `s:` and the unpadded URL-safe base64 of SHA-224 over `s:` and the canonical text.
    ///
    /// It is the same in every Calico, and it is computed anew by each call.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = Sha224::digest(format!("s:{self}"));
        format!("s:{}", BASE64_URL_SAFE_NO_PAD.encode(hash))
    }

    /// Returns the keys of the labels that it looks at: a change of any other changes no match.
    ///
    /// ```
    /// # use calico_model::Selector;
    /// let databases: Selector = "role == 'db' && (!has(retired) || role contains 'new')".parse()?;
    /// assert!(databases.keys().into_iter().eq(["retired", "role"]));
    /// # Ok::<(), calico_model::SelectorError>(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> BTreeSet<&str> {
        let mut keys = BTreeSet::new();
        self.0.gather_keys(&mut keys);
        keys
    }

    /// Returns what each label must be for a match to be possible.
    ///
    /// These are necessary conditions, not sufficient ones: they choose candidates, [`matches`](Self::matches) decides.
    #[must_use]
    pub fn restrictions(&self) -> Restrictions<'_> {
        restrict::restrictions(&self.0)
    }

    /// Returns the same sentence about a workload's namespace: see [`NAMESPACE_PREFIX`].
    ///
    /// Terms look at the labels the workload inherits from its namespace. `all()`, which says "any namespace", becomes
    /// `has(projectcalico.org/namespace)`, and `global()` becomes its negation: host endpoints and global network sets.
    /// The text of a label that the prefix makes longer than [`MAX_KEY`] is not read back.
    ///
    /// ```
    /// # use calico_model::Selector;
    /// let teams: Selector = "team == 'red' || has(shared)".parse()?;
    /// assert_eq!(teams.for_namespaces().to_string(), r#"(pcns.team == "red" || has(pcns.shared))"#);
    /// # Ok::<(), calico_model::SelectorError>(())
    /// ```
    #[must_use]
    pub fn for_namespaces(&self) -> Self {
        Self::from_expr(rewrite::for_namespaces(&self.0))
    }

    /// Returns the same sentence about a workload's service account: see [`SERVICE_ACCOUNT_PREFIX`].
    ///
    /// `all()`, which says "any service account", becomes `has(projectcalico.org/serviceaccount)`.
    #[must_use]
    pub fn for_service_accounts(&self) -> Self {
        Self::from_expr(rewrite::for_service_accounts(&self.0))
    }

    /// Returns the selector with `prefix` before every label. `all()` and `global()` stay.
    ///
    /// # Errors
    ///
    /// When a prefixed label is none: `prefix` holds a character that labels may not, or the label grows too long.
    pub fn prefix_keys(&self, prefix: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_expr(rewrite::prefix_keys(&self.0, prefix)?))
    }

    pub(crate) fn from_expr(expr: Expr) -> Self {
        Self(Arc::new(expr))
    }
}

fn check_values<S: AsRef<str>>(
    values: impl IntoIterator<Item = S>,
) -> Result<Box<[Box<str>]>, SelectorError> {
    let values = values.into_iter().map(|v| parse::check_value(v.as_ref())).collect::<Result<_, _>>()?;
    Ok(Expr::set(values))
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.0)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text).map(Self::from_expr)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
