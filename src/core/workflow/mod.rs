//! What a workflow is: steps that wait for each other, as its submitter wrote
//! them ([`Definition`]), checked as a whole and drawn as a graph ([`Plan`]),
//! and how far it has come (`flow::Flow`).
//!
//! A workflow is a task whose program is its owner: one record under the same
//! rules as any other, with the definition as its payload. Its steps are tasks
//! of their own (`<workflow>/<step>`) that are born when their turn has come. What
//! is not a task's state is not stored: which step is next follows from the
//! definition and from the records of the steps, on any node, at any time.

pub mod condition;
pub(crate) mod flow;
mod plan;
pub mod reference;

pub(crate) use plan::wait_until;
pub use plan::{Invalid, Plan};

use crate::task::{Requirements, RetryPolicy};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// The type of the record of a workflow, and of a step that is one.
pub const WORKFLOW: &str = "workflow";
/// The type of a step that waits for a time.
pub const WAIT: &str = "wait";
/// The type of a step that waits for a person's word.
pub const APPROVE: &str = "approve";
/// Types that the mesh runs by itself, as steps alone.
pub const BUILT_IN: [&str; 3] = [WORKFLOW, WAIT, APPROVE];

/// A workflow, as it is stored: the payload of its record. Unknown fields are
/// refused; those that are left out have their default, so that a field can be
/// added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// For people.
    pub name: String,
    /// What `${params.…}` in its steps stands for: an object, or null.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Its steps, in the order of their writing.
    pub steps: Vec<Step>,
    /// One run of the only step for each of these, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Value>>,
    /// Steps that are under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, unique in the workflow: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub step_id: String,
    /// The type of its task, or one of [`BUILT_IN`].
    pub action: String,
    /// The payload of its task, with references.
    #[serde(default = "nothing")]
    pub inputs: Value,
    /// Steps that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What it waits for of them.
    #[serde(default)]
    pub join: Join,
    /// Skipped unless this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Run once for each element: an array, or a reference to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<Value>,
    /// Of those, at most so many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// What its failure means for the workflow.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What a worker must have.
    #[serde(default)]
    pub requirements: Requirements,
    /// The longest that one attempt may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub retry: RetryPolicy,
}

/// What a step waits for of those that it depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Join {
    /// All of them complete.
    #[default]
    All,
    /// One of them completes.
    Any,
    /// So many of them complete.
    Quorum(u32),
    /// All of them end, however they do.
    Always,
}

/// What the failure of a step means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OnFailure {
    /// The workflow fails, once everything that does not depend on it has ended.
    #[default]
    Fail,
    /// Those that depend on it go on as if it had completed, with a null result.
    Continue,
    /// As `Fail`; and whenever the workflow fails after this step began, the
    /// named step undoes it. Those steps run one by one, the latest first
    /// (Garcia-Molina, Salem: "Sagas", 1987).
    Compensate(String),
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Join::All => f.write_str("all"),
            Join::Any => f.write_str("any"),
            Join::Quorum(n) => write!(f, "quorum:{n}"),
            Join::Always => f.write_str("always"),
        }
    }
}

impl FromStr for Join {
    type Err = String;
    fn from_str(text: &str) -> Result<Join, String> {
        match text.split_once(':') {
            None if text == "all" => Ok(Join::All),
            None if text == "any" => Ok(Join::Any),
            None if text == "always" => Ok(Join::Always),
            Some(("quorum", n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(Join::Quorum(n)),
                Ok(_) | Err(_) => Err("quorum:n needs a number above 0".to_owned()),
            },
            None | Some(_) => Err("must be all, any, quorum:n or always".to_owned()),
        }
    }
}

impl TryFrom<String> for Join {
    type Error = String;
    fn try_from(text: String) -> Result<Join, String> {
        text.parse()
    }
}

impl From<Join> for String {
    fn from(join: Join) -> String {
        join.to_string()
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnFailure::Fail => f.write_str("fail"),
            OnFailure::Continue => f.write_str("continue"),
            OnFailure::Compensate(step) => write!(f, "compensate:{step}"),
        }
    }
}

impl FromStr for OnFailure {
    type Err = String;
    fn from_str(text: &str) -> Result<OnFailure, String> {
        match text.split_once(':') {
            None if text == "fail" => Ok(OnFailure::Fail),
            None if text == "continue" => Ok(OnFailure::Continue),
            Some(("compensate", step)) if !step.is_empty() => Ok(OnFailure::Compensate(step.to_owned())),
            None | Some(_) => Err("must be fail, continue or compensate:<step>".to_owned()),
        }
    }
}

impl TryFrom<String> for OnFailure {
    type Error = String;
    fn try_from(text: String) -> Result<OnFailure, String> {
        text.parse()
    }
}

impl From<OnFailure> for String {
    fn from(on_failure: OnFailure) -> String {
        on_failure.to_string()
    }
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

impl Step {
    /// A step with defaults everywhere else.
    #[must_use]
    pub fn new(step_id: &str, action: &str) -> Step {
        Step {
            step_id: step_id.to_owned(),
            action: action.to_owned(),
            inputs: nothing(),
            depends_on: Vec::new(),
            join: Join::All,
            when: None,
            for_each: None,
            max_concurrent: None,
            on_failure: OnFailure::Fail,
            requirements: Requirements::default(),
            timeout: None,
            retry: RetryPolicy::default(),
        }
    }
}
