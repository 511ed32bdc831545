//! `up`: what a node has before it starts, and what it tells once it runs.
//!
//! [`prepare`] makes or finds the data folder, the keys and the token;
//! [`super::run`] starts everything and stays; [`announce`] says where it is.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::{NodeInfo, socket_path, token_path};
use crate::api::http::PATH;
use crate::api::tls::Fingerprint;
use crate::config::Config;
use crate::net::invite::Invite;
use crate::ops::Code;
use crate::store::identity::{self, IDENTITY_FILE, MESH_FILE, Origin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::task::Resources;
use taskmesh_core::{NodeId, WorkerId};

/// All that a node needs to start. Holds the lock on the data folder: one node
/// uses it at a time.
#[derive(Debug)]
pub struct Prepared {
    /// The settings. The seeds have those of every invite so far, and the
    /// addresses to listen on are free.
    pub config: Config,
    /// Seed of its Ed25519 key.
    pub identity: [u8; 32],
    /// What all members of the mesh know, and nobody else.
    pub mesh_key: [u8; 32],
    /// What callers of the facade must show.
    pub token: String,
    /// Whether the identity was made now.
    pub origin: Origin,
    /// How it is announced.
    pub form: Form,
    _lock: File,
}

/// Makes or finds everything; nothing listens yet.
///
/// # Errors
/// The folder can't be made or written, another node uses it, the invite can't
/// be read, or it is of another mesh. Files that were there are as they were.
pub fn prepare(config: Config, join: Option<&str>, form: Form) -> Result<Prepared, Exit> {
    let invite = join.map(read_invite).transpose()?;
    let folder = config.node.data_dir.clone();
    make_folder(&folder)?;
    let lock = lock(&folder)?;
    let mesh_key = mesh_key(&folder, config.net.mesh_key_file.as_deref(), invite.as_ref())?;
    let (identity, origin) = secret(&folder.join(IDENTITY_FILE), random)?;
    let (token, _) = secret(&token_path(&folder), random)?;
    let mut config = config;
    config.net.seeds = seeds(&folder, &config.net.seeds, invite.as_ref())?;
    config.net.listen = remembered(&folder, &config.net.listen);
    if config.is_default("net.listen") {
        config.net.listen = config.net.listen.iter().map(|address| free_address(address)).collect();
    }
    Ok(Prepared { config, identity, mesh_key, token: hex(&token), origin, form, _lock: lock })
}

/// Where a word to join has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Into the data folder: the next start finds it.
    Folder,
    /// A node uses the folder: it is to be asked.
    Running,
}

/// Makes the data folder that of a member of the invite's mesh, as the first
/// start with `--join` does.
pub(super) fn join(config: &Config, invite: &Invite) -> Result<Joined, Exit> {
    let folder = &config.node.data_dir;
    if NodeInfo::read(folder).ok().flatten().is_some() && !is_free(folder) {
        return Ok(Joined::Running);
    }
    make_folder(folder)?;
    let _lock = lock(folder)?;
    mesh_key(folder, config.net.mesh_key_file.as_deref(), Some(invite))?;
    secret(&folder.join(IDENTITY_FILE), random)?;
    secret(&token_path(folder), random)?;
    seeds(folder, &[], Some(invite))?;
    Ok(Joined::Folder)
}

/// No node uses the data folder now.
pub(super) fn is_free(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|file| file.try_lock().is_ok())
}

fn read_invite(text: &str) -> Result<Invite, Exit> {
    Invite::decode(text).map_err(|e| Exit::usage(format!("--join: {e}")))
}

fn make_folder(folder: &Path) -> Result<(), Exit> {
    if folder.is_dir() {
        let mode = fs::metadata(folder).map_or(0o700, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            output::note(&format!("others may look into {0}; `chmod 700 {0}` keeps them out", folder.display()));
        }
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| io_exit("make", folder, &e))
}

