//! The way to the kernel: the programs of iptables and ipset, with their input on stdin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::Duration;

use calico_model::Family;

use super::actual::Actual;
use super::command::{LOCK_SECONDS, run};
use super::lower::lower_rules;
use super::plan::{Spelling, plan_change, plan_spelt};
use super::program::{Match, Program, Rule, Rules, TableName, Target};
use super::transaction::restore_input;
use super::words::program_word;
use super::{ApplyError, Operation, Options, SetOperation, Transaction, Variant, lower};
use crate::delta::Delta;
use crate::ruleset::{ChainName, Ruleset, SetName};

/// A way to one variant of the kernel's iptables, and to ipset. Programs run in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Iptables {
    variant: Variant,
    spelling: Spelling,
    /// What the kernel holds, when that is known.
    held: Option<Rules>,
    /// Chains that drop everything because the kernel refused what they should hold.
    closed: BTreeMap<Place, Closed>,
}

type Place = (Family, TableName, ChainName);

#[derive(Debug)]
struct Closed {
    /// What it should hold.
    rules: Vec<Rule>,
    refused: Refused,
}

/// What was written, and what could not be.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Written {
    /// What was to be written; nothing when all was as it should be.
    pub transaction: Transaction,
    /// What the kernel refuses; each is closed as far as it would let packets through.
    pub refused: Vec<Refused>,
}

/// Something that the kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The chain or the change of a set.
    pub what: String,
    /// What was said.
    pub why: String,
}

/// So many elements may be refused before the whole input is.
const MOST_REFUSED: usize = 64;
/// How often a set that was in use until now is destroyed: the kernel lets go of rules a little after they are gone.
const ATTEMPTS: u32 = 12;

impl Iptables {
    /// Makes a way to a variant.
    #[must_use]
    pub fn new(variant: Variant) -> Self {
        Self { variant, spelling: Spelling::default(), held: None, closed: BTreeMap::new() }
    }

    /// Returns the variant.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Reads what is ours, and nothing else.
    ///
    /// # Errors
    /// When a program is missing, not permitted or does not end.
    pub fn read(&self) -> Result<Actual, ApplyError> {
        let mut actual = Actual::default();
        for family in families() {
            // Without the name of a table it prints those that are there, and makes none.
            let saved = run(&format!("{}-{}-save", program_word(family), self.variant), &[], "")?;
            actual.read_rules(family, &saved);
        }
        actual.read_sets(&run("ipset", &["save"], "")?);
        Ok(actual)
    }

