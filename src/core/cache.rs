//! Results of earlier tasks: what they are found by, and the bounded store of
//! one node with its order of eviction. Who asks whom is in `reuse`.

use crate::ids::{NoHash, NodeId, TaskId};
use crate::placement::Placement;
use crate::task::{Report, Requirements, Spec};
use crate::time::{Millis, Unix};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a result is found by: the hash of all that decides it. Any difference
/// in the task's type, in a byte of its payload, in what a worker must have or
/// in who may look at it makes another key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(pub [u8; 32]);

impl CacheKey {
    /// The key of the work of `spec`. Programs are named by their payload, which
    /// has their environment too; where they may run is in the requirements, of
    /// which only preferences are left out.
    fn of(spec: &Spec, scope: Option<&Scope>) -> CacheKey {
        let declared =
            Requirements { placement: Placement::default(), affinity_key: None, ..spec.requirements.clone() };
        let declared = serde_json::to_vec(&declared).expect("requirements are plain data");
        let scope = scope.map_or(&[][..], |scope| &scope.0);
        let mut hash = blake3::Hasher::new_derive_key(CONTEXT);
        for part in [spec.task_type.as_bytes(), &spec.payload, &declared, scope] {
            hash.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        CacheKey(*hash.finalize().as_bytes())
    }

    /// Spread bits, for rendezvous hashing.
    pub(crate) fn place(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("8 of 32"))
    }
}

/// What the hash is for, so that it is no other hash of the same bytes.
const CONTEXT: &str = "taskmesh 2026-11 result cache key 1";

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for CacheKey {
    type Err = NoHash;
    fn from_str(text: &str) -> Result<CacheKey, NoHash> {
        text.parse::<crate::BlobHash>().map(|hash| CacheKey(hash.0))
    }
}

/// Who may look at a result, where that is not everybody who may submit such
/// work: the hash of a token's limits, which are then the writer's and the
/// reader's alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub [u8; 32]);

impl Scope {
    /// The hash of limits, each as text.
    pub(crate) fn of<'a>(limits: impl IntoIterator<Item = &'a str>) -> Scope {
        let mut hash = blake3::Hasher::new();
        for limit in limits {
            hash.update(&(limit.len() as u64).to_be_bytes()).update(limit.as_bytes());
        }
        Scope(*hash.finalize().as_bytes())
    }
}

/// What a task does with results of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Takes one where there is one.
    Read,
    /// Runs, and leaves its own.
    Write,
    /// Both; and of several at once one runs for all.
    ReadWrite,
}

/// The same, as it stands in a [`Spec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caching {
    /// What it does.
    pub mode: Mode,
    /// Whom the results are for; set by the node that takes the task.
    pub scope: Option<Scope>,
}

impl Spec {
    /// What its result is found by, if it reads or writes results.
    #[must_use]
    pub fn cache_key(&self) -> Option<CacheKey> {
        self.caching().map(|caching| CacheKey::of(self, caching.scope.as_ref()))
    }

    /// Of an array it is said for its items.
    fn caching(&self) -> Option<Caching> {
        self.cache.filter(|_| !self.is_array())
    }

    pub(crate) fn reads_cache(&self) -> bool {
        self.caching().is_some_and(|caching| caching.mode != Mode::Write)
    }

    pub(crate) fn writes_cache(&self) -> bool {
        self.caching().is_some_and(|caching| caching.mode != Mode::Read)
    }

    /// Others wait for it instead of running the same.
    pub(crate) fn runs_for_others(&self) -> bool {
        self.caching().is_some_and(|caching| caching.mode == Mode::ReadWrite)
    }
}

/// Which run left a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: u32,
}

/// A result that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// What it is found by.
    pub key: CacheKey,
    /// The type of the task that left it.
    pub task_type: Arc<str>,
    /// The tags of that task.
    pub tags: Vec<Arc<str>>,
    /// The run that left it.
    pub source: Source,
    /// What that left.
    pub report: Report,
    /// When it ended.
    pub created: Unix,
    /// Not used from then on; set by the first node that keeps it.
    pub expires: Unix,
}

impl Cached {
    /// What it counts for against [`Bounds::bytes`]: its content, whether it is
    /// in the entry or in blobs, and about what its names take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let report = &self.report;
        let data: u64 = [Some(&report.result), report.output.as_ref(), report.logs.as_ref()]
            .into_iter()
            .flatten()
            .map(crate::task::Data::len)
            .fold(0, u64::saturating_add);
        let tags: usize = self.tags.iter().map(|tag| tag.len()).sum();
        data.saturating_add((tags + self.task_type.len() + self.source.task.as_str().len() + OVERHEAD) as u64)
    }
}

