//! What would submit a task, a workflow or a schedule again: the inverse of
//! `task_submit` and `workflow_submit`, from what the mesh keeps of it.
//!
//! Who submitted it, when, and which task it tries again are facts of the old
//! submission and not among the arguments.

use super::failure::Failure;
use super::schedule::{CatchUp, Schedule};
use super::submit::{Cache, Durability, Placement, Requirements, RetryPolicy, TaskSubmit};
use super::value::{self, Object};
use super::workflow::{WorkflowStep, WorkflowSubmit};
use super::{Code, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::array;
use taskmesh_core::cache::Mode;
use taskmesh_core::placement::{Alternative, Condition, Placement as CorePlacement};
use taskmesh_core::schedule;
use taskmesh_core::task::{Durability as CoreDurability, Priority, Requirements as CoreRequirements, Resources};
use taskmesh_core::workflow::{self, Definition, Step};
use taskmesh_core::{Millis, Spec, TaskId};

/// An operation and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// `task_submit` or `workflow_submit`.
    pub operation: &'static str,
    /// What it takes.
    pub arguments: Value,
}

/// What submits `spec` again as `id`, with this priority.
///
/// # Errors
/// What is kept is of a kind that a newer version made.
pub fn submission(id: &TaskId, spec: &Spec, priority: Priority) -> Result<Submission, Failure> {
    let (work, times) = match schedule::Schedule::read(&spec.payload) {
        Ok(times) if spec.is_schedule() => (times.work(spec), Some(schedule_of(&times))),
        Ok(_) | Err(_) => (spec.clone(), None),
    };
    // A step can't be submitted as what it is; what it runs can.
    if work.is_workflow() {
        return written(WorkflowSubmit::NAME, &workflow_of(id, spec, &work, priority, times)?);
    }
    written(TaskSubmit::NAME, &task_of(id, spec, &work, priority, times)?)
}

fn written<O: Op>(operation: &'static str, arguments: &O) -> Result<Submission, Failure> {
    let arguments = serde_json::to_value(arguments).map_err(|e| unreadable(&e))?;
    Ok(Submission { operation, arguments })
}

fn unreadable(problem: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("what was submitted can't be read: {problem}"))
}

fn schedule_of(times: &schedule::Schedule) -> Schedule {
    Schedule {
        cron: times.cron.clone(),
        timezone: times.timezone.clone(),
        catch_up: match times.catch_up {
            schedule::CatchUp::None => CatchUp::None,
            schedule::CatchUp::One => CatchUp::One,
            schedule::CatchUp::All => CatchUp::All,
        },
    }
}

/// `spec` is that of the record, `work` what is done.
fn task_of(
    id: &TaskId,
    spec: &Spec,
    work: &Spec,
    priority: Priority,
    schedule: Option<Schedule>,
) -> Result<TaskSubmit, Failure> {
    // An item of an array has the array's key, which stands for all of it.
    let key = spec.idempotency_key.as_ref().filter(|_| !id.as_str().contains('/'));
    let needs = requirements(&work.requirements);
    let (task_type, payload, items) = body_of(work)?;
    Ok(TaskSubmit {
        task_id: key.is_none().then(|| id.to_string()),
        idempotency_key: key.map(ToString::to_string),
        priority: priority.value(),
        tags: texts(&work.tags),
        timeout: work.timeout.map(whole_seconds),
        retry_policy: Some(retry(&work.retry)),
        metadata: metadata(work)?,
        requirements: (work.requirements != CoreRequirements::default()).then_some(needs),
        not_before: spec.not_before.map(value::time),
        deadline: spec.deadline.map(value::time),
        depends_on: work.depends_on.iter().map(ToString::to_string).collect(),
        fairness_key: work.fairness_key.as_ref().map(ToString::to_string),
        durability: match work.durability {
            CoreDurability::Replicated => Durability::Replicated,
            CoreDurability::Local => Durability::Local,
        },
        exclusive: work.exclusive,
        cache: match work.cache.as_ref().map(|caching| caching.mode) {
            None => Cache::Off,
            Some(Mode::Read) => Cache::Read,
            Some(Mode::Write) => Cache::Write,
            Some(Mode::ReadWrite) => Cache::ReadWrite,
        },
        items,
        schedule,
        ..TaskSubmit::new(&task_type, payload)
    })
}

/// The type, the payload, and the items of a large array. The items of one that
/// tries some of another's again are counted anew.
fn body_of(work: &Spec) -> Result<(String, Object, Option<Vec<Object>>), Failure> {
    if *work.task_type != *array::ARRAY {
        return Ok((work.task_type.to_string(), object(&work.payload)?, None));
    }
    let mut lines = work.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let heading = lines.next().unwrap_or_default();
    let heading: array::Heading = serde_json::from_slice(heading).map_err(|e| unreadable(&e))?;
    let items = lines.map(object).collect::<Result<_, _>>()?;
    Ok((heading.task_type, heading.payload, Some(items)))
}

