//! What the node's thread, the swarm actor and the tasks of each peer share.

use super::counters::{Count, Counters};
use super::queue::Queue;
use super::{Events, NetEvent};
use libp2p::PeerId;
use libp2p::metrics::Registry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use taskmesh_core::{Message, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One peer for as long as there is a connection to it.
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) node: NodeId,
    /// Tells the tasks of an earlier session from those of this one.
    pub(super) number: u64,
    pub(super) queue: Queue,
    pub(super) ended: CancellationToken,
    /// The node has been told that the peer is up; nothing of its is delivered before.
    pub(super) up: watch::Sender<bool>,
    /// Nothing is to be written until the way to the peer has changed.
    pub(super) rest: watch::Sender<bool>,
    pub(super) traffic: Traffic,
}

/// Since the node was last told.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) bytes: Count,
    pub(super) answered: Count,
    pub(super) failed: Count,
    pub(super) served: Count,
}

/// Shared by everything in this module.
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    sessions: RwLock<HashMap<NodeId, Arc<Session>>>,
    addresses: RwLock<Vec<String>>,
    registry: Mutex<Registry>,
    events: Events,
    late: Mutex<VecDeque<NetEvent>>,
    late_count: AtomicUsize,
    wanted: Mutex<HashSet<NodeId>>,
}

impl Shared {
    pub(super) fn new(counters: Arc<Counters>, registry: Registry, events: Events) -> Shared {
        Shared {
            counters,
            sessions: RwLock::default(),
            addresses: RwLock::default(),
            registry: Mutex::new(registry),
            events,
            late: Mutex::default(),
            late_count: AtomicUsize::new(0),
            wanted: Mutex::default(),
        }
    }

    pub(super) fn session(&self, node: &NodeId) -> Option<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Who is connected.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(super) fn insert(&self, session: Arc<Session>) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).insert(session.node, session);
    }

    pub(super) fn remove(&self, node: &NodeId) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// Queues messages in order and wakes each peer's writer once. Returns how
    /// many found no room or no peer.
    pub(super) fn send(&self, messages: impl IntoIterator<Item = (NodeId, Message)>) -> usize {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let mut touched: Vec<&Arc<Session>> = Vec::new();
        let mut refused = 0;
        for (to, message) in messages {
            let Some(session) = sessions.get(&to) else {
                self.counters.not_connected.add(1);
                self.want(to);
                refused += 1;
                continue;
            };
            if !session.queue.push(message) {
                self.counters.queue_full.add(1);
                refused += 1;
                continue;
            }
            if !touched.iter().any(|s| s.node == to) {
                touched.push(session);
            }
        }
        touched.iter().for_each(|session| session.queue.wake());
        refused
    }

    /// Someone has something to say to a node that is not connected.
    fn want(&self, node: NodeId) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < WANTED {
            wanted.insert(node);
        }
    }

    pub(super) fn take_wanted(&self) -> HashSet<NodeId> {
        std::mem::take(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Offers an event to the node; gives it back if the node is full. While
    /// earlier ones that must arrive are still waiting, nothing overtakes them.
    pub(super) fn offer(&self, event: NetEvent) -> Option<NetEvent> {
        if self.late_count.load(Ordering::Acquire) > 0 {
            return Some(event);
        }
        (self.events)(event)
    }

    /// An event that must arrive: kept and offered again if the node is full.
    pub(super) fn post(&self, event: NetEvent) {
        let mut late = self.late();
        let event = if late.is_empty() { (self.events)(event) } else { Some(event) };
        let Some(event) = event else { return };
        if late.len() >= LATE {
            tracing::error!(?event, "the node has stopped taking events: one is lost");
            return;
        }
        late.push_back(event);
        self.late_count.store(late.len(), Ordering::Release);
    }

    /// Offers what had to wait.
    pub(super) fn post_late(&self) {
        if self.late_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut late = self.late();
        while let Some(event) = late.pop_front() {
            if let Some(event) = (self.events)(event) {
                late.push_front(event);
                break;
            }
        }
        self.late_count.store(late.len(), Ordering::Release);
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_addresses(&self, addresses: Vec<String>) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// libp2p's own metrics as text, without the end mark.
    pub(super) fn metrics_text(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a string");
        text.truncate(text.trim_end().trim_end_matches("# EOF").len());
        text
    }

    fn late(&self) -> MutexGuard<'_, VecDeque<NetEvent>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that must arrive while the node takes none. Few come in a second: a
/// node that is so far behind has stopped.
const LATE: usize = 65_536;
/// Nodes to look for at once; those beyond are asked for again.
const WANTED: usize = 64;
