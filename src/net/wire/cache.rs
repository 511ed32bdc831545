//! Results for later tasks on the wire.

use super::check::{self, Checked, same_names};
use super::request::{scope_from, scope_to};
use super::task::{node_to, nodes_to, owned, owned_all, report_from};
use super::{WireError, proto};
use proto::found::Finding as Found;
use proto::invalidate::Which as Meant;
use std::collections::BTreeMap;
use taskmesh_core::cache::{
    CacheKey, CacheStats, Cached, CachedFrom, Caching, Finding, Gone, Mode, NodeCache, Scope, Source, Which,
};
use taskmesh_core::{Command, Message, Millis, Query, TaskId, Unix, limits};

mod mode {
    use super::{Mode as CacheMode, WireError, check, proto, same_names};
    same_names!(CacheMode, to, from, "cache.mode", Read, Write, ReadWrite);
}

pub(super) fn caching_to(caching: Caching) -> proto::Caching {
    proto::Caching { mode: mode::to(caching.mode), scope: caching.scope.map(|scope| scope.0.to_vec()) }
}

pub(super) fn caching_from(caching: &proto::Caching) -> Checked<Caching> {
    let scope = caching.scope.as_ref().map(|scope| check::hash("cache.scope", scope)).transpose()?;
    Ok(Caching { mode: mode::from(caching.mode)?, scope: scope.map(|hash| Scope(hash.0)) })
}

pub(super) fn source_to(source: &Source) -> proto::Source {
    proto::Source { task: id(&source.task), attempt: source.attempt }
}

pub(super) fn source_from(source: &proto::Source) -> Checked<Source> {
    Ok(Source {
        task: check::task("source.task", &source.task)?,
        attempt: check::counter("source.attempt", source.attempt)?,
    })
}

pub(super) fn cached_to(entry: &Cached) -> proto::Cached {
    proto::Cached {
        key: key_to(entry.key),
        task_type: owned(&entry.task_type),
        tags: owned_all(&entry.tags),
        source: Some(source_to(&entry.source)),
        report: Some((&entry.report).into()),
        created: entry.created.0,
        expires: entry.expires.0,
    }
}

pub(super) fn cached_from(entry: Option<&proto::Cached>) -> Checked<Box<Cached>> {
    let entry = check::need("cached", entry)?;
    Ok(Box::new(Cached {
        key: key_from(&entry.key)?,
        task_type: check::text("cached.task_type", &entry.task_type, limits::TEXT_BYTES)?,
        tags: check::texts("cached.tags", &entry.tags, limits::TAGS)?,
        source: source_from(check::need("cached.source", entry.source.as_ref())?)?,
        report: report_from(check::need("cached.report", entry.report.as_ref())?)?,
        created: Unix(check::count("cached.created", entry.created)?),
        expires: Unix(check::count("cached.expires", entry.expires)?),
    }))
}

pub(super) fn landed_to(key: CacheKey, task: &TaskId) -> proto::Landed {
    proto::Landed { key: key_to(key), task: id(task) }
}

pub(super) fn landed_from(landed: &proto::Landed) -> Checked<Message> {
    Ok(Message::Landed { key: key_from(&landed.key)?, task: check::task("landed.task", &landed.task)? })
}

pub(super) fn look_up_to(key: CacheKey, task: &TaskId, after: Option<&TaskId>, joins: bool) -> proto::LookUp {
    proto::LookUp { key: key_to(key), task: id(task), after: after.map(id), joins }
}

pub(super) fn look_up_from(asked: &proto::LookUp) -> Checked<Command> {
    Ok(Command::LookUp {
        key: key_from(&asked.key)?,
        task: check::task("look_up.task", &asked.task)?,
        after: check::task_or_none("look_up.after", asked.after.as_deref())?,
        joins: asked.joins,
    })
}

pub(super) fn invalidate_to(which: &Which, scope: taskmesh_core::command::Scope) -> proto::Invalidate {
    let which = match which {
        Which::Key(key) => Meant::Key(key_to(*key)),
        Which::Task(task) => Meant::Task(id(task)),
        Which::Type(task_type) => Meant::TaskType(owned(task_type)),
        Which::Tag(tag) => Meant::Tag(owned(tag)),
    };
    proto::Invalidate { which: Some(which), scope: scope_to(scope) }
}

pub(super) fn invalidate_from(asked: &proto::Invalidate) -> Checked<Command> {
    let which = match asked.which.as_ref().ok_or(WireError::Unknown { what: "invalidate.which" })? {
        Meant::Key(key) => Which::Key(key_from(key)?),
        Meant::Task(task) => Which::Task(check::task("invalidate.task", task)?),
        Meant::TaskType(text) => Which::Type(check::text("invalidate.task_type", text, limits::TEXT_BYTES)?),
        Meant::Tag(text) => Which::Tag(check::text("invalidate.tag", text, limits::TEXT_BYTES)?),
    };
    Ok(Command::Invalidate { which, scope: scope_from(asked.scope)? })
}

