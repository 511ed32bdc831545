//! The register of tokens: which were issued, and which are revoked, on every
//! node alike.
//!
//! A token holds without being in here; the register is what people list, and
//! what takes a token back. Entries only ever gain facts (issued, then revoked),
//! so any two registers are joined without a conflict, in any order, and no
//! revocation is lost when two are made at once. An entry goes when its token
//! has expired.

use crate::authority::{Role, TokenId};
use crate::command::Refusal;
use crate::effect::{Entry, Key};
use crate::ids::NodeId;
use crate::limits;
use crate::message::Message;
use crate::node::Node;
use crate::requests::Origin;
use crate::time::{Millis, Unix};
use crate::token::{Caller, LIFETIME, Token};
use crate::view::Reply;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of a token. The token itself is nowhere kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issued {
    /// Its id.
    pub id: TokenId,
    /// Whose it is; empty: it was made offline, and only its id was told.
    pub subject: Arc<str>,
    /// Its role, when it was issued.
    pub role: Option<Role>,
    /// Its limits, in words.
    pub limits: Arc<str>,
    /// Who issued it.
    pub by: Arc<str>,
    /// When.
    pub at: Unix,
    /// When it ends by itself.
    pub expires: Unix,
    /// Since when it is refused.
    pub revoked: Option<Unix>,
}

impl Issued {
    /// All that is known to either. The same in whatever order it is joined.
    #[must_use]
    pub fn join(self, other: Issued) -> Issued {
        let revoked = match (self.revoked, other.revoked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // One that was issued says more than one of which only the id is known;
        // two that differ otherwise are of no honest node, and one of them wins.
        let facts = |i: Issued| Issued { revoked: None, ..i };
        let (ours, theirs) = (facts(self), facts(other));
        let rank = |i: &Issued| (!i.subject.is_empty(), i.clone());
        let winner = if rank(&ours) >= rank(&theirs) { ours } else { theirs };
        Issued { revoked, ..winner }
    }

    /// Spread bits of all that it says.
    fn hash64(&self) -> u64 {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.id.0);
        for text in [&self.subject, &self.limits, &self.by] {
            hash.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        }
        let role = self.role.map_or(0, |role| role as u64);
        for number in [role, self.at.0, self.expires.0, self.revoked.map_or(0, |at| at.0.saturating_add(1))] {
            hash.update(&number.to_be_bytes());
        }
        u64::from_be_bytes(hash.finalize().as_bytes()[..8].try_into().expect("8 of 32"))
    }
}

/// All entries of a node.
#[derive(Debug, Default)]
pub(crate) struct Register {
    entries: BTreeMap<TokenId, Issued>,
    /// Sum over the entries: equal where the registers are.
    digest: u64,
    /// Grows with each revocation that becomes known, and each that goes.
    changes: u64,
    /// Revocations that wait for a majority.
    waiting: Vec<RegisterWait>,
    /// When a peer was last told everything.
    told: BTreeMap<NodeId, Millis>,
}

/// An entry that a majority is to have.
#[derive(Debug)]
struct RegisterWait {
    origin: Origin,
    entry: Issued,
    left: BTreeSet<NodeId>,
    answered: usize,
    by: Millis,
}

impl Register {
    pub(crate) fn new(entries: Vec<Issued>) -> Register {
        let mut register = Register::default();
        for entry in entries {
            register.insert(entry);
        }
        register
    }

    /// Joins `entry` in; `None`: it says nothing new, or there is no room.
    fn insert(&mut self, entry: Issued) -> Option<&Issued> {
        let id = entry.id;
        let joined = match self.entries.get(&id) {
            Some(before) => {
                let joined = before.clone().join(entry);
                if joined == *before {
                    return None;
                }
                self.digest = self.digest.wrapping_sub(before.hash64());
                joined
            }
            None if self.entries.len() >= limits::REGISTER => return None,
            None => entry,
        };
        self.digest = self.digest.wrapping_add(joined.hash64());
        self.changes += 1;
        self.entries.insert(id, joined);
        self.entries.get(&id)
    }

