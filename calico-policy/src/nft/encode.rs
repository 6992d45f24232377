//! A transaction as one batch of nf_tables messages.

use super::element::{IFNAME, Shape, keys};
use super::expression::{self, Code, octets};
use super::wire::{APPEND, CREATE, Messages};
use super::{Digest, Operation};
use crate::ruleset::{Base, ChainKind, ChainName, Element, Hook, SetKind, SetName, VerdictMap};

/// The name of our table.
pub(super) const TABLE: &str = "calico";

/// The numbers of nf_tables' messages.
pub(super) mod kind {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DEL_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DEL_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DEL_SET: u16 = 11;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DEL_ELEMENTS: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
}

pub(super) const INTERVAL: u32 = 4;
/// Ranges of several fields at once.
pub(super) const CONCATENATION: u32 = 0x80;
pub(super) const MAP: u32 = 8;
/// The type of a map's values that are verdicts.
pub(super) const VERDICTS: u32 = 0xffff_ff00;
/// What a set is like, and in it how many elements it takes.
pub(super) const DESCRIPTION: u16 = 9;
pub(super) const ROOM: u16 = 1;
/// The comment of a rule among what userspace keeps with it.
pub(super) const COMMENT: u8 = 0;
/// An attribute holds less than 64 KiB, so elements go in pieces, of so many bytes and at most one element more.
const PIECE: usize = 60_000;

/// Writes a part of a transaction. Each message's sequence number comes with its operation.
pub(super) fn batch<'o>(out: &mut Messages, operations: &'o [Operation]) -> Vec<(u32, &'o Operation)> {
    let mut places = Vec::new();
    let mut made = Made::default();
    for operation in operations {
        let before = out.sequence;
        encode(out, operation, &mut made);
        places.extend((before + 1..=out.sequence).map(|sequence| (sequence, operation)));
    }
    places
}

/// The set that was made last in a batch, and its number there.
///
/// The kernel finds a set of a name by going through all sets of the table, and one of a number by going through those of the batch,
/// the last first.
#[derive(Default)]
struct Made<'o> {
    name: Option<&'o SetName>,
    number: u32,
}

fn encode<'o>(out: &mut Messages, operation: &'o Operation, made: &mut Made<'o>) {
    match operation {
        Operation::AddTable => {
            out.message(kind::NEW_TABLE, CREATE, |out| {
                out.text(1, TABLE);
                out.number(2, 0);
            });
        }
        Operation::DeleteTable => {
            out.message(kind::DEL_TABLE, 0, |out| out.text(1, TABLE));
        }
        Operation::AddSet(name, kind, room) => add_set(out, name, *kind, 0, *room, made),
        Operation::AddMap(name, kind) => add_set(out, name, *kind, MAP, None, made),
        Operation::AddChain(name, base) => add_chain(out, name, *base),
        // Parts are batches of their own.
        Operation::Settle => {}
        Operation::FlushSet(name) => {
            out.message(kind::DEL_ELEMENTS, 0, |out| named(out, name));
        }
        Operation::DeleteElements(name, elements) | Operation::DeleteMapElements(name, elements) => {
            pieces(out, kind::DEL_ELEMENTS, 0, |out| named(out, name), elements.iter(), element);
        }
        Operation::AddElements(name, elements) => {
            let set = |out: &mut Messages| set_of_elements(out, name, made);
            pieces(out, kind::NEW_ELEMENTS, CREATE, set, elements.iter(), element);
        }
        Operation::FlushChain(name) => {
            out.message(kind::DEL_RULE, 0, |out| {
                out.text(1, TABLE);
                out.text(2, name.as_str());
            });
        }
        Operation::AddRule(chain, rule) => {
            out.message(kind::NEW_RULE, CREATE | APPEND, |out| {
                out.text(1, TABLE);
                out.text(2, chain.as_str());
                out.nest(4, |out| expression::rule(out, rule));
                out.attribute(7, &comment(&Digest::of(rule)));
            });
        }
        Operation::AddMapElements(name, VerdictMap { kind, elements }) => {
            let comes_back = *kind == SetKind::ProtocolPort;
            let key = |(element, chain)| keys(element).map(move |key| (key, chain));
            let entries = elements.iter().flat_map(key);
            let set = |out: &mut Messages| set_of_elements(out, name, made);
            pieces(out, kind::NEW_ELEMENTS, CREATE, set, entries, |out, (key, chain)| {
                out.nest(1, |out| {
                    out.nest(1, |out| out.attribute(1, &key.bytes));
                    let code = if comes_back { Code::Jump(chain) } else { Code::Goto(chain) };
                    expression::verdict(out, 2, &code);
                });
            });
        }
        Operation::DeleteChain(name) => {
            out.message(kind::DEL_CHAIN, 0, |out| {
                out.text(1, TABLE);
                out.text(3, name.as_str());
            });
        }
        Operation::DeleteSet(name) | Operation::DeleteMap(name) => {
            out.message(kind::DEL_SET, 0, |out| {
                out.text(1, TABLE);
                out.text(2, name.as_str());
            });
        }
    }
}