pub(super) fn value_to(name: &str, content: Option<&[u8]>, ttl: Option<Millis>) -> proto::KeepValue {
    proto::KeepValue { name: name.to_owned(), content: content.map(<[u8]>::to_vec), ttl_ms: ttl.map(|ttl| ttl.0) }
}

pub(super) fn value_from(asked: &proto::KeepValue) -> Checked<Command> {
    Ok(Command::KeepValue {
        name: check::text("value.name", &asked.name, limits::TEXT_BYTES)?,
        content: check::bytes_or_none("value.content", asked.content.as_deref(), limits::INLINE_BYTES)?,
        ttl: asked.ttl_ms.map(|ttl| check::count("value.ttl", ttl)).transpose()?.map(Millis),
    })
}

pub(super) fn named_from(asked: &proto::ValueQuery) -> Checked<Query> {
    Ok(Query::Value { name: check::text("value.name", &asked.name, limits::TEXT_BYTES)? })
}

pub(super) fn query_from(query: &proto::CacheQuery) -> Checked<Query> {
    Ok(Query::Cache { scope: scope_from(query.scope)? })
}

pub(super) fn found_to(finding: &Finding) -> proto::Found {
    let finding = match finding {
        Finding::Hit { entry, from } => {
            Found::Hit(proto::found::Hit { entry: Some(cached_to(entry)), node: node_to(*from) })
        }
        Finding::Follow(task) => Found::Follow(id(task)),
        Finding::Run => Found::Run(proto::found::Run {}),
    };
    proto::Found { finding: Some(finding) }
}

pub(super) fn found_from(found: &proto::Found) -> Checked<Finding> {
    Ok(match found.finding.as_ref().ok_or(WireError::Unknown { what: "found" })? {
        Found::Hit(hit) => {
            Finding::Hit { entry: cached_from(hit.entry.as_ref())?, from: check::node("found.node", &hit.node)? }
        }
        Found::Follow(task) => Finding::Follow(check::task("found.follow", task)?),
        Found::Run(proto::found::Run {}) => Finding::Run,
    })
}

pub(super) fn stats_to(stats: &CacheStats) -> proto::CacheStats {
    let node = |(node, own): (&taskmesh_core::NodeId, &NodeCache)| proto::NodeCache {
        node: node_to(*node),
        entries: own.entries,
        bytes: own.bytes,
        flights: own.flights,
        hits: own.hits,
        misses: own.misses,
        joined: own.joined,
        gone: own.gone.iter().map(|(why, n)| (why.name().to_owned(), *n)).collect(),
    };
    proto::CacheStats { nodes: stats.nodes.iter().map(node).collect(), silent: nodes_to(&stats.silent) }
}

pub(super) fn stats_from(stats: &proto::CacheStats) -> Checked<CacheStats> {
    let nodes = check::list("cache.nodes", &stats.nodes, limits::MEMBERS, |own| {
        Ok((check::node("cache.node", &own.node)?, own_from(own)?))
    })?;
    Ok(CacheStats {
        nodes: nodes.into_iter().collect(),
        silent: check::nodes("cache.silent", &stats.silent, limits::MEMBERS)?,
    })
}

fn own_from(own: &proto::NodeCache) -> Checked<NodeCache> {
    check::length("cache.gone", own.gone.len(), limits::ATTRIBUTES)?;
    // A word that a newer node has for it is left out.
    let known = |name: &str| Gone::ALL.into_iter().find(|why| why.name() == name);
    let gone = own.gone.iter().filter_map(|(name, n)| Some((known(name)?, *n)));
    Ok(NodeCache {
        entries: check::count("cache.entries", own.entries)?,
        bytes: check::count("cache.bytes", own.bytes)?,
        flights: check::count("cache.flights", own.flights)?,
        hits: check::count("cache.hits", own.hits)?,
        misses: check::count("cache.misses", own.misses)?,
        joined: check::count("cache.joined", own.joined)?,
        gone: gone.map(|(why, n)| Ok((why, check::count("cache.gone", n)?))).collect::<Checked<BTreeMap<_, _>>>()?,
    })
}

pub(super) fn origin_to(from: &CachedFrom) -> proto::CachedFrom {
    proto::CachedFrom { source: Some(source_to(&from.source)), key: key_to(from.key) }
}

pub(super) fn origin_from(from: &proto::CachedFrom) -> Checked<CachedFrom> {
    let source = source_from(check::need("cached_from.source", from.source.as_ref())?)?;
    Ok(CachedFrom { source, key: key_from(&from.key)? })
}

fn key_to(key: CacheKey) -> Vec<u8> {
    key.0.to_vec()
}

fn key_from(key: &[u8]) -> Checked<CacheKey> {
    check::hash("cache.key", key).map(|hash| CacheKey(hash.0))
}

fn id(task: &TaskId) -> String {
    task.as_str().to_owned()
}
