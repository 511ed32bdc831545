//! What can be typed: commands, arguments and flags.

use crate::api::tls::Fingerprint;
use crate::config::settings::TOOLSETS;
use crate::ops::{peer, queue, result, submit, task, worker};
use clap::{Args, Parser, Subcommand, ValueHint};
use std::path::PathBuf;

/// A peer-to-peer task mesh: no broker, no head node.
///
/// `taskmesh up` starts a node. Every other command asks a node that runs: by
/// default the one of this user on this machine, which answers for the whole
/// mesh.
#[derive(Debug, Parser)]
#[command(name = "taskmesh", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  taskmesh up --exec-allow sha256sum       start a node; it prints an invite
  taskmesh up --join INVITE                start another one, elsewhere
  taskmesh submit --wait -- sha256sum /etc/hostname
  taskmesh status                          the mesh at a glance; `taskmesh top` stays
  taskmesh task list --status running
Exit status: 0 done, 1 ended badly, 2 wrong usage, 3 not found, 11 no node answers; docs/cli.md has all.";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Print the operation's own JSON object.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The node's data folder: `node.data_dir`.
    #[arg(long, global = true, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    data_dir: Option<String>,
    /// The settings file; default: taskmesh/config.toml in $XDG_CONFIG_HOME or ~/.config.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Any setting, such as `mesh.holders=5`; repeatable.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Ask the node at this address instead of the one of the data folder.
    #[arg(long, global = true, env = "TASKMESH_URL", value_name = "URL", value_hint = ValueHint::Url)]
    pub(super) url: Option<String>,
    /// Ask the node at this multiaddress, which ends in /p2p/<peer id>, over libp2p: its `api.p2p_listen`.
    #[arg(long, global = true, env = "TASKMESH_VIA", value_name = "MULTIADDR", conflicts_with = "url")]
    pub(super) via: Option<String>,
    /// Of the certificate of --url, as `taskmesh up` prints it; without it, the
    /// certificate must be of an authority that this machine trusts.
    #[arg(long, global = true, env = "TASKMESH_FINGERPRINT", value_name = "SHA256")]
    pub(super) fingerprint: Option<Fingerprint>,
    /// The token for --url or --via; better given as TASKMESH_TOKEN, where `ps` does not show it.
    #[arg(long, global = true, env = "TASKMESH_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
}

