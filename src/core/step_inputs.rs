//! What a step of a workflow is given: its condition, and its inputs with what
//! earlier steps left; and what a workflow leaves itself.

use crate::config::Planted;
use crate::ids::{BlobHash, TaskId};
use crate::limits;
use crate::node::Node;
use crate::steps::{Running, badly, step_id};
use crate::task::{Data, Outcome, Report, Spec};
use crate::workflow::flow::End;
use crate::workflow::reference::{self, Reference, Root};
use crate::workflow::{Definition, Join, OnFailure, Plan, Step, WAIT, WORKFLOW, condition, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What becomes of a step whose turn has come.
pub(crate) enum Next {
    Begin(Box<Spec>),
    /// It can't begin with what there is: it has failed, which is kept like any
    /// other end.
    Fail(Box<Spec>, String),
    End(End),
    /// What it looks into is to be read first.
    Read(BlobHash),
    /// What it needs is not here yet.
    Later,
}

/// Why a value is not to be had.
pub(crate) enum Lack {
    Never(String),
    /// This is to be read first.
    Read(BlobHash),
    Yet,
}

impl Lack {
    fn of(self, reference: &Reference) -> Lack {
        match self {
            Lack::Never(problem) => Lack::Never(format!("${{{reference}}}: {problem}")),
            Lack::Read(_) | Lack::Yet => self,
        }
    }
}

impl From<String> for Lack {
    fn from(problem: String) -> Lack {
        Lack::Never(problem)
    }
}

impl From<Lack> for Next {
    fn from(lack: Lack) -> Next {
        match lack {
            Lack::Never(problem) => Next::End(badly(problem)),
            Lack::Read(hash) => Next::Read(hash),
            Lack::Yet => Next::Later,
        }
    }
}

impl Node {
    /// What becomes of step `n`, whose turn has come.
    pub(crate) fn next_of(&self, workflow: &TaskId, running: &Running, n: usize) -> Next {
        let step = running.flow.plan.step(n);
        let ignored = self.config.planted == Some(Planted::IgnoreConditions);
        if let Some(text) = step.when.as_ref().filter(|_| !ignored) {
            match self.condition_holds(workflow, running, n, text) {
                Ok(true) => {}
                Ok(false) => {
                    return Next::End(End::Skipped { reason: format!("its condition is false: {text}").into() });
                }
                Err(lack) => return lack.into(),
            }
        }
        match self.spec_of_step(workflow, running, n) {
            Ok(spec) => Next::Begin(Box::new(spec)),
            Err(Lack::Never(problem)) => {
                Next::Fail(Box::new(self.spec_of_failed(workflow, &running.flow.plan, n)), problem)
            }
            Err(lack) => lack.into(),
        }
    }

    /// The step with its inputs as they were written.
    fn spec_of_failed(&self, workflow: &TaskId, plan: &Plan, n: usize) -> Spec {
        let step = plan.step(n);
        let written = if step.action == WORKFLOW { step.inputs.get("definition") } else { Some(&step.inputs) };
        self.step_spec(workflow, step, &step.action, written.map_or_else(String::new, Value::to_string))
    }

    fn condition_holds(&self, workflow: &TaskId, running: &Running, of: usize, text: &str) -> Result<bool, Lack> {
        let plan = &running.flow.plan;
        let names = condition::mentioned(text, plan.definition.steps.iter().map(|step| step.step_id.as_str()));
        let mut steps = BTreeMap::new();
        for name in names.into_iter().filter(|name| plan.follows(of, name)) {
            let Some(n) = plan.find(name) else { continue };
            // The answer must not depend on when it is asked.
            let end = running.flow.end_of(n).ok_or(Lack::Yet)?;
            let (status, error) = (end.status(), end.why());
            let (mut result, mut output) = (Value::Null, Value::Null);
            if text.contains("result") {
                result = self.result_of(workflow, running, n)?;
                if let Some(content) = content_of(running, &result)? {
                    result = json_of(&content);
                }
            }
            if text.contains("output") {
                output = self.output_of(workflow, running, n)?;
                if let Some(content) = content_of(running, &output)? {
                    output = as_printed(&content)?.into();
                }
            }
            let left = json!({"status": status, "error": error, "result": result, "output": output});
            steps.insert(name.to_owned(), left);
        }
        Ok(condition::holds(text, &steps, &plan.definition.params)?)
    }

    fn spec_of_step(&self, workflow: &TaskId, running: &Running, n: usize) -> Result<Spec, Lack> {
        let plan = &running.flow.plan;
        let step = plan.step(n);
        let lacks = std::cell::RefCell::new(None);
        let or_lack = |value: Result<Value, Lack>| match value {
            Ok(value) => Ok(value),
            Err(Lack::Never(problem)) => Err(problem),
            Err(lack @ (Lack::Yet | Lack::Read(_))) => {
                lacks.replace(Some(lack));
                Err(String::new())
            }
        };
        let look_up = |reference: &Reference| or_lack(self.look_up(workflow, running, n, reference));
        let open = |reference: &Reference| {
            let step = reference.step().and_then(|id| plan.find(id));
            step.is_some_and(|step| running.flow.end_of(step).is_none())
        };
        let made = if let Some(items) = step.for_each.as_ref().filter(|_| plan.definition.items.is_none()) {
            // How many there are must not depend on when it is asked.
            if reference::references(items)?.iter().any(open) {
                return Err(Lack::Yet);
            }
            items_of(plan, step, &look_up, &|value| or_lack(read_items(running, value)))
                .map(|definition| (WORKFLOW, text_of(&definition)))
        } else if step.action == WORKFLOW {
            inner_of(step, &look_up).map(|definition| (WORKFLOW, text_of(&definition)))
        } else {
            reference::resolve(&step.inputs, &look_up).map(|inputs| (step.action.as_str(), inputs.to_string()))
        };
        if let Some(lack) = lacks.take() {
            return Err(lack);
        }
        let (task_type, payload) = made?;
        if payload.len() > limits::PAYLOAD_BYTES {
            let (got, limit) = (payload.len(), limits::PAYLOAD_BYTES);
            return Err(Lack::Never(format!("its inputs have {got} bytes; the limit is {limit}")));
        }
        if task_type == WAIT {
            let inputs: Value = serde_json::from_str(&payload).unwrap_or(Value::Null);
            wait_until(&inputs, self.wall())?;
        }
        Ok(self.step_spec(workflow, step, task_type, payload))
    }

    fn step_spec(&self, workflow: &TaskId, step: &Step, task_type: &str, payload: String) -> Spec {
        let of = &self.kept[workflow].slot.spec;
        let alone = task_type == WORKFLOW;
        Spec {
            task_type: task_type.into(),
            payload: payload.into_bytes().into(),
            metadata: None,
            timeout: step.timeout.filter(|_| !alone),
            retry: step.retry,
            requirements: if alone { Default::default() } else { step.requirements.clone() },
            not_before: None,
            deadline: None,
            depends_on: Vec::new(),
            idempotency_key: None,
            retry_of: None,
            cache: None,
            submitted_at: self.wall(),
            ..(**of).clone()
        }
    }

    fn look_up(&self, workflow: &TaskId, running: &Running, n: usize, reference: &Reference) -> Result<Value, Lack> {
        let plan = &running.flow.plan;
        let earlier = |step: &String| plan.find(step).ok_or_else(|| format!("${{{reference}}}: no such step"));
        Ok(match &reference.root {
            Root::Result(step) => {
                let value = self.result_of(workflow, running, earlier(step)?)?;
                match content_of(running, &value) {
                    _ if reference.path.is_empty() => value,
                    Ok(None) => reference.find(&value)?,
                    Ok(Some(content)) => reference.find(&json_of(&content))?,
                    Err(lack) => return Err(lack.of(reference)),
                }
            }
            Root::Output(step) => {
                let value = self.output_of(workflow, running, earlier(step)?)?;
                if reference.path.is_empty() {
                    return Ok(value);
                }
                let text = match content_of(running, &value).map_err(|lack| lack.of(reference))? {
                    Some(content) => Some(as_printed(&content)?),
                    None => value.as_str().map(str::to_owned),
                };
                let no_json = |e| format!("${{{reference}}}: what the step printed is no JSON: {e}");
                let value = text.map_or(Ok(value), |text| serde_json::from_str(&text).map_err(no_json))?;
                reference.find(&value)?
            }
            Root::Status(step) => json!(running.flow.end_of(earlier(step)?).map(End::status)),
            Root::Error(step) => json!(running.flow.end_of(earlier(step)?).and_then(End::why)),
            Root::Params => reference.find(&plan.definition.params)?,
            Root::Item => reference.find(plan.item(n).unwrap_or(&Value::Null))?,
            Root::Index => json!(n),
            Root::WorkflowId => json!(workflow.as_str()),
        })
    }

    /// What step `n` left: null unless it completed.
    fn result_of(&self, workflow: &TaskId, running: &Running, n: usize) -> Result<Value, Lack> {
        if running.flow.end_of(n) != Some(&End::Well) {
            return Ok(Value::Null);
        }
        let step = step_id(workflow, &running.flow.plan.name(n))?;
        let here = || self.kept.get(&step).and_then(|k| k.slot.record.body.state.closed());
        match running.reports.get(&n) {
            Some(report) => self.value_of(&step, Some(report)),
            None => self.value_of(&step, here().ok_or(Lack::Yet)?.report.as_ref()),
        }
    }

    /// What step `n` printed: null unless it completed.
    fn output_of(&self, workflow: &TaskId, running: &Running, n: usize) -> Result<Value, Lack> {
        if running.flow.end_of(n) != Some(&End::Well) {
            return Ok(Value::Null);
        }
        let step = step_id(workflow, &running.flow.plan.name(n))?;
        let kept = self.kept.get(&step).ok_or(Lack::Yet)?;
        if !kept.slot.spec.is_workflow() {
            let closed = || kept.slot.record.body.state.closed().and_then(|closed| closed.report.as_ref());
            return Ok(printed(running.reports.get(&n).or_else(closed))?);
        }
        let plan = Plan::read(&kept.slot.spec.payload).map_err(|e| e.to_string())?;
        if plan.definition.items.is_none() {
            return Err(Lack::Never(format!("{step} is a workflow, which prints nothing; it has a result")));
        }
        let of_item = |item: usize| {
            let item = step_id(&step, &plan.name(item))?;
            let closed = self.kept.get(&item).and_then(|kept| kept.slot.record.body.state.closed());
            printed(
                closed.filter(|closed| closed.outcome == Outcome::Completed).and_then(|closed| closed.report.as_ref()),
            )
        };
        Ok((0..plan.len()).map(of_item).collect::<Result<Vec<_>, _>>().map(Value::Array)?)
    }

    /// The JSON value of what a task left.
    fn value_of(&self, task: &TaskId, report: Option<&Report>) -> Result<Value, Lack> {
        let Some(report) = report else { return Ok(Value::Null) };
        let part_of_it = self.kept.get(task).filter(|k| report.truncated && k.slot.spec.is_workflow());
        if let Some(kept) = part_of_it {
            let plan = Plan::read(&kept.slot.spec.payload).map_err(|e| e.to_string())?;
            return self.value_of_workflow(task, &plan, None);
        }
        match &report.result {
            Data::Inline(text) => Ok(json_of(text)),
            Data::Blob { hash, bytes } => Ok(by_reference(*hash, *bytes)),
        }
    }

    /// What a workflow left: for items the list of what each left, else an
    /// object of what the steps left that nothing depends on.
    pub(crate) fn value_of_workflow(
        &self,
        workflow: &TaskId,
        plan: &Plan,
        running: Option<&Running>,
    ) -> Result<Value, Lack> {
        let of = |n: usize| match running {
            Some(running) => self.result_of(workflow, running, n),
            None => self.kept_result(&step_id(workflow, &plan.name(n))?),
        };
        let mut size = 0;
        let mut bounded = |n: usize| -> Result<Value, Lack> {
            let value = of(n)?;
            size += value.to_string().len();
            if size > limits::PAYLOAD_BYTES {
                return Err(Lack::Never(format!("its results have more than {} bytes", limits::PAYLOAD_BYTES)));
            }
            Ok(value)
        };
        if plan.definition.items.is_some() {
            return (0..plan.len()).map(bounded).collect::<Result<Vec<_>, _>>().map(Value::Array);
        }
        let last = (0..plan.len()).filter(|n| plan.children(*n).is_empty() && !plan.undoes(*n));
        last.map(|n| Ok((plan.name(n), bounded(n)?))).collect::<Result<_, Lack>>().map(Value::Object)
    }

    fn kept_result(&self, task: &TaskId) -> Result<Value, Lack> {
        let Some(closed) = self.kept.get(task).and_then(|k| k.slot.record.body.state.closed()) else {
            return Ok(Value::Null);
        };
        if closed.outcome == Outcome::Completed { self.value_of(task, closed.report.as_ref()) } else { Ok(Value::Null) }
    }
}

/// What is too large for a record, as it is handed on.
fn by_reference(hash: BlobHash, bytes: u64) -> Value {
    json!({"$blob": hash.to_string(), "bytes": bytes, "uri": format!("mesh://blobs/{hash}")})
}

/// What `value` stands for, if it is handed on by reference.
fn content_of(running: &Running, value: &Value) -> Result<Option<Arc<[u8]>>, Lack> {
    let Some(hash) = value.get("$blob").and_then(Value::as_str).and_then(|hash| hash.parse().ok()) else {
        return Ok(None);
    };
    if let Some(content) = running.read.get(&hash) {
        return Ok(Some(content.clone()));
    }
    let read: usize = running.read.values().map(|content| content.len()).sum();
    let bytes = value.get("bytes").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if bytes > limits::PAYLOAD_BYTES as u64 || read > LOOKED_INTO {
        let limit = limits::PAYLOAD_BYTES;
        return Err(Lack::Never(format!(
            "it has {bytes} bytes, and only {limit} can be looked into ({LOOKED_INTO} for one step); \
             pass it whole: it is handed over by reference"
        )));
    }
    Err(Lack::Read(hash))
}

/// What a step may look into of large results, all together.
const LOOKED_INTO: usize = 16 * limits::PAYLOAD_BYTES;

/// What `for_each` was given, as a list.
fn read_items(running: &Running, value: Value) -> Result<Value, Lack> {
    let text = match (content_of(running, &value)?, value) {
        (Some(content), _) => as_printed(&content)?,
        (None, Value::String(text)) => text,
        (None, other) => return Ok(other),
    };
    Ok(lines_of(&text).into())
}

fn json_of(text: &[u8]) -> Value {
    let text = String::from_utf8_lossy(text);
    serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
}

fn as_printed(text: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(text).map_err(|_| "what the step printed is no text (UTF-8)")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Standard output as `$(…)` of a shell would have it; null where there is none.
fn printed(report: Option<&Report>) -> Result<Value, String> {
    let cut = |report: &Report| {
        // What was cut is as long as may be, so no shorter than what was not.
        let len = |data: &Option<Data>| data.as_ref().map_or(0, Data::len);
        report.truncated && len(&report.output) >= len(&report.logs)
    };
    if report.is_some_and(cut) {
        return Err("what the step printed was cut: let its inputs set a larger output_limit".to_owned());
    }
    match report.and_then(|report| report.output.as_ref()) {
        None => Ok(Value::Null),
        Some(Data::Blob { hash, bytes }) => Ok(by_reference(*hash, *bytes)),
        Some(Data::Inline(text)) => as_printed(text).map(Value::String),
    }
}

fn text_of(definition: &Definition) -> String {
    serde_json::to_string(definition).expect("a definition is plain data")
}

/// A value that is too large for a record is put together from the records of
/// the steps when it is asked for.
pub(crate) fn report_of(value: &Value) -> Report {
    let text = value.to_string();
    if text.len() > limits::INLINE_BYTES {
        return Report { truncated: true, ..Report::default() };
    }
    Report { result: Data::Inline(text.into_bytes().into()), ..Report::default() }
}

/// The items of a text: those of the JSON array that it is, or its lines.
fn lines_of(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => items,
        Ok(_) | Err(_) => text.lines().map(Value::from).collect(),
    }
}

/// The workflow that runs a `for_each` step: its one step, once for each item.
fn items_of(
    plan: &Plan,
    step: &Step,
    look_up: &reference::Lookup<'_>,
    read: &dyn Fn(Value) -> Result<Value, String>,
) -> Result<Definition, String> {
    let items = reference::resolve(step.for_each.as_ref().unwrap_or(&Value::Null), look_up)?;
    let items = match read(items)? {
        Value::Array(items) if items.len() <= limits::ITEMS => items,
        Value::Array(items) => {
            return Err(format!("for_each has {} items; the limit is {}", items.len(), limits::ITEMS));
        }
        _ => return Err("for_each is neither an array nor a text".to_owned()),
    };
    let known = Plan::known_before_items;
    let inputs = if step.action == WORKFLOW {
        let params = step.inputs.get("params").cloned().unwrap_or(Value::Null);
        let mut inputs = step.inputs.clone();
        inputs["params"] = reference::resolve_some(&params, &known, look_up)?;
        inputs
    } else {
        reference::resolve_some(&step.inputs, &known, look_up)?
    };
    let on_failure = if step.on_failure == OnFailure::Continue { OnFailure::Continue } else { OnFailure::Fail };
    let one = Step {
        inputs,
        depends_on: Vec::new(),
        join: Join::All,
        when: None,
        for_each: None,
        max_concurrent: None,
        on_failure,
        ..step.clone()
    };
    Ok(Definition {
        name: step.step_id.clone(),
        params: plan.definition.params.clone(),
        steps: vec![one],
        items: Some(items),
        max_concurrent: step.max_concurrent,
    })
}

/// The workflow that a step is, with its parameters.
fn inner_of(step: &Step, look_up: &reference::Lookup<'_>) -> Result<Definition, String> {
    let definition = step.inputs.get("definition").cloned().unwrap_or(Value::Null);
    let mut definition: Definition = serde_json::from_value(definition).map_err(|e| e.to_string())?;
    if let Some(params) = step.inputs.get("params").filter(|p| !p.is_null()) {
        definition.params = reference::resolve(params, look_up)?;
    }
    Ok(definition)
}
