//! The bytes themselves.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::store::files::hex;
use crate::store::tests::sample;
use proptest::prelude::*;
use std::collections::BTreeMap;
use taskmesh_core::authority::{Role, TokenId};
use taskmesh_core::cache::{CacheKey, Caching, Mode, Scope, Source};
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::message::Controls;
use taskmesh_core::placement::{Alternative, Condition, Placement, Test};
use taskmesh_core::prng::Prng;
use taskmesh_core::record::Birth;
use taskmesh_core::task::{
    CancelRequest, Closed, Data, Durability, Outcome, Priority, Report, Requirements, Resources, RetryPolicy, Task,
    TaskState, Usage,
};
use taskmesh_core::view::Pause;
use taskmesh_core::{Millis, NodeId, Stamp, WorkerId};

fn value_of(entry: &Entry) -> Vec<u8> {
    let mut value = Vec::new();
    encode(entry, &mut value).unwrap();
    value
}

fn text(text: &str) -> Arc<str> {
    text.into()
}

fn golden_spec() -> Spec {
    Spec {
        task_type: text("exec"),
        payload: Arc::from(&b"{\"argv\":[\"true\"]}"[..]),
        tags: vec![text("nightly"), text("x")],
        metadata: Some(text("{}")),
        timeout: Some(Millis(60_000)),
        retry: RetryPolicy::default(),
        requirements: Requirements {
            capabilities: vec![text("exec:true")],
            labels: BTreeMap::from([(text("zone"), text("b"))]),
            resources: Resources {
                cpu_milli: 500,
                memory_mb: 64,
                gpu_milli: 0,
                named: BTreeMap::from([(text("licence"), 1_000)]),
            },
            ..Requirements::default()
        },
        not_before: None,
        deadline: Some(Unix(1_800_000_000_000)),
        depends_on: vec![TaskId::new("first").unwrap()],
        fairness_key: Some(text("ann")),
        durability: Durability::Local,
        exclusive: true,
        idempotency_key: Some(text("key")),
        retry_of: Some(TaskId::new("older").unwrap()),
        submitted_at: Unix(1_700_000_000_000),
        submitter: None,
        trace: None,
        cache: None,
    }
}

fn golden_record(state: TaskState) -> Entry {
    let record = Record {
        task: TaskId::new("job-1").unwrap(),
        birth: Birth { node: NodeId::test(1), nonce: 0x0102_0304_0506_0708 },
        stamp: Stamp { ballot: Ballot { epoch: 2, owner: NodeId::test(2) }, revision: 300 },
        holders: vec![NodeId::test(1), NodeId::test(2), NodeId::test(3)],
        prior: vec![NodeId::test(4)],
        forgotten: Vec::new(),
        body: Task {
            priority: Priority::new(2.5).unwrap(),
            attempt: 3,
            failures: 1,
            crashes: 1,
            retries: 0,
            cancel: Some(CancelRequest { reason: Some(text("enough")), force: true }),
            last_error: Some(text("exit status 1")),
            state,
        },
    };
    Entry::Record { pledge: Ballot { epoch: 3, owner: NodeId::test(3) }, record: Box::new(record) }
}

fn golden_states() -> Vec<(&'static str, TaskState)> {
    let worker = WorkerId::new("w").unwrap();
    let closed = |outcome, report| {
        let executor = Some((NodeId::test(9), WorkerId::new("w").unwrap()));
        TaskState::Done(Arc::new(Closed {
            outcome,
            at: Unix(1_000),
            executor,
            started_at: Some(Unix(900)),
            report,
            cached_from: None,
        }))
    };
    let report = Report {
        result: Data::Inline(Arc::from(&b"42"[..])),
        output: Some(Data::Blob { hash: BlobHash([0xAB; 32]), bytes: 70_000 }),
        logs: None,
        truncated: true,
        usage: Usage { wall: Some(Millis(12)), cpu_user: None, cpu_system: Some(Millis(3)), max_rss_kib: Some(2_048) },
    };
    vec![
        ("blocked", TaskState::Blocked),
        ("delayed", TaskState::Delayed { until: Unix(70_000) }),
        ("queued", TaskState::Queued { since: Unix(5), place: Priority::NORMAL }),
        ("leased", TaskState::Leased { executor: NodeId::test(5), worker, since: Unix(6) }),
        ("completed", closed(Outcome::Completed, Some(report))),
        ("failed", closed(Outcome::Failed { error: text("no") }, None)),
        ("cancelled", closed(Outcome::Cancelled { reason: None }, None)),
        ("expired", closed(Outcome::Expired, None)),
    ]
}

