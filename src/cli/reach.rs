//! Finding the node that runs, and asking it.
//!
//! A node says where it is in `node.json` of its data folder, beside the file
//! `token` that a caller must show. Both are for their owner alone (mode 0600).

use super::exit::Exit;
use super::output::Form;
use super::tree::Global;
pub(super) use crate::api::client::News;
use crate::api::client::{Client, Way};
use crate::api::p2p::Remote;
use crate::net::door;
use crate::ops::Code;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tokio::sync::OnceCell;

/// What a running node tells about itself in its data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name in the mesh.
    pub peer_id: String,
    /// Its process.
    pub pid: u32,
    /// The MCP endpoint.
    pub api_url: String,
    /// The same, as a socket for processes of this machine.
    #[serde(default)]
    pub api_socket: Option<PathBuf>,
    /// Of the endpoint's certificate, if it has one: `sha256:` and hexadecimal.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// `/metrics`, `/healthz` and `/readyz` are below it.
    pub metrics_url: String,
    /// Multiaddresses that it listens on, with its peer id.
    pub addresses: Vec<String>,
    /// For other nodes; holds the mesh's key.
    pub invite: String,
}

impl NodeInfo {
    /// Its file in the data folder `folder`.
    #[must_use]
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("node.json")
    }

    /// Writes it, mode 0600, all at once.
    ///
    /// # Errors
    /// The folder can't be written; what was there is as it was.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".node-").tempfile_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(NodeInfo::path(folder)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Reads it; `None`: no node runs there.
    ///
    /// # Errors
    /// The file can't be read, or is something else.
    pub fn read(folder: &Path) -> io::Result<Option<NodeInfo>> {
        match std::fs::read(NodeInfo::path(folder)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The file with the token that callers must show.
#[must_use]
pub fn token_path(folder: &Path) -> PathBuf {
    folder.join("token")
}

/// The socket of the MCP endpoint.
#[must_use]
pub fn socket_path(folder: &Path) -> PathBuf {
    folder.join("api.sock")
}

/// A node to ask.
pub struct Node {
    /// How answers are shown.
    pub(super) form: Form,
    /// What it says of itself; `None` if it was given by `--url`.
    pub(super) info: Option<NodeInfo>,
    line: Line,
}

/// How it is reached.
enum Line {
    /// Its MCP endpoint.
    Http(Client),
    /// Its door for peers, dialled with the first call.
    Door { address: String, token: String, remote: OnceCell<Remote> },
}

/// The node that the flags, or the settings, point at.
pub(super) fn find(global: &Global) -> Result<Node, Exit> {
    let form = Form::of(global.json);
    if let (None, Some(url), Some(token)) = (&global.via, &global.url, &global.token) {
        return Node::new(form, None, url, token, given(global));
    }
    let folder = super::load(global, &[])?.node.data_dir;
    let token = match &global.token {
        Some(token) => token.clone(),
        None => read_token(&folder)?,
    };
    if let Some(address) = &global.via {
        let line = Line::Door { address: address.clone(), token, remote: OnceCell::new() };
        return Ok(Node { form, info: None, line });
    }
    if let Some(url) = &global.url {
        return Node::new(form, None, url, &token, given(global));
    }
    let info = NodeInfo::read(&folder).map_err(|e| unreadable(&NodeInfo::path(&folder), &e))?;
    let info = info.ok_or_else(|| no_node(&folder))?;
    let url = info.api_url.clone();
    let way = match (&info.api_socket, &info.fingerprint) {
        (Some(socket), _) => Way::Socket(socket.clone()),
        (None, Some(fingerprint)) => Way::Pinned(fingerprint.parse().map_err(Exit::internal)?),
        (None, None) => Way::Url,
    };
    Node::new(form, Some(info), &url, &token, way)
}

/// How a URL that was given is reached.
fn given(global: &Global) -> Way {
    global.fingerprint.map_or(Way::Url, Way::Pinned)
}

fn read_token(folder: &Path) -> Result<String, Exit> {
    let path = token_path(folder);
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(no_node(folder)),
        Err(e) => Err(unreadable(&path, &e)),
    }
}

fn no_node(folder: &Path) -> Exit {
    let problem = "no node runs with the data folder";
    let next = "start one with `taskmesh up`, or name another folder with --data-dir";
    Exit::with(Code::Unavailable, format!("{problem} {}; {next}", folder.display()))
}

fn unreadable(path: &Path, e: &io::Error) -> Exit {
    Exit::with(Code::PermissionDenied, format!("can't read {}: {e}", path.display()))
}

impl Node {
    pub(super) fn new(form: Form, info: Option<NodeInfo>, url: &str, token: &str, way: Way) -> Result<Node, Exit> {
        let client = Client::by(way, url, token)?;
        Ok(Node { form, info, line: Line::Http(client) })
    }

    /// Asks beside the operations, at `path` of its HTTP endpoint.
    pub(super) async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Exit> {
        let Line::Http(client) = &self.line else {
            return Err(Exit::usage("this is asked over HTTP: leave out --via, or give --url".to_owned()));
        };
        client.admin(method, path, body).await.map_err(Exit::from)
    }

    /// Where its MCP endpoint is; `None`: it is reached over libp2p.
    pub(super) fn url(&self) -> Option<&str> {
        match &self.line {
            Line::Http(client) => Some(client.url()),
            Line::Door { .. } => None,
        }
    }

    /// Calls one operation; the answer is its object.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Result<Value, Exit> {
        match &self.line {
            Line::Http(client) => client.call(name, arguments).await.map_err(Exit::from),
            Line::Door { address, token, remote } => {
                let remote = remote.get_or_try_init(|| dial(address, token)).await?;
                remote.call(name, arguments, address).await.map_err(Exit::from)
            }
        }
    }

    /// Reads a resource; `None`: this way of reaching the node has none.
    pub(super) async fn read(&self, uri: &str) -> Result<Option<Value>, Exit> {
        match &self.line {
            Line::Http(client) => client.read(uri).await.map(Some).map_err(Exit::from),
            Line::Door { .. } => Ok(None),
        }
    }

    /// Hears of changes of resources; `None`: this way of reaching the node has no such thing.
    pub(super) async fn news(&self, uris: &[&str]) -> Result<Option<News>, Exit> {
        match &self.line {
            Line::Http(client) => client.news(uris).await.map(Some).map_err(Exit::from),
            Line::Door { .. } => Ok(None),
        }
    }

    /// Answers what a task asks.
    pub(super) async fn update_task(&self, task: &str, responses: Value) -> Result<(), Exit> {
        let Line::Http(client) = &self.line else {
            return Err(Exit::usage("steps are approved over HTTP: leave out --via, or give --url".to_owned()));
        };
        client.update_task(task, responses).await.map_err(Exit::from)
    }

    /// Serves MCP on standard input and output, with this node's answers.
    pub(super) async fn bridge(&self, toolsets: &[String], read_only: bool) -> Result<(), Exit> {
        let Line::Http(client) = &self.line else {
            return Err(Exit::usage("mcp is bridged to an HTTP endpoint: leave out --via, or give --url".to_owned()));
        };
        let input = tokio::io::BufReader::new(tokio::io::stdin());
        let client = client.narrowed(toolsets, read_only);
        let bridged = crate::api::stdio::bridge(client, input, tokio::io::stdout()).await;
        bridged.map_err(|e| Exit::internal(e.to_string()))
    }
}

async fn dial(address: &str, token: &str) -> Result<Remote, Exit> {
    let call = door::dial(address).await.map_err(|e| match e {
        crate::net::NetError::Address { .. } => Exit::usage(format!("--via: {e}")),
        other => Exit::with(Code::Unavailable, other.to_string()),
    })?;
    let door::Call { stream, open, .. } = call;
    Ok(Remote::new(Box::new(stream), token, Box::new(open)))
}
