//! What a task is ([`Spec`]), what it is doing ([`TaskState`]) and how it ended
//! ([`Closed`]); the retry policy and the order of priorities.

use crate::cache::{Caching, Source};
use crate::ids::{BlobHash, NodeId, TaskId, WorkerId};
use crate::limits;
use crate::placement::{Alternative, Condition, Placement};
use crate::prng::Prng;
use crate::time::{Millis, Unix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the submitter said, once and for ever. Stored and sent once for each
/// holder, not with each revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which executor runs it (`echo`, `sleep`, `fail`, `exec`, …).
    pub task_type: Arc<str>,
    /// JSON text of the executor's input.
    pub payload: Arc<[u8]>,
    /// For filters.
    pub tags: Vec<Arc<str>>,
    /// JSON text, kept for the caller and never read.
    pub metadata: Option<Arc<str>>,
    /// The longest that one attempt may run.
    pub timeout: Option<Millis>,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// What a worker must have.
    pub requirements: Requirements,
    /// Not started before this time.
    pub not_before: Option<Unix>,
    /// `expired` if it has not ended by this time.
    pub deadline: Option<Unix>,
    /// Tasks that must complete first.
    pub depends_on: Vec<TaskId>,
    /// For fair sharing among users or projects.
    pub fairness_key: Option<Arc<str>>,
    /// How many copies an `accepted` waits for.
    pub durability: Durability,
    /// A grant waits until a majority knows of it, so that a lost owner never
    /// causes a second run at the same time.
    pub exclusive: bool,
    /// The caller's own key for repeating a submission safely.
    pub idempotency_key: Option<Arc<str>>,
    /// The task that this one tries again.
    pub retry_of: Option<TaskId>,
    /// When the accepting node took it.
    pub submitted_at: Unix,
    /// The trace that it belongs to, as a `traceparent` (W3C Trace Context).
    pub trace: Option<Arc<str>>,
    /// The subject of the token that it was submitted with, as the accepting
    /// node verified it; `None`: a node of an older version took it.
    pub submitter: Option<Arc<str>>,
    /// What it does with results of earlier tasks; `None`: nothing.
    pub cache: Option<Caching>,
}

/// How many copies a promise waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// A majority of the holders.
    #[default]
    Replicated,
    /// The accepting node's disk alone.
    Local,
}

/// What a worker must have to run a task. Fractions are in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirements {
    /// Capabilities beside the task's type. `a:b` is met by `a:b` or `a:*`.
    pub capabilities: Vec<Arc<str>>,
    /// Labels that must be equal.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Amounts held while it runs.
    pub resources: Resources,
    /// What else must hold of labels.
    pub selector: Vec<Condition>,
    /// One of these must be met too, if there are any.
    pub any_of: Vec<Alternative>,
    /// Which worker is preferred.
    pub placement: Placement,
    /// Tasks with the same key prefer the same worker.
    pub affinity_key: Option<Arc<str>>,
}

/// Amounts of what can be used up. In a worker: what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB.
    pub memory_mb: u64,
    /// Thousandths of a GPU.
    pub gpu_milli: u64,
    /// Anything else that is counted, in thousandths.
    pub named: BTreeMap<Arc<str>, u64>,
}

impl Requirements {
    /// About what they take in a message.
    pub(crate) fn bytes(&self) -> usize {
        let own = bytes_of(&self.capabilities, &self.labels, &self.selector) + self.resources.bytes();
        let way = |w: &Alternative| bytes_of(&w.capabilities, &w.labels, &w.selector) + w.resources.bytes() + 8;
        own + self.any_of.iter().map(way).sum::<usize>() + self.affinity_key.as_ref().map_or(0, |k| k.len()) + 8
    }

    /// What decides which workers are feasible: the rest is the task's own.
    pub(crate) fn class(&self) -> Requirements {
        Requirements { affinity_key: None, ..self.clone() }
    }

    /// Some resource is held, in one way or another.
    pub(crate) fn hold_something(&self) -> bool {
        !self.resources.is_empty() || self.any_of.iter().any(|way| !way.resources.is_empty())
    }
}

fn bytes_of(names: &[Arc<str>], labels: &BTreeMap<Arc<str>, Arc<str>>, selector: &[Condition]) -> usize {
    names.iter().map(|c| c.len() + 4).sum::<usize>()
        + labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>()
        + selector.iter().map(Condition::bytes).sum::<usize>()
}

impl Resources {
    /// About what they take in a message.
    pub(crate) fn bytes(&self) -> usize {
        self.named.keys().map(|k| k.len() + 16).sum::<usize>() + 40
    }

    /// Whether `self` covers `need`.
    #[must_use]
    pub fn covers(&self, need: &Resources) -> bool {
        self.cpu_milli >= need.cpu_milli
            && self.memory_mb >= need.memory_mb
            && self.gpu_milli >= need.gpu_milli
            && need.named.iter().all(|(k, n)| *n == 0 || self.named.get(k).is_some_and(|have| have >= n))
    }

