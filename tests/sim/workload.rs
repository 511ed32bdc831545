//! What clients do: submit, repeat, ask, cancel, retry, change priorities,
//! pause, resume and clear, each at whatever node they reach.

use crate::agenda::{Event, Time};
use crate::executor::{HANGING_TIMEOUT, Program};
use crate::oracle::{Asked, MustKnow};
use crate::world::{EPOCH, World, index};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::cache::{Caching, Mode, Which};
use taskmesh_core::command::{ClearScope, Detail, Scope, Submission, TaskFilter, WorkerSpec};
use taskmesh_core::effect::NetResult;
use taskmesh_core::placement::{Alternative, Condition, Placement};
use taskmesh_core::task::{Durability, Priority, Requirements, Resources, RetryPolicy};
use taskmesh_core::token::Caller;
use taskmesh_core::{
    Command, Input, Millis, NetCommand, NodeId, PeerEvent, Query, Refusal, Request, RequestId, Spec, TaskId, Unix,
    WorkerId,
};

/// Something that a client does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Submits something new, somewhere.
    Submit,
    /// Submits a workflow, somewhere.
    SubmitWorkflow,
    /// Submits an array, somewhere.
    SubmitArray,
    /// Answers a step that waits for a person, somewhere.
    Approve,
    /// Submits a schedule, somewhere.
    Recur,
    /// Asks something about what was submitted before, somewhere.
    Meddle,
    /// Asks this, somewhere.
    Ask(Box<Request>),
    /// Asks this node this, as long as it lives.
    AskAt { node: usize, life: u32, request: Box<Request>, asked: Asked },
}

impl World {
    /// Plans the work of `tasks` submissions, a workflow for every fifteen of
    /// them, and half as many other requests, from `from` to `until`.
    pub(crate) fn plan_work(&mut self, tasks: u64, from: Time, until: Time) {
        for _ in 0..tasks {
            let at = from + self.prng.below(until - from);
            self.agenda.at(at, Event::Act(Act::Submit));
        }
        let flows = if self.faults.ravages { 0 } else { tasks };
        let others = [(Act::Meddle, tasks / 2), (Act::SubmitWorkflow, flows / 15), (Act::Approve, flows / 5)];
        for (act, times) in others {
            for _ in 0..times {
                let at = from + self.prng.below(until - from);
                self.agenda.at(at, Event::Act(act.clone()));
            }
        }
    }

    /// A client does something.
    pub(crate) fn act(&mut self, act: Act) {
        match act {
            Act::Submit => self.submit_some(),
            Act::SubmitWorkflow => self.submit_some_workflow(),
            Act::SubmitArray => self.submit_some_array(),
            Act::Approve => self.approve_some(),
            Act::Recur => self.submit_schedule(),
            Act::Meddle => self.meddle(),
            Act::Ask(request) => {
                if let Some(n) = self.any_up() {
                    self.ask(n, *request, Asked::Other);
                }
            }
            Act::AskAt { node, life, request, asked } => {
                if self.hosts[node].life == life {
                    self.ask(node, *request, asked);
                }
            }
        }
    }

    /// Asks a node; the answer goes to the oracle.
    pub(crate) fn ask(&mut self, n: usize, request: Request, asked: Asked) {
        if self.hosts[n].node.is_none() {
            return;
        }
        let id = RequestId(self.number());
        self.oracle.asked(id, n, self.now, asked);
        self.receive(n, Input::Request { id, caller: Caller::Node, request });
    }

    /// A new node makes its workers.
    pub(crate) fn equip(&mut self, n: usize) {
        let slots = 1 + self.prng.below(4) as u32;
        let all: Vec<Arc<str>> = ["echo", "sleep"].into_iter().map(Arc::from).collect();
        let capabilities = if n > 2 && self.prng.chance(200) { all[..1].to_vec() } else { all };
        let spec = WorkerSpec {
            worker: WorkerId::new(&format!("w{n}")).expect("a valid name"),
            capabilities,
            labels: BTreeMap::from([("zone".into(), ["a", "b"][n % 2].into())]),
            slots,
            resources: Some(Resources { cpu_milli: 2_000, gpu_milli: 1_000 * (n as u64 % 2), ..Resources::default() }),
            metadata: None,
        };
        self.ask(n, Request::Command(Command::Register(spec)), Asked::Other);
    }

