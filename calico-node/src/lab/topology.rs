//! What a lab is made of, as a user writes it in YAML.
//!
//! ```yaml
//! name: office
//! subnets:
//!   - {name: first, cidr: 10.1.0.0/24, gateway: 10.1.0.254}
//! hosts:
//!   - {name: node1, address: 10.1.0.1}
//!   - {name: node2, address: 10.1.0.2, as: 64513}
//! pools:
//!   - {cidr: 192.168.0.0/16, vxlanMode: CrossSubnet, blockSize: 26, natOutgoing: true}
//! workloads:
//!   - {name: web, host: node1, address: 192.168.87.193, labels: {app: web}, listen: [80]}
//! resources:
//!   - policies.yaml
//! ```
//!
//! With `cidr6` and `gateway6` of subnets, `address6` of hosts and an IPv6 pool, workloads have an IPv6 address besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use calico_model::{AsNumber, Cidr, Family, Fault, Faults, InterfaceAddr};
use serde_json::{Value, json};

use super::error::TopologyError;
use super::fields::{Fields, fault};
use super::port::Port;

/// What a lab is made of, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub(super) name: LabName,
    pub(super) naming: Naming,
    pub(super) subnets: Vec<Subnet>,
    pub(super) hosts: Vec<Host>,
    pub(super) pools: Vec<Pool>,
    pub(super) workloads: Vec<Workload>,
    pub(super) manifests: Vec<Manifest>,
}

/// How the namespaces of hosts and workloads are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// `LAB-node1`: labs do not get in each other's way.
    Prefixed,
    /// `node1`: handy to type, and only one such lab can be up.
    Bare,
}

/// A lab's name: a DNS label of at most 15 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(Label);

/// The name of a host or workload: a DNS label of at most 15 characters, so that a network interface can bear it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(String);

/// A network that hosts are on, behind one bridge of the router.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subnet {
    pub(super) name: Label,
    pub(super) cidr: Cidr,
    pub(super) gateway: Ipv4Addr,
    pub(super) ipv6: Option<(Cidr, Ipv6Addr)>,
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Host {
    pub(super) name: Label,
    pub(super) address: InterfaceAddr,
    pub(super) gateway: Ipv4Addr,
    /// Its IPv6 address, and the gateway.
    pub(super) ipv6: Option<(InterfaceAddr, Ipv6Addr)>,
    pub(super) subnet: usize,
    pub(super) as_number: Option<AsNumber>,
}

/// An IP pool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pool {
    pub(super) name: Option<String>,
    pub(super) cidr: Cidr,
    pub(super) ipip: String,
    pub(super) vxlan: String,
    pub(super) block_size: u8,
    pub(super) nat_outgoing: bool,
}

/// A workload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    pub(super) name: Label,
    pub(super) host: Label,
    /// The address it must get; `None` leaves the choice to IPAM.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) listen: Vec<Port>,
}

/// Resources to apply before workloads come.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Manifest {
    /// A file for `calicoctl apply -f`.
    File(PathBuf),
    /// One resource, written in the topology itself.
    Inline(Value),
}

impl Topology {
    /// Reads a topology file. Files that it names are relative to its folder.
    ///
    /// # Errors
    /// When the file cannot be read or is not a topology; all that is wrong with it is told at once.
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        let unreadable = |source| TopologyError::Unreadable { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Parses a topology, whose files are relative to `folder`.
    fn parse(yaml: &str, folder: &Path) -> Result<Self, TopologyError> {
        let value =
            serde_saphyr::from_str(yaml).map_err(|error| TopologyError::Malformed(error.to_string()))?;
        let mut faults = Vec::new();
        let topology = check(value, folder, &mut faults);
        match topology {
            Some(topology) if faults.is_empty() => Ok(topology),
            _ => Err(TopologyError::Invalid(Faults(faults))),
        }
    }

    /// Gives the lab another name, so that one topology can be up more than once.
    #[must_use]
    pub fn named(mut self, name: LabName) -> Self {
        self.name = name;
        self
    }

    /// Returns the lab's name.
    #[must_use]
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// Returns the pool that the agents make as they start, as on real hosts: the only one, when it has no name of its
    /// own. Any others are applied before agents start.
    pub(super) fn pool_of_agents(&self) -> Option<&Pool> {
        match self.pools.as_slice() {
            [only] if only.name.is_none() && only.cidr.family() == Family::V4 => Some(only),
            _ => None,
        }
    }

    /// Returns the pools that are applied, as YAML documents.
    pub(super) fn pool_manifest(&self) -> String {
        if self.pool_of_agents().is_some() {
            return String::new();
        }
        let manifest = |(index, pool): (usize, &Pool)| {
            let name = pool.name.clone().unwrap_or_else(|| format!("pool-{index}"));
            let spec = json!({
                "cidr": pool.cidr.to_string(),
                "ipipMode": pool.ipip,
                "vxlanMode": pool.vxlan,
                "blockSize": pool.block_size,
                "natOutgoing": pool.nat_outgoing,
            });
            let kind = "IPPool";
            let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
            format!("---\n{pool}\n")
        };
        self.pools.iter().enumerate().map(manifest).collect()
    }

    /// Returns the namespace of the host or workload called `name`.
    pub(super) fn netns_of(&self, name: &Label) -> String {
        match self.naming {
            Naming::Prefixed => format!("{}-{}", self.name.as_str(), name.as_str()),
            Naming::Bare => name.as_str().to_owned(),
        }
    }

    /// Returns the router's namespace.
    pub(super) fn router_netns(&self) -> String {
        format!("{}-router", self.name.as_str())
    }
}

/// Files that the text names are relative to the working folder; all that is wrong with it is told at once.
impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(yaml: &str) -> Result<Self, TopologyError> {
        Self::parse(yaml, Path::new(""))
    }
}

