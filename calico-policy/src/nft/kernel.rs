//! The way to the kernel: one netlink socket, opened when it is first needed and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::actual::{ActualSet, Table};
use super::encode::{self, TABLE, kind};
use super::plan::{plan, plan_anew};
use super::wire::{self, Attributes, Messages, Received};
use super::{Actual, ApplyError, Foreign, Operation, Transaction, decode, element};
use crate::ruleset::{Ruleset, VerdictMap};

/// A way to the kernel's tables, in the network namespace of the thread that first uses it.
#[derive(Debug, Default)]
pub struct Nft {
    socket: Option<Socket>,
    sequence: u32,
}

const READ: &str = "read the table inet calico";
const WRITE: &str = "write the table inet calico";
/// How long the kernel may take to answer. It answers from within the call, so this only ends what would never end.
const PATIENCE_SECONDS: i64 = 30;
/// How often a reading is begun again because somebody else wrote meanwhile.
const ATTEMPTS: usize = 10;
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
        transaction.parts().try_for_each(|part| self.write(part)).map_err(|trouble| trouble.into_error(WRITE))
    }

    /// Reads, plans and applies; returns what was written, which is nothing when all was as it should be.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`apply`](Self::apply).
    pub fn sync(&mut self, desired: &Ruleset) -> Result<Transaction, ApplyError> {
        self.sync_after(None, desired)
    }

    /// As [`sync`](Self::sync), and writes anew what somebody else changed, however it looks.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`apply`](Self::apply).
    pub fn sync_after(
        &mut self,
        foreign: Option<&Foreign>,
        desired: &Ruleset,
    ) -> Result<Transaction, ApplyError> {
        let mut actual = self.read()?;
        foreign.into_iter().for_each(|foreign| actual.distrust(foreign));
        let transaction = plan(desired, &actual);
        match self.apply(&transaction) {
            // Not every kernel gives a set that exists more room.
            Err(ApplyError::Refused { source, .. }) if source.raw_os_error() == Some(nix::libc::ENFILE) => {
                let anew = plan_anew(desired);
                self.apply(&anew)?;
                Ok(anew)
            }
            applied => applied.map(|()| transaction),
        }
    }

    fn read_once(&mut self) -> Result<Actual, Trouble> {
        let mut table = None;
        let named = |out: &mut Messages| out.text(1, TABLE);
        match self.ask(kind::GET_TABLE, 0, named, |found| {
            table = Some(Table { sound: found.number(2).unwrap_or(0) == 0, ..Table::default() });
        }) {
            Err(Trouble::Refused { errno: nix::libc::ENOENT, .. }) => return Ok(Actual::default()),
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
            let (datagram, _) = self.socket()?.recv_from_full().map_err(Trouble::Broken)?;
            for message in Received::all(&datagram).into_iter().filter(|m| m.sequence == sequence) {
                interrupted |= message.flags & wire::DUMP_INTERRUPTED != 0;
                match message.kind {
                    wire::ERROR if message.error() != 0 => {
                        return Err(Trouble::Refused { errno: message.error(), operation: None });
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
        let mut first_error = None;
        loop {
            let (datagram, _) = self.socket()?.recv_from_full().map_err(Trouble::Broken)?;
            for message in Received::all(&datagram).into_iter().filter(|m| m.kind == wire::ERROR) {
                if message.error() != 0 && first_error.is_none() {
                    let place = places.iter().find(|(sequence, _)| *sequence == message.sequence);
                    let operation = place.map(|(_, operation)| shortened(operation.to_string()));
                    first_error = Some(Trouble::Refused { errno: message.error(), operation });
                }
                if message.sequence == last || message.sequence == begin {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn send(&mut self, messages: &Messages) -> Result<(), Trouble> {
        self.sequence = messages.sequence;
        let sent = self.socket()?.send_to(messages.bytes(), &SocketAddr::new(0, 0), 0);
        sent.map(|_| ()).map_err(Trouble::Broken)
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
    /// The kernel refused.
    Refused { errno: i32, operation: Option<String> },
}

impl Trouble {
    fn into_error(self, doing: &'static str) -> ApplyError {
        match self {
            Trouble::Interrupted => ApplyError::Busy { doing },
            Trouble::Broken(source) => ApplyError::Broken { doing, source },
            Trouble::Refused { errno: nix::libc::EPERM, .. } => ApplyError::NotPermitted { doing },
            Trouble::Refused { errno, operation } => ApplyError::Refused {
                doing,
                operation: operation.unwrap_or_else(|| "the request".to_owned()),
                source: io::Error::from_raw_os_error(errno),
            },
        }
    }
}
