//! What came with results for later tasks and with traces, frozen as
//! [`v1`](super::v1) is: what a task does with results and the trace that it
//! belongs to (version 4 of a spec), from where it has its own result (version 2
//! of a record), and the results themselves.
//!
//! A spec or a record that has nothing to do with them is written in the version
//! before, so that a store without any stays one that an older program reads.

use super::Flaw;
use super::v1::{self, bounded, shared};
use super::v3;
use bincode::{BorrowDecode, Encode};
use std::sync::Arc;
use taskmesh_core::cache::{CacheKey, Cached as CoreCached, Caching as CoreCaching, Mode, Scope, Source as CoreSource};
use taskmesh_core::{Ballot, Record, Spec as CoreSpec, TaskState, Unix, limits};

/// Version 4 of a spec.
#[derive(Encode, BorrowDecode)]
pub(super) struct Spec<'a> {
    first: v3::Spec<'a>,
    cache: Option<Caching>,
    trace: Option<&'a str>,
}

#[derive(Encode, BorrowDecode)]
struct Caching {
    /// 1: read, 2: write, 3: both.
    mode: u8,
    scope: Option<[u8; 32]>,
}

impl From<CoreCaching> for Caching {
    fn from(caching: CoreCaching) -> Caching {
        let mode = match caching.mode {
            Mode::Read => 1,
            Mode::Write => 2,
            Mode::ReadWrite => 3,
        };
        Caching { mode, scope: caching.scope.map(|scope| scope.0) }
    }
}

impl TryFrom<Caching> for CoreCaching {
    type Error = Flaw;

    fn try_from(caching: Caching) -> Result<CoreCaching, Flaw> {
        let mode = match caching.mode {
            1 => Mode::Read,
            2 => Mode::Write,
            3 => Mode::ReadWrite,
            other => return Err(Flaw::Damaged(format!("{other} is no use of results"))),
        };
        Ok(CoreCaching { mode, scope: caching.scope.map(Scope) })
    }
}

impl<'a> From<&'a CoreSpec> for Spec<'a> {
    fn from(spec: &'a CoreSpec) -> Spec<'a> {
        Spec { first: v3::Spec::from(spec), cache: spec.cache.map(Caching::from), trace: spec.trace.as_deref() }
    }
}

impl TryFrom<Spec<'_>> for CoreSpec {
    type Error = Flaw;

    fn try_from(spec: Spec<'_>) -> Result<CoreSpec, Flaw> {
        bounded("trace", spec.trace.map_or(0, str::len), limits::TEXT_BYTES)?;
        let cache = spec.cache.map(CoreCaching::try_from).transpose()?;
        let trace = spec.trace.map(Arc::from);
        Ok(CoreSpec { cache, trace, ..spec.first.try_into()? })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Source<'a> {
    task: &'a str,
    attempt: u32,
}

impl<'a> From<&'a CoreSource> for Source<'a> {
    fn from(source: &'a CoreSource) -> Source<'a> {
        Source { task: source.task.as_str(), attempt: source.attempt }
    }
}

impl TryFrom<Source<'_>> for CoreSource {
    type Error = Flaw;

    fn try_from(source: Source<'_>) -> Result<CoreSource, Flaw> {
        Ok(CoreSource { task: v1::task_id(source.task)?, attempt: source.attempt })
    }
}

/// Version 2 of a record.
#[derive(Encode, BorrowDecode)]
pub(super) struct Slot<'a> {
    first: v1::Slot<'a>,
    cached_from: Source<'a>,
}

impl<'a> Slot<'a> {
    pub(super) fn new(first: v1::Slot<'a>, cached_from: Source<'a>) -> Slot<'a> {
        Slot { first, cached_from }
    }
}

impl<'a> From<(Ballot, &'a Record, &'a CoreSource)> for Slot<'a> {
    fn from((pledge, record, source): (Ballot, &'a Record, &'a CoreSource)) -> Slot<'a> {
        Slot { first: v1::Slot::from((pledge, record)), cached_from: source.into() }
    }
}

impl TryFrom<Slot<'_>> for (Ballot, Record) {
    type Error = Flaw;

    fn try_from(slot: Slot<'_>) -> Result<(Ballot, Record), Flaw> {
        let (pledge, mut record): (Ballot, Record) = slot.first.try_into()?;
        let TaskState::Done(closed) = &mut record.body.state else {
            return Err(Flaw::Damaged("it has a result and has not ended".to_owned()));
        };
        Arc::make_mut(closed).cached_from = Some(slot.cached_from.try_into()?);
        Ok((pledge, record))
    }
}

/// Version 1 of a result.
#[derive(Encode, BorrowDecode)]
pub(super) struct Cached<'a> {
    key: [u8; 32],
    task_type: &'a str,
    tags: Vec<&'a str>,
    source: Source<'a>,
    report: v1::Report<'a>,
    created: u64,
    expires: u64,
}

impl<'a> From<&'a CoreCached> for Cached<'a> {
    fn from(entry: &'a CoreCached) -> Cached<'a> {
        Cached {
            key: entry.key.0,
            task_type: &entry.task_type,
            tags: entry.tags.iter().map(|tag| &**tag).collect(),
            source: (&entry.source).into(),
            report: (&entry.report).into(),
            created: entry.created.0,
            expires: entry.expires.0,
        }
    }
}

impl TryFrom<Cached<'_>> for CoreCached {
    type Error = Flaw;

    fn try_from(entry: Cached<'_>) -> Result<CoreCached, Flaw> {
        bounded("tags", entry.tags.len(), limits::TAGS)?;
        Ok(CoreCached {
            key: CacheKey(entry.key),
            task_type: entry.task_type.into(),
            tags: shared(entry.tags),
            source: entry.source.try_into()?,
            report: entry.report.try_into()?,
            created: Unix(entry.created),
            expires: Unix(entry.expires),
        })
    }
}