/// The lock is the system's: it goes with the process, however that ends.
fn lock(folder: &Path) -> Result<File, Exit> {
    let path = folder.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(|e| io_exit("open", &path, &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(20).read_to_string(&mut pid);
            let problem = format!("another node (process {}) uses the data folder {}", pid.trim(), folder.display());
            let next = "give this one a folder of its own with --data-dir";
            return Err(Exit::with(Code::FailedPrecondition, format!("{problem}; {next}")));
        }
        Err(TryLockError::Error(e)) => return Err(io_exit("lock", &path, &e)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| io_exit("write", &path, &e))?;
    Ok(file)
}

fn mesh_key(folder: &Path, given: Option<&Path>, invite: Option<&Invite>) -> Result<[u8; 32], Exit> {
    let path = folder.join(MESH_FILE);
    if let Some(given) = given {
        return given_key(&path, given, invite);
    }
    let Some(invite) = invite else { return Ok(secret(&path, random)?.0) };
    let (key, _) = secret(&path, || Ok(invite.mesh_key))?;
    if key == invite.mesh_key {
        return Ok(key);
    }
    let problem = format!("the data folder {} belongs to another mesh than the invite", folder.display());
    let next = "give a new folder with --data-dir, or leave out --join to go on in the old mesh";
    Err(Exit::with(Code::FailedPrecondition, format!("{problem}; {next}")))
}

/// The key in the file that the settings name. The one in the data folder, by
/// which commands find it, becomes the same; it never changes afterwards.
fn given_key(path: &Path, given: &Path, invite: Option<&Invite>) -> Result<[u8; 32], Exit> {
    let loaded = identity::load(given).map_err(|e| Exit::internal(e.to_string()))?;
    let missing =
        || Exit::with(Code::FailedPrecondition, format!("net.mesh_key_file: there is no {}", given.display()));
    let key = loaded.ok_or_else(missing)?;
    let (kept, _) = secret(path, || Ok(key))?;
    if kept == key && invite.is_none_or(|invite| invite.mesh_key == key) {
        return Ok(key);
    }
    let problem = format!("net.mesh_key_file ({}) has another key than the data folder or the invite", given.display());
    Err(Exit::with(Code::FailedPrecondition, format!("{problem}; give a new folder with --data-dir, or the right key")))
}

/// The secret in `path`; made if there is none.
fn secret(path: &Path, make: impl FnOnce() -> Result<[u8; 32], Exit>) -> Result<([u8; 32], Origin), Exit> {
    let exit = |e: crate::store::StoreError| Exit::internal(e.to_string());
    if let Some(found) = identity::load(path).map_err(exit)? {
        return Ok((found, Origin::Found));
    }
    let made = make()?;
    identity::load_or_create(path, || made).map_err(exit)
}

fn random() -> Result<[u8; 32], Exit> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Exit::internal(format!("the system gives no random numbers: {e}")))?;
    Ok(bytes)
}

/// The configured seeds, and the addresses of every invite that this node ever
/// got: a node that was told of others must not begin a mesh of its own because
/// it was restarted before it had reached one of them.
fn seeds(folder: &Path, configured: &[String], invite: Option<&Invite>) -> Result<Vec<String>, Exit> {
    let path = folder.join("seeds");
    let known = match fs::read_to_string(&path) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io_exit("read", &path, &e)),
    };
    let mut told: Vec<String> = Vec::new();
    let invited = invite.iter().flat_map(|invite| invite.seeds.iter().cloned());
    for address in invited.chain(known.iter().cloned()) {
        if !told.contains(&address) && told.len() < SEEDS {
            told.push(address);
        }
    }
    if told != known {
        let text: String = told.iter().map(|address| format!("{address}\n")).collect();
        write_private(&path, text.as_bytes()).map_err(|e| io_exit("write", &path, &e))?;
    }
    told.retain(|address| !configured.contains(address));
    Ok(configured.iter().cloned().chain(told).collect())
}

