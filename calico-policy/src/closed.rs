//! Rules that say more than can be enforced here.

use calico_model::resource::{Action, Rule};

/// What a rule does, once it is clear how much of it can be enforced; `None` when it does nothing.
///
/// A rule with a clause that cannot be looked at (HTTP, services) never lets anything pass: one that allows does nothing, and
/// one that denies, or hands on to where something may be allowed, denies all that the rest of it matches.
pub(crate) fn enforced_action(rule: &Rule) -> Option<Action> {
    if rule.http.is_none() && rule.source.services.is_none() && rule.destination.services.is_none() {
        return Some(rule.action);
    }
    match rule.action {
        Action::Allow | Action::Log => None,
        Action::Deny | Action::Pass => Some(Action::Deny),
    }
}
