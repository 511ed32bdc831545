//! Commands of the node that take a while: each has a time limit and ends in
//! exactly one `Done`, with what really happened.

use super::NetEvent;
use super::actor::Actor;
use super::dialling::reason;
use super::discovery::{Source, back_off, split_peer};
use super::gate::{node_of, peer_of};
use super::links::Up;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, kad};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::effect::NetResult;
use taskmesh_core::prng::Prng;
use taskmesh_core::{Millis, NetCommand, NodeId, PeerEvent, Refusal, RequestId};

/// The commands under way.
#[derive(Default)]
pub(super) struct Jobs {
    dials: Vec<DialJob>,
    closes: Vec<CloseJob>,
    bootstraps: Vec<BootstrapJob>,
    finds: Vec<FindJob>,
}

impl Jobs {
    /// Whether somebody asked to leave `peer`.
    pub(super) fn closes(&self, peer: &PeerId) -> bool {
        self.closes.iter().any(|job| job.peer == *peer)
    }

    fn len(&self) -> usize {
        self.dials.len() + self.closes.len() + self.bootstraps.len() + self.finds.len()
    }
}

struct DialJob {
    id: RequestId,
    peer: PeerId,
    address: Multiaddr,
    timeout: Duration,
    tries_left: u32,
    attempts: u32,
    state: Trying,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trying {
    /// Between two tries.
    Pause { until: Instant },
    /// Dialling, or waiting for the stream of the new connection.
    Under { connection: ConnectionId, until: Instant },
}

struct CloseJob {
    id: RequestId,
    peer: PeerId,
    until: Instant,
}

struct BootstrapJob {
    id: RequestId,
    until: Instant,
    min: usize,
    max: usize,
    used: Vec<Arc<str>>,
    failures: Vec<(Arc<str>, Arc<str>)>,
    waiting: VecDeque<(Arc<str>, Multiaddr)>,
    dialling: HashMap<ConnectionId, Arc<str>>,
    proving: HashMap<PeerId, Arc<str>>,
    /// When the last seed was done with: others are found through the seeds.
    seeds_done: Option<Instant>,
}

struct FindJob {
    id: RequestId,
    max: usize,
    until: Instant,
    queries: Vec<kad::QueryId>,
}

/// What the node is told of a command that found no room.
pub(super) fn refused(command: &NetCommand) -> Option<NetEvent> {
    let id = match command {
        NetCommand::Dial { id, .. }
        | NetCommand::Close { id, .. }
        | NetCommand::Bootstrap { id, .. }
        | NetCommand::Find { id, .. } => id,
        NetCommand::Forget { .. } => return None,
    };
    let refusal =
        Refusal::Full { what: "the network's list of commands".into(), limit: JOBS as u64, retry_after: Millis(1_000) };
    Some(done(*id, NetResult::Failed(refusal)))
}

fn done(id: RequestId, result: NetResult) -> NetEvent {
    NetEvent::Peer(PeerEvent::Done { id, result })
}

impl Actor {
    pub(super) fn on_command(&mut self, command: NetCommand) {
        if self.jobs.len() >= JOBS
            && let Some(event) = refused(&command)
        {
            return self.shared.post(event);
        }
        let now = Instant::now();
        match command {
            NetCommand::Dial { id, peer, address, timeout, retries, persist } => {
                let source = if persist { Source::Person } else { Source::Hearsay };
                let job = self.dial_job(id, peer, &address, timeout, retries, now);
                match job {
                    Ok(job) => self.begin_dial(job, peer, source, now),
                    Err(problem) => self.finish(id, NetResult::Failed(problem)),
                }
            }
            NetCommand::Close { id, peer } => self.begin_leave(id, peer, now),
            NetCommand::Forget { peer } => self.forget(peer, now),
            NetCommand::Bootstrap { id, addresses, timeout, min_connections, max_connections } => {
                let until = now + limited(timeout);
                self.begin_bootstrap(id, &addresses, until, min_connections as usize, max_connections as usize);
            }
            NetCommand::Find { id, max, timeout } => self.begin_find(id, max as usize, now + limited(timeout)),
        }
    }

