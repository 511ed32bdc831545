//! What goes into a node and what comes out: plain data.

use crate::authority::TokenId;
use crate::cache::{CacheKey, Cached, Gone, Policy};
use crate::command::{Refusal, Request, WorkerSpec};
use crate::execution::Event;
use crate::forgotten::Forgotten;
use crate::ids::{BlobHash, NodeId, RequestId, TaskId, WorkerId};
use crate::message::{Controls, Message};
use crate::record::{Ballot, Fence, Record, Slot};
use crate::register::Issued;
use crate::shelf::Shelved;
use crate::task::Spec;
use crate::time::{Millis, Unix};
use crate::token::Caller;
use crate::view::{NodeLoad, Reply, Status};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whatever happens to a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time has passed. Due whenever `next_wakeup` says; more often is harmless.
    Tick,
    /// The wall clock now says this. At the start, and every few seconds.
    Clock(Unix),
    /// A face asks. Answered by exactly one [`Effect::Reply`].
    Request {
        /// The driver's number for it.
        id: RequestId,
        /// On whose behalf.
        caller: Caller,
        /// What.
        request: Request,
    },
    /// The asker has gone: no reply is needed.
    Abandoned(RequestId),
    /// Another node says something. `from` is proven by its connection.
    Received {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// An executor of this node says something of a run.
    Execution {
        /// Of which task.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
        /// What.
        event: Event,
    },
    /// The network says something of a peer.
    Peer(PeerEvent),
    /// A blob that was fetched is on this node's disk, or could not be had.
    Fetched {
        /// Which.
        hash: BlobHash,
        /// It is here.
        here: bool,
    },
    /// What a blob holds that was to be read; `None`: it is not to be had now.
    BlobRead {
        /// Which.
        hash: BlobHash,
        /// All of it.
        content: Option<Arc<[u8]>>,
    },
    /// What this node measures of itself.
    Load(NodeLoad),
    /// What workers of this node may promise from now on: `config.executors`.
    Executors(Vec<Arc<str>>),
    /// Where this node's metrics are, `host:port`: the other nodes are told.
    MetricsAt(Arc<str>),
    /// The templates that this node has: the other nodes are told.
    Templates(Vec<Shelved>),
    /// Take no new work, and hand over what waits: the node is about to stop.
    Drain,
    /// End what still runs and hand it back: the grace is over.
    HandBack,
}

/// What the network knows of a peer.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEvent {
    /// There is a connection.
    Up {
        /// To whom.
        peer: NodeId,
        /// Its address, as text.
        address: Arc<str>,
    },
    /// There is none any more.
    Down {
        /// To whom.
        peer: NodeId,
    },
    /// A dial began (`true`) or failed (`false`).
    Dialling {
        /// Whom.
        peer: NodeId,
        /// Began.
        began: bool,
    },
    /// It said of itself.
    Identified {
        /// Who.
        peer: NodeId,
        /// Where it can be reached, as text.
        addresses: Vec<Arc<str>>,
        /// Its protocol version.
        protocol: Arc<str>,
        /// Its program and version.
        agent: Arc<str>,
    },
    /// A ping came back, or did not.
    Ping {
        /// From whom.
        peer: NodeId,
        /// Round trip in µs.
        round_trip_us: Option<u64>,
    },
    /// Bytes and requests since the last such event.
    Traffic {
        /// With whom.
        peer: NodeId,
        /// Both ways.
        bytes: u64,
        /// Requests to it that were answered.
        answered: u64,
        /// Requests to it that failed.
        failed: u64,
        /// Requests of its that were served.
        served: u64,
    },
    /// A member of the mesh refuses this node, since it was forgotten.
    CastOut {
        /// Who.
        by: NodeId,
    },
    /// The end of a [`NetCommand`] that carried this request's number.
    Done {
        /// Which.
        id: RequestId,
        /// What came of it.
        result: NetResult,
    },
}

/// What came of a [`NetCommand`].
#[derive(Clone, Debug, PartialEq)]
pub enum NetResult {
    /// To `Dial`.
    Dialled {
        /// The address that worked.
        address: Arc<str>,
        /// The network's number of the connection.
        connection: Arc<str>,
        /// Tries.
        attempts: u32,
    },
    /// To `Close`.
    Closed {
        /// There was a connection.
        was_connected: bool,
    },
    /// To `Bootstrap`.
    Bootstrapped {
        /// Who is connected now.
        connected: Vec<NodeId>,
        /// The seeds that were dialled.
        used: Vec<Arc<str>>,
        /// Which failed and why.
        failures: Vec<(Arc<str>, Arc<str>)>,
    },
    /// To `Find`: peers and their addresses.
    Found(Vec<(NodeId, Vec<Arc<str>>)>),
    /// It failed, for this reason.
    Failed(Refusal),
}

