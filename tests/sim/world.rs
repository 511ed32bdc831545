//! The world: nodes, their disks and what happens next. Feeds each node as its
//! driver would (a batch of inputs, one commit, then everything else) and
//! shows every effect to the oracle and the invariants.

use crate::agenda::{Agenda, Event, Time};
use crate::disk::SimDisk;
use crate::executor::Running;
use crate::faults::{Faults, Plan};
use crate::invariants::{self, Invariant, Seen, Violation};
use crate::link::Network;
use crate::oracle::Oracle;
use crate::tally::Tally;
use crate::trace::Trace;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use taskmesh_core::node::Node;
use taskmesh_core::prng::{Prng, mix};
use taskmesh_core::view::Status;
use taskmesh_core::{Config, Effect, Fence, Input, Message, Millis, NodeId, Record, TaskId, TaskState, Unix};

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not started for the first time yet.
    Unborn,
    /// Running.
    Up,
    /// Dead; its disk is there.
    Down,
    /// Dead, and its disk is gone for ever.
    Destroyed,
}

/// One node and what it stands on.
pub(crate) struct Host {
    /// The node, while it runs.
    pub(crate) node: Option<Node>,
    /// Where it is.
    pub(crate) fate: Fate,
    /// Counts its starts, so that nothing of one life reaches the next.
    pub(crate) life: u32,
    /// Its disk.
    pub(crate) disk: SimDisk,
    /// Its settings.
    pub(crate) config: Config,
    /// Its runs.
    pub(crate) runs: BTreeMap<(TaskId, Fence), Running>,
    /// Thousandths of true time that its clock counts.
    pub(crate) rate: u64,
    /// How far its wall clock is off.
    pub(crate) clock_off: i64,
    /// It takes this long to get to its inbox.
    pub(crate) lag: Time,
    /// Since when it is up.
    pub(crate) up_since: Time,
    /// How it is to die at its next turn.
    pub(crate) doom: Option<Doom>,
    /// It was told to stop in good order.
    pub(crate) draining: bool,
    inbox: VecDeque<Input>,
    turn_planned: bool,
    busy_until: Time,
    wake_at: Time,
    clock_base: (Time, u64),
}

/// How far a node gets with its last batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doom {
    /// A part of the writes, and nothing else.
    WhileWriting,
    /// All writes, and a part of the rest.
    WhileSpeaking,
}

impl Host {
    fn new(config: Config) -> Host {
        Host {
            node: None,
            fate: Fate::Unborn,
            life: 0,
            disk: SimDisk::default(),
            config,
            runs: BTreeMap::new(),
            rate: 1_000,
            clock_off: 0,
            lag: 0,
            up_since: 0,
            doom: None,
            draining: false,
            inbox: VecDeque::new(),
            turn_planned: false,
            busy_until: 0,
            wake_at: Time::MAX,
            clock_base: (0, 0),
        }
    }

    fn local(&self, now: Time) -> Millis {
        let (since, base) = self.clock_base;
        Millis(base + (now - since) * self.rate / 1_000)
    }

    fn when(&self, local: Millis) -> Time {
        if local == Millis::NEVER {
            return Time::MAX;
        }
        let (since, base) = self.clock_base;
        since + (local.0.saturating_sub(base) * 1_000).div_ceil(self.rate)
    }

    /// Changes the speed of its clock; the clock goes on from where it is.
    pub(crate) fn run_clock_at(&mut self, now: Time, rate: u64) {
        self.clock_base = (now, self.local(now).0);
        self.rate = rate;
    }
}

/// Everything.
pub(crate) struct World {
    /// The seed that all of it follows from.
    pub(crate) seed: u64,
    /// Now.
    pub(crate) now: Time,
    /// Chance, for everything outside the nodes.
    pub(crate) prng: Prng,
    /// What comes.
    pub(crate) agenda: Agenda,
    /// The nodes.
    pub(crate) hosts: Vec<Host>,
    /// Between them.
    pub(crate) net: Network,
    /// What goes wrong in this run.
    pub(crate) faults: Faults,
    /// What was promised, and what really happened.
    pub(crate) oracle: Oracle,
    /// Counts, for the table.
    pub(crate) tally: Tally,
    /// What the invariants found.
    pub(crate) violations: Vec<Violation>,
    /// Changes with every effect.
    pub(crate) digest: u64,
    /// The last number given to a request or a run.
    pub(crate) last_number: u64,
    invariants: Vec<Box<dyn Invariant>>,
    trace: Trace,
    batch: Vec<Effect>,
}

