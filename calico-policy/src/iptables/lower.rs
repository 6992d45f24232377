//! From a ruleset to a program of iptables.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::{Family, InterfaceName, Protocol};

use super::Options;
use super::condition::Condition;
use super::lowered::Lowered;
use super::program::{
    CHAIN_NAME, Ipset, Match, Program, Rule, Rules, Target, elements_of, fitted, ipset_name,
};
use super::tree::InterfaceTree;
use crate::ruleset::{self, Action, ChainName, Element, End, Op, Ruleset, Set, SetName};

/// Returns what iptables and ipset should hold so that they decide as a ruleset does.
#[must_use]
pub fn lower(ruleset: &Ruleset, options: &Options) -> Program {
    let rules = Lowered::of(ruleset, options).rules;
    Program { sets: lower_sets(&rules, ruleset), rules }
}

/// Returns the sets that rules look at.
pub(super) fn lower_sets(rules: &Rules, ruleset: &Ruleset) -> BTreeMap<SetName, Ipset> {
    let sets =
        rules.sets.iter().filter_map(|(name, of)| Some((name.clone(), Ipset::of(ruleset.sets.get(of)?)?)));
    sets.collect()
}

/// What a chain of the ruleset, or a hook, becomes in a table of a family.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The chains, and those that have to be beside them; what several pieces make under one name is the same.
    pub(super) chains: BTreeMap<ChainName, Vec<Rule>>,
    /// The ipsets that rules look at, and the names that the ruleset gives them.
    pub(super) sets: BTreeMap<SetName, SetName>,
    /// The chains of the ruleset that it leads to, if they are there.
    pub(super) leads: BTreeSet<ChainName>,
    /// The sets and maps of the ruleset that were asked.
    pub(super) looks: BTreeSet<SetName>,
}

/// The lowering of one piece.
pub(super) struct Lowering<'l> {
    ruleset: &'l Ruleset,
    pub(super) options: &'l Options,
    pub(super) family: Family,
    pub(super) piece: Piece,
}

impl<'l> Lowering<'l> {
    pub(super) fn new(ruleset: &'l Ruleset, options: &'l Options, family: Family) -> Self {
        Self { ruleset, options, family, piece: Piece::default() }
    }

    /// Makes the chain of one of the ruleset's.
    pub(super) fn of_chain(mut self, name: &ChainName, chain: &ruleset::Chain) -> Piece {
        let name = fitted_chain(name.as_str());
        let of: Vec<ruleset::Rule> = chain.rules.iter().flat_map(|rule| self.apart(rule)).collect();
        let rules = self.chain(&name, &of);
        self.put_chain(&name, rules);
        self.piece
    }

