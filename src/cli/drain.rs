//! `drain`: a node takes no more work, and what it still runs is watched.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::survey::{Member, Survey};
use super::wait::Trouble;
use super::words::{self, count};
use crate::ops::Code;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// By its name, its peer id, or the end of that: see `taskmesh members`.
    #[arg(value_name = "NODE")]
    node: String,
    /// Stay until nothing runs there any more, and show what does.
    #[arg(long)]
    wait: bool,
    /// Seconds until what still runs is handed back, to be run elsewhere.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,
}

pub(super) async fn run(node: &Node, args: &DrainArgs) -> Result<(), Exit> {
    let survey = Survey::ask(node).await?;
    let member = survey.find(&args.node)?;
    let workers: Vec<String> =
        member.workers.iter().filter_map(|w| w["worker_id"].as_str().map(str::to_owned)).collect();
    if workers.is_empty() {
        return told(node, member, &workers, "has no worker: it takes no work");
    }
    let asked = workers.iter().map(|worker| ask(node, worker, args.grace));
    futures::future::try_join_all(asked).await?;
    let left = left(node, member).await?;
    if left.is_empty() {
        return told(node, member, &workers, "takes no more work, and runs nothing");
    }
    if !args.wait {
        show(&left);
        let text = format!(
            "takes no more work; still running there: {} (--wait stays until nothing is)",
            count(left.len() as u64, "task")
        );
        return told(node, member, &workers, &text);
    }
    watch(node, member, args.grace).await?;
    told(node, member, &workers, "takes no more work, and runs nothing")
}

/// Tells one worker to drain, and waits no longer than until it does: the answer
/// itself comes when it is empty.
async fn ask(node: &Node, worker: &str, grace: u64) -> Result<(), Exit> {
    let arguments = json!({"worker_id": worker, "graceful": true, "timeout": grace});
    let unregistered = node.call("worker_unregister", arguments);
    let draining = async {
        loop {
            sleep(LOOK).await;
            let seen = node.call("worker_status", json!({"worker_id": worker})).await;
            if seen.is_ok_and(|seen| seen["status"] == "draining") {
                return;
            }
        }
    };
    tokio::select! {
        answer = unregistered => match answer {
            // Drained before, or by somebody else at the same time.
            Err(exit) if exit.is(Code::NotFound) => Ok(()),
            answer => answer.map(drop),
        },
        () = draining => Ok(()),
    }
}

/// The tasks that the node's workers have, by worker.
async fn left(node: &Node, member: &Member) -> Result<BTreeSet<String>, Exit> {
    let mut tasks = BTreeSet::new();
    for worker in member.workers.iter().filter_map(|w| w["worker_id"].as_str()) {
        match node.call("worker_status", json!({"worker_id": worker, "include_tasks": true})).await {
            Ok(seen) => {
                let own = seen["tasks"].as_array().into_iter().flatten().filter_map(Value::as_str);
                tasks.extend(own.map(|task| format!("{task} on {worker}")));
            }
            Err(exit) if exit.is(Code::NotFound) => {}
            Err(exit) => return Err(exit),
        }
    }
    Ok(tasks)
}

/// Shows what still runs, as it becomes less, until nothing does.
async fn watch(node: &Node, member: &Member, grace: u64) -> Result<(), Exit> {
    let until = Instant::now() + Duration::from_secs(grace) + MARGIN;
    let (mut shown, mut trouble) = (BTreeSet::new(), Trouble::default());
    loop {
        match left(node, member).await {
            Ok(left) if left.is_empty() => return Ok(()),
            Ok(left) => {
                trouble = Trouble::default();
                if left != shown {
                    show(&left);
                    shown = left;
                }
            }
            Err(exit) => trouble.bear(exit).await?,
        }
        if Instant::now() > until {
            let text = format!(
                "{} still runs {} after the grace: is it there? `taskmesh members` shows it",
                member.shown(),
                shown.len()
            );
            return Err(Exit::with(Code::DeadlineExceeded, text));
        }
        sleep(LOOK).await;
    }
}

fn show(left: &BTreeSet<String>) {
    let some: Vec<String> = left.iter().take(SHOWN).map(|task| words::line(task, 80)).collect();
    let more = if left.len() > SHOWN { format!(", and {} more", left.len() - SHOWN) } else { String::new() };
    output::note(&format!("still running: {}{more}", some.join(", ")));
}

/// The last word, and what comes next.
fn told(node: &Node, member: &Member, workers: &[String], how: &str) -> Result<(), Exit> {
    let next = "stop it with SIGTERM (`systemctl stop taskmesh`): it hands on what it owns. It takes work again once it is \
                restarted, or with `taskmesh worker register` there";
    match node.form {
        Form::Json => output::json(&json!({
            "peer_id": member.peer_id, "name": member.name, "workers": workers, "state": how, "next": next,
        })),
        Form::Human => {
            output::raw(&format!("{} {how}\n", member.shown())).map(|()| output::note(&format!("next: {next}")))
        }
    }
}

const LOOK: Duration = Duration::from_millis(250);
/// Beyond the grace: programs are given time to end, and the word of it to come.
const MARGIN: Duration = Duration::from_secs(30);
/// Tasks that are named on one line.
const SHOWN: usize = 8;
