//! What a user may choose of the core's behaviour.

use crate::cache::Bounds;
use crate::features::Feature;
use crate::order::Scheduling;
use crate::permits::Limit;
use crate::time::Millis;
use crate::token::RootKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The core's settings. The defaults are right for a fleet on one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How often a node says that it lives. 100 ms to a third of `lease`.
    pub beat: Millis,
    /// How long one beat lasts: an owner or executor silent for longer is
    /// replaced.
    pub lease: Millis,
    /// How far apart the holders of one record try to claim it.
    pub stagger: Millis,
    /// How often what was not answered is sent again.
    pub retransmit: Millis,
    /// How long a holder may be silent before another takes its place.
    pub away: Millis,
    /// Copies of a task in a mesh of at least that many nodes: 1, 3 or 5.
    pub holders: usize,
    /// The order of ready tasks.
    pub scheduling: Scheduling,
    /// What each doubling of priority is worth as a head start in the queue.
    pub ageing: Millis,
    /// Percent, 0 to 100: how much the deadline counts against the priority in
    /// [`Scheduling::PriorityDeadline`].
    pub deadline_weight: u32,
    /// Weights of values of `fairness_key`, in thousandths, above 0; 1,000 for
    /// the others.
    pub fairness_weights: BTreeMap<Arc<str>, u64>,
    /// What may run at once, or start in a period, in the whole mesh; at most
    /// [`limits::LIMITS`](crate::limits::LIMITS).
    pub limits: Vec<Limit>,
    /// What it keeps of results for tasks that may take earlier ones.
    pub cache: Bounds,
    /// How long a task waits for more of a resource than any worker has free
    /// before a worker's room is kept for it.
    pub reserve: Millis,
    /// How long an ended task is kept.
    pub retention: Millis,
    /// How many ended tasks a node keeps of its own; the oldest go first.
    pub retained_tasks: usize,
    /// Open tasks that a node owns at most; more are `resource_exhausted`.
    pub open_tasks: usize,
    /// Features that this node does not have, as if it were of a version before
    /// them.
    pub without: BTreeSet<Feature>,
    /// Work granted ahead to a worker, in the time that it takes to run:
    /// hides the round trip between short tasks, and leaves long ones free
    /// to go elsewhere.
    pub prefetch: Millis,
    /// What an executor gets beyond a task's timeout before its owner stops
    /// waiting for it.
    pub grace: Millis,
    /// Attempts that a task may lose with their nodes before it fails.
    pub crash_limit: u32,
    /// How long a node waits for another's answer to a forwarded request.
    pub request_timeout: Millis,
    /// This node has been told of others: until it has heard one of them it
    /// accepts nothing, because it can't know who the holders should be.
    pub joins: bool,
    /// What the shell can execute: `echo`, `exec:sha256sum`, …: a worker's
    /// capabilities are among these.
    pub executors: Vec<Arc<str>>,
    /// What callers' tokens are verified with; `None`: none holds.
    pub root: Option<RootKey>,
    /// A planted bug, for checking that the invariants would catch it.
    #[doc(hidden)]
    pub planted: Option<Planted>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            beat: Millis(1_000),
            lease: Millis(5_000),
            stagger: Millis(1_000),
            retransmit: Millis(500),
            away: Millis(30_000),
            holders: 3,
            scheduling: Scheduling::default(),
            ageing: Millis(300_000),
            deadline_weight: 50,
            fairness_weights: BTreeMap::new(),
            limits: Vec::new(),
            cache: Bounds::default(),
            reserve: Millis(30_000),
            retention: Millis(24 * 3_600_000),
            retained_tasks: 100_000,
            open_tasks: 500_000,
            without: BTreeSet::new(),
            prefetch: Millis(20),
            grace: Millis(15_000),
            crash_limit: 10,
            request_timeout: Millis(5_000),
            joins: false,
            executors: Vec::new(),
            root: None,
            planted: None,
        }
    }
}

/// Mistakes that the simulator plants to see its own checks fail. Never set by
/// a shell: there is no flag or file that reaches it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Promise with the owner's own copy alone.
    PromiseAlone,
    /// Take a result with any fence.
    AnyFence,
    /// Let a holder accept below its pledge.
    PledgeDown,
    /// Never replace a holder that is gone for ever.
    NeverMend,
    /// Replace holders in one step.
    MendInOneStep,
    /// Accept with fewer holders than the full number.
    AcceptShort,
    /// Let a node claim what it no longer keeps.
    ClaimUnkept,
    /// Act as owner without a majority of pledges.
    ClaimAlone,
    /// Start a task before what it depends on.
    IgnoreDependencies,
    /// Take tasks over the bound.
    Unbounded,
    /// Forget an accepted task at a restart.
    ForgetAtRestart,
    /// Drop the retransmission of offers.
    NeverResend,
    /// Let urgent tasks go first for as long as any come.
    NeverAge,
    /// Lend the whole of a limit to whoever asks.
    LendFreely,
    /// Take a step for completed as soon as it has begun.
    IgnoreJoins,
    /// Take every condition of a step for true.
    IgnoreConditions,
    /// Let an owner that takes a workflow over begin its steps anew.
    BeginAnew,
    /// Let an owner that takes an array over skip the items that were under way.
    SkipItems,
    /// Let an heir of a schedule leave out some ticks.
    ForgetTicks,
    /// Let one of the holders that are left decide what the others have.
    InheritAlone,
}
