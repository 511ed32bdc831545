//! How values are written on every face: times, spans, bytes, content ids and
//! cursors; and how they are read.

use super::failure::invalid;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat};
use serde::de::DeserializeOwned;
use serde_json::Value;
use taskmesh_core::{BlobHash, Millis, NodeId, Refusal, TaskId, Unix, WorkerId};

/// A JSON object.
pub type Object = serde_json::Map<String, Value>;

/// RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn time(at: Unix) -> String {
    let far = || DateTime::from_timestamp_millis(LAST_MS).unwrap_or_default();
    let at = i64::try_from(at.0).ok().filter(|ms| *ms <= LAST_MS).and_then(DateTime::from_timestamp_millis);
    at.unwrap_or_else(far).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// 9999-12-31T23:59:59.999Z: RFC 3339 has four digits for the year.
const LAST_MS: i64 = 253_402_300_799_999;

/// Reads RFC 3339 with any offset.
///
/// # Errors
/// Not such a text, or a time before 1970.
pub fn read_time(field: &str, text: &str) -> Result<Unix, Refusal> {
    let problem = "must be a time after 1970 such as 2030-01-31T12:00:00Z (RFC 3339)";
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| invalid(field, problem))?;
    u64::try_from(at.timestamp_millis()).map(Unix).map_err(|_| invalid(field, problem))
}

/// A span in seconds.
#[must_use]
pub fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1000.0
}

/// A number of cores or the like, in thousandths.
#[must_use]
pub fn thousandths(amount: f64) -> u64 {
    (amount * 1000.0).round() as u64
}

/// Reads a task's id.
///
/// # Errors
/// Not 1 to 256 printable bytes without white space.
pub fn task(field: &str, text: &str) -> Result<TaskId, Refusal> {
    TaskId::new(text).map_err(|e| invalid(field, e.to_string()))
}

/// Reads a worker's id.
///
/// # Errors
/// Not 1 to 128 printable bytes without white space.
pub fn worker(field: &str, text: &str) -> Result<WorkerId, Refusal> {
    WorkerId::new(text).map_err(|e| invalid(field, e.to_string()))
}

/// Reads a peer's id.
///
/// # Errors
/// Not the text of an Ed25519 peer id.
pub fn peer(text: &str) -> Result<NodeId, Refusal> {
    text.parse().map_err(|e: taskmesh_core::ids::NameError| invalid("peer_id", e.to_string()))
}

/// A text of at most `limit` bytes.
///
/// # Errors
/// Longer.
pub fn bounded(field: &str, text: &str, limit: usize) -> Result<(), Refusal> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge { field: field.into(), got: text.len() as u64, limit: limit as u64 })
}

/// The text of an object, at most `limit` bytes.
///
/// # Errors
/// Longer.
pub fn object_text(field: &str, object: &Object, limit: usize) -> Result<String, Refusal> {
    let text = serde_json::to_string(object).map_err(|e| invalid(field, e.to_string()))?;
    bounded(field, &text, limit)?;
    Ok(text)
}

/// Reads a JSON value of a certain type from the command line.
///
/// # Errors
/// Not JSON, or not of that type.
pub fn json_argument<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("not the JSON that is expected here: {e}"))
}

/// Where the next page of tasks begins: after this one.
#[must_use]
pub fn task_cursor(submitted_at: Unix, id: &TaskId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("t{}:{id}", submitted_at.0))
}

/// Reads what [`task_cursor`] wrote.
///
/// # Errors
/// Anything else.
pub fn read_task_cursor(cursor: &str) -> Result<(Unix, TaskId), Refusal> {
    let bad = || invalid("cursor", CURSOR_PROBLEM);
    let text = read_cursor(cursor)?;
    let (at, id) = text.strip_prefix('t').and_then(|t| t.split_once(':')).ok_or_else(bad)?;
    Ok((Unix(at.parse().map_err(|_| bad())?), TaskId::new(id).map_err(|_| bad())?))
}

/// Where the next page of peers begins.
#[must_use]
pub fn peer_cursor(offset: u32) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("p{offset}"))
}

/// Reads what [`peer_cursor`] wrote.
///
/// # Errors
/// Anything else.
pub fn read_peer_cursor(cursor: &str) -> Result<u32, Refusal> {
    let text = read_cursor(cursor)?;
    let offset = text.strip_prefix('p').and_then(|t| t.parse().ok());
    offset.ok_or_else(|| invalid("cursor", CURSOR_PROBLEM))
}

const CURSOR_PROBLEM: &str = "must be the next_cursor of an earlier page of the same list";

fn read_cursor(cursor: &str) -> Result<String, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid("cursor", CURSOR_PROBLEM))?;
    String::from_utf8(bytes).map_err(|_| invalid("cursor", CURSOR_PROBLEM))
}

/// The CIDv1 of raw bytes with this BLAKE3 hash, in lower-case base32.
#[must_use]
pub fn cid(hash: BlobHash) -> String {
    // CID version 1, codec raw, multihash blake3, 32 bytes (multicodec table).
    base32(&[&[0x01, 0x55, 0x1e, 0x20][..], &hash.0[..]].concat())
}

/// Bytes in base32, lower case, with the `b` that multibase puts before it.
pub(crate) fn base32(bytes: &[u8]) -> String {
    let mut text = String::from("b");
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(BASE32[(bits >> held) as usize & 31].into());
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(BASE32[(bits << (5 - held)) as usize & 31].into());
    }
    text
}

