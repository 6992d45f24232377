//! NOTIFICATION: why a session ends, in numbers for the peer and in words for people (RFC 4271 sections 4.5 and 6).

use std::fmt;

use super::reader::Reader;

/// The error code, subcode and data of a NOTIFICATION message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The code: which kind of error.
    pub code: u8,
    /// The subcode within the code; 0 when there is none.
    pub subcode: u8,
    /// What the RFC of the subcode says goes here.
    pub data: Vec<u8>,
}

/// The longest shutdown communication, in octets of UTF-8 (RFC 9003 section 2).
pub const MAX_COMMUNICATION: usize = 255;

macro_rules! notifications {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $subcode:literal), $words:literal;)*) => {
        impl Notification {
            $($(#[$doc])* pub const $name: (u8, u8) = ($code, $subcode);)*

            /// Returns the words for the code and subcode, when they are known.
            #[must_use]
            pub fn words(&self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($words),)*
                    _ => None,
                }
            }
        }
    };
}

notifications! {
    /// A marker that is not all ones.
    CONNECTION_NOT_SYNCHRONIZED = (1, 1), "connection not synchronized";
    /// A length that the message's type cannot have; the data is the length.
    BAD_MESSAGE_LENGTH = (1, 2), "bad message length";
    /// A type that nobody defined; the data is the type.
    BAD_MESSAGE_TYPE = (1, 3), "bad message type";
    /// An OPEN with a fault that has no subcode.
    OPEN_ERROR = (2, 0), "error in OPEN";
    /// Not version 4; the data is the highest version that we speak.
    UNSUPPORTED_VERSION = (2, 1), "unsupported BGP version";
    /// Another AS number than the configured one, or 0.
    BAD_PEER_AS = (2, 2), "AS number is not the expected one";
    /// A router identifier that is 0 or is our own.
    BAD_IDENTIFIER = (2, 3), "unacceptable BGP identifier";
    /// An optional parameter other than capabilities.
    UNSUPPORTED_PARAMETER = (2, 4), "unsupported optional parameter";
    /// A hold time of one or two seconds.
    UNACCEPTABLE_HOLD_TIME = (2, 6), "unacceptable hold time";
    /// A capability that we insist on is missing (RFC 5492).
    UNSUPPORTED_CAPABILITY = (2, 7), "a required capability is missing";
    /// The two roles cannot face each other (RFC 9234).
    ROLE_MISMATCH = (2, 11), "BGP roles do not match";
    /// Attributes whose lengths cannot be followed.
    MALFORMED_ATTRIBUTE_LIST = (3, 1), "malformed attribute list";
    /// A well-known attribute that nobody knows; the data is the attribute.
    UNRECOGNIZED_WELL_KNOWN = (3, 2), "unrecognized well-known attribute";
    /// A multiprotocol attribute that cannot be read.
    OPTIONAL_ATTRIBUTE = (3, 9), "error in an optional attribute";
    /// A prefix that cannot be read.
    INVALID_NETWORK_FIELD = (3, 10), "invalid prefix";
    /// Nothing was heard for the hold time.
    HOLD_TIMER_EXPIRED = (4, 0), "hold timer expired";
    /// A message that makes no sense in this state.
    FSM_ERROR = (5, 0), "message not expected in this state";
    /// The same while an OPEN was expected (RFC 6608).
    UNEXPECTED_IN_OPEN_SENT = (5, 1), "message not expected before OPEN";
    /// The same while a KEEPALIVE was expected.
    UNEXPECTED_IN_OPEN_CONFIRM = (5, 2), "message not expected before the first KEEPALIVE";
    /// The same in an established session.
    UNEXPECTED_IN_ESTABLISHED = (5, 3), "message not expected in an established session";
    /// More prefixes than configured (RFC 4486); the data is the family and the limit.
    MAX_PREFIXES = (6, 1), "too many prefixes";
    /// The operator closed the session; the data may be a text (RFC 9003).
    ADMINISTRATIVE_SHUTDOWN = (6, 2), "administrative shutdown";
    /// The peer is configured no longer.
    PEER_DECONFIGURED = (6, 3), "peer removed from the configuration";
    /// The operator asked for a fresh session; the data may be a text (RFC 9003).
    ADMINISTRATIVE_RESET = (6, 4), "administrative reset";
    /// The connection was refused.
    CONNECTION_REJECTED = (6, 5), "connection rejected";
    /// The configuration changed in a way that needs a fresh session.
    CONFIGURATION_CHANGE = (6, 6), "configuration changed";
    /// The other of two connections was kept.
    COLLISION = (6, 7), "the other of two connections was kept";
    /// No resources left.
    OUT_OF_RESOURCES = (6, 8), "out of resources";
    /// Wraps another notification when the session must end for good (RFC 8538).
    HARD_RESET = (6, 9), "hard reset";
    /// Packets no longer reach the peer, as BFD says (RFC 9384).
    BFD_DOWN = (6, 10), "BFD session down";
    /// A route refresh message with a wrong length (RFC 7313).
    BAD_REFRESH_LENGTH = (7, 1), "bad route refresh length";
    /// The peer took nothing for the send hold time (RFC 9687).
    SEND_HOLD_TIMER_EXPIRED = (8, 0), "send hold timer expired";
}

