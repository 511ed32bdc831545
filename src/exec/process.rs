//! `exec`: runs a program of the node's machine, without a shell.
//!
//! What a program gets: its arguments, its input, and of the environment only
//! `PATH`, `HOME`, `LANG` and `TZ` of the node, the `TASKMESH_*` variables and
//! what the task adds. It runs in a fresh folder unless the task names one.
//! When it ends, everything that it started in its process group is killed.
//!
//! The allow list is by the text of `argv[0]`. It says which programs may be
//! started, and is no sandbox: a program on it does what its arguments say,
//! with the rights of the node.

use super::capture::{Stream, Tail};
use super::group::{Exit, Group};
use super::guard::Guard;
use super::program::{Piece, Program};
use super::{Begun, End, ExecConfig, ExecError, Executor, Force, How, Link, RawReport, builtin, millis};
use rustix::fs::{Access, access};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::limits;
use tempfile::TempDir;
use tokio::net::unix::pipe;
use tokio::time::MissedTickBehavior;

pub(super) const EXEC: &str = "exec";

/// Runs programs.
pub(super) struct Exec(Arc<Site>);

/// What all programs of a node share.
struct Site {
    config: ExecConfig,
    /// The node's `PATH`, its absolute entries.
    path: Vec<PathBuf>,
    /// What programs inherit.
    env: Vec<(&'static str, OsString)>,
    guard: Arc<Guard>,
}

impl Exec {
    /// Makes the working folder, and removes what an earlier life left there.
    pub(super) fn open(config: ExecConfig) -> Result<Exec, ExecError> {
        let unusable = |source| ExecError::WorkDir { path: config.work_dir.clone(), source };
        std::fs::create_dir_all(&config.work_dir).map_err(unusable)?;
        for entry in std::fs::read_dir(&config.work_dir).map_err(unusable)? {
            let entry = entry.map_err(unusable)?;
            if entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX) {
                removed(&entry.path(), std::fs::remove_dir_all(entry.path()));
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
        let env = INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        Ok(Exec(Arc::new(Site { config, path, env, guard: Arc::new(Guard::start()) })))
    }
}

impl Executor for Exec {
    fn task_type(&self) -> &'static str {
        EXEC
    }

    fn capabilities(&self) -> Vec<Arc<str>> {
        self.0.config.allow.iter().map(|name| format!("{EXEC}:{name}").into()).collect()
    }

    fn begin(&self, link: Link) -> Begun {
        let site = self.0.clone();
        Begun::Runs(Box::pin(run(site, link)))
    }
}

async fn run(site: Arc<Site>, link: Link) -> End {
    let kill_after = site.config.kill_after;
    let told = link.clone();
    let start = tokio::task::spawn_blocking(move || start(&site, &told));
    let running = match start.await {
        Ok(Ok(running)) => running,
        Ok(Err(unfit)) => return unfit.into(),
        // Of the blocking pool only a panic comes back as an error here, or
        // the end of the runtime, which nobody sees.
        Err(gone) => std::panic::resume_unwind(gone.try_into_panic().unwrap_or_else(|e| Box::new(e.to_string()))),
    };
    link.started();
    running.attend(link, kill_after).await
}

/// Everything that may block before a program runs.
fn start(site: &Site, link: &Link) -> Result<Running, Unfit> {
    let mut program = Program::parse(&link.spec.payload).map_err(Unfit::for_good)?;
    site.permit(&program).map_err(Unfit::for_good)?;
    let (folder, cwd) = site.folder(&mut program)?;
    let path = site.find(&program.argv[0], &cwd).map_err(Unfit::for_good)?;
    let mut command = site.command(&path, &program, link);
    let stdin = read_whole(std::mem::take(&mut program.stdin), link)?;
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.current_dir(&cwd).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group =
        Group::start(&mut command, site.guard.clone()).map_err(|e| Unfit::to_start(&program.argv[0], &e))?;
    let began = Instant::now();
    let cap = program.output_limit.unwrap_or(site.config.output_bytes).min(site.config.output_max_bytes);
    let (input, output, logs) = pipes(&mut group).map_err(|e| Unfit::for_now("its pipes", &e))?;
    Ok(Running {
        group,
        began,
        input: Input { pipe: input, bytes: stdin, sent: 0 },
        output: Stream::new(output, cap),
        logs: Stream::new(logs, cap),
        watched: Tail::new(limits::LOG_TAIL_BYTES),
        success_codes: program.success_codes,
        folder,
    })
}

/// What a program reads, put together.
fn read_whole(pieces: Vec<Piece>, link: &Link) -> Result<Vec<u8>, Unfit> {
    let mut whole = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => whole.extend(bytes),
            Piece::Blob { hash, bytes } => {
                if whole.len() as u64 + bytes > limits::BLOB_BYTES {
                    return Err(Unfit::for_good(format!("stdin: has more than {} bytes", limits::BLOB_BYTES)));
                }
                let blob = tokio::runtime::Handle::current().block_on(link.blob(hash, bytes));
                let gone = || format!("stdin: no node that could be reached has the content {hash}");
                whole.extend(blob.ok_or_else(|| Unfit { error: gone(), retryable: true })?);
            }
        }
    }
    Ok(whole)
}

