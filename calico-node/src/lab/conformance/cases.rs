//! Cases as every replay sees them, whatever form they were written in.

use std::fs;
use std::path::{Path, PathBuf};

use calico_policy::packet::PortProtocol;
use calico_policy::{Transport, Verdict};
use serde_json::Value;

use super::error::ConformanceError;
use super::scene::{Scene, text};
use super::{network_policy_api, truth_table};

/// The cases of one file.
#[derive(Debug, Clone)]
pub(super) struct Suite {
    /// The file.
    pub(super) path: PathBuf,
    pub(super) cases: Vec<Case>,
}

/// Steps that build on one another. Nothing is left of a case when the next begins.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) steps: Vec<Step>,
}

/// What there is, and what is expected of it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) scene: Scene,
    pub(super) probes: Vec<Expected>,
}

/// A probe, and what should come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) service: Service,
    pub(super) verdict: Verdict,
}

/// A port of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) protocol: PortProtocol,
    pub(super) port: u16,
}

impl Suite {
    /// Reads every file of cases at `path`: that file, or those in the folder and its folders.
    pub(super) fn read_all(path: &Path) -> Result<Vec<Self>, ConformanceError> {
        let mut files = Vec::new();
        collect(path, &mut files)?;
        files.sort();
        if files.is_empty() {
            let reason = "it has neither a truth-table.json nor an expected.json in it".to_owned();
            return Err(ConformanceError::NotCases { path: path.to_owned(), reason });
        }
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn read(path: &Path) -> Result<Self, ConformanceError> {
        let unreadable = |source| ConformanceError::Unreadable { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(unreadable)?;
        let not_cases = |reason: String| ConformanceError::NotCases { path: path.to_owned(), reason };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| not_cases(error.to_string()))?;
        let cases = if text(&value, "format") == truth_table::FORMAT {
            truth_table::cases(&value).map_err(not_cases)?
        } else if value.get("tests").is_some() {
            let folder = path.parent().unwrap_or(Path::new("."));
            network_policy_api::cases(&value, folder).map_err(not_cases)?
        } else {
            let reason = format!("it is neither {} nor the network-policy-api's", truth_table::FORMAT);
            return Err(not_cases(reason));
        };
        Ok(Self { path: path.to_owned(), cases })
    }

    /// Walks all probes of all cases.
    pub(super) fn probes(&self) -> impl Iterator<Item = &Expected> {
        self.cases.iter().flat_map(|case| &case.steps).flat_map(|step| &step.probes)
    }

    /// Keeps one of so many cases: those whose id's digest says so (FNV-1a), and the first.
    pub(super) fn one_in(&mut self, one_in: u64) {
        let digest = |id: &str| {
            id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        let mut place = 0;
        self.cases.retain(|case| {
            place += 1;
            place == 1 || (digest(&case.id) >> 32).is_multiple_of(one_in)
        });
    }

    /// Keeps only the cases of an id.
    pub(super) fn only(suites: &mut Vec<Self>, id: &str) -> Result<(), ConformanceError> {
        let ids: Vec<&str> =
            suites.iter().flat_map(|suite| &suite.cases).map(|case| case.id.as_str()).collect();
        if !ids.contains(&id) {
            let known = ids.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            return Err(ConformanceError::NoSuchCase { id: id.to_owned(), known });
        }
        suites.iter_mut().for_each(|suite| suite.cases.retain(|case| case.id == id));
        suites.retain(|suite| !suite.cases.is_empty());
        Ok(())
    }
}

impl Service {
    /// Reads `TCP/80`.
    pub(super) fn parse(service: &str) -> Result<Self, String> {
        let wrong = || format!("{service} is no service: write it like TCP/80");
        let (protocol, port) = service.split_once('/').ok_or_else(wrong)?;
        Ok(Self { protocol: protocol_of(protocol)?, port: port.parse().map_err(|_| wrong())? })
    }

    /// Returns what a probe's packet carries.
    pub(super) fn transport(self) -> Transport {
        Transport::Ports { protocol: self.protocol, source: 40_000, destination: self.port }
    }
}

/// Reads the name of a protocol as Kubernetes writes it.
pub(super) fn protocol_of(name: &str) -> Result<PortProtocol, String> {
    match name {
        "TCP" => Ok(PortProtocol::Tcp),
        "UDP" => Ok(PortProtocol::Udp),
        "SCTP" => Ok(PortProtocol::Sctp),
        other => Err(format!("{other} is no protocol that can be probed: use TCP, UDP or SCTP")),
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.protocol.protocol(), self.port)
    }
}

/// Finds the files of cases: a folder that has one is not looked into any further.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), ConformanceError> {
    let unreadable = |source| ConformanceError::Unreadable { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let own: Vec<PathBuf> = [truth_table::FILE, network_policy_api::FILE]
        .into_iter()
        .map(|name| path.join(name))
        .filter(|file| file.is_file())
        .collect();
    if !own.is_empty() {
        files.extend(own);
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().map_err(unreadable)?.is_dir() {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}
