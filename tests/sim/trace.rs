//! What a run leaves to compare and to read: a digest of its effects, and,
//! with `SIM_TRACE=1`, every input and effect (of the task `SIM_TASK`, if set).

use crate::agenda::Time;
use std::fmt::{Debug, Write};
use taskmesh_core::Effect;
use taskmesh_core::prng::mix;

/// How exactly a run is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digest {
    /// Times, nodes and numbers of effects: cheap.
    Outline,
    /// Every effect in full.
    Full,
}

/// Sums up and prints.
pub(crate) struct Trace {
    digest: Digest,
    printing: bool,
    task: Option<String>,
}

impl Trace {
    /// Prints what the environment asks for.
    pub(crate) fn from_env(digest: Digest) -> Trace {
        let printing = std::env::var("SIM_TRACE").is_ok_and(|v| v == "1");
        let task = std::env::var("SIM_TASK").ok().filter(|t| !t.is_empty());
        Trace { digest, printing, task }
    }

    /// Shows an input.
    pub(crate) fn input(&self, now: Time, node: usize, input: &impl Debug) {
        if self.printing {
            self.print(now, node, "<-", input);
        }
    }

    /// Shows a batch of effects and adds it to `sum`.
    pub(crate) fn effects(&self, sum: u64, now: Time, node: usize, effects: &[Effect]) -> u64 {
        if self.printing {
            effects.iter().for_each(|effect| self.print(now, node, "->", effect));
        }
        let mut sum = Sum(mix(sum ^ now.rotate_left(32) ^ (node as u64).rotate_left(16) ^ effects.len() as u64));
        if self.digest == Digest::Full {
            write!(sum, "{effects:?}").expect("a sum takes everything");
        }
        sum.0
    }

    fn print(&self, now: Time, node: usize, arrow: &str, what: &impl Debug) {
        let text = format!("{what:?}");
        let wanted = self.task.as_ref().is_none_or(|task| mentions(&text, task));
        if wanted {
            println!("{now:>8} n{node:<3} {arrow} {text}");
        }
    }
}

/// Whether `text` has `task` as a whole word.
fn mentions(text: &str, task: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '/';
    text.match_indices(task).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + task.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

struct Sum(u64);

impl Write for Sum {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for part in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = mix(self.0.wrapping_add(u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        Ok(())
    }
}
