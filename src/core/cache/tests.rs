//! What is evicted first, and that the bounds hold.

use super::*;
use crate::task::Data;
use crate::testing::spec;
use proptest::prelude::*;

fn key(n: u8) -> CacheKey {
    CacheKey([n; 32])
}

fn entry(n: u8, bytes: usize, expires: u64) -> Arc<Cached> {
    Arc::new(Cached {
        key: key(n),
        task_type: "echo".into(),
        tags: vec![format!("tag-{}", n % 3).into()],
        source: Source { task: TaskId::new(&format!("task-{n}")).expect("a valid id"), attempt: 1 },
        report: Report { result: Data::Inline(vec![b'1'; bytes].into()), ..Report::default() },
        created: Unix(1),
        expires: Unix(expires),
    })
}

fn shelf(policy: Policy, entries: usize) -> Shelf {
    Shelf::new(Bounds { entries, bytes: 1_000_000, ttl: Millis(1_000), policy })
}

fn names(evicted: Vec<Evicted>) -> Vec<(u8, Gone)> {
    evicted.into_iter().map(|(entry, why)| (entry.key.0[0], why)).collect()
}

/// Three entries that end in the order 2, 3, 1; then 1 is used twice, 2 and 3
/// once, in the order 1, 1, 3, 2; then two more come.
fn first_two_to_go(policy: Policy) -> Vec<(u8, Gone)> {
    let mut shelf = shelf(policy, 3);
    for (n, expires) in [(1, 900), (2, 700), (3, 800)] {
        assert!(shelf.insert(entry(n, 10, expires), Unix(0)).is_empty());
    }
    for n in [1, 1, 3, 2] {
        assert!(shelf.find(&key(n), Unix(0)).is_some());
    }
    let mut evicted = shelf.insert(entry(4, 10, 2_000), Unix(0));
    shelf.find(&key(4), Unix(0));
    shelf.find(&key(4), Unix(0));
    shelf.find(&key(4), Unix(0));
    evicted.extend(shelf.insert(entry(5, 10, 2_001), Unix(0)));
    shelf.check();
    names(evicted)
}

#[test]
fn each_policy_evicts_in_its_own_order() {
    let went = |first, second| vec![(first, Gone::Entries), (second, Gone::Entries)];
    assert_eq!(first_two_to_go(Policy::Lru), went(1, 3), "not used for longest");
    assert_eq!(first_two_to_go(Policy::Lfu), went(3, 2), "used least");
    assert_eq!(first_two_to_go(Policy::Fifo), went(1, 2), "came first");
    assert_eq!(first_two_to_go(Policy::Ttl), went(2, 3), "ends first");
}

#[test]
fn what_is_over_is_not_found_and_goes_first() {
    let mut shelf = shelf(Policy::Lru, 2);
    shelf.insert(entry(1, 10, 100), Unix(0));
    shelf.insert(entry(2, 10, 200), Unix(0));
    assert!(shelf.find(&key(1), Unix(99)).is_some());
    assert!(shelf.find(&key(1), Unix(100)).is_none());
    assert_eq!(names(shelf.insert(entry(3, 10, 300), Unix(100))), [(1, Gone::Expired)]);
    assert_eq!(names(shelf.take_expired(Unix(1_000), 1)), [(2, Gone::Expired)]);
    assert_eq!(names(shelf.take_expired(Unix(1_000), 9)), [(3, Gone::Expired)]);
    shelf.check();
}

#[test]
fn a_large_entry_makes_room_for_itself_and_one_too_large_is_not_taken() {
    let mut shelf = Shelf::new(Bounds { entries: 9, bytes: 4_000, ttl: Millis(1), policy: Policy::Fifo });
    for n in 1..=3 {
        shelf.insert(entry(n, 1_000, 9), Unix(0));
    }
    assert_eq!(names(shelf.insert(entry(4, 2_000, 9), Unix(0))), [(1, Gone::Bytes), (2, Gone::Bytes)]);
    assert!(!shelf.takes(&entry(5, 4_000, 9)));
    shelf.check();
}

