//! Which workers suit, and which of them is chosen.

use super::*;
use crate::Config;
use crate::command::{Command, Request};
use crate::effect::Input;
use crate::message::{Hello, Message};
use crate::testing::{Solo, solo, spec};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn worker(labels: &[(&str, &str)], cpus: u64, gpus: u64) -> WorkerSpec {
    WorkerSpec {
        worker: WorkerId::new("w").expect("a valid id"),
        capabilities: vec!["echo".into()],
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        slots: 4,
        resources: Some(Resources { cpu_milli: cpus * 1_000, gpu_milli: gpus * 1_000, ..Resources::default() }),
        metadata: None,
    }
}

fn selected(selector: &str, labels: &[(&str, &str)]) -> bool {
    let need = Requirements { selector: Condition::read_all(selector).expect("a selector"), ..Requirements::default() };
    lack(&worker(labels, 1, 0), "echo", &need).is_none()
}

#[test]
fn a_selector_means_what_it_means_elsewhere() {
    let labels = [("zone", "a"), ("gpu", "")];
    for yes in ["zone=a", "zone == a", "zone in (a,b)", "zone!=b", "zone notin (b, c)", "gpu", "!spot", "arch!=arm"] {
        assert!(selected(yes, &labels), "{yes}");
    }
    for no in ["zone=b", "zone in (b,c)", "zone!=a", "zone notin (a)", "spot", "!gpu", "arch=arm", "gpu,zone=b"] {
        assert!(!selected(no, &labels), "{no}");
    }
    assert!(selected("", &labels) && selected(" gpu , zone in ( a ) , !spot ", &labels));
}

#[test]
fn a_bad_selector_is_refused_with_its_reason() {
    for (bad, part) in [
        ("zone in (a", "closing"),
        ("zone of (a)", "`in` or `notin`"),
        ("(a)", "`in` or `notin`"),
        ("zone=", "belongs"),
        ("a b", "belongs"),
        ("zone in ()", "belongs"),
        ("gpu,", "comma"),
        (",gpu", "belongs"),
    ] {
        let problem = Condition::read_all(bad).expect_err(bad);
        assert!(problem.contains(part), "{bad}: {problem}");
    }
    assert!(Condition::read_all(&vec!["a"; limits::ATTRIBUTES + 1].join(",")).is_err());
    for long in [" of (a)", " in (a", ""].map(|end| "&".repeat(5_000) + end) {
        let problem = Condition::read_all(&long).expect_err("too long");
        assert!(problem.len() < 300, "an error is to be read: {problem}");
    }
}

#[test]
fn one_of_the_alternatives_must_be_met_and_the_first_that_fits_is_held() {
    let gpu =
        Alternative { resources: Resources { gpu_milli: 1_000, ..Resources::default() }, ..Alternative::default() };
    let cpus =
        Alternative { resources: Resources { cpu_milli: 8_000, ..Resources::default() }, ..Alternative::default() };
    let need = Requirements {
        resources: Resources { cpu_milli: 1_000, ..Resources::default() },
        any_of: vec![gpu, cpus],
        ..Requirements::default()
    };
    let held = |spec: &WorkerSpec| way(spec, &need, |n| spec.resources.as_ref().is_some_and(|r| r.covers(n)));
    assert_eq!(lack(&worker(&[], 1, 1), "echo", &need), None);
    assert_eq!(held(&worker(&[], 1, 1)).map(|r| (r.cpu_milli, r.gpu_milli)), Some((1_000, 1_000)));
    assert_eq!(held(&worker(&[], 9, 0)).map(|r| (r.cpu_milli, r.gpu_milli)), Some((9_000, 0)));
    assert!(matches!(lack(&worker(&[], 8, 0), "echo", &need), Some(Lack::Resource(_))));
    assert!(matches!(lack(&worker(&[], 8, 0), "sleep", &need), Some(Lack::Capability(_))));
}

proptest! {
    #[test]
    fn no_selector_panics(text in "[a-c=!,() in]{0,24}") {
        let _ = Condition::read_all(&text);
    }
}

/// A node without room of its own, and three others with one worker each that
/// has so many of its ten slots free.
fn mesh(free: [u32; 3]) -> Solo {
    let mut solo = solo(Config::default());
    let own = WorkerId::new("w").expect("a valid id");
    solo.ask(Request::Command(Command::Unregister { worker: own, graceful: false, timeout: crate::Millis(0) }));
    for (n, free) in free.into_iter().enumerate() {
        let name = WorkerId::new(&format!("w{n}")).expect("a valid id");
        let spec = WorkerSpec { worker: name.clone(), slots: 10, resources: None, ..worker(&[], 0, 0) };
        let hello = Hello { workers: vec![spec], free: vec![(name, free)], ..crate::testing::hello() };
        let message = Message::Hello(Box::new(hello));
        solo.feed(Input::Received { from: NodeId::test(n as u64 + 2), message });
    }
    solo
}

fn chosen(solo: &mut Solo, spec: &Spec) -> String {
    // Another number of inputs is another draw.
    solo.node.chance.next();
    let feasible = solo.node.feasible_workers("echo", &spec.requirements);
    let class = spec.requirements.class();
    solo.node.choose(&feasible, &class, spec).expect("there is room").1.to_string()
}

fn placed(placement: Placement) -> Spec {
    Spec { requirements: Requirements { placement, ..Requirements::default() }, ..spec() }
}

#[test]
fn spread_takes_the_emptiest_and_pack_the_fullest_with_room() {
    let mut solo = mesh([4, 9, 0]);
    for _ in 0..20 {
        assert_eq!(chosen(&mut solo, &placed(Placement::Spread)), "w1");
        assert_eq!(chosen(&mut solo, &placed(Placement::Pack)), "w0");
    }
    let mut equal = mesh([5, 5, 5]);
    let drawn: BTreeSet<_> = (0..60).map(|_| chosen(&mut equal, &placed(Placement::Spread))).collect();
    assert_eq!(drawn.len(), 3, "equals take turns");
}

#[test]
fn an_affinity_key_sticks_to_one_worker_for_as_long_as_that_has_room() {
    let mut full = mesh([5, 5, 5]);
    let of = |key: &str| {
        let affinity_key = Some(key.into());
        Spec { requirements: Requirements { affinity_key, ..Requirements::default() }, ..spec() }
    };
    let first = chosen(&mut full, &of("model"));
    assert!((0..20).all(|_| chosen(&mut full, &of("model")) == first));
    let others: BTreeSet<_> = (0..40).map(|n| chosen(&mut full, &of(&format!("model{n}")))).collect();
    assert_eq!(others.len(), 3, "keys spread over the workers");
    let free = ["w0", "w1", "w2"].map(|name| if name == first { 0 } else { 5 });
    assert_ne!(chosen(&mut mesh(free), &of("model")), first);
}

#[test]
fn the_node_that_holds_the_inputs_is_preferred() {
    let mut solo = mesh([5, 5, 5]);
    let input = TaskId::new("input").expect("a valid id");
    let needs = Spec { depends_on: vec![input.clone()], ..spec() };
    let drawn: BTreeSet<_> = (0..60).map(|_| chosen(&mut solo, &needs)).collect();
    assert!(drawn.len() > 1, "nobody is known to hold it: {drawn:?}");
    let holder = NodeId::test(3);
    solo.node.bear(input, spec().into(), crate::task::Priority::NORMAL, vec![solo.node.id(), holder], 1);
    assert!((0..20).all(|_| chosen(&mut solo, &needs) == "w1"));
}
