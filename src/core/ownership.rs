//! Who writes a record: offers and acknowledgements, claims and pledges, the
//! replacement of holders, and forgetting. The rules are in ARCHITECTURE.md;
//! `tests/sim` plants a bug for each and sees it caught.

use crate::config::Planted;
use crate::effect::{Effect, Entry, Key, Notice};
use crate::ids::{BlobHash, NodeId, TaskId, rendezvous};
use crate::limits;
use crate::message::Message;
use crate::node::{Fetching, Node};
use crate::record::{Ballot, Birth, Record, Slot, Stamp};
use crate::task::{Closed, Spec, TaskState};
use crate::time::{Millis, Unix};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// A record on this node, with what only this run of the node knows of it.
pub(crate) struct Kept {
    pub(crate) slot: Slot,
    /// This node won the record's ballot in this run: a restarted owner claims
    /// its open records anew, so that no fence is ever used twice.
    pub(crate) claimed: bool,
    /// Newest revision of the current ballot that each other keeper has.
    acks: Vec<(NodeId, u32)>,
    /// Keepers that said that their copy is damaged.
    lost: Vec<NodeId>,
    /// Nodes that keep another task of this id, and so can't keep this one.
    strangers: Vec<NodeId>,
    /// Newest revision that a majority has.
    pub(crate) promised: Option<u32>,
    /// Revision at which the holders last changed, in this ballot.
    config_revision: u32,
    /// Revision at which the task ended, in this ballot.
    closed_revision: u32,
    /// It was, or may have been, promised to its submitter.
    pub(crate) accepted: bool,
    /// The end was told to those who wait for it.
    pub(crate) announced: bool,
    written_at: Millis,
    offered_at: Millis,
    tries: u32,
    /// Pledged to a claim that has not been heard of since.
    pledged_at: Option<Millis>,
    /// Its owner said that it lost its own copy.
    abandoned: bool,
    /// When its owner last offered it.
    offered_to_me: Millis,
    /// To be forgotten as soon as every keeper knows its end.
    pub(crate) doomed: bool,
    /// What the owner knows of the current attempt.
    pub(crate) lease: Option<Box<Lease>>,
}

/// What an owner knows of a granted attempt.
pub(crate) struct Lease {
    pub(crate) boot: u64,
    pub(crate) granted_at: Millis,
    pub(crate) sent_at: Option<Millis>,
    pub(crate) confirmed_at: Option<Millis>,
    pub(crate) started_at: Option<Unix>,
    pub(crate) started: Option<Millis>,
    pub(crate) said: Said,
}

impl Lease {
    pub(crate) fn new(boot: u64, granted_at: Millis) -> Lease {
        Lease {
            boot,
            granted_at,
            sent_at: None,
            confirmed_at: None,
            started_at: None,
            started: None,
            said: Said::default(),
        }
    }
}

/// What a run says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) percent: Option<u8>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) log_tail: Option<Arc<[u8]>>,
}

/// A claim under way.
pub(crate) struct Claim {
    ballot: Ballot,
    at: Millis,
    pledges: BTreeMap<NodeId, Option<Box<Record>>>,
}

/// When an owner's new version goes to the holders.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offering {
    /// Somebody waits for the promise.
    Now,
    /// Nobody does: it may ride with the next version.
    Lazily,
}

/// Claims under way at once: each costs a write here and on every keeper.
const CLAIMS: usize = 2_000;
/// Offers sent again in one tick.
const RESENDS: usize = 4_000;
/// Pledges without a record; more are not given.
const VOWS: usize = 100_000;

impl Kept {
    pub(crate) fn new(slot: Slot, now: Millis) -> Kept {
        Kept {
            slot,
            claimed: false,
            acks: Vec::new(),
            lost: Vec::new(),
            strangers: Vec::new(),
            promised: None,
            config_revision: 0,
            closed_revision: 0,
            accepted: true,
            announced: false,
            written_at: now,
            offered_at: now,
            tries: 0,
            pledged_at: None,
            abandoned: false,
            offered_to_me: now,
            doomed: false,
            lease: None,
        }
    }

    /// It gave way to another task of the same id before it was accepted:
    /// nobody was ever told of it, and nobody is.
    pub(crate) fn disowned(&self) -> bool {
        self.doomed && !self.accepted
    }

    /// The end of the task, once a majority has it.
    pub(crate) fn promised_end(&self) -> Option<&Arc<Closed>> {
        match &self.slot.record.body.state {
            TaskState::Done(closed) if self.has_promised(self.closed_revision) => Some(closed),
            TaskState::Done(_)
            | TaskState::Blocked
            | TaskState::Delayed { .. }
            | TaskState::Queued { .. }
            | TaskState::Leased { .. } => None,
        }
    }

    /// A majority of the current holders has `revision`.
    pub(crate) fn has_promised(&self, revision: u32) -> bool {
        self.promised.is_some_and(|r| r >= revision.max(self.config_revision))
    }

    fn acked(&self, node: NodeId) -> Option<u32> {
        self.acks.iter().find(|(n, _)| *n == node).map(|(_, r)| *r)
    }

    /// Every other keeper has the newest version.
    fn fully_acked(&self, me: NodeId) -> bool {
        let newest = self.slot.record.stamp.revision;
        self.slot.record.keepers().all(|n| n == me || self.acked(n) == Some(newest))
    }

    /// The newest revision that a majority of each holder set has.
    fn majority_revision(&self, me: NodeId) -> Option<u32> {
        let record = &self.slot.record;
        let of = |set: &[NodeId]| -> Option<u32> {
            let mut have: Vec<Option<u32>> =
                set.iter().map(|n| if *n == me { Some(record.stamp.revision) } else { self.acked(*n) }).collect();
            have.sort_unstable_by(|a, b| b.cmp(a));
            have.get(set.len() / 2).copied().flatten()
        };
        let current = of(&record.holders)?;
        if record.prior.is_empty() { Some(current) } else { Some(current.min(of(&record.prior)?)) }
    }

