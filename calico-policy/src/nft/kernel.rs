//! The way to the kernel: one netlink socket, opened when it is first needed and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::actual::{ActualSet, Table};
use super::closing::{At, Closed, Fault, Refused};
use super::encode::{self, TABLE, kind};
use super::plan::{plan, plan_anew, plan_change};
use super::wire::{self, Attributes, Messages, Received};
use super::{Actual, ApplyError, Foreign, Operation, Transaction, decode, element};
use crate::delta::Delta;
use crate::ruleset::{Ruleset, VerdictMap};

/// A way to the kernel's tables, in the network namespace of the thread that first uses it.
#[derive(Debug, Default)]
pub struct Nft {
    socket: Option<Socket>,
    sequence: u32,
    closed: Closed,
}

const READ: &str = "read the table inet calico";
const WRITE: &str = "write the table inet calico";
/// How long the kernel may take to answer. It answers from within the call, so this only ends what would never end.
const PATIENCE_SECONDS: i64 = 30;
/// How often a reading is begun again because somebody else wrote meanwhile, and a writing because the kernel refused more.
const ATTEMPTS: usize = 10;
/// What the kernel says of a change to what is there no more, or already. It says so of a missing module too.
const RACES: [i32; 3] = [nix::libc::ENOENT, nix::libc::EEXIST, nix::libc::EBUSY];
/// What the kernel says of a table that is not there, be it that it has no nf_tables (`nfnetlink_rcv_msg` answers EINVAL for a
/// subsystem that it cannot load) or none for the family.
const NO_TABLE: [i32; 3] = [nix::libc::ENOENT, nix::libc::EINVAL, nix::libc::EOPNOTSUPP];
/// Room for answers: a transaction that fails may be told of once for each message.
const RECEIVE_BUFFER: usize = 8 << 20;

impl Nft {
    /// Makes a way to the kernel. Nothing is opened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads our table, and nothing else.
    ///
    /// # Errors
    /// When the kernel does not permit it or does not answer.
    pub fn read(&mut self) -> Result<Actual, ApplyError> {
        for _ in 0..ATTEMPTS {
            match self.read_once() {
                Err(Trouble::Interrupted) => {}
                other => return other.map_err(|trouble| trouble.into_error(READ)),
            }
        }
        Err(Trouble::Interrupted.into_error(READ))
    }

    /// Returns the port by which the kernel knows what we write.
    pub(super) fn port(&mut self) -> Result<u32, ApplyError> {
        let mut addr = SocketAddr::new(0, 0);
        let asked = self.socket().and_then(|socket| socket.get_address(&mut addr).map_err(Trouble::Broken));
        asked.map(|()| addr.port_number()).map_err(|trouble| trouble.into_error(READ))
    }

