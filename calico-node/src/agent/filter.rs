//! The kernel's packet filter: nftables, or one variant of iptables, as the configuration asks.
//!
//! Unless somebody else changed the rules, only what changed is written, and nothing is read. Once rules are in force in one
//! way, what an earlier agent left in another is removed: never before, so that there is no moment without rules.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use calico_model::NodeName;
use calico_model::resource::FelixConfiguration;
use calico_policy::iptables::{self, Choice, Iptables, Leftover, Variant};
use calico_policy::nft::{self, Nft};
use calico_policy::{Changes, Compiler};

use super::dataplane::with_causes;

/// The rules in the kernel.
#[derive(Debug)]
pub(super) struct Filter {
    nft: Nft,
    /// Iptables, when that is used.
    iptables: Option<Iptables>,
    options: iptables::Options,
    /// Whether the kernel holds the rules as they were when the compiler last told what changed; not after a failure.
    known: bool,
    /// How often iptables is to be asked, as the configuration says.
    refresh: Option<Duration>,
    /// What others changed in the rules and is not mended yet.
    foreign: Option<nft::Foreign>,
    /// When the kernel was asked last.
    read: Option<Instant>,
    /// When iptables is to be asked again: nobody tells of changes in it. When nf_tables is to be, while it refuses something.
    check: Option<Instant>,
    /// Whether rules of ours are in force, of now or of before, that nobody else is known to have changed. Interfaces of workloads
    /// that they do not know are closed.
    guarded: bool,
    /// Whether nothing is left of other ways.
    alone: bool,
    /// What could not be removed of them, and when that was tried.
    left: Option<(Instant, BTreeSet<String>)>,
    /// Whether rules were written since that was asked.
    rewritten: bool,
}

/// Others' changes of our table are looked for this often when they cannot be followed.
const NFT_CHECK: Duration = Duration::from_secs(10);
/// Iptables is compared with what it should hold so long after it was written, unless the configuration says otherwise,
const AFTER_WRITE: Duration = Duration::from_secs(5);
/// and then this often. What was refused, and what could not be removed, is tried again as often.
const REFRESH: Duration = Duration::from_secs(60);

impl Filter {
    pub(super) fn new(nft: Nft) -> Self {
        Self {
            nft,
            iptables: None,
            options: iptables::Options::default(),
            known: false,
            refresh: None,
            foreign: None,
            read: None,
            check: None,
            guarded: false,
            alone: false,
            left: None,
            rewritten: false,
        }
    }

    /// Begins to follow what others change in our table.
    pub(super) fn watch(&mut self) -> Result<nft::Watch, nft::ApplyError> {
        nft::Watch::open(&mut self.nft)
    }

    /// Returns whether the kernel holds the rules as they were compiled last.
    pub(super) fn is_in_force(&self) -> bool {
        self.known
    }

    /// Returns whether some rules are in force, of now or of before.
    pub(super) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// Returns whether rules were written since this was asked before.
    pub(super) fn was_rewritten(&mut self) -> bool {
        std::mem::take(&mut self.rewritten)
    }

    /// Notes that somebody else changed the rules, or that this cannot be known any more.
    pub(super) fn changed(&mut self, foreign: Option<nft::Foreign>) {
        (self.known, self.guarded) = (false, false);
        self.foreign = match (self.foreign.take(), foreign) {
            (former, None) => former,
            (None, Some(foreign)) => Some(foreign),
            (Some(_), Some(_)) => Some(nft::Foreign::Anything),
        };
    }

    /// Returns when the rules are to be compared with the kernel's again.
    pub(super) fn check_due(&self, followed: bool) -> Option<Instant> {
        match self.iptables {
            Some(_) => self.check,
            None => {
                let unfollowed = self.read.filter(|_| !followed).map(|read| read + NFT_CHECK);
                unfollowed.into_iter().chain(self.check).min()
            }
        }
    }

