//! The redial book: who is known, where, and when to try again. Pure: the actor
//! feeds it and obeys it.
//!
//! Members are dialled again for ever, with jittered exponential back-off, until
//! they are left by hand. Kademlia and identify only teach it addresses: it alone
//! decides whom to keep a connection to.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use taskmesh_core::limits::{ADDRESSES, MEMBERS};
use taskmesh_core::prng::Prng;

/// How an address became known. A greater one is trusted more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// Another peer or multicast DNS said so.
    Hearsay,
    /// The peer itself said so, over a proven connection, or the disk did.
    Member,
    /// A person or the configuration gave it.
    Person,
}

/// Someone to dial now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// A peer at its addresses, best first.
    Peer(PeerId, Vec<Multiaddr>),
    /// Whoever answers at a seed address.
    Seed(Multiaddr),
}

/// See the module.
pub(super) struct Book {
    me: PeerId,
    known: HashMap<PeerId, Known>,
    seeds: Vec<Seed>,
    prng: Prng,
    first: Duration,
    longest: Duration,
}

struct Known {
    addresses: Vec<Multiaddr>,
    source: Source,
    failures: u32,
    next: Instant,
    state: State,
    /// Dial it even when there are peers enough, until this time.
    wanted: Option<Instant>,
}

struct Seed {
    address: Multiaddr,
    /// Who answered there, once somebody did.
    peer: Option<PeerId>,
    failures: u32,
    next: Instant,
    dialling: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Dialling,
    Connected,
    Banished,
}

impl Book {
    pub(super) fn new(me: PeerId, seed: u64, first: Duration, longest: Duration) -> Book {
        Book { me, known: HashMap::new(), seeds: Vec::new(), prng: Prng::new(seed), first, longest }
    }

    /// A seed: with a peer id it is a member to be, else an address to try.
    pub(super) fn add_seed(&mut self, address: Multiaddr, now: Instant) {
        match split_peer(&address) {
            (at, Some(peer)) => self.learn(peer, &[at], Source::Person, now),
            (address, None) => {
                self.seeds.push(Seed { address, peer: None, failures: 0, next: now, dialling: false });
            }
        }
    }

