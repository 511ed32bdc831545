//! Members: who is there, when each was last heard, what each says of itself,
//! and what this node measured of the connection.

use crate::command::{Command, PeerFilter, PeerSort, Refusal};
use crate::effect::{Effect, Entry, NetCommand, NetResult, Notice, PeerBook, PeerEvent};
use crate::forgotten::for_ever;
use crate::ids::{NodeId, RequestId, WorkerId};
use crate::limits;
use crate::message::{Beat, Hello, Message};
use crate::node::Node;
use crate::requests::{Origin, Wait};
use crate::seen::Seen;
use crate::shelf::Shelved;
use crate::time::{Millis, Unix};
use crate::view::{PeerMeasure, PeerStatus, PeerView, Reply};
use crate::watch::{is_host_and_port, is_local};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Another node of the mesh.
pub(crate) struct Member {
    book: PeerBook,
    heard_at: Option<Millis>,
    /// First heard, or again after a silence; `None`: silent when last looked at.
    pub(crate) live_since: Option<Millis>,
    boot: Option<u64>,
    version: u32,
    asked_at: Option<Millis>,
    /// It was seen to restart while this node watched.
    pub(crate) restarted_at: Option<Millis>,
    pub(crate) draining: bool,
    pub(crate) workers: BTreeMap<WorkerId, Seen>,
    pub(crate) queued: u64,
    connected_since: Option<Unix>,
    /// It has said hello over that connection: it knows of it too.
    greeted: bool,
    dialling: bool,
    protocol: Option<Arc<str>>,
    agent: Option<Arc<str>>,
    /// Where its metrics are, by its own account.
    pub(crate) metrics_at: Option<Arc<str>>,
    /// Workflow templates that it has, by its own account.
    pub(crate) templates: Vec<Shelved>,
    /// What it can do, by its own account; `None`: it has not said.
    pub(crate) features: Option<BTreeSet<Arc<str>>>,
    /// Nodes that are gone for ever, as far as it has said that it knows.
    forgotten: BTreeSet<NodeId>,
    /// The other end of the newest connection, as a multiaddress.
    connection: Option<Arc<str>>,
    measured: PeerMeasure,
    minute: (Unix, u64),
    history: VecDeque<(Unix, Option<u64>, bool)>,
}

/// Samples of one peer that are kept: a day of minutes.
const HISTORY: usize = 24 * 60;
/// A member that was not seen for this long is no member any more.
const FORGOTTEN: Millis = Millis(7 * 24 * 3_600_000);

impl Member {
    pub(crate) fn remembered(book: PeerBook) -> Member {
        Member {
            book,
            heard_at: None,
            live_since: None,
            boot: None,
            version: 0,
            asked_at: None,
            restarted_at: None,
            draining: false,
            workers: BTreeMap::new(),
            queued: 0,
            connected_since: None,
            greeted: false,
            dialling: false,
            protocol: None,
            agent: None,
            metrics_at: None,
            templates: Vec::new(),
            features: None,
            forgotten: BTreeSet::new(),
            connection: None,
            measured: PeerMeasure::default(),
            minute: (Unix(0), 0),
            history: VecDeque::new(),
        }
    }

    /// It is connected, or was last, without a network between.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        self.connection.as_deref().is_some_and(is_local)
    }

    /// It knows that all of these are gone for ever.
    pub(crate) fn forgets_all(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().all(|node| self.forgotten.contains(node))
    }

    /// It said that it would go, and went.
    fn has_left(&self) -> bool {
        self.draining && self.connected_since.is_none()
    }

    pub(crate) fn seen_at(&self, now: Millis, wall: Unix) -> Option<Unix> {
        match self.heard_at {
            Some(at) => Some(Unix(wall.0.saturating_sub(now.since(at).0))),
            None => (self.book.seen != Unix(0)).then_some(self.book.seen),
        }
    }

    fn capabilities(&self) -> Vec<Arc<str>> {
        let all: BTreeSet<_> = self.workers.values().flat_map(|w| w.spec.capabilities.iter().cloned()).collect();
        all.into_iter().collect()
    }

    fn status(&self) -> PeerStatus {
        match (self.connected_since, self.dialling) {
            (Some(_), _) => PeerStatus::Connected,
            (None, true) => PeerStatus::Connecting,
            (None, false) => PeerStatus::Disconnected,
        }
    }

    fn view(&self, peer: NodeId, now: Millis, wall: Unix) -> PeerView {
        PeerView {
            peer,
            addresses: self.book.addresses.clone(),
            status: self.status(),
            capabilities: self.capabilities(),
            connected_since: self.connected_since,
            last_seen: self.seen_at(now, wall),
            protocol: self.protocol.clone(),
            agent: self.agent.clone(),
            measured: self.measured,
            history: None,
        }
    }

    fn sample(&mut self, at: Unix) {
        let minute = Unix(at.0 / 60_000 * 60_000);
        if self.history.back().is_some_and(|(last, ..)| *last == minute) {
            self.history.pop_back();
        }
        self.history.push_back((minute, self.measured.round_trip_us, self.connected_since.is_some()));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}