    /// Puts rules in force, unless they are already. Returns what is closed, one sentence each.
    pub(super) fn apply(
        &mut self,
        compiler: &mut Compiler,
        node: &NodeName,
        followed: bool,
        now: Instant,
    ) -> Result<BTreeSet<String>, String> {
        let felix = compiler.snapshot().felix_configuration(node);
        if self.check_due(followed).is_some_and(|due| due <= now) {
            // When this fails it is the reconciler that says when to try again.
            (self.check, self.read, self.known) = (None, None, false);
        }
        self.choose(&felix).map_err(|error| with_causes(&error))?;
        let known = std::mem::take(&mut self.known);
        let closed = match self.iptables {
            Some(_) => self.apply_iptables(compiler, &felix, known, now)?,
            None => self.apply_nft(compiler, known, now)?,
        };
        self.known = true;
        self.guarded = true;
        Ok(closed)
    }

    /// Removes what was left in the packet filters that are not used, once rules are in force in the one that is. Returns what
    /// could not be removed, one sentence each; that is tried again once in [`REFRESH`].
    pub(super) fn tidy(&mut self, now: Instant) -> BTreeSet<String> {
        if self.alone || !self.known {
            return BTreeSet::new();
        }
        if let Some((tried, left)) = &self.left
            && now < *tried + REFRESH
        {
            return left.clone();
        }
        let left = self.remove_leftovers();
        self.alone = left.is_empty();
        self.left = (!self.alone).then(|| (now, left.clone()));
        left
    }

    fn choose(&mut self, felix: &FelixConfiguration) -> Result<(), iptables::ApplyError> {
        let former = self.iptables.as_ref().map(Iptables::variant);
        let variant: Option<Variant> = match (Choice::of(felix), former) {
            (Choice::Nftables, _) => None,
            (Choice::Iptables(variant), _) => Some(variant),
            (Choice::IptablesAsOthers, Some(variant)) => Some(variant),
            (Choice::IptablesAsOthers, None) => Some(iptables::in_use()?),
        };
        let options = iptables::Options::of(felix);
        if variant != former {
            let filter = variant.map_or("nftables".to_owned(), |variant| format!("iptables ({variant})"));
            tracing::info!(%filter, "rules go to another packet filter");
            self.iptables = variant.map(Iptables::new);
            self.check = None;
            (self.alone, self.left) = (false, None);
        }
        let refresh = felix.iptables_refresh_interval.as_ref().map(|interval| interval.get());
        if variant != former || options != self.options || (variant.is_some() && refresh != self.refresh) {
            self.known = false;
            (self.options, self.refresh) = (options, refresh);
        }
        Ok(())
    }

    fn apply_nft(
        &mut self,
        compiler: &mut Compiler,
        known: bool,
        now: Instant,
    ) -> Result<BTreeSet<String>, String> {
        let applied = match compiler.changes() {
            Changes::Only(delta) if known => self.nft.change(&delta, compiler.ruleset()),
            Changes::Only(_) | Changes::Everything => {
                self.read = Some(now);
                self.nft.sync_after(self.foreign.as_ref(), compiler.ruleset())
            }
        };
        let written = applied.map_err(|error| with_causes(&error))?;
        if !known {
            self.foreign = None;
        }
        if !written.is_empty() {
            self.rewritten = true;
            tracing::info!(changes = written.operations.len(), "put rules in force");
        }
        let refused: BTreeSet<String> =
            self.nft.refused().map(|refused| closed_nft(refused, compiler)).collect();
        let due = self.check.filter(|check| *check > now);
        self.check = (!refused.is_empty()).then(|| due.unwrap_or(now + REFRESH));
        Ok(refused)
    }

