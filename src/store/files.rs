//! Files that are whole or absent after a power loss: written beside their
//! place, brought to the disk, renamed, and the folder brought to the disk.

use super::StoreError;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes `folder` (mode 0700) and brings its name to the disk. One that is
/// there already is left as it is.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = parent_of(folder);
    if !parent.is_dir() {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(parent),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(StoreError::io("make", folder, e)),
    }
}

/// Brings the names in `folder` to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::io("sync", folder, e))
}

/// Renames, without waiting for the disk.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("rename", from, e))
}

/// Moves `from` to `to`, durably, within one file system.
pub(super) fn move_durably(from: &Path, to: &Path) -> Result<(), StoreError> {
    rename(from, to)?;
    sync_folder(parent_of(to))?;
    sync_folder(parent_of(from))
}

/// Writes a new file with `content` (mode 0600) at `path`, durably; what was
/// there before is replaced as a whole.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = write_temporary(parent_of(path), content)?;
    temporary.persist(path).map_err(|e| StoreError::io("rename", path, e.error))?;
    sync_folder(parent_of(path))
}

/// Writes a file of another name into `folder`, on the disk but not in place.
/// It goes away unless it is persisted.
pub(super) fn write_temporary(folder: &Path, content: &[u8]) -> Result<tempfile::NamedTempFile, StoreError> {
    let mut file = temporary(folder)?;
    let written = file.write_all(content).and_then(|()| file.as_file().sync_all());
    written.map_err(|e| StoreError::io("write", folder, e))?;
    Ok(file)
}

/// An empty file in `folder` whose name says that it is not in place.
pub(super) fn temporary(folder: &Path) -> Result<tempfile::NamedTempFile, StoreError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    builder.tempfile_in(folder).map_err(|e| StoreError::io("write to", folder, e))
}

/// Removes what an interrupted [`write_temporary`] left in `folder`.
pub(super) fn remove_temporaries(folder: &Path) -> Result<(), StoreError> {
    for (name, path) in list(folder)? {
        if name.starts_with(TEMPORARY_PREFIX) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a file, without waiting for the disk. `false`: there was none.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("remove", path, e)),
    }
}

/// Names and paths in `folder`, sorted; nothing where there is no such folder.
/// Names that are not UTF-8 are none of ours and left out.
pub(super) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list", folder, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("list", folder, e))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    Ok(names)
}

/// Bytes of the files in `folder` and below.
pub(super) fn bytes_in(folder: &Path) -> Result<u64, StoreError> {
    let mut total = 0;
    for (_, path) in list(folder)? {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => total += bytes_in(&path)?,
            Ok(meta) => total += meta.len(),
            // Gone since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io("measure", &path, e)),
        }
    }
    Ok(total)
}

/// Takes away what group and others may do with the files in `folder` and
/// below: sled makes its own under the process's umask.
pub(super) fn close_to_others(folder: &Path) -> Result<(), StoreError> {
    for (_, path) in list(folder)? {
        let failed = |e| StoreError::io("protect", &path, e);
        let meta = fs::symlink_metadata(&path).map_err(failed)?;
        let mode = if meta.is_dir() { 0o700 } else { 0o600 };
        if meta.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        if meta.is_dir() {
            close_to_others(&path)?;
        }
    }
    Ok(())
}

/// The folder that `path` is in.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from 64 hexadecimal digits.
pub(super) fn unhex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let digits = &text[2 * i..2 * i + 2];
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

const TEMPORARY_PREFIX: &str = ".part-";