    fn finish(&self, id: RequestId, result: NetResult) {
        self.shared.post(done(id, result));
    }

    fn dial_job(
        &self,
        id: RequestId,
        node: NodeId,
        address: &str,
        timeout: Millis,
        retries: u32,
        now: Instant,
    ) -> Result<DialJob, Refusal> {
        let invalid = |field: &str, problem: String| Refusal::Invalid { field: field.into(), problem: problem.into() };
        let parsed: Multiaddr =
            address.parse().map_err(|e| invalid("multiaddr", format!("is not a multiaddress: {e}")))?;
        let (address, named) = split_peer(&parsed);
        let peer = peer_of(&node);
        if named.is_some_and(|named| named != peer) {
            return Err(invalid("multiaddr", "ends in another peer id than `peer_id`".into()));
        }
        if peer == self.gate.me() {
            return Err(invalid("peer_id", "is this node itself".into()));
        }
        if self.gate.lists(&node).is_some() {
            return Err(invalid("peer_id", "is not allowed by this node's allow or deny list".into()));
        }
        Ok(DialJob {
            id,
            peer,
            address,
            timeout: limited(timeout),
            tries_left: retries.min(MAX_RETRIES),
            attempts: 0,
            state: Trying::Pause { until: now },
        })
    }

    fn begin_dial(&mut self, job: DialJob, node: NodeId, source: Source, now: Instant) {
        self.gate.pardon(&node);
        self.book.pardon(&job.peer, now);
        if source == Source::Person {
            self.book.learn(job.peer, std::slice::from_ref(&job.address), source, now);
        }
        if let Some(result) = self.dialled(&job) {
            return self.finish(job.id, result);
        }
        self.jobs.dials.push(job);
        self.tick_jobs(now);
    }

    /// The good end of a dial, if the peer is up.
    fn dialled(&self, job: &DialJob) -> Option<NetResult> {
        let link = self.links.get(&job.peer).filter(|link| link.up == Up::Yes)?;
        let (connection, address) = link.address()?;
        Some(NetResult::Dialled {
            address: address.to_string().into(),
            connection: connection.to_string().into(),
            attempts: job.attempts,
        })
    }

    /// Left by hand: what is queued is written, then every connection is closed,
    /// and the peer is neither dialled nor let in until it is asked for.
    fn begin_leave(&mut self, id: RequestId, node: NodeId, now: Instant) {
        let peer = peer_of(&node);
        self.gate.banish(node);
        self.book.banish(peer, now);
        let Some(link) = self.links.get(&peer) else {
            // Ends a dial of it that is under way.
            let _ = self.swarm.disconnect_peer_id(peer);
            return self.finish(id, NetResult::Closed { was_connected: false });
        };
        link.session.queue.close();
        self.jobs.closes.push(CloseJob { id, peer, until: now + LEAVE });
    }

