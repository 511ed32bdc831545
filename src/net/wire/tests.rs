//! What holds for every message; the bounds one by one are in `tests/bounds.rs`.
#![allow(clippy::unwrap_used)]

mod bounds;
mod bounds_of_requests;
mod golden;
mod mesh;

use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmesh_core::command::{Command, PeerFilter, Query, Request, Submission};
use taskmesh_core::message::By;
use taskmesh_core::task::{Durability, Priority, RetryPolicy};
use taskmesh_core::{Ballot, Millis, NodeId, Refusal, Reply, Spec, Stamp, TaskId, Unix, WorkerId};

/// The bytes of `message`.
fn bytes_of(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out
}

/// A field that holds `content`.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    [&out, content].concat()
}

/// `content` inside the fields of `path`, outermost first.
fn inside(path: &[u64], content: &[u8]) -> Vec<u8> {
    path.iter().rev().fold(content.to_vec(), |content, number| field(*number, &content))
}

fn ack() -> Message {
    Message::Ack {
        task: TaskId::new("job/1").unwrap(),
        stamp: Stamp { ballot: Ballot { epoch: 2, owner: NodeId([0xaa; 32]) }, revision: 5 },
    }
}

/// A spec of an everyday size: about 200 bytes.
fn spec() -> Spec {
    Spec {
        task_type: "exec".into(),
        payload: Arc::from(
            &br#"{"argv":["sha256sum","/usr/share/common-licenses/Apache-2.0"],"env":{"LC_ALL":"C"}}"#[..],
        ),
        tags: vec!["demo".into(), "hash".into()],
        metadata: None,
        timeout: Some(Millis(30_000)),
        retry: RetryPolicy::default(),
        requirements: taskmesh_core::task::Requirements::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: Some("user-17".into()),
        durability: Durability::Replicated,
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(1_795_402_485_164),
        submitter: None,
        trace: None,
        cache: None,
    }
}

