//! `task_submit`.

use super::failure::invalid;
use super::schedule::Schedule;
use super::value::{self, Object};
use super::{Context, Failure, Kind, Op, mismatch, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmesh_core::cache::{Caching, Mode};
use taskmesh_core::command::Submission;
use taskmesh_core::placement::{Alternative, Condition, Placement as CorePlacement};
use taskmesh_core::task::{Durability as CoreDurability, Priority, Requirements as CoreRequirements, Resources};
use taskmesh_core::{Command, Millis, Refusal, Reply, Request, Spec, TaskId, Unix, array, limits};

/// Submit a task, or an array of tasks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskSubmit {
    /// Executor: `echo`, `sleep`, `fail`, `exec`.
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    pub task_type: String,
    /// Its input, at most 1 MiB. exec: {"argv": ["cmd", "arg"], "stdin", "env"}.
    #[arg(default_value = "{}", value_parser = value::json_argument::<Object>)]
    pub payload: Object,
    /// Your own id; repeating it with the same work is safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    #[arg(long)]
    pub task_id: Option<String>,
    /// Above 0; higher runs earlier.
    #[serde(default = "normal")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[arg(long, default_value_t = normal())]
    pub priority: f64,
    /// For filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::TAGS), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "tag")]
    pub tags: Vec<String>,
    /// Seconds for one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = YEAR_S))]
    #[arg(long)]
    pub timeout: Option<u64>,
    /// Back-off after failed attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<RetryPolicy>)]
    pub retry_policy: Option<RetryPolicy>,
    /// Kept for you, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub metadata: Option<Object>,
    /// Instead of task_id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    #[arg(long)]
    pub idempotency_key: Option<String>,
    /// What a worker must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Requirements>)]
    pub requirements: Option<Requirements>,
    /// RFC 3339: don't start earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[arg(long)]
    pub not_before: Option<String>,
    /// RFC 3339: expires if not ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[arg(long)]
    pub deadline: Option<String>,
    /// Tasks that must complete first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DEPENDENCIES), inner(length(min = 1, max = TaskId::MAX_BYTES)))]
    #[arg(long = "depends-on", value_name = "TASK_ID")]
    pub depends_on: Vec<String>,
    /// Shares workers fairly among its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    #[arg(long)]
    pub fairness_key: Option<String>,
    /// Copies before the answer: on a majority, or this node's disk.
    #[serde(default)]
    #[arg(long, value_enum, default_value_t)]
    pub durability: Durability,
    /// Never two runs at once; slower.
    #[serde(default)]
    #[arg(long)]
    pub exclusive: bool,
    /// Take or leave results of the same work.
    #[serde(default)]
    #[arg(long, value_enum, default_value_t)]
    pub cache: Cache,
    /// Array: `<task_id>/n` gets payload overlaid with item n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::ARRAY_ITEMS))]
    #[arg(long = "item", value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub items: Option<Vec<Object>>,
    /// Each tick submits a task `<task_id>/<time>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[command(flatten)]
    pub schedule: Option<Schedule>,
}

/// A year: nobody waits longer for one attempt.
pub(crate) const YEAR_S: u64 = 366 * 24 * 3_600;
const DAY_MS: u64 = 24 * 3_600_000;

fn normal() -> f64 {
    1.0
}

/// Exponential back-off between attempts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts after the first.
    #[schemars(range(max = limits::RETRIES))]
    pub max_retries: u32,
    /// Of each wait to the last.
    #[schemars(range(min = 1, max = 100))]
    pub backoff_factor: f64,
    /// The first wait.
    #[schemars(range(max = DAY_MS))]
    pub initial_delay_ms: u64,
    /// The longest wait.
    #[schemars(range(max = DAY_MS))]
    pub max_delay_ms: u64,
    /// Wait between half and all of it.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        let policy = taskmesh_core::task::RetryPolicy::default();
        RetryPolicy {
            max_retries: policy.max_retries,
            backoff_factor: policy.backoff_factor,
            initial_delay_ms: policy.initial_delay.0,
            max_delay_ms: policy.max_delay.0,
            jitter: policy.jitter,
        }
    }
}

impl RetryPolicy {
    /// For the core.
    pub(crate) fn core(&self) -> taskmesh_core::task::RetryPolicy {
        taskmesh_core::task::RetryPolicy {
            max_retries: self.max_retries,
            backoff_factor: self.backoff_factor,
            initial_delay: Millis(self.initial_delay_ms),
            max_delay: Millis(self.max_delay_ms),
            jitter: self.jitter,
        }
    }
}