/// What a node asks of its network.
#[derive(Clone, Debug, PartialEq)]
pub enum NetCommand {
    /// Connect to a peer at an address, and check that it is the one.
    Dial {
        /// Answered with this number.
        id: RequestId,
        /// Who should answer.
        peer: NodeId,
        /// Where, as text.
        address: Arc<str>,
        /// For one try.
        timeout: Millis,
        /// Tries after the first.
        retries: u32,
        /// Redial it when it is lost.
        persist: bool,
    },
    /// Close every connection to a peer and do not redial it until asked.
    Close {
        /// Answered with this number.
        id: RequestId,
        /// Whom.
        peer: NodeId,
    },
    /// Close every connection to a node that is gone for ever, and let it in no
    /// more; it is told why. Not answered.
    Forget {
        /// Whom.
        peer: NodeId,
    },
    /// Dial seeds.
    Bootstrap {
        /// Answered with this number.
        id: RequestId,
        /// Multiaddresses as text; empty: the configured seeds.
        addresses: Vec<Arc<str>>,
        /// For all of it.
        timeout: Millis,
        /// Enough.
        min_connections: u32,
        /// Stop there.
        max_connections: u32,
    },
    /// Look for peers (Kademlia's random walk).
    Find {
        /// Answered with this number.
        id: RequestId,
        /// At most.
        max: u32,
        /// For all of it.
        timeout: Millis,
    },
}

/// What a node orders. Every `Persist` and `Forget` of a batch is durable
/// before any other effect of the batch happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write an entry.
    Persist(Entry),
    /// Remove an entry.
    Forget(Key),
    /// Tell one node.
    Send {
        /// Whom; never this node.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Tell everybody, by gossip.
    Publish(Message),
    /// Run a task in a worker of this node.
    Run {
        /// Which.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
        /// In which worker.
        worker: WorkerId,
        /// What.
        spec: Arc<Spec>,
    },
    /// End a run of this node; it still reports its end.
    Stop {
        /// Which.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
        /// Kill rather than ask.
        force: bool,
    },
    /// Bring a blob to this node's disk, then say `Fetched`.
    Fetch {
        /// Which.
        hash: BlobHash,
        /// Its size.
        bytes: u64,
        /// Who has it.
        from: NodeId,
    },
    /// Nobody on this node needs this blob any more.
    DropBlob(BlobHash),
    /// Read a blob of at most [`PAYLOAD_BYTES`](crate::limits::PAYLOAD_BYTES),
    /// from here or from a node that has it, then say `BlobRead`.
    ReadBlob(BlobHash),
    /// Ask the network.
    Net(NetCommand),
    /// Answer a face.
    Reply {
        /// Whom.
        id: RequestId,
        /// What.
        reply: Result<Reply, Refusal>,
    },
    /// Something happened that people may want to know.
    Notice(Notice),
}

/// An entry on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The immutable part of a task. Written once.
    Spec(TaskId, Arc<Spec>),
    /// Pledge and newest version.
    Record {
        /// The pledge.
        pledge: Ballot,
        /// The version.
        record: Box<Record>,
    },
    /// A pledge for a task that this node keeps nothing of yet.
    Pledge {
        /// Of which task.
        task: TaskId,
        /// The pledge.
        ballot: Ballot,
        /// When, so that one for nothing does not stay for ever.
        at: Unix,
    },
    /// A worker of this node, and when it was first registered.
    Worker(WorkerSpec, Unix),
    /// The queue's controls.
    Controls(Controls),
    /// A member of the mesh and where it was last reached.
    Peer(NodeId, PeerBook),
    /// Starts of this node so far.
    Boot(u64),
    /// A task that was forgotten: hash of its id and birth, and when.
    Tombstone(u64, Unix),
    /// A token that was issued or revoked.
    Token(Issued),
    /// A result for later tasks.
    Cached(Arc<Cached>),
    /// A node that is gone for ever, by an operator's word.
    Forgotten(Forgotten),
}

/// What a node remembers of a member over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerBook {
    /// Where it was reached, best first, as text.
    pub addresses: Vec<Arc<str>>,
    /// Redial it: it was connected by hand with `persist`.
    pub pinned: bool,
    /// Left by hand: not redialled until asked.
    pub banished: bool,
    /// Last heard.
    pub seen: Unix,
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Spec and record of a task.
    Task(TaskId),
    /// A pledge without a record.
    Pledge(TaskId),
    /// A worker.
    Worker(WorkerId),
    /// A peer.
    Peer(NodeId),
    /// A tombstone.
    Tombstone(u64),
    /// A token.
    Token(TokenId),
    /// A result.
    Cached(CacheKey),
}