    /// Adds addresses of a peer; the newest come first, the oldest go.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], source: Source, now: Instant) {
        if peer == self.me || (!self.known.contains_key(&peer) && !self.room(source)) {
            return;
        }
        let known = self.known.entry(peer).or_insert_with(|| Known {
            addresses: Vec::new(),
            source,
            failures: 0,
            next: now,
            state: State::Away,
            wanted: None,
        });
        known.source = known.source.max(source);
        for address in addresses.iter().rev().filter(|a| plausible(a)) {
            let (address, named) = split_peer(address);
            if named.is_some_and(|named| named != peer) {
                continue;
            }
            let at = known.addresses.iter().position(|a| *a == address);
            match (at, source) {
                (None, Source::Hearsay) if known.addresses.len() >= ADDRESSES => {}
                (None, _) => known.addresses.insert(0, address),
                // What others say moves nothing.
                (Some(_), Source::Hearsay) => {}
                (Some(at), _) => known.addresses[..=at].rotate_right(1),
            }
        }
        known.addresses.truncate(ADDRESSES);
    }

    /// Forgets addresses that a peer, by its own account, no longer has.
    pub(super) fn keep_only(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let Some(known) = self.known.get_mut(peer) else { return };
        if known.source < Source::Person {
            known.addresses.retain(|a| addresses.contains(a));
        }
    }

    /// Whom to dial now: at most `most`. `room`: how many more peers are wanted;
    /// `lonely`: nobody is connected.
    pub(super) fn due(&mut self, now: Instant, most: usize, room: usize, lonely: Lonely) -> Vec<Dial> {
        let mut due = Vec::new();
        for seed in self.seeds.iter_mut().filter(|s| !s.dialling && s.next <= now) {
            let absent = match seed.peer {
                Some(peer) => self.known.get(&peer).is_none_or(|k| k.state == State::Away),
                None => true,
            };
            if due.len() < most && absent && (lonely == Lonely::Yes || seed.peer.is_none()) {
                seed.dialling = true;
                due.push(Dial::Seed(seed.address.clone()));
            }
        }
        let mut candidates: Vec<_> = self
            .known
            .iter()
            .filter(|(_, k)| k.state == State::Away && k.next <= now && !k.addresses.is_empty())
            .map(|(peer, k)| {
                let wanted = k.source == Source::Person || k.wanted.is_some_and(|until| until > now);
                (!wanted, k.failures, k.next, *peer)
            })
            .collect();
        candidates.sort_unstable();
        let mut room = room;
        for (unwanted, _, _, peer) in candidates {
            if due.len() >= most || (unwanted && room == 0) {
                break;
            }
            room = room.saturating_sub(1);
            if let Some(known) = self.known.get_mut(&peer) {
                known.state = State::Dialling;
                due.push(Dial::Peer(peer, known.addresses.clone()));
            }
        }
        due
    }

    /// A peer is connected, at `address` if this node dialled it.
    pub(super) fn on_connected(&mut self, peer: PeerId, address: Option<&Multiaddr>, now: Instant) {
        let at: Vec<_> = address.map(|a| split_peer(a).0).into_iter().collect();
        self.learn(peer, &at, Source::Member, now);
        for seed in self.seeds.iter_mut().filter(|s| at.contains(&s.address)) {
            *seed = Seed { peer: Some(peer), failures: 0, next: now, dialling: false, address: seed.address.clone() };
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.state = State::Connected;
        }
    }

    /// The peer has shown that it works: the next loss is a first one.
    pub(super) fn on_usable(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.failures = 0;
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn on_lost(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.known.get_mut(peer) else { return };
        if known.state == State::Banished {
            return;
        }
        known.state = State::Away;
        let wait = back_off(&mut self.prng, self.first, self.longest, known.failures);
        known.failures = known.failures.saturating_add(1);
        known.next = now + wait;
    }

    /// A dial failed.
    pub(super) fn on_failed(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.known.get_mut(peer) else { return };
        if known.state != State::Dialling {
            return;
        }
        known.state = State::Away;
        let wait = back_off(&mut self.prng, self.first, self.longest, known.failures);
        known.failures = known.failures.saturating_add(1);
        known.next = now + wait;
        // What nobody can vouch for is forgotten; it is heard of again if it lives.
        if known.source == Source::Hearsay && known.failures >= HEARSAY_TRIES {
            self.known.remove(peer);
        }
    }

    /// A dial of a seed address ended.
    pub(super) fn on_seed_failed(&mut self, address: &Multiaddr, now: Instant) {
        for seed in self.seeds.iter_mut().filter(|s| s.address == *address) {
            seed.dialling = false;
            seed.next = now + back_off(&mut self.prng, self.first, self.longest, seed.failures);
            seed.failures = seed.failures.saturating_add(1);
        }
    }

    /// Dial it soon, even beyond the number of peers that is enough.
    pub(super) fn want(&mut self, peer: &PeerId, now: Instant) -> Want {
        match self.known.get_mut(peer) {
            Some(known) if !known.addresses.is_empty() => {
                known.wanted = Some(now + WANTED_FOR);
                Want::Known
            }
            _ => Want::Unknown,
        }
    }

    /// Neither dialled nor forgotten until pardoned.
    pub(super) fn banish(&mut self, peer: PeerId, now: Instant) {
        self.learn(peer, &[], Source::Member, now);
        if let Some(known) = self.known.get_mut(&peer) {
            known.state = State::Banished;
        }
    }

    /// Dialled again from now on.
    pub(super) fn pardon(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.known.get_mut(peer).filter(|k| k.state == State::Banished) {
            known.state = State::Away;
            known.failures = 0;
            known.next = now;
        }
    }

    /// Takes back the worst of the waiting: somebody has just been reached, so the
    /// network is there again.
    pub(super) fn hurry(&mut self, now: Instant) {
        for known in self.known.values_mut().filter(|k| k.state == State::Away) {
            known.next = known.next.min(now + self.first * 4);
        }
    }

    /// Everybody with an address, best known first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (PeerId, &[Multiaddr])> {
        let mut entries: Vec<_> = self.known.iter().filter(|(_, k)| !k.addresses.is_empty()).collect();
        entries.sort_unstable_by_key(|(peer, k)| (k.state != State::Connected, k.failures, **peer));
        entries.into_iter().map(|(peer, k)| (*peer, &k.addresses[..]))
    }

    /// Where a peer may be, best first.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.known.get(peer).map_or(&[], |known| &known.addresses)
    }

    /// Room for one more; the hopeless are forgotten to make it.
    fn room(&mut self, source: Source) -> bool {
        if self.known.len() < MEMBERS {
            return true;
        }
        let worst = self
            .known
            .iter()
            .filter(|(_, k)| k.state == State::Away && k.failures > 0 && k.source <= source)
            .max_by_key(|(peer, k)| (k.source == Source::Hearsay, k.failures, **peer))
            .map(|(peer, _)| *peer);
        worst.is_some_and(|worst| self.known.remove(&worst).is_some())
    }
}

/// Whether nobody is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lonely {
    Yes,
    No,
}

/// Whether an address is known for somebody who is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Known,
    Unknown,
}

