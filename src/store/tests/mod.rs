//! Tests of the store as a whole.
#![allow(clippy::unwrap_used)]

mod child;
mod crash;
mod damage;
mod entries;
mod power;
pub(super) mod sample;

use super::{Memory, Quarantined, SledStore, Store, Write};
use std::path::Path;
use taskmesh_core::{Disk, Entry, Key, TaskId};

/// A write that owns what it writes.
#[derive(Clone, Debug)]
enum Change {
    Persist(Entry),
    Forget(Key),
}

fn commit(store: &mut dyn Store, changes: &[Change]) {
    let batch: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Persist(entry) => Write::Persist(entry),
            Change::Forget(key) => Write::Forget(key),
        })
        .collect();
    store.commit(&batch).unwrap();
}

/// Opens the folder, loads, and lets go of it.
fn load(folder: &Path) -> (Disk, Vec<Quarantined>) {
    SledStore::open(folder).unwrap().load().unwrap()
}

/// Loads what must be whole.
fn load_whole(folder: &Path) -> Disk {
    let (disk, reports) = load(folder);
    assert_eq!(reports, []);
    disk
}

/// What a store without a disk makes of the same changes.
fn expected<'a>(batches: impl IntoIterator<Item = &'a [Change]>) -> Disk {
    let mut memory = Memory::new();
    batches.into_iter().for_each(|changes| commit(&mut memory, changes));
    memory.load().unwrap().0
}

fn task(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

/// Changes sled's rows behind the store's back.
fn edit_rows(folder: &Path, edit: impl FnOnce(&::sled::Db)) {
    let db = super::sled::log::open_db(&folder.join("db")).unwrap();
    edit(&db);
    db.flush().unwrap();
}
