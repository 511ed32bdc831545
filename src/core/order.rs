//! The orders in which ready tasks may run, each as a place that is computed
//! once: tasks age alike, so the order of two of them never changes while they
//! wait, and a sorted set holds it although urgency grows with time.
//!
//! Whatever the algorithm, nothing that became ready more than
//! `Order::patience` after a task goes before it (within one share of
//! `shares`): that is the bound of starvation.

use crate::task::{Priority, Spec};
use crate::time::{Millis, Unix};

/// What decides the order of ready tasks. Ties go to the earlier deadline, then
/// the earlier submission, then the lesser id: every order is total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheduling {
    /// The time at which a task became ready.
    Fifo,
    /// That time, less a head start of one ageing span for each doubling of the
    /// priority.
    #[default]
    Priority,
    /// The deadline (EDF: Liu, Layland: "Scheduling algorithms for
    /// multiprogramming in a hard-real-time environment", 1973). A task without
    /// one, or with one beyond the bound of starvation, has that bound instead.
    Deadline,
    /// The weighted mean of the two before. At time t a task's urgency is
    /// `(1 − w) · (t − ready + head start) − w · (deadline − t)`: it is different
    /// at every moment, and rises for all tasks by the same, so that the part
    /// without t decides.
    PriorityDeadline,
}

impl Scheduling {
    /// Every one.
    pub const ALL: [Scheduling; 4] =
        [Scheduling::Fifo, Scheduling::Priority, Scheduling::Deadline, Scheduling::PriorityDeadline];

    /// Its name in the configuration and in `queue_stats`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scheduling::Fifo => "fifo",
            Scheduling::Priority => "priority",
            Scheduling::Deadline => "deadline",
            Scheduling::PriorityDeadline => "priority_deadline",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Scheduling> {
        Scheduling::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// A place in the queue; the least is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    key: i64,
    deadline: Unix,
    submitted: Unix,
}

/// Gives places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) scheduling: Scheduling,
    /// What a doubling of priority is worth.
    ageing: Millis,
    /// Percent: how much the deadline counts in [`Scheduling::PriorityDeadline`].
    deadline_weight: u32,
}

/// Doublings from the least priority to the greatest: see
/// [`Priority::head_start`].
const DOUBLINGS: u64 = 128;

impl Order {
    pub(crate) fn new(scheduling: Scheduling, ageing: Millis, deadline_weight: u32) -> Order {
        Order { scheduling, ageing, deadline_weight: deadline_weight.min(100) }
    }

    /// What became ready so much later never goes first.
    pub(crate) fn patience(&self) -> Millis {
        Millis(self.ageing.0.saturating_mul(DOUBLINGS))
    }

    pub(crate) fn place(&self, since: Unix, priority: Priority, spec: &Spec) -> Place {
        let ready = i64::try_from(since.0).unwrap_or(i64::MAX);
        let aged = ready.saturating_sub(priority.head_start(self.ageing));
        let last = ready.saturating_add(i64::try_from(self.patience().0).unwrap_or(i64::MAX));
        let due = spec.deadline.map_or(last, |d| i64::try_from(d.0).unwrap_or(i64::MAX).clamp(ready, last));
        let key = match self.scheduling {
            Scheduling::Fifo => ready,
            Scheduling::Priority => aged,
            Scheduling::Deadline => due,
            Scheduling::PriorityDeadline => self.mean(aged, due),
        };
        Place { key, deadline: spec.deadline.unwrap_or(Unix(u64::MAX)), submitted: spec.submitted_at }
    }

