//! ExaBGP, which keeps no table: what it heard is what it wrote down.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use calico_model::Community;

use super::{Daemon, Feature, Running, Setup, TARGET, TOLD, program};

pub(crate) struct Exabgp;

/// Writes what ExaBGP tells its helper program into a file, and tells ExaBGP what is put into another. ExaBGP makes its pipes
/// such that reading may find nothing.
const LISTENER: &str = "import os, select, sys
with open(sys.argv[1], 'ab', 0) as heard:
    while True:
        if os.path.exists(sys.argv[2]):
            print(open(sys.argv[2]).read(), flush=True)
            os.remove(sys.argv[2])
        if not select.select([0], [], [], 0.1)[0]:
            continue
        octets = os.read(0, 65536)
        if not octets:
            break
        heard.write(octets)
";

impl Daemon for Exabgp {
    fn name(&self) -> &'static str {
        "ExaBGP 4.2.21"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[
            (Feature::OurRestart, "keeps no routes"),
            (Feature::ShutdownText, "no"),
            (Feature::OurShutdownText, "reads none"),
        ]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::write(folder.join("listener.py"), LISTENER).expect("ExaBGP's helper");
        let mut text = format!(
            "process heard {{\n  run /usr/bin/python3 {} {} {};\n  encoder json;\n}}\n",
            path("listener.py"),
            path("heard"),
            path("asked")
        );
        let families: String = setup
            .addresses()
            .map(|own| if own.is_ipv6() { "ipv6 unicast; " } else { "ipv4 unicast; " })
            .collect();
        let Setup { address, router_id, asn, .. } = setup;
        for (neighbor, remote) in &setup.neighbors {
            let mut more = String::new();
            if let Some(key) = setup.password {
                write!(more, "md5-password \"{key}\"; md5-ip {address}; ").unwrap();
            }
            if setup.one_hop {
                more.push_str("outgoing-ttl 255; incoming-ttl 255; ");
            }
            write!(
                text,
                "neighbor {neighbor} {{
  router-id {router_id}; local-address {address}; local-as {asn}; peer-as {remote}; hold-time 180; {more}
  capability {{ graceful-restart 120; add-path send/receive; route-refresh enable; extended-message enable; asn4 enable; }}
  family {{ {families} }}
  add-path {{ {families} }}
  api {{ processes [ heard ]; neighbor-changes; receive {{ parsed; update; notification; }} }}
  static {{
"
            )
            .unwrap();
            let [standard, large] = TOLD;
            let (high, low) = TARGET;
            for own in setup.addresses() {
                for (at, route) in setup.routes_by(own).enumerate() {
                    writeln!(
                        text,
                        "    route {route} next-hop {own} path-information 0.0.0.{} community [ {standard} ] \
                         large-community [ {large} ] extended-community [ target:{high}:{low} ];",
                        at + 1
                    )
                    .unwrap();
                }
            }
            text.push_str("  }\n}\n");
        }
        std::fs::write(folder.join("exabgp.conf"), text).expect("ExaBGP's configuration");
        let file = path("exabgp.conf");
        [
            "env",
            "exabgp.daemon.user=root",
            "exabgp.daemon.drop=false",
            "exabgp.api.cli=false",
            "exabgp.api.ack=false",
            program("exabgp", "exabgp").as_str(),
            &file,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String> {
        let heard = std::fs::read_to_string(running.folder.join("heard")).unwrap_or_default();
        let named = format!("\"nlri\": \"{prefix}\"");
        let last =
            heard.lines().rfind(|line| line.contains(&named) || line.contains("\"state\": \"down\""))?;
        let (_, announced) = last.split_once("\"announce\"")?;
        let announced = announced.split("\"withdraw\"").next()?;
        announced.contains(&named).then(|| last.to_owned())
    }

    fn paths(&self, running: &Running<'_>, prefix: &str) -> usize {
        let heard = std::fs::read_to_string(running.folder.join("heard")).unwrap_or_default();
        let named = format!("\"nlri\": \"{prefix}\", \"path-information\": \"");
        let mut paths = BTreeSet::new();
        for line in heard.lines() {
            let (announced, withdrawn) = line.split_once("\"withdraw\"").unwrap_or((line, ""));
            let each = |text: &str| -> Vec<String> {
                text.split(&named)
                    .skip(1)
                    .filter_map(|rest| Some(rest.split('"').next()?.to_owned()))
                    .collect()
            };
            paths.extend(each(announced));
            each(withdrawn).iter().for_each(|id| {
                paths.remove(id);
            });
        }
        paths.len()
    }

    fn community(&self, community: Community) -> String {
        match community {
            Community::Standard(a, b) => format!("[ {a}, {b} ]"),
            Community::Large(a, b, c) => format!("[ {a}, {b} , {c} ]"),
        }
    }

    fn target(&self) -> &'static str {
        "target:65000:8"
    }

    fn shut_down(&self, _: &Running<'_>, _: &str) {}

    fn refresh(&self, running: &Running<'_>) {
        std::fs::write(running.folder.join("asking"), "announce route-refresh ipv4 unicast\n")
            .expect("a question");
        std::fs::rename(running.folder.join("asking"), running.folder.join("asked")).expect("a question");
    }
}
