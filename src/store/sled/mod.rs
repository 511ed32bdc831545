//! The store that nodes use: entries in sled, large ones in files of their own.

mod compact;
pub(super) mod log;
mod sealed;

use super::assemble::{Assembled, Assembly};
use super::blobs::Blobs;
use super::format::{self, Flaw, Name};
use super::plan::{Action, Plan};
use super::quarantine::Quarantine;
use super::spill::Spill;
use super::{Committed, Poison, Quarantined, Store, StoreError, Write, files};
use rustix::fs::{FlockOperation, flock};
use sealed::{Garbled, Sealed};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use taskmesh_core::{Disk, Entry};

/// A node's folder, held by this process until it is dropped.
#[derive(Debug)]
pub struct SledStore {
    // Dropped in this order: the lock goes last.
    rows: Sealed,
    spill: Spill,
    blobs: Blobs,
    quarantine: Quarantine,
    plan: Plan,
    value: Vec<u8>,
    poison: Poison,
    folder: PathBuf,
    _lock: File,
}

impl SledStore {
    /// Opens the data folder, or makes one, and holds it.
    ///
    /// # Errors
    /// Another process holds it, the disk is full, the log is damaged, or the
    /// system refuses. Nothing that was committed is changed.
    pub fn open(folder: &Path) -> Result<SledStore, StoreError> {
        files::make_folder(folder)?;
        let lock = lock(folder)?;
        check_room(folder, RESERVE_BYTES)?;
        files::remove_temporaries(folder)?;
        let quarantine = Quarantine::new(folder.join("quarantine"));
        let spill = Spill::open(folder.join("spill"))?;
        let blobs = Blobs::open(&folder.join("blobs"), quarantine.clone())?;
        let log = compact::open(&folder.join(LOG_FOLDER), &quarantine)?;
        Ok(SledStore {
            rows: Sealed::open(log, folder)?,
            spill,
            blobs,
            quarantine,
            plan: Plan::default(),
            value: Vec::new(),
            poison: Poison::default(),
            folder: folder.to_path_buf(),
            _lock: lock,
        })
    }

