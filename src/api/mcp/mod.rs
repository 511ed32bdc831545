//! The MCP server of one node: what the protocol asks, sent to the module of
//! its noun. Everything that asks the node passes [`access`], the one wrapper.

mod access;
mod complete;
mod confirm;
mod feed;
#[cfg(feature = "conformance")]
#[allow(deprecated, reason = "the suite asks for what the newest era gives up: logging, sampling, roots")]
mod fixture;
mod progress;
mod prompt;
mod resource;
mod subscription;
mod task;
mod template;
mod tool;
mod trace;
pub(super) mod uri;

#[cfg(test)]
mod tests;

pub use feed::Feed;
#[cfg(test)]
pub(super) use tool::tools;
pub(super) use tool::{READ_ONLY, TOOLSETS, ask};

use super::Meter;
use super::audit::Audit;
use super::auth::{Gate, Visitor};
use crate::ops::{Failure, Offer};
use crate::templates::Shelf;
use access::Access;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, SubscribeRequestParams,
    SubscriptionFilter, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::sync::{Arc, LazyLock};
use subscription::Subscriptions;
use tokio::sync::Semaphore;

/// How long a client may keep a list that is fixed for a process.
const FIXED_TTL_MS: u64 = 3_600_000;

const INSTRUCTIONS: &str = "A mesh of nodes that run tasks. task_submit hands work over, task_result with wait_ms waits for \
    it. Any node answers for any task. Failures say what to do; `retryable` says whether to repeat. \
    mesh://tasks/{id} can be subscribed to.";

/// The MCP server of one node, as one connection sees it.
#[derive(Clone)]
pub(crate) struct Facade {
    node: Arc<Node>,
    /// Those of a legacy session; a modern client's live in its own request.
    subscriptions: Arc<Subscriptions>,
}

/// What all connections share.
struct Node {
    gate: Gate,
    audit: Audit,
    meter: Meter,
    feed: Feed,
    places: Arc<Semaphore>,
    offer: Offer,
    templates: Shelf,
}

impl Facade {
    pub(crate) fn new(gate: Gate, audit: Audit, meter: Meter, feed: Feed, offer: Offer, templates: Shelf) -> Facade {
        let node = Node { gate, audit, meter, feed, places: subscription::places(), offer, templates };
        Facade { node: Arc::new(node), subscriptions: Arc::default() }
    }

    /// The same server for one more connection.
    pub(crate) fn for_connection(&self) -> Facade {
        Facade { node: self.node.clone(), subscriptions: Arc::default() }
    }
}

fn capabilities() -> ServerCapabilities {
    let capabilities = ServerCapabilities::builder()
        .enable_tools()
        .enable_resources()
        .enable_resources_subscribe()
        .enable_prompts()
        .enable_completions()
        .enable_tasks()
        .build();
    #[cfg(feature = "conformance")]
    let capabilities = fixture::more(capabilities);
    capabilities
}

impl ServerHandler for Facade {
    fn get_info(&self) -> ServerConfig {
        static INFO: LazyLock<ServerConfig> = LazyLock::new(|| {
            let mut info = ServerConfig::new(capabilities());
            info.server_info = Implementation::new("taskmesh", env!("CARGO_PKG_VERSION")).with_title("Task mesh");
            info.with_instructions(INSTRUCTIONS)
        });
        INFO.clone()
    }

