//! What survives a crash: one folder, one committer.
//!
//! The driver hands each batch of the core's `Persist` and `Forget` effects to
//! [`Store::commit`], which returns when they are on the disk itself. Layout
//! of the data folder (mode 0700; files 0600):
//!
//! ```text
//! lock          held while a node runs; names its process
//! identity.key  mesh.key            secrets, see `identity`
//! db/           sled: tasks, workers, peers, controls, starts
//! mark          which commit was acknowledged last
//! spill/        entries too large for sled, one file each
//! blobs/        results and outputs, named by their BLAKE3 hash
//! quarantine/   copies of whatever could not be read, never removed
//! ```
//!
//! Only this module knows sled; only `format` knows bytes.

mod assemble;
mod blobs;
mod files;
mod format;
pub mod identity;
mod memory;
mod plan;
mod quarantine;
mod sled;
mod spill;
#[cfg(test)]
mod tests;

pub use blobs::{Blobs, Receiving};
#[cfg(any(test, fuzzing))]
pub use format::fuzzing;
pub use memory::Memory;
pub use sled::SledStore;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmesh_core::{Disk, Entry, Key, TaskId};

/// Durable memory of one node. One committer, blocking.
pub trait Store: Send {
    /// Everything that was committed, and what of it could not be read.
    ///
    /// # Errors
    /// The store cannot be read at all, or was written by a newer taskmesh.
    /// Nothing was lost or changed.
    fn load(&mut self) -> Result<(Disk, Vec<Quarantined>), StoreError>;

    /// Writes a batch; it is durable on return. The last write of a key wins.
    ///
    /// # Errors
    /// After any error the store is poisoned: what the batch wrote may or may
    /// not be there, and every further commit is refused. Earlier batches are
    /// safe. The node must stop; its other holders take over.
    fn commit(&mut self, batch: &[Write<'_>]) -> Result<Committed, StoreError>;
}

/// One write of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// Put an entry in the place of its older self.
    Persist(&'a Entry),
    /// Remove an entry; harmless where there is none.
    Forget(&'a Key),
}

/// What a commit did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Entries written or removed, after older writes of the same key in the
    /// batch were dropped.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// From call to return.
    pub took: Duration,
    /// Of which waiting for the disk.
    pub synced: Duration,
    /// Times that the log was brought to the disk; 1 unless the batch is large.
    pub syncs: u32,
}

/// Something that could not be read. Its bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The entry, for people: `record of job-7`, `worker w1`.
    pub what: String,
    /// The task that it belongs to, if it does: it is in `Disk::damaged`.
    pub task: Option<TaskId>,
    /// What is wrong with it.
    pub problem: String,
    /// Where a copy of its bytes is; `None` where nothing but a counterpart is
    /// missing.
    pub kept: Option<PathBuf>,
}

/// Why the store could not do its work. No variant means that something which
/// was committed before has been lost, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the folder. Nothing was changed: stop that
    /// process, or choose another folder.
    #[error("{} is in use by {holder}; stop it, or choose another data folder", folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// `process 1234`, or `another process`.
        holder: String,
    },
    /// No room left (device, quota or file size limit). The batch is not
    /// acknowledged; earlier ones are safe: free some space and start again.
    #[error("no room left on the disk for {}: {problem}", folder.display())]
    DiskFull {
        /// The data folder.
        folder: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// An entry has a format that this program does not know. Nothing was
    /// changed: run the newer program.
    #[error(
        "{} was written by a newer taskmesh ({what} has format {found}, this program knows up to {known}); \
         run that version or newer", folder.display()
    )]
    Newer {
        /// The data folder.
        folder: PathBuf,
        /// The kind of entry.
        what: &'static str,
        /// Its version.
        found: u8,
        /// The newest one that is known here.
        known: u8,
    },
    /// The log itself is damaged: some of what was committed cannot be read,
    /// and nobody knows what. The node may have forgotten promises, so it must
    /// not come back under its name: move the whole data folder away, its
    /// identity too, and start a new node; the other holders have copies.
    #[error(
        "the log in {} is damaged: {problem}; move the node's whole data folder away and start a new node: \
         the other holders of its tasks have copies", folder.display()
    )]
    Corrupt {
        /// The folder of the log.
        folder: PathBuf,
        /// What the engine says.
        problem: String,
    },
    /// An entry is larger than the format allows. The batch is not acknowledged.
    #[error("{what} would have {bytes} bytes on disk; the limit is {limit}")]
    TooLarge {
        /// The kind of entry.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A file holds no such secret. Nothing was changed: restore it from a
    /// copy, or move it away to have a new one made.
    #[error("{} is not a key file: {problem}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A blob is not what was announced. Nothing was kept.
    #[error("blob {hash}: {problem}")]
    BadBlob {
        /// Its announced hash.
        hash: taskmesh_core::BlobHash,
        /// What is wrong with it.
        problem: String,
    },
    /// The system refused. The batch, if any, is not acknowledged.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `write`, `open`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An earlier commit failed. Nothing was written: stop the node.
    #[error("the store stopped after an earlier failure ({first}); restart the node")]
    Poisoned {
        /// That failure.
        first: String,
    },
}

impl StoreError {
    /// A refusal of the system; the variants that a person acts on differently
    /// are told apart.
    fn io(action: &'static str, path: &Path, source: io::Error) -> StoreError {
        if is_full(source.kind()) {
            let folder = path.to_path_buf();
            return StoreError::DiskFull { folder, problem: source.to_string() };
        }
        StoreError::Io { action, path: path.to_path_buf(), source }
    }

    fn too_large(entry: &Entry, size: format::TooLarge) -> StoreError {
        let what = match entry {
            Entry::Spec(..) => "a task's spec",
            Entry::Record { .. } => "a task's record",
            Entry::Worker(..) => "a worker",
            Entry::Controls(_) => "the queue's controls",
            Entry::Peer(..) => "a peer",
            Entry::Boot(_) => "the boot count",
            Entry::Tombstone(..) => "a tombstone",
            Entry::Token(_) => "a token's entry",
            Entry::Cached(_) => "a result",
            Entry::Forgotten(_) => "a forgotten node",
            Entry::Pledge { .. } => "a pledge",
        };
        StoreError::TooLarge { what, bytes: size.0, limit: format::BODY_BYTES as u64 }
    }
}

impl Quarantined {
    /// One half of a task is missing.
    fn incomplete(task: TaskId, problem: &str) -> Quarantined {
        Quarantined { what: format!("task {task}"), task: Some(task), problem: problem.to_owned(), kept: None }
    }
}

/// The kinds of error that mean "no room" (ENOSPC, EDQUOT, EFBIG).
fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Refuses commits after the first failure.
#[derive(Clone, Debug, Default)]
struct Poison(Option<String>);

impl Poison {
    fn check(&self) -> Result<(), StoreError> {
        match &self.0 {
            Some(first) => Err(StoreError::Poisoned { first: first.clone() }),
            None => Ok(()),
        }
    }

    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.0.get_or_insert_with(|| error.to_string());
        }
        result
    }
}
