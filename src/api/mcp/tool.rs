//! The operations as MCP tools, driven by the table in `ops`: which are offered
//! to whom, and a call from its arguments to its answer.

use super::access::{Access, code, defect};
use super::confirm::{confirmed, unasked};
use super::progress::{self, Waited};
use super::uri::Uri;
use super::{Facade, gone, task, template};
use crate::api::auth::Visitor;
use crate::driver::Handle;
use crate::ops::value::{self, Object};
use crate::ops::{self, Changes, Code, Context, Failure, Kind, Offer, Operation, Prepared};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CreateTaskResult, InputRequiredResult,
    Resource, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use taskmesh_core::{Query, Reply, Request, limits};

/// The largest answer as text. Above it a client is better off with less.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// What an answer about a call repeats of it.
const IDS: [&str; 4] = ["task_id", "worker_id", "peer_id", "idempotency_key"];
/// Headers by which a client asks for fewer tools than the node offers.
pub(in crate::api) const TOOLSETS: &str = "x-mcp-toolsets";
pub(in crate::api) const READ_ONLY: &str = "x-mcp-readonly";

/// What a call came to.
enum Done {
    Answer(Object),
    /// A modern client is to ask its user, and to call again.
    Ask(Box<InputRequiredResult>),
    /// The client is to follow the task by its id.
    Follow(Box<rmcp::model::Task>),
}

impl Facade {
    /// What this client is offered, as far as it does not depend on its token.
    ///
    /// # Errors
    /// It asked for a toolset that there is not.
    pub(super) fn offered(&self, context: &RequestContext<RoleServer>) -> Result<Offer, ErrorData> {
        let headers = context.extensions.get::<Parts>().map(|parts| &parts.headers);
        let Some(wanted) = headers.and_then(wanted) else { return Ok(self.node.offer.clone()) };
        let wanted = wanted.map_err(|problem| ErrorData::invalid_params(problem, None))?;
        Ok(self.node.offer.narrowed(&wanted))
    }

    /// One call of an operation.
    pub(super) async fn call(
        &self,
        mut request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(operation) = ops::operation(&request.name) else { return Err(unknown_tool(&request.name)) };
        if !self.offered(context)?.has(operation) {
            return Err(withheld(operation.name));
        }
        let ids = sent_ids(request.arguments.as_ref());
        let subject = ids.values().next().and_then(Value::as_str).unwrap_or_default();
        let run = async |node| {
            let arguments = request.arguments.take().unwrap_or_default();
            let arguments = template::expanded(&node, &self.node.templates, operation, arguments).await?;
            let prepared = operation.prepare(arguments)?;
            let done = run(&node, prepared, &request, context).await?;
            let made = if let Done::Answer(object) = &done { sent_ids(Some(object)) } else { Object::new() };
            Ok((answer(done)?, made))
        };
        let outcome = self.guarded(Access::Tool(operation, subject), context, run).await;
        let made = outcome.iter().flatten().flat_map(|(_, made)| made.clone());
        let about = ids.clone().into_iter().chain(made).collect();
        self.note(operation, &Visitor::of(context), code(outcome.as_ref()), &about);
        match outcome {
            Some(Ok((response, _))) => Ok(response),
            Some(Err(failure)) => Ok(refused(&failure, ids)),
            None => Err(gone()),
        }
    }

    /// Whether the operation of this name is offered.
    pub(in crate::api) fn has(&self, name: &str) -> bool {
        ops::operation(name).is_some_and(|operation| self.node.offer.has(operation))
    }

    /// The definitions of what is offered to `visitor`.
    pub(in crate::api) fn tools(&self, visitor: &Visitor) -> Vec<Tool> {
        list(&self.node.offer, visitor)
    }

    /// One call of a client that can't be asked anything back, and the ids that
    /// it sent, which a refusal repeats.
    pub(in crate::api) async fn call_plainly(
        &self,
        visitor: &Visitor,
        operation: &'static Operation,
        arguments: Object,
    ) -> (Result<Object, Failure>, Object) {
        let ids = sent_ids(Some(&arguments));
        let subject = ids.values().next().and_then(Value::as_str).unwrap_or_default();
        let run = async |node: Handle| {
            let arguments = template::expanded(&node, &self.node.templates, operation, arguments).await?;
            let prepared = operation.prepare(arguments)?;
            if prepared.question.is_some() {
                return Err(unasked());
            }
            let reply = node.ask(prepared.request.clone()).await?;
            written(&node, prepared, reply).await
        };
        let done = self.guarded_plainly(Access::Tool(operation, subject), visitor, run).await;
        let made = done.iter().flat_map(|object| sent_ids(Some(object)));
        let about = ids.clone().into_iter().chain(made).collect();
        self.note(operation, &Ok(visitor.clone()), code(Some(&done)), &about);
        (done, ids)
    }
}