/// What a worker must have.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Requirements {
    /// Beside the type; `a:b` is met by `a:b` or `a:*`.
    #[schemars(length(max = limits::ATTRIBUTES), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    pub capabilities: Vec<String>,
    /// Must be equal.
    #[schemars(extend("maxProperties" = limits::ATTRIBUTES, "additionalProperties" = schema::short_text()))]
    pub labels: BTreeMap<String, String>,
    /// Cores held while it runs.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cpus: f64,
    /// MiB.
    #[schemars(range(max = 1_000_000_000_u64))]
    pub memory_mb: u64,
    /// GPUs.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub gpus: f64,
    /// Other amounts, by name.
    #[schemars(extend("maxProperties" = limits::ATTRIBUTES, "additionalProperties" = schema::amount()))]
    pub resources: BTreeMap<String, f64>,
    /// As in Kubernetes: `zone in (a,b),!spot,gpu,arch!=arm`.
    #[schemars(length(max = limits::METADATA_BYTES))]
    pub selector: String,
    /// Further requirements, of which one must be met.
    #[schemars(length(max = limits::ALTERNATIVES))]
    pub any_of: Vec<Object>,
    /// Preferred worker: emptiest or fullest.
    pub placement: Placement,
    /// Same key: same worker, if it has room.
    #[schemars(length(max = limits::TEXT_BYTES))]
    pub affinity_key: String,
}

/// Which worker is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The better of two drawn by chance.
    #[default]
    Balance,
    /// The emptiest.
    Spread,
    /// The fullest.
    Pack,
}

impl Requirements {
    /// What a worker must be, and what the task then holds of it.
    fn read(self, field: &str) -> Result<CoreRequirements, Refusal> {
        let at = |name: &str| format!("{field}.{name}");
        names(&at("labels"), self.labels.keys())?;
        names(&at("resources"), self.resources.keys())?;
        let selector = Condition::read_all(&self.selector).map_err(|problem| invalid(&at("selector"), problem))?;
        let any_of = self.any_of.into_iter().map(|way| alternative(&at("any_of"), way)).collect::<Result<_, _>>()?;
        let named = self.resources.into_iter().map(|(name, n)| (name.into(), value::thousandths(n))).collect();
        Ok(CoreRequirements {
            capabilities: self.capabilities.into_iter().map(Arc::from).collect(),
            labels: self.labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            resources: Resources {
                cpu_milli: value::thousandths(self.cpus),
                memory_mb: self.memory_mb,
                gpu_milli: value::thousandths(self.gpus),
                named,
            },
            selector,
            any_of,
            placement: match self.placement {
                Placement::Balance => CorePlacement::Balance,
                Placement::Spread => CorePlacement::Spread,
                Placement::Pack => CorePlacement::Pack,
            },
            affinity_key: (!self.affinity_key.is_empty()).then(|| self.affinity_key.into()),
        })
    }
}

/// One of `any_of`: it is held against the schema of requirements here, because
/// a schema within itself would take twice the room in every tool list.
fn alternative(field: &str, way: Object) -> Result<Alternative, Refusal> {
    let value = serde_json::Value::Object(way);
    schema::check(&schema::input::<Requirements>(), &value).map_err(|refusal| invalid(field, refusal.to_string()))?;
    let given: Requirements = serde_json::from_value(value).map_err(|e| invalid(field, e.to_string()))?;
    let plain = given.any_of.is_empty() && given.placement == Placement::Balance && given.affinity_key.is_empty();
    if !plain {
        return Err(invalid(field, "an alternative has no any_of, placement or affinity_key of its own"));
    }
    let CoreRequirements { capabilities, labels, selector, resources, .. } = given.read(field)?;
    Ok(Alternative { capabilities, labels, selector, resources })
}

/// Copies that an acceptance waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A majority of the holders.
    #[default]
    Replicated,
    /// This node's disk.
    Local,
}

/// Use of results of the same work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Cache {
    /// None.
    #[default]
    Off,
    /// Take an earlier one instead of running.
    Read,
    /// Run, and leave one.
    Write,
    /// Both; of several at once one runs.
    ReadWrite,
}

impl Cache {
    fn core(self) -> Option<Caching> {
        let mode = match self {
            Cache::Off => return None,
            Cache::Read => Mode::Read,
            Cache::Write => Mode::Write,
            Cache::ReadWrite => Mode::ReadWrite,
        };
        Some(Caching { mode, scope: None })
    }
}

/// What `task_submit` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Submitted {
    /// The task, or the array.
    pub task_id: String,
    /// Its state (that of the first item).
    pub status: &'static str,
    /// Its place among its home's queued tasks, from 1.
    pub queue_position: Option<u64>,
    /// From measured rates.
    pub estimated_start_time: Option<String>,
    /// The worker that has it already.
    pub assigned_worker: Option<String>,
    /// The node that owns it.
    pub home_node: String,
    /// It was there before.
    pub replayed: bool,
    /// Whether a worker could run it.
    pub feasible: Feasible,
    /// For an array.
    pub array: Option<Array>,
}

