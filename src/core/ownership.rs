//! Who writes a record: offers and acknowledgements, claims and pledges, the
//! replacement of holders, and forgetting. The rules are in ARCHITECTURE.md;
//! `tests/sim` plants a bug for each and sees it caught.

use crate::config::Planted;
use crate::effect::{Entry, Key, Notice};
use crate::ids::{BlobHash, NodeId, TaskId};
use crate::limits;
use crate::message::Message;
use crate::node::{Fetching, Node};
use crate::record::{Ballot, Birth, Record, Slot, Stamp};
use crate::task::{Closed, Spec, TaskState};
use crate::time::{Millis, Unix};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A record on this node, with what only this run of the node knows of it.
pub(crate) struct Kept {
    pub(crate) slot: Slot,
    /// This node won the record's ballot in this run: a restarted owner claims
    /// its open records anew, so that no fence is ever used twice.
    pub(crate) claimed: bool,
    /// Newest revision of the current ballot that each other keeper has.
    pub(crate) acks: Vec<(NodeId, u32)>,
    /// Keepers that said that their copy is damaged.
    pub(crate) lost: Vec<NodeId>,
    /// Nodes that keep another task of this id, and so can't keep this one.
    pub(crate) strangers: Vec<NodeId>,
    /// Newest revision that a majority has.
    pub(crate) promised: Option<u32>,
    /// Revision at which the holders last changed, in this ballot.
    pub(crate) config_revision: u32,
    /// Revision at which the task ended, in this ballot.
    pub(crate) closed_revision: u32,
    /// It was, or may have been, promised to its submitter.
    pub(crate) accepted: bool,
    /// Found on the disk as ended and this node's own; another may have taken it
    /// over since, so it counts only once a majority has confirmed it.
    pub(crate) found: bool,
    /// The end was told to those who wait for it.
    pub(crate) announced: bool,
    pub(crate) written_at: Millis,
    pub(crate) offered_at: Millis,
    pub(crate) tries: u32,
    /// Pledged to a claim that has not been heard of since.
    pub(crate) pledged_at: Option<Millis>,
    /// Its owner said that it lost its own copy.
    pub(crate) abandoned: bool,
    /// When its owner last offered it.
    pub(crate) offered_to_me: Millis,
    /// When any node last said anything of it.
    pub(crate) heard_of: Millis,
    /// Questions after it since then.
    pub(crate) unanswered: u32,
    /// To be forgotten as soon as every keeper knows its end.
    pub(crate) doomed: bool,
    /// Another node was sent it, or may have been.
    pub(crate) offered: bool,
    /// Another owner may have begun it as well: its grant waits for a majority.
    pub(crate) wary: bool,
    /// The owner of its workflow, which this node may not keep, asked after it.
    pub(crate) asked_at: Option<Millis>,
    /// What the owner knows of the current attempt.
    pub(crate) lease: Option<Box<Lease>>,
}

/// What an owner knows of a granted attempt.
#[derive(Default)]
pub(crate) struct Lease {
    /// The executor's; of one that this node has not met yet it is not known.
    pub(crate) boot: Option<u64>,
    pub(crate) granted_at: Millis,
    /// Granted without room, which its executor is to keep free for it.
    pub(crate) ahead: bool,
    /// By another owner, or by this node before it was started again.
    pub(crate) taken_over: bool,
    pub(crate) sent_at: Option<Millis>,
    pub(crate) confirmed_at: Option<Millis>,
    pub(crate) started_at: Option<Unix>,
    pub(crate) started: Option<Millis>,
    pub(crate) said: Said,
}

impl Lease {
    pub(crate) fn new(boot: Option<u64>, granted_at: Millis) -> Lease {
        Lease { boot, granted_at, ..Lease::default() }
    }
}

/// What a run says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) percent: Option<u8>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) log_tail: Option<Arc<[u8]>>,
}

/// When an owner's new version goes to the holders.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offering {
    /// Somebody waits for the promise.
    Now,
    /// Nobody does: it may ride with the next version.
    Lazily,
}