impl Node {
    /// This node, or one that was heard within the lease.
    #[must_use]
    pub fn live(&self, node: NodeId) -> bool {
        node == self.id || self.members.get(&node).is_some_and(|m| self.heard_lately(m))
    }

    fn heard_lately(&self, member: &Member) -> bool {
        !member.has_left() && member.heard_at.is_some_and(|at| self.now < at + self.config.lease)
    }

    /// It said that it would go, and went: no need to wait for its lease.
    pub(crate) fn has_left(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(Member::has_left)
    }

    /// Silent for so long that another should keep what it keeps.
    pub(crate) fn is_away(&self, node: NodeId) -> bool {
        if self.live(node) {
            return false;
        }
        let heard = self.members.get(&node).and_then(|m| m.heard_at).unwrap_or_default();
        self.is_forgotten(node) || self.now > heard + self.config.away
    }

    pub(crate) fn silent_for(&self, node: NodeId) -> Millis {
        self.now.since(self.members.get(&node).and_then(|m| m.heard_at).unwrap_or_default())
    }

    pub(crate) fn is_draining(&self, node: NodeId) -> bool {
        if node == self.id { self.draining } else { self.members.get(&node).is_some_and(|m| m.draining) }
    }

    /// How often it was started, if it has told this node.
    pub(crate) fn boot_of(&self, node: NodeId) -> Option<u64> {
        if node == self.id { Some(self.boot) } else { self.members.get(&node).and_then(|m| m.boot) }
    }

    /// Copies that a task gets in a mesh of this size.
    #[must_use]
    pub fn holders_wanted(&self) -> usize {
        match self.members.len() + 1 {
            n if n >= self.config.holders => self.config.holders,
            n if n >= 3 => 3.min(self.config.holders),
            _ => 1,
        }
    }

    /// Anything from a peer is a sign of life.
    pub(crate) fn hear(&mut self, from: NodeId) {
        let now = self.now;
        let wall = self.wall();
        let known = self.members.len();
        if !self.members.contains_key(&from) {
            if known >= limits::MEMBERS || self.is_forgotten(from) {
                return;
            }
            let book = PeerBook { seen: wall, ..PeerBook::default() };
            self.persist(Entry::Peer(from, book.clone()));
            self.members.insert(from, Member::remembered(book));
        }
        let member = self.members.get_mut(&from).expect("inserted above");
        member.heard_at = Some(now);
        if member.live_since.is_some() {
            return;
        }
        member.live_since = Some(now);
        member.book.seen = wall;
        let book = member.book.clone();
        self.persist(Entry::Peer(from, book));
        self.notice(Notice::PeerUp(from));
        self.introduce(from);
        self.confess(from);
        self.queue.workers_changed();
    }

    pub(crate) fn watch_members(&mut self) {
        let silent = |m: &Member| m.live_since.is_some() && !self.heard_lately(m);
        let silent: Vec<_> = self.members.iter().filter(|(_, m)| silent(m)).map(|(n, _)| *n).collect();
        for node in silent {
            self.on_silence(node);
        }
        let wall = self.wall();
        let forgotten = |m: &Member| m.heard_at.is_none() && !m.book.pinned && wall.since(m.book.seen) > FORGOTTEN;
        let gone: Vec<_> = self.members.iter().filter(|(_, m)| wall.0 > 0 && forgotten(m)).map(|(n, _)| *n).collect();
        for node in gone {
            self.members.remove(&node);
            self.erase(crate::effect::Key::Peer(node));
        }
    }

