//! Attributes interned: equal ones are one copy, so that comparing is comparing addresses.

use std::collections::HashSet;
use std::sync::Arc;

use crate::wire::Attributes;

/// Every set of attributes in use.
#[derive(Debug, Default)]
pub struct Interner {
    held: HashSet<Arc<Attributes>>,
    sweep_at: usize,
}

/// Sweeping is not worth it below this many.
const SMALLEST_SWEEP: usize = 1024;

impl Interner {
    /// Returns the one copy of these attributes.
    pub fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(held) = self.held.get(&attributes) {
            return held.clone();
        }
        if self.held.len() >= self.sweep_at.max(SMALLEST_SWEEP) {
            self.sweep();
        }
        let held = Arc::new(attributes);
        self.held.insert(held.clone());
        held
    }

    /// Forgets what nobody uses any more; the next sweep is due when twice as many are held.
    fn sweep(&mut self) {
        self.held.retain(|attributes| Arc::strong_count(attributes) > 1);
        self.sweep_at = self.held.len() * 2;
    }

    /// Returns how many sets are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Reports whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(med: u32) -> Attributes {
        let mut attributes = Attributes::originated("10.0.0.1".parse().unwrap());
        attributes.med = Some(med);
        attributes
    }

    #[test]
    fn equal_attributes_are_one_copy_and_unused_ones_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept = interner.intern(attributes(1));
        for med in 0..100_000 {
            let again = interner.intern(attributes(1));
            assert!(Arc::ptr_eq(&kept, &again));
            interner.intern(attributes(med));
        }
        assert!(interner.len() <= 2 * SMALLEST_SWEEP);
    }
}