    /// Returns a set of the ruleset.
    pub(super) fn set(&mut self, name: &SetName) -> Option<&'l Set> {
        self.piece.looks.insert(name.clone());
        self.ruleset.sets.get(name)
    }

    /// Returns what is in a map of the ruleset.
    fn entries(&mut self, map: &SetName) -> impl Iterator<Item = (&'l Element, &'l ChainName)> + use<'l> {
        self.piece.looks.insert(map.clone());
        self.ruleset.maps.get(map).map(|map| &map.elements).into_iter().flatten()
    }

    /// Has a chain of the ruleset made, and returns its name.
    pub(super) fn lead_to(&mut self, chain: &ChainName) -> ChainName {
        self.piece.leads.insert(chain.clone());
        fitted_chain(chain.as_str())
    }

    pub(super) fn put_chain(&mut self, name: &ChainName, rules: Vec<Rule>) {
        self.piece.chains.insert(name.clone(), rules);
    }

    /// Notes that rules look at a set, and returns its name.
    pub(super) fn use_set(&mut self, set: &SetName) -> SetName {
        let name = ipset_name(set);
        self.piece.sets.insert(name.clone(), set.clone());
        name
    }

    /// Names a chain by what it stands for.
    pub(super) fn name_of_digest<'p>(
        &self,
        words: &str,
        parts: impl IntoIterator<Item = &'p str>,
    ) -> ChainName {
        fitted_chain(ChainName::digest(words, parts).as_str())
    }

    /// Returns the rules by which one is said that looks at a set of flows: itself for what an ipset holds, and one for each flow of
    /// so many ports that it holds it not.
    fn apart(&mut self, rule: &ruleset::Rule) -> Vec<ruleset::Rule> {
        let flows = |m: &ruleset::Match| {
            if let ruleset::Match::FlowInSet(end, _, set) = m { Some((*end, set.clone())) } else { None }
        };
        let Some((end, set)) = rule.matches.iter().find_map(flows) else { return vec![rule.clone()] };
        let elements = self.set(&set).map(|set| &set.elements).into_iter().flatten();
        let (wide, held): (Vec<&Element>, Vec<&Element>) =
            elements.partition(|element| elements_of(element).is_empty());
        let of_element = |element: &Element| {
            let Element::Flow(net, protocol, first, last) = element else { return None };
            let mut matches: Vec<_> = rule.matches.iter().filter(|m| flows(m).is_none()).cloned().collect();
            matches.extend([
                ruleset::Match::Protocol(Op::Is, *protocol),
                ruleset::Match::Network(end, Op::Is, *net),
                ruleset::Match::Port(End::Destination, Op::Is, ruleset::PortSet::Range(*first, *last)),
            ]);
            Some(ruleset::Rule { matches, action: rule.action.clone() })
        };
        let itself = (!held.is_empty()).then(|| rule.clone());
        itself.into_iter().chain(wide.into_iter().filter_map(of_element)).collect()
    }

    fn chain(&mut self, name: &ChainName, rules: &[ruleset::Rule]) -> Vec<Rule> {
        let mut lowered = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            let always = rule.matches.is_empty();
            for condition in self.conditions(&rule.matches) {
                self.rule(name, condition, &rule.action, &rules[place + 1..], &mut lowered);
            }
            if always && matches!(rule.action, Action::Dispatch(..)) {
                // What follows is where the lookup leads that finds nothing.
                break;
            }
        }
        lowered
    }

    fn rule(
        &mut self,
        owner: &ChainName,
        condition: Condition,
        action: &Action,
        rest: &[ruleset::Rule],
        lowered: &mut Vec<Rule>,
    ) {
        let marks = self.options.marks;
        let matches = self.held(condition, lowered);
        let target = match action {
            Action::Accept => {
                let set = marks.stage | marks.hook;
                self.put_chain(&accept(), vec![Rule::always(Target::Mark { set, clear: 0 })]);
                Target::Goto(accept())
            }
            Action::Drop => Target::Drop,
            Action::Reject => Target::Reject(self.family),
            Action::Return => Target::Return,
            Action::Jump(chain) => match self.known(chain) {
                Some(chain) => Target::Jump(chain),
                None => Target::Drop,
            },
            Action::Goto(chain) => self.known(chain).map_or(Target::Drop, Target::Goto),
            Action::Dispatch(bound, map) => {
                let missed = self.rest(owner, rest);
                let identity = format!("{map} {bound} {}", lines(&missed));
                let leaves = self.led(map);
                let tree = InterfaceTree { words: words_of(map), identity, bound: *bound, leaves, missed };
                Target::Goto(self.interface_tree(&tree))
            }
            Action::DispatchPort(end, map) => Target::Jump(self.dispatch_port(*end, map)),
            Action::Log { prefix } => Target::Log(prefix.clone()),
            Action::Notrack => Target::Notrack,
            Action::MarkAccepted => Target::Mark { set: marks.early, clear: 0 },
            Action::ClearMark => Target::Mark { set: 0, clear: marks.early },
            Action::SourceNat(new) => Target::SourceNat(*new),
        };
        let called = matches!(target, Target::Jump(_));
        lowered.push(Rule { matches, target });
        if called {
            lowered.push(self.accepted());
        }
    }

    /// What leaves a chain that was called and has accepted.
    fn accepted(&self) -> Rule {
        Rule::when([Match::Mark(self.options.marks.stage)], Target::Return)
    }

    fn known(&mut self, chain: &ChainName) -> Option<ChainName> {
        let name = self.lead_to(chain);
        self.ruleset.chains.contains_key(chain).then_some(name)
    }

    /// The chains of a map's interfaces.
    fn led(&mut self, map: &SetName) -> Vec<(InterfaceName, Target)> {
        let mut led = Vec::new();
        for (key, chain) in self.entries(map) {
            if let Element::Interface(name) = key {
                led.push((name.clone(), self.known(chain).map_or(Target::Drop, Target::Goto)));
            }
        }
        led
    }

    /// Returns the rules that are asked when a lookup finds nothing: a chain of their own when they are many.
    fn rest(&mut self, owner: &ChainName, rest: &[ruleset::Rule]) -> Vec<Rule> {
        const FEW: usize = 2;
        let name = self.name_of_digest("rest", [owner.as_str(), &rest.len().to_string()]);
        let rules = self.chain(&name, rest);
        if rules.len() <= FEW {
            return rules;
        }
        self.put_chain(&name, rules);
        vec![Rule::always(Target::Goto(name))]
    }

    /// Makes the chain that leads from a packet's protocol and port to the chains of a map.
    fn dispatch_port(&mut self, end: End, map: &SetName) -> ChainName {
        let mut of: BTreeMap<Protocol, Vec<(u16, u16, ChainName)>> = BTreeMap::new();
        for (key, chain) in self.entries(map) {
            let Element::ProtocolPort(protocol, port) = key else { continue };
            if !protocol.has_ports() {
                continue;
            }
            let chain = self.known(chain).unwrap_or_else(|| self.closed());
            let ports = of.entry(*protocol).or_default();
            match ports.last_mut() {
                Some((_, last, same)) if *same == chain && u32::from(*last) + 1 == u32::from(*port) => {
                    *last = *port
                }
                _ => ports.push((*port, *port, chain)),
            }
        }
        let mut rules = Vec::new();
        for (protocol, ports) in of {
            let tree = Target::Goto(self.port_tree(end, protocol, &ports));
            rules.push(Rule::when([Match::Protocol(Op::Is, protocol)], tree));
        }
        let root = self.name_of_digest(&words_of(map), [map.as_str()]);
        self.put_chain(&root, rules);
        root
    }

    fn closed(&mut self) -> ChainName {
        let name = ChainName::fixed("closed");
        self.put_chain(&name, vec![Rule::always(Target::Drop)]);
        name
    }

    /// Returns the matches of one rule that hold when a condition does. What one rule cannot hold is asked before, by a chain
    /// that marks the packet.
    fn held(&mut self, condition: Condition, lowered: &mut Vec<Rule>) -> Vec<Match> {
        let Condition { matches, more, interfaces } = condition;
        if more.is_empty() && interfaces.is_empty() {
            return matches;
        }
        let holds = self.options.marks.holds;
        self.put_chain(&hold(), vec![Rule::always(Target::Mark { set: holds, clear: 0 })]);
        let mut then = Target::Goto(hold());
        for (bound, op, set) in interfaces.into_iter().rev() {
            let names = self.set(&set).map(|set| &set.elements).into_iter().flatten();
            let names = names
                .filter_map(|e| if let Element::Interface(name) = e { Some(name.clone()) } else { None });
            let names: Vec<InterfaceName> = names.collect();
            let identity = format!("{set} {bound} {op:?} {then}");
            let (found, missed) = match op {
                Op::Is => (then, Vec::new()),
                Op::IsNot => (Target::Return, vec![Rule::always(then)]),
            };
            let leaves = names.into_iter().map(|name| (name, found.clone())).collect();
            let tree = InterfaceTree { words: words_of(&set), identity, bound, leaves, missed };
            then = Target::Goto(self.interface_tree(&tree));
        }
        let mut rules: Vec<Rule> =
            more.into_iter().map(|m| Rule::when([m.negated()], Target::Return)).collect();
        rules.push(Rule::always(then));
        let texts: Vec<String> = rules.iter().map(Rule::line).collect();
        let name = self.name_of_digest("if", texts.iter().map(String::as_str));
        self.put_chain(&name, rules);
        lowered.push(Rule::always(Target::Mark { set: 0, clear: holds }));
        lowered.push(Rule::when(matches, Target::Jump(name)));
        vec![Match::Mark(holds)]
    }
}

/// Reports whether some of these chains mark packets.
pub(super) fn marks_packets(chains: &BTreeMap<ChainName, Vec<Rule>>) -> bool {
    chains.contains_key(&accept()) || chains.contains_key(&hold())
}

fn accept() -> ChainName {
    ChainName::fixed("accept-stage")
}

fn hold() -> ChainName {
    ChainName::fixed("hold")
}

fn lines(rules: &[Rule]) -> String {
    rules.iter().map(Rule::line).collect::<Vec<_>>().join("; ")
}

fn fitted_chain(name: &str) -> ChainName {
    ChainName::read(&fitted(name, CHAIN_NAME))
}

/// The words of a set's name, for the chains of its tree.
fn words_of(set: &SetName) -> String {
    let words = set.as_str().trim_start_matches("cali-");
    words.split('-').take_while(|word| word.len() < 12).take(2).collect::<Vec<_>>().join("-")
}
