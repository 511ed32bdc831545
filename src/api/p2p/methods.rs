//! The methods of this face: what each is, and who may ask for it.

use super::authority::{admit, token_of};
use super::dialect::Dialect;
use super::queue::{self, Queue};
use super::quota::Limits;
use super::reply::{Fault, Outcome};
use crate::api::auth::{Gate, Visitor};
use crate::api::client::PROTOCOL as MODERN;
use crate::api::mcp::Facade;
use crate::ops::interface;
use crate::ops::value::Object;
use crate::ops::{self, Failure};
use serde_json::{Value, json};
use std::sync::Arc;

/// The protocol of the streams.
const TRANSPORT: &str = "/mcp+p2p/1.0.0";
/// The revisions of MCP that `initialize` may name; the newest is offered to
/// whoever names another.
const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Additions to MCP that clients of the same family ask for.
const PROFILES: [&str; 2] = ["mcp++/p2p-transport", "mcp++/mcp-idl"];
/// How long a client may keep what is fixed for a version of the program.
const TTL_MS: u64 = 3_600_000;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The peer, proven by its connection.
    pub(super) peer: Arc<str>,
    /// How its stream speaks.
    pub(super) dialect: Dialect,
    /// Who it is by its token; greetings need none.
    pub(super) visitor: Option<Visitor>,
}

impl Caller {
    /// Who it is, where somebody must be.
    fn visitor(&self) -> Result<&Visitor, Fault> {
        self.visitor.as_ref().ok_or_else(|| Fault::new(-32001, "unauthorized").because("send a token".to_owned()))
    }
}

/// The methods, and what they stand on.
pub(super) struct Methods {
    pub(super) facade: Facade,
    pub(super) queue: Queue,
    pub(super) gate: Gate,
    pub(super) limits: Limits,
    pub(super) me: Arc<str>,
}

