//! SCTP over raw sockets, for kernels without SCTP sockets: an INIT is answered by an INIT-ACK, or by an ABORT where
//! nothing listens.
//!
//! ```text
//!  0      2      4                8           12     13     14     16
//!  +------+------+----------------+-----------+------+------+------+--------------------
//!  | source | to | verification tag | CRC32c    | type | flags | length | chunk value
//!  +------+------+----------------+-----------+------+------+------+--------------------
//! ```
//!
//! RFC 9260: section 3.1 for the header, 3.3.2 and 3.3.3 for INIT and INIT ACK, 8.4 for packets out of the blue, appendix A
//! for the checksum.

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const HEADER: usize = 12;
/// An INIT without parameters: chunk header, initiate tag, window, streams out and in, initial number.
const INIT_LENGTH: u16 = 20;
const STATE_COOKIE: u16 = 7;
/// The window that is offered, in bytes; at least 1500 by the RFC.
const WINDOW: u32 = 65_536;

/// An SCTP packet with one chunk of an opening handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) chunk: Chunk,
}

/// The chunk. A tag is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// May I? The other end is to send back this tag.
    Init { tag: u32 },
    /// You may: the tag that came with the INIT.
    InitAck { tag: u32 },
    /// Nobody is here: the tag that came with the INIT.
    Abort { tag: u32 },
}

impl Packet {
    /// Makes the answer to an INIT; `None` when the packet is none.
    pub(super) fn answer(self, listening: bool) -> Option<Self> {
        let Chunk::Init { tag } = self.chunk else { return None };
        let chunk = if listening { Chunk::InitAck { tag } } else { Chunk::Abort { tag } };
        Some(Self { source: self.destination, destination: self.source, chunk })
    }

    /// Writes the packet, its checksum included.
    pub(super) fn encode(self) -> Vec<u8> {
        let (verification, kind) = match self.chunk {
            Chunk::Init { .. } => (0, INIT),
            Chunk::InitAck { tag } => (tag, INIT_ACK),
            Chunk::Abort { tag } => (tag, ABORT),
        };
        let mut bytes = Vec::with_capacity(HEADER + usize::from(INIT_LENGTH) + 8);
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(verification.to_be_bytes());
        bytes.extend([0; 4]);
        let cookie = kind == INIT_ACK;
        let length = if kind == ABORT { 4 } else { INIT_LENGTH + if cookie { 8 } else { 0 } };
        bytes.extend([kind, 0]);
        bytes.extend(length.to_be_bytes());
        if let Chunk::Init { tag } | Chunk::InitAck { tag } = self.chunk {
            // Any tag but 0 will do for the side that answers.
            bytes.extend(tag.to_be_bytes());
            bytes.extend(WINDOW.to_be_bytes());
            bytes.extend([0, 1, 0, 1]);
            bytes.extend(tag.to_be_bytes());
        }
        if cookie {
            // The one parameter that an INIT ACK must have.
            bytes.extend(STATE_COOKIE.to_be_bytes());
            bytes.extend(8_u16.to_be_bytes());
            bytes.extend(verification.to_be_bytes());
        }
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    /// Reads an IPv4 packet; `None` when it is not one of those that [`encode`](Self::encode) writes, or its checksum is
    /// wrong.
    pub(super) fn decode_ipv4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xf) * 4;
        let bytes = packet.get(header..)?;
        let (u16_at, u32_at) = (
            |at: usize| bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes),
            |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes),
        );
        let mut unsigned = bytes.to_vec();
        unsigned.get_mut(8..12)?.fill(0);
        if bytes.get(8..12)? != crc32c(&unsigned).to_le_bytes() {
            return None;
        }
        let verification = u32_at(4)?;
        let chunk = match *bytes.get(HEADER)? {
            INIT => Chunk::Init { tag: u32_at(HEADER + 4)? },
            INIT_ACK => Chunk::InitAck { tag: verification },
            ABORT => Chunk::Abort { tag: verification },
            _ => return None,
        };
        Some(Self { source: u16_at(0)?, destination: u16_at(2)?, chunk })
    }
}

/// CRC32c (Castagnoli), reflected, bit by bit: packets are short and few.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn what_is_written_can_be_read_and_an_init_alone_is_answered() {
        let mut ip = vec![0x45; 20];
        let init = Packet { source: 1024, destination: 80, chunk: Chunk::Init { tag: 7 } };
        ip.extend(init.encode());
        assert_eq!(Packet::decode_ipv4(&ip), Some(init));
        let answer = init.answer(true).unwrap();
        assert_eq!(answer, Packet { source: 80, destination: 1024, chunk: Chunk::InitAck { tag: 7 } });
        assert_eq!(init.answer(false).unwrap().chunk, Chunk::Abort { tag: 7 });
        assert_eq!(answer.answer(true), None);
        for packet in [answer, init.answer(false).unwrap()] {
            ip.truncate(20);
            ip.extend(packet.encode());
            assert_eq!(Packet::decode_ipv4(&ip), Some(packet));
        }
        ip[25] ^= 1;
        assert_eq!(Packet::decode_ipv4(&ip), None, "its checksum is wrong");
        assert_eq!(Packet::decode_ipv4(&[0x45]), None);
    }
}
