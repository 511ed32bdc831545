//! Limits across the mesh: how many tasks of a type, a tag or a fairness key may
//! run at once, or start in a period.
//!
//! Each limit has a lender, the first live member in rendezvous order of its
//! name. Owners hold permits from it, in slices that last one lease, and grant
//! within them without asking; they ask each half second for as long as they
//! use or want any. Both sides speak in totals, and an owner takes only the answer
//! to its newest question: so a lost, doubled or late message costs nothing. What
//! an owner is to give back is free when its next question shows that it knows.
//!
//! What an owner was lent counts for `TERM` leases after its last word: by then
//! its heirs have reported its tasks. A new lender lends nothing for as long. A
//! node that hears at most half of the members that are not away lends nothing.
//! So more than the limit may be granted only where heirs take longer, or where
//! two nodes take themselves for the lender.

use crate::config::Planted;
use crate::ids::{NodeId, rendezvous};
use crate::limits;
use crate::message::{Message, Permit, PermitAsk};
use crate::node::Node;
use crate::task::Spec;
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of which tasks.
    pub subject: Subject,
    /// How many.
    pub bound: Bound,
}

/// The tasks that a limit is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Those of a type.
    Type(Arc<str>),
    /// Those with a tag.
    Tag(Arc<str>),
    /// Those with a fairness key.
    Key(Arc<str>),
}

/// How many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Granted at once.
    Running(u32),
    /// Granted in a period.
    Rate {
        /// How many.
        starts: u32,
        /// 1 s to a day.
        period: Millis,
    },
}

impl Limit {
    /// Reads `type:exec`, `tag:api` or `key:ann` with `20` (at once), `100/60s`
    /// (in a period, `s`, `m` or `h`), or both with a space between.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn read(subject: &str, bounds: &str) -> Result<Vec<Limit>, String> {
        if subject.len() > limits::TEXT_BYTES {
            return Err(format!("has a name of {} bytes; at most {} are allowed", subject.len(), limits::TEXT_BYTES));
        }
        let subject = match subject.split_once(':') {
            Some(("type", name)) if !name.is_empty() => Subject::Type(name.into()),
            Some(("tag", name)) if !name.is_empty() => Subject::Tag(name.into()),
            Some(("key", name)) if !name.is_empty() => Subject::Key(name.into()),
            Some(_) | None => return Err(format!("has {subject:?}; it must be type:…, tag:… or key:…")),
        };
        let bounds = bounds.split_whitespace().map(Bound::read).collect::<Result<Vec<_>, _>>()?;
        if bounds.is_empty() {
            return Err("has a limit without a number".to_owned());
        }
        Ok(bounds.into_iter().map(|bound| Limit { subject: subject.clone(), bound }).collect())
    }

    fn covers(&self, spec: &Spec) -> bool {
        match &self.subject {
            Subject::Type(name) => *name == spec.task_type,
            Subject::Tag(name) => spec.tags.contains(name),
            Subject::Key(name) => spec.fairness_key.as_ref() == Some(name),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subject, self.bound)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Type(name) => write!(f, "type:{name}"),
            Subject::Tag(name) => write!(f, "tag:{name}"),
            Subject::Key(name) => write!(f, "key:{name}"),
        }
    }
}

impl Bound {
    fn read(text: &str) -> Result<Bound, String> {
        let bad = || format!("has {text:?}; it must be like 20 or 100/60s");
        let number = |text: &str| text.parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(bad);
        let Some((starts, period)) = text.split_once('/') else { return Ok(Bound::Running(number(text)?)) };
        let unit = period.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let seconds = match &period[unit..] {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(bad()),
        };
        let period = u64::from(number(&period[..unit])?) * seconds * 1_000;
        if period > DAY_MS {
            return Err(bad());
        }
        Ok(Bound::Rate { starts: number(starts)?, period: Millis(period) })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Running(n) => write!(f, "{n}"),
            Bound::Rate { starts, period } => write!(f, "{starts}/{}s", period.0 / 1_000),
        }
    }
}

/// More than any mesh runs at once.
const MOST: u32 = 10_000_000;
const DAY_MS: u64 = 86_400_000;
/// Leases for which a silent owner's permits count: one to be missed, and as
/// much for each of two claims that follow.
const TERM: u64 = 3;
/// An owner that used up what it was lent asks for more after this.
const REASK: Millis = Millis(50);
/// And one that was not answered after this.
const UNANSWERED: Millis = Millis(1_000);

