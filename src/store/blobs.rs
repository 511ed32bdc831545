//! Results, outputs and logs that are too large for a record: files named by
//! their BLAKE3 hash, so that a name that is there is a content that is whole.

use super::quarantine::Quarantine;
use super::{StoreError, files};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmesh_core::{BlobHash, limits};
use tempfile::NamedTempFile;

/// The blobs of one node. Cheap to clone; every call touches the disk.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    quarantine: Quarantine,
}

impl Blobs {
    /// Opens the folder, or makes one, and removes what was being written when
    /// the node last stopped.
    pub(super) fn open(folder: &Path, quarantine: Quarantine) -> Result<Blobs, StoreError> {
        files::make_folder(folder)?;
        files::remove_temporaries(folder)?;
        Ok(Blobs { inner: Arc::new(Inner { folder: folder.to_path_buf(), quarantine }) })
    }

    /// Keeps `content`; it is durable on return. Doing so again is harmless.
    ///
    /// # Errors
    /// More than [`limits::BLOB_BYTES`], the disk is full, or the system
    /// refuses. Nothing was kept.
    pub fn put(&self, content: &[u8]) -> Result<BlobHash, StoreError> {
        let hash = BlobHash::of(content);
        within_limit(hash, content.len() as u64)?;
        if self.has(hash) {
            // Another thread may have just put it there, and not be done.
            files::sync_folder(files::parent_of(&self.path(hash)))?;
            return Ok(hash);
        }
        let file = files::write_temporary(&self.inner.folder, content)?;
        self.settle(hash, file)?;
        Ok(hash)
    }

    /// Begins to receive a blob of `bytes` bytes, in parts.
    ///
    /// # Errors
    /// More than [`limits::BLOB_BYTES`], the disk is full, or the system refuses.
    pub fn receive(&self, hash: BlobHash, bytes: u64) -> Result<Receiving, StoreError> {
        within_limit(hash, bytes)?;
        let file = files::temporary(&self.inner.folder)?;
        Ok(Receiving { blobs: self.clone(), file, hash, bytes, end: 0 })
    }

    /// Up to `len` bytes from `offset`; fewer only at the end. `None`: it is
    /// not here, or cannot be read (the log says why).
    #[must_use]
    pub fn read(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        let path = self.path(hash);
        match read_part(&path, offset, len) {
            Ok(part) => Some(part),
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), error = %e, "a blob cannot be read");
                }
                None
            }
        }
    }

    /// Whether it is here.
    #[must_use]
    pub fn has(&self, hash: BlobHash) -> bool {
        self.size(hash).is_some()
    }

    /// Its size in bytes, if it is here.
    #[must_use]
    pub fn size(&self, hash: BlobHash) -> Option<u64> {
        let meta = fs::metadata(self.path(hash)).ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// Removes it. `false`: it was not here. It may come back after a power
    /// loss; that is harmless.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&self, hash: BlobHash) -> Result<bool, StoreError> {
        files::remove(&self.path(hash))
    }

    /// Every one that is here.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> Result<BTreeSet<BlobHash>, StoreError> {
        let mut found = BTreeSet::new();
        for (prefix, folder) in files::list(&self.inner.folder)? {
            if prefix.len() != PREFIX_DIGITS || !folder.is_dir() {
                continue;
            }
            let names = files::list(&folder)?;
            found.extend(names.iter().filter_map(|(name, _)| files::unhex32(name)).map(BlobHash));
        }
        Ok(found)
    }

    /// Reads all of it. `false`: it is not here, or was not what its name says
    /// and is in quarantine now.
    ///
    /// # Errors
    /// The system refuses.
    pub fn verify(&self, hash: BlobHash) -> Result<bool, StoreError> {
        let path = self.path(hash);
        match hash_of(&path) {
            Ok(found) if found == hash => Ok(true),
            Ok(_) => self.inner.quarantine.take_blob(&path, hash).map(|_| false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("read", &path, e)),
        }
    }

    /// Puts a file that is on the disk in its place.
    fn settle(&self, hash: BlobHash, file: NamedTempFile) -> Result<(), StoreError> {
        let path = self.path(hash);
        let folder = files::parent_of(&path);
        files::make_folder(folder)?;
        file.persist(&path).map_err(|e| StoreError::io("rename", &path, e.error))?;
        files::sync_folder(folder)
    }

    fn path(&self, hash: BlobHash) -> PathBuf {
        let name = hash.to_string();
        self.inner.folder.join(&name[..PREFIX_DIGITS]).join(name)
    }
}

/// A blob on its way. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Receiving {
    blobs: Blobs,
    file: NamedTempFile,
    hash: BlobHash,
    bytes: u64,
    /// Where [`Receiving::append`] goes on.
    end: u64,
}

impl Receiving {
    /// The announced size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the next part.
    ///
    /// # Errors
    /// As [`Receiving::write_at`].
    pub fn append(&mut self, part: &[u8]) -> Result<(), StoreError> {
        self.write_at(self.end, part)?;
        self.end += part.len() as u64;
        Ok(())
    }

    /// Writes a part at its place; in any order.
    ///
    /// # Errors
    /// It reaches beyond the announced size (nothing was written), the disk is
    /// full, or the system refuses.
    pub fn write_at(&mut self, offset: u64, part: &[u8]) -> Result<(), StoreError> {
        if offset.checked_add(part.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(self.bad(format!("a part at {offset} reaches beyond its {} bytes", self.bytes)));
        }
        let written = self.file.as_file().write_all_at(part, offset);
        written.map_err(|e| StoreError::io("write", self.file.path(), e))
    }

