//! Several nodes: finding each other, losing each other, leaving by hand.

use super::*;
use std::sync::Arc;
use taskmesh_core::effect::NetResult;
use taskmesh_core::{Millis, Refusal, RequestId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_with_one_seed_all_meet() {
    let seed = TestNode::start(config(1, TCP)).await;
    let at = seed.address();
    let mut nodes = vec![seed];
    for n in 2..=5 {
        nodes.push(TestNode::start(NetConfig { seeds: vec![at.clone()], ..config(n, TCP) }).await);
    }
    for node in &nodes {
        for peer in nodes.iter().filter(|p| p.id() != node.id()) {
            node.sees_up(peer.id()).await;
        }
    }
    nodes[4].is_heard_gossiping_by(&nodes[3]).await;
}

/// A node whose threads stop while its sockets stay open, as on a host that
/// crashed: nobody is told.
struct Frozen {
    runtime: Option<tokio::runtime::Runtime>,
    _node: TestNode,
}

impl Frozen {
    async fn start(config: NetConfig, peer: NodeId) -> Frozen {
        let frozen = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let node = runtime.block_on(async {
                let node = TestNode::start(config).await;
                node.sees_up(peer).await;
                node
            });
            Frozen { runtime: Some(runtime), _node: node }
        });
        tokio::task::spawn_blocking(move || frozen.join().unwrap()).await.unwrap()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

async fn gossip_heals_after_a_restart(listen: &str) {
    let survivor = TestNode::start(config(1, listen)).await;
    let seeds = vec![survivor.address()];
    let crashed = Frozen::start(NetConfig { seeds: seeds.clone(), ..config(2, listen) }, survivor.id()).await;
    survivor.sees_up(id_of(2)).await;
    let restarted = TestNode::start(NetConfig { seeds, ..config(2, listen) }).await;
    restarted.is_heard_gossiping_by(&survivor).await;
    survivor.is_heard_gossiping_by(&restarted).await;
    survivor.sees_up(restarted.id()).await;
    restarted.net.send(survivor.id(), lost(7));
    survivor.hears(&lost(7)).await;
    drop(crashed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_heals_after_a_crash_and_restart_over_tcp() {
    gossip_heals_after_a_restart(TCP).await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_heals_after_a_crash_and_restart_over_quic() {
    gossip_heals_after_a_restart(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_is_dialled_without_being_asked() {
    let (first, second) = pair(TCP).await;
    let at = second.address();
    second.net.close().await;
    first.sees_down(id_of(2)).await;
    // The same place, as after a restart; it knows nobody.
    let (at, _) = at.rsplit_once("/p2p/").unwrap();
    let second = TestNode::start(config(2, at)).await;
    second.sees_up(first.id()).await;
    first.sees_up(second.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_from_the_disk_are_dialled() {
    let first = TestNode::start(config(1, TCP)).await;
    let known = vec![(first.id(), vec!["not an address".to_owned(), first.address()])];
    let second = TestNode::start(NetConfig { known, ..config(2, TCP) }).await;
    first.sees_up(second.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_connected_is_dialled_when_there_is_something_to_say() {
    let first = TestNode::start(config(1, TCP)).await;
    let known = vec![(first.id(), vec![first.address()])];
    // It has peers enough.
    let limits = Limits { peers: 0, ..Limits::default() };
    let second = TestNode::start(NetConfig { known, limits, ..config(2, TCP) }).await;
    assert!(!second.net.send(first.id(), lost(1)));
    second.sees_up(first.id()).await;
    assert!(second.net.send(first.id(), lost(2)));
    first.hears(&lost(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_can_dial_finds_everybody() {
    let (first, second) = pair(TCP).await;
    let hidden = NetConfig { listen: vec![], seeds: vec![first.address()], ..config(3, TCP) };
    let hidden = TestNode::start(hidden).await;
    hidden.sees_up(first.id()).await;
    hidden.sees_up(second.id()).await;
    assert!(second.net.send(hidden.id(), lost(1)));
    hidden.hears(&lost(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_says_what_it_has_left_to_say() {
    let (first, second) = pair(TCP).await;
    assert_eq!(first.net.send_batch((0..1_000).map(|n| (second.id(), lost(n))).collect()), 0);
    first.net.close().await;
    second.hears(&lost(999)).await;
    second.sees_down(id_of(1)).await;
}

impl TestNode {
    /// The end of a command.
    async fn result(&self, id: u64) -> NetResult {
        let end = |told: &[NetEvent]| {
            told.iter().find_map(|e| match e {
                NetEvent::Peer(PeerEvent::Done { id: done, result }) if done.0 == id => Some(result.clone()),
                _ => None,
            })
        };
        self.sees("the end of a command", |told| end(told).is_some()).await;
        let told = self.told.borrow();
        end(&told).unwrap()
    }

    async fn dials(&self, id: u64, peer: NodeId, address: &str, retries: u32) -> NetResult {
        self.net.command(NetCommand::Dial {
            id: RequestId(id),
            peer,
            address: address.into(),
            timeout: Millis(20_000),
            retries,
            persist: false,
        });
        self.result(id).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_says_how_it_went() {
    let first = TestNode::start(config(1, TCP)).await;
    let second = TestNode::start(config(2, TCP)).await;
    let (at, _) =
        first.net.addresses().remove(0).rsplit_once("/p2p/").map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
    let wrong = second.dials(1, id_of(3), &at, 3).await;
    let NetResult::Failed(Refusal::Invalid { field, problem }) = wrong else { panic!("{wrong:?}") };
    assert!(&*field == "peer_id" && problem.contains(&first.id().to_string()), "{problem}");
    let wrong = second.dials(2, id_of(3), &first.address(), 0).await;
    assert!(
        matches!(wrong, NetResult::Failed(Refusal::Invalid { ref field, .. }) if &**field == "multiaddr"),
        "{wrong:?}"
    );
    let wrong = second.dials(3, id_of(2), &at, 0).await;
    assert!(matches!(wrong, NetResult::Failed(Refusal::Invalid { .. })), "itself: {wrong:?}");
    let wrong = second.dials(4, id_of(3), "127.0.0.1:9", 0).await;
    assert!(matches!(wrong, NetResult::Failed(Refusal::Invalid { .. })), "{wrong:?}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = second.dials(5, id_of(3), &format!("/ip4/127.0.0.1/tcp/{free}"), 1).await;
    let NetResult::Failed(Refusal::Unavailable { problem, .. }) = nobody else { panic!("{nobody:?}") };
    assert!(problem.contains("in 2 attempts") && problem.contains("refused"), "{problem}");

    let good = second.dials(6, first.id(), &at, 0).await;
    let NetResult::Dialled { address, attempts: 1, .. } = good else { panic!("{good:?}") };
    assert!(address.starts_with(&at), "{address}");
    assert!(matches!(second.dials(7, first.id(), &at, 0).await, NetResult::Dialled { attempts: 0, .. }));
    second.sees_up(first.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_left_stays_away_until_it_is_asked_for() {
    let (first, second) = pair(TCP).await;
    // What was said before is still heard.
    assert!(first.net.send(second.id(), lost(1)));
    first.net.command(NetCommand::Close { id: RequestId(1), peer: second.id() });
    assert_eq!(first.result(1).await, NetResult::Closed { was_connected: true });
    second.hears(&lost(1)).await;
    first.sees_down(second.id()).await;
    second.sees_down(first.id()).await;
    first.net.command(NetCommand::Close { id: RequestId(2), peer: second.id() });
    assert_eq!(first.result(2).await, NetResult::Closed { was_connected: false });
    // The other goes on trying, and is told why it may not.
    second.holds("a refusal", |n| n.net.counters().refused_connections.contains_key("not_welcome_there")).await;
    assert!(!is_up(&first.told.borrow(), second.id()));
    let again = first.dials(3, second.id(), &second.address(), 3).await;
    assert!(matches!(again, NetResult::Dialled { .. }), "{again:?}");
    second.sees_up(first.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_tells_who_is_there_and_which_seeds_failed() {
    let first = TestNode::start(config(1, TCP)).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, TCP) }).await;
    first.sees_up(second.id()).await;
    let third = TestNode::start(config(3, TCP)).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead: Arc<str> = format!("/ip4/127.0.0.1/tcp/{free}").into();
    let given: Vec<Arc<str>> = vec![first.address().into(), dead.clone(), "nonsense".into()];
    third.net.command(NetCommand::Bootstrap {
        id: RequestId(1),
        addresses: given.clone(),
        timeout: Millis(30_000),
        min_connections: 2,
        max_connections: 10,
    });
    let NetResult::Bootstrapped { connected, used, failures } = third.result(1).await else { panic!() };
    assert_eq!(connected.len(), 2, "the second is found through the first");
    assert_eq!(used, given[..2]);
    let failed: Vec<_> = failures.iter().map(|(seed, _)| seed.clone()).collect();
    assert!(failed.len() == 2 && failed.contains(&dead) && failed.contains(&given[2]), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_members_and_their_addresses() {
    let (first, second) = pair(TCP).await;
    let third = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(3, TCP) }).await;
    third.sees_up(second.id()).await;
    third.net.command(NetCommand::Find { id: RequestId(1), max: 10, timeout: Millis(30_000) });
    let NetResult::Found(found) = third.result(1).await else { panic!() };
    let mut ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let mut expected = vec![first.id(), second.id()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert!(found.iter().all(|(_, addresses)| !addresses.is_empty()));
    third.net.command(NetCommand::Find { id: RequestId(2), max: 1, timeout: Millis(30_000) });
    let NetResult::Found(found) = third.result(2).await else { panic!() };
    assert_eq!(found.len(), 1);
}