    /// Returns what is closed because the kernel refused it.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.closed.values().map(|closed| closed.refused.clone()).collect()
    }

    /// Forgets what the kernel holds: the next change reads it first.
    pub fn forget(&mut self) {
        self.held = None;
    }

    /// Reads what is there and makes it what a ruleset asks for.
    ///
    /// # Errors
    /// When a program is missing, not permitted, does not end or does not get the lock, or when even a chain that only drops is
    /// refused. A bad rule or element is none: it is in [`Written::refused`], and the rest is in force.
    pub fn sync(&mut self, ruleset: &Ruleset, options: &Options) -> Result<Written, ApplyError> {
        self.sync_program(lower(ruleset, options))
    }

    /// As [`sync`](Self::sync), of a program.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_program(&mut self, mut program: Program) -> Result<Written, ApplyError> {
        self.held = None;
        // What was refused is tried once more.
        self.closed.clear();
        let transaction = self.missing(&program)?;
        if transaction.is_empty() {
            self.held = Some(program.rules);
            return Ok(Written::default());
        }
        let refused = self.write(&transaction, &mut program.rules)?;
        let actual = self.read()?;
        self.spelling.learn(&program, &actual);
        if plan_spelt(&program, &actual, &self.spelling).is_empty() {
            self.held = Some(program.rules);
        }
        Ok(self.written(transaction, refused))
    }

    /// Returns what is missing of a program, or too much.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn missing(&self, program: &Program) -> Result<Transaction, ApplyError> {
        let mut program = program.clone();
        self.close(&mut program.rules);
        Ok(plan_spelt(&program, &self.read()?, &self.spelling))
    }

    /// Writes what changed in a ruleset, without reading what is there; when that is not known, as [`sync`](Self::sync).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn change(
        &mut self,
        delta: &Delta,
        ruleset: &Ruleset,
        options: &Options,
    ) -> Result<Written, ApplyError> {
        let Some(held) = self.held.take() else { return self.sync(ruleset, options) };
        let mut wanted = lower_rules(ruleset, options);
        self.close(&mut wanted);
        let transaction = plan_change(&wanted, &held, delta, ruleset);
        let refused = self.write(&transaction, &mut wanted)?;
        self.held = Some(wanted);
        Ok(self.written(transaction, refused))
    }

    /// Removes everything of ours; sets only when no rule of the other variant can look at them.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn remove(&mut self, sets: super::Leftover) -> Result<Written, ApplyError> {
        self.held = None;
        self.closed.clear();
        let mut transaction = plan_spelt(&Program::default(), &self.read()?, &self.spelling);
        if sets == super::Leftover::Rules {
            transaction.after.clear();
        }
        let refused = self.write(&transaction, &mut Rules::default())?;
        Ok(self.written(transaction, refused))
    }

    fn written(&self, transaction: Transaction, mut refused: Vec<Refused>) -> Written {
        refused.extend(self.refused());
        Written { transaction, refused }
    }

    /// Closes the chains of which the kernel refused what they are to hold still.
    fn close(&self, rules: &mut Rules) {
        for ((family, table, chain), closed) in &self.closed {
            let held = rules.tables.get_mut(&(*family, *table)).and_then(|table| table.chains.get_mut(chain));
            if let Some(held) = held.filter(|held| **held == closed.rules) {
                *held = dropping();
            }
        }
    }

    /// Writes a transaction. What the kernel refuses of it is closed, in `rules` too.
    fn write(&mut self, transaction: &Transaction, rules: &mut Rules) -> Result<Vec<Refused>, ApplyError> {
        let wanted = |place: &Place, closed: &Closed| {
            let chains = rules.tables.get(&(place.0, place.1)).map(|table| &table.chains);
            // A chain that is still closed, or wanted as it was refused.
            chains
                .and_then(|chains| chains.get(&place.2))
                .is_some_and(|held| *held == dropping() || *held == closed.rules)
        };
        self.closed.retain(|place, closed| wanted(place, closed));
        let broken = restore_sets(&transaction.before)?;
        let mut refused: Vec<Refused> = broken.values().cloned().collect();
        let suspects = looking_at(rules, &broken);
        for ((family, table, chain), why) in &suspects {
            self.refuse(rules, (*family, *table, chain.clone()), why.clone());
        }
        let mut keys: BTreeSet<(Family, TableName)> = transaction.tables.keys().copied().collect();
        keys.extend(suspects.keys().map(|(family, table, _)| (*family, *table)));
        for key in keys {
            let operations = transaction.tables.get(&key).map_or(&[][..], Vec::as_slice);
            let of_table = suspects.keys().filter(|(family, table, _)| (*family, *table) == key);
            let closed: Vec<ChainName> = of_table.map(|(_, _, chain)| chain.clone()).collect();
            if closed.is_empty() {
                match self.restore(key, operations) {
                    Err(error) if error.is_of_the_input() => {}
                    done => {
                        done?;
                        continue;
                    }
                }
            }
            refused.extend(self.piecemeal(key, operations, closed, rules)?);
        }
        refused.extend(destroy_patiently(&transaction.after)?);
        Ok(refused)
    }

    fn restore<'o>(
        &self,
        (family, table): (Family, TableName),
        operations: impl IntoIterator<Item = &'o Operation>,
    ) -> Result<(), ApplyError> {
        let mut operations = operations.into_iter().peekable();
        if operations.peek().is_none() {
            return Ok(());
        }
        let program = format!("{}-{}-restore", program_word(family), self.variant);
        let seconds = LOCK_SECONDS.to_string();
        run(&program, &["--noflush", "-w", &seconds], &restore_input(table, operations)).map(drop)
    }

    /// Writes a table's changes of which not all can be taken: as many chains as can be at once, down to single ones. A chain
    /// whose rules are refused drops everything. Until all is done, what is not written yet is as it was.
    fn piecemeal(
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
        let closed = |chain: &ChainName| {
            [Operation::Empty(chain.clone()), Operation::Append(chain.clone(), Rule::always(Target::Drop))]
        };
        self.restore(key, &made.iter().flat_map(closed).collect::<Vec<_>>())?;
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
                let closed = [
                    Operation::Empty(chain.clone()),
                    Operation::Append(chain.clone(), Rule::always(Target::Drop)),
                ];
                self.restore(key, &closed)?;
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
    fn refuse(&mut self, rules: &mut Rules, place: Place, why: String) {
        let held = rules.tables.get_mut(&(place.0, place.1)).and_then(|table| table.chains.get_mut(&place.2));
        let Some(held) = held else { return };
        let (family, table) = (program_word(place.0), place.1.as_str());
        let refused =
            Refused { what: format!("{family}, table {table}: the chain {} drops everything", place.2), why };
        let rules = std::mem::replace(held, dropping());
        self.closed.insert(place, Closed { rules, refused });
    }
}

