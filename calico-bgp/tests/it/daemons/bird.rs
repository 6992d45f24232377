//! BIRD 2.

use std::fmt::Write;
use std::path::Path;

use calico_model::Community;

use super::{Daemon, Feature, Running, Setup, TOLD, program};

pub(crate) struct Bird2;

impl Daemon for Bird2 {
    fn name(&self) -> &'static str {
        "BIRD 2.0.12"
    }

    fn lacks(&self) -> &'static [(Feature, &'static str)] {
        &[]
    }

    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String> {
        let family = if setup.is_v6() { "ipv6" } else { "ipv4" };
        let mut text = format!(
            "log stderr all;\nrouter id {};\nprotocol device {{}}\nprotocol direct {{ {family}; }}\nprotocol kernel {{ {family} \
             {{ import none; export where source = RTS_BGP; }}; persist; graceful restart; }}\nprotocol static {{ {family};\n",
            setup.router_id
        );
        for route in &setup.routes {
            writeln!(text, "  route {route} blackhole;").unwrap();
        }
        text.push_str("}\n");
        let communities = TOLD.map(|community| match community {
            Community::Standard(a, b) => format!("bgp_community.add(({a},{b}));"),
            Community::Large(a, b, c) => format!("bgp_large_community.add(({a},{b},{c}));"),
        });
        for (at, (address, asn)) in setup.neighbors.iter().enumerate() {
            let password = setup.password.map_or(String::new(), |key| format!("password \"{key}\";"));
            let distance = match (setup.one_hop, *asn == setup.asn) {
                (true, true) => "direct; ttl security on;",
                (true, false) => "ttl security on;",
                (false, _) => "multihop;",
            };
            write!(
                text,
                "protocol bgp p{at} {{
  local {} as {};
  neighbor {address} as {asn};
  {password} {distance}
  connect delay time 1; connect retry time 1; error wait time 1,2;
  graceful restart on; enable extended messages on;
  {family} {{ import all; add paths on; next hop self;
    export filter {{ if source != RTS_STATIC then reject; {} accept; }}; }};
}}
",
                setup.address,
                setup.asn,
                communities.concat()
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

    fn community(&self, community: Community) -> String {
        match community {
            Community::Standard(a, b) => format!("({a},{b})"),
            Community::Large(a, b, c) => format!("({a}, {b}, {c})"),
        }
    }

    fn shut_down(&self, running: &Running<'_>, text: &str) {
        bird(running, &format!("disable p0 \"{text}\""));
    }
}

fn bird(running: &Running<'_>, question: &str) -> String {
    let socket = running.folder.join("ctl").display().to_string();
    let words: Vec<&str> = ["-s", &socket].into_iter().chain(question.split(' ')).collect();
    running.ask(&program("birdc", "bird2"), &words)
}
