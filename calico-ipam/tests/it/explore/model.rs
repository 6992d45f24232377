//! A store whose operations happen one at a time, when the explorer says so.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use calico_model::Revision;
use calico_model::datastore::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch,
    WatchError, Write,
};
use calico_model::resource::block::config_key;

use super::Scenario;
use crate::common::{pool, put};

/// What can become of a commit whose answer never arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It happened.
    AnswerLost,
    /// It did not happen.
    RequestLost,
    /// It will happen later, or its preconditions will keep it away.
    RequestLate,
}

impl Fault {
    pub(crate) const ALL: [Fault; 3] = [Fault::AnswerLost, Fault::RequestLost, Fault::RequestLate];
}

#[derive(Clone)]
pub(crate) struct Model {
    entries: BTreeMap<Key, (Vec<u8>, Revision)>,
    /// The last revision of every key that ever was: none is used twice. Commits that share no key get the revisions they
    /// would get in the other order too, which makes their states equal.
    versions: BTreeMap<Key, u64>,
    atomicity: Atomicity,
    late: Vec<Vec<Write>>,
    pub(crate) fault: Option<Fault>,
    /// By process: whether its next operation is a commit.
    committing: BTreeMap<usize, bool>,
    /// By process: a hash of every answer it got.
    answers: BTreeMap<usize, u64>,
}

impl Hash for Model {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.entries.hash(hasher);
        self.versions.hash(hasher);
        self.committing.hash(hasher);
        self.answers.hash(hasher);
        for write in self.late.iter().flatten() {
            (&write.key, &write.value, format!("{:?}", write.precondition)).hash(hasher);
        }
    }
}

impl Model {
    pub(crate) fn new(scenario: &Scenario, atomicity: Atomicity) -> Self {
        let mut model = Self {
            entries: BTreeMap::new(),
            versions: BTreeMap::new(),
            atomicity,
            late: Vec::new(),
            fault: None,
            committing: BTreeMap::new(),
            answers: BTreeMap::new(),
        };
        let (cidr, block_size) = scenario.pool;
        model.apply(&put(pool("p", cidr, block_size)), 1);
        if scenario.strict {
            let json = br#"{"strict_affinity":true,"auto_allocate_blocks":true}"#.to_vec();
            model.apply(&Write::put(config_key(), json, Precondition::Any), 1);
        }
        model
    }

    pub(crate) fn hash_entries(&self, hasher: &mut impl Hasher) {
        self.entries.hash(hasher);
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.inside(&Prefix::new("/").unwrap())
    }

    fn inside(&self, prefix: &Prefix) -> Vec<Entry> {
        let inside = self.entries.iter().filter(|(key, _)| prefix.contains(key));
        inside
            .map(|(key, (value, revision))| Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect()
    }

    pub(crate) fn atomicity(&self) -> Atomicity {
        self.atomicity
    }

    pub(crate) fn is_committing(&self, task: usize) -> bool {
        self.committing.get(&task).copied().unwrap_or(false)
    }

    pub(crate) fn late(&self) -> usize {
        self.late.len()
    }

    pub(crate) fn land(&mut self, commit: usize) {
        let writes = self.late.remove(commit);
        let _ = self.commit(&writes);
    }

    fn check(&self, write: &Write) -> Result<(), CommitError> {
        let actual = self.entries.get(&write.key).map(|(_, revision)| *revision);
        let holds = match write.precondition {
            Precondition::Any => true,
            Precondition::Absent => actual.is_none(),
            Precondition::At(revision) => actual == Some(revision),
        };
        if holds { Ok(()) } else { Err(CommitError::Conflict { key: write.key.clone(), actual }) }
    }

    fn next_revision(&self, writes: &[Write]) -> u64 {
        writes.iter().filter_map(|write| self.versions.get(&write.key)).max().copied().unwrap_or(0) + 1
    }

    fn apply(&mut self, write: &Write, revision: u64) {
        self.versions.insert(write.key.clone(), revision);
        match &write.value {
            Some(value) => self.entries.insert(write.key.clone(), (value.clone(), Revision(revision))),
            None => self.entries.remove(&write.key),
        };
    }

    fn commit(&mut self, writes: &[Write]) -> Result<Revision, CommitError> {
        calico_model::datastore::check_commit(writes)?;
        if self.atomicity == Atomicity::Atomic {
            for write in writes {
                self.check(write)?;
            }
        }
        let revision = self.next_revision(writes);
        for write in writes {
            self.check(write)?;
            self.apply(write, revision);
        }
        Ok(Revision(revision))
    }

    fn answered(&mut self, task: usize, answer: impl Hash) {
        let mut hasher = DefaultHasher::new();
        self.answers.get(&task).hash(&mut hasher);
        answer.hash(&mut hasher);
        self.answers.insert(task, hasher.finish());
        self.committing.insert(task, false);
    }
}

/// One process's handle on the model.
pub(crate) struct ModelStore {
    model: Arc<Mutex<Model>>,
    task: Option<usize>,
}

impl ModelStore {
    /// A store whose operations happen at once.
    pub(crate) fn direct(model: &Arc<Mutex<Model>>) -> Self {
        Self { model: model.clone(), task: None }
    }

