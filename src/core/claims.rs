//! Who takes a record over when its owner is gone: claims, pledges, and the
//! majority that lets one of them win. Leases say when to try; ballots say who
//! wins.

use crate::config::Planted;
use crate::effect::{Entry, Notice};
use crate::ids::{NodeId, TaskId, rendezvous};
use crate::message::{Electorate, Message};
use crate::node::{Fetching, Node};
use crate::ownership::{Kept, missing_blobs};
use crate::record::{Ballot, Birth, Record, Slot, Stamp};
use crate::time::Millis;
use std::collections::BTreeMap;

/// Claims under way at once: each costs a write here and on every keeper.
const CLAIMS: usize = 2_000;
/// Pledges without a record; more are not given.
const VOWS: usize = 100_000;

/// A claim under way.
pub(crate) struct Claim {
    pub(crate) ballot: Ballot,
    at: Millis,
    pledges: BTreeMap<NodeId, Option<Box<Record>>>,
    electorate: Electorate,
    /// A version that an earlier claim came to know of: it decides who is asked,
    /// and nothing else.
    known: Option<Box<Record>>,
}

impl Claim {
    /// The greatest version among the pledges.
    fn best(&self) -> Option<&Record> {
        self.pledges.values().flatten().map(|r| &**r).max_by_key(|r| r.stamp)
    }

    /// The greatest that it knows of.
    fn newest(&self) -> Option<&Record> {
        self.best().into_iter().chain(self.known.as_deref()).max_by_key(|r| r.stamp)
    }
}

/// What another node says when it claims.
#[derive(Clone, Copy)]
pub(crate) struct Bid {
    pub(crate) birth: Birth,
    pub(crate) ballot: Ballot,
    /// What it has of the record.
    pub(crate) stamp: Stamp,
    pub(crate) electorate: Electorate,
}

