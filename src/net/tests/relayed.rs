//! Over a relay: two nodes that listen nowhere themselves, and one that stops
//! using it.

use super::*;

/// A relay on loopback.
async fn relay(deny: Vec<NodeId>) -> TestNode {
    TestNode::start(NetConfig { circuits: 8, deny, ..config(1, TCP) }).await
}

fn relayed(seed: u8, listen: &[&str], seeds: Vec<String>) -> NetConfig {
    let listen = listen.iter().map(|a| (*a).to_owned()).collect();
    NetConfig { relays: Switch::On, listen, seeds, ..config(seed, TCP) }
}

/// Where it is reached over a relay, once it is.
async fn circuit(node: &TestNode) -> String {
    let circuit = |node: &TestNode| node.net.addresses().into_iter().find(|a| a.contains("/p2p-circuit"));
    node.holds("a place at the relay", |node| circuit(node).is_some()).await;
    circuit(node).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_listen_nowhere_meet_over_a_relay() {
    let relay = relay(Vec::new()).await;
    let first = TestNode::start(relayed(2, &[], vec![relay.address()])).await;
    let second = TestNode::start(relayed(3, &[], vec![circuit(&first).await])).await;
    second.sees_up(first.id()).await;
    first.sees_up(second.id()).await;
    assert!(first.net.send(second.id(), lost(1)) && second.net.send(first.id(), lost(2)));
    second.hears(&lost(1)).await;
    first.hears(&lost(2)).await;
    first
        .holds("counted as relayed", |node| {
            let counts = node.net.counters();
            (counts.peers_direct, counts.peers_relayed) == (1, 1)
        })
        .await;
    assert!(relay.net.counters().circuits >= 1);
    // The relay goes, and comes back: so do the places, and the nodes to each other.
    let (address, id) = (relay.address(), relay.id());
    relay.net.close().await;
    first.sees_down(id).await;
    second.sees_down(first.id()).await;
    let listen = address.split("/p2p/").next().unwrap();
    let relay = TestNode::start(NetConfig { circuits: 8, ..config(1, listen) }).await;
    first.sees_up(relay.id()).await;
    second.sees_up(first.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_is_denied_over_a_relay_too() {
    let relay = relay(Vec::new()).await;
    let first = relayed(2, &[], vec![relay.address()]);
    let first = TestNode::start(NetConfig { deny: vec![id_of(3)], ..first }).await;
    let second = TestNode::start(relayed(3, &[], vec![circuit(&first).await])).await;
    second.sees_up(relay.id()).await;
    first.holds("refused", |node| node.net.counters().refused_connections.get("denied") >= Some(&1)).await;
    assert!(!is_up(&second.told.borrow(), first.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_serves_members_alone_and_no_more_than_it_may() {
    let relay = TestNode::start(NetConfig { circuits: 1, ..config(1, TCP) }).await;
    let first = TestNode::start(relayed(2, &[], vec![relay.address()])).await;
    let address = circuit(&first).await;
    let stranger = relayed(4, &[], vec![address.clone()]);
    let stranger = TestNode::start(NetConfig { mesh_key: [7; 32], ..stranger }).await;
    relay.holds("refused", |node| node.net.counters().refused_connections.get("other_mesh_key") >= Some(&1)).await;
    let second = TestNode::start(relayed(3, &[], vec![address.clone()])).await;
    second.sees_up(first.id()).await;
    let third = TestNode::start(relayed(5, &[], vec![address])).await;
    relay.holds("refused", |node| node.net.counters().circuits_refused >= 1).await;
    third.sees_up(relay.id()).await;
    assert!(!is_up(&third.told.borrow(), first.id()) && !is_up(&stranger.told.borrow(), relay.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_becomes_reachable_directly_misses_no_message() {
    let relay = relay(Vec::new()).await;
    let holes = |config: NetConfig| NetConfig { hole_punching: Switch::On, ..config };
    let first = TestNode::start(holes(relayed(2, &[TCP], vec![relay.address()]))).await;
    let second = TestNode::start(holes(relayed(3, &[], vec![circuit(&first).await]))).await;
    second.sees_up(first.id()).await;
    first.sees_up(second.id()).await;
    // Both talk, all the time.
    let mut said = 0;
    while [&first, &second].iter().any(|node| node.net.counters().paths_moved == 0) {
        assert!(second.net.send(first.id(), lost(said)) && first.net.send(second.id(), lost(said)));
        said += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(said < 12_000, "it never moved: {:#?}", first.net.counters());
    }
    let wanted: Vec<_> = (0..said).map(lost).collect();
    for (node, from) in [(&first, second.id()), (&second, first.id())] {
        node.holds("everything, in order", |node| {
            let mut heard = Vec::new();
            for event in &*node.told.borrow() {
                if let NetEvent::Received { from: by, messages } = event
                    && *by == from
                {
                    heard.extend(messages.iter().cloned());
                }
            }
            heard == wanted
        })
        .await;
        let counts = node.net.counters();
        assert_eq!((counts.messages_lost, counts.requests_failed), (0, 0));
        assert_eq!(counts.peers_relayed, 0, "{counts:#?}");
    }
    let punched = first.net.counters().holes_punched + second.net.counters().holes_punched;
    assert!(punched >= 1, "{:#?}", second.net.counters());
}