    fn missing_blobs(&self, have: &BTreeMap<BlobHash, u32>) -> Vec<(BlobHash, u64)> {
        missing_blobs(&self.slot.record, have)
    }
}

fn missing_blobs(record: &Record, have: &BTreeMap<BlobHash, u32>) -> Vec<(BlobHash, u64)> {
    let report = record.body.state.closed().and_then(|c| c.report.as_ref());
    report.map_or(Vec::new(), |r| r.blobs().filter(|(hash, _)| !have.contains_key(hash)).collect())
}

/// Names of tasks that ended and were forgotten. A copy from the past, on a
/// node that was away, meets them and is dropped instead of running again.
pub(crate) struct Tombstones {
    by_name: BTreeMap<u64, Unix>,
    by_age: BTreeSet<(Unix, u64)>,
}

impl Tombstones {
    pub(crate) fn new(found: Vec<(u64, Unix)>) -> Tombstones {
        Tombstones {
            by_age: found.iter().map(|(name, at)| (*at, *name)).collect(),
            by_name: found.into_iter().collect(),
        }
    }

    fn name(task: &TaskId, birth: Birth) -> u64 {
        let hash = blake3::hash(task.as_str().as_bytes());
        let word = u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32"));
        crate::prng::mix(word ^ birth.nonce ^ birth.node.hash64())
    }

    pub(crate) fn hold(&self, task: &TaskId, birth: Birth) -> bool {
        !self.by_name.is_empty() && self.by_name.contains_key(&Tombstones::name(task, birth))
    }

    fn add(&mut self, name: u64, at: Unix) -> Option<u64> {
        self.by_name.insert(name, at);
        self.by_age.insert((at, name));
        if self.by_age.len() <= limits::TOMBSTONES {
            return None;
        }
        let (_, oldest) = self.by_age.pop_first()?;
        self.by_name.remove(&oldest);
        Some(oldest)
    }

    fn remove(&mut self, name: u64) -> bool {
        let Some(at) = self.by_name.remove(&name) else { return false };
        self.by_age.remove(&(at, name))
    }
}

impl Node {
    pub(crate) fn restore(&mut self, slots: Vec<Slot>) {
        if self.config.planted == Some(Planted::ForgetAtRestart) {
            return;
        }
        for slot in slots {
            let task = slot.record.task.clone();
            let mut kept = Kept::new(slot, Millis(0));
            let record = &kept.slot.record;
            let mine = record.owner() == self.id && kept.slot.pledge == record.stamp.ballot;
            // An ended task grants nothing, so it needs no new fence.
            kept.claimed = mine && record.closed();
            kept.closed_revision = record.stamp.revision;
            kept.config_revision = record.stamp.revision;
            if kept.slot.pledge != record.stamp.ballot {
                kept.pledged_at = Some(Millis(0));
            }
            let claimed = kept.claimed;
            kept.promised = if claimed { kept.majority_revision(self.id) } else { None };
            kept.announced = kept.promised.is_some();
            self.count_blobs(kept.slot.record.clone(), 1);
            self.kept.insert(task.clone(), kept);
            if claimed {
                self.index(&task);
                self.unsettled.insert(task);
            } else if mine || self.kept[&task].slot.pledge.owner == self.id {
                self.orphans.insert(task, Millis(0));
            }
        }
    }

    /// This node may write the record.
    pub(crate) fn owns(&self, kept: &Kept) -> bool {
        let record = &kept.slot.record;
        kept.claimed && record.owner() == self.id && record.stamp.ballot == kept.slot.pledge
    }

    pub(crate) fn owned(&self, task: &TaskId) -> Option<&Kept> {
        self.kept.get(task).filter(|k| self.owns(k))
    }

    /// A new record of this node's own.
    pub(crate) fn give_birth(&mut self, record: Record, spec: Arc<Spec>) {
        let task = record.task.clone();
        self.persist(Entry::Spec(task.clone(), spec.clone()));
        self.persist(Entry::Record { pledge: record.stamp.ballot, record: Box::new(record.clone()) });
        let pledge = record.stamp.ballot;
        let mut kept = Kept::new(Slot { pledge, record, spec }, self.now);
        kept.claimed = true;
        kept.accepted = false;
        kept.promised = self.majority_revision(&kept);
        if self.vows.remove(&task).is_some() {
            self.erase(Key::Pledge(task.clone()));
        }
        self.kept.insert(task.clone(), kept);
        self.index(&task);
        self.unsettled.insert(task.clone());
        self.offer(&task);
        self.advance(&task);
    }

    fn majority_revision(&self, kept: &Kept) -> Option<u32> {
        if self.config.planted == Some(Planted::PromiseAlone) {
            return Some(kept.slot.record.stamp.revision);
        }
        kept.majority_revision(self.id)
    }

    /// Writes the next version of an owned record.
    pub(crate) fn revise(&mut self, task: &TaskId, offering: Offering, change: impl FnOnce(&mut Record)) {
        self.unindex(task);
        let now = self.now;
        let unconfirmed = self.unconfirmed_grant(task);
        let kept = self.kept.get_mut(task).expect("an owned record is kept");
        debug_assert!(kept.claimed, "only the owner revises {task}");
        let record = &mut kept.slot.record;
        let was_closed = record.closed();
        record.stamp.revision += 1;
        change(record);
        if record.closed() && !was_closed {
            kept.closed_revision = record.stamp.revision;
            kept.announced = false;
        }
        let over = kept.lease.is_some() && !matches!(record.body.state, TaskState::Leased { .. });
        if over {
            kept.lease = None;
        }
        kept.written_at = now;
        let entry = Entry::Record { pledge: kept.slot.pledge, record: Box::new(record.clone()) };
        let ended = (record.closed() && !was_closed).then(|| record.clone());
        self.persist(entry);
        if let Some((node, worker)) = unconfirmed
            && over
        {
            self.confirmed(node, &worker);
        }
        if let Some(record) = ended {
            self.count_blobs(record, 1);
        }
        self.index(task);
        self.unsettled.insert(task.clone());
        match offering {
            Offering::Now => self.offer(task),
            Offering::Lazily => {
                self.lazy.insert(task.clone());
                self.flush_soon();
            }
        }
        let promised = self.majority_revision(&self.kept[task]);
        self.kept.get_mut(task).expect("just written").promised = promised;
        self.advance(task);
    }

