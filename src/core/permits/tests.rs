//! Permits on one node, and what a lender tells several owners.

use super::*;
use crate::Config;
use crate::effect::{Effect, Input};
use crate::execution::Verdict;
use crate::testing::{Solo, solo, spec};

fn limited(subject: &str, bounds: &str) -> Config {
    Config { limits: Limit::read(subject, bounds).expect("a limit"), ..Config::default() }
}

fn runs(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Run { .. })).count()
}

#[test]
fn limits_are_read_and_shown() {
    let shown = |subject, bounds| {
        let limits = Limit::read(subject, bounds)?;
        Ok::<_, String>(limits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    assert_eq!(shown("type:exec", "20").as_deref(), Ok("type:exec 20"));
    assert_eq!(shown("tag:a b", "100/1m 3").as_deref(), Ok("tag:a b 100/60s, tag:a b 3"));
    assert_eq!(shown("key:ann", "5/24h").as_deref(), Ok("key:ann 5/86400s"));
    for (subject, bounds) in [
        ("exec", "20"),
        ("type:", "20"),
        ("type:x", ""),
        ("type:x", "0"),
        ("type:x", "-1"),
        ("type:x", "5/60"),
        ("type:x", "5/s"),
        ("type:x", "5/25h"),
        ("type:x", "5/1d"),
        ("type:x", "99999999999"),
    ] {
        assert!(shown(subject, bounds).is_err(), "{subject} {bounds}");
    }
}

#[test]
fn no_more_run_at_once_than_the_limit_says() {
    let mut solo = solo(limited("type:echo", "1"));
    let (first, _) = solo.submit("a", spec());
    assert_eq!(runs(&first), 1, "a mesh of one lends itself at once");
    let (second, _) = solo.submit("b", spec());
    assert_eq!(runs(&second), 0);
    let effects = solo.end(&first, Verdict::Completed);
    assert_eq!(runs(&effects), 1, "the permit is used again");
}

#[test]
fn tags_and_keys_are_limited_without_holding_up_others() {
    let mut limits = Limit::read("tag:api", "1").expect("a limit");
    limits.extend(Limit::read("key:ann", "1").expect("a limit"));
    let mut solo = solo(Config { limits, ..Config::default() });
    let tagged = || Spec { tags: vec!["x".into(), "api".into()], ..spec() };
    let of_ann = || Spec { fairness_key: Some("ann".into()), ..spec() };
    assert_eq!(runs(&solo.submit("a", tagged()).0), 1);
    assert_eq!(runs(&solo.submit("b", tagged()).0), 0);
    let (ann, _) = solo.submit("c", of_ann());
    assert_eq!(runs(&ann), 1);
    assert_eq!(runs(&solo.submit("d", of_ann()).0), 0);
    // Both slots are taken now; the next free one goes past b and d.
    assert_eq!(runs(&solo.submit("e", spec()).0), 0);
    let (_, more) = (solo.submit("f", spec()), solo.end(&ann, Verdict::Completed));
    assert_eq!(runs(&more), 1);
}

#[test]
fn a_rate_is_kept_over_time() {
    let mut solo = solo(limited("type:echo", "10/10s"));
    let mut started = 0;
    let mut at = Vec::new();
    let mut ending: Vec<Vec<Effect>> = Vec::new();
    for n in 0..60 {
        let (effects, _) = solo.submit(&format!("t{n}"), spec());
        ending.extend(effects.into_iter().filter(|e| matches!(e, Effect::Run { .. })).map(|e| vec![e]));
    }
    for step in 0..300u64 {
        for run in std::mem::take(&mut ending) {
            started += 1;
            at.push(step * 100);
            let effects = solo.end(&run, Verdict::Completed);
            ending.extend(effects.into_iter().filter(|e| matches!(e, Effect::Run { .. })).map(|e| vec![e]));
        }
        let effects = solo.wait(Millis(100));
        ending.extend(effects.into_iter().filter(|e| matches!(e, Effect::Run { .. })).map(|e| vec![e]));
    }
    assert!((28..=32).contains(&started), "{started} started in 30 s");
    for window in 0..200u64 {
        let inside = at.iter().filter(|t| (window * 100..window * 100 + 10_000).contains(*t)).count();
        assert!(inside <= 12, "{inside} started in 10 s");
    }
}

/// What is told again may cross a question on its way: then it is void, and only
/// what the question says is held.
#[test]
fn a_permit_that_crosses_a_question_is_void() {
    let mut solo = solo(limited("type:echo", "1"));
    let lender = (2..50).map(NodeId::test).find(|node| {
        solo.feed(Input::Received { from: *node, message: Message::WhoAreYou });
        solo.node.lender(0) == *node
    });
    let lender = lender.expect("one of so many comes first");
    solo.node.bear(crate::TaskId::new("a").expect("a valid id"), spec().into(), Default::default(), vec![], 1);
    let asked = |effects: &[Effect]| {
        effects.iter().rev().find_map(|e| match e {
            Effect::Send { to, message: Message::AskPermits(asks) } if *to == lender => Some(asks[0].clone()),
            _ => None,
        })
    };
    let first = asked(&solo.wait(Millis(600))).expect("it asks");
    solo.feed(Input::Received { from: lender, message: Message::WhoAreYou });
    let second = asked(&solo.wait(Millis(1_600))).expect("it asks again");
    assert!(second.asked > first.asked);
    let permit = |ask: &PermitAsk| Permit { limit: ask.limit.clone(), asked: ask.asked, allowed: 1 };
    let tell = |solo: &mut Solo, permit| {
        runs(&solo.feed(Input::Received { from: lender, message: Message::Permits(vec![permit]) }))
    };
    assert_eq!(tell(&mut solo, permit(&first)), 0);
    assert_eq!(tell(&mut solo, permit(&second)), 1);
}

/// A lender with three owners that know each other.
fn lender(bound: Bound) -> Book {
    let mut book = Book { since: Some(Millis(0)), ..Book::default() };
    for owner in 1..=3 {
        let (node, until) = (NodeId::test(owner), Millis(100_000));
        let loan = Loan { used: 0, wanted: 0, allowed: 0, cap: 0, asked: Millis(0), until, waits: None };
        book.loans.insert(node, loan);
    }
    book.refill(bound, Millis(0));
    book
}

fn ask(book: &mut Book, owner: u64, now: u64, used: u64, wanted: u64) -> u64 {
    let loan = book.loans.get_mut(&NodeId::test(owner)).expect("an owner");
    // It knows what it was told.
    (loan.used, loan.wanted, loan.cap) = (used, wanted, used.max(loan.allowed));
    book.lend(Bound::Running(10), NodeId::test(owner), Millis(now), Lending::Open)
}

#[test]
fn owners_come_to_equal_parts_and_never_hold_more_than_there_is() {
    let mut book = lender(Bound::Running(10));
    assert_eq!(ask(&mut book, 1, 1, 0, 50), 10, "nobody else wants any");
    assert_eq!(ask(&mut book, 2, 2, 0, 50), 0);
    assert_eq!(ask(&mut book, 3, 3, 0, 50), 0);
    // The first gives back what is over its part, as its tasks end.
    assert_eq!(ask(&mut book, 1, 4, 10, 40), 3);
    assert_eq!(ask(&mut book, 2, 5, 0, 50), 0, "they still run");
    assert_eq!(ask(&mut book, 1, 6, 3, 40), 3);
    let second = ask(&mut book, 2, 7, 0, 50);
    let third = ask(&mut book, 3, 8, 0, 50);
    assert!(second >= 3 && third >= 3, "{second} and {third}");
    assert!(3 + second + third <= 10);
}

#[test]
fn a_single_permit_goes_round() {
    let mut book = lender(Bound::Running(1));
    let lend = |book: &mut Book, owner: u64, now: u64, used: u64| {
        let loan = book.loans.get_mut(&NodeId::test(owner)).expect("an owner");
        (loan.used, loan.wanted, loan.cap) = (used, 5, used.max(loan.allowed));
        book.lend(Bound::Running(1), NodeId::test(owner), Millis(now), Lending::Open)
    };
    assert_eq!(lend(&mut book, 1, 1, 0), 1);
    assert_eq!(lend(&mut book, 2, 2, 0), 0);
    assert_eq!(lend(&mut book, 3, 3, 0), 0);
    assert_eq!(lend(&mut book, 1, 4, 1), 0, "it may not be used again");
    assert_eq!(lend(&mut book, 1, 5, 0), 0, "others have waited longer");
    assert_eq!(lend(&mut book, 3, 6, 0), 0, "the second before the third");
    assert_eq!(lend(&mut book, 2, 7, 0), 1);
}

#[test]
fn a_lender_that_was_not_one_before_waits_for_old_permits_to_end() {
    // A peer beside which this node is the lender.
    let (mut solo, peer) = (2..50)
        .map(|n| {
            let mut solo = solo(limited("type:echo", "2"));
            solo.feed(Input::Received { from: NodeId::test(n), message: Message::WhoAreYou });
            (solo, NodeId::test(n))
        })
        .find(|(solo, _)| solo.node.lender(0) == solo.node.id())
        .expect("one of so many");
    let lends = |solo: &mut Solo, used, wanted| {
        let limit: Arc<str> = "type:echo 2".into();
        let asks = vec![PermitAsk { limit, asked: solo.node.now, used, holds: 0, wanted }];
        let effects = solo.feed(Input::Received { from: peer, message: Message::AskPermits(asks) });
        effects.into_iter().find_map(|e| match e {
            Effect::Send { message: Message::Permits(permits), .. } => Some(permits[0].allowed),
            _ => None,
        })
    };
    assert_eq!(lends(&mut solo, 1, 5), Some(1), "what is used is used");
    for _ in 0..3 * 5 + 1 {
        solo.wait(Millis(1_000));
        solo.feed(Input::Received { from: peer, message: Message::WhoAreYou });
    }
    assert_eq!(lends(&mut solo, 1, 5), Some(2));
}
