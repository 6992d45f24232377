//! From a ruleset to a program of iptables.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::resource::felix::AllowAction;
use calico_model::{Family, InterfaceName, Protocol};

use super::condition::Condition;
use super::program::{
    CHAIN_NAME, HookRule, IPSET_NAME, Ipset, Match, Program, Rule, Rules, Table, TableName, Target,
    elements_of, fitted,
};
use super::tree::InterfaceTree;
use super::words::hook_word;
use super::{Insertion, Options};
use crate::ruleset::{
    self, Action, Base, Bound, ChainKind, ChainName, Element, End, Hook, Op, Ruleset, SetName,
};

/// Returns what iptables and ipset should hold so that they decide as a ruleset does.
#[must_use]
pub fn lower(ruleset: &Ruleset, options: &Options) -> Program {
    let rules = lower_rules(ruleset, options);
    let sets =
        rules.sets.iter().filter_map(|(name, of)| Some((name.clone(), Ipset::of(ruleset.sets.get(of)?)?)));
    Program { sets: sets.collect(), rules }
}

/// The same without what is in the sets.
pub(super) fn lower_rules(ruleset: &Ruleset, options: &Options) -> Rules {
    let mut stages: BTreeMap<(TableName, Hook), Vec<(i32, &ChainName)>> = BTreeMap::new();
    for (name, chain) in &ruleset.chains {
        if let Some(base) = chain.base {
            stages.entry((table_of(base), base.hook)).or_default().push((base.priority, name));
        }
    }
    stages.values_mut().for_each(|of_hook| of_hook.sort());
    let mut rules = Rules::default();
    for family in Family::ALL {
        for table in TableName::ALL {
            let mut lowering = Lowering {
                ruleset,
                options,
                family,
                table: Table::default(),
                sets: &mut rules.sets,
                due: Vec::new(),
                named: BTreeSet::new(),
            };
            for ((_, hook), of_hook) in stages.iter().filter(|((of, _), _)| *of == table) {
                lowering.hook(table, *hook, of_hook);
            }
            let table_of_family = lowering.table;
            if !table_of_family.hooks.is_empty() {
                rules.tables.insert((family, table), table_of_family);
            }
        }
    }
    rules
}

/// Returns the rules by which one is said that looks at a set of flows: itself for what an ipset holds, and one for each flow of
/// so many ports that it holds it not.
fn apart(rule: &ruleset::Rule, ruleset: &Ruleset) -> Vec<ruleset::Rule> {
    let flows = |m: &ruleset::Match| {
        if let ruleset::Match::FlowInSet(end, _, set) = m { Some((*end, set.clone())) } else { None }
    };
    let Some((end, set)) = rule.matches.iter().find_map(flows) else { return vec![rule.clone()] };
    let elements = ruleset.sets.get(&set).map(|set| &set.elements).into_iter().flatten();
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

/// The table in which a base chain's stage is run.
fn table_of(base: Base) -> TableName {
    const RAW: i32 = -200;
    const MANGLE: i32 = -100;
    match (base.kind, base.hook) {
        (ChainKind::Nat, _) => TableName::Nat,
        (ChainKind::Filter, Hook::Prerouting | Hook::Output) if base.priority < RAW => TableName::Raw,
        (ChainKind::Filter, Hook::Prerouting | Hook::Postrouting) => TableName::Mangle,
        (ChainKind::Filter, Hook::Output) if base.priority < MANGLE => TableName::Mangle,
        (ChainKind::Filter, Hook::Input | Hook::Forward | Hook::Output) => TableName::Filter,
    }
}

/// The lowering of what one table of one family holds.
pub(super) struct Lowering<'l> {
    pub(super) ruleset: &'l Ruleset,
    pub(super) options: &'l Options,
    pub(super) family: Family,
    table: Table,
    sets: &'l mut BTreeMap<SetName, SetName>,
    /// Chains that something leads to and that are not made yet, by the ruleset's name.
    due: Vec<ChainName>,
    named: BTreeSet<ChainName>,
}