impl World {
    /// A world of `plan.nodes` unborn nodes.
    pub(crate) fn new(plan: &Plan) -> World {
        let mut prng = Prng::new(mix(plan.seed ^ 0x7461_736b_6d65_7368));
        let faults = Faults::draw(plan, &mut prng);
        let hosts = (0..plan.nodes).map(|n| Host::new(faults.config(plan, n))).collect();
        World {
            seed: plan.seed,
            now: 0,
            agenda: Agenda::default(),
            hosts,
            net: Network::new(plan.nodes, faults.weather),
            oracle: Oracle::default(),
            tally: Tally::default(),
            violations: Vec::new(),
            digest: mix(plan.seed),
            last_number: 0,
            invariants: invariants::all(),
            trace: Trace::from_env(plan.digest),
            batch: Vec::new(),
            prng,
            faults,
        }
    }

    /// Lets everything up to `until` happen.
    pub(crate) fn run_until(&mut self, until: Time) {
        while self.agenda.next_time().is_some_and(|t| t <= until) {
            let (now, event) = self.agenda.pop().expect("there is a next time");
            self.now = now;
            self.tally.events += 1;
            self.happen(event);
            if self.tally.turns.max(self.tally.sent) > self.hosts.len() as u64 * STORM {
                let problem = format!("{} messages by now: {:?}", self.tally.sent, self.net.kinds);
                self.violations.push(Violation::new(now, "traffic_bounded", problem));
                self.faults.violations = 0;
            }
            if self.violations.len() > self.faults.violations {
                return;
            }
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Boot { node } => self.boot(node),
            Event::Wake { node, life } => {
                if self.hosts[node].life == life && self.hosts[node].wake_at <= self.now {
                    self.hosts[node].wake_at = Time::MAX;
                    self.receive(node, Input::Tick);
                }
            }
            Event::Turn { node, life } => self.turn(node, life),
            Event::Clock { node, life } => self.tell_clock(node, life),
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Gossip { from, to, message } => {
                for node in to {
                    self.deliver(from, node, (*message).clone());
                }
            }
            Event::Arrive { node, life, input } => self.receive_in(node, life, input),
            Event::Connect { a, b } => self.connect(a, b),
            Event::Break { a, b, connection } => self.break_connection(a, b, connection),
            Event::RunEnds { node, life, task, fence, ticket } => self.end_run(node, life, task, fence, ticket),
            Event::RunSays { node, life, task, fence, event } => self.relay_run(node, life, task, fence, event),
            Event::BlobArrives { node, life, hash, from } => self.bring_blob(node, life, hash, from),
            Event::Fault(fault) => self.strike(fault),
            Event::Act(act) => self.act(act),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        self.receive(to, Input::Received { from: NodeId::test(from as u64), message });
    }

    /// Puts `input` into a node's inbox, if it is still in that life.
    pub(crate) fn receive_in(&mut self, node: usize, life: u32, input: Input) {
        if self.hosts[node].life == life {
            self.receive(node, input);
        }
    }

    /// Puts `input` into a node's inbox.
    pub(crate) fn receive(&mut self, node: usize, input: Input) {
        let host = &mut self.hosts[node];
        if host.node.is_none() {
            return;
        }
        host.inbox.push_back(input);
        self.plan_turn(node);
    }

    fn plan_turn(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if std::mem::replace(&mut host.turn_planned, true) {
            return;
        }
        let at = (self.now + host.lag).max(host.busy_until);
        let life = host.life;
        self.agenda.at(at, Event::Turn { node, life });
    }

    /// One round of a node's driver.
    fn turn(&mut self, n: usize, life: u32) {
        let host = &mut self.hosts[n];
        let now = host.local(self.now);
        let Some(node) = host.node.as_mut().filter(|_| host.life == life) else { return };
        host.turn_planned = false;
        let mut batch = std::mem::take(&mut self.batch);
        for input in host.inbox.drain(..host.inbox.len().min(MAX_BATCH)) {
            self.trace.input(self.now, n, &input);
            node.handle(now, input, &mut batch);
        }
        self.tally.turns += 1;
        if self.tally.turns.is_multiple_of(self.faults.check_every) {
            node.check();
        }
        self.digest = self.trace.effects(self.digest, self.now, n, &batch);
        let doom = host.doom.take();
        let flush = if batch.iter().any(writes) { 1 + self.prng.below(3) } else { 0 };
        self.hosts[n].busy_until = self.now + flush;
        self.obey(n, &mut batch, doom);
        batch.clear();
        self.batch = batch;
        if doom.is_some() {
            self.die(n);
            return;
        }
        if !self.hosts[n].inbox.is_empty() {
            self.plan_turn(n);
        }
        self.plan_wake(n);
    }

    fn plan_wake(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        let Some(node) = &host.node else { return };
        let at = host.when(node.next_wakeup()).max(self.now + 1);
        if at < host.wake_at {
            host.wake_at = at;
            let life = host.life;
            self.agenda.at(at, Event::Wake { node: n, life });
        }
    }

    /// Write, then speak; a doomed node gets only so far.
    fn obey(&mut self, n: usize, batch: &mut Vec<Effect>, doom: Option<Doom>) {
        self.show(Seen::Batch { node: n, effects: batch });
        let (to_write, to_say) = match doom {
            None => (usize::MAX, usize::MAX),
            Some(Doom::WhileWriting) => {
                let writes = batch.iter().filter(|e| writes(e)).count() as u64;
                (self.prng.below(writes + 1) as usize, 0)
            }
            Some(Doom::WhileSpeaking) => {
                let words = batch.iter().filter(|e| !writes(e)).count() as u64;
                (usize::MAX, self.prng.below(words + 1) as usize)
            }
        };
        let (written, said): (Vec<_>, Vec<_>) = batch.drain(..).partition(writes);
        for effect in written.into_iter().take(to_write) {
            self.write(n, effect);
        }
        for effect in said.into_iter().take(to_say) {
            self.release(n, effect);
        }
    }

    fn release(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Forget(_) => unreachable!("written before"),
            Effect::Send { to, message } => {
                let to = index(to);
                assert_ne!(to, n, "a node never sends to itself");
                if let Message::Grant(grant) = &message {
                    self.show(Seen::Granted { node: n, to, grant });
                }
                self.post(n, to, message);
            }
            Effect::Publish(message) => self.gossip(n, message),
            Effect::Run { task, fence, worker: _, spec } => self.start_run(n, task, fence, spec),
            Effect::Stop { task, fence, force } => self.stop_run(n, &task, fence, force),
            Effect::Fetch { hash, bytes: _, from } => self.fetch_blob(n, hash, index(from)),
            // Its blobs are names alone.
            Effect::ReadBlob(hash) => self.receive(n, Input::BlobRead { hash, content: None }),
            Effect::DropBlob(hash) => {
                self.hosts[n].disk.blobs.remove(&hash);
            }
            Effect::Net(command) => self.obey_net(n, command),
            Effect::Reply { id, reply } => self.on_reply(n, id, reply),
            Effect::Notice(notice) => self.on_notice(n, &notice),
        }
    }

