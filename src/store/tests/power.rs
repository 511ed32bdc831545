//! Nothing that was acknowledged is lost with the power: a preloaded shim
//! (`tests/store/powerloss.c`) keeps what each file held at its last sync, and
//! the store is opened on an image of that.

use super::child;
use super::load;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    let Some(shim) = Shim::build() else { return };
    let mut acknowledged = 0;
    let mut folder = tempfile::tempdir().unwrap();
    // Also between opening and the first commit, and while going on from what
    // an earlier loss left.
    for enough in ["ack 60", "opened", "ack 120", "ack 150"] {
        let shadow = tempfile::tempdir().unwrap();
        keep_all(shadow.path(), folder.path());
        let child = child::start(&[], shim.environment("write", folder.path(), shadow.path(), acknowledged));
        acknowledged = child::kill_after(child, |line| line == enough).max(acknowledged);
        let image = tempfile::tempdir().unwrap();
        restore(&shadow, folder.path(), image.path());
        child::check(&load(image.path()).0, acknowledged);
        folder = image;
    }
    assert!(acknowledged > 150);
}

/// The test above would notice: sled's own `flush` does not pass it.
#[test]
fn the_loss_of_power_takes_what_was_only_flushed() {
    let Some(shim) = Shim::build() else { return };
    let (folder, shadow, image) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let child = child::start(&[], shim.environment("bare", folder.path(), shadow.path(), 0));
    let acknowledged = child::kill_after(child, |line| line == "ack 200");
    restore(&shadow, folder.path(), image.path());
    let left = ::sled::Config::new().path(image.path()).flush_every_ms(None).open().unwrap().len() as u64;
    assert!(left < acknowledged, "{left} of {acknowledged}");
}

struct Shim {
    folder: TempDir,
}

impl Shim {
    /// `None`, with the reason printed, where there is no C compiler.
    fn build() -> Option<Shim> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/powerloss.c");
        let shim = Shim { folder };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(shim.library())
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .output();
        match built {
            Ok(output) if output.status.success() => Some(shim),
            Ok(output) => panic!("the shim does not compile: {}", String::from_utf8_lossy(&output.stderr)),
            Err(e) => {
                println!("skipped: no C compiler for the shim ({e})");
                None
            }
        }
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("powerloss.so")
    }

    fn environment(&self, role: &str, folder: &Path, shadow: &Path, first: u64) -> Vec<(String, String)> {
        let mut environment = child::command(role, folder, first);
        let mut add = |name: &str, path: &Path| environment.push((name.to_owned(), path.display().to_string()));
        add("LD_PRELOAD", &self.library());
        add("POWERLOSS_ROOT", &folder.canonicalize().unwrap());
        add("POWERLOSS_SHADOW", shadow);
        environment
    }
}

/// What is there before the child starts is durable.
fn keep_all(shadow: &Path, folder: &Path) {
    let mut names = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (inode, is_folder) = (entry.ino(), entry.file_type().unwrap().is_dir());
        let kind = if is_folder { 'd' } else { 'f' };
        names += &format!("{inode} {kind} {}\n", entry.file_name().to_str().unwrap());
        if is_folder {
            keep_all(shadow, &entry.path());
        } else {
            fs::copy(entry.path(), shadow.join(format!("f.{inode}"))).unwrap();
        }
    }
    fs::write(shadow.join(format!("d.{}", fs::metadata(folder).unwrap().ino())), names).unwrap();
}

/// Puts together in `image` what the disk under `folder` would hold.
fn restore(shadow: &TempDir, folder: &Path, image: &Path) {
    restore_folder(shadow.path(), fs::metadata(folder).unwrap().ino(), image);
}

fn restore_folder(shadow: &Path, inode: u64, to: &Path) {
    // One that was never synced has no names.
    let names = fs::read_to_string(shadow.join(format!("d.{inode}"))).unwrap_or_default();
    for line in names.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (inode, kind, name) = (word().parse::<u64>().unwrap(), word(), word());
        let path = to.join(name);
        if kind == "d" {
            fs::create_dir(&path).unwrap();
            restore_folder(shadow, inode, &path);
            continue;
        }
        // One that was never synced is empty.
        let content = fs::read(shadow.join(format!("f.{inode}"))).unwrap_or_default();
        fs::write(path, content).unwrap();
    }
}
