//! Nodes that are gone for ever, by an operator's word: what the mesh does
//! without them.
//!
//! Rules 5 and 7 need a majority of a record's holders. Where so many of them
//! were destroyed that the rest is none, nobody may ever write it again, and
//! nothing that a node can see tells a destroyed node from one that is cut off:
//! a person has to say it. The words are a set that only grows, so any two of
//! them are joined without a conflict; hellos carry it.
//!
//! A forgotten node is no member: it is neither heard nor asked, and other
//! holders take its places. That alone needs no new rule as long as the rest of
//! a record's holders are a majority. Where they are not, one of them may claim
//! the record with the word of *every* member instead: each knows of the same
//! forgotten nodes (and so hears no more of what they may have sent), and each
//! pledges, with what it has of the record. So whatever of it is left anywhere
//! is found, however stale the claimant's own copy is, and no other majority can
//! come about meanwhile. The record goes on from the greatest version among
//! these, on the holders that are left, and says without whom. What a destroyed
//! majority alone knew is lost: that is what the operator decides.

use crate::command::{Command, Query, Refusal, Request, Scope};
use crate::effect::{Entry, Key, NetCommand, Notice};
use crate::features::Feature;
use crate::ids::{NodeId, TaskId, rendezvous};
use crate::limits;
use crate::message::Electorate;
use crate::node::Node;
use crate::ownership::Kept;
use crate::record::Record;
use crate::requests::{Origin, Plan};
use crate::time::{Millis, Unix};
use crate::view::Reply;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An operator's word that a node is gone for ever. Never taken back: the node
/// may come again under another name alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forgotten {
    /// When it was said, by the clock of the node that was told.
    pub at: Unix,
    /// Which node.
    pub node: NodeId,
    /// Who said it; empty: whoever had the machine of a node.
    pub by: Arc<str>,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
}

/// What becomes of a node that is there after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not forgotten.
    Respected,
    /// It is, and stops: its operator is sure.
    Overruled,
}

/// The words that a node knows.
#[derive(Debug, Default)]
pub(crate) struct Words {
    all: BTreeMap<NodeId, Forgotten>,
    /// When a forgotten node that speaks was last told.
    told: BTreeMap<NodeId, Millis>,
}

/// How often a forgotten node that goes on speaking is told.
const TELL_AGAIN: Millis = Millis(5_000);

impl Words {
    pub(crate) fn new(found: Vec<Forgotten>) -> Words {
        let all = found.into_iter().map(|word| (word.node, word)).collect();
        Words { all, told: BTreeMap::new() }
    }

    /// Joins `word` in: of two of one node the earlier stays. `false`: it says
    /// nothing new, or there is no room.
    fn join(&mut self, word: &Forgotten) -> bool {
        let news = match self.all.get(&word.node) {
            Some(known) => word < known,
            None => self.all.len() < limits::FORGOTTEN,
        };
        if news {
            self.all.insert(word.node, word.clone());
        }
        news
    }

    pub(crate) fn all(&self) -> Vec<Forgotten> {
        self.all.values().cloned().collect()
    }

    pub(crate) fn of(&self, node: NodeId) -> Option<&Forgotten> {
        self.all.get(&node)
    }
}

impl Node {
    pub(crate) fn is_forgotten(&self, node: NodeId) -> bool {
        self.words.all.contains_key(&node)
    }

    /// The word by which the mesh goes on without this very node.
    #[must_use]
    pub fn outcast(&self) -> Option<&Forgotten> {
        self.words.of(self.id)
    }

    /// Nodes that are gone for ever, for the network to keep out.
    #[must_use]
    pub fn forgotten(&self) -> Vec<NodeId> {
        self.words.all.keys().copied().collect()
    }

    /// Some of `set` are gone for ever, and with those that `lost` their copy so
    /// many that the rest is no majority of it.
    fn is_lost(&self, set: &[NodeId], lost: &[NodeId]) -> bool {
        let left = set.iter().filter(|n| !self.is_forgotten(**n) && !lost.contains(n)).count();
        set.iter().any(|n| self.is_forgotten(*n)) && left * 2 <= set.len()
    }

    /// No majority can ever decide on this record again; `lost`: whose copies
    /// were damaged.
    pub(crate) fn is_bereft(&self, record: &Record, lost: &[NodeId]) -> bool {
        !self.words.all.is_empty() && (self.is_lost(&record.holders, lost) || self.is_lost(&record.prior, lost))
    }

