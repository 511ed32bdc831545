//! Members that are broken or hostile, strangers, and nodes that are full.

use super::*;
use crate::net::actor::Setup;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::codec::{Answer, Ask};
use crate::net::gate::peer_of;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, request_response};
use std::sync::atomic::{AtomicBool, Ordering};

/// A member that has the key and says whatever the test wants.
struct Rogue {
    swarm: Swarm<Behaviour>,
    control: libp2p_stream::Control,
    keys: Keys,
    peer: libp2p::PeerId,
    /// Frames that came by request.
    asked: Vec<Vec<u8>>,
}

/// What a rogue does not do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    Streams,
    Subscriptions,
}

impl Rogue {
    async fn connect(to: &TestNode) -> Rogue {
        Rogue::connect_without(to, Lacks::Nothing).await
    }

    async fn connect_without(to: &TestNode, lacks: Lacks) -> Rogue {
        let config = config(66, TCP);
        let keypair = Keypair::ed25519_from_bytes(config.identity).unwrap();
        let keys = Keys::new(&config.mesh_key, config.versions);
        let me = keypair.public().to_peer_id();
        let gate = Arc::new(Gate::new(me, &[], &[], (&[], &[]), Arc::default()));
        let setup = Setup { keypair, keys: keys.clone(), gate, boot: 1, config, blobs: no_blobs() };
        let (mut swarm, mut control) = setup.swarm(&mut Registry::default()).unwrap();
        if lacks != Lacks::Streams {
            let mut incoming = control.accept(keys.protocol("stream")).unwrap();
            tokio::spawn(async move {
                while let Some((_, mut stream)) = incoming.next().await {
                    stream.write_all(&[1]).await.unwrap();
                    tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
                }
            });
        }
        if lacks == Lacks::Subscriptions {
            for topic in crate::net::gossip::TOPICS {
                swarm.behaviour_mut().gossip.unsubscribe(&keys.topic(topic));
            }
        }
        swarm.dial(to.address().parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        Rogue { swarm, control, keys, peer: peer_of(&to.id()), asked: Vec::new() }
    }

    /// Lets the swarm work, and takes frames that come by request.
    async fn work(&mut self) -> std::convert::Infallible {
        loop {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::Message {
                message: request_response::Message::Request { request: Ask::Frame(frame), channel, .. },
                ..
            })) = event
            {
                self.asked.push(frame);
                self.swarm.behaviour_mut().requests.send_response(channel, Answer::Taken).unwrap();
            }
        }
    }

    /// Writes `bytes` to a new stream of a protocol, and waits until the other
    /// side has closed it.
    async fn says(&mut self, protocol: StreamProtocol, bytes: &[u8]) {
        let mut control = self.control.clone();
        let peer = self.peer;
        let talk = async move {
            let mut stream = control.open_stream(peer, protocol).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.flush().await;
            let _ = stream.close().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        tokio::select! {
            () = talk => {}
            never = self.work() => match never {},
        }
    }

    /// Lets the swarm work until `done`.
    async fn until(&mut self, done: impl Future<Output = ()>) {
        tokio::select! {
            () = done => {}
            never = self.work() => match never {},
        }
    }
}