impl Notification {
    /// Makes a notification without data.
    #[must_use]
    pub fn new((code, subcode): (u8, u8)) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// Adds data.
    #[must_use]
    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// Makes an administrative shutdown or reset with a text for the other operator, cut at 255 octets (RFC 9003).
    #[must_use]
    pub fn with_communication(mut self, text: &str) -> Self {
        let mut end = text.len().min(MAX_COMMUNICATION);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.data = Vec::with_capacity(end + 1);
        self.data.push(end as u8);
        self.data.extend_from_slice(&text.as_bytes()[..end]);
        self
    }

    /// Returns code and subcode.
    #[must_use]
    pub fn kind(&self) -> (u8, u8) {
        (self.code, self.subcode)
    }

    /// Returns the text of an administrative shutdown or reset; control characters are replaced.
    #[must_use]
    pub fn communication(&self) -> Option<String> {
        if !matches!(self.kind(), Self::ADMINISTRATIVE_SHUTDOWN | Self::ADMINISTRATIVE_RESET) {
            return None;
        }
        let mut reader = Reader::new(&self.data);
        let len = usize::from(reader.u8()?);
        let text = String::from_utf8_lossy(reader.take(len)?).into_owned();
        Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    /// Returns the notification inside a hard reset (RFC 8538), or itself.
    #[must_use]
    pub fn unwrapped(&self) -> Notification {
        match (self.kind(), self.data.as_slice()) {
            (Self::HARD_RESET, [code, subcode, data @ ..]) => {
                Notification { code: *code, subcode: *subcode, data: data.to_vec() }
            }
            _ => self.clone(),
        }
    }

    /// Wraps the notification in a hard reset (RFC 8538): the receiver must not keep the routes.
    #[must_use]
    pub fn into_hard_reset(self) -> Notification {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Notification::new(Self::HARD_RESET).with_data(&data)
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{words} ({}/{})", self.code, self.subcode)?,
            None => write!(f, "unknown error ({}/{})", self.code, self.subcode)?,
        }
        match self.communication() {
            Some(text) if !text.is_empty() => write!(f, ": {text}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_text_survives_and_is_cut_at_a_character() {
        let long = "ä".repeat(200);
        let sent = Notification::new(Notification::ADMINISTRATIVE_SHUTDOWN).with_communication(&long);
        assert_eq!(sent.communication(), Some("ä".repeat(127)));
        assert_eq!(
            Notification::new((6, 2)).with_communication("kernel update").to_string(),
            "administrative shutdown (6/2): kernel update"
        );
    }

    #[test]
    fn a_shutdown_text_longer_than_its_frame_is_not_read() {
        let hostile = Notification { code: 6, subcode: 2, data: vec![200, b'x'] };
        assert_eq!(hostile.communication(), None);
    }

    #[test]
    fn a_hard_reset_carries_the_real_reason() {
        let inner = Notification::new(Notification::CONFIGURATION_CHANGE);
        assert_eq!(inner.clone().into_hard_reset().unwrapped(), inner);
    }
}
