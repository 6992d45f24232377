//! OPEN: who a speaker is and what it can do (RFC 4271 section 4.2, RFC 5492, RFC 9072).
//!
//! ```text
//! [version 4, 1] [AS, 2] [hold time, 2] [identifier, 4] [length of parameters, 1] [parameters]
//! parameters of RFC 9072: [any length but 0, 1] [255, 1] [length, 2], each parameter's length 2 octets wide
//! ```

mod capability;

use std::net::Ipv4Addr;
use std::time::Duration;

use calico_model::{AsNumber, Family, RouterId};

use super::error::{DecodeError, Notification};
use super::reader::Reader;
use super::{MessageType, begin_message, finish_message};

pub use capability::{
    AddPath, Capabilities, Feature, Forwarding, GracefulRestart, LongLivedFamily, LongLivedRestart,
    OnNotification, RestartState, Role,
};

/// A hold time in seconds: zero (no keepalives at all) or at least three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldTime(u16);

impl HoldTime {
    /// What Calico uses unless told otherwise: 240 seconds.
    pub const CALICO: HoldTime = HoldTime(240);
    /// What RFC 4271 suggests: 90 seconds.
    pub const SUGGESTED: HoldTime = HoldTime(90);

    /// Makes a hold time, or `None` for one or two seconds.
    #[must_use]
    pub const fn new(seconds: u16) -> Option<Self> {
        if seconds == 1 || seconds == 2 { None } else { Some(Self(seconds)) }
    }

    /// Returns the seconds.
    #[must_use]
    pub fn seconds(self) -> u16 {
        self.0
    }

    /// Returns how long silence lasts until the session ends, or `None` when silence is allowed.
    #[must_use]
    pub fn interval(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }
}

/// An OPEN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The AS number, from the capability where it is there.
    pub asn: AsNumber,
    /// The hold time the sender wants; the smaller of both sides counts.
    pub hold_time: HoldTime,
    /// The sender's identifier.
    pub router_id: RouterId,
    /// What the sender can do.
    pub capabilities: Capabilities,
}

const CAPABILITIES: u8 = 2;
const EXTENDED_LENGTH: u8 = 255;

impl Open {
    /// Makes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let capabilities = self.capabilities.encode();
        let mut message = begin_message(MessageType::Open);
        message.push(4);
        let narrow = u16::try_from(self.asn.get()).unwrap_or(AsNumber::TRANS.get() as u16);
        message.extend_from_slice(&narrow.to_be_bytes());
        message.extend_from_slice(&self.hold_time.0.to_be_bytes());
        message.extend_from_slice(&self.router_id.addr().octets());
        put_parameter(&capabilities, &mut message);
        finish_message(message)
    }

    /// Reads the body of an OPEN.
    ///
    /// # Errors
    /// The remedy is always the NOTIFICATION of RFC 4271 section 6.2.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let short = || DecodeError::reset(Notification::OPEN_ERROR, "OPEN ends too early");
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(short)?;
        if version != 4 {
            return Err(DecodeError::reset_with(
                Notification::UNSUPPORTED_VERSION,
                &[0, 4],
                "the peer speaks another version of BGP than 4",
            ));
        }
        let narrow = reader.u16().ok_or_else(short)?;
        let hold_time = reader.u16().ok_or_else(short)?;
        let id = Ipv4Addr::from(reader.u32().ok_or_else(short)?);
        let mut capabilities = Capabilities::default();
        let mut zero_wide = false;
        for parameter in Parameters::begin(&mut reader).ok_or_else(short)? {
            let (kind, value) = parameter.ok_or_else(short)?;
            if kind != CAPABILITIES {
                return Err(DecodeError::reset_with(
                    Notification::UNSUPPORTED_PARAMETER,
                    &[kind],
                    "OPEN has an optional parameter other than capabilities",
                ));
            }
            zero_wide |= capabilities.add(value).ok_or_else(short)?;
        }
        let asn = capabilities.four_octet_as.or(AsNumber::new(narrow.into()).filter(|_| !zero_wide));
        Ok(Self {
            asn: asn
                .filter(|_| narrow != 0)
                .ok_or(DecodeError::reset(Notification::BAD_PEER_AS, "the AS number is 0"))?,
            hold_time: HoldTime::new(hold_time).ok_or(DecodeError::reset(
                Notification::UNACCEPTABLE_HOLD_TIME,
                "a hold time of one or two seconds",
            ))?,
            router_id: RouterId::new(id)
                .ok_or(DecodeError::reset(Notification::BAD_IDENTIFIER, "the router id is 0.0.0.0"))?,
            capabilities,
        })
    }
}

/// Appends the optional parameters: the capabilities, in the wide form of RFC 9072 only when the plain one is too small.
fn put_parameter(capabilities: &[u8], message: &mut Vec<u8>) {
    match u8::try_from(capabilities.len() + 2) {
        _ if capabilities.is_empty() => message.push(0),
        Ok(len) if len != EXTENDED_LENGTH => {
            message.extend_from_slice(&[len, CAPABILITIES, len - 2]);
        }
        _ => {
            let len = capabilities.len() as u16;
            message.extend_from_slice(&[EXTENDED_LENGTH, EXTENDED_LENGTH]);
            message.extend_from_slice(&(len + 3).to_be_bytes());
            message.push(CAPABILITIES);
            message.extend_from_slice(&len.to_be_bytes());
        }
    }
    message.extend_from_slice(capabilities);
}

/// The optional parameters, in the form of RFC 4271 or of RFC 9072.
struct Parameters<'a> {
    reader: Reader<'a>,
    wide: bool,
}

impl<'a> Parameters<'a> {
    fn begin(reader: &mut Reader<'a>) -> Option<Self> {
        let len = reader.u8()?;
        let mut ahead = *reader;
        // What the type says counts, whatever the length is (RFC 9072 section 2).
        if len != 0 && ahead.u8() == Some(EXTENDED_LENGTH) {
            let len = ahead.u16()?;
            let octets = ahead.take(usize::from(len)).filter(|_| ahead.is_empty())?;
            return Some(Self { reader: Reader::new(octets), wide: true });
        }
        let octets = reader.take(usize::from(len)).filter(|_| reader.is_empty())?;
        Some(Self { reader: Reader::new(octets), wide: false })
    }

    fn read(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = self.reader.u8()?;
        let len = if self.wide { usize::from(self.reader.u16()?) } else { usize::from(self.reader.u8()?) };
        Some((kind, self.reader.take(len)?))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let parameter = self.read();
        if parameter.is_none() {
            self.reader.rest();
        }
        Some(parameter)
    }
}

pub(crate) fn afi(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_do_not_fit_the_plain_form_take_the_wide_one_and_come_back() {
        for len in [0, 2, 250, 252, 253, 254, 300, 1000] {
            // Capabilities that nobody knows, each of at most 257 octets, and route refresh at the end.
            let mut capabilities = Vec::new();
            while capabilities.len() < len {
                let value = (len - capabilities.len()).saturating_sub(2).min(200);
                capabilities.extend_from_slice(&[200, value as u8]);
                capabilities.resize(capabilities.len() + value, 7);
            }
            capabilities.extend_from_slice(&[2, 0]);
            let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1];
            put_parameter(&capabilities, &mut body);
            assert_eq!(body[9] == EXTENDED_LENGTH, capabilities.len() > 252, "{len}");
            let open = Open::decode(&body).unwrap();
            assert!(open.capabilities.features.contains(&Feature::RouteRefresh), "{len}");
        }
    }
}
