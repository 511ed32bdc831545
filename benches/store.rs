//! What durability costs: one commit at a time and grouped, beside a bare
//! append with `fdatasync` in the same run; and how long a large store takes
//! to open. Rounds alternate, so that the ratios hold on a busy machine.
//!
//! `cargo bench --bench store`; it writes to the system's folder for temporary
//! files, so point `TMPDIR` at the disk that is to be measured. Where others
//! compute, single writes wait for the scheduler rather than for the disk: run
//! the program that `--no-run` names under `chrt -r 5` (not `-f`: sled spins
//! where it initializes, and without time slices that has no end).
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use taskmesh::store::{SledStore, Store, Write};
use taskmesh_core::record::Birth;
use taskmesh_core::task::{Priority, Requirements, RetryPolicy, Task, TaskState};
use taskmesh_core::{Ballot, Entry, NodeId, Record, Spec, Stamp, TaskId, Unix};

const ROUNDS: usize = 9;
const SINGLE_WRITES: u64 = 500;
const SUBMITTERS: u64 = 64;
const GROUPED_WRITES: u64 = SUBMITTERS * 200;
const BATCHED_WRITES: u64 = 20_000;
const BATCH: u64 = 1_000;
/// Records are revised round and round, as in a queue of this depth.
const TASKS: u64 = 10_000;
const REOPENED: u64 = 200_000;

fn main() {
    if std::env::args().all(|a| a != "reopen") {
        commits();
    }
    reopen();
}

fn commits() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(&folder.path().join("data")).unwrap();
    let mut rounds = Vec::new();
    println!("1 KiB records, durable: writes/s (p50 of one write, µs)\n");
    let heads = ["append+fdatasync", "in place+fdatasync", "one commit each", "64 submitters", "1,000 a batch"];
    println!("round{}", heads.map(|h| format!("{h:>20}")).concat());
    for round in 0..ROUNDS {
        let appended = appends(&folder.path().join("appended"));
        let in_place = overwrites(&folder.path().join("in-place"));
        let single = single_commits(&mut store, round as u64);
        let (grouped, back) = grouped_commits(store, round as u64);
        store = back;
        let batched = batched_commits(&mut store, round as u64);
        println!("{round:>5}{appended}{in_place}{single}{grouped}{batched}");
        rounds.push([appended, in_place, single, grouped, batched]);
    }
    println!("\nmedian ratios of {ROUNDS} rounds");
    let show = |what: &str, of: fn(&[Rate; 5]) -> f64| {
        println!("  {what:<56}{:>7.2}", median(rounds.iter().map(of).collect()));
    };
    show("one commit / append + fdatasync, p50 (at most 1.6)", |r| r[2].p50 / r[0].p50);
    show("one commit / append + fdatasync, mean", |r| r[0].rate / r[2].rate);
    show("one commit / in place + fdatasync, p50", |r| r[2].p50 / r[1].p50);
    show("one commit / in place + fdatasync, mean", |r| r[1].rate / r[2].rate);
    show("64 submitters / one, rate (at least 10)", |r| r[3].rate / r[2].rate);
    show("64 submitters / one at its p50, rate", |r| r[3].rate * r[2].p50 / 1e6);
    show("1,000 a batch / one, rate", |r| r[4].rate / r[2].rate);
}

#[derive(Clone, Copy)]
struct Rate {
    /// Writes a second.
    rate: f64,
    /// µs; 0 where single writes were not timed.
    p50: f64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.0} ({:.0})", self.rate, self.p50);
        write!(f, "{text:>20}")
    }
}

/// Each makes the file longer, so the file system's journal is written too.
fn appends(path: &Path) -> Rate {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let record = [7; 1_024];
    each(SINGLE_WRITES, |_| {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    })
}

/// As a store may do once its file has grown: nothing but the data.
fn overwrites(path: &Path) -> Rate {
    let record = [7; 1_024];
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    for n in 0..SINGLE_WRITES {
        file.write_all_at(&record, n * 1_024).unwrap();
    }
    file.sync_all().unwrap();
    each(SINGLE_WRITES, |n| {
        file.write_all_at(&record, n * 1_024).unwrap();
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
    Rate { rate: BATCHED_WRITES as f64 / start.elapsed().as_secs_f64(), p50: 0.0 }
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
    (Rate { rate, p50: p50(&mut waits) }, committer.join().unwrap())
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
    println!("\n{REOPENED} tasks, each a spec and a 1 KiB record: seconds (of which on a CPU)");
    let wrote = timed("written, 1,000 entries a batch", || {
        for first in (0..REOPENED).step_by(500) {
            let tasks = first..first + 500;
            let entries: Vec<_> = tasks.flat_map(|n| [Entry::Spec(id(n), spec(n).into()), record(n, 0)]).collect();
            store.commit(&entries.iter().map(Write::Persist).collect::<Vec<_>>()).unwrap();
        }
    });
    println!("  {:<40}{:>8.0}", "entries/s", 2.0 * REOPENED as f64 / wrote);
    println!("  {:<40}{:>8}", "MiB on disk", store.disk_bytes().unwrap() >> 20);
    println!("  {:<40}{:>8}", "MiB of memory", resident_mib());
    drop(store);
    let mut opened = None;
    timed("opened", || opened = Some(SledStore::open(folder.path()).unwrap()));
    let mut loaded = None;
    timed("loaded", || loaded = Some(opened.as_mut().unwrap().load().unwrap()));
    println!("  {:<40}{:>8}", "MiB of memory, with all of it in hand", resident_mib());
    let (disk, reports) = loaded.unwrap();
    assert_eq!((disk.slots.len() as u64, reports.len()), (REOPENED, 0));
}

/// Says how long `work` took, and returns the seconds.
fn timed(what: &str, work: impl FnOnce()) -> f64 {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work();
    let took = start.elapsed().as_secs_f64();
    println!("  {what:<40}{took:>8.2} ({:.2})", cpu_seconds() - cpu);
    took
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
    Rate { rate, p50: p50(&mut times) }
}

fn p50(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
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

/// Of this process, all threads; in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
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
        forgotten: Default::default(),
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
        submitter: None,
        trace: None,
        cache: None,
    }
}
