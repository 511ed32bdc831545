//! Abuse of what HTTP/2 adds: requests that are taken back at once, headers
//! without an end, questions about the connection itself, by clients that read
//! nothing of what is answered.

use super::http::address;
use super::{SOON, Victim, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST http:/mcp`, to 127.0.0.1.
fn head() -> Vec<u8> {
    [&[0x83, 0x86, 0x44, 4][..], b"/mcp", &[0x41, 9], b"127.0.0.1"].concat()
}

/// A header of 16 KB that the receiver is to keep for later.
fn padding() -> Vec<u8> {
    [&[0x40, 1][..], b"x", &[0x7f, 0x81, 0x7c], &[b'y'; 16_000]].concat()
}

/// What is sent the `n`th time.
fn piece(kind: &str, n: u32) -> Vec<u8> {
    let stream = 2 * n + 1;
    match kind {
        "requests that are taken back" => {
            let begun = frame(HEADERS, END_HEADERS, stream, &head());
            [begun, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
        }
        "requests of which nothing is read" => frame(HEADERS, END_HEADERS | END_STREAM, stream, &head()),
        "headers without an end" if n == 0 => frame(HEADERS, 0, 1, &head()),
        "headers without an end" => frame(CONTINUATION, 0, 1, &padding()),
        "pings" => frame(PING, 0, 0, &u64::from(n).to_be_bytes()),
        "settings" => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        _ => unreachable!("one of the kinds"),
    }
}

const KINDS: [&str; 5] = [
    "requests that are taken back",
    "requests of which nothing is read",
    "headers without an end",
    "pings",
    "settings",
];

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_misuse_http_2_harm_nobody() {
    let victim = Victim::start().await;
    let address = address(&victim);
    let attack = async {
        let mut connections = JoinSet::new();
        for n in 0..40 {
            let kind = KINDS[n % KINDS.len()];
            connections.spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                let greeting = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
                stream.write_all(&greeting).await.expect("sent");
                let (mut sent, began) = (0, Instant::now());
                // Until the node ends it or takes no more, or had enough of it.
                while sent < 20_000 && began.elapsed().as_secs() < 5 {
                    let bytes: Vec<u8> = (0..20).flat_map(|n| piece(kind, sent + n)).collect();
                    let Ok(Ok(())) = timeout(SOON / 20, stream.write_all(&bytes)).await else { break };
                    sent += 20;
                }
                // The greeting of the node is there, if not more.
                let mut told = [0; 9];
                let heard = timeout(SOON, stream.read_exact(&mut told)).await.expect("something, or the end");
                (kind, sent, heard.is_ok().then_some(told[3]), stream)
            });
        }
        let all = connections.join_all().await;
        let kinds = KINDS.map(|kind| {
            let of_kind = all.iter().filter(|(other, ..)| *other == kind);
            (kind, of_kind.map(|(_, sent, ..)| sent).sum::<u32>())
        });
        (kinds, all)
    };
    let attack = async {
        let (kinds, all) = attack.await;
        assert!(all.iter().all(|(.., told, _)| told.is_none_or(|kind| kind == SETTINGS)), "a greeting, or nothing");
        kinds
    };
    let sent = victim.under("HTTP/2 misused over 40 connections", &[Way::Http], 60, attack).await;
    let endless = sent.iter().find(|(kind, _)| *kind == "headers without an end").expect("it was tried");
    assert!(endless.1 < 8 * 20_000, "somebody is stopped: {endless:?}");
    victim.is_unharmed().await;
}
