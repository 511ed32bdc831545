//! Ports, seeds, and how far others can reach the node.

use super::super::exit::Exit;
use super::super::reach::{Node, NodeInfo};
use super::super::words::count;
use super::Finding;
use crate::api::client::plain;
use crate::config::Config;
use serde_json::json;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const NODE: &str = "node";
const PORTS: &str = "ports";
const SEEDS: &str = "seeds";
const REACH: &str = "reachability";
/// What does not answer by then does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn down(folder: &Path) -> Finding {
    let next = "start it with `taskmesh up`; what the mesh says is looked at then";
    Finding::warning(NODE, format!("none runs with {}: there are fewer checks", folder.display()), next)
}

/// Whether it answers, lives, and may be given work; `false`: it does not answer.
pub(super) async fn node(info: &NodeInfo, findings: &mut Vec<Finding>) -> bool {
    let client = plain().timeout(PATIENCE).build();
    let Ok(client) = client else { return false };
    let asked = client.get(format!("{}/readyz", info.metrics_url)).send().await;
    let (status, body) = match asked {
        Ok(response) => (response.status().as_u16(), response.text().await.unwrap_or_default()),
        Err(e) => {
            let says = format!(
                "it said that it runs as process {}, and does not answer at {}: {e}",
                info.pid, info.metrics_url
            );
            findings.push(Finding::problem(NODE, says, "look at its log, and start it again"));
            return false;
        }
    };
    let reasons: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    findings.push(match status {
        200 => Finding::ok(NODE, format!("runs as process {}, and may be given work", info.pid)),
        _ => Finding::problem(
            NODE,
            format!("is not ready: {}", reasons.join("; ")),
            "the other checks and its log say why",
        ),
    });
    true
}

/// Whether the ports that it says it listens on take connections.
pub(super) async fn listening(info: &NodeInfo) -> Vec<Finding> {
    let mut silent = Vec::new();
    let tcp: Vec<_> =
        info.addresses.iter().filter_map(|address| Some((address, socket(address).filter(|s| s.tcp)?))).collect();
    for (address, socket) in &tcp {
        if !answers(socket.at).await {
            silent.push(address.as_str());
        }
    }
    vec![match &silent[..] {
        [] => Finding::ok(
            PORTS,
            format!("{} for other nodes, all open from here", count(tcp.len() as u64, "TCP address")),
        ),
        _ => {
            let next = "a firewall of this machine, or an address that is gone: restart the node";
            Finding::problem(PORTS, format!("does not take connections at {}", silent.join(", ")), next)
        }
    }]
}

/// Whether the ports that the settings name are free for a node that is down.
pub(super) fn own_ports(config: &Config) -> Vec<Finding> {
    let listen = config.net.listen.iter().filter_map(|address| Some(("net.listen", socket(address)?)));
    let faces = [("api.listen", config.api.listen), ("metrics.listen", config.metrics.listen)];
    let faces = faces.map(|(key, at)| (key, Socket { at, tcp: true }));
    let taken = listen.chain(faces).filter(|(_, socket)| !socket.free());
    // Where nobody chose the port, the node takes another.
    let taken: Vec<_> = taken.map(|(key, socket)| (key, socket.at, config.is_default(key))).collect();
    if taken.is_empty() {
        return vec![Finding::ok(PORTS, "those of the settings are free")];
    }
    taken
        .into_iter()
        .map(|(key, at, default)| match default {
            true => {
                Finding::ok(PORTS, format!("{at} ({key}) is taken; as nobody chose it, the node will take another"))
            }
            false => {
                let next = format!("end what uses it (`ss -lnp`), or change {key}");
                Finding::problem(PORTS, format!("{at} ({key}) is taken by another program"), next)
            }
        })
        .collect()
}

/// The seeds that the node starts with: those of the settings, and those of the
/// invites that it ever got.
pub(super) fn seeds(config: &Config) -> Vec<String> {
    let invited = std::fs::read_to_string(config.node.data_dir.join("seeds")).unwrap_or_default();
    let mut seeds = config.net.seeds.clone();
    for seed in invited.lines() {
        if !seeds.iter().any(|known| known == seed) {
            seeds.push(seed.to_owned());
        }
    }
    seeds
}