    /// Checks size and hash; the blob is here, durably, on return.
    ///
    /// # Errors
    /// It is not what was announced (nothing was kept), the disk is full, or
    /// the system refuses.
    pub fn finish(self) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("write", self.file.path(), e);
        let found = self.file.as_file().metadata().map_err(failed)?.len();
        if found != self.bytes {
            return Err(self.bad(format!("it has {found} bytes instead of {}", self.bytes)));
        }
        let content = hash_of(self.file.path()).map_err(failed)?;
        if content != self.hash {
            return Err(self.bad(format!("what came has the hash {content}")));
        }
        self.file.as_file().sync_all().map_err(failed)?;
        self.blobs.settle(self.hash, self.file)
    }

    fn bad(&self, problem: String) -> StoreError {
        StoreError::BadBlob { hash: self.hash, problem }
    }
}

fn within_limit(hash: BlobHash, bytes: u64) -> Result<(), StoreError> {
    if bytes <= limits::BLOB_BYTES {
        return Ok(());
    }
    let problem = format!("{bytes} bytes are over the limit of {}", limits::BLOB_BYTES);
    Err(StoreError::BadBlob { hash, problem })
}

fn read_part(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let left = file.metadata()?.len().saturating_sub(offset);
    let mut part = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
    file.read_exact_at(&mut part, offset)?;
    Ok(part)
}

fn hash_of(path: &Path) -> io::Result<BlobHash> {
    let mut sum = blake3::Hasher::new();
    sum.update_reader(File::open(path)?)?;
    Ok(BlobHash(*sum.finalize().as_bytes()))
}

/// Two hexadecimal digits: 256 folders.
const PREFIX_DIGITS: usize = 2;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn empty() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = reopen(folder.path());
        (folder, blobs)
    }

    fn reopen(folder: &Path) -> Blobs {
        Blobs::open(&folder.join("blobs"), Quarantine::new(folder.join("quarantine"))).unwrap()
    }

    #[test]
    fn a_blob_is_read_back_whole_and_in_parts() {
        let (_folder, blobs) = empty();
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let hash = blobs.put(&content).unwrap();
        assert_eq!(blobs.put(&content).unwrap(), hash);
        assert_eq!(blobs.size(hash), Some(400_000));
        assert_eq!(blobs.read(hash, 0, usize::MAX).unwrap(), content);
        assert_eq!(blobs.read(hash, 399_998, 100).unwrap(), content[399_998..]);
        assert_eq!(blobs.read(hash, u64::MAX, 100).unwrap(), b"");
        assert_eq!(blobs.list().unwrap(), BTreeSet::from([hash]));
        assert!(blobs.verify(hash).unwrap());
        assert!(blobs.remove(hash).unwrap());
        assert!(!blobs.remove(hash).unwrap());
        assert_eq!(blobs.read(hash, 0, 1), None);
        assert!(!blobs.verify(hash).unwrap());
        assert_eq!(blobs.list().unwrap(), BTreeSet::new());
    }

    #[test]
    fn parts_in_any_order_make_a_blob_only_when_they_are_right() {
        let (_folder, blobs) = empty();
        let hash = BlobHash::of(b"hello world");
        let mut good = blobs.receive(hash, 11).unwrap();
        good.write_at(6, b"world").unwrap();
        good.write_at(0, b"hello ").unwrap();
        assert!(!blobs.has(hash));
        good.finish().unwrap();
        assert_eq!(blobs.read(hash, 0, 11).unwrap(), b"hello world");
        blobs.remove(hash).unwrap();

        let mut short = blobs.receive(hash, 11).unwrap();
        short.append(b"hello ").unwrap();
        assert!(matches!(short.finish(), Err(StoreError::BadBlob { .. })));
        let mut wrong = blobs.receive(hash, 11).unwrap();
        wrong.append(b"hello ").unwrap();
        wrong.append(b"earth").unwrap();
        assert!(matches!(wrong.write_at(u64::MAX, b"!"), Err(StoreError::BadBlob { .. })));
        assert!(matches!(wrong.append(b"!"), Err(StoreError::BadBlob { .. })));
        assert!(matches!(wrong.finish(), Err(StoreError::BadBlob { .. })));
        assert!(matches!(blobs.receive(hash, limits::BLOB_BYTES + 1), Err(StoreError::BadBlob { .. })));
        assert_eq!(blobs.list().unwrap(), BTreeSet::new());
        assert_eq!(files::list(&blobs.inner.folder).unwrap().len(), 1, "only the folder of the first");
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed() {
        let (folder, blobs) = empty();
        let hash = blobs.put(b"whole").unwrap();
        let half = blobs.receive(BlobHash::of(b"half"), 4).unwrap();
        let (_, path) = half.file.keep().unwrap();
        assert!(path.exists());
        let blobs = reopen(folder.path());
        assert!(!path.exists());
        assert_eq!(blobs.list().unwrap(), BTreeSet::from([hash]));
    }

    #[test]
    fn a_blob_that_has_changed_is_put_in_quarantine() {
        let (folder, blobs) = empty();
        let hash = blobs.put(b"content").unwrap();
        fs::write(blobs.path(hash), b"contend").unwrap();
        assert!(!blobs.verify(hash).unwrap());
        assert!(!blobs.has(hash));
        let kept = files::list(&folder.path().join("quarantine")).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read(&kept[0].1).unwrap(), b"contend");
        blobs.put(b"content").unwrap();
        assert!(blobs.verify(hash).unwrap());
    }
}
