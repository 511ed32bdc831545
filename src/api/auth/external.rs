//! Bearers that an authorisation server of the operator's own vouches for: JSON
//! Web Tokens (RFC 7519, 8725, 9068), and the metadata by which MCP clients find
//! that server (RFC 9728).
//!
//! Such a bearer gets a token of the mesh that lives as long as its own and
//! never leaves the nodes: so the node that owns a task need not know of the
//! server.

mod keys;

#[cfg(test)]
mod tests;

use crate::ops::{Code, Failure};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use keys::Keys;
pub use keys::Source;
use serde::Deserialize;
use serde_json::{Value, json};
use taskmesh_core::Unix;
use taskmesh_core::authority::Role;

/// Where the metadata is. A client tries the second first for a resource with
/// the path of the MCP endpoint.
pub const METADATA: [&str; 2] = ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"];
/// Before the role in a scope.
pub const SCOPE: &str = "taskmesh:";
/// Before the subject, so that no token of the mesh has the same one.
pub const SUBJECT: &str = "jwt:";
/// Signatures that anyone can check and only the server can make: no `none`,
/// and no HMAC, whose key would be the public one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far the server's clock may be from this node's, in seconds.
const LEEWAY_S: u64 = 30;
/// The longest token: it travels in a header.
const TOKEN_BYTES: usize = 16 * 1024;

/// What the operator says of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `iss` of its tokens, and where clients find it.
    pub issuer: String,
    /// `aud` of tokens for this mesh.
    pub audience: String,
    /// Where its keys are.
    pub keys: Source,
    /// How clients reach the MCP endpoint.
    pub resource: String,
}

/// Checks tokens of one server.
pub struct External {
    settings: Settings,
    keys: Keys,
}

/// What a token of the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vouched {
    /// Who, with [`SUBJECT`] before it.
    pub subject: String,
    /// The greatest of its scopes.
    pub role: Role,
    /// When it ends.
    pub expires: Unix,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    scp: Option<Scp>,
}

/// As some servers write scopes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scp {
    One(String),
    Many(Vec<String>),
}

impl External {
    /// A check for the tokens of the server; its keys are read when needed.
    ///
    /// # Errors
    /// The system has no room for a client.
    pub fn new(settings: Settings) -> Result<External, Failure> {
        let keys = Keys::new(settings.keys.clone())?;
        Ok(External { settings, keys })
    }

    /// Who shows `token`, as the server says.
    pub(super) async fn verify(&self, token: &str) -> Result<Vouched, Failure> {
        if token.len() > TOKEN_BYTES {
            return Err(refused("is too long"));
        }
        let header = decode_header(token).map_err(|_| refused("is no JSON Web Token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(refused("is signed in a way that is not accepted here"));
        }
        if header.crit.is_some() {
            return Err(refused("demands what this node does not understand (crit)"));
        }
        let key = self.keys.key(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let claims = decode::<Claims>(token, &key, &validation).map_err(|e| refused(why(&e)))?.claims;
        let role = claims.role().ok_or_else(|| no_scope(&self.settings))?;
        let expires = Unix((claims.exp.saturating_add(LEEWAY_S)).saturating_mul(1_000));
        Ok(Vouched { subject: format!("{SUBJECT}{}", claims.sub), role, expires })
    }

    /// The metadata of RFC 9728.
    #[must_use]
    pub fn metadata(&self) -> Value {
        json!({
            "resource": self.settings.resource,
            "authorization_servers": [self.settings.issuer],
            "scopes_supported": Role::ALL.map(|role| format!("{SCOPE}{role}")),
            "bearer_methods_supported": ["header"],
            "resource_name": "taskmesh",
        })
    }

    /// Where the metadata is, for `WWW-Authenticate`.
    #[must_use]
    pub fn metadata_url(&self) -> String {
        let resource = self.settings.resource.as_str();
        let path = resource.find("://").and_then(|at| resource[at + 3..].find('/').map(|path| at + 3 + path));
        let (origin, path) = resource.split_at(path.unwrap_or(resource.len()));
        format!("{origin}{}{}", METADATA[0], path.trim_end_matches('/'))
    }
}

impl Claims {
    fn role(&self) -> Option<Role> {
        let many = match &self.scp {
            Some(Scp::One(text)) => vec![text.as_str()],
            Some(Scp::Many(texts)) => texts.iter().map(String::as_str).collect(),
            None => Vec::new(),
        };
        let words = many.into_iter().chain(self.scope.as_deref()).flat_map(str::split_whitespace);
        words.filter_map(|word| word.strip_prefix(SCOPE)?.parse().ok()).max()
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(Code::Unauthenticated, format!("this token {why}; ask the authorisation server for a new one"))
}

fn no_scope(settings: &Settings) -> Failure {
    let all = Role::ALL.map(|role| format!("{SCOPE}{role}")).join(", ");
    let error = format!("this token has no scope for this mesh; ask {} for one of: {all}", settings.issuer);
    Failure::new(Code::PermissionDenied, error)
}

fn why(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "has expired",
        ErrorKind::ImmatureSignature => "is not valid yet",
        ErrorKind::InvalidIssuer => "was issued by another server",
        ErrorKind::InvalidAudience => "is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "lacks one of exp, iss, aud and sub",
        ErrorKind::InvalidSignature => "has a signature that is not of the server",
        _ => "does not hold",
    }
}
