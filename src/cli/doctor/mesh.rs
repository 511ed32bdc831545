//! The mesh as the node and the metrics of all nodes show it. All pure.

use super::super::monitors::{Monitor, Reading};
use super::super::survey::{Member, State, Survey};
use super::super::words::{self, count};
use super::Finding;
use super::machine::room_of;
use crate::config::Config;
use crate::driver::wall_clock;
use crate::ops::value;
use crate::telemetry::process::DiskRoom;
use std::collections::BTreeMap;
use taskmesh_core::Millis;

type Monitors = BTreeMap<String, Monitor>;

pub(super) fn look(survey: &Survey, monitors: &Monitors, config: &Config) -> Vec<Finding> {
    let named = Named { survey, monitors };
    let mut findings = vec![members(survey, config), versions(survey), named.told(), named.clocks()];
    findings.extend([named.gossip(), named.copies(), named.damage(), queue(survey, &named)]);
    findings.extend(named.disks());
    findings
}

fn members(survey: &Survey, config: &Config) -> Finding {
    const CHECK: &str = "members";
    let away: Vec<_> = survey.members.iter().filter(|m| m.state == State::Away).map(|m| m.shown()).collect();
    let (all, there) = (survey.members.len(), survey.members.len() - away.len());
    let (answered, expected) = (survey.number("nodes_answered"), survey.number("nodes_expected"));
    let holders = config.mesh.holders;
    if there < holders.min(all) / 2 + 1 {
        let says = format!("{there} of {all} are there, too few to accept tasks: away are {}", away.join(", "));
        return Finding::problem(CHECK, says, "start the others; what is accepted already is kept by them too");
    }
    if !away.is_empty() {
        let next = "start them; what they owned the others have taken over";
        return Finding::warning(CHECK, format!("{there} of {all} are there; away: {}", away.join(", ")), next);
    }
    if answered < expected {
        let next = "look whether one is overloaded: `taskmesh status` shows their load";
        return Finding::warning(CHECK, format!("{answered} of {expected} answer when they are asked"), next);
    }
    match all {
        1 => Finding::ok(CHECK, "this node alone: tasks have one copy"),
        2 => Finding::ok(CHECK, "2 nodes: tasks have one copy until there are three"),
        n => Finding::ok(CHECK, format!("{n} nodes, all there")),
    }
}

fn versions(survey: &Survey) -> Finding {
    const CHECK: &str = "versions";
    match &survey.programs()[..] {
        [] => Finding::unknown(CHECK, "no node has told its version yet"),
        [(one, _)] => Finding::ok(CHECK, format!("{one} everywhere")),
        several => {
            let all: Vec<_> = several.iter().map(|(program, n)| format!("{program} on {n}")).collect();
            Finding::warning(CHECK, all.join(", "), "they work together; finish the upgrade, one node after the other")
        }
    }
}

fn queue(survey: &Survey, named: &Named<'_>) -> Finding {
    const CHECK: &str = "queue";
    if survey.stats["paused"] == true {
        let why =
            survey.stats["pause_reason"].as_str().map(|why| format!(": {}", words::line(why, 80))).unwrap_or_default();
        return Finding::warning(
            CHECK,
            format!("it is paused{why}"),
            "`taskmesh queue resume` when the reason is gone",
        );
    }
    let stuck: Vec<_> =
        named.readings("taskmesh_queue_stuck").filter(|(_, n)| *n > 0.0).map(|(name, _)| name).collect();
    if !stuck.is_empty() {
        let next = "`taskmesh status` says why tasks wait; `taskmesh task status ID --explain` says it node by node";
        return Finding::warning(
            CHECK,
            format!("tasks of {} have been ready for more than 5 minutes", stuck.join(", ")),
            next,
        );
    }
    Finding::ok(CHECK, format!("{} waiting, {} running", survey.number("queued_count"), survey.number("running_count")))
}

/// Metrics, by the names that people know the nodes by.
struct Named<'a> {
    survey: &'a Survey,
    monitors: &'a Monitors,
}

