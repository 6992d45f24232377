//! One client: takes over from its predecessor, then makes one request after the other until it is killed.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use calico_ipam::{
    AccessError, Allocation, AssignAddress, AssignError, AutoAssign, Emptiness, HandleUse, Ipam, Release,
    ReleaseError,
};
use calico_model::{Cidr, Family, NodeName, SequenceNumber};

use crate::dice::{Action, Dice, Request};
use crate::journal::{self, Holding, Holdings, Journal, Ledger};
use crate::network::Network;
use crate::stores::{self, BLOCK_SIZE, POOL};
use crate::{Failure, setting};

/// What became of one operation: one byte on the standard output each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Addresses were assigned.
    Assigned = b'a' as isize,
    /// Nothing was to be had, or what was asked for is another's.
    Refused = b'x' as isize,
    /// Addresses were released.
    Released = b'r' as isize,
    /// A release was refused, because an earlier attempt had happened unnoticed and the address is another's by now.
    Late = b'l' as isize,
    /// A look, or an operation on blocks, was carried out.
    Done = b'd' as isize,
    /// Others were in the way too often.
    Contended = b'c' as isize,
    /// The store did not answer.
    Unavailable = b'u' as isize,
    /// What must never be.
    Violation = b'!' as isize,
}

impl Outcome {
    pub(crate) const ALL: [Self; 8] = [
        Self::Assigned,
        Self::Refused,
        Self::Released,
        Self::Late,
        Self::Done,
        Self::Contended,
        Self::Unavailable,
        Self::Violation,
    ];

    pub(crate) fn byte(self) -> u8 {
        u8::try_from(self as isize).unwrap_or(b'!')
    }
}

/// What a client is told by its environment.
pub(crate) struct Client {
    pub(crate) directory: PathBuf,
    pub(crate) place: String,
    pub(crate) seed: u64,
    pub(crate) slot: u64,
    pub(crate) incarnation: u64,
}

impl Client {
    /// Returns the client that this process is to be; `None` when it is not to be one.
    pub(crate) fn from_environment() -> Result<Option<Self>, Failure> {
        let Some(directory) = std::env::var_os("CHAOS_DIRECTORY") else { return Ok(None) };
        let number = |name: &str| setting(name)?.ok_or_else(|| Failure::from(format!("{name} is not set")));
        Ok(Some(Self {
            directory: directory.into(),
            place: std::env::var("CHAOS_STORE")?,
            seed: number("SEED")?,
            slot: number("CHAOS_SLOT")?,
            incarnation: number("CHAOS_INCARNATION")?,
        }))
    }

    /// Returns the environment that makes a process this client.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("CHAOS_DIRECTORY", self.directory.display().to_string()),
            ("CHAOS_STORE", self.place.clone()),
            ("SEED", self.seed.to_string()),
            ("CHAOS_SLOT", self.slot.to_string()),
            ("CHAOS_INCARNATION", self.incarnation.to_string()),
        ]
    }

    /// Works until it is killed.
    pub(crate) async fn work(self) -> Result<(), Failure> {
        let dice = |usage| Dice::for_use(self.seed ^ (self.slot << 32) ^ self.incarnation, usage);
        let network = Network::new(stores::open(&self.place)?, dice(1));
        let holdings = journal::read(&self.directory, self.slot)?;
        let mut dice_for_clock = dice(2);
        let mut work = Work {
            name: format!("h{}-{}", self.slot, self.incarnation),
            ipam: Ipam::new(Arc::new(network)).with_pauses(self.seed ^ self.incarnation, tokio::time::sleep),
            journal: Journal::replace(&self.directory, self.slot, &holdings)?,
            ledger: Ledger::new(&self.directory),
            clock: Clock { ahead: Duration::from_secs(dice_for_clock.below(7200)) },
            held: Vec::new(),
            leaving: Vec::new(),
        };
        work.take_over(holdings, &mut dice(3)).await?;
        let mut requests = dice(4);
        for number in 0u64.. {
            let request = Request::draw(&mut requests);
            let outcome = work.carry_out(&request, number).await?;
            std::io::stdout().write_all(&[outcome.byte()])?;
            std::io::stdout().flush()?;
        }
        Ok(())
    }
}

/// A clock that is wrong by up to an hour.
struct Clock {
    ahead: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead - Duration::from_secs(3600)
    }
}

type Addresses = Vec<(IpAddr, SequenceNumber)>;

struct Work {
    name: String,
    ipam: Ipam,
    journal: Journal,
    ledger: Ledger,
    clock: Clock,
    held: Vec<(String, Addresses)>,
    /// Handles whose release was begun and did not succeed.
    leaving: Vec<String>,
}

