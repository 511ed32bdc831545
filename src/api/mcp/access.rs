//! The one wrapper: every call of a tool, read of a resource, prompt and
//! subscription passes [`Facade::guarded`]. It bounds each in time, survives a
//! panic, lets go of what nobody waits for any more, counts it and traces it.
//! Whoever asks who may do what, asks here.

use super::uri::Uri;
use super::{Facade, trace};
use crate::api::audit::Act;
use crate::api::auth::Visitor;
use crate::driver::Handle;
use crate::ops::value::Object;
use crate::ops::{Code, Failure, Kind, Operation};
use futures::FutureExt as _;
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use taskmesh_core::{Millis, Refusal};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The longest call: the core's longest wait, and a margin for its answer.
const CALL: Duration = Duration::from_millis(taskmesh_core::limits::WAIT_MS + 2_000);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// An operation, and the id that it is about, if any.
    Tool(&'static Operation, &'a str),
    /// The names of what there is: resources, and completions of ids.
    List,
    /// A resource.
    Read(&'a Uri),
    /// News of a resource.
    Watch(&'a Uri),
    /// A prompt, which embeds what the mesh is doing.
    Prompt(&'static str),
    /// The state of a task, through the Tasks extension.
    Task(&'a str),
    /// A fixture of the conformance suite: it touches no node.
    #[cfg(feature = "conformance")]
    Fixture(&'static str),
}

impl Access<'_> {
    /// Its name in metrics, traces and logs: one of a fixed set.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Access::Tool(operation, _) => operation.name,
            Access::List => "resources/list",
            Access::Read(_) => "resources/read",
            Access::Watch(_) => "resources/subscribe",
            Access::Prompt(_) => "prompts/get",
            Access::Task(_) => "tasks/get",
            #[cfg(feature = "conformance")]
            Access::Fixture(_) => "fixture",
        }
    }

    /// The operation whose role it needs.
    fn operation(&self) -> &'static str {
        match self {
            Access::Tool(operation, _) => operation.name,
            Access::List => "task_list",
            Access::Read(uri) | Access::Watch(uri) => match uri {
                Uri::Task(_) => "task_status",
                Uri::Queue | Uri::Workers => "queue_stats",
                Uri::Peers => "peer_list",
                // Payloads may hold what others should not see: whoever may clear the queue may have them.
                Uri::Submission(_) => "queue_clear",
                Uri::Blob { .. } => "task_result",
            },
            Access::Prompt(_) => "queue_stats",
            Access::Task(_) => "task_result",
            #[cfg(feature = "conformance")]
            Access::Fixture(_) => "queue_stats",
        }
    }

    /// The node, if `visitor` may do that.
    fn enter(&self, facade: &Facade, visitor: &Visitor) -> Result<Handle, Failure> {
        let node = facade.node.gate.enter(&visitor.caller, self.operation())?;
        let by_hash = matches!(self, Access::Read(Uri::Blob { .. }));
        if by_hash && visitor.authority().is_some_and(|authority| authority.is_scoped()) {
            let error = "content is not told apart by task: a token that is limited to some tasks reads what a task \
                         left with task_result";
            return Err(Failure::new(Code::PermissionDenied, error));
        }
        Ok(node)
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "call",
            operation = self.name(),
            subject = self.subject(),
            trace_id = tracing::field::Empty,
            parent_id = tracing::field::Empty
        )
    }

    /// What it is about, for the trace; bounded.
    fn subject(&self) -> String {
        match self {
            Access::Tool(_, id) | Access::Task(id) => id.chars().take(256).collect(),
            Access::Read(uri) | Access::Watch(uri) => uri.to_string(),
            Access::Prompt(name) => (*name).to_owned(),
            Access::List => String::new(),
            #[cfg(feature = "conformance")]
            Access::Fixture(name) => (*name).to_owned(),
        }
    }
}

impl Facade {
    /// Runs `call` for a client with the node, if the client may; `None`: the
    /// client has gone.
    pub(super) async fn guarded<T>(
        &self,
        access: Access<'_>,
        context: &RequestContext<RoleServer>,
        call: impl AsyncFnOnce(Handle) -> Result<T, Failure>,
    ) -> Option<Result<T, Failure>> {
        let span = access.span();
        let trace = trace::record(&context.meta, &span);
        let run = async { self.traced(&access, access.enter(self, &Visitor::of(context)?)?, trace, call).await };
        self.measured(access.name(), span, &context.ct, run).await
    }

    /// Runs `call` for a client that is not told of by rmcp. Dropping the
    /// future lets go of it.
    pub(super) async fn guarded_plainly<T>(
        &self,
        access: Access<'_>,
        visitor: &Visitor,
        call: impl AsyncFnOnce(Handle) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let never = CancellationToken::new();
        let run = async { self.traced(&access, access.enter(self, visitor)?, None, call).await };
        self.measured(access.name(), access.span(), &never, run).await.unwrap_or_else(|| Err(defect()))
    }

    /// Runs `call` in a span of its own.
    async fn traced<T>(
        &self,
        access: &Access<'_>,
        node: Handle,
        trace: Option<&str>,
        call: impl AsyncFnOnce(Handle) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (node, span) = node.for_call(access.name(), &access.subject(), trace);
        let outcome = call(node).await;
        if let Some(span) = span {
            span.end(code(Some(&outcome)));
        }
        outcome
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        span: tracing::Span,
        gone: &CancellationToken,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Option<Result<T, Failure>> {
        let started = Instant::now();
        let outcome = within(CALL, gone, call.instrument(span.clone())).await;
        let code = code(outcome.as_ref());
        (self.node.meter)(operation, code, started.elapsed());
        span.in_scope(|| match &outcome {
            Some(Err(failure)) => tracing::debug!(code, error = %failure, "refused"),
            _ => tracing::debug!(code, "done"),
        });
        outcome
    }
}

impl Facade {
    /// Writes down a call that would change something, whatever came of it.
    pub(super) fn note(&self, operation: &Operation, visitor: &Result<Visitor, Failure>, code: &str, about: &Object) {
        let (Ok(visitor), true) = (visitor, operation.kind != Kind::Read) else { return };
        let ids = about.iter().filter_map(|(name, id)| Some((name.as_str(), id.as_str()?)));
        self.node.audit.record(&Act::of(visitor, operation.name, code, ids));
    }
}

/// What a call came to, in one of a fixed set of words.
pub(super) fn code<T>(outcome: Option<&Result<T, Failure>>) -> &'static str {
    match outcome {
        None => "abandoned",
        Some(Ok(_)) => "ok",
        Some(Err(failure)) => failure.code.meaning().name,
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

/// What a caller is told of a defect of the node.
pub(super) fn defect() -> Failure {
    Failure::new(Code::Internal, "the node failed to answer; this is a defect, and its log has the details")
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
