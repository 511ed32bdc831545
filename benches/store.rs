//! What durability costs: one commit at a time and grouped, beside a bare
//! append with `fdatasync` in the same run; and how long a large store takes
//! to open. Rounds alternate, so that the ratios hold on a busy machine.
//!
//! `cargo bench --bench store`; it writes to the system's folder for temporary
//! files, so point `TMPDIR` at the disk that is to be measured.
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use taskmesh::store::{SledStore, Store, Write};
use taskmesh_core::record::Birth;
use taskmesh_core::task::{Priority, Requirements, RetryPolicy, Task, TaskState};
use taskmesh_core::{Ballot, Entry, NodeId, Record, Spec, Stamp, TaskId, Unix};

const ROUNDS: usize = 5;
const SINGLE_WRITES: u64 = 1_500;
const SUBMITTERS: u64 = 64;
const GROUPED_WRITES: u64 = 64 * 400;
const BATCHED_WRITES: u64 = 40_000;
const BATCH: u64 = 1_000;
/// Records are revised round and round, as in a queue of this depth.
const TASKS: u64 = 10_000;
const REOPENED: u64 = 200_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(&folder.path().join("data")).unwrap();
    let mut rounds = Vec::new();
    println!("1 KiB records, durable; writes/s (p50 of one write, µs)\n");
    println!(
        "{:>5} {:>20} {:>20} {:>20} {:>20}",
        "round", "raw fdatasync", "one commit each", "64 submitters", "1,000 a batch"
    );
    for round in 0..ROUNDS {
        let raw = raw_appends(&folder.path().join("raw"));
        let single = single_commits(&mut store, round as u64);
        let (grouped, back) = grouped_commits(store, round as u64);
        store = back;
        let batched = batched_commits(&mut store, round as u64);
        println!("{round:>5} {raw} {single} {grouped} {batched}");
        rounds.push([raw, single, grouped, batched]);
    }
    let ratio = |of: fn(&[Rate; 4]) -> f64| median(rounds.iter().map(of).collect());
    println!("\nmedian ratios of {ROUNDS} rounds");
    println!(
        "  one commit, time, over raw append + fdatasync  {:>6.2}   (at most 1.6)",
        ratio(|r| r[0].rate / r[1].rate)
    );
    println!(
        "  64 submitters over one, rate                   {:>6.2}   (at least 10)",
        ratio(|r| r[2].rate / r[1].rate)
    );
    println!("  1,000 a batch over one, rate                   {:>6.2}", ratio(|r| r[3].rate / r[1].rate));
    drop(store);
    reopen();
}

#[derive(Clone, Copy)]
struct Rate {
    rate: f64,
    p50: Option<Duration>,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.p50 {
            Some(p50) => format!("{:.0} ({})", self.rate, p50.as_micros()),
            None => format!("{:.0}", self.rate),
        };
        write!(f, "{text:>20}")
    }
}

fn raw_appends(path: &Path) -> Rate {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let record = [7; 1_024];
    each(SINGLE_WRITES, |_| {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    })
}

fn single_commits(store: &mut SledStore, round: u64) -> Rate {
    let records: Vec<_> = (0..SINGLE_WRITES).map(|n| record(n % TASKS, round)).collect();
    each(SINGLE_WRITES, |n| {
        store.commit(&[Write::Persist(&records[n as usize])]).unwrap();
    })
}

fn batched_commits(store: &mut SledStore, round: u64) -> Rate {
    let records: Vec<_> = (0..BATCHED_WRITES).map(|n| record(n % TASKS, round)).collect();
    let start = Instant::now();
    for batch in records.chunks(BATCH as usize) {
        store.commit(&batch.iter().map(Write::Persist).collect::<Vec<_>>()).unwrap();
    }
    Rate { rate: BATCHED_WRITES as f64 / start.elapsed().as_secs_f64(), p50: None }
}

type Submission = (Entry, SyncSender<()>);