    fn submit_some(&mut self) {
        let Some(n) = self.any_up() else { return };
        let name = self.number();
        let spec = self.any_spec();
        let priority = Priority::new((1 + self.prng.below(16)) as f64 / 4.0).expect("above 0");
        let id = TaskId::new(&format!("t{name}")).expect("a valid name");
        let items = if self.prng.chance(60) { 2 + self.prng.below(4) as usize } else { 0 };
        let payload = spec.payload.clone();
        let submission = Submission { task: Some(id), spec, priority, items: vec![payload; items] };
        if self.faults.bursts && self.prng.chance(30) {
            return self.submit_many(n, submission);
        }
        match self.prng.below(20) {
            0 | 1 => self.submit_twice(n, submission, name),
            2 => self.submit_rivals(n, submission, name),
            _ => self.submit(n, submission, name),
        }
    }

    /// The like of it, many times over, with different priorities.
    fn submit_many(&mut self, n: usize, like: Submission) {
        for _ in 0..10 + self.prng.below(40) {
            let work = self.number();
            let task = TaskId::new(&format!("t{work}")).expect("a valid name");
            let priority = Priority::new((1 + self.prng.below(64)) as f64 / 4.0).expect("above 0");
            self.submit(n, Submission { task: Some(task), priority, ..like.clone() }, work);
        }
    }

    /// The same work again, elsewhere, at once or a little later.
    pub(crate) fn submit_twice(&mut self, n: usize, submission: Submission, work: u64) {
        let Some(other) = self.any_up() else { return };
        let after = if self.prng.chance(500) { 0 } else { self.prng.below(8_000) };
        let (request, asked) = order(submission.clone(), work);
        let (node, life) = (other, self.hosts[other].life);
        let again = Act::AskAt { node, life, request: Box::new(request), asked };
        self.agenda.at(self.now + after, Event::Act(again));
        self.submit(n, submission, work);
    }

    /// Other work under the same name, elsewhere, at once.
    fn submit_rivals(&mut self, n: usize, submission: Submission, work: u64) {
        let Some(other) = self.any_up() else { return };
        let mut rival = submission.clone();
        rival.spec.payload = Program::Good.payload(7, false);
        rival.items = Vec::new();
        let rival_work = self.number();
        self.submit(n, submission, work);
        self.submit(other, rival, rival_work);
    }

    /// Submits at `n`; the same `work` is the same submission.
    pub(crate) fn submit(&mut self, n: usize, submission: Submission, work: u64) {
        self.tally.submitted += 1;
        let (request, asked) = order(submission, work);
        self.ask(n, request, asked);
    }

    fn any_spec(&mut self) -> Spec {
        let program = match self.prng.below(20) {
            0 => Program::Bad,
            1 => Program::Hopeless,
            2..4 => Program::Flaky,
            4 => Program::Hanging,
            _ => Program::Good,
        };
        let cost = 20 + self.prng.below(200) * self.prng.below(25);
        let blob = self.faults.blobs && self.prng.chance(400);
        let mut spec = plain_spec(program, cost, blob);
        if program == Program::Hanging {
            spec.timeout = Some(HANGING_TIMEOUT);
        } else if self.prng.chance(100) {
            spec.timeout = Some(Millis(1_000 + self.prng.below(4_000)));
        }
        spec.retry.max_retries = self.prng.below(4) as u32;
        if self.prng.chance(300) {
            spec.task_type = "sleep".into();
        }
        let soon = |world: &mut World, span| Unix(EPOCH + world.now + world.prng.below(span));
        if self.prng.chance(50) {
            spec.not_before = Some(soon(self, 8_000));
        }
        if self.prng.chance(50) {
            spec.deadline = Some(soon(self, 40_000));
        }
        // What is forgotten can't be told from what never was: no task should
        // wait for it.
        let waits = !self.faults.short_retention && !self.faults.clears && !self.faults.ravages;
        if self.prng.chance(150) && waits {
            for _ in 0..1 + self.prng.below(3) {
                spec.depends_on.extend(self.any_accepted().filter(|t| !spec.depends_on.contains(t)));
            }
        }
        spec.exclusive = self.prng.chance(150);
        if self.prng.chance(50) {
            spec.durability = Durability::Local;
        }
        if self.prng.chance(100) {
            spec.fairness_key = Some(format!("user{}", self.prng.below(3)).into());
        }
        if self.prng.chance(200) {
            spec.requirements = self.any_requirements();
        }
        if self.faults.caches && self.prng.chance(300) { self.any_known(spec, blob) } else { spec }
    }

