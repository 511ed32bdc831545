//! What the official conformance suite asks of a server besides its protocol:
//! tools, resources and prompts by fixed names, with fixed answers. They are in
//! no build but one with the feature `conformance`, and they go the way of every
//! tool: the same transport, guard, wrapper and handler. Only those of the Tasks
//! extension touch the node.

mod asking;
mod talking;
mod working;

use crate::driver::Handle;
use crate::ops::Failure;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompletionInfo, ContentBlock,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, ListResourcesResult, Prompt, PromptArgument,
    PromptMessage, ReadResourceResponse, ReadResourceResult, Reference, Resource, ResourceContents, ResourceTemplate,
    Role, ServerCapabilities, Tool,
};
use rmcp::service::{RequestContext, SubscriptionSink};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use std::sync::{LazyLock, Mutex, PoisonError};

/// One red pixel, PNG.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";
/// No samples, WAV.
const SILENCE: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

/// What the suite expects to be declared beyond what a node has.
pub(super) fn more(mut capabilities: ServerCapabilities) -> ServerCapabilities {
    capabilities.logging = Some(serde_json::Map::new());
    if let Some(tools) = &mut capabilities.tools {
        tools.list_changed = Some(true);
    }
    if let Some(prompts) = &mut capabilities.prompts {
        prompts.list_changed = Some(true);
    }
    capabilities
}

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let mut tools: Vec<Tool> = NAMES.iter().map(|name| Tool::new(*name, "A fixture.", schema(name))).collect();
    tools.iter_mut().for_each(|tool| tool.title = Some(tool.name.to_string()));
    tools
});

const NAMES: [&str; 32] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "json_schema_2020_12_tool",
    "test_custom_header",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "greet",
    "slow_compute",
    "failing_job",
    "confirm_delete",
    "test_tool_with_task",
];

fn schema(name: &str) -> serde_json::Map<String, Value> {
    let schema = match name {
        "test_sampling" => {
            json!({"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]})
        }
        "test_elicitation" => {
            json!({"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]})
        }
        "slow_compute" => json!({"type": "object", "required": ["seconds"], "properties": {
            "seconds": {"type": "number"}, "label": {"type": "string"}}}),
        "greet" => json!({"type": "object", "properties": {"name": {"type": "string"}}}),
        "confirm_delete" => json!({"type": "object", "properties": {"filename": {"type": "string"}}}),
        "test_custom_header" => json!({"type": "object", "required": ["value"],
            "properties": {"value": {"type": "string", "x-mcp-header": "Value"}}}),
        "json_schema_2020_12_tool" => json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"address": {"$anchor": "address", "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
            "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
            "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
            "if": {"required": ["address"]},
            "then": {"properties": {"address": {"required": ["street"]}}},
            "else": {"required": ["name"]},
            "additionalProperties": false
        }),
        _ => json!({"type": "object", "properties": {}}),
    };
    super::resource::object(schema)
}

pub(super) fn tools() -> Vec<Tool> {
    TOOLS.clone()
}

pub(super) fn tool(name: &str) -> Option<Tool> {
    TOOLS.iter().find(|tool| tool.name == name).cloned()
}

/// The name of a fixture, if it is one.
pub(super) fn name_of(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

type Called = Result<CallToolResponse, ErrorData>;

pub(super) async fn call(
    name: &'static str,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
    node: &Handle,
) -> Result<Called, Failure> {
    if working::NAMES.contains(&name) {
        return working::call(name, &request, node, context).await;
    }
    Ok(answer(name, request, context).await)
}

/// What touches no node.
async fn answer(name: &'static str, request: CallToolRequestParams, context: &RequestContext<RoleServer>) -> Called {
    if name.starts_with("test_input_required_result_") || name == "test_streaming_elicitation" {
        return asking::call(name, &request, &context.meta);
    }
    let argument = |name: &str| request.arguments.as_ref().and_then(|a| a.get(name)).and_then(Value::as_str);
    let content = match name {
        "test_simple_text" => vec![ContentBlock::text("This is a simple text response for testing.")],
        "test_image_content" => vec![ContentBlock::image(PIXEL, "image/png")],
        "test_audio_content" => vec![ContentBlock::audio(SILENCE, "audio/wav")],
        "test_embedded_resource" => vec![ContentBlock::resource(
            ResourceContents::text("This is an embedded resource content.", "test://embedded-resource")
                .with_mime_type("text/plain"),
        )],
        "test_multiple_content_types" => vec![
            ContentBlock::text("Multiple content types test:"),
            ContentBlock::image(PIXEL, "image/png"),
            ContentBlock::resource(
                ResourceContents::text(r#"{"test":"data","value":123}"#, "test://mixed-content-resource")
                    .with_mime_type("application/json"),
            ),
        ],
        "test_error_handling" => {
            let said = ContentBlock::text("This tool intentionally returns an error for testing");
            return Ok(CallToolResult::error(vec![said]).into());
        }
        "json_schema_2020_12_tool" => {
            vec![ContentBlock::text(format!("Hello, {}!", argument("name").unwrap_or("world")))]
        }
        "test_custom_header" => {
            let value = argument("value").ok_or_else(|| ErrorData::invalid_params("value must be a string", None))?;
            vec![ContentBlock::text(value)]
        }
        _ => return talking::call(name, argument("prompt").or(argument("message")), context).await,
    };
    Ok(CallToolResult::success(content).into())
}

/// Who is told of changed lists.
static LISTENERS: Mutex<Vec<SubscriptionSink>> = Mutex::new(Vec::new());

/// Told of changed lists until this is dropped.
pub(super) struct Listening(rmcp::model::RequestId);

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|sink| *sink.id() != self.0);
    }
}

pub(super) fn listening(sink: &SubscriptionSink) -> Listening {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).push(sink.clone());
    Listening(sink.id().clone())
}

fn listeners() -> Vec<SubscriptionSink> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(super) fn with_resources(mut list: ListResourcesResult) -> ListResourcesResult {
    let fixed = [
        Resource::new("test://static-text", "Static Text Resource").with_mime_type("text/plain"),
        Resource::new("test://static-binary", "Static Binary Resource").with_mime_type("image/png"),
    ];
    list.resources.extend(fixed.map(|resource| resource.with_description("A fixture.")));
    list
}

pub(super) fn templates() -> Vec<ResourceTemplate> {
    let template = ResourceTemplate::new("test://template/{id}/data", "Dynamic Resource");
    vec![template.with_description("A fixture.").with_mime_type("application/json")]
}

pub(super) fn read(uri: &str) -> Option<ReadResourceResponse> {
    let contents = match uri {
        "test://static-text" => {
            let text = "This is the content of the static text resource.";
            ResourceContents::text(text, uri).with_mime_type("text/plain")
        }
        "test://static-binary" => ResourceContents::blob(PIXEL, uri).with_mime_type("image/png"),
        "test://watched-resource" => ResourceContents::text("watched", uri).with_mime_type("text/plain"),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let text = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            ResourceContents::text(text.to_string(), uri).with_mime_type("application/json")
        }
    };
    Some(ReadResourceResult::new(vec![contents]).into())
}

