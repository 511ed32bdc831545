//! What runs on the nodes: programs that take a while, fail, hang or leave
//! something behind; and the blobs that they leave.

use crate::agenda::{Event, Time};
use crate::invariants::Seen;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;
use taskmesh_core::execution::{Event as RunEvent, Verdict};
use taskmesh_core::prng::Prng;
use taskmesh_core::task::{Data, Report};
use taskmesh_core::{BlobHash, Fence, Input, Millis, Spec, TaskId};

/// A program that runs on a node.
pub(crate) struct Running {
    ticket: u32,
    ending: Ending,
    leaves: Leaves,
}

/// What a run leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// A text that names the run.
    Text,
    /// An object with that text and numbers, for later steps.
    Fields,
    /// Too much for a record.
    Blob,
}

/// How a run will end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    Verdict(Verdict),
    Never,
}

/// What a task's program does, as its payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Ends well.
    Good,
    /// Fails each time.
    Bad,
    /// Fails, and says that another attempt would fail too.
    Hopeless,
    /// Fails every other time, by chance.
    Flaky,
    /// Now and then never answers again, not even to a stop.
    Hanging,
}

impl Program {
    const ALL: [(Program, &'static str); 5] = [
        (Program::Good, "good"),
        (Program::Bad, "bad"),
        (Program::Hopeless, "hopeless"),
        (Program::Flaky, "flaky"),
        (Program::Hanging, "hanging"),
    ];

    /// A payload that asks for this program, for `cost`.
    pub(crate) fn payload(self, cost: Time, blob: bool) -> Arc<[u8]> {
        let name = self.name();
        let leaves = if blob { "blob" } else { "inline" };
        format!("\"{name} {cost} {leaves}\"").into_bytes().into()
    }

    /// What it is called in a payload.
    pub(crate) fn name(self) -> &'static str {
        Program::ALL.into_iter().find(|(p, _)| *p == self).expect("every program is listed").1
    }

    fn named(name: &str) -> Program {
        Program::ALL.into_iter().find(|(_, n)| *n == name).expect("a known program").0
    }

    /// The payload of a task is a text, that of a step an object.
    fn read(payload: &[u8]) -> (Program, Time, Leaves) {
        let payload: Value = serde_json::from_slice(payload).expect("payloads are ours");
        if let Some(text) = payload.as_str() {
            let words: Vec<_> = text.split(' ').collect();
            let leaves = if words[2] == "blob" { Leaves::Blob } else { Leaves::Text };
            return (Program::named(words[0]), words[1].parse().expect("a cost"), leaves);
        }
        let program = Program::named(payload["program"].as_str().expect("a name"));
        let leaves = if payload["leaves"] == "blob" { Leaves::Blob } else { Leaves::Fields };
        (program, payload["cost"].as_u64().expect("a cost"), leaves)
    }

    fn ending(self, prng: &mut Prng, hangs_left: u32) -> Ending {
        let failed = |retryable| Verdict::Failed { error: "the program failed".into(), retryable };
        let verdict = match self {
            Program::Good => Verdict::Completed,
            Program::Bad => failed(true),
            Program::Hopeless => failed(false),
            Program::Flaky if prng.chance(500) => failed(true),
            Program::Hanging if hangs_left > 0 && prng.chance(500) => return Ending::Never,
            Program::Flaky | Program::Hanging => Verdict::Completed,
        };
        Ending::Verdict(verdict)
    }
}

/// What a run leaves as its result: names the run, so that nobody can take one
/// run's result for another's.
pub(crate) fn result_of(task: &TaskId, fence: Fence, node: usize) -> String {
    format!("\"{task} attempt {} epoch {} on {node}\"", fence.attempt, fence.ballot.epoch)
}

impl World {
    /// A node's executor is told to run something.
    pub(crate) fn start_run(&mut self, n: usize, task: TaskId, fence: Fence, spec: Arc<Spec>) {
        self.show(Seen::Started { node: n, task: &task, fence, spec: &spec });
        self.oracle.run_started(&task, fence, n, self.now, &spec);
        self.tally.runs += 1;
        let (program, cost, leaves) = Program::read(&spec.payload);
        let mut ending = program.ending(&mut self.prng, self.faults.hangs_left);
        let mut takes = 1 + cost;
        if ending == Ending::Never {
            self.faults.hangs_left -= 1;
            self.tally.hangs += 1;
        } else if let Some(timeout) = spec.timeout.filter(|t| t.0 < cost) {
            ending = Ending::Verdict(Verdict::TimedOut { after: timeout });
            takes = timeout.0 + 1;
        }
        let (life, never) = (self.hosts[n].life, ending == Ending::Never);
        let before = self.hosts[n].runs.insert((task.clone(), fence), Running { ticket: 0, ending, leaves });
        assert!(before.is_none(), "n{n} runs {task} under {fence:?} twice at once");
        let begins = self.now + self.prng.below(20);
        if never {
            return;
        }
        let says = |event| Event::RunSays { node: n, life, task: task.clone(), fence, event };
        self.agenda.at(begins, says(RunEvent::Started));
        if cost > 1_000 {
            let half = RunEvent::Progress { percent: Some(50), message: Some("half-way".into()), log_tail: None };
            self.agenda.at(begins + cost / 2, says(half));
        }
        self.agenda.at(begins + takes, Event::RunEnds { node: n, life, task, fence, ticket: 0 });
    }