    /// Adds `more`, up to the most that there can be.
    pub fn add(&mut self, more: &Resources) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory_mb = self.memory_mb.saturating_add(more.memory_mb);
        self.gpu_milli = self.gpu_milli.saturating_add(more.gpu_milli);
        for (k, n) in &more.named {
            let have = self.named.entry(k.clone()).or_default();
            *have = have.saturating_add(*n);
        }
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, more: &Resources) -> Resources {
        let mut sum = self.clone();
        sum.add(more);
        sum
    }

    /// Each amount with its name and what one of it is called in.
    fn amounts(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let fixed =
            [("cpus", self.cpu_milli, 1_000), ("memory_mb", self.memory_mb, 1), ("gpus", self.gpu_milli, 1_000)];
        fixed.into_iter().chain(self.named.iter().map(|(name, n)| (&**name, *n, 1_000)))
    }

    fn amount(&self, name: &str) -> u64 {
        self.amounts().find(|(n, ..)| *n == name).map_or(0, |(_, n, _)| n)
    }

    /// The first resource of which `self`, with `held` taken, has less than is
    /// needed, for people.
    pub(crate) fn short_of(&self, held: &Resources, need: &Resources) -> Option<String> {
        let short = |(name, wanted, unit): (&str, u64, u64)| {
            let has = self.amount(name).saturating_sub(held.amount(name));
            let shown = |n: u64| n as f64 / unit as f64;
            (has < wanted).then(|| format!("{} of {} {name}", shown(has), shown(wanted)))
        };
        need.amounts().find_map(short)
    }

    /// The greatest share of `self` that `held` and `need` take together, of
    /// what is needed, in thousandths.
    pub(crate) fn taken(&self, held: &Resources, need: &Resources) -> u64 {
        let share = |(name, wanted, _): (&str, u64, u64)| {
            let sum = u128::from(held.amount(name)) + u128::from(wanted);
            u64::try_from(sum * 1_000 / u128::from(self.amount(name).max(1))).unwrap_or(u64::MAX)
        };
        need.amounts().filter(|(_, wanted, _)| *wanted > 0).map(share).max().unwrap_or(0)
    }

    /// Takes `less` away, down to zero.
    pub fn subtract(&mut self, less: &Resources) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory_mb = self.memory_mb.saturating_sub(less.memory_mb);
        self.gpu_milli = self.gpu_milli.saturating_sub(less.gpu_milli);
        for (k, n) in &less.named {
            if let Some(have) = self.named.get_mut(k) {
                *have = have.saturating_sub(*n);
            }
        }
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu_milli == 0 && self.memory_mb == 0 && self.gpu_milli == 0 && self.named.values().all(|n| *n == 0)
    }
}

/// Exponential back-off between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts after the first, 0 to 1,000.
    pub max_retries: u32,
    /// Each wait is this times the one before; 1.0 to 100.0.
    pub backoff_factor: f64,
    /// The first wait.
    pub initial_delay: Millis,
    /// The longest wait.
    pub max_delay: Millis,
    /// Wait between half and all of it, by chance ("equal jitter": Brooker,
    /// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_retries: 3,
            backoff_factor: 2.0,
            initial_delay: Millis(1_000),
            max_delay: Millis(300_000),
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// The wait after failure number `failures` (from 1).
    pub fn delay(&self, failures: u32, chance: &mut Prng) -> Millis {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial_delay.0 as f64 * self.backoff_factor.powi(exponent);
        let full = if grown.is_finite() { (grown as u64).min(self.max_delay.0) } else { self.max_delay.0 };
        if !self.jitter {
            return Millis(full);
        }
        Millis(full / 2 + chance.below(full / 2 + 1))
    }
}

/// How urgent: finite, above 0, default 1; higher runs earlier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Priority(f64);

impl Priority {
    /// The default.
    pub const NORMAL: Priority = Priority(1.0);

    /// `None` unless `value` is finite and above 0.
    #[must_use]
    pub fn new(value: f64) -> Option<Priority> {
        (value.is_finite() && value > 0.0).then_some(Priority(value))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }

    /// The head start over priority 1, where each doubling is worth `ageing`.
    /// Since every waiting task ages at the same rate, the order of two tasks
    /// never changes while they wait: a sorted set holds it. Doublings are
    /// bounded by ±64, so nothing waits more than 128 × `ageing` longer than
    /// the most urgent work that came with it.
    #[must_use]
    pub fn head_start(self, ageing: Millis) -> i64 {
        let doublings = self.0.log2().clamp(-64.0, 64.0);
        (doublings * ageing.0 as f64) as i64
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::NORMAL
    }
}

/// The part of a record that its owner changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// As last set.
    pub priority: Priority,
    /// Grants so far; the number of the current one.
    pub attempt: u32,
    /// Attempts that failed by themselves: the retry policy counts these.
    pub failures: u32,
    /// Attempts lost with their node: not the task's fault.
    pub crashes: u32,
    /// Times that `task_retry` made a new task of it.
    pub retries: u32,
    /// Somebody asked a running task to stop.
    pub cancel: Option<CancelRequest>,
    /// What the last failed attempt said.
    pub last_error: Option<Arc<str>>,
    /// What it is doing.
    pub state: TaskState,
}

