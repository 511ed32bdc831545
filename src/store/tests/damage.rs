//! What cannot be read is kept and reported, and the rest is used.

use super::sample;
use super::{Change, commit, edit_rows, expected, load, load_whole, task};
use crate::store::{SledStore, Store, StoreError};
use std::fs;
use std::path::Path;
use taskmesh_core::prng::Prng;
use taskmesh_core::{Entry, TaskId};

const RECORD: u8 = 2;
const SPEC: u8 = 1;
const WORKER: u8 = 3;
const SEAL: u8 = 10;

fn key(kind: u8, name: &str) -> Vec<u8> {
    [&[kind], name.as_bytes()].concat()
}

fn flip_last_byte(folder: &Path, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    edit_rows(folder, |db| {
        bytes = db.get(key).unwrap().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        db.insert(key, &bytes[..]).unwrap();
    });
    bytes
}

fn two_tasks(folder: &Path) -> [Vec<Change>; 2] {
    let mut chance = Prng::new(11);
    let mut store = SledStore::open(folder).unwrap();
    ["a", "b"].map(|id| {
        let id = task(id);
        let changes = vec![
            Change::Persist(Entry::Spec(id.clone(), sample::spec(&mut chance).into())),
            Change::Persist(sample::record(&mut chance, &id)),
        ];
        commit(&mut store, &changes);
        changes
    })
}

#[test]
fn a_damaged_half_of_a_task_is_kept_reported_and_repaired() {
    for kind in [RECORD, SPEC] {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = two_tasks(folder.path());
        let raw = flip_last_byte(folder.path(), &key(kind, "a"));
        // Until it is repaired every start says so.
        for _ in 0..2 {
            let (disk, reports) = load(folder.path());
            assert_eq!(disk.slots, expected([&b[..]]).slots);
            assert_eq!(disk.damaged, [task("a")]);
            assert_eq!(reports.len(), 1, "{reports:?}");
            assert_eq!(reports[0].task, Some(task("a")));
            assert!(reports[0].problem.contains("checksum"), "{reports:?}");
            assert_eq!(fs::read(reports[0].kept.as_ref().unwrap()).unwrap(), raw);
        }
        assert_eq!(fs::read_dir(folder.path().join("quarantine")).unwrap().count(), 2, "one copy, one note");
        commit(&mut SledStore::open(folder.path()).unwrap(), &a);
        assert_eq!(load_whole(folder.path()), expected([&a[..], &b[..]]));
    }
}

#[test]
fn a_task_of_which_a_half_is_missing_is_damaged() {
    for (half, problem) in [(0, "its record is missing"), (1, "its spec is missing")] {
        for id in ["a", "c"] {
            let folder = tempfile::tempdir().unwrap();
            let mut chance = Prng::new(16);
            let mut halves = |id: &str| {
                let spec = Entry::Spec(task(id), sample::spec(&mut chance).into());
                [Change::Persist(spec), Change::Persist(sample::record(&mut chance, &task(id)))]
            };
            let [b, torn] = [halves("b"), halves(id)];
            let mut store = SledStore::open(folder.path()).unwrap();
            commit(&mut store, &[b[0].clone(), b[1].clone(), torn[half].clone()]);
            drop(store);
            let (disk, reports) = load(folder.path());
            assert_eq!(disk.damaged, [task(id)]);
            assert_eq!(disk.slots.iter().map(|s| s.record.task.clone()).collect::<Vec<_>>(), [task("b")]);
            assert_eq!((&reports[0].problem[..], &reports[0].kept), (problem, &None));
        }
    }
}

/// What a store without a row says at its start.
fn refusal_without(folder: &Path, key: &[u8]) -> String {
    edit_rows(folder, |db| drop(db.remove(key).unwrap()));
    let refusal = SledStore::open(folder).unwrap().load();
    assert!(matches!(refusal, Err(StoreError::Corrupt { .. })), "{refusal:?}");
    refusal.unwrap_err().to_string()
}