/// Reads what [`cid`] wrote, or the hash in hexadecimal.
///
/// # Errors
/// Anything else.
pub fn read_hash(field: &str, text: &str) -> Result<BlobHash, Refusal> {
    let hash = match text.len() {
        64 => text.parse().ok(),
        CID_CHARS => hash_of_cid(text),
        _ => None,
    };
    let problem =
        "must be a content id such as the output_cid of task_result, or a BLAKE3 hash of 64 hexadecimal digits";
    hash.ok_or_else(|| invalid(field, problem))
}

/// The prefix and 36 bytes, five bits a character.
const CID_CHARS: usize = 1 + (36 * 8_usize).div_ceil(5);

fn hash_of_cid(text: &str) -> Option<BlobHash> {
    let mut bytes = Vec::with_capacity(36);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for character in text.strip_prefix('b')?.bytes() {
        let value = BASE32.iter().position(|c| *c == character)?;
        bits = (bits << 5) | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    let hash = bytes.strip_prefix(&[0x01, 0x55, 0x1e, 0x20])?;
    // Bits beyond the last byte must be zero, or two texts would be one hash.
    (bits == 0).then(|| hash.try_into().ok().map(BlobHash))?
}

/// RFC 4648, lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bytes as text: as they are if they are UTF-8, else in base64. A cut may have
/// gone through a character: up to three bytes at the end are then left out,
/// and the number of bytes that are shown is less than given.
#[must_use]
pub fn shown(mut bytes: Vec<u8>, cut: Cut) -> Shown {
    if cut == Cut::Yes
        && let Err(e) = std::str::from_utf8(&bytes)
        && e.error_len().is_none()
    {
        bytes.truncate(e.valid_up_to());
    }
    let len = bytes.len();
    match String::from_utf8(bytes) {
        Ok(text) => Shown { text, encoding: "utf-8", bytes: len },
        Err(e) => Shown { text: BASE64_STANDARD.encode(e.as_bytes()), encoding: "base64", bytes: len },
    }
}

/// Whether bytes go on after those at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// They do.
    Yes,
    /// They don't.
    No,
}

/// Bytes as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The text.
    pub text: String,
    /// `utf-8` or `base64`.
    pub encoding: &'static str,
    /// The bytes that it stands for.
    pub bytes: usize,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(time(Unix(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Unix(1_900_000_000_123)), "2030-03-17T17:46:40.123Z");
        assert_eq!(time(Unix(u64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(read_time("t", "2030-03-17T18:46:40.123+01:00"), Ok(Unix(1_900_000_000_123)));
        assert!(read_time("t", "tomorrow").is_err());
        assert!(read_time("t", "1969-12-31T23:59:59Z").is_err());
    }

    #[test]
    fn a_content_id_is_that_of_other_tools() {
        // The BLAKE3 hash of nothing is af1349b9…; its CID by another base32.
        let nothing = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi";
        assert_eq!(cid(BlobHash::of(b"")), nothing);
        assert_eq!(read_hash("hash", nothing), Ok(BlobHash::of(b"")));
    }

    #[test]
    fn bytes_are_shown_as_text_where_they_are_text() {
        assert_eq!(shown("grün".into(), Cut::No), Shown { text: "grün".into(), encoding: "utf-8", bytes: 5 });
        let cut = shown(b"gr\xc3".to_vec(), Cut::Yes);
        assert_eq!(cut, Shown { text: "gr".into(), encoding: "utf-8", bytes: 2 });
        let binary = shown(b"gr\xff\x00".to_vec(), Cut::Yes);
        assert_eq!(binary, Shown { text: "Z3L/AA==".into(), encoding: "base64", bytes: 4 });
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        assert!(read_task_cursor(&peer_cursor(3)).is_err());
        assert!(read_peer_cursor(&task_cursor(Unix(1), &TaskId::new("a").unwrap())).is_err());
        assert!(read_task_cursor("%%%").is_err());
        assert!(read_task_cursor("").is_err());
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back(at in 0_u64..u64::MAX, id in "[a-z:/]{1,40}", offset in 0_u32..u32::MAX) {
            let id = TaskId::new(&id).unwrap();
            prop_assert_eq!(read_task_cursor(&task_cursor(Unix(at), &id)), Ok((Unix(at), id)));
            prop_assert_eq!(read_peer_cursor(&peer_cursor(offset)), Ok(offset));
        }

        #[test]
        fn a_time_comes_back(ms in 0_u64..LAST_MS as u64) {
            prop_assert_eq!(read_time("t", &time(Unix(ms))), Ok(Unix(ms)));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,60}") {
            let _ = (read_time("t", &text), read_task_cursor(&text), read_peer_cursor(&text), peer(&text));
            prop_assert!(read_hash("hash", &text).is_err());
        }

        #[test]
        fn a_content_id_comes_back(content in "[a-z]{0,9}", more in "[a-z2-7]{58}") {
            let hash = BlobHash::of(content.as_bytes());
            prop_assert_eq!(read_hash("hash", &cid(hash)), Ok(hash));
            prop_assert_eq!(read_hash("hash", &hash.to_string()), Ok(hash));
            let foreign = format!("b{more}");
            prop_assert!(read_hash("hash", &foreign).is_err());
        }
    }
}
