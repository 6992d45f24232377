//! Every interleaving: a few processes, a tiny pool, and whatever can happen between two of their store operations.
//!
//! The processes are the shipped async functions. What one does next follows from what its store has told it so far, so
//! that is looked up once for each history (`process`), and the search itself is over plain values (`World`): what is
//! stored, how far each process is, which commits are still on their way. A world that was seen is not followed twice.
//!
//! A process that dies is one that never has its turn again. So whatever a crash leaves is among the worlds that are
//! reached without one, and everything that must hold after crashes is checked in each of them: a crash after every write
//! of every process, and of any number of processes, costs no further worlds.

mod model;
mod process;
mod scenarios;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use calico_ipam::{AssignError, Finding, Held, Ipam, Liveness};
use calico_model::datastore::{Atomicity, Write};

use crate::common::{State, at, v4};
use model::{Answer, Asked, Direct, Model};
use process::{Histories, History};

/// What the processes know that they hold: by handle, the addresses.
pub(crate) type Ledger = Arc<Mutex<BTreeMap<String, Claim>>>;

/// What is known of a handle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    /// The assignment succeeded: these addresses must stay its own.
    Holds(Vec<std::net::IpAddr>),
    /// A release was begun, or an assignment failed: it may hold addresses or not.
    Gone,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One process: given its own IPAM and the ledger, what it does.
pub(crate) type Process = fn(Ipam, Ledger) -> Task;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) pool: (&'static str, u8),
    pub(crate) strict: bool,
    pub(crate) setup: Process,
    pub(crate) processes: &'static [Process],
    /// How many lost answers and late commits there are in one run, beside processes that die.
    pub(crate) faults: u32,
    /// Whether, write by write, lost answers multiply the worlds by more than every run of the tests can wait for.
    pub(crate) large: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Run(usize),
    /// A commit happens, and its answer is lost.
    AnswerLost(usize),
    /// A commit does not happen, and nobody says so.
    RequestLost(usize),
    /// As before, but it will happen later, or its preconditions will keep it away.
    RequestLate(usize),
    /// A commit whose answer was given up on reaches the store.
    Land(usize),
}

/// Everything there is at one moment.
#[derive(Clone)]
struct World {
    model: Model,
    /// By process: what it was told, and so what it does next.
    places: Vec<History>,
    /// By process: how many writes of its commit are done, on a store that applies in order.
    written: Vec<usize>,
    late: Vec<Vec<Write>>,
    faults: u32,
}

