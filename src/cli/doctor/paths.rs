//! Whether others reach the node, and over what: by what it measures. All pure.

use super::super::monitors::Reading;
use super::super::words::count;
use super::Finding;
use crate::config::Config;

const REACH: &str = "reachability";
const PATHS: &str = "paths";

/// What the node and others have found out; `known`: what can be said by its
/// addresses alone.
pub(super) fn look(config: &Config, own: Option<&Reading>, known: Finding) -> Vec<Finding> {
    let Some(own) = own else { return vec![known] };
    let mut findings = vec![reachability(config, own, known), paths(config, own)];
    findings.extend(refused(own));
    findings
}

fn reachability(config: &Config, own: &Reading, known: Finding) -> Finding {
    let (found, places) = (number(own, "taskmesh_net_reachability"), number(own, "taskmesh_net_relay_reservations"));
    match (found, config.net.relay_use, places) {
        (2, ..) => Finding::ok(REACH, "others have dialled it, and reached it"),
        (_, _, 1..) => Finding::ok(REACH, format!("over {} at relays", count(places, "place"))),
        // One that others reach needs no place, and none was asked for.
        (_, true, 0) if config.net.relay_serve => known,
        (_, true, 0) => {
            let next = "set net.relay_serve on a node that others reach and that this one is connected to; \
                behind a router of its own, that node needs net.external";
            Finding::warning(REACH, "no relay keeps a place for it: others may not reach it", next)
        }
        (1, false, _) => {
            let next = "forward its port and name the outer address in net.external, or set net.relay_use here \
                and net.relay_serve on a node that others reach; a node that only dials works too";
            Finding::warning(REACH, "others have dialled it, and did not reach it", next)
        }
        _ => known,
    }
}

/// How many are reached over relays.
fn paths(config: &Config, own: &Reading) -> Finding {
    let of = |path: &str| own.labelled("taskmesh_net_peers", "path", path).unwrap_or_default() as u64;
    let (direct, relayed) = (of("direct"), of("relayed"));
    let all = direct + relayed;
    if all == 0 {
        return Finding::ok(PATHS, "no other node is connected");
    }
    if relayed == 0 {
        return Finding::ok(PATHS, format!("{} connected, all directly", count(all, "node")));
    }
    let share = (relayed * 100).div_ceil(all);
    let says = format!("{direct} of {} connected directly, {relayed} over relays ({share} %)", count(all, "node"));
    let punches = |result: &str| own.labelled("taskmesh_net_hole_punches_total", "result", result).unwrap_or_default();
    if !config.net.hole_punching {
        let next = "net.hole_punching, on both sides, makes direct connections where the NATs allow it";
        return Finding { next: Some(next.to_owned()), ..Finding::ok(PATHS, says) };
    }
    let (punched, failed) = (punches("punched"), punches("failed"));
    Finding::ok(PATHS, format!("{says}; holes through NATs: {punched} made, {failed} failed here"))
}

/// Only of a relay that has refused something.
fn refused(own: &Reading) -> Option<Finding> {
    let refused = own.labelled("taskmesh_net_relay_requests_total", "result", "refused").unwrap_or_default() as u64;
    let carried = number(own, "taskmesh_net_relay_circuits");
    let says = format!("carries {}, and has refused {refused}", count(carried, "connection"));
    (refused > 0).then(|| Finding::warning("relay", says, "raise net.relay_circuits, or let another node serve too"))
}

fn number(own: &Reading, metric: &str) -> u64 {
    own.value(metric).unwrap_or_default() as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::config::Inputs;

    fn config(settings: &[&str]) -> Config {
        let settings = [("node.data_dir", "/d")].into_iter().chain(settings.iter().map(|key| (*key, "true")));
        let flags = settings.map(|(k, v)| ("--set".into(), k.to_owned(), v.to_owned()));
        Config::load(&Inputs { flags: flags.collect(), ..Inputs::default() }).unwrap()
    }

    fn looked(settings: &[&str], metrics: &str) -> Vec<(Verdict, String)> {
        let found = look(&config(settings), Some(&Reading::parse(metrics)), Finding::unknown(REACH, "by address"));
        found.into_iter().map(|f| (f.verdict, f.says)).collect()
    }

    #[test]
    fn who_cannot_be_reached_is_told_what_stands_in_for_it() {
        let table = [
            (&[][..], "taskmesh_net_reachability 0\n", Verdict::Unknown, "by address"),
            (&[], "taskmesh_net_reachability 1\n", Verdict::Warning, "did not reach it"),
            (&[], "taskmesh_net_reachability 2\n", Verdict::Ok, "and reached it"),
            (&["net.relay_use"], "taskmesh_net_reachability 1\n", Verdict::Warning, "no relay keeps a place"),
            (&["net.relay_use", "net.relay_serve"], "", Verdict::Unknown, "by address"),
            (&["net.relay_use"], "taskmesh_net_relay_reservations 2\n", Verdict::Ok, "2 places at relays"),
            // A node may be told by flags what this command does not know of.
            (&[], "taskmesh_net_relay_reservations 1\n", Verdict::Ok, "1 place at relays"),
        ];
        for (settings, metrics, verdict, says) in table {
            let found = looked(settings, metrics);
            assert!(found[0].0 == verdict && found[0].1.contains(says), "{settings:?} {metrics}: {found:?}");
        }
        assert_eq!(look(&config(&[]), None, Finding::unknown(REACH, "by address")).len(), 1);
    }

    #[test]
    fn the_share_of_relayed_nodes_is_told() {
        let peers = "taskmesh_net_peers{path=\"direct\"} 2\ntaskmesh_net_peers{path=\"relayed\"} 1\n";
        let found = looked(&["net.relay_use"], peers);
        assert_eq!(found[1].1, "2 of 3 nodes connected directly, 1 over relays (34 %)");
        let refused = format!("{peers}taskmesh_net_relay_requests_total{{result=\"refused\"}} 4\n");
        let found = looked(&["net.relay_use"], &refused);
        assert!(found[2].0 == Verdict::Warning && found[2].1.contains("refused 4"), "{found:?}");
        assert_eq!(looked(&[], "taskmesh_net_peers{path=\"direct\"} 2\n")[1].1, "2 nodes connected, all directly");
    }
}