    /// Applies a transaction, each part whole or not at all. An empty one touches nothing.
    ///
    /// # Errors
    /// When the kernel does not permit or refuses a part: what follows it is not written.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        self.write_parts(transaction).map_err(|(_, trouble)| trouble.into_error(WRITE))
    }

    /// Returns the chains that are closed, as the kernel refused what they should hold when [`sync`](Self::sync) or
    /// [`change`](Self::change) last tried.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.closed.chains()
    }

    /// Reads, plans and applies; returns what was written, which is nothing when all was as it should be.
    ///
    /// Where the kernel refuses the rules of a chain, or a set that it looks at, that chain drops everything, and all else is in
    /// force: see [`refused`](Self::refused). Each time, what was refused is tried once more.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`apply`](Self::apply), of what cannot be closed by itself.
    pub fn sync(&mut self, desired: &Ruleset) -> Result<Transaction, ApplyError> {
        self.sync_after(None, desired)
    }

    /// As [`sync`](Self::sync), and writes anew what somebody else changed, however it looks.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_after(
        &mut self,
        foreign: Option<&Foreign>,
        desired: &Ruleset,
    ) -> Result<Transaction, ApplyError> {
        self.closed = Closed::default();
        let mut written = Vec::new();
        let mut anew = false;
        for attempt in 1.. {
            let wanted = self.closed.close(desired);
            let transaction = if anew {
                plan_anew(&wanted)
            } else {
                let mut actual = self.read()?;
                foreign.into_iter().for_each(|foreign| actual.distrust(foreign));
                plan(&wanted, &actual)
            };
            let (done, trouble) = match self.write_parts(&transaction) {
                Ok(()) if written.is_empty() => return Ok(transaction),
                Ok(()) => {
                    written.extend(transaction.operations);
                    break;
                }
                Err(failed) => failed,
            };
            written.extend(
                transaction.parts().take(done).flat_map(|part| [part, &[Operation::Settle]].concat()),
            );
            match &trouble {
                // Not every kernel gives a set that exists more room.
                Trouble::Refused(faults) if !anew && faults.iter().any(|f| f.errno == nix::libc::ENFILE) => {
                    anew = true;
                }
                // Somebody else may have changed the table since it was read.
                Trouble::Refused(faults)
                    if attempt == 1 && faults.iter().any(|fault| RACES.contains(&fault.errno)) => {}
                Trouble::Refused(faults) if attempt < ATTEMPTS && self.closed.add(desired, faults) => {}
                Trouble::Refused(_) | Trouble::Interrupted | Trouble::Broken(_) => {
                    return Err(trouble.into_error(WRITE));
                }
            }
        }
        Ok(Transaction { operations: written })
    }

    /// Writes what changed in a ruleset, without reading what is there; when the kernel refuses some of it, as
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn change(&mut self, delta: &Delta, desired: &Ruleset) -> Result<Transaction, ApplyError> {
        if !self.closed.takes_changes() {
            return self.sync(desired);
        }
        let transaction = plan_change(delta);
        match self.write_parts(&transaction) {
            Ok(()) => {
                self.closed.forget(delta);
                Ok(transaction)
            }
            Err((_, Trouble::Refused(_))) => self.sync(desired),
            Err((_, trouble)) => Err(trouble.into_error(WRITE)),
        }
    }

    /// Writes the parts of a transaction. When one fails, those before it are in force: so many.
    fn write_parts(&mut self, transaction: &Transaction) -> Result<(), (usize, Trouble)> {
        let mut parts = transaction.parts().enumerate();
        parts.try_for_each(|(done, part)| self.write(part).map_err(|trouble| (done, trouble)))
    }

    fn read_once(&mut self) -> Result<Actual, Trouble> {
        let mut table = None;
        let named = |out: &mut Messages| out.text(1, TABLE);
        match self.ask(kind::GET_TABLE, 0, named, |found| {
            table = Some(Table { sound: found.number(2).unwrap_or(0) == 0, ..Table::default() });
        }) {
            Err(Trouble::Refused(faults)) if has_no_table(&faults) => {
                return Ok(Actual::default());
            }
            other => other?,
        }
        let Some(mut table) = table else { return Ok(Actual::default()) };
        self.dump(kind::GET_CHAIN, named, |found| {
            table.chains.extend(decode::chain(found));
        })?;
        self.dump(kind::GET_RULE, named, |found| {
            if let Some((chain, rule)) = decode::rule(found)
                && let Some(chain) = table.chains.get_mut(&chain)
            {
                chain.rules.push(rule);
            }
        })?;
        let mut sets = Vec::new();
        self.dump(kind::GET_SET, named, |found| sets.extend(decode::set(found)))?;
        for (name, found) in sets {
            let of_set = |out: &mut Messages| {
                out.text(1, TABLE);
                out.text(2, name.as_str());
            };
            match found {
                // What is in a set that we never make is of no interest: it goes.
                decode::Found::Set(None, room) => {
                    table.sets.insert(name, ActualSet { kind: None, room, elements: None });
                }
                decode::Found::Set(Some(kind), room) => {
                    let mut keys = BTreeSet::new();
                    self.dump(kind::GET_ELEMENTS, of_set, |found| decode::keys(found, &mut keys))?;
                    let elements = element::elements(kind, keys);
                    table.sets.insert(name, ActualSet { kind: Some(kind), room, elements });
                }
                decode::Found::Map(kind) => {
                    let mut map = kind.map(|kind| VerdictMap { kind, elements: BTreeMap::new() });
                    self.dump(kind::GET_ELEMENTS, of_set, |found| {
                        map = map.take().and_then(|mut map| decode::entries(found, &mut map).map(|()| map));
                    })?;
                    table.maps.insert(name, map);
                }
            }
        }
        Ok(Actual { table: Some(table) })
    }

    fn dump(
        &mut self,
        kind: u16,
        write: impl FnOnce(&mut Messages),
        found: impl FnMut(Attributes<'_>),
    ) -> Result<(), Trouble> {
        self.ask(kind, wire::DUMP, write, found)
    }

    /// Asks one question and walks the objects of our table in the answer.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        write: impl FnOnce(&mut Messages),
        mut found: impl FnMut(Attributes<'_>),
    ) -> Result<(), Trouble> {
        let mut question = Messages::from_sequence(self.sequence);
        let sequence = question.message(kind, flags | wire::ACK, write);
        self.send(&question)?;
        let mut interrupted = false;
        loop {
            let datagram = self.receive()?;
            for message in Received::all(&datagram).into_iter().filter(|m| m.sequence == sequence) {
                interrupted |= message.flags & wire::DUMP_INTERRUPTED != 0;
                match message.kind {
                    wire::ERROR if message.error() != 0 => {
                        let fault = Fault { errno: message.error(), operation: None, at: None };
                        return Err(Trouble::Refused(vec![fault]));
                    }
                    wire::ERROR | wire::DONE if interrupted => return Err(Trouble::Interrupted),
                    wire::ERROR | wire::DONE => return Ok(()),
                    _ => Some(message.attributes())
                        .filter(|a| decode::is_ours(*a))
                        .into_iter()
                        .for_each(&mut found),
                }
            }
        }
    }

    fn write(&mut self, operations: &[Operation]) -> Result<(), Trouble> {
        let mut batch = Messages::from_sequence(self.sequence);
        let begin = batch.begin_batch();
        let places = encode::batch(&mut batch, operations);
        batch.acknowledge_last();
        let last = batch.sequence;
        batch.end_batch();
        let room = batch.bytes().len() + 4096;
        // Without the right to exceed the system's limit, small transactions still fit.
        let _ = setsockopt(self.socket()?, sockopt::SndBufForce, &room);
        self.send(&batch)?;
        let mut faults: Vec<Fault> = Vec::new();
        loop {
            let datagram = self.receive()?;
            // What was asked before may be answered late.
            let is_of_batch = |message: &Received<'_>| {
                message.sequence.wrapping_sub(begin) <= last.wrapping_sub(begin)
                    && message.kind == wire::ERROR
            };
            for message in Received::all(&datagram).into_iter().filter(is_of_batch) {
                if message.error() != 0 {
                    let place = places
                        .binary_search_by_key(&message.sequence.wrapping_sub(begin), |(sequence, _)| {
                            sequence.wrapping_sub(begin)
                        });
                    let operation = place.ok().map(|place| places[place].1);
                    let at = operation.and_then(At::of);
                    // One of each thing says enough.
                    if faults.is_empty() || !faults.iter().any(|fault| fault.at == at) {
                        let operation = operation.map(|operation| shortened(operation.to_string()));
                        faults.push(Fault { errno: message.error(), operation, at });
                    }
                }
                if message.sequence == last || message.sequence == begin {
                    return if faults.is_empty() { Ok(()) } else { Err(Trouble::Refused(faults)) };
                }
            }
        }
    }

    fn send(&mut self, messages: &Messages) -> Result<(), Trouble> {
        self.sequence = messages.sequence;
        loop {
            match self.socket()?.send_to(messages.bytes(), &SocketAddr::new(0, 0), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(|_| ()).map_err(Trouble::Broken),
            }
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            match self.socket()?.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received.map(|(datagram, _)| datagram).map_err(Trouble::Broken),
            }
        }
    }

    fn socket(&mut self) -> Result<&Socket, Trouble> {
        if self.socket.is_none() {
            self.socket = Some(open().map_err(Trouble::Broken)?);
        }
        Ok(self.socket.as_ref().expect("it was just opened"))
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    // Errors repeat what they are about: the message's header is enough.
    socket.set_cap_ack(true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_SECONDS, 0))?;
    // Only root may exceed the system's limit; others are refused at the first question anyway.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    Ok(socket)
}

