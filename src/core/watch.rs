//! What a node tells those who watch the fleet, beside what happens: where the
//! metrics of each member are, and how many of its tasks are short of copies.

use crate::ids::NodeId;
use crate::limits;
use crate::node::Node;
use crate::ownership::Kept;
use crate::time::Millis;
// Plain data and its text form: nothing of a network.
use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Where the metrics of a node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whose.
    pub node: NodeId,
    /// `host:port`, by its own account.
    pub at: Arc<str>,
    /// For how long nothing was heard of it; `None`: it lives.
    pub silent: Option<Millis>,
}

/// A count that takes several rounds of the sweep.
#[derive(Default)]
pub(crate) struct Survey {
    counting: u64,
    counted: u64,
}

impl Survey {
    pub(crate) fn found(&mut self) {
        self.counting += 1;
    }

    /// Every record was looked at.
    pub(crate) fn whole(&mut self) {
        self.counted = std::mem::take(&mut self.counting);
    }
}

impl Node {
    /// Where this node's own metrics are, for the others to know.
    pub(crate) fn on_metrics_at(&mut self, address: Arc<str>) {
        self.metrics_at = is_host_and_port(&address).then_some(address);
        self.account_changed();
    }

    /// Where the metrics of this node and of the members that it knows are.
    /// One that left, or was silent for longer than a day, is not among them:
    /// nobody need be woken for it any more.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let own = self.metrics_at.clone().map(|at| Watched { node: self.id, at, silent: None });
        let others = self.members.iter().filter_map(|(node, member)| {
            let at = member.metrics_at.clone().filter(|at| !is_loopback(host_of(at)) || member.is_on_this_machine())?;
            let silent = (!self.live(*node)).then(|| self.silent_for(*node));
            let listed = !self.has_left(*node) && silent.is_none_or(|for_| for_ <= WATCHED_FOR);
            listed.then_some(Watched { node: *node, at, silent })
        });
        own.into_iter().chain(others).collect()
    }

    /// Tasks of this node of which fewer copies than there should be are on
    /// nodes that live; as of the last time that every record was looked at.
    #[must_use]
    pub fn short_of_copies(&self) -> u64 {
        self.survey.counted
    }

    /// Whether copies of an owned record are missing.
    pub(crate) fn is_short(&self, kept: &Kept) -> bool {
        let there = kept.slot.record.holders.iter().filter(|n| self.live(**n) && !kept.lost.contains(n));
        !kept.disowned() && there.count() < self.holders_wanted()
    }
}

/// Whether `address` is `host:port` as Prometheus takes it: a name, an IPv4
/// address, or an IPv6 address in brackets.
#[must_use]
pub fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let named = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(name),
    };
    let port = port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    named && port && address.len() <= limits::TEXT_BYTES
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    let inside = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || inside.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || inside.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a multiaddress is one of this machine alone.
pub(crate) fn is_local(multiaddress: &str) -> bool {
    let mut parts = multiaddress.split('/').skip(1);
    matches!(parts.next(), Some("ip4" | "ip6")) && parts.next().is_some_and(is_loopback)
}

