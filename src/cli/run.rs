//! Starts a prepared node, stays while it runs, and drains it when it is told
//! to stop. The one place that knows every part of a node.

use super::monitor::{Monitor, advertised};
use super::node::{Announced, Listening, Prepared, Running, announce, listener, remember};
use super::reach::socket_path;
use super::supervisor::Notifier;
use crate::api::Feed;
use crate::api::audit::Audit;
use crate::api::auth::Gate;
use crate::api::auth::external::{External, Settings, Source};
use crate::api::http::{Doors, Face, PATH, observe, serve};
use crate::api::serve::Door;
use crate::api::tls::{Fingerprint, Identity};
use crate::config::{Api, Auth, Config, LogFormat};
use crate::driver::{self, Event, Foreign, Handle, Inbox, Parts};
use crate::exec::{ExecConfig, Executors};
use crate::net::{self, BlobAccess, Net, NetConfig, NetEvent, Pace};
use crate::ops::{Changes, Failure, Offer};
use crate::store::{Blobs, SledStore, Store, StoreError};
use crate::telemetry::logging;
use crate::telemetry::process::LoadProbe;
use crate::telemetry::traces::Traces;
use crate::templates::Shelf;
use anyhow::{Context as _, anyhow};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::command::{Command, WorkerSpec};
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::token::RootKey;
use taskmesh_core::{BlobHash, Disk, Millis, Node, NodeId, Refusal, Request};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the network is given to say where it listens.
const LISTENING: Duration = Duration::from_secs(5);
/// What a run that is handed back is given beyond the time from SIGTERM to
/// SIGKILL.
const HAND_BACK: Duration = Duration::from_secs(5);
/// How often the node's own load is measured.
const LOAD: Duration = Duration::from_secs(5);
/// How often the folder of templates is looked at; a submission looks by itself.
const TEMPLATES: Duration = Duration::from_secs(5);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(20);

type DriverThread = std::thread::JoinHandle<Result<(), StoreError>>;

/// Starts the node, announces it, and stays until it is told to stop; drains.
///
/// # Errors
/// Something could not be started, or the store failed while it ran.
pub fn run_node(prepared: Prepared) -> anyhow::Result<()> {
    let format = match prepared.config.log.format {
        LogFormat::Human => logging::Format::Human,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format, &prepared.config.log.level)?;
    let ahead = prepared.config.node.clock_ahead_s;
    if ahead > 0 {
        tracing::warn!(seconds = ahead, "this node's clock is put ahead: for tests alone");
    }
    driver::put_clock_ahead(ahead);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let ended = runtime.block_on(run(prepared));
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn run(prepared: Prepared) -> anyhow::Result<()> {
    // From here on a signal drains, also one that comes while the node starts.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let started = Started::start(&prepared).await?;
    let announced: Announced =
        announce(&prepared, &started.running).map_err(|e| anyhow!("the node could not be announced: {e}"))?;
    let notifier = Notifier::new(prepared.config.supervisor.as_ref());
    notifier.ready();
    let mut driver = tokio::task::spawn_blocking(move || started.driver.join());
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut driver => Some(ended),
        never = notifier.keep_alive(&started.handle) => match never {},
        never = announced.follow(&prepared, &started.running, started.listening) => match never {},
    };
    if let Some(ended) = failed {
        started.shutdown.cancel();
        return ended
            .map_err(|e| anyhow!(e))?
            .map_err(|_| anyhow!("the node's loop panicked; its log says where"))?
            .context(
                "the node stopped because its store failed; nothing that it promised is lost, its other holders go on",
            );
    }
    tracing::info!("draining: no new work is taken");
    let again = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let grace = Duration::from_millis(prepared.config.node.drain_ms);
    let kill_after = Duration::from_millis(prepared.config.exec.kill_after_ms);
    notifier.stopping(grace + kill_after + 2 * HAND_BACK);
    tokio::select! {
        () = drain(&started.handle, grace, kill_after, again) => {}
        never = notifier.keep_alive(&started.handle) => match never {},
    }
    started.handle.stop();
    let stopped = driver.await.map_err(|e| anyhow!(e))?;
    started.shutdown.cancel();
    started.executors.shutdown().await;
    if let Some(traces) = started.traces {
        tokio::task::spawn_blocking(move || traces.close()).await?;
    }
    tracing::info!("stopped");
    Ok(stopped.map_err(|_| anyhow!("the node's loop panicked; its log says where"))??)
}

