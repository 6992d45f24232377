//! A monitoring station of somebody else (RFC 7854): pmacct's, which writes down what it understood.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use calico_bgp::net::Station;

use crate::lab::{Namespace, PATIENCE, wait_for_routes};
use crate::sockets::{GOOD, US, good_peer, ours};

/// pmacct's station in a namespace.
struct Pmacct {
    folder: PathBuf,
    process: Child,
}

impl Pmacct {
    fn start(namespace: &Namespace, port: u16) -> Self {
        let found =
            ["/usr/sbin/pmbmpd", "/usr/local/sbin/pmbmpd"].iter().any(|path| Path::new(path).exists());
        assert!(found, "the test against pmacct's station needs the program pmbmpd: apt-get install pmacct");
        let folder = std::env::temp_dir().join(format!("cbgp-pmacct-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pmbmpd.conf");
        let text = format!(
            "daemonize: false
bmp_daemon_ip: {US}
bmp_daemon_port: {port}
bmp_daemon_msglog_file: {}
bmp_daemon_msglog_output: json
",
            folder.join("messages").display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = namespace.command("pmbmpd");
        let log = std::fs::File::create(folder.join("log")).unwrap();
        command.arg("-f").arg(&file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("ip netns exec starts");
        Self { folder, process }
    }

    /// Waits until it listens: who is refused comes back much later. Asks the kernel, as it would write down a visitor.
    async fn listens(&self, namespace: &Namespace, port: u16) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let filter = format!("sport = :{port}");
        let shown =
            || namespace.command("ss").args(["-H", "-l", "-n", "-t", &filter]).output().expect("iproute2");
        while shown().stdout.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "it does not listen:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// What it wrote down, one JSON text for each event.
    fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("messages")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for an event that says all of this.
    async fn wait_for(&self, words: &[&str]) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let says = |message: &&String| words.iter().all(|word| message.contains(word));
            if let Some(message) = self.messages().iter().find(says) {
                return message.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no event with {words:?} in {:#?}\nlog:\n{}", self.messages(), self.log());
    }
}

impl Drop for Pmacct {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_station_of_somebody_else_understands_sessions_routes_and_their_end() {
    let namespace = Namespace::new();
    let station = Pmacct::start(&namespace, 11019);
    namespace.block_on(async {
        let handle = ours(1790).await;
        let good = good_peer(1790).await;
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        station.listens(&namespace, 11019).await;
        let address = format!("{US}:11019").parse().unwrap();
        handle.set_stations(vec![Station { address, name: "node1".to_owned() }]).await.unwrap();
        station.wait_for(&["init", "node1", "calico-bgp"]).await;
        let up = station.wait_for(&["peer_up", GOOD]).await;
        assert!(up.contains("65001"), "{up}");
        station.wait_for(&["10.2.0.0/16", "10.2.0.1", GOOD]).await;
        good.set_originated([].into()).await.unwrap();
        station.wait_for(&["withdraw", "10.2.0.0/16"]).await;
        good.shut_down("bye").await.unwrap();
        station.wait_for(&["peer_down", GOOD]).await;
        handle.set_stations(Vec::new()).await.unwrap();
        station.wait_for(&["log_close"]).await;
    });
}