fn bad(node: &TestNode) -> u64 {
    node.net.counters().bad_messages.values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_a_member_is_counted_and_harms_nobody() {
    let (first, second) = pair(TCP).await;
    let mut rogue = Rogue::connect(&first).await;
    let stream = rogue.keys.protocol("stream");
    let garbage: [&[u8]; 4] =
        [&[0xff; 100], &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 9, 9, 9, 9, 9], &[0, 0, 0, 1, 0x0b], &[0, 0]];
    for bytes in garbage {
        let before = bad(&first);
        rogue.says(stream.clone(), bytes).await;
        if bytes.len() > 2 {
            rogue.until(first.holds("a count", |n| bad(n) > before)).await;
        }
    }
    for (protocol, bytes) in [("ask", vec![9; 40]), ("ask", vec![2; 45]), ("ask", vec![]), ("kad", vec![7; 99])] {
        rogue.says(rogue.keys.protocol(protocol), &bytes).await;
    }
    rogue.until(first.holds("a count", |n| n.net.counters().bad_messages.contains_key("bad_request"))).await;
    for protocol in ["gossip", "kad"] {
        rogue.says(rogue.keys.protocol(protocol), &[0xff; 4096]).await;
    }
    for protocol in ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/push/1.0.0"] {
        rogue.says(StreamProtocol::new(protocol), &[0xff; 512]).await;
    }
    let before = bad(&first);
    let peer = rogue.peer;
    rogue.swarm.behaviour_mut().requests.send_request(&peer, Ask::Frame(vec![0xff; 64]));
    rogue.until(first.holds("a count", |n| bad(n) > before)).await;
    // The others go on.
    assert!(second.net.send(first.id(), lost(1)));
    first.hears(&lost(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_gossip_is_rejected_and_counted() {
    let first = TestNode::start(config(1, TCP)).await;
    let mut rogue = Rogue::connect(&first).await;
    let topic = rogue.keys.topic("nodes");
    let mut not_for_gossip = vec![0; 8];
    wire::encode(&lost(1), &mut not_for_gossip);
    for content in [vec![1, 2, 3], vec![0xff; 60], not_for_gossip] {
        let before = bad(&first);
        while rogue.swarm.behaviour_mut().gossip.publish(topic.clone(), content.clone()).is_err() {
            rogue.swarm.select_next_some().await;
        }
        rogue.until(first.holds("a count", |n| bad(n) > before)).await;
    }
    let counts = first.net.counters();
    assert_eq!((counts.bad_messages["short_gossip"], counts.bad_messages["not_for_gossip"]), (1, 1));
    assert!(!first.told.borrow().iter().any(|e| matches!(e, NetEvent::Received { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_by_request_where_no_stream_can_be_had() {
    let first = TestNode::start(config(1, TCP)).await;
    let mut rogue = Rogue::connect_without(&first, Lacks::Streams).await;
    let peer = id_of(66);
    rogue.until(first.sees_up(peer)).await;
    for n in 0..50 {
        assert!(first.net.send(peer, lost(n)));
    }
    rogue.until(first.holds("all sent", |n| n.net.counters().messages_sent == 50)).await;
    let taken = |asked: &[Vec<u8>]| -> Vec<Message> {
        asked.iter().flat_map(|frame| wire::decode_frame(frame).unwrap()).map(Result::unwrap).collect()
    };
    while taken(&rogue.asked).len() < 50 {
        rogue.until(first.holds("an answer", |n| n.net.counters().requests_answered > 0)).await;
        tokio::time::timeout(Duration::from_millis(10), rogue.work()).await.unwrap_err();
    }
    assert_eq!(taken(&rogue.asked), (0..50).map(lost).collect::<Vec<_>>());
    // And the other way: requests of the rogue are taken up.
    let mut frame = Vec::new();
    wire::encode_frame(&[lost(77)], &mut frame);
    rogue.swarm.behaviour_mut().requests.send_request(&rogue.peer, Ask::Frame(frame));
    rogue.until(first.hears(&lost(77))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sided_gossip_is_noticed_and_the_peer_connected_afresh() {
    let pace = Pace { one_sided: Duration::from_millis(300), ..config(1, TCP).pace };
    let first = TestNode::start(NetConfig { pace, ..config(1, TCP) }).await;
    let mut rogue = Rogue::connect_without(&first, Lacks::Subscriptions).await;
    rogue.until(first.sees_up(id_of(66))).await;
    rogue.until(first.holds("mending", |n| n.net.counters().mended > 0)).await;
    rogue.until(first.sees_down(id_of(66))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_port_are_refused_and_shut_nobody_out() {
    let first = TestNode::start(config(1, TCP)).await;
    let port: u16 = first.address().split('/').nth(4).unwrap().parse().unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let mut browser = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut browser, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50)).await.unwrap();
    first.holds("a refusal", |n| n.net.counters().refused_connections.contains_key("other_mesh_key")).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, TCP) }).await;
    first.sees_up(second.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_stops_reading_and_the_sender_feels_it() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let takes = move |event: &NetEvent| gate.load(Ordering::Relaxed) || !matches!(event, NetEvent::Received { .. });
    let full = TestNode::start_with(config(1, TCP), takes).await;
    let limits = Limits { queued_messages: 8, ..Limits::default() };
    let sender = TestNode::start(NetConfig { seeds: vec![full.address()], limits, ..config(2, TCP) }).await;
    sender.sees_up(full.id()).await;
    // The line between the two holds some, the queue eight more.
    let mut sent = 0;
    let filling = async {
        loop {
            if sender.net.send(full.id(), heavy(sent)) {
                sent += 1;
            } else if sender.net.counters().queue_full > 1_000 {
                break;
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.unwrap();
    assert!(!full.told.borrow().iter().any(|e| matches!(e, NetEvent::Received { .. })));
    open.store(true, Ordering::Relaxed);
    // Nothing that was taken is lost, and the order is kept.
    full.hears(&heavy(sent - 1)).await;
    let told = full.told.borrow().clone();
    let heard = told.into_iter().flat_map(|e| match e {
        NetEvent::Received { messages, .. } => messages,
        _ => Vec::new(),
    });
    assert!(heard.eq((0..sent).map(heavy)));
}

/// A message of 8 KiB that is equal to no other.
fn heavy(n: usize) -> Message {
    Message::Progress {
        task: TaskId::new(&format!("t{n}")).unwrap(),
        fence: taskmesh_core::Fence::default(),
        running: Some(taskmesh_core::Millis(0)),
        percent: None,
        message: None,
        log_tail: Some(vec![n as u8; taskmesh_core::limits::LOG_TAIL_BYTES].into()),
    }
}