impl Named<'_> {
    fn name(&self, peer: &str) -> String {
        let member = self.survey.members.iter().find(|m| m.peer_id == peer);
        member.map_or_else(|| words::tail(peer).to_owned(), |m| m.shown())
    }

    fn read(&self) -> impl Iterator<Item = (String, &Reading)> {
        self.monitors.iter().filter_map(|(peer, monitor)| Some((self.name(peer), monitor.read.as_ref()?)))
    }

    fn readings(&self, metric: &str) -> impl Iterator<Item = (String, f64)> {
        self.read().filter_map(move |(name, reading)| Some((name, reading.value(metric)?)))
    }

    /// Whose metrics the rest is judged by.
    fn told(&self) -> Finding {
        const CHECK: &str = "metrics";
        let silent: Vec<_> = self
            .monitors
            .iter()
            .filter(|(_, m)| m.read.is_none())
            .map(|(peer, m)| format!("{} at {}", self.name(peer), m.at))
            .collect();
        let (read, all) = (self.read().count(), self.survey.members.len());
        if read >= all {
            return Finding::ok(CHECK, format!("of all {} read", count(all as u64, "node")));
        }
        let silent = if silent.is_empty() {
            "the others, which do not say where theirs are".to_owned()
        } else {
            silent.join(", ")
        };
        let next = "nothing is wrong where they listen on loopback (metrics.listen): then run this on each machine";
        Finding {
            verdict: super::Verdict::Unknown,
            ..Finding::warning(CHECK, format!("of {read} of {all} nodes read; not of {silent}"), next)
        }
    }

    fn clocks(&self) -> Finding {
        const CHECK: &str = "clock";
        // By how much it is off at least.
        let off = |(name, reading): (String, &Reading)| {
            let (ahead, unsure) = reading.ahead?;
            Some((ahead.abs() - unsure, ahead, name))
        };
        let others = self.read().filter_map(off);
        let Some((least, ahead, name)) = others.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            return Finding::unknown(CHECK, "no other node was read");
        };
        let way = if ahead > 0.0 { "ahead of" } else { "behind" };
        let says = format!("that of {name} is {} {way} this one", words::span(ahead.abs()));
        let next = "let both follow one time source (chrony, systemd-timesyncd): deadlines and schedules go by it";
        match least {
            off if off > 10.0 => Finding::problem(CHECK, says, next),
            off if off > 1.0 => Finding::warning(CHECK, says, next),
            _ => {
                Finding::ok(CHECK, "those of the nodes that were read differ by less than can be measured (about 1 s)")
            }
        }
    }

    fn gossip(&self) -> Finding {
        const CHECK: &str = "gossip";
        let mended = |(name, reading): (String, &Reading)| {
            let times = reading.value("taskmesh_net_connections_mended_total")?;
            let (now, start) =
                (std::time::UNIX_EPOCH.elapsed().ok()?.as_secs_f64(), reading.value("process_start_time_seconds")?);
            let hours = ((now - start) / 3_600.0).max(1.0);
            Some((times / hours, times, name))
        };
        let Some((rate, times, name)) = self.read().filter_map(mended).max_by(|a, b| a.0.total_cmp(&b.0)) else {
            return Finding::unknown(CHECK, "no node's metrics were read");
        };
        if rate > MENDED_AN_HOUR {
            let says = format!(
                "{name} has mended {times:.0} connections since it started, {rate:.0} an hour: gossip was one-sided"
            );
            return Finding::warning(
                CHECK,
                says,
                "look for packet loss between the nodes, or restarts again and again",
            );
        }
        Finding::ok(CHECK, "goes both ways")
    }

    fn copies(&self) -> Finding {
        const CHECK: &str = "copies";
        let short: Vec<_> = self.readings("taskmesh_tasks_short_of_copies").collect();
        let all: f64 = short.iter().map(|(_, n)| n).sum();
        match (short.len(), all) {
            (0, _) => Finding::unknown(CHECK, "no node's metrics were read"),
            (_, n) if n > 0.0 => {
                let owners: Vec<_> =
                    short.iter().filter(|(_, n)| *n > 0.0).map(|(name, n)| format!("{n:.0} of {name}")).collect();
                let says =
                    format!("{} have fewer holders than they should: {}", count(n as u64, "task"), owners.join(", "));
                let passes =
                    "it passes by itself after mesh.away_ms if there are nodes enough: start those that are away";
                match self.long_gone()[..] {
                    [] => Finding::warning(CHECK, says, passes),
                    ref gone => {
                        let says = format!("{says}; not heard for long: {}", gone.join(", "));
                        let next = format!(
                            "start them; where disks are destroyed, and tasks hang since most of their holders were there, \
                             `taskmesh forget {}`: read first what that breaks (docs/operate.md)",
                            gone.join(" ")
                        );
                        Finding::warning(CHECK, says, next)
                    }
                }
            }
            (_, _) => Finding::ok(CHECK, "every task has as many holders as it should"),
        }
    }

    /// Nodes of which nothing was heard for so long that they may be gone for ever.
    fn long_gone(&self) -> Vec<String> {
        let now = wall_clock();
        let silent = |m: &&Member| {
            let seen = m.last_seen.as_str().and_then(|text| value::read_time("last_seen", text).ok());
            m.state == State::Away && seen.is_none_or(|seen| now.since(seen) > LONG)
        };
        self.survey.members.iter().filter(silent).map(|m| m.shown()).collect()
    }

    fn damage(&self) -> Finding {
        const CHECK: &str = "records";
        let sum = |metric: &str| self.readings(metric).map(|(_, n)| n).sum::<f64>();
        let (damaged, repaired) = (sum("taskmesh_records_damaged_total"), sum("taskmesh_records_repaired_total"));
        match damaged {
            n if n > repaired => {
                let says = format!("{} damaged on a disk, {repaired:.0} of them repaired", count(n as u64, "copy"));
                Finding::warning(CHECK, says, "the log of the node names them; check its disk (`smartctl`, `dmesg`)")
            }
            n if n > 0.0 => Finding::ok(CHECK, format!("{n:.0} were damaged on a disk, and all are repaired")),
            _ => Finding::ok(CHECK, "none was found damaged"),
        }
    }

    /// The disks of other nodes that have little room.
    fn disks(&self) -> Vec<Finding> {
        let others = self.monitors.iter().filter(|(_, monitor)| monitor.state != "self");
        let room = |(peer, monitor): (&String, &Monitor)| {
            let value = |name: &str| monitor.read.as_ref()?.value(name).map(|bytes| bytes as u64);
            let room = DiskRoom {
                free: value("taskmesh_store_disk_free_bytes")?,
                size: value("taskmesh_store_disk_size_bytes")?,
            };
            let found = room_of(room);
            (found.verdict > super::Verdict::Ok)
                .then(|| Finding { says: format!("{}: {}", self.name(peer), found.says), ..found })
        };
        others.filter_map(room).collect()
    }
}

