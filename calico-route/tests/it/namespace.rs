//! A network namespace for one test.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use calico_route::netlink::Netlink;

/// A network namespace that lasts as long as the value.
pub(crate) struct TestNamespace(String);

impl TestNamespace {
    /// Makes a namespace in which `lo` is up. Fails when the process may not.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("route-it-{}-{number}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output().expect("iproute2 is installed");
        assert!(
            made.status.success(),
            "this test needs root to make a network namespace: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let namespace = Self(name);
        namespace.ip("link set lo up");
        namespace
    }

    /// Connects to the namespace's kernel.
    pub(crate) fn connect(&self) -> Netlink {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace has a name");
        Netlink::connect_in(file.as_fd()).expect("root may enter a namespace")
    }

    /// Runs `work` on a thread in the namespace. What sockets it opens stay there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace has a name");
        let entered = move || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("root may enter a namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().expect("the work does not panic"))
    }

    /// Moves one end of a veth pair that is made here into another namespace.
    pub(crate) fn join(&self, device: &str, other: &TestNamespace, far: &str) {
        self.ip(&format!("link add {device} type veth peer name {far} netns {}", other.0));
        self.ip(&format!("link set {device} up"));
        other.ip(&format!("link set {far} up"));
    }

    /// Moves a device into another namespace.
    pub(crate) fn give(&self, device: &str, other: &TestNamespace) {
        self.ip(&format!("link set {device} netns {}", other.0));
    }

    /// Runs `ip`; it must succeed.
    pub(crate) fn ip(&self, args: &str) -> String {
        self.run(&format!("ip {args}"))
    }

    /// Runs a command in the namespace; it must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.command(command).output().expect("iproute2 is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).expect("commands print text")
    }

    /// Prepares a command in the namespace.
    pub(crate) fn command(&self, command: &str) -> Command {
        let mut prepared = Command::new("ip");
        prepared.args(["netns", "exec", &self.0]).args(command.split_whitespace());
        prepared
    }
}

/// The first of the three nodes' machine, with a workload's interface.
pub(crate) fn machine() -> TestNamespace {
    let namespace = TestNamespace::new();
    namespace.ip("link add eth0 type veth peer name far0");
    namespace.ip("address add 172.16.6.1/24 dev eth0");
    namespace.ip("link set far0 up");
    namespace.ip("link set eth0 up");
    namespace.ip("route add default via 172.16.6.254");
    namespace.ip("link add cali1 type veth peer name far1");
    namespace.ip("link set far1 up");
    namespace.ip("link set cali1 up");
    namespace
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        // A panic is on its way or all is well; in neither case would a failure here help.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
