//! What is stored, and two stores over it: one that answers at once, and one that answers by a script.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
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

/// The value of a key, and its revision.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Stored {
    pub(crate) value: Arc<[u8]>,
    revision: u64,
}

/// Everything that is stored.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) entries: Arc<BTreeMap<Key, Stored>>,
    /// The last revision of every key that ever was: none is used twice. Commits that share no key get the revisions they
    /// would get in the other order too, which makes their states equal.
    pub(crate) versions: Arc<BTreeMap<Key, u64>>,
    pub(crate) atomicity: Atomicity,
}

impl Model {
    pub(crate) fn new(scenario: &Scenario, atomicity: Atomicity) -> Self {
        let mut model = Self { entries: Arc::default(), versions: Arc::default(), atomicity };
        let (cidr, block_size) = scenario.pool;
        model.apply(&put(pool("p", cidr, block_size)), 1);
        if scenario.strict {
            let json = br#"{"strict_affinity":true,"auto_allocate_blocks":true}"#.to_vec();
            model.apply(&Write::put(config_key(), json, Precondition::Any), 1);
        }
        model
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.inside(&Prefix::new("/").unwrap())
    }

    fn inside(&self, prefix: &Prefix) -> Vec<Entry> {
        let inside = self.entries.iter().filter(|(key, _)| prefix.contains(key));
        inside.map(|(key, stored)| entry(key, stored)).collect()
    }

    /// Answers an operation that is no commit, or a commit as a whole.
    pub(crate) fn answer(&mut self, asked: &Asked) -> Answer {
        match asked {
            Asked::Get(key) => Answer::Got(self.entries.get(key).map(|stored| entry(key, stored))),
            Asked::List(prefix) => Answer::Listed(self.inside(prefix)),
            Asked::Commit(writes) => self.commit(writes),
        }
    }

    /// On a store that applies in order what comes before a conflict is done.
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Answer {
        if calico_model::datastore::check_commit(writes).is_err() {
            return Answer::Refused;
        }
        if self.atomicity == Atomicity::Atomic
            && let Some(conflict) = writes.iter().find_map(|write| self.conflict(write))
        {
            return conflict;
        }
        let last = writes.iter().filter_map(|write| self.versions.get(&write.key)).max();
        let revision = last.copied().unwrap_or(0) + 1;
        for write in writes {
            if let Some(conflict) = self.conflict(write) {
                return conflict;
            }
            self.apply(write, revision);
        }
        Answer::Done(revision)
    }

    fn conflict(&self, write: &Write) -> Option<Answer> {
        let actual = self.entries.get(&write.key).map(|stored| stored.revision);
        let holds = match write.precondition {
            Precondition::Any => true,
            Precondition::Absent => actual.is_none(),
            Precondition::At(Revision(revision)) => actual == Some(revision),
        };
        (!holds).then(|| Answer::Conflict(write.key.clone(), actual))
    }

    fn apply(&mut self, write: &Write, revision: u64) {
        Arc::make_mut(&mut self.versions).insert(write.key.clone(), revision);
        let entries = Arc::make_mut(&mut self.entries);
        match &write.value {
            Some(value) => {
                entries.insert(write.key.clone(), Stored { value: value.as_slice().into(), revision })
            }
            None => entries.remove(&write.key),
        };
    }
}

fn entry(key: &Key, stored: &Stored) -> Entry {
    Entry { key: key.clone(), value: stored.value.to_vec(), revision: Revision(stored.revision) }
}

/// What a process asks of its store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Get(Key),
    List(Prefix),
    Commit(Vec<Write>),
}

impl Hash for Answer {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        std::mem::discriminant(self).hash(hasher);
        let entry = |entry: &Entry| (&entry.key, &entry.value, entry.revision).hash(hasher);
        match self {
            Answer::Got(got) => got.iter().for_each(entry),
            Answer::Listed(entries) => entries.iter().for_each(entry),
            Answer::Done(revision) => revision.hash(hasher),
            Answer::Conflict(key, actual) => (key, actual).hash(hasher),
            Answer::Refused | Answer::Lost => {}
        }
    }
}

/// What a process is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Got(Option<Entry>),
    Listed(Vec<Entry>),
    Done(u64),
    Conflict(Key, Option<u64>),
    Refused,
    /// The answer never arrives.
    Lost,
}

impl Answer {
    fn commit(self) -> Result<Revision, CommitError> {
        match self {
            Answer::Done(revision) => Ok(Revision(revision)),
            Answer::Conflict(key, actual) => Err(CommitError::Conflict { key, actual: actual.map(Revision) }),
            Answer::Lost => Err(CommitError::OutcomeUnknown {
                store: "model".to_owned(),
                source: "the answer was lost".into(),
            }),
            Answer::Refused => Err(CommitError::Refused { problem: "refused".to_owned() }),
            Answer::Got(_) | Answer::Listed(_) => panic!("{self:?} is no answer to a commit"),
        }
    }
}

/// A store whose operations happen at once.
pub(crate) struct Direct(pub(crate) Mutex<Model>);

/// A store that answers by a script; what comes after its end stays open.
pub(crate) struct Script {
    /// Answers what never changes here: pools, reservations, configuration.
    pub(crate) constant: Model,
    pub(crate) answers: Mutex<VecDeque<(Asked, Answer)>>,
    pub(crate) open: Mutex<Vec<Asked>>,
}

#[async_trait]
trait Ask: Send + Sync {
    async fn ask(&self, asked: Asked) -> Answer;
    fn atomicity(&self) -> Atomicity;
}

#[async_trait]
impl Ask for Direct {
    async fn ask(&self, asked: Asked) -> Answer {
        self.0.lock().unwrap().answer(&asked)
    }

    fn atomicity(&self) -> Atomicity {
        self.0.lock().unwrap().atomicity
    }
}

#[async_trait]
impl Ask for Script {
    async fn ask(&self, asked: Asked) -> Answer {
        let constant = match &asked {
            Asked::Get(key) => *key == config_key(),
            Asked::List(prefix) => !prefix.as_str().starts_with("/calico/ipam"),
            Asked::Commit(_) => false,
        };
        if constant {
            return self.constant.clone().answer(&asked);
        }
        if let Some((expected, answer)) = self.answers.lock().unwrap().pop_front() {
            assert_eq!(expected, asked, "a process does the same when it is told the same");
            return answer;
        }
        self.open.lock().unwrap().push(asked);
        std::future::poll_fn(|_| Poll::<Answer>::Pending).await
    }

    fn atomicity(&self) -> Atomicity {
        self.constant.atomicity
    }
}

macro_rules! datastore {
    ($store:ty) => {
        #[async_trait]
        impl Datastore for $store {
            async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
                match self.ask(Asked::Get(key.clone())).await {
                    Answer::Got(entry) => Ok(entry),
                    other => panic!("{other:?} is no entry"),
                }
            }

            async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
                match self.ask(Asked::List(prefix.clone())).await {
                    Answer::Listed(entries) => Ok(Listing { entries, revision: Revision(0) }),
                    other => panic!("{other:?} is no listing"),
                }
            }

            async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
                self.ask(Asked::Commit(writes)).await.commit()
            }

            async fn watch(&self, _: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
                Err(WatchError::TooOld { from })
            }

            fn atomicity(&self) -> Atomicity {
                Ask::atomicity(self)
            }
        }
    };
}

datastore!(Direct);
datastore!(Script);
