//! The names of resources: `mesh://tasks/{id}`, `mesh://queue`,
//! `mesh://workers`, `mesh://peers`, `mesh://submissions/{id}` and
//! `mesh://blobs/{hash}{?offset,length}`.

use crate::ops::failure::invalid;
use crate::ops::value;
use std::fmt;
use taskmesh_core::{BlobHash, Refusal, TaskId};

/// The most of a blob in one read: in base64 it fits the largest answer.
pub(super) const BLOB_BYTES: u64 = 4 * 1024 * 1024;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uri {
    /// One task: its state, and what it left.
    Task(TaskId),
    /// Counts of the queue.
    Queue,
    /// Every worker.
    Workers,
    /// Every peer.
    Peers,
    /// What was submitted as one task, workflow or schedule.
    Submission(TaskId),
    /// Content, or a part of it.
    Blob { hash: BlobHash, offset: u64, length: Option<u64> },
}

const TASKS: &str = "mesh://tasks/";
const SUBMISSIONS: &str = "mesh://submissions/";
const BLOBS: &str = "mesh://blobs/";
/// No URI of these is longer: an id of 256 bytes, each written as three.
const URI_BYTES: usize = 1_024;

impl Uri {
    /// The whole of a blob.
    pub(super) fn blob(hash: BlobHash) -> Uri {
        Uri::Blob { hash, offset: 0, length: None }
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// No resource has such a name; `NotFound` says which names there are.
    pub(super) fn parse(text: &str) -> Result<Uri, Refusal> {
        match text {
            "mesh://queue" => return Ok(Uri::Queue),
            "mesh://workers" => return Ok(Uri::Workers),
            "mesh://peers" => return Ok(Uri::Peers),
            _ => {}
        }
        if text.len() > URI_BYTES {
            return Err(Refusal::TooLarge { field: "uri".into(), got: text.len() as u64, limit: URI_BYTES as u64 });
        }
        if let Some(id) = text.strip_prefix(TASKS) {
            return read_id(id).map(Uri::Task);
        }
        if let Some(id) = text.strip_prefix(SUBMISSIONS) {
            return read_id(id).map(Uri::Submission);
        }
        if let Some(blob) = text.strip_prefix(BLOBS) {
            return read_blob(blob);
        }
        Err(Refusal::NotFound { what: "resource".into(), name: text.into() })
    }
}

fn read_id(text: &str) -> Result<TaskId, Refusal> {
    let id = decoded(text).ok_or_else(|| invalid("uri", "an id in a URI is UTF-8 with % before two hex digits"))?;
    value::task("uri", &id)
}

fn read_blob(text: &str) -> Result<Uri, Refusal> {
    let (hash, query) = text.split_once('?').unwrap_or((text, ""));
    let hash = value::read_hash("uri", hash)?;
    let (mut offset, mut length) = (0, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let bad = || invalid("uri", format!("after ? only offset=<bytes> and length=<1 to {BLOB_BYTES}> are known"));
        let (name, number) = pair.split_once('=').ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        match name {
            "offset" => offset = number,
            "length" if (1..=BLOB_BYTES).contains(&number) => length = Some(number),
            _ => return Err(bad()),
        }
    }
    Ok(Uri::Blob { hash, offset, length })
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uri::Task(id) => write!(f, "{TASKS}{}", encoded(id.as_str())),
            Uri::Queue => f.write_str("mesh://queue"),
            Uri::Workers => f.write_str("mesh://workers"),
            Uri::Peers => f.write_str("mesh://peers"),
            Uri::Submission(id) => write!(f, "{SUBMISSIONS}{}", encoded(id.as_str())),
            Uri::Blob { hash, offset: 0, length: None } => write!(f, "{BLOBS}{}", value::cid(*hash)),
            Uri::Blob { hash, offset, length: None } => write!(f, "{BLOBS}{}?offset={offset}", value::cid(*hash)),
            Uri::Blob { hash, offset, length: Some(length) } => {
                write!(f, "{BLOBS}{}?offset={offset}&length={length}", value::cid(*hash))
            }
        }
    }
}

/// The name of what a task, workflow or schedule was submitted as.
pub(in crate::api) fn submission(id: &str) -> String {
    format!("{SUBMISSIONS}{}", encoded(id))
}

/// The name of a task.
pub(in crate::api) fn task(id: &str) -> String {
    format!("{TASKS}{}", encoded(id))
}

/// As RFC 6570 writes a value in a path: everything but unreserved characters
/// goes as `%` and two hexadecimal digits.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads that; what is not encoded stays as it is, so that `id/0` may be
/// written plainly.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> String {
        Uri::parse(text).map_or_else(|e| format!("refused: {e}"), |uri| uri.to_string())
    }

    #[test]
    fn every_resource_has_one_name_and_is_found_by_others() {
        for same in ["mesh://queue", "mesh://workers", "mesh://peers", "mesh://tasks/a-1", "mesh://tasks/a%2F0"] {
            assert_eq!(parsed(same), same);
        }
        assert_eq!(parsed("mesh://tasks/a/0"), "mesh://tasks/a%2F0");
        assert_eq!(parsed("mesh://submissions/a/0"), "mesh://submissions/a%2F0");
        assert_eq!(parsed("mesh://tasks/gr%C3%BCn"), "mesh://tasks/gr%C3%BCn");
        let hash = BlobHash::of(b"content");
        let name = Uri::blob(hash).to_string();
        assert_eq!(parsed(&format!("mesh://blobs/{hash}")), name);
        assert_eq!(parsed(&format!("{name}?offset=5&length=7")), format!("{name}?offset=5&length=7"));
    }

    #[test]
    fn what_is_no_resource_is_refused_with_what_would_be_right() {
        for (bad, says) in [
            ("mesh://nothing", "not known"),
            ("file:///etc/passwd", "not known"),
            ("", "not known"),
            ("mesh://tasks/", "uri"),
            ("mesh://tasks/a%2", "hex digits"),
            ("mesh://tasks/a%20b", "uri"),
            ("mesh://tasks/%FF", "UTF-8"),
            ("mesh://blobs/abc", "output_cid"),
            (&format!("{}?length=0", Uri::blob(BlobHash::of(b""))), "length=<1"),
            (&format!("{}?size=1", Uri::blob(BlobHash::of(b""))), "offset=<bytes>"),
            (&format!("mesh://tasks/{}", "%41".repeat(400)), "limit is 1024"),
        ] {
            let answer = parsed(bad);
            assert!(answer.starts_with("refused: ") && answer.contains(says), "{bad}: {answer}");
        }
    }

    proptest! {
        #[test]
        fn a_task_is_found_by_the_name_that_is_written(id in "[^\\s\\p{C}]{1,60}") {
            let id = TaskId::new(&id).expect("printable");
            let name = Uri::Task(id.clone()).to_string();
            prop_assert_eq!(Uri::parse(&name), Ok(Uri::Task(id)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}", kind in 0..3_usize) {
            let head = [TASKS, BLOBS, ""][kind];
            let uri = format!("{head}{text}");
            let _ = Uri::parse(&uri);
        }
    }
}
