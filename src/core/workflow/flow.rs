//! How far a workflow has come: which steps ended and how, which are under way,
//! and which are next. It is all in memory and follows from the definition and
//! from how the steps ended: every owner comes to the same.

use super::{Join, OnFailure, Plan};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It completed.
    Well,
    /// It did not: failed, cancelled or expired.
    Badly {
        /// Which of them.
        status: &'static str,
        /// What is known of it.
        error: Arc<str>,
    },
    /// It was never begun.
    Skipped {
        /// Why.
        reason: Arc<str>,
    },
}

impl End {
    /// As references and people see it.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            End::Well => "completed",
            End::Badly { status, .. } => status,
            End::Skipped { .. } => "skipped",
        }
    }

    /// Why it is not `completed`.
    pub(crate) fn why(&self) -> Option<&Arc<str>> {
        match self {
            End::Well => None,
            End::Badly { error, .. } => Some(error),
            End::Skipped { reason } => Some(reason),
        }
    }
}

/// What a step is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for others.
    Waiting,
    /// Its turn has come.
    Ready,
    /// It was begun.
    Begun,
    /// It is over.
    Ended(End),
}

/// How the workflow ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// No step failed that should not.
    Well,
    /// One did.
    Badly(Arc<str>),
}

/// The state of one workflow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) plan: Arc<Plan>,
    phases: Vec<Phase>,
    /// Of the steps that each one depends on: that went well, that ended.
    joined: Vec<(u32, u32)>,
    ready: BTreeSet<usize>,
    begun: usize,
    open: usize,
    /// The first step that makes the workflow fail.
    failed: Option<usize>,
    /// What is to be undone, the next one last; none while steps are open.
    to_undo: Option<Vec<usize>>,
}

impl Flow {
    /// Nothing has begun.
    pub(crate) fn new(plan: Arc<Plan>) -> Flow {
        let steps = plan.len();
        let undoing: Vec<usize> = (0..steps).filter(|n| plan.undoes(*n)).collect();
        let mut flow = Flow {
            phases: vec![Phase::Waiting; steps],
            joined: vec![(0, 0); steps],
            ready: BTreeSet::new(),
            begun: 0,
            open: steps - undoing.len(),
            failed: None,
            to_undo: None,
            plan,
        };
        for n in 0..steps {
            if !flow.plan.undoes(n) && flow.plan.parents(n).is_empty() {
                flow.make_ready(n);
            }
        }
        flow
    }

    pub(crate) fn phase(&self, n: usize) -> &Phase {
        &self.phases[n]
    }

    /// How a step ended, if it did.
    pub(crate) fn end_of(&self, n: usize) -> Option<&End> {
        match &self.phases[n] {
            Phase::Ended(end) => Some(end),
            Phase::Waiting | Phase::Ready | Phase::Begun => None,
        }
    }

