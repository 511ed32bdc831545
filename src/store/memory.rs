//! A store without a disk, for tests of whatever sits above: same bytes, same
//! rules, and failures on order.

use super::assemble::{Assembled, Assembly};
use super::format::{self, Flaw};
use super::plan::{Action, Plan};
use super::{Committed, Poison, Quarantined, Store, StoreError, Write};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use taskmesh_core::Disk;

/// Clones share their content: keep one as the disk that outlives a node.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    rows: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    fails_at: Option<u64>,
    commits: u64,
    poison: Poison,
}

impl Memory {
    /// Empty.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Like this one, but its commit number `n` (from 1) finds the disk full.
    #[must_use]
    pub fn failing_at(self, n: u64) -> Memory {
        Memory { fails_at: Some(n), ..self }
    }

    /// The same content for the next start of the node: no failure and no
    /// poison.
    #[must_use]
    pub fn restarted(&self) -> Memory {
        Memory { rows: self.rows.clone(), ..Memory::default() }
    }

    fn write(&mut self, batch: &[Write<'_>]) -> Result<Committed, StoreError> {
        let start = Instant::now();
        self.commits += 1;
        if self.fails_at == Some(self.commits) {
            return Err(StoreError::DiskFull { folder: PathBuf::from("memory"), problem: "as ordered".to_owned() });
        }
        let mut plan = Plan::default();
        plan.make(batch);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for action in plan.actions(batch) {
            match action {
                Action::Put(key, entry) => {
                    let mut value = Vec::new();
                    format::encode(entry, &mut value).map_err(|e| StoreError::too_large(entry, e))?;
                    bytes += (key.len() + value.len()) as u64;
                    rows.insert(key.to_vec(), value);
                }
                Action::Delete(key) => {
                    bytes += key.len() as u64;
                    rows.remove(key);
                }
            }
        }
        Ok(Committed { entries: plan.len(), bytes, took: start.elapsed(), ..Committed::default() })
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<(Disk, Vec<Quarantined>), StoreError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut assembly = Assembly::default();
        for (key, value) in rows.iter() {
            let name = format::name_of(key).expect("only keys of the format are written");
            let no_file = |_: &format::Envelope<'_>| Err(Flaw::Damaged("there are no files in memory".to_owned()));
            assembly.row(&name, value, no_file).expect("memory does not decay");
        }
        let Assembled { disk, incomplete, seal: _ } = assembly.finish();
        let reports = incomplete.into_iter().map(|(task, problem)| Quarantined::incomplete(task, problem));
        Ok((disk, reports.collect()))
    }

    fn commit(&mut self, batch: &[Write<'_>]) -> Result<Committed, StoreError> {
        self.poison.check()?;
        let result = self.write(batch);
        self.poison.note(result)
    }
}
