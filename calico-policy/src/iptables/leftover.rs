//! What another mode left behind, and which variant of iptables others use.

use super::command::run;
use super::kernel::restore_sets;
use super::{Actual, ApplyError, Iptables, SetOperation, Variant};

/// What is removed of ours when another mode has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// Rules and chains; the sets are in use.
    Rules,
    /// Rules, chains and sets.
    RulesAndSets,
}

/// Removes the sets that no rule looks at any more, once nothing of ours is in iptables. Reports whether there were any.
///
/// # Errors
/// When ipset is not permitted, or refuses to destroy some, as of sets that rules of others look at. The rest is gone then.
pub fn cleanup_ipsets() -> Result<bool, ApplyError> {
    let mut actual = Actual::default();
    match run("ipset", &["save"], "") {
        // Without the program, or with a kernel that knows no sets, nobody has made any.
        Err(ApplyError::Missing { .. } | ApplyError::Refused { .. }) => return Ok(false),
        saved => actual.read_sets(&saved?),
    }
    let destroyed: Vec<_> = actual.sets.into_keys().map(SetOperation::Destroy).collect();
    let refused = restore_sets(&destroyed)?;
    if refused.is_empty() {
        return Ok(!destroyed.is_empty());
    }
    let said: Vec<String> =
        refused.into_values().map(|refused| format!("{}: {}", refused.what, refused.why)).collect();
    Err(ApplyError::Refused { program: "ipset".to_owned(), said: said.join("; ") })
}

/// Returns the variants that hold chains of ours on this machine: an agent's own, and while its rules go over, both.
///
/// # Errors
/// When a program is not permitted or does not end.
pub fn holding_ours() -> Result<Vec<Variant>, ApplyError> {
    let mut holding = Vec::new();
    for variant in Variant::ALL {
        let saved = match run(&format!("iptables-{variant}-save"), &[], "") {
            // What is not installed, or not known to the kernel, holds nothing.
            Err(ApplyError::Missing { .. } | ApplyError::Refused { .. }) => continue,
            saved => saved?,
        };
        if saved.lines().any(|line| line.starts_with(":cali-")) {
            holding.push(variant);
        }
    }
    Ok(holding)
}

/// Returns the variant that others use on this machine: the one with more rules, and `Nft` when neither has any.
///
/// # Errors
/// When neither variant is installed.
pub fn in_use() -> Result<Variant, ApplyError> {
    let rules = |variant: Variant| {
        let saved = run(&format!("iptables-{variant}-save"), &[], "")?;
        Ok(saved
            .lines()
            .filter(|line| line.starts_with("-A "))
            .filter(|line| !line.contains("cali-"))
            .count())
    };
    match (rules(Variant::Legacy), rules(Variant::Nft)) {
        (Ok(legacy), Ok(nft)) if legacy > nft => Ok(Variant::Legacy),
        (_, Ok(_)) => Ok(Variant::Nft),
        (Ok(_), Err(ApplyError::Missing { .. })) => Ok(Variant::Legacy),
        (_, Err(error)) => Err(error),
    }
}

impl Iptables {
    /// Removes what a variant that is no longer used still holds of ours. Reports whether there was anything.
    ///
    /// # Errors
    /// When a program is not permitted or refuses.
    pub fn remove_leftover(variant: Variant, what: Leftover) -> Result<bool, ApplyError> {
        let mut former = Iptables::new(variant);
        match former.read() {
            // What is not installed, or not known to the kernel, holds nothing.
            Err(ApplyError::Missing { .. } | ApplyError::Refused { .. }) => return Ok(false),
            Ok(actual) if actual.has_no_rules() => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        former.remove(what).map(|written| !written.transaction.is_empty())
    }
}