/// A restart of a peer mends one; more than this is no accident.
const MENDED_AN_HOUR: f64 = 20.0;
/// A node that restarts is back before.
const LONG: Millis = Millis(10 * 60_000);

#[cfg(test)]
mod tests {
    use super::super::super::survey::tests::survey;
    use super::super::Verdict;
    use super::*;
    use crate::config::Inputs;

    fn config() -> Config {
        let folder = ("--data-dir".to_owned(), "node.data_dir".to_owned(), "/d".to_owned());
        Config::load(&Inputs { flags: vec![folder], ..Inputs::default() }).expect("the defaults")
    }

    fn healthy() -> Survey {
        let mut survey = survey();
        for member in &mut survey.members {
            member.state = State::Up;
            member.program = Some("taskmesh/0.1.0".to_owned());
        }
        survey.stats["nodes_answered"] = 3.into();
        survey
    }

    fn monitors(text: &str, ahead: f64) -> Monitors {
        let reading = Reading { ahead: Some((ahead, 0.6)), ..Reading::parse(text) };
        let of = |peer: &str| (peer.to_owned(), Monitor { read: Some(reading.clone()), ..Monitor::default() });
        ["peer-aaaa1111", "peer-bbbb2222", "peer-cccc3333"].map(of).into()
    }