    /// Offers the newest version to the live keepers that do not have it.
    fn offer(&mut self, task: &TaskId) {
        self.lazy.remove(task);
        let now = self.now;
        let Some(kept) = self.kept.get_mut(task) else { return };
        kept.offered_at = now;
        let kept = &self.kept[task];
        let record = &kept.slot.record;
        let mut targets = Vec::new();
        for node in record.keepers() {
            let acked = kept.acked(node);
            if node == self.id || acked == Some(record.stamp.revision) || !self.live(node) {
                continue;
            }
            let spec = acked.is_none().then(|| kept.slot.spec.clone());
            targets.push((node, spec));
        }
        for (node, spec) in targets {
            let record = Box::new(self.kept[task].slot.record.clone());
            self.send(node, Message::Offer { record, spec });
        }
    }

    pub(crate) fn offer_lazy(&mut self) {
        for task in std::mem::take(&mut self.lazy) {
            if self.owned(&task).is_some() {
                self.offer(&task);
            }
        }
        self.report_runs();
    }

    pub(crate) fn resend_offers(&mut self) {
        if self.config.planted == Some(Planted::NeverResend) {
            return;
        }
        let mut again = Vec::new();
        let mut done = Vec::new();
        for task in &self.unsettled {
            let Some(kept) = self.owned(task) else {
                done.push(task.clone());
                continue;
            };
            let wait = self.config.retransmit.0.saturating_mul(1 << kept.tries.min(4));
            if self.now.since(kept.offered_at).0 >= wait {
                again.push(task.clone());
                if again.len() >= RESENDS {
                    break;
                }
            }
        }
        for task in done {
            self.unsettled.remove(&task);
        }
        for task in again {
            if let Some(kept) = self.kept.get_mut(&task) {
                kept.tries += 1;
            }
            self.offer(&task);
        }
    }

    /// What follows from what is promised by now.
    pub(crate) fn advance(&mut self, task: &TaskId) {
        let Some(kept) = self.owned(task) else { return };
        let newest = kept.slot.record.stamp.revision;
        let full = self.has_full_holders(kept) && !kept.doomed;
        let settled = kept.fully_acked(self.id);
        let whole = kept.promised == Some(newest);
        let ended = kept.promised_end().is_some() && !kept.announced && !kept.disowned();
        let ungranted = kept.lease.as_ref().is_some_and(|l| l.sent_at.is_none());
        if settled {
            self.unsettled.remove(task);
            self.lazy.remove(task);
        }
        if full {
            self.kept.get_mut(task).expect("owned").accepted = true;
        }
        self.check_promises(task);
        if ended {
            self.kept.get_mut(task).expect("owned").announced = true;
            self.on_ended(task);
        }
        if ungranted && whole {
            self.send_grant(task);
        }
    }

    /// The full number of holders is there, and no change of them under way.
    pub(crate) fn has_full_holders(&self, kept: &Kept) -> bool {
        let record = &kept.slot.record;
        let full = record.holders.len() >= self.holders_wanted() && record.prior.is_empty();
        (full || self.config.planted == Some(Planted::AcceptShort)) && kept.has_promised(0)
    }

    pub(crate) fn on_ack(&mut self, from: NodeId, task: &TaskId, stamp: Stamp) {
        let now = self.now;
        let Some(kept) = self.kept.get_mut(task) else { return };
        if !kept.claimed || stamp.ballot != kept.slot.record.stamp.ballot || !kept.slot.record.kept_by(from) {
            return;
        }
        match kept.acks.iter_mut().find(|(n, _)| *n == from) {
            Some((_, revision)) => *revision = stamp.revision.max(*revision),
            None => kept.acks.push((from, stamp.revision)),
        }
        kept.tries = 0;
        let (before, written_at) = (kept.promised, kept.written_at);
        let promised = self.majority_revision(&self.kept[task]);
        let kept = self.kept.get_mut(task).expect("kept above");
        kept.promised = promised;
        if promised > before && promised == Some(kept.slot.record.stamp.revision) {
            self.notice(Notice::Replicated { took: now.since(written_at) });
        }
        self.advance(task);
    }

    pub(crate) fn on_want(&mut self, from: NodeId, task: &TaskId, stamp: Stamp) {
        let Some(kept) = self.owned(task) else { return };
        if stamp.ballot != kept.slot.record.stamp.ballot || !kept.slot.record.kept_by(from) {
            return;
        }
        let message = Message::Offer { record: Box::new(kept.slot.record.clone()), spec: Some(kept.slot.spec.clone()) };
        self.send(from, message);
    }

