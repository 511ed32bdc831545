//! The operations: what each takes, what it becomes for the core, and what the
//! answer looks like. Every face (MCP, command line) reads this one table.
//!
//! There is no logic here: ranges are checked and names are mapped.

pub mod canonical;
pub mod doc;
pub(crate) mod drawing;
pub mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod graph;
pub mod interface;
pub mod peer;
pub mod queue;
pub mod resubmit;
pub mod result;
pub mod schedule;
pub mod schema;
pub mod submit;
pub mod task;
pub mod toolset;
pub mod value;
pub mod worker;
pub mod workflow;

pub use failure::{Code, Failure};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::LazyLock;
use taskmesh_core::{BlobHash, Reply, Request, Unix};
pub use toolset::{Changes, Offer, Toolset};
use value::Object;

/// The names of the contract, in its order.
pub const ALL: [&str; 26] = [
    "task_submit",
    "task_status",
    "task_cancel",
    "task_list",
    "task_priority",
    "task_result",
    "queue_stats",
    "queue_pause",
    "queue_resume",
    "queue_clear",
    "task_retry",
    "worker_register",
    "worker_unregister",
    "worker_status",
    "workflow_submit",
    "workflow_status",
    "workflow_cancel",
    "workflow_list",
    "workflow_dependencies",
    "workflow_result",
    "peer_discover",
    "peer_connect",
    "peer_disconnect",
    "peer_list",
    "peer_metrics",
    "bootstrap_network",
];

/// What an operation may do to the mesh; clients ask their user accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// Changes something, and more each time.
    Change,
    /// Changes something once, however often it is repeated.
    Repeatable,
    /// Takes something away, once.
    Destructive,
}

/// What an answer is written with.
pub struct Context<'a> {
    /// The wall clock.
    pub now: Unix,
    /// Up to so many bytes of a blob from an offset, if it is on this node.
    pub blobs: &'a dyn Fn(BlobHash, u64, usize) -> Option<Vec<u8>>,
}

