//! Joining registers, telling them to others, and what the node that owns a
//! task makes of a caller whom another node let in.

use super::*;
use crate::Config;
use crate::authority::{Caveats, OPERATIONS, needs, operation_of};
use crate::command::{ClearScope, Command, Detail, Query, Request, Scope, Submission, TaskFilter};
use crate::effect::{Disk, Effect, Input};
use crate::ids::{RequestId, TaskId, WorkerId};
use crate::message::By;
use crate::task::{Priority, Spec};
use crate::testing::{Solo, solo, spec};
use crate::token::RootKey;
use crate::view::Status;
use proptest::prelude::*;

const WALL: Unix = Unix(1_700_000_000_000);
const OTHER: u64 = 2;

fn root() -> RootKey {
    RootKey::of_mesh(&[7; 32])
}

fn config() -> Config {
    Config { root: Some(root()), ..Config::default() }
}

fn token_of(subject: &str, role: Role, caveats: Caveats) -> Token {
    let caveats = Caveats { expires: caveats.expires.or(Some(WALL + Millis(3_600_000))), ..caveats };
    root().mint([subject.len() as u8; 16], subject, role, &caveats).expect("a token")
}

fn token(subject: &str, role: Role) -> Token {
    token_of(subject, role, Caveats::default())
}

fn bearer(token: &Token) -> Caller {
    Caller::Bearer(Arc::new(root().verify(token.clone(), WALL).expect("valid")))
}

/// What a node answers another that asks `request` with `by`, and all else
/// that it does for it.
fn forwarded(solo: &mut Solo, by: By, request: Request) -> (Result<Reply, Refusal>, Vec<Effect>) {
    let from = NodeId::test(OTHER);
    let message = Message::Request { id: 9, by, request: Box::new(request) };
    let mut effects = solo.feed(Input::Received { from, message });
    let at = effects.iter().position(|e| matches!(e, Effect::Send { message: Message::Response { .. }, .. }));
    match effects.remove(at.unwrap_or_else(|| panic!("no answer: {effects:?}"))) {
        Effect::Send { message: Message::Response { reply, .. }, .. } => (*reply, effects),
        other => panic!("{other:?}"),
    }
}

fn shown(token: &Token) -> By {
    By::Token(token.to_bytes().into())
}

