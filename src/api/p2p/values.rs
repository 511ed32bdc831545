//! `cache.*` of the foreign queue: values under keys of the callers, which the
//! mesh keeps beside its results of earlier tasks.

use super::queue::{Answer, No, object, seconds, text};
use crate::driver::Handle;
use crate::ops::mismatch;
use crate::ops::value::Object;
use serde_json::{Value, json};
use std::sync::Arc;
use taskmesh_core::cache::Finding;
use taskmesh_core::task::Data;
use taskmesh_core::{Command, Millis, Query, Reply, Request, limits};

pub(super) async fn get(node: &Handle, arguments: &Object) -> Answer {
    let key = key(arguments)?;
    let value = find(node, &key).await?;
    Ok(object(json!({"key": &*key, "hit": value.is_some(), "value": value})))
}

pub(super) async fn has(node: &Handle, arguments: &Object) -> Answer {
    let key = key(arguments)?;
    let hit = find(node, &key).await?.is_some();
    Ok(object(json!({"key": &*key, "hit": hit})))
}

pub(super) async fn set(node: &Handle, arguments: &Object) -> Answer {
    let name = key(arguments)?;
    let value = arguments.get("value").unwrap_or(&Value::Null);
    let ttl = match arguments.get("ttl_s") {
        None | Some(Value::Null) => None,
        Some(ttl) => Some(Millis((seconds("ttl_s", ttl)? * 1_000.0) as u64)),
    };
    let content = serde_json::to_vec(value).map_err(|e| No::invalid(format!("value: {e}")))?;
    let command = Command::KeepValue { name: name.clone(), content: Some(content.into()), ttl };
    match node.ask(Request::Command(command)).await? {
        Reply::ValueKept { expires } => Ok(object(json!({"key": &*name, "expires_at": expires.0 as f64 / 1_000.0}))),
        _ => Err(mismatch("cache.set").into()),
    }
}

pub(super) async fn delete(node: &Handle, arguments: &Object) -> Answer {
    let name = key(arguments)?;
    match node.ask(Request::Command(Command::KeepValue { name: name.clone(), content: None, ttl: None })).await? {
        Reply::Invalidated { copies, silent, .. } => {
            let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
            Ok(object(json!({"key": &*name, "deleted": copies > 0, "silent_nodes": silent})))
        }
        _ => Err(mismatch("cache.delete").into()),
    }
}

async fn find(node: &Handle, key: &Arc<str>) -> Result<Option<Value>, No> {
    match node.ask(Request::Query(Query::Value { name: key.clone() })).await? {
        Reply::Found(Finding::Hit { entry, .. }) => match &entry.report.result {
            Data::Inline(content) => Ok(serde_json::from_slice(content).ok()),
            Data::Blob { .. } => Ok(None),
        },
        Reply::Found(_) => Ok(None),
        _ => Err(mismatch("cache.get").into()),
    }
}

fn key(arguments: &Object) -> Result<Arc<str>, No> {
    match text(arguments, "key") {
        None => Err(No::new("missing_key", "say key: the value's name")),
        Some(key) if key.len() > limits::TEXT_BYTES => {
            Err(No::invalid(format!("key: has {} bytes; the limit is {}", key.len(), limits::TEXT_BYTES)))
        }
        Some(key) => Ok(key.into()),
    }
}