    pub(crate) fn on_silence(&mut self, node: NodeId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.live_since = None;
        member.workers.values_mut().for_each(Seen::forget_grants);
        self.notice(Notice::PeerLost(node));
        self.queue.workers_changed();
        self.orphan_records_of(node);
        self.on_asked_node_lost(node);
    }

    /// Tells a peer all about this node.
    pub(crate) fn introduce(&mut self, to: NodeId) {
        let hello = Hello {
            boot: self.boot,
            version: self.hello_version,
            draining: self.draining,
            workers: self.workers.values().map(|w| w.spec.clone()).collect(),
            free: self.free_now(),
            members: std::iter::once(self.id).chain(self.members.keys().copied()).take(limits::MEMBERS).collect(),
            controls: self.controls.clone(),
            tokens: Some(self.register.digest()),
            metrics: self.metrics_at.clone(),
            templates: self.shelf.clone(),
            features: self.features(),
            forgotten: self.words.all(),
        };
        self.send(to, Message::Hello(Box::new(hello)));
    }

    pub(crate) fn beat(&mut self) {
        let beat = Beat {
            boot: self.boot,
            version: self.hello_version,
            free: self.free_now(),
            queued: self.counts.get(&crate::view::Status::Queued).copied().unwrap_or(0),
            controls: self.controls.version,
            tokens: Some(self.register.digest()),
        };
        self.out.push(Effect::Publish(Message::Beat(beat)));
    }

    pub(crate) fn on_hello(&mut self, from: NodeId, hello: Hello) {
        self.learn_words(&hello.forgotten);
        if self.outcast().is_some() {
            return;
        }
        self.on_boot(from, hello.boot);
        let Some(member) = self.members.get_mut(&from) else { return };
        member.forgotten = hello.forgotten.iter().map(|word| word.node).collect();
        member.version = hello.version;
        member.draining = hello.draining;
        member.metrics_at = hello.metrics.filter(|at| is_host_and_port(at));
        member.greeted = member.connected_since.is_some();
        member.templates = hello.templates;
        member.features = Some(hello.features);
        let mut before = std::mem::take(&mut member.workers);
        for spec in hello.workers {
            let mut seen = before.remove(&spec.worker).unwrap_or_else(|| Seen::new(spec.clone()));
            seen.spec = spec;
            member.workers.insert(seen.spec.worker.clone(), seen);
        }
        for node in hello.members {
            let news = node != self.id && !self.members.contains_key(&node) && !self.is_forgotten(node);
            if news && self.members.len() < limits::MEMBERS {
                let book = PeerBook { seen: self.wall(), ..PeerBook::default() };
                self.persist(Entry::Peer(node, book.clone()));
                self.members.insert(node, Member::remembered(book));
            }
        }
        self.on_room(from, &hello.free);
        self.on_controls_seen(from, hello.controls);
        self.on_digest(from, hello.tokens);
        self.queue.workers_changed();
        self.on_greeted(from);
    }

    /// Answers those who wait until a new connection is known at its other end.
    fn on_greeted(&mut self, peer: NodeId) {
        let mut known = Vec::new();
        for (id, (wait, ..)) in &mut self.requests.net {
            if let Wait::Greetings { left, .. } = wait
                && left.remove(&peer)
                && left.is_empty()
            {
                known.push(*id);
            }
        }
        for id in known {
            if let Some((Wait::Greetings { reply, .. }, _)) = self.net_answered(id) {
                self.reply(id, Ok(*reply));
            }
        }
    }

    /// Answers a request that made connections, as soon as their other ends
    /// know of them: until then they are not there through any other node.
    fn reply_when_greeted(&mut self, id: RequestId, by: Millis, peers: &[NodeId], reply: Reply) {
        let known = |peer: &&NodeId| self.members.get(peer).is_none_or(|m| m.greeted || m.connected_since.is_none());
        let left: BTreeSet<_> = peers.iter().filter(|peer| !known(peer)).copied().collect();
        if left.is_empty() {
            return self.reply(id, Ok(reply));
        }
        self.requests.net.insert(id, (Wait::Greetings { left, reply: Box::new(reply) }, self.now, by));
    }

