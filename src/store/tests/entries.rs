//! What goes in comes out.

use super::sample;
use super::{Change, commit, expected, load, load_whole, task};
use crate::store::{Memory, SledStore, Store, StoreError, Write};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use taskmesh_core::prng::Prng;
use taskmesh_core::{Entry, Key, Unix};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_kind_of_entry_comes_back_after_a_restart(seed: u64) {
        let mut chance = Prng::new(seed);
        let mut changes: Vec<_> = sample::others(&mut chance).into_iter().map(Change::Persist).collect();
        for _ in 0..20 {
            let id = sample::task_id(&mut chance);
            changes.push(Change::Persist(sample::record(&mut chance, &id)));
            changes.push(Change::Persist(Entry::Spec(id, sample::spec(&mut chance).into())));
        }
        let folder = tempfile::tempdir().unwrap();
        commit(&mut SledStore::open(folder.path()).unwrap(), &changes);
        let disk = load_whole(folder.path());
        prop_assert_eq!(disk.slots.len(), 20);
        prop_assert_eq!(disk, expected([&changes[..]]));
    }
}

#[test]
fn the_slots_are_what_was_written() {
    let mut chance = Prng::new(3);
    let (id, spec) = (task("a"), sample::spec(&mut chance));
    let entry = sample::record(&mut chance, &id);
    let mut memory = Memory::new();
    let changes = [Change::Persist(entry.clone()), Change::Persist(Entry::Spec(id, spec.clone().into()))];
    commit(&mut memory, &changes);
    let (disk, _) = memory.load().unwrap();
    let slot = &disk.slots[0];
    let Entry::Record { pledge, record } = entry else { panic!("a record was drawn") };
    assert_eq!((slot.pledge, &slot.record, &*slot.spec), (pledge, &*record, &spec));
}

#[test]
fn what_is_forgotten_is_gone_and_what_is_written_again_is_new() {
    let mut chance = Prng::new(4);
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    let mut batches = Vec::new();
    for id in ["a", "b"].map(task) {
        batches.push(vec![
            Change::Persist(Entry::Spec(id.clone(), sample::spec(&mut chance).into())),
            Change::Persist(sample::record(&mut chance, &id)),
        ]);
    }
    batches.push(sample::others(&mut chance).into_iter().map(Change::Persist).collect());
    batches.push(vec![
        Change::Forget(Key::Task(task("a"))),
        Change::Forget(Key::Task(task("never-seen"))),
        Change::Persist(sample::record(&mut chance, &task("b"))),
        Change::Persist(Entry::Boot(7)),
        Change::Persist(Entry::Tombstone(9, Unix(1))),
        Change::Forget(Key::Tombstone(9)),
    ]);
    batches.iter().for_each(|changes| commit(&mut store, changes));
    drop(store);
    let disk = load_whole(folder.path());
    assert_eq!(disk, expected(batches.iter().map(|b| &b[..])));
    assert_eq!((disk.slots.len(), disk.boot, disk.tombstones.len()), (1, 7, 1));
}

#[test]
fn an_entry_that_is_too_large_for_sled_has_a_file_for_as_long_as_it_is_kept() {
    let mut chance = Prng::new(5);
    let folder = tempfile::tempdir().unwrap();
    let files = || fs::read_dir(folder.path().join("spill")).unwrap().count();
    let large = |size: usize, chance: &mut Prng| {
        let mut spec = sample::spec(chance);
        spec.payload = vec![b'x'; size].into();
        Change::Persist(Entry::Spec(task("large"), spec.into()))
    };
    let record = Change::Persist(sample::record(&mut chance, &task("large")));
    let mut store = SledStore::open(folder.path()).unwrap();
    let first = [large(1024 * 1024, &mut chance), record.clone()];
    commit(&mut store, &first);
    commit(&mut store, &first);
    assert_eq!(files(), 1);
    assert!(store.disk_bytes().unwrap() > 1024 * 1024);
    let second = [large(65 * 1024, &mut chance)];
    commit(&mut store, &second);
    assert_eq!(files(), 1, "the old one went");
    drop(store);

    fs::write(folder.path().join("spill").join("0123"), "left over").unwrap();
    let disk = load_whole(folder.path());
    assert_eq!(disk, expected([&first[..], &second[..]]));
    assert_eq!(files(), 1, "what was left over went");

    let mut store = SledStore::open(folder.path()).unwrap();
    commit(&mut store, &[Change::Forget(Key::Task(task("large")))]);
    assert_eq!(files(), 0);
    commit(&mut store, &[large(50 * 1024, &mut chance)]);
    let shrunk = [large(1024, &mut chance), record];
    commit(&mut store, &shrunk);
    assert_eq!(files(), 0);
    drop(store);
    assert_eq!(load_whole(folder.path()), expected([&shrunk[..]]));
}