fn collector(config: &crate::config::Traces, node: NodeId) -> anyhow::Result<Option<Traces>> {
    if config.endpoint.is_empty() {
        return Ok(None);
    }
    let traces = Traces::to(&config.endpoint, config.sample_percent, node);
    traces.map(Some).map_err(|problem| anyhow!("traces.endpoint is {}: {problem}", config.endpoint))
}

/// Lets running tasks end within the grace, then hands them back.
async fn drain(handle: &Handle, grace: Duration, kill_after: Duration, again: impl Future<Output = ()>) {
    handle.drain();
    tokio::select! {
        () = idle(handle, grace) => {}
        () = again => tracing::info!("told to stop a second time: running tasks are handed back now"),
    }
    if !handle.pulse().idle {
        handle.hand_back();
        idle(handle, kill_after + HAND_BACK).await;
    }
}

/// Until nothing runs, or so long.
async fn idle(handle: &Handle, patience: Duration) {
    let until = tokio::time::Instant::now() + patience;
    loop {
        // One look is too early: the drain may not have been taken up yet.
        tokio::time::sleep(LOOK).await;
        let pulse = handle.pulse();
        if (pulse.idle && pulse.draining) || tokio::time::Instant::now() >= until {
            return;
        }
    }
}

struct Started {
    handle: Handle,
    driver: DriverThread,
    executors: Executors,
    running: Running,
    shutdown: CancellationToken,
    traces: Option<Traces>,
    listening: Listening,
}

impl Started {
    async fn start(prepared: &Prepared) -> anyhow::Result<Started> {
        let config = &prepared.config;
        let folder = config.node.data_dir.join("store");
        let mut store = SledStore::open(&folder)?;
        let disk = load(&mut store)?;
        let blobs = store.blobs();
        let inbox = Arc::new(Inbox::default());
        let executors = start_executors(prepared, &inbox)?;
        let node = restore(prepared, disk, executors.capabilities())?;
        let id = node.id();
        let outcast = node.outcast().cloned();
        let templates = Shelf::new(config.templates_dir());
        let access = blob_access(blobs.clone(), templates.clone());
        let (net, listening) = start_net(prepared, &node, access, &inbox)?;
        let monitor = Monitor::default();
        let meters = net.meters();
        let feed = Feed::default();
        let observer = monitor.observer(feed.clone());
        let traces = collector(&config.traces, id)?;
        let parts = Parts {
            node,
            store: Box::new(store),
            blobs,
            net,
            executors: executors.clone(),
            traces: traces.clone(),
            observer: Box::new(observer),
        };
        let (handle, driver) = driver::spawn(parts, inbox)?;
        let worker = prepared.worker(id, executors.capabilities());
        enlist(&handle, id, worker, outcast.as_ref()).await?;
        let addresses = heard_addresses(listening.clone(), config.net.listen.len()).await?;
        remember(prepared, &addresses).map_err(|e| anyhow!("{e}"))?;
        let shutdown = CancellationToken::new();
        let (doors, fingerprint) = doors(prepared)?;
        let watch = TcpListener::from_std(
            listener(config, "metrics.listen", config.metrics.listen).map_err(|e| anyhow!("{e}"))?,
        )?;
        let running = Running {
            node: id,
            addresses,
            api: doors.address,
            fingerprint,
            socket: doors.local.is_some(),
            metrics: watch.local_addr()?,
        };
        handle.metrics_at(&advertised(config, running.metrics, &running.addresses));
        let meter = {
            let metrics = monitor.metrics.clone();
            Arc::new(move |operation: &str, code: &str, took: Duration| metrics.call(operation, code, took))
        };
        let (hosts, offer, dashboard) = (config.api.hosts.clone(), offer(&config.api)?, config.api.dashboard);
        let root = RootKey::of_mesh(&prepared.mesh_key);
        let external = external(&config.auth, &running).map_err(|e| anyhow!("{e}"))?;
        let gate = Gate::new(handle.clone(), root, &prepared.token, external).map_err(|e| anyhow!("{e}"))?;
        let audit = Audit::open(&config.node.data_dir).context("the audit log can't be opened")?;
        tokio::spawn(audit.clone().keep_flushed(shutdown.clone()));
        let foreign =
            Foreign::start(handle.clone(), executors.desk(), executors.capabilities(), shutdown.clone()).await;
        let face = Face { gate, audit, meter, hosts, feed, offer, templates: templates.clone(), dashboard };
        super::door::open(prepared, &face, foreign, &shutdown).await?;
        super::source::start(&config.source, &handle, monitor.metrics.clone(), &shutdown)?;
        let audit = face.audit.clone();
        spawn_server("api", serve(doors, face, shutdown.clone()));
        spawn_server("metrics", observe(watch, monitor.routes(config, &handle, meters, audit), shutdown.clone()));
        tokio::spawn(tell_load(handle.clone(), shutdown.clone()));
        tokio::spawn(tell_templates(handle.clone(), templates, shutdown.clone()));
        Ok(Started { handle, driver, executors, running, shutdown, traces, listening })
    }
}

