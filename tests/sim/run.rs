//! One run: things go wrong, then the mesh is healed, and then everything must
//! come to its end.

use crate::agenda::{Event, Time};
use crate::faults::{Mood, Plan};
use crate::invariants::{Violation, unfinished_business};
use crate::tally::Tally;
use crate::trace::Digest;
use crate::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What came of a run.
pub(crate) struct Outcome {
    /// Its seed.
    pub(crate) seed: u64,
    /// Counts.
    pub(crate) tally: Tally,
    /// What the invariants found.
    pub(crate) violations: Vec<Violation>,
    /// The same for the same run.
    pub(crate) digest: u64,
}

impl Plan {
    /// A run with whatever faults the seed draws.
    pub(crate) fn drawn(seed: u64, nodes: usize) -> Plan {
        let tasks = 10 * nodes as u64;
        let (mood, digest) = (Mood::Drawn, Digest::Outline);
        Plan { seed, nodes, tasks, span: 120_000, mood, digest, ravages: 0, planted: None }
    }

    /// A run without faults.
    pub(crate) fn calm(seed: u64, nodes: usize) -> Plan {
        Plan { mood: Mood::Calm, ..Plan::drawn(seed, nodes) }
    }
}

/// Runs `plan` to its end; a panic of a node is a violation too.
pub(crate) fn run(plan: &Plan) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| live(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let violation = Violation::new(0, "no_panic", text.unwrap_or_default());
        Outcome { seed: plan.seed, tally: Tally::default(), violations: vec![violation], digest: 0 }
    })
}

fn live(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    world.raise();
    world.plan_faults();
    world.plan_work(plan.tasks, 2_000, plan.span);
    if plan.ravages == 0 {
        world.plan_schedules(2_000, plan.span);
        world.plan_arrays(2_000, plan.span);
    }
    world.plan_ravages(plan.ravages, plan.span);
    world.run_until(plan.span);
    world.finish()
}

impl World {
    /// Plans the first start of every node.
    pub(crate) fn raise(&mut self) {
        let growth = self.faults.growth;
        for node in 0..self.hosts.len() {
            let at = if node == 0 { 0 } else { 1 + self.prng.below(growth) };
            self.agenda.at(at, Event::Boot { node });
        }
    }

    /// Heals the mesh, gives it time, and examines what became of it.
    pub(crate) fn finish(mut self) -> Outcome {
        self.heal();
        let bound = self.now + PATIENCE;
        self.run_until(self.now + 15_000);
        self.settle(bound);
        if self.violations.is_empty() {
            self.ask_about_everything();
            self.run_until(self.now + 10_000);
            // Something may have been forgotten just now.
            self.settle(bound + 30_000);
            self.examine();
        }
        self.sum_up()
    }

    fn settle(&mut self, mut bound: Time) {
        while self.now < bound && self.violations.is_empty() && unfinished_business(self) {
            let runs = self.tally.runs;
            self.approve_everything();
            self.run_until(self.now + 2_000);
            // A limit of two at once lets little through.
            if self.tally.runs > runs {
                bound = bound.max(self.now + PROGRESS);
            }
        }
    }

    fn sum_up(mut self) -> Outcome {
        let (lost, conflicting, double) = crate::invariants::headline(&self);
        self.tally.lost += lost;
        self.tally.conflicting += conflicting;
        self.tally.double_accepted += double;
        self.tally.close(self.now);
        Outcome { seed: self.seed, tally: self.tally, violations: self.violations, digest: self.digest }
    }
}

/// How long after the heal everything may take: all leases, claims and changes
/// of holders that the worst run leaves behind, and the work itself.
const PATIENCE: Time = 300_000;
/// And how long after that while programs run.
const PROGRESS: Time = 30_000;