    fn remove(&mut self, id: TokenId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.digest = self.digest.wrapping_sub(entry.hash64());
            self.changes += 1;
        }
    }

    /// What tells two registers apart.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    fn revokes(&self, ids: &[TokenId]) -> bool {
        ids.iter().any(|id| self.entries.get(id).is_some_and(|entry| entry.revoked.is_some()))
    }
}

impl Node {
    /// Who makes a request that another node sent.
    pub(crate) fn caller_of(&self, by: &crate::message::By) -> Result<Caller, Refusal> {
        let bytes = match by {
            crate::message::By::Node => return Ok(Caller::Node),
            crate::message::By::Token(bytes) => bytes,
        };
        let denied = |problem: String| Refusal::Denied { problem: problem.into() };
        let Some(root) = &self.config.root else {
            return Err(denied("this node has no key to verify tokens with".to_owned()));
        };
        let token = Token::from_bytes(bytes).and_then(|token| root.verify(token, self.wall()));
        match token {
            Ok(bearer) => Ok(Caller::Bearer(Arc::new(bearer))),
            Err(error) => Err(denied(format!("the caller's token does not hold on {}: {error}", self.id))),
        }
    }

    /// Whether `caller` may ask for `request` at all.
    pub(crate) fn permit(&self, caller: &Caller, request: &crate::Request) -> Result<(), Refusal> {
        let Some(authority) = caller.authority() else { return Ok(()) };
        if self.register.revokes(&authority.ids) {
            return Err(Refusal::Denied { problem: "this token was revoked".into() });
        }
        authority.allows(request)
    }

    pub(crate) fn on_issue(&mut self, origin: Origin, entry: Issued) {
        let issued = self.register.entries.values().filter(|e| e.revoked.is_none()).count();
        if issued >= limits::TOKENS {
            return self.answer(origin, Err(full("list of tokens", limits::TOKENS)));
        }
        self.enter(origin, entry);
    }

    pub(crate) fn on_revoke(&mut self, origin: Origin, id: TokenId) {
        let at = self.wall();
        let unknown = Issued {
            id,
            subject: "".into(),
            role: None,
            limits: "".into(),
            by: "".into(),
            at,
            expires: at + LIFETIME,
            revoked: None,
        };
        let entry = self.register.entries.get(&id).cloned().unwrap_or(unknown);
        self.enter(origin, Issued { revoked: entry.revoked.or(Some(at)), ..entry });
    }

    /// Enters it here, and answers when a majority has it too.
    fn enter(&mut self, origin: Origin, entry: Issued) {
        let known = self.register.entries.contains_key(&entry.id);
        if !known && self.register.entries.len() >= limits::REGISTER {
            return self.answer(origin, Err(full("register of tokens", limits::REGISTER)));
        }
        self.adopt_issued(entry.clone());
        let left: BTreeSet<_> = self.live_members().collect();
        for node in &left {
            let (digest, entries) = (self.register.digest, vec![entry.clone()]);
            self.send(*node, Message::Tokens { digest, entries, answer: false });
        }
        let by = self.now + self.config.request_timeout;
        self.register.waiting.push(RegisterWait { origin, entry, left, answered: 1, by });
        self.finish_entering();
    }

    fn adopt_issued(&mut self, entry: Issued) {
        let wall = self.wall();
        if wall > Unix(0) && entry.expires + KEPT_AFTER < wall {
            return;
        }
        if let Some(entry) = self.register.insert(entry).cloned() {
            self.persist(Entry::Token(entry));
        }
    }

