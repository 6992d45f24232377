//! Which routes a BGP peer may tell or be told.

use crate::asn::{AsNumber, Community};
use crate::net::{Cidr, Family};
use crate::wire::{Limit, Rules, wire_enum, wire_struct};

use super::MAX_ROUTE_PRIORITY;

wire_enum! {
    /// How a route's network is compared with a rule's.
    pub enum MatchOperator {
        /// It is the same.
        Equal = "Equal",
        /// It is another.
        NotEqual = "NotEqual",
        /// It is the same or inside.
        In = "In",
        /// It is neither the same nor inside.
        NotIn = "NotIn",
    }
}

wire_enum! {
    /// Where a route comes from.
    pub enum RouteSource {
        /// A BGP peer told it.
        RemotePeers = "RemotePeers",
    }
}

wire_enum! {
    /// What kind of peer a session is with.
    pub enum PeerType {
        /// A peer of another AS.
        External = "eBGP",
        /// A peer of the same AS.
        Internal = "iBGP",
    }
}

wire_enum! {
    /// What a filter rule does with a route that it matches.
    pub enum FilterAction {
        /// The route passes; no later rule is asked.
        Accept = "Accept",
        /// The route is left out; no later rule is asked.
        Reject = "Reject",
    }
}

wire_struct! {
    /// A `BGPFilter`: four lists of rules, each asked in order; a route that no rule decides goes on to what comes after.
    pub struct BgpFilter {
        /// Rules for IPv4 routes told to the peer.
        export_v4: Vec<FilterRule> = "exportV4" empty,
        /// Rules for IPv4 routes that the peer tells.
        import_v4: Vec<FilterRule> = "importV4" empty,
        /// Rules for IPv6 routes told to the peer.
        export_v6: Vec<FilterRule> = "exportV6" empty,
        /// Rules for IPv6 routes that the peer tells.
        import_v6: Vec<FilterRule> = "importV6" empty,
    }
    check = check_filter;
}

wire_struct! {
    /// A rule of a filter. Every field that is set must match; a rule without any matches every route.
    pub struct FilterRule {
        /// The network that the route's is compared with.
        cidr: Option<Cidr> = "cidr" omitempty,
        /// How it is compared.
        match_operator: Option<MatchOperator> = "matchOperator" omitempty,
        /// The lengths that the route's prefix may have.
        prefix_length: Option<PrefixLength> = "prefixLength" optional,
        /// Where the route comes from.
        source: Option<RouteSource> = "source" omitempty,
        /// The interface the route goes out of; `*` stands for any text.
        interface: Option<String> = "interface" omitempty [Limit::Chars(1, 15, "_.-*")],
        /// What kind of peer the session is with.
        peer_type: Option<PeerType> = "peerType" omitempty,
        /// A community that the route carries.
        communities: Option<CommunityMatch> = "communities" optional,
        /// How the route's AS path begins.
        as_path_prefix: Vec<AsNumber> = "asPathPrefix" empty,
        /// The route's priority: `2147483647 - LOCAL_PREF`.
        priority: Option<u32> = "priority" optional [Limit::Range(1, MAX_ROUTE_PRIORITY)],
        /// What is done with a route that matches.
        action: FilterAction = "action" required,
        /// How an accepted route is changed, in order.
        operations: Vec<FilterOperation> = "operations" empty [Limit::Items(1, 10)],
    }
    check = check_rule;
}

wire_struct! {
    /// A range of prefix lengths, both ends included.
    pub struct PrefixLength {
        /// The shortest.
        min: Option<u8> = "min" optional,
        /// The longest.
        max: Option<u8> = "max" optional,
    }
}

wire_struct! {
    /// Communities that a route must carry.
    pub struct CommunityMatch {
        /// Exactly one.
        values: Vec<Community> = "values" required [Limit::Items(1, 1)],
    }
}

wire_struct! {
    /// A change of a route: exactly one field is set.
    pub struct FilterOperation {
        /// A community is added.
        add_community: Option<AddCommunity> = "addCommunity" optional,
        /// AS numbers are put before the path; the first of them ends up first.
        prepend_as_path: Option<PrependAsPath> = "prependASPath" optional,
        /// The priority becomes this.
        set_priority: Option<SetPriority> = "setPriority" optional,
    }
    check = check_operation;
}

wire_struct! {
    /// A community to add.
    pub struct AddCommunity {
        /// The community.
        value: Community = "value" required,
    }
}

wire_struct! {
    /// AS numbers to put before a path.
    pub struct PrependAsPath {
        /// The numbers.
        prefix: Vec<AsNumber> = "prefix" required [Limit::Items(1, 10)],
    }
}

wire_struct! {
    /// A priority to set.
    pub struct SetPriority {
        /// The priority.
        value: u32 = "value" required [Limit::Range(1, MAX_ROUTE_PRIORITY)],
    }
}

impl FilterRule {
    /// Makes a rule that matches every route.
    #[must_use]
    pub fn new(action: FilterAction) -> Self {
        Self {
            cidr: None,
            match_operator: None,
            prefix_length: None,
            source: None,
            interface: None,
            peer_type: None,
            communities: None,
            as_path_prefix: Vec::new(),
            priority: None,
            action,
            operations: Vec::new(),
        }
    }
}

fn check_filter(filter: &mut BgpFilter, mut rules: Rules<'_, '_, '_>) {
    for (key, list, family) in [
        ("exportV4", &filter.export_v4, Family::V4),
        ("importV4", &filter.import_v4, Family::V4),
        ("exportV6", &filter.export_v6, Family::V6),
        ("importV6", &filter.import_v6, Family::V6),
    ] {
        for (i, rule) in list.iter().enumerate() {
            if rule.cidr.is_some_and(|cidr| cidr.family() != family) {
                rules.wrong(&format!("{key}[{i}].cidr"), format!("must be an {family} network"));
            }
            let Some(lengths) = &rule.prefix_length else { continue };
            for (end, length) in [("min", lengths.min), ("max", lengths.max)] {
                if length.is_some_and(|length| length > family.bits()) {
                    let rule = format!("must be from 0 to {}", family.bits());
                    rules.wrong(&format!("{key}[{i}].prefixLength.{end}"), rule);
                }
            }
        }
    }
}

fn check_rule(rule: &mut FilterRule, mut rules: Rules<'_, '_, '_>) {
    if rule.cidr.is_some() != rule.match_operator.is_some() {
        rules.broken("matchOperator", &[], "must be given together with cidr");
    }
    if rule.prefix_length.is_some() && rule.cidr.is_none() {
        rules.broken("cidr", &[], "is required when prefixLength is given");
    }
    if !rule.operations.is_empty() && rule.action != FilterAction::Accept {
        rules.broken("operations", &["action"], "must be absent unless action is Accept");
    }
}

fn check_operation(operation: &mut FilterOperation, mut rules: Rules<'_, '_, '_>) {
    let given = [
        operation.add_community.is_some(),
        operation.prepend_as_path.is_some(),
        operation.set_priority.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        rules.broken("", &[], "must have exactly one of addCommunity, prependASPath and setPriority");
    }
}