impl Lowering<'_> {
    /// Makes the chain that runs a hook's stages, one after the other, and the rule that leads there.
    fn hook(&mut self, table: TableName, hook: Hook, stages: &[(i32, &ChainName)]) {
        let marks = self.options.marks;
        let mut rules = vec![Rule::always(Target::Mark { set: 0, clear: marks.of_hook() })];
        for (place, (_, stage)) in stages.iter().enumerate() {
            if place > 0 {
                rules.push(Rule::always(Target::Mark { set: 0, clear: marks.stage }));
            }
            let target = self.lead_to(stage);
            rules.push(Rule::always(Target::Jump(target)));
        }
        while let Some(chain) = self.due.pop() {
            let ruleset = self.ruleset;
            let of = ruleset.chains.get(&chain).map_or(&[][..], |chain| &chain.rules);
            let name = fitted_chain(chain.as_str());
            let of: Vec<ruleset::Rule> = of.iter().flat_map(|rule| apart(rule, ruleset)).collect();
            let rules = self.chain(&name, &of);
            self.put_chain(&name, rules);
        }
        let allow = match table {
            TableName::Filter => self.options.filter_allow,
            TableName::Mangle => self.options.mangle_allow,
            TableName::Raw | TableName::Nat => AllowAction::Return,
        };
        let marked = |chain: &ChainName| self.table.chains.contains_key(chain);
        if marked(&accept()) || marked(&hold()) {
            let end = Target::Mark { set: 0, clear: marks.of_hook() };
            if allow == AllowAction::Accept {
                if hook == Hook::Input {
                    let left = self.options.to_host_by_others.iter().map(|prefix| {
                        Rule::when([Match::Prefix(Bound::In, Op::Is, prefix.clone())], Target::Goto(unmark()))
                    });
                    let left: Vec<Rule> = left.collect();
                    if !left.is_empty() {
                        self.put_chain(&unmark(), vec![Rule::always(end.clone())]);
                    }
                    rules.extend(left);
                }
                let accepted = ChainName::fixed("accepted");
                rules.push(Rule::when([Match::Mark(marks.hook)], Target::Goto(accepted.clone())));
                self.put_chain(&accepted, vec![Rule::always(end.clone()), Rule::always(Target::Accept)]);
            }
            rules.push(Rule::always(end));
        } else {
            // Nothing is marked in this table.
            rules.retain(|rule| !matches!(rule.target, Target::Mark { .. }));
        }
        let name = ChainName::read(&format!("cali-{}", hook_word(hook)));
        self.put_chain(&name, rules);
        // The translation for Services is to come first.
        let place = if table == TableName::Nat { Insertion::Last } else { self.options.insertion };
        self.table.hooks.insert(hook, HookRule { place, rule: Rule::always(Target::Jump(name)) });
    }

    /// Has a chain of the ruleset made, and returns its name.
    fn lead_to(&mut self, chain: &ChainName) -> ChainName {
        if self.named.insert(chain.clone()) {
            self.due.push(chain.clone());
        }
        fitted_chain(chain.as_str())
    }

    pub(super) fn put_chain(&mut self, name: &ChainName, rules: Vec<Rule>) {
        self.table.chains.insert(name.clone(), rules);
    }

    /// Notes that rules look at a set, and returns its name.
    pub(super) fn use_set(&mut self, set: &SetName) -> SetName {
        let name = SetName::read(&fitted(set.as_str(), IPSET_NAME));
        self.sets.entry(name.clone()).or_insert_with(|| set.clone());
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
        self.ruleset.chains.contains_key(chain).then(|| self.lead_to(chain))
    }

    /// The chains of a map's interfaces.
    fn led(&mut self, map: &SetName) -> Vec<(InterfaceName, Target)> {
        let ruleset = self.ruleset;
        let elements = ruleset.maps.get(map).map(|map| &map.elements);
        let mut led = Vec::new();
        for (key, chain) in elements.into_iter().flatten() {
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
        let ruleset = self.ruleset;
        let elements = ruleset.maps.get(map).map(|map| &map.elements);
        let mut of: BTreeMap<Protocol, Vec<(u16, u16, ChainName)>> = BTreeMap::new();
        for (key, chain) in elements.into_iter().flatten() {
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
            let ruleset = self.ruleset;
            let elements = ruleset.sets.get(&set).map(|set| &set.elements);
            let names = elements.into_iter().flatten();
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

fn accept() -> ChainName {
    ChainName::fixed("accept-stage")
}

fn hold() -> ChainName {
    ChainName::fixed("hold")
}

fn unmark() -> ChainName {
    ChainName::fixed("unmark")
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
