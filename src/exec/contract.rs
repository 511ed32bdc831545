//! The contract of every executor, through one table: it ends once, bad
//! payloads are refused for good, a stop and a timeout end it, and what it
//! says is in order. Then the runner's own promises.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::exec::process::EXEC;
use std::sync::mpsc::{Receiver, channel};
use taskmesh_core::task::{Durability, Requirements, RetryPolicy};
use taskmesh_core::{Ballot, NodeId, Unix};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(30);

/// An executor to be tested: payloads by what becomes of them.
struct Case {
    task_type: &'static str,
    quick: &'static str,
    long: Option<&'static str>,
    bad: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 4] = [
    Case { task_type: "echo", quick: r#"{"a":1}"#, long: None, bad: &[("{", "payload"), ("\u{7f}", "payload")] },
    Case {
        task_type: "sleep",
        quick: r#"{"ms":1}"#,
        long: Some(r#"{"seconds":3600}"#),
        bad: &[
            ("null", "payload"),
            ("{}", "ms"),
            (r#"{"ms":-1}"#, "ms"),
            (r#"{"ms":86400001}"#, "ms"),
            (r#"{"seconds":1e99}"#, "seconds"),
            (r#"{"ms":1,"seconds":1}"#, "seconds"),
            (r#"{"ms":1,"x":1}"#, "x"),
        ],
    },
    Case {
        task_type: "fail",
        quick: r#"{"times":0}"#,
        long: None,
        bad: &[
            ("[]", "payload"),
            (r#"{"times":-1}"#, "times"),
            (r#"{"retryable":1}"#, "retryable"),
            (r#"{"x":1}"#, "x"),
        ],
    },
    Case {
        task_type: "exec",
        quick: r#"{"argv":["true"]}"#,
        long: Some(r#"{"argv":["sleep","3600"]}"#),
        bad: &[("{}", "argv"), (r#"{"argv":["no-such-program-here"]}"#, "argv"), (r#"{"argv":["true"],"x":1}"#, "x")],
    },
];

/// A bench: executors and what they say.
pub(super) struct Bench {
    pub(super) executors: Executors,
    pub(super) events: Receiver<RunEvent>,
    pub(super) folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut ExecConfig)) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ExecConfig::new(folder.path().join("work"));
        config.allow = vec!["*".into()];
        change(&mut config);
        let (tell, events) = channel();
        let executors = Executors::start(config, move |event| drop(tell.send(event))).unwrap();
        Bench { executors, events, folder }
    }

    pub(super) fn run(&self, task_type: &str, payload: &str) -> (TaskId, Fence) {
        self.run_spec(spec(task_type, payload), 1)
    }

    pub(super) fn run_spec(&self, spec: Spec, attempt: u32) -> (TaskId, Fence) {
        let (task, fence) = (TaskId::new("job/7").unwrap(), fence(attempt));
        self.executors.run(task.clone(), fence, &WorkerId::new("w").unwrap(), Arc::new(spec));
        (task, fence)
    }

    pub(super) fn next(&self) -> RunEvent {
        self.events.recv_timeout(DEADLINE).expect("the run says something in time")
    }

    /// Everything that a run says, up to its end.
    pub(super) fn to_end(&self) -> (Vec<Event>, Verdict, RawReport) {
        let mut before = Vec::new();
        loop {
            match self.next().event {
                Event::Ended { verdict, report } => return (before, verdict, report),
                event => before.push(event),
            }
        }
    }

    /// Runs `payload` and waits for its end.
    pub(super) fn outcome(&self, task_type: &str, payload: &str) -> (Verdict, RawReport) {
        self.run(task_type, payload);
        let (_, verdict, report) = self.to_end();
        (verdict, report)
    }

    /// Ends everything; nothing more may have been said.
    pub(super) async fn close(self) {
        self.executors.shutdown().await;
        assert_eq!(self.executors.running(), 0);
        let late: Vec<_> = self.events.try_iter().collect();
        assert_eq!(late, [], "said after the end");
    }
}

pub(super) fn spec(task_type: &str, payload: &str) -> Spec {
    Spec {
        task_type: task_type.into(),
        payload: payload.as_bytes().into(),
        tags: Vec::new(),
        metadata: None,
        timeout: None,
        retry: RetryPolicy::default(),
        requirements: Requirements::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: None,
        durability: Durability::default(),
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(0),
        submitter: None,
        trace: None,
        cache: None,
    }
}

pub(super) fn fence(attempt: u32) -> Fence {
    Fence { ballot: Ballot { epoch: 3, owner: NodeId([7; 32]) }, attempt }
}

/// Waits until `reached`, or fails with `what`.
pub(super) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_executor_starts_and_ends_once() {
    for case in CASES {
        let bench = Bench::new(|_| ());
        bench.run(case.task_type, case.quick);
        let (before, verdict, report) = bench.to_end();
        assert_eq!(before, [Event::Started], "{}", case.task_type);
        assert_eq!(verdict, Verdict::Completed, "{}", case.task_type);
        assert!(report.usage.wall.is_some());
        assert!(serde_json::from_slice::<serde_json::Value>(&report.result).is_ok());
        bench.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_payload_is_refused_for_good_and_names_its_field() {
    let bench = Bench::new(|_| ());
    for case in CASES {
        for (payload, field) in case.bad {
            bench.run(case.task_type, payload);
            let (before, verdict, _) = bench.to_end();
            assert_eq!(before, [], "{payload} began");
            let Verdict::Failed { error, retryable: false } = verdict else { panic!("{payload}: {verdict:?}") };
            assert!(error.starts_with(&format!("{field}: ")), "{payload}: {error}");
        }
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_validation_passes_is_what_executors_take() {
    for case in CASES {
        assert_eq!(Executors::validate(case.task_type, case.quick.as_bytes()), Ok(()));
        for (payload, field) in case.bad.iter().filter(|(payload, _)| !payload.contains("no-such")) {
            let complaint = Executors::validate(case.task_type, payload.as_bytes()).expect_err(payload);
            assert!(complaint.starts_with(&format!("{field}: ")), "{complaint}");
        }
    }
    assert_eq!(Executors::validate("of-a-newer-version", b"{}"), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_every_executor_asked_or_forced() {
    for case in CASES {
        let Some(long) = case.long else { continue };
        for force in [false, true] {
            let bench = Bench::new(|_| ());
            let (task, fence) = bench.run(case.task_type, long);
            assert_eq!(bench.next().event, Event::Started);
            bench.executors.stop(&task, super::contract::fence(9), true);
            assert_eq!(bench.executors.running(), 1, "another fence stops nothing");
            bench.executors.stop(&task, fence, force);
            assert_eq!(bench.to_end().1, Verdict::Stopped, "{}", case.task_type);
            bench.executors.stop(&task, fence, force);
            bench.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_start_counts() {
    for case in CASES {
        let Some(long) = case.long else { continue };
        let bench = Bench::new(|_| ());
        let (task, fence) = bench.run(case.task_type, long);
        bench.executors.stop(&task, fence, true);
        assert_eq!(bench.to_end().1, Verdict::Stopped);
        bench.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_every_executor() {
    for case in CASES {
        let Some(long) = case.long else { continue };
        let bench = Bench::new(|_| ());
        bench.run_spec(Spec { timeout: Some(Millis(30)), ..spec(case.task_type, long) }, 1);
        assert_eq!(bench.to_end().1, Verdict::TimedOut { after: Millis(30) }, "{}", case.task_type);
        bench.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_hands_back_what_runs_and_what_comes_after() {
    for case in CASES {
        let Some(long) = case.long else { continue };
        let bench = Bench::new(|_| ());
        bench.run(case.task_type, long);
        assert_eq!(bench.next().event, Event::Started);
        bench.executors.shutdown().await;
        assert_eq!(bench.to_end().1, Verdict::HandedBack);
        bench.run(case.task_type, long);
        assert_eq!(bench.to_end(), (vec![], Verdict::HandedBack, bench_report(&bench)));
        bench.close().await;
    }
}

/// The report of what never ran: nothing but its wall time.
fn bench_report(_: &Bench) -> RawReport {
    RawReport { usage: Usage { wall: Some(Millis(0)), ..Usage::default() }, ..RawReport::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_fence_runs_once() {
    let bench = Bench::new(|_| ());
    let (task, fence) = bench.run("sleep", r#"{"seconds":3600}"#);
    bench.run("sleep", r#"{"seconds":3600}"#);
    assert_eq!(bench.executors.running(), 1);
    bench.executors.stop(&task, fence, false);
    assert_eq!(bench.to_end().0, [Event::Started]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_task_type_is_refused() {
    let bench = Bench::new(|config| config.allow.clear());
    let (verdict, _) = bench.outcome(EXEC, r#"{"argv":["true"]}"#);
    assert!(matches!(verdict, Verdict::Failed { retryable: false, .. }), "{verdict:?}");
    let here: Vec<_> = bench.executors.capabilities();
    assert_eq!(here, ["echo", "fail", "sleep"].map(Arc::from));
    assert!(!bench.folder.path().join("work").exists(), "no folder is made where exec is off");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_name_the_allowed_programs() {
    let bench = Bench::new(|config| config.allow = vec!["sha256sum".into(), "/opt/x".into()]);
    let expected = ["echo", "exec", "exec:/opt/x", "exec:sha256sum", "fail", "sleep"];
    assert_eq!(bench.executors.capabilities(), expected.map(Arc::from));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_gives_its_payload_back() {
    let bench = Bench::new(|_| ());
    assert_eq!(bench.outcome("echo", r#"{"b":1, "a":[2]}"#).1.result, br#"{"b":1, "a":[2]}"#);
    let large = format!("\"{}\"", "x".repeat(limits::PAYLOAD_BYTES / 2));
    assert_eq!(bench.outcome("echo", &large).1.result, large.as_bytes());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_fails_as_often_as_it_is_told() {
    let bench = Bench::new(|_| ());
    let payload = r#"{"error":"no luck","retryable":false,"times":2}"#;
    for attempt in 1..=3 {
        bench.run_spec(spec("fail", payload), attempt);
        let expected = match attempt {
            3 => Verdict::Completed,
            _ => Verdict::Failed { error: "no luck".into(), retryable: false },
        };
        assert_eq!(bench.to_end().1, expected);
    }
    assert!(matches!(bench.outcome("fail", "{}").0, Verdict::Failed { retryable: true, .. }));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleep_tells_its_progress_each_second_and_what_it_slept() {
    let bench = Bench::new(|config| config.allow.clear());
    bench.run("sleep", r#"{"seconds":2.2}"#);
    let (before, verdict, report) = bench.to_end();
    let percents = before.iter().filter_map(|event| match event {
        Event::Progress { percent, .. } => *percent,
        _ => None,
    });
    assert_eq!(percents.collect::<Vec<_>>(), [45, 90]);
    assert_eq!(verdict, Verdict::Completed);
    let result: serde_json::Value = serde_json::from_slice(&report.result).unwrap();
    assert!(result["slept_ms"].as_u64().unwrap() >= 2_200, "{result}");
    bench.close().await;
}

/// Panics at once, or a little later.
struct Broken(&'static str);

impl Executor for Broken {
    fn task_type(&self) -> &'static str {
        self.0
    }

    fn begin(&self, _: Link) -> Begun {
        assert_ne!(self.0, "at-once", "broken at once");
        Begun::Runs(Box::pin(async {
            tokio::task::yield_now().await;
            panic!("broken later")
        }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_the_end_of_its_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (tell, events) = channel();
    let all: Vec<Box<dyn Executor>> = vec![Box::new(Broken("at-once")), Box::new(Broken("later"))];
    let executors = Executors::with(all, move |event| drop(tell.send(event))).unwrap();
    let bench = Bench { executors, events, folder };
    for name in ["at-once", "later", "at-once"] {
        let (verdict, _) = bench.outcome(name, "{}");
        let Verdict::Failed { error, retryable: true } = verdict else { panic!("{verdict:?}") };
        assert!(error.contains("the executor panicked: "), "{error}");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_op_costs_some_microseconds() {
    let bench = Bench::new(|_| ());
    let spec = Arc::new(spec("echo", r#"{"n":1}"#));
    let tasks: Vec<_> = (0..10_000).map(|n| TaskId::new(&format!("job/{n}")).unwrap()).collect();
    let began = Instant::now();
    for task in &tasks {
        bench.executors.run(task.clone(), fence(1), &WorkerId::new("w").unwrap(), spec.clone());
    }
    let each = began.elapsed() / 10_000;
    println!("echo: {each:?} a run");
    // A hundred times what it takes, so that a busy machine does not fail it.
    assert!(each < Duration::from_micros(500), "{each:?}");
    assert_eq!(bench.events.try_iter().count(), 20_000);
    bench.close().await;
}