    /// Steps that are under way.
    pub(crate) fn begun(&self) -> impl Iterator<Item = usize> + '_ {
        self.phases.iter().enumerate().filter(|(_, phase)| **phase == Phase::Begun).map(|(n, _)| n)
    }

    /// The next step to begin, if one may.
    pub(crate) fn next(&self) -> Option<usize> {
        let most = self.plan.definition.max_concurrent.map_or(usize::MAX, |n| n as usize);
        self.ready.first().copied().filter(|_| self.begun < most)
    }

    /// Steps whose turn has come lose it for the moment…
    pub(crate) fn put_off(&mut self, n: usize) {
        self.ready.remove(&n);
    }

    /// … and have it again.
    pub(crate) fn take_up(&mut self, put_off: Vec<usize>) {
        self.ready.extend(put_off);
    }

    /// Steps whose turn has come.
    pub(crate) fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        self.ready.iter().copied()
    }

    /// A step has begun; one that was not ready by what is known so far, as well.
    pub(crate) fn begin(&mut self, n: usize) {
        if matches!(self.phases[n], Phase::Waiting | Phase::Ready) {
            self.ready.remove(&n);
            self.phases[n] = Phase::Begun;
            self.begun += 1;
        }
    }

    /// A step that seemed to have begun has not.
    pub(crate) fn begin_anew(&mut self, n: usize) {
        if self.phases[n] == Phase::Begun {
            self.begun -= 1;
            self.make_ready(n);
        }
    }

    /// A step has ended. True if that is news.
    pub(crate) fn end(&mut self, n: usize, end: End) -> bool {
        let mut ended = VecDeque::from([(n, end)]);
        let mut news = false;
        while let Some((n, end)) = ended.pop_front() {
            if self.end_of(n).is_some() {
                continue;
            }
            news = true;
            self.close(n, end);
            for child in self.plan.clone().children(n) {
                if let Some(skipped) = self.join(*child, n) {
                    ended.push_back((*child, skipped));
                }
            }
        }
        news
    }

    fn close(&mut self, n: usize, end: End) {
        self.begun -= usize::from(self.phases[n] == Phase::Begun);
        self.ready.remove(&n);
        let fails = matches!(end, End::Badly { .. }) && self.plan.step(n).on_failure != OnFailure::Continue;
        if fails && self.failed.is_none() && !self.plan.undoes(n) {
            self.failed = Some(n);
        }
        self.phases[n] = Phase::Ended(end);
        self.open -= usize::from(!self.plan.undoes(n));
    }

    /// Dependency `parent` of `n` has ended. How `n` ends with it, if it does.
    fn join(&mut self, n: usize, parent: usize) -> Option<End> {
        let went_on = match self.end_of(parent)? {
            End::Well => true,
            End::Badly { .. } => self.plan.step(parent).on_failure == OnFailure::Continue,
            End::Skipped { .. } => false,
        };
        let (well, ended) = &mut self.joined[n];
        *well += u32::from(went_on);
        *ended += 1;
        let (well, ended, all) = (*well, *ended, self.plan.parents(n).len() as u32);
        if self.phases[n] != Phase::Waiting {
            return None;
        }
        let wanted = match self.plan.step(n).join {
            Join::All => all,
            Join::Any => 1,
            Join::Quorum(quorum) => quorum,
            Join::Always => 0,
        };
        if self.plan.step(n).join == Join::Always {
            if ended == all {
                self.make_ready(n);
            }
        } else if well >= wanted {
            self.make_ready(n);
        } else if well + (all - ended) < wanted {
            let how = self.end_of(parent).map_or("", End::status);
            let join = self.plan.step(n).join;
            let reason = format!("it waits for {join} of its dependencies, and {} is {how}", self.plan.name(parent));
            return Some(End::Skipped { reason: reason.into() });
        }
        None
    }

    fn make_ready(&mut self, n: usize) {
        self.phases[n] = Phase::Ready;
        self.ready.insert(n);
    }

    /// What undoes others is next, once everything else has ended: `ended_at`
    /// says when each step did. The latest is undone first.
    pub(crate) fn begin_undoing<T: Ord>(&mut self, ended_at: &dyn Fn(usize) -> Option<T>) {
        if self.open > 0 || self.failed.is_none() {
            return;
        }
        if self.to_undo.is_none() {
            let began = |n: &usize| !matches!(self.end_of(*n), Some(End::Skipped { .. }) | None);
            let mut undone: Vec<_> = (0..self.phases.len())
                .filter(began)
                .filter_map(|n| Some((ended_at(n)?, n, self.plan.undone_by(n)?)))
                .collect();
            undone.sort();
            self.to_undo = Some(undone.into_iter().map(|(_, _, by)| by).collect());
        }
        let Some(left) = &mut self.to_undo else { return };
        while let Some(next) = left.last().copied() {
            match self.phases[next] {
                Phase::Ended(_) => left.pop(),
                Phase::Waiting => {
                    self.phases[next] = Phase::Ready;
                    self.ready.insert(next);
                    return;
                }
                Phase::Ready | Phase::Begun => return,
            };
        }
    }

    /// How it ended, if it did. [`Flow::begin_undoing`] comes first.
    pub(crate) fn over(&self) -> Option<Over> {
        if self.open > 0 || self.to_undo.as_ref().is_some_and(|left| !left.is_empty()) {
            return None;
        }
        let Some(n) = self.failed else { return Some(Over::Well) };
        let how = self.end_of(n).map_or("", End::status);
        let why = self.end_of(n).and_then(End::why).map_or(String::new(), |w| format!(": {w}"));
        Some(Over::Badly(format!("step {} {how}{why}", self.plan.name(n)).into()))
    }
}
