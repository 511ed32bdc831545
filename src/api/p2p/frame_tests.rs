//! Frames: what each abuse of them is told, and what it costs.

use super::*;
use crate::api::budget::SMALL_BYTES;
use proptest::prelude::*;
use serde_json::json;
use std::time::Instant;

async fn read_all(bytes: &[u8]) -> Result<Frame, FrameError> {
    let mut stream = bytes;
    read(&mut stream, &Budget::new(BUDGET_BYTES), Duration::from_secs(5)).await
}

fn word(read: Result<Frame, FrameError>) -> String {
    read.err().map_or_else(|| "a message".to_owned(), |error| error.to_string())
}

fn framed(length: u32, text: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], text].concat()
}

#[tokio::test]
async fn each_abuse_of_a_frame_has_its_own_word() {
    let deep = "[".repeat(10_000);
    let table: [(&str, Vec<u8>); 11] = [
        ("closed", vec![]),
        ("truncated", vec![0, 0]),
        ("truncated", framed(10, b"{}")),
        ("empty_frame", framed(0, b"")),
        ("frame_too_large", framed(u32::try_from(FRAME_BYTES).expect("small") + 1, b"")),
        ("frame_too_large", framed(u32::MAX, b"{}")),
        ("invalid_json", framed(4, b"\"\xff\xfe\"")),
        ("invalid_json", framed(3, b"{a}")),
        ("invalid_json", framed(10_000, deep.as_bytes())),
        ("invalid_message", framed(2, b"[]")),
        ("invalid_message", framed(4, b"null")),
    ];
    for (expected, bytes) in table {
        assert_eq!(word(read_all(&bytes).await), expected, "{:?}", &bytes[..bytes.len().min(12)]);
    }
    assert_eq!(word(read_all(&framed(2, b"{}")).await), "a message");
}

#[tokio::test]
async fn a_frame_takes_no_memory_for_what_has_not_come() {
    // Two megabytes are promised, and three bytes come: the rest is waited for
    // with one piece allocated.
    let (mut client, mut server) = tokio::io::duplex(64);
    client.write_all(&framed(u32::try_from(FRAME_BYTES).expect("small"), b"{\"a")).await.expect("sent");
    let budget = Budget::new(BUDGET_BYTES);
    let reading = tokio::time::timeout(Duration::from_millis(50), read(&mut server, &budget, FRAME_TIME)).await;
    assert!(reading.is_err(), "it waits");
    assert!(budget.is_whole(), "and what it held is free again");
}

#[tokio::test]
async fn large_frames_share_one_budget() {
    let text = json!({"a": "x".repeat(SMALL_BYTES)}).to_string();
    let bytes = framed(u32::try_from(text.len()).expect("small"), text.as_bytes());
    let budget = Budget::new(100 * 1024);
    let held = read(&mut &bytes[..], &budget, FRAME_TIME).await.expect("room for one");
    assert_eq!(word(read(&mut &bytes[..], &budget, FRAME_TIME).await), "busy");
    drop(held);
    assert!(read(&mut &bytes[..], &budget, FRAME_TIME).await.is_ok());
}

#[tokio::test]
async fn a_frame_is_weighed_before_it_is_read() {
    let (small, budget) = (json!({"a": vec![0; 20_000]}).to_string(), Budget::new(1024 * 1024));
    assert!(small.len() < SMALL_BYTES);
    let bytes = framed(u32::try_from(small.len()).expect("small"), small.as_bytes());
    assert_eq!(word(read(&mut &bytes[..], &budget, FRAME_TIME).await), "frame_too_large");
    let budget = Budget::new(4 * 1024 * 1024);
    let held = read(&mut &bytes[..], &budget, FRAME_TIME).await.expect("room for one");
    assert_eq!(word(read(&mut &bytes[..], &budget, FRAME_TIME).await), "busy");
    drop(held);
    assert!(budget.is_whole());
}

#[tokio::test]
async fn who_is_silent_or_slow_is_left() {
    let (mut client, mut server) = tokio::io::duplex(64);
    let (budget, long, short) = (Budget::new(BUDGET_BYTES), Duration::from_secs(60), Duration::from_millis(20));
    assert_eq!(word(read_within(&mut server, &budget, short, long).await), "idle_timeout");
    // A byte of the length, and no more; then all of it, and half of the body.
    for begun in [&[0_u8][..], &framed(2, b"{")] {
        client.write_all(begun).await.expect("sent");
        assert_eq!(word(read_within(&mut server, &budget, long, short).await), "frame_timeout");
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_sent() {
    let mut sent = Vec::new();
    let error = write(&mut sent, &json!({"a": "x".repeat(FRAME_BYTES)})).await.expect_err("too large");
    assert_eq!((error.kind(), sent.len()), (io::ErrorKind::InvalidData, 0));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_wait(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let began = Instant::now();
        let _ = runtime.block_on(read_all(&bytes));
        prop_assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_message_comes_back(key in "[a-z]{0,8}", text in ".{0,60}", n in any::<i64>()) {
        let message = json!({key: [text, n, null]});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let frame = runtime.block_on(read_all(&encode(&message).expect("small"))).expect("a message");
        prop_assert_eq!(Value::Object(frame.message), message);
    }
}
