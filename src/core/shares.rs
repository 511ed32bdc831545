//! Fair sharing of workers among the values of `fairness_key`, by weight:
//! start-time fair queueing (Goyal, Vin, Cheng: "Start-time fair queueing: a
//! scheduling algorithm for integrated services packet switching networks",
//! SIGCOMM 1996), with the time in a slot as the length of a packet.
//!
//! The share with the least start tag is served. As nobody knows how long a run
//! will take, a grant is charged what runs took lately, and what it really took
//! when it ends. Tasks without a key are one share.

use crate::ids::TaskId;
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Those who share: a value of `fairness_key`, or all tasks without one.
pub(crate) type Share = Option<Arc<str>>;

/// Who has had how much.
pub(crate) struct Shares {
    /// In thousandths; 1,000 for those that are not named.
    weights: BTreeMap<Arc<str>, u64>,
    /// The start tag of what was granted last.
    virtual_now: u64,
    accounts: BTreeMap<Share, Account>,
    /// Accounts of those that want and have nothing, by their tags.
    idle: BTreeSet<(u64, Share)>,
    charges: BTreeMap<TaskId, Charge>,
    /// What a run takes, smoothed.
    expected: u64,
}

/// One share's.
#[derive(Default)]
struct Account {
    /// Start tag of its next task: slot time by weight, in virtual microseconds.
    tag: u64,
    /// Lanes in which it has ready tasks, and how many.
    lanes: BTreeMap<u64, u64>,
    charged: u64,
}

/// What a granted task was charged with.
struct Charge {
    share: Share,
    at: Millis,
    cost: u64,
}

/// What the first run is taken to take.
const FIRST_GUESS_MS: u64 = 1_000;
/// Accounts of idle shares that are remembered; the least of them is forgotten,
/// which gives that share at most one run's advantage.
const REMEMBERED: usize = 10_000;

impl Shares {
    pub(crate) fn new(weights: &BTreeMap<Arc<str>, u64>) -> Shares {
        Shares {
            weights: weights.clone(),
            virtual_now: 0,
            accounts: BTreeMap::new(),
            idle: BTreeSet::new(),
            charges: BTreeMap::new(),
            expected: FIRST_GUESS_MS,
        }
    }

    /// The start tag of a share that has ready tasks.
    pub(crate) fn tag(&self, share: &Share) -> u64 {
        self.accounts.get(share).map_or(self.virtual_now, |a| a.tag)
    }

    /// The lanes in which it has ready tasks.
    pub(crate) fn lanes(&self, share: &Share) -> Vec<u64> {
        self.accounts.get(share).map_or(Vec::new(), |a| a.lanes.keys().copied().collect())
    }

    /// A task became ready. Who was away starts with the others: what it did
    /// not use is not saved up.
    pub(crate) fn came(&mut self, share: &Share, lane: u64) {
        let now = self.virtual_now;
        let account = self.open(share);
        if account.lanes.is_empty() {
            account.tag = account.tag.max(now);
        }
        *account.lanes.entry(lane).or_default() += 1;
    }

    /// A ready task left its lane.
    pub(crate) fn went(&mut self, share: &Share, lane: u64) {
        let Some(account) = self.accounts.get_mut(share) else { return };
        if let Some(count) = account.lanes.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                account.lanes.remove(&lane);
            }
        }
        self.rest(share);
    }

    /// A task was granted.
    pub(crate) fn charge(&mut self, share: Share, task: TaskId, now: Millis) {
        let cost = self.expected;
        let more = self.virtual_time(&share, cost);
        let account = self.open(&share);
        let start = account.tag;
        account.tag = start.saturating_add(more);
        account.charged += 1;
        self.virtual_now = self.virtual_now.max(start);
        self.charges.insert(task, Charge { share, at: now, cost });
        while self.idle.first().is_some_and(|(tag, _)| *tag <= self.virtual_now) {
            let Some((_, share)) = self.idle.pop_first() else { break };
            self.accounts.remove(&share);
        }
    }

    /// A granted task is back: the charge becomes what it took. Gives its share.
    pub(crate) fn settle(&mut self, task: &TaskId, now: Millis) -> Option<Share> {
        let Charge { share, at, cost } = self.charges.remove(task)?;
        let took = now.since(at).0;
        let (less, more) = (self.virtual_time(&share, cost), self.virtual_time(&share, took));
        if let Some(account) = self.accounts.get_mut(&share) {
            account.tag = account.tag.saturating_add(more).saturating_sub(less);
            account.charged = account.charged.saturating_sub(1);
        }
        self.expected = (self.expected * 7 + took).div_ceil(8).max(1);
        self.rest(&share);
        Some(share)
    }

    fn virtual_time(&self, share: &Share, cost: u64) -> u64 {
        let weight = share.as_ref().and_then(|key| self.weights.get(key)).copied().unwrap_or(1_000);
        cost.saturating_mul(1_000_000) / weight.max(1)
    }

    fn open(&mut self, share: &Share) -> &mut Account {
        if let Some(account) = self.accounts.get(share)
            && account.lanes.is_empty()
            && account.charged == 0
        {
            self.idle.remove(&(account.tag, share.clone()));
        }
        let tag = self.virtual_now;
        self.accounts.entry(share.clone()).or_insert_with(|| Account { tag, ..Account::default() })
    }

    /// Who wants and has nothing is remembered for as long as it is ahead.
    fn rest(&mut self, share: &Share) {
        let Some(account) = self.accounts.get(share) else { return };
        if !account.lanes.is_empty() || account.charged > 0 {
            return;
        }
        if account.tag <= self.virtual_now {
            self.accounts.remove(share);
            return;
        }
        self.idle.insert((account.tag, share.clone()));
        if self.idle.len() > REMEMBERED
            && let Some((_, least)) = self.idle.pop_first()
        {
            self.accounts.remove(&least);
        }
    }
}
