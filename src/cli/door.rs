//! Opens the door for peers that are no members, if the settings ask for one,
//! and says where it is.

use super::node::Prepared;
use crate::api::http;
use crate::api::p2p::{self, Face, Limits, Visit};
use crate::driver::Foreign;
use crate::net::door::{self, Door};
use anyhow::Context as _;
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The door's addresses, in the data folder.
const FILE: &str = "door.json";

/// Opens it, and serves who comes until `shutdown`, as the face `beside` does.
///
/// # Errors
/// It can't listen where it was told to, or a file can't be written.
pub(super) async fn open(
    prepared: &Prepared,
    beside: &http::Face,
    foreign: Foreign,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let config = &prepared.config;
    let file = config.node.data_dir.join(FILE);
    if config.p2p.listen.is_empty() {
        // That of an earlier start.
        let _ = std::fs::remove_file(file);
        return Ok(());
    }
    let Door { addresses, mut visits, open } =
        door::open(&prepared.identity, &config.p2p.listen).await.context("api.p2p_listen")?;
    tracing::info!(?addresses, "MCP over libp2p");
    let peer = beside.gate.node().to_string();
    let told = json!({"peer_id": peer, "multiaddr": addresses.first(), "multiaddrs": addresses});
    write(&file, &told).with_context(|| format!("can't write {}", file.display()))?;
    for announce in &config.p2p.announce {
        write(Path::new(announce), &told).with_context(|| format!("api.p2p_announce: can't write {announce}"))?;
    }
    let (visit, served) = mpsc::channel(1);
    let closing = shutdown.clone();
    tokio::spawn(async move {
        // The door closes with the end of this.
        let _open = open;
        loop {
            let came = tokio::select! {
                () = closing.cancelled() => return,
                came = visits.recv() => came,
            };
            let Some(door::Visit { peer, stream, place }) = came else { return };
            if visit.send(Visit { peer, stream: Box::new(stream), place: Box::new(place) }).await.is_err() {
                return;
            }
        }
    });
    let limits = Limits { streams_per_peer: door::STREAMS_PER_PEER, ..Limits::default() };
    let (gate, audit) = (beside.gate.clone(), beside.audit.clone());
    let (meter, offer) = (beside.meter.clone(), beside.offer.clone());
    let face = Face { gate, audit, foreign, meter, offer, templates: beside.templates.clone(), limits };
    tokio::spawn(p2p::serve(served, face, shutdown.clone()));
    Ok(())
}

/// All at once, for its owner alone.
fn write(path: &Path, told: &serde_json::Value) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".door-").tempfile_in(folder)?;
    writeln!(file, "{told}")?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
