//! The daemons: how each is configured and started, and what it costs.

use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::time::ClockId;
use nix::unistd::Pid;

/// Where every daemon listens, and its AS number.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const ASN: u32 = 65_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Ours,
    Bird,
    Frr,
    Gobgp,
}

impl Daemon {
    pub(crate) const ALL: [Daemon; 4] = [Self::Ours, Self::Bird, Self::Frr, Self::Gobgp];
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
        })
    }
}

impl FromStr for Daemon {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|daemon| daemon.to_string() == name);
        known.ok_or_else(|| anyhow!("{name} is not a daemon: ours, bird, frr, gobgp"))
    }
}

/// A neighbour as all daemons are told of it. Those of our AS are clients of the reflector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) export: Export,
}

/// Which routes the daemon tells a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Export {
    All,
    None,
}

/// A daemon at work. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
}

impl Daemon {
    pub(crate) fn start(self, ours: &Path, folder: &Path, neighbours: &[Neighbour]) -> Result<Running> {
        let file = folder.join(format!("{self}.conf"));
        let (text, mut command) = match self {
            Self::Ours => (toml(neighbours, folder), {
                let mut command = Command::new(ours);
                command.arg("--config").arg(&file);
                command
            }),
            Self::Bird => (bird(neighbours), {
                let mut command = Command::new("bird");
                command.arg("-f").arg("-c").arg(&file).arg("-s").arg(folder.join("bird.ctl"));
                command
            }),
            Self::Frr => (frr(neighbours), {
                let mut command = Command::new("/usr/lib/frr/bgpd");
                command.args([
                    "--no_zebra",
                    "--skip_runas",
                    "--no_kernel",
                    "--vty_port",
                    "0",
                    "--log",
                    "stdout",
                ]);
                command.args(["--log-level", "errors", "--vty_socket"]).arg(folder);
                command.arg("--config_file").arg(&file).arg("--pid_file").arg(folder.join("frr.pid"));
                command
            }),
            Self::Gobgp => (gobgp(neighbours), {
                let mut command = Command::new("gobgpd");
                command
                    .args(["--api-hosts", "127.0.0.1:50051", "--log-level", "error", "--config-file"])
                    .arg(&file);
                command
            }),
        };
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let log = fs::File::create(folder.join(format!("{self}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {self}: is it installed?"))?;
        Ok(Running { child })
    }
}

/// CPU seconds: user and system, and the latter alone, which is counted in hundredths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) all: f64,
    pub(crate) system: f64,
}

impl Running {
    /// Returns the CPU time used so far.
    pub(crate) fn cpu(&mut self) -> Result<Cpu> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended: {status}");
        }
        let id = i32::try_from(self.child.id())?;
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(id))?.now()?;
        let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name, in parentheses, may hold anything; the system time is field 15, in ticks (proc_pid_stat(5)).
        let (_, fields) = text.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let ticks: f64 = fields.split_whitespace().nth(12).context("no system time")?.parse()?;
        Ok(Cpu { all: Duration::from(clock).as_secs_f64(), system: ticks / 100.0 })
    }

    /// Returns the peak resident memory in MB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: f64 = line.split_whitespace().next().context("no VmHWM")?.parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn toml(neighbours: &[Neighbour], folder: &Path) -> String {
    let mut text = format!(
        "local_as = {ASN}\nrouter_id = \"{ADDRESS}\"\nlisten = [\"{ADDRESS}:179\"]\nsocket = \"{}\"\n",
        folder.join("ours.sock").display()
    );
    for Neighbour { address, asn, export } in neighbours {
        let client = *asn == ASN;
        let export = *export == Export::All;
        let _ = write!(
            text,
            "[[peer]]\naddress = \"{address}\"\nas = {asn}\npassive = true\nreflector_client = {client}\n\
             export = {export}\n"
        );
    }
    text
}

fn bird(neighbours: &[Neighbour]) -> String {
    let mut text = format!("router id {ADDRESS};\nprotocol device {{}}\n");
    for (at, Neighbour { address, asn, export }) in neighbours.iter().enumerate() {
        let kind = if *asn == ASN { "rr client; " } else { "" };
        let export = if *export == Export::All { "all" } else { "none" };
        let _ = writeln!(
            text,
            "protocol bgp p{at} {{ local {ADDRESS} as {ASN}; neighbor {address} as {asn}; multihop; passive; {kind}\
             ipv4 {{ import all; export {export}; }}; }}"
        );
    }
    text
}

fn frr(neighbours: &[Neighbour]) -> String {
    let mut text = format!(
        "router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp disable-ebgp-connected-route-check\n neighbor inside peer-group\n neighbor inside remote-as {ASN}\n \
         neighbor inside passive\n neighbor inside update-source {ADDRESS}\n"
    );
    for Neighbour { address, asn, .. } in neighbours {
        let _ = match *asn {
            ASN => writeln!(text, " neighbor {address} peer-group inside"),
            asn => writeln!(
                text,
                " neighbor {address} remote-as {asn}\n neighbor {address} passive\n neighbor {address} ebgp-multihop \
                 255\n neighbor {address} update-source {ADDRESS}"
            ),
        };
    }
    text.push_str(" address-family ipv4 unicast\n  neighbor inside route-reflector-client\n");
    for Neighbour { address, .. } in neighbours.iter().filter(|n| n.export == Export::None) {
        let _ = writeln!(text, "  neighbor {address} route-map nothing out");
    }
    text.push_str(" exit-address-family\nroute-map nothing deny 10\n");
    text
}

fn gobgp(neighbours: &[Neighbour]) -> String {
    let mut text = format!(
        "[global.config]\nas = {ASN}\nrouter-id = \"{ADDRESS}\"\nlocal-address-list = [\"{ADDRESS}\"]\n"
    );
    let told_nothing: Vec<String> = neighbours
        .iter()
        .filter(|n| n.export == Export::None)
        .map(|n| format!("\"{}/32\"", n.address))
        .collect();
    if !told_nothing.is_empty() {
        let _ = write!(
            text,
            "[global.apply-policy.config]\nexport-policy-list = [\"nothing\"]\n\
             default-export-policy = \"accept-route\"\n\
             [[defined-sets.neighbor-sets]]\nneighbor-set-name = \"tellers\"\nneighbor-info-list = [{}]\n\
             [[policy-definitions]]\nname = \"nothing\"\n[[policy-definitions.statements]]\n\
             [policy-definitions.statements.conditions.match-neighbor-set]\nneighbor-set = \"tellers\"\n\
             [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n",
            told_nothing.join(", ")
        );
    }
    for Neighbour { address, asn, .. } in neighbours {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
             [neighbors.transport.config]\npassive-mode = true\n"
        );
        if *asn == ASN {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{ADDRESS}\"\n"
            );
        } else {
            let _ = write!(text, "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 255\n");
        }
    }
    text
}
