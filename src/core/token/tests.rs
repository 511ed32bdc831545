//! Forged, cut, lengthened and narrowed tokens.

use super::*;
use crate::authority::{OPERATIONS, Touch, may};
use crate::task::Spec;
use crate::testing::spec;
use proptest::prelude::*;

const NOW: Unix = Unix(1_700_000_000_000);

fn root() -> RootKey {
    RootKey::of_mesh(&[7; 32])
}

fn for_a_day() -> Caveats {
    Caveats { expires: Some(Unix(NOW.0 + 86_400_000)), ..Caveats::default() }
}

fn token(role: Role) -> Token {
    root().mint([1; 16], "ann", role, &for_a_day()).expect("a token")
}

fn authority(token: &Token) -> Authority {
    root().verify(token.clone(), NOW).expect("valid").authority().clone()
}

#[test]
fn a_token_says_what_it_was_made_for() {
    let caveats = Caveats {
        task_types: vec!["echo".into()],
        tags: vec!["nightly".into()],
        priority_max: Priority::new(2.0),
        calls_per_minute: Some(60),
        own: true,
        ..for_a_day()
    };
    let token = root().mint([1; 16], "ci", Role::Submitter, &caveats).expect("a token");
    let read = Token::from_bytes(&token.to_bytes()).expect("a token");
    assert_eq!(read, token);
    let found = authority(&read);
    assert_eq!((&*found.subject, found.role, found.own), ("ci", Role::Submitter, true));
    assert_eq!((found.rates.as_slice(), found.expires), (&[(token.id(), 60)][..], caveats.expires.expect("set")));
    assert_eq!(found.ids, [token.id()]);
    assert_eq!(token.claims().expect("readable"), found);
}

#[test]
fn the_key_of_another_mesh_verifies_nothing() {
    let other = RootKey::of_mesh(&[8; 32]);
    assert_eq!(other.verify(token(Role::Viewer), NOW), Err(TokenError::Forged));
}

#[test]
fn a_block_can_be_added_and_not_be_taken_away() {
    let admin = token(Role::Admin);
    let viewer = admin.attenuate(&Caveats { role: Some(Role::Viewer), ..Caveats::default() }).expect("a token");
    assert_eq!(authority(&viewer).role, Role::Viewer);
    assert_eq!(authority(&viewer).ids, [admin.id(), viewer.id()], "revoking the first revokes both");
    let shortened = Token { blocks: viewer.blocks[..1].to_vec(), ..viewer.clone() };
    assert_eq!(root().verify(shortened, NOW), Err(TokenError::Forged));
    let swapped = Token { tag: admin.tag, ..viewer };
    assert_eq!(root().verify(swapped, NOW), Err(TokenError::Forged));
}

#[test]
fn a_block_that_names_a_subject_or_asks_for_more_gains_nothing() {
    let viewer = token(Role::Viewer);
    let more = Caveats { role: Some(Role::Admin), expires: Some(Unix(u64::MAX)), ..Caveats::default() };
    let same = authority(&viewer.attenuate(&more).expect("a token"));
    assert_eq!((same.role, same.expires), (Role::Viewer, authority(&viewer).expires));
    let mut block = Vec::new();
    field(&mut block, SUBJECT, b"bob");
    let tag = blake3::keyed_hash(viewer.tag.as_bytes(), &block);
    let posing = Token { blocks: vec![viewer.blocks[0].clone(), block], tag, ..viewer };
    assert!(matches!(root().verify(posing, NOW), Err(TokenError::Malformed(_))));
}

#[test]
fn what_is_not_understood_is_refused() {
    let viewer = token(Role::Viewer);
    let mut block = Vec::new();
    field(&mut block, 200, b"only on Tuesdays");
    let tag = blake3::keyed_hash(viewer.tag.as_bytes(), &block);
    let newer = Token { blocks: vec![viewer.blocks[0].clone(), block], tag, ..viewer };
    assert!(matches!(root().verify(newer, NOW), Err(TokenError::Malformed(_))));
}

#[test]
fn a_token_ends_with_its_time_and_lives_a_year_at_most() {
    let token = token(Role::Viewer);
    let last = Unix(for_a_day().expires.expect("set").0 - 1);
    assert!(root().verify(token.clone(), last).is_ok());
    assert_eq!(root().verify(token, Unix(last.0 + 1)), Err(TokenError::Expired));
    let long = Caveats { expires: Some(NOW + LIFETIME + LIFETIME), ..Caveats::default() };
    let token = root().mint([1; 16], "ann", Role::Viewer, &long).expect("a token");
    assert!(matches!(root().verify(token, NOW), Err(TokenError::TooMuch(_))));
    assert!(root().mint([1; 16], "ann", Role::Viewer, &Caveats::default()).is_err(), "without an end");
}