fn task(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

fn cancel(name: &str) -> Request {
    Request::Command(Command::Cancel { task: task(name), reason: None, force: true })
}

fn look(name: &str) -> Request {
    Request::Query(Query::Task { task: task(name), detail: Detail::default(), wait: Millis(0) })
}

fn submission(name: &str, spec: Spec, priority: f64) -> Request {
    let priority = Priority::new(priority).expect("above 0");
    let submission = Submission { task: Some(task(name)), spec, priority, items: Vec::new() };
    Request::Command(Command::Submit(Box::new(submission)))
}

fn list() -> Request {
    let filter = TaskFilter { limit: 10, scope: Scope::Local, ..TaskFilter::default() };
    Request::Query(Query::Tasks(Box::new(filter)))
}

/// Everything that changes something and that one node may ask of another.
fn changes() -> Vec<Request> {
    let commands = [
        Command::Cancel { task: task("a"), reason: None, force: true },
        Command::Reprioritise { task: task("a"), priority: Priority::NORMAL, requeue: true },
        Command::Retry { task: task("a"), max_retries: None, timeout: None },
        Command::Pause { reason: None },
        Command::Resume { reorder: true },
        Command::Clear { which: ClearScope::NotRunning, scope: Scope::Local },
        Command::Unregister { worker: WorkerId::new("w").expect("a valid id"), graceful: false, timeout: Millis(0) },
    ];
    let mut all: Vec<_> = commands.into_iter().map(Request::Command).collect();
    all.push(submission("b", spec(), 1.0));
    all
}

fn is_denied(reply: &Result<Reply, Refusal>) -> bool {
    matches!(reply, Err(Refusal::Denied { .. }))
}

#[test]
fn a_viewer_whom_another_node_let_through_changes_nothing() {
    let mut solo = solo(config());
    solo.submit("a", spec());
    for request in changes() {
        let (reply, effects) = forwarded(&mut solo, shown(&token("eve", Role::Viewer)), request.clone());
        assert!(is_denied(&reply), "{request:?}: {reply:?}");
        let changed = effects.iter().any(|e| matches!(e, Effect::Persist(entry) if !matches!(entry, Entry::Peer(..))));
        assert!(
            !changed && !effects.iter().any(|e| matches!(e, Effect::Stop { .. } | Effect::Run { .. })),
            "{effects:?}"
        );
    }
    assert_eq!(solo.view("a").status, Status::Leased);
    let (reply, _) = forwarded(&mut solo, shown(&token("eve", Role::Viewer)), look("a"));
    assert!(reply.is_ok(), "looking is a viewer's right: {reply:?}");
}

#[test]
fn a_forged_an_expired_and_a_damaged_token_are_refused_by_the_owner() {
    let mut solo = solo(config());
    solo.submit("a", spec());
    let forged = RootKey::of_mesh(&[8; 32]).mint(
        [1; 16],
        "eve",
        Role::Admin,
        &Caveats { expires: Some(WALL + Millis(1_000)), ..Caveats::default() },
    );
    let past = Caveats { expires: Some(Unix(WALL.0 - 1)), ..Caveats::default() };
    let expired = token_of("eve", Role::Admin, past);
    let all = [
        shown(&forged.expect("a token")),
        shown(&expired),
        By::Token(Arc::from(&b"nonsense"[..])),
        By::Token(Arc::from(&[][..])),
    ];
    for by in all {
        assert!(is_denied(&forwarded(&mut solo, by, look("a")).0));
    }
    assert!(forwarded(&mut solo, By::Node, look("a")).0.is_ok(), "an older node says nothing of callers");
}

#[test]
fn a_node_without_a_key_believes_no_token() {
    let mut solo = solo(Config::default());
    solo.submit("a", spec());
    assert!(is_denied(&forwarded(&mut solo, shown(&token("ann", Role::Admin)), look("a")).0));
}

#[test]
fn a_submitter_changes_its_own_tasks_alone() {
    let mut solo = solo(config());
    let (ann, bob) = (token("ann", Role::Submitter), token("bobby", Role::Submitter));
    assert!(forwarded(&mut solo, shown(&ann), submission("hers", spec(), 1.0)).0.is_ok());
    solo.ask_as(bearer(&bob), submission("his", spec(), 1.0));
    assert!(is_denied(&forwarded(&mut solo, shown(&bob), cancel("hers")).0));
    assert!(is_denied(&solo.ask_as(bearer(&bob), cancel("hers")).1.expect("answered")));
    assert!(forwarded(&mut solo, shown(&ann), cancel("hers")).0.is_ok());
    assert!(forwarded(&mut solo, shown(&token("opera", Role::Operator)), cancel("his")).0.is_ok());
}

#[test]
fn what_the_submitter_says_of_itself_is_not_believed() {
    let mut solo = solo(config());
    let posing = Spec { submitter: Some("bobby".into()), ..spec() };
    solo.ask_as(bearer(&token("ann", Role::Submitter)), submission("a", posing, 1.0));
    let kept = solo.node.slot(&task("a")).expect("kept").spec.submitter.clone();
    assert_eq!(kept.as_deref(), Some("ann"));
}

#[test]
fn own_tasks_only_hides_those_of_others() {
    let mut solo = solo(config());
    let own = |name| token_of(name, Role::Submitter, Caveats { own: true, ..Caveats::default() });
    let (ann, bob) = (own("ann"), own("bobby"));
    solo.ask_as(bearer(&ann), submission("hers", spec(), 1.0));
    assert!(is_denied(&forwarded(&mut solo, shown(&bob), look("hers")).0));
    let listed = |reply: Result<Reply, Refusal>| match reply {
        Ok(Reply::Tasks(page)) => (page.total, page.tasks.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(forwarded(&mut solo, shown(&bob), list()).0), (0, 0));
    assert_eq!(listed(forwarded(&mut solo, shown(&ann), list()).0), (1, 1));
    let again = solo.ask_as(bearer(&bob), submission("hers", spec(), 1.0)).1;
    assert!(matches!(again, Some(Err(Refusal::Conflict { .. }))), "not told that it is the same: {again:?}");
}

#[test]
fn the_ceiling_and_the_types_bind_at_the_owner() {
    let mut solo = solo(config());
    let caveats = Caveats {
        priority_max: Priority::new(2.0),
        task_types: vec!["echo".into()],
        tags: vec!["nightly".into()],
        ..Caveats::default()
    };
    let ann = token_of("ann", Role::Submitter, caveats);
    let tagged = || Spec { tags: vec!["nightly".into()], ..spec() };
    let mut ask = |request| forwarded(&mut solo, shown(&ann), request).0;
    assert!(is_denied(&ask(submission("a", tagged(), 3.0))));
    assert!(is_denied(&ask(submission("a", spec(), 1.0))), "without the tag");
    assert!(is_denied(&ask(submission("a", Spec { task_type: "exec".into(), ..tagged() }, 1.0))));
    assert!(ask(submission("a", tagged(), 2.0)).is_ok());
    let higher = Priority::new(2.1).expect("above 0");
    let raise = Command::Reprioritise { task: task("a"), priority: higher, requeue: true };
    assert!(is_denied(&ask(Request::Command(raise))));
}

#[test]
fn every_request_has_a_row_of_the_table() {
    for request in changes().into_iter().chain([look("a"), list()]) {
        let operation = operation_of(&request);
        assert!(OPERATIONS.iter().any(|(name, _)| *name == operation), "{operation}");
    }
    assert_eq!(needs(operation_of(&Request::Query(Query::Tokens))), Role::Admin);
}

/// Two nodes that hear each other at once.
struct Pair {
    nodes: [Node; 2],
    now: Millis,
}

impl Pair {
    fn new(disks: [Disk; 2]) -> Pair {
        let mut disks = disks.into_iter();
        let mut node = |n| Node::new(NodeId::test(n), config(), n, disks.next().expect("two"));
        let mut pair = Pair { nodes: [node(1), node(2)], now: Millis(1) };
        for n in 0..2 {
            pair.feed(n, Input::Clock(WALL));
            let peer = NodeId::test(2 - n as u64);
            pair.feed(n, Input::Peer(crate::PeerEvent::Up { peer, address: "/memory/1".into() }));
        }
        pair.wait(Millis(3_000));
        pair
    }

    /// Feeds one input, delivers what follows, and returns the replies.
    fn feed(&mut self, n: usize, input: Input) -> Vec<Result<Reply, Refusal>> {
        let mut due = std::collections::VecDeque::from([(n, input)]);
        let mut replies = Vec::new();
        while let Some((n, input)) = due.pop_front() {
            let mut effects = Vec::new();
            self.nodes[n].handle(self.now, input, &mut effects);
            let from = NodeId::test(n as u64 + 1);
            for effect in effects {
                match effect {
                    Effect::Send { message, .. } | Effect::Publish(message) => {
                        due.push_back((1 - n, Input::Received { from, message }));
                    }
                    Effect::Reply { reply, .. } => replies.push(reply),
                    _ => {}
                }
            }
        }
        replies
    }

    fn wait(&mut self, span: Millis) {
        let until = self.now + span;
        while self.now < until {
            self.now = self.now + Millis(100);
            self.feed(0, Input::Tick);
            self.feed(1, Input::Tick);
        }
    }

    fn ask(&mut self, n: usize, caller: &Token, request: Request) -> Result<Reply, Refusal> {
        let input = Input::Request { id: RequestId(1), caller: bearer(caller), request };
        self.feed(n, input).pop().expect("answered")
    }
}

fn entry(n: u8, revoked: Option<Unix>) -> Issued {
    Issued {
        id: TokenId([n; 16]),
        subject: format!("s{n}").into(),
        role: Some(Role::Viewer),
        limits: "".into(),
        by: "admin".into(),
        at: WALL,
        expires: WALL + Millis(3_600_000),
        revoked,
    }
}

#[test]
fn a_token_revoked_on_one_node_is_refused_on_the_other_with_all_made_from_it() {
    let mut pair = Pair::new([Disk::default(), Disk::default()]);
    let (admin, ann) = (token("admin", Role::Admin), token("ann", Role::Operator));
    let narrowed = ann.attenuate(&Caveats { role: Some(Role::Viewer), ..Caveats::default() }).expect("a token");
    assert!(pair.ask(1, &narrowed, list()).is_ok());
    let revoked = pair.ask(0, &admin, Request::Command(Command::Revoke(ann.id())));
    assert!(matches!(revoked, Ok(Reply::Token(entry)) if entry.revoked.is_some()));
    for token in [&ann, &narrowed] {
        assert!(is_denied(&pair.ask(1, token, list())), "at once: the answer came after a majority had it");
    }
    assert!(is_denied(&pair.ask(1, &ann, Request::Command(Command::Revoke(admin.id())))), "no admin");
    assert_eq!(pair.nodes[1].revoked_tokens().1, BTreeSet::from([ann.id()]));
}

#[test]
fn a_node_that_joins_or_was_away_learns_what_was_revoked_and_tells_what_it_knows() {
    let disk = |entries| Disk { tokens: entries, ..Disk::default() };
    let ours = disk(vec![entry(1, Some(WALL)), entry(2, None)]);
    let theirs = disk(vec![entry(2, Some(WALL)), entry(3, None)]);
    let pair = Pair::new([ours, theirs]);
    for node in &pair.nodes {
        assert_eq!(node.revoked_tokens().1, BTreeSet::from([TokenId([1; 16]), TokenId([2; 16])]));
        assert_eq!(node.register.entries.len(), 3);
    }
    assert_eq!(pair.nodes[0].register.digest(), pair.nodes[1].register.digest());
}

#[test]
fn what_has_expired_drops_out_and_is_not_brought_back() {
    let mut solo = solo(config());
    let admin = bearer(&token("admin", Role::Admin));
    solo.ask_as(admin.clone(), Request::Command(Command::Issue(Box::new(entry(1, None)))));
    assert_eq!(solo.node.register.entries.len(), 1);
    let later = Unix(entry(1, None).expires.0 + KEPT_AFTER.0 + 1);
    solo.feed(Input::Clock(later));
    let effects = solo.wait(Millis(2_000));
    assert!(effects.iter().any(|e| matches!(e, Effect::Forget(Key::Token(_)))));
    let message = Message::Tokens { digest: 1, entries: vec![entry(1, Some(WALL))], answer: false };
    solo.feed(Input::Received { from: NodeId::test(OTHER), message });
    assert_eq!(solo.node.register.entries.len(), 0);
}

#[test]
fn the_register_is_bounded_and_when_full_revokes_what_it_has() {
    let mut solo = solo(config());
    let entries: Vec<_> = (0..limits::REGISTER as u64 + 5)
        .map(|n| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Issued { id: TokenId(id), ..entry(1, None) }
        })
        .collect();
    let known = entries[0].id;
    let message = Message::Tokens { digest: 1, entries, answer: true };
    solo.feed(Input::Received { from: NodeId::test(OTHER), message });
    assert_eq!(solo.node.register.entries.len(), limits::REGISTER);
    let admin = bearer(&token("admin", Role::Admin));
    let full = solo.ask_as(admin.clone(), Request::Command(Command::Issue(Box::new(entry(9, None))))).1;
    assert!(matches!(full, Some(Err(Refusal::Full { .. }))), "{full:?}");
    solo.ask_as(admin, Request::Command(Command::Revoke(known)));
    assert!(solo.node.revoked_tokens().1.contains(&known));
}

fn any_entry() -> impl Strategy<Value = Issued> {
    let subject = prop::sample::select(vec!["", "a", "b"]);
    (0..2_u8, subject, prop::option::of((0..3_u64).prop_map(Unix)), 0..3_u64)
        .prop_map(|(n, subject, revoked, at)| Issued { subject: subject.into(), at: Unix(at), ..entry(n, revoked) })
}

proptest! {
    #[test]
    fn registers_join_alike_in_any_order(mut entries in prop::collection::vec(any_entry(), 1..8)) {
        let forwards = Register::new(entries.clone());
        entries.reverse();
        let backwards = Register::new(entries.clone());
        let twice = Register::new([entries.clone(), entries.clone()].concat());
        prop_assert_eq!(&forwards.entries, &backwards.entries);
        prop_assert_eq!((forwards.digest, forwards.digest), (backwards.digest, twice.digest));
        for entry in entries {
            prop_assert!(entry.revoked.is_none() || forwards.revokes(&[entry.id]), "no revocation is lost");
        }
    }
}
