//! Connections that must not come about, and the reasons that are told.

use super::*;

/// Starts a node with `second`'s settings that knows a usual one, and waits until
/// both have counted the refusal.
async fn is_refused(first: NetConfig, second: NetConfig, reason: &'static str, reason_there: &'static str) {
    let first = TestNode::start(first).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..second }).await;
    second.holds("a refusal", |n| n.net.counters().refused_connections.contains_key(reason)).await;
    first.holds("a refusal", |n| n.net.counters().refused_connections.contains_key(reason_there)).await;
    assert!(!is_up(&first.told.borrow(), second.id()));
    assert!(!is_up(&second.told.borrow(), first.id()));
    assert!(!first.net.send(second.id(), lost(1)));
    // It is dialled again, and still refused.
    second.holds("another refusal", |n| n.net.counters().refused_connections[reason] > 1).await;
    assert!(!is_up(&second.told.borrow(), first.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_mesh_key_is_refused_over_tcp() {
    let other = NetConfig { mesh_key: [43; 32], ..config(2, TCP) };
    is_refused(config(1, TCP), other, "other_mesh_key", "other_mesh_key").await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_mesh_key_is_refused_over_quic() {
    let other = NetConfig { mesh_key: [43; 32], ..config(2, QUIC) };
    is_refused(config(1, QUIC), other, "other_mesh_key", "other_mesh_key_there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_version_is_refused_over_tcp() {
    let other = NetConfig { versions: Versions { lowest: 2, highest: 3 }, ..config(2, TCP) };
    is_refused(config(1, TCP), other, "other_protocol_version", "other_protocol_version").await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_version_is_refused_over_quic() {
    let other = NetConfig { versions: Versions { lowest: 2, highest: 3 }, ..config(2, QUIC) };
    is_refused(config(1, QUIC), other, "other_protocol_version", "other_protocol_version").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_neighbouring_versions_speak_the_highest_that_both_know() {
    let first = TestNode::start(NetConfig { versions: Versions { lowest: 1, highest: 2 }, ..config(1, TCP) }).await;
    let seeds = vec![first.address()];
    let older = NetConfig { versions: Versions { lowest: 1, highest: 1 }, seeds: seeds.clone(), ..config(2, TCP) };
    let newer = NetConfig { versions: Versions { lowest: 2, highest: 3 }, seeds, ..config(3, TCP) };
    for (config, spoken) in [(older, "taskmesh/1/"), (newer, "taskmesh/2/")] {
        let other = TestNode::start(config).await;
        other.sees_up(first.id()).await;
        first.sees_up(other.id()).await;
        for (node, peer) in [(&first, other.id()), (&other, first.id())] {
            node.holds(spoken, |n| speaks(&n.told.borrow(), peer, spoken)).await;
        }
        assert!(other.net.send(first.id(), lost(7)), "it is connected");
        first.hears(&lost(7)).await;
    }
}

/// What was told of `peer` says that this version is spoken with it.
fn speaks(told: &[NetEvent], peer: NodeId, version: &str) -> bool {
    told.iter().any(|event| {
        matches!(event, NetEvent::Peer(PeerEvent::Identified { peer: of, protocol, .. })
            if *of == peer && protocol.starts_with(version))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_node_is_told_so_and_by_whom() {
    let forgets = NetConfig { forgotten: vec![id_of(2)], ..config(1, TCP) };
    let first = TestNode::start(forgets).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, TCP) }).await;
    let told = |told: &[NetEvent]| {
        told.iter().any(|e| matches!(e, NetEvent::Peer(PeerEvent::CastOut { by }) if *by == id_of(1)))
    };
    second.holds("word of it", |n| told(&n.told.borrow())).await;
    first.holds("a refusal", |n| n.net.counters().refused_connections.contains_key("forgotten")).await;
    assert!(!is_up(&first.told.borrow(), second.id()));
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_casts_nobody_out() {
    let stranger = NetConfig { mesh_key: [43; 32], forgotten: vec![id_of(2)], ..config(1, QUIC) };
    let first = TestNode::start(stranger).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, QUIC) }).await;
    second.holds("a refusal", |n| !n.net.counters().refused_connections.is_empty()).await;
    let told = second.told.borrow().iter().any(|e| matches!(e, NetEvent::Peer(PeerEvent::CastOut { .. })));
    assert!(!told, "it has not proven that it is a member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_node_is_told_so() {
    let denies = NetConfig { deny: vec![id_of(2)], ..config(1, TCP) };
    is_refused(denies, config(2, TCP), "not_welcome_there", "denied").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_outside_the_allow_list_is_told_so() {
    let allows = NetConfig { allow: vec![id_of(3)], ..config(1, TCP) };
    is_refused(allows, config(2, TCP), "not_welcome_there", "not_allowed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_the_allow_list_comes_in() {
    let first = TestNode::start(NetConfig { allow: vec![id_of(2)], ..config(1, TCP) }).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, TCP) }).await;
    second.sees_up(first.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_settings_are_named() {
    let start = |config| super::start(config, no_blobs(), Box::new(|_| None)).err().map(|e| e.to_string());
    let problem = start(NetConfig { listen: vec!["127.0.0.1:80".into()], ..config(1, TCP) }).unwrap();
    assert!(problem.contains("127.0.0.1:80") && problem.contains("not a multiaddress"), "{problem}");
    let problem = start(NetConfig { seeds: vec!["seed".into()], ..config(1, TCP) }).unwrap();
    assert!(problem.contains("seed"), "{problem}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let problem = start(config(1, &address)).unwrap();
    assert!(problem.contains(&address), "{problem}");
}
