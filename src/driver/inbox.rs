//! What waits for the driver: two bounded queues, of this node's own and of
//! the network's events, so that a busy network never shuts out a face.

use crate::exec::RunEvent;
use crate::net::NetEvent;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use taskmesh_core::shelf::Shelved;
use taskmesh_core::token::Caller;
use taskmesh_core::view::NodeLoad;
use taskmesh_core::{BlobHash, Fence, Message, NodeId, Refusal, Reply, Request, RequestId, TaskId};
use tokio::sync::oneshot;

/// One thing for the driver to take up.
pub enum Event {
    /// A face asks.
    Ask {
        /// Under this number.
        id: RequestId,
        /// On whose behalf.
        caller: Caller,
        /// What.
        request: Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Reply, Refusal>>,
    },
    /// A face that asked has gone.
    Abandoned(RequestId),
    /// An executor says something.
    Run(RunEvent),
    /// An executor's words, with large results stored.
    Report {
        /// Of which task.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
        /// What.
        event: taskmesh_core::execution::Event,
    },
    /// What a blob holds that was to be read, if it was to be had.
    BlobRead {
        /// Which.
        hash: BlobHash,
        /// All of it.
        content: Option<Arc<[u8]>>,
    },
    /// Another node says something.
    Heard {
        /// Which.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// The network says something.
    Net(NetEvent),
    /// The node's own load.
    Load(NodeLoad),
    /// What workers of this node may promise from now on.
    Executors(Vec<Arc<str>>),
    /// Where this node's metrics are.
    MetricsAt(Arc<str>),
    /// The templates that this node has.
    Templates(Vec<Shelved>),
    /// Take no new work.
    Drain,
    /// Hand back what runs.
    HandBack,
    /// End the loop after this batch.
    Stop,
}

/// The driver's two queues.
pub struct Inbox {
    queues: Mutex<Queues>,
    bell: Condvar,
}

#[derive(Default)]
struct Queues {
    local: VecDeque<Event>,
    asks: usize,
    network: VecDeque<Event>,
    closed: bool,
    ringing: bool,
}

/// Requests of faces that may wait: about a second of work.
const ASKS: usize = 20_000;
/// Messages and events of the network that may wait, but for the rest of a
/// frame. Above this its readers pause, and the peers' writers feel it.
const NETWORK: usize = 32_768;

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { queues: Mutex::default(), bell: Condvar::new() }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, queues: &mut Queues) {
        if !std::mem::replace(&mut queues.ringing, true) {
            self.bell.notify_one();
        }
    }

    /// A request: refused when too many wait, or when the loop has ended.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn push_ask(&self, event: Event) -> Result<(), Rejected> {
        let mut queues = self.lock();
        if queues.closed {
            return Err(Rejected::Closed);
        }
        if queues.asks >= ASKS {
            return Err(Rejected::Full(ASKS));
        }
        queues.asks += 1;
        queues.local.push_back(event);
        self.ring(&mut queues);
        Ok(())
    }

    /// An event of this node's own: bounded by its slots and connections.
    pub fn push_local(&self, event: Event) {
        let mut queues = self.lock();
        if queues.closed {
            return;
        }
        queues.local.push_back(event);
        self.ring(&mut queues);
    }

    /// An event of the network; given back if there is no room for it.
    pub fn push_network(&self, event: NetEvent) -> Option<NetEvent> {
        let mut queues = self.lock();
        if queues.closed {
            return None;
        }
        if queues.network.len() >= NETWORK {
            return Some(event);
        }
        match event {
            NetEvent::Received { from, messages } => {
                queues.network.extend(messages.into_iter().map(|message| Event::Heard { from, message }));
            }
            event => queues.network.push_back(Event::Net(event)),
        }
        self.ring(&mut queues);
        None
    }

    /// Waits for events, until `wakeup` at the latest, and moves up to `most`
    /// of them to `batch`, this node's own first. Returns how many still wait.
    pub fn take(&self, batch: &mut Vec<Event>, most: usize, wakeup: Instant) -> usize {
        let mut queues = self.lock();
        while queues.local.is_empty() && queues.network.is_empty() {
            queues.ringing = false;
            let now = Instant::now();
            if now >= wakeup {
                break;
            }
            let waited = self.bell.wait_timeout(queues, wakeup - now);
            queues = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queues.ringing = true;
        while batch.len() < most / 2
            && let Some(event) = queues.local.pop_front()
        {
            queues.asks -= usize::from(matches!(event, Event::Ask { .. }));
            batch.push(event);
        }
        while batch.len() < most
            && let Some(event) = queues.network.pop_front()
        {
            batch.push(event);
        }
        queues.local.len() + queues.network.len()
    }

    /// Moves what executors said to `batch`, as far as nothing else came first.
    pub fn take_runs(&self, batch: &mut Vec<Event>) {
        let mut queues = self.lock();
        while let Some(event) = queues.local.pop_front_if(|event| matches!(event, Event::Run(_))) {
            batch.push(event);
        }
    }

    /// Takes nothing more; whoever waits for an answer gets none.
    pub fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.local.clear();
        queues.network.clear();
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Too many wait: this many.
    Full(usize),
    /// The loop has ended.
    Closed,
}
