//! What has changed: one watcher for each resource that somebody subscribed to,
//! however many they are.
//!
//! A watcher looks at its resource when a [`Notice`] of this node hints at it,
//! and otherwise every few seconds: what happens on other nodes gives no notice
//! here. For a task it waits with the core's own wait, so that the end of a task
//! is heard at once wherever it ran. It tells of a change only when it sees one.

use super::access::defect;
use super::uri::Uri;
use crate::driver::Handle;
use crate::ops::Failure;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmesh_core::command::{Detail, PeerFilter, Scope};
use taskmesh_core::view::TaskView;
use taskmesh_core::{Millis, Notice, Query, Refusal, Reply, Request, TaskId, limits};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between two looks, while something moves.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks at what has not moved for a while.
const LATE: Duration = Duration::from_secs(15);
/// At least so long from one look at a task to the next, however many hints
/// there are.
const GAP: Duration = Duration::from_millis(200);
/// The same, of what every node of the mesh is asked for.
const WIDE_GAP: Duration = Duration::from_secs(1);
/// A look that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Task(TaskId),
    Queue,
    Workers,
    Peers,
}

impl Topic {
    /// What a resource tells of; `None`: it never changes.
    pub(super) fn of(uri: &Uri) -> Option<Topic> {
        match uri {
            Uri::Task(task) => Some(Topic::Task(task.clone())),
            Uri::Queue => Some(Topic::Queue),
            Uri::Workers => Some(Topic::Workers),
            Uri::Peers => Some(Topic::Peers),
            // A submission never changes.
            Uri::Submission(_) | Uri::Blob { .. } => None,
        }
    }

    fn gap(&self) -> Duration {
        match self {
            Topic::Task(_) => GAP,
            Topic::Queue | Topic::Workers | Topic::Peers => WIDE_GAP,
        }
    }
}

/// What has changed on a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// So that a node without subscribers pays one load for each notice.
    watched: AtomicUsize,
    watchers: Mutex<HashMap<Topic, Arc<Watcher>>>,
}

struct Watcher {
    hint: Notify,
    /// Counts the changes that were seen; 0: nothing was seen yet.
    changes: watch::Sender<u64>,
}

impl Feed {
    /// A notice of this node. Called on the driver's thread: it never waits for
    /// long.
    pub fn tell(&self, notice: &Notice) {
        if self.shared.watched.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (task, rest) = about(notice);
        let watchers = self.shared.watchers();
        let topics = task.map(|task| Topic::Task(task.clone())).into_iter().chain(rest.iter().cloned());
        for topic in topics {
            if let Some(watcher) = watchers.get(&topic) {
                watcher.hint.notify_one();
            }
        }
    }

    /// The changes of `topic` from now on. The first comes soon, without one:
    /// whoever reads after it has missed nothing.
    pub(super) fn changes(&self, topic: Topic, handle: &Handle) -> watch::Receiver<u64> {
        let mut watchers = self.shared.watchers();
        if let Some(watcher) = watchers.get(&topic) {
            let mut changes = watcher.changes.subscribe();
            changes.mark_changed();
            return changes;
        }
        let watcher = Arc::new(Watcher { hint: Notify::new(), changes: watch::Sender::new(0) });
        let changes = watcher.changes.subscribe();
        watchers.insert(topic.clone(), watcher.clone());
        self.shared.watched.store(watchers.len(), Ordering::Relaxed);
        drop(watchers);
        tokio::spawn(watch_over(self.shared.clone(), topic, watcher, handle.clone()));
        changes
    }