/// One line, not too long.
fn shortened(text: String) -> String {
    const LIMIT: usize = 200;
    if text.chars().count() <= LIMIT { text } else { text.chars().take(LIMIT).chain("...".chars()).collect() }
}

/// What can go wrong, before it is known what was attempted.
enum Trouble {
    /// Somebody else wrote while we read.
    Interrupted,
    /// The socket failed.
    Broken(io::Error),
    /// The kernel refused, for the first of these and for others.
    Refused(Vec<Fault>),
}

/// Reports whether the kernel says that there is no table.
fn has_no_table(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| NO_TABLE.contains(&fault.errno))
}

impl Trouble {
    fn into_error(self, doing: &'static str) -> ApplyError {
        match self {
            Trouble::Interrupted => ApplyError::Busy { doing },
            Trouble::Broken(source) => ApplyError::Broken { doing, source },
            Trouble::Refused(faults) => {
                let first = faults.into_iter().next();
                let (errno, operation) = first.map_or((0, None), |fault| (fault.errno, fault.operation));
                if errno == nix::libc::EPERM {
                    return ApplyError::NotPermitted { doing };
                }
                ApplyError::Refused {
                    doing,
                    operation: operation.unwrap_or_else(|| "the request".to_owned()),
                    source: io::Error::from_raw_os_error(errno),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_kernel_without_nf_tables_has_no_table_of_ours() {
        let says = |errno| has_no_table(&[Fault { errno, operation: None, at: None }]);
        use nix::libc::{EINVAL, ENOBUFS, ENOENT, EOPNOTSUPP, EPERM};
        assert!([ENOENT, EINVAL, EOPNOTSUPP].into_iter().all(says));
        assert!(![EPERM, ENOBUFS].into_iter().any(says));
    }

    #[test]
    fn a_late_answer_to_what_was_asked_before_is_no_answer_to_a_batch() {
        let own = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            let mut nft = Nft::new();
            let mut question = Messages::from_sequence(nft.sequence);
            question.message(kind::GET_TABLE, wire::ACK, |out| out.text(1, "nothing"));
            assert!(nft.send(&question).is_ok(), "it is refused, and nobody hears of it yet");
            nft.apply(&Transaction { operations: vec![Operation::AddTable] }).expect("the kernel takes it");
            assert!(nft.read().expect("it answers").table.is_some());
        });
        own.join().expect("it ends well");
    }
}
