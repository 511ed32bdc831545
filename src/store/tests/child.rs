//! A process that writes until it is ended: this test binary again, told by
//! its environment what to do.

use super::sample;
use super::{Change, commit, expected, task};
use crate::store::{SledStore, Store, Write};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use taskmesh_core::prng::Prng;
use taskmesh_core::{BlobHash, Disk, Entry, Key};

const ROLE: &str = "TASKMESH_STORE_CHILD";
const FOLDER: &str = "TASKMESH_STORE_FOLDER";
const FIRST: &str = "TASKMESH_STORE_FIRST";

/// A line that the child says when a batch is durable: `ack 17`.
pub(super) const ACK: &str = "ack ";

/// Not a test of its own: what a child process runs. Without its environment
/// it has nothing to do.
#[test]
fn entry() {
    let (Ok(role), Ok(folder)) = (std::env::var(ROLE), std::env::var(FOLDER)) else { return };
    let first = std::env::var(FIRST).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let folder = Path::new(&folder);
    match &role[..] {
        "write" => write(folder, first, u64::MAX),
        "write 40" => write(folder, first, first + 40),
        "fill" => fill(folder),
        "bare" => bare(folder),
        other => panic!("unknown role {other}"),
    }
}

/// A command that runs [`entry`] in a role.
pub(super) fn command(role: &str, folder: &Path, first: u64) -> Vec<(String, String)> {
    vec![
        (ROLE.to_owned(), role.to_owned()),
        (FOLDER.to_owned(), folder.display().to_string()),
        (FIRST.to_owned(), first.to_string()),
    ]
}

/// The arguments that make this test binary run [`entry`] alone.
pub(super) fn arguments() -> Vec<String> {
    let path = module_path!().split_once("::").unwrap().1;
    vec![
        std::env::current_exe().unwrap().display().to_string(),
        format!("{path}::entry"),
        "--exact".to_owned(),
        "--nocapture".to_owned(),
        "--test-threads=1".to_owned(),
    ]
}

/// Starts a child, possibly under a wrapper.
pub(super) fn start(wrapper: &[&str], environment: Vec<(String, String)>) -> Child {
    let words: Vec<String> = wrapper.iter().map(|w| (*w).to_owned()).chain(arguments()).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).envs(environment).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads what a child says until `enough`, kills it with SIGKILL, and returns
/// how many batches it acknowledged, counted from 0.
pub(super) fn kill_after(mut child: Child, enough: impl Fn(&str) -> bool) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = 0;
    let mut note = |line: &str| {
        if let Some(n) = line.strip_prefix(ACK) {
            acknowledged = n.parse::<u64>().unwrap() + 1;
        }
    };
    let mut reached = false;
    for line in lines.by_ref() {
        note(&line);
        if enough(&line) {
            reached = true;
            break;
        }
    }
    child.kill().unwrap();
    // What was said before the end counts.
    lines.for_each(|line| note(&line));
    child.wait().unwrap();
    assert!(reached, "the child ended by itself");
    acknowledged
}

/// The changes of batch `n`: new tasks, newer versions, forgotten ones, large
/// ones, and everything else that a node writes.
pub(super) fn batch(n: u64) -> Vec<Change> {
    let mut chance = Prng::new(n);
    let mut changes = Vec::new();
    for i in 0..1 + chance.below(4) {
        let id = task(&format!("{n}-{i}"));
        let mut spec = sample::spec(&mut chance);
        if chance.chance(30) {
            spec.payload = vec![n as u8; 30_000 + chance.below(200_000) as usize].into();
        }
        changes.push(Change::Persist(Entry::Spec(id.clone(), spec.into())));
        changes.push(Change::Persist(sample::record(&mut chance, &id)));
        changes.push(Change::Persist(sample::record(&mut chance, &id)));
    }
    for back in 1..n.min(6) {
        changes.push(Change::Persist(sample::record(&mut chance, &task(&format!("{}-0", n - back)))));
    }
    if n > 8 {
        changes.extend((0..4).map(|i| Change::Forget(Key::Task(task(&format!("{}-{i}", n - 8))))));
    }
    if chance.chance(200) {
        changes.extend(sample::others(&mut chance).into_iter().map(Change::Persist));
    }
    changes
}