    /// Resources that are watched now.
    #[cfg(test)]
    pub(in crate::api) fn watched(&self) -> usize {
        self.shared.watched.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn watchers(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a watcher that nobody listens to; `false`: somebody does again.
    fn forget(&self, topic: &Topic, watcher: &Watcher) -> bool {
        let mut watchers = self.watchers();
        if watcher.changes.receiver_count() > 0 {
            return false;
        }
        watchers.remove(topic);
        self.watched.store(watchers.len(), Ordering::Relaxed);
        true
    }
}

/// The task that a notice is about, and what else may have changed with it.
fn about(notice: &Notice) -> (Option<&TaskId>, &'static [Topic]) {
    const QUEUE: &[Topic] = &[Topic::Queue];
    const RUNS: &[Topic] = &[Topic::Queue, Topic::Workers];
    const MEMBERS: &[Topic] = &[Topic::Peers, Topic::Workers];
    match notice {
        Notice::TaskAccepted { task, .. } | Notice::TaskRetried { task, .. } => (Some(task), QUEUE),
        Notice::TaskGranted { task, .. }
        | Notice::TaskStarted { task, .. }
        | Notice::RunEnded { task, .. }
        | Notice::TaskClosed { task, .. }
        | Notice::LeaseLost { task, .. } => (Some(task), RUNS),
        Notice::OwnerAdopted { task, .. } => (Some(task), &[]),
        Notice::TaskMoved { .. } | Notice::QueuePaused(_) => (None, QUEUE),
        Notice::PeerUp(_) | Notice::PeerLost(_) | Notice::NodeForgotten(_) | Notice::CastOut(_) => (None, MEMBERS),
        Notice::HoldersChanged { .. }
        | Notice::Refused { .. }
        | Notice::Damaged { .. }
        | Notice::Repaired { .. }
        | Notice::CacheLookedUp { .. }
        | Notice::CacheEvicted { .. }
        | Notice::CacheHolds { .. }
        | Notice::Replicated { .. } => (None, &[]),
    }
}

/// Looks at `topic` until nobody listens.
async fn watch_over(shared: Arc<Shared>, topic: Topic, watcher: Arc<Watcher>, handle: Handle) {
    let mut seen: Option<Seen> = None;
    let mut pause = SOON;
    loop {
        let now = tokio::select! {
            () = watcher.changes.closed() => {
                if shared.forget(&topic, &watcher) {
                    return;
                }
                continue;
            }
            now = look(&topic, &handle, &watcher.hint, seen.as_ref(), pause) => now,
        };
        // An answer that did not come says nothing, except to who waits for the first.
        let changed = match (&seen, &now) {
            (Some(before), Ok(now)) => before.text != now.text,
            (Some(_), Err(_)) => false,
            (None, _) => true,
        };
        pause = if changed { SOON } else { (pause * 2).min(LATE) };
        if changed {
            watcher.changes.send_modify(|count| *count += 1);
        }
        seen = now.ok().or(seen).or_else(|| Some(Seen::default()));
        sleep(topic.gap()).await;
    }
}

/// What was seen of a resource: what of it is worth telling, and whether more is
/// to come.
#[derive(Default)]
struct Seen {
    text: String,
    waits: bool,
}

/// The next look: at once if there was none, else after a hint or `pause`.
async fn look(
    topic: &Topic,
    handle: &Handle,
    hint: &Notify,
    seen: Option<&Seen>,
    pause: Duration,
) -> Result<Seen, Failure> {
    let Some(seen) = seen else { return ask(topic, handle, Millis(0)).await };
    if !seen.waits {
        tokio::select! {
            () = sleep(pause) => {}
            () = hint.notified() => {}
        }
        return ask(topic, handle, Millis(0)).await;
    }
    let wait = Millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    let began = Instant::now();
    let now = tokio::select! {
        now = ask(topic, handle, wait) => now,
        () = hint.notified() => return ask(topic, handle, Millis(0)).await,
    };
    // Where no node could wait, the answer came at once, and the pause is made here.
    if now.as_ref().is_ok_and(|now| !now.waits || now.text != seen.text) {
        return now;
    }
    tokio::select! {
        () = sleep_until(began + pause) => now,
        () = hint.notified() => ask(topic, handle, Millis(0)).await,
    }
}

async fn ask(topic: &Topic, handle: &Handle, wait: Millis) -> Result<Seen, Failure> {
    let query = match topic {
        Topic::Task(task) => {
            Query::Task { task: task.clone(), detail: Detail { live: true, ..Detail::default() }, wait }
        }
        Topic::Queue => Query::Stats { scope: Scope::Mesh, workers: false, historical: false },
        Topic::Workers => Query::Workers,
        Topic::Peers => Query::Peers(Box::new(PeerFilter { limit: limits::MEMBERS as u32, ..PeerFilter::default() })),
    };
    let patience = PATIENCE + Duration::from_millis(wait.0);
    let reply = timeout(patience, handle.ask(Request::Query(query))).await;
    match reply.map_err(|_| Failure::from(Refusal::Deadline { waited: wait }))? {
        // A task may be awaited before it is there.
        Err(Refusal::NotFound { .. }) => Ok(Seen { text: "none".to_owned(), waits: false }),
        Err(refusal) => Err(refusal.into()),
        Ok(reply) => seen_of(&reply),
    }
}

/// What of a reply is worth telling: not the times and rates that move always.
fn seen_of(reply: &Reply) -> Result<Seen, Failure> {
    let text = match reply {
        Reply::Task(task) => return Ok(Seen { text: of_task(task), waits: !task.status.terminal() }),
        Reply::Stats(stats) => format!("{:?} {:?}", stats.counts, stats.paused),
        Reply::Workers(workers) => {
            let facts = workers.iter().map(|w| (&w.worker, w.node, w.status, &w.capabilities, w.slots, w.running));
            format!("{:?}", facts.collect::<Vec<_>>())
        }
        Reply::Peers { peers, .. } => {
            let facts = peers.iter().map(|p| (p.peer, p.status, &p.capabilities, &p.addresses));
            format!("{:?}", facts.collect::<Vec<_>>())
        }
        _ => return Err(defect()),
    };
    Ok(Seen { text, waits: false })
}

fn of_task(task: &TaskView) -> String {
    let state = (task.status, task.attempt, task.failures, task.crashes, &task.executor, task.priority);
    let said = (task.progress, &task.message, &task.error, &task.retried_as, task.delayed_until);
    format!("{state:?} {said:?} {} {}", task.home, task.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::samples;
    use taskmesh_core::view::{Stats, Status};

    #[test]
    fn what_moves_always_is_no_change() {
        let stats = |ended, queued| {
            let counts = [(Status::Queued, queued)].into();
            seen_of(&Reply::Stats(Box::new(Stats { counts, ended, ..Stats::default() }))).expect("seen").text
        };
        assert_eq!(stats(1, 5), stats(2, 5));
        assert_ne!(stats(1, 5), stats(1, 6));
    }

    #[test]
    fn a_task_is_waited_for_until_it_has_ended() {
        for status in Status::ALL {
            let view = samples::task_view(status);
            let seen = seen_of(&Reply::Task(Box::new(view))).expect("seen");
            assert_eq!(seen.waits, !status.terminal(), "{status:?}");
        }
    }
}
