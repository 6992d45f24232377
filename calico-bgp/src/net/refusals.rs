//! Connections of peers that are not taken, told in words now and then: whoever is refused tries again and again.

use std::io::Write;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::speaker::Refused;
use crate::wire::{self, Notification};

/// Closes a connection that is not taken, and says so, as far as the socket takes it (RFC 4486 section 4).
pub(super) fn reject(stream: TcpStream) {
    let said = wire::notification(&Notification::new(Notification::CONNECTION_REJECTED));
    // Whoever does not hear it sees the connection closed.
    let _unsaid = stream.into_std().and_then(|mut stream| stream.write_all(&said));
}

/// The shortest time between two that are told of.
const REST: Duration = Duration::from_secs(60);

/// What was not told.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    rests_until: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Returns what there is to tell of one, if it is time.
    pub(super) fn told(&mut self, refused: Refused, now: Instant) -> Option<String> {
        if self.rests_until.is_some_and(|until| now < until) {
            self.untold += 1;
            return None;
        }
        self.rests_until = Some(now + REST);
        Some(match std::mem::take(&mut self.untold) {
            0 => format!("a connection is refused: {refused}"),
            before => {
                format!("a connection is refused, and {before} were since the last one told of: {refused}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
    fn of_many_one_in_a_minute_is_told_with_how_many_there_were() {
        let mut now = Instant::now();
        let mut refusals = Refusals::default();
        let refused = Refused::Stopped([10, 0, 0, 2].into());
        let mut told = Vec::new();
        for _ in 0..100 {
            told.extend(refusals.told(refused, now));
            now += Duration::from_secs(1);
        }
        assert_eq!(
            told,
            [
                "a connection is refused: the peer 10.0.0.2 is stopped",
                "a connection is refused, and 59 were since the last one told of: the peer 10.0.0.2 is stopped",
            ]
        );
    }
}