    /// The same, of those that decide for an owner that is still there: it may
    /// replace newcomers by itself.
    fn is_stranded(&self, kept: &Kept) -> bool {
        let record = &kept.slot.record;
        let deciding = if record.prior.is_empty() { &record.holders } else { &record.prior };
        kept.claimed && kept.offered && self.is_lost(deciding, &kept.lost)
    }

    /// Whether `node` may own what `record` says. One that is only leaving may
    /// where everybody is asked: those that were to stay may not know of it.
    pub(crate) fn may_lead(record: &Record, node: NodeId, electorate: Electorate) -> bool {
        record.holders.contains(&node) || record.prior.contains(&node) && electorate == Electorate::Everybody
    }

    /// Whom a claim of `record` has to ask.
    pub(crate) fn electorate_of(&self, record: &Record, lost: &[NodeId]) -> Electorate {
        if self.is_bereft(record, lost) { Electorate::Everybody } else { Electorate::Holders }
    }

    /// Members that can't say yet what they have of a record that lost its
    /// majority: nothing is heard of them, or they don't know who is forgotten.
    pub(crate) fn unheard(&self, record: &Record) -> Vec<NodeId> {
        let heard = self.heard(record);
        self.members.keys().copied().filter(|n| !heard.contains(n)).collect()
    }

    /// Members that can.
    pub(crate) fn heard(&self, record: &Record) -> Vec<NodeId> {
        let gone: Vec<_> = record.keepers().filter(|n| self.is_forgotten(*n)).collect();
        let ready = |n: &NodeId| self.live(*n) && self.members[n].forgets_all(&gone);
        self.members.keys().copied().filter(ready).collect()
    }

    /// The record goes on without the holders that are gone for ever, and those
    /// that `lost` their copy.
    pub(crate) fn bequeath(&self, record: &mut Record, lost: &[NodeId]) {
        let gone: Vec<_> = record.keepers().filter(|n| self.is_forgotten(*n)).collect();
        let left: Vec<_> = record.keepers().filter(|n| !gone.contains(n) && !lost.contains(n)).collect();
        let staying: Vec<_> = record.holders.iter().copied().filter(|n| left.contains(n)).collect();
        record.holders = if staying.contains(&self.id) { staying } else { left };
        record.prior.clear();
        record.forgotten.retain(|n| !gone.contains(n));
        record.forgotten.extend(gone);
        let surplus = record.forgotten.len().saturating_sub(limits::HOLDERS);
        record.forgotten.drain(..surplus);
    }

    /// An owner without a majority that could confirm what it writes may have
    /// been replaced by one: it claims anew, as any other would.
    pub(crate) fn give_up_if_stranded(&mut self, task: &TaskId) -> bool {
        if self.words.all.is_empty() || self.owned(task).is_none_or(|kept| !self.is_stranded(kept)) {
            return false;
        }
        self.depose(task);
        let now = self.now;
        self.orphans.insert(task.clone(), now);
        true
    }

    /// Why a record waits that lost its majority; `None`: it did not.
    pub(crate) fn explain_bereft(&self, kept: &Kept) -> Option<(Arc<str>, Arc<str>)> {
        let record = &kept.slot.record;
        if !self.is_bereft(record, &kept.lost) {
            return None;
        }
        let gone: Vec<_> = record.keepers().filter_map(|n| self.words.of(n)).map(said).collect();
        let unheard: Vec<_> = self.unheard(record).iter().map(NodeId::to_string).collect();
        let summary = format!("most of its holders are gone for ever: {}", gone.join(", "));
        let next = if unheard.is_empty() {
            "goes on from what is left of it, once every other node has said what it has".to_owned()
        } else {
            let left = "goes on from what is left of it, once all the others have said what they have; unheard";
            let next = "start them, or say of those that are gone too: taskmesh forget NODE";
            format!("{left}: {}; {next}", unheard.join(", "))
        };
        Some((summary.into(), next.into()))
    }

