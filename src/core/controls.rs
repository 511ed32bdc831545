//! The queue's controls: one register for the whole mesh, in which the last
//! writer wins. Paused means that no node starts anything new.

use crate::command::{Query, Refusal, Request, Scope};
use crate::ids::NodeId;
use crate::message::{Controls, Message};
use crate::node::Node;
use crate::requests::{ControlPlan, ControlWait, Origin, Plan};
use crate::time::Millis;
use crate::view::{Pause, Reply};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Node {
    pub(crate) fn on_pause(&mut self, origin: Origin, reason: Option<Arc<str>>) {
        let paused = Some(Pause { at: self.wall(), reason });
        let reorder = self.controls.reorder;
        self.set_controls(origin, paused, reorder, ControlPlan::Paused);
    }

    pub(crate) fn on_resume(&mut self, origin: Origin, reorder: bool) {
        let orders = self.controls.reorder + u64::from(reorder);
        self.set_controls(origin, None, orders, ControlPlan::Resumed(reorder));
    }

    pub(crate) fn set_controls(&mut self, origin: Origin, paused: Option<Pause>, reorder: u64, plan: ControlPlan) {
        if self.requests.control.is_some() {
            let problem = "another pause or resume is under way".into();
            return self.answer(origin, Err(Refusal::Unavailable { problem, retry_after: Millis(500) }));
        }
        let version = (self.controls.version.0 + 1, self.id);
        let controls = Controls { version, paused, reorder };
        self.adopt_controls(controls.clone());
        let left: BTreeSet<_> = self.live_members().collect();
        for node in &left {
            self.send(*node, Message::Controls(controls.clone()));
        }
        let by = self.now + self.config.request_timeout;
        self.requests.control = Some(ControlWait { origin, version, left, answered: 1, by, plan });
        self.finish_control();
    }

    pub(crate) fn adopt_controls(&mut self, controls: Controls) {
        let reorders = controls.reorder > self.controls.reorder;
        let was_paused = self.controls.paused.is_some();
        let paused = controls.paused.is_some();
        self.controls = controls.clone();
        self.persist(crate::Entry::Controls(controls));
        if reorders {
            self.reorder_own();
        }
        if paused != was_paused {
            self.notice(crate::Notice::QueuePaused(paused));
            let workers: Vec<_> = self.workers.keys().cloned().collect();
            workers.iter().for_each(|worker| self.start_waiting(worker));
        }
        self.queue.stir();
    }

    pub(crate) fn on_controls_seen(&mut self, from: NodeId, controls: Controls) {
        if controls.version > self.controls.version {
            self.adopt_controls(controls);
        } else if let Some(wait) = &mut self.requests.control
            && controls.version >= wait.version
            && wait.left.remove(&from)
        {
            wait.answered += 1;
            self.finish_control();
        }
    }

    pub(crate) fn on_controls(&mut self, from: NodeId, controls: Controls) {
        let newer = controls.version > self.controls.version;
        let same = controls.version == self.controls.version;
        self.on_controls_seen(from, controls);
        // An answer to an answer of the same version would never end.
        if newer || !same {
            let ours = self.controls.clone();
            self.send(from, Message::Controls(ours));
        }
    }

    pub(crate) fn finish_control(&mut self) {
        let now = self.now;
        let Some(wait) = &self.requests.control else { return };
        let superseded = self.controls.version > wait.version;
        if !wait.left.is_empty() && now < wait.by && !superseded {
            return;
        }
        let Some(wait) = self.requests.control.take() else { return };
        let members = self.members.len() + 1;
        if wait.answered * 2 <= members && members > 2 {
            let problem = format!("only {} of {members} nodes have confirmed it", wait.answered).into();
            return self.answer(wait.origin, Err(Refusal::Unavailable { problem, retry_after: self.config.lease }));
        }
        let at = self.wall();
        let plan = match wait.plan {
            ControlPlan::Paused => Plan::Paused(at),
            ControlPlan::Resumed(reordered) => Plan::Resumed(at, reordered),
        };
        let own = Reply::Stats(Box::new(self.own_stats(false, false)));
        let request = Request::Query(Query::Stats { scope: Scope::Local, workers: false, historical: false });
        self.gather(wait.origin, plan, request, vec![own]);
    }
}
