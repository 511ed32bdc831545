//! Who may ask. A peer id proves who speaks, and is no authority: that is in a
//! token, which every request carries or which `initialize` carried for its
//! stream. All authorisation of this face goes through [`Authority::admit`].

use super::reply::Fault;
use crate::ops::value::Object;
use serde_json::Value;

/// The key of the token in `_meta`.
pub const TOKEN_KEY: &str = "taskmesh/token";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// The token that the request carries.
    pub(super) token: Option<&'a str>,
    /// Its stream was opened by an `initialize` with a right token.
    pub(super) greeted: bool,
    /// The method, or the tool.
    pub(super) what: &'a str,
}

/// Who may do what: at present, whoever has the node's token, everything.
pub(super) struct Authority {
    token: blake3::Hash,
}

impl Authority {
    pub(super) fn new(token: &str) -> Authority {
        Authority { token: blake3::hash(token.as_bytes()) }
    }

    /// Whether it may be done. A token that is shown decides, also where the
    /// stream was greeted with a right one. Hashes are compared, in constant
    /// time, so that a wrong token tells nothing about the right one.
    pub(super) fn admit(&self, wish: &Wish<'_>) -> Result<(), Fault> {
        let admitted = match wish.token {
            Some(token) => blake3::hash(token.as_bytes()) == self.token,
            None => wish.greeted,
        };
        if admitted {
            return Ok(());
        }
        tracing::debug!(what = wish.what, shown = wish.token.is_some(), "refused: no token, or a wrong one");
        let how = format!("send the node's token as params._meta[{TOKEN_KEY:?}], in `initialize` or in each request");
        Err(Fault::new(-32001, "unauthorized").because(how))
    }
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
