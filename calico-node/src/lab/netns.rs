//! Network namespaces by name, as `ip netns` keeps them.
//!
//! A thread that enters a namespace stays there, so whatever works inside one does so on a thread of its own, and the
//! threads and programs that it starts are inside too.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::command;
use super::error::LabError;

const FOLDER: &str = "/run/netns";

/// Returns the file that keeps the namespace.
pub(super) fn path(netns: &str) -> PathBuf {
    Path::new(FOLDER).join(netns)
}

/// Tells whether there is a namespace of that name.
pub(super) fn exists(netns: &str) -> bool {
    path(netns).exists()
}

/// Makes namespaces, with their loopback interface up.
pub(super) fn create<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Result<(), LabError> {
    let add: String = names.clone().map(|netns| format!("netns add {netns}\n")).collect();
    command::ip_batch(None, &add)?;
    for netns in names {
        command::ip_batch(Some(netns), "link set lo up\n")?;
    }
    Ok(())
}

/// Removes a namespace; one that is not there is no failure.
pub(super) fn delete(netns: &str) -> Result<(), LabError> {
    if exists(netns) { command::ip_batch(None, &format!("netns del {netns}\n")) } else { Ok(()) }
}

/// Does `work` inside a namespace, on a thread of its own, and waits for it.
///
/// # Panics
/// When `work` does.
pub(super) fn within<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    let door = Door::open(netns)?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| door.enter().map(|()| work()));
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts a program inside a namespace, with the `/sys` that belongs to it.
pub(super) fn spawn(netns: &str, command: &mut Command) -> Result<Child, LabError> {
    let attempt = format!("start {} in {netns}", command.get_program().display());
    within(netns, || {
        own_sysfs(netns)?;
        command.spawn().map_err(LabError::io(attempt))
    })?
}

/// Becomes a program inside a namespace. Returns only when that fails. The caller must have one thread.
pub(super) fn become_program(netns: &str, command: &mut Command) -> LabError {
    let entered = Door::open(netns).and_then(|door| door.enter()).and_then(|()| own_sysfs(netns));
    match entered {
        Ok(()) => LabError::io(format!("start {}", command.get_program().display()))(command.exec()),
        Err(error) => error,
    }
}

/// Returns the processes that live in a namespace, sorted.
pub(super) fn processes(netns: &str) -> Result<Vec<u32>, LabError> {
    let identity = |path: &Path| fs::metadata(path).map(|data| (same_dev(&data), same_ino(&data)));
    let Ok(wanted) = identity(&path(netns)) else { return Ok(Vec::new()) };
    let listing = fs::read_dir("/proc").map_err(LabError::io("list the processes"))?;
    let pids = listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let inside =
        |pid: &u32| identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_ok_and(|found| found == wanted);
    let mut pids: Vec<u32> = pids.filter(inside).collect();
    pids.sort_unstable();
    Ok(pids)
}

fn same_dev(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(data)
}

fn same_ino(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(data)
}

struct Door {
    file: File,
    attempt: String,
}

impl Door {
    fn open(netns: &str) -> Result<Self, LabError> {
        let attempt = format!("enter the network namespace {netns}");
        let file = File::open(path(netns)).map_err(LabError::io(attempt.clone()))?;
        Ok(Self { file, attempt })
    }

    fn enter(&self) -> Result<(), LabError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(LabError::io(self.attempt.clone()))
    }
}

/// Shows the namespace's own interfaces under `/sys`, to this thread and what it starts, as `ip netns exec` does.
fn own_sysfs(netns: &str) -> Result<(), LabError> {
    let none = None::<&str>;
    let mounts = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        umount2("/sys", MntFlags::MNT_DETACH)?;
        mount(Some(netns), "/sys", Some("sysfs"), MsFlags::empty(), none)
    };
    mounts().map_err(|errno: nix::Error| LabError::Io {
        attempt: format!("mount the /sys of {netns}"),
        source: io::Error::from(errno),
    })
}