impl Global {
    /// `(flag, key, value)` of each setting among them.
    pub(super) fn settings(&self) -> Vec<(String, String, String)> {
        let set = self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone()));
        let data_dir = self.data_dir.iter().map(|dir| flag("--data-dir", "node.data_dir", text(dir)));
        set.chain(data_dir).collect()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a node, and stay until it is stopped.
    ///
    /// The first start makes the node's identity, the mesh's key and the data
    /// folder. It prints where the node listens, an invite for other nodes, and
    /// the configuration of an MCP client. SIGTERM or Ctrl-C drains it: it takes
    /// no more work, lets what runs end (`node.drain_ms`), and hands the rest
    /// back.
    Up(UpArgs),
    /// Serve MCP on standard input and output, by the node that runs.
    Mcp(McpArgs),
    /// Run a program on the mesh, or submit a task of any type.
    ///
    /// Prints the task's id. With --wait: waits for the end, prints what the
    /// program printed, and exits with 0 only if it went well.
    Submit(Box<super::submit::SubmitArgs>),
    /// Show the mesh at a glance: its nodes, its queue, what runs, and why the rest waits.
    ///
    /// How many tasks are short of copies, and the room on disks, are read from the
    /// nodes' metrics, as far as these can be reached from here.
    Status,
    /// Show the mesh live on the terminal; ? there lists the keys.
    Top(super::top::TopArgs),
    /// List the nodes of the mesh: state, version, address, latency, what they are there for.
    ///
    /// As the node that is asked knows them. A node without a worker is not named.
    Members,
    /// Print the log of a task: what its program wrote to standard error.
    ///
    /// While it runs, the last 8 KiB; once it has ended, the last 256 KiB.
    Logs(super::logs::LogsArgs),
    /// Tell what happens in the mesh: tasks that come, run and end, nodes that come and go.
    ///
    /// No node keeps a journal. Without --follow it is read from the times that tasks
    /// have: of each the submission, the start of the last attempt, and the end. With
    /// --follow it is read from lists, one after the other: what begins and ends between
    /// two of them is told with its times, an attempt that failed in between is not;
    /// of more than 1,000 tasks that run, or wait, some may be told late.
    Events(super::events::EventsArgs),
    /// Let a node take no more work, and see what it still runs.
    ///
    /// Its workers are unregistered, each once it runs nothing. The node still takes
    /// submissions and keeps tasks.
    Drain(super::drain::DrainArgs),
    /// Say that a node is gone for ever, so that tasks go on whose holders are mostly lost.
    ///
    /// Only when its disk is destroyed: tasks whose majority of holders is forgotten go on
    /// from the copies that are left, and may run again what had run, or had ended. Of a
    /// node that was merely cut off, this breaks what is promised. Its name never comes
    /// back: should it return, it is refused, and joins with a fresh data folder alone.
    Forget(super::forget::ForgetArgs),
    /// Look at the node, its machine and its mesh, and say what to do about what is not well.
    ///
    /// Exits with 1 if there is a problem. With the node down there are fewer checks. It
    /// writes a small file into the data folder to see how fast the disk is, and lets
    /// the node dial its seeds.
    Doctor,
    /// Write tasks, workflows and schedules as lines of JSON, for a backup or for leaving.
    ///
    /// Of what has not ended, the arguments that submit it again; of what has ended, what
    /// it left. Payloads may hold secrets: so may the file. A workflow that is half done
    /// begins anew where it is imported.
    Export(super::archive::ExportArgs),
    /// Submit what an export holds and has not ended, under the same ids.
    ///
    /// What is there already is left alone, so that repeating it is safe. Results are not
    /// brought back: they are in the file, for reading.
    Import(super::archive::ImportArgs),
    /// Make the data folder a member of a mesh, before its node starts.
    ///
    /// The next `taskmesh up` (or the service that runs it) joins. Where a node runs
    /// already, and is of that mesh, it connects to the nodes of the invite now; a node
    /// of another mesh is refused: it never changes its mesh.
    Join(super::join::JoinArgs),
    /// Print the invite for other nodes; it holds the mesh's key.
    Invite,
    /// Print the address of the dashboard, with a token that ends by itself.
    ///
    /// The mesh in a browser: nodes, tasks, workflows, events, and what an
    /// operator does about them. Any node shows all of it.
    Dashboard(super::dashboard::DashboardArgs),
    /// Print the interface's content id and its descriptor.
    ///
    /// The id names the operations of this version: two programs with the same
    /// id take the same arguments and give the same answers. No node is asked.
    Interface,
    /// Submit, watch and stop tasks.
    #[command(subcommand)]
    Task(TaskCommand),
    /// The queue of the whole mesh.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Workers: slots and capabilities of nodes.
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Workflows: graphs of steps.
    #[command(subcommand)]
    Workflow(super::workflow::WorkflowCommand),
    /// Other nodes of the mesh.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Who may call, and what: tokens for programs and people.
    #[command(subcommand)]
    Token(super::token::TokenCommand),
    /// Results of earlier tasks that later ones may take.
    #[command(subcommand)]
    Cache(super::cache::CacheCommand),
    /// Show who called what would change something, and what came of it.
    ///
    /// Reads the log in the data folder of one node; the node need not run.
    Audit(super::audit::AuditArgs),
    /// Ask the node of the data folder whether it is well.
    ///
    /// Prints what it says, and exits with 0 only if it is: for containers'
    /// health checks, and for scripts that wait for a node.
    Health(super::health::HealthArgs),
    /// Show or check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script.
    ///
    /// bash: `source <(taskmesh completions bash)`; zsh and fish: write it to a
    /// file in the shell's folder for completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one for each command.
    Man {
        /// Write all pages into this folder, which is made if need be.
        #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Join the mesh of the node that printed this.
    #[arg(long, value_name = "INVITE")]
    pub(super) join: Option<String>,
    /// Join by this node's multiaddress: `net.seeds`; repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    seed: Vec<String>,
    /// Listen for other nodes on this multiaddress: `net.listen`; repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Others reach this node at this multiaddress: `net.external`; repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    external: Vec<String>,
    /// Serve MCP on this address: `api.listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    api: Option<String>,
    /// Serve metrics on this address: `metrics.listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<String>,
    /// For people: `node.name`.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Let tasks run this program, `*`: any: `exec.allow`; repeatable.
    #[arg(long, value_name = "PROGRAM")]
    exec_allow: Vec<String>,
    /// Tasks at once: `worker.slots`.
    #[arg(long, value_name = "NUMBER")]
    slots: Option<u32>,
    /// A label of this node's worker: `worker.labels`; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The level of the log: `log.level`.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// Offer these groups of tools alone: task, queue, worker, workflow, peer.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = TOOLSETS)]
    pub(super) toolsets: Vec<String>,
    /// Offer only tools that change nothing.
    #[arg(long)]
    pub(super) read_only: bool,
}

