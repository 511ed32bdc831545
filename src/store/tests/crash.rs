//! Nothing that was acknowledged is lost: by SIGKILL, or by a full disk. And
//! what was acknowledged had reached `fdatasync`.

use super::child::{self, ACK};
use super::load;
use crate::store::{SledStore, Store, Write};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use taskmesh_core::Entry;

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=3 {
        let child = child::start(&[], child::command("write", folder.path(), acknowledged));
        let enough = format!("{ACK}{}", 50 * round);
        acknowledged = child::kill_after(child, |line| line == enough);
        child::check(&load(folder.path()).0, acknowledged);
    }
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Past this size a write to a file fails; in blocks of 512 bytes.
    let limit = "trap '' XFSZ; ulimit -f 24576; exec \"$@\"";
    let wrapper = ["sh", "-c", limit, "sh"];
    let mut child = child::start(&wrapper, child::command("fill", folder.path(), 0));
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    let line = |start: &str| said.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{said}"));
    assert!(line("first ").contains("DiskFull"), "{}", line("first "));
    assert!(line("second ").contains("Poisoned"), "{}", line("second "));

    let acknowledged = said.lines().filter(|l| l.starts_with(ACK)).count() as u64;
    assert!(acknowledged > 10, "{said}");
    let (disk, _) = load(folder.path());
    let whole: std::collections::BTreeSet<_> = disk.slots.iter().map(|s| s.record.task.as_str()).collect();
    for n in 0..acknowledged {
        assert!(whole.contains(&format!("{n}-0")[..]), "{n} of {acknowledged}");
    }
    // With room again it goes on.
    let mut store = SledStore::open(folder.path()).unwrap();
    store.commit(&[Write::Persist(&Entry::Boot(2))]).unwrap();
}

#[test]
fn every_commit_reaches_fdatasync() {
    let folder = tempfile::tempdir().unwrap();
    let Some(calls) = fdatasyncs_of_forty_commits(folder.path()) else { return };
    assert!(calls >= 40, "{calls} fdatasync for 40 commits");
}

/// `None`, with the reason printed, where nothing can be traced.
fn fdatasyncs_of_forty_commits(folder: &Path) -> Option<usize> {
    let trace = folder.join("trace");
    let text = trace.display().to_string();
    let wrapper = ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-o", &text];
    if Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success()) {
        let mut child = child::start(&wrapper, child::command("write 40", &folder.join("data"), 0));
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert_eq!(said.lines().filter(|l| l.starts_with(ACK)).count(), 40);
        let trace = fs::read_to_string(trace).unwrap();
        return Some(trace.lines().filter(|l| l.contains("fdatasync") && l.trim_end().ends_with("= 0")).count());
    }
    println!("skipped: strace is not here, or may not trace");
    None
}