/// Makes a set, or with the flag [`MAP`] a map to verdicts.
fn add_set<'o>(
    out: &mut Messages,
    name: &'o SetName,
    kind: SetKind,
    map: u32,
    room: Option<u32>,
    made: &mut Made<'o>,
) {
    *made = Made { name: Some(name), number: made.number + 1 };
    let shape = Shape::of(kind);
    let flags = shape.flags() | map;
    out.message(kind::NEW_SET, CREATE, |out| {
        out.text(1, TABLE);
        out.text(2, name.as_str());
        out.number(3, flags);
        out.number(4, shape.key_type);
        out.number(5, shape.key_length);
        if map != 0 {
            out.number(6, VERDICTS);
        }
        if !shape.fields.is_empty() || room.is_some() {
            out.nest(DESCRIPTION, |out| {
                room.into_iter().for_each(|room| out.number(ROOM, room));
                if !shape.fields.is_empty() {
                    let field = |out: &mut Messages, length: &u32| out.nest(1, |out| out.number(1, *length));
                    out.nest(2, |out| shape.fields.iter().for_each(|length| field(out, length)));
                }
            });
        }
        out.number(10, made.number);
        if shape.key_type == IFNAME {
            out.attribute(13, &names_in_host_order());
        }
    });
}

/// What the `nft` program wants to be told to print interfaces' names: that the key is in host byte order.
fn names_in_host_order() -> Vec<u8> {
    let mut userdata = vec![0, 4];
    userdata.extend(1_u32.to_ne_bytes());
    userdata
}

fn add_chain(out: &mut Messages, name: &ChainName, base: Option<Base>) {
    out.message(kind::NEW_CHAIN, CREATE, |out| {
        out.text(1, TABLE);
        out.text(3, name.as_str());
        let Some(base) = base else { return };
        out.nest(4, |out| {
            out.number(1, hook_number(base.hook));
            out.attribute(2, &base.priority.to_be_bytes());
        });
        // NF_ACCEPT
        out.number(5, 1);
        out.text(7, chain_type(base.kind));
    });
}

pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(super) fn chain_type(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

/// Says whose elements they are.
fn set_of_elements(out: &mut Messages, name: &SetName, made: &Made<'_>) {
    if made.name != Some(name) {
        return named(out, name);
    }
    out.text(1, TABLE);
    out.number(4, made.number);
}

fn named(out: &mut Messages, set: &SetName) {
    out.text(1, TABLE);
    out.text(2, set.as_str());
}

/// Writes elements in as many messages as it takes.
fn pieces<T>(
    out: &mut Messages,
    message: u16,
    flags: u16,
    set: impl Fn(&mut Messages),
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut Messages, &T),
) {
    let mut items = items.peekable();
    while items.peek().is_some() {
        out.message(message, flags, |out| {
            set(out);
            out.nest(3, |out| {
                let full = out.bytes().len() + PIECE;
                while out.bytes().len() < full
                    && let Some(item) = items.next()
                {
                    write(out, &item);
                }
            });
        });
    }
}

fn element(out: &mut Messages, element: &&Element) {
    // Of hundreds of thousands nearly all are these.
    if let Element::Address(addr) = element {
        return out.exact_element(&octets(*addr));
    }
    for key in keys(element) {
        out.nest(1, |out| {
            out.nest(1, |out| out.attribute(1, &key.bytes));
            if key.end {
                out.number(3, 1);
            }
            if let Some(last) = &key.last {
                out.nest(10, |out| out.attribute(1, last));
            }
        });
    }
}

/// Userspace's own attributes have a type and a length of one byte each.
fn comment(digest: &Digest) -> Vec<u8> {
    let text = digest.to_string();
    let mut bytes = vec![COMMENT, text.len() as u8 + 1];
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}
