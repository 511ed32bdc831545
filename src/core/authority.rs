//! Who may do what: roles, the one table of operations and the role that each
//! needs, and the limits that a token may set. All pure: the same check runs
//! where a caller is heard and on the node that owns what the call is about.

use crate::array::{ARRAY, Items};
use crate::command::{Command, Query, Refusal, Request};
use crate::task::{Priority, Spec};
use crate::time::Unix;
use crate::workflow::{BUILT_IN, Plan};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a caller may do in general. Each may do all that those before it may.
/// The numbers stand in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks, and changes nothing.
    Viewer = 1,
    /// Submits tasks, and changes those that it submitted.
    Submitter = 2,
    /// Changes anybody's tasks, the queue and the workers.
    Operator = 3,
    /// Decides who belongs to the mesh and who may call it.
    Admin = 4,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Submitter, Role::Operator, Role::Admin];

    /// Its name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Submitter => "submitter",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(UnknownRole)
    }
}

/// A text is no role's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be viewer, submitter, operator or admin")]
pub struct UnknownRole;

/// The operations of the contract, in its order, and the role that each needs.
pub const OPERATIONS: [(&str, Role); 26] = [
    ("task_submit", Role::Submitter),
    ("task_status", Role::Viewer),
    ("task_cancel", Role::Submitter),
    ("task_list", Role::Viewer),
    ("task_priority", Role::Submitter),
    ("task_result", Role::Viewer),
    ("queue_stats", Role::Viewer),
    ("queue_pause", Role::Operator),
    ("queue_resume", Role::Operator),
    ("queue_clear", Role::Operator),
    ("task_retry", Role::Submitter),
    ("worker_register", Role::Operator),
    ("worker_unregister", Role::Operator),
    ("worker_status", Role::Viewer),
    ("workflow_submit", Role::Submitter),
    ("workflow_status", Role::Viewer),
    ("workflow_cancel", Role::Submitter),
    ("workflow_list", Role::Viewer),
    ("workflow_dependencies", Role::Viewer),
    ("workflow_result", Role::Viewer),
    ("peer_discover", Role::Viewer),
    ("peer_connect", Role::Admin),
    ("peer_disconnect", Role::Admin),
    ("peer_list", Role::Viewer),
    ("peer_metrics", Role::Viewer),
    ("bootstrap_network", Role::Admin),
];

/// What is asked for beside the contract, and the role that each needs.
pub const BESIDE: [(&str, Role); 6] = [
    ("cache_stats", Role::Viewer),
    ("cache_invalidate", Role::Operator),
    ("node_forget", Role::Operator),
    ("forgotten_list", Role::Viewer),
    ("value_find", Role::Viewer),
    ("value_keep", Role::Submitter),
];

/// The least role that `operation` needs. What is not in the table needs the
/// greatest: a forgotten row must not open a door.
#[must_use]
pub fn needs(operation: &str) -> Role {
    let row = OPERATIONS.iter().chain(&BESIDE).find(|(name, _)| *name == operation);
    row.map_or(Role::Admin, |(_, role)| *role)
}

/// Whether `role` may do `operation`, as far as roles decide.
#[must_use]
pub fn may(role: Role, operation: &str) -> bool {
    role >= needs(operation)
}

