//! What holds for whatever a peer sends over a stream. For `crate::fuzzing`.

use super::dialect::{Dialect, VERSION_KEY, fits, sniff};
use super::frame::{self, FRAME_BYTES};
use super::reply::{Asked, Fault, answer};
use crate::api::budget::Budget;
use crate::ops::value::Object;
use serde_json::Value;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// The first byte says how much of the rest comes at once. Every frame is what
/// a simpler reader says it is, and is written again to the same; memory is
/// asked for as bytes come, and given back.
pub fn frames(bytes: &[u8]) {
    let Some((most, rest)) = bytes.split_first() else { return };
    let mut stream = Pieces { rest, most: usize::from(*most).max(1) };
    let budget = Budget::new(frame::BUDGET_BYTES);
    let read_all = async {
        loop {
            let expected = plainly(stream.rest);
            let read = frame::read(&mut stream, &budget, PATIENCE).await;
            match (read, expected) {
                (Ok(frame), Ok((message, rest))) => {
                    assert_eq!((&frame.message, stream.rest), (&message, rest));
                    written_again(message);
                }
                (Err(error), Err(word)) => return assert_eq!(error.to_string(), word),
                (read, expected) => panic!("{read:?} instead of {expected:?}"),
            }
        }
    };
    RUNTIME.with(|runtime| runtime.block_on(read_all));
    assert!(budget.is_whole(), "memory is given back");
}

/// One message a line: the first has one dialect or a reason, whatever the
/// order of its members and whatever else it has; the later ones fit or have a
/// reason. A reason is short, however long the message.
pub fn dialect(bytes: &[u8]) {
    let mut messages = bytes.split(|byte| *byte == b'\n').filter_map(|line| frame::parse(line).ok());
    let Some(first) = messages.next() else { return };
    let sniffed = sniff(&first);
    let mut same: Object = first.clone().into_iter().rev().collect();
    same.insert("of a later revision".to_owned(), Value::Null);
    assert_eq!(sniff(&same), sniffed);
    let dialect = match sniffed {
        Err(fault) => return told(fault),
        Ok(dialect) => dialect,
    };
    let text = |name: &str| first.get(name).and_then(Value::as_str);
    match dialect {
        Dialect::Envelope => assert!(!first.contains_key("jsonrpc") && text("type").is_some()),
        Dialect::Legacy => assert_eq!((text("jsonrpc"), text("method")), (Some("2.0"), Some("initialize"))),
        Dialect::Sessionless => assert_eq!((text("jsonrpc"), revision(&first)), (Some("2.0"), Some("2026-07-28"))),
    }
    if dialect != Dialect::Envelope {
        assert_eq!(fits(dialect, &first), Ok(()));
    }
    for later in messages {
        if let Err(fault) = fits(dialect, &later) {
            told(fault);
            continue;
        }
        assert_eq!(later.get("jsonrpc").and_then(Value::as_str), Some("2.0"));
        let says = revision(&later).or((!later.contains_key("id")).then_some("2026-07-28"));
        assert!(dialect != Dialect::Sessionless || says == Some("2026-07-28"), "{later:?}");
    }
}

fn revision(message: &Object) -> Option<&str> {
    message.get("params")?.get("_meta")?.get(VERSION_KEY)?.as_str()
}

fn told(fault: Fault) {
    let asked = Asked { id: Value::Null, method: String::new() };
    let reply = answer(Dialect::Legacy, &asked, Err(fault), "me");
    assert!(reply["error"]["code"].as_i64() < Some(0) && reply["error"]["message"].is_string(), "{reply}");
    let frame = frame::encode(&reply).expect("it fits");
    assert!(frame.len() <= LONGEST, "{} bytes: {reply}", frame.len());
}

/// The message at the start of `bytes` and what follows it, or why there is
/// none.
fn plainly(bytes: &[u8]) -> Result<(Object, &[u8]), &'static str> {
    if bytes.is_empty() {
        return Err("closed");
    }
    let (length, rest) = bytes.split_first_chunk().ok_or("truncated")?;
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 {
        return Err("empty_frame");
    }
    if length > FRAME_BYTES {
        return Err("frame_too_large");
    }
    let (text, rest) = rest.split_at_checked(length).ok_or("truncated")?;
    match serde_json::from_slice(text).map_err(|_| "invalid_json")? {
        Value::Object(message) => Ok((message, rest)),
        _ => Err("invalid_message"),
    }
}

fn written_again(message: Object) {
    let message = Value::Object(message);
    let frame = frame::encode(&message).expect("a fuzzer's input is far below the limit");
    assert_eq!(plainly(&frame), Ok((message.as_object().cloned().unwrap_or_default(), &[][..])));
}

/// A stream of which little comes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    most: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(buffer.remaining() <= AT_ONCE, "{} bytes were made room for", buffer.remaining());
        let (piece, rest) = self.rest.split_at(self.rest.len().min(self.most).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// Nothing here waits.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// A peer that promises much and sends little gets no more room than this.
const AT_ONCE: usize = 16 * 1024;
/// A refusal repeats no more than a few words of what it refuses.
const LONGEST: usize = 1_024;

/// What messages are made of.
#[cfg(test)]
pub(crate) const WORDS: &[&str] = &[
    "\"jsonrpc\":\"2.0\"",
    "\"id\":1",
    "\"method\":\"initialize\"",
    "\"method\":\"tools/call\"",
    "\"method\":\"notifications/cancelled\"",
    "\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}",
    "\"type\":\"request\"",
    "null",
    "{}",
    "\\u0000",
];

#[cfg(test)]
fn messages() -> Vec<String> {
    let modern = r#""params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
    vec![
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        r#"{"type":"request","method":"queue_pause","id":"e1","params":{"token":"t"},"result":null}"#.to_owned(),
        format!(r#"{{"jsonrpc":"2.0","id":"a","method":"tools/list",{modern}}}"#),
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled",{modern}}}"#),
        r#"{"jsonrpc":"1.0","id":1.5e3,"params":[{"a":[[],"\ud83d\ude00",-0.0,true]}]}"#.to_owned(),
        r#"{"type":1}"#.to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
    ]
}

#[cfg(test)]
pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let framed = |text: &String| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let all = messages().iter().map(framed).collect::<Vec<_>>();
    let mut seeds: Vec<_> = all.iter().enumerate().map(|(n, frame)| [&[n as u8 * 29][..], frame].concat()).collect();
    seeds.push([&[3][..], &all[..8].concat()].concat());
    // Much is promised, and little sent.
    seeds.push([&[200][..], &(2_u32 << 20).to_be_bytes(), &[b' '; 700]].concat());
    seeds
}

#[cfg(test)]
pub(crate) fn dialect_seeds() -> Vec<Vec<u8>> {
    let (all, mut seeds) = (messages(), Vec::new());
    for (n, first) in all.iter().enumerate() {
        seeds.push([first.as_str(), &all[(n + 3) % all.len()], &all[(n + 4) % all.len()]].join("\n").into_bytes());
    }
    seeds
}