/// Offers the node's own worker to the mesh, or takes it back.
async fn enlist(
    handle: &Handle,
    node: NodeId,
    worker: Option<WorkerSpec>,
    outcast: Option<&Forgotten>,
) -> anyhow::Result<()> {
    match (worker, outcast) {
        // It stays up to say so.
        (_, Some(word)) => logging::cast_out(word),
        (Some(worker), None) => register(handle, worker).await?,
        (None, None) => unregister(handle, node).await?,
    }
    Ok(())
}

/// The authorisation server that the settings name, if they name one.
fn external(auth: &Auth, running: &Running) -> Result<Option<External>, Failure> {
    if auth.issuer.is_empty() {
        return Ok(None);
    }
    let jwks = auth.jwks.clone();
    let keys = if jwks.contains("://") { Source::Url(jwks) } else { Source::File(jwks.into()) };
    let scheme = if running.fingerprint.is_some() { "https" } else { "http" };
    let listens = format!("{scheme}://{}{PATH}", running.api);
    let resource = if auth.resource.is_empty() { listens } else { auth.resource.clone() };
    let (issuer, audience) = (auth.issuer.clone(), auth.audience.clone());
    External::new(Settings { issuer, audience, keys, resource }).map(Some)
}

/// The MCP endpoint's address, with TLS where it is not loopback or was asked
/// for, and its socket in the data folder.
fn doors(prepared: &Prepared) -> anyhow::Result<(Doors, Option<Fingerprint>)> {
    let config = &prepared.config;
    let listener = listener(config, "api.listen", config.api.listen).map_err(|e| anyhow!("{e}"))?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let identity = match (&config.api.tls_cert, &config.api.tls_key) {
        (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
        (None, None) if address.ip().is_loopback() => None,
        (None, None) => Some(Identity::own(&config.node.data_dir, &names(config, address))?),
        _ => anyhow::bail!("api.tls_cert and api.tls_key go together: set both, or neither"),
    };
    let fingerprint = identity.as_ref().map(|identity| identity.fingerprint);
    let open = match identity {
        Some(identity) => Door::Tls(listener, identity.acceptor),
        None => Door::Tcp(listener),
    };
    Ok((Doors { open, address, local: local_door(&socket_path(&config.node.data_dir)) }, fingerprint))
}

/// What the node's own certificate is for.
fn names(config: &Config, address: SocketAddr) -> Vec<String> {
    let address = Some(address.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    own.into_iter().chain(address).chain(config.api.hosts.iter().cloned()).collect()
}

/// The lock on the data folder is held: a socket from before is nobody's.
fn local_door(path: &Path) -> Option<UnixListener> {
    let _ = std::fs::remove_file(path);
    match UnixListener::bind(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            // A path of over 107 bytes, or a file system without sockets.
            tracing::warn!(%error, path = %path.display(), "no socket: commands on this machine use the address");
            None
        }
    }
}

fn load(store: &mut SledStore) -> anyhow::Result<Disk> {
    let (disk, quarantined) = store.load()?;
    for part in &quarantined {
        let kept = part.kept.as_ref().map(|path| path.display().to_string());
        tracing::error!(
            what = part.what,
            problem = part.problem,
            kept,
            "damaged on this disk: the other holders repair it"
        );
    }
    tracing::info!(tasks = disk.slots.len(), damaged = disk.damaged.len(), peers = disk.peers.len(), "store loaded");
    Ok(disk)
}

fn start_executors(prepared: &Prepared, inbox: &Arc<Inbox>) -> anyhow::Result<Executors> {
    let config = &prepared.config;
    let mut exec = ExecConfig::new(config.node.data_dir.join("work"));
    exec.allow = config.exec.allow.clone();
    exec.output_bytes = usize::try_from(config.exec.output_bytes).unwrap_or(usize::MAX);
    exec.output_max_bytes = usize::try_from(config.exec.output_max_bytes).unwrap_or(usize::MAX);
    exec.kill_after = Duration::from_millis(config.exec.kill_after_ms);
    let inbox = inbox.clone();
    Ok(Executors::start(exec, move |event| inbox.push_local(Event::Run(event)))?)
}

fn restore(prepared: &Prepared, disk: Disk, executors: Vec<Arc<str>>) -> anyhow::Result<Node> {
    let id = net::node_of(&prepared.identity)?;
    let mut config = prepared.config.core();
    config.executors = executors;
    config.root = Some(RootKey::of_mesh(&prepared.mesh_key));
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("no randomness from the system: {e}"))?;
    Ok(Node::new(id, config, u64::from_le_bytes(seed), disk))
}