/// Asked of the node: it dials as it always does, with its keys.
pub(super) async fn seeds_by_node(node: &Node, info: &NodeInfo, seeds: &[String]) -> Vec<Finding> {
    let own =
        |seed: &&String| seed.ends_with(&info.peer_id) || info.addresses.iter().any(|a| a.starts_with(seed.as_str()));
    let others: Vec<&String> = seeds.iter().filter(|seed| !own(seed)).collect();
    let mut dead = Vec::new();
    let dials = others.iter().map(|seed| async move { (*seed, dial(node, seed).await) });
    for (seed, dialled) in futures::future::join_all(dials).await {
        match dialled {
            Ok(None) => {}
            Ok(Some(problem)) => dead.push(format!("{seed}: {problem}")),
            Err(exit) => return vec![Finding::unknown(SEEDS, format!("the node did not dial them: {exit}"))],
        }
    }
    vec![judged(others.len(), &dead)]
}

/// Why a seed does not answer; nothing if it does.
async fn dial(node: &Node, seed: &str) -> Result<Option<String>, Exit> {
    let arguments = json!({"bootstrap_nodes": [seed], "min_connections": 1, "timeout": PATIENCE.as_secs() * 2});
    let answer = node.call("bootstrap_network", arguments).await?;
    // Those that were connected before are counted too: only the failures are about this one.
    let failure = answer["failures"][0]["error"].as_str();
    Ok(failure.map(|error| error.trim_start_matches(&format!("{seed}: ")).to_owned()))
}

/// From here, where no node runs: whether anything listens there.
pub(super) async fn seeds_from_here(seeds: &[String]) -> Vec<Finding> {
    let (mut tried, mut dead) = (0, Vec::new());
    for seed in seeds {
        let Some(socket) = socket(seed).filter(|socket| socket.tcp) else { continue };
        tried += 1;
        if !answers(socket.at).await {
            dead.push(format!("{seed}: nothing listens there"));
        }
    }
    if tried == 0 && !seeds.is_empty() {
        return vec![Finding::unknown(
            SEEDS,
            format!("{} by name or over UDP: only the node itself dials these", count(seeds.len() as u64, "seed")),
        )];
    }
    vec![judged(tried, &dead)]
}

fn judged(tried: usize, dead: &[String]) -> Finding {
    let next = "start that node, or take the address out of net.seeds (and the file `seeds` of the data folder)";
    match (tried, dead.len()) {
        (0, _) => Finding::ok(SEEDS, "none: others come to this node, or are found by mDNS"),
        (n, 0) => Finding::ok(SEEDS, format!("{} answer", count(n as u64, "seed"))),
        (n, d) if d < n => Finding::warning(SEEDS, format!("{d} of {n} do not answer: {}", dead.join("; ")), next),
        (_, _) => Finding::problem(SEEDS, format!("none answers: {}", dead.join("; ")), next),
    }
}

/// Who can come to this node, by the addresses that it has. What a router in
/// between does, only nodes beyond it can tell.
pub(super) fn reachability(config: &Config, info: &NodeInfo) -> Finding {
    let all = config.net.external.iter().chain(&info.addresses);
    let ips: Vec<IpAddr> = all.filter_map(|address| address.split('/').nth(2)?.parse().ok()).collect();
    let named = config.net.external.iter().any(|address| address.starts_with("/dns"));
    if named || ips.iter().any(|ip| !ip.is_loopback() && !private(*ip)) {
        return Finding::ok(REACH, "it has a public address or name; whether a firewall lets others in, they must say");
    }
    if ips.iter().any(|ip| !ip.is_loopback()) {
        return Finding::ok(
            REACH,
            "from its own network: it has private addresses alone. Behind a router, net.external names the outer address",
        );
    }
    let next = "`--listen /ip4/0.0.0.0/tcp/4770` lets others in";
    Finding::warning(REACH, "from this machine alone: it listens on loopback", next)
}

