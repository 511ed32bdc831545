//! The faces: MCP over HTTP, stdio and libp2p, the dashboard, metrics and health
//! over HTTP, and the client that the command line speaks MCP with. They translate and guard;
//! what an operation means is in `ops` and in the core.

mod answer;
pub mod audit;
pub mod auth;
mod budget;
pub mod cache;
pub mod client;
pub mod dashboard;
pub mod forgotten;
pub mod http;
mod mcp;
pub mod p2p;
pub mod serve;
pub mod stdio;
pub mod tls;

pub use mcp::Feed;

#[cfg(test)]
mod door_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

/// Told of each call: the operation, its code (`ok`, a name of
/// [`crate::ops::Code`], or `abandoned`), and how long it took.
pub type Meter = Arc<dyn Fn(&str, &str, Duration) + Send + Sync>;
