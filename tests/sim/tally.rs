//! Counts of one run, summed over seeds for the table of `docs/reliability.md`.

use crate::agenda::Time;

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident: $label:expr,)*) => {
        /// Counts.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Tally {
            $($(#[$doc])* pub(crate) $field: u64,)*
        }

        impl Tally {
            /// Adds the counts of another run.
            pub(crate) fn add(&mut self, other: &Tally) {
                $(self.$field += other.$field;)*
            }

            /// Names and counts, in the order of the table.
            pub(crate) fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$field),)*]
            }
        }
    };
}

tally! {
    /// Runs of the simulator.
    seeds: "seeds",
    /// Simulated time, in ms.
    simulated: "simulated time (ms)",
    /// Steps of the world.
    events: "events",
    /// Rounds of nodes.
    turns: "rounds of nodes",
    /// Direct messages.
    sent: "messages sent",
    /// Gossiped messages, once for each receiver.
    gossiped: "gossip deliveries",
    /// Of both.
    lost_messages: "messages lost",
    /// Direct ones that came twice.
    doubled_messages: "messages doubled",
    /// Partitions both ways.
    partitions: "two-way partitions",
    /// Partitions one way.
    one_way: "one-way partitions",
    /// Single links cut one way.
    severed: "single links cut",
    /// Nodes started for the first time.
    born: "nodes started",
    /// Deaths in the middle of a batch's writes.
    crashes_writing: "crashes during a commit",
    /// Deaths after the writes, before all was said.
    crashes_speaking: "crashes after a commit",
    /// All nodes at once.
    blackouts: "blackouts of the whole mesh",
    /// Nodes that came back.
    restarts: "restarts",
    /// Disks lost for ever.
    destroyed: "disks lost for ever",
    /// Most holders of a record at once.
    ravages: "majorities of holders lost for ever",
    /// Tasks of which nothing was left then.
    ravaged: "tasks of which no holder was left",
    /// Copies damaged.
    damaged: "copies damaged",
    /// And made whole.
    repaired: "copies repaired",
    /// Nodes that answered late for a while.
    slowed: "nodes slowed",
    /// Nodes whose clock runs at 0.4 to 2.5 times.
    skewed: "nodes with a skewed clock",
    /// Wall clocks set.
    clock_jumps: "jumps of a wall clock",
    /// Nodes stopped in good order.
    drains: "drains",
    /// Runs that never answered.
    hangs: "runs that never answered",
    /// Failed attempts tried again.
    attempts_retried: "attempts retried",
    /// Attempts lost with their nodes.
    leases_lost: "leases lost",
    /// Owners replaced.
    adoptions: "owners replaced",
    /// Changes of holders.
    rehomed: "changes of holders",
    /// Pauses of the queue.
    pauses: "pauses of the queue",
    /// Queues cleared.
    clears: "queues cleared",
    /// Answers to clients.
    answers: "answers to clients",
    /// Of which refusals.
    refused: "refusals",
    /// Submissions (with repeated ones).
    submitted: "submissions",
    /// Tasks accepted.
    accepted: "tasks accepted",
    /// Workflows submitted.
    workflows: "workflows submitted",
    /// Steps born.
    steps: "steps begun",
    /// Large arrays submitted.
    arrays: "large arrays submitted",
    /// Items born.
    items: "items of them begun",
    /// Answers to steps that wait for a person.
    approvals: "approvals given or refused",
    /// Submissions answered as before.
    replayed: "submissions replayed",
    /// Tasks cancelled at once.
    cancelled: "tasks cancelled",
    /// Tasks with a decided outcome.
    closed: "tasks closed",
    /// Runs of programs.
    runs: "runs of programs",
    /// Tasks that took the result of another.
    taken: "results of earlier tasks taken",
    /// Blobs brought to holders.
    blobs: "blobs copied",
    /// Accepted and never closed.
    lost: "accepted tasks lost",
    /// Told two outcomes.
    conflicting: "tasks with two outcomes",
    /// One id, two tasks.
    double_accepted: "tasks accepted twice",
}

impl Tally {
    /// Simulated hours.
    pub(crate) fn hours(&self) -> f64 {
        self.simulated as f64 / 3_600_000.0
    }

    /// The table, as Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("| what | count |\n|---|---:|\n| simulated hours | {:.1} |\n", self.hours());
        for (label, count) in self.rows().into_iter().filter(|(label, _)| !label.ends_with("(ms)")) {
            text.push_str(&format!("| {label} | {} |\n", grouped(count)));
        }
        text
    }

    /// Adds the end of a run.
    pub(crate) fn close(&mut self, now: Time) {
        self.seeds += 1;
        self.simulated += now;
    }
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
