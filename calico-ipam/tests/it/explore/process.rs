//! What a process does next, by what it was told so far.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use calico_ipam::Ipam;

use super::model::{Answer, Asked, Model, Script};
use super::{Claim, Ledger, Process};

/// A process and everything that it was told. One that has come to its end is the same whatever led it there, but for what
/// it says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct History(usize);

struct Known {
    task: usize,
    /// What came before, and what it was told then.
    before: Option<(History, Vec<Answer>)>,
    /// What it asks next, all at once; nothing when it has come to its end.
    asked: Vec<Asked>,
    /// What it has written into the ledger.
    claims: BTreeMap<String, Claim>,
}

/// All that is known of how processes go on.
pub(crate) struct Histories {
    processes: &'static [Process],
    constant: Model,
    ledger: BTreeMap<String, Claim>,
    known: Vec<Known>,
    next: HashMap<(History, u64), History>,
    ended: HashMap<(usize, BTreeMap<String, Claim>), History>,
}

impl Histories {
    pub(crate) fn new(
        processes: &'static [Process],
        constant: &Model,
        ledger: BTreeMap<String, Claim>,
    ) -> Self {
        let (next, ended) = (HashMap::new(), HashMap::new());
        Self { processes, constant: constant.clone(), ledger, known: Vec::new(), next, ended }
    }

    pub(crate) fn start(&mut self, task: usize) -> History {
        self.learn(task, None)
    }

    pub(crate) fn asked(&self, history: History) -> &[Asked] {
        &self.known[history.0].asked
    }

    pub(crate) fn go_on(&mut self, history: History, answers: Vec<Answer>) -> History {
        let mut hasher = DefaultHasher::new();
        answers.hash(&mut hasher);
        let step = (history, hasher.finish());
        if let Some(next) = self.next.get(&step) {
            return *next;
        }
        let next = self.learn(self.known[history.0].task, Some((history, answers)));
        self.next.insert(step, next);
        next
    }

    /// Returns what is known to be held when the processes are so far.
    pub(crate) fn ledger(&self, places: &[History]) -> BTreeMap<String, Claim> {
        let mut ledger = self.ledger.clone();
        for place in places {
            let claims = &self.known[place.0].claims;
            ledger.extend(claims.iter().map(|(handle, claim)| (handle.clone(), claim.clone())));
        }
        ledger
    }

    /// Runs a process from its start through everything that it was told.
    fn learn(&mut self, task: usize, before: Option<(History, Vec<Answer>)>) -> History {
        let mut steps = Vec::new();
        let mut place = before.as_ref();
        while let Some((history, answers)) = place {
            let known = &self.known[history.0];
            steps.push(known.asked.iter().cloned().zip(answers.iter().cloned()));
            place = known.before.as_ref();
        }
        assert!(
            steps.len() < 300,
            "a process does not come to an end: {:#?}",
            steps.into_iter().rev().flatten().skip(200).take(14).collect::<Vec<_>>()
        );
        let script = Arc::new(Script {
            constant: self.constant.clone(),
            answers: Mutex::new(steps.into_iter().rev().flatten().collect()),
            open: Mutex::default(),
        });
        let ledger: Ledger = Arc::new(Mutex::new(self.ledger.clone()));
        let mut running = self.processes[task](Ipam::new(script.clone()), ledger.clone());
        // One that pauses between two attempts goes on at once.
        for _ in 0..1000 {
            let poll = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if poll.is_ready() || !script.open.lock().unwrap().is_empty() {
                break;
            }
        }
        let asked = std::mem::take(&mut *script.open.lock().unwrap());
        let mut claims = ledger.lock().unwrap().clone();
        claims.retain(|handle, claim| self.ledger.get(handle) != Some(claim));
        let history = History(self.known.len());
        if asked.is_empty() {
            let known = self.ended.entry((task, claims.clone())).or_insert(history);
            if *known != history {
                return *known;
            }
        }
        self.known.push(Known { task, before, asked, claims });
        history
    }
}