    pub(crate) fn on_offer(&mut self, from: NodeId, record: Box<Record>, spec: Option<Arc<Spec>>) {
        let task = record.task.clone();
        let stamp = record.stamp;
        // Joining as a new holder: what this node knew before counts nowhere.
        let fresh = record.holders.contains(&self.id) && !record.prior.is_empty() && !record.prior.contains(&self.id);
        if !self.is_welcome(from, &record, fresh) {
            return;
        }
        let leaving = !record.holders.contains(&self.id) && self.claims.contains_key(&task);
        if from != record.owner() || leaving {
            return self.on_hearsay(*record, spec);
        }
        let mine = record.kept_by(self.id);
        let kept = self.kept.get(&task);
        let pledge = kept.map_or_else(|| self.vows.get(&task).map(|v| v.0), |k| Some(k.slot.pledge));
        if mine && pledge.is_some_and(|p| stamp.ballot < p) && self.config.planted != Some(Planted::PledgeDown) {
            let pledge = pledge.expect("just compared");
            self.notice(Notice::Refused { from, why: "below_pledge" });
            self.send(from, Message::Refuse { task, pledge });
            return;
        }
        if kept.is_none() && !mine {
            return;
        }
        let Some(spec) = spec.or_else(|| kept.map(|k| k.slot.spec.clone())) else {
            self.send(from, Message::Want { task, stamp });
            return;
        };
        let newer = kept.is_none_or(|k| stamp > k.slot.record.stamp);
        if newer && mine {
            let missing = missing_blobs(&record, &self.blobs);
            if !missing.is_empty() {
                self.fetch(from, &missing, || Fetching::Offer {
                    from,
                    record: record.clone(),
                    spec: Some(spec.clone()),
                });
                return;
            }
        }
        if newer {
            self.take_version(*record, spec, pledge);
        }
        if let Some(kept) = self.kept.get_mut(&task) {
            kept.offered_to_me = self.now;
            kept.tries = 0;
            if kept.slot.pledge == stamp.ballot {
                kept.pledged_at = None;
                kept.abandoned = false;
            }
        }
        self.send(from, Message::Ack { task, stamp });
    }

    /// Somebody answers a claim of this node with a version by which it is no
    /// holder: that is learnt and votes for nothing, so no pledge is in its way.
    fn on_hearsay(&mut self, record: Record, spec: Option<Arc<Spec>>) {
        let Some(kept) = self.kept.get(&record.task) else { return };
        if record.holders.contains(&self.id) || record.stamp <= kept.slot.record.stamp {
            return;
        }
        let (spec, pledge) = (spec.unwrap_or_else(|| kept.slot.spec.clone()), kept.slot.pledge);
        self.take_version(record, spec, Some(pledge));
    }

    fn is_welcome(&mut self, from: NodeId, record: &Record, fresh: bool) -> bool {
        let task = &record.task;
        if self.tombstones.hold(task, record.birth) {
            if !fresh {
                self.send(from, Message::Gone { task: task.clone(), birth: record.birth });
                return false;
            }
            let name = Tombstones::name(task, record.birth);
            self.tombstones.remove(name);
            self.erase(Key::Tombstone(name));
        }
        if self.damaged.contains(task) {
            if !fresh {
                self.send(from, Message::Lost { task: task.clone() });
                return false;
            }
            self.damaged.remove(task);
            self.notice(Notice::Repaired { task: task.clone() });
        }
        let Some(kept) = self.kept.get(task) else { return true };
        let ours = &kept.slot.record;
        if ours.birth == record.birth {
            return true;
        }
        let answer = Message::Taken {
            task: task.clone(),
            refused: record.birth,
            record: Box::new(ours.clone()),
            spec: kept.slot.spec.clone(),
        };
        self.send(from, answer);
        false
    }

    /// Keeps another node's version.
    fn take_version(&mut self, record: Record, spec: Arc<Spec>, pledge: Option<Ballot>) {
        let task = record.task.clone();
        let pledge = pledge.map_or(record.stamp.ballot, |p| p.max(record.stamp.ballot));
        self.depose(&task);
        self.claims.remove(&task);
        if self.vows.remove(&task).is_some() {
            self.erase(Key::Pledge(task.clone()));
        }
        if !self.kept.contains_key(&task) {
            self.persist(Entry::Spec(task.clone(), spec.clone()));
        }
        self.persist(Entry::Record { pledge, record: Box::new(record.clone()) });
        let was_closed = self.kept.get(&task).is_some_and(|k| k.slot.record.closed());
        if record.closed() && !was_closed {
            self.count_blobs(record.clone(), 1);
            self.drop_run_of_ended(&task);
        }
        let now = self.now;
        match self.kept.get_mut(&task) {
            Some(kept) => kept.slot = Slot { pledge, record, spec },
            None => {
                self.kept.insert(task, Kept::new(Slot { pledge, record, spec }, now));
            }
        }
    }

    /// Stops acting as the owner.
    fn depose(&mut self, task: &TaskId) {
        if self.kept.get(task).is_none_or(|k| !k.claimed) {
            return;
        }
        self.unindex(task);
        if let Some((node, worker)) = self.unconfirmed_grant(task) {
            self.confirmed(node, &worker);
        }
        let kept = self.kept.get_mut(task).expect("kept above");
        kept.claimed = false;
        kept.lease = None;
        kept.promised = None;
        kept.acks.clear();
        kept.announced = false;
        self.unsettled.remove(task);
        self.lazy.remove(task);
        self.on_deposed(task);
    }

    /// The worker that has not confirmed the current grant of `task`.
    fn unconfirmed_grant(&self, task: &TaskId) -> Option<(NodeId, crate::WorkerId)> {
        let kept = self.kept.get(task)?;
        let TaskState::Leased { executor, worker, .. } = &kept.slot.record.body.state else { return None };
        let lease = kept.lease.as_ref()?;
        lease.confirmed_at.is_none().then(|| (*executor, worker.clone()))
    }

    fn pledge(&mut self, task: &TaskId, ballot: Ballot) {
        self.depose(task);
        self.claims.remove(task);
        let now = self.now;
        let Some(kept) = self.kept.get_mut(task) else { return };
        kept.slot.pledge = ballot;
        kept.pledged_at = Some(now);
        let entry = Entry::Record { pledge: ballot, record: Box::new(kept.slot.record.clone()) };
        self.persist(entry);
    }