    /// One of a few works that many tasks do, which may take each other's results.
    fn any_known(&mut self, spec: Spec, blob: bool) -> Spec {
        let program = [Program::Good, Program::Good, Program::Flaky][self.prng.below(3) as usize];
        let mode = [Mode::Read, Mode::Write, Mode::ReadWrite, Mode::ReadWrite][self.prng.below(4) as usize];
        let cost = 300 * (1 + self.prng.below(4));
        Spec {
            task_type: "echo".into(),
            payload: program.payload(cost, blob),
            timeout: None,
            requirements: Requirements::default(),
            cache: Some(Caching { mode, scope: None }),
            ..spec
        }
    }

    /// Such that half of the nodes at least can meet them.
    fn any_requirements(&mut self) -> Requirements {
        let cpus = |n: u64| Resources { cpu_milli: n, ..Resources::default() };
        let mut need = Requirements { resources: cpus(500 * self.prng.below(5)), ..Requirements::default() };
        // Else those that meet them may be destroyed.
        if self.prng.chance(300) && !self.faults.ravages {
            let selectors = ["zone=a", "zone in (a,b)", "zone!=a", "zone,!spot", "spot!=yes"];
            let selector = selectors[self.prng.below(5) as usize];
            need.selector = Condition::read_all(selector).expect("a selector");
        }
        if self.prng.chance(200) {
            need.resources = Resources::default();
            let gpu = Resources { gpu_milli: 1_000, ..Resources::default() };
            need.any_of =
                [gpu, cpus(1_500)].map(|resources| Alternative { resources, ..Alternative::default() }).to_vec();
        }
        need.placement = [Placement::Balance, Placement::Spread, Placement::Pack][self.prng.below(3) as usize];
        if self.prng.chance(200) {
            need.affinity_key = Some(format!("model{}", self.prng.below(4)).into());
        }
        need
    }

    fn any_task(&mut self) -> Option<TaskId> {
        let known = &self.oracle.promises;
        if known.is_empty() {
            return None;
        }
        let skip = self.prng.below(known.len() as u64) as usize;
        known.keys().nth(skip).cloned()
    }

    pub(crate) fn any_accepted(&mut self) -> Option<TaskId> {
        self.any_task().filter(|task| self.oracle.promises[task].accepted.is_some())
    }

    fn meddle(&mut self) {
        let (Some(n), Some(task)) = (self.any_up(), self.any_task()) else { return };
        let waits = [0, 0, 1_000, 10_000][self.prng.below(4) as usize];
        let request = match self.prng.below(20) {
            0..9 => {
                let detail = Detail {
                    report: self.prng.chance(700),
                    live: self.prng.chance(200),
                    explain: self.prng.chance(300),
                    ..Detail::default()
                };
                let query = Query::Task { task: task.clone(), detail, wait: Millis(waits) };
                return self.ask(n, Request::Query(query), Asked::View { task, must_know: MustKnow::No });
            }
            9..12 => {
                let force = self.prng.chance(300);
                Request::Command(Command::Cancel { task, reason: None, force })
            }
            12..14 => {
                let priority = Priority::new((1 + self.prng.below(40)) as f64 / 4.0).expect("above 0");
                Request::Command(Command::Reprioritise { task, priority, requeue: self.prng.chance(700) })
            }
            14..16 if !crate::schedules::is_schedule(&task) => {
                let command = Command::Retry { task, max_retries: None, timeout: None };
                return self.ask(n, Request::Command(command), Asked::Retry);
            }
            16 => Request::Query(Query::Tasks(Box::new(TaskFilter { limit: 50, ..TaskFilter::default() }))),
            17 if self.faults.caches => {
                let which = Which::Type("echo".into());
                Request::Command(Command::Invalidate { which, scope: Scope::Mesh })
            }
            17 => Request::Query(Query::Stats { scope: Scope::Mesh, workers: true, historical: false }),
            18 if self.faults.pauses => return self.pause_for_a_while(n),
            19 if self.faults.clears => return self.clear(n),
            _ => Request::Query(Query::Workers),
        };
        self.ask(n, request, Asked::Other);
    }

