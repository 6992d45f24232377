//! GoBGP.

use std::fmt::Write;
use std::path::Path;

use super::{Daemon, Feature, Running, Setup, TOLD, program, until_answered};

pub(crate) struct Gobgp;

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP 3.10"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[
            (Feature::ShutdownText, "sends none"),
            (Feature::ExtendedMessages, "not in this version"),
            (Feature::EnhancedRefresh, "no"),
        ]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let Setup { address, router_id, asn, .. } = setup;
        let mut text = format!(
            "[global.config]\nas = {asn}\nrouter-id = \"{router_id}\"\nlocal-address-list = [\"{address}\"]\n"
        );
        let family = if setup.is_v6() { "ipv6-unicast" } else { "ipv4-unicast" };
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
                 restart-time = 120\nnotification-enabled = true\n[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                 afi-safi-name = \"{family}\"\n[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n\
                 [neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n"
            )
            .unwrap();
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
        let (address, communities) = (running.setup.address.to_string(), communities.join(" "));
        for route in &running.setup.routes {
            let line = format!("global rib add {route} {communities} nexthop {address}");
            until_answered(|| gobgp(running, &line).trim().is_empty());
        }
    }

    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String> {
        let answer = gobgp(running, &format!("global rib {prefix}"));
        answer.contains(prefix).then_some(answer)
    }

    fn shut_down(&self, running: &Running<'_>, text: &str) {
        let (neighbor, _) = running.setup.neighbors[0];
        let words = ["neighbor", &neighbor.to_string(), "disable", "--reason", text].map(str::to_owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        running.ask(&program("gobgp", "gobgpd"), &words);
    }
}

fn gobgp(running: &Running<'_>, words: &str) -> String {
    let mut words: Vec<&str> = words.split(' ').collect();
    if running.setup.is_v6() {
        words.extend(["-a", "ipv6"]);
    }
    running.ask(&program("gobgp", "gobgpd"), &words)
}
