//! One node: its process, its folder, and a client of its facade.

use super::poll;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use taskmesh::api::client::{Client, ClientError};

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its data folder; the name of its last part is the node's.
    pub(crate) data_dir: PathBuf,
    /// Multiaddress to listen on; empty: as the settings say.
    pub(crate) listen: String,
    /// Runs inside this network namespace.
    pub(crate) namespace: Option<String>,
    join: Option<String>,
    settings: Vec<(String, String)>,
}

impl Plan {
    /// A node of its own in `data_dir`, on loopback.
    pub(crate) fn new(data_dir: &Path) -> Plan {
        Plan {
            data_dir: data_dir.to_owned(),
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            namespace: None,
            join: None,
            settings: Vec::new(),
        }
    }

    /// Joins by this invite.
    pub(crate) fn join(mut self, invite: &str) -> Plan {
        self.join = Some(invite.to_owned());
        self
    }

    /// With this setting, over an earlier one of the same key.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Plan {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    fn name(&self) -> String {
        self.data_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => program_in(namespace),
            None => Command::new(binary()),
        };
        command.arg("up").arg("--data-dir").arg(&self.data_dir);
        if !self.listen.is_empty() {
            command.args(["--listen", &self.listen]);
        }
        command.args(["--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        if let Some(invite) = &self.join {
            command.args(["--join", invite]);
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // Nothing of the person who runs the tests gets in.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TASKMESH_")) {
            command.env_remove(name);
        }
        command.env("XDG_CONFIG_HOME", self.data_dir.with_extension("config"));
        command
    }
}

/// A node's process, from its first start to its last.
pub(crate) struct Node {
    plan: Plan,
    child: Option<Child>,
    about: Option<About>,
}

/// What a node says of itself in its `node.json`.
struct About {
    peer_id: String,
    invite: String,
    addresses: Vec<String>,
    metrics_url: String,
    client: Client,
    api_url: String,
    token: String,
}

impl Node {
    /// Starts the process, and does not wait for it.
    pub(crate) fn spawn(plan: Plan) -> Node {
        let mut node = Node { plan, child: None, about: None };
        node.launch();
        node
    }

    fn launch(&mut self) {
        let log = || {
            let file = File::options().create(true).append(true).open(self.plan.log_path());
            Stdio::from(file.expect("a log file beside the data folder"))
        };
        std::fs::create_dir_all(self.plan.data_dir.parent().expect("a folder above")).expect("a folder for nodes");
        let spawned = self.plan.command().stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        self.child = Some(spawned.unwrap_or_else(|e| panic!("{}: {e}", binary().display())));
        self.about = None;
    }

    /// Waits until the node says where it can be reached.
    pub(crate) async fn up(&mut self) {
        if self.about.is_some() {
            return;
        }
        let pid = u64::from(self.child.as_ref().expect("a node that was started").id());
        let name = self.name();
        let folder = self.plan.data_dir.clone();
        let found = poll(START_WITHIN, async || About::read(&folder, pid)).await;
        let about = found.unwrap_or_else(|| panic!("{name} did not come up; its log ends:\n{}", self.log_tail(40)));
        self.about = Some(about);
    }

    fn about(&self) -> &About {
        self.about.as_ref().unwrap_or_else(|| panic!("{} has been waited for", self.name()))
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        self.plan.name()
    }

