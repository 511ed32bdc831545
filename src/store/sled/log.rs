//! sled 0.34, made durable: its `flush` is `sync_file_range` on Linux, which
//! is no fsync, so a second handle on its log brings each commit to the disk.
//!
//! Its page files (`db/blobs`) are never fsynced by it either. They come into
//! being where a page, that is up to 20 values, is over a quarter of a
//! segment: segments are eight times the default here, and larger values are
//! spilled, so that there are none. Were there one, [`Log::sync`] would bring
//! it to the disk too.

use crate::store::quarantine::Quarantine;
use crate::store::{StoreError, files};
use ::sled::{Db, Error, IVec};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// An open log. One committer.
#[derive(Debug)]
pub(super) struct Log {
    db: Db,
    /// sled's log file, for `fdatasync`.
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens the log in `path`, or makes one. Snapshots that do not open are
    /// moved to the quarantine: they only save time, the log has everything.
    pub(super) fn open(path: &Path, quarantine: &Quarantine) -> Result<Log, StoreError> {
        files::make_folder(path)?;
        move_snapshots(path, quarantine, |name| name.ends_with(".generating"))?;
        let db = match open_db(path) {
            Err(StoreError::Corrupt { problem, .. }) if has_snapshots(path)? => {
                tracing::warn!(path = %path.display(), problem, "the log's snapshot does not open; reading all of the log");
                move_snapshots(path, quarantine, |_| true)?;
                open_db(path)?
            }
            other => other?,
        };
        let file_path = path.join(LOG_FILE);
        let file = File::open(&file_path).map_err(|e| StoreError::io("open", &file_path, e))?;
        files::close_to_others(path)?;
        let log = Log { db, file, path: path.to_path_buf() };
        log.sync()?;
        files::sync_folder(path)?;
        Ok(log)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.db.get(key).map_err(|e| failure(&self.path, "read", e))
    }

    /// Puts a value; returns the old one. Durable after [`Log::sync`].
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.db.insert(key, value).map_err(|e| failure(&self.path, "write", e))
    }

    /// Removes a key; returns the old value. Durable after [`Log::sync`].
    pub(super) fn remove(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.db.remove(key).map_err(|e| failure(&self.path, "write", e))
    }

    /// Brings everything to the disk itself.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| failure(&self.path, "write", e))?;
        self.sync_page_files()?;
        self.file.sync_data().map_err(|e| StoreError::io("sync", &self.path, e))
    }

    /// Every row, by key.
    pub(super) fn rows(&self) -> impl Iterator<Item = Result<(IVec, IVec), StoreError>> + '_ {
        self.db.iter().map(|row| row.map_err(|e| failure(&self.path, "read", e)))
    }

    /// The folder that it is in.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        files::bytes_in(&self.path)
    }

    fn sync_page_files(&self) -> Result<(), StoreError> {
        let folder = self.path.join("blobs");
        let pages = files::list(&folder)?;
        if pages.is_empty() {
            return Ok(());
        }
        for (_, path) in pages {
            match File::open(&path).and_then(|f| f.sync_all()) {
                Ok(()) => {}
                // Replaced since it was listed.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("sync", &path, e)),
            }
        }
        files::sync_folder(&folder)
    }
}

pub(in crate::store) fn open_db(path: &Path) -> Result<Db, StoreError> {
    let deadline = Instant::now() + RELEASE_TIME;
    loop {
        // sled asserts some of what it reads.
        let opened = catch_unwind(AssertUnwindSafe(|| config(path).open()));
        let problem = match opened {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(e)) => failure(path, "open", e),
            Err(_) => StoreError::Corrupt { folder: path.to_path_buf(), problem: "the engine panicked".to_owned() },
        };
        // The data folder's own lock is held, so this is an older handle of
        // this process whose threads are about to end.
        if !matches!(problem, StoreError::Locked { .. }) || Instant::now() > deadline {
            return Err(problem);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// No flushing on its own: a commit is the only time that the log is written.
fn config(path: &Path) -> ::sled::Config {
    let config = ::sled::Config::new().path(path).segment_size(SEGMENT_BYTES);
    config.cache_capacity(CACHE_BYTES).flush_every_ms(None)
}

fn failure(path: &Path, action: &'static str, error: Error) -> StoreError {
    let folder = path.to_path_buf();
    match error {
        Error::Io(e) if e.to_string().contains("could not acquire lock") => {
            StoreError::Locked { folder, holder: "another process".to_owned() }
        }
        Error::Io(e) => StoreError::io(action, path, e),
        Error::Corruption { at, .. } => {
            let place = at.map_or(String::new(), |at| format!(" at {at:?}"));
            StoreError::Corrupt { folder, problem: format!("its checksums are wrong{place}") }
        }
        e @ (Error::CollectionNotFound(_) | Error::Unsupported(_) | Error::ReportableBug(_)) => {
            StoreError::Corrupt { folder, problem: e.to_string() }
        }
    }
}

fn has_snapshots(path: &Path) -> Result<bool, StoreError> {
    Ok(files::list(path)?.iter().any(|(name, _)| name.starts_with(SNAPSHOT_PREFIX)))
}

fn move_snapshots(path: &Path, quarantine: &Quarantine, which: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for (name, file) in files::list(path)? {
        if name.starts_with(SNAPSHOT_PREFIX) && which(&name) {
            quarantine.take(&file)?;
        }
    }
    Ok(())
}

/// sled's names.
const LOG_FILE: &str = "db";
const SNAPSHOT_PREFIX: &str = "snap.";

/// Pages are cached up to this size: an idle node stays small, and the hot
/// part of a long queue fits.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// A page of up to 21 values of [`LARGEST_VALUE`](super::LARGEST_VALUE) and
/// their keys must stay below a quarter of this.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
const _: () = assert!(21 * (super::LARGEST_VALUE + 300) < SEGMENT_BYTES / 4 - 64);

/// How long the threads of a closed log may take to let go of it.
const RELEASE_TIME: Duration = Duration::from_secs(5);
