//! The memory that what clients send may take, of all of them together.
//!
//! What is small costs nothing: there is a bound on how many of those there can
//! be. JSON takes far more once it is read than it has bytes (`[0]` has three
//! and takes some hundred), so it is weighed before.

use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Up to this nothing is counted.
pub(super) const SMALL_BYTES: usize = 64 * 1024;

/// A sum of memory. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    kib: Arc<Semaphore>,
    total: usize,
}

/// Memory taken out of a budget, until this is dropped.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

/// Why there is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Others hold it.
    Now,
    /// It is more than there is.
    Ever,
}

impl Budget {
    /// One of so many bytes.
    pub(super) fn new(bytes: usize) -> Budget {
        let total = (bytes / 1024).min(Semaphore::MAX_PERMITS);
        Budget { kib: Arc::new(Semaphore::new(total)), total }
    }

    /// Nothing yet.
    pub(super) fn memory(&self) -> Memory {
        Memory { budget: self.clone(), held: None }
    }

    /// Whether nothing is held.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_whole(&self) -> bool {
        self.kib.available_permits() == self.total
    }
}

impl Memory {
    /// Takes as much as makes it at least `bytes` in all.
    ///
    /// # Errors
    /// It can't be had; what is held stays.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(1024);
        if bytes <= SMALL_BYTES || wanted <= held {
            return Ok(());
        }
        if wanted > self.budget.total {
            return Err(Full::Ever);
        }
        let more = u32::try_from(wanted - held).map_err(|_| Full::Ever)?;
        let more = self.budget.kib.clone().try_acquire_many_owned(more).map_err(|_| Full::Now)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        Ok(())
    }
}

/// Bytes that a JSON text and what is read from it take, about: never much
/// less. Text that is no JSON has a weight too.
pub(super) fn weight(json: &[u8]) -> usize {
    let (mut weight, mut quoted, mut escaped) = (json.len(), false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => weight += ELEMENT,
            b'[' if !quoted => weight += LIST,
            b'{' if !quoted => weight += OBJECT,
            _ => {}
        }
    }
    weight
}

const VALUE: usize = size_of::<Value>();
/// One more of a list, which grows by doubling, or of an object: its name, its
/// place in the order, and its hash.
const ELEMENT: usize = 2 * VALUE;
/// A list begins with room for four.
const LIST: usize = 4 * VALUE;
/// So does an object, with names and hashes.
const OBJECT: usize = 8 * VALUE;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_shared_and_comes_back() {
        let budget = Budget::new(300 * 1024);
        let (mut one, mut two) = (budget.memory(), budget.memory());
        assert_eq!(one.grow(SMALL_BYTES), Ok(()));
        assert!(budget.is_whole(), "what is small costs nothing");
        assert_eq!((one.grow(100 * 1024), one.grow(200 * 1024)), (Ok(()), Ok(())));
        assert_eq!(two.grow(101 * 1024), Err(Full::Now));
        assert_eq!((two.grow(100 * 1024), one.grow(150 * 1024)), (Ok(()), Ok(())));
        assert_eq!((two.grow(301 * 1024), two.grow(usize::MAX)), (Err(Full::Ever), Err(Full::Ever)));
        drop(one);
        assert_eq!(two.grow(300 * 1024), Ok(()));
        drop(two);
        assert!(budget.is_whole());
    }

    /// What a value takes, seen from outside: less than is allocated.
    fn taken(value: &Value) -> usize {
        let inside = match value {
            Value::Array(list) => {
                list.iter().map(taken).sum::<usize>() + (list.capacity() - list.len()) * size_of::<Value>()
            }
            Value::Object(map) => map.iter().map(|(name, value)| size_of::<String>() + name.len() + taken(value)).sum(),
            Value::String(text) => text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        };
        size_of::<Value>() + inside
    }

    #[test]
    fn nothing_weighs_less_than_it_takes() {
        let many = |item: Value| Value::Array(vec![item; 10_000]);
        let members: serde_json::Map<String, Value> = (0..10_000).map(|n| (n.to_string(), json!(n))).collect();
        let all = [
            many(json!(0)),
            many(json!([])),
            many(json!([0])),
            many(json!({})),
            many(json!({"": 0})),
            many(json!("")),
            many(json!({"a": [1, {"b": [[]]}], "c": "dddddddddddddddddddddddddd"})),
            members.into(),
            json!("\"[[[[,,,,\\\"{{{{\\"),
        ];
        for value in all {
            let text = value.to_string();
            let read: Value = serde_json::from_str(&text).expect("JSON");
            assert!(weight(text.as_bytes()) + VALUE >= taken(&read), "{}…", &text[..text.len().min(30)]);
        }
    }

    #[test]
    fn what_stands_in_a_text_has_no_weight_of_its_own() {
        for text in [r#""[[[[{{{{,,,,""#, r#""\"[\\\",{""#] {
            assert_eq!(weight(text.as_bytes()), text.len());
        }
        assert_eq!(weight(br#""\\",1"#), 6 + ELEMENT);
    }
}