/// The operation whose row of the table speaks for `request`.
#[must_use]
pub fn operation_of(request: &Request) -> &'static str {
    match request {
        Request::Command(Command::Submit(submission)) if submission.spec.is_workflow() => "workflow_submit",
        Request::Command(Command::Submit(_)) => "task_submit",
        Request::Command(Command::CancelWorkflow { .. }) => "workflow_cancel",
        Request::Command(Command::Approve { .. }) => "workflow_submit",
        Request::Command(Command::Cancel { .. }) => "task_cancel",
        Request::Command(Command::Reprioritise { .. }) => "task_priority",
        Request::Command(Command::Retry { .. }) => "task_retry",
        Request::Command(Command::Pause { .. }) => "queue_pause",
        Request::Command(Command::Resume { .. }) => "queue_resume",
        Request::Command(Command::Clear { .. }) => "queue_clear",
        Request::Command(Command::Register(_)) => "worker_register",
        Request::Command(Command::Unregister { .. }) => "worker_unregister",
        Request::Command(Command::Connect { .. }) => "peer_connect",
        Request::Command(Command::Disconnect { .. }) => "peer_disconnect",
        Request::Command(Command::Bootstrap { .. }) => "bootstrap_network",
        Request::Command(Command::Issue(_)) => "token_create",
        Request::Command(Command::Revoke(_)) => "token_revoke",
        Request::Query(Query::Foresee(_) | Query::Template { .. }) => "workflow_submit",
        Request::Command(Command::LookUp { .. }) => "cache_look_up",
        Request::Command(Command::KeepValue { .. }) => "value_keep",
        Request::Query(Query::Value { .. }) => "value_find",
        Request::Command(Command::Invalidate { .. }) => "cache_invalidate",
        Request::Command(Command::ForgetNode { .. }) | Request::Query(Query::Hears(_)) => "node_forget",
        Request::Query(Query::Forgotten) => "forgotten_list",
        Request::Query(Query::Cache { .. }) => "cache_stats",
        Request::Query(Query::Task { .. }) => "task_status",
        Request::Query(Query::Tasks(_)) => "task_list",
        Request::Query(Query::Stats { .. }) => "queue_stats",
        Request::Query(Query::Worker { .. } | Query::Workers) => "worker_status",
        Request::Query(Query::Discover { .. }) => "peer_discover",
        Request::Query(Query::Peers(_)) => "peer_list",
        Request::Query(Query::Peer { .. }) => "peer_metrics",
        Request::Query(Query::Tokens) => "token_list",
    }
}

/// What one block of a token says. Each field that is set narrows; none widens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caveats {
    /// At most this role.
    pub role: Option<Role>,
    /// Tasks of these types alone; empty: of any.
    pub task_types: Vec<Arc<str>>,
    /// Tasks that carry one of these tags; empty: any.
    pub tags: Vec<Arc<str>>,
    /// No task may be given a greater priority.
    pub priority_max: Option<Priority>,
    /// Calls on one node in a minute.
    pub calls_per_minute: Option<u32>,
    /// Not valid from then on.
    pub expires: Option<Unix>,
    /// Tasks of the same subject alone, to look at as well.
    pub own: bool,
}

/// The name of a token: what it is listed and revoked by. It tells nothing
/// that the token could be made from.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = NoTokenId;
    fn from_str(text: &str) -> Result<TokenId, NoTokenId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoTokenId);
        }
        let mut id = [0; 16];
        for (n, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| NoTokenId)?;
        }
        Ok(TokenId(id))
    }
}

/// A text is no id of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the 32 hexadecimal digits that `taskmesh token list` shows")]
pub struct NoTokenId;

/// What a caller may do: all that the blocks of its token say, together.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// Who it is; tasks that it submits are its own.
    pub subject: Arc<str>,
    /// In general.
    pub role: Role,
    /// Tasks of these types alone; `None`: of any.
    pub task_types: Option<BTreeSet<Arc<str>>>,
    /// Tasks that carry one tag of each of these sets.
    pub tags: Vec<BTreeSet<Arc<str>>>,
    /// The greatest priority that it may give.
    pub priority_max: Option<Priority>,
    /// Calls in a minute on one node, for each block that sets a rate: all who
    /// hold a token made from that block share it.
    pub rates: Vec<(TokenId, u32)>,
    /// Not valid from then on.
    pub expires: Unix,
    /// Its own tasks alone, to look at as well.
    pub own: bool,
    /// Its token, and those that this one was made from; any of them revoked
    /// revokes it. The last is its own.
    pub ids: Vec<TokenId>,
}

/// What is done with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It is looked at.
    Look,
    /// It is changed.
    Change,
}

impl Authority {
    /// All rights, without a limit, until `expires`; `id` names its token.
    #[must_use]
    pub fn unlimited(subject: Arc<str>, id: TokenId, expires: Unix) -> Authority {
        Authority {
            subject,
            role: Role::Admin,
            task_types: None,
            tags: Vec::new(),
            priority_max: None,
            rates: Vec::new(),
            expires,
            own: false,
            ids: vec![id],
        }
    }

