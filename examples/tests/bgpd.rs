//! `examples/bgpd.rs` as its manual has it, against BIRD. Needs root, for two network namespaces, and `bird`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

const BIRD: &str = "
router id 10.98.0.2;
protocol device {}
protocol static { ipv4; route 10.5.0.0/16 blackhole; route 10.6.0.0/16 blackhole; route 10.7.0.0/16 blackhole; }
protocol bgp bgpd {
  local 10.98.0.2 as 65002; neighbor 10.98.0.1 as 65001; local role peer;
  password \"secret\"; connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 { import all; export filter {
    bgp_community.add((65002,7));
    if net = 10.6.0.0/16 then bgp_path.prepend(65001);
    accept;
  }; };
}
";

/// The file of bgpd's manual, for these addresses.
fn manual(socket: &Path) -> String {
    let lines = include_str!("../bgpd.rs").lines().map(|line| line.trim_start_matches("//! "));
    let toml = lines.skip_while(|line| *line != "```toml").skip(1).take_while(|line| *line != "```");
    let toml = toml.collect::<Vec<_>>().join("\n");
    toml.replace("0.0.0.0:", "10.98.0.1:")
        .replace("10.0.0.", "10.98.0.")
        .replace("/run/bgpd.sock", &socket.display().to_string())
}

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
    fn set(name: &str) -> Self {
        let [ours, theirs] = ["a", "b"].map(|end| format!("bgpd-{name}-{}-{end}", std::process::id()));
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

    fn socket(&self) -> PathBuf {
        self.folder.join("bgpd.sock")
    }

    /// Starts both daemons, and opens ours' socket.
    fn begin(&mut self, configuration: &str) -> Questions {
        std::fs::write(self.folder.join("bgpd.toml"), configuration).unwrap();
        std::fs::write(self.folder.join("bird.conf"), BIRD).unwrap();
        let test = std::env::current_exe().unwrap();
        let bgpd = test.parent().unwrap().parent().unwrap().join("examples/bgpd");
        let (here, there) = (self.ours.clone(), self.theirs.clone());
        self.start(&there, Path::new("bird"), &["-f", "-c", "bird.conf", "-s", "bird.ctl"]);
        self.start(&here, &bgpd, &["--config", "bgpd.toml"]);
        let to = eventually("the socket", || UnixStream::connect(self.socket()).ok());
        let answers = BufReader::new(to.try_clone().unwrap()).lines();
        Questions { to, answers }
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

/// The socket of bgpd.
struct Questions {
    to: UnixStream,
    answers: Lines<BufReader<UnixStream>>,
}

impl Questions {
    fn ask(&mut self, question: &str) -> Value {
        writeln!(self.to, "{question}").unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    /// Waits for what is told of the peer.
    fn peer(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let peer = self.ask("peers")[0].take();
            is_so(&peer).then_some(peer)
        })
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
    let mut stage = Stage::set("manual");
    let configuration = manual(&stage.socket());
    let mut questions = stage.begin(&configuration);
    let peer = questions.peer("the session", |peer| {
        let has_come = peer["prefixesIn"] == 2 && !peer["lastRefusal"].is_null();
        peer["state"] == "Established" && has_come
    });
    assert_eq!(peer["lastRefusal"], "our own AS 65001 is in the path 65002 65001");
    assert_eq!(peer["lastFault"], Value::Null);
    assert_eq!((&peer["address"], &peer["as"]), (&"10.98.0.2".into(), &65002.into()));
    let routes = questions.ask("routes");
    let theirs = routes.as_array().unwrap().iter().find(|route| route["prefix"] == "10.5.0.0/16").unwrap();
    assert_eq!((&theirs["nextHop"], &theirs["asPath"]), (&"10.98.0.2".into(), &"65002".into()));
    assert_eq!((&theirs["communities"][0], &theirs["best"]), (&"65002:7".into(), &true.into()));
    // Both dial, and on a starved machine BIRD may take our connection up a second after the session is established, which
    // is a restart to it (RFC 4724 section 5).
    assert!(questions.ask("counters")[0]["established"].as_u64().unwrap() >= 1);
    assert!(questions.ask("nonsense")["error"].as_str().unwrap().contains("peers, routes or counters"));
    eventually("the network in BIRD", || {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(stage.folder.join("bird.ctl")).args(["show", "route", "all", "10.1.0.0/16"]);
        let seen = String::from_utf8_lossy(&birdc.output().unwrap().stdout).into_owned();
        (seen.contains("via 10.98.0.1") && seen.contains("BGP.as_path: 65001")).then_some(())
    });
}

#[test]
fn nothing_passes_unsaid_nor_too_many_prefixes_nor_between_roles_that_do_not_match() {
    const UNSAID: &str =
        "nobody said which routes of this peer are taken, and it is in another AS (RFC 8212)";
    for (name, settings, field, words) in [
        ("unsaid", "", "lastRefusal", UNSAID),
        ("limit", ", import = true, max_prefixes = 1", "lastError", "too many prefixes"),
        ("role", ", import = true, role = \"customer\"", "lastError", "BGP roles do not match"),
    ] {
        let mut stage = Stage::set(name);
        let manual = manual(&stage.socket());
        let (general, _) = manual.split_once("peer = ").unwrap();
        let peer =
            format!("peer = [{{ address = \"10.98.0.2\", as = 65002, password = \"secret\"{settings} }}]\n");
        let mut questions = stage.begin(&[general, &peer].concat());
        let peer = questions.peer(name, |peer| peer[field].as_str().is_some_and(|text| text.contains(words)));
        assert_eq!((&peer["prefixesIn"], &peer["prefixesOut"]), (&0.into(), &0.into()), "{name}");
    }
}