#[test]
fn a_secret_is_not_shown() {
    let token = token(Role::Admin);
    assert_eq!(format!("{token:?} {:?}", root()), format!("Token({}) RootKey(…)", token.id()));
}

#[test]
fn the_bytes_of_a_token_never_change() {
    let caveats = Caveats { expires: Some(Unix(0x0102_0304)), own: true, ..Caveats::default() };
    let token = root().mint([9; 16], "a", Role::Viewer, &caveats).expect("a token");
    let hex: String = token.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let head = format!("01{}010016010001610200010107000800000000010203040800{}", "09".repeat(16), "00");
    assert!(hex.starts_with(&head), "{hex}");
    assert_eq!((hex.len() / 2, token.id().to_string()), (74, TOKEN_ID.to_owned()));
}

const TOKEN_ID: &str = "9cc924a7e23c028f7c0371c7162038b0";

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    prop::collection::vec(prop::sample::select(vec!["echo", "exec", "a", "b"]).prop_map(Arc::from), 0..3)
}

fn caveats() -> impl Strategy<Value = Caveats> {
    let role = prop::option::of(prop::sample::select(Role::ALL.to_vec()));
    let priority = prop::option::of((0.1..8.0_f64).prop_map(|p| Priority::new(p).expect("above 0")));
    let expires = prop::option::of((NOW.0..NOW.0 + 200_000_000).prop_map(Unix));
    (role, names(), names(), priority, prop::option::of(0..100_u32), expires, any::<bool>()).prop_map(
        |(role, task_types, tags, priority_max, calls_per_minute, expires, own)| Caveats {
            role,
            task_types,
            tags,
            priority_max,
            calls_per_minute,
            expires,
            own,
        },
    )
}

fn task() -> impl Strategy<Value = Spec> {
    let submitter = prop::option::of(prop::sample::select(vec!["ann", "bob"]).prop_map(Arc::from));
    (prop::sample::select(vec!["echo", "exec"]), names(), submitter).prop_map(|(task_type, tags, submitter)| Spec {
        task_type: task_type.into(),
        tags,
        submitter,
        ..spec()
    })
}

proptest! {
    #[test]
    fn attenuation_never_widens(first in caveats(), more in caveats(), task in task(), priority in 0.1..9.0_f64) {
        let role = first.role.unwrap_or(Role::Operator);
        let wide = root().mint([1; 16], "ann", role, &Caveats { expires: first.expires.or(for_a_day().expires), ..first });
        let wide = wide.expect("a token");
        let narrow = wide.attenuate(&more).expect("a token");
        let wide = wide.claims().expect("readable");
        let narrow = root().verify(narrow.clone(), Unix(NOW.0 - 1)).expect("valid").authority().clone();
        let priority = Priority::new(priority).expect("above 0");
        for (operation, _) in OPERATIONS {
            prop_assert!(may(wide.role, operation) || !may(narrow.role, operation));
            prop_assert!(narrow.allows_operation(operation).is_err() || wide.allows_operation(operation).is_ok());
        }
        for touch in [Touch::Look, Touch::Change] {
            prop_assert!(narrow.allows_task("t", &task, touch).is_err() || wide.allows_task("t", &task, touch).is_ok());
        }
        prop_assert!(narrow.allows_priority(priority).is_err() || wide.allows_priority(priority).is_ok());
        prop_assert!(narrow.expires <= wide.expires && narrow.subject == wide.subject);
        prop_assert!(narrow.rates.len() >= wide.rates.len());
        prop_assert_eq!(narrow.ids.len(), 2);
    }

    #[test]
    fn a_changed_byte_or_a_cut_is_always_noticed(more in caveats(), place: prop::sample::Index, bit in 0..8_u8) {
        let bytes = token(Role::Operator).attenuate(&more).expect("a token").to_bytes();
        let at = place.index(bytes.len());
        prop_assert!(Token::from_bytes(&bytes[..at]).is_err());
        let mut changed = bytes;
        changed[at] ^= 1 << bit;
        prop_assert!(Token::from_bytes(&changed).and_then(|token| root().verify(token, NOW)).is_err());
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let hostile = [&[VERSION][..], &[0; 16], &[1], &bytes].concat();
        for bytes in [bytes, hostile] {
            if let Ok(token) = Token::from_bytes(&bytes) {
                prop_assert!(root().verify(token.clone(), NOW).is_err());
                let _ = token.claims();
            }
        }
    }
}