    /// Shows `seen` to the invariants.
    pub(crate) fn show(&mut self, seen: Seen<'_>) {
        if seen.task().and_then(|task| self.oracle.promises.get(task)).is_some_and(|p| p.void) {
            return;
        }
        let mut invariants = std::mem::take(&mut self.invariants);
        let mut found = Vec::new();
        for invariant in &mut invariants {
            if let Err(problem) = invariant.see(self, &seen) {
                found.push(Violation::new(self.now, invariant.name(), problem));
            }
        }
        self.invariants = invariants;
        self.violations.extend(found);
    }

    /// Asks every invariant about the world at rest.
    pub(crate) fn examine(&mut self) {
        let mut invariants = std::mem::take(&mut self.invariants);
        let mut found = Vec::new();
        for invariant in &mut invariants {
            let problems = invariant.at_rest(self);
            found.extend(problems.into_iter().map(|p| Violation::new(self.now, invariant.name(), p)));
        }
        self.invariants = invariants;
        self.violations.extend(found);
    }

    fn boot(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if matches!(host.fate, Fate::Up | Fate::Destroyed) {
            return;
        }
        let born = host.fate == Fate::Unborn;
        if !born {
            self.damage_some(n);
        }
        let host = &mut self.hosts[n];
        host.fate = Fate::Up;
        host.life += 1;
        host.up_since = self.now;
        host.clock_base = (self.now, 0);
        host.draining = false;
        let seed = mix(self.seed ^ mix(n as u64) ^ u64::from(host.life) << 32);
        host.node = Some(Node::new(NodeId::test(n as u64), host.config.clone(), seed, host.disk.load()));
        let life = host.life;
        self.forget_connections(n);
        self.tell_clock(n, life);
        self.receive(n, Input::Tick);
        if born {
            self.tally.born += 1;
            self.equip(n);
        } else {
            self.tally.restarts += 1;
        }
        self.dial_everybody(n);
    }

