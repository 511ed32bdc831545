//! What the operating system says of this process, from `/proc`. Elsewhere
//! than on Linux the values stay at zero or `None`.

use super::book::Book;
use prometheus::{Counter, Gauge};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use taskmesh_core::view::NodeLoad;

/// The metrics of the process, with the names that every Prometheus client
/// gives them.
pub(super) struct ProcessMetrics {
    resident: Gauge,
    virtual_memory: Gauge,
    cpu: Counter,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(book: &mut Book) -> ProcessMetrics {
        book.section("Process");
        let start = book.level("process_start_time_seconds", "When the process started, since the Unix epoch.");
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        ProcessMetrics {
            resident: book.level("process_resident_memory_bytes", "Resident memory of the node, without its programs."),
            virtual_memory: book.level("process_virtual_memory_bytes", "Virtual memory of the node."),
            cpu: book.sum("process_cpu_seconds_total", "CPU time of the node, in user mode and in the kernel."),
            threads: book.level("process_threads", "Threads of the node."),
            open_fds: book.level("process_open_fds", "Open file descriptors."),
            max_fds: book.level("process_max_fds", "File descriptors that it may open."),
        }
    }

    /// Looks.
    pub(super) fn measure(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let set = |gauge: &Gauge, value: Option<f64>| value.into_iter().for_each(|value| gauge.set(value));
        set(&self.resident, field_kib(&status, "VmRSS:").map(bytes));
        set(&self.virtual_memory, field_kib(&status, "VmSize:").map(bytes));
        set(&self.threads, field_kib(&status, "Threads:").map(|n| n as f64));
        set(&self.open_fds, fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64));
        set(&self.max_fds, max_fds());
        let cpu = cpu_seconds().unwrap_or_default() - self.cpu.get();
        if cpu > 0.0 {
            self.cpu.inc_by(cpu);
        }
    }
}

/// Measures the load of the node, for [`taskmesh_core::Input::Load`]. Each
/// measurement is over the time since the one before.
#[derive(Debug, Default)]
pub struct LoadProbe {
    /// When, and the machine's busy and whole CPU time.
    last: Option<(Instant, u64, u64)>,
}

impl LoadProbe {
    /// Looks. The first look has no CPU load yet, nor has one that follows the
    /// last by less than the kernel's clock tick.
    pub fn measure(&mut self) -> NodeLoad {
        let times = fs::read_to_string("/proc/stat").ok().and_then(|stat| machine_times(&stat));
        let last = std::mem::replace(&mut self.last, times.map(|(busy, all)| (Instant::now(), busy, all)));
        let cpu_percent = match (last, times) {
            (Some((_, busy_then, all_then)), Some((busy, all))) if all > all_then => {
                Some(busy.saturating_sub(busy_then) as f64 * 100.0 / (all - all_then) as f64)
            }
            _ => None,
        };
        let load1 = fs::read_to_string("/proc/loadavg").ok();
        NodeLoad {
            cpu_percent: cpu_percent.map(|percent| percent.clamp(0.0, 100.0)),
            memory_mb: family_kib(std::process::id()).map(|kib| kib as f64 / 1_024.0),
            load1: load1.and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }
}

/// A file system's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// That this process may still write.
    pub free: u64,
    /// In all.
    pub size: u64,
}

impl DiskRoom {
    /// Of the file system that has `folder`; `None` if it can't be asked.
    #[must_use]
    pub fn of(folder: &Path) -> Option<DiskRoom> {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(DiskRoom { free: bytes(disk.f_bavail), size: bytes(disk.f_blocks) })
    }
}

/// The `cpu` line of `/proc/stat`: busy and all ticks of all cores.
fn machine_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // Guest time, at the end, is contained in user time.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or_default();
    Some((all - idle, all))
}

/// Resident memory of a process and of all that descend from it.
fn family_kib(root: u32) -> Option<u64> {
    let mut waiting = vec![root];
    let mut seen = HashSet::new();
    let mut total = None;
    while let Some(pid) = waiting.pop() {
        // A process may become another's child while this looks.
        if seen.len() == FAMILY || !seen.insert(pid) {
            continue;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(kib) = field_kib(&status, "VmRSS:") {
            *total.get_or_insert(0) += kib;
        }
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    total
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bytes(kib: u64) -> f64 {
    kib as f64 * 1_024.0
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold blanks. utime and stime are fields 14
    // and 15 of proc(5), and the state after the name is field 3.
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Some(ticks as f64 / USER_HZ)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Ticks a second in `/proc`: fixed by the kernel's interface on every
/// architecture that this program is built for, whatever its own clock does.
const USER_HZ: f64 = 100.0;
/// Processes looked at: a program that forks without end must not hold up its
/// node.
const FAMILY: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_waiting_for_the_disk() {
        let stat = "cpu  10 1 5 70 8 2 3 1 99 99\ncpu0 1 1\n";
        assert_eq!(machine_times(stat), Some((22, 100)));
        assert_eq!(machine_times("cpu  1 2\n"), None);
        assert_eq!(machine_times(""), None);
    }

    #[test]
    fn the_load_of_this_process_is_measured() {
        let mut probe = LoadProbe::default();
        let first = probe.measure();
        assert_eq!(first.cpu_percent, None);
        assert!(first.memory_mb.is_some_and(|mb| mb > 1.0), "{first:?}");
        assert!(first.load1.is_some());
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        while probe.measure().cpu_percent.is_none() {
            assert!(Instant::now() < deadline, "the machine's clock stands");
        }
    }

    #[test]
    fn the_room_of_a_disk_is_measured() {
        let room = DiskRoom::of(Path::new("/")).expect("a file system");
        assert!(room.size > 1_000_000 && room.free <= room.size, "{room:?}");
        assert_eq!(DiskRoom::of(Path::new("/no/such/folder")), None);
    }

    #[test]
    fn the_memory_of_programs_counts_too() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let own = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kib = field_kib(&own, "VmRSS:");
        assert!(kib.is_some_and(|kib| family_kib(child.id()).is_some_and(|all| all >= kib / 2)), "{kib:?}");
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
    }
}
