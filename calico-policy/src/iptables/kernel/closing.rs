//! What becomes of a table that the kernel does not take whole: all but the chains at fault is in force, and those drop everything.

use std::collections::BTreeMap;

use calico_model::Family;

use super::super::program::{Match, Rule, Rules, TableName, Target};
use super::super::words::program_word;
use super::super::{ApplyError, Operation};
use super::{Closed, Iptables, Place, Refused};
use crate::ruleset::{ChainName, SetName};

impl Iptables {
    /// Writes a table's changes of which not all can be taken: as many chains as can be at once, down to single ones. A chain
    /// whose rules are refused drops everything. Until all is done, what is not written yet is as it was.
    pub(super) fn piecemeal(
        &mut self,
        key: (Family, TableName),
        operations: &[Operation],
        mut changed: Vec<ChainName>,
        rules: &mut Rules,
    ) -> Result<Vec<Refused>, ApplyError> {
        let (mut made, mut hooks, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for operation in operations {
            match operation {
                Operation::Make(chain) => made.push(chain.clone()),
                Operation::Hook(..) | Operation::Unhook(..) => hooks.push(operation),
                Operation::Remove(chain) => removed.push(chain.clone()),
                Operation::Empty(chain)
                | Operation::Append(chain, _)
                | Operation::Delete(chain, _)
                | Operation::Insert(chain, _, _) => changed.push(chain.clone()),
            }
        }
        // Until it has its rules, a new chain lets nothing through.
        self.restore(key, &made.iter().flat_map(closing).collect::<Vec<_>>())?;
        changed.extend(made);
        changed.retain(|chain| !removed.contains(chain));
        changed.sort();
        changed.dedup();
        self.admit(key, &changed, rules)?;
        self.restore(key, hooks)?;
        let mut refused = Vec::new();
        let empty: Vec<_> = removed.iter().map(|chain| Operation::Empty(chain.clone())).collect();
        self.restore(key, &empty)?;
        for chain in &removed {
            if let Err(error) = self.restore(key, &[Operation::Remove(chain.clone())]) {
                refused.push(Refused {
                    what: format!("the removal of the chain {chain}"),
                    why: error.to_string(),
                });
            }
        }
        Ok(refused)
    }

    /// Writes chains, all at once if they can be; else the one that is said to be at fault by itself, or each half.
    fn admit(
        &mut self,
        key: (Family, TableName),
        chains: &[ChainName],
        rules: &mut Rules,
    ) -> Result<(), ApplyError> {
        let table = rules.tables.get(&key);
        let operations: Vec<Operation> = chains
            .iter()
            .flat_map(|chain| {
                let of = table.and_then(|table| table.chains.get(chain)).map_or(&[][..], Vec::as_slice);
                let appends = of.iter().map(|rule| Operation::Append(chain.clone(), rule.clone()));
                std::iter::once(Operation::Empty(chain.clone())).chain(appends).collect::<Vec<_>>()
            })
            .collect();
        match (self.restore(key, &operations), chains) {
            (Err(error), [chain]) if error.is_of_the_input() => {
                self.restore(key, &closing(chain))?;
                self.refuse(rules, (key.0, key.1, chain.clone()), error.to_string());
                Ok(())
            }
            (Err(error), chains) if error.is_of_the_input() => {
                let (first, second): (Vec<_>, Vec<_>) = match at_fault(&error, &operations) {
                    Some(bad) => chains.iter().cloned().partition(|chain| chain != bad),
                    None => (chains[..chains.len() / 2].to_vec(), chains[chains.len() / 2..].to_vec()),
                };
                self.admit(key, &first, rules)?;
                self.admit(key, &second, rules)
            }
            (done, _) => done,
        }
    }

    /// Notes that a chain is closed.
    pub(super) fn refuse(&mut self, rules: &mut Rules, place: Place, why: String) {
        let held = rules.tables.get_mut(&(place.0, place.1)).and_then(|table| table.chains.get_mut(&place.2));
        let Some(held) = held else { return };
        let (family, table) = (program_word(place.0), place.1.as_str());
        let refused =
            Refused { what: format!("{family}, table {table}: the chain {} drops everything", place.2), why };
        let rules = std::mem::replace(held, dropping());
        self.closed.insert(place, Closed { rules, refused });
    }
}

/// Has a chain drop everything.
fn closing(chain: &ChainName) -> [Operation; 2] {
    [Operation::Empty(chain.clone()), Operation::Append(chain.clone(), Rule::always(Target::Drop))]
}

/// What a closed chain holds.
pub(super) fn dropping() -> Vec<Rule> {
    vec![Rule::always(Target::Drop)]
}

/// The chains that look at sets which are not as they should be.
pub(super) fn looking_at(rules: &Rules, broken: &BTreeMap<SetName, Refused>) -> BTreeMap<Place, String> {
    let mut found = BTreeMap::new();
    if broken.is_empty() {
        return found;
    }
    for ((family, table), of) in &rules.tables {
        for (chain, rules) in &of.chains {
            let sets = rules.iter().flat_map(|rule| &rule.matches);
            let mut sets =
                sets.filter_map(|m| if let Match::Set(_, set, _) = m { broken.get(set) } else { None });
            if let Some(refused) = sets.next() {
                found.insert((*family, *table, chain.clone()), format!("{}: {}", refused.what, refused.why));
            }
        }
    }
    found
}

/// The chain of the line that a restore program complains of; none when it complains of all of its input.
fn at_fault<'o>(error: &ApplyError, operations: &'o [Operation]) -> Option<&'o ChainName> {
    let ApplyError::Refused { said, .. } = error else { return None };
    let number = |rest: &str| {
        let digits = rest.trim_start_matches([':', ' ']);
        digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<usize>().ok())
    };
    let line = said.split("line").skip(1).find_map(number)?;
    // The first line names the table.
    match operations.get(line.checked_sub(2)?)? {
        Operation::Make(chain)
        | Operation::Empty(chain)
        | Operation::Append(chain, _)
        | Operation::Delete(chain, _)
        | Operation::Insert(chain, _, _)
        | Operation::Remove(chain) => Some(chain),
        Operation::Hook(..) | Operation::Unhook(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_at_fault_is_found_by_the_line_that_either_variant_complains_of() {
        let chain = |word: &str| ChainName::read(word);
        let append = |word: &str| Operation::Append(chain(word), Rule::always(Target::Drop));
        let operations = [
            Operation::Empty(chain("cali-a")),
            append("cali-a"),
            Operation::Empty(chain("cali-b")),
            append("cali-b"),
        ];
        let fault = |said: &str| {
            let error = ApplyError::Refused { program: "x".to_owned(), said: said.to_owned() };
            at_fault(&error, &operations).map(ToString::to_string)
        };
        assert_eq!(
            fault("x v1.8.9 (legacy): Set nope doesn't exist.; Error occurred at line: 5").as_deref(),
            Some("cali-b")
        );
        assert_eq!(
            fault("x v1.8.9 (nf_tables):; line 3: RULE_APPEND failed (Invalid argument)").as_deref(),
            Some("cali-a")
        );
        assert_eq!(fault("iptables-restore: line 6 failed"), None, "the end of the table");
        assert_eq!(fault("something else"), None);
    }
}