/// Held by the node that uses the data folder.
const LOCK: &str = "lock";
/// Of invites; the newest stay.
const SEEDS: usize = 64;

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// `address`, or the same with port 0 if its port is taken: for addresses that
/// nobody chose.
fn free_address(address: &str) -> String {
    let parts: Vec<&str> = address.split('/').collect();
    let [_, "ip4", ip, protocol, port, ..] = parts[..] else { return address.to_owned() };
    let Ok(socket) = format!("{ip}:{port}").parse::<SocketAddr>() else { return address.to_owned() };
    let is_free = match protocol {
        "tcp" => TcpListener::bind(socket).is_ok(),
        "udp" => UdpSocket::bind(socket).is_ok(),
        _ => true,
    };
    if is_free { address.to_owned() } else { address.replacen(&format!("/{port}"), "/0", 1) }
}

/// `listen`, with the port of the last time where any port will do: the other
/// nodes look for this one where they last saw it.
fn remembered(folder: &Path, listen: &[String]) -> Vec<String> {
    let before = fs::read_to_string(folder.join(LISTENED)).unwrap_or_default();
    let again = |address: &String| {
        // The last one: `/0.0.0.0` is no port.
        let (head, tail) = address.rsplit_once("/0").filter(|(_, tail)| tail.is_empty() || tail.starts_with('/'))?;
        let (host, protocol) = head.rsplit_once('/')?;
        let everywhere = ["/ip4/0.0.0.0", "/ip6/::"].contains(&host);
        let port = before.lines().find_map(|line| {
            let (there, rest) = line.split_once(&format!("/{protocol}/"))?;
            let port = rest.split('/').next().filter(|port| port.parse::<u16>().is_ok())?;
            (there == host || everywhere).then_some(port)
        })?;
        Some(free_address(&format!("{head}/{port}{tail}")))
    };
    listen.iter().map(|address| again(address).unwrap_or_else(|| address.clone())).collect()
}

/// Keeps where the node listens, for its next start.
///
/// # Errors
/// The data folder can't be written.
pub fn remember(prepared: &Prepared, addresses: &[String]) -> Result<(), Exit> {
    let path = prepared.config.node.data_dir.join(LISTENED);
    write_private(&path, addresses.join("\n").as_bytes()).map_err(|e| io_exit("write", &path, &e))
}

/// Where the node listened last, a multiaddress a line.
const LISTENED: &str = "listened";

/// A listener on the address of the setting `key`; on any free port if that one
/// is taken and nobody chose it. Non-blocking, as tokio wants it.
///
/// # Errors
/// The address can't be had; the message says which setting to change.
pub fn listener(config: &Config, key: &str, address: SocketAddr) -> Result<TcpListener, Exit> {
    let bound = match TcpListener::bind(address) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && config.is_default(key) => {
            TcpListener::bind(SocketAddr::new(address.ip(), 0))
        }
        bound => bound,
    };
    let ready = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    ready.map_err(|e| Exit::with(Code::FailedPrecondition, format!("can't listen on {address}: {e}; change {key}")))
}

