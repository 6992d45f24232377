//! Messages: octets in, values out, and back. No state beyond the [`Dialect`] the two sides agreed on.
//!
//! ```text
//! [marker, 16 octets of 0xff] [length of the whole message, 2] [type, 1] [body]
//! ```

pub mod as_path;
pub mod attribute;
pub(crate) mod decode;
pub mod error;
pub mod nlri;
pub mod notification;
pub mod open;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
pub mod update;

use calico_model::Family;

pub use as_path::{AsPath, AsWidth};
pub use attribute::{Attributes, Origin};
pub use error::{DecodeError, Remedy};
pub use nlri::{Address, Nlri, PathIds, Prefix, Prefixes};
pub use notification::Notification;
pub use open::{Capabilities, HoldTime, Open};
pub use update::Update;

use crate::family::PerFamily;
use crate::session::Peering;

pub(crate) const HEADER_LEN: usize = 19;
/// The longest message of RFC 4271.
pub const MAX_MESSAGE: usize = 4096;
/// The longest message for who announced extended messages (RFC 8654).
pub const MAX_EXTENDED_MESSAGE: usize = 65535;

/// What two speakers agreed on, as far as reading and writing messages goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// How wide an AS number is.
    pub as_width: AsWidth,
    /// Which attributes have a meaning here.
    pub peering: Peering,
    /// Where received prefixes have path identifiers.
    pub path_ids_in: PerFamily<PathIds>,
    /// Where sent prefixes have path identifiers.
    pub path_ids_out: PerFamily<PathIds>,
    /// The longest message that may come in, in octets: [`MAX_EXTENDED_MESSAGE`] where we announced that we take it, whatever
    /// the peer takes (RFC 8654 section 4), else [`MAX_MESSAGE`].
    pub max_len_in: usize,
    /// The longest message that is sent: the same, where the peer announced it.
    pub max_len_out: usize,
}

impl Dialect {
    /// What holds before capabilities were compared, with four-octet AS numbers.
    #[must_use]
    pub fn plain(peering: Peering) -> Self {
        Self {
            as_width: AsWidth::Four,
            peering,
            path_ids_in: PerFamily::default(),
            path_ids_out: PerFamily::default(),
            max_len_in: MAX_MESSAGE,
            max_len_out: MAX_MESSAGE,
        }
    }
}

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// OPEN.
    Open,
    /// UPDATE.
    Update,
    /// NOTIFICATION.
    Notification,
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
}

impl MessageType {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Open, Self::Update, Self::Notification, Self::Keepalive, Self::RouteRefresh]
            .into_iter()
            .find(|kind| kind.code() == code)
    }

    fn accepts(self, body: usize) -> bool {
        match self {
            Self::Open => body >= 10,
            Self::Update => body >= 4,
            Self::Notification => body >= 2,
            Self::Keepalive => body == 0,
            Self::RouteRefresh => true,
        }
    }
}

/// One whole message inside the received octets.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: MessageType,
    /// What follows the header.
    pub body: &'a [u8],
    /// The length of the whole message.
    pub len: usize,
}

/// Finds the first message, or `None` while more octets are needed.
///
/// # Errors
/// A header that cannot be followed; the session must end with the given NOTIFICATION (RFC 4271 section 6.1).
pub fn frame(octets: &[u8], max_len: usize) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((header, _)) = octets.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(DecodeError::reset(
            Notification::CONNECTION_NOT_SYNCHRONIZED,
            "the marker is not all ones: the peer does not speak BGP here",
        ));
    }
    let len_octets = [header[16], header[17]];
    let len = usize::from(u16::from_be_bytes(len_octets));
    let bad_len = || {
        DecodeError::reset_with(
            Notification::BAD_MESSAGE_LENGTH,
            &len_octets,
            "the length is not one that the message can have",
        )
    };
    let Some(kind) = MessageType::of(header[18]) else {
        return Err(DecodeError::reset_with(
            Notification::BAD_MESSAGE_TYPE,
            &header[18..],
            "the message type is unknown",
        ));
    };
    let limit = match kind {
        MessageType::Open | MessageType::Keepalive => MAX_MESSAGE,
        MessageType::Update | MessageType::Notification | MessageType::RouteRefresh => max_len,
    };
    if len < HEADER_LEN || len > limit || !kind.accepts(len - HEADER_LEN) {
        return Err(bad_len());
    }
    Ok(octets.get(HEADER_LEN..len).map(|body| Frame { kind, body, len }))
}

pub(crate) fn begin_message(kind: MessageType) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    message.extend_from_slice(&[0xff; 16]);
    message.extend_from_slice(&[0, 0, kind.code()]);
    message
}

pub(crate) fn finish_message(mut message: Vec<u8>) -> Vec<u8> {
    let len = (message.len() as u16).to_be_bytes();
    message[16..18].copy_from_slice(&len);
    message
}

/// Makes a KEEPALIVE.
#[must_use]
pub fn keepalive() -> Vec<u8> {
    finish_message(begin_message(MessageType::Keepalive))
}

/// Makes the message of a notification; data that does not fit is cut.
#[must_use]
pub fn notification(what: &Notification) -> Vec<u8> {
    let mut message = begin_message(MessageType::Notification);
    message.extend_from_slice(&[what.code, what.subcode]);
    let room = MAX_MESSAGE - message.len();
    message.extend_from_slice(&what.data[..what.data.len().min(room)]);
    finish_message(message)
}

/// Reads the body of a NOTIFICATION, which [`frame`] found long enough.
#[must_use]
pub fn read_notification(body: &[u8]) -> Notification {
    match body {
        [code, subcode, data @ ..] => Notification { code: *code, subcode: *subcode, data: data.to_vec() },
        _ => Notification::new((0, 0)),
    }
}

/// What a ROUTE-REFRESH says (RFC 2918, RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Tell everything of the family again.
    Request(Family),
    /// Everything of the family follows (RFC 7313).
    Begin(Family),
    /// That was everything of the family (RFC 7313).
    End(Family),
    /// A family or subtype that we do not speak: ignored.
    Unknown,
}

/// Makes a ROUTE-REFRESH.
#[must_use]
pub fn refresh(what: Refresh) -> Vec<u8> {
    let (family, subtype) = match what {
        Refresh::Request(family) => (family, 0),
        Refresh::Begin(family) => (family, 1),
        Refresh::End(family) => (family, 2),
        Refresh::Unknown => (Family::V4, 255),
    };
    let mut message = begin_message(MessageType::RouteRefresh);
    message.extend_from_slice(&[0, open::afi(family), subtype, 1]);
    finish_message(message)
}

/// Reads the body of a ROUTE-REFRESH.
///
/// # Errors
/// A body that is not four octets long; the NOTIFICATION carries the whole message (RFC 7313 section 5).
pub fn read_refresh(body: &[u8]) -> Result<Refresh, DecodeError> {
    let [0, afi, subtype, safi] = body else {
        return match body.len() {
            4 => Ok(Refresh::Unknown),
            _ => {
                let mut message = begin_message(MessageType::RouteRefresh);
                message.extend_from_slice(body);
                Err(DecodeError::reset_with(
                    Notification::BAD_REFRESH_LENGTH,
                    &finish_message(message),
                    "a ROUTE-REFRESH is not four octets long",
                ))
            }
        };
    };
    let family = match (afi, safi) {
        (1, 1) => Family::V4,
        (2, 1) => Family::V6,
        _ => return Ok(Refresh::Unknown),
    };
    Ok(match subtype {
        0 => Refresh::Request(family),
        1 => Refresh::Begin(family),
        2 => Refresh::End(family),
        _ => Refresh::Unknown,
    })
}