    fn apply_iptables(
        &mut self,
        compiler: &mut Compiler,
        felix: &FelixConfiguration,
        known: bool,
        now: Instant,
    ) -> Result<BTreeSet<String>, String> {
        let Some(iptables) = &mut self.iptables else { return Ok(BTreeSet::new()) };
        let written = match compiler.changes() {
            Changes::Only(delta) if known && delta.is_empty() => return Ok(closed(&iptables.refused())),
            Changes::Only(delta) if known => iptables.change(&delta, compiler.ruleset(), &self.options),
            Changes::Only(_) | Changes::Everything => {
                self.foreign = None;
                iptables.sync(compiler.ruleset(), &self.options)
            }
        };
        let written = written.map_err(|error| with_causes(&error))?;
        if !written.transaction.is_empty() {
            self.rewritten = true;
            tracing::info!(changes = written.transaction.len(), "put rules in force");
        }
        self.check = pause(felix, &written).map(|pause| now + pause);
        Ok(closed(&written.refused))
    }

    fn remove_leftovers(&mut self) -> BTreeSet<String> {
        let mut problems = BTreeSet::new();
        let own = self.iptables.as_ref().map(Iptables::variant);
        for variant in Variant::ALL.into_iter().filter(|variant| Some(*variant) != own) {
            match Iptables::remove_leftover(variant, Leftover::Rules) {
                Ok(true) => tracing::info!(%variant, "removed what was left in iptables"),
                Ok(false) => {}
                Err(error) => drop(problems.insert(with_causes(&error))),
            }
        }
        if own.is_none() {
            problems.extend(iptables::cleanup_ipsets().err().map(|error| with_causes(&error)));
            return problems;
        }
        let removed = self.nft.read().and_then(|actual| match actual.table {
            Some(_) => self.nft.apply(&nft::Transaction::removal()),
            None => Ok(()),
        });
        problems.extend(removed.err().map(|error| with_causes(&error)));
        problems
    }
}

/// Returns how long iptables is left alone after it was asked; `None` for good, as `iptablesRefreshInterval: 0` has it. What was
/// refused is tried again all the same.
fn pause(felix: &FelixConfiguration, written: &iptables::Written) -> Option<Duration> {
    let pause = if !written.transaction.is_empty() {
        felix.iptables_post_write_check_interval.as_ref().map_or(AFTER_WRITE, |interval| interval.get())
    } else {
        match felix.iptables_refresh_interval.as_ref().map(|interval| interval.get()) {
            Some(Duration::ZERO) if written.refused.is_empty() => return None,
            None | Some(Duration::ZERO) => REFRESH,
            Some(interval) => interval,
        }
    };
    // Less would be without pause.
    Some(pause.max(Duration::from_secs(1)))
}

fn closed_nft(refused: &nft::Refused, compiler: &Compiler) -> String {
    const MOST: usize = 3;
    let behind = compiler.behind(&refused.chain);
    let mut named: Vec<String> =
        behind.iter().take(MOST).map(|key| format!("{} {}", key.kind, key.id)).collect();
    named.extend((behind.len() > MOST).then(|| format!("{} others", behind.len() - MOST)));
    let of = if named.is_empty() { "all workloads".to_owned() } else { named.join(", ") };
    format!(
        "the kernel refuses `{}` ({}): what the chain {} decides, for {of}, is dropped. Change the policy, or give the kernel what it \
         lacks (a module, often); it is tried again every minute",
        refused.operation, refused.why, refused.chain
    )
}

fn closed(refused: &[iptables::Refused]) -> BTreeSet<String> {
    refused.iter().map(|refused| format!("{}: {}", refused.what, refused.why)).collect()
}

/// Removes all rules and sets of ours, in whichever packet filter they are; returns what could not be removed.
pub(super) fn cleanup() -> Vec<String> {
    let mut left = Vec::new();
    left.extend(Nft::new().apply(&nft::Transaction::removal()).err().map(|error| with_causes(&error)));
    for variant in Variant::ALL {
        left.extend(
            Iptables::remove_leftover(variant, Leftover::Rules).err().map(|error| with_causes(&error)),
        );
    }
    left.extend(iptables::cleanup_ipsets().err().map(|error| with_causes(&error)));
    left
}

#[cfg(test)]
mod tests;
