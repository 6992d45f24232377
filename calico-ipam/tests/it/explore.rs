//! Every interleaving: a few processes, a tiny pool, and whatever can happen between two of their store operations.
//!
//! The processes are the shipped async functions over a store whose every operation waits for its turn. A run is a list of
//! choices: who goes on, who dies, whose commit loses its answer or lands late. Runs are replayed from the start to reach
//! each branch; a state that was seen (same store, and every process has seen the same answers) is not followed twice.

mod model;
mod scenarios;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use calico_ipam::{AssignError, Finding, Held, Ipam, Liveness};
use calico_model::datastore::Atomicity;

use crate::common::{State, at, v4};
use model::{Fault, Model, ModelStore};

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
    /// How many crashes, lost answers and late commits there are in one run.
    pub(crate) faults: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Run(usize),
    Crash(usize),
    Fault(usize, Fault),
    /// A commit whose answer was given up on reaches the store.
    Land(usize),
}

struct Run {
    model: Arc<Mutex<Model>>,
    ledger: Ledger,
    tasks: Vec<Option<Task>>,
    polls: Vec<u32>,
    faults: u32,
    /// Whether answers are lost and commits come late, beside processes that die.
    lossy: bool,
}

impl Run {
    fn prepare(scenario: &Scenario, atomicity: Atomicity) -> (Model, BTreeMap<String, Claim>) {
        let model = Arc::new(Mutex::new(Model::new(scenario, atomicity)));
        let ledger = Ledger::default();
        block_on((scenario.setup)(Ipam::new(Arc::new(ModelStore::direct(&model))), ledger.clone()));
        let (model, ledger) = (model.lock().unwrap().clone(), ledger.lock().unwrap().clone());
        (model, ledger)
    }

    fn start(scenario: &Scenario, prepared: &(Model, BTreeMap<String, Claim>), lossy: bool) -> Self {
        let model = Arc::new(Mutex::new(prepared.0.clone()));
        let ledger = Arc::new(Mutex::new(prepared.1.clone()));
        let tasks: Vec<Option<Task>> = (0..)
            .zip(scenario.processes)
            .map(|(task, process)| {
                let store = ModelStore::scheduled(&model, task);
                Some(process(Ipam::new(Arc::new(store)), ledger.clone()))
            })
            .collect();
        let polls = vec![0; tasks.len()];
        // A crash at every point of three processes multiplies the states by that many: only with `EXPLORE_ALL=1`.
        let faults = if tasks.len() < 3 || explores_all() { scenario.faults } else { 0 };
        let mut run = Self { model, ledger, tasks, polls, faults, lossy };
        for task in 0..run.tasks.len() {
            run.poll(task);
        }
        run
    }

    fn poll(&mut self, task: usize) {
        self.polls[task] += 1;
        assert!(self.polls[task] < 300, "a process does not come to an end");
        if let Some(future) = &mut self.tasks[task]
            && future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        {
            self.tasks[task] = None;
        }
    }

    fn choices(&self) -> Vec<Choice> {
        let model = self.model.lock().unwrap();
        let mut choices = Vec::new();
        for task in (0..self.tasks.len()).filter(|task| self.tasks[*task].is_some()) {
            choices.push(Choice::Run(task));
            if self.faults > 0 {
                choices.push(Choice::Crash(task));
                if self.lossy && model.is_committing(task) {
                    choices.extend(Fault::ALL.map(|fault| Choice::Fault(task, fault)));
                }
            }
        }
        choices.extend((0..model.late()).map(Choice::Land));
        choices
    }

