//! Tokens of the mesh, over HTTP beside MCP: made, listed and revoked by
//! admins. They are no operations of the contract: a program that runs tasks
//! has no use for them.

use super::external::SUBJECT;
use super::{ADMIN, Gate, Visitor, nonce, to_text};
use crate::api::answer::{invalid, respond};
use crate::api::audit::{Act, Audit};
use crate::driver::wall_clock;
use crate::ops::value::{Object, time};
use crate::ops::{Code, Failure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{delete, get};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use taskmesh_core::authority::{Authority, Caveats, Role, TokenId};
use taskmesh_core::register::Issued;
use taskmesh_core::task::Priority;
use taskmesh_core::{Command, Millis, Query, Reply, Request, limits};

/// Where they are, beside the MCP endpoint.
pub const PATH: &str = "/tokens";
/// The longest body: 32 types and 32 tags of the longest, and room.
const BODY_BYTES: usize = 32 * 1024;
/// How long a token lives unless something else is asked for.
pub const LIFETIME_S: u64 = 30 * 86_400;

/// A token to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Whose it is: 1 to 200 bytes.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Seconds from now, at most 366 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// What else it is limited to.
    #[serde(default)]
    pub limits: Limits,
}

/// What narrows a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tasks of these types alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_types: Vec<String>,
    /// Tasks that carry one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// No greater priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_max: Option<f64>,
    /// Calls on one node in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<u32>,
    /// Its own tasks alone.
    #[serde(default)]
    pub own: bool,
}

impl Limits {
    /// As a token says them.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn caveats(&self) -> Result<Caveats, Failure> {
        let shared = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        let priority = |value| Priority::new(value).ok_or_else(|| invalid("priority_max", "must be above 0"));
        Ok(Caveats {
            role: None,
            task_types: shared(&self.task_types),
            tags: shared(&self.tags),
            priority_max: self.priority_max.map(priority).transpose()?,
            calls_per_minute: self.calls_per_minute,
            expires: None,
            own: self.own,
        })
    }
}

/// The limits of `authority`, in words; empty: none.
#[must_use]
pub fn in_words(authority: &Authority) -> String {
    let mut words = Vec::new();
    if let Some(types) = &authority.task_types {
        words.push(format!("types {}", joined(types)));
    }
    words.extend(authority.tags.iter().map(|set| format!("tags {}", joined(set))));
    words.extend(authority.priority_max.map(|max| format!("priority at most {}", max.value())));
    words.extend(authority.rates.iter().map(|(_, rate)| format!("{rate} calls a minute")));
    words.extend(authority.own.then(|| "own tasks".to_owned()));
    words.join("; ")
}

fn joined<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    names.into_iter().map(|name| &**name).collect::<Vec<_>>().join(",")
}

/// What the routes stand on.
#[derive(Clone)]
struct Office {
    gate: Gate,
    audit: Audit,
}

/// `POST /tokens`, `GET /tokens` and `DELETE /tokens/{id}`. Who calls is told
/// by an extension, [`Visitor`], of each request.
pub(in crate::api) fn routes(gate: Gate, audit: Audit) -> Router {
    Router::new()
        .route(PATH, get(list).post(create))
        .route("/tokens/{id}", delete(revoke))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Office { gate, audit })
}

async fn create(State(office): State<Office>, Extension(visitor): Extension<Visitor>, body: Bytes) -> Response {
    let (done, id) = match office.create(&visitor, &body).await {
        Ok((object, id)) => (Ok(object), id.to_string()),
        Err(failure) => (Err(failure), String::new()),
    };
    office.answered(&visitor, "token_create", &id, done)
}

async fn list(State(office): State<Office>, Extension(visitor): Extension<Visitor>) -> Response {
    respond(office.list(&visitor).await)
}

async fn revoke(
    State(office): State<Office>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    let id: String = id.chars().take(64).collect();
    let done = office.revoke(&visitor, &id).await;
    office.answered(&visitor, "token_revoke", &id, done)
}

