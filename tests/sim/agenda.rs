//! What will happen, in order of time and then of arrival.

use crate::faults::Fault;
use crate::workload::Act;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use taskmesh_core::{Fence, Input, Message, TaskId};

/// Simulated milliseconds since the mesh was born: the world's time, which no
/// node can see.
pub(crate) type Time = u64;

/// One thing that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node that was never started, or is down, starts.
    Boot { node: usize },
    /// A node asked to be woken.
    Wake { node: usize, life: u32 },
    /// A node takes what is in its inbox.
    Turn { node: usize, life: u32 },
    /// A node's shell tells it the wall clock.
    Clock { node: usize, life: u32 },
    /// A message arrives.
    Deliver { from: usize, to: usize, message: Message },
    /// A gossiped message arrives at several nodes.
    Gossip { from: usize, to: Vec<usize>, message: Arc<Message> },
    /// Something else reaches one life of a node.
    Arrive { node: usize, life: u32, input: Input },
    /// A connection is made.
    Connect { a: usize, b: usize },
    /// A connection breaks, unless it was made anew since.
    Break { a: usize, b: usize, connection: u32 },
    /// A run ends by itself, or because it was told to.
    RunEnds { node: usize, life: u32, task: TaskId, fence: Fence, ticket: u32 },
    /// A run has begun, or has something to say.
    RunSays { node: usize, life: u32, task: TaskId, fence: Fence, event: taskmesh_core::execution::Event },
    /// A blob has been brought, or not.
    BlobArrives { node: usize, life: u32, hash: taskmesh_core::BlobHash, from: usize },
    /// Something breaks or is mended.
    Fault(Fault),
    /// A client does something.
    Act(Act),
}

/// The events to come. Those of one instant keep the order of their planning,
/// so that a run depends on its seed alone.
#[derive(Default)]
pub(crate) struct Agenda {
    instants: BTreeMap<Time, VecDeque<Event>>,
}

impl Agenda {
    /// Plans `event`.
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.instants.entry(time).or_default().push_back(event);
    }

    /// When the next event is.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.instants.keys().next().copied()
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        let mut first = self.instants.first_entry()?;
        let time = *first.key();
        let event = first.get_mut().pop_front().expect("no instant is kept empty");
        if first.get().is_empty() {
            first.remove();
        }
        Some((time, event))
    }
}
