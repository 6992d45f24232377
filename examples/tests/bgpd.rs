//! `examples/bgpd.rs` as its manual has it, against BIRD. Needs root, for two network namespaces, and `bird`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

const BIRD: &str = "
router id 10.98.0.2;
protocol device {}
protocol static { ipv4; route 10.5.0.0/16 blackhole; route 10.6.0.0/16 blackhole; }
protocol bgp bgpd {
  local 10.98.0.2 as 65002; neighbor 10.98.0.1 as 65001;
  password \"secret\"; connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 { import all; export filter {
    bgp_community.add((65002,7));
    if net = 10.6.0.0/16 then bgp_path.prepend(65001);
    accept;
  }; };
}
";

fn run(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two joined namespaces, a folder, and what runs in them; gone when this is dropped.
struct Stage {
    ours: String,
    theirs: String,
    folder: PathBuf,
    running: Vec<Child>,
}

impl Stage {
    fn set() -> Self {
        let [ours, theirs] = ["a", "b"].map(|end| format!("bgpd-{}-{end}", std::process::id()));
        let folder = std::env::temp_dir().join(&ours);
        std::fs::create_dir_all(&folder).unwrap();
        let stage = Self { ours, theirs, folder, running: Vec::new() };
        let Self { ours, theirs, .. } = &stage;
        run(&format!("netns add {ours}"));
        run(&format!("netns add {theirs}"));
        run(&format!("-n {ours} link add eth0 type veth peer name eth0 netns {theirs}"));
        for (end, address) in [(ours, "10.98.0.1/24"), (theirs, "10.98.0.2/24")] {
            run(&format!("-n {end} addr add {address} dev eth0"));
            run(&format!("-n {end} link set eth0 up"));
        }
        stage
    }

    fn start(&mut self, netns: &str, program: &Path, arguments: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns]).arg(program).args(arguments);
        self.running.push(command.current_dir(&self.folder).spawn().unwrap());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for netns in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Tries until there is an answer, for 30 seconds.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} never came");
}

#[test]
fn it_peers_with_bird_and_its_socket_answers_peers_routes_and_counters() {
    let mut stage = Stage::set();
    let socket = stage.folder.join("bgpd.sock");
    let configuration = format!(
        "local_as = 65001
router_id = \"10.98.0.1\"
listen = [\"10.98.0.1:179\"]
networks = [\"10.1.0.0/16\"]
socket = \"{}\"
peer = [{{ address = \"10.98.0.2\", as = 65002, families = [\"ipv4\"], add_path = true, password = \"secret\" }}]
",
        socket.display()
    );
    std::fs::write(stage.folder.join("bgpd.toml"), configuration).unwrap();
    std::fs::write(stage.folder.join("bird.conf"), BIRD).unwrap();
    let test = std::env::current_exe().unwrap();
    let ours = test.parent().unwrap().parent().unwrap().join("examples/bgpd");
    let (here, there) = (stage.ours.clone(), stage.theirs.clone());
    stage.start(&there, Path::new("bird"), &["-f", "-c", "bird.conf", "-s", "bird.ctl"]);
    stage.start(&here, &ours, &["--config", "bgpd.toml"]);

    let mut questions = eventually("the socket", || UnixStream::connect(&socket).ok());
    let mut answers = BufReader::new(questions.try_clone().unwrap()).lines();
    let mut ask = |question: &str| -> Value {
        writeln!(questions, "{question}").unwrap();
        serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap()
    };
    let peer = eventually("the session", || {
        let peers = ask("peers");
        let has_come = peers[0]["prefixesIn"] == 1 && !peers[0]["lastRefusal"].is_null();
        (peers[0]["state"] == "Established" && has_come).then(|| peers[0].clone())
    });
    assert_eq!(peer["lastRefusal"], "our own AS 65001 is in the path 65002 65001");
    assert_eq!(peer["lastFault"], Value::Null);
    assert_eq!((&peer["address"], &peer["as"]), (&"10.98.0.2".into(), &65002.into()));
    let routes = ask("routes");
    let theirs = routes.as_array().unwrap().iter().find(|route| route["prefix"] == "10.5.0.0/16").unwrap();
    assert_eq!((&theirs["nextHop"], &theirs["asPath"]), (&"10.98.0.2".into(), &"65002".into()));
    assert_eq!((&theirs["communities"][0], &theirs["best"]), (&"65002:7".into(), &true.into()));
    // Both dial, and on a starved machine BIRD may take our connection up a second after the session is established, which
    // is a restart to it (RFC 4724 section 5).
    assert!(ask("counters")[0]["established"].as_u64().unwrap() >= 1);
    assert!(ask("nonsense")["error"].as_str().unwrap().contains("peers, routes or counters"));
    eventually("the network in BIRD", || {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(stage.folder.join("bird.ctl")).args(["show", "route", "all", "10.1.0.0/16"]);
        let seen = String::from_utf8_lossy(&birdc.output().unwrap().stdout).into_owned();
        (seen.contains("via 10.98.0.1") && seen.contains("BGP.as_path: 65001")).then_some(())
    });
}
