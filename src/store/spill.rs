//! Entries that are too large for sled: one file each, owned by the entry's
//! key, with a small reference in sled.
//!
//! A file is on the disk before its reference is, and goes after it. What a
//! crash leaves over is swept at the next start.

use super::format::{self, Envelope, Flaw};
use super::{StoreError, files};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use taskmesh_core::BlobHash;

#[derive(Debug)]
pub(super) struct Spill {
    folder: PathBuf,
}

impl Spill {
    pub(super) fn open(folder: PathBuf) -> Result<Spill, StoreError> {
        files::make_folder(&folder)?;
        Ok(Spill { folder })
    }

    /// Writes the file of an entry; its content is on the disk on return, its
    /// name after [`Spill::sync`]. In the place of `envelope` comes the
    /// reference.
    pub(super) fn put(&self, key: &[u8], envelope: &mut Vec<u8>) -> Result<(), StoreError> {
        let content = BlobHash::of(envelope);
        let path = self.folder.join(name(key, content));
        // A file that a crash left half-written is unreferenced: overwrite it.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut f| f.write_all(envelope).and_then(|()| f.sync_all()));
        written.map_err(|e| StoreError::io("write", &path, e))?;
        let bytes = envelope.len() as u64;
        envelope.clear();
        format::encode_spilled(content, bytes, envelope).expect("a reference is small");
        Ok(())
    }

    /// Brings the names of the files to the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        files::sync_folder(&self.folder)
    }

    /// The name of the file that a value refers to, if it does.
    pub(super) fn name_in(key: &[u8], value: &[u8]) -> Option<String> {
        if !format::is_spilled(value) {
            return None;
        }
        let kind = format::name_of(key)?.kind();
        let (content, _) = format::decode_spilled(&format::open(value, kind).ok()?).ok()?;
        Some(name(key, content))
    }

    /// The envelope of an entry that `reference` stands for.
    pub(super) fn read(&self, key: &[u8], reference: &Envelope<'_>) -> Result<Vec<u8>, Flaw> {
        let (content, bytes) = format::decode_spilled(reference)?;
        let path = self.folder.join(name(key, content));
        let damaged = |problem: String| Flaw::Damaged(format!("its file {}: {problem}", path.display()));
        let found = fs::metadata(&path).map_err(|e| damaged(e.to_string()))?.len();
        if found != bytes || bytes > MAX_BYTES {
            return Err(damaged(format!("it has {found} bytes instead of {bytes}")));
        }
        let envelope = fs::read(&path).map_err(|e| damaged(e.to_string()))?;
        if BlobHash::of(&envelope) != content {
            return Err(damaged("its content has changed".to_owned()));
        }
        Ok(envelope)
    }

    /// The path of a file that [`Spill::name_in`] named.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes every file but those in `named`.
    pub(super) fn sweep(&self, named: &BTreeSet<String>) -> Result<(), StoreError> {
        for (name, path) in files::list(&self.folder)? {
            if !named.contains(&name) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        files::bytes_in(&self.folder)
    }
}

/// Two keys never share a file, so that each may remove its own.
fn name(key: &[u8], content: BlobHash) -> String {
    let mut sum = blake3::Hasher::new();
    sum.update(&content.0).update(key);
    files::hex(sum.finalize().as_bytes())
}

const MAX_BYTES: u64 = 2 * format::BODY_BYTES as u64;