impl World {
    fn choices(&self, histories: &Histories) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (task, place) in self.places.iter().enumerate() {
            let asked = histories.asked(*place);
            if asked.is_empty() {
                continue;
            }
            choices.push(Choice::Run(task));
            if self.faults > 0 && matches!(asked, [Asked::Commit(_)]) {
                choices.push(Choice::RequestLost(task));
                if self.written[task] == 0 {
                    choices.extend([Choice::AnswerLost(task), Choice::RequestLate(task)]);
                }
            }
        }
        choices.extend((0..self.late.len()).map(Choice::Land));
        choices
    }

    /// Returns the world that a choice leads to.
    fn after(&self, choice: Choice, histories: &mut Histories) -> World {
        let mut world = self.clone();
        match choice {
            Choice::Run(task) => {
                let asked = histories.asked(self.places[task]).to_vec();
                let answers = match asked.as_slice() {
                    [Asked::Commit(writes)] if self.model.atomicity == Atomicity::InOrder => {
                        let Some(answer) = world.write_next(task, writes) else { return world };
                        vec![answer]
                    }
                    asked => asked.iter().map(|asked| world.model.answer(asked)).collect(),
                };
                world.tell(task, answers, histories);
            }
            Choice::AnswerLost(task) | Choice::RequestLost(task) | Choice::RequestLate(task) => {
                world.faults -= 1;
                if let [Asked::Commit(writes)] = histories.asked(self.places[task]) {
                    match choice {
                        Choice::AnswerLost(_) => drop(world.model.commit(writes)),
                        Choice::RequestLate(_) => world.late.push(writes.clone()),
                        Choice::Run(_) | Choice::RequestLost(_) | Choice::Land(_) => {}
                    }
                }
                world.tell(task, vec![Answer::Lost], histories);
            }
            Choice::Land(commit) => {
                let writes = world.late.remove(commit);
                world.model.commit(&writes);
            }
        }
        world
    }

    /// Carries out the next write of a commit; returns the commit's answer when it is over.
    fn write_next(&mut self, task: usize, writes: &[Write]) -> Option<Answer> {
        let answer = self.model.commit(&writes[self.written[task]..=self.written[task]]);
        self.written[task] += 1;
        let is_over = !matches!(answer, Answer::Done(_)) || self.written[task] == writes.len();
        is_over.then_some(answer)
    }

    fn tell(&mut self, task: usize, answers: Vec<Answer>, histories: &mut Histories) {
        self.written[task] = 0;
        self.places[task] = histories.go_on(self.places[task], answers);
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.model.entries, &self.model.versions).hash(&mut hasher);
        (&self.places, &self.written, self.faults).hash(&mut hasher);
        for write in self.late.iter().flatten() {
            (&write.key, &write.value, format!("{:?}", write.precondition)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Checks what was not checked before: what holds at every moment, and what holds when everybody dies at this one. What
    /// is checked does not depend on revisions.
    fn check_once(&self, histories: &Histories, checked: &mut HashSet<u64>) {
        let ledger = histories.ledger(&self.places);
        let mut hasher = DefaultHasher::new();
        for (key, stored) in self.model.entries.iter() {
            (key, &stored.value).hash(&mut hasher);
        }
        (&ledger, self.late.is_empty()).hash(&mut hasher);
        if checked.insert(hasher.finish()) {
            check_always(&self.model, &ledger);
            if self.late.is_empty() {
                check_end(&self.model, &ledger);
            }
        }
    }
}

/// What holds at every moment, also in the middle of everything.
fn check_always(model: &Model, ledger: &BTreeMap<String, Claim>) {
    let state = State::from_entries(model.all());
    if model.atomicity == Atomicity::Atomic {
        // What is decided together happens together: nothing is ever half done.
        state.check();
    }
    for (handle, claim) in ledger {
        if let Claim::Holds(addrs) = claim {
            for addr in addrs {
                let block = state.blocks.values().find(|block| block.cidr().contains(*addr));
                let holder = block.and_then(|block| block.attributes_of(*addr));
                let holder = holder.and_then(|attributes| attributes.handle_id.as_ref());
                assert_eq!(holder, Some(handle), "{addr} is {handle}'s");
            }
        }
    }
    for block in state.blocks.values() {
        for (_, attributes) in block.holders() {
            let handle = attributes.handle_id.as_ref().unwrap();
            let counted = state.handles.get(handle).and_then(|counts| counts.get(&block.cidr())).copied();
            let held = block.count_of(handle);
            assert!(
                counted.unwrap_or(0) >= held,
                "{handle} counts {counted:?} in {} for {held}",
                block.cidr()
            );
        }
    }
}

/// What holds once every process has ended or died: the next operations of the hosts succeed, what nobody knows of is
/// reclaimed, and then everything agrees.
fn check_end(model: &Model, ledger: &BTreeMap<String, Claim>) {
    let store = Arc::new(Direct(Mutex::new(model.clone())));
    let ipam = Ipam::new(store.clone());
    for host in ["n1", "n2", "n3"] {
        let next = block_on(ipam.auto_assign(v4(host, &format!("next-{host}"), 1), at(1000)));
        match next {
            Ok(_) | Err(AssignError::Exhausted(_)) => {}
            Err(error) => panic!("the next operation of {host} fails: {error}"),
        }
        block_on(ipam.release_by_handle(&format!("next-{host}"), at(1000))).unwrap();
    }
    let judge = |held: &Held| match held.handle.as_ref().and_then(|handle| ledger.get(handle)) {
        Some(Claim::Holds(_)) => Liveness::Alive,
        Some(Claim::Gone) | None => Liveness::Gone,
    };
    for _ in 0..2 {
        let check = block_on(ipam.check_with(&judge, at(2000))).unwrap();
        let plan: Vec<Finding> = check.findings.into_iter().collect();
        block_on(ipam.reclaim_with(&plan, &judge, at(2000))).unwrap();
    }
    let model = store.0.lock().unwrap().clone();
    check_always(&model, ledger);
    let state = State::from_entries(model.all());
    state.check();
    assert!(state.tombstones.is_empty(), "blocks marked as deleted are left: {:?}", state.tombstones);
    let known = ledger.values().map(|claim| match claim {
        Claim::Holds(addrs) => addrs.len(),
        Claim::Gone => 0,
    });
    assert_eq!(state.held(), known.sum::<usize>(), "nothing is leaked");
}

/// Whether time does not matter.
fn explores_all() -> bool {
    std::env::var_os("EXPLORE_ALL").is_some()
}

/// Follows every choice, and returns how many worlds there were, and how many of them had to be checked.
fn explore(scenario: &Scenario, atomicity: Atomicity) -> (usize, usize) {
    let model = Arc::new(Direct(Mutex::new(Model::new(scenario, atomicity))));
    let ledger = Ledger::default();
    block_on((scenario.setup)(Ipam::new(model.clone()), ledger.clone()));
    let (model, ledger) = (model.0.lock().unwrap().clone(), ledger.lock().unwrap().clone());

    let mut histories = Histories::new(scenario.processes, &model, ledger);
    let places: Vec<History> = (0..scenario.processes.len()).map(|task| histories.start(task)).collect();
    let written = vec![0; places.len()];
    let lossy = atomicity == Atomicity::Atomic || !scenario.large || explores_all();
    let faults = if lossy { scenario.faults } else { 0 };
    let first = World { model, places, written, late: Vec::new(), faults };

    let (mut seen, mut checked) = (HashSet::new(), HashSet::new());
    let mut path: Vec<(World, Vec<Choice>, usize)> = Vec::new();
    seen.insert(first.fingerprint());
    first.check_once(&histories, &mut checked);
    let choices = first.choices(&histories);
    path.push((first, choices, 0));
    while let Some((world, choices, next)) = path.last_mut() {
        let Some(choice) = choices.get(*next).copied() else {
            path.pop();
            continue;
        };
        *next += 1;
        let after = world.after(choice, &mut histories);
        if !seen.insert(after.fingerprint()) {
            continue;
        }
        let guard = OnPanic(|| {
            let taken: Vec<Choice> = path.iter().map(|(_, choices, next)| choices[*next - 1]).collect();
            format!("{} on {atomicity:?}: {taken:?}", scenario.name)
        });
        after.check_once(&histories, &mut checked);
        drop(guard);
        let choices = after.choices(&histories);
        path.push((after, choices, 0));
    }
    (seen.len(), checked.len())
}

/// Says which choices led to a panic.
struct OnPanic<F: Fn() -> String>(F);

impl<F: Fn() -> String> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", (self.0)());
        }
    }
}

/// Runs a future over a store that never waits.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("an operation that nobody disturbs does not come to an end");
}

const BOTH: [Atomicity; 2] = [Atomicity::Atomic, Atomicity::InOrder];

fn explore_both(scenario: &Scenario) {
    explore_on(scenario, &BOTH);
}

fn explore_on(scenario: &Scenario, atomicities: &[Atomicity]) {
    for atomicity in atomicities.iter().copied() {
        let (states, checked) = explore(scenario, atomicity);
        println!("{}: {states} states on {atomicity:?}, {checked} with contents of their own", scenario.name);
    }
}
