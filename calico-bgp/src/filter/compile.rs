//! From the rules of BGPFilters to those of a [`Program`].

use std::collections::BTreeMap;

use calico_model::resource::filter::{FilterAction, FilterOperation, FilterRule, MatchOperator, RouteSource};
use calico_model::{Cidr, Family};

use super::{Condition, Operation, PrefixMap, Program, Rest, Rule, Rules, Span, is_of};
use crate::family::PerFamily;
use crate::session::Peering;
use crate::speaker::METRIC_BASE;

/// What is true of the session and the node that a program is compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether the peer is in our AS, as seen in this session.
    pub peering: Peering,
    /// The node's interfaces, with the networks they are in; `None` where no packet passes through the node.
    pub interfaces: Option<Vec<(String, Vec<Cidr>)>>,
}

impl Program {
    /// Compiles the rules, of both families.
    pub(super) fn of_rules<'r>(rules: impl Fn(Family) -> Vec<&'r FilterRule>, facts: &Facts) -> Self {
        let mut program = Program { rules: PerFamily::default(), rest: Rest::Nothing, changes: Vec::new() };
        for family in Family::ALL {
            let mut placed: BTreeMap<Cidr, Vec<(u32, Span)>> = BTreeMap::new();
            let mut compiled = Rules::default();
            for rule in rules(family) {
                let Some(conditions) = conditions(rule, family, facts) else { continue };
                let passes = match rule.action {
                    FilterAction::Accept => {
                        let operations = rule.operations.iter().filter_map(operation).collect();
                        Some(program.add_change(operations))
                    }
                    FilterAction::Reject => None,
                };
                let at = compiled.all.len() as u32;
                compiled.all.push(Rule { conditions, passes });
                match place(rule) {
                    Some((network, span)) => placed.entry(network).or_default().push((at, span)),
                    None => compiled.anywhere.push(at),
                }
            }
            compiled.placed = placed.into_iter().collect::<PrefixMap<_>>();
            program.rules[family] = compiled;
        }
        program
    }
}

/// Returns the network that a route must be in for the rule to match.
fn place(rule: &FilterRule) -> Option<(Cidr, Span)> {
    match (rule.cidr?, rule.match_operator?) {
        (network, MatchOperator::Equal) => Some((network, Span::Itself)),
        (network, MatchOperator::In) => Some((network, Span::Inside)),
        (_, MatchOperator::NotEqual | MatchOperator::NotIn) => None,
    }
}

/// Returns what must be true of a route besides its place; `None` when the rule matches no route of this session.
fn conditions(rule: &FilterRule, family: Family, facts: &Facts) -> Option<Vec<Condition>> {
    if rule.peer_type.is_some_and(|wanted| !is_of(facts.peering, wanted)) {
        return None;
    }
    let mut conditions = Vec::new();
    if let (Some(network), Some(operator)) = (rule.cidr, rule.match_operator) {
        // Inside a network nothing is shorter than it, and nothing is longer than an address.
        let lengths = rule.prefix_length.as_ref();
        let min = lengths.and_then(|lengths| lengths.min).unwrap_or(0).max(network.prefix_len());
        let max = lengths.and_then(|lengths| lengths.max).unwrap_or(family.bits()).min(family.bits());
        match operator {
            MatchOperator::Equal | MatchOperator::In if lengths.is_none() => {}
            MatchOperator::Equal | MatchOperator::In => conditions.push(Condition::LengthBetween(min, max)),
            MatchOperator::NotEqual => conditions.push(Condition::Not(network)),
            // What is not in is the whole pattern, network and lengths.
            MatchOperator::NotIn => conditions.push(Condition::NotWithin(network, min, max)),
        }
    }
    if let Some(RouteSource::RemotePeers) = rule.source {
        conditions.push(Condition::ToldByPeer);
    }
    if let Some(pattern) = &rule.interface {
        conditions.push(leaves_by(pattern, rule.action, family, facts));
    }
    for community in rule.communities.iter().flat_map(|wanted| &wanted.values) {
        conditions.push(Condition::Carries(*community));
    }
    if !rule.as_path_prefix.is_empty() {
        conditions.push(Condition::PathBegins(rule.as_path_prefix.clone()));
    }
    if let Some(priority) = rule.priority {
        conditions.push(Condition::LocalPref(METRIC_BASE.saturating_sub(priority)));
    }
    Some(conditions)
}

/// What leaves by an interface whose name is like a pattern. What is in none of the networks leaves by one of the interfaces
/// all the same; where that leaves it open whether it is one that is meant, less passes rather than more.
fn leaves_by(pattern: &str, action: FilterAction, family: Family, facts: &Facts) -> Condition {
    if pattern.chars().all(|c| c == '*') {
        return Condition::ToldByPeer;
    }
    // No packet passes through a stand-alone reflector: nothing leaves by an interface of its own.
    let Some(interfaces) = &facts.interfaces else {
        return Condition::LeavesBy { networks: Vec::new(), beyond: false };
    };
    let mut marks: BTreeMap<Cidr, Vec<bool>> = BTreeMap::new();
    let mut ways = Vec::new();
    for (name, networks) in interfaces {
        let is_meant = is_like(pattern, name);
        if action == FilterAction::Reject || networks.iter().any(|network| network.family() == family) {
            ways.push(is_meant);
        }
        // A next hop may be of the other family (RFC 8950).
        networks.iter().for_each(|network| marks.entry(*network).or_default().push(is_meant));
    }
    let is_agreed = |meant: &[bool]| match action {
        FilterAction::Accept => !meant.is_empty() && meant.iter().all(|meant| *meant),
        FilterAction::Reject => meant.is_empty() || meant.iter().any(|meant| *meant),
    };
    let beyond = is_agreed(&ways);
    // What is marked as the network around it says nothing: an interface that comes is not to make another program of it.
    let mut networks: Vec<(Cidr, bool)> = Vec::new();
    let mut wide_first: Vec<(Cidr, Vec<bool>)> = marks.into_iter().collect();
    wide_first.sort_by_key(|(network, _)| network.prefix_len());
    for (network, marks) in wide_first {
        let around = networks.iter().filter(|(wider, _)| wider.covers(&network));
        let before = around.max_by_key(|(wider, _)| wider.prefix_len()).map_or(beyond, |(_, meant)| *meant);
        let meant = is_agreed(&marks);
        if meant != before {
            networks.push((network, meant));
        }
    }
    Condition::LeavesBy { networks, beyond }
}

fn operation(operation: &FilterOperation) -> Option<Operation> {
    if let Some(add) = &operation.add_community {
        return Some(Operation::AddCommunities(vec![add.value]));
    }
    if let Some(prepend) = &operation.prepend_as_path {
        return Some(Operation::Prepend(prepend.prefix.clone()));
    }
    operation.set_priority.as_ref().map(|set| Operation::SetLocalPref(METRIC_BASE.saturating_sub(set.value)))
}

/// Reports whether a name is like a pattern in which `*` stands for any text.
pub(crate) fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            let mut ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
            ends.any(|at| is_like(tail, &rest[at..]))
        }),
    }
}
