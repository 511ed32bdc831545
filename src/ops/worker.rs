//! `worker_register`, `worker_unregister` and `worker_status`.

use super::failure::invalid;
use super::task::yes;
use super::value::{self, Object};
use super::{Context, Failure, Kind, Op, mismatch, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::task::Resources;
use taskmesh_core::view::WorkerView;
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, WorkerId, limits};

/// Make or change a worker on this node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkerRegister {
    /// Unique in the mesh.
    #[schemars(length(min = 1, max = WorkerId::MAX_BYTES))]
    pub worker_id: String,
    /// Executors it runs: `echo`, `exec`, `exec:sha256sum`, `exec:*`.
    #[schemars(length(min = 1, max = limits::ATTRIBUTES), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(required = true)]
    pub capabilities: Vec<String>,
    /// Tasks at once.
    #[serde(default = "slots")]
    #[schemars(range(min = 1, max = limits::SLOTS))]
    #[arg(long, default_value_t = slots())]
    pub max_concurrent_tasks: u32,
    /// What it has; cores and memory that are not given are unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<ResourceLimits>)]
    pub resource_limits: Option<ResourceLimits>,
    /// For people, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub metadata: Option<Object>,
    /// For requirements.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = limits::ATTRIBUTES, "additionalProperties" = schema::short_text()))]
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = value::json_argument::<BTreeMap<String, String>>)]
    pub labels: BTreeMap<String, String>,
}

fn slots() -> u32 {
    5
}

/// What a worker has of what can be used up. Cores and memory are unlimited
/// where they are not given; of GPUs and named resources there are then none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceLimits {
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cpu_cores: Option<f64>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub memory_gb: Option<f64>,
    /// GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub gpus: Option<f64>,
    /// Other amounts, by name.
    #[schemars(extend("maxProperties" = limits::ATTRIBUTES, "additionalProperties" = schema::amount()))]
    pub resources: BTreeMap<String, f64>,
}

/// More than any task may ask for.
const UNLIMITED: u64 = 1 << 53;

impl ResourceLimits {
    fn resources(&self) -> Resources {
        Resources {
            cpu_milli: self.cpu_cores.map_or(UNLIMITED, value::thousandths),
            memory_mb: self.memory_gb.map_or(UNLIMITED, |gb| (gb * 1024.0).round() as u64),
            gpu_milli: self.gpus.map_or(0, value::thousandths),
            named: self.resources.iter().map(|(k, n)| (k.as_str().into(), value::thousandths(*n))).collect(),
        }
    }
}

/// What `worker_register` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Registered {
    /// Which.
    pub worker_id: String,
    /// `registered`.
    pub status: &'static str,
    /// When it was first registered here.
    pub registered_at: String,
    /// Members that see it.
    pub assigned_peers: Vec<String>,
}

impl Op for WorkerRegister {
    const NAME: &'static str = "worker_register";
    const TITLE: &'static str = "Register a worker";
    const DESCRIPTION: &'static str = "Makes, or changes, a worker on the node that answers; it comes back after a \
        restart. A capability that the node has no executor for is refused, with the list of those there are.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Registered;

    fn request(&self) -> Result<Request, Refusal> {
        let metadata = self.metadata.as_ref();
        let metadata = metadata.map(|m| value::object_text("metadata", m, limits::METADATA_BYTES)).transpose()?;
        if self.labels.keys().any(|name| name.is_empty() || name.len() > limits::TEXT_BYTES) {
            return Err(invalid("labels", format!("a name must have 1 to {} bytes", limits::TEXT_BYTES)));
        }
        let limited = self.resource_limits.iter().flat_map(|l| l.resources.keys());
        if limited.into_iter().any(|name| name.is_empty() || name.len() > limits::TEXT_BYTES) {
            return Err(invalid("resource_limits", format!("a name must have 1 to {} bytes", limits::TEXT_BYTES)));
        }
        Ok(Request::Command(Command::Register(WorkerSpec {
            worker: value::worker("worker_id", &self.worker_id)?,
            capabilities: self.capabilities.iter().map(|c| c.as_str().into()).collect(),
            labels: self.labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
            slots: self.max_concurrent_tasks,
            resources: self.resource_limits.as_ref().map(ResourceLimits::resources),
            metadata: metadata.map(Arc::from),
        })))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Registered, Failure> {
        let Reply::Registered { worker, at, peers } = reply else { return Err(mismatch(Self::NAME)) };
        Ok(Registered {
            worker_id: worker.to_string(),
            status: "registered",
            registered_at: value::time(at),
            assigned_peers: peers.iter().map(ToString::to_string).collect(),
        })
    }
}

/// End a worker.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkerUnregister {
    /// Which.
    #[schemars(length(min = 1, max = WorkerId::MAX_BYTES))]
    pub worker_id: String,
    /// Let its tasks end; otherwise they are handed back now.
    #[serde(default = "yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub graceful: bool,
    /// Seconds until what still runs is handed back.
    #[serde(default = "grace")]
    #[schemars(range(max = 86_400))]
    #[arg(long, default_value_t = grace())]
    pub timeout: u64,
}