/// Of an entry without content: measured as nothing, and never nothing.
const OVERHEAD: usize = 256;

/// Which entry goes first where there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The one that was not used for longest.
    #[default]
    Lru,
    /// The one that was used least often; of several, the one not used for longest.
    Lfu,
    /// The one that came first.
    Fifo,
    /// The one that ends first.
    Ttl,
}

impl Policy {
    /// Every one.
    pub const ALL: [Policy; 4] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Ttl];

    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::Lru => "lru",
            Policy::Lfu => "lfu",
            Policy::Fifo => "fifo",
            Policy::Ttl => "ttl",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// How much a node keeps of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Results at most; 0: none.
    pub entries: usize,
    /// Bytes of them, blobs included.
    pub bytes: u64,
    /// How long each is used.
    pub ttl: Millis,
    /// Which goes first.
    pub policy: Policy,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { entries: 10_000, bytes: 256 * 1024 * 1024, ttl: Millis(24 * 3_600_000), policy: Policy::Lru }
    }
}

/// Why an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// There were too many.
    Entries,
    /// They were too large together.
    Bytes,
    /// Its time was over.
    Expired,
    /// Somebody said so.
    Invalidated,
    /// Other nodes keep it by now.
    Moved,
}

impl Gone {
    /// Every one.
    pub const ALL: [Gone; 5] = [Gone::Entries, Gone::Bytes, Gone::Expired, Gone::Invalidated, Gone::Moved];

    /// A fixed word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Gone::Entries => "entries",
            Gone::Bytes => "bytes",
            Gone::Expired => "expired",
            Gone::Invalidated => "invalidated",
            Gone::Moved => "moved",
        }
    }
}

/// Which results are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this key.
    Key(CacheKey),
    /// The one that this task left.
    Task(TaskId),
    /// Those of tasks of this type.
    Type(Arc<str>),
    /// Those of tasks with this tag.
    Tag(Arc<str>),
}

impl Which {
    fn means(&self, entry: &Cached) -> bool {
        match self {
            Which::Key(key) => entry.key == *key,
            Which::Task(task) => entry.source.task == *task,
            Which::Type(task_type) => entry.task_type == *task_type,
            Which::Tag(tag) => entry.tags.contains(tag),
        }
    }
}

/// Where a result came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFrom {
    /// The run that left it.
    pub source: Source,
    /// What it was found by.
    pub key: CacheKey,
}

/// What the home of a key says to a task that asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Take this.
    Hit {
        /// The result.
        entry: Box<Cached>,
        /// Who keeps its blobs.
        from: NodeId,
    },
    /// This task does the same already: wait for it.
    Follow(TaskId),
    /// There is none: run.
    Run,
}

impl Finding {
    /// A fixed word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Finding::Hit { .. } => "hit",
            Finding::Follow(_) => "joined",
            Finding::Run => "miss",
        }
    }
}

/// What nodes keep of results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Each node that answered.
    pub nodes: BTreeMap<NodeId, NodeCache>,
    /// Members that did not.
    pub silent: Vec<NodeId>,
}

/// What one node keeps of results, and what became of them since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCache {
    /// Results.
    pub entries: u64,
    /// Their bytes, blobs included.
    pub bytes: u64,
    /// Tasks that are known to run for others too.
    pub flights: u64,
    /// Tasks that were told a result.
    pub hits: u64,
    /// Tasks that were told to run.
    pub misses: u64,
    /// Tasks that were told to wait for another.
    pub joined: u64,
    /// Results that went, by why.
    pub gone: BTreeMap<Gone, u64>,
}

/// The results that one node keeps.
pub(crate) struct Shelf {
    bounds: Bounds,
    entries: BTreeMap<CacheKey, Kept>,
    /// The first goes first.
    order: BTreeSet<Place>,
    ends: BTreeSet<(Unix, CacheKey)>,
    bytes: u64,
    /// Counts arrivals and uses: a clock that never stands still.
    count: u64,
}

struct Kept {
    entry: Arc<Cached>,
    bytes: u64,
    arrived: u64,
    uses: u64,
    used: u64,
}

type Place = (u64, u64, CacheKey);

impl Kept {
    fn place(&self, policy: Policy) -> Place {
        let key = self.entry.key;
        match policy {
            Policy::Lru => (self.used, self.arrived, key),
            Policy::Lfu => (self.uses, self.used, key),
            Policy::Fifo => (self.arrived, self.used, key),
            Policy::Ttl => (self.entry.expires.0, self.arrived, key),
        }
    }
}

/// An entry that went, and why.
pub(crate) type Evicted = (Arc<Cached>, Gone);