fn golden_entries() -> Vec<(String, Entry)> {
    let worker = WorkerSpec {
        worker: WorkerId::new("w1").unwrap(),
        capabilities: vec![text("exec:*")],
        labels: BTreeMap::from([(text("zone"), text("a"))]),
        slots: 8,
        resources: Some(Resources { cpu_milli: 4_000, ..Resources::default() }),
        metadata: None,
    };
    let controls = Controls {
        version: (7, NodeId::test(1)),
        paused: Some(Pause { at: Unix(77), reason: Some(text("upgrade")) }),
        reorder: 2,
    };
    let book = PeerBook { addresses: vec![text("/ip4/10.0.0.1/tcp/1")], pinned: true, banished: false, seen: Unix(9) };
    let mut entries = vec![
        ("spec".to_owned(), Entry::Spec(TaskId::new("job-1").unwrap(), golden_spec().into())),
        ("worker".to_owned(), Entry::Worker(worker, Unix(1))),
        ("controls".to_owned(), Entry::Controls(controls)),
        ("peer".to_owned(), Entry::Peer(NodeId::test(1), book)),
        ("boot".to_owned(), Entry::Boot(3)),
        (
            "pledge".to_owned(),
            Entry::Pledge {
                task: TaskId::new("job-2").unwrap(),
                ballot: Ballot { epoch: 4, owner: NodeId::test(2) },
                at: Unix(1_700_000_000_001),
            },
        ),
        ("tombstone".to_owned(), Entry::Tombstone(0xFEED, Unix(1_700_000_000_000))),
    ];
    entries.extend(golden_states().into_iter().map(|(name, state)| (format!("record {name}"), golden_record(state))));
    entries
}

/// The value as version 1 had it.
fn first_value_of(entry: &Entry) -> Vec<u8> {
    let Entry::Spec(_, spec) = entry else { return value_of(entry) };
    older(1, v1::Spec::from(&**spec))
}

/// The value as version 2 had it.
fn second_value_of(entry: &Entry) -> Vec<u8> {
    let Entry::Spec(_, spec) = entry else { return value_of(entry) };
    older(2, v2::Spec::from(&**spec))
}

fn older(version: u8, body: impl bincode::Encode) -> Vec<u8> {
    let mut value = Vec::new();
    seal(Kind::Spec, body, &mut value).unwrap();
    value[2] = version;
    let sum = checksum(&value).to_le_bytes();
    value[3..7].copy_from_slice(&sum);
    value
}

fn shown(name: &str, entry: &Entry, value: &[u8]) -> String {
    let mut keys = Vec::new();
    keys_of_entry(entry, |kind, name| keys.push(format!("{:02x}{}", kind as u8, hex(name))));
    format!("{name}\n  {}\n  {}\n", keys.join(" "), hex(value))
}

/// What came with version 2.
fn later_entries() -> Vec<(String, Entry)> {
    let spec = Spec { submitter: Some(text("ci")), ..golden_spec() };
    let token = Issued {
        id: TokenId([0xc1; 16]),
        subject: text("ci"),
        role: Some(Role::Submitter),
        limits: text("own"),
        by: text("admin"),
        at: Unix(1_700_000_000_000),
        expires: Unix(1_800_000_000_000),
        revoked: Some(Unix(1_750_000_000_000)),
    };
    vec![
        ("spec".to_owned(), Entry::Spec(TaskId::new("job-1").unwrap(), spec.into())),
        ("token".to_owned(), Entry::Token(token)),
    ]
}