/// Asserts that `found` is what the first `acknowledged` batches left, or that
/// with some of what the next one wrote.
pub(super) fn check(found: &Disk, acknowledged: u64) {
    let batches: Vec<_> = (0..=acknowledged).map(batch).collect();
    let before = expected(batches[..acknowledged as usize].iter().map(|b| &b[..]));
    let after = expected(batches.iter().map(|b| &b[..]));
    let (facts, before, after) = (facts(found), facts_of(before), facts_of(after));
    for name in facts.keys().chain(before.keys()).chain(after.keys()) {
        let fact = facts.get(name);
        assert!(
            fact == before.get(name) || fact == after.get(name),
            "{name} is not what it was after {acknowledged} batches, nor after the next"
        );
    }
    for task in &found.damaged {
        let name = format!("task {task}");
        assert_ne!(before.get(&name), after.get(&name), "{task} is damaged, and was not being written");
    }
}

fn facts_of(disk: Disk) -> BTreeMap<String, BlobHash> {
    facts(&disk)
}

/// Everything in `disk` by name, as hashes of its text.
fn facts(disk: &Disk) -> BTreeMap<String, BlobHash> {
    let mut facts = BTreeMap::new();
    let mut add = |name: String, text: String| {
        facts.insert(name, BlobHash::of(text.as_bytes()));
    };
    disk.slots.iter().for_each(|s| add(format!("task {}", s.record.task), format!("{s:?}")));
    disk.workers.iter().for_each(|w| add(format!("worker {}", w.0.worker), format!("{w:?}")));
    disk.peers.iter().for_each(|p| add(format!("peer {}", p.0), format!("{p:?}")));
    disk.tombstones.iter().for_each(|t| add(format!("tombstone {}", t.0), format!("{t:?}")));
    disk.pledges.iter().for_each(|p| add(format!("pledge {}", p.0), format!("{p:?}")));
    disk.forgotten.iter().for_each(|w| add(format!("forgotten {}", w.node), format!("{w:?}")));
    disk.tokens.iter().for_each(|t| add(format!("token {}", t.id), format!("{t:?}")));
    disk.cached.iter().for_each(|e| add(format!("result {}", e.key), format!("{e:?}")));
    add("controls".to_owned(), format!("{:?}", disk.controls));
    add("boot".to_owned(), disk.boot.to_string());
    facts
}

fn write(folder: &Path, first: u64, end: u64) {
    let mut store = SledStore::open(folder).unwrap();
    say("\nopened");
    for n in first..end {
        commit(&mut store, &batch(n));
        say(&format!("{ACK}{n}"));
    }
}

/// Writes until the store says no, then once more.
fn fill(folder: &Path) {
    let mut store = SledStore::open(folder).unwrap();
    say("\nopened");
    for n in 0.. {
        let changes = batch(n);
        let writes: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Persist(entry) => Some(Write::Persist(entry)),
                Change::Forget(_) => None,
            })
            .collect();
        if let Err(e) = store.commit(&writes) {
            say(&format!("first {e:?}"));
            break;
        }
        say(&format!("{ACK}{n}"));
    }
    let last = store.commit(&[Write::Persist(&Entry::Boot(1))]);
    say(&format!("second {last:?}"));
}

/// sled as it comes.
fn bare(folder: &Path) {
    let db = ::sled::Config::new().path(folder).flush_every_ms(None).open().unwrap();
    for n in 0u64.. {
        db.insert(n.to_be_bytes(), vec![1; 500]).unwrap();
        db.flush().unwrap();
        say(&format!("\n{ACK}{n}"));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}
