//! Completion of ids and names, for the templates of resources and the
//! arguments of prompts.

use super::access::defect;
use super::resource::object;
use super::tool::ask;
use crate::driver::Handle;
use crate::ops::Failure;
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use taskmesh_core::limits;

/// Completes the value that a client has begun to write.
pub(super) async fn complete(handle: &Handle, request: &CompleteRequestParams) -> Result<CompleteResult, Failure> {
    #[cfg(feature = "conformance")]
    if let Some(values) = super::fixture::complete(request) {
        return Ok(CompleteResult::new(values));
    }
    let begun = request.argument.value.as_str();
    let found = match (&request.r#ref, request.argument.name.as_str()) {
        (Reference::Resource(template), "id") if template.uri.starts_with("mesh://tasks/") => {
            tasks(handle, begun).await?
        }
        (Reference::Prompt(_), "task_id") => tasks(handle, begun).await?,
        (Reference::Prompt(_), "task_type") => task_types(handle, begun).await?,
        _ => Found::default(),
    };
    let total = found.whole.then(|| u32::try_from(found.values.len()).unwrap_or(u32::MAX));
    let has_more = !found.whole || found.values.len() > CompletionInfo::MAX_VALUES;
    let values = found.values.into_iter().take(CompletionInfo::MAX_VALUES).collect();
    CompletionInfo::with_pagination(values, total, has_more).map(CompleteResult::new).map_err(|_| defect())
}

struct Found {
    values: Vec<String>,
    /// Everything was looked at.
    whole: bool,
}

impl Default for Found {
    fn default() -> Found {
        Found { values: Vec::new(), whole: true }
    }
}

/// Ids of tasks: those that have not ended first, because they are asked for
/// most, then any; a page of each is looked at.
async fn tasks(handle: &Handle, begun: &str) -> Result<Found, Failure> {
    let mut found = Found::default();
    for filter in [Some("running"), Some("queued"), None] {
        // A null argument is one that was not given.
        let asked = object(json!({"status_filter": filter, "limit": limits::PAGE}));
        let page = ask(handle, "task_list", asked).await?;
        found.whole &= page.get("has_more") == Some(&Value::Bool(false));
        let listed = page.get("tasks").and_then(Value::as_array).into_iter().flatten();
        for id in listed.filter_map(|task| task["task_id"].as_str()).filter(|id| id.starts_with(begun)) {
            if !found.values.iter().any(|known| known == id) {
                found.values.push(id.to_owned());
            }
        }
        if found.values.len() > CompletionInfo::MAX_VALUES {
            found.whole = false;
            break;
        }
    }
    Ok(found)
}

/// What some worker may run, without the details of executors.
async fn task_types(handle: &Handle, begun: &str) -> Result<Found, Failure> {
    let stats = ask(handle, "queue_stats", object(json!({"include_worker_stats": true}))).await?;
    let workers = stats.get("worker_stats").and_then(Value::as_array).into_iter().flatten();
    let capabilities = workers.flat_map(|worker| worker["capabilities"].as_array().into_iter().flatten());
    let types = capabilities.filter_map(Value::as_str).filter_map(|c| c.split(':').next());
    let types: BTreeSet<_> = types.filter(|t| t.starts_with(begun)).map(str::to_owned).collect();
    Ok(Found { values: types.into_iter().collect(), whole: true })
}
