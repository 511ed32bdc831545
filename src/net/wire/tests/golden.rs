//! The bytes of the central messages, written down: a change here would keep
//! an upgraded node from talking to the others.

use super::*;
use taskmesh_core::execution::Verdict;
use taskmesh_core::message::{Finished, Grant};
use taskmesh_core::record::Birth;
use taskmesh_core::task::{Data, Report, Task, TaskState, Usage};
use taskmesh_core::{Fence, Record};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fence() -> Fence {
    Fence { ballot: Ballot { epoch: 1, owner: NodeId([0xaa; 32]) }, attempt: 3 }
}

/// Node ids take most of the bytes: shown as a letter each.
fn short(bytes: &[u8]) -> String {
    let ids = [(0xaa, "<A>"), (0xbb, "<B>"), (0xcc, "<C>")];
    ids.iter().fold(hex(bytes), |text, (byte, name)| text.replace(&format!("{byte:02x}").repeat(32), name))
}

fn brief_spec() -> Spec {
    Spec {
        task_type: "echo".into(),
        payload: Arc::from(&b"{}"[..]),
        tags: Vec::new(),
        fairness_key: None,
        timeout: None,
        submitted_at: Unix(1),
        ..spec()
    }
}

fn check(message: &Message, expected: &str) {
    let bytes = bytes_of(message);
    assert_eq!(short(&bytes), expected.replace(char::is_whitespace, ""));
    assert_eq!(decode(&bytes).as_ref(), Ok(message));
}

#[test]
fn of_an_offer() {
    let record = Record {
        task: TaskId::new("job").unwrap(),
        birth: Birth { node: NodeId([0xaa; 32]), nonce: 7 },
        stamp: Stamp { ballot: fence().ballot, revision: 0 },
        holders: vec![NodeId([0xaa; 32]), NodeId([0xbb; 32]), NodeId([0xcc; 32])],
        prior: Vec::new(),
        forgotten: Vec::new(),
        body: Task {
            priority: Priority::NORMAL,
            attempt: 0,
            failures: 0,
            crashes: 0,
            retries: 0,
            cancel: None,
            last_error: None,
            state: TaskState::Queued { since: Unix(1), place: Priority::NORMAL },
        },
    };
    check(
        &Message::Offer { record: Box::new(record), spec: Some(Arc::new(brief_spec())) },
        r"
            3286020ad801
            0a036a6f62  122b 0a20<A>110700000000000000  1a26 0a2408011220<A>  2220<A> 2220<B> 2220<C>
            3216 09000000000000f03f 520b 0801 11000000000000f03f
            1229 0a046563686f 12027b7d 3214 0803 110000000000000040 18e807 20e0a712 2801 3a021a00 6001 800101",
    );
}

#[test]
fn of_an_ack() {
    check(&ack(), "3a31 0a056a6f622f31 1228 0a2408021220<A> 1005");
}

#[test]
fn of_a_grant() {
    let grant = Grant {
        task: TaskId::new("job").unwrap(),
        fence: fence(),
        worker: WorkerId::new("w").unwrap(),
        boot: 2,
        spec: Arc::new(brief_spec()),
        holders: vec![NodeId([0xaa; 32]), NodeId([0xbb; 32])],
        ahead: false,
    };
    check(
        &Message::Grant(Box::new(grant)),
        r"
            42a301
            0a036a6f62 1228 0a2408011220<A> 1003 1a0177 2002
            2a29 0a046563686f 12027b7d 3214 0803 110000000000000040 18e807 20e0a712 2801 3a021a00 6001 800101
            3220<A> 3220<B>",
    );
}

#[test]
fn of_an_end() {
    let usage = Usage { wall: Some(Millis(12)), ..Usage::default() };
    let finished = Finished {
        task: TaskId::new("job").unwrap(),
        fence: fence(),
        verdict: Verdict::Completed,
        report: Report { result: Data::Inline(Arc::from(&b"1"[..])), usage, ..Report::default() },
        started: Some(Millis(12)),
        free: vec![(WorkerId::new("w").unwrap(), 4)],
    };
    check(
        &Message::Finished(Box::new(finished)),
        r"
            5247
            0a036a6f62 1228 0a2408011220<A> 1003
            1a02 0a00 2209 0a03 0a0131 2a02 080c 280c 3205 0a0177 1004",
    );
}

#[test]
fn of_a_settlement() {
    check(
        &Message::Settled { task: TaskId::new("job").unwrap(), fence: fence() },
        "5a2f 0a036a6f62 1228 0a2408011220<A> 1003",
    );
}
