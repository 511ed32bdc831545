//! Requests on their way: what is asked of other nodes, what is gathered from
//! all of them, and what waits for a promise, an end or the network.

use crate::array::UNBORN;
use crate::command::{ClearScope, Command, Detail, Query, Refusal, Request, Scope, TaskFilter};
use crate::forgotten::Forgotten;
use crate::ids::{NodeId, RequestId, TaskId, WorkerId, rendezvous};
use crate::limits;
use crate::message::Message;
use crate::node::Node;
pub(crate) use crate::origin::Origin;
use crate::pages::{add_stats, merge_page, running, waiting, wide};
use crate::task::Priority;
use crate::time::{Millis, Unix};
use crate::view::{Reply, Stats, TaskPage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is under way.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) next: u64,
    pub(crate) asked: BTreeMap<u64, Asked>,
    pub(crate) gathers: BTreeMap<u64, Gather>,
    /// Which gather a request to a node belongs to.
    pub(crate) parts: BTreeMap<u64, u64>,
    pub(crate) promises: BTreeMap<u64, Promise>,
    pub(crate) promised_of: BTreeMap<TaskId, Vec<u64>>,
    pub(crate) waiters: BTreeMap<TaskId, Vec<Waiter>>,
    pub(crate) net: BTreeMap<RequestId, (Wait, Millis, Millis)>,
    pub(crate) control: Option<ControlWait>,
    /// Dependencies that are being asked after.
    pub(crate) dependencies: BTreeSet<TaskId>,
}

/// One request to one node after another, until one answers.
pub(crate) struct Asked {
    pub(crate) origin: Origin,
    pub(crate) request: Request,
    pub(crate) to: NodeId,
    /// Who can be asked next.
    pub(crate) left: Vec<NodeId>,
    /// Who did not answer.
    pub(crate) silent: u32,
    pub(crate) by: Millis,
    /// To be sent to the owner that the answer names.
    pub(crate) then: Option<Command>,
    /// How often the answer was to ask another.
    pub(crate) hops: u32,
}

pub(crate) struct Gather {
    pub(crate) origin: Origin,
    pub(crate) plan: Plan,
    pub(crate) left: BTreeSet<NodeId>,
    pub(crate) expected: u32,
    pub(crate) answered: u32,
    pub(crate) by: Millis,
    pub(crate) page: TaskPage,
    pub(crate) stats: Stats,
    pub(crate) cleared: (u64, u64),
    pub(crate) found: Option<Reply>,
}

/// What is made of gathered answers.
pub(crate) enum Plan {
    Tasks(Box<TaskFilter>),
    Stats,
    Paused(Unix),
    Resumed(Unix, bool),
    Cleared,
    Invalidated,
    Cache,
    Hears(Forgotten),
    Forgot(Forgotten),
    Find { what: &'static str, name: Arc<str>, then: Option<Command> },
}

/// A reply that waits until a majority knows of what it says.
pub(crate) struct Promise {
    pub(crate) origin: Origin,
    pub(crate) left: BTreeMap<TaskId, u32>,
    pub(crate) answer: Answer,
    /// The full number of holders is needed too.
    pub(crate) accept: bool,
    pub(crate) since: Millis,
    pub(crate) by: Millis,
}

/// What is said once it is promised.
pub(crate) enum Answer {
    Ready(Reply),
    Submitted { name: TaskId, items: Option<usize>, replayed: bool },
    Reprioritised { task: TaskId, old: Priority, new: Priority },
    Retried { task: TaskId, retry: TaskId, count: u32 },
}

pub(crate) struct Waiter {
    pub(crate) origin: Origin,
    pub(crate) detail: Detail,
    pub(crate) by: Millis,
}

/// What waits for the network.
pub(crate) enum Wait {
    Net {
        command: Command,
        handed_back: u64,
    },
    Discover {
        capabilities: Vec<Arc<str>>,
        max: u32,
    },
    /// The network is done; these peers are still to say hello.
    Greetings {
        left: BTreeSet<NodeId>,
        reply: Box<Reply>,
    },
}

pub(crate) struct ControlWait {
    pub(crate) origin: Origin,
    pub(crate) version: (u64, NodeId),
    pub(crate) left: BTreeSet<NodeId>,
    pub(crate) answered: usize,
    pub(crate) by: Millis,
    pub(crate) plan: ControlPlan,
}

#[derive(Clone, Copy)]
pub(crate) enum ControlPlan {
    Paused,
    Resumed(bool),
}

/// How long a gathering waits for slow nodes.
const GATHER: Millis = Millis(2_000);
/// How long one node is given before the next is asked the same.
const HOP: Millis = Millis(1_500);
/// How often an asker follows the name of an owner.
const HOPS: u32 = 4;

impl Requests {
    /// Numbers that no earlier start of this node gave: its answers may still
    /// be on their way.
    pub(crate) fn numbered_from(next: u64) -> Requests {
        Requests { next, ..Requests::default() }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len() + self.gathers.len() + self.promises.len() + self.waiters.len() + self.net.len()
    }
}

impl Node {
    /// Bounds what is under way, and refuses what can't be done now.
    pub(crate) fn admit(&self, origin: &Origin, request: &Request) -> Result<(), Refusal> {
        if self.requests.len() >= limits::PENDING_REQUESTS {
            let limit = limits::PENDING_REQUESTS as u64;
            return Err(Refusal::Full { what: "this node's list of requests".into(), limit, retry_after: Millis(500) });
        }
        if matches!(request, Request::Command(_)) {
            self.refuse_as_outcast()?;
        }
        let submits = matches!(request, Request::Command(Command::Submit(_)));
        let unavailable = |problem: &str| Refusal::Unavailable { problem: problem.into(), retry_after: Millis(1_000) };
        if submits && self.draining && !matches!(origin, Origin::Dependency(_)) {
            return Err(unavailable("this node is draining and takes no new work; ask another"));
        }
        if submits && self.config.joins && self.members.is_empty() {
            return Err(unavailable("this node has not met its mesh yet; check the invite and that its nodes run"));
        }
        Ok(())
    }

