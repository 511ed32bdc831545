//! The operations as MCP tools: one wrapper for all of them, driven by the
//! table in `ops`. It bounds every call in time and size, survives a panic,
//! and lets go of a call whose client has gone.

use super::Meter;
use crate::driver::Handle;
use crate::ops::value::Object;
use crate::ops::{self, Code, Context, Failure, Kind, Operation, Prepared};
use futures::FutureExt as _;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ElicitRequest, ElicitRequestParams,
    ElicitResult, ElicitationAction, ElicitationSchema, Implementation, InputRequest, InputRequiredResult,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{ElicitationMode, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use taskmesh_core::{Millis, Refusal, Reply, Unix};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The longest call: the core's longest wait, and a margin for its answer.
const CALL: Duration = Duration::from_millis(taskmesh_core::limits::WAIT_MS + 2_000);
/// A person's answer must come within the call.
const PERSON: Duration = Duration::from_secs(40);
/// The largest answer as text. Above it a client is better off with less.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// How long a client may keep the list of tools: it is fixed for a process.
const TOOLS_TTL_MS: u64 = 3_600_000;
/// What an answer about a call repeats of it.
const IDS: [&str; 4] = ["task_id", "worker_id", "peer_id", "idempotency_key"];
/// The name of the one thing that a person is ever asked.
const CONFIRM: &str = "confirm";

const INSTRUCTIONS: &str = "A mesh of nodes that run tasks. task_submit hands work over, task_result with wait_ms waits for \
    it. Any node answers for any task. Failures say what to do; `retryable` says whether to repeat.";

/// The MCP server of one node.
#[derive(Clone)]
pub(crate) struct Facade {
    handle: Handle,
    meter: Meter,
}

/// What a call came to.
enum Done {
    Answer(Object),
    /// A modern client is to ask its user, and to call again.
    Ask(Box<InputRequiredResult>),
}

impl Facade {
    pub(crate) fn new(handle: Handle, meter: Meter) -> Facade {
        Facade { handle, meter }
    }

    /// One call, from arguments to the answer.
    async fn run(
        &self,
        operation: &'static Operation,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Done, Failure> {
        let prepared = operation.prepare(request.arguments.unwrap_or_default())?;
        if let Some(question) = &prepared.question {
            let responses = request.input_responses.unwrap_or_default();
            if let Some(ask) = confirmed(question, responses.get(CONFIRM), context).await? {
                return Ok(Done::Ask(Box::new(ask)));
            }
        }
        let reply = self.handle.ask(prepared.request.clone()).await?;
        self.written(prepared, reply).await.map(Done::Answer)
    }

    /// One call of a client that can't be asked anything back, and the ids that
    /// it sent, which a refusal repeats.
    pub(crate) async fn call_plainly(
        &self,
        operation: &'static Operation,
        arguments: Object,
    ) -> (Result<Object, Failure>, Object) {
        let ids = sent_ids(Some(&arguments));
        let started = Instant::now();
        let run = async {
            let prepared = operation.prepare(arguments)?;
            if prepared.question.is_some() {
                return Err(unasked());
            }
            let reply = self.handle.ask(prepared.request.clone()).await?;
            self.written(prepared, reply).await
        };
        let done = within(CALL, &CancellationToken::new(), run).await.unwrap_or_else(|| Err(defect()));
        let code = done.as_ref().map_or_else(|failure| failure.code.meaning().name, |_| "ok");
        (self.meter)(operation.name, code, started.elapsed());
        (done, ids)
    }

    /// Files are read where blocking is allowed.
    async fn written(&self, prepared: Prepared, reply: Reply) -> Result<Object, Failure> {
        let handle = self.handle.clone();
        let reads_files = match &reply {
            Reply::Task(task) => task.report.iter().any(|report| report.blobs().next().is_some()),
            _ => false,
        };
        let write = move || {
            let blobs = |hash, offset, len| handle.blob(hash, offset, len);
            prepared.write(reply, &Context { now: now(), blobs: &blobs })
        };
        if !reads_files {
            return write();
        }
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|_| Err(defect()))
    }
}

/// A call within the bounds of every call; `None`: its client has gone.
async fn within<T>(
    limit: Duration,
    gone: &CancellationToken,
    call: impl Future<Output = Result<T, Failure>>,
) -> Option<Result<T, Failure>> {
    let outcome = tokio::select! {
        biased;
        () = gone.cancelled() => return None,
        outcome = tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()) => outcome,
    };
    let waited = Millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    Some(match outcome {
        Ok(Ok(done)) => done,
        Ok(Err(_panic)) => Err(defect()),
        Err(_elapsed) => Err(Failure::from(Refusal::Deadline { waited })),
    })
}

fn defect() -> Failure {
    Failure::new(Code::Internal, "the node failed to answer; this is a defect, and its log has the details")
}

