//! Changes of sets: what cannot be taken of them stands alone.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::super::command::run;
use super::super::{ApplyError, SetOperation};
use super::Refused;
use crate::ruleset::SetName;

/// So many elements may be refused before the whole input is.
const MOST_REFUSED: usize = 64;
/// How often a set that was in use until now is destroyed: the kernel lets go of rules a little after they are gone.
const ATTEMPTS: u32 = 12;

/// Changes sets; returns those of which something was refused.
pub(in super::super) fn restore_sets(
    operations: &[SetOperation],
) -> Result<BTreeMap<SetName, Refused>, ApplyError> {
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
pub(super) fn destroy_patiently(operations: &[SetOperation]) -> Result<Vec<Refused>, ApplyError> {
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
            | SetOperation::Flush(name)
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
