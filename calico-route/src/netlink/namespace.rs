//! A network namespace, held open, and work done inside it.
//!
//! A namespace belongs to a thread. The thread that calls never changes its own: work in another namespace is done on a
//! thread that is made for it and ends with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};

const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

#[derive(Debug)]
pub(super) struct NetworkNamespace(File);

impl NetworkNamespace {
    pub(super) fn of_this_thread() -> io::Result<Self> {
        File::open(OF_THIS_THREAD).map(Self)
    }

    pub(super) fn from_fd(fd: BorrowedFd<'_>) -> io::Result<Self> {
        fd.try_clone_to_owned().map(|fd: OwnedFd| Self(File::from(fd)))
    }

    /// Runs `work` in the namespace and returns what it returns.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.is_of_this_thread()? {
            return Ok(work());
        }
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }

    fn is_of_this_thread(&self) -> io::Result<bool> {
        let (held, current) = (self.0.metadata()?, std::fs::metadata(OF_THIS_THREAD)?);
        Ok((held.dev(), held.ino()) == (current.dev(), current.ino()))
    }
}
