//! Rows, written so that one that goes missing is noticed.
//!
//! sled takes a damaged stretch of its log for the end of a write that never
//! finished, and goes on without it: rows fall back to older values, or away,
//! and nobody is told. So each part of a commit begins with a **seal**: what
//! all rows add up to before the part and after each of its writes. After a
//! crash the log is a prefix of what was written, so the rows must add up to
//! one of these; after an acknowledged commit, which a **mark** beside the log
//! remembers, to the last.

use super::log::Log;
use crate::store::format::{self, Kind, Seal};
use crate::store::{Committed, StoreError, files};
use ::sled::IVec;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A log and the part that will be written to it next.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) log: Log,
    mark: File,
    mark_path: PathBuf,
    /// Of all rows; `None` until they have been read.
    sum: Option<u64>,
    part: u64,
    // The part to come, and buffers.
    bytes: Vec<u8>,
    steps: Vec<Step>,
    olds: Vec<Option<IVec>>,
    sums: Vec<u64>,
    seal: Vec<u8>,
}

/// Whether values were found that are not as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbled {
    None,
    Some,
}

#[derive(Debug)]
struct Step {
    key: Range<usize>,
    /// `None`: delete it.
    value: Option<Range<usize>>,
}

impl Sealed {
    /// Takes a log, and the mark in `folder`.
    pub(super) fn open(log: Log, folder: &Path) -> Result<Sealed, StoreError> {
        let mark_path = folder.join("mark");
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&mark_path);
        let mark = options.map_err(|e| StoreError::io("open", &mark_path, e))?;
        files::sync_folder(folder)?;
        Ok(Sealed {
            log,
            mark,
            mark_path,
            sum: None,
            part: 0,
            bytes: Vec::new(),
            steps: Vec::new(),
            olds: Vec::new(),
            sums: Vec::new(),
            seal: Vec::new(),
        })
    }

    /// Whether [`Sealed::found`] has been called.
    pub(super) fn is_read(&self) -> bool {
        self.sum.is_some()
    }

    /// Takes what was found in the log; from here on it can be written. Where
    /// values are garbled, which is reported by itself, their sum says nothing.
    ///
    /// # Errors
    /// Rows are missing.
    pub(super) fn found(&mut self, seal: Option<Seal>, sum: u64, garbled: Garbled) -> Result<(), StoreError> {
        let marked = self.marked()?;
        let problem = match &seal {
            Some(seal) if seal.part < marked => Some("it ends before something that was acknowledged"),
            _ if garbled == Garbled::Some => None,
            None if marked > 0 => Some("it has lost the first thing that was written to it"),
            None => (sum != 0).then_some("it has lost a part of its beginning"),
            Some(seal) if seal.part == marked => {
                (seal.sums.last() != Some(&sum)).then_some("it has lost something that was acknowledged")
            }
            Some(seal) => (!seal.sums.contains(&sum)).then_some("it has lost a part of its middle"),
        };
        if let Some(problem) = problem {
            return Err(StoreError::Corrupt { folder: self.log.path().to_path_buf(), problem: problem.to_owned() });
        }
        self.sum = Some(sum);
        self.part = seal.map_or(marked, |seal| seal.part.max(marked));
        Ok(())
    }

    /// Adds a value to the part to come.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = self.push(key);
        let value = Some(self.push(value));
        self.steps.push(Step { key, value });
    }

    /// Adds a deletion to the part to come.
    pub(super) fn delete(&mut self, key: &[u8]) {
        let key = self.push(key);
        self.steps.push(Step { key, value: None });
    }

    /// Whether the part is large enough to be written. sled may reuse a
    /// segment once its pages are written elsewhere, and elsewhere must be
    /// durable by then.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() > super::SYNC_BYTES || self.steps.len() >= PART_STEPS
    }

    /// Writes the part; it is durable on return. Calls `replaced` with each
    /// key, what was there and what is there now.
    ///
    /// # Panics
    /// The log has not been read: that is the caller's fault.
    pub(super) fn write(
        &mut self,
        done: &mut Committed,
        mut replaced: impl FnMut(&[u8], &[u8], Option<&[u8]>),
    ) -> Result<(), StoreError> {
        if self.steps.is_empty() {
            return Ok(());
        }
        self.add_up()?;
        self.part += 1;
        self.seal.clear();
        format::encode_seal(self.part, &self.sums, &mut self.seal).expect("a part has few steps");
        self.log.insert(SEAL_KEY, &self.seal)?;
        for (step, old) in self.steps.iter().zip(&self.olds) {
            let key = &self.bytes[step.key.clone()];
            let value = step.value.clone().map(|v| &self.bytes[v]);
            match value {
                Some(value) => self.log.insert(key, value)?,
                None => self.log.remove(key)?,
            };
            if let Some(old) = old {
                replaced(key, old, value);
            }
        }
        done.bytes += self.bytes.len() as u64;
        self.sum = self.sums.last().copied();
        self.clear();
        let start = Instant::now();
        self.log.sync()?;
        done.synced += start.elapsed();
        done.syncs += 1;
        // Not synced: it may be behind after a power loss, and never ahead.
        let marked = self.mark.write_all_at(&self.part.to_le_bytes(), 0);
        marked.map_err(|e| StoreError::io("write", &self.mark_path, e))
    }

    /// What the rows will add up to after each step, and what was there.
    fn add_up(&mut self) -> Result<(), StoreError> {
        let mut sum = self.sum.expect("the log has been read");
        self.sums.push(sum);
        for step in &self.steps {
            let key = &self.bytes[step.key.clone()];
            let old = self.log.get(key)?;
            if let Some(old) = &old {
                sum = sum.wrapping_sub(format::weight(key, old));
            }
            if let Some(value) = &step.value {
                sum = sum.wrapping_add(format::weight(key, &self.bytes[value.clone()]));
            }
            self.olds.push(old);
            self.sums.push(sum);
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.steps.clear();
        self.olds.clear();
        self.sums.clear();
    }

    /// The last part that was acknowledged, as far as the mark knows.
    fn marked(&self) -> Result<u64, StoreError> {
        let mut bytes = [0; 8];
        match self.mark.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            // Empty: nothing was.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
            Err(e) => Err(StoreError::io("read", &self.mark_path, e)),
        }
    }
}

const SEAL_KEY: &[u8] = &[Kind::Seal as u8];

/// A seal is one value: 9 bytes for each step.
const PART_STEPS: usize = 2_000;
const _: () = assert!(PART_STEPS * 9 + 100 < super::LARGEST_VALUE);