fn grace() -> u64 {
    300
}

/// What `worker_unregister` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Unregistered {
    /// Which.
    pub worker_id: String,
    /// `unregistered`, or `draining` if that goes on.
    pub status: &'static str,
    /// When; null while it drains.
    pub unregistered_at: Option<String>,
    /// Tasks that ended meanwhile.
    pub completed_tasks: u64,
    /// Tasks handed back.
    pub abandoned_tasks: u64,
}

impl Op for WorkerUnregister {
    const NAME: &'static str = "worker_unregister";
    const TITLE: &'static str = "Unregister a worker";
    const DESCRIPTION: &'static str = "Ends a worker. Graceful: it takes no more, and hands back what has not ended after \
        `timeout`. Answers within 45 s: draining if that goes on.";
    const KIND: Kind = Kind::Destructive;
    type Output = Unregistered;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Command(Command::Unregister {
            worker: value::worker("worker_id", &self.worker_id)?,
            graceful: self.graceful,
            timeout: Millis(self.timeout * 1000),
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Unregistered, Failure> {
        let Reply::Unregistered { worker, gone, at, completed, abandoned } = reply else {
            return Err(mismatch(Self::NAME));
        };
        Ok(Unregistered {
            worker_id: worker.to_string(),
            status: if gone { "unregistered" } else { "draining" },
            unregistered_at: gone.then(|| value::time(at)),
            completed_tasks: completed,
            abandoned_tasks: abandoned,
        })
    }
}

/// Show a worker.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkerStatus {
    /// Which.
    #[schemars(length(min = 1, max = WorkerId::MAX_BYTES))]
    pub worker_id: String,
    /// The tasks that it has.
    #[serde(default)]
    #[arg(long)]
    pub include_tasks: bool,
    /// What its node measures of itself.
    #[serde(default)]
    #[arg(long)]
    pub include_metrics: bool,
}

/// What `worker_status` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkerState {
    /// Which.
    pub worker_id: String,
    /// On which node.
    pub node: String,
    /// `active`, `idle`, `busy`, `draining` or `offline`.
    pub status: &'static str,
    /// What it may run.
    pub capabilities: Vec<String>,
    /// Tasks at once.
    pub max_concurrent_tasks: u32,
    /// Tasks now; null where its node did not answer, as below.
    pub running_tasks: Option<u32>,
    /// Ended well since its node started.
    pub completed_tasks: Option<u64>,
    /// Failed since its node started.
    pub failed_tasks: Option<u64>,
    /// When its node was last heard.
    pub last_seen: Option<String>,
    /// If asked.
    pub tasks: Option<Vec<String>>,
    /// If asked.
    pub metrics: Option<WorkerMetrics>,
}

/// What a worker's node measures of itself.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkerMetrics {
    /// Of all its cores, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the node and its programs, MiB.
    pub memory_mb: Option<f64>,
    /// One-minute load average.
    pub load1: Option<f64>,
    /// Tasks that it would take now.
    pub free_slots: Option<u32>,
}

/// A worker with everything that is known of it.
pub(crate) fn worker_state(worker: WorkerView) -> WorkerState {
    let load = worker.load.unwrap_or_default();
    WorkerState {
        worker_id: worker.worker.to_string(),
        node: worker.node.to_string(),
        status: worker.status.name(),
        capabilities: worker.capabilities.iter().map(ToString::to_string).collect(),
        max_concurrent_tasks: worker.slots,
        running_tasks: worker.running,
        completed_tasks: worker.completed,
        failed_tasks: worker.failed,
        last_seen: worker.last_seen.map(value::time),
        tasks: worker.tasks.map(|tasks| tasks.iter().map(ToString::to_string).collect()),
        metrics: Some(WorkerMetrics {
            cpu_percent: load.cpu_percent,
            memory_mb: load.memory_mb,
            load1: load.load1,
            free_slots: worker.free,
        }),
    }
}

impl Op for WorkerStatus {
    const NAME: &'static str = "worker_status";
    const TITLE: &'static str = "Show a worker";
    const DESCRIPTION: &'static str = "What a worker is doing and may run, and what its node measures of itself.";
    const KIND: Kind = Kind::Read;
    type Output = WorkerState;

    fn request(&self) -> Result<Request, Refusal> {
        let worker = value::worker("worker_id", &self.worker_id)?;
        Ok(Request::Query(Query::Worker { worker, tasks: self.include_tasks }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<WorkerState, Failure> {
        let Reply::Worker(worker) = reply else { return Err(mismatch(Self::NAME)) };
        let state = worker_state(*worker);
        Ok(WorkerState {
            tasks: state.tasks.filter(|_| self.include_tasks),
            metrics: state.metrics.filter(|_| self.include_metrics),
            ..state
        })
    }
}
