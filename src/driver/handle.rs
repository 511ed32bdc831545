//! How the faces talk to the node.

use super::inbox::{Event, Inbox, Rejected};
use crate::exec::FindBlob;
use crate::telemetry::traces::{Call, Traces};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use taskmesh_core::authority::TokenId;
use taskmesh_core::shelf::Shelved;
use taskmesh_core::token::Caller;
use taskmesh_core::view::NodeLoad;
use taskmesh_core::{BlobHash, Command, Millis, Node, NodeId, Refusal, Reply, Request, RequestId};
use tokio::sync::oneshot;

/// How the faces talk to the node, on behalf of one caller. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    caller: Caller,
    /// What submitted tasks are traced under: a `traceparent`.
    trace: Option<Arc<str>>,
}

struct Shared {
    node: NodeId,
    inbox: Arc<Inbox>,
    next: AtomicU64,
    blobs: BlobReads,
    traces: Option<Traces>,
    start: Instant,
    looped_ms: AtomicU64,
    live: AtomicUsize,
    members: AtomicUsize,
    holders: AtomicUsize,
    draining: AtomicBool,
    outcast: AtomicBool,
    idle: AtomicBool,
    /// Which state of the register the next is of.
    register: AtomicU64,
    revoked: RwLock<BTreeSet<TokenId>>,
}

/// How blobs are read: by hash, offset and length.
#[derive(Clone)]
pub(crate) struct BlobReads {
    /// From this node's disk.
    pub(crate) here: Arc<dyn Fn(BlobHash, u64, usize) -> Option<Vec<u8>> + Send + Sync>,
    /// From another node that has it.
    pub(crate) there: FindBlob,
}

/// How the loop is doing, for health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Since the loop last came round.
    pub since_loop: Duration,
    /// Members heard within the lease, this node included.
    pub live: usize,
    /// Members known, this node included.
    pub members: usize,
    /// Copies that a task gets in a mesh of this size.
    pub holders: usize,
    /// It takes no new work.
    pub draining: bool,
    /// Its mesh has forgotten it: it takes part in nothing.
    pub outcast: bool,
    /// Nothing runs here, and every result was confirmed.
    pub idle: bool,
}

/// Tells the node that nobody waits any more, unless the answer came.
struct Waiting<'a> {
    shared: &'a Shared,
    id: RequestId,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.inbox.push_local(Event::Abandoned(self.id));
        }
    }
}

impl Handle {
    pub(crate) fn new(node: NodeId, inbox: Arc<Inbox>, blobs: BlobReads, traces: Option<Traces>) -> Handle {
        let shared = Shared {
            node,
            inbox,
            next: AtomicU64::new(1),
            blobs,
            traces,
            start: Instant::now(),
            looped_ms: AtomicU64::new(0),
            live: AtomicUsize::new(1),
            members: AtomicUsize::new(1),
            holders: AtomicUsize::new(1),
            draining: AtomicBool::new(false),
            outcast: AtomicBool::new(false),
            idle: AtomicBool::new(true),
            register: AtomicU64::new(0),
            revoked: RwLock::default(),
        };
        Handle { shared: Arc::new(shared), caller: Caller::Node, trace: None }
    }