fn io_exit(verb: &str, path: &Path, e: &io::Error) -> Exit {
    let code = if e.kind() == io::ErrorKind::PermissionDenied { Code::PermissionDenied } else { Code::Internal };
    Exit::with(code, format!("can't {verb} {}: {e}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Prepared {
    /// The invite for other nodes, with the `addresses` of this one.
    ///
    /// # Errors
    /// There is none, or one is no multiaddress with a peer id.
    pub fn invite(&self, addresses: &[String]) -> Result<String, Exit> {
        let seeds = addresses.iter().take(INVITED).cloned().collect();
        let invite = Invite { mesh_key: self.mesh_key, seeds };
        invite.encode().map_err(|e| Exit::internal(e.to_string()))
    }

    /// The id of the worker that `node` starts with. It does not follow the
    /// node's name: a container that gets another name must find its worker.
    #[must_use]
    pub fn worker_id(node: NodeId) -> Option<WorkerId> {
        let peer = node.to_string();
        WorkerId::new(&format!("worker-{}", &peer[peer.len().saturating_sub(8)..])).ok()
    }

    /// The worker that `node` starts with, of those `capabilities` that it has
    /// executors for; `None` if it is to run nothing.
    #[must_use]
    pub fn worker(&self, node: NodeId, capabilities: Vec<Arc<str>>) -> Option<WorkerSpec> {
        let worker = &self.config.worker;
        let chosen = worker.capabilities.iter().map(|c| c.as_str().into()).collect();
        let amount = |name: &str, missing: u64, unit: f64| {
            worker.resources.get(name).map_or(missing, |amount| (amount * unit).round() as u64)
        };
        let others = worker.resources.iter().filter(|(name, _)| !AMOUNTS.contains(&name.as_str()));
        let resources = Resources {
            cpu_milli: amount(AMOUNTS[0], UNLIMITED, 1_000.0),
            memory_mb: amount(AMOUNTS[1], UNLIMITED, 1.0),
            gpu_milli: amount(AMOUNTS[2], 0, 1_000.0),
            named: others.map(|(name, amount)| (name.as_str().into(), (amount * 1_000.0).round() as u64)).collect(),
        };
        let mut labels: BTreeMap<Arc<str>, Arc<str>> =
            worker.labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
        labels.entry("node".into()).or_insert_with(|| self.config.node.name.as_str().into());
        (worker.slots > 0).then_some(WorkerSpec {
            worker: Prepared::worker_id(node)?,
            capabilities: if worker.capabilities.is_empty() { capabilities } else { chosen },
            labels,
            slots: worker.slots,
            resources: (!worker.resources.is_empty()).then_some(resources),
            metadata: None,
        })
    }
}

/// Addresses in an invite: enough for every interface, and short enough to paste.
const INVITED: usize = 16;
const AMOUNTS: [&str; 3] = ["cpus", "memory_mb", "gpus"];
/// More than any task may ask for, as in `worker_register`.
const UNLIMITED: u64 = 1 << 53;

/// Where a node that has started listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The node.
    pub node: NodeId,
    /// Multiaddresses for other nodes, each with `/p2p/<peer id>`.
    pub addresses: Vec<String>,
    /// The MCP endpoint.
    pub api: SocketAddr,
    /// Of its certificate, if it has one.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is at [`socket_path`] too.
    pub socket: bool,
    /// The metrics endpoint.
    pub metrics: SocketAddr,
}

/// A node that is announced; forgotten again when this is dropped.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
}

/// Where a node can be reached, as it changes.
pub(super) type Listening = tokio::sync::watch::Receiver<Vec<String>>;

