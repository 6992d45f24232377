//! Which of two connections between the same two speakers lives (RFC 4271 section 6.8, RFC 6286 section 2.3).

use calico_model::{AsNumber, RouterId};

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// We did.
    Dialed,
    /// The peer did.
    Accepted,
}

/// Decides which connection lives: the one that was opened by the speaker with the higher identifier, and between
/// equal identifiers (in different ASes) by the one with the higher AS number.
#[must_use]
pub fn survivor(local: (RouterId, AsNumber), remote: (RouterId, AsNumber)) -> Role {
    if local > remote { Role::Dialed } else { Role::Accepted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(id: &str, asn: u32) -> (RouterId, AsNumber) {
        (id.parse().unwrap(), AsNumber::new(asn).unwrap())
    }

    #[test]
    fn both_sides_keep_the_same_connection() {
        let speakers =
            [speaker("1.1.1.1", 1), speaker("10.0.0.1", 1), speaker("9.0.0.1", 7), speaker("10.0.0.1", 2)];
        for a in speakers {
            for b in speakers.into_iter().filter(|b| *b != a) {
                assert_ne!(survivor(a, b), survivor(b, a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn identifiers_are_compared_as_numbers() {
        assert_eq!(survivor(speaker("10.0.0.1", 1), speaker("9.0.0.1", 1)), Role::Dialed);
    }
}