/// sled puts a page that is too large for its log into a file that it never
/// brings to the disk.
#[test]
fn pages_of_the_largest_values_stay_in_the_log() {
    let mut chance = Prng::new(8);
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    for round in 0..20 {
        let changes: Vec<_> = (0..40)
            .map(|_| {
                let id = task(&format!("{:03}", chance.below(200)));
                let mut spec = sample::spec(&mut chance);
                spec.payload = vec![round; 39_000].into();
                match chance.below(6) {
                    0 => Change::Forget(Key::Task(id)),
                    _ => Change::Persist(Entry::Spec(id, spec.into())),
                }
            })
            .collect();
        commit(&mut store, &changes);
        assert_eq!(fs::read_dir(folder.path().join("db").join("blobs")).unwrap().count(), 0);
    }
}

#[test]
fn an_entry_beyond_every_limit_stops_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    let mut spec = sample::spec(&mut Prng::new(6));
    spec.payload = vec![0; 4 * 1024 * 1024].into();
    let entry = Entry::Spec(task("huge"), spec.into());
    assert!(matches!(store.commit(&[Write::Persist(&entry)]), Err(StoreError::TooLarge { .. })));
    assert!(matches!(store.commit(&[Write::Persist(&Entry::Boot(1))]), Err(StoreError::Poisoned { .. })));
}

#[test]
fn a_commit_says_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    let empty = store.commit(&[]).unwrap();
    assert_eq!((empty.entries, empty.syncs), (0, 0));
    let entries = [1, 2, 2].map(|n| Entry::Tombstone(n, Unix(n)));
    let done = store.commit(&entries.each_ref().map(Write::Persist)).unwrap();
    assert_eq!((done.entries, done.syncs), (2, 1));
    assert!(done.bytes > 0 && done.synced <= done.took);
    let mut chance = Prng::new(7);
    let many: Vec<_> = (0..2_000).map(|n| sample::record(&mut chance, &task(&n.to_string()))).collect();
    let done = store.commit(&many.iter().map(Write::Persist).collect::<Vec<_>>()).unwrap();
    assert!(done.syncs > 1, "a large batch is brought to the disk in parts: {done:?}");
}

#[test]
fn the_memory_store_fails_when_told_and_forgets_that_at_a_restart() {
    let mut store = Memory::new().failing_at(2);
    let boot = [Entry::Boot(1), Entry::Boot(2), Entry::Boot(3)];
    store.commit(&[Write::Persist(&boot[0])]).unwrap();
    assert!(matches!(store.commit(&[Write::Persist(&boot[1])]), Err(StoreError::DiskFull { .. })));
    assert!(matches!(store.commit(&[Write::Persist(&boot[2])]), Err(StoreError::Poisoned { .. })));
    let mut store = store.restarted();
    assert_eq!(store.load().unwrap().0.boot, 1);
    store.commit(&[Write::Persist(&boot[2])]).unwrap();
    assert_eq!(store.load().unwrap().0.boot, 3);
}

#[test]
fn blobs_that_are_whole_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let hash = store.blobs().put(&[1; 100_000]).unwrap();
    drop(store);
    assert_eq!(load(folder.path()).0.blobs, [hash].into());
}

#[test]
fn nobody_else_may_look_into_the_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("some").join("data");
    let mut store = SledStore::open(&folder).unwrap();
    store.commit(&[Write::Persist(&Entry::Boot(1))]).unwrap();
    store.blobs().put(b"content").unwrap();
    drop(store);
    load_whole(&folder);
    fn check(path: &Path) {
        let meta = fs::metadata(path).unwrap();
        let mode = meta.permissions().mode() & 0o777;
        assert_eq!(mode, if meta.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        if meta.is_dir() {
            fs::read_dir(path).unwrap().for_each(|e| check(&e.unwrap().path()));
        }
    }
    check(&folder);
}

#[test]
fn a_folder_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let refusal = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains(&folder.path().display().to_string()), "{refusal}");
    assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
    drop(store);
    load_whole(folder.path());
}
