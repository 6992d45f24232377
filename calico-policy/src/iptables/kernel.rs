//! The way to the kernel: the programs of iptables and ipset, with their input on stdin.

mod closing;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::path::Path;

use calico_model::Family;

use super::actual::Actual;
use super::command::{run, run_locked};
use super::lower::lower_sets;
use super::lowered::Lowered;
use super::plan::{Spelling, plan_change, plan_spelt};
use super::program::{Program, Rule, Rules, TableName};
use super::transaction::restore_input;
use super::words::program_word;
use super::{ApplyError, Operation, Options, Transaction, Variant};
use crate::delta::Delta;
use crate::ruleset::{ChainName, Ruleset};
use closing::{dropping, looking_at};
use sets::destroy_patiently;
pub(super) use sets::restore_sets;

/// A way to one variant of the kernel's iptables, and to ipset. Programs run in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Iptables {
    variant: Variant,
    lock_seconds: NonZeroU16,
    spelling: Spelling,
    /// What the kernel holds, when that is known.
    held: Option<Lowered>,
    /// Chains that drop everything because the kernel refused what they should hold.
    closed: BTreeMap<Place, Closed>,
}

/// How long the lock is waited for, unless somebody says otherwise.
const LOCK_SECONDS: NonZeroU16 = NonZeroU16::new(10).expect("ten is not zero");

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

impl Iptables {
    /// Makes a way to a variant.
    #[must_use]
    pub fn new(variant: Variant) -> Self {
        Self {
            variant,
            lock_seconds: LOCK_SECONDS,
            spelling: Spelling::default(),
            held: None,
            closed: BTreeMap::new(),
        }
    }

    /// Has the lock of iptables, when somebody else holds it, waited for as many seconds as given and not for 10. The lock is
    /// taken for each table of each family, and by the legacy variant only.
    #[must_use]
    pub fn waiting_for_the_lock(self, seconds: NonZeroU16) -> Self {
        Self { lock_seconds: seconds, ..self }
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
        let mut lowered = Lowered::of(ruleset, options);
        let sets = lower_sets(&lowered.rules, ruleset);
        let mut program = Program { rules: std::mem::take(&mut lowered.rules), sets };
        let (written, is_held) = self.bring(&mut program)?;
        lowered.rules = program.rules;
        self.held = is_held.then_some(lowered);
        Ok(written)
    }

    /// As [`sync`](Self::sync), of a program.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_program(&mut self, mut program: Program) -> Result<Written, ApplyError> {
        self.bring(&mut program).map(|(written, _)| written)
    }

    /// Brings a program into the kernel, and reports whether it holds that afterwards. What is refused is closed in the program too.
    fn bring(&mut self, program: &mut Program) -> Result<(Written, bool), ApplyError> {
        self.held = None;
        // What was refused is tried once more.
        self.closed.clear();
        let transaction = self.missing(program)?;
        if transaction.is_empty() {
            return Ok((Written::default(), true));
        }
        let refused = self.write(&transaction, &mut program.rules)?;
        let actual = self.read()?;
        self.spelling.learn(program, &actual);
        let is_held = plan_spelt(program, &actual, &self.spelling).is_empty();
        Ok((self.written(transaction, refused), is_held))
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
        let Some(mut held) = self.held.take() else { return self.sync(ruleset, options) };
        let (before, mut after) = held.change(delta, ruleset, options);
        self.close(&mut held.rules);
        self.close(&mut after);
        let transaction = plan_change((&before, &after), &held.rules.sets, delta, ruleset);
        let refused = self.write(&transaction, &mut held.rules)?;
        self.held = Some(held);
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
        run_locked(&program, &["--noflush"], &restore_input(table, operations), self.lock_seconds).map(drop)
    }
}

/// The families that this kernel has.
fn families() -> Vec<Family> {
    let has = |family: &Family| *family == Family::V4 || Path::new("/proc/sys/net/ipv6").exists();
    Family::ALL.into_iter().filter(has).collect()
}
