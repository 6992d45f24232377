//! Cases replayed with packets, by the rules that make a verdict worth something:
//!
//! - a drop counts only if the same probe is answered without the policies, before and after;
//! - a drop is silence: whoever is refused was not dropped, and was not let through either;
//! - what is expected must be seen twice in a row, each time by new flows; a loaded machine gets longer to answer each
//!   time, but a packet that comes through once the rules are in force has leaked, whatever comes later;
//! - connection tracking forgets everything whenever the rules change.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use calico_policy::Verdict as Policy;

use super::super::probe::Verdict;
use super::super::wait::{Interrupt, Stopwatch};
use super::Filter;
use super::ask::{World, compiled};
use super::cases::{Case, Expected, Service, Step, Suite};
use super::error::ConformanceError;
use super::report::{Failure, Report};
use super::scene::{End, Placement, Scene};
use super::stage::{Stage, allow_many_sockets};

/// How long an answer may take, in milliseconds, each time it is asked for again.
const PATIENCE: [u64; 8] = [250, 250, 500, 500, 1000, 2000, 4000, 4000];

/// Replays the cases of a file, several at once, each on a stage that others do not touch.
pub(super) fn replay(
    suite: &Suite,
    filter: Filter,
    placement: &Placement,
    interrupt: &Interrupt,
) -> Result<Report, ConformanceError> {
    allow_many_sockets();
    let clock = Stopwatch::start();
    let services: BTreeSet<Service> = suite.probes().map(|probe| probe.service).collect();
    // Silence is waited for, and others can work meanwhile.
    let stages = thread::available_parallelism().map_or(2, |cores| cores.get() * 2).min(suite.cases.len());
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Report)>, ConformanceError> {
        let mut stage: Option<Stage> = None;
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = suite.cases.get(index) else { return Ok(done) };
            let ends = ends_of_all(case, placement)?;
            // Two cases may give one address to different pods.
            let ready = match stage.take().filter(|stage| stage.seats(&ends)) {
                Some(ready) => ready,
                None => Stage::up(filter, &ends, &services, placement, interrupt)?,
            };
            let stage = stage.insert(ready);
            let mut report = Report::new(suite.path.clone());
            replay_case(stage, case, placement, interrupt, &mut report)?;
            stage.audit(&case.id)?;
            done.push((index, report));
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..stages).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut done: Vec<(usize, Report)> =
        results.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    let mut report = Report::new(suite.path.clone());
    done.into_iter().for_each(|(_, part)| report.add(part));
    report.took = clock.elapsed();
    Ok(report)
}

/// Every end that some probe of a case needs.
fn ends_of_all(case: &Case, placement: &Placement) -> Result<BTreeSet<End>, ConformanceError> {
    let mut ends = BTreeSet::new();
    for step in &case.steps {
        for probe in &step.probes {
            let (from, to) = ends_of(&step.scene, probe, placement).map_err(|reason| of(case, reason))?;
            ends.extend([from, to]);
        }
    }
    Ok(ends)
}

fn ends_of(scene: &Scene, probe: &Expected, placement: &Placement) -> Result<(End, End), String> {
    let end = |name: &str| {
        scene.end(name, placement).ok_or_else(|| format!("a probe names {name}, which is not there"))
    };
    Ok((end(&probe.from)?, end(&probe.to)?))
}

fn of(case: &Case, reason: String) -> ConformanceError {
    ConformanceError::Case { case: case.id.clone(), reason }
}

fn replay_case(
    stage: &mut Stage,
    case: &Case,
    placement: &Placement,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), ConformanceError> {
    for step in &case.steps {
        interrupt.check()?;
        let mut turn = Turn::of(stage, step, placement).map_err(|reason| of(case, reason))?;
        let mut failed = vec![None; step.probes.len()];
        turn.open("without any policy", report, &mut failed)?;
        turn.policed(report, &mut failed)?;
        turn.open("with the policies gone again", report, &mut failed)?;
        for (probe, failed) in step.probes.iter().zip(failed) {
            match failed {
                None => report.passed += 1,
                Some(observed) => {
                    let explanation = turn.world.explain(probe);
                    report.failures.push(Failure::new(&case.id, &step.name, probe, observed, explanation));
                }
            }
        }
    }
    Ok(())
}

