//! Netlink messages and their attributes, as `linux/netlink.h` and `linux/netfilter/nfnetlink.h` define them.
//!
//! ```text
//! message    length u32 | type u16 | flags u16 | sequence u32 | port u32     host byte order
//! nfgenmsg   family u8 | version u8 | resource be16                          then attributes
//! attribute  length u16 | type u16, both host byte order | value             padded to 4 bytes
//! ```
//!
//! Numbers inside nf_tables attributes are big-endian, but for what is loaded into registers in host order.

pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
/// Set on a part of a dump during which the kernel's state changed.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;

pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// `NFPROTO_INET`: both families in one table.
const INET: u8 = 1;

/// Messages being written, one after the other.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// Where the message being written begins.
    start: usize,
    pub(super) sequence: u32,
}

impl Messages {
    pub(super) fn from_sequence(sequence: u32) -> Self {
        Self { sequence, ..Self::default() }
    }

    /// Writes a message of nf_tables: `write` adds its attributes. Returns its sequence number.
    pub(super) fn message(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Self)) -> u32 {
        self.raw((NFTABLES << 8) | kind, flags, INET, 0, write)
    }

    pub(super) fn begin_batch(&mut self) -> u32 {
        self.raw(BATCH_BEGIN, 0, 0, NFTABLES, |_| {})
    }

    pub(super) fn end_batch(&mut self) -> u32 {
        self.raw(BATCH_END, 0, 0, NFTABLES, |_| {})
    }

    fn raw(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        write: impl FnOnce(&mut Self),
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        write(self);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence
    }

    /// Asks for an answer to the message written last.
    pub(super) fn acknowledge_last(&mut self) {
        self.bytes[self.start + 6] |= ACK as u8;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let length = (4 + text.len() + 1) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub(super) fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    /// Writes an attribute that holds attributes. What is in it stays under 64 KiB.
    pub(super) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        write(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Writes an element of a set that is one key: what three [nested](Self::nest) attributes would, at once.
    pub(super) fn exact_element(&mut self, key: &[u8]) {
        let length = key.len() as u16;
        let padded = length.next_multiple_of(4);
        let mut head = [0; 12];
        for (at, length, kind) in
            [(0, padded + 12, NESTED | 1), (4, padded + 8, NESTED | 1), (8, length + 4, 1)]
        {
            head[at..at + 2].copy_from_slice(&u16::to_ne_bytes(length));
            head[at + 2..at + 4].copy_from_slice(&u16::to_ne_bytes(kind));
        }
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(key);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'b> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// The socket that asked, or whose change is told.
    pub(super) port: u32,
    body: &'b [u8],
}

impl<'b> Received<'b> {
    /// Splits a datagram into its messages; what is cut off at the end is left out.
    pub(super) fn all(mut bytes: &'b [u8]) -> Vec<Self> {
        let mut messages = Vec::new();
        while let Some(header) = bytes.first_chunk::<HEADER>() {
            let length = u32_at(header, 0) as usize;
            if length < HEADER || length > bytes.len() {
                break;
            }
            messages.push(Self {
                kind: u16_at(header, 4),
                flags: u16_at(header, 6),
                sequence: u32_at(header, 8),
                port: u32_at(header, 12),
                body: &bytes[HEADER..length],
            });
            bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        }
        messages
    }

    /// Returns the number of an answer: 0 for success, or the system's error.
    pub(super) fn error(&self) -> i32 {
        self.body.first_chunk::<4>().map_or(0, |bytes| -i32::from_ne_bytes(*bytes))
    }

    /// Returns the number of a message of nf_tables about something of the family of our table.
    pub(super) fn of_our_family(&self) -> Option<u16> {
        let ours = self.kind >> 8 == NFTABLES && self.body.first() == Some(&INET);
        ours.then_some(self.kind & 0xff)
    }

    pub(super) fn attributes(&self) -> Attributes<'b> {
        Attributes(self.body.get(GENERIC..).unwrap_or_default())
    }
}

/// Attributes that were received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'b>(pub(super) &'b [u8]);

impl<'b> Attributes<'b> {
    /// Returns the value of the first attribute of a kind.
    pub(super) fn get(self, kind: u16) -> Option<&'b [u8]> {
        self.find(|found, _| found == kind)
    }

    pub(super) fn nested(self, kind: u16) -> Option<Attributes<'b>> {
        self.get(kind).map(Attributes)
    }

    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn text(self, kind: u16) -> Option<&'b str> {
        std::str::from_utf8(until_nul(self.get(kind)?)).ok()
    }
}

impl<'b> Iterator for Attributes<'b> {
    type Item = (u16, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16_at(header, 0));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(header, 2) & !NESTED, value))
    }
}

impl<'b> Attributes<'b> {
    fn find(mut self, wanted: impl Fn(u16, &[u8]) -> bool) -> Option<&'b [u8]> {
        Iterator::find(&mut self, |(kind, value)| wanted(*kind, value)).map(|(_, value)| value)
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