impl Announced {
    /// Keeps `node.json`, and the invite in it, up to date: a relay may come to
    /// stand in for a node long after it has started. Never ends.
    pub(super) async fn follow(&self, prepared: &Prepared, running: &Running, mut listening: Listening) -> Infallible {
        while listening.changed().await.is_ok() {
            let addresses = listening.borrow_and_update().clone();
            // For a moment it may listen nowhere, and then nobody can be invited.
            let Ok(info) = info(prepared, running, &addresses) else { continue };
            if let Err(error) = info.write(&prepared.config.node.data_dir) {
                tracing::warn!(%error, path = %self.path.display(), "where the node can be reached was not written");
            }
        }
        std::future::pending().await
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes `node.json`, by which commands find the node, and prints where it is
/// and how others join. To be called when everything listens.
///
/// # Errors
/// The data folder can't be written.
pub fn announce(prepared: &Prepared, running: &Running) -> Result<Announced, Exit> {
    let folder = &prepared.config.node.data_dir;
    let info = info(prepared, running, &running.addresses)?;
    let path = NodeInfo::path(folder);
    info.write(folder).map_err(|e| io_exit("write", &path, &e))?;
    let announced = Announced { path };
    match prepared.form {
        Form::Human => output::raw(&banner(prepared, &info, Reader::of_stdout()))?,
        Form::Json => output::json_line(&serde_json::to_value(&info).unwrap_or(Value::Null))?,
    }
    Ok(announced)
}

fn info(prepared: &Prepared, running: &Running, addresses: &[String]) -> Result<NodeInfo, Exit> {
    Ok(NodeInfo {
        peer_id: running.node.to_string(),
        pid: std::process::id(),
        api_url: api_url(prepared, running),
        api_socket: running.socket.then(|| socket_path(&prepared.config.node.data_dir)),
        fingerprint: running.fingerprint.map(|fingerprint| fingerprint.to_string()),
        metrics_url: format!("http://{}", from_here(running.metrics)),
        addresses: addresses.to_vec(),
        invite: prepared.invite(addresses)?,
    })
}

/// How processes of this machine reach what listens at `address`.
fn from_here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// Where clients reach the MCP endpoint.
fn api_url(prepared: &Prepared, running: &Running) -> String {
    let scheme = if running.fingerprint.is_some() { "https" } else { "http" };
    let port = running.api.port();
    match (prepared.config.api.hosts.first(), running.api.ip()) {
        (Some(host), ip) if !ip.is_loopback() => format!("{scheme}://{host}:{port}{PATH}"),
        (None, ip) if ip.is_unspecified() => format!("{scheme}://127.0.0.1:{port}{PATH}"),
        _ => format!("{scheme}://{}{PATH}", running.api),
    }
}

/// Who reads what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// At a terminal.
    Person,
    /// A journal, or a container's log: no place for a key or a token.
    Log,
}

impl Reader {
    fn of_stdout() -> Reader {
        if io::stdout().is_terminal() { Reader::Person } else { Reader::Log }
    }
}

pub(super) fn banner(prepared: &Prepared, info: &NodeInfo, reader: Reader) -> String {
    let folder = prepared.config.node.data_dir.display();
    let state = match prepared.origin {
        Origin::Created => "is up, for the first time",
        Origin::Found => "is up again",
    };
    let mut text = format!("taskmesh {} {state}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<9} {value}\n"));
    line("peer id", &info.peer_id);
    for (n, address) in info.addresses.iter().enumerate() {
        line(if n == 0 { "addresses" } else { "" }, address);
    }
    line("mcp", &info.api_url);
    if let Some(fingerprint) = &info.fingerprint {
        line("", &format!("with the certificate {fingerprint}"));
    }
    if prepared.config.api.dashboard {
        line("dashboard", "`taskmesh dashboard` prints its address, with a token for it");
    }
    line("metrics", &format!("{}/metrics", info.metrics_url));
    line("data", &folder.to_string());
    if prepared.config.exec.allow.is_empty() {
        line("exec", "off: `--exec-allow PROGRAM` lets tasks run a program on this node");
    }
    if reader == Reader::Log {
        let (others, token) =
            ("Another node joins with what `taskmesh invite` prints", token_path(&prepared.config.node.data_dir));
        text.push_str(&format!("\n{others}; the token for MCP clients is in {}.\n", token.display()));
        return text;
    }
    text.push_str("\nAnother node joins with this (it holds the mesh's key: keep it as a password):\n\n");
    text.push_str(&format!("  taskmesh up --join {}\n", info.invite));
    if info.addresses.iter().all(|address| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")) {
        let listen = "`--listen /ip4/0.0.0.0/tcp/4770`";
        text.push_str(&format!(
            "\n  Only from this machine, and with a --data-dir of its own; {listen} lets others in.\n"
        ));
    }
    let client = json!({ "mcpServers": { "taskmesh": {
        "type": "http",
        "url": info.api_url,
        "headers": { "Authorization": format!("Bearer {}", prepared.token) },
    } } });
    text.push_str(&format!("\nAn MCP client connects with:\n\n{client:#}\n\n"));
    text.push_str(&format!("or, over stdio, with the command `taskmesh mcp --data-dir {folder}`.\n"));
    text
}
