//! Lookups as trees of chains: from an interface by what its name begins with, from a port by ranges.

use calico_model::{InterfaceName, Protocol};

use super::lower::Lowering;
use super::program::{Match, Rule, Target};
use crate::ruleset::{Bound, ChainName, End, Op};

/// A chain of a tree has at most about so many rules.
const WIDTH: usize = 16;

impl Lowering<'_> {
    /// Makes a tree that does what its leaves say of an interface, and what `missed` says with any other, and returns its root.
    ///
    /// The root is gone to in such a way that whatever ends or returns in the tree returns where the root would.
    pub(super) fn interface_tree(&mut self, tree: &InterfaceTree) -> ChainName {
        self.interface_branch(tree, &tree.leaves, 0)
    }

    /// Makes the chain for interfaces whose names all begin with the same `shared` letters.
    fn interface_branch(
        &mut self,
        tree: &InterfaceTree,
        leaves: &[(InterfaceName, Target)],
        shared: usize,
    ) -> ChainName {
        let leaf = |(name, target): &(InterfaceName, Target)| {
            Rule::when([Match::Interface(tree.bound, Op::Is, name.clone())], target.clone())
        };
        let mut rules = Vec::new();
        if leaves.len() <= WIDTH {
            rules.extend(leaves.iter().map(leaf));
        } else {
            // Names are sorted, so that those with the same next letter stand together; one that has none is a leaf.
            let next = |name: &InterfaceName| name.as_str().as_bytes().get(shared).copied();
            for branch in leaves.chunk_by(|(a, _), (b, _)| next(a) == next(b) && next(a).is_some()) {
                let letters = shared_letters(branch);
                match branch[0].0.as_str()[..letters].parse::<InterfaceName>() {
                    Ok(prefix) if branch.len() > 1 => {
                        let chain = self.interface_branch(tree, branch, letters);
                        rules.push(Rule::when(
                            [Match::Prefix(tree.bound, Op::Is, prefix)],
                            Target::Goto(chain),
                        ));
                    }
                    Ok(_) | Err(_) => rules.extend(branch.iter().map(leaf)),
                }
            }
        }
        rules.extend(tree.missed.iter().cloned());
        // The name says which part of which tree it is, so that a new interface changes one chain.
        let part = leaves.first().map_or("", |(name, _)| &name.as_str()[..shared]);
        let name = self.name_of_digest(&tree.words, [tree.identity.as_str(), part]);
        self.put_chain(&name, rules);
        name
    }

    /// Makes a tree that leads from a protocol's ports to chains, and returns its root.
    pub(super) fn port_tree(
        &mut self,
        end: End,
        protocol: Protocol,
        ports: &[(u16, u16, ChainName)],
    ) -> ChainName {
        let to = |first, last, chain: ChainName| {
            let port = Match::Port(end, Op::Is, first, last);
            Rule::when([Match::Protocol(Op::Is, protocol), port], Target::Goto(chain))
        };
        let rules: Vec<Rule> = if ports.len() <= WIDTH {
            ports.iter().map(|(first, last, chain)| to(*first, *last, chain.clone())).collect()
        } else {
            let each = ports.len().div_ceil(WIDTH).max(2);
            let branches = ports.chunks(each).map(|branch| {
                let chain = self.port_tree(end, protocol, branch);
                to(branch[0].0, branch[branch.len() - 1].1, chain)
            });
            branches.collect()
        };
        let texts: Vec<String> = rules.iter().map(Rule::line).collect();
        let name = self.name_of_digest("ports", texts.iter().map(String::as_str));
        self.put_chain(&name, rules);
        name
    }
}

/// What is looked up in a tree of interfaces.
pub(super) struct InterfaceTree {
    /// What the names of its chains begin with.
    pub(super) words: String,
    /// What tells it from other trees.
    pub(super) identity: String,
    /// Which interface of a packet is looked up.
    pub(super) bound: Bound,
    /// What is done with each interface, in the order of their names.
    pub(super) leaves: Vec<(InterfaceName, Target)>,
    /// What is done with any other.
    pub(super) missed: Vec<Rule>,
}

/// How many letters all names of a branch begin with.
fn shared_letters(branch: &[(InterfaceName, Target)]) -> usize {
    let (Some((first, _)), Some((last, _))) = (branch.first(), branch.last()) else { return 0 };
    first.as_str().bytes().zip(last.as_str().bytes()).take_while(|(a, b)| a == b).count()
}