    /// The same, for what `caller` asks. A new handle asks as the node itself.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Handle {
        Handle { shared: self.shared.clone(), caller, trace: self.trace.clone() }
    }

    /// The same, for a call that begins, and its span, which is to be ended, where
    /// this node exports traces. `parent`: a well-formed `traceparent`. What the
    /// call submits goes on in its trace, also on nodes that do.
    #[must_use]
    pub fn for_call(self, operation: &'static str, subject: &str, parent: Option<&str>) -> (Handle, Option<Call>) {
        let call = self.shared.traces.as_ref().map(|traces| traces.call(operation, subject, parent));
        let trace = call.as_ref().map(Call::traceparent).or_else(|| parent.map(Arc::from));
        (Handle { trace, ..self }, call)
    }

    /// Whether a token, or one that it was made from, was revoked, as far as
    /// this node knows.
    #[must_use]
    pub fn revokes(&self, ids: &[TokenId]) -> bool {
        let revoked = self.shared.revoked.read().unwrap_or_else(PoisonError::into_inner);
        ids.iter().any(|id| revoked.contains(id))
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Asks the node, and through it the mesh. Dropping the future abandons
    /// the request (a change may still happen).
    ///
    /// # Errors
    /// The node's own refusal, `Refusal::Full` when its inbox is full and
    /// `Refusal::Unavailable` when it is stopping.
    pub async fn ask(&self, mut request: Request) -> Result<Reply, Refusal> {
        if let (Some(trace), Request::Command(Command::Submit(submission))) = (&self.trace, &mut request) {
            submission.spec.trace = Some(trace.clone());
        }
        let id = RequestId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        let (answer, reply) = oneshot::channel();
        let caller = self.caller.clone();
        self.shared.inbox.push_ask(Event::Ask { id, caller, request, answer }).map_err(|why| match why {
            Rejected::Full(limit) => {
                Refusal::Full { what: "this node's inbox".into(), limit: limit as u64, retry_after: Millis(100) }
            }
            Rejected::Closed => stopping(),
        })?;
        let mut waiting = Waiting { shared: &self.shared, id, answered: false };
        let reply = reply.await;
        waiting.answered = true;
        reply.unwrap_or_else(|_| Err(stopping()))
    }

    /// Makes the token `id` one that is revoked, without a node.
    #[cfg(test)]
    pub(crate) fn revoke_for_test(&self, id: TokenId) {
        self.shared.revoked.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Up to `len` bytes of a blob on this node's disk, from `offset`; `None`
    /// if it is not here. Reads a file: call it where blocking is allowed.
    #[must_use]
    pub fn blob(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        (self.shared.blobs.here)(hash, offset, len)
    }

    /// The same, and from a node that has it where this one has not.
    pub async fn find_blob(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        let disk = self.clone();
        match tokio::task::spawn_blocking(move || disk.blob(hash, offset, len)).await {
            Ok(Some(bytes)) => Some(bytes),
            Ok(None) => (self.shared.blobs.there)(hash, offset, len).await,
            // A reader that panicked has not said that it is not here.
            Err(gone) => gone.try_into_panic().map_or(None, |panic| std::panic::resume_unwind(panic)),
        }
    }

    /// Tells the node its load.
    pub fn load(&self, load: NodeLoad) {
        self.shared.inbox.push_local(Event::Load(load));
    }

    /// Tells the node what its workers may promise from now on.
    pub(super) fn executors(&self, names: Vec<Arc<str>>) {
        self.shared.inbox.push_local(Event::Executors(names));
    }

    /// Tells the node, and by it the others, where its metrics are: `host:port`.
    pub fn metrics_at(&self, address: &str) {
        self.shared.inbox.push_local(Event::MetricsAt(address.into()));
    }

    /// Tells the node, and by it the others, which templates it has.
    pub fn templates(&self, own: Vec<Shelved>) {
        self.shared.inbox.push_local(Event::Templates(own));
    }

    /// Takes no new work, and hands over what waits.
    pub fn drain(&self) {
        self.shared.inbox.push_local(Event::Drain);
    }

    /// Ends what still runs and hands it back.
    pub fn hand_back(&self) {
        self.shared.inbox.push_local(Event::HandBack);
    }

    /// Ends the loop after its next batch.
    pub fn stop(&self) {
        self.shared.inbox.push_local(Event::Stop);
    }

    /// How the loop is doing.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let shared = &self.shared;
        let looped = Duration::from_millis(shared.looped_ms.load(Ordering::Relaxed));
        Pulse {
            since_loop: shared.start.elapsed().saturating_sub(looped),
            live: shared.live.load(Ordering::Relaxed),
            members: shared.members.load(Ordering::Relaxed),
            holders: shared.holders.load(Ordering::Relaxed),
            draining: shared.draining.load(Ordering::Relaxed),
            outcast: shared.outcast.load(Ordering::Relaxed),
            idle: shared.idle.load(Ordering::Relaxed),
        }
    }

    /// The driver's sign of life after each batch.
    pub(super) fn beat(&self, node: &Node) {
        let shared = &self.shared;
        if shared.register.load(Ordering::Relaxed) != node.register_changes() {
            let (changes, revoked) = node.revoked_tokens();
            *shared.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked;
            shared.register.store(changes, Ordering::Relaxed);
        }
        let now = u64::try_from(shared.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.idle.store(node.idle(), Ordering::Relaxed);
        let before = shared.looped_ms.load(Ordering::Relaxed);
        if before > 0 && now < before + 50 {
            return;
        }
        shared.looped_ms.store(now, Ordering::Relaxed);
        shared.live.store(node.live_members().count() + 1, Ordering::Relaxed);
        shared.members.store(node.members() + 1, Ordering::Relaxed);
        shared.holders.store(node.holders_wanted(), Ordering::Relaxed);
        shared.draining.store(node.draining(), Ordering::Relaxed);
        shared.outcast.store(node.outcast().is_some(), Ordering::Relaxed);
    }
}

fn stopping() -> Refusal {
    Refusal::Unavailable { problem: "this node is stopping; ask another".into(), retry_after: Millis(1_000) }
}