/// The families that this kernel has.
fn families() -> Vec<Family> {
    let has = |family: &Family| *family == Family::V4 || Path::new("/proc/sys/net/ipv6").exists();
    Family::ALL.into_iter().filter(has).collect()
}

fn dropping() -> Vec<Rule> {
    vec![Rule::always(Target::Drop)]
}

/// The chains that look at sets which are not as they should be.
fn looking_at(rules: &Rules, broken: &BTreeMap<SetName, Refused>) -> BTreeMap<Place, String> {
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

/// Changes sets; returns those of which something was refused.
fn restore_sets(operations: &[SetOperation]) -> Result<BTreeMap<SetName, Refused>, ApplyError> {
    let mut broken = BTreeMap::new();
    let mut left: Vec<&SetOperation> = operations.iter().collect();
    while !left.is_empty() {
        let text: String =
            left.iter().flat_map(|operation| [operation.to_string(), "\n".to_owned()]).collect();
        let Err(error) = run("ipset", &["-exist", "restore"], &text) else { break };
        // Everything before the line may or may not have been taken, and is said again.
        let (Some(line), ApplyError::Refused { said, .. }) = (line(&error), &error) else {
            return Err(error);
        };
        if line == 0 || line > left.len() || broken.len() > MOST_REFUSED {
            return Err(error);
        }
        let operation = left.remove(line - 1);
        let refused = Refused { what: format!("ipset: `{operation}`"), why: said.clone() };
        let name = operation.set().clone();
        if matches!(operation, SetOperation::Create(..)) {
            left.retain(|other| *other.set() != name);
        }
        // A set that cannot be swapped is as it was.
        broken.insert(operation.swapped().unwrap_or(&name).clone(), refused);
    }
    Ok(broken)
}

/// Removes elements and sets that no rule looks for any more.
fn destroy_patiently(operations: &[SetOperation]) -> Result<Vec<Refused>, ApplyError> {
    let mut left: Vec<SetOperation> = operations.to_vec();
    let mut refused = BTreeMap::new();
    for attempt in 1..=ATTEMPTS {
        refused = restore_sets(&left)?;
        left.retain(
            |operation| matches!(operation, SetOperation::Destroy(name) if refused.contains_key(name)),
        );
        if left.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(10 * u64::from(attempt)));
    }
    Ok(refused.into_values().collect())
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

/// The line at which ipset stopped.
fn line(error: &ApplyError) -> Option<usize> {
    let ApplyError::Refused { said, .. } = error else { return None };
    let (_, rest) = said.split_once("Error in line ")?;
    rest.split(':').next()?.parse().ok()
}

impl SetOperation {
    fn set(&self) -> &SetName {
        match self {
            SetOperation::Create(name, _)
            | SetOperation::Add(name, _)
            | SetOperation::Delete(name, _)
            | SetOperation::Swap(_, name)
            | SetOperation::Destroy(name) => name,
        }
    }

    /// The set that is not what it should be when a swap is refused.
    fn swapped(&self) -> Option<&SetName> {
        if let SetOperation::Swap(name, _) = self { Some(name) } else { None }
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
