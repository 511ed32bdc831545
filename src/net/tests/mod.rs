//! Real nodes with real sockets on the loopback. They wait for what should
//! happen, with a deadline, and never for a span of time.
#![allow(clippy::unwrap_used)]

mod blobs;
mod exchange;
mod fleet;
mod hostile;
mod refusal;
mod relayed;

use super::*;
use std::collections::HashMap;
use std::sync::Mutex;
use taskmesh_core::TaskId;
use tokio::sync::watch;

/// A node of a test, and everything that it was told.
struct TestNode {
    net: Net,
    told: watch::Receiver<Vec<NetEvent>>,
    stored: Arc<Mutex<HashMap<BlobHash, Vec<u8>>>>,
}

/// Longer than anything takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
#[cfg(feature = "quic")]
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn config(seed: u8, listen: &str) -> NetConfig {
    NetConfig {
        identity: [seed; 32],
        mesh_key: [42; 32],
        listen: vec![listen.to_owned()],
        pace: Pace {
            ping: Duration::from_secs(1),
            gossip_heartbeat: Duration::from_millis(100),
            redial: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
            one_sided: Duration::from_secs(3),
            walk: Duration::from_millis(500),
            traffic: Duration::from_millis(200),
            ..Pace::default()
        },
        ..NetConfig::default()
    }
}

impl TestNode {
    async fn start(config: NetConfig) -> TestNode {
        TestNode::start_with(config, |_| true).await
    }

    /// `takes` says whether the node has room for an event.
    async fn start_with(config: NetConfig, takes: impl Fn(&NetEvent) -> bool + Send + Sync + 'static) -> TestNode {
        // `RUST_LOG=debug` shows what a failing test did.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (tell, told) = watch::channel(Vec::new());
        let stored: Arc<Mutex<HashMap<BlobHash, Vec<u8>>>> = Arc::default();
        let (from, into) = (stored.clone(), stored.clone());
        let blobs = BlobAccess {
            read: Box::new(move |hash, offset, len| {
                let stored = from.lock().unwrap();
                let blob = stored.get(&hash)?.get(offset as usize..)?;
                Some(blob[..len.min(blob.len())].to_vec())
            }),
            receive: Box::new(move |hash, bytes, pieces| {
                let content: Vec<u8> = pieces.flatten().collect();
                let whole = content.len() as u64 == bytes && BlobHash::of(&content) == hash;
                if whole {
                    into.lock().unwrap().insert(hash, content);
                }
                whole
            }),
        };
        let events = move |event: NetEvent| {
            if !takes(&event) {
                return Some(event);
            }
            // Whoever waits for that is told by its drop.
            if !matches!(event, NetEvent::Reached(_)) {
                tell.send_modify(|told| told.push(event));
            }
            None
        };
        let lonely = config.listen.is_empty();
        let node = TestNode { net: super::start(config, blobs, Box::new(events)).unwrap(), told, stored };
        if !lonely {
            node.sees("listening", |told| told.iter().any(|e| matches!(e, NetEvent::Listening(_)))).await;
        }
        node
    }

    fn id(&self) -> NodeId {
        self.net.node()
    }

    fn address(&self) -> String {
        self.net.addresses().remove(0)
    }

    /// Waits until what the node was told fulfils `condition`.
    async fn sees(&self, what: &str, condition: impl Fn(&[NetEvent]) -> bool) {
        let mut told = self.told.clone();
        let wait = told.wait_for(|told| condition(told));
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("{what} did not happen; instead: {:#?}", self.told.borrow());
        }
    }

    /// Waits until something outside of events is so.
    async fn holds(&self, what: &str, condition: impl Fn(&TestNode) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("{what} did not happen; told: {:#?}, counted: {:#?}", self.told.borrow(), self.net.counters());
        }
    }

    async fn sees_up(&self, peer: NodeId) {
        self.sees("up", |told| is_up(told, peer)).await;
    }

    async fn sees_down(&self, peer: NodeId) {
        self.sees("down", |told| !is_up(told, peer)).await;
    }

    async fn hears(&self, message: &Message) {
        self.sees("hearing", |told| {
            told.iter().any(|e| matches!(e, NetEvent::Received { messages, .. } if messages.contains(message)))
        })
        .await;
    }

    /// Gossips new messages until the other hears one.
    async fn is_heard_gossiping_by(&self, other: &TestNode) {
        let wait = async {
            for n in 0.. {
                self.net.publish(&announcement(n));
                tokio::time::sleep(Duration::from_millis(60)).await;
                let me = self.id();
                let heard = |e: &NetEvent| {
                    let NetEvent::Received { from, messages } = e else { return false };
                    *from == me && matches!(messages[..], [Message::Announce { .. }])
                };
                if other.told.borrow().iter().any(heard) {
                    break;
                }
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("gossip is not heard: {:#?} {:#?}", self.net.counters(), other.net.counters());
        }
    }
}

fn is_up(told: &[NetEvent], peer: NodeId) -> bool {
    let last = told.iter().rev().find_map(|e| match e {
        NetEvent::Peer(PeerEvent::Up { peer: p, .. }) if *p == peer => Some(true),
        NetEvent::Peer(PeerEvent::Down { peer: p }) if *p == peer => Some(false),
        _ => None,
    });
    last == Some(true)
}

fn lost(n: usize) -> Message {
    Message::Lost { task: TaskId::new(&format!("task-{n}")).unwrap() }
}

fn announcement(n: u32) -> Message {
    Message::Announce { ready: vec![("echo".into(), n)] }
}

/// The node with that seed.
fn id_of(seed: u8) -> NodeId {
    gate::node_of(&Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()).unwrap()
}

fn no_blobs() -> BlobAccess {
    BlobAccess { read: Box::new(|_, _, _| None), receive: Box::new(|_, _, _| false) }
}

/// Two nodes; the second knows the first as its seed.
async fn pair(listen: &str) -> (TestNode, TestNode) {
    let first = TestNode::start(config(1, listen)).await;
    let second = TestNode::start(NetConfig { seeds: vec![first.address()], ..config(2, listen) }).await;
    first.sees_up(second.id()).await;
    second.sees_up(first.id()).await;
    (first, second)
}
