//! The server's public keys (RFC 7517): read from a file or fetched, kept for a
//! while, and read again when a token names one that is not there; never more
//! often than in a fixed interval, whatever callers show.

use super::{ALGORITHMS, refused};
use crate::ops::{Code, Failure};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use taskmesh_core::Millis;
use tokio::sync::Mutex;

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// At this address, which is the operator's choice.
    Url(String),
}

/// Keys are read again after this time.
const FRESH: Duration = Duration::from_secs(600);
/// And used for no longer than this, if they can't be.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// Never more often than this.
const INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait for the server.
const FETCH: Duration = Duration::from_secs(5);
/// The longest answer.
const SET_BYTES: usize = 256 * 1024;
/// Keys that are kept.
const KEYS: usize = 64;

/// The keys of one server.
pub(super) struct Keys {
    source: Source,
    http: reqwest::Client,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    keys: Vec<Jwk>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
}

impl Held {
    fn is_younger(at: Option<Instant>, span: Duration) -> bool {
        at.is_some_and(|at| at.elapsed() < span)
    }

    /// The key that a token names; the only one there is, if it names none.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        let mut fitting = self.keys.iter().filter(|key| fits(key, algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.common.key_id.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| self.keys.len() == 1),
        }
    }
}

impl Keys {
    pub(super) fn new(source: Source) -> Result<Keys, Failure> {
        // Keys are never had by way of another host than the one that was named.
        let http = reqwest::Client::builder().timeout(FETCH).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|e| Failure::new(Code::Internal, format!("no client for the keys: {e}")))?;
        Ok(Keys { source, http, held: Mutex::default() })
    }

    /// What a signature is checked with.
    pub(super) async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Failure> {
        // Those who come meanwhile wait for the one who asks.
        let mut held = self.held.lock().await;
        let known = Held::is_younger(held.read_at, FRESH) && held.find(kid, algorithm).is_some();
        if !known && !Held::is_younger(held.tried_at, INTERVAL) {
            held.tried_at = Some(Instant::now());
            match self.read().await {
                Ok(keys) => (held.keys, held.read_at) = (keys, Some(Instant::now())),
                Err(problem) => tracing::warn!(%problem, "the authorisation server's keys could not be read"),
            }
        }
        if !Held::is_younger(held.read_at, STALE) {
            let error = "the authorisation server's keys can't be read now; the node's log says why";
            let retry_after = Some(Millis(INTERVAL.as_secs() * 1_000));
            return Err(Failure { retry_after, ..Failure::new(Code::Unavailable, error) });
        }
        let key =
            held.find(kid, algorithm).ok_or_else(|| refused("is signed with a key that the server does not have"))?;
        DecodingKey::from_jwk(key).map_err(|_| refused("is signed with a key that is of no use here"))
    }

    async fn read(&self) -> Result<Vec<Jwk>, String> {
        let text = match &self.source {
            Source::File(path) => tokio::fs::read(path).await.map_err(|e| format!("{}: {e}", path.display()))?,
            Source::Url(url) => self.fetch(url).await?,
        };
        if text.len() > SET_BYTES {
            return Err(format!("{} bytes of keys are more than {SET_BYTES}", text.len()));
        }
        let set: JwkSet = serde_json::from_slice(&text).map_err(|e| format!("no JSON Web Key Set: {e}"))?;
        let keys: Vec<_> = set.keys.into_iter().filter(|key| ALGORITHMS.iter().any(|a| fits(key, *a))).collect();
        if keys.is_empty() || keys.len() > KEYS {
            return Err(format!("{} keys for signatures; there must be 1 to {KEYS}", keys.len()));
        }
        Ok(keys)
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let said = |e: reqwest::Error| format!("{url}: {}", e.without_url());
        let mut response =
            self.http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(said)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            text.extend_from_slice(&chunk);
            if text.len() > SET_BYTES {
                break;
            }
        }
        Ok(text)
    }
}

/// Whether `key` may check signatures of `algorithm`: it is of that family, and
/// says nothing else of itself.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use jsonwebtoken::jwk::AlgorithmParameters as Parameters;
    let for_signatures = !matches!(&key.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
    let named = key.common.key_algorithm;
    let agrees = named.is_none_or(|named| named.to_string().parse() == Ok(algorithm));
    let family = match &key.algorithm {
        Parameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        Parameters::EllipticCurve(_) => matches!(algorithm, Algorithm::ES256 | Algorithm::ES384),
        Parameters::OctetKeyPair(_) => algorithm == Algorithm::EdDSA,
        _ => false,
    };
    for_signatures && agrees && family
}