/// Whether a worker could run a task.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Feasible {
    /// Nodes with such a worker.
    pub nodes: u32,
    /// Why there are none.
    pub reason: Option<String>,
}

/// The tasks of an array.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Array {
    /// Id of the first.
    pub first: String,
    /// How many.
    pub count: u32,
}

impl TaskSubmit {
    /// A submission with defaults everywhere else.
    #[must_use]
    pub fn new(task_type: &str, payload: Object) -> TaskSubmit {
        TaskSubmit {
            task_type: task_type.into(),
            payload,
            task_id: None,
            priority: normal(),
            tags: Vec::new(),
            timeout: None,
            retry_policy: None,
            metadata: None,
            idempotency_key: None,
            requirements: None,
            not_before: None,
            deadline: None,
            depends_on: Vec::new(),
            fairness_key: None,
            durability: Durability::default(),
            exclusive: false,
            cache: Cache::Off,
            items: None,
            schedule: None,
        }
    }

    /// What each item runs.
    fn expand(&self) -> Result<Expanded, Refusal> {
        let (mut payloads, mut programs, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        let large = self.is_large();
        for item in self.items.iter().flatten() {
            let mut payload = self.payload.clone();
            payload.extend(item.iter().map(|(k, v)| (k.clone(), v.clone())));
            if self.task_type == "exec" {
                programs.insert(program(&payload)?);
            }
            let text = payload_text("items", &payload)?;
            if large {
                continue;
            }
            bytes += text.len();
            // A large shared payload times many items is more than was sent.
            if bytes > ARRAY_BYTES {
                return Err(Refusal::TooLarge { field: "items".into(), got: bytes as u64, limit: ARRAY_BYTES as u64 });
            }
            payloads.push(text);
        }
        if self.items.is_none() && self.task_type == "exec" {
            programs.insert(program(&self.payload)?);
        }
        Ok(Expanded { payloads, programs })
    }
}

impl TaskSubmit {
    /// Its items wait in one record, not as a task each.
    fn is_large(&self) -> bool {
        self.items.as_ref().is_some_and(|items| items.len() > limits::ITEMS)
    }

    /// The payload of that record.
    fn array_text(&self) -> Result<Arc<[u8]>, Refusal> {
        if self.task_type == array::ARRAY {
            return Err(invalid("task_type", "array is no type of a task"));
        }
        let items = self.items.iter().flatten().map(|item| serde_json::to_string(item).expect("a tree of JSON values"));
        let items: Vec<String> = items.collect();
        let heading =
            array::Heading { task_type: self.task_type.clone(), payload: self.payload.clone(), ..Default::default() };
        let text = array::text_of(&heading, items.iter().map(String::as_str));
        value::bounded("items", &text, limits::ARRAY_BYTES)?;
        Ok(text.into_bytes().into())
    }
}

/// What a worker must have, the right to run `programs` included.
pub(crate) fn needs(given: Requirements, programs: BTreeSet<String>) -> Result<CoreRequirements, Refusal> {
    let mut needs = given.read("requirements")?;
    for program in programs {
        let needed = format!("exec:{program}");
        if needed.len() > limits::TEXT_BYTES {
            return Err(invalid("payload.argv", format!("the program's name must have at most {PROGRAM_BYTES} bytes")));
        }
        if !needs.capabilities.iter().any(|c| **c == *needed) {
            needs.capabilities.push(needed.into());
        }
    }
    if needs.capabilities.len() > limits::ATTRIBUTES {
        let most = limits::ATTRIBUTES;
        return Err(invalid("requirements.capabilities", format!("must be at most {most}, each program included")));
    }
    Ok(needs)
}

impl TaskSubmit {
    fn spec(&self, payload: Arc<[u8]>, requirements: CoreRequirements) -> Result<Spec, Refusal> {
        let metadata = self.metadata.as_ref();
        let metadata = metadata.map(|m| value::object_text("metadata", m, limits::METADATA_BYTES)).transpose()?;
        let read_time = |field, text: &Option<String>| text.as_ref().map(|t| value::read_time(field, t)).transpose();
        let depends_on = self.depends_on.iter().map(|id| value::task("depends_on", id));
        let task_type: &str = if self.is_large() { array::ARRAY } else { &self.task_type };
        Ok(Spec {
            task_type: task_type.into(),
            payload,
            tags: self.tags.iter().map(|t| t.as_str().into()).collect(),
            metadata: metadata.map(Arc::from),
            timeout: self.timeout.map(|s| Millis(s * 1000)),
            retry: self.retry_policy.clone().unwrap_or_default().core(),
            requirements,
            not_before: read_time("not_before", &self.not_before)?,
            deadline: read_time("deadline", &self.deadline)?,
            depends_on: depends_on.collect::<Result<_, _>>()?,
            fairness_key: self.fairness_key.as_deref().map(Arc::from),
            durability: match self.durability {
                Durability::Replicated => CoreDurability::Replicated,
                Durability::Local => CoreDurability::Local,
            },
            exclusive: self.exclusive,
            idempotency_key: self.idempotency_key.as_deref().map(Arc::from),
            retry_of: None,
            submitted_at: Unix(0),
            submitter: None,
            trace: None,
            cache: self.cache.core(),
        })
    }
}

/// What the items of an array are to run.
struct Expanded {
    /// The shared payload, overlaid with each item's.
    payloads: Vec<Arc<[u8]>>,
    /// The programs that they name.
    programs: BTreeSet<String>,
}

/// All payloads of one array: what one call may ask a node to store.
const ARRAY_BYTES: usize = 16 * 1024 * 1024;

/// `exec:` goes before it.
const PROGRAM_BYTES: usize = limits::TEXT_BYTES - 5;

/// Names of labels and resources.
fn names<'a>(field: &str, mut given: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    match given.all(|name| (1..=limits::TEXT_BYTES).contains(&name.len())) {
        true => Ok(()),
        false => Err(invalid(field, format!("a name must have 1 to {} bytes", limits::TEXT_BYTES))),
    }
}

