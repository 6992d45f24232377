//! GoBGP.

use std::fmt::Write;
use std::path::Path;

use super::{Daemon, Feature, Running, Setup, TARGET, TOLD, is_v6, program, until_answered};

pub(crate) struct Gobgp;

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP 3.10"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[
            (Feature::ShutdownText, "sends none"),
            (Feature::OurShutdownText, "logs octets, not words"),
            (Feature::TheirRefresh, "never asks"),
            (Feature::ExtendedMessages, "not in this version"),
            (Feature::EnhancedRefresh, "no"),
        ]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let Setup { address, router_id, asn, .. } = setup;
        let mut text = format!(
            "[global.config]\nas = {asn}\nrouter-id = \"{router_id}\"\nlocal-address-list = [\"{address}\"]\n"
        );
        for (neighbor, remote) in &setup.neighbors {
            write!(
                text,
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{neighbor}\"\npeer-as = {remote}\n"
            )
            .unwrap();
            if let Some(key) = setup.password {
                writeln!(text, "auth-password = \"{key}\"").unwrap();
            }
            if setup.one_hop {
                writeln!(text, "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255").unwrap();
            }
            write!(
                text,
                "[neighbors.transport.config]\nlocal-address = \"{address}\"\n[neighbors.timers.config]\n\
                 connect-retry = 1\nidle-hold-time-after-reset = 1\n[neighbors.graceful-restart.config]\nenabled = true\n\
                 restart-time = 120\nnotification-enabled = true\n"
            )
            .unwrap();
            for own in setup.addresses() {
                let family = if own.is_ipv6() { "ipv6-unicast" } else { "ipv4-unicast" };
                write!(
                    text,
                    "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n\
                     [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n\
                     [neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n"
                )
                .unwrap();
            }
        }
        std::fs::write(folder.join("gobgp.toml"), text).expect("GoBGP's configuration");
        let file = folder.join("gobgp.toml").display().to_string();
        [
            program("gobgpd", "gobgpd").as_str(),
            "--api-hosts",
            "127.0.0.1:50051",
            "--log-plain",
            "--config-file",
            &file,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn recovering(&self) -> &'static [&'static str] {
        &["--graceful-restart"]
    }

    fn begin(&self, running: &Running<'_>) {
        let communities: Vec<String> = TOLD
            .iter()
            .map(|community| match community {
                calico_model::Community::Standard(..) => format!("community {community}"),
                calico_model::Community::Large(..) => format!("large-community {community}"),
            })
            .collect();
        let ((high, low), communities) = (TARGET, communities.join(" "));
        for address in running.setup.addresses() {
            for route in running.setup.routes_by(address) {
                let line = format!(
                    "global rib add {route} {communities} rt {high}:{low} nexthop {address}{}",
                    of(route)
                );
                until_answered(|| gobgp(running, &line).trim().is_empty());
            }
        }
    }

    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String> {
        let answer = gobgp(running, &format!("global rib {prefix}{}", of(prefix)));
        answer.contains(prefix).then_some(answer)
    }

    fn paths(&self, running: &Running<'_>, prefix: &str) -> usize {
        self.heard(running, prefix).map_or(0, |heard| heard.matches(prefix).count())
    }

    fn target(&self) -> &'static str {
        "{Extcomms: [65000:8]}"
    }

    fn refresh(&self, running: &Running<'_>) {
        let (neighbor, _) = running.setup.neighbors[0];
        gobgp(running, &format!("neighbor {neighbor} softresetin"));
    }

    fn shut_down(&self, running: &Running<'_>, text: &str) {
        let (neighbor, _) = running.setup.neighbors[0];
        let words = ["neighbor", &neighbor.to_string(), "disable", "--reason", text].map(str::to_owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        running.ask(&program("gobgp", "gobgpd"), &words);
    }
}

/// Returns what tells it the family of a destination.
fn of(prefix: &str) -> &'static str {
    if is_v6(prefix) { " -a ipv6" } else { "" }
}

fn gobgp(running: &Running<'_>, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    running.ask(&program("gobgp", "gobgpd"), &words)
}