    pub(crate) fn on_refuse(&mut self, task: &TaskId, pledge: Ballot) {
        if self.kept.get(task).is_some_and(|k| pledge > k.slot.pledge) {
            self.pledge(task, pledge);
        }
    }

    pub(crate) fn on_claim(&mut self, from: NodeId, task: &TaskId, birth: Birth, ballot: Ballot, stamp: Stamp) {
        if ballot.owner != from {
            return;
        }
        if self.tombstones.hold(task, birth) {
            self.send(from, Message::Gone { task: task.clone(), birth });
            return;
        }
        if self.damaged.contains(task) {
            self.send(from, Message::Lost { task: task.clone() });
            return;
        }
        let Some(kept) = self.kept.get(task) else {
            if ballot.epoch == 0 {
                return;
            }
            self.pledge_blank(from, task, ballot);
            return;
        };
        let slot = &kept.slot;
        if slot.record.birth != birth {
            self.send(from, Message::Lost { task: task.clone() });
            return;
        }
        let outsider = slot.record.stamp >= stamp && !slot.record.holders.contains(&from);
        if outsider && self.config.planted != Some(Planted::ClaimUnkept) {
            let message = Message::Offer { record: Box::new(slot.record.clone()), spec: Some(slot.spec.clone()) };
            self.send(from, message);
            return;
        }
        if ballot < slot.pledge {
            let pledge = slot.pledge;
            self.send(from, Message::Refuse { task: task.clone(), pledge });
            return;
        }
        if ballot > slot.pledge {
            self.pledge(task, ballot);
        }
        let kept = Some(Box::new(self.kept[task].slot.record.clone()));
        self.send(from, Message::Pledge { task: task.clone(), ballot, kept });
    }

    /// A holder-to-be that has not seen the record yet pledges with nothing;
    /// the pledge binds it all the same.
    fn pledge_blank(&mut self, from: NodeId, task: &TaskId, ballot: Ballot) {
        match self.vows.get(task) {
            Some((vow, _)) if *vow > ballot => {
                let pledge = *vow;
                self.send(from, Message::Refuse { task: task.clone(), pledge });
                return;
            }
            Some((vow, _)) if *vow == ballot => {}
            Some(_) | None => {
                if self.vows.len() >= VOWS {
                    return;
                }
                let at = self.wall();
                self.vows.insert(task.clone(), (ballot, at));
                self.persist(Entry::Pledge { task: task.clone(), ballot, at });
            }
        }
        self.send(from, Message::Pledge { task: task.clone(), ballot, kept: None });
    }

    /// Claims the orphans whose turn it is. Leases say when to try; ballots
    /// say who wins.
    pub(crate) fn adopt(&mut self) {
        let orphans: Vec<_> = self.orphans.iter().map(|(task, since)| (task.clone(), *since)).collect();
        for (task, since) in orphans {
            if !self.kept.get(&task).is_some_and(|k| self.is_orphan(k)) {
                self.orphans.remove(&task);
                self.claims.remove(&task);
                continue;
            }
            match self.claims.get(&task).map(|c| (c.ballot, c.at)) {
                Some((ballot, at)) if self.now < at + Millis(4 * self.config.retransmit.0) => {
                    self.send_claims(&task, ballot);
                }
                Some(_) => self.claim(&task),
                None if self.claims.len() < CLAIMS && self.now >= since + self.turn(&task) => self.claim(&task),
                None => {}
            }
        }
    }

    /// How long this node leaves the claim to keepers that rank before it.
    fn turn(&self, task: &TaskId) -> Millis {
        let record = &self.kept[task].slot.record;
        if record.owner() == self.id {
            return Millis(0);
        }
        let live = record.keepers().filter(|n| *n == self.id || self.live(*n));
        let place = rendezvous(task.place_hash(), live).iter().position(|n| *n == self.id).unwrap_or(0);
        Millis(place as u64 * self.config.stagger.0)
    }

    /// Nobody acts as the owner of this record, and this node may try to.
    pub(crate) fn is_orphan(&self, kept: &Kept) -> bool {
        // One that is leaving (a prior holder only) never claims: it would own
        // what it no longer keeps once the change is done.
        if self.owns(kept) || !kept.slot.record.holders.contains(&self.id) {
            return false;
        }
        let owner = kept.slot.pledge.owner;
        if owner == self.id || !self.live(owner) || kept.abandoned {
            return true;
        }
        if kept.pledged_at.is_some_and(|at| self.now > at + self.config.lease) {
            return true;
        }
        // The owner restarted, and has not said a word of this record since.
        let restarted = self.members.get(&owner).and_then(|m| m.restarted_at);
        restarted.is_some_and(|at| kept.offered_to_me < at && self.now > at + self.config.lease + self.config.lease)
            && !kept.slot.record.closed()
    }

    fn claim(&mut self, task: &TaskId) {
        let kept = self.kept.get_mut(task).expect("an orphan is kept");
        let ballot = Ballot { epoch: kept.slot.pledge.epoch.saturating_add(1), owner: self.id };
        kept.slot.pledge = ballot;
        kept.pledged_at = Some(self.now);
        let record = Box::new(kept.slot.record.clone());
        self.persist(Entry::Record { pledge: ballot, record: record.clone() });
        let pledges = BTreeMap::from([(self.id, Some(record))]);
        self.claims.insert(task.clone(), Claim { ballot, at: self.now, pledges });
        self.send_claims(task, ballot);
        self.try_win(task);
    }

