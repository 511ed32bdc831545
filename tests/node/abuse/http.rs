//! Abuse over HTTP: too much at once, too slow, too large, and malformed.

use super::{SOON, Victim, Way};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
    r#""capabilities":{},"clientInfo":{"name":"old","version":"1"}}}"#
);

pub(super) fn address(victim: &Victim) -> SocketAddr {
    let url = victim.node().endpoint().0;
    let authority = url.trim_start_matches("http://").trim_end_matches("/mcp");
    authority.parse().expect("an address and a port")
}

/// The head of a request, without the empty line at its end.
fn head(token: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
    )
}

fn request(token: &str, body: &str) -> String {
    format!("{}Content-Length: {}\r\n\r\n{body}", head(token), body.len())
}

/// A call of the current revision, which needs no session.
fn call(token: &str, name: &str, arguments: &str) -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = format!(r#"{{"name":"{name}","arguments":{arguments},"_meta":{meta}}}"#);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let named = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {name}\r\n");
    format!("{}{named}Content-Length: {}\r\n\r\n{body}", head(token), body.len())
}

/// The status of the next answer; 0: closed without one.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        match timeout(SOON, stream.read_u8()).await.expect("an answer, or the end") {
            Ok(byte) => line.push(byte),
            Err(_) => return 0,
        }
    }
    let line = String::from_utf8_lossy(&line);
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {line:?}"))
}

/// Sends all of `bytes`, or as much as is taken, and gives the first status.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // It may be closed in the middle of this, with an answer before.
    let _ = stream.write_all(bytes).await;
    status(&mut stream).await
}

/// Sends `request` so many times over one connection, twenty before the first
/// is answered: how many of each status came.
async fn pipelined(address: SocketAddr, request: String, count: usize) -> BTreeMap<u16, usize> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (reader, mut writer) = stream.split();
    let (mut reader, mut came) = (BufReader::new(reader), BTreeMap::new());
    for begun in (0..count).step_by(20) {
        let batch = (count - begun).min(20);
        writer.write_all(request.repeat(batch).as_bytes()).await.expect("sent");
        let mut answered = 0;
        while answered < batch {
            let mut line = Vec::new();
            let read = timeout(SOON, reader.read_until(b'\n', &mut line)).await.expect("an answer, or the end");
            if read.unwrap_or(0) == 0 {
                return came;
            }
            // A body has no newline at its end.
            if let Some((_, rest)) = String::from_utf8_lossy(&line).split_once("HTTP/1.1 ") {
                *came.entry(rest[..3].parse().expect("a status")).or_default() += 1;
                answered += 1;
            }
        }
    }
    came
}