    /// Sends a request to one node, and its answer back.
    pub(crate) fn forward(&mut self, origin: Origin, to: NodeId, request: Request) {
        self.ask(origin, request, vec![to], None);
    }

    pub(crate) fn ask(&mut self, origin: Origin, request: Request, mut nodes: Vec<NodeId>, then: Option<Command>) {
        if nodes.is_empty() {
            return self.ask_everybody(origin, request, then);
        }
        let to = nodes.remove(0);
        let number = self.requests.number();
        let by = self.now + patience(&request, self.config.request_timeout);
        self.send(to, Message::Request { id: number, by: origin.by(), request: Box::new(request.clone()) });
        self.requests.asked.insert(number, Asked { origin, request, to, left: nodes, silent: 0, by, then, hops: 0 });
    }

    /// Nobody who should know does: ask all who are there.
    pub(crate) fn ask_everybody(&mut self, origin: Origin, request: Request, then: Option<Command>) {
        let (what, name): (_, Arc<str>) = match &request {
            Request::Query(Query::Task { task, .. }) => ("task", task.as_str().into()),
            Request::Query(Query::Worker { worker, .. }) => ("worker", worker.as_str().into()),
            Request::Query(_) | Request::Command(_) => ("node", "that could answer".into()),
        };
        let mut short = request;
        if let Request::Query(Query::Task { wait, .. }) = &mut short {
            *wait = (*wait).min(Millis(0));
        }
        // Its own copy counts like that of another.
        let own = match &short {
            Request::Query(Query::Task { task, detail, .. }) => self.copy_of(&origin, task, *detail),
            Request::Query(_) | Request::Command(_) => None,
        };
        let own = own.and_then(Result::ok).into_iter().collect();
        self.gather(origin, Plan::Find { what, name, then }, short, own);
    }

    pub(crate) fn gather(&mut self, origin: Origin, plan: Plan, request: Request, own: Vec<Reply>) {
        let number = self.requests.number();
        let nodes: BTreeSet<_> = self.live_members().collect();
        // Whether a step was begun can't wait for those who are not there.
        let all = !matches!(origin, Origin::Dependency(_));
        let silent = if all { self.members.len() - nodes.len() } else { 0 };
        let by = origin.by();
        let gather = Gather {
            origin,
            plan,
            expected: u32::try_from(nodes.len() + silent + 1).unwrap_or(u32::MAX),
            left: nodes.clone(),
            answered: 1,
            by: self.now + GATHER,
            page: TaskPage::default(),
            stats: Stats::default(),
            cleared: (0, 0),
            found: None,
        };
        self.requests.gathers.insert(number, gather);
        for reply in own {
            self.add_to_gather(number, reply);
        }
        for node in nodes {
            let part = self.requests.number();
            self.requests.parts.insert(part, number);
            self.send(node, Message::Request { id: part, by: by.clone(), request: Box::new(request.clone()) });
        }
        self.finish_gather_if_done(number);
    }