pub(super) fn prompts() -> Vec<Prompt> {
    let argument = |name: &str, required| PromptArgument::new(name).with_description("A text.").with_required(required);
    let prompt = |name: &str, arguments| Prompt::new(name, Some("A fixture."), arguments);
    vec![
        prompt("test_simple_prompt", None),
        prompt("test_prompt_with_arguments", Some(vec![argument("arg1", true), argument("arg2", false)])),
        prompt("test_prompt_with_embedded_resource", Some(vec![argument("resourceUri", true)])),
        prompt("test_prompt_with_image", None),
        prompt("test_input_required_result_prompt", None),
    ]
}

pub(super) fn prompt(request: &GetPromptRequestParams) -> Option<GetPromptResponse> {
    let argument = |name: &str| request.arguments.as_ref().and_then(|a| a.get(name)).and_then(Value::as_str);
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![PromptMessage::new_text(Role::User, "This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let [first, second] = ["arg1", "arg2"].map(|name| argument(name).unwrap_or_default());
            let text = format!("Prompt with arguments: arg1='{first}', arg2='{second}'");
            vec![PromptMessage::new_text(Role::User, text)]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = argument("resourceUri").unwrap_or("test://static-text");
            let contents = ResourceContents::text("Embedded resource content for testing.", uri);
            vec![
                PromptMessage::new(Role::User, ContentBlock::resource(contents.with_mime_type("text/plain"))),
                PromptMessage::new_text(Role::User, "Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => vec![
            PromptMessage::new(Role::User, ContentBlock::image(PIXEL, "image/png")),
            PromptMessage::new_text(Role::User, "Please analyze the image above."),
        ],
        "test_input_required_result_prompt" => return Some(asking::prompt(request)),
        _ => return None,
    };
    Some(GetPromptResult::new(messages).with_description("A fixture").into())
}

pub(super) fn complete(request: &CompleteRequestParams) -> Option<CompletionInfo> {
    let fixture = match &request.r#ref {
        Reference::Prompt(prompt) => prompt.name.starts_with("test_"),
        Reference::Resource(resource) => resource.uri.starts_with("test://"),
        _ => false,
    };
    let all = ["paris", "park", "party"].map(str::to_owned).into_iter();
    let begun = all.filter(|value| value.starts_with(&request.argument.value)).collect();
    fixture.then(|| CompletionInfo::with_all_values(begun).ok())?
}
