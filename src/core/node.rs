//! The node: its state, the dispatch of inputs, and what every part of it uses.
//!
//! Each noun has its module with the `on_*` functions that receive and the
//! plain verbs that act; all are methods of [`Node`], because a decision about
//! a task needs its record, its worker and its peers at once.

use crate::cache::Cached;
use crate::claims::{Bid, Claim};
use crate::command::{Command, Query, Refusal, Request};
use crate::config::{Config, Planted};
use crate::effect::{Disk, Effect, Entry, Input, Key, Notice};
use crate::execution::{Execution, Over};
use crate::forgotten::Words;
use crate::ids::{BlobHash, NodeId, RequestId, TaskId, WorkerId};
use crate::lanes::Queue;
use crate::message::{By, Controls, Finished, Message};
use crate::order::Order;
use crate::ownership::{Kept, Tombstones};
use crate::peers::Member;
use crate::permits::Permits;
use crate::prng::Prng;
use crate::record::{Ballot, Record, Slot};
use crate::register::Register;
use crate::requests::{Origin, Requests};
use crate::reuse::Reuse;
use crate::shelf::Shelved;
use crate::stats::Recent;
use crate::steps::Workflows;
use crate::task::Spec;
use crate::ticks::Schedules;
use crate::time::{Millis, Unix};
use crate::view::{NodeLoad, Reply, Status};
use crate::watch::Survey;
use crate::workers::Worker;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One node of a mesh.
pub struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) chance: Prng,
    /// Starts of this node, this one included.
    pub(crate) boot: u64,
    pub(crate) now: Millis,
    clock: (Millis, Unix),

    pub(crate) kept: BTreeMap<TaskId, Kept>,
    pub(crate) vows: BTreeMap<TaskId, (Ballot, Unix)>,
    pub(crate) damaged: BTreeSet<TaskId>,
    /// Open tasks that this node owned before it restarted, and that nobody is
    /// known to own since: they have their place in its queue.
    pub(crate) reclaiming: BTreeSet<TaskId>,
    /// How often all peers were told of those, and when last.
    pub(crate) confessions: (u32, Millis),
    pub(crate) tombstones: Tombstones,
    pub(crate) claims: BTreeMap<TaskId, Claim>,
    /// Records without an owner that acts, and since when.
    pub(crate) orphans: BTreeMap<TaskId, Millis>,
    /// Owned records that some keeper has not acknowledged.
    pub(crate) unsettled: BTreeSet<TaskId>,
    /// Owned records whose newest version may be offered a little later.
    pub(crate) lazy: BTreeSet<TaskId>,
    pub(crate) queue: Queue,
    pub(crate) permits: Permits,
    /// Wall-clock appointments of owned tasks: a delay or a deadline is over.
    pub(crate) due: BTreeSet<(Unix, TaskId)>,
    /// Owned tasks that are leased.
    pub(crate) leased: BTreeSet<TaskId>,
    /// Owned closed tasks, oldest first.
    pub(crate) closed: BTreeSet<(Unix, TaskId)>,
    /// Owned tasks that wait for others: by what they wait for.
    pub(crate) dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// And what each of them still waits for.
    pub(crate) missing: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// What came to be waited for in this input, and was not asked for yet: an
    /// answer may be at hand, and must not meet a half-entered task.
    pub(crate) awaited: Vec<TaskId>,
    pub(crate) workflows: Workflows,
    pub(crate) schedules: Schedules,
    pub(crate) reuse: Reuse,
    pub(crate) counts: BTreeMap<Status, u64>,
    pub(crate) recent: Recent,

    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) executions: BTreeMap<TaskId, Execution>,
    pub(crate) over: Over,
    pub(crate) controls: Controls,
    pub(crate) requests: Requests,
    pub(crate) register: Register,
    pub(crate) words: Words,
    /// Blobs on this node's disk, and how many records refer to each.
    pub(crate) blobs: BTreeMap<BlobHash, u32>,
    pub(crate) fetching: BTreeMap<BlobHash, Vec<Fetching>>,

    pub(crate) hello_version: u32,
    pub(crate) draining: bool,
    pub(crate) load: NodeLoad,
    pub(crate) metrics_at: Option<Arc<str>>,
    /// Templates that it has.
    pub(crate) shelf: Vec<Shelved>,
    pub(crate) survey: Survey,
    pub(crate) announced_at: Millis,
    pub(crate) announcers: BTreeMap<NodeId, Millis>,
    next_beat: Millis,
    next_tick: Millis,
    next_flush: Millis,
    pub(crate) sweep_from: Option<TaskId>,
    /// Messages to itself, handled within the same input.
    local: VecDeque<Message>,
    pub(crate) out: Vec<Effect>,
}

