//! What goes wrong: kinds and rates are drawn from the seed, some wholly off;
//! each kind strikes again and again until the mesh is healed.

use crate::agenda::{Event, Time};
use crate::link::{Cut, Weather};
use crate::trace::Digest;
use crate::world::{Doom, Fate, World};
use std::collections::BTreeSet;
use taskmesh_core::cache::{Bounds, Policy};
use taskmesh_core::config::Planted;
use taskmesh_core::order::Scheduling;
use taskmesh_core::permits::Limit;
use taskmesh_core::prng::Prng;
use taskmesh_core::{Command, Config, Input, Millis, NodeId, Request};

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// All chance follows from it.
    pub(crate) seed: u64,
    /// Nodes, in the end.
    pub(crate) nodes: usize,
    /// Submissions.
    pub(crate) tasks: u64,
    /// How long things go wrong.
    pub(crate) span: Time,
    /// What kinds of things.
    pub(crate) mood: Mood,
    /// How often most holders of a record are destroyed.
    pub(crate) ravages: u32,
    /// How the run is summed up.
    pub(crate) digest: Digest,
    /// A mistake in every node.
    pub(crate) planted: Option<Planted>,
}

/// Where faults come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// From the seed.
    Drawn,
    /// There are none, but those that a scenario makes.
    Calm,
}

/// The faults of one run. `None` and 0: never.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// How messages fare.
    pub(crate) weather: Weather,
    /// Copies of each task.
    pub(crate) holders: usize,
    /// Runs that may hang still.
    pub(crate) hangs_left: u32,
    /// Nodes check themselves every so many rounds of the world.
    pub(crate) check_every: u64,
    /// A run goes on after so many violations.
    pub(crate) violations: usize,
    /// Some results are blobs.
    pub(crate) blobs: bool,
    /// Nodes join over this time.
    pub(crate) growth: Time,
    /// Ended tasks are soon forgotten.
    pub(crate) short_retention: bool,
    /// Clients pause and resume the queue.
    pub(crate) pauses: bool,
    /// Clients clear the queue.
    pub(crate) clears: bool,
    /// Clients submit many tasks at once.
    pub(crate) bursts: bool,
    /// Some tasks take results of earlier ones.
    pub(crate) caches: bool,
    /// Most holders of a record are destroyed now and then.
    pub(crate) ravages: bool,
    cache: Bounds,
    scheduling: Scheduling,
    ageing: Millis,
    small_queue: bool,
    until: Time,
    crash_every: Option<Time>,
    blackout_every: Option<Time>,
    outage: Time,
    destroy_every: Option<Time>,
    destroys_left: u32,
    damage: u64,
    part_every: Option<Time>,
    one_way: bool,
    sever_every: Option<Time>,
    slow_every: Option<Time>,
    skew: bool,
    jump_every: Option<Time>,
    drain_every: Option<Time>,
}

/// Something that breaks or is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node dies in the middle of a batch.
    Crash,
    /// All nodes do.
    Blackout,
    /// A node dies and its disk is gone.
    Destroy,
    /// Most holders of a record do, at once.
    Ravage,
    /// An operator says who is gone for ever.
    Forget,
    /// The network falls apart.
    Part,
    /// And is whole again.
    Mend,
    /// One direction of one link is cut.
    Sever,
    /// A node becomes slow.
    Slow,
    /// And fast again.
    Quicken { node: usize },
    /// A wall clock is set.
    Jump,
    /// A node is told to stop in good order.
    Drain,
    /// Its grace is over.
    HandBack { node: usize, life: u32 },
    /// It stops.
    Stop { node: usize, life: u32 },
}

