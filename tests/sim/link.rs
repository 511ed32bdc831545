//! The network: who can reach whom, and what happens to a message on its way.

use crate::agenda::{Event, Time};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmesh_core::prng::Prng;
use taskmesh_core::{Input, Message, NodeId, PeerEvent};

/// How messages fare, until the network is healed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Lost, of 1,000.
    pub(crate) loss: u64,
    /// Delivered twice, of 1,000.
    pub(crate) doubled: u64,
    /// Held up for up to [`Weather::late_by`], of 1,000.
    pub(crate) late: u64,
    /// The longest that a late one takes.
    pub(crate) late_by: Time,
    /// The usual delay is up to this.
    pub(crate) delay: Time,
}

impl Weather {
    /// A network without faults.
    pub(crate) const FAIR: Weather = Weather { loss: 0, doubled: 0, late: 0, late_by: 0, delay: 10 };
}

/// Which way a partition lets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nowhere.
    Open,
    /// Between the sides, both ways.
    BothWays,
    /// From side 0 to side 1 only.
    OneWay,
}

/// Connections and cuts between `n` nodes.
pub(crate) struct Network {
    nodes: usize,
    /// How messages fare now.
    pub(crate) weather: Weather,
    /// The partition.
    pub(crate) cut: Cut,
    /// On which side each node is.
    pub(crate) side: Vec<u8>,
    /// Single directions that let nothing through.
    pub(crate) severed: BTreeSet<(usize, usize)>,
    /// Number of the connection of each pair; even: there is none.
    connections: Vec<u32>,
    /// Messages by kind, to name what a storm is made of.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    /// What each node was last told of each peer.
    told_up: Vec<bool>,
}

impl Network {
    /// No connections yet.
    pub(crate) fn new(nodes: usize, weather: Weather) -> Network {
        Network {
            nodes,
            weather,
            cut: Cut::Open,
            side: vec![0; nodes],
            severed: BTreeSet::new(),
            connections: vec![0; nodes * nodes],
            kinds: BTreeMap::new(),
            told_up: vec![false; nodes * nodes],
        }
    }

    /// Whether nothing gets from `from` to `to`.
    pub(crate) fn blocked(&self, from: usize, to: usize) -> bool {
        let parted = match self.cut {
            Cut::Open => false,
            Cut::BothWays => self.side[from] != self.side[to],
            Cut::OneWay => self.side[from] < self.side[to],
        };
        parted || (!self.severed.is_empty() && self.severed.contains(&(from, to)))
    }

    /// Whether a connection between the two could be made.
    pub(crate) fn reachable(&self, a: usize, b: usize) -> bool {
        !self.blocked(a, b) && !self.blocked(b, a)
    }

    fn pair(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.nodes + a.max(b)
    }

    /// Number of the connection between the two, if there is one.
    pub(crate) fn connection(&self, a: usize, b: usize) -> Option<u32> {
        let number = self.connections[self.pair(a, b)];
        (number % 2 == 1).then_some(number)
    }

    fn turn_connection(&mut self, a: usize, b: usize) {
        let pair = self.pair(a, b);
        self.connections[pair] += 1;
    }

    fn delay(&self, prng: &mut Prng) -> Time {
        if prng.chance(self.weather.late) {
            return 1 + prng.below(self.weather.late_by);
        }
        1 + prng.below(self.weather.delay)
    }
}

impl World {
    /// A message on its way to one node: over their connection, if there is one.
    pub(crate) fn post(&mut self, from: usize, to: usize, message: Message) {
        self.tally.sent += 1;
        *self.net.kinds.entry(kind(&message)).or_default() += 1;
        let lost = self.net.connection(from, to).is_none()
            || self.net.blocked(from, to)
            || self.prng.chance(self.net.weather.loss);
        if lost {
            self.tally.lost_messages += 1;
            return;
        }
        if self.prng.chance(self.net.weather.doubled) {
            self.tally.doubled_messages += 1;
            let at = self.now + self.net.delay(&mut self.prng);
            self.agenda.at(at, Event::Deliver { from, to, message: message.clone() });
        }
        let at = self.now + self.net.delay(&mut self.prng);
        self.agenda.at(at, Event::Deliver { from, to, message });
    }

    /// A gossiped message on its way to everybody. A few delays are drawn and
    /// shared, which keeps the agenda short in large meshes.
    pub(crate) fn gossip(&mut self, from: usize, message: Message) {
        let mut waves: [Vec<usize>; WAVES] = Default::default();
        for to in 0..self.hosts.len() {
            if to == from || self.hosts[to].node.is_none() || self.net.blocked(from, to) {
                continue;
            }
            self.tally.gossiped += 1;
            if self.prng.chance(self.net.weather.loss) {
                self.tally.lost_messages += 1;
                continue;
            }
            waves[self.prng.below(WAVES as u64) as usize].push(to);
        }
        let message = Arc::new(message);
        for to in waves.into_iter().filter(|wave| !wave.is_empty()) {
            let at = self.now + self.net.delay(&mut self.prng);
            self.agenda.at(at, Event::Gossip { from, to, message: message.clone() });
        }
    }