/// What waits for a blob.
pub(crate) enum Fetching {
    Offer {
        from: NodeId,
        record: Box<Record>,
        spec: Option<Arc<Spec>>,
    },
    Finished {
        from: NodeId,
        finished: Box<Finished>,
    },
    /// For a record that this node owns, or is about to.
    Own(TaskId),
    /// For an owned task that is to end with the result of another.
    Result(TaskId),
    /// For a result that is to be kept.
    Left {
        from: NodeId,
        entry: Box<Cached>,
    },
    /// The same, of one that another node keeps.
    Copy {
        from: NodeId,
        entry: Box<Cached>,
    },
}

/// How long a version that nobody waits for may stay unoffered: most tasks
/// end sooner, and one offer then tells both.
const LAZY: Millis = Millis(100);

fn order_of(config: &Config) -> Order {
    // So long a span that no wait makes up for a higher priority.
    let unending = Millis(1_000_000_000);
    let ageing = if config.planted == Some(Planted::NeverAge) { unending } else { config.ageing };
    Order::new(config.scheduling, ageing, config.deadline_weight)
}

impl Node {
    /// A node with what its disk held. `seed` decides jitter and new ids.
    #[must_use]
    pub fn new(id: NodeId, config: Config, seed: u64, disk: Disk) -> Node {
        let mut node = Node {
            id,
            chance: Prng::new(seed),
            boot: disk.boot + 1,
            now: Millis(0),
            clock: (Millis(0), Unix(0)),
            kept: BTreeMap::new(),
            vows: disk.pledges.into_iter().map(|(task, ballot, at)| (task, (ballot, at))).collect(),
            damaged: disk.damaged.into_iter().collect(),
            reclaiming: BTreeSet::new(),
            confessions: (0, Millis(0)),
            tombstones: Tombstones::new(disk.tombstones),
            claims: BTreeMap::new(),
            orphans: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            lazy: BTreeSet::new(),
            queue: Queue::new(order_of(&config), &config.fairness_weights, config.limits.clone()),
            permits: Permits::new(config.limits.clone()),
            due: BTreeSet::new(),
            leased: BTreeSet::new(),
            closed: BTreeSet::new(),
            dependents: BTreeMap::new(),
            missing: BTreeMap::new(),
            awaited: Vec::new(),
            workflows: Workflows::default(),
            schedules: Schedules::default(),
            reuse: Reuse::new(config.cache),
            counts: BTreeMap::new(),
            recent: Recent::default(),
            members: disk.peers.into_iter().map(|(peer, book)| (peer, Member::remembered(book))).collect(),
            workers: disk.workers.into_iter().map(|(spec, at)| (spec.worker.clone(), Worker::new(spec, at))).collect(),
            executions: BTreeMap::new(),
            over: Over::default(),
            controls: disk.controls,
            requests: Requests::numbered_from((disk.boot + 1) << 32),
            register: Register::new(disk.tokens),
            words: Words::new(disk.forgotten),
            blobs: disk.blobs.into_iter().map(|hash| (hash, 0)).collect(),
            fetching: BTreeMap::new(),
            hello_version: 0,
            draining: false,
            load: NodeLoad::default(),
            metrics_at: None,
            shelf: Vec::new(),
            survey: Survey::default(),
            announced_at: Millis(0),
            announcers: BTreeMap::new(),
            next_beat: Millis(0),
            next_tick: Millis(0),
            next_flush: Millis::NEVER,
            sweep_from: None,
            local: VecDeque::new(),
            out: Vec::new(),
            config,
        };
        node.restore(disk.slots);
        node.restore_results(disk.cached);
        node
    }

    /// This node's name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its starts so far, this one included.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Feeds one input at time `now` and appends what is to be done. Effects
    /// are in order; the shell makes the writes durable before the rest.
    pub fn handle(&mut self, now: Millis, input: Input, effects: &mut Vec<Effect>) {
        debug_assert!(now >= self.now, "time goes on: {now} after {}", self.now);
        self.start(now, effects);
        self.dispatch(input);
        self.settle(effects);
    }

