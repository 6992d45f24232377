//! Small tables and sets by address family.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

use calico_model::{Family, ParseError};

/// One value for each address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct PerFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Makes one value for each family.
    pub fn new(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A set of address families.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct FamilySet(PerFamily<bool>);

impl FamilySet {
    /// Neither.
    pub const NONE: FamilySet = FamilySet(PerFamily { v4: false, v6: false });
    /// IPv4 alone.
    pub const V4: FamilySet = FamilySet(PerFamily { v4: true, v6: false });
    /// IPv6 alone.
    pub const V6: FamilySet = FamilySet(PerFamily { v4: false, v6: true });
    /// Both.
    pub const BOTH: FamilySet = FamilySet(PerFamily { v4: true, v6: true });

    /// Reports whether a family is in the set.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        self.0[family]
    }

    /// Reports whether neither family is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Adds a family.
    pub fn insert(&mut self, family: Family) {
        self.0[family] = true;
    }

    /// Takes a family out.
    pub fn remove(&mut self, family: Family) {
        self.0[family] = false;
    }

    /// Returns what is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(PerFamily::new(|family| self.contains(family) && other.contains(family)))
    }

    /// Returns the families, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::NONE, |mut set, family| {
            set.insert(family);
            set
        })
    }
}

impl FromStr for FamilySet {
    type Err = ParseError;

    /// Reads `ipv4`, `ipv6`, or both with a space between them, whatever their case.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let family = |word: &str| {
            let family = Family::ALL.into_iter().find(|family| family.to_string().eq_ignore_ascii_case(word));
            family.ok_or_else(|| ParseError::new(word, "an address family: ipv4 or ipv6"))
        };
        text.split_whitespace().map(family).collect()
    }
}

impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_by_their_names() {
        for (text, families) in [
            ("ipv4", FamilySet::V4),
            ("IPv6", FamilySet::V6),
            ("ipv6 ipv4", FamilySet::BOTH),
            ("", FamilySet::NONE),
        ] {
            assert_eq!(text.parse(), Ok(families));
        }
        let fault = "ipv4 vpn".parse::<FamilySet>().unwrap_err();
        assert_eq!(fault.value, "vpn");
    }
}
