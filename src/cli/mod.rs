//! The command line: a client of the facade, except for `up`, which is a node.
//!
//! Every operation has one command of the same name and parameters; they are
//! made of the same structs. Answers go to standard output, as tables or with
//! `--json` as the operation's own object; everything else goes to standard
//! error. The exit status says what happened: see [`exit`].

pub mod exit;
pub mod node;
pub mod output;
pub mod reach;
pub mod reference;
pub mod run;

mod archive;
mod audit;
mod cache;
mod dashboard;
mod doctor;
mod door;
mod drain;
mod events;
mod follow;
mod forget;
mod health;
mod join;
mod layers;
mod logs;
mod monitor;
mod monitors;
mod settings;
mod source;
mod status;
mod submit;
mod supervisor;
mod survey;
mod template;
mod token;
mod top;
mod tree;
mod wait;
mod words;
mod workflow;

#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod tests;

use crate::config::{Config, Inputs};
use clap::Parser;
use exit::Exit;
use output::Form;
use reach::Node;
use serde_json::Value;
use std::process::ExitCode;
use token::TokenCommand;
pub use tree::Cli;
use tree::{Command, Global, PeerCommand, QueueCommand, TaskCommand, UpArgs, WorkerCommand};

/// Runs the program with this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let form = Form::of(cli.global.json);
    let done = run(cli);
    if let Err(exit) = &done {
        output::failure(form, exit);
    }
    ExitCode::from(done.err().map_or(0, |exit| exit.status()))
}

fn run(cli: Cli) -> Result<(), Exit> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(args) => up(&global, &args),
        Command::Config(args) => settings::run(&global, &args),
        Command::Completions { shell } => output::raw(&reference::completions(shell)),
        Command::Man { dir } => reference::man(dir.as_deref()),
        Command::Mcp(args) => on_runtime(&global, async |node| node.bridge(&args.toolsets, args.read_only).await),
        Command::Interface => interface(Form::of(global.json)),
        Command::Token(TokenCommand::Attenuate(args)) => token::attenuate(Form::of(global.json), &args),
        Command::Token(TokenCommand::Inspect { token }) => {
            let folder = load(&global, &[])?.node.data_dir;
            token::inspect(Form::of(global.json), &token, &folder.join(crate::store::identity::MESH_FILE))
        }
        Command::Token(command) => on_runtime(&global, async |node| token::run(&node, &command).await),
        Command::Cache(command) => on_runtime(&global, async |node| cache::run(&node, &command).await),
        Command::Audit(args) => audit::run(Form::of(global.json), &load(&global, &[])?.node.data_dir, &args),
        Command::Health(args) => {
            let folder = load(&global, &[])?.node.data_dir;
            on_small_runtime(health::run(Form::of(global.json), &folder, &args))
        }
        Command::Dashboard(args) => {
            let given = global.token.clone();
            on_runtime(&global, async |node| dashboard::run(&node, given.as_deref(), &args).await)
        }
        Command::Status => on_runtime(&global, async |node| status::status(&node).await),
        Command::Members => on_runtime(&global, async |node| status::members(&node).await),
        Command::Top(args) => on_runtime(&global, async |node| top::run(&node, &args).await),
        Command::Logs(args) => on_runtime(&global, async |node| logs::run(&node, &args).await),
        Command::Events(args) => on_runtime(&global, async |node| events::run(&node, &args).await),
        Command::Drain(args) => on_runtime(&global, async |node| drain::run(&node, &args).await),
        Command::Forget(args) => on_runtime(&global, async |node| forget::run(&node, &args).await),
        Command::Doctor => on_small_runtime(doctor::run(&global)),
        Command::Export(args) => on_runtime(&global, async |node| archive::export(&node, &args).await),
        Command::Import(args) => on_runtime(&global, async |node| archive::import(&node, &args).await),
        Command::Join(args) => join::run(&global, &args),
        Command::Invite => on_runtime(&global, async |node| invite(&node)),
        Command::Submit(args) => on_runtime(&global, async |node| submit::run(&node, &args).await),
        Command::Task(TaskCommand::Wait(args)) => on_runtime(&global, async |node| wait::run(&node, &args).await),
        Command::Task(command) => one_call(&global, task_call(&command)?),
        Command::Queue(command) => one_call(&global, queue_call(&command)?),
        Command::Worker(command) => one_call(&global, worker_call(&command)?),
        Command::Workflow(command) => workflow::run(&global, &command),
        Command::Peer(command) => one_call(&global, peer_call(&command)?),
    }
}