/// What this node holds of each limit, and what it has lent.
pub(crate) struct Permits {
    limits: Vec<Limit>,
    held: Vec<Held>,
    books: Vec<Book>,
    /// Limits that kept a ready task back in this round.
    short: BTreeSet<usize>,
    /// More is allowed than when the queue was last looked at.
    more: bool,
}

/// An owner's side.
#[derive(Default)]
struct Held {
    /// Granted now, or since this node started where it is a rate.
    used: u64,
    /// The most that may be.
    allowed: u64,
    until: Millis,
    asked: Option<Millis>,
    /// What came of the newest question.
    answer: Answer,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    None,
    /// It may grant more.
    More,
    /// It may not: it is told when that changes.
    NoMore,
}

/// A lender's side.
#[derive(Default)]
struct Book {
    since: Option<Millis>,
    loans: BTreeMap<NodeId, Loan>,
    /// Starts to lend, in thousandths, and when that was counted.
    level: u64,
    filled: Millis,
}

/// What one owner said and was told.
struct Loan {
    used: u64,
    wanted: u64,
    allowed: u64,
    /// The most that it may have granted until its next question.
    cap: u64,
    asked: Millis,
    until: Millis,
    /// Since when it wants and has none.
    waits: Option<Millis>,
}

impl Permits {
    pub(crate) fn new(limits: Vec<Limit>) -> Permits {
        Permits {
            held: limits.iter().map(|_| Held::default()).collect(),
            books: limits.iter().map(|_| Book::default()).collect(),
            short: BTreeSet::new(),
            more: false,
            limits,
        }
    }

    /// The limits that a task is under.
    pub(crate) fn over(limits: &[Limit], spec: &Spec) -> Vec<u16> {
        let over = limits.iter().take(limits::LIMITS).enumerate().filter(|(_, limit)| limit.covers(spec));
        over.map(|(n, _)| n as u16).collect()
    }

    /// The first of these of which this node holds no permit.
    pub(crate) fn reached(&self, over: &[u16], now: Millis) -> Option<&Limit> {
        let n = over.iter().map(|n| usize::from(*n)).find(|n| {
            let held = &self.held[*n];
            held.used >= held.allowed || now >= held.until
        })?;
        Some(&self.limits[n])
    }

    /// Whether more became allowed since this was last asked.
    pub(crate) fn got_more(&mut self) -> bool {
        std::mem::take(&mut self.more)
    }

    /// A ready task waits for these.
    pub(crate) fn want(&mut self, over: &[u16]) {
        self.short.extend(over.iter().map(|n| usize::from(*n)));
    }

    /// A task is granted, here or by the owner before.
    pub(crate) fn hold(&mut self, over: &[u16]) {
        for n in over {
            if matches!(self.limits[usize::from(*n)].bound, Bound::Running(_)) {
                self.held[usize::from(*n)].used += 1;
            }
        }
    }

    pub(crate) fn let_go(&mut self, over: &[u16]) {
        for n in over {
            let held = &mut self.held[usize::from(*n)];
            if matches!(self.limits[usize::from(*n)].bound, Bound::Running(_)) {
                held.used = held.used.saturating_sub(1);
            }
        }
    }

    /// A task starts.
    pub(crate) fn spend(&mut self, over: &[u16]) {
        for n in over {
            if matches!(self.limits[usize::from(*n)].bound, Bound::Rate { .. }) {
                self.held[usize::from(*n)].used += 1;
            }
        }
    }
}

impl Book {
    /// The owner's new total, from what it says it uses and wants.
    fn lend(&mut self, bound: Bound, from: NodeId, now: Millis, open: Lending) -> u64 {
        let Some(loan) = self.loans.get(&from) else { return 0 };
        let (used, wanted, had) = (loan.used, loan.wanted, loan.allowed);
        let allowed = match (bound, open) {
            (_, Lending::NotYet) => used,
            (Bound::Running(n), Lending::Freely) => u64::from(n),
            (Bound::Running(n), Lending::Open) => self.slots_for(u64::from(n), from, now),
            (Bound::Rate { .. }, Lending::Open | Lending::Freely) => {
                let left = had.saturating_sub(used);
                let more = wanted.saturating_sub(left).min(self.level / 1_000);
                self.level -= more * 1_000;
                used + left + more
            }
        };
        if let Some(loan) = self.loans.get_mut(&from) {
            loan.allowed = allowed;
            loan.cap = loan.cap.max(allowed);
            loan.waits = (wanted > 0 && allowed <= used).then(|| loan.waits.unwrap_or(now));
        }
        allowed
    }

