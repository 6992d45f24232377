//! What `nft -j list table` prints, to what the table holds.
//!
//! Objects of kinds that we never make are passed over. What is of a kind that we make but has a shape that we never write
//! is kept as foreign, so that the plan replaces it.

use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceName, Protocol};
use serde_json::Value;

use super::Actual;
use super::actual::{ActualChain, ActualRule, ActualSet, Digest, ForeignBase, Table};
use crate::ruleset::{Base, ChainKind, ChainName, Element, Hook, SetKind, SetName};

pub(super) fn read(text: &[u8]) -> Result<Actual, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let objects = value.get("nftables").and_then(Value::as_array).ok_or("the answer of nft has no list")?;
    let mut table = None;
    for object in objects.iter().filter_map(Value::as_object).flatten() {
        match (object, &mut table) {
            ((kind, value), None) if kind == "table" => {
                table = Some(Table { sound: value.get("flags").is_none(), ..Table::default() });
            }
            ((kind, value), Some(table)) => add(table, kind, value)?,
            _ => {}
        }
    }
    Ok(Actual { table })
}

fn add(table: &mut Table, kind: &str, value: &Value) -> Result<(), String> {
    match kind {
        "set" => {
            let kind = set_kind(value);
            let elements = kind.and_then(|kind| elements(value, |element| read_element(kind, element)));
            table.sets.insert(SetName::read(text(value, "name")?), ActualSet { kind, elements });
        }
        "map" => {
            let ours = text(value, "type") == Ok("ifname")
                && text(value, "map") == Ok("verdict")
                && value.get("flags").is_none();
            let entries = if ours { elements(value, map_entry) } else { None };
            table.maps.insert(SetName::read(text(value, "name")?), entries);
        }
        "chain" => {
            let chain = ActualChain { base: base(value), rules: Vec::new() };
            table.chains.insert(ChainName::read(text(value, "name")?), chain);
        }
        "rule" => {
            let digest = value.get("comment").and_then(Value::as_str).map(Digest::read);
            let chain = table.chains.get_mut(&ChainName::read(text(value, "chain")?));
            chain.ok_or("a rule comes before its chain")?.rules.push(ActualRule { digest });
        }
        _ => {}
    }
    Ok(())
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str, String> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| format!("an object has no {key}"))
}

/// Where packets enter the chain, when it is a place of ours with a policy of accept.
fn base(chain: &Value) -> Result<Option<Base>, ForeignBase> {
    if chain.get("hook").is_none() {
        return Ok(None);
    }
    let word = |key| chain.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = match word("type") {
        "filter" => ChainKind::Filter,
        "nat" => ChainKind::Nat,
        _ => return Err(ForeignBase),
    };
    let hook = match word("hook") {
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        _ => return Err(ForeignBase),
    };
    let priority = chain.get("prio").and_then(Value::as_i64).and_then(|prio| i32::try_from(prio).ok());
    match (word("policy"), priority) {
        ("accept", Some(priority)) => Ok(Some(Base { kind, hook, priority })),
        _ => Err(ForeignBase),
    }
}

fn set_kind(set: &Value) -> Option<SetKind> {
    let one_or_many = set.get("type")?;
    let types: Vec<&str> = match one_or_many.as_array() {
        Some(types) => types.iter().filter_map(Value::as_str).collect(),
        None => vec![one_or_many.as_str()?],
    };
    let flags: Vec<&str> =
        set.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let family = |name: &str| match name {
        "ipv4_addr" => Some(Family::V4),
        "ipv6_addr" => Some(Family::V6),
        _ => None,
    };
    match (types.as_slice(), flags.as_slice()) {
        (["inet_service"], ["interval"]) => Some(SetKind::Ports),
        (["ifname"], []) => Some(SetKind::Interface),
        (["ifname", addr], []) => family(addr).map(SetKind::InterfaceAddress),
        ([addr, "inet_proto", "inet_service"], []) => family(addr).map(SetKind::Socket),
        ([addr], []) => family(addr).map(SetKind::Address),
        ([addr], ["interval"]) => family(addr).map(SetKind::Network),
        _ => None,
    }
}

/// Reads the elements one by one; `None` as soon as one is nothing that we write.
fn elements<T, C: FromIterator<T>>(set: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<C> {
    set.get("elem").and_then(Value::as_array).into_iter().flatten().map(read).collect()
}

fn map_entry(entry: &Value) -> Option<(InterfaceName, ChainName)> {
    let [key, verdict] = entry.as_array()?.as_slice() else { return None };
    let target = verdict.get("goto")?.get("target")?.as_str()?;
    Some((key.as_str()?.parse().ok()?, ChainName::read(target)))
}

fn read_element(kind: SetKind, element: &Value) -> Option<Element> {
    let parts: Vec<&Value> = match element.get("concat") {
        Some(parts) => parts.as_array()?.iter().collect(),
        None => vec![element],
    };
    match (kind, parts.as_slice()) {
        (SetKind::Address(_), [addr]) => Some(Element::Address(read_addr(addr)?)),
        (SetKind::Network(_), [net]) => read_network(net).map(Element::Network),
        (SetKind::Ports, [ports]) => read_ports(ports),
        (SetKind::Interface, [name]) => Some(Element::Interface(name.as_str()?.parse().ok()?)),
        (SetKind::InterfaceAddress(_), [name, addr]) => {
            Some(Element::InterfaceAddress(name.as_str()?.parse().ok()?, read_addr(addr)?))
        }
        (SetKind::Socket(_), [addr, protocol, port]) => {
            Some(Element::Socket(read_addr(addr)?, read_protocol(protocol)?, read_u16(port)?))
        }
        _ => None,
    }
}

fn read_addr(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn read_network(value: &Value) -> Option<Cidr> {
    if let Some(prefix) = value.get("prefix") {
        let len = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        return Cidr::holding(read_addr(prefix.get("addr")?)?, len);
    }
    read_addr(value).map(Cidr::host)
}

fn read_ports(value: &Value) -> Option<Element> {
    if let Some(range) = value.get("range") {
        let [first, last] = range.as_array()?.as_slice() else { return None };
        return Some(Element::Ports(read_u16(first)?, read_u16(last)?));
    }
    read_u16(value).map(|port| Element::Ports(port, port))
}

fn read_u16(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn read_protocol(value: &Value) -> Option<Protocol> {
    match value.as_str() {
        Some("tcp") => Some(Protocol::TCP),
        Some("udp") => Some(Protocol::UDP),
        Some("sctp") => Some(Protocol::SCTP),
        _ => None,
    }
}
