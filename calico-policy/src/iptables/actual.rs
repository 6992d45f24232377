//! What the kernel holds, read from `iptables-save` and `ipset save`.
//!
//! Lines about what is not ours are skipped by their first word; nothing in them is understood.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::{Cidr, Family, Protocol};

use super::program::{IpsetKind, Program, Rule, Table, TableName};
use crate::packet::PortProtocol;
use crate::ruleset::{ChainName, Element, Elements, Hook, SetName};
use crate::text::word;

/// How the names of our chains begin.
const OURS: &str = "cali-";
/// How the names of our sets begin, and those of Calico's own agent, whose place ours takes.
const OUR_SETS: [&str; 5] = ["cali-", "cali40", "cali60", "cali4t", "cali6t"];

/// What the kernel holds of ours, in one variant of iptables and in ipset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// The tables that exist.
    pub tables: BTreeMap<(Family, TableName), ActualTable>,
    /// Our sets.
    pub sets: BTreeMap<SetName, ActualSet>,
}

/// What is ours in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualTable {
    /// Our chains, each with its rules as `iptables-save` writes them after the chain's name.
    pub chains: BTreeMap<ChainName, Vec<String>>,
    /// The rules in the kernel's own chains that lead to ours, with their places, counted from 0.
    pub hooks: BTreeMap<Hook, Vec<(usize, String)>>,
}

/// A set of ours in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualSet {
    /// What its elements are; `None` when we never make such sets.
    pub kind: Option<IpsetKind>,
    /// The elements; `None` when one of them is nothing that we write.
    pub elements: Option<Elements>,
}

impl Actual {
    /// Returns what the kernel holds once a program is written, so that the next change can be planned without reading it back.
    /// Somebody else's changes are only seen by [`Iptables::read`](super::Iptables::read).
    #[must_use]
    pub fn holding(program: &Program) -> Self {
        let of_table = |table: &Table| ActualTable {
            chains: table
                .chains
                .iter()
                .map(|(name, rules)| (name.clone(), rules.iter().map(Rule::line).collect()))
                .collect(),
            hooks: table.hooks.iter().map(|(hook, held)| (*hook, vec![(0, held.rule.line())])).collect(),
        };
        let tables = program.rules.tables.iter().map(|(key, table)| (*key, of_table(table)));
        let sets = program.sets.iter().map(|(name, set)| {
            (name.clone(), ActualSet { kind: Some(set.kind), elements: Some(set.elements.clone()) })
        });
        Self { tables: tables.collect(), sets: sets.collect() }
    }

    /// Takes in what `iptables-save` or `ip6tables-save` printed.
    pub fn read_rules(&mut self, family: Family, saved: &str) {
        let mut table = None;
        let mut places: BTreeMap<Hook, usize> = BTreeMap::new();
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                let named = TableName::ALL.into_iter().find(|table| table.as_str() == name);
                table = match named {
                    Some(name) => Some(self.tables.entry((family, name)).or_default()),
                    None => None,
                };
                places.clear();
                continue;
            }
            let Some(table) = &mut table else { continue };
            if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
                if chain.starts_with(OURS) {
                    table.chains.entry(ChainName::read(chain)).or_default();
                }
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' '))
            {
                if chain.starts_with(OURS) {
                    table.chains.entry(ChainName::read(chain)).or_default().push(rule.to_owned());
                } else if let Some(hook) = hook(chain) {
                    let place = places.entry(hook).or_default();
                    if leads_to_ours(rule) {
                        table.hooks.entry(hook).or_default().push((*place, rule.to_owned()));
                    }
                    *place += 1;
                }
            }
        }
    }

    /// Takes in what `ipset save` printed.
    pub fn read_sets(&mut self, saved: &str) {
        for line in saved.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(verb), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if !OUR_SETS.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            if verb == "create" {
                let kind = kind(rest);
                let elements = kind.map(|_| Elements::new());
                self.sets.insert(SetName::read(name), ActualSet { kind, elements });
            } else if verb == "add"
                && let Some(set) = self.sets.get_mut(&SetName::read(name))
                && let Some(elements) = &mut set.elements
            {
                match set.kind.and_then(|kind| element(kind, rest)) {
                    Some(element) => drop(elements.insert(element)),
                    None => set.elements = None,
                }
            }
        }
    }

    /// Reports whether nothing of ours is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.has_no_rules()
    }

    /// Reports whether packets that go through the node meet our rules.
    #[must_use]
    pub fn guards(&self) -> bool {
        let filter = self.tables.get(&(Family::V4, TableName::Filter));
        filter.is_some_and(|table| table.hooks.contains_key(&Hook::Forward))
    }

    /// Reports whether no rule and no chain of ours is there.
    #[must_use]
    pub fn has_no_rules(&self) -> bool {
        self.tables.values().all(|table| table.chains.is_empty() && table.hooks.is_empty())
    }
}

fn hook(chain: &str) -> Option<Hook> {
    match chain {
        "PREROUTING" => Some(Hook::Prerouting),
        "INPUT" => Some(Hook::Input),
        "FORWARD" => Some(Hook::Forward),
        "OUTPUT" => Some(Hook::Output),
        "POSTROUTING" => Some(Hook::Postrouting),
        _ => None,
    }
}

