//! Results for later tasks, drawn at random within the limits.

use super::super::check::{COUNT, COUNTER};
use super::{Any, node, nodes, report, scope, short, task};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use taskmesh_core::cache::{
    CacheKey, CacheStats, Cached, CachedFrom, Caching, Finding, Gone, Mode, NodeCache, Scope, Source, Which,
};
use taskmesh_core::{Command, Message, Millis, Reply, Unix, limits};

pub(super) fn about_results() -> Any<Message> {
    prop_oneof![
        cached().prop_map(|entry| Message::Left(Box::new(entry))),
        cached().prop_map(|entry| Message::Copy(Box::new(entry))),
        (key(), task()).prop_map(|(key, task)| Message::Landed { key, task }),
    ]
    .boxed()
}

pub(super) fn command() -> Any<Command> {
    let which = prop_oneof![
        key().prop_map(Which::Key),
        task().prop_map(Which::Task),
        short().prop_map(Which::Type),
        short().prop_map(Which::Tag),
    ];
    prop_oneof![
        (key(), task(), of(task()), any::<bool>()).prop_map(|(key, task, after, joins)| Command::LookUp {
            key,
            task,
            after,
            joins
        }),
        (short(), of(vec(any::<u8>(), 0..40)), of(0..=COUNT)).prop_map(|(name, content, ttl)| Command::KeepValue {
            name,
            content: content.map(Into::into),
            ttl: ttl.map(Millis)
        }),
        (which, scope()).prop_map(|(which, scope)| Command::Invalidate { which, scope }),
    ]
    .boxed()
}

pub(super) fn reply() -> Any<Reply> {
    let finding = prop_oneof![
        (cached(), node()).prop_map(|(entry, from)| Finding::Hit { entry: Box::new(entry), from }),
        task().prop_map(Finding::Follow),
        Just(Finding::Run),
    ];
    prop_oneof![
        finding.prop_map(Reply::Found),
        (0..=COUNT).prop_map(|at| Reply::ValueKept { expires: Unix(at) }),
        (0..=COUNT, 0..=COUNT, nodes(0..4)).prop_map(|(entries, copies, silent)| Reply::Invalidated {
            entries,
            copies,
            silent
        }),
        (btree_map(node(), own(), 0..4), nodes(0..4))
            .prop_map(|(nodes, silent)| Reply::Cache(CacheStats { nodes, silent })),
    ]
    .boxed()
}

fn own() -> Any<NodeCache> {
    let gone = btree_map(prop::sample::select(&Gone::ALL[..]), 0..=COUNT, 0..5);
    ([0..=COUNT, 0..=COUNT, 0..=COUNT, 0..=COUNT, 0..=COUNT, 0..=COUNT], gone)
        .prop_map(|([entries, bytes, flights, hits, misses, joined], gone)| NodeCache {
            entries,
            bytes,
            flights,
            hits,
            misses,
            joined,
            gone,
        })
        .boxed()
}

pub(super) fn caching() -> Any<Caching> {
    (prop::sample::select(vec![Mode::Read, Mode::Write, Mode::ReadWrite]), of(any::<[u8; 32]>()))
        .prop_map(|(mode, scope)| Caching { mode, scope: scope.map(Scope) })
        .boxed()
}

pub(super) fn source() -> Any<Source> {
    (task(), 0..=COUNTER).prop_map(|(task, attempt)| Source { task, attempt }).boxed()
}

pub(super) fn origin() -> Any<CachedFrom> {
    (source(), key()).prop_map(|(source, key)| CachedFrom { source, key }).boxed()
}

fn key() -> Any<CacheKey> {
    any::<[u8; 32]>().prop_map(CacheKey).boxed()
}

fn cached() -> Any<Cached> {
    (key(), short(), vec(short(), 0..=limits::TAGS), source(), report(), [0..=COUNT, 0..=COUNT])
        .prop_map(|(key, task_type, tags, source, report, [created, expires])| Cached {
            key,
            task_type,
            tags,
            source,
            report,
            created: Unix(created),
            expires: Unix(expires),
        })
        .boxed()
}