/// What a node finds on its disk when it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    /// Its tasks.
    pub slots: Vec<Slot>,
    /// Tasks that it kept and whose copies are damaged or incomplete.
    pub damaged: Vec<TaskId>,
    /// Pledges without a record.
    pub pledges: Vec<(TaskId, Ballot, Unix)>,
    /// Its workers.
    pub workers: Vec<(WorkerSpec, Unix)>,
    /// The queue's controls.
    pub controls: Controls,
    /// Members.
    pub peers: Vec<(NodeId, PeerBook)>,
    /// Starts before this one.
    pub boot: u64,
    /// Forgotten tasks.
    pub tombstones: Vec<(u64, Unix)>,
    /// The register of tokens.
    pub tokens: Vec<Issued>,
    /// Results for later tasks.
    pub cached: Vec<Cached>,
    /// Nodes that are gone for ever, by an operator's word.
    pub forgotten: Vec<Forgotten>,
    /// Blobs that are whole.
    pub blobs: BTreeSet<BlobHash>,
}

/// Something that happened: the only source of metrics, of the dashboard's
/// feed and of the information log.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A task was accepted here: a majority has it.
    TaskAccepted {
        /// Which.
        task: TaskId,
        /// Its type.
        task_type: Arc<str>,
        /// From the request to here.
        took: Millis,
    },
    /// An owned task changed its state (`None`: it came or went).
    TaskMoved {
        /// Its type.
        task_type: Arc<str>,
        /// Before.
        from: Option<Status>,
        /// After.
        to: Option<Status>,
    },
    /// A task was granted by this node.
    TaskGranted {
        /// Which.
        task: TaskId,
        /// To whom.
        executor: NodeId,
        /// The attempt.
        attempt: u32,
        /// Since it was ready.
        waited: Millis,
    },
    /// A run began on this node.
    TaskStarted {
        /// Which.
        task: TaskId,
        /// Its type.
        task_type: Arc<str>,
        /// The attempt.
        attempt: u32,
        /// Since it was granted here.
        waited: Millis,
    },
    /// A run ended on this node.
    RunEnded {
        /// Which.
        task: TaskId,
        /// Its type.
        task_type: Arc<str>,
        /// The attempt.
        attempt: u32,
        /// `completed`, `failed`, `timed_out`, `stopped` or `handed_back`.
        verdict: &'static str,
        /// How long it ran.
        ran: Millis,
    },
    /// A task has ended: this node owns it and a majority knows.
    TaskClosed {
        /// Which.
        task: TaskId,
        /// Its type.
        task_type: Arc<str>,
        /// How.
        status: Status,
        /// The attempt that decided it.
        attempt: u32,
        /// Where that ran.
        executor: Option<NodeId>,
        /// Since it was submitted.
        took: Millis,
        /// From the end of the run to here.
        settled_in: Millis,
    },
    /// An attempt was lost with its node.
    LeaseLost {
        /// Which task.
        task: TaskId,
        /// Where it ran.
        executor: NodeId,
    },
    /// A failed attempt will be tried again.
    TaskRetried {
        /// Which.
        task: TaskId,
        /// What it said.
        error: Arc<str>,
        /// After this wait.
        delay: Millis,
    },
    /// This node owns a task that another owned.
    OwnerAdopted {
        /// Which.
        task: TaskId,
        /// Who owned it.
        from: NodeId,
    },
    /// Holders of a task were replaced.
    HoldersChanged {
        /// Which.
        task: TaskId,
        /// Now.
        holders: Vec<NodeId>,
    },
    /// A peer came.
    PeerUp(NodeId),
    /// A peer went, or fell silent.
    PeerLost(NodeId),
    /// A message or a result was refused, and why.
    Refused {
        /// From whom.
        from: NodeId,
        /// A fixed word: `old_fence`, `not_owner`, `below_pledge`, …
        why: &'static str,
    },
    /// A copy was damaged and is being repaired from the holders.
    Damaged {
        /// Which task.
        task: TaskId,
    },
    /// A damaged copy is whole again.
    Repaired {
        /// Which task.
        task: TaskId,
    },
    /// The queue was paused or goes on.
    QueuePaused(bool),
    /// A task asked this node for an earlier result of its work.
    CacheLookedUp {
        /// `hit`, `miss`, or `joined`: another that does the same is under way.
        found: &'static str,
    },
    /// A result is kept here no more.
    CacheEvicted {
        /// The order of eviction.
        policy: Policy,
        /// Why it went.
        why: Gone,
    },
    /// So much of results is kept here now.
    CacheHolds {
        /// How many.
        entries: u64,
        /// How large they are together, blobs included.
        bytes: u64,
    },
    /// A node is gone for ever, by an operator's word.
    NodeForgotten(Forgotten),
    /// This node is: it stops.
    CastOut(Forgotten),
    /// An offer was acknowledged by a majority after this long.
    Replicated {
        /// Since it was written.
        took: Millis,
    },
}