impl Site {
    /// Whether this node's operator allows it.
    fn permit(&self, program: &Program) -> Result<(), String> {
        let allow = &self.config.allow;
        if allow.iter().any(|name| name == ANY) {
            return Ok(());
        }
        let name = &program.argv[0];
        if !allow.contains(name) {
            return Err(format!("argv: this node does not allow {name:?}"));
        }
        // The loader's variables would start any other program in its place.
        if let Some(variable) = program.env.keys().find(|name| name.starts_with(LOADER)) {
            return Err(format!("env: {variable} can't be set on a node that allows only some programs"));
        }
        Ok(())
    }

    /// Where the program runs; and the guard of the folder, if it is a fresh one.
    fn folder(&self, program: &mut Program) -> Result<(Option<TempDir>, PathBuf), Unfit> {
        if let Some(cwd) = program.cwd.take() {
            if !cwd.is_dir() {
                return Err(Unfit::for_good(format!("cwd: {} is no folder of this node", cwd.display())));
            }
            return Ok((None, cwd));
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        let fresh = tempfile::Builder::new().prefix(FOLDER_PREFIX).permissions(mode).tempdir_in(&self.config.work_dir);
        let fresh = fresh.map_err(|e| Unfit::for_now("its folder", &e))?;
        let path = fresh.path().to_owned();
        Ok((Some(fresh), path))
    }

    /// The file of program `name`. The node's own `PATH` decides, never one
    /// that the task sets.
    fn find(&self, name: &str, cwd: &Path) -> Result<PathBuf, String> {
        if name.contains('/') {
            return Ok(cwd.join(name));
        }
        let mut files = self.path.iter().map(|folder| folder.join(name));
        files
            .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
            .ok_or_else(|| format!("argv: there is no program {name:?} in this node's PATH"))
    }

    fn command(&self, path: &Path, program: &Program, link: &Link) -> Command {
        let fence = link.fence;
        let mut command = Command::new(path);
        command
            .arg0(&program.argv[0])
            .args(&program.argv[1..])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .envs(&program.env)
            .env("TASKMESH_TASK_ID", link.task.as_str())
            .env("TASKMESH_ATTEMPT", fence.attempt.to_string())
            .env("TASKMESH_FENCE", format!("{}-{}-{}", fence.ballot.epoch, fence.ballot.owner, fence.attempt));
        command
    }
}

type Pipes = (Option<pipe::Sender>, Option<pipe::Receiver>, Option<pipe::Receiver>);

fn pipes(group: &mut Group) -> io::Result<Pipes> {
    let Some(leader) = group.leader() else { return Ok((None, None, None)) };
    let input = leader.stdin.take().map(|end| pipe::Sender::from_owned_fd(OwnedFd::from(end))).transpose()?;
    let output = leader.stdout.take().map(|end| pipe::Receiver::from_owned_fd(OwnedFd::from(end))).transpose()?;
    let logs = leader.stderr.take().map(|end| pipe::Receiver::from_owned_fd(OwnedFd::from(end))).transpose()?;
    Ok((input, output, logs))
}

/// Why a program was not started.
struct Unfit {
    error: String,
    retryable: bool,
}

impl Unfit {
    /// It can't be, as the task describes it.
    fn for_good(error: String) -> Unfit {
        Unfit { error, retryable: false }
    }

    /// The node is short of something: another attempt, or node, may do better.
    fn for_now(what: &str, error: &io::Error) -> Unfit {
        Unfit { error: format!("{what} can't be made: {error}"), retryable: true }
    }

    /// The system said no.
    fn to_start(name: &str, error: &io::Error) -> Unfit {
        let hopeless = matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::ArgumentListTooLong
        ) || error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
        Unfit { error: format!("argv: {name:?} can't be started: {error}"), retryable: !hopeless }
    }
}

impl From<Unfit> for End {
    fn from(unfit: Unfit) -> End {
        let how = How::Failed { error: unfit.error, retryable: unfit.retryable };
        End { how, report: RawReport::default() }
    }
}

/// A program that runs.
struct Running {
    group: Group,
    began: Instant,
    input: Input,
    output: Stream,
    logs: Stream,
    /// Of both streams, as they came.
    watched: Tail,
    success_codes: Vec<i32>,
    folder: Option<TempDir>,
}

