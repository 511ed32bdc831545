//! Values that callers keep under names of their own, on the shelves of the
//! result cache: kept by the same nodes, and bounded, evicted, counted and
//! invalidated as results are. A hint as these are: a value may go at any time.

use super::ASKED;
use crate::cache::{CacheKey, Cached, Finding, Gone, Source, Which};
use crate::command::{Command, Query, Refusal, Request};
use crate::ids::TaskId;
use crate::limits;
use crate::node::Node;
use crate::origin::Origin;
use crate::requests::Plan;
use crate::task::{Data, Report};
use crate::time::{Millis, Unix};
use crate::view::Reply;
use std::sync::Arc;

/// What values have as the type of the task that left them.
const VALUE: &str = "value";

impl CacheKey {
    /// No task's result is found by it.
    fn of_value(name: &str) -> CacheKey {
        CacheKey(blake3::derive_key("taskmesh 2026-11 value key 1", name.as_bytes()))
    }
}

impl Node {
    /// Keeps a value, or drops it where there is no `content`. It is kept by the
    /// first of its homes that answers, which copies it to the others.
    pub(crate) fn on_keep_value(
        &mut self,
        origin: Origin,
        name: Arc<str>,
        content: Option<Arc<[u8]>>,
        ttl: Option<Millis>,
    ) {
        let key = CacheKey::of_value(&name);
        let asked_by_node = matches!(origin, Origin::Node { .. });
        let request = Request::Command(Command::KeepValue { name, content: content.clone(), ttl });
        let Some(content) = content else {
            let own = self.drop_shelved(&Which::Key(key));
            if asked_by_node {
                return self.answer(origin, Ok(own));
            }
            return self.gather(origin, Plan::Invalidated, request, vec![own]);
        };
        if content.len() > limits::INLINE_BYTES {
            let problem = format!("has {} bytes; the limit is {}", content.len(), limits::INLINE_BYTES).into();
            return self.answer(origin, Err(Refusal::Invalid { field: "value".into(), problem }));
        }
        if !asked_by_node {
            let mut homes = self.shelves_of(&key);
            homes.truncate(ASKED);
            return self.ask(origin, request, homes, None);
        }
        let kept = self.shelve_value(key, content, ttl);
        self.answer(origin, kept);
    }

    fn shelve_value(&mut self, key: CacheKey, content: Arc<[u8]>, ttl: Option<Millis>) -> Result<Reply, Refusal> {
        let wall = self.wall();
        let most = self.reuse.shelf.bounds().ttl;
        // Copies are replaced by what is newer, whatever this node's clock says.
        let after = self.reuse.shelf.peek(&key).map_or(Unix(0), |before| Unix(before.created.0.saturating_add(1)));
        let task = TaskId::new(&format!("{VALUE}-{:016x}", self.chance.next())).expect("letters and digits");
        let entry = Cached {
            key,
            task_type: VALUE.into(),
            tags: Vec::new(),
            source: Source { task, attempt: 0 },
            report: Report { result: Data::Inline(content), ..Report::default() },
            created: wall.max(after),
            expires: wall + ttl.unwrap_or(most).min(most),
        };
        if !self.reuse.shelf.takes(&entry) || entry.expires <= wall {
            let needs = "settings that let this node keep it (cache.*), and a time to live above 0";
            let name = "the value".into();
            return Err(Refusal::State { name, status: "not kept".into(), needs: needs.into() });
        }
        let expires = entry.expires;
        self.keep_result(entry);
        self.reuse.told.remove(&key);
        self.spread(&key);
        Ok(Reply::ValueKept { expires })
    }

    /// What is kept under a name, as its home says.
    pub(crate) fn on_query_value(&mut self, origin: Origin, name: Arc<str>) {
        let key = CacheKey::of_value(&name);
        if !matches!(origin, Origin::Node { .. }) {
            let mut homes = self.shelves_of(&key);
            homes.truncate(ASKED);
            return self.ask(origin, Request::Query(Query::Value { name }), homes, None);
        }
        let wall = self.wall();
        let finding = match self.reuse.shelf.find(&key, wall) {
            Some(entry) => Finding::Hit { entry: Box::new((*entry).clone()), from: self.id },
            None => Finding::Run,
        };
        self.note_finding(&finding);
        self.answer(origin, Ok(Reply::Found(finding)));
    }

    /// Drops what this node keeps, and says how much that was.
    pub(super) fn drop_shelved(&mut self, which: &Which) -> Reply {
        let gone = self.reuse.shelf.take_those(which);
        let copies = gone.len() as u64;
        // As many results as there are homes for them: each counts its own.
        let entries = gone.iter().filter(|entry| self.shelves_of(&entry.key)[0] == self.id).count() as u64;
        if let Which::Key(key) = which {
            self.reuse.flights.remove(key);
        }
        self.drop_results(gone.into_iter().map(|entry| (entry, Gone::Invalidated)).collect());
        Reply::Invalidated { entries, copies, silent: Vec::new() }
    }
}