    /// Gone for ever: what may be left of it is hung up on, so that it calls
    /// again and is told.
    fn forget(&mut self, node: NodeId, now: Instant) {
        let peer = peer_of(&node);
        self.gate.forget(node);
        self.book.banish(peer, now);
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn begin_bootstrap(&mut self, id: RequestId, addresses: &[Arc<str>], until: Instant, min: usize, max: usize) {
        let seeds: Vec<Arc<str>> = match addresses {
            [] => self.config.seeds.iter().map(|s| s.as_str().into()).collect(),
            given => given.iter().take(MAX_SEEDS).cloned().collect(),
        };
        let mut job = BootstrapJob {
            id,
            until,
            min,
            max: max.max(1),
            used: Vec::new(),
            failures: Vec::new(),
            waiting: VecDeque::new(),
            dialling: HashMap::new(),
            proving: HashMap::new(),
            seeds_done: None,
        };
        for seed in seeds {
            match seed.parse::<Multiaddr>() {
                Ok(address) => job.waiting.push_back((seed, address)),
                Err(error) => job.failures.push((seed, format!("is not a multiaddress: {error}").into())),
            }
        }
        self.jobs.bootstraps.push(job);
        self.dials.walk_soon(Instant::now());
        self.tick_jobs(Instant::now());
    }

    fn begin_find(&mut self, id: RequestId, max: usize, until: Instant) {
        let mut queries = Vec::new();
        if !self.links.is_empty() {
            let kad = &mut self.swarm.behaviour_mut().kad;
            queries.push(kad.get_closest_peers(self.gate.me()));
            queries.extend((0..WALKS).map(|_| kad.get_closest_peers(PeerId::random())));
        }
        self.jobs.finds.push(FindJob { id, max, until, queries });
        self.tick_jobs(Instant::now());
    }

    pub(super) fn on_job_connected(&mut self, id: ConnectionId, peer: PeerId) {
        for job in &mut self.jobs.bootstraps {
            if let Some(seed) = job.dialling.remove(&id) {
                job.proving.insert(peer, seed);
            }
        }
        if self.links.get(&peer).is_some_and(|link| link.up == Up::Yes) {
            self.on_peer_up(peer);
        }
    }

    pub(super) fn on_peer_up(&mut self, peer: PeerId) {
        self.jobs.bootstraps.iter_mut().for_each(|job| drop(job.proving.remove(&peer)));
        self.tick_jobs(Instant::now());
    }

    pub(super) fn on_job_dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        for job in &mut self.jobs.bootstraps {
            if let Some(seed) = job.dialling.remove(&id) {
                job.failures.push((seed, reason(error).into()));
            }
        }
        let under = |job: &DialJob| matches!(job.state, Trying::Under { connection, .. } if connection == id);
        let Some(at) = self.jobs.dials.iter().position(under) else { return };
        let job = self.jobs.dials.swap_remove(at);
        if let DialError::WrongPeerId { obtained, address } = error {
            let problem = format!("another peer answers at {address}: {obtained}");
            let refusal = Refusal::Invalid { field: "peer_id".into(), problem: problem.into() };
            return self.finish(job.id, NetResult::Failed(refusal));
        }
        self.try_again(job, &reason(error));
    }

    fn try_again(&mut self, mut job: DialJob, problem: &str) {
        if job.tries_left == 0 {
            let problem = format!("no connection in {} attempts; the last: {problem}", job.attempts);
            let refusal = Refusal::Unavailable { problem: problem.into(), retry_after: Millis(5_000) };
            return self.finish(job.id, NetResult::Failed(refusal));
        }
        job.tries_left -= 1;
        let mut prng = Prng::new(self.boot ^ job.id.0);
        let wait = back_off(&mut prng, FIRST_PAUSE, LONGEST_PAUSE, job.attempts);
        job.state = Trying::Pause { until: Instant::now() + wait };
        self.jobs.dials.push(job);
    }

    /// The last connection to a peer is gone.
    pub(super) fn on_left(&mut self, peer: &PeerId) {
        let (left, rest) = std::mem::take(&mut self.jobs.closes).into_iter().partition(|job| job.peer == *peer);
        self.jobs.closes = rest;
        let left: Vec<CloseJob> = left;
        left.iter().for_each(|job| self.finish(job.id, NetResult::Closed { was_connected: true }));
        for job in &mut self.jobs.bootstraps {
            if let Some(seed) = job.proving.remove(peer) {
                job.failures.push((seed, "the connection was lost before it was usable".into()));
            }
        }
    }

    pub(super) fn on_job_walked(&mut self, id: kad::QueryId) {
        self.jobs.finds.iter_mut().for_each(|job| job.queries.retain(|q| *q != id));
        self.tick_jobs(Instant::now());
    }

    /// Moves every command on.
    pub(super) fn tick_jobs(&mut self, now: Instant) {
        for job in std::mem::take(&mut self.jobs.dials) {
            self.tick_dial(job, now);
        }
        for job in std::mem::take(&mut self.jobs.bootstraps) {
            self.tick_bootstrap(job, now);
        }
        let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.jobs.finds)
            .into_iter()
            .partition(|job: &FindJob| job.queries.is_empty() || now >= job.until);
        self.jobs.finds = rest;
        for job in over {
            let found = self.book.entries().filter_map(|(peer, at)| {
                let addresses = at.iter().map(|a| a.to_string().into()).collect();
                Some((node_of(&peer)?, addresses))
            });
            self.finish(job.id, NetResult::Found(found.take(job.max).collect()));
        }
        let late: Vec<_> = self.jobs.closes.iter().filter(|job| now >= job.until).map(|job| job.peer).collect();
        for peer in late {
            if self.swarm.disconnect_peer_id(peer).is_err() {
                self.on_left(&peer);
            }
        }
    }