#[test]
fn a_newer_result_of_a_key_takes_the_place_of_the_older() {
    let mut shelf = shelf(Policy::Lru, 3);
    shelf.insert(entry(1, 10, 100), Unix(0));
    shelf.insert(entry(1, 20, 300), Unix(0));
    assert_eq!((shelf.len(), shelf.find(&key(1), Unix(200)).map(|e| e.report.result.len())), (1, Some(20)));
    shelf.check();
}

#[test]
fn results_are_meant_by_key_task_type_or_tag() {
    let filled = || {
        let mut shelf = shelf(Policy::Lru, 9);
        (1..=6).for_each(|n| drop(shelf.insert(entry(n, 10, 100), Unix(0))));
        shelf
    };
    let went = |which| filled().take_those(&which).iter().map(|e| e.key.0[0]).collect::<Vec<_>>();
    assert_eq!(went(Which::Key(key(2))), [2]);
    assert_eq!(went(Which::Key(key(9))), [0; 0]);
    assert_eq!(went(Which::Task(TaskId::new("task-3").expect("a valid id"))), [3]);
    assert_eq!(went(Which::Tag("tag-1".into())), [1, 4]);
    assert_eq!(went(Which::Type("echo".into())).len(), 6);
    assert_eq!(went(Which::Type("ech".into())).len(), 0);
}

#[test]
fn all_that_decides_a_result_makes_another_key() {
    let caching = Caching { mode: Mode::Read, scope: None };
    let base = Spec { cache: Some(caching), ..spec() };
    let key = |spec: &Spec| spec.cache_key().expect("it reads");
    let need = |change: fn(&mut Requirements)| {
        let mut spec = base.clone();
        change(&mut spec.requirements);
        spec
    };
    let others = [
        Spec { task_type: "sleep".into(), ..base.clone() },
        Spec { payload: (&b"{} "[..]).into(), ..base.clone() },
        need(|r| r.capabilities.push("exec:true".into())),
        need(|r| drop(r.labels.insert("zone".into(), "a".into()))),
        need(|r| r.resources.gpu_milli = 1),
        Spec { cache: Some(Caching { scope: Some(Scope::of(["own ann"])), ..caching }), ..base.clone() },
        Spec { cache: Some(Caching { scope: Some(Scope::of(["own bob"])), ..caching }), ..base.clone() },
    ];
    let all: BTreeSet<_> = others.iter().chain([&base]).map(key).collect();
    assert_eq!(all.len(), others.len() + 1);
    let same = [
        Spec { cache: Some(Caching { mode: Mode::ReadWrite, ..caching }), ..base.clone() },
        Spec { tags: vec!["x".into()], metadata: Some("{}".into()), ..base.clone() },
        need(|r| r.placement = Placement::Pack),
        need(|r| r.affinity_key = Some("k".into())),
    ];
    assert!(same.iter().all(|spec| key(spec) == key(&base)));
    assert_eq!(spec().cache_key(), None);
}

#[test]
fn a_key_is_read_as_it_is_shown() {
    assert_eq!(key(0xa7).to_string().parse(), Ok(key(0xa7)));
    assert!("a7".parse::<CacheKey>().is_err());
}

proptest! {
    #[test]
    fn the_bounds_always_hold(
        policy in prop::sample::select(&Policy::ALL[..]),
        most in 1_usize..8,
        bytes in 300_u64..4_000,
        steps in prop::collection::vec((0_u8..4, 0_u8..20, 0_usize..3_000, 0_u64..1_000), 1..200),
    ) {
        let mut shelf = Shelf::new(Bounds { entries: most, bytes, ttl: Millis(1), policy });
        let mut wall = Unix(0);
        for (what, n, size, time) in steps {
            match what {
                0 | 1 => {
                    let entry = entry(n, size, wall.0 + time + 1);
                    if shelf.takes(&entry) {
                        let before = shelf.len();
                        let evicted = shelf.insert(entry, wall);
                        prop_assert!(evicted.iter().all(|(e, _)| e.key != key(n)), "what has just come stays");
                        prop_assert!(shelf.find(&key(n), wall).is_some());
                        prop_assert!(before + 1 >= shelf.len() + evicted.len());
                    }
                }
                2 => prop_assert!(shelf.find(&key(n), wall).is_none_or(|e| e.key == key(n) && e.expires > wall)),
                _ => wall = Unix(wall.0 + time),
            }
            shelf.check();
        }
    }
}
