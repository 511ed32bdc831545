//! Answers of what HTTP offers beside MCP, in the envelope of the operations.

use crate::ops::Failure;
use crate::ops::value::Object;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use taskmesh_core::Refusal;

/// The fields of a success, or the envelope of a failure with its status.
pub(super) fn respond(done: Result<Object, Failure>) -> Response {
    match done {
        Ok(fields) => {
            let all: Object = std::iter::once(("success".to_owned(), Value::Bool(true))).chain(fields).collect();
            Json(all).into_response()
        }
        Err(failure) => {
            let status = StatusCode::from_u16(failure.code.meaning().http);
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(failure.envelope())).into_response()
        }
    }
}

/// A field of the request that can't be right.
pub(super) fn invalid(field: &str, problem: &str) -> Failure {
    Refusal::Invalid { field: field.into(), problem: problem.into() }.into()
}