/// Each submitter waits for its write to be durable before it sends the next.
fn grouped_commits(store: SledStore, round: u64) -> (Rate, SledStore) {
    let (submit, submissions) = sync_channel::<Submission>(SUBMITTERS as usize);
    let committer = thread::spawn(move || commit_what_comes(store, &submissions));
    let start = Instant::now();
    let each = GROUPED_WRITES / SUBMITTERS;
    let submitters = (0..SUBMITTERS).map(|who| {
        let submit = submit.clone();
        thread::spawn(move || {
            let (done, durable) = sync_channel(1);
            let mut waits = Vec::with_capacity(each as usize);
            for n in 0..each {
                let sent = Instant::now();
                submit.send((record((who * each + n) % TASKS, round), done.clone())).unwrap();
                durable.recv().unwrap();
                waits.push(sent.elapsed());
            }
            waits
        })
    });
    let submitters: Vec<_> = submitters.collect();
    drop(submit);
    let mut waits: Vec<_> = submitters.into_iter().flat_map(|s| s.join().unwrap()).collect();
    let rate = GROUPED_WRITES as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    (Rate { rate, p50: Some(waits[waits.len() / 2]) }, committer.join().unwrap())
}

/// What the driver does: takes what has come, commits once, then answers.
fn commit_what_comes(mut store: SledStore, submissions: &Receiver<Submission>) -> SledStore {
    while let Ok(first) = submissions.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(submissions.try_iter().take(1_023)).collect();
        store.commit(&batch.iter().map(|(entry, _)| Write::Persist(entry)).collect::<Vec<_>>()).unwrap();
        batch.iter().for_each(|(_, done)| done.send(()).unwrap());
    }
    store
}

fn reopen() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    let start = Instant::now();
    for first in (0..REOPENED).step_by(500) {
        let tasks = first..first + 500;
        let entries: Vec<_> = tasks.flat_map(|n| [Entry::Spec(id(n), spec(n).into()), record(n, 0)]).collect();
        store.commit(&entries.iter().map(Write::Persist).collect::<Vec<_>>()).unwrap();
    }
    let wrote = start.elapsed();
    let bytes = store.disk_bytes().unwrap();
    drop(store);
    println!("\n{REOPENED} tasks (spec and 1 KiB record), {} MiB on disk", bytes >> 20);
    println!(
        "  written in  {:>7.2} s ({:.0} entries/s, 1,000 a batch)",
        wrote.as_secs_f64(),
        2.0 * REOPENED as f64 / wrote.as_secs_f64()
    );
    let before = resident_mib();
    let start = Instant::now();
    let mut store = SledStore::open(folder.path()).unwrap();
    let opened = start.elapsed();
    let (disk, reports) = store.load().unwrap();
    println!("  opened in   {:>7.2} s", opened.as_secs_f64());
    println!(
        "  loaded in   {:>7.2} s ({} tasks, {} damaged)",
        (start.elapsed() - opened).as_secs_f64(),
        disk.slots.len(),
        reports.len()
    );
    println!("  memory      {before:>7} MiB before, {} MiB with all of it in hand", resident_mib());
    assert_eq!((disk.slots.len() as u64, reports.len()), (REOPENED, 0));
}

fn each(writes: u64, mut write: impl FnMut(u64)) -> Rate {
    let mut times = Vec::with_capacity(writes as usize);
    let start = Instant::now();
    for n in 0..writes {
        let begun = Instant::now();
        write(n);
        times.push(begun.elapsed());
    }
    let rate = writes as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    Rate { rate, p50: Some(times[times.len() / 2]) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn id(n: u64) -> TaskId {
    // Not in the order of their making, as ids of different nodes are.
    TaskId::new(&format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap()
}

fn record(n: u64, revision: u64) -> Entry {
    let owner = NodeId::test(1);
    let ballot = Ballot { epoch: 1, owner };
    let record = Record {
        task: id(n),
        birth: Birth { node: owner, nonce: n },
        stamp: Stamp { ballot, revision: revision as u32 },
        holders: vec![owner, NodeId::test(2), NodeId::test(3)],
        prior: Vec::new(),
        body: Task {
            priority: Priority::NORMAL,
            attempt: 1,
            failures: 0,
            crashes: 0,
            retries: 0,
            cancel: None,
            last_error: Some("x".repeat(800).into()),
            state: TaskState::Queued { since: Unix(1_700_000_000_000 + revision), place: Priority::NORMAL },
        },
    };
    Entry::Record { pledge: ballot, record: Box::new(record) }
}

fn spec(n: u64) -> Spec {
    Spec {
        task_type: "exec".into(),
        payload: format!("{{\"argv\":[\"sha256sum\",\"/usr/share/file-{n}\"]}}").into_bytes().into(),
        tags: Vec::new(),
        metadata: None,
        timeout: None,
        retry: RetryPolicy::default(),
        requirements: Requirements::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: None,
        durability: taskmesh_core::task::Durability::Replicated,
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(1_700_000_000_000),
    }
}
