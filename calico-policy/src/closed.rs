//! Rules that say more than can be enforced here.

use calico_model::resource::{Action, Rule};

/// What else looks at packets, behind these rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enforcers {
    /// A proxy before each workload asks the HTTP clause of rules. A rule with one that allows then lets through what the rest
    /// of it matches, and the proxy decides. Without such a proxy nothing does, so the rule allows nothing.
    pub http: bool,
}

impl Enforcers {
    /// Reports whether a rule has an HTTP clause that nobody asks.
    pub(crate) fn leave_http(self, rule: &Rule) -> bool {
        rule.http.is_some() && !(self.http && rule.action == Action::Allow)
    }
}

/// What a rule does, once it is clear how much of it can be enforced; `None` when it does nothing.
///
/// A rule with an HTTP clause that nobody asks never lets anything pass: one that allows does nothing, and one that denies, or
/// hands on to where something may be allowed, denies all that the rest of it matches.
pub(crate) fn enforced_action(rule: &Rule, enforcers: Enforcers) -> Option<Action> {
    if !enforcers.leave_http(rule) {
        return Some(rule.action);
    }
    match rule.action {
        Action::Allow | Action::Log => None,
        Action::Deny | Action::Pass => Some(Action::Deny),
    }
}