#[test]
fn the_bytes_of_version_2_never_change() {
    let found: String =
        later_entries().iter().map(|(name, entry)| shown(name, entry, &second_value_of(entry))).collect();
    assert_eq!(found, include_str!("golden_v2.txt"), "found:\n{found}");
    later_entries().iter().for_each(|(_, entry)| assert_same(entry, &second_value_of(entry)));
}

/// What came with version 3, in the version that it is written in now.
fn latest_entry() -> Entry {
    let condition = |label: &str, test| Condition { label: text(label), test };
    let golden = golden_spec();
    let requirements = Requirements {
        selector: vec![
            condition("zone", Test::In(vec![text("a"), text("b")])),
            condition("arch", Test::NotIn(vec![text("arm")])),
            condition("ssd", Test::Exists),
            condition("spot", Test::Missing),
        ],
        any_of: vec![Alternative {
            capabilities: vec![text("exec:cuda")],
            labels: BTreeMap::from([(text("rack"), text("7"))]),
            selector: vec![condition("gpu", Test::Exists)],
            resources: Resources { gpu_milli: 250, ..Resources::default() },
        }],
        placement: Placement::Pack,
        affinity_key: Some(text("model-1")),
        ..golden.requirements.clone()
    };
    Entry::Spec(TaskId::new("job-1").unwrap(), Spec { submitter: Some(text("ci")), requirements, ..golden }.into())
}

#[test]
fn the_bytes_of_version_3_never_change() {
    let entry = latest_entry();
    let found = shown("spec", &entry, &value_of(&entry));
    assert_eq!(found, include_str!("golden_v3.txt"), "found:\n{found}");
    assert_same(&entry, &value_of(&entry));
}

/// What came with version 4.
fn newest_entries() -> Vec<(String, Entry)> {
    let source = Source { task: TaskId::new("earlier").unwrap(), attempt: 2 };
    let report = Report { result: Data::Inline(Arc::from(&b"42"[..])), ..Report::default() };
    let cache = Some(Caching { mode: Mode::ReadWrite, scope: Some(Scope([0x5c; 32])) });
    let trace = Some(text("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"));
    let closed = Closed {
        outcome: Outcome::Completed,
        at: Unix(1_000),
        executor: None,
        started_at: None,
        report: Some(report.clone()),
        cached_from: Some(source.clone()),
    };
    let cached = Cached {
        key: CacheKey([0xca; 32]),
        task_type: text("exec"),
        tags: vec![text("nightly")],
        source,
        report,
        created: Unix(1_700_000_000_000),
        expires: Unix(1_800_000_000_000),
    };
    vec![
        ("spec".to_owned(), Entry::Spec(TaskId::new("job-1").unwrap(), Spec { cache, trace, ..golden_spec() }.into())),
        ("record".to_owned(), golden_record(TaskState::Done(Arc::new(closed)))),
        ("result".to_owned(), Entry::Cached(Arc::new(cached))),
    ]
}

#[test]
fn the_bytes_of_version_4_never_change() {
    let found: String = newest_entries().iter().map(|(name, entry)| shown(name, entry, &value_of(entry))).collect();
    assert_eq!(found, include_str!("golden_v4.txt"), "found:\n{found}");
    newest_entries().iter().for_each(|(_, entry)| assert_same(entry, &value_of(entry)));
}

/// What came with version 5.
fn last_entries() -> Vec<(String, Entry)> {
    let word = Forgotten {
        node: NodeId::test(9),
        by: text("ann"),
        at: Unix(1_700_000_000_000),
        reason: Some(text("its disk burnt")),
    };
    let without = |entry| match entry {
        Entry::Record { pledge, record } => {
            let record = Record { forgotten: vec![NodeId::test(9)], ..*record };
            Entry::Record { pledge, record: Box::new(record) }
        }
        other => other,
    };
    let taken = newest_entries().into_iter().filter(|(name, _)| name == "record").map(|(_, entry)| entry);
    let plain = golden_record(TaskState::Blocked);
    let records = taken.chain([plain]).map(|entry| ("record".to_owned(), without(entry)));
    records.chain([("forgotten".to_owned(), Entry::Forgotten(word))]).collect()
}