impl Shelf {
    pub(crate) fn new(bounds: Bounds) -> Shelf {
        Shelf { bounds, entries: BTreeMap::new(), order: BTreeSet::new(), ends: BTreeSet::new(), bytes: 0, count: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Whether there could ever be room for it.
    pub(crate) fn takes(&self, entry: &Cached) -> bool {
        self.bounds.entries > 0 && self.bounds.ttl > Millis(0) && entry.bytes() <= self.bounds.bytes
    }

    /// Keeps `entry`, in the place of an older one of its key, and tells what
    /// had to go for it. There must be room for it where there is nothing else.
    pub(crate) fn insert(&mut self, entry: Arc<Cached>, wall: Unix) -> Vec<Evicted> {
        debug_assert!(self.takes(&entry), "asked before");
        let before = self.remove(&entry.key);
        let bytes = entry.bytes();
        let mut evicted = self.take_expired(wall, usize::MAX);
        while self.entries.len() >= self.bounds.entries || self.bytes + bytes > self.bounds.bytes {
            let why = if self.entries.len() >= self.bounds.entries { Gone::Entries } else { Gone::Bytes };
            let (.., key) = *self.order.first().expect("what is over a bound is not empty");
            evicted.extend(self.remove(&key).map(|kept| (kept.entry, why)));
        }
        self.count += 1;
        let uses = before.map_or(0, |kept| kept.uses);
        let kept = Kept { bytes, arrived: self.count, uses, used: self.count, entry };
        self.bytes += bytes;
        self.order.insert(kept.place(self.bounds.policy));
        self.ends.insert((kept.entry.expires, kept.entry.key));
        self.entries.insert(kept.entry.key, kept);
        evicted
    }

    /// The entry of `key`, which is used by that.
    pub(crate) fn find(&mut self, key: &CacheKey, wall: Unix) -> Option<Arc<Cached>> {
        let policy = self.bounds.policy;
        let kept = self.entries.get_mut(key).filter(|kept| kept.entry.expires > wall)?;
        self.order.remove(&kept.place(policy));
        self.count += 1;
        kept.uses += 1;
        kept.used = self.count;
        self.order.insert(kept.place(policy));
        Some(kept.entry.clone())
    }

    /// The same, without using it.
    pub(crate) fn peek(&self, key: &CacheKey) -> Option<&Arc<Cached>> {
        self.entries.get(key).map(|kept| &kept.entry)
    }

    pub(crate) fn take(&mut self, key: &CacheKey) -> Option<Arc<Cached>> {
        self.remove(key).map(|kept| kept.entry)
    }

    /// Takes out what is over at `wall`, so many at most.
    pub(crate) fn take_expired(&mut self, wall: Unix, most: usize) -> Vec<Evicted> {
        let over: Vec<_> =
            self.ends.iter().take_while(|(end, _)| *end <= wall).take(most).map(|(_, key)| *key).collect();
        over.iter().filter_map(|key| self.remove(key)).map(|kept| (kept.entry, Gone::Expired)).collect()
    }

    pub(crate) fn take_those(&mut self, which: &Which) -> Vec<Arc<Cached>> {
        let meant: Vec<_> = match which {
            Which::Key(key) => vec![*key],
            Which::Task(_) | Which::Type(_) | Which::Tag(_) => {
                self.entries.values().filter(|kept| which.means(&kept.entry)).map(|kept| kept.entry.key).collect()
            }
        };
        meant.iter().filter_map(|key| self.take(key)).collect()
    }

    /// So many keys after `last`, in their order.
    pub(crate) fn keys_after(&self, last: Option<CacheKey>, most: usize) -> Vec<CacheKey> {
        let from = last.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.entries.range((from, std::ops::Bound::Unbounded)).take(most).map(|(key, _)| *key).collect()
    }

    fn remove(&mut self, key: &CacheKey) -> Option<Kept> {
        let kept = self.entries.remove(key)?;
        self.order.remove(&kept.place(self.bounds.policy));
        self.ends.remove(&(kept.entry.expires, *key));
        self.bytes -= kept.bytes;
        Some(kept)
    }

    /// Asserts what must always hold.
    pub(crate) fn check(&self) {
        let bytes: u64 = self.entries.values().map(|kept| kept.bytes).sum();
        assert_eq!(bytes, self.bytes, "bytes of results");
        assert!(self.entries.len() <= self.bounds.entries && bytes <= self.bounds.bytes, "bounds of results");
        assert!(self.order.len() == self.entries.len() && self.ends.len() == self.entries.len(), "index of results");
    }
}

#[cfg(test)]
mod tests;