impl Faults {
    /// The faults of `plan`.
    pub(crate) fn draw(plan: &Plan, prng: &mut Prng) -> Faults {
        let calm = Faults::calm(plan);
        if plan.mood == Mood::Calm {
            return calm;
        }
        let weather = Weather {
            loss: prng.below(200) * on(prng, 700),
            doubled: prng.below(100) * on(prng, 500),
            late: prng.below(100) * on(prng, 500),
            late_by: 100 + prng.below(5_000),
            delay: 1 + prng.below(80),
        };
        let destroys = prng.chance(500);
        Faults {
            weather,
            holders: if prng.chance(150) { 5 } else { 3 },
            hangs_left: 4 * on(prng, 300) as u32,
            blobs: prng.chance(300),
            growth: if prng.chance(300) { 40_000 } else { 2_000 },
            short_retention: prng.chance(250),
            pauses: prng.chance(250),
            clears: prng.chance(200),
            small_queue: prng.chance(200),
            crash_every: often(prng, 750, 1_000, 8_000),
            blackout_every: often(prng, 100, 20_000, 60_000),
            outage: 500 + prng.below(15_000),
            destroy_every: destroys.then_some(8_000),
            destroys_left: 1 + prng.below(3) as u32,
            // A copy that is damaged later may be the one that was left.
            damage: prng.below(700) * on(prng, 300) * u64::from(plan.ravages == 0),
            part_every: often(prng, 600, 2_000, 15_000),
            one_way: prng.chance(400),
            sever_every: often(prng, 300, 1_000, 5_000),
            slow_every: often(prng, 300, 2_000, 15_000),
            skew: prng.chance(250),
            jump_every: often(prng, 300, 2_000, 15_000),
            drain_every: often(prng, 300, 8_000, 25_000),
            bursts: prng.chance(300),
            caches: prng.chance(500) && plan.ravages == 0,
            cache: Bounds {
                entries: [1, 3, 10_000][prng.below(3) as usize],
                ttl: [Millis(5_000), calm.cache.ttl][prng.below(2) as usize],
                policy: Policy::ALL[prng.below(4) as usize],
                ..calm.cache
            },
            scheduling: Scheduling::ALL[prng.below(4) as usize],
            ageing: [Millis(0), Millis(10), Millis(30), calm.ageing][prng.below(4) as usize],
            ..calm
        }
    }

    fn calm(plan: &Plan) -> Faults {
        Faults {
            weather: Weather::FAIR,
            holders: 3,
            hangs_left: 0,
            check_every: (plan.nodes as u64).max(8),
            violations: if plan.planted.is_some() { 100 } else { 0 },
            blobs: false,
            growth: 1_000,
            short_retention: false,
            pauses: false,
            clears: false,
            bursts: false,
            caches: false,
            ravages: plan.ravages > 0,
            cache: Bounds::default(),
            scheduling: Scheduling::default(),
            ageing: Config::default().ageing,
            small_queue: false,
            until: plan.span,
            crash_every: None,
            blackout_every: None,
            outage: 5_000,
            destroy_every: None,
            destroys_left: 0,
            damage: 0,
            part_every: None,
            one_way: false,
            sever_every: None,
            slow_every: None,
            skew: false,
            jump_every: None,
            drain_every: None,
        }
    }

    /// The settings of node `n`.
    pub(crate) fn config(&self, plan: &Plan, n: usize) -> Config {
        let usual = Config::default();
        Config {
            holders: self.holders,
            away: Millis(10_000),
            grace: Millis(2_000),
            retention: if self.short_retention { Millis(100_000) } else { usual.retention },
            open_tasks: if plan.planted == Some(Planted::Unbounded) {
                // So few that any storm reaches it.
                4
            } else if self.small_queue {
                12
            } else {
                usual.open_tasks
            },
            scheduling: if plan.planted == Some(Planted::NeverAge) { Scheduling::Priority } else { self.scheduling },
            ageing: if plan.planted == Some(Planted::NeverAge) { Millis(10) } else { self.ageing },
            fairness_weights: [("user0".into(), 3_000)].into(),
            reserve: Millis(2_000),
            limits: [Limit::read("key:user1", "2"), Limit::read("type:sleep", "6")]
                .map(|l| l.expect("a limit"))
                .concat(),
            cache: self.cache,
            joins: n != 0,
            executors: vec!["echo".into(), "sleep".into()],
            planted: plan.planted,
            ..usual
        }
    }

    /// Whether two nodes may lose sight of each other while both go on.
    pub(crate) fn splits_views(&self) -> bool {
        self.part_every.is_some()
            || self.sever_every.is_some()
            || self.growth > 2_000
            || self.silences_executors()
            || self.crash_every.is_some()
            || self.blackout_every.is_some()
    }

    /// Whether a node may fall silent, or another hear of it late.
    pub(crate) fn silences(&self) -> bool {
        self.splits_views() || self.destroy_every.is_some() || self.drain_every.is_some() || self.weather.loss > 0
    }

    /// Whether an executor may fall silent and yet run on.
    pub(crate) fn silences_executors(&self) -> bool {
        self.part_every.is_some()
            || self.sever_every.is_some()
            || self.slow_every.is_some()
            || self.skew
            || self.hangs_left > 0
            || self.weather.loss > 50
            || self.weather.late > 0
    }

