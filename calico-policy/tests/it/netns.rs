//! Network namespaces of a test's own, gone when it ends, however it ends.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

/// A network namespace. Its name holds the process and a counter, so that tests run side by side.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub(crate) fn new(word: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        assert!(geteuid().is_root(), "kernel tests make network namespaces: run them as root");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cpol-{word}-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split(' ')).collect();
        ip(&words);
    }

    /// Runs a program in the namespace and returns what it printed.
    pub(crate) fn exec(&self, command: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(command.split(' '))
            .output()
            .expect("ip starts");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a program in the namespace and gives it its input.
    pub(crate) fn exec_with(&self, command: &str, input: &str) {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(command.split(' '))
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
        assert!(child.wait().expect("it ends").success(), "{command}\n{input}");
    }

    /// Runs `act` on a thread of its own in the namespace.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace has a file");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic while panicking would hide the first.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip starts: install iproute2");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