/// One operation: a struct of its parameters.
pub trait Op: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// Its name on every face.
    const NAME: &'static str;
    /// For people.
    const TITLE: &'static str;
    /// What it does, in under 60 words.
    const DESCRIPTION: &'static str;
    /// What it may do.
    const KIND: Kind;
    /// What it answers.
    type Output: Serialize + JsonSchema;

    /// What the core is asked.
    ///
    /// # Errors
    /// A parameter that can't be right; the core was not asked.
    fn request(&self) -> Result<Request, taskmesh_core::Refusal>;

    /// The answer as the faces show it.
    ///
    /// # Errors
    /// A blob that this node could not get, or a reply to another request.
    fn output(self, reply: Reply, context: &Context<'_>) -> Result<Self::Output, Failure>;

    /// What a person must say yes to before it is done, if anything.
    fn question(&self) -> Option<String> {
        None
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Operation {
    /// [`Op::NAME`].
    pub name: &'static str,
    /// [`Op::TITLE`].
    pub title: &'static str,
    /// [`Op::DESCRIPTION`].
    pub description: &'static str,
    /// [`Op::KIND`].
    pub kind: Kind,
    /// Schema of the parameters.
    pub input: Object,
    /// Schema of the answer, without descriptions.
    pub output: Object,
    /// Schema of the answer, with descriptions.
    pub output_in_full: Object,
    prepare: fn(&Object, Value) -> Result<Prepared, Failure>,
    #[cfg(any(test, fuzzing))]
    spell: fn(Value) -> Value,
}

/// A call whose parameters are right.
pub struct Prepared {
    /// What to ask the core.
    pub request: Request,
    /// What a person must say yes to first.
    pub question: Option<String>,
    write: Box<Write>,
}

type Write = dyn FnOnce(Reply, &Context<'_>) -> Result<Object, Failure> + Send;

impl Operation {
    fn of<O: Op>() -> Operation {
        Operation {
            name: O::NAME,
            title: O::TITLE,
            description: O::DESCRIPTION,
            kind: O::KIND,
            input: schema::input::<O>(),
            output: schema::output::<O::Output>(),
            output_in_full: schema::output_in_full::<O::Output>(),
            prepare: prepare::<O>,
            #[cfg(any(test, fuzzing))]
            spell: spell::<O>,
        }
    }

    /// Checks `arguments`; a null argument is one that was not given.
    ///
    /// # Errors
    /// What is wrong with them; nothing was asked yet.
    pub fn prepare(&self, mut arguments: Object) -> Result<Prepared, Failure> {
        arguments.retain(|_, value| !value.is_null());
        (self.prepare)(&self.input, Value::Object(arguments))
    }
}

impl Prepared {
    /// The answer: `success: true` and its fields.
    ///
    /// # Errors
    /// See [`Op::output`].
    pub fn write(self, reply: Reply, context: &Context<'_>) -> Result<Object, Failure> {
        (self.write)(reply, context)
    }
}

fn prepare<O: Op>(schema: &Object, arguments: Value) -> Result<Prepared, Failure> {
    schema::check(schema, &arguments)?;
    let op: O = serde_json::from_value(arguments).map_err(|e| failure::invalid("arguments", e.to_string()))?;
    let (request, question) = (op.request()?, op.question());
    let write = move |reply: Reply, context: &Context<'_>| {
        let fields = serde_json::to_value(op.output(reply, context)?);
        let Ok(Value::Object(fields)) = fields else {
            return Err(Failure::new(Code::Internal, format!("the answer of {} is not an object", O::NAME)));
        };
        Ok(std::iter::once(("success".to_owned(), Value::Bool(true))).chain(fields).collect())
    };
    Ok(Prepared { request, question, write: Box::new(write) })
}

/// Right arguments as the program itself would send them.
#[cfg(any(test, fuzzing))]
fn spell<O: Op>(arguments: Value) -> Value {
    let op: O = serde_json::from_value(arguments).expect("they were right");
    serde_json::to_value(op).expect("JSON")
}

/// The operations that this version offers, in the order of [`ALL`].
#[must_use]
pub fn offered() -> &'static [Operation] {
    static OFFERED: LazyLock<Vec<Operation>> = LazyLock::new(|| {
        vec![
            Operation::of::<submit::TaskSubmit>(),
            Operation::of::<task::TaskStatus>(),
            Operation::of::<task::TaskCancel>(),
            Operation::of::<task::TaskList>(),
            Operation::of::<task::TaskPriority>(),
            Operation::of::<result::TaskResult>(),
            Operation::of::<queue::QueueStats>(),
            Operation::of::<queue::QueuePause>(),
            Operation::of::<queue::QueueResume>(),
            Operation::of::<queue::QueueClear>(),
            Operation::of::<queue::TaskRetry>(),
            Operation::of::<worker::WorkerRegister>(),
            Operation::of::<worker::WorkerUnregister>(),
            Operation::of::<worker::WorkerStatus>(),
            Operation::of::<workflow::WorkflowSubmit>(),
            Operation::of::<graph::WorkflowStatus>(),
            Operation::of::<workflow::WorkflowCancel>(),
            Operation::of::<workflow::WorkflowList>(),
            Operation::of::<graph::WorkflowDependencies>(),
            Operation::of::<graph::WorkflowResult>(),
            Operation::of::<peer::PeerDiscover>(),
            Operation::of::<peer::PeerConnect>(),
            Operation::of::<peer::PeerDisconnect>(),
            Operation::of::<peer::PeerList>(),
            Operation::of::<peer::PeerMetrics>(),
            Operation::of::<peer::BootstrapNetwork>(),
        ]
    });
    &OFFERED
}

/// The operation with this name, if it is offered.
#[must_use]
pub fn operation(name: &str) -> Option<&'static Operation> {
    offered().iter().find(|o| o.name == name)
}

/// A reply that belongs to another request: a defect.
pub(crate) fn mismatch(name: &str) -> Failure {
    Failure::new(Code::Internal, format!("the node answered {name} with something else; this is a defect"))
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