/// A rule ends with the chain it leads to; whatever its comment says stands before that.
fn leads_to_ours(rule: &str) -> bool {
    let mut words = rule.rsplit(' ');
    let chain = words.next().is_some_and(|word| word.starts_with(OURS));
    chain && matches!(words.next(), Some("-j" | "-g"))
}

fn kind(words: &str) -> Option<IpsetKind> {
    let of = |family| {
        IpsetKind::all_of(family).into_iter().find(|kind| {
            let rest = words.strip_prefix(&kind.words());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    };
    Family::ALL.into_iter().find_map(of)
}

fn element(kind: IpsetKind, words: &str) -> Option<Element> {
    let word = words.split(' ').next()?;
    // What follows (a comment, `nomatch`, a timeout) is nothing that we write.
    if word.len() != words.len() {
        return None;
    }
    match kind {
        IpsetKind::Networks(_) => network(word).map(Element::Network),
        IpsetKind::Sockets(_) => {
            let (addr, port) = word.split_once(',')?;
            let (protocol, port) = protocol_and_port(port)?;
            Some(Element::Socket(addr.parse().ok()?, protocol, port))
        }
        IpsetKind::Flows(_) => {
            let (net, port) = word.split_once(',')?;
            let (protocol, port) = protocol_and_port(port)?;
            Some(Element::Flow(network(net)?, protocol, port, port))
        }
        IpsetKind::Interfaces(_) => {
            let (net, interface) = word.split_once(',')?;
            let net = network(net).filter(Cidr::is_host)?;
            Some(Element::interface_address(interface.parse().ok()?, net.addr()))
        }
    }
}

fn protocol_and_port(words: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = words.split_once(':')?;
    let mut known = PortProtocol::ALL.map(PortProtocol::protocol).into_iter();
    let protocol = known.find(|known| word(*known) == protocol)?;
    Some((protocol, port.parse().ok()?))
}

fn network(word: &str) -> Option<Cidr> {
    match word.split_once('/') {
        Some((addr, length)) => Cidr::holding(addr.parse::<IpAddr>().ok()?, length.parse().ok()?),
        None => word.parse().ok().map(Cidr::host),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pe80_only_what_is_ours_is_read() {
        let mut actual = Actual::default();
        actual.read_rules(
            Family::V4,
            "# Generated\n*security\n:cali-x - [0:0]\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n:cali-FORWARD - [0:0]\n:KUBE - [0:0]\n\
             -A FORWARD -j KUBE\n-A FORWARD -m comment --comment \"x -j cali-no y\" -j DROP\n-A FORWARD -m comment --comment \"cali:1\" -j cali-FORWARD\n\
             -A KUBE -j cali-FORWARD\n-A cali-FORWARD -j DROP\nCOMMIT\n",
        );
        let table = &actual.tables[&(Family::V4, TableName::Filter)];
        assert_eq!(actual.tables.len(), 1);
        assert_eq!(table.chains.len(), 1);
        assert_eq!(table.chains.values().next().unwrap(), &["-j DROP"]);
        let forward = &table.hooks[&Hook::Forward];
        assert_eq!(forward.last().unwrap().0, 2);
    }

    #[test]
    fn sets_are_read_as_they_are_written() {
        let mut actual = Actual::default();
        actual.read_sets(
            "create KUBE-X hash:ip,port family inet hashsize 1024 maxelem 65536\nadd KUBE-X 1.2.3.4,tcp:80\n\
             create cali-a hash:net family inet hashsize 1024 maxelem 1048576 bucketsize 12 initval 0x1\nadd cali-a 10.0.0.1\nadd cali-a 10.0.0.0/8\n\
             create cali-b hash:ip,port family inet6 hashsize 1024 maxelem 65536\nadd cali-b fd00::1,sctp:80\n\
             create cali-c hash:net,iface family inet hashsize 1024 maxelem 65536\nadd cali-c 10.0.0.1,cali1\n\
             create cali-f hash:net,port family inet hashsize 1024 maxelem 65536\nadd cali-f 10.0.0.0/8,udp:53\nadd cali-f 10.0.0.1,tcp:80\n\
             create cali-d hash:mac hashsize 1024 maxelem 65536\nadd cali-d 01:02:03:04:05:06\n\
             create cali-e hash:net family inet hashsize 1024 maxelem 1048576\nadd cali-e 10.0.0.1 nomatch\n",
        );
        let words: Vec<_> = actual
            .sets
            .iter()
            .map(|(name, set)| (name.as_str(), set.kind, set.elements.as_ref().map(BTreeSet::len)))
            .collect();
        assert_eq!(
            words,
            [
                ("cali-a", Some(IpsetKind::Networks(Family::V4)), Some(2)),
                ("cali-b", Some(IpsetKind::Sockets(Family::V6)), Some(1)),
                ("cali-c", Some(IpsetKind::Interfaces(Family::V4)), Some(1)),
                ("cali-d", None, None),
                ("cali-e", Some(IpsetKind::Networks(Family::V4)), None),
                ("cali-f", Some(IpsetKind::Flows(Family::V4)), Some(2)),
            ]
        );
    }
}
