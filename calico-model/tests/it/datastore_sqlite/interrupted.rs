//! A process that is killed between two system calls of a commit, for each two: the kernel stops the thread that commits
//! at every one (ptrace), and there it ends.

use calico_model::datastore::{Precondition, Write};
use calico_model::{Datastore, SqliteStore};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::child::{self, Child, Task};
use crate::scratch::Scratch;

/// A thread that is stopped at every beginning and every end of a system call.
struct Stopped {
    thread: Pid,
}

impl Stopped {
    fn at_once(thread: Pid) -> Self {
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).expect("a parent may trace its child");
        ptrace::interrupt(thread).expect("a traced thread can be stopped");
        let stopped = Self { thread };
        stopped.wait();
        stopped
    }

    fn wait(&self) -> WaitStatus {
        waitpid(self.thread, Some(WaitPidFlag::__WALL)).expect("a traced thread can be waited for")
    }

    /// Goes on to the next stop but so many; `false` when the thread ended before.
    fn step(&self, stops: usize) -> bool {
        for _ in 0..=stops {
            let went_on = ptrace::syscall(self.thread, None);
            let ended = matches!(self.wait(), WaitStatus::Exited(..) | WaitStatus::Signaled(..));
            if went_on.is_err() || ended {
                return false;
            }
        }
        true
    }
}

/// Kills one committing process after the other, each so many stops later than the one before, until one finishes.
/// Returns how many were killed, and how many of those had committed.
async fn kill_at_every(stride: usize, bytes: usize) -> (usize, usize) {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    // Held open, so that the write-ahead log stays, as on a machine on which an agent runs.
    let store = SqliteStore::open(&path).expect("the store opens");
    let mut acknowledged: Vec<String> = Vec::new();
    let (mut killed, mut committed) = (0, 0);
    loop {
        // Fills the log, so that a large commit after it is one that checkpoints.
        let filler = "/test/filler".parse().expect("a sound key");
        store
            .commit(vec![Write::put(filler, vec![b'v'; bytes], Precondition::Any)])
            .await
            .expect("the store answers");
        let before = child::count(&store).await;
        let mut writer = Child::spawn(Task::AppendOnce(bytes), &path);
        assert_eq!(writer.line(), "ready");
        let stopped = Stopped::at_once(writer.thread("calico-db-write"));
        writer.go_on();
        let is_stopped = stopped.step(killed * stride);
        if is_stopped {
            kill(writer.id(), Signal::SIGKILL).expect("the child runs");
            while !matches!(stopped.wait(), WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {}
        }
        acknowledged.extend(writer.kill());

        let entries = store.list(&child::appended()).await.expect("the store answers").entries;
        for name in &acknowledged {
            let key = format!("{}{name}", child::appended());
            assert!(entries.iter().any(|entry| entry.key.as_str() == key), "{name} was lost");
        }
        let count = child::count(&store).await;
        assert_eq!(count, entries.len() as u64, "half of a commit happened");
        if !is_stopped {
            assert_eq!(count, before + 1, "the one that finished did not commit");
            break;
        }
        killed += 1;
        committed += usize::from(count > before);
    }
    drop(store);
    let file = rusqlite::Connection::open(&path).expect("the file opens");
    let verdict: String =
        file.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("the file can be checked");
    assert_eq!(verdict, "ok");
    (killed, committed)
}

#[tokio::test]
async fn a_writer_killed_between_any_two_system_calls_of_a_commit_loses_nothing_and_leaves_no_half() {
    // Two stops are one system call.
    let (killed, committed) = kill_at_every(2, 3_000).await;
    assert!(committed > 0 && killed - committed > 5, "{killed} killed, of which {committed} had committed");
}

#[tokio::test]
async fn a_writer_killed_within_a_large_commit_or_its_checkpoint_loses_nothing_and_leaves_no_half() {
    let (killed, committed) = kill_at_every(199, 1_040_000).await;
    assert!(committed > 0 && killed - committed > 5, "{killed} killed, of which {committed} had committed");
}