impl Work {
    /// Goes on where the predecessor was killed: holds what it held, and ends what it had begun. One in ten of those is
    /// forgotten instead, for the collector to find.
    async fn take_over(&mut self, holdings: Holdings, dice: &mut Dice) -> Result<(), Failure> {
        for (handle, holding) in holdings {
            match holding {
                Holding::Held(addresses) => self.hold(handle, addresses)?,
                Holding::Wanted | Holding::Leaving(_) => {
                    for (addr, _) in holding.addresses() {
                        self.ledger.give_up(*addr, &handle)?;
                    }
                    if dice.below(10) == 0 {
                        self.journal.is_done_with(&handle)?;
                    } else {
                        self.leave(handle).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, request: &Request, number: u64) -> Result<Outcome, Failure> {
        let handle = format!("{}-{number}", self.name);
        let node: NodeName = request.node.parse()?;
        let now = self.clock.now();
        match request.action {
            Action::Assign => {
                let mut ask = AutoAssign::new(node, handle.clone());
                ask.count.v4 = request.count;
                if request.pick.is_multiple_of(2) {
                    ask.handle_use = HandleUse::New;
                }
                self.journal.wants(&handle)?;
                let got = self.ipam.auto_assign(ask, now).await;
                self.assigned(handle, got.map(|assigned| assigned.v4)).await
            }
            Action::AssignGiven => {
                let pool: Cidr = POOL.parse()?;
                let addr = pool.nth((request.pick % 256) as u128).unwrap_or_else(|| pool.addr());
                self.journal.wants(&handle)?;
                let got = self.ipam.assign(AssignAddress::new(addr, node, handle.clone()), now).await;
                self.assigned(handle, got.map(|allocation| vec![allocation])).await
            }
            Action::Release | Action::ReleaseByHandle => self.release(request).await,
            Action::Verify => self.verify(request).await,
            Action::GiveBackBlocks => {
                let _ = self.ipam.release_host_affinities(&node, Emptiness::Required, now).await;
                Ok(Outcome::Done)
            }
            Action::RemoveHost => {
                let _ = self.ipam.remove_host(&node, now).await;
                Ok(Outcome::Done)
            }
            Action::EnsureBlock => {
                let _ = self.ipam.ensure_block(&node, Family::V4, &[], now).await;
                Ok(Outcome::Done)
            }
            Action::ClaimBlock => {
                let pool: Cidr = POOL.parse()?;
                let Some(block) = pool.subnet(BLOCK_SIZE, (request.pick % 32) as u128) else {
                    return Ok(Outcome::Refused);
                };
                let _ = self.ipam.claim_affinity(&node, &block, now).await;
                Ok(Outcome::Done)
            }
        }
    }

    async fn assigned(
        &mut self,
        handle: String,
        got: Result<Vec<Allocation>, AssignError>,
    ) -> Result<Outcome, Failure> {
        match got {
            Ok(allocations) => {
                let addresses =
                    allocations.iter().map(|allocation| (allocation.addr, allocation.sequence)).collect();
                self.hold(handle, addresses)?;
                Ok(Outcome::Assigned)
            }
            Err(AssignError::Access(error)) => {
                self.leave(handle).await?;
                Ok(of_access(&error))
            }
            Err(_) => {
                self.journal.is_done_with(&handle)?;
                Ok(Outcome::Refused)
            }
        }
    }

    /// Takes note of addresses, in the journal and in the ledger.
    fn hold(&mut self, handle: String, addresses: Addresses) -> Result<(), Failure> {
        self.journal.holds(&handle, &addresses)?;
        for (addr, _) in &addresses {
            if let Some(other) = self.ledger.claim(*addr, &handle)? {
                violation(&format!("{addr} was assigned to {handle} and is held by {other}"))?;
            }
        }
        self.held.push((handle, addresses));
        Ok(())
    }

    async fn release(&mut self, request: &Request) -> Result<Outcome, Failure> {
        if let Some(handle) = self.leaving.pop() {
            return self.leave(handle).await;
        }
        if self.held.is_empty() {
            return Ok(Outcome::Refused);
        }
        let (handle, addresses) = self.held.swap_remove(request.pick % self.held.len());
        self.journal.leaves(&handle)?;
        for (addr, _) in &addresses {
            self.ledger.give_up(*addr, &handle)?;
        }
        if request.action == Action::ReleaseByHandle {
            return self.leave(handle).await;
        }
        let release = |(addr, sequence): &(IpAddr, SequenceNumber)| Release {
            addr: *addr,
            handle: Some(handle.clone()),
            sequence: Some(*sequence),
        };
        let releases: Vec<Release> = addresses.iter().map(release).collect();
        match self.ipam.release(&releases, self.clock.now()).await {
            Ok(_) => {
                self.journal.is_done_with(&handle)?;
                Ok(Outcome::Released)
            }
            Err(ReleaseError::Mismatch { .. }) => {
                self.leave(handle).await?;
                Ok(Outcome::Late)
            }
            Err(error) => {
                self.leaving.push(handle);
                Ok(of_release(&error))
            }
        }
    }

    /// Releases whatever a handle may hold.
    async fn leave(&mut self, handle: String) -> Result<Outcome, Failure> {
        match self.ipam.release_by_handle(&handle, self.clock.now()).await {
            Ok(_) => {
                self.journal.is_done_with(&handle)?;
                Ok(Outcome::Released)
            }
            Err(error) => {
                self.leaving.push(handle);
                Ok(of_release(&error))
            }
        }
    }

    /// Looks whether a handle has its addresses still, and no others.
    async fn verify(&mut self, request: &Request) -> Result<Outcome, Failure> {
        if self.held.is_empty() {
            return Ok(Outcome::Refused);
        }
        let (handle, addresses) = &self.held[request.pick % self.held.len()];
        let mut expected: Vec<IpAddr> = addresses.iter().map(|(addr, _)| *addr).collect();
        match self.ipam.addrs_by_handle(handle, self.clock.now()).await {
            Ok(mut found) => {
                expected.sort_unstable();
                found.sort_unstable();
                if found != expected {
                    violation(&format!("{handle} was given {expected:?} and has {found:?}"))?;
                }
                Ok(Outcome::Done)
            }
            Err(error) => Ok(of_access(&error)),
        }
    }
}

fn of_access(error: &AccessError) -> Outcome {
    if matches!(error, AccessError::Contended { .. }) { Outcome::Contended } else { Outcome::Unavailable }
}

fn of_release(error: &ReleaseError) -> Outcome {
    if let ReleaseError::Access(error) = error { of_access(error) } else { Outcome::Unavailable }
}

fn violation(what: &str) -> std::io::Result<()> {
    eprintln!("VIOLATION: {what}");
    std::io::stdout().write_all(&[Outcome::Violation.byte()])?;
    std::io::stdout().flush()
}