    /// Its data folder.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.plan.data_dir
    }

    /// Its peer id.
    pub(crate) fn peer_id(&self) -> &str {
        &self.about().peer_id
    }

    /// The string that others join by.
    pub(crate) fn invite(&self) -> &str {
        &self.about().invite
    }

    /// Where other nodes reach it, with its peer id.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.about().addresses
    }

    /// Its MCP endpoint and the token for it.
    pub(crate) fn endpoint(&self) -> (&str, &str) {
        (&self.about().api_url, &self.about().token)
    }

    /// The operation `name`, through this node's facade.
    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Result<Value, ClientError> {
        let about = self.about();
        match &self.plan.namespace {
            None => about.client.call(name, arguments).await,
            Some(namespace) => {
                let (url, token) = (about.api_url.clone(), about.token.clone());
                let name = name.to_owned();
                inside(namespace, async move || Client::new(&url, &token)?.call(&name, arguments).await).await
            }
        }
    }

    /// The same, where anything but success is a failure of the test.
    pub(crate) async fn ask(&self, name: &str, arguments: Value) -> Value {
        let answer = self.call(name, arguments.clone()).await;
        answer.unwrap_or_else(|e| panic!("{name} {arguments} at {}: {e}", self.name()))
    }

    /// Waits for a task to end, and gives what `task_result` answers then.
    pub(crate) async fn result(&self, task: &str, within: Duration) -> Value {
        let last = std::cell::RefCell::new(String::new());
        let ended = poll(within, async || {
            let answer = self.call("task_result", json!({"task_id": task, "wait_ms": 1000})).await;
            last.replace(format!("{answer:?}"));
            let answer = answer.ok()?;
            let status = answer["status"].as_str()?;
            ["completed", "failed", "cancelled", "expired"].contains(&status).then_some(answer)
        });
        let ended = ended.await;
        ended.unwrap_or_else(|| panic!("{task} has not ended at {} after {within:?}: {}", self.name(), last.borrow()))
    }

    /// Whether its process was started and has not been seen to end.
    pub(crate) fn running(&self) -> bool {
        self.child.is_some()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a node that runs").id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself a moment ago.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("a process that runs takes a signal");
    }

    /// Waits for the process to end by itself; `None` if it does not.
    pub(crate) async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("a node that runs");
        let status = poll(within, async || child.try_wait().expect("a child of this process")).await;
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// Starts it again on the address that it had, so that others find it where
    /// they knew it, and without the invite: a node remembers its mesh.
    pub(crate) async fn restart(&mut self) {
        self.relaunch();
        self.up().await;
    }

    /// The same, without waiting for it.
    pub(crate) fn relaunch(&mut self) {
        assert!(!self.running(), "{} runs still", self.name());
        let address = self.about.as_ref().and_then(|a| a.addresses.first());
        if let Some(address) = address.filter(|_| !self.plan.listen.is_empty()) {
            self.plan.listen = address.split("/p2p/").next().unwrap_or(address).to_owned();
        }
        self.plan.join = None;
        self.launch();
    }

    /// How it is started next time.
    pub(crate) fn plan_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// `GET` of `path` beside its metrics: status and body.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = &self.about().metrics_url;
        let base = url.strip_suffix("/metrics").unwrap_or(url).trim_end_matches('/');
        let url = format!("{base}{path}");
        let asked = async move || {
            let answer = reqwest::get(url).await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        };
        match &self.plan.namespace {
            None => asked().await,
            Some(namespace) => inside(namespace, asked).await,
        }
    }

    /// One of its metrics, with its labels if it has any, as it stands there.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What its metrics say of its network, for messages.
    pub(crate) async fn network(&self) -> String {
        let text = self.get("/metrics").await.map(|(_, text)| text).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("taskmesh_net_")).collect::<Vec<_>>().join("\n")
    }

    /// A command of the binary for this node, where it is, as JSON.
    pub(crate) fn command(&self, arguments: &[&str]) -> Value {
        let mut command = match &self.plan.namespace {
            Some(namespace) => program_in(namespace),
            None => Command::new(binary()),
        };
        command.arg("--data-dir").arg(&self.plan.data_dir).args(arguments).arg("--json");
        command.env("XDG_CONFIG_HOME", self.plan.data_dir.with_extension("config"));
        let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
    }

    /// What its `node.json` says now.
    pub(crate) fn invite_now(&self) -> String {
        let said = std::fs::read(self.plan.data_dir.join("node.json")).expect("a node that runs has it");
        let said: Value = serde_json::from_slice(&said).expect("it is JSON");
        said["invite"].as_str().expect("with an invite").to_owned()
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.plan.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines that it has logged.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}: the end of its log\n{}", self.name(), self.log_tail(25));
        }
        self.kill();
    }
}

impl About {
    /// What the process `pid` wrote into `folder`; `None` as long as it has not.
    fn read(folder: &Path, pid: u64) -> Option<About> {
        let said: Value = serde_json::from_slice(&std::fs::read(folder.join("node.json")).ok()?).ok()?;
        if said["pid"].as_u64() != Some(pid) {
            return None;
        }
        let text = |field: &str| said[field].as_str().map(str::to_owned);
        let token = std::fs::read_to_string(folder.join("token")).ok()?.trim().to_owned();
        let api_url = text("api_url")?;
        Some(About {
            peer_id: text("peer_id")?,
            invite: text("invite")?,
            addresses: said["addresses"].as_array()?.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
            metrics_url: text("metrics_url")?,
            client: Client::new(&api_url, &token).ok()?,
            api_url,
            token,
        })
    }
}

/// Runs `work` on a thread of its own that has moved into the network
/// namespace: a node's facade is on its own loopback.
async fn inside<T: Send + 'static>(namespace: &str, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let door = File::open(Path::new("/run/netns").join(namespace)).expect("a namespace that was made");
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network)).expect("it can be entered");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Nobody listens any more if the test has ended.
        let _ = done.send(runtime.block_on(work()));
    });
    outcome.await.expect("the thread answers")
}

/// The binary, to be run in a network namespace.
fn program_in(namespace: &str) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(binary());
    inside
}

/// The `taskmesh` binary of the same build.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_taskmesh") {
        return path.into();
    }
    // An example lies in a folder beside it.
    let here = std::env::current_exe().expect("the path of this program");
    here.ancestors().skip(1).map(|folder| folder.join("taskmesh")).find(|p| p.is_file()).expect("taskmesh is built")
}

/// A cold start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);
