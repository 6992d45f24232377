//! What the kernel answers, to what the table holds.
//!
//! What is of a kind that we make but has a shape that we never write is kept as foreign, so that the plan replaces it.

use std::collections::BTreeSet;

use super::actual::{ActualChain, ActualRule, Digest, ForeignBase};
use super::element::{Bytes, Key, Shape, exact};
use super::encode::{COMMENT, DESCRIPTION, MAP, ROOM, TABLE, VERDICTS, chain_type, hook_number};
use super::wire::{Attributes, until_nul};
use crate::ruleset::{Base, ChainKind, ChainName, Hook, SetKind, SetName, VerdictMap};

/// Reports whether an object's table, its first attribute, is ours.
pub(super) fn is_ours(object: Attributes<'_>) -> bool {
    object.text(1) == Some(TABLE)
}

pub(super) fn chain(chain: Attributes<'_>) -> Option<(ChainName, ActualChain)> {
    let name = ChainName::read(chain.text(3)?);
    let base = match chain.nested(4) {
        None => Ok(None),
        Some(hook) => base(chain, hook).map(Some).ok_or(ForeignBase),
    };
    Some((name, ActualChain { base, rules: Vec::new() }))
}

fn base(chain: Attributes<'_>, hook: Attributes<'_>) -> Option<Base> {
    let kind = [ChainKind::Filter, ChainKind::Nat]
        .into_iter()
        .find(|kind| chain.text(7) == Some(chain_type(*kind)))?;
    let number = hook.number(1)?;
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let place = hooks.into_iter().find(|hook| hook_number(*hook) == number)?;
    let priority = hook.number(2)?.cast_signed();
    let accepts = chain.number(5) == Some(1);
    accepts.then_some(Base { kind, hook: place, priority })
}

pub(super) fn rule(rule: Attributes<'_>) -> Option<(ChainName, ActualRule)> {
    let digest = rule.get(7).and_then(comment).map(Digest::read);
    Some((ChainName::read(rule.text(2)?), ActualRule { digest }))
}

fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(until_nul(value)).ok();
        }
        userdata = &rest[usize::from(*length)..];
    }
    None
}

/// What a set turns out to be.
pub(super) enum Found {
    Set(Option<SetKind>, Option<u32>),
    Map(Option<SetKind>),
}

pub(super) fn set(set: Attributes<'_>) -> Option<(SetName, Found)> {
    let flags = set.number(3).unwrap_or(0);
    let (key_type, key_length) = (set.number(4)?, set.number(5)?);
    let kind = Shape::kind(flags & !MAP, key_type, key_length);
    let found = if flags & MAP != 0 {
        let ours = flags == MAP && set.number(6) == Some(VERDICTS);
        Found::Map(kind.filter(|_| ours))
    } else {
        let description = set.nested(DESCRIPTION);
        Found::Set(kind, description.and_then(|description| description.number(ROOM)))
    };
    Some((SetName::read(set.text(2)?), found))
}

pub(super) fn keys(message: Attributes<'_>, keys: &mut BTreeSet<Key>) {
    for element in elements(message) {
        let end = element.number(3).unwrap_or(0) & 1 != 0;
        if let Some(bytes) = element.nested(1).and_then(|key| key.get(1)) {
            let last = element.nested(10).and_then(|key| key.get(1)).map(Bytes::of);
            keys.insert(Key { bytes: Bytes::of(bytes), end, last });
        }
    }
}

/// Adds the entries of a map; `None` when one is nothing that we write.
pub(super) fn entries(message: Attributes<'_>, map: &mut VerdictMap) -> Option<()> {
    for element in elements(message) {
        let key = exact(map.kind, element.nested(1)?.get(1)?)?;
        let verdict = element.nested(2)?.nested(2)?;
        // NFT_JUMP, NFT_GOTO
        let expected = if map.kind == SetKind::ProtocolPort { -3 } else { -4 };
        if verdict.number(1)?.cast_signed() != expected {
            return None;
        }
        map.elements.insert(key, ChainName::read(verdict.text(2)?));
    }
    Some(())
}

fn elements(message: Attributes<'_>) -> impl Iterator<Item = Attributes<'_>> {
    message.nested(3).into_iter().flatten().filter(|(kind, _)| *kind == 1).map(|(_, value)| Attributes(value))
}