fn workflow_of(
    id: &TaskId,
    spec: &Spec,
    work: &Spec,
    priority: Priority,
    schedule: Option<Schedule>,
) -> Result<WorkflowSubmit, Failure> {
    let whole: Definition = serde_json::from_slice(&work.payload).map_err(|e| unreadable(&e))?;
    let params = match whole.params {
        Value::Object(params) => Some(params),
        _ => None,
    };
    let schedule = schedule.map(|schedule| serde_json::to_value(schedule).map_err(|e| unreadable(&e))).transpose()?;
    Ok(WorkflowSubmit {
        name: whole.name,
        steps: whole.steps.iter().map(step).collect::<Result<_, _>>()?,
        workflow_id: Some(id.to_string()),
        priority: priority.value(),
        tags: texts(&work.tags),
        dependencies: work.depends_on.iter().map(ToString::to_string).collect(),
        metadata: metadata(work)?,
        template: None,
        params,
        max_concurrent: whole.max_concurrent,
        deadline: spec.deadline.map(value::time),
        dry_run: false,
        schedule: schedule.and_then(|value| value.as_object().cloned()),
    })
}

fn step(step: &Step) -> Result<WorkflowStep, Failure> {
    let mut inputs = match &step.inputs {
        Value::Object(inputs) => inputs.clone(),
        _ => Object::new(),
    };
    if step.action == workflow::WORKFLOW
        && let Some(definition) = inputs.get_mut("definition")
    {
        let inner: Definition = serde_json::from_value(definition.take()).map_err(|e| unreadable(&e))?;
        *definition = inner_of(inner)?;
    }
    let part = |value: Value| value.as_object().cloned().unwrap_or_default();
    let needs = &step.requirements;
    Ok(WorkflowStep {
        step_id: step.step_id.clone(),
        action: step.action.clone(),
        inputs,
        depends_on: step.depends_on.clone(),
        join: step.join.to_string(),
        when: step.when.clone(),
        for_each: step.for_each.clone(),
        max_concurrent: step.max_concurrent,
        on_failure: step.on_failure.to_string(),
        timeout: step.timeout.map(whole_seconds),
        requirements: (*needs != CoreRequirements::default()).then(|| part(json!(requirements(needs)))),
        retry_policy: Some(part(json!(retry(&step.retry)))),
    })
}

/// A workflow that is a step, as it is written in one.
fn inner_of(inner: Definition) -> Result<Value, Failure> {
    let steps = inner.steps.iter().map(step).collect::<Result<Vec<_>, _>>()?;
    let mut written = json!({"name": inner.name, "steps": steps});
    if !inner.params.is_null() {
        written["params"] = inner.params;
    }
    if let Some(most) = inner.max_concurrent {
        written["max_concurrent"] = most.into();
    }
    Ok(written)
}

fn object(text: &[u8]) -> Result<Object, Failure> {
    serde_json::from_slice(text).map_err(|e| unreadable(&e))
}

fn metadata(spec: &Spec) -> Result<Option<Object>, Failure> {
    spec.metadata.as_ref().map(|text| object(text.as_bytes())).transpose()
}

fn texts(all: &[Arc<str>]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn whole_seconds(span: Millis) -> u64 {
    span.0.div_ceil(1_000)
}

fn retry(policy: &taskmesh_core::task::RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        max_retries: policy.max_retries,
        backoff_factor: policy.backoff_factor,
        initial_delay_ms: policy.initial_delay.0,
        max_delay_ms: policy.max_delay.0,
        jitter: policy.jitter,
    }
}

fn requirements(needs: &CoreRequirements) -> Requirements {
    Requirements {
        any_of: needs.any_of.iter().map(way).collect(),
        placement: match needs.placement {
            CorePlacement::Balance => Placement::Balance,
            CorePlacement::Spread => Placement::Spread,
            CorePlacement::Pack => Placement::Pack,
        },
        affinity_key: needs.affinity_key.as_deref().unwrap_or_default().to_owned(),
        ..basic(&needs.capabilities, &needs.labels, &needs.selector, &needs.resources)
    }
}

/// An alternative has only what differs from none: it is held against bounds of
/// its own.
fn way(way: &Alternative) -> Object {
    let written = json!(basic(&way.capabilities, &way.labels, &way.selector, &way.resources));
    let nothing = json!(Requirements::default());
    let fields = written.as_object().cloned().unwrap_or_default();
    fields.into_iter().filter(|(name, value)| nothing[name] != *value).collect()
}

