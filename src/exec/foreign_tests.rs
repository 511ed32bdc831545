//! The desk of foreign programs, with the runner around it.

#![allow(clippy::unwrap_used)]

use super::contract::{Bench, fence, spec};
use super::foreign::*;
use super::*;

fn worker() -> WorkerId {
    WorkerId::new(&format!("{PREFIX}abcdefgh:w")).unwrap()
}

fn claimant(most: usize, span: Duration) -> Claimant {
    Claimant { worker: worker(), types: vec!["render".into()], most, holder: "peer-1".into(), span }
}

fn task(n: usize) -> TaskId {
    TaskId::new(&format!("job/{n}")).unwrap()
}

/// A run of a type that no executor here has, in a foreign worker.
fn park(bench: &Bench, n: usize, timeout: Option<Millis>) {
    let spec = Spec { timeout, ..spec("render", r#"{"frame":7}"#) };
    bench.executors.run(task(n), fence(1), &worker(), Arc::new(spec));
}

async fn claimed(bench: &Bench, claimant: &Claimant) -> Vec<Claimed> {
    let desk = bench.executors.desk();
    loop {
        let bell = desk.bell();
        let claimed = desk.claim(claimant);
        if !claimed.is_empty() {
            return claimed;
        }
        tokio::time::timeout(Duration::from_secs(10), bell).await.unwrap();
    }
}

fn proof<'a>(task: &'a TaskId, secret: Option<&'a str>, peer: &'a str) -> Proof<'a> {
    Proof { task, secret, peer }
}

fn done() -> End {
    End { how: How::Completed, report: RawReport { result: b"{\"ok\":1}".to_vec(), ..RawReport::default() } }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_of_a_lease_ends_its_run() {
    let bench = Bench::new(|_| ());
    park(&bench, 1, None);
    let one = claimed(&bench, &claimant(1, LONG)).await.remove(0);
    let desk = bench.executors.desk();
    assert_eq!((one.task.as_str(), &*one.spec.payload), ("job/1", &br#"{"frame":7}"#[..]));
    assert!(desk.claim(&claimant(1, LONG)).is_empty(), "nobody else gets it");
    for denied in [proof(&one.task, None, "peer-2"), proof(&one.task, Some("forged"), "peer-1")] {
        assert_eq!(desk.finish(&denied, done()), Err(Denied::NotHolder));
        assert_eq!(desk.extend(&denied), Err(Denied::NotHolder));
    }
    assert_eq!(desk.finish(&proof(&task(2), None, "peer-1"), done()), Err(Denied::NoLease));
    assert_eq!(bench.executors.running(), 1, "nothing was changed");
    // With the secret it may come from anywhere, and be said twice.
    let holder = proof(&one.task, Some(&one.secret), "peer-2");
    assert_eq!(desk.finish(&holder, done()), Ok(Finish::Now(1)));
    let (before, verdict, report) = bench.to_end();
    assert_eq!((before, verdict, &report.result[..]), (vec![Event::Started], Verdict::Completed, &b"{\"ok\":1}"[..]));
    assert_eq!(desk.finish(&holder, done()), Ok(Finish::Before(1)));
    assert_eq!(desk.finish(&proof(&one.task, None, "peer-2"), done()), Err(Denied::NoLease));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_hands_its_run_back_and_is_worth_nothing() {
    let bench = Bench::new(|_| ());
    park(&bench, 1, None);
    let one = claimed(&bench, &claimant(1, Duration::from_millis(50))).await.remove(0);
    assert_eq!(bench.to_end().1, Verdict::HandedBack);
    let late = proof(&one.task, Some(&one.secret), "peer-1");
    assert_eq!(bench.executors.desk().finish(&late, done()), Err(Denied::NoLease));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_keep_a_lease() {
    let bench = Bench::new(|_| ());
    park(&bench, 1, None);
    let span = Duration::from_millis(400);
    let one = claimed(&bench, &claimant(1, span)).await.remove(0);
    let desk = bench.executors.desk();
    let holder = proof(&one.task, None, "peer-1");
    let until = Instant::now() + 3 * span;
    while Instant::now() < until {
        assert_eq!(desk.extend(&holder), Ok(span));
        assert_eq!((desk.extend_all(None, "peer-1"), desk.extend_all(None, "peer-2")), (1, 0));
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.finish(&holder, done()), Ok(Finish::Now(1)));
    assert_eq!(bench.to_end().1, Verdict::Completed);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_task_counts_from_its_claim() {
    let bench = Bench::new(|_| ());
    let timeout = Millis(50);
    park(&bench, 1, Some(timeout));
    let one = claimed(&bench, &claimant(1, LONG)).await.remove(0);
    assert_eq!(bench.to_end().1, Verdict::TimedOut { after: timeout });
    assert_eq!(bench.executors.desk().extend(&proof(&one.task, None, "peer-1")), Err(Denied::NoLease));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_claims_is_handed_back() {
    let bench = Bench::new(|_| ());
    park(&bench, 1, Some(Millis(1)));
    let (before, verdict, _) = bench.to_end();
    assert_eq!((before, verdict), (vec![], Verdict::HandedBack));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_claimed_run_and_its_lease() {
    let bench = Bench::new(|_| ());
    park(&bench, 1, None);
    let one = claimed(&bench, &claimant(1, LONG)).await.remove(0);
    bench.executors.stop(&one.task, fence(1), false);
    assert_eq!(bench.to_end().1, Verdict::Stopped);
    let late = proof(&one.task, Some(&one.secret), "peer-1");
    assert_eq!(bench.executors.desk().finish(&late, done()), Err(Denied::NoLease));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_the_oldest_of_its_types_first_and_no_more_than_it_asked() {
    let bench = Bench::new(|_| ());
    for n in 0..5 {
        park(&bench, n, None);
    }
    let desk = bench.executors.desk();
    let until = Instant::now() + Duration::from_secs(10);
    let other = Claimant { types: vec!["paint".into()], ..claimant(64, LONG) };
    let stranger = Claimant { worker: WorkerId::new("foreign:abcdefgh:v").unwrap(), ..claimant(64, LONG) };
    let mut got = Vec::new();
    while got.len() < 5 {
        assert!(Instant::now() < until && desk.claim(&other).is_empty() && desk.claim(&stranger).is_empty());
        let some = desk.claim(&claimant(2, LONG));
        assert!(some.len() <= 2);
        got.extend(some);
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.leases(&worker()), 5);
    // A node that ends hands back what its foreign workers hold.
    bench.executors.shutdown().await;
    let ends: Vec<_> = bench
        .events
        .try_iter()
        .filter_map(|run| match run.event {
            Event::Ended { verdict, .. } => Some(verdict),
            Event::Started | Event::Progress { .. } => None,
        })
        .collect();
    assert_eq!(ends, vec![Verdict::HandedBack; 5]);
}
