//! What a batch comes down to: for each key its last write, in an order that
//! is harmless wherever it is cut short.

use super::Write;
use super::format::{self, Kind};
use std::ops::Range;
use taskmesh_core::Entry;

/// A batch as puts and deletes of keys. Kept from batch to batch for its buffers.
#[derive(Debug, Default)]
pub(super) struct Plan {
    keys: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    key: Range<usize>,
    /// Of the write in the batch.
    index: usize,
}

/// One key and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    Put(&'a [u8], &'a Entry),
    Delete(&'a [u8]),
}

impl Plan {
    /// Takes the place of the last plan.
    pub(super) fn make(&mut self, batch: &[Write<'_>]) {
        let Plan { keys, steps } = self;
        keys.clear();
        steps.clear();
        for (index, write) in batch.iter().enumerate() {
            let mut push = |kind: Kind, name: &[u8]| {
                let start = keys.len();
                keys.push(kind as u8);
                keys.extend_from_slice(name);
                steps.push(Step { key: start..keys.len(), index });
            };
            match write {
                Write::Persist(entry) => format::keys_of_entry(entry, &mut push),
                Write::Forget(name) => format::keys_of_name(name, &mut push),
            }
        }
        // By key, the last write first; then the first of each key is the one.
        steps.sort_unstable_by(|a, b| keys[a.key.clone()].cmp(&keys[b.key.clone()]).then(b.index.cmp(&a.index)));
        steps.dedup_by(|later, first| keys[later.key.clone()] == keys[first.key.clone()]);
    }

    /// What to do: puts by key, so specs come before their records; then
    /// deletes the other way round, so records go before their specs.
    pub(super) fn actions<'a>(&'a self, batch: &'a [Write<'a>]) -> impl Iterator<Item = Action<'a>> {
        let puts = self.steps.iter().filter_map(|step| match batch[step.index] {
            Write::Persist(entry) => Some(Action::Put(&self.keys[step.key.clone()], entry)),
            Write::Forget(_) => None,
        });
        let deletes = self.steps.iter().rev().filter_map(|step| match batch[step.index] {
            Write::Forget(_) => Some(Action::Delete(&self.keys[step.key.clone()])),
            Write::Persist(_) => None,
        });
        puts.chain(deletes)
    }

    /// Keys that are written or removed.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use taskmesh_core::{Key, TaskId, Unix};

    fn describe(batch: &[Write<'_>]) -> Vec<String> {
        let mut plan = Plan::default();
        plan.make(batch);
        let text = |key: &[u8]| format::name_of(key).unwrap().to_string();
        plan.actions(batch)
            .map(|action| match action {
                Action::Put(key, Entry::Tombstone(_, at)) => format!("+{} {}", text(key), at.0),
                Action::Put(key, _) => format!("+{}", text(key)),
                Action::Delete(key) => format!("-{}", text(key)),
            })
            .collect()
    }

    #[test]
    fn the_last_write_of_a_key_is_the_only_one() {
        let [a, b, c] = [1, 2, 3].map(|at| Entry::Tombstone(7, Unix(at)));
        let other = Entry::Tombstone(3, Unix(9));
        let batch = [&a, &b, &other, &c].map(Write::Persist);
        assert_eq!(describe(&batch), ["+tombstone 0000000000000003 9", "+tombstone 0000000000000007 3"]);
        let gone = Key::Tombstone(7);
        assert_eq!(describe(&[Write::Persist(&a), Write::Forget(&gone)]), ["-tombstone 0000000000000007"]);
        assert_eq!(describe(&[Write::Forget(&gone), Write::Persist(&a)]), ["+tombstone 0000000000000007 1"]);
    }

    #[test]
    fn specs_come_before_records_and_go_after_them() {
        let mut chance = taskmesh_core::prng::Prng::new(1);
        let task = TaskId::new("a").unwrap();
        let spec = Entry::Spec(task.clone(), crate::store::tests::sample::spec(&mut chance).into());
        let record = crate::store::tests::sample::record(&mut chance, &task);
        let gone = Key::Task(TaskId::new("b").unwrap());
        let batch = [Write::Forget(&gone), Write::Persist(&record), Write::Persist(&spec)];
        assert_eq!(describe(&batch), ["+spec of a", "+record of a", "-record of b", "-spec of b"]);
    }
}