    /// Another node says what it has, or repeats what it took from here.
    pub(crate) fn on_tokens(&mut self, from: NodeId, digest: u64, entries: Vec<Issued>, answer: bool) {
        let told: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        for entry in &entries {
            self.adopt_issued(entry.clone());
        }
        if answer {
            for wait in &mut self.register.waiting {
                let same = |e: &Issued| e.id == wait.entry.id && e.clone().join(wait.entry.clone()) == *e;
                if entries.iter().any(same) && wait.left.remove(&from) {
                    wait.answered += 1;
                }
            }
            return self.finish_entering();
        }
        let alike = digest == self.register.digest;
        let ours = self.register.entries.values().filter(|e| !alike || told.contains(&e.id)).cloned().collect();
        self.send(from, Message::Tokens { digest: self.register.digest, entries: ours, answer: true });
    }

    /// A peer's beat says what its register adds up to; `None`: it has none.
    pub(crate) fn on_digest(&mut self, from: NodeId, digest: Option<u64>) {
        let now = self.now;
        if digest.is_none_or(|digest| digest == self.register.digest) {
            return;
        }
        if self.register.told.get(&from).is_some_and(|at| now < *at + TELL_AGAIN) {
            return;
        }
        self.register.told.retain(|_, at| now < *at + TELL_AGAIN);
        self.register.told.insert(from, now);
        let entries = self.register.entries.values().cloned().collect();
        self.send(from, Message::Tokens { digest: self.register.digest, entries, answer: false });
    }

    pub(crate) fn finish_entering(&mut self) {
        let now = self.now;
        let live: BTreeSet<_> = self.live_members().collect();
        let done = |wait: &mut RegisterWait| {
            wait.left.retain(|node| live.contains(node));
            wait.left.is_empty() || now >= wait.by
        };
        let ended: Vec<_> = self.register.waiting.extract_if(.., done).collect();
        let members = self.members.len() + 1;
        for wait in ended {
            let reply = if wait.answered * 2 <= members && members > 2 {
                let problem = format!(
                    "only {} of {members} nodes have confirmed it; it is in force there, and reaches the others when \
                     they can be reached",
                    wait.answered
                );
                Err(Refusal::Unavailable { problem: problem.into(), retry_after: self.config.lease })
            } else {
                Ok(Reply::Token(Box::new(wait.entry)))
            };
            self.answer(wait.origin, reply);
        }
    }

    /// Gives up what waited for too long, and forgets tokens whose time is over.
    pub(crate) fn tend_register(&mut self) {
        self.finish_entering();
        let wall = self.wall();
        if wall == Unix(0) {
            return;
        }
        let over: Vec<_> =
            self.register.entries.values().filter(|e| e.expires + KEPT_AFTER < wall).map(|e| e.id).collect();
        for id in over {
            self.register.remove(id);
            self.erase(Key::Token(id));
        }
    }

    pub(crate) fn on_query_tokens(&mut self, origin: Origin) {
        let all = self.register.entries.values().cloned().collect();
        self.answer(origin, Ok(Reply::Tokens(all)));
    }

    /// Tokens that are refused though their time is not over, and a number that
    /// is another whenever these are others.
    #[must_use]
    pub fn revoked_tokens(&self) -> (u64, BTreeSet<TokenId>) {
        let revoked = self.register.entries.values().filter(|e| e.revoked.is_some()).map(|e| e.id);
        (self.register.changes, revoked.collect())
    }

    /// The number alone; cheap.
    #[must_use]
    pub fn register_changes(&self) -> u64 {
        self.register.changes
    }
}

fn full(what: &str, limit: usize) -> Refusal {
    let retry_after = Millis(60_000);
    Refusal::Full { what: what.into(), limit: limit as u64, retry_after }
}

/// How long an entry outlives its token: the clocks of nodes differ, and a node
/// whose clock is behind must not take it for valid.
const KEPT_AFTER: Millis = Millis(24 * 3_600_000);
/// How often a peer whose register differs is told everything: clocks that
/// differ make registers differ for a while.
const TELL_AGAIN: Millis = Millis(5_000);

#[cfg(test)]
mod tests;
