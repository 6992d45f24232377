//! What marks a new resource as its own: an identifier from the kernel's randomness, and the time.

use std::time::SystemTime;

use calico_model::datastore::client::Stamp;
use calico_model::timestamp;

use crate::clock;

/// Makes the stamp of a resource that is created now.
#[must_use]
pub fn stamp() -> Stamp {
    stamp_at(clock::wall())
}

fn stamp_at(now: SystemTime) -> Stamp {
    Stamp { uid: uuid(), created: timestamp::format(to_seconds(now)) }
}

/// Returns an identifier that no other has: a random UUID (RFC 9562 version 4), made by the kernel.
///
/// # Panics
/// When `/proc` is not mounted, without which nothing here works.
#[must_use]
pub fn uuid() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("/proc is mounted");
    text.trim_end().to_owned()
}

/// Cuts a time to whole seconds, as Kubernetes writes creation times.
fn to_seconds(time: SystemTime) -> SystemTime {
    let whole = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_differ_and_have_whole_seconds() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(86_400_999);
        let (a, b) = (stamp_at(now), stamp_at(now));
        assert_ne!(a.uid, b.uid);
        assert_eq!(a.uid.len(), 36);
        assert_eq!(a.created, "1970-01-02T00:00:00Z");
    }
}
