//! Disks that are full, and disks that lie.

use crate::fleet::{Fleet, Node, Plan, all_complete, code, eventually, items, submit};
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A small file system in memory; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason on the output, where mounting is refused.
    fn mount(place: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(place).expect("a folder to mount on");
        match mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "taskmesh-test"], place) {
            Ok(()) => Some(SmallDisk(place.to_owned())),
            Err(reason) => {
                println!("skipped: no small disk can be mounted here: {reason}");
                None
            }
        }
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0).expect("a larger disk");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> Result<(), String> {
    let done = Command::new("mount").args(arguments).arg(place).output().map_err(|e| format!("mount: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_gives_a_clear_error_and_loses_nothing_accepted() {
    let fleet = Fleet::empty(&[]).await;
    let Some(disk) = SmallDisk::mount(&fleet.folder().join("small"), "30m") else { return };
    let mut node = Node::spawn(Plan::new(&disk.0.join("node")).set("worker.slots", "0"));
    node.up().await;
    let filling = "x".repeat(200_000);
    let mut accepted = Vec::new();
    let refused = loop {
        let id = format!("fill-{}", accepted.len());
        let task = json!({"task_id": id, "task_type": "echo", "payload": {"filling": filling, "n": accepted.len()}});
        match node.call("task_submit", task).await {
            Ok(_) => accepted.push(id),
            Err(e) => break e,
        }
        assert!(accepted.len() < 200, "40 MB do not fit on a disk of 30");
    };
    println!("{} tasks fitted; then: {refused}", accepted.len());
    assert!(!accepted.is_empty());
    let ended = node.ended(Duration::from_secs(10)).await;
    if let Some(status) = ended {
        assert!(!status.success(), "a node that can't keep its word says so in its exit status");
        let log = node.log().to_lowercase();
        assert!(log.contains("no room left on the disk"), "the log says why:\n{}", node.log_tail(20));
        disk.grow("200m");
        node.restart().await;
    } else {
        // It refuses, and lives on: then that is said by its code.
        assert!(["resource_exhausted", "unavailable"].contains(&code(&refused)), "{refused}");
        disk.grow("200m");
        node.kill();
        node.restart().await;
    }
    for id in &accepted {
        let seen = node.ask("task_status", json!({"task_id": id})).await;
        assert_eq!(seen["status"], json!("queued"), "{id} was accepted: {seen}");
    }
    node.ask("worker_register", json!({"worker_id": "late", "capabilities": ["echo"]})).await;
    all_complete(&node, &accepted, Duration::from_secs(60)).await;
}

/// Files below `folder` that are at least `bytes` long.
fn large_files(folder: &Path, bytes: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            found.extend(large_files(&entry.path(), bytes));
        } else if about.len() >= bytes {
            found.push(entry.path());
        }
    }
    found
}

/// Overwrites a few bytes at seven places of `file`.
fn damage(file: &Path) {
    let open = std::fs::File::options().write(true).open(file).expect("a file of the store");
    let length = open.metadata().expect("its size").len();
    for eighth in 1..8 {
        open.write_all_at(&[0xa5; 64], length / 8 * eighth).expect("it can be damaged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_reported_and_repaired_from_the_holders() {
    let mut fleet = Fleet::start(3).await;
    // Large enough to be files of their own, and small ones in the log.
    let large = "y".repeat(300_000);
    let array: Vec<_> = (0..40).map(|n| json!({"n": n})).collect();
    submit(&fleet.nodes[0], json!({"task_id": "large", "task_type": "echo", "payload": {"text": large}})).await;
    submit(&fleet.nodes[0], json!({"task_id": "small", "task_type": "echo", "payload": {}, "items": array})).await;
    let tasks: Vec<_> = items("small", 40).into_iter().chain(["large".to_owned()]).collect();
    all_complete(&fleet.nodes[2], &tasks, Duration::from_secs(40)).await;

    let (victim, others) = fleet.nodes.split_first_mut().expect("three nodes");
    victim.kill();
    let files = large_files(victim.data_dir(), 16 * 1024);
    assert!(!files.is_empty(), "the store has files");
    for file in &files {
        damage(file);
    }
    println!("damaged {} files: {files:?}", files.len());
    victim.relaunch();
    if let Some(status) = victim.ended(Duration::from_secs(8)).await {
        // It refuses to start: then it says so, and the others have everything.
        assert!(!status.success());
        let log = victim.log().to_lowercase();
        assert!(log.contains("damage") || log.contains("corrupt"), "it says why:\n{}", victim.log_tail(20));
    } else {
        victim.up().await;
        let log = victim.log().to_lowercase();
        assert!(log.contains("damage") || log.contains("quarantine"), "it says so:\n{}", victim.log_tail(40));
        for task in &tasks {
            let seen = victim.result(task, Duration::from_secs(20)).await;
            assert_eq!(seen["status"], json!("completed"), "{task}");
        }
    }
    for node in others {
        for task in &tasks {
            let seen = node.result(task, Duration::from_secs(20)).await;
            assert_eq!(seen["status"], json!("completed"), "{task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_of_the_log_costs_nothing() {
    let mut fleet = Fleet::start(1).await;
    let array: Vec<_> = (0..50).map(|n| json!({"n": n})).collect();
    submit(&fleet.nodes[0], json!({"task_id": "a", "task_type": "echo", "payload": {}, "items": array})).await;
    let tasks = items("a", 50);
    all_complete(&fleet.nodes[0], &tasks, Duration::from_secs(30)).await;
    let node = &mut fleet.nodes[0];
    node.kill();
    // What a power cut in the middle of writing one leaves behind.
    let log = large_files(node.data_dir(), 1).into_iter().find(|f| f.file_name().is_some_and(|n| n == "db"));
    let folder = log.expect("sled's log").parent().expect("in a folder").to_owned();
    std::fs::write(folder.join("snap.00000000000000FF"), b"").expect("an empty snapshot");
    node.restart().await;
    for task in &tasks {
        assert_eq!(node.result(task, Duration::from_secs(10)).await["status"], json!("completed"), "{task}");
    }
    assert!(node.log().contains("snap"), "it is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_can_not_share_a_folder() {
    let fleet = Fleet::start(1).await;
    let mut second = Node::spawn(Plan::new(fleet.nodes[0].data_dir()));
    let status = eventually(Duration::from_secs(15), "the second one gives up", async || {
        second.ended(Duration::from_millis(100)).await
    })
    .await;
    assert!(!status.success());
    let pid = fleet.nodes[0].pid().to_string();
    assert!(second.log().contains(&pid), "it says who has it:\n{}", second.log_tail(10));
    submit(&fleet.nodes[0], json!({"task_id": "on", "task_type": "echo", "payload": {}})).await;
}