    fn start(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let first = self.now == Millis(0) && self.next_tick == Millis(0) && self.hello_version == 0;
        // What was noticed while the disk was read comes first.
        effects.append(&mut self.out);
        std::mem::swap(&mut self.out, effects);
        self.now = now;
        if first {
            self.hello_version = 1;
            self.persist(Entry::Boot(self.boot));
            self.drop_unused_blobs();
        }
    }

    fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.obey_itself();
        if self.outcast().is_some() {
            return std::mem::swap(&mut self.out, effects);
        }
        self.ask_for_awaited();
        if self.workflows_stirred() {
            self.run_workflows();
        }
        self.run_schedules();
        if self.queue.stirred() {
            self.schedule();
            self.obey_itself();
            // What it has just lent itself.
            if self.permits.got_more() {
                self.schedule();
                self.obey_itself();
            }
        }
        std::mem::swap(&mut self.out, effects);
    }

    pub(crate) fn ask_for_awaited(&mut self) {
        while let Some(dependency) = self.awaited.pop() {
            self.ask_for_dependency(&dependency);
            self.obey_itself();
        }
    }

    pub(crate) fn obey_itself(&mut self) {
        while let Some(message) = self.local.pop_front() {
            self.on_message(self.id, message);
        }
    }

    fn dispatch(&mut self, input: Input) {
        match input {
            Input::Tick if self.outcast().is_some() => self.tick_as_outcast(),
            // Nobody asks it for anything any more, nor takes what it says.
            Input::Received { .. } if self.outcast().is_some() => {}
            Input::Tick => self.on_tick(),
            Input::Clock(wall) => self.clock = (self.now, wall),
            Input::Request { id, caller, request } => self.on_request(Origin::Face { id, caller }, request),
            Input::Abandoned(id) => self.on_abandoned(id),
            Input::Received { from, message } => self.on_received(from, message),
            Input::Execution { task, fence, event } => self.on_execution(&task, fence, event),
            Input::Peer(event) => self.on_peer(event),
            Input::Fetched { hash, here } => self.on_fetched(hash, here),
            Input::BlobRead { hash, content } => self.on_blob_read(hash, content.as_ref()),
            Input::Load(load) => self.load = load,
            Input::Executors(names) => self.config.executors = names,
            Input::MetricsAt(address) => self.on_metrics_at(address),
            Input::Templates(own) => self.on_templates(own),
            Input::Drain => self.on_drain(),
            Input::HandBack => self.on_hand_back(),
        }
    }

    fn on_received(&mut self, from: NodeId, message: Message) {
        if from == self.id {
            return;
        }
        if self.is_forgotten(from) {
            return self.on_forgotten_speaks(from);
        }
        self.hear(from);
        self.on_message(from, message);
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Hello(hello) => self.on_hello(from, *hello),
            Message::Beat(beat) => self.on_beat(from, beat),
            Message::WhoAreYou => self.introduce(from),
            Message::Announce { ready } => self.on_announce(from, &ready),
            Message::AskPermits(asks) => self.on_ask_permits(from, asks),
            Message::Permits(permits) => self.on_permits(from, &permits),
            Message::Room { free } => self.on_room(from, &free),
            Message::Offer { record, spec } => self.on_offer(from, record, spec),
            Message::Ack { task, stamp } => self.on_ack(from, &task, stamp),
            Message::Want { task, stamp } => self.on_want(from, &task, stamp),
            Message::Refuse { task, pledge } => self.on_refuse(&task, pledge),
            Message::Taken { task, refused, record, spec } => self.on_taken(from, &task, refused, &record, &spec),
            Message::Lost { task } => self.on_lost(from, &task),
            Message::Gone { task, birth } => self.on_gone(from, &task, birth),
            Message::Forget { task, stamp } => self.on_forget(from, &task, stamp),
            Message::Claim { task, birth, ballot, stamp, electorate } => {
                self.on_claim(from, &task, Bid { birth, ballot, stamp, electorate });
            }
            Message::Pledge { task, ballot, kept } => self.on_pledge(from, &task, ballot, kept),
            Message::Grant(grant) => self.on_grant(from, *grant),
            Message::Decline { task, fence, why, free } => self.on_decline(from, &task, fence, why, &free),
            Message::Progress { task, fence, running, percent, message, log_tail } => {
                self.on_progress(from, &task, fence, running, crate::ownership::Said { percent, message, log_tail });
            }
            Message::Finished(finished) => self.on_finished(from, finished),
            Message::Settled { task, fence } => self.on_settled(&task, fence),
            Message::Stop { task, fence, force } => self.on_stop(&task, fence, force),
            Message::Request { id, by, request } => self.on_request_of_node(from, id, &by, *request),
            Message::Response { id, reply } => self.on_response(from, id, *reply),
            Message::Left(entry) => self.on_left(from, entry),
            Message::Landed { key, task } => self.on_landed(&key, &task),
            Message::Copy(entry) => self.on_copy(from, entry),
            Message::Controls(controls) => self.on_controls(from, controls),
            Message::Tokens { digest, entries, answer } => self.on_tokens(from, digest, entries, answer),
        }
    }

    fn on_tick(&mut self) {
        if self.now >= self.next_beat {
            self.next_beat = self.now + self.config.beat;
            self.beat();
        }
        if self.now >= self.next_flush {
            self.next_flush = Millis::NEVER;
            self.offer_lazy();
        }
        self.on_due();
        if self.now < self.next_tick {
            return;
        }
        self.next_tick = self.now + self.config.retransmit;
        self.watch_members();
        self.resend_offers();
        self.watch_leases();
        self.resend_results();
        self.hand_back_stuck();
        self.sweep();
        self.adopt();
        self.confess_again();
        self.forget_old();
        self.tend_register();
        self.tend_results();
        self.on_requests_due();
        self.stir_waiting_workflows();
        self.stir_waiting_schedules();
        self.tend_permits();
        self.queue.stir();
    }

    /// All that is left to do is to answer those who still ask.
    fn tick_as_outcast(&mut self) {
        self.next_beat = self.now + self.config.beat;
        self.next_flush = Millis::NEVER;
        if self.now >= self.next_tick {
            self.next_tick = self.now + self.config.retransmit;
            self.watch_members();
            self.on_requests_due();
        }
    }

    /// When the node wants its next `Tick` at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Millis {
        let due = self.due.first().map_or(Millis::NEVER, |(at, _)| self.millis_at(*at));
        self.next_beat.min(self.next_tick).min(self.next_flush).min(due)
    }

    /// The wall clock now, as far as this node was told.
    #[must_use]
    pub fn wall(&self) -> Unix {
        self.clock.1 + self.now.since(self.clock.0)
    }

    fn millis_at(&self, wall: Unix) -> Millis {
        self.clock.0 + wall.since(self.clock.1)
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        if to == self.id {
            self.local.push_back(message);
        } else {
            self.out.push(Effect::Send { to, message });
        }
    }

    pub(crate) fn persist(&mut self, entry: Entry) {
        self.out.push(Effect::Persist(entry));
    }

    pub(crate) fn erase(&mut self, key: Key) {
        self.out.push(Effect::Forget(key));
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.out.push(Effect::Notice(notice));
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Result<Reply, Refusal>) {
        self.out.push(Effect::Reply { id, reply });
    }

    pub(crate) fn flush_soon(&mut self) {
        self.next_flush = self.next_flush.min(self.now + LAZY);
    }

    /// Something was left for the next input.
    pub(crate) fn tick_soon(&mut self) {
        self.next_flush = self.next_flush.min(self.now + Millis(1));
    }

    pub(crate) fn beat_now(&mut self) {
        self.next_beat = self.now;
    }

    fn on_request_of_node(&mut self, from: NodeId, id: u64, by: &By, request: Request) {
        match self.caller_of(by) {
            Ok(caller) => self.on_request(Origin::Node { from, id, caller }, request),
            Err(refusal) => self.send(from, Message::Response { id, reply: Box::new(Err(refusal)) }),
        }
    }

    fn on_request(&mut self, origin: Origin, request: Request) {
        let admitted = self.permit(origin.caller(), &request).and_then(|()| self.admit(&origin, &request));
        if let Err(refusal) = admitted {
            self.answer(origin, Err(refusal));
            return;
        }
        match request {
            Request::Command(command) => self.on_command(origin, command),
            Request::Query(query) => self.on_query(origin, query),
        }
    }

    fn on_command(&mut self, origin: Origin, command: Command) {
        match command {
            Command::Submit(submission) => self.on_submit(origin, submission),
            Command::Cancel { ref task, .. }
            | Command::CancelWorkflow { ref task, .. }
            | Command::Reprioritise { ref task, .. }
            | Command::Retry { ref task, .. }
            | Command::Approve { ref task, .. } => {
                let task = task.clone();
                self.on_task_command(origin, &task, command);
            }
            Command::Pause { reason } => self.on_pause(origin, reason),
            Command::Resume { reorder } => self.on_resume(origin, reorder),
            Command::Clear { which, scope } => self.on_clear(origin, which, scope),
            Command::Register(spec) => self.on_register(origin, spec),
            Command::Unregister { worker, graceful, timeout } => self.on_unregister(origin, worker, graceful, timeout),
            Command::Connect { .. } | Command::Disconnect { .. } | Command::Bootstrap { .. } => {
                self.on_net_command(origin, command);
            }
            Command::Issue(entry) => self.on_issue(origin, *entry),
            Command::Revoke(id) => self.on_revoke(origin, id),
            Command::LookUp { key, task, after, joins } => self.on_look_up(origin, key, task, after, joins),
            Command::KeepValue { name, content, ttl } => self.on_keep_value(origin, name, content, ttl),
            Command::Invalidate { which, scope } => self.on_invalidate(origin, which, scope),
            Command::ForgetNode { word, presence, scope } => self.on_forget_node(origin, word, presence, scope),
        }
    }

    fn on_query(&mut self, origin: Origin, query: Query) {
        match query {
            Query::Task { task, detail, wait } => self.on_query_task(origin, &task, detail, wait),
            Query::Tasks(filter) => self.on_query_tasks(origin, *filter),
            Query::Stats { scope, workers, historical } => self.on_query_stats(origin, scope, workers, historical),
            Query::Worker { worker, tasks } => self.on_query_worker(origin, &worker, tasks),
            Query::Workers => {
                let workers = self.worker_views();
                self.answer(origin, Ok(Reply::Workers(workers)));
            }
            Query::Discover { capabilities, max, timeout } => self.on_discover(origin, capabilities, max, timeout),
            Query::Peers(filter) => {
                let (peers, total) = self.peer_page(&filter);
                self.answer(origin, Ok(Reply::Peers { peers, total }));
            }
            Query::Peer { peer, history_hours } => self.on_query_peer(origin, peer, history_hours),
            Query::Tokens => self.on_query_tokens(origin),
            Query::Forgotten => self.on_query_forgotten(origin),
            Query::Hears(node) => self.on_query_hears(origin, node),
            Query::Template { id, range } => self.on_query_template(origin, &id, &range),
            Query::Value { name } => self.on_query_value(origin, name),
            Query::Cache { scope } => self.on_query_cache(origin, scope),
            Query::Foresee(definition) => {
                let foreseen = self.foresee(&definition);
                self.answer(origin, foreseen);
            }
        }
    }

    /// The records that this node keeps.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.kept.values().map(|k| &k.slot)
    }

    /// The record of `task`, if this node keeps it.
    #[must_use]
    pub fn slot(&self, task: &TaskId) -> Option<&Slot> {
        self.kept.get(task).map(|k| &k.slot)
    }

    /// Whether this node acts as the owner of `task` now.
    #[must_use]
    pub fn is_owner(&self, task: &TaskId) -> bool {
        self.kept.get(task).is_some_and(|k| self.owns(k))
    }

    /// Nodes that this one has heard within the lease.
    pub fn live_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.keys().copied().filter(|n| self.live(*n))
    }

    /// Other members that this node knows, live or not.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// It has workers, perhaps from before a restart.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        !self.workers.is_empty()
    }

    /// It takes no new work.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// The queue's controls as this node knows them.
    #[must_use]
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Runs that this node holds: waiting for a slot, running, or ended and
    /// not settled.
    pub fn executions(&self) -> impl Iterator<Item = (&TaskId, &Execution)> {
        self.executions.iter()
    }

    /// Open tasks that this node owns, items that have not begun included.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        let (blocked, ready) = self.waiting_items();
        let open = self.counts.iter().filter(|(status, _)| !status.terminal()).map(|(_, n)| *n as usize);
        open.sum::<usize>() + self.workflows.open + (blocked + ready) as usize
    }
}
