//! BIRD 2.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use calico_model::Community;

use super::{Daemon, Feature, Running, Setup, TARGET, TOLD, program};

pub(crate) struct Bird2;

impl Daemon for Bird2 {
    fn name(&self) -> &'static str {
        "BIRD 2.0.12"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let mut text = format!("log stderr all;\nrouter id {};\nprotocol device {{}}\n", setup.router_id);
        for address in setup.addresses() {
            let family = family(address);
            write!(
                text,
                "protocol direct {{ {family}; }}\nprotocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; \
                 persist; graceful restart; }}\nprotocol static {{ {family};\n"
            )
            .unwrap();
            for route in setup.routes_by(address) {
                writeln!(text, "  route {route} blackhole;").unwrap();
            }
            text.push_str("}\n");
        }
        let communities = TOLD.map(|community| match community {
            Community::Standard(a, b) => format!("bgp_community.add(({a},{b}));"),
            Community::Large(a, b, c) => format!("bgp_large_community.add(({a},{b},{c}));"),
        });
        let (high, low) = TARGET;
        let communities = communities.concat() + &format!(" bgp_ext_community.add((rt,{high},{low}));");
        for (at, (address, asn)) in setup.neighbors.iter().enumerate() {
            let password = setup.password.map_or(String::new(), |key| format!("password \"{key}\";"));
            let distance = match (setup.one_hop, *asn == setup.asn) {
                (true, true) => "direct; ttl security on;",
                (true, false) => "ttl security on;",
                (false, _) => "multihop;",
            };
            let channels: String = setup
                .addresses()
                .map(|address| {
                    format!(
                        "  {} {{ import all; add paths on; next hop address {address};
    export filter {{ if source = RTS_BGP then accept; if source != RTS_STATIC then reject; {communities} accept; }}; }};\n",
                        family(address)
                    )
                })
                .collect();
            write!(
                text,
                "protocol bgp p{at} {{
  local {} as {};
  neighbor {address} as {asn};
  {password} {distance}
  connect delay time 1; connect retry time 1; error wait time 1,2;
  graceful restart on; enable extended messages on;
{channels}}}
",
                setup.address, setup.asn,
            )
            .unwrap();
        }
        std::fs::write(folder.join("bird.conf"), text).expect("BIRD's configuration");
        let path = |name: &str| folder.join(name).display().to_string();
        let bird = program("bird", "bird2");
        [bird.as_str(), "-f", "-c", &path("bird.conf"), "-s", &path("ctl")].map(str::to_owned).to_vec()
    }

    fn recovering(&self) -> &'static [&'static str] {
        &["-R"]
    }

    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String> {
        let answer = bird(running, &format!("show route all for {prefix}"));
        answer.contains(&format!("{prefix} ")).then_some(answer).filter(|text| text.contains("BGP.origin"))
    }

    fn paths(&self, running: &Running<'_>, prefix: &str) -> usize {
        bird(running, &format!("show route all for {prefix}")).matches("BGP.origin:").count()
    }

    fn community(&self, community: Community) -> String {
        match community {
            Community::Standard(a, b) => format!("({a},{b})"),
            Community::Large(a, b, c) => format!("({a}, {b}, {c})"),
        }
    }

    fn target(&self) -> &'static str {
        "(rt, 65000, 8)"
    }

    fn shut_down(&self, running: &Running<'_>, text: &str) {
        bird(running, &format!("disable p0 \"{text}\""));
    }

    fn refresh(&self, running: &Running<'_>) {
        bird(running, "reload in p0");
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ipv6" } else { "ipv4" }
}

fn bird(running: &Running<'_>, question: &str) -> String {
    let socket = running.folder.join("ctl").display().to_string();
    let words: Vec<&str> = ["-s", &socket].into_iter().chain(question.split(' ')).collect();
    running.ask(&program("birdc", "bird2"), &words)
}
