//! What nodes say to each other. `net/wire.rs` gives these their bytes.
//!
//! Every message may be lost, doubled, late or out of order: whoever needs an
//! answer asks again.

use crate::cache::{CacheKey, Cached};
use crate::command::{Refusal, Request, WorkerSpec};
use crate::forgotten::Forgotten;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::record::{Ballot, Birth, Fence, Record, Stamp};
use crate::register::Issued;
use crate::shelf::Shelved;
use crate::task::{Report, Spec};
use crate::time::Millis;
use crate::view::{Pause, Reply};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// One message. A sender is known from its connection, never from the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Who I am: sent to a peer on connection, when it changes, and when asked.
    Hello(Box<Hello>),
    /// I live: gossiped each beat.
    Beat(Beat),
    /// I don't have your newest hello.
    WhoAreYou,
    /// I have ready tasks that nobody known to me has room for: gossiped, a
    /// hint only.
    Announce {
        /// By task type: how many.
        ready: Vec<(Arc<str>, u32)>,
    },
    /// How many tasks of mine are under these limits: lend me permits.
    AskPermits(Vec<PermitAsk>),
    /// So many may be.
    Permits(Vec<Permit>),
    /// Room for more: the answer to an announcement, and after the end of a run.
    Room {
        /// By worker: grants that it would take now.
        free: Vec<(WorkerId, u32)>,
    },

    /// Keep this version. From its owner.
    Offer {
        /// The version.
        record: Box<Record>,
        /// The immutable part, unless the holder is known to have it.
        spec: Option<Arc<Spec>>,
    },
    /// Kept, on disk.
    Ack {
        /// Of which task.
        task: TaskId,
        /// Which version.
        stamp: Stamp,
    },
    /// I can't keep it without its immutable part.
    Want {
        /// Of which task.
        task: TaskId,
        /// Which version.
        stamp: Stamp,
    },
    /// I have promised to respect a greater ballot.
    Refuse {
        /// Of which task.
        task: TaskId,
        /// That ballot.
        pledge: Ballot,
    },
    /// I keep another task of that id.
    Taken {
        /// Which id.
        task: TaskId,
        /// The submission that I refuse.
        refused: Birth,
        /// The one that I keep.
        record: Box<Record>,
        /// And its immutable part.
        spec: Arc<Spec>,
    },
    /// I kept it and my copy is damaged or gone: don't count on my word.
    Lost {
        /// Of which task.
        task: TaskId,
    },
    /// It ended long ago, everywhere: forget your copy from the past.
    Gone {
        /// Which task.
        task: TaskId,
        /// The submission that is gone.
        birth: Birth,
    },
    /// Every holder knows that it ended, and its time is over: forget it.
    Forget {
        /// Which task.
        task: TaskId,
        /// The closed version.
        stamp: Stamp,
    },
    /// Let me write it from now on.
    Claim {
        /// Of which task.
        task: TaskId,
        /// Which submission.
        birth: Birth,
        /// With this right.
        ballot: Ballot,
        /// What I have of it.
        stamp: Stamp,
        /// Who else is asked.
        electorate: Electorate,
    },
    /// You may, as far as I am concerned; and this is what I have.
    Pledge {
        /// Of which task.
        task: TaskId,
        /// The right.
        ballot: Ballot,
        /// The newest version here; `None`: I never heard of it. Whoever claims
        /// a task keeps it, and so has its immutable part.
        kept: Option<Box<Record>>,
    },

    /// Run it.
    Grant(Box<Grant>),
    /// I won't: no room, paused, draining, or not the node you knew.
    Decline {
        /// Of which task.
        task: TaskId,
        /// The grant.
        fence: Fence,
        /// Why.
        why: Declined,
        /// Room now, by worker; none at all where it is not room that the task lacks.
        free: Vec<(WorkerId, u32)>,
    },
    /// The run has started, or has something to say.
    Progress {
        /// Of which task.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
        /// How long ago it started, by the executor's clock; `None`: it waits
        /// for its slot.
        running: Option<Millis>,
        /// Percent.
        percent: Option<u8>,
        /// A line for people.
        message: Option<Arc<str>>,
        /// Tail of the log.
        log_tail: Option<Arc<[u8]>>,
    },
    /// The run has ended. Sent to the holders until one says `Settled`.
    Finished(Box<Finished>),
    /// The result is safe with a majority, or nobody needs it any more.
    Settled {
        /// Of which task.
        task: TaskId,
        /// Up to this grant.
        fence: Fence,
    },
    /// End the run.
    Stop {
        /// Of which task.
        task: TaskId,
        /// The grant.
        fence: Fence,
        /// Kill rather than ask.
        force: bool,
    },

    /// A request that this node can't answer alone.
    Request {
        /// The asker's own number.
        id: u64,
        /// On whose behalf.
        by: By,
        /// What.
        request: Box<Request>,
    },
    /// The answer.
    Response {
        /// The asker's number.
        id: u64,
        /// What.
        reply: Box<Result<Reply, Refusal>>,
    },
    /// What a task of mine left: keep it for others. To the home of its key.
    Left(Box<Cached>),
    /// A task of mine ran for others too, and left nothing for them. To the same.
    Landed {
        /// What its result would have been found by.
        key: CacheKey,
        /// Which.
        task: TaskId,
    },
    /// I keep this result, and so should you.
    Copy(Box<Cached>),

    /// The queue's controls, newer than yours. Answered with the sender's own.
    Controls(Controls),
    /// What I have in the register of tokens.
    Tokens {
        /// What all of it adds up to.
        digest: u64,
        /// Some of it, or all.
        entries: Vec<Issued>,
        /// It answers such a message, and repeats what that one brought.
        answer: bool,
    },
}