    const WELL: &str = "taskmesh_tasks_short_of_copies 0\ntaskmesh_net_connections_mended_total 1\nprocess_start_time_seconds 1e9\n\
        taskmesh_queue_stuck 0\ntaskmesh_store_disk_free_bytes 9e10\ntaskmesh_store_disk_size_bytes 1e11\n";

    fn verdict(findings: &[Finding], check: &str) -> (Verdict, String) {
        let found = findings.iter().find(|f| f.check == check).unwrap_or_else(|| panic!("{check} in {findings:?}"));
        (found.verdict, found.says.clone())
    }

    #[test]
    fn a_mesh_that_is_well_has_nothing_but_ok() {
        let findings = look(&healthy(), &monitors(WELL, 0.3), &config());
        assert!(findings.iter().all(|f| f.verdict == Verdict::Ok), "{findings:#?}");
        assert_eq!(findings.len(), 8);
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let config = config();
        let found = look(&survey(), &monitors(WELL, 0.0), &config);
        let (members, says) = verdict(&found, "members");
        assert!(members == Verdict::Warning && says.contains("away: cccc3333"), "{says}");
        assert_eq!(verdict(&found, "versions").0, Verdict::Warning);
        let mut lonely = healthy();
        lonely.members[1].state = State::Away;
        lonely.members[2].state = State::Away;
        assert_eq!(verdict(&look(&lonely, &monitors(WELL, 0.0), &config), "members").0, Verdict::Problem);
        let ill = WELL
            .replace("copies 0", "copies 2")
            .replace("mended_total 1", "mended_total 1e9")
            .replace("stuck 0", "stuck 1");
        let ill = format!("{}taskmesh_records_damaged_total 3\n", ill.replace("free_bytes 9e10", "free_bytes 1e6"));
        let found = look(&healthy(), &monitors(&ill, 30.0), &config);
        for (check, wanted, part) in [
            ("copies", Verdict::Warning, "6 tasks have fewer holders than they should: 2 of alpha"),
            ("gossip", Verdict::Warning, "one-sided"),
            ("queue", Verdict::Warning, "tasks of alpha, beta, cccc3333"),
            ("records", Verdict::Warning, "9 copies damaged"),
            ("clock", Verdict::Problem, "ahead of this one"),
            ("disk room", Verdict::Problem, "alpha: 976.6 KiB".trim_end()),
        ] {
            let (verdict, says) = verdict(&found, check);
            assert!(
                verdict == wanted && says.contains(part.split(':').next().unwrap_or(part)),
                "{check}: {verdict:?} {says}"
            );
        }
        let mut gone = healthy();
        gone.members[2].state = State::Away;
        gone.members[2].last_seen = "2020-01-01T00:00:00Z".into();
        let found = look(&gone, &monitors(&WELL.replace("copies 0", "copies 2"), 0.0), &config);
        let copies = found.iter().find(|f| f.check == "copies").expect("it is looked at");
        assert!(copies.next.as_deref().is_some_and(|next| next.contains("taskmesh forget cccc3333")), "{copies:?}");
        assert_eq!(verdict(&look(&healthy(), &monitors(WELL, -3.0), &config), "clock").0, Verdict::Warning);
    }

    #[test]
    fn without_metrics_nothing_is_claimed() {
        let found = look(&healthy(), &Monitors::new(), &config());
        for check in ["metrics", "clock", "gossip", "copies"] {
            assert_eq!(verdict(&found, check).0, Verdict::Unknown, "{check}");
        }
    }
}