impl Office {
    async fn create(&self, visitor: &Visitor, body: &[u8]) -> Result<(Object, TokenId), Failure> {
        let handle = self.gate.enter(&visitor.caller, "token_create")?;
        let wanted: Wanted = serde_json::from_slice(body).map_err(|e| invalid("body", &e.to_string()))?;
        let role: Role = wanted.role.parse().map_err(|e| invalid("role", &format!("{e}")))?;
        if wanted.name == ADMIN || wanted.name.starts_with(SUBJECT) {
            return Err(invalid("name", "must not be admin or start with jwt:, which stand for others"));
        }
        let now = wall_clock();
        let span = Millis(wanted.expires_in.unwrap_or(LIFETIME_S).saturating_mul(1_000));
        if span.0 == 0 || span > taskmesh_core::token::LIFETIME {
            return Err(invalid("expires_in", "must be 1 second to 366 days"));
        }
        let caveats = Caveats { expires: Some(now + span), ..wanted.limits.caveats()? };
        let token = self.gate.root().mint(nonce()?, &wanted.name, role, &caveats);
        let token = token.map_err(|e| invalid("token", &e.to_string()))?;
        let bearer = self.gate.root().verify(token, now).map_err(|e| invalid("token", &e.to_string()))?;
        self.is_no_more_than(visitor, bearer.authority())?;
        let mut words = in_words(bearer.authority());
        words.truncate(words.floor_char_boundary(limits::TEXT_BYTES));
        let entry = Issued {
            id: bearer.token().id(),
            subject: wanted.name.as_str().into(),
            role: Some(role),
            limits: words.into(),
            by: visitor.caller.subject().cloned().unwrap_or_default(),
            at: now,
            expires: bearer.authority().expires,
            revoked: None,
        };
        handle.ask(Request::Command(Command::Issue(Box::new(entry.clone())))).await?;
        let mut object = described(&entry);
        object.insert("token".to_owned(), to_text(bearer.token()).into());
        Ok((object, entry.id))
    }

    /// An admin's token can be limited too, and must not make one without its
    /// limits.
    fn is_no_more_than(&self, visitor: &Visitor, made: &Authority) -> Result<(), Failure> {
        let Some(maker) = visitor.authority().filter(|_| !self.gate.is_owner(&visitor.caller)) else { return Ok(()) };
        let denied = |why: &str| Err(Failure::new(Code::PermissionDenied, why));
        if maker.is_scoped() || !maker.rates.is_empty() || maker.priority_max.is_some() {
            return denied("a token with limits makes no other; attenuate it instead: `taskmesh token attenuate`");
        }
        if made.expires > maker.expires {
            return denied("it would live longer than the token that makes it; ask for a shorter time");
        }
        Ok(())
    }

    async fn list(&self, visitor: &Visitor) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "token_list")?;
        let Reply::Tokens(entries) = handle.ask(Request::Query(Query::Tokens)).await? else {
            return Err(crate::ops::mismatch("token_list"));
        };
        let tokens: Vec<Value> = entries.iter().map(|entry| Value::Object(described(entry))).collect();
        Ok(Object::from_iter([("tokens".to_owned(), Value::Array(tokens))]))
    }

    async fn revoke(&self, visitor: &Visitor, id: &str) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "token_revoke")?;
        let id: TokenId = id.parse().map_err(|e| invalid("id", &format!("{e}")))?;
        let Reply::Token(entry) = handle.ask(Request::Command(Command::Revoke(id))).await? else {
            return Err(crate::ops::mismatch("token_revoke"));
        };
        Ok(described(&entry))
    }

    fn answered(&self, visitor: &Visitor, operation: &str, id: &str, done: Result<Object, Failure>) -> Response {
        let code = done.as_ref().map_or_else(|failure| failure.code.meaning().name, |_| "ok");
        let ids = [("token_id", id)].into_iter().filter(|(_, id)| !id.is_empty());
        self.audit.record(&Act::of(visitor, operation, code, ids));
        respond(done)
    }
}

fn described(entry: &Issued) -> Object {
    let status = match entry.revoked {
        Some(_) => "revoked",
        None if entry.expires <= wall_clock() => "expired",
        None => "valid",
    };
    let fields = json!({
        "id": entry.id.to_string(),
        "name": &*entry.subject,
        "role": entry.role.map(Role::name),
        "status": status,
        "limits": &*entry.limits,
        "expires_at": time(entry.expires),
        "created_at": time(entry.at),
        "created_by": &*entry.by,
        "revoked_at": entry.revoked.map(time),
    });
    let Value::Object(fields) = fields else { unreachable!("written as an object above") };
    fields
}
