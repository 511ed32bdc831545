//! The simulator: whole meshes in one thread, from one seed.
//!
//! Nodes are fed by a world of simulated links, disks, clocks and programs in
//! which everything goes wrong that the seed draws; invariants look at every
//! effect, and at the mesh after it was healed. A failure prints its seed and
//! the command that repeats it.
//!
//! `SIM_SEEDS`, `SIM_FIRST`, `SIM_NODES`, `SIM_SEED` and `SIM_BIG_NODES` choose
//! what runs; `SIM_TRACE=1` with `SIM_TASK=<id>` prints what happens.

mod agenda;
mod arrays;
mod disk;
mod executor;
mod faults;
mod flows;
mod invariants;
mod link;
mod model;
mod oracle;
mod planted;
mod ravage;
mod ravaged;
mod run;
mod scenarios;
mod schedules;
mod tally;
mod trace;
mod workload;
mod world;

use faults::Plan;
use run::{Outcome, run};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;
use tally::Tally;
use trace::Digest;

#[test]
fn many_seeds_keep_every_promise() {
    let first = number("SIM_FIRST", 0);
    let seeds = number("SIM_SEEDS", 100);
    let nodes = number("SIM_NODES", 15) as usize;
    let (tally, failures) = run_seeds(first..first + seeds, |seed| Plan::drawn(seed, nodes));
    println!("{}", tally.table());
    conclude(&failures, nodes);
}

const RAVAGES: u32 = 3;

/// The same without workflows, schedules and arrays, where now and then most
/// holders of a record are destroyed, and forgotten. One of them: `SIM_RAVAGES=3`.
#[test]
fn lost_majorities_go_on_when_they_are_forgotten() {
    let first = number("SIM_FIRST", 0);
    let seeds = number("SIM_SEEDS", 40);
    let nodes = number("SIM_NODES", 15) as usize;
    let (tally, failures) =
        run_seeds(first..first + seeds, |seed| Plan { ravages: RAVAGES, ..Plan::drawn(seed, nodes) });
    println!("{}", tally.table());
    conclude(&failures, nodes);
    assert!(tally.ravages > 0 && tally.ravaged < tally.accepted, "nothing was left to go on with");
}

/// Quiet unless `SIM_SEED` names the one to look at.
#[test]
fn one_seed_keeps_every_promise() {
    let nodes = number("SIM_NODES", 15) as usize;
    let ravages = u32::try_from(number("SIM_RAVAGES", 0)).expect("a small number");
    let outcome = run(&Plan { ravages, ..Plan::drawn(number("SIM_SEED", 1), nodes) });
    if std::env::var("SIM_SEED").is_ok() {
        println!("{}", outcome.tally.table());
    }
    conclude(&[outcome].into_iter().filter(|o| !o.violations.is_empty()).collect::<Vec<_>>(), nodes);
}

#[test]
fn a_big_mesh_keeps_every_promise() {
    let nodes = number("SIM_BIG_NODES", 100) as usize;
    let started = Instant::now();
    let outcome = run(&Plan { tasks: 5 * nodes as u64, span: 60_000, ..Plan::drawn(number("SIM_SEED", 3), nodes) });
    println!("{nodes} nodes in {:.1} s:\n{}", started.elapsed().as_secs_f64(), outcome.tally.table());
    conclude(&[outcome].into_iter().filter(|o| !o.violations.is_empty()).collect::<Vec<_>>(), nodes);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let plan = Plan { digest: Digest::Full, ..Plan::drawn(seed, 9) };
        assert_eq!(run(&plan).digest, run(&plan).digest, "seed {seed} runs differently each time");
    }
}

/// Runs every seed, on each core; gives the sum of the counts and the failures
/// in order.
fn run_seeds(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> (Tally, Vec<Outcome>) {
    let next = AtomicU64::new(seeds.start);
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (done, outcomes) = mpsc::channel();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, next, plan, end) = (done.clone(), &next, &plan, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(run(&plan(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for outcome in outcomes {
            tally.add(&outcome.tally);
            if tally.seeds.is_multiple_of(100) {
                let (hours, took) = (tally.hours(), started.elapsed().as_secs());
                println!("{} seeds, {hours:.1} simulated hours, {took} s, {} failed", tally.seeds, failures.len());
            }
            if !outcome.violations.is_empty() {
                let v = &outcome.violations[0];
                println!("seed {} failed at {}: {}: {}", outcome.seed, v.at, v.invariant, v.problem);
                failures.push(outcome);
            }
        }
    });
    failures.sort_by_key(|o| o.seed);
    (tally, failures)
}

fn conclude(failures: &[Outcome], nodes: usize) {
    for outcome in failures.iter().take(5) {
        println!("seed {}: {} violations", outcome.seed, outcome.violations.len());
        for v in outcome.violations.iter().take(5) {
            println!("  at {} {}: {}", v.at, v.invariant, v.problem);
        }
        println!(
            "  repeat: SIM_SEED={} SIM_NODES={nodes} SIM_TRACE=1 SIM_TASK=<id> cargo test -p taskmesh-core --test sim -- \
             --exact one_seed_keeps_every_promise --nocapture",
            outcome.seed
        );
    }
    let seeds: Vec<_> = failures.iter().map(|o| o.seed).collect();
    assert!(failures.is_empty(), "{} seeds failed: {seeds:?}", failures.len());
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