/// Offers sent again in one tick.
pub(crate) const RESENDS: usize = 4_000;

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
            found: false,
            announced: false,
            written_at: now,
            offered_at: now,
            tries: 0,
            pledged_at: None,
            abandoned: false,
            offered_to_me: now,
            heard_of: now,
            unanswered: 0,
            doomed: false,
            offered: true,
            wary: false,
            asked_at: None,
            lease: None,
        }
    }

    /// It gave way to another task of the same id before it was accepted:
    /// nobody was ever told of it, and nobody is.
    pub(crate) fn disowned(&self) -> bool {
        self.doomed && !self.accepted
    }

    /// A majority of those that decide keep another task of this id: nobody can
    /// ever write this one again.
    pub(crate) fn has_given_way(&self) -> bool {
        let record = &self.slot.record;
        let deciding = if record.prior.is_empty() { &record.holders } else { &record.prior };
        let left = deciding.iter().filter(|n| !self.strangers.contains(n)).count();
        left * 2 <= deciding.len() && self.promised_end().is_none()
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

    /// It may be another node's by now.
    pub(crate) fn unconfirmed(&self) -> bool {
        self.found && self.promised.is_none()
    }

    /// A majority of the current holders has `revision`.
    pub(crate) fn has_promised(&self, revision: u32) -> bool {
        self.promised.is_some_and(|r| r >= revision.max(self.config_revision))
    }

    pub(crate) fn acked(&self, node: NodeId) -> Option<u32> {
        self.acks.iter().find(|(n, _)| *n == node).map(|(_, r)| *r)
    }

    /// Every other keeper has the newest version.
    pub(crate) fn fully_acked(&self, me: NodeId) -> bool {
        let newest = self.slot.record.stamp.revision;
        self.slot.record.keepers().all(|n| n == me || self.acked(n) == Some(newest))
    }

    /// The newest revision that a majority of each holder set has.
    pub(crate) fn majority_revision(&self, me: NodeId) -> Option<u32> {
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

    pub(crate) fn missing_blobs(&self, have: &BTreeMap<BlobHash, u32>) -> Vec<(BlobHash, u64)> {
        missing_blobs(&self.slot.record, have)
    }
}

pub(crate) fn missing_blobs(record: &Record, have: &BTreeMap<BlobHash, u32>) -> Vec<(BlobHash, u64)> {
    let report = record.body.state.closed().and_then(|c| c.report.as_ref());
    report.map_or(Vec::new(), |r| r.blobs().filter(|(hash, _)| !have.contains_key(hash)).collect())
}

/// Names of tasks that ended and were forgotten. A copy from the past, on a
/// node that was away, meets them and is dropped instead of running again.
pub(crate) struct Tombstones {
    pub(crate) by_name: BTreeMap<u64, Unix>,
    pub(crate) by_age: BTreeSet<(Unix, u64)>,
}

impl Tombstones {
    pub(crate) fn new(found: Vec<(u64, Unix)>) -> Tombstones {
        Tombstones {
            by_age: found.iter().map(|(name, at)| (*at, *name)).collect(),
            by_name: found.into_iter().collect(),
        }
    }

    pub(crate) fn name(task: &TaskId, birth: Birth) -> u64 {
        let hash = blake3::hash(task.as_str().as_bytes());
        let word = u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32"));
        crate::prng::mix(word ^ birth.nonce ^ birth.node.hash64())
    }

    pub(crate) fn hold(&self, task: &TaskId, birth: Birth) -> bool {
        !self.by_name.is_empty() && self.by_name.contains_key(&Tombstones::name(task, birth))
    }

    pub(crate) fn add(&mut self, name: u64, at: Unix) -> Option<u64> {
        self.by_name.insert(name, at);
        self.by_age.insert((at, name));
        if self.by_age.len() <= limits::TOMBSTONES {
            return None;
        }
        let (_, oldest) = self.by_age.pop_first()?;
        self.by_name.remove(&oldest);
        Some(oldest)
    }

    pub(crate) fn remove(&mut self, name: u64) -> bool {
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
            kept.found = kept.claimed;
            kept.closed_revision = record.stamp.revision;
            kept.config_revision = record.stamp.revision;
            if kept.slot.pledge != record.stamp.ballot {
                kept.pledged_at = Some(Millis(0));
            }
            if record.owner() == self.id && !record.closed() {
                self.reclaiming.insert(task.clone());
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
        kept.offered = false;
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

    pub(crate) fn majority_revision(&self, kept: &Kept) -> Option<u32> {
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
    pub(crate) fn offer(&mut self, task: &TaskId) {
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
        if let Some(kept) = self.kept.get_mut(task) {
            kept.offered |= !targets.is_empty();
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
        let leads = kept.slot.spec.bears_tasks() && kept.has_promised(0) && !kept.slot.record.closed();
        if settled {
            self.unsettled.remove(task);
            self.lazy.remove(task);
        }
        if full {
            self.kept.get_mut(task).expect("owned").accepted = true;
        }
        self.check_promises(task);
        if leads {
            self.stir_workflow(task);
        }
        if ended {
            self.kept.get_mut(task).expect("owned").announced = true;
            self.on_ended(task);
        }
        self.stir_schedule_by(task);
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
        // Of a version that was offered again and again, only the first ack is news:
        // the others say that the line is slow, and more of the same makes it slower.
        if kept.acked(from).is_none_or(|known| known < stamp.revision) {
            kept.acks.retain(|(n, _)| *n != from);
            kept.acks.push((from, stamp.revision));
            kept.tries = 0;
        }
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
        self.hear_of(&task);
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
        if !fresh && let Some((workflow, pledge)) = self.led_by_another(from, &record) {
            self.notice(Notice::Refused { from, why: "below_pledge" });
            self.send(from, Message::Refuse { task: workflow, pledge });
            return;
        }
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
    pub(crate) fn on_hearsay(&mut self, record: Record, spec: Option<Arc<Spec>>) {
        let Some(kept) = self.kept.get(&record.task) else { return };
        if record.holders.contains(&self.id) || record.stamp <= kept.slot.record.stamp {
            return;
        }
        let (spec, pledge) = (spec.unwrap_or_else(|| kept.slot.spec.clone()), kept.slot.pledge);
        self.take_version(record, spec, Some(pledge));
    }

    pub(crate) fn is_welcome(&mut self, from: NodeId, record: &Record, fresh: bool) -> bool {
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
    pub(crate) fn take_version(&mut self, record: Record, spec: Arc<Spec>, pledge: Option<Ballot>) {
        let task = record.task.clone();
        let pledge = pledge.map_or(record.stamp.ballot, |p| p.max(record.stamp.ballot));
        self.depose(&task);
        self.claims.remove(&task);
        self.reclaiming.remove(&task);
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
    pub(crate) fn depose(&mut self, task: &TaskId) {
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
        self.leave_workflow(task);
        self.drop_unborn_parts(task);
        self.leave_schedule(task);
        self.leave_no_result(task);
        self.on_deposed(task);
    }

    /// The worker that has not confirmed the current grant of `task`.
    pub(crate) fn unconfirmed_grant(&self, task: &TaskId) -> Option<(NodeId, crate::WorkerId)> {
        let kept = self.kept.get(task)?;
        let TaskState::Leased { executor, worker, .. } = &kept.slot.record.body.state else { return None };
        let lease = kept.lease.as_ref()?;
        lease.confirmed_at.is_none().then(|| (*executor, worker.clone()))
    }

    pub(crate) fn pledge(&mut self, task: &TaskId, ballot: Ballot) {
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
        self.hear_of(task);
        if self.kept.get(task).is_some_and(|k| pledge > k.slot.pledge) {
            self.pledge(task, pledge);
        }
    }
}
