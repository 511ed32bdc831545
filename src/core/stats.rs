//! What this node measured of its own tasks in the last hour, by minutes.

use crate::time::{Millis, Unix};
use std::collections::VecDeque;

/// Sums by minute, newest last.
#[derive(Default)]
pub(crate) struct Recent {
    minutes: VecDeque<Minute>,
}

#[derive(Clone, Copy, Default)]
struct Minute {
    at: u64,
    ended: u64,
    failed: u64,
    waits: (u64, u64),
    runs: (u64, u64),
}

const KEPT: usize = 60;
const LATELY: u64 = 5;

impl Recent {
    fn minute(&mut self, wall: Unix) -> &mut Minute {
        let at = wall.0 / 60_000;
        if self.minutes.back().is_none_or(|m| m.at < at) {
            self.minutes.push_back(Minute { at, ..Minute::default() });
        }
        if self.minutes.len() > KEPT {
            self.minutes.pop_front();
        }
        self.minutes.back_mut().expect("pushed above")
    }

    pub(crate) fn waited(&mut self, wall: Unix, wait: Millis) {
        let minute = self.minute(wall);
        minute.waits.0 += wait.0;
        minute.waits.1 += 1;
    }

    pub(crate) fn ended(&mut self, wall: Unix, ran: Option<Millis>, well: Ending) {
        let minute = self.minute(wall);
        minute.ended += 1;
        minute.failed += u64::from(well == Ending::Badly);
        if let Some(ran) = ran {
            minute.runs.0 += ran.0;
            minute.runs.1 += 1;
        }
    }

    fn lately(&self, wall: Unix) -> impl Iterator<Item = &Minute> {
        let first = (wall.0 / 60_000).saturating_sub(LATELY - 1);
        self.minutes.iter().filter(move |m| m.at >= first)
    }

    pub(crate) fn waits(&self, wall: Unix) -> (Millis, u64) {
        let (sum, n) = self.lately(wall).fold((0, 0), |(s, n), m| (s + m.waits.0, n + m.waits.1));
        (Millis(sum), n)
    }

    pub(crate) fn runs(&self, wall: Unix) -> (Millis, u64) {
        let (sum, n) = self.lately(wall).fold((0, 0), |(s, n), m| (s + m.runs.0, n + m.runs.1));
        (Millis(sum), n)
    }

    pub(crate) fn throughput(&self, wall: Unix) -> u64 {
        self.lately(wall).map(|m| m.ended).sum()
    }

    pub(crate) fn history(&self) -> Vec<(Unix, u64, u64)> {
        self.minutes.iter().map(|m| (Unix(m.at * 60_000), m.ended, m.failed)).collect()
    }
}

/// Whether a task ended well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Well,
    Badly,
}