fn start_net(
    prepared: &Prepared,
    node: &Node,
    blobs: BlobAccess,
    inbox: &Arc<Inbox>,
) -> anyhow::Result<(Net, Listening)> {
    let config = &prepared.config;
    let books = node.peer_books();
    let texts = |addresses: &[Arc<str>]| addresses.iter().map(|a| a.to_string()).collect();
    let net = NetConfig {
        identity: prepared.identity,
        mesh_key: prepared.mesh_key,
        listen: config.net.listen.clone(),
        seeds: config.net.seeds.clone(),
        known: books.iter().filter(|(_, b)| !b.banished).map(|(n, b)| (*n, texts(&b.addresses))).collect(),
        forgotten: node.forgotten(),
        banished: books.iter().filter(|(_, b)| b.banished).map(|(n, _)| *n).collect(),
        external: config.net.external.clone(),
        mdns: config.net.mdns.into(),
        autonat: config.net.autonat.into(),
        circuits: if config.net.relay_serve { config.net.relay_circuits as usize } else { 0 },
        relays: config.net.relay_use.into(),
        hole_punching: config.net.hole_punching.into(),
        allow: config.net.allow.clone(),
        deny: config.net.deny.clone(),
        limits: net::Limits { connections: config.net.max_connections, ..net::Limits::default() },
        pace: Pace::of_lease(Duration::from_millis(config.mesh.lease.0)),
        ..NetConfig::default()
    };
    let (told, listening) = tokio::sync::watch::channel(Vec::new());
    let inbox = inbox.clone();
    let events = move |event: NetEvent| {
        if let NetEvent::Listening(addresses) = &event {
            told.send_replace(addresses.clone());
        }
        inbox.push_network(event)
    };
    Ok((net::start(net, blobs, Box::new(events))?, listening))
}