    fn pause_for_a_while(&mut self, n: usize) {
        self.tally.pauses += 1;
        self.ask(n, Request::Command(Command::Pause { reason: None }), Asked::Other);
        let resume = Request::Command(Command::Resume { reorder: self.prng.chance(500) });
        let at = self.now + 1_000 + self.prng.below(10_000);
        self.agenda.at(at, Event::Act(Act::Ask(Box::new(resume))));
    }

    fn clear(&mut self, n: usize) {
        let scopes = [ClearScope::Queued, ClearScope::Failed, ClearScope::Cancelled, ClearScope::NotRunning];
        let which = scopes[self.prng.below(4) as usize];
        self.tally.clears += 1;
        self.ask(n, Request::Command(Command::Clear { which, scope: Scope::Mesh }), Asked::Other);
    }

    /// Asks one node after the other about everything that ended and is kept.
    pub(crate) fn ask_about_everything(&mut self) {
        let forgets = self.faults.short_retention || self.faults.clears;
        let ended = self.oracle.promises.iter().filter(|(_, p)| p.ended());
        let must: Vec<_> = ended
            .map(|(task, p)| (task.clone(), if forgets || p.local { MustKnow::No } else { MustKnow::Ended }))
            .collect();
        for (task, must_know) in must {
            let Some(n) = self.any_up() else { return };
            let detail = Detail { report: true, ..Detail::default() };
            let query = Query::Task { task: task.clone(), detail, wait: Millis(0) };
            self.ask(n, Request::Query(query), Asked::View { task, must_know });
        }
    }

    /// What a node asks of its network: the simulated one dials or fails.
    pub(crate) fn obey_net(&mut self, n: usize, command: NetCommand) {
        let (id, result) = match command {
            NetCommand::Dial { id, peer, address, .. } => {
                let reachable = index(peer) < self.hosts.len() && self.net.reachable(n, index(peer));
                if reachable {
                    self.connect(n, index(peer));
                    (id, NetResult::Dialled { address, connection: "1".into(), attempts: 1 })
                } else {
                    let problem = "it does not answer".into();
                    (id, NetResult::Failed(Refusal::Unavailable { problem, retry_after: Millis(1_000) }))
                }
            }
            NetCommand::Close { id, peer } => {
                let connected = self.net.connection(n, index(peer)).is_some();
                (id, NetResult::Closed { was_connected: connected })
            }
            NetCommand::Bootstrap { id, .. } => {
                let peers = self.up().filter(|p| *p != n && self.net.reachable(n, *p));
                let connected = peers.map(|p| NodeId::test(p as u64)).collect();
                (id, NetResult::Bootstrapped { connected, used: Vec::new(), failures: Vec::new() })
            }
            NetCommand::Forget { .. } => return,
            NetCommand::Find { id, .. } => (id, NetResult::Found(Vec::new())),
        };
        let life = self.hosts[n].life;
        let input = Input::Peer(PeerEvent::Done { id, result });
        self.agenda.at(self.now + 20, Event::Arrive { node: n, life, input });
    }
}

/// A spec without anything special.
pub(crate) fn plain_spec(program: Program, cost: Time, blob: bool) -> Spec {
    Spec {
        task_type: "echo".into(),
        payload: program.payload(cost, blob),
        tags: Vec::new(),
        metadata: None,
        timeout: None,
        retry: RetryPolicy {
            max_retries: 3,
            initial_delay: Millis(200),
            max_delay: Millis(3_000),
            ..RetryPolicy::default()
        },
        requirements: Default::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: None,
        durability: Durability::Replicated,
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(EPOCH),
        submitter: None,
        trace: None,
        cache: None,
    }
}

fn order(submission: Submission, work: u64) -> (Request, Asked) {
    let id = submission.task.clone().expect("the workload names its tasks");
    let tasks = match submission.items.len() {
        0 => vec![id],
        items => (0..items).map(|i| id.item(i).expect("short names")).collect(),
    };
    let local = submission.spec.durability == Durability::Local;
    (Request::Command(Command::Submit(Box::new(submission))), Asked::Submit { tasks, work, local })
}
