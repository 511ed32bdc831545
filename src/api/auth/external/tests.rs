//! Tokens of a server whose key the tests have.

use super::*;
use crate::api::audit::Audit;
use crate::api::auth::Gate;
use crate::api::http::{self, Face};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://mesh.example/mcp";

/// What an Ed25519 seed has before it in PKCS #8 (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

fn key(seed: u8) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8[..], &[seed; 32]].concat())
}

fn set(seeds: &[u8]) -> String {
    let jwk = |seed: &u8| {
        let mut jwk = Jwk::from_encoding_key(&key(*seed), Algorithm::EdDSA).expect("a key");
        jwk.common.key_id = Some(format!("k{seed}"));
        jwk
    };
    serde_json::to_string(&JwkSet { keys: seeds.iter().map(jwk).collect() }).expect("JSON")
}

fn now_s() -> u64 {
    crate::driver::wall_clock().0 / 1_000
}

fn claims() -> Value {
    json!({"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "exp": now_s() + 600, "scope": "openid taskmesh:submitter"})
}

fn signed(seed: u8, claims: &Value) -> String {
    let header = Header { kid: Some(format!("k{seed}")), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &key(seed)).expect("a token")
}

fn with(field: &str, value: Value) -> Value {
    let mut all = claims();
    all[field] = value;
    all
}

fn external(keys: Source) -> External {
    let settings = Settings {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        keys,
        resource: "https://mesh.example/mcp".to_owned(),
    };
    External::new(settings).expect("a client")
}

fn in_a_file(folder: &tempfile::TempDir, seeds: &[u8]) -> Source {
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(seeds)).expect("written");
    Source::File(path)
}

#[tokio::test]
async fn a_token_of_the_server_says_who_and_what() {
    let folder = tempfile::tempdir().expect("a folder");
    let external = external(in_a_file(&folder, &[1, 2]));
    let vouched = external.verify(&signed(2, &claims())).await.expect("valid");
    assert_eq!((vouched.subject.as_str(), vouched.role), ("jwt:ann", Role::Submitter));
    let many = with("scp", json!(["taskmesh:viewer", "taskmesh:operator", "taskmesh:root"]));
    assert_eq!(external.verify(&signed(1, &many)).await.expect("valid").role, Role::Operator);
    let several = with("aud", json!(["https://other.example", AUDIENCE]));
    assert!(external.verify(&signed(1, &several)).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_not_right_in_every_respect_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let external = external(in_a_file(&folder, &[1]));
    let mut unbound = claims();
    unbound.as_object_mut().expect("an object").remove("aud");
    let wrong = [
        ("expired", with("exp", json!(now_s() - 60))),
        ("early", with("nbf", json!(now_s() + 300))),
        ("issuer", with("iss", json!("https://id.example.evil"))),
        ("audience", with("aud", json!("https://mesh.example"))),
        ("no audience", unbound),
    ];
    for (what, claims) in wrong {
        let failure = external.verify(&signed(1, &claims)).await.expect_err(what);
        assert_eq!(failure.code, Code::Unauthenticated, "{what}: {failure}");
    }
    let unscoped = with("scope", json!("taskmesh:root openid"));
    let failure = external.verify(&signed(1, &unscoped)).await.expect_err("no scope");
    assert_eq!(failure.code, Code::PermissionDenied);
    assert!(failure.error.contains("taskmesh:viewer"), "{failure}");
}

#[tokio::test]
async fn no_way_of_signing_but_the_servers_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let external = external(in_a_file(&folder, &[1]));
    let good = signed(1, &claims());
    let public = set(&[1]);
    let hmac = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
    let crit =
        Header { crit: Some(vec!["b64".to_owned()]), kid: Some("k1".to_owned()), ..Header::new(Algorithm::EdDSA) };
    let payload = good.split('.').nth(1).expect("three parts");
    let mut changed = good.clone();
    let other = if changed.ends_with("AA") { "BA" } else { "AA" };
    changed.replace_range(changed.len() - 2.., other);
    let all = [
        encode(&hmac, &claims(), &EncodingKey::from_secret(public.as_bytes())).expect("a token"),
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{payload}."),
        encode(&crit, &claims(), &key(1)).expect("a token"),
        signed(9, &claims()),
        encode(&Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::EdDSA) }, &claims(), &key(9))
            .expect("a token"),
        changed,
        "a.b.c".to_owned(),
        "x".repeat(TOKEN_BYTES + 1),
    ];
    for token in all {
        let short: String = token.chars().take(60).collect();
        assert_eq!(external.verify(&token).await.expect_err(&short).code, Code::Unauthenticated, "{short}");
    }
    assert!(external.verify(&good).await.is_ok());
}

#[tokio::test]
async fn keys_are_fetched_once_whatever_callers_show() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let serve = move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { set(&[1]) }
    };
    let router = axum::Router::new().route("/keys", axum::routing::get(serve));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let external = external(Source::Url(url));
    assert!(external.verify(&signed(1, &claims())).await.is_ok());
    for seed in 2..20 {
        assert!(external.verify(&signed(seed, &claims())).await.is_err());
    }
    assert_eq!(served.load(Ordering::Relaxed), 1);
    server.abort();
}

/// What rcgen puts before an RSA key of 2,048 bits in PKCS #8 (RFC 5208); the
/// signer takes the key itself (PKCS #1).
const RSA_HEAD: usize = 26;

/// A new key, and what it signs.
fn generated(scheme: &'static rcgen::SignatureAlgorithm) -> EncodingKey {
    let pair = if *scheme == rcgen::PKCS_RSA_SHA256 {
        rcgen::KeyPair::generate_rsa_for(scheme, rcgen::RsaKeySize::_2048)
    } else {
        rcgen::KeyPair::generate_for(scheme)
    };
    let pair = pair.expect("a key").serialize_der();
    match *scheme == rcgen::PKCS_RSA_SHA256 {
        true => EncodingKey::from_rsa_der(&pair[RSA_HEAD..]),
        false => EncodingKey::from_ec_der(&pair),
    }
}

