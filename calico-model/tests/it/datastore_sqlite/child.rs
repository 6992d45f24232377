//! Other processes on the same file: this test binary, started again for one task.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use calico_model::datastore::{CommitError, Key, Precondition, Prefix, WatchEvent, Write};
use calico_model::{Datastore, Revision, SqliteStore};
use nix::unistd::Pid;

use crate::scratch::Scratch;

/// The environment variables that make the test at the end of this file a child: the task and the store's path.
const TASK: &str = "CALICO_TEST_CHILD_TASK";
const PATH: &str = "CALICO_TEST_CHILD_PATH";

/// What marks the lines of a child among those of the test harness around it.
const MARK: &str = "child says ";

/// What a child does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    /// Adds one to the counter so many times.
    Count(u64),
    /// Appends an entry and counts it, for ever, and says which entry was acknowledged.
    Append,
    /// Says that it is ready, and when told to go on appends one entry of so many bytes, and ends.
    AppendOnce(usize),
    /// Says what it sees of the counter, for ever.
    Watch,
}

pub(super) struct Child {
    process: process::Child,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(super) fn spawn(task: Task, path: &Path) -> Self {
        let task = match task {
            Task::Count(times) => times.to_string(),
            Task::Append => "append".to_owned(),
            Task::AppendOnce(bytes) => format!("append {bytes}"),
            Task::Watch => "watch".to_owned(),
        };
        let mut process = Command::new(std::env::current_exe().expect("a test has an executable"))
            .args(["--exact", "--nocapture", "datastore_sqlite::child::a_process_counts_on_its_own_as_well"])
            .env(TASK, task)
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts again");
        let output = BufReader::new(process.stdout.take().expect("the output is piped"));
        Self { process, output }
    }

    /// Tells a child that waits for it to go on.
    pub(super) fn go_on(&mut self) {
        let input = self.process.stdin.as_mut().expect("the input is piped");
        writeln!(input).expect("the child listens");
    }

    pub(super) fn id(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Finds the child's thread of this name, once it has begun.
    pub(super) fn thread(&self, name: &str) -> Pid {
        let named =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the child runs");
            if let Some(task) = tasks.map(|task| task.expect("a task").path()).find(named) {
                let number =
                    task.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                return Pid::from_raw(number.expect("tasks are numbers"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the next line that the child says.
    pub(super) fn line(&mut self) -> String {
        self.read_line().expect("the child is still at work")
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            // A line that was cut off by a kill was not said.
            if self.output.read_line(&mut line).is_err() || !line.ends_with('\n') {
                return None;
            }
            // The harness may have begun the line with the name of the test.
            if let Some((_, said)) = line.trim_end().split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    /// Waits until the child is done, which it has to be with success.
    pub(super) fn finish(mut self) {
        while self.read_line().is_some() {}
        let status = self.process.wait().expect("a child can be waited for");
        assert!(status.success(), "a child ended with {status}");
    }

    /// Kills the child with SIGKILL and returns what it had still said.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
        std::iter::from_fn(|| self.read_line()).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn counter() -> Key {
    "/test/counter".parse().expect("a sound key")
}

pub(super) fn appended() -> Prefix {
    Prefix::new("/test/appended").expect("a sound folder")
}

pub(super) async fn count(store: &SqliteStore) -> u64 {
    read_count(store).await.0
}

async fn read_count(store: &SqliteStore) -> (u64, Precondition) {
    match store.get(&counter()).await.expect("the store answers") {
        None => (0, Precondition::Absent),
        Some(entry) => {
            let text = String::from_utf8(entry.value).expect("the counter is text");
            (text.parse().expect("the counter is a number"), Precondition::At(entry.revision))
        }
    }
}

/// Adds one to the counter, together with another write if there is one.
async fn add_one(store: &SqliteStore, other: Option<Write>) {
    loop {
        let (count, precondition) = read_count(store).await;
        let mut writes = vec![Write::put(counter(), (count + 1).to_string().into(), precondition)];
        writes.extend(other.clone());
        match store.commit(writes).await {
            Ok(_) => return,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn append(store: &SqliteStore, step: usize, bytes: usize) {
    let name = format!("{}-{step}", process::id());
    let key = format!("{}{name}", appended()).parse().expect("a sound key");
    add_one(store, Some(Write::put(key, vec![b'v'; bytes], Precondition::Absent))).await;
    say(&name);
}

async fn append_once(store: &SqliteStore, bytes: usize) -> ! {
    // The thread that commits has nothing left to do but to commit.
    count(store).await;
    say("ready");
    std::io::stdin().read_line(&mut String::new()).expect("the parent speaks");
    append(store, 0, bytes).await;
    process::exit(0)
}

async fn watch(store: &SqliteStore) {
    let folder = Prefix::new("/test").expect("a sound folder");
    let mut watch = store.watch(&folder, Revision(0)).await.expect("the store is young");
    loop {
        match watch.next().await.expect("the store stays") {
            WatchEvent::Put(entry) => say(&String::from_utf8_lossy(&entry.value)),
            WatchEvent::Deleted { key, .. } => say(&format!("deleted {key}")),
            WatchEvent::InSync(_) => say("in-sync"),
        }
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{MARK}{line}").and_then(|()| output.flush()).expect("the parent listens");
}

/// Started by itself it counts on a file of its own; started by [`Child::spawn`] it does what it is told.
#[tokio::test]
async fn a_process_counts_on_its_own_as_well() {
    let Some(path) = std::env::var_os(PATH) else {
        let scratch = Scratch::new();
        let store = SqliteStore::open(scratch.file("calico.db")).unwrap();
        for _ in 0..3 {
            add_one(&store, None).await;
        }
        assert_eq!(count(&store).await, 3);
        return;
    };
    let store = SqliteStore::open(path).unwrap();
    match std::env::var(TASK).unwrap().as_str() {
        "append" => {
            for step in 0.. {
                append(&store, step, 3_000).await;
            }
        }
        "watch" => watch(&store).await,
        task => match task.strip_prefix("append ") {
            Some(bytes) => append_once(&store, bytes.parse().unwrap()).await,
            None => {
                for _ in 0..task.parse().unwrap() {
                    add_one(&store, None).await;
                }
            }
        },
    }
}
