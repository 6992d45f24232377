//! Flows as connection tracking has them, in the words of policy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Family, Protocol};
use calico_policy::packet::{Destination, OtherProtocol, PortProtocol};
use calico_policy::{Flow, Transport};
use calico_route::netlink::{Connection, Tuple};

/// Returns the addresses that this host has now.
///
/// # Errors
/// When the kernel does not list them.
pub fn own_addresses() -> std::io::Result<BTreeSet<IpAddr>> {
    let found = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address);
    let addr = |held: nix::sys::socket::SockaddrStorage| {
        let v4 = held.as_sockaddr_in().map(|held| IpAddr::V4(held.ip()));
        v4.or_else(|| held.as_sockaddr_in6().map(|held| IpAddr::V6(held.ip())))
    };
    Ok(found.filter_map(addr).collect())
}

/// Returns the flow of a connection; `None` when policy does not decide about it.
///
/// A connection that another one expected was let through for that one's sake, and what is in a zone is not what our rules see.
#[must_use]
pub fn flow(connection: &Connection) -> Option<Flow> {
    let decides = !connection.expected && connection.zone == 0;
    decides.then(|| of_tuples(&connection.original, &connection.reply)).flatten()
}

fn of_tuples(original: &Tuple, reply: &Tuple) -> Option<Flow> {
    if Family::of(original.source) != Family::of(reply.source) {
        return None;
    }
    let port = |ports: Option<(u16, u16)>, of: fn((u16, u16)) -> u16| ports.map_or(0, of);
    let asked = Destination { addr: original.destination, port: port(original.ports, |ports| ports.1) };
    let answers = Destination { addr: reply.source, port: port(reply.ports, |ports| ports.0) };
    Some(Flow {
        source: original.source,
        destination: answers.addr,
        original_destination: (asked != answers).then_some(asked),
        transport: transport(original, answers.port)?,
    })
}

fn transport(original: &Tuple, destination: u16) -> Option<Transport> {
    let of_protocol = |known: &PortProtocol| known.protocol() == original.protocol;
    if let Some(protocol) = PortProtocol::ALL.into_iter().find(of_protocol) {
        let (source, _) = original.ports?;
        return Some(Transport::Ports { protocol, source, destination });
    }
    if matches!(original.protocol, Protocol::ICMP | Protocol::ICMPV6) {
        let (icmp_type, code) = original.icmp?;
        return Some(Transport::Icmp { icmp_type, code });
    }
    OtherProtocol::new(original.protocol).map(Transport::Other)
}

/// A line that names no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no connection as `conntrack -L` and /proc/net/nf_conntrack write them: {text:?}")]
pub struct DumpError {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// Reads the flows of a dump, as `conntrack -L` and `/proc/net/nf_conntrack` write it; those that policy does not decide about
/// are left out.
///
/// # Errors
/// At the first line that is something else.
pub fn read_dump(text: &str) -> Result<Vec<Flow>, DumpError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    // What the program says in the end of how many it has shown.
    let lines = lines.filter(|(_, line)| !line.starts_with("conntrack v"));
    let read = lines.map(|(index, line)| {
        let error = || DumpError { line: index + 1, text: line.to_owned() };
        let (original, reply, zone) = tuples(line).ok_or_else(error)?;
        Ok(if zone == 0 { of_tuples(&original, &reply) } else { None })
    });
    read.filter_map(Result::transpose).collect()
}

fn tuples(line: &str) -> Option<(Tuple, Tuple, u16)> {
    let mut words = line.split_whitespace().peekable();
    if words.peek().is_some_and(|word| ["ipv4", "ipv6"].contains(word)) {
        words.nth(1);
    }
    let _name = words.next()?;
    let protocol = Protocol::from_number(words.next()?.parse().ok()?);
    let fields: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let sources = fields.iter().enumerate().filter(|(_, (key, _))| *key == "src").map(|(index, _)| index);
    let starts: Vec<usize> = sources.collect();
    let [first, second] = starts.as_slice() else { return None };
    let tuple = |fields: &[(&str, &str)]| {
        let value = |wanted: &str| fields.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let addr = |key: &str| value(key)?.parse::<IpAddr>().ok();
        let port = |key: &str| value(key)?.parse::<u16>().ok();
        let byte = |key: &str| value(key)?.parse::<u8>().ok();
        Some(Tuple {
            source: addr("src")?,
            destination: addr("dst")?,
            protocol,
            ports: port("sport").zip(port("dport")),
            icmp: byte("type").zip(byte("code")),
        })
    };
    let zone = fields.iter().find(|(key, _)| *key == "zone").and_then(|(_, value)| value.parse().ok());
    Some((tuple(&fields[*first..*second])?, tuple(&fields[*second..])?, zone.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_of_either_kind_is_read_with_what_is_translated() {
        let dump = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.96.0.1 sport=40000 dport=80 src=10.0.0.2 dst=10.0.0.1 sport=8080 dport=40000 [ASSURED] mark=0 zone=0 use=2
udp      17 29 src=fd00::1 dst=fd00::2 sport=5 dport=53 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=53 dport=5 mark=0 use=1
icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=1
gre      47 29 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 zone=7 use=1
conntrack v1.4.8 (conntrack-tools): 4 flow entries have been shown.
";
        let flows = read_dump(dump).unwrap();
        assert_eq!(flows.len(), 3, "one is in another zone");
        let translated = Some(Destination { addr: "10.96.0.1".parse().unwrap(), port: 80 });
        assert_eq!(
            (flows[0].destination, flows[0].original_destination),
            ("10.0.0.2".parse().unwrap(), translated)
        );
        assert_eq!(flows[0].transport, Transport::tcp(8080));
        assert_eq!(flows[2].transport, Transport::Icmp { icmp_type: 8, code: 0 });
        assert_eq!(read_dump("\nhello").unwrap_err().line, 2);
    }
}
