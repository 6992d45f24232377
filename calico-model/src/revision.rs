//! What compare-and-swap compares.

use std::fmt;

/// The datastore's version of one key, and of the whole store: a commit gets the next one.
///
/// Revisions grow and order all writes of one store. Revision 0 is before every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The version of an IPAM block at which an address was assigned; a release presents it, so that a late release
/// cannot free somebody else's newer allocation.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// Returns the next number, and after the last the first: numbers begin at the time in nanoseconds, so that only made-up
    /// data comes so far, and that must not panic.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_sequence_number_that_is_the_last_has_a_next_one() {
        assert_eq!(SequenceNumber(7).next(), SequenceNumber(8));
        assert_eq!(SequenceNumber(u64::MAX).next(), SequenceNumber(0));
    }
}
