//! Control packets (RFC 5880 section 4.1).
//!
//! ```text
//! [version 3 bits, diagnostic 5 bits] [state 2 bits, flags 6 bits] [multiplier, 1] [length, 1]
//! [my discriminator, 4] [your discriminator, 4]
//! [desired least interval of sending, 4] [required least interval of receiving, 4] [the same for echoes, 4]
//! ```
//!
//! Intervals are microseconds. We do not authenticate, so a packet with authentication is not for us.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// The length of a packet without authentication, in octets.
pub const PACKET_LEN: usize = 24;

/// What a system believes of the path (RFC 5880 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Held down by the operator, which says nothing of the path.
    AdminDown,
    /// Nothing is heard.
    Down,
    /// The other system is heard, and does not hear us yet.
    Init,
    /// Packets pass both ways.
    Up,
}

/// Why a system last left [`State::Up`] (RFC 5880 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnostic {
    /// It never did.
    None,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The echo function failed.
    EchoFailed,
    /// The other system said that the session is down.
    NeighborDown,
    /// The forwarding plane was reset.
    ForwardingReset,
    /// Something behind the path is down.
    PathDown,
    /// A path concatenated to this one is down.
    ConcatenatedPathDown,
    /// The operator did it.
    AdminDown,
    /// A path concatenated in the other direction is down.
    ReverseConcatenatedPathDown,
    /// A number that nobody defined.
    Reserved(u8),
}

impl Diagnostic {
    const KNOWN: [Self; 9] = [
        Self::None,
        Self::DetectionTimeExpired,
        Self::EchoFailed,
        Self::NeighborDown,
        Self::ForwardingReset,
        Self::PathDown,
        Self::ConcatenatedPathDown,
        Self::AdminDown,
        Self::ReverseConcatenatedPathDown,
    ];

    fn of(code: u8) -> Self {
        Self::KNOWN.get(usize::from(code)).copied().unwrap_or(Self::Reserved(code))
    }

    fn code(self) -> u8 {
        if let Self::Reserved(code) = self {
            return code & 0x1f;
        }
        Self::KNOWN.iter().position(|known| *known == self).unwrap_or_default() as u8
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no diagnostic",
            Self::DetectionTimeExpired => "nothing was heard for the detection time",
            Self::EchoFailed => "the echo function failed",
            Self::NeighborDown => "the neighbor signaled that the session is down",
            Self::ForwardingReset => "the forwarding plane was reset",
            Self::PathDown => "the path is down",
            Self::ConcatenatedPathDown => "a concatenated path is down",
            Self::AdminDown => "administratively down",
            Self::ReverseConcatenatedPathDown => "a concatenated path is down in the other direction",
            Self::Reserved(code) => return write!(f, "unknown diagnostic {code}"),
        })
    }
}

/// What a packet is to a poll sequence (RFC 5880 section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Nothing.
    No,
    /// It asks for an answer at once.
    Poll,
    /// It is that answer.
    Final,
}

/// Whether a system wants periodic packets (RFC 5880 section 6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Asynchronous,
    /// Not while both are up.
    Demand,
}

/// A control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last was not up any more.
    pub diagnostic: Diagnostic,
    /// What the sender believes.
    pub state: State,
    /// What it is to a poll sequence.
    pub poll: Poll,
    /// Whether the sender wants periodic packets.
    pub mode: Mode,
    /// After how many lost packets of the sender's the path is broken.
    pub multiplier: NonZeroU8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's name for the session, as far as the sender knows it.
    pub your_discriminator: Option<NonZeroU32>,
    /// The shortest interval at which the sender wants to send.
    pub desired_min_tx: Duration,
    /// The shortest interval at which the sender can receive; zero asks for no periodic packets.
    pub required_min_rx: Duration,
}

