//! Space that sled no longer uses but never gives back: at a start, a log that
//! is mostly that is copied to a fresh one, which then takes its place.
//!
//! `db.new` is whole once `db` has been renamed to `db.old`, and not before:
//! [`finish_swap`] decides by that after a crash.

use super::log::Log;
use crate::store::quarantine::Quarantine;
use crate::store::{StoreError, files};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Opens the log in `path`; a compaction that was interrupted is finished
/// first, or undone.
pub(super) fn open(path: &Path, quarantine: &Quarantine) -> Result<Log, StoreError> {
    finish_swap(path)?;
    Log::open(path, quarantine)
}

/// Compacts `log`, the one in `path`, if it has at least `least_bytes` and
/// most of them are not among the `live` ones.
pub(super) fn run(
    log: &mut Log,
    path: &Path,
    quarantine: &Quarantine,
    live: u64,
    least_bytes: u64,
) -> Result<(), StoreError> {
    let bytes = log.disk_bytes()?;
    if bytes < least_bytes || bytes / RATIO < live {
        return Ok(());
    }
    copy(log, &beside(path, "new"), quarantine)?;
    // The older one still has its files open, by whatever name.
    swap(path)?;
    *log = Log::open(path, quarantine)?;
    remove_folder(&beside(path, "old"))?;
    tracing::info!(before = bytes, after = log.disk_bytes()?, "compacted the log");
    Ok(())
}

fn copy(log: &Log, to: &Path, quarantine: &Quarantine) -> Result<(), StoreError> {
    let fresh = Log::open(to, quarantine)?;
    let mut unsynced = 0;
    for row in log.rows() {
        let (key, value) = row?;
        fresh.insert(&key, &value)?;
        unsynced += key.len() + value.len();
        if unsynced > super::SYNC_BYTES {
            fresh.sync()?;
            unsynced = 0;
        }
    }
    fresh.sync()
}

fn swap(path: &Path) -> Result<(), StoreError> {
    files::move_durably(path, &beside(path, "old"))?;
    files::move_durably(&beside(path, "new"), path)
}

/// Brings a swap that was interrupted to its end, or its beginning.
fn finish_swap(path: &Path) -> Result<(), StoreError> {
    let (old, new) = (beside(path, "old"), beside(path, "new"));
    if !path.exists() && old.exists() {
        let whole = if new.exists() { &new } else { &old };
        files::move_durably(whole, path)?;
    }
    remove_folder(&new)?;
    remove_folder(&old)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    path.with_extension(suffix)
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io("remove", folder, e)),
    }
}

/// A healthy log is about twice its content.
const RATIO: u64 = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(log: &Log, rows: u32, rounds: u8) {
        for round in 0..rounds {
            for n in 0..rows {
                log.insert(&n.to_be_bytes(), &[round; 1_000]).unwrap();
            }
            log.sync().unwrap();
        }
    }

    fn rows(log: &Log) -> Vec<(Vec<u8>, Vec<u8>)> {
        log.rows().map(|r| r.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
    }

    #[test]
    fn a_log_of_mostly_unused_space_is_copied_to_a_small_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let quarantine = Quarantine::new(folder.path().join("quarantine"));
        let mut log = open(&path, &quarantine).unwrap();
        fill(&log, 20_000, 1);
        for n in 100..20_000u32 {
            log.remove(&n.to_be_bytes()).unwrap();
        }
        log.sync().unwrap();
        let (expected, before) = (rows(&log), log.disk_bytes().unwrap());
        run(&mut log, &path, &quarantine, before / 2, 0).unwrap();
        assert_eq!(log.disk_bytes().unwrap(), before, "not worth while");
        run(&mut log, &path, &quarantine, 100_000, u64::MAX).unwrap();
        assert_eq!(log.disk_bytes().unwrap(), before, "too small");
        run(&mut log, &path, &quarantine, 100_000, 0).unwrap();
        log.insert(b"after", b"it").unwrap();
        log.sync().unwrap();
        drop(log);

        let log = open(&path, &quarantine).unwrap();
        assert_eq!(rows(&log)[..100], expected);
        assert_eq!(rows(&log).len(), 101);
        assert!(log.disk_bytes().unwrap() < before / 2, "{} of {before}", log.disk_bytes().unwrap());
        drop(log);
        let names: Vec<_> = files::list(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["db"]);
    }

    #[test]
    fn a_swap_that_was_interrupted_is_finished_or_undone() {
        for (there, expected) in [
            (&["db", "db.new"][..], "db"),
            (&["db.old", "db.new"], "db.new"),
            (&["db", "db.old"], "db"),
            (&["db.old"], "db.old"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for name in there {
                fs::create_dir(folder.path().join(name)).unwrap();
                fs::write(folder.path().join(name).join("is"), name).unwrap();
            }
            finish_swap(&folder.path().join("db")).unwrap();
            let names: Vec<_> = files::list(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["db"], "{there:?}");
            assert_eq!(fs::read_to_string(folder.path().join("db").join("is")).unwrap(), expected, "{there:?}");
        }
    }
}
