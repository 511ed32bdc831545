//! `join`: a data folder is made a member of a mesh before its node first
//! starts; or a node that runs is told of other members.

use super::exit::Exit;
use super::node::{self, Joined};
use super::output::{self, Form};
use super::reach::{self, NodeInfo};
use super::tree::Global;
use crate::net::invite::Invite;
use crate::ops::Code;
use crate::store::identity::{self, MESH_FILE};
use clap::Args;
use serde_json::json;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// As `taskmesh up` or `taskmesh invite` printed it on a member; `-`: from
    /// standard input, where `ps` does not show it.
    #[arg(value_name = "INVITE")]
    invite: String,
}

pub(super) fn run(global: &Global, args: &JoinArgs) -> Result<(), Exit> {
    let text = match args.invite.as_str() {
        "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(|e| Exit::usage(format!("can't read the invite: {e}")))?
        }
        given => given.to_owned(),
    };
    let invite = Invite::decode(text.trim()).map_err(|e| Exit::usage(e.to_string()))?;
    if global.url.is_some() || global.via.is_some() {
        return Err(Exit::usage("join is about the data folder of this machine: leave out --url and --via"));
    }
    let config = super::load(global, &[])?;
    let folder = config.node.data_dir.clone();
    let form = Form::of(global.json);
    match node::join(&config, &invite)? {
        Joined::Folder => {
            let next = "start it with `taskmesh up`";
            told(form, &folder, "a member of the mesh of the invite from its next start on", next, None)
        }
        Joined::Running => super::on_runtime(global, async |node| running(&node, &folder, &invite).await),
    }
}

/// A node runs there: of the same mesh it dials the addresses of the invite now.
async fn running(node: &reach::Node, folder: &Path, invite: &Invite) -> Result<(), Exit> {
    let key = identity::load(&folder.join(MESH_FILE)).map_err(|e| Exit::internal(e.to_string()))?;
    if key != Some(invite.mesh_key) {
        let problem = format!("the node that runs with {} is of another mesh than the invite", folder.display());
        let next = "a node never changes its mesh: start another with a new --data-dir, or drain this one, stop it and remove \
                    its data folder first";
        return Err(Exit::with(Code::FailedPrecondition, format!("{problem}; {next}")));
    }
    let own = node.info.as_ref().map(|info: &NodeInfo| info.peer_id.as_str()).unwrap_or_default();
    // Its own invite names itself.
    let seeds: Vec<&String> = invite.seeds.iter().filter(|seed| !seed.ends_with(own)).collect();
    if seeds.is_empty() {
        return Err(Exit::usage("this is the invite of the node itself"));
    }
    let answer = node
        .call("bootstrap_network", json!({"bootstrap_nodes": seeds, "min_connections": 1, "timeout": DIAL_S}))
        .await?;
    // The members that were connected before are counted too.
    let connected = answer["connected_count"].as_u64().unwrap_or(0);
    let failures = answer["failures"].as_array().map_or(&[][..], Vec::as_slice);
    if failures.len() >= seeds.len() {
        let errors: Vec<&str> = failures.iter().filter_map(|failure| failure["error"].as_str()).collect();
        return Err(Exit::with(Code::Unavailable, format!("no node of the invite answers: {}", errors.join("; "))));
    }
    told(
        node.form,
        folder,
        "connected to the members of the invite, in whose mesh it was already",
        "`taskmesh members` lists them",
        Some(connected),
    )
}

fn told(form: Form, folder: &Path, what: &str, next: &str, connected: Option<u64>) -> Result<(), Exit> {
    match form {
        Form::Json => {
            output::json(&json!({"data_dir": folder, "joined": what, "connected_count": connected, "next": next}))
        }
        Form::Human => output::raw(&format!("{} is {what}; {next}\n", folder.display())),
    }
}

/// Below what a call may take.
const DIAL_S: u64 = 30;
