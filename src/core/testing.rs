//! Specs and configurations that tests start from.

use crate::task::{Durability, Requirements, RetryPolicy, Spec};
use crate::time::Unix;

/// An `echo` task of no payload.
#[must_use]
pub fn spec() -> Spec {
    Spec {
        task_type: "echo".into(),
        payload: (&b"{}"[..]).into(),
        tags: Vec::new(),
        metadata: None,
        timeout: None,
        retry: RetryPolicy::default(),
        requirements: Requirements::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: None,
        durability: Durability::default(),
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(0),
        submitter: None,
        trace: None,
        cache: None,
    }
}

/// A hello of a node with nothing, of this version.
#[must_use]
pub fn hello() -> Hello {
    Hello {
        boot: 1,
        version: 1,
        draining: false,
        workers: Vec::new(),
        free: Vec::new(),
        members: Vec::new(),
        controls: Controls::default(),
        tokens: None,
        metrics: None,
        templates: Vec::new(),
        features: Feature::ALL.map(|feature| feature.name().into()).into(),
        forgotten: Vec::new(),
    }
}

use crate::command::{Command, Detail, Query, Request, Submission, WorkerSpec};
use crate::effect::{Disk, Effect, Input};
use crate::execution::{Event, Verdict};
use crate::features::Feature;
use crate::ids::{NodeId, RequestId, TaskId, WorkerId};
use crate::message::{Controls, Hello};
use crate::task::{Priority, Report};
use crate::time::Millis;
use crate::token::Caller;
use crate::view::Reply;
use crate::{Config, Node, Refusal};
use std::collections::BTreeMap;

/// A node alone in its mesh with one worker `w` of two slots for `echo`.
#[must_use]
pub fn solo(config: Config) -> Solo {
    solo_with(config, Disk::default())
}

/// The same, with what its disk held.
#[must_use]
pub fn solo_with(config: Config, disk: Disk) -> Solo {
    let config = Config { executors: vec!["echo".into()], ..config };
    let mut solo = Solo { node: Node::new(NodeId::test(1), config, 7, disk), now: Millis(1), next: 0 };
    solo.feed(Input::Clock(Unix(1_700_000_000_000)));
    let spec = WorkerSpec {
        worker: WorkerId::new("w").expect("a valid id"),
        capabilities: vec!["echo".into()],
        labels: BTreeMap::new(),
        slots: 2,
        resources: None,
        metadata: None,
    };
    solo.ask(Request::Command(Command::Register(spec))).1.expect("a worker").expect("registered");
    solo
}

/// A node alone, and its time.
pub struct Solo {
    /// The node.
    pub node: Node,
    now: Millis,
    next: u64,
}

type Answered = (Vec<Effect>, Option<Result<Reply, Refusal>>);

impl Solo {
    /// One input, one millisecond later.
    pub fn feed(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = self.now + Millis(1);
        self.node.handle(self.now, input, &mut effects);
        self.node.check();
        effects
    }

    /// Lets time pass, with all its ticks.
    pub fn wait(&mut self, span: Millis) -> Vec<Effect> {
        let until = self.now + span;
        let mut effects = Vec::new();
        while self.node.next_wakeup() <= until {
            self.now = self.now.max(self.node.next_wakeup());
            self.node.handle(self.now, Input::Tick, &mut effects);
        }
        self.now = until;
        effects
    }

    /// A request, and its answer if it came at once.
    pub fn ask(&mut self, request: Request) -> Answered {
        self.ask_as(Caller::Node, request)
    }

    /// The same, on behalf of `caller`.
    pub fn ask_as(&mut self, caller: Caller, request: Request) -> Answered {
        self.next += 1;
        let id = RequestId(self.next);
        let effects = self.feed(Input::Request { id, caller, request });
        let reply = effects.iter().find_map(|e| match e {
            Effect::Reply { id: answered, reply } if *answered == id => Some(reply.clone()),
            _ => None,
        });
        (effects, reply)
    }

    /// Submits an `echo` task.
    pub fn submit(&mut self, name: &str, spec: Spec) -> Answered {
        let task = Some(TaskId::new(name).expect("a valid id"));
        let submission = Submission { task, spec, priority: Priority::NORMAL, items: Vec::new() };
        self.ask(Request::Command(Command::Submit(Box::new(submission))))
    }

    /// The run that `effects` order, ended with `verdict`.
    pub fn end(&mut self, effects: &[Effect], verdict: Verdict) -> Vec<Effect> {
        let Some((task, fence)) = effects.iter().find_map(|e| match e {
            Effect::Run { task, fence, .. } => Some((task.clone(), *fence)),
            _ => None,
        }) else {
            panic!("nothing was to be run: {effects:?}");
        };
        self.feed(Input::Execution { task, fence, event: Event::Ended { verdict, report: Report::default() } })
    }

    /// The view of a task.
    pub fn view(&mut self, name: &str) -> crate::view::TaskView {
        let detail = Detail { report: true, live: true, explain: true, steps: true, items: None, spec: false };
        let task = TaskId::new(name).expect("a valid id");
        let query = Query::Task { task, detail, wait: Millis(0) };
        match self.ask(Request::Query(query)).1 {
            Some(Ok(Reply::Task(view))) => *view,
            other => panic!("no view of {name}: {other:?}"),
        }
    }
}
