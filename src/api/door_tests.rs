//! Tests of the doors: TLS, HTTP/2, the socket, and clients that waste time.

use super::client::{Client, ClientError, Way};
use super::http::PATH;
use super::serve::Door;
use super::testing::{Act, Endpoint, TOKEN, body, paused};
use super::tls::{Fingerprint, Identity, pinned};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

async fn encrypted(folder: &Path) -> (Endpoint, Fingerprint) {
    let identity = Identity::own(folder, &["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}{PATH}", listener.local_addr().expect("an address"));
    (Endpoint::behind(Door::Tls(listener, identity.acceptor), &url, |_| paused()), identity.fingerprint)
}

#[tokio::test]
async fn over_tls_a_client_takes_the_certificate_that_it_was_told_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (endpoint, fingerprint) = encrypted(folder.path()).await;
    let right = Client::by(Way::Pinned(fingerprint), &endpoint.url, TOKEN).expect("a client");
    let answer = right.call("queue_pause", json!({})).await.expect("an answer");
    assert_eq!(answer["status"], "paused");

    let other = "00".repeat(32).parse().expect("a fingerprint");
    let wrong = [Way::Pinned(other), Way::Url];
    for way in wrong {
        let client = Client::by(way.clone(), &endpoint.url, TOKEN).expect("a client");
        let refused = client.call("queue_pause", json!({})).await;
        let Err(ClientError::Broken { problem, .. }) = refused else { panic!("{way:?}: {refused:?}") };
        assert!(problem.contains("--fingerprint"), "{problem}");
    }
    let plain = Client::new(&endpoint.url.replace("https", "http"), TOKEN).expect("a client");
    assert!(plain.call("queue_pause", json!({})).await.is_err(), "in the clear");
    assert_eq!(endpoint.asked.lock().expect("asked").len(), 1);
}

#[tokio::test]
async fn http_2_is_spoken_where_a_client_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut endpoint, fingerprint) = encrypted(folder.path()).await;
    let mut tls = pinned(fingerprint);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().tls_backend_preconfigured(tls);
    endpoint.http = http.build().expect("a client");
    let params = json!({"name": "queue_pause", "arguments": {}});
    let response = endpoint.modern("tools/call", params, json!({})).send().await.expect("a response");
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(body(response).await["result"]["structuredContent"]["status"], "paused");
}

#[tokio::test]
async fn a_process_of_this_machine_comes_in_by_the_socket_with_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api.sock");
    let door = Door::Unix(UnixListener::bind(&path).expect("a socket"));
    let _endpoint = Endpoint::behind(door, "the socket", |_| paused());
    let call = async |token: &str| {
        let client = Client::by(Way::Socket(path.clone()), "http://nowhere/mcp", token).expect("a client");
        client.call("queue_pause", json!({})).await
    };
    assert_eq!(call(TOKEN).await.expect("an answer")["status"], "paused");
    assert!(matches!(call("wrong").await, Err(ClientError::Unauthenticated { .. })));
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_else_waiting() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let address = endpoint.url.trim_start_matches("http://").trim_end_matches(PATH).to_owned();
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        // Nothing at all, half a line, half a header.
        let start = ["", "PO", "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthori", "PRI * HTTP/2"][n % 4];
        stream.write_all(start.as_bytes()).await.expect("written");
        silent.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), endpoint.call("queue_pause", json!({})));
    assert_eq!(answer.await.expect("in time")["result"]["structuredContent"]["status"], "paused");
    endpoint.shutdown.cancel();
    for mut stream in silent {
        // Closed by the node, whether or not it says why.
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open");
    }
}

#[tokio::test]
async fn an_answer_tells_its_length() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let params = json!({"name": "queue_pause", "arguments": {}});
    let response = endpoint.modern("tools/call", params, json!({})).send().await.expect("a response");
    let told = response.headers().get("content-length").and_then(|n| n.to_str().ok()?.parse::<usize>().ok());
    let text = response.text().await.expect("a body");
    assert_eq!(told, Some(text.len()));
}

#[tokio::test]
async fn a_body_that_never_comes_has_no_answer_from_the_node() {
    let endpoint = Endpoint::start(|_| Act::Keep).await;
    let address = endpoint.url.trim_start_matches("http://").trim_end_matches(PATH).to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.shutdown().await.expect("no more");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("closed");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
}