    fn every(&self, fault: Fault) -> Option<Time> {
        match fault {
            Fault::Crash => self.crash_every,
            Fault::Blackout => self.blackout_every,
            Fault::Destroy => self.destroy_every,
            Fault::Part => self.part_every,
            Fault::Sever => self.sever_every,
            Fault::Slow => self.slow_every,
            Fault::Jump => self.jump_every,
            Fault::Drain => self.drain_every,
            Fault::Ravage | Fault::Forget => None,
            Fault::Mend | Fault::Quicken { .. } | Fault::HandBack { .. } | Fault::Stop { .. } => None,
        }
    }
}

impl World {
    /// Plans the first of each kind.
    pub(crate) fn plan_faults(&mut self) {
        if self.faults.skew {
            for host in &mut self.hosts {
                host.rate = [400, 800, 1_250, 2_500][self.prng.below(4) as usize];
            }
            self.tally.skewed += self.hosts.len() as u64;
        }
        for fault in RECURRING {
            self.plan_next(fault);
        }
    }

    fn plan_next(&mut self, fault: Fault) {
        let Some(every) = self.faults.every(fault) else { return };
        let at = self.now.max(5_000) + every / 2 + self.prng.below(every);
        if at < self.faults.until {
            self.agenda.at(at, Event::Fault(fault));
        }
    }