impl UpArgs {
    /// `(flag, key, value)` of each setting among them.
    pub(super) fn settings(&self) -> Vec<(String, String, String)> {
        let lists = [
            ("--seed", "net.seeds", &self.seed),
            ("--listen", "net.listen", &self.listen),
            ("--external", "net.external", &self.external),
            ("--exec-allow", "exec.allow", &self.exec_allow),
        ];
        let lists = lists.into_iter().filter(|(_, _, values)| !values.is_empty()).map(|(name, key, values)| {
            let values = values.iter().map(|v| toml::Value::String(v.clone())).collect();
            flag(name, key, toml::Value::Array(values).to_string())
        });
        let texts = [
            ("--api", "api.listen", &self.api),
            ("--metrics", "metrics.listen", &self.metrics),
            ("--name", "node.name", &self.name),
            ("--log", "log.level", &self.log),
        ];
        let texts = texts.into_iter().filter_map(|(name, key, value)| Some(flag(name, key, text(value.as_deref()?))));
        let slots = self.slots.map(|n| flag("--slots", "worker.slots", n.to_string()));
        let labels = (!self.label.is_empty()).then(|| {
            let table = self.label.iter().map(|(k, v)| (k.clone(), toml::Value::String(v.clone()))).collect();
            flag("--label", "worker.labels", toml::Value::Table(table).to_string())
        });
        lists.chain(texts).chain(slots).chain(labels).collect()
    }
}

fn flag(name: &str, key: &str, value: String) -> (String, String, String) {
    (name.to_owned(), key.to_owned(), value)
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    if name.is_empty() {
        return Err("it must be NAME=VALUE, with a name".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Submit a task, or an array of tasks.
    Submit(Box<submit::TaskSubmit>),
    /// Show what a task is doing.
    Status(task::TaskStatus),
    /// Stop a task.
    Cancel(task::TaskCancel),
    /// List tasks.
    List(task::TaskList),
    /// Change a task's priority.
    Priority(task::TaskPriority),
    /// Read what a task left.
    Result(result::TaskResult),
    /// Try a task again that did not complete.
    Retry(queue::TaskRetry),
    /// Wait until a task, or every task of an array, has ended.
    Wait(super::wait::WaitArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Count what waits, runs and ended.
    Stats(queue::QueueStats),
    /// Start nothing new in the whole mesh.
    Pause(queue::QueuePause),
    /// Go on after a pause.
    Resume(queue::QueueResume),
    /// Drop tasks that do not run.
    Clear(queue::QueueClear),
    /// Try a task again that did not complete.
    Retry(queue::TaskRetry),
}

#[derive(Debug, Subcommand)]
pub(super) enum WorkerCommand {
    /// Make or change a worker on the node that answers.
    Register(worker::WorkerRegister),
    /// End a worker.
    Unregister(worker::WorkerUnregister),
    /// Show a worker.
    Status(worker::WorkerStatus),
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Search for nodes.
    Discover(peer::PeerDiscover),
    /// Connect to a node.
    Connect(peer::PeerConnect),
    /// Leave a node, and do not dial it until asked.
    Disconnect(peer::PeerDisconnect),
    /// List the nodes that are known.
    List(peer::PeerList),
    /// What was measured of a node.
    Metrics(peer::PeerMetrics),
    /// Dial the seeds.
    Bootstrap(peer::BootstrapNetwork),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every setting, its value, and where that came from.
    Show,
    /// Read the settings and say what is wrong with them.
    Check,
}
