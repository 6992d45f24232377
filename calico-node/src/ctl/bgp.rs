//! The BGP speaker of an agent, for people.

use std::fmt::Write;
use std::time::Duration;

use calico_model::Cidr;

use super::table;
use crate::status::bgp::{BgpPeer, BgpRoute};

fn headings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Writes the sessions as a table, and below it why those that are not up are not and what was not taken of each.
#[must_use]
pub fn peers(peers: &[BgpPeer]) -> String {
    if peers.is_empty() {
        return "There are no BGP peers.\n".to_owned();
    }
    let row = |peer: &BgpPeer| {
        vec![
            peer.address.to_string(),
            peer.as_number.to_string(),
            peer.peering.clone(),
            peer.state.clone(),
            duration(peer.seconds),
            peer.prefixes_in.to_string(),
            peer.prefixes_out.to_string(),
        ]
    };
    let names = ["PEER", "AS", "TYPE", "STATE", "FOR", "RECEIVED", "SENT"];
    let rows: Vec<Vec<String>> = peers.iter().map(row).collect();
    let mut text = table::plain(&headings(&names), &rows);
    for peer in peers {
        // Writing to a string does not fail.
        if let Some(error) = peer.last_error.as_ref().filter(|_| peer.state != "Established") {
            let _ = writeln!(text, "{}: {error}", peer.address);
        }
        for words in troubles(peer) {
            let _ = writeln!(text, "{}: {words}", peer.address);
        }
    }
    text
}

/// Says what was wrong with the last routes of a peer that were not taken as they came.
fn troubles(peer: &BgpPeer) -> impl Iterator<Item = String> {
    let refusal = peer.last_refusal.as_ref().map(|why| format!("refused routes of it: {why}"));
    let fault = peer.last_fault.as_ref().map(|fault| format!("survived a malformed UPDATE: {fault}"));
    refusal.into_iter().chain(fault)
}

/// Writes paths as a table; `*` marks the best one to each destination.
#[must_use]
pub fn routes(routes: &[BgpRoute]) -> String {
    if routes.is_empty() {
        return "There are no BGP routes.\n".to_owned();
    }
    let row = |route: &BgpRoute| {
        vec![
            if route.best { "*" } else { "" }.to_owned(),
            route.prefix.to_string(),
            route.next_hop.map_or_else(|| "this node".to_owned(), |hop| hop.to_string()),
            route.from.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
            route.local_pref.map_or_else(|| "-".to_owned(), |preference| preference.to_string()),
            if route.as_path.is_empty() { "-".to_owned() } else { route.as_path.clone() },
        ]
    };
    let names = ["", "PREFIX", "NEXT HOP", "FROM", "LOCAL_PREF", "AS PATH"];
    table::plain(&headings(&names), &routes.iter().map(row).collect::<Vec<_>>())
}

/// Says of each path to a destination why it is or is not the best one; where there is none, why each peer's routes were
/// not taken last.
#[must_use]
pub fn why(prefix: Cidr, routes: &[BgpRoute], peers: &[BgpPeer]) -> String {
    let mut text = String::new();
    if routes.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "No route to {prefix} is held, and none begins here.");
        for peer in peers {
            for words in troubles(peer) {
                let _ = writeln!(text, "{}: last {words}", peer.address);
            }
        }
        return text;
    }
    for route in routes {
        let source = match (route.from, route.next_hop) {
            (Some(peer), Some(hop)) => format!("from {peer} via {hop}"),
            (Some(peer), None) => format!("from {peer}"),
            (None, _) => "which begins on this node".to_owned(),
        };
        let verdict = match &route.why {
            None if routes.len() == 1 => "is the only one, and in use".to_owned(),
            None => "is the best one".to_owned(),
            Some(why) if route.best => format!("is the best one: {why}"),
            Some(why) => format!("is not used: {why}"),
        };
        let _ = writeln!(text, "The path to {prefix} {source} {verdict}.");
        let mut facts = Vec::new();
        if let Some(preference) = route.local_pref {
            facts.push(format!("LOCAL_PREF {preference}"));
        }
        if !route.as_path.is_empty() {
            facts.push(format!("AS path {}", route.as_path));
        }
        if let Some(med) = route.med {
            facts.push(format!("MED {med}"));
        }
        if !route.communities.is_empty() {
            facts.push(format!("communities {}", route.communities.join(" ")));
        }
        if !facts.is_empty() {
            let _ = writeln!(text, "  {}", facts.join(", "));
        }
    }
    text
}

