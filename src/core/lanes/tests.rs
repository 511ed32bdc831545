//! Who is served, in which order: shares by weight, none starving.

use super::*;
use crate::order::Scheduling;
use crate::testing::spec;
use proptest::prelude::*;

fn queue(ageing: Millis, weights: &[(&str, u64)]) -> Queue {
    let weights = weights.iter().map(|(k, w)| (Arc::from(*k), *w)).collect();
    Queue::new(Order::new(Scheduling::Priority, ageing, 50), &weights, Vec::new())
}

fn of(share: Option<&str>) -> Spec {
    Spec { fairness_key: share.map(Arc::from), ..spec() }
}

fn task(n: u64) -> TaskId {
    TaskId::new(&format!("t{n:06}")).expect("a valid id")
}

/// A queue with one slot: what is granted runs for as long as its share's
/// tasks do, then the next is granted.
struct Slot {
    queue: Queue,
    now: Millis,
    specs: BTreeMap<TaskId, (Spec, Unix)>,
}

impl Slot {
    fn new(queue: Queue) -> Slot {
        Slot { queue, now: Millis(1_000), specs: BTreeMap::new() }
    }

    fn add(&mut self, n: u64, share: Option<&str>) {
        let since = Unix(self.now.0);
        self.specs.insert(task(n), (of(share), since));
        self.queue.insert(task(n), since, Priority::NORMAL, &of(share), self.now);
    }

    /// Grants the next task and lets it run for `ran`; gives its share.
    fn serve(&mut self, ran: impl Fn(&Share) -> u64) -> Option<(TaskId, Share)> {
        let starving = self.queue.starving(self.now).next().map(|(lane, share)| (lane, Some(share.clone())));
        let (lane, share) = starving.or_else(|| self.queue.next_front(None).map(|(_, lane)| (lane, None)))?;
        let task = self.queue.lane(lane)?.first(share.as_ref())?.clone();
        let (spec, since) = self.specs.remove(&task)?;
        self.queue.fed(&spec, self.now);
        self.queue.remove(&task, since, Priority::NORMAL, &spec);
        self.queue.charge(&task, &spec, self.now);
        self.now = self.now + Millis(ran(&spec.fairness_key));
        self.queue.settle(&task, self.now);
        self.queue.check(self.specs.len());
        Some((task, spec.fairness_key))
    }
}

#[test]
fn shares_get_time_by_weight_whatever_their_tasks_take() {
    let mut slot = Slot::new(queue(Millis(300_000), &[("ann", 3_000)]));
    for n in 0..600 {
        slot.add(n, Some("ann"));
        slot.add(1_000 + n, Some("bob"));
    }
    // Bob's tasks run five times as long: he gets fewer of them.
    let ran = |share: &Share| if share.as_deref() == Some("bob") { 50 } else { 10 };
    let mut time: BTreeMap<Share, u64> = BTreeMap::new();
    for _ in 0..400 {
        let (_, share) = slot.serve(ran).expect("both have tasks left");
        *time.entry(share.clone()).or_default() += ran(&share);
    }
    let (ann, bob) = (time[&Some("ann".into())], time[&Some("bob".into())]);
    let ratio = ann as f64 / bob as f64;
    assert!((2.8..3.2).contains(&ratio), "ann {ann} ms, bob {bob} ms");
}

#[test]
fn who_was_away_gets_no_more_than_its_share_afterwards() {
    let mut slot = Slot::new(queue(Millis(300_000), &[]));
    (0..300).for_each(|n| slot.add(n, Some("ann")));
    (0..100).for_each(|_| assert!(slot.serve(|_| 10).is_some()));
    (1_000..1_300).for_each(|n| slot.add(n, Some("bob")));
    let served: Vec<_> = (0..40).map(|_| slot.serve(|_| 10).expect("tasks are left").1).collect();
    let bob = served.iter().filter(|s| s.as_deref() == Some("bob")).count();
    assert!((18..=22).contains(&bob), "bob got {bob} of 40");
}

#[test]
fn a_share_is_served_within_its_patience_however_many_others_come() {
    let mut slot = Slot::new(queue(Millis(1_000), &[]));
    (0..5).for_each(|n| slot.add(n, Some("ann")));
    let start = slot.now;
    slot.serve(|_| 60_000).expect("ann's first");
    // Each moment brings somebody new, with nothing to their account.
    let mut n = 10;
    loop {
        n += 1;
        slot.add(n, Some(&format!("new{n}")));
        slot.add(n + 1_000_000, Some(&format!("other{n}")));
        let (_, share) = slot.serve(|_| 100).expect("tasks are there");
        if share.as_deref() == Some("ann") {
            break;
        }
        assert!(slot.now.since(start) < Millis(60_000 + 129 * 1_000), "ann starves");
    }
}

#[test]
fn one_share_alone_is_the_order_itself() {
    let mut slot = Slot::new(queue(Millis(1_000), &[]));
    (0..50).for_each(|n| slot.add(n, None));
    let served: Vec<_> = (0..50).map(|_| slot.serve(|_| 7).expect("50 tasks").0).collect();
    assert_eq!(served, (0..50).map(task).collect::<Vec<_>>());
    assert!(slot.queue.is_empty());
}

proptest! {
    /// Nothing starves: a task waits at most for what became ready within the
    /// patience after it in its own share, and its share is served at least
    /// once in each span of patience.
    #[test]
    fn nothing_starves(
        events in proptest::collection::vec((0u64..4, 0u64..6, 1u64..4_000), 1..300),
    ) {
        let mut slot = Slot::new(queue(Millis(500), &[("s0", 10_000), ("s3", 1)]));
        let patience = slot.queue.order.patience().max(HUNGER);
        let mut fed: BTreeMap<Share, Millis> = BTreeMap::new();
        for (n, (share, kind, ran)) in events.into_iter().enumerate() {
            let name = format!("s{share}");
            if kind > 1 {
                if !slot.specs.values().any(|(s, _)| s.fairness_key.as_deref() == Some(&*name)) {
                    fed.insert(Some(Arc::from(&*name)), slot.now);
                }
                slot.add(n as u64, Some(&name));
            }
            let ready: Vec<_> =
                slot.specs.iter().map(|(t, (s, since))| (t.clone(), s.fairness_key.clone(), *since)).collect();
            let before = slot.now;
            let Some((task, share)) = slot.serve(|_| ran) else { continue };
            let since = ready.iter().find(|(t, ..)| *t == task).expect("it was ready").2;
            for (other, of, waits) in &ready {
                if *of == share && *other != task {
                    prop_assert!(since.0 <= waits.0 + slot.queue.order.patience().0, "{task} overtakes {other}");
                }
            }
            // The hungriest of those beyond their patience goes first.
            let longest = ready.iter().filter_map(|(_, s, _)| fed.get(s)).min().copied().unwrap_or(before);
            if before.since(longest) >= patience {
                prop_assert_eq!(fed.get(&share).copied(), Some(longest));
            }
            fed.insert(share, before);
        }
    }
}