    /// The blobs of the same folder, for whoever reads and writes results.
    #[must_use]
    pub fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }

    /// Bytes on disk of log and spilled entries, without blobs.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.rows.log.disk_bytes()? + self.spill.bytes()?)
    }

    fn read(&mut self) -> Result<(Disk, Vec<Quarantined>), StoreError> {
        let mut assembly = Assembly::default();
        let mut reports = Vec::new();
        let mut unusable = Vec::new();
        let mut spilled = BTreeSet::new();
        let (mut live, mut sum, mut garbled) = (0, 0u64, Garbled::None);
        for row in self.rows.log.rows() {
            let (key, value) = row?;
            live += (key.len() + value.len()) as u64;
            spilled.extend(Spill::name_in(&key, &value));
            let name = format::name_of(&key);
            if name != Some(Name::Seal) {
                sum = sum.wrapping_add(format::weight(&key, &value));
            }
            if matches!(format::inspect(&value), Err(Flaw::Damaged(_))) {
                garbled = Garbled::Some;
            }
            let taken = match &name {
                Some(name) => assembly.row(name, &value, |reference| self.spill.read(&key, reference)),
                None => Err(strange_key(&value)),
            };
            let problem = match taken {
                Ok(()) => continue,
                Err(Flaw::Damaged(problem)) => problem,
                Err(Flaw::Newer { what, found, known }) => {
                    return Err(StoreError::Newer { folder: self.folder.clone(), what, found, known });
                }
            };
            let report = self.keep(name.as_ref(), &key, &value, problem)?;
            if report.task.is_none() {
                unusable.push(key);
            }
            reports.push(report);
        }
        let Assembled { mut disk, incomplete, seal } = assembly.finish();
        self.rows.found(seal, sum, garbled)?;
        reports.extend(incomplete.into_iter().map(|(task, problem)| Quarantined::incomplete(task, problem)));
        disk.blobs = self.blobs.list()?;
        self.tidy(&unusable, &spilled, &reports)?;
        let path = self.folder.join(LOG_FOLDER);
        compact::run(&mut self.rows.log, &path, &self.quarantine, live, COMPACT_BYTES)?;
        Ok((disk, reports))
    }

    /// Copies what could not be read. A damaged part of a task stays in its
    /// place as well, until a whole one from its holders takes it: so the node
    /// knows, however often it restarts, that it once kept the task.
    fn keep(&self, name: Option<&Name>, key: &[u8], value: &[u8], problem: String) -> Result<Quarantined, StoreError> {
        let what = name.map_or_else(|| "an unknown key".to_owned(), Name::to_string);
        let file = Spill::name_in(key, value).and_then(|name| std::fs::read(self.spill.path(&name)).ok());
        let kept = self.quarantine.keep(&what, key, file.as_deref().unwrap_or(value), &problem)?;
        tracing::warn!(what, problem, kept = %kept.display(), "an entry is damaged");
        Ok(Quarantined { what, task: name.and_then(Name::task).cloned(), problem, kept: Some(kept) })
    }

    /// Removes what nobody will ever overwrite and what nothing refers to.
    fn tidy(
        &mut self,
        unusable: &[impl AsRef<[u8]>],
        spilled: &BTreeSet<String>,
        reports: &[Quarantined],
    ) -> Result<(), StoreError> {
        unusable.iter().for_each(|key| self.rows.delete(key.as_ref()));
        self.rows.write(&mut Committed::default(), |_, _, _| {})?;
        // A damaged row may have referred to a file.
        if reports.is_empty() {
            self.spill.sweep(spilled)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &[Write<'_>]) -> Result<Committed, StoreError> {
        let start = Instant::now();
        let mut done = Committed::default();
        if batch.is_empty() {
            return Ok(done);
        }
        check_room(&self.folder, RESERVE_BYTES)?;
        self.plan.make(batch);
        done.entries = self.plan.len();
        let mut dropped = Vec::new();
        let mut replaced = |key: &[u8], old: &[u8], new: Option<&[u8]>| {
            let file = Spill::name_in(key, old);
            if file.is_some() && file != new.and_then(|new| Spill::name_in(key, new)) {
                dropped.extend(file);
            }
        };
        for action in self.plan.actions(batch) {
            match action {
                Action::Put(key, entry) => {
                    encode(entry, key, &self.spill, &mut self.value)?;
                    self.rows.put(key, &self.value);
                }
                Action::Delete(key) => self.rows.delete(key),
            }
            if self.rows.is_full() {
                self.rows.write(&mut done, &mut replaced)?;
            }
        }
        self.rows.write(&mut done, &mut replaced)?;
        for name in dropped {
            files::remove(&self.spill.path(&name))?;
        }
        done.took = start.elapsed();
        Ok(done)
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<(Disk, Vec<Quarantined>), StoreError> {
        self.read()
    }

    fn commit(&mut self, batch: &[Write<'_>]) -> Result<Committed, StoreError> {
        self.poison.check()?;
        let read = if self.rows.is_read() { Ok(()) } else { self.read().map(drop) };
        let result = read.and_then(|()| self.write(batch));
        self.poison.note(result)
    }
}

/// The value of `entry`, in a file if it is large.
fn encode(entry: &Entry, key: &[u8], spill: &Spill, value: &mut Vec<u8>) -> Result<(), StoreError> {
    value.clear();
    format::encode(entry, value).map_err(|e| StoreError::too_large(entry, e))?;
    if value.len() > LARGEST_VALUE {
        spill.put(key, value)?;
        // Before sled can write the reference.
        spill.sync()?;
    }
    Ok(())
}

/// A key that this format does not have: of a newer one, if its value is whole.
fn strange_key(value: &[u8]) -> Flaw {
    match format::inspect(value) {
        Ok(envelope) => Flaw::Newer { what: "an entry under an unknown key", found: envelope.version, known: 0 },
        Err(flaw) => flaw,
    }
}

/// Holds the folder for this process, and writes down which one it is.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let failed = |e| StoreError::io("lock", &path, e);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options.map_err(failed)?;
    let deadline = Instant::now() + RELEASE_TIME;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        // A process that is being started by the last holder has its files
        // open for a moment.
        if Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let mut holder = String::new();
        // Anything may be in there, and none of it is needed.
        let _ = file.take(20).read_to_string(&mut holder);
        let holder = match holder.trim().parse::<u32>() {
            Ok(process) => format!("process {process}"),
            Err(_) => "another process".to_owned(),
        };
        return Err(StoreError::Locked { folder: folder.to_path_buf(), holder });
    }
    let note = format!("{}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
    written.map_err(failed)?;
    Ok(file)
}

/// A log whose write fails half-way reads back whole, but opening it again
/// needs some room: so a commit is refused while there still is some.
fn check_room(folder: &Path, reserve: u64) -> Result<(), StoreError> {
    let stat = rustix::fs::statvfs(folder).map_err(|e| StoreError::io("measure", folder, e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= reserve {
        return Ok(());
    }
    let problem = format!("{} MiB are free and {} MiB are kept in reserve", free >> 20, reserve >> 20);
    Err(StoreError::DiskFull { folder: folder.to_path_buf(), problem })
}

/// How long a folder may seem to be in use before it is.
const RELEASE_TIME: Duration = Duration::from_millis(500);

const LOG_FOLDER: &str = "db";

/// Values over this size go to files: see `log` for what it has to do with
/// segments. The protocol's own bound for values in sled is 64 KiB.
const LARGEST_VALUE: usize = 40 * 1024;

/// A large batch is brought to the disk in parts of this size.
const SYNC_BYTES: usize = 512 * 1024;

/// sled's log, its snapshot at the next start, and a segment of its own.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// A smaller log is not worth compacting.
const COMPACT_BYTES: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_for_the_reserve_is_full() {
        let folder = std::env::temp_dir();
        assert!(check_room(&folder, 0).is_ok());
        assert!(matches!(check_room(&folder, u64::MAX), Err(StoreError::DiskFull { .. })));
    }
}