#[test]
fn rows_that_are_missing_without_a_trace_are_noticed() {
    for (key, problem) in [
        (key(RECORD, "a"), "lost something that was acknowledged"),
        (key(SPEC, "b"), "lost something that was acknowledged"),
        (vec![SEAL], "lost the first thing"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        two_tasks(folder.path());
        let refusal = refusal_without(folder.path(), &key);
        assert!(refusal.contains(problem), "{refusal}");
    }
    // Without the mark, as after a power loss, all but the end is known.
    for (key, problem) in
        [(key(RECORD, "a"), "lost a part of its middle"), (vec![SEAL], "lost a part of its beginning")]
    {
        let folder = tempfile::tempdir().unwrap();
        two_tasks(folder.path());
        fs::remove_file(folder.path().join("mark")).unwrap();
        let refusal = refusal_without(folder.path(), &key);
        assert!(refusal.contains(problem), "{refusal}");
    }
}

/// sled itself goes on without what it cannot read.
#[test]
fn no_damage_to_the_log_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let mut batches = Vec::new();
    // Twice, so that a part of the log has been read by a start before.
    for round in 0..2 {
        let mut store = SledStore::open(folder.path()).unwrap();
        for n in 0..30 {
            let batch = super::child::batch(30 * round + n);
            commit(&mut store, &batch);
            batches.push(batch);
        }
    }
    let expected = expected(batches.iter().map(|b| &b[..]));
    let log = fs::read(folder.path().join("db").join("db")).unwrap();
    let mut chance = Prng::new(17);
    let (mut refused, mut whole) = (0, 0);
    for _ in 0..30 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let at = chance.below(log.len() as u64) as usize;
        let mut damaged = log.clone();
        damaged[at] ^= 1 << chance.below(8);
        fs::write(copy.path().join("db").join("db"), damaged).unwrap();
        match SledStore::open(copy.path()).and_then(|mut store| store.load()) {
            Ok((disk, reports)) => {
                assert_eq!(reports, []);
                assert!(disk == expected, "byte {at} of {} went missing silently", log.len());
                whole += 1;
            }
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(e) => panic!("byte {at}: {e:?}"),
        }
    }
    assert!(refused > 0, "{whole} of 30 were not even noticed");
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&place).unwrap();
            copy_folder(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), &place).unwrap();
        }
    }
}

#[test]
fn a_damaged_file_of_a_large_entry_is_damage_of_its_task() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sample::spec(&mut Prng::new(12));
    spec.payload = vec![7; 200_000].into();
    let record = sample::record(&mut Prng::new(13), &task("large"));
    let changes = [Change::Persist(Entry::Spec(task("large"), spec.into())), Change::Persist(record)];
    commit(&mut SledStore::open(folder.path()).unwrap(), &changes);
    let file = fs::read_dir(folder.path().join("spill")).unwrap().next().unwrap().unwrap().path();
    let mut content = fs::read(&file).unwrap();
    content[100_000] ^= 1;
    fs::write(&file, &content).unwrap();

    let (disk, reports) = load(folder.path());
    assert_eq!((disk.slots.len(), &disk.damaged[..]), (0, &[task("large")][..]));
    assert_eq!(fs::read(reports[0].kept.as_ref().unwrap()).unwrap(), content);
    fs::remove_file(&file).unwrap();
    assert_eq!(load(folder.path()).0.damaged, [task("large")]);
    commit(&mut SledStore::open(folder.path()).unwrap(), &changes);
    assert_eq!(load_whole(folder.path()), expected([&changes[..]]));
}

#[test]
fn a_damaged_entry_that_nobody_else_has_is_reported_once_and_moved() {
    let folder = tempfile::tempdir().unwrap();
    let changes: Vec<_> = sample::others(&mut Prng::new(14)).into_iter().map(Change::Persist).collect();
    commit(&mut SledStore::open(folder.path()).unwrap(), &changes);
    let Change::Persist(Entry::Worker(worker, _)) = &changes[0] else { panic!("a worker comes first") };
    let raw = flip_last_byte(folder.path(), &key(WORKER, worker.worker.as_str()));
    edit_rows(folder.path(), |db| drop(db.insert([9, 9], "from nowhere").unwrap()));

    let (disk, mut reports) = load(folder.path());
    assert_eq!((disk.workers.len(), disk.peers.len(), disk.damaged.len()), (0, 1, 0));
    reports.sort_by(|a, b| a.what.cmp(&b.what));
    assert_eq!(reports.len(), 2);
    assert_eq!(fs::read(reports[0].kept.as_ref().unwrap()).unwrap(), b"from nowhere");
    assert_eq!(fs::read(reports[1].kept.as_ref().unwrap()).unwrap(), raw);
    assert_eq!(load_whole(folder.path()).workers.len(), 0);
}

