//! What monitoring reads of a node that runs: metrics, health, and where the
//! fleet is.

use crate::api::Feed;
use crate::api::audit::Audit;
use crate::api::http::Routes;
use crate::config::Config;
use crate::driver::{Handle, Observation};
use crate::net;
use crate::telemetry::process::DiskRoom;
use crate::telemetry::{Metrics, NetCounts, Targets, Vitals, health, logging};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where the parts of a node put what they measure.
#[derive(Clone, Default)]
pub(super) struct Monitor {
    pub(super) metrics: Arc<Metrics>,
    targets: Arc<Targets>,
}

impl Monitor {
    /// Hears of everything that the driver measures.
    pub(super) fn observer(&self, feed: Feed) -> impl FnMut(Observation<'_>) + Send + use<> {
        let Monitor { metrics, targets } = self.clone();
        move |seen| match seen {
            Observation::Notice(notice) => {
                metrics.observe(notice);
                feed.tell(notice);
                logging::tell(notice);
            }
            Observation::Commit(c) => metrics.commit(c.entries, c.bytes, c.took, c.synced, c.syncs),
            Observation::Batch { inputs, waiting } => metrics.batch(inputs, waiting),
            Observation::Stats(stats) => metrics.stats(stats),
            Observation::Fleet { watched, short_of_copies } => {
                metrics.short_of_copies(short_of_copies);
                targets.know(watched);
            }
            Observation::Unsent(messages) => metrics.unsent(messages),
        }
    }

    /// What the second listener serves.
    pub(super) fn routes(&self, config: &Config, handle: &Handle, meters: net::Meters, audit: Audit) -> Routes {
        let Monitor { metrics, targets } = self.clone();
        let (alive, ready) = (handle.clone(), handle.clone());
        let (folder, me) = (config.node.data_dir.clone(), handle.node());
        Routes {
            metrics: Arc::new(move || {
                metrics.net(&net_counts(meters.counters()));
                metrics.audit(audit.failures());
                DiskRoom::of(&folder).into_iter().for_each(|room| metrics.disk(room));
                metrics.render(&meters.text())
            }),
            healthz: Arc::new(move || health::healthz(&vitals(&alive))),
            readyz: Arc::new(move || health::readyz(&vitals(&ready))),
            targets: Arc::new(move || targets.render(me)),
        }
    }
}

/// What the health of the node is judged by.
pub(super) fn vitals(handle: &Handle) -> Vitals {
    let pulse = handle.pulse();
    Vitals {
        since_loop: pulse.since_loop,
        live: pulse.live,
        holders: pulse.holders,
        draining: pulse.draining,
        outcast: pulse.outcast,
    }
}

/// Where other machines find what listens at `listens`, `host:port`: where the
/// settings say, else there, else, if that is every address, at the first of
/// `external` and of `heard` (multiaddresses) that is of no single machine.
pub(super) fn advertised(config: &Config, listens: SocketAddr, heard: &[String]) -> String {
    if !config.metrics.advertise.is_empty() {
        return config.metrics.advertise.clone();
    }
    if !listens.ip().is_unspecified() {
        return listens.to_string();
    }
    let hosts = config.net.external.iter().chain(heard).filter_map(|address| host(address));
    let found = hosts.into_iter().find(|host| host.parse::<IpAddr>().map_or(true, |ip| !ip.is_loopback()));
    match found.as_deref() {
        Some(host) if host.contains(':') => format!("[{host}]:{}", listens.port()),
        Some(host) => format!("{host}:{}", listens.port()),
        None => format!("127.0.0.1:{}", listens.port()),
    }
}

/// Of a multiaddress: an address that is one, or a name.
fn host(address: &str) -> Option<String> {
    let mut parts = address.split('/').skip(1);
    let (kind, host) = (parts.next()?, parts.next()?);
    let named = ["dns", "dns4", "dns6"].contains(&kind);
    let numbered = host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified());
    (named || numbered).then(|| host.to_owned())
}

fn net_counts(counts: net::Counts) -> NetCounts {
    NetCounts {
        messages_sent: counts.messages_sent,
        messages_received: counts.messages_received,
        frames_sent: counts.frames_sent,
        frames_received: counts.frames_received,
        bytes_sent: counts.bytes_sent,
        bytes_received: counts.bytes_received,
        frames_by_request: counts.frames_by_request,
        queue_full: counts.queue_full,
        not_connected: counts.not_connected,
        messages_lost: counts.messages_lost,
        gossip_sent: counts.gossip_sent,
        gossip_received: counts.gossip_received,
        gossip_dropped: counts.gossip_dropped,
        requests_served: counts.requests_served,
        requests_answered: counts.requests_answered,
        requests_failed: counts.requests_failed,
        requests_busy: counts.requests_busy,
        dials: counts.dials,
        dials_failed: counts.dials_failed,
        mended: counts.mended,
        peers_direct: counts.peers_direct,
        peers_relayed: counts.peers_relayed,
        paths_moved: counts.paths_moved,
        holes_punched: counts.holes_punched,
        holes_failed: counts.holes_failed,
        reservations: counts.reservations,
        circuits: counts.circuits,
        circuits_carried: counts.circuits_carried,
        circuits_refused: counts.circuits_refused,
        reachability: counts.reachability,
        bad_messages: counts.bad_messages,
        refused_connections: counts.refused_connections,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Inputs;

    #[test]
    fn metrics_are_where_the_settings_or_the_listeners_say() {
        let config = |flags: &[(&str, &str)]| {
            let base = [("node.data_dir", "/d")];
            let flags = base.iter().chain(flags).map(|(k, v)| ("--set".into(), (*k).to_owned(), (*v).to_owned()));
            Config::load(&Inputs { flags: flags.collect(), ..Inputs::default() }).unwrap()
        };
        let heard = ["/ip4/127.0.0.1/tcp/4770/p2p/x", "/ip6/fd00::7/tcp/4770/p2p/x"].map(str::to_owned);
        let anywhere: SocketAddr = "0.0.0.0:4781".parse().unwrap();
        let at = |flags: &[(&str, &str)], listens| advertised(&config(flags), listens, &heard);
        assert_eq!(at(&[], "10.0.0.9:9".parse().unwrap()), "10.0.0.9:9");
        assert_eq!(at(&[], anywhere), "[fd00::7]:4781");
        assert_eq!(at(&[("net.external", "/dns4/a.example/tcp/1")], anywhere), "a.example:4781");
        assert_eq!(at(&[("metrics.advertise", "b.example:80")], anywhere), "b.example:80");
        assert_eq!(advertised(&config(&[]), anywhere, &heard[..1]), "127.0.0.1:4781");
    }
}