/// An operation's name and its arguments.
type Call = (&'static str, Value);

fn call<O: crate::ops::Op>(operation: &O) -> Result<Call, Exit> {
    let arguments = serde_json::to_value(operation).map_err(|e| Exit::usage(format!("{}: {e}", O::NAME)))?;
    Ok((O::NAME, arguments))
}

fn task_call(command: &TaskCommand) -> Result<Call, Exit> {
    match command {
        TaskCommand::Submit(op) => call(&**op),
        TaskCommand::Status(op) => call(op),
        TaskCommand::Cancel(op) => call(op),
        TaskCommand::List(op) => call(op),
        TaskCommand::Priority(op) => call(op),
        TaskCommand::Result(op) => call(op),
        TaskCommand::Retry(op) => call(op),
        TaskCommand::Wait(_) => Err(Exit::usage("task wait is no operation of the facade".to_owned())),
    }
}

fn queue_call(command: &QueueCommand) -> Result<Call, Exit> {
    match command {
        QueueCommand::Stats(op) => call(op),
        QueueCommand::Pause(op) => call(op),
        QueueCommand::Resume(op) => call(op),
        QueueCommand::Clear(op) => call(op),
        QueueCommand::Retry(op) => call(op),
    }
}

fn worker_call(command: &WorkerCommand) -> Result<Call, Exit> {
    match command {
        WorkerCommand::Register(op) => call(op),
        WorkerCommand::Unregister(op) => call(op),
        WorkerCommand::Status(op) => call(op),
    }
}

fn peer_call(command: &PeerCommand) -> Result<Call, Exit> {
    match command {
        PeerCommand::Discover(op) => call(op),
        PeerCommand::Connect(op) => call(op),
        PeerCommand::Disconnect(op) => call(op),
        PeerCommand::List(op) => call(op),
        PeerCommand::Metrics(op) => call(op),
        PeerCommand::Bootstrap(op) => call(op),
    }
}

/// Asks the node once and shows the answer.
fn one_call(global: &Global, (name, arguments): Call) -> Result<(), Exit> {
    on_runtime(global, async |node| {
        let answer = node.call(name, arguments).await?;
        output::answer(node.form, name, &answer)
    })
}

/// Finds the node, and runs `work` with it on a small runtime.
fn on_runtime(global: &Global, work: impl AsyncFnOnce(Node) -> Result<(), Exit>) -> Result<(), Exit> {
    let node = reach::find(global)?;
    on_small_runtime(work(node))
}

fn on_small_runtime(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Exit::internal(format!("can't start a runtime: {e}")))?;
    let done = runtime.block_on(work);
    // A read of standard input that nobody waits for must not hold the end up.
    runtime.shutdown_background();
    done
}

fn invite(node: &Node) -> Result<(), Exit> {
    let Some(info) = &node.info else {
        return Err(Exit::usage(
            "the invite is read from the node's data folder; give --data-dir, not --url".to_owned(),
        ));
    };
    match node.form {
        Form::Json => output::json(&serde_json::json!({ "invite": info.invite })),
        Form::Human => output::raw(&format!("{}\n", info.invite)),
    }
}

fn interface(form: Form) -> Result<(), Exit> {
    let own = crate::ops::interface::own();
    match form {
        Form::Json => output::json(&serde_json::json!({ "interface_cid": own.cid, "descriptor": own.descriptor })),
        Form::Human => output::raw(&format!("{}\n{}\n", own.cid, own.canonical)),
    }
}

fn up(global: &Global, args: &UpArgs) -> Result<(), Exit> {
    let config = load(global, &args.settings())?;
    let prepared = node::prepare(config, args.join.as_deref(), Form::of(global.json))?;
    run::run_node(prepared).map_err(|e| Exit::internal(format!("{e:#}")))
}

/// The settings, with those that came as flags.
fn load(global: &Global, more: &[(String, String, String)]) -> Result<Config, Exit> {
    let flags = global.settings().into_iter().chain(more.iter().cloned()).collect();
    let loaded = Inputs::of_process(global.config.as_deref(), flags).and_then(|inputs| Config::load(&inputs));
    loaded.map_err(|e| Exit::usage(e.to_string()))
}