    /// What people are told of the holders without which a record goes on.
    pub(crate) fn forgotten_of(&self, record: &Record) -> Vec<Forgotten> {
        let nobody = |node| Forgotten { node, at: Unix(0), by: "".into(), reason: None };
        let current = record.keepers().filter(|n| self.is_forgotten(*n));
        let all = record.forgotten.iter().copied().chain(current);
        all.map(|n| self.words.of(n).cloned().unwrap_or_else(|| nobody(n))).collect()
    }

    pub(crate) fn on_forget_node(&mut self, origin: Origin, word: Forgotten, presence: Presence, scope: Scope) {
        if scope == Scope::Local {
            let reply = self.take_word(word);
            return self.answer(origin, reply);
        }
        if let Err(refusal) = self.check_word(&word, presence) {
            return self.answer(origin, Err(refusal));
        }
        if presence == Presence::Overruled || self.is_forgotten(word.node) {
            return self.spread_word(origin, word);
        }
        // It may be there for others though it is not for this node.
        let request = Request::Query(Query::Hears(word.node));
        self.gather(origin, Plan::Hears(word), request, Vec::new());
    }

    /// Whether `word` can be said here at all.
    fn check_word(&self, word: &Forgotten, presence: Presence) -> Result<(), Refusal> {
        let name: Arc<str> = format!("node {}", word.node).into();
        if word.node == self.id {
            let needs = "a node can't forget itself; ask another one, once this one is stopped for ever".into();
            return Err(Refusal::State { name, status: "the one that is asked".into(), needs });
        }
        self.check_feature(Feature::Forgetting)?;
        let kept = |k: &Kept| k.slot.record.kept_by(word.node);
        let known = self.members.contains_key(&word.node) || self.is_forgotten(word.node);
        if !known && !self.kept.values().any(kept) && presence == Presence::Respected {
            return Err(Refusal::NotFound { what: "peer".into(), name: word.node.to_string().into() });
        }
        if self.live(word.node) && presence == Presence::Respected {
            return Err(there(word.node));
        }
        Ok(())
    }

    pub(crate) fn on_query_hears(&mut self, origin: Origin, node: NodeId) {
        let heard = self.live(node);
        self.answer(origin, Ok(Reply::Hears(heard)));
    }

    /// Others were asked whether they hear of the node; `found`: one does.
    pub(crate) fn on_heard(&mut self, origin: Origin, word: Forgotten, found: Option<Reply>) {
        match found {
            Some(_) => self.answer(origin, Err(there(word.node))),
            None => self.spread_word(origin, word),
        }
    }

    /// Takes it here, and tells all who can be reached.
    fn spread_word(&mut self, origin: Origin, word: Forgotten) {
        let own = match self.take_word(word.clone()) {
            Ok(own) => own,
            Err(refusal) => return self.answer(origin, Err(refusal)),
        };
        let word = self.words.of(word.node).cloned().unwrap_or(word);
        let (presence, scope) = (Presence::Overruled, Scope::Local);
        let request = Request::Command(Command::ForgetNode { word: word.clone(), presence, scope });
        self.gather(origin, Plan::Forgot(word), request, vec![own]);
    }

    fn take_word(&mut self, word: Forgotten) -> Result<Reply, Refusal> {
        let node = word.node;
        // Each record is counted by one of those that keep it.
        let counts = |record: &Record| {
            let left = record.keepers().filter(|n| *n != node && (*n == self.id || self.live(*n)));
            record.kept_by(node) && rendezvous(record.task.place_hash(), left).first() == Some(&self.id)
        };
        let shared: Vec<TaskId> =
            self.kept.iter().filter(|(_, k)| counts(&k.slot.record)).map(|(task, _)| task.clone()).collect();
        self.learn_word(&word);
        if !self.is_forgotten(node) {
            let limit = limits::FORGOTTEN as u64;
            return Err(Refusal::Full { what: "list of forgotten nodes".into(), limit, retry_after: Millis(60_000) });
        }
        let bereft = shared.iter().filter_map(|t| self.kept.get(t)).filter(|k| self.is_bereft(&k.slot.record, &k.lost));
        let bereft = bereft.count() as u64;
        let word = self.words.of(node).cloned().unwrap_or(word);
        Ok(Reply::Forgot { word, shared: shared.len() as u64, bereft, silent: Vec::new() })
    }

    /// What came of it.
    pub(crate) fn forgot(&self, word: Forgotten, counts: (u64, u64), left: &BTreeSet<NodeId>) -> Reply {
        Reply::Forgot { word, shared: counts.0, bereft: counts.1, silent: self.silent_of(left) }
    }

