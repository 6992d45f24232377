//! What a lab that is up has written down, so that any process can look at it, work in it and take it down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::LabError;
use super::port::Port;
use super::process::Process;
use super::topology::{LabName, Topology};

const FOLDER: &str = "/run/calico-lab";

/// A lab as it is written down in `/run/calico-lab/NAME/lab.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabState {
    /// The lab's name.
    pub name: String,
    /// The router's namespace.
    pub router: String,
    /// The hosts, in the order of the topology.
    pub hosts: Vec<HostState>,
    /// The workloads, in the order of the topology.
    pub workloads: Vec<WorkloadState>,
}

/// A host of a lab that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its address.
    pub address: IpAddr,
    /// The environment of its agent, and of `calicoctl` beside it.
    pub environment: BTreeMap<String, String>,
    /// The folder for what lives as long as it does.
    pub run_dir: PathBuf,
    /// Its agent's log.
    pub log: PathBuf,
    /// Its agent.
    pub agent: Option<Process>,
}

/// A workload of a lab that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadState {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its host's name.
    pub host: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The address that it must get, when it matters.
    pub wanted_address: Option<IpAddr>,
    /// The ports it answers on.
    pub listen: Vec<Port>,
    /// Its address, while it is attached.
    pub address: Option<IpAddr>,
    /// What the CNI program said when it was last attached; runtimes keep that for CHECK and DEL.
    pub attachment: Option<Value>,
    /// What answers on its ports.
    pub responder: Option<Process>,
}

/// Keeps others from making labs meanwhile.
#[derive(Debug)]
pub(super) struct Reservation {
    _lock: Flock<fs::File>,
}

