//! Network namespaces that are gone when the test is.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use calico_node::workload::Netns;
use serde_json::Value;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name that no other test has.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{role}-{}-{number}", std::process::id());
        run("ip", ["netns", "add", &name]);
        Self { name }
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.name)
    }

    pub(crate) fn open(&self) -> Netns {
        Netns::open(&self.path()).unwrap()
    }

    /// Makes a command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip -j` inside, with the words of `line`.
    pub(crate) fn ip(&self, line: &str) -> Value {
        let words = ["-n", &self.name, "-j"].into_iter().chain(line.split_whitespace());
        let text = run("ip", words);
        if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
    }

    /// Reads a setting below `/proc/sys/net`.
    pub(crate) fn setting(&self, path: &str) -> String {
        let output = self.command("cat").arg(format!("/proc/sys/net/{path}")).output().unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Lists the names of the interfaces, sorted.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let links = self.ip("link show");
        let mut names: Vec<String> = links
            .as_array()
            .unwrap()
            .iter()
            .map(|link| link["ifname"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and a panic here would hide the first one.
        let _ended = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> String {
    let args: Vec<&str> = args.into_iter().collect();
    let output = Command::new(program).args(&args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