/// Whose word it takes to write a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Electorate {
    /// A majority of its holders.
    Holders,
    /// Every member of the mesh: most of its holders are gone for ever. Who has
    /// nothing of it says just that.
    Everybody,
}

/// On whose behalf a node asks another.
#[derive(Clone, PartialEq, Eq)]
pub enum By {
    /// The node's own; also what a node says that does not know of tokens: it
    /// has no callers without all rights.
    Node,
    /// Whoever showed this token to it, as bytes that are not verified yet.
    Token(Arc<[u8]>),
}

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Node => "Node",
            By::Token(_) => "Token(…)",
        })
    }
}

/// A node's full account of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Its starts so far.
    pub boot: u64,
    /// Counts changes of this account within one boot.
    pub version: u32,
    /// It takes no new work.
    pub draining: bool,
    /// Its workers.
    pub workers: Vec<WorkerSpec>,
    /// Room now, by worker.
    pub free: Vec<(WorkerId, u32)>,
    /// Members that it knows, itself included.
    pub members: Vec<NodeId>,
    /// The queue's controls as it knows them.
    pub controls: Controls,
    /// What its register of tokens adds up to; `None`: it has none.
    pub tokens: Option<u64>,
    /// Where its metrics are, `host:port`; `None`: it does not say.
    pub metrics: Option<Arc<str>>,
    /// Workflow templates that it has.
    pub templates: Vec<Shelved>,
    /// What it can do that the first version could not, by name.
    pub features: BTreeSet<Arc<str>>,
    /// Nodes that are gone for ever, as far as it knows.
    pub forgotten: Vec<Forgotten>,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// The sender's starts so far.
    pub boot: u64,
    /// The version of its newest [`Hello`].
    pub version: u32,
    /// Room now, by worker.
    pub free: Vec<(WorkerId, u32)>,
    /// Ready tasks that it owns.
    pub queued: u64,
    /// Version of its controls.
    pub controls: (u64, NodeId),
    /// What its register of tokens adds up to; `None`: it has none.
    pub tokens: Option<u64>,
}

/// What the whole queue obeys. The greater version wins (a last-writer-wins
/// register with a Lamport clock).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Lamport count, then the writer.
    pub version: (u64, NodeId),
    /// No new starts.
    pub paused: Option<Pause>,
    /// Counts the orders to give every queued task its place anew.
    pub reorder: u64,
}

/// An order to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Which task.
    pub task: TaskId,
    /// Under which fence.
    pub fence: Fence,
    /// In which worker.
    pub worker: WorkerId,
    /// The executor's boot that it was meant for: a node that restarted
    /// declines, so that no fence runs twice. 0 where the owner does not know it:
    /// then only one that has the grant already goes on with it.
    pub boot: u64,
    /// What to run.
    pub spec: Arc<Spec>,
    /// Whom to tell the result.
    pub holders: Vec<NodeId>,
    /// There may be no room for it: what comes free is to be kept for it.
    pub ahead: bool,
}

/// What an owner uses and wants of one limit of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitAsk {
    /// The limit, as text.
    pub limit: Arc<str>,
    /// When, by the asker's clock: comes back with the answer.
    pub asked: Millis,
    /// Granted now, or since the asker started where it is a rate.
    pub used: u64,
    /// The most that it may be, as far as the asker knows.
    pub holds: u64,
    /// Ready tasks that wait.
    pub wanted: u64,
}

/// What an owner may use of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The limit, as text.
    pub limit: Arc<str>,
    /// When it was asked for.
    pub asked: Millis,
    /// In all, as `used` counts.
    pub allowed: u64,
}

/// Why a grant was declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// No room in that worker.
    Busy,
    /// No such worker (any more), or it is draining.
    NoWorker,
    /// The queue is paused.
    Paused,
    /// The node restarted since: whatever ran is lost.
    Restarted,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Of which task.
    pub task: TaskId,
    /// Under which grant.
    pub fence: Fence,
    /// How it went.
    pub verdict: crate::execution::Verdict,
    /// What it left.
    pub report: Report,
    /// How long ago it started, by the executor's clock; `None`: it never did.
    pub started: Option<crate::Millis>,
    /// Room in its worker now.
    pub free: Vec<(WorkerId, u32)>,
}