/// A duration in its two largest units.
fn duration(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    match (time / 86_400, time / 3600 % 24, time / 60 % 60, time % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::bgp::BgpCounters;

    fn path(from: Option<&str>, why: Option<&str>) -> BgpRoute {
        BgpRoute {
            prefix: "192.168.0.0/26".parse().unwrap(),
            from: from.map(|peer| peer.parse().unwrap()),
            next_hop: from.map(|peer| peer.parse().unwrap()),
            as_path: String::new(),
            local_pref: Some(2_147_482_623),
            med: None,
            communities: vec!["64512:7".to_owned()],
            best: from.is_none(),
            why: why.map(str::to_owned),
        }
    }

    fn peer() -> BgpPeer {
        BgpPeer {
            address: "172.16.6.9".parse().unwrap(),
            name: "Mesh_172_16_6_9".to_owned(),
            as_number: 64512,
            peering: "iBGP".to_owned(),
            state: "Active".to_owned(),
            seconds: 3_725,
            turned_seconds: 3_725,
            router_id: None,
            last_error: None,
            last_refusal: None,
            last_sent: None,
            last_received: None,
            last_fault: None,
            prefixes_in: 0,
            prefixes_out: 0,
            retained_seconds: None,
            counters: BgpCounters {
                messages_in: 0,
                messages_out: 0,
                updates_in: 0,
                updates_out: 0,
                faults_in: 0,
                established: 0,
            },
        }
    }

    #[test]
    fn each_path_is_explained_in_a_sentence() {
        let routes = [
            path(None, Some("it begins on this node")),
            path(Some("172.16.6.9"), Some("a route that begins on this node is preferred")),
        ];
        assert_eq!(
            why("192.168.0.0/26".parse().unwrap(), &routes, &[]),
            "The path to 192.168.0.0/26 which begins on this node is the best one: it begins on this node.\n  \
             LOCAL_PREF 2147482623, communities 64512:7\n\
             The path to 192.168.0.0/26 from 172.16.6.9 via 172.16.6.9 is not used: a route that begins on this node is \
             preferred.\n  LOCAL_PREF 2147482623, communities 64512:7\n"
        );
        let text = super::routes(&routes);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("*    192.168.0.0/26   this node")),
            "{text}"
        );
    }

    #[test]
    fn paths_are_a_table_in_which_the_best_ones_are_marked_and_what_is_not_there_is_a_dash() {
        let from_outside = BgpRoute {
            prefix: "2001:db8::/32".parse().unwrap(),
            next_hop: Some("fd00::1".parse().unwrap()),
            as_path: "65001 65002".to_owned(),
            local_pref: None,
            best: true,
            ..path(Some("172.16.6.9"), None)
        };
        let all = [path(None, None), path(Some("172.16.6.9"), Some("")), from_outside];
        let table = [
            "     PREFIX           NEXT HOP     FROM         LOCAL_PREF   AS PATH",
            "*    192.168.0.0/26   this node    -            2147482623   -",
            "     192.168.0.0/26   172.16.6.9   172.16.6.9   2147482623   -",
            "*    2001:db8::/32    fd00::1      172.16.6.9   -            65001 65002",
        ];
        assert_eq!(super::routes(&all).lines().collect::<Vec<_>>(), [&table[..], &[""]].concat());
        assert_eq!(super::routes(&[]), "There are no BGP routes.\n");
    }

    #[test]
    fn where_no_route_is_held_it_is_said_what_was_not_taken_last() {
        let peers = [
            BgpPeer { last_refusal: Some("the next hop 172.16.6.7 is our own address".to_owned()), ..peer() },
            BgpPeer {
                address: "fd00::9".parse().unwrap(),
                last_fault: Some("path attribute 1: the origin is not one of three".to_owned()),
                ..peer()
            },
            BgpPeer { address: "172.16.6.10".parse().unwrap(), ..peer() },
        ];
        assert_eq!(
            why("10.0.0.0/8".parse().unwrap(), &[], &peers),
            "No route to 10.0.0.0/8 is held, and none begins here.\n\
             172.16.6.9: last refused routes of it: the next hop 172.16.6.7 is our own address\n\
             fd00::9: last survived a malformed UPDATE: path attribute 1: the origin is not one of three\n"
        );
    }

    #[test]
    fn what_is_wrong_with_a_session_or_its_routes_is_below_the_table() {
        let peer = BgpPeer {
            last_error: Some("the peer closed the session: bad peer AS (2/2)".to_owned()),
            last_refusal: Some("the next hop 172.16.6.7 is our own address".to_owned()),
            ..peer()
        };
        let text = peers(&[peer]);
        assert!(text.contains("1h2m"), "{text}");
        assert!(
            text.ends_with(
                "172.16.6.9: the peer closed the session: bad peer AS (2/2)\n\
                 172.16.6.9: refused routes of it: the next hop 172.16.6.7 is our own address\n"
            ),
            "{text}"
        );
    }
}