    /// A node's executor is told to end something.
    pub(crate) fn stop_run(&mut self, n: usize, task: &TaskId, fence: Fence, force: bool) {
        let host = &mut self.hosts[n];
        let life = host.life;
        // The owner in a fence may have changed since the run began.
        let found = host.runs.iter_mut().find(|((t, f), _)| t == task && f.attempt == fence.attempt);
        let Some(((_, fence), running)) = found else { return };
        let fence = *fence;
        if running.ending == Ending::Never {
            return;
        }
        running.ticket += 1;
        running.ending = Ending::Verdict(Verdict::Stopped);
        let ticket = running.ticket;
        let takes = if force { 1 + self.prng.below(10) } else { 1 + self.prng.below(500) };
        let end = Event::RunEnds { node: n, life, task: task.clone(), fence, ticket };
        self.agenda.at(self.now + takes, end);
    }

    /// A run says something, if it still runs.
    pub(crate) fn relay_run(&mut self, n: usize, life: u32, task: TaskId, fence: Fence, event: RunEvent) {
        let host = &self.hosts[n];
        if host.life == life && host.runs.contains_key(&(task.clone(), fence)) {
            self.receive(n, Input::Execution { task, fence, event });
        }
    }

    /// A run ends.
    pub(crate) fn end_run(&mut self, n: usize, life: u32, task: TaskId, fence: Fence, ticket: u32) {
        let host = &mut self.hosts[n];
        let key = (task, fence);
        if host.life != life || host.runs.get(&key).is_none_or(|r| r.ticket != ticket) {
            return;
        }
        let running = host.runs.remove(&key).expect("looked up before");
        let (task, fence) = key;
        let Ending::Verdict(verdict) = running.ending else { return };
        let text = result_of(&task, fence, n);
        let result = match running.leaves {
            Leaves::Blob => {
                let content = text.repeat(8);
                let hash = BlobHash::of(content.as_bytes());
                host.disk.blobs.insert(hash);
                Data::Blob { hash, bytes: content.len() as u64 }
            }
            Leaves::Text => Data::Inline(text.into_bytes().into()),
            Leaves::Fields => {
                let rows: Vec<u64> = (0..self.prng.below(5)).map(|_| self.prng.below(10)).collect();
                let fields = json!({"run": text, "n": self.prng.below(10), "rows": rows});
                Data::Inline(fields.to_string().into_bytes().into())
            }
        };
        let report = Report { result: result.clone(), ..Report::default() };
        self.oracle.run_ended(&task, fence, n, self.now, Some((verdict.clone(), result)));
        self.receive(n, Input::Execution { task, fence, event: RunEvent::Ended { verdict, report } });
    }

    /// Runs that never answered are gone, as after a kill by hand.
    pub(crate) fn end_hanging_runs(&mut self) {
        for n in 0..self.hosts.len() {
            let host = &mut self.hosts[n];
            let hung = host.runs.iter_mut().filter(|(_, r)| r.ending == Ending::Never);
            let keys: Vec<_> = hung
                .map(|(key, running)| {
                    running.ending = Ending::Verdict(Verdict::Stopped);
                    key.clone()
                })
                .collect();
            let life = host.life;
            for (task, fence) in keys {
                let end = Event::RunEnds { node: n, life, task, fence, ticket: 0 };
                self.agenda.at(self.now + 10, end);
            }
        }
    }

    /// Whether a run is one that never answers: its owner gives up on it.
    pub(crate) fn hangs(&self, n: usize, task: &TaskId, fence: Fence) -> bool {
        self.hosts[n].runs.get(&(task.clone(), fence)).is_some_and(|r| r.ending == Ending::Never)
    }

    /// A node wants a blob from another.
    pub(crate) fn fetch_blob(&mut self, n: usize, hash: BlobHash, from: usize) {
        let life = self.hosts[n].life;
        let at = self.now + 10 + self.prng.below(500);
        self.agenda.at(at, Event::BlobArrives { node: n, life, hash, from });
    }

    /// And gets it, if it is there and in reach.
    pub(crate) fn bring_blob(&mut self, n: usize, life: u32, hash: BlobHash, from: usize) {
        if self.hosts[n].life != life {
            return;
        }
        let source = &self.hosts[from];
        let near = from == n || self.net.connection(n, from).is_some() && self.net.reachable(n, from);
        let lost = self.prng.chance(self.net.weather.loss);
        let here = near && !lost && source.node.is_some() && source.disk.blobs.contains(&hash);
        if here {
            self.hosts[n].disk.blobs.insert(hash);
        }
        self.tally.blobs += u64::from(here);
        self.receive(n, Input::Fetched { hash, here });
    }
}

/// How long a hanging task's attempt may take before its owner gives up.
pub(crate) const HANGING_TIMEOUT: Millis = Millis(3_000);
