//! Messages between nodes that may speak to each other.

use super::*;

async fn messages_go_both_ways(listen: &str) {
    let (first, second) = pair(listen).await;
    assert!(first.net.send(second.id(), lost(1)));
    assert!(second.net.send(first.id(), lost(2)));
    second.hears(&lost(1)).await;
    first.hears(&lost(2)).await;
    first.is_heard_gossiping_by(&second).await;
    second.is_heard_gossiping_by(&first).await;
    for (node, peer) in [(&first, &second), (&second, &first)] {
        node.sees("identify", |told| {
            told.iter().any(|e| {
                matches!(e, NetEvent::Peer(PeerEvent::Identified { peer: p, addresses, .. })
                    if *p == peer.id() && addresses.len() == 1)
            })
        })
        .await;
        node.sees("a ping", |told| {
            told.iter().any(|e| matches!(e, NetEvent::Peer(PeerEvent::Ping { round_trip_us: Some(us), .. }) if *us > 0))
        })
        .await;
        node.sees("traffic", |told| {
            told.iter().any(|e| matches!(e, NetEvent::Peer(PeerEvent::Traffic { bytes, .. }) if *bytes > 0))
        })
        .await;
    }
    first.net.close().await;
    second.sees_down(id_of(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_exchange_messages_over_tcp() {
    messages_go_both_ways(TCP).await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_exchange_messages_over_quic() {
    messages_go_both_ways(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_arrives_in_order_in_few_frames() {
    let (first, second) = pair(TCP).await;
    let batch = (0..5_000).map(|n| (second.id(), lost(n))).collect();
    assert_eq!(first.net.send_batch(batch), 0);
    second.hears(&lost(4_999)).await;
    let told = second.told.borrow().clone();
    let heard = told.into_iter().flat_map(|e| match e {
        NetEvent::Received { messages, .. } => messages,
        _ => Vec::new(),
    });
    assert!(heard.eq((0..5_000).map(lost)));
    let counts = first.net.counters();
    assert_eq!(counts.messages_sent, 5_000);
    assert!(counts.frames_sent < 50, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_publishes_without_an_error() {
    let node = TestNode::start(config(1, TCP)).await;
    node.net.publish(&announcement(1));
    assert!(!node.net.send(NodeId([9; 32]), lost(1)), "nobody is there");
    node.holds("the count", |n| n.net.counters().gossip_dropped == 1 && n.net.counters().not_connected == 1).await;
    assert!(node.net.metrics_text().contains("libp2p"));
    assert!(!node.net.metrics_text().contains("# EOF"));
}