    /// Who holds more than its part gives back as its tasks end, as long as
    /// others want some; who has waited longest is served first.
    fn slots_for(&self, n: u64, from: NodeId, now: Millis) -> u64 {
        let asker = &self.loans[&from];
        let others = || self.loans.iter().filter(|(node, loan)| **node != from && loan.until > now).map(|(_, l)| l);
        let taken: u64 = others().map(|l| l.cap).sum();
        let waiting = others().any(|l| l.waits.is_some());
        let before = others().filter(|l| l.waits.is_some_and(|since| asker.waits.is_none_or(|own| since < own)));
        let owed = if asker.used == 0 { before.count() as u64 } else { 0 };
        let claimants = 1 + others().filter(|l| l.used + l.wanted > 0).count() as u64;
        let part = if asker.used == 0 { (n / claimants).max(1) } else { n / claimants };
        let most = asker.used + asker.wanted;
        let most = if waiting { most.min(part) } else { most };
        most.min(n.saturating_sub(taken).saturating_sub(owed))
    }

    fn refill(&mut self, bound: Bound, now: Millis) {
        let Bound::Rate { starts, period } = bound else { return };
        // At most a day's worth of a rate that is bounded: far from overflow.
        let span = now.since(self.filled).0.min(DAY_MS);
        let starts = u64::from(starts);
        let more = span * starts * 1_000 / period.0.max(1);
        if more > 0 {
            self.level = (self.level + more).min(starts.div_ceil(10) * 1_000);
            // What is left of this span counts for the next.
            self.filled = now - Millis((span * starts * 1_000 % period.0.max(1)) / (starts * 1_000));
        }
    }
}

/// Whether a lender lends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lending {
    Open,
    NotYet,
    /// Planted.
    Freely,
}

impl Node {
    /// Asks for what kept ready tasks back.
    pub(crate) fn ask_for_short(&mut self) {
        let now = self.now;
        let mut short = std::mem::take(&mut self.permits.short);
        short.retain(|n| {
            let held = &self.permits.held[*n];
            held.asked.is_none_or(|at| match held.answer {
                Answer::More => now.since(at) >= REASK,
                Answer::None => now.since(at) >= UNANSWERED,
                Answer::NoMore => false,
            })
        });
        self.ask_for_permits(short);
    }

    /// Renews what is used or wanted, and looks after what this node lends.
    pub(crate) fn tend_permits(&mut self) {
        if self.permits.limits.is_empty() {
            return;
        }
        let now = self.now;
        let ready = self.queue.ready_by_limit();
        let mut renew = BTreeSet::new();
        for (n, held) in self.permits.held.iter().enumerate() {
            let in_use = match self.permits.limits[n].bound {
                Bound::Running(_) => held.used > 0,
                Bound::Rate { .. } => false,
            };
            let spare = held.allowed > held.used && held.until > now;
            if held.answer == Answer::None && held.asked.is_some_and(|at| now.since(at) < UNANSWERED) {
                continue;
            }
            if in_use || spare || ready.get(&(n as u16)).is_some_and(|tasks| *tasks > 0) {
                renew.insert(n);
            }
        }
        self.ask_for_permits(renew);
        for n in 0..self.permits.limits.len() {
            let mine = self.lender(n) == self.id;
            let book = &mut self.permits.books[n];
            match (mine, book.since) {
                (true, None) => (book.since, book.filled) = (Some(now), now),
                (false, Some(_)) => *book = Book::default(),
                (true, Some(_)) | (false, None) => {}
            }
            book.loans.retain(|_, loan| loan.until > now);
        }
    }

    fn lender(&self, n: usize) -> NodeId {
        let hash = blake3::hash(self.permits.limits[n].to_string().as_bytes());
        let place = u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32"));
        rendezvous(place, self.live_members().chain([self.id])).first().copied().unwrap_or(self.id)
    }