    fn send_claims(&mut self, task: &TaskId, ballot: Ballot) {
        let Some(claim) = self.claims.get(task) else { return };
        let Some(best) = claim.pledges.values().flatten().max_by_key(|r| r.stamp) else { return };
        let targets: Vec<_> =
            best.keepers().filter(|n| *n != self.id && !claim.pledges.contains_key(n) && self.live(*n)).collect();
        let record = &self.kept[task].slot.record;
        let (birth, stamp) = (record.birth, record.stamp);
        for node in targets {
            self.send(node, Message::Claim { task: task.clone(), birth, ballot, stamp });
        }
    }

    pub(crate) fn on_pledge(&mut self, from: NodeId, task: &TaskId, ballot: Ballot, kept: Option<Box<Record>>) {
        let Some(ours) = self.kept.get(task) else { return };
        if kept.as_ref().is_some_and(|r| r.task != *task || r.birth != ours.slot.record.birth) {
            return;
        }
        let Some(claim) = self.claims.get_mut(task) else { return };
        if claim.ballot != ballot {
            return;
        }
        let missing = kept.as_ref().map_or(Vec::new(), |r| missing_blobs(r, &self.blobs));
        claim.pledges.insert(from, kept);
        for (hash, bytes) in missing {
            self.out.push(Effect::Fetch { hash, bytes, from });
        }
        self.try_win(task);
    }

    fn try_win(&mut self, task: &TaskId) {
        let Some(claim) = self.claims.get(task) else { return };
        let ballot = claim.ballot;
        let Some(best) = claim.pledges.values().flatten().max_by_key(|r| r.stamp) else { return };
        let kept = &self.kept[task];
        if !best.holders.contains(&self.id) {
            // Somebody else's by now: keep what was learnt, and leave it.
            let (record, spec, pledge) = ((**best).clone(), kept.slot.spec.clone(), kept.slot.pledge);
            self.claims.remove(task);
            self.take_version(record, spec, Some(pledge));
            return;
        }
        let alone = self.config.planted == Some(Planted::ClaimAlone);
        if kept.slot.pledge != ballot || !(alone || best.majority(|n| claim.pledges.contains_key(&n))) {
            if best.keepers().any(|n| !claim.pledges.contains_key(&n)) && !alone {
                self.ask_newcomers(task, ballot);
            }
            return;
        }
        let mut record = (**best).clone();
        let from = record.owner();
        record.stamp = Stamp { ballot, revision: 0 };
        self.claims.remove(task);
        self.orphans.remove(task);
        self.become_owner(task, record);
        if from != self.id {
            self.notice(Notice::OwnerAdopted { task: task.clone(), from });
        }
    }

    /// A pledge may have named keepers that were not asked yet.
    fn ask_newcomers(&mut self, task: &TaskId, ballot: Ballot) {
        let known: Vec<_> = self.kept[task].slot.record.keepers().collect();
        let newcomers = self.claims[task]
            .pledges
            .values()
            .flatten()
            .max_by_key(|r| r.stamp)
            .is_some_and(|r| r.keepers().any(|n| !known.contains(&n)));
        if newcomers {
            self.send_claims(task, ballot);
        }
    }

    fn become_owner(&mut self, task: &TaskId, record: Record) {
        let was_closed = self.kept[task].slot.record.closed();
        if record.closed() && !was_closed {
            self.count_blobs(record.clone(), 1);
            self.drop_run_of_ended(task);
        }
        self.persist(Entry::Record { pledge: record.stamp.ballot, record: Box::new(record.clone()) });
        let now = self.now;
        let kept = self.kept.get_mut(task).expect("a claimed record is kept");
        let spec = kept.slot.spec.clone();
        *kept = Kept::new(Slot { pledge: record.stamp.ballot, record, spec }, now);
        kept.claimed = true;
        let promised = self.majority_revision(&self.kept[task]);
        self.kept.get_mut(task).expect("kept").promised = promised;
        self.resume_lease(task);
        self.index(task);
        self.unsettled.insert(task.clone());
        self.offer(task);
        self.advance(task);
    }

    /// Replaces holders that stay away, adds those that are short, in two
    /// written steps: both sets decide until the new one is settled.
    fn mend(&mut self, task: &TaskId) {
        if self.config.planted == Some(Planted::NeverMend) {
            return;
        }
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        if !kept.has_promised(kept.config_revision) || (record.closed() && kept.promised_end().is_none()) {
            return;
        }
        if !record.prior.is_empty() {
            self.change_holders(task, |record| record.prior.clear());
            return;
        }
        let wanted = if kept.disowned() { 0 } else { self.holders_wanted() };
        let lost = kept.lost.clone();
        let gone: Vec<NodeId> = record
            .holders
            .iter()
            .copied()
            .filter(|n| *n != self.id && (lost.contains(n) || self.is_away(*n)))
            .collect();
        let sound = record.holders.len() - gone.len();
        let short = wanted.saturating_sub(sound);
        if short == 0 && lost.is_empty() {
            return;
        }
        let fit = |n: &NodeId| !record.holders.contains(n) && !kept.strangers.contains(n) && !self.is_draining(*n);
        let spare = self.live_members().filter(fit);
        let spare: Vec<_> = rendezvous(task.place_hash(), spare).into_iter().take(short).collect();
        // One that is only away stays until there is another for its place.
        let mut replaced: Vec<_> = gone.iter().copied().filter(|n| lost.contains(n)).collect();
        let away = gone.iter().copied().filter(|n| !lost.contains(n));
        replaced.extend(away.take(spare.len().saturating_sub(replaced.len())));
        if spare.is_empty() && replaced.is_empty() {
            return;
        }
        let in_one_step = self.config.planted == Some(Planted::MendInOneStep);
        self.change_holders(task, |record| {
            if !in_one_step {
                record.prior = record.holders.clone();
            }
            record.holders.retain(|n| !replaced.contains(n));
            record.holders.extend(spare);
        });
        if let Some(kept) = self.kept.get_mut(task) {
            kept.lost.clear();
        }
        let holders = self.kept[task].slot.record.holders.clone();
        self.notice(Notice::HoldersChanged { task: task.clone(), holders });
    }

