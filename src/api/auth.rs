//! Who calls: what a bearer shows becomes a caller, and each call of it is
//! measured against the caller's role, limits and rate before the node is
//! asked. The node that owns what the call is about checks the same again.
//!
//! A face gets the node's handle through [`Gate::enter`] alone, so that there
//! is none that forgot to ask.

pub mod admin;
pub mod external;
mod rate;

#[cfg(test)]
mod tests;

use crate::driver::{Handle, wall_clock};
use crate::ops::{Code, Failure};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use external::{External, Vouched};
use rate::Rates;
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use taskmesh_core::NodeId;
use taskmesh_core::authority::{Authority, Caveats, Role, TokenId};
use taskmesh_core::token::{Bearer, Caller, LIFETIME, RootKey, Token, TokenError};

/// The subject of the node's own token. No other token may have it.
pub const ADMIN: &str = "admin";
/// Starts the text of every token: scanners for leaked secrets find it.
const PREFIX: &str = "tmt_";

/// A token as text.
#[must_use]
pub fn to_text(token: &Token) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(token.to_bytes()))
}

/// The token that `text` is. What it says is not verified.
///
/// # Errors
/// It is none.
pub fn from_text(text: &str) -> Result<Token, TokenError> {
    let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 2 * Token::MAX_BYTES);
    let bytes = encoded.and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok());
    Token::from_bytes(&bytes.ok_or(TokenError::Malformed("a token starts with tmt_ and has no spaces"))?)
}

/// 16 random bytes for a new token.
///
/// # Errors
/// The system gives none.
pub fn nonce() -> Result<[u8; 16], Failure> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| Failure::new(Code::Internal, format!("no random numbers: {e}")))?;
    Ok(nonce)
}

/// Who calls, and from where.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// On whose behalf the node is asked.
    pub caller: Caller,
    /// `http`, …: one of a fixed set.
    pub transport: &'static str,
    /// The address or the peer id at the other end, where there is one.
    pub peer: Option<Arc<str>>,
}

impl Visitor {
    /// Who made the request that `context` is of: put there by the guard of
    /// the listener.
    ///
    /// # Errors
    /// Nobody let it in, which is a defect.
    pub fn of(context: &RequestContext<RoleServer>) -> Result<Visitor, Failure> {
        let parts = context.extensions.get::<Parts>();
        let visitor = parts.and_then(|parts| parts.extensions.get::<Visitor>()).cloned();
        visitor.ok_or_else(|| Failure::new(Code::Unauthenticated, "this request came in past the guard"))
    }

    /// What it may do. Faces serve nobody but bearers.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.caller.authority()
    }

    /// The id of its token.
    #[must_use]
    pub fn token(&self) -> Option<TokenId> {
        self.authority().map(Authority::id)
    }
}

/// The way to a node for those who call it. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle,
    root: RootKey,
    /// Of the node's own token: hashes are compared, in constant time, so that
    /// a wrong token tells nothing about the right one.
    own: blake3::Hash,
    /// Who shows the node's own token.
    owner: RwLock<Caller>,
    nonce: [u8; 16],
    rates: Rates,
    external: Option<External>,
}

