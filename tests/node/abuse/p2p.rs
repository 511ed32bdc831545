//! Abuse over libp2p, at the door for strangers: by each of many identities,
//! since one is bounded by its quotas.

use super::{SOON, Victim, Way, enter};
use crate::fleet::eventually;
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::Control;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use taskmesh::api::p2p::TOKEN_KEY;
use taskmesh::net::door::{Call, PROTOCOL};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

/// Somebody with one connection and no bounds on the streams over it.
struct Stranger {
    control: Control,
    node: PeerId,
    driver: JoinHandle<()>,
}

impl Stranger {
    async fn come(door: &str) -> Stranger {
        eventually(SOON, "a stranger is let in", async || Stranger::try_come(door).await).await
    }

    async fn try_come(door: &str) -> Option<Stranger> {
        let address: Multiaddr = door.parse().expect("a multiaddress");
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(SOON))
            .build();
        let control = swarm.behaviour().new_control();
        swarm.dial(address).expect("an address");
        let (tell, told) = oneshot::channel();
        let driver = tokio::spawn(async move {
            let mut tell = Some(tell);
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                        if let Some(tell) = tell.take() {
                            let _ = tell.send(peer_id);
                        }
                    }
                    SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. } => return,
                    _ => {}
                }
            }
        });
        told.await.ok().map(|node| Stranger { control, node, driver })
    }

    async fn open(&mut self) -> Option<Compat<Stream>> {
        let opened = timeout(SOON, self.control.open_stream(self.node, StreamProtocol::new(PROTOCOL))).await;
        opened.expect("opened, or not").ok().map(Stream::compat)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One answer; `None`: the stream is over.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Value> {
    let length = timeout(SOON, stream.read_u32()).await.expect("an answer, or the end").ok()?;
    let mut text = vec![0; usize::try_from(length).expect("small")];
    stream.read_exact(&mut text).await.ok()?;
    Some(serde_json::from_slice(&text).expect("JSON"))
}

fn framed(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    [&u32::try_from(text.len()).expect("small").to_be_bytes()[..], text.as_bytes()].concat()
}

/// A call of the current revision.
fn call(token: &str, id: usize, name: &str, arguments: &Value) -> Value {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", TOKEN_KEY: token});
    let params = json!({"name": name, "arguments": arguments, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// Answers until the stream ends or is silent: how many, and how many of them
/// are errors.
async fn answers(call: &mut Call, silence: Duration) -> (usize, usize) {
    let (mut all, mut errors) = (0, 0);
    while let Ok(Ok(length)) = timeout(silence, call.stream.read_u32()).await {
        let mut text = vec![0; usize::try_from(length).expect("small")];
        if call.stream.read_exact(&mut text).await.is_err() {
            break;
        }
        let answer: Value = serde_json::from_slice(&text).expect("JSON");
        all += 1;
        errors += usize::from(!answer["error"].is_null());
    }
    (all, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_messages_are_refused_and_left() {
    let victim = Victim::start().await;
    let (door, ann) = (victim.door(), victim.token("ann", "viewer"));
    let attack = async {
        let mut peers = Vec::new();
        for peer in 0..40 {
            let (door, token) = (door.clone(), if peer % 2 == 0 { ann.clone() } else { "wrong".to_owned() });
            peers.push(async move {
                let mut call = enter(&door).await;
                let (mut reader, mut writer) = tokio::io::split(&mut call.stream);
                let write = async {
                    for id in 0..600 {
                        let message = framed(&self::call(&token, id, "queue_stats", &json!({})));
                        if writer.write_all(&message).await.is_err() {
                            return;
                        }
                    }
                    let _ = writer.flush().await;
                };
                // Who does not read is not read either.
                let read = async {
                    let (mut bytes, mut buffer) = (0, vec![0; 16 * 1024]);
                    while let Ok(Ok(count @ 1..)) = timeout(SOON, reader.read(&mut buffer)).await {
                        bytes += count;
                    }
                    bytes
                };
                tokio::join!(write, read).1
            });
        }
        futures::future::join_all(peers).await
    };
    let came = victim.under("40 peers with 600 messages each", &[Way::Http, Way::Libp2p], 100, attack).await;
    assert!(came.iter().all(|bytes| *bytes > 0), "each is told something: {came:?}");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_swell_stay_within_the_memory_for_them() {
    let victim = Victim::start().await;
    let (door, ann) = (victim.door(), victim.token("ann", "submitter"));
    // A few bytes that take a hundred times as much once they are read.
    let swelling = |bytes: usize| {
        let list = vec![json!([0]); bytes / 4];
        framed(&call(&ann, 1, "task_submit", &json!({"task_type": "echo", "payload": {"a": list}})))
    };
    let (most, too_much) = (swelling(900_000), swelling(1_900_000));
    let attack = async {
        let mut peers = Vec::new();
        for n in 0..24 {
            let (door, bytes) = (door.clone(), if n % 2 == 0 { most.clone() } else { too_much.clone() });
            peers.push(async move {
                let mut call = enter(&door).await;
                // Who is over the memory is answered and closed.
                let _ = call.stream.write_all(&bytes).await;
                let _ = call.stream.flush().await;
                answer(&mut call.stream).await.is_some_and(|answer| !answer["error"].is_null())
            });
        }
        futures::future::join_all(peers).await
    };
    let came = victim.under("24 frames that swell", &[Way::Libp2p], 300, attack).await;
    assert!(came.iter().filter(|refused| **refused).count() >= 12, "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_messages_cost_their_sender_the_stream() {
    let victim = Victim::start().await;
    let (door, ann) = (victim.door(), victim.token("ann", "admin"));
    let pause = framed(&call(&ann, 1, "queue_pause", &json!({})));
    let deep = ["{\"jsonrpc\":\"2.0\",\"id\":1,\"params\":", &"[".repeat(50_000)].concat();
    let text = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("small").to_be_bytes()[..], bytes].concat();
    let table = [
        ("of no length", vec![0, 0, 0, 0], 1),
        ("longer than any", vec![0xff; 8], 1),
        ("not UTF-8", text(b"{\"a\":\"\xff\"}"), 1),
        ("not JSON", text(b"{a}"), 1),
        ("deep", text(deep.as_bytes()), 1),
        ("no object", text(b"[1]"), 1),
        ("of no dialect", text(b"{}"), 1),
        ("cut in its length", pause[..3].to_vec(), 0),
        ("cut in its text", pause[..pause.len() - 1].to_vec(), 0),
        ("text without a length", b"GET /mcp HTTP/1.1\r\n\r\n".to_vec(), 1),
    ];
    let attack = async {
        for (what, bytes, expected) in table {
            let mut call = enter(&door).await;
            call.stream.write_all(&bytes).await.expect("sent");
            call.stream.shutdown().await.expect("no more");
            let came = answers(&mut call, SOON).await;
            assert_eq!(came, (expected, expected), "{what}");
        }
    };
    victim.under("bytes that are no messages", &[Way::Http, Way::Libp2p], 60, attack).await;
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_only_take_places_leave_some_to_others() {
    let victim = Victim::start().await;
    let door = victim.door();
    let parts: Vec<_> = door.split('/').collect();
    let socket: SocketAddr = format!("{}:{}", parts[2], parts[4]).parse().expect("/ip4/…/tcp/…");
    let mut held = Vec::new();
    let attack = async {
        for n in 0..200 {
            let from = tokio::net::TcpSocket::new_v4().expect("a socket");
            // Another machine than the bystander's, as far as the node can tell.
            from.bind("127.0.0.2:0".parse().expect("an address")).expect("loopback is a whole network");
            let mut stream: TcpStream = from.connect(socket).await.expect("a connection");
            if n % 2 == 0 {
                let _ = stream.write_all(b"\x13/multistream/1.0.0\n").await;
            }
            held.push(stream);
        }
        for _ in 0..3 {
            victim.ask(Way::Libp2p).await;
        }
    };
    victim.under("200 connections without a handshake", &[Way::Libp2p], 60, attack).await;
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_leave_some_to_others() {
    let victim = Victim::start().await;
    let door = victim.door();
    let hello = framed(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}}));
    let attack = async {
        let (door, hello) = (&door, &hello);
        let strangers = (0..40).map(|_| async move {
            let (mut stranger, mut held, mut greeted) = (Stranger::come(door).await, Vec::new(), 0);
            for _ in 0..50 {
                let Some(mut stream) = stranger.open().await else {
                    stranger = Stranger::come(door).await;
                    continue;
                };
                if stream.write_all(hello).await.is_ok() && answer(&mut stream).await.is_some() {
                    greeted += 1;
                    held.push(stream);
                }
            }
            (greeted, held, stranger)
        });
        futures::future::join_all(strangers).await
    };
    let attack = async {
        let all = attack.await;
        let greeted: usize = all.iter().map(|(greeted, ..)| greeted).sum();
        // What they hold is held while the bystander calls.
        for _ in 0..3 {
            victim.ask(Way::Libp2p).await;
        }
        greeted
    };
    let greeted = victim.under("2,000 streams of 40 peers", &[Way::Http, Way::Libp2p], 100, attack).await;
    assert!((40 * 8..2_000).contains(&greeted), "{greeted}");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stop_in_the_middle_or_are_never_read_stay_within_their_windows() {
    let victim = Victim::start().await;
    let (door, ann) = (victim.door(), victim.token("ann", "viewer"));
    // A frame of which all but the end comes.
    let begun = [&(2_u32 << 20).to_be_bytes()[..], &vec![b' '; 2_000_000]].concat();
    // Large questions with larger answers, which nobody takes.
    let mut question = call(&ann, 1, "task_list", &json!({}));
    question["method"] = "tools/list".into();
    question["params"]["padding"] = " ".repeat(60_000).into();
    let attack = async {
        let (door, begun, question) = (&door, &begun, &question);
        let strangers = (0..40).map(|n| async move {
            let mut question = question.clone();
            let (mut stranger, mut held, mut taken) = (Stranger::come(door).await, Vec::new(), 0);
            for _ in 0..8 {
                let Some(mut stream) = stranger.open().await else { break };
                for id in 0..100 {
                    let bytes = match n % 2 {
                        0 => begun.clone(),
                        _ => {
                            question["id"] = id.into();
                            framed(&question)
                        }
                    };
                    // Nothing is taken any more, or the stream is over.
                    if !matches!(timeout(Duration::from_millis(200), stream.write_all(&bytes)).await, Ok(Ok(()))) {
                        break;
                    }
                    taken += bytes.len();
                }
                held.push(stream);
            }
            (taken, held, stranger)
        });
        let all = futures::future::join_all(strangers).await;
        all.iter().map(|(taken, ..)| taken).sum::<usize>() / (1024 * 1024)
    };
    let ways = [Way::Http, Way::Libp2p];
    let sent = victim.under("320 streams that stop, and MiB that were taken whole", &ways, 500, attack).await;
    assert!(sent > 0);
    victim.is_unharmed().await;
}