    fn change_holders(&mut self, task: &TaskId, change: impl FnOnce(&mut Record)) {
        if let Some(kept) = self.kept.get_mut(task) {
            kept.config_revision = kept.slot.record.stamp.revision + 1;
        }
        self.revise(task, Offering::Now, change);
        if let Some(kept) = self.kept.get_mut(task) {
            let record = &kept.slot.record;
            kept.acks.retain(|(n, _)| record.holders.contains(n) || record.prior.contains(n));
        }
    }

    pub(crate) fn on_lost(&mut self, from: NodeId, task: &TaskId) {
        let me = self.id;
        let Some(kept) = self.kept.get_mut(task) else { return };
        if kept.slot.pledge.owner == from && from != me {
            kept.abandoned = true;
            let now = self.now;
            self.orphans.entry(task.clone()).or_insert(now);
            return;
        }
        if !kept.claimed || !kept.slot.record.kept_by(from) {
            return;
        }
        kept.acks.retain(|(n, _)| *n != from);
        if !kept.lost.contains(&from) {
            kept.lost.push(from);
        }
        self.mend(task);
    }

    /// `from` keeps another task of this id: it is no help for ours.
    pub(crate) fn on_stranger(&mut self, from: NodeId, task: &TaskId) {
        let Some(kept) = self.kept.get_mut(task).filter(|k| k.claimed) else { return };
        if !kept.strangers.contains(&from) {
            kept.strangers.push(from);
        }
        self.on_lost(from, task);
        if self.kept.get(task).is_some_and(Kept::disowned) {
            self.forget(task);
        }
    }

    /// Repeats what [`Node::confess`] said, since it may not have been heard:
    /// ever more seldom, as there may be nobody left to whom it matters.
    pub(crate) fn confess_again(&mut self) {
        let wait = self.config.away.0.saturating_mul(1 << self.confessions.0.min(10));
        if self.damaged.is_empty() || self.now.since(self.confessions.1).0 < wait {
            return;
        }
        self.confessions = (self.confessions.0 + 1, self.now);
        for node in self.live_members().collect::<Vec<_>>() {
            self.confess(node);
        }
    }

    /// This node's own damaged copies, told to a peer so that it need not wait.
    pub(crate) fn confess(&mut self, to: NodeId) {
        let damaged: Vec<_> = self.damaged.iter().cloned().collect();
        for task in damaged {
            self.send(to, Message::Lost { task });
        }
    }

    pub(crate) fn on_gone(&mut self, task: &TaskId, birth: Birth) {
        let Some(kept) = self.kept.get(task).filter(|k| k.slot.record.birth == birth) else { return };
        if kept.claimed {
            let others: Vec<_> = kept.slot.record.keepers().filter(|n| *n != self.id).collect();
            for node in others {
                self.send(node, Message::Gone { task: task.clone(), birth });
            }
        }
        self.depose(task);
        self.drop_record(task);
    }

    pub(crate) fn on_forget(&mut self, from: NodeId, task: &TaskId, stamp: Stamp) {
        let Some(kept) = self.kept.get(task) else { return };
        let record = &kept.slot.record;
        if record.closed() && record.stamp == stamp && record.owner() == from && !kept.claimed {
            self.drop_record(task);
        }
    }

    /// Forgets ended tasks whose time is over, oldest first.
    pub(crate) fn forget_old(&mut self) {
        let wall = self.wall();
        let surplus = self.closed.len().saturating_sub(self.config.retained_tasks);
        let old: Vec<_> = self
            .closed
            .iter()
            .enumerate()
            .take(RESENDS)
            .take_while(|(i, (at, _))| *i < surplus || wall.since(*at) > self.config.retention)
            .map(|(_, (_, task))| task.clone())
            .collect();
        for task in old {
            self.forget(&task);
        }
        let vow_age = Millis(self.config.retention.0.max(3_600_000));
        let stale: Vec<_> = self
            .vows
            .iter()
            .filter(|(_, (_, at))| wall.since(*at) > vow_age)
            .map(|(t, _)| t.clone())
            .take(100)
            .collect();
        for task in stale {
            self.vows.remove(&task);
            self.erase(Key::Pledge(task));
        }
    }

    /// Forgets an ended task everywhere, once every keeper knows its end: an
    /// open copy left behind could bring it back.
    pub(crate) fn forget(&mut self, task: &TaskId) {
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        // What nobody was told of may go as soon as all who took it know.
        let knows = |n| n == self.id || kept.strangers.contains(&n) || kept.acked(n) == Some(record.stamp.revision);
        let nobody_asks = kept.disowned() && record.closed() && record.keepers().all(knows);
        if !nobody_asks && (!kept.announced || !record.prior.is_empty() || !kept.fully_acked(self.id)) {
            return;
        }
        let stamp = record.stamp;
        let others: Vec<_> = record.keepers().filter(|n| *n != self.id).collect();
        for node in others {
            self.send(node, Message::Forget { task: task.clone(), stamp });
        }
        self.depose(task);
        self.drop_record(task);
    }

    fn drop_record(&mut self, task: &TaskId) {
        let Some(kept) = self.kept.remove(task) else { return };
        self.claims.remove(task);
        self.orphans.remove(task);
        self.erase(Key::Task(task.clone()));
        let record = kept.slot.record;
        let alone = record.holders == [self.id] && record.stamp.ballot.epoch == 1;
        if !alone {
            let name = Tombstones::name(task, record.birth);
            let at = self.wall();
            self.persist(Entry::Tombstone(name, at));
            if let Some(oldest) = self.tombstones.add(name, at) {
                self.erase(Key::Tombstone(oldest));
            }
        }
        if record.closed() {
            self.count_blobs(record, -1);
        }
    }

