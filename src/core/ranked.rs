//! A sorted set that knows how many of its elements are less than a given one:
//! what a queued task is told as its place. A `BTreeSet` would have to count
//! them one by one.

use std::collections::VecDeque;

/// Elements in order, in runs of a bounded length: a change moves part of one
/// run, and a rank adds up the lengths of the runs before.
#[derive(Debug)]
pub(crate) struct Ranked<T> {
    /// None is empty.
    runs: Vec<VecDeque<T>>,
    /// Lengths of the runs, summed as a Fenwick tree ("A new data structure for
    /// cumulative frequency tables", 1994); made anew when a run comes or goes,
    /// which some 256 changes pay for.
    sums: Vec<usize>,
    len: usize,
}

impl<T> Default for Ranked<T> {
    fn default() -> Ranked<T> {
        Ranked { runs: Vec::new(), sums: Vec::new(), len: 0 }
    }
}

/// A longer run is halved. A million elements are then some 4,000 runs.
const RUN: usize = 512;

/// What a change does to the length of a run.
#[derive(Clone, Copy)]
enum Change {
    OneMore,
    OneLess,
}

impl<T: Ord> Ranked<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many elements are less than `element`.
    pub(crate) fn rank(&self, element: &T) -> usize {
        let at = self.run_of(element);
        self.before(at) + self.runs.get(at).map_or(0, |run| run.partition_point(|e| e < element))
    }

    /// Adds an element that may be there already.
    pub(crate) fn insert(&mut self, element: T) {
        let at = self.run_of(&element).min(self.runs.len().saturating_sub(1));
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(VecDeque::from([element]));
            self.len = 1;
            self.sum_up();
            return;
        };
        let Err(place) = run.binary_search(&element) else { return };
        run.insert(place, element);
        self.len += 1;
        if run.len() > RUN {
            let upper = run.split_off(RUN / 2);
            self.runs.insert(at + 1, upper);
            self.sum_up();
        } else {
            self.count(at, Change::OneMore);
        }
    }

    /// Removes an element, if it is there.
    pub(crate) fn remove(&mut self, element: &T) {
        let at = self.run_of(element);
        let Some(run) = self.runs.get_mut(at) else { return };
        let Ok(place) = run.binary_search(element) else { return };
        run.remove(place);
        self.len -= 1;
        if run.is_empty() {
            self.runs.remove(at);
            self.sum_up();
        } else {
            self.count(at, Change::OneLess);
        }
    }

    /// Elements in the runs before the one at `at`.
    fn before(&self, at: usize) -> usize {
        let mut sum = 0;
        let mut node = at;
        while node > 0 {
            sum += self.sums[node - 1];
            node &= node - 1;
        }
        sum
    }

    fn count(&mut self, at: usize, change: Change) {
        let mut node = at + 1;
        while let Some(sum) = self.sums.get_mut(node - 1) {
            match change {
                Change::OneMore => *sum += 1,
                Change::OneLess => *sum -= 1,
            }
            node += node & node.wrapping_neg();
        }
    }

    fn sum_up(&mut self) {
        self.sums.clear();
        self.sums.extend(self.runs.iter().map(VecDeque::len));
        for node in 1..=self.sums.len() {
            let parent = node + (node & node.wrapping_neg());
            if parent <= self.sums.len() {
                self.sums[parent - 1] += self.sums[node - 1];
            }
        }
    }

    /// The run that `element` is in, if it is in any: the first that does not
    /// end before it.
    fn run_of(&self, element: &T) -> usize {
        self.runs.partition_point(|run| run.back().is_some_and(|last| last < element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_and_counts_what_comes_before(
            changes in proptest::collection::vec((any::<bool>(), 0u16..2_000), 0..4_000),
        ) {
            let (mut ranked, mut plain) = (Ranked::default(), BTreeSet::new());
            for (add, n) in changes {
                if add {
                    ranked.insert(n);
                    plain.insert(n);
                } else {
                    ranked.remove(&n);
                    plain.remove(&n);
                }
                prop_assert_eq!(ranked.rank(&n), plain.range(..n).count());
            }
            prop_assert_eq!(ranked.len(), plain.len());
            prop_assert!(ranked.runs.iter().flatten().eq(&plain));
        }
    }
}