/// The address without, and the peer of, a trailing `/p2p/<id>`.
pub(super) fn split_peer(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut at = address.clone();
    match at.pop() {
        Some(Protocol::P2p(peer)) => (at, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// Something that can be dialled: with a port that is not 0, and short.
pub(super) fn plausible(address: &Multiaddr) -> bool {
    let dialled = address.iter().any(|p| matches!(p, Protocol::Tcp(n) | Protocol::Udp(n) if n != 0));
    let unspecified = address.iter().any(|p| match p {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified(),
        _ => false,
    });
    dialled && !unspecified && address.len() <= ADDRESS_BYTES
}

/// Whether it leads over a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|p| p == Protocol::P2pCircuit)
}

/// Whether it leads to the machine that it is said on.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|p| match p {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// `first`, doubled with each failure up to `longest`; then half of it to all
/// of it, so that nodes that lost each other at once don't return at once.
pub(super) fn back_off(prng: &mut Prng, first: Duration, longest: Duration, failures: u32) -> Duration {
    let whole = first.saturating_mul(1 << failures.min(16)).min(longest);
    let half = whole / 2;
    half + Duration::from_micros(prng.below(half.as_micros() as u64 + 1))
}

/// Tries for a peer that never proved itself.
const HEARSAY_TRIES: u32 = 6;
/// Someone to whom a message was sent stays wanted this long.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// Longer than any real one.
const ADDRESS_BYTES: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    fn book() -> (Book, Instant) {
        (Book::new(PeerId::random(), 7, FIRST, LONGEST), Instant::now())
    }

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_lost_peer_is_dialled_for_ever_with_growing_waits() {
        let (mut book, start) = book();
        let peer = PeerId::random();
        book.learn(peer, &[at(1)], Source::Member, start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert_eq!(book.due(now, 8, 8, Lonely::No), [Dial::Peer(peer, vec![at(1)])]);
            assert_eq!(book.due(now, 8, 8, Lonely::No), [], "not twice at once");
            book.on_failed(&peer, now);
            let before = now;
            while book.known[&peer].next > now {
                now += Duration::from_millis(10);
            }
            waits.push(now - before);
        }
        assert!(waits[0] <= FIRST + Duration::from_millis(10), "{waits:?}");
        assert!(waits.iter().all(|w| *w <= LONGEST + Duration::from_millis(10)));
        assert!(waits[39] >= LONGEST / 2);
    }

    #[test]
    fn hearsay_is_given_up_and_a_seed_is_not() {
        let (mut book, start) = book();
        let (heard, given) = (PeerId::random(), PeerId::random());
        book.learn(heard, &[at(1)], Source::Hearsay, start);
        book.add_seed(at(2).with(Protocol::P2p(given)), start);
        book.add_seed(at(3), start);
        let mut now = start;
        for _ in 0..20 {
            now += LONGEST;
            book.due(now, 8, 8, Lonely::Yes);
            book.on_failed(&heard, now);
            book.on_failed(&given, now);
            book.on_seed_failed(&at(3), now);
        }
        now += LONGEST;
        let due = book.due(now, 8, 8, Lonely::Yes);
        assert_eq!(due, [Dial::Seed(at(3)), Dial::Peer(given, vec![at(2)])]);
    }

    #[test]
    fn the_banished_wait_for_a_pardon_and_others_for_room() {
        let (mut book, now) = book();
        let (left, far, near) = (PeerId::random(), PeerId::random(), PeerId::random());
        book.learn(left, &[at(1)], Source::Person, now);
        book.banish(left, now);
        book.learn(far, &[at(2)], Source::Member, now);
        book.learn(near, &[at(3)], Source::Member, now);
        assert_eq!(book.want(&near, now), Want::Known);
        assert_eq!(book.want(&PeerId::random(), now), Want::Unknown);
        assert_eq!(book.due(now, 8, 0, Lonely::No), [Dial::Peer(near, vec![at(3)])], "no room, but wanted");
        book.pardon(&left, now);
        assert_eq!(book.due(now, 8, 0, Lonely::No), [Dial::Peer(left, vec![at(1)])]);
    }

    #[test]
    fn addresses_are_bounded_and_the_best_comes_first() {
        let (mut book, now) = book();
        let peer = PeerId::random();
        let all: Vec<_> = (1..=40).map(at).collect();
        book.learn(peer, &all, Source::Member, now);
        assert_eq!(book.known[&peer].addresses.len(), ADDRESSES);
        book.on_connected(peer, Some(&at(5)), now);
        assert_eq!(book.known[&peer].addresses[0], at(5));
        book.learn(
            peer,
            &[at(0), "/ip4/0.0.0.0/tcp/9".parse().unwrap(), at(9).with(Protocol::P2p(book.me))],
            Source::Person,
            now,
        );
        assert_eq!(book.known[&peer].addresses[0], at(5), "neither port 0, nor 0.0.0.0, nor another's");
    }
}