    pub(crate) fn on_beat(&mut self, from: NodeId, beat: Beat) {
        self.on_boot(from, beat.boot);
        let now = self.now;
        let ours = self.controls.version;
        let Some(member) = self.members.get_mut(&from) else { return };
        member.queued = beat.queued;
        let unknown = member.version != beat.version || beat.controls > ours;
        let patience = member.asked_at.is_none_or(|at| now > at + Millis(200));
        if unknown && patience {
            member.asked_at = Some(now);
            self.send(from, Message::WhoAreYou);
        }
        if beat.controls < ours {
            let controls = self.controls.clone();
            self.send(from, Message::Controls(controls));
        }
        self.on_digest(from, beat.tokens);
        self.on_room(from, &beat.free);
    }

    /// A new boot: whatever ran there before is gone.
    fn on_boot(&mut self, from: NodeId, boot: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&from) else { return };
        let before = member.boot.replace(boot);
        if before.is_none_or(|b| b == boot) {
            return;
        }
        member.restarted_at = Some(now);
        member.version = 0;
        member.workers.values_mut().for_each(Seen::forget_grants);
        self.watch_leases();
    }

    pub(crate) fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Up { peer, address } => self.on_up(peer, address),
            PeerEvent::Down { peer } => self.on_down(peer),
            PeerEvent::Dialling { peer, began } => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.dialling = began;
                }
            }
            PeerEvent::Identified { peer, addresses, protocol, agent } => {
                // It may come before the rest of the network has taken the peer up.
                if peer != self.id {
                    self.hear(peer);
                }
                if let Some(member) = self.members.get_mut(&peer) {
                    member.protocol = Some(protocol);
                    member.agent = Some(agent);
                    self.learn_addresses(peer, addresses);
                }
            }
            PeerEvent::Ping { peer, round_trip_us } => self.on_ping(peer, round_trip_us),
            PeerEvent::Traffic { peer, bytes, answered, failed, served } => {
                self.on_traffic(peer, bytes, answered, failed, served);
            }
            PeerEvent::CastOut { by } => self.on_cast_out(by),
            PeerEvent::Done { id, result } => self.on_net_done(id, result),
        }
    }

    fn on_up(&mut self, peer: NodeId, address: Arc<str>) {
        if peer == self.id {
            return;
        }
        let wall = self.wall();
        self.hear(peer);
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.connected_since = Some(wall);
        member.dialling = false;
        member.connection = Some(address.clone());
        member.sample(wall);
        self.learn_addresses(peer, vec![address]);
        self.introduce(peer);
    }

    fn on_down(&mut self, peer: NodeId) {
        let wall = self.wall();
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.connected_since = None;
        member.greeted = false;
        member.sample(wall);
        if member.draining && member.live_since.is_some() {
            // It said that it would go: no need to wait for the lease.
            self.on_silence(peer);
            self.adopt();
        }
    }

    fn learn_addresses(&mut self, peer: NodeId, addresses: Vec<Arc<str>>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let before = member.book.addresses.clone();
        // The first of them comes first.
        for address in addresses.into_iter().rev().filter(|a| !a.is_empty()) {
            member.book.addresses.retain(|known| *known != address);
            member.book.addresses.insert(0, address);
        }
        member.book.addresses.truncate(limits::ADDRESSES);
        let mut sorted = (before.clone(), member.book.addresses.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        if sorted.0 != sorted.1 {
            let book = member.book.clone();
            self.persist(Entry::Peer(peer, book));
        }
    }

    fn on_ping(&mut self, peer: NodeId, round_trip_us: Option<u64>) {
        let wall = self.wall();
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.measured.pings += 1;
        match round_trip_us {
            Some(sample) => {
                let smoothed = member.measured.round_trip_us.map_or(sample, |mean| (mean * 7 + sample) / 8);
                member.measured.round_trip_us = Some(smoothed);
            }
            None => member.measured.pings_failed += 1,
        }
        member.sample(wall);
    }

    fn on_traffic(&mut self, peer: NodeId, bytes: u64, answered: u64, failed: u64, served: u64) {
        let minute = Unix(self.wall().0 / 60_000 * 60_000);
        let Some(member) = self.members.get_mut(&peer) else { return };
        let measured = &mut member.measured;
        measured.bytes = Some(measured.bytes.unwrap_or(0) + bytes);
        measured.requests_answered += answered;
        measured.requests_failed += failed;
        measured.requests_served += served;
        if member.minute.0 != minute {
            measured.bytes_last_minute = (member.minute.0 != Unix(0)).then_some(member.minute.1);
            member.minute = (minute, 0);
        }
        member.minute.1 += bytes;
    }

    pub(crate) fn peer_view(&self, peer: NodeId) -> Option<PeerView> {
        Some(self.members.get(&peer)?.view(peer, self.now, self.wall()))
    }

    pub(crate) fn peer_page(&self, filter: &PeerFilter) -> (Vec<PeerView>, u64) {
        let offers_all = |m: &Member| {
            let has = m.capabilities();
            filter.capabilities.iter().all(|c| crate::queue::offers(&has, c))
        };
        let mut found: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| filter.status.is_none_or(|s| s == m.status()) && offers_all(m))
            .map(|(n, m)| m.view(*n, self.now, self.wall()))
            .collect();
        match filter.sort {
            PeerSort::LastSeen => found.sort_by_key(|p| (Reverse(p.last_seen), p.peer)),
            PeerSort::Latency => found.sort_by_key(|p| (p.measured.round_trip_us.unwrap_or(u64::MAX), p.peer)),
            PeerSort::Bandwidth => found.sort_by_key(|p| (Reverse(p.measured.bytes_last_minute), p.peer)),
            PeerSort::PeerId => found.sort_by_key(|p| p.peer.to_string()),
        }
        let total = found.len() as u64;
        let page = found.into_iter().skip(filter.offset as usize).take(filter.limit as usize).collect();
        (page, total)
    }

    pub(crate) fn on_query_peer(&mut self, origin: Origin, peer: NodeId, history_hours: u32) {
        let since = Unix(self.wall().0.saturating_sub(u64::from(history_hours) * 3_600_000));
        let reply = match (self.peer_view(peer), self.members.get(&peer)) {
            (Some(mut view), Some(member)) => {
                view.history = (history_hours > 0)
                    .then(|| member.history.iter().filter(|(at, ..)| *at >= since).copied().collect());
                Ok(Reply::Peer(Box::new(view)))
            }
            _ => Err(Refusal::NotFound { what: "peer".into(), name: peer.to_string().into() }),
        };
        self.answer(origin, reply);
    }

    pub(crate) fn on_net_command(&mut self, origin: Origin, command: Command) {
        let Origin::Face { id, .. } = origin else { return };
        let mut handed_back = 0;
        let (net, patience) = match &command {
            Command::Connect { peer, .. } if self.is_forgotten(*peer) => {
                return self.answer(origin, Err(for_ever(*peer)));
            }
            Command::Connect { peer, address, timeout, retries, persist } => {
                if let Some(member) = self.members.get_mut(peer) {
                    member.book.banished = false;
                }
                let dial = NetCommand::Dial {
                    id,
                    peer: *peer,
                    address: address.clone(),
                    timeout: *timeout,
                    retries: *retries,
                    persist: *persist,
                };
                (dial, Millis(timeout.0.saturating_mul(u64::from(*retries) + 1)))
            }
            Command::Disconnect { peer, graceful, .. } => {
                if !self.members.contains_key(peer) {
                    let name = peer.to_string().into();
                    self.answer(origin, Err(Refusal::NotFound { what: "peer".into(), name }));
                    return;
                }
                handed_back = self.leave(*peer, *graceful);
                (NetCommand::Close { id, peer: *peer }, self.config.request_timeout)
            }
            Command::Bootstrap { addresses, timeout, min_connections, max_connections } => {
                let bootstrap = NetCommand::Bootstrap {
                    id,
                    addresses: addresses.clone(),
                    timeout: *timeout,
                    min_connections: *min_connections,
                    max_connections: *max_connections,
                };
                (bootstrap, *timeout)
            }
            Command::Submit(_)
            | Command::LookUp { .. }
            | Command::KeepValue { .. }
            | Command::Invalidate { .. }
            | Command::Cancel { .. }
            | Command::Reprioritise { .. }
            | Command::Retry { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Clear { .. }
            | Command::Register(_)
            | Command::Unregister { .. }
            | Command::Issue(_)
            | Command::Approve { .. }
            | Command::CancelWorkflow { .. }
            | Command::ForgetNode { .. }
            | Command::Revoke(_) => unreachable!("dispatched elsewhere"),
        };
        self.wait_for_net(id, Wait::Net { command, handed_back }, patience);
        self.out.push(Effect::Net(net));
    }

    /// Hands back what runs here for `peer`, and takes back what runs there.
    fn leave(&mut self, peer: NodeId, graceful: bool) -> u64 {
        if let Some(member) = self.members.get_mut(&peer) {
            member.book.banished = true;
            member.book.pinned = false;
            let book = member.book.clone();
            self.persist(Entry::Peer(peer, book));
        }
        if !graceful {
            return 0;
        }
        let ours: Vec<_> =
            self.executions.iter().filter(|(_, e)| e.fence.ballot.owner == peer).map(|(t, _)| t.clone()).collect();
        let mut handed = 0;
        for task in ours {
            handed += u64::from(self.hand_back(&task));
        }
        for task in self.leases_in(peer) {
            self.take_back(&task);
            handed += 1;
        }
        handed
    }

    pub(crate) fn on_discover(&mut self, origin: Origin, capabilities: Vec<Arc<str>>, max: u32, timeout: Millis) {
        let Origin::Face { id, .. } = origin else { return };
        self.wait_for_net(id, Wait::Discover { capabilities, max }, timeout);
        self.out.push(Effect::Net(NetCommand::Find { id, max, timeout }));
    }

    fn on_net_done(&mut self, id: RequestId, result: NetResult) {
        let by = self.now + self.config.request_timeout;
        let Some((wait, took)) = self.net_answered(id) else { return };
        let reply = match (wait, result) {
            (_, NetResult::Failed(refusal)) => Err(refusal),
            (
                Wait::Net { command: Command::Connect { peer, persist, .. }, .. },
                NetResult::Dialled { address, connection, attempts },
            ) => match self.connected(peer, persist, address, connection, took, attempts) {
                Ok(reply) => return self.reply_when_greeted(id, by, &[peer], reply),
                Err(refusal) => Err(refusal),
            },
            (
                Wait::Net { command: Command::Disconnect { peer, .. }, handed_back },
                NetResult::Closed { was_connected },
            ) => Ok(Reply::Disconnected { peer, was_connected, handed_back, took }),
            (
                Wait::Net { command: Command::Bootstrap { .. }, .. },
                NetResult::Bootstrapped { connected, used, failures },
            ) => {
                let peers = connected.clone();
                let reply = Reply::Bootstrapped { connected, used, failures, took };
                return self.reply_when_greeted(id, by, &peers, reply);
            }
            (Wait::Discover { capabilities, max }, NetResult::Found(found)) => {
                Ok(self.discovered(found, &capabilities, max, took))
            }
            _ => Err(Refusal::Unavailable {
                problem: "the network answered another question".into(),
                retry_after: Millis(1_000),
            }),
        };
        self.reply(id, reply);
    }

    fn connected(
        &mut self,
        peer: NodeId,
        persist: bool,
        address: Arc<str>,
        connection: Arc<str>,
        took: Millis,
        attempts: u32,
    ) -> Result<Reply, Refusal> {
        self.hear(peer);
        self.learn_addresses(peer, vec![address.clone()]);
        if let Some(member) = self.members.get_mut(&peer) {
            member.book.pinned |= persist;
            member.book.banished = false;
            let book = member.book.clone();
            self.persist(Entry::Peer(peer, book));
        }
        // It may have been forgotten meanwhile.
        let view = self.peer_view(peer).ok_or_else(|| for_ever(peer))?;
        Ok(Reply::Connected { peer: Box::new(view), address, connection, took, attempts })
    }

    fn discovered(
        &mut self,
        found: Vec<(NodeId, Vec<Arc<str>>)>,
        capabilities: &[Arc<str>],
        max: u32,
        took: Millis,
    ) -> Reply {
        for (peer, addresses) in found {
            if self.members.contains_key(&peer) {
                self.learn_addresses(peer, addresses);
            }
        }
        let filter = PeerFilter { capabilities: capabilities.to_vec(), limit: max, ..PeerFilter::default() };
        let (peers, _) = self.peer_page(&filter);
        Reply::Discovered { peers, took }
    }

    /// Peers that the shell should know from the start: where they were last
    /// reached, and those left by hand.
    #[must_use]
    pub fn peer_books(&self) -> Vec<(NodeId, PeerBook)> {
        self.members.iter().map(|(n, m)| (*n, m.book.clone())).collect()
    }
}