    fn mean(&self, aged: i64, due: i64) -> i64 {
        let weight = i128::from(self.deadline_weight);
        let sum = i128::from(aged) * (100 - weight) + i128::from(due) * weight;
        i64::try_from(sum.div_euclid(100)).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;
    use proptest::prelude::*;

    const AGEING: Millis = Millis(1_000);

    fn due(at: Option<u64>) -> Spec {
        Spec { deadline: at.map(Unix), ..spec() }
    }

    #[test]
    fn each_algorithm_orders_by_what_it_is_named_after() {
        let urgent = Priority::new(8.0).expect("above 0");
        let place = |scheduling, since, priority, deadline| {
            Order::new(scheduling, AGEING, 50).place(Unix(since), priority, &due(deadline))
        };
        let normal = Priority::NORMAL;
        let fifo = |since, priority| place(Scheduling::Fifo, since, priority, None);
        assert!(fifo(10_000, normal) < fifo(10_001, urgent));
        let by_priority = |since, priority| place(Scheduling::Priority, since, priority, None);
        assert!(by_priority(12_000, urgent) < by_priority(10_000, normal));
        assert!(by_priority(10_000, normal) < by_priority(13_001, urgent));
        let edf = |since, deadline| place(Scheduling::Deadline, since, urgent, deadline);
        assert!(edf(10_000, Some(90_000)) < edf(9_000, Some(90_001)));
        assert!(edf(10_000, Some(137_999)) < edf(10_000, None), "none last");
        assert!(edf(10_000, Some(999_999)) < edf(10_000, None), "a far deadline before none");
        let both = |priority, deadline| place(Scheduling::PriorityDeadline, 10_000, priority, deadline);
        assert!(both(urgent, Some(50_000)) < both(normal, Some(50_000)));
        assert!(both(normal, Some(20_000)) < both(normal, Some(30_000)));
        assert!(both(normal, Some(40_000)) < both(urgent, Some(50_000)), "10 s of slack outweigh 3 doublings");
        assert!(both(urgent, Some(50_000)) < both(normal, Some(48_000)), "2 s do not");
    }

    #[test]
    fn names_are_read_back() {
        for scheduling in Scheduling::ALL {
            assert_eq!(Scheduling::from_name(scheduling.name()), Some(scheduling));
        }
        assert_eq!(Scheduling::from_name("random"), None);
    }

    proptest! {
        /// The bound of starvation: however urgent what comes later, a task
        /// waits for nothing that becomes ready 128 spans of ageing after it.
        #[test]
        fn ageing_bounds_every_wait(
            algorithm in 0usize..4,
            weight in 0u32..101,
            priorities in (1e-30f64..1e30, 1e-30f64..1e30),
            deadlines in (proptest::option::of(0u64..4_000_000), proptest::option::of(0u64..4_000_000)),
            later in 0u64..1_000_000,
        ) {
            let order = Order::new(Scheduling::ALL[algorithm], AGEING, weight);
            let priority = |p| Priority::new(p).expect("above 0");
            let since = 1_000_000;
            let early = order.place(Unix(since), priority(priorities.0), &due(deadlines.0));
            let late = order.place(Unix(since + later), priority(priorities.1), &due(deadlines.1));
            if later > order.patience().0 {
                prop_assert!(early < late);
            }
            prop_assert!((early < late) != (late < early) || early == late);
        }

        /// What the sorted set relies on: urgency as a function of time never
        /// changes the order of two tasks.
        #[test]
        fn urgency_rises_for_all_alike(
            weight in 0u32..101,
            ready in (0u64..100_000, 0u64..100_000),
            slack in (0u64..100_000, 0u64..100_000),
            after in 0u64..1_000_000,
        ) {
            let order = Order::new(Scheduling::PriorityDeadline, AGEING, weight);
            let w = i128::from(weight);
            let urgency = |ready: u64, slack: u64, t: u64| {
                (100 - w) * (i128::from(t) - i128::from(ready)) - w * (i128::from(ready + slack) - i128::from(t))
            };
            let place = |ready: u64, slack: u64| order.place(Unix(ready), Priority::NORMAL, &due(Some(ready + slack)));
            let now = ready.0.max(ready.1);
            for t in [now, now + after] {
                let (one, two) = (urgency(ready.0, slack.0, t), urgency(ready.1, slack.1, t));
                // Keys are whole milliseconds: less than one is a tie.
                if one >= two + 100 {
                    prop_assert!(place(ready.0, slack.0) < place(ready.1, slack.1));
                }
            }
        }
    }
}
