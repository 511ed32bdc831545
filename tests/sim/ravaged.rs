//! Named stories of holders that are gone for ever, and forgotten.

use crate::agenda::Event;
use crate::executor::Program;
use crate::flows::workflow_spec;
use crate::oracle::Asked;
use crate::scenarios::{assert_completed, chain, fine, newest, owner_of, settled, submit};
use crate::workload::plain_spec;
use crate::world::{World, index};
use taskmesh_core::command::Scope;
use taskmesh_core::forgotten::{Forgotten, Presence};
use taskmesh_core::{Command, NodeId, Refusal, Reply, Request, TaskId, Unix};

/// Two of the three holders of `task` that are not spared, and a node that is
/// neither.
fn victims(world: &World, task: &TaskId, spared: usize) -> (Vec<usize>, usize) {
    let holders: Vec<_> = newest(world, task).holders.iter().map(|h| index(*h)).collect();
    let other = world.up().find(|n| !holders.contains(n)).expect("a node that is no holder");
    let mut gone: Vec<_> = holders.into_iter().filter(|n| *n != spared).collect();
    gone.sort_unstable();
    (gone, other)
}

#[test]
fn a_task_whose_majority_is_forgotten_goes_on_from_the_copy_that_is_left() {
    for (seed, spares_owner) in [(1, true), (2, false)] {
        let mut world = settled(500 + seed, 6);
        let task = submit(&mut world, 1, "a", plain_spec(Program::Good, 8_000, false));
        world.run_until(world.now + 2_000);
        let owner = owner_of(&world, &task);
        let heir = newest(&world, &task).holders.iter().map(|h| index(*h)).find(|n| (*n == owner) == spares_owner);
        let heir = heir.expect("a holder");
        let (gone, other) = victims(&world, &task, heir);
        world.destroy_all(&gone);
        world.run_until(world.now + 60_000);
        assert!(world.oracle.promises[&task].decided.is_empty(), "one of three holders decides nothing");
        world.forget(other, gone[0]);
        world.run_until(world.now + 15_000);
        // The rest is a majority of three without it, and no less.
        assert!(world.oracle.promises[&task].decided.is_empty(), "the other may still be there");
        world.forget(other, gone[1]);
        world.run_until(world.now + 40_000);
        assert_completed(&world, &task);
        let record = newest(&world, &task);
        assert_eq!(record.holders.len(), 3, "it has as many holders as it should");
        let mut said = record.forgotten.iter().map(|h| index(*h)).collect::<Vec<_>>();
        said.sort_unstable();
        assert_eq!(said, gone, "and says without whom it went on");
        fine(world);
    }
}

#[test]
fn a_copy_from_the_past_does_not_outvote_what_others_have() {
    let mut world = settled(510, 6);
    let task = submit(&mut world, 1, "a", plain_spec(Program::Good, 3_000, false));
    world.run_until(world.now + 1_000);
    let owner = owner_of(&world, &task);
    let away = newest(&world, &task).holders.iter().map(|h| index(*h)).find(|n| *n != owner).expect("a holder");
    world.die(away);
    world.run_until(world.now + 60_000);
    assert_completed(&world, &task);
    let runs = world.oracle.runs[&task].len();
    let (_, other) = victims(&world, &task, away);
    // The two that it still takes for the rest of its holders.
    let past = &world.hosts[away].disk.copies[&task].record;
    let gone: Vec<_> = past.holders.iter().map(|h| index(*h)).filter(|n| *n != away).collect();
    world.destroy_all(&gone);
    world.agenda.at(world.now + 1, Event::Boot { node: away });
    world.run_until(world.now + 10_000);
    gone.iter().for_each(|n| world.forget(other, *n));
    world.run_until(world.now + 60_000);
    assert_completed(&world, &task);
    assert_eq!(world.oracle.runs[&task].len(), runs, "it does not run again: {}", world.whereabouts(&task));
    fine(world);
}

#[test]
fn a_workflow_whose_majority_is_forgotten_ends() {
    let mut world = settled(520, 6);
    let flow = submit(&mut world, 1, "flow", workflow_spec(&chain(6)));
    world.run_until(world.now + 1_700);
    let heir = *newest(&world, &flow).holders.iter().max().expect("a holder");
    let (gone, other) = victims(&world, &flow, index(heir));
    world.destroy_all(&gone);
    world.run_until(world.now + 20_000);
    gone.iter().for_each(|n| world.forget(other, *n));
    world.run_until(world.now + 90_000);
    assert_completed(&world, &flow);
}

#[test]
fn a_forgotten_node_that_returns_stops_and_is_heard_by_nobody() {
    let mut world = settled(530, 5);
    let task = submit(&mut world, 1, "a", plain_spec(Program::Good, 300_000, false));
    world.run_until(world.now + 2_000);
    let gone = world.oracle.runs[&task][0].node;
    world.die(gone);
    world.run_until(world.now + 20_000);
    let other = (gone + 1) % 5;
    world.forget(other, gone);
    world.run_until(world.now + 2_000);
    world.agenda.at(world.now + 1, Event::Boot { node: gone });
    world.run_until(world.now + 30_000);
    let me = NodeId::test(gone as u64);
    let node = world.hosts[gone].node.as_ref().expect("it is up");
    assert_eq!(node.outcast().map(|word| &*word.by), Some("ann"));
    assert!(world.hosts[gone].runs.is_empty(), "it runs nothing");
    for n in world.up().filter(|n| *n != gone) {
        let node = world.hosts[n].node.as_ref().expect("it is up");
        assert!(!node.live(me) && node.members() == 3, "n{n} takes it for a member");
    }
    let granted = world.oracle.runs[&task].iter().filter(|r| r.node == gone).count();
    assert_eq!(granted, 1, "nothing is granted to it any more");
}

#[test]
fn a_node_that_is_there_is_forgotten_by_force_alone_and_none_forgets_itself() {
    let mut world = settled(540, 5);
    let word = |gone: u64| Forgotten { node: NodeId::test(gone), by: "ann".into(), at: Unix(1), reason: None };
    let ask = |world: &mut World, gone, presence| {
        let command = Command::ForgetNode { word: word(gone), presence, scope: Scope::Mesh };
        world.ask(1, Request::Command(command), Asked::Kept);
        world.run_until(world.now + 5_000);
        world.oracle.answers.pop().expect("an answer")
    };
    for (gone, presence) in [(2, Presence::Respected), (1, Presence::Respected), (1, Presence::Overruled)] {
        let answer = ask(&mut world, gone, presence);
        assert!(matches!(answer, Err(Refusal::State { .. })), "n{gone}: {answer:?}");
    }
    let answer = ask(&mut world, 9, Presence::Respected);
    assert!(matches!(answer, Err(Refusal::NotFound { .. })), "{answer:?}");
    let answer = ask(&mut world, 2, Presence::Overruled);
    assert!(matches!(answer, Ok(Reply::Forgot { .. })), "{answer:?}");
    let node = world.hosts[2].node.as_ref().expect("it is up");
    assert!(node.outcast().is_some(), "it was told");
    let again = ask(&mut world, 2, Presence::Respected);
    assert!(matches!(again, Ok(Reply::Forgot { .. })), "the same word again: {again:?}");
}