    /// Asked for parameters that go in headers as well: no operation has any.
    #[cfg(feature = "conformance")]
    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        fixture::tool(name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let offer = self.offered(&context)?;
        let visitor = Visitor::of(&context).map_err(|e| protocol_error(&e))?;
        let list = tool::list(&offer, &visitor);
        #[cfg(feature = "conformance")]
        let list = [list, fixture::tools()].concat();
        // What one token may call is nothing for a cache that others share.
        Ok(ListToolsResult::with_all_items(list).with_ttl_ms(FIXED_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(name) = fixture::name_of(&request.name) {
            let call = async |node| fixture::call(name, request, &context, &node).await;
            return answered(self.guarded(Access::Fixture(name), &context, call).await)?;
        }
        self.call(request, &context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|r| r.cursor);
        let listed = async |node| resource::list(&node, cursor).await;
        let list = answered(self.guarded(Access::List, &context, listed).await)?;
        #[cfg(feature = "conformance")]
        let list = fixture::with_resources(list);
        Ok(list)
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = resource::templates();
        #[cfg(feature = "conformance")]
        let templates = [templates, fixture::templates()].concat();
        let list = ListResourceTemplatesResult::with_all_items(templates);
        Ok(list.with_ttl_ms(FIXED_TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(read) = fixture::read(&request.uri) {
            return answered(self.guarded(Access::Fixture("resource"), &context, async |_| Ok(read)).await);
        }
        let uri = uri::Uri::parse(&request.uri).map_err(|e| protocol_error(&e.into()))?;
        let read = async |node| resource::read(&node, &uri, &request.uri).await;
        answered(self.guarded(Access::Read(&uri), &context, read).await).map(Into::into)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(subscription::accepted(requested))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        #[cfg(feature = "conformance")]
        let _told = fixture::listening(context.sink());
        self.relay(&context).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        #[cfg(feature = "conformance")]
        if fixture::read(&request.uri).is_some() {
            return Ok(());
        }
        self.subscribed(request.uri, context).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscriptions.end(&request.uri);
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = prompt::prompts();
        #[cfg(feature = "conformance")]
        let prompts = [prompts, fixture::prompts()].concat();
        let list = ListPromptsResult::with_all_items(prompts);
        Ok(list.with_ttl_ms(FIXED_TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(prompt) = fixture::prompt(&request) {
            return answered(self.guarded(Access::Fixture("prompt"), &context, async |_| Ok(prompt)).await);
        }
        let asked = prompt::Asked::of(&request).map_err(|e| protocol_error(&e))?;
        let written = async |node| prompt::write(&node, &asked).await;
        answered(self.guarded(Access::Prompt(asked.name()), &context, written).await).map(Into::into)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let completed = async |node| complete::complete(&node, &request).await;
        answered(self.guarded(Access::List, &context, completed).await)
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let look = async |node| task::look(&node, &request.task_id).await;
        answered(self.guarded(Access::Task(&request.task_id), &context, look).await)
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let offer = self.offered(&context)?;
        let operation = task::standing_for("workflow_submit", &offer).map_err(|e| protocol_error(&e))?;
        let update = async |node| task::update(&node, &request.task_id, &request.input_responses).await;
        let done = self.guarded(Access::Tool(operation, &request.task_id), &context, update).await;
        let about = tool::named("task_id", &request.task_id);
        self.note(operation, &Visitor::of(&context), access::code(done.as_ref()), &about);
        answered(done)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let offer = self.offered(&context)?;
        let operation = task::standing_for("task_cancel", &offer).map_err(|e| protocol_error(&e))?;
        let cancel = async |node| task::cancel(&node, &request.task_id).await;
        let done = self.guarded(Access::Tool(operation, &request.task_id), &context, cancel).await;
        let about = tool::named("task_id", &request.task_id);
        self.note(operation, &Visitor::of(&context), access::code(done.as_ref()), &about);
        answered(done)
    }

    #[cfg(feature = "conformance")]
    #[allow(deprecated, reason = "the suite asks for it of servers of 2025-11-25")]
    async fn set_level(
        &self,
        _: rmcp::model::SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }
}

/// The outcome of the wrapper where there is no place for a failure but an error
/// of the protocol.
fn answered<T>(outcome: Option<Result<T, Failure>>) -> Result<T, ErrorData> {
    match outcome {
        Some(Ok(done)) => Ok(done),
        Some(Err(failure)) => Err(protocol_error(&failure)),
        None => Err(gone()),
    }
}

/// What is said to nobody: the client has gone.
fn gone() -> ErrorData {
    ErrorData::internal_error("the call was cancelled", None)
}

/// A failure as an error of the protocol; the envelope goes with it.
fn protocol_error(failure: &Failure) -> ErrorData {
    use crate::ops::Code;
    let data = Some(serde_json::Value::Object(failure.envelope()));
    let message = failure.error.clone();
    match failure.code {
        Code::NotFound => ErrorData::resource_not_found(message, data),
        Code::InvalidArgument => ErrorData::invalid_params(message, data),
        Code::Internal => ErrorData::internal_error(message, data),
        _ => ErrorData::new(REFUSED, message, data),
    }
}

/// A refusal that the protocol has no code for: -32000 to -32019 are free for servers.
const REFUSED: rmcp::model::ErrorCode = rmcp::model::ErrorCode(-32000);