fn submit(items: usize, bytes: usize) -> Message {
    let items = (0..items).map(|_| Arc::from(vec![b'x'; bytes])).collect();
    let submission = Submission { task: None, spec: spec(), priority: Priority::NORMAL, items };
    Message::Request { id: 7, by: By::Node, request: Box::new(Request::Command(Command::Submit(Box::new(submission)))) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_message_comes_back_as_it_went(message in strategies::message()) {
        let bytes = bytes_of(&message);
        prop_assert_eq!(bytes.len(), encoded_len(&message));
        prop_assert_eq!(weigh::examine(&bytes), Ok(()));
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn random_bytes_are_refused_or_read_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
        let _ = weigh::examine(&bytes);
        for message in decode_frame(&bytes).into_iter().flatten().flatten() {
            prop_assert_eq!(decode(&bytes_of(&message)), Ok(message));
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_read_and_never_panic(
        message in strategies::message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&message);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = weigh::examine(&bytes);
        // What is still believed is within every bound: it can be sent on.
        if let Ok(message) = decode(&bytes) {
            prop_assert_eq!(decode(&bytes_of(&message)), Ok(message));
        }
        let _ = decode(&bytes[..cut.index(bytes.len())]);
        let _ = decode_frame(&bytes);
    }

    #[test]
    fn a_frame_brings_its_messages_in_order(messages in prop::collection::vec(strategies::message(), 0..5)) {
        let mut frame = Vec::new();
        encode_frame(&messages, &mut frame);
        let read: Result<Vec<_>, _> = decode_frame(&frame).unwrap().into_iter().collect();
        prop_assert_eq!(read, Ok(messages));
    }
}

#[test]
fn every_kind_of_message_is_drawn() {
    let mut runner = TestRunner::deterministic();
    let all = strategies::message();
    let mut kinds = BTreeSet::new();
    for _ in 0..600 {
        let bytes = bytes_of(&all.new_tree(&mut runner).unwrap().current());
        kinds.insert(weigh::first_field(&bytes));
    }
    assert_eq!(kinds, (1..=30).collect());
}

#[test]
fn a_newer_sender_may_say_more() {
    let Message::Ack { task, stamp } = ack() else { unreachable!("ack() is an Ack") };
    let more = field(500, b"from the future");
    let stamp = [prost::Message::encode_to_vec(&proto::Stamp::from(stamp)), more.clone()].concat();
    let inner = [field(1, task.as_str().as_bytes()), field(2, &stamp), more.clone()].concat();
    assert_eq!(decode(&[field(7, &inner), more].concat()), Ok(ack()));
}

#[test]
fn what_a_node_without_tokens_says_is_read_and_of_the_node_itself() {
    // As version 0.1.0 wrote them: `PeerRequest {id, request}`, where the request is `WorkersQuery {}`.
    let older = decode(&field(22, &[&[8, 7][..], &field(2, &field(36, b""))].concat()));
    let Ok(Message::Request { id: 7, by: By::Node, request }) = older else { panic!("{older:?}") };
    let mine = bytes_of(&Message::Request { id: 7, by: By::Token(Arc::from(&b"tok"[..])), request });
    // Its reader knows the fields 1 and 2, and passes over what follows them.
    assert_eq!(mine, field(22, &[&[8, 7][..], &field(2, &field(36, b"")), &field(3, b"tok")].concat()));
    let beat = proto::Beat {
        boot: 1,
        controls: Some(proto::ControlsVersion { count: 0, node: vec![1; 32] }),
        ..Default::default()
    };
    let beat = decode(&field(2, &prost::Message::encode_to_vec(&beat)));
    assert!(matches!(beat, Ok(Message::Beat(beat)) if beat.tokens.is_none()));
}

#[test]
fn a_token_over_its_limit_is_refused() {
    let long = vec![0; taskmesh_core::token::Token::MAX_BYTES + 1];
    let bytes = field(22, &[&[8, 7][..], &field(2, &field(36, b"")), &field(3, &long)].concat());
    assert!(matches!(decode(&bytes), Err(WireError::Limit { field: "request.token", .. })));
}

#[test]
fn what_only_newer_nodes_know_is_unknown() {
    assert_eq!(decode(&field(900, b"x")), Err(WireError::Unknown { what: "message" }));
    assert_eq!(decode(b""), Err(WireError::Unknown { what: "message" }));
    assert_eq!(decode(&inside(&[22, 2, 99], b"")), Err(WireError::Unknown { what: "request" }));
    assert_eq!(decode(&inside(&[23, 2, 99], b"")), Err(WireError::Unknown { what: "reply" }));
    assert_eq!(decode(&inside(&[23, 99], b"")), Err(WireError::Unknown { what: "response" }));
    assert_eq!(decode(&inside(&[23, 3, 99], b"")), Err(WireError::Unknown { what: "refusal" }));
    let newer_number = proto::StatsQuery { scope: 17, workers: false, historical: false };
    let bytes = inside(&[22, 2, 34], &prost::Message::encode_to_vec(&newer_number));
    assert_eq!(decode(&bytes), Err(WireError::Unknown { what: "scope" }));
}

#[test]
fn a_frame_is_what_the_schema_says() {
    let messages = vec![proto::Message::from(&ack()), proto::Message::from(&submit(2, 200))];
    let schema = prost::Message::encode_to_vec(&proto::Frame { messages });
    let mut frame = Vec::new();
    encode_frame([&ack()], &mut frame);
    encode_frame([&submit(2, 200)], &mut frame);
    assert_eq!(frame, schema);
}

#[test]
fn a_bad_message_in_a_frame_costs_only_itself() {
    let mut frame = Vec::new();
    encode_frame([&ack()], &mut frame);
    frame.extend(field(1, &field(900, b"newer")));
    frame.extend(field(1, b"\xff\xff\xff"));
    frame.extend(field(77, b"a field of a newer frame"));
    encode_frame([&Message::WhoAreYou], &mut frame);
    let read = decode_frame(&frame).unwrap();
    let reasons: Vec<_> = read.iter().map(|m| m.as_ref().map_err(WireError::reason)).collect();
    assert_eq!(reasons, [Ok(&ack()), Err("unknown"), Err("malformed"), Ok(&Message::WhoAreYou)]);
}

#[test]
fn a_frame_is_bounded_in_bytes_and_in_messages() {
    let long = vec![0; FRAME_BYTES + 1];
    assert_eq!(decode_frame(&long), Err(WireError::TooLarge { got: FRAME_BYTES + 1, limit: FRAME_BYTES }));
    let many = field(1, b"").repeat(FRAME_MESSAGES + 1);
    let Err(WireError::Limit { field: name, .. }) = decode_frame(&many) else { panic!("{} read", many.len()) };
    assert_eq!(name, "frame.messages");
    assert!(matches!(decode_frame(b"\x0a\x05abc"), Err(WireError::Malformed { .. })));
}

#[test]
fn what_a_node_asks_of_itself_alone_never_travels() {
    let asked = [
        Request::Command(Command::Register(taskmesh_core::command::WorkerSpec {
            worker: WorkerId::new("w").unwrap(),
            capabilities: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            slots: 1,
            resources: None,
            metadata: None,
        })),
        Request::Command(Command::Connect {
            peer: NodeId([1; 32]),
            address: "/ip4/127.0.0.1/tcp/1".into(),
            timeout: Millis(1),
            retries: 0,
            persist: false,
        }),
        Request::Command(Command::Disconnect { peer: NodeId([1; 32]), reason: None, graceful: true }),
        Request::Command(Command::Bootstrap {
            addresses: Vec::new(),
            timeout: Millis(1),
            min_connections: 1,
            max_connections: 1,
        }),
        Request::Query(Query::Discover { capabilities: Vec::new(), max: 1, timeout: Millis(1) }),
        Request::Query(Query::Peers(Box::<PeerFilter>::default())),
        Request::Query(Query::Peer { peer: NodeId([1; 32]), history_hours: 0 }),
    ];
    for request in asked {
        let message = Message::Request { id: 1, by: By::Node, request: Box::new(request) };
        assert_eq!(decode(&bytes_of(&message)), Err(WireError::NotForPeers), "{message:?}");
    }
    let reply = Reply::Peers { peers: Vec::new(), total: 0 };
    let message = Message::Response { id: 1, reply: Box::new(Ok(reply)) };
    assert_eq!(decode(&bytes_of(&message)), Err(WireError::NotForPeers));
}

#[test]
fn an_array_of_ten_thousand_fits_and_a_longer_message_is_refused() {
    let full = submit(limits::ITEMS, 300);
    assert!(encoded_len(&full) < limits::MESSAGE_BYTES);
    assert_eq!(decode(&bytes_of(&full)), Ok(full));
    let over = bytes_of(&submit(5, limits::PAYLOAD_BYTES));
    assert_eq!(decode(&over), Err(WireError::TooLarge { got: over.len(), limit: limits::MESSAGE_BYTES }));
}

#[test]
fn two_bytes_on_the_wire_cannot_ask_for_gigabytes() {
    let bombs: [(&str, &[u64], u64); 8] = [
        ("hello.workers", &[1], 4),
        ("offer.record.holders", &[6, 1], 4),
        ("submit.items", &[22, 2, 2], 4),
        ("task.explanation.nodes", &[23, 2, 32, 26], 2),
        ("tasks", &[23, 2, 33], 1),
        ("stats.workers", &[23, 2, 34, 7], 1),
        ("worker.labels", &[23, 2, 35], 5),
        ("workers", &[23, 2, 36], 1),
    ];
    for (name, path, number) in bombs {
        let bomb = inside(path, &field(number, b"").repeat(limits::MESSAGE_BYTES / 2 - 40));
        assert!(bomb.len() <= limits::MESSAGE_BYTES);
        assert_eq!(decode(&bomb).map_err(|e| e.reason()), Err("heavy"), "{name}");
    }
}

#[test]
fn the_weights_cover_what_the_structs_take() {
    let weighed = [
        (&[1, 4][..], size_of::<proto::WorkerSpec>()),
        (&[6, 1], size_of::<proto::Record>()),
        (&[6, 2], size_of::<proto::Spec>()),
        (&[23, 2, 33, 1], size_of::<proto::TaskView>()),
        (&[23, 2, 36, 1], size_of::<proto::WorkerView>()),
        (&[23, 2, 32, 26, 2], size_of::<proto::NodeReason>()),
    ];
    for (path, size) in weighed {
        let weight = weigh::weight(path);
        assert!(weight >= size, "{path:?} weighs {weight} and takes {size} bytes");
    }
}

#[test]
fn the_longest_refusal_of_each_kind_comes_back() {
    let text = |n: usize| Arc::from("z".repeat(n));
    let refusal = Refusal::State {
        name: text(limits::TEXT_BYTES),
        status: text(limits::TEXT_BYTES),
        needs: text(limits::REASON_BYTES),
    };
    let message = Message::Response { id: u64::MAX, reply: Box::new(Err(refusal)) };
    assert_eq!(decode(&bytes_of(&message)), Ok(message));
}
