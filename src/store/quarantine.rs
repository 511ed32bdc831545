//! Copies of whatever could not be read, for people. Nothing here is ever
//! removed by the node.

use super::{StoreError, files};
use std::path::{Path, PathBuf};
use taskmesh_core::BlobHash;

#[derive(Clone, Debug)]
pub(super) struct Quarantine {
    folder: PathBuf,
}

impl Quarantine {
    pub(super) fn new(folder: PathBuf) -> Quarantine {
        Quarantine { folder }
    }

    /// Keeps a copy of `bytes`, durably, and beside it a note of what they are.
    /// The same bytes of the same thing are kept once.
    pub(super) fn keep(&self, what: &str, key: &[u8], bytes: &[u8], problem: &str) -> Result<PathBuf, StoreError> {
        files::make_folder(&self.folder)?;
        let mut sum = blake3::Hasher::new();
        sum.update(&(key.len() as u64).to_be_bytes()).update(key).update(bytes);
        let name = &files::hex(sum.finalize().as_bytes())[..NAME_DIGITS];
        let path = self.folder.join(format!("{name}.raw"));
        if path.exists() {
            return Ok(path);
        }
        let note = format!("what: {what}\nkey (hex): {}\nproblem: {problem}\n", files::hex(key));
        files::write_durably(&self.folder.join(format!("{name}.txt")), note.as_bytes())?;
        files::write_durably(&path, bytes)?;
        Ok(path)
    }

    /// Moves a file here, durably, under a name that is free.
    pub(super) fn take(&self, path: &Path) -> Result<PathBuf, StoreError> {
        files::make_folder(&self.folder)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let place = (0u32..)
            .map(|n| self.folder.join(format!("{name}.{n}")))
            .find(|place| !place.exists())
            .expect("more names than files");
        files::move_durably(path, &place)?;
        Ok(place)
    }

    /// The place for things whose content has this hash.
    pub(super) fn take_blob(&self, path: &Path, hash: BlobHash) -> Result<PathBuf, StoreError> {
        tracing::warn!(%hash, "a blob is not what its name says; it is in quarantine");
        self.take(path)
    }
}

const NAME_DIGITS: usize = 32;