    /// A store whose operations wait until the process is polled again.
    pub(crate) fn scheduled(model: &Arc<Mutex<Model>>, task: usize) -> Self {
        Self { model: model.clone(), task: Some(task) }
    }

    async fn turn(&self, committing: bool) {
        let Some(task) = self.task else { return };
        let mut waited = false;
        std::future::poll_fn(|_| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            self.model.lock().unwrap().committing.insert(task, committing);
            Poll::Pending
        })
        .await;
    }

    fn answered(&self, answer: impl Hash) {
        if let Some(task) = self.task {
            self.model.lock().unwrap().answered(task, answer);
        }
    }
}

fn unknown() -> CommitError {
    CommitError::OutcomeUnknown { store: "model".to_owned(), source: "the answer was lost".into() }
}

#[async_trait]
impl Datastore for ModelStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if *key != config_key() {
            self.turn(false).await;
        }
        let found = self.model.lock().unwrap().entries.get(key).cloned();
        self.answered(&found);
        Ok(found.map(|(value, revision)| Entry { key: key.clone(), value, revision }))
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        // Pools and reservations never change here.
        if prefix.as_str().starts_with("/calico/ipam") {
            self.turn(false).await;
        }
        let entries = self.model.lock().unwrap().inside(prefix);
        for entry in &entries {
            self.answered((&entry.key, &entry.value, entry.revision));
        }
        Ok(Listing { entries, revision: Revision(0) })
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.turn(true).await;
        let fault = self.model.lock().unwrap().fault;
        let result = match fault {
            Some(Fault::AnswerLost) => {
                let _ = self.model.lock().unwrap().commit(&writes);
                Err(unknown())
            }
            Some(Fault::RequestLost) => Err(unknown()),
            Some(Fault::RequestLate) => {
                self.model.lock().unwrap().late.push(writes);
                Err(unknown())
            }
            None => self.one_by_one(writes).await,
        };
        let told = match &result {
            Ok(revision) => revision.to_string(),
            Err(error) => error.to_string(),
        };
        self.answered(told);
        result
    }

    async fn watch(&self, _: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        Err(WatchError::TooOld { from })
    }

    fn atomicity(&self) -> Atomicity {
        self.model.lock().unwrap().atomicity
    }
}

impl ModelStore {
    /// Carries out a commit; in order, other processes have their turn between two writes.
    async fn one_by_one(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        if self.atomicity() == Atomicity::Atomic {
            return self.model.lock().unwrap().commit(&writes);
        }
        let mut last = Revision(0);
        for (index, write) in writes.into_iter().enumerate() {
            if index > 0 {
                self.turn(true).await;
                if self.model.lock().unwrap().fault.is_some() {
                    return Err(unknown());
                }
            }
            last = self.model.lock().unwrap().commit(&[write])?;
        }
        Ok(last)
    }
}