impl Reservation {
    pub(super) fn take() -> Result<Self, LabError> {
        fs::create_dir_all(FOLDER).map_err(LabError::io(format!("make the folder {FOLDER}")))?;
        let attempt = format!("lock {FOLDER}");
        let file = fs::File::open(FOLDER).map_err(LabError::io(attempt.clone()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map(|lock| Self { _lock: lock }).map_err(|(_, errno)| LabError::io(attempt)(errno))
    }
}

impl LabState {
    /// Lays the lab out: names, folders and environments, and nothing started yet.
    pub(super) fn plan(topology: &Topology) -> Self {
        let folder = folder(topology.name().as_str());
        let datastore = folder.join("calico.db");
        let host = |host: &super::topology::Host| {
            let home = folder.join("hosts").join(host.name.as_str());
            let run_dir = home.join("run");
            let mut environment = pool_environment(topology);
            let text = |path: &Path| path.display().to_string();
            environment.extend([
                ("NODENAME".to_owned(), host.name.as_str().to_owned()),
                ("IP".to_owned(), host.address.to_string()),
                ("DATASTORE_TYPE".to_owned(), "sqlite".to_owned()),
                ("CALICO_DATASTORE_PATH".to_owned(), text(&datastore)),
                ("CALICO_RUN_DIR".to_owned(), text(&run_dir)),
                ("CALICO_LIB_DIR".to_owned(), text(&home.join("lib"))),
            ]);
            environment.extend(host.ipv6.map(|(address, _)| ("IP6".to_owned(), address.to_string())));
            environment.extend(host.as_number.map(|number| ("AS".to_owned(), number.to_string())));
            HostState {
                name: host.name.as_str().to_owned(),
                netns: topology.netns_of(&host.name),
                address: host.address.addr(),
                environment,
                run_dir,
                log: folder.join("logs").join(format!("{}.log", host.name.as_str())),
                agent: None,
            }
        };
        let workload = |workload: &super::topology::Workload| WorkloadState {
            name: workload.name.as_str().to_owned(),
            netns: topology.netns_of(&workload.name),
            host: workload.host.as_str().to_owned(),
            labels: workload.labels.clone(),
            wanted_address: workload.address.map(IpAddr::V4),
            listen: workload.listen.clone(),
            address: None,
            attachment: None,
            responder: None,
        };
        Self {
            name: topology.name().as_str().to_owned(),
            router: topology.router_netns(),
            hosts: topology.hosts.iter().map(host).collect(),
            workloads: topology.workloads.iter().map(workload).collect(),
        }
    }

    /// Makes the lab's folders, and so takes its name.
    pub(super) fn claim(&self) -> Result<(), LabError> {
        let folder = self.folder();
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                LabError::Exists { name: self.name.clone() }
            } else {
                LabError::io(format!("make the folder {}", folder.display()))(source)
            }
        })?;
        let lib_dirs = self.hosts.iter().filter_map(|host| host.environment.get("CALICO_LIB_DIR"));
        let inner = self.hosts.iter().map(|host| host.run_dir.clone()).chain(lib_dirs.map(PathBuf::from));
        for inner in inner.chain([folder.join("logs")]) {
            fs::create_dir_all(&inner)
                .map_err(LabError::io(format!("make the folder {}", inner.display())))?;
        }
        self.save()
    }

    /// Writes the state down, whole or not at all.
    pub(super) fn save(&self) -> Result<(), LabError> {
        let path = self.folder().join("lab.json");
        let draft = self.folder().join("lab.json.new");
        let attempt = format!("write {}", path.display());
        let text = serde_json::to_string_pretty(self).map_err(LabError::io(attempt.clone()))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(LabError::io(attempt))
    }

    /// Reads the state of a lab that is up.
    ///
    /// # Errors
    /// [`LabError::NoSuchLab`] when there is none of that name, [`LabError::NotWrittenDown`] when it was never made; else
    /// when what is written down cannot be read.
    pub fn read(name: &LabName) -> Result<Self, LabError> {
        if !folder(name.as_str()).exists() {
            return Err(LabError::NoSuchLab { name: name.as_str().to_owned() });
        }
        let path = folder(name.as_str()).join("lab.json");
        let attempt = || format!("read {}", path.display());
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LabError::NotWrittenDown { name: name.as_str().to_owned() });
            }
            read => read.map_err(LabError::io(attempt()))?,
        };
        serde_json::from_str(&text).map_err(LabError::io(attempt()))
    }

    /// Returns the names of the labs that are up or were left behind, sorted.
    ///
    /// # Errors
    /// When the folder of the labs cannot be read.
    pub fn names() -> Result<Vec<LabName>, LabError> {
        let listing = match fs::read_dir(FOLDER) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LabError::io(format!("list {FOLDER}"))(error)),
        };
        let names = listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut names: Vec<LabName> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Returns the folder of everything that the lab keeps.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }

    /// Returns every namespace of the lab: workloads first, the router last.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> + Clone {
        let workloads = self.workloads.iter().map(|workload| workload.netns.as_str());
        let hosts = self.hosts.iter().map(|host| host.netns.as_str());
        workloads.chain(hosts).chain([self.router.as_str()])
    }

    /// Returns every process that was written down.
    pub(super) fn processes(&self) -> impl Iterator<Item = Process> {
        let agents = self.hosts.iter().filter_map(|host| host.agent);
        agents.chain(self.workloads.iter().filter_map(|workload| workload.responder))
    }

    /// Returns the host called `name`.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is none.
    pub fn host(&self, name: &str) -> Result<&HostState, LabError> {
        self.hosts.iter().find(|host| host.name == name).ok_or_else(|| self.no_member(name))
    }

    /// Returns the workload called `name`.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is none.
    pub fn workload(&self, name: &str) -> Result<&WorkloadState, LabError> {
        self.workloads.iter().find(|workload| workload.name == name).ok_or_else(|| self.no_member(name))
    }

    /// Returns the namespace of the host or workload called `name`.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is none.
    pub fn netns(&self, name: &str) -> Result<&str, LabError> {
        let host = self.host(name).map(|host| host.netns.as_str());
        host.or_else(|_| self.workload(name).map(|workload| workload.netns.as_str()))
    }

    fn no_member(&self, name: &str) -> LabError {
        let workloads = self.workloads.iter().map(|workload| workload.name.as_str());
        let known: Vec<_> = self.hosts.iter().map(|host| host.name.as_str()).chain(workloads).collect();
        LabError::NoSuchMember { lab: self.name.clone(), name: name.to_owned(), known: known.join(", ") }
    }
}

/// Removes the folder of a lab; one that is not there is no failure. The folder of all labs stays: another process may
/// have just made sure that it is there, or hold a lock on it.
pub(super) fn remove_folder(name: &LabName) -> Result<(), LabError> {
    let folder = folder(name.as_str());
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(LabError::io(format!("remove the folder {}", folder.display()))),
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn pool_environment(topology: &Topology) -> BTreeMap<String, String> {
    let Some(pool) = topology.pool_of_agents() else {
        return BTreeMap::from([("NO_DEFAULT_POOLS".to_owned(), "true".to_owned())]);
    };
    let pairs = [
        ("CALICO_IPV4POOL_CIDR", pool.cidr.to_string()),
        ("CALICO_IPV4POOL_IPIP", pool.ipip.clone()),
        ("CALICO_IPV4POOL_VXLAN", pool.vxlan.clone()),
        ("CALICO_IPV4POOL_BLOCK_SIZE", pool.block_size.to_string()),
        ("CALICO_IPV4POOL_NAT_OUTGOING", pool.nat_outgoing.to_string()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