    fn tick_dial(&mut self, mut job: DialJob, now: Instant) {
        if let Some(result) = self.dialled(&job) {
            return self.finish(job.id, result);
        }
        match job.state {
            Trying::Pause { until } if until > now => self.jobs.dials.push(job),
            Trying::Under { until, .. } if until > now => self.jobs.dials.push(job),
            Trying::Under { .. } => {
                let problem = format!("{}: no connection within {} ms", job.address, job.timeout.as_millis());
                self.try_again(job, &problem);
            }
            Trying::Pause { .. } => {
                let options = DialOpts::peer_id(job.peer)
                    .condition(PeerCondition::Always)
                    .addresses(vec![job.address.clone()])
                    .build();
                let connection = options.connection_id();
                job.attempts += 1;
                job.state = Trying::Under { connection, until: now + job.timeout };
                self.jobs.dials.push(job);
                self.shared.counters.dials.add(1);
                if let Err(error) = self.swarm.dial(options) {
                    self.on_job_dial_failed(connection, &error);
                }
            }
        }
    }

    fn tick_bootstrap(&mut self, mut job: BootstrapJob, now: Instant) {
        let connected: Vec<NodeId> = self.links.up().map(|(_, link)| link.session.node).collect();
        let enough = connected.len() >= job.max;
        while !enough && job.dialling.len() < job.max && now < job.until {
            let Some((seed, address)) = job.waiting.pop_front() else { break };
            job.used.push(seed.clone());
            self.dial_seed(&mut job, seed, address);
        }
        let idle = job.waiting.is_empty() && job.dialling.is_empty() && job.proving.is_empty();
        if idle && job.seeds_done.is_none() {
            job.seeds_done = Some(now);
        }
        let found = job.seeds_done.is_some_and(|since| connected.len() >= job.min || now >= since + OTHERS);
        if !(enough || found || now >= job.until) {
            self.jobs.bootstraps.push(job);
            return;
        }
        let slow = job.dialling.into_values().chain(job.proving.into_values());
        if !enough {
            job.failures.extend(slow.map(|seed| (seed, Arc::from("no connection in time"))));
            let undialled = job.waiting.into_iter().map(|(seed, _)| (seed, Arc::from("not dialled: out of time")));
            job.failures.extend(undialled);
        }
        let result = NetResult::Bootstrapped { connected, used: job.used, failures: job.failures };
        self.finish(job.id, result);
    }

    fn dial_seed(&mut self, job: &mut BootstrapJob, seed: Arc<str>, address: Multiaddr) {
        let (at, named) = split_peer(&address);
        let options = match named {
            Some(peer) if self.links.get(&peer).is_some_and(|l| l.up == Up::Yes) => return,
            Some(peer) => {
                self.book.learn(peer, std::slice::from_ref(&at), Source::Hearsay, Instant::now());
                DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![at]).build()
            }
            None => DialOpts::unknown_peer_id().address(at).build(),
        };
        let id = options.connection_id();
        self.shared.counters.dials.add(1);
        match self.swarm.dial(options) {
            Ok(()) => drop(job.dialling.insert(id, seed)),
            Err(error) => job.failures.push((seed, reason(&error).into())),
        }
    }
}

fn limited(timeout: Millis) -> Duration {
    Duration::from_millis(timeout.0.clamp(1, MAX_TIMEOUT_MS))
}

/// Commands at once.
const JOBS: usize = 256;
const MAX_TIMEOUT_MS: u64 = 300_000;
const MAX_RETRIES: u32 = 10;
const MAX_SEEDS: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For writing out what is queued for a peer that is left.
const LEAVE: Duration = Duration::from_secs(1);
/// After the seeds, for those that are found through them.
const OTHERS: Duration = Duration::from_secs(3);
/// Random walks of one search, beside the one around this node.
const WALKS: usize = 2;
