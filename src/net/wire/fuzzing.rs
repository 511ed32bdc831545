//! What holds for whatever another node sends. For `crate::fuzzing`.

use super::{FRAME_BYTES, FRAME_MESSAGES, Message, WireError, decode, decode_frame, encode, encode_frame, encoded_len};
use super::{limits, weigh};
use taskmesh_core::Request;
use taskmesh_core::message::By;

/// One message: what is believed can be sent on, and stays the same beside a
/// field of a later version.
pub fn message(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    comes_back(&message);
    if bytes.len() + LATER.len() <= limits::MESSAGE_BYTES {
        assert_eq!(decode(&[bytes, LATER].concat()), Ok(message));
    }
    // Two readers, this one and prost, agree on what a message is. Groups are
    // not of proto3; prost leaves them out where it does not know them.
    if let Err(WireError::Malformed { problem }) = weigh::examine(bytes) {
        assert_eq!(problem, "invalid wire type");
    }
}

/// A frame: what is good in it stays good without the rest, and frames may be
/// joined.
pub fn frame(bytes: &[u8]) {
    let Ok(messages) = decode_frame(bytes) else { return };
    assert!(messages.len() <= FRAME_MESSAGES);
    let good: Vec<Message> = messages.iter().flatten().cloned().collect();
    let mut again = Vec::new();
    encode_frame(&good, &mut again);
    let read = decode_frame(&again).map(|read| read.into_iter().collect::<Result<Vec<_>, _>>());
    assert_eq!(read, Ok(Ok(good)));
    if 2 * bytes.len() <= FRAME_BYTES && 2 * messages.len() <= FRAME_MESSAGES {
        let joined = decode_frame(&bytes.repeat(2));
        assert_eq!(joined, Ok([messages.clone(), messages].concat()));
    }
}

/// What a face lets through, other nodes take as it was meant, unless it is
/// for the node itself.
pub fn request(request: &Request) {
    let sent = Message::Request { id: 7, by: By::Node, request: Box::new(request.clone()) };
    let mut bytes = Vec::new();
    encode(&sent, &mut bytes);
    let read = decode(&bytes);
    assert!(read.as_ref() == Ok(&sent) || read == Err(WireError::NotForPeers), "{sent:?} came as {read:?}");
}

fn comes_back(message: &Message) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    assert_eq!(bytes.len(), encoded_len(message));
    assert_eq!(weigh::examine(&bytes), Ok(()));
    assert_eq!(decode(&bytes).as_ref(), Ok(message));
}

/// A number in field 2047, which no message has.
const LATER: &[u8] = &[0xf8, 0x7f, 1];

#[cfg(test)]
pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    drawn(300).iter().map(|message| bytes_of(std::slice::from_ref(message), |m, out| encode(&m[0], out))).collect()
}

#[cfg(test)]
pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    drawn(150).chunks(3).map(|messages| bytes_of(messages, |m, out| encode_frame(m, out))).collect()
}

#[cfg(test)]
fn bytes_of(messages: &[Message], write: impl Fn(&[Message], &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(messages, &mut bytes);
    bytes
}

/// The same at each run.
#[cfg(test)]
fn drawn(count: usize) -> Vec<Message> {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any = super::strategies::message();
    (0..count).map(|_| any.new_tree(&mut runner).expect("drawn").current()).collect()
}