impl Gate {
    /// A gate before the node of `handle`, for the mesh whose tokens `root`
    /// makes, for whoever has `own`, which stands for all rights, and for those
    /// whom an `external` server vouches for.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(handle: Handle, root: RootKey, own: &str, external: Option<External>) -> Result<Gate, Failure> {
        let nonce = nonce()?;
        let owner = RwLock::new(owner(&root, nonce)?);
        let own = blake3::hash(own.as_bytes());
        let inner = Inner { handle, root, own, owner, nonce, rates: Rates::default(), external };
        Ok(Gate { inner: Arc::new(inner) })
    }

    /// Who has what was shown.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`]: nobody. [`Code::PermissionDenied`]: somebody
    /// who may do nothing here.
    pub async fn admit(&self, shown: &[u8]) -> Result<Caller, Failure> {
        if blake3::hash(shown) == self.inner.own {
            return self.owner();
        }
        let unauthenticated = |why: String| Failure::new(Code::Unauthenticated, why);
        let text = str::from_utf8(shown).map_err(|_| unauthenticated(UNKNOWN.to_owned()))?;
        let token = match &self.inner.external {
            _ if text.starts_with(PREFIX) => from_text(text),
            Some(external) => self.stand_in(text, external.verify(text).await?),
            None => return Err(unauthenticated(UNKNOWN.to_owned())),
        };
        let verified = token.and_then(|token| self.inner.root.verify(token, wall_clock()));
        let bearer = verified.map_err(|e| unauthenticated(format!("this token does not hold: {e}")))?;
        if self.inner.handle.revokes(&bearer.authority().ids) {
            return Err(unauthenticated("this token was revoked; ask for a new one".to_owned()));
        }
        Ok(Caller::Bearer(Arc::new(bearer)))
    }

    /// Whoever shows nothing.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], always.
    #[cfg(not(feature = "conformance"))]
    pub(super) fn anybody(&self) -> Result<Caller, Failure> {
        Err(Failure::new(Code::Unauthenticated, "send a token: Authorization: Bearer <token>"))
    }

    /// The conformance suite can show nothing: here, and only in a build for
    /// it, that is as good as the node's own token.
    #[cfg(feature = "conformance")]
    pub(super) fn anybody(&self) -> Result<Caller, Failure> {
        self.owner()
    }

    /// Whether a caller that was let in some time ago still would be.
    #[must_use]
    pub fn holds(&self, caller: &Caller) -> bool {
        let Some(authority) = caller.authority() else { return true };
        authority.expires > wall_clock() && !self.inner.handle.revokes(&authority.ids)
    }

    /// The node, for what is watched for many callers at once: what each is
    /// told of it was asked for by itself.
    #[must_use]
    pub(super) fn for_all(&self) -> &Handle {
        &self.inner.handle
    }

    /// Whether `caller` may work for the mesh as a foreign worker that takes
    /// tasks of these types (`None`: of those that it took already).
    ///
    /// # Errors
    /// As [`Gate::enter`]. A limit on types binds the worker; with one on tags or
    /// own tasks there is none, since others' tasks are what a worker is given.
    pub fn enter_as_worker(&self, caller: &Caller, types: Option<&[Arc<str>]>) -> Result<(), Failure> {
        let Some(authority) = caller.authority() else { return Ok(()) };
        self.inner.rates.spend(&authority.rates, Instant::now())?;
        let unscoped = Authority { task_types: None, ..authority.clone() };
        unscoped.allows_operation("worker_register")?;
        let known = |name: &Arc<str>| authority.task_types.as_ref().is_none_or(|types| types.contains(name));
        match types.into_iter().flatten().find(|name| !known(name)) {
            Some(other) => {
                let error = format!("this token is limited to other types of tasks than {other}");
                Err(Failure::new(Code::PermissionDenied, error))
            }
            None => Ok(()),
        }
    }

    /// The token of the mesh that stands for one of the external server: the
    /// same for the same.
    fn stand_in(&self, text: &str, vouched: Vouched) -> Result<Token, TokenError> {
        let hash = blake3::hash(text.as_bytes());
        let nonce = hash.as_bytes()[..16].try_into().expect("16 of 32");
        let caveats = Caveats { expires: Some(vouched.expires), ..Caveats::default() };
        self.inner.root.mint(nonce, &vouched.subject, vouched.role, &caveats)
    }

    /// What to say in `WWW-Authenticate` to somebody who was turned away by
    /// `failure`, having `shown` something or not.
    #[must_use]
    pub fn challenge(&self, failure: &Failure, shown: bool) -> String {
        let mut challenge = "Bearer realm=\"taskmesh\"".to_owned();
        // RFC 6750: no error is named to whoever showed nothing.
        if shown && failure.code == Code::Unauthenticated {
            challenge.push_str(", error=\"invalid_token\"");
        }
        if failure.code == Code::PermissionDenied {
            challenge.push_str(", error=\"insufficient_scope\", scope=\"taskmesh:viewer\"");
        }
        if let Some(external) = self.external() {
            challenge.push_str(&format!(", resource_metadata=\"{}\"", external.metadata_url()));
        }
        challenge
    }

    /// The external server, if there is one.
    #[must_use]
    pub fn external(&self) -> Option<&External> {
        self.inner.external.as_ref()
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.handle.node()
    }

    /// The node, for one call of `operation` by `caller`.
    ///
    /// # Errors
    /// [`Code::PermissionDenied`] with what is needed, or
    /// [`Code::ResourceExhausted`] when the caller's rate is used up.
    pub fn enter(&self, caller: &Caller, operation: &str) -> Result<Handle, Failure> {
        if let Some(authority) = caller.authority() {
            self.inner.rates.spend(&authority.rates, Instant::now())?;
            authority.allows_operation(operation)?;
        }
        Ok(self.inner.handle.on_behalf_of(caller.clone()))
    }

    /// Whether `caller` has the node's own token, which no limit binds.
    #[must_use]
    pub fn is_owner(&self, caller: &Caller) -> bool {
        let owner = self.inner.owner.read().unwrap_or_else(PoisonError::into_inner);
        *owner == *caller
    }

    /// What tokens are made with.
    #[must_use]
    pub(super) fn root(&self) -> &RootKey {
        &self.inner.root
    }

    /// The bearer of the node's own token goes by a token as all others do, so
    /// that other nodes know whom they are asked by. It is made anew long
    /// before it ends.
    fn owner(&self) -> Result<Caller, Failure> {
        let inner = &self.inner;
        let owner = inner.owner.read().unwrap_or_else(PoisonError::into_inner).clone();
        let left = owner.authority().map(|authority| authority.expires.since(wall_clock()));
        if left.is_some_and(|left| left.0 > LIFETIME.0 / 2) {
            return Ok(owner);
        }
        let fresh = self::owner(&inner.root, inner.nonce)?;
        *inner.owner.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        Ok(fresh)
    }
}

const UNKNOWN: &str = "this is not the node's token, nor one that `taskmesh token create` made";

fn owner(root: &RootKey, nonce: [u8; 16]) -> Result<Caller, Failure> {
    let now = wall_clock();
    let caveats = Caveats { expires: Some(now + LIFETIME), ..Caveats::default() };
    let minted = root.mint(nonce, ADMIN, Role::Admin, &caveats).and_then(|token| root.verify(token, now));
    let bearer: Bearer = minted.map_err(|e| Failure::new(Code::Internal, format!("the node's own caller: {e}")))?;
    Ok(Caller::Bearer(Arc::new(bearer)))
}
