//! How the kernel's log lines of Log rules begin.

use calico_model::Name;
use calico_model::resource::ResourceKey;

/// What log lines begin with when nothing is configured.
const DEFAULT_PREFIX: &str = "calico-packet";
/// The kernel keeps 127 bytes.
const MAX_PREFIX: usize = 127;

/// Makes a prefix: `%t` is the tier, `%k` the kind, `%n` the name with its namespace, `%p` both kind and name.
///
/// Whatever the setting holds, the prefix is printable ASCII without quotes and backslashes, and short enough.
pub(crate) fn log_prefix(setting: Option<&str>, owner: &ResourceKey, tier: Option<&Name>) -> Box<str> {
    let setting = setting.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_PREFIX);
    let text = setting
        .replace("%t", tier.map_or("", Name::as_str))
        .replace("%k", owner.kind.as_str())
        .replace("%n", &owner.id.to_string())
        .replace("%p", &format!("{}/{}", owner.kind, owner.id));
    let mut safe: String = text
        .chars()
        .map(|c| if (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\'' | '\\') { c } else { '_' })
        .take(MAX_PREFIX - 2)
        .collect();
    safe.push_str(": ");
    safe.into()
}

#[cfg(test)]
mod tests {
    use calico_model::resource::{Kind, ObjectId};

    use super::*;

    #[test]
    fn pe95_a_hostile_prefix_is_text_and_nothing_else() {
        let id = ObjectId { namespace: None, name: "p".parse().unwrap() };
        let owner = ResourceKey { kind: Kind::GlobalNetworkPolicy, id };
        let tier: Name = "t".parse().unwrap();
        assert_eq!(&*log_prefix(None, &owner, Some(&tier)), "calico-packet: ");
        assert_eq!(&*log_prefix(Some("%t %k %n"), &owner, Some(&tier)), "t GlobalNetworkPolicy p: ");
        let hostile = format!("\"; drop\n\0{}", "é".repeat(300));
        let prefix = log_prefix(Some(&hostile), &owner, None);
        assert_eq!(prefix.len(), MAX_PREFIX);
        assert!(prefix.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b'"'));
    }
}