fn now() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Unix(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a person said yes; what to ask them, where they were not asked yet.
async fn confirmed(
    question: &str,
    response: Option<&Value>,
    context: &RequestContext<RoleServer>,
) -> Result<Option<InputRequiredResult>, Failure> {
    if let Some(response) = response {
        let answer = serde_json::from_value::<ElicitResult>(response.clone());
        return yes(answer.ok()).map(|()| None);
    }
    let params = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.to_owned(),
        requested_schema: ElicitationSchema::builder().required_bool(CONFIRM).build_unchecked(),
    };
    let modern = context.protocol_version().is_some_and(|v| v.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
    if modern {
        let form = context.client_capabilities().and_then(|c| c.elicitation);
        if form.is_none_or(|e| e.form.is_none() && e.url.is_some()) {
            return Err(unasked());
        }
        let ask = InputRequest::Elicitation(ElicitRequest::new(params));
        return Ok(Some(InputRequiredResult::from_input_requests([(CONFIRM.to_owned(), ask)].into())));
    }
    if !context.peer.supported_elicitation_modes().contains(&ElicitationMode::Form) {
        return Err(unasked());
    }
    let answer = context.peer.create_elicitation_with_timeout(params, Some(PERSON)).await;
    yes(answer.ok()).map(|()| None)
}

fn yes(answer: Option<ElicitResult>) -> Result<(), Failure> {
    let Some(answer) = answer else { return Err(unasked()) };
    let ticked = answer.content.is_some_and(|content| content[CONFIRM] == true);
    if answer.action == ElicitationAction::Accept && ticked {
        return Ok(());
    }
    Err(Failure::new(Code::ConfirmationRequired, "the user did not say yes; nothing was changed"))
}

fn unasked() -> Failure {
    Failure::new(Code::ConfirmationRequired, "this can't be undone; call again with confirm: true. Nothing was changed")
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
    let object = match done {
        Done::Answer(object) => object,
        Done::Ask(ask) => return Ok((*ask).into()),
    };
    let result = CallToolResult::structured(Value::Object(object));
    let bytes = result.content.first().and_then(|c| c.as_text()).map_or(0, |text| text.text.len());
    if bytes > ANSWER_BYTES {
        let error = format!("the answer has {bytes} bytes, and the limit is {ANSWER_BYTES}: ask for a smaller page");
        return Err(Failure::new(Code::PayloadTooLarge, error));
    }
    Ok(result.into())
}

fn refused(failure: &Failure, ids: Object) -> CallToolResponse {
    let mut envelope = failure.envelope();
    envelope.extend(ids);
    CallToolResult::structured_error(Value::Object(envelope)).into()
}

impl ServerHandler for Facade {
    fn get_info(&self) -> ServerConfig {
        static INFO: LazyLock<ServerConfig> = LazyLock::new(|| {
            let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
            info.server_info = Implementation::new("taskmesh", env!("CARGO_PKG_VERSION"));
            info.with_instructions(INSTRUCTIONS)
        });
        INFO.clone()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let list = ListToolsResult::with_all_items(tools().to_vec());
        Ok(list.with_ttl_ms(TOOLS_TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(operation) = ops::operation(&request.name) else { return Err(unknown_tool(&request.name)) };
        let ids = sent_ids(request.arguments.as_ref());
        let subject = ids.values().next().and_then(Value::as_str).unwrap_or_default();
        let span = tracing::info_span!("call", operation = operation.name, subject);
        let started = Instant::now();
        let run = self.run(operation, request, &context).instrument(span.clone());
        let outcome = within(CALL, &context.ct, run).await;
        let outcome = outcome.map(|done| done.and_then(answer));
        let code = match &outcome {
            None => "abandoned",
            Some(Ok(_)) => "ok",
            Some(Err(failure)) => failure.code.meaning().name,
        };
        (self.meter)(operation.name, code, started.elapsed());
        span.in_scope(|| match &outcome {
            Some(Err(failure)) => tracing::debug!(code, error = %failure, "refused"),
            _ => tracing::debug!(code, "done"),
        });
        match outcome {
            Some(Ok(response)) => Ok(response),
            Some(Err(failure)) => Ok(refused(&failure, ids)),
            None => Err(ErrorData::internal_error("the call was cancelled", None)),
        }
    }
}

fn unknown_tool(name: &str) -> ErrorData {
    let name: String = name.chars().take(64).collect();
    let why = if ops::ALL.contains(&name.as_str()) { "is not offered by this version" } else { "is not known" };
    ErrorData::invalid_params(format!("tool {name:?} {why}; tools/list has those there are"), None)
}

/// The definitions of all tools, in the order of the contract.
pub(crate) fn tools() -> &'static [Tool] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_is_answered() {
        let call = async { panic!("a planted panic") };
        let outcome = within::<()>(CALL, &CancellationToken::new(), call).await;
        assert_eq!(outcome.and_then(Result::err).map(|f| f.code), Some(Code::Internal));
    }

    #[tokio::test]
    async fn a_call_that_never_ends_is_answered_in_time() {
        let never = std::future::pending::<Result<(), Failure>>();
        let outcome = within(Duration::from_millis(5), &CancellationToken::new(), never).await;
        assert_eq!(outcome.and_then(Result::err).map(|f| f.code), Some(Code::DeadlineExceeded));
    }

    #[tokio::test]
    async fn a_call_is_let_go_when_its_client_has_gone() {
        let gone = CancellationToken::new();
        gone.cancel();
        assert!(within(CALL, &gone, std::future::pending::<Result<(), Failure>>()).await.is_none());
    }
}
