//! Starts to take work from another program's task queue, if the settings name
//! one.

use crate::api::p2p::source::{self, Dial, Opened, Settings, Tell, Told};
use crate::config::ForeignQueue;
use crate::driver::Handle;
use crate::net::door;
use crate::telemetry::Metrics;
use anyhow::Context as _;
use futures::FutureExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Claims and runs what the queue has until `shutdown`.
///
/// # Errors
/// The file with the token can't be read.
pub(super) fn start(
    config: &ForeignQueue,
    node: &Handle,
    metrics: Arc<Metrics>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some((_, peer)) = config.queue.rsplit_once("/p2p/") else { return Ok(()) };
    let token = match &config.token_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("source.token_file: can't read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
    };
    let settings = Settings {
        queue: peer.into(),
        types: config.types.iter().map(|name| name.as_str().into()).collect(),
        lease: Duration::from_secs(config.lease_s),
        token,
    };
    let tell: Tell = Arc::new(move |told| match told {
        Told::Connected(connected) => metrics.source_connected(connected),
        Told::Claimed => metrics.source_claimed(),
        Told::Ended(outcome) => metrics.source_ended(outcome),
        Told::Held(claims) => metrics.source_held(claims),
    });
    tracing::info!(queue = config.queue, types = ?config.types, "a foreign queue is a source of work");
    tokio::spawn(source::run(node.clone(), settings, dial(&config.queue), tell, shutdown.clone()));
    Ok(())
}

fn dial(address: &str) -> Dial {
    let address: Arc<str> = address.into();
    Arc::new(move || {
        let address = address.clone();
        let dialled = async move {
            let door::Call { stream, open, .. } = door::dial(&address).await.map_err(|e| e.to_string())?;
            Ok(Opened { stream: Box::new(stream), connection: Box::new(open) })
        };
        dialled.boxed()
    })
}
