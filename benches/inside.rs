//! A whole node inside the benchmark's own process, so that what is measured
//! of it has no HTTP in it; it can serve HTTP as well. Its mesh is made of
//! processes of the `taskmesh` binary.
#![allow(dead_code, reason = "each benchmark uses its own part of it")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use taskmesh::api::Feed;
use taskmesh::api::audit::Audit;
use taskmesh::api::auth::Gate;
use taskmesh::api::client::Client;
use taskmesh::api::http::{Doors, Face, serve};
use taskmesh::api::serve::Door;
use taskmesh::driver::{self, Handle, Inbox, Parts};
use taskmesh::exec::{ExecConfig, Executors};
use taskmesh::net::invite::Invite;
use taskmesh::net::{self, BlobAccess, NetConfig, NetEvent};
use taskmesh::ops::Offer;
use taskmesh::store::{SledStore, Store};
use taskmesh_core::command::{Command, Detail, Query, Submission};
use taskmesh_core::task::{Priority, Spec};
use taskmesh_core::token::RootKey;
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{Config, Millis, Node, Reply, Request, TaskId};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A node that accepts tasks and runs none.
pub(crate) struct Inside {
    /// How to ask it.
    pub(crate) handle: Handle,
    /// What others join it by.
    pub(crate) invite: String,
    /// Its facade, over HTTP.
    pub(crate) client: Client,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Inside {
    /// A node that makes a mesh of its own, with its data in `folder`.
    pub(crate) async fn start(folder: &Path, config: Config) -> Inside {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = built.expect("a runtime");
        let started = runtime.spawn(start(folder.to_owned(), config)).await;
        let mut started = started.expect("a node that starts");
        started.runtime = Some(runtime);
        started
    }

    /// Submits one task and returns its name once it is accepted.
    pub(crate) async fn submit(&self, spec: Spec, items: Vec<Arc<[u8]>>) -> TaskId {
        let submission = Submission { task: None, spec, priority: Priority::NORMAL, items };
        match self.handle.ask(Request::Command(Command::Submit(Box::new(submission)))).await {
            Ok(Reply::Submitted(submitted)) => submitted.task,
            other => panic!("a submission was answered with {other:?}"),
        }
    }

    /// One task, after waiting for its end for up to `wait`.
    pub(crate) async fn task(&self, task: TaskId, wait: Millis) -> TaskView {
        let detail = Detail { report: true, live: true, ..Detail::default() };
        match self.handle.ask(Request::Query(Query::Task { task, detail, wait })).await {
            Ok(Reply::Task(view)) => *view,
            other => panic!("a question was answered with {other:?}"),
        }
    }

    /// Waits for a task to complete.
    pub(crate) async fn completed(&self, task: TaskId) {
        let seen = self.task(task, Millis(45_000)).await;
        assert_eq!(seen.status, Status::Completed, "{} ended otherwise", seen.task);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop.cancel();
        self.handle.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn start(folder: PathBuf, config: Config) -> Inside {
    let mut store = SledStore::open(&folder.join("store")).expect("a fresh store");
    let (disk, _) = store.load().expect("a fresh store loads");
    let blobs = store.blobs();
    let inbox = Arc::new(Inbox::default());
    let events = inbox.clone();
    let executors = Executors::start(ExecConfig::new(folder.join("work")), move |event| {
        events.push_local(driver::Event::Run(event));
    });
    let executors = executors.expect("executors");
    let (identity, mesh_key) = (secret(), secret());
    let id = net::node_of(&identity).expect("an identity");
    let root = Some(RootKey::of_mesh(&mesh_key));
    let config = Config { executors: executors.capabilities(), root, ..config };
    let node = Node::new(id, config, 1, disk);
    let (net, addresses) = start_net(identity, mesh_key, &inbox).await;
    let parts = Parts { node, store: Box::new(store), blobs, net, executors, traces: None, observer: Box::new(|_| {}) };
    let (handle, _) = driver::spawn(parts, inbox).expect("a driver");
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("http://{address}/mcp");
    let gate = Gate::new(handle.clone(), RootKey::of_mesh(&mesh_key), "bench", None).expect("random numbers");
    let face = Face {
        gate,
        audit: Audit::open(&folder).expect("an audit log"),
        meter: Arc::new(|_, _, _| {}),
        hosts: Vec::new(),
        feed: Feed::default(),
        offer: Offer::default(),
        templates: Default::default(),
        dashboard: false,
    };
    let doors = Doors { open: Door::Tcp(listener), address, local: None };
    tokio::spawn(serve(doors, face, stop.clone()));
    let invite = Invite { mesh_key, seeds: addresses }.encode().expect("an invite");
    let client = Client::new(&url, "bench").expect("a client");
    Inside { handle, invite, client, stop, runtime: None }
}

async fn start_net(identity: [u8; 32], mesh_key: [u8; 32], inbox: &Arc<Inbox>) -> (net::Net, Vec<String>) {
    let (tell, listening) = tokio::sync::oneshot::channel();
    let (tell, inbox) = (Mutex::new(Some(tell)), inbox.clone());
    let events = move |event: NetEvent| {
        if let NetEvent::Listening(addresses) = &event
            && !addresses.is_empty()
            && let Some(tell) = tell.lock().expect("no panic while it is held").take()
        {
            // The benchmark waits for it.
            let _ = tell.send(addresses.clone());
        }
        inbox.push_network(event)
    };
    let config =
        NetConfig { identity, mesh_key, listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NetConfig::default() };
    let blobs = BlobAccess { read: Box::new(|_, _, _| None), receive: Box::new(|_, _, _| false) };
    let net = net::start(config, blobs, Box::new(events)).expect("a network");
    (net, listening.await.expect("it listens"))
}

fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("randomness from the system");
    bytes
}
