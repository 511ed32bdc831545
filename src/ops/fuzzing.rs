//! What holds for whatever arguments a caller sends. For `crate::fuzzing`.

use super::value::Object;
use super::{Code, Failure, Kind, Operation, offered, schema};
use serde_json::Value;
use taskmesh_core::Request;

/// The first byte picks an operation, the rest is the JSON of its arguments:
/// the request that they mean. It does not depend on how they were spelt; a
/// refusal is one that a person can act on, and short.
pub fn arguments(bytes: &[u8]) -> Option<Request> {
    let (pick, json) = bytes.split_first()?;
    let operation = &offered()[usize::from(*pick) % offered().len()];
    let Ok(Value::Object(arguments)) = serde_json::from_slice(json) else { return None };
    match operation.prepare(arguments.clone()) {
        Ok(prepared) => {
            assert!(prepared.question.is_none() || operation.kind == Kind::Destructive);
            means_the_same(operation, &arguments, &prepared.request);
            Some(prepared.request)
        }
        Err(failure) => {
            refused_well(operation, &failure);
            None
        }
    }
}

fn means_the_same(operation: &Operation, arguments: &Object, request: &Request) {
    let said = |arguments: Object| operation.prepare(arguments).map(|prepared| prepared.request);
    let given: Object = arguments.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
    let backwards = given.clone().into_iter().rev().collect();
    assert_eq!(said(backwards).as_ref(), Ok(request), "in another order");
    let names = operation.input["properties"].as_object().into_iter().flatten().map(|(name, _)| name);
    let mut with_nulls = given.clone();
    for name in names {
        with_nulls.entry(name.as_str()).or_insert(Value::Null);
    }
    assert_eq!(said(with_nulls).as_ref(), Ok(request), "with a null for each that was not given");
    // As the command line sends them.
    let Value::Object(spelt) = (operation.spell)(Value::Object(given)) else { panic!("arguments are an object") };
    assert_eq!(said(spelt).as_ref(), Ok(request), "as the program spells them itself");
}

fn refused_well(operation: &Operation, failure: &Failure) {
    assert!(matches!(failure.code, Code::InvalidArgument | Code::PayloadTooLarge), "{failure:?}");
    assert!(!failure.error.is_empty() && failure.error.len() <= LONGEST, "{failure:?}");
    let field = failure.details.as_ref().and_then(|details| details["field"].as_str());
    assert!(field.is_some_and(|field| !field.is_empty() && field.len() <= LONGEST), "{failure:?}");
    let envelope = Value::Object(failure.envelope());
    assert_eq!(schema::check(&operation.output, &envelope), Ok(()), "{failure:?}");
}

/// A refusal names a field, which may be deep, and the names that are valid.
const LONGEST: usize = 2_048;

#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    use super::samples;
    let seed = |name: &str, arguments: &Object| {
        let pick = offered().iter().position(|operation| operation.name == name).expect("offered");
        let json = serde_json::to_vec(arguments).expect("JSON");
        [&[u8::try_from(pick).expect("few")][..], &json].concat()
    };
    let right = offered().iter().map(|operation| seed(operation.name, &samples::right(operation.name)));
    let wrong = samples::all_wrong().map(|(operation, _, arguments)| seed(operation.name, &arguments));
    right.chain(wrong.filter(|seed| seed.len() < 400).step_by(3)).chain([seed("task_submit", &whole())]).collect()
}

/// Every parameter of the operation that has most.
#[cfg(test)]
fn whole() -> Object {
    let arguments = serde_json::json!({"task_type": "exec", "payload": {"argv": ["ls", "-l"]}, "task_id": "a",
        "priority": 2.5, "tags": ["x"], "timeout": 7, "retry_policy": {"max_retries": 1, "backoff_factor": 1.5,
        "initial_delay_ms": 5, "max_delay_ms": 9, "jitter": false}, "metadata": {"m": [1, null]},
        "not_before": "1970-01-01T00:00:01Z", "deadline": "2030-01-01T01:00:02+01:00", "depends_on": ["b"],
        "fairness_key": "f", "durability": "local", "exclusive": true, "cache": "off",
        "requirements": {"capabilities": ["fast"], "cpus": 0.5, "memory_mb": 64, "gpus": 1, "labels": {"zone": "a"},
        "resources": {"licence": 1.5}}, "items": [{"argv": ["cat"]}, {"stdin": "x"}]});
    arguments.as_object().cloned().unwrap_or_default()
}

/// Names and values that the schemas know, as they stand in JSON.
#[cfg(test)]
pub(crate) fn words() -> Vec<String> {
    fn collect(schema: &Value, into: &mut std::collections::BTreeSet<String>) {
        into.extend(schema["enum"].as_array().into_iter().flatten().map(|value| value.to_string()));
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            into.insert(format!("\"{name}\":"));
            collect(inner, into);
        }
        if schema["items"].is_object() {
            collect(&schema["items"], into);
        }
    }
    let mut words = std::collections::BTreeSet::new();
    offered().iter().for_each(|operation| collect(&Value::Object(operation.input.clone()), &mut words));
    words.extend(["{}", "[]", "null", "true", "1e300", "-1", "\"\""].map(str::to_owned));
    words.into_iter().collect()
}
