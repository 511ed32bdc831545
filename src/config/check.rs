//! What texts of settings must look like, beyond their length: the mistakes that
//! people make, told in their terms.

use std::net::SocketAddr;
use taskmesh_core::NodeId;

/// It stands in tables and labels.
pub(super) fn name(text: &str) -> Result<String, String> {
    let right = !text.chars().any(|c| c.is_whitespace() || c == '/');
    if right { Ok(text.to_owned()) } else { Err(format!("is {text:?}; it must have no white space and no /")) }
}

/// The network layer reads it in full; this is the mistake that people make.
pub(super) fn multiaddr(text: String) -> Result<String, String> {
    if text.starts_with('/') && !text.contains(char::is_whitespace) {
        return Ok(text);
    }
    Err(format!("has {text:?}; it must have multiaddresses, such as /ip4/0.0.0.0/tcp/4770"))
}

/// Of one certain node.
pub(super) fn door(text: String) -> Result<String, String> {
    let named = text.rsplit_once("/p2p/").is_some_and(|(_, peer)| !peer.is_empty() && !peer.contains('/'));
    if named { multiaddr(text) } else { Err(format!("is {text:?}; it must end in /p2p/<peer id>")) }
}

/// Empty, or an address of the web: in the clear only on this machine.
pub(super) fn http(text: String) -> Result<String, String> {
    let plain = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let right = text.starts_with("https://") || plain.iter().any(|start| text.starts_with(start));
    if text.is_empty() || (right && !text.contains(char::is_whitespace)) {
        return Ok(text);
    }
    Err(format!("is {text:?}; it must start with https:// (http:// only on this machine)"))
}

/// An address of a collector of traces, which may well be in the same cluster.
pub(super) fn collector(text: String) -> Result<String, String> {
    let right = ["http://", "https://"].iter().any(|start| text.len() > start.len() && text.starts_with(start));
    if text.is_empty() || (right && !text.contains(char::is_whitespace)) {
        return Ok(text);
    }
    Err(format!("is {text:?}; it must be like http://collector.example:4318"))
}

/// A path, or an address as above.
pub(super) fn keys(text: String) -> Result<String, String> {
    if text.contains("://") { http(text) } else { Ok(text) }
}

pub(super) fn peer(text: String) -> Result<NodeId, String> {
    text.parse().map_err(|e| format!("has {text:?}, which {e}"))
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("is {text:?}; it must be an address and a port, such as 127.0.0.1:4780"))
}

/// A name as it stands in the `Host` of a request, without a port.
pub(super) fn host(text: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    match (1..=253).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text),
        false => Err(format!("has {text:?}, which is no host name and no address")),
    }
}

pub(super) fn host_and_port(text: String) -> Result<String, String> {
    match taskmesh_core::watch::is_host_and_port(&text) {
        true => Ok(text),
        false => Err(format!("is {text:?}; it must be a host and a port, such as node-1.example:4781")),
    }
}

/// The groups of operations, by their nouns.
pub const TOOLSETS: [&str; 5] = ["task", "queue", "worker", "workflow", "peer"];

pub(super) fn toolset(text: String) -> Result<String, String> {
    if TOOLSETS.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(format!("has {text:?}; it must be some of {}", TOOLSETS.join(", ")))
}

pub(super) fn directives(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("is {text:?}, which is no list of directives: {e}")),
    }
}
