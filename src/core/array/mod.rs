//! What a large array is: many tasks of one kind in one record, whose payload is
//! a text of lines. The first one, the [`Heading`], says what they have in
//! common; each of the others is what one item lays over the shared payload.
//!
//! An item that waits is its line and nothing else. It is born as a task
//! (`<array>/<index>`) when its turn has come, as a step of a workflow is: see
//! `lead`. So an array of any length has a bounded number of tasks that have not
//! ended, and what has begun is told by the records of its items alone.

mod lead;
mod questions;
mod views;

pub(crate) use lead::Array;

use crate::limits;
use crate::task::Spec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The epoch that is shown of an item that has no record.
pub(crate) const UNBORN: u32 = 0;

/// The type of the record of an array.
pub const ARRAY: &str = "array";

/// What the items of an array have in common, beside what their array's own
/// [`Spec`] says: the first line of its payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heading {
    /// The type of each item's task.
    pub task_type: String,
    /// The payload that each item is laid over.
    #[serde(default)]
    pub payload: Map<String, Value>,
    /// The indexes of the lines, where these are not 0, 1, 2, …: ranges of a
    /// first index and a length above 0, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<(u32, u32)>,
    /// Items that have begun and not ended, at most; `None`: what suits the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

/// The payload of an array, with where its lines are. Items are counted by
/// their place in it, which is not their index where some are left out.
#[derive(Clone, Debug)]
pub struct Items {
    heading: Heading,
    text: Arc<[u8]>,
    /// Where the line of each item begins.
    starts: Vec<u32>,
    /// Items before each range of `only`.
    before: Vec<u32>,
}

/// The payload of the array with these items: a JSON object each, without line
/// breaks, as any compact writer makes them.
#[must_use]
pub fn text_of<'a>(heading: &Heading, items: impl Iterator<Item = &'a str>) -> String {
    let mut text = serde_json::to_string(heading).expect("a heading is plain data");
    for item in items {
        text.push('\n');
        text.push_str(item);
    }
    text
}

impl Items {
    /// Finds the lines of an array's payload.
    ///
    /// # Errors
    /// What is wrong with it, beside single items.
    pub fn read(text: &Arc<[u8]>) -> Result<Items, String> {
        if text.len() > limits::ARRAY_BYTES {
            return Err(format!("have {} bytes; the limit is {}", text.len(), limits::ARRAY_BYTES));
        }
        let breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts: Vec<u32> = breaks.map(|(at, _)| u32::try_from(at + 1).expect("a few MiB")).collect();
        let first = starts.first().map_or(text.len(), |start| *start as usize - 1);
        let heading: Heading = serde_json::from_slice(&text[..first]).map_err(|e| e.to_string())?;
        if starts.is_empty() || starts.len() > limits::ARRAY_ITEMS {
            return Err(format!("must be 1 to {}, and are {}", limits::ARRAY_ITEMS, starts.len()));
        }
        if heading.task_type.is_empty() || heading.task_type.len() > limits::TEXT_BYTES {
            return Err(format!("have a type, of 1 to {} bytes", limits::TEXT_BYTES));
        }
        if heading.at_once == Some(0) {
            return Err("can't begin: at_once is 0".to_owned());
        }
        let before = count_before(&heading.only, starts.len())?;
        Ok(Items { heading, text: text.clone(), starts, before })
    }

    /// What they have in common.
    #[must_use]
    pub fn heading(&self) -> &Heading {
        &self.heading
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// There are none, which no array can be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The index of the item at `place`, by which its task is named.
    #[must_use]
    pub fn index(&self, place: usize) -> u32 {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let range = self.before.partition_point(|before| *before <= place);
        match range.checked_sub(1) {
            Some(range) => self.heading.only[range].0 + (place - self.before[range]),
            None => place,
        }
    }

    /// The place of the first item whose index is at least `index`.
    #[must_use]
    pub fn place_from(&self, index: u32) -> usize {
        if self.heading.only.is_empty() {
            return index as usize;
        }
        let range = self.heading.only.partition_point(|(first, len)| first + len <= index);
        match self.heading.only.get(range) {
            Some((first, _)) => self.before[range] as usize + index.saturating_sub(*first) as usize,
            None => self.len(),
        }
    }

    /// The place of the item with this name. One spelling for each: `07` is none.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let index = index_of(name)?;
        let place = self.place_from(index);
        (place < self.len() && self.index(place) == index).then_some(place)
    }

    /// What the item at `place` lays over the shared payload.
    #[must_use]
    pub fn line(&self, place: usize) -> &[u8] {
        let end = self.starts.get(place + 1).map_or(self.text.len(), |next| *next as usize - 1);
        self.starts.get(place).map_or(&[], |start| &self.text[*start as usize..end])
    }

    /// The payload of the item at `place`.
    ///
    /// # Errors
    /// Its line is no JSON object, or makes the payload larger than one may be.
    pub fn payload(&self, place: usize) -> Result<Arc<[u8]>, String> {
        let own: Map<String, Value> =
            serde_json::from_slice(self.line(place)).map_err(|e| format!("the item can't be read: {e}"))?;
        let mut payload = self.heading.payload.clone();
        payload.extend(own);
        let payload = serde_json::to_vec(&payload).expect("an object is plain data");
        if payload.len() > limits::PAYLOAD_BYTES {
            let limit = limits::PAYLOAD_BYTES;
            return Err(format!("the item's payload has {} bytes; the limit is {limit}", payload.len()));
        }
        Ok(payload.into())
    }
}

/// Items before each range, where the ranges are in order and hold as many
/// items as there are.
fn count_before(only: &[(u32, u32)], items: usize) -> Result<Vec<u32>, String> {
    let (mut before, mut count, mut next) = (Vec::new(), 0_u32, 0_u32);
    for (first, len) in only {
        let end = first.checked_add(*len).filter(|end| *end as usize <= limits::ARRAY_ITEMS);
        let Some(end) = end.filter(|_| *len > 0 && *first >= next) else {
            return Err("have indexes that are out of order or over the limit".to_owned());
        };
        before.push(count);
        (count, next) = (count + len, end);
    }
    if !only.is_empty() && count as usize != items {
        return Err(format!("are {items}, and their indexes {count}"));
    }
    Ok(before)
}

/// The number that is spelled as an item's name is.
fn index_of(name: &str) -> Option<u32> {
    let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    name.parse().ok().filter(|index| plain && (*index as usize) < limits::ARRAY_ITEMS)
}

impl Spec {
    /// It is the record of an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        *self.task_type == *ARRAY
    }

    /// It is the record of a workflow or an array: its program is its owner, who
    /// makes tasks of it.
    #[must_use]
    pub fn bears_tasks(&self) -> bool {
        self.is_workflow() || self.is_array()
    }

    /// Whether a task is a part of it that has this name after its own. What
    /// tries an item of an array again is none.
    pub(crate) fn bears(&self, name: &str) -> bool {
        self.is_workflow() || self.is_array() && index_of(name).is_some()
    }

    /// The most bytes of its payload.
    #[must_use]
    pub fn payload_limit(&self) -> usize {
        payload_limit(&self.task_type)
    }
}

/// The most bytes of the payload of a record of this type.
#[must_use]
pub fn payload_limit(task_type: &str) -> usize {
    if task_type == ARRAY { limits::ARRAY_BYTES } else { limits::PAYLOAD_BYTES }
}

#[cfg(test)]
mod tests;
