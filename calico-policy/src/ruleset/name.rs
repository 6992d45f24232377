//! Names of chains and sets, safe to print in any syntax.

use std::fmt;

use sha2::{Digest, Sha256};

/// How all names begin, so that none is ever a word of a rule language.
const PREFIX: &str = "cali-";

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident),*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Makes a fixed name; `words` are lower-case letters, digits and dashes.
            pub(crate) fn fixed(words: &str) -> Self {
                debug_assert!(words.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
                Self(format!("{PREFIX}{words}").into())
            }

            /// Makes a name of a fixed word and the digest of what it stands for, part by part.
            pub(crate) fn digest<'p>(word: &str, parts: impl IntoIterator<Item = &'p str>) -> Self {
                Self::fixed(&format!("{word}-{}", digest(parts)))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Reads a name as a kernel returned it. Any text is kept: what is not ours only has to be told apart.
            #[cfg(any(feature = "nft", feature = "iptables"))]
            pub(crate) fn read(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a chain: `cali-` and lower-case letters, digits and dashes.
    ChainName,
    /// The name of a set or map: `cali-` and lower-case letters, digits and dashes.
    SetName
}

/// Digests a list of texts; 80 bits, so that names stay short and never meet by accident. No two lists of texts are the
/// same bytes, because every part says its length.
pub(crate) fn digest<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pe97_lists_that_join_to_the_same_text_have_different_digests() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_ne!(digest(["ab"]), digest(["ab", ""]));
        assert_eq!(ChainName::digest("in", ["x"]).as_str().len(), "cali-in-".len() + 20);
    }
}