fn basic(
    capabilities: &[Arc<str>],
    labels: &BTreeMap<Arc<str>, Arc<str>>,
    selector: &[Condition],
    resources: &Resources,
) -> Requirements {
    let amount = |milli: u64| milli as f64 / 1_000.0;
    Requirements {
        capabilities: texts(capabilities),
        labels: labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        cpus: amount(resources.cpu_milli),
        memory_mb: resources.memory_mb,
        gpus: amount(resources.gpu_milli),
        resources: resources.named.iter().map(|(name, milli)| (name.to_string(), amount(*milli))).collect(),
        selector: selector.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ..Requirements::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::operation;
    use taskmesh_core::{Command, Request};

    /// What the mesh keeps of a submission, and what it would submit again.
    fn kept(name: &str, arguments: Value) -> (TaskId, Spec, Priority) {
        let arguments = arguments.as_object().cloned().expect("an object");
        let prepared = operation(name).expect("an operation").prepare(arguments).expect("right arguments");
        let Request::Command(Command::Submit(submission)) = prepared.request else { panic!("no submission") };
        let id = submission.task.unwrap_or_else(|| TaskId::new("keyed").expect("an id"));
        (id, submission.spec, submission.priority)
    }

    fn comes_back(name: &str, arguments: Value) {
        let (id, spec, priority) = kept(name, arguments);
        let again = submission(&id, &spec, priority).expect("it can be read");
        assert_eq!(again.operation, name);
        assert_eq!(kept(name, again.arguments.clone()), (id, spec, priority), "{}", again.arguments);
    }

    fn full_requirements() -> Value {
        json!({
            "capabilities": ["gpu:a"], "labels": {"zone": "a"}, "cpus": 0.5, "memory_mb": 7, "gpus": 1.25,
            "resources": {"licence": 2.0}, "selector": "zone in (a,b),!spot,gpu,arch!=arm", "placement": "pack",
            "affinity_key": "k", "any_of": [{"labels": {"disk": "ssd"}}, {"cpus": 2.0, "selector": "big"}],
        })
    }

    #[test]
    fn a_task_comes_back_as_it_was() {
        comes_back("task_submit", json!({"task_type": "echo", "payload": {"a": [1, null]}, "task_id": "t"}));
        comes_back(
            "task_submit",
            json!({
                "task_type": "exec", "payload": {"argv": ["ls", "-l"]}, "task_id": "a/7", "priority": 2.5,
                "tags": ["x"], "timeout": 9, "metadata": {"m": 1}, "not_before": "2030-01-31T12:00:00.000Z",
                "deadline": "2030-02-01T12:00:00.000Z", "depends_on": ["d"], "fairness_key": "f",
                "durability": "local", "exclusive": true, "requirements": full_requirements(),
                "retry_policy": {"max_retries": 1, "backoff_factor": 3.0, "initial_delay_ms": 5, "max_delay_ms": 6, "jitter": false},
            }),
        );
        comes_back("task_submit", json!({"task_type": "echo", "payload": {}, "idempotency_key": "key"}));
    }

    #[test]
    fn a_large_array_comes_back_as_it_was() {
        let items: Vec<Value> = (0..=taskmesh_core::limits::ITEMS).map(|n| json!({"n": n})).collect();
        let array =
            json!({"task_type": "echo", "payload": {"all": 1}, "task_id": "a", "items": items, "cache": "read"});
        comes_back("task_submit", array);
    }

    #[test]
    fn a_schedule_comes_back_as_it_was() {
        let schedule = json!({"cron": "0 4 * * *", "timezone": "Asia/Tokyo", "catch_up": "all"});
        let task = json!({"task_type": "echo", "payload": {"a": 1}, "task_id": "s", "schedule": schedule,
            "not_before": "2030-01-31T12:00:00.000Z", "deadline": "2031-01-31T12:00:00.000Z"});
        comes_back("task_submit", task);
        let steps = json!([{"step_id": "a", "action": "echo"}]);
        comes_back("workflow_submit", json!({"name": "w", "workflow_id": "s", "steps": steps, "schedule": schedule}));
    }

    #[test]
    fn a_workflow_comes_back_as_it_was() {
        let inner = json!({"name": "inner", "params": {"p": 1}, "max_concurrent": 2, "steps": [
            {"step_id": "x", "action": "exec", "inputs": {"argv": ["ls"]}},
        ]});
        let steps = json!([
            {"step_id": "a", "action": "echo", "inputs": {"n": "${params.n}"}, "timeout": 3},
            {"step_id": "b", "action": "echo", "depends_on": ["a"], "join": "quorum:1", "when": "steps.a.result.n > 3",
             "for_each": [1, 2], "max_concurrent": 1, "on_failure": "continue", "requirements": full_requirements(),
             "retry_policy": {"max_retries": 0}},
            {"step_id": "c", "action": "workflow", "inputs": {"definition": inner}, "depends_on": ["b"]},
            {"step_id": "d", "action": "wait", "inputs": {"seconds": 1}},
        ]);
        comes_back(
            "workflow_submit",
            json!({
                "name": "w", "workflow_id": "w", "steps": steps, "params": {"n": 4}, "priority": 3.0, "tags": ["t"],
                "dependencies": ["v"], "metadata": {"m": true}, "max_concurrent": 5,
                "deadline": "2030-02-01T12:00:00.000Z",
            }),
        );
    }
}
