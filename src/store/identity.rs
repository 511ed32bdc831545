//! The secrets of a node as files: its Ed25519 seed and the mesh key, each 32
//! bytes, as 64 hexadecimal digits.

use super::{StoreError, files};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The name of the file with the node's Ed25519 seed, in the data folder.
pub const IDENTITY_FILE: &str = "identity.key";
/// The name of the file with the mesh key, in the data folder.
pub const MESH_FILE: &str = "mesh.key";

/// Where a secret came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made now.
    Created,
    /// It was there.
    Found,
}

/// The secret in `path`; where there is none, the one that `make` draws, which
/// is on the disk (mode 0600) when this returns. Says so in the log where
/// others may read the file.
///
/// # Errors
/// The file holds something else, or cannot be read or written. It is never
/// overwritten.
pub fn load_or_create(path: &Path, make: impl FnOnce() -> [u8; 32]) -> Result<([u8; 32], Origin), StoreError> {
    if let Some(secret) = load(path)? {
        return Ok((secret, Origin::Found));
    }
    let folder = files::parent_of(path);
    files::make_folder(folder)?;
    let secret = make();
    let file = files::write_temporary(folder, format!("{}\n", files::hex(&secret)).as_bytes())?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            files::sync_folder(folder)?;
            Ok((secret, Origin::Created))
        }
        // Another process was faster: its secret is the one.
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
            let other = load(path)?;
            other.map(|secret| (secret, Origin::Found)).ok_or_else(|| StoreError::io("read", path, e.error))
        }
        Err(e) => Err(StoreError::io("write", path, e.error)),
    }
}

/// The secret in `path`, if there is such a file.
///
/// # Errors
/// The file holds something else, or cannot be read.
pub fn load(path: &Path) -> Result<Option<[u8; 32]>, StoreError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("read", path, e)),
    };
    let bad = |problem| StoreError::BadKey { path: path.to_path_buf(), problem };
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(bad("it should be a file of 64 hexadecimal digits"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read this secret; run: chmod 600 on it");
    }
    let text = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
    let text = str::from_utf8(&text).map_err(|_| bad("it should be text"))?;
    let secret = files::unhex32(text.trim()).ok_or_else(|| bad("it should be 64 hexadecimal digits"))?;
    Ok(Some(secret))
}

/// Digits, line ends and some room.
const MAX_FILE_BYTES: u64 = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join(IDENTITY_FILE);
        assert_eq!(load_or_create(&path, || [7; 32]).unwrap(), ([7; 32], Origin::Created));
        assert_eq!(load_or_create(&path, || [8; 32]).unwrap(), ([7; 32], Origin::Found));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_anything_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MESH_FILE);
        for bad in ["", "no key", &"0".repeat(63), &"g".repeat(64), &"0".repeat(1_000)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load_or_create(&path, || [1; 32]), Err(StoreError::BadKey { .. })), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), *bad);
        }
    }
}