    /// Plans connections from `node` to everybody whom it could reach.
    pub(crate) fn dial_everybody(&mut self, node: usize) {
        for peer in 0..self.hosts.len() {
            if peer != node && self.hosts[peer].node.is_some() {
                let at = self.now + 5 + self.prng.below(300);
                self.agenda.at(at, Event::Connect { a: node, b: peer });
            }
        }
    }

    /// A dial that succeeds, if the two are there and in reach.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let there = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
        if !there || !self.net.reachable(a, b) || self.net.connection(a, b).is_some() {
            return;
        }
        self.net.turn_connection(a, b);
        self.tell_up(a, b);
        self.tell_up(b, a);
    }

    /// A node that never noticed the end of the last connection either hears
    /// of both, or of nothing at all, as with overlapping connections.
    fn tell_up(&mut self, node: usize, peer: usize) {
        let told = node * self.hosts.len() + peer;
        if self.net.told_up[told] {
            if self.prng.chance(500) {
                return;
            }
            self.receive(node, Input::Peer(PeerEvent::Down { peer: NodeId::test(peer as u64) }));
        }
        self.net.told_up[told] = true;
        let address = format!("/sim/{peer}").into();
        self.receive(node, Input::Peer(PeerEvent::Up { peer: NodeId::test(peer as u64), address }));
    }

    /// The end of a connection, seen by whoever is there to see it.
    pub(crate) fn break_connection(&mut self, a: usize, b: usize, connection: u32) {
        if self.net.connection(a, b) != Some(connection) {
            return;
        }
        let both = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
        if both && self.net.reachable(a, b) {
            return;
        }
        self.net.turn_connection(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            self.tell_down(node, peer);
        }
    }

    fn tell_down(&mut self, node: usize, peer: usize) {
        let told = node * self.hosts.len() + peer;
        if std::mem::take(&mut self.net.told_up[told]) && self.hosts[node].node.is_some() {
            self.receive(node, Input::Peer(PeerEvent::Down { peer: NodeId::test(peer as u64) }));
        }
    }

    /// A node has died: most peers notice at once, some late, some never.
    pub(crate) fn hang_up(&mut self, node: usize) {
        for peer in 0..self.hosts.len() {
            self.net.told_up[node * self.hosts.len() + peer] = false;
            let Some(connection) = self.net.connection(node, peer) else { continue };
            let after = match self.prng.below(10) {
                0..7 => 1 + self.prng.below(200),
                7..9 => 3_000 + self.prng.below(30_000),
                _ => continue,
            };
            self.agenda.at(self.now + after, Event::Break { a: node, b: peer, connection });
        }
    }

    /// A node starts: whatever it was connected to, it no longer is.
    pub(crate) fn forget_connections(&mut self, node: usize) {
        for peer in 0..self.hosts.len() {
            if self.net.connection(node, peer).is_some() {
                self.net.turn_connection(node, peer);
            }
        }
    }

    /// Plans the end of every connection that a cut runs through, at the time
    /// when its ends would give up.
    pub(crate) fn strain_connections(&mut self) {
        for (a, b) in pairs(self.hosts.len()) {
            let Some(connection) = self.net.connection(a, b) else { continue };
            if !self.net.reachable(a, b) {
                let at = self.now + 100 + self.prng.below(20_000);
                self.agenda.at(at, Event::Break { a, b, connection });
            }
        }
    }

    /// Plans connections between all that lost theirs.
    pub(crate) fn redial(&mut self) {
        for (a, b) in pairs(self.hosts.len()) {
            let there = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
            if there && self.net.connection(a, b).is_none() {
                let at = self.now + 10 + self.prng.below(2_000);
                self.agenda.at(at, Event::Connect { a, b });
            }
        }
    }
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Beat(_) => "beat",
        Message::WhoAreYou => "who_are_you",
        Message::Announce { .. } => "announce",
        Message::AskPermits(_) => "ask_permits",
        Message::Permits(_) => "permits",
        Message::Room { .. } => "room",
        Message::Offer { .. } => "offer",
        Message::Ack { .. } => "ack",
        Message::Want { .. } => "want",
        Message::Refuse { .. } => "refuse",
        Message::Taken { .. } => "taken",
        Message::Lost { .. } => "lost",
        Message::Gone { .. } => "gone",
        Message::Forget { .. } => "forget",
        Message::Claim { .. } => "claim",
        Message::Pledge { .. } => "pledge",
        Message::Grant(_) => "grant",
        Message::Decline { .. } => "decline",
        Message::Progress { .. } => "progress",
        Message::Finished(_) => "finished",
        Message::Settled { .. } => "settled",
        Message::Stop { .. } => "stop",
        Message::Request { .. } => "request",
        Message::Response { .. } => "response",
        Message::Controls(_) => "controls",
        Message::Tokens { .. } => "tokens",
        Message::Left(_) => "left",
        Message::Landed { .. } => "landed",
        Message::Copy(_) => "copy",
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (a + 1..nodes).map(move |b| (a, b)))
}

/// Delays drawn for one gossiped message.
const WAVES: usize = 4;
