//! The audit log: one line of JSON for each call that would change something,
//! whatever came of it: who, what, from where, with which outcome. Lines are
//! only ever appended, and never hold a token or what a task is given.
//!
//! A line is handed to the system before the call is answered, so it outlives
//! the process; it is flushed to the disk within a second. Full files are set
//! aside, and the oldest goes: the log has a bound. What can't be written is
//! said in the node's own log, and the call goes on: it was done already.

use super::auth::Visitor;
use crate::driver::wall_clock;
use crate::ops::value::{Object, time};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Its folder in the data folder.
pub const FOLDER: &str = "audit";
/// A file that has reached this is set aside.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files that are kept, the one that is written to included.
const FILES: u32 = 8;
/// The longest line that is read: what is written is much shorter.
const LINE_BYTES: u64 = 64 * 1024;
/// How often what was written is flushed to the disk.
const FLUSH: Duration = Duration::from_secs(1);

/// One call.
#[derive(Clone, Debug)]
pub struct Act(Object);

impl Act {
    /// `visitor` called `operation` about what has these ids; `outcome` is `ok`
    /// or a code.
    pub fn of<'a>(
        visitor: &Visitor,
        operation: &str,
        outcome: &str,
        ids: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Act {
        let ids: Object = ids.into_iter().map(|(name, id)| (name.to_owned(), Value::from(id))).collect();
        let act = json!({
            "time": time(wall_clock()),
            "operation": operation,
            "outcome": outcome,
            "subject": visitor.caller.subject().map(|subject| &**subject),
            "role": visitor.authority().map(|authority| authority.role.name()),
            "token": visitor.token().map(|id| id.to_string()),
            "transport": visitor.transport,
            "peer": visitor.peer.as_deref(),
            "ids": ids,
        });
        let Value::Object(act) = act else { unreachable!("written as an object above") };
        Act(act)
    }
}

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    log: Arc<Mutex<Log>>,
    failures: Arc<AtomicU64>,
}

struct Log {
    folder: PathBuf,
    file: File,
    bytes: u64,
    file_bytes: u64,
    /// Something was written since the last flush.
    dirty: bool,
    /// The last line could not be written: said once, until one can.
    failing: bool,
}

impl Audit {
    /// Opens the log in the data folder `data`, and makes it if need be.
    ///
    /// # Errors
    /// The folder or the file can't be made or written.
    pub fn open(data: &Path) -> io::Result<Audit> {
        Audit::open_with(data, FILE_BYTES)
    }

    fn open_with(data: &Path, file_bytes: u64) -> io::Result<Audit> {
        let folder = data.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let file = open_file(&folder)?;
        let bytes = file.metadata()?.len();
        let mut log = Log { folder, file, bytes, file_bytes, dirty: false, failing: false };
        log.end_a_cut_line()?;
        Ok(Audit { log: Arc::new(Mutex::new(log)), failures: Arc::default() })
    }