    pub(crate) fn add_to_gather(&mut self, number: u64, reply: Reply) {
        let Some(gather) = self.requests.gathers.get_mut(&number) else { return };
        match reply {
            Reply::Tasks(page) => {
                gather.page.total += page.total;
                gather.page.tasks.extend(page.tasks);
            }
            Reply::Stats(stats) => add_stats(&mut gather.stats, *stats),
            Reply::Cleared { cleared, remaining, .. } => {
                gather.cleared.0 += cleared;
                gather.cleared.1 += remaining;
            }
            Reply::Invalidated { entries: one, copies: other, .. }
            | Reply::Forgot { shared: one, bereft: other, .. } => {
                gather.cleared.0 += one;
                gather.cleared.1 += other;
            }
            heard @ Reply::Hears(true) => gather.found = Some(heard),
            Reply::Cache(more) => match &mut gather.found {
                Some(Reply::Cache(stats)) => stats.nodes.extend(more.nodes),
                found => *found = Some(Reply::Cache(more)),
            },
            Reply::Task(view) if view.epoch == UNBORN && gather.origin.wants_births() => {}
            found @ (Reply::Task(_) | Reply::Worker(_)) => {
                // Only an owner says that a task has ended.
                let better = match (&gather.found, &found) {
                    (Some(Reply::Task(old)), Reply::Task(new)) => {
                        (new.epoch, new.status.terminal()) > (old.epoch, old.status.terminal())
                    }
                    (Some(_), _) => false,
                    (None, _) => true,
                };
                if better {
                    gather.found = Some(found);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn on_response(&mut self, from: NodeId, id: u64, reply: Result<Reply, Refusal>) {
        if let Some(number) = self.requests.parts.remove(&id) {
            return self.on_part(from, number, reply);
        }
        if self.requests.asked.get(&id).is_none_or(|a| a.to != from) {
            return;
        }
        let Some(asked) = self.requests.asked.remove(&id) else { return };
        if let Ok(Reply::Task(view)) = &reply
            && asked.then.is_none()
            && asked.hops < HOPS
            && view.home != from
            && !view.status.terminal()
            && (self.live(view.home) && view.home != self.id)
        {
            return self.ask_owner(asked, view.home);
        }
        if let (Ok(Reply::Task(view)), None) = (&reply, &asked.then)
            && view.home == self.id
            && let Request::Query(Query::Task { detail, wait, .. }) = asked.request
            && self.owned(&view.task).is_some()
        {
            // It took the task over meanwhile.
            return self.on_query_task(asked.origin, &view.task, detail, wait);
        }
        let reply = if asked.then.is_none() { self.last_word(reply) } else { reply };
        match (reply, asked.then) {
            // What an owner says of a command is its answer; one who does not
            // know what is asked after is no reason to stop asking.
            (Err(Refusal::NotFound { .. }), then) if matches!(asked.request, Request::Query(_)) => {
                self.ask_next(asked.origin, asked.request, asked.left, asked.silent, then)
            }
            // A copy from the past may say that: others know better.
            (Err(Refusal::Unavailable { .. }), then) if matches!(asked.request, Request::Query(Query::Task { .. })) => {
                self.ask_next(asked.origin, asked.request, asked.left, asked.silent, then)
            }
            // That it knows of no birth of an item says no more.
            (Ok(Reply::Task(view)), None) if asked.origin.wants_births() && view.epoch == UNBORN => {
                self.ask_next(asked.origin, asked.request, asked.left, asked.silent, None)
            }
            (Ok(Reply::Task(view)), Some(command)) => self.send_to_owner(asked.origin, view.home, command),
            (reply, _) => self.answer(asked.origin, reply),
        }
    }

    /// Asks the node that another named as the owner.
    pub(crate) fn ask_owner(&mut self, mut asked: Asked, owner: NodeId) {
        let number = self.requests.number();
        asked.hops += 1;
        asked.to = owner;
        asked.by = self.now + patience(&asked.request, self.config.request_timeout);
        let by = asked.origin.by();
        self.send(owner, Message::Request { id: number, by, request: Box::new(asked.request.clone()) });
        self.requests.asked.insert(number, asked);
    }

    pub(crate) fn ask_next(
        &mut self,
        origin: Origin,
        request: Request,
        left: Vec<NodeId>,
        silent: u32,
        then: Option<Command>,
    ) {
        if !left.is_empty() {
            return self.ask(origin, request, left, then);
        }
        match request {
            Request::Query(Query::Task { .. } | Query::Worker { .. }) => self.ask_everybody(origin, request, then),
            Request::Query(_) | Request::Command(_) => {
                let problem = format!("the node that this is for did not answer ({silent} asked)").into();
                self.answer(origin, Err(Refusal::Unavailable { problem, retry_after: self.config.lease }));
            }
        }
    }

    pub(crate) fn send_to_owner(&mut self, origin: Origin, owner: NodeId, command: Command) {
        if owner == self.id {
            return self.on_command_here(origin, command);
        }
        self.forward(origin, owner, Request::Command(command));
    }

    pub(crate) fn on_command_here(&mut self, origin: Origin, command: Command) {
        let task = match &command {
            Command::Cancel { task, .. }
            | Command::CancelWorkflow { task, .. }
            | Command::Reprioritise { task, .. }
            | Command::Retry { task, .. }
            | Command::Approve { task, .. } => Some(task.clone()),
            Command::Submit(submission) => submission.task.clone(),
            _ => None,
        };
        let Some(task) = task else { return };
        let submits = matches!(command, Command::Submit(_));
        if !submits && let Err(refusal) = self.bear_for(&origin, &task) {
            return self.answer(origin, Err(refusal));
        }
        if self.owned(&task).is_some() && !submits {
            return self.obey(origin, &task, command);
        }
        let problem = format!("{task} is between owners; try again").into();
        self.answer(origin, Err(Refusal::Unavailable { problem, retry_after: self.config.lease }));
    }

    pub(crate) fn finish_gather_if_done(&mut self, number: u64) {
        if self.requests.gathers.get(&number).is_some_and(|g| g.left.is_empty()) {
            self.finish_gather(number);
        }
    }

    pub(crate) fn finish_gather(&mut self, number: u64) {
        let Some(gather) = self.requests.gathers.remove(&number) else { return };
        self.requests.parts.retain(|_, g| *g != number);
        let (answered, expected) = (gather.answered, gather.expected);
        let queued = waiting(&gather.stats);
        let running = running(&gather.stats);
        let reply = match gather.plan {
            Plan::Tasks(filter) => Ok(Reply::Tasks(merge_page(gather.page, &filter, answered, expected))),
            Plan::Stats => {
                let mut stats = gather.stats;
                (stats.answered, stats.expected) = (answered, expected);
                Ok(Reply::Stats(Box::new(stats)))
            }
            Plan::Paused(at) => Ok(Reply::Paused { at, queued, running }),
            Plan::Resumed(at, reordered) => Ok(Reply::Resumed { at, queued, reordered }),
            Plan::Cleared => {
                let (cleared, remaining) = gather.cleared;
                Ok(Reply::Cleared { cleared, remaining, at: self.wall(), answered, expected })
            }
            Plan::Invalidated => Ok(self.invalidated(gather.cleared, &gather.left)),
            Plan::Cache => Ok(self.cache_stats(gather.found, &gather.left)),
            Plan::Hears(word) => return self.on_heard(gather.origin, word, gather.found),
            Plan::Forgot(word) => Ok(self.forgot(word, gather.cleared, &gather.left)),
            Plan::Find { what, name, then } => match (gather.found, then) {
                (Some(Reply::Task(view)), Some(command)) => {
                    return self.send_to_owner(gather.origin, view.home, command);
                }
                (Some(Reply::Worker(view)), Some(command)) => {
                    return self.on_worker_found(gather.origin, view.node, command);
                }
                (Some(found), _) => self.last_word(Ok(found)),
                (None, Some(Command::Register(spec))) => return self.enlist(gather.origin, spec),
                (None, _) if answered < expected => Err(Refusal::Unavailable {
                    problem: format!(
                        "no node that answered knows {what} {name}; {} did not answer",
                        expected - answered
                    )
                    .into(),
                    retry_after: self.config.lease,
                }),
                (None, Some(Command::Submit(submission))) => {
                    return self.take_damaged(gather.origin, &name, *submission);
                }
                (None, _) => Err(Refusal::NotFound { what: what.into(), name }),
            },
        };
        self.answer(gather.origin, reply);
    }

    /// A command on one task: obeyed by its owner, wherever it was given.
    pub(crate) fn on_task_command(&mut self, origin: Origin, task: &TaskId, command: Command) {
        if let Err(refusal) = self.bear_for(&origin, task) {
            return self.answer(origin, Err(refusal));
        }
        if self.owned(task).is_some() {
            return self.obey(origin, task, command);
        }
        if matches!(origin, Origin::Node { .. }) {
            return self.on_command_here(origin, command);
        }
        let query = Query::Task { task: task.clone(), detail: Detail::default(), wait: Millis(0) };
        let nodes = self.likely_holders(task);
        self.ask(origin, Request::Query(query), nodes, Some(command));
    }

    /// Who should know a task: its owner, if that is known, then the first in
    /// rendezvous order.
    pub(crate) fn likely_holders(&self, task: &TaskId) -> Vec<NodeId> {
        let known = self.kept.get(task).map(|k| k.slot.pledge.owner);
        let ranked = rendezvous(task.place_hash(), self.live_members());
        let mut nodes: Vec<_> = known.into_iter().filter(|n| *n != self.id && self.live(*n)).collect();
        nodes.extend(ranked.into_iter().filter(|n| Some(*n) != known).take(self.config.holders));
        nodes
    }

    pub(crate) fn on_abandoned(&mut self, id: RequestId) {
        self.requests.asked.retain(|_, a| !a.origin.is_face(id));
        self.requests.gathers.retain(|_, g| !g.origin.is_face(id));
        self.requests.net.remove(&id);
        for waiters in self.requests.waiters.values_mut() {
            waiters.retain(|w| !w.origin.is_face(id));
        }
        self.requests.waiters.retain(|_, w| !w.is_empty());
    }

    /// What was asked of a silent node is asked of the next.
    pub(crate) fn on_asked_node_lost(&mut self, node: NodeId) {
        let lost: Vec<_> = self.requests.asked.iter().filter(|(_, a)| a.to == node).map(|(n, _)| *n).collect();
        for number in lost {
            if let Some(asked) = self.requests.asked.remove(&number) {
                self.ask_next(asked.origin, asked.request, asked.left, asked.silent + 1, asked.then);
            }
        }
        let gathers: Vec<_> = self.requests.gathers.keys().copied().collect();
        for number in gathers {
            if let Some(gather) = self.requests.gathers.get_mut(&number) {
                gather.left.remove(&node);
            }
            self.finish_gather_if_done(number);
        }
        if let Some(control) = &mut self.requests.control {
            control.left.remove(&node);
        }
        self.finish_control();
    }

    pub(crate) fn on_requests_due(&mut self) {
        let now = self.now;
        let late: Vec<_> = self.requests.asked.iter().filter(|(_, a)| now >= a.by).map(|(n, _)| *n).collect();
        for number in late {
            if let Some(asked) = self.requests.asked.remove(&number) {
                self.ask_next(asked.origin, asked.request, asked.left, asked.silent + 1, asked.then);
            }
        }
        let late: Vec<_> = self.requests.gathers.iter().filter(|(_, g)| now >= g.by).map(|(n, _)| *n).collect();
        for number in late {
            self.finish_gather(number);
        }
        let late: Vec<_> = self.requests.promises.iter().filter(|(_, p)| now >= p.by).map(|(n, _)| *n).collect();
        for number in late {
            self.break_promise(number);
        }
        self.answer_late_waiters();
        let late: Vec<_> = self.requests.net.iter().filter(|(_, (_, _, by))| now >= *by).map(|(n, _)| *n).collect();
        for id in late {
            if let Some((_, since, _)) = self.requests.net.remove(&id) {
                self.reply(id, Err(Refusal::Deadline { waited: now.since(since) }));
            }
        }
        self.finish_control();
        let asked: Vec<_> = self.dependents.keys().chain(self.reuse.followed()).cloned().collect();
        for dependency in asked {
            self.ask_for_dependency(&dependency);
        }
    }

    pub(crate) fn wait_for_net(&mut self, id: RequestId, wait: Wait, patience: Millis) {
        let by = self.now + patience + self.config.request_timeout;
        self.requests.net.insert(id, (wait, self.now, by));
    }

    pub(crate) fn net_answered(&mut self, id: RequestId) -> Option<(Wait, Millis)> {
        let (wait, since, _) = self.requests.net.remove(&id)?;
        Some((wait, self.now.since(since)))
    }

    pub(crate) fn on_query_tasks(&mut self, origin: Origin, filter: TaskFilter) {
        let most = if matches!(origin, Origin::Node { .. }) { limits::PAGE + limits::OFFSET } else { limits::PAGE };
        if filter.limit == 0 || filter.limit as usize > most || filter.offset as usize > limits::OFFSET {
            let problem = format!("must be 1 to {}, and offset at most {}", limits::PAGE, limits::OFFSET).into();
            return self.answer(origin, Err(Refusal::Invalid { field: "limit".into(), problem }));
        }
        let wide = wide(&filter);
        let from_node = matches!(origin, Origin::Node { .. });
        let own = self.own_tasks(&wide, &origin, if from_node { limits::ANSWER_BYTES } else { usize::MAX });
        if filter.scope == Scope::Local {
            let page = if from_node { own } else { merge_page(own, &filter, 1, 1) };
            return self.answer(origin, Ok(Reply::Tasks(page)));
        }
        let request = Request::Query(Query::Tasks(Box::new(wide)));
        self.gather(origin, Plan::Tasks(Box::new(filter)), request, vec![Reply::Tasks(own)]);
    }

    pub(crate) fn on_query_stats(&mut self, origin: Origin, scope: Scope, workers: bool, historical: bool) {
        let own = self.own_stats(workers, historical);
        if scope == Scope::Local {
            return self.answer(origin, Ok(Reply::Stats(Box::new(own))));
        }
        let request = Request::Query(Query::Stats { scope: Scope::Local, workers, historical });
        self.gather(origin, Plan::Stats, request, vec![Reply::Stats(Box::new(own))]);
    }

    pub(crate) fn on_query_worker(&mut self, origin: Origin, worker: &WorkerId, tasks: bool) {
        let view = self.worker_view(worker, tasks);
        let asked_by_node = matches!(origin, Origin::Node { .. });
        match view {
            Some(view) if view.node == self.id => self.answer(origin, Ok(Reply::Worker(Box::new(view)))),
            Some(view) if self.live(view.node) && !asked_by_node => {
                let request = Request::Query(Query::Worker { worker: worker.clone(), tasks });
                self.ask(origin, request, vec![view.node], None);
            }
            Some(view) if !asked_by_node => self.answer(origin, Ok(Reply::Worker(Box::new(view)))),
            None if !asked_by_node => {
                let request = Request::Query(Query::Worker { worker: worker.clone(), tasks });
                self.ask_everybody(origin, request, None);
            }
            Some(_) | None => {
                let name = worker.as_str().into();
                self.answer(origin, Err(Refusal::NotFound { what: "worker".into(), name }));
            }
        }
    }

    pub(crate) fn forward_to_worker(&mut self, origin: Origin, worker: &WorkerId, command: Command) {
        let node = self.worker_view(worker, false).map(|v| v.node);
        match node {
            Some(node) if self.live(node) && !matches!(origin, Origin::Node { .. }) => {
                self.forward(origin, node, Request::Command(command));
            }
            Some(node) => {
                let problem = format!("the node of worker {worker} ({node}) is silent").into();
                let retry_after = self.config.lease;
                self.answer(origin, Err(Refusal::Unavailable { problem, retry_after }));
            }
            None if matches!(origin, Origin::Node { .. }) => {
                let name = worker.as_str().into();
                self.answer(origin, Err(Refusal::NotFound { what: "worker".into(), name }));
            }
            None => self.ask_who_has(origin, worker, command),
        }
    }

    pub(crate) fn on_clear(&mut self, origin: Origin, which: ClearScope, scope: Scope) {
        let cleared = self.clear_own(which);
        let remaining = waiting(&self.own_stats(false, false));
        let own = Reply::Cleared { cleared, remaining, at: self.wall(), answered: 1, expected: 1 };
        if scope == Scope::Local {
            return self.answer(origin, Ok(own));
        }
        let request = Request::Command(Command::Clear { which, scope: Scope::Local });
        self.gather(origin, Plan::Cleared, request, vec![own]);
    }

    /// Requests under way, for the check that they stay bounded.
    #[must_use]
    pub fn requests_under_way(&self) -> usize {
        self.requests.len()
    }
}

fn patience(request: &Request, timeout: Millis) -> Millis {
    match request {
        Request::Query(Query::Task { wait, .. }) => Millis(wait.0.min(limits::WAIT_MS)) + HOP,
        Request::Query(_) | Request::Command(Command::LookUp { .. }) => HOP,
        Request::Command(Command::Unregister { .. }) => Millis(limits::WAIT_MS),
        Request::Command(_) => timeout + Millis(1_000),
    }
}