#[test]
fn the_bytes_of_version_5_never_change() {
    let found: String = last_entries().iter().map(|(name, entry)| shown(name, entry, &value_of(entry))).collect();
    assert_eq!(found, include_str!("golden_v5.txt"), "found:\n{found}");
    last_entries().iter().for_each(|(_, entry)| assert_same(entry, &value_of(entry)));
}

/// Every key and value as it was when its version was frozen. If this fails,
/// the change makes stores on disks unreadable: add a version instead.
#[test]
fn the_bytes_of_version_1_never_change() {
    let mut found = String::new();
    for (name, entry) in golden_entries() {
        found += &shown(&name, &entry, &first_value_of(&entry));
    }
    let mut spilled = Vec::new();
    encode_spilled(BlobHash([1; 32]), 100_000, &mut spilled).unwrap();
    found += &format!("spilled\n  {}\n", hex(&spilled));
    let mut seal = Vec::new();
    encode_seal(7, &[0, 1, u64::MAX], &mut seal).unwrap();
    found += &format!("seal\n  {}\n  weighs {:016x} under the key aa\n", hex(&seal), weight(&[0xaa], &seal));
    assert_eq!(found, include_str!("golden_v1.txt"), "found:\n{found}");
}

#[test]
fn what_was_stored_in_version_1_is_read() {
    let golden = include_str!("golden_v1.txt");
    for (name, entry) in golden_entries() {
        let line = golden.lines().skip_while(|l| *l != name).nth(2).unwrap().trim();
        let value: Vec<u8> =
            (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect();
        assert_same(&entry, &value);
    }
}

fn assert_same(entry: &Entry, value: &[u8]) {
    match entry {
        Entry::Spec(_, spec) => assert_eq!(decode_spec(&open(value, Kind::Spec).unwrap()).unwrap(), *spec),
        Entry::Record { pledge, record } => {
            let found = decode_record(&open(value, Kind::Record).unwrap(), &record.task).unwrap();
            assert_eq!(found, (*pledge, (**record).clone()));
        }
        Entry::Worker(spec, since) => {
            assert_eq!(decode_worker(&open(value, Kind::Worker).unwrap()).unwrap(), (spec.clone(), *since));
        }
        Entry::Controls(c) => assert_eq!(decode_controls(&open(value, Kind::Controls).unwrap()).unwrap(), *c),
        Entry::Peer(_, book) => assert_eq!(decode_peer(&open(value, Kind::Peer).unwrap()).unwrap(), *book),
        Entry::Boot(n) => assert_eq!(decode_boot(&open(value, Kind::Boot).unwrap()).unwrap(), *n),
        Entry::Pledge { ballot, at, .. } => {
            assert_eq!(decode_pledge(&open(value, Kind::Pledge).unwrap()).unwrap(), (*ballot, *at));
        }
        Entry::Token(entry) => {
            assert_eq!(decode_token(&open(value, Kind::Token).unwrap()).unwrap(), *entry);
        }
        Entry::Forgotten(word) => {
            assert_eq!(decode_forgotten(&open(value, Kind::Forgotten).unwrap()).unwrap(), *word);
        }
        Entry::Cached(entry) => {
            assert_eq!(decode_cached(&open(value, Kind::Cached).unwrap()).unwrap(), **entry);
        }
        Entry::Tombstone(_, at) => {
            assert_eq!(decode_tombstone(&open(value, Kind::Tombstone).unwrap()).unwrap(), *at);
        }
    }
}

pub(super) fn any_entry(seed: u64) -> Entry {
    let mut chance = Prng::new(seed);
    let task = sample::task_id(&mut chance);
    let mut entries = sample::others(&mut chance);
    entries.push(sample::record(&mut chance, &task));
    entries.push(Entry::Spec(task, sample::spec(&mut chance).into()));
    let any = seed as usize % entries.len();
    entries.swap_remove(any)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_entry_is_read_as_it_was_written(seed: u64) {
        let entry = any_entry(seed);
        assert_same(&entry, &value_of(&entry));
        keys_of_entry(&entry, |kind, name| {
            let key = [&[kind as u8], name].concat();
            assert_eq!(name_of(&key).unwrap().kind(), kind);
        });
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_always_noticed(seed: u64, place: prop::sample::Index, bit in 0..8u8) {
        let mut value = value_of(&any_entry(seed));
        let at = place.index(value.len());
        prop_assert!(inspect(&value[..at]).is_err());
        value[at] ^= 1 << bit;
        prop_assert!(matches!(inspect(&value), Err(Flaw::Damaged(_))));
    }

    #[test]
    fn hostile_bodies_under_a_right_checksum_are_refused_without_a_panic(
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let task = TaskId::new("t").unwrap();
        for kind in [Kind::Spec, Kind::Record, Kind::Worker, Kind::Controls, Kind::Peer, Kind::Boot, Kind::Seal] {
            let envelope = Envelope { kind, version: 1, body: &body };
            let _ = decode_spec(&envelope);
            let _ = decode_record(&envelope, &task);
            let _ = decode_worker(&envelope);
            let _ = decode_controls(&envelope);
            let _ = decode_peer(&envelope);
            let _ = decode_boot(&envelope);
            let _ = decode_tombstone(&envelope);
            let _ = decode_spilled(&envelope);
            let _ = decode_pledge(&envelope);
            let _ = decode_seal(&envelope);
            let _ = decode_token(&envelope);
            let _ = decode_spec(&Envelope { version: 2, ..envelope });
            let _ = decode_spec(&Envelope { version: 3, ..envelope });
            let _ = decode_spec(&Envelope { version: 4, ..envelope });
            let _ = decode_record(&Envelope { version: 2, ..envelope }, &task);
            let _ = decode_cached(&envelope);
        }
    }
}

#[test]
fn a_length_of_gigabytes_in_a_few_bytes_is_refused() {
    // A list's length as the largest varint there is.
    let body = [&[253][..], &[0xff; 8], &[0; 4]].concat();
    let envelope = Envelope { kind: Kind::Peer, version: 1, body: &body };
    assert!(matches!(decode_peer(&envelope), Err(Flaw::Damaged(_))));
}

#[test]
fn bytes_after_the_body_are_damage() {
    let value = value_of(&Entry::Boot(1));
    let body = [&value[HEADER_BYTES..], &[0]].concat();
    let envelope = Envelope { kind: Kind::Boot, version: 1, body: &body };
    assert_eq!(decode_boot(&envelope), Err(Flaw::Damaged("1 bytes follow its body".to_owned())));
}

#[test]
fn what_the_core_relies_on_is_checked() {
    let spec = |change: fn(&mut Spec)| {
        let mut spec = golden_spec();
        change(&mut spec);
        let value = value_of(&Entry::Spec(TaskId::new("t").unwrap(), spec.into()));
        decode_spec(&open(&value, Kind::Spec).unwrap()).unwrap_err().to_string()
    };
    assert!(spec(|s| s.retry.backoff_factor = f64::NAN).contains("back-off"));
    assert!(spec(|s| s.tags = vec!["".into(); 33]).contains("tags"));
    assert!(spec(|s| s.payload = vec![0; 1024 * 1024 + 1].into()).contains("payload"));
    assert!(spec(|s| s.requirements.any_of = vec![Alternative::default(); 9]).contains("alternatives"));
    let record = value_of(&golden_record(TaskState::Blocked));
    let other = decode_record(&open(&record, Kind::Record).unwrap(), &TaskId::new("other").unwrap());
    assert_eq!(other, Err(Flaw::Damaged("it is the record of job-1".to_owned())));
    assert!(open(&record, Kind::Spec).is_err());
}

#[test]
fn a_later_version_is_told_from_damage() {
    let mut value = Vec::new();
    seal(Kind::Boot, v1::Boot { starts: 1 }, &mut value).unwrap();
    value[2] = 9;
    let sum = checksum(&value).to_le_bytes();
    value[3..7].copy_from_slice(&sum);
    let found = decode_boot(&open(&value, Kind::Boot).unwrap());
    assert_eq!(found, Err(Flaw::Newer { what: "boot count", found: 9, known: 1 }));
}
