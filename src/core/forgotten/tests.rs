//! Words that nodes are gone for ever: how they are joined, who is refused, and
//! when a record goes on without its majority.

use super::*;
use crate::Config;
use crate::effect::{Effect, Input};
use crate::message::{Hello, Message};
use crate::task::TaskState;
use crate::testing::{self, Solo, solo, spec};
use crate::view::Status;

fn word(node: u64, at: u64) -> Forgotten {
    Forgotten { at: Unix(at), node: NodeId::test(node), by: "ann".into(), reason: None }
}

fn hello(solo: &mut Solo, node: u64, forgotten: &[Forgotten]) -> Vec<Effect> {
    let hello = Box::new(Hello { forgotten: forgotten.to_vec(), ..testing::hello() });
    solo.feed(Input::Received { from: NodeId::test(node), message: Message::Hello(hello) })
}

fn forget(solo: &mut Solo, node: u64, presence: Presence) -> Option<Result<Reply, Refusal>> {
    let command = Command::ForgetNode { word: word(node, 7), presence, scope: Scope::Mesh };
    solo.ask(Request::Command(command)).1
}

/// A task whose home is this node, whoever of the others is there.
fn task() -> TaskId {
    let nodes = [1, 2, 3, 4].map(NodeId::test);
    let named = (0..).filter_map(|n| TaskId::new(&format!("t{n}")).ok());
    let mut here = named.filter(|task| rendezvous(task.place_hash(), nodes).first() == Some(&nodes[0]));
    here.next().expect("one in four")
}

/// A node that has met two others, and runs a task of its own that no majority has.
fn met() -> (Solo, Vec<Effect>) {
    let mut solo = solo(Config::default());
    hello(&mut solo, 2, &[]);
    hello(&mut solo, 3, &[]);
    let (effects, _) = solo.submit(task().as_str(), spec());
    (solo, effects)
}

fn status(solo: &Solo) -> TaskState {
    solo.node.slot(&task()).expect("it is kept").record.body.state.clone()
}

#[test]
fn the_earlier_of_two_words_stays_in_whatever_order_they_come() {
    let mut one = Words::default();
    let mut other = Words::default();
    let (early, late) = (word(2, 5), Forgotten { by: "bob".into(), ..word(2, 9) });
    assert!(one.join(&early) && !one.join(&late) && !one.join(&early));
    assert!(other.join(&late) && other.join(&early));
    assert_eq!(one.all(), other.all());
    assert_eq!(one.all(), [early]);
}

#[test]
fn the_list_of_words_is_bounded() {
    let mut words = Words::default();
    let taken = (0..=limits::FORGOTTEN as u64).filter(|n| words.join(&word(*n, 1))).count();
    assert_eq!(taken, limits::FORGOTTEN);
    assert_eq!(words.all().len(), limits::FORGOTTEN);
}

#[test]
fn a_node_that_is_heard_of_and_the_node_itself_are_not_forgotten() {
    let (mut solo, _) = met();
    for node in [1, 2] {
        let refused = forget(&mut solo, node, Presence::Respected);
        assert!(matches!(refused, Some(Err(Refusal::State { .. }))), "{node}: {refused:?}");
    }
    let unknown = forget(&mut solo, 9, Presence::Respected);
    assert!(matches!(unknown, Some(Err(Refusal::NotFound { .. }))), "{unknown:?}");
    assert_eq!(solo.node.forgotten(), []);
}

#[test]
fn an_older_member_is_named() {
    let mut solo = solo(Config::default());
    let older = Hello { features: ["workflows".into()].into(), ..testing::hello() };
    solo.feed(Input::Received { from: NodeId::test(2), message: Message::Hello(Box::new(older)) });
    let Some(Err(Refusal::State { name, needs, .. })) = forget(&mut solo, 3, Presence::Overruled) else {
        panic!("it takes no word that the other would not understand");
    };
    assert!(name.contains(&NodeId::test(2).to_string()) && needs.contains("forgetting"), "{name}: {needs}");
}

