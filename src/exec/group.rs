//! A program as a process group: started, signalled as a whole, waited for,
//! measured, and never left behind.
//!
//! The order at the end matters: the leader stays unreaped, so that its number
//! can't become another's, until the whole group has been killed.

use super::guard::Guard;
use super::millis;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, test_kill_process_group, waitid,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use taskmesh_core::task::Usage;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;
use wait4::Wait4;

/// A running program and whatever it starts in its group.
pub(super) struct Group {
    /// `None` once it is reaped.
    leader: Option<Child>,
    pid: Pid,
    /// Readable when the leader has ended. `None` where the kernel has none,
    /// or no descriptor was left: a thread waits instead.
    end: Option<Receiver>,
    waiter: Option<JoinHandle<()>>,
    guard: Arc<Guard>,
    /// The highest resident memory that was seen, KiB.
    peak_kib: Option<u64>,
}

/// How a program ended.
pub(super) struct Exit {
    /// Its exit code or signal.
    pub(super) status: ExitStatus,
    /// What it used; its wall time is not known here.
    pub(super) usage: Usage,
}

impl Group {
    /// Starts `command` as the leader of its own group. Blocks until the
    /// program is loaded. Called within the runtime.
    pub(super) fn start(command: &mut Command, guard: Arc<Guard>) -> io::Result<Group> {
        let leader = command.process_group(0).spawn()?;
        let pid = Pid::from_child(&leader);
        guard.watch(pid.as_raw_pid());
        let mut group = Group { leader: Some(leader), pid, end: None, waiter: None, guard, peak_kib: None };
        // Of a pipe's end nothing is used but that it waits to be readable,
        // which is all that a process descriptor can be (pidfd_open(2)).
        group.end =
            pidfd_open(pid, PidfdFlags::NONBLOCK).ok().and_then(|fd| Receiver::from_owned_fd_unchecked(fd).ok());
        Ok(group)
    }

    /// The leader, for its pipes.
    pub(super) fn leader(&mut self) -> Option<&mut Child> {
        self.leader.as_mut()
    }

    /// Waits until the leader has ended; once. It stays a zombie.
    pub(super) async fn ended(&mut self) {
        if let Some(end) = &self.end {
            // Tokio may wake without cause, and says nothing of other files
            // than pipes: only what the kernel answers counts.
            let woken = end.readable().await;
            let flags = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            if woken.is_ok() && !matches!(waitid(WaitId::Pid(self.pid), flags), Ok(None)) {
                return;
            }
            self.end = None;
        }
        let pid = self.pid;
        let waiter = self.waiter.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                // Fails only if it was reaped, and then it has ended too.
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            })
        });
        drop(waiter.await);
    }

    /// Sends `signal` to every process of the group.
    pub(super) fn signal(&self, signal: Signal) {
        // Only ever fails where nobody is left, or nobody that we may signal.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Looks at how much memory the leader has held at most so far.
    pub(super) fn look(&mut self) {
        self.peak_kib = self.peak_kib.max(high_water_kib(&self.pid.as_raw_pid().to_string()));
    }

    /// Kills what is left of the group and reaps the leader, which has ended.
    pub(super) async fn finish(mut self) -> io::Result<Exit> {
        self.signal(Signal::KILL);
        let Some(leader) = self.leader.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let reaped = leader.wait4();
        self.emptied().await;
        self.guard.forget(self.pid.as_raw_pid());
        let reaped = reaped?;
        let usage = Usage {
            wall: None,
            cpu_user: Some(millis(reaped.rusage.utime)),
            cpu_system: Some(millis(reaped.rusage.stime)),
            max_rss_kib: self.peak(reaped.rusage.maxrss / 1024),
        };
        Ok(Exit { status: reaped.status, usage })
    }

    /// Waits until nobody is in the group: killed processes take a moment to
    /// go, and in a container without an init they stay as zombies.
    async fn emptied(&self) {
        let mut wait = Duration::from_micros(500);
        while test_kill_process_group(self.pid).is_ok() && wait < Duration::from_millis(100) {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// A program that was started by `posix_spawn` lives in its parent's memory
    /// until it is loaded, and Linux counts that: `max_rss` is at least the
    /// node's own. So it is the program's only where it is clearly more.
    fn peak(&self, max_rss_kib: u64) -> Option<u64> {
        let is_own = |node: u64| max_rss_kib > node.saturating_add(imprecision_kib());
        // The node's own only grows, so that a look at it is seldom needed.
        if !is_own(NODE_HIGH_WATER_KIB.load(Ordering::Relaxed)) {
            return self.peak_kib;
        }
        let node = high_water_kib("self").unwrap_or(u64::MAX);
        NODE_HIGH_WATER_KIB.store(node, Ordering::Relaxed);
        if is_own(node) { self.peak_kib.max(Some(max_rss_kib)) } else { self.peak_kib }
    }
}

impl Drop for Group {
    /// The run was dropped half-way: a panic, or the end of the runtime.
    fn drop(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        self.signal(Signal::KILL);
        let (guard, pid) = (self.guard.clone(), self.pid);
        std::thread::spawn(move || {
            drop(leader.wait4());
            guard.forget(pid.as_raw_pid());
        });
    }
}

/// The most resident memory of this process, as far as it was looked at.
static NODE_HIGH_WATER_KIB: AtomicU64 = AtomicU64::new(0);

/// By how much two readings of one process's memory may differ: Linux sums
/// three counters (file, anonymous, shared) that each core may hold back
/// `max(32, 2 × cores)` pages of (`percpu_counter_batch` in lib/percpu_counter.c).
fn imprecision_kib() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let page_kib = rustix::param::page_size() as u64 / 1024;
    2 * 3 * cores * (2 * cores).max(32) * page_kib
}

/// The most resident memory that a live process has held, KiB.
fn high_water_kib(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