    /// Takes away what the block `caveats`, named `id`, does not grant.
    pub fn narrow(&mut self, caveats: &Caveats, id: TokenId) {
        self.role = self.role.min(caveats.role.unwrap_or(Role::Admin));
        if !caveats.task_types.is_empty() {
            let named: BTreeSet<_> = caveats.task_types.iter().cloned().collect();
            self.task_types = Some(match self.task_types.take() {
                Some(before) => before.intersection(&named).cloned().collect(),
                None => named,
            });
        }
        if !caveats.tags.is_empty() {
            self.tags.push(caveats.tags.iter().cloned().collect());
        }
        if let Some(max) = caveats.priority_max {
            let less = self.priority_max.is_none_or(|before| max.value() < before.value());
            self.priority_max = if less { Some(max) } else { self.priority_max };
        }
        self.rates.extend(caveats.calls_per_minute.map(|rate| (id, rate)));
        self.expires = caveats.expires.map_or(self.expires, |at| at.min(self.expires));
        self.own |= caveats.own;
    }

    /// The id of the token itself.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.ids.last().copied().unwrap_or_default()
    }

    /// It is bound to some of the tasks.
    #[must_use]
    pub fn is_scoped(&self) -> bool {
        self.own || self.task_types.is_some() || !self.tags.is_empty()
    }

    /// Whether the role reaches for `operation`, and the limits leave it any use.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is needed.
    pub fn allows_operation(&self, operation: &str) -> Result<(), Refusal> {
        if !may(self.role, operation) {
            let (role, needed) = (self.role, needs(operation));
            return denied(format!("{operation} needs the role {needed}; this token has the role {role}"));
        }
        if self.is_scoped() && OF_THE_WHOLE_MESH.contains(&operation) {
            return denied(format!(
                "{operation} is about more than the tasks that this token is limited to (types, tags or own); it needs a \
                 token without these limits"
            ));
        }
        Ok(())
    }

    /// Whether `request` may be made, as far as it tells by itself; a task that
    /// it is about is looked at where it is known: [`Authority::allows_task`].
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is needed.
    pub fn allows(&self, request: &Request) -> Result<(), Refusal> {
        self.allows_operation(operation_of(request))?;
        match request {
            Request::Command(Command::Submit(submission)) => {
                self.allows_priority(submission.priority)?;
                self.allows_actions(&submission.spec)?;
                self.allows_kind(&submission.spec, "the task")
            }
            Request::Command(Command::Reprioritise { priority, .. }) => self.allows_priority(*priority),
            Request::Query(Query::Worker { tasks: true, .. }) if self.is_scoped() => {
                denied("the tasks of a worker are more than those that this token is limited to".to_owned())
            }
            Request::Command(_) | Request::Query(_) => Ok(()),
        }
    }

    /// Whether a task may be touched.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is needed.
    pub fn allows_task(&self, name: &str, spec: &Spec, touch: Touch) -> Result<(), Refusal> {
        self.allows_kind(spec, name)?;
        let only_own = self.own || (touch == Touch::Change && self.role < Role::Operator);
        if only_own && spec.submitter.as_ref() != Some(&self.subject) {
            let why = if self.own { "it is limited to its own tasks" } else { "others need the role operator" };
            return denied(format!("{name} was not submitted by {}, whose token this is; {why}", self.subject));
        }
        Ok(())
    }

    /// Whether a task may be given `priority`.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which names the ceiling.
    pub fn allows_priority(&self, priority: Priority) -> Result<(), Refusal> {
        match self.priority_max {
            Some(max) if priority.value() > max.value() => {
                denied(format!("the priority {} is above {}, this token's limit", priority.value(), max.value()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether each step of a workflow would be allowed as a task. What can't be
    /// read is refused where it is taken.
    fn allows_actions(&self, spec: &Spec) -> Result<(), Refusal> {
        let spec = spec.work();
        if self.task_types.is_some()
            && spec.is_array()
            && let Ok(items) = Items::read(&spec.payload)
            && !self.allows_type(&items.heading().task_type)
        {
            let types = listed(self.task_types.iter().flatten());
            let task_type = &items.heading().task_type;
            return denied(format!("the items are of the type {task_type}; this token is limited to: {types}"));
        }
        if self.task_types.is_none() || !spec.is_workflow() {
            return Ok(());
        }
        let Ok(plan) = Plan::read(&spec.payload) else { return Ok(()) };
        self.allows_steps(&plan)
    }

    fn allows_steps(&self, plan: &Plan) -> Result<(), Refusal> {
        for (at, step) in plan.actions() {
            if !self.allows_type(&step.action) {
                let types = listed(self.task_types.iter().flatten());
                return denied(format!("{at} is {}; this token is limited to: {types}", step.action));
            }
        }
        plan.inner().try_for_each(|inner| self.allows_steps(&inner))
    }

    /// What the mesh runs by itself is of no type that could be limited: what it
    /// leads to is looked at.
    fn allows_type(&self, task_type: &str) -> bool {
        BUILT_IN.contains(&task_type)
            || task_type == ARRAY
            || self.task_types.as_ref().is_none_or(|types| types.contains(task_type))
    }

    fn allows_kind(&self, spec: &Spec, name: &str) -> Result<(), Refusal> {
        // Of a schedule, what its ticks submit.
        if self.task_types.is_some() && !self.allows_type(&spec.work().task_type) {
            let types = listed(self.task_types.iter().flatten());
            return denied(format!(
                "{name} is of the type {}; this token is limited to: {types}",
                spec.work().task_type
            ));
        }
        let missing = self.tags.iter().find(|set| !spec.tags.iter().any(|tag| set.contains(tag)));
        match missing {
            Some(set) => denied(format!("{name} has none of the tags that this token is limited to: {}", listed(set))),
            None => Ok(()),
        }
    }
}

/// What no token does that is limited to some of the tasks.
const OF_THE_WHOLE_MESH: [&str; 13] = [
    "node_forget",
    "queue_pause",
    "queue_resume",
    "queue_clear",
    "worker_register",
    "worker_unregister",
    "peer_connect",
    "peer_disconnect",
    "bootstrap_network",
    "cache_stats",
    "cache_invalidate",
    "value_find",
    "value_keep",
];

fn denied<T>(problem: String) -> Result<T, Refusal> {
    Err(Refusal::Denied { problem: problem.into() })
}

fn listed<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| &**name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn authority(caveats: &Caveats) -> Authority {
        let mut authority = Authority::unlimited("ann".into(), TokenId([1; 16]), Unix(1_000));
        authority.narrow(caveats, TokenId([1; 16]));
        authority
    }

    fn of(submitter: &str) -> Spec {
        Spec { submitter: Some(submitter.into()), tags: vec!["a".into()], ..spec() }
    }

    #[test]
    fn what_is_not_in_the_table_needs_the_greatest_role() {
        assert_eq!(needs("task_vanish"), Role::Admin);
        assert!(!may(Role::Operator, "token_create"));
    }

    #[test]
    fn a_submitter_changes_its_own_tasks_and_sees_all() {
        let ann = authority(&Caveats { role: Some(Role::Submitter), ..Caveats::default() });
        assert_eq!(ann.allows_task("t", &of("ann"), Touch::Change), Ok(()));
        assert!(ann.allows_task("t", &of("bob"), Touch::Change).is_err());
        assert!(ann.allows_task("t", &spec(), Touch::Change).is_err(), "nobody's task is not hers");
        assert_eq!(ann.allows_task("t", &of("bob"), Touch::Look), Ok(()));
        let own = authority(&Caveats { own: true, ..Caveats::default() });
        assert!(own.allows_task("t", &of("bob"), Touch::Look).is_err());
        let operator = authority(&Caveats { role: Some(Role::Operator), ..Caveats::default() });
        assert_eq!(operator.allows_task("t", &of("bob"), Touch::Change), Ok(()));
    }

    #[test]
    fn types_tags_and_the_ceiling_bind() {
        let caveats = Caveats {
            task_types: vec!["echo".into()],
            tags: vec!["a".into(), "b".into()],
            priority_max: Priority::new(2.0),
            ..Caveats::default()
        };
        let ann = authority(&caveats);
        assert_eq!(ann.allows_task("t", &of("bob"), Touch::Change), Ok(()));
        assert!(ann.allows_task("t", &spec(), Touch::Look).is_err(), "without a tag");
        assert!(ann.allows_task("t", &Spec { task_type: "exec".into(), ..of("bob") }, Touch::Look).is_err());
        assert!(ann.allows_priority(Priority::new(2.5).expect("above 0")).is_err());
        assert!(ann.allows_operation("queue_pause").is_err(), "that is about others' tasks too");
        assert_eq!(ann.allows_operation("task_list"), Ok(()));
    }

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = TokenId([0xa7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "a7", &"g".repeat(32), &"ä".repeat(16)] {
            assert_eq!(bad.parse::<TokenId>(), Err(NoTokenId), "{bad}");
        }
    }
}