/// The program that an `exec` payload names.
fn program(payload: &Object) -> Result<String, Refusal> {
    let bad = || invalid("payload.argv", "must be an array of strings that starts with the program's name");
    let argv = payload.get("argv").and_then(|argv| argv.as_array()).ok_or_else(bad)?;
    if !argv.iter().all(|argument| argument.is_string()) {
        return Err(bad());
    }
    let program = argv.first().and_then(|argument| argument.as_str()).unwrap_or_default();
    if program.is_empty() { Err(bad()) } else { Ok(program.to_owned()) }
}

fn payload_text(field: &str, payload: &Object) -> Result<Arc<[u8]>, Refusal> {
    Ok(value::object_text(field, payload, limits::PAYLOAD_BYTES)?.into_bytes().into())
}

impl Op for TaskSubmit {
    const NAME: &'static str = "task_submit";
    const TITLE: &'static str = "Submit a task";
    const DESCRIPTION: &'static str = "Hands a task, or an array of up to 100,000, to the mesh. Durable when answered: it \
        is finished even if nodes are lost, and its program may run more than once. A task that no worker can run yet \
        is accepted; `feasible` says so. Read it with task_result.";
    const KIND: Kind = Kind::Change;
    type Output = Submitted;

    fn request(&self) -> Result<Request, Refusal> {
        if self.task_id.is_some() && self.idempotency_key.is_some() {
            return Err(invalid("idempotency_key", "give task_id or idempotency_key, not both"));
        }
        let priority = Priority::new(self.priority).ok_or_else(|| invalid("priority", "must be finite and above 0"))?;
        let task = self.task_id.as_ref().map(|id| value::task("task_id", id)).transpose()?;
        if let (Some(task), Some(items)) = (&task, &self.items) {
            task.item(items.len() - 1).map_err(|e| invalid("task_id", format!("with the item's number it {e}")))?;
        }
        let mut payload = payload_text("payload", &self.payload)?;
        let Expanded { payloads: items, programs } = self.expand()?;
        let requirements = needs(self.requirements.clone().unwrap_or_default(), programs)?;
        if self.is_large() {
            payload = self.array_text()?;
        }
        let spec = self.spec(payload, requirements)?;
        let spec = match &self.schedule {
            Some(schedule) => schedule.wrap(spec)?,
            None if spec.is_schedule() => return Err(invalid("task_type", "schedule is made by giving a `schedule`")),
            None => spec,
        };
        Ok(Request::Command(Command::Submit(Box::new(Submission { task, spec, priority, items }))))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Submitted, Failure> {
        let Reply::Submitted(taken) = reply else { return Err(mismatch(Self::NAME)) };
        Ok(Submitted {
            array: taken.items.map(|count| Array { first: format!("{}/0", taken.task), count }),
            task_id: taken.task.to_string(),
            status: taken.status.name(),
            queue_position: taken.position,
            estimated_start_time: taken.estimated_start.map(value::time),
            assigned_worker: taken.worker.map(|w| w.to_string()),
            home_node: taken.home.to_string(),
            replayed: taken.replayed,
            feasible: Feasible { nodes: taken.feasible, reason: taken.infeasible.map(|r| r.to_string()) },
        })
    }
}
