//! The guard: what kills a node's programs when the node itself is killed.
//!
//! A node that dies of SIGKILL can't end its programs, and the mesh will soon
//! run their tasks elsewhere. The kernel's own means, `PR_SET_PDEATHSIG`, has
//! to be set in the child between fork and exec: that needs unsafe code, rules
//! out the cheap `posix_spawn` (a fork copies the page tables of a node that
//! holds 100,000 tasks), reaches only the direct child, and fires already when
//! the thread ends that started it. So one small shell process, fixed at
//! compile time and never shown anything of a task, reads the numbers of the
//! live process groups from a pipe; the pipe ends with the node, and then it
//! kills those that are left.
//!
//! Between the start of a program and its entry here lie some microseconds; a
//! node that dies just then leaves the program running.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The node's side of the guard.
pub(super) struct Guard(Mutex<State>);

#[derive(Default)]
struct State {
    shell: Option<Child>,
    groups: BTreeSet<i32>,
}

impl Guard {
    /// Starts the guard. Where that fails a warning is logged, and programs
    /// go unguarded until it can be started.
    pub(super) fn start() -> Guard {
        let mut state = State::default();
        state.restart();
        Guard(Mutex::new(state))
    }

    /// Watch this group.
    pub(super) fn watch(&self, group: i32) {
        let mut state = self.state();
        state.groups.insert(group);
        if state.say('+', group).is_err() {
            state.restart();
        }
    }

    /// This group is gone, and its number may soon be another's.
    pub(super) fn forget(&self, group: i32) {
        let mut state = self.state();
        state.groups.remove(&group);
        if state.say('-', group).is_err() {
            state.restart();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn say(&mut self, sign: char, group: i32) -> io::Result<()> {
        let pipe = self.shell.as_mut().and_then(|shell| shell.stdin.as_mut());
        pipe.ok_or(io::ErrorKind::BrokenPipe)?.write_all(format!("{sign} {group}\n").as_bytes())
    }

    fn restart(&mut self) {
        if let Some(mut old) = self.shell.take() {
            drop(old.stdin.take());
            drop(old.kill());
            drop(old.wait());
        }
        let started = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "taskmesh-guard"])
            .env_clear()
            .current_dir("/")
            // Out of reach of what a terminal sends to the node's own group.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(shell) => self.shell = Some(shell),
            Err(error) => {
                tracing::warn!(%error, "no guard: programs would outlive a node that is killed");
                return;
            }
        }
        let said = self.groups.clone().into_iter().try_for_each(|group| self.say('+', group));
        if let Err(error) = said {
            tracing::warn!(%error, "the guard ended at once: programs would outlive a node that is killed");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut shell) = state.shell.take() {
            // Its input ends, it kills what is left, and is gone.
            drop(shell.stdin.take());
            drop(shell.wait());
        }
    }
}

/// `groups` is a set, as words between blanks.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r sign group; do
    case $sign in
    +) groups="$groups$group " ;;
    -) case $groups in
        *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;;
        esac ;;
    esac
done
for group in $groups; do
    kill -s KILL -- "-$group"
done
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::contract::{Bench, until};
    use super::*;
    use std::path::Path;

    fn program() -> Child {
        Command::new("sleep").arg("3600").process_group(0).spawn().unwrap()
    }

    fn group(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn the_end_of_the_guards_input_kills_what_is_watched_and_nothing_else() {
        let guard = Guard::start();
        let mut programs: Vec<_> = (0..4).map(|_| program()).collect();
        for child in &programs {
            guard.watch(group(child));
        }
        guard.forget(group(&programs[1]));
        guard.forget(group(&programs[3]));
        drop(guard);
        until("the watched are killed", || programs[0].try_wait().unwrap().is_some());
        until("the watched are killed", || programs[2].try_wait().unwrap().is_some());
        for forgotten in [1, 3] {
            assert_eq!(programs[forgotten].try_wait().unwrap(), None, "it was forgotten");
            programs[forgotten].kill().unwrap();
            programs[forgotten].wait().unwrap();
        }
    }

    #[test]
    fn a_guard_that_was_killed_is_replaced_with_all_it_knew() {
        let guard = Guard::start();
        let mut program = program();
        guard.watch(group(&program));
        {
            let mut state = guard.state();
            let shell = state.shell.as_mut().unwrap();
            shell.kill().unwrap();
            shell.wait().unwrap();
        }
        // Whatever is said next finds out.
        guard.forget(1_000_000_000);
        drop(guard);
        until("the program is killed", || program.try_wait().unwrap().is_some());
    }

    /// The test runs itself as the node that is to be killed.
    #[test]
    fn the_programs_of_a_killed_node_die_with_it() {
        const FILE: &str = "GUARD_TEST_FILE";
        if let Some(file) = std::env::var_os(FILE) {
            return be_a_node(Path::new(&file));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut node = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "the_programs_of_a_killed_node_die_with_it"])
            .env(FILE, &file)
            .spawn()
            .unwrap();
        let mut pid = None;
        until("the program runs", || {
            pid = std::fs::read_to_string(&file).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
            pid.is_some()
        });
        node.kill().unwrap();
        node.wait().unwrap();
        let group = rustix::process::Pid::from_raw(pid.unwrap()).unwrap();
        until("its group is gone", || match rustix::process::test_kill_process_group(group) {
            Err(_) => true,
            Ok(()) => zombie(pid.unwrap()),
        });
    }

    fn be_a_node(file: &Path) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let bench = Bench::new(|_| ());
        // Its input comes once it is watched: before, a killed node leaves it running.
        let wait = "trap '' TERM HUP; read -r go";
        let script = format!("{wait}; echo $$ > {0}.new; mv {0}.new {0}; sleep 3600; sleep 3600", file.display());
        bench.run("exec", &serde_json::json!({ "argv": ["sh", "-c", script], "stdin": "go\n" }).to_string());
        bench.to_end();
    }

    fn zombie(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }
}