    /// Something breaks or is mended.
    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Crash => {
                if let Some(n) = self.any_up() {
                    self.crash(n);
                }
            }
            Fault::Blackout => {
                self.tally.blackouts += 1;
                for n in self.up().collect::<Vec<_>>() {
                    self.crash(n);
                }
            }
            Fault::Destroy => self.destroy_some(),
            Fault::Ravage => self.ravage(),
            Fault::Forget => self.forget_destroyed(),
            Fault::Part => self.part(),
            Fault::Mend => self.mend_network(),
            Fault::Sever => self.sever(),
            Fault::Slow => self.slow(),
            Fault::Quicken { node } => self.hosts[node].lag = 0,
            Fault::Jump => self.jump(),
            Fault::Drain => self.drain_some(),
            Fault::HandBack { node, life } => self.receive_in(node, life, Input::HandBack),
            Fault::Stop { node, life } => self.stop(node, life),
        }
        self.plan_next(fault);
    }

    /// Kills a node in the middle of a batch; it comes back.
    pub(crate) fn crash(&mut self, n: usize) {
        let doom = if self.prng.chance(500) { Doom::WhileWriting } else { Doom::WhileSpeaking };
        match doom {
            Doom::WhileWriting => self.tally.crashes_writing += 1,
            Doom::WhileSpeaking => self.tally.crashes_speaking += 1,
        }
        self.doom(n, doom);
        let back = self.now + 500 + self.prng.below(self.faults.outage);
        self.agenda.at(back, Event::Boot { node: n });
    }

    fn destroy_some(&mut self) {
        if self.faults.destroys_left == 0 {
            return;
        }
        let n = self.prng.below(self.hosts.len() as u64) as usize;
        if self.destroy(n) {
            self.faults.destroys_left -= 1;
        }
    }

    /// Takes a node and its disk away for ever, if every task would outlive it.
    pub(crate) fn destroy(&mut self, n: usize) -> bool {
        // It may be counted on for tasks of which it has nothing yet.
        let me = NodeId::test(n as u64);
        let copies = self.hosts.iter().flat_map(|h| h.disk.copies.values()).filter(|c| c.record.kept_by(me));
        let tasks: BTreeSet<_> = copies.map(|c| &c.record.task).chain(&self.hosts[n].disk.damaged).collect();
        let outlived = tasks.into_iter().all(|task| self.may_lose(n, task));
        if !outlived || matches!(self.hosts[n].fate, Fate::Unborn | Fate::Destroyed) {
            return false;
        }
        if self.hosts[n].node.is_some() {
            self.die(n);
        }
        self.hosts[n].fate = Fate::Destroyed;
        self.hosts[n].disk = Default::default();
        self.tally.destroyed += 1;
        true
    }

    /// Damages a copy of a node that starts, if the task would outlive it.
    pub(crate) fn damage_some(&mut self, n: usize) {
        if self.now >= self.faults.until || !self.prng.chance(self.faults.damage) {
            return;
        }
        let tasks: Vec<_> = self.hosts[n].disk.copies.keys().cloned().collect();
        for _ in 0..tasks.len().min(5) {
            let task = &tasks[self.prng.below(tasks.len() as u64) as usize];
            if self.may_lose(n, task) {
                self.hosts[n].disk.damage(task);
                self.tally.damaged += 1;
            }
        }
    }

    fn part(&mut self) {
        let share = 100 + self.prng.below(800);
        for n in 0..self.hosts.len() {
            self.net.side[n] = u8::from(self.prng.chance(share));
        }
        let one_way = self.faults.one_way && self.prng.chance(500);
        self.net.cut = if one_way { Cut::OneWay } else { Cut::BothWays };
        self.tally.one_way += u64::from(one_way);
        self.tally.partitions += u64::from(!one_way);
        self.strain_connections();
        let after = 2_000 + self.prng.below(20_000);
        self.agenda.at(self.now + after, Event::Fault(Fault::Mend));
    }

    /// The network is whole again.
    pub(crate) fn mend_network(&mut self) {
        self.net.cut = Cut::Open;
        self.net.severed.clear();
        self.redial();
    }

    fn sever(&mut self) {
        let n = self.hosts.len() as u64;
        let (from, to) = (self.prng.below(n) as usize, self.prng.below(n) as usize);
        if from == to {
            return;
        }
        self.tally.severed += 1;
        self.net.severed.insert((from, to));
        self.strain_connections();
        if self.faults.part_every.is_none() {
            let after = 2_000 + self.prng.below(10_000);
            self.agenda.at(self.now + after, Event::Fault(Fault::Mend));
        }
    }

    fn slow(&mut self) {
        let n = self.prng.below(self.hosts.len() as u64) as usize;
        self.hosts[n].lag = 100 + self.prng.below(4_000);
        self.tally.slowed += 1;
        let after = 2_000 + self.prng.below(15_000);
        self.agenda.at(self.now + after, Event::Fault(Fault::Quicken { node: n }));
    }

    fn jump(&mut self) {
        let n = self.prng.below(self.hosts.len() as u64) as usize;
        let span = if self.prng.chance(200) { 90_000 } else { 10_000 };
        self.hosts[n].clock_off = self.prng.below(2 * span) as i64 - span as i64;
        self.tally.clock_jumps += 1;
    }

    fn drain_some(&mut self) {
        let Some(n) = self.any_up() else { return };
        if !self.hosts[n].draining {
            self.drain(n);
        }
    }

    /// Stops a node in good order; it comes back.
    pub(crate) fn drain(&mut self, n: usize) {
        self.tally.drains += 1;
        self.hosts[n].draining = true;
        let life = self.hosts[n].life;
        self.receive(n, Input::Drain);
        let grace = self.now + 500 + self.prng.below(5_000);
        self.agenda.at(grace, Event::Fault(Fault::HandBack { node: n, life }));
        self.agenda.at(grace + 1_000 + self.prng.below(2_000), Event::Fault(Fault::Stop { node: n, life }));
    }

    fn stop(&mut self, n: usize, life: u32) {
        if self.hosts[n].life != life || self.hosts[n].node.is_none() {
            return;
        }
        self.die(n);
        let back = self.now + 500 + self.prng.below(self.faults.outage);
        self.agenda.at(back, Event::Boot { node: n });
    }

    /// Ends every fault: all that can come back does, and the network is fair.
    pub(crate) fn heal(&mut self) {
        self.net.weather = Weather::FAIR;
        self.mend_network();
        self.end_hanging_runs();
        for n in 0..self.hosts.len() {
            let now = self.now;
            let host = &mut self.hosts[n];
            host.lag = 0;
            host.clock_off = 0;
            host.run_clock_at(now, 1_000);
            if matches!(host.fate, Fate::Unborn | Fate::Down) {
                self.agenda.at(now + 1, Event::Boot { node: n });
            }
        }
        if self.faults.ravages {
            for after in [8_000, 20_000, 45_000] {
                self.agenda.at(self.now + after, Event::Fault(Fault::Forget));
            }
        }
        for after in [1_500, 6_000, 12_000] {
            let resume = Request::Command(Command::Resume { reorder: true });
            self.agenda.at(self.now + after, Event::Act(crate::workload::Act::Ask(Box::new(resume))));
        }
    }
}

/// 1 in `per_mille` of 1,000 seeds, else 0.
fn on(prng: &mut Prng, per_mille: u64) -> u64 {
    u64::from(prng.chance(per_mille))
}

/// In `per_mille` of 1,000 seeds, a pace between the two.
fn often(prng: &mut Prng, per_mille: u64, least: Time, most: Time) -> Option<Time> {
    let every = least + prng.below(most - least);
    prng.chance(per_mille).then_some(every)
}

/// The kinds that strike again.
const RECURRING: [Fault; 8] =
    [Fault::Crash, Fault::Blackout, Fault::Destroy, Fault::Part, Fault::Sever, Fault::Slow, Fault::Jump, Fault::Drain];