/// Opens so many sessions over 40 connections, as the bearers in turn: how many
/// of each status came.
async fn open_sessions(victim: &Victim, tokens: &[String], count: usize) -> BTreeMap<u16, usize> {
    let bearers = tokens.iter().cycle().take(40);
    let connections = bearers.map(|token| pipelined(address(victim), request(token, HELLO), count / 40));
    let mut all = BTreeMap::new();
    for (status, count) in join_all(connections).await.into_iter().flatten() {
        *all.entry(status).or_default() += count;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_of_one_and_of_several_leave_room_for_others() {
    let victim = Victim::start().await;
    let one = [victim.token("ann", "viewer")];
    let attack = open_sessions(&victim, &one, 10_000);
    let came = victim.under("10,000 sessions of one caller", &[Way::Http], 60, attack).await;
    // After a minute those of the first seconds make room.
    assert_eq!(came.values().sum::<usize>(), 10_000);
    assert!(came[&200] >= 256 && came[&429] > 5_000, "{came:?}");
    let newcomer = request(&victim.token("newcomer", "viewer"), HELLO);
    let newcomers = async || pipelined(address(&victim), newcomer.clone(), 3).await;
    assert_eq!(newcomers().await, BTreeMap::from([(200, 3)]), "room was made");
    let several: Vec<_> = (0..4).map(|n| victim.token(&format!("bob-{n}"), "viewer")).collect();
    let attack = open_sessions(&victim, &several, 1_000);
    let came = victim.under("1,000 sessions of four callers", &[Way::Http], 60, attack).await;
    assert_eq!(came.values().sum::<usize>(), 1_000);
    assert!(came[&200] >= 200 && came[&429] > 200, "{came:?}");
    assert_eq!(newcomers().await, BTreeMap::from([(200, 3)]), "still");
    victim.is_unharmed().await;
}

/// More connections than a node keeps, as far as this process may open them.
fn more_connections_than_there_are() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(4_000);
    usize::try_from(files / 2).expect("few").min(1_500)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_slow_or_at_rest_give_way() {
    let victim = Victim::start().await;
    let (address, count) = (address(&victim), more_connections_than_there_are());
    // A request that never ends, of as much as is read of one.
    let begun = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: {}", "x".repeat(60_000));
    let mut held = Vec::new();
    let slow = async {
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let _ = timeout(SOON, stream.write_all(begun.as_bytes())).await.expect("it is read or closed");
            held.push(stream);
        }
    };
    victim.under(&format!("{count} requests that never end"), &[Way::Http], 150, slow).await;
    for _ in 0..5 {
        victim.ask(Way::Http).await;
    }
    held.clear();
    // They asked, were turned away, and stay.
    let resting = async {
        let wrong = request("wrong", HELLO);
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(wrong.as_bytes()).await.expect("sent");
            assert_eq!(status(&mut stream).await, 401);
            held.push(stream);
        }
    };
    victim.under(&format!("{count} connections at rest"), &[Way::Http], 100, resting).await;
    for _ in 0..5 {
        victim.ask(Way::Http).await;
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_and_bodies_that_swell_stay_within_the_memory_for_them() {
    let victim = Victim::start().await;
    let (address, ann) = (address(&victim), victim.token("ann", "submitter"));
    let begun = format!("{}Content-Length: 12000000\r\n\r\n{}", head(&ann), " ".repeat(1_500_000));
    let mut held = Vec::new();
    let endless = async {
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            // Those for which there is no memory are answered and closed.
            let _ = timeout(SOON, stream.write_all(begun.as_bytes())).await;
            held.push(stream);
        }
    };
    victim.under("300 bodies of 12 MB that never end", &[Way::Http], 400, endless).await;
    let told = held.iter_mut().map(|stream| timeout(Duration::from_secs(1), status(stream)));
    let told = join_all(told).await;
    assert!(told.iter().flatten().all(|status| [0, 429].contains(status)), "{told:?}");
    assert!(told.iter().flatten().count() > 50, "{told:?}");
    drop(held);
    // A few bytes of JSON that take a hundred times as much once they are read.
    let swelling = |bytes: usize| {
        let list = "[0],".repeat(bytes / 4);
        let arguments = format!(r#"{{"task_type":"echo","payload":{{"a":[{list}0]}}}}"#);
        call(&ann, "task_submit", &arguments)
    };
    let (most, too_much) = (swelling(1_000_000), swelling(11_000_000));
    let attack = async {
        let mut callers = JoinSet::new();
        for n in 0..24 {
            let request = if n % 3 == 0 { most.clone() } else { too_much.clone() };
            callers.spawn(async move { exchange(address, request.as_bytes()).await });
        }
        callers.join_all().await
    };
    let mut came = victim.under("24 bodies that swell", &[Way::Http], 600, attack).await;
    came.sort_unstable();
    // 200 is a refusal by the operation: the payload would be within its limit.
    assert!(came.iter().all(|status| [0, 200, 413, 429].contains(status)) && came.contains(&413), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_answered_and_one_caller_takes_no_more_than_its_share() {
    let victim = Victim::start().await;
    let (address, ann) = (address(&victim), victim.token("ann", "viewer"));
    let kinds = &[
        (request("wrong", HELLO), 401),
        (request("", HELLO), 401),
        (request(&ann, "{}"), 0),
        (call(&ann, "queue_stats", "{}"), 200),
    ];
    let flood = async {
        let floods = (0..64).map(|n| async move {
            let (bytes, expected) = kinds[n % 4].clone();
            let came = pipelined(address, bytes, 100).await;
            let right = came.iter().filter(|(status, _)| expected == 0 || **status == expected);
            right.map(|(_, count)| count).sum::<usize>()
        });
        join_all(floods).await.into_iter().sum::<usize>()
    };
    let answered = victim.under("a flood of 6,400 requests", &[Way::Http], 60, flood).await;
    assert_eq!(answered, 64 * 100, "each has the answer that it should");
    let wait = call(&ann, "task_result", r#"{"task_id":"waiting","wait_ms":45000}"#);
    let mut held = Vec::new();
    let waits = async {
        for _ in 0..700 {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(wait.as_bytes()).await.expect("sent");
            held.push(stream);
        }
        // Those over its share are answered, the others wait.
        let mut answered: FuturesUnordered<_> = held.iter_mut().map(status).collect();
        for _ in 512..700 {
            assert_eq!(timeout(SOON, answered.next()).await.expect("an answer"), Some(429));
        }
        timeout(Duration::from_millis(100), answered.next()).await.is_err()
    };
    let others_wait = victim.under("700 calls that wait, of one caller", &[Way::Http], 60, waits).await;
    assert!(others_wait, "its share is 512");
    drop(held);
    victim.is_unharmed().await;
}

/// Requests that are wrong in what they are made of, and what may be answered;
/// 0: closed without an answer.
fn malformed(good: &str) -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let with = |line: &str, body: &str| {
        format!("{}{line}\r\nContent-Length: {}\r\n\r\n{body}", head(good), body.len()).into_bytes()
    };
    // rmcp calls a body that is no message a media type that it does not know.
    let bad = &[400, 404, 406, 415, 422][..];
    let mut latin = request(good, "{}").into_bytes();
    latin.truncate(latin.len() - 2);
    latin.extend_from_slice(b"\xff\xfe");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let get = head(good).replace("POST", "GET");
    vec![
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[0, 400]),
        ("nothing but zeros", vec![0; 5_000], &[0, 400]),
        ("not UTF-8", latin, bad),
        ("not JSON", request(good, "{a}").into_bytes(), bad),
        ("no body", request(good, "").into_bytes(), bad),
        ("deep", request(good, &deep).into_bytes(), bad),
        ("a batch", request(good, &format!("[{}]", [ping; 500].join(","))).into_bytes(), bad),
        ("no method", request(good, r#"{"jsonrpc":"2.0","id":1}"#).into_bytes(), bad),
        ("an id that is an object", request(good, r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#).into_bytes(), bad),
        ("a length over the limit", format!("{}Content-Length: 99999999\r\n\r\n{{", head(good)).into_bytes(), &[413]),
        ("two lengths", with("Content-Length: 7", "{}"), &[0, 400]),
        ("a length that is none", format!("{}Content-Length: -1\r\n\r\n", head(good)).into_bytes(), &[0, 400]),
        ("a length and chunks", with("Transfer-Encoding: chunked", "0\r\n\r\n"), &[0, 400, 415]),
        (
            "a chunk that is none",
            format!("{}Transfer-Encoding: chunked\r\n\r\nzz\r\n", head(good)).into_bytes(),
            &[0, 400, 413],
        ),
        ("a header of 100 KB", with(&format!("X: {}", "x".repeat(100_000)), "{}"), &[0, 431]),
        ("500 headers", with(&"X: y\r\n".repeat(500), "{}"), &[0, 400, 431]),
        ("a zero in a header", with("X: a\0b", "{}"), &[0, 400]),
        ("another host", request(good, HELLO).replace("Host: 127.0.0.1", "Host: evil.example").into_bytes(), &[403]),
        ("no host", request(good, HELLO).replace("Host: 127.0.0.1\r\n", "").into_bytes(), &[400, 403]),
        ("a page of another site", with("Origin: http://evil.example", HELLO), &[403]),
        ("a session that is none", with("Mcp-Session-Id: 00000000-0000-0000-0000-000000000000", ping), &[404]),
        ("a session of bytes", with("Mcp-Session-Id: \u{fc}\u{7f}\u{e9}", ping), &[0, 400, 404]),
        ("another revision", with("MCP-Protocol-Version: 1999-01-01", HELLO), bad),
        ("a method that differs", with("Mcp-Method: tools/list\r\nMCP-Protocol-Version: 2026-07-28", ping), bad),
        ("text", request(good, HELLO).replace("application/json\r\n", "text/plain\r\n").into_bytes(), &[406, 415]),
        ("a stream without a session", format!("{get}\r\n").into_bytes(), &[400, 401, 404, 405, 422]),
        ("another path", request(good, HELLO).replace("/mcp ", "/%2e%2e/mcp ").into_bytes(), &[404]),
        ("another method", request(good, HELLO).replace("POST", "BREW").into_bytes(), &[405]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_change_nothing() {
    let victim = Victim::start().await;
    let (address, ann) = (address(&victim), victim.token("ann", "admin"));
    let attack = async {
        let mut wrong = Vec::new();
        for (what, bytes, allowed) in malformed(&ann) {
            let came = exchange(address, &bytes).await;
            if !allowed.contains(&came) {
                wrong.push(format!("{what}: {came} instead of one of {allowed:?}"));
            }
            // Cut in the middle, it is asked nothing.
            let mut cut = TcpStream::connect(address).await.expect("a connection");
            let _ = cut.write_all(&bytes[..bytes.len() / 2]).await;
            cut.shutdown().await.expect("no more");
            let _ = timeout(SOON, cut.read_to_end(&mut Vec::new())).await.expect("closed by the node");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    };
    victim.under("malformed requests", &[Way::Http], 60, attack).await;
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_ids_repeat_still_answers() {
    let victim = Victim::start().await;
    let ann = victim.token("ann", "viewer");
    let (client, url) = (reqwest::Client::new(), victim.node().endpoint().0.to_owned());
    let post = |body: &str| {
        let post = client.post(&url).bearer_auth(&ann).header("Accept", "application/json, text/event-stream");
        post.header("Content-Type", "application/json").timeout(SOON).body(body.to_owned())
    };
    let greeted = post(HELLO).send().await.expect("an answer");
    let session = greeted.headers()["mcp-session-id"].clone();
    let within = |body: &str| post(body).header("mcp-session-id", session.clone()).send();
    within(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.expect("taken");
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "task_result",
        "arguments": {"task_id": "waiting", "wait_ms": 500}}})
    .to_string();
    let attack = async {
        let mut at_once = JoinSet::new();
        for _ in 0..50 {
            at_once.spawn(within(&call));
        }
        at_once.join_all().await.into_iter().filter(Result::is_ok).count()
    };
    let ended = victim.under("50 requests of one id in one session", &[Way::Http], 60, attack).await;
    assert_eq!(ended, 50, "each has an answer");
    let next = within(r#"{"jsonrpc":"2.0","id":8,"method":"ping"}"#).await.expect("an answer");
    assert_eq!(next.status(), 200, "the session goes on");
    victim.is_unharmed().await;
}