/// A wish to stop a task that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// For the record.
    pub reason: Option<Arc<str>>,
    /// Kill rather than ask.
    pub force: bool,
}

/// What a task is doing; each state carries its facts.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskState {
    /// Waits for other tasks to complete.
    Blocked,
    /// Waits for a time: `not_before` or a back-off.
    Delayed {
        /// Until then.
        until: Unix,
    },
    /// Ready for a worker.
    Queued {
        /// Since when it is ready: it ages from here.
        since: Unix,
        /// The priority that its place was given by.
        place: Priority,
    },
    /// Granted. Whether it has started is known to its owner alone
    /// (the view says `running` from then on).
    Leased {
        /// Where.
        executor: NodeId,
        /// In which of its workers.
        worker: WorkerId,
        /// Since when.
        since: Unix,
    },
    /// Ended.
    Done(Arc<Closed>),
}

impl TaskState {
    /// How it ended, if it did.
    #[must_use]
    pub fn closed(&self) -> Option<&Closed> {
        match self {
            TaskState::Done(closed) => Some(closed),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } | TaskState::Leased { .. } => {
                None
            }
        }
    }
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Unix,
    /// Where its last attempt ran, if any did.
    pub executor: Option<(NodeId, WorkerId)>,
    /// When its last attempt started.
    pub started_at: Option<Unix>,
    /// What that attempt left.
    pub report: Option<Report>,
    /// The run of another task that left it, where none of its own did.
    pub cached_from: Option<Source>,
}

/// How a task ended. Never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its program ended well.
    Completed,
    /// Its attempts are used up.
    Failed {
        /// What the last one said.
        error: Arc<str>,
    },
    /// Somebody stopped it, or what it depended on did not complete.
    Cancelled {
        /// Why.
        reason: Option<Arc<str>>,
    },
    /// Its deadline passed.
    Expired,
}

/// What an attempt left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// JSON text of the result; `null` where the executor has none.
    pub result: Data,
    /// Standard output, where there is such a thing.
    pub output: Option<Data>,
    /// Standard error, or the executor's own log.
    pub logs: Option<Data>,
    /// Some of it was over the cap and was cut.
    pub truncated: bool,
    /// What it used, as far as it was measured.
    pub usage: Usage,
}

impl Report {
    /// The blobs that it refers to.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobHash, u64)> + '_ {
        [Some(&self.result), self.output.as_ref(), self.logs.as_ref()].into_iter().flatten().filter_map(|d| match d {
            Data::Inline(_) => None,
            Data::Blob { hash, bytes } => Some((*hash, *bytes)),
        })
    }
}

/// Bytes in the record, or the name of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// At most [`limits::INLINE_BYTES`].
    Inline(Arc<[u8]>),
    /// Kept in a file by every holder.
    Blob {
        /// Its content's hash.
        hash: BlobHash,
        /// Its size.
        bytes: u64,
    },
}

impl Default for Data {
    fn default() -> Data {
        Data::Inline(Arc::from(&b"null"[..]))
    }
}

impl Data {
    /// The size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Data::Inline(content) => content.len() as u64,
            Data::Blob { bytes, .. } => *bytes,
        }
    }

    /// The bytes that travel with the record.
    pub(crate) fn inline_len(&self) -> usize {
        match self {
            Data::Inline(content) => content.len(),
            Data::Blob { .. } => 0,
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it keeps the limit on what a record may carry.
    #[must_use]
    pub fn fits(&self) -> bool {
        match self {
            Data::Inline(content) => content.len() <= limits::INLINE_BYTES,
            Data::Blob { .. } => true,
        }
    }
}

/// What an attempt used. `None`: not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From start to end.
    pub wall: Option<Millis>,
    /// In user mode.
    pub cpu_user: Option<Millis>,
    /// In the kernel.
    pub cpu_system: Option<Millis>,
    /// The most memory held at once, KiB.
    pub max_rss_kib: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_cap_and_jitter_keeps_at_least_half() {
        let plain = RetryPolicy { jitter: false, ..RetryPolicy::default() };
        let mut chance = Prng::new(1);
        let waits: Vec<_> = (1..=10).map(|n| plain.delay(n, &mut chance).0).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000]);
        for n in 1..2_000 {
            let full = plain.delay(n, &mut chance).0;
            let jittered = RetryPolicy::default().delay(n, &mut chance).0;
            assert!(jittered >= full / 2 && jittered <= full, "{jittered} of {full}");
        }
    }

    #[test]
    fn a_priority_is_finite_and_above_zero() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Priority::new(bad), None);
        }
        assert!(Priority::new(f64::MAX).is_some());
    }

    #[test]
    fn each_doubling_of_priority_is_worth_the_ageing_span() {
        let ageing = Millis(1_000);
        assert_eq!(Priority::NORMAL.head_start(ageing), 0);
        assert_eq!(Priority(4.0).head_start(ageing), 2_000);
        assert_eq!(Priority(0.5).head_start(ageing), -1_000);
        assert_eq!(Priority(f64::MAX).head_start(ageing), 64_000);
    }
}