fn signed_with(key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> String {
    let header = Header { kid: Some("it".to_owned()), ..Header::new(algorithm) };
    encode(&header, claims, key).expect("a token")
}

#[tokio::test]
async fn rsa_and_ecdsa_are_checked_as_strictly() {
    let folder = tempfile::tempdir().expect("a folder");
    let rsa: &[_] =
        &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    let schemes = [
        (&rcgen::PKCS_RSA_SHA256, rsa),
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[Algorithm::ES256]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[Algorithm::ES384]),
    ];
    for (scheme, algorithms) in schemes {
        let (key, other) = (generated(scheme), generated(scheme));
        let mut jwk = Jwk::from_encoding_key(&key, algorithms[0]).expect("a key");
        // As servers publish an RSA key that signs in more than one way.
        (jwk.common.key_id, jwk.common.key_algorithm) = (Some("it".to_owned()), None);
        let path = folder.path().join("keys.json");
        std::fs::write(&path, serde_json::to_string(&JwkSet { keys: vec![jwk] }).expect("JSON")).expect("written");
        let external = external(Source::File(path));
        for algorithm in algorithms {
            let token = signed_with(&key, *algorithm, &claims());
            assert_eq!(external.verify(&token).await.map(|vouched| vouched.subject), Ok("jwt:ann".to_owned()));
            let forged = signed_with(&other, *algorithm, &claims());
            let expired = signed_with(&key, *algorithm, &with("exp", json!(now_s() - 600)));
            let elsewhere = signed_with(&key, *algorithm, &with("aud", json!("https://other.example")));
            let cut = token[..token.len() - 2].to_owned();
            for (bad, why) in [
                (forged, "not of the server"),
                (expired, "has expired"),
                (elsewhere, "another audience"),
                (cut, "this token"),
            ] {
                let failure = external.verify(&bad).await.expect_err(why);
                assert!(
                    failure.code == Code::Unauthenticated && failure.error.contains(why),
                    "{algorithm:?}: {failure}"
                );
            }
        }
        // The key is public: what anybody could sign with it is worth nothing.
        let jwk = serde_json::to_string(&Jwk::from_encoding_key(&key, algorithms[0]).expect("a key")).expect("JSON");
        let shared = signed_with(&EncodingKey::from_secret(jwk.as_bytes()), Algorithm::HS256, &claims());
        assert_eq!(external.verify(&shared).await.map_err(|failure| failure.code), Err(Code::Unauthenticated));
        // And what another kind of key signed is not checked with this one.
        let eddsa = signed_with(&self::key(1), Algorithm::EdDSA, &claims());
        assert_eq!(external.verify(&eddsa).await.map_err(|failure| failure.code), Err(Code::Unauthenticated));
    }
}

#[tokio::test]
async fn keys_that_can_not_be_read_are_the_servers_fault_and_said_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    for text in ["", "{}", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"] {
        let path = folder.path().join("keys.json");
        std::fs::write(&path, text).expect("written");
        let failure = external(Source::File(path)).verify(&signed(1, &claims())).await.expect_err("no keys");
        assert_eq!((failure.code, failure.retry_after.is_some()), (Code::Unavailable, true), "{text}");
    }
}

#[tokio::test]
async fn its_bearer_is_let_in_under_a_name_of_its_own_and_found_by_who_has_no_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _) = crate::api::testing::scripted(|_| crate::api::testing::Act::Keep);
    let external = external(in_a_file(&folder, &[1]));
    let gate = Gate::new(node, crate::api::testing::root(), "own", Some(external)).expect("random numbers");
    let jwt = signed(1, &claims());
    let caller = gate.admit(jwt.as_bytes()).await.expect("let in");
    let authority = caller.authority().expect("limited");
    assert_eq!((&*authority.subject, authority.role), ("jwt:ann", Role::Submitter));
    assert_eq!(gate.admit(jwt.as_bytes()).await.as_ref(), Ok(&caller), "one token of the mesh for one of the server");
    assert!(gate.enter(&caller, "queue_pause").is_err() && gate.enter(&caller, "task_submit").is_ok());

    let face = Face {
        gate,
        audit: Audit::open(folder.path()).expect("an audit log"),
        meter: Arc::new(|_, _, _| ()),
        hosts: Vec::new(),
        feed: Default::default(),
        offer: Default::default(),
        templates: Default::default(),
        dashboard: false,
    };
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let router = http::router(face, address, Arc::new(http::sessions::manager()), &Default::default());
    let get = async |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("an answer")
    };
    for path in METADATA {
        assert_eq!(get(path).await.status(), 200);
    }
    let turned_away = get(http::PATH).await;
    let challenge = turned_away.headers()["WWW-Authenticate"].to_str().expect("text").to_owned();
    let url = "https://mesh.example/.well-known/oauth-protected-resource/mcp";
    assert_eq!((turned_away.status().as_u16(), challenge.contains(url)), (401, true), "{challenge}");
}

#[test]
fn the_metadata_is_where_clients_look_for_it() {
    let external = external(Source::File("keys.json".into()));
    assert_eq!(external.metadata_url(), "https://mesh.example/.well-known/oauth-protected-resource/mcp");
    let metadata = external.metadata();
    assert_eq!((&metadata["resource"], &metadata["authorization_servers"]), (&json!(AUDIENCE), &json!([ISSUER])));
    assert_eq!(metadata["scopes_supported"][3], "taskmesh:admin");
}
