//! AS_PATH (RFC 4271 section 5.1.2) with four-octet numbers throughout, and its meeting with two-octet speakers
//! (RFC 6793 section 4.2).
//!
//! ```text
//! segment: [type, 1 octet: 1 set, 2 sequence] [count, 1 octet] [count numbers, 2 or 4 octets each]
//! ```

use std::fmt;

use calico_model::AsNumber;

use super::reader::Reader;

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
/// The segments inside a confederation, of which we are no member (RFC 5065).
const CONFEDERATION: [u8; 2] = [3, 4];

/// How many octets an AS number takes on a session: 4 when both sides said so (RFC 6793), else 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsWidth {
    /// An old speaker.
    Two,
    /// Both sides announced the capability.
    Four,
}

/// The autonomous systems a route came through, nearest first. Held in its four-octet wire form.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct AsPath(Box<[u8]>);

/// One segment of an AS path.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Whether the numbers are in order.
    pub kind: SegmentKind,
    octets: &'a [u8],
}

/// Whether a segment's numbers are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// AS_SET: any order, and a length of one (deprecated by RFC 9774, still accepted).
    Set,
    /// AS_SEQUENCE: nearest first.
    Sequence,
}

impl<'a> Segment<'a> {
    /// Returns the numbers.
    #[must_use]
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = u32> + Clone + use<'a> {
        self.octets.chunks_exact(4).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]))
    }
}

