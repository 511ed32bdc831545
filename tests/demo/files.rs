//! Real files to hash: the sources of the registry, else what every system has.

#![allow(dead_code, reason = "each demonstration uses its own part of it")]

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A file that takes long to hash would show the disk, not the mesh.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Up to `count` files, always the same ones on the same machine.
pub(crate) fn some(count: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in registry().iter().map(PathBuf::as_path).chain([Path::new("/usr/share")]) {
        walk(folder, count, &mut files);
        if files.len() >= count {
            break;
        }
    }
    files
}

/// Where Cargo keeps the sources of packages.
pub(crate) fn registry() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("registry/src")).filter(|folder| folder.is_dir())
}

fn walk(folder: &Path, count: usize, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if files.len() >= count {
            return;
        }
        let path = entry.path();
        // Links are left out: they may leave the folder.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            walk(&path, count, files);
        } else if about.is_file() && about.len() <= LARGEST && fit_for_an_argument(&path) {
            files.push(path);
        }
    }
}

/// Whether `sha256sum` prints the digest of this file plainly: it escapes
/// names with a backslash or a line end.
fn fit_for_an_argument(path: &Path) -> bool {
    let readable = std::fs::File::open(path).is_ok();
    readable && path.to_str().is_some_and(|name| !name.contains(['\\', '\n', '\r']))
}

/// The file's SHA-256, in hexadecimal, computed here.
pub(crate) fn sha256(path: &Path) -> String {
    let content = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