impl Methods {
    /// Who asks for that, where the stream of `peer` was `greeted` or not; takes
    /// the token out of `params`. Greetings need none.
    pub(super) async fn admit(
        &self,
        peer: &Arc<str>,
        greeted: Option<&Visitor>,
        method: &str,
        params: &mut Object,
    ) -> Result<Option<Visitor>, Fault> {
        let token = token_of(params);
        match admit(&self.gate, peer, token.as_deref(), greeted).await {
            Ok(visitor) => Ok(Some(visitor)),
            // A wrong token is told; none is none.
            Err(_) if token.is_none() && matches!(method, "initialize" | "server/discover" | "ping") => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Does what is asked.
    pub(super) async fn perform(&self, caller: &Caller, method: &str, params: Object) -> Result<Outcome, Fault> {
        match method {
            "initialize" if caller.dialect == Dialect::Legacy => Ok(Outcome::Plain(self.initialize(&params))),
            "server/discover" => Ok(Outcome::Plain(self.discover())),
            "ping" => Ok(Outcome::Plain(Object::new())),
            "tools/list" | "tools.list" => Ok(Outcome::Plain(self.tools(caller.visitor()?))),
            "tools/call" | "tools.call" => self.call(caller, params).await,
            "interfaces/list" => Ok(Outcome::Plain(interfaces())),
            "interfaces/get" => interface_of(&params),
            "interfaces/compat" => compat(&params),
            // An envelope names the tool itself.
            tool if caller.dialect == Dialect::Envelope && self.is_tool(tool) => self.tool(caller, tool, params).await,
            _ => Err(Fault::new(-32601, "method_not_found").because(format!(
                "there are initialize, server/discover, ping, tools/list, tools/call and interfaces/list|get|compat; \
                 not {:?}",
                start(method)
            ))),
        }
    }

    async fn call(&self, caller: &Caller, mut params: Object) -> Result<Outcome, Fault> {
        let arguments = match params.remove("arguments") {
            Some(Value::Object(arguments)) => arguments,
            None | Some(Value::Null) => Object::new(),
            Some(_) => return Err(Fault::invalid("`arguments` must be an object")),
        };
        let Some(name) = params.get("name").and_then(Value::as_str) else {
            return Err(Fault::invalid("`name` must be the name of a tool"));
        };
        if !self.is_tool(name) {
            let why = format!("there is no tool {:?}; tools/list has those there are", start(name));
            return Err(match caller.dialect {
                Dialect::Legacy | Dialect::Envelope => Fault::new(-32002, "unknown_tool").because(why),
                Dialect::Sessionless => Fault::invalid(why),
            });
        }
        self.tool(caller, name, arguments).await
    }

    async fn tool(&self, caller: &Caller, name: &str, mut arguments: Object) -> Result<Outcome, Fault> {
        if name == queue::TOOL {
            return Ok(Outcome::Queue(self.queue.perform(caller, caller.visitor()?, arguments).await));
        }
        if caller.dialect == Dialect::Envelope {
            arguments.remove("_meta");
        }
        let Some(operation) = ops::operation(name) else {
            return Err(Fault::new(-32002, "unknown_tool"));
        };
        let (done, ids): (Result<Object, Failure>, Object) =
            self.facade.call_plainly(caller.visitor()?, operation, arguments).await;
        Ok(Outcome::Tool(done, ids))
    }

    fn tools(&self, visitor: &Visitor) -> Object {
        let mut tools = serde_json::to_value(self.facade.tools(visitor)).unwrap_or_default();
        if let Some(tools) = tools.as_array_mut()
            && self.has_queue()
        {
            tools.push(queue::definition());
        }
        object(json!({"tools": tools, "ttlMs": TTL_MS, "cacheScope": "private"}))
    }

    fn is_tool(&self, name: &str) -> bool {
        if name == queue::TOOL { self.has_queue() } else { self.facade.has(name) }
    }

    /// The queue submits, cancels and runs tasks.
    fn has_queue(&self) -> bool {
        self.facade.has("task_submit")
    }

    fn initialize(&self, params: &Object) -> Object {
        let asked = params.get("protocolVersion").and_then(Value::as_str);
        let version = LEGACY.into_iter().find(|version| asked == Some(*version)).unwrap_or(LEGACY[0]);
        let profile = params
            .get("profiles")
            .and_then(Value::as_array)
            .and_then(|asked| PROFILES.into_iter().find(|profile| asked.iter().any(|name| name == profile)));
        object(json!({
            "ok": true,
            "protocolVersion": version,
            "serverInfo": server_info(),
            "capabilities": capabilities(),
            "transport": TRANSPORT,
            "server": {"peer_id": &*self.me},
            "profile_negotiation":
                {"supports_profile_negotiation": true, "mode": "optional_additive", "profiles": PROFILES},
            "active_profile": profile.unwrap_or(PROFILES[0]),
            "limits": self.limits.published(),
        }))
    }

    fn discover(&self) -> Object {
        object(json!({
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": capabilities(),
            "ttlMs": TTL_MS,
            "cacheScope": "public",
            "_meta": {
                "io.modelcontextprotocol/serverInfo": server_info(),
                "taskmesh/limits": self.limits.published(),
                "taskmesh/peer_id": &*self.me,
            },
        }))
    }
}

fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

fn server_info() -> Value {
    json!({"name": "taskmesh", "version": env!("CARGO_PKG_VERSION")})
}

fn capabilities() -> Value {
    json!({"tools": {}, "experimental": {"mcp++/mcp-idl": {"interface_cid": interface::own().cid}}})
}

fn interfaces() -> Object {
    object(json!({"interfaces": [interface::own().cid], "interface_cids": [interface::own().cid]}))
}

fn asked_cid(params: &Object) -> Result<&str, Fault> {
    let cid = params.get("interface_cid").or_else(|| params.get("cid")).and_then(Value::as_str);
    cid.ok_or_else(|| {
        Fault::invalid("`interface_cid` must be the CID of an interface; interfaces/list has those there are")
    })
}

fn interface_of(params: &Object) -> Result<Outcome, Fault> {
    let (cid, own) = (asked_cid(params)?, interface::own());
    if cid != own.cid {
        return Err(Fault::invalid(format!(
            "this node has no interface {:?}; interfaces/list has its own",
            start(cid)
        )));
    }
    // The text is what the CID is of; the object is the same, for reading.
    Ok(Outcome::Plain(object(json!({
        "interface_cid": own.cid, "canonicalization": "mcpp-jcs-v1", "canonical": own.canonical,
        "descriptor": own.descriptor,
    }))))
}

fn compat(params: &Object) -> Result<Outcome, Fault> {
    let (cid, own) = (asked_cid(params)?, interface::own());
    let compatible = cid == own.cid;
    let reasons = if compatible {
        vec![]
    } else {
        vec![json!({"code": "unknown_interface", "interface_cid": start(cid),
            "detail": "this node serves another interface, and knows of no compatibility between the two"})]
    };
    let alternatives = if compatible { vec![] } else { vec![own.cid.as_str()] };
    Ok(Outcome::Plain(object(json!({
        "compatible": compatible, "reasons": reasons, "requires_missing": [], "suggested_alternatives": alternatives,
    }))))
}