impl AsPath {
    /// Reads a path, or says what is wrong with it.
    pub(crate) fn decode(octets: &[u8], width: AsWidth) -> Result<Self, &'static str> {
        Self::decode_but(octets, width, &[])
    }

    /// Reads the AS4_PATH of an old speaker, without the segments that its confederation has left in it (RFC 6793 section
    /// 6).
    pub(crate) fn decode_through_old(octets: &[u8]) -> Result<Self, &'static str> {
        Self::decode_but(octets, AsWidth::Four, &CONFEDERATION)
    }

    /// Reads a path without the segments of some types.
    fn decode_but(octets: &[u8], width: AsWidth, skipped: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(octets);
        let mut held =
            Vec::with_capacity(if width == AsWidth::Four { octets.len() } else { octets.len() * 2 });
        while !reader.is_empty() {
            let (Some(kind), Some(count)) = (reader.u8(), reader.u8()) else {
                return Err("a segment of the AS path is cut short");
            };
            if kind != SET && kind != SEQUENCE && !skipped.contains(&kind) {
                return Err("the AS path has a segment of a type that is not a set or a sequence");
            }
            if count == 0 {
                return Err("the AS path has an empty segment");
            }
            if skipped.contains(&kind) {
                reader.take(4 * usize::from(count)).ok_or("a segment of the AS path is cut short")?;
                continue;
            }
            held.extend_from_slice(&[kind, count]);
            for _ in 0..count {
                let number = match width {
                    AsWidth::Two => reader.u16().map(u32::from),
                    AsWidth::Four => reader.u32(),
                };
                match number {
                    None => return Err("a segment of the AS path is cut short"),
                    Some(0) => return Err("the AS path holds AS 0"),
                    Some(number) => held.extend_from_slice(&number.to_be_bytes()),
                }
            }
        }
        let path = Self(held.into());
        if path.is_too_long() {
            return Err("the AS path is too long for four-octet numbers");
        }
        Ok(path)
    }

    /// Makes a path of one sequence; of nothing, the empty path.
    #[must_use]
    pub fn sequence(numbers: &[AsNumber]) -> Self {
        let mut held = Vec::new();
        for chunk in numbers.chunks(255) {
            held.extend_from_slice(&[SEQUENCE, chunk.len() as u8]);
            chunk.iter().for_each(|n| held.extend_from_slice(&n.get().to_be_bytes()));
        }
        Self(held.into())
    }

    /// Returns the segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> + '_ {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let [kind, count, tail @ ..] = rest else { return None };
            let (octets, after) = tail.split_at_checked(usize::from(*count) * 4)?;
            rest = after;
            let kind = if *kind == SET { SegmentKind::Set } else { SegmentKind::Sequence };
            Some(Segment { kind, octets })
        })
    }

    /// Returns every number, nearest first.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments().flat_map(|segment| segment.numbers())
    }

    /// Reports whether the route began inside the AS that tells it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the length that the decision compares: a set counts as one (RFC 4271 section 9.1.2.2 a).
    #[must_use]
    pub fn hops(&self) -> usize {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => segment.numbers().len(),
            })
            .sum()
    }

    /// Returns the neighbouring AS the route was received from; `None` for a route of the own AS (RFC 4271 section
    /// 9.1.2.2 c).
    #[must_use]
    pub fn neighbor(&self) -> Option<u32> {
        let first = self.segments().next()?;
        match first.kind {
            SegmentKind::Set => None,
            SegmentKind::Sequence => first.numbers().next(),
        }
    }

    /// Counts how often a number occurs.
    #[must_use]
    pub fn count(&self, number: AsNumber) -> usize {
        self.numbers().filter(|n| *n == number.get()).count()
    }

    /// Returns the path with a number in front.
    #[must_use]
    pub fn prepend(&self, number: AsNumber) -> Self {
        let mut held = Vec::with_capacity(self.0.len() + 6);
        let tail: &[u8] = match &*self.0 {
            [SEQUENCE, count @ 0..=254, tail @ ..] => {
                held.extend_from_slice(&[SEQUENCE, count + 1]);
                tail
            }
            whole => {
                held.extend_from_slice(&[SEQUENCE, 1]);
                whole
            }
        };
        held.extend_from_slice(&number.get().to_be_bytes());
        held.extend_from_slice(tail);
        Self(held.into())
    }

    /// Reports whether no message can carry the path in four-octet numbers: an old speaker's may be half as long again.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0.len() > usize::from(u16::MAX)
    }

    /// Reports whether an old speaker would lose a number.
    pub(crate) fn has_wide_numbers(&self) -> bool {
        self.numbers().any(|n| n > u32::from(u16::MAX))
    }

    /// Appends the wire form; an old speaker sees AS_TRANS for a wide number.
    pub(crate) fn encode(&self, width: AsWidth, out: &mut Vec<u8>) {
        match width {
            AsWidth::Four => out.extend_from_slice(&self.0),
            AsWidth::Two => {
                for segment in self.segments() {
                    let kind = if segment.kind == SegmentKind::Set { SET } else { SEQUENCE };
                    out.extend_from_slice(&[kind, segment.numbers().len() as u8]);
                    for number in segment.numbers() {
                        let narrow = u16::try_from(number).unwrap_or(AsNumber::TRANS.get() as u16);
                        out.extend_from_slice(&narrow.to_be_bytes());
                    }
                }
            }
        }
    }

    /// Merges what an old speaker sent with the AS4_PATH that came through it (RFC 6793 section 4.2.3): the wide path
    /// replaces the tail of the narrow one, unless it is longer.
    pub(crate) fn merged_with(&self, wide: &AsPath) -> Self {
        let Some(extra) = self.hops().checked_sub(wide.hops()) else { return self.clone() };
        let mut held = Vec::with_capacity(self.0.len());
        let mut left = extra;
        for segment in self.segments() {
            if left == 0 {
                break;
            }
            let (kind, take, hops) = match segment.kind {
                SegmentKind::Set => (SET, segment.numbers().len(), 1),
                SegmentKind::Sequence => {
                    let take = segment.numbers().len().min(left);
                    (SEQUENCE, take, take)
                }
            };
            held.extend_from_slice(&[kind, take as u8]);
            segment.numbers().take(take).for_each(|n| held.extend_from_slice(&n.to_be_bytes()));
            left -= hops;
        }
        held.extend_from_slice(&wide.0);
        Self(held.into())
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for segment in self.segments() {
            match segment.kind {
                SegmentKind::Sequence => {
                    for number in segment.numbers() {
                        write!(f, "{gap}{number}")?;
                        gap = " ";
                    }
                }
                SegmentKind::Set => {
                    write!(f, "{gap}{{")?;
                    for (i, number) in segment.numbers().enumerate() {
                        write!(f, "{}{number}", if i == 0 { "" } else { " " })?;
                    }
                    f.write_str("}")?;
                    gap = " ";
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(numbers: &[u32]) -> AsPath {
        AsPath::sequence(&numbers.iter().map(|n| AsNumber::new(*n).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn prepending_begins_a_new_segment_when_the_first_is_full_or_a_set() {
        let full = path(&[7; 255]).prepend(AsNumber::new(8).unwrap());
        assert_eq!(full.segments().count(), 2);
        assert_eq!(full.hops(), 256);
        let set = AsPath::decode(&[1, 2, 0, 1, 0, 2], AsWidth::Two).unwrap();
        assert_eq!(set.hops(), 1);
        assert_eq!(set.prepend(AsNumber::new(8).unwrap()).to_string(), "8 {1 2}");
        assert_eq!(path(&[]).prepend(AsNumber::new(8).unwrap()), path(&[8]));
    }

    #[test]
    fn a_wide_path_comes_through_an_old_speaker() {
        let original = path(&[70000, 3]);
        let mut narrow = Vec::new();
        path(&[5]).encode(AsWidth::Two, &mut narrow);
        assert_eq!(narrow, [2, 1, 0, 5]);
        let mut through = Vec::new();
        path(&[5, 70000, 3]).encode(AsWidth::Two, &mut through);
        let seen = AsPath::decode(&through, AsWidth::Two).unwrap();
        assert_eq!(seen, path(&[5, 23456, 3]));
        assert_eq!(
            seen.merged_with(&original),
            AsPath::decode(&[2, 1, 0, 0, 0, 5, 2, 2, 0, 1, 0x11, 0x70, 0, 0, 0, 3], AsWidth::Four).unwrap()
        );
        assert_eq!(path(&[1]).merged_with(&path(&[2, 3])), path(&[1]), "a longer wide path is not believed");
    }
}