    /// Appends `act`.
    pub fn record(&self, act: &Act) {
        let mut line = Value::Object(act.0.clone()).to_string();
        line.push('\n');
        let mut log = self.lock();
        match log.append(line.as_bytes()) {
            Ok(()) => log.failing = false,
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let again = std::mem::replace(&mut log.failing, true);
                if !again {
                    tracing::error!(%error, "the audit log can't be written: calls go unrecorded until it can");
                }
            }
        }
    }

    /// Writes and flushes that failed since the log was opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Flushes to the disk what was written, now and then, until `shutdown`.
    pub async fn keep_flushed(self, shutdown: CancellationToken) {
        let mut running = true;
        while running {
            running = tokio::time::timeout(FLUSH, shutdown.cancelled()).await.is_err();
            let audit = self.clone();
            let _ = tokio::task::spawn_blocking(move || audit.flush()).await;
        }
    }

    /// Flushes to the disk, without keeping others from writing meanwhile.
    fn flush(&self) {
        let file = {
            let mut log = self.lock();
            if !std::mem::take(&mut log.dirty) {
                return;
            }
            log.file.try_clone()
        };
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the audit log could not be flushed to the disk");
            self.lock().dirty = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.file_bytes {
            self.set_aside()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// The files move up by one, and the last falls off.
    fn set_aside(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for n in (0..FILES - 1).rev() {
            let from = path(&self.folder, n);
            match fs::rename(&from, path(&self.folder, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        self.file = open_file(&self.folder)?;
        self.bytes = 0;
        File::open(&self.folder)?.sync_all()
    }

    /// A line that a crash cut short must not swallow the next one.
    fn end_a_cut_line(&mut self) -> io::Result<()> {
        let content = fs::read(path(&self.folder, 0))?;
        if content.last().is_some_and(|byte| *byte != b'\n') {
            self.append(b"\n")?;
        }
        Ok(())
    }
}

fn open_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path(folder, 0))
}

/// File `n`, 0 being the one that is written to.
fn path(folder: &Path, n: u32) -> PathBuf {
    folder.join(if n == 0 { "audit.jsonl".to_owned() } else { format!("audit.{n}.jsonl") })
}

/// Calls `each` with every line of the log in the data folder `data`, oldest
/// first; the node may be running or not. What is no line of JSON, as a crash
/// may leave one, is passed over.
///
/// # Errors
/// A file can't be read.
pub fn read(data: &Path, mut each: impl FnMut(Value)) -> io::Result<()> {
    let folder = data.join(FOLDER);
    for n in (0..FILES).rev() {
        let file = match File::open(path(&folder, n)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? > 0 {
            if let Ok(act @ Value::Object(_)) = serde_json::from_slice(&line) {
                each(act);
            }
            line.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmesh_core::token::Caller;

    fn act(n: u64) -> Act {
        let visitor = Visitor { caller: Caller::Node, transport: "http", peer: None };
        Act::of(&visitor, "task_cancel", "ok", [("task_id", n.to_string().as_str())])
    }

    fn ids(data: &Path) -> Vec<u64> {
        let mut found = Vec::new();
        let number = |act: &Value| act["ids"]["task_id"].as_str().and_then(|id| id.parse::<u64>().ok());
        read(data, |act| found.extend(number(&act))).expect("readable");
        found
    }

    #[test]
    fn lines_are_read_in_the_order_that_they_were_written_in() {
        let data = tempfile::tempdir().expect("a folder");
        for half in [0..5, 5..10] {
            let audit = Audit::open_with(data.path(), 500).expect("opened");
            half.for_each(|n| audit.record(&act(n)));
        }
        assert_eq!(ids(data.path()), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_log_is_bounded_and_the_oldest_lines_go() {
        let data = tempfile::tempdir().expect("a folder");
        let audit = Audit::open_with(data.path(), 1_000).expect("opened");
        (0..200).for_each(|n| audit.record(&act(n)));
        let found = ids(data.path());
        assert_eq!((found.last(), found.first().is_some_and(|first| *first > 100)), (Some(&199), true));
        let files = fs::read_dir(data.path().join(FOLDER)).expect("a folder");
        let bytes: u64 = files.map(|file| file.and_then(|f| f.metadata()).map_or(0, |meta| meta.len())).sum();
        assert!(bytes <= u64::from(FILES) * 1_000, "{bytes}");
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_the_next_line_is_written_again() {
        let data = tempfile::tempdir().expect("a folder");
        let audit = Audit::open(data.path()).expect("opened");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a device of the system");
        let right = std::mem::replace(&mut audit.lock().file, full);
        (0..3).for_each(|n| audit.record(&act(n)));
        assert_eq!(audit.failures(), 3);
        audit.lock().file = right;
        audit.record(&act(3));
        assert_eq!((audit.failures(), ids(data.path())), (3, vec![3]));
    }

    #[test]
    fn a_line_that_a_crash_cut_costs_itself_alone() {
        let data = tempfile::tempdir().expect("a folder");
        Audit::open(data.path()).expect("opened").record(&act(1));
        let file = path(&data.path().join(FOLDER), 0);
        let mut cut = OpenOptions::new().append(true).open(&file).expect("opened");
        cut.write_all(b"{\"time\":\"20").expect("written");
        Audit::open(data.path()).expect("opened").record(&act(2));
        assert_eq!(ids(data.path()), [1, 2]);
    }
}
