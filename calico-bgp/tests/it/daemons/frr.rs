//! FRR's bgpd, with the zebra that keeps its routes in the kernel while it restarts.

use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use calico_model::Community;

use super::{Daemon, Feature, Running, Setup, TARGET, TOLD, is_v6, program};

pub(crate) struct Frr;

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        "FRR 8.4.4"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let Setup { address, router_id, asn, .. } = setup;
        let mut text = format!(
            "router bgp {asn}\n bgp router-id {router_id}\n bgp log-neighbor-changes\n \
             no bgp ebgp-requires-policy\n no bgp network import-check\n \
             no bgp default ipv4-unicast\n bgp disable-ebgp-connected-route-check\n bgp graceful-restart\n \
             bgp graceful-restart preserve-fw-state\n"
        );
        for (neighbor, remote) in &setup.neighbors {
            writeln!(text, " neighbor {neighbor} remote-as {remote}").unwrap();
            writeln!(text, " neighbor {neighbor} update-source {address}").unwrap();
            writeln!(text, " neighbor {neighbor} timers connect 1").unwrap();
            if let Some(key) = setup.password {
                writeln!(text, " neighbor {neighbor} password {key}").unwrap();
            }
            if setup.one_hop {
                writeln!(text, " neighbor {neighbor} ttl-security hops 1").unwrap();
            }
        }
        for own in setup.addresses() {
            let family = if own.is_ipv6() { "ipv6" } else { "ipv4" };
            writeln!(text, " address-family {family} unicast").unwrap();
            for route in setup.routes_by(own) {
                writeln!(text, "  network {route} route-map told").unwrap();
            }
            for (neighbor, _) in &setup.neighbors {
                writeln!(text, "  neighbor {neighbor} activate\n  neighbor {neighbor} addpath-tx-all-paths")
                    .unwrap();
            }
            text.push_str(" exit-address-family\n");
        }
        text.push_str("route-map told permit 10\n");
        let (high, low) = TARGET;
        writeln!(text, " set extcommunity rt {high}:{low}").unwrap();
        for community in TOLD {
            match community {
                Community::Standard(..) => writeln!(text, " set community {community}").unwrap(),
                Community::Large(..) => writeln!(text, " set large-community {community}").unwrap(),
            }
        }
        std::fs::write(folder.join("frr.conf"), text).expect("FRR's configuration");
        let path = |name: &str| folder.join(name).display().to_string();
        let bgpd = program("bgpd", "frr");
        let socket = folder.display().to_string();
        let (file, pid, zebra) = (path("frr.conf"), path("frr.pid"), path("zebra.api"));
        [
            bgpd.as_str(),
            "--socket",
            &zebra,
            "--skip_runas",
            "--vty_port",
            "0",
            "--log",
            "stdout",
            "--vty_socket",
            &socket,
            "--config_file",
            &file,
            "--pid_file",
            &pid,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn beside(&self, folder: &Path) -> Option<Vec<String>> {
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::write(folder.join("zebra.conf"), "").expect("zebra's configuration");
        // Unlike bgpd it cannot stay root, and makes its sockets as the user frr.
        std::fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("a folder for zebra");
        let words = [
            program("zebra", "frr"),
            "--graceful_restart".to_owned(),
            "60".to_owned(),
            "--vty_port".to_owned(),
            "0".to_owned(),
            "--log".to_owned(),
            "stdout".to_owned(),
            "--vty_socket".to_owned(),
            folder.display().to_string(),
            "--socket".to_owned(),
            path("zebra.api"),
            "--config_file".to_owned(),
            path("zebra.conf"),
            "--pid_file".to_owned(),
            path("zebra.pid"),
        ];
        Some(words.to_vec())
    }

    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String> {
        let family = if is_v6(prefix) { "ipv6" } else { "ipv4" };
        let answer = vty(running, &[&format!("show bgp {family} unicast {prefix}")]);
        answer.contains("valid").then_some(answer)
    }

    fn paths(&self, running: &Running<'_>, prefix: &str) -> usize {
        self.heard(running, prefix).map_or(0, |heard| heard.matches("valid").count())
    }

    fn target(&self) -> &'static str {
        "RT:65000:8"
    }

    fn refresh(&self, running: &Running<'_>) {
        let (neighbor, _) = running.setup.neighbors[0];
        vty(running, &[&format!("clear bgp ipv4 unicast {neighbor} soft in")]);
    }

    fn shut_down(&self, running: &Running<'_>, text: &str) {
        let (neighbor, _) = running.setup.neighbors[0];
        let bgp = format!("router bgp {}", running.setup.asn);
        vty(running, &["configure", &bgp, &format!("neighbor {neighbor} shutdown message {text}")]);
    }
}

fn vty(running: &Running<'_>, commands: &[&str]) -> String {
    let socket = running.folder.display().to_string();
    let mut words = vec!["--vty_socket", &socket];
    commands.iter().for_each(|command| words.extend(["-c", command]));
    running.ask(&program("vtysh", "frr"), &words)
}