/// Why a packet is passed over (RFC 5880 section 6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Discarded {
    /// Fewer octets than a packet has, or than it says.
    #[error("the packet is cut short")]
    Short,
    /// Another version than 1.
    #[error("the version is {0}, not 1")]
    Version(u8),
    /// A multiplier of zero.
    #[error("the detection multiplier is zero")]
    Multiplier,
    /// The multipoint bit is set.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// The sender has no name for the session.
    #[error("the sender's discriminator is zero")]
    Discriminator,
    /// The sender is past Down without knowing our name for the session.
    #[error("our discriminator is zero in the state {0:?}")]
    Stranger(State),
    /// It is authenticated, and no key is configured.
    #[error("the packet is authenticated and we have no key")]
    Authenticated,
    /// Both the poll and the final bit are set.
    #[error("it asks and answers at once")]
    PollAndFinal,
}

mod flag {
    pub(super) const POLL: u8 = 0x20;
    pub(super) const FINAL: u8 = 0x10;
    pub(super) const AUTHENTICATION: u8 = 0x04;
    pub(super) const DEMAND: u8 = 0x02;
    pub(super) const MULTIPOINT: u8 = 0x01;
}

impl Packet {
    /// Makes the wire form.
    #[must_use]
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let state = match self.state {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3u8,
        };
        let poll = match self.poll {
            Poll::No => 0,
            Poll::Poll => flag::POLL,
            Poll::Final => flag::FINAL,
        };
        let demand = if self.mode == Mode::Demand { flag::DEMAND } else { 0 };
        let mut out = [0; PACKET_LEN];
        out[0] = 1 << 5 | self.diagnostic.code();
        out[1] = state << 6 | poll | demand;
        out[2] = self.multiplier.get();
        out[3] = PACKET_LEN as u8;
        out[4..8].copy_from_slice(&self.my_discriminator.get().to_be_bytes());
        let your = self.your_discriminator.map_or(0, NonZeroU32::get);
        out[8..12].copy_from_slice(&your.to_be_bytes());
        out[12..16].copy_from_slice(&micros(self.desired_min_tx).to_be_bytes());
        out[16..20].copy_from_slice(&micros(self.required_min_rx).to_be_bytes());
        out
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// Why it is to be passed over; there is no answer to a bad packet.
    pub fn decode(octets: &[u8]) -> Result<Self, Discarded> {
        let packet: &[u8; PACKET_LEN] = octets.first_chunk().ok_or(Discarded::Short)?;
        let [first, second, multiplier, len, ..] = *packet;
        if first >> 5 != 1 {
            return Err(Discarded::Version(first >> 5));
        }
        let authenticated = second & flag::AUTHENTICATION != 0;
        let least = if authenticated { PACKET_LEN + 2 } else { PACKET_LEN };
        if usize::from(len) < least || usize::from(len) > octets.len() {
            return Err(Discarded::Short);
        }
        if second & flag::MULTIPOINT != 0 {
            return Err(Discarded::Multipoint);
        }
        let word =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let state = match second >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        };
        let your_discriminator = NonZeroU32::new(word(8));
        if your_discriminator.is_none() && state > State::Down {
            return Err(Discarded::Stranger(state));
        }
        let poll = match (second & flag::POLL, second & flag::FINAL) {
            (0, 0) => Poll::No,
            (_, 0) => Poll::Poll,
            (0, _) => Poll::Final,
            _ => return Err(Discarded::PollAndFinal),
        };
        let decoded = Self {
            diagnostic: Diagnostic::of(first & 0x1f),
            state,
            poll,
            mode: if second & flag::DEMAND != 0 { Mode::Demand } else { Mode::Asynchronous },
            multiplier: NonZeroU8::new(multiplier).ok_or(Discarded::Multiplier)?,
            my_discriminator: NonZeroU32::new(word(4)).ok_or(Discarded::Discriminator)?,
            your_discriminator,
            desired_min_tx: Duration::from_micros(word(12).into()),
            required_min_rx: Duration::from_micros(word(16).into()),
        };
        if authenticated { Err(Discarded::Authenticated) } else { Ok(decoded) }
    }
}

fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