fn private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || ip.is_unspecified() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// What a multiaddress with a number for a host means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    at: SocketAddr,
    tcp: bool,
}

fn socket(address: &str) -> Option<Socket> {
    let mut parts = address.split('/').skip(1);
    let (_, host, protocol, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let at = SocketAddr::new(host.parse().ok()?, port.parse().ok()?);
    matches!(protocol, "tcp" | "udp").then_some(Socket { at, tcp: protocol == "tcp" })
}

impl Socket {
    fn free(self) -> bool {
        if self.tcp { TcpListener::bind(self.at).is_ok() } else { UdpSocket::bind(self.at).is_ok() }
    }
}

async fn answers(at: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(at)).await.is_ok_and(|connected| connected.is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;
    use crate::config::Inputs;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings = [("node.data_dir", "/d")].into_iter().chain(settings.iter().copied());
        let flags = settings.map(|(k, v)| ("--set".into(), (*k).to_owned(), (*v).to_owned()));
        Config::load(&Inputs { flags: flags.collect(), ..Inputs::default() }).unwrap()
    }

    #[test]
    fn seeds_are_judged_by_how_many_answer() {
        let dead = ["/ip4/10.0.0.1/tcp/1: refused".to_owned()];
        assert_eq!([judged(0, &[]), judged(3, &[])].map(|f| f.verdict), [Verdict::Ok; 2]);
        let some = judged(2, &dead);
        assert!(some.verdict == Verdict::Warning && some.says.contains("/ip4/10.0.0.1/tcp/1"), "{some:?}");
        assert_eq!(judged(1, &dead).verdict, Verdict::Problem);
    }

    #[tokio::test]
    async fn without_a_node_ports_and_seeds_are_tried_from_here() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let free = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
        let listen = format!("/ip4/127.0.0.1/tcp/{}", at.port());
        let own = |api: SocketAddr| {
            let settings =
                [("net.listen", listen.as_str()), ("api.listen", &api.to_string()), ("metrics.listen", "127.0.0.1:0")];
            own_ports(&config(&settings))
        };
        let found = own(free);
        assert!(
            found.len() == 1 && found[0].verdict == Verdict::Problem && found[0].says.contains("net.listen"),
            "{found:?}"
        );
        assert_eq!(own(at).len(), 2);
        let found = seeds_from_here(&[listen.clone(), format!("/ip4/127.0.0.1/tcp/{}/p2p/x", free.port())]).await;
        assert!(found[0].verdict == Verdict::Warning && found[0].says.contains(&free.port().to_string()), "{found:?}");
        let named = seeds_from_here(&["/dns4/seed.example/tcp/1".to_owned()]).await;
        assert_eq!(named[0].verdict, Verdict::Unknown);
    }

    #[test]
    fn a_node_is_as_reachable_as_its_best_address() {
        let info = |addresses: &[&str]| NodeInfo {
            peer_id: "p".into(),
            pid: 1,
            api_url: String::new(),
            api_socket: None,
            fingerprint: None,
            metrics_url: String::new(),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            invite: String::new(),
        };
        let plain = config(&[]);
        assert_eq!(reachability(&plain, &info(&["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"])).verdict, Verdict::Warning);
        for (address, word) in [
            ("/ip4/192.168.1.2/tcp/1", "private"),
            ("/ip4/100.64.0.1/tcp/1", "private"),
            ("/ip4/9.9.9.9/tcp/1", "public"),
        ] {
            let found = reachability(&plain, &info(&["/ip4/127.0.0.1/tcp/1", address]));
            assert!(found.verdict == Verdict::Ok && found.says.contains(word), "{address}: {found:?}");
        }
        let named = config(&[("net.external", "/dns4/a.example/tcp/1")]);
        assert_eq!(reachability(&named, &info(&["/ip4/127.0.0.1/tcp/1"])).verdict, Verdict::Ok);
    }
}