    fn ask_for_permits(&mut self, of: BTreeSet<usize>) {
        if of.is_empty() {
            return;
        }
        let now = self.now;
        let ready = self.queue.ready_by_limit();
        let mut asks: BTreeMap<NodeId, Vec<PermitAsk>> = BTreeMap::new();
        for n in of {
            let lender = self.lender(n);
            let held = &mut self.permits.held[n];
            held.asked = Some(now);
            held.answer = Answer::None;
            let holds = if held.until > now { held.allowed } else { 0 };
            let wanted = ready.get(&(n as u16)).copied().unwrap_or(0);
            let limit = self.permits.limits[n].to_string().into();
            asks.entry(lender).or_default().push(PermitAsk { limit, asked: now, used: held.used, holds, wanted });
        }
        for (lender, asks) in asks {
            self.send(lender, Message::AskPermits(asks));
        }
    }

    fn term(&self) -> Millis {
        Millis(self.config.lease.0 * TERM)
    }

    fn limit_named(&self, name: &str) -> Option<usize> {
        self.permits.limits.iter().position(|limit| limit.to_string() == name)
    }

    pub(crate) fn on_ask_permits(&mut self, from: NodeId, asks: Vec<PermitAsk>) {
        let mut told: BTreeMap<NodeId, Vec<Permit>> = BTreeMap::new();
        for ask in asks {
            let Some(n) = self.limit_named(&ask.limit) else { continue };
            if self.lender(n) != self.id || !self.hears_most() {
                continue;
            }
            self.lend(n, from, &ask, &mut told);
        }
        for (owner, permits) in told {
            self.send(owner, Message::Permits(permits));
        }
    }

    fn lend(&mut self, n: usize, from: NodeId, ask: &PermitAsk, told: &mut BTreeMap<NodeId, Vec<Permit>>) {
        let (now, term) = (self.now, self.term());
        let alone = self.members.is_empty();
        let (bound, book) = (self.permits.limits[n].bound, &mut self.permits.books[n]);
        let since = *book.since.get_or_insert(now);
        let open = match self.config.planted {
            Some(Planted::LendFreely) => Lending::Freely,
            _ if alone || now >= since + term => Lending::Open,
            _ => Lending::NotYet,
        };
        book.refill(bound, now);
        if book.loans.get(&from).is_some_and(|loan| loan.until > now && loan.asked > ask.asked) {
            return;
        }
        // A node that restarted counts from the beginning.
        let old = book.loans.remove(&from).filter(|loan| loan.until > now && loan.used <= ask.used);
        let running = matches!(bound, Bound::Running(_));
        let allowed = old.as_ref().filter(|_| !running).map_or(ask.used, |loan| loan.allowed);
        let waits = old.and_then(|loan| loan.waits);
        let (used, wanted, asked, cap) = (ask.used, ask.wanted, ask.asked, ask.used.max(ask.holds));
        book.loans.insert(from, Loan { used, wanted, allowed, cap, asked, until: now + term, waits });
        let limit: Arc<str> = ask.limit.clone();
        let mut tell = |owner, asked, allowed| {
            told.entry(owner).or_default().push(Permit { limit: limit.clone(), asked, allowed });
        };
        tell(from, ask.asked, book.lend(bound, from, now, open));
        // What it gave back may be what others wait for.
        let mut waiting: Vec<_> = book.loans.iter().filter_map(|(node, l)| Some((l.waits?, *node, l.asked))).collect();
        waiting.retain(|(_, node, _)| *node != from);
        waiting.sort_unstable();
        for (_, owner, asked) in waiting {
            let allowed = book.lend(bound, owner, now, open);
            if book.loans[&owner].waits.is_none() {
                tell(owner, asked, allowed);
            }
        }
    }

    /// More than half of the members that are not away, itself included.
    fn hears_most(&self) -> bool {
        let present = 1 + self.members.keys().filter(|n| !self.is_away(**n)).count();
        let heard = 1 + self.live_members().count();
        heard * 2 > present
    }

    pub(crate) fn on_permits(&mut self, from: NodeId, permits: &[Permit]) {
        let lease = self.config.lease;
        for permit in permits {
            let Some(n) = self.limit_named(&permit.limit) else { continue };
            if self.lender(n) != from {
                continue;
            }
            let held = &mut self.permits.held[n];
            if held.asked != Some(permit.asked) {
                continue;
            }
            held.answer = if permit.allowed > held.used { Answer::More } else { Answer::NoMore };
            held.allowed = permit.allowed;
            held.until = permit.asked + lease;
            if held.used < held.allowed {
                self.permits.more = true;
                self.queue.stir();
            }
        }
    }
}

#[cfg(test)]
mod tests;