    /// Another node's words; this node tells them on.
    pub(crate) fn learn_words(&mut self, words: &[Forgotten]) {
        words.iter().for_each(|word| self.learn_word(word));
    }

    fn learn_word(&mut self, word: &Forgotten) {
        if self.config.without.contains(&Feature::Forgetting) || !self.words.join(word) {
            return;
        }
        self.persist(Entry::Forgotten(word.clone()));
        if word.node == self.id {
            return self.retire();
        }
        self.notice(Notice::NodeForgotten(word.clone()));
        self.out.push(crate::Effect::Net(NetCommand::Forget { peer: word.node }));
        self.lose_member(word.node);
        let stranded: Vec<_> =
            self.kept.iter().filter(|(_, kept)| self.is_stranded(kept)).map(|(task, _)| task.clone()).collect();
        for task in stranded {
            self.give_up_if_stranded(&task);
        }
        self.account_changed();
    }

    /// A forgotten node is no member any more.
    fn lose_member(&mut self, node: NodeId) {
        if !self.members.contains_key(&node) {
            return;
        }
        self.on_silence(node);
        self.members.remove(&node);
        self.erase(Key::Peer(node));
        self.watch_leases();
    }

    /// The mesh goes on without this node: whatever it owns or runs is another's
    /// by now, and what it said would count for nothing.
    fn retire(&mut self) {
        if let Some(word) = self.outcast().cloned() {
            self.notice(Notice::CastOut(word));
        }
        let claimed: Vec<_> = self.kept.iter().filter(|(_, k)| k.claimed).map(|(task, _)| task.clone()).collect();
        for task in claimed {
            self.depose(&task);
        }
        self.claims.clear();
        self.stop_all_runs();
    }

    /// A forgotten node speaks: nothing of what it says counts. It is told now
    /// and then, so that it stops.
    pub(crate) fn on_forgotten_speaks(&mut self, from: NodeId) {
        let now = self.now;
        if self.words.told.get(&from).is_some_and(|at| now < *at + TELL_AGAIN) {
            return;
        }
        self.words.told.insert(from, now);
        self.introduce(from);
    }

    /// Another node's network says that it has forgotten this one.
    pub(crate) fn on_cast_out(&mut self, by: NodeId) {
        // Of two that have forgotten each other neither obeys.
        if self.is_forgotten(by) {
            return;
        }
        let reason = format!("node {by} refuses it").into();
        let word = Forgotten { node: self.id, by: "".into(), at: self.wall(), reason: Some(reason) };
        self.learn_word(&word);
    }

    pub(crate) fn on_query_forgotten(&mut self, origin: Origin) {
        let all = self.words.all();
        self.answer(origin, Ok(Reply::Forgotten(all)));
    }

    /// Why a node that the mesh has forgotten obeys no command.
    pub(crate) fn refuse_as_outcast(&self) -> Result<(), Refusal> {
        if self.outcast().is_none() {
            return Ok(());
        }
        let name = format!("node {}", self.id).into();
        Err(Refusal::State { name, status: "forgotten by its mesh".into(), needs: FRESH_START.into() })
    }
}

/// What to do with a node that its mesh has forgotten.
pub const FRESH_START: &str = "it takes part in nothing any more; ask another node, stop this one, move its data folder \
    away and start it with a fresh one: it joins as a new node";

fn there(node: NodeId) -> Refusal {
    let needs = "it is heard of, so it is not gone for ever; stop it first, or let it drain: only if you are sure, say \
                 so (--force), and it stops by itself";
    Refusal::State { name: format!("node {node}").into(), status: "there".into(), needs: needs.into() }
}

/// One word, for people.
fn said(word: &Forgotten) -> String {
    let by = if word.by.is_empty() { String::new() } else { format!(" by {}", word.by) };
    format!("{} (forgotten{by} at {})", word.node, crate::schedule::shown(word.at))
}

/// Why there is no connection to it.
pub(crate) fn for_ever(peer: NodeId) -> Refusal {
    let needs = "an operator said that it is gone for ever; it can join again with a fresh data folder alone".into();
    Refusal::State { name: format!("node {peer}").into(), status: "forgotten".into(), needs }
}

#[cfg(test)]
mod tests;