#[test]
fn without_its_majority_a_task_goes_on_as_soon_as_all_that_are_left_are_forgotten_or_asked() {
    let (mut solo, run) = met();
    solo.wait(Millis(40_000));
    assert!(matches!(status(&solo), TaskState::Queued { .. } | TaskState::Leased { .. }));
    let Some(Ok(Reply::Forgot { shared, bereft, .. })) = forget(&mut solo, 2, Presence::Respected) else {
        panic!("nobody else is there to ask");
    };
    assert_eq!((shared, bereft), (1, 0), "two of three would be a majority");
    let Some(Ok(Reply::Forgot { shared, bereft, .. })) = forget(&mut solo, 3, Presence::Respected) else {
        panic!("nobody else is there to ask");
    };
    assert_eq!((shared, bereft), (1, 1));
    solo.wait(Millis(5_000));
    solo.end(&run, crate::execution::Verdict::Completed);
    solo.wait(Millis(2_000));
    let slot = solo.node.slot(&task()).expect("it is kept");
    assert_eq!(slot.record.holders, [NodeId::test(1)], "alone in its mesh");
    assert_eq!(slot.record.forgotten.len(), 2);
    assert!(slot.record.closed(), "{:?}", slot.record.body.state);
    let view = solo.node.task_view(&slot.record.task.clone(), crate::command::Detail::default());
    assert_eq!(view.status, Status::Completed);
    let said: Vec<_> = view.forgotten.iter().map(|word| (word.node, &*word.by)).collect();
    assert_eq!(said, [(NodeId::test(2), "ann"), (NodeId::test(3), "ann")], "the word shows in its status");
}

#[test]
fn a_member_that_may_know_more_is_waited_for_and_named() {
    let (mut solo, _) = met();
    hello(&mut solo, 4, &[]);
    solo.wait(Millis(40_000));
    for node in [2, 3] {
        assert!(matches!(forget(&mut solo, node, Presence::Respected), Some(Ok(Reply::Forgot { .. }))));
    }
    solo.wait(Millis(20_000));
    let task = task();
    assert!(!solo.node.is_owner(&task), "it waits");
    let kept = &solo.node.kept[&task];
    let why = solo.node.explain(kept);
    assert!(why.next.contains(&NodeId::test(4).to_string()), "{why:?}");
    // It is back, and has not heard who is gone.
    hello(&mut solo, 4, &[]);
    let asked = |effects: &[Effect]| {
        effects.iter().any(|e| {
            matches!(e, Effect::Send { message: Message::Claim { electorate: Electorate::Everybody, .. }, .. })
        })
    };
    assert!(!asked(&solo.wait(Millis(2_000))), "its word would count for nothing");
    hello(&mut solo, 4, &[word(2, 7), word(3, 7)]);
    assert!(asked(&solo.wait(Millis(2_000))), "now it can tell");
}

#[test]
fn a_node_that_is_told_that_it_is_forgotten_stops_and_obeys_nobody() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit(task().as_str(), spec());
    assert!(effects.iter().any(|e| matches!(e, Effect::Run { .. })));
    let effects = hello(&mut solo, 2, &[word(1, 7)]);
    assert!(effects.iter().any(|e| matches!(e, Effect::Stop { force: true, .. })), "{effects:?}");
    assert!(effects.iter().any(|e| matches!(e, Effect::Notice(Notice::CastOut(_)))));
    assert_eq!(solo.node.outcast(), Some(&word(1, 7)));
    let (effects, refused) = solo.submit("b", spec());
    assert!(matches!(refused, Some(Err(Refusal::State { .. }))), "{refused:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Run { .. })));
    let later = solo.wait(Millis(60_000));
    assert!(
        !later.iter().any(|e| matches!(e, Effect::Publish(_) | Effect::Run { .. } | Effect::Send { .. })),
        "{later:?}"
    );
}

#[test]
fn a_forgotten_node_is_told_now_and_then_and_of_two_that_forgot_each_other_neither_obeys() {
    let mut solo = solo(Config::default());
    forget(&mut solo, 2, Presence::Overruled).expect("an answer").expect("taken");
    let told = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Send { .. })).count();
    assert_eq!(told(&hello(&mut solo, 2, &[word(1, 7)])), 1);
    assert_eq!(told(&hello(&mut solo, 2, &[word(1, 7)])), 0);
    assert_eq!((solo.node.outcast(), solo.node.members()), (None, 0));
    solo.feed(Input::Peer(crate::PeerEvent::CastOut { by: NodeId::test(2) }));
    assert_eq!(solo.node.outcast(), None);
    solo.feed(Input::Peer(crate::PeerEvent::CastOut { by: NodeId::test(3) }));
    assert!(solo.node.outcast().is_some(), "but by another it is");
}