/// From a call whose parameters are right to the answer.
async fn run(
    node: &Handle,
    prepared: Prepared,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<Done, Failure> {
    if let Some(question) = &prepared.question
        && let Some(ask) = confirmed(question, request.input_responses.as_ref(), context).await?
    {
        return Ok(Done::Ask(Box::new(ask)));
    }
    let reply = match &prepared.request {
        Request::Query(Query::Task { task, detail, wait }) if wait.0 > 0 => {
            match progress::until_ended(node, task, *detail, *wait, context).await? {
                Waited::Reply(reply) => reply,
                Waited::Follow(view) => return Ok(Done::Follow(Box::new(task::handle(&view)))),
            }
        }
        request => node.ask(request.clone()).await?,
    };
    written(node, prepared, reply).await.map(Done::Answer)
}

/// The answer to an operation that a program of the faces itself asks.
pub(in crate::api) async fn ask(handle: &Handle, name: &'static str, arguments: Object) -> Result<Object, Failure> {
    let operation = ops::operation(name).ok_or_else(defect)?;
    let prepared = operation.prepare(arguments)?;
    let reply = handle.ask(prepared.request.clone()).await?;
    written(handle, prepared, reply).await
}

/// Writes an answer. Files are read where blocking is allowed.
pub(super) async fn written(handle: &Handle, prepared: Prepared, reply: Reply) -> Result<Object, Failure> {
    let handle = handle.clone();
    let reads_files = match &reply {
        Reply::Task(task) => task.report.iter().any(|report| report.blobs().next().is_some()),
        _ => false,
    };
    let write = move || {
        let runtime = tokio::runtime::Handle::current();
        let blobs = |hash, offset, len| runtime.block_on(handle.find_blob(hash, offset, len));
        prepared.write(reply, &Context { now: crate::driver::wall_clock(), blobs: &blobs })
    };
    if !reads_files {
        return write();
    }
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|_| Err(defect()))
}

/// The offer that a client asks for by its headers, if it does.
fn wanted(headers: &HeaderMap) -> Option<Result<Offer, String>> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (toolsets, read_only) = (text(TOOLSETS), text(READ_ONLY));
    if toolsets.is_none() && read_only.is_none() {
        return None;
    }
    let names = toolsets.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let changes = match read_only.map(str::to_ascii_lowercase).as_deref() {
        None | Some("false" | "0") => Changes::Offered,
        // Whatever else was meant, less is the safe reading.
        Some(_) => Changes::Withheld,
    };
    Some(Offer::new(names, changes))
}

/// One id, under its name.
pub(super) fn named(name: &str, id: &str) -> Object {
    Object::from_iter([(name.to_owned(), Value::from(id.chars().take(256).collect::<String>()))])
}

/// The ids among the arguments, to be repeated in a failure.
fn sent_ids(arguments: Option<&Object>) -> Object {
    let id = |name: &str| {
        let value = arguments?.get(name)?.as_str().filter(|text| text.len() <= 256)?;
        Some((name.to_owned(), Value::from(value)))
    };
    IDS.iter().filter_map(|name| id(name)).collect()
}

fn answer(done: Done) -> Result<CallToolResponse, Failure> {
    match done {
        Done::Answer(object) => result(object).map(Into::into),
        Done::Ask(ask) => Ok((*ask).into()),
        Done::Follow(task) => Ok(CreateTaskResult::new(*task).into()),
    }
}

/// An answer in both forms, and a link to what it leaves out.
pub(super) fn result(object: Object) -> Result<CallToolResult, Failure> {
    let link = left_out(&object);
    let mut result = CallToolResult::structured(Value::Object(object));
    let bytes = result.content.first().and_then(|c| c.as_text()).map_or(0, |text| text.text.len());
    if bytes > ANSWER_BYTES {
        let error = format!("the answer has {bytes} bytes, and the limit is {ANSWER_BYTES}: ask for a smaller page");
        return Err(Failure::new(Code::PayloadTooLarge, error));
    }
    result.content.extend(link.map(ContentBlock::resource_link));
    Ok(result)
}

/// The whole output, where an answer has only the start of it.
fn left_out(object: &Object) -> Option<Resource> {
    object.get("next_output_offset")?.as_u64()?;
    let bytes = object.get("output_bytes")?.as_u64().filter(|bytes| *bytes > limits::INLINE_BYTES as u64)?;
    let hash = value::read_hash("output_cid", object.get("output_cid")?.as_str()?).ok()?;
    let name = object.get("task_id").and_then(Value::as_str).unwrap_or_default();
    Some(Resource::new(Uri::blob(hash).to_string(), format!("{name} output")).with_size(bytes))
}

fn refused(failure: &Failure, ids: Object) -> CallToolResponse {
    let mut envelope = failure.envelope();
    envelope.extend(ids);
    CallToolResult::structured_error(Value::Object(envelope)).into()
}

fn unknown_tool(name: &str) -> ErrorData {
    let name: String = name.chars().take(64).collect();
    ErrorData::invalid_params(format!("tool {name:?} is not known; tools/list has those there are"), None)
}

fn withheld(name: &str) -> ErrorData {
    let why =
        "is not offered here: the node's settings or the client's flags leave its toolset out, or allow reads alone";
    ErrorData::invalid_params(format!("tool {name:?} {why}; tools/list has those there are"), None)
}

/// The definitions of the tools that `offer` has and `visitor` may call, in the
/// order of the contract.
pub(super) fn list(offer: &Offer, visitor: &Visitor) -> Vec<Tool> {
    let may = |name| visitor.authority().is_some_and(|authority| authority.allows_operation(name).is_ok());
    let all = ops::offered().iter().zip(tools());
    all.filter(|(operation, _)| offer.has(operation) && may(operation.name)).map(|(_, tool)| tool.clone()).collect()
}

/// The definitions of all tools, in the order of the contract.
pub(in crate::api) fn tools() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| ops::offered().iter().map(tool).collect());
    &TOOLS
}

fn tool(operation: &'static Operation) -> Tool {
    // What a hint is by default (no read, no repetition) is not said.
    let hints = ToolAnnotations::new();
    let hints = match operation.kind {
        Kind::Read => hints.read_only(true),
        Kind::Change => hints.destructive(false),
        Kind::Repeatable => hints.destructive(false).idempotent(true),
        Kind::Destructive => hints.destructive(true).idempotent(true),
    };
    let mut tool = Tool::new(operation.name, operation.description, Arc::new(operation.input.clone()));
    tool.title = Some(operation.title.to_owned());
    tool.output_schema = Some(Arc::new(operation.output.clone()));
    tool.annotations = Some(hints);
    tool
}