    fn make(&mut self, choice: Choice) {
        match choice {
            Choice::Run(task) => self.poll(task),
            Choice::Crash(task) => {
                self.faults -= 1;
                self.tasks[task] = None;
            }
            Choice::Fault(task, fault) => {
                self.faults -= 1;
                self.model.lock().unwrap().fault = Some(fault);
                self.poll(task);
                self.model.lock().unwrap().fault = None;
            }
            Choice::Land(commit) => self.model.lock().unwrap().land(commit),
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.model.lock().unwrap().hash(&mut hasher);
        self.ledger.lock().unwrap().hash(&mut hasher);
        self.polls.hash(&mut hasher);
        self.faults.hash(&mut hasher);
        for task in &self.tasks {
            task.is_some().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Checks a state of the store that was not checked before.
    fn check_once(&self, checked: &mut HashSet<u64>) {
        let mut hasher = DefaultHasher::new();
        self.model.lock().unwrap().hash_entries(&mut hasher);
        self.ledger.lock().unwrap().hash(&mut hasher);
        if checked.insert(hasher.finish()) {
            self.check_always();
        }
    }

    /// What holds at every moment, also in the middle of everything.
    fn check_always(&self) {
        let model = self.model.lock().unwrap();
        let (state, atomicity) = (State::from_entries(model.entries()), model.atomicity());
        drop(model);
        if atomicity == Atomicity::Atomic {
            // What is decided together happens together: nothing is ever half done.
            state.check();
        }
        for (handle, claim) in self.ledger.lock().unwrap().iter() {
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

    /// What holds once every process has ended: the next operations of the hosts succeed, what nobody knows of is
    /// reclaimed, and then everything agrees.
    fn check_end(&self) {
        let ipam = Ipam::new(Arc::new(ModelStore::direct(&self.model)));
        for host in ["n1", "n2", "n3"] {
            let next = block_on(ipam.auto_assign(v4(host, &format!("next-{host}"), 1), at(1000)));
            match next {
                Ok(_) | Err(AssignError::Exhausted(_)) => {}
                Err(error) => panic!("the next operation of {host} fails: {error}"),
            }
            block_on(ipam.release_by_handle(&format!("next-{host}"), at(1000))).unwrap();
        }
        let ledger = self.ledger.lock().unwrap().clone();
        let judge = |held: &Held| match held.handle.as_ref().and_then(|handle| ledger.get(handle)) {
            Some(Claim::Holds(_)) => Liveness::Alive,
            Some(Claim::Gone) | None => Liveness::Gone,
        };
        for _ in 0..2 {
            let check = block_on(ipam.check_with(&judge, at(2000))).unwrap();
            let plan: Vec<Finding> = check.findings.into_iter().collect();
            block_on(ipam.reclaim_with(&plan, &judge, at(2000))).unwrap();
        }
        self.check_always();
        let state = State::from_entries(self.model.lock().unwrap().entries());
        state.check();
        assert!(state.tombstones.is_empty(), "blocks marked as deleted are left: {:?}", state.tombstones);
        let known = ledger.values().map(|claim| match claim {
            Claim::Holds(addrs) => addrs.len(),
            Claim::Gone => 0,
        });
        assert_eq!(state.held(), known.sum::<usize>(), "nothing is leaked");
    }
}

/// Whether time does not matter.
fn explores_all() -> bool {
    std::env::var_os("EXPLORE_ALL").is_some()
}

/// Follows every choice, and returns how many states there were.
fn explore(scenario: &Scenario, atomicity: Atomicity) -> usize {
    let (mut seen, mut checked) = (HashSet::new(), HashSet::new());
    let mut path: Vec<(Vec<Choice>, usize)> = Vec::new();
    let prepared = Run::prepare(scenario, atomicity);
    // A write-by-write store has so many more states that losing its answers too takes minutes.
    let lossy = atomicity == Atomicity::Atomic || explores_all();
    loop {
        let mut run = Run::start(scenario, &prepared, lossy);
        for (choices, chosen) in &path {
            run.make(choices[*chosen]);
        }
        let taken = |path: &[(Vec<Choice>, usize)]| -> Vec<Choice> {
            path.iter().map(|(choices, chosen)| choices[*chosen]).collect()
        };
        let guard = OnPanic(|| format!("{} on {atomicity:?}: {:?}", scenario.name, taken(&path)));
        run.check_once(&mut checked);
        drop(guard);
        while seen.insert(run.fingerprint()) {
            let choices = run.choices();
            let Some(first) = choices.first().copied() else {
                let _guard = OnPanic(|| format!("{} on {atomicity:?}: {:?}", scenario.name, taken(&path)));
                run.check_end();
                break;
            };
            path.push((choices, 0));
            let _guard = OnPanic(|| format!("{} on {atomicity:?}: {:?}", scenario.name, taken(&path)));
            run.make(first);
            run.check_once(&mut checked);
        }
        loop {
            let Some((choices, chosen)) = path.last_mut() else { return seen.len() };
            *chosen += 1;
            if *chosen < choices.len() {
                break;
            }
            path.pop();
        }
    }
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

fn explore_both(scenario: &Scenario) {
    explore_on(scenario, &[Atomicity::Atomic, Atomicity::InOrder]);
}

fn explore_on(scenario: &Scenario, atomicities: &[Atomicity]) {
    for atomicity in atomicities.iter().copied() {
        let states = explore(scenario, atomicity);
        println!("{}: {states} states on {atomicity:?}", scenario.name);
    }
}
