//! `top`: a live view on a terminal. [`state`] is what it knows and what keys
//! mean, [`draw`] is how that looks; here is the terminal itself.

mod draw;
mod state;

use super::events::{RESOURCES, changed};
use super::exit::Exit;
use super::output;
use super::reach::Node;
use super::survey::{Survey, list};
use crate::driver::wall_clock;
use clap::Args;
use futures::StreamExt as _;
use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::FuturesUnordered;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::{Value, json};
use state::{App, Data, Message, Wish};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds between two looks, where nothing is told before.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    every: u64,
}

/// Stays until it is told to end.
pub(super) async fn run(node: &Node, args: &TopArgs) -> Result<(), Exit> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Exit::usage("top needs a terminal; `taskmesh status` prints the same once"));
    }
    // Whoever can't be asked says so before the screen is taken.
    let first = look(node).await?;
    let trouble = |e: std::io::Error| Exit::internal(format!("the terminal: {e}"));
    let mut terminal = Screen(ratatui::try_init().map_err(trouble)?);
    let (mut keys, _typing) = typing();
    let mut end = signal(SignalKind::terminate()).map_err(trouble)?;
    let mut app = App::default();
    app.update(Message::Data(Box::new(first)));
    let mut jobs: FuturesUnordered<LocalBoxFuture<'_, Message>> = FuturesUnordered::new();
    let every = Duration::from_secs(args.every);
    jobs.push(next(node, every).boxed_local());
    loop {
        terminal.0.draw(|frame| draw::draw(&mut app, frame)).map_err(trouble)?;
        let message = tokio::select! {
            Some(message) = keys.recv() => message,
            Some(message) = jobs.next() => message,
            _ = end.recv() => return Ok(()),
        };
        if matches!(message, Message::Data(_) | Message::Failed(_)) {
            jobs.push(next(node, every).boxed_local());
        }
        match app.update(message) {
            Wish::Nothing => {}
            Wish::Quit => return Ok(()),
            Wish::Cancel(task) => jobs.push(cancel(node, task).boxed_local()),
        }
    }
}

/// The terminal as it was, however this ends; a panic restores it too, by the
/// hook that `try_init` sets.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = ratatui::try_restore() {
            output::note(&format!("the terminal could not be restored: {error}; `reset` does it"));
        }
    }
}

/// Ends the thread that reads keys.
struct Typing(Arc<AtomicBool>);

impl Drop for Typing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is typed, read on a thread of its own: a read of a terminal waits.
fn typing() -> (mpsc::UnboundedReceiver<Message>, Typing) {
    let (tell, keys) = mpsc::unbounded_channel();
    let typing = Typing(Arc::default());
    let over = typing.0.clone();
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let message = match event::poll(TYPED)
                .and_then(|there| if there { event::read().map(Some) } else { Ok(None) })
            {
                Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => Message::Key(key.code, key.modifiers),
                Ok(Some(Event::Resize(..))) => Message::Redraw,
                Ok(_) => continue,
                // The terminal is gone, and so is who looked at it.
                Err(_) => Message::Gone,
            };
            let gone = matches!(message, Message::Gone);
            if tell.send(message).is_err() || gone {
                return;
            }
        }
    });
    (keys, typing)
}

const TYPED: Duration = Duration::from_millis(100);

/// The next look: when the node tells of a change, but not at once, and after
/// `every` at the latest.
async fn next(node: &Node, every: Duration) -> Message {
    tokio::time::sleep(SOON.min(every)).await;
    let told = async {
        let mut news = node.news(&RESOURCES).await.ok().flatten();
        // The first of each comes without a change.
        for _ in 0..=RESOURCES.len() {
            changed(&mut news).await;
        }
    };
    let _ = tokio::time::timeout(every.saturating_sub(SOON), told).await;
    match look(node).await {
        Ok(data) => Message::Data(Box::new(data)),
        Err(exit) => Message::Failed(exit.to_string()),
    }
}

const SOON: Duration = Duration::from_millis(500);

async fn look(node: &Node) -> Result<Data, Exit> {
    let survey = Survey::ask(node);
    let tasks =
        |status: &'static str, limit: u32| node.call("task_list", json!({"status_filter": status, "limit": limit}));
    let (survey, running, leased, queued) =
        futures::join!(survey, tasks("running", RUNNING), tasks("leased", RUNNING), tasks("queued", QUEUED));
    let (running, leased, queued) = (running?, leased?, queued?);
    let all = [&running, &leased, &queued];
    let total = all.iter().filter_map(|page| page["total_count"].as_u64()).sum();
    let tasks: Vec<Value> = all.iter().flat_map(|page| list(&page["tasks"])).cloned().collect();
    Ok(Data { survey: survey?, tasks, total, now: wall_clock() })
}

/// Of a list that is longer, the rest is counted.
const RUNNING: u32 = 500;
const QUEUED: u32 = 200;

async fn cancel(node: &Node, task: String) -> Message {
    let done = node.call("task_cancel", json!({"task_id": task, "reason": "cancelled in taskmesh top"})).await;
    Message::Told(match done {
        Ok(answer) if answer["cleanup_required"] == true => format!("{task} is asked to stop"),
        Ok(_) => format!("{task} is cancelled"),
        Err(exit) => format!("{task} is not cancelled: {exit}"),
    })
}
