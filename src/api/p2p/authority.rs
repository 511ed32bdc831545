//! Who asks. A peer id proves who speaks, and is no authority: that is in a
//! token, which every request carries or which `initialize` carried for its
//! stream. All authorisation of this face goes through [`admit`] and the gate
//! behind it.

use super::reply::Fault;
use crate::api::auth::{Gate, Visitor};
use crate::ops::value::Object;
use serde_json::Value;
use std::sync::Arc;

/// The key of the token in `_meta`.
pub const TOKEN_KEY: &str = "taskmesh/token";

/// Whoever shows `token`, over the connection of `peer`. A token that is shown
/// decides, also where the stream was `greeted` with a right one.
pub(super) async fn admit(
    gate: &Gate,
    peer: &Arc<str>,
    token: Option<&str>,
    greeted: Option<&Visitor>,
) -> Result<Visitor, Fault> {
    let why = match (token, greeted) {
        (Some(token), _) => match gate.admit(token.as_bytes()).await {
            Ok(caller) => return Ok(Visitor { caller, transport: "libp2p", peer: Some(peer.clone()) }),
            Err(failure) => failure.error,
        },
        (None, Some(visitor)) if gate.holds(&visitor.caller) => return Ok(visitor.clone()),
        (None, Some(_)) => "the token of this stream has ended or was revoked".to_owned(),
        (None, None) => format!("send a token as params._meta[{TOKEN_KEY:?}], in `initialize` or in each request"),
    };
    tracing::debug!(peer = &**peer, shown = token.is_some(), "refused: no token, or a wrong one");
    Err(Fault::new(-32001, "unauthorized").because(why))
}

/// Takes the token out of the parameters of a request: `_meta`, `token`, or
/// `arguments.token` of a tool that has none of that name itself.
pub(super) fn token_of(params: &mut Object) -> Option<String> {
    let in_meta = params.get_mut("_meta").and_then(Value::as_object_mut).and_then(|meta| meta.remove(TOKEN_KEY));
    let beside = params.remove("token");
    let in_arguments =
        params.get_mut("arguments").and_then(Value::as_object_mut).and_then(|arguments| arguments.remove("token"));
    let found = in_meta.or(beside).or(in_arguments)?;
    match found {
        Value::String(token) => Some(token),
        // Shown, and wrong.
        _ => Some(String::new()),
    }
}
