//! Where a request came from, and what whoever made it may do: asked here by a
//! face, by another node, or by this node itself.

use crate::authority::Touch;
use crate::cache::Scope;
use crate::command::Refusal;
use crate::ids::{NodeId, RequestId, TaskId};
use crate::message::{By, Message};
use crate::node::Node;
use crate::task::Spec;
use crate::token::Caller;
use crate::view::Reply;
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// A face of this node.
    Face { id: RequestId, caller: Caller },
    /// Another node, under its own number.
    Node { from: NodeId, id: u64, caller: Caller },
    /// This node, to learn whether what a task depends on has ended.
    Dependency(TaskId),
    /// This node, to learn whether there is a result that its task can take.
    LookUp(TaskId),
}

impl Origin {
    /// On whose behalf.
    pub(crate) fn caller(&self) -> &Caller {
        match self {
            Origin::Face { caller, .. } | Origin::Node { caller, .. } => caller,
            Origin::Dependency(_) | Origin::LookUp(_) => &Caller::Node,
        }
    }

    /// The same, as the next node is told it.
    pub(crate) fn by(&self) -> By {
        match self.caller() {
            Caller::Node => By::Node,
            Caller::Bearer(bearer) => By::Token(bearer.token().to_bytes().into()),
        }
    }

    pub(crate) fn is_face(&self, wanted: RequestId) -> bool {
        matches!(self, Origin::Face { id, .. } if *id == wanted)
    }

    /// What is asked is whether there is a record: see [`UNBORN`].
    ///
    /// [`UNBORN`]: crate::array::UNBORN
    pub(crate) fn wants_births(&self) -> bool {
        matches!(self, Origin::Dependency(_))
    }

    /// Whether it may touch a task.
    pub(crate) fn allows_task(&self, task: &TaskId, spec: &Spec, touch: Touch) -> Result<(), Refusal> {
        self.caller().authority().map_or(Ok(()), |authority| authority.allows_task(task.as_str(), spec, touch))
    }

    /// The same, where a list is made of what may be looked at.
    pub(crate) fn sees(&self, task: &TaskId, spec: &Spec) -> bool {
        self.allows_task(task, spec, Touch::Look).is_ok()
    }

    /// Whom the results of its tasks are for: a token that may not look at all
    /// tasks of a type shares them with those that have the same limits, whose
    /// tasks it may look at. The type itself is part of what is found.
    pub(crate) fn cache_scope(&self) -> Option<Scope> {
        let authority = self.caller().authority()?;
        let own = authority.own.then_some(&*authority.subject);
        let limits = authority.tags.iter().flat_map(|set| ["tags"].into_iter().chain(set.iter().map(|tag| &**tag)));
        let limited = own.is_some() || !authority.tags.is_empty();
        limited.then(|| Scope::of(own.into_iter().flat_map(|subject| ["own", subject]).chain(limits)))
    }

    /// Whose a task is that is submitted by this.
    pub(crate) fn submitter(&self) -> Option<Arc<str>> {
        self.caller().subject().cloned()
    }
}

impl Node {
    pub(crate) fn answer(&mut self, origin: Origin, reply: Result<Reply, Refusal>) {
        match origin {
            Origin::Face { id, .. } => self.reply(id, reply),
            Origin::Node { from, id, .. } => self.send(from, Message::Response { id, reply: Box::new(reply) }),
            Origin::Dependency(task) => self.on_dependency(&task, reply),
            Origin::LookUp(task) => self.on_looked_up(&task, reply),
        }
    }

    /// Whether `origin` may change a task that is kept here.
    pub(crate) fn permit_change(&self, origin: &Origin, task: &TaskId) -> Result<(), Refusal> {
        origin.allows_task(task, &self.kept[task].slot.spec, Touch::Change)
    }
}
