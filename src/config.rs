//! The node's settings: flags, then environment, then file, then defaults.
//!
//! They are read once, at the start, into a [`Config`] that is passed down; no
//! other module looks at the environment. [`settings::SETTINGS`] is the one
//! table of what there is: the file, the environment, `--set`, the example and
//! the reference all follow from it.

mod check;
pub mod example;
#[macro_use]
mod fields;
pub mod settings;
mod value;

#[cfg(test)]
mod tests;

use settings::{SETTINGS, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use taskmesh_core::NodeId;
pub use value::{Kind, Raw};

/// Everything that a user may choose of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[net]`
    pub net: Net,
    /// `[api]`
    pub api: Api,
    /// `[api]`, what begins with `p2p_`.
    pub p2p: P2p,
    /// `[source]`
    pub source: ForeignQueue,
    /// `[auth]`
    pub auth: Auth,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[traces]`
    pub traces: Traces,
    /// `[worker]`
    pub worker: Worker,
    /// `[exec]`
    pub exec: Exec,
    /// `[mesh]`: the core's own settings. `joins` is not one: see [`Config::core`].
    pub mesh: taskmesh_core::Config,
    /// `[log]`
    pub log: Log,
    /// Whoever started the process and wants to hear how it does, if somebody does.
    pub supervisor: Option<Supervisor>,
    /// Where each value that is not a default came from.
    sources: BTreeMap<&'static str, Source>,
}

/// What concerns the node as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Identity, keys, token and store; mode 0700.
    pub data_dir: PathBuf,
    /// For people, and a label of the node's own worker.
    pub name: String,
    /// How long running tasks may go on after SIGTERM, in milliseconds.
    pub drain_ms: u64,
    /// How far the clock is put ahead, in seconds.
    pub clock_ahead_s: u64,
    /// Workflow templates; `None`: see [`Config::templates_dir`].
    pub templates_dir: Option<PathBuf>,
}

/// An authorisation server that vouches for callers. Empty: there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of tokens for this mesh.
    pub audience: String,
    /// Its keys: a path, or an address.
    pub jwks: String,
    /// How clients reach the MCP endpoint; empty: as it listens.
    pub resource: String,
}

/// The network of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Multiaddresses to listen on, as text: the network layer reads them.
    pub listen: Vec<String>,
    /// In the place of `listen`: this port, TCP and QUIC; 0: `listen` holds.
    pub listen_port: u16,
    /// Multiaddresses of nodes to join by.
    pub seeds: Vec<String>,
    /// Multiaddresses under which others reach this node (NAT, containers).
    pub external: Vec<String>,
    /// Find nodes of the same mesh on the local network.
    pub mdns: bool,
    /// Find out by other nodes whether this one can be reached.
    pub autonat: bool,
    /// Carry connections of others.
    pub relay_serve: bool,
    /// How many at once.
    pub relay_circuits: u32,
    /// Be reached, and reach others, over relays.
    pub relay_use: bool,
    /// Replace relayed connections by direct ones.
    pub hole_punching: bool,
    /// Only these nodes may connect; empty: all of the mesh.
    pub allow: Vec<NodeId>,
    /// These nodes may not.
    pub deny: Vec<NodeId>,
    /// Connections at once.
    pub max_connections: u32,
    /// The file with the mesh's key; `None`: the one in the data folder.
    pub mesh_key_file: Option<PathBuf>,
}

/// Where traces of tasks go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Of a collector, without `/v1/traces`; empty: there is none.
    pub endpoint: String,
    /// Of the traces that begin here, so many are sampled.
    pub sample_percent: u64,
}

/// What monitoring reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Port 0: any that is free.
    pub listen: SocketAddr,
    /// `host:port` for other machines; empty: to be found out.
    pub advertise: String,
}

/// A supervisor that speaks sd_notify(3), as systemd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervisor {
    /// Its datagram socket: a path, or `@` and an abstract name.
    pub socket: String,
    /// It restarts a node that it has not heard for so long, in µs; `None`: it
    /// does not watch.
    pub watchdog_us: Option<u64>,
}

/// The door for peers that are no members: MCP over libp2p.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct P2p {
    /// Multiaddresses to listen on; empty: there is no door.
    pub listen: Vec<String>,
    /// Files that say where the door is, for clients that look there.
    pub announce: Vec<String>,
}

/// Another program's task queue that work is claimed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignQueue {
    /// Its multiaddress, which ends in its peer id; empty: there is none.
    pub queue: String,
    /// Types of tasks to claim.
    pub types: Vec<String>,
    /// A file with what it wants to see; `None`: nothing.
    pub token_file: Option<PathBuf>,
    /// How long a claim holds without a sign of this node, in seconds.
    pub lease_s: u64,
}

/// The MCP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Port 0: any that is free. Not on loopback: TLS alone.
    pub listen: SocketAddr,
    /// PEM file with the certificate and its chain; `None`: none on loopback,
    /// one that the node makes for itself elsewhere.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with its key.
    pub tls_key: Option<PathBuf>,
    /// Names under which clients reach it, beside its address.
    pub hosts: Vec<String>,
    /// Groups of operations that are offered; empty: all.
    pub toolsets: Vec<String>,
    /// Only operations that change nothing are offered.
    pub read_only: bool,
    /// The dashboard is served beside it.
    pub dashboard: bool,
}

/// The worker that a node starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Tasks at once; 0: this node runs none.
    pub slots: u32,
    /// What it may run; empty: every executor of the node.
    pub capabilities: Vec<String>,
    /// For the requirements of tasks.
    pub labels: BTreeMap<String, String>,
    /// What it has of what can be used up: `cpus`, `memory_mb`, `gpus` and any
    /// other name; empty: unlimited.
    pub resources: BTreeMap<String, f64>,
}

/// The `exec` executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Programs that tasks may run; `*`: any; empty: `exec` is off.
    pub allow: Vec<String>,
    /// Bytes kept of each output of a program whose task names no limit.
    pub output_bytes: u64,
    /// The most that a task may name.
    pub output_max_bytes: u64,
    /// From SIGTERM to SIGKILL, in milliseconds.
    pub kill_after_ms: u64,
}

/// The log, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or `tracing` directives such as `info,taskmesh::net=debug`.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody chose it.
    Default,
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path, line) => write!(f, "{}:{line}", path.display()),
            Source::Env(name) | Source::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Problem {
    /// Where it stands.
    pub place: Source,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Why there are no settings. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named can't be read: correct its name or its mode.
    #[error("{}: {problem}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's word for it.
        problem: std::io::Error,
    },
    /// Each is to be corrected where it stands.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// Everything that settings are read from, as plain data.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `(flag, key, value)`, in the order given; a later one wins.
    pub flags: Vec<(String, String, String)>,
    /// The process's environment.
    pub env: Vec<(String, String)>,
    /// The file's path and text, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// The cores that the process may use.
    pub cores: u32,
    /// The machine's name.
    pub host: String,
}

impl Inputs {
    /// What this process was given. `config` is the flag's value.
    ///
    /// # Errors
    /// A file that was named (by flag or `TASKMESH_CONFIG`) can't be read, or
    /// the one at the usual place is there and can't.
    pub fn of_process(config: Option<&Path>, flags: Vec<(String, String, String)>) -> Result<Inputs, ConfigError> {
        let env: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let file = read_file(config, &env)?;
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Ok(Inputs { flags, env, file, cores, host: host_name() })
    }

    fn var(&self, name: &str) -> Option<&str> {
        var(&self.env, name)
    }

    /// The names are those of sd_notify(3) and sd_watchdog_enabled(3).
    fn supervisor(&self) -> Option<Supervisor> {
        let watchdog_us = self.var("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|us| *us > 0);
        Some(Supervisor { socket: self.var("NOTIFY_SOCKET")?.to_owned(), watchdog_us })
    }
}

fn var<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
}

fn read_file(flag: Option<&Path>, env: &[(String, String)]) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named = flag.map(Path::to_path_buf).or_else(|| var(env, "TASKMESH_CONFIG").map(PathBuf::from));
    let usual = || {
        let base = var(env, "XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| var(env, "HOME").map(|home| Path::new(home).join(".config")))?;
        Some(base.join("taskmesh/config.toml"))
    };
    let must_exist = named.is_some();
    let Some(path) = named.or_else(usual) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(problem) => Err(ConfigError::Unreadable { path, problem }),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let kept: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if kept.is_empty() { "node".to_owned() } else { kept.chars().take(64).collect() }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every unknown key and every value out of its range, each with its place.
    pub fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
        let mut loading = Loading { config: Config::defaults(inputs), problems: Vec::new() };
        if let Some((path, text)) = &inputs.file {
            loading.file(path, text);
        }
        loading.environment(&inputs.env);
        for (flag, key, text) in &inputs.flags {
            loading.text(key, text, Source::Flag(flag.clone()));
        }
        let Loading { mut config, mut problems } = loading;
        config.node.data_dir = home_expanded(&config.node.data_dir, inputs.var("HOME"));
        let templates = config.node.templates_dir.take();
        config.node.templates_dir = templates.map(|path| home_expanded(&path, inputs.var("HOME")));
        problems.extend(config.contradictions());
        config.listen_on_the_port();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(problems)) }
    }

    /// What holds if nothing is said.
    #[must_use]
    pub fn defaults(inputs: &Inputs) -> Config {
        let data_home = inputs
            .var("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| inputs.var("HOME").map(|home| Path::new(home).join(".local/share")));
        Config {
            node: Node {
                data_dir: data_home.map(|home| home.join("taskmesh")).unwrap_or_default(),
                name: if inputs.host.is_empty() { "node".to_owned() } else { inputs.host.clone() },
                drain_ms: 30_000,
                clock_ahead_s: 0,
                templates_dir: None,
            },
            net: Net {
                listen: listen("127.0.0.1", PORT),
                listen_port: 0,
                seeds: Vec::new(),
                external: Vec::new(),
                mdns: false,
                autonat: false,
                relay_serve: false,
                relay_circuits: 128,
                relay_use: false,
                hole_punching: false,
                allow: Vec::new(),
                deny: Vec::new(),
                max_connections: 128,
                mesh_key_file: None,
            },
            api: Api {
                listen: SocketAddr::from(([127, 0, 0, 1], 4780)),
                tls_cert: None,
                tls_key: None,
                hosts: Vec::new(),
                toolsets: Vec::new(),
                read_only: false,
                dashboard: true,
            },
            p2p: P2p::default(),
            source: ForeignQueue { queue: String::new(), types: Vec::new(), token_file: None, lease_s: 60 },
            auth: Auth::default(),
            metrics: Metrics { listen: SocketAddr::from(([127, 0, 0, 1], 4781)), advertise: String::new() },
            traces: Traces { endpoint: String::new(), sample_percent: 100 },
            worker: Worker {
                slots: inputs.cores.clamp(1, taskmesh_core::limits::SLOTS),
                capabilities: Vec::new(),
                labels: BTreeMap::new(),
                resources: BTreeMap::new(),
            },
            exec: Exec { allow: Vec::new(), output_bytes: 1 << 20, output_max_bytes: 16 << 20, kill_after_ms: 5_000 },
            mesh: taskmesh_core::Config::default(),
            log: Log { format: LogFormat::Human, level: "info".to_owned() },
            supervisor: inputs.supervisor(),
            sources: BTreeMap::new(),
        }
    }

    /// Where the value of `key` came from.
    #[must_use]
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }

    /// Whether nobody chose `key`: a port that is a default may be changed for
    /// a free one, a chosen one may not.
    #[must_use]
    pub fn is_default(&self, key: &str) -> bool {
        self.source(key) == &Source::Default
    }

    /// The core's settings. A node that was told of others accepts nothing
    /// until it has heard one of them.
    #[must_use]
    pub fn core(&self) -> taskmesh_core::Config {
        taskmesh_core::Config { joins: !self.net.seeds.is_empty(), ..self.mesh.clone() }
    }

    /// Where workflow templates are.
    #[must_use]
    pub fn templates_dir(&self) -> PathBuf {
        self.node.templates_dir.clone().unwrap_or_else(|| self.node.data_dir.join("templates"))
    }

    /// One port for all, as if its addresses had been written out.
    fn listen_on_the_port(&mut self) {
        if self.net.listen_port != 0 {
            self.net.listen = listen("0.0.0.0", self.net.listen_port);
            self.sources.insert("net.listen", self.source("net.listen_port").clone());
        }
    }

    /// What no single value can be blamed for.
    fn contradictions(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut require = |holds: bool, key: &str, problem: String| {
            if !holds {
                found.push(Problem { place: self.source(key).clone(), problem: format!("{key} {problem}") });
            }
        };
        let auth = &self.auth;
        let set = [&auth.issuer, &auth.audience, &auth.jwks].map(|text| !text.is_empty());
        require(
            set.iter().all(|set| *set) || !set.contains(&true),
            "auth.issuer",
            "needs auth.audience and auth.jwks, and each of them the others".to_owned(),
        );
        require(
            self.source.queue.is_empty() == self.source.types.is_empty(),
            "source.queue",
            "needs source.types, and source.types needs it".to_owned(),
        );
        require(
            self.net.listen_port == 0 || self.is_default("net.listen"),
            "net.listen_port",
            "and net.listen both say where to listen: leave one out".to_owned(),
        );
        require(
            self.net.relay_use || !self.net.hole_punching,
            "net.hole_punching",
            "needs net.relay_use: it is over a relay that two nodes agree when to dial".to_owned(),
        );
        let (beat, lease, away) = (self.mesh.beat.0, self.mesh.lease.0, self.mesh.away.0);
        require(
            beat.saturating_mul(3) <= lease,
            "mesh.lease_ms",
            format!("is {lease}; it must be at least 3 × mesh.beat_ms ({beat}), or one lost beat costs a lease"),
        );
        require(
            away >= lease,
            "mesh.away_ms",
            format!(
                "is {away}; it must be at least mesh.lease_ms ({lease}), or holders are replaced before they are missed"
            ),
        );
        let (kill, grace) = (self.exec.kill_after_ms, self.mesh.grace.0);
        require(
            kill < grace,
            "exec.kill_after_ms",
            format!(
                "is {kill}; it must be below mesh.grace_ms ({grace}), or a task's owner gives up before its program is killed"
            ),
        );
        let (kept, most) = (self.exec.output_bytes, self.exec.output_max_bytes);
        require(
            kept <= most,
            "exec.output_bytes",
            format!("is {kept}; it must be at most exec.output_max_bytes ({most})"),
        );
        require(
            !self.node.data_dir.as_os_str().is_empty(),
            "node.data_dir",
            "has no default, because neither XDG_DATA_HOME nor HOME is set; give --data-dir".to_owned(),
        );
        found
    }
}

/// The port is the same for both, so that one rule opens a firewall.
fn listen(ip: &str, port: u16) -> Vec<String> {
    let mut addresses = vec![format!("/ip4/{ip}/tcp/{port}")];
    if cfg!(feature = "quic") {
        addresses.push(format!("/ip4/{ip}/udp/{port}/quic-v1"));
    }
    addresses
}

const PORT: u16 = 4770;

fn home_expanded(path: &Path, home: Option<&str>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => path.to_path_buf(),
    }
}

/// Settings half-way: every problem is collected, not the first alone.
struct Loading {
    config: Config,
    problems: Vec<Problem>,
}

impl Loading {
    fn file(&mut self, path: &Path, text: &str) {
        match value::read_toml(text) {
            Ok(entries) => {
                for value::Entry { line, key, value } in entries {
                    self.set(&key, &value, Source::File(path.to_path_buf(), line));
                }
            }
            Err((line, problem)) => {
                self.problems.push(Problem { place: Source::File(path.to_path_buf(), line), problem });
            }
        }
    }

    fn environment(&mut self, env: &[(String, String)]) {
        let ours = env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX));
        for (name, text) in ours {
            if let Some(setting) = SETTINGS.iter().find(|s| s.env() == *name) {
                self.text(setting.key, text, Source::Env(name.clone()));
            } else if !is_reserved(name) {
                let like = nearest(name, SETTINGS.iter().map(Setting::env).chain(RESERVED.map(str::to_owned)));
                let problem = format!("unknown variable{}", suggestion(like.as_deref(), "`taskmesh config show`"));
                self.problems.push(Problem { place: Source::Env(name.clone()), problem });
            }
        }
    }

    /// A value that comes as text: the setting's kind says how it is read.
    fn text(&mut self, key: &str, text: &str, source: Source) {
        let Some(setting) = settings::find(key) else { return self.unknown(key, source) };
        match setting.kind.read(text) {
            Ok(value) => self.set(key, &value, source),
            Err(problem) => self.problems.push(Problem { place: source, problem: format!("{key} {problem}") }),
        }
    }

    fn set(&mut self, key: &str, value: &Raw, source: Source) {
        let Some(setting) = settings::find(key) else { return self.unknown(key, source) };
        let checked = setting.kind.check(value).and_then(|value| (setting.set)(&mut self.config, value));
        match checked {
            Ok(()) => {
                self.config.sources.insert(setting.key, source);
            }
            Err(problem) => self.problems.push(Problem { place: source, problem: format!("{key} {problem}") }),
        }
    }

    fn unknown(&mut self, key: &str, place: Source) {
        let like = nearest(key, SETTINGS.iter().map(|s| s.key.to_owned()));
        let problem = format!("unknown key `{key}`{}", suggestion(like.as_deref(), "`taskmesh config show`"));
        self.problems.push(Problem { place, problem });
    }
}

/// What every variable of ours starts with.
pub const ENV_PREFIX: &str = "TASKMESH_";

/// Variables with our prefix that are no settings: for the command line, and
/// those that `exec` gives to the programs that it runs.
const RESERVED: [&str; 6] =
    ["TASKMESH_CONFIG", "TASKMESH_URL", "TASKMESH_TOKEN", "TASKMESH_TASK_ID", "TASKMESH_ATTEMPT", "TASKMESH_FENCE"];

fn is_reserved(name: &str) -> bool {
    // Kubernetes puts TASKMESH_PORT and TASKMESH_SERVICE_HOST into every pod
    // beside a service that is named taskmesh.
    RESERVED.contains(&name) || name.starts_with("TASKMESH_SERVICE_") || name.starts_with("TASKMESH_PORT")
}

/// The known name that is most like `name`, if any is much like it.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |text: &str| text.rsplit('.').next().unwrap_or(text).to_owned();
    known
        .map(|k| {
            // A key in the wrong section is as near as it can be.
            let like = if last(&k) == last(name) { 0.99 } else { strsim::jaro_winkler(name, &k) };
            (like, k)
        })
        .filter(|(like, _)| *like > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

fn suggestion(like: Option<&str>, list: &str) -> String {
    match like {
        Some(like) => format!("; did you mean `{like}`?"),
        None => format!("; {list} lists what there is"),
    }
}