    /// Looks at a part of the records in turn: whatever no message or timer
    /// brings up is found here.
    pub(crate) fn sweep(&mut self) {
        let share = (self.kept.len() / 8).max(1_000);
        let start = self.sweep_from.take().map_or(Bound::Unbounded, Bound::Excluded);
        let tasks: Vec<TaskId> =
            self.kept.range::<TaskId, _>((start, Bound::Unbounded)).take(share).map(|(t, _)| t.clone()).collect();
        self.sweep_from = if tasks.len() == share { tasks.last().cloned() } else { None };
        for task in tasks {
            let kept = &self.kept[&task];
            if self.owns(kept) {
                if kept.doomed {
                    self.forget(&task);
                } else {
                    self.mend(&task);
                }
                continue;
            }
            if self.is_orphan(kept) {
                let now = self.now;
                self.orphans.entry(task).or_insert(now);
            } else if self.is_leftover(kept) {
                self.drop_record(&task);
            } else if !kept.slot.record.holders.contains(&self.id) || !kept.slot.record.closed() {
                self.ask_after(&task);
            }
        }
    }

    /// Not a word of this task for long: what became of it, so that the copy
    /// can go if it is over? Asked ever more seldom, and with a ballot that
    /// never wins, so that it changes nothing.
    fn ask_after(&mut self, task: &TaskId) {
        let now = self.now;
        let patience = self.config.away.0;
        let kept = self.kept.get_mut(task).expect("swept");
        if now.since(kept.offered_to_me.max(kept.offered_at)).0 < patience.saturating_mul(1 << kept.tries.min(12)) {
            return;
        }
        kept.offered_at = now;
        kept.tries += 1;
        let record = &kept.slot.record;
        let (birth, stamp, keepers) = (record.birth, record.stamp, record.keepers().collect::<Vec<_>>());
        let ballot = Ballot { epoch: 0, owner: self.id };
        for node in keepers {
            if node != self.id && self.live(node) {
                self.send(node, Message::Claim { task: task.clone(), birth, ballot, stamp });
            }
        }
    }

    /// A copy that nobody will ask for again: of a task that ended long ago,
    /// or that other nodes keep by now.
    fn is_leftover(&self, kept: &Kept) -> bool {
        let retention = self.config.retention;
        let record = &kept.slot.record;
        match record.body.state.closed() {
            Some(closed) => self.wall().since(closed.at) > retention + retention,
            None => !record.kept_by(self.id) && self.now.since(kept.offered_to_me) > retention,
        }
    }

    /// A peer fell silent: what it owned needs somebody.
    pub(crate) fn orphan_records_of(&mut self, node: NodeId) {
        let now = self.now;
        let found: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, k)| k.slot.pledge.owner == node && self.is_orphan(k))
            .map(|(t, _)| t.clone())
            .collect();
        for task in found {
            self.orphans.entry(task).or_insert(now);
        }
    }

    pub(crate) fn fetch(&mut self, from: NodeId, missing: &[(BlobHash, u64)], wait: impl Fn() -> Fetching) {
        for (hash, bytes) in missing {
            if !self.fetching.contains_key(hash) {
                self.out.push(Effect::Fetch { hash: *hash, bytes: *bytes, from });
            }
            let waiting = self.fetching.entry(*hash).or_default();
            if waiting.len() < limits::HOLDERS {
                waiting.push(wait());
            }
        }
    }

    pub(crate) fn on_fetched(&mut self, hash: BlobHash, here: bool) {
        if here {
            self.blobs.entry(hash).or_insert(0);
        }
        for waiting in self.fetching.remove(&hash).unwrap_or_default() {
            match waiting {
                _ if !here => {}
                Fetching::Offer { from, record, spec } => self.on_offer(from, record, spec),
                Fetching::Finished { from, finished } => self.on_finished(from, finished),
            }
        }
    }

    fn count_blobs(&mut self, record: Record, by: i32) {
        let Some(report) = record.body.state.closed().and_then(|c| c.report.as_ref()) else { return };
        let hashes: Vec<_> = report.blobs().map(|(hash, _)| hash).collect();
        for hash in hashes {
            let Some(count) = self.blobs.get_mut(&hash) else { continue };
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.drop_blob_if_unused(hash);
            }
        }
    }

    pub(crate) fn drop_blob_if_unused(&mut self, hash: BlobHash) {
        let in_use = self.executions.values().any(|e| e.refers_to(hash));
        if self.blobs.get(&hash) == Some(&0) && !in_use {
            self.blobs.remove(&hash);
            self.out.push(Effect::DropBlob(hash));
        }
    }

    pub(crate) fn drop_unused_blobs(&mut self) {
        let unused: Vec<_> = self.blobs.iter().filter(|(_, n)| **n == 0).map(|(h, _)| *h).collect();
        for hash in unused {
            self.drop_blob_if_unused(hash);
        }
    }

    /// Asserts what must hold of every node at every moment.
    pub fn check(&self) {
        for (task, kept) in &self.kept {
            let slot = &kept.slot;
            assert_eq!(*task, slot.record.task);
            assert!(slot.pledge >= slot.record.stamp.ballot, "{task}: a pledge below its own record");
            assert!(!slot.record.holders.is_empty(), "{task}: no holders");
            if kept.claimed {
                assert!(self.owns(kept), "{task}: claimed and not owned");
                assert!(slot.record.holders.contains(&self.id), "{task}: owned and not kept");
            }
            if kept.lease.is_some() {
                assert!(
                    kept.claimed && matches!(slot.record.body.state, TaskState::Leased { .. }),
                    "{task}: stray lease"
                );
            }
            let _ = kept.missing_blobs(&self.blobs);
        }
        self.check_index();
    }
}