impl Label {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let fits = bytes.len() <= 15 && edge(bytes.first()) && edge(bytes.last());
        if fits && bytes.iter().copied().all(inner) { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl LabName {
    /// Returns the text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LabName {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        text.parse().map(Self).map_err(|()| TopologyError::LabName { name: text.to_owned() })
    }
}

const LABEL: &str = "must be at most 15 lower-case letters, digits and inner dashes";

fn check(value: Value, folder: &Path, faults: &mut Vec<Fault>) -> Option<Topology> {
    let mut fields = Fields::open("topology", value, faults)?;
    let name = fields.required("name", LABEL);
    let bare = fields.optional("bareNames", "must be true or false").unwrap_or(false);
    let lists = ["subnets", "hosts", "pools", "workloads", "resources"].map(|field| fields.list(field));
    fields.close();
    let [subnets, hosts, pools, workloads, resources] = lists;

    let subnets = each("subnets", subnets, faults, subnet);
    if subnets.is_empty() {
        faults.push(fault("subnets", None, "must name at least one subnet"));
    }
    let hosts = each("hosts", hosts, faults, |fields| host(fields, &subnets));
    if hosts.is_empty() {
        faults.push(fault("hosts", None, "must name at least one host"));
    }
    let pools = each("pools", pools, faults, pool);
    let workloads = each("workloads", workloads, faults, |fields| workload(fields, &hosts));
    let manifests = resources.into_iter().enumerate();
    let manifests = manifests.filter_map(|(index, value)| manifest(index, value, folder, faults)).collect();

    unique("subnets", "name", subnets.iter().map(|subnet| subnet.name.as_str()), faults);
    let names = hosts.iter().map(|host| &host.name).chain(workloads.iter().map(|workload| &workload.name));
    unique("hosts and workloads", "name", names.map(Label::as_str), faults);
    let addresses: Vec<_> = hosts.iter().map(|host| host.address.addr().to_string()).collect();
    unique("hosts", "address", addresses.iter().map(String::as_str), faults);
    let own = subnets.iter().flat_map(|subnet| [Some(subnet.cidr), subnet.ipv6.map(|(cidr, _)| cidr)]);
    disjoint(&own.flatten().chain(pools.iter().map(|pool| pool.cidr)).collect::<Vec<_>>(), faults);
    let is_ipv6 = |pool: &Pool| pool.cidr.family() == Family::V6;
    if hosts.iter().any(|host| host.ipv6.is_some()) && !pools.iter().any(is_ipv6) {
        faults.push(fault("pools", None, "must have one of IPv6 where hosts have an IPv6 address"));
    }

    let naming = if bare { Naming::Bare } else { Naming::Prefixed };
    Some(Topology { name: LabName(name?), naming, subnets, hosts, pools, workloads, manifests })
}

fn each<T>(
    list: &str,
    values: Vec<Value>,
    faults: &mut Vec<Fault>,
    mut check: impl FnMut(&mut Fields<'_>) -> Option<T>,
) -> Vec<T> {
    let mut checked = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        if let Some(mut fields) = Fields::open(&format!("{list}[{index}]"), value, faults) {
            checked.extend(check(&mut fields));
            fields.close();
        }
    }
    checked
}

fn subnet(fields: &mut Fields<'_>) -> Option<Subnet> {
    let name = fields.required("name", LABEL);
    let cidr = fields.required::<Cidr>("cidr", "must be an IPv4 network such as 10.1.0.0/24");
    let gateway = fields.required::<Ipv4Addr>("gateway", "must be the router's address in the subnet");
    if let (Some(cidr), Some(gateway)) = (cidr, gateway)
        && !cidr.contains(gateway.into())
    {
        fields.fault("gateway", Some(&gateway.to_string().into()), &format!("must be in {cidr}"));
    }
    let cidr6 = fields.optional::<Cidr>("cidr6", "must be an IPv6 network such as 2001:db8:1::/64");
    let gateway6 = fields.optional::<Ipv6Addr>("gateway6", "must be the router's IPv6 address in the subnet");
    let ipv6 = cidr6.zip(gateway6);
    if cidr6.is_some() != gateway6.is_some() || ipv6.is_some_and(|(cidr, own)| !cidr.contains(own.into())) {
        fields.fault("gateway6", None, "must be there where cidr6 is, and in it");
    }
    Some(Subnet { name: name?, cidr: cidr?, gateway: gateway?, ipv6 })
}

fn host(fields: &mut Fields<'_>, subnets: &[Subnet]) -> Option<Host> {
    let name = fields.required("name", LABEL);
    let address = fields.required::<Ipv4Addr>("address", "must be an IPv4 address");
    let address6 = fields.optional::<Ipv6Addr>("address6", "must be an IPv6 address");
    let as_number = fields.optional("as", "must be an AS number such as 64512");
    let address = address?;
    let Some(index) = subnets.iter().position(|subnet| subnet.cidr.contains(address.into())) else {
        fields.fault("address", Some(&address.to_string().into()), "is in none of the subnets");
        return None;
    };
    let subnet = &subnets[index];
    if subnet.gateway == address {
        fields.fault("address", Some(&address.to_string().into()), "is the router's address");
    }
    let address = InterfaceAddr::new(address.into(), subnet.cidr.prefix_len())?;
    let ipv6 =
        subnet.ipv6.zip(address6).filter(|((cidr, own), addr)| cidr.contains((*addr).into()) && own != addr);
    if ipv6.is_none() && address6.is_some() {
        fields.fault("address6", None, "must be in cidr6 of the host's subnet, and not the router's");
    }
    let ipv6 =
        ipv6.and_then(|((cidr, own), addr)| Some((InterfaceAddr::new(addr.into(), cidr.prefix_len())?, own)));
    Some(Host { name: name?, address, gateway: subnet.gateway, ipv6, subnet: index, as_number })
}

fn pool(fields: &mut Fields<'_>) -> Option<Pool> {
    let name = fields.optional("name", "must be a name");
    let cidr = fields.required::<Cidr>("cidr", "must be a network such as 192.168.0.0/16");
    let [ipip, vxlan] = ["ipipMode", "vxlanMode"].map(|field| mode(fields, field));
    if ipip != "Never" && vxlan != "Never" {
        fields.fault("ipipMode", Some(&ipip.as_str().into()), "must be Never where vxlanMode is not");
    }
    let (usual, least, most) = match cidr.map(|cidr| cidr.family()) {
        Some(Family::V6) => (122, 116, 128),
        Some(Family::V4) | None => (26, 20, 32),
    };
    let block_size = fields.optional("blockSize", "must be a prefix length").unwrap_or(usual);
    if !(least..=most).contains(&block_size) {
        fields.fault("blockSize", Some(&block_size.into()), &format!("must be between {least} and {most}"));
    }
    let nat_outgoing = fields.optional("natOutgoing", "must be true or false").unwrap_or(false);
    Some(Pool { name, cidr: cidr?, ipip, vxlan, block_size, nat_outgoing })
}

fn mode(fields: &mut Fields<'_>, field: &str) -> String {
    let mode: String = fields.optional(field, "must be a text").unwrap_or_else(|| "Never".to_owned());
    if !["Never", "Always", "CrossSubnet"].contains(&mode.as_str()) {
        fields.fault(field, Some(&mode.as_str().into()), "must be Never, Always or CrossSubnet");
    }
    mode
}

fn workload(fields: &mut Fields<'_>, hosts: &[Host]) -> Option<Workload> {
    let name = fields.required("name", LABEL);
    let host: Option<Label> = fields.required("host", "must be the name of a host");
    if let Some(host) = &host
        && !hosts.iter().any(|known| known.name == *host)
    {
        fields.fault("host", Some(&host.as_str().into()), "is none of the hosts");
    }
    let address = fields.optional("address", "must be an IPv4 address of a pool");
    let labels = fields.texts("labels");
    let listen = fields.scalars("listen", "must be a port between 1 and 65535, with /udp behind it for UDP");
    Some(Workload { name: name?, host: host?, address, labels, listen })
}

fn manifest(index: usize, value: Value, folder: &Path, faults: &mut Vec<Fault>) -> Option<Manifest> {
    match value {
        Value::String(file) => Some(Manifest::File(folder.join(file))),
        Value::Object(_) => Some(Manifest::Inline(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            let path = format!("resources[{index}]");
            faults.push(fault(&path, Some(&value), "must be the name of a file, or a resource"));
            None
        }
    }
}

fn unique<'n>(list: &str, what: &str, values: impl Iterator<Item = &'n str>, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            faults.push(fault(list, None, &format!("the {what} {value} is there more than once")));
        }
    }
}

fn disjoint(networks: &[Cidr], faults: &mut Vec<Fault>) {
    for (index, network) in networks.iter().enumerate() {
        for other in networks[..index].iter().filter(|other| other.overlaps(network)) {
            faults.push(fault("subnets and pools", None, &format!("{other} and {network} overlap")));
        }
    }
}

#[cfg(test)]
mod tests;