impl Running {
    async fn attend(mut self, mut link: Link, kill_after: Duration) -> End {
        let mut buffer = vec![0; BUFFER_BYTES];
        let halted = self.until_end(&mut link, kill_after, &mut buffer).await;
        let wall = millis(self.began.elapsed());
        let exit = self.group.finish().await;
        let rest = async {
            while self.output.open() || self.logs.open() {
                tokio::select! {
                    () = self.output.readable() => self.output.read(&mut buffer, &mut self.watched),
                    () = self.logs.readable() => self.logs.read(&mut buffer, &mut self.watched),
                }
            }
        };
        // Only a process that left the group can still hold them open.
        let _ = tokio::time::timeout(DRAIN, rest).await;
        if let Some(folder) = self.folder {
            let path = folder.path().to_owned();
            drop(tokio::task::spawn_blocking(move || removed(&path, folder.close())).await);
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(e) => return Unfit::for_now("an account of its end", &e).into(),
        };
        let how = match halted {
            Some(_) => How::Halted,
            None => judge(exit.status, &self.success_codes, &self.logs.last_line()),
        };
        End { how, report: report(&exit, wall, self.output, self.logs) }
    }

    /// Serves the program until it has ended. Says whether it was told to.
    async fn until_end(&mut self, link: &mut Link, kill_after: Duration, buffer: &mut [u8]) -> Option<Force> {
        let mut told = None;
        let mut kill = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        let mut look = std::pin::pin!(tokio::time::sleep(FIRST_GLANCE));
        let began = tokio::time::Instant::now();
        let mut second = tokio::time::interval_at(began + builtin::PROGRESS_EVERY, builtin::PROGRESS_EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let teller = link.clone();
        loop {
            tokio::select! {
                () = self.group.ended() => return told,
                force = link.halted(told) => {
                    told = Some(force);
                    self.group.signal(if force == Force::Kill { Signal::KILL } else { Signal::TERM });
                    kill.as_mut().reset(tokio::time::Instant::now() + kill_after);
                }
                () = &mut kill, if told == Some(Force::Ask) => {
                    told = Some(Force::Kill);
                    self.group.signal(Signal::KILL);
                }
                () = self.output.readable() => self.output.read(buffer, &mut self.watched),
                () = self.logs.readable() => self.logs.read(buffer, &mut self.watched),
                () = self.input.writable() => self.input.write(),
                _ = second.tick() => {
                    if let Some(tail) = self.watched.news() {
                        teller.progress(None, None, Some(tail.into()));
                    }
                }
                () = &mut look => {
                    self.group.look();
                    // What it took last is missed, so the last look is to be late.
                    let glance = (began.elapsed() / 8).clamp(FIRST_GLANCE, builtin::PROGRESS_EVERY);
                    look.as_mut().reset(tokio::time::Instant::now() + glance);
                }
            }
        }
    }
}

/// What a program reads.
struct Input {
    /// `None` once it is closed.
    pipe: Option<pipe::Sender>,
    bytes: Vec<u8>,
    sent: usize,
}

impl Input {
    async fn writable(&self) {
        match &self.pipe {
            Some(pipe) => drop(pipe.writable().await),
            None => std::future::pending().await,
        }
    }

    fn write(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        match pipe.try_write(&self.bytes[self.sent..]) {
            Ok(n) => self.sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // It reads no more, which is its own business.
            Err(_) => self.sent = self.bytes.len(),
        }
        if self.sent == self.bytes.len() {
            self.pipe = None;
        }
    }
}

fn judge(status: ExitStatus, success_codes: &[i32], last_line: &str) -> How {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) if success_codes.contains(&code) => return How::Completed,
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended in an unknown way".into(),
    };
    let error = if last_line.is_empty() { end } else { format!("{end}: {last_line}") };
    How::Failed { error, retryable: true }
}

fn report(exit: &Exit, wall: taskmesh_core::Millis, output: Stream, logs: Stream) -> RawReport {
    let (output, output_cut) = output.take();
    let (logs, logs_cut) = logs.take();
    let result = serde_json::json!({ "exit_code": exit.status.code(), "signal": exit.status.signal() });
    RawReport {
        result: result.to_string().into_bytes(),
        output: Some(output),
        logs: Some(logs),
        truncated: output_cut || logs_cut,
        usage: taskmesh_core::task::Usage { wall: Some(wall), ..exit.usage },
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

fn removed(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "a program's folder can't be removed; the next start tries again");
    }
}

/// Allows any program.
const ANY: &str = "*";
/// Begins the variables that change what the dynamic loader loads.
const LOADER: &str = "LD_";
/// Begins the names of the fresh folders.
const FOLDER_PREFIX: &str = "run-";
/// What programs inherit: where programs are, whose they are, and how people
/// write there. Anything else may be a secret of the node's own.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// Where the node itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What a pipe holds: one read empties it.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a process that left the group may keep the run from ending.
const DRAIN: Duration = Duration::from_secs(1);
/// When a program's memory is looked at first; then whenever it has run an
/// eighth longer, and at least each second.
const FIRST_GLANCE: Duration = Duration::from_millis(4);
