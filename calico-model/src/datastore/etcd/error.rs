//! What a failed request means for the one who sent it.

use std::error::Error as StdError;
use std::io;

/// A request that failed, in words that hold no secret.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    kind: Kind,
    text: String,
}

/// What can be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server was not reached; another one may be.
    NotSent,
    /// The answer did not come, whatever became of the request.
    Lost,
    /// The server answered that it has no room or no time.
    Busy,
    /// The login is older than the last change of a user or role, and nothing was carried out: log in again.
    Outdated,
    /// The server does not accept the credentials, or does not let them do this.
    Unauthorized,
    /// The server finds fault with the request itself.
    Invalid,
    /// The revision asked for has been compacted away.
    Compacted,
}

/// What etcd says of a login that is [outdated](Kind::Outdated); it has no code of its own.
const OUTDATED: &str = "revision of auth store is old";

impl Kind {
    /// Reports whether the request was not carried out, for a reason that another connection may not meet.
    pub(super) fn calls_for_another_link(self) -> bool {
        matches!(self, Kind::NotSent | Kind::Outdated)
    }
}

impl Failure {
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn timed_out() -> Self {
        Self { kind: Kind::Lost, text: "no answer in time".to_owned() }
    }

    /// The stream of a watch ended, for the reason that the server gave.
    pub(super) fn ended(reason: &str) -> Self {
        let text = if reason.is_empty() { "the server ended the watch" } else { reason };
        Self { kind: Kind::Lost, text: text.to_owned() }
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        if let etcd_client::Error::GRpcStatus(status) = &error {
            // The numbers of gRPC's status codes.
            let kind = match i32::from(status.code()) {
                3 if status.message().contains(OUTDATED) => Kind::Outdated,
                3 | 9 => Kind::Invalid,
                7 | 16 => Kind::Unauthorized,
                8 => Kind::Busy,
                11 => Kind::Compacted,
                _ if was_refused(status) => Kind::NotSent,
                _ => Kind::Lost,
            };
            // Not the status's own text, which would repeat headers too.
            return Self { kind, text: with_causes(status.message().to_owned(), status) };
        }
        if let etcd_client::Error::TransportError(error) = &error {
            return Self { kind: Kind::NotSent, text: with_causes(error.to_string(), error) };
        }
        Self { kind: Kind::Lost, text: error.to_string() }
    }
}

/// Reports whether nobody listens at the address, so that nothing can have been sent.
fn was_refused(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause: &&'e (dyn StdError + 'static)| (*cause).source())
}

fn with_causes(mut text: String, error: &(dyn StdError + 'static)) -> String {
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