/// Where the node listens: at least one address for each that was asked for,
/// or what there is when it was waited for long enough.
async fn heard_addresses(mut listening: Listening, asked: usize) -> anyhow::Result<Vec<String>> {
    let all = listening.wait_for(|addresses| addresses.len() >= asked);
    // A time-out is no failure yet: some of them may be there.
    let _ = tokio::time::timeout(LISTENING, all).await;
    let addresses = listening.borrow().clone();
    anyhow::ensure!(!addresses.is_empty(), "the network listens nowhere; check net.listen");
    Ok(addresses)
}

/// What other nodes may have of this one: results that are too large for a
/// record, and templates.
fn blob_access(blobs: Blobs, templates: Shelf) -> BlobAccess {
    let read = blobs.clone();
    BlobAccess {
        read: Box::new(move |hash, offset, len| {
            templates.read(hash, offset, len).or_else(|| read.read(hash, offset, len))
        }),
        receive: Box::new(move |hash, bytes, parts| match receive(&blobs, hash, bytes, parts) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%hash, %error, "a blob was not received");
                false
            }
        }),
    }
}

fn receive(
    blobs: &Blobs,
    hash: BlobHash,
    bytes: u64,
    parts: &mut dyn Iterator<Item = Vec<u8>>,
) -> Result<(), StoreError> {
    let mut receiving = blobs.receive(hash, bytes)?;
    for part in parts {
        receiving.append(&part)?;
    }
    receiving.finish()
}

/// Which operations the settings offer.
fn offer(api: &Api) -> anyhow::Result<Offer> {
    let changes = if api.read_only { Changes::Withheld } else { Changes::Offered };
    Offer::new(api.toolsets.iter().map(String::as_str), changes).map_err(|e| anyhow!("api.toolsets: {e}"))
}

/// The node's own worker follows the settings at each start; those that were
/// registered by an operation are as they were.
async fn register(handle: &Handle, worker: WorkerSpec) -> anyhow::Result<()> {
    let name = worker.worker.clone();
    handle.ask(Request::Command(Command::Register(worker))).await.map_err(|e| anyhow!("worker {name}: {e}"))?;
    Ok(())
}

async fn unregister(handle: &Handle, node: NodeId) -> anyhow::Result<()> {
    let Some(worker) = Prepared::worker_id(node) else { return Ok(()) };
    let command = Command::Unregister { worker, graceful: false, timeout: Millis(0) };
    match handle.ask(Request::Command(command)).await {
        Ok(_) | Err(Refusal::NotFound { .. }) => Ok(()),
        Err(e) => Err(anyhow!("the worker of this node: {e}")),
    }
}

fn spawn_server(name: &'static str, server: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the {name} endpoint ended");
        }
    });
}

/// Tells the node which templates it has, as files come and go, and whoever reads
/// the log which files are none.
async fn tell_templates(handle: Handle, templates: Shelf, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(TEMPLATES);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let shelf = templates.clone();
        let Ok((own, broken)) = tokio::task::spawn_blocking(move || shelf.look()).await else { continue };
        handle.templates(own);
        for file in broken.iter().filter(|file| !told.contains(*file)) {
            tracing::warn!("a template is left out: {file}");
        }
        told = broken;
    }
}

/// Tells the node its own load, for those who ask after its workers.
async fn tell_load(handle: Handle, shutdown: CancellationToken) {
    let mut probe = LoadProbe::default();
    let mut every = tokio::time::interval(LOAD);
    loop {
        tokio::select! {
            _ = every.tick() => handle.load(probe.measure()),
            () = shutdown.cancelled() => return,
        }
    }
}
