//! BIRD, the neighbour.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use calico_node::lab::Lab;

use crate::agent::eventually;

/// A BIRD in the network namespace of a host or workload; gone when this is dropped.
pub(super) struct Bird {
    folder: PathBuf,
    process: Child,
    netns: String,
}

impl Bird {
    pub(super) fn start(lab: &Lab, member: &str, configuration: &str) -> Self {
        let netns = lab.state().netns(member).unwrap().to_owned();
        let folder = std::env::temp_dir().join(format!("calico-bird-{netns}"));
        std::fs::create_dir_all(&folder).unwrap();
        write(&folder, configuration);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &netns, "bird", "-f", "-c"]).arg(folder.join("bird.conf"));
        command.arg("-s").arg(folder.join("ctl")).stderr(std::fs::File::create(folder.join("log")).unwrap());
        let process = command.spawn().expect("these tests need bird: apt-get install bird2");
        Self { folder, process, netns }
    }

    pub(super) fn ask(&self, question: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, "birdc", "-s"]).arg(self.folder.join("ctl"));
        let output = command.args(question.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has it go on by another configuration.
    pub(super) fn reconfigure(&self, configuration: &str) {
        write(&self.folder, configuration);
        self.wait_for("configure", "econfigur");
    }

    /// Asks until an answer contains a word.
    pub(super) fn wait_for(&self, question: &str, word: &str) -> String {
        let answer = eventually(|| self.ask(question), |answer| answer.contains(word));
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(answer.contains(word), "{question}: no {word} in\n{answer}\nlog:\n{}", log());
        answer
    }

    /// Stops it where it stands: its kernel still answers, and it does not.
    pub(super) fn freeze(&self) {
        let frozen = Command::new("kill").args(["-STOP", &self.process.id().to_string()]).status().unwrap();
        assert!(frozen.success());
    }
}

fn write(folder: &Path, configuration: &str) {
    let text = format!("log stderr all;\nprotocol device {{}}\n{configuration}");
    std::fs::write(folder.join("bird.conf"), text).unwrap();
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
