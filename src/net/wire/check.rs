//! The bounds of what comes from other nodes: each check names the field that
//! broke it.

use super::WireError;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::task::Priority;
use taskmesh_core::{BlobHash, NodeId, TaskId, WorkerId, limits};

pub(super) type Checked<T> = Result<T, WireError>;

/// Counters that the core adds one to: far from where that overflows, and
/// farther than any mesh counts.
pub(super) const COUNTER: u32 = 1 << 30;
/// Counts that the core sums over nodes, or adds one to; also what a JSON
/// number holds exactly.
pub(super) const COUNT: u64 = 1 << 53;

/// A submessage that every sender writes.
pub(super) fn need<T>(field: &'static str, value: Option<T>) -> Checked<T> {
    value.ok_or(WireError::Missing { field })
}

/// A number up to `limit`.
pub(super) fn at_most<N: Copy + Into<u64>>(field: &'static str, value: N, limit: N) -> Checked<N> {
    if value.into() > limit.into() {
        return Err(WireError::Limit { field, got: value.into(), limit: limit.into() });
    }
    Ok(value)
}

/// A counter.
pub(super) fn counter(field: &'static str, value: u32) -> Checked<u32> {
    at_most(field, value, COUNTER)
}

/// A count.
pub(super) fn count(field: &'static str, value: u64) -> Checked<u64> {
    at_most(field, value, COUNT)
}

/// A length up to `limit`.
pub(super) fn length(field: &'static str, got: usize, limit: usize) -> Checked<()> {
    at_most(field, got as u64, limit as u64).map(|_| ())
}

/// Text up to `limit` bytes.
pub(super) fn text(field: &'static str, value: &str, limit: usize) -> Checked<Arc<str>> {
    length(field, value.len(), limit)?;
    Ok(value.into())
}

/// The same, where there may be none.
pub(super) fn text_or_none(field: &'static str, value: Option<&str>, limit: usize) -> Checked<Option<Arc<str>>> {
    value.map(|value| text(field, value, limit)).transpose()
}

/// Bytes up to `limit`.
pub(super) fn bytes(field: &'static str, value: &[u8], limit: usize) -> Checked<Arc<[u8]>> {
    length(field, value.len(), limit)?;
    Ok(value.into())
}

/// The same, where there may be none.
pub(super) fn bytes_or_none(field: &'static str, value: Option<&[u8]>, limit: usize) -> Checked<Option<Arc<[u8]>>> {
    value.map(|value| bytes(field, value, limit)).transpose()
}

/// A node's id.
pub(super) fn node(field: &'static str, value: &[u8]) -> Checked<NodeId> {
    value.try_into().map(NodeId).map_err(|_| WireError::Range { field, problem: "is not 32 bytes long" })
}

/// A blob's name.
pub(super) fn hash(field: &'static str, value: &[u8]) -> Checked<BlobHash> {
    value.try_into().map(BlobHash).map_err(|_| WireError::Range { field, problem: "is not 32 bytes long" })
}

/// A task's id.
pub(super) fn task(field: &'static str, value: &str) -> Checked<TaskId> {
    TaskId::new(value).map_err(|problem| WireError::Name { field, problem })
}

/// The same, where there may be none.
pub(super) fn task_or_none(field: &'static str, value: Option<&str>) -> Checked<Option<TaskId>> {
    value.map(|value| task(field, value)).transpose()
}

/// A worker's id.
pub(super) fn worker(field: &'static str, value: &str) -> Checked<WorkerId> {
    WorkerId::new(value).map_err(|problem| WireError::Name { field, problem })
}

/// The same, where there may be none.
pub(super) fn worker_or_none(field: &'static str, value: Option<&str>) -> Checked<Option<WorkerId>> {
    value.map(|value| worker(field, value)).transpose()
}

/// A priority.
pub(super) fn priority(field: &'static str, value: f64) -> Checked<Priority> {
    Priority::new(value).ok_or(WireError::Range { field, problem: "is not a finite number above 0" })
}

/// A measurement.
pub(super) fn measured(field: &'static str, value: Option<f64>) -> Checked<Option<f64>> {
    match value {
        Some(value) if !value.is_finite() || value < 0.0 => {
            Err(WireError::Range { field, problem: "is not a finite number from 0 on" })
        }
        Some(_) | None => Ok(value),
    }
}

/// A part of a hundred.
pub(super) fn percent(field: &'static str, value: Option<u32>) -> Checked<Option<u8>> {
    let narrow = |value| at_most(field, value, 100).map(|value| value as u8);
    value.map(narrow).transpose()
}

/// At most `limit` elements, each checked.
pub(super) fn list<P, T>(
    field: &'static str,
    values: &[P],
    limit: usize,
    each: impl FnMut(&P) -> Checked<T>,
) -> Checked<Vec<T>> {
    length(field, values.len(), limit)?;
    values.iter().map(each).collect()
}

/// At most `limit` short texts.
pub(super) fn texts(field: &'static str, values: &[String], limit: usize) -> Checked<Vec<Arc<str>>> {
    list(field, values, limit, |value| text(field, value, limits::TEXT_BYTES))
}

/// At most `limit` different nodes.
pub(super) fn nodes(field: &'static str, values: &[Vec<u8>], limit: usize) -> Checked<Vec<NodeId>> {
    let nodes = list(field, values, limit, |value| node(field, value))?;
    let mut sorted = nodes.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(WireError::Range { field, problem: "names a node twice" });
    }
    Ok(nodes)
}

/// At most `limits::ATTRIBUTES` entries with short names.
pub(super) fn attributes<P, T>(
    field: &'static str,
    values: &BTreeMap<String, P>,
    each: impl Fn(&P) -> Checked<T>,
) -> Checked<BTreeMap<Arc<str>, T>> {
    length(field, values.len(), limits::ATTRIBUTES)?;
    values.iter().map(|(name, value)| Ok((text(field, name, limits::TEXT_BYTES)?, each(value)?))).collect()
}

/// Conversions between a core enum and a proto enum whose variants have the
/// same names: `$to` gives the number, `$from` reads it.
macro_rules! same_names {
    ($core:ident, $to:ident, $from:ident, $field:literal, $($name:ident),+ $(,)?) => {
        pub(super) fn $to(value: $core) -> i32 {
            match value {
                $($core::$name => proto::$core::$name.into(),)+
            }
        }

        pub(super) fn $from(value: i32) -> check::Checked<$core> {
            match proto::$core::try_from(value) {
                $(Ok(proto::$core::$name) => Ok($core::$name),)+
                Ok(proto::$core::Unspecified) | Err(_) => Err(WireError::Unknown { what: $field }),
            }
        }
    };
}
pub(super) use same_names;
