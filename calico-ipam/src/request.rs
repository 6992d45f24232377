//! What is asked for, and what comes back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::resource::AllowedUse;
use calico_model::resource::block::Owner;
use calico_model::{Cidr, Family, Labels, Name, NodeName, SequenceNumber};

use crate::error::Shortage;
use crate::pool::PoolRef;

/// One value for each address family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Returns the value for a family.
    pub fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Returns the value for a family, to change it.
    pub fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Whether a request adds to what its handle holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HandleUse {
    /// The addresses are added to those that the handle holds.
    #[default]
    Add,
    /// The handle must be new: when it exists the request fails with
    /// [`AssignError::HandleInUse`](crate::AssignError::HandleInUse). Of two such requests at once one wins.
    New,
}

/// A request for addresses from whichever block has them.
///
/// # Examples
/// ```
/// use calico_ipam::AutoAssign;
/// let mut request = AutoAssign::new("node1".parse()?, "k8s-pod-network.0123");
/// request.count.v4 = 1;
/// request.pools.v4.push("default-ipv4-ippool".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AutoAssign {
    /// Whose blocks are used: a node's, or those of something that is none.
    pub owner: Owner,
    /// The handle the addresses can be released by. It ends before a carriage return, should there be one.
    pub handle: String,
    /// Notes kept with the addresses; `node` is added when the owner is a node and the notes do not say it.
    pub attributes: BTreeMap<String, String>,
    /// How many addresses of each family.
    pub count: PerFamily<usize>,
    /// The pools to take them from; where none is named, every pool that fits may serve.
    pub pools: PerFamily<Vec<PoolRef>>,
    /// What the addresses are for.
    pub intended_use: AllowedUse,
    /// The labels of the workload's namespace, for pools that select namespaces.
    pub namespace_labels: Option<Labels>,
    /// How many blocks of each family the owner may have; the configuration's limit holds too. `None` is unlimited.
    pub max_blocks: Option<u32>,
    /// Whether the handle must be new.
    pub handle_use: HandleUse,
}

impl AutoAssign {
    /// Makes a request of a node for no address yet: set [`AutoAssign::count`].
    #[must_use]
    pub fn new(node: NodeName, handle: impl Into<String>) -> Self {
        Self {
            owner: Owner::Host(node),
            handle: handle.into(),
            attributes: BTreeMap::new(),
            count: PerFamily::default(),
            pools: PerFamily::default(),
            intended_use: AllowedUse::Workload,
            namespace_labels: None,
            max_blocks: None,
            handle_use: HandleUse::Add,
        }
    }

    /// Makes a request for the addresses of a service, which live in blocks that belong to no node.
    #[must_use]
    pub fn load_balancer(handle: impl Into<String>) -> Self {
        let name = "load-balancer".parse().expect("a constant name");
        let mut request = Self::new(name, handle);
        if let Owner::Host(name) = request.owner {
            request.owner = Owner::Virtual(name);
        }
        request.intended_use = AllowedUse::LoadBalancer;
        request
    }
}

/// A request for one given address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AssignAddress {
    /// The address.
    pub addr: IpAddr,
    /// Whose it is to be: a node, or something that is none.
    pub owner: Owner,
    /// The handle it can be released by.
    pub handle: String,
    /// Notes kept with the address; `node` is added when the owner is a node and the notes do not say it.
    pub attributes: BTreeMap<String, String>,
    /// What it is for; `None` does not look at the uses that the pool allows.
    pub intended_use: Option<AllowedUse>,
}

impl AssignAddress {
    /// Makes a request of a node.
    #[must_use]
    pub fn new(addr: IpAddr, node: NodeName, handle: impl Into<String>) -> Self {
        Self {
            addr,
            owner: Owner::Host(node),
            handle: handle.into(),
            attributes: BTreeMap::new(),
            intended_use: None,
        }
    }
}

/// One address that was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub addr: IpAddr,
    /// The block it is in.
    pub block: Cidr,
    /// The pool it is in.
    pub pool: Name,
    /// What a release presents to prove that it means this assignment and no later one.
    pub sequence: SequenceNumber,
}

/// The addresses that a request got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The IPv4 addresses.
    pub v4: Vec<Allocation>,
    /// The IPv6 addresses.
    pub v6: Vec<Allocation>,
    /// Which families got fewer than asked for, and why. Empty when everything was assigned.
    pub shortages: Vec<Shortage>,
    /// What a person might want to know.
    pub notes: Vec<String>,
}

impl Assigned {
    /// Reports whether every address asked for was assigned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.shortages.is_empty()
    }

    /// Walks all assigned addresses, IPv4 first.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.v4.iter().chain(&self.v6)
    }

    /// Returns the addresses of a family.
    #[must_use]
    pub fn of(&self, family: Family) -> &[Allocation] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) fn add(&mut self, allocations: impl IntoIterator<Item = Allocation>) {
        for allocation in allocations {
            match Family::of(allocation.addr) {
                Family::V4 => self.v4.push(allocation),
                Family::V6 => self.v6.push(allocation),
            }
        }
    }
}

/// One address to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub addr: IpAddr,
    /// The handle that must hold it; `None` does not look.
    pub handle: Option<String>,
    /// The sequence number it must have been assigned at; `None` does not look.
    pub sequence: Option<SequenceNumber>,
}

impl Release {
    /// Makes a release that looks at neither handle nor sequence number.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        Self { addr, handle: None, sequence: None }
    }
}

/// What a release did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// The addresses that are free now.
    pub released: Vec<IpAddr>,
    /// The addresses that nobody held, or that were released before and assigned anew since.
    pub not_held: Vec<IpAddr>,
}
