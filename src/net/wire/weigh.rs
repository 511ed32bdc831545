//! Protobuf read just far enough to split a frame, and to see what a message
//! would take in memory before it is given any: an empty submessage has two
//! bytes on the wire and up to a thousand once it is read, so that a message
//! within the limit could otherwise ask for gigabytes.

use super::WireError;
use super::check::Checked;

/// What the elements of one message may take. The worst honest one, a long
/// list of tasks with short names, stays below.
const BUDGET: usize = 32 * 1024 * 1024;
/// Below this nothing can weigh too much; the hot messages are, and pay nothing.
const LIGHT: usize = 16 * 1024;
/// What a `String` or a `Vec` takes beside its content.
const HEADER: usize = 24;

/// A message type, as `build.rs` wrote it down.
pub(super) struct Shape {
    /// Bytes of memory of an empty one.
    weight: usize,
    /// Those of its fields that repeat or hold a message.
    fields: &'static [Field],
}

struct Field {
    number: u64,
    repeats: bool,
    /// Index in [`SHAPES`] of the message it holds; `None`: text or numbers.
    inside: Option<usize>,
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Refuses a message that would take too much memory.
pub(super) fn weigh(message: &[u8]) -> Checked<()> {
    if message.len() <= LIGHT {
        return Ok(());
    }
    examine(message)
}

/// The same, however short it is.
pub(super) fn examine(message: &[u8]) -> Checked<()> {
    let mut budget = BUDGET;
    spend(&SHAPES[MESSAGE], message, &mut budget)
}

/// Takes from `budget` what the elements inside `bytes` need. The schema has
/// no message within itself, which bounds the depth.
fn spend(shape: &Shape, bytes: &[u8], budget: &mut usize) -> Checked<()> {
    let mut fields = Fields(bytes);
    while let Some(Seen { number, content }) = fields.next()? {
        let Some(field) = shape.fields.iter().find(|f| f.number == number) else { continue };
        let inside = field.inside.map(|n| &SHAPES[n]);
        if field.repeats {
            let weight = inside.map_or(HEADER, |shape| shape.weight);
            *budget = budget.checked_sub(weight).ok_or(WireError::Heavy { limit: BUDGET })?;
        }
        if let (Some(shape), Some(content)) = (inside, content) {
            spend(shape, content, budget)?;
        }
    }
    Ok(())
}

/// Calls `each` with the bytes of each message of a frame.
pub(super) fn split(frame: &[u8], mut each: impl FnMut(&[u8]) -> Checked<()>) -> Checked<()> {
    let mut fields = Fields(frame);
    while let Some(seen) = fields.next()? {
        if let Seen { number: MESSAGES, content: Some(message) } = seen {
            each(message)?;
        }
    }
    Ok(())
}

/// Number of `Frame.messages`.
pub(super) const MESSAGES: u64 = 1;

/// One field.
struct Seen<'a> {
    number: u64,
    /// What it holds, if it is of a kind that has a length.
    content: Option<&'a [u8]>,
}

/// The fields of one message that are left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Checked<Option<Seen<'a>>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let content = match key & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| malformed("length"))?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            // Groups (3, 4) are not used in this protocol's proto3.
            _ => return Err(malformed("wire type")),
        };
        Ok(Some(Seen { number: key >> 3, content }))
    }

    fn take(&mut self, length: usize) -> Checked<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("end"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Checked<u64> {
        let mut value = 0;
        for (n, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * n);
            if *byte < 0x80 {
                self.0 = &self.0[n + 1..];
                return Ok(value);
            }
        }
        Err(malformed("varint"))
    }
}

fn malformed(what: &str) -> WireError {
    WireError::Malformed { problem: format!("invalid {what}") }
}

/// What an empty message at `path` from the root weighs.
#[cfg(test)]
pub(super) fn weight(path: &[u64]) -> usize {
    let step = |place: usize, number: &u64| {
        let field = SHAPES[place].fields.iter().find(|f| f.number == *number).expect("a field of the schema");
        field.inside.expect("a field that holds a message")
    };
    SHAPES[path.iter().fold(MESSAGE, step)].weight
}

/// The number of the first field.
#[cfg(test)]
pub(super) fn first_field(bytes: &[u8]) -> u64 {
    Fields(bytes).next().ok().flatten().expect("a field").number
}