/// One step on its stage.
struct Turn<'t> {
    stage: &'t mut Stage,
    world: World<'t>,
    placement: &'t Placement,
    probes: Vec<(End, End, Service)>,
}

impl<'t> Turn<'t> {
    fn of(stage: &'t mut Stage, step: &'t Step, placement: &'t Placement) -> Result<Self, String> {
        let probes = step.probes.iter().map(|probe| {
            let (from, to) = ends_of(&step.scene, probe, placement)?;
            Ok((from, to, probe.service))
        });
        let probes = probes.collect::<Result<Vec<_>, String>>()?;
        Ok(Self { stage, world: World::of(step, placement)?, placement, probes })
    }

    /// With no policy in force, whatever is to be dropped must be answered.
    fn open(
        &mut self,
        when: &str,
        report: &mut Report,
        failed: &mut [Option<String>],
    ) -> Result<(), ConformanceError> {
        let wrong = |reason| ConformanceError::Case { case: self.world.step.name.clone(), reason };
        let open = self.world.step.scene.open().snapshot(self.placement).map_err(wrong)?;
        let rules = compiled(&open, self.placement).map_err(wrong)?;
        report.programming.push(self.stage.enforce(rules)?);
        let dropped = self.world.step.probes.iter().enumerate();
        let mut left: Vec<usize> =
            dropped.filter(|(_, probe)| probe.verdict == Policy::Deny).map(|(index, _)| index).collect();
        let mut observed = Vec::new();
        for patience in PATIENCE {
            if left.is_empty() {
                return Ok(());
            }
            let probes: Vec<_> = left.iter().map(|index| self.probes[*index].clone()).collect();
            observed = self.stage.probe(&probes, Duration::from_millis(patience))?;
            let answers = left.iter().copied().zip(&observed);
            left = answers.filter(|(_, seen)| **seen != Verdict::Allowed).map(|(index, _)| index).collect();
        }
        observed.retain(|seen| *seen != Verdict::Allowed);
        for (index, seen) in left.into_iter().zip(observed) {
            failed[index].get_or_insert(format!("{seen} {when}"));
        }
        Ok(())
    }

    /// With the policies in force, everything must come out as expected, twice in a row.
    fn policed(
        &mut self,
        report: &mut Report,
        failed: &mut [Option<String>],
    ) -> Result<(), ConformanceError> {
        let wrong = |reason| ConformanceError::Case { case: self.world.step.name.clone(), reason };
        let rules = compiled(&self.world.snapshot, self.placement).map_err(wrong)?;
        report.programming.push(self.stage.enforce(rules)?);
        let expected = &self.world.step.probes;
        let mut in_a_row = 0;
        let mut observed = Vec::new();
        for patience in PATIENCE {
            observed = self.stage.probe(&self.probes, Duration::from_millis(patience))?;
            let mut as_expected = true;
            for ((probe, seen), failed) in expected.iter().zip(&observed).zip(failed.iter_mut()) {
                let leaked = probe.verdict == Policy::Deny && *seen != Verdict::TimedOut;
                if leaked {
                    failed.get_or_insert(seen.to_string());
                }
                as_expected &= leaked || agrees(probe, *seen);
            }
            in_a_row = if as_expected { in_a_row + 1 } else { 0 };
            if in_a_row == 2 {
                return Ok(());
            }
        }
        for ((probe, seen), failed) in expected.iter().zip(observed).zip(failed.iter_mut()) {
            if !agrees(probe, seen) {
                failed.get_or_insert(seen.to_string());
            }
        }
        Ok(())
    }
}

fn agrees(probe: &Expected, seen: Verdict) -> bool {
    match probe.verdict {
        Policy::Allow => seen == Verdict::Allowed,
        Policy::Deny => seen == Verdict::TimedOut,
    }
}
