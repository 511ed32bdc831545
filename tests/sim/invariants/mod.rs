//! What must hold, whatever happens: one file each. `planted.rs` shows of each
//! that it would notice.

mod accepted_kept;
mod accepted_once;
mod answered_once;
mod dag_order;
mod exclusive_alone;
mod finishes;
mod holders_converge;
mod item_settled_once;
mod join_policy_kept;
mod known_everywhere;
mod limit_overshoot_bounded;
mod no_starvation;
mod one_granting_owner;
mod outcome_unique;
mod paused_starts_nothing;
mod pledge_monotonic;
mod queue_bounded;
mod result_earned;
mod step_released_once;
mod tick_fires_once;

use crate::agenda::Time;
use crate::oracle::Ending;
use crate::world::World;
use taskmesh_core::message::Grant;
use taskmesh_core::{Ballot, Effect, Fence, Key, Record, Refusal, Reply, RequestId, Spec, TaskId};

/// Something that the world shows as it happens.
pub(crate) enum Seen<'a> {
    /// A node's batch, before any of it is done.
    Batch { node: usize, effects: &'a [Effect] },
    /// A node is about to keep this version; its disk still has the one before.
    Kept { node: usize, pledge: Ballot, record: &'a Record },
    /// A node is about to pledge for a task that it has nothing of.
    Vowed { node: usize, task: &'a TaskId, ballot: Ballot },
    /// A node is about to forget.
    Forgotten { node: usize, key: &'a Key },
    /// A node grants to another.
    Granted { node: usize, to: usize, grant: &'a Grant },
    /// A node's executor starts a run.
    Started { node: usize, task: &'a TaskId, fence: Fence, spec: &'a Spec },
    /// A client was told that its task is accepted.
    Accepted { node: usize, task: &'a TaskId },
    /// A client was told how a task ended.
    Told { node: usize, task: &'a TaskId, ending: &'a Ending },
    /// A majority came to have another outcome than it had.
    DecidedAnew { task: &'a TaskId, before: &'a Ending, after: &'a Ending },
    /// An answer to nobody.
    Unasked { node: usize, id: RequestId, reply: &'a Result<Reply, Refusal> },
    /// A node did not know a task that had ended for sure.
    Unknown { node: usize, task: &'a TaskId, answer: &'a Result<Reply, Refusal> },
}

impl Seen<'_> {
    /// The task that it is about.
    pub(crate) fn task(&self) -> Option<&TaskId> {
        match self {
            Seen::Kept { record, .. } => Some(&record.task),
            Seen::Granted { grant, .. } => Some(&grant.task),
            Seen::Forgotten { key: Key::Task(task) | Key::Pledge(task), .. } => Some(task),
            Seen::Vowed { task, .. }
            | Seen::Started { task, .. }
            | Seen::Accepted { task, .. }
            | Seen::Told { task, .. }
            | Seen::DecidedAnew { task, .. }
            | Seen::Unknown { task, .. } => Some(task),
            Seen::Batch { .. } | Seen::Unasked { .. } | Seen::Forgotten { .. } => None,
        }
    }
}

/// Something that must hold.
pub(crate) trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at what happens. An error says what is wrong.
    fn see(&mut self, _world: &World, _seen: &Seen<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Looks at the world after it was healed and had its time.
    fn at_rest(&mut self, _world: &World) -> Vec<String> {
        Vec::new()
    }
}

/// A breach.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// When.
    pub(crate) at: Time,
    /// Of what.
    pub(crate) invariant: &'static str,
    /// How.
    pub(crate) problem: String,
}

impl Violation {
    /// A breach of `invariant`.
    pub(crate) fn new(at: Time, invariant: &'static str, problem: String) -> Violation {
        Violation { at, invariant, problem }
    }
}

/// Whether something is still to end or to converge.
pub(crate) fn unfinished_business(world: &World) -> bool {
    finishes::unfinished(world).next().is_some() || !holders_converge::diverged(world).is_empty()
}

/// Tasks lost (or never ended), told two outcomes, and accepted twice.
pub(crate) fn headline(world: &World) -> (u64, u64, u64) {
    let lost = accepted_kept::lost(world).count() + finishes::unfinished(world).count();
    let conflicting = outcome_unique::conflicting(world).count();
    (lost as u64, conflicting as u64, accepted_once::twice(world).count() as u64)
}

/// Each of them, new.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(accepted_kept::AcceptedKept),
        Box::new(accepted_once::AcceptedOnce),
        Box::new(answered_once::AnsweredOnce),
        Box::new(dag_order::DagOrder),
        Box::new(exclusive_alone::ExclusiveAlone),
        Box::new(finishes::Finishes),
        Box::new(holders_converge::HoldersConverge),
        Box::new(item_settled_once::ItemSettledOnce),
        Box::new(join_policy_kept::JoinPolicyKept),
        Box::new(known_everywhere::KnownEverywhere),
        Box::new(limit_overshoot_bounded::LimitOvershootBounded),
        Box::new(no_starvation::NoStarvation::default()),
        Box::new(one_granting_owner::OneGrantingOwner::default()),
        Box::new(outcome_unique::OutcomeUnique),
        Box::new(paused_starts_nothing::PausedStartsNothing),
        Box::new(pledge_monotonic::PledgeMonotonic),
        Box::new(queue_bounded::QueueBounded),
        Box::new(result_earned::ResultEarned),
        Box::new(step_released_once::StepReleasedOnce::default()),
        Box::new(tick_fires_once::TickFiresOnce::default()),
    ]
}
