//! `/healthz` and `/readyz`: may this node be left alone, and may it be given
//! work. Pure functions; the face that serves them asks the driver first.

use std::time::Duration;
use taskmesh_core::forgotten::FRESH_START;

/// What health is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Since the loop last came round.
    pub since_loop: Duration,
    /// Members heard within the lease, this node included.
    pub live: usize,
    /// Copies that a task gets in a mesh of this size.
    pub holders: usize,
    /// It takes no new work.
    pub draining: bool,
    /// Its mesh has forgotten it.
    pub outcast: bool,
}

/// `/healthz`: 200 while the loop turns, else 503. A supervisor should restart
/// a node that stays at 503; other nodes' faults never show here.
#[must_use]
pub fn healthz(vitals: &Vitals) -> (u16, String) {
    if vitals.since_loop <= HUNG_AFTER {
        return (200, "ok\n".into());
    }
    (503, format!("not ok\n- {}\n", late(vitals.since_loop, HUNG_AFTER)))
}

/// `/readyz`: 200 while the node may be given work, else 503 with every reason
/// on a line of its own.
#[must_use]
pub fn readyz(vitals: &Vitals) -> (u16, String) {
    let mut reasons = Vec::new();
    if vitals.since_loop > LATE_AFTER {
        reasons.push(late(vitals.since_loop, LATE_AFTER));
    }
    // A majority accepts tasks; with one node of three gone the others serve on.
    if vitals.live * 2 <= vitals.holders {
        let (live, holders) = (vitals.live, vitals.holders);
        reasons.push(format!("{live} of the {holders} nodes that must keep a task can be reached, this one included"));
    }
    if vitals.draining {
        reasons.push("the node is draining: it is about to stop".into());
    }
    if vitals.outcast {
        reasons.push(format!("its mesh has forgotten this node: {FRESH_START}"));
    }
    if reasons.is_empty() {
        return (200, "ready\n".into());
    }
    (503, format!("not ready\n- {}\n", reasons.join("\n- ")))
}

fn late(since: Duration, limit: Duration) -> String {
    let (since, limit) = (since.as_secs_f64(), limit.as_secs());
    format!("the loop last came round {since:.1} s ago, and should within {limit} s")
}

/// A loop that turns at least once a beat is late by then.
const LATE_AFTER: Duration = Duration::from_secs(5);
/// A disk may stall for some seconds; after this long its holders have taken
/// over, and a restart costs nothing more.
const HUNG_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Vitals =
        Vitals { since_loop: Duration::from_millis(300), live: 3, holders: 3, draining: false, outcast: false };

    #[test]
    fn a_node_that_is_well_is_ready() {
        assert_eq!(healthz(&WELL), (200, "ok\n".into()));
        assert_eq!(readyz(&WELL), (200, "ready\n".into()));
        let alone = Vitals { live: 1, holders: 1, ..WELL };
        assert_eq!(readyz(&alone).0, 200);
    }

    #[test]
    fn every_reason_is_listed() {
        let ill =
            Vitals { since_loop: Duration::from_millis(7_250), live: 1, holders: 3, draining: true, outcast: false };
        let expected = "not ready\n\
            - the loop last came round 7.2 s ago, and should within 5 s\n\
            - 1 of the 3 nodes that must keep a task can be reached, this one included\n\
            - the node is draining: it is about to stop\n";
        assert_eq!(readyz(&ill), (503, expected.into()));
        assert_eq!(healthz(&ill).0, 200);
        let (status, body) = readyz(&Vitals { outcast: true, ..WELL });
        assert!(status == 503 && body.contains("fresh"), "{body}");
    }

    #[test]
    fn a_loop_that_hangs_is_not_healthy() {
        let hung = Vitals { since_loop: Duration::from_secs(31), ..WELL };
        let (status, body) = healthz(&hung);
        assert_eq!(
            (status, body.as_str()),
            (503, "not ok\n- the loop last came round 31.0 s ago, and should within 30 s\n")
        );
    }
}