    fn tell_clock(&mut self, n: usize, life: u32) {
        let host = &self.hosts[n];
        if host.life != life || host.node.is_none() {
            return;
        }
        let wall = self.wall_clock(n);
        self.receive(n, Input::Clock(wall));
        self.agenda.at(self.now + CLOCK_EVERY, Event::Clock { node: n, life });
    }

    /// What the wall clock of a node says now.
    pub(crate) fn wall_clock(&self, n: usize) -> Unix {
        Unix((EPOCH + self.now).saturating_add_signed(self.hosts[n].clock_off))
    }

    /// The end of a node's life, now.
    pub(crate) fn die(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.node = None;
        host.fate = Fate::Down;
        host.life += 1;
        host.doom = None;
        host.inbox.clear();
        host.turn_planned = false;
        host.busy_until = 0;
        host.wake_at = Time::MAX;
        let runs: Vec<_> = std::mem::take(&mut host.runs).into_keys().collect();
        for (task, fence) in runs {
            self.oracle.run_ended(&task, fence, n, self.now, None);
        }
        self.oracle.forget_requests_of(n);
        self.hang_up(n);
    }

    /// Makes a node die in its next turn, which is now.
    pub(crate) fn doom(&mut self, n: usize, doom: Doom) {
        if self.hosts[n].node.is_none() {
            return;
        }
        self.hosts[n].doom = Some(doom);
        self.hosts[n].inbox.push_back(Input::Tick);
        let life = self.hosts[n].life;
        self.agenda.at(self.now, Event::Turn { node: n, life });
    }

    /// The nodes that run.
    pub(crate) fn up(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.iter().enumerate().filter(|(_, h)| h.node.is_some()).map(|(n, _)| n)
    }

    /// One of the nodes that run, by chance.
    pub(crate) fn any_up(&mut self) -> Option<usize> {
        let up: Vec<_> = self.up().collect();
        if up.is_empty() {
            return None;
        }
        Some(up[self.prng.below(up.len() as u64) as usize])
    }

    /// Whether a node must know by now that the mesh has three nodes or more.
    pub(crate) fn full_number_is_known(&self, n: usize) -> bool {
        let settled = |host: &Host| host.node.is_some() && self.now > host.up_since + SETTLED;
        settled(&self.hosts[n])
            && self.hosts[n].disk.members() >= 2
            && self.hosts.iter().filter(|h| settled(h)).count() >= 3
    }

    /// Where the copies of a task are, for messages.
    pub(crate) fn whereabouts(&self, task: &TaskId) -> String {
        let mut text = String::new();
        for (n, host) in self.hosts.iter().enumerate() {
            let Some(copy) = host.disk.copies.get(task) else { continue };
            let r = &copy.record;
            let _ = write!(
                text,
                "\n    n{n} ({:?}): pledge {}/{:?}, stamp {}/{:?}/{}, attempt {}, {}, holders {:?}, prior {:?}",
                host.fate,
                copy.pledge.epoch,
                copy.pledge.owner,
                r.stamp.ballot.epoch,
                r.owner(),
                r.stamp.revision,
                r.body.attempt,
                state_of(r),
                r.holders,
                r.prior,
            );
        }
        text
    }

    /// A number that was not used before.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// The place of a node in the world.
pub(crate) fn index(id: NodeId) -> usize {
    u64::from_be_bytes(id.0[..8].try_into().expect("8 of 32")) as usize
}

/// What a record's task is doing, in short.
fn state_of(record: &Record) -> String {
    match &record.body.state {
        TaskState::Done(closed) => format!("{} by {:?}", Status::of_outcome(&closed.outcome).name(), closed.executor),
        other => format!("{other:?}"),
    }
}

fn writes(effect: &Effect) -> bool {
    matches!(effect, Effect::Persist(_) | Effect::Forget(_))
}

/// The wall clock at the birth of the mesh: 2026-01-01.
pub(crate) const EPOCH: u64 = 1_767_225_600_000;
/// A driver takes so many inputs in one round.
const MAX_BATCH: usize = 64;
/// A shell tells its node the wall clock so often.
const CLOCK_EVERY: Time = 5_000;
/// More rounds or messages of each node are a storm that feeds itself.
const STORM: u64 = 60_000;
/// After this long a node has heard of every other.
const SETTLED: Time = 15_000;