/// A node that was silent for so long has had its alert.
const WATCHED_FOR: Millis = Millis(24 * 3_600_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::effect::{Input, PeerEvent};
    use crate::message::{Hello, Message};
    use crate::testing::{Solo, solo};

    fn hello(metrics: Option<&str>, draining: bool) -> Message {
        Message::Hello(Box::new(Hello { draining, metrics: metrics.map(Into::into), ..crate::testing::hello() }))
    }

    fn meet(solo: &mut Solo, node: u64, connection: &str, metrics: Option<&str>) {
        let from = NodeId::test(node);
        solo.feed(Input::Peer(PeerEvent::Up { peer: from, address: connection.into() }));
        solo.feed(Input::Received { from, message: hello(metrics, false) });
    }

    fn addresses(solo: &Solo) -> Vec<(String, bool)> {
        solo.node.watched().into_iter().map(|w| (w.at.to_string(), w.silent.is_none())).collect()
    }

    #[test]
    fn addresses_are_names_or_numbers_with_a_port() {
        for good in ["10.0.0.7:4781", "[fd00::1]:1", "node-1.mesh_a.example:65535"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in ["", "10.0.0.7", ":4781", "a:0", "a:65536", "a:+1", "fd00::1:4781", "[x]:1", "a/b:1", "a b:1", "é:1"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
        assert!(!is_host_and_port(&format!("{}:1", "a".repeat(limits::TEXT_BYTES))));
    }

    #[test]
    fn the_address_of_the_metrics_is_told_to_all() {
        let mut solo = solo(Config::default());
        meet(&mut solo, 2, "/ip4/10.0.0.2/tcp/4770", None);
        let told = solo.feed(Input::MetricsAt("10.0.0.1:4781".into()));
        let hellos = told.iter().filter_map(|effect| match effect {
            crate::effect::Effect::Send { to, message: Message::Hello(hello) } => Some((*to, hello.metrics.clone())),
            _ => None,
        });
        assert_eq!(hellos.collect::<Vec<_>>(), [(NodeId::test(2), Some("10.0.0.1:4781".into()))]);
        assert_eq!(addresses(&solo), [("10.0.0.1:4781".to_owned(), true)]);
    }

    #[test]
    fn members_are_watched_until_they_leave_or_are_silent_for_a_day() {
        let mut solo = solo(Config::default());
        meet(&mut solo, 2, "/ip4/10.0.0.2/tcp/4770", Some("10.0.0.2:4781"));
        meet(&mut solo, 3, "/ip4/10.0.0.3/tcp/4770", Some("10.0.0.3:4781"));
        assert_eq!(addresses(&solo), [("10.0.0.2:4781".to_owned(), true), ("10.0.0.3:4781".to_owned(), true)]);
        solo.feed(Input::Received { from: NodeId::test(3), message: hello(Some("10.0.0.3:4781"), true) });
        solo.feed(Input::Peer(PeerEvent::Down { peer: NodeId::test(3) }));
        assert_eq!(addresses(&solo), [("10.0.0.2:4781".to_owned(), true)], "it said that it would go");
        solo.wait(Millis(60_000));
        assert_eq!(addresses(&solo), [("10.0.0.2:4781".to_owned(), false)]);
        solo.wait(WATCHED_FOR);
        assert_eq!(addresses(&solo), []);
    }

    #[test]
    fn a_task_is_short_of_copies_while_its_holders_are_silent() {
        let mut solo = solo(Config::default());
        solo.submit("a", crate::testing::spec());
        solo.wait(Millis(2_000));
        assert_eq!(solo.node.short_of_copies(), 0, "one copy is all, in a mesh of one");
        for node in [2, 3] {
            meet(&mut solo, node, "/ip4/10.0.0.2/tcp/4770", None);
        }
        solo.wait(Millis(10_000));
        assert_eq!(solo.node.short_of_copies(), 1);
        for node in [2, 3] {
            meet(&mut solo, node, "/ip4/10.0.0.2/tcp/4770", None);
        }
        solo.wait(Millis(2_000));
        assert_eq!(solo.node.short_of_copies(), 0);
    }

    #[test]
    fn what_nobody_else_can_reach_is_not_listed() {
        let mut solo = solo(Config::default());
        meet(&mut solo, 2, "/ip4/127.0.0.1/tcp/4770", Some("127.0.0.1:4781"));
        meet(&mut solo, 3, "/ip4/10.0.0.3/tcp/4770", Some("127.0.0.1:4781"));
        meet(&mut solo, 4, "/ip4/10.0.0.4/tcp/4770", Some("localhost:4781"));
        meet(&mut solo, 5, "/ip4/10.0.0.5/tcp/4770", Some("http://evil/?x="));
        meet(&mut solo, 6, "/ip6/::1/tcp/4770", Some("[::1]:4781"));
        let listed: Vec<_> = addresses(&solo).into_iter().map(|(at, _)| at).collect();
        assert_eq!(listed, ["127.0.0.1:4781", "[::1]:4781"]);
    }
}
