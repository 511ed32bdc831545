//! `logs`: what a task prints, from its tail while it runs to its stored log.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::{News, Node};
use super::wait::{self, Trouble};
use crate::api::client::Client;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Which.
    task_id: String,
    /// Go on until it has ended, and exit as `task wait` does: with 0 only if it completed.
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(node: &Node, args: &LogsArgs) -> Result<(), Exit> {
    let id = args.task_id.as_str();
    let mut printed = Printed::default();
    let first = node.call("task_status", json!({"task_id": id, "include_logs": true})).await?;
    if !args.follow && !wait::ended(&first) {
        return show(node, &first, first["logs"].as_str().unwrap_or_default());
    }
    if args.follow && !wait::ended(&first) {
        follow(node, id, first, &mut printed).await?;
    }
    let left = node.call("task_result", json!({"task_id": id, "include_logs": true, "include_output": false})).await?;
    let new = printed.take(left["logs"].as_str().unwrap_or_default());
    show(node, &left, &new)?;
    if args.follow { wait::verdict(id, &left) } else { Ok(()) }
}

/// Prints what is new of the tail until the task has ended.
async fn follow(node: &Node, id: &str, first: Value, printed: &mut Printed) -> Result<(), Exit> {
    let uri = Client::task_uri(id);
    // Who can't subscribe looks again and again.
    let mut news = node.news(&[&uri]).await.ok().flatten();
    let (mut trouble, mut attempt, mut status) = (Trouble::default(), 0, first);
    loop {
        let now = status["attempt"].as_u64().unwrap_or(0);
        if attempt != now {
            if attempt > 0 {
                output::note(&format!("attempt {now}: {}", status["error"].as_str().unwrap_or("it runs once more")));
                *printed = Printed::default();
            }
            attempt = now;
        }
        if wait::ended(&status) {
            return Ok(());
        }
        let new = printed.take(status["logs"].as_str().unwrap_or_default());
        if !new.is_empty() {
            show(node, &status, &new)?;
        }
        pause(&mut news).await;
        match node.call("task_status", json!({"task_id": id, "include_logs": true})).await {
            Ok(now) => (trouble, status) = (Trouble::default(), now),
            Err(exit) => trouble.bear(exit).await?,
        }
    }
}

/// Until something has changed: what is printed gives no news, so that the wait
/// is short.
async fn pause(news: &mut Option<News>) {
    let told = async {
        match news.as_mut() {
            Some(open) => open.next().await.is_ok(),
            None => std::future::pending().await,
        }
    };
    if let Ok(false) = tokio::time::timeout(LOOK, told).await {
        *news = None;
    }
}

const LOOK: Duration = Duration::from_millis(500);

fn show(node: &Node, answer: &Value, new: &str) -> Result<(), Exit> {
    match node.form {
        Form::Json => output::json_line(&json!({
            "task_id": answer["task_id"], "status": answer["status"], "attempt": answer["attempt"], "logs": new,
        })),
        Form::Human => output::raw(new),
    }
}

/// What was printed, of a log of which only the end is seen.
#[derive(Default)]
struct Printed {
    /// The end of it, without a gap.
    all: String,
}

impl Printed {
    /// What of `seen` was not printed yet. Between two looks more may have come
    /// than a tail holds: then the gap is told of.
    fn take(&mut self, seen: &str) -> String {
        let Some(new) = self.new_of(seen) else {
            self.all = seen.to_owned();
            return format!("{GAP}{seen}");
        };
        let new = new.to_owned();
        self.all.push_str(&new);
        if let Some(over) = self.all.len().checked_sub(KEPT) {
            let from = (over..self.all.len()).find(|at| self.all.is_char_boundary(*at)).unwrap_or(over);
            self.all.drain(..from);
        }
        new
    }

    /// `None`: it begins after the end of what was printed.
    fn new_of<'a>(&self, seen: &'a str) -> Option<&'a str> {
        if seen.is_empty() || self.all.is_empty() {
            return Some(seen);
        }
        // From its beginning; or a whole log of which a part was printed; or the end that moves on.
        if let Some(rest) = seen.strip_prefix(self.all.as_str()) {
            return Some(rest);
        }
        if let Some((_, rest)) = seen.rsplit_once(self.all.as_str()) {
            return Some(rest);
        }
        let known = overlap(self.all.as_bytes(), seen.as_bytes());
        seen.get(known..).filter(|_| known > 0)
    }
}

/// As much as a stored log has.
const KEPT: usize = crate::ops::result::FIELD_BYTES;
const GAP: &str = "\n… more was printed here than the tail of a running task keeps; the stored log has its end …\n";

/// The most that ends `before` and begins `after`, in time linear in both
/// (the prefix function of Knuth, Morris and Pratt, 1977). What is seen first of
/// `after` may have been cut from the middle of `before`.
fn overlap(before: &[u8], after: &[u8]) -> usize {
    let mut fits = vec![0_usize; after.len()];
    let step = |fits: &[usize], mut at: usize, byte: u8| loop {
        if after.get(at) == Some(&byte) {
            return at + 1;
        }
        if at == 0 {
            return 0;
        }
        at = fits[at - 1];
    };
    for n in 1..after.len() {
        fits[n] = step(&fits, fits[n - 1], after[n]);
    }
    before.iter().fold(0, |at, byte| if after.is_empty() { 0 } else { step(&fits, at, *byte) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_new_is_printed() {
        let mut printed = Printed::default();
        assert_eq!(printed.take(""), "");
        assert_eq!(printed.take("one\n"), "one\n");
        assert_eq!(printed.take("one\ntwo\n"), "two\n");
        assert_eq!(printed.take("one\ntwo\n"), "");
        // The tail moves on.
        assert_eq!(printed.take("two\nthree\n"), "three\n");
        // An empty look tells nothing, and forgets nothing.
        assert_eq!(printed.take(""), "");
        assert_eq!(printed.take("three\nfour\n"), "four\n");
        assert_eq!(printed.take("nine\n"), format!("{GAP}nine\n"));
        // The whole log at the end, of which a part was printed.
        assert_eq!(printed.take("five\nnine\nten\n"), "ten\n");
    }

    #[test]
    fn a_log_that_repeats_itself_is_not_cut() {
        let mut printed = Printed::default();
        assert_eq!(printed.take("tick\n"), "tick\n");
        assert_eq!(printed.take("tick\ntick\n"), "tick\n");
    }

    proptest! {
        #[test]
        fn the_overlap_is_the_longest(before in "[ab]{0,12}", after in "[ab]{0,12}") {
            let longest = (0..=after.len()).rev().find(|n| before.ends_with(&after[..*n])).unwrap_or(0);
            prop_assert_eq!(overlap(before.as_bytes(), after.as_bytes()), longest);
        }
    }
}
