//! Entering a workload's network namespace, on a thread of its own.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use tokio::sync::oneshot;

use super::WorkloadError;

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens the network namespace of a workload.
    ///
    /// # Errors
    /// When there is none at `path`, or it is the caller's own.
    pub fn open(path: &Path) -> Result<Self, WorkloadError> {
        let enter = |source| WorkloadError::Enter { path: path.to_owned(), source };
        let file = File::open(path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                WorkloadError::NoNamespace { path: path.to_owned() }
            } else {
                enter(source)
            }
        })?;
        // The file of a namespace that was unmounted is an ordinary, empty file.
        let kind = fstatfs(&file).map_err(|errno| enter(errno.into()))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(WorkloadError::NotANamespace { path: path.to_owned() });
        }
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_err(enter)?;
        let theirs = file.metadata().map_err(enter)?;
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(WorkloadError::OwnNamespace { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Does `work` inside a network namespace: on a new thread that enters it and then ends, with a runtime of its own.
///
/// # Errors
/// When the namespace cannot be entered.
///
/// # Panics
/// When `work` does.
pub async fn inside<T, F, W>(netns: &Netns, work: W) -> Result<T, WorkloadError>
where
    T: Send + 'static,
    F: Future<Output = T>,
    W: FnOnce() -> F + Send + 'static,
{
    let enter = |source| WorkloadError::Enter { path: netns.path.clone(), source };
    let file = netns.file.try_clone().map_err(enter)?;
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let entered = setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = entered.and_then(|()| runtime()).map(|runtime| runtime.block_on(work()));
        // The receiver is gone when the caller was cancelled, and then nobody wants the answer.
        let _unwanted = sender.send(done);
    });
    let thread = thread.map_err(enter)?;
    match receiver.await {
        Ok(done) => done.map_err(enter),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => Err(enter(io::Error::other("the thread ended without an answer"))),
        },
    }
}