#[test]
fn the_starts_are_counted_even_where_one_copy_of_the_count_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    commit(&mut SledStore::open(folder.path()).unwrap(), &[Change::Persist(Entry::Boot(41))]);
    for copy in 0..2 {
        flip_last_byte(folder.path(), &[6, copy]);
        let (disk, reports) = load(folder.path());
        assert_eq!((disk.boot, reports.len()), (41, 1));
        commit(&mut SledStore::open(folder.path()).unwrap(), &[Change::Persist(Entry::Boot(41))]);
    }
}

#[test]
fn a_store_that_a_newer_program_wrote_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = two_tasks(folder.path());
    let written_newer = |key: &[u8], at: usize, byte: u8| {
        edit_rows(folder.path(), |db| {
            let mut value = db.get(self::key(RECORD, "a")).unwrap().unwrap().to_vec();
            value[at] = byte;
            let sum = crc32c::crc32c_append(crc32c::crc32c(&value[1..3]), &value[7..]);
            value[3..7].copy_from_slice(&sum.to_le_bytes());
            db.insert(key, value).unwrap();
        });
        let refusal = SledStore::open(folder.path()).unwrap().load();
        assert!(matches!(refusal, Err(StoreError::Newer { .. })), "{refusal:?}");
        edit_rows(folder.path(), |db| drop(db.remove(key).unwrap()));
    };
    written_newer(&key(RECORD, "c"), 2, 200);
    written_newer(&key(RECORD, "c"), 1, 200);
    written_newer(&key(200, "c"), 2, 1);
    assert_eq!(load_whole(folder.path()), expected([&a[..], &b[..]]));
}

#[test]
fn a_snapshot_that_does_not_open_is_moved_aside_and_the_log_has_everything() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("empty", |snapshot| fs::write(snapshot, "").unwrap()),
        ("cut", |snapshot| {
            let content = fs::read(snapshot).unwrap();
            fs::write(snapshot, &content[..content.len() / 2]).unwrap();
        }),
        ("flipped", |snapshot| {
            let mut content = fs::read(snapshot).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            fs::write(snapshot, content).unwrap();
        }),
        ("half-written", |snapshot| fs::write(snapshot.with_extension("FFFFFFFF.generating"), "half").unwrap()),
        ("empty and newer", |snapshot| fs::write(snapshot.with_file_name("snap.00000000FFFFFFFF"), "").unwrap()),
    ];
    for (name, harm) in harms {
        let folder = tempfile::tempdir().unwrap();
        let mut batches = Vec::new();
        let mut chance = Prng::new(15);
        for round in 0..3 {
            let mut store = SledStore::open(folder.path()).unwrap();
            let changes: Vec<_> = (0..100)
                .flat_map(|n| {
                    let id: TaskId = task(&format!("{round}-{n}"));
                    let spec = Entry::Spec(id.clone(), sample::spec(&mut chance).into());
                    [Change::Persist(spec), Change::Persist(sample::record(&mut chance, &id))]
                })
                .collect();
            commit(&mut store, &changes);
            batches.push(changes);
        }
        let names: Vec<_> = fs::read_dir(folder.path().join("db")).unwrap().map(|e| e.unwrap().path()).collect();
        let snapshot = names.iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("snap.")).unwrap();
        harm(snapshot);
        let disk = load_whole(folder.path());
        assert_eq!(disk.slots.len(), 300, "{name}");
        assert_eq!(disk, expected(batches.iter().map(|b| &b[..])), "{name}");
        assert!(folder.path().join("quarantine").exists(), "{name}");
    }
}

#[test]
fn a_log_that_cannot_be_read_at_all_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    two_tasks(folder.path());
    fs::write(folder.path().join("db").join("conf"), "version: 9.9\nno configuration at all\n1234").unwrap();
    let refusal = SledStore::open(folder.path()).unwrap_err();
    assert!(matches!(refusal, StoreError::Corrupt { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("data folder away"), "{refusal}");
}
