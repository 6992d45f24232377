//! The chains that run the ruleset's stages at the kernel's hooks.

use calico_model::resource::felix::AllowAction;

use super::lower::{Lowering, Piece};
use super::program::{Match, Rule, TableName, Target};
use super::words::hook_word;
use crate::ruleset::{Base, Bound, ChainKind, ChainName, Hook, Op};

/// The table in which a base chain's stage is run, and the hooks at which it is: no table of iptables filters between the
/// translation of destinations and the choice of a route.
pub(super) fn places_of(base: Base) -> (TableName, Vec<Hook>) {
    const RAW: i32 = -200;
    const MANGLE: i32 = -100;
    let table = match (base.kind, base.hook) {
        (ChainKind::Nat, _) => TableName::Nat,
        (ChainKind::Filter, Hook::Prerouting | Hook::Output) if base.priority < RAW => TableName::Raw,
        (ChainKind::Filter, Hook::Prerouting | Hook::Output) if base.priority < MANGLE => TableName::Mangle,
        (ChainKind::Filter, Hook::Prerouting) => {
            return (TableName::Filter, vec![Hook::Input, Hook::Forward]);
        }
        (ChainKind::Filter, Hook::Postrouting) => TableName::Mangle,
        (ChainKind::Filter, Hook::Input | Hook::Forward | Hook::Output) => TableName::Filter,
    };
    (table, vec![base.hook])
}

impl Lowering<'_> {
    /// Makes the chain that runs a hook's stages, one after the other. Without `marking`, nothing in the table marks packets.
    pub(super) fn of_hook(
        mut self,
        (table, hook): (TableName, Hook),
        stages: &[ChainName],
        marking: bool,
    ) -> Piece {
        let marks = self.options.marks;
        let name = hook_chain(hook);
        let mut rules = vec![Rule::always(Target::Mark { set: 0, clear: marks.of_hook() })];
        for (place, stage) in stages.iter().enumerate() {
            if place > 0 {
                rules.push(Rule::always(Target::Mark { set: 0, clear: marks.stage }));
            }
            let target = self.lead_to(stage);
            rules.push(Rule::always(Target::Jump(target)));
        }
        if !marking {
            rules.retain(|rule| !matches!(rule.target, Target::Mark { .. }));
            self.put_chain(&name, rules);
            return self.piece;
        }
        let allow = match table {
            TableName::Filter => self.options.filter_allow,
            // What leaves is others' to see, too.
            TableName::Mangle if hook == Hook::Postrouting => AllowAction::Return,
            TableName::Mangle => self.options.mangle_allow,
            TableName::Raw | TableName::Nat => AllowAction::Return,
        };
        let end = Target::Mark { set: 0, clear: marks.of_hook() };
        if allow == AllowAction::Accept {
            if hook == Hook::Input && !self.options.to_host_by_others.is_empty() {
                let left = self.options.to_host_by_others.iter().map(|prefix| {
                    Rule::when([Match::Prefix(Bound::In, Op::Is, prefix.clone())], Target::Goto(unmark()))
                });
                rules.extend(left);
                self.put_chain(&unmark(), vec![Rule::always(end.clone())]);
            }
            let accepted = ChainName::fixed("accepted");
            rules.push(Rule::when([Match::Mark(marks.hook)], Target::Goto(accepted.clone())));
            self.put_chain(&accepted, vec![Rule::always(end.clone()), Rule::always(Target::Accept)]);
        }
        rules.push(Rule::always(end));
        self.put_chain(&name, rules);
        self.piece
    }
}

/// The chain of one of the kernel's own.
pub(super) fn hook_chain(hook: Hook) -> ChainName {
    ChainName::read(&format!("cali-{}", hook_word(hook)))
}

fn unmark() -> ChainName {
    ChainName::fixed("unmark")
}