impl Node {
    pub(crate) fn on_claim(&mut self, from: NodeId, task: &TaskId, bid: Bid) {
        let Bid { birth, ballot, stamp, electorate } = bid;
        if ballot.owner != from {
            return;
        }
        if self.tombstones.hold(task, birth) {
            self.send(from, Message::Gone { task: task.clone(), birth });
            return;
        }
        let nothing_here = self.damaged.contains(task) || !self.kept.contains_key(task);
        if nothing_here && electorate == Electorate::Everybody {
            return self.own_up(from, task, ballot);
        }
        if self.damaged.contains(task) {
            self.send(from, Message::Lost { task: task.clone() });
            return;
        }
        let Some(kept) = self.kept.get(task) else {
            if ballot.epoch == 0 {
                // It is asked whether it still leads what it has let go.
                return self.send(from, Message::Lost { task: task.clone() });
            }
            self.pledge_blank(from, task, ballot);
            return;
        };
        let slot = &kept.slot;
        if slot.record.birth != birth {
            let (record, spec) = (Box::new(slot.record.clone()), slot.spec.clone());
            self.send(from, Message::Taken { task: task.clone(), refused: birth, record, spec });
            return;
        }
        let outsider = slot.record.stamp >= stamp && !Node::may_lead(&slot.record, from, electorate);
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

    /// Every member is asked, and this one has nothing to say. It is bound to
    /// nothing: whoever could give it a version is asked as well.
    fn own_up(&mut self, from: NodeId, task: &TaskId, ballot: Ballot) {
        let answer = match self.vows.get(task) {
            Some((vow, _)) if *vow > ballot => Message::Refuse { task: task.clone(), pledge: *vow },
            Some(_) | None => Message::Pledge { task: task.clone(), ballot, kept: None },
        };
        self.send(from, answer);
    }

    /// A holder-to-be that has not seen the record yet pledges with nothing;
    /// the pledge binds it all the same.
    pub(crate) fn pledge_blank(&mut self, from: NodeId, task: &TaskId, ballot: Ballot) {
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
            if !self.is_claimable(&task) {
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

    /// Without a majority of holders it takes everybody's word: there is no use
    /// in asking before all can give it.
    fn is_claimable(&self, task: &TaskId) -> bool {
        let kept = &self.kept[task];
        let newest = self.claims.get(task).and_then(Claim::newest).unwrap_or(&kept.slot.record);
        !self.is_bereft(newest, &kept.lost) || self.unheard(newest).is_empty()
    }

    /// How long this node leaves the claim to keepers that rank before it.
    pub(crate) fn turn(&self, task: &TaskId) -> Millis {
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
        let record = &kept.slot.record;
        let electorate = self.electorate_of(record, &kept.lost);
        if self.owns(kept) || !Node::may_lead(record, self.id, electorate) {
            return false;
        }
        let owner = kept.slot.pledge.owner;
        if owner == self.id || !self.live(owner) || kept.abandoned || self.is_stray(kept) {
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

    /// A step whose owner does not keep its workflow, and so neither brings it
    /// home nor knows how long it is needed.
    fn is_stray(&self, kept: &Kept) -> bool {
        let Some(workflow) = self.workflow_of(&kept.slot.record.task) else { return false };
        let record = &self.kept[workflow].slot.record;
        let keeps = |node| record.holders.contains(&node);
        record.prior.is_empty() && keeps(self.id) && !keeps(kept.slot.pledge.owner)
    }

    pub(crate) fn claim(&mut self, task: &TaskId) {
        let kept = self.kept.get_mut(task).expect("an orphan is kept");
        let ballot = Ballot { epoch: kept.slot.pledge.epoch.saturating_add(1), owner: self.id };
        kept.slot.pledge = ballot;
        kept.pledged_at = Some(self.now);
        let record = Box::new(kept.slot.record.clone());
        self.persist(Entry::Record { pledge: ballot, record: record.clone() });
        let known = self.claims.remove(task).and_then(|c| c.newest().cloned()).map(Box::new);
        let newest = known.as_deref().filter(|k| k.stamp > record.stamp).unwrap_or(&record);
        let electorate = self.electorate_of(newest, &self.kept[task].lost);
        let pledges = BTreeMap::from([(self.id, Some(record))]);
        self.claims.insert(task.clone(), Claim { ballot, at: self.now, pledges, electorate, known });
        self.send_claims(task, ballot);
        self.try_win(task);
    }

    pub(crate) fn send_claims(&mut self, task: &TaskId, ballot: Ballot) {
        let Some(claim) = self.claims.get(task) else { return };
        let (Some(best), Some(newest)) = (claim.best(), claim.newest()) else { return };
        let asked: Vec<_> = match claim.electorate {
            // One that was asked when it was everybody may have named others.
            Electorate::Holders if self.is_bereft(best, &[]) => newest.keepers().collect(),
            Electorate::Holders => best.keepers().collect(),
            // The word of one that does not know yet who is gone would count for nothing.
            Electorate::Everybody => self.heard(best),
        };
        let left = |n: &NodeId| *n != self.id && !claim.pledges.contains_key(n) && self.live(*n);
        let (targets, electorate): (Vec<_>, _) = (asked.into_iter().filter(left).collect(), claim.electorate);
        let record = &self.kept[task].slot.record;
        let (birth, stamp) = (record.birth, record.stamp);
        for node in targets {
            self.send(node, Message::Claim { task: task.clone(), birth, ballot, stamp, electorate });
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
        self.fetch(from, &missing, || Fetching::Own(task.clone()));
        self.try_win(task);
    }

    pub(crate) fn try_win(&mut self, task: &TaskId) {
        let Some(claim) = self.claims.get(task) else { return };
        let ballot = claim.ballot;
        let (Some(best), Some(newest)) = (claim.best(), claim.newest()) else { return };
        let kept = &self.kept[task];
        if self.electorate_of(newest, &kept.lost) != claim.electorate {
            // An answer has shown that others are to be asked, or asked otherwise.
            return self.claim(task);
        }
        let told = if self.is_bereft(best, &kept.lost) { newest } else { best };
        if !Node::may_lead(told, self.id, claim.electorate) {
            // Somebody else's by now: keep what was learnt, and leave it.
            let (record, spec, pledge) = (best.clone(), kept.slot.spec.clone(), kept.slot.pledge);
            self.claims.remove(task);
            self.take_version(record, spec, Some(pledge));
            return;
        }
        let alone = self.config.planted == Some(Planted::ClaimAlone);
        let pledged = |n: &NodeId| claim.pledges.contains_key(n);
        // Those that join decide alone once the change is done. Its writer, which
        // writes nothing more after its pledge, shows that it is not.
        let writer = claim.pledges.get(&best.owner()).and_then(|r| r.as_ref());
        let everybody = claim.electorate == Electorate::Everybody;
        let won = if everybody {
            self.is_left_to_this_node(kept, claim)
        } else if !best.prior.is_empty() && writer.is_some_and(|r| r.stamp == best.stamp) {
            best.prior.iter().filter(|n| pledged(n)).count() > best.prior.len() / 2
        } else {
            best.majority(|n| pledged(&n))
        };
        if kept.slot.pledge != ballot || !(alone || won) {
            if best.keepers().any(|n| !claim.pledges.contains_key(&n)) && !alone {
                self.ask_newcomers(task, ballot);
            }
            return;
        }
        let mut record = best.clone();
        if everybody {
            let empty_handed = |n: &NodeId| claim.pledges.get(n).is_none_or(Option::is_none);
            let lost: Vec<_> = record.keepers().filter(empty_handed).collect();
            self.bequeath(&mut record, &lost);
        }
        let from = record.owner();
        record.stamp = Stamp { ballot, revision: 0 };
        self.claims.remove(task);
        self.orphans.remove(task);
        self.become_owner(task, record);
        if from != self.id {
            self.notice(Notice::OwnerAdopted { task: task.clone(), from });
        }
    }

    /// Every member has given its word, those that keep another task of the id by
    /// saying so; each knew who is gone for ever when it was asked.
    fn is_left_to_this_node(&self, kept: &Kept, claim: &Claim) -> bool {
        if self.config.planted == Some(Planted::InheritAlone) {
            return true;
        }
        let said = |n: &NodeId| claim.pledges.contains_key(n) || kept.strangers.contains(n);
        self.members.keys().all(said)
    }

    /// A pledge may have named keepers that were not asked yet.
    pub(crate) fn ask_newcomers(&mut self, task: &TaskId, ballot: Ballot) {
        let known: Vec<_> = self.kept[task].slot.record.keepers().collect();
        let newcomers = self.claims[task].best().is_some_and(|r| r.keepers().any(|n| !known.contains(&n)));
        if newcomers {
            self.send_claims(task, ballot);
        }
    }

    pub(crate) fn become_owner(&mut self, task: &TaskId, record: Record) {
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
        kept.wary = self.schedules.is_born(task);
        let promised = self.majority_revision(&self.kept[task]);
        self.kept.get_mut(task).expect("kept").promised = promised;
        self.reclaiming.remove(task);
        self.resume_lease(task);
        self.index(task);
        self.unsettled.insert(task.clone());
        self.offer(task);
        self.advance(task);
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
}
