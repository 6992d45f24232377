//! What each client knows that it holds, kept where its successor and the collector can read it, and the ledger of
//! addresses that all clients share.
//!
//! ```text
//! ? HANDLE                     before an assignment
//! + HANDLE ADDR@SEQUENCE ...   after it: the addresses are the client's
//! - HANDLE                     before a release
//! . HANDLE                     the handle has nothing, and will never have anything again
//! ```
//!
//! Each line is one write. Address, handle and line are made known before the store is asked to act on them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use calico_model::SequenceNumber;

use crate::Failure;

/// How far a client has come with a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holding {
    /// An assignment was begun.
    Wanted,
    /// These addresses are its own.
    Held(Vec<(IpAddr, SequenceNumber)>),
    /// A release was begun.
    Leaving(Vec<(IpAddr, SequenceNumber)>),
}

impl Holding {
    pub(crate) fn addresses(&self) -> &[(IpAddr, SequenceNumber)] {
        match self {
            Holding::Wanted => &[],
            Holding::Held(addresses) | Holding::Leaving(addresses) => addresses,
        }
    }
}

pub(crate) type Holdings = BTreeMap<String, Holding>;

fn path(directory: &Path, slot: u64) -> PathBuf {
    directory.join(format!("journal-{slot}"))
}

/// Reads what the clients of a slot hold.
pub(crate) fn read(directory: &Path, slot: u64) -> Result<Holdings, Failure> {
    let text = match fs::read_to_string(path(directory, slot)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Holdings::new()),
        text => text?,
    };
    let mut holdings = Holdings::new();
    for line in text.split_inclusive('\n') {
        // A SIGKILL may tear a write that crosses a page: then it was not made.
        let Some(line) = line.strip_suffix('\n') else { break };
        let mut words = line.split(' ');
        let sign = words.next().unwrap_or_default();
        let handle = words.next().ok_or_else(|| format!("the journal has the line {line:?}"))?.to_owned();
        match sign {
            "?" => {
                holdings.insert(handle, Holding::Wanted);
            }
            "+" => {
                let addresses = words.map(parse_address).collect::<Result<_, _>>()?;
                holdings.insert(handle, Holding::Held(addresses));
            }
            "-" => {
                let addresses = holdings.get(&handle).map(|held| held.addresses().to_vec());
                holdings.insert(handle, Holding::Leaving(addresses.unwrap_or_default()));
            }
            _ => {
                holdings.remove(&handle);
            }
        }
    }
    Ok(holdings)
}

fn parse_address(word: &str) -> Result<(IpAddr, SequenceNumber), Failure> {
    let (addr, sequence) = word.split_once('@').ok_or_else(|| format!("{word:?} has no number"))?;
    Ok((addr.parse()?, SequenceNumber(sequence.parse()?)))
}

/// Reads what the clients of all slots hold.
pub(crate) fn read_all(directory: &Path, slots: u64) -> Result<Holdings, Failure> {
    let mut all = Holdings::new();
    for slot in 0..slots {
        all.extend(read(directory, slot)?);
    }
    Ok(all)
}

/// The journal of one client, open for writing.
pub(crate) struct Journal(File);

impl Journal {
    /// Begins with what is left of the predecessor's, and replaces that.
    pub(crate) fn replace(directory: &Path, slot: u64, holdings: &Holdings) -> Result<Self, Failure> {
        let mut text = String::new();
        for (handle, holding) in holdings {
            match holding {
                Holding::Wanted => text.push_str(&format!("? {handle}\n")),
                Holding::Held(addresses) => text.push_str(&held_line(handle, addresses)),
                Holding::Leaving(addresses) => {
                    text.push_str(&held_line(handle, addresses));
                    text.push_str(&format!("- {handle}\n"));
                }
            }
        }
        let (place, new) = (path(directory, slot), directory.join(format!("journal-{slot}.new")));
        fs::write(&new, text)?;
        fs::rename(&new, &place)?;
        Ok(Self(OpenOptions::new().append(true).open(place)?))
    }

    pub(crate) fn wants(&mut self, handle: &str) -> std::io::Result<()> {
        self.0.write_all(format!("? {handle}\n").as_bytes())
    }

    pub(crate) fn holds(
        &mut self,
        handle: &str,
        addresses: &[(IpAddr, SequenceNumber)],
    ) -> std::io::Result<()> {
        self.0.write_all(held_line(handle, addresses).as_bytes())
    }

    pub(crate) fn leaves(&mut self, handle: &str) -> std::io::Result<()> {
        self.0.write_all(format!("- {handle}\n").as_bytes())
    }

    pub(crate) fn is_done_with(&mut self, handle: &str) -> std::io::Result<()> {
        self.0.write_all(format!(". {handle}\n").as_bytes())
    }
}

fn held_line(handle: &str, addresses: &[(IpAddr, SequenceNumber)]) -> String {
    let words: String = addresses.iter().map(|(addr, sequence)| format!(" {addr}@{sequence}")).collect();
    format!("+ {handle}{words}\n")
}

/// Who holds which address: a symbolic link for each, made and named in one step.
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.join("ledger"))
    }

    /// Claims an address for a handle; another handle that has claimed it already is returned.
    pub(crate) fn claim(&self, addr: IpAddr, handle: &str) -> Result<Option<String>, Failure> {
        match symlink(handle, self.0.join(addr.to_string())) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(self.claimant(addr)?.filter(|other| other != handle))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a claim up, where it is this handle's.
    pub(crate) fn give_up(&self, addr: IpAddr, handle: &str) -> Result<(), Failure> {
        if self.claimant(addr)?.as_deref() == Some(handle) {
            fs::remove_file(self.0.join(addr.to_string()))?;
        }
        Ok(())
    }

    fn claimant(&self, addr: IpAddr) -> Result<Option<String>, Failure> {
        match fs::read_link(self.0.join(addr.to_string())) {
            Ok(handle) => Ok(Some(handle.to_string_lossy().into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
